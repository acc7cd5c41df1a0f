/* A row changed on one replica's disk under right checksums: found without being asked, and mended; replicas.h
 * without faults. Three experiments: the file is changed under a running replica, which has the SUM in memory;
 * between two lives of one, SUMs and all, so that nothing of its own tells; and so, but for the checkpoints. With
 * the comparison or the reading back switched off it is not found: so the test would notice. */
#include "sim/replicas_memory.h"

#include "sim/flip.h"

enum experiment { RUNNING, RESTARTED, HALF_DONE };

/* Change a row of a stream file of replica k. The partition; WORLD_PARTITIONS: there is no row yet. */
static uint32_t flip(struct life *l, uint32_t k, enum flip_depth depth)
{
    struct io_dir_entry *entries;
    size_t count;
    assert_ok(io_dir_list(l->w.io, l->replicas[k].stream, l->w.pool, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        char path[IO_PATH_BYTES_MAX];
        struct stream_name name;
        snprintf(path, sizeof path, "%s/%s", l->replicas[k].stream, entries[i].name);
        if (stream_name_parse(entries[i].name, &name) && flip_stream_row(l->w.io, path, depth, l->w.pool))
            return name.partition;
    }
    return WORLD_PARTITIONS;
}

/* Rows come, are applied and spilled, and none of the ranges is cut meanwhile. */
static void fill(struct life *l)
{
    for (int i = 0; i < 60; i++) {
        append(l);
        for (uint32_t k = 0; k < REPLICA_COUNT; k++)
            for (int s = 0; s < 4; s++) {
                bool worked;
                ERR_IGNORE(shards_apply_step(l->replicas[k].shards, &worked));
                ERR_IGNORE(shards_spill_step(l->replicas[k].shards, &worked));
            }
    }
}

/* Minutes in which records come, as seldom as not to end a range. True: sweeps were never told no. */
static bool go_on(struct life *l, int minutes)
{
    bool may_sweep_always = true;
    for (int i = 0; i < minutes * 6; i++) {
        if (i % 3 == 0)
            append(l);
        for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
            reopen(l, k);
            for (int s = 0; s < 6; s++) {
                bool worked;
                ERR_IGNORE(shards_apply_step(l->replicas[k].shards, &worked));
                ERR_IGNORE(shards_spill_step(l->replicas[k].shards, &worked));
                (void)sync_step(l->replicas[k].sync);
            }
            for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
                may_sweep_always = may_sweep_always && may_sweep(&l->replicas[k], p);
        }
        pass(l, 10 * NS_PER_SECOND);
    }
    return may_sweep_always;
}

struct outcome {
    int64_t differed, quarantined, repaired;
    uint32_t replicas_right; /* of which every answer is right */
    bool is_doubtful;        /* somewhere, at the end */
    bool may_sweep_always;
    const char *wrong; /* when all is at rest */
};

static const enum flip_depth depths[] = {
    [RUNNING] = FLIP_ROW, [RESTARTED] = FLIP_ALL, [HALF_DONE] = FLIP_GROUP
};

static struct outcome run(uint64_t seed, enum experiment experiment, bool flips, unsigned plants)
{
    struct life *l = calloc(1, sizeof *l);
    struct pool *pool = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    struct outcome o = { .differed = stat_get(STAT_SYNC_DIFFERED),
                         .quarantined = stat_get(STAT_SYNC_QUARANTINED),
                         .repaired = stat_get(STAT_SYNC_REPAIRED) };
    assert_non_null(l);
    life_open(l, &memory, pool, seed, 0);
    uint32_t victim = (uint32_t)draw(l, REPLICA_COUNT), partition = 0;
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        l->replicas[k].sync_plants = plants;
        replica_close(l, k);
        replica_open(l, k);
        replica_lease(l, k, INT64_MIN); /* nothing is cut before the end */
    }
    fill(l);
    if (experiment != RUNNING)
        replica_close(l, victim); /* it spills what it has */
    if (flips)
        partition = flip(l, victim, depths[experiment]);
    assert_true(partition < WORLD_PARTITIONS);
    if (experiment != RUNNING)
        replica_open(l, victim);
    o.may_sweep_always = go_on(l, 10);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
            o.is_doubtful = o.is_doubtful || !sync_may_sweep(l->replicas[k].sync, p);
        assert_ok(shards_wait_applied(l->replicas[k].shards, INT64_MAX));
        o.replicas_right += check_replica(l, k) == NULL;
    }
    o.differed = stat_get(STAT_SYNC_DIFFERED) - o.differed;
    o.quarantined = stat_get(STAT_SYNC_QUARANTINED) - o.quarantined;
    o.repaired = stat_get(STAT_SYNC_REPAIRED) - o.repaired;
    rest(l);
    o.wrong = compare_chains(l);
    for (uint32_t k = 0; k < REPLICA_COUNT && o.wrong == NULL; k++)
        o.wrong = check_replica(l, k);
    life_close(l);
    pool_close(pool);
    free(l);
    return o;
}

