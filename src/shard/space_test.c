/* Free space below the floor. Goal: what gives space back goes on, what takes some waits, nothing spins. Method: a
 * world on a real disk whose log is told that space is low, or has no room in its queue. */
#include "shard/fixture.h"

#include "base/stat.h"
#include "shard/partition.h"

/* Everything is to be cut, and to be looked at for retention. */
static void ask_all(struct world *w)
{
    struct shards_config config = w->config;
    config.retention_ms = MS_PER_DAY;
    assert_ok(shards_reconfigure(w->shards, &config, NULL));
    for (uint32_t i = 0; i < WORLD_PARTITIONS; i++) {
        w->shards->partitions[i].cut_asked = true;
        w->shards->partitions[i].cut_asked_start = w->shards->partitions[i].open_range->start;
    }
}

static void write_and_settle(struct world *w)
{
    assert_ok(world_open(w));
    world_write(w, 60);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    for (uint32_t i = 0; i < WORLD_PARTITIONS; i++)
        assert_ok(world_append(w, i, 20, false));
    assert_ok(world_settle(w, 1000));
}

/* A CUT that the log refuses is no work, or the step would never end, and stops nothing else. */
static void a_refused_cut_stops_nothing(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    bool worked;
    write_and_settle(w);
    world_close_quick(w);
    w->log_queue_bytes = 1;
    assert_ok(world_open(w));
    while (!shards_ready(w->shards))
        assert_ok(shards_apply_step(w->shards, &worked));
    ask_all(w);
    for (int i = 0; i < 8; i++)
        assert_ok(shards_background_step(w->shards, &worked));
    assert_false(worked);
    for (uint32_t i = 0; i < WORLD_PARTITIONS; i++)
        assert_int_equal(atomic_load(&w->shards->partitions[i].cut.result), ERR_BUSY);
    assert_int_equal(shards_usage(w->shards).retention_waits, WORLD_PARTITIONS); /* it looked: all would go */
}

/* Below the floor nothing is written but what gives space back: log and stream of what is cut go. */
static void ranges_are_cut_below_the_floor(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    write_and_settle(w);
    w->is_space_low = true;
    assert_ok(world_append(w, 0, 20, false));
    assert_int_equal(w->records[w->record_count - 1]->answer, WORLD_REFUSED);
    uint64_t before = shards_usage(w->shards).segment_rows;
    assert_true(shards_usage(w->shards).stream_rows + shards_usage(w->shards).head_rows > 0);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    assert_int_equal(shards_usage(w->shards).stream_rows + shards_usage(w->shards).head_rows, 0);
    assert_true(shards_usage(w->shards).segment_rows > before);
}

/* Merges need space that they give back only later: below the floor they wait. */
static void merges_wait_for_space(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    assert_ok(world_open(w));
    shards_space_set(w->shards, 0);
    int64_t before = stat_get(STAT_SHARD_COMPACTIONS);
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < WORLD_PARTITIONS; i++)
            assert_ok(world_append(w, i, 20, false));
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
        assert_ok(world_settle(w, 1000));
    }
    assert_int_equal(stat_get(STAT_SHARD_COMPACTIONS), before);
    assert_true(shards_usage(w->shards).segment_count >= 3 * WORLD_PARTITIONS);
    shards_space_set(w->shards, 1u << 30);
    for (uint32_t i = 0; i < WORLD_PARTITIONS; i++)
        w->shards->partitions[i].compact_retry_ns = 0;
    assert_ok(world_settle(w, 1000));
    assert_true(stat_get(STAT_SHARD_COMPACTIONS) > before);
    assert_int_equal(atomic_load(&w->shards->merging_bytes), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_refused_cut_stops_nothing, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(ranges_are_cut_below_the_floor, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(merges_wait_for_space, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
