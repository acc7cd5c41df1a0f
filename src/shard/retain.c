/* Retention, and the index without series that nobody needs. See partition.h.
 *
 * A cut-off is an entry of the chain: readers hide older rows, and segments that lie wholly below it go. It
 * advances by no more than the monotonic time since the last one and an hour; a larger step, and the first one
 * if it would drop more than a tenth of the rows, waits a day or for a person: a wrong clock or setting must
 * not delete a year.
 *
 * Invariants
 *  1. The cut-off never goes back.
 *  2. A series leaves the index only if no producer is bound to it and no head, stream file or uncommitted
 * state names its local number, which may be given to another series then. */
#include "shard/partition.h"

#include "base/diag.h"

#define STEP_MS    MS_PER_HOUR          /* beyond elapsed time */
#define ADVANCE_MS (10 * MS_PER_MINUTE) /* smaller advances are not worth an entry; … */
#define ADVANCE_PART \
    64 /* … nor are smaller parts of the retention, up to STEP_MS: that much is behind at a start */
#define WAIT_NS         (24 * 3600 * NS_PER_SECOND)
#define FIRST_DROP_PART 10 /* the first step may drop a tenth without asking */

/* About how many rows of a segment are older. */
static uint64_t rows_before(const struct chain_segment *s, int64_t cutoff_ms)
{
    if (s->range.min_ms >= cutoff_ms)
        return 0;
    if (s->range.max_ms < cutoff_ms)
        return s->sum.count;
    double part = ((double)cutoff_ms - (double)s->range.min_ms) /
                  ((double)s->range.max_ms - (double)s->range.min_ms + 1);
    return (uint64_t)((double)s->sum.count * part) + 1;
}

/* May the cut-off go to cutoff_ms now? Locked. */
static bool step_is_allowed(struct partition *p, int64_t cutoff_ms, int64_t now_ns)
{
    if (p->retain_confirmed && cutoff_ms <= p->retain_wait_cutoff_ms + STEP_MS)
        return true;
    if (p->retain_wait_ns != 0 && now_ns - p->retain_wait_ns >= WAIT_NS)
        return true;
    uint64_t rows = 0, dropped = 0;
    for (size_t i = 0; i < p->chain.segment_count; i++) {
        rows += p->chain.segments[i].sum.count;
        dropped += rows_before(&p->chain.segments[i], cutoff_ms);
    }
    if (p->chain.cutoff_ms == TIME_MS_MIN || p->retain_is_changed)
        return dropped * FIRST_DROP_PART <= rows;
    /* Since the last cut-off or, if that was before, the start: a node that restarts every day goes on, too. */
    int64_t elapsed_ms = (now_ns - p->retain_at_ns) / NS_PER_MS;
    if (dropped == 0 || cutoff_ms - p->chain.cutoff_ms <= elapsed_ms + STEP_MS)
        return true;
    return p->retain_is_first && dropped * FIRST_DROP_PART <= rows;
}

void partition_retained(struct partition *p)
{
    io_mutex_lock(&p->lock);
    p->retain_at_ns = io_monotonic_ns(p->shards->io);
    p->retain_is_first = p->retain_is_changed = false;
    p->retain_wait_ns = 0;
    p->retain_confirmed = false;
    io_mutex_unlock(&p->lock);
}

err partition_retain(struct partition *p, bool *out_worked)
{
    struct shards *shards = p->shards;
    int64_t retention_ms = atomic_load(&shards->retention_ms), now_ns = io_monotonic_ns(shards->io);
    if (retention_ms == 0 || !atomic_load(&shards->is_ready) || !partition_may_decide(p))
        return OK;
    int64_t cutoff_ms = io_now_ms(shards->io) - retention_ms - partition_patience_ns(p) / NS_PER_MS;
    int64_t advance_ms = retention_ms / ADVANCE_PART;
    advance_ms = advance_ms < ADVANCE_MS ? ADVANCE_MS : advance_ms > STEP_MS ? STEP_MS : advance_ms;
    io_mutex_lock(&p->lock);
    bool due = cutoff_ms >= p->chain.cutoff_ms + advance_ms && p->chain.segment_count > 0;
    bool allowed = due && step_is_allowed(p, cutoff_ms, now_ns);
    if (due && !allowed) {
        if (p->retain_wait_ns == 0) {
            p->retain_wait_ns = now_ns == 0 ? 1 : now_ns;
            p->retain_confirmed = false;
            diag(DIAG_WARN, "Retention would drop much at once; it waits 24 h or for a confirmation.",
                 "partition=%u cutoff_ms=%lld", p->number, (long long)cutoff_ms);
        }
        p->retain_wait_cutoff_ms = cutoff_ms;
    }
    bool confirmed = p->retain_wait_ns != 0;
    io_mutex_unlock(&p->lock);
    if (!allowed)
        return OK;
    struct chain_entry entry = { .kind = CHAIN_RETAIN, .cutoff_ms = cutoff_ms, .confirmed = confirmed };
    bool valid;
    io_mutex_lock(&p->chain_lock);
    err e = partition_entry_append(p, &entry, &valid);
    if (e == OK) {
        io_mutex_lock(&p->lock);
        e = partition_segments_sync(p);
        io_mutex_unlock(&p->lock);
        partition_retained(p);
    }
    io_mutex_unlock(&p->chain_lock);
    partition_doomed_release(p);
    *out_worked = e == OK;
    return e;
}

