/* The world of core_simtest.c: the cluster's core, many of it, over a simulated control log, network, and
 * clocks, in one thread from one seed.
 *
 * Faults: nodes killed, paused, wiped, cut off from the log, from each other in one direction, or from
 * everything, stopped and started in order, all of them too and for long, removed, drained, replaced;
 * partitions that fall behind; appends lost, late and twice; automations suspended, ages set; the broker's
 * clock leaping by up to an hour either way. After a phase of faults everything is healed, and the cluster
 * must come to rest.
 *
 * The oracles stand outside of the code: the rules folded by control_model.h, who was faulty and when (only
 * they may be evicted), how much time there was in which anybody was up (slots and names are given up by no
 * other), what every epoch's state was when the log was first folded (every node must come to the same), who
 * held a partition (nobody drops what nobody else has), who decides when it is put out, and what rest is:
 * everybody up, every partition owned by those the plan names, and open nowhere else. */
#ifndef CLUSTER_CORE_WORLD_H
#define CLUSTER_CORE_WORLD_H

#include "base/test.h"

#include "base/time.h"
#include "cluster/control_compare.h"
#include "cluster/core.h"
#include "cluster/placement.h"

#include <string.h>

#define NODES_MAX      8
#define PARTITIONS     24
#define RECORDS_MAX    100000
#define STEP_MS        50
#define SUSPECT_AGE_MS 30000
#define REPAIR_MS      60000
#define REST_MS        120000 /* after the faults, of everybody's time */
#define LEAP_MS        3600000

enum fault {
    FAULT_KILL,
    FAULT_PAUSE,
    FAULT_WIPE,
    FAULT_CUT_LOG,
    FAULT_CUT_PEER,
    FAULT_ISOLATE,  /* from both, and from all */
    FAULT_RESTART,  /* in order */
    FAULT_STOP_ALL, /* or the power fails */
    FAULT_BREAK,    /* a partition falls behind */
    FAULT_REMOVE,
    FAULT_DRAIN,
    FAULT_SUSPEND,
    FAULT_SET,
    FAULT_CLOCK,
    FAULT_DOUBLE, /* a second process under a name */
    FAULT_LOST_APPEND,
    FAULT_TWICE_APPEND,
    FAULT_LATE_APPEND, /* it lay in the socket of a broker that was paused */
    FAULT_COUNT,
};

struct node {
    struct core *core; /* NULL: not running */
    char name[8];
    unsigned disk, process;
    uint64_t read; /* records of the log it has */
    int64_t lag_ms, paused_until_ms, drift_ppm;
    int64_t faulty_ms;            /* last moment at which something was wrong with it */
    int64_t not_before_ms;        /* nobody starts it earlier */
    int64_t leave_ms;             /* since when it has been able to leave; 0: it does not */
    int64_t leave_ns;             /* when it was told to, by its clock */
    int64_t stale_ms[PARTITIONS]; /* since when it has owned, well, what is not ready; 0: it does not */
    const char *trouble, *why;    /* what its effects said last */
    bool is_wanted;               /* a person wants it to run */
    bool is_stopping;
    bool cannot_reach_log;
    bool cannot_reach[NODES_MAX];
    int64_t learnt_ms[PARTITIONS]; /* when an open partition will be caught up; 0: not open */
};

struct message {
    int64_t at_ms;
    uint32_t to, sender;
    struct member_id from, of; /* of: who is asked */
    bool is_answer;
};

struct late {
    int64_t at_ms;
    struct node *node;
    unsigned process; /* of the node, when it was sent */
    struct slice bytes;
};

