/* Folding the control log: bytes come from the log driver in offset order, the state is asked by core.c, by
 * placement and by whoever shows it. See members.h.
 *
 * Invariants  1. The state is a function of (offset, append time, bytes) of the records alone.  2. A record that
 * does not count changes nothing but the epoch and the times.  3. A slot in the table is never free: who
 * gives one up takes it out of the table.  4. Who owns a partition is up: every end of a life clears what it
 * owned.  5. A suspicion belongs to one life: JOIN and every end clear it; votes of a slot that ends are taken
 * out. */
#include "cluster/members.h"

#include "base/check.h"
#include "cluster/members_inside.h"
#include "cluster/placement.h"

#include <string.h>

/* ---- reading ---- */

void members_plant(struct members *members, unsigned plants) { members->plants = plants; }

uint64_t members_epoch(const struct members *members) { return members->epoch; }
int64_t members_now_ms(const struct members *members) { return members->now_ms; }
int64_t members_append_ms(const struct members *members) { return members->append_ms; }
const uint8_t *members_cluster_id(const struct members *members) { return members->cluster_id; }
uint32_t members_slot_count(const struct members *members) { return members->member_count; }
uint64_t members_changed_at(const struct members *members) { return members->changed_at; }

const struct control_settings *members_settings(const struct members *members) { return &members->settings; }

const struct control_init *members_init(const struct members *members)
{
    return members->is_begun ? &members->init : NULL;
}

const struct member *members_at(const struct members *members, uint32_t slot)
{
    check(slot < members->member_count);
    return &members->members[slot];
}

static struct member *find(const struct members *members, struct slice name)
{
    for (uint32_t i = 0; i < members->member_count; i++)
        if (members->members[i].status != MEMBER_NONE && slice_equal_str(name, members->members[i].name))
            return &members->members[i];
    return NULL;
}

const struct member *members_find(const struct members *members, struct slice name)
{
    return find(members, name);
}

uint32_t members_up_count(const struct members *members)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < members->member_count; i++)
        count += members->members[i].status == MEMBER_UP;
    return count;
}

/* The member that id speaks of, in the life it speaks of. NULL: free, or another life. */
static struct member *member_of(const struct members *members, struct member_id id)
{
    if (id.slot >= members->member_count)
        return NULL;
    struct member *member = &members->members[id.slot];
    bool is_life =
        member->id.incarnation == id.incarnation || (members->plants & MEMBERS_PLANT_ANY_LIFE) != 0;
    return member->status != MEMBER_NONE && is_life ? member : NULL;
}

static struct member *up_member(const struct members *members, struct member_id id)
{
    struct member *member = member_of(members, id);
    return member != NULL && member->status == MEMBER_UP ? member : NULL;
}

bool members_is_current(const struct members *members, struct member_id id)
{
    return up_member(members, id) != NULL;
}

const uint32_t *members_assigned(const struct members *members, uint32_t partition)
{
    if (members->assigned_at == OFFSET_NONE)
        return NULL;
    check(partition < members->init.partition_count);
    return members->table + (size_t)partition * members->init.replica_count;
}

bool members_is_assigned(const struct members *members, uint32_t partition, uint32_t slot)
{
    const uint32_t *slots = members_assigned(members, partition);
    for (uint32_t i = 0; slots != NULL && i < members->init.replica_count; i++)
        if (slots[i] == slot)
            return true;
    return false;
}

static bool bit(const uint8_t *bits, uint32_t i) { return (bits[i / 8] >> i % 8 & 1) != 0; }
static void set_bit(uint8_t *bits, uint32_t i) { bits[i / 8] |= (uint8_t)(1 << i % 8); }
static void clear_bit(uint8_t *bits, uint32_t i) { bits[i / 8] &= (uint8_t) ~(1 << i % 8); }

bool member_owns(const struct member *member, uint32_t partition) { return bit(member->owns, partition); }

