/* See core.h. Records come from the control log's reader, probes and their answers from other nodes, readiness
 * from shards; effects go to the node's loop, which does them and forgets them.
 *
 * Invariants  1. What is wanted is derived from the fold, from who was heard and from what is open, at every
 * step anew; stored is
 *     only when each wish was last spoken.
 *  2. Nothing is proposed before the log was read to a confirmed end, and nothing about others while this node
 * hears
 *     less than half of those that are up: whose own line is cut takes everybody for dead.
 *  3. A partition is open while this node is up and it is assigned or owned. Opening comes before owning,
 * owning elsewhere before dropping
 *     here, dropping before closing: at no time has nobody what somebody had. */
#include "cluster/core.h"

#include "base/check.h"
#include "base/time.h"
#include "cluster/core_inside.h"
#include "cluster/placement.h"

#include <string.h>

/* ---- the view ---- */

const struct members *core_members(const struct core *core) { return core->members; }

/* This node's entry while this process is its life, whatever became of it. */
static const struct member *self_entry(const struct core *core)
{
    const struct member *m = members_find(core->members, slice_str(core->name));
    return m != NULL && memcmp(m->process_id, core->config.self.process_id, CLUSTER_ID_BYTES) == 0 ? m : NULL;
}

const struct member *core_self_up(const struct core *core)
{
    const struct member *m = self_entry(core);
    return m != NULL && m->status == MEMBER_UP ? m : NULL;
}

bool core_self(const struct core *core, struct member_id *out_id)
{
    const struct member *m = core_self_up(core);
    if (m != NULL)
        *out_id = m->id;
    return m != NULL;
}

int64_t core_suspect_age_ns(const struct core *core)
{
    return (int64_t)members_suspect_age_ms(core->members) * NS_PER_MS;
}

/* The log's time by now, were a record appended: it went on since the last one. Slow readers think it earlier than
 * it is, never later. */
int64_t core_log_now_ms(const struct core *core, int64_t now_ns)
{
    int64_t since_ms = core->heard_ns == INT64_MIN ? 0 : (now_ns - core->heard_ns) / NS_PER_MS;
    return members_now_ms(core->members) + (since_ms <= MEMBERS_STEP_MS ? since_ms : 0);
}

static int64_t append_now_ms(const struct core *core, int64_t now_ns)
{
    return members_append_ms(core->members) + (now_ns - core->record_ns) / NS_PER_MS;
}

/* Who has been cut off from the log stops before anybody may put it out: that takes a suspicion that has stood
 * for the suspect age; the age that was set last, or a former one that was longer, and this node may know the
 * former one only. Who comes back to find that suspicion waits until it is refuted. */
bool core_may_decide(const struct core *core, int64_t now_ns)
{
    const struct member *self = core_self_up(core);
    int64_t age_ms = members_settings(core->members)->suspect_age_ms;
    if ((core->plants & CORE_PLANT_DECIDE_ALWAYS) != 0)
        return self != NULL;
    return self != NULL && core->known_ns != INT64_MIN && now_ns - core->known_ns < age_ms * NS_PER_MS &&
           (self->suspicion == UINT64_MAX || core_log_now_ms(core, now_ns) - self->suspected_ms < age_ms / 2);
}

const char *core_trouble(const struct core *core) { return core->trouble; }

static int64_t silence_ns(const struct core *core, int64_t now_ns, uint32_t slot)
{
    const struct member *m = members_at(core->members, slot);
    const struct neighbour *n = &core->neighbours[slot];
    return n->incarnation == m->id.incarnation ? now_ns - n->heard_ns : 0;
}

bool core_is_silent(const struct core *core, int64_t now_ns, uint32_t slot)
{
    const struct member *self = core_self_up(core);
    return (self == NULL || self->id.slot != slot) &&
           silence_ns(core, now_ns, slot) >= CORE_SILENT_MS * NS_PER_MS;
}

/* 0: this node; 1: its zone; 2: elsewhere; and 3 more for who is silent or leaves. */
static unsigned distance(const struct core *core, int64_t now_ns, const struct member *m)
{
    const struct member *self = core_self_up(core);
    unsigned far = self == m ? 0 : strcmp(core->zone, m->zone) == 0 ? 1 : 2;
    return far + (core_is_silent(core, now_ns, m->id.slot) || m->is_leaving ? 3 : 0);
}

