/* Pipelines are built here from the tree: which leaf, which stages; pipeline.c runs them.
 *
 * What must be known before the first series is read is evaluated on the way: scalar arguments, the rows of a
 * subquery, operands that are no pipeline themselves (LEAF_FRAME). */
#include "promql/eval.h"

#include "base/check.h"

err duration_of(struct eval *eval, const struct duration *d, bool allow_negative, int64_t *out_ms)
{
    int64_t range_ms = eval->request->end_ms - eval->request->start_ms;
    return duration_value(d, eval->request->step_ms, range_ms, allow_negative, out_ms, eval->at);
}

err modifiers_resolve(struct eval *eval, const struct modifiers *m, int64_t *out_offset_ms, bool *out_fixed,
                      int64_t *out_fixed_ms)
{
    *out_offset_ms = 0;
    if (m->offset != NULL)
        TRY(duration_of(eval, m->offset, true, out_offset_ms));
    *out_fixed = m->at != AT_NONE;
    *out_fixed_ms = m->at == AT_TIME    ? m->at_ms
                    : m->at == AT_START ? eval->request->start_ms
                                        : eval->request->end_ms;
    return OK;
}

static err stage_add(struct eval *eval, struct pipeline *p, struct stage stage)
{
    if ((p->stage_count & (p->stage_count - 1)) == 0) { /* 0, 1, 2, 4, …: double */
        void *memory;
        size_t capacity = p->stage_count == 0 ? 1 : p->stage_count * 2;
        TRY(pool_alloc(eval->pool, capacity * sizeof stage, &memory));
        if (p->stage_count > 0)
            memcpy(memory, p->stages, p->stage_count * sizeof stage);
        p->stages = memory;
    }
    p->stages[p->stage_count++] = stage;
    p->drops_name |= stage.drops_name;
    return OK;
}

err pipeline_build_selector(struct eval *eval, const struct node *n, enum leaf_type leaf,
                            struct pipeline *out)
{
    *out = (struct pipeline){ .leaf = leaf, .selector = n, .drops_name = leaf == LEAF_TIMESTAMP };
    return modifiers_resolve(eval, &n->selector.modifiers, &out->offset_ms, &out->fixed, &out->fixed_ms);
}

err pipeline_build_window(struct eval *eval, const struct node *n, const struct grid *grid,
                          struct pipeline *out)
{
    const struct function *f = n->call.function;
    size_t matrix_arg = f->id == FUNCTION_QUANTILE_OVER_TIME ? 1 : 0;
    struct node *matrix = node_unwrap(n->call.args[matrix_arg]);
    double *arg = NULL;
    if (n->call.arg_count > 1)
        TRY(eval_scalars(eval, n->call.args[1 - matrix_arg], grid, &arg));
    if (matrix->type == NODE_SELECTOR) {
        TRY(pipeline_build_selector(eval, matrix, LEAF_WINDOW, out));
        TRY(duration_of(eval, matrix->selector.range, false, &out->range_ms));
    } else {
        check(matrix->type == NODE_SUBQUERY);
        struct pipeline p = { .leaf = LEAF_WINDOW_FRAME };
        TRY(subquery_grid(eval, matrix, grid, &p.frame_grid, &p.range_ms, &p.offset_ms, &p.fixed,
                          &p.fixed_ms));
        if (p.frame_grid.count == 0)
            TRY(frame_open(eval, &p.frame));
        else
            TRY(eval_frame(eval, matrix->subquery.inner, &p.frame_grid, &p.frame));
        *out = p;
    }
    out->window = f->id;
    out->window_name = f->name;
    out->window_arg = arg;
    out->position =
        matrix->type == NODE_SELECTOR ? matrix : NULL; /* Prometheus tells no place in a subquery */
    out->arg_position = n->call.args[0];
    out->drops_name |= f->id != FUNCTION_LAST_OVER_TIME && f->id != FUNCTION_FIRST_OVER_TIME;
    return OK;
}

static err build_operator(struct eval *eval, const struct node *n, const struct grid *grid,
                          struct pipeline *out)
{
    struct stage stage = { .return_bool = n->binary.return_bool };
    stage.scalar_left = n->binary.left->value_type == PROMQL_SCALAR;
    const struct node *vector = stage.scalar_left ? n->binary.right : n->binary.left;
    const struct node *scalar = stage.scalar_left ? n->binary.left : n->binary.right;
    TRY(pipeline_build(eval, vector, grid, out));
    double *scalars;
    TRY(eval_scalars(eval, scalar, grid, &scalars));
    stage.scalars[0] = scalars;
    stage_of_operator(n->binary.op, &stage);
    return stage_add(eval, out, stage);
}

static err build_elementwise(struct eval *eval, const struct node *n, const struct grid *grid,
                             struct pipeline *out)
{
    const struct function *f = n->call.function;
    struct stage stage = { .grid = *grid, .name = f->name };
    if (n->call.arg_count == 0) { /* hour() and its like: of the evaluation time */
        struct frame *frame;
        struct row row = { .labels = slice_of("", 0) };
        TRY(frame_open(eval, &frame));
        TRY(values_new(frame->pool, grid->count, &row.values));
        for (size_t i = 0; i < grid->count; i++)
            row.values[i] = (double)grid_t(grid, i) / 1000;
        TRY(frame_add(frame, row));
        *out = (struct pipeline){ .leaf = LEAF_FRAME, .frame = frame };
    } else {
        const struct node *arg = node_unwrap(n->call.args[0]);
        if (f->id == FUNCTION_TIMESTAMP && arg->type == NODE_SELECTOR)
            return pipeline_build_selector(eval, arg, LEAF_TIMESTAMP, out);
        TRY(pipeline_build(eval, arg, grid, out));
    }
    for (size_t i = 1; i < n->call.arg_count; i++) {
        double *scalars;
        TRY(eval_scalars(eval, n->call.args[i], grid, &scalars));
        stage.scalars[i - 1] = scalars;
    }
    stage_of_function(f->id, &stage);
    return stage_add(eval, out, stage);
}

err pipeline_build(struct eval *eval, const struct node *n, const struct grid *grid, struct pipeline *out)
{
    n = node_unwrap((struct node *)n);
    if (n->type == NODE_SELECTOR)
        return pipeline_build_selector(eval, n, LEAF_SELECT, out);
    if (n->type == NODE_UNARY) {
        TRY(pipeline_build(eval, n->unary.inner, grid, out));
        struct stage stage = { 0 };
        stage_of_negation(&stage);
        return n->unary.negate ? stage_add(eval, out, stage) : OK;
    }
    if (n->type == NODE_BINARY &&
        (n->binary.left->value_type == PROMQL_SCALAR || n->binary.right->value_type == PROMQL_SCALAR))
        return build_operator(eval, n, grid, out);
    if (n->type == NODE_CALL && function_is_elementwise(n->call.function->id))
        return build_elementwise(eval, n, grid, out);
    if (n->type == NODE_CALL && n->call.function->id != FUNCTION_ABSENT_OVER_TIME &&
        function_is_window(n->call.function->id))
        return pipeline_build_window(eval, n, grid, out);
    struct value value;
    TRY(eval_node(eval, n, grid, &value));
    check(value.type == PROMQL_VECTOR);
    *out = (struct pipeline){ .leaf = LEAF_FRAME, .frame = value.frame };
    return OK;
}