static void a_row_changed_on_disk_is_found_and_mended(void **unused)
{
    struct test_random r = test_random_begin("a_row_changed_on_disk_is_found_and_mended");
    for (int i = 0; i < 24; i++) {
        uint64_t seed = test_random_u64(&r) >> 32;
        struct outcome o = run(seed, i % 2 == 0 ? RUNNING : RESTARTED, true, 0);
        if (o.replicas_right != REPLICA_COUNT || o.wrong != NULL || o.is_doubtful || o.differed == 0 ||
            o.quarantined == 0 || o.repaired == 0 || o.may_sweep_always)
            fail_msg("seed %llu, experiment %d: %u right, %lld differed, %lld quarantined, %lld repaired, %s",
                     (unsigned long long)seed, i % 2, o.replicas_right, (long long)o.differed,
                     (long long)o.quarantined, (long long)o.repaired, o.wrong != NULL ? o.wrong : "");
    }
}

static void without_a_change_nothing_is_put_aside(void **unused)
{
    struct test_random r = test_random_begin("without_a_change_nothing_is_put_aside");
    for (int i = 0; i < 12; i++) {
        int64_t compared = stat_get(STAT_SYNC_COMPARED);
        struct outcome o = run(test_random_u64(&r) >> 32, i % 2 == 0 ? RUNNING : RESTARTED, false, 0);
        assert_int_equal(o.differed, 0);
        assert_int_equal(o.quarantined, 0);
        assert_true(o.may_sweep_always);
        assert_int_equal(o.replicas_right, REPLICA_COUNT);
        assert_null(o.wrong);
        assert_true(stat_get(STAT_SYNC_COMPARED) - compared > 20);
    }
}

/* The opening does not believe a frame that tells two things, and takes the log's word. */
static void a_frame_that_contradicts_itself_is_replayed(void **unused)
{
    struct test_random r = test_random_begin("a_frame_that_contradicts_itself_is_replayed");
    for (int i = 0; i < 6; i++) {
        struct outcome o = run(test_random_u64(&r) >> 32, HALF_DONE, true, 0);
        assert_int_equal(o.replicas_right, REPLICA_COUNT);
        assert_int_equal(o.differed, 0);
        assert_null(o.wrong);
    }
}

/* With either switched off the experiment that needs it fails. */
static void a_blind_comparison_is_noticed(void **unused)
{
    struct test_random r = test_random_begin("a_blind_comparison_is_noticed");
    uint64_t seed = test_random_u64(&r) >> 32;
    struct outcome o = run(seed, RUNNING, true, SYNC_PLANT_NO_READ_BACK);
    assert_int_equal(o.quarantined, 0);
    assert_int_equal(o.replicas_right, REPLICA_COUNT - 1);
    o = run(seed, RESTARTED, true, SYNC_PLANT_NO_COMPARISON);
    assert_int_equal(o.quarantined, 0);
    assert_int_equal(o.replicas_right, REPLICA_COUNT - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_changed_on_disk_is_found_and_mended),
        cmocka_unit_test(without_a_change_nothing_is_put_aside),
        cmocka_unit_test(a_frame_that_contradicts_itself_is_replayed),
        cmocka_unit_test(a_blind_comparison_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
