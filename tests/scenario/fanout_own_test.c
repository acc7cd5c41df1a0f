/* What the node that asks holds itself. Goal: it is read in place, nothing of it moves, and all rules hold as
 * for what comes of other nodes: who fails, also behind its select, who is slow, who lacks something or memory
 * is made good by others or named; whoever is given up holds nothing of who asked. Method: that of
 * fanout_test.c, with one of the nodes being the one that asks; work that is given up is done only behind the
 * query's end. */
#include "promql/promql.h"
#include "scenario/fanout_http_world.h"

#define ALL  ((UINT64_C(1) << PARTITIONS) - 1)
#define OURS UINT64_C(0x249) /* partitions that routes of three nodes ask node 0 for first */

static void own_open(struct world *w, struct test_random *random, uint32_t node_count, uint32_t replica_count)
{
    world_open(w, random, node_count, replica_count);
    assert_ok(nodes_memory_be(w->nodes, 0));
}

/* ---- in place ---- */

static void what_is_here_does_not_move(void **state)
{
    struct test_random random = test_random_begin("here");
    struct world w;
    own_open(&w, &random, 1, 1);
    struct source_request request = all_of(&w);
    assert_int_equal(ask_both(&w, &request, true), 0);
    assert_int_equal(w.nodes->sent_bytes, 0);
    assert_true(w.guard.rows_bytes == 0 && w.guard.samples_used > 0);
    world_close(&w);
}

static void nodes_that_ask_answer_like_one_source(void **state)
{
    struct test_random random = test_random_begin("own");
    for (unsigned turn = 0; turn < 40; turn++) {
        struct world w;
        struct question q;
        own_open(&w, &random, 3, 1 + turn % 3);
        for (unsigned i = 0; i < 5; i++) {
            question_make(&w, &random, &q);
            assert_int_equal(ask_both(&w, &q.request, i % 2 == 0), 0);
            question_done(&q);
        }
        world_close(&w);
    }
}

/* Each row counts once: at the query's guard, when it is read. */
static void rows_are_counted_as_they_are_read(void **state)
{
    struct test_random random = test_random_begin("count");
    struct world w;
    struct source_set *set;
    struct one *ones;
    own_open(&w, &random, 1, 1);
    struct source_request request = all_of(&w);
    const struct source_table *table = w.nodes->source->table;
    assert_ok(table->select(w.nodes->source, &request, w.pool, &set));
    assert_true(w.guard.samples_used == 0);
    size_t count = read_all(table, set, w.pool, false, &ones);
    uint64_t rows = 0;
    for (size_t i = 0; i < count; i++)
        rows += ones[i].columns.count;
    assert_true(w.guard.samples_used == rows);
    w.guard.samples_max = rows; /* is used up */
    struct source_reader *reader;
    struct sample_columns columns = sample_columns_open(w.pool);
    assert_ok(table->reader_open(set, &reader));
    assert_err(ERR_LIMIT, table->read_samples(reader, 0, &columns));
    w.guard.samples_max = UINT64_MAX;
    w.guard.canceled = true; /* what cancels the query ends reading, too */
    assert_err(ERR_CANCELED, table->read_samples(reader, 0, &columns));
    table->reader_close(reader);
    table->set_close(set);
    request.series_max = SERIES / 2;
    w.guard.canceled = false;
    assert_err(ERR_LIMIT, select_only(&w, &request));
    assert_true(w.guard.series_over == SERIES / 2);
    world_close(&w);
}

/* ---- slow ---- */

static void a_slow_own_replica_is_asked_elsewhere(void **state)
{
    struct test_random random = test_random_begin("slow");
    struct world w;
    own_open(&w, &random, 3, 2);
    struct source_request request = all_of(&w);
    int64_t begin_ns = w.nodes->now_ns;
    for (uint32_t i = 0; i < 3; i++)
        w.nodes->nodes[i].delay_ns = (i == 0 ? 10000 : 20) * NS_PER_MS;
    assert_int_equal(ask_both(&w, &request, true), 0);
    assert_true(w.nodes->now_ns - begin_ns < 500 * NS_PER_MS);
    assert_int_equal(w.nodes->late_count,
                     2); /* samples, exemplars: begun behind the query's end, by world_close */
    world_close(&w);
}

