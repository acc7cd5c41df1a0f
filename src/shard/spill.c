/* Spill: a frozen head becomes a frame of the stream file. See partition.h, docs/format/stream.md.
 *
 * The worker encodes without the lock (the head is frozen, the stream numbers are its own), writes, syncs, and
 * then publishes the group and drops the head in one locked step, so that a query sees the rows once.
 *
 * Invariants
 *  1. Frames are in position order and without gaps: frame k's rows and checkpoint begin where k - 1 ended.
 *  2. Until the log is replayed heads wait, as long as there is memory for them.
 *  3. After a failed write or sync the part is sealed: the next attempt, SHARD_RETRY_NS later, opens a
 *     new part. Until one succeeds the heads and the log keep everything and intake is closed. */
#include "shard/partition.h"

#include "base/check.h"
#include "base/diag.h"
#include "base/stat.h"

#define CHECKPOINT_BYTES_MAX STATE_BYTES_MAX

/* Stream numbers as the checkpoint's references: those of the file, and those this group is about to add. */
struct names {
    struct metric_index_describer *describer;
    const struct metric_stream_numbers *numbers;
    const uint32_t *added; /* per local: 1 + number that it gets, 0 = none */
    uint32_t added_max;
};

static bool names_reference(void *context, uint32_t local, uint32_t *out_reference)
{
    const struct names *names = context;
    uint32_t number = metric_stream_number(names->numbers, local);
    if (number == METRIC_ROW_NONE && local < names->added_max && names->added[local] != 0)
        number = names->added[local] - 1;
    if (number == METRIC_ROW_NONE)
        return false;
    *out_reference = number;
    return true;
}

static err names_describe(void *context, uint32_t local, struct buf *labels, struct slice *out_tenant)
{
    const struct names *names = context;
    return metric_index_describe(names->describer, local, labels, out_tenant);
}

/* SUM of the head's rows: what the range had at its end less what its groups have. Only the spill adds groups. */
static struct sum sum_of_head(const struct range *range, const struct frozen *frozen)
{
    struct sum sum = frozen->checkpoint.sum;
    for (const struct range_group *g = range->groups; g != NULL; g = g->next)
        sum_subtract(&sum, g->facts.sum);
    check(sum.count == (uint64_t)frozen->view.row_count + frozen->view.histogram_count);
    return sum;
}

/* Encode group and checkpoint of a frozen head. */
static err encode(struct partition *p, struct range *range, struct frozen *frozen, struct pool *scratch,
                  struct buf *group, struct buf *checkpoint, struct metric_group_result *out_result)
{
    struct metric_group_result result = { 0 };
    struct names names = { .numbers = &range->numbers };
    void *at;
    err e = OK;
    TRY(metric_index_describer_open(p->shards->index, p->number, scratch, &names.describer));
    if (frozen->head != NULL) {
        struct metric_series_door door = { .describe = metric_index_describe, .context = names.describer };
        TRY_OUT(metric_group_encode(&frozen->view, sum_of_head(range, frozen), &range->numbers, &door,
                                    scratch, group, &result));
    }
    for (uint32_t i = 0; i < result.new_count; i++)
        if (result.new_locals[i] >= names.added_max)
            names.added_max = result.new_locals[i] + 1;
    TRY_OUT(pool_zalloc(scratch, ((size_t)names.added_max + 1) * sizeof(uint32_t), &at));
    uint32_t *added = at;
    for (uint32_t i = 0; i < result.new_count; i++)
        added[result.new_locals[i]] = range->numbers.count + i + 1;
    names.added = added;
    if (p->shards->config.canary & SHARD_CANARY_CHECKPOINT_FIRST) { /* claims rows that this frame does not
                                                                         have */
        io_mutex_lock(&p->lock);
        frozen->checkpoint.at = p->applied;
        io_mutex_unlock(&p->lock);
    }
    struct state_names doors = { .reference = names_reference,
                                 .describe = names_describe,
                                 .context = &names };
    e = state_encode(&frozen->checkpoint, &doors, scratch, checkpoint);
    *out_result = result;
out:
    metric_index_describer_close(names.describer);
    return e;
}

/* The part to append to; a new one when there is none or the last one failed. */
static err part_open(struct partition *p, struct range *range)
{
    if (range->writer.file != NULL)
        return OK;
    if (range->part_count >= STREAM_PART_COUNT_MAX)
        return ERR_LIMIT;
    struct stream_name name = { .partition = p->number, .start = range->start, .part = range->part_count };
    uint64_t before_bytes = range->writer.end;
    struct stream_writer writer;
    void *at;
    TRY(pool_zalloc(range->worker_pool, sizeof(struct stream_part), &at));
    err e = stream_part_create(p->shards->io, p->shards->config.stream_directory, &name, before_bytes,
                               (p->shards->config.canary & SHARD_CANARY_NO_DIR_SYNC) != 0, &writer);
    if (e != OK) {
        range->part_count += !range_part_unlink(p, range, name.part);
        return e;
    }
    range->part_count++;
    struct stream_part *part = at;
    part->file = writer.file;
    part->part = name.part;
    *range->parts_end = part;
    range->parts_end = &part->next;
    range->writer = writer;
    return OK;
}

/* The newest part got no frame, and its number may be given again: a disk that stays full for days must cost
 * neither files nor descriptors. before_bytes: the writer's end before it was opened. */
static void part_drop(struct partition *p, struct range *range, uint64_t before_bytes)
{
    struct stream_part **last = &range->parts;
    while ((*last)->next != NULL)
        last = &(*last)->next;
    if (!range_part_unlink(p, range, (*last)->part))
        return; /* it stays, as one without frames */
    io_file_close((*last)->file);
    range->part_count = (*last)->part;
    *last = NULL;
    range->parts_end = last;
    range->writer.end = before_bytes;
}

