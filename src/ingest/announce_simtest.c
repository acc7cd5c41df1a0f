/* Goal: when a log went back, everything that is left of it gets its name again, whatever fails meanwhile, and
 * what is kept for that goes when it is not needed. Method: a log that loses its newest records without a word and
 * tells later; each rule by hand, then long random runs. */
#include "base/test.h"

#include "base/stat.h"
#include "sim/io_sim.h"

#include "ingest/write_fixture.h"

/* Rows in the log that have no name. */
static uint64_t nameless(void)
{
    uint64_t count = 0;
    for (size_t i = 0; i < fake->use_count; i++)
        count += fake->uses[i].binding->labels.at == NULL;
    return count;
}

/* Numbers in the log that have one. */
static uint64_t named(void)
{
    uint64_t count = 0;
    for (size_t i = 0; i < FAKE_BINDING_COUNT; i++)
        count += fake->bindings[i].labels.at != NULL;
    return count;
}

static void step(int64_t ms)
{
    pass_ms(ms);
    ingest_step(ingest);
}

static void lose_all(void) { fake_lose(fake, fake->record_count); }
static bool is_any_kept(void) { return ingest->announcer.partitions[0].first != NULL; }
static size_t kept_bytes(void) { return pool_used(ingest->announcer.pool); }

/* The history: announced, lost, used without labels before anybody knew, and never written again. */
static void lost_labels_come_again(void **state)
{
    open_over(1, ingest_config_default(), 1);
    struct ingest_row row = { .labels = labels_of(3), .t_ms = 1 };
    struct ingest_rows rows = { .rows = &row, .row_count = 1 };
    struct ingest_result result;
    ingest_write(ingest, slice_str("another"), &rows, &result);
    assert_int_equal(result.status, 204);
    write_now(0, 60);
    lose_all();
    assert_int_equal(write_now(0, 60).status, 204);
    assert_int_equal(nameless(), 60);
    uint64_t announced = fake->announce_count;
    int64_t counted = stat_get(STAT_INGEST_ANNOUNCES_AGAIN);
    step(1000); /* nobody knows yet */
    assert_int_equal(fake->announce_count, announced);
    fake->generation = 2;
    step(1000);
    assert_int_equal(nameless(), 0);
    assert_int_equal(named(), 61);
    assert_int_equal(fake->use_count, 60); /* no row came with it */
    assert_int_equal(fake->announce_count, announced + 61);
    assert_int_equal(stat_get(STAT_INGEST_ANNOUNCES_AGAIN) - counted, 61);
    step(1000);
    assert_int_equal(fake->announce_count, announced + 61); /* once is enough */
    assert_int_equal(write_now(0, 60).status, 204);
    assert_int_equal(fake->announce_count, announced + 121); /* the marks were cleared */
    close_all();
}

/* It is sent until it was acknowledged in the log's generation: after failures later and one alone, and all of it
 * again when the log goes back meanwhile. */
static void failures_are_tried_again(void **state)
{
    open_over(1, one_partition(), 1);
    for (uint64_t i = 0; i < 5; i++)
        write_now(10 * i, 10);
    lose_all();
    fake->generation = 2;
    fake->mode = FAKE_HOLD;
    step(1000);
    assert_int_equal(fake->held_count, 5);
    step(1000);
    assert_int_equal(fake->held_count, 5); /* what is under way is not sent twice */
    while (fake->held_count > 0)
        fake_release(fake, 0, ERR_TIMEOUT);
    step(900);
    assert_int_equal(fake->held_count, 0);
    step(100);
    assert_int_equal(fake->held_count, 1);
    fake_release(fake, 0, OK);
    step(1000);
    assert_int_equal(fake->held_count, 4);
    fake_release(fake, 0, OK);
    lose_all();
    fake->generation = 3;
    fake_release(fake, 0, OK); /* of this generation, and begun in the former */
    lose_all();
    fake_release(fake, 0, ERR_IO);
    fake_release(fake, 0, ERR_IO);
    assert_int_equal(named(), 0);
    fake->mode = FAKE_ACK;
    for (int i = 0; i < 60; i++)
        step(1000);
    assert_int_equal(named(), 50);
    fake->mode = FAKE_HOLD; /* the close answers */
    fake->generation = 4;
    step(1000);
    assert_int_equal(fake->held_count, 5);
    close_all();
}