/* The slow one comes and has all but partition 0, which its hedge answered for together with partition 1: series
 * of that are in both. */
static void what_comes_twice_counts_once(void **state)
{
    static const uint32_t r[PARTITIONS][FANOUT_REPLICA_COUNT_MAX] = { { 0, 1, 2 }, { 0, 1, 2 }, { 0, 2, 2 },
                                                                      { 1, 2, 0 }, { 1, 2, 0 }, { 1, 2, 0 },
                                                                      { 1, 2, 0 }, { 1, 2, 0 }, { 1, 2, 0 },
                                                                      { 1, 2, 0 }, { 1, 2, 0 }, { 2, 2, 2 } };
    struct test_random random = test_random_begin("twice");
    struct world w;
    own_open(&w, &random, 3, 3);
    struct source_request request = all_of(&w);
    w.nodes->routes = r;
    w.nodes->nodes[0].held[0] = 2 | 4;
    w.nodes->nodes[0].delay_ns = 300 * NS_PER_MS;
    w.nodes->nodes[2].delay_ns = 500 * NS_PER_MS; /* for partition 11; as a hedge for 2 it comes too late */
    assert_int_equal(ask_both(&w, &request, true), 0);
    assert_int_equal(w.nodes->late_count, 0); /* it came */
    assert_true(w.nodes->nodes[1].asked > 1);
    world_close(&w);
}

/* ---- failing ---- */

static void what_cannot_be_selected_is_asked_elsewhere(void **state)
{
    struct test_random random = test_random_begin("select");
    struct world w;
    own_open(&w, &random, 3, 2);
    struct source_request request = all_of(&w);
    w.nodes->nodes[0].fault = NODE_STOPS;
    assert_int_equal(ask_both(&w, &request, false), 0);
    w.nodes->nodes[1].fault = NODE_AWAY;
    assert_int_equal(ask_both(&w, &request, false), OURS);
    world_close(&w);
}

static void what_cannot_be_read_is_asked_elsewhere(void **state)
{
    struct test_random random = test_random_begin("read");
    struct world w;
    own_open(&w, &random, 3, 2);
    struct source_request request = all_of(&w);
    w.nodes->nodes[0].fault = NODE_BREAKS;
    w.nodes->nodes[0].fault_at = 0x5555555555555555;
    assert_int_equal(ask_both(&w, &request, false), 0);
    w.nodes->nodes[1].fault = NODE_AWAY; /* nobody has them now: they are named, all else is there */
    assert_int_equal(ask_both(&w, &request, false), OURS);
    world_close(&w);
}

static void what_reading_finds_out_is_named(void **state)
{
    struct test_random random = test_random_begin("damage");
    struct world w;
    struct source_set *set;
    struct one *ones;
    own_open(&w, &random, 3, 2);
    const struct source_table *table = w.nodes->source->table;
    struct source_request request = all_of(&w);
    w.nodes->nodes[0].source.read_misses = UINT64_MAX;
    w.nodes->nodes[0].held[0] &= ~UINT64_C(1); /* is asked elsewhere before */
    assert_ok(table->select(w.nodes->source, &request, w.pool, &set));
    assert_true(table->set_proof(set)->complete);
    (void)read_all(table, set, w.pool, false, &ones);
    const struct proof *proof = table->set_proof(set);
    assert_false(proof->complete);
    assert_int_equal(proof->missing_count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_true((OURS & ~UINT64_C(1)) >> proof->missing[i].partition & 1);
        assert_string_equal(proof->missing[i].reason, "quarantine");
    }
    table->set_close(set);
    world_close(&w);
}

static void own_answers_may_lack_memory(void **state)
{
    struct test_random random = test_random_begin("memory");
    struct world w;
    own_open(&w, &random, 3, 2);
    struct source_request request = all_of(&w);
    struct pool *own = w.nodes->config.own.pool = pool_open(NULL, "own", POOL_BYTES_UNLIMITED);
    struct fanout *fanout;
    assert_ok(fanout_open(&w.nodes->config, w.pool, &fanout));
    w.nodes->source = fanout_source(fanout);
    unsigned elsewhere = 0;
    for (uint64_t nth = 1, seen = nth; seen + 1 >= nth; nth++) {
        unsigned asked = w.nodes->nodes[1].asked;
        pool_fault_at(own, nth, true);
        assert_int_equal(ask_both(&w, &request, false), 0); /* others have it */
        seen = pool_fault_count(own);
        pool_fault_at(own, 0, false);
        elsewhere += w.nodes->nodes[1].asked > asked + 1;
    }
    assert_true(elsewhere > 5);
    world_close(&w);
    pool_close(own);
}

