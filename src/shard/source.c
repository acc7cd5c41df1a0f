/* The source over all partitions: select and read. See model/source.h.
 *
 * A selector is asked of the live index once and of every segment whose times overlap; what they find is
 * joined by fingerprint. A series' rows are gathered in position order (segments, groups, heads) and
 * resolved: of equal times the highest position wins.
 *
 * Invariants
 *  1. A series is in one partition; its references ascend in position order.
 *  2. Readers (cursors and scratch of one thread) are taken from the set's free list and put back. */
#include "shard/source.h"

#include "base/check.h"
#include "model/labels.h"

/* ---- joining ---- */

/* Series found so far, by fingerprint. Blocks of its pool. */
struct joiner {
    struct pool *scratch;
    struct pool *pool; /* of labels */
    uint32_t *slots;   /* 1 + index, 0 = free; a power of two */
    size_t slot_count;
    struct hash128 *hashes;
    size_t hash_capacity;
    struct set_series *series;
    size_t series_count, series_capacity, series_max;
    struct triple {
        uint32_t series;
        struct set_reference reference;
    } * triples;
    size_t triple_count, triple_capacity;
    struct buf labels;
};

static err joiner_grow(struct joiner *j)
{
    size_t count = j->slot_count == 0 ? 1024 : j->slot_count * 2;
    void *block = NULL;
    TRY(pool_block_resize(j->scratch, &block, count * sizeof *j->slots));
    uint32_t *slots = block;
    memset(slots, 0, count * sizeof *slots);
    for (size_t i = 0; i < j->series_count; i++) {
        size_t at = j->hashes[i].low & (count - 1);
        while (slots[at] != 0)
            at = (at + 1) & (count - 1);
        slots[at] = (uint32_t)i + 1;
    }
    pool_block_free(j->scratch, j->slots);
    j->slots = slots;
    j->slot_count = count;
    return OK;
}

/* The series of a fingerprint; when it is new, its labels are taken from j->labels. */
static err joiner_add(struct joiner *j, struct hash128 hash, uint32_t partition, uint32_t *out_index)
{
    if (j->series_count * 2 >= j->slot_count)
        TRY(joiner_grow(j));
    size_t at = hash.low & (j->slot_count - 1);
    for (; j->slots[at] != 0; at = (at + 1) & (j->slot_count - 1))
        if (hash128_equal(j->hashes[j->slots[at] - 1], hash)) {
            *out_index = j->slots[at] - 1;
            return OK;
        }
    if (j->series_count >= j->series_max || j->series_count >= UINT32_MAX - 1)
        return ERR_LIMIT;
    void *block = j->hashes;
    TRY(pool_block_reserve(j->scratch, &block, sizeof *j->hashes, j->series_count + 1, &j->hash_capacity));
    j->hashes = block;
    block = j->series;
    TRY(pool_block_reserve(j->scratch, &block, sizeof *j->series, j->series_count + 1, &j->series_capacity));
    j->series = block;
    struct set_series *s = &j->series[j->series_count];
    *s = (struct set_series){ .partition = partition, .local = METRIC_LOCAL_NONE };
    TRY(pool_copy(j->pool, buf_slice(&j->labels), &s->labels));
    j->hashes[j->series_count] = hash;
    j->slots[at] = (uint32_t)++j->series_count;
    *out_index = (uint32_t)j->series_count - 1;
    return OK;
}

static bool live_has_rows(const struct view *view, const uint32_t *numbers, uint32_t local)
{
    for (size_t i = 0; i < view->piece_count; i++) {
        const struct view_piece *piece = &view->pieces[i];
        if (piece->group != NULL ? numbers[piece->range_index] != METRIC_ROW_NONE
                                 : metric_head_has(&piece->head, local))
            return true;
    }
    return false;
}

