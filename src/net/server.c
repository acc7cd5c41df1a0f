/* The server: the HTTP library between the listener's threads and the requests, and the life of both. From:
 * connections of listener.c. To: exchange.c, which has the request's own story; handlers see neither the library
 * nor this file.
 *
 *   open ─→ serving ─ stop: no new connections, idle ones cut ─→ draining ─ close: wait, cancel, cut ─→ gone
 *
 * Threads: the listener's, each with a daemon of the library that has one connection at a time (all callbacks of a
 * connection run there), and the watchdog. Handlers block their own connection only.
 *
 * Invariants
 * 1. Every connection is watched from the moment it is accepted until the library is about to close it.
 * 2. identity (certificates and credentials) is immutable and counted: whoever uses one holds it. A reload
 *    builds a new one completely before it replaces the pointer.
 * 3. A request is counted in running_count from its first line until its answer is over; close frees nothing
 *    before that count is 0 and all the listener's threads have ended. */
#include "net/exchange.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"
#include "io/io.h"
#include "net/listener.h"
#include "net/router.h"

/* Head, read buffer and headers of the answer. The library zeroes it after every request and maps more than 32 KB
 * from the system for every connection, which costs more than a small query. */
#define CONNECTION_MEMORY_BYTES (32u << 10)
#define REQUEST_BYTES_MIN       (1u << 20)
#define CANCEL_GRACE_NS         (2 * NS_PER_SECOND) /* for handlers to notice a cancel before sockets are cut */

struct net_server_config net_server_config_default(void)
{
    return (struct net_server_config){
        .listen = ":9090",
        .cors = true,
        .connections_max = 1024,
        .connections_per_ip_max = 512,
        .body_bytes_max = (size_t)64 << 20,
        .bodies_in_flight_bytes_max = (size_t)512 << 20,
        .request_bytes_max = (size_t)1 << 30,
        .response_bytes_max = (size_t)256 << 20,
        .params_max = 10000,
        .params_bytes_max = (size_t)10 << 20,
        .idle_ms_max = 60000,
        .head_ms_max = 10000,
        .body_ms_max = 120000,
        .send_ms_max = 300000,
        .body_bytes_per_s_min = 1024,
        .body_grace_ms = 5000,
        .gzip_bytes_min = 1024,
    };
}

/* ---- identities ---- */

struct identity *identity_get(struct net_server *server)
{
    io_mutex_lock(&server->lock);
    struct identity *identity = server->identity;
    atomic_fetch_add(&identity->use_count, 1);
    io_mutex_unlock(&server->lock);
    return identity;
}

void identity_put(struct identity *identity)
{
    if (identity == NULL || atomic_fetch_sub(&identity->use_count, 1) > 1)
        return;
    tls_cert_close(identity->cert);
    net_auth_close(identity->auth);
    pool_close(identity->pool);
}

static err identity_open(struct net_server *server, const struct net_web_config *web,
                         struct identity **out_identity, struct err_at *at)
{
    TRY(net_web_config_check(web, at));
    struct pool *pool = pool_open(server->pool, "http_identity", POOL_BYTES_UNLIMITED);
    struct identity *identity;
    err e = pool_zalloc(pool, sizeof *identity, (void **)&identity);
    if (e != OK) {
        pool_close(pool);
        return e;
    }
    identity->pool = pool;
    identity->use_count = 1;
    TRY_OUT(net_auth_open(server->io, pool, web, &identity->auth));
    if (web->cert_file.len > 0)
        TRY_OUT(tls_cert_open(server->io, pool, web->cert_file, web->key_file, &identity->cert, at));
    *out_identity = identity;
out:
    if (e != OK)
        identity_put(identity);
    return e;
}

/* ---- the library's callbacks ---- */

static void print_peer(const struct sockaddr *address, char out[NET_PEER_BYTES_MAX])
{
    char text[INET6_ADDRSTRLEN] = "?";
    unsigned port = 0;
    bool is_6 = address != NULL && address->sa_family == AF_INET6;
    if (is_6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
        port = ntohs(in6->sin6_port);
        if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
            is_6 = false;
            inet_ntop(AF_INET, in6->sin6_addr.s6_addr + 12, text, sizeof text);
        } else {
            inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text);
        }
    } else if (address != NULL && address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        port = ntohs(in->sin_port);
        inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
    }
    snprintf(out, NET_PEER_BYTES_MAX, is_6 ? "[%s]:%u" : "%s:%u", text, port);
}