/* In steady state each series has one announcement, and when it is dropped none. */
static void what_nobody_needs_goes(void **state)
{
    open_over(1, one_partition(), 1);
    write_now(0, 60);
    size_t first = kept_bytes();
    for (int minute = 0; minute < 180; minute++) {
        step(MS_PER_MINUTE);
        write_now(0, 60);
    }
    assert_true(is_any_kept());
    assert_in_range(kept_bytes(), first, first + 8192); /* of 30 records once of one */
    for (int minute = 0; minute < 130; minute++)
        step(MS_PER_MINUTE);
    assert_int_equal(ingest_usage(ingest).series, 0);
    assert_false(is_any_kept());
    close_all();
    open_all(1, one_partition()); /* a log that never goes back */
    size_t empty = kept_bytes();
    write_now(0, 60);
    step(1000);
    assert_int_equal(kept_bytes(), empty);
    assert_null(ingest->announcer.partitions);
    close_all();
}

/* The log is away for hours after it went back: series go, and their rows wait for their names. */
static void dropped_series_are_announced_yet(void **state)
{
    open_over(1, one_partition(), 1);
    write_now(0, 10);
    lose_all();
    write_now(0, 10);
    fake->generation = 2;
    fake->answer = ERR_BUSY;
    for (int minute = 0; minute < 130; minute++)
        step(MS_PER_MINUTE);
    assert_int_equal(ingest_usage(ingest).series, 0);
    assert_int_equal(nameless(), 10);
    assert_in_range(atomic_load(&ingest->producers[0].given_up), 1, 200); /* a gap for each try */
    fake->answer = OK;
    step(31000);
    assert_int_equal(nameless(), 0);
    assert_false(is_any_kept());
    close_all();
}

/* Without memory for what was announced it counts as not announced. */
static void what_cannot_be_kept_marks_nothing(void **state)
{
    open_over(1, one_partition(), 1);
    pool_set_budget(ingest->announcer.pool, kept_bytes());
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(write_now(0, 3).status, 204);
        assert_int_equal(fake->announce_count, 3 * i);
    }
    pool_set_budget(ingest->announcer.pool, POOL_BYTES_UNLIMITED);
    write_now(0, 3);
    write_now(0, 3);
    assert_int_equal(fake->announce_count, 12);
    close_all();
}

/* A new incarnation has none of the former's; the former stays until its numbers have their names again, but not
 * beyond what gaps allow. */
static void numbers_stay_until_they_are_named(void **state)
{
    for (int is_worn_out = 0; is_worn_out < 2; is_worn_out++) {
        struct ingest_config config = one_partition();
        config.idle_ms = 3 * MS_PER_HOUR;
        open_over(1, config, 1);
        struct producer *producer = &ingest->producers[0];
        uint8_t first[INCARNATION_BYTES];
        memcpy(first, producer->incarnation, sizeof first);
        write_now(0, 10);
        atomic_store(&producer->given_up, is_worn_out ? 70000 : 5000);
        fake->generation = 2;
        fake->mode = FAKE_HOLD;
        step(61 * MS_PER_MINUTE);
        assert_int_equal(fake->held_count, 1);
        assert_int_equal(memcmp(first, producer->incarnation, sizeof first) != 0, is_worn_out);
        fake_release(fake, 0, OK);
        assert_int_equal(is_any_kept(), !is_worn_out);
        step(1000);
        assert_memory_not_equal(first, producer->incarnation, sizeof first);
        assert_false(is_any_kept());
        fake->mode = FAKE_ACK;
        assert_int_equal(write_now(0, 10).status, 204);
        assert_true(is_any_kept());
        assert_int_equal(nameless(), 0);
        close_all();
    }
}

