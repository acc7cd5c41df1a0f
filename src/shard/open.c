/* Partitions come and go: opened from what is stored, closed when another node has them. See partition.h.
 *
 *   CLOSED ── open ──→ OPENING ── recovered ──→ OPEN ── close ──→ CLOSING ── nothing under way ──→ CLOSED
 *     └──────────── failed ┘                                               (an apply step)
 *
 * A partition keeps its place, its locks and its fingerprints for the life of the shards, so that who holds a
 * pointer to it, a query above all, need not ask whether it is there: what a closed one holds is zero.
 *
 * Invariants
 *  1. A step, a query or a tool looks at what a partition holds only between partition_lock and its end, or
 *     under a flag or pin set there. While it is being opened only the thread that opens it looks.
 *  2. It is closed by the apply thread, when no worker has it and no control record of it is under way: their
 *     memory is the partition's.
 *  3. What queries may hold is not the partition's memory: heads, ranges and segments are counted, their series
 *     stay in the index until the queries are closed (retain.c).
 *  4. While partitions are being opened no series leaves the index: they are bound by others than apply then. */
#include "shard/partition.h"

#include "base/check.h"
#include "base/diag.h"

#define FILES_KEPT_NS (3600 * NS_PER_SECOND) /* every range is cut hourly: older files spare no replay */

/* ---- locks and pins ---- */

bool partition_lock(struct partition *p)
{
    io_mutex_lock(&p->lock);
    if (atomic_load(&p->stage) == SHARD_OPEN)
        return true;
    io_mutex_unlock(&p->lock);
    return false;
}

bool partition_pin(struct partition *p)
{
    if (!partition_lock(p))
        return false;
    p->pins++;
    io_mutex_unlock(&p->lock);
    return true;
}

void partition_unpin(struct partition *p)
{
    io_mutex_lock(&p->lock);
    p->pins--;
    io_mutex_unlock(&p->lock);
}

err partitions_init(struct shards *shards)
{
    void *at;
    TRY(pool_zalloc(shards->pool, shards->config.partition_count * sizeof *shards->partitions, &at));
    struct partition *partitions = at;
    err e = OK;
    for (uint32_t i = 0; i < shards->config.partition_count; i++) {
        struct partition *p = &partitions[i];
        p->shards = shards;
        p->number = i;
        p->closed_ns = io_monotonic_ns(shards->io);
        p->may_have_files = shards->config.is_shared && !shards->config.read_only;
        p->decides_until_ns = shards->config.is_shared ? INT64_MIN : INT64_MAX;
        p->past_end = log_watermarks(shards->log, i).end_offset;
        io_mutex_init(&p->lock);
        io_mutex_init(&p->chain_lock);
        if (e == OK)
            e = metric_index_fingerprints(shards->index, i, &p->fingerprints);
    }
    shards->partitions = partitions;
    return e;
}

/* ---- what a partition holds ---- */

/* All that it holds goes; what queries still see does with them. */
static void let_go(struct partition *p)
{
    log_reader_close(p->reader);
    if (p->open_range != NULL) {
        p->open_range->last_head = p->head;
        p->head = NULL;
    }
    metric_head_unref(p->head);
    io_mutex_lock(&p->lock);
    while (p->ranges != NULL) {
        struct range *range = p->ranges;
        partition_range_end(p);
        range_unref(range);
    }
    io_mutex_unlock(&p->lock);
    for (size_t i = 0; i < p->segment_count; i++)
        live_segment_unref(p->segments[i]);
    partition_doomed_release(p);
    chain_close(&p->chain);
    pool_close(p->pool);
    memset((char *)p + offsetof(struct partition, pool), 0, sizeof *p - offsetof(struct partition, pool));
}

static err try_open(struct partition *p, struct err_at *at)
{
    struct shards *shards = p->shards;
    p->scratch = &shards->scratch[0];
    p->pool = pool_open(shards->pool, "partition", POOL_BYTES_UNLIMITED);
    p->data_through_ms = INT64_MIN;
    p->newest_ms = LOG_TIME_NONE;
    p->heard_ns = p->retain_at_ns = io_monotonic_ns(shards->io);
    p->retain_is_first = true;
    p->closing.io = shards->io;
    p->closing.deadline_ns = INT64_MAX;
    p->closing.above = &shards->merging;
    struct metric_head_config config = metric_head_config_default();
    config.rows_max = (uint32_t)shards->config.head_rows_max;
    TRY(metric_head_open(shards->pool, &config, &p->head));
    return partition_recover(p, at);
}

/* When stream files told of records that the log lacks, a generation was begun: all is read anew from there. */
static err open_whole(struct partition *p, struct err_at *at)
{
    err e = try_open(p, at);
    if (e == ERR_ORDER) {
        let_go(p);
        e = try_open(p, at);
    }
    if (e != OK)
        let_go(p);
    return e;
}

void partitions_done(struct shards *shards)
{
    for (uint32_t i = 0; shards->partitions != NULL && i < shards->config.partition_count; i++) {
        struct partition *p = &shards->partitions[i];
        if (p->pool != NULL)
            let_go(p);
        (void)partition_ended_release(p);
        io_mutex_done(&p->chain_lock);
        io_mutex_done(&p->lock);
    }
}

/* ---- opening ---- */

static void opening_add(struct shards *shards, int by)
{
    io_mutex_lock(&shards->retain_lock);
    shards->opening += (uint32_t)by;
    io_mutex_unlock(&shards->retain_lock);
}

static void stage_set(struct partition *p, enum shard_stage stage)
{
    io_mutex_lock(&p->lock);
    atomic_store(&p->stage, stage);
    io_mutex_unlock(&p->lock);
}

