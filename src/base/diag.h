/* Diagnostics: messages to people, one line each, key=value after a short sentence.
 *
 * Rooms below floor 5 return errors and do not print; the top of a flow reports once. Lines are rate
 * limited per message by the node's sink, which also has the clock. Without a
 * sink lines go nowhere, which is what unit tests want. */
#ifndef BASE_DIAG_H
#define BASE_DIAG_H

#include <stdbool.h>
#include <stdint.h>

enum diag_level { DIAG_DEBUG, DIAG_INFO, DIAG_WARN, DIAG_ERROR };

/* line is without newline, already "level=… msg=…"-free: the sink adds time and layout.
 * message: the sentence; fields: "key=value key2=value2", possibly empty. Called from any thread. */
typedef void (*diag_sink)(void *context, enum diag_level level, const char *message, const char *fields);

void diag_set_sink(diag_sink sink, void *context, enum diag_level min_level);

/* Report. message is a constant sentence; format gives the fields. */
void diag(enum diag_level level, const char *message, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
