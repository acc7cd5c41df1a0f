/* The fold of the control log, rule by rule, and as a whole: random records leave the same state behind whether
 * they were folded at once or from a snapshot on, and the invariants of members.c hold after each. */
#include "base/test.h"

#include "base/bytes.h"
#include "cluster/members.h"
#include "cluster/placement.h"

#include <string.h>

static struct pool *pool;
static struct members *members, *twin; /* twin: from a snapshot on */
static uint64_t next_offset;
static int64_t now_ms;

static const struct control_settings settings = { .suspect_age_ms = 30000, .repair_delay_ms = 600000 };

/* ---- records ---- */

static struct slice encoded(const struct control_record *record)
{
    struct buf out = buf_open(pool, CONTROL_RECORD_BYTES_MAX);
    control_record_encode(record, &out);
    assert_ok(buf_err(&out));
    return buf_slice(&out); /* the pool's */
}

/* NULL: it counted. */
static const char *put(const struct control_record *record)
{
    struct members_change change;
    assert_ok(members_apply(members, next_offset++, now_ms, encoded(record), &change));
    assert_int_equal(change.kind, record->kind);
    assert_true(change.counted == (change.why == NULL));
    return change.why;
}

static void id_of(uint8_t *id, unsigned v)
{
    memset(id, 0, CLUSTER_ID_BYTES);
    id[0] = (uint8_t)v;
    id[1] = (uint8_t)(v >> 8);
}

static struct control_record record(enum control_kind kind)
{
    struct control_record r = { .kind = kind };
    id_of(r.cluster_id, 7);
    return r;
}

static const char *begin(uint32_t partitions, uint8_t replicas, uint32_t expected)
{
    struct control_record r = record(CONTROL_INIT);
    r.init = (struct control_init){ .partition_count = partitions,
                                    .replica_count = replicas,
                                    .expected_nodes = expected,
                                    .range_bytes_max = 1 << 20,
                                    .settings = settings };
    return put(&r);
}

static const char *join(const char *name, const char *zone, unsigned disk, unsigned process)
{
    struct control_record r = record(CONTROL_JOIN);
    r.join = (struct control_join){ .name = slice_str(name),
                                    .zone = slice_str(zone),
                                    .address = slice_str("127.0.0.1:9000"),
                                    .read_to = next_offset,
                                    .format_max = 1 };
    id_of(r.join.disk_id, disk);
    id_of(r.join.process_id, process);
    return put(&r);
}

static struct member_id id(const char *name)
{
    const struct member *m = members_find(members, slice_str(name));
    assert_non_null(m);
    return m->id;
}

static const struct member *named(const char *name) { return members_at(members, id(name).slot); }

static const char *about(enum control_kind kind, const char *by, const char *of)
{
    struct control_record r = record(kind);
    r.by = id(by);
    r.of = of == NULL ? r.by : id(of);
    r.suspicion = kind == CONTROL_SUSPECT ? 0 : members_at(members, r.of.slot)->suspicion;
    return put(&r);
}

static const char *remove_node(const char *name, enum control_removal removal)
{
    struct control_record r = record(CONTROL_REMOVE);
    r.of = id(name);
    r.removal = removal;
    return put(&r);
}

static const char *suspend(enum control_automation automation, uint64_t duration_ms)
{
    struct control_record r = record(CONTROL_SUSPEND);
    r.suspend.automation = automation;
    r.suspend.duration_ms = duration_ms;
    r.suspend.owner = slice_str("ada");
    r.suspend.reason = slice_str("new switches");
    return put(&r);
}

static struct control_record assignment(bool force)
{
    struct control_record r = record(CONTROL_ASSIGN);
    uint32_t *slots;
    uint64_t placed;
    assert_ok(members_plan(members, pool, &slots, &placed));
    r.by.slot = SLOT_NONE;
    r.assign.based_on = members_changed_at(members);
    r.assign.partition_count = members_init(members)->partition_count;
    r.assign.replica_count = members_init(members)->replica_count;
    r.assign.force = force;
    r.assign.slots = slots;
    return r;
}

static const char *assign(void)
{
    struct control_record r = assignment(false);
    return put(&r);
}

static const char *hold(enum control_kind kind, const char *by, uint32_t from, uint32_t to)
{
    static uint32_t partitions[CLUSTER_PARTITIONS_MAX];
    struct control_record r = record(kind);
    r.by = id(by);
    for (uint32_t p = from; p < to; p++)
        partitions[r.hold.count++] = p;
    r.hold.partitions = partitions;
    return put(&r);
}

