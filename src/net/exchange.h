/* Inside the server: its own state, one connection, one request. Private to server.c and exchange.c. */
#ifndef NET_EXCHANGE_H
#define NET_EXCHANGE_H

#include "codec/gzip.h"
#include "io/thread.h"
#include "net/server.h"
#include "net/tls.h"
#include "net/watchdog.h"

#include <microhttpd.h>

/* Certificates and credentials of one configuration; immutable, shared, counted. */
struct identity {
    _Atomic int use_count;
    struct pool *pool;
    struct net_auth *auth;
    struct tls_cert *cert; /* NULL without TLS */
};

struct listener;

struct net_server {
    struct io *io;
    struct pool *pool;
    struct net_server_config config;
    enum net_client_auth client_auth;
    enum net_tls_version tls_min, tls_max;
    bool is_tls;
    struct slice client_ca_file;
    struct slice client_ca; /* its text */
    struct listener *listener;
    struct watchdog *watchdog;
    struct io_mutex lock; /* of identity and running_count; a leaf */
    struct io_cond idle;  /* running_count became 0 */
    struct identity *identity;
    size_t running_count;
    _Atomic int64_t bodies_bytes; /* charged to the common budget */
    _Atomic bool is_stopping;
    _Atomic bool is_closing;
};

struct exchange;

/* Owner: the connection's thread; watch belongs to the watchdog. */
struct connection {
    struct net_server *server;
    struct pool *pool; /* of this record */
    struct watch watch;
    int fd;
    struct identity *identity; /* of the handshake */
    struct exchange *exchange; /* the request in work */
    char peer[NET_PEER_BYTES_MAX];
};

struct extra_header {
    const char *name;
    const char *value;
};

/* One request and its answer. request is first, so that a net_request is its exchange. */
struct exchange {
    struct net_request request;
    struct net_response response;
    struct connection *connection;
    struct MHD_Connection *library;
    const struct net_route *route;
    struct identity *identity; /* keeps request.user alive */
    struct buf body;
    size_t body_bytes_max;
    size_t charged_bytes;
    size_t discarded_bytes;
    bool has_begun;
    bool has_body;
    unsigned refused_status; /* 0 = not refused */
    const char *refused_text;
    unsigned allowed; /* methods of the path */
    struct extra_header headers[NET_RESPONSE_HEADERS_MAX];
    size_t header_count;
    /* streaming */
    struct buf chunk;
    struct buf packed;
    struct gzip_writer *gzip;
    struct slice ready; /* what of chunk or packed was not yet taken */
    bool is_over;
};

struct identity *identity_get(struct net_server *server);
void identity_put(struct identity *identity);

/* The request line arrived. target is copied. NULL: no memory left in the budgets. */
struct exchange *exchange_open(struct connection *connection, const char *target);
void exchange_close(struct exchange *x);

/* The head is complete; a part of the body arrived; everything arrived. False: cut the connection. */
bool exchange_begin(struct exchange *x, struct MHD_Connection *library, const char *method);
bool exchange_body(struct exchange *x, struct slice part);
bool exchange_end(struct exchange *x);

#endif
