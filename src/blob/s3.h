/* The parts of the S3 driver among themselves:
 *
 *   blob_s3.c the table, behind s3_gate.c ─→ s3_upload.c puts ────────┐
 *                  s3_probe.c opening     ─→ s3_fetch.c reads, lists ─┴→ s3_request.c: sign, send, judge, wait
 *                                             s3_sign.c, s3_credentials.c, s3_answer.c ─┘   └─→ s3_transport.c */
#ifndef BLOB_S3_H
#define BLOB_S3_H

#include "base/time.h"
#include "blob/blob_driver.h"
#include "blob/s3_answer.h"
#include "blob/s3_credentials.h"
#include "blob/s3_gate.h"
#include "blob/s3_sign.h"
#include "blob/s3_transport.h"
#include "io/thread.h"

#define S3_HOST_BYTES_MAX   256
#define S3_BUCKET_BYTES_MAX 63
#define S3_PREFIX_BYTES_MAX 200
#define S3_PATH_BYTES       (S3_BUCKET_BYTES_MAX + S3_PREFIX_BYTES_MAX + BLOB_KEY_BYTES_MAX + 8)
#define S3_URL_BYTES_MAX    8192
#define S3_PARTS_MAX        10000 /* of an upload, by every store */
#define S3_PART_BYTES_MIN   (5u << 20)
#define S3_PART_BYTES_MAX   (1u << 30)
#define S3_ERROR_BYTES_MAX  65536 /* body of an answer that is an error */
#define S3_EMPTY_SHA256     "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct s3_store {
    struct blob base;
    struct io *io;
    struct pool *pool;
    struct s3_transport *transport;
    struct s3_credentials *credentials;
    struct blob_s3_config config;       /* its strings point into pool */
    char scheme[8];                     /* "http" or "https" */
    char host[S3_HOST_BYTES_MAX + 80];  /* as the header Host, with the bucket if virtual_host */
    char root[S3_BUCKET_BYTES_MAX + 2]; /* "/bucket", or "" if virtual_host */
    struct s3_gate gate;                /* every call of the table goes through it */
    struct io_mutex lock;               /* of what follows, and of the versions of handles; a leaf */
    int64_t retry_parts;                /* retries that may be made now, × RETRY_PARTS of s3_request.c */
    int64_t filled_ns;                  /* when they were counted last */
    int64_t quiet_until_ns;             /* the store asked to be left alone until then */
    struct err_at last_failure;
};

/* ---- s3_request.c ---- */

struct s3_call;

struct s3_result {
    struct buf body; /* of the last answer, opened by s3_result_open */
    struct s3_response response;
    bool is_final; /* asking again does not help */
    bool was_renewed;
    char code[64]; /* of the store's error, "" = none was told */
    struct err_at why;
};

/* Is an answer of 2xx what was asked for? Not OK: it counts as a failure, and is asked for again. */
typedef err (*s3_accept)(const struct s3_call *call, struct s3_result *result);

/* Texts are borrowed during the call. */
struct s3_call {
    const char *method;
    const char *key; /* checked; NULL = the bucket */
    struct s3_pair params[8];
    size_t param_count;
    struct s3_pair headers[8]; /* besides those of every request */
    size_t header_count;
    struct slice body;
    const char *body_sha256; /* text; NULL = an empty body */
    size_t answer_bytes_max; /* what an answer of 2xx may have */
    int64_t more_ms;         /* the store needs so much longer */
    s3_accept accept;        /* of an answer of success; may be NULL */
    void *context;
};

/* How long a call may go on. */
struct s3_patience {
    int64_t until_ns; /* 0 = nothing failed yet */
    unsigned tries;
};

/* Save up as many retries as there are in a minute. */
void s3_retries_fill(struct s3_store *store, unsigned per_minute);

void s3_result_open(struct s3_store *store, struct s3_result *out_result);
void s3_result_close(struct s3_result *result);

/* One request. OK: 200, of a GET 206, of a DELETE 204, and accepted. Errors, by the answer: ERR_NOT_FOUND no such
 * key (or upload), ERR_EXISTS 412 PreconditionFailed, ERR_CONFLICT 409 that may pass, ERR_END 416 InvalidRange,
 * ERR_SPACE 507, and those of blob.h's list for a network. A text is in result->why. */