size_t core_route(const struct core *core, int64_t now_ns, uint32_t partition, uint32_t *out_slots,
                  size_t slots_max)
{
    size_t count = 0;
    for (unsigned far = 0; far < 6; far++)
        for (uint32_t i = 0; i < members_slot_count(core->members) && count < slots_max; i++) {
            const struct member *m = members_at(core->members, i);
            if (m->status == MEMBER_UP && member_owns(m, partition) && distance(core, now_ns, m) == far)
                out_slots[count++] = i;
        }
    return count;
}

uint32_t core_rank(const struct core *core, int64_t now_ns, uint32_t partition)
{
    const struct member *self = core_self_up(core);
    const uint32_t *slots = members_assigned(core->members, partition);
    uint32_t rank = 0;
    for (uint32_t i = 0; self != NULL && slots != NULL && i < members_init(core->members)->replica_count;
         i++) {
        if (slots[i] == self->id.slot)
            return member_owns(self, partition) ? rank : UINT32_MAX;
        rank += slots[i] != SLOT_NONE && member_owns(members_at(core->members, slots[i]), partition) &&
                !core_is_silent(core, now_ns, slots[i]);
    }
    return UINT32_MAX;
}

/* ---- events ---- */

/* A life that is new to this node is given time to be heard. */
static void meet_lives(struct core *core, int64_t now_ns)
{
    for (uint32_t i = 0; i < members_slot_count(core->members); i++) {
        const struct member *m = members_at(core->members, i);
        if (m->status == MEMBER_UP && core->neighbours[i].incarnation != m->id.incarnation)
            core->neighbours[i] = (struct neighbour){ .incarnation = m->id.incarnation,
                                                      .heard_ns = now_ns,
                                                      .probed_ns = INT64_MIN,
                                                      .accused_ns = INT64_MIN };
    }
}

err core_record(struct core *core, int64_t now_ns, uint64_t offset, int64_t append_ms, struct slice bytes)
{
    struct members_change change;
    bool was_member = self_entry(core) != NULL;
    if ((core->plants & CORE_PLANT_OWN_CLOCK) != 0)
        append_ms = now_ns / NS_PER_MS;
    TRY(members_apply(core->members, offset, append_ms, bytes, &change));
    core->is_removed =
        core->is_removed || (was_member && self_entry(core) == NULL && change.kind == CONTROL_REMOVE);
    core->record_ns = now_ns;
    if (change.has_taken_time)
        core->heard_ns = now_ns;
    if (core->changed_at != members_changed_at(core->members)) {
        core->changed_at = members_changed_at(core->members);
        core->changed_ns = now_ns;
    }
    core->has_joined = core->has_joined || core_self_up(core) != NULL;
    if (core_self_up(core) != NULL)
        core->trouble = NULL;
    else if (change.kind == CONTROL_JOIN && !change.counted &&
             memcmp(change.process_id, core->config.self.process_id, CLUSTER_ID_BYTES) == 0)
        core->trouble = change.why;
    meet_lives(core, now_ns);
    return OK;
}

void core_at_end(struct core *core, int64_t asked_ns)
{
    if (asked_ns > core->known_ns)
        core->known_ns = asked_ns;
}

void core_heard(struct core *core, int64_t now_ns, struct member_id id)
{
    if (id.slot >= members_slot_count(core->members) ||
        core->neighbours[id.slot].incarnation != id.incarnation)
        return;
    core->neighbours[id.slot].heard_ns = now_ns;
    core->neighbours[id.slot].accusations = 0;
    core->neighbours[id.slot].has_answered = true;
}

void core_ready(struct core *core, uint32_t partition, bool is_ready)
{
    check(partition < CLUSTER_PARTITIONS_MAX);
    core->is_ready[partition] = is_ready && core->is_open[partition];
}

void core_leave(struct core *core, int64_t now_ns)
{
    if (!core->is_leaving)
        core->leaving_ns = now_ns;
    core->is_leaving = true;
}

void core_plant(struct core *core, unsigned plants)
{
    core->plants = plants;
    members_plant(core->members, plants);
}

/* ---- effects ---- */

struct core_effect *core_effect_add(struct core *core, enum core_effect_kind kind)
{
    void *block = core->effects;
    err e = pool_block_reserve(core->pool, &block, sizeof *core->effects, core->effect_count + 1,
                               &core->effect_capacity);
    if (e != OK) {
        core->failed = e;
        return NULL;
    }
    core->effects = block;
    core->effects[core->effect_count] = (struct core_effect){ .kind = kind };
    return &core->effects[core->effect_count++];
}

/* A record of this cluster, by this node if it is up. */
struct control_record core_speak(const struct core *core, enum control_kind kind)
{
    struct control_record record = { .kind = kind, .by = { .slot = SLOT_NONE } };
    const struct member *self = core_self_up(core);
    memcpy(record.cluster_id, members_cluster_id(core->members), CLUSTER_ID_BYTES);
    if (self != NULL)
        record.by = self->id;
    return record;
}

