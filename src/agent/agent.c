/* See agent.h. Records come from the control log's reader, what other threads have to say through a bounded inbox
 * under the lock; effects go to the log and to the owner's table of functions. What is decided is the core's.
 *
 * Invariants
 *   1. Nothing is told to the core as an end before a NOOP of this process was read back: what was decided before
 *      the process began is known before it wants anything.
 *   2. An end counts that an append of our own tells, acknowledged by all replicas in sync: a leader that was cut
 *      off together with this node could tell any other for ever. "Confirmed at" is when that append was handed
 *      over, or earlier.
 *   3. Effects are carried out before any other function of the core is called.
 *   4. What is kept has a bound: appends by their number, what was heard by slot, what was said by partition. A
 *      wish that finds no room is spoken again by the core.
 *   5. Of a partition's openings only what the latest says counts.
 *   6. Whatever a node may decide it may decide for a while (decides_until_ns): who is stopped, frozen or hangs
 *      need not hear that it is over. The while ends before anybody may have put the node out. */
#include "agent/agent.h"

#include "agent/agent_inside.h"
#include "base/check.h"
#include "base/diag.h"
#include "base/stat.h"
#include "base/time.h"

#include <string.h>

#define NOOP_BYTES_MAX 128
#define KNOWN_MS_MAX   10000 /* between two markers, at most */

/* ---- the end ---- */

/* It holds the partition no more: what it was allowed to do ends first. */
static void end_lease(struct agent *agent, uint32_t partition)
{
    if (agent->config.calls.rank != NULL)
        agent->config.calls.rank(agent->config.context, partition, UINT32_MAX, INT64_MIN);
}

static void end_leases(struct agent *agent)
{
    for (uint32_t p = 0; p < CLUSTER_PARTITIONS_MAX; p++)
        if (agent->openings[p] != 0)
            end_lease(agent, p);
}

static void stop(struct agent *agent, const char *why, enum core_end end)
{
    agent->has_ended = true;
    end_leases(agent);
    agent->config.calls.stop(agent->config.context, why, end);
}

static void wake(void *context)
{
    struct agent *agent = context;
    io_mutex_lock(&agent->lock);
    agent->is_woken = true;
    io_cond_signal(&agent->woken);
    io_mutex_unlock(&agent->lock);
}

/* ---- appends ---- */

static void on_done(struct log_append *append, err result, struct log_position position)
{
    struct agent_sending *s = append->context;
    struct agent *agent = s->agent;
    io_mutex_lock(&agent->lock);
    s->result = result;
    s->end = position.offset + (append->is_marker ? 0 : 1);
    s->is_done = true; /* from here on it is the agent's again */
    agent->is_woken = true;
    io_cond_signal(&agent->woken);
    io_mutex_unlock(&agent->lock);
}

static void refuse(struct agent *agent)
{
    agent->refused_count++;
    stat_add(STAT_AGENT_APPENDS_REFUSED, 1);
}

/* asked_ns: everything that was decided before is known once this is read back. A barrier or marker, of which one
 * is on its way at a time, has a place of its own: nothing else tells how far the log goes. */
static bool send(struct agent *agent, enum sending_kind kind, struct slice bytes, int64_t asked_ns)
{
    void *at = NULL;
    if ((kind == SENDING_RECORD && agent->sending_count >= AGENT_APPENDS_MAX) ||
        pool_block_resize(agent->pool, &at, sizeof(struct agent_sending) + bytes.len) != OK) {
        refuse(agent);
        return false;
    }
    struct agent_sending *s = at;
    *s =
        (struct agent_sending){ .agent = agent, .next = agent->sendings, .kind = kind, .asked_ns = asked_ns };
    if (bytes.len > 0)
        memcpy(s + 1, bytes.at, bytes.len);
    s->bytes = slice_of(s + 1, bytes.len);
    s->append = (struct log_append){ .parts = &s->bytes,
                                     .part_count = kind == SENDING_MARKER ? 0 : 1,
                                     .done = on_done,
                                     .context = s,
                                     .frees_space = true,
                                     .is_marker = kind == SENDING_MARKER };
    agent->sendings = s;
    agent->sending_count++;
    stat_add(STAT_AGENT_APPENDS, 1);
    log_append(agent->config.log, &s->append);
    return true;
}

