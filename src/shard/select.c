/* The source over all partitions: which series match. See model/source.h.
 *
 *   index ids ─ by partition ─┐
 *   segments' ordinals ───────┴─ joined by fingerprint ─ series of the set, partition after partition
 *
 * A series is in one partition, and there in any number of segments, row groups and heads. Where only one of the
 * places has matching series nothing can be twice, and not even labels are looked at.
 *
 * Invariants
 *  1. Series are in the order of the first segment that has them, then in the order of their ids: reading them
 *     in order walks every segment forward.
 *  2. A series' references ascend in position order. */
#include "shard/source.h"

#include "base/check.h"
#include "model/sum.h"

#define SLOTS_MIN 64u

/* The series of a set under construction. Blocks of its pool but for what ends in the set. */
struct select {
    struct source_set *set;
    const struct source_request *request;
    struct pool *scratch;
    struct pool *partition;        /* until the next partition */
    struct set_series *series;     /* block */
    size_t count, capacity, first; /* first: of the partition under way */
    struct triple {
        uint32_t series;
        struct set_reference reference;
    } * triples; /* block */
    size_t triple_count, triple_capacity;
};

/* Fingerprints of the partition under way. */
struct join {
    uint32_t *slots;   /* 1 + index behind select.first, 0 = free; NULL: everything is unique anyway */
    size_t slot_count; /* a power of two */
    struct hash128 *hashes;
    struct metric_compact_labels reader; /* ordinals ascend: each block of the index is walked once */
    struct buf labels;
};

static err join_open(struct select *s, size_t most, struct join *out)
{
    void *slots, *hashes;
    struct metric_compact_labels reader;
    size_t count = SLOTS_MIN;
    while (count < most * 2)
        count *= 2;
    TRY(pool_zalloc(s->partition, count * sizeof *out->slots, &slots));
    TRY(pool_alloc(s->partition, (most + 1) * sizeof *out->hashes, &hashes));
    TRY(metric_compact_labels_open(s->partition, &reader));
    *out = (struct join){ slots, count, hashes, reader, buf_open(s->partition, LABELS_BYTES_MAX) };
    return OK;
}

static void join_close(struct join *j)
{
    metric_compact_labels_close(&j->reader);
    buf_close(&j->labels);
}

static err series_new(struct select *s, uint32_t *out_series)
{
    TRY(guard_series(s->request->guard, s->count + 1, s->request->series_max));
    if (s->count >= UINT32_MAX - 1)
        return ERR_LIMIT;
    void *block = s->series;
    TRY(pool_block_reserve(s->scratch, &block, sizeof *s->series, s->count + 1, &s->capacity));
    s->series = block;
    s->series[s->count] = (struct set_series){ .id = METRIC_ID_NONE, .local = METRIC_LOCAL_NONE };
    *out_series = (uint32_t)s->count++;
    return OK;
}

/* The series of a fingerprint of the partition under way. */
static err series_of(struct select *s, struct join *j, struct hash128 hash, uint32_t *out_series)
{
    size_t at = hash.low & (j->slot_count - 1);
    for (; j->slots[at] != 0; at = (at + 1) & (j->slot_count - 1))
        if (hash128_equal(j->hashes[j->slots[at] - 1], hash)) {
            *out_series = (uint32_t)s->first + j->slots[at] - 1;
            return OK;
        }
    TRY(series_new(s, out_series));
    j->hashes[*out_series - s->first] = hash;
    j->slots[at] = *out_series - (uint32_t)s->first + 1;
    return OK;
}

static err check_guard(const struct select *s, size_t i)
{
    return i % 1024 == 1023 && s->request->guard != NULL ? guard_check(s->request->guard) : OK;
}

/* ---- segments ---- */

struct ordinals {
    uint32_t *at;
    size_t count;
};

static err add_ordinals(struct select *s, struct view *view, uint32_t segment, struct ordinals ordinals,
                        struct join *j, struct err_at *at)
{
    void *block = s->triples;
    TRY(pool_block_reserve(s->scratch, &block, sizeof *s->triples, s->triple_count + ordinals.count,
                           &s->triple_capacity));
    s->triples = block;
    for (size_t i = 0; i < ordinals.count; i++) {
        uint32_t series;
        if (j->slots == NULL) {
            TRY(series_new(s, &series));
        } else {
            buf_clear(&j->labels);
            TRY(metric_compact_labels_read(&j->reader, view->segments[segment].compact, ordinals.at[i],
                                           &j->labels, at));
            struct hash128 hash = sum_series_hash(s->request->tenant, buf_slice(&j->labels));
            TRY(series_of(s, j, hash, &series));
        }
        s->series[series].partition = view->partition->number;
        s->triples[s->triple_count++] = (struct triple){ series, { segment, ordinals.at[i] } };
        TRY(check_guard(s, i));
    }
    return OK;
}

