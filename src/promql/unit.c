/* Units: aggregations (and absent) whose series are evaluated one by one, where they are.
 *
 * Most are folded into the states of groups. Of topk and bottomk the states are rows: who holds some of the
 * series gives at each step its k best of each group; no other can be among the k best of all, for the order of
 * members is total, and the same choice among those gives the result. Rows of count_values hold counts, which
 * add up.
 *
 *     unit = aggregation ∘ (elementwise | scalar operator | window)* ∘ selector
 *
 * A unit reads one selector, and no step of it looks at two series but the aggregation at its end, whose groups
 * are partial states that merge (aggregate.c). So whoever holds some of the series can make the states of those,
 * and states that come from several merge to those of all. A unit is sent as the query's text with its place in
 * it; who evaluates it parses the same text, so that annotations name the same places.
 *
 *     asking      aggregate.c, call.c → unit_groups → source_table.groups → group_set_merge_one
 *     answering   promql_unit_eval → the same pipeline and group_set as here → unit.take
 *
 * Invariants: 1. Asked or not, the groups are the same but for the order of additions, which carry their
 * compensation. 2. What nodes refuse (ERR_UNSUPPORTED) is evaluated from samples, and fails there as it would
 * have without nodes. 3. Nothing of a unit that is refused is in the groups. */
#include "promql/eval.h"

#include "base/check.h"

/* ---- what is a unit ---- */

static bool has_selector(const struct node *n)
{
    switch (n->type) {
    case NODE_NUMBER:
    case NODE_STRING:
        return false;
    case NODE_PAREN:
        return has_selector(n->inner);
    case NODE_UNARY:
        return has_selector(n->unary.inner);
    case NODE_BINARY:
        return has_selector(n->binary.left) || has_selector(n->binary.right);
    case NODE_CALL:
        for (size_t i = 0; i < n->call.arg_count; i++)
            if (has_selector(n->call.args[i]))
                return true;
        return false;
    default:
        return true;
    }
}

/* The argument of a call that computes each series from one of it; NULL: it does not. */
static const struct node *operand_of_call(const struct node *n)
{
    enum function_id id = n->call.function->id;
    size_t operand = id == FUNCTION_QUANTILE_OVER_TIME ? 1 : 0;
    bool is_single =
        function_is_elementwise(id) || (function_is_window(id) && id != FUNCTION_ABSENT_OVER_TIME);
    if (!is_single || n->call.arg_count == 0)
        return NULL;
    for (size_t i = 0; i < n->call.arg_count; i++)
        if (i != operand && has_selector(n->call.args[i]))
            return NULL;
    return n->call.args[operand];
}

/* What n computes its series from, each from one of it; NULL: it does not. n is no selector. */
static const struct node *operand_of(const struct node *n)
{
    switch (n->type) {
    case NODE_PAREN:
        return n->inner;
    case NODE_UNARY:
        return n->unary.inner;
    case NODE_SUBQUERY:
        return n->subquery.inner;
    case NODE_CALL:
        return operand_of_call(n);
    case NODE_BINARY:
        if (n->binary.left->value_type == PROMQL_SCALAR && !has_selector(n->binary.left))
            return n->binary.right;
        if (n->binary.right->value_type == PROMQL_SCALAR && !has_selector(n->binary.right))
            return n->binary.left;
        return NULL;
    default:
        return NULL;
    }
}

/* An aggregation whose results over parts of the series tell that over all. A number k of selectors' values is
 * known to who asks only. */
static bool is_apart(const struct node *n)
{
    enum aggregate_type type = n->aggregate.type;
    if (type == AGGREGATE_TOPK || type == AGGREGATE_BOTTOMK)
        return !has_selector(n->aggregate.param);
    return type == AGGREGATE_COUNT_VALUES || aggregate_is_folded(type);
}