bool agent_send_record(struct agent *agent, struct slice bytes)
{
    return send(agent, SENDING_RECORD, bytes, io_boottime_ns(agent->io));
}

/* Two ends at once need not be kept: the next marker tells another. */
static void settle(struct agent *agent, const struct agent_sending *s, int64_t now_ns)
{
    if (s->kind != SENDING_RECORD) {
        agent->is_asking = false;
        agent->retry_ns = now_ns + AGENT_RETRY_MS * NS_PER_MS;
    }
    if (s->result != OK)
        refuse(agent);
    else if (!agent->is_awaiting) {
        agent->is_awaiting = true;
        agent->await_end = s->end;
        agent->await_ns = s->asked_ns;
    }
}

static void settle_all(struct agent *agent, int64_t now_ns)
{
    struct agent_sending **at = &agent->sendings, *s;
    while ((s = *at) != NULL) {
        io_mutex_lock(&agent->lock);
        bool is_done = s->is_done;
        io_mutex_unlock(&agent->lock);
        if (!is_done) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        agent->sending_count--;
        settle(agent, s, now_ns);
        pool_block_free(agent->pool, s);
    }
}

/* ---- the inbox ---- */

static void say_ready(struct agent *agent, uint32_t partition, struct agent_said said)
{
    bool is_any = (agent->plants & AGENT_PLANT_OLD_OPENING) != 0 && agent->openings[partition] != 0;
    if (is_any || (said.opening != 0 && said.opening == agent->openings[partition]))
        core_ready(agent->core, partition, said.is_ready);
}

static void take_news(struct agent *agent, int64_t now_ns)
{
    for (uint32_t i = 0; i < CLUSTER_NODES_MAX; i++)
        if (agent->is_heard[i]) {
            agent->is_heard[i] = false;
            core_heard(agent->core, now_ns, agent->heard[i]);
        }
    for (uint32_t p = 0; p < CLUSTER_PARTITIONS_MAX; p++)
        if (agent->said[p].opening != 0) {
            say_ready(agent, p, agent->said[p]);
            agent->said[p].opening = 0;
        }
    agent->has_news = false;
}

static void take_inbox(struct agent *agent, int64_t now_ns)
{
    io_mutex_lock(&agent->lock);
    if (agent->has_news)
        take_news(agent, now_ns); /* the core takes microseconds */
    bool wants_to_leave = agent->wants_to_leave;
    if (agent->wants_to_join)
        core_join(agent->core);
    io_mutex_unlock(&agent->lock);
    if (wants_to_leave && !agent->is_leaving)
        core_leave(agent->core, now_ns);
    agent->is_leaving = agent->is_leaving || wants_to_leave;
}

void agent_heard(struct agent *agent, struct member_id id)
{
    if (id.slot >= CLUSTER_NODES_MAX)
        return;
    io_mutex_lock(&agent->lock);
    if (!agent->is_heard[id.slot] || agent->heard[id.slot].incarnation < id.incarnation)
        agent->heard[id.slot] = id;
    agent->is_heard[id.slot] = agent->has_news = true;
    io_mutex_unlock(&agent->lock);
}

void agent_ready(struct agent *agent, uint32_t partition, uint64_t opening, bool is_ready)
{
    check(partition < CLUSTER_PARTITIONS_MAX && opening > 0);
    io_mutex_lock(&agent->lock);
    if (opening >= agent->said[partition].opening)
        agent->said[partition] = (struct agent_said){ opening, is_ready };
    agent->has_news = agent->is_woken = true;
    io_cond_signal(&agent->woken);
    io_mutex_unlock(&agent->lock);
}

void agent_join(struct agent *agent)
{
    io_mutex_lock(&agent->lock);
    agent->wants_to_join = agent->is_woken = true;
    io_cond_signal(&agent->woken);
    io_mutex_unlock(&agent->lock);
}

void agent_leave(struct agent *agent)
{
    io_mutex_lock(&agent->lock);
    agent->wants_to_leave = agent->is_woken = true;
    io_cond_signal(&agent->woken);
    io_mutex_unlock(&agent->lock);
}

