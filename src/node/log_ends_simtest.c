/* What a question waits for, and what it takes, as time passes: a log in memory whose partitions fall silent or
 * refuse; questions are looked at step by step. */
#include "base/test.h"

#include "base/time.h"
#include "model/token.h"
#include "node/log_ends.h"
#include "sim/io_sim.h"
#include "sim/log_sim.h"

#define PARTITIONS 3

static struct pool *pool;
static struct io *io;
static struct log_sim_store *store;
static struct log *the_log, *other; /* other: of another node */
static struct log_ends *ends;
static const uint8_t cluster[16] = { 1 };

static void done(struct log_append *append, err result, struct log_position position) { assert_ok(result); }

/* Another node's write is acknowledged. */
static void write_to(uint32_t partition)
{
    struct slice part = slice_str("a record");
    struct log_append append = { .partition = partition, .parts = &part, .part_count = 1, .done = done };
    log_append(other, &append);
}

/* Ask, and look each 10 ms until it is over: how many ms that took. */
static int64_t ask(bool is_strong, struct source_position *out_positions)
{
    struct log_question question;
    int64_t ms = 0;
    log_ends_begin(ends, is_strong, &question);
    for (; !log_ends_look(ends, &question, out_positions); ms += 10) {
        assert_true(ms <= LOG_ENDS_MS_MAX);
        io_sim_clock_advance(io, 10 * NS_PER_MS);
    }
    return ms;
}

static uint64_t marker_count(void)
{
    uint64_t count = 0;
    for (uint32_t p = 0; p < PARTITIONS; p++)
        count += log_sim_end(store, p);
    return count;
}

static void plain_questions_share_what_is_young(void **state)
{
    struct source_position at[PARTITIONS];
    write_to(1);
    assert_int_equal(ask(false, at), 0);
    assert_true(at[0].offset == 0 && at[1].offset == 1 && at[2].offset == 0);
    uint64_t markers = marker_count();
    io_sim_clock_advance(io, 2 * NS_PER_SECOND);
    assert_int_equal(ask(false, at), 0);
    assert_int_equal(marker_count(), markers);
    io_sim_clock_advance(io, NS_PER_SECOND); /* renewed before it is too old */
    write_to(2);
    assert_int_equal(ask(false, at), 0);
    assert_int_equal(marker_count(), markers + PARTITIONS + 1);
    assert_int_equal(at[2].offset, 2);
    io_sim_clock_advance(io, 60 * NS_PER_SECOND);
    write_to(0);
    assert_int_equal(ask(false, at), 0);
    assert_true(at[0].offset == 3); /* two markers, a record */
}

static void strong_questions_ask_anew(void **state)
{
    struct source_position at[PARTITIONS];
    assert_int_equal(ask(true, at), 0);
    write_to(1);
    int64_t ms = ask(true, at); /* markers of a partition keep a pause */
    assert_true(ms > 0 && ms <= 50);
    assert_int_equal(at[1].offset, 2);
}

/* What two ask for before a marker is handed over, one marker tells both; one that was on its way before a strong
 * question tells it nothing. */
static void a_marker_covers_who_asked_before_it(void **state)
{
    struct source_position at[PARTITIONS];
    struct log_question first, second, third;
    log_ends_begin(ends, true, &first);
    log_ends_begin(ends, true, &second);
    assert_true(log_ends_look(ends, &first, at));
    uint64_t markers = marker_count();
    assert_true(log_ends_look(ends, &second, at));
    assert_int_equal(marker_count(), markers);
    io_sim_clock_advance(io, NS_PER_SECOND);
    log_ends_begin(ends, true, &third);
    log_sim_silence(the_log, 0, true);
    assert_false(log_ends_look(ends, &third, at));
    log_ends_begin(ends, true, &first);
    log_sim_silence(the_log, 0, false); /* answered: not known */
    io_sim_clock_advance(io, NS_PER_SECOND);
    assert_true(log_ends_look(ends, &first, at));
    assert_true(at[0].offset == 1 && at[1].offset == 2); /* in the silence, none of 0 */
}