struct world {
    struct test_random random;
    struct pool *pool;
    int64_t now_ms, broker_skew_ms;
    struct {
        int64_t at_ms, append_ms, visible_ms;
        bool is_counted;
        struct slice bytes;
        uint64_t state; /* hash of the model's state after it */
    } log[RECORDS_MAX];
    uint64_t log_count;
    struct members *model; /* folded as records are appended */
    struct model rules;    /* the same by the tests' own reading of the rules */
    int64_t bound_ms;  /* time in which anybody was up, as far as records witness it: log time is no more */
    int64_t spoken_ms; /* when the last witness came, and … */
    int64_t spoken_skew_ms;         /* … by what the broker's clock was wrong */
    int64_t resumed_ms, silence_ms; /* when the last came after a long silence, and when that had begun */
    int64_t leapt_ms;               /* when the broker's clock last changed */
    int64_t age_ms_min;             /* of those set in this life */
    struct {
        int64_t ended_ms, suspected_ms; /* bound_ms then */
    } slots[CLUSTER_NODES_MAX];
    struct node nodes[NODES_MAX + 1]; /* the last: a double */
    uint32_t node_count;
    struct late late[256];
    size_t late_count;
    struct message messages[4096];
    size_t message_count;
    unsigned process_count, plants;
    bool is_faulty;             /* the phase */
    const char *wanted, *found; /* oracles: the one a plant is there for; the one that spoke */
    int64_t rest_ms;            /* the longest that a cluster took to come to rest */
    uint64_t faults[FAULT_COUNT];
    uint64_t counted[CONTROL_KIND_END];
    uint64_t trace;
};

static struct world w;
static struct pool *pool;

static bool chance(uint64_t one_in) { return test_random_below(&w.random, one_in) == 0; }
static int64_t up_to(int64_t ms) { return (int64_t)test_random_below(&w.random, (uint64_t)ms + 1); }

/* The last records, for who looks for the reason. */
static void show_log(void)
{
    for (uint64_t i = w.log_count > 40 ? w.log_count - 40 : 0; i < w.log_count; i++) {
        struct control_record r = { 0 };
        assert_ok(control_record_decode(w.log[i].bytes, w.pool, &r));
        printf("# %llu at %lld ms (%lld by the broker) %s by %d of %d: %d; suspicion %lld\n",
               (unsigned long long)i, (long long)w.log[i].at_ms, (long long)w.log[i].append_ms,
               control_kind_text(r.kind), (int)r.by.slot, (int)r.of.slot, w.log[i].is_counted,
               (long long)r.suspicion);
    }
}

/* An oracle: with a plant it is what must happen, without one it must not. */
static void require(bool is_so, const char *what)
{
    if (is_so || w.found != NULL || (w.wanted != NULL && strcmp(what, w.wanted) != 0))
        return;
    w.found = what;
    if (w.wanted == NULL)
        show_log();
    if (w.wanted == NULL)
        fail_msg("at %lld ms, record %llu (%s): not so: %s", (long long)w.now_ms,
                 (unsigned long long)w.log_count,
                 w.log_count == 0 ? "" : control_kind_text(w.log[w.log_count - 1].bytes.at[5]), what);
}

static uint64_t state_hash(const struct members *members)
{
    struct buf out = buf_open(w.pool, 4 << 20);
    members_encode(members, &out);
    uint64_t h = hash64(buf_slice(&out), 1);
    assert_ok(buf_err(&out));
    buf_close(&out);
    return h;
}

static int64_t clock_ns(const struct node *node) { return w.now_ms * NS_PER_MS + w.now_ms * node->drift_ppm; }

/* ---- the log ---- */

static uint32_t owners_of(const struct members *members, uint32_t p)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < members_slot_count(members); i++)
        count += member_owns(members_at(members, i), p);
    return count;
}

/* What a record found before it was folded. */
struct before {
    uint32_t owners[PARTITIONS], up_count;
    struct member slots[CLUSTER_NODES_MAX];
    uint32_t slot_count;
    bool is_from_present_life;
};

static bool is_process(const struct member *m, unsigned process)
{
    return m->process_id[0] == (process & 255) && m->process_id[1] == process >> 8;
}

static const struct node *running(const struct member *m)
{
    for (uint32_t i = 0; i <= w.node_count; i++)
        if (w.nodes[i].core != NULL && strcmp(w.nodes[i].name, m->name) == 0 &&
            is_process(m, w.nodes[i].process))
            return &w.nodes[i];
    return NULL;
}

