/* Goal: what scripts with a handful of series cannot show: many series in many chunks, budgets, deadlines, native
 * histograms, proofs, failing allocations. Method: generated series in the source in memory, results compared
 * with naive folds; the same query with and without a runner must agree bit for bit. */
#include "base/test.h"
#include "io/io.h"
#include "model/histogram.h"
#include "model/labels.h"
#include "model/source_memory.h"
#include "promql/promql.h"

#include <math.h>
#include <stdlib.h>

struct fixture {
    struct pool *pool;
    struct source_memory source;
    struct guard guard;
    struct promql_runner runner;
    size_t series_max;
};

static struct slice labels_of(struct pool *pool, const char *name, const char *group, unsigned number)
{
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    char text[32];
    int len = snprintf(text, sizeof text, "%u", number);
    labels_put(&labels, slice_str("__name__"), slice_str(name));
    labels_put(&labels, slice_str("group"), slice_str(group));
    labels_put(&labels, slice_str("number"), slice_of(text, (size_t)len));
    assert_ok(buf_err(&labels));
    return buf_slice(&labels);
}

static void fixture_open(struct fixture *f)
{
    *f = (struct fixture){ .pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED) };
    f->guard.deadline_ns = INT64_MAX;
    f->guard.samples_max = UINT64_MAX;
    source_memory_init(&f->source, f->pool);
}

static void fixture_fill(struct fixture *f, unsigned series_count, unsigned sample_count)
{
    for (unsigned i = 0; i < series_count; i++) {
        struct source_memory_series *series;
        assert_ok(source_memory_series(&f->source, labels_of(f->pool, "m_total", i % 3 == 0 ? "a" : "b", i),
                                       &series));
        for (unsigned k = 0; k < sample_count; k++)
            assert_ok(source_memory_add(series, k * 15000, (double)k * (1 + i % 7) + i / 10.0));
    }
}

static void run_backwards(void *context, size_t job_count, void (*job)(void *job_context, size_t index),
                          void *job_context)
{
    while (job_count > 0)
        job(job_context, --job_count);
}

static err evaluate(struct fixture *f, const char *text, int64_t step_ms, struct pool *pool,
                    struct promql_result *out, struct err_at *at)
{
    struct promql_expr *expr;
    TRY(promql_parse(slice_str(text), pool, &expr, at));
    struct promql_request request = {
        .expr = expr,
        .source = &f->source.source,
        .start_ms = step_ms == 0 ? 600000 : 0,
        .end_ms = 600000,
        .step_ms = step_ms,
        .guard = &f->guard,
        .runner = f->runner,
        .series_max = f->series_max,
    };
    err e = promql_eval(&request, pool, out, at);
    promql_expr_done(expr);
    return e;
}

static const char *const queries[] = {
    "sum(m_total)",
    "sum by (group) (rate(m_total[5m]))",
    "avg by (group) (m_total)",
    "min without (number) (m_total)",
    "max(m_total)",
    "count by (group) (m_total)",
    "stddev by (group) (m_total)",
    "stdvar(m_total * 2)",
    "quantile by (group) (0.9, m_total)",
    "topk by (group) (3, m_total)",
    "count_values(\"v\", m_total > bool 20)",
    "m_total - on(number) m_total offset 1m",
    "m_total and on(number) m_total{group=\"a\"}",
    "rate(m_total[2m])",
    "sum_over_time(m_total[5m:30s])",
    "-m_total",
    "histogram_quantile(0.5, m_total)",
};

static void test_runner_changes_nothing(void **state)
{
    struct fixture f;
    fixture_open(&f);
    fixture_fill(&f, 1000, 41);
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
        struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
        struct promql_result a, b;
        struct err_at at = { 0 };
        f.runner = (struct promql_runner){ 0 };
        if (evaluate(&f, queries[i], 30000, pool, &a, &at) != OK)
            fail_msg("%s: %s", queries[i], at.text);
        f.runner = (struct promql_runner){ .width = 4, .run = run_backwards };
        assert_ok(evaluate(&f, queries[i], 30000, pool, &b, &at));
        assert_int_equal(a.series_count, b.series_count);
        for (size_t k = 0; k < a.series_count; k++) {
            assert_true(slice_equal(a.series[k].labels, b.series[k].labels));
            assert_int_equal(a.series[k].count, b.series[k].count);
            assert_memory_equal(a.series[k].values, b.series[k].values, a.series[k].count * sizeof(double));
        }
        pool_close(pool);
    }
    pool_close(f.pool);
}

