/* Signature Version 4 for S3 (AWS "Signature Calculations for the Authorization Header: Transferring Payload in a
 * Single Chunk"). What is signed is what is sent: the query of the URL is made by s3_put_query too. */
#ifndef BLOB_S3_SIGN_H
#define BLOB_S3_SIGN_H

#include "base/buf.h"
#include "base/sha256.h"

#include <stdint.h>

#define S3_PAIRS_MAX      16 /* headers or parameters of a request */
#define S3_DATE_BYTES     17 /* "20130524T000000Z" and a NUL */
#define S3_DAY_BYTES      9  /* "20130524" and a NUL */
#define S3_SIGNED_MAX     16384
#define S3_BASE64_BYTES_4 9 /* of four bytes, with a NUL */

/* A header (name in lower case, value without white space around it) or a parameter (not encoded). */
struct s3_pair {
    const char *name;
    const char *value;
};

struct s3_signing_key {
    char day[S3_DAY_BYTES];
    uint8_t key[SHA256_BYTES];
};

struct s3_to_sign {
    const char *method;
    const char *path; /* from its '/', not encoded */
    const struct s3_pair *params;
    size_t param_count;
    const struct s3_pair
        *headers; /* all are signed; host, x-amz-date and x-amz-content-sha256 are among them */
    size_t header_count;
    const char *payload_sha256; /* as text */
    const char *date;           /* that of x-amz-date */
    const char *region;
    const char *access_key;
};

/* "20130524T000000Z" of Unix ms. */
void s3_date_print(int64_t t_ms, char out[S3_DATE_BYTES]);

/* Append s with everything but A-Z a-z 0-9 - . _ ~ (and '/' if it is kept) as %XX. */
void s3_put_encoded(struct buf *out, struct slice s, bool keep_slash);
/* Append "name=value&…", encoded and in the order of the signature. */
void s3_put_query(struct buf *out, const struct s3_pair *params, size_t count);

/* The key that signs a whole day (the first eight bytes of date) for region and service "s3". */
void s3_signing_key_of(const char *secret_key, const char *date, const char *region,
                       struct s3_signing_key *out_key);

/* Append the value of the header Authorization to out, whose error tells. At most S3_PAIRS_MAX headers,
 * parameters. */
void s3_sign(const struct s3_to_sign *request, const struct s3_signing_key *key, struct buf *out);

/* The value of x-amz-checksum-crc32c: base64 of the four bytes, most significant first. */
void s3_crc_print(uint32_t crc, char out[S3_BASE64_BYTES_4]);

#endif
