/* The source in memory: series in an array, each with its samples in plain columns, filled by tests and read
 * through model/source.h. Invariant: a series' times ascend and are unique. */
#include "model/source_memory.h"

#include "base/check.h"
#include "base/hash.h"
#include "model/labels.h"

#include <stdlib.h>

struct source_reader {
    struct source_set *set;
};

struct source_set {
    struct source_reader reader;
    const struct source_memory *memory;
    struct pool *pool;
    const struct source_memory_series **series;
    size_t count;
    struct time_range range;
    struct guard *guard;
    struct proof proof;
};

uint32_t source_memory_partition(const struct source_memory *m, struct slice labels)
{
    return m->partition_count == 0 ? 0 : (uint32_t)(hash64(labels, 0) % m->partition_count);
}

static bool is_held(const struct source_memory *m, uint32_t partition)
{
    return source_asks(m->held, partition);
}

static bool is_selected(const struct source_memory *m, const struct source_memory_series *series,
                        const struct source_request *request)
{
    const struct sample_columns *c = &series->columns;
    uint32_t partition = source_memory_partition(m, series->labels);
    return c->count > 0 && c->t_ms[0] <= request->range.max_ms &&
           c->t_ms[c->count - 1] >= request->range.min_ms && is_held(m, partition) &&
           (m->partition_count == 0 || m->is_everywhere || source_asks(request->partitions, partition)) &&
           matchers_match(request->matchers, request->matcher_count, series->labels);
}

/* Of each partition asked for: its position, or that it is not here. */
static err proof_make(const struct source_memory *m, const struct source_request *request, struct pool *pool,
                      struct proof *out)
{
    void *memory;
    *out = (struct proof){ .complete = true, .data_through_ms = m->data_through_ms };
    TRY(pool_alloc(pool, m->partition_count * sizeof *out->partitions + 1, &memory));
    out->partitions = memory;
    if (m->held != NULL)
        TRY(proof_reserve(out, pool));
    for (uint32_t p = 0; p < m->partition_count; p++) {
        if (!source_asks(request->partitions, p))
            continue;
        if (is_held(m, p))
            out->partitions[out->partition_count++] =
                (struct proof_partition){ p, 1, m->applied_offset + p, m->applied_offset + p };
        else
            proof_miss(out, &(struct proof_missing){ p, request->range, PROOF_NOT_HERE });
    }
    return OK;
}

static err memory_select(struct source *source, const struct source_request *request, struct pool *pool,
                         struct source_set **out_set)
{
    const struct source_memory *m = source->context;
    void *memory;
    TRY(m->select_error);
    TRY(pool_zalloc(pool, sizeof(struct source_set), &memory));
    struct source_set *set = memory;
    TRY(pool_alloc(pool, (m->count + 1) * sizeof *set->series, &memory));
    set->memory = m;
    set->pool = pool;
    set->series = memory;
    set->range = request->range;
    set->guard = request->guard;
    TRY(proof_make(m, request, pool, &set->proof));
    for (size_t i = 0; i < m->count; i++) {
        if (!is_selected(m, &m->series[i], request))
            continue;
        if (set->count == request->series_max)
            return request->guard == NULL ? ERR_LIMIT
                                          : guard_series(request->guard, set->count + 1, request->series_max);
        set->series[set->count++] = &m->series[i];
    }
    set->reader.set = set;
    *out_set = set;
    return OK;
}

static size_t memory_count(const struct source_set *set) { return set->count; }

/* Reading keeps nothing: all readers of a set are the same. */
static err memory_reader_open(struct source_set *set, struct source_reader **out_reader)
{
    check(set != NULL);
    *out_reader = &set->reader;
    return OK;
}

static void memory_reader_close(struct source_reader *reader) {}

static err memory_labels(struct source_reader *reader, size_t series, struct buf *out)
{
    buf_put_slice(out, reader->set->series[series]->labels);
    return buf_err(out);
}

static err memory_samples(struct source_reader *reader, size_t series, struct sample_columns *columns)
{
    struct source_set *set = reader->set;
    const struct source_memory *m = set->memory;
    const struct sample_columns *c = &set->series[series]->columns;
    size_t histogram = 0;
    if (m->read_error != OK && (m->read_errors >> series % 64 & 1) != 0)
        return m->read_error;
    if ((m->read_misses >> series % 64 & 1) != 0) {
        uint32_t partition = source_memory_partition(m, set->series[series]->labels);
        TRY(proof_reserve(&set->proof, set->pool));
        proof_miss(&set->proof, &(struct proof_missing){ partition, set->range, "quarantine" });
    }
    sample_columns_clear(columns);
    for (size_t i = 0; i < c->count; i++) {
        bool is_histogram = histogram < c->histogram_count && c->histograms[histogram].row == i;
        struct slice bytes = is_histogram ? c->histograms[histogram++].bytes : slice_of(NULL, 0);
        int64_t start_ms = c->start_ms != NULL ? c->start_ms[i] : 0;
        if (c->t_ms[i] < set->range.min_ms || c->t_ms[i] > set->range.max_ms)
            continue;
        if (is_histogram)
            TRY(sample_columns_add_histogram(columns, c->t_ms[i], bytes, start_ms));
        else
            TRY(sample_columns_add(columns, c->t_ms[i], c->values[i], start_ms));
    }
    return set->guard != NULL ? guard_samples(set->guard, columns->count) : OK;
}

