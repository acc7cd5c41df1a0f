/* Pipelines: leaf → stages → sink, one series at a time, in parallel over chunks of series.
 *
 *     leaf    selector at an instant | range function over a selector or a subquery's rows | rows of a frame
 *     stages  elementwise.c, in place over the row
 *     sink    rows of a new frame | groups of an aggregation
 *
 * So `sum by (x) (rate(foo[5m]) * 8)` reads each series once, keeps one row of values per worker and adds it to
 * its group; no series' values outlive their turn. A chunk is what a cluster will evaluate elsewhere: its group
 * set is the partial result, group_set_merge the operator that joins partials.
 *
 * Data comes from the source's set (labels are read only where something asks for them: row_labels) or a frame;
 * it goes to a frame or group_set.
 *
 * Invariants: 1. The split into chunks depends on the number of series and the time asked for alone, and chunks
 * are joined in order: the result does not depend on the number of workers. 2. A worker writes only to itself and
 * its chunk. 3. Rows without a value at any step are dropped. 4. A row with native histograms passes no stage, no
 * window function and no group but count and group: ERR_EXECUTION names series and function. */
#include "promql/eval.h"

#include "base/check.h"
#include "model/histogram.h"

#include <stdatomic.h>
#include <string.h>

struct chunk {
    size_t from, to;
    struct pool *keep; /* rows of the frame, or the partial groups */
    struct row *rows;
    size_t row_count, row_capacity;
    struct group_set *groups;
    struct group_set partial; /* what groups points at, except for the first chunk */
    struct notes notes;
    uint64_t samples;
    err e;
    struct err_at at;
};

struct run {
    struct eval *eval;
    const struct pipeline *p;
    const struct grid *grid;
    struct grid ends; /* of windows, or the instants of selection */
    const struct source_table *table;
    struct source_set *set;
    struct chunk *chunks;
    struct worker *_Atomic idle[CHUNK_COUNT_MAX]; /* in any place */
    bool to_groups;
};

/* What a worker needs while it runs a chunk. Later chunks of the run take it over: windows of known times, opened
 * segments, memory. */
struct worker {
    struct run *run;
    struct chunk *chunk;
    struct pool *pool; /* scratch: gone when the run is done */
    struct source_reader *reader;
    size_t series;         /* of the row under way, when its labels are still to be read */
    struct buf own_labels; /* of the row under way, once they were read */
    struct sample_columns columns;
    struct window_scratch window;
    struct buf labels; /* scratch for keys */
    double *values;    /* the row under way */
    bool values_kept;  /* they went into the frame: the next row needs new ones */
    struct sample_histogram *histograms;
    size_t histogram_capacity;
};

static struct grid ends_of(const struct pipeline *p, const struct grid *grid)
{
    struct grid ends = *grid;
    if (p->fixed) {
        ends.start_ms = p->fixed_ms;
        ends.step_ms = 0;
    }
    ends.start_ms -= p->offset_ms;
    return ends;
}

struct time_range pipeline_range(const struct eval *eval, const struct pipeline *p, const struct grid *grid)
{
    struct grid ends = ends_of(p, grid);
    int64_t back_ms = p->leaf == LEAF_WINDOW ? p->range_ms : eval->lookback_ms;
    int64_t min_ms = ends.start_ms - back_ms + 1, max_ms = grid_end(&ends);
    return (struct time_range){ .min_ms = min_ms < TIME_MS_MIN ? TIME_MS_MIN : min_ms,
                                .max_ms = max_ms > TIME_MS_MAX ? TIME_MS_MAX : max_ms };
}

/* The labels of the row under way, read from the source when nobody needed them before. */
static err row_labels(struct worker *w, struct row *row)
{
    if (row->labels.at != NULL || w->reader == NULL)
        return OK;
    buf_clear(&w->own_labels);
    TRY(w->run->table->read_labels(w->reader, w->series, &w->own_labels));
    row->labels = w->own_labels.len > 0 ? buf_slice(&w->own_labels) : slice_of("", 0);
    return OK;
}

static err row_fail_histogram(struct worker *w, struct row *row, const char *what)
{
    TRY(row_labels(w, row));
    return fail_histogram(&w->chunk->at, row->labels, what);
}

/* ---- leaves ---- */

