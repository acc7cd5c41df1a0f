/* The inside of a cursor, shared by compact_cursor.c (series, times) and compact_values.c (values of parts). */
#ifndef METRIC_COMPACT_CURSOR_H
#define METRIC_COMPACT_CURSOR_H

#include "metric/compact_reader.h"

#define CURSOR_CHAIN_MAX 64 /* differences upon differences that a reader follows */

/* A directory granule in memory. */
struct cursor_granule {
    uint32_t index; /* UINT32_MAX: none */
    struct compact_granule granule;
};

struct cursor_timeline {
    uint32_t rows, bytes, block, offset;
    int64_t first_ms, last_ms;
};

/* Decoded vectors [from, to) of a timeline. */
struct cursor_times {
    uint32_t timeline; /* UINT32_MAX: none */
    size_t from, to;
    int64_t *t_ms; /* block */
    size_t capacity;
    struct hash128 name; /* of rows [name_from, name_to) of the timeline; none while both are 0 */
    size_t name_from, name_to;
};

struct metric_compact_cursor {
    struct pool *pool;
    struct pool *arena; /* histogram bytes of the last read */
    struct metric_compact *compact;
    struct cursor_granule near, far; /* of the series; of parts it refers to */
    uint32_t table_index;            /* of the timelines below; UINT32_MAX: none */
    uint32_t table_count;
    struct cursor_timeline table[COMPACT_TIMELINES];
    struct cursor_times times[METRIC_COMPACT_TIMELINES_MAX];
    unsigned times_count;            /* in use of them: a timeline is kept in its number modulo this */
    int64_t *start_ms, *differences; /* these and the next two: cursor_column at first use */
    uint32_t *histogram_rows;
    bool bucket_any; /* integers of bucket_part's vectors [from, to) */
    uint32_t bucket_part;
    size_t bucket_from, bucket_to;
    int64_t *bucket;
    struct sample_columns all; /* of read_all */
};

/* A part's payload, taken apart; its block is held until cursor_part_close. */
struct cursor_part {
    struct compact_part part;
    uint32_t number;
    struct segment_block block;
    struct slice start; /* vectors of start times, empty without PART_START */
    uint32_t histogram_block, histogram_offset, histogram_count;
    struct slice rest; /* what the kind says */
};

/* Room for the rows of the largest part at *column, once: many cursors never need it. */
err cursor_column(struct metric_compact_cursor *cursor, size_t element_bytes, void **column);

/* Parts by their number, wherever they are. */
err cursor_part_find(struct metric_compact_cursor *cursor, uint32_t number, struct compact_part *out_part,
                     struct err_at *at);
err cursor_part_open(struct metric_compact_cursor *cursor, uint32_t number, const struct compact_part *part,
                     struct cursor_part *out_part, struct err_at *at);
void cursor_part_close(struct metric_compact_cursor *cursor, struct cursor_part *part);

/* Values of vectors [from, to) of an open part into out. */
err cursor_part_values(struct metric_compact_cursor *cursor, const struct cursor_part *part, size_t from,
                       size_t to, uint64_t *out, struct err_at *at);

err cursor_malformed(struct err_at *at, const char *what, uint32_t number);

#endif
