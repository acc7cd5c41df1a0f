/* The evaluator's door: request → grid → walk of the tree → result.
 *
 * Every node is evaluated once, for all steps of its grid (an instant query is a grid of one); what @ fixes,
 * for the first step alone. Vectors become pipelines as far down as they go (pipeline.c), so most queries
 * are one select and one pass over its series. A subquery evaluates its inner expression on a grid of its
 * own: multiples of its step, whatever the outer grid.
 *
 * Memory: one pool below the caller's for everything in between, closed before return; results, annotations and
 * proof are made in the caller's pool.
 * Invariants: 1. eval->frames is empty of other's pools before eval->pool closes. 2. @ start() and end() always
 * mean the request's, in subqueries too. 3. Names are dropped at the very end (delayed name removal). */
#include "promql/eval.h"

#include "base/check.h"

#include <math.h>
#include <stdlib.h>

static err scalars_fill(struct eval *eval, const struct grid *grid, double v, struct value *out)
{
    void *memory;
    TRY(pool_alloc(eval->pool, grid->count * sizeof(double), &memory));
    *out = (struct value){ .type = PROMQL_SCALAR, .scalars = memory };
    for (size_t i = 0; i < grid->count; i++)
        out->scalars[i] = v;
    return OK;
}

static err eval_scalar_binary(struct eval *eval, const struct node *n, const struct grid *grid,
                              struct value *out)
{
    double *left, *right;
    TRY(eval_scalars(eval, n->binary.left, grid, &left));
    TRY(eval_scalars(eval, n->binary.right, grid, &right));
    TRY(scalars_fill(eval, grid, 0, out));
    for (size_t i = 0; i < grid->count; i++)
        out->scalars[i] = scalar_operate(n->binary.op, left[i], right[i]);
    return OK;
}

static err eval_scalar_unary(struct eval *eval, const struct node *n, const struct grid *grid,
                             struct value *out)
{
    TRY(eval_node(eval, n->unary.inner, grid, out));
    if (!n->unary.negate)
        return OK;
    double *inner = out->scalars;
    TRY(scalars_fill(eval, grid, 0, out));
    for (size_t i = 0; i < grid->count; i++)
        out->scalars[i] = -inner[i];
    return OK;
}

/* n is no paren. */
static err eval_steps(struct eval *eval, const struct node *n, const struct grid *grid, struct value *out)
{
    struct pipeline p;
    *out = (struct value){ .type = n->value_type };
    switch (n->type) {
    case NODE_NUMBER:
        return scalars_fill(eval, grid, n->number, out);
    case NODE_STRING:
        out->string = n->string;
        return OK;
    case NODE_AGGREGATE:
        return aggregate_eval(eval, n, grid, &out->frame);
    case NODE_CALL:
        return call_eval(eval, n, grid, out);
    case NODE_UNARY:
        if (n->value_type == PROMQL_SCALAR)
            return eval_scalar_unary(eval, n, grid, out);
        break;
    case NODE_BINARY:
        if (n->value_type == PROMQL_SCALAR)
            return eval_scalar_binary(eval, n, grid, out);
        if (n->binary.left->value_type == PROMQL_VECTOR && n->binary.right->value_type == PROMQL_VECTOR)
            return binary_eval(eval, n, grid, &out->frame);
        break;
    case NODE_SELECTOR:
        break;
    default:
        check(false); /* a range vector is only ever an argument */
    }
    TRY(pipeline_build(eval, n, grid, &p));
    return pipeline_to_frame(eval, &p, grid, &out->frame);
}

err eval_node(struct eval *eval, const struct node *n, const struct grid *grid, struct value *out)
{
    n = node_unwrap((struct node *)n);
    struct grid first = *grid;
    first.count = 1;
    /* A selector with @ reads each series once by itself. */
    bool once = grid->count > 1 && n->value_type == PROMQL_VECTOR && n->type != NODE_SELECTOR &&
                node_is_fixed(n, true);
    TRY(eval_steps(eval, n, once ? &first : grid, out));
    return once ? frame_widen(out->frame, grid->count) : OK;
}

err eval_frame(struct eval *eval, const struct node *n, const struct grid *grid, struct frame **out_frame)
{
    struct value value;
    TRY(eval_node(eval, n, grid, &value));
    check(value.type == PROMQL_VECTOR);
    *out_frame = value.frame;
    return OK;
}

