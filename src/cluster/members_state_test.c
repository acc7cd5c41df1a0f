/* Any records: the fold does what the rules say, they leave the same state behind whether they were folded at
 * once or from a snapshot on, the invariants of members.c hold after each, and damaged snapshots are refused. */
#include "cluster/members_records.h"

static struct member_id any_id(struct test_random *r)
{
    uint32_t count = members_slot_count(members);
    struct member_id some = { .slot = (uint32_t)test_random_below(r, count + 1) };
    if (some.slot < count && test_random_below(r, 8) > 0)
        some.incarnation = members_at(members, some.slot)->id.incarnation;
    return some;
}

static bool is_anybody_to_hold(void)
{
    uint32_t *slots;
    uint64_t placed;
    err e = members_plan(members, pool, &slots, &placed);
    assert_true(e == OK || e == ERR_NOT_FOUND); /* none joined, or all of them are drained */
    return e == OK;
}

static struct control_join any_join(struct test_random *r)
{
    static char names[] = "a\0b\0c\0d\0e\0f\0g\0h";
    struct control_join join = { .name = slice_str(names + 2 * test_random_below(r, 8)),
                                 .zone = slice_str(names + 2 * test_random_below(r, 3)),
                                 .address = slice_str("x:1"),
                                 .read_to = next_offset - test_random_below(r, 3) };
    id_of(join.disk_id, (unsigned)(join.name.at[0] + 256 * (test_random_below(r, 6) == 0)));
    id_of(join.process_id, (unsigned)test_random_below(r, 40));
    return join;
}

static struct control_record any_record(struct test_random *r)
{
    static uint32_t partitions[16];
    static const enum control_kind kinds[] = {
        CONTROL_NOOP,    CONTROL_JOIN,   CONTROL_JOIN, CONTROL_JOIN,   CONTROL_REFUTE,
        CONTROL_SUSPECT, CONTROL_VOTE,   CONTROL_VOTE, CONTROL_VOTE,   CONTROL_VOTE,
        CONTROL_EVICT,   CONTROL_EVICT,  CONTROL_OWN,  CONTROL_ASSIGN, CONTROL_LEAVE,
        CONTROL_VACATE,  CONTROL_REMOVE, CONTROL_DROP, CONTROL_SET,    CONTROL_SUSPEND,
        CONTROL_LEAVE,   CONTROL_VACATE, CONTROL_NOOP, CONTROL_DISOWN, CONTROL_NOOP
    };
    struct control_record c = record(kinds[test_random_below(r, sizeof kinds / sizeof *kinds)]);
    c.by = any_id(r);
    c.of = any_id(r);
    for (uint32_t i = 0; i < members_slot_count(members); i++) /* the accused is spoken of */
        if (members_at(members, i)->suspicion != UINT64_MAX && test_random_below(r, 4) > 0)
            c.of = members_at(members, i)->id;
    uint64_t standing =
        c.of.slot < members_slot_count(members) ? members_at(members, c.of.slot)->suspicion : 1;
    switch (c.kind) {
    case CONTROL_JOIN:
        c.join = any_join(r);
        break;
    case CONTROL_REFUTE:
        c.by = c.of;
        c.suspicion = standing;
        break;
    case CONTROL_VOTE:
    case CONTROL_EVICT:
        c.suspicion = standing;
        break;
    case CONTROL_LEAVE:
        c.leaving = LEAVING_SOON + (enum control_leaving)test_random_below(r, 3);
        break;
    case CONTROL_REMOVE:
        c.removal = REMOVAL_GONE + (enum control_removal)test_random_below(r, 3);
        break;
    case CONTROL_ASSIGN:
        if (is_anybody_to_hold())
            c = assignment(test_random_below(r, 4) == 0);
        else
            c.kind = CONTROL_NOOP;
        break;
    case CONTROL_OWN:
    case CONTROL_DROP:
    case CONTROL_DISOWN:
        standing = test_random_below(r, 2); /* all, or half of them */
        for (uint32_t p = 0; p < 16; p++)
            if (standing == 0 || test_random_below(r, 2) == 0)
                partitions[c.hold.count++] = p;
        c.hold.partitions = partitions;
        if (c.by.slot < members_slot_count(members) && test_random_below(r, 8) > 0)
            c.hold.answers = members_answers(members, members_at(members, c.by.slot));
        if (c.hold.count == 0)
            c.kind = CONTROL_NOOP;
        break;
    case CONTROL_SUSPEND:
        c.suspend.automation = AUTOMATION_PLACEMENT + (enum control_automation)test_random_below(r, 3);
        c.suspend.duration_ms = test_random_below(r, 3) * 20000;
        c.suspend.owner = c.suspend.reason = slice_str("x");
        break;
    case CONTROL_SET:
        c.settings = settings;
        c.settings.suspect_age_ms += (uint32_t)test_random_below(r, 20000);
        c.settings.repair_delay_ms = (uint32_t)test_random_below(r, 200000);
        break;
    default:
        break;
    }
    return c;
}

