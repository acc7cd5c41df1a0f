/* Numbers and small records of compact metric segments, shared by their files. docs/format/compact.md. */
#ifndef METRIC_COMPACT_FORMAT_H
#define METRIC_COMPACT_FORMAT_H

#include "base/buf.h"
#include "base/bytes.h"
#include "codec/float.h"
#include "codec/int.h"
#include "metric/compact.h"

enum compact_section {
    SECTION_TENANTS = 1,        /* per tenant: series, bytes of its index part */
    SECTION_INDEX = 2,          /* index parts, each from a new block on */
    SECTION_GRANULES = 3,       /* series directory, one granule a block */
    SECTION_GRANULE_TABLE = 4,  /* first series, then first part, of each granule */
    SECTION_VALUES = 5,         /* payloads of parts */
    SECTION_TIMELINES = 6,      /* payloads of timelines */
    SECTION_TIMELINE_TABLE = 7, /* timeline directory, COMPACT_TIMELINES timelines a block */
    SECTION_HISTOGRAMS = 8,     /* canonical native histograms, a stream of strings */
    SECTION_EXEMPLARS = 9,
    SECTION_EXEMPLAR_TABLE = 10, /* first series of each block of exemplars */
    SECTION_METADATA = 11,
};

#define COMPACT_GRANULE_SERIES     256
#define COMPACT_GRANULE_PARTS      1024 /* a granule with this many is closed */
#define COMPACT_SERIES_PARTS_MAX   (METRIC_COMPACT_SERIES_ROWS_MAX / METRIC_COMPACT_PART_ROWS_MAX + 1)
#define COMPACT_GRANULE_PARTS_MAX  (COMPACT_GRANULE_PARTS + COMPACT_SERIES_PARTS_MAX)
#define COMPACT_GRANULE_HEAD_BYTES 20
#define COMPACT_TIMELINES          256
#define COMPACT_VECTORS_MAX        (METRIC_COMPACT_PART_ROWS_MAX / CODEC_VECTOR_COUNT_MAX)
#define COMPACT_VECTORS_BYTES_MAX  (COMPACT_VECTORS_MAX * (FLOAT_VECTOR_BYTES_MAX + 2))

/* How a part's values are stored: bits 0 and 1 of its flags. */
enum compact_kind {
    KIND_PLAIN = 0,      /* float vectors */
    KIND_CONSTANT = 1,   /* one value for all rows */
    KIND_SAME = 2,       /* those of an earlier part */
    KIND_DIFFERENCE = 3, /* an earlier part's minus these integers */
};
#define PART_KIND      3u
#define PART_START     4u  /* start times are in the payload */
#define PART_HISTOGRAM 8u  /* some rows are native histograms */
#define PART_SUBSET    16u /* rows begin inside the timeline, at `first` */
#define PART_FLAGS     31u

struct compact_part {
    uint8_t flags;
    uint16_t rows;
    uint32_t bytes; /* of the payload */
    uint32_t timeline;
    uint32_t first;         /* row of the timeline, with PART_SUBSET */
    uint32_t block, offset; /* of the payload; follows from the bytes */
};

_Static_assert(COMPACT_VECTORS_BYTES_MAX < 65536, "vector offsets are 16 bits");

/* ---- what a segment says of its rows ---- */
struct compact_totals {
    struct sum sum, distinct; /* distinct: of equal times the last row */
    struct time_range time;
};
#define COMPACT_TOTALS_NONE ((struct compact_totals){ .time = { INT64_MAX, INT64_MIN } })

/* Add the rows of a series, one or more; with_sum: to the SUMs too, else only what repeats in time counts: to
 * `sum` and not to `distinct`. False: times go back, or histograms are not at rows; totals are then of
 * no use. Cost about 4 ns a row. */
bool compact_totals_add(struct compact_totals *totals, struct hash128 series, const struct metric_rows *rows,
                        bool with_sum);

/* ---- lists of vectors: (k - 1) 16-bit ends, then k vectors ---- */
static inline size_t compact_vector_count(size_t rows)
{
    return (rows + CODEC_VECTOR_COUNT_MAX - 1) / CODEC_VECTOR_COUNT_MAX;
}

/* Append the list of rows 1 … METRIC_COMPACT_PART_ROWS_MAX; errors stick in out. */
void compact_vectors_put(const uint64_t *values, size_t rows, bool is_float, enum codec_effort effort,
                         struct buf *out);

/* Decode vectors [from, to) of a list over `rows` rows into out (from's first value at out[0]). ERR_CORRUPT.
 * list has CODEC_PAD_BYTES behind it. */
err compact_vectors_get(struct slice list, size_t rows, bool is_float, size_t from, size_t to, uint64_t *out);

/* ---- directory granules ---- */
struct compact_granule {
    uint32_t first_series, series_count;
    uint32_t first_part, part_count;
    uint32_t value_block, value_offset;
    uint32_t part_start[COMPACT_GRANULE_SERIES + 1]; /* of each series, from 0; the last is part_count */
    struct compact_part *parts;
    size_t part_capacity;
};

/* Append the granule's bytes. scratch: block memory. ERR_LIMIT. */
err compact_granule_put(const struct compact_granule *granule, struct pool *scratch, struct buf *out);

/* Decode into *granule, whose parts are a block of pool. ERR_CORRUPT, ERR_LIMIT. */
err compact_granule_get(struct slice bytes, struct pool *pool, struct compact_granule *granule);

/* Give every part its place from the granule's start on: a payload that does not fit goes to the next block. */
void compact_granule_place(struct compact_granule *granule);

#endif
