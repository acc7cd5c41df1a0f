/* Lives of the whole cluster, whole.h: a time of faults, then all is healed, and within 120 s of virtual time all
 * has converged. docs/decisions/0021-simulating-the-whole.md.
 *
 *   whole_simtest             the reduced set; KELPIE_SIM=full or --full: 2,000 lives of 30 minutes
 *   whole_simtest SEED…       these lives; VERBOSE=1 tells what happens
 *   whole_simtest --shrink SEED   leave out what a life that fails can do without, and print the rest */
#include "sim/whole.h"

#include <stdarg.h>

#include "base/stat.h"

#define FULL_LIVES  2000
#define FULL_MS     (27 * MS_PER_MINUTE)
#define SMALL_LIVES 6
#define SMALL_MS    (6 * MS_PER_MINUTE)
#define PLANT_LIVES 60
#define QUIET_MS    30000 /* after the healing clients stop */
#define DENSE_LIVES 200   /* so many lives at least have everything happen in them */

static struct whole world; /* of the life that is lived, or was last */
static bool is_verbose;
bool whole_is_verbose(void) { return is_verbose; }

const char *whole_event_name(enum whole_event event)
{
#define WHOLE_EVENT_NAME(name) #name,
    static const char *const names[] = { WHOLE_EVENTS(WHOLE_EVENT_NAME) };
    return names[event];
}

void whole_violate(struct whole *w, const char *format, ...)
{
    if (w->violation[0] != 0)
        return;
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(w->violation, sizeof w->violation, format, arguments);
    va_end(arguments);
    if (len > 0 && (size_t)len < sizeof w->violation)
        snprintf(w->violation + len, sizeof w->violation - (size_t)len, ", at %lld ms",
                 (long long)whole_now_ms());
}

/* ---- a life ---- */

struct plan {
    uint64_t seed;
    int64_t faulty_ms;
    bool is_calm;
    struct whole_plants plants;
    const bool *left_out; /* of FAULTS_MAX; NULL: nothing is */
};

/* A pump that has nothing to do looks at its timers later than the driver would. */
static void wait_for_client(bool (*is_ready)(void *client), void *client, int64_t budget_ms)
{
    (void)fiber_wait(is_ready, client, 4 * budget_ms * NS_PER_MS);
}

static void nodes_open(struct whole *w)
{
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct whole_node *n = &w->nodes[i];
        n->whole = w;
        n->number = i;
        n->disk = 1;
        snprintf(n->name, sizeof n->name, "%c", 'a' + i);
        snprintf(n->zone, sizeof n->zone, "z%u", i % w->zone_count);
        snprintf(n->address, sizeof n->address, "n%u", i);
        check(io_sim_open(w->seed + i, &n->io) == OK);
        n->not_before_ms = (int64_t)whole_below(w, 3000);
    }
}

static void life_open(struct whole *w, const struct plan *plan)
{
    const struct brokers_sim_config brokers = { .broker_count = 3,
                                                .zone_count = 3,
                                                .topics = { { 1, -1, true },
                                                            { PARTITIONS, RETENTION_MS, true } },
                                                .topic_count = 2,
                                                .is_calm = plan->is_calm || plan->seed % 3 == 0,
                                                .is_gapless = true };
    memset(w, 0, sizeof *w);
    w->seed = plan->seed;
    w->random.state = plan->seed;
    w->plants = plan->plants;
    w->faulty_ms = plan->faulty_ms;
    w->is_faulty = !plan->is_calm;
    w->node_count = 3 + (uint32_t)(plan->seed / 4 % 3);
    w->zone_count = 2 + (uint32_t)(plan->seed / 12 % 2);
    w->goes_back = plan->seed % 4 == 0;
    w->pool = pool_open(NULL, "world", POOL_BYTES_UNLIMITED);
    fibers_open(plan->seed);
    w->brokers = brokers_sim_open(plan->seed, &brokers);
    brokers_sim_on_wait(w->brokers, wait_for_client);
    w->bucket = bucket_sim_open(plan->seed);
    model_open(w);
    nodes_open(w);
    if (!plan->is_calm)
        faults_plan(w);
    for (size_t i = 0; i < w->fault_count && plan->left_out != NULL; i++)
        w->faults[i].is_left_out = plan->left_out[i];
}

