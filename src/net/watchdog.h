/* Deadlines of connections: the HTTP library lets a client that drips a byte a second live for ever. */
#ifndef NET_WATCHDOG_H
#define NET_WATCHDOG_H

#include "base/err.h"
#include "base/pool.h"

#include <stdbool.h>
#include <stdint.h>

struct io;
struct watchdog;

enum watch_phase {
    WATCH_IDLE, /* no first line of a request yet, or of the next; this and the next: nothing was asked yet */
    WATCH_HEAD, /* end of the first line … end of head */
    WATCH_BODY, /* body is arriving; a minimum rate holds too */
    WATCH_WORK, /* the handler runs: no deadline here */
    WATCH_SEND, /* the answer is leaving */
};

/* One per connection, embedded in the server's record; only watchdog.c touches it, under its lock. */
struct watch {
    struct watch *next, **link;
    int fd;
    enum watch_phase phase;
    int64_t phase_start_ns;
    int64_t deadline_ns; /* of the phase */
    uint64_t body_bytes;
    bool is_fresh; /* no request yet */
    bool is_cut;
};

struct watchdog_config {
    int64_t idle_ms_max, head_ms_max, body_ms_max, send_ms_max;
    int64_t body_grace_ms;
    uint64_t body_bytes_per_s_min;
};

/* Start the thread. ERR_LIMIT. */
err watchdog_open(struct io *io, struct pool *pool, const struct watchdog_config *config,
                  struct watchdog **out_watchdog);
/* Every watch has been removed. */
void watchdog_close(struct watchdog *watchdog);

void watchdog_add(struct watchdog *watchdog, struct watch *watch, int fd);
void watchdog_remove(struct watchdog *watchdog, struct watch *watch); /* before fd is closed */
void watchdog_phase(struct watchdog *watchdog, struct watch *watch, enum watch_phase phase);
void watchdog_body(struct watchdog *watchdog, struct watch *watch, size_t bytes);

/* Are all connections taken? While they are, those that are idle longest make room. */
void watchdog_full(struct watchdog *watchdog, bool is_full);

/* From now on idle connections are cut at once. */
void watchdog_stop_idle(struct watchdog *watchdog);
/* Cut everything, now and from now on. */
void watchdog_cut_all(struct watchdog *watchdog);

#endif
