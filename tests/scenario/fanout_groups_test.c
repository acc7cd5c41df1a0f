/* Units over nodes: aggregations that are evaluated where their series are. Goal: over nodes that send groups a
 * query answers as over one source that has all series: values, annotations, proof, what was read; nothing counts
 * twice and nothing is lost when nodes fail, are slow, hand over partitions, or know no groups; what cannot be
 * taken apart still moves rows. Method: that of fanout_test.c; queries are put together from parts, and bytes tell
 * what moved. */
#include "base/stat.h"
#include "promql/promql.h"
#include "scenario/fanout_world.h"

#include <math.h>

#define ALL              ((UINT64_C(1) << PARTITIONS) - 1)
#define ROWS             300
#define QUERY_TEXT_BYTES 400

/* ---- data ---- */

static double value_of(struct test_random *random, unsigned number, double before)
{
    double more = (double)test_random_below(random, 100000) / 1000;
    switch (number % 3) {
    case 0:
        return test_random_below(random, 40) == 0 ? more : before + more; /* a counter */
    case 1:
        return more - 50;
    default:
        return test_random_below(random, 50) == 0 ? NAN : more * 1e6;
    }
}

static void values_fill(struct world *w, struct test_random *random)
{
    for (unsigned i = 0; i < w->whole.count; i++) {
        struct sample_columns *c = &w->whole.series[i].columns;
        int64_t t_ms = (int64_t)test_random_below(random, 20000);
        double v = 0;
        *c = sample_columns_open(w->pool);
        for (unsigned k = 0; k < ROWS; k++) {
            t_ms += 1000 + (test_random_below(random, 30) == 0 ? 20000 : 0);
            v = value_of(random, i, v);
            bool is_stale = test_random_below(random, 25) == 0;
            assert_ok(sample_columns_add(c, t_ms, is_stale ? bits_double(SAMPLE_STALE_BITS) : v, 0));
        }
    }
    for (uint32_t i = 0; i < w->nodes->node_count; i++) /* nodes have the series by copies of the list */
        w->nodes->nodes[i].source.series = w->whole.series;
}

static void groups_open(struct world *w, struct test_random *random, uint32_t node_count,
                        uint32_t replica_count)
{
    world_open(w, random, node_count, replica_count);
    values_fill(w, random);
}

/* ---- asking and comparing ---- */

struct asked {
    struct pool *pool;
    struct promql_result result;
    struct err_at at;
    err e;
};

struct times {
    int64_t start_ms, end_ms, step_ms;
};

static const struct times at_once = { 150000, 150000, 0 }, in_steps = { 60000, 300000, 7000 };

static struct asked ask_within(struct world *w, struct source *source, const char *text,
                               const struct times *times, const uint64_t *partitions, struct pool *pool)
{
    struct asked asked = { .pool = pool };
    struct promql_expr *expr;
    asked.e = promql_parse(slice_str(text), pool, &expr, &asked.at);
    if (asked.e != OK)
        return asked;
    struct promql_request request = { .expr = expr,
                                      .source = source,
                                      .tenant = TENANT,
                                      .start_ms = times->start_ms,
                                      .end_ms = times->end_ms,
                                      .step_ms = times->step_ms,
                                      .lookback_ms = 30000,
                                      .partitions = partitions,
                                      .guard = &w->guard };
    asked.e = promql_eval(&request, pool, &asked.result, &asked.at);
    promql_expr_done(expr);
    return asked;
}

static struct asked ask_for(struct world *w, struct source *source, const char *text,
                            const struct times *times, const uint64_t *partitions)
{
    return ask_within(w, source, text, times, partitions, pool_open(NULL, "query", POOL_BYTES_UNLIMITED));
}

static bool is_near(double a, double b)
{
    if (isnan(a) || isnan(b) || isinf(a) || isinf(b))
        return (isnan(a) && isnan(b)) || a == b;
    return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b)) + 1e-12;
}