static void life_close(struct whole *w)
{
    for (uint32_t i = 0; i < w->node_count; i++) {
        node_kill(&w->nodes[i], false);
        w->trace = hash_mix(w->trace ^ io_sim_trace(w->nodes[i].io));
        io_close(w->nodes[i].io);
    }
    w->trace = hash_mix(w->trace ^ fibers_trace());
    for (int i = 0; i < BROKERS_SIM_COUNT_END; i++) /* their own trace has the addresses of appends */
        w->trace = hash_mix(w->trace ^ brokers_sim_counts(w->brokers)[i]);
    w->trace = hash_mix(w->trace ^ bucket_sim_trace(w->bucket));
    net_close(w);
    model_close(w);
    bucket_sim_close(w->bucket);
    brokers_sim_close(w->brokers);
    fibers_close();
    pool_close(w->pool);
}

static void step(struct whole *w)
{
    brokers_sim_advance(w->brokers, TICK_MS);
    bucket_sim_pass(w->bucket);
    for (uint32_t i = 0; i < w->node_count; i++)
        node_pass(&w->nodes[i]);
    net_pass(w);
    fibers_pass(TICK_MS * NS_PER_MS);
    model_pass(w);
}

static const char *rest(struct whole *w)
{
    const char *why = "";
    int64_t begin_ms = whole_now_ms();
    faults_heal(w);
    while (why != NULL && whole_now_ms() < begin_ms + REST_MS && w->violation[0] == 0) {
        for (int i = 0; i < 200; i++)
            step(w);
        w->is_quiet = whole_now_ms() > begin_ms + QUIET_MS;
        why = w->is_quiet ? model_unrest(w) : "clients write";
        if (why == NULL && !model_last_queries(w))
            why = "every node answers completely";
    }
    w->rest_ms = whole_now_ms() - begin_ms;
    return why;
}

/* ---- what happened in all lives ---- */

static struct totals {
    uint64_t lives, events[EVENT_COUNT], faults[FAULT_KIND_COUNT], brokers[BROKERS_SIM_COUNT_END],
        bucket[BUCKET_SIM_COUNT_END];
    int64_t rest_ms_max;
} totals;

static void count(const struct whole *w)
{
    totals.lives++;
    totals.rest_ms_max = w->rest_ms > totals.rest_ms_max ? w->rest_ms : totals.rest_ms_max;
    for (int i = 0; i < EVENT_COUNT; i++)
        totals.events[i] += w->events[i];
    for (int i = 0; i < FAULT_KIND_COUNT; i++)
        totals.faults[i] += w->fault_counts[i];
    for (int i = 0; i < BROKERS_SIM_COUNT_END; i++)
        totals.brokers[i] += brokers_sim_counts(w->brokers)[i];
    for (int i = 0; i < BUCKET_SIM_COUNT_END; i++)
        totals.bucket[i] += bucket_sim_counts(w->bucket)[i];
}

/* NULL: no oracle had anything to say. */
static const char *live(const struct plan *plan)
{
    struct whole *w = &world;
    life_open(w, plan);
    while (whole_now_ms() < w->faulty_ms && w->violation[0] == 0) {
        faults_pass(w);
        step(w);
    }
    const char *why = w->violation[0] == 0 ? rest(w) : NULL;
    if (why != NULL)
        whole_violate(w, "at rest: %s", why);
    if (w->violation[0] == 0)
        model_judge_rest(w);
    count(w);
    life_close(w);
    return w->violation[0] != 0 ? w->violation : NULL;
}

static unsigned print_count(const char *name, uint64_t count)
{
    printf("# %s: %llu\n", name, (unsigned long long)count);
    return count == 0;
}

