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
 * Invariants: 1. depth counts every recursion and stays ≤ PROMQL_DEPTH_MAX, and so bounds the stack of all later
 * walks. 2. Every node counts against PROMQL_NODE_COUNT_MAX. 3. Selectors are linked in expr->matchers as soon
 * as a matcher exists, so a failure frees all regular expressions. 4. value_type of a node is set at creation. */
#include "promql/ast.h"
#include "promql/lex.h"

#include "base/check.h"
#include "base/time.h"

#include <math.h>
#include <stdlib.h>
#include <strings.h>

#define MATCHER_COUNT_MAX 1024
#define LABEL_LIST_COUNT_MAX 1024
#define ARG_COUNT_MAX 1024

struct parser {
    struct lexer lexer;
    struct pool *pool;
    struct promql_expr *expr;
    struct token token;      /* the one not yet taken */
    struct matcher_list **matchers_end;
    unsigned depth;
    unsigned node_count;
    uint32_t last_end;       /* end of the token taken last */
    struct err_at *at;
};

enum { PRECEDENCE_OR = 1, PRECEDENCE_AND, PRECEDENCE_COMPARE, PRECEDENCE_ADD, PRECEDENCE_MULTIPLY, PRECEDENCE_POWER };

static err parse_expr(struct parser *p, int precedence_min, struct node **out);

static err take(struct parser *p)
{
    p->last_end = p->token.end;
    return lex_next(&p->lexer, &p->token, p->at);
}

static bool is_keyword(const struct parser *p, const char *keyword)
{
    size_t len = strlen(keyword);
    return p->token.type == TOKEN_NAME && p->token.text.len == len
           && strncasecmp((const char *)p->token.text.at, keyword, len) == 0;
}

#define FAIL(p, position, ...) lex_error((p)->lexer.source, position, (p)->at, ERR_INPUT, __VA_ARGS__)

static err fail_unexpected(struct parser *p, const char *context, const char *expected)
{
    const struct token *t = &p->token;
    const char *comma = expected != NULL ? ", expected " : "";
    expected = expected != NULL ? expected : "";
    int len = (int)(t->text.len < 80 ? t->text.len : 80);
    switch (t->type) {
    case TOKEN_END:
        return FAIL(p, t->begin, "unexpected end of input%s%s%s%s", *context ? " in " : "", context, comma, expected);
    case TOKEN_NAME:
        return FAIL(p, t->begin, "unexpected identifier \"%.*s\" in %s%s%s", len, t->text.at,
                    *context ? context : "expression", comma, expected);
    case TOKEN_NUMBER:
        return FAIL(p, t->begin, "unexpected number \"%.*s\" in %s%s%s", len, t->text.at, *context ? context : "expression",
                    comma, expected);
    case TOKEN_STRING:
        return FAIL(p, t->begin, "unexpected string \"%.*s\" in %s%s%s", len, t->text.at, *context ? context : "expression",
                    comma, expected);
    default:
        return FAIL(p, t->begin, "unexpected \"%.*s\" in %s%s%s", len, t->text.at, *context ? context : "expression", comma,
                    expected);
    }
}

static err expect(struct parser *p, enum token_type type, const char *context, const char *expected)
{
    if (p->token.type != type)
        return fail_unexpected(p, context, expected);
    return take(p);
}

static err depth_enter(struct parser *p)
{
    if (++p->depth > PROMQL_DEPTH_MAX)
        return lex_error(p->lexer.source, p->token.begin, p->at, ERR_LIMIT, "expression is nested deeper than %d levels",
                         PROMQL_DEPTH_MAX);
    return OK;
}

static err node_count_add(struct parser *p)
{
    if (++p->node_count > PROMQL_NODE_COUNT_MAX)
        return lex_error(p->lexer.source, p->token.begin, p->at, ERR_LIMIT, "expression has more than %d parts",
                         PROMQL_NODE_COUNT_MAX);
    return OK;
}

