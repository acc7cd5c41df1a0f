/* The way to a store: one call, request → response. In the server this is the HTTP client; tests bring their
 * own. */
#ifndef BLOB_S3_TRANSPORT_H
#define BLOB_S3_TRANSPORT_H

#include "base/buf.h"
#include "base/err.h"
#include "blob/s3_answer.h"

#include <stdatomic.h>

struct io;
struct net_tls_options;

struct s3_request {
    const char *method;
    const char *url;
    const char *const *headers; /* "Name: value" */
    size_t header_count;
    struct slice body;
    int64_t timeout_ms;
    size_t answer_bytes_max;
};

/* The driver's first member. */
struct s3_transport {
    /* One exchange, from any thread. body, which is empty, gets the answer's; any status is OK.
     * Errors as net_client_do; whether the store acted on the request is then unknown. */
    err (*exchange)(struct s3_transport *transport, const struct s3_request *request, struct buf *body,
                    struct s3_response *out_response, struct err_at *at);
    void (*close)(struct s3_transport *transport);
};

/* Over the HTTP client, one of at most connections_max for each exchange that runs; another one is ERR_BUSY: what
 * waits, waits before it is signed (s3_gate.h). tls and abort may be NULL and are borrowed until close. Errors
 * ERR_LIMIT. */
err s3_transport_open(struct io *io, struct pool *pool, const struct net_tls_options *tls,
                      unsigned connections_max, const _Atomic bool *abort,
                      struct s3_transport **out_transport);

#endif
