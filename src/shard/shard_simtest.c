/* A node's partitions on the simulated disk: power loss at every call with every pattern, also during the
 * recovery from an earlier one; every call failing; every allocation failing. Model and oracle: workload.h.
 * After each state the node recovers, is checked, goes on writing, is cut, restarted and checked again.
 *
 * A fault's number N counts from 1 until one is not met any more: the workload is over. `--full` or
 * KELPIE_SIM=full takes every N; the default set one in so many, evenly over the same range. What was met is
 * counted and printed. Another argument is a pattern of the tests to run, such as 'every_*'.
 * Canaries: a node with a planted bug must be caught by the same checker. */
#include "shard/workload.h"

#include "base/stat.h"
#include "sim/io_sim.h"

#include <signal.h>

enum workload {
    LOAD_HEADS,
    LOAD_SPILL,
    LOAD_CUT,
    LOAD_COMPACT,
    LOAD_RESTART,
    LOAD_RESEND,
    LOAD_MIX,
    LOAD_ROTATE,
    LOAD_MOVE,
    LOAD_COUNT
};
static const char *const load_names[] = { "heads",  "spill", "cut",    "compact", "restart",
                                          "resend", "mix",   "rotate", "move" };

/* What a workload without a fault must come to, or its crashes and faults prove nothing of it. */
enum deed { DEED_SPILL, DEED_COMMIT, DEED_MERGE, DEED_COUNT };
static const char *const deed_names[] = { "spilled rows", "commits", "merges" };
static const enum stat deed_stats[] = { STAT_SHARD_SPILLED_ROWS, STAT_SHARD_COMMITS, STAT_SHARD_COMPACTIONS };
static const bool load_deeds[LOAD_COUNT][DEED_COUNT] = {
    [LOAD_SPILL] = { true },        [LOAD_CUT] = { true, true },  [LOAD_COMPACT] = { true, true, true },
    [LOAD_RESTART] = { true },      [LOAD_RESEND] = { true },     [LOAD_MIX] = { true, true, true },
    [LOAD_ROTATE] = { true, true }, [LOAD_MOVE] = { true, true },
};

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
    uint64_t alloc_at; /* of one life of the node, from its start */
    uint32_t canary;
    bool marks_at_send;
};

#define NEVER (UINT64_MAX / 2) /* counted, and never reached */

