/* Goal: readiness follows how far a partition is applied, under a log that is written to all the time too.
 * Method: looks at a partition that lags by so much, second after second. */
#include "base/test.h"

#include "agent/readiness.h"
#include "base/time.h"

/* The log's end is asked for once a second, applied is what was durable lag_ms ago. */
static bool look(struct readiness *r, int64_t now_ms, int64_t lag_ms)
{
    struct agent_progress progress = { .is_replayed = true,
                                       .applied_offset = (uint64_t)(now_ms - lag_ms),
                                       .end_offset = (uint64_t)(now_ms / 1000 * 1000),
                                       .confirmed_ns = now_ms / 1000 * 1000 * NS_PER_MS };
    return readiness_look(r, &progress, now_ms * NS_PER_MS);
}

static void a_log_that_is_written_to_is_caught_up_with(void **state)
{
    struct readiness r = { 0 };
    bool is_ready = false;
    for (int64_t ms = 100500; ms < 130000; ms += 1000)
        is_ready = look(&r, ms, 700);
    assert_true(is_ready);
    /* behind for good: first it is believed to catch up, then not */
    int64_t lost_ms = 0;
    for (int64_t ms = 130500; ms < 160000; ms += 1000) {
        is_ready = look(&r, ms, 700 + (ms - 130500));
        if (!is_ready && lost_ms == 0)
            lost_ms = ms;
    }
    assert_false(is_ready);
    assert_true(lost_ms - 130500 >= AGENT_LOST_MS - 2000 && lost_ms - 130500 <= AGENT_LOST_MS + 2000);
    /* 5 s behind is not near enough to be ready again, though it was near enough to stay so */
    for (int64_t ms = 160500; ms < 190000; ms += 1000)
        is_ready = is_ready || look(&r, ms, 5000);
    assert_false(is_ready);
}

static void an_empty_log_is_caught_up_with_once_its_end_is_confirmed(void **state)
{
    struct readiness r = { 0 };
    struct agent_progress progress = { .is_replayed = true, .confirmed_ns = INT64_MIN };
    assert_false(readiness_look(&r, &progress, 1000 * NS_PER_MS));
    progress.confirmed_ns = 1500 * NS_PER_MS;
    assert_true(readiness_look(&r, &progress, 2000 * NS_PER_MS));
}

/* No end is confirmed any more: nobody knows of a record that it lacks. The next one tells what it lacks. */
static void while_no_end_is_confirmed_it_stays_as_it_is(void **state)
{
    for (int is_written = 0; is_written < 2; is_written++) {
        struct readiness r = { 0 };
        struct agent_progress progress = {
            .is_replayed = true, .applied_offset = 7, .end_offset = 7, .confirmed_ns = 1500 * NS_PER_MS
        };
        assert_true(readiness_look(&r, &progress, 2000 * NS_PER_MS));
        for (int64_t ms = 3000; ms < 600000; ms += 1000)
            assert_true(readiness_look(&r, &progress, ms * NS_PER_MS));
        progress.confirmed_ns = INT64_MIN; /* the log went back, and does not go on yet */
        assert_true(readiness_look(&r, &progress, 600000 * NS_PER_MS));
        progress.confirmed_ns = 601000 * NS_PER_MS;
        progress.end_offset += (uint64_t)is_written;
        assert_int_equal(readiness_look(&r, &progress, 601500 * NS_PER_MS), !is_written);
    }
}

/* Who was behind when the confirmations ended does not become ready by their end. */
static void nobody_becomes_ready_unconfirmed(void **state)
{
    struct readiness r = { 0 };
    struct agent_progress progress = { .is_replayed = true,
                                       .end_offset = 7,
                                       .confirmed_ns = 1500 * NS_PER_MS };
    assert_false(readiness_look(&r, &progress, 2000 * NS_PER_MS));
    progress.applied_offset = 7;
    assert_false(readiness_look(&r, &progress, (1501 + AGENT_BEHIND_MS) * NS_PER_MS));
    assert_true(readiness_look(&r, &progress, (1500 + AGENT_BEHIND_MS) * NS_PER_MS));
}

static void what_is_not_replayed_is_not_ready(void **state)
{
    struct readiness r = { 0 };
    assert_true(look(&r, 100000, 0));
    struct agent_progress progress = { .confirmed_ns = 100000 * NS_PER_MS };
    assert_false(readiness_look(&r, &progress, 100100 * NS_PER_MS));
    progress =
        (struct agent_progress){ .is_replayed = true, .end_offset = 9, .confirmed_ns = 100000 * NS_PER_MS };
    assert_false(readiness_look(&r, &progress, 100200 * NS_PER_MS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_that_is_written_to_is_caught_up_with),
        cmocka_unit_test(an_empty_log_is_caught_up_with_once_its_end_is_confirmed),
        cmocka_unit_test(while_no_end_is_confirmed_it_stays_as_it_is),
        cmocka_unit_test(nobody_becomes_ready_unconfirmed),
        cmocka_unit_test(what_is_not_replayed_is_not_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
