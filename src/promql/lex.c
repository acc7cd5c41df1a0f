/* The lexer: query text → tokens, one at a time, on the parser's demand.
 *
 * Two pieces of context decide what a ':' is: between braces and between brackets it never belongs to a
 * name; elsewhere names of recording rules (job:x:rate5m) hold it. Keywords are not told from names here,
 * because nearly all of them may also be metric or label names; the parser knows from the place.
 *
 * Invariants: 1. Tokens cover the source without overlap, in order. 2. Every byte is looked at a constant number
 * of times. 3. Nothing of the source is trusted: bytes ≥ 0x80 are only accepted inside strings. */
#include "promql/lex.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/time.h"
#include "model/labels.h"
#include "shim/number.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#define TEXT_SHOWN_MAX 200

void lex_position(struct slice source, uint32_t offset, uint32_t *out_line, uint32_t *out_column)
{
    uint32_t line = 1, column = 1;
    for (uint32_t i = 0; i < offset && i < source.len; i++) {
        column++;
        if (source.at[i] == '\n') {
            line++;
            column = 1;
        }
    }
    *out_line = line;
    *out_column = column;
}

int text_shown(struct slice text)
{
    size_t len = text.len < TEXT_SHOWN_MAX ? text.len : TEXT_SHOWN_MAX;
    while (len > 0 && len < text.len && (text.at[len] & 0xc0) == 0x80)
        len--;
    return (int)len;
}

err lex_error(struct slice source, uint32_t offset, struct err_at *at, err e, const char *format, ...)
{
    if (at == NULL)
        return e;
    lex_position(source, offset, &at->line, &at->column);
    va_list args;
    va_start(args, format);
    vsnprintf(at->text, sizeof at->text, format, args);
    va_end(args);
    return e;
}

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }
static bool is_alpha(uint8_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

/* The byte `ahead` bytes from the cursor, 0 at the end. */
static uint8_t peek(const struct lexer *lexer, uint32_t ahead)
{
    return (size_t)lexer->at + ahead < lexer->source.len ? lexer->source.at[lexer->at + ahead] : 0;
}

static void skip_space(struct lexer *lexer)
{
    for (;;) {
        uint8_t c = peek(lexer, 0);
        if (lexer->at < lexer->source.len && (c == ' ' || c == '\t' || c == '\n' || c == '\r')) {
            lexer->at++;
        } else if (c == '#') {
            while (lexer->at < lexer->source.len && peek(lexer, 0) != '\n')
                lexer->at++;
        } else {
            return;
        }
    }
}

size_t lex_duration(struct slice s, int64_t *out_ms)
{
    static const struct {
        const char *name;
        int64_t ms;
    } units[] = {
        { "y", 365 * MS_PER_DAY }, { "w", 7 * MS_PER_DAY }, { "d", MS_PER_DAY }, { "h", MS_PER_HOUR },
        { "m", MS_PER_MINUTE },    { "s", MS_PER_SECOND },  { "ms", 1 },
    };
    int64_t total = 0;
    size_t at = 0, unit = 0;
    while (at < s.len && is_digit(s.at[at])) {
        int64_t n = 0;
        size_t i = at;
        for (; i < s.len && is_digit(s.at[i]); i++)
            if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, s.at[i] - '0', &n))
                return 0;
        if (i == s.len)
            return 0;
        bool is_ms = s.at[i] == 'm' && i + 1 < s.len && s.at[i + 1] == 's';
        while (unit < 7 && !(is_ms ? unit == 6 : unit != 6 && units[unit].name[0] == s.at[i]))
            unit++;
        int64_t part;
        if (unit == 7 || __builtin_mul_overflow(n, units[unit].ms, &part) ||
            __builtin_add_overflow(total, part, &total))
            return 0;
        at = i + (is_ms ? 2 : 1);
        unit++;
    }
    *out_ms = total;
    return at;
}

/* Value of a number's text as Go reads it: an integer with base prefix (leading 0 = octal) if it is one, else
 * a float. */
static bool number_value(struct slice text, double *out_v)
{
    if (text.len > 1 && text.at[0] == '0') {
        uint64_t v = 0;
        size_t i = 1;
        bool fits = true;
        for (; i < text.len && ((text.at[i] >= '0' && text.at[i] <= '7') || text.at[i] == '_'); i++) {
            if (text.at[i] == '_')
                continue;
            fits = fits && v < (UINT64_C(1) << 60);
            v = v * 8 + (uint64_t)(text.at[i] - '0');
        }
        if (i == text.len && fits) {
            *out_v = (double)v;
            return true;
        }
        if (text.len > 2 && (text.at[1] | 0x20) == 'x') {
            double d = 0;
            for (i = 2; i < text.len; i++)
                if (text.at[i] != '_')
                    d = d * 16 + hex_value(text.at[i]); /* exact up to 2^53, as rounded as a float beyond */
            *out_v = d;
            return true;
        }
    }
    size_t digits = 0;
    double whole = 0;
    while (digits < text.len && (is_digit(text.at[digits]) || text.at[digits] == '_')) {
        if (text.at[digits] != '_')
            whole = whole * 10 + (text.at[digits] - '0');
        digits++;
    }
    if (digits == text.len && memchr(text.at, '_', text.len) != NULL) { /* 1_000: only integers may */
        *out_v = whole;
        return true;
    }
    return number_parse(text, true, out_v);
}

