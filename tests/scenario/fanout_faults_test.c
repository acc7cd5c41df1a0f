/* Queries over nodes when things go wrong in ways of their own. Goal: answers that are well formed and wrong, that
 * never end, that come twice and have no memory, that hold less than they were asked for: each is made good from
 * others or named, and nothing is lost or asked for that need not be. Method: that of fanout_test.c, with routes
 * made for each case. */
#include "scenario/fanout_world.h"

#define ALL ((UINT64_C(1) << PARTITIONS) - 1)

typedef uint32_t routes[PARTITIONS][FANOUT_REPLICA_COUNT_MAX];

/* Let the nodes hold what the routes say. */
static void routes_take(struct world *w, const routes *r)
{
    w->nodes->routes = *r;
    for (uint32_t i = 0; i < w->nodes->node_count; i++)
        w->nodes->nodes[i].held[0] = 0;
    for (uint32_t p = 0; p < PARTITIONS; p++)
        for (uint32_t i = 0; i < w->nodes->replica_count; i++)
            w->nodes->nodes[(*r)[p][i]].held[0] |= UINT64_C(1) << p;
}

/* ---- well formed and wrong ---- */

static void a_partition_that_is_left_out_is_asked_elsewhere(void **state)
{
    struct test_random random = test_random_begin("left out");
    struct slice *names;
    size_t count;
    struct proof proof;
    struct world w;
    world_open(&w, &random, 3, 2);
    struct source_request request = all_of(&w);
    w.nodes->nodes[0].fault = NODE_OMITS;
    assert_int_equal(ask_both(&w, &request, true), 0);
    assert_int_equal(w.nodes->nodes[1].asked, 4); /* for partition 0, too; twice: samples and exemplars */
    assert_ok(
        w.nodes->source->table->label_names(w.nodes->source, &request, 1, 0, w.pool, &names, &count, &proof));
    assert_true(proof.complete && proof.partition_count == PARTITIONS);
    world_close(&w);

    world_open(&w, &random, 3, 1);
    request = all_of(&w);
    w.nodes->nodes[0].fault = NODE_OMITS;
    assert_int_equal(ask_both(&w, &request, false), 1);
    assert_ok(
        w.nodes->source->table->label_names(w.nodes->source, &request, 1, 0, w.pool, &names, &count, &proof));
    assert_int_equal(proof.missing_count, 1);
    assert_string_equal(proof.missing[0].reason, PROOF_NOT_HERE);
    world_close(&w);
}

static err keep_bytes(void *context, struct slice bytes)
{
    buf_put_slice(context, bytes);
    return buf_err(context);
}

/* What a source answers, up to its last block. */
static struct wire_block serve(struct world *w, struct source *source, struct guard *guard,
                               const struct wire_request *wire)
{
    struct buf request = buf_open(w->pool, WIRE_REQUEST_BYTES_MAX), answer = buf_open(w->pool, 64u << 20);
    struct fanout_serve serve = { source, w->pool, guard, keep_bytes, &answer };
    struct wire_in in = { .pool = w->pool, .kind = wire->kind };
    struct wire_block block = { 0 };
    assert_ok(wire_request_encode(wire, &request));
    assert_ok(fanout_serve(&serve, buf_slice(&request)));
    struct slice bytes = buf_slice(&answer);
    while (block.type != WIRE_BLOCK_PROOF && block.type != WIRE_BLOCK_ERROR)
        assert_ok(wire_in_next(&in, &bytes, &block));
    assert_int_equal(bytes.len, 0);
    return block;
}

static struct wire_request wire_of(enum wire_kind kind, const struct wire_selector *selector)
{
    return (struct wire_request){ .kind = kind,
                                  .tenant = TENANT,
                                  .series_max = UINT64_MAX,
                                  .samples_max = UINT64_MAX,
                                  .selectors = selector,
                                  .selector_count = kind == WIRE_METADATA ? 0 : 1,
                                  .unit = { .text = slice_str("sum(b)"),
                                            .end = 6,
                                            .step_count = 1,
                                            .lookback_ms = 1,
                                            .subquery_step_ms = 1,
                                            .column_count = 2 } };
}

