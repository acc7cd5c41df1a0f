/* A source of canned series for tests: matchers, ranges and proofs as a real one has them. */
#ifndef API_FAKE_SOURCE_H
#define API_FAKE_SOURCE_H

#include "base/check.h"
#include "model/histogram.h"
#include "model/labels.h"
#include "model/source.h"

#include <stdlib.h>

#define FAKE_SERIES_MAX 4096

struct fake_series {
    struct slice labels;
    struct sample_columns columns;
};

struct fake_source {
    struct source source;
    struct pool *pool;
    struct fake_series series[FAKE_SERIES_MAX];
    size_t count;
    struct proof proof;
    struct source_exemplar exemplar;
    size_t exemplar_series_count; /* so many of the first series have it */
    bool exemplars_are_damaged;   /* their reading leaves something out */
    int64_t select_sleep_ns;      /* every select takes so long, asking the guard meanwhile */
    err select_error;
};

struct source_set {
    struct fake_source *fake;
    struct time_range range;
    struct guard *guard;
    size_t count;
    size_t index[FAKE_SERIES_MAX];
};

/* text: "name|label=value|label=value", labels sorted. */
static inline struct fake_series *fake_add(struct fake_source *fake, const char *text)
{
    struct buf labels = buf_open(fake->pool, LABELS_BYTES_MAX);
    struct fake_series *series = &fake->series[fake->count++];
    check(fake->count <= FAKE_SERIES_MAX);
    const char *at = text + strcspn(text, "|");
    labels_put(&labels, slice_str("__name__"), slice_of(text, (size_t)(at - text)));
    while (*at == '|') {
        const char *name = at + 1;
        size_t name_len = strcspn(name, "=");
        const char *value = name + name_len + 1;
        at = value + strcspn(value, "|");
        labels_put(&labels, slice_of(name, name_len), slice_of(value, (size_t)(at - value)));
    }
    check(buf_err(&labels) == OK);
    series->labels = buf_slice(&labels);
    series->columns = sample_columns_open(fake->pool);
    return series;
}

static inline void fake_sample(struct fake_series *series, int64_t t_ms, double value)
{
    check(sample_columns_add(&series->columns, t_ms, value, 0) == OK);
}

/* A native histogram, schema 0, buckets (1,2] = 2 and (2,4] = 1, zero bucket 1. */
static inline void fake_histogram(struct fake_source *fake, struct fake_series *series, int64_t t_ms)
{
    struct histogram_span span = { .offset = 1, .length = 2 };
    int64_t deltas[2] = { 2, -1 };
    struct histogram h = { .schema = 0,
                           .zero_threshold = 0.5,
                           .sum = 7.5,
                           .count_int = 4,
                           .zero_count_int = 1,
                           .positive_spans = &span,
                           .positive_span_count = 1,
                           .positive_deltas = deltas,
                           .positive_bucket_count = 2 };
    struct buf bytes = buf_open(fake->pool, HISTOGRAM_BYTES_MAX);
    histogram_encode(&h, &bytes);
    check(sample_columns_add_histogram(&series->columns, t_ms, buf_slice(&bytes), 0) == OK);
}

/* As many buckets as there may be, with long bounds: some 1.1 MB of JSON. */
static inline void fake_huge_histogram(struct fake_source *fake, struct fake_series *series, int64_t t_ms)
{
    struct histogram_span span = { .offset = -100000, .length = HISTOGRAM_BUCKET_COUNT_MAX };
    static int64_t deltas[HISTOGRAM_BUCKET_COUNT_MAX];
    for (size_t i = 0; i < HISTOGRAM_BUCKET_COUNT_MAX; i++)
        deltas[i] = i == 0 ? 1000000000 : i % 2 == 0 ? 1 : -1;
    struct histogram h = { .schema = 8,
                           .positive_spans = &span,
                           .positive_span_count = 1,
                           .positive_deltas = deltas,
                           .positive_bucket_count = HISTOGRAM_BUCKET_COUNT_MAX,
                           .negative_spans = &span,
                           .negative_span_count = 1,
                           .negative_deltas = deltas,
                           .negative_bucket_count = HISTOGRAM_BUCKET_COUNT_MAX };
    struct buf bytes = buf_open(fake->pool, HISTOGRAM_BYTES_MAX);
    histogram_encode(&h, &bytes);
    check(sample_columns_add_histogram(&series->columns, t_ms, buf_slice(&bytes), 0) == OK);
}

