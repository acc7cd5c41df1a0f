/* Cursors: rows of series of a compact segment. docs/format/compact.md §3.
 *
 *   ordinal ─ granule ─ parts ─ timeline: vectors that touch the range ─ rows ─ values of the same rows ─ columns
 *
 * A cursor belongs to one thread. It keeps one directory granule, one granule of the timeline directory, a few
 * decoded timelines (neighbours scraped together share them), and the integers of the last bucket.
 * Invariants: 1. Only vectors that may hold rows of the range are decoded. 2. Nothing is appended to the caller's
 * columns before all of a series was read; on failure they are cut back. */
#include "metric/compact_cursor.h"
#include "base/check.h"
#include "model/histogram.h"

#define NONE                UINT32_MAX
#define TIMELINE_HEAD_BYTES 10

err metric_compact_cursor_open(struct metric_compact *compact, unsigned timeline_count, struct pool *pool,
                               struct metric_compact_cursor **out_cursor)
{
    err e = OK;
    check(timeline_count >= 1 && timeline_count <= METRIC_COMPACT_TIMELINES_MAX);
    struct pool *own = pool_open(pool, "compact cursor", POOL_BYTES_UNLIMITED);
    struct metric_compact_cursor *c;
    TRY_OUT(pool_zalloc(own, sizeof *c, (void **)&c));
    c->pool = own;
    c->compact = compact;
    c->near.index = c->far.index = c->table_index = NONE;
    c->times_count = timeline_count;
    for (unsigned i = 0; i < timeline_count; i++)
        c->times[i].timeline = NONE;
    c->all = sample_columns_open(own);
    c->arena = pool_open(own, "compact cursor histograms", POOL_BYTES_UNLIMITED);
    *out_cursor = c;
    return OK;
out:
    pool_close(own);
    return e;
}

err cursor_column(struct metric_compact_cursor *c, size_t element_bytes, void **column)
{
    return *column != NULL ? OK : pool_alloc(c->pool, METRIC_COMPACT_PART_ROWS_MAX * element_bytes, column);
}

void metric_compact_cursor_close(struct metric_compact_cursor *c)
{
    if (c == NULL)
        return;
    pool_close(c->arena);
    pool_close(c->pool);
}