void core_append(struct core *core, const struct control_record *record)
{
    struct buf out = buf_open(core->scratch, CONTROL_RECORD_BYTES_MAX);
    control_record_encode(record, &out);
    struct slice bytes;
    err e = buf_err(&out);
    if (e == OK)
        e = pool_copy(core->scratch, buf_slice(&out), &bytes);
    buf_close(&out);
    struct core_effect *one = e == OK ? core_effect_add(core, CORE_APPEND) : NULL;
    if (one != NULL)
        one->bytes = bytes;
    else if (e != OK)
        core->failed = e;
}

/* Has the wish not been spoken lately? Then it is now. */
bool core_may_speak(struct core *core, int64_t now_ns, enum wish wish)
{
    if (core->spoken_ns[wish] != INT64_MIN && now_ns - core->spoken_ns[wish] < CORE_RETRY_MS * NS_PER_MS)
        return false;
    core->spoken_ns[wish] = now_ns;
    return true;
}

void core_stop(struct core *core, const char *why, enum core_end end)
{
    struct core_effect *last = core_effect_add(core, CORE_STOP);
    if (last == NULL)
        return;
    last->why = why;
    last->end = end;
    core->has_ended = true;
}

/* ---- others ---- */

void core_probe(struct core *core, int64_t now_ns, const struct member *m)
{
    struct neighbour *n = &core->neighbours[m->id.slot];
    if (n->probed_ns != INT64_MIN && now_ns - n->probed_ns < CORE_PROBE_MS * NS_PER_MS)
        return;
    struct core_effect *one = core_effect_add(core, CORE_PROBE);
    if (one == NULL)
        return;
    one->member = m;
    n->probed_ns = now_ns;
}

static bool hears_most(const struct core *core, int64_t now_ns)
{
    uint32_t heard = 0;
    for (uint32_t i = 0; i < members_slot_count(core->members); i++)
        heard += members_at(core->members, i)->status == MEMBER_UP && !core_is_silent(core, now_ns, i);
    return 2 * heard >= members_up_count(core->members);
}

/* Silence for a third of the age raises the suspicion, silence for the whole of it confirms it; that it has
 * stood for the age without being refuted is for the fold to say. */
static void accuse(struct core *core, int64_t now_ns, const struct member *self, const struct member *of)
{
    struct neighbour *n = &core->neighbours[of->id.slot];
    int64_t silent_ns = silence_ns(core, now_ns, of->id.slot), age_ns = core_suspect_age_ns(core);
    int64_t spoken_ns = n->accused_ns == INT64_MIN ? INT64_MAX : now_ns - n->accused_ns;
    struct control_record record = core_speak(core, CONTROL_SUSPECT);
    record.of = of->id;
    if (of->suspicion == UINT64_MAX) {
        unsigned doublings = n->accusations > 5 ? 5 : n->accusations; /* it refutes, and is not heard here */
        if (silent_ns < age_ns / 3 || spoken_ns < (age_ns / 3) << doublings)
            return;
        n->accusations++;
        record.silent_ms = (uint32_t)(silent_ns / NS_PER_MS);
    } else {
        bool is_voter = member_is_accused_by(of, self->id.slot);
        if (silent_ns < age_ns || spoken_ns < CORE_RETRY_MS * NS_PER_MS ||
            (is_voter && !members_may_evict(core->members, of, core_log_now_ms(core, now_ns),
                                            append_now_ms(core, now_ns))))
            return;
        record.kind = is_voter ? CONTROL_EVICT : CONTROL_VOTE;
        record.suspicion = of->suspicion;
    }
    n->accused_ns = now_ns;
    core_append(core, &record);
}

static void step_others(struct core *core, int64_t now_ns, const struct member *self)
{
    bool may_accuse = hears_most(core, now_ns) && core_may_decide(core, now_ns) &&
                      !members_is_suspended(core->members, AUTOMATION_EVICTION, append_now_ms(core, now_ns));
    for (uint32_t i = 0; i < members_slot_count(core->members); i++) {
        const struct member *m = members_at(core->members, i);
        if (m->status != MEMBER_UP || m == self)
            continue;
        core_probe(core, now_ns, m);
        if (may_accuse)
            accuse(core, now_ns, self, m);
    }
    if (self->suspicion != UINT64_MAX && core_may_speak(core, now_ns, WISH_REFUTE)) {
        struct control_record record = core_speak(core, CONTROL_REFUTE);
        record.suspicion = self->suspicion;
        core_append(core, &record);
    }
}

