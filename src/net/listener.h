/* A listening socket and the threads that serve its connections, one connection a thread at a time. Knows sockets
 * and threads; what is spoken over a connection is the caller's. */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include "base/err.h"
#include "base/pool.h"

#include <stdint.h>
#include <sys/socket.h>

struct io;
struct listener;

struct listener_config {
    const char *listen; /* "127.0.0.1:9090", ":9090" (all, IPv6 too), "[::1]:0"; borrowed during open */
    unsigned connections_max;
    unsigned connections_per_ip_max;

    /* What a thread keeps from connection to connection; called on it. ERR_LIMIT, ERR_INPUT. */
    err (*thread_begin)(void *context, void **out_state);
    /* Serve one connection until it is over. Takes fd, which does not block and is not inherited. */
    void (*serve)(void *state, int fd, const struct sockaddr *peer, socklen_t peer_bytes);
    void (*thread_end)(void *state);
    /* True: connections_max are being served and nobody accepts any more. False: somebody does again. */
    void (*full)(void *context, bool is_full);
    void *context;
};

/* Listen and serve. ERR_INPUT a bad address, or thread_begin's own error for the first thread (text in at);
 * ERR_BUSY the port is taken; ERR_DENIED; ERR_LIMIT. */
err listener_open(struct io *io, struct pool *pool, const struct listener_config *config,
                  struct listener **out_listener, struct err_at *at);

uint16_t listener_port(const struct listener *listener);

/* Refuse new connections from now on. Any number of times. */
void listener_stop(struct listener *listener);

/* Stop, wait until every connection is over, free. NULL is allowed. */
void listener_close(struct listener *listener);

#endif
