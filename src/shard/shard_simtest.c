/* A node's partitions on the simulated disk: power loss at every call with every pattern, also during the
 * recovery from an earlier one; every call failing; every allocation failing. Model and oracle: workload.h.
 * After each state the node recovers, is checked, goes on writing, is cut, restarted and checked again.
 *
 * The default set takes a sample of the calls; `--full` or KELPIE_SIM=full takes them all (> 20,000 states).
 * Canaries: a node with a planted bug must be caught by the same checker. */
#include "shard/workload.h"

#include "sim/io_sim.h"

#include <time.h>

enum workload {
    LOAD_HEADS,
    LOAD_SPILL,
    LOAD_CUT,
    LOAD_COMPACT,
    LOAD_RESTART,
    LOAD_RESEND,
    LOAD_MIX,
    LOAD_ROTATE,
    LOAD_COUNT
};
static const char *const load_names[] = { "heads",   "spill",  "cut", "compact",
                                          "restart", "resend", "mix", "rotate" };

static bool is_full;

struct plan {
    enum workload load;
    uint64_t seed;
    uint64_t crash_at; /* 0 = never */
    enum io_sim_keep keep;
    uint64_t recrash_at; /* during the first recovery; 0 = never */
    uint64_t fault_at;   /* 0 = never */
    bool sticky;
    err fault;
    uint64_t alloc_at;
    uint32_t canary;
    bool marks_at_send;
};

/* ---- workloads ---- */

static void steps(struct world *w, int count)
{
    for (int i = 0; i < count; i++) {
        bool worked;
        ERR_IGNORE(shards_apply_step(w->shards, &worked));
        ERR_IGNORE(shards_spill_step(w->shards, &worked));
        ERR_IGNORE(shards_background_step(w->shards, &worked));
        ERR_IGNORE(log_pump(w->log));
    }
}

static void append(struct world *w, bool late)
{
    ERR_IGNORE(world_append(w, (uint32_t)test_random_below(&w->random, WORLD_PARTITIONS),
                            1 + test_random_below(&w->random, 30), late));
}

static void resend_one(struct world *w)
{
    struct world_record *r = w->records[test_random_below(&w->random, w->record_count)];
    if (r->answer != WORLD_ACKED || memcmp(r->incarnation, w->producer.id, INCARNATION_BYTES) != 0)
        return;       /* a producer that ended sends nothing */
    world_send(w, r); /* the same bytes again; its answer stays what it was if it was acknowledged */
    ERR_IGNORE(log_pump(w->log));
    r->answer = WORLD_ACKED;
}

static err restart(struct world *w)
{
    world_close_quick(w);
    world_producer_renew(w);
    return world_open(w);
}

/* Enough bytes for several log files, and cuts that let them go. */
static void run_rotate(struct world *w)
{
    for (int i = 0; i < 60 && !io_sim_is_down(w->io); i++) {
        ERR_IGNORE(world_append(w, (uint32_t)i % WORLD_PARTITIONS, WORLD_ROWS_MAX, false));
        steps(w, i % 6 == 5 ? 8 : 1);
    }
}

static void run_load(struct world *w, enum workload load)
{
    if (load == LOAD_ROTATE) {
        run_rotate(w);
        return;
    }
    for (int i = 0; i < 14 && w->shards != NULL && !io_sim_is_down(w->io); i++) {
        int appends = load == LOAD_HEADS ? 3 : 2;
        for (int k = 0; k < appends; k++)
            append(w, load == LOAD_COMPACT || load == LOAD_MIX);
        bool worked;
        if (load == LOAD_HEADS)
            ERR_IGNORE(shards_apply_step(w->shards, &worked));
        else
            steps(w, 3);
        if (load == LOAD_RESEND || load == LOAD_MIX)
            resend_one(w);
        if ((load == LOAD_CUT || load == LOAD_COMPACT || load == LOAD_MIX) && i % 4 == 3) {
            io_sim_clock_advance(w->io, 200 * NS_PER_SECOND); /* idle: cut */
            steps(w, 12);
        }
        if (load == LOAD_COMPACT && i % 7 == 6) {
            io_sim_clock_advance(w->io, 400 * NS_PER_SECOND);
            steps(w, 20);
        }
        if ((load == LOAD_RESTART && i % 3 == 2) || (load == LOAD_MIX && i == 8))
            ERR_IGNORE(restart(w));
    }
}

