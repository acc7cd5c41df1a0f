/* What replicas compare, and how one that is wrong begins anew. See shard.h, partition.h,
 * docs/decisions/0019-comparing-replicas.md.
 *
 *   apply ─ every record ─→ marks (offset, SUM of the open range) ─┐
 *   fold of the chain ─→ live segments                            ─┴→ shards_partition_sums ─→ another replica
 *   row groups of stream files ─ read and decoded ─→ SUM ─ is it what was applied? (shards_partition_read_back)
 *
 * Invariants
 *  1. A mark is a function of the log alone: of the positions behind two records that follow each other. Replicas
 *     that read the same records make the same marks, whenever they began to.
 *  2. SUM of a mark is of what was applied, never of what is on the disk. That the disk has the same, the read
 *     back tells: what it finds in a group is compared with what was applied when the group was written, or, after
 *     a start, with what the frame's checkpoint says.
 *  3. Who begins anew keeps its stream files in the quarantine, and uses none of them again. */
#include "shard/partition.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/diag.h"
#include "base/stat.h"

#include <stdlib.h>

/* ---- marks ---- */

static struct shard_mark mark_here(const struct partition *p)
{
    const struct range *range = p->open_range;
    return (struct shard_mark){ range->start.generation, range->start.offset, p->applied.offset,
                                p->leader_epoch, range->sum };
}

void partition_mark(struct partition *p, uint64_t before)
{
    struct shard_mark mark = mark_here(p);
    for (int level = 0; level < SHARD_MARK_LEVELS; level++) {
        int shift = level * SHARD_MARK_STEP_BITS;
        if (before >> shift == mark.at >> shift)
            return; /* nor do the wider steps end in between */
        p->marks[level][p->mark_count[level]++ % SHARD_MARK_COUNT] = mark;
    }
}

static int newest_first(const void *a, const void *b) { return shard_mark_order(a, b); }

/* Those of all levels, each once, and the present. */
static void put_marks(const struct partition *p, struct shard_sums *out)
{
    uint32_t count = 0, kept = 0;
    out->marks[count++] = mark_here(p);
    for (int level = 0; level < SHARD_MARK_LEVELS; level++)
        for (uint32_t i = 0; i < p->mark_count[level] && i < SHARD_MARK_COUNT; i++)
            out->marks[count++] = p->marks[level][i];
    qsort(out->marks, count, sizeof *out->marks, newest_first);
    for (uint32_t i = 0; i < count; i++)
        if (kept == 0 || shard_mark_order(&out->marks[kept - 1], &out->marks[i]) != 0)
            out->marks[kept++] = out->marks[i];
    out->mark_count = kept;
}

/* ---- segments ---- */

static void add_digest(struct sum *sum, const struct chain_segment *s)
{
    sum_add_hash(sum, (struct hash128){ .low = get_le64(s->digest), .high = get_le64(s->digest + 8) });
}

static struct shard_segment segment_of(const struct chain_segment *s)
{
    struct shard_segment out = { .era = s->era,
                                 .bytes = s->bytes,
                                 .from_generation = s->from.generation,
                                 .from_offset = s->from.offset,
                                 .to_generation = s->to.generation,
                                 .to_offset = s->to.offset,
                                 .sum = s->sum };
    memcpy(out.digest, s->digest, sizeof out.digest);
    return out;
}

void shard_segment_key(uint32_t partition, const struct shard_segment *segment,
                       char out_key[SHARD_KEY_BYTES_MAX])
{
    segment_key(partition, segment->digest, segment->era, out_key);
}

static void put_segments(const struct partition *p, uint32_t first, uint32_t count, struct shard_sums *out)
{
    size_t total = p->chain.segment_count;
    out->segment_count = (uint32_t)total;
    out->first = first;
    for (size_t i = 0; i < total; i++) { /* the newest first */
        const struct chain_segment *s = &p->chain.segments[total - 1 - i];
        sum_add(&out->segments, s->sum);
        add_digest(&out->digests, s);
        if (i >= first && out->page_count < count)
            out->page[out->page_count++] = segment_of(s);
        else if (i >= first)
            add_digest(&out->older_digests, s);
    }
}