/* ---- slots and assignment ---- */

/* How many of those that are up and not silent come before this node: each waits for them. */
static int64_t turn_ns(const struct core *core, int64_t now_ns, const struct member *self)
{
    int64_t before = 0;
    for (uint32_t i = 0; i < self->id.slot; i++)
        before += members_at(core->members, i)->status == MEMBER_UP && !core_is_silent(core, now_ns, i);
    return before * CORE_RANK_MS * NS_PER_MS;
}

/* Something waits for the log's time to pass: somebody has to say that it is up. */
static void make_time_pass(struct core *core, int64_t now_ns, const struct member *self)
{
    struct control_record record = core_speak(core, CONTROL_NOOP);
    int64_t pause_ns = CORE_TIME_MS * NS_PER_MS + turn_ns(core, now_ns, self);
    if (members_await_time(core->members) &&
        (core->heard_ns == INT64_MIN || now_ns - core->heard_ns >= pause_ns) &&
        core_may_speak(core, now_ns, WISH_TIME))
        core_append(core, &record);
}

static void vacate(struct core *core, int64_t now_ns, const struct member *self)
{
    int64_t log_ms = core_log_now_ms(core, now_ns), append_ms = append_now_ms(core, now_ns);
    bool any = false;
    for (uint32_t i = 0; i < members_slot_count(core->members); i++) {
        const struct member *m = members_at(core->members, i);
        if (!members_may_vacate(core->members, m, log_ms, append_ms))
            continue;
        any = true;
        if (core->vacate_ns == INT64_MAX)
            core->vacate_ns = now_ns;
        if (now_ns - core->vacate_ns < turn_ns(core, now_ns, self) ||
            !core_may_speak(core, now_ns, WISH_VACATE))
            continue;
        struct control_record record = core_speak(core, CONTROL_VACATE);
        record.of = m->id;
        core_append(core, &record);
    }
    if (!any)
        core->vacate_ns = INT64_MAX;
}

static void assign(struct core *core, int64_t now_ns, const struct member *self)
{
    if (!members_is_assignment_due(core->members) ||
        members_is_suspended(core->members, AUTOMATION_PLACEMENT, append_now_ms(core, now_ns)) ||
        now_ns - core->changed_ns < CORE_SETTLE_MS * NS_PER_MS + turn_ns(core, now_ns, self) ||
        !core_may_speak(core, now_ns, WISH_ASSIGN))
        return;
    struct control_record record = core_speak(core, CONTROL_ASSIGN);
    uint32_t *slots;
    uint64_t placed;
    err e = members_plan(core->members, core->scratch, &slots, &placed);
    if (e == ERR_NOT_FOUND)
        return; /* everybody is drained */
    if (e != OK) {
        core->failed = e;
        return;
    }
    record.assign.based_on = members_changed_at(core->members);
    record.assign.partition_count = members_init(core->members)->partition_count;
    record.assign.replica_count = members_init(core->members)->replica_count;
    record.assign.slots = slots;
    core_append(core, &record);
}

/* ---- partitions ---- */

static void speak_of(struct core *core, int64_t now_ns, enum control_kind kind, const uint32_t *partitions,
                     uint32_t count)
{
    struct control_record record = core_speak(core, kind);
    enum wish wish = kind == CONTROL_OWN ? WISH_OWN : kind == CONTROL_DROP ? WISH_DROP : WISH_DISOWN;
    if (count == 0 || !core_may_speak(core, now_ns, wish))
        return;
    record.hold.answers = members_answers(core->members, core_self_up(core));
    record.hold.partitions = partitions;
    record.hold.count = count;
    core_append(core, &record);
}

/* Is the partition owned here without need, for long enough? */
static bool may_drop(struct core *core, int64_t now_ns, const struct member *self, uint32_t p)
{
    bool is_spare = member_owns(self, p) && !members_is_assigned(core->members, p, self->id.slot) &&
                    members_all_assigned_own(core->members, p);
    if (!is_spare)
        core->spare_ns[p] = INT64_MAX;
    else if (core->spare_ns[p] == INT64_MAX)
        core->spare_ns[p] = now_ns;
    return is_spare && now_ns - core->spare_ns[p] >= CORE_GRACE_MS * NS_PER_MS;
}