static void on_connection(void *context, struct MHD_Connection *library, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct net_server *server = context;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        struct connection *connection = *socket_context;
        if (connection == NULL)
            return;
        watchdog_remove(server->watchdog, &connection->watch);
        if (connection->exchange != NULL)
            exchange_close(connection->exchange);
        identity_put(connection->identity);
        stat_add(STAT_NET_CONNECTIONS, -1);
        pool_close(connection->pool);
        return;
    }
    struct pool *pool = pool_open(server->pool, "http_connection", POOL_BYTES_UNLIMITED);
    struct connection *connection;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(library, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info == NULL || pool_alloc(pool, sizeof *connection, (void **)&connection) != OK) {
        pool_close(pool);
        shutdown(info == NULL ? -1 : info->connect_fd, SHUT_RDWR); /* nobody could watch it */
        return;
    }
    *connection = (struct connection){ .server = server, .pool = pool, .fd = info->connect_fd };
    info = MHD_get_connection_info(library, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    print_peer(info == NULL ? NULL : info->client_addr, connection->peer);
    connection->identity = identity_get(server);
    watchdog_add(server->watchdog, &connection->watch, connection->fd);
    stat_add(STAT_NET_CONNECTIONS, 1);
    *socket_context = connection;
}

static struct connection *connection_of(struct MHD_Connection *library)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(library, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info == NULL ? NULL : info->socket_context;
}

/* The request line was read. What is returned becomes the request's context. */
static void *on_target(void *context, const char *target, struct MHD_Connection *library)
{
    struct connection *connection = connection_of(library);
    if (connection == NULL)
        return NULL;
    if (connection->exchange != NULL)
        exchange_close(connection->exchange);
    connection->exchange = exchange_open(connection, target);
    watchdog_phase(connection->server->watchdog, &connection->watch, WATCH_HEAD);
    return connection->exchange;
}

static enum MHD_Result on_access(void *context, struct MHD_Connection *library, const char *url,
                                 const char *method, const char *version, const char *part,
                                 size_t *part_bytes, void **request_context)
{
    struct exchange *x = *request_context;
    if (x == NULL)
        return MHD_NO;
    bool go_on;
    if (!x->has_begun) {
        go_on = exchange_begin(x, library, method);
    } else if (*part_bytes > 0) {
        go_on = exchange_body(x, slice_of(part, *part_bytes));
        *part_bytes = 0;
    } else {
        go_on = exchange_end(x);
    }
    return go_on ? MHD_YES : MHD_NO;
}

/* The library waits for what is new on a socket: a client that ended its side before it was answered does
 * nothing new any more, and would be kept as long as an idle one. Ending our side of reading tells the library
 * again. */
static void notice_end(const struct connection *connection)
{
    struct pollfd peer = { .fd = connection->fd, .events = POLLRDHUP };
    if (poll(&peer, 1, 0) > 0)
        shutdown(connection->fd, SHUT_RD);
}

static void on_completed(void *context, struct MHD_Connection *library, void **request_context,
                         enum MHD_RequestTerminationCode code)
{
    struct exchange *x = *request_context;
    if (x == NULL)
        return;
    *request_context = NULL;
    struct connection *connection = x->connection;
    exchange_close(x);
    watchdog_phase(connection->server->watchdog, &connection->watch, WATCH_IDLE);
    notice_end(connection);
}

/* The library decodes targets in place; ours are decoded per part, so it must not. */
static size_t on_unescape(void *context, struct MHD_Connection *library, char *text) { return strlen(text); }

/* GnuTLS asks for a certificate; the library made its connection the session's pointer. */
static int on_certificate(gnutls_session_t session, const gnutls_datum_t *authorities, int authority_count,
                          const gnutls_pk_algorithm_t *algorithms, int algorithm_count,
                          gnutls_pcert_st **out_chain, unsigned *out_count, gnutls_privkey_t *out_key)
{
    struct connection *connection = connection_of(gnutls_session_get_ptr(session));
    if (connection == NULL || connection->identity->cert == NULL)
        return -1;
    tls_session_ask(session, connection->server->client_auth);
    tls_cert_get(connection->identity->cert, out_chain, out_count, out_key);
    return 0;
}

