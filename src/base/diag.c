/* The way of a diagnostic line to the sink. See diag.h.
 */
#include "base/diag.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#define FIELDS_BYTES_MAX 1024

static diag_sink the_sink;
static void *the_context;
static _Atomic int the_min_level = DIAG_INFO;

void diag_set_sink(diag_sink sink, void *context, enum diag_level min_level)
{
    the_sink = sink;
    the_context = context;
    atomic_store(&the_min_level, (int)min_level);
}

void diag(enum diag_level level, const char *message, const char *format, ...)
{
    if (the_sink == NULL || (int)level < atomic_load_explicit(&the_min_level, memory_order_relaxed))
        return;
    char fields[FIELDS_BYTES_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(fields, sizeof fields, format, args);
    va_end(args);
    the_sink(the_context, level, message, fields);
}
