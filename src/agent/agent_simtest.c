/* Goal: an agent says why it ends when the control log cannot be followed, and goes on after a lack of memory;
 * what it allows its node ends in time by itself; owners that do not hear of their log agree on one that stays.
 * Method: one node, then two, on a log in memory, step by step. Clusters: tests/scenario/agent_simtest.c. */
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
static int64_t untils_ns[PARTITIONS];
static uint64_t openings[PARTITIONS];
static bool was_error;
static char why_stopped[200];

static void on_probe(void *context, const struct agent_probe *probe) {}

static void on_open(void *context, uint32_t partition, uint64_t opening)
{
    opened++;
    openings[partition] = opening;
    if (!tells_progress)
        agent_ready(agent, partition, opening, true);
}

static void on_close(void *context, uint32_t partition) { opened--; }
static void on_trouble(void *context, const char *why) {}

static void on_rank(void *context, uint32_t partition, uint32_t rank, int64_t until_ns)
{
    ranks[partition] = rank;
    untils_ns[partition] = until_ns;
}

static struct agent_progress on_progress(void *context, uint32_t partition, uint64_t opening)
{
    assert_true(opening == openings[partition]);
    return progress;
}

static void on_stop(void *context, const char *why, enum core_end end)
{
    stops++;
    was_error = end != CORE_LEFT;
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
    for (int p = 0; p < PARTITIONS; p++)
        untils_ns[p] = INT64_MIN;
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

static bool all_have_rank(uint32_t rank)
{
    for (int p = 0; p < PARTITIONS; p++)
        if (ranks[p] != rank)
            return false;
    return true;
}

/* No lease lasts longer. */
static bool all_end_by(int64_t t_ns)
{
    for (int p = 0; p < PARTITIONS; p++)
        if (untils_ns[p] > t_ns)
            return false;
    return true;
}

static bool is_here(void)
{
    struct agent_view view;
    agent_view(agent, &view);
    assert_int_equal(agent_asked(agent, (struct member_id){ .slot = SLOT_NONE }, view.self), view.is_here);
    return view.is_here;
}

/* A thread that stands still decides nothing, whatever it knew, and is not there for others. */
static void who_stands_still_decides_nothing(void **state)
{
    begin();
    io_sim_clock_advance(io, (AGENT_LEASE_MS - 2 * AGENT_TICK_MS) * NS_PER_MS);
    assert_true(agent_may_decide(agent) && is_here());
    io_sim_clock_advance(io, 2 * AGENT_TICK_MS * NS_PER_MS);
    assert_true(all_end_by(io_boottime_ns(io)));
    assert_false(agent_may_decide(agent) || is_here());
    run_for(2 * AGENT_TICK_MS);
    assert_true(agent_may_decide(agent) && is_here());
    assert_false(all_end_by(io_boottime_ns(io)));
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
    assert_true(all_have_rank(1)); /* nothing was replayed: it comes behind every owner */
    progress.is_replayed = true;
    run_behind(10000, 700);
    assert_true(all_have_rank(0));
    run_behind(30000, 5000);
    assert_true(all_have_rank(0));
    run_behind(40000, 20000);
    assert_true(all_have_rank(1));
    run_behind(10000, 5000); /* near enough to stay, not to become ready */
    assert_true(all_have_rank(1));
    run_behind(10000, 700);
    assert_true(all_have_rank(0));
}

/* No end is confirmed any more, and there is no other owner: it stays. */
static void the_only_owner_stays(void **state)
{
    tells_progress = true;
    progress = (struct agent_progress){ .is_replayed = true };
    assert_ok(open_agent());
    run_behind(20000, 0);
    assert_true(all_have_rank(0));
    run_for(10 * AGENT_LOST_MS);
    assert_true(all_have_rank(0));
}

/* It cannot append, so it does not know what was decided: after the suspect age somebody may have put it out. No
 * lease was given that lasts longer, and it is not there for others. */
static void who_does_not_know_the_log_decides_nothing(void **state)
{
    struct agent_view view;
    begin();
    assert_true(all_have_rank(0) && is_here());
    pool_fault_at(pool, 1, true);
    for (int i = 0; i < 31000; i += AGENT_TICK_MS) {
        run_for(AGENT_TICK_MS);
        agent_view(agent, &view);
        assert_true(all_end_by(view.known_ns + 30000 * NS_PER_MS));
    }
    assert_false(agent_may_decide(agent) || is_here());
    assert_true(all_end_by(INT64_MIN));
    pool_fault_at(pool, 0, false);
    run_for(2000);
    assert_true(agent_may_decide(agent) && is_here());
    assert_true(all_have_rank(0));
    assert_false(all_end_by(io_boottime_ns(io)));
}

/* What a node wants of the others fills its places, and is never answered; what tells it how far the log goes has
 * another. */
static void unanswered_wishes_do_not_blind_it(void **state)
{
    struct agent_view view;
    struct control_record join = { .kind = CONTROL_JOIN, .by = { .slot = SLOT_NONE } };
    struct buf bytes = buf_open(pool, 1024);
    begin();
    agent_view(agent, &view);
    log_sim_hold(control);
    memcpy(join.cluster_id, view.cluster_id, CLUSTER_ID_BYTES);
    join.join.name = join.join.zone = join.join.address = slice_str("b");
    join.join.disk_id[0] = join.join.process_id[0] = 2;
    join.join.read_to = view.epoch;
    control_record_encode(&join, &bytes);
    append(buf_slice(&bytes));
    for (int i = 0; i < 1000000; i += 10000) {
        run_for(10000);
        assert_true(agent_may_decide(agent));
    }
    agent_view(agent, &view);
    assert_int_equal(view.up_count, 2);
    assert_true(view.refused_count > 0);
    buf_close(&bytes);
}

static void a_hole_in_the_log_ends_it(void **state)
{
    struct agent_view view;
    begin();
    log_sim_hole(control, 2);
    append(slice_str("what stands behind it"));
    expect_end("records of the control log are missing: nobody can tell what they decided");
    agent_view(agent, &view);
    assert_int_equal(view.missing_count, 2);
    assert_true(all_end_by(INT64_MIN));
}

static void it_leaves(void **state)
{
    begin();
    agent_leave(agent);
    assert_false(agent_may_decide(agent)); /* others may read of it before it does */
    agent_step(agent);
    assert_true(all_end_by(INT64_MIN));
    assert_true(stops > 0 || is_here());
    run_for(CORE_END_MS + 1000);
    assert_true(all_end_by(INT64_MIN));
    assert_int_equal(stops, 1);
    assert_false(was_error);
    assert_string_equal(why_stopped, "it has left the cluster");
}

/* ---- two nodes, both owners of everything, under a log whose end is confirmed to them or not ---- */

static struct twin {
    struct log *log;
    struct agent *agent;
    int64_t confirmed_ns;
    bool is_told; /* ends are confirmed to it */
    uint32_t ranks[PARTITIONS];
} twins[2];

static void twin_probe(void *context, const struct agent_probe *probe)
{
    struct twin *self = context, *of = &twins[probe->address[0] - 'a'];
    if (agent_asked(of->agent, probe->self, probe->of))
        agent_heard(self->agent, probe->of);
}

static void twin_open(void *context, uint32_t partition, uint64_t opening) {}
static void twin_close(void *context, uint32_t partition) {}
static void twin_stop(void *context, const char *why, enum core_end end) { fail_msg("%s", why); }

static void twin_rank(void *context, uint32_t partition, uint32_t rank, int64_t until_ns)
{
    ((struct twin *)context)->ranks[partition] = rank;
}

static struct agent_progress twin_progress(void *context, uint32_t partition, uint64_t opening)
{
    struct twin *twin = context;
    if (twin->is_told)
        twin->confirmed_ns = io_boottime_ns(io);
    return (struct agent_progress){ true, 1, 1, twin->confirmed_ns };
}

static void twin_begin(struct twin *twin)
{
    static const struct control_init init = { .partition_count = PARTITIONS,
                                              .replica_count = 2,
                                              .expected_nodes = 2,
                                              .range_bytes_max = 1 << 20,
                                              .settings = { 30000, 60000 } };
    char name[2] = { (char)('a' + (twin - twins)) };
    *twin = (struct twin){ .is_told = true };
    assert_ok(log_sim_open(store, io, store_pool, &twin->log));
    struct agent_config config = { .log = twin->log,
                                   .calls = { twin_probe, twin_open, twin_close, on_trouble, twin_stop,
                                              twin_rank, twin_progress },
                                   .context = twin };
    config.core.init = &init;
    config.core.init_id[0] = config.core.self.disk_id[0] = config.core.self.process_id[0] =
        (uint8_t)(1 + (twin - twins));
    config.core.self.name = config.core.self.zone = config.core.self.address = slice_str(name);
    assert_ok(agent_open(&config, io, pool, &twin->agent));
}

static void twins_run(int64_t ms)
{
    for (int64_t i = 0; i < ms; i += AGENT_TICK_MS) {
        agent_step(twins[0].agent);
        agent_step(twins[1].agent);
        io_sim_clock_advance(io, AGENT_TICK_MS * NS_PER_MS);
    }
}

static int twins_up(void **state)
{
    assert_int_equal(set_up(state), 0);
    twin_begin(&twins[0]);
    twin_begin(&twins[1]);
    return 0;
}

static int twins_down(void **state)
{
    for (int i = 0; i < 2; i++) {
        agent_stop(twins[i].agent);
        log_close(twins[i].log);
        agent_close(twins[i].agent);
    }
    log_close(control);
    log_close(other);
    log_sim_store_close(store);
    io_close(io);
    pool_close(pool);
    pool_close(store_pool);
    return 0;
}

/* How many of the partitions are owned by so many. */
static unsigned owned_by(unsigned owner_count)
{
    unsigned count = 0;
    for (int p = 0; p < PARTITIONS; p++)
        count += (twins[0].ranks[p] < 2 ? 1u : 0u) + (twins[1].ranks[p] < 2 ? 1u : 0u) == owner_count;
    return count;
}

static unsigned owned_of(const struct twin *twin)
{
    unsigned count = 0;
    for (int p = 0; p < PARTITIONS; p++)
        count += twin->ranks[p] < 2;
    return count;
}

/* If no end is confirmed to anybody, one owner stays; if to one alone, that one gives up; who hears again owns
 * again. */
static void of_owners_that_hear_no_end_one_stays(void **state)
{
    twins_run(40000);
    assert_int_equal(owned_by(2), PARTITIONS);
    twins[0].is_told = twins[1].is_told = false;
    twins_run(AGENT_LOST_MS - 2000);
    assert_int_equal(owned_by(2), PARTITIONS);
    for (int i = 0; i < 100; i++) {
        twins_run(2000);
        assert_int_equal(owned_by(0), 0);
    }
    assert_int_equal(owned_by(1), PARTITIONS);
    assert_true(owned_of(&twins[0]) > 0 && owned_of(&twins[1]) > 0); /* each was the first of some */
    for (int i = 0; i < 2; i++) {
        twins[0].is_told = twins[1].is_told = true;
        twins_run(20000);
        assert_int_equal(owned_by(2), PARTITIONS);
        twins[i].is_told = false;
        twins_run(5 * AGENT_LOST_MS);
        assert_int_equal(owned_of(&twins[i]), 0);
        assert_int_equal(owned_of(&twins[1 - i]), PARTITIONS);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_record_of_a_newer_version_ends_it),
        TEST(a_log_that_went_back_ends_it),
        TEST(what_is_no_record_is_passed),
        TEST(without_memory_it_waits),
        TEST(who_stands_still_decides_nothing),
        TEST(who_has_caught_up_owns_until_it_falls_behind),
        TEST(the_only_owner_stays),
        TEST(who_does_not_know_the_log_decides_nothing),
        TEST(unanswered_wishes_do_not_blind_it),
        TEST(a_hole_in_the_log_ends_it),
        TEST(it_leaves),
        cmocka_unit_test_setup_teardown(of_owners_that_hear_no_end_one_stays, twins_up, twins_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