bool member_is_accused_by(const struct member *member, uint32_t slot) { return bit(member->votes, slot); }

bool members_is_suspended(const struct members *members, enum control_automation automation,
                          int64_t append_ms)
{
    return members->suspensions[automation].until_ms > append_ms;
}

const struct suspension *members_suspension(const struct members *members, enum control_automation automation)
{
    return &members->suspensions[automation];
}

static uint32_t age_ms(const struct members *members, int64_t now_ms)
{
    uint32_t former_ms = now_ms < members->former_until_ms ? members->former_age_ms : 0;
    return former_ms > members->settings.suspect_age_ms ? former_ms : members->settings.suspect_age_ms;
}

uint32_t members_suspect_age_ms(const struct members *members) { return age_ms(members, members->now_ms); }

uint64_t members_answers(const struct members *members, const struct member *by)
{
    return members->assigned_at != OFFSET_NONE && members->assigned_at > by->held_at ? members->assigned_at
                                                                                     : by->held_at;
}

/* More than half of those that are up accuse it. Two never make a majority of which one is the accused. */
static bool has_votes(const struct members *members, const struct member *of)
{
    uint32_t votes = 0;
    for (uint32_t i = 0; i < members->member_count; i++)
        votes += members->members[i].status == MEMBER_UP && bit(of->votes, i);
    return votes > ((members->plants & MEMBERS_PLANT_EVICT_ALONE) != 0 ? 0 : members_up_count(members) / 2);
}

static bool is_old(const struct members *members, const struct member *of, int64_t now_ms)
{
    return of->suspicion != OFFSET_NONE && now_ms - of->suspected_ms >= age_ms(members, now_ms);
}

static bool may_evict_again(const struct members *members, int64_t now_ms)
{
    return members->evicted_ms == INT64_MIN ||
           now_ms - members->evicted_ms >= members->settings.repair_delay_ms;
}

bool members_may_evict(const struct members *members, const struct member *of, int64_t now_ms,
                       int64_t append_ms)
{
    return of->status == MEMBER_UP && has_votes(members, of) && is_old(members, of, now_ms) &&
           may_evict_again(members, now_ms) && !members_is_suspended(members, AUTOMATION_EVICTION, append_ms);
}

/* Nodes that joined after the assignment was made, less the slots that were given up for some of them. */
static uint64_t newcomers(const struct members *members)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < members->member_count; i++) {
        const struct member *m = &members->members[i];
        count += m->status == MEMBER_UP && members->assigned_at != OFFSET_NONE &&
                 m->slot_since > members->assigned_at;
    }
    return count > members->vacated_since ? count - members->vacated_since : 0;
}

static bool has_ended(const struct member *of)
{
    return of->status == MEMBER_LEFT || of->status == MEMBER_EVICTED;
}

/* How long it could have come back: while nobody was up, nobody could. */
static int64_t gone_ms(const struct members *members, const struct member *of, int64_t now_ms)
{
    return now_ms - (of->ended_ms > members->resumed_ms ? of->ended_ms : members->resumed_ms);
}

bool members_may_vacate(const struct members *members, const struct member *of, int64_t now_ms,
                        int64_t append_ms)
{
    uint32_t delay_ms = members->settings.repair_delay_ms;
    if (newcomers(members) > 0 && delay_ms > MEMBERS_RETURN_MS)
        delay_ms = MEMBERS_RETURN_MS;
    return has_ended(of) && gone_ms(members, of, now_ms) >= delay_ms &&
           !members_is_suspended(members, AUTOMATION_REPAIR, append_ms);
}

