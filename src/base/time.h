/* Units of time. Metrics count milliseconds, events nanoseconds, both int64 since 1970 UTC; only
 * this header converts. */
#ifndef BASE_TIME_H
#define BASE_TIME_H

#include <stdint.h>

#define MS_PER_SECOND INT64_C(1000)
#define MS_PER_MINUTE (60 * MS_PER_SECOND)
#define MS_PER_HOUR   (60 * MS_PER_MINUTE)
#define MS_PER_DAY    (24 * MS_PER_HOUR)
#define NS_PER_MS     INT64_C(1000000)
#define NS_PER_SECOND INT64_C(1000000000)

/* The first and last time that is stored: 9999 BC … AD, far inside int64 so that sums cannot overflow.
 * Prometheus' scripts use times before the epoch. 253402300799999 = 9999-12-31T23:59:59.999Z. */
#define TIME_MS_MAX INT64_C(253402300799999)
#define TIME_MS_MIN (-TIME_MS_MAX)

/* A closed range of milliseconds [min, max]; empty when min > max. */
struct time_range {
    int64_t min_ms;
    int64_t max_ms;
};

/* The smallest range that holds both. */
static inline struct time_range time_range_join(struct time_range a, struct time_range b)
{
    return (struct time_range){ a.min_ms < b.min_ms ? a.min_ms : b.min_ms,
                                a.max_ms > b.max_ms ? a.max_ms : b.max_ms };
}

/* t_ms as RFC 3339 in UTC with milliseconds: 2026-01-31T23:59:59.000Z; NUL-terminated. */
#define TIME_TEXT_BYTES 40
void time_print(int64_t t_ms, char out[TIME_TEXT_BYTES]);

#endif
