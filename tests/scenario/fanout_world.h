/* A world of tests of fan-out: series and questions from a seed, nodes that hold them (model/nodes_memory.h), and
 * the comparison of what they answer with one source over all. */
#ifndef TESTS_SCENARIO_FANOUT_WORLD_H
#define TESTS_SCENARIO_FANOUT_WORLD_H

#include "base/test.h"
#include "base/time.h"
#include "fanout/wire.h"
#include "model/histogram.h"
#include "model/labels.h"
#include "model/matcher.h"
#include "model/nodes_memory.h"

#define PARTITIONS 12
#define SERIES     120
#define TENANT     slice_str("t")
#define EVERYTHING ((struct time_range){ TIME_MS_MIN, TIME_MS_MAX })

/* ---- data ---- */

static inline struct slice labels_of(struct pool *pool, const char *name, unsigned number)
{
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    char group[16], text[32];
    snprintf(group, sizeof group, "g%u", number % 7);
    snprintf(text, sizeof text, "%u", number);
    labels_put(&labels, slice_str("__name__"), slice_str(name));
    labels_put(&labels, slice_str("group"), slice_str(group));
    labels_put(&labels, slice_str("number"), slice_str(text));
    assert_ok(buf_err(&labels));
    return buf_slice(&labels);
}

static inline struct slice histogram_of(struct pool *pool, struct test_random *random)
{
    struct histogram h = { .sum = (double)test_random_below(random, 100),
                           .count_int = 3,
                           .zero_count_int = 3 };
    struct buf bytes = buf_open(pool, HISTOGRAM_BYTES_MAX);
    histogram_encode(&h, &bytes);
    assert_ok(buf_err(&bytes));
    return buf_slice(&bytes);
}

static inline void fill(struct pool *pool, struct test_random *random, struct source_memory_series *series)
{
    size_t rows = 1 + test_random_below(random, 10) == 1 ? 9000 : 1 + test_random_below(random, 400);
    bool has_histograms = test_random_below(random, 4) == 0, has_starts = test_random_below(random, 4) == 0;
    int64_t t_ms = (int64_t)test_random_below(random, 100000);
    for (size_t i = 0; i < rows; i++) {
        int64_t start_ms = has_starts && i % 3 == 1 ? t_ms - 500 : 0;
        t_ms += 1000 + (int64_t)test_random_below(random, 2);
        if (has_histograms && test_random_below(random, 2) == 0)
            assert_ok(
                sample_columns_add_histogram(&series->columns, t_ms, histogram_of(pool, random), start_ms));
        else
            assert_ok(sample_columns_add(&series->columns, t_ms,
                                         bits_double(test_random_below(random, 5) == 0 ? SAMPLE_STALE_BITS
                                                     : i % 2 == 0 ? test_random_u64(random)
                                                                  : double_bits((double)i)),
                                         start_ms));
    }
}

static inline void whole_fill(struct source_memory *whole, struct pool *pool, struct test_random *random)
{
    static const char *const names[] = { "a_total", "b", "c_seconds" };
    source_memory_init(whole, pool);
    whole->data_through_ms = 4242;
    whole->applied_offset = 1000;
    for (unsigned i = 0; i < SERIES; i++) {
        struct source_memory_series *series;
        void *at;
        assert_ok(
            source_memory_series(whole, labels_of(pool, names[test_random_below(random, 3)], i), &series));
        fill(pool, random, series);
        series->exemplar_count = test_random_below(random, 3);
        assert_ok(pool_alloc(pool, 3 * sizeof(struct source_exemplar), &at));
        struct source_exemplar *exemplars = at;
        for (size_t k = 0; k < series->exemplar_count; k++)
            exemplars[k] = (struct source_exemplar){ labels_of(pool, "trace", i), (int64_t)k, (double)i };
        series->exemplars = exemplars;
    }
}

struct world {
    struct pool *pool;
    struct source_memory whole;
    struct nodes_memory *nodes;
    struct guard guard;
};

static inline void world_open(struct world *w, struct test_random *random, uint32_t node_count,
                              uint32_t replica_count)
{
    *w = (struct world){ .pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED),
                         .guard = { .deadline_ns = INT64_MAX, .samples_max = UINT64_MAX } };
    whole_fill(&w->whole, w->pool, random);
    assert_ok(nodes_memory_open(&w->whole, node_count, PARTITIONS, replica_count, w->pool, &w->nodes));
}