/* ---- records ---- */

/* Somebody may have read, before they went, what nobody can read any more: its fold and ours part here. */
static bool is_behind_hole(struct agent *agent)
{
    const struct log_record *record = &agent->record;
    uint64_t offset = record->position.offset;
    if (record->missing == 0)
        return false;
    diag(DIAG_ERROR, "Records of the control log are missing.", "from=%llu to=%llu",
         (unsigned long long)(offset - record->missing), (unsigned long long)offset);
    agent->missing_count += record->missing;
    stat_add(STAT_AGENT_RECORDS_DAMAGED, (int64_t)record->missing);
    stop(agent, "records of the control log are missing: nobody can tell what they decided", CORE_FAILED);
    return true;
}

/* Nobody can tell what it said; every node finds it so. */
static void name_damage(struct agent *agent, const struct log_record *record)
{
    if (!record->damaged)
        return;
    diag(DIAG_ERROR, "A record of the control log is damaged and passed over.", "offset=%llu",
         (unsigned long long)record->position.offset);
    agent->damaged_count++;
    stat_add(STAT_AGENT_RECORDS_DAMAGED, 1);
}

/* False: not now, or not any more. */
static bool fold(struct agent *agent, int64_t now_ns)
{
    const struct log_record *record = &agent->record;
    int64_t append_ms = record->t_ms == LOG_TIME_NONE ? 0 : record->t_ms;
    bool is_record = !record->damaged && !record->is_marker;
    if (is_behind_hole(agent))
        return false;
    err e =
        is_record ? core_record(agent->core, now_ns, record->position.offset, append_ms, record->bytes) : OK;
    if (e == ERR_LIMIT)
        return false; /* when there is memory again */
    agent->has_record = false;
    if (e != OK) {
        stop(agent, "the control log has a record of a newer version of Kelpie", CORE_FAILED);
        return false;
    }
    name_damage(agent, record);
    agent->record_count += is_record;
    stat_add(STAT_AGENT_RECORDS, is_record);
    agent->next = record->position.offset + 1;
    if (is_record && agent->barrier.len > 0 && slice_equal(record->bytes, buf_slice(&agent->barrier)))
        agent->is_known = true;
    return true;
}

static void read_records(struct agent *agent, int64_t now_ns)
{
    for (int i = 0; i < AGENT_RECORDS_A_STEP; i++) {
        err e = agent->has_record ? OK : log_reader_next(agent->reader, &agent->record);
        if (e == ERR_ORDER)
            stop(agent, "the control log went back: decisions that this process knew are gone", CORE_FAILED);
        if (e == ERR_NOT_FOUND)
            stop(agent, "records of the control log have expired: its retention must be for ever",
                 CORE_FAILED);
        if (e == ERR_END && (agent->plants & AGENT_PLANT_NO_BARRIER) != 0)
            agent->is_known = true;
        if (e != OK)
            return; /* nothing is there, or it could not be read: the next step tries again */
        agent->has_record = true;
        if (!fold(agent, now_ns))
            return;
    }
    wake(agent);
}

/* ---- how far the log goes ---- */

/* By no node, of whatever cluster this is: nothing but its being there matters. */
static err draw_barrier(struct agent *agent)
{
    struct control_record noop = { .kind = CONTROL_NOOP, .by = { .slot = SLOT_NONE } };
    memcpy(noop.cluster_id, agent->config.core.cluster_id, CLUSTER_ID_BYTES);
    io_random(agent->io, noop.nonce, sizeof noop.nonce);
    control_record_encode(&noop, &agent->barrier);
    err e = buf_err(&agent->barrier);
    if (e != OK)
        buf_clear(&agent->barrier);
    return e;
}

static void ask_barrier(struct agent *agent, int64_t now_ns)
{
    if (agent->barrier.len == 0) {
        if (draw_barrier(agent) != OK)
            return;
        agent->barrier_ns = now_ns;
    }
    agent->is_asking = send(agent, SENDING_BARRIER, buf_slice(&agent->barrier), agent->barrier_ns);
}

