/* Tokens of PromQL. Internal to the room. */
#ifndef PROMQL_LEX_H
#define PROMQL_LEX_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum token_type {
    TOKEN_END,
    TOKEN_NAME,   /* identifier, keyword or function name; may hold ':' outside braces and brackets */
    TOKEN_NUMBER, /* number or duration, in seconds */
    TOKEN_STRING, /* text is the unquoted content */
    TOKEN_LEFT_PAREN,
    TOKEN_RIGHT_PAREN,
    TOKEN_LEFT_BRACE,
    TOKEN_RIGHT_BRACE,
    TOKEN_LEFT_BRACKET,
    TOKEN_RIGHT_BRACKET,
    TOKEN_COMMA,
    TOKEN_COLON,
    TOKEN_AT,
    TOKEN_ASSIGN, /* = */
    TOKEN_EQUAL,
    TOKEN_NOT_EQUAL,
    TOKEN_LESS,
    TOKEN_LESS_EQUAL,
    TOKEN_GREATER,
    TOKEN_GREATER_EQUAL,
    TOKEN_REGEX,
    TOKEN_NOT_REGEX,
    TOKEN_ADD,
    TOKEN_SUBTRACT,
    TOKEN_MULTIPLY,
    TOKEN_DIVIDE,
    TOKEN_MODULO,
    TOKEN_POWER,
    TOKEN_TRIM_UPPER,
    TOKEN_TRIM_LOWER, /* </ and >/ of native histograms */
};

struct token {
    enum token_type type;
    struct slice text; /* source text; for strings the content */
    uint32_t begin;    /* byte offsets in the source */
    uint32_t end;
    double number;
    bool is_duration; /* TOKEN_NUMBER written with units */
};

struct lexer {
    struct slice source;
    struct pool *pool; /* unquoted strings */
    uint32_t at;
    bool in_braces;
    unsigned brackets; /* open '[' */
};

/* The next token. ERR_INPUT with position and text; ERR_LIMIT from the pool. */
err lex_next(struct lexer *lexer, struct token *out_token, struct err_at *at);

/* Line and column, from 1, of a byte offset. */
void lex_position(struct slice source, uint32_t offset, uint32_t *out_line, uint32_t *out_column);

/* How many bytes of a text a message shows, for "%.*s": two of them leave room in it, and none ends within a
 * character. */
int text_shown(struct slice text);

/* Fill at with the line and column of a byte offset; returns e. */
err lex_error(struct slice source, uint32_t offset, struct err_at *at, err e, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Go-style duration text ("1h30m"; units y w d h m s ms, each at most once, in that order) at the beginning of s.
 * Returns the bytes read, 0 when there is none or it overflows int64 milliseconds. */
size_t lex_duration(struct slice s, int64_t *out_ms);

#endif
