/* Samples as columns: what scans hand to evaluators and what builders take.
 *
 * One series' samples in time order, times unique. Floats are 64 bits that survive unchanged (NaN
 * payloads too: the stale marker is 0x7ff0000000000002). Native histograms are sparse: where row i is
 * a histogram, `values[i]` is NaN and `histograms` has an entry with row == i (entries ascend). */
#ifndef MODEL_SAMPLE_H
#define MODEL_SAMPLE_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/pool.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define SAMPLE_STALE_BITS UINT64_C(0x7ff0000000000002)

static inline bool sample_is_stale(double v) { return double_bits(v) == SAMPLE_STALE_BITS; }

enum sample_type { SAMPLE_FLOAT = 0, SAMPLE_HISTOGRAM = 1 };

struct sample_histogram {
    uint32_t row;
    struct slice bytes; /* canonical histogram, model/histogram.h; lives as long as the columns */
};

struct sample_columns {
    struct pool *pool; /* of the blocks below; the owner resets and reuses the columns */
    int64_t *t_ms;
    double *values;
    int64_t *start_ms; /* NULL when no row has a start timestamp; 0 = unset */
    size_t count;
    size_t capacity; /* rows that fit t_ms and values */
    size_t start_capacity;
    struct sample_histogram *histograms;
    size_t histogram_count;
    size_t histogram_capacity;
    /* A name of the times, zero when they have none: equal names, equal t_ms. Series that were scraped together
     * share their times, and who works on many of them need not look at the same times again. Times with a name
     * ascend and do not repeat; whoever writes to t_ms otherwise takes the name away. */
    struct hash128 times;
};

/* An empty set of columns in pool. */
static inline struct sample_columns sample_columns_open(struct pool *pool)
{
    return (struct sample_columns){ .pool = pool };
}

void sample_columns_close(struct sample_columns *c);

/* Forget the rows, keep the memory. */
static inline void sample_columns_clear(struct sample_columns *c)
{
    c->count = 0;
    c->histogram_count = 0;
    c->times = (struct hash128){ 0 };
}

static inline bool sample_times_named(struct hash128 times) { return (times.low | times.high) != 0; }

/* Room for `rows` more rows in t_ms and values (start_ms too if it is in use). ERR_LIMIT. */
err sample_columns_reserve(struct sample_columns *c, size_t rows);

/* Append one row; histogram bytes are borrowed as described above. ERR_LIMIT. */
err sample_columns_add(struct sample_columns *c, int64_t t_ms, double value, int64_t start_ms);
err sample_columns_add_histogram(struct sample_columns *c, int64_t t_ms, struct slice bytes,
                                 int64_t start_ms);

/* Of rows [base, count) with equal times keep the last. Their times ascend; histograms from histogram_base on are
 * theirs. The times lose their name. */
void sample_columns_drop_repeats(struct sample_columns *c, size_t base, size_t histogram_base);

#endif
