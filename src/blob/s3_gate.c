/* The gate before the calls of a bucket. From: blob_s3.c. To: s3_upload.c and s3_fetch.c.
 *
 * Invariants
 * 1. At most inside_max are inside, at most files_max of them with files.
 * 2. Nobody passes one who came earlier and may enter: only a file that waits for a place of files is passed, by
 *    what is none. */
#include "blob/s3_gate.h"

#include "base/check.h"
#include "base/time.h"
#include "io/io.h"

#define LOOK_NS (200 * NS_PER_MS) /* abort is looked at as often */

void s3_gate_init(struct s3_gate *g, struct io *io, unsigned inside_max)
{
    *g = (struct s3_gate){ .io = io,
                           .inside_max = inside_max,
                           .files_max = inside_max > 1 ? inside_max / 2 : 1 };
    io_mutex_init(&g->lock);
    io_cond_init(&g->let_in);
}

void s3_gate_done(struct s3_gate *g)
{
    check(g->inside == 0 && g->first == NULL);
    io_cond_done(&g->let_in);
    io_mutex_done(&g->lock);
}

/* Locked: let in who may enter. */
static void let_in(struct s3_gate *g)
{
    bool is_any = false;
    for (struct s3_gate_waiter **at = &g->first; *at != NULL && g->inside < g->inside_max;) {
        struct s3_gate_waiter *waiter = *at;
        if (waiter->is_file && g->files == g->files_max) {
            at = &waiter->next;
            continue;
        }
        *at = waiter->next;
        waiter->is_in = is_any = true;
        g->inside++;
        g->files += waiter->is_file;
    }
    if (is_any)
        io_cond_broadcast(&g->let_in);
}

static struct s3_gate_waiter **place_of(struct s3_gate *g, const struct s3_gate_waiter *waiter)
{
    struct s3_gate_waiter **at = &g->first;
    while (*at != waiter)
        at = &(*at)->next;
    return at;
}

err s3_gate_enter(struct s3_gate *g, bool is_file, int64_t wait_ms, const _Atomic bool *abort)
{
    struct s3_gate_waiter me = { .is_file = is_file };
    int64_t until_ns = io_monotonic_ns(g->io) + wait_ms * NS_PER_MS;
    err e = OK;
    io_mutex_lock(&g->lock);
    *place_of(g, NULL) = &me;
    let_in(g);
    while (!me.is_in && e == OK) {
        int64_t left_ns = until_ns - io_monotonic_ns(g->io);
        if (abort != NULL && atomic_load_explicit(abort, memory_order_relaxed))
            e = ERR_CANCELED;
        else if (left_ns <= 0)
            e = ERR_BUSY;
        else
            io_cond_wait_for(&g->let_in, &g->lock, left_ns < LOOK_NS ? left_ns : LOOK_NS);
    }
    if (!me.is_in)
        *place_of(g, &me) = me.next; /* it kept nobody out: who is behind it waits for the same */
    io_mutex_unlock(&g->lock);
    return me.is_in ? OK : e;
}

void s3_gate_leave(struct s3_gate *g, bool is_file)
{
    io_mutex_lock(&g->lock);
    check(g->inside > 0 && g->files >= is_file);
    g->inside--;
    g->files -= is_file;
    let_in(g);
    io_mutex_unlock(&g->lock);
}