static void partitions_that_are_not_known_are_named(void **state)
{
    struct test_random random = test_random_begin("not known");
    uint64_t asked = 0xfff & ~UINT64_C(4);
    struct wire_selector selector = { .range = EVERYTHING };
    struct proof proof;
    struct world w;
    world_open(&w, &random, 1, 1);
    struct source_memory fewer = w.whole;
    fewer.source.context = &fewer;
    fewer.partition_count = 6;
    for (int i = 0; i < 2; i++) {
        struct wire_request wire = wire_of(i == 0 ? WIRE_SAMPLES : WIRE_NAMES, &selector);
        wire.partitions = &asked;
        wire.partition_count = PARTITIONS;
        struct wire_block block = serve(&w, &fewer.source, &w.guard, &wire);
        assert_int_equal(block.type, WIRE_BLOCK_PROOF);
        assert_ok(wire_proof_read(block.body, w.pool, &proof));
        assert_false(proof.complete);
        assert_int_equal(proof.partition_count, 5);
        assert_int_equal(proof.missing_count, 6);
        for (size_t k = 0; k < 6; k++) {
            assert_int_equal(proof.missing[k].partition, 6 + k);
            assert_string_equal(proof.missing[k].reason, PROOF_NOT_HERE);
        }
    }
    world_close(&w);
}

/* A histogram that claims more spans than there may be. */
static struct slice bad_histogram(struct pool *pool)
{
    static const uint8_t head[] = { 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 };
    struct buf bytes = buf_open(pool, HISTOGRAM_BYTES_MAX);
    buf_put(&bytes, head, sizeof head);
    buf_put_varint(&bytes, HISTOGRAM_SPAN_COUNT_MAX + 1);
    for (int i = 0; i <= HISTOGRAM_SPAN_COUNT_MAX; i++)
        buf_put_le16(&bytes, 0);
    assert_ok(buf_err(&bytes));
    return buf_slice(&bytes);
}

static void a_malformed_histogram_is_no_limit(void **state)
{
    struct test_random random = test_random_begin("histogram");
    struct world w;
    void *at;
    world_open(&w, &random, 2, 2);
    struct source_memory *first = &w.nodes->nodes[0].source;
    assert_ok(pool_alloc(w.pool, w.whole.count * sizeof *w.whole.series, &at));
    memcpy(at, w.whole.series, w.whole.count * sizeof *w.whole.series);
    first->series = at;
    size_t i = 0;
    while (source_memory_partition(&w.whole, w.whole.series[i].labels) % 2 != 0)
        i++;
    first->series[i].columns = sample_columns_open(w.pool);
    assert_ok(sample_columns_add_histogram(&first->series[i].columns, 5, bad_histogram(w.pool), 0));
    struct source_request request = all_of(&w);
    assert_int_equal(ask_both(&w, &request, false), 0);
    assert_int_equal(w.nodes->nodes[1].asked, 2);
    world_close(&w);
}

/* ---- slow ---- */

static void a_hung_node_loses_only_what_nobody_else_has(void **state)
{
    static const routes r = { { 0, 1 }, { 0, 2 }, { 0, 0 }, { 1, 2 }, { 2, 1 }, { 1, 2 },
                              { 2, 1 }, { 1, 2 }, { 2, 1 }, { 1, 2 }, { 2, 1 }, { 0, 1 } };
    struct test_random random = test_random_begin("hung");
    struct world w;
    world_open(&w, &random, 3, 2);
    routes_take(&w, &r);
    struct source_request request = all_of(&w);
    w.guard.deadline_ns = w.nodes->now_ns + 8 * NS_PER_SECOND;
    w.nodes->nodes[0].fault = NODE_HANGS;
    assert_int_equal(ask_both(&w, &request, false), 1 << 2);
    assert_true(w.nodes->now_ns < w.guard.deadline_ns);
    w.nodes->nodes[0].fault = NODE_PAUSES; /* and it is waited for, as long as there is time */
    w.nodes->nodes[0].pause_ns = 3 * NS_PER_SECOND;
    w.guard.deadline_ns = w.nodes->now_ns + 8 * NS_PER_SECOND;
    assert_int_equal(ask_both(&w, &request, false), 0);
    world_close(&w);
}

/* Of what the slow node holds and what it does not, only the latter was needed of others, who are not asked
 * again. */