/* Of what must happen in many lives: how much did not. */
static unsigned print_totals(void)
{
    static const enum brokers_sim_count of_brokers[] = {
        BROKERS_SIM_COUNT_ELECTION,       BROKERS_SIM_COUNT_ISR_SHRINK,
        BROKERS_SIM_COUNT_ISR_GROW,       BROKERS_SIM_COUNT_REPLY_LOST,
        BROKERS_SIM_COUNT_DEDUPED,        BROKERS_SIM_COUNT_STORED_TWICE,
        BROKERS_SIM_COUNT_LOG_WENT_BACK,  BROKERS_SIM_COUNT_FOLLOWER_CUT_BACK,
        BROKERS_SIM_COUNT_EXPIRED_BY_AGE, BROKERS_SIM_COUNT_PRODUCER_FATAL,
    };
    static const struct {
        enum stat stat;
        const char *name;
    } stats[] = { { STAT_SHARD_COMMITS, "commits" },
                  { STAT_SHARD_TAKEN_OVER, "entries taken over" },
                  { STAT_SHARD_RACES, "races of entries" },
                  { STAT_SHARD_COMPACTIONS, "merges" },
                  { STAT_SHARD_DUPLICATE_RECORDS, "duplicates of records" },
                  { STAT_SYNC_COMPARED, "comparisons" } };
    unsigned missing = 0;
    printf("# %llu lives, at rest %lld ms after the faults at most\n", (unsigned long long)totals.lives,
           (long long)totals.rest_ms_max);
    for (int i = 0; i < FAULT_KIND_COUNT; i++)
        missing += print_count(fault_name((enum fault_kind)i), totals.faults[i]);
    for (int i = 0; i < EVENT_COUNT; i++)
        missing += print_count(whole_event_name((enum whole_event)i), totals.events[i]);
    for (size_t i = 0; i < sizeof of_brokers / sizeof *of_brokers; i++)
        missing += print_count(brokers_sim_count_name(of_brokers[i]), totals.brokers[of_brokers[i]]);
    for (int i = 0; i < BUCKET_SIM_COUNT_END; i++)
        missing += print_count(bucket_sim_count_name((enum bucket_sim_count)i), totals.bucket[i]);
    for (size_t i = 0; i < sizeof stats / sizeof *stats; i++)
        missing += print_count(stats[i].name, (uint64_t)stat_get(stats[i].stat));
    return missing;
}

/* ---- shrinking ---- */

static bool still_fails(const struct plan *plan) { return live(plan) != NULL; }

/* Leave out as much as the life fails without: halves of what is left, then smaller parts, then one by one. */
static void leave_out(struct plan *plan, bool *left_out, size_t count)
{
    bool tried[FAULTS_MAX];
    for (size_t part = (count + 1) / 2; part > 0; part /= 2)
        for (size_t first = 0; first < count; first += part) {
            memcpy(tried, left_out, sizeof tried);
            for (size_t i = first; i < first + part && i < count; i++)
                tried[i] = true;
            plan->left_out = tried;
            if (memcmp(tried, left_out, sizeof tried) != 0 && still_fails(plan))
                memcpy(left_out, tried, sizeof tried);
            plan->left_out = left_out;
        }
}

/* Print the smallest set of faults, in the shortest life, that still fails. */
static void shrink(struct plan plan)
{
    bool left_out[FAULTS_MAX] = { false };
    struct whole *w = &world;
    plan.left_out = left_out;
    if (!still_fails(&plan)) {
        printf("it does not fail\n");
        return;
    }
    for (int64_t less_ms = plan.faulty_ms / 2; less_ms >= 10000; less_ms /= 2) {
        plan.faulty_ms -= less_ms;
        if (!still_fails(&plan))
            plan.faulty_ms += less_ms;
    }
    life_open(w, &plan);
    size_t count = w->fault_count;
    life_close(w);
    leave_out(&plan, left_out, count);
    printf("fails: %s\n", live(&plan));
    life_open(w, &plan);
    printf("%u nodes in %u zones, faults until %lld ms, of which:\n", w->node_count, w->zone_count,
           (long long)plan.faulty_ms);
    for (size_t i = 0; i < w->fault_count; i++)
        if (!left_out[i])
            printf("  at %lld ms for %lld: %s, node %u, other %u, broker %u, x %llu\n",
                   (long long)w->faults[i].at_ms, (long long)w->faults[i].for_ms,
                   fault_name(w->faults[i].kind), w->faults[i].node, w->faults[i].other, w->faults[i].broker,
                   (unsigned long long)w->faults[i].x);
    life_close(w);
}

/* ---- tests ---- */

static bool is_full;

static void any_life_converges(void **state)
{
    struct test_random r = test_random_begin("any_life_converges");
    struct plan plan = { .faulty_ms = is_full ? FULL_MS : SMALL_MS };
    const char *many = getenv("LIVES");
    uint64_t lives = many != NULL ? strtoull(many, NULL, 0) : is_full ? FULL_LIVES : SMALL_LIVES;
    totals = (struct totals){ 0 };
    for (uint64_t i = 0; i < lives; i++) {
        plan.seed = test_random_u64(&r) >> 32;
        const char *wrong = live(&plan);
        if (wrong != NULL)
            fail_msg("seed %llu, %lld ms: %s", (unsigned long long)plan.seed, (long long)plan.faulty_ms,
                     wrong);
    }
    unsigned missing = print_totals();
    if (lives >= DENSE_LIVES)
        assert_int_equal(missing, 0);
}