static bool is_stale_histogram(struct worker *w, struct slice bytes)
{
    struct histogram h;
    struct pool *pool = pool_open(w->pool, "promql_histogram", POOL_BYTES_UNLIMITED);
    bool stale = histogram_decode(bytes, pool, &h) == OK && sample_is_stale(h.sum);
    pool_close(pool);
    return stale;
}

/* The value at each instant: the newest sample of (end - lookback, end], none when that is a stale marker
 * (whose bits are ABSENT's). Histograms of the selection are listed in w->histograms. */
static err select_row(struct worker *w, double *out, size_t *out_histogram_count)
{
    const struct sample_columns *c = &w->columns;
    const struct grid *ends = &w->run->ends;
    int64_t lookback_ms = w->run->eval->lookback_ms;
    bool timestamp = w->run->p->leaf == LEAF_TIMESTAMP;
    size_t high = 0, histogram = 0, histogram_count = 0;
    const uint8_t *seen = NULL; /* the histogram looked at last: one stays the newest for several steps */
    bool stale = false;
    for (size_t step = 0; step < ends->count; step++) {
        int64_t end_ms = grid_t(ends, step);
        while (high < c->count && c->t_ms[high] <= end_ms)
            high++;
        out[step] = ABSENT;
        if (high == 0 || c->t_ms[high - 1] <= end_ms - lookback_ms)
            continue;
        double v = c->values[high - 1];
        if (c->histogram_count > 0) {
            while (histogram < c->histogram_count && c->histograms[histogram].row < high - 1)
                histogram++;
            if (histogram < c->histogram_count && c->histograms[histogram].row == high - 1) {
                struct slice bytes = c->histograms[histogram].bytes;
                if (bytes.at != seen)
                    stale = is_stale_histogram(w, bytes);
                seen = bytes.at;
                if (stale)
                    continue;
                if (!timestamp) {
                    TRY(pool_block_reserve(w->pool, (void **)&w->histograms, sizeof *w->histograms,
                                           histogram_count + 1, &w->histogram_capacity));
                    w->histograms[histogram_count++] = (struct sample_histogram){ (uint32_t)step, bytes };
                    continue;
                }
            }
        }
        out[step] = timestamp && !is_absent(v) ? (double)c->t_ms[high - 1] / 1000 : v;
    }
    *out_histogram_count = histogram_count;
    return OK;
}

/* Does a window hold a sample at t? */
static bool in_some_window(const struct run *run, int64_t t_ms)
{
    const struct grid *ends = &run->ends;
    int64_t first = 0;
    if (ends->step_ms > 0 && t_ms > ends->start_ms)
        first = (t_ms - ends->start_ms + ends->step_ms - 1) / ends->step_ms;
    if ((uint64_t)first >= ends->count)
        return false;
    int64_t end_ms = grid_t(ends, (size_t)first);
    return t_ms <= end_ms && t_ms > end_ms - run->p->range_ms;
}

static bool window_takes_histograms(enum function_id id)
{
    return id == FUNCTION_COUNT_OVER_TIME || id == FUNCTION_PRESENT_OVER_TIME ||
           id == FUNCTION_ABSENT_OVER_TIME;
}

/* A stale marker is a NaN, and nearly no series has any: pairs are looked at together. */
static bool any_nan(const double *v, size_t count)
{
    typedef double pair __attribute__((vector_size(16)));
    typedef int64_t pair_mask __attribute__((vector_size(16)));
    pair_mask any = { 0 }, more = { 0 };
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        pair a, b;
        memcpy(&a, v + i, sizeof a);
        memcpy(&b, v + i + 2, sizeof b);
        any |= a != a;
        more |= b != b;
    }
    any |= more;
    bool found = (any[0] | any[1]) != 0;
    for (; i < count; i++)
        found |= v[i] != v[i];
    return found;
}

