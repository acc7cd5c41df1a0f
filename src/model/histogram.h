/* Native histograms (Prometheus 2.40+, custom buckets 3.0+).
 *
 * Stored and carried as canonical bytes (docs/format/histogram.md): a version byte, flags (integer or
 * float counts, reset hint), schema, zero threshold, sum, counts, spans, bucket deltas or absolute
 * counts, custom values. Decoded only where a person looks at one. */
#ifndef MODEL_HISTOGRAM_H
#define MODEL_HISTOGRAM_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define HISTOGRAM_BYTES_MAX        (64u << 10)
#define HISTOGRAM_SPAN_COUNT_MAX   4096
#define HISTOGRAM_BUCKET_COUNT_MAX 8192
#define HISTOGRAM_SCHEMA_CUSTOM    (-53)

enum histogram_hint { HINT_UNKNOWN, HINT_RESET, HINT_NOT_RESET, HINT_GAUGE };

struct histogram_span {
    int32_t offset;
    uint32_t length;
};

struct histogram {
    bool is_float; /* counts are floats; else integers, buckets as deltas on the wire */
    enum histogram_hint hint;
    int32_t schema; /* -4 … 8, or HISTOGRAM_SCHEMA_CUSTOM */
    double zero_threshold;
    double sum;                           /* the stale marker makes the sample stale */
    uint64_t count_int, zero_count_int;   /* when !is_float */
    double count_float, zero_count_float; /* when is_float */
    struct histogram_span *positive_spans, *negative_spans;
    size_t positive_span_count, negative_span_count;
    /* integer histograms: deltas between buckets (first absolute); float: absolute counts */
    int64_t *positive_deltas, *negative_deltas;
    double *positive_counts, *negative_counts;
    size_t positive_bucket_count, negative_bucket_count;
    double *custom_values;
    size_t custom_value_count;
};

/* Check as Prometheus' Validate does: spans cover the buckets, counts not negative and consistent,
 * schema known, custom values ascending. ERR_INPUT with the reason. */
err histogram_check(const struct histogram *h, struct err_at *at);

/* Append canonical bytes. Equal histograms give equal bytes. */
void histogram_encode(const struct histogram *h, struct buf *out);

/* Decode canonical bytes into pool memory. ERR_CORRUPT: they are none, also when they hold more spans or buckets
 * than there may be; ERR_LIMIT: the pool's. */
err histogram_decode(struct slice bytes, struct pool *pool, struct histogram *out_histogram);

/* Upper bound of the positive bucket `index`, as Prometheus computes it: 2^(index / 2^schema), the last finite
 * one being the largest double; of custom buckets the index-th value, -Inf before the first, +Inf behind. */
double histogram_bound(const struct histogram *h, int32_t index);

/* The buckets as the HTTP API shows them, absolute, ascending, non-empty ones only. */
struct histogram_bucket {
    uint8_t boundaries; /* 0 (lo,hi]  1 [lo,hi)  2 (lo,hi)  3 [lo,hi] */
    double lower, upper, count;
};
err histogram_buckets(const struct histogram *h, struct pool *pool, struct histogram_bucket **out_buckets,
                      size_t *out_count);

#endif