/* A life that was up is not any more. */
static void judge_end(const struct members_change *change, const struct before *before, uint32_t slot)
{
    const struct member *was = &before->slots[slot], *is = members_at(w.model, slot);
    const struct node *node = running(was);
    bool is_taken = is->status == MEMBER_UP && memcmp(was->disk_id, is->disk_id, CLUSTER_ID_BYTES) != 0;
    w.slots[slot].ended_ms = w.bound_ms;
    if (change->kind == CONTROL_EVICT || is_taken)
        require(w.bound_ms - w.slots[slot].suspected_ms >= w.age_ms_min,
                "nobody is put out before it had the time to object");
    if (change->kind != CONTROL_EVICT)
        return;
    require(before->up_count > 2, "two never evict");
    require(node == NULL || w.now_ms - node->faulty_ms < 2 * SUSPECT_AGE_MS, "who is evicted was not well");
    require(node == NULL || !core_may_decide(node->core, clock_ns(node)), "who is put out decides no more");
}

static void judge_slots(const struct members_change *change, const struct before *before)
{
    for (uint32_t i = 0; i < members_slot_count(w.model); i++) {
        static const struct member none = { .status = MEMBER_NONE, .suspicion = UINT64_MAX };
        const struct member *was = i < before->slot_count ? &before->slots[i] : &none;
        const struct member *is = members_at(w.model, i);
        if (was->status == MEMBER_UP &&
            (is->status != MEMBER_UP || is->id.incarnation != was->id.incarnation))
            judge_end(change, before, i);
        if (is->suspicion != UINT64_MAX && is->suspicion != was->suspicion)
            w.slots[i].suspected_ms = w.bound_ms;
        if (change->kind != CONTROL_VACATE || was->status == MEMBER_NONE || is->status != MEMBER_NONE)
            continue;
        require(w.bound_ms - w.slots[i].ended_ms >= REPAIR_MS, "who comes back in time finds its slot");
        require(w.leapt_ms >= w.silence_ms || w.now_ms - w.resumed_ms >= REPAIR_MS,
                "who comes back in time finds its slot");
    }
}

/* The oracles that look at what a record changed. */
static void judge(const struct members_change *change, const struct before *before)
{
    uint32_t *slots_planned;
    uint64_t placed;
    if (!change->counted)
        return;
    judge_slots(change, before);
    if (change->kind != CONTROL_INIT && change->kind != CONTROL_JOIN && change->kind != CONTROL_NOOP)
        require(before->is_from_present_life, "only present lives decide");
    if (change->kind == CONTROL_ASSIGN && members_plan(w.model, w.pool, &slots_planned, &placed) == OK)
        require(placed == 0, "an assignment is the plan for the members it meets");
    for (uint32_t p = 0; p < PARTITIONS && change->kind == CONTROL_DROP; p++) {
        const uint32_t *slots = members_assigned(w.model, p);
        uint32_t assigned = 0;
        for (uint32_t i = 0; i < members_init(w.model)->replica_count; i++)
            assigned += slots[i] != SLOT_NONE;
        require(owners_of(w.model, p) == before->owners[p] || owners_of(w.model, p) >= assigned,
                "an owner goes when as many own as are assigned");
    }
    for (uint32_t p = 0; p < PARTITIONS && change->kind == CONTROL_ASSIGN; p++) {
        const uint32_t *slots = members_assigned(w.model, p);
        bool any = false;
        for (uint32_t i = 0; i < members_init(w.model)->replica_count; i++)
            any = any || slots[i] != SLOT_NONE;
        require(any, "every partition has a place");
    }
}

static void look(struct before *before, const struct node *node, unsigned process)
{
    const struct member *life = node == NULL ? NULL : members_find(w.model, slice_str(node->name));
    for (uint32_t p = 0; p < PARTITIONS; p++)
        before->owners[p] = owners_of(w.model, p);
    before->slot_count = members_slot_count(w.model);
    for (uint32_t i = 0; i < before->slot_count; i++)
        before->slots[i] = *members_at(w.model, i);
    before->up_count = members_up_count(w.model);
    before->is_from_present_life =
        node == NULL || (life != NULL && life->status == MEMBER_UP && is_process(life, process));
}