static int by_bytes(const void *a, const void *b)
{
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

static void notes_compare(struct slice *want, size_t want_count, struct slice *got, size_t got_count)
{
    assert_int_equal(want_count, got_count);
    if (want_count > 0) {
        qsort(want, want_count, sizeof *want, by_bytes);
        qsort(got, got_count, sizeof *got, by_bytes);
    }
    for (size_t i = 0; i < want_count; i++)
        assert_true(slice_equal(want[i], got[i]));
}

static void series_compare(const struct promql_series *want, const struct promql_series *got,
                           const char *text)
{
    assert_true(slice_equal(want->labels, got->labels));
    assert_int_equal(want->count, got->count);
    for (size_t i = 0; i < want->count; i++) {
        assert_true(want->t_ms[i] == got->t_ms[i]);
        if (!is_near(want->values[i], got->values[i]))
            fail_msg("%s at %lld: %.17g, and over nodes %.17g", text, (long long)want->t_ms[i],
                     want->values[i], got->values[i]);
    }
}

static void answers_compare(const struct asked *want, const struct asked *got, const char *text)
{
    if (want->e != got->e)
        fail_msg("%s: %d %s, and over nodes %d %s", text, want->e, want->at.text, got->e, got->at.text);
    assert_string_equal(want->at.text, got->at.text);
    if (want->e != OK)
        return;
    const struct promql_result *a = &want->result, *b = &got->result;
    assert_int_equal(a->series_count, b->series_count);
    for (size_t i = 0; i < a->series_count; i++)
        series_compare(&a->series[i], &b->series[i], text);
    notes_compare(a->warnings, a->warning_count, b->warnings, b->warning_count);
    notes_compare(a->infos, a->info_count, b->infos, b->info_count);
    assert_true(a->stats.samples_loaded == b->stats.samples_loaded);
    assert_true(a->stats.series_loaded == b->stats.series_loaded);
}

struct moved {
    uint64_t rows, groups; /* bytes */
};

/* Over nodes and over one source of the partitions that are not named as missing, which are returned. */
static uint64_t ask_nodes_and_one(struct world *w, const char *text, const struct times *times,
                                  struct moved *out_moved)
{
    w->guard.rows_bytes = w->guard.groups_bytes = w->guard.samples_used = 0;
    struct asked got = ask_for(w, w->nodes->source, text, times, NULL);
    *out_moved = (struct moved){ w->guard.rows_bytes, w->guard.groups_bytes };
    uint64_t read = w->guard.samples_used, left = got.e == OK ? not_missing(&got.result.proof, ALL) : ALL;
    w->guard.samples_used = 0;
    struct asked want = ask_for(w, &w->whole.source, text, times, &left);
    answers_compare(&want, &got, text);
    if (got.e == OK) {
        assert_true(read == w->guard.samples_used);
        assert_int_equal(got.result.proof.complete, left == ALL);
        assert_int_equal(got.result.proof.partition_count, __builtin_popcountll(left));
    }
    pool_close(want.pool);
    pool_close(got.pool);
    return ALL & ~left;
}

/* ---- what is taken apart ---- */

static const char *const aggregations[] = {
    "sum", "count", "min", "max", "avg", "group", "stddev", "stdvar"
};
static const char *const groupings[] = { "", " by (group)", " without (number, __name__)",
                                         " by (__name__, group)", " by (number)" };
static const char *const instant_operands[] = {
    "b", "a_total{group=~\"g[0-4]\"}", "{__name__=~\".+\"}", "b offset 20s", "b @ 100", "none"
};
static const char *const other_operands[] = { "rate(a_total[1m])",
                                              "increase({__name__=~\"a_total|b\"}[90s] offset 10s)",
                                              "avg_over_time(b[45s])",
                                              "count_over_time(c_seconds[45s])",
                                              "quantile_over_time(1.5, b[45s])",
                                              "predict_linear(b[60s], 30)",
                                              "last_over_time(b[30s] @ end())",
                                              "-b",
                                              "abs(b) * 8 > bool 3",
                                              "100 - (b > 2)",
                                              "clamp(c_seconds, 1, time())",
                                              "timestamp(b)",
                                              "max_over_time(rate(a_total[30s])[1m:10s])",
                                              "((b ^ 2))" };

static void aggregate_all(struct world *w, const char *const *operands, size_t operand_count)
{
    char text[QUERY_TEXT_BYTES];
    struct moved moved;
    for (size_t o = 0; o < operand_count; o++)
        for (size_t a = 0; a < sizeof aggregations / sizeof *aggregations; a++)
            for (int i = 0; i < 2; i++) {
                const char *grouping = groupings[(o + a * 2 + (size_t)i * 3) % 5];
                snprintf(text, sizeof text, "%s%s (%s)", aggregations[a], grouping, operands[o]);
                assert_int_equal(ask_nodes_and_one(w, text, i == 0 ? &at_once : &in_steps, &moved), 0);
                assert_true(moved.rows == 0 && moved.groups > 0);
            }
}

static void aggregations_of_selectors_move_groups(void **state)
{
    struct test_random random = test_random_begin("selectors");
    struct world w;
    groups_open(&w, &random, 4, 2);
    w.nodes->cut = 1000;
    aggregate_all(&w, instant_operands, sizeof instant_operands / sizeof *instant_operands);
    world_close(&w);
}

static void aggregations_of_functions_move_groups(void **state)
{
    struct test_random random = test_random_begin("functions");
    struct world w;
    groups_open(&w, &random, 4, 2);
    aggregate_all(&w, other_operands, sizeof other_operands / sizeof *other_operands);
    world_close(&w);
}

/* Order and ties are those over one source: answers are compared in their order, and values of count_over_time
 * and ceil are the same for many. */
static void best_and_counted_rows_move_alone(void **state)
{
    static const char *const texts[] = {
        "topk(3, b)",
        "bottomk(2, a_total)",
        "topk by (group) (2, {__name__=~\".+\"})",
        "bottomk without (number) (1, c_seconds)",
        "topk by (group) (4, count_over_time({__name__=~\"a_total|b\"}[45s]))",
        "bottomk(7, ceil(b / 20))",
        "topk(1000, rate(a_total[1m]))",
        "topk(time() / 100, b)",
        "topk(0, b)",
        "bottomk(1.9, none)",
        "count(topk(5, b > 0))",
        "topk by (group) (1, max_over_time(topk(3, b)[1m:10s]))",
        "count_values(\"v\", ceil(b / 20))",
        "count_values by (group) (\"v\", count_over_time({__name__=~\".+\"}[45s]))",
        "count_values without (group) (\"number\", ceil(c_seconds / 1e7))",
        "count_values without (v, number) (\"v\", b > bool 0)",
        "sum by (v) (count_values by (group) (\"v\", a_total > bool 100))",
    };
    struct test_random random = test_random_begin("best");
    struct world w;
    struct moved moved;
    groups_open(&w, &random, 4, 2);
    own_maybe(&w, &random);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (int k = 0; k < 2; k++) {
            assert_int_equal(ask_nodes_and_one(&w, texts[i], k == 0 ? &at_once : &in_steps, &moved), 0);
            assert_true(moved.rows == 0 && moved.groups > 0);
        }
    world_close(&w);
}

/* Who refuses says it as over one source. */
static void numbers_k_and_names_may_be_wrong(void **state)
{
    static const char *const texts[] = { "topk(0 / 0, b)", "bottomk(1e30, b)", "topk(-1e30, b)",
                                         "count_values(\"\", b)" };
    struct test_random random = test_random_begin("wrong");
    struct world w;
    struct moved moved;
    groups_open(&w, &random, 3, 1);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_int_equal(ask_nodes_and_one(&w, texts[i], &at_once, &moved), 0);
    world_close(&w);
}

/* Around units, and inside of what is evaluated at other steps than the query's. */
static void units_are_found_anywhere(void **state)
{
    static const char *const texts[] = {
        "topk(3, sum by (number) (b))",
        "sum by (group) (b) / on (group) count by (group) (a_total)",
        "sum(max by (group) (rate(a_total[1m])))",
        "max_over_time(sum by (group) (b)[2m:15s])",
        "histogram_quantile(0.5, sum by (le) (b))",
        "scalar(sum(b)) + vector(1)",
        "absent(none{x=\"y\"})",
        "absent(b > 1e9)",
        "absent_over_time(none[1m])",
        "sum(b @ end()) + sum(b @ start())",
        "label_replace(avg by (group) (b), \"to\", \"$1\", \"group\", \"g(.*)\")",
        "sum(\n  rate(b[1m]) # what is told of places is told of the whole text\n)",
    };
    struct test_random random = test_random_begin("anywhere");
    struct world w;
    struct moved moved;
    groups_open(&w, &random, 3, 1);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (int k = 0; k < 2; k++) {
            assert_int_equal(ask_nodes_and_one(&w, texts[i], k == 0 ? &at_once : &in_steps, &moved), 0);
            assert_true(moved.rows == 0 && moved.groups > 0);
        }
    world_close(&w);
}

static void what_is_not_taken_apart_moves_rows(void **state)
{
    static const char *const texts[] = {
        "topk(scalar(count(a_total)), b)",
        "topk(2, b + on (number) b)",
        "quantile by (group) (0.9, b)",
        "sum(b + on (number) b)",
        "sum(b * scalar(b))",
        "sum by (to) (label_replace(b, \"to\", \"$1\", \"group\", \"g(.*)\"))",
        "b",
        "rate(a_total[1m])",
    };
    struct test_random random = test_random_begin("rows");
    struct world w;
    struct moved moved;
    groups_open(&w, &random, 3, 1);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(ask_nodes_and_one(&w, texts[i], &in_steps, &moved), 0);
        assert_true(moved.rows > 0 && (i == 0 || moved.groups == 0)); /* the number k moves as a group */
    }
    assert_int_equal(ask_nodes_and_one(&w, "sum(b) + on () quantile(0.5, b)", &in_steps, &moved), 0);
    assert_true(moved.rows > 0 && moved.groups > 0);
    world_close(&w);
}