/* ---- one state ---- */

static const char *check_and_go_on(struct world *w)
{
    const char *wrong = world_check(w);
    if (wrong != NULL)
        return wrong;
    for (int i = 0; i < 3; i++)
        append(w, false);
    steps(w, 4);
    wrong = world_check(w);
    if (wrong != NULL)
        return wrong;
    if (shards_cut_all(w->shards, INT64_MAX) != OK)
        return "cutting all failed";
    io_sim_clock_advance(w->io, 600 * NS_PER_SECOND);
    steps(w, 20);
    wrong = world_check(w);
    if (wrong != NULL)
        return wrong;
    struct shards_usage u = shards_usage(w->shards);
    if (u.head_rows + u.stream_rows > 0)
        return "a quiet node did not settle";
    if (shards_intake(w->shards) != OK)
        return "intake stays closed";
    world_close_quick(w);
    world_producer_renew(w);
    return world_open(w) != OK ? "the second start failed" : world_check(w);
}

static const char *recover(struct world *w, const struct plan *plan)
{
    if (plan->recrash_at > 0) {
        io_sim_crash_at_call(w->io, plan->recrash_at);
        world_producer_renew(w);
        if (world_open(w) == OK) {
            steps(w, 6);
            world_close_quick(w);
        }
        io_sim_crash(w->io, plan->keep, plan->seed + 1);
    }
    world_producer_renew(w);
    return world_open(w) != OK ? "the start after the crash failed" : NULL;
}

/* Run a plan; what is wrong, or NULL. *out_calls: calls of the workload. */
static const char *run(const struct plan *plan, uint64_t *out_calls)
{
    struct pool *pool = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    struct io *io;
    assert_ok(io_sim_open(plan->seed, &io));
    struct world w;
    world_init(&w, io, pool, plan->seed);
    w.config.canary = plan->canary;
    w.config.chain_base_count = 2; /* bases and removed entries in every plan */
    w.announce_marks_at_send = plan->marks_at_send;
    w.alloc_fault_nth = plan->alloc_at;
    if (plan->load == LOAD_HEADS)
        w.config.head_rows_max = 4096;
    world_producer_renew(&w);
    if (plan->crash_at > 0)
        io_sim_crash_at_call(io, plan->crash_at);
    if (plan->fault_at > 0)
        io_sim_fault_at(io, plan->fault_at, plan->sticky, plan->fault);
    const char *wrong = NULL;
    if (world_open(&w) == OK)
        run_load(&w, plan->load);
    if (out_calls != NULL)
        *out_calls = io_sim_calls(io);
    w.alloc_fault_nth = 0;
    if (w.node_pool != NULL)
        pool_fault_at(w.node_pool, 0, false);
    if (plan->crash_at > 0) {
        if (w.shards != NULL)
            world_close_quick(&w);
        io_sim_crash(io, plan->keep, plan->seed);
        wrong = recover(&w, plan);
    } else {
        io_sim_fault_at(io, 0, false, OK);
        io_sim_clock_advance(io, 5 * NS_PER_SECOND); /* retries */
        if (w.shards == NULL) {
            world_producer_renew(&w);
            if (world_open(&w) != OK)
                wrong = "the start after a fault failed";
        } else if (plan->fault_at > 0) { /* a sealed log or partition needs a restart */
            steps(&w, 6);
            wrong = restart(&w) != OK ? "the restart after a fault failed" : NULL;
        }
    }
    if (wrong == NULL)
        wrong = check_and_go_on(&w);
    if (w.shards != NULL)
        world_close_quick(&w);
    io_close(io);
    pool_close(pool);
    return wrong;
}