/* Take stale markers out of the columns; refuse histograms where the function would need them. */
static err columns_clean(struct worker *w, struct row *row)
{
    struct sample_columns *c = &w->columns;
    size_t kept = 0, histogram = 0, stale = 0;
    if (any_nan(c->values, c->count))
        for (size_t i = 0; i < c->count; i++)
            stale += sample_is_stale(c->values[i]);
    if (stale == 0 && c->histogram_count == 0)
        return OK; /* nearly always */
    c->times = (struct hash128){ 0 };
    for (size_t i = 0; i < c->count; i++) {
        if (histogram < c->histogram_count && c->histograms[histogram].row == i) {
            struct slice bytes = c->histograms[histogram++].bytes;
            if (is_stale_histogram(w, bytes))
                continue;
            if (!window_takes_histograms(w->run->p->window) && in_some_window(w->run, c->t_ms[i]))
                return row_fail_histogram(w, row, w->run->p->window_name);
        } else if (sample_is_stale(c->values[i])) {
            continue;
        }
        if (kept != i) {
            c->t_ms[kept] = c->t_ms[i];
            c->values[kept] = c->values[i];
        }
        kept++;
    }
    c->count = kept;
    return OK;
}

static err columns_of_row(struct worker *w, struct row *row)
{
    const struct grid *grid = &w->run->p->frame_grid;
    struct sample_columns *c = &w->columns;
    sample_columns_clear(c);
    TRY(sample_columns_reserve(c, grid->count));
    if (row->histogram_count > 0)
        return row_fail_histogram(w, row, w->run->p->window_name);
    for (size_t i = 0; i < grid->count; i++) {
        if (is_absent(row->values[i]))
            continue;
        c->t_ms[c->count] = grid_t(grid, i);
        c->values[c->count++] = row->values[i];
    }
    return OK;
}

/* The name of the row under way. A selector that begins with it spares reading every series' labels. */
static err row_name(struct worker *w, struct row *row, struct slice *out_name)
{
    const struct node *selector = w->run->p->selector;
    *out_name = selector != NULL ? selector->selector.name : slice_of("", 0);
    if (out_name->len > 0)
        return OK;
    TRY(row_labels(w, row));
    *out_name = labels_get(row->labels, label_name);
    return OK;
}

/* Remember what annotations will tell about the row's values. */
static err window_note(struct worker *w, struct row *row, const double *out)
{
    const struct run *run = w->run;
    struct notes *notes = &w->chunk->notes;
    enum function_id id = run->p->window;
    struct slice name;
    if (id == FUNCTION_QUANTILE_OVER_TIME)
        note_quantiles(notes, run->p->window_arg, out, run->grid->count);
    if ((id != FUNCTION_RATE && id != FUNCTION_INCREASE) || !values_any(out, run->grid->count))
        return OK;
    TRY(row_name(w, row, &name));
    return note_non_counter(notes, name, run->eval->pool);
}

static err window_row(struct worker *w, struct row *row, double *out)
{
    const struct run *run = w->run;
    const struct pipeline *p = run->p;
    if (w->columns.count == 0) {
        for (size_t i = 0; i < run->grid->count; i++)
            out[i] = ABSENT;
        return OK;
    }
    struct window_input in = {
        .t_ms = w->columns.t_ms,
        .values = w->columns.values,
        .count = w->columns.count,
        .times = w->columns.times,
        .ends = run->ends,
        .range_ms = p->range_ms,
        .eval_start_ms = run->grid->start_ms,
        .eval_step_ms = run->grid->step_ms,
        .arg = p->window_arg,
        .guard = run->eval->request->guard,
    };
    TRY(window_apply(p->window, &in, &w->window, out));
    return window_note(w, row, out);
}

/* ---- one row ---- */

static err row_read(struct worker *w, size_t series, struct row *row)
{
    const struct run *run = w->run;
    const struct pipeline *p = run->p;
    if (p->leaf == LEAF_FRAME) {
        *row = p->frame->rows[series];
        return OK;
    }
    if (w->values_kept) {
        TRY(values_new(run->to_groups ? w->pool : w->chunk->keep, run->grid->count, &w->values));
        w->values_kept = false;
    }
    *row = (struct row){ .values = w->values };
    if (p->leaf == LEAF_WINDOW_FRAME) {
        struct row *inner = &p->frame->rows[series];
        row->labels = inner->labels;
        row->drop_name = inner->drop_name;
        TRY(columns_of_row(w, inner));
        return window_row(w, row, row->values);
    }
    w->series = series;
    TRY(run->table->read_samples(w->reader, series, &w->columns));
    w->chunk->samples += w->columns.count;
    if (p->leaf == LEAF_WINDOW) {
        TRY(columns_clean(w, row));
        return window_row(w, row, row->values);
    }
    TRY(select_row(w, row->values, &row->histogram_count));
    row->histograms = w->histograms;
    return OK;
}