/* ---- numbers ---- */

/* One series a node: its state merges with those of the others alone. */
static void one_a_node(struct world *w, struct pool *pool, const double *values, uint32_t count)
{
    *w = (struct world){ .pool = pool, .guard = { .deadline_ns = INT64_MAX, .samples_max = UINT64_MAX } };
    source_memory_init(&w->whole, pool);
    w->whole.partition_count = PARTITIONS;
    for (uint32_t i = 0, number = 0; i < count; number++) {
        struct slice labels = labels_of(pool, "b", number);
        struct source_memory_series *series;
        if (source_memory_partition(&w->whole, labels) != i / 2)
            continue;
        assert_ok(source_memory_series(&w->whole, labels, &series));
        assert_ok(source_memory_add(series, at_once.start_ms, values[i++]));
    }
    assert_ok(nodes_memory_open(&w->whole, 5, PARTITIONS, 1, pool, &w->nodes));
}

static double value_over_nodes(struct world *w, const char *text)
{
    struct asked got = ask_for(w, w->nodes->source, text, &at_once, NULL);
    assert_ok(got.e);
    assert_int_equal(got.result.series_count, 1);
    double value = got.result.series[0].values[0];
    pool_close(got.pool);
    return value;
}

static void what_was_rounded_off_travels(void **state)
{
    static const double small[] = { 1e16, 1, 3e15, 1, -1e16, -3e15 };
    static const double large[] = { 1.5e308, 1.5e308, 1.7e308, 1.7e308, 1.6e308, 1.6e308 };
    struct world w;
    one_a_node(&w, pool_open(NULL, "test", POOL_BYTES_UNLIMITED), small, 6);
    assert_true(value_over_nodes(&w, "sum(b)") == 2);
    assert_true(is_near(value_over_nodes(&w, "avg(b)"), 2.0 / 6));
    world_close(&w);
    one_a_node(&w, pool_open(NULL, "test", POOL_BYTES_UNLIMITED), large, 6);
    assert_true(isinf(value_over_nodes(&w, "sum(b)")));
    assert_true(is_near(value_over_nodes(&w, "avg(b)"), 1.6e308));
    world_close(&w);
}