static int64_t suspect_age_ns(const struct agent *agent)
{
    return (int64_t)members_settings(core_members(agent->core))->suspect_age_ms * NS_PER_MS;
}

/* A third of the time after which this node may not decide any more without knowing the log. */
static int64_t known_pause_ns(const struct agent *agent)
{
    int64_t third_ns = suspect_age_ns(agent) / 3;
    return third_ns < KNOWN_MS_MAX * NS_PER_MS ? third_ns : KNOWN_MS_MAX * NS_PER_MS;
}

static void tell_end(struct agent *agent, int64_t asked_ns)
{
    core_at_end(agent->core, asked_ns);
    if (asked_ns > agent->known_ns)
        agent->known_ns = asked_ns;
}

static void ask_end(struct agent *agent, int64_t now_ns)
{
    struct member_id self;
    if (agent->is_asking || agent->is_awaiting || now_ns < agent->retry_ns)
        return;
    if (!agent->is_known)
        ask_barrier(agent, now_ns);
    else if (core_self(agent->core, &self) && now_ns - agent->known_ns >= known_pause_ns(agent))
        agent->is_asking = send(agent, SENDING_MARKER, slice_of(NULL, 0), now_ns);
}

static void confirm(struct agent *agent, int64_t now_ns)
{
    if (agent->is_known && agent->known_ns == INT64_MIN)
        tell_end(agent, agent->barrier.len == 0 ? now_ns : agent->barrier_ns);
    if (agent->is_awaiting && agent->next >= agent->await_end) {
        agent->is_awaiting = false; /* a barrier that was not met there is appended again */
        if (agent->is_known)
            tell_end(agent, agent->await_ns);
    }
    if (agent->is_known && (agent->plants & AGENT_PLANT_ANY_END) != 0)
        tell_end(agent, now_ns);
    if (agent->is_known && (agent->plants & AGENT_PLANT_TOLD_END) != 0) {
        struct log_watermarks w = log_watermarks(agent->config.log, 0);
        if (agent->next >= w.end_offset && w.confirmed_ns != INT64_MIN)
            tell_end(agent, w.confirmed_ns);
    }
    ask_end(agent, now_ns);
}

/* ---- how long what is so holds ---- */

/* A suspicion that this node knows it lets stand for half the age (core_may_decide): so much is left then. */
static int64_t lease_ns(const struct agent *agent)
{
    int64_t half_ns = suspect_age_ns(agent) / 2;
    return half_ns < AGENT_LEASE_MS * NS_PER_MS ? half_ns : AGENT_LEASE_MS * NS_PER_MS;
}

/* Nobody puts this node out but by a suspicion that has stood for the suspect age. Of those raised before known_ns
 * it knows; any other takes until known_ns + age. */
static int64_t safe_until_ns(const struct agent *agent, int64_t now_ns)
{
    if (agent->known_ns == INT64_MIN)
        return INT64_MIN;
    int64_t put_out_ns = agent->known_ns + suspect_age_ns(agent), late_ns = now_ns + lease_ns(agent);
    return put_out_ns < late_ns ? put_out_ns : late_ns;
}

/* Until then it is there for others. Not to be put out is all that it takes: one that leaves, or is suspected, has
 * to be heard. */
static int64_t here_until_ns(const struct agent *agent, int64_t now_ns)
{
    if (agent->has_ended)
        return INT64_MIN;
    return (agent->plants & AGENT_PLANT_HERE_ALWAYS) != 0 ? INT64_MAX : safe_until_ns(agent, now_ns);
}

/* Until then it cuts and commits. Whoever has read that this node leaves does not count on it any more, and it may
 * read that last: so it decides nothing from the moment on at which it is asked to leave. */
static int64_t decides_until_ns(const struct agent *agent, int64_t now_ns)
{
    bool leaves = agent->is_leaving && (agent->plants & AGENT_PLANT_LEAVE_LATE) == 0;
    if (agent->has_ended || leaves || !core_may_decide(agent->core, now_ns))
        return INT64_MIN;
    return (agent->plants & AGENT_PLANT_LONG_LEASE) != 0 ? INT64_MAX : safe_until_ns(agent, now_ns);
}