/* What matches in one segment; what it took to find out is given back. */
static err select_segment(struct select *s, struct metric_compact *compact, struct ordinals *out,
                          struct err_at *at)
{
    const struct source_request *request = s->request;
    struct pool *pool = pool_open(s->partition, "select in a segment", POOL_BYTES_UNLIMITED);
    uint32_t *found;
    size_t count;
    err e = metric_compact_select(compact, request->tenant, request->matchers, request->matcher_count, pool,
                                  &found, &count, at);
    if (e == OK && count > 0)
        e = pool_alloc(s->partition, count * sizeof *found, (void **)&out->at);
    if (e == OK && count > 0) {
        memcpy(out->at, found, count * sizeof *found);
        out->count = count;
    }
    pool_close(pool);
    return e;
}

/* What matches in each segment; damaged ones are named as missing and have none. */
static err select_segments(struct select *s, struct view *view, struct ordinals *lists, size_t *out_total)
{
    for (uint32_t i = 0; i < view->segment_count; i++) {
        struct err_at at = { 0 };
        lists[i] = (struct ordinals){ 0 };
        err e = select_segment(s, view->segments[i].compact, &lists[i], &at);
        TRY(views_segment_read(&s->set->views, view, i, e, &at, "damaged segment index"));
        *out_total += lists[i].count;
    }
    return s->request->guard != NULL ? guard_check(s->request->guard) : OK;
}

/* ---- rows that are not in segments yet ---- */

struct live_ids {
    const uint32_t *at;
    size_t count;
    uint32_t *numbers; /* per id: the stream number in each range of the view */
};

static bool has_rows(const struct view *view, const uint32_t *numbers, uint32_t local)
{
    for (size_t i = 0; i < view->piece_count; i++) {
        const struct view_piece *piece = &view->pieces[i];
        if (piece->group != NULL ? numbers[piece->range_index] != METRIC_ROW_NONE
                                 : metric_head_has(&piece->head, local))
            return true;
    }
    return false;
}

/* Stream numbers of all ids under one lock: the spill worker may be growing the tables. */
static err read_numbers(struct select *s, struct view *view, struct live_ids *ids)
{
    const struct metric_index *index = s->set->views.shards->index;
    void *at;
    TRY(pool_alloc(s->set->views.pool, ids->count * view->range_count * sizeof(uint32_t) + 1, &at));
    ids->numbers = at;
    uint32_t *number = at;
    io_mutex_lock(&view->partition->lock);
    for (size_t i = 0; i < ids->count; i++) {
        uint32_t local = metric_index_local(index, ids->at[i]);
        for (uint32_t k = 0; k < view->range_count; k++)
            *number++ = local == METRIC_LOCAL_NONE ? METRIC_ROW_NONE
                                                   : metric_stream_number(&view->ranges[k]->numbers, local);
    }
    io_mutex_unlock(&view->partition->lock);
    return OK;
}

static err add_live(struct select *s, struct view *view, const struct live_ids *ids, struct join *j)
{
    const struct metric_index *index = s->set->views.shards->index;
    for (size_t i = 0; i < ids->count; i++) {
        uint32_t id = ids->at[i], local = metric_index_local(index, id), series;
        const uint32_t *numbers = ids->numbers + i * view->range_count;
        if (local == METRIC_LOCAL_NONE || !has_rows(view, numbers, local))
            continue;
        if (j->slots == NULL)
            TRY(series_new(s, &series));
        else
            TRY(series_of(s, j, metric_index_fingerprint(index, id), &series));
        s->series[series].partition = view->partition->number;
        s->series[series].id = id;
        s->series[series].local = local;
        s->series[series].numbers = numbers;
        TRY(check_guard(s, i));
    }
    return OK;
}

