/* The inside of the compact writer, shared by compact_write.c (series), compact_part.c (parts) and
 * compact_finish.c. */
#ifndef METRIC_COMPACT_WRITER_H
#define METRIC_COMPACT_WRITER_H

#include "metric/compact_format.h"

/* A section written through one block buffer: what does not fit begins the next block. */
struct compact_stream {
    unsigned section;
    uint32_t block; /* number of the block being filled */
    struct buf content;
};

/* 128-bit keys to numbers, open addressing; grows in its pool. */
struct compact_map {
    struct pool *pool;
    struct compact_map_slot {
        struct hash128 key;
        uint32_t value;
        bool used;
    } * slots;
    size_t capacity, count;
};
err compact_map_put(struct compact_map *map, struct hash128 key, uint32_t value);
bool compact_map_get(const struct compact_map *map, struct hash128 key, uint32_t *out_value);

struct compact_timeline {
    uint32_t rows, bytes;
    int64_t first_ms, last_ms;
};

#define COMPACT_DIFFERENCE_ROWS_MAX  (8 * METRIC_COMPACT_PART_ROWS_MAX)
#define COMPACT_DIFFERENCE_CHAIN_MAX 31 /* a bucket is read through at most so many others */

/* The series before, for differences of buckets: its integers while it has `le` and all of them are counts. */
struct compact_previous {
    struct buf tenant, labels; /* order of series */
    bool any;
    bool is_integer; /* ints below are valid */
    unsigned chain;
    uint32_t part_first, part_count;
    uint32_t timelines[8];
    size_t rows;
    int64_t *ints; /* COMPACT_DIFFERENCE_ROWS_MAX of them, from the first bucket on */
};

struct compact_tenant_row {
    struct slice name;
    uint32_t series_count;
    uint64_t index_bytes;
};

struct metric_compact_writer {
    struct pool *pool;
    struct segment_writer *segment;
    struct metric_compact_config config;
    enum codec_effort effort;
    uint64_t seed; /* of the maps: chance, no output depends on it */

    struct compact_stream values, timelines, histograms, exemplars;
    struct buf payload, scratch;
    struct compact_granule granule;
    uint32_t series_count, part_count;
    struct compact_first {
        uint32_t series, part;
    } * granule_firsts;
    size_t granule_count, granule_capacity;

    struct compact_map timeline_map; /* hash of times → timeline */
    struct compact_timeline open_timelines[COMPACT_TIMELINES];
    uint32_t timeline_block, timeline_offset; /* where the first of the open ones lies */
    uint32_t timeline_count;

    struct compact_map same_map; /* hash of values and timeline → part, of +Inf buckets */
    struct compact_previous previous;
    uint64_t *part_bits; /* METRIC_COMPACT_PART_ROWS_MAX, values of rows with histograms */
    uint32_t *part_rows; /* rows of histograms */

    struct compact_tenant_row *tenants;
    size_t tenant_count, tenant_capacity;
    struct metric_part_builder *builder; /* of the open tenant */

    uint32_t exemplar_last;
    uint32_t *exemplar_firsts;
    size_t exemplar_block_count, exemplar_capacity;
    struct buf metadata;
    struct compact_map metadata_map;

    struct compact_totals totals;
    struct slice *tenant_names; /* of the written info */
};

/* Append to a section; *out_block and *out_offset (may be NULL): where it lies. */
err compact_stream_put(struct metric_compact_writer *w, struct compact_stream *stream, struct slice bytes,
                       uint32_t *out_block, uint32_t *out_offset);
err compact_stream_flush(struct metric_compact_writer *w, struct compact_stream *stream);

/* What a series is to the differences of its group. */
struct compact_series {
    bool has_le, is_infinity, is_count; /* le, le="+Inf", name ends with _count */
    bool may_differ;                    /* the series before is the next higher bucket */
};

/* Append rows [from, from + count) as a part. *part_index: which of the series'. */
err compact_part_put(struct metric_compact_writer *w, const struct compact_series *series,
                     const struct metric_rows *rows, size_t from, size_t count, uint32_t part_index,
                     const struct sample_histogram *histograms, size_t histogram_count);

err compact_granule_flush(struct metric_compact_writer *w);
err compact_timelines_flush(struct metric_compact_writer *w);
err compact_tenant_finish(struct metric_compact_writer *w);

#endif