/* ---- open ---- */

static err check_config(const struct net_server_config *c, struct err_at *at)
{
    TRY(router_check(c->routes, c->route_count, at));
    if (c->connections_max == 0 || c->connections_per_ip_max == 0)
        return err_set(at, ERR_INPUT, "connection limits must be above 0");
    if (c->request_bytes_max < REQUEST_BYTES_MIN || c->body_bytes_max > c->request_bytes_max)
        return err_set(at, ERR_INPUT, "the memory of a request is below 1 MB or below the body limit");
    if (c->idle_ms_max <= 0 || c->head_ms_max <= 0 || c->body_ms_max <= 0 || c->send_ms_max <= 0 ||
        c->body_grace_ms < 0)
        return err_set(at, ERR_INPUT, "HTTP time limits must be above 0");
    return OK;
}

/* A daemon of the library for one thread of the listener: it has one connection at a time. */
static err daemon_open(void *context, void **out_state)
{
    struct net_server *server = context;
    unsigned flags = MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET;
    struct MHD_OptionItem options[8];
    size_t count = 0;
    if (server->is_tls) {
        flags |= MHD_USE_TLS;
        options[count++] =
            (struct MHD_OptionItem){ MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)on_certificate };
        options[count++] =
            (struct MHD_OptionItem){ MHD_OPTION_HTTPS_PRIORITIES, 0,
                                     (void *)(uintptr_t)tls_priorities(server->tls_min, server->tls_max) };
        if (server->client_ca.len > 0)
            options[count++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_TRUST, 0,
                                                        (void *)(uintptr_t)server->client_ca.at };
    }
    options[count] = (struct MHD_OptionItem){ MHD_OPTION_END, 0, NULL };
    struct MHD_Daemon *daemon =
        MHD_start_daemon(flags, 0, NULL, NULL, on_access, server, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
                         server, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
                         MHD_OPTION_URI_LOG_CALLBACK, on_target, server, MHD_OPTION_UNESCAPE_CALLBACK,
                         on_unescape, server, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                         (size_t)CONNECTION_MEMORY_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_ARRAY,
                         options, MHD_OPTION_END);
    if (daemon == NULL)
        return ERR_INPUT; /* of what it is given only the authorities of clients can be wrong */
    *out_state = daemon;
    return OK;
}

static void daemon_serve(void *state, int fd, const struct sockaddr *peer, socklen_t peer_bytes)
{
    struct MHD_Daemon *daemon = state;
    if (MHD_add_connection(daemon, fd, peer, peer_bytes) != MHD_YES)
        return; /* it closed fd */
    const union MHD_DaemonInfo *info;
    while ((info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)) != NULL &&
           info->num_connections > 0)
        (void)MHD_run_wait(daemon, -1); /* the watchdog wakes those that wait too long */
}

static void daemon_close(void *state) { MHD_stop_daemon(state); }

static void on_full(void *context, bool is_full)
{
    struct net_server *server = context;
    watchdog_full(server->watchdog, is_full);
}