/* Who spoke, and how long nobody had: outside of the fold. */
static void hear(bool is_join)
{
    int64_t leap_ms = w.broker_skew_ms - w.spoken_skew_ms;
    if (leap_ms > 0 && leap_ms <= 20000)
        w.bound_ms += leap_ms; /* nobody can tell it from time */
    if (is_join && w.now_ms - w.spoken_ms > 25000) {
        w.silence_ms = w.spoken_ms;
        w.resumed_ms = w.now_ms;
    }
    w.spoken_ms = w.now_ms;
    w.spoken_skew_ms = w.broker_skew_ms;
}

/* node: who appends, NULL: a person; process: in which of its lives. */
static void append_now(const struct node *node, unsigned process, struct slice bytes)
{
    static struct before before;
    assert_true(w.log_count < RECORDS_MAX);
    struct members_change change;
    look(&before, node, process);
    const struct member *life = node == NULL ? NULL : members_find(w.model, slice_str(node->name));
    bool is_running_life =
        life != NULL && life->status == MEMBER_UP && node->core != NULL && is_process(life, node->process);
    struct member_id life_before = { .slot = SLOT_NONE };
    if (life != NULL)
        life_before = life->id;
    uint64_t offset = w.log_count++;
    w.log[offset].at_ms = w.now_ms;
    w.log[offset].append_ms = w.now_ms + w.broker_skew_ms;
    w.log[offset].visible_ms = w.now_ms + 2 + up_to(10);
    if (offset > 0 && w.log[offset].visible_ms < w.log[offset - 1].visible_ms)
        w.log[offset].visible_ms = w.log[offset - 1].visible_ms;
    assert_ok(pool_copy(w.pool, bytes, &w.log[offset].bytes));
    assert_ok(members_apply(w.model, offset, w.log[offset].append_ms, w.log[offset].bytes, &change));
    w.log[offset].is_counted = change.counted;
    w.log[offset].state = state_hash(w.model);
    w.trace = hash_mix(w.trace ^ w.log[offset].state);
    w.counted[change.kind] += change.counted;
    if (change.kind == CONTROL_JOIN && change.counted && is_running_life && process != node->process)
        require(members_is_current(w.model, life_before), "a process that has ended takes nobody's place");
    if (change.kind == CONTROL_JOIN || (node != NULL && before.is_from_present_life))
        hear(change.kind == CONTROL_JOIN);
    judge(&change, &before);
    bool is_counted = model_fold(&w.rules, (int64_t)offset, w.log[offset].append_ms, bytes.at, bytes.len);
    const char *differs = compare_states(&w.rules, w.model);
    if (w.wanted == NULL && (differs != NULL || is_counted != change.counted))
        printf("# %s %s, the rules say the contrary, or: %s\n", control_kind_text(change.kind),
               change.counted ? "counted" : change.why, differs == NULL ? "" : differs);
    require(differs == NULL && is_counted == change.counted, "the fold follows the rules");
}

static void append_from(struct node *node, struct slice bytes)
{
    if (node->cannot_reach_log)
        return;
    if (w.is_faulty && chance(20)) {
        w.faults[FAULT_LOST_APPEND]++;
        return;
    }
    if (w.is_faulty && chance(20) && w.late_count < 256) {
        struct late *late = &w.late[w.late_count++];
        w.faults[FAULT_LATE_APPEND]++;
        *late = (struct late){ w.now_ms + up_to(90000), node, node->process };
        assert_ok(pool_copy(w.pool, bytes, &late->bytes));
        return;
    }
    append_now(node, node->process, bytes);
    if (w.is_faulty && chance(20)) {
        w.faults[FAULT_TWICE_APPEND]++;
        append_now(node, node->process, bytes);
    }
}

