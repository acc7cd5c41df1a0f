/* The fold of the control log, rule by rule. */
#include "cluster/members_records.h"

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
    pass(30000);
    assert_null(join("a", "z", 9, 9));
    assert_int_equal(id("a").incarnation, 1);
    pass(30000);
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
    pass(30000);
    assert_string_equal(about(CONTROL_EVICT, "a", "c"), "votes are lacking, or it is too early");
    assert_string_equal(about(CONTROL_VOTE, "a", "c"), "it has voted");
    assert_string_equal(about(CONTROL_EVICT, "b", "c"), "who evicts has not voted");
    assert_null(about(CONTROL_VOTE, "b", "c"));
    assert_null(about(CONTROL_EVICT, "b", "c"));
    assert_int_equal(named("c")->status, MEMBER_EVICTED);
    assert_non_null(about(CONTROL_LEAVE, "c", NULL)); /* a zombie speaks */

    assert_null(about(CONTROL_SUSPECT, "a", "b")); /* two are left: neither can put the other out */
    assert_null(about(CONTROL_VOTE, "a", "b"));
    pass(3600 * 1000);
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
    pass(30000);
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
    pass(30000);
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
    pass(30000);
    assert_null(about(CONTROL_EVICT, "a", "d"));
    assert_non_null(about(CONTROL_EVICT, "a", "e"));
    pass(600000);
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
    pass(600000);
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

