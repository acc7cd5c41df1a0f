/* Queries over nodes. Goal: a source over nodes that hold different partitions answers exactly like one local
 * source over all; when nodes fail, are slow or lie, the answer is complete from others, or says what it
 * lacks and has all else. Method: random series, requests and faults from a seed, with a transport in one
 * process and a clock that only waiting moves; the source in memory is what answers are compared with. */
#include "scenario/fanout_world.h"

static void nodes_answer_like_one_source(void **state)
{
    struct test_random random = test_random_begin("nodes");
    for (unsigned turn = 0; turn < 40; turn++) {
        struct world w;
        struct question q;
        world_open(&w, &random, 1 + (uint32_t)test_random_below(&random, 5), 1);
        w.nodes->cut = 1 + test_random_below(&random, 30000);
        own_maybe(&w, &random);
        for (unsigned i = 0; i < 5; i++) {
            question_make(&w, &random, &q);
            assert_int_equal(ask_both(&w, &q.request, i % 2 == 0), 0);
            question_done(&q);
        }
        world_close(&w);
    }
}

/* Partitions of which no replica is without a fault. */
static uint64_t without_healthy(const struct nodes_memory *nodes)
{
    uint64_t lost = 0;
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        bool healthy = false;
        for (uint32_t i = 0; i < nodes->replica_count; i++)
            healthy |= nodes->nodes[(p + i) % nodes->node_count].fault == NODE_FINE;
        lost |= (uint64_t)!healthy << p;
    }
    return lost;
}

static void faults_are_made_good_or_named(void **state)
{
    struct test_random random = test_random_begin("faults");
    unsigned made_good = 0, named = 0;
    for (unsigned turn = 0; turn < 150; turn++) {
        struct world w;
        struct question q;
        world_open(&w, &random, 5, 1 + (uint32_t)test_random_below(&random, 3));
        w.nodes->cut = 1 + test_random_below(&random, 100000);
        own_maybe(&w, &random);
        for (uint32_t i = 0; i < 5; i++) {
            w.nodes->nodes[i].fault = test_random_below(&random, 2) == 0
                                          ? NODE_FINE
                                          : (enum node_fault)test_random_below(&random, NODE_HANGS + 1);
            w.nodes->nodes[i].fault_at = test_random_below(&random, 3) == 0 ? test_random_below(&random, 100)
                                                                            : test_random_u64(&random);
            w.nodes->nodes[i].delay_ns = (int64_t)test_random_below(&random, 200) * NS_PER_MS;
        }
        question_make(&w, &random, &q);
        w.guard.deadline_ns = w.nodes->now_ns + 60 * NS_PER_SECOND;
        uint64_t lost = without_healthy(w.nodes);
        uint64_t asked = q.request.partitions != NULL ? q.partitions : (UINT64_C(1) << PARTITIONS) - 1;
        uint64_t missing = ask_both(&w, &q.request, false);
        assert_true((missing & ~(lost & asked)) ==
                    0); /* no more, and no less but what its own failing reads spare */
        assert_true(missing == (lost & asked) || reads_fail(w.nodes));
        made_good += lost == 0 && w.nodes->nodes[0].fault != NODE_FINE;
        named += (lost & asked) != 0;
        question_done(&q);
        world_close(&w);
    }
    assert_true(made_good > 5 && named > 5);
}

/* ---- replicas ---- */

static void every_byte_of_an_answer_may_be_damaged(void **state)
{
    static const enum node_fault faults[] = { NODE_BREAKS, NODE_STOPS, NODE_LIES, NODE_RAMBLES };
    struct test_random random = test_random_begin("bytes");
    struct world w;
    world_open(&w, &random, 2, 2);
    for (size_t i = SERIES / 12; i < w.whole.count; i++) /* a short answer, so that all of it is met */
        w.whole.series[i].columns.count = 0;
    struct source_request request = all_of(&w);
    uint64_t before = w.nodes->sent_bytes;
    assert_int_equal(ask_both(&w, &request, false), 0);
    size_t bytes = w.nodes->sent_bytes - before;
    for (size_t at = 0; at < bytes / 2 && at < 3000; at++) {
        w.nodes->nodes[0].fault = faults[at % 4];
        w.nodes->nodes[0].fault_at = at;
        assert_int_equal(ask_both(&w, &request, false), 0);
    }
    world_close(&w);
}

