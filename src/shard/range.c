/* Ranges in memory: groups of the stream file, references. See partition.h.
 *
 * Groups come from spill (just written) and from recovery (read back); queries and builds read them. A range
 * lives until it is committed and the last query that saw it is closed (and the index was looked through after
 * that); its files are unlinked earlier, which open files survive.
 *
 * Invariants
 *  1. groups are in position order and only ever appended; a reader that copied the list's end under the
 *     lock may walk to there without it.
 *  2. numbers and local_of_number are inverse to each other. */
#include "shard/partition.h"

#include "base/check.h"

err range_open(struct shards *shards, struct log_position start, struct range **out_range)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(shards->pool, "range", sizeof(struct range), &pool, &at));
    struct range *range = at;
    range->references = 1;
    range->pool = pool;
    range->worker_pool = pool_open(pool, "stream", POOL_BYTES_UNLIMITED);
    range->start = range->end = start;
    range->opened_ns = io_monotonic_ns(shards->io);
    range->first_ms = LOG_TIME_NONE;
    range->parts_end = &range->parts;
    range->groups_end = &range->groups;
    range->frozen_end = &range->frozen;
    range->numbers = metric_stream_numbers_open(range->worker_pool);
    *out_range = range;
    return OK;
}

struct range *range_ref(struct range *range)
{
    atomic_fetch_add_explicit(&range->references, 1, memory_order_relaxed);
    return range;
}

void frozen_free(struct frozen *frozen)
{
    metric_head_unref(frozen->head);
    pool_close(frozen->pool); /* the struct is in it */
}

void range_unref(struct range *range)
{
    if (range == NULL || atomic_fetch_sub_explicit(&range->references, 1, memory_order_acq_rel) != 1)
        return;
    for (struct range_group *g = range->groups; g != NULL; g = g->next)
        metric_group_close(g->group);
    for (struct stream_part *part = range->parts; part != NULL; part = part->next)
        io_file_close(part->file);
    while (range->frozen != NULL) {
        struct frozen *frozen = range->frozen;
        range->frozen = frozen->next;
        frozen_free(frozen);
    }
    metric_head_unref(range->last_head);
    pool_close(range->state_pool);
    metric_stream_numbers_close(&range->numbers);
    pool_close(range->worker_pool);
    pool_close(range->pool);
}

void partition_range_end(struct partition *p)
{
    struct range *range = p->ranges;
    p->ranges = range->next;
    p->closed_count--;
    range->next = p->ended;
    p->ended = range_ref(range);
    atomic_fetch_add(&p->shards->ended_count, 1);
}

bool partition_ended_release(struct partition *p)
{
    bool any = false;
    struct range *released = NULL;
    io_mutex_lock(&p->lock);
    for (struct range **at = &p->ended; *at != NULL;) {
        struct range *range = *at;
        if (atomic_load_explicit(&range->references, memory_order_acquire) > 1) {
            at = &range->next;
            continue;
        }
        *at = range->next; /* nobody can take it any more */
        range->next = released;
        released = range;
    }
    io_mutex_unlock(&p->lock);
    while (released != NULL) { /* closes files */
        struct range *range = released;
        released = range->next;
        range_unref(range);
        atomic_fetch_sub(&p->shards->ended_count, 1);
        any = true;
    }
    return any;
}

static err group_read(void *context, uint64_t offset, void *at, size_t len)
{
    const struct range_group *g = context;
    return io_file_read(g->file, g->offset + offset, at, len, NULL);
}

err range_group_attach(struct range *range, struct io_file *file, uint64_t offset, uint64_t bytes,
                       struct log_position from, struct log_position to, struct range_group **out_group)
{
    void *at;
    TRY(pool_zalloc(range->worker_pool, sizeof(struct range_group), &at));
    struct range_group *g = at;
    g->file = file;
    g->offset = offset;
    g->bytes = bytes;
    g->from = from;
    g->to = to;
    struct metric_group_bytes source = { .read = group_read, .context = g, .len = bytes };
    TRY(metric_group_open(range->worker_pool, &source, &g->group));
    g->facts = metric_group_facts(g->group);
    *out_group = g;
    return OK;
}

err range_numbers_bind(struct range *range, const uint32_t *locals, uint32_t count)
{
    void *block = range->local_of_number;
    TRY(pool_block_reserve(range->worker_pool, &block, sizeof(uint32_t), (size_t)range->numbers.count + count,
                           &range->local_of_number_capacity));
    range->local_of_number = block;
    for (uint32_t i = 0; i < count; i++) {
        range->local_of_number[range->numbers.count] = locals[i];
        TRY(metric_stream_numbers_add(&range->numbers, locals[i]));
    }
    return OK;
}

void range_group_publish(struct range *range, struct range_group *group)
{
    *range->groups_end = group;
    range->groups_end = &group->next;
    range->group_count++;
    range->stream_rows += group->facts.row_count;
}

err range_loss_add(struct range *range, const struct chain_loss *loss)
{
    struct chain_loss *last = range->loss_count > 0 ? &range->losses[range->loss_count - 1] : NULL;
    if (last != NULL && (chain_losses_meet(last, loss) || range->loss_count >= CHAIN_LOSS_COUNT_MAX)) {
        chain_loss_join(last, loss);
        return OK;
    }
    void *block = range->losses;
    TRY(pool_block_reserve(range->pool, &block, sizeof *range->losses, range->loss_count + 1,
                           &range->loss_capacity));
    range->losses = block;
    range->losses[range->loss_count++] = *loss;
    return OK;
}

err range_part_set_aside(struct partition *p, const struct range *range, uint32_t part)
{
    struct stream_name name = { .partition = p->number, .start = range->start, .part = part };
    char path[IO_PATH_BYTES_MAX], to[IO_PATH_BYTES_MAX];
    TRY(stream_path("", &name, path));
    err e = shard_set_aside(p->shards->io, &p->shards->config, path + 1, to);
    return e == ERR_NOT_FOUND ? OK : e;
}

bool range_part_unlink(struct partition *p, const struct range *range, uint32_t part)
{
    struct stream_name name = { .partition = p->number, .start = range->start, .part = part };
    char path[IO_PATH_BYTES_MAX];
    if (stream_path(p->shards->config.stream_directory, &name, path) != OK)
        return false;
    err e = io_unlink(p->shards->io, path);
    return e == OK || e == ERR_NOT_FOUND;
}