static void a_silent_partition_is_not_known(void **state)
{
    struct source_position at[PARTITIONS];
    assert_int_equal(ask(false, at), 0);
    log_sim_silence(the_log, 1, true);
    io_sim_clock_advance(io, 4 * NS_PER_SECOND); /* to be renewed, and young enough */
    assert_int_equal(ask(false, at), 0);
    assert_int_equal(at[1].offset, 0);
    io_sim_clock_advance(io, 2 * NS_PER_SECOND); /* too old, and silent for long */
    assert_int_equal(ask(false, at), 0);
    assert_true(at[0].offset == 1 && at[1].offset == UINT64_MAX && at[2].offset == 1);
    int64_t ms = ask(true, at);
    assert_true(ms == LOG_ENDS_MS_MAX && at[1].offset == UINT64_MAX && at[2].offset == 2);
    log_sim_silence(the_log, 1, false);
    io_sim_clock_advance(io, 10 * NS_PER_SECOND);
    assert_int_equal(ask(false, at), 0); /* what was so before says nothing */
    assert_int_equal(at[1].offset, 1);
}

/* A plain question waits for a second, once; a strong one as long as it may. */
static void what_begins_silent_is_awaited(void **state)
{
    struct source_position at[PARTITIONS];
    log_sim_silence(the_log, 2, true);
    assert_int_equal(ask(false, at), 1000);
    assert_true(at[0].offset == 0 && at[2].offset == UINT64_MAX);
    assert_int_equal(ask(false, at), 0);
    assert_int_equal(ask(true, at), LOG_ENDS_MS_MAX);
}

static void what_is_refused_is_asked_again(void **state)
{
    struct source_position at[PARTITIONS];
    struct log_question question;
    assert_int_equal(ask(true, at), 0);
    log_sim_back(store, 0, 0); /* appends are refused until it is told to go on */
    io_sim_clock_advance(io, 10 * NS_PER_SECOND);
    log_ends_begin(ends, false, &question);
    assert_false(log_ends_look(ends, &question, at));
    io_sim_clock_advance(io, 500 * NS_PER_MS);
    log_go_on(the_log, 0, 0);
    assert_true(log_ends_look(ends, &question, at));
    assert_int_equal(at[0].offset, 0);
    assert_int_equal(at[1].offset, 1);
}

/* Of a token: what it names, beyond what is known. Of one that is too long: all. */
static void tokens_raise_the_ends(void **state)
{
    struct guard guard = { .io = io, .deadline_ns = INT64_MAX };
    char text[TOKEN_LEN_MAX + 1];
    uint64_t told[PARTITIONS] = { 0, 7 };
    struct query_need need = { .is_strong = false };
    struct source_position *positions;
    struct err_at at;
    size_t count;
    token_write(token_seed(cluster), told, PARTITIONS, text);
    need.token = slice_str(text);
    assert_ok(log_ends_ask(ends, &need, &guard, pool, &positions, &count, &at));
    assert_true(count == PARTITIONS && positions[0].offset == 0 && positions[1].offset == 7);
    need.token = slice_str("another");
    assert_err(ERR_INPUT, log_ends_ask(ends, &need, &guard, pool, &positions, &count, &at));
}

static int set_up(void **state)
{
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    assert_ok(io_sim_open(1, &io));
    assert_ok(log_sim_store_open(PARTITIONS, pool, &store));
    assert_ok(log_sim_open(store, io, pool, &the_log));
    assert_ok(log_sim_open(store, io, pool, &other));
    assert_ok(log_ends_open(the_log, PARTITIONS, token_seed(cluster), io, pool, &ends));
    return 0;
}

static int tear_down(void **state)
{
    log_close(the_log);
    log_close(other);
    log_ends_close(ends);
    log_sim_store_close(store);
    io_close(io);
    pool_close(pool);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(plain_questions_share_what_is_young),
        TEST(strong_questions_ask_anew),
        TEST(a_marker_covers_who_asked_before_it),
        TEST(a_silent_partition_is_not_known),
        TEST(what_begins_silent_is_awaited),
        TEST(what_is_refused_is_asked_again),
        TEST(tokens_raise_the_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