err eval_scalars(struct eval *eval, const struct node *n, const struct grid *grid, double **out_scalars)
{
    struct value value;
    TRY(eval_node(eval, n, grid, &value));
    check(value.type == PROMQL_SCALAR);
    *out_scalars = value.scalars;
    return OK;
}

static int64_t floor_to(int64_t t_ms, int64_t step_ms)
{
    int64_t rest = t_ms % step_ms;
    return t_ms - (rest < 0 ? rest + step_ms : rest);
}

err subquery_grid(struct eval *eval, const struct node *n, const struct grid *outer, struct grid *out_grid,
                  int64_t *out_range_ms, int64_t *out_offset_ms, bool *out_fixed, int64_t *out_fixed_ms)
{
    int64_t step_ms = eval->request->subquery_step_ms;
    if (step_ms == 0)
        step_ms = PROMQL_SUBQUERY_STEP_MS_DEFAULT;
    if (n->subquery.step != NULL)
        TRY(duration_of(eval, n->subquery.step, false, &step_ms));
    TRY(duration_of(eval, n->subquery.range, false, out_range_ms));
    TRY(modifiers_resolve(eval, &n->subquery.modifiers, out_offset_ms, out_fixed, out_fixed_ms));
    if (step_ms < 1)
        return err_set(eval->at, ERR_EXECUTION, "duration must be greater than 0");
    int64_t first_ms = (*out_fixed ? *out_fixed_ms : outer->start_ms) - *out_offset_ms - *out_range_ms;
    int64_t last_ms = (*out_fixed ? *out_fixed_ms : grid_end(outer)) - *out_offset_ms;
    int64_t start_ms = floor_to(first_ms, step_ms) + step_ms;
    uint64_t count = last_ms < start_ms ? 0 : (uint64_t)(last_ms - start_ms) / (uint64_t)step_ms + 1;
    if (count > PROMQL_STEP_COUNT_MAX)
        return err_set(eval->at, ERR_LIMIT, "subquery has %llu steps, more than %d",
                       (unsigned long long)count, PROMQL_STEP_COUNT_MAX);
    *out_grid = (struct grid){ .start_ms = start_ms, .step_ms = step_ms, .count = (size_t)count };
    return OK;
}

/* ---- the result ---- */

/* Sort the rows by their labels, into an array of their own; the frame takes no more. */
static err rows_sort(struct frame *frame)
{
    void *memory;
    uint32_t *order;
    TRY(pool_alloc(frame->pool, (frame->count + 1) * sizeof(struct slice), &memory));
    struct slice *labels = memory;
    for (size_t i = 0; i < frame->count; i++)
        labels[i] = frame->rows[i].labels;
    TRY(labels_order(labels, (uint32_t)frame->count, frame->pool, &order));
    TRY(pool_alloc(frame->pool, (frame->count + 1) * sizeof *frame->rows, &memory));
    struct row *rows = memory;
    for (size_t i = 0; i < frame->count; i++)
        rows[i] = frame->rows[order[i]];
    frame->rows = rows;
    return OK;
}

/* Join rows with equal labels if they never meet. Rows are sorted. */
static err rows_join(struct eval *eval, struct frame *frame, const struct grid *grid)
{
    size_t kept = 0;
    for (size_t i = 0; i < frame->count; i++) {
        struct row *row = &frame->rows[i];
        struct row *last = kept > 0 ? &frame->rows[kept - 1] : NULL;
        if (last == NULL || !slice_equal(last->labels, row->labels)) {
            frame->rows[kept++] = *row;
            continue;
        }
        TRY(row_join(eval, last, row, grid->count));
    }
    frame->count = kept;
    return OK;
}

static err rows_drop_names(struct frame *frame)
{
    struct buf scratch = buf_open(frame->pool, LABELS_BYTES_MAX);
    for (size_t i = 0; i < frame->count; i++) {
        struct row *row = &frame->rows[i];
        if (!row->drop_name)
            continue;
        struct slice labels = labels_without_name(row->labels, &scratch);
        if (labels.at != row->labels.at)
            TRY(pool_copy(frame->pool, labels, &row->labels));
    }
    return OK;
}