static uint32_t assigned_count(const char *name)
{
    uint32_t count = 0;
    for (uint32_t p = 0; p < members_init(members)->partition_count; p++)
        count += members_is_assigned(members, p, id(name).slot);
    return count;
}

static void three_nodes(void)
{
    assert_null(begin(12, 2, 3));
    assert_null(join("a", "z1", 1, 1));
    assert_null(join("b", "z2", 2, 2));
    assert_null(join("c", "z3", 3, 3));
    assert_null(assign());
}

/* ---- the rules ---- */

static void the_first_init_begins(void **state)
{
    assert_non_null(join("a", "z", 1, 1));
    assert_null(members_init(members));
    assert_null(begin(8, 3, 1));
    assert_string_equal(begin(16, 3, 1), "the cluster has begun");
    assert_int_equal(members_init(members)->partition_count, 8);
    struct control_record other = record(CONTROL_NOOP);
    id_of(other.cluster_id, 8);
    assert_string_equal(put(&other), "it is another cluster's");
    assert_int_equal(members_epoch(members), next_offset);
}

static void slots_are_kept_over_restarts(void **state)
{
    assert_null(begin(8, 2, 1));
    assert_null(join("a", "z1", 1, 1));
    assert_null(join("b", "z2", 2, 2));
    uint64_t changed = members_changed_at(members);
    struct member_id before = id("a");
    assert_string_equal(join("a", "z1", 1, 1), "it has joined already");
    assert_null(join("a", "z1", 1, 11)); /* started again */
    assert_int_equal(id("a").slot, before.slot);
    assert_true(id("a").incarnation > before.incarnation);
    assert_false(members_is_current(members, before));
    assert_true(members_is_current(members, id("a")));
    assert_int_equal(members_changed_at(members), changed); /* nothing moves for it */
    assert_null(join("a", "z2", 1, 12));
    assert_int_not_equal(members_changed_at(members), changed); /* another zone: something may */
    assert_null(about(CONTROL_LEAVE, "b", NULL));
    assert_null(join("b", "z2", 2, 22));
    assert_int_equal(id("b").slot, 1);
}

static void names_and_disks_are_of_one_node(void **state)
{
    assert_null(begin(8, 2, 1));
    assert_null(join("a", "z", 1, 1));
    assert_null(join("b", "z", 2, 2));
    assert_string_equal(join("c", "z", 1, 5), "a node of another name is up with the same data directory");
    assert_null(
        join("a", "z", 9, 9)); /* its disk is gone, it says: a claim, which the holder refutes if it lives */
    assert_int_equal(id("a").incarnation, 1);
    assert_string_equal(join("a", "z", 9, 9), "another node is up under this name");
    assert_null(about(CONTROL_REFUTE, "a", NULL));
    now_ms += 30000;
    assert_null(join("a", "z", 9, 9));
    assert_int_equal(id("a").incarnation, 1);
    now_ms += 30000;
    assert_null(join("a", "z", 9, 9));
    assert_int_equal(id("a").incarnation, next_offset - 1);
    assert_int_equal(id("a").slot, 0);
    assert_true(named("a")->suspicion == UINT64_MAX);
}

/* A JOIN that lay somewhere while its process ended and another took its place. */
static void late_joins_do_not_count(void **state)
{
    assert_null(begin(8, 2, 1));
    assert_null(join("a", "z", 1, 1));
    struct control_record late = record(CONTROL_JOIN);
    late.join = (struct control_join){
        .name = slice_str("a"), .zone = slice_str("z"), .address = slice_str("h:1"), .read_to = next_offset
    };
    id_of(late.join.disk_id, 1);
    id_of(late.join.process_id, 2);
    assert_null(put(&late)); /* sent again after a time-out, it counts */
    assert_null(join("a", "z", 1, 3));
    assert_string_equal(put(&late), "it does not know what was decided about its name");
    assert_null(about(CONTROL_LEAVE, "a", NULL));
    assert_non_null(put(&late));
    assert_null(remove_node("a", REMOVAL_GONE));
    assert_non_null(put(&late));
    assert_null(join("a", "z", 1, 4));
}