static void every_allocation_may_fail(void **state)
{
    struct test_random random = test_random_begin("allocations");
    struct world w;
    unsigned failed = 0;
    err e = ERR_LIMIT;
    own_open(&w, &random, 2, 2);
    for (size_t i = 0; i < w.whole.count; i++) {
        w.whole.series[i].columns.count = i < 4 ? 1 : 0;
        w.whole.series[i].columns.histogram_count = 0;
    }
    w.nodes->nodes[0].fault = NODE_BREAKS; /* so that others are asked again */
    w.nodes->nodes[0].fault_at = SIZE_MAX;
    const struct source_table *table = w.nodes->source->table;
    struct source_request request = all_of(&w);
    for (uint64_t nth = 1; e != OK; nth++) {
        struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
        struct source_set *set = NULL;
        struct source_reader *reader = NULL;
        struct sample_columns columns = sample_columns_open(pool);
        pool_fault_at(pool, nth, false);
        e = table->select(w.nodes->source, &request, pool, &set);
        if (e == OK)
            e = table->reader_open(set, &reader);
        for (size_t i = 0; e == OK && i < table->set_count(set); i++)
            e = table->read_samples(reader, i, &columns);
        pool_fault_at(pool, 0, false);
        assert_true(e == OK || e == ERR_LIMIT);
        failed += e != OK;
        if (set != NULL) {
            table->reader_close(reader);
            assert_int_equal(compare_set(&w, &request, set, pool, false), 0); /* and is whole all the same */
            table->set_close(set);
        }
        pool_close(pool);
        assert_int_equal(w.nodes->open_calls, 0);
    }
    assert_true(failed > 15);
    world_close(&w);
}

/* ---- groups ---- */

static double count_of(struct world *w, const char *text)
{
    struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
    struct promql_expr *expr;
    struct promql_result result;
    struct err_at at = { 0 };
    assert_ok(promql_parse(slice_str(text), pool, &expr, &at));
    struct promql_request request = { .expr = expr,
                                      .source = w->nodes->source,
                                      .tenant = TENANT,
                                      .start_ms = 300000,
                                      .end_ms = 300000,
                                      .guard = &w->guard };
    assert_ok(promql_eval(&request, pool, &result, &at));
    assert_true(result.series_count == 1 && result.proof.complete);
    double value = result.series[0].values[0];
    promql_expr_done(expr);
    pool_close(pool);
    return value;
}

static void groups_of_what_is_here_do_not_move(void **state)
{
    struct test_random random = test_random_begin("groups");
    const char *const text = "count({__name__=~\".+\"})";
    struct world w;
    own_open(&w, &random, 3, 3);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        assert_true(w.nodes->nodes[0].held[0] >> p & 1);
    double want = count_of(&w, text);
    assert_true(want > 0 && w.guard.groups_bytes > 0 && w.guard.rows_bytes == 0);
    static const uint32_t here[PARTITIONS][FANOUT_REPLICA_COUNT_MAX] = { { 0, 1 } };
    uint32_t routes[PARTITIONS][FANOUT_REPLICA_COUNT_MAX];
    for (uint32_t p = 0; p < PARTITIONS; p++)
        memcpy(routes[p], here[0], sizeof routes[p]);
    w.nodes->routes = (const uint32_t(*)[FANOUT_REPLICA_COUNT_MAX])routes;
    w.nodes->replica_count = 2;
    uint64_t sent = w.nodes->sent_bytes;
    assert_true(count_of(&w, text) == want);
    assert_true(w.nodes->sent_bytes == sent);
    w.nodes->nodes[0].fault = NODE_STOPS; /* and from the other, should it fail */
    assert_true(count_of(&w, text) == want);
    assert_true(w.nodes->sent_bytes > sent);
    world_close(&w);
}

/* ---- on threads ---- */

static _Atomic bool is_held, is_at_work;