/* What a person appends. */
static void command(enum control_kind kind, const char *name, unsigned detail)
{
    const struct member *m = members_find(w.model, slice_str(name));
    struct control_record record = { .kind = kind, .by = { .slot = SLOT_NONE } };
    struct buf out = buf_open(w.pool, CONTROL_RECORD_BYTES_MAX);
    memcpy(record.cluster_id, members_cluster_id(w.model), CLUSTER_ID_BYTES);
    if (m != NULL)
        record.of = m->id;
    if (kind == CONTROL_REMOVE)
        record.removal = (enum control_removal)detail;
    else if (kind == CONTROL_SET) {
        record.settings = (struct control_settings){ detail, REPAIR_MS };
        w.age_ms_min = detail < w.age_ms_min ? detail : w.age_ms_min;
    } else {
        record.suspend.automation = AUTOMATION_PLACEMENT + (enum control_automation)(detail % 3);
        record.suspend.duration_ms = w.is_faulty ? 20000 : 0;
        record.suspend.owner = record.suspend.reason = slice_str("test");
    }
    control_record_encode(&record, &out);
    append_now(NULL, 0, buf_slice(&out));
    buf_close(&out);
}

/* ---- nodes ---- */

static void start(struct node *node)
{
    static const struct control_init init = { .partition_count = PARTITIONS,
                                              .replica_count = 2,
                                              .expected_nodes = 3,
                                              .range_bytes_max = 1 << 20,
                                              .settings = { SUSPECT_AGE_MS, REPAIR_MS } };
    struct core_config config = { .init = &init };
    char zone[8] = { 'z', (char)('0' + (node->name[0] - 'a') % 3) };
    config.init_id[0] = 1 + (uint8_t)(node - w.nodes); /* each would begin another; the first wins */
    config.self.name = slice_str(node->name);
    config.self.zone = slice_str(zone);
    config.self.address = slice_str("h:1");
    config.self.disk_id[0] = (uint8_t)node->disk;
    config.self.disk_id[1] = (uint8_t)(node->disk >> 8);
    node->process = ++w.process_count;
    config.self.process_id[0] = (uint8_t)node->process;
    config.self.process_id[1] = (uint8_t)(node->process >> 8);
    assert_ok(core_open(&config, w.pool, &node->core));
    core_plant(node->core, w.plants);
    node->read = 0;
    node->is_stopping = false;
    node->drift_ppm = up_to(200) - 100;
    memset(node->learnt_ms, 0, sizeof node->learnt_ms);
    memset(node->stale_ms, 0, sizeof node->stale_ms);
    node->leave_ms = 0;
    node->trouble = node->why = NULL;
}

static void tell_to_leave(struct node *node)
{
    if (node->leave_ms == 0) {
        node->leave_ms = w.now_ms;
        node->leave_ns = clock_ns(node);
    }
    core_leave(node->core, clock_ns(node));
}

static void end(struct node *node)
{
    core_close(node->core);
    node->core = NULL;
    node->faulty_ms = w.now_ms;
}

static void send(uint32_t from, struct message message)
{
    struct node *a = &w.nodes[from], *b = &w.nodes[message.to];
    if (a->cannot_reach[message.to] || b->core == NULL || (w.is_faulty && chance(20)))
        return;
    assert_true(w.message_count < sizeof w.messages / sizeof w.messages[0]);
    message.at_ms = w.now_ms + 1 + up_to(w.is_faulty ? 300 : 20);
    message.sender = from;
    w.messages[w.message_count++] = message;
}

static bool is_staying(const struct node *node, const struct member *m)
{
    return m->status == MEMBER_UP && !m->is_leaving && strcmp(m->name, node->name) != 0 &&
           !core_is_silent(node->core, clock_ns(node), m->id.slot);
}

/* A node says that it has left: by what it knows, others own what it owned, or it has waited, or there is
 * nobody. */
