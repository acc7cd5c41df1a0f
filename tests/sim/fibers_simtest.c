/* Goal: code written for threads runs as fibers: it sleeps, locks, waits, signals and joins as it would with
 * threads, in an order that the seed draws, and dies or stands still as a group.
 * Method: io/thread.h over an io whose threads are fibers. */
#include "base/test.h"

#include "base/check.h"
#include "base/time.h"
#include "io/thread.h"
#include "sim/fibers.h"
#include "sim/io_sim.h"

static struct io *io;
static struct fiber_group *group;
static struct io_mutex lock;
static struct io_rwlock shared;
static struct io_cond changed;
static int inside, turns, ended;
static bool is_set;

static void begin(uint64_t seed)
{
    fibers_open(seed);
    assert_ok(io_sim_open(seed, &io));
    group = fiber_group_open();
    io_sim_run_threads(io, group);
    io_mutex_init(&lock);
    io_rwlock_init(&shared);
    io_cond_init(&changed);
    inside = turns = ended = 0;
    is_set = false;
}

static void finish(void)
{
    if (group != NULL)
        fiber_group_kill(group);
    group = NULL;
    io_close(io);
    fibers_close();
}

static void start(void (*run)(void *), struct io_thread **out_thread)
{
    assert_ok(io_thread_start(io, "test", run, io, out_thread));
}

static void take_turns(void *context)
{
    for (int i = 0; i < 5; i++) {
        io_mutex_lock(&lock);
        inside++;
        check(inside == 1);
        io_sleep_ns(context, 10 * NS_PER_MS);
        inside--;
        turns++;
        io_mutex_unlock(&lock);
    }
    ended++;
}

static void a_lock_is_held_while_its_owner_sleeps(void **state)
{
    struct io_thread *thread;
    begin(1);
    for (int i = 0; i < 4; i++)
        start(take_turns, &thread);
    fibers_pass(0);
    assert_int_equal(inside, 1);
    for (int i = 0; i < 19; i++)
        fibers_pass(10 * NS_PER_MS);
    assert_int_equal(ended, 3);
    fibers_pass(10 * NS_PER_MS);
    assert_int_equal(turns, 20);
    assert_int_equal(ended, 4);
    finish();
}

static void read_lock(void *context)
{
    io_rwlock_read(&shared);
    inside++;
    io_sleep_ns(context, NS_PER_SECOND);
    inside--;
    io_rwlock_unlock(&shared);
}

static void write_lock(void *context)
{
    io_rwlock_write(&shared);
    check(inside == 0);
    ended++;
    io_rwlock_unlock(&shared);
}

static void who_writes_waits_for_readers(void **state)
{
    struct io_thread *thread;
    begin(2);
    start(read_lock, &thread);
    fibers_pass(0);
    start(write_lock, &thread);
    fibers_pass(NS_PER_SECOND - 1);
    assert_int_equal(ended, 0);
    fibers_pass(1);
    assert_int_equal(ended, 1);
    finish();
}

static void await(void *context)
{
    io_mutex_lock(&lock);
    while (!is_set)
        io_cond_wait(&changed, &lock);
    ended++;
    io_mutex_unlock(&lock);
}

static void await_in_vain(void *context)
{
    io_mutex_lock(&lock);
    check(!io_cond_wait_for(&changed, &lock, NS_PER_SECOND));
    turns++;
    io_mutex_unlock(&lock);
}

static void signal_later(void *context)
{
    struct io_thread *thread;
    check(io_thread_start(io, "inner", await, context, &thread) == OK);
    io_sleep_ns(context, 2 * NS_PER_SECOND);
    io_mutex_lock(&lock);
    is_set = true;
    io_cond_broadcast(&changed);
    io_mutex_unlock(&lock);
    io_thread_join(thread);
    check(ended == 2);
    turns += 10;
}

static void conditions_wake_time_out_and_threads_are_joined(void **state)
{
    struct io_thread *thread;
    begin(3);
    start(await, &thread);
    start(await_in_vain, &thread);
    start(signal_later, &thread);
    fibers_pass(0);
    fibers_pass(NS_PER_SECOND);
    assert_int_equal(turns, 1);
    fibers_pass(NS_PER_SECOND);
    assert_int_equal(ended, 2);
    assert_int_equal(turns, 11);
    finish();
}

static void tick(void *context)
{
    for (;;) {
        turns++;
        io_sleep_ns(context, NS_PER_SECOND);
    }
}

static void who_is_frozen_or_dead_does_nothing(void **state)
{
    struct io_thread *thread;
    begin(4);
    start(tick, &thread);
    for (int i = 0; i < 5; i++)
        fibers_pass(NS_PER_SECOND);
    assert_int_equal(turns, 5);
    fiber_group_freeze(group, true);
    fibers_pass(60 * NS_PER_SECOND);
    assert_int_equal(turns, 5);
    fiber_group_freeze(group, false);
    fibers_pass(0);
    assert_int_equal(turns, 6);
    fiber_group_kill(group);
    group = NULL;
    fibers_pass(60 * NS_PER_SECOND);
    assert_int_equal(turns, 6);
    finish();
}

static uint64_t trace_of(uint64_t seed)
{
    struct io_thread *thread;
    begin(seed);
    for (int i = 0; i < 6; i++)
        start(take_turns, &thread);
    for (int i = 0; i < 40; i++)
        fibers_pass(10 * NS_PER_MS);
    uint64_t trace = fibers_trace();
    assert_int_equal(ended, 6);
    finish();
    return trace;
}

static void the_seed_draws_the_order(void **state)
{
    assert_true(trace_of(5) == trace_of(5));
    assert_true(trace_of(5) != trace_of(6));
}

static void without_a_group_there_are_no_threads(void **state)
{
    struct io_thread *thread;
    begin(7);
    io_sim_run_threads(io, NULL);
    assert_err(ERR_UNSUPPORTED, io_thread_start(io, "test", tick, io, &thread));
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lock_is_held_while_its_owner_sleeps),
        cmocka_unit_test(who_writes_waits_for_readers),
        cmocka_unit_test(conditions_wake_time_out_and_threads_are_joined),
        cmocka_unit_test(who_is_frozen_or_dead_does_nothing),
        cmocka_unit_test(the_seed_draws_the_order),
        cmocka_unit_test(without_a_group_there_are_no_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
