/* Texts of error codes and the filling of error positions. See err.h. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

const char *err_text(err e)
{
    static const char *const texts[] = {
#define ERR_ROW(code, text) [code] = text,
        ERR_LIST(ERR_ROW)
#undef ERR_ROW
    };
    return (unsigned)e < ERR_COUNT ? texts[e] : "unknown error";
}

static void err_fill(struct err_at *at, uint32_t line, uint32_t column, const char *format, va_list args)
{
    if (at == NULL)
        return;
    at->line = line;
    at->column = column;
    vsnprintf(at->text, sizeof at->text, format, args);
}

err err_set(struct err_at *at, err e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    err_fill(at, 0, 0, format, args);
    va_end(args);
    return e;
}

err err_set_pos(struct err_at *at, uint32_t line, uint32_t column, err e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    err_fill(at, line, column, format, args);
    va_end(args);
    return e;
}
