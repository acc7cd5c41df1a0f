/* Goal: an agent says why it ends when the control log cannot be followed, and goes on after a lack of memory.
 * Method: one node on a shared log in memory, step by step. Clusters: tests/scenario/agent_simtest.c. */
#include "base/test.h"

#include <string.h>

#include "agent/agent.h"
#include "base/time.h"
#include "sim/io_sim.h"
#include "sim/log_sim.h"

#define PARTITIONS 4

static struct pool *pool, *store_pool;
static struct io *io;
static struct log_sim_store *store;
static struct log *control, *other; /* other: a handle of somebody else */
static struct agent *agent;
static unsigned opened, stops;
static bool tells_progress; /* else a partition is ready once it is open */
static struct agent_progress progress;
static uint32_t ranks[PARTITIONS];
static bool was_error;
static char why_stopped[200];

static void on_probe(void *context, const struct agent_probe *probe) {}

static void on_open(void *context, uint32_t partition, uint64_t opening)
{
    opened++;
    if (!tells_progress)
        agent_ready(agent, partition, opening, true);
}

static void on_close(void *context, uint32_t partition) { opened--; }
static void on_trouble(void *context, const char *why) {}

static void on_rank(void *context, uint32_t partition, uint32_t rank) { ranks[partition] = rank; }
static struct agent_progress on_progress(void *context, uint32_t partition) { return progress; }

static void on_stop(void *context, const char *why, bool is_error)
{
    stops++;
    was_error = is_error;
    snprintf(why_stopped, sizeof why_stopped, "%s", why);
}

static err open_agent(void)
{
    static const struct control_init init = { .partition_count = PARTITIONS,
                                              .replica_count = 1,
                                              .expected_nodes = 1,
                                              .range_bytes_max = 1 << 20,
                                              .settings = { 30000, 60000 } };
    struct agent_config config = { .log = control,
                                   .calls = { on_probe, on_open, on_close, on_trouble, on_stop, on_rank,
                                              tells_progress ? on_progress : NULL } };
    config.core.init = &init;
    config.core.init_id[0] = config.core.self.disk_id[0] = config.core.self.process_id[0] = 1;
    config.core.self.name = config.core.self.zone = config.core.self.address = slice_str("a");
    return agent_open(&config, io, pool, &agent);
}

static int set_up(void **state)
{
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    store_pool = pool_open(NULL, "log", POOL_BYTES_UNLIMITED);
    assert_ok(io_sim_open(1, &io));
    assert_ok(log_sim_store_open(1, store_pool, &store));
    assert_ok(log_sim_open(store, io, store_pool, &control));
    assert_ok(log_sim_open(store, io, store_pool, &other));
    opened = stops = 0;
    tells_progress = false;
    memset(ranks, 255, sizeof ranks);
    return 0;
}

static int tear_down(void **state)
{
    agent_stop(agent);
    log_close(control);
    agent_close(agent);
    log_close(other);
    log_sim_store_close(store);
    io_close(io);
    pool_close(pool);
    pool_close(store_pool);
    return 0;
}

static void run_for(int64_t ms)
{
    for (int64_t i = 0; i < ms; i += AGENT_TICK_MS) {
        agent_step(agent);
        io_sim_clock_advance(io, AGENT_TICK_MS * NS_PER_MS);
    }
}

static void begin(void)
{
    assert_ok(open_agent());
    run_for(30000);
    assert_int_equal(opened, PARTITIONS);
    assert_true(agent_may_decide(agent));
}

static void done(struct log_append *append, err result, struct log_position position) { assert_ok(result); }

static void append(struct slice bytes)
{
    struct log_append one = { .parts = &bytes, .part_count = 1, .done = done };
    log_append(other, &one);
}

static void expect_end(const char *why)
{
    struct agent_view view;
    run_for(1000);
    assert_int_equal(stops, 1);
    assert_true(was_error);
    assert_string_equal(why_stopped, why);
    agent_view(agent, &view);
    assert_true(view.has_ended && !agent_may_decide(agent) && !agent_asked(agent, view.self, view.self));
    assert_false(agent_step(agent));
    assert_int_equal(stops, 1);
}

static void a_record_of_a_newer_version_ends_it(void **state)
{
    uint8_t bytes[64] = { 'K', 'C', 'T', 'L', CONTROL_FORMAT_VERSION + 1, 1 };
    struct agent_view view;
    begin();
    agent_view(agent, &view);
    memcpy(bytes + 6, view.cluster_id, CLUSTER_ID_BYTES);
    append(slice_of(bytes, sizeof bytes));
    expect_end("the control log has a record of a newer version of Kelpie");
}

