/* The source over all partitions: reading what select.c found. See model/source.h.
 *
 * A series' rows are gathered in position order (segments, groups, heads) and resolved: of equal times the
 * highest position wins. Labels are read when somebody asks: a count of a million series needs none.
 *
 * Invariants
 *  1. A series is in one partition; its references ascend in position order.
 *  2. Readers (cursors and scratch of one thread) are taken from the set's free list and put back. A reader has
 *     cursors into one partition at a time: series are read in the set's order. */
#include "shard/source.h"

#include "base/check.h"
#include "model/labels.h"

#define GUARD_SERIES 16 /* between looks at the clock, which costs as much as finding a sample */

/* ---- reading ---- */

#define READER_TIMELINES_MAX 256u /* decoded ones that the cursors of a reader keep, up to 48 KiB each */

/* Cursors and scratch memory of one thread at a time. */
struct source_reader {
    struct source_reader *next;
    struct source_set *set;
    struct pool *pool;
    struct pool *scratch;
    struct pool *cursor_pool;
    struct metric_compact_cursor *
        *cursors;       /* by segment of the partition's view, opened on use; NULL: none yet */
    uint32_t partition; /* whose they are */
    struct metric_compact_labels labels;
    struct metric_index_cursor *live; /* opened on use */
};

static err reader_new(struct source_set *set, struct source_reader **out_reader)
{
    struct pool *pool = pool_open(set->views.pool, "reader", POOL_BYTES_UNLIMITED);
    struct metric_compact_labels labels;
    void *at;
    err e = pool_zalloc(pool, sizeof **out_reader, &at);
    if (e == OK)
        e = metric_compact_labels_open(pool, &labels);
    if (e != OK) {
        pool_close(pool);
        return e;
    }
    *out_reader = at;
    **out_reader = (struct source_reader){ .set = set,
                                           .pool = pool,
                                           .scratch = pool_open(pool, "scratch", POOL_BYTES_UNLIMITED),
                                           .cursor_pool = pool_open(pool, "cursors", POOL_BYTES_UNLIMITED),
                                           .labels = labels };
    return OK;
}

static void cursors_close(struct source_reader *reader)
{
    const struct view *view = &reader->set->views.views[reader->partition];
    for (size_t i = 0; reader->cursors != NULL && i < view->segment_count; i++)
        metric_compact_cursor_close(reader->cursors[i]);
    reader->cursors = NULL;
    pool_reset(reader->cursor_pool);
}

static err source_reader_open(struct source_set *set, struct source_reader **out_reader)
{
    io_mutex_lock(&set->views.lock);
    struct source_reader *reader = set->readers;
    if (reader != NULL)
        set->readers = reader->next;
    io_mutex_unlock(&set->views.lock);
    if (reader == NULL)
        TRY(reader_new(set, &reader));
    *out_reader = reader;
    return OK;
}

static void source_reader_close(struct source_reader *reader)
{
    if (reader == NULL)
        return;
    struct source_set *set = reader->set;
    io_mutex_lock(&set->views.lock);
    reader->next = set->readers;
    set->readers = reader;
    io_mutex_unlock(&set->views.lock);
}

/* The reader's cursor into a segment. With many segments each keeps fewer timelines. */
static err cursor_of(struct source_reader *reader, uint32_t partition, uint32_t segment,
                     struct metric_compact_cursor **out_cursor)
{
    const struct view *view = &reader->set->views.views[partition];
    if (reader->cursors != NULL && reader->partition != partition)
        cursors_close(reader);
    if (reader->cursors == NULL) {
        void *at;
        TRY(pool_zalloc(reader->cursor_pool, view->segment_count * sizeof *reader->cursors, &at));
        reader->cursors = at;
        reader->partition = partition;
    }
    struct metric_compact_cursor **cursor = &reader->cursors[segment];
    size_t count = READER_TIMELINES_MAX / view->segment_count;
    count = count < 1 ? 1 : count > METRIC_COMPACT_TIMELINES_MAX ? METRIC_COMPACT_TIMELINES_MAX : count;
    if (*cursor == NULL)
        TRY(metric_compact_cursor_open(view->segments[segment].compact, (unsigned)count, reader->cursor_pool,
                                       cursor));
    *out_cursor = *cursor;
    return OK;
}