/* Every one of these ends by itself when time passes, so that a log without news is not written to. */
bool members_await_time(const struct members *members)
{
    bool is_repairing = !members_is_suspended(members, AUTOMATION_REPAIR, members->append_ms);
    for (uint32_t i = 0; i < members->member_count; i++) {
        const struct member *m = &members->members[i];
        if ((m->suspicion != OFFSET_NONE && !is_old(members, m, members->now_ms)) ||
            (is_repairing && has_ended(m) &&
             gone_ms(members, m, members->now_ms) < members->settings.repair_delay_ms))
            return true;
    }
    return !may_evict_again(members, members->now_ms) || members->now_ms < members->former_until_ms;
}

bool members_is_assignment_due(const struct members *members)
{
    return members->is_begun && members->changed_at != OFFSET_NONE &&
           members->changed_at != members->assigned_at &&
           (members->assigned_at != OFFSET_NONE || members->joined_ever >= members->init.expected_nodes);
}

/* ---- ends of lives ---- */

static bool is_assigned_anything(const struct members *members, uint32_t slot)
{
    size_t count = (size_t)members->init.partition_count * members->init.replica_count;
    for (size_t i = 0; i < count; i++)
        if (members->table[i] == slot)
            return true;
    return false;
}

static void life_ends(struct members *members, struct member *member, enum member_status status,
                      uint64_t offset)
{
    member->ended_at = offset;
    member->status = status;
    member->suspicion = OFFSET_NONE;
    member->suspected_ms = 0;
    bool is_expected = status == MEMBER_LEFT || status == MEMBER_EVICTED;
    if (is_expected && member->hands_over && is_assigned_anything(members, member->id.slot)) {
        member->hands_over = false; /* it has ended before others took over */
        members->changed_at = offset;
    }
    member->is_leaving = member->is_claimed = false;
    member->claims = 0;
    member->held_at = 0;
    member->ended_ms = members->now_ms;
    memset(member->votes, 0, sizeof member->votes);
    memset(member->owns, 0, sizeof member->owns);
    for (uint32_t i = 0; i < members->member_count; i++)
        clear_bit(members->members[i].votes, member->id.slot);
}

static void slot_free(struct members *members, struct member *member, uint64_t offset)
{
    uint32_t slot = member->id.slot;
    members->freed_at = offset;
    life_ends(members, member, MEMBER_NONE, offset);
    member->is_draining = member->hands_over = false;
    size_t count = (size_t)members->init.partition_count * members->init.replica_count;
    for (size_t i = 0; i < count; i++)
        if (members->table[i] == slot)
            members->table[i] = SLOT_NONE;
}

/* ---- one function a kind: NULL: it counted; else why not ---- */

struct folding {
    struct members *members;
    uint64_t offset;
    const struct control_record *record;
    int64_t append_ms;
    bool has_taken_time;
    err failed; /* ERR_LIMIT */
};

static const char *fold_init(struct folding *f)
{
    struct members *m = f->members;
    if (m->is_begun)
        return "the cluster has begun";
    size_t count = (size_t)f->record->init.partition_count * f->record->init.replica_count;
    void *table;
    f->failed = pool_alloc(m->pool, count * sizeof *m->table, &table);
    if (f->failed != OK)
        return NULL;
    m->table = table;
    for (size_t i = 0; i < count; i++)
        m->table[i] = SLOT_NONE;
    memcpy(m->cluster_id, f->record->cluster_id, sizeof m->cluster_id);
    m->init = f->record->init;
    m->settings = f->record->init.settings;
    m->is_begun = true;
    return NULL;
}

static const char name_is_taken[] = "another node is up under this name";

static const char *may_take_over(const struct members *m, const struct control_join *join, int64_t now_ms,
                                 const struct member *member)
{
    if (member->status != MEMBER_UP)
        return NULL;
    if (memcmp(member->process_id, join->process_id, CLUSTER_ID_BYTES) == 0)
        return "it has joined already";
    if (memcmp(member->disk_id, join->disk_id, CLUSTER_ID_BYTES) == 0)
        return NULL; /* the same node, started again */
    if (is_old(m, member, now_ms))
        return NULL; /* its disk was lost, and nobody objected in its name */
    return name_is_taken;
}