void shards_partition_sums(struct shards *shards, uint32_t partition, uint32_t first, uint32_t count,
                           struct shard_sums *out_sums)
{
    check(partition < shards->config.partition_count && count <= SHARD_SEGMENT_PAGE_MAX);
    struct partition *p = &shards->partitions[partition];
    memset(out_sums, 0, sizeof *out_sums);
    if (!partition_lock(p))
        return;
    out_sums->is_open = true;
    out_sums->is_recovered = p->is_recovered;
    out_sums->anew_count = position_compare(p->anew_start, p->open_range->start) == 0 ? p->anew_count : 0;
    out_sums->generation = p->applied.generation;
    out_sums->applied = p->applied.offset;
    out_sums->chain_next = p->chain.next_number;
    put_marks(p, out_sums);
    put_segments(p, first, count, out_sums);
    io_mutex_unlock(&p->lock);
}

/* ---- reading back ---- */

/* A group, and what keeps it. */
struct held {
    struct range *range; /* a reference */
    const struct range_group *group;
    const uint32_t *locals; /* by stream number, a copy: the range's own moves when it grows */
    uint32_t number_count;
};

static void series_add(const struct metric_group_series *s, struct hash128 series, struct sum *sum)
{
    for (size_t i = 0; i < s->row_count; i++)
        sum_add_hash(sum, sum_row_hash(series, s->t_ms[i], s->value_bits[i],
                                       s->start_ms != NULL ? s->start_ms[i] : 0, SAMPLE_FLOAT));
    for (size_t i = 0; i < s->histogram_count; i++) {
        const struct metric_group_histogram *h = &s->histograms[i];
        sum_add_hash(sum, sum_row_hash(series, h->t_ms, sum_histogram_bits(h->bytes), h->start_ms,
                                       SAMPLE_HISTOGRAM));
    }
}

/* SUM of the rows that are in a group now. */
static err group_sum(const struct partition *p, const struct held *held, struct pool *scratch,
                     struct sum *out_sum)
{
    struct metric_group_walk *walk;
    struct metric_group_series series;
    struct sum sum = { 0 };
    TRY(metric_group_walk_open(held->group->group, scratch, &walk));
    err e;
    while ((e = metric_group_walk_next(walk, &series)) == OK && series.number < held->number_count)
        series_add(&series, metric_fingerprint_of_local(p->fingerprints, held->locals[series.number]), &sum);
    metric_group_walk_close(walk);
    *out_sum = sum;
    return e == ERR_END ? OK : e == OK ? ERR_CORRUPT : e;
}

/* The next group behind `skip` others, in order of ranges; locals in pool. ERR_END: there is none, or the
 * partition is not open; ERR_LIMIT. */
static err hold(struct partition *p, uint64_t skip, struct pool *pool, struct held *out_held)
{
    err e = ERR_END;
    if (!partition_lock(p))
        return ERR_END;
    for (struct range *r = p->ranges; r != NULL && e == ERR_END; r = r->next)
        for (const struct range_group *g = r->groups; g != NULL && e == ERR_END; g = g->next) {
            struct slice locals =
                slice_of((const uint8_t *)r->local_of_number, r->numbers.count * sizeof *r->local_of_number);
            if (skip-- > 0)
                continue;
            e = pool_copy(pool, locals, &locals);
            if (e == OK)
                *out_held = (struct held){ range_ref(r), g, (const uint32_t *)locals.at, r->numbers.count };
        }
    io_mutex_unlock(&p->lock);
    return e;
}

static err read_group(struct partition *p, const struct held *held, struct pool *scratch,
                      struct shard_read_back *read)
{
    const struct range_group *g = held->group;
    struct sum found;
    err e = group_sum(p, held, scratch, &found);
    bool is_damaged = e == ERR_CORRUPT || e == ERR_END || e == ERR_VERSION;
    if (!is_damaged)
        TRY(e);
    read->group_count++;
    read->byte_count += g->bytes;
    if (!is_damaged && sum_equal(found, g->facts.sum))
        return OK;
    if (read->wrong_count++ == 0) {
        read->generation = g->from.generation;
        read->from = g->from.offset;
        read->to = g->to.offset;
        read->applied = g->facts.sum;
        read->found = is_damaged ? (struct sum){ 0 } : found;
    }
    return OK;
}