static bool row_is_empty(const struct row *row, size_t count)
{
    return row->histogram_count == 0 && !values_any(row->values, count);
}

/* Keep a row: what is borrowed from columns and set is copied. */
static err row_keep(struct worker *w, struct row *row)
{
    const struct pipeline *p = w->run->p;
    struct pool *keep = w->chunk->keep;
    if (p->leaf == LEAF_SELECT && row->histogram_count > 0) {
        void *memory;
        TRY(pool_alloc(keep, row->histogram_count * sizeof *row->histograms, &memory));
        struct sample_histogram *copies = memory;
        for (size_t i = 0; i < row->histogram_count; i++) {
            copies[i] = row->histograms[i];
            if (i > 0 && row->histograms[i].bytes.at == row->histograms[i - 1].bytes.at)
                copies[i].bytes = copies[i - 1].bytes;
            else
                TRY(pool_copy(keep, row->histograms[i].bytes, &copies[i].bytes));
        }
        row->histograms = copies;
    }
    TRY(row_labels(w, row));
    if (p->leaf != LEAF_FRAME)
        TRY(pool_copy(keep, row->labels, &row->labels));
    TRY(pool_block_reserve(keep, (void **)&w->chunk->rows, sizeof *row, w->chunk->row_count + 1,
                           &w->chunk->row_capacity));
    w->chunk->rows[w->chunk->row_count++] = *row;
    w->values_kept = true;
    return OK;
}

static err row_process(struct worker *w, size_t series)
{
    const struct run *run = w->run;
    const struct pipeline *p = run->p;
    struct row row;
    TRY(row_read(w, series, &row));
    row.drop_name |= p->drops_name;
    if (row_is_empty(&row, run->grid->count))
        return OK;
    for (size_t i = 0; i < p->stage_count; i++) {
        if (row.histogram_count > 0)
            return row_fail_histogram(w, &row, p->stages[i].name);
        p->stages[i].apply(&p->stages[i], row.values, run->grid->count);
    }
    if (p->stage_count > 0 && row_is_empty(&row, run->grid->count))
        return OK;
    if (!run->to_groups)
        return row_keep(w, &row);
    if (row.histogram_count > 0) {
        if (w->chunk->groups->type != AGGREGATE_COUNT && w->chunk->groups->type != AGGREGATE_GROUP)
            return row_fail_histogram(w, &row, aggregate_name(w->chunk->groups->type));
        for (size_t i = 0; i < row.histogram_count; i++)
            row.values[row.histograms[i].row] = 1;
    }
    if (group_set_needs_labels(w->chunk->groups))
        TRY(row_labels(w, &row));
    return group_set_add(w->chunk->groups, &row, &w->labels);
}

static err worker_open(struct run *run, struct worker **out_worker)
{
    struct pool *pool;
    void *memory;
    TRY(pool_open_object(run->eval->pool, "promql_worker", sizeof(struct worker), &pool, &memory));
    struct worker *w = memory;
    *w = (struct worker){ .run = run,
                          .pool = pool,
                          .columns = sample_columns_open(pool),
                          .window = { .pool = pool },
                          .own_labels = buf_open(pool, LABELS_BYTES_MAX),
                          .labels = buf_open(pool, LABELS_BYTES_MAX),
                          .values_kept = true };
    err e = run->set == NULL ? OK : run->table->reader_open(run->set, &w->reader);
    if (e == OK)
        *out_worker = w;
    else
        pool_close(pool);
    return e;
}

/* An idle worker, or a new one. */
static err worker_take(struct run *run, struct worker **out_worker)
{
    for (size_t i = 0; i < CHUNK_COUNT_MAX; i++) {
        struct worker *w = atomic_exchange(&run->idle[i], NULL);
        if (w != NULL) {
            *out_worker = w;
            return OK;
        }
    }
    return worker_open(run, out_worker);
}