/* What a run met. */
struct outcome {
    const char *wrong;       /* NULL: nothing */
    uint64_t calls;          /* of the workload, its start included */
    uint64_t allocations;    /* of the life with the most of them, if they were counted */
    uint64_t recovery_calls; /* of the first recovery that recrash_at lies in */
    int64_t deeds[DEED_COUNT];
    bool was_hit;       /* the crash or fault came, in the workload … */
    bool was_hit_again; /* … and in the recovery */
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

static void open_all(struct world *w)
{
    struct err_at at = { 0 };
    for (uint32_t i = 0; i < WORLD_PARTITIONS; i++) {
        for (int k = 0; k < 10 && shards_partition_status(w->shards, i).stage == SHARD_CLOSING; k++)
            steps(w, 1);
        ERR_IGNORE(shards_partition_open(w->shards, i, &at));
    }
}

/* Partitions go and come back, also in the middle of what is done with them. */
static void run_move(struct world *w)
{
    for (int i = 0; i < 24 && !io_sim_is_down(w->io); i++) {
        uint32_t p = (uint32_t)test_random_below(&w->random, WORLD_PARTITIONS);
        struct err_at at = { 0 };
        append(w, true);
        append(w, false);
        steps(w, (int)test_random_below(&w->random, 3));
        if (i % 3 == 0)
            shards_partition_close(w->shards, p);
        else if (i % 3 == 1)
            ERR_IGNORE(shards_partition_open(w->shards, p, &at));
        else
            open_all(w);
        if (i % 6 == 5) {
            io_sim_clock_advance(w->io, (i % 12 == 5 ? 400 : 4000) * NS_PER_SECOND);
            steps(w, 12);
        }
    }
    open_all(w);
}

static void run_load(struct world *w, enum workload load)
{
    if (load == LOAD_ROTATE || load == LOAD_MOVE) {
        (load == LOAD_ROTATE ? run_rotate : run_move)(w);
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
            io_sim_clock_advance(w->io, 400 * NS_PER_SECOND); /* idle for so long that any range is cut */
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

static uint64_t spilled_rows(const struct world *w)
{
    struct shards_usage u = shards_usage(w->shards);
    return u.stream_rows + u.segment_rows;
}

/* The start after the power went. spilled: rows in frames and segments that were promised before. */
static void recover(struct world *w, const struct plan *plan, uint64_t spilled, struct outcome *o)
{
    if (plan->recrash_at > 0) {
        io_sim_crash_at_call(w->io, plan->recrash_at);
        world_producer_renew(w);
        if (world_open(w) == OK) {
            steps(w, 6);
            world_close_quick(w);
        }
        o->recovery_calls = io_sim_calls(w->io);
        o->was_hit_again = io_sim_is_down(w->io);
        io_sim_crash(w->io, plan->keep, plan->seed + 1);
    }
    world_producer_renew(w);
    if (world_open(w) != OK)
        o->wrong = "the start after the crash failed";
    else if (spilled_rows(w) < spilled)
        o->wrong = "rows that were spilled have to be replayed";
}

/* After a workload without a crash: what failed is whole again, or is after a restart. */
static void mend(struct world *w, const struct plan *plan, struct outcome *o)
{
    io_sim_fault_at(w->io, 0, false, OK);
    io_sim_clock_advance(w->io, 5 * NS_PER_SECOND); /* retries */
    if (w->shards == NULL) {
        world_producer_renew(w);
        o->wrong = world_open(w) != OK ? "the start after a fault failed" : NULL;
    } else if (plan->fault_at > 0) { /* a sealed log or partition needs a restart */
        steps(w, 6);
        o->wrong = restart(w) != OK ? "the restart after a fault failed" : NULL;
    } else {
        open_all(w); /* what could not be opened for want of memory */
    }
}

static struct outcome run(const struct plan *plan)
{
    struct outcome o = { 0 };
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
    for (int i = 0; i < DEED_COUNT; i++)
        o.deeds[i] = -stat_get(deed_stats[i]);
    if (world_open(&w) == OK)
        run_load(&w, plan->load);
    for (int i = 0; i < DEED_COUNT; i++)
        o.deeds[i] += stat_get(deed_stats[i]);
    o.calls = io_sim_calls(io);
    w.alloc_fault_nth = 0;
    if (w.node_pool != NULL) {
        world_count_allocations(&w);
        pool_fault_at(w.node_pool, 0, false);
    }
    o.allocations = w.allocations_max;
    o.was_hit = io_sim_is_down(io) || io_sim_faults(io) > 0 ||
                (plan->alloc_at > 0 && o.allocations >= plan->alloc_at);
    if (plan->crash_at > 0) {
        uint64_t spilled = w.shards == NULL ? 0 : spilled_rows(&w);
        if (w.shards != NULL)
            world_close_quick(&w);
        io_sim_crash(io, plan->keep, plan->seed);
        recover(&w, plan, spilled, &o);
    } else {
        mend(&w, plan, &o);
    }
    if (o.wrong == NULL)
        o.wrong = check_and_go_on(&w);
    if (w.shards != NULL)
        world_close_quick(&w);
    io_close(io);
    pool_close(pool);
    return o;
}

static const struct plan *running;

static void print_running(void)
{
    const struct plan *p = running;
    printf("# load=%s seed=%llu crash_at=%llu keep=%d recrash_at=%llu fault_at=%llu sticky=%d fault=\"%s\" "
           "alloc_at=%llu\n",
           load_names[p->load], (unsigned long long)p->seed, (unsigned long long)p->crash_at, (int)p->keep,
           (unsigned long long)p->recrash_at, (unsigned long long)p->fault_at, p->sticky, err_text(p->fault),
           (unsigned long long)p->alloc_at);
    fflush(stdout);
}

/* A failed check ends the process: of which plan is all that is needed to see it again. */
static void on_abort(int signal)
{
    if (running != NULL)
        print_running();
}

static struct outcome must_be_right(const struct plan *plan)
{
    running = plan;
    struct outcome o = run(plan);
    if (o.wrong != NULL) {
        print_running();
        fail_msg("%s", o.wrong);
    }
    running = NULL;
    return o;
}

/* The workload without a fault. */
static struct outcome undisturbed(enum workload load, uint64_t seed)
{
    struct plan plan = { .load = load, .seed = seed, .alloc_at = NEVER };
    struct outcome o = must_be_right(&plan);
    assert_false(o.was_hit);
    for (int i = 0; i < DEED_COUNT; i++)
        if (load_deeds[load][i] && o.deeds[i] == 0)
            fail_msg("the workload %s, seed %llu, has no %s", load_names[load], (unsigned long long)seed,
                     deed_names[i]);
    return o;
}

/* Of `total` plans in `variant_count` variants each (variants of one N are neighbours) every one, or about
 * `wanted`: a step that comes to every variant. */
static uint64_t stride_of(uint64_t total, uint64_t wanted, uint64_t variant_count)
{
    uint64_t stride = is_full ? 1 : 1 + total / wanted;
    while (variant_count > 1 && stride > 1 && (stride % 2 == 0 || stride % variant_count == 0))
        stride++;
    return stride;
}

/* ---- tests ---- */

static void without_faults(void **unused)
{
    for (enum workload load = 0; load < LOAD_COUNT; load++) {
        struct outcome o = undisturbed(load, test_seed() + load);
        printf("# workload %s: %llu calls, %llu allocations", load_names[load], (unsigned long long)o.calls,
               (unsigned long long)o.allocations);
        for (int i = 0; i < DEED_COUNT; i++)
            printf(", %lld %s", (long long)o.deeds[i], deed_names[i]);
        printf("\n");
    }
}

static void power_goes_at_every_call(void **unused)
{
    struct test_random r = test_random_begin("power_goes_at_every_call");
    uint64_t states = 0;
    for (enum workload load = 0; load < LOAD_COUNT; load++) {
        struct plan plan = { .load = load, .seed = test_random_u64(&r) >> 32 };
        uint64_t calls = undisturbed(load, plan.seed).calls, before = states;
        uint64_t stride = stride_of(calls * IO_SIM_KEEP_COUNT, 90, IO_SIM_KEEP_COUNT);
        for (uint64_t k = test_random_below(&r, stride);; k += stride, states++) {
            plan.crash_at = 1 + k / IO_SIM_KEEP_COUNT;
            plan.keep = (enum io_sim_keep)(k % IO_SIM_KEEP_COUNT);
            if (!must_be_right(&plan).was_hit)
                break;
        }
        assert_true(states > before);
    }
    printf("# %llu crash states\n", (unsigned long long)states);
}

/* Crashes spread over the calls of each workload, and for each of them crashes spread over those of its
 * recovery. */
static void power_goes_again_in_recovery(void **unused)
{
    struct test_random r = test_random_begin("power_goes_again_in_recovery");
    uint64_t states = 0, rounds = is_full ? 8 : 1, first_count = is_full ? 25 : 6, again_count = 5;
    for (uint64_t round = 0; round < rounds * LOAD_COUNT; round++) {
        struct plan plan = { .load = (enum workload)(round % LOAD_COUNT), .seed = test_random_u64(&r) >> 32 };
        uint64_t calls = undisturbed(plan.load, plan.seed).calls;
        for (uint64_t i = 0; i < first_count; i++) {
            plan.crash_at = 1 + (i * calls + test_random_below(&r, calls)) / first_count;
            plan.keep = (enum io_sim_keep)test_random_below(&r, IO_SIM_KEEP_COUNT);
            plan.recrash_at = NEVER;
            uint64_t recovery_calls = must_be_right(&plan).recovery_calls;
            for (uint64_t k = 0; k < again_count; k++, states++) {
                plan.recrash_at =
                    1 + (k * recovery_calls + test_random_below(&r, recovery_calls)) / again_count;
                struct outcome o = must_be_right(&plan);
                assert_true(o.was_hit && o.was_hit_again);
            }
        }
    }
    printf("# %llu crash states, twice each\n", (unsigned long long)states);
}

static void every_call_fails(void **unused)
{
    struct test_random r = test_random_begin("every_call_fails");
    uint64_t hits = 0, variant_count = 4;
    for (enum workload load = 0; load < LOAD_COUNT; load++) {
        struct plan plan = { .load = load, .seed = test_random_u64(&r) >> 32 };
        uint64_t calls = undisturbed(load, plan.seed).calls, before = hits;
        uint64_t stride = stride_of(calls * variant_count, 32, variant_count);
        for (uint64_t k = test_random_below(&r, stride);; k += stride, hits++) {
            plan.fault_at = 1 + k / variant_count;
            plan.sticky = k % 2 == 0;
            plan.fault = k / 2 % 2 == 0 ? ERR_IO : ERR_SPACE;
            if (!must_be_right(&plan).was_hit)
                break;
        }
        assert_true(hits > before);
    }
    printf("# %llu faults, all of them met\n", (unsigned long long)hits);
}

static void every_allocation_fails(void **unused)
{
    struct test_random r = test_random_begin("every_allocation_fails");
    uint64_t hits = 0;
    for (enum workload load = 0; load < LOAD_COUNT; load++) {
        struct plan plan = { .load = load, .seed = test_random_u64(&r) >> 32 };
        uint64_t allocations = undisturbed(load, plan.seed).allocations, before = hits;
        uint64_t stride = stride_of(allocations, 26, 1);
        for (plan.alloc_at = 1 + test_random_below(&r, stride);; plan.alloc_at += stride, hits++)
            if (!must_be_right(&plan).was_hit)
                break;
        assert_true(hits > before);
    }
    printf("# %llu failed allocations, all of them met\n", (unsigned long long)hits);
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
static void must_be_caught(const char *name, struct plan plan, uint64_t attempts)
{
    struct test_random r = test_random_begin("canary");
    uint64_t calls =
        undisturbed(plan.load, test_random_u64(&r) >> 32).calls; /* of other seeds about as many */
    for (uint64_t i = 1; i <= attempts; i++) {
        plan.seed = test_random_u64(&r) >> 32;
        uint64_t nth = 1 + test_random_below(&r, calls);
        *(plan.fault != OK ? &plan.fault_at : &plan.crash_at) = nth;
        plan.keep = (enum io_sim_keep)test_random_below(&r, IO_SIM_KEEP_COUNT);
        const char *wrong = run(&plan).wrong;
        if (wrong == NULL)
            continue;
        printf("# %s: found by state %llu: %s\n", name, (unsigned long long)i, wrong);
        return;
    }
    fail_msg("not found: %s", name);
}

static void canaries_are_caught(void **unused)
{
    must_be_caught("checkpoint before its rows",
                   (struct plan){ .load = LOAD_SPILL, .canary = SHARD_CANARY_CHECKPOINT_FIRST }, 100);
    must_be_caught("trim before commit",
                   (struct plan){ .load = LOAD_ROTATE, .canary = SHARD_CANARY_TRIM_FIRST }, 3000);
    must_be_caught("no dedupe", (struct plan){ .load = LOAD_RESEND, .canary = SHARD_CANARY_NO_DEDUPE }, 20);
    must_be_caught("a stream file's name not synced",
                   (struct plan){ .load = LOAD_SPILL, .canary = SHARD_CANARY_NO_DIR_SYNC }, 100);
    must_be_caught("announcement marked at send",
                   (struct plan){ .load = LOAD_HEADS, .marks_at_send = true, .fault = ERR_IO }, 200);
}

int main(int argc, char **argv)
{
    const char *set = getenv("KELPIE_SIM");
    is_full = set != NULL && strcmp(set, "full") == 0;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--full") == 0)
            is_full = true;
        else
            cmocka_set_test_filter(argv[i]);
    signal(SIGABRT, on_abort);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_faults),           cmocka_unit_test(same_seed_same_trace),
        cmocka_unit_test(power_goes_at_every_call), cmocka_unit_test(power_goes_again_in_recovery),
        cmocka_unit_test(every_call_fails),         cmocka_unit_test(every_allocation_fails),
        cmocka_unit_test(a_quiet_node_is_small),    cmocka_unit_test(canaries_are_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