static void a_slow_node_is_not_waited_for(void **state)
{
    struct test_random random = test_random_begin("slow");
    struct world w;
    world_open(&w, &random, 5, 2);
    struct source_request request = all_of(&w);
    int64_t begin_ns = w.nodes->now_ns;
    for (uint32_t i = 0; i < 5; i++)
        w.nodes->nodes[i].delay_ns = (i == 2 ? 10000 : 20) * NS_PER_MS;
    assert_int_equal(ask_both(&w, &request, false), 0);
    assert_true(w.nodes->now_ns - begin_ns < 500 * NS_PER_MS);
    assert_int_equal(w.nodes->nodes[2].asked, 1);
    world_close(&w);
}

static void nodes_of_equal_speed_are_asked_once(void **state)
{
    struct test_random random = test_random_begin("equal");
    struct world w;
    world_open(&w, &random, 5, 3);
    struct source_request request = all_of(&w);
    for (uint32_t i = 0; i < 5; i++)
        w.nodes->nodes[i].delay_ns = (40 + (int64_t)i) * NS_PER_MS;
    assert_int_equal(ask_both(&w, &request, false), 0);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(w.nodes->nodes[i].asked, 1);
    world_close(&w);
}

static void what_a_node_does_not_hold_is_asked_elsewhere(void **state)
{
    struct test_random random = test_random_begin("moved");
    struct world w;
    world_open(&w, &random, 3, 2);
    struct source_request request = all_of(&w);
    w.nodes->nodes[0].held[0] = 0; /* it has handed over what the routes still say of it */
    assert_int_equal(ask_both(&w, &request, true), 0);
    w.nodes->nodes[1].held[0] &= ~UINT64_C(1); /* partition 0 is nowhere now */
    assert_int_equal(ask_both(&w, &request, false), 1);
    world_close(&w);
}

static void silence_ends_with_the_deadline(void **state)
{
    struct test_random random = test_random_begin("silence");
    struct world w;
    world_open(&w, &random, 3, 1);
    struct source_request request = all_of(&w);
    w.nodes->nodes[1].fault = NODE_HANGS;
    w.guard.deadline_ns = w.nodes->now_ns + 8 * NS_PER_SECOND;
    assert_int_equal(ask_both(&w, &request, false), 0x492); /* 1, 4, 7, 10 */
    assert_true(w.nodes->now_ns < w.guard.deadline_ns);
    world_close(&w);
}

/* ---- bounds ---- */

static void bounds_hold_over_all_nodes(void **state)
{
    struct test_random random = test_random_begin("bounds");
    struct world w;
    char text[GUARD_TEXT_BYTES];
    world_open(&w, &random, 3, 2);
    struct source_request request = all_of(&w);
    request.series_max = SERIES;
    assert_ok(select_only(&w, &request));
    request.series_max = SERIES - 1; /* no node has so many */
    assert_err(ERR_LIMIT, select_only(&w, &request));
    guard_limit_text(&w.guard, text);
    assert_string_equal(text, "a selector matches more than 119 series");
    request.series_max = 10; /* every node has more */
    assert_err(ERR_LIMIT, select_only(&w, &request));
    guard_limit_text(&w.guard, text);
    assert_string_equal(text, "a selector matches more than 10 series");
    request.series_max = SIZE_MAX;
    w.guard = (struct guard){ .deadline_ns = INT64_MAX, .samples_max = 500 };
    assert_err(ERR_LIMIT, select_only(&w, &request));
    guard_limit_text(&w.guard, text);
    assert_string_equal(text, "query processing would load more than 500 samples");
    world_close(&w);
}

static void a_canceled_query_leaves_no_calls(void **state)
{
    struct test_random random = test_random_begin("cancel");
    struct world w;
    world_open(&w, &random, 3, 2);
    struct source_request request = all_of(&w);
    for (uint32_t i = 0; i < 3; i++)
        w.nodes->nodes[i].fault = NODE_HANGS;
    w.guard.canceled = true;
    assert_err(ERR_CANCELED, select_only(&w, &request));
    world_close(&w);
}

