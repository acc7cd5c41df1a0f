/* Replicas over a log in memory that can go back: replicas.h. KELPIE_SIM=full or --full runs more lives; an
 * argument is the seed of one. */
#include "sim/replicas.h"

#include "sim/log_sim.h"

static bool is_full;

/* ---- the ground ---- */

static struct log_sim_store *store_of(struct life *l) { return l->ground_state; }

static void ground_begin(struct life *l, uint64_t seed)
{
    struct log_sim_store *store;
    assert_ok(log_sim_store_open(WORLD_PARTITIONS, l->w.node_pool, &store));
    l->ground_state = store;
    l->is_heard_late = seed / 4 % 2 == 0;
    log_sim_delay(store, l->is_heard_late ? 40 * NS_PER_SECOND : 0);
}

static void ground_end(struct life *l) { log_sim_store_close(store_of(l)); }

static void process_open(struct life *l, uint32_t k)
{
    assert_ok(log_sim_open(store_of(l), l->w.io, l->w.node_pool, &l->replicas[k].log));
}

static void process_settle(struct life *l, uint32_t k) {}
static void process_close(struct life *l, uint32_t k) { log_close(l->replicas[k].log); }
static void pass(struct life *l, int64_t ns) { io_sim_clock_advance(l->w.io, ns); }

/* The log loses its newest records, or as many as there are. What had been acknowledged of them may be gone; a
 * producer announces its series again when it hears of it. */
static void go_back(struct life *l, uint32_t partition)
{
    uint64_t end = log_sim_end(store_of(l), partition), most = draw(l, 3) == 0 ? end : 12;
    uint64_t to = end - draw(l, (most < end ? most : end) + 1);
    struct going_back back = { partition, to, to };
    if (l->back_count == BACKS_MAX || l->lost_count + (end - to) > LOST_MAX)
        return;
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        uint64_t seen = log_sim_seen(l->replicas[k].log, partition);
        back.seen_end = seen > back.seen_end ? seen : back.seen_end;
    }
    for (size_t i = 0; i < l->w.record_count; i++) {
        struct world_record *r = l->w.records[i];
        if (r->partition != partition || r->answer != WORLD_ACKED || r->offset < to)
            continue;
        uint32_t witnesses = 0;
        for (uint32_t k = 0; k < REPLICA_COUNT; k++)
            witnesses |= (uint32_t)(log_sim_seen(l->replicas[k].log, partition) > r->offset) << k;
        l->lost[l->lost_count].record = r;
        l->lost[l->lost_count++].witnesses = witnesses;
        r->answer = witnesses != 0 ? WORLD_LOST : WORLD_PENDING;
    }
    l->backs[l->back_count++] = back;
    log_sim_back(store_of(l), partition, to);
    memset(l->w.producer.announced[partition], 0, sizeof l->w.producer.announced[partition]);
    l->has_gone_back = true;
    deeds[DEED_BACK]++;
}

static void nothing(struct life *l) {}

static const struct ground memory = {
    .begin = ground_begin,
    .end = ground_end,
    .process_open = process_open,
    .process_settle = process_settle,
    .process_close = process_close,
    .pass = pass,
    .go_back = go_back,
    .strike = nothing,
    .heal = nothing,
    .judge = nothing,
};

/* ---- tests ---- */

static void replicas_come_to_the_same(void **unused)
{
    struct test_random r = test_random_begin("replicas_come_to_the_same");
    run_lives(&memory, is_full ? 2000 : 60, 100, &r);
}

/* A life in which replica 1, which is the first to commit or the last, applies records twice. At rest every
 * replica's answers are wrong in some way: how many say so. */
static uint32_t differ(bool is_first, uint32_t canary)
{
    struct life *l = calloc(1, sizeof *l);
    struct pool *pool = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    uint32_t told = 0;
    assert_non_null(l);
    life_open(l, &memory, pool, 3, canary);
    replica_close(l, 1);
    l->replicas[1].config.canary |= SHARD_CANARY_NO_DEDUPE;
    replica_open(l, 1);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++)
        for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
            shards_partition_rank(l->replicas[k].shards, p, (k == 1) == is_first ? 0 : 1, INT64_MAX);
    for (int i = 0; i < 40; i++)
        append(l);
    for (size_t i = 0; i < l->w.record_count; i += 3) {
        world_send(&l->w, l->w.records[i]);
    }
    rest(l);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        const struct chain *chain = &l->replicas[k].shards->partitions[0].chain;
        size_t doubts = 0;
        for (size_t i = 0; i < chain->loss_count; i++)
            doubts += chain->losses[i].kind == LOSS_DOUBT;
        (void)check_replica(l, k); /* the rows may be those of the one that is wrong */
        told += doubts > 0 && !l->w.was_complete;
    }
    life_close(l);
    pool_close(pool);
    free(l);
    return told;
}

/* A replica that made other rows of the same range is found, and all name it. */
static void replicas_that_differ_are_told(void **unused)
{
    for (int is_first = 0; is_first < 2; is_first++) {
        int64_t before = stat_get(STAT_SHARD_DOUBTS);
        assert_int_equal(differ(is_first, 0), REPLICA_COUNT);
        assert_true(stat_get(STAT_SHARD_DOUBTS) > before);
        assert_int_equal(differ(is_first, SHARD_CANARY_FOLD_BLINDLY), 0); /* planted: nobody compares */
    }
}

int main(int argc, char **argv)
{
    const char *set = getenv("KELPIE_SIM");
    is_full = set != NULL && strcmp(set, "full") == 0;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--full") == 0)
            is_full = true;
        else {
            const char *wrong = run_life(&memory, strtoull(argv[i], NULL, 0), 100, 0);
            printf("seed %s: %s\n", argv[i], wrong == NULL ? "right" : wrong);
            return wrong != NULL;
        }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicas_come_to_the_same),
        cmocka_unit_test(replicas_that_differ_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