static inline bool fake_matches(const struct fake_source *fake, size_t i,
                                const struct source_request *request)
{
    const struct sample_columns *columns = &fake->series[i].columns;
    bool in_range = false;
    for (size_t k = 0; k < columns->count; k++)
        in_range |= columns->t_ms[k] >= request->range.min_ms && columns->t_ms[k] <= request->range.max_ms;
    return in_range && matchers_match(request->matchers, request->matcher_count, fake->series[i].labels);
}

static inline err fake_select(struct source *source, const struct source_request *request, struct pool *pool,
                              struct source_set **out_set)
{
    struct fake_source *fake = source->context;
    void *room;
    if (fake->select_error != OK)
        return fake->select_error;
    for (int64_t slept_ns = 0; slept_ns < fake->select_sleep_ns; slept_ns += 5000000) {
        TRY(guard_check(request->guard));
        io_sleep_ns(request->guard->io, 5000000);
    }
    TRY(pool_alloc(pool, sizeof(struct source_set), &room));
    struct source_set *set = room;
    *set = (struct source_set){ .fake = fake, .range = request->range, .guard = request->guard };
    for (size_t i = 0; i < fake->count; i++)
        if (fake_matches(fake, i, request))
            set->index[set->count++] = i;
    if (guard_series(request->guard, set->count, request->series_max) != OK)
        return ERR_LIMIT;
    *out_set = set;
    return OK;
}

static inline size_t fake_set_count(const struct source_set *set) { return set->count; }

struct source_reader {
    struct source_set *set;
};

static inline err fake_reader_open(struct source_set *set, struct source_reader **out_reader)
{
    void *room = NULL;
    TRY(pool_block_resize(set->fake->pool, &room, sizeof(struct source_reader)));
    *out_reader = room;
    (*out_reader)->set = set;
    return OK;
}

static inline void fake_reader_close(struct source_reader *reader)
{
    if (reader != NULL)
        pool_block_free(reader->set->fake->pool, reader);
}

static inline err fake_read_labels(struct source_reader *reader, size_t i, struct buf *out)
{
    buf_put_slice(out, reader->set->fake->series[reader->set->index[i]].labels);
    return buf_err(out);
}

static inline err fake_read_samples(struct source_reader *reader, size_t i, struct sample_columns *columns)
{
    const struct source_set *set = reader->set;
    const struct sample_columns *from = &set->fake->series[set->index[i]].columns;
    size_t histogram = 0;
    sample_columns_clear(columns);
    TRY(guard_samples(set->guard, from->count));
    for (size_t k = 0; k < from->count; k++) {
        bool is_histogram = histogram < from->histogram_count && from->histograms[histogram].row == k;
        if (from->t_ms[k] >= set->range.min_ms && from->t_ms[k] <= set->range.max_ms) {
            if (is_histogram)
                TRY(sample_columns_add_histogram(columns, from->t_ms[k], from->histograms[histogram].bytes,
                                                 0));
            else
                TRY(sample_columns_add(columns, from->t_ms[k], from->values[k], 0));
        }
        histogram += is_histogram;
    }
    return OK;
}

static inline const struct proof *fake_set_proof(struct source_set *set) { return &set->fake->proof; }
static inline void fake_set_close(struct source_set *set) { set->count = 0; }

/* Any of the requests takes series i. */
static inline bool fake_any(const struct fake_source *fake, size_t i, const struct source_request *requests,
                            size_t count)
{
    bool taken = false;
    for (size_t k = 0; k < count; k++)
        taken |= fake_matches(fake, i, &requests[k]);
    return taken;
}

