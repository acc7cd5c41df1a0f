/* Selectors: a metric name, matchers in braces, or both; and the label lists of by, on and their like.
 *
 * Invariant: a selector is linked in the expression before its first matcher exists, so that promql_expr_done
 * frees every regular expression, after a failure too. */
#include "promql/parse.h"

#include <stdlib.h>

#define MATCHER_COUNT_MAX    1024
#define LABEL_LIST_COUNT_MAX 1024

static int slice_order(const void *a, const void *b)
{
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

err parser_label_list(struct parser *p, struct slice **out_names, size_t *out_count)
{
    const char *context = "grouping opts";
    struct slice *names = NULL;
    size_t count = 0, capacity = 0;
    TRY(parser_expect(p, TOKEN_LEFT_PAREN, context, "\"(\""));
    while (p->token.type != TOKEN_RIGHT_PAREN) {
        if (p->token.type != TOKEN_NAME && p->token.type != TOKEN_STRING)
            return parser_unexpected(p, context, "label");
        if (p->token.type == TOKEN_NAME && (memchr(p->token.text.at, ':', p->token.text.len) != NULL ||
                                            parser_sees(p, "inf") || parser_sees(p, "nan")))
            return parser_unexpected(p, context, "label"); /* numbers, outside of braces */
        if (p->token.text.len == 0)
            return FAIL(p, p->token.begin, "invalid label name for %s: \"\"", context);
        if (count == capacity) {
            if (count == LABEL_LIST_COUNT_MAX)
                return lex_error(p->lexer.source, p->token.begin, p->at, ERR_LIMIT,
                                 "more than %d labels in a list", LABEL_LIST_COUNT_MAX);
            void *memory;
            capacity = capacity == 0 ? 8 : capacity * 2;
            TRY(pool_alloc(p->pool, capacity * sizeof *names, &memory));
            if (count > 0)
                memcpy(memory, names, count * sizeof *names);
            names = memory;
        }
        names[count++] = p->token.text;
        TRY(parser_take(p));
        if (p->token.type != TOKEN_COMMA)
            break;
        TRY(parser_take(p));
    }
    TRY(parser_expect(p, TOKEN_RIGHT_PAREN, context, "\",\" or \")\""));
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

static err selector_add(struct parser *p, struct node *n, size_t *capacity, enum match_type type,
                        struct slice name, struct slice value, uint32_t position)
{
    if (n->selector.count == *capacity) {
        if (n->selector.count == MATCHER_COUNT_MAX)
            return lex_error(p->lexer.source, position, p->at, ERR_LIMIT,
                             "more than %d matchers in a selector", MATCHER_COUNT_MAX);
        void *memory;
        *capacity = *capacity == 0 ? 4 : *capacity * 2;
        TRY(pool_alloc(p->pool, *capacity * sizeof *n->selector.matchers, &memory));
        if (n->selector.count > 0)
            memcpy(memory, n->selector.matchers, n->selector.count * sizeof *n->selector.matchers);
        n->selector.matchers = memory;
    }
    struct err_at at = { 0 };
    err e = matcher_init(p->pool, type, name, value, &n->selector.matchers[n->selector.count], &at);
    if (e != OK && at.text[0] != 0)
        return FAIL(p, position, "%s", at.text);
    if (e == OK)
        n->selector.count++;
    return e;
}

static err fail_name_twice(struct parser *p, const struct node *n, struct slice name)
{
    return FAIL(p, n->begin, "metric name must not be set twice: \"%.*s\" or \"%.*s\"",
                text_shown(n->selector.name), n->selector.name.at, text_shown(name), name.at);
}

static err parse_matchers(struct parser *p, struct node *n, size_t *capacity)
{
    const char *context = "label matching";
    static const struct slice name_label = { (const uint8_t *)"__name__", 8 };
    struct slice before = n->selector.name; /* the braces; within them any number of names may be asked for */
    TRY(parser_expect(p, TOKEN_LEFT_BRACE, context, "\"{\""));
    while (p->token.type != TOKEN_RIGHT_BRACE) {
        struct token label = p->token;
        if (label.type != TOKEN_NAME && label.type != TOKEN_STRING)
            return parser_unexpected(p, context, "identifier or \"}\"");
        TRY(parser_take(p));
        enum match_type type = MATCH_EQUAL;
        switch (p->token.type) {
        case TOKEN_ASSIGN:
            type = MATCH_EQUAL;
            break;
        case TOKEN_NOT_EQUAL:
            type = MATCH_NOT_EQUAL;
            break;
        case TOKEN_REGEX:
            type = MATCH_REGEX;
            break;
        case TOKEN_NOT_REGEX:
            type = MATCH_NOT_REGEX;
            break;
        case TOKEN_COMMA:
        case TOKEN_RIGHT_BRACE:
            if (label.type == TOKEN_STRING) {
                if (before.len > 0)
                    return fail_name_twice(p, n, label.text);
                if (label.text.len == 0)
                    return FAIL(p, label.begin, "metric name must not be empty");
                n->selector.name = label.text;
                TRY(selector_add(p, n, capacity, MATCH_EQUAL, name_label, label.text, label.begin));
                goto next;
            }
            return parser_unexpected(p, context, "label matching operator");
        default:
            return parser_unexpected(p, context, "label matching operator");
        }
        TRY(parser_take(p));
        if (p->token.type != TOKEN_STRING)
            return parser_unexpected(p, context, "string");
        if (before.len > 0 && slice_equal(label.text, name_label))
            return fail_name_twice(p, n, p->token.text);
        TRY(selector_add(p, n, capacity, type, label.text, p->token.text, label.begin));
        TRY(parser_take(p));
    next:
        if (p->token.type == TOKEN_COMMA) {
            TRY(parser_take(p));
            continue;
        }
        if (p->token.type != TOKEN_RIGHT_BRACE)
            return parser_unexpected(p, context, "\",\" or \"}\"");
    }
    return parser_take(p);
}

err parser_selector(struct parser *p, struct node **out)
{
    struct node *n;
    size_t capacity = 0;
    TRY(parser_node(p, NODE_SELECTOR, PROMQL_VECTOR, p->token.begin, &n));
    TRY(selector_link(p, n));
    if (p->token.type == TOKEN_NAME) {
        n->selector.name = p->token.text;
        TRY(selector_add(p, n, &capacity, MATCH_EQUAL, slice_str("__name__"), p->token.text, p->token.begin));
        TRY(parser_take(p));
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