static void invariants_hold(const struct members *m)
{
    for (uint32_t i = 0; i < members_slot_count(m); i++) {
        const struct member *a = members_at(m, i);
        assert_int_equal(a->id.slot, i);
        for (uint32_t k = 0; k < i && a->status != MEMBER_NONE; k++)
            assert_true(members_at(m, k)->status == MEMBER_NONE ||
                        strcmp(members_at(m, k)->name, a->name) != 0);
        for (uint32_t p = 0; p < 16; p++) {
            assert_true(a->status == MEMBER_UP || !member_owns(a, p));
            assert_true(a->status != MEMBER_NONE || !members_is_assigned(m, p, i));
        }
        assert_true(a->status == MEMBER_UP || a->suspicion == UINT64_MAX);
    }
}

static uint64_t counted[CONTROL_KIND_END];

static bool step(const struct control_record *one)
{
    struct slice bytes = encoded(one);
    struct members_change change, again;
    uint64_t offset = next_offset++;
    assert_ok(members_apply(members, offset, now_ms, bytes, &change));
    counted[change.kind] += change.counted;
    invariants_hold(members);
    follows_the_rules(one, offset, change.counted);
    if (twin != NULL) {
        assert_ok(members_apply(twin, offset, now_ms, bytes, &again));
        assert_true(again.counted == change.counted);
    }
    return change.counted;
}

/* Every node owns what it is assigned: now others may let go. */
static void catch_up(void)
{
    static uint32_t all[16];
    struct control_record own = record(CONTROL_OWN);
    for (uint32_t p = 0; p < 16; p++)
        all[p] = p;
    own.hold.partitions = all;
    own.hold.count = 16;
    for (uint32_t i = 0; i < members_slot_count(members); i++) {
        own.by = members_at(members, i)->id;
        own.hold.answers = members_answers(members, members_at(members, i));
        step(&own);
    }
}

static void snapshots_fold_on(void **state)
{
    struct test_random r = test_random_begin("snapshots_fold_on");
    memset(counted, 0, sizeof counted);
    for (int round = 0; round < 100; round++) {
        members_close(members);
        assert_ok(members_open(pool, &members));
        model_open(&rules);
        next_offset = 0;
        assert_null(begin(16, 1 + (uint8_t)test_random_below(&r, 3), 2));
        for (int i = 0; i < 500; i++) {
            struct control_record one = any_record(&r);
            now_ms += (int64_t)test_random_below(&r, 22000) - 1000;
            if (test_random_below(&r, 40) == 0)
                now_ms += (int64_t)test_random_below(&r, 7200000) - 3600000;
            if (step(&one) && one.kind == CONTROL_ASSIGN && test_random_below(&r, 2) == 0)
                catch_up();
            if (test_random_below(&r, 50) == 0) {
                members_close(twin);
                assert_ok(members_decode(state_of(members), pool, &twin));
            }
        }
        if (twin != NULL)
            assert_true(slice_equal(state_of(members), state_of(twin)));
        members_close(twin);
        twin = NULL;
    }
    for (int k = CONTROL_NOOP; k < CONTROL_KIND_END; k++) {
        printf("# %s counted %llu times\n", control_kind_text((enum control_kind)k),
               (unsigned long long)counted[k]);
        assert_true(counted[k] > 0);
    }
}

static void damaged_snapshots_are_refused(void **state)
{
    three_nodes();
    assert_null(hold(CONTROL_OWN, "a", 0, 12));
    assert_null(suspend(AUTOMATION_REPAIR, 1000));
    struct slice good = state_of(members);
    struct members *other;
    uint8_t *bytes;
    void *at;
    assert_ok(pool_alloc(pool, good.len, &at));
    bytes = at;
    for (size_t i = 0; i < good.len * 8; i++) {
        memcpy(bytes, good.at, good.len);
        bytes[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_err(ERR_CORRUPT, members_decode(slice_of(bytes, good.len), pool, &other));
    }
    for (size_t len = 0; len < good.len; len++) /* cut, with a checksum that holds */
        for (int k = 0; k < 2; k++) {
            memcpy(bytes, good.at, len);
            if (len >= 4)
                put_le32(bytes + len - 4, crc32c(slice_of(bytes, len - 4), 0));
            assert_err(ERR_CORRUPT, members_decode(slice_of(bytes, len), pool, &other));
        }
    memcpy(bytes, good.at, good.len);
    put_le16(bytes + 4, 2);
    put_le32(bytes + good.len - 4, crc32c(slice_of(bytes, good.len - 4), 0));
    assert_err(ERR_VERSION, members_decode(slice_of(bytes, good.len), pool, &other));
}

static void records_are_within_bounds(void **state)
{
    three_nodes();
    struct test_random r = test_random_begin("records_are_within_bounds");
    for (int i = 0; i < 3000; i++) {
        struct control_record one = any_record(&r), back;
        struct slice bytes = encoded(&one);
        assert_ok(control_record_decode(bytes, pool, &back));
        struct slice again = encoded(&back);
        assert_true(slice_equal(bytes, again));
        size_t cut = test_random_below(&r, bytes.len);
        assert_err(ERR_INPUT, control_record_decode(slice_of(bytes.at, cut), pool, &back));
    }
    uint8_t huge[64] = { 0 };
    assert_err(ERR_INPUT,
               control_record_decode(slice_of(huge, sizeof huge), pool, &(struct control_record){ 0 }));
    assert_false(cluster_name_valid(slice_str("a b")));
    assert_false(cluster_name_valid(slice_str("")));
    assert_true(cluster_name_valid(slice_str("node-1.eu_west")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(snapshots_fold_on),
        TEST(damaged_snapshots_are_refused),
        TEST(records_are_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