static void a_newcomer_replaces_the_dead_soon(void **state)
{
    three_nodes();
    assert_null(about(CONTROL_LEAVE, "c", NULL));
    assert_non_null(about(CONTROL_VACATE, "a", "c"));
    assert_null(join("d", "z3", 4, 4));
    pass(110000);
    assert_non_null(about(CONTROL_VACATE, "a", "c")); /* it may be back any moment */
    pass(10000);
    assert_null(about(CONTROL_VACATE, "a", "c"));
    assert_null(about(CONTROL_LEAVE, "b", NULL));
    pass(120000);
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

static void owners_answer_what_stands(void **state)
{
    assert_null(begin(12, 2, 2));
    assert_null(join("a", "z1", 1, 1));
    assert_null(join("b", "z2", 2, 2));
    assert_null(assign());
    static const uint32_t first[] = { 0, 1 };
    struct control_record late = record(CONTROL_OWN);
    late.by = id("a");
    late.hold.answers = members_answers(members, named("a"));
    late.hold.partitions = first;
    late.hold.count = 2;
    assert_null(hold(CONTROL_OWN, "a", 0, 4));
    assert_true(member_owns(named("a"), 1));
    assert_null(hold(CONTROL_DISOWN, "a", 0, 2)); /* they have fallen behind */
    assert_false(member_owns(named("a"), 1));
    assert_true(member_owns(named("a"), 2));
    assert_string_equal(put(&late), "it answers what does not stand any more");
    assert_string_equal(hold(CONTROL_DISOWN, "a", 0, 2), "it owns none of them");
    assert_null(hold(CONTROL_OWN, "a", 0, 4));
    assert_null(hold(CONTROL_OWN, "b", 0, 12));
    late.by = id("b");
    late.hold.answers = members_answers(members, named("b"));
    late.kind = CONTROL_DISOWN;
    assert_null(join("c", "z3", 3, 3));
    assert_null(assign());
    assert_string_equal(put(&late), "it answers what does not stand any more");
}

static void leaving_has_three_steps(void **state)
{
    three_nodes();
    assert_string_equal(leave("a", LEAVING_HANDS_OVER), "it has not said that it leaves, or has said this");
    assert_null(leave("a", LEAVING_SOON));
    assert_string_equal(leave("a", LEAVING_SOON), "it has said so");
    assert_true(named("a")->is_leaving);
    assert_false(members_is_assignment_due(members));
    assert_null(leave("a", LEAVING_HANDS_OVER));
    assert_non_null(leave("a", LEAVING_HANDS_OVER));
    assert_true(members_is_assignment_due(members));
    assert_null(assign());
    assert_int_equal(assigned_count("a"), 0);
    assert_null(hold(CONTROL_OWN, "b", 0, 12));
    assert_null(hold(CONTROL_OWN, "c", 0, 12));
    assert_null(leave("a", LEAVING_DONE));
    assert_int_equal(named("a")->status, MEMBER_LEFT);
    assert_non_null(leave("a", LEAVING_DONE));
    assert_false(members_is_assignment_due(members)); /* it is expected back, and gets its share then */
    assert_null(join("a", "z1", 1, 11));
    assert_false(named("a")->hands_over || named("a")->is_leaving);
    assert_null(assign());
    assert_int_equal(assigned_count("a"), 8);
}

/* Clocks of brokers leap: nobody is put out for it, and nobody waits for an hour. */
static void leaps_are_not_time(void **state)
{
    three_nodes();
    assert_null(about(CONTROL_SUSPECT, "a", "c"));
    assert_null(about(CONTROL_VOTE, "a", "c"));
    assert_null(about(CONTROL_VOTE, "b", "c"));
    now_ms += 3600000;
    assert_non_null(about(CONTROL_EVICT, "a", "c"));
    now_ms -= 7200000;
    assert_non_null(about(CONTROL_EVICT, "a", "c"));
    pass(20000);
    assert_non_null(about(CONTROL_EVICT, "a", "c"));
    pass(10000);
    assert_null(about(CONTROL_EVICT, "a", "c"));
    assert_true(members_await_time(members));
    now_ms += 3600000;
    assert_non_null(about(CONTROL_VACATE, "a", "c"));
    now_ms -= 3600000;
    pass(610000); /* the step in which the clock went back counts nothing */
    assert_false(members_await_time(members));
    assert_null(about(CONTROL_VACATE, "a", "c"));
}

static void nobody_is_given_up_while_nobody_is_up(void **state)
{
    three_nodes();
    assert_null(about(CONTROL_LEAVE, "c", NULL));
    pass(590000);
    assert_null(about(CONTROL_LEAVE, "b", NULL));
    assert_null(about(CONTROL_LEAVE, "a", NULL));
    now_ms += 3 * 3600000;
    assert_null(join("a", "z1", 1, 11));
    pass(20000);
    assert_non_null(about(CONTROL_VACATE, "a", "c"));
    assert_null(join("d", "z3", 4, 4)); /* a newcomer does not take the place of who is on the way */
    pass(90000);
    assert_non_null(about(CONTROL_VACATE, "a", "c"));
    assert_non_null(about(CONTROL_VACATE, "a", "b"));
    assert_null(join("b", "z2", 2, 12));
    pass(10000);
    assert_null(about(CONTROL_VACATE, "a", "c"));
}

static void a_lower_suspect_age_waits_for_the_former_one(void **state)
{
    three_nodes();
    assert_null(set(2000, 600000));
    assert_int_equal(members_suspect_age_ms(members), 30000);
    assert_int_equal(members_settings(members)->suspect_age_ms, 2000);
    assert_null(about(CONTROL_SUSPECT, "a", "c"));
    assert_null(about(CONTROL_VOTE, "a", "c"));
    assert_null(about(CONTROL_VOTE, "b", "c"));
    pass(20000);
    assert_non_null(about(CONTROL_EVICT, "a", "c"));
    assert_null(set(5000, 600000)); /* not shorter by doing it twice */
    pass(10000);
    assert_null(about(CONTROL_EVICT, "a", "c"));
    assert_int_equal(members_suspect_age_ms(members), 30000);
    pass(40000);
    assert_int_equal(members_suspect_age_ms(members), 5000);
    assert_null(set(60000, 600000));
    assert_int_equal(members_suspect_age_ms(members), 60000);
}

static void refuted_claims_are_counted(void **state)
{
    assert_null(begin(8, 2, 1));
    assert_null(join("a", "z", 1, 1));
    for (unsigned i = 1; i <= 3; i++) {
        assert_null(join("a", "z", 9, 9));
        assert_true(named("a")->is_claimed);
        assert_null(about(CONTROL_REFUTE, "a", NULL));
        assert_int_equal(named("a")->claims, i);
    }
    assert_null(join("b", "z", 2, 2));
    assert_null(about(CONTROL_SUSPECT, "b", "a"));
    assert_null(about(CONTROL_REFUTE, "a", NULL));
    assert_int_equal(named("a")->claims, 3);
    assert_null(join("a", "z", 1, 11));
    assert_int_equal(named("a")->claims, 0);
}

static void redundancy_counts_who_stays(void **state)
{
    three_nodes();
    struct redundancy r = members_redundancy(members, SLOT_NONE);
    assert_true(r.owner_count_min == 0 && r.unowned_count == 12 && r.lacking_count == 12);
    assert_null(hold(CONTROL_OWN, "a", 0, 12));
    assert_null(hold(CONTROL_OWN, "b", 0, 12));
    r = members_redundancy(members, SLOT_NONE); /* 8 partitions each, 4 of them together */
    assert_true(r.owner_count_min == 1 && r.unowned_count == 0 && r.lacking_count == 8);
    assert_int_equal(members_redundancy(members, id("a").slot).unowned_count, 4);
    assert_null(hold(CONTROL_OWN, "c", 0, 12));
    r = members_redundancy(members, SLOT_NONE);
    assert_true(r.owner_count_min == 2 && r.lacking_count == 0);
    r = members_redundancy(members, id("b").slot);
    assert_true(r.owner_count_min == 1 && r.unowned_count == 0 && r.lacking_count == 8);
    assert_null(leave("a", LEAVING_SOON));
    assert_int_equal(members_redundancy(members, id("b").slot).unowned_count, 4);
}

/* A preview says what happens when it is done. */
static void comes_true(const struct preview *preview)
{
    uint32_t before[64], *slots;
    uint64_t placed, moved = 0;
    for (uint32_t i = 0; i < preview->node_count; i++) {
        const struct preview_node *n = &preview->nodes[i];
        before[i] = 0;
        for (uint32_t p = 0; p < 12; p++)
            before[i] += n->slot < members_slot_count(members) && members_is_assigned(members, p, n->slot);
        moved += n->gained_bytes;
    }
    assert_int_equal(moved, preview->moved_bytes);
    assert_ok(members_plan(members, pool, &slots, &placed));
    assert_memory_equal(slots, preview->slots, 24 * sizeof *slots);
    assert_null(assign());
    for (uint32_t i = 0; i < preview->node_count; i++) {
        const struct preview_node *n = &preview->nodes[i];
        uint32_t held = 0;
        for (uint32_t p = 0; p < 12; p++)
            held += members_is_assigned(members, p, n->slot);
        assert_int_equal(held, n->partition_count);
        assert_true(n->gained_count <= held);
        assert_true(n->is_newcomer || members_at(members, n->slot)->status == MEMBER_NONE ||
                    before[i] + n->gained_count - n->lost_count == held);
    }
}

static struct preview preview_of(enum preview_change change, uint32_t slot)
{
    static uint64_t bytes[12];
    struct preview_request request = {
        .change = change, .slot = slot, .zone = slice_str("z3"), .partition_bytes = bytes
    };
    struct preview preview;
    for (uint32_t p = 0; p < 12; p++)
        bytes[p] = 1000 + p;
    assert_ok(members_preview(members, &request, pool, &preview));
    return preview;
}

static void previews_come_true(void **state)
{
    three_nodes();
    struct preview p = preview_of(PREVIEW_REBALANCE, 0);
    assert_int_equal(p.moved_count, 0);
    assert_int_equal(p.moved_bytes, 0);
    p = preview_of(PREVIEW_DRAIN, id("b").slot);
    assert_int_equal(p.moved_count, 8);
    assert_in_range(p.moved_bytes, 8 * 1000, 8 * 1011);
    assert_int_equal(p.replica_count_min, 2);
    assert_null(remove_node("b", REMOVAL_DRAIN));
    comes_true(&p);
    p = preview_of(PREVIEW_UNDRAIN, id("b").slot);
    assert_null(remove_node("b", REMOVAL_UNDRAIN));
    comes_true(&p);
    p = preview_of(PREVIEW_ADD, 0);
    assert_int_equal(p.node_count, 4);
    assert_true(p.nodes[3].is_newcomer && p.nodes[3].gained_count == 6);
    assert_null(join("d", "z3", 4, 4));
    comes_true(&p);
    p = preview_of(PREVIEW_REPLACE, id("c").slot);
    assert_null(join("e", "z3", 5, 5));
    assert_null(remove_node("c", REMOVAL_GONE));
    comes_true(&p);
    p = preview_of(PREVIEW_ADD, 0);
    assert_int_equal(p.nodes[2].slot, 2); /* the slot that became free */
    assert_null(join("f", "z3", 6, 6));
    comes_true(&p);
    p = preview_of(PREVIEW_REMOVE, id("a").slot);
    assert_int_equal(p.replica_count_min, 2);
    assert_null(remove_node("a", REMOVAL_GONE));
    comes_true(&p);
    struct preview_request bad = { .change = PREVIEW_DRAIN, .slot = 77 };
    assert_err(ERR_INPUT, members_preview(members, &bad, pool, &p));
    bad = (struct preview_request){ .change = PREVIEW_ADD };
    assert_err(ERR_INPUT, members_preview(members, &bad, pool, &p));
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
        TEST(a_newcomer_replaces_the_dead_soon),
        TEST(assignments_are_of_the_members_they_name),
        TEST(owners_let_go_when_all_assigned_own),
        TEST(owners_answer_what_stands),
        TEST(leaving_has_three_steps),
        TEST(leaps_are_not_time),
        TEST(nobody_is_given_up_while_nobody_is_up),
        TEST(a_lower_suspect_age_waits_for_the_former_one),
        TEST(refuted_claims_are_counted),
        TEST(redundancy_counts_who_stays),
        TEST(previews_come_true),
        TEST(strange_bytes_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
