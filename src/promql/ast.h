/* The tree of an expression. Internal to the room; built by parse.c, checked by check.c, read by the
 * evaluator. Nodes are in the pool given to promql_parse and never change after it. */
#ifndef PROMQL_AST_H
#define PROMQL_AST_H

#include "model/matcher.h"
#include "promql/function_list.h"
#include "promql/promql.h"

enum node_type {
    NODE_NUMBER,
    NODE_STRING,
    NODE_SELECTOR,
    NODE_SUBQUERY,
    NODE_PAREN,
    NODE_UNARY,
    NODE_BINARY,
    NODE_CALL,
    NODE_AGGREGATE,
};

enum operator_type {
    OPERATOR_ADD,
    OPERATOR_SUBTRACT,
    OPERATOR_MULTIPLY,
    OPERATOR_DIVIDE,
    OPERATOR_MODULO,
    OPERATOR_POWER,
    OPERATOR_ATAN2,
    OPERATOR_EQUAL,
    OPERATOR_NOT_EQUAL,
    OPERATOR_LESS,
    OPERATOR_LESS_EQUAL,
    OPERATOR_GREATER,
    OPERATOR_GREATER_EQUAL,
    OPERATOR_AND,
    OPERATOR_OR,
    OPERATOR_UNLESS,
};

static inline bool operator_is_comparison(enum operator_type op)
{
    return op >= OPERATOR_EQUAL && op <= OPERATOR_GREATER_EQUAL;
}

static inline bool operator_is_set(enum operator_type op) { return op >= OPERATOR_AND; }

const char *operator_name(enum operator_type op);

enum aggregate_type {
    AGGREGATE_SUM,
    AGGREGATE_AVG,
    AGGREGATE_MIN,
    AGGREGATE_MAX,
    AGGREGATE_COUNT,
    AGGREGATE_GROUP,
    AGGREGATE_STDDEV,
    AGGREGATE_STDVAR,
    AGGREGATE_TOPK,
    AGGREGATE_BOTTOMK,
    AGGREGATE_QUANTILE,
    AGGREGATE_COUNT_VALUES,
    AGGREGATE_COUNT_OF_TYPES,
};

const char *aggregate_name(enum aggregate_type type);

/* Durations may be arithmetic over step() and range(), which a request brings. */
enum duration_type {
    DURATION_NUMBER,
    DURATION_STEP,
    DURATION_RANGE,
    DURATION_NEGATE,
    DURATION_BINARY,
    DURATION_MIN,
    DURATION_MAX,
};

struct duration {
    enum duration_type type;
    enum operator_type op;
    double seconds;                /* DURATION_NUMBER */
    struct duration *left, *right; /* right alone for DURATION_NEGATE */
    uint32_t begin;
    unsigned height; /* 1 + that of the higher child; ≤ PROMQL_DEPTH_MAX */
};

enum at_type { AT_NONE, AT_TIME, AT_START, AT_END };

/* @ and offset of a selector or subquery. */
struct modifiers {
    enum at_type at;
    int64_t at_ms;
    struct duration *offset; /* NULL = none */
};

enum match_card { MATCH_ONE_TO_ONE, MATCH_MANY_TO_ONE, MATCH_ONE_TO_MANY, MATCH_MANY_TO_MANY };

struct matching {
    enum match_card card;
    bool on;             /* else ignoring */
    bool written;        /* on or ignoring was there */
    struct slice *names; /* sorted, unique */
    size_t name_count;
    struct slice *include; /* labels of group_left (…) */
    size_t include_count;
};

struct function;

struct node {
    enum node_type type;
    enum promql_type value_type;
    uint32_t begin, end; /* bytes of the source */
    unsigned height;     /* 1 + that of the highest child, durations apart; ≤ PROMQL_DEPTH_MAX */
    union {
        double number;
        struct slice string;
        struct {
            struct matcher *matchers;
            size_t count;
            struct slice name;      /* the metric name when written, for messages */
            struct duration *range; /* NULL = instant selector */
            struct modifiers modifiers;
        } selector;
        struct {
            struct node *inner;
            struct duration *range;
            struct duration *step; /* NULL = default */
            struct modifiers modifiers;
        } subquery;
        struct node *inner; /* NODE_PAREN */
        struct {
            bool negate;
            struct node *inner;
        } unary;
        struct {
            enum operator_type op;
            uint32_t op_begin; /* byte of the source */
            bool return_bool;
            struct node *left, *right;
            struct matching matching;
        } binary;
        struct {
            const struct function *function;
            struct node **args;
            size_t arg_count;
        } call;
        struct {
            enum aggregate_type type;
            bool without;
            bool grouped;        /* by or without was there */
            struct slice *names; /* sorted, unique */
            size_t name_count;
            struct node *param; /* NULL = none */
            struct node *inner;
        } aggregate;
    };
};

struct promql_expr {
    struct slice source;
    struct node *root;
    struct matcher_list *matchers; /* every selector's, for promql_expr_done */
};

struct matcher_list {
    struct matcher_list *next;
    struct node *selector;
};

static inline struct node *node_unwrap(struct node *n)
{
    while (n->type == NODE_PAREN)
        n = n->inner;
    return n;
}

/* Functions: one row each in function.c. */
#define FUNCTION_ENUM(id, name, args, variadic, returns) FUNCTION_##id,
enum function_id { FUNCTION_LIST(FUNCTION_ENUM) FUNCTION_COUNT };
#undef FUNCTION_ENUM

#define FUNCTION_ARG_COUNT_MAX 5

struct function {
    const char *name;
    enum function_id id;
    enum promql_type returns;
    /* One letter an argument: s scalar, v vector, m matrix, t string. */
    char args[FUNCTION_ARG_COUNT_MAX + 1];
    /* 0 = exactly these; n > 0 = the last n may be left out; -1 = the last may repeat (or be left out). */
    int variadic;
};

/* NULL when there is none of this name (case sensitive). */
const struct function *function_find(struct slice name);

/* Is it one of Prometheus' experimental functions, which are not supported? */
bool function_is_experimental(struct slice name);

/* Does its value depend on the time of evaluation, even when its arguments do not? */
bool function_is_of_time(enum function_id id);

/* Does n have the same value at every step? Prometheus evaluates such a part once; it does not ask whether the
 * parameter of an aggregation moves (with_params). */
bool node_is_fixed(const struct node *n, bool with_params);

/* Types of all nodes below n. ERR_INPUT with position. */
err check_types(struct slice source, struct node *n, struct err_at *at);

/* Milliseconds of a duration expression. range_ms: end − start of the request, step_ms its step.
 * ERR_EXECUTION division by zero, not positive where it must be, out of range; text in at. */
err duration_value(const struct duration *d, int64_t step_ms, int64_t range_ms, bool allow_negative,
                   int64_t *out_ms, struct err_at *at);

#endif
