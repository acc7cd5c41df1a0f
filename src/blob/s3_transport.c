/* Exchanges with an S3 store over the HTTP client. From: s3_request.c and s3_credentials.c. To: net/client.
 *
 * A client belongs to one thread at a time and keeps its connections alive, so clients are kept on a stack:
 * the one used last, whose connection is the freshest, is taken first.
 *
 * Invariants
 * 1. At most connections_max exchanges run. Nobody waits here: a request is signed already, and gets old. */
#include "blob/s3_transport.h"

#include "base/check.h"
#include "io/io.h"
#include "io/thread.h"
#include "net/client.h"

struct connection {
    struct connection *next;
    struct net_client *client;
};

struct http_transport {
    struct s3_transport base;
    struct io *io;
    struct pool *pool;
    struct net_tls_options tls;
    const _Atomic bool *abort;
    struct io_mutex lock; /* of what follows; a leaf but for the pool of the clients */
    struct connection *idle;
    unsigned count, count_max;
};

static err take(struct http_transport *t, struct connection **out_connection, struct err_at *error)
{
    err e = OK;
    void *at = NULL;
    struct connection *connection = NULL;
    io_mutex_lock(&t->lock);
    if (t->idle != NULL) {
        connection = t->idle;
        t->idle = connection->next;
    } else if (t->count == t->count_max) {
        e = err_set(error, ERR_BUSY, "all connections are in use");
    } else {
        TRY_OUT(pool_zalloc(t->pool, sizeof *connection, &at));
        connection = at;
        TRY_OUT(net_client_open(t->io, t->pool, &connection->client));
        t->count++;
    }
    *out_connection = connection;
out:
    io_mutex_unlock(&t->lock);
    return e;
}

static void give_back(struct http_transport *t, struct connection *connection)
{
    io_mutex_lock(&t->lock);
    connection->next = t->idle;
    t->idle = connection;
    io_mutex_unlock(&t->lock);
}

static void on_header(void *context, struct slice name, struct slice value)
{
    s3_response_header(context, name, value);
}

static err http_exchange(struct s3_transport *base, const struct s3_request *r, struct buf *body,
                         struct s3_response *out_response, struct err_at *at)
{
    struct http_transport *t = (struct http_transport *)base;
    struct s3_response response;
    struct net_client_response http = { 0 };
    struct connection *connection;
    s3_response_init(&response);
    TRY(take(t, &connection, at));
    struct net_client_request request = {
        .url = r->url,
        .headers = r->headers,
        .header_count = r->header_count,
        .method = r->method,
        .body = r->body,
        .tls = t->tls,
        .timeout_ms = r->timeout_ms,
        .encoded_bytes_max = r->answer_bytes_max,
        .abort = t->abort,
        .path_as_is = true,
        .on_header = on_header,
        .header_context = &response,
    };
    err e = net_client_do(connection->client, &request, body, &http, at);
    give_back(t, connection);
    TRY(e);
    response.status = http.status;
    *out_response = response;
    return OK;
}

static void http_close(struct s3_transport *base)
{
    struct http_transport *t = (struct http_transport *)base;
    for (struct connection *c = t->idle; c != NULL; c = c->next, t->count--)
        net_client_close(c->client);
    check(t->count == 0);
    io_mutex_done(&t->lock);
    pool_close(t->pool);
}

err s3_transport_open(struct io *io, struct pool *parent, const struct net_tls_options *tls,
                      unsigned connections_max, const _Atomic bool *abort,
                      struct s3_transport **out_transport)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(parent, "s3_transport", sizeof(struct http_transport), &pool, &at));
    struct http_transport *t = at;
    t->base = (struct s3_transport){ .exchange = http_exchange, .close = http_close };
    t->io = io;
    t->pool = pool;
    t->abort = abort;
    t->count_max = connections_max;
    if (tls != NULL)
        t->tls = *tls;
    io_mutex_init(&t->lock);
    *out_transport = &t->base;
    return OK;
}