/* There is one: members_join_trouble has counted. */
static struct member *slot_take(struct folding *f)
{
    struct members *m = f->members;
    for (uint32_t i = 0; i < m->member_count; i++)
        if (m->members[i].status == MEMBER_NONE)
            return &m->members[i];
    void *block = m->members;
    f->failed =
        pool_block_reserve(m->pool, &block, sizeof *m->members, m->member_count + 1, &m->member_capacity);
    if (f->failed != OK)
        return NULL;
    m->members = block;
    m->members[m->member_count] = (struct member){ .id = { .slot = m->member_count } };
    return &m->members[m->member_count++];
}

static void put_text(char *to, struct slice text)
{
    memcpy(to, text.at, text.len);
    to[text.len] = 0;
}

bool members_is_first_of_zone(const struct members *m, uint32_t slot)
{
    for (uint32_t i = 0; i < slot; i++)
        if (m->members[i].status != MEMBER_NONE && strcmp(m->members[i].zone, m->members[slot].zone) == 0)
            return false;
    return m->members[slot].status != MEMBER_NONE;
}

const char *members_join_trouble(const struct members *m, const struct control_join *join, int64_t now_ms,
                                 bool *out_is_final)
{
    const struct member *member = find(m, join->name);
    uint32_t other_zones = 0, taken = 0;
    *out_is_final = false;
    uint64_t known = member != NULL ? member->ended_at : m->freed_at;
    if (known != OFFSET_NONE && join->read_to <= known && (m->plants & MEMBERS_PLANT_LATE_JOIN) == 0)
        return "it does not know what was decided about its name"; /* perhaps of a process that ended since */
    const char *why = member == NULL ? NULL : may_take_over(m, join, now_ms, member);
    if (why != NULL)
        return why;
    for (uint32_t i = 0; i < m->member_count; i++) {
        const struct member *other = &m->members[i];
        if (other != member && other->status == MEMBER_UP &&
            memcmp(other->disk_id, join->disk_id, CLUSTER_ID_BYTES) == 0)
            return "a node of another name is up with the same data directory";
        other_zones += members_is_first_of_zone(m, i) && !slice_equal_str(join->zone, other->zone);
        taken += other->status != MEMBER_NONE;
    }
    *out_is_final = true;
    if (other_zones >= PLACEMENT_ZONES_MAX)
        return "there are too many zones";
    return member == NULL && taken == CLUSTER_NODES_MAX ? "there is no slot left" : NULL;
}

static const char *fold_join(struct folding *f)
{
    struct members *m = f->members;
    const struct control_join *join = &f->record->join;
    struct member *member = find(m, join->name);
    bool is_final, is_new = member == NULL;
    const char *why = members_join_trouble(m, join, m->now_ms, &is_final);
    if (why == name_is_taken && member->suspicion == OFFSET_NONE) {
        member->suspicion = f->offset; /* a claim, without a vote: whoever lives refutes it */
        member->suspected_ms = m->now_ms;
        member->is_claimed = true;
        return NULL;
    }
    if (why != NULL)
        return why;
    if (is_new)
        member = slot_take(f);
    if (member == NULL)
        return NULL; /* no memory */
    life_ends(m, member, MEMBER_UP, f->offset);
    if (is_new) {
        member->slot_since = f->offset;
        m->joined_ever++;
    }
    if (is_new || member->hands_over || !slice_equal_str(join->zone, member->zone))
        m->changed_at = f->offset;
    member->hands_over = false;
    member->id.incarnation = f->offset;
    put_text(member->name, join->name);
    put_text(member->zone, join->zone);
    put_text(member->address, join->address);
    memcpy(member->disk_id, join->disk_id, CLUSTER_ID_BYTES);
    memcpy(member->process_id, join->process_id, CLUSTER_ID_BYTES);
    member->format_min = join->format_min;
    member->format_max = join->format_max;
    return NULL;
}