static const struct proof *memory_proof(struct source_set *set) { return &set->proof; }

static void memory_close(struct source_set *set) { set->count = 0; }

/* ---- exemplars, names, values, metadata ---- */

static err memory_exemplars(struct source_set *set, size_t series, struct pool *pool,
                            struct source_exemplar **out_exemplars, size_t *out_count)
{
    const struct source_memory_series *s = set->series[series];
    void *memory;
    TRY(pool_alloc(pool, s->exemplar_count * sizeof **out_exemplars + 1, &memory));
    if (s->exemplar_count > 0)
        memcpy(memory, s->exemplars, s->exemplar_count * sizeof *s->exemplars);
    *out_exemplars = memory;
    *out_count = s->exemplar_count;
    return OK;
}

static int by_text(const void *a, const void *b)
{
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

/* name empty: names; else values. */
static err memory_texts(const struct source_memory *m, struct slice name,
                        const struct source_request *requests, size_t request_count, size_t limit,
                        struct pool *pool, struct slice **out_texts, size_t *out_count)
{
    struct slice *texts = NULL;
    size_t count = 0, kept = 0, capacity = 0;
    for (size_t i = 0; i < m->count; i++) {
        struct reader r = reader_of(m->series[i].labels);
        struct label label;
        bool is_taken = false;
        for (size_t k = 0; k < request_count; k++)
            is_taken |= is_selected(m, &m->series[i], &requests[k]);
        while (is_taken && labels_next(&r, &label)) {
            TRY(pool_block_reserve(pool, (void **)&texts, sizeof *texts, count + 1, &capacity));
            if (name.len == 0)
                texts[count++] = label.name;
            else if (slice_equal(label.name, name))
                texts[count++] = label.value;
        }
    }
    if (count > 0)
        qsort(texts, count, sizeof *texts, by_text);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || !slice_equal(texts[kept - 1], texts[i]))
            texts[kept++] = texts[i];
    *out_texts = texts;
    *out_count = limit != 0 && kept > limit ? limit : kept;
    return OK;
}

static err memory_names(struct source *source, const struct source_request *requests, size_t request_count,
                        size_t limit, struct pool *pool, struct slice **out_names, size_t *out_count,
                        struct proof *out_proof)
{
    TRY(proof_make(source->context, &requests[0], pool, out_proof));
    return memory_texts(source->context, slice_of("", 0), requests, request_count, limit, pool, out_names,
                        out_count);
}

static err memory_values(struct source *source, struct slice name, const struct source_request *requests,
                         size_t request_count, size_t limit, struct pool *pool, struct slice **out_values,
                         size_t *out_count, struct proof *out_proof)
{
    TRY(proof_make(source->context, &requests[0], pool, out_proof));
    return memory_texts(source->context, name, requests, request_count, limit, pool, out_values, out_count);
}

static err memory_metadata(struct source *source, struct slice tenant, struct slice family, struct pool *pool,
                           struct source_metadata **out_metadata, size_t *out_count)
{
    const struct source_memory *m = source->context;
    void *memory;
    size_t count = 0;
    TRY(pool_alloc(pool, m->metadata_count * sizeof **out_metadata + 1, &memory));
    struct source_metadata *out = memory;
    for (size_t i = 0; i < m->metadata_count; i++)
        if (family.len == 0 || slice_equal(family, m->metadata[i].family))
            out[count++] = m->metadata[i];
    *out_metadata = out;
    *out_count = count;
    return OK;
}

static const struct source_table table = {
    .select = memory_select,
    .set_count = memory_count,
    .reader_open = memory_reader_open,
    .reader_close = memory_reader_close,
    .read_labels = memory_labels,
    .read_samples = memory_samples,
    .set_proof = memory_proof,
    .set_close = memory_close,
    .label_names = memory_names,
    .label_values = memory_values,
    .set_exemplars = memory_exemplars,
    .metadata = memory_metadata,
};

void source_memory_init(struct source_memory *m, struct pool *pool)
{
    *m = (struct source_memory){ .source = { .table = &table, .context = m }, .pool = pool };
}

err source_memory_series(struct source_memory *m, struct slice labels,
                         struct source_memory_series **out_series)
{
    for (size_t i = 0; i < m->count; i++)
        if (slice_equal(m->series[i].labels, labels)) {
            *out_series = &m->series[i];
            return OK;
        }
    TRY(pool_block_reserve(m->pool, (void **)&m->series, sizeof *m->series, m->count + 1, &m->capacity));
    struct source_memory_series *series = &m->series[m->count];
    *series = (struct source_memory_series){ .columns = sample_columns_open(m->pool) };
    TRY(pool_copy(m->pool, labels, &series->labels));
    m->count++;
    *out_series = series;
    return OK;
}

err source_memory_add(struct source_memory_series *series, int64_t t_ms, double value)
{
    struct sample_columns *c = &series->columns;
    size_t at = c->count;
    while (at > 0 && c->t_ms[at - 1] > t_ms)
        at--;
    if (at > 0 && c->t_ms[at - 1] == t_ms) {
        c->values[at - 1] = value;
        return OK;
    }
    TRY(sample_columns_add(c, t_ms, value, 0));
    for (size_t i = c->count - 1; i > at; i--) {
        c->t_ms[i] = c->t_ms[i - 1];
        c->values[i] = c->values[i - 1];
    }
    c->t_ms[at] = t_ms;
    c->values[at] = value;
    return OK;
}
