/* Numbers of all partitions together, for gauges, health and comparisons; each partition under its lock, one after
 * the other. See shard.h.
 *
 * From: chains, ranges and heads as they are now. To: struct shards_usage, shards_unsaved, shard_sum. */
#include "shard/partition.h"

#include "base/check.h"

struct shards_usage shards_usage(struct shards *shards)
{
    struct shards_usage u = { .series_count = metric_index_series(shards->index),
                              .cache_bytes = segment_cache_usage(shards->cache).bytes,
                              .duplicate_records = atomic_load(&shards->duplicate_records),
                              .lost_records = atomic_load(&shards->lost_records),
                              .applied_records = atomic_load(&shards->applied_records) };
    for (uint32_t i = 0; i < shards->config.partition_count; i++) {
        struct partition *p = &shards->partitions[i];
        if (!partition_lock(p))
            continue;
        u.head_rows += p->head_rows;
        for (struct range *r = p->ranges; r != NULL; r = r->next) {
            for (struct frozen *f = r->frozen; f != NULL; f = f->next)
                u.head_rows += f->head != NULL ? f->view.row_count + f->view.histogram_count : 0;
            u.stream_rows += r->stream_rows;
            u.stream_bytes += r->stream_bytes;
            u.stream_group_count += r->group_count;
            u.far_future_rows += r->far_future_rows;
        }
        for (size_t k = 0; k < p->chain.segment_count; k++) {
            u.segment_rows += p->chain.segments[k].sum.count;
            u.segment_bytes += p->chain.segments[k].bytes;
        }
        u.segment_count += p->chain.segment_count;
        u.unresolved_rows += p->unresolved_count;
        for (size_t k = 0; k < p->segment_count; k++)
            u.quarantined_count += atomic_load(&p->segments[k]->is_damaged);
        for (size_t k = 0; k < p->chain.loss_count; k++)
            *(p->chain.losses[k].accepted ? &u.losses_accepted : &u.losses) += 1;
        for (struct range *r = p->ranges; r != NULL; r = r->next)
            u.losses += r->loss_count;
        u.retention_waits += p->retain_wait_ns != 0;
        u.missing_count += p->missing_count > 0;
        if (p->data_through_ms > u.data_through_ms)
            u.data_through_ms = p->data_through_ms;
        io_mutex_unlock(&p->lock);
    }
    u.head_bytes = u.head_rows * SHARD_HEAD_ROW_BYTES;
    return u;
}

/* Of what a start read from stream files the first record's time is not known: it came after what the chain has.
 * Behind what is applied there is something if that cannot go on. */
static int64_t unsaved_since_ms(const struct partition *p)
{
    int64_t since_ms = INT64_MAX;
    for (const struct range *r = p->ranges; r != NULL && since_ms == INT64_MAX; r = r->next)
        if (r->record_count > 0)
            since_ms = r->first_ms != LOG_TIME_NONE ? r->first_ms : p->chain.data_through_ms;
    if (since_ms == INT64_MAX && (p->apply_failed != OK || p->has_pending))
        since_ms = p->newest_ms != LOG_TIME_NONE ? p->newest_ms : p->chain.data_through_ms;
    return since_ms != INT64_MIN ? since_ms
                                 : INT64_MAX; /* nothing was ever saved, and the process is young */
}

struct shards_unsaved shards_unsaved(struct shards *shards)
{
    struct shards_unsaved unsaved = { INT64_MAX, LOG_TIME_NONE };
    for (uint32_t i = 0; i < shards->config.partition_count; i++) {
        struct partition *p = &shards->partitions[i];
        if (!partition_lock(p))
            continue;
        int64_t since_ms = unsaved_since_ms(p);
        unsaved.since_ms = since_ms < unsaved.since_ms ? since_ms : unsaved.since_ms;
        unsaved.newest_ms = p->newest_ms > unsaved.newest_ms ? p->newest_ms : unsaved.newest_ms;
        io_mutex_unlock(&p->lock);
    }
    return unsaved;
}

struct shard_sum shards_partition_sum(struct shards *shards, uint32_t partition)
{
    check(partition < shards->config.partition_count);
    struct partition *p = &shards->partitions[partition];
    if (!partition_lock(p))
        return (struct shard_sum){ 0 };
    struct shard_sum s = { .sum = chain_stored_sum(&p->chain),
                           .dropped_rows = p->chain.dropped.count,
                           .generation = p->chain.end.generation,
                           .next_offset = p->chain.end.offset,
                           .applied_offset = p->applied.offset };
    for (struct range *r = p->ranges; r != NULL; r = r->next)
        if (position_compare(r->start, p->chain.end) >=
            0) /* else its entry is folded, its segments not taken yet */
            sum_add(&s.sum, r->sum);
    struct state_incarnation producer;
    struct state one = { .incarnations = &producer, .incarnation_count = 1, .unresolved_count = 1 };
    for (size_t i = 0; i < p->unresolved_count; i++) {
        struct state_unresolved u = p->unresolved[i];
        memcpy(producer.id, p->producers[u.incarnation].id, INCARNATION_BYTES);
        u.incarnation = 0;
        one.unresolved = &u;
        sum_add(&s.sum, state_unresolved_sum(&one));
    }
    io_mutex_unlock(&p->lock);
    return s;
}