static const char *fold_suspect(struct folding *f)
{
    struct members *m = f->members;
    struct member *by = up_member(m, f->record->by), *of = up_member(m, f->record->of);
    if (by == NULL)
        return "its accuser is not up in this life";
    if (of == NULL)
        return "it is not up in this life";
    if (by == of)
        return "nobody accuses itself";
    if (members_is_suspended(m, AUTOMATION_EVICTION, m->append_ms))
        return "eviction is suspended";
    if (f->record->kind == CONTROL_VOTE &&
        (of->suspicion == OFFSET_NONE || of->suspicion != f->record->suspicion))
        return "that suspicion does not stand";
    if (f->record->kind == CONTROL_SUSPECT) {
        if (of->suspicion != OFFSET_NONE)
            return "a suspicion stands";
        of->suspicion = f->offset;
        of->suspected_ms = m->now_ms;
        return NULL;
    }
    if (bit(of->votes, by->id.slot))
        return "it has voted";
    set_bit(of->votes, by->id.slot);
    return NULL;
}

static const char *fold_refute(struct folding *f)
{
    struct member *by = up_member(f->members, f->record->by);
    if (by == NULL)
        return "it is not up in this life";
    if (by->suspicion == OFFSET_NONE || by->suspicion != f->record->suspicion)
        return "that suspicion does not stand";
    by->claims += by->is_claimed && by->claims < MEMBERS_CLAIMS_MAX;
    by->is_claimed = false;
    by->suspicion = OFFSET_NONE;
    by->suspected_ms = 0;
    memset(by->votes, 0, sizeof by->votes);
    return NULL;
}

static const char *fold_evict(struct folding *f)
{
    struct members *m = f->members;
    struct member *by = up_member(m, f->record->by), *of = up_member(m, f->record->of);
    if (by == NULL || of == NULL || by == of)
        return "it, or who evicts it, is not up in this life";
    if (of->suspicion != f->record->suspicion || of->suspicion == OFFSET_NONE)
        return "that suspicion does not stand";
    if (!bit(of->votes, by->id.slot))
        return "who evicts has not voted";
    if (!members_may_evict(m, of, m->now_ms, m->append_ms))
        return "votes are lacking, or it is too early";
    life_ends(m, of, MEMBER_EVICTED, f->offset);
    m->evicted_ms = m->now_ms;
    return NULL;
}

static const char *fold_leave(struct folding *f)
{
    struct member *by = up_member(f->members, f->record->by);
    if (by == NULL)
        return "it is not up in this life";
    switch (f->record->leaving) {
    case LEAVING_SOON:
        if (by->is_leaving)
            return "it has said so";
        by->is_leaving = true;
        return NULL;
    case LEAVING_HANDS_OVER:
        if (!by->is_leaving || by->hands_over)
            return "it has not said that it leaves, or has said this";
        by->hands_over = true;
        f->members->changed_at = f->offset;
        return NULL;
    case LEAVING_DONE:
        life_ends(f->members, by, MEMBER_LEFT, f->offset);
        return NULL;
    }
    return "it is no step of leaving";
}

static const char *fold_vacate(struct folding *f)
{
    struct members *m = f->members;
    struct member *of = member_of(m, f->record->of);
    if (up_member(m, f->record->by) == NULL)
        return "who asks is not up in this life";
    if (of == NULL || !members_may_vacate(m, of, m->now_ms, m->append_ms))
        return "it is up, or it is too early";
    slot_free(m, of, f->offset);
    m->vacated_since++;
    m->changed_at = f->offset;
    return NULL;
}

static const char *fold_remove(struct folding *f)
{
    struct members *m = f->members;
    struct member *of = member_of(m, f->record->of);
    if (of == NULL)
        return "there is no such node, or it has joined anew";
    if (f->record->removal == REMOVAL_GONE)
        slot_free(m, of, f->offset);
    else if (of->is_draining == (f->record->removal == REMOVAL_DRAIN))
        return "nothing changes";
    else
        of->is_draining = !of->is_draining;
    m->changed_at = f->offset;
    return NULL;
}

