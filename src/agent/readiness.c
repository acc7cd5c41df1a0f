/* See readiness.h. A log that is written to is never applied to its present end; so an end is kept until it is
 * reached, and what counts is when that was the end.
 *
 * Invariants: 1. Ready becomes what is applied up to what was durable AGENT_BEHIND_MS ago. 2. It stays so while it
 * is applied up to what was durable AGENT_LOST_MS before the last end that was confirmed: while none is, nobody
 * knows of a record that it lacks, and were all to give up for that, nobody would answer. Who should give up
 * nevertheless, because it is cut off alone, is for the agent to say, which sees the others. 3. A partition that
 * was not replayed is not ready, whatever it was before. */
#include "agent/readiness.h"

#include "base/time.h"

static void reach(struct readiness *r, int64_t confirmed_ns)
{
    if (!r->has_caught || confirmed_ns > r->caught_ns)
        r->caught_ns = confirmed_ns;
    r->has_caught = true;
}

bool readiness_look(struct readiness *r, const struct agent_progress *progress, int64_t now_ns)
{
    if (!progress->is_replayed) {
        *r = (struct readiness){ 0 };
        return false;
    }
    if (r->has_mark && progress->applied_offset >= r->mark_end) {
        reach(r, r->mark_ns);
        r->has_mark = false;
    }
    if (progress->confirmed_ns != INT64_MIN)
        r->confirmed_ns = progress->confirmed_ns;
    if (progress->confirmed_ns != INT64_MIN && progress->applied_offset >= progress->end_offset)
        reach(r, progress->confirmed_ns);
    else if (progress->confirmed_ns != INT64_MIN && !r->has_mark) {
        r->has_mark = true;
        r->mark_end = progress->end_offset;
        r->mark_ns = progress->confirmed_ns;
    }
    bool is_near = now_ns - r->caught_ns <= AGENT_BEHIND_MS * NS_PER_MS,
         may_stay = r->confirmed_ns - r->caught_ns <= AGENT_LOST_MS * NS_PER_MS;
    r->is_ready = r->has_caught && (is_near || (r->is_ready && may_stay));
    return r->is_ready;
}