static void most_must_accuse(void **state)
{
    three_nodes();
    assert_null(about(CONTROL_SUSPECT, "a", "c"));
    assert_string_equal(about(CONTROL_SUSPECT, "b", "c"), "a suspicion stands");
    assert_null(about(CONTROL_VOTE, "a", "c"));
    now_ms += 30000;
    assert_string_equal(about(CONTROL_EVICT, "a", "c"), "votes are lacking, or it is too early");
    assert_string_equal(about(CONTROL_VOTE, "a", "c"), "it has voted");
    assert_string_equal(about(CONTROL_EVICT, "b", "c"), "who evicts has not voted");
    assert_null(about(CONTROL_VOTE, "b", "c"));
    assert_null(about(CONTROL_EVICT, "b", "c"));
    assert_int_equal(named("c")->status, MEMBER_EVICTED);
    assert_non_null(about(CONTROL_LEAVE, "c", NULL)); /* a zombie speaks */

    assert_null(about(CONTROL_SUSPECT, "a", "b")); /* two are left: neither can put the other out */
    assert_null(about(CONTROL_VOTE, "a", "b"));
    now_ms += 24 * 3600 * 1000;
    assert_string_equal(about(CONTROL_EVICT, "a", "b"), "votes are lacking, or it is too early");
}

static void the_accused_may_object(void **state)
{
    three_nodes();
    assert_null(about(CONTROL_SUSPECT, "a", "c"));
    assert_null(about(CONTROL_VOTE, "a", "c"));
    assert_null(about(CONTROL_VOTE, "b", "c"));
    uint64_t suspicion = named("c")->suspicion;
    assert_string_equal(about(CONTROL_EVICT, "b", "c"), "votes are lacking, or it is too early");
    assert_null(about(CONTROL_REFUTE, "c", NULL));
    now_ms += 30000;
    struct control_record late = record(CONTROL_EVICT);
    late.by = id("b");
    late.of = id("c");
    late.suspicion = suspicion;
    assert_string_equal(put(&late), "that suspicion does not stand");
    assert_non_null(about(CONTROL_VOTE, "b", "c")); /* of none */
    assert_non_null(about(CONTROL_REFUTE, "c", NULL));
    assert_string_equal(about(CONTROL_SUSPECT, "a", "a"), "nobody accuses itself");
    assert_null(about(CONTROL_SUSPECT, "a", "c"));
    assert_null(about(CONTROL_VOTE, "a", "c"));
    assert_null(join("a", "z1", 1, 11)); /* whose accuser begins anew has not voted in this life */
    now_ms += 30000;
    assert_null(about(CONTROL_VOTE, "b", "c"));
    assert_non_null(about(CONTROL_EVICT, "b", "c"));
    assert_null(about(CONTROL_VOTE, "a", "c"));
    assert_null(about(CONTROL_EVICT, "a", "c"));
}

static void one_eviction_at_a_time(void **state)
{
    assert_null(begin(12, 2, 5));
    const char *names[] = { "a", "b", "c", "d", "e" };
    for (unsigned i = 0; i < 5; i++)
        assert_null(join(names[i], names[i], i + 1, i + 1));
    assert_null(assign());
    for (unsigned i = 3; i < 5; i++) {
        assert_null(about(CONTROL_SUSPECT, "a", names[i]));
        assert_null(about(CONTROL_VOTE, "a", names[i]));
        assert_null(about(CONTROL_VOTE, "b", names[i]));
        assert_null(about(CONTROL_VOTE, "c", names[i]));
    }
    now_ms += 30000;
    assert_null(about(CONTROL_EVICT, "a", "d"));
    assert_non_null(about(CONTROL_EVICT, "a", "e"));
    now_ms += 600000;
    assert_null(suspend(AUTOMATION_EVICTION, 60000));
    assert_non_null(about(CONTROL_EVICT, "a", "e"));
    assert_null(suspend(AUTOMATION_EVICTION, 0));
    assert_null(about(CONTROL_EVICT, "a", "e"));
}

static void data_moves_when_the_delay_is_over(void **state)
{
    three_nodes();
    assert_null(about(CONTROL_LEAVE, "c", NULL));
    assert_false(members_is_assignment_due(members));
    assert_non_null(about(CONTROL_VACATE, "a", "c"));
    assert_int_equal(assigned_count("c"), 8);
    now_ms += 600000;
    assert_null(suspend(AUTOMATION_REPAIR, 1000));
    assert_non_null(about(CONTROL_VACATE, "a", "c"));
    now_ms += 1000; /* suspensions end by themselves */
    uint32_t slot = id("c").slot;
    assert_null(about(CONTROL_VACATE, "a", "c"));
    assert_null(members_find(members, slice_str("c")));
    for (uint32_t p = 0; p < 12; p++)
        assert_false(members_is_assigned(members, p, slot));
    assert_true(members_is_assignment_due(members));
    assert_null(assign());
    assert_int_equal(assigned_count("a"), 12);
    assert_null(join("d", "z3", 4, 4)); /* takes the free slot */
    assert_int_equal(id("d").slot, slot);
    assert_int_equal(assigned_count("d"), 0);
    assert_null(assign());
    assert_int_equal(assigned_count("d"), 8);
}

