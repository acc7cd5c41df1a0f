/* Replicas over a log in memory that can go back: replicas.h. KELPIE_SIM=full or --full runs more lives; an
 * argument is the seed of one. */
#include "sim/replicas_memory.h"

static bool is_full;

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

/* ---- one going back at a time, of partition 0 ---- */

static struct partition *first_of(struct life *l, uint32_t k)
{
    return &l->replicas[k].shards->partitions[0];
}

/* No time passes. */
static void settle(struct life *l, uint32_t k)
{
    for (int i = 0; i < 20; i++) {
        reopen(l, k);
        step(l, k, 30);
    }
}

static void write_first(struct life *l, int count)
{
    for (int i = 0; i < count; i++)
        assert_ok(world_append(&l->w, 0, 20, false));
}

/* Ten records, of which the chain has six, and all three have seen them. */
static void begin_with_ten(struct life *l, struct pool *own)
{
    life_open(l, &memory, own, 5, 0);
    write_first(l, 6);
    assert_ok(shards_cut_all(l->replicas[0].shards, io_monotonic_ns(l->w.io) + NS_PER_SECOND));
    rest(l);
    write_first(l, 4);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        settle(l, k);
        assert_int_equal(first_of(l, k)->chain.end.offset, first_of(l, 0)->chain.end.offset);
        assert_int_equal(first_of(l, k)->applied.offset, log_sim_end(store_of(l), 0));
    }
}

/* What the chain had of it when it was told is not named, nor is anything twice: not by the life of the partition
 * that began a generation, not by the next, for which the chain ends below, and not by other replicas. */
static void what_was_lost_is_named_once(void **unused)
{
    struct pool *own = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    struct life *l = calloc(1, sizeof *l);
    assert_non_null(l);
    begin_with_ten(l, own);
    uint64_t committed = first_of(l, 0)->chain.end.offset, end = log_sim_end(store_of(l), 0);
    assert_true(committed > 2 && committed < end);
    log_sim_back(store_of(l), 0, 2);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        settle(l, k);
        assert_int_equal(first_of(l, k)->lost_end.kind, 0);
    }
    rest(l);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        const struct chain *c = &first_of(l, k)->chain;
        assert_int_equal(c->end.generation, 2);
        assert_int_equal(c->loss_count, 1);
        assert_int_equal(c->losses[0].from.generation, 1);
        assert_int_equal(c->losses[0].from.offset, committed);
        assert_int_equal(c->losses[0].to.offset, end);
    }
    life_close(l);
    pool_close(own);
    free(l);
}

/* A replica that has the partition not open, and told what it saw of a going back, opens it in the generation that
 * another began for the next one before its driver hears of that: no other begins. */
static void a_generation_begins_once(void **unused)
{
    struct pool *own = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    struct life *l = calloc(1, sizeof *l);
    uint64_t back_to;
    assert_non_null(l);
    begin_with_ten(l, own);
    struct log *first = l->replicas[0].log, *second = l->replicas[1].log;
    shards_partition_close(l->replicas[1].shards, 0);
    log_sim_back(store_of(l), 0, first_of(l, 0)->chain.end.offset + 1);
    settle(l, 0);
    assert_ok(log_went_back(second, 0, &back_to));
    for (int i = 0; i < 10; i++)
        step(l, 1, 30);
    assert_int_equal(shards_partition_status(l->replicas[1].shards, 0).stage, SHARD_CLOSED);
    assert_err(ERR_NOT_FOUND, log_went_back(second, 0, &back_to));
    log_sim_delay(store_of(l), 1000 * NS_PER_SECOND);
    log_sim_back(store_of(l), 0, 2);
    ERR_IGNORE(world_append(&l->w, 0, 20, false));
    assert_ok(log_went_back(first, 0, &back_to)); /* it wrote, and so heard of it */
    settle(l, 0);
    write_first(l, 3);
    assert_ok(shards_cut_all(l->replicas[0].shards, io_monotonic_ns(l->w.io) + NS_PER_SECOND));
    settle(l, 0);
    assert_int_equal(first_of(l, 0)->chain.end.generation, 3);
    assert_true(first_of(l, 0)->chain.end.offset > 2);
    assert_err(ERR_NOT_FOUND, log_went_back(second, 0, &back_to));
    settle(l, 1);
    rest(l);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++)
        assert_int_equal(first_of(l, k)->chain.end.generation, 3);
    assert_null(compare_chains(l));
    life_close(l);
    pool_close(own);
    free(l);
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
        cmocka_unit_test(what_was_lost_is_named_once),
        cmocka_unit_test(a_generation_begins_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
