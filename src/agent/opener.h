/* Opens partitions on threads of its own, because that takes seconds, and closes them at once. Any thread.
 *
 * Of each partition it is known what is wanted: nothing, or the opening of a number. What is wanted changes at any
 * time; an opening that is under way and not wanted any more is closed as soon as it has ended. A partition may
 * close itself: whoever finds that says so, and it is opened again. */
#ifndef AGENT_OPENER_H
#define AGENT_OPENER_H

#include "cluster/cluster.h"
#include "io/io.h"

struct opener;

#define OPENER_THREADS      2
#define OPENER_BUSY_MS      100   /* it is not closed yet: opened again so much later */
#define OPENER_RETRY_MS     5000  /* it failed: so much later, and twice as long each time, … */
#define OPENER_RETRY_MS_MAX 60000 /* … up to this */
#define OPENER_STEADY_MS    60000 /* open for so long before it closed itself: what was before is forgotten */

struct opener_config {
    /* Open the partition, as long as that takes; ERR_BUSY: it is not closed yet. One call for a partition at a
     * time. */
    err (*open_partition)(void *context, uint32_t partition, struct err_at *at);
    /* Let it go; does not wait. Called for each open that returned OK, once, before the next. */
    void (*close_partition)(void *context, uint32_t partition);
    /* May be NULL: that opening has ended, well or not; it will be tried again. */
    void (*ended)(void *context, uint32_t partition, uint64_t opening, bool is_open);
    void *context;
    /* May be NULL: openings under way are to end within 1 s, however (what they read of a store is given up).
     * Once, by opener_close. */
    void (*abort)(void *context);
};

/* ERR_LIMIT. */
err opener_open(const struct opener_config *config, struct io *io, struct pool *pool,
                struct opener **out_opener);
/* Aborts openings under way and waits for them; what is open stays so. Nobody asks any more. NULL is allowed. */
void opener_close(struct opener *opener);

/* As agent_calls.open_partition and close_partition. opening > 0, above all before it. */
void opener_want(struct opener *opener, uint32_t partition, uint64_t opening);
void opener_drop(struct opener *opener, uint32_t partition);

/* Is that opening open, as far as is known here? One that was not to be dropped, and is closed all the same, has
 * closed itself. */
bool opener_holds(struct opener *opener, uint32_t partition, uint64_t opening);
/* That opening is closed, though nobody asked for it: it is told as ended, let go of as ever, and opened again. At
 * once the first time; then as if it had failed, until it has once been open for OPENER_STEADY_MS. One that is not
 * held: nothing happens. */
void opener_lost(struct opener *opener, uint32_t partition, uint64_t opening);

/* Partitions that are not as they are wanted yet. */
uint32_t opener_waiting(struct opener *opener);

/* io_boottime_ns at which the one that waits longest was wanted, the first time since it was open here last;
 * INT64_MAX: none waits. */
int64_t opener_waits_since_ns(struct opener *opener);

#endif