/* The value of group g ("a" or "b") of an instant result. */
static double value_of(const struct promql_result *r, const char *group)
{
    for (size_t i = 0; i < r->series_count; i++)
        if (slice_equal_str(labels_get(r->series[i].labels, slice_str("group")), group))
            return r->series[i].values[0];
    fail_msg("no group %s", group);
    return 0;
}

static void test_folds(void **state)
{
    struct fixture f;
    fixture_open(&f);
    fixture_fill(&f, 1000, 41);
    f.runner = (struct promql_runner){ .width = 4, .run = run_backwards };
    double n = 0, sum = 0, square = 0, min = INFINITY, max = -INFINITY;
    for (unsigned i = 0; i < 1000; i += 3) {
        double v = 40.0 * (1 + i % 7) + i / 10.0;
        n++;
        sum += v;
        square += v * v;
        min = fmin(min, v);
        max = fmax(max, v);
    }
    const struct {
        const char *text;
        double want;
    } cases[] = {
        { "sum by (group) (m_total)", sum },
        { "avg by (group) (m_total)", sum / n },
        { "min by (group) (m_total)", min },
        { "max by (group) (m_total)", max },
        { "count by (group) (m_total)", n },
        { "stdvar by (group) (m_total)", square / n - sum / n * (sum / n) },
        { "group by (group) (m_total)", 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
        struct promql_result r;
        struct err_at at;
        assert_ok(evaluate(&f, cases[i].text, 0, pool, &r, &at));
        assert_int_equal(2, r.series_count);
        assert_true(fabs(value_of(&r, "a") / cases[i].want - 1) < 1e-9);
        assert_true(r.proof.complete);
        assert_int_equal(1000, r.stats.series_loaded);
        pool_close(pool);
    }
    pool_close(f.pool);
}

static void test_limits(void **state)
{
    struct fixture f;
    struct promql_result r;
    struct err_at at;
    fixture_open(&f);
    fixture_fill(&f, 200, 41);
    struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
    f.guard.samples_max = 1000;
    assert_err(ERR_LIMIT, evaluate(&f, "sum(rate(m_total[5m]))", 30000, pool, &r, &at));
    assert_true(at.text[0] != 0);
    f.guard.samples_max = UINT64_MAX;
    f.guard.canceled = true;
    assert_err(ERR_CANCELED, evaluate(&f, "sum(rate(m_total[5m]))", 30000, pool, &r, &at));
    f.guard.canceled = false;
    f.series_max = 100;
    assert_err(ERR_LIMIT, evaluate(&f, "sum(m_total)", 0, pool, &r, &at));
    f.series_max = 0;
    assert_err(ERR_LIMIT, evaluate(&f, "sum_over_time(m_total[1y:1ms])", 0, pool, &r, &at));
    assert_err(ERR_INPUT, evaluate(&f, "\"text\"", 1000, pool, &r, &at));
    assert_err(ERR_INPUT, evaluate(&f, "m_total[5m]", 1000, pool, &r, &at));
    pool_close(pool);
    pool = pool_open(NULL, "query", 200000);
    assert_err(ERR_LIMIT, evaluate(&f, "m_total + m_total", 1000, pool, &r, &at));
    pool_close(pool);

    pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
    struct promql_expr *expr;
    assert_ok(promql_parse(slice_str("1"), pool, &expr, &at));
    struct promql_request request = { .expr = expr, .start_ms = 5, .end_ms = 4, .step_ms = 1 };
    assert_err(ERR_INPUT, promql_eval(&request, pool, &r, &at));
    request = (struct promql_request){ .expr = expr, .start_ms = 0, .end_ms = 1, .step_ms = 0 };
    assert_err(ERR_INPUT, promql_eval(&request, pool, &r, &at));
    request =
        (struct promql_request){ .expr = expr, .start_ms = 0, .end_ms = INT64_C(1) << 40, .step_ms = 1 };
    assert_err(ERR_LIMIT, promql_eval(&request, pool, &r, &at));
    promql_expr_done(expr);
    pool_close(pool);
    pool_close(f.pool);
}

/* The guard's clock: each look at it takes a nanosecond, so it tells how often the guard was asked since the last
 * selector was done with. */
static int64_t asked;
int64_t io_monotonic_ns(struct io *io) { return ++asked; }

static void (*source_set_close)(struct source_set *set);

static void close_and_count(struct source_set *set)
{
    source_set_close(set);
    asked = 0;
}

/* What a step of the evaluation may take minutes for asks the guard every million values or so. */
static void test_guard_is_asked(void **state)
{
    static const struct {
        const char *text;
        int64_t values;
    } cases[] = {
        { "topk(500, m)", 6000 * 1000 },
        { "bottomk(1, m)", 6000 * 1000 },
        { "quantile(0.5, m)", 6000 * 1000 },
        { "count_values(\"v\", m{number=~\"1..\"} > bool 500)", 6000 * 100 * 8 },
        /* rows that take turns in a group and never meet */
        { "even * on() group_left() odd", 3000 * 100 * 20 },
    };
    struct fixture f;
    fixture_open(&f);
    struct source_table table = *f.source.source.table;
    source_set_close = table.set_close;
    table.set_close = close_and_count;
    f.source.source.table = &table;
    f.guard.io = (struct io *)&asked;
    f.guard.deadline_ns = INT64_MAX - 1;
    for (unsigned i = 0; i < 1000; i++) {
        struct source_memory_series *series;
        assert_ok(source_memory_series(&f.source, labels_of(f.pool, "m", "a", i), &series));
        assert_ok(source_memory_add(series, 0, i * 7919 % 3001));
        assert_ok(source_memory_add(series, 300050, i));
    }
    for (unsigned i = 0; i < 120; i++) {
        struct source_memory_series *series;
        bool is_even = i < 100;
        assert_ok(
            source_memory_series(&f.source, labels_of(f.pool, is_even ? "even" : "odd", "a", i), &series));
        for (int64_t t_ms = 0; t_ms <= 600000; t_ms += 100)
            assert_ok(
                sample_columns_add(&series->columns, t_ms,
                                   (t_ms / 100 % 2 == 0) == is_even ? 1 : bits_double(SAMPLE_STALE_BITS), 0));
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
        struct promql_result r;
        struct err_at at;
        assert_ok(evaluate(&f, cases[i].text, 100, pool, &r, &at));
        if (asked < cases[i].values >> 20)
            fail_msg("%s: asked %d times", cases[i].text, (int)asked);
        pool_close(pool);
    }
    pool_close(f.pool);
}

static struct slice histogram_bytes(struct pool *pool, double sum)
{
    struct histogram h = { .sum = sum, .count_int = 3, .zero_count_int = 3, .zero_threshold = 0.001 };
    struct buf bytes = buf_open(pool, HISTOGRAM_BYTES_MAX);
    histogram_encode(&h, &bytes);
    assert_ok(buf_err(&bytes));
    return buf_slice(&bytes);
}

static void test_histograms(void **state)
{
    struct fixture f;
    struct promql_result r;
    struct err_at at;
    fixture_open(&f);
    struct source_memory_series *series;
    struct slice bytes = histogram_bytes(f.pool, 7);
    assert_ok(source_memory_series(&f.source, labels_of(f.pool, "h", "a", 1), &series));
    assert_ok(sample_columns_add_histogram(&series->columns, 500000, bytes, 0));
    assert_ok(source_memory_series(&f.source, labels_of(f.pool, "gone", "a", 1), &series));
    assert_ok(sample_columns_add_histogram(&series->columns, 400000, bytes, 0));
    assert_ok(sample_columns_add_histogram(&series->columns, 500000,
                                           histogram_bytes(f.pool, bits_double(SAMPLE_STALE_BITS)), 0));
    struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
    assert_ok(evaluate(&f, "h", 0, pool, &r, &at));
    assert_int_equal(1, r.series_count);
    assert_int_equal(1, r.series[0].histogram_count);
    assert_true(slice_equal(bytes, r.series[0].histograms[0].bytes));
    assert_ok(evaluate(&f, "h", 50000, pool, &r, &at));
    assert_int_equal(3, r.series[0].histogram_count);
    assert_ok(evaluate(&f, "{__name__=~\"h|gone\"}[10m]", 0, pool, &r, &at));
    assert_int_equal(2, r.series_count);
    assert_int_equal(1, r.series[0].count);
    assert_ok(evaluate(&f, "gone", 0, pool, &r, &at));
    assert_int_equal(0, r.series_count);
    static const char *const allowed[] = { "count(h)", "count_over_time(h[5m])", "group(h)",
                                           "present_over_time(h[5m])", "timestamp(h)" };
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        assert_ok(evaluate(&f, allowed[i], 0, pool, &r, &at));
        assert_int_equal(1, r.series_count);
    }
    assert_ok(evaluate(&f, "absent(h)", 0, pool, &r, &at));
    assert_int_equal(0, r.series_count);
    static const char *const refused[] = {
        "rate(h[5m])",
        "sum(h)",
        "-h",
        "h * 2",
        "h + h",
        "h and h",
        "histogram_quantile(0.9, h)",
        "histogram_count(h)",
        "topk(1, h)",
        "abs(h)",
        "scalar(h)",
        "sort(h)",
        "last_over_time(h[5m])",
        "max_over_time(h[5m:1m])",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (evaluate(&f, refused[i], 0, pool, &r, &at) != ERR_EXECUTION ||
            strstr(at.text, "native histograms are not supported by") == NULL ||
            strstr(at.text, "\"h\"") == NULL)
            fail_msg("%s: %s", refused[i], at.text);
    }
    pool_close(pool);
    pool_close(f.pool);
}