err shards_partition_read_back(struct shards *shards, uint32_t partition, uint64_t skip, uint64_t bytes_max,
                               uint64_t *out_next, struct shard_read_back *out_read)
{
    check(partition < shards->config.partition_count);
    struct partition *p = &shards->partitions[partition];
    struct shard_read_back read = { 0 };
    struct pool *scratch = pool_open(shards->pool, "read back", POOL_BYTES_UNLIMITED);
    err e = atomic_load(&p->stage) == SHARD_OPEN ? OK : ERR_NOT_FOUND;
    while (e == OK) {
        struct held held = { 0 };
        pool_reset(scratch);
        TRY_OUT(atomic_load(&shards->stopping.canceled) ? ERR_CANCELED : OK);
        e = hold(p, skip, scratch, &held);
        if (e != OK)
            break;
        if (read.group_count == 0 || read.byte_count + held.group->bytes <= bytes_max)
            e = read_group(p, &held, scratch, &read);
        else
            e = ERR_FULL; /* of the budget: the next call goes on here */
        range_unref(held.range);
        skip += e == OK;
    }
    if (e == ERR_END || e == ERR_FULL) {
        *out_next = e == ERR_FULL ? skip : 0;
        *out_read = read;
        e = OK;
    }
out:
    pool_close(scratch);
    return e;
}

/* ---- beginning anew ---- */

/* Nobody writes, commits or merges meanwhile. */
static err take_all(struct partition *p)
{
    if (!partition_lock(p))
        return ERR_NOT_FOUND;
    bool is_free = !p->spilling && !p->committing && !p->compacting;
    if (is_free)
        p->spilling = p->committing = p->compacting = true;
    io_mutex_unlock(&p->lock);
    return is_free ? OK : ERR_BUSY;
}

static struct range *range_at(struct partition *p, uint32_t index)
{
    io_mutex_lock(&p->lock); /* apply adds to the list */
    struct range *range = p->ranges;
    while (range != NULL && index-- > 0)
        range = range->next;
    range = range != NULL ? range_ref(range) : NULL;
    io_mutex_unlock(&p->lock);
    return range;
}

/* All parts of all ranges; nobody spills. */
static err set_aside(struct partition *p)
{
    struct range *range;
    err e = OK;
    for (uint32_t i = 0; e == OK && (range = range_at(p, i)) != NULL; i++) {
        for (const struct stream_part *part = range->parts; part != NULL && e == OK; part = part->next)
            e = range_part_set_aside(p, range, part->part);
        range_unref(range);
    }
    return e;
}

/* Locked. */
static void count_anew(struct partition *p)
{
    struct log_position start = p->open_range->start;
    p->anew_count = position_compare(p->anew_start, start) == 0 ? p->anew_count + 1 : 1;
    p->anew_start = start;
}

err shards_partition_begin_anew(struct shards *shards, uint32_t partition, const char *why)
{
    check(partition < shards->config.partition_count && shards->config.is_shared);
    struct partition *p = &shards->partitions[partition];
    TRY(take_all(p));
    uint64_t log_start = log_watermarks(shards->log, partition).start_offset;
    io_mutex_lock(&p->lock);
    bool is_there = log_start <= p->chain.end.offset;
    io_mutex_unlock(&p->lock);
    err e = is_there ? set_aside(p) : ERR_CONFLICT;
    diag(e == OK ? DIAG_ERROR : DIAG_WARN,
         e == OK ? "What a replica has is wrong; its stream files are set aside, and it reads the log again."
                 : "What a replica has is wrong, and its stream files cannot be set aside yet.",
         "partition=%u why=\"%s\" error=\"%s\"", partition, why, err_text(e));
    if (e == OK) {
        stat_add(STAT_SHARD_BEGUN_ANEW, 1);
        shards_partition_close(shards, partition); /* before anybody spills again */
    }
    io_mutex_lock(&p->lock);
    p->spilling = p->committing = p->compacting = false;
    if (e == OK)
        count_anew(p);
    io_mutex_unlock(&p->lock);
    return e;
}