static err lex_number(struct lexer *lexer, struct token *token, struct err_at *at)
{
    uint32_t begin = lexer->at;
    struct slice rest = slice_part(lexer->source, begin, lexer->source.len - begin);
    token->type = TOKEN_NUMBER;

    int64_t ms;
    size_t len = lex_duration(rest, &ms);
    if (len > 0 &&
        !(len < rest.len && (is_alpha(rest.at[len]) || is_digit(rest.at[len]) || rest.at[len] == '.'))) {
        token->is_duration = true;
        token->number = (double)ms / 1000;
        lexer->at += (uint32_t)len;
        return OK;
    }
    len = 0;
    if (rest.len > 2 && rest.at[0] == '0' && (rest.at[1] | 0x20) == 'x' && hex_value(rest.at[2]) >= 0) {
        for (len = 2; len < rest.len && (hex_value(rest.at[len]) >= 0 || rest.at[len] == '_');)
            len++;
    } else {
        while (len < rest.len && (is_digit(rest.at[len]) || rest.at[len] == '_'))
            len++;
        if (len < rest.len && rest.at[len] == '.')
            for (len++; len < rest.len && (is_digit(rest.at[len]) || rest.at[len] == '_');)
                len++;
        if (len < rest.len && (rest.at[len] | 0x20) == 'e') {
            size_t e = len + 1;
            if (e < rest.len && (rest.at[e] == '+' || rest.at[e] == '-'))
                e++;
            if (e < rest.len && is_digit(rest.at[e]))
                for (len = e; len < rest.len && is_digit(rest.at[len]);)
                    len++;
        }
    }
    size_t bad = len;
    while (bad < rest.len && (is_alpha(rest.at[bad]) || is_digit(rest.at[bad]) || rest.at[bad] == '.'))
        bad++;
    if (bad != len || !number_value(slice_part(rest, 0, len), &token->number))
        return lex_error(lexer->source, begin, at, ERR_INPUT, "bad number or duration syntax: \"%.*s\"",
                         (int)(bad < 60 ? bad : 60), (const char *)rest.at);
    if (isinf(token->number))
        return lex_error(lexer->source, begin, at, ERR_INPUT,
                         "error parsing number: strconv.ParseFloat: parsing \"%.*s\": value out of range",
                         (int)(len < 60 ? len : 60), (const char *)rest.at);
    lexer->at += (uint32_t)len;
    return OK;
}

/* Append the UTF-8 form of a code point; returns the bytes, 0 for an invalid one. */
/* One escape at the backslash under the cursor. Returns the bytes put, 0 when it is malformed. */
static size_t lex_escape(struct lexer *lexer, uint8_t quote, uint8_t *out)
{
    static const char names[] = "abfnrtv\\";
    static const char values[] = "\a\b\f\n\r\t\v\\";
    uint8_t c = peek(lexer, 1);
    const char *found = c == 0 ? NULL : strchr(names, c);
    lexer->at += 2;
    if (found != NULL || c == quote) {
        out[0] = found != NULL ? (uint8_t)values[found - names] : quote;
        return 1;
    }
    unsigned digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    uint32_t value = 0;
    if (digits > 0) {
        for (unsigned i = 0; i < digits; i++, lexer->at++) {
            int digit = hex_value(peek(lexer, 0));
            if (digit < 0)
                return 0;
            value = value << 4 | (uint32_t)digit;
        }
        if (c != 'x')
            return utf8_put(out, value);
    } else if (c >= '0' && c <= '7') {
        lexer->at--;
        for (unsigned i = 0; i < 3; i++, lexer->at++) {
            if (peek(lexer, 0) < '0' || peek(lexer, 0) > '7')
                return 0;
            value = value * 8 + (uint32_t)(peek(lexer, 0) - '0');
        }
        if (value > 255)
            return 0;
    } else {
        return 0;
    }
    out[0] = (uint8_t)value;
    return 1;
}

