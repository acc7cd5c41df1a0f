/* Build: the row groups of a closed range as compact segments, one per time window. See partition.h.
 *
 * Groups hold rows by stream number, segments by (tenant, labels); the range is larger than memory should be.
 * So rows are counted per series and window, from the heads of series alone; series are sorted by labels, and then
 * slices of neighbouring series are filled by a walk each, sorted by time and written. A walk costs 5 ns a row, a
 * slice is 4 M rows: a range of 16 M rows is walked four times, 20 ns a row.
 *
 * Invariants
 *  1. Every row is written, duplicates too; rows of a series are in (t, arrival) order.
 *  2. The outputs are a pure function of the range: same bytes at every attempt.
 *  3. Windows are aligned to UTC days. A range of years is written in passes of some windows each. Windows with a
 *     handful of rows among very many (clocks that are wrong at random) share one wide segment. */
#include "shard/partition.h"

#include "base/check.h"
#include "base/stat.h"

#include <stdlib.h>

#define SLICE_ROWS_MAX      (4u << 20)
#define WINDOWS_AT_ONCE     256   /* files being written: each has its index in memory */
#define WINDOW_SHARE_MIN    4096u /* beyond as many files, a window has one if it has this part of the rows */
#define WINDOW_ROWS_MIN     64    /* … and so many rows */
#define WINDOWS_COUNTED_MAX 65536 /* rows of further ones are in none that is worth a file */
#define COUNT_SLOTS         (2u * WINDOWS_COUNTED_MAX)
#define WINDOW_WIDE         INT64_MAX

struct window_count {
    int64_t index; /* floor(t / window_ms) */
    uint64_t row_count;
    struct sum sum; /* of its rows, while b->sums_known */
};

struct window {
    int64_t index; /* as above, or WINDOW_WIDE */
    struct sum sum;
    struct metric_compact_writer *writer;
    struct build_output output;
};

struct series {
    struct slice tenant, labels;
    uint32_t number;
    uint64_t row_count;
};

struct exemplar {
    uint32_t number;
    struct source_exemplar exemplar;
};

struct build {
    struct shards *shards;
    struct partition *p;
    struct range *range;
    struct pool *pool; /* of the whole build */
    int64_t window_ms;
    struct window_count **count_slots; /* COUNT_SLOTS, by hash of the index; NULL = free */
    struct window_count *count_last;
    size_t count_count;
    uint64_t row_count;     /* of all windows */
    struct window *windows; /* ascending, the wide one last */
    size_t window_count;
    size_t window_from, window_to; /* those of this pass */
    bool sums_known;       /* every group lies in one window: SUMs of windows are those of their groups */
    struct series *series; /* sorted */
    size_t series_count;
    uint64_t *place; /* by number: where its next row goes in the slice; UINT64_MAX = not in it */
    struct exemplar *exemplars;
    size_t exemplar_count;

    /* the slice */
    struct pool *slice_pool;
    uint64_t slice_rows;
    int64_t *t_ms, *start_ms;
    uint64_t *value_bits;
    uint32_t *histogram_of; /* by row: 1 + index, 0 = a float; NULL: no histograms */
    struct slice *histograms;
    size_t histogram_count, histogram_capacity;
};

static int64_t window_of(const struct build *b, int64_t t_ms)
{
    int64_t index = t_ms / b->window_ms;
    return index - (t_ms % b->window_ms < 0);
}