static err read_live_labels(struct source_reader *reader, uint32_t id, struct buf *out)
{
    if (reader->live == NULL)
        TRY(metric_index_cursor_open(reader->set->index, reader->pool, &reader->live));
    return metric_index_cursor_labels(reader->live, id, out);
}

static err source_read_labels(struct source_reader *reader, size_t series, struct buf *out)
{
    const struct source_set *set = reader->set;
    check(series < set->series_count);
    const struct set_series *s = &set->series[series];
    if (s->reference_count == 0)
        return read_live_labels(reader, s->id, out);
    struct set_reference reference = set->references[s->first_reference];
    const struct view_segment *segment = &set->views.views[s->partition].segments[reference.segment];
    struct err_at at = { 0 };
    err e = metric_compact_labels_read(&reader->labels, segment->compact, reference.ordinal, out, &at);
    if (is_damage(e)) /* since they were selected by them: this query fails, the next one names the segment */
        live_segment_damaged(segment->live, e, &at);
    return e;
}

/* Rows of one segment; histogram bytes move to where they live as long as the columns. */
static err read_segment(struct source_reader *reader, const struct set_series *s,
                        struct set_reference reference, struct sample_columns *columns, struct err_at *at)
{
    const struct view *view = &reader->set->views.views[s->partition];
    struct metric_compact_cursor *cursor;
    size_t before = columns->histogram_count;
    TRY(cursor_of(reader, s->partition, reference.segment, &cursor));
    TRY(metric_compact_read(cursor, reference.ordinal, view->range, columns, at));
    for (size_t i = before; i < columns->histogram_count; i++)
        TRY(pool_copy(columns->pool, columns->histograms[i].bytes, &columns->histograms[i].bytes));
    return OK;
}

static err read_piece(struct source_reader *reader, const struct set_series *s,
                      const struct view_piece *piece, struct sample_columns *columns)
{
    struct source_set *set = reader->set;
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

static err source_read_samples(struct source_reader *reader, size_t series, struct sample_columns *columns)
{
    struct source_set *set = reader->set;
    check(series < set->series_count);
    const struct set_series *s = &set->series[series];
    const struct view *view = &set->views.views[s->partition];
    sample_columns_clear(columns);
    if (set->guard != NULL && series % GUARD_SERIES == 0)
        TRY(guard_check(set->guard));
    for (uint32_t i = 0; i < s->reference_count; i++) {
        struct set_reference reference = set->references[s->first_reference + i];
        struct err_at at = { 0 };
        err e = read_segment(reader, s, reference, columns, &at);
        TRY(views_segment_read(&set->views, view, reference.segment, e, &at, "damaged block"));
    }
    size_t in_segments = columns->count;
    for (size_t i = 0; i < view->piece_count && s->local != METRIC_LOCAL_NONE; i++) {
        err e = read_piece(reader, s, &view->pieces[i], columns);
        if (is_damage(e))
            views_missing(&set->views, s->partition, view->pieces[i].group->facts.range, "damaged row group");
        else
            TRY(e);
    }
    if (columns->count != in_segments)
        columns->times = (struct hash128){ 0 };
    TRY(metric_columns_resolve(columns));
    return set->guard != NULL ? guard_samples(set->guard, columns->count) : OK;
}

static size_t source_set_count(const struct source_set *set) { return set->series_count; }

static const struct proof *source_set_proof(struct source_set *set) { return &set->views.proof; }

static void source_set_close(struct source_set *set)
{
    if (set == NULL)
        return;
    while (set->readers != NULL) {
        struct source_reader *reader = set->readers;
        set->readers = reader->next;
        cursors_close(reader);
        metric_compact_labels_close(&reader->labels);
        pool_close(reader->cursor_pool);
        pool_close(reader->scratch);
        pool_close(reader->pool);
    }
    gather_close(set);
    metric_index_view_close(set->index);
    views_close(&set->views);
}

const struct source_table shard_source_table = {
    .select = source_select,
    .set_count = source_set_count,
    .reader_open = source_reader_open,
    .reader_close = source_reader_close,
    .read_labels = source_read_labels,
    .read_samples = source_read_samples,
    .set_proof = source_set_proof,
    .set_close = source_set_close,
    .label_names = source_label_names,
    .label_values = source_label_values,
    .set_exemplars = source_set_exemplars,
    .metadata = source_metadata,
    .cardinality = source_cardinality,
};
