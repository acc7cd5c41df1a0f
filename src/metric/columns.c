/* Resolving columns: from rows in arrival order to times that ascend and are unique.
 *
 * A scan gathers a series' rows from segments, row groups and the head, oldest first. Mostly they are in order
 * already and one look settles it. Where only neighbours repeat a time, the later one takes the place of the
 * earlier. Else the rows are sorted by time, stably, and then the same.
 *
 * Invariant: of equal times the row that came last stays: it has the highest position. */
#include "metric/head.h"

#include "base/check.h"
#include "metric/sort.h"

#include <string.h>

enum order { ORDER_UNIQUE, ORDER_REPEATS, ORDER_NONE };

static enum order order_of(const struct sample_columns *c)
{
    enum order order = ORDER_UNIQUE;
    for (size_t i = 1; i < c->count; i++) {
        if (c->t_ms[i - 1] > c->t_ms[i])
            return ORDER_NONE;
        if (c->t_ms[i - 1] == c->t_ms[i])
            order = ORDER_REPEATS;
    }
    return order;
}

/* Everything that the sort needs beside the columns, in one block. */
struct scratch {
    struct sort_item *items, *more;
    int64_t *column;        /* one column at a time is permuted through it */
    uint32_t *histogram_of; /* by row, UINT32_MAX = float */
    struct sample_histogram *histograms;
};

static err scratch_open(const struct sample_columns *c, void **out_block, struct scratch *out)
{
    size_t n = c->count, item = sizeof(struct sort_item);
    size_t bytes = n * (2 * item + sizeof(int64_t) + sizeof(uint32_t)) + 8 +
                   c->histogram_count * sizeof(struct sample_histogram);
    void *at = NULL;
    TRY(pool_block_resize(c->pool, &at, bytes));
    uint8_t *p = at;
    out->items = (struct sort_item *)p;
    out->more = (struct sort_item *)(p + n * item);
    out->histograms = (struct sample_histogram *)(p + 2 * n * item);
    out->column = (int64_t *)(p + 2 * n * item + c->histogram_count * sizeof(struct sample_histogram));
    out->histogram_of = (uint32_t *)(out->column + n);
    *out_block = at;
    return OK;
}

/* Bring a column of 8-byte entries into the order of the sorted items. */
static void permute(void *column, const struct scratch *s, size_t count)
{
    const uint8_t *from = column;
    for (size_t i = 0; i < count; i++)
        memcpy(&s->column[i], from + (size_t)s->items[i].id * 8, 8);
    memcpy(column, s->column, count * sizeof(int64_t));
}

static err sort_columns(struct sample_columns *c)
{
    struct scratch s;
    void *block;
    check(c->count <= UINT32_MAX);
    TRY(scratch_open(c, &block, &s));
    for (size_t i = 0; i < c->count; i++) {
        s.items[i] =
            (struct sort_item){ .key = (uint64_t)c->t_ms[i] ^ (UINT64_C(1) << 63), .id = (uint32_t)i };
        s.histogram_of[i] = UINT32_MAX;
    }
    sort_items(s.items, s.more, c->count);
    for (size_t h = 0; h < c->histogram_count; h++) {
        s.histogram_of[c->histograms[h].row] = (uint32_t)h;
        s.histograms[h] = c->histograms[h];
    }
    permute(c->t_ms, &s, c->count);
    permute(c->values, &s, c->count);
    if (c->start_ms != NULL)
        permute(c->start_ms, &s, c->count);
    for (size_t i = 0, h = 0; i < c->count; i++) {
        uint32_t histogram = s.histogram_of[s.items[i].id];
        if (histogram != UINT32_MAX)
            c->histograms[h++] =
                (struct sample_histogram){ .row = (uint32_t)i, .bytes = s.histograms[histogram].bytes };
    }
    pool_block_free(c->pool, block);
    return OK;
}

err metric_columns_resolve(struct sample_columns *columns)
{
    if (sample_times_named(columns->times))
        return OK;
    enum order order = order_of(columns);
    if (order == ORDER_UNIQUE)
        return OK;
    if (order == ORDER_NONE)
        TRY(sort_columns(columns));
    sample_columns_drop_repeats(columns, 0, 0);
    return OK;
}
