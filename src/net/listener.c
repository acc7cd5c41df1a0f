/* The listening socket and its threads. See listener.h. From: the system's queue of connections. To: serve().
 *
 *   idle (in accept) ─→ serving ─→ idle … ─ too many idle, or stop ─→ leaving ─→ over ─→ joined
 *
 * Every idle thread waits in accept itself, so that a connection wakes the one that will serve it and no other.
 * The thread that leaves nobody in accept starts the next one, up to connections_max; beyond that connections
 * wait in the system's queue. Threads are kept, because making one, its stack and its memory for each
 * connection costs more than a small request.
 *
 * Invariants, under lock
 * 1. thread_count threads are idle or serving; idle_count of them are idle. Whoever decides that a thread takes no
 *    further connection takes it out of the counts before the lock is given back: a thread counts as idle only
 *    as long as it will take the next connection.
 * 2. A thread that is over is in the list `over` until somebody joins it.
 * 3. No idle thread is left only when thread_count is at its limit, the system refused a thread, or stop. */
#include "net/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"
#include "io/io.h"
#include "io/thread.h"

#define IDLE_MAX       16 /* threads that are kept for the next connections */
#define QUEUE_COUNT    1024
#define RETRY_AFTER_NS (100 * NS_PER_MS) /* when the system has no descriptors or memory for a connection */

struct worker {
    struct worker *next;
    struct listener *listener;
    struct io_thread *thread;
    void *state;
    bool is_serving;
    struct sockaddr_storage peer;
};

struct listener {
    struct io *io;
    struct pool *pool; /* own: this and the workers, under lock */
    struct listener_config config;
    int fd;
    uint16_t port;
    struct io_mutex lock;
    struct io_cond changed; /* a thread ended, stop */
    struct worker *workers; /* idle, serving or leaving */
    struct worker *over;
    unsigned thread_count;
    unsigned idle_count;
    bool is_stopping;
};

/* ---- threads ---- */

static bool same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET6)
        return memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
                      &((const struct sockaddr_in6 *)b)->sin6_addr, sizeof(struct in6_addr)) == 0;
    return a->ss_family != AF_INET || ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
                                          ((const struct sockaddr_in *)b)->sin_addr.s_addr;
}

/* May this peer have one more connection? Under the lock. */
static bool is_welcome(const struct listener *l, const struct sockaddr_storage *peer)
{
    unsigned count = 0;
    if (l->thread_count - l->idle_count < l->config.connections_per_ip_max)
        return true; /* all connections together are not too many */
    for (const struct worker *w = l->workers; w != NULL; w = w->next)
        count += w->is_serving && same_host(&w->peer, peer);
    return count < l->config.connections_per_ip_max;
}

static void worker_run(void *context);

/* Free the threads that are over. Under the lock. */
static void join_over(struct listener *l)
{
    while (l->over != NULL) {
        struct worker *w = l->over;
        l->over = w->next;
        io_thread_join(w->thread); /* it took the lock for the last time before it came into the list */
        pool_block_free(l->pool, w);
    }
}

/* One thread more. Under the lock, which the new thread waits for. */
static err start_worker(struct listener *l, void *state)
{
    struct worker *w = NULL;
    join_over(l);
    TRY(pool_block_resize(l->pool, (void **)&w, sizeof *w));
    *w = (struct worker){ .listener = l, .state = state };
    err e = io_thread_start(l->io, "http", worker_run, w, &w->thread);
    if (e != OK) {
        pool_block_free(l->pool, w);
        return e;
    }
    w->next = l->workers;
    l->workers = w;
    l->thread_count++;
    l->idle_count++;
    return OK;
}

