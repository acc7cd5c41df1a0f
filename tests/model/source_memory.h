/* A source of series in plain arrays: what the language is tested against. Naive on purpose: every select
 * looks at every series, names are found by reading them. */
#ifndef TESTS_MODEL_SOURCE_MEMORY_H
#define TESTS_MODEL_SOURCE_MEMORY_H

#include "model/source.h"

struct source_memory_series {
    struct slice labels;
    struct sample_columns columns;
    const struct source_exemplar *exemplars; /* in time order */
    size_t exemplar_count;
};

struct source_memory {
    struct source source; /* hand &m.source to promql */
    struct pool *pool;
    struct source_memory_series *series;
    size_t count, capacity;
    const struct source_metadata *metadata; /* of whatever tenant */
    size_t metadata_count;
    /* A node among others: a copy of the whole with source.context its own. */
    uint32_t partition_count; /* 0: nothing is said of partitions */
    const uint64_t *held;     /* a bit for each that is here; NULL: all */
    bool is_everywhere;       /* every series counts as one of whatever partitions are asked for */
    uint64_t applied_offset;
    int64_t data_through_ms;
    err select_error, read_error; /* != OK: these fail with it */
    uint64_t read_errors;         /* with read_error: of series number n mod 64, a bit each */
    uint64_t read_misses;         /* likewise: reading it finds out that its partition lacks something */
};

/* Everything lives in pool. */
void source_memory_init(struct source_memory *m, struct pool *pool);

/* The series of canonical labels, made when new. ERR_LIMIT. */
err source_memory_series(struct source_memory *m, struct slice labels,
                         struct source_memory_series **out_series);

/* Where a series lives. */
uint32_t source_memory_partition(const struct source_memory *m, struct slice labels);

/* Append a sample; a time that exists already is replaced, one out of order is put in its place (floats
 * only). */
err source_memory_add(struct source_memory_series *series, int64_t t_ms, double value);

#endif