static void step_partitions(struct core *core, int64_t now_ns, const struct member *self)
{
    uint32_t own[CLUSTER_PARTITIONS_MAX], drop[CLUSTER_PARTITIONS_MAX], disown[CLUSTER_PARTITIONS_MAX];
    uint32_t own_count = 0, drop_count = 0, disown_count = 0;
    for (uint32_t p = 0; p < members_init(core->members)->partition_count; p++) {
        bool is_assigned = members_is_assigned(core->members, p, self->id.slot),
             is_owner = member_owns(self, p);
        bool is_wanted = is_assigned || is_owner;
        struct core_effect *change = is_wanted == (core->is_open[p] != 0)
                                         ? NULL
                                         : core_effect_add(core, is_wanted ? CORE_OPEN : CORE_CLOSE);
        if (change != NULL) {
            change->partition = p;
            core->is_open[p] = is_wanted;
            core->is_ready[p] = false;
        }
        if (is_assigned && !is_owner && core->is_ready[p])
            own[own_count++] = p;
        if (may_drop(core, now_ns, self, p))
            drop[drop_count++] = p;
        if (is_owner && core->is_open[p] && !core->is_ready[p] && (core->plants & CORE_PLANT_KEEP_OWN) == 0)
            disown[disown_count++] = p;
    }
    speak_of(core, now_ns, CONTROL_DISOWN, disown, disown_count);
    if (disown_count == 0) /* one of the two would not answer the other */
        speak_of(core, now_ns, CONTROL_OWN, own, own_count);
    speak_of(core, now_ns, CONTROL_DROP, drop, drop_count);
}

/* ---- the step ---- */

err core_step(struct core *core, int64_t now_ns, const struct core_effect **out_effects, size_t *out_count)
{
    pool_reset(core->scratch);
    core->effect_count = 0;
    core->failed = OK;
    bool has_begun = core->known_ns != INT64_MIN;
    if (!core->has_ended && core_must_end(core, now_ns))
        core_stop(core,
                  has_begun ? "it has stopped without leaving the cluster: the control log did not answer"
                            : "it has stopped before it joined the cluster",
                  CORE_LEFT);
    if (!core->has_ended && has_begun && !core_step_self(core, now_ns)) {
        const struct member *self = core_self_up(core);
        step_others(core, now_ns, self);
        make_time_pass(core, now_ns, self);
        vacate(core, now_ns, self);
        assign(core, now_ns, self);
        step_partitions(core, now_ns, self);
    }
    struct core_effect *trouble =
        core->has_ended || core->trouble == core->told ? NULL : core_effect_add(core, CORE_TROUBLE);
    if (trouble != NULL)
        trouble->why = core->told = core->trouble;
    *out_effects = core->effects;
    *out_count = core->effect_count;
    return core->failed;
}

/* ---- open ---- */

static struct slice keep_text(char *to, size_t bytes_max, struct slice text)
{
    check(text.len <= bytes_max);
    memcpy(to, text.at, text.len);
    to[text.len] = 0;
    return slice_of(to, text.len);
}

err core_open(const struct core_config *config, struct pool *pool, struct core **out_core)
{
    struct pool *own;
    void *at;
    TRY(pool_open_object(pool, "cluster", sizeof(struct core), &own, &at));
    struct core *core = at;
    core->pool = own;
    err e = members_open(own, &core->members);
    if (e != OK) {
        pool_close(own);
        return e;
    }
    core->scratch = pool_open(own, "effects", POOL_BYTES_UNLIMITED);
    core->config = *config;
    if (config->init != NULL) {
        core->init = *config->init;
        core->config.init = &core->init;
    }
    core->config.self.name = keep_text(core->name, CLUSTER_NAME_BYTES_MAX, config->self.name);
    core->config.self.zone = keep_text(core->zone, CLUSTER_NAME_BYTES_MAX, config->self.zone);
    core->config.self.address = keep_text(core->address, CLUSTER_ADDRESS_BYTES_MAX, config->self.address);
    core->known_ns = core->joining_ns = core->heard_ns = INT64_MIN;
    core->vacate_ns = INT64_MAX;
    core->changed_at = core->holder = UINT64_MAX;
    for (int i = 0; i < WISH_COUNT; i++)
        core->spoken_ns[i] = INT64_MIN;
    for (int p = 0; p < CLUSTER_PARTITIONS_MAX; p++)
        core->spare_ns[p] = INT64_MAX;
    for (int i = 0; i < CLUSTER_NODES_MAX; i++)
        core->neighbours[i].incarnation = UINT64_MAX;
    *out_core = core;
    return OK;
}

void core_close(struct core *core)
{
    if (core == NULL)
        return;
    members_close(core->members);
    pool_close(core->scratch);
    pool_close(core->pool);
}