static void a_newcomer_replaces_the_dead_at_once(void **state)
{
    three_nodes();
    assert_null(about(CONTROL_LEAVE, "c", NULL));
    assert_non_null(about(CONTROL_VACATE, "a", "c"));
    assert_null(join("d", "z3", 4, 4));
    assert_null(about(CONTROL_VACATE, "a", "c"));
    assert_null(about(CONTROL_LEAVE, "b", NULL));
    assert_non_null(about(CONTROL_VACATE, "a", "b")); /* one newcomer, one slot */
    uint32_t *slots;
    uint64_t placed;
    assert_ok(members_plan(members, pool, &slots, &placed));
    assert_int_equal(placed, 8); /* what the dead held, and nothing else */
}

static void assignments_are_of_the_members_they_name(void **state)
{
    assert_null(begin(12, 2, 3));
    assert_null(join("a", "z1", 1, 1));
    assert_false(members_is_assignment_due(members));
    assert_string_equal(assign(), "nodes are awaited");
    assert_null(members_assigned(members, 0));
    struct control_record forced = assignment(true);
    assert_null(put(&forced));
    assert_non_null(members_assigned(members, 0));
    assert_string_equal(put(&forced), "members or assignment have changed since");
    assert_null(join("b", "z2", 2, 2));
    struct control_record early = assignment(false);
    assert_null(join("c", "z3", 3, 3));
    assert_string_equal(put(&early), "members or assignment have changed since");
    assert_null(suspend(AUTOMATION_PLACEMENT, 1000));
    assert_string_equal(assign(), "placement is suspended");
    now_ms += 1000;
    assert_null(assign());
    assert_null(remove_node("b", REMOVAL_DRAIN));
    assert_non_null(remove_node("b", REMOVAL_DRAIN));
    assert_null(assign());
    assert_int_equal(assigned_count("b"), 0);
    assert_null(remove_node("b", REMOVAL_UNDRAIN));
    assert_null(assign());
    assert_int_equal(assigned_count("b"), 8);
    struct control_record bad = assignment(false);
    uint32_t slots[24];
    memcpy(slots, bad.assign.slots, sizeof slots);
    bad.assign.slots = slots;
    slots[5] = slots[4];
    assert_string_equal(put(&bad), "a slot stands twice for a partition");
    slots[5] = 77;
    assert_string_equal(put(&bad), "a slot is free");
    assert_null(remove_node("b", REMOVAL_GONE));
    assert_null(members_find(members, slice_str("b")));
}

static void owners_let_go_when_all_assigned_own(void **state)
{
    assert_null(begin(12, 2, 2));
    assert_null(join("a", "z1", 1, 1));
    assert_null(join("b", "z2", 2, 2));
    assert_non_null(hold(CONTROL_OWN, "a", 0, 12)); /* nothing is assigned */
    assert_null(assign());
    assert_null(hold(CONTROL_OWN, "a", 0, 12));
    assert_non_null(hold(CONTROL_OWN, "a", 0, 12));
    assert_null(hold(CONTROL_OWN, "b", 0, 12));
    assert_null(join("c", "z3", 3, 3));
    assert_null(assign());
    assert_string_equal(hold(CONTROL_DROP, "a", 0, 12), "it owns none of them, or is needed yet");
    assert_null(hold(CONTROL_OWN, "c", 0, 12)); /* those that are its own */
    assert_null(hold(CONTROL_DROP, "a", 0, 12));
    for (uint32_t p = 0; p < 12; p++)
        assert_true(member_owns(named("a"), p) == members_is_assigned(members, p, id("a").slot));
    assert_null(join("a", "z1", 1, 11)); /* a new life owns nothing */
    for (uint32_t p = 0; p < 12; p++)
        assert_false(member_owns(named("a"), p));
    assert_string_equal(hold(CONTROL_DROP, "b", 0, 12), "it owns none of them, or is needed yet");
}