static err open_parts(struct net_server *server, const struct net_web_config *web, struct err_at *at)
{
    const struct net_server_config *c = &server->config;
    TRY(check_config(c, at));
    TRY(identity_open(server, web, &server->identity, at));
    server->is_tls = server->identity->cert != NULL;
    server->client_auth = web->client_auth;
    server->tls_min = web->tls_min;
    server->tls_max = web->tls_max;
    TRY(pool_copy(server->pool, web->client_ca_file, &server->client_ca_file));
    if (web->client_ca_file.len > 0) {
        err e = io_read_file(server->io, (const char *)server->client_ca_file.at, TLS_FILE_BYTES_MAX,
                             server->pool, &server->client_ca);
        if (e != OK)
            return err_set(at, e, "%.*s: %s", SLICE_ARG(web->client_ca_file), err_text(e));
    }
    struct watchdog_config limits = { .idle_ms_max = c->idle_ms_max,
                                      .head_ms_max = c->head_ms_max,
                                      .body_ms_max = c->body_ms_max,
                                      .send_ms_max = c->send_ms_max,
                                      .body_grace_ms = c->body_grace_ms,
                                      .body_bytes_per_s_min = c->body_bytes_per_s_min };
    TRY(watchdog_open(server->io, server->pool, &limits, &server->watchdog));
    struct listener_config threads = { .listen = c->listen,
                                       .connections_max = c->connections_max,
                                       .connections_per_ip_max = c->connections_per_ip_max,
                                       .thread_begin = daemon_open,
                                       .serve = daemon_serve,
                                       .thread_end = daemon_close,
                                       .full = on_full,
                                       .context = server };
    return listener_open(server->io, server->pool, &threads, &server->listener, at);
}

err net_server_open(struct io *io, struct pool *pool, const struct net_server_config *config,
                    struct net_server **out_server, struct err_at *at)
{
    struct net_web_config none = net_web_config_default();
    struct pool *own = pool_open(pool, "http", POOL_BYTES_UNLIMITED);
    struct net_server *server;
    err e = pool_zalloc(own, sizeof *server, (void **)&server);
    if (e != OK) {
        pool_close(own);
        return e;
    }
    server->io = io;
    server->pool = own;
    server->config = *config;
    server->config.web = NULL;
    io_mutex_init(&server->lock);
    io_cond_init(&server->idle);
    e = open_parts(server, config->web != NULL ? config->web : &none, at);
    if (e != OK)
        net_server_close(server, 0);
    else
        *out_server = server;
    return e;
}

uint16_t net_server_port(const struct net_server *server) { return listener_port(server->listener); }

err net_server_reload(struct net_server *server, const struct net_web_config *web, struct err_at *at)
{
    TRY(net_web_config_check(web, at));
    bool is_tls = web->cert_file.len > 0; /* without TLS the rest has no meaning */
    if (is_tls != server->is_tls)
        return err_set(at, ERR_UNSUPPORTED, "TLS cannot be switched on or off without a restart");
    if (is_tls &&
        (web->client_auth != server->client_auth || web->tls_min != server->tls_min ||
         web->tls_max != server->tls_max || !slice_equal(web->client_ca_file, server->client_ca_file)))
        return err_set(at, ERR_UNSUPPORTED,
                       "TLS versions and client certificates cannot change without a restart");
    struct identity *fresh, *old;
    TRY(identity_open(server, web, &fresh, at));
    io_mutex_lock(&server->lock);
    old = server->identity;
    server->identity = fresh;
    io_mutex_unlock(&server->lock);
    identity_put(old);
    return OK;
}

void net_server_stop(struct net_server *server)
{
    if (atomic_exchange(&server->is_stopping, true))
        return;
    listener_stop(server->listener);
    watchdog_stop_idle(server->watchdog);
}

/* Wait until no request runs, at most until the deadline. */
static void wait_idle(struct net_server *server, int64_t deadline_ns)
{
    io_mutex_lock(&server->lock);
    while (server->running_count > 0) {
        int64_t left_ns = deadline_ns - io_monotonic_ns(server->io);
        if (left_ns <= 0)
            break;
        io_cond_wait_for(&server->idle, &server->lock, left_ns);
    }
    io_mutex_unlock(&server->lock);
}

void net_server_close(struct net_server *server, int64_t timeout_ms)
{
    if (server == NULL)
        return;
    if (server->listener != NULL) {
        net_server_stop(server);
        wait_idle(server, io_monotonic_ns(server->io) + timeout_ms * NS_PER_MS);
        atomic_store(&server->is_closing, true);
        wait_idle(server, io_monotonic_ns(server->io) + CANCEL_GRACE_NS);
        watchdog_cut_all(server->watchdog);
        listener_close(server->listener); /* joins every connection's thread */
        check(server->running_count == 0);
    }
    watchdog_close(server->watchdog);
    identity_put(server->identity);
    io_cond_done(&server->idle);
    io_mutex_done(&server->lock);
    pool_close(server->pool);
}
