/* How a node becomes a member and ceases to be one: it begins the cluster, joins it, claims a name whose
 * holder is gone, hands over what nobody else has, leaves. Asked by core.c at every step; what it wants goes
 * into the control log like everything else.
 *
 * Invariants: 1. A JOIN is appended only if the fold as it is known would count it, or take it as a claim: a
 * process that cannot join costs the log nothing, however often it is started. 2. Whoever stops says why. 3. A
 * node that leaves ends within CORE_END_MS, whatever else happens. */
#include "cluster/core.h"

#include "base/time.h"
#include "cluster/core_inside.h"

#include <string.h>

static void begin_cluster(struct core *core, int64_t now_ns)
{
    struct control_record record = { .kind = CONTROL_INIT };
    if (core->config.init == NULL || !core_may_speak(core, now_ns, WISH_INIT))
        return;
    memcpy(record.cluster_id, core->config.init_id, CLUSTER_ID_BYTES);
    record.init = core->init;
    core_append(core, &record);
}

void core_join(struct core *core) { core->config.holds_back = false; }

static bool is_zero(const uint8_t id[CLUSTER_ID_BYTES])
{
    uint8_t any = 0;
    for (int i = 0; i < CLUSTER_ID_BYTES; i++)
        any |= id[i];
    return any == 0;
}

/* A life has ended: what was open for it is opened anew for the next, and is not ready before it says so
 * again. */
static void close_all(struct core *core)
{
    for (uint32_t p = 0; p < CLUSTER_PARTITIONS_MAX; p++) {
        struct core_effect *change = core->is_open[p] ? core_effect_add(core, CORE_CLOSE) : NULL;
        if (change == NULL)
            continue;
        change->partition = p;
        core->is_open[p] = core->is_ready[p] = false;
    }
}

/* JOINs that are not seen are not repeated for ever at one pace: 2, 4, … 32 s. */
static int64_t join_pause_ns(const struct core *core)
{
    unsigned doublings = core->join_count > 6 ? 4 : core->join_count < 3 ? 0 : core->join_count - 2;
    return CORE_RETRY_MS * NS_PER_MS << doublings;
}

/* The log says that another process is up under this node's name. It is asked whether it is: if it answers,
 * this one stops, and the log hears nothing of it, however often a supervisor starts it. True: that is it for
 * now. */
static bool ask_holder(struct core *core, int64_t now_ns, const struct member *named)
{
    const struct neighbour *n = &core->neighbours[named->id.slot];
    bool is_same_disk = memcmp(named->disk_id, core->config.self.disk_id, CLUSTER_ID_BYTES) == 0;
    if (n->has_answered && now_ns - n->heard_ns < CORE_SILENT_MS * NS_PER_MS) {
        core_stop(core,
                  is_same_disk ? "another process is up with this node's name and data directory"
                               : "another node is up under this node's name",
                  CORE_FAILED);
        return true;
    }
    core_probe(core, now_ns, named);
    return now_ns - core->joining_ns < CORE_ASK_MS * NS_PER_MS;
}

/* A name that is held by another disk, and whose holder does not answer, is claimed by a JOIN: the holder
 * refutes in the log, or loses the name after the suspect age, for which the JOIN is repeated if nobody else
 * makes time pass. After each refuted claim to it the next waits twice as long, whichever process makes it. */
static bool may_claim(struct core *core, int64_t now_ns, const struct member *named)
{
    if (core->holder != named->id.incarnation) {
        core->holder = named->id.incarnation;
        core->claims = named->claims;
    }
    if (named->claims > core->claims) {
        core_stop(core, "another node is up under this node's name", CORE_FAILED);
        return false;
    }
    if (named->suspicion != UINT64_MAX)
        return core->heard_ns == INT64_MIN || now_ns - core->heard_ns >= CORE_TIME_MS * NS_PER_MS;
    unsigned doublings = named->claims > 7 ? 7 : named->claims;
    return doublings == 0 || now_ns - core->joining_ns >= core_suspect_age_ns(core) << doublings;
}

/* Only a JOIN that could count is appended. */
static void join(struct core *core, int64_t now_ns)
{
    struct control_record record = core_speak(core, CONTROL_JOIN);
    const struct member *named = members_find(core->members, slice_str(core->name));
    bool is_held = named != NULL && named->status == MEMBER_UP, is_final;
    if (core->joining_ns == INT64_MIN)
        core->joining_ns = now_ns;
    if (is_held && ask_holder(core, now_ns, named))
        return;
    record.join = core->config.self;
    record.join.read_to = members_epoch(core->members);
    const char *why =
        members_join_trouble(core->members, &record.join, core_log_now_ms(core, now_ns), &is_final);
    bool is_claim =
        why != NULL && is_held && memcmp(named->disk_id, core->config.self.disk_id, CLUSTER_ID_BYTES) != 0;
    core->trouble = why;
    if (why != NULL && !is_claim) {
        if (is_final || now_ns - core->joining_ns > 3 * core_suspect_age_ns(core))
            core_stop(core, why, CORE_FAILED);
        return;
    }
    if (is_claim && !may_claim(core, now_ns, named))
        return;
    int64_t pause_ns = is_held ? CORE_RETRY_MS * NS_PER_MS : join_pause_ns(core);
    if (core->spoken_ns[WISH_JOIN] != INT64_MIN && now_ns - core->spoken_ns[WISH_JOIN] < pause_ns)
        return;
    core->spoken_ns[WISH_JOIN] = now_ns;
    core->join_count++;
    core_append(core, &record);
}