static void must_be_right(const struct plan *plan)
{
    const char *wrong = run(plan, NULL);
    if (wrong != NULL)
        fail_msg("%s: load=%s seed=%llu crash_at=%llu keep=%d recrash_at=%llu fault_at=%llu sticky=%d "
                 "fault=\"%s\" "
                 "alloc_at=%llu",
                 wrong, load_names[plan->load], (unsigned long long)plan->seed,
                 (unsigned long long)plan->crash_at, (int)plan->keep, (unsigned long long)plan->recrash_at,
                 (unsigned long long)plan->fault_at, plan->sticky, err_text(plan->fault),
                 (unsigned long long)plan->alloc_at);
}

static uint64_t calls_of(enum workload load, uint64_t seed)
{
    struct plan plan = { .load = load, .seed = seed };
    uint64_t calls;
    const char *wrong = run(&plan, &calls);
    if (wrong != NULL)
        fail_msg("%s: load=%s seed=%llu, nothing crashed", wrong, load_names[load], (unsigned long long)seed);
    return calls;
}

/* ---- tests ---- */

static void without_faults(void **unused)
{
    for (enum workload load = 0; load < LOAD_COUNT; load++)
        printf("# workload %s: %llu calls\n", load_names[load],
               (unsigned long long)calls_of(load, test_seed() + load));
}

static void power_goes_at_every_call(void **unused)
{
    struct test_random r = test_random_begin("power_goes_at_every_call");
    uint64_t states = 0, state_max = is_full ? UINT64_MAX : 700;
    for (enum workload load = 0; load < LOAD_COUNT; load++) {
        uint64_t seed = test_random_u64(&r) >> 32, calls = calls_of(load, seed);
        uint64_t stride = is_full ? 1 : 1 + calls * IO_SIM_KEEP_COUNT * LOAD_COUNT / state_max;
        for (uint64_t n = 1 + test_random_below(&r, stride); n <= calls * IO_SIM_KEEP_COUNT;
             n += stride, states++) {
            struct plan plan = { .load = load,
                                 .seed = seed,
                                 .crash_at = 1 + (n - 1) / IO_SIM_KEEP_COUNT,
                                 .keep = (enum io_sim_keep)(n % IO_SIM_KEEP_COUNT) };
            must_be_right(&plan);
        }
    }
    printf("# %llu crash states\n", (unsigned long long)states);
}

static void power_goes_again_in_recovery(void **unused)
{
    struct test_random r = test_random_begin("power_goes_again_in_recovery");
    uint64_t states = is_full ? 8000 : 250;
    for (uint64_t i = 0; i < states; i++) {
        enum workload load = (enum workload)(i % LOAD_COUNT);
        struct plan plan = { .load = load,
                             .seed = test_random_u64(&r) >> 32,
                             .keep = (enum io_sim_keep)test_random_below(&r, IO_SIM_KEEP_COUNT),
                             .crash_at = 1 + test_random_below(&r, 900),
                             .recrash_at = 1 + test_random_below(&r, 150) };
        must_be_right(&plan);
    }
    printf("# %llu crash states, twice each\n", (unsigned long long)states);
}

static void every_call_fails(void **unused)
{
    struct test_random r = test_random_begin("every_call_fails");
    uint64_t states = is_full ? 6000 : 250;
    for (uint64_t i = 0; i < states; i++) {
        struct plan plan = { .load = (enum workload)(i % LOAD_COUNT),
                             .seed = test_random_u64(&r) >> 32,
                             .fault_at = 1 + test_random_below(&r, 900),
                             .sticky = test_random_below(&r, 2) == 0,
                             .fault = test_random_below(&r, 2) == 0 ? ERR_IO : ERR_SPACE };
        must_be_right(&plan);
    }
}

static void every_allocation_fails(void **unused)
{
    struct test_random r = test_random_begin("every_allocation_fails");
    uint64_t states = is_full ? 4000 : 200;
    for (uint64_t i = 0; i < states; i++) {
        struct plan plan = { .load = (enum workload)(1 + i % (LOAD_COUNT - 1)),
                             .seed = test_random_u64(&r) >> 32,
                             .alloc_at = 1 + test_random_below(&r, i % 2 == 0 ? 400 : 6000) };
        must_be_right(&plan);
    }
}

