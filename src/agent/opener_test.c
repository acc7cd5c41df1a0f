/* Goal: whatever is wanted in whatever order, what is open in the end is what is wanted, one call at a time for a
 * partition, every open closed once before the next.
 * Method: threads of the opener against functions that take their time and fail now and then. */
#include "base/test.h"

#include <stdatomic.h>

#include "agent/opener.h"
#include "base/time.h"

#define PARTITIONS 6

static struct pool *pool;
static struct io *io;
static struct opener *opener;
static _Atomic int is_open[PARTITIONS], is_inside[PARTITIONS];
static _Atomic unsigned opens, closes, failures_left, ended_well, ended_badly, busy_left;
static _Atomic bool hangs[PARTITIONS], is_aborted; /* opening it does not end before */

static err open_one(void *context, uint32_t p, struct err_at *at)
{
    assert_int_equal(atomic_fetch_add(&is_inside[p], 1), 0);
    assert_int_equal(atomic_load(&is_open[p]), 0);
    io_sleep_ns(io, 2 * NS_PER_MS);
    while (atomic_load(&hangs[p]) && !atomic_load(&is_aborted))
        io_sleep_ns(io, NS_PER_MS);
    err e = OK;
    if (atomic_load(&busy_left) > 0) {
        atomic_fetch_sub(&busy_left, 1);
        e = ERR_BUSY;
    } else if (atomic_load(&failures_left) > 0) {
        atomic_fetch_sub(&failures_left, 1);
        e = err_set(at, ERR_IO, "planned");
    } else {
        atomic_store(&is_open[p], 1);
        atomic_fetch_add(&opens, 1);
    }
    assert_int_equal(atomic_fetch_sub(&is_inside[p], 1), 1);
    return e;
}

static void close_one(void *context, uint32_t p)
{
    assert_int_equal(atomic_fetch_add(&is_inside[p], 1), 0);
    assert_int_equal(atomic_exchange(&is_open[p], 0), 1);
    atomic_fetch_add(&closes, 1);
    assert_int_equal(atomic_fetch_sub(&is_inside[p], 1), 1);
}

static void ended(void *context, uint32_t partition, uint64_t opening, bool is_well)
{
    atomic_fetch_add(is_well ? &ended_well : &ended_badly, 1);
}

static void abort_all(void *context) { atomic_store(&is_aborted, true); }

static int set_up(void **state)
{
    struct opener_config config = { open_one, close_one, ended, NULL, abort_all };
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    assert_ok(io_open("/tmp", &io));
    for (int p = 0; p < PARTITIONS; p++) {
        is_open[p] = 0;
        hangs[p] = false;
    }
    is_aborted = false;
    opens = closes = failures_left = ended_well = ended_badly = busy_left = 0;
    assert_ok(opener_open(&config, io, pool, &opener));
    return 0;
}

static int tear_down(void **state)
{
    opener_close(opener);
    io_close(io);
    pool_close(pool);
    return 0;
}

static void wait_for(uint32_t p, int wanted)
{
    for (int i = 0; i < 30000 && (atomic_load(&is_open[p]) != wanted || opener_waiting(opener) > 0); i++)
        io_sleep_ns(io, NS_PER_MS);
    assert_int_equal(atomic_load(&is_open[p]), wanted);
}

static void any_order_ends_as_wanted(void **state)
{
    struct test_random r = test_random_begin("any_order_ends_as_wanted");
    int wanted[PARTITIONS] = { 0 };
    for (uint64_t opening = 1; opening <= 600; opening++) {
        uint32_t p = (uint32_t)test_random_below(&r, PARTITIONS);
        if (wanted[p])
            opener_drop(opener, p);
        wanted[p] = test_random_below(&r, 3) > 0;
        if (wanted[p])
            opener_want(opener, p, opening);
        if (test_random_below(&r, 4) == 0)
            io_sleep_ns(io, (int64_t)test_random_below(&r, 5) * NS_PER_MS);
    }
    for (uint32_t p = 0; p < PARTITIONS; p++)
        wait_for(p, wanted[p]);
    unsigned left = 0;
    for (uint32_t p = 0; p < PARTITIONS; p++)
        left += (unsigned)wanted[p];
    assert_int_equal(opens - closes, left);
    assert_int_equal(ended_well, opens);
    assert_true(closes > 10);
}