/* ---- effects ---- */

static void open_partition(struct agent *agent, uint32_t partition)
{
    agent->openings[partition] = ++agent->opening_count;
    agent->open_count++;
    agent->readiness[partition] = (struct readiness){ 0 };
    agent->config.calls.open_partition(agent->config.context, partition, agent->openings[partition]);
}

static void close_partition(struct agent *agent, uint32_t partition)
{
    agent->openings[partition] = 0;
    agent->open_count--;
    end_lease(agent, partition);
    agent->config.calls.close_partition(agent->config.context, partition);
}

static void take_effect(struct agent *agent, const struct core_effect *e, struct agent_probe *probe,
                        int64_t now_ns)
{
    const struct agent_calls *calls = &agent->config.calls;
    switch (e->kind) {
    case CORE_APPEND:
        send(agent, SENDING_RECORD, e->bytes, now_ns);
        break;
    case CORE_PROBE:
        probe->of = e->member->id;
        probe->address = e->member->address;
        calls->probe(agent->config.context, probe);
        break;
    case CORE_OPEN:
        open_partition(agent, e->partition);
        break;
    case CORE_CLOSE:
        close_partition(agent, e->partition);
        break;
    case CORE_TROUBLE:
        calls->trouble(agent->config.context, e->why);
        break;
    case CORE_STOP:
        stop(agent, e->why, e->end);
        break;
    }
}

static void decide(struct agent *agent, int64_t now_ns)
{
    const struct core_effect *effects;
    size_t count;
    struct agent_probe probe = { .self = { .slot = SLOT_NONE } };
    if (here_until_ns(agent, now_ns) > now_ns) /* else it asks as nobody, or it would look alive */
        core_self(agent->core, &probe.self);
    memcpy(probe.cluster_id, members_cluster_id(core_members(agent->core)), CLUSTER_ID_BYTES);
    probe.epoch = members_epoch(core_members(agent->core));
    ERR_IGNORE(
        core_step(agent->core, now_ns, &effects, &count)); /* ERR_LIMIT: the rest comes with the next */
    for (size_t i = 0; i < count; i++)
        take_effect(agent, &effects[i], &probe, now_ns);
}

/* ---- ranks and readiness ---- */

/* Is there another owner that answers and stays? They come before those that do not. */
static bool has_other_owner(const struct agent *agent, uint32_t partition, int64_t now_ns)
{
    uint32_t slots[2];
    struct member_id self = { .slot = SLOT_NONE };
    size_t count = core_route(agent->core, now_ns, partition, slots, 2);
    core_self(agent->core, &self);
    for (size_t i = 0; i < count; i++)
        if (slots[i] != self.slot && !core_is_silent(agent->core, now_ns, slots[i]) &&
            !members_at(core_members(agent->core), slots[i])->is_leaving)
            return true;
    return false;
}

/* No end is confirmed here any more. If that is so everywhere, one owner has to stay; if it is so here alone,
 * others know better: so one after the other gives up, each while it sees another one, who has read of it by its
 * own turn. */
static bool gives_up(const struct agent *agent, uint32_t partition, uint32_t rank, int64_t now_ns)
{
    int64_t turn = rank == UINT32_MAX ? 1 : 1 + 2 * (int64_t)rank;
    return now_ns - agent->readiness[partition].confirmed_ns > turn * AGENT_LOST_MS * NS_PER_MS &&
           has_other_owner(agent, partition, now_ns);
}

static void look_at(struct agent *agent, uint32_t partition, int64_t until_ns, int64_t now_ns)
{
    const struct agent_calls *calls = &agent->config.calls;
    uint32_t rank = core_rank(agent->core, now_ns, partition);
    if (calls->progress != NULL) {
        struct agent_progress progress =
            calls->progress(agent->config.context, partition, agent->openings[partition]);
        struct readiness *r = &agent->readiness[partition];
        if (readiness_look(r, &progress, now_ns) && gives_up(agent, partition, rank, now_ns))
            r->is_ready = false;
        core_ready(agent->core, partition, r->is_ready);
    }
    if (rank == UINT32_MAX) /* should all owners be gone, what is open goes on all the same */
        rank = members_init(core_members(agent->core))->replica_count;
    if (calls->rank != NULL)
        calls->rank(agent->config.context, partition, rank, until_ns);
}