static void what_hedges_answered_is_kept(void **state)
{
    static const routes r = { { 0, 1, 2 }, { 0, 1, 2 }, { 0, 2, 2 }, { 1, 2, 0 }, { 1, 2, 0 }, { 1, 2, 0 },
                              { 1, 2, 0 }, { 1, 2, 0 }, { 1, 2, 0 }, { 1, 2, 0 }, { 1, 2, 0 }, { 2, 2, 2 } };
    struct test_random random = test_random_begin("kept");
    struct world w;
    uint64_t samples = 0;
    world_open(&w, &random, 3, 3);
    routes_take(&w, &r);
    for (size_t i = 0; i < w.whole.count; i++)
        samples += w.whole.series[i].columns.count;
    w.nodes->nodes[0].held[0] = 2 | 4; /* partition 0 was handed over */
    w.nodes->nodes[0].delay_ns = 300 * NS_PER_MS;
    w.nodes->nodes[2].delay_ns = 500 * NS_PER_MS; /* for partition 11; as a hedge for 2 it comes too late */
    struct source_request request = all_of(&w);
    int64_t begin_ns = w.nodes->now_ns;
    assert_int_equal(ask_both(&w, &request, false), 0);
    assert_true(w.nodes->now_ns - begin_ns < 600 * NS_PER_MS);
    assert_int_equal(w.nodes->nodes[1].asked, 2); /* for its own, and as a hedge for partitions 0 and 1 */
    assert_int_equal(w.nodes->nodes[2].asked, 2);
    w.guard = (struct guard){ .deadline_ns = INT64_MAX, .samples_max = samples };
    assert_ok(select_only(&w, &request)); /* what came twice counts once */
    world_close(&w);
}

static void an_endless_answer_ends_with_the_time(void **state)
{
    struct test_random random = test_random_begin("endless");
    struct source_metadata metadata = { slice_str("b"), slice_str("gauge"), slice_str("B?"), slice_str("") };
    struct source_metadata *known;
    struct source_set *set;
    struct world w;
    size_t count;
    world_open(&w, &random, 2, 1);
    for (uint32_t i = 0; i < 2; i++) {
        w.nodes->nodes[i].source.metadata = &metadata;
        w.nodes->nodes[i].source.metadata_count = 1;
    }
    for (size_t i = 0; i < w.whole.count; i++) /* one block is enough */
        w.whole.series[i].columns.count = w.whole.series[i].columns.histogram_count = 0;
    w.whole.series[0].columns.count = w.whole.series[1].columns.count = 1;
    const struct source_table *table = w.nodes->source->table;
    struct pool *pool = pool_open(NULL, "query", (size_t)64 << 20);
    w.nodes->nodes[0].fault = w.nodes->nodes[1].fault = NODE_ENDLESS;
    assert_ok(table->metadata(w.nodes->source, TENANT, slice_of("", 0), pool, &known, &count));
    assert_int_equal(count, 0);
    w.guard.deadline_ns = w.nodes->now_ns + 8 * NS_PER_SECOND;
    struct source_request request = all_of(&w);
    assert_ok(table->select(w.nodes->source, &request, pool, &set));
    assert_int_equal(not_missing(table->set_proof(set), ALL), 0);
    assert_true(w.nodes->now_ns < w.guard.deadline_ns);
    table->set_close(set);
    w.nodes->nodes[1].fault = NODE_FINE;
    assert_ok(table->metadata(w.nodes->source, TENANT, slice_of("", 0), pool, &known, &count));
    assert_int_equal(count, 1);
    pool_close(pool);
    world_close(&w);
}

/* ---- bounds ---- */

static void samples_are_counted_over_all_answers(void **state)
{
    struct test_random random = test_random_begin("samples");
    struct world w;
    char text[GUARD_TEXT_BYTES];
    uint64_t samples = 0;
    world_open(&w, &random, 3, 2);
    for (size_t i = 0; i < w.whole.count; i++)
        samples += w.whole.series[i].columns.count;
    struct source_request request = all_of(&w);
    w.guard = (struct guard){ .deadline_ns = INT64_MAX, .samples_max = samples };
    assert_ok(select_only(&w, &request));
    w.guard = (struct guard){ .deadline_ns = INT64_MAX, .samples_max = samples - 1 };
    assert_err(ERR_LIMIT, select_only(&w, &request));
    guard_limit_text(&w.guard, text);
    assert_non_null(strstr(text, "query processing would load more than"));
    world_close(&w);
}

/* Some 7 MB, so that what a pool rounds up does not count. */
static void make_large(struct world *w, struct test_random *random)
{
    for (size_t i = 0; i < 30; i++) {
        struct sample_columns *c = &w->whole.series[i].columns;
        int64_t t_ms = c->t_ms[c->count - 1];
        for (unsigned k = 0; k < 30000; k++)
            assert_ok(sample_columns_add(c, t_ms += 1000, bits_double(test_random_u64(random)), 0));
    }
}