/* 40 series in 7 groups at 35 steps. The metrics tell what queries do. */
static void groups_are_small(void **state)
{
    struct test_random random = test_random_begin("bytes");
    struct world w;
    struct moved groups, rows;
    int64_t groups_before = stat_get(STAT_FANOUT_GROUPS_BYTES),
            rows_before = stat_get(STAT_FANOUT_ROWS_BYTES);
    groups_open(&w, &random, 3, 1);
    assert_int_equal(ask_nodes_and_one(&w, "sum by (group) (rate(a_total[1m]))", &in_steps, &groups), 0);
    assert_int_equal(ask_nodes_and_one(&w, "quantile by (group) (0.5, rate(a_total[1m]))", &in_steps, &rows),
                     0);
    assert_true((uint64_t)(stat_get(STAT_FANOUT_GROUPS_BYTES) - groups_before) == groups.groups);
    assert_true((uint64_t)(stat_get(STAT_FANOUT_ROWS_BYTES) - rows_before) == rows.rows);
    print_message("%llu bytes of groups, %llu bytes of rows\n", (unsigned long long)groups.groups,
                  (unsigned long long)rows.rows);
    assert_true(groups.groups * 4 < rows.rows);
    world_close(&w);
}

/* ---- histograms ---- */

static void histograms_fall_back_to_rows(void **state)
{
    struct test_random random = test_random_begin("histograms");
    struct world w;
    struct moved moved;
    groups_open(&w, &random, 3, 2);
    struct sample_columns *c = &w.whole.series[0].columns;
    int64_t from_ms = c->t_ms[c->count - 1];
    for (int i = 1; i <= 60; i++)
        assert_ok(sample_columns_add_histogram(c, from_ms + i * 1000, histogram_of(w.pool, &random), 0));
    struct times times = { from_ms + 30000, from_ms + 50000, 10000 };
    const char *const all = "{__name__=~\".+\"}";
    char text[QUERY_TEXT_BYTES];
    snprintf(text, sizeof text, "count by (group) (%s)", all);
    assert_int_equal(ask_nodes_and_one(&w, text, &times, &moved), 0);
    assert_true(moved.rows == 0 && moved.groups > 0);
    snprintf(text, sizeof text, "sum by (group) (%s)", all);
    assert_int_equal(ask_nodes_and_one(&w, text, &times, &moved),
                     0); /* fails as over one source, in its words */
    assert_true(moved.rows > 0);
    world_close(&w);
}

