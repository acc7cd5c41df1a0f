/* The HTTP/1.1 server: a router over (method, path), one thread per connection, handlers may block.
 *
 * A request has been read completely when its handler runs; everything it allocates in request->pool is
 * freed after the answer was sent. A handler fills struct net_response and returns; the server adds
 * Content-Length or chunks, gzip, CORS, HEAD and Date.
 *
 * Answers the server gives itself (text/plain, one line): 400 malformed, 401 no valid credentials, 403 no
 * acceptable client certificate, 404 no such path, 405 other method (with Allow), 413 body, form or parameters
 * over the limit, 414/431 head too large, 500 answer over the limit, 501 unknown method or transfer coding, 503
 * over a budget (with Retry-After). Who is too slow gets no answer: the connection is closed. */
#ifndef NET_SERVER_H
#define NET_SERVER_H

#include "base/buf.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "net/web_config.h"

#include <stdbool.h>
#include <stdint.h>

struct io;
struct net_server;

#define NET_ROUTES_MAX           256
#define NET_RESPONSE_HEADERS_MAX 16
#define NET_PEER_BYTES_MAX       64

enum net_method { /* bits, so that a route can take several */
                  NET_GET = 1,
                  NET_HEAD = 2,
                  NET_POST = 4,
                  NET_PUT = 8,
                  NET_DELETE = 16,
                  NET_OPTIONS = 32,
                  NET_PATCH = 64,
};

struct net_param {
    struct slice name;
    struct slice value;
};

struct net_request {
    struct pool *pool;              /* of this request; its budget is config.request_bytes_max */
    enum net_method method;         /* HEAD arrives at GET handlers as NET_HEAD */
    struct slice path;              /* percent-decoded, without query */
    struct slice target;            /* as sent, with query */
    struct slice argument;          /* what {name} of the route matched, decoded; else empty */
    const struct net_param *params; /* decoded; of a form body first, then of the query; in order */
    size_t param_count;
    struct slice body;             /* as sent (Content-Encoding not undone); the form's text for forms */
    struct slice user;             /* who was authenticated; empty when nobody had to be */
    char peer[NET_PEER_BYTES_MAX]; /* "10.0.0.1:4711" */
    int64_t start_ns;              /* io_monotonic_ns when the head had arrived */
};

struct net_response {
    struct pool *pool;        /* = request->pool */
    unsigned status;          /* starts as 200 */
    const char *content_type; /* static or in the pool; NULL = none */
    struct buf body;          /* opened by the server with config.response_bytes_max */

    /* Streaming, instead of body: called on the connection's thread after the handler returned, again and
     * again, with an empty chunk to put some 64 KB into (no more than NET_CHUNK_BYTES_MAX). OK: go on (an
     * empty chunk is allowed), ERR_END: this chunk was the last; any other error cuts the connection,
     * so that the client sees that the answer is not whole. */
    err (*next)(void *context, struct buf *chunk);
    void *next_context;
    void (*done)(void *context); /* may be NULL; called once with next_context when the answer is over */
};

/* 64 KB and the longest thing that is written at once: a native histogram of 16,385 buckets of some 85 bytes
 * (1.4 MB) with a label set of escaped control characters (384 KB). */
#define NET_CHUNK_BYTES_MAX (4u << 20)

/* context: net_server_config.context. */
typedef void (*net_handler)(void *context, struct net_request *request, struct net_response *response);

struct net_route {
    unsigned methods; /* NET_GET | NET_POST …; GET serves HEAD too, OPTIONS is answered always */
    const char *path; /* "/api/v1/label/{name}/values": at most one {name}, one whole segment; a
                               * last segment "*" takes any rest, as argument */
    net_handler handle;
    size_t body_bytes_max; /* 0 = config.body_bytes_max */
    bool is_open;          /* needs no credentials (health checks) */
    bool has_raw_body;     /* never a form, whatever Content-Type says: curl calls every body one */
};

struct net_server_config {
    const char *listen;             /* "127.0.0.1:9090", ":9090" (all, IPv6 too), "[::1]:0" */
    void *context;                  /* for handlers */
    const struct net_route *routes; /* borrowed until close */
    size_t route_count;
    const struct net_web_config *web; /* NULL = no TLS, no credentials; borrowed during open */
    bool cors;                        /* answer Origin headers with "*", as Prometheus does */

    unsigned connections_max;          /* 1,024; then the idlest one is cut, or the next waits in the queue */
    unsigned connections_per_ip_max;   /* 512; more are closed at once */
    size_t body_bytes_max;             /* 64 MB → 413 */
    size_t bodies_in_flight_bytes_max; /* 512 MB over all requests → 503 */
    size_t request_bytes_max;          /* 1 GB: budget of request->pool */
    size_t response_bytes_max;         /* 256 MB: maximum of response->body */
    size_t params_max;                 /* 10,000 → 413 */
    size_t params_bytes_max;           /* 10 MB of a form body → 413 */
    int64_t idle_ms_max;               /* 60,000: until a kept connection's next first line */
    int64_t head_ms_max;               /* 10,000: a new connection's first line; rest of a head */
    int64_t body_ms_max;               /* 120,000: whole body */
    int64_t send_ms_max;               /* 300,000: whole answer */
    size_t body_bytes_per_s_min;       /* 1,024, after body_grace_ms */
    int64_t body_grace_ms;             /* 5,000 */
    size_t gzip_bytes_min;             /* 1,024: smaller bodies are sent as they are */
};

struct net_server_config net_server_config_default(void);

/* Listen and serve. pool: parent of all request pools.
 * Errors ERR_INPUT a bad address, route or certificate (text in at); ERR_BUSY the port is taken;
 * ERR_DENIED; ERR_NOT_FOUND a certificate file; ERR_LIMIT. */
err net_server_open(struct io *io, struct pool *pool, const struct net_server_config *config,
                    struct net_server **out_server, struct err_at *at);

/* The port that is listened on (useful with port 0). */
uint16_t net_server_port(const struct net_server *server);

/* Take new certificates and credentials, all or nothing; running connections keep their TLS session. TLS cannot
 * be switched on or off, nor versions or client authentication changed: ERR_UNSUPPORTED. */
err net_server_reload(struct net_server *server, const struct net_web_config *web, struct err_at *at);

/* Stop accepting connections and close idle ones, now; running requests go on and are answered with
 * "Connection: close". */
void net_server_stop(struct net_server *server);

/* Stop, wait up to timeout_ms for running requests, then cancel and cut those that are left, wait for their
 * handlers and free everything. */
void net_server_close(struct net_server *server, int64_t timeout_ms);

/* Has the client gone away, or is the server being closed? One system call: ask every few ms, not per sample. */
bool net_request_canceled(const struct net_request *request);

/* A header of the request by name (any case); empty when absent. Borrowed for the request. */
struct slice net_request_header(const struct net_request *request, const char *name);

/* The first parameter of this name; false and an empty slice when absent. */
bool net_request_param(const struct net_request *request, const char *name, struct slice *out_value);

/* Add a header to the answer; both are copied. ERR_LIMIT; ERR_INPUT: empty, a line break inside, or one that
 * the server sets itself (Content-Length, Transfer-Encoding, Connection, Date). */
err net_response_header(struct net_response *response, const char *name, const char *value);

#endif
