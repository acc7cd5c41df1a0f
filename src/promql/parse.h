/* What the parts of the parser share. Internal to the room:
 *     parse.c           expressions, calls, operators, the door
 *     parse_selector.c  selectors, label lists
 *     parse_duration.c  duration expressions */
#ifndef PROMQL_PARSE_H
#define PROMQL_PARSE_H

#include "promql/ast.h"
#include "promql/lex.h"

struct parser {
    struct lexer lexer;
    struct pool *pool;
    struct promql_expr *expr;
    struct token token; /* the one not yet taken */
    struct matcher_list **matchers_end;
    unsigned depth; /* of the parser's recursion */
    unsigned node_count;
    uint32_t last_end; /* end of the token taken last */
    struct err_at *at;
};

enum precedence {
    PRECEDENCE_OR = 1,
    PRECEDENCE_AND,
    PRECEDENCE_COMPARE,
    PRECEDENCE_ADD,
    PRECEDENCE_MULTIPLY,
    PRECEDENCE_POWER
};

/* ERR_INPUT at a byte offset, with a text. */
#define FAIL(p, position, ...) lex_error((p)->lexer.source, position, (p)->at, ERR_INPUT, __VA_ARGS__)

/* ---- parse.c ---- */
err parser_take(struct parser *p);                             /* on to the next token */
bool parser_sees(const struct parser *p, const char *keyword); /* is the token this word, in any case? */
err parser_expect(struct parser *p, enum token_type type, const char *context, const char *expected);
err parser_unexpected(struct parser *p, const char *context, const char *expected); /* ERR_INPUT */
err parser_deeper(struct parser *p); /* one level of recursion more; the caller takes it back. ERR_LIMIT */
/* A node of *height gets a child of that height: raise *height above it. ERR_LIMIT */
err parser_raise(struct parser *p, unsigned *height, unsigned child);
err parser_count_node(struct parser *p); /* ERR_LIMIT */
err parser_node(struct parser *p, enum node_type type, enum promql_type value_type, uint32_t begin,
                struct node **out);
/* The token's precedence as a binary operator; 0: it is none. */
int parser_operator(const struct parser *p, enum operator_type *out_op);

/* ---- parse_selector.c ---- */
err parser_selector(struct parser *p, struct node **out);
/* '(' [ name { ',' name } [ ',' ] ] ')' , sorted and unique. */
err parser_label_list(struct parser *p, struct slice **out_names, size_t *out_count);

/* ---- parse_duration.c ---- */
err parser_duration(struct parser *p, int precedence_min, struct duration **out);
/* tight_sign: after `offset` a leading sign takes the next operand only. */
err parser_duration_operand(struct parser *p, bool tight_sign, struct duration **out);
/* Refuse at once what no request can make right. */
err parser_check_duration(struct parser *p, const struct duration *d, bool allow_negative);

#endif