static struct proof proofs[4]; /* of the query's selectors */
static size_t proof_count;
static const struct proof *next_proof(struct source_set *set) { return &proofs[proof_count++ % 4]; }

/* The answer's proof: as old as the oldest, each missing range once, and no more of them than are named. */
static void test_proofs(void **state)
{
    static struct proof_missing missing[3000];
    struct fixture f;
    struct promql_result r;
    struct err_at at;
    fixture_open(&f);
    fixture_fill(&f, 1, 10);
    struct source_table table = *f.source.source.table;
    table.set_proof = next_proof;
    f.source.source.table = &table;
    for (uint32_t i = 0; i < 3000; i++)
        missing[i] = (struct proof_missing){ .partition = i % 7, .range = { i / 7, i }, .reason = "gap" };
    struct proof_partition partitions[2] = { { .partition = 3 }, { .partition = 4 } };
    proofs[0] = (struct proof){ true, 5000, partitions, 1, NULL, 0 };
    proofs[1] = (struct proof){ false, 3000, partitions, 2, missing, 2 };
    proofs[2] = (struct proof){ false, 4000, partitions, 2, missing + 1, 2 };
    proofs[3] = (struct proof){ false, 6000, partitions, 2, missing, 3000 };
    struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
    assert_ok(evaluate(&f, "m_total + m_total + m_total", 0, pool, &r, &at));
    assert_false(r.proof.complete);
    assert_int_equal(3000, r.proof.data_through_ms);
    assert_int_equal(2, r.proof.partition_count);
    assert_int_equal(3, r.proof.missing_count);
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal(&missing[i], &r.proof.missing[i], sizeof *missing);
    proof_count = 0;
    assert_ok(evaluate(&f, "m_total + m_total + m_total + m_total", 0, pool, &r, &at));
    assert_int_equal(PROOF_MISSING_COUNT_MAX, r.proof.missing_count);
    assert_memory_equal(&missing[999], &r.proof.missing[999], sizeof *missing);
    pool_close(pool);
    pool_close(f.pool);
}

/* Every allocation of an evaluation fails once: ERR_LIMIT comes back and nothing is lost or left open. */
static void test_faults(void **state)
{
    struct fixture f;
    fixture_open(&f);
    fixture_fill(&f, 70, 10);
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++)
        for (uint64_t nth = 1;; nth++) {
            struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
            struct promql_result r;
            struct err_at at;
            pool_fault_at(pool, nth, false);
            err e = evaluate(&f, queries[i], 60000, pool, &r, &at);
            pool_fault_at(pool, 0, false);
            pool_close(pool);
            if (e == OK)
                break;
            assert_err(ERR_LIMIT, e);
            nth += nth / 8;
        }
    pool_close(f.pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runner_changes_nothing),
        cmocka_unit_test(test_folds),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_guard_is_asked),
        cmocka_unit_test(test_histograms),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_proofs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