static void worker_give(struct run *run, struct worker *w)
{
    struct worker *none = NULL;
    size_t i = 0;
    for (; !atomic_compare_exchange_strong(&run->idle[i], &none, w); none = NULL)
        check(++i < CHUNK_COUNT_MAX); /* there are not more workers than chunks */
}

static void workers_close(struct run *run)
{
    for (size_t i = 0; i < CHUNK_COUNT_MAX; i++) {
        struct worker *w = atomic_load(&run->idle[i]);
        if (w == NULL)
            continue;
        if (run->set != NULL)
            run->table->reader_close(w->reader);
        pool_close(w->pool);
    }
}

static void chunk_run(void *context, size_t index)
{
    struct run *run = context;
    struct chunk *chunk = &run->chunks[index];
    struct worker *w;
    chunk->e = worker_take(run, &w);
    if (chunk->e != OK)
        return;
    w->chunk = chunk;
    if (!run->to_groups)
        w->values_kept = true; /* they are the last chunk's */
    for (size_t i = chunk->from; i < chunk->to && chunk->e == OK; i++) {
        chunk->e = row_process(w, i);
        if (chunk->e == OK && run->set == NULL && i % 64 == 0)
            chunk->e = guard_maybe(run->eval);
    }
    worker_give(run, w);
}

/* ---- the run ---- */

static void run_jobs(const struct eval *eval, size_t count, void (*job)(void *, size_t), void *context)
{
    const struct promql_runner *runner = &eval->request->runner;
    if (runner->run != NULL && runner->width > 1 && count > 1) {
        runner->run(runner->context, count, job, context);
        return;
    }
    for (size_t i = 0; i < count; i++)
        job(context, i);
}

static err run_select(struct run *run, struct source_request *request, size_t *out_count)
{
    struct eval *eval = run->eval;
    const struct node *selector = run->p->selector;
    run->table = eval->request->source->table;
    *request = (struct source_request){
        .tenant = eval->request->tenant,
        .matchers = selector->selector.matchers,
        .matcher_count = selector->selector.count,
        .range = pipeline_range(eval, run->p, run->grid),
        .series_max = eval->request->series_max != 0 ? eval->request->series_max : SIZE_MAX,
        .partitions = eval->request->partitions,
        .after = eval->request->after,
        .after_count = eval->request->after_count,
        .guard = eval->request->guard,
    };
    *out_count = 0;
    if (request->range.min_ms > request->range.max_ms)
        return OK;
    TRY(run->table->select(eval->request->source, request, eval->pool, &run->set));
    *out_count = run->table->set_count(run->set);
    eval->stats.series_loaded += *out_count;
    return OK;
}

/* Series a chunk. A chunk has costs of its own: cursors to open, a histogram's upper buckets, from which the first
 * one follows, partial groups to merge. Enough samples make up for them; then there are some, and an even number,
 * so that two workers or four end together. How dense samples are is not known: their time stands for them. */
static size_t chunk_size(const struct run *run, size_t series_count)
{
    int64_t covered_ms = grid_end(&run->ends) - run->ends.start_ms + run->p->range_ms;
    size_t count = (series_count + CHUNK_SERIES - 1) / CHUNK_SERIES;
    size_t worth = (size_t)((double)covered_ms * (double)series_count / (double)CHUNK_COVERED_MS);
    if (count < CHUNK_COUNT_MIN && count < worth)
        count = worth < CHUNK_COUNT_MIN ? worth : CHUNK_COUNT_MIN;
    if (count < worth)
        count += count % 2;
    count = count > CHUNK_COUNT_MAX ? CHUNK_COUNT_MAX : count;
    return count <= 1 ? series_count : (series_count + count - 1) / count;
}