static void look_at_partitions(struct agent *agent, int64_t now_ns)
{
    int64_t until_ns = decides_until_ns(agent, now_ns), pause_ns = lease_ns(agent) / 5;
    bool has_turned = (until_ns != INT64_MIN) != agent->view.may_decide; /* written by this thread alone */
    if (pause_ns > AGENT_RANK_MS * NS_PER_MS)
        pause_ns = AGENT_RANK_MS * NS_PER_MS;
    if (!has_turned && now_ns - agent->ranked_ns < pause_ns)
        return;
    agent->ranked_ns = now_ns;
    routes_take(agent->routes, agent->core, now_ns);
    for (uint32_t p = 0; p < CLUSTER_PARTITIONS_MAX; p++)
        if (agent->openings[p] != 0)
            look_at(agent, p, until_ns, now_ns);
}

/* ---- the view of others ---- */

static void publish(struct agent *agent, int64_t now_ns)
{
    const struct members *members = core_members(agent->core);
    const char *trouble = core_trouble(agent->core);
    struct agent_view view = { .self = { .slot = SLOT_NONE },
                               .epoch = members_epoch(members),
                               .up_count = members_up_count(members),
                               .open_count = agent->open_count,
                               .known_ns = agent->known_ns,
                               .has_ended = agent->has_ended,
                               .stepped_ns = now_ns,
                               .here_until_ns = here_until_ns(agent, now_ns),
                               .decides_until_ns = decides_until_ns(agent, now_ns),
                               .record_count = agent->record_count,
                               .damaged_count = agent->damaged_count,
                               .missing_count = agent->missing_count,
                               .refused_count = agent->refused_count };
    memcpy(view.cluster_id, members_cluster_id(members), CLUSTER_ID_BYTES);
    core_self(agent->core, &view.self);
    view.has_begun = members_init(members) != NULL;
    view.is_assigned = members_assigned(members, 0) != NULL;
    if (view.has_begun)
        view.init = *members_init(members);
    for (int i = AUTOMATION_PLACEMENT; i < AUTOMATION_END; i++) {
        int64_t left_ms = members_suspension(members, (enum control_automation)i)->until_ms;
        left_ms = left_ms == INT64_MIN ? 0 : left_ms - members_append_ms(members);
        view.suspended_ms[i] = left_ms > 0 ? left_ms : 0;
    }
    view.may_decide = view.decides_until_ns != INT64_MIN;
    for (size_t i = 0; trouble != NULL && trouble[i] != 0 && i < AGENT_WHY_BYTES_MAX - 1; i++)
        view.trouble[i] = trouble[i];
    io_mutex_lock(&agent->lock);
    agent->view = view;
    io_mutex_unlock(&agent->lock);
}

struct routes *agent_routes(struct agent *agent) { return agent->routes; }

uint32_t agent_other_owners(struct agent *agent, uint32_t partition, uint32_t out_slots[CLUSTER_REPLICAS_MAX],
                            uint32_t *out_self)
{
    uint32_t slots[CLUSTER_REPLICAS_MAX], others = 0;
    struct agent_view view;
    agent_view(agent, &view);
    size_t count = routes_of(agent_routes(agent), partition, slots);
    bool is_owner = false;
    for (size_t i = 0; i < count; i++) {
        is_owner = is_owner || slots[i] == view.self.slot;
        if (slots[i] != view.self.slot)
            out_slots[others++] = slots[i];
    }
    *out_self = view.self.slot;
    return is_owner ? others : 0;
}

void agent_view(struct agent *agent, struct agent_view *out_view)
{
    int64_t now_ns = io_boottime_ns(agent->io);
    io_mutex_lock(&agent->lock);
    *out_view = agent->view;
    io_mutex_unlock(&agent->lock);
    out_view->is_here = out_view->self.slot != SLOT_NONE && now_ns < out_view->here_until_ns;
}