/* Drop names, sort rows by labels, join rows with equal ones. */
static err frame_finish(struct eval *eval, struct frame *frame, const struct grid *grid, bool keep_order)
{
    TRY(rows_drop_names(frame));
    struct row *given = frame->rows;
    size_t count = frame->count;
    TRY(rows_sort(frame));
    TRY(rows_join(eval, frame, grid));
    if (keep_order) {
        check(frame->count == count); /* an instant result joins nothing: it fails instead */
        frame->rows = given;
    }
    return OK;
}

/* A row with a float at every step, which most are: its times are the grid's, made once for all of them. */
static err series_make_full(struct pool *pool, const struct row *row, const struct grid *grid,
                            const int64_t *times, struct promql_series *out)
{
    struct promql_series series = { .count = grid->count, .t_ms = times };
    void *memory;
    TRY(pool_copy(pool, row->labels, &series.labels));
    TRY(pool_alloc(pool, grid->count * sizeof(double), &memory));
    series.values = memcpy(memory, row->values, grid->count * sizeof(double));
    *out = series;
    return OK;
}

static err series_make(struct pool *pool, const struct row *row, const struct grid *grid,
                       const int64_t *times, struct promql_series *out)
{
    struct promql_series series = { 0 };
    for (size_t i = 0; i < grid->count; i++)
        series.count += !is_absent(row->values[i]);
    if (series.count == grid->count)
        return series_make_full(pool, row, grid, times, out);
    series.count += row->histogram_count;
    void *t_memory, *value_memory, *histogram_memory;
    TRY(pool_copy(pool, row->labels, &series.labels));
    TRY(pool_alloc(pool, series.count * sizeof(int64_t), &t_memory));
    TRY(pool_alloc(pool, series.count * sizeof(double), &value_memory));
    TRY(pool_alloc(pool, row->histogram_count * sizeof *row->histograms, &histogram_memory));
    int64_t *t_ms = t_memory;
    double *values = value_memory;
    struct sample_histogram *histograms = histogram_memory;
    size_t at = 0, histogram = 0;
    for (size_t i = 0; i < grid->count; i++) {
        bool is_histogram = histogram < row->histogram_count && row->histograms[histogram].row == i;
        if (is_histogram) {
            histograms[histogram].row = (uint32_t)at;
            TRY(pool_copy(pool, row->histograms[histogram].bytes, &histograms[histogram].bytes));
            histogram++;
        } else if (is_absent(row->values[i])) {
            continue;
        }
        t_ms[at] = times[i];
        values[at++] = is_histogram ? NAN : row->values[i];
    }
    check(at == series.count);
    series.t_ms = t_ms;
    series.values = values;
    series.histograms = histograms;
    series.histogram_count = row->histogram_count;
    *out = series;
    return OK;
}

static err times_make(struct pool *pool, const struct grid *grid, int64_t **out_times)
{
    void *memory;
    TRY(pool_alloc(pool, grid->count * sizeof(int64_t), &memory));
    *out_times = memory;
    for (size_t i = 0; i < grid->count; i++)
        (*out_times)[i] = grid_t(grid, i);
    return OK;
}

static err result_of_frame(struct eval *eval, struct frame *frame, const struct grid *grid, bool instant,
                           struct promql_result *out)
{
    TRY(frame_finish(eval, frame, grid, instant && frame->ordered));
    void *memory;
    int64_t *times;
    TRY(times_make(eval->result_pool, grid, &times));
    TRY(pool_alloc(eval->result_pool, (frame->count + 1) * sizeof *out->series, &memory));
    out->series = memory;
    for (size_t i = 0; i < frame->count; i++) {
        if (i % 1024 == 0)
            TRY(guard_maybe(eval));
        TRY(series_make(eval->result_pool, &frame->rows[i], grid, times, &out->series[out->series_count]));
        out->series_count += out->series[out->series_count].count > 0;
    }
    return OK;
}

static err result_matrix(struct eval *eval, const struct node *n, const struct grid *grid,
                         struct promql_result *out)
{
    if (n->type == NODE_SELECTOR)
        return pipeline_raw(eval, n, grid->start_ms, out);
    struct grid inner;
    int64_t range_ms, offset_ms, fixed_ms;
    bool fixed;
    struct frame *frame;
    TRY(subquery_grid(eval, n, grid, &inner, &range_ms, &offset_ms, &fixed, &fixed_ms));
    if (inner.count == 0)
        return OK;
    TRY(eval_frame(eval, n->subquery.inner, &inner, &frame));
    return result_of_frame(eval, frame, &inner, false, out);
}