static void one_seed_one_history(void **state)
{
    struct plan plan = { .seed = 8, .faulty_ms = is_full ? FULL_MS : 3 * MS_PER_MINUTE };
    for (int i = 0; i < (is_full ? 5 : 1); i++, plan.seed++) {
        live(&plan);
        uint64_t first = world.trace;
        live(&plan);
        assert_true(world.trace == first);
        plan.seed++;
        live(&plan);
        assert_true(world.trace != first);
    }
}

/* A deliberately broken build for each oracle, which it must find. */
static const struct {
    const char *what, *oracle;
    uint64_t seed; /* a life that found it: the search begins there */
    struct whole_plants plants;
} plants[] = {
    { "what may be stored is called acknowledged", "answers: ", 1, { .kafka = LOG_KAFKA_PLANT_EARLY_ACK } },
    { "a query does not wait", "answers: ", 4, { .shard = SHARD_CANARY_NO_WAIT } },
    { "a record that comes twice is applied twice", "at rest: ", 2, { .shard = SHARD_CANARY_NO_DEDUPE } },
    { "a commit with another SUM is taken over",
      "replicas: ",
      2,
      { .shard = SHARD_CANARY_FOLD_BLINDLY, .shard_of_one = SHARD_CANARY_NO_DEDUPE } },
    { "nobody raises the log's retention", "expiry: ", 2, { .no_guard = true } },
    { "a lease holds for ever", "put out", 3, { .agent = AGENT_PLANT_LONG_LEASE } },
    { "nobody finds that a partition has closed itself", "at rest: ", 8, { .no_opening_again = true } },
    { "nobody announces again what a log lost", "at rest: ", 24, { .ingest = INGEST_CANARY_NEVER_AGAIN } },
};

static void planted_bugs_are_found(void **state)
{
    struct plan plan = { .faulty_ms = FULL_MS };
    for (size_t i = 0; i < sizeof plants / sizeof *plants; i++) {
        const char *wrong = NULL;
        plan.plants = plants[i].plants;
        plan.seed = plants[i].seed;
        for (int k = 0; k < PLANT_LIVES && wrong == NULL; k++, plan.seed++)
            wrong = live(&plan);
        printf("# %s: life %llu: %s\n", plants[i].what, (unsigned long long)plan.seed - 1,
               wrong != NULL ? wrong : "not found");
        assert_true(wrong != NULL && strstr(wrong, plants[i].oracle) != NULL);
    }
}

static int lives_of(int argc, char **argv, bool shrinks)
{
    int failures = 0;
    for (int i = 1; i < argc; i++) {
        struct plan plan = { .seed = strtoull(argv[i], NULL, 0), .faulty_ms = FULL_MS };
        const char *plant = getenv("PLANT"), *minutes = getenv("MINUTES");
        if (argv[i][0] == '-')
            continue;
        if (minutes != NULL)
            plan.faulty_ms = strtoll(minutes, NULL, 0) * MS_PER_MINUTE;
        if (plant != NULL)
            plan.plants = plants[strtoull(plant, NULL, 0) % (sizeof plants / sizeof *plants)].plants;
        if (shrinks) {
            shrink(plan);
            continue;
        }
        const char *wrong = live(&plan);
        printf("seed %s: %s, rest %lld ms, trace %016llx\n", argv[i], wrong == NULL ? "right" : wrong,
               (long long)world.rest_ms, (unsigned long long)world.trace);
        fflush(stdout);
        failures += wrong != NULL;
    }
    return failures;
}

int main(int argc, char **argv)
{
    const char *set = getenv("KELPIE_SIM");
    is_full = (set != NULL && strcmp(set, "full") == 0) || (argc > 1 && strcmp(argv[1], "--full") == 0);
    is_verbose = getenv("VERBOSE") != NULL;
    if (argc > 1 && strcmp(argv[1], "--full") != 0) {
        int failures = lives_of(argc, argv, strcmp(argv[1], "--shrink") == 0);
        if (getenv("TOTALS") != NULL)
            (void)print_totals();
        return failures > 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_life_converges),
        cmocka_unit_test(one_seed_one_history),
        cmocka_unit_test(planted_bugs_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