/* ---- long runs ---- */

struct run {
    struct test_random random;
    struct ingest_request *requests[20];
    size_t request_count;
    uint64_t lost; /* records that went, and nobody was told */
};

static void poll_all(struct run *run)
{
    for (size_t i = 0; i < run->request_count;) {
        struct ingest_result result;
        if (ingest_poll(run->requests[i], &result))
            run->requests[i] = run->requests[--run->request_count];
        else
            i++;
    }
}

static void act(struct run *run)
{
    struct test_random *r = &run->random;
    uint64_t action = test_random_below(r, 30);
    if (action < 11 && run->request_count < 20) {
        uint64_t from = test_random_below(r, 300), count = 1 + test_random_below(r, 20);
        struct ingest_request *request = try_begin(from, count);
        if (request != NULL)
            run->requests[run->request_count++] = request;
    } else if (action < 23 && fake->held_count > 0) {
        size_t which = test_random_below(r, 3) == 0 ? test_random_below(r, fake->held_count) : 0;
        fake_release(fake, which, test_random_below(r, 8) == 0 ? ERR_IO : OK);
    } else if (action < 26) {
        step((int64_t)test_random_below(r, test_random_below(r, 10) == 0 ? 20 * MS_PER_MINUTE : 3000));
    } else if (action == 26 && fake->record_count > 0) {
        uint64_t count = 1 + test_random_below(r, fake->record_count < 12 ? fake->record_count : 12);
        fake_lose(fake, count);
        run->lost += count;
    } else if (action == 27 && run->lost > 0) {
        fake->generation++;
        run->lost = 0;
    }
    poll_all(run);
}

/* How many rows have no name at the end of a run. */
static uint64_t nameless_after(uint64_t seed, uint32_t canary)
{
    struct run run = { .random.state = seed };
    struct ingest_config config = one_partition();
    config.partition_count = seed % 2 == 0 ? 1 : 3;
    config.wait_ms_max = seed % 3 == 0 ? config.wait_ms_max : MS_PER_HOUR;
    config.canary = canary;
    open_over(test_random_u64(&run.random), config, 1);
    fake->mode = FAKE_HOLD;
    for (int i = 0; i < 600; i++)
        act(&run);
    while (fake->held_count > 0)
        fake_release(fake, 0, OK);
    poll_all(&run);
    assert_int_equal(run.request_count, 0);
    fake->mode = FAKE_ACK;
    fake->generation += run.lost > 0;
    for (int i = 0; i < 60; i++)
        step(1000);
    for (uint32_t i = 0; i < config.partition_count && canary == 0; i++)
        assert_false(announcer_is_busy(ingest, i));
    uint64_t count = nameless();
    close_all();
    return count;
}

static void random_losses(void **state)
{
    struct test_random r = test_random_begin("random_losses");
    for (int i = 0; i < 60; i++) {
        uint64_t seed = test_random_u64(&r) >> 32, count = nameless_after(seed, 0);
        if (count > 0)
            fail_msg("run %llu: %llu rows have no name", (unsigned long long)seed, (unsigned long long)count);
    }
}

static void canary_is_caught(void **state)
{
    struct test_random r = test_random_begin("canary_is_caught");
    int caught = 0;
    for (int i = 0; i < 60; i++)
        caught += nameless_after(test_random_u64(&r) >> 32, INGEST_CANARY_NEVER_AGAIN) > 0;
    printf("# nobody announces again: caught by %d of 60 runs\n", caught);
    assert_true(caught > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lost_labels_come_again),
        cmocka_unit_test(failures_are_tried_again),
        cmocka_unit_test(what_nobody_needs_goes),
        cmocka_unit_test(dropped_series_are_announced_yet),
        cmocka_unit_test(what_cannot_be_kept_marks_nothing),
        cmocka_unit_test(numbers_stay_until_they_are_named),
        cmocka_unit_test(random_losses),
        cmocka_unit_test(canary_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