/* The first window at or behind an index. */
static size_t window_place(const struct build *b, int64_t index)
{
    size_t low = 0, high = b->window_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (b->windows[middle].index < index)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* ---- counting ---- */

static struct window_count **count_slot(const struct build *b, int64_t index)
{
    size_t at = hash_mix((uint64_t)index) & (COUNT_SLOTS - 1);
    while (b->count_slots[at] != NULL && b->count_slots[at]->index != index)
        at = (at + 1) & (COUNT_SLOTS - 1);
    return &b->count_slots[at];
}

/* Count rows of one window, which is b->count_last then; NULL: of no window that is counted. */
static err count_row(struct build *b, int64_t t_ms, uint64_t rows)
{
    int64_t index = window_of(b, t_ms);
    b->row_count += rows;
    if (b->count_last == NULL || b->count_last->index != index) {
        struct window_count **slot = count_slot(b, index);
        if (*slot == NULL && b->count_count < WINDOWS_COUNTED_MAX) {
            TRY(pool_zalloc(b->pool, sizeof **slot, (void **)slot));
            (*slot)->index = index;
            b->count_count++;
        }
        b->count_last = *slot;
    }
    if (b->count_last != NULL)
        b->count_last->row_count += rows;
    return OK;
}

static err walk_group(struct build *b, const struct range_group *g,
                      err (*visit)(struct build *, const struct metric_group_series *))
{
    struct metric_group_walk *walk;
    TRY(metric_group_walk_open(g->group, b->pool, &walk));
    err e = OK;
    while (e == OK) {
        struct metric_group_series series;
        e = metric_group_walk_next(walk, &series);
        if (e == OK && series.number >= b->range->numbers.count)
            e = ERR_CORRUPT;
        if (e == OK)
            e = visit(b, &series);
    }
    metric_group_walk_close(walk);
    return e == ERR_END ? OK : e;
}

/* Rows by window; for groups whose times lie in several. */
static err visit_windows(struct build *b, const struct metric_group_series *s)
{
    for (size_t i = 0; i < s->row_count;) { /* times of a series are mostly of one window: count runs */
        int64_t low = window_of(b, s->t_ms[i]) * b->window_ms, high = low + b->window_ms;
        size_t run = 1;
        while (i + run < s->row_count && s->t_ms[i + run] >= low && s->t_ms[i + run] < high)
            run++;
        TRY(count_row(b, s->t_ms[i], run));
        i += run;
    }
    for (size_t i = 0; i < s->histogram_count; i++)
        TRY(count_row(b, s->histograms[i].t_ms, 1));
    return OK;
}

/* Rows of each series and window. The times of a group are mostly of one window, told by its header. */
static err count(struct build *b)
{
    for (const struct range_group *g = b->range->groups; g != NULL; g = g->next) {
        const struct metric_group_facts *f = &g->facts;
        uint64_t rows = (uint64_t)f->row_count + f->histogram_count;
        if (rows == 0)
            continue;
        TRY(guard_check(&b->shards->stopping));
        TRY(metric_group_count(g->group, b->pool, b->place, b->range->numbers.count));
        if (window_of(b, f->range.min_ms) == window_of(b, f->range.max_ms)) {
            TRY(count_row(b, f->range.min_ms, rows));
            if (b->count_last != NULL)
                sum_add(&b->count_last->sum, f->sum);
        } else {
            b->sums_known = false;
            TRY(walk_group(b, g, visit_windows));
        }
    }
    return OK;
}

static int count_rows_order(const void *a, const void *b)
{
    const struct window_count *const *x = a, *const *y = b;
    if ((*x)->row_count != (*y)->row_count)
        return (*x)->row_count > (*y)->row_count ? -1 : 1;
    return (*x)->index < (*y)->index ? -1 : (*x)->index > (*y)->index;
}

static int window_index_order(const void *a, const void *b)
{
    const struct window *x = a, *y = b;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Which windows get a file: those with the most rows, and further ones while their share of the rows is worth it.
 * The others share one. */
static err choose_windows(struct build *b)
{
    void *at;
    size_t n = 0, kept = 0;
    TRY(pool_alloc(b->pool, (b->count_count + 1) * sizeof(struct window_count *), &at));
    struct window_count **counts = at;
    for (size_t i = 0; i < COUNT_SLOTS; i++)
        if (b->count_slots[i] != NULL)
            counts[n++] = b->count_slots[i];
    qsort(counts, n, sizeof *counts, count_rows_order);
    uint64_t rows = 0;
    while (kept < n &&
           (kept < WINDOWS_AT_ONCE - 1 || (counts[kept]->row_count >= WINDOW_ROWS_MIN &&
                                           counts[kept]->row_count >= b->row_count / WINDOW_SHARE_MIN)))
        rows += counts[kept++]->row_count;
    bool is_wide = rows != b->row_count;
    TRY(pool_zalloc(b->pool, (kept + 1) * sizeof *b->windows, &at));
    b->windows = at;
    for (size_t i = 0; i < kept; i++)
        b->windows[i] = (struct window){ .index = counts[i]->index, .sum = counts[i]->sum };
    if (is_wide)
        b->windows[kept].index = WINDOW_WIDE;
    b->window_count = kept + is_wide;
    b->sums_known = b->sums_known && !is_wide;
    qsort(b->windows, b->window_count, sizeof *b->windows, window_index_order);
    return OK;
}

static struct window *find_window(const struct build *b, int64_t index)
{
    struct window *last = &b->windows[b->window_count - 1];
    size_t low = window_place(b, index);
    if (low < b->window_count && b->windows[low].index == index)
        return &b->windows[low];
    return last->index == WINDOW_WIDE ? last : NULL; /* NULL: a group's header lied about its times */
}

/* The window of row i (NULL: none) and how many rows from there to end, ascending in time, are in it. */
static struct window *window_run(const struct build *b, uint64_t i, uint64_t end, uint64_t *out_run)
{
    struct window *w = find_window(b, window_of(b, b->t_ms[i]));
    uint64_t run = 1;
    if (w == NULL)
        return NULL;
    int64_t past = w->index == WINDOW_WIDE ? 0 : (w->index + 1) * b->window_ms;
    if (w->index == WINDOW_WIDE)
        while (i + run < end && find_window(b, window_of(b, b->t_ms[i + run])) == w)
            run++;
    else if (b->t_ms[end - 1] < past)
        run = end - i;
    else
        while (i + run < end && b->t_ms[i + run] < past)
            run++;
    *out_run = run;
    return w;
}

/* ---- series ---- */

static int series_order(const void *a, const void *b)
{
    const struct series *x = a, *y = b;
    int order = slice_compare(x->tenant, y->tenant);
    return order != 0 ? order : metric_series_compare(x->labels, y->labels);
}

static err sort_series(struct build *b)
{
    uint32_t count = b->range->numbers.count;
    void *at;
    TRY(pool_alloc(b->pool, count * sizeof *b->series + 1, &at));
    b->series = at;
    struct buf labels = buf_open(b->pool, LABELS_BYTES_MAX);
    struct metric_index_describer *describer;
    TRY(metric_index_describer_open(b->p->shards->index, b->p->number, b->pool, &describer));
    err e = OK;
    for (uint32_t number = 0; number < count; number++) {
        if (b->place[number] == 0)
            continue;
        struct series *s = &b->series[b->series_count];
        *s = (struct series){ .number = number, .row_count = b->place[number] };
        buf_clear(&labels);
        TRY_OUT(metric_index_describe(describer, b->range->local_of_number[number], &labels, &s->tenant));
        TRY_OUT(pool_copy(b->pool, buf_slice(&labels), &s->labels));
        b->series_count++;
    }
    if (b->series_count > 0)
        qsort(b->series, b->series_count, sizeof *b->series, series_order);
out:
    buf_close(&labels);
    metric_index_describer_close(describer);
    return e;
}

static int exemplar_order(const void *a, const void *b)
{
    const struct exemplar *x = a, *y = b;
    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    if (x->exemplar.t_ms != y->exemplar.t_ms)
        return x->exemplar.t_ms < y->exemplar.t_ms ? -1 : 1;
    return slice_compare(x->exemplar.labels, y->exemplar.labels);
}

static err gather_exemplars(struct build *b)
{
    size_t count = 0;
    for (struct range_group *g = b->range->groups; g != NULL; g = g->next)
        count += g->facts.exemplar_count;
    void *at;
    TRY(pool_alloc(b->pool, count * sizeof *b->exemplars + 1, &at));
    b->exemplars = at;
    for (struct range_group *g = b->range->groups; g != NULL; g = g->next) {
        struct metric_exemplar *found;
        size_t found_count;
        if (g->facts.exemplar_count == 0)
            continue;
        TRY(metric_group_exemplars(g->group, b->pool, &found, &found_count));
        check(b->exemplar_count + found_count <= count);
        for (size_t i = 0; i < found_count; i++) {
            if (found[i].series >= b->range->numbers.count || b->place[found[i].series] == 0) {
                stat_add(STAT_SHARD_EXEMPLARS_DROPPED, 1); /* a segment's series have rows */
                continue;
            }
            b->exemplars[b->exemplar_count++] = (struct exemplar){
                found[i].series, { .labels = found[i].labels, .t_ms = found[i].t_ms, .value = found[i].value }
            };
        }
    }
    if (b->exemplar_count > 0)
        qsort(b->exemplars, b->exemplar_count, sizeof *b->exemplars, exemplar_order);
    return OK;
}

static err write_exemplars(struct build *b, uint32_t number, struct metric_compact_writer *writer,
                           struct pool *pool)
{
    size_t low = 0, high = b->exemplar_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (b->exemplars[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    size_t count = 0;
    while (low + count < b->exemplar_count && b->exemplars[low + count].number == number)
        count++;
    if (count == 0)
        return OK;
    void *at;
    TRY(pool_alloc(pool, count * sizeof(struct source_exemplar), &at));
    struct source_exemplar *list = at;
    for (size_t i = 0; i < count; i++)
        list[i] = b->exemplars[low + i].exemplar;
    return metric_compact_writer_exemplars(writer, list, count);
}

/* ---- slices ---- */

static err slice_array(struct build *b, size_t element_bytes, void **out_at)
{
    return pool_zalloc(b->slice_pool, b->slice_rows * element_bytes, out_at);
}

static err place_start(struct build *b, uint64_t at, int64_t start_ms)
{
    if (b->start_ms == NULL) {
        void *block;
        TRY(slice_array(b, sizeof *b->start_ms, &block));
        b->start_ms = block;
    }
    b->start_ms[at] = start_ms;
    return OK;
}

static err place_histogram(struct build *b, uint64_t at, const struct metric_group_histogram *h)
{
    void *block;
    if (b->histogram_of == NULL) {
        TRY(slice_array(b, sizeof *b->histogram_of, &block));
        b->histogram_of = block;
    }
    block = b->histograms;
    TRY(pool_block_reserve(b->slice_pool, &block, sizeof *b->histograms, b->histogram_count + 1,
                           &b->histogram_capacity));
    b->histograms = block;
    TRY(pool_copy(b->slice_pool, h->bytes, &b->histograms[b->histogram_count]));
    b->histogram_of[at] = (uint32_t)++b->histogram_count;
    b->t_ms[at] = h->t_ms;
    b->value_bits[at] = 0;
    return h->start_ms != 0 ? place_start(b, at, h->start_ms) : OK;
}

/* Rows of a series behind those of the groups before, floats and histograms in the order they arrived. */
static err visit_place(struct build *b, const struct metric_group_series *s)
{
    uint64_t at = b->place[s->number];
    if (at == UINT64_MAX)
        return OK;
    if (at + s->row_count + s->histogram_count > b->slice_rows)
        return ERR_CORRUPT; /* more than were counted */
    if (s->start_ms == NULL && s->histogram_count == 0) {
        memcpy(b->t_ms + at, s->t_ms, s->row_count * sizeof *s->t_ms);
        memcpy(b->value_bits + at, s->value_bits, s->row_count * sizeof *s->value_bits);
        b->place[s->number] = at + s->row_count;
        return OK;
    }
    size_t histogram = 0;
    for (size_t i = 0; i <= s->row_count; i++) {
        for (; histogram < s->histogram_count && s->histograms[histogram].before <= i; histogram++)
            TRY(place_histogram(b, at++, &s->histograms[histogram]));
        if (i == s->row_count)
            break;
        b->t_ms[at] = s->t_ms[i];
        b->value_bits[at] = s->value_bits[i];
        if (s->start_ms != NULL && s->start_ms[i] != 0)
            TRY(place_start(b, at, s->start_ms[i]));
        at++;
    }
    b->place[s->number] = at;
    return OK;
}

struct order {
    int64_t t_ms;
    uint64_t row;
};

static int row_order(const void *a, const void *b)
{
    const struct order *x = a, *y = b;
    if (x->t_ms != y->t_ms)
        return x->t_ms < y->t_ms ? -1 : 1;
    return x->row < y->row ? -1 : 1;
}

/* Bring rows [first, first + count) into (t, arrival) order. */
static err sort_rows(struct build *b, uint64_t first, uint64_t count, struct pool *scratch)
{
    bool is_sorted = true;
    for (uint64_t i = 1; i < count && is_sorted; i++)
        is_sorted = b->t_ms[first + i - 1] <= b->t_ms[first + i];
    if (is_sorted)
        return OK;
    void *at;
    TRY(pool_alloc(scratch, count * sizeof(struct order), &at));
    struct order *order = at;
    for (uint64_t i = 0; i < count; i++)
        order[i] = (struct order){ b->t_ms[first + i], first + i };
    qsort(order, count, sizeof *order, row_order);
    TRY(pool_alloc(scratch, count * sizeof(uint64_t), &at));
    uint64_t *moved = at;
    for (uint64_t i = 0; i < count; i++)
        moved[i] = b->value_bits[order[i].row];
    memcpy(b->value_bits + first, moved, count * sizeof *moved);
    if (b->start_ms != NULL) {
        for (uint64_t i = 0; i < count; i++)
            moved[i] = (uint64_t)b->start_ms[order[i].row];
        memcpy(b->start_ms + first, moved, count * sizeof *moved);
    }
    if (b->histogram_of != NULL) {
        for (uint64_t i = 0; i < count; i++)
            moved[i] = b->histogram_of[order[i].row];
        for (uint64_t i = 0; i < count; i++)
            b->histogram_of[first + i] = (uint32_t)moved[i];
    }
    for (uint64_t i = 0; i < count; i++)
        b->t_ms[first + i] = order[i].t_ms;
    return OK;
}

static err open_writer(struct build *b, struct window *w)
{
    shards_temp_path(b->shards, w->output.path);
    struct metric_compact_config config = { .path = w->output.path,
                                            .partition = b->p->number,
                                            .from_generation = b->range->start.generation,
                                            .from_offset = b->range->start.offset,
                                            .to_generation = b->range->end.generation,
                                            .to_offset = b->range->end.offset,
                                            .sum_known = b->sums_known,
                                            .sum = w->sum,
                                            .fast = b->range->reason == CUT_SIZE ||
                                                    b->range->reason == CUT_BYTES_MAX };
    return metric_compact_writer_open(b->shards->io, &config, b->pool, &w->writer);
}

/* Give rows [first, first + count) of a series to a window's writer. */
static err write_rows(struct build *b, const struct series *s, struct window *w, uint64_t first,
                      uint64_t count, struct pool *scratch)
{
    struct metric_rows rows = { .t_ms = b->t_ms + first,
                                .value_bits = b->value_bits + first,
                                .start_ms = b->start_ms != NULL ? b->start_ms + first : NULL,
                                .count = (size_t)count };
    if (b->histogram_of != NULL) {
        void *at;
        for (uint64_t i = 0; i < count; i++)
            rows.histogram_count += b->histogram_of[first + i] != 0;
        TRY(pool_alloc(scratch, rows.histogram_count * sizeof(struct sample_histogram) + 1, &at));
        struct sample_histogram *histograms = at;
        size_t n = 0;
        for (uint64_t i = 0; i < count; i++)
            if (b->histogram_of[first + i] != 0)
                histograms[n++] =
                    (struct sample_histogram){ (uint32_t)i, b->histograms[b->histogram_of[first + i] - 1] };
        rows.histograms = histograms;
    }
    if (w->writer == NULL)
        TRY(open_writer(b, w));
    return metric_compact_writer_series(w->writer, s->tenant, s->labels, &rows);
}

/* Rows of the wide window need not be neighbours in time: they are written as one run by taking all that have no
 * window of their own. */
static err write_series(struct build *b, const struct series *s, uint64_t first, struct pool *scratch)
{
    uint64_t end = first + s->row_count, wide = 0;
    struct window *last = NULL, *from = &b->windows[b->window_from], *to = &b->windows[b->window_to];
    TRY(sort_rows(b, first, s->row_count, scratch));
    for (uint64_t i = first; i < end;) {
        uint64_t run;
        struct window *w = window_run(b, i, end, &run);
        if (w == NULL)
            return ERR_CORRUPT;
        if (w >= from && w < to &&
            w->index == WINDOW_WIDE) { /* keep them together at the front, in order: what was there is
                                            written */
            memmove(b->t_ms + first + wide, b->t_ms + i, run * sizeof *b->t_ms);
            memmove(b->value_bits + first + wide, b->value_bits + i, run * sizeof *b->value_bits);
            if (b->start_ms != NULL)
                memmove(b->start_ms + first + wide, b->start_ms + i, run * sizeof *b->start_ms);
            if (b->histogram_of != NULL)
                memmove(b->histogram_of + first + wide, b->histogram_of + i, run * sizeof *b->histogram_of);
            wide += run;
        } else if (w >= from && w < to) {
            TRY(write_rows(b, s, w, i, run, scratch));
        }
        last = w > last ? w : last;
        i += run;
    }
    if (wide > 0)
        TRY(write_rows(b, s, last, first, wide, scratch));
    return last >= from && last < to ? write_exemplars(b, s->number, last->writer, scratch) : OK;
}

/* Series [from, to) of the sorted order. */
static err write_slice(struct build *b, size_t from, size_t to)
{
    b->slice_pool = pool_open(b->pool, "slice", POOL_BYTES_UNLIMITED);
    struct pool *scratch = pool_open(b->pool, "series", POOL_BYTES_UNLIMITED);
    err e = OK;
    void *at;
    b->start_ms = NULL;
    b->histogram_of = NULL;
    b->histograms = NULL;
    b->histogram_count = b->histogram_capacity = 0;
    b->slice_rows = 0;
    memset(b->place, 0xff, b->range->numbers.count * sizeof *b->place);
    for (size_t i = from; i < to; i++) {
        b->place[b->series[i].number] = b->slice_rows;
        b->slice_rows += b->series[i].row_count;
    }
    TRY_OUT(pool_alloc(b->slice_pool, b->slice_rows * sizeof *b->t_ms, &at));
    b->t_ms = at;
    TRY_OUT(pool_alloc(b->slice_pool, b->slice_rows * sizeof *b->value_bits, &at));
    b->value_bits = at;
    for (struct range_group *g = b->range->groups; g != NULL; g = g->next)
        TRY_OUT(walk_group(b, g, visit_place));
    uint64_t first = 0;
    for (size_t i = from; i < to; i++) {
        if (b->place[b->series[i].number] != first + b->series[i].row_count) {
            e = ERR_CORRUPT; /* the second walk saw other rows than the first */
            goto out;
        }
        pool_reset(scratch);
        TRY_OUT(guard_check(&b->shards->stopping));
        TRY_OUT(write_series(b, &b->series[i], first, scratch));
        first += b->series[i].row_count;
    }
out:
    pool_close(scratch);
    pool_close(b->slice_pool);
    return e;
}

/* ---- the whole ---- */

/* The segments of this pass, behind those of the passes before. */
static err finish(struct build *b, struct build_output *outputs)
{
    for (size_t i = b->window_from; i < b->window_to; i++) {
        struct window *w = &b->windows[i];
        struct metric_compact_written written;
        if (w->writer == NULL)
            return ERR_CORRUPT; /* counted, not found */
        TRY(metric_compact_writer_finish(w->writer, NULL, NULL, &written));
        struct chain_segment *s = &w->output.segment;
        *s = (struct chain_segment){ .bytes = written.file.size,
                                     .from = b->range->start,
                                     .to = b->range->end,
                                     .range = written.info.time,
                                     .sum = written.info.sum,
                                     .format_version = METRIC_COMPACT_VERSION };
        memcpy(s->digest, written.file.digest, SHA256_BYTES);
        if (w->index == WINDOW_WIDE)
            s->flags |= CHAIN_SEGMENT_WIDE;
        else if (s->range.min_ms > b->range->state.data_through_ms + SHARD_FAR_FUTURE_MS)
            s->flags |= CHAIN_SEGMENT_FAR_FUTURE;
        outputs[i] = w->output;
        metric_compact_writer_close(w->writer);
        w->writer = NULL;
    }
    return OK;
}

/* Write the segments of windows [b->window_from, b->window_to). */
static err write_windows(struct build *b)
{
    for (size_t from = 0; from < b->series_count;) {
        size_t to = from;
        uint64_t rows = 0;
        while (to < b->series_count && (to == from || rows + b->series[to].row_count <= SLICE_ROWS_MAX))
            rows += b->series[to++].row_count;
        TRY(write_slice(b, from, to));
        from = to;
    }
    return OK;
}

static void abandon(struct build *b)
{
    for (size_t i = 0; i < b->window_count; i++) {
        metric_compact_writer_close(b->windows[i].writer);
        if (b->windows[i].output.path[0] != '\0')
            ERR_IGNORE(io_unlink(b->shards->io, b->windows[i].output.path));
    }
}

err range_build(struct shards *shards, struct partition *p, struct range *range, struct pool *pool,
                struct build_output **out_outputs, size_t *out_count)
{
    struct build b = {
        .shards = shards, .p = p, .range = range, .window_ms = shards->config.window_ms, .sums_known = true
    };
    err e = OK;
    void *at;
    b.pool = pool_open(pool, "build", POOL_BYTES_UNLIMITED);
    *out_count = 0;
    TRY_OUT(pool_zalloc(b.pool, range->numbers.count * sizeof *b.place + 1, &at));
    b.place = at;
    TRY_OUT(pool_zalloc(b.pool, COUNT_SLOTS * sizeof *b.count_slots, &at));
    b.count_slots = at;
    TRY_OUT(count(&b));
    TRY_OUT(choose_windows(&b));
    TRY_OUT(sort_series(&b));
    TRY_OUT(gather_exemplars(&b));
    TRY_OUT(pool_zalloc(pool, b.window_count * sizeof **out_outputs + 1, &at));
    *out_outputs = at;
    while (b.window_to < b.window_count) {
        b.window_from = b.window_to;
        b.window_to = b.window_count - b.window_from < WINDOWS_AT_ONCE ? b.window_count
                                                                       : b.window_from + WINDOWS_AT_ONCE;
        TRY_OUT(write_windows(&b));
        TRY_OUT(finish(&b, *out_outputs));
    }
    *out_count = b.window_count;
out:
    if (e != OK)
        abandon(&b);
    pool_close(b.pool);
    return e;
}

/* ---- verification of what was built ---- */

/* A source that ends when the node stops. */
struct stoppable {
    struct shards *shards;
    struct segment_source source;
};

static err stoppable_read(void *context, uint64_t offset, void *at, size_t len)
{
    struct stoppable *s = context;
    TRY(guard_check(&s->shards->stopping));
    return s->source.read(s->source.context, offset, at, len);
}

static bool stoppable_doubt(void *context)
{
    const struct stoppable *s = context;
    return s->source.doubt != NULL && s->source.doubt(s->source.context);
}

err stoppable_verify(struct shards *shards, struct segment_source source, const uint8_t digest[SHA256_BYTES],
                     struct pool *pool, struct segment_info *out_info, struct err_at *at)
{
    struct stoppable stoppable = { .shards = shards, .source = source };
    source.read = stoppable_read;
    source.doubt = stoppable_doubt;
    source.context = &stoppable;
    return metric_compact_verify(source, digest, pool, out_info, at);
}

err built_file_verify(struct shards *shards, const char *path, const uint8_t digest[SHA256_BYTES],
                      struct pool *pool, struct segment_info *out_info, struct err_at *at)
{
    struct segment_source source;
    struct io_file *file;
    TRY(io_file_open(shards->io, path, IO_READ, &file));
    err e = segment_source_file(file, &source);
    if (e == OK)
        e = stoppable_verify(shards, source, digest, pool, out_info, at);
    io_file_close(file);
    return e;
}