/* ---- faults ---- */

static uint64_t without_healthy(const struct nodes_memory *nodes)
{
    uint64_t lost = 0;
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        bool is_healthy = false;
        for (uint32_t i = 0; i < nodes->replica_count; i++)
            is_healthy |= nodes->nodes[(p + i) % nodes->node_count].fault == NODE_FINE;
        lost |= (uint64_t)!is_healthy << p;
    }
    return lost;
}

static void faults_are_made_good_or_named(void **state)
{
    static const char *const texts[] = { "sum by (group) (b)", "topk(3, rate(a_total[1m]))",
                                         "count_values without (number) (\"v\", ceil(b / 20))",
                                         "max by (number) (c_seconds)" };
    struct test_random random = test_random_begin("faults");
    unsigned made_good = 0, named = 0;
    struct world w;
    struct moved moved;
    for (unsigned turn = 0; turn < 200; turn++) {
        if (turn % 20 == 0) {
            groups_open(&w, &random, 5, 1 + turn / 20 % 3);
            own_maybe(&w, &random);
        }
        w.nodes->cut = 1 + test_random_below(&random, 3000);
        for (uint32_t i = 0; i < 5; i++) {
            struct node_memory *node = &w.nodes->nodes[i];
            node->fault = test_random_below(&random, 2) == 0
                              ? NODE_FINE
                              : (enum node_fault)test_random_below(&random, NODE_HANGS + 1);
            node->fault_at = (size_t)test_random_u64(&random);
            node->delay_ns = (int64_t)test_random_below(&random, 200) * NS_PER_MS;
        }
        w.guard.deadline_ns = w.nodes->now_ns + 60 * NS_PER_SECOND;
        uint64_t lost = without_healthy(w.nodes);
        uint64_t missing =
            ask_nodes_and_one(&w, texts[turn % 4], turn % 8 < 4 ? &at_once : &in_steps, &moved);
        assert_true(missing == lost || ((missing & ~lost) == 0 && reads_fail(w.nodes)));
        assert_true(moved.rows == 0);
        made_good += lost == 0;
        named += lost != 0;
        if (turn % 20 == 19)
            world_close(&w);
    }
    assert_true(made_good > 5 && named > 5);
}