/* Write the frame and open its group again from the file. */
static err write(struct partition *p, struct range *range, struct frozen *frozen, struct slice group,
                 struct slice checkpoint, struct range_group **out_group)
{
    uint64_t offset, before_bytes = range->writer.end;
    bool is_fresh = range->writer.file == NULL;
    TRY(part_open(p, range));
    uint64_t end_before = range->writer.end;
    err e = stream_frame_append(&range->writer, group, checkpoint, &offset);
    if (e != OK) {
        range->writer.file = NULL; /* sealed; readers keep it until the range goes */
        range->writer.end = end_before;
        if (is_fresh)
            part_drop(p, range, before_bytes);
        return e;
    }
    stat_add(STAT_SHARD_SPILLED_BYTES, (int64_t)(range->writer.end - end_before));
    *out_group = NULL;
    if (group.len > 0)
        e = range_group_attach(range, range->writer.file, offset, group.len, frozen->from,
                               frozen->checkpoint.at, out_group);
    if (e != OK) { /* durable, but not to be had: the next attempt must not stand behind it as well */
        range->writer.file = NULL;
        range->writer.end = end_before;
    }
    return e;
}

err partition_spill(struct partition *p)
{
    io_mutex_lock(&p->lock);
    struct range *range = p->ranges;
    while (range != NULL && range->frozen == NULL)
        range = range->next;
    struct frozen *frozen = range != NULL ? range->frozen : NULL;
    io_mutex_unlock(&p->lock);
    if (frozen == NULL)
        return OK;

    err e = OK;
    struct range_group *attached = NULL;
    struct metric_group_result result;
    struct pool *scratch = pool_open(p->shards->pool, "spill", POOL_BYTES_UNLIMITED);
    struct buf group = buf_open(scratch, METRIC_GROUP_BYTES_MAX),
               checkpoint = buf_open(scratch, CHECKPOINT_BYTES_MAX);
    TRY_OUT(encode(p, range, frozen, scratch, &group, &checkpoint, &result));
    uint64_t bytes = group.len + checkpoint.len + STREAM_FRAME_HEADER_BYTES;
    TRY_OUT(write(p, range, frozen, buf_slice(&group), buf_slice(&checkpoint), &attached));
    io_mutex_lock(&p->lock);
    e = range_numbers_bind(range, result.new_locals, result.new_count);
    if (e == OK) {
        if (attached != NULL)
            range_group_publish(range, attached);
        attached = NULL;
        range->stream_bytes += bytes;
        range->frozen = frozen->next;
        if (range->frozen == NULL)
            range->frozen_end = &range->frozen;
        range->frozen_count--;
    }
    io_mutex_unlock(&p->lock);
    if (e != OK) { /* the frame is durable, but memory cannot follow: seal the part, it is cut off there */
        range->writer.end -= bytes;
        range->writer.file = NULL;
        goto out;
    }
    stat_add(STAT_SHARD_SPILLED_ROWS, result.row_count);
    frozen_free(frozen);
out:
    if (attached != NULL)
        metric_group_close(attached->group);
    buf_close(&checkpoint);
    buf_close(&group);
    pool_close(scratch);
    if (e != OK && p->spill_failed == OK)
        diag(e == ERR_LIMIT ? DIAG_WARN : DIAG_ERROR,
             "Cannot write rows to the stream file, retrying in 2 s; "
             "memory and log keep them.",
             "partition=%u error=\"%s\"", p->number, err_text(e));
    io_mutex_lock(&p->lock);
    p->spill_failed = e; /* shards_intake_update looks at it */
    io_mutex_unlock(&p->lock);
    return e;
}

/* During the replay of the log the cores have better to do, unless memory or a partition waits for a spill. */
static bool replay_goes_first(struct shards *shards)
{
    if (atomic_load(&shards->is_ready))
        return false;
    uint64_t rows = 0;
    bool first = true;
    for (uint32_t i = 0; i < shards->config.partition_count && first; i++) {
        struct partition *p = &shards->partitions[i];
        if (!partition_lock(p))
            continue;
        first = !p->apply_waits;
        for (const struct range *r = p->ranges; r != NULL && first; r = r->next) {
            first = r->frozen_count < SHARD_FROZEN_COUNT_MAX / 2;
            for (const struct frozen *f = r->frozen; f != NULL; f = f->next)
                rows += f->view.row_count;
        }
        io_mutex_unlock(&p->lock);
    }
    return first && rows * SHARD_HEAD_ROW_BYTES * 2 <= shards->config.heads_bytes_max;
}

err shards_spill_step(struct shards *shards, bool *out_worked)
{
    *out_worked = false;
    if (shards->config.read_only || replay_goes_first(shards))
        return OK;
    uint32_t count = shards->config.partition_count, first = atomic_fetch_add(&shards->work_next, 1);
    int64_t now_ns = io_monotonic_ns(shards->io);
    for (uint32_t i = 0; i < count; i++) {
        struct partition *p = &shards->partitions[(first + i) % count];
        if (!partition_lock(p))
            continue;
        bool due = false;
        if (!p->spilling && now_ns >= p->spill_retry_ns)
            for (struct range *r = p->ranges; r != NULL && !due; r = r->next)
                due = r->frozen != NULL;
        p->spilling = p->spilling || due;
        io_mutex_unlock(&p->lock);
        if (!due)
            continue;
        err e = partition_spill(p);
        io_mutex_lock(&p->lock);
        p->spilling = false;
        p->spill_retry_ns = e == OK ? 0 : now_ns + SHARD_RETRY_NS;
        io_mutex_unlock(&p->lock);
        shards_intake_update(shards);
        *out_worked = e == OK;
        return OK;
    }
    return OK;
}
