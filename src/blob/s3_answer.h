/* What an S3 store answers, decoded: headers, and bodies in XML. Every byte is the store's, and a store may be
 * anybody: everything is bounded, and nothing is believed that was not checked. */
#ifndef BLOB_S3_ANSWER_H
#define BLOB_S3_ANSWER_H

#include "base/err.h"
#include "base/pool.h"
#include "base/sha256.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define S3_ANSWER_BYTES_MAX    (4u << 20) /* of a body in XML: 1,000 keys of 3 KB at most, encoded */
#define S3_ANSWER_DEPTH_MAX    8
#define S3_PAGE_COUNT_MAX      1000 /* entries of a page, as asked for */
#define S3_VALUE_BYTES_MAX     4096 /* text of an element that matters */
#define S3_UPLOAD_ID_BYTES_MAX 1024
#define S3_ETAG_BYTES_MAX      128
#define S3_PUT_ID_BYTES        33 /* 128 random bits as text, with a NUL */

/* Metadata of every object that the driver writes. */
#define S3_META_SHA256 "x-amz-meta-kelpie-sha256" /* of all bytes, hexadecimal */
#define S3_META_PUT    "x-amz-meta-kelpie-put"    /* which call wrote it: S3_PUT_ID_BYTES - 1 digits */

/* Headers. Texts are empty and numbers -1 where the header is absent, too long or malformed; sha256 and put_id
 * have as many hexadecimal digits as they should. */
struct s3_response {
    unsigned status;
    int64_t content_bytes;                        /* Content-Length */
    int64_t range_first, range_last, range_bytes; /* Content-Range: bytes first-last/bytes */
    int64_t retry_after_ms;
    int64_t date_ms; /* of the store's clock */
    char etag[S3_ETAG_BYTES_MAX];
    char sha256[SHA256_HEX_BYTES];
    char put_id[S3_PUT_ID_BYTES];
    char region[64];
};

void s3_response_init(struct s3_response *out);
/* Take one header of an answer; an empty name: init. */
void s3_response_header(struct s3_response *response, struct slice name, struct slice value);

enum s3_answer_kind {
    S3_ANSWER_ERROR,     /* code, message, region */
    S3_ANSWER_LIST,      /* ListObjectsV2: items, is_truncated, next_token */
    S3_ANSWER_UPLOADS,   /* ListMultipartUploads: items */
    S3_ANSWER_INITIATED, /* upload_id */
    S3_ANSWER_COMPLETED, /* etag */
};

struct s3_item {
    const char *key;       /* never NULL; a NUL in it is \x01 here, which no key of ours holds either */
    const char *upload_id; /* S3_ANSWER_UPLOADS: never NULL */
    int64_t t_ms;          /* LastModified or Initiated; 0 = absent or malformed */
};

/* Texts are in the pool, NUL-terminated, and never NULL. */
struct s3_answer {
    enum s3_answer_kind kind;
    const char *code, *message, *region, *etag; /* printable ASCII */
    const char *upload_id;
    const char *next_token;
    bool is_truncated;
    struct s3_item *items; /* in the order of the store */
    size_t count;
};

/* Decode a body. Errors ERR_INPUT not XML, a document type, none of the five, fields that must be there are not
 * (a list says whether it is truncated, and has a next_token exactly if it is), or a key is encoded wrongly;
 * ERR_LIMIT too long, deep or many. */
err s3_answer_decode(struct slice body, struct pool *pool, struct s3_answer *out_answer);

/* "2024-01-31T23:59:59.000Z" and "Fri, 24 May 2013 00:00:00 GMT" → Unix ms. False: malformed. */
bool s3_time_parse(struct slice text, int64_t *out_ms);
bool s3_http_date_parse(struct slice text, int64_t *out_ms);

#endif