static const char *row_trouble(const struct members *m, const uint32_t *slots)
{
    for (uint32_t i = 0; i < m->init.replica_count; i++) {
        if (slots[i] == SLOT_NONE)
            continue;
        if (slots[i] >= m->member_count || m->members[slots[i]].status == MEMBER_NONE)
            return "a slot is free";
        for (uint32_t k = 0; k < i; k++)
            if (slots[k] == slots[i])
                return "a slot stands twice for a partition";
    }
    return NULL;
}

static bool is_empty(const uint32_t *slots, uint32_t width)
{
    for (uint32_t i = 0; i < width; i++)
        if (slots[i] != SLOT_NONE)
            return false;
    return true;
}

static const char *fold_assign(struct folding *f)
{
    struct members *m = f->members;
    const struct control_record *r = f->record;
    uint32_t width = m->init.replica_count;
    if (r->by.slot != SLOT_NONE && up_member(m, r->by) == NULL)
        return "who asks is not up in this life";
    if (r->assign.partition_count != m->init.partition_count || r->assign.replica_count != width)
        return "it is for other partitions";
    if (r->assign.based_on != m->changed_at && (m->plants & MEMBERS_PLANT_OLD_PLAN) == 0)
        return "members or assignment have changed since";
    if (m->assigned_at == OFFSET_NONE && m->joined_ever < m->init.expected_nodes && !r->assign.force)
        return "nodes are awaited";
    if (members_is_suspended(m, AUTOMATION_PLACEMENT, m->append_ms) && !r->assign.force)
        return "placement is suspended";
    for (uint32_t p = 0; p < m->init.partition_count; p++) {
        const uint32_t *slots = r->assign.slots + (size_t)p * width;
        const char *why = is_empty(slots, width) ? "a partition is given to nobody" : row_trouble(m, slots);
        if (why != NULL)
            return why;
    }
    memcpy(m->table, r->assign.slots, (size_t)m->init.partition_count * width * sizeof *m->table);
    m->assigned_at = m->changed_at = f->offset;
    m->vacated_since = 0;
    return NULL;
}

/* What was sent before the node was told something else does not count when it comes late. */
static const char *own_trouble(const struct folding *f, const struct member *by)
{
    const struct members *m = f->members;
    if (by == NULL)
        return "it is not up in this life";
    if (f->record->hold.answers != members_answers(m, by) && (m->plants & MEMBERS_PLANT_LATE_OWN) == 0)
        return "it answers what does not stand any more";
    return NULL;
}

static const char *fold_disown(struct folding *f)
{
    struct member *by = up_member(f->members, f->record->by);
    const char *why = own_trouble(f, by);
    if (why != NULL)
        return why;
    bool any = false;
    for (uint32_t i = 0; i < f->record->hold.count; i++) {
        uint32_t p = f->record->hold.partitions[i];
        if (p >= f->members->init.partition_count || !bit(by->owns, p))
            continue;
        clear_bit(by->owns, p);
        any = true;
    }
    if (any)
        by->held_at = f->offset;
    return any ? NULL : "it owns none of them";
}

static const char *fold_own(struct folding *f)
{
    struct member *by = up_member(f->members, f->record->by);
    const char *why = own_trouble(f, by);
    if (why != NULL)
        return why;
    bool any = false;
    for (uint32_t i = 0; i < f->record->hold.count; i++) {
        uint32_t p = f->record->hold.partitions[i];
        if (p >= f->members->init.partition_count || !members_is_assigned(f->members, p, by->id.slot))
            continue;
        any = any || !bit(by->owns, p);
        set_bit(by->owns, p);
    }
    if (any)
        by->held_at = f->offset;
    return any ? NULL : "none of them is assigned to it, or it owns them";
}

