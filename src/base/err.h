/* Errors: one enum for the whole program, each value saying what the caller can do about it.
 *
 * What can fail returns `err`; `bool` answers a question and never reports failure. Human detail
 * (line, column, text) goes into a trailing `struct err_at *`, which may always be NULL. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdint.h>

/* code, text of one line, beginning in lower case so that it can follow "cannot open x: " */
#define ERR_LIST(X)                                                      \
    X(OK, "no error")                                                    \
    X(ERR_INPUT, "malformed input")            /* the sender's fault */  \
    X(ERR_LIMIT, "over a limit or budget")     /* refuse this request */ \
    X(ERR_CORRUPT, "stored bytes are damaged") /* quarantine, go on */   \
    X(ERR_VERSION, "written by a newer version")                         \
    X(ERR_NOT_FOUND, "not found")                                        \
    X(ERR_EXISTS, "exists already")                                      \
    X(ERR_IO, "input/output error") /* seal the file */                  \
    X(ERR_SPACE, "no space left")   /* stop intake, keep all */          \
    X(ERR_BUSY, "busy, try later")                                       \
    X(ERR_TIMEOUT, "deadline passed")                                    \
    X(ERR_CANCELED, "canceled")                                          \
    X(ERR_CLOSED, "shutting down")                                       \
    X(ERR_FULL, "full") /* seal, open the next */                        \
    X(ERR_ORDER, "out of order")                                         \
    X(ERR_END, "end of data") /* normal end of a walk */                 \
    X(ERR_DENIED, "access denied")                                       \
    X(ERR_UNSUPPORTED, "not supported")                                  \
    X(ERR_CONFLICT, "conflicts with what is stored")                     \
    X(ERR_EXECUTION, "evaluation failed") /* a query's own fault */

/* clang honours "must use" on the type itself, so it is written once; gcc builds rely on that. */
#ifdef __clang__
#define ERR_MUST_USE __attribute__((warn_unused_result))
#else
#define ERR_MUST_USE
#endif

#define ERR_ENUM(code, text) code,
typedef enum ERR_MUST_USE { ERR_LIST(ERR_ENUM) ERR_COUNT } err;
#undef ERR_ENUM

#define ERR_TEXT_BYTES_MAX 480

/* Where and why an error happened, for a person. line and column count from 1; 0 = unknown. */
struct err_at {
    uint32_t line;
    uint32_t column;
    char text[ERR_TEXT_BYTES_MAX];
};

#ifdef __cplusplus
extern "C" { /* shim/ speaks C++ */
#endif

/* The text of a code; static storage. */
const char *err_text(err e);

/* Fill `at` (ignored when NULL) and return `e`, so that `return err_set(at, ERR_INPUT, "…")` is
 * one line. The text is cut to ERR_TEXT_BYTES_MAX - 1 bytes. */
err err_set(struct err_at *at, err e, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* err_set with a position. */
err err_set_pos(struct err_at *at, uint32_t line, uint32_t column, err e, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

#ifdef __cplusplus
}
#endif

/* Return on failure; jump to `out:` on failure with the code in the local `e`. */
#define TRY(expression)                \
    do {                               \
        err try_result = (expression); \
        if (try_result != OK)          \
            return try_result;         \
    } while (0)

#define TRY_OUT(expression) \
    do {                    \
        e = (expression);   \
        if (e != OK)        \
            goto out;       \
    } while (0)

/* Say that a failure is deliberately not acted upon. The reason belongs beside the call. */
#define ERR_IGNORE(expression)             \
    do {                                   \
        err ignored_result = (expression); \
        (void)ignored_result;              \
    } while (0)

#endif