/* Wait for a connection. -1: the listener stops, and the thread is no longer counted. */
static int take_connection(struct listener *l, struct sockaddr_storage *peer, socklen_t *peer_bytes)
{
    for (;;) {
        *peer_bytes = sizeof *peer;
        int fd = accept4(l->fd, (struct sockaddr *)peer, peer_bytes, SOCK_CLOEXEC | SOCK_NONBLOCK);
        int error = errno;
        io_mutex_lock(&l->lock);
        bool is_short = fd < 0 && (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM);
        if (is_short && !l->is_stopping)
            io_cond_wait_for(&l->changed, &l->lock, RETRY_AFTER_NS);
        bool is_over = l->is_stopping;
        bool is_refused = fd >= 0 && !is_over && !is_welcome(l, peer);
        if (is_over) {
            l->idle_count--;
            l->thread_count--;
        }
        io_mutex_unlock(&l->lock);
        if (fd >= 0 && !is_over && !is_refused)
            return fd;
        if (fd >= 0)
            close(fd);
        if (is_refused)
            stat_add(STAT_NET_CONNECTIONS_REFUSED, 1);
        if (is_over)
            return -1;
    }
}

/* False: enough others are idle, or the listener stops, and the thread is no longer counted. */
static bool serve_one(struct worker *w, int fd, socklen_t peer_bytes)
{
    struct listener *l = w->listener;
    io_mutex_lock(&l->lock);
    w->is_serving = true;
    l->idle_count--;
    if (l->idle_count == 0 && l->thread_count < l->config.connections_max && !l->is_stopping)
        ERR_IGNORE(start_worker(l, NULL)); /* refused: connections wait until this one is over */
    if (l->idle_count == 0)
        l->config.full(l->config.context, true);
    io_mutex_unlock(&l->lock);

    err e = w->state != NULL ? OK : l->config.thread_begin(l->config.context, &w->state);
    if (e == OK)
        l->config.serve(w->state, fd, (const struct sockaddr *)&w->peer, peer_bytes);
    else
        close(fd);

    io_mutex_lock(&l->lock);
    w->is_serving = false;
    if (l->idle_count == 0)
        l->config.full(l->config.context, false);
    bool stays = l->idle_count < IDLE_MAX && !l->is_stopping;
    if (stays)
        l->idle_count++;
    else
        l->thread_count--;
    io_mutex_unlock(&l->lock);
    return stays;
}

/* Go to the list `over`. Under the lock. */
static void leave(struct worker *w)
{
    struct listener *l = w->listener;
    struct worker **at = &l->workers;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    w->next = l->over;
    l->over = w;
    io_cond_broadcast(&l->changed);
}

static void worker_run(void *context)
{
    struct worker *w = context;
    struct listener *l = w->listener;
    for (bool stays = true; stays;) {
        socklen_t peer_bytes;
        int fd = take_connection(l, &w->peer, &peer_bytes);
        stays = fd >= 0 && serve_one(w, fd, peer_bytes);
    }
    if (w->state != NULL)
        l->config.thread_end(w->state); /* may take a while: others come and go meanwhile */
    io_mutex_lock(&l->lock);
    leave(w);
    io_mutex_unlock(&l->lock);
}

/* ---- open and close ---- */

/* "host:port" → socket address. The host is an IPv4 or [IPv6] literal, "localhost", or empty for all. */
static err parse_address(const char *text, struct sockaddr_storage *out_address, struct err_at *at)
{
    char host[INET6_ADDRSTRLEN + 2];
    const char *colon = strrchr(text, ':');
    size_t len = colon == NULL ? 0 : (size_t)(colon - text);
    unsigned port = 0;
    bool is_good = colon != NULL && len < sizeof host && colon[1] != 0 &&
                   strspn(colon + 1, "0123456789") == strlen(colon + 1) && strlen(colon + 1) <= 5;
    for (const char *p = is_good ? colon + 1 : ""; *p != 0; p++)
        port = port * 10 + (unsigned)(*p - '0');
    if (!is_good || port > 65535)
        return err_set(at, ERR_INPUT, "listen address \"%s\" is not host:port, as in 127.0.0.1:9428", text);
    memcpy(host, text, len);
    host[len] = 0;
    *out_address = (struct sockaddr_storage){ 0 };
    struct sockaddr_in *in = (struct sockaddr_in *)out_address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out_address;
    if (strcmp(host, "localhost") == 0)
        snprintf(host, sizeof host, "127.0.0.1");
    if (len == 0 || host[0] == '[') {
        *in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
        if (len == 0)
            return OK; /* in6addr_any */
        is_good = host[len - 1] == ']';
        host[len - 1] = 0;
        if (is_good && inet_pton(AF_INET6, host + 1, &in6->sin6_addr) == 1)
            return OK;
    } else {
        *in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
        if (inet_pton(AF_INET, host, &in->sin_addr) == 1)
            return OK;
    }
    return err_set(at, ERR_INPUT, "listen address \"%s\" needs an IP address", text);
}

