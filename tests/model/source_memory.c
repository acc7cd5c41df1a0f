/* The source in memory: series in an array, each with its samples in plain columns, filled by tests and read
 * through model/source.h. Invariant: a series' times ascend and are unique. */
#include "model/source_memory.h"

#include "base/check.h"
#include "model/labels.h"

#include <stdlib.h>

struct source_reader {
    struct source_set *set;
};

struct source_set {
    struct source_reader reader;
    struct pool *pool;
    const struct source_memory_series **series;
    size_t count;
    struct time_range range;
    struct guard *guard;
    struct proof proof;
};

static err memory_select(struct source *source, const struct source_request *request, struct pool *pool,
                         struct source_set **out_set)
{
    const struct source_memory *m = source->context;
    void *memory;
    TRY(pool_zalloc(pool, sizeof(struct source_set), &memory));
    struct source_set *set = memory;
    TRY(pool_alloc(pool, (m->count + 1) * sizeof *set->series, &memory));
    set->pool = pool;
    set->series = memory;
    set->range = request->range;
    set->guard = request->guard;
    set->proof.complete = true;
    for (size_t i = 0; i < m->count; i++) {
        const struct sample_columns *c = &m->series[i].columns;
        if (c->count == 0 || c->t_ms[0] > request->range.max_ms ||
            c->t_ms[c->count - 1] < request->range.min_ms ||
            !matchers_match(request->matchers, request->matcher_count, m->series[i].labels))
            continue;
        if (set->count == request->series_max)
            return ERR_LIMIT;
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
    const struct source_set *set = reader->set;
    const struct sample_columns *c = &set->series[series]->columns;
    size_t histogram = 0;
    sample_columns_clear(columns);
    for (size_t i = 0; i < c->count; i++) {
        bool is_histogram = histogram < c->histogram_count && c->histograms[histogram].row == i;
        struct slice bytes = is_histogram ? c->histograms[histogram++].bytes : slice_of(NULL, 0);
        if (c->t_ms[i] < set->range.min_ms || c->t_ms[i] > set->range.max_ms)
            continue;
        if (is_histogram)
            TRY(sample_columns_add_histogram(columns, c->t_ms[i], bytes, 0));
        else
            TRY(sample_columns_add(columns, c->t_ms[i], c->values[i], 0));
    }
    return set->guard != NULL ? guard_samples(set->guard, columns->count) : OK;
}

static const struct proof *memory_proof(struct source_set *set) { return &set->proof; }

static void memory_close(struct source_set *set) { set->count = 0; }

static const struct source_table table = {
    .select = memory_select,
    .set_count = memory_count,
    .reader_open = memory_reader_open,
    .reader_close = memory_reader_close,
    .read_labels = memory_labels,
    .read_samples = memory_samples,
    .set_proof = memory_proof,
    .set_close = memory_close,
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