bool agent_may_decide(struct agent *agent)
{
    int64_t now_ns = io_boottime_ns(agent->io);
    io_mutex_lock(&agent->lock);
    bool leaves = agent->wants_to_leave && (agent->plants & AGENT_PLANT_LEAVE_LATE) == 0;
    bool may = now_ns < agent->view.decides_until_ns && !leaves && !agent->is_closing;
    io_mutex_unlock(&agent->lock);
    return may;
}

bool agent_asked(struct agent *agent, struct member_id from, struct member_id of)
{
    struct agent_view view;
    agent_heard(agent, from);
    agent_view(agent, &view);
    return view.is_here && view.self.slot == of.slot && view.self.incarnation == of.incarnation;
}

/* ---- the step, its thread ---- */

bool agent_step(struct agent *agent)
{
    int64_t now_ns = io_boottime_ns(agent->io);
    if (agent->has_ended)
        return false;
    settle_all(agent, now_ns);
    take_inbox(agent, now_ns);
    read_records(agent, now_ns);
    if (!agent->has_ended)
        confirm(agent, now_ns);
    if (!agent->has_ended)
        decide(agent, now_ns);
    if (!agent->has_ended)
        look_at_partitions(agent, now_ns);
    agent_answer_questions(agent, now_ns);
    publish(agent, now_ns);
    return !agent->has_ended;
}

static void run(void *context)
{
    struct agent *agent = context;
    bool is_over = false;
    while (!is_over && agent_step(agent)) {
        io_mutex_lock(&agent->lock);
        if (!agent->is_woken && !agent->is_closing)
            io_cond_wait_for(&agent->woken, &agent->lock, AGENT_TICK_MS * NS_PER_MS);
        agent->is_woken = false;
        is_over = agent->is_closing;
        io_mutex_unlock(&agent->lock);
    }
}

err agent_run_thread(struct agent *agent)
{
    return io_thread_start(agent->io, "cluster", run, agent, &agent->thread);
}

void agent_plant(struct agent *agent, unsigned plants) { agent->plants = plants; }

/* ---- open and close ---- */

err agent_open(const struct agent_config *config, struct io *io, struct pool *pool, struct agent **out_agent)
{
    struct pool *own;
    void *at;
    TRY(pool_open_object(pool, "agent", sizeof(struct agent), &own, &at));
    struct agent *agent = at;
    agent->io = io;
    agent->pool = own;
    agent->config = *config;
    agent->barrier = buf_open(own, NOOP_BYTES_MAX);
    agent->known_ns = INT64_MIN;
    agent->retry_ns = INT64_MIN;
    agent->ranked_ns = INT64_MIN / 2;
    agent->view.self.slot = SLOT_NONE;
    agent->view.known_ns = agent->view.here_until_ns = agent->view.decides_until_ns = INT64_MIN;
    err e = core_open(&config->core, own, &agent->core);
    if (e == OK)
        e = routes_open(own, &agent->routes);
    if (e == OK)
        e = log_reader_open(config->log, 0, 0, LOG_EPOCH_NONE, &agent->reader);
    if (e != OK) {
        routes_close(agent->routes);
        core_close(agent->core);
        pool_close(own);
        return e;
    }
    io_mutex_init(&agent->lock);
    io_cond_init(&agent->woken);
    io_cond_init(&agent->answered);
    log_on_durable(config->log, wake, agent);
    *out_agent = agent;
    return OK;
}

void agent_stop(struct agent *agent)
{
    io_mutex_lock(&agent->lock);
    agent->is_closing = true;
    io_cond_signal(&agent->woken);
    io_mutex_unlock(&agent->lock);
    if (agent->thread != NULL)
        io_thread_join(agent->thread);
    agent->thread = NULL;
    if (!agent->has_ended)
        end_leases(agent);
    log_on_durable(agent->config.log, NULL, NULL);
    log_reader_close(agent->reader);
}

void agent_close(struct agent *agent)
{
    for (const struct agent_sending *s = agent->sendings; s != NULL; s = s->next)
        check(s->is_done);
    core_close(agent->core);
    routes_close(agent->routes);
    io_cond_done(&agent->answered);
    io_cond_done(&agent->woken);
    io_mutex_done(&agent->lock);
    pool_close(agent->pool);
}