static void same_seed_same_trace(void **unused)
{
    uint64_t traces[2];
    for (int i = 0; i < 2; i++) {
        struct pool *pool = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
        struct io *io;
        struct world w;
        assert_ok(io_sim_open(5, &io));
        world_init(&w, io, pool, 5);
        world_producer_renew(&w);
        assert_ok(world_open(&w));
        run_load(&w, LOAD_MIX);
        world_close_quick(&w);
        traces[i] = io_sim_trace(io);
        io_close(io);
        pool_close(pool);
    }
    assert_int_equal(traces[0], traces[1]);
}

/* After a load, a restart and a while of silence nothing of the log is left but one small file: the FORGETs of the
 * producers that ended keep none. */
static void a_quiet_node_is_small(void **unused)
{
    struct pool *pool = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    struct io *io;
    struct world w;
    assert_ok(io_sim_open(11, &io));
    world_init(&w, io, pool, 11);
    w.log_file_bytes = 8u << 20;
    world_producer_renew(&w);
    assert_ok(world_open(&w));
    for (int i = 0; i < 2000; i++) {
        bool worked;
        assert_ok(world_append(&w, (uint32_t)i % WORLD_PARTITIONS, WORLD_ROWS_MAX, false));
        assert_ok(shards_apply_step(w.shards, &worked));
        assert_ok(shards_spill_step(w.shards, &worked));
    }
    if (log_usage(w.log).live_bytes <= 4u << 20)
        fail_msg("only %llu bytes of log", (unsigned long long)log_usage(w.log).live_bytes);
    for (int life = 0; life < 2; life++) {
        assert_ok(shards_cut_all(w.shards, INT64_MAX));
        assert_ok(restart(&w)); /* before the log had time to become small */
        for (int i = 0; i < 40; i++) {
            io_sim_clock_advance(io, 30 * NS_PER_SECOND);
            steps(&w, 8);
            assert_ok(log_tidy(w.log));
        }
        struct log_usage usage = log_usage(w.log);
        if (usage.live_bytes + usage.recycled_bytes > 2u << 20)
            fail_msg("life %d: %llu bytes of live and %llu of recycled log files", life,
                     (unsigned long long)usage.live_bytes, (unsigned long long)usage.recycled_bytes);
        assert_null(world_check(&w));
    }
    world_close_quick(&w);
    io_close(io);
    pool_close(pool);
}

/* Some crash state (or fault) of the workload must show a planted bug. */
static bool is_caught(struct plan plan, uint64_t attempts)
{
    struct test_random r = test_random_begin("canary");
    for (uint64_t i = 0; i < attempts; i++) {
        plan.seed = test_random_u64(&r) >> 32;
        if (plan.fault != OK)
            plan.fault_at = 1 + test_random_below(&r, 600);
        else
            plan.crash_at = 1 + test_random_below(&r, plan.load == LOAD_ROTATE ? 1800 : 600);
        plan.keep = (enum io_sim_keep)test_random_below(&r, IO_SIM_KEEP_COUNT);
        if (run(&plan, NULL) != NULL)
            return true;
    }
    return false;
}

static void canaries_are_caught(void **unused)
{
    assert_true(is_caught((struct plan){ .load = LOAD_SPILL, .canary = SHARD_CANARY_CHECKPOINT_FIRST }, 100));
    assert_true(is_caught((struct plan){ .load = LOAD_ROTATE, .canary = SHARD_CANARY_TRIM_FIRST }, 3000));
    assert_true(is_caught((struct plan){ .load = LOAD_RESEND, .canary = SHARD_CANARY_NO_DEDUPE }, 20));
    assert_true(is_caught((struct plan){ .load = LOAD_HEADS, .marks_at_send = true, .fault = ERR_IO }, 200));
}

int main(int argc, char **argv)
{
    is_full = (argc > 1 && strcmp(argv[1], "--full") == 0) ||
              (getenv("KELPIE_SIM") != NULL && strcmp(getenv("KELPIE_SIM"), "full") == 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_faults),           cmocka_unit_test(same_seed_same_trace),
        cmocka_unit_test(power_goes_at_every_call), cmocka_unit_test(power_goes_again_in_recovery),
        cmocka_unit_test(every_call_fails),         cmocka_unit_test(every_allocation_fails),
        cmocka_unit_test(a_quiet_node_is_small),    cmocka_unit_test(canaries_are_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
