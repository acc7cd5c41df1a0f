/* Durations in brackets and after offset: arithmetic over numbers, step(), range(), min_of() and max_of(), kept
 * as a tree because step and range come with the request (duration_value in function.c). What is constant is
 * checked at once, so that `foo[0s]` is a mistake of the text, not of the evaluation. */
#include "promql/parse.h"

static err duration_new(struct parser *p, enum duration_type type, struct duration **out)
{
    TRY(parser_count_node(p));
    void *memory;
    TRY(pool_zalloc(p->pool, sizeof(struct duration), &memory));
    *out = memory;
    (*out)->type = type;
    (*out)->begin = p->token.begin;
    (*out)->height = 1;
    return OK;
}

/* Give d its children; left may be NULL. ERR_LIMIT */
static err duration_join(struct parser *p, struct duration *d, struct duration *left, struct duration *right)
{
    d->left = left;
    d->right = right;
    if (left != NULL)
        TRY(parser_raise(p, &d->height, left->height));
    return parser_raise(p, &d->height, right->height);
}

static err parse_duration_call(struct parser *p, struct duration **out)
{
    const char *context = "duration expression";
    bool two = false;
    if (parser_sees(p, "step")) {
        TRY(duration_new(p, DURATION_STEP, out));
    } else if (parser_sees(p, "range")) {
        TRY(duration_new(p, DURATION_RANGE, out));
    } else if (parser_sees(p, "min_of") || parser_sees(p, "max_of")) {
        TRY(duration_new(p, parser_sees(p, "min_of") ? DURATION_MIN : DURATION_MAX, out));
        two = true;
    } else {
        return parser_unexpected(p, context, "number, duration, step(), range(), min_of() or max_of()");
    }
    TRY(parser_take(p));
    TRY(parser_expect(p, TOKEN_LEFT_PAREN, context, "\"(\""));
    if (two) {
        struct duration *left, *right;
        TRY(parser_duration(p, PRECEDENCE_ADD, &left));
        TRY(parser_expect(p, TOKEN_COMMA, context, "\",\""));
        TRY(parser_duration(p, PRECEDENCE_ADD, &right));
        TRY(duration_join(p, *out, left, right));
    }
    return parser_expect(p, TOKEN_RIGHT_PAREN, context, "\")\"");
}

err parser_duration_operand(struct parser *p, bool tight_sign, struct duration **out)
{
    TRY(parser_deeper(p));
    if (p->token.type == TOKEN_ADD || p->token.type == TOKEN_SUBTRACT) {
        bool negate = p->token.type == TOKEN_SUBTRACT;
        struct duration *negated = NULL;
        if (negate)
            TRY(duration_new(p, DURATION_NEGATE, &negated));
        TRY(parser_take(p));
        struct duration *inner;
        if (tight_sign)
            TRY(parser_duration_operand(p, true, &inner));
        else
            TRY(parser_duration(p, PRECEDENCE_POWER, &inner));
        if (negate)
            TRY(duration_join(p, negated, NULL, inner));
        *out = negate ? negated : inner;
    } else if (p->token.type == TOKEN_NUMBER) {
        TRY(duration_new(p, DURATION_NUMBER, out));
        (*out)->seconds = p->token.number;
        TRY(parser_take(p));
    } else if (p->token.type == TOKEN_LEFT_PAREN) {
        TRY(parser_take(p));
        TRY(parser_duration(p, PRECEDENCE_ADD, out));
        TRY(parser_expect(p, TOKEN_RIGHT_PAREN, "duration expression", "\")\""));
    } else {
        TRY(parse_duration_call(p, out));
    }
    p->depth--;
    return OK;
}

err parser_duration(struct parser *p, int precedence_min, struct duration **out)
{
    TRY(parser_deeper(p));
    struct duration *left;
    TRY(parser_duration_operand(p, false, &left));
    for (;;) {
        enum operator_type op;
        int precedence = parser_operator(p, &op);
        if (precedence < precedence_min || precedence < PRECEDENCE_ADD || op == OPERATOR_ATAN2)
            break;
        struct duration *binary, *right;
        TRY(duration_new(p, DURATION_BINARY, &binary));
        TRY(parser_take(p));
        binary->op = op;
        binary->begin = left->begin;
        TRY(parser_duration(p, op == OPERATOR_POWER ? precedence : precedence + 1, &right));
        TRY(duration_join(p, binary, left, right));
        left = binary;
    }
    p->depth--;
    *out = left;
    return OK;
}

static bool duration_is_constant(const struct duration *d)
{
    return d->type != DURATION_STEP && d->type != DURATION_RANGE &&
           (d->left == NULL || duration_is_constant(d->left)) &&
           (d->right == NULL || duration_is_constant(d->right));
}

err parser_check_duration(struct parser *p, const struct duration *d, bool allow_negative)
{
    int64_t ms;
    struct err_at at;
    if (!duration_is_constant(d) || duration_value(d, 0, 0, allow_negative, &ms, &at) == OK)
        return OK;
    return FAIL(p, d->begin, "%s", at.text);
}
