/* The HTTP client: one per thread, keeps connections alive between calls, reads into a bounded buffer.
 *
 * Limits hold while bytes arrive: a body that never ends, a gzip bomb or a wrong length stops at the limit
 * or the timeout. Proxies from the environment are ignored. */
#ifndef NET_CLIENT_H
#define NET_CLIENT_H

#include "base/buf.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "net/web_config.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct io;
struct net_client;

#define NET_CLIENT_HEADERS_MAX     32
#define NET_CLIENT_CONNECTIONS_MAX 64 /* kept alive per client */
#define NET_CLIENT_REDIRECTS_MAX   10
#define NET_CLIENT_URL_BYTES_MAX   8192

struct net_tls_options {
    const char *ca_file; /* NULL = the system's; absolute path */
    const char *cert_file, *key_file;
    const char *server_name; /* for the certificate and SNI; NULL = the URL's host */
    bool insecure_skip_verify;
    enum net_tls_version tls_min; /* 0 = NET_TLS_1_2 when min_set is false */
    bool tls_min_set;
};

/* A header of the answer, borrowed during the call, the value without white space around it. An empty name: an
 * answer begins, and what was told before belonged to another (a redirect, an interim answer). */
typedef void (*net_client_on_header)(void *context, struct slice name, struct slice value);

/* A part of the body as it comes, borrowed during the call, which may wait. Anything but OK ends the exchange
 * with this error and closes the connection. */
typedef err (*net_client_on_body)(void *context, struct slice part);

/* All strings are NUL-terminated and borrowed during the call. */
struct net_client_request {
    const char *url;
    const char *const *headers; /* "Name: value" */
    size_t header_count;
    const char *method;          /* NULL = GET */
    struct slice body;           /* sent when not empty or the method is POST or PUT */
    const char *user, *password; /* basic auth; user NULL = none */
    const char *authorization;   /* value of the header; NULL = none */
    struct net_tls_options tls;
    bool follow_redirects;          /* http and https only; credentials stay with the first host */
    bool accept_gzip;               /* ask for gzip and undo it */
    int64_t timeout_ms;             /* whole exchange, > 0 */
    size_t encoded_bytes_max;       /* as received; ERR_LIMIT */
    const _Atomic bool *abort;      /* may be NULL; true ends the call within 1 s: ERR_CANCELED */
    bool path_as_is;                /* "." and ".." stay in the path: what was signed is what is sent */
    net_client_on_header on_header; /* may be NULL */
    void *header_context;
    net_client_on_body
        on_body; /* may be NULL; then the body goes there, and not into a buffer; without gzip */
    void *body_context;
};

struct net_client_response {
    unsigned status;
    char content_type[256]; /* cut when longer */
    uint64_t encoded_bytes;
};

/* Owner: one thread at a time. ERR_LIMIT. */
err net_client_open(struct io *io, struct pool *pool, struct net_client **out_client);
void net_client_close(struct net_client *client);

/* Do one request. The decoded body is appended to `body`, whose maximum bounds it (ERR_LIMIT beyond), or handed to
 * on_body.
 * A status of 400 and more is no error here. at gets a text for people ("connection refused", …).
 * Errors ERR_INPUT a URL or option that is not possible, ERR_IO could not connect, was cut off or answers
 * garbage, ERR_TIMEOUT, ERR_LIMIT, ERR_CANCELED, ERR_DENIED certificate not accepted, ERR_NOT_FOUND no
 * such host or file. */
err net_client_do(struct net_client *client, const struct net_client_request *request, struct buf *body,
                  struct net_client_response *out_response, struct err_at *at);

#endif