/* Select everything with so much memory. Returns what it took at most. */
static size_t select_within(struct world *w, size_t bytes_max)
{
    struct pool *pool = pool_open(NULL, "query", bytes_max);
    struct source_request request = all_of(w);
    const struct source_table *table = w->nodes->source->table;
    struct source_set *set;
    assert_ok(table->select(w->nodes->source, &request, pool, &set));
    assert_true(table->set_proof(set)->complete);
    assert_int_equal(table->set_proof(set)->partition_count, PARTITIONS);
    assert_int_equal(table->set_count(set), SERIES);
    table->set_close(set);
    size_t peak = pool_peak(pool);
    pool_close(pool);
    assert_int_equal(w->nodes->open_calls, 0);
    for (uint32_t i = 0; i < w->nodes->node_count; i++)
        w->nodes->nodes[i].asked = 0;
    return peak;
}

static void memory_is_not_spent_on_hedges(void **state)
{
    static const routes r = { { 0, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 },
                              { 0, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 }, { 2, 2 } };
    struct test_random random = test_random_begin("memory");
    struct world w;
    world_open(&w, &random, 3, 2);
    routes_take(&w, &r);
    make_large(&w, &random);
    struct node_memory *first = &w.nodes->nodes[0], *second = &w.nodes->nodes[1];
    size_t peak = select_within(&w, POOL_BYTES_UNLIMITED);
    size_t bytes = (size_t)w.nodes->sent_bytes / 12 * 10, some = peak / 4 * 5; /* not enough for two */
    w.guard.deadline_ns = w.nodes->now_ns + 60 * NS_PER_SECOND;
    w.nodes->cut = 16384;

    first->fault = NODE_HANGS; /* all but its end is there: it is given up for who answers whole */
    first->fault_at = bytes / 10 * 8;
    (void)select_within(&w, some);

    first->fault = NODE_PAUSES; /* is waited for */
    first->pause_ns = 500 * NS_PER_MS;
    (void)select_within(&w, some);

    second->fault = NODE_PAUSES; /* the one that was asked first lacks memory that the hedge has */
    second->pause_ns = 1500 * NS_PER_MS;
    first->fault_at = second->fault_at = bytes / 10 * 5;
    (void)select_within(&w, some);
    world_close(&w);
}

/* ---- all of it at once ---- */

/* Random nodes for each partition, some of which have handed it over. */
static void routes_make(struct world *w, struct test_random *random, routes r)
{
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        uint32_t first = (uint32_t)test_random_below(random, w->nodes->node_count),
                 step = 1 + (uint32_t)test_random_below(random, 2);
        for (uint32_t i = 0; i < w->nodes->replica_count; i++)
            r[p][i] = (first + i * step) % w->nodes->node_count;
    }
    routes_take(w, (const routes *)r);
    for (uint32_t i = 0; i < w->nodes->node_count; i++)
        if (test_random_below(random, 3) == 0)
            w->nodes->nodes[i].held[0] &= test_random_u64(random);
}

static void faults_make(struct world *w, struct test_random *random)
{
    static const enum node_fault faults[] = { NODE_AWAY,    NODE_BREAKS, NODE_STOPS,  NODE_LIES,
                                              NODE_RAMBLES, NODE_HANGS,  NODE_PAUSES, NODE_OMITS };
    for (uint32_t i = 0; i < w->nodes->node_count; i++) {
        struct node_memory *node = &w->nodes->nodes[i];
        node->fault = test_random_below(random, 2) == 0 ? NODE_FINE : faults[test_random_below(random, 8)];
        node->fault_at = test_random_u64(random);
        node->delay_ns = (int64_t)test_random_below(random, 100) * NS_PER_MS;
        node->pause_ns = (int64_t)test_random_below(random, 4000) * NS_PER_MS;
    }
}

/* The partitions that somebody without a fault holds, and those that anybody holds, of whom routes know. */
static void holders(const struct world *w, routes r, uint64_t *out_safe, uint64_t *out_held)
{
    *out_safe = *out_held = 0;
    for (uint32_t p = 0; p < PARTITIONS; p++)
        for (uint32_t i = 0; i < w->nodes->replica_count; i++) {
            const struct node_memory *node = &w->nodes->nodes[r[p][i]];
            bool is_held = (node->held[0] >> p & 1) != 0;
            *out_held |= (uint64_t)is_held << p;
            *out_safe |= (uint64_t)(is_held && (node->fault == NODE_FINE || node->fault == NODE_PAUSES)) << p;
        }
}

