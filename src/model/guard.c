/* The guard of one query. Every worker asks it once per series or so; a cancel or a deadline is seen
 * within one such unit of work.
 *
 * Invariants: 1. samples_used only grows; all workers add to it, so the first to pass samples_max fails
 * and the others fail at their next call. 2. A guard without io has no deadline: tests need no clock. */
#include "model/guard.h"

#include "io/io.h"

#include <inttypes.h>
#include <stdio.h>

err guard_check(struct guard *g)
{
    if (atomic_load_explicit(&g->canceled, memory_order_relaxed))
        return ERR_CANCELED;
    if (g->deadline_ns != INT64_MAX && g->io != NULL && io_monotonic_ns(g->io) >= g->deadline_ns)
        return ERR_TIMEOUT;
    return g->above != NULL ? guard_check(g->above) : OK;
}

err guard_samples(struct guard *g, uint64_t n)
{
    uint64_t before = atomic_fetch_add_explicit(&g->samples_used, n, memory_order_relaxed);
    if (before > g->samples_max || n > g->samples_max - before)
        return ERR_LIMIT;
    return guard_check(g);
}

err guard_series(struct guard *g, uint64_t count, uint64_t max)
{
    if (count <= max)
        return OK;
    atomic_store_explicit(&g->series_over, max, memory_order_relaxed);
    return ERR_LIMIT;
}

void guard_limit_text(const struct guard *g, char out_text[GUARD_TEXT_BYTES])
{
    uint64_t series_over = atomic_load_explicit(&g->series_over, memory_order_relaxed);
    if (series_over != 0)
        snprintf(out_text, GUARD_TEXT_BYTES, "a selector matches more than %" PRIu64 " series", series_over);
    else if (atomic_load_explicit(&g->samples_used, memory_order_relaxed) > g->samples_max)
        snprintf(out_text, GUARD_TEXT_BYTES, "query processing would load more than %" PRIu64 " samples",
                 g->samples_max);
    else
        snprintf(out_text, GUARD_TEXT_BYTES,
                 "query processing would need more memory than one query may have");
}