static inline int fake_by_text(const void *a, const void *b)
{
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

/* name empty: names; else values. */
static inline err fake_texts(struct fake_source *fake, struct slice name,
                             const struct source_request *requests, size_t request_count, size_t limit,
                             struct pool *pool, struct slice **out_texts, size_t *out_count,
                             struct proof *out_proof)
{
    void *room;
    TRY(pool_alloc(pool, 65536 * sizeof(struct slice), &room));
    struct slice *texts = room;
    size_t count = 0, kept = 0;
    for (size_t i = 0; i < fake->count; i++) {
        struct reader r = reader_of(fake->series[i].labels);
        struct label label;
        if (!fake_any(fake, i, requests, request_count))
            continue;
        while (labels_next(&r, &label))
            if (name.len == 0)
                texts[count++] = label.name;
            else if (slice_equal(label.name, name))
                texts[count++] = label.value;
    }
    qsort(texts, count, sizeof *texts, fake_by_text);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || !slice_equal(texts[kept - 1], texts[i]))
            texts[kept++] = texts[i];
    *out_texts = texts;
    *out_count = limit != 0 && kept > limit ? limit : kept;
    *out_proof = fake->proof;
    return OK;
}

static inline err fake_label_names(struct source *source, const struct source_request *requests,
                                   size_t request_count, size_t limit, struct pool *pool,
                                   struct slice **out_names, size_t *out_count, struct proof *out_proof)
{
    return fake_texts(source->context, slice_of("", 0), requests, request_count, limit, pool, out_names,
                      out_count, out_proof);
}

static inline err fake_label_values(struct source *source, struct slice name,
                                    const struct source_request *requests, size_t request_count, size_t limit,
                                    struct pool *pool, struct slice **out_values, size_t *out_count,
                                    struct proof *out_proof)
{
    return fake_texts(source->context, name, requests, request_count, limit, pool, out_values, out_count,
                      out_proof);
}

static inline err fake_exemplars(struct source_set *set, size_t i, struct pool *pool,
                                 struct source_exemplar **out_exemplars, size_t *out_count)
{
    *out_exemplars = &set->fake->exemplar;
    *out_count = set->index[i] < set->fake->exemplar_series_count;
    if (set->fake->exemplars_are_damaged)
        set->fake->proof.complete = false;
    return OK;
}

static inline err fake_metadata(struct source *source, struct slice tenant, struct slice family,
                                struct pool *pool, struct source_metadata **out_metadata, size_t *out_count)
{
    static const struct source_metadata rows[] = {
        { { (const uint8_t *)"up", 2 },
          { (const uint8_t *)"gauge", 5 },
          { (const uint8_t *)"Up?", 3 },
          { NULL, 0 } },
        { { (const uint8_t *)"a", 1 },
          { (const uint8_t *)"gauge", 5 },
          { (const uint8_t *)"x", 1 },
          { NULL, 0 } },
        { { (const uint8_t *)"a", 1 },
          { (const uint8_t *)"counter", 7 },
          { (const uint8_t *)"y", 1 },
          { NULL, 0 } },
    };
    void *room;
    TRY(pool_alloc(pool, sizeof rows, &room));
    struct source_metadata *out = room;
    *out_count = 0;
    for (size_t i = 0; i < 3; i++)
        if (family.len == 0 || slice_equal(family, rows[i].family))
            out[(*out_count)++] = rows[i];
    *out_metadata = out;
    return OK;
}

static inline err fake_cardinality(struct source *source, struct slice tenant, size_t limit,
                                   struct pool *pool, struct source_cardinality *out)
{
    static struct source_name_count up = { { (const uint8_t *)"up", 2 }, 3 };
    *out = (struct source_cardinality){ .series_count = 3,
                                        .label_pair_count = 5,
                                        .range = { 1000, 2000 },
                                        .by_metric = &up,
                                        .by_metric_count = 1 };
    return OK;
}

static inline void fake_open(struct fake_source *fake, struct pool *pool)
{
    static const struct source_table table = {
        .select = fake_select,
        .set_count = fake_set_count,
        .reader_open = fake_reader_open,
        .reader_close = fake_reader_close,
        .read_labels = fake_read_labels,
        .read_samples = fake_read_samples,
        .set_proof = fake_set_proof,
        .set_close = fake_set_close,
        .label_names = fake_label_names,
        .label_values = fake_label_values,
        .set_exemplars = fake_exemplars,
        .metadata = fake_metadata,
        .cardinality = fake_cardinality,
    };
    memset(fake, 0, sizeof *fake);
    fake->source = (struct source){ .table = &table, .context = fake };
    fake->pool = pool;
    fake->proof.complete = true;
    fake->proof.data_through_ms = 5000;
}

#endif