static void every_byte_of_an_answer_may_be_damaged(void **state)
{
    static const enum node_fault faults[] = { NODE_BREAKS, NODE_STOPS, NODE_LIES, NODE_RAMBLES };
    struct test_random random = test_random_begin("damage");
    struct world w;
    struct moved moved;
    groups_open(&w, &random, 2, 2);
    assert_int_equal(ask_nodes_and_one(&w, "avg by (group) (b)", &at_once, &moved), 0);
    for (size_t at = 0; at < moved.groups / 2; at++) {
        w.nodes->nodes[0].fault = faults[at % 4];
        w.nodes->nodes[0].fault_at = at;
        assert_int_equal(ask_nodes_and_one(&w, "avg by (group) (b)", &at_once, &moved), 0);
    }
    world_close(&w);
}

typedef uint32_t routes[PARTITIONS][FANOUT_REPLICA_COUNT_MAX];

static void routes_take(struct world *w, const routes *r)
{
    w->nodes->routes = *r;
    for (uint32_t i = 0; i < w->nodes->node_count; i++)
        w->nodes->nodes[i].held[0] = 0;
    for (uint32_t p = 0; p < PARTITIONS; p++)
        for (uint32_t i = 0; i < w->nodes->replica_count; i++)
            w->nodes->nodes[(*r)[p][i]].held[0] |= UINT64_C(1) << p;
}

/* A hedge for partitions 0 and 1 is done, or at work, when the slow node comes and has all but 0: what it counts
 * of 1 must not count again. In the last turn nobody else has 0: the hedge's node is asked once more. */
static void hedges_do_not_count_twice(void **state)
{
    static const routes r = { { 0, 1, 2 }, { 0, 1, 2 }, { 0, 2, 2 }, { 1, 2, 0 }, { 1, 2, 0 }, { 1, 2, 0 },
                              { 1, 2, 0 }, { 1, 2, 0 }, { 1, 2, 0 }, { 1, 2, 0 }, { 1, 2, 0 }, { 2, 2, 2 } };
    struct test_random random = test_random_begin("hedges");
    for (int i = 0; i < 3; i++) {
        struct world w;
        struct moved moved;
        groups_open(&w, &random, 3, 3);
        routes_take(&w, &r);
        w.nodes->nodes[0].held[0] = 2 | 4; /* partition 0 was handed over */
        w.nodes->nodes[0].delay_ns = (i == 1 ? 180 : 300) * NS_PER_MS;
        w.nodes->nodes[1].delay_ns = i == 1 ? 50 * NS_PER_MS : 0; /* 1: the hedge begins at 150 ms */
        w.nodes->nodes[2].delay_ns =
            500 * NS_PER_MS; /* for partition 11; as a hedge for 2 it comes too late */
        if (i == 2)
            w.nodes->nodes[2].held[0] &= ~UINT64_C(7);
        assert_int_equal(ask_nodes_and_one(&w, "sum(b)", &at_once, &moved), 0);
        assert_int_equal(w.nodes->nodes[1].asked, 3); /* its own, the hedge, and partition 0 alone */
        world_close(&w);
    }
}