err shards_partition_open(struct shards *shards, uint32_t partition, struct err_at *at)
{
    check(partition < shards->config.partition_count);
    struct partition *p = &shards->partitions[partition];
    io_mutex_lock(&p->lock);
    enum shard_stage stage = atomic_load(&p->stage);
    if (stage == SHARD_CLOSED)
        atomic_store(&p->stage, SHARD_OPENING);
    io_mutex_unlock(&p->lock);
    if (stage != SHARD_CLOSED)
        return stage == SHARD_OPEN ? ERR_EXISTS : ERR_BUSY;
    opening_add(shards, 1);
    err e = open_whole(p, at);
    stage_set(p, e == OK ? SHARD_OPEN : SHARD_CLOSED);
    opening_add(shards, -1);
    if (e == OK)
        shards_wake_apply(shards);
    return e;
}

/* ---- closing ---- */

void shards_partition_close(struct shards *shards, uint32_t partition)
{
    check(partition < shards->config.partition_count);
    struct partition *p = &shards->partitions[partition];
    if (!partition_lock(p))
        return;
    atomic_store(&p->stage, SHARD_CLOSING);
    atomic_store(&p->closing.canceled, true);
    io_mutex_unlock(&p->lock);
    shards_wake_apply(shards);
}

/* Is it to be closed, and in nobody's hand? */
static bool is_left_alone(struct partition *p)
{
    io_mutex_lock(&p->lock);
    bool alone = atomic_load(&p->stage) == SHARD_CLOSING && p->pins == 0 && !p->spilling && !p->committing &&
                 !p->compacting && !atomic_load(&p->cut.in_flight) && !atomic_load(&p->forget.in_flight);
    io_mutex_unlock(&p->lock);
    return alone;
}

void partitions_close_due(struct shards *shards)
{
    for (uint32_t i = 0; i < shards->config.partition_count; i++) {
        struct partition *p = &shards->partitions[i];
        if (atomic_load(&p->stage) != SHARD_CLOSING || !is_left_alone(p)) /* no lock of those that stay */
            continue;
        partition_remember(p);
        let_go(p); /* nobody else looks: it is neither open nor in anybody's hand */
        p->closed_ns = io_monotonic_ns(shards->io);
        p->may_have_files = shards->config.is_shared;
        atomic_store(&shards->retain_index, true);
        stage_set(p, SHARD_CLOSED);
    }
}

bool partition_clean(struct partition *p, int64_t now_ns)
{
    io_mutex_lock(&p->lock);
    bool is_due =
        atomic_load(&p->stage) == SHARD_CLOSED && p->may_have_files && now_ns - p->closed_ns >= FILES_KEPT_NS;
    if (is_due) { /* nobody opens it meanwhile, and nobody closes what is pinned */
        atomic_store(&p->stage, SHARD_CLOSING);
        p->pins++;
    }
    io_mutex_unlock(&p->lock);
    if (!is_due)
        return false;
    err e = partition_streams_remove(p);
    io_mutex_lock(&p->lock);
    p->pins--;
    p->may_have_files = e != OK;
    p->closed_ns = now_ns; /* what failed is tried again as late */
    atomic_store(&p->stage, SHARD_CLOSED);
    io_mutex_unlock(&p->lock);
    return e == OK;
}

bool partition_tell_closed(struct partition *p, int64_t now_ns)
{
    struct shards *shards = p->shards;
    uint64_t back_to;
    struct err_at at = { 0 };
    if (!shards->config.is_shared)
        return false;
    bool is_back = log_went_back(shards->log, p->number, &back_to) == OK;
    io_mutex_lock(&p->lock);
    bool has_more = is_back || p->lost_end.kind != 0 || p->doubt.kind != 0;
    bool is_due = atomic_load(&p->stage) == SHARD_CLOSED && has_more && now_ns >= p->tell_ns;
    if (is_due)
        atomic_store(&p->stage, SHARD_OPENING);
    io_mutex_unlock(&p->lock);
    if (!is_due)
        return false;
    p->pool = pool_open(shards->pool, "partition", POOL_BYTES_UNLIMITED);
    err e = partition_chain_read(p, log_watermarks(shards->log, p->number).start_offset, &at);
    if (e == OK)
        e = partition_log_told(p);
    let_go(p);
    p->tell_ns = now_ns + SHARD_RETRY_NS;
    stage_set(p, SHARD_CLOSED);
    if (e != OK)
        diag(DIAG_WARN, "Cannot name what a log that went back lost, retrying.", "partition=%u error=\"%s\"",
             p->number, err_text(e));
    return e == OK;
}

void shards_partition_rank(struct shards *shards, uint32_t partition, uint32_t rank, int64_t until_ns)
{
    check(partition < shards->config.partition_count);
    struct partition *p = &shards->partitions[partition];
    atomic_store(&p->rank, rank);
    atomic_store(&p->decides_until_ns, until_ns);
}

struct shard_status shards_partition_status(struct shards *shards, uint32_t partition)
{
    check(partition < shards->config.partition_count);
    struct partition *p = &shards->partitions[partition];
    io_mutex_lock(&p->lock);
    struct shard_status s = { .stage = atomic_load(&p->stage) };
    if (s.stage == SHARD_OPEN) {
        s.is_replayed = p->applied.offset >= p->open_end && p->apply_failed == OK;
        s.generation = p->applied.generation;
        s.applied_offset = p->applied.offset;
    }
    io_mutex_unlock(&p->lock);
    return s;
}