static void strange_bytes_change_nothing(void **state)
{
    three_nodes();
    struct members_change change;
    assert_ok(members_apply(members, next_offset++, now_ms, slice_str("hello"), &change));
    assert_false(change.counted);
    struct control_record r = record(CONTROL_NOOP);
    uint8_t bytes[64];
    struct slice good = encoded(&r);
    memcpy(bytes, good.at, good.len);
    bytes[5] = CONTROL_KIND_END; /* what a newer one may write */
    assert_err(ERR_VERSION, members_apply(members, next_offset, now_ms, slice_of(bytes, good.len), &change));
    assert_int_equal(members_epoch(members), next_offset);
    bytes[5] = CONTROL_NOOP;
    bytes[4] = CONTROL_FORMAT_VERSION + 1;
    assert_err(ERR_VERSION, members_apply(members, next_offset, now_ms, slice_of(bytes, good.len), &change));
    id_of(bytes + 6, 8); /* another cluster's is nobody's business here */
    assert_ok(members_apply(members, next_offset++, now_ms, slice_of(bytes, good.len), &change));
    assert_false(change.counted);
    now_ms -= 3600000; /* the broker's clock went back: time does not */
    int64_t before_ms = members_now_ms(members);
    assert_null(put(&r));
    assert_int_equal(members_now_ms(members), before_ms);
    next_offset += 5; /* offsets have holes */
    assert_null(put(&r));
}

/* ---- any records ---- */

static struct slice state_of(struct members *m)
{
    struct buf out = buf_open(pool, 64 << 20);
    members_encode(m, &out);
    assert_ok(buf_err(&out));
    return buf_slice(&out);
}

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

static struct control_record any_record(struct test_random *r)
{
    static char names[] = "a\0b\0c\0d\0e\0f\0g\0h";
    static uint32_t partitions[16];
    static const enum control_kind kinds[] = {
        CONTROL_NOOP,    CONTROL_JOIN,   CONTROL_JOIN, CONTROL_JOIN,   CONTROL_REFUTE,
        CONTROL_SUSPECT, CONTROL_VOTE,   CONTROL_VOTE, CONTROL_VOTE,   CONTROL_VOTE,
        CONTROL_EVICT,   CONTROL_EVICT,  CONTROL_OWN,  CONTROL_ASSIGN, CONTROL_LEAVE,
        CONTROL_VACATE,  CONTROL_REMOVE, CONTROL_DROP, CONTROL_SET,    CONTROL_SUSPEND
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
        c.join = (struct control_join){ .name = slice_str(names + 2 * test_random_below(r, 8)),
                                        .zone = slice_str(names + 2 * test_random_below(r, 3)),
                                        .address = slice_str("x:1"),
                                        .read_to = next_offset - test_random_below(r, 3) };
        id_of(c.join.disk_id, (unsigned)(c.join.name.at[0] + 256 * (test_random_below(r, 6) == 0)));
        id_of(c.join.process_id, (unsigned)test_random_below(r, 40));
        break;
    case CONTROL_REFUTE:
        c.by = c.of;
        c.suspicion = standing;
        break;
    case CONTROL_VOTE:
    case CONTROL_EVICT:
        c.suspicion = standing;
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
        standing = test_random_below(r, 2); /* all, or half of them */
        for (uint32_t p = 0; p < 16; p++)
            if (standing == 0 || test_random_below(r, 2) == 0)
                partitions[c.hold.count++] = p;
        c.hold.partitions = partitions;
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
        next_offset = 0;
        assert_null(begin(16, 1 + (uint8_t)test_random_below(&r, 3), 2));
        for (int i = 0; i < 500; i++) {
            struct control_record one = any_record(&r);
            now_ms += (int64_t)test_random_below(&r, 60000) - 5000;
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

static int set_up(void **state)
{
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    next_offset = 0;
    now_ms = 1000000;
    assert_ok(members_open(pool, &members));
    return 0;
}

static int tear_down(void **state)
{
    members_close(twin);
    members_close(members);
    pool_close(pool);
    twin = NULL;
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_first_init_begins),
        TEST(slots_are_kept_over_restarts),
        TEST(names_and_disks_are_of_one_node),
        TEST(late_joins_do_not_count),
        TEST(most_must_accuse),
        TEST(the_accused_may_object),
        TEST(one_eviction_at_a_time),
        TEST(data_moves_when_the_delay_is_over),
        TEST(a_newcomer_replaces_the_dead_at_once),
        TEST(assignments_are_of_the_members_they_name),
        TEST(owners_let_go_when_all_assigned_own),
        TEST(strange_bytes_change_nothing),
        TEST(snapshots_fold_on),
        TEST(damaged_snapshots_are_refused),
        TEST(records_are_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