static void every_allocation_may_fail(void **state)
{
    struct test_random random = test_random_begin("allocations");
    struct world w;
    world_open(&w, &random, 2, 2);
    struct source_request request = all_of(&w);
    for (size_t i = 0; i < w.whole.count; i++)
        w.whole.series[i].columns.count = i < 4 ? 1 : 0;
    for (size_t i = 0; i < 4; i++)
        w.whole.series[i].columns.histogram_count = 0;
    w.nodes->nodes[0].fault = NODE_STOPS;
    w.nodes->nodes[0].fault_at = 500;
    uint64_t failed = 0;
    for (uint64_t nth = 1, seen = nth; seen + 1 >= nth; nth++) {
        struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
        struct source_set *set;
        pool_fault_at(pool, nth, false);
        err e = w.nodes->source->table->select(w.nodes->source, &request, pool, &set);
        seen = pool_fault_count(pool);
        pool_fault_at(pool, 0, false);
        assert_true(e == ERR_LIMIT || (e == OK && seen < nth));
        failed += e == ERR_LIMIT;
        if (e == OK)
            w.nodes->source->table->set_close(set);
        pool_close(pool);
        assert_int_equal(w.nodes->open_calls, 0);
    }
    assert_true(failed > 30);
    world_close(&w);
}

/* ---- the rest of the source ---- */

