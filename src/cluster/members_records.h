/* Records of a control log, one after the other, for members_test.c and members_state_test.c: each is folded
 * by the room and by the tests' own reading of the rules (control_model.h), and both must come to the same. */
#ifndef CLUSTER_MEMBERS_RECORDS_H
#define CLUSTER_MEMBERS_RECORDS_H

#include "base/test.h"

#include "base/bytes.h"
#include "cluster/control_compare.h"
#include "cluster/members.h"
#include "cluster/placement.h"

#include <string.h>

static struct pool *pool;
static struct members *members, *twin; /* twin: from a snapshot on */
static struct model rules;             /* what the page says */
static uint64_t next_offset;
static int64_t now_ms;

static const struct control_settings settings = { .suspect_age_ms = 30000, .repair_delay_ms = 600000 };

/* ---- records ---- */

static inline struct slice encoded(const struct control_record *record)
{
    struct buf out = buf_open(pool, CONTROL_RECORD_BYTES_MAX);
    control_record_encode(record, &out);
    assert_ok(buf_err(&out));
    return buf_slice(&out); /* the pool's */
}

static inline void follows_the_rules(const struct control_record *record, uint64_t offset, bool is_counted)
{
    struct slice bytes = encoded(record);
    bool counts = model_fold(&rules, (int64_t)offset, now_ms, bytes.at, bytes.len);
    const char *differs = compare_states(&rules, members);
    if (counts != is_counted || differs != NULL)
        fail_msg("%s: counts %d, by the rules %d; %s", control_kind_text(record->kind), is_counted, counts,
                 differs == NULL ? "" : differs);
}

/* NULL: it counted. */
static inline const char *put(const struct control_record *record)
{
    struct members_change change;
    uint64_t offset = next_offset++;
    assert_ok(members_apply(members, offset, now_ms, encoded(record), &change));
    assert_int_equal(change.kind, record->kind);
    assert_true(change.counted == (change.why == NULL));
    follows_the_rules(record, offset, change.counted);
    return change.why;
}

static inline void id_of(uint8_t *id, unsigned v)
{
    memset(id, 0, CLUSTER_ID_BYTES);
    id[0] = (uint8_t)v;
    id[1] = (uint8_t)(v >> 8);
}

static inline struct control_record record(enum control_kind kind)
{
    struct control_record r = { .kind = kind };
    id_of(r.cluster_id, 7);
    return r;
}

static inline const char *begin(uint32_t partitions, uint8_t replicas, uint32_t expected)
{
    struct control_record r = record(CONTROL_INIT);
    r.init = (struct control_init){ .partition_count = partitions,
                                    .replica_count = replicas,
                                    .expected_nodes = expected,
                                    .range_bytes_max = 1 << 20,
                                    .settings = settings };
    return put(&r);
}

static inline const char *join(const char *name, const char *zone, unsigned disk, unsigned process)
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

static inline struct member_id id(const char *name)
{
    const struct member *m = members_find(members, slice_str(name));
    assert_non_null(m);
    return m->id;
}

static inline const struct member *named(const char *name) { return members_at(members, id(name).slot); }

static inline const char *about(enum control_kind kind, const char *by, const char *of)
{
    struct control_record r = record(kind);
    r.by = id(by);
    r.of = of == NULL ? r.by : id(of);
    if (kind == CONTROL_LEAVE)
        r.leaving = LEAVING_DONE;
    else
        r.suspicion = kind == CONTROL_SUSPECT ? 0 : members_at(members, r.of.slot)->suspicion;
    return put(&r);
}

static inline const char *leave(const char *name, enum control_leaving stage)
{
    struct control_record r = record(CONTROL_LEAVE);
    r.by = id(name);
    r.leaving = stage;
    return put(&r);
}

/* Time passes for a log that somebody writes to. */
static inline void pass(int64_t ms)
{
    struct control_record r = record(CONTROL_NOOP);
    for (uint32_t i = 0; i < members_slot_count(members); i++)
        if (members_at(members, i)->status == MEMBER_UP)
            r.by = members_at(members, i)->id;
    for (int64_t step_ms; ms > 0; ms -= step_ms) {
        step_ms = ms < 10000 ? ms : 10000;
        now_ms += step_ms;
        assert_null(put(&r));
    }
}

static inline const char *set(uint32_t suspect_age_ms, uint32_t repair_delay_ms)
{
    struct control_record r = record(CONTROL_SET);
    r.settings = (struct control_settings){ suspect_age_ms, repair_delay_ms };
    return put(&r);
}

static inline const char *remove_node(const char *name, enum control_removal removal)
{
    struct control_record r = record(CONTROL_REMOVE);
    r.of = id(name);
    r.removal = removal;
    return put(&r);
}

static inline const char *suspend(enum control_automation automation, uint64_t duration_ms)
{
    struct control_record r = record(CONTROL_SUSPEND);
    r.suspend.automation = automation;
    r.suspend.duration_ms = duration_ms;
    r.suspend.owner = slice_str("ada");
    r.suspend.reason = slice_str("new switches");
    return put(&r);
}

static inline struct control_record assignment(bool force)
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

static inline const char *assign(void)
{
    struct control_record r = assignment(false);
    return put(&r);
}

static inline const char *hold(enum control_kind kind, const char *by, uint32_t from, uint32_t to)
{
    static uint32_t partitions[CLUSTER_PARTITIONS_MAX];
    struct control_record r = record(kind);
    r.by = id(by);
    for (uint32_t p = from; p < to; p++)
        partitions[r.hold.count++] = p;
    r.hold.partitions = partitions;
    r.hold.answers = members_answers(members, members_at(members, r.by.slot));
    return put(&r);
}

static inline uint32_t assigned_count(const char *name)
{
    uint32_t count = 0;
    for (uint32_t p = 0; p < members_init(members)->partition_count; p++)
        count += members_is_assigned(members, p, id(name).slot);
    return count;
}

static inline void three_nodes(void)
{
    assert_null(begin(12, 2, 3));
    assert_null(join("a", "z1", 1, 1));
    assert_null(join("b", "z2", 2, 2));
    assert_null(join("c", "z3", 3, 3));
    assert_null(assign());
}

static inline struct slice state_of(struct members *m)
{
    struct buf out = buf_open(pool, 64 << 20);
    members_encode(m, &out);
    assert_ok(buf_err(&out));
    return buf_slice(&out);
}

static inline int set_up(void **state)
{
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    next_offset = 0;
    now_ms = 1000000;
    model_open(&rules);
    assert_ok(members_open(pool, &members));
    return 0;
}

static inline int tear_down(void **state)
{
    members_close(twin);
    members_close(members);
    pool_close(pool);
    twin = NULL;
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
