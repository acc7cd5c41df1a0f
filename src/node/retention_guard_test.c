/* retention_guard.c's verdicts on ages of records, without a log or shards. */
#include "node/retention_guard.h"

#include "base/test.h"
#include "base/time.h"

#define DAY INT64_C(86400000)

static struct retention_facts facts_of(int64_t age_ms)
{
    return (struct retention_facts){ .retention_ms = 8 * DAY,
                                     .max_ms = 28 * DAY,
                                     .since_ms = 1000 * DAY - age_ms,
                                     .newest_ms = 1000 * DAY,
                                     .waits_since_ns = INT64_MAX,
                                     .now_ns = NS_PER_SECOND };
}

static struct retention_verdict judge_age(int64_t age_ms)
{
    struct retention_guard guard = { 0 };
    struct retention_facts facts = facts_of(age_ms);
    return retention_judge(&guard, &facts);
}

static void levels(void **state)
{
    static const struct {
        int64_t age_ms, left_ms;
        enum retention_level level;
        int64_t raise_to_ms;
    } cases[] = {
        { -5, 8 * DAY, RETENTION_WELL, 0 },
        { 0, 8 * DAY, RETENTION_WELL, 0 },
        { 4 * DAY - 1, 4 * DAY + 1, RETENTION_WELL, 0 },
        { 4 * DAY, 4 * DAY, RETENTION_SHORT, 0 },
        { 6 * DAY - 1, 2 * DAY + 1, RETENTION_SHORT, 0 },
        { 6 * DAY, 2 * DAY, RETENTION_EXPIRING, 16 * DAY },
        { 8 * DAY, 0, RETENTION_EXPIRING, 16 * DAY },
        { 900 * DAY, 0, RETENTION_EXPIRING, 16 * DAY },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct retention_verdict v = judge_age(cases[i].age_ms);
        assert_int_equal(v.left_ms, cases[i].left_ms);
        assert_int_equal(v.level, cases[i].level);
        assert_int_equal(v.raise_to_ms, cases[i].raise_to_ms);
    }
}

static void what_does_not_expire(void **state)
{
    struct retention_guard guard = { 0 };
    struct retention_facts facts = facts_of(100 * DAY);
    const int64_t kept[] = { LOG_RETENTION_NONE, LOG_RETENTION_UNKNOWN, INT64_MAX };
    for (size_t i = 0; i < 3; i++) {
        facts.retention_ms = kept[i];
        struct retention_verdict v = retention_judge(&guard, &facts);
        assert_true(v.level == RETENTION_WELL && v.left_ms == RETENTION_FOREVER_MS && v.raise_to_ms == 0);
    }
    facts = facts_of(100 * DAY);
    facts.since_ms = INT64_MAX; /* nothing is unsaved */
    assert_int_equal(retention_judge(&guard, &facts).left_ms, 8 * DAY);
    facts = facts_of(100 * DAY);
    facts.newest_ms = LOG_TIME_NONE; /* nothing was applied yet: nobody knows what time it is there */
    assert_int_equal(retention_judge(&guard, &facts).left_ms, 8 * DAY);
}

/* Nothing is known of it: it is raised before what three quarters of the retention have passed of can expire. */
static void a_partition_that_cannot_be_opened(void **state)
{
    static const struct {
        int64_t waits_ms, retention_ms;
        enum retention_level level;
        int64_t raise_to_ms;
    } cases[] = {
        { 0, 8 * DAY, RETENTION_WELL, 0 },         { DAY / 2 - 1, 8 * DAY, RETENTION_WELL, 0 },
        { DAY / 2, 8 * DAY, RETENTION_SHORT, 0 },  { DAY, 8 * DAY, RETENTION_EXPIRING, 16 * DAY },
        { DAY, 16 * DAY, RETENTION_SHORT, 0 },     { 2 * DAY, 16 * DAY, RETENTION_EXPIRING, 28 * DAY },
        { 2 * DAY, 28 * DAY, RETENTION_SHORT, 0 }, { 30 * DAY, 28 * DAY, RETENTION_EXPIRING, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct retention_guard guard = { 0 };
        struct retention_facts facts = facts_of(0);
        facts.newest_ms = LOG_TIME_NONE; /* nothing was ever applied here */
        facts.retention_ms = cases[i].retention_ms;
        facts.now_ns = facts.now_ns + 60 * DAY * NS_PER_MS;
        facts.waits_since_ns = facts.now_ns - cases[i].waits_ms * NS_PER_MS;
        struct retention_verdict v = retention_judge(&guard, &facts);
        assert_int_equal(v.level, cases[i].level);
        assert_int_equal(v.raise_to_ms, cases[i].raise_to_ms);
    }
}

/* Also where nothing comes any more: the log's clock goes on with this machine's, which may show anything. */
static void time_goes_on_without_records(void **state)
{
    struct retention_guard guard = { 0 };
    struct retention_facts facts = facts_of(DAY);
    assert_int_equal(retention_judge(&guard, &facts).left_ms, 7 * DAY);
    facts.now_ns += 3 * DAY * NS_PER_MS;
    struct retention_verdict v = retention_judge(&guard, &facts);
    assert_true(v.left_ms == 4 * DAY && v.level == RETENTION_SHORT);
    facts.newest_ms += DAY; /* a record tells what time it is; an older one does not */
    assert_int_equal(retention_judge(&guard, &facts).left_ms, 6 * DAY);
    facts.newest_ms -= DAY / 2;
    assert_int_equal(retention_judge(&guard, &facts).left_ms, 6 * DAY);
}

static void it_is_raised_as_far_as_allowed(void **state)
{
    struct retention_guard guard = { 0 };
    struct retention_facts facts = facts_of(7 * DAY);
    facts.max_ms = 10 * DAY;
    assert_int_equal(retention_judge(&guard, &facts).raise_to_ms, 10 * DAY);
    assert_int_equal(retention_judge(&guard, &facts).raise_to_ms, 0); /* asked a moment ago */
    facts.now_ns += 130 * NS_PER_SECOND;
    assert_int_equal(retention_judge(&guard, &facts).raise_to_ms, 10 * DAY);
    facts.now_ns += 130 * NS_PER_SECOND;
    facts.retention_ms = 10 * DAY; /* done: 3 of 10 days are left */
    struct retention_verdict v = retention_judge(&guard, &facts);
    assert_true(v.raise_to_ms == 0 && v.level == RETENTION_SHORT);
    guard = (struct retention_guard){ 0 };
    facts = facts_of(7 * DAY);
    facts.max_ms = 0;
    v = retention_judge(&guard, &facts);
    assert_true(v.raise_to_ms == 0 && v.level == RETENTION_EXPIRING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels),
        cmocka_unit_test(what_does_not_expire),
        cmocka_unit_test(a_partition_that_cannot_be_opened),
        cmocka_unit_test(time_goes_on_without_records),
        cmocka_unit_test(it_is_raised_as_far_as_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