static void the_same_labels_from_two_nodes_are_one_series(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct source_memory whole, other;
    struct source_memory_series *a, *b;
    struct nodes_memory *nodes;
    struct source_set *set;
    struct one *ones;
    source_memory_init(&whole, pool);
    source_memory_init(&other, pool);
    assert_ok(source_memory_series(&whole, labels_of(pool, "x", 1), &a));
    assert_ok(source_memory_series(&other, labels_of(pool, "x", 1), &b));
    assert_ok(source_memory_add(a, 1, 10));
    assert_ok(source_memory_add(a, 3, 30));
    assert_ok(source_memory_add(b, 2, 20));
    assert_ok(source_memory_add(b, 3, 30));
    assert_ok(source_memory_add(b, 4, 40));
    assert_ok(nodes_memory_open(&whole, 2, 2, 1, pool, &nodes));
    nodes->nodes[1].source.series = other.series; /* and both answer for whatever they are asked */
    nodes->nodes[0].source.is_everywhere = nodes->nodes[1].source.is_everywhere = true;
    nodes->nodes[0].source.held = nodes->nodes[1].source.held = NULL;
    uint64_t partitions = 3;
    struct source_request request = {
        .tenant = TENANT, .range = EVERYTHING, .series_max = 1, .partitions = &partitions
    };
    assert_ok(nodes->source->table->select(nodes->source, &request, pool, &set));
    assert_int_equal(read_all(nodes->source->table, set, pool, false, &ones), 1);
    assert_int_equal(ones[0].columns.count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_true(ones[0].columns.t_ms[i] == (int64_t)i + 1 &&
                    ones[0].columns.values[i] == 10.0 * (double)(i + 1));
    nodes->source->table->set_close(set);
    pool_close(pool);
}

static void names_values_and_metadata_are_unions(void **state)
{
    struct test_random random = test_random_begin("names");
    struct source_metadata metadata[] = {
        { slice_str("b"), slice_str("gauge"), slice_str("B?"), slice_str("") },
        { slice_str("a_total"), slice_str("counter"), slice_str("A?"), slice_str("") },
    };
    struct world w;
    struct slice *got, *want;
    struct source_metadata *known;
    size_t got_count, want_count;
    struct proof proof;
    world_open(&w, &random, 4, 2);
    for (uint32_t i = 0; i < 4; i++) {
        w.nodes->nodes[i].source.metadata = metadata;
        w.nodes->nodes[i].source.metadata_count = 2;
    }
    const struct source_table *remote = w.nodes->source->table, *local = w.whole.source.table;
    struct source_request requests[2] = { all_of(&w), all_of(&w) };
    for (size_t limit = 0; limit < 3; limit++) {
        assert_ok(remote->label_names(w.nodes->source, requests, 2, limit, w.pool, &got, &got_count, &proof));
        assert_ok(
            local->label_names(&w.whole.source, requests, 2, limit, w.pool, &want, &want_count, &proof));
        assert_int_equal(got_count, want_count);
        for (size_t i = 0; i < got_count; i++)
            assert_true(slice_equal(got[i], want[i]));
        assert_ok(local->label_values(&w.whole.source, slice_str("number"), requests, 1, limit, w.pool, &want,
                                      &want_count, &proof));
        assert_ok(remote->label_values(w.nodes->source, slice_str("number"), requests, 1, limit, w.pool, &got,
                                       &got_count, &proof));
        assert_int_equal(got_count, want_count);
        for (size_t i = 0; i < got_count; i++)
            assert_true(slice_equal(got[i], want[i]));
        assert_true(proof.complete && proof.partition_count == PARTITIONS);
    }
    w.nodes->nodes[0].fault = w.nodes->nodes[1].fault = NODE_AWAY; /* partitions 0, 4, 8 are nowhere */
    assert_ok(remote->label_names(w.nodes->source, requests, 2, 0, w.pool, &got, &got_count, &proof));
    assert_false(proof.complete);
    assert_int_equal(proof.missing_count, 3);
    assert_string_equal(proof.missing[0].reason, PROOF_UNANSWERED);
    assert_ok(remote->metadata(w.nodes->source, TENANT, slice_of("", 0), w.pool, &known, &got_count));
    assert_int_equal(got_count, 2);
    assert_true(slice_equal_str(known[0].family, "a_total") && slice_equal_str(known[1].family, "b"));
    world_close(&w);
}

static void a_token_that_is_not_reached_is_told(void **state)
{
    struct test_random random = test_random_begin("token");
    struct world w;
    struct source_set *set;
    struct source_position after[] = { { 3, 1, 1003 }, { 5, 1, 1006 }, { 7, 0, UINT64_MAX }, { 9, 2, 0 } };
    world_open(&w, &random, 3, 1);
    struct source_request request = all_of(&w);
    request.after = after;
    request.after_count = 4;
    assert_ok(w.nodes->source->table->select(w.nodes->source, &request, w.pool, &set));
    const struct proof *proof = w.nodes->source->table->set_proof(set);
    assert_int_equal(not_missing(proof, 0xfff), 0xfff & ~(UINT64_C(1) << 5 | UINT64_C(1) << 9));
    assert_string_equal(proof->missing[0].reason, PROOF_NOT_APPLIED);
    w.nodes->source->table->set_close(set);
    world_close(&w);
}

/* ---- answering ---- */

struct refusing {
    unsigned left, refused;
};

static err refuse_later(void *context, struct slice bytes)
{
    struct refusing *refusing = context;
    if (refusing->left == 0) {
        refusing->refused++;
        return ERR_CLOSED;
    }
    refusing->left--;
    return OK;
}

static void an_asker_that_is_gone_ends_the_work(void **state)
{
    struct test_random random = test_random_begin("gone");
    struct world w;
    world_open(&w, &random, 1, 1);
    struct wire_selector selector = { .range = EVERYTHING };
    struct wire_request request = { .kind = WIRE_SAMPLES,
                                    .tenant = TENANT,
                                    .series_max = UINT64_MAX,
                                    .samples_max = UINT64_MAX,
                                    .selectors = &selector,
                                    .selector_count = 1 };
    struct buf bytes = buf_open(w.pool, 10000);
    assert_ok(wire_request_encode(&request, &bytes));
    for (unsigned left = 0; left < 5; left++) {
        struct refusing refusing = { .left = left };
        struct fanout_serve serve = { &w.whole.source, w.pool, &w.guard, refuse_later, &refusing };
        assert_err(ERR_CLOSED, fanout_serve(&serve, buf_slice(&bytes)));
        assert_int_equal(refusing.refused, 1); /* and nothing after it */
    }
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_answer_like_one_source),
        cmocka_unit_test(faults_are_made_good_or_named),
        cmocka_unit_test(every_byte_of_an_answer_may_be_damaged),
        cmocka_unit_test(a_slow_node_is_not_waited_for),
        cmocka_unit_test(nodes_of_equal_speed_are_asked_once),
        cmocka_unit_test(what_a_node_does_not_hold_is_asked_elsewhere),
        cmocka_unit_test(silence_ends_with_the_deadline),
        cmocka_unit_test(bounds_hold_over_all_nodes),
        cmocka_unit_test(a_canceled_query_leaves_no_calls),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(the_same_labels_from_two_nodes_are_one_series),
        cmocka_unit_test(names_values_and_metadata_are_unions),
        cmocka_unit_test(a_token_that_is_not_reached_is_told),
        cmocka_unit_test(an_asker_that_is_gone_ends_the_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
