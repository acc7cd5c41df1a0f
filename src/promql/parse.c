/* The parser: tokens → tree, by recursive descent with operator precedence; one token of lookahead.
 *
 *     expr     = unary { operator [bool] [on|ignoring (…)] [group_left|group_right [(…)]] expr }
 *     unary    = (+|-) expr(binding tighter than *) | postfix
 *     postfix  = primary { '[' range ']' | '[' range ':' [step] ']' | offset duration | @ time }
 *     primary  = number | string | '(' expr ')' | name [ '{' matchers '}' ] | '{' matchers '}'
 *              | function '(' args ')' | aggregation [by|without (…)] '(' args ')' [by|without (…)]
 *
 * Keywords are names to the lexer. The parser takes a name for a keyword by its place: `sum` before '(' or by is
 * an aggregation, elsewhere a metric.
 *
 * Invariants: 1. depth counts every recursion and stays ≤ PROMQL_DEPTH_MAX, which bounds the parser's stack; so
 * does each node's height, which bounds that of all later walks: a chain a+b+c+… or a[…:][…:]… takes no recursion,
 * and its tree is as high as it is long. 2. Every node counts against PROMQL_NODE_COUNT_MAX. 3. Selectors are
 * linked in expr->matchers as soon as a matcher exists, so a failure frees all regular expressions. 4. value_type
 * of a node is set at creation, its height where it gets its children. */
#include "promql/parse.h"

#include "base/check.h"
#include "base/time.h"

#include <math.h>
#include <stdio.h>
#include <strings.h>

#define ARG_COUNT_MAX 1024

static err parse_expr(struct parser *p, int precedence_min, struct node **out);

err parser_take(struct parser *p)
{
    p->last_end = p->token.end;
    return lex_next(&p->lexer, &p->token, p->at);
}

bool parser_sees(const struct parser *p, const char *keyword)
{
    size_t len = strlen(keyword);
    return p->token.type == TOKEN_NAME && p->token.text.len == len &&
           strncasecmp((const char *)p->token.text.at, keyword, len) == 0;
}

err parser_unexpected(struct parser *p, const char *context, const char *expected)
{
    const struct token *t = &p->token;
    const char *comma = expected != NULL ? ", expected " : "";
    expected = expected != NULL ? expected : "";
    int len = text_shown(t->text);
    switch (t->type) {
    case TOKEN_END:
        return FAIL(p, t->begin, "unexpected end of input%s%s%s%s", *context ? " in " : "", context, comma,
                    expected);
    case TOKEN_NAME:
        return FAIL(p, t->begin, "unexpected identifier \"%.*s\" in %s%s%s", len, t->text.at,
                    *context ? context : "expression", comma, expected);
    case TOKEN_NUMBER:
        return FAIL(p, t->begin, "unexpected number \"%.*s\" in %s%s%s", len, t->text.at,
                    *context ? context : "expression", comma, expected);
    case TOKEN_STRING:
        return FAIL(p, t->begin, "unexpected string \"%.*s\" in %s%s%s", len, t->text.at,
                    *context ? context : "expression", comma, expected);
    default:
        return FAIL(p, t->begin, "unexpected \"%.*s\" in %s%s%s", len, t->text.at,
                    *context ? context : "expression", comma, expected);
    }
}

err parser_expect(struct parser *p, enum token_type type, const char *context, const char *expected)
{
    if (p->token.type != type)
        return parser_unexpected(p, context, expected);
    return parser_take(p);
}

static err check_depth(struct parser *p, unsigned depth)
{
    if (depth > PROMQL_DEPTH_MAX)
        return lex_error(p->lexer.source, p->token.begin, p->at, ERR_LIMIT,
                         "expression is nested deeper than %d levels", PROMQL_DEPTH_MAX);
    return OK;
}

err parser_deeper(struct parser *p) { return check_depth(p, ++p->depth); }

err parser_raise(struct parser *p, unsigned *height, unsigned child)
{
    if (*height <= child)
        *height = child + 1;
    return check_depth(p, *height);
}