/* Whatever happens, what is answered is right and what is not is named; what a healthy node holds is answered,
 * unless memory is short: then the query may fail, and hedges may be missed. */
static void no_trouble_makes_an_answer_wrong(void **state)
{
    struct test_random random = test_random_begin("trouble");
    unsigned complete = 0, named = 0, refused = 0;
    for (unsigned turn = 0; turn < 150; turn++) {
        struct world w;
        struct source_set *set;
        routes r;
        uint64_t safe, held;
        world_open(&w, &random, 5, 1 + (uint32_t)test_random_below(&random, 4));
        routes_make(&w, &random, r);
        own_maybe(&w, &random);
        faults_make(&w, &random);
        holders(&w, r, &safe, &held);
        w.nodes->cut = 1000 + test_random_below(&random, 100000);
        w.guard.deadline_ns = w.nodes->now_ns + 120 * NS_PER_SECOND;
        struct source_request request = all_of(&w);
        bool is_tight = turn % 3 == 0;
        struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
        pool_set_budget(pool,
                        is_tight ? 1000000 + test_random_below(&random, 4000000) : POOL_BYTES_UNLIMITED);
        err e = w.nodes->source->table->select(w.nodes->source, &request, pool, &set);
        pool_set_budget(pool, POOL_BYTES_UNLIMITED);
        assert_true(e == OK || (is_tight && e == ERR_LIMIT));
        refused += e != OK;
        if (e == OK) {
            uint64_t missing = compare_set(&w, &request, set, pool, false);
            assert_true((missing & ~held) == (ALL & ~held));
            assert_true(is_tight || (missing & safe) == 0);
            complete += missing == 0;
            named += missing != 0;
            w.nodes->source->table->set_close(set);
        }
        pool_close(pool);
        world_close(&w);
    }
    assert_true(complete > 10 && named > 10 && refused > 5);
}

/* ---- what fails behind select ---- */

/* Few rows, so that all failures are met soon. */
static void make_small(struct world *w)
{
    for (size_t i = 0; i < w->whole.count; i++) {
        w->whole.series[i].columns.count = i < 4 ? 1 : 0;
        w->whole.series[i].columns.histogram_count = 0;
    }
    void *at;
    assert_ok(pool_alloc(w->pool, sizeof(struct source_exemplar), &at));
    *(struct source_exemplar *)at = (struct source_exemplar){ labels_of(w->pool, "trace", 1), 5, 7.0 };
    w->whole.series[0].exemplars = at;
    w->whole.series[0].exemplar_count = 1;
}

/* Labels, samples and exemplars of the whole set. */
static err read_set(const struct source_table *table, struct source_set *set, struct pool *parent,
                    size_t *out_exemplar_count)
{
    struct pool *pool = pool_open(parent, "reading", POOL_BYTES_UNLIMITED);
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    struct sample_columns columns = sample_columns_open(pool);
    struct source_reader *reader = NULL;
    struct source_exemplar *exemplars;
    size_t count, total = 0;
    err e = OK;
    TRY_OUT(table->reader_open(set, &reader));
    for (size_t i = 0; i < table->set_count(set); i++) {
        buf_clear(&labels);
        TRY_OUT(table->read_labels(reader, i, &labels));
        TRY_OUT(table->read_samples(reader, i, &columns));
        TRY_OUT(table->set_exemplars(set, i, pool, &exemplars, &count));
        total += count;
    }
    *out_exemplar_count = total;
out:
    table->reader_close(reader);
    pool_close(pool);
    return e;
}

static void reading_may_fail_and_succeed_later(void **state)
{
    struct test_random random = test_random_begin("reading");
    struct world w;
    size_t want = 0, got = 0;
    unsigned failed = 0;
    world_open(&w, &random, 2, 2);
    make_small(&w);
    for (size_t i = 0; i < 4; i++)
        want += w.whole.series[i].exemplar_count;
    assert_true(want > 0);
    const struct source_table *table = w.nodes->source->table;
    struct source_request request = all_of(&w);
    err e = ERR_LIMIT;
    for (uint64_t nth = 1; e != OK; nth++) {
        struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
        struct source_set *set;
        assert_ok(table->select(w.nodes->source, &request, pool, &set));
        pool_fault_at(pool, nth, false);
        e = read_set(table, set, pool, &got);
        pool_fault_at(pool, 0, false);
        assert_true(e == OK || e == ERR_LIMIT);
        failed += e != OK;
        assert_ok(read_set(table, set, pool, &got));
        assert_int_equal(got, want);
        assert_true(table->set_proof(set)->complete);
        table->set_close(set);
        pool_close(pool);
        assert_int_equal(w.nodes->open_calls, 0);
    }
    assert_true(failed > 15);
    world_close(&w);
}