/* Groups are made whole before the first goes out. */
static void a_node_that_is_at_work_is_not_hedged(void **state)
{
    static const routes r = { { 0, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 },
                              { 0, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 } };
    struct test_random random = test_random_begin("at work");
    struct world w;
    struct moved moved;
    groups_open(&w, &random, 2, 2);
    routes_take(&w, &r);
    w.nodes->nodes[0].delay_ns = 5 * NS_PER_SECOND;
    w.nodes->nodes[0].is_at_work = true;
    assert_int_equal(ask_nodes_and_one(&w, "sum(b)", &at_once, &moved), 0);
    assert_int_equal(w.nodes->nodes[1].asked, 0);
    w.nodes->nodes[0].is_at_work = false;
    assert_int_equal(ask_nodes_and_one(&w, "sum(b)", &at_once, &moved), 0);
    assert_int_equal(w.nodes->nodes[1].asked, 1);
    world_close(&w);
}

static void what_a_node_does_not_hold_is_asked_elsewhere(void **state)
{
    struct test_random random = test_random_begin("moved");
    struct world w;
    struct moved moved;
    groups_open(&w, &random, 3, 2);
    w.nodes->nodes[0].held[0] = 0;
    assert_int_equal(ask_nodes_and_one(&w, "count by (group) (b)", &in_steps, &moved), 0);
    w.nodes->nodes[1].held[0] &= ~UINT64_C(1);
    assert_int_equal(ask_nodes_and_one(&w, "count by (group) (b)", &in_steps, &moved), 1);
    w.nodes->nodes[2].fault = NODE_OMITS;
    assert_int_equal(ask_nodes_and_one(&w, "count by (group) (b)", &in_steps, &moved) & ~UINT64_C(5), 0);
    world_close(&w);
}

/* A node of a version without groups. */
static void a_node_that_knows_no_groups_is_asked_for_rows(void **state)
{
    struct test_random random = test_random_begin("old");
    struct world w;
    struct moved moved;
    groups_open(&w, &random, 3, 2);
    w.nodes->nodes[1].fault = NODE_OLD;
    assert_int_equal(ask_nodes_and_one(&w, "sum by (group) (b)", &in_steps, &moved), 0);
    assert_true(moved.rows > 0);
    world_close(&w);
}

/* ---- bounds ---- */

static void bounds_hold_over_all_nodes(void **state)
{
    struct test_random random = test_random_begin("bounds");
    struct world w;
    char text[GUARD_TEXT_BYTES];
    struct moved moved;
    groups_open(&w, &random, 3, 2);
    assert_int_equal(ask_nodes_and_one(&w, "sum(b)", &in_steps, &moved), 0);
    uint64_t samples = w.guard.samples_used;
    for (uint64_t less = 0; less < 2; less++) {
        w.guard = (struct guard){ .deadline_ns = INT64_MAX, .samples_max = samples - less };
        struct asked got = ask_for(&w, w.nodes->source, "sum(b)", &in_steps, NULL);
        assert_err(less == 0 ? OK : ERR_LIMIT, got.e);
        assert_true(less == 0 || strstr(got.at.text, "query processing would load more than") != NULL);
        pool_close(got.pool);
    }
    w.guard = (struct guard){ .deadline_ns = INT64_MAX, .samples_max = UINT64_MAX };
    struct source_groups groups;
    struct source_unit unit = { .text = slice_str("sum(b)"),
                                .end = 6,
                                .step_count = 1,
                                .column_count = 2,
                                .lookback_ms = 1000,
                                .subquery_step_ms = 1000,
                                .start_ms = 150000 };
    struct source_request request = all_of(&w);
    request.series_max = 20; /* all nodes have more together, and none by itself */
    assert_err(ERR_LIMIT, w.nodes->source->table->groups(w.nodes->source, &request, &unit, w.pool, &groups));
    guard_limit_text(&w.guard, text);
    assert_string_equal(text, "a selector matches more than 20 series");
    world_close(&w);
}