static void a_log_that_went_back_ends_it(void **state)
{
    begin();
    log_sim_back(store, 0, 3);
    expect_end("the control log went back: decisions that this process knew are gone");
}

static void what_is_no_record_is_passed(void **state)
{
    struct agent_view before, after;
    begin();
    agent_view(agent, &before);
    append(slice_str("nobody's record"));
    append(slice_of("", 0));
    run_for(1000);
    agent_view(agent, &after);
    assert_int_equal(stops, 0);
    assert_true(after.epoch >= before.epoch + 2 && agent_may_decide(agent));
}

/* Every allocation fails for a second, from any moment on: nothing is lost but time. */
static void without_memory_it_waits(void **state)
{
    uint64_t failed = 0;
    assert_ok(open_agent());
    for (int i = 0; i < 20; i++) {
        pool_fault_at(pool, 1 + (uint64_t)i % 4, true);
        run_for(1000);
        failed += pool_fault_count(pool) > (uint64_t)i % 4;
        pool_fault_at(pool, 0, false);
        run_for(600 + 100 * i);
    }
    run_for(30000);
    assert_int_equal(opened, PARTITIONS);
    assert_true(agent_may_decide(agent) && stops == 0 && failed > 5);
}

/* A thread that stands still decides nothing, whatever it knew. */
static void who_stands_still_decides_nothing(void **state)
{
    begin();
    io_sim_clock_advance(io, 2000 * NS_PER_MS);
    assert_false(agent_may_decide(agent));
    run_for(2 * AGENT_TICK_MS);
    assert_true(agent_may_decide(agent));
}

static bool all_have_rank(uint32_t rank)
{
    for (int p = 0; p < PARTITIONS; p++)
        if (ranks[p] != rank)
            return false;
    return true;
}

/* The log grows by 1,000 offsets a second, of which so many are not applied. */
static void run_behind(int64_t ms, uint64_t behind)
{
    for (int64_t i = 0; i < ms; i += AGENT_TICK_MS) {
        progress.confirmed_ns = io_boottime_ns(io);
        progress.end_offset = (uint64_t)(progress.confirmed_ns / NS_PER_MS);
        progress.applied_offset = progress.end_offset > behind ? progress.end_offset - behind : 0;
        run_for(AGENT_TICK_MS);
    }
}

static void who_has_caught_up_owns_until_it_falls_behind(void **state)
{
    tells_progress = true;
    progress = (struct agent_progress){ 0 };
    assert_ok(open_agent());
    run_behind(20000, 0);
    assert_int_equal(opened, PARTITIONS);
    assert_true(all_have_rank(UINT32_MAX)); /* nothing was replayed */
    progress.is_replayed = true;
    run_behind(10000, 700);
    assert_true(all_have_rank(0));
    run_behind(30000, 5000);
    assert_true(all_have_rank(0));
    run_behind(40000, 20000);
    assert_true(all_have_rank(UINT32_MAX));
    run_behind(10000, 5000); /* near enough to stay, not to become ready */
    assert_true(all_have_rank(UINT32_MAX));
    run_behind(10000, 700);
    assert_true(all_have_rank(0));
}

/* It cannot append, so it does not know what was decided: at the latest after the suspect age it has no rank. */
static void who_may_not_decide_has_no_rank(void **state)
{
    begin();
    assert_true(all_have_rank(0));
    pool_fault_at(pool, 1, true);
    run_for(31000);
    assert_false(agent_may_decide(agent));
    assert_true(all_have_rank(UINT32_MAX));
    pool_fault_at(pool, 0, false);
    run_for(2000);
    assert_true(agent_may_decide(agent));
    assert_true(all_have_rank(0));
}

static void it_leaves(void **state)
{
    begin();
    agent_leave(agent);
    run_for(CORE_END_MS + 1000);
    assert_int_equal(stops, 1);
    assert_false(was_error);
    assert_string_equal(why_stopped, "it has left the cluster");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_record_of_a_newer_version_ends_it), TEST(a_log_that_went_back_ends_it),
        TEST(what_is_no_record_is_passed),         TEST(without_memory_it_waits),
        TEST(who_stands_still_decides_nothing),    TEST(who_has_caught_up_owns_until_it_falls_behind),
        TEST(who_may_not_decide_has_no_rank),      TEST(it_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
