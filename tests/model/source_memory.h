/* A source of series in plain arrays: what the language is tested against. Naive on purpose: every select
 * looks at every series. */
#ifndef TESTS_MODEL_SOURCE_MEMORY_H
#define TESTS_MODEL_SOURCE_MEMORY_H

#include "model/source.h"

struct source_memory_series {
    struct slice labels;
    struct sample_columns columns;
};

struct source_memory {
    struct source source; /* hand &m.source to promql */
    struct pool *pool;
    struct source_memory_series *series;
    size_t count, capacity;
};

/* Everything lives in pool. */
void source_memory_init(struct source_memory *m, struct pool *pool);

/* The series of canonical labels, made when new. ERR_LIMIT. */
err source_memory_series(struct source_memory *m, struct slice labels,
                         struct source_memory_series **out_series);

/* Append a sample; a time that exists already is replaced, one out of order is put in its place (floats only). */
err source_memory_add(struct source_memory_series *series, int64_t t_ms, double value);

#endif