/* What is aggregated, n being such, or absent; NULL: n is neither. */
static const struct node *aggregated_of(const struct node *n)
{
    if (n->type == NODE_AGGREGATE)
        return is_apart(n) ? n->aggregate.inner : NULL;
    bool is_absent_call = n->type == NODE_CALL && (n->call.function->id == FUNCTION_ABSENT ||
                                                   n->call.function->id == FUNCTION_ABSENT_OVER_TIME);
    return is_absent_call ? n->call.args[0] : NULL;
}

static bool is_unit(const struct node *n)
{
    n = aggregated_of(n);
    while (n != NULL && n->type != NODE_SELECTOR)
        n = operand_of(n);
    return n != NULL;
}

/* The times of all samples that a unit reads. Errors as those of evaluating it. */
static err range_of(struct eval *eval, const struct node *n, struct grid grid, struct time_range *out)
{
    struct pipeline p;
    for (n = aggregated_of(n); n->type != NODE_SELECTOR; n = operand_of(n)) {
        struct grid outer = grid;
        int64_t range_ms, offset_ms, fixed_ms;
        bool is_fixed;
        if (n->type != NODE_SUBQUERY)
            continue;
        TRY(subquery_grid(eval, n, &outer, &grid, &range_ms, &offset_ms, &is_fixed, &fixed_ms));
        if (grid.count == 0) {
            *out = (struct time_range){ 1, 0 };
            return OK;
        }
    }
    bool is_window = n->selector.range != NULL;
    TRY(pipeline_build_selector(eval, n, is_window ? LEAF_WINDOW : LEAF_SELECT, &p));
    if (is_window)
        TRY(duration_of(eval, n->selector.range, false, &p.range_ms));
    *out = pipeline_range(eval, &p, &grid);
    return OK;
}

static bool is_time(int64_t t_ms) { return t_ms >= TIME_MS_MIN && t_ms <= TIME_MS_MAX; }

/* Are all of start + i × step times? */
static bool is_grid(int64_t start_ms, int64_t step_ms, uint64_t count)
{
    return is_time(start_ms) && step_ms >= 0 && count >= 1 && count <= PROMQL_STEP_COUNT_MAX &&
           (count == 1 || (step_ms > 0 && (TIME_MS_MAX - start_ms) / step_ms >= (int64_t)count - 1));
}

/* Numbers that another evaluation would not refuse, nor overflow with. */
static bool is_sound(const struct source_unit *unit)
{
    return is_grid(unit->start_ms, unit->step_ms, unit->step_count) && is_time(unit->query_start_ms) &&
           is_time(unit->query_end_ms) && unit->query_start_ms <= unit->query_end_ms &&
           unit->query_step_ms >= 0 && unit->query_step_ms <= TIME_MS_MAX && unit->lookback_ms > 0 &&
           unit->lookback_ms <= TIME_MS_MAX && unit->subquery_step_ms > 0 &&
           unit->subquery_step_ms <= TIME_MS_MAX && unit->step_ms <= TIME_MS_MAX;
}

/* ---- asking ---- */

static err take_group(void *context, const struct source_group *group)
{
    struct group from = { .drop_name = group->drop_name,
                          .a = (double *)(uintptr_t)group->columns[0],
                          .b = (double *)(uintptr_t)group->columns[1],
                          .c = (double *)(uintptr_t)group->columns[2] };
    return group_set_merge_one(context, group->labels, &from);
}

static struct source_unit unit_of(const struct eval *eval, const struct node *n, struct group_set *groups)
{
    const struct promql_request *request = eval->request;
    const struct grid *grid = &groups->grid;
    return (struct source_unit){
        .text = request->expr->source,
        .begin = n->begin,
        .end = n->end,
        .query_start_ms = request->start_ms,
        .query_end_ms = request->end_ms,
        .query_step_ms = request->step_ms,
        .start_ms = grid->start_ms,
        .step_ms = grid->step_ms,
        .step_count = grid->count,
        .lookback_ms = eval->lookback_ms,
        .subquery_step_ms =
            request->subquery_step_ms != 0 ? request->subquery_step_ms : PROMQL_SUBQUERY_STEP_MS_DEFAULT,
        .column_count = group_columns(groups->type),
        .take = take_group,
        .context = groups,
    };
}