static err node_new(struct parser *p, enum node_type type, enum promql_type value_type, uint32_t begin,
                    struct node **out)
{
    TRY(node_count_add(p));
    void *memory;
    TRY(pool_zalloc(p->pool, sizeof(struct node), &memory));
    *out = memory;
    (*out)->type = type;
    (*out)->value_type = value_type;
    (*out)->begin = begin;
    return OK;
}

/* ---- durations ---- */

static err duration_new(struct parser *p, enum duration_type type, struct duration **out)
{
    TRY(node_count_add(p));
    void *memory;
    TRY(pool_zalloc(p->pool, sizeof(struct duration), &memory));
    *out = memory;
    (*out)->type = type;
    (*out)->begin = p->token.begin;
    return OK;
}

static err parse_duration(struct parser *p, int precedence_min, struct duration **out);

static err parse_duration_call(struct parser *p, struct duration **out)
{
    const char *context = "duration expression";
    bool two = false;
    if (is_keyword(p, "step")) {
        TRY(duration_new(p, DURATION_STEP, out));
    } else if (is_keyword(p, "range")) {
        TRY(duration_new(p, DURATION_RANGE, out));
    } else if (is_keyword(p, "min_of") || is_keyword(p, "max_of")) {
        TRY(duration_new(p, is_keyword(p, "min_of") ? DURATION_MIN : DURATION_MAX, out));
        two = true;
    } else {
        return fail_unexpected(p, context, "number, duration, step(), range(), min_of() or max_of()");
    }
    TRY(take(p));
    TRY(expect(p, TOKEN_LEFT_PAREN, context, "\"(\""));
    if (two) {
        TRY(parse_duration(p, PRECEDENCE_ADD, &(*out)->left));
        TRY(expect(p, TOKEN_COMMA, context, "\",\""));
        TRY(parse_duration(p, PRECEDENCE_ADD, &(*out)->right));
    }
    return expect(p, TOKEN_RIGHT_PAREN, context, "\")\"");
}

/* tight_sign: after `offset` a leading sign takes the next operand only. */
static err parse_duration_operand(struct parser *p, bool tight_sign, struct duration **out)
{
    TRY(depth_enter(p));
    if (p->token.type == TOKEN_ADD || p->token.type == TOKEN_SUBTRACT) {
        bool negate = p->token.type == TOKEN_SUBTRACT;
        struct duration *negated = NULL;
        if (negate)
            TRY(duration_new(p, DURATION_NEGATE, &negated));
        TRY(take(p));
        struct duration *inner;
        if (tight_sign)
            TRY(parse_duration_operand(p, true, &inner));
        else
            TRY(parse_duration(p, PRECEDENCE_POWER, &inner));
        if (negate)
            negated->right = inner;
        *out = negate ? negated : inner;
    } else if (p->token.type == TOKEN_NUMBER) {
        TRY(duration_new(p, DURATION_NUMBER, out));
        (*out)->seconds = p->token.number;
        TRY(take(p));
    } else if (p->token.type == TOKEN_LEFT_PAREN) {
        TRY(take(p));
        TRY(parse_duration(p, PRECEDENCE_ADD, out));
        TRY(expect(p, TOKEN_RIGHT_PAREN, "duration expression", "\")\""));
    } else {
        TRY(parse_duration_call(p, out));
    }
    p->depth--;
    return OK;
}

static int operator_precedence(const struct parser *p, enum operator_type *out_op);

static err parse_duration(struct parser *p, int precedence_min, struct duration **out)
{
    TRY(depth_enter(p));
    struct duration *left;
    TRY(parse_duration_operand(p, false, &left));
    for (;;) {
        enum operator_type op;
        int precedence = operator_precedence(p, &op);
        if (precedence < precedence_min || precedence < PRECEDENCE_ADD || op == OPERATOR_ATAN2)
            break;
        struct duration *binary;
        TRY(duration_new(p, DURATION_BINARY, &binary));
        TRY(take(p));
        binary->op = op;
        binary->left = left;
        binary->begin = left->begin;
        TRY(parse_duration(p, op == OPERATOR_POWER ? precedence : precedence + 1, &binary->right));
        left = binary;
    }
    p->depth--;
    *out = left;
    return OK;
}