static void what_is_not_closed_yet_is_opened_later(void **state)
{
    busy_left = 3;
    opener_want(opener, 0, 1);
    wait_for(0, 1);
    assert_int_equal(busy_left, 0);
    assert_int_equal(ended_well, 1);
    assert_int_equal(ended_badly, 0);
}

/* A failure is told, and does not hold up a new wish. */
static void what_failed_is_tried_again(void **state)
{
    failures_left = 1;
    assert_true(opener_waits_since_ns(opener) == INT64_MAX);
    opener_want(opener, 3, 1);
    int64_t since_ns = opener_waits_since_ns(opener);
    while (atomic_load(&ended_badly) == 0)
        io_sleep_ns(io, NS_PER_MS);
    assert_int_equal(opener_waiting(opener), 1);
    opener_drop(opener, 3);
    assert_true(opener_waits_since_ns(opener) == INT64_MAX);
    opener_want(opener, 3, 2); /* it waits since the first time */
    assert_true(opener_waits_since_ns(opener) == since_ns || opener_holds(opener, 3, 2));
    wait_for(3, 1);
    assert_int_equal(ended_well, 1);
    assert_true(opener_waits_since_ns(opener) == INT64_MAX);
}

/* It closed itself: at once the first time, later when it keeps doing that; only the opening that is open does. */
static void what_closes_itself_is_opened_again(void **state)
{
    opener_want(opener, 2, 7);
    wait_for(2, 1);
    assert_true(opener_holds(opener, 2, 7));
    assert_false(opener_holds(opener, 2, 6) || opener_holds(opener, 2, 0) || opener_holds(opener, 1, 7));
    opener_lost(opener, 2, 6);
    assert_true(opener_holds(opener, 2, 7));
    opener_lost(opener, 2, 7);
    wait_for(2, 1);
    assert_true(opener_holds(opener, 2, 7));
    assert_int_equal(opens, 2);
    assert_int_equal(closes, 1);
    assert_int_equal(ended_badly, 1);
    assert_int_equal(ended_well, 2);
    opener_lost(opener, 2, 7); /* soon after: it waits as if it had failed */
    opener_want(opener, 1, 8);
    while (!opener_holds(opener, 1, 8))
        io_sleep_ns(io, NS_PER_MS);
    assert_false(opener_holds(opener, 2, 7));
    assert_int_equal(opener_waiting(opener), 1);
    opener_want(opener, 2, 9); /* what is wanted anew does not wait */
    wait_for(2, 1);
    assert_true(opener_holds(opener, 2, 9));
    opener_lost(opener, 2, 9);
    opener_drop(opener, 2); /* nor is it opened again */
    wait_for(2, 0);
    assert_int_equal(opener_waiting(opener), 0);
}

/* One thread is busy for as long as it takes: what is due meanwhile is done by the other. */
static void a_long_opening_holds_up_nothing(void **state)
{
    busy_left = 1;
    opener_want(opener, 0, 1);
    while (atomic_load(&busy_left) > 0)
        io_sleep_ns(io, NS_PER_MS);
    hangs[1] = true;
    opener_want(opener, 1, 2);
    for (int i = 0; i < 30000 && !opener_holds(opener, 0, 1); i++)
        io_sleep_ns(io, NS_PER_MS);
    assert_true(opener_holds(opener, 0, 1));
    hangs[1] = false;
    wait_for(1, 1);
}

/* An opening that would take for ever does not hold up the end. */
static void the_end_does_not_wait_for_openings(void **state)
{
    hangs[4] = true;
    opener_want(opener, 4, 1);
    while (atomic_load(&is_inside[4]) == 0)
        io_sleep_ns(io, NS_PER_MS);
    opener_close(opener);
    opener = NULL;
    assert_int_equal(is_inside[4], 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(any_order_ends_as_wanted),        TEST(what_is_not_closed_yet_is_opened_later),
        TEST(what_failed_is_tried_again),      TEST(what_closes_itself_is_opened_again),
        TEST(a_long_opening_holds_up_nothing), TEST(the_end_does_not_wait_for_openings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