static inline void world_close(struct world *w)
{
    assert_int_equal(w->nodes->open_calls, 0);
    nodes_memory_settle(w->nodes);
    pool_close(w->pool);
}

/* In some turns nobody of the nodes asks, in others one of them does. */
static inline void own_maybe(struct world *w, struct test_random *random)
{
    uint32_t own = (uint32_t)test_random_below(random, w->nodes->node_count + 1);
    if (own > 0)
        assert_ok(nodes_memory_be(w->nodes, own - 1));
}

/* Reads of the node that asks, which do only where there are series. */
static inline bool reads_fail(const struct nodes_memory *nodes)
{
    if (nodes->own == 0)
        return false;
    enum node_fault fault = nodes->nodes[nodes->own - 1].fault;
    return fault == NODE_BREAKS || fault == NODE_LIES;
}

/* ---- comparing ---- */

struct one {
    struct slice labels;
    struct sample_columns columns;
    struct source_exemplar *exemplars;
    size_t exemplar_count;
};

static inline int by_labels(const void *a, const void *b)
{
    return slice_compare(((const struct one *)a)->labels, ((const struct one *)b)->labels);
}

/* Everything a set holds, in the order of labels. */
static inline size_t read_all(const struct source_table *table, struct source_set *set, struct pool *pool,
                              bool exemplars, struct one **out)
{
    size_t count = table->set_count(set);
    struct source_reader *reader;
    void *at;
    assert_ok(pool_zalloc(pool, (count + 1) * sizeof(struct one), &at));
    struct one *ones = at;
    assert_ok(table->reader_open(set, &reader));
    for (size_t i = 0; i < count; i++) {
        struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
        ones[i].columns = sample_columns_open(pool);
        assert_ok(table->read_labels(reader, i, &labels));
        ones[i].labels = buf_slice(&labels);
        assert_ok(table->read_samples(reader, i, &ones[i].columns));
        if (exemplars)
            assert_ok(table->set_exemplars(set, i, pool, &ones[i].exemplars, &ones[i].exemplar_count));
    }
    table->reader_close(reader);
    qsort(ones, count, sizeof *ones, by_labels);
    *out = ones;
    return count;
}

static inline void rows_compare(const struct sample_columns *a, const struct sample_columns *b)
{
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        assert_true(a->t_ms[i] == b->t_ms[i] && double_bits(a->values[i]) == double_bits(b->values[i]));
        assert_true((a->start_ms == NULL ? 0 : a->start_ms[i]) == (b->start_ms == NULL ? 0 : b->start_ms[i]));
    }
    assert_int_equal(a->histogram_count, b->histogram_count);
    for (size_t i = 0; i < a->histogram_count; i++) {
        assert_int_equal(a->histograms[i].row, b->histograms[i].row);
        assert_true(slice_equal(a->histograms[i].bytes, b->histograms[i].bytes));
    }
}

static inline void ones_compare(const struct one *want, const struct one *got, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_true(slice_equal(want[i].labels, got[i].labels));
        rows_compare(&want[i].columns, &got[i].columns);
        assert_int_equal(want[i].exemplar_count, got[i].exemplar_count);
        for (size_t k = 0; k < want[i].exemplar_count; k++) {
            assert_true(want[i].exemplars[k].t_ms == got[i].exemplars[k].t_ms);
            assert_true(want[i].exemplars[k].value == got[i].exemplars[k].value);
            assert_true(slice_equal(want[i].exemplars[k].labels, got[i].exemplars[k].labels));
        }
    }
}

/* Partitions asked for and not named as missing. */
static inline uint64_t not_missing(const struct proof *proof, uint64_t asked)
{
    for (size_t i = 0; i < proof->missing_count; i++)
        asked &= ~(UINT64_C(1) << proof->missing[i].partition);
    return asked;
}

static inline void proofs_compare(const struct proof *want, const struct proof *got)
{
    assert_int_equal(want->complete, got->complete);
    assert_int_equal(want->data_through_ms, got->data_through_ms);
    assert_int_equal(want->partition_count, got->partition_count);
    for (size_t i = 0; i < want->partition_count; i++) {
        assert_int_equal(want->partitions[i].partition, got->partitions[i].partition);
        assert_int_equal(want->partitions[i].generation, got->partitions[i].generation);
        assert_int_equal(want->partitions[i].applied_offset, got->partitions[i].applied_offset);
        assert_int_equal(want->partitions[i].end_offset, got->partitions[i].end_offset);
    }
    assert_int_equal(want->missing_count, got->missing_count);
}