/* What came with the groups becomes what this evaluation has to say. */
static err note_groups(struct eval *eval, const struct source_groups *groups)
{
    eval->stats.series_loaded += groups->series_count;
    eval->stats.samples_loaded += groups->sample_count;
    for (size_t i = 0; i < groups->warning_count; i++)
        annotate_text(&eval->warnings, groups->warnings[i]);
    for (size_t i = 0; i < groups->info_count; i++)
        annotate_text(&eval->infos, groups->infos[i]);
    return proof_join(&eval->proof, &groups->proof, eval->result_pool);
}

/* *out_is_done: the groups are there. Else nothing is. */
static err unit_ask(struct eval *eval, const struct node *n, struct group_set *groups, bool *out_is_done)
{
    struct source *source = eval->request->source;
    struct source_groups of_unit;
    struct time_range range;
    *out_is_done = false;
    if (!is_unit(n) || source->table->groups == NULL)
        return OK;
    struct source_unit unit = unit_of(eval, n, groups);
    TRY(range_of(eval, n, groups->grid, &range));
    if (range.min_ms > range.max_ms || !is_sound(&unit))
        return OK;
    struct source_request request = {
        .tenant = eval->request->tenant,
        .range = range,
        .series_max = eval->request->series_max != 0 ? eval->request->series_max : SIZE_MAX,
        .partitions = eval->request->partitions,
        .after = eval->request->after,
        .after_count = eval->request->after_count,
        .guard = eval->request->guard,
    };
    struct pool *pool = pool_open(eval->pool, "promql_unit", POOL_BYTES_UNLIMITED);
    err e = source->table->groups(source, &request, &unit, pool, &of_unit);
    if (e == OK) {
        *out_is_done = true;
        e = note_groups(eval, &of_unit);
    } else if (e == ERR_UNSUPPORTED) {
        check(groups->index.count == 0);
        e = OK;
    }
    pool_close(pool);
    return e;
}

/* ---- evaluating ---- */

static err unit_here(struct eval *eval, const struct node *n, const struct grid *grid,
                     struct group_set *groups)
{
    struct pipeline p;
    if (n->type == NODE_CALL && n->call.function->id == FUNCTION_ABSENT_OVER_TIME)
        TRY(pipeline_build_window(eval, n, grid, &p));
    else
        TRY(pipeline_build(eval, aggregated_of(n), grid, &p));
    return pipeline_to_groups(eval, &p, grid, groups);
}

err unit_groups(struct eval *eval, const struct node *n, const struct grid *grid, struct group_set *groups)
{
    bool is_done;
    TRY(unit_ask(eval, n, groups, &is_done));
    return is_done ? OK : unit_here(eval, n, grid, groups);
}

err unit_rows(struct eval *eval, const struct node *n, struct group_set *rows, bool *out_is_done)
{
    return unit_ask(eval, n, rows, out_is_done);
}

/* ---- answering ---- */

/* The unit that stands in [begin, end) of the text; NULL: none does. */
static const struct node *unit_at(const struct node *n, uint32_t begin, uint32_t end)
{
    const struct node *found = NULL;
    if (n->begin == begin && n->end == end && is_unit(n))
        return n;
    switch (n->type) {
    case NODE_SUBQUERY:
        return unit_at(n->subquery.inner, begin, end);
    case NODE_PAREN:
        return unit_at(n->inner, begin, end);
    case NODE_UNARY:
        return unit_at(n->unary.inner, begin, end);
    case NODE_BINARY:
        found = unit_at(n->binary.left, begin, end);
        return found != NULL ? found : unit_at(n->binary.right, begin, end);
    case NODE_AGGREGATE:
        if (n->aggregate.param != NULL)
            found = unit_at(n->aggregate.param, begin, end);
        return found != NULL ? found : unit_at(n->aggregate.inner, begin, end);
    case NODE_CALL:
        for (size_t i = 0; i < n->call.arg_count && found == NULL; i++)
            found = unit_at(n->call.args[i], begin, end);
        return found;
    default:
        return NULL;
    }
}

