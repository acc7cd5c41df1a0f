/* The table of functions and aggregations' names, and the type check of a parsed tree.
 *
 * Flow: parse.c looks names up here while it builds calls; check_types then walks the finished tree once,
 * bottom up, and refuses what Prometheus refuses, with its texts. value_type of every node was set by the
 * parser, so that the check only compares. Recursion is bounded by the nodes' height. */
#include "promql/ast.h"
#include "promql/lex.h"

#include "base/check.h"
#include "base/time.h"

#include <math.h>
#include <stdio.h>

#define FUNCTION_ROW(id, name, args, variadic, returns) \
    { name, FUNCTION_##id, PROMQL_##returns, args, variadic },
static const struct function functions[] = { FUNCTION_LIST(FUNCTION_ROW) };
#undef FUNCTION_ROW

static const char *const experimental[] = {
    "double_exponential_smoothing",
    "end",
    "histogram_quantiles",
    "info",
    "mad_over_time",
    "max_of",
    "min_of",
    "range",
    "sort_by_label",
    "sort_by_label_desc",
    "start",
    "start_timestamp",
    "step",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
};

const struct function *function_find(struct slice name)
{
    for (size_t i = 0; i < FUNCTION_COUNT; i++)
        if (slice_equal_str(name, functions[i].name))
            return &functions[i];
    return NULL;
}

bool function_is_experimental(struct slice name)
{
    for (size_t i = 0; i < sizeof experimental / sizeof *experimental; i++)
        if (slice_equal_str(name, experimental[i]))
            return true;
    return false;
}

bool function_is_of_time(enum function_id id)
{
    switch (id) {
    case FUNCTION_DAYS_IN_MONTH:
    case FUNCTION_DAY_OF_MONTH:
    case FUNCTION_DAY_OF_WEEK:
    case FUNCTION_DAY_OF_YEAR:
    case FUNCTION_HOUR:
    case FUNCTION_MINUTE:
    case FUNCTION_MONTH:
    case FUNCTION_PREDICT_LINEAR:
    case FUNCTION_TIME:
    case FUNCTION_TIMESTAMP:
    case FUNCTION_YEAR:
        return true;
    default:
        return false;
    }
}

bool node_is_fixed(const struct node *n, bool with_params)
{
    switch (n->type) {
    case NODE_NUMBER:
    case NODE_STRING:
        return true;
    case NODE_SELECTOR:
        return n->selector.modifiers.at != AT_NONE;
    case NODE_SUBQUERY:
        return n->subquery.modifiers.at != AT_NONE;
    case NODE_PAREN:
        return node_is_fixed(n->inner, with_params);
    case NODE_UNARY:
        return node_is_fixed(n->unary.inner, with_params);
    case NODE_BINARY:
        return node_is_fixed(n->binary.left, with_params) && node_is_fixed(n->binary.right, with_params);
    case NODE_AGGREGATE:
        return node_is_fixed(n->aggregate.inner, with_params) &&
               (!with_params || n->aggregate.param == NULL || node_is_fixed(n->aggregate.param, true));
    case NODE_CALL:
        break;
    }
    if (function_is_of_time(n->call.function->id))
        return false;
    for (size_t i = 0; i < n->call.arg_count; i++)
        if (!node_is_fixed(n->call.args[i], with_params))
            return false;
    return true;
}

const char *operator_name(enum operator_type op)
{
    static const char *const names[] = {
        "+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "<", "<=", ">", ">=", "and", "or", "unless",
    };
    return names[op];
}

const char *aggregate_name(enum aggregate_type type)
{
    static const char *const names[AGGREGATE_COUNT_OF_TYPES] = {
        "sum",    "avg",    "min",  "max",     "count",    "group",
        "stddev", "stdvar", "topk", "bottomk", "quantile", "count_values",
    };
    return names[type];
}

const char *promql_type_name(enum promql_type type)
{
    static const char *const names[] = { "scalar", "vector", "matrix", "string" };
    return names[type];
}

/* As error texts name types. */
static const char *type_text(enum promql_type type)
{
    static const char *const names[] = { "scalar", "instant vector", "range vector", "string" };
    return names[type];
}

static err expect_type(struct slice source, const struct node *n, enum promql_type want, struct err_at *at,
                       const char *place, const char *name)
{
    if (n->value_type == want)
        return OK;
    return lex_error(source, n->begin, at, ERR_INPUT, "expected type %s in %s%s%s%s, got %s", type_text(want),
                     place, name != NULL ? " \"" : "", name != NULL ? name : "", name != NULL ? "\"" : "",
                     type_text(n->value_type));
}

static enum promql_type letter_type(char letter)
{
    switch (letter) {
    case 's':
        return PROMQL_SCALAR;
    case 'v':
        return PROMQL_VECTOR;
    case 'm':
        return PROMQL_MATRIX;
    default:
        return PROMQL_STRING;
    }
}

static err check_call(struct slice source, struct node *n, struct err_at *at)
{
    const struct function *f = n->call.function;
    size_t declared = strlen(f->args), given = n->call.arg_count;
    if (f->variadic == 0 && given != declared)
        return lex_error(source, n->begin, at, ERR_INPUT,
                         "expected %zu argument(s) in call to \"%s\", got %zu", declared, f->name, given);
    size_t least = f->variadic < 0 ? declared - 1 : declared - (size_t)f->variadic;
    if (given < least)
        return lex_error(source, n->begin, at, ERR_INPUT,
                         "expected at least %zu argument(s) in call to \"%s\", got %zu", least, f->name,
                         given);
    if (f->variadic > 0 && given > declared)
        return lex_error(source, n->begin, at, ERR_INPUT,
                         "expected at most %zu argument(s) in call to \"%s\", got %zu", declared, f->name,
                         given);
    for (size_t i = 0; i < given; i++) {
        TRY(check_types(source, n->call.args[i], at));
        char letter = f->args[i < declared ? i : declared - 1];
        TRY(expect_type(source, n->call.args[i], letter_type(letter), at, "call to function", f->name));
    }
    return OK;
}

static err check_aggregate(struct slice source, struct node *n, struct err_at *at)
{
    const char *place = "aggregation expression";
    TRY(check_types(source, n->aggregate.inner, at));
    TRY(expect_type(source, n->aggregate.inner, PROMQL_VECTOR, at, place, NULL));
    struct node *param = n->aggregate.param;
    if (param == NULL)
        return OK;
    TRY(check_types(source, param, at));
    enum promql_type want = n->aggregate.type == AGGREGATE_COUNT_VALUES ? PROMQL_STRING : PROMQL_SCALAR;
    return expect_type(source, param, want, at, "aggregation parameter", NULL);
}

static err check_binary(struct slice source, struct node *n, struct err_at *at)
{
    struct node *left = n->binary.left, *right = n->binary.right;
    enum operator_type op = n->binary.op;
    TRY(check_types(source, left, at));
    TRY(check_types(source, right, at));
    if (n->binary.return_bool && !operator_is_comparison(op))
        return lex_error(source, n->binary.op_begin, at, ERR_INPUT,
                         "bool modifier can only be used on comparison operators");
    bool both_scalar = left->value_type == PROMQL_SCALAR && right->value_type == PROMQL_SCALAR;
    if (operator_is_comparison(op) && !n->binary.return_bool && both_scalar)
        return lex_error(source, n->binary.op_begin, at, ERR_INPUT,
                         "comparisons between scalars must use BOOL modifier");

    for (size_t i = 0; i < n->binary.matching.name_count && n->binary.matching.on; i++)
        for (size_t k = 0; k < n->binary.matching.include_count; k++)
            if (slice_equal(n->binary.matching.names[i], n->binary.matching.include[k]))
                return lex_error(source, n->begin, at, ERR_INPUT,
                                 "label \"%.*s\" must not occur in ON and GROUP clause at once",
                                 text_shown(n->binary.matching.names[i]), n->binary.matching.names[i].at);
    const struct node *sides[] = { left, right };
    for (int i = 0; i < 2; i++)
        if (sides[i]->value_type != PROMQL_SCALAR && sides[i]->value_type != PROMQL_VECTOR)
            return lex_error(source, sides[i]->begin, at, ERR_INPUT,
                             "binary expression must contain only scalar and instant vector types");
    bool both_vector = left->value_type == PROMQL_VECTOR && right->value_type == PROMQL_VECTOR;
    if (!both_vector && n->binary.matching.name_count > 0)
        return lex_error(source, n->begin, at, ERR_INPUT,
                         "vector matching only allowed between instant vectors");
    if (!operator_is_set(op))
        return OK;
    if (!both_vector)
        return lex_error(source, n->begin, at, ERR_INPUT,
                         "set operator \"%s\" not allowed in binary scalar expression", operator_name(op));
    if (n->binary.matching.card == MATCH_MANY_TO_ONE || n->binary.matching.card == MATCH_ONE_TO_MANY)
        return lex_error(source, n->begin, at, ERR_INPUT, "no grouping allowed for \"%s\" operation",
                         operator_name(op));
    return OK;
}

err check_types(struct slice source, struct node *n, struct err_at *at)
{
    switch (n->type) {
    case NODE_NUMBER:
    case NODE_STRING:
    case NODE_SELECTOR:
        return OK;
    case NODE_PAREN:
        return check_types(source, n->inner, at);
    case NODE_UNARY:
        TRY(check_types(source, n->unary.inner, at));
        if (n->value_type != PROMQL_SCALAR && n->value_type != PROMQL_VECTOR)
            return lex_error(
                source, n->begin, at, ERR_INPUT,
                "unary expression only allowed on expressions of type scalar or instant vector, got \"%s\"",
                type_text(n->value_type));
        return OK;
    case NODE_SUBQUERY:
        TRY(check_types(source, n->subquery.inner, at));
        if (n->subquery.inner->value_type != PROMQL_VECTOR)
            return lex_error(source, n->begin, at, ERR_INPUT,
                             "subquery is only allowed on instant vector, got %s instead",
                             promql_type_name(n->subquery.inner->value_type));
        return OK;
    case NODE_BINARY:
        return check_binary(source, n, at);
    case NODE_CALL:
        return check_call(source, n, at);
    case NODE_AGGREGATE:
        return check_aggregate(source, n, at);
    }
    check(false);
    return OK;
}

static err duration_seconds(const struct duration *d, double step, double range, double *out,
                            struct err_at *at)
{
    double left = 0, right = 0;
    if (d->left != NULL)
        TRY(duration_seconds(d->left, step, range, &left, at));
    if (d->right != NULL)
        TRY(duration_seconds(d->right, step, range, &right, at));
    switch (d->type) {
    case DURATION_NUMBER:
        *out = d->seconds;
        return OK;
    case DURATION_STEP:
        *out = step;
        return OK;
    case DURATION_RANGE:
        *out = range;
        return OK;
    case DURATION_NEGATE:
        *out = -right;
        return OK;
    case DURATION_MIN:
        *out = fmin(left, right);
        return OK;
    case DURATION_MAX:
        *out = fmax(left, right);
        return OK;
    case DURATION_BINARY:
        break;
    }
    switch (d->op) {
    case OPERATOR_ADD:
        *out = left + right;
        return OK;
    case OPERATOR_SUBTRACT:
        *out = left - right;
        return OK;
    case OPERATOR_MULTIPLY:
        *out = left * right;
        return OK;
    case OPERATOR_DIVIDE:
        if (right == 0)
            return err_set(at, ERR_EXECUTION, "division by zero");
        *out = left / right;
        return OK;
    case OPERATOR_MODULO:
        if (right == 0)
            return err_set(at, ERR_EXECUTION, "modulo by zero");
        *out = fmod(left, right);
        return OK;
    case OPERATOR_POWER:
        *out = pow(left, right);
        return OK;
    default:
        check(false);
        return OK;
    }
}

err duration_value(const struct duration *d, int64_t step_ms, int64_t range_ms, bool allow_negative,
                   int64_t *out_ms, struct err_at *at)
{
    double seconds;
    TRY(duration_seconds(d, (double)step_ms / 1000, (double)range_ms / 1000, &seconds, at));
    if (!(seconds > 0) && !allow_negative)
        return err_set(at, ERR_EXECUTION, "duration must be greater than 0");
    /* Prometheus holds nanoseconds in an int64: ±292 years. */
    if (!(fabs(seconds) < 9.2e9))
        return err_set(at, ERR_EXECUTION, "duration is out of range");
    *out_ms = (int64_t)round(seconds * 1000);
    return OK;
}
