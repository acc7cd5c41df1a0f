/* Rows that came before their labels, on a room on a real disk: they wait, and have their names as soon as any
 * record brings them. Model and oracle: workload.h. */
#include "shard/fixture.h"

#include "base/stat.h"
#include "shard/partition.h"

/* Rows whose labels were in a record that was not applied wait for the next announcement. */
static void unresolved_rows_wait(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    assert_ok(world_open(w));
    memset(w->producer.announced, 1, sizeof w->producer.announced); /* a lie */
    world_write(w, 5);
    assert_ok(shards_wait_applied(w->shards, world_soon(w)));
    assert_true(shards_usage(w->shards).unresolved_rows > 0);
    assert_string_equal(world_check(w), "an acknowledged record is lost");
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_close_quick(w); /* through the state object */
    assert_ok(world_open(w));
    uint64_t waiting = shards_usage(w->shards).unresolved_rows;
    assert_true(waiting > 0);
    memset(w->producer.announced, 0, sizeof w->producer.announced);
    for (int i = 0; i < 40; i++)
        world_write(w, 1);
    world_expect(w);
    assert_int_equal(shards_usage(w->shards).unresolved_rows, 0);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_expect(w);
}

/* What a producer sends when the log went back: a record that names its numbers, without a row; and the same
 * again, as the log may have it. */
static void send_names(struct world *w, uint32_t partition, int copies)
{
    struct batch_announce announces[WORLD_SERIES];
    struct batch b = world_batch(w, partition);
    void *at;
    b.announces = announces;
    for (uint32_t s = 0; s < WORLD_SERIES; s++)
        announces[b.announce_count++] = (struct batch_announce){ s, w->labels[partition][s] };
    assert_ok(pool_zalloc(w->pool, sizeof(struct world_record), &at));
    struct world_record *r = at;
    r->partition = partition;
    r->bytes = buf_open(w->pool, BATCH_BYTES_MAX);
    assert_ok(batch_encode(&b, &r->bytes));
    for (int i = 0; i < copies; i++) {
        world_send(w, r);
        assert_ok(log_pump(w->log));
        assert_int_equal(r->answer, WORLD_ACKED);
    }
}

static void rows_are_named_without_rows(void **state)
{
    struct world *w = &((struct fixture *)*state)->world;
    assert_ok(world_open(w));
    memset(w->producer.announced, 1, sizeof w->producer.announced); /* a lie */
    world_write(w, 5);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    assert_true(shards_usage(w->shards).unresolved_rows > 0);
    int64_t doubles = stat_get(STAT_SHARD_DUPLICATE_RECORDS);
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        send_names(w, p, 2);
    world_expect(w);
    assert_int_equal(shards_usage(w->shards).unresolved_rows, 0);
    assert_int_equal(stat_get(STAT_SHARD_DUPLICATE_RECORDS) - doubles, WORLD_PARTITIONS);
    for (int i = 0; i < 2; i++) {
        for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
            send_names(w, p, 1); /* what is known already, in a range without a row */
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
        world_close_quick(w);
        assert_ok(world_open(w));
        world_expect(w);
    }
}

/* Rows wait; the record with their labels runs out of memory at its first, second, … allocation, and is tried
 * again. */
static void labels_that_come_without_memory(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    bool worked;
    w->config.head_rows_max = 64;
    for (uint64_t nth = 1; nth <= 12; nth++) {
        world_init(w, f->io, f->pool, nth);
        w->incarnation_count = nth * 100;
        world_producer_renew(w);
        assert_ok(world_open(w));
        memset(w->producer.announced, 1, sizeof w->producer.announced); /* a lie */
        world_write(w, 12);
        assert_ok(shards_wait_applied(w->shards, world_soon(w)));
        assert_true(shards_usage(w->shards).unresolved_rows > 0);
        memset(w->producer.announced, 0, sizeof w->producer.announced);
        for (int i = 0; i < 40; i++) {
            struct world_record *r = world_record_make(w, (uint32_t)i % WORLD_PARTITIONS, 40, false);
            world_send(w, r);
            assert_ok(log_pump(w->log));
            pool_fault_at(w->node_pool, nth, false);
            ERR_IGNORE(shards_apply_step(w->shards, &worked));
            pool_fault_at(w->node_pool, 0, false);
            world_answered(w, r);
        }
        assert_ok(shards_wait_applied(w->shards, world_soon(w)));
        world_expect(w);
        assert_int_equal(shards_usage(w->shards).unresolved_rows, 0);
        world_close_quick(w);
        fixture_remove(f, "log");
        fixture_remove(f, "stream");
        fixture_remove(f, "blob");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(unresolved_rows_wait, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(rows_are_named_without_rows, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(labels_that_come_without_memory, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