bool members_all_assigned_own(const struct members *m, uint32_t partition)
{
    const uint32_t *slots = members_assigned(m, partition);
    bool any = false;
    for (uint32_t i = 0; slots != NULL && i < m->init.replica_count; i++) {
        if (slots[i] == SLOT_NONE)
            continue;
        if (!bit(m->members[slots[i]].owns, partition))
            return false;
        any = true;
    }
    return any;
}

/* Members that changed since the assignment may have left gaps in it: first it is made anew. */
static bool may_drop(const struct members *m, uint32_t partition)
{
    return m->changed_at == m->assigned_at && members_all_assigned_own(m, partition);
}

static const char *fold_drop(struct folding *f)
{
    struct members *m = f->members;
    struct member *by = up_member(m, f->record->by);
    if (by == NULL)
        return "it is not up in this life";
    bool any = false;
    for (uint32_t i = 0; i < f->record->hold.count; i++) {
        uint32_t p = f->record->hold.partitions[i];
        if (p >= m->init.partition_count || !bit(by->owns, p) || members_is_assigned(m, p, by->id.slot) ||
            (!may_drop(m, p) && (m->plants & MEMBERS_PLANT_DROP_EARLY) == 0))
            continue;
        clear_bit(by->owns, p);
        any = true;
    }
    return any ? NULL : "it owns none of them, or is needed yet";
}

static const char *fold_suspend(struct folding *f)
{
    struct members *m = f->members;
    struct suspension *s = &m->suspensions[f->record->suspend.automation];
    uint64_t duration_ms = f->record->suspend.duration_ms;
    if (duration_ms > (uint64_t)365 * 86400000)
        return "a suspension ends within a year";
    *s =
        (struct suspension){ .until_ms = duration_ms == 0 ? INT64_MIN : m->append_ms + (int64_t)duration_ms };
    put_text(s->owner, f->record->suspend.owner);
    put_text(s->reason, f->record->suspend.reason);
    return NULL;
}

static const char *fold_set(struct folding *f)
{
    struct members *m = f->members;
    uint32_t before_ms = members_suspect_age_ms(m);
    bool is_lowered = f->record->settings.suspect_age_ms < before_ms;
    m->settings = f->record->settings;
    if (is_lowered && (m->plants & MEMBERS_PLANT_SET_AT_ONCE) == 0) {
        m->former_age_ms = before_ms; /* who is cut off has not read it yet, and decides for so long */
        m->former_until_ms =
            m->now_ms + MEMBERS_STEP_MS + before_ms; /* a SET takes no time: it may be later */
    }
    return NULL;
}

static const char *fold_noop(struct folding *f) { return NULL; }

/* ---- folding ---- */

/* Time goes on, by what nobody can have been up for without saying something. */
static void take_time(struct folding *f)
{
    struct members *m = f->members;
    bool is_join = f->record->kind == CONTROL_JOIN;
    if (f->append_ms <= -MEMBERS_TIME_MS_MAX || f->append_ms >= MEMBERS_TIME_MS_MAX)
        return; /* no time */
    m->append_ms = f->append_ms;
    if (!is_join && up_member(m, f->record->by) == NULL)
        return;
    int64_t step_ms = m->heard_ms == INT64_MIN ? 0 : f->append_ms - m->heard_ms;
    bool is_leap = m->heard_ms == INT64_MIN || step_ms > MEMBERS_STEP_MS || step_ms < -MEMBERS_STEP_MS;
    bool has_passed = !is_leap || (m->plants & MEMBERS_PLANT_LEAPS) != 0 ||
                      ((m->plants & MEMBERS_PLANT_NO_RESUMPTION) != 0 && members_up_count(m) == 0);
    if (has_passed && step_ms > 0)
        m->now_ms += step_ms;
    if (is_leap && is_join && (m->plants & MEMBERS_PLANT_NO_RESUMPTION) == 0)
        m->resumed_ms = m->now_ms;
    m->heard_ms = f->append_ms;
    f->has_taken_time = true;
}