static void judge_leaving(const struct node *node)
{
    const struct members *known = core_members(node->core);
    const struct member *self = members_find(known, slice_str(node->name));
    bool is_late = clock_ns(node) - node->leave_ns >= (CORE_LEAVE_MS - 1000) * NS_PER_MS, is_alone = true;
    for (uint32_t i = 0; i < members_slot_count(known); i++)
        is_alone = is_alone && (!is_staying(node, members_at(known, i)) || members_at(known, i)->is_draining);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        bool is_left = !member_owns(self, p);
        for (uint32_t i = 0; i < members_slot_count(known); i++)
            is_left =
                is_left || (is_staying(node, members_at(known, i)) && member_owns(members_at(known, i), p));
        require(is_left || is_late || is_alone, "who leaves has left everything to others");
    }
}

static void take_effects(struct node *node, const struct core_effect *effects, size_t count)
{
    uint32_t self = (uint32_t)(node - w.nodes);
    struct member_id own = { .slot = SLOT_NONE };
    for (size_t i = 0; i < count; i++) {
        const struct core_effect *e = &effects[i];
        switch (e->kind) {
        case CORE_APPEND:
            if (e->bytes.at[5] == CONTROL_LEAVE && e->bytes.at[e->bytes.len - 1] == LEAVING_DONE)
                judge_leaving(node);
            append_from(node, e->bytes);
            break;
        case CORE_PROBE:
            core_self(node->core, &own);
            for (uint32_t n = 0; n <= w.node_count; n++)
                if (strcmp(w.nodes[n].name, e->member->name) == 0)
                    send(self, (struct message){ .to = n, .from = own, .of = e->member->id });
            break;
        case CORE_OPEN:
            node->learnt_ms[e->partition] = w.now_ms + 100 + up_to(15000);
            break;
        case CORE_CLOSE:
            node->learnt_ms[e->partition] = 0;
            break;
        case CORE_TROUBLE:
            node->trouble = e->why;
            break;
        case CORE_STOP:
            node->why = e->why;
            node->is_stopping = true;
            break;
        }
    }
}

static void read_log(struct node *node)
{
    while (!node->cannot_reach_log && node->read < w.log_count &&
           w.log[node->read].visible_ms + node->lag_ms <= w.now_ms) {
        uint64_t offset = node->read++;
        assert_ok(
            core_record(node->core, clock_ns(node), offset, w.log[offset].append_ms, w.log[offset].bytes));
        if (offset % 16 == 0 || node->read == w.log_count)
            require(state_hash(core_members(node->core)) == w.log[offset].state,
                    "all nodes come to the same state");
    }
    if (!node->cannot_reach_log && (node->read == w.log_count || w.log[node->read].visible_ms > w.now_ms))
        core_at_end(node->core, clock_ns(node) - (node->lag_ms + 15) * NS_PER_MS);
}

static void run_node(struct node *node)
{
    const struct core_effect *effects;
    size_t count;
    if (node->core == NULL)
        return;
    if (node->paused_until_ms > w.now_ms) {
        node->leave_ms = node->leave_ms == 0 ? 0 : w.now_ms;
        return;
    }
    require(node->leave_ms == 0 || w.now_ms - node->leave_ms < CORE_END_MS + 1000, "who leaves ends in time");
    read_log(node);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        if (node->learnt_ms[p] != 0 && node->learnt_ms[p] <= w.now_ms)
            core_ready(node->core, p, true);
    assert_ok(core_step(node->core, clock_ns(node), &effects, &count));
    take_effects(node, effects, count);
    if (node->is_stopping)
        end(node);
}

static void deliver(void)
{
    for (size_t i = 0; i < w.message_count;) {
        struct message m = w.messages[i];
        struct node *to = &w.nodes[m.to];
        struct member_id own;
        if (m.at_ms > w.now_ms || (to->core != NULL && to->paused_until_ms > w.now_ms)) {
            i++;
            continue;
        }
        w.messages[i] = w.messages[--w.message_count];
        if (to->core == NULL)
            continue;
        core_heard(to->core, clock_ns(to), m.from);
        if (m.is_answer || !core_self(to->core, &own) || own.slot != m.of.slot ||
            own.incarnation != m.of.incarnation)
            continue; /* another life than the one that is asked does not answer in its name */
        send(m.to, (struct message){ .to = m.sender, .from = own, .of = m.from, .is_answer = true });
    }
}

#endif