static err result_make(struct eval *eval, const struct grid *grid, bool instant, struct promql_result *out)
{
    const struct node *n = node_unwrap(eval->request->expr->root);
    out->type = instant ? n->value_type : PROMQL_MATRIX;
    if (n->value_type == PROMQL_MATRIX)
        return result_matrix(eval, n, grid, out);
    struct value value;
    TRY(eval_node(eval, n, grid, &value));
    if (value.type == PROMQL_STRING)
        return pool_copy(eval->result_pool, value.string, &out->string);
    if (value.type == PROMQL_VECTOR)
        return result_of_frame(eval, value.frame, grid, instant, out);
    if (instant) {
        out->scalar = value.scalars[0];
        return OK;
    }
    void *memory;
    int64_t *times;
    struct row row = { .labels = slice_of("", 0), .values = value.scalars };
    TRY(times_make(eval->result_pool, grid, &times));
    TRY(pool_alloc(eval->result_pool, sizeof *out->series, &memory));
    out->series = memory;
    out->series_count = 1;
    return series_make(eval->result_pool, &row, grid, times, out->series);
}

static err grid_of(const struct promql_request *request, struct grid *out, struct err_at *at)
{
    if (request->start_ms > TIME_MS_MAX || request->start_ms < TIME_MS_MIN || request->end_ms > TIME_MS_MAX ||
        request->end_ms < request->start_ms || request->step_ms < 0 ||
        (request->step_ms == 0 && request->end_ms != request->start_ms))
        return err_set(at, ERR_INPUT, "bad time range or step");
    *out = (struct grid){ .start_ms = request->start_ms, .step_ms = request->step_ms, .count = 1 };
    if (request->step_ms == 0)
        return OK;
    uint64_t count = (uint64_t)(request->end_ms - request->start_ms) / (uint64_t)request->step_ms + 1;
    if (count > PROMQL_STEP_COUNT_MAX)
        return err_set(at, ERR_LIMIT, "query has %llu steps, more than %d", (unsigned long long)count,
                       PROMQL_STEP_COUNT_MAX);
    out->count = (size_t)count;
    enum promql_type type = promql_expr_type(request->expr);
    if (type != PROMQL_SCALAR && type != PROMQL_VECTOR)
        return err_set(at, ERR_INPUT,
                       "invalid expression type \"%s\" for range query, must be Scalar or instant Vector",
                       type == PROMQL_MATRIX ? "range vector" : "string");
    return OK;
}

struct eval eval_open(const struct promql_request *request, struct pool *pool, struct err_at *at)
{
    return (struct eval){
        .request = request,
        .pool = pool_open(pool, "promql_eval", POOL_BYTES_UNLIMITED),
        .result_pool = pool,
        .proof = { .complete = true },
        .warnings = annotations_open(pool),
        .infos = annotations_open(pool),
        .repair_texts = label_index_open(pool),
        .at = at,
        .lookback_ms = request->lookback_ms > 0 ? request->lookback_ms : PROMQL_LOOKBACK_MS_DEFAULT,
    };
}

void eval_close(struct eval *eval)
{
    while (eval->frames != NULL)
        frame_close(eval, eval->frames);
    pool_close(eval->pool);
}

err promql_eval(const struct promql_request *request, struct pool *pool, struct promql_result *out_result,
                struct err_at *at)
{
    struct grid grid;
    if (at != NULL)
        at->text[0] = 0;
    TRY(grid_of(request, &grid, at));
    struct err_at own_at = { 0 };
    struct eval eval = eval_open(request, pool, at != NULL ? at : &own_at);
    struct promql_result result = { 0 };
    eval.stats.step_count = grid.count;
    err e = result_make(&eval, &grid, request->step_ms == 0, &result);
    eval_close(&eval);
    if (e == ERR_LIMIT && eval.at->text[0] == 0) {
        char text[GUARD_TEXT_BYTES];
        guard_limit_text(request->guard, text);
        e = err_set(eval.at, e, "%s", text);
    }
    if (e != OK && eval.at->text[0] == 0)
        e = err_set(eval.at, e, "%s",
                    e == ERR_TIMEOUT    ? "query timed out in expression evaluation"
                    : e == ERR_CANCELED ? "query was canceled in expression evaluation"
                                        : err_text(e));
    TRY(e);
    annotations_finish(&eval, &result);
    result.proof = eval.proof;
    result.stats = eval.stats;
    *out_result = result;
    return OK;
}
