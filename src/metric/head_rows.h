/* The inside of a head: its rows, for head.c (which fills and reads them) and group_encode.c (which turns a
 * frozen head into a row group). */
#ifndef METRIC_HEAD_ROWS_H
#define METRIC_HEAD_ROWS_H

#include "metric/head.h"
#include "metric/slots.h"

#include <stdatomic.h>

#define HEAD_CHUNK_ROWS       8192u
#define HEAD_CHUNK_HISTOGRAMS 512u
#define HEAD_CHUNK_EXEMPLARS  256u
#define HEAD_CHUNK_METADATA   256u

/* One row in 24 bytes: a reader that follows a chain meets one cache line a row, not one per column. */
struct head_row {
    int64_t t_ms;
    uint64_t bits;
    uint32_t local;
    uint32_t before; /* the series' row before this one, METRIC_ROW_NONE = first */
};

struct head_chunk {
    struct head_row rows[HEAD_CHUNK_ROWS];
    _Atomic(int64_t *) start_ms; /* a column; NULL: no row of the chunk has one */
};

struct head_histogram {
    uint32_t local;
    uint32_t before;      /* the series' histogram row before this one */
    uint32_t rows_before; /* float rows in the head when it arrived */
    int64_t t_ms;
    int64_t start_ms;
    struct slice bytes;
};

struct metric_head {
    struct pool *pool;
    _Atomic uint32_t refs;
    struct metric_head_config config;

    struct head_chunk **chunks;
    struct head_histogram **histogram_chunks;
    struct metric_exemplar **exemplar_chunks;
    struct metric_metadata **metadata_chunks;
    struct slots last_row, last_histogram; /* by local number */

    /* the writer's own */
    uint32_t row_count, histogram_count, exemplar_count, metadata_count;
    size_t arena_bytes;
    int64_t t_min, t_max;
    uint32_t *metadata_table; /* open addressing over metadata rows: row + 1 */
    uint32_t metadata_slots;

    /* published */
    _Atomic uint64_t visible; /* rows | histograms << 32 */
    _Atomic uint32_t visible_exemplars, visible_metadata;
    _Atomic int64_t visible_t_min, visible_t_max;
    _Atomic uint64_t dropped;
};

static inline struct head_chunk *head_chunk_of(const struct metric_head *head, uint32_t row)
{
    return head->chunks[row / HEAD_CHUNK_ROWS];
}

static inline const struct head_row *head_row_of(const struct metric_head *head, uint32_t row)
{
    return &head_chunk_of(head, row)->rows[row % HEAD_CHUNK_ROWS];
}

static inline int64_t head_start_ms(const struct head_chunk *chunk, uint32_t row)
{
    const int64_t *start = atomic_load_explicit(&chunk->start_ms, memory_order_acquire);
    return start == NULL ? 0 : start[row % HEAD_CHUNK_ROWS];
}

static inline const struct head_histogram *head_histogram_of(const struct metric_head *head, uint32_t row)
{
    return &head->histogram_chunks[row / HEAD_CHUNK_HISTOGRAMS][row % HEAD_CHUNK_HISTOGRAMS];
}

static inline const struct metric_exemplar *head_exemplar_of(const struct metric_head *head, uint32_t row)
{
    return &head->exemplar_chunks[row / HEAD_CHUNK_EXEMPLARS][row % HEAD_CHUNK_EXEMPLARS];
}

static inline const struct metric_metadata *head_metadata_of(const struct metric_head *head, uint32_t row)
{
    return &head->metadata_chunks[row / HEAD_CHUNK_METADATA][row % HEAD_CHUNK_METADATA];
}

#endif