static const char *fold(struct folding *f)
{
    static const char *(*const table[CONTROL_KIND_END])(struct folding *) = {
        [CONTROL_INIT] = fold_init,     [CONTROL_NOOP] = fold_noop,       [CONTROL_JOIN] = fold_join,
        [CONTROL_REFUTE] = fold_refute, [CONTROL_SUSPECT] = fold_suspect, [CONTROL_VOTE] = fold_suspect,
        [CONTROL_EVICT] = fold_evict,   [CONTROL_LEAVE] = fold_leave,     [CONTROL_VACATE] = fold_vacate,
        [CONTROL_REMOVE] = fold_remove, [CONTROL_ASSIGN] = fold_assign,   [CONTROL_OWN] = fold_own,
        [CONTROL_DROP] = fold_drop,     [CONTROL_SUSPEND] = fold_suspend, [CONTROL_SET] = fold_set,
        [CONTROL_DISOWN] = fold_disown,
    };
    const struct members *m = f->members;
    if (!m->is_begun && f->record->kind != CONTROL_INIT)
        return "the cluster has not begun";
    if (m->is_begun && memcmp(m->cluster_id, f->record->cluster_id, CLUSTER_ID_BYTES) != 0)
        return "it is another cluster's";
    take_time(f);
    return table[f->record->kind](f);
}

err members_apply(struct members *members, uint64_t offset, int64_t append_ms, struct slice bytes,
                  struct members_change *out_change)
{
    check(offset >= members->epoch);
    struct control_record record = { 0 };
    struct folding f = { .members = members, .offset = offset, .append_ms = append_ms, .record = &record };
    const char *why = "it is not a record";
    int64_t now_ms = members->now_ms, heard_ms = members->heard_ms, resumed_ms = members->resumed_ms,
            last_ms = members->append_ms;
    pool_reset(members->scratch);
    err e = control_record_decode(bytes, members->scratch, &record);
    bool is_foreign =
        members->is_begun && memcmp(record.cluster_id, members->cluster_id, CLUSTER_ID_BYTES) != 0;
    if (e == ERR_LIMIT || (e == ERR_VERSION && !is_foreign))
        return e;
    if (e == OK)
        why = fold(&f);
    if (f.failed != OK) {
        members->now_ms = now_ms;
        members->heard_ms = heard_ms;
        members->resumed_ms = resumed_ms;
        members->append_ms = last_ms;
        return f.failed;
    }
    members->epoch = offset + 1;
    *out_change = (struct members_change){
        .kind = record.kind, .counted = why == NULL, .why = why, .has_taken_time = f.has_taken_time
    };
    if (record.kind == CONTROL_JOIN)
        memcpy(out_change->process_id, record.join.process_id, CLUSTER_ID_BYTES);
    return OK;
}

err members_open(struct pool *pool, struct members **out_members)
{
    struct pool *own;
    void *at;
    TRY(pool_open_object(pool, "members", sizeof(struct members), &own, &at));
    struct members *m = at;
    *m = (struct members){ .pool = own,
                           .scratch = pool_open(own, "record", POOL_BYTES_UNLIMITED),
                           .changed_at = OFFSET_NONE,
                           .freed_at = OFFSET_NONE,
                           .assigned_at = OFFSET_NONE,
                           .heard_ms = INT64_MIN,
                           .resumed_ms = INT64_MIN,
                           .evicted_ms = INT64_MIN };
    for (int i = 0; i < AUTOMATION_END; i++)
        m->suspensions[i].until_ms = INT64_MIN;
    *out_members = m;
    return OK;
}

void members_close(struct members *members)
{
    if (members == NULL)
        return;
    pool_close(members->scratch);
    pool_close(members->pool);
}