static err lex_string(struct lexer *lexer, struct token *token, struct err_at *at)
{
    uint32_t begin = lexer->at;
    uint8_t quote = peek(lexer, 0);
    lexer->at++;
    uint32_t scan = lexer->at;
    while (scan < lexer->source.len && lexer->source.at[scan] != quote)
        scan += lexer->source.at[scan] == '\\' && quote != '`' ? 2 : 1;
    if (scan >= lexer->source.len)
        return lex_error(lexer->source, begin, at, ERR_INPUT,
                         quote == '`' ? "unterminated raw string" : "unterminated quoted string");
    token->type = TOKEN_STRING;
    void *memory;
    TRY(pool_alloc(lexer->pool, scan - begin + 4, &memory));
    uint8_t *text = memory;
    size_t len = 0;
    while (lexer->at < scan) {
        uint8_t c = peek(lexer, 0);
        if (c == '\\' && quote != '`') {
            uint32_t escape = lexer->at;
            size_t put = lex_escape(lexer, quote, text + len);
            if (put == 0 || lexer->at > scan)
                return lex_error(lexer->source, escape, at, ERR_INPUT,
                                 "unknown or malformed escape sequence");
            len += put;
        } else if (c == '\n' && quote != '`') {
            return lex_error(lexer->source, begin, at, ERR_INPUT, "unterminated quoted string");
        } else {
            text[len++] = c;
            lexer->at++;
        }
    }
    lexer->at = scan + 1;
    token->text = slice_of(text, len);
    return OK;
}

static err lex_symbol(struct lexer *lexer, struct token *token, struct err_at *at)
{
    static const struct {
        char text[3];
        enum token_type type;
    } symbols[] = {
        /* longer ones first */
        { "==", TOKEN_EQUAL },        { "=~", TOKEN_REGEX },
        { "!=", TOKEN_NOT_EQUAL },    { "!~", TOKEN_NOT_REGEX },
        { "<=", TOKEN_LESS_EQUAL },   { ">=", TOKEN_GREATER_EQUAL },
        { "</", TOKEN_TRIM_UPPER },   { ">/", TOKEN_TRIM_LOWER },
        { "=", TOKEN_ASSIGN },        { "<", TOKEN_LESS },
        { ">", TOKEN_GREATER },       { "(", TOKEN_LEFT_PAREN },
        { ")", TOKEN_RIGHT_PAREN },   { "{", TOKEN_LEFT_BRACE },
        { "}", TOKEN_RIGHT_BRACE },   { "[", TOKEN_LEFT_BRACKET },
        { "]", TOKEN_RIGHT_BRACKET }, { ",", TOKEN_COMMA },
        { ":", TOKEN_COLON },         { "@", TOKEN_AT },
        { "+", TOKEN_ADD },           { "-", TOKEN_SUBTRACT },
        { "*", TOKEN_MULTIPLY },      { "/", TOKEN_DIVIDE },
        { "%", TOKEN_MODULO },        { "^", TOKEN_POWER },
    };
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        const char *text = symbols[i].text;
        if (peek(lexer, 0) != (uint8_t)text[0] || (text[1] != 0 && peek(lexer, 1) != (uint8_t)text[1]))
            continue;
        token->type = symbols[i].type;
        lexer->at += text[1] != 0 ? 2 : 1;
        switch (token->type) {
        case TOKEN_LEFT_BRACE:
            lexer->in_braces = true;
            break;
        case TOKEN_RIGHT_BRACE:
            lexer->in_braces = false;
            break;
        case TOKEN_LEFT_BRACKET:
            lexer->brackets++;
            break;
        case TOKEN_RIGHT_BRACKET:
            lexer->brackets -= lexer->brackets > 0;
            break;
        default:
            break;
        }
        return OK;
    }
    uint8_t c = peek(lexer, 0);
    const char *place = lexer->in_braces ? " inside braces" : "";
    if (c >= 0x20 && c < 0x7f)
        return lex_error(lexer->source, lexer->at, at, ERR_INPUT, "unexpected character%s: '%c'", place, c);
    return lex_error(lexer->source, lexer->at, at, ERR_INPUT, "unexpected character%s: 0x%02x", place, c);
}

err lex_next(struct lexer *lexer, struct token *out_token, struct err_at *at)
{
    skip_space(lexer);
    struct token token = { .type = TOKEN_END, .begin = lexer->at };
    uint8_t c = peek(lexer, 0);
    bool colon_in_name = !lexer->in_braces && lexer->brackets == 0;
    if (lexer->at >= lexer->source.len) {
        token.end = lexer->at;
        *out_token = token;
        return OK;
    }
    if (is_alpha(c) || (c == ':' && colon_in_name)) {
        token.type = TOKEN_NAME;
        while (is_alpha(peek(lexer, 0)) || is_digit(peek(lexer, 0)) ||
               (colon_in_name && peek(lexer, 0) == ':'))
            lexer->at++;
    } else if (is_digit(c) || (c == '.' && is_digit(peek(lexer, 1)))) {
        TRY(lex_number(lexer, &token, at));
    } else if (c == '"' || c == '\'' || c == '`') {
        TRY(lex_string(lexer, &token, at));
    } else {
        TRY(lex_symbol(lexer, &token, at));
    }
    token.end = lexer->at;
    if (token.type != TOKEN_STRING)
        token.text = slice_part(lexer->source, token.begin, token.end - token.begin);
    *out_token = token;
    return OK;
}