/* Make the chunks and open each one's memory; groups NULL: rows go to frame. */
static err chunks_open(struct run *run, size_t series_count, struct frame *frame, struct group_set *groups,
                       size_t *out_chunk_count)
{
    size_t size = chunk_size(run, series_count);
    size_t count = 0;
    void *memory;
    if (series_count == 0)
        return OK;
    TRY(pool_zalloc(run->eval->pool, (series_count + size - 1) / size * sizeof *run->chunks, &memory));
    run->chunks = memory;
    for (size_t from = 0; from < series_count; from += size) {
        struct chunk *chunk = &run->chunks[count];
        chunk->from = from;
        chunk->to = from + size < series_count ? from + size : series_count;
        if (groups == NULL) {
            chunk->keep = frame_chunk_pool(frame);
        } else if (count == 0) {
            chunk->groups = groups;
        } else {
            chunk->keep = pool_open(run->eval->pool, "promql_partial", POOL_BYTES_UNLIMITED);
            chunk->partial = *groups;
            chunk->partial.pool = chunk->keep;
            chunk->partial.index = label_index_open(chunk->keep);
            chunk->partial.groups = NULL;
            chunk->partial.capacity = 0;
            chunk->groups = &chunk->partial;
        }
        count++;
    }
    *out_chunk_count = count;
    return OK;
}

static err run_chunks(struct run *run, size_t series_count, struct frame *frame, struct group_set *groups)
{
    struct eval *eval = run->eval;
    err e = OK;
    size_t chunk_count = 0;
    TRY(chunks_open(run, series_count, frame, groups, &chunk_count));
    run_jobs(eval, chunk_count, chunk_run, run);
    workers_close(run);
    for (size_t i = 0; i < chunk_count && e == OK; i++) {
        struct chunk *chunk = &run->chunks[i];
        e = chunk->e;
        if (e != OK) {
            if (chunk->at.text[0] != 0)
                e = err_set(eval->at, e, "%s", chunk->at.text);
            break;
        }
        eval->stats.samples_loaded += chunk->samples;
        notes_tell(eval, &chunk->notes, run->p);
        if (groups == NULL)
            for (size_t k = 0; k < chunk->row_count && e == OK; k++)
                e = frame_add(frame, chunk->rows[k]);
        else if (i > 0)
            e = group_set_merge(groups, chunk->groups);
    }
    for (size_t i = 0; i < chunk_count; i++)
        notes_done(&run->chunks[i].notes);
    for (size_t i = 1; groups != NULL && i < chunk_count; i++)
        pool_close(run->chunks[i].keep);
    return e;
}

static err pipeline_run(struct eval *eval, struct pipeline *p, const struct grid *grid, struct frame *frame,
                        struct group_set *groups)
{
    struct run run = {
        .eval = eval, .p = p, .grid = grid, .ends = ends_of(p, grid), .to_groups = groups != NULL
    };
    struct source_request request;
    size_t series_count;
    err e = OK;
    if (p->leaf == LEAF_FRAME || p->leaf == LEAF_WINDOW_FRAME)
        series_count = p->frame->count;
    else
        TRY(run_select(&run, &request, &series_count));
    TRY_OUT(run_chunks(&run, series_count, frame, groups));
    if (run.set != NULL)
        TRY_OUT(proof_join(&eval->proof, run.table->set_proof(run.set), eval->result_pool));
out:
    if (run.set != NULL)
        run.table->set_close(run.set);
    return e;
}

err pipeline_to_frame(struct eval *eval, struct pipeline *p, const struct grid *grid,
                      struct frame **out_frame)
{
    if (p->leaf == LEAF_FRAME && p->stage_count == 0) {
        *out_frame = p->frame;
        return OK;
    }
    struct frame *frame;
    TRY(frame_open(eval, &frame));
    TRY(pipeline_run(eval, p, grid, frame, NULL));
    if (p->leaf == LEAF_FRAME) {
        /* The rows were changed in place and still live in the old frame: give it the surviving ones. */
        struct frame *old = p->frame;
        for (size_t i = 0; i < frame->count; i++)
            old->rows[i] = frame->rows[i];
        old->count = frame->count;
        frame_close(eval, frame);
        frame = old;
    } else if (p->leaf == LEAF_WINDOW_FRAME) {
        frame_close(eval, p->frame);
    }
    *out_frame = frame;
    return OK;
}

err pipeline_to_groups(struct eval *eval, struct pipeline *p, const struct grid *grid,
                       struct group_set *groups)
{
    TRY(pipeline_run(eval, p, grid, NULL, groups));
    if (p->leaf == LEAF_FRAME || p->leaf == LEAF_WINDOW_FRAME)
        frame_close(eval, p->frame);
    return OK;
}

/* ---- raw samples ---- */