static void a_canceled_query_leaves_no_calls(void **state)
{
    struct test_random random = test_random_begin("cancel");
    struct world w;
    groups_open(&w, &random, 3, 2);
    for (uint32_t i = 0; i < 3; i++)
        w.nodes->nodes[i].fault = NODE_HANGS;
    w.guard.canceled = true;
    struct asked got = ask_for(&w, w.nodes->source, "sum(b)", &in_steps, NULL);
    assert_err(ERR_CANCELED, got.e);
    pool_close(got.pool);
    world_close(&w);
}

static void positions_travel(void **state)
{
    struct test_random random = test_random_begin("positions");
    struct source_position after[] = { { 3, 1, 1003 }, { 5, 1, 1006 }, { 9, 2, 0 } };
    struct source_groups groups;
    struct world w;
    groups_open(&w, &random, 3, 1);
    struct source_unit unit = { .text = slice_str("sum(none)"),
                                .end = 9,
                                .step_count = 1,
                                .column_count = 2,
                                .lookback_ms = 1000,
                                .subquery_step_ms = 1000 };
    struct source_request request = all_of(&w);
    request.after = after;
    request.after_count = 3;
    assert_ok(w.nodes->source->table->groups(w.nodes->source, &request, &unit, w.pool, &groups));
    assert_int_equal(not_missing(&groups.proof, ALL), ALL & ~(UINT64_C(1) << 5 | UINT64_C(1) << 9));
    assert_string_equal(groups.proof.missing[0].reason, PROOF_NOT_APPLIED);
    world_close(&w);
}

static void every_allocation_may_fail(void **state)
{
    struct test_random random = test_random_begin("allocations");
    struct world w;
    uint64_t failed = 0;
    groups_open(&w, &random, 2, 2);
    w.nodes->nodes[0].fault = NODE_STOPS;
    w.nodes->nodes[0].fault_at = 200;
    for (uint64_t nth = 1, seen = nth; seen + 1 >= nth; nth++) {
        struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
        pool_fault_at(pool, nth, false);
        struct asked got = ask_within(&w, w.nodes->source, "avg by (group) (b)", &at_once, NULL, pool);
        seen = pool_fault_count(pool);
        pool_fault_at(pool, 0, false);
        assert_true(got.e == ERR_LIMIT || got.e == OK);
        failed += got.e == ERR_LIMIT;
        pool_close(pool);
        assert_int_equal(w.nodes->open_calls, 0);
    }
    assert_true(failed > 30);
    world_close(&w);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(aggregations_of_selectors_move_groups),
        cmocka_unit_test(aggregations_of_functions_move_groups),
        cmocka_unit_test(best_and_counted_rows_move_alone),
        cmocka_unit_test(numbers_k_and_names_may_be_wrong),
        cmocka_unit_test(units_are_found_anywhere),
        cmocka_unit_test(what_is_not_taken_apart_moves_rows),
        cmocka_unit_test(what_was_rounded_off_travels),
        cmocka_unit_test(groups_are_small),
        cmocka_unit_test(histograms_fall_back_to_rows),
        cmocka_unit_test(faults_are_made_good_or_named),
        cmocka_unit_test(every_byte_of_an_answer_may_be_damaged),
        cmocka_unit_test(hedges_do_not_count_twice),
        cmocka_unit_test(a_node_that_is_at_work_is_not_hedged),
        cmocka_unit_test(what_a_node_does_not_hold_is_asked_elsewhere),
        cmocka_unit_test(a_node_that_knows_no_groups_is_asked_for_rows),
        cmocka_unit_test(bounds_hold_over_all_nodes),
        cmocka_unit_test(a_canceled_query_leaves_no_calls),
        cmocka_unit_test(positions_travel),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