err parser_count_node(struct parser *p)
{
    if (++p->node_count > PROMQL_NODE_COUNT_MAX)
        return lex_error(p->lexer.source, p->token.begin, p->at, ERR_LIMIT,
                         "expression has more than %d parts", PROMQL_NODE_COUNT_MAX);
    return OK;
}

err parser_node(struct parser *p, enum node_type type, enum promql_type value_type, uint32_t begin,
                struct node **out)
{
    TRY(parser_count_node(p));
    void *memory;
    TRY(pool_zalloc(p->pool, sizeof(struct node), &memory));
    *out = memory;
    (*out)->type = type;
    (*out)->value_type = value_type;
    (*out)->begin = begin;
    (*out)->height = 1;
    return OK;
}

/* ---- calls and aggregations ---- */

static err parse_args(struct parser *p, const char *context, struct node ***out_args, size_t *out_count)
{
    struct node **args = NULL;
    size_t count = 0, capacity = 0;
    TRY(parser_expect(p, TOKEN_LEFT_PAREN, context, "\"(\""));
    while (p->token.type != TOKEN_RIGHT_PAREN) {
        if (count == capacity) {
            if (count == ARG_COUNT_MAX)
                return lex_error(p->lexer.source, p->token.begin, p->at, ERR_LIMIT, "more than %d arguments",
                                 ARG_COUNT_MAX);
            void *memory;
            capacity = capacity == 0 ? 4 : capacity * 2;
            TRY(pool_alloc(p->pool, capacity * sizeof *args, &memory));
            if (count > 0)
                memcpy(memory, args, count * sizeof *args);
            args = memory;
        }
        TRY(parse_expr(p, PRECEDENCE_OR, &args[count]));
        count++;
        if (p->token.type != TOKEN_COMMA)
            break;
        uint32_t comma = p->token.begin;
        TRY(parser_take(p));
        if (p->token.type == TOKEN_RIGHT_PAREN)
            return FAIL(p, comma, "trailing commas not allowed in function call args");
    }
    TRY(parser_expect(p, TOKEN_RIGHT_PAREN, context, "\",\" or \")\""));
    *out_args = args;
    *out_count = count;
    return OK;
}

static bool aggregate_find(struct slice name, enum aggregate_type *out_type)
{
    for (int i = 0; i < AGGREGATE_COUNT_OF_TYPES; i++) {
        const char *text = aggregate_name((enum aggregate_type)i);
        if (name.len == strlen(text) && strncasecmp((const char *)name.at, text, name.len) == 0) {
            *out_type = (enum aggregate_type)i;
            return true;
        }
    }
    return false;
}

static err parse_grouping(struct parser *p, struct node *n)
{
    if (!parser_sees(p, "by") && !parser_sees(p, "without"))
        return OK;
    n->aggregate.without = parser_sees(p, "without");
    n->aggregate.grouped = true;
    TRY(parser_take(p));
    return parser_label_list(p, &n->aggregate.names, &n->aggregate.name_count);
}

/* The token is by, without or '('; `name` was the aggregation's name. */
static err parse_aggregate(struct parser *p, const struct token *name, enum aggregate_type type,
                           struct node **out)
{
    struct node *n, **args;
    size_t arg_count;
    TRY(parser_node(p, NODE_AGGREGATE, PROMQL_VECTOR, name->begin, &n));
    n->aggregate.type = type;
    TRY(parse_grouping(p, n));
    TRY(parse_args(p, "aggregation", &args, &arg_count));
    n->end = p->last_end;
    if (!n->aggregate.grouped)
        TRY(parse_grouping(p, n));
    n->end = p->last_end;
    size_t wanted = type == AGGREGATE_TOPK || type == AGGREGATE_BOTTOMK || type == AGGREGATE_QUANTILE ||
                            type == AGGREGATE_COUNT_VALUES
                        ? 2
                        : 1;
    if (arg_count == 0)
        return FAIL(p, n->begin, "no arguments for aggregate expression provided");
    if (arg_count != wanted)
        return FAIL(p, n->begin,
                    "wrong number of arguments for aggregate expression provided, expected %zu, got %zu",
                    wanted, arg_count);
    n->aggregate.inner = args[arg_count - 1];
    n->aggregate.param = wanted == 2 ? args[0] : NULL;
    for (size_t i = 0; i < arg_count; i++)
        TRY(parser_raise(p, &n->height, args[i]->height));
    *out = n;
    return OK;
}

