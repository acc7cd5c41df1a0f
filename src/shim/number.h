/* Doubles ↔ text, locale-free, shortest round trip, through the C++ library (shim/number.cc). */
#ifndef SHIM_NUMBER_H
#define SHIM_NUMBER_H

#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NUMBER_TEXT_BYTES_MAX 400 /* 'f' format of DBL_MAX has 309 digits */

/* Go's strconv.FormatFloat(v, 'f', -1, 64), but 'e' form below 1e-6 and from 1e21 as Prometheus' JSON
 * does; NaN, +Inf, -Inf. Returns the length; out is not NUL-terminated. */
size_t number_print_json(double v, char out[NUMBER_TEXT_BYTES_MAX]);

/* Go's FormatFloat(v, 'f', -1, 64): never an exponent; NaN, +Inf, -Inf. */
size_t number_print_fixed(double v, char out[NUMBER_TEXT_BYTES_MAX]);

/* Go's %g and %v: as above, but 'e' form below 1e-4 and from 1e6. */
size_t number_print_general(double v, char out[NUMBER_TEXT_BYTES_MAX]);

/* Go's strconv.ParseFloat(text, 64), without hexadecimal and underscores unless go_syntax: decimal and
 * exponent forms, Inf/+Inf/-Inf/Infinity/NaN in any case. False: malformed or trailing bytes. Values out
 * of range become ±Inf or 0 and are accepted. */
bool number_parse(struct slice text, bool go_syntax, double *out_v);

#ifdef __cplusplus
}
#endif

#endif
