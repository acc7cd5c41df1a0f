/* The watchdog thread: looks at all connections some times a second and shuts down those past a deadline. From:
 * phase changes reported by the server's callbacks. To: shutdown(2), which wakes the connection's thread.
 *
 *   IDLE ─ request line → HEAD ─ head complete → BODY ─ body complete → WORK ─ answer queued → SEND ─ sent → IDLE
 *
 * Invariants
 * 1. A deadline is total for its phase: bytes that arrive do not move it. A body also has to keep a minimum
 *    rate once its grace is over. While connections wait to be accepted, the one that is idle longest has no
 *    time left.
 * 2. A watch is in the list exactly while its fd is open, so shutdown never hits a reused number.
 * 3. The lock is a leaf: nothing is called while it is held but shutdown and the clock. */
#include "net/watchdog.h"

#include <sys/socket.h>

#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"
#include "io/io.h"
#include "io/thread.h"

#define LOOK_EVERY_NS (100 * NS_PER_MS)

struct watchdog {
    struct io *io;
    struct pool *pool;
    struct watchdog_config config;
    struct io_thread *thread;
    struct io_mutex lock;
    struct io_cond wake;
    struct watch *first;
    bool is_stopping_idle;
    bool is_cutting_all;
    bool is_full;
    bool is_closing;
};

static void cut(struct watch *watch)
{
    if (!watch->is_cut)
        stat_add(STAT_NET_CONNECTIONS_CUT, 1);
    watch->is_cut = true;
    shutdown(watch->fd, SHUT_RDWR); /* may fail when the peer was faster: then it is over anyway */
}

/* Cut the connection that has been without a whole head of a request for longest. */
static void cut_idlest(struct watchdog *w)
{
    struct watch *idlest = NULL;
    for (struct watch *watch = w->first; watch != NULL; watch = watch->next) {
        if (watch->phase <= WATCH_HEAD && !watch->is_cut &&
            (idlest == NULL || watch->phase_start_ns < idlest->phase_start_ns))
            idlest = watch;
    }
    if (idlest != NULL)
        cut(idlest);
}

static bool is_too_slow(const struct watchdog *w, const struct watch *watch, int64_t now_ns)
{
    if (watch->phase == WATCH_IDLE && w->is_stopping_idle)
        return true;
    if (now_ns > watch->deadline_ns || w->is_cutting_all)
        return true;
    if (watch->phase != WATCH_BODY || w->config.body_bytes_per_s_min == 0)
        return false;
    int64_t spent_ms = (now_ns - watch->phase_start_ns) / NS_PER_MS - w->config.body_grace_ms;
    return spent_ms > 0 &&
           watch->body_bytes < w->config.body_bytes_per_s_min * (uint64_t)spent_ms / (uint64_t)MS_PER_SECOND;
}

static void run(void *context)
{
    struct watchdog *w = context;
    io_mutex_lock(&w->lock);
    while (!w->is_closing) {
        int64_t now_ns = io_monotonic_ns(w->io);
        for (struct watch *watch = w->first; watch != NULL; watch = watch->next) {
            if (is_too_slow(w, watch, now_ns))
                cut(watch);
        }
        if (w->is_full) /* nobody was idle when it became full */
            cut_idlest(w);
        io_cond_wait_for(&w->wake, &w->lock, LOOK_EVERY_NS);
    }
    io_mutex_unlock(&w->lock);
}

err watchdog_open(struct io *io, struct pool *pool, const struct watchdog_config *config,
                  struct watchdog **out_watchdog)
{
    struct watchdog *w = NULL;
    TRY(pool_block_resize(pool, (void **)&w, sizeof *w));
    *w = (struct watchdog){ .io = io, .pool = pool, .config = *config };
    io_mutex_init(&w->lock);
    io_cond_init(&w->wake);
    err e = io_thread_start(io, "http-watchdog", run, w, &w->thread);
    if (e != OK) {
        io_cond_done(&w->wake);
        io_mutex_done(&w->lock);
        pool_block_free(pool, w);
        return e;
    }
    *out_watchdog = w;
    return OK;
}

void watchdog_close(struct watchdog *w)
{
    if (w == NULL)
        return;
    io_mutex_lock(&w->lock);
    check(w->first == NULL);
    w->is_closing = true;
    io_cond_signal(&w->wake);
    io_mutex_unlock(&w->lock);
    io_thread_join(w->thread);
    io_cond_done(&w->wake);
    io_mutex_done(&w->lock);
    pool_block_free(w->pool, w);
}

static void set_phase(struct watchdog *w, struct watch *watch, enum watch_phase phase)
{
    int64_t limit_ms = phase == WATCH_HEAD                      ? w->config.head_ms_max
                       : phase == WATCH_BODY                    ? w->config.body_ms_max
                       : phase == WATCH_SEND                    ? w->config.send_ms_max
                       : phase == WATCH_IDLE && watch->is_fresh ? w->config.head_ms_max
                                                                : w->config.idle_ms_max;
    watch->phase = phase;
    watch->phase_start_ns = io_monotonic_ns(w->io);
    watch->deadline_ns = phase == WATCH_WORK ? INT64_MAX : watch->phase_start_ns + limit_ms * NS_PER_MS;
    watch->body_bytes = 0;
}

void watchdog_add(struct watchdog *w, struct watch *watch, int fd)
{
    *watch = (struct watch){ .fd = fd, .is_fresh = true };
    io_mutex_lock(&w->lock);
    set_phase(w, watch, WATCH_IDLE);
    watch->next = w->first;
    watch->link = &w->first;
    if (watch->next != NULL)
        watch->next->link = &watch->next;
    w->first = watch;
    io_mutex_unlock(&w->lock);
}

void watchdog_remove(struct watchdog *w, struct watch *watch)
{
    io_mutex_lock(&w->lock);
    *watch->link = watch->next;
    if (watch->next != NULL)
        watch->next->link = watch->link;
    io_mutex_unlock(&w->lock);
}

void watchdog_phase(struct watchdog *w, struct watch *watch, enum watch_phase phase)
{
    io_mutex_lock(&w->lock);
    watch->is_fresh = watch->is_fresh && phase == WATCH_IDLE;
    set_phase(w, watch, phase);
    io_mutex_unlock(&w->lock);
}

void watchdog_body(struct watchdog *w, struct watch *watch, size_t bytes)
{
    io_mutex_lock(&w->lock);
    watch->body_bytes += bytes;
    io_mutex_unlock(&w->lock);
}

void watchdog_stop_idle(struct watchdog *w)
{
    io_mutex_lock(&w->lock);
    w->is_stopping_idle = true;
    io_cond_signal(&w->wake);
    io_mutex_unlock(&w->lock);
}

void watchdog_full(struct watchdog *w, bool is_full)
{
    io_mutex_lock(&w->lock);
    w->is_full = is_full;
    if (is_full)
        cut_idlest(w);
    io_mutex_unlock(&w->lock);
}

void watchdog_cut_all(struct watchdog *w)
{
    io_mutex_lock(&w->lock);
    w->is_cutting_all = true; /* those that are just being accepted, too */
    for (struct watch *watch = w->first; watch != NULL; watch = watch->next)
        cut(watch);
    io_mutex_unlock(&w->lock);
}