/* The ids of matching live series, sorted by partition; *out_starts: partition_count + 1 places. */
static err select_live(struct select *s, uint32_t **out_ids, size_t **out_starts)
{
    struct views *views = &s->set->views;
    struct metric_index *index = views->shards->index;
    uint32_t partition_count = views->shards->config.partition_count;
    size_t piece_count = 0, count = 0;
    uint32_t *found = NULL;
    void *at;
    TRY(pool_zalloc(s->scratch, (partition_count + (size_t)2) * sizeof(size_t), &at));
    size_t *starts = at;
    *out_starts = starts;
    *out_ids = NULL;
    for (uint32_t i = 0; i < partition_count; i++)
        piece_count += views->views[i].piece_count;
    if (piece_count == 0)
        return OK;
    TRY(metric_index_view_open(index, s->request->tenant, views->pool, &s->set->index));
    TRY(metric_index_view_select(s->set->index, s->request->matchers, s->request->matcher_count, s->scratch,
                                 &found, &count));
    TRY(pool_alloc(s->scratch, (count + 1) * 2 * sizeof(uint32_t), &at));
    uint32_t *sorted = at, *partitions = sorted + count + 1;
    for (size_t i = 0; i < count; i++) {
        partitions[i] = metric_index_partition(index, found[i]);
        if (partitions[i] < partition_count) /* else dropped meanwhile */
            starts[partitions[i] + 2]++;
    }
    for (uint32_t i = 0; i < partition_count; i++)
        starts[i + 2] += starts[i + 1];
    for (size_t i = 0; i < count; i++)
        if (partitions[i] < partition_count)
            sorted[starts[partitions[i] + 1]++] = found[i];
    *out_ids = sorted;
    return OK;
}

/* ---- all of it ---- */

static err select_partition(struct select *s, struct view *view, struct live_ids ids)
{
    void *at;
    size_t total = 0, places = 0;
    struct join join = { 0 };
    err e = OK;
    if (view->piece_count == 0)
        ids.count = 0;
    pool_reset(s->partition);
    TRY(pool_alloc(s->partition, (view->segment_count + 1) * sizeof(struct ordinals), &at));
    struct ordinals *lists = at;
    TRY(select_segments(s, view, lists, &total));
    for (size_t i = 0; i < view->segment_count; i++)
        places += lists[i].count > 0;
    places += ids.count > 0;
    s->first = s->count;
    view->first_series = s->count;
    if (places > 1)
        TRY(join_open(s, total + ids.count, &join));
    for (uint32_t i = 0; i < view->segment_count; i++) {
        struct err_at at = { 0 };
        e = add_ordinals(s, view, i, lists[i], &join, &at);
        TRY_OUT(views_segment_read(&s->set->views, view, i, e, &at, "damaged segment index"));
    }
    if (ids.count > 0) {
        TRY_OUT(read_numbers(s, view, &ids));
        TRY_OUT(add_live(s, view, &ids, &join));
    }
    view->series_count = s->count - view->first_series;
out:
    join_close(&join);
    return e;
}

/* Series and references as arrays of the set. */
static err finish(struct select *s)
{
    struct source_set *set = s->set;
    void *at;
    TRY(pool_alloc(set->views.pool, s->count * sizeof *set->series + 1, &at));
    set->series = at;
    TRY(pool_alloc(set->views.pool, s->triple_count * sizeof *set->references + 1, &at));
    set->references = at;
    if (s->count > 0)
        memcpy(set->series, s->series, s->count * sizeof *set->series);
    set->series_count = s->count;
    for (size_t i = 0; i < s->triple_count; i++)
        set->series[s->triples[i].series].reference_count++;
    uint32_t next = 0;
    for (size_t i = 0; i < s->count; i++) {
        set->series[i].first_reference = next;
        next += set->series[i].reference_count;
        set->series[i].reference_count = 0;
    }
    for (size_t i = 0; i < s->triple_count; i++) {
        struct set_series *series = &set->series[s->triples[i].series];
        set->references[series->first_reference + series->reference_count++] = s->triples[i].reference;
    }
    return OK;
}

static err select_all(struct select *s)
{
    struct views *views = &s->set->views;
    uint32_t *ids;
    size_t *starts;
    TRY(select_live(s, &ids, &starts));
    for (uint32_t i = 0; i < views->shards->config.partition_count; i++)
        TRY(select_partition(s, &views->views[i],
                             (struct live_ids){ .at = ids + starts[i], .count = starts[i + 1] - starts[i] }));
    TRY(finish(s));
    return gather_open(s->set);
}

err source_select(struct source *source, const struct source_request *request, struct pool *pool,
                  struct source_set **out_set)
{
    void *at;
    TRY(pool_zalloc(pool, sizeof(struct source_set), &at));
    struct source_set *set = at;
    set->guard = request->guard;
    TRY(views_open(source->context, request, request->range, pool, &set->views));
    struct select s = { .set = set,
                        .request = request,
                        .scratch = pool_open(pool, "select", POOL_BYTES_UNLIMITED) };
    s.partition = pool_open(s.scratch, "select in a partition", POOL_BYTES_UNLIMITED);
    err e = select_all(&s);
    pool_close(s.partition);
    pool_close(s.scratch);
    if (e == OK) {
        *out_set = set;
        return OK;
    }
    metric_index_view_close(set->index);
    views_close(&set->views);
    return e;
}
