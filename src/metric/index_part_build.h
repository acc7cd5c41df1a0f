/* The inside of the builder of index parts, shared by index_part_build.c (adding) and index_part_finish.c. */
#ifndef METRIC_INDEX_PART_BUILD_H
#define METRIC_INDEX_PART_BUILD_H

#include "metric/index_part.h"
#include "metric/index_part_format.h"
#include "model/labels.h"

#define ROW_NONE        UINT32_MAX
#define TABLE_SLOTS_MIN 256

struct pair_entry {
    uint32_t at; /* of the canonical label field in texts */
    uint32_t len;
    uint32_t name;
    uint32_t hash;
};

struct name_entry {
    uint32_t at; /* of the name's bytes in texts */
    uint32_t len;
    uint32_t hash;
};

struct name_run {
    uint32_t pair;
    uint32_t start;
    uint32_t last; /* ROW_NONE: no run is open */
};

struct shape_entry {
    uint32_t at; /* into shape_names */
    uint32_t count;
    uint32_t hash;
};

struct run {
    uint32_t pair;
    uint16_t start; /* within the chunk */
    uint16_t more;  /* length - 1 */
};

struct container {
    uint32_t pair;
    uint32_t at; /* into container_bytes */
    uint32_t len;
    uint32_t count; /* ordinals in it */
    uint32_t chunk;
};

/* Open addressing over entry numbers: slot = number + 1, 0 = free. Hashes live in the entries. */
struct table {
    uint32_t *slots;
    uint32_t slot_count; /* a power of two, 0 = nothing yet */
    uint32_t used;
};

struct metric_part_builder {
    struct pool *pool;
    struct buf texts;
    struct pair_entry *pairs;
    size_t pair_count, pair_capacity;
    struct name_entry *names;
    size_t name_count, name_capacity;
    struct name_run *name_runs;
    size_t name_run_capacity;
    struct shape_entry *shapes;
    size_t shape_count, shape_capacity;
    uint32_t *shape_names;
    size_t shape_name_count, shape_name_capacity;
    struct table pair_table, name_table, shape_table;
    struct run *runs;
    size_t run_count, run_capacity;
    struct container *containers;
    size_t container_count, container_capacity;
    struct buf container_bytes;
    struct buf rows;
    uint32_t *block_at;
    size_t block_count, block_capacity;
    uint32_t series_count;
    uint64_t posting_count;
    uint32_t shape;                         /* of the series before */
    uint32_t row_pairs[2][LABEL_COUNT_MAX]; /* this series' pairs and those of the one before */
    uint32_t row_names[LABEL_COUNT_MAX];
    uint32_t before_count;
    unsigned side; /* which of row_pairs is this series' */
};

static inline struct slice part_builder_text(const struct metric_part_builder *b, uint32_t at, uint32_t len)
{
    return slice_of(b->texts.at + at, len);
}

/* Close all runs and turn those of the current chunk into containers. ERR_LIMIT. */
err part_builder_flush(struct metric_part_builder *b);

#endif
