/* health.c's findings from facts, and their JSON. */
#include "node/health.h"

#include "base/test.h"

#include <string.h>

static const char *put(const struct health *health, struct pool *pool)
{
    static char text[20000];
    struct buf out = buf_open(pool, sizeof text - 1);
    struct json json = json_begin(&out);
    json_open(&json, '{');
    health_put(health, &json);
    json_close(&json, '}');
    assert_ok(buf_err(&out));
    memcpy(text, out.at, out.len);
    text[out.len] = 0;
    buf_close(&out);
    return text;
}

static void all_is_well(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct health health = { 0 };
    health_of_node(&health, &(struct health_node){ 0 });
    assert_int_equal(health.level, HEALTH_WELL);
    assert_string_equal(put(&health, pool), "{\"state\":\"well\",\"findings\":[],\"findingsNotTold\":0}");
    pool_close(pool);
}

static void every_fact_of_a_node_is_told(void **state)
{
    static const struct {
        struct health_node node;
        enum health_level level;
        const char *what;
    } cases[] = {
        { { .not_ready = "it starts" }, HEALTH_ALARM, "ready" },
        { { .refuses = "the disk is full" }, HEALTH_ALARM, "writes" },
        { { .losses = 2 }, HEALTH_ALARM, "losses" },
        { { .damaged_segments = 1 }, HEALTH_ALARM, "damage" },
        { { .retention_waits = 3 }, HEALTH_WARNING, "retention" },
        { { .missing_count = 1 }, HEALTH_ALARM, "objects" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct health health = { 0 };
        health_of_node(&health, &cases[i].node);
        assert_int_equal(health.count, 1);
        assert_int_equal(health.level, cases[i].level);
        assert_string_equal(health.findings[0].what, cases[i].what);
    }
}

static void what_does_not_fit_is_counted_and_counts(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct health health = { 0 };
    for (int i = 0; i < HEALTH_FINDINGS_MAX; i++)
        health_add(&health, HEALTH_WARNING, "members", "node %d", i);
    health_add(&health, HEALTH_ALARM, "redundancy", "the worst comes last");
    assert_int_equal(health.level, HEALTH_ALARM);
    assert_non_null(strstr(put(&health, pool), "\"state\":\"alarm\""));
    assert_non_null(strstr(put(&health, pool), "\"findingsNotTold\":1"));
    pool_close(pool);
}

/* One node of two expected replicas, which a person keeps from being placed anew. */
static void a_cluster_shows_what_it_lacks(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct control_record records[] = {
        { .kind = CONTROL_INIT,
          .cluster_id = { 1 },
          .init = { .partition_count = 4,
                    .replica_count = 2,
                    .expected_nodes = 1,
                    .range_bytes_max = 1,
                    .settings = { 30000, 60000 } } },
        { .kind = CONTROL_JOIN,
          .cluster_id = { 1 },
          .join = { .name = slice_str("a"),
                    .zone = slice_str("z"),
                    .address = slice_str("h:1"),
                    .disk_id = { 1 },
                    .process_id = { 1 },
                    .read_to = 1 } },
        { .kind = CONTROL_SUSPEND,
          .cluster_id = { 1 },
          .by = { .slot = SLOT_NONE },
          .suspend = { AUTOMATION_PLACEMENT, 5000, slice_str("me"), slice_str("a test") } },
    };
    struct members *members;
    struct members_change change;
    struct health health = { 0 };
    assert_ok(members_open(pool, &members));
    for (uint64_t i = 0; i < 3; i++) {
        struct buf bytes = buf_open(pool, CONTROL_RECORD_BYTES_MAX);
        control_record_encode(&records[i], &bytes);
        assert_ok(members_apply(members, i, 1000, buf_slice(&bytes), &change));
        assert_true(change.counted);
    }
    struct agent_copy copy = { .members = members, .self = { 0, 1 }, .is_silent = { true } };
    struct health_cluster facts = {
        .copy = &copy, .may_decide = true, .retention = RETENTION_SHORT, .left_ms = 7000
    };
    struct buf out = buf_open(pool, 1 << 16);
    struct json json = json_begin(&out);
    json_open(&json, '{');
    health_of_cluster(&health, &facts, &json);
    json_close(&json, '}');
    assert_int_equal(health.count, 4); /* silent, without owners, expiring, suspended */
    assert_int_equal(health.level, HEALTH_ALARM);
    buf_put_u8(&out, 0);
    static const char *const parts[] = {
        "\"members\":{\"expected\":1,\"present\":1}", "\"unowned\":4", "\"unsavedExpiresSeconds\":7",
        "\"automation\":\"placement\",\"owner\":\"me\",\"reason\":\"a test\"", "\"leftSeconds\":5"
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        assert_non_null(strstr((const char *)out.at, parts[i]));
    members_close(members);
    pool_close(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_well),
        cmocka_unit_test(every_fact_of_a_node_is_told),
        cmocka_unit_test(what_does_not_fit_is_counted_and_counts),
        cmocka_unit_test(a_cluster_shows_what_it_lacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