/* ---- leaving ---- */

/* Can a partition be left to that node? */
static bool stays(const struct core *core, int64_t now_ns, uint32_t slot)
{
    const struct member *m = members_at(core->members, slot);
    return m != core_self_up(core) && m->status == MEMBER_UP && !m->is_leaving &&
           !core_is_silent(core, now_ns, slot);
}

enum heirs {
    HEIRS_OWN,      /* somebody who stays owns each partition that this node owns */
    HEIRS_ASSIGNED, /* … or is to own it */
    HEIRS_LACK,     /* a partition has nobody but this node */
    HEIRS_NONE,     /* nobody stays who could take anything */
};

static enum heirs heirs(const struct core *core, int64_t now_ns, const struct member *self)
{
    enum heirs worst = HEIRS_OWN;
    bool has_taker = false;
    uint32_t slot_count = members_slot_count(core->members);
    for (uint32_t i = 0; i < slot_count; i++)
        has_taker = has_taker || (stays(core, now_ns, i) && !members_at(core->members, i)->is_draining);
    for (uint32_t p = 0; p < members_init(core->members)->partition_count; p++) {
        bool is_owned = !member_owns(self, p), is_assigned = false;
        for (uint32_t i = 0; i < slot_count && !is_owned; i++) {
            if (!stays(core, now_ns, i))
                continue;
            is_owned = member_owns(members_at(core->members, i), p);
            is_assigned = is_assigned || members_is_assigned(core->members, p, i);
        }
        enum heirs here = is_owned ? HEIRS_OWN : is_assigned ? HEIRS_ASSIGNED : HEIRS_LACK;
        worst = here > worst ? here : worst;
    }
    return worst == HEIRS_LACK && !has_taker ? HEIRS_NONE : worst;
}

/* First the others are told, so that of two that leave together the later one knows that it is the last. */
static void leave(struct core *core, int64_t now_ns, const struct member *self)
{
    struct control_record record = core_speak(core, CONTROL_LEAVE);
    bool is_late = now_ns - core->leaving_ns >= CORE_LEAVE_MS * NS_PER_MS ||
                   (core->plants & CORE_PLANT_LEAVE_AT_ONCE) != 0;
    enum heirs left = heirs(core, now_ns, self);
    enum wish wish;
    if (is_late || (self->is_leaving && (left == HEIRS_OWN || left == HEIRS_NONE))) {
        record.leaving = LEAVING_DONE;
        wish = WISH_LEAVE;
    } else if (!self->is_leaving) {
        record.leaving = LEAVING_SOON;
        wish = WISH_LEAVING;
    } else if (left == HEIRS_LACK && !self->hands_over && !self->is_draining) {
        record.leaving = LEAVING_HANDS_OVER;
        wish = WISH_HAND_OVER;
    } else
        return;
    if (core_may_speak(core, now_ns, wish))
        core_append(core, &record);
}

/* Be up, or leave. True: there is nothing else to do. */
bool core_step_self(struct core *core, int64_t now_ns)
{
    if (members_init(core->members) == NULL && core->is_leaving) {
        core_stop(core, "it has stopped before it joined the cluster", CORE_LEFT);
        return true;
    }
    if (members_init(core->members) == NULL) {
        core->trouble = "the cluster has not begun";
        begin_cluster(core, now_ns);
        return true;
    }
    if (!is_zero(core->config.cluster_id) &&
        memcmp(core->config.cluster_id, members_cluster_id(core->members), CLUSTER_ID_BYTES) != 0) {
        core_stop(core, "the control log is another cluster's", CORE_FAILED);
        return true;
    }
    const struct member *self = core_self_up(core),
                        *named = members_find(core->members, slice_str(core->name));
    if (self != NULL) {
        core->joining_ns = INT64_MIN;
        core->join_count = 0;
        if (core->is_leaving)
            leave(core, now_ns, self);
        return false;
    }
    close_all(core);
    bool may_yet_join =
        core->join_count > 0 && now_ns - core->spoken_ns[WISH_JOIN] < CORE_RETRY_MS * NS_PER_MS;
    if (core->is_leaving && !may_yet_join)
        core_stop(core, "it has left the cluster", CORE_LEFT);
    else if (core->is_leaving)
        return true; /* its JOIN may count: then it leaves in order */
    else if (core->is_removed)
        core_stop(core, "the node was removed from the cluster", CORE_UNWANTED);
    else if (core->has_joined && named != NULL && named->status == MEMBER_UP)
        core_stop(core, "another process has joined under this node's name", CORE_UNWANTED);
    else if (!core->config.holds_back)
        join(core, now_ns);
    return true;
}

/* Leaving does not wait for a log that does not answer. */
bool core_must_end(const struct core *core, int64_t now_ns)
{
    return core->is_leaving && (core->plants & CORE_PLANT_WAIT_FOR_LOG) == 0 &&
           (core->known_ns == INT64_MIN || now_ns - core->leaving_ns >= CORE_END_MS * NS_PER_MS);
}