/* Series of the live index with rows in groups or heads of their view. */
static err join_live(struct views *views, const struct source_request *request, struct joiner *j)
{
    struct metric_index *index = views->shards->index;
    uint32_t *ids;
    size_t count, piece_count = 0;
    for (uint32_t i = 0; i < views->shards->config.partition_count; i++)
        piece_count += views->views[i].piece_count;
    if (piece_count == 0)
        return OK;
    TRY(metric_index_select(index, request->tenant, request->matchers, request->matcher_count, j->scratch,
                            &ids, &count));
    for (size_t i = 0; i < count; i++) {
        uint32_t partition = metric_index_partition(index, ids[i]), local = metric_index_local(index, ids[i]);
        if (partition >= views->shards->config.partition_count || local == METRIC_LOCAL_NONE)
            continue;
        struct view *view = &views->views[partition];
        if (view->piece_count == 0)
            continue;
        void *at;
        TRY(pool_alloc(views->pool, view->range_count * sizeof(uint32_t) + 1, &at));
        uint32_t *numbers = at;
        io_mutex_lock(&view->partition->lock); /* the spill worker may be growing the tables */
        for (uint32_t k = 0; k < view->range_count; k++)
            numbers[k] = metric_stream_number(&view->ranges[k]->numbers, local);
        io_mutex_unlock(&view->partition->lock);
        if (!live_has_rows(view, numbers, local))
            continue;
        buf_clear(&j->labels);
        err e = metric_index_labels(index, ids[i], NULL, &j->labels);
        if (e == ERR_NOT_FOUND)
            continue;
        TRY(e);
        uint32_t found;
        TRY(joiner_add(j, metric_index_fingerprint(index, ids[i]), partition, &found));
        j->series[found].local = local;
        j->series[found].numbers = numbers;
        if (i % 1024 == 1023)
            TRY(request->guard != NULL ? guard_check(request->guard) : OK);
    }
    return OK;
}

static err join_ordinals(struct view *view, uint32_t segment, const struct source_request *request,
                         const uint32_t *ordinals, size_t count, struct joiner *j, struct err_at *at)
{
    struct metric_compact *compact = view->segments[segment].compact;
    const struct metric_part *part;
    struct metric_part_cursor cursor; /* ordinals ascend: each block of the index is walked once */
    uint32_t first, series_count;
    TRY(metric_compact_index(compact, request->tenant, &part, at));
    TRY(metric_part_cursor_open(part, j->scratch, &cursor));
    metric_compact_tenant(compact, request->tenant, &first, &series_count);
    void *block = j->triples;
    TRY(pool_block_reserve(j->scratch, &block, sizeof *j->triples, j->triple_count + count,
                           &j->triple_capacity));
    j->triples = block;
    for (size_t i = 0; i < count; i++) {
        uint32_t found;
        buf_clear(&j->labels);
        TRY(metric_part_cursor_seek(&cursor, ordinals[i] - first));
        TRY(metric_part_cursor_labels(&cursor, &j->labels));
        struct hash128 hash = sum_series_hash(request->tenant, buf_slice(&j->labels));
        TRY(joiner_add(j, hash, view->partition->number, &found));
        j->triples[j->triple_count++] = (struct triple){ found, { segment, ordinals[i] } };
        if (i % 1024 == 1023)
            TRY(request->guard != NULL ? guard_check(request->guard) : OK);
    }
    return OK;
}

static err join_segment(struct view *view, uint32_t segment, const struct source_request *request,
                        struct joiner *j)
{
    struct err_at at = { 0 };
    uint32_t *ordinals;
    size_t count;
    TRY(metric_compact_select(view->segments[segment].compact, request->tenant, request->matchers,
                              request->matcher_count, j->scratch, &ordinals, &count, &at));
    return count == 0 ? OK : join_ordinals(view, segment, request, ordinals, count, j, &at);
}

static bool is_damage(err e) { return e == ERR_CORRUPT || e == ERR_IO || e == ERR_END || e == ERR_NOT_FOUND; }

/* ---- order ---- */

static bool is_after(const struct set_series *series, uint32_t a, uint32_t b)
{
    return labels_compare(series[a].labels, series[b].labels) > 0;
}

/* Merge the neighbouring runs [a, b) and [b, c) of `from` into `to`. */
static void merge_runs(const struct set_series *series, const uint32_t *from, uint32_t a, uint32_t b,
                       uint32_t c, uint32_t *to)
{
    uint32_t left = a, right = b, at = a;
    if (is_after(series, from[b - 1], from[b]))
        while (left < b && right < c)
            to[at++] = is_after(series, from[left], from[right]) ? from[right++] : from[left++];
    memcpy(to + at, from + left, (b - left) * sizeof *to);
    at += b - left;
    memcpy(to + at, from + right, (c - right) * sizeof *to);
}

/* Numbers of the series in the order of their labels. Segments give nearly sorted runs, which a merge of natural
 * runs keeps: a comparison walks two label sets. */
