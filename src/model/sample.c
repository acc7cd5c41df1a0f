/* Sample columns: growth and appends. Scans fill t_ms and values directly after sample_columns_reserve.
 *
 * Invariants: 1. start_ms is NULL or holds `count` entries: it begins to exist with the first row that has a
 * start time, rows before it get 0. 2. Histogram entries ascend by row and row < count. */
#include "model/sample.h"

#include "base/check.h"

#include <string.h>

void sample_columns_close(struct sample_columns *c)
{
    pool_block_free(c->pool, c->t_ms);
    pool_block_free(c->pool, c->values);
    pool_block_free(c->pool, c->start_ms);
    pool_block_free(c->pool, c->histograms);
    *c = (struct sample_columns){ .pool = c->pool };
}

static err start_reserve(struct sample_columns *c, size_t count)
{
    return pool_block_reserve(c->pool, (void **)&c->start_ms, sizeof *c->start_ms, count, &c->start_capacity);
}

err sample_columns_reserve(struct sample_columns *c, size_t rows)
{
    size_t count;
    if (__builtin_add_overflow(c->count, rows, &count))
        return ERR_LIMIT;
    if (count > c->capacity) {
        /* Both blocks grow before capacity says so: a failure of the second leaves the first larger only. */
        size_t t_capacity = c->capacity, value_capacity = c->capacity;
        TRY(pool_block_reserve(c->pool, (void **)&c->t_ms, sizeof *c->t_ms, count, &t_capacity));
        TRY(pool_block_reserve(c->pool, (void **)&c->values, sizeof *c->values, count, &value_capacity));
        c->capacity = t_capacity < value_capacity ? t_capacity : value_capacity;
    }
    if (c->start_ms != NULL)
        TRY(start_reserve(c, count));
    return OK;
}

err sample_columns_add(struct sample_columns *c, int64_t t_ms, double value, int64_t start_ms)
{
    TRY(sample_columns_reserve(c, 1));
    if (start_ms != 0 && c->start_ms == NULL) {
        TRY(start_reserve(c, c->count + 1));
        memset(c->start_ms, 0, c->count * sizeof *c->start_ms);
    }
    c->times = (struct hash128){ 0 };
    c->t_ms[c->count] = t_ms;
    c->values[c->count] = value;
    if (c->start_ms != NULL)
        c->start_ms[c->count] = start_ms;
    c->count++;
    return OK;
}

err sample_columns_add_histogram(struct sample_columns *c, int64_t t_ms, struct slice bytes, int64_t start_ms)
{
    check(c->count < UINT32_MAX);
    TRY(pool_block_reserve(c->pool, (void **)&c->histograms, sizeof *c->histograms, c->histogram_count + 1,
                           &c->histogram_capacity));
    TRY(sample_columns_add(c, t_ms, __builtin_nan(""), start_ms));
    c->histograms[c->histogram_count++] =
        (struct sample_histogram){ .row = (uint32_t)(c->count - 1), .bytes = bytes };
    return OK;
}

void sample_columns_drop_repeats(struct sample_columns *c, size_t base, size_t histogram_base)
{
    size_t kept = base, kept_histograms = histogram_base, h = histogram_base;
    c->times = (struct hash128){ 0 };
    for (size_t i = base; i < c->count; i++) {
        bool is_histogram = h < c->histogram_count && c->histograms[h].row == i;
        struct slice bytes = is_histogram ? c->histograms[h++].bytes : slice_of(NULL, 0);
        if (i + 1 < c->count && c->t_ms[i + 1] == c->t_ms[i])
            continue;
        c->t_ms[kept] = c->t_ms[i];
        c->values[kept] = c->values[i];
        if (c->start_ms != NULL)
            c->start_ms[kept] = c->start_ms[i];
        if (is_histogram)
            c->histograms[kept_histograms++] =
                (struct sample_histogram){ .row = (uint32_t)kept, .bytes = bytes };
        kept++;
    }
    c->count = kept;
    c->histogram_count = kept_histograms;
}