err shards_retention_confirm(struct shards *shards, int64_t *out_cutoff_ms)
{
    bool any = false;
    for (uint32_t i = 0; i < shards->config.partition_count; i++) {
        struct partition *p = &shards->partitions[i];
        if (!partition_lock(p))
            continue;
        if (p->retain_wait_ns != 0) {
            p->retain_confirmed = true;
            *out_cutoff_ms = p->retain_wait_cutoff_ms;
            any = true;
        }
        io_mutex_unlock(&p->lock);
    }
    shards_wake_work(shards);
    return any ? OK : ERR_NOT_FOUND;
}

/* ---- the index ---- */

/* Which local numbers of each partition are needed. */
struct needed {
    struct shards *shards;
    uint8_t **bits;
    uint32_t *counts;
};

static void mark(struct needed *n, uint32_t partition, uint32_t local)
{
    if (local < n->counts[partition])
        n->bits[partition][local / 8] |= (uint8_t)(1u << local % 8);
}

static void mark_state(struct needed *n, uint32_t partition, const struct state *state)
{
    for (size_t i = 0; i < state->incarnation_count; i++)
        for (size_t k = 0; k < state->incarnations[i].binding_count; k++)
            mark(n, partition, state->incarnations[i].locals[k]);
}

static void mark_head(struct needed *n, uint32_t partition, struct metric_head *head)
{
    if (head != NULL)
        metric_head_mark(head, n->bits[partition], n->counts[partition]);
}

/* Rows that a query may see: all of an ended range. */
static void mark_rows(struct needed *n, uint32_t partition, const struct range *r)
{
    for (uint32_t k = 0; k < r->numbers.count; k++)
        mark(n, partition, r->local_of_number[k]);
    for (const struct frozen *f = r->frozen; f != NULL; f = f->next)
        mark_head(n, partition, f->head);
    mark_head(n, partition, r->last_head);
}

/* A range that is not committed yet: its rows, and the states that are still to be written with their labels. */
static void mark_range(struct needed *n, uint32_t partition, const struct range *r)
{
    mark_rows(n, partition, r);
    for (const struct frozen *f = r->frozen; f != NULL; f = f->next)
        mark_state(n, partition, &f->checkpoint);
    if (r->closed)
        mark_state(n, partition, &r->state);
}

/* Locked, by apply: what a producer may still write, and what was written and is not in segments yet, or was not
 * when a query looked. */
static err mark_partition(struct needed *n, struct partition *p, struct pool *pool)
{
    void *at;
    n->counts[p->number] = metric_index_local_count(n->shards->index, p->number);
    TRY(pool_zalloc(pool, n->counts[p->number] / 8 + 1, &at));
    n->bits[p->number] = at;
    for (size_t i = 0; i < p->producer_count; i++)
        for (size_t k = 0; k < p->producers[i].capacity; k++)
            if (p->producers[i].locals[k] != STATE_UNBOUND)
                mark(n, p->number, p->producers[i].locals[k]);
    for (const struct range *r = p->ranges; r != NULL; r = r->next)
        mark_range(n, p->number, r);
    for (const struct range *r = p->ended; r != NULL; r = r->next)
        mark_rows(n, p->number, r);
    mark_head(n, p->number, p->head);
    return OK;
}

static bool keep(void *context, uint32_t id)
{
    const struct needed *n = context;
    uint32_t partition = metric_index_partition(n->shards->index, id);
    uint32_t local = metric_index_local(n->shards->index, id);
    if (partition >= n->shards->config.partition_count || local >= n->counts[partition])
        return true;
    return (n->bits[partition][local / 8] >> local % 8 & 1) != 0;
}

static void look(struct shards *shards)
{
    uint32_t count = shards->config.partition_count;
    struct pool *pool = pool_open(shards->pool, "retain", POOL_BYTES_UNLIMITED);
    struct needed n = { .shards = shards };
    void *at;
    uint64_t dropped = 0;
    atomic_store(&shards->retain_index, false); /* before: a range may end meanwhile */
    err e = pool_zalloc(pool, count * sizeof *n.bits, &at);
    n.bits = at;
    if (e == OK)
        e = pool_zalloc(pool, count * sizeof *n.counts, &at);
    n.counts = at;
    for (uint32_t i = 0; e == OK && i < count; i++) {
        struct partition *p = &shards->partitions[i];
        io_mutex_lock(&p->lock);
        e = mark_partition(&n, p, pool);
        io_mutex_unlock(&p->lock);
    }
    /* Between the marks and the drop nothing can need a series anew: this is the thread that would. */
    if (e == OK)
        e = metric_index_retain(shards->index, keep, &n, &dropped);
    if (dropped > 0)
        diag(DIAG_DEBUG, "Series that nobody writes left the index.", "series=%llu",
             (unsigned long long)dropped);
    pool_close(pool);
    if (e != OK)
        atomic_store(&shards->retain_index, true);
}

void shards_index_retain(struct shards *shards)
{
    io_mutex_lock(&shards->retain_lock);
    if (shards->opening == 0) /* else later */
        look(shards);
    io_mutex_unlock(&shards->retain_lock);
}