/* The source of the node that asks, held up as long as is_held. */
static err select_held(struct source *source, const struct source_request *request, struct pool *pool,
                       struct source_set **out_set)
{
    struct source *held = source->context;
    atomic_store(&is_at_work, true);
    while (atomic_load(&is_held) && guard_check(request->guard) == OK)
        io_sleep_ns(io, NS_PER_MS);
    TRY(guard_check(request->guard));
    return held->table->select(held, request, pool, out_set);
}

static bool is_own_zero(void *context, uint32_t node) { return node == 0; }

/* A world whose node 0 asks over real threads; held up it never comes. */
static void threads_open(struct world *w, struct test_random *random, struct asking *a, struct source *held,
                         struct source_table *table)
{
    static const struct fanout_answers_config plain;
    struct fanout *fanout;
    world_open(w, random, NODES, 2);
    struct source *zero = &w->nodes->nodes[0].source.source;
    *table = *zero->table;
    table->select = select_held;
    *held = (struct source){ .table = table, .context = zero };
    for (uint32_t i = 0; i < NODES; i++)
        node_start(&nodes[i], i, &w->nodes->nodes[i].source.source, &plain);
    w->nodes->config.transport = a->t;
    w->nodes->config.own =
        (struct fanout_own){ .source = held, .pool = w->nodes->pool, .is_own = is_own_zero };
    assert_ok(fanout_open(&w->nodes->config, w->pool, &fanout));
    w->nodes->source = fanout_source(fanout);
    w->guard.io = io;
    atomic_store(&is_at_work, false);
}

static void threads_close(struct world *w, struct asking *a)
{
    asking_close(a); /* work that was given up has ended then */
    for (uint32_t i = 0; i < NODES; i++)
        node_stop(&nodes[i]);
    world_close(w);
}

static void a_thread_answers_within(void **state)
{
    struct test_random random = test_random_begin("threads");
    struct fanout_http_config config = asker();
    struct asking a = asking_open(&config);
    struct source held;
    struct source_table table;
    struct world w;
    struct question q;
    atomic_store(&is_held, false);
    threads_open(&w, &random, &a, &held, &table);
    w.nodes->config.hedge_ns = 60 * NS_PER_SECOND; /* or a slow machine asks node 0 */
    struct fanout *fanout;
    assert_ok(fanout_open(&w.nodes->config, w.pool, &fanout));
    w.nodes->source = fanout_source(fanout);
    for (unsigned i = 0; i < 10; i++) {
        question_make(&w, &random, &q);
        assert_int_equal(ask_both(&w, &q.request, i % 2 == 0), 0);
        question_done(&q);
    }
    assert_true(atomic_load(&is_at_work));
    assert_int_equal(nodes[0].asked, 0);
    threads_close(&w, &a);
}

/* Hedged, or canceled: who asks goes on while the work is still held up, and nothing is lost or touched. */
static void who_is_held_up_is_given_up(void **state)
{
    struct test_random random = test_random_begin("held up");
    struct fanout_http_config config = asker();
    struct asking a = asking_open(&config);
    struct source held;
    struct source_table table;
    struct world w;
    atomic_store(&is_held, true);
    threads_open(&w, &random, &a, &held, &table);
    struct source_request request = all_of(&w);
    assert_int_equal(ask_both(&w, &request, false), 0);
    assert_true(atomic_load(&is_at_work));
    w.guard.canceled = true;
    assert_err(ERR_CANCELED, select_only(&w, &request));
    threads_close(&w, &a);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_here_does_not_move),
        cmocka_unit_test(nodes_that_ask_answer_like_one_source),
        cmocka_unit_test(rows_are_counted_as_they_are_read),
        cmocka_unit_test(a_slow_own_replica_is_asked_elsewhere),
        cmocka_unit_test(what_comes_twice_counts_once),
        cmocka_unit_test(what_cannot_be_selected_is_asked_elsewhere),
        cmocka_unit_test(what_cannot_be_read_is_asked_elsewhere),
        cmocka_unit_test(what_reading_finds_out_is_named),
        cmocka_unit_test(own_answers_may_lack_memory),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(groups_of_what_is_here_do_not_move),
        cmocka_unit_test(a_thread_answers_within),
        cmocka_unit_test(who_is_held_up_is_given_up),
    };
    if (io_open("/tmp", &io) != OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    io_close(io);
    return failed;
}