/* The last granule whose entry in `firsts` is at most `number`. */
static uint32_t granule_index(const uint32_t *firsts, uint32_t count, uint32_t number)
{
    uint32_t low = 0, high = count - 1;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (firsts[middle] <= number)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static err granule_load(struct metric_compact_cursor *c, struct cursor_granule *slot, uint32_t index,
                        struct err_at *at)
{
    struct metric_compact *compact = c->compact;
    struct segment_block block;
    if (slot->index == index)
        return OK;
    slot->index = NONE;
    TRY(segment_block_get(compact->segment, SECTION_GRANULES, index, &block, at));
    struct compact_granule *g = &slot->granule;
    err e = compact_granule_get(block.content, c->pool, g);
    segment_block_release(compact->segment, &block);
    if (e == ERR_LIMIT)
        return e;
    bool is_last = index + 1 == compact->granule_count;
    uint64_t series_end = is_last ? compact->info->series_count : compact->granule_firsts[index + 1];
    if (e != OK || g->first_series != compact->granule_firsts[index] ||
        g->first_part != compact->granule_parts[index] || g->first_series + g->series_count != series_end ||
        (!is_last && g->first_part + g->part_count != compact->granule_parts[index + 1]))
        return cursor_malformed(at, "directory granule", index);
    slot->index = index;
    return OK;
}

err cursor_part_find(struct metric_compact_cursor *c, uint32_t number, struct compact_part *out_part,
                     struct err_at *at)
{
    const struct metric_compact *compact = c->compact;
    uint32_t index = granule_index(compact->granule_parts, compact->granule_count, number);
    struct cursor_granule *slot = c->near.index == index ? &c->near : &c->far;
    TRY(granule_load(c, slot, index, at));
    const struct compact_granule *g = &slot->granule;
    if (number - g->first_part >= g->part_count)
        return cursor_malformed(at, "part", number);
    *out_part = g->parts[number - g->first_part];
    return OK;
}

/* The directory block of timelines with this index. */
static err table_load(struct metric_compact_cursor *c, uint32_t index, struct err_at *at)
{
    struct segment_block block;
    int64_t columns[4][COMPACT_TIMELINES];
    if (c->table_index == index)
        return OK;
    c->table_index = NONE;
    TRY(segment_block_get(c->compact->segment, SECTION_TIMELINE_TABLE, index, &block, at));
    struct reader r = reader_of(block.content);
    uint32_t at_block = read_le32(&r), at_offset = read_le32(&r), count = read_le16(&r);
    bool ok = r.ok && count >= 1 && count <= COMPACT_TIMELINES && at_offset <= SEGMENT_BLOCK_BYTES_MAX;
    for (int which = 0; ok && which < 4; which++)
        ok = int_column_decode(&r, count, columns[which]) == OK;
    ok = ok && read_left(&r) == 0;
    segment_block_release(c->compact->segment, &block);
    for (uint32_t i = 0; ok && i < count; i++) {
        struct cursor_timeline *t = &c->table[i];
        ok = columns[0][i] >= 1 && columns[0][i] <= METRIC_COMPACT_PART_ROWS_MAX && columns[1][i] >= 1 &&
             columns[1][i] <= SEGMENT_BLOCK_BYTES_MAX;
        if (!ok)
            break;
        *t = (struct cursor_timeline){ .rows = (uint32_t)columns[0][i], .bytes = (uint32_t)columns[1][i] };
        t->first_ms = columns[2][i];
        t->last_ms = (int64_t)((uint64_t)t->first_ms + (uint64_t)columns[3][i]);
        if (at_offset > 0 && at_offset + t->bytes > SEGMENT_BLOCK_BYTES) {
            at_block++;
            at_offset = 0;
        }
        t->block = at_block;
        t->offset = at_offset;
        at_offset += t->bytes;
    }
    if (!ok)
        return cursor_malformed(at, "timeline block", index);
    c->table_index = index;
    c->table_count = count;
    return OK;
}

/* The timeline of a part, checked against the part's rows. */
static err timeline_of(struct metric_compact_cursor *c, const struct compact_part *part,
                       struct cursor_timeline *out_timeline, struct err_at *at)
{
    TRY(table_load(c, part->timeline / COMPACT_TIMELINES, at));
    uint32_t i = part->timeline % COMPACT_TIMELINES;
    if (i >= c->table_count)
        return cursor_malformed(at, "timeline", part->timeline);
    *out_timeline = c->table[i];
    uint32_t rows = out_timeline->rows;
    if (part->flags & PART_SUBSET ? part->first > rows || part->rows > rows - part->first
                                  : part->rows != rows)
        return cursor_malformed(at, "timeline", part->timeline);
    return OK;
}

/* Vectors [*from, *to) of the timeline's rows [first, end) that may hold times of the range. */
static void narrow(const int64_t *vector_firsts, size_t first, size_t end, struct time_range range,
                   size_t *from, size_t *to)
{
    *from = first / CODEC_VECTOR_COUNT_MAX;
    *to = (end - 1) / CODEC_VECTOR_COUNT_MAX + 1;
    while (*from + 1 < *to && vector_firsts[*from] <= range.min_ms) /* of vector from + 1 */
        ++*from;
    while (*to - 1 > *from && vector_firsts[*to - 2] > range.max_ms) /* of vector to - 1 */
        --*to;
}

/* Decode what the part's rows need of its timeline into a slot of the cursor. */
static err times_load(struct metric_compact_cursor *c, const struct compact_part *part,
                      const struct cursor_timeline *timeline, struct time_range range, bool all_rows,
                      struct cursor_times **out_times, struct err_at *at)
{
    struct cursor_times *slot = &c->times[part->timeline % c->times_count];
    struct segment_block block;
    *out_times = slot;
    if (slot->timeline == part->timeline && slot->from == 0 &&
        slot->to == compact_vector_count(timeline->rows))
        return OK; /* all of it is there */
    TRY(segment_block_get(c->compact->segment, SECTION_TIMELINES, timeline->block, &block, at));
    err e = ERR_CORRUPT;
    int64_t firsts[COMPACT_VECTORS_MAX];
    size_t k = compact_vector_count(timeline->rows), first = part->flags & PART_SUBSET ? part->first : 0;
    if (timeline->offset > block.content.len || timeline->bytes > block.content.len - timeline->offset)
        goto out;
    struct reader r = reader_of(slice_part(block.content, timeline->offset, timeline->bytes));
    if (k > 1 && int_column_decode(&r, k - 1, firsts) != OK)
        goto out;
    size_t from = first / CODEC_VECTOR_COUNT_MAX, to = (first + part->rows - 1) / CODEC_VECTOR_COUNT_MAX + 1;
    if (!all_rows)
        narrow(firsts, first, first + part->rows, range, &from, &to);
    e = OK;
    if (slot->timeline == part->timeline && slot->from <= from && to <= slot->to)
        goto out;
    slot->timeline = NONE;
    TRY_OUT(pool_block_reserve(c->pool, (void **)&slot->t_ms, sizeof *slot->t_ms,
                               (to - from) * CODEC_VECTOR_COUNT_MAX, &slot->capacity));
    e = compact_vectors_get(slice_of(r.at, read_left(&r)), timeline->rows, false, from, to,
                            (uint64_t *)slot->t_ms);
    if (e == OK)
        *slot = (struct cursor_times){
            .timeline = part->timeline, .from = from, .to = to, .t_ms = slot->t_ms, .capacity = slot->capacity
        };
out:
    segment_block_release(c->compact->segment, &block);
    return e == ERR_CORRUPT ? cursor_malformed(at, "timeline", part->timeline) : e;
}

/* The first of n ascending times that is ≥ t_ms. */
static size_t lower_bound(const int64_t *times, size_t n, int64_t t_ms)
{
    size_t low = 0;
    while (n > 0) {
        size_t half = n / 2;
        if (times[low + half] < t_ms) {
            low += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return low;
}

/* Rows [from, to) of the part's histograms, appended behind the rows that columns hold from `base` on. */
static err take_histograms(struct metric_compact_cursor *c, const struct cursor_part *p, size_t from,
                           size_t to, size_t base, struct sample_columns *columns, struct err_at *at)
{
    struct segment *segment = c->compact->segment;
    struct segment_block block = { 0 };
    uint32_t index = p->histogram_block;
    size_t offset = p->histogram_offset;
    err e = OK;
    for (uint32_t i = 0; i < p->histogram_count && c->histogram_rows[i] < to; i++) {
        if (block.entry != NULL && offset >= block.content.len) {
            segment_block_release(segment, &block);
            index++;
            offset = 0;
        }
        if (block.entry == NULL)
            TRY_OUT(segment_block_get(segment, SECTION_HISTOGRAMS, index, &block, at));
        if (offset > block.content.len)
            TRY_OUT(cursor_malformed(at, "part", p->number));
        struct reader r = reader_of(slice_part(block.content, offset, block.content.len - offset));
        struct slice bytes = read_string(&r), copy;
        if (!r.ok || bytes.len > HISTOGRAM_BYTES_MAX)
            TRY_OUT(cursor_malformed(at, "part", p->number));
        offset = (size_t)(r.at - block.content.at);
        if (c->histogram_rows[i] < from)
            continue;
        size_t row = base + c->histogram_rows[i] - from;
        TRY_OUT(pool_copy(c->arena, bytes, &copy));
        TRY_OUT(pool_block_reserve(columns->pool, (void **)&columns->histograms, sizeof *columns->histograms,
                                   columns->histogram_count + 1, &columns->histogram_capacity));
        columns->histograms[columns->histogram_count++] =
            (struct sample_histogram){ .row = (uint32_t)row, .bytes = copy };
        columns->values[row] = __builtin_nan("");
    }
out:
    segment_block_release(segment, &block);
    return e;
}

/* Start times of rows [from, to); columns begin to have them when needed. */
static err take_start(struct metric_compact_cursor *c, const struct cursor_part *p, size_t from, size_t to,
                      size_t base, struct sample_columns *columns, struct err_at *at)
{
    size_t low = from / CODEC_VECTOR_COUNT_MAX, high = (to - 1) / CODEC_VECTOR_COUNT_MAX + 1;
    TRY(cursor_column(c, sizeof *c->start_ms, (void **)&c->start_ms));
    if (compact_vectors_get(p->start, p->part.rows, false, low, high, (uint64_t *)c->start_ms) != OK)
        return cursor_malformed(at, "part", p->number);
    if (columns->start_ms == NULL) {
        TRY(pool_block_reserve(columns->pool, (void **)&columns->start_ms, sizeof *columns->start_ms,
                               base + (to - from), &columns->start_capacity));
        memset(columns->start_ms, 0, base * sizeof *columns->start_ms);
    }
    memcpy(columns->start_ms + base, c->start_ms + (from - low * CODEC_VECTOR_COUNT_MAX),
           (to - from) * sizeof *columns->start_ms);
    return OK;
}

/* Rows [from, to) of a timeline, which a slot of the cursor holds. */
struct times_part {
    struct cursor_times *slot;
    size_t from, to;
};

static const int64_t *times_at(const struct times_part *part)
{
    return part->slot->t_ms + (part->from - part->slot->from * CODEC_VECTOR_COUNT_MAX);
}

/* The name of the times is a hash of them: what partitions and segments store apart is the same again. */
static struct hash128 times_name(const struct times_part *part)
{
    struct cursor_times *slot = part->slot;
    if (slot->name_from != part->from || slot->name_to != part->to) {
        slot->name = hash128(slice_of(times_at(part), (part->to - part->from) * sizeof(int64_t)), 0);
        slot->name_from = part->from;
        slot->name_to = part->to;
    }
    return slot->name;
}

/* Append times; they have a name as long as every part continues the one before. */
static void take_times(const struct times_part *part, struct sample_columns *columns)
{
    size_t base = columns->count;
    const int64_t *t_ms = times_at(part);
    struct hash128 name = { 0 };
    if (base == 0) {
        name = times_name(part);
    } else if (sample_times_named(columns->times) && columns->t_ms[base - 1] < t_ms[0]) {
        struct hash128 both[2] = { columns->times, times_name(part) };
        name = hash128(slice_of(both, sizeof both), 0);
    }
    columns->times = name;
    memcpy(columns->t_ms + base, t_ms, (part->to - part->from) * sizeof *t_ms);
}

/* Append the rows of a part that have these times; row `first` of the timeline is the part's first. */
static err take_rows(struct metric_compact_cursor *c, const struct compact_part *part, uint32_t number,
                     const struct times_part *times, size_t first, struct sample_columns *columns,
                     struct err_at *at)
{
    size_t from = times->from - first, to = times->to - first, n = to - from, base = columns->count;
    size_t low = from / CODEC_VECTOR_COUNT_MAX, high = (to - 1) / CODEC_VECTOR_COUNT_MAX + 1;
    size_t skip = from - low * CODEC_VECTOR_COUNT_MAX;
    struct cursor_part p;
    /* vectors are decoded in place */
    TRY(sample_columns_reserve(columns, (high - low) * CODEC_VECTOR_COUNT_MAX));
    TRY(cursor_part_open(c, number, part, &p, at));
    err e = OK;
    double *values = columns->values + base;
    TRY_OUT(cursor_part_values(c, &p, low, high, (uint64_t *)values, at));
    take_times(times, columns);
    if (skip != 0)
        memmove(values, values + skip, n * sizeof *values);
    if (p.start.len != 0)
        TRY_OUT(take_start(c, &p, from, to, base, columns, at));
    else if (columns->start_ms != NULL)
        memset(columns->start_ms + base, 0, n * sizeof *columns->start_ms);
    if (p.histogram_count != 0)
        TRY_OUT(take_histograms(c, &p, from, to, base, columns, at));
    columns->count += n;
out:
    cursor_part_close(c, &p);
    return e;
}

static err take_part(struct metric_compact_cursor *c, uint32_t number, const struct compact_part *part,
                     struct time_range range, bool all_rows, struct sample_columns *columns,
                     struct err_at *at)
{
    struct cursor_timeline timeline;
    struct cursor_times *times;
    TRY(timeline_of(c, part, &timeline, at));
    if (!all_rows && (timeline.last_ms < range.min_ms || timeline.first_ms > range.max_ms))
        return OK;
    TRY(times_load(c, part, &timeline, range, all_rows, &times, at));
    size_t first = part->flags & PART_SUBSET ? part->first : 0, end = first + part->rows;
    size_t held = times->from * CODEC_VECTOR_COUNT_MAX, held_end = times->to * CODEC_VECTOR_COUNT_MAX;
    size_t from = first > held ? first : held, to = end < held_end ? end : held_end;
    if (from >= to)
        return OK;
    if (!all_rows) {
        const int64_t *t = times->t_ms - held;
        size_t n = to - from;
        size_t skip = lower_bound(t + from, n, range.min_ms);
        to = range.max_ms == INT64_MAX ? to : from + lower_bound(t + from, n, range.max_ms + 1);
        from += skip;
        if (from >= to)
            return OK;
    }
    struct times_part taken = { times, from, to };
    return take_rows(c, part, number, &taken, first, columns, at);
}

/* All parts of a series into columns; *out_parts (may be NULL) unused rows are cut back on failure. */
static err take_series(struct metric_compact_cursor *c, uint32_t ordinal, struct time_range range,
                       bool all_rows, struct sample_columns *columns, struct err_at *at)
{
    struct metric_compact *compact = c->compact;
    check(ordinal < compact->info->series_count);
    size_t base = columns->count, histogram_base = columns->histogram_count;
    TRY(granule_load(c, &c->near, granule_index(compact->granule_firsts, compact->granule_count, ordinal),
                     at));
    const struct compact_granule *g = &c->near.granule;
    uint32_t series = ordinal - g->first_series;
    err e = OK;
    for (uint32_t i = g->part_start[series]; e == OK && i < g->part_start[series + 1]; i++)
        e = take_part(c, g->first_part + i, &g->parts[i], range, all_rows, columns, at);
    if (e != OK) {
        columns->count = base;
        columns->histogram_count = histogram_base;
        columns->times = (struct hash128){ 0 };
    }
    return e;
}

err metric_compact_read(struct metric_compact_cursor *c, uint32_t ordinal, struct time_range range,
                        struct sample_columns *columns, struct err_at *at)
{
    size_t base = columns->count, histogram_base = columns->histogram_count;
    pool_reset(c->arena);
    TRY(take_series(c, ordinal, range, false, columns, at));
    if (c->compact->info->sum.count != c->compact->info->distinct.count)
        sample_columns_drop_repeats(columns, base, histogram_base);
    return OK;
}

err metric_compact_read_all(struct metric_compact_cursor *c, uint32_t ordinal, struct metric_rows *out_rows,
                            struct err_at *at)
{
    struct sample_columns *all = &c->all;
    pool_reset(c->arena);
    sample_columns_clear(all);
    pool_block_free(all->pool, all->start_ms); /* a series without start times has none */
    all->start_ms = NULL;
    all->start_capacity = 0;
    TRY(take_series(c, ordinal, (struct time_range){ INT64_MIN, INT64_MAX }, true, all, at));
    *out_rows = (struct metric_rows){
        .t_ms = all->t_ms,
        .value_bits = (const uint64_t *)all->values,
        .start_ms = all->start_ms,
        .count = all->count,
        .histograms = all->histograms,
        .histogram_count = all->histogram_count,
    };
    return OK;
}

err metric_compact_series_time(struct metric_compact_cursor *c, uint32_t ordinal, struct time_range *out_time,
                               struct err_at *at)
{
    struct metric_compact *compact = c->compact;
    check(ordinal < compact->info->series_count);
    TRY(granule_load(c, &c->near, granule_index(compact->granule_firsts, compact->granule_count, ordinal),
                     at));
    const struct compact_granule *g = &c->near.granule;
    uint32_t series = ordinal - g->first_series;
    struct cursor_timeline timeline;
    TRY(timeline_of(c, &g->parts[g->part_start[series]], &timeline, at));
    out_time->min_ms = timeline.first_ms;
    TRY(timeline_of(c, &g->parts[g->part_start[series + 1] - 1], &timeline, at));
    out_time->max_ms = timeline.last_ms;
    return OK;
}
