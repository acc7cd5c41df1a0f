/* One series inside a block of a row group: to bytes and back. Used by group_encode.c and group.c. */
#ifndef METRIC_GROUP_BLOCK_H
#define METRIC_GROUP_BLOCK_H

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "metric/group.h"

/* The rows of a series, and what the coding of the next one refers to. */
struct group_rows {
    uint32_t number;
    uint32_t row_count;
    uint32_t histogram_count;
    uint8_t flags;     /* as stored; decoder only */
    struct slice rest; /* decoder only: what group_series_body reads */
    bool has_starts;
    int64_t *t_ms;
    uint64_t *bits;
    int64_t *start_ms;
    int64_t *integers; /* scratch of the encoder, as many as rows; the decoder does not use it */
    struct metric_group_histogram *histograms;
};

/* Append one series. before: the series before it in the block, NULL for the first; only its number, row
 * count and times are looked at. scratch: of the encoder, any contents. */
void group_series_encode(const struct group_rows *rows, const struct group_rows *before, struct buf *scratch,
                         struct buf *out);

/* Decode the head of a block's next series into rows: number, counts, times; its arrays hold rows_max and
 * histograms_max entries. `before` as above (its arrays must not be the same ones). ERR_CORRUPT. */
err group_series_head(struct reader *r, const struct group_rows *before, uint32_t first_number,
                      uint32_t rows_max, uint32_t histograms_max, struct group_rows *rows);

/* Decode the rest: values, start times, histograms, whose bytes borrow the block. ERR_CORRUPT. */
err group_series_body(struct group_rows *rows);

#endif