err s3_try(struct s3_store *store, const struct s3_call *call, struct s3_result *result);
/* Wait before another try. False: there is none, because of time, of the budget of retries or because of abort. */
bool s3_wait(struct s3_store *store, struct s3_patience *patience, const struct s3_result *result);
/* Requests until one is answered for good, or patience ends. */
err s3_do_within(struct s3_store *store, const struct s3_call *call, struct s3_result *result,
                 struct s3_patience *patience);
err s3_do(struct s3_store *store, const struct s3_call *call, struct s3_result *result);
/* A call of the driver ends with e: count it and keep its text if it is a failure. Returns e, or ERR_CANCELED for
 * a failure after abort was set. */
err s3_ended(struct s3_store *store, err e, const struct err_at *why);
bool s3_is_aborted(const struct s3_store *store);

/* ---- s3_fetch.c ---- */

/* What an object was when it was looked at. */
struct s3_version {
    uint64_t size;
    char etag[S3_ETAG_BYTES_MAX];  /* never "" */
    char sha256[SHA256_HEX_BYTES]; /* "" = it has none: not written by this driver */
};

/* Size, metadata and etag of an object in result->response. With `sure` an absence is confirmed by a request whose
 * answer has a body, because a HEAD's cannot tell a missing key from a missing bucket. */
err s3_head(struct s3_store *store, const char *key, bool sure, struct s3_result *result,
            struct s3_patience *patience);
/* Is there really an object? Its first byte is asked for. OK with its metadata and range in result->response;
 * ERR_END it is there and empty. */
err s3_first_byte(struct s3_store *store, const char *key, struct s3_result *result,
                  struct s3_patience *patience);
/* Read [offset, offset + len) of the object of this version, which several threads may share: where the object was
 * replaced by equal bytes it becomes the new one's. ERR_CONFLICT: replaced by others. */
err s3_read(struct s3_store *store, const char *key, struct s3_version *version, uint64_t offset, void *at,
            size_t len, struct s3_result *result);
/* As blob.h says, of a key or prefix that was checked. */
err s3_get(struct s3_store *store, const char *key, size_t bytes_max, struct pool *pool,
           struct slice *out_bytes, struct s3_result *result);
err s3_list(struct s3_store *store, const char *prefix, struct pool *pool, struct blob_entry **out_entries,
            size_t *out_count, struct s3_result *result);

/* ---- s3_upload.c ---- */

#define S3_UPLOAD_MS_MAX MS_PER_DAY /* an upload in parts is given up after so long: 160 GB at 2 MB/s */

err s3_put(struct s3_store *store, const char *key, struct slice bytes, bool if_absent,
           struct s3_result *result);
err s3_put_file(struct s3_store *store, const char *key, const char *temp_path, bool if_absent,
                struct s3_result *result);
/* Begin an upload in parts, send one (ERR_CONFLICT: the upload is gone), end it, or give it up. */
err s3_upload_begin(struct s3_store *store, const char *key, const char *put_id, const char *sha256,
                    char out_upload_id[S3_UPLOAD_ID_BYTES_MAX], struct s3_result *result);
struct s3_part {
    char etag[S3_ETAG_BYTES_MAX];
    uint32_t crc;
};
err s3_upload_part(struct s3_store *store, const char *key, const char *upload_id, unsigned number,
                   struct slice bytes, struct s3_part *out_part, struct s3_result *result);
/* One try to complete, if the object there has the etag if_match, or, where that is "", if there is none. */
err s3_upload_end(struct s3_store *store, const char *key, const char *upload_id, const struct s3_part *parts,
                  size_t part_count, const char *if_match, struct s3_result *result);
/* One try. */
err s3_upload_abort(struct s3_store *store, const char *key, const char *upload_id, struct s3_result *result);
void s3_put_id(struct s3_store *store, char out[S3_PUT_ID_BYTES]);

/* ---- s3_probe.c ---- */

/* Is the store what blob_open_s3 promises? Its errors. */
err s3_probe(struct s3_store *store, struct err_at *at);

/* blob_open_s3 over another transport, which belongs to the store also when opening fails. */
err blob_open_s3_over(const struct blob_s3_config *config, struct s3_transport *transport, struct io *io,
                      struct pool *pool, struct blob **out_blob, struct err_at *at);

#endif