static inline size_t ones_keep(const struct world *w, struct one *ones, size_t count, uint64_t partitions)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if ((partitions >> source_memory_partition(&w->whole, ones[i].labels) & 1) != 0)
            ones[kept++] = ones[i];
    return kept;
}

/* What the nodes answered against what the whole has of all that they did not name as missing. Returns the
 * missing partitions. */
static inline uint64_t compare_set(struct world *w, const struct source_request *request,
                                   struct source_set *got_set, struct pool *pool, bool exemplars)
{
    const struct source_table *remote = w->nodes->source->table, *local = w->whole.source.table;
    struct source_set *want_set;
    struct one *got, *want;
    uint64_t asked = request->partitions != NULL ? request->partitions[0] : (UINT64_C(1) << PARTITIONS) - 1;
    size_t count = read_all(remote, got_set, pool, exemplars, &got);
    const struct proof *proof = remote->set_proof(got_set);
    uint64_t left = not_missing(proof, asked);
    if (w->nodes->own != 0) /* reading may find out what its own series lack */
        count = ones_keep(w, got, count, left);
    assert_int_equal(proof->complete, left == asked);
    struct source_request rest = *request;
    rest.partitions = &left;
    assert_ok(local->select(&w->whole.source, &rest, pool, &want_set));
    assert_int_equal(count, read_all(local, want_set, pool, exemplars, &want));
    ones_compare(want, got, count);
    if (left == asked)
        proofs_compare(local->set_proof(want_set), proof);
    local->set_close(want_set);
    return asked & ~left;
}

static inline uint64_t ask_both(struct world *w, const struct source_request *request, bool exemplars)
{
    struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
    struct source_set *set;
    assert_ok(w->nodes->source->table->select(w->nodes->source, request, pool, &set));
    uint64_t missing = compare_set(w, request, set, pool, exemplars);
    w->nodes->source->table->set_close(set);
    pool_close(pool);
    return missing;
}

struct question {
    struct matcher matchers[2];
    uint64_t partitions;
    struct source_request request;
};

static inline void question_make(struct world *w, struct test_random *random, struct question *q)
{
    static const char *const names[] = { "a_total", "b", "none" };
    int64_t from_ms = (int64_t)test_random_below(random, 500000);
    *q = (struct question){ .partitions = test_random_u64(random) & ((UINT64_C(1) << PARTITIONS) - 1) };
    q->request =
        (struct source_request){ .tenant = TENANT,
                                 .matchers = q->matchers,
                                 .matcher_count = test_random_below(random, 3),
                                 .range = { from_ms, from_ms + (int64_t)test_random_below(random, 500000) },
                                 .series_max = SIZE_MAX,
                                 .guard = &w->guard };
    if (test_random_below(random, 3) == 0)
        q->request.range = EVERYTHING;
    if (test_random_below(random, 2) == 0)
        q->request.partitions = &q->partitions;
    assert_ok(matcher_init(w->pool, MATCH_EQUAL, slice_str("__name__"),
                           slice_str(names[test_random_below(random, 3)]), &q->matchers[0], NULL));
    assert_ok(
        matcher_init(w->pool, MATCH_REGEX, slice_str("group"), slice_str("g[0-4]"), &q->matchers[1], NULL));
}

static inline void question_done(struct question *q)
{
    matcher_done(&q->matchers[0]);
    matcher_done(&q->matchers[1]);
}

/* ---- asking only ---- */

static inline struct source_request all_of(struct world *w)
{
    return (struct source_request){
        .tenant = TENANT, .range = EVERYTHING, .series_max = SIZE_MAX, .guard = &w->guard
    };
}

static inline err select_only(struct world *w, const struct source_request *request)
{
    struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
    struct source_set *set;
    err e = w->nodes->source->table->select(w->nodes->source, request, pool, &set);
    if (e == OK)
        w->nodes->source->table->set_close(set);
    pool_close(pool);
    assert_int_equal(w->nodes->open_calls, 0);
    return e;
}

#endif