static err raw_series(struct eval *eval, struct slice labels, struct sample_columns *c,
                      struct promql_series *out)
{
    struct pool *pool = eval->result_pool;
    void *t_memory, *value_memory, *histogram_memory;
    TRY(pool_alloc(pool, c->count * sizeof(int64_t), &t_memory));
    TRY(pool_alloc(pool, c->count * sizeof(double), &value_memory));
    TRY(pool_alloc(pool, c->histogram_count * sizeof(struct sample_histogram), &histogram_memory));
    int64_t *t_ms = t_memory;
    double *values = value_memory;
    struct sample_histogram *histograms = histogram_memory;
    struct promql_series series = { .t_ms = t_ms, .values = values, .histograms = histograms };
    TRY(pool_copy(pool, labels, &series.labels));
    size_t histogram = 0;
    for (size_t i = 0; i < c->count; i++) {
        bool is_histogram = histogram < c->histogram_count && c->histograms[histogram].row == i;
        if (!is_histogram && sample_is_stale(c->values[i]))
            continue;
        if (is_histogram) {
            struct slice bytes = c->histograms[histogram++].bytes;
            struct worker w = { .pool = eval->pool };
            if (is_stale_histogram(&w, bytes))
                continue;
            struct sample_histogram *h = &histograms[series.histogram_count++];
            h->row = (uint32_t)series.count;
            TRY(pool_copy(pool, bytes, &h->bytes));
        }
        t_ms[series.count] = c->t_ms[i];
        values[series.count++] = c->values[i];
    }
    *out = series;
    return OK;
}

/* The series in the order of their labels. */
static err raw_result(struct eval *eval, const struct promql_series *found, size_t count,
                      struct promql_result *out)
{
    void *labels_memory, *series_memory;
    uint32_t *order;
    TRY(pool_alloc(eval->pool, (count + 1) * sizeof(struct slice), &labels_memory));
    TRY(pool_alloc(eval->result_pool, (count + 1) * sizeof *out->series, &series_memory));
    struct slice *labels = labels_memory;
    for (size_t i = 0; i < count; i++)
        labels[i] = found[i].labels;
    TRY(labels_order(labels, (uint32_t)count, eval->pool, &order));
    out->series = series_memory;
    for (size_t i = 0; i < count; i++)
        out->series[i] = found[order[i]];
    out->series_count = count;
    return OK;
}

err pipeline_raw(struct eval *eval, const struct node *selector, int64_t end_ms, struct promql_result *out)
{
    struct pipeline p;
    struct grid grid = { .start_ms = end_ms, .count = 1 };
    TRY(pipeline_build_selector(eval, selector, LEAF_WINDOW, &p));
    TRY(duration_of(eval, selector->selector.range, false, &p.range_ms));
    struct run run = { .eval = eval, .p = &p, .grid = &grid, .ends = ends_of(&p, &grid) };
    struct source_request request;
    size_t series_count;
    err e = OK;
    TRY(run_select(&run, &request, &series_count));
    struct source_reader *reader = NULL;
    struct sample_columns columns = sample_columns_open(eval->pool);
    struct buf labels = buf_open(eval->pool, LABELS_BYTES_MAX);
    void *memory;
    TRY_OUT(pool_alloc(eval->pool, (series_count + 1) * sizeof *out->series, &memory));
    struct promql_series *found = memory;
    size_t count = 0;
    if (run.set != NULL) /* else the range asked for is empty */
        TRY_OUT(run.table->reader_open(run.set, &reader));
    for (size_t i = 0; i < series_count; i++) {
        TRY_OUT(run.table->read_samples(reader, i, &columns));
        eval->stats.samples_loaded += columns.count;
        TRY_OUT(guard_maybe(eval));
        buf_clear(&labels);
        TRY_OUT(run.table->read_labels(reader, i, &labels));
        TRY_OUT(raw_series(eval, buf_slice(&labels), &columns, &found[count]));
        count += found[count].count > 0;
    }
    TRY_OUT(raw_result(eval, found, count, out));
    if (run.set != NULL)
        TRY_OUT(proof_join(&eval->proof, run.table->set_proof(run.set), eval->result_pool));
out:
    sample_columns_close(&columns);
    if (run.set != NULL) {
        run.table->reader_close(reader);
        run.table->set_close(run.set);
    }
    return e;
}