static err parse_call(struct parser *p, const struct token *name, struct node **out)
{
    const struct function *f = function_find(name->text);
    int len = text_shown(name->text);
    if (f == NULL && function_is_experimental(name->text))
        return FAIL(p, name->begin, "function \"%.*s\" is not enabled", len, name->text.at);
    if (f == NULL)
        return FAIL(p, name->begin, "unknown function with name \"%.*s\"", len, name->text.at);
    struct node *n;
    TRY(parser_node(p, NODE_CALL, f->returns, name->begin, &n));
    n->call.function = f;
    TRY(parse_args(p, "function call", &n->call.args, &n->call.arg_count));
    for (size_t i = 0; i < n->call.arg_count; i++)
        TRY(parser_raise(p, &n->height, n->call.args[i]->height));
    n->end = p->last_end;
    *out = n;
    return OK;
}

/* Is the name a word that can never be a metric name without braces? */
static bool is_reserved(const struct parser *p)
{
    static const char *const words[] = { "bool", "on", "ignoring", "group_left", "group_right", "atan2" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (parser_sees(p, words[i]))
            return true;
    return false;
}

static err parse_name(struct parser *p, struct node **out)
{
    /* The lexer is one token ahead: look at the byte behind the name to tell calls from metrics. */
    struct parser saved = *p;
    struct token name = p->token;
    if (parser_sees(p, "inf") || parser_sees(p, "nan")) {
        TRY(parser_node(p, NODE_NUMBER, PROMQL_SCALAR, name.begin, out));
        (*out)->number = parser_sees(p, "inf") ? INFINITY : bits_double(UINT64_C(0x7ff8000000000001));
        TRY(parser_take(p));
        (*out)->end = p->last_end;
        return OK;
    }
    if (is_reserved(p))
        return parser_unexpected(p, "", NULL);
    TRY(parser_take(p));
    enum aggregate_type type;
    bool opens = p->token.type == TOKEN_LEFT_PAREN;
    if (aggregate_find(name.text, &type) && (opens || parser_sees(p, "by") || parser_sees(p, "without")))
        return parse_aggregate(p, &name, type, out);
    if (opens)
        return parse_call(p, &name, out);
    *p = saved;
    return parser_selector(p, out);
}

static err parse_primary(struct parser *p, struct node **out)
{
    uint32_t begin = p->token.begin;
    switch (p->token.type) {
    case TOKEN_NUMBER:
        TRY(parser_node(p, NODE_NUMBER, PROMQL_SCALAR, begin, out));
        (*out)->number = p->token.number;
        TRY(parser_take(p));
        break;
    case TOKEN_STRING:
        TRY(parser_node(p, NODE_STRING, PROMQL_STRING, begin, out));
        (*out)->string = p->token.text;
        TRY(parser_take(p));
        break;
    case TOKEN_LEFT_PAREN: {
        struct node *inner;
        TRY(parser_take(p));
        TRY(parse_expr(p, PRECEDENCE_OR, &inner));
        if (p->token.type == TOKEN_END)
            return FAIL(p, begin, "unclosed left parenthesis");
        TRY(parser_expect(p, TOKEN_RIGHT_PAREN, "", NULL));
        TRY(parser_node(p, NODE_PAREN, inner->value_type, begin, out));
        (*out)->inner = inner;
        TRY(parser_raise(p, &(*out)->height, inner->height));
        break;
    }
    case TOKEN_LEFT_BRACE:
        return parser_selector(p, out);
    case TOKEN_NAME:
        return parse_name(p, out);
    case TOKEN_END:
        if (begin == 0 || p->last_end == 0)
            return FAIL(p, 0, "no expression found in input");
        return parser_unexpected(p, "", NULL);
    default:
        return parser_unexpected(p, "", NULL);
    }
    (*out)->end = p->last_end;
    return OK;
}

/* ---- postfix ---- */

static err parse_brackets(struct parser *p, struct node *n, struct node **out)
{
    uint32_t begin = p->token.begin;
    struct duration *range, *step = NULL;
    TRY(parser_take(p));
    TRY(parser_duration(p, PRECEDENCE_ADD, &range));
    TRY(parser_check_duration(p, range, false));
    if (p->token.type == TOKEN_RIGHT_BRACKET) {
        TRY(parser_take(p));
        if (n->type != NODE_SELECTOR)
            return FAIL(p, begin, "ranges only allowed for vector selectors");
        if (n->selector.modifiers.offset != NULL)
            return FAIL(p, begin, "no offset modifiers allowed before range");
        if (n->selector.modifiers.at != AT_NONE)
            return FAIL(p, begin, "no @ modifiers allowed before range");
        if (n->selector.range != NULL)
            return FAIL(p, begin, "ranges only allowed for vector selectors");
        n->selector.range = range;
        n->value_type = PROMQL_MATRIX;
        n->end = p->last_end;
        *out = n;
        return OK;
    }
    TRY(parser_expect(p, TOKEN_COLON, "subquery or range", "\":\" or \"]\""));
    if (p->token.type != TOKEN_RIGHT_BRACKET) {
        TRY(parser_duration(p, PRECEDENCE_ADD, &step));
        TRY(parser_check_duration(p, step, false));
    }
    TRY(parser_expect(p, TOKEN_RIGHT_BRACKET, "subquery selector", "\"]\""));
    TRY(parser_node(p, NODE_SUBQUERY, PROMQL_MATRIX, n->begin, out));
    (*out)->subquery.inner = n;
    (*out)->subquery.range = range;
    (*out)->subquery.step = step;
    (*out)->end = p->last_end;
    return parser_raise(p, &(*out)->height, n->height);
}

static struct modifiers *node_modifiers(struct node *n)
{
    if (n->type == NODE_SELECTOR)
        return &n->selector.modifiers;
    return n->type == NODE_SUBQUERY ? &n->subquery.modifiers : NULL;
}

static err parse_offset(struct parser *p, struct node *n)
{
    uint32_t begin = p->token.begin;
    TRY(parser_take(p));
    struct duration *offset;
    TRY(parser_duration_operand(p, true, &offset));
    TRY(parser_check_duration(p, offset, true));
    struct modifiers *modifiers = node_modifiers(n);
    if (modifiers == NULL)
        return FAIL(p, n->begin,
                    "offset modifier must be preceded by an instant vector selector or range vector selector "
                    "or a subquery");
    if (modifiers->offset != NULL)
        return FAIL(p, begin, "offset may not be set multiple times");
    modifiers->offset = offset;
    n->end = p->last_end;
    return OK;
}

struct number_text {
    char text[400];
};

/* As Go's %f prints it. */
static struct number_text number_text(double v)
{
    struct number_text t;
    snprintf(t.text, sizeof t.text, "%f", v);
    return t;
}

static err parse_at(struct parser *p, struct node *n)
{
    uint32_t begin = p->token.begin;
    struct modifiers parsed = { .at = AT_TIME };
    TRY(parser_take(p));
    bool negative = p->token.type == TOKEN_SUBTRACT;
    if (parser_sees(p, "start") || parser_sees(p, "end")) {
        parsed.at = parser_sees(p, "start") ? AT_START : AT_END;
        TRY(parser_take(p));
        TRY(parser_expect(p, TOKEN_LEFT_PAREN, "@", "\"(\""));
        TRY(parser_expect(p, TOKEN_RIGHT_PAREN, "@", "\")\""));
    } else {
        if (negative || p->token.type == TOKEN_ADD)
            TRY(parser_take(p));
        double seconds;
        if (p->token.type == TOKEN_NUMBER)
            seconds = p->token.number;
        else if (parser_sees(p, "inf") || parser_sees(p, "nan"))
            seconds = parser_sees(p, "inf") ? INFINITY : NAN;
        else
            return parser_unexpected(p, "@", "timestamp");
        if (negative)
            seconds = -seconds;
        if (!(fabs(seconds) * 1000 < 9.2e18))
            return FAIL(p, n->begin, "timestamp out of bounds for @ modifier: %s",
                        isnan(seconds)   ? "NaN"
                        : isinf(seconds) ? (negative ? "-Inf" : "+Inf")
                                         : number_text(seconds).text);
        parsed.at_ms = (int64_t)round(seconds * 1000);
        if (parsed.at_ms > TIME_MS_MAX || parsed.at_ms < TIME_MS_MIN)
            parsed.at_ms = parsed.at_ms > 0 ? TIME_MS_MAX : TIME_MS_MIN; /* nothing is stored out there */
        TRY(parser_take(p));
    }
    struct modifiers *modifiers = node_modifiers(n);
    if (modifiers == NULL)
        return FAIL(p, n->begin,
                    "@ modifier must be preceded by an instant vector selector or range vector selector or a "
                    "subquery");
    if (modifiers->at != AT_NONE)
        return FAIL(p, begin, "@ <timestamp> may not be set multiple times");
    modifiers->at = parsed.at;
    modifiers->at_ms = parsed.at_ms;
    n->end = p->last_end;
    return OK;
}

static err parse_postfix(struct parser *p, struct node **out)
{
    struct node *n;
    TRY(parse_primary(p, &n));
    for (;;) {
        if (p->token.type == TOKEN_LEFT_BRACKET) {
            TRY(parse_brackets(p, n, &n));
        } else if (parser_sees(p, "offset")) {
            TRY(parse_offset(p, n));
        } else if (p->token.type == TOKEN_AT) {
            TRY(parse_at(p, n));
        } else {
            break;
        }
    }
    *out = n;
    return OK;
}

/* ---- operators ---- */

int parser_operator(const struct parser *p, enum operator_type *out_op)
{
    static const struct {
        enum token_type token;
        enum operator_type op;
        int precedence;
    } symbols[] = {
        { TOKEN_ADD, OPERATOR_ADD, PRECEDENCE_ADD },
        { TOKEN_SUBTRACT, OPERATOR_SUBTRACT, PRECEDENCE_ADD },
        { TOKEN_MULTIPLY, OPERATOR_MULTIPLY, PRECEDENCE_MULTIPLY },
        { TOKEN_DIVIDE, OPERATOR_DIVIDE, PRECEDENCE_MULTIPLY },
        { TOKEN_MODULO, OPERATOR_MODULO, PRECEDENCE_MULTIPLY },
        { TOKEN_POWER, OPERATOR_POWER, PRECEDENCE_POWER },
        { TOKEN_EQUAL, OPERATOR_EQUAL, PRECEDENCE_COMPARE },
        { TOKEN_NOT_EQUAL, OPERATOR_NOT_EQUAL, PRECEDENCE_COMPARE },
        { TOKEN_LESS, OPERATOR_LESS, PRECEDENCE_COMPARE },
        { TOKEN_LESS_EQUAL, OPERATOR_LESS_EQUAL, PRECEDENCE_COMPARE },
        { TOKEN_GREATER, OPERATOR_GREATER, PRECEDENCE_COMPARE },
        { TOKEN_GREATER_EQUAL, OPERATOR_GREATER_EQUAL, PRECEDENCE_COMPARE },
    };
    static const struct {
        const char *word;
        enum operator_type op;
        int precedence;
    } words[] = {
        { "and", OPERATOR_AND, PRECEDENCE_AND },
        { "unless", OPERATOR_UNLESS, PRECEDENCE_AND },
        { "or", OPERATOR_OR, PRECEDENCE_OR },
        { "atan2", OPERATOR_ATAN2, PRECEDENCE_MULTIPLY },
    };
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
        if (p->token.type == symbols[i].token) {
            *out_op = symbols[i].op;
            return symbols[i].precedence;
        }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (parser_sees(p, words[i].word)) {
            *out_op = words[i].op;
            return words[i].precedence;
        }
    *out_op = OPERATOR_ADD;
    return 0;
}

static err parse_binary_modifiers(struct parser *p, struct node *n)
{
    struct matching *m = &n->binary.matching;
    if (parser_sees(p, "bool")) {
        n->binary.return_bool = true;
        TRY(parser_take(p));
    }
    if (parser_sees(p, "on") || parser_sees(p, "ignoring")) {
        m->on = parser_sees(p, "on");
        m->written = true;
        TRY(parser_take(p));
        TRY(parser_label_list(p, &m->names, &m->name_count));
        if (parser_sees(p, "group_left") || parser_sees(p, "group_right")) {
            m->card = parser_sees(p, "group_left") ? MATCH_MANY_TO_ONE : MATCH_ONE_TO_MANY;
            TRY(parser_take(p));
            if (p->token.type == TOKEN_LEFT_PAREN)
                TRY(parser_label_list(p, &m->include, &m->include_count));
        }
    }
    if (operator_is_set(n->binary.op) && m->card == MATCH_ONE_TO_ONE)
        m->card = MATCH_MANY_TO_MANY;
    return OK;
}

static err parse_unary(struct parser *p, struct node **out)
{
    if (p->token.type != TOKEN_ADD && p->token.type != TOKEN_SUBTRACT)
        return parse_postfix(p, out);
    uint32_t begin = p->token.begin;
    bool negate = p->token.type == TOKEN_SUBTRACT;
    TRY(parser_take(p));
    struct node *inner;
    TRY(parse_expr(p, PRECEDENCE_POWER, &inner));
    TRY(parser_node(p, NODE_UNARY, inner->value_type, begin, out));
    (*out)->unary.negate = negate;
    (*out)->unary.inner = inner;
    (*out)->end = inner->end;
    return parser_raise(p, &(*out)->height, inner->height);
}

static err parse_expr(struct parser *p, int precedence_min, struct node **out)
{
    TRY(parser_deeper(p));
    struct node *left;
    TRY(parse_unary(p, &left));
    for (;;) {
        enum operator_type op;
        int precedence = parser_operator(p, &op);
        if (p->token.type == TOKEN_TRIM_UPPER || p->token.type == TOKEN_TRIM_LOWER)
            return FAIL(p, p->token.begin, "histogram trim operators are not supported");
        if (precedence == 0 || precedence < precedence_min)
            break;
        struct node *n;
        TRY(parser_node(p, NODE_BINARY, PROMQL_VECTOR, left->begin, &n));
        n->binary.op = op;
        n->binary.op_begin = p->token.begin;
        n->binary.left = left;
        TRY(parser_take(p));
        TRY(parse_binary_modifiers(p, n));
        TRY(parse_expr(p, op == OPERATOR_POWER ? precedence : precedence + 1, &n->binary.right));
        n->end = n->binary.right->end;
        TRY(parser_raise(p, &n->height, left->height)); /* a chain a+b+c+… leans left */
        TRY(parser_raise(p, &n->height, n->binary.right->height));
        if (left->value_type == PROMQL_SCALAR && n->binary.right->value_type == PROMQL_SCALAR)
            n->value_type = PROMQL_SCALAR;
        left = n;
    }
    p->depth--;
    *out = left;
    return OK;
}

/* ---- door ---- */

static err parse_begin(struct slice text, struct pool *pool, struct parser *p, struct err_at *at)
{
    if (text.len > PROMQL_TEXT_BYTES_MAX)
        return err_set_pos(at, 1, 1, ERR_LIMIT, "expression is longer than %u bytes", PROMQL_TEXT_BYTES_MAX);
    void *memory;
    *p = (struct parser){ .pool = pool, .at = at };
    TRY(pool_zalloc(pool, sizeof(struct promql_expr), &memory));
    p->expr = memory;
    TRY(pool_copy(pool, text, &p->expr->source));
    p->matchers_end = &p->expr->matchers;
    p->lexer = (struct lexer){ .source = p->expr->source, .pool = pool };
    return lex_next(&p->lexer, &p->token, at);
}

static err parse_whole(struct parser *p)
{
    TRY(parse_expr(p, PRECEDENCE_OR, &p->expr->root));
    if (p->token.type == TOKEN_RIGHT_PAREN)
        return FAIL(p, p->token.begin, "unexpected right parenthesis ')'");
    if (p->token.type != TOKEN_END)
        return parser_unexpected(p, "", NULL);
    return check_types(p->expr->source, p->expr->root, p->at);
}

static err parse_whole_selector(struct parser *p)
{
    const char *context = "series selector";
    if (p->token.type != TOKEN_NAME && p->token.type != TOKEN_LEFT_BRACE)
        return parser_unexpected(p, context, "metric name or \"{\"");
    TRY(parser_selector(p, &p->expr->root));
    return p->token.type != TOKEN_END ? parser_unexpected(p, context, NULL) : OK;
}

static err parse(struct slice text, struct pool *pool, err (*whole)(struct parser *p),
                 struct promql_expr **out_expr, struct err_at *at)
{
    struct parser p = { 0 };
    if (at != NULL)
        at->text[0] = 0;
    err e = parse_begin(text, pool, &p, at);
    if (e == OK)
        e = whole(&p);
    if (e == OK)
        *out_expr = p.expr;
    else if (p.expr != NULL)
        promql_expr_done(p.expr);
    if (e == ERR_LIMIT && at != NULL && at->text[0] == 0)
        return err_set(at, e, "expression takes more memory than a query may use"); /* nowhere in the text */
    return e;
}

err promql_parse(struct slice text, struct pool *pool, struct promql_expr **out_expr, struct err_at *at)
{
    return parse(text, pool, parse_whole, out_expr, at);
}

err promql_parse_selector(struct slice text, struct pool *pool, struct promql_expr **out_expr,
                          struct err_at *at)
{
    return parse(text, pool, parse_whole_selector, out_expr, at);
}

void promql_expr_done(struct promql_expr *expr)
{
    for (struct matcher_list *link = expr->matchers; link != NULL; link = link->next) {
        for (size_t i = 0; i < link->selector->selector.count; i++)
            matcher_done(&link->selector->selector.matchers[i]);
        link->selector->selector.count = 0;
    }
    expr->matchers = NULL;
}

enum promql_type promql_expr_type(const struct promql_expr *expr) { return expr->root->value_type; }

err promql_selectors(const struct promql_expr *expr, struct pool *pool,
                     struct promql_selector **out_selectors, size_t *out_count)
{
    size_t count = 0;
    for (const struct matcher_list *link = expr->matchers; link != NULL; link = link->next)
        count++;
    void *memory;
    TRY(pool_alloc(pool, (count + 1) * sizeof(struct promql_selector), &memory));
    struct promql_selector *selectors = memory;
    size_t i = 0;
    for (const struct matcher_list *link = expr->matchers; link != NULL; link = link->next)
        selectors[i++] =
            (struct promql_selector){ link->selector->selector.matchers, link->selector->selector.count };
    *out_selectors = selectors;
    *out_count = count;
    return OK;
}

err promql_parse_duration(struct slice text, int64_t *out_ms, struct err_at *at)
{
    int64_t ms = 0;
    if (!slice_equal_str(text, "0") && (text.len == 0 || lex_duration(text, &ms) != text.len))
        return err_set(at, ERR_INPUT, "not a valid duration string: \"%.*s\"", text_shown(text), text.at);
    *out_ms = ms;
    return OK;
}