static bool duration_is_constant(const struct duration *d)
{
    return d->type != DURATION_STEP && d->type != DURATION_RANGE && (d->left == NULL || duration_is_constant(d->left))
           && (d->right == NULL || duration_is_constant(d->right));
}

/* Refuse at once what no request can make right. */
static err check_duration(struct parser *p, const struct duration *d, bool allow_negative)
{
    int64_t ms;
    struct err_at at;
    if (!duration_is_constant(d) || duration_value(d, 0, 0, allow_negative, &ms, &at) == OK)
        return OK;
    return FAIL(p, d->begin, "%s", at.text);
}

/* ---- labels ---- */

static int slice_order(const void *a, const void *b)
{
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

/* '(' [ name { ',' name } [ ',' ] ] ')' , sorted and unique. */
static err parse_label_list(struct parser *p, struct slice **out_names, size_t *out_count)
{
    const char *context = "grouping opts";
    struct slice *names = NULL;
    size_t count = 0, capacity = 0;
    TRY(expect(p, TOKEN_LEFT_PAREN, context, "\"(\""));
    while (p->token.type != TOKEN_RIGHT_PAREN) {
        if (p->token.type != TOKEN_NAME && p->token.type != TOKEN_STRING)
            return fail_unexpected(p, context, "label");
        if (p->token.type == TOKEN_NAME && memchr(p->token.text.at, ':', p->token.text.len) != NULL)
            return fail_unexpected(p, context, "label");
        if (p->token.text.len == 0)
            return FAIL(p, p->token.begin, "invalid label name for %s: \"\"", context);
        if (count == capacity) {
            if (count == LABEL_LIST_COUNT_MAX)
                return lex_error(p->lexer.source, p->token.begin, p->at, ERR_LIMIT, "more than %d labels in a list",
                                 LABEL_LIST_COUNT_MAX);
            void *memory;
            capacity = capacity == 0 ? 8 : capacity * 2;
            TRY(pool_alloc(p->pool, capacity * sizeof *names, &memory));
            if (count > 0)
                memcpy(memory, names, count * sizeof *names);
            names = memory;
        }
        names[count++] = p->token.text;
        TRY(take(p));
        if (p->token.type != TOKEN_COMMA)
            break;
        TRY(take(p));
    }
    TRY(expect(p, TOKEN_RIGHT_PAREN, context, "\",\" or \")\""));
    if (count > 1)
        qsort(names, count, sizeof *names, slice_order);
    size_t unique = 0;
    for (size_t i = 0; i < count; i++)
        if (unique == 0 || !slice_equal(names[unique - 1], names[i]))
            names[unique++] = names[i];
    *out_names = names;
    *out_count = unique;
    return OK;
}

/* ---- selectors ---- */

static err selector_link(struct parser *p, struct node *selector)
{
    void *memory;
    TRY(pool_zalloc(p->pool, sizeof(struct matcher_list), &memory));
    struct matcher_list *link = memory;
    link->selector = selector;
    *p->matchers_end = link;
    p->matchers_end = &link->next;
    return OK;
}

static err selector_add(struct parser *p, struct node *n, size_t *capacity, enum match_type type, struct slice name,
                        struct slice value, uint32_t position)
{
    if (n->selector.count == *capacity) {
        if (n->selector.count == MATCHER_COUNT_MAX)
            return lex_error(p->lexer.source, position, p->at, ERR_LIMIT, "more than %d matchers in a selector",
                             MATCHER_COUNT_MAX);
        void *memory;
        *capacity = *capacity == 0 ? 4 : *capacity * 2;
        TRY(pool_alloc(p->pool, *capacity * sizeof *n->selector.matchers, &memory));
        if (n->selector.count > 0)
            memcpy(memory, n->selector.matchers, n->selector.count * sizeof *n->selector.matchers);
        n->selector.matchers = memory;
    }
    struct err_at at = { 0 };
    err e = matcher_init(p->pool, type, name, value, &n->selector.matchers[n->selector.count], &at);
    if (e == ERR_INPUT)
        return FAIL(p, position, "%s", at.text);
    if (e == OK)
        n->selector.count++;
    return e;
}

static err parse_matchers(struct parser *p, struct node *n, size_t *capacity)
{
    const char *context = "label matching";
    static const struct slice name_label = { (const uint8_t *)"__name__", 8 };
    TRY(expect(p, TOKEN_LEFT_BRACE, context, "\"{\""));
    while (p->token.type != TOKEN_RIGHT_BRACE) {
        struct token label = p->token;
        if (label.type != TOKEN_NAME && label.type != TOKEN_STRING)
            return fail_unexpected(p, context, "identifier or \"}\"");
        TRY(take(p));
        enum match_type type = MATCH_EQUAL;
        switch (p->token.type) {
        case TOKEN_ASSIGN: type = MATCH_EQUAL; break;
        case TOKEN_NOT_EQUAL: type = MATCH_NOT_EQUAL; break;
        case TOKEN_REGEX: type = MATCH_REGEX; break;
        case TOKEN_NOT_REGEX: type = MATCH_NOT_REGEX; break;
        case TOKEN_COMMA:
        case TOKEN_RIGHT_BRACE:
            if (label.type == TOKEN_STRING) {
                if (n->selector.name.len > 0)
                    return FAIL(p, label.begin, "metric name must not be set twice: \"%.*s\" or \"%.*s\"",
                                (int)(n->selector.name.len & 0x7f), n->selector.name.at,
                                (int)(label.text.len & 0x7f), label.text.at);
                if (label.text.len == 0)
                    return FAIL(p, label.begin, "metric name must not be empty");
                n->selector.name = label.text;
                TRY(selector_add(p, n, capacity, MATCH_EQUAL, name_label, label.text, label.begin));
                goto next;
            }
            return fail_unexpected(p, context, "label matching operator");
        default:
            return fail_unexpected(p, context, "label matching operator");
        }
        TRY(take(p));
        if (p->token.type != TOKEN_STRING)
            return fail_unexpected(p, context, "string");
        if (n->selector.name.len > 0 && slice_equal(label.text, name_label))
            return FAIL(p, label.begin, "metric name must not be set twice: \"%.*s\" or \"%.*s\"",
                        (int)(n->selector.name.len & 0x7f), n->selector.name.at,
                        (int)(p->token.text.len & 0x7f), p->token.text.at);
        TRY(selector_add(p, n, capacity, type, label.text, p->token.text, label.begin));
        TRY(take(p));
    next:
        if (p->token.type == TOKEN_COMMA) {
            TRY(take(p));
            continue;
        }
        if (p->token.type != TOKEN_RIGHT_BRACE)
            return fail_unexpected(p, context, "\",\" or \"}\"");
    }
    return take(p);
}

static err parse_selector(struct parser *p, struct node **out)
{
    struct node *n;
    size_t capacity = 0;
    TRY(node_new(p, NODE_SELECTOR, PROMQL_VECTOR, p->token.begin, &n));
    TRY(selector_link(p, n));
    if (p->token.type == TOKEN_NAME) {
        n->selector.name = p->token.text;
        TRY(selector_add(p, n, &capacity, MATCH_EQUAL, slice_str("__name__"), p->token.text, p->token.begin));
        TRY(take(p));
    }
    n->end = p->last_end;
    if (p->token.type == TOKEN_LEFT_BRACE)
        TRY(parse_matchers(p, n, &capacity));
    n->end = p->last_end;
    bool any = false;
    for (size_t i = 0; i < n->selector.count && !any; i++)
        any = !matcher_matches_empty(&n->selector.matchers[i]);
    if (!any)
        return FAIL(p, n->begin, "vector selector must contain at least one non-empty matcher");
    *out = n;
    return OK;
}

/* ---- calls and aggregations ---- */

static err parse_args(struct parser *p, const char *context, struct node ***out_args, size_t *out_count)
{
    struct node **args = NULL;
    size_t count = 0, capacity = 0;
    TRY(expect(p, TOKEN_LEFT_PAREN, context, "\"(\""));
    while (p->token.type != TOKEN_RIGHT_PAREN) {
        if (count == capacity) {
            if (count == ARG_COUNT_MAX)
                return lex_error(p->lexer.source, p->token.begin, p->at, ERR_LIMIT, "more than %d arguments", ARG_COUNT_MAX);
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
        TRY(take(p));
        if (p->token.type == TOKEN_RIGHT_PAREN)
            return FAIL(p, p->token.begin, "trailing commas not allowed in function call args");
    }
    TRY(expect(p, TOKEN_RIGHT_PAREN, context, "\",\" or \")\""));
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
    if (!is_keyword(p, "by") && !is_keyword(p, "without"))
        return OK;
    n->aggregate.without = is_keyword(p, "without");
    n->aggregate.grouped = true;
    TRY(take(p));
    return parse_label_list(p, &n->aggregate.names, &n->aggregate.name_count);
}

/* The token is by, without or '('; `name` was the aggregation's name. */
static err parse_aggregate(struct parser *p, const struct token *name, enum aggregate_type type, struct node **out)
{
    struct node *n, **args;
    size_t arg_count;
    TRY(node_new(p, NODE_AGGREGATE, PROMQL_VECTOR, name->begin, &n));
    n->aggregate.type = type;
    TRY(parse_grouping(p, n));
    TRY(parse_args(p, "aggregation", &args, &arg_count));
    n->end = p->last_end;
    if (!n->aggregate.grouped)
        TRY(parse_grouping(p, n));
    n->end = p->last_end;
    size_t wanted = type == AGGREGATE_TOPK || type == AGGREGATE_BOTTOMK || type == AGGREGATE_QUANTILE
                            || type == AGGREGATE_COUNT_VALUES ? 2 : 1;
    if (arg_count == 0)
        return FAIL(p, n->begin, "no arguments for aggregate expression provided");
    if (arg_count != wanted)
        return FAIL(p, n->begin, "wrong number of arguments for aggregate expression provided, expected %zu, got %zu",
                    wanted, arg_count);
    n->aggregate.inner = args[arg_count - 1];
    n->aggregate.param = wanted == 2 ? args[0] : NULL;
    *out = n;
    return OK;
}

static err parse_call(struct parser *p, const struct token *name, struct node **out)
{
    const struct function *f = function_find(name->text);
    int len = (int)(name->text.len < 100 ? name->text.len : 100);
    if (f == NULL && function_is_experimental(name->text))
        return FAIL(p, name->begin, "function \"%.*s\" is not enabled", len, name->text.at);
    if (f == NULL)
        return FAIL(p, name->begin, "unknown function with name \"%.*s\"", len, name->text.at);
    struct node *n;
    TRY(node_new(p, NODE_CALL, f->returns, name->begin, &n));
    n->call.function = f;
    TRY(parse_args(p, "function call", &n->call.args, &n->call.arg_count));
    n->end = p->last_end;
    *out = n;
    return OK;
}

/* Is the name a word that can never be a metric name without braces? */
static bool is_reserved(const struct parser *p)
{
    static const char *const words[] = { "bool", "on", "ignoring", "group_left", "group_right", "atan2" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (is_keyword(p, words[i]))
            return true;
    return false;
}

static err parse_name(struct parser *p, struct node **out)
{
    /* The lexer is one token ahead: look at the byte behind the name to tell calls from metrics. */
    struct parser saved = *p;
    struct token name = p->token;
    if (is_keyword(p, "inf") || is_keyword(p, "nan")) {
        TRY(node_new(p, NODE_NUMBER, PROMQL_SCALAR, name.begin, out));
        (*out)->number = is_keyword(p, "inf") ? INFINITY : bits_double(UINT64_C(0x7ff8000000000001));
        TRY(take(p));
        (*out)->end = p->last_end;
        return OK;
    }
    if (is_reserved(p))
        return fail_unexpected(p, "", NULL);
    TRY(take(p));
    enum aggregate_type type;
    bool opens = p->token.type == TOKEN_LEFT_PAREN;
    if (aggregate_find(name.text, &type) && (opens || is_keyword(p, "by") || is_keyword(p, "without")))
        return parse_aggregate(p, &name, type, out);
    if (opens)
        return parse_call(p, &name, out);
    *p = saved;
    return parse_selector(p, out);
}

static err parse_primary(struct parser *p, struct node **out)
{
    uint32_t begin = p->token.begin;
    switch (p->token.type) {
    case TOKEN_NUMBER:
        TRY(node_new(p, NODE_NUMBER, PROMQL_SCALAR, begin, out));
        (*out)->number = p->token.number;
        TRY(take(p));
        break;
    case TOKEN_STRING:
        TRY(node_new(p, NODE_STRING, PROMQL_STRING, begin, out));
        (*out)->string = p->token.text;
        TRY(take(p));
        break;
    case TOKEN_LEFT_PAREN: {
        struct node *inner;
        TRY(take(p));
        TRY(parse_expr(p, PRECEDENCE_OR, &inner));
        if (p->token.type == TOKEN_END)
            return FAIL(p, begin, "unclosed left parenthesis");
        TRY(expect(p, TOKEN_RIGHT_PAREN, "", NULL));
        TRY(node_new(p, NODE_PAREN, inner->value_type, begin, out));
        (*out)->inner = inner;
        break;
    }
    case TOKEN_LEFT_BRACE:
        return parse_selector(p, out);
    case TOKEN_NAME:
        return parse_name(p, out);
    case TOKEN_END:
        if (begin == 0 || p->last_end == 0)
            return FAIL(p, begin, "no expression found in input");
        return fail_unexpected(p, "", NULL);
    default:
        return fail_unexpected(p, "", NULL);
    }
    (*out)->end = p->last_end;
    return OK;
}

/* ---- postfix ---- */

static err parse_brackets(struct parser *p, struct node *n, struct node **out)
{
    uint32_t begin = p->token.begin;
    struct duration *range, *step = NULL;
    TRY(take(p));
    TRY(parse_duration(p, PRECEDENCE_ADD, &range));
    TRY(check_duration(p, range, false));
    if (p->token.type == TOKEN_RIGHT_BRACKET) {
        TRY(take(p));
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
    TRY(expect(p, TOKEN_COLON, "subquery or range", "\":\" or \"]\""));
    if (p->token.type != TOKEN_RIGHT_BRACKET) {
        TRY(parse_duration(p, PRECEDENCE_ADD, &step));
        TRY(check_duration(p, step, false));
    }
    TRY(expect(p, TOKEN_RIGHT_BRACKET, "subquery selector", "\"]\""));
    TRY(node_new(p, NODE_SUBQUERY, PROMQL_MATRIX, n->begin, out));
    (*out)->subquery.inner = n;
    (*out)->subquery.range = range;
    (*out)->subquery.step = step;
    (*out)->end = p->last_end;
    return OK;
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
    TRY(take(p));
    struct duration *offset;
    TRY(parse_duration_operand(p, true, &offset));
    TRY(check_duration(p, offset, true));
    struct modifiers *modifiers = node_modifiers(n);
    if (modifiers == NULL)
        return FAIL(p, n->begin,
                    "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery");
    if (modifiers->offset != NULL)
        return FAIL(p, begin, "offset may not be set multiple times");
    modifiers->offset = offset;
    n->end = p->last_end;
    return OK;
}

static err parse_at(struct parser *p, struct node *n)
{
    uint32_t begin = p->token.begin;
    struct modifiers parsed = { .at = AT_TIME };
    TRY(take(p));
    bool negative = p->token.type == TOKEN_SUBTRACT;
    if (is_keyword(p, "start") || is_keyword(p, "end")) {
        parsed.at = is_keyword(p, "start") ? AT_START : AT_END;
        TRY(take(p));
        TRY(expect(p, TOKEN_LEFT_PAREN, "@", "\"(\""));
        TRY(expect(p, TOKEN_RIGHT_PAREN, "@", "\")\""));
    } else {
        if (negative || p->token.type == TOKEN_ADD)
            TRY(take(p));
        double seconds;
        if (p->token.type == TOKEN_NUMBER)
            seconds = p->token.number;
        else if (is_keyword(p, "inf") || is_keyword(p, "nan"))
            seconds = INFINITY;
        else
            return fail_unexpected(p, "@", "timestamp");
        if (!(seconds * 1000 < 9.2e18))
            return FAIL(p, p->token.begin, "timestamp out of bounds for @ modifier: %f", negative ? -seconds : seconds);
        parsed.at_ms = (int64_t)round((negative ? -seconds : seconds) * 1000);
        if (parsed.at_ms > TIME_MS_MAX || parsed.at_ms < TIME_MS_MIN)
            parsed.at_ms = parsed.at_ms > 0 ? TIME_MS_MAX : TIME_MS_MIN;   /* nothing is stored out there */
        TRY(take(p));
    }
    struct modifiers *modifiers = node_modifiers(n);
    if (modifiers == NULL)
        return FAIL(p, n->begin,
                    "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery");
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
    unsigned depth = p->depth;
    TRY(parse_primary(p, &n));
    for (;;) {
        if (p->token.type == TOKEN_LEFT_BRACKET) {
            TRY(depth_enter(p));   /* foo[5m:][5m:]… nests too */
            TRY(parse_brackets(p, n, &n));
        } else if (is_keyword(p, "offset")) {
            TRY(parse_offset(p, n));
        } else if (p->token.type == TOKEN_AT) {
            TRY(parse_at(p, n));
        } else {
            break;
        }
    }
    p->depth = depth;
    *out = n;
    return OK;
}

/* ---- operators ---- */

static int operator_precedence(const struct parser *p, enum operator_type *out_op)
{
    static const struct {
        enum token_type token;
        enum operator_type op;
        int precedence;
    } symbols[] = {
        { TOKEN_ADD, OPERATOR_ADD, PRECEDENCE_ADD }, { TOKEN_SUBTRACT, OPERATOR_SUBTRACT, PRECEDENCE_ADD },
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
        { "and", OPERATOR_AND, PRECEDENCE_AND }, { "unless", OPERATOR_UNLESS, PRECEDENCE_AND },
        { "or", OPERATOR_OR, PRECEDENCE_OR }, { "atan2", OPERATOR_ATAN2, PRECEDENCE_MULTIPLY },
    };
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
        if (p->token.type == symbols[i].token) {
            *out_op = symbols[i].op;
            return symbols[i].precedence;
        }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (is_keyword(p, words[i].word)) {
            *out_op = words[i].op;
            return words[i].precedence;
        }
    *out_op = OPERATOR_ADD;
    return 0;
}

static err parse_binary_modifiers(struct parser *p, struct node *n)
{
    struct matching *m = &n->binary.matching;
    if (is_keyword(p, "bool")) {
        n->binary.return_bool = true;
        TRY(take(p));
    }
    if (is_keyword(p, "on") || is_keyword(p, "ignoring")) {
        m->on = is_keyword(p, "on");
        m->written = true;
        TRY(take(p));
        TRY(parse_label_list(p, &m->names, &m->name_count));
        if (is_keyword(p, "group_left") || is_keyword(p, "group_right")) {
            m->card = is_keyword(p, "group_left") ? MATCH_MANY_TO_ONE : MATCH_ONE_TO_MANY;
            TRY(take(p));
            if (p->token.type == TOKEN_LEFT_PAREN)
                TRY(parse_label_list(p, &m->include, &m->include_count));
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
    TRY(take(p));
    struct node *inner;
    TRY(parse_expr(p, PRECEDENCE_POWER, &inner));
    TRY(node_new(p, NODE_UNARY, inner->value_type, begin, out));
    (*out)->unary.negate = negate;
    (*out)->unary.inner = inner;
    (*out)->end = inner->end;
    return OK;
}

static err parse_expr(struct parser *p, int precedence_min, struct node **out)
{
    unsigned depth = p->depth;
    TRY(depth_enter(p));
    struct node *left;
    TRY(parse_unary(p, &left));
    for (;;) {
        enum operator_type op;
        int precedence = operator_precedence(p, &op);
        if (p->token.type == TOKEN_TRIM_UPPER || p->token.type == TOKEN_TRIM_LOWER)
            return FAIL(p, p->token.begin, "histogram trim operators are not supported");
        if (precedence == 0 || precedence < precedence_min)
            break;
        TRY(depth_enter(p));   /* a chain a+b+c+… leans left: its walk is as deep as it is long */
        struct node *n;
        TRY(node_new(p, NODE_BINARY, PROMQL_VECTOR, left->begin, &n));
        n->binary.op = op;
        n->binary.left = left;
        TRY(take(p));
        TRY(parse_binary_modifiers(p, n));
        TRY(parse_expr(p, op == OPERATOR_POWER ? precedence : precedence + 1, &n->binary.right));
        n->end = n->binary.right->end;
        if (left->value_type == PROMQL_SCALAR && n->binary.right->value_type == PROMQL_SCALAR)
            n->value_type = PROMQL_SCALAR;
        left = n;
    }
    p->depth = depth;
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

err promql_parse(struct slice text, struct pool *pool, struct promql_expr **out_expr, struct err_at *at)
{
    struct parser p;
    TRY(parse_begin(text, pool, &p, at));
    err e = OK;
    TRY_OUT(parse_expr(&p, PRECEDENCE_OR, &p.expr->root));
    if (p.token.type != TOKEN_END)
        TRY_OUT(p.token.type == TOKEN_RIGHT_PAREN
                    ? FAIL(&p, p.token.begin, "unexpected right parenthesis ')'") : fail_unexpected(&p, "", NULL));
    TRY_OUT(check_types(p.expr->source, p.expr->root, at));
    *out_expr = p.expr;
out:
    if (e != OK)
        promql_expr_done(p.expr);
    return e;
}

err promql_parse_selector(struct slice text, struct pool *pool, struct promql_expr **out_expr, struct err_at *at)
{
    struct parser p;
    TRY(parse_begin(text, pool, &p, at));
    err e = OK;
    if (p.token.type != TOKEN_NAME && p.token.type != TOKEN_LEFT_BRACE)
        TRY_OUT(fail_unexpected(&p, "series selector", "metric name or \"{\""));
    TRY_OUT(parse_selector(&p, &p.expr->root));
    if (p.token.type != TOKEN_END)
        TRY_OUT(fail_unexpected(&p, "series selector", NULL));
    *out_expr = p.expr;
out:
    if (e != OK)
        promql_expr_done(p.expr);
    return e;
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

enum promql_type promql_expr_type(const struct promql_expr *expr)
{
    return expr->root->value_type;
}

err promql_selectors(const struct promql_expr *expr, struct pool *pool, struct promql_selector **out_selectors,
                     size_t *out_count)
{
    size_t count = 0;
    for (const struct matcher_list *link = expr->matchers; link != NULL; link = link->next)
        count++;
    void *memory;
    TRY(pool_alloc(pool, (count + 1) * sizeof(struct promql_selector), &memory));
    struct promql_selector *selectors = memory;
    size_t i = 0;
    for (const struct matcher_list *link = expr->matchers; link != NULL; link = link->next)
        selectors[i++] = (struct promql_selector){ link->selector->selector.matchers, link->selector->selector.count };
    *out_selectors = selectors;
    *out_count = count;
    return OK;
}

err promql_parse_duration(struct slice text, int64_t *out_ms, struct err_at *at)
{
    int64_t ms = 0;
    if (!slice_equal_str(text, "0") && (text.len == 0 || lex_duration(text, &ms) != text.len))
        return err_set(at, ERR_INPUT, "not a valid duration string: \"%.*s\"", (int)(text.len & 0x3f), text.at);
    *out_ms = ms;
    return OK;
}