static err listen_on(struct listener *l, const struct sockaddr_storage *address, struct err_at *at)
{
    bool is_6 = address->ss_family == AF_INET6;
    int on = 1, only_6 = l->config.listen[0] != ':';
    struct sockaddr_storage bound;
    socklen_t bound_bytes = sizeof bound,
              bytes = is_6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    l->fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_good = l->fd >= 0 && setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                   (!is_6 || setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_6, sizeof only_6) == 0) &&
                   bind(l->fd, (const struct sockaddr *)address, bytes) == 0 &&
                   listen(l->fd, QUEUE_COUNT) == 0 &&
                   getsockname(l->fd, (struct sockaddr *)&bound, &bound_bytes) == 0;
    if (is_good) {
        l->port = ntohs(is_6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                             : ((struct sockaddr_in *)&bound)->sin_port);
        return OK;
    }
    if (errno == EADDRINUSE)
        return err_set(at, ERR_BUSY, "%s is in use", l->config.listen);
    if (errno == EACCES || errno == EPERM)
        return err_set(at, ERR_DENIED, "not allowed to listen on %s", l->config.listen);
    return err_set(at, ERR_INPUT, "cannot listen on %s", l->config.listen);
}

/* The first thread gets its state here, so that what cannot be opened is told at once. */
static err start(struct listener *l, struct err_at *at)
{
    void *state;
    struct sockaddr_storage address;
    TRY(parse_address(l->config.listen, &address, at));
    TRY(listen_on(l, &address, at));
    err e = l->config.thread_begin(l->config.context, &state);
    if (e != OK)
        return err_set(at, e, "cannot serve on %s", l->config.listen);
    io_mutex_lock(&l->lock);
    e = start_worker(l, state);
    io_mutex_unlock(&l->lock);
    if (e != OK)
        l->config.thread_end(state);
    return e;
}

err listener_open(struct io *io, struct pool *pool, const struct listener_config *config,
                  struct listener **out_listener, struct err_at *at)
{
    struct pool *own = pool_open(pool, "http_listener", POOL_BYTES_UNLIMITED);
    struct listener *l;
    err e = pool_alloc(own, sizeof *l, (void **)&l);
    if (e != OK) {
        pool_close(own);
        return e;
    }
    *l = (struct listener){ .io = io, .pool = own, .config = *config, .fd = -1 };
    io_mutex_init(&l->lock);
    io_cond_init(&l->changed);
    e = start(l, at);
    l->config.listen = NULL;
    if (e != OK)
        listener_close(l);
    else
        *out_listener = l;
    return e;
}

uint16_t listener_port(const struct listener *l) { return l->port; }

void listener_stop(struct listener *l)
{
    io_mutex_lock(&l->lock);
    l->is_stopping = true;
    io_cond_broadcast(&l->changed);
    io_mutex_unlock(&l->lock);
    if (l->fd >= 0)
        shutdown(l->fd, SHUT_RDWR); /* who waits in accept returns; new connections are refused */
}

void listener_close(struct listener *l)
{
    if (l == NULL)
        return;
    listener_stop(l);
    io_mutex_lock(&l->lock);
    while (l->workers != NULL)
        io_cond_wait(&l->changed, &l->lock);
    join_over(l);
    io_mutex_unlock(&l->lock);
    if (l->fd >= 0)
        close(l->fd);
    io_cond_done(&l->changed);
    io_mutex_done(&l->lock);
    pool_close(l->pool);
}
