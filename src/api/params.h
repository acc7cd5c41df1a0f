/* What API parameters look like as text: times, durations, numbers, escaped label names. */
#ifndef API_PARAMS_H
#define API_PARAMS_H

#include "base/buf.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

/* Float seconds ("1435781430.781", "-60") or RFC 3339 ("2015-07-01T20:10:51.781Z") → Unix ms, rounded to
 * the nearest; values outside TIME_MS_MIN … TIME_MS_MAX become those bounds, and so do the two
 * boundary constants of Prometheus' clients. ERR_INPUT with Prometheus' text: cannot parse "x" to a valid
 * timestamp. */
err param_time(struct slice text, int64_t *out_t_ms, struct err_at *at);

/* Float seconds or a duration ("5m", "1h30m", "250ms") → ms, never negative ones from the second form.
 * ERR_INPUT with Prometheus' text: cannot parse "x" to a valid duration. */
err param_duration(struct slice text, int64_t *out_ms, struct err_at *at);

/* A decimal uint64. ERR_INPUT. */
err param_uint(struct slice text, uint64_t *out_value);

/* "true", "1", "" … as Go's strconv.ParseBool would; anything else is false. */
bool param_is_true(struct slice text);

/* Undo Prometheus' U__ escaping of label names in paths (U__my_2e_metric → my.metric): after "U__",
 * "__" is '_' and "_HEX_" a code point. What is not well formed is returned as it is. The result is
 * the input or in pool. ERR_LIMIT. */
err param_unescape_name(struct slice name, struct pool *pool, struct slice *out_name);

#endif