static err sort_series(struct pool *scratch, const struct set_series *series, uint32_t count,
                       uint32_t **out_order)
{
    void *at;
    TRY(pool_alloc(scratch, ((size_t)count + 1) * 3 * sizeof(uint32_t), &at));
    uint32_t *from = at, *to = from + count + 1, *starts = to + count + 1, runs = 0;
    for (uint32_t i = 0; i < count; i++) {
        from[i] = i;
        if (i == 0 || is_after(series, i - 1, i))
            starts[runs++] = i;
    }
    starts[runs] = count;
    while (runs > 1) {
        uint32_t kept = 0;
        for (uint32_t i = 0; i < runs; i += 2) {
            if (i + 1 == runs)
                memcpy(to + starts[i], from + starts[i], (count - starts[i]) * sizeof *to);
            else
                merge_runs(series, from, starts[i], starts[i + 1], starts[i + 2], to);
            starts[kept++] = starts[i];
        }
        starts[kept] = count;
        runs = kept;
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    *out_order = from;
    return OK;
}

/* Series and references of the joiner as arrays of the set. */
static err set_finish(struct source_set *set, struct joiner *j)
{
    void *at;
    TRY(pool_alloc(set->views.pool, j->series_count * sizeof *set->series + 1, &at));
    set->series = at;
    TRY(pool_alloc(set->views.pool, j->triple_count * sizeof *set->references + 1, &at));
    set->references = at;
    for (size_t i = 0; i < j->triple_count; i++)
        j->series[j->triples[i].series].reference_count++;
    uint32_t next = 0;
    for (size_t i = 0; i < j->series_count; i++) {
        j->series[i].first_reference = next;
        next += j->series[i].reference_count;
        j->series[i].reference_count = 0;
    }
    for (size_t i = 0; i < j->triple_count; i++) {
        struct set_series *s = &j->series[j->triples[i].series];
        set->references[s->first_reference + s->reference_count++] = j->triples[i].reference;
    }
    uint32_t *order;
    TRY(sort_series(j->scratch, j->series, (uint32_t)j->series_count, &order));
    for (size_t i = 0; i < j->series_count; i++)
        set->series[i] = j->series[order[i]];
    set->series_count = j->series_count;
    return OK;
}

static err join_all(struct source_set *set, const struct source_request *request, struct joiner *j)
{
    TRY(join_live(&set->views, request, j));
    for (uint32_t i = 0; i < set->views.shards->config.partition_count; i++) {
        struct view *view = &set->views.views[i];
        for (uint32_t k = 0; k < view->segment_count; k++) {
            err e = join_segment(view, k, request, j);
            if (is_damage(e))
                views_missing(&set->views, i, view->segments[k].live->facts.range, "damaged segment index");
            else
                TRY(e);
        }
    }
    return set_finish(set, j);
}

static err source_select(struct source *source, const struct source_request *request, struct pool *pool,
                         struct source_set **out_set)
{
    void *at;
    TRY(pool_zalloc(pool, sizeof(struct source_set), &at));
    struct source_set *set = at;
    set->guard = request->guard;
    TRY(views_open(source->context, request->range, request->guard, pool, &set->views));
    struct pool *scratch = pool_open(pool, "select", POOL_BYTES_UNLIMITED);
    struct joiner j = { .scratch = scratch,
                        .pool = pool,
                        .series_max = request->series_max,
                        .labels = buf_open(scratch, LABELS_BYTES_MAX) };
    err e = join_all(set, request, &j);
    pool_close(scratch);
    if (e == OK)
        e = gather_open(set);
    if (e != OK)
        views_close(&set->views);
    else
        *out_set = set;
    return e;
}

/* ---- reading ---- */

/* Cursors and scratch memory of one thread at a time. */
struct set_reader {
    struct set_reader *next;
    struct pool *pool;
    struct pool *scratch;
    struct metric_compact_cursor ***cursors; /* by partition, then by segment of its view; opened on use */
};

static err reader_take(struct source_set *set, struct set_reader **out_reader)
{
    io_mutex_lock(&set->views.lock);
    struct set_reader *reader = set->readers;
    if (reader != NULL)
        set->readers = reader->next;
    io_mutex_unlock(&set->views.lock);
    if (reader == NULL) {
        struct pool *pool = pool_open(set->views.pool, "reader", POOL_BYTES_UNLIMITED);
        void *at, *cursors;
        err e = pool_zalloc(pool, sizeof *reader, &at);
        if (e == OK)
            e = pool_zalloc(pool, set->views.shards->config.partition_count * sizeof *reader->cursors,
                            &cursors);
        if (e != OK) {
            pool_close(pool);
            return e;
        }
        reader = at;
        reader->pool = pool;
        reader->cursors = cursors;
        reader->scratch = pool_open(pool, "scratch", POOL_BYTES_UNLIMITED);
    }
    *out_reader = reader;
    return OK;
}

static void reader_give(struct source_set *set, struct set_reader *reader)
{
    pool_reset(reader->scratch);
    io_mutex_lock(&set->views.lock);
    reader->next = set->readers;
    set->readers = reader;
    io_mutex_unlock(&set->views.lock);
}

static err cursor_of(struct source_set *set, struct set_reader *reader, uint32_t partition, uint32_t segment,
                     struct metric_compact_cursor **out_cursor)
{
    const struct view *view = &set->views.views[partition];
    if (reader->cursors[partition] == NULL) {
        void *at;
        TRY(pool_zalloc(reader->pool, view->segment_count * sizeof(struct metric_compact_cursor *), &at));
        reader->cursors[partition] = at;
    }
    struct metric_compact_cursor **cursor = &reader->cursors[partition][segment];
    if (*cursor == NULL)
        TRY(metric_compact_cursor_open(view->segments[segment].compact, reader->pool, cursor));
    *out_cursor = *cursor;
    return OK;
}

/* Rows of one segment; histogram bytes move to where they live as long as the columns. */
static err read_segment(struct source_set *set, struct set_reader *reader, const struct set_series *s,
                        struct set_reference reference, struct sample_columns *columns)
{
    struct metric_compact_cursor *cursor;
    struct err_at at = { 0 };
    size_t before = columns->histogram_count;
    TRY(cursor_of(set, reader, s->partition, reference.segment, &cursor));
    TRY(metric_compact_read(cursor, reference.ordinal, set->views.views[s->partition].range, columns, &at));
    for (size_t i = before; i < columns->histogram_count; i++)
        TRY(pool_copy(columns->pool, columns->histograms[i].bytes, &columns->histograms[i].bytes));
    return OK;
}

static err read_piece(struct source_set *set, struct set_reader *reader, const struct set_series *s,
                      const struct view_piece *piece, struct sample_columns *columns)
{
    const struct view *view = &set->views.views[s->partition];
    if (piece->group == NULL)
        return metric_head_read(&piece->head, s->local, view->range, columns);
    uint32_t number = s->numbers[piece->range_index];
    if (number == METRIC_ROW_NONE || !time_overlaps(piece->group->facts.range, view->range))
        return OK;
    pool_reset(reader->scratch);
    bool alone;
    TRY(gather_read(set, view, piece, number, reader->scratch, columns, &alone));
    return !alone ? OK
                  : metric_group_read(piece->group->group, number, view->range, reader->scratch, columns);
}

static err source_set_read(struct source_set *set, size_t series, struct sample_columns *columns)
{
    check(series < set->series_count);
    const struct set_series *s = &set->series[series];
    const struct view *view = &set->views.views[s->partition];
    struct set_reader *reader;
    err e = OK;
    sample_columns_clear(columns);
    if (set->guard != NULL)
        TRY(guard_check(set->guard));
    TRY(reader_take(set, &reader));
    for (uint32_t i = 0; i < s->reference_count; i++) {
        struct set_reference reference = set->references[s->first_reference + i];
        e = read_segment(set, reader, s, reference, columns);
        if (is_damage(e))
            views_missing(&set->views, s->partition, view->segments[reference.segment].live->facts.range,
                          "damaged block");
        else if (e != OK)
            goto out;
    }
    for (size_t i = 0; i < view->piece_count && s->local != METRIC_LOCAL_NONE; i++) {
        e = read_piece(set, reader, s, &view->pieces[i], columns);
        if (is_damage(e))
            views_missing(&set->views, s->partition, view->pieces[i].group->facts.range, "damaged row group");
        else if (e != OK)
            goto out;
    }
    e = metric_columns_resolve(columns);
    if (e == OK && set->guard != NULL)
        e = guard_samples(set->guard, columns->count);
out:
    reader_give(set, reader);
    return e;
}

static size_t source_set_count(const struct source_set *set) { return set->series_count; }

static struct slice source_set_labels(const struct source_set *set, size_t series)
{
    check(series < set->series_count);
    return set->series[series].labels;
}

static const struct proof *source_set_proof(struct source_set *set) { return &set->views.proof; }

static void source_set_close(struct source_set *set)
{
    if (set == NULL)
        return;
    while (set->readers != NULL) {
        struct set_reader *reader = set->readers;
        set->readers = reader->next;
        for (uint32_t i = 0; i < set->views.shards->config.partition_count; i++)
            for (size_t k = 0; reader->cursors[i] != NULL && k < set->views.views[i].segment_count; k++)
                metric_compact_cursor_close(reader->cursors[i][k]);
        pool_close(reader->scratch);
        pool_close(reader->pool);
    }
    gather_close(set);
    views_close(&set->views);
}

const struct source_table shard_source_table = {
    .select = source_select,
    .set_count = source_set_count,
    .set_labels = source_set_labels,
    .set_read = source_set_read,
    .set_proof = source_set_proof,
    .set_close = source_set_close,
    .label_names = source_label_names,
    .label_values = source_label_values,
    .set_exemplars = source_set_exemplars,
    .metadata = source_metadata,
    .cardinality = source_cardinality,
};