enum which { WHICH_NAMES, WHICH_VALUES, WHICH_METADATA };

static err ask_texts(struct world *w, enum which which, struct pool *pool, size_t *out_count)
{
    const struct source_table *table = w->nodes->source->table;
    struct source_request request = all_of(w);
    struct source_metadata *metadata;
    struct slice *texts;
    struct proof proof;
    if (which == WHICH_METADATA)
        return table->metadata(w->nodes->source, TENANT, slice_of("", 0), pool, &metadata, out_count);
    if (which == WHICH_NAMES)
        return table->label_names(w->nodes->source, &request, 1, 0, pool, &texts, out_count, &proof);
    return table->label_values(w->nodes->source, slice_str("number"), &request, 1, 0, pool, &texts, out_count,
                               &proof);
}

static void names_values_and_metadata_may_lack_memory(void **state)
{
    struct test_random random = test_random_begin("texts");
    struct source_metadata metadata = { slice_str("b"), slice_str("gauge"), slice_str("B?"), slice_str("") };
    struct world w;
    world_open(&w, &random, 2, 2);
    make_small(&w);
    for (uint32_t i = 0; i < 2; i++) {
        w.nodes->nodes[i].source.metadata = &metadata;
        w.nodes->nodes[i].source.metadata_count = 1;
    }
    for (enum which which = WHICH_NAMES; which <= WHICH_METADATA; which++) {
        size_t want = 0, got = 0;
        unsigned failed = 0;
        err e = ERR_LIMIT;
        assert_ok(ask_texts(&w, which, w.pool, &want));
        for (uint64_t nth = 1; e != OK; nth++) {
            struct pool *pool = pool_open(NULL, "query", POOL_BYTES_UNLIMITED);
            pool_fault_at(pool, nth, false);
            e = ask_texts(&w, which, pool, &got);
            pool_fault_at(pool, 0, false);
            assert_true(e == ERR_LIMIT || (e == OK && got == want));
            failed += e != OK;
            pool_close(pool);
            assert_int_equal(w.nodes->open_calls, 0);
        }
        assert_true(failed > 10);
    }
    world_close(&w);
}

/* ---- answering ---- */

static void nobody_is_answered_who_is_gone(void **state)
{
    struct test_random random = test_random_begin("gone");
    struct source_metadata metadata = { slice_str("b"), slice_str("gauge"), slice_str("B?"), slice_str("") };
    struct wire_selector selector = { .range = EVERYTHING };
    struct world w;
    world_open(&w, &random, 1, 1);
    w.whole.metadata = &metadata;
    w.whole.metadata_count = 1;
    for (enum wire_kind kind = WIRE_SAMPLES; kind < WIRE_KIND_END; kind++) {
        struct guard guard = { .deadline_ns = INT64_MAX, .samples_max = UINT64_MAX, .canceled = true };
        struct wire_request wire = wire_of(kind, &selector);
        uint64_t series_over;
        err error;
        wire.name = kind == WIRE_VALUES ? slice_str("number") : slice_of("", 0);
        struct wire_block block = serve(&w, &w.whole.source, &guard, &wire);
        assert_int_equal(block.type, WIRE_BLOCK_ERROR);
        assert_ok(wire_error_read(block.body, &error, &series_over));
        assert_int_equal(error, ERR_CANCELED);
    }
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_partition_that_is_left_out_is_asked_elsewhere),
        cmocka_unit_test(partitions_that_are_not_known_are_named),
        cmocka_unit_test(a_malformed_histogram_is_no_limit),
        cmocka_unit_test(a_hung_node_loses_only_what_nobody_else_has),
        cmocka_unit_test(what_hedges_answered_is_kept),
        cmocka_unit_test(an_endless_answer_ends_with_the_time),
        cmocka_unit_test(samples_are_counted_over_all_answers),
        cmocka_unit_test(memory_is_not_spent_on_hedges),
        cmocka_unit_test(no_trouble_makes_an_answer_wrong),
        cmocka_unit_test(reading_may_fail_and_succeed_later),
        cmocka_unit_test(names_values_and_metadata_may_lack_memory),
        cmocka_unit_test(nobody_is_answered_who_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