static size_t notes_of(const struct annotations *list, struct slice **out_texts)
{
    *out_texts = list->texts.keys;
    return list->texts.count < SOURCE_NOTE_COUNT_MAX ? list->texts.count : SOURCE_NOTE_COUNT_MAX;
}

/* The rows of an aggregation that is not folded, over this source alone. */
static err rows_here(struct eval *eval, const struct node *n, const struct grid *grid, struct group_set *rows)
{
    struct frame *frame;
    TRY(aggregate_eval(eval, n, grid, &frame));
    for (size_t i = 0; i < frame->count; i++) {
        const struct group from = { .drop_name = frame->rows[i].drop_name, .a = frame->rows[i].values };
        TRY(group_set_merge_one(rows, frame->rows[i].labels, &from));
    }
    frame_close(eval, frame);
    return OK;
}

static err hand_over(const struct group_set *groups, const struct source_unit *unit)
{
    for (size_t i = 0; i < groups->index.count; i++) {
        const struct group *g = &groups->groups[i];
        const struct source_group group = { .labels = groups->index.keys[i],
                                            .drop_name = g->drop_name,
                                            .columns = { g->a, g->b, g->c } };
        TRY(unit->take(unit->context, &group));
    }
    return OK;
}

static err unit_answer(struct eval *eval, const struct node *n, const struct source_unit *unit,
                       struct source_groups *out)
{
    struct grid grid = { unit->start_ms, unit->step_ms, (size_t)unit->step_count };
    struct frame *frame;
    TRY(frame_open(eval, &frame));
    struct group_set groups = group_set_of(n, &grid, frame->pool);
    if (group_columns(groups.type) != unit->column_count)
        return ERR_UNSUPPORTED;
    bool is_folded = n->type != NODE_AGGREGATE || aggregate_is_folded(n->aggregate.type);
    TRY(is_folded ? unit_here(eval, n, &grid, &groups) : rows_here(eval, n, &grid, &groups));
    *out = (struct source_groups){ .proof = eval->proof,
                                   .series_count = eval->stats.series_loaded,
                                   .sample_count = eval->stats.samples_loaded };
    out->warning_count = notes_of(&eval->warnings, &out->warnings);
    out->info_count = notes_of(&eval->infos, &out->infos);
    return hand_over(&groups, unit);
}

err promql_unit_eval(struct source *source, const struct source_request *request,
                     const struct source_unit *unit, const struct promql_runner *runner, struct pool *pool,
                     struct source_groups *out_groups)
{
    struct promql_expr *expr;
    struct err_at at = { 0 };
    if (!is_sound(unit))
        return ERR_UNSUPPORTED;
    err e = promql_parse(unit->text, pool, &expr, &at);
    if (e != OK)
        return e == ERR_INPUT ? ERR_UNSUPPORTED : e;
    const struct node *n = unit_at(expr->root, unit->begin, unit->end);
    struct promql_request own = { .expr = expr,
                                  .source = source,
                                  .tenant = request->tenant,
                                  .start_ms = unit->query_start_ms,
                                  .end_ms = unit->query_end_ms,
                                  .step_ms = unit->query_step_ms,
                                  .lookback_ms = unit->lookback_ms,
                                  .subquery_step_ms = unit->subquery_step_ms,
                                  .series_max = request->series_max == SIZE_MAX ? 0 : request->series_max,
                                  .partitions = request->partitions,
                                  .after = request->after,
                                  .after_count = request->after_count,
                                  .guard = request->guard };
    if (runner != NULL)
        own.runner = *runner;
    struct eval eval = eval_open(&own, pool, &at);
    e = n == NULL ? ERR_UNSUPPORTED : unit_answer(&eval, n, unit, out_groups);
    eval_close(&eval);
    promql_expr_done(expr);
    return e == ERR_EXECUTION || e == ERR_INPUT ? ERR_UNSUPPORTED : e;
}
