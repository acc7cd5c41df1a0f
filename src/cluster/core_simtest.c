/* The cluster's core, many of it, over a simulated control log, network, and clocks, in one thread from one
 * seed.
 *
 * Faults: nodes killed, paused, wiped, cut off from the log or from each other in one direction, stopped and
 * started in order, removed, drained, replaced; appends lost, late and twice; automations suspended; the
 * broker's clock going back. After a phase of faults everything is healed, and the cluster must come to rest.
 *
 * The model stands outside of the code: who was faulty and when (only they may be evicted), what every epoch's
 * state was when the log was first folded (every node must come to the same), who held a partition (nobody
 * drops what nobody else has), and what rest is: everybody up, every partition owned by those the plan names,
 * and open nowhere else. */
#include "base/test.h"

#include "base/time.h"
#include "cluster/core.h"
#include "cluster/placement.h"

#include <string.h>

#define NODES_MAX      8
#define PARTITIONS     24
#define RECORDS_MAX    60000
#define STEP_MS        50
#define SUSPECT_AGE_MS 30000
#define REPAIR_MS      60000
#define REST_MS        120000 /* after the faults, of the log's and everybody's time */

enum fault {
    FAULT_KILL,
    FAULT_PAUSE,
    FAULT_WIPE,
    FAULT_CUT_LOG,
    FAULT_CUT_PEER,
    FAULT_RESTART, /* in order */
    FAULT_REMOVE,
    FAULT_DRAIN,
    FAULT_SUSPEND,
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
    int64_t faulty_ms; /* last moment at which something was wrong with it */
    bool is_wanted;    /* a person wants it to run */
    bool is_stopping;
    bool cannot_reach_log;
    bool cannot_reach[NODES_MAX];
    int64_t learnt_ms[PARTITIONS]; /* when an open partition will be caught up; 0: not open */
};

struct message {
    int64_t at_ms;
    uint32_t to;
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
        int64_t append_ms, visible_ms;
        struct slice bytes;
        uint64_t state; /* hash of the model's state after it */
    } log[RECORDS_MAX];
    uint64_t log_count;
    struct members *model;            /* folded as records are appended */
    struct node nodes[NODES_MAX + 1]; /* the last: a double */
    uint32_t node_count;
    struct late late[256];
    size_t late_count;
    struct message messages[4096];
    size_t message_count;
    unsigned process_count, plants;
    bool is_faulty; /* the phase */
    const char *found;
    int64_t rest_ms; /* the longest that a cluster took to come to rest */
    uint64_t faults[FAULT_COUNT];
    uint64_t counted[CONTROL_KIND_END];
    uint64_t trace;
};

static struct world w;
static struct pool *pool;

static bool chance(uint64_t one_in) { return test_random_below(&w.random, one_in) == 0; }
static int64_t up_to(int64_t ms) { return (int64_t)test_random_below(&w.random, (uint64_t)ms + 1); }

/* An oracle: with a plant it is what must happen, without one it must not. */
static void require(bool is_so, const char *what)
{
    if (is_so || w.found != NULL)
        return;
    w.found = what;
    if (w.plants == 0)
        fail_msg("at %lld ms, record %llu: not so: %s", (long long)w.now_ms, (unsigned long long)w.log_count,
                 what);
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

/* ---- the log ---- */

static uint32_t owners_of(const struct members *members, uint32_t p)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < members_slot_count(members); i++)
        count += member_owns(members_at(members, i), p);
    return count;
}

static struct node *node_named(const char *name)
{
    for (uint32_t i = 0; i < w.node_count; i++)
        if (strcmp(w.nodes[i].name, name) == 0)
            return &w.nodes[i];
    return NULL;
}

/* The oracles that look at what a record changed. */
static void judge(const struct members_change *change, const uint32_t *owners_before,
                  const uint8_t *statuses_before, uint32_t up_before, bool is_from_present_life)
{
    uint32_t *slots_planned;
    uint64_t placed;
    if (!change->counted)
        return;
    if (change->kind != CONTROL_INIT && change->kind != CONTROL_JOIN)
        require(is_from_present_life, "only present lives decide");
    if (change->kind == CONTROL_ASSIGN && members_plan(w.model, w.pool, &slots_planned, &placed) == OK)
        require(placed == 0, "an assignment is the plan for the members it meets");
    for (uint32_t p = 0; p < PARTITIONS && change->kind == CONTROL_DROP; p++) {
        const uint32_t *slots = members_assigned(w.model, p);
        uint32_t assigned = 0;
        for (uint32_t i = 0; i < members_init(w.model)->replica_count; i++)
            assigned += slots[i] != SLOT_NONE;
        require(owners_of(w.model, p) == owners_before[p] || owners_of(w.model, p) >= assigned,
                "an owner goes when as many own as are assigned");
    }
    for (uint32_t i = 0; i < members_slot_count(w.model) && change->kind == CONTROL_EVICT; i++) {
        const struct member *m = members_at(w.model, i);
        if (m->status != MEMBER_EVICTED || statuses_before[i] != MEMBER_UP)
            continue;
        require(up_before > 2, "two never evict");
        const struct node *node = node_named(m->name);
        bool is_its_life = node != NULL && node->core != NULL && (node->process & 255) == m->process_id[0];
        require(!is_its_life || w.now_ms - node->faulty_ms < 2 * SUSPECT_AGE_MS,
                "who is evicted was not well");
    }
    for (uint32_t p = 0; p < PARTITIONS && change->kind == CONTROL_ASSIGN; p++) {
        const uint32_t *slots = members_assigned(w.model, p);
        bool any = false;
        for (uint32_t i = 0; i < members_init(w.model)->replica_count; i++)
            any = any || slots[i] != SLOT_NONE;
        require(any, "every partition has a place");
    }
}

/* node: who appends, NULL: a person; process: in which of its lives. */
static void append_now(const struct node *node, unsigned process, struct slice bytes)
{
    assert_true(w.log_count < RECORDS_MAX);
    uint32_t owners_before[PARTITIONS];
    uint8_t statuses_before[CLUSTER_NODES_MAX];
    struct members_change change;
    for (uint32_t p = 0; p < PARTITIONS; p++)
        owners_before[p] = owners_of(w.model, p);
    for (uint32_t i = 0; i < members_slot_count(w.model); i++)
        statuses_before[i] = (uint8_t)members_at(w.model, i)->status;
    uint32_t up_before = members_up_count(w.model);
    const struct member *life = node == NULL ? NULL : members_find(w.model, slice_str(node->name));
    bool is_from_present_life =
        node == NULL || (life != NULL && life->status == MEMBER_UP &&
                         life->process_id[0] == (process & 255) && life->process_id[1] == process >> 8);
    bool is_running_life = life != NULL && life->status == MEMBER_UP && node->core != NULL &&
                           life->process_id[0] == (node->process & 255) &&
                           life->process_id[1] == node->process >> 8;
    struct member_id life_before = { .slot = SLOT_NONE };
    if (life != NULL)
        life_before = life->id;
    uint64_t offset = w.log_count++;
    w.log[offset].append_ms = w.now_ms + w.broker_skew_ms;
    w.log[offset].visible_ms = w.now_ms + 2 + up_to(10);
    if (offset > 0 && w.log[offset].visible_ms < w.log[offset - 1].visible_ms)
        w.log[offset].visible_ms = w.log[offset - 1].visible_ms;
    assert_ok(pool_copy(w.pool, bytes, &w.log[offset].bytes));
    assert_ok(members_apply(w.model, offset, w.log[offset].append_ms, w.log[offset].bytes, &change));
    w.log[offset].state = state_hash(w.model);
    w.trace = hash_mix(w.trace ^ w.log[offset].state);
    w.counted[change.kind] += change.counted;
    if (change.kind == CONTROL_JOIN && change.counted && is_running_life && process != node->process)
        require(members_is_current(w.model, life_before), "a process that has ended takes nobody's place");
    judge(&change, owners_before, statuses_before, up_before, is_from_present_life);
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
    else {
        record.suspend.automation = AUTOMATION_PLACEMENT + (enum control_automation)(detail % 3);
        record.suspend.duration_ms = w.is_faulty ? 20000 : 0;
        record.suspend.owner = record.suspend.reason = slice_str("test");
    }
    control_record_encode(&record, &out);
    append_now(NULL, 0, buf_slice(&out));
    buf_close(&out);
}

/* ---- nodes ---- */

static int64_t clock_ns(const struct node *node) { return w.now_ms * NS_PER_MS + w.now_ms * node->drift_ppm; }

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
    w.messages[w.message_count++] = message;
}

static void take_effects(struct node *node, const struct core_effect *effects, size_t count)
{
    uint32_t self = (uint32_t)(node - w.nodes);
    struct member_id own = { .slot = SLOT_NONE };
    for (size_t i = 0; i < count; i++) {
        const struct core_effect *e = &effects[i];
        switch (e->kind) {
        case CORE_APPEND:
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
        case CORE_STOP:
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
        if (w.plants == 0 && (offset % 16 == 0 || node->read == w.log_count))
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
    if (node->core == NULL || node->paused_until_ms > w.now_ms)
        return;
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
        for (uint32_t n = 0; n <= w.node_count; n++) {
            struct member_id id;
            if (w.nodes[n].core != NULL && core_self(w.nodes[n].core, &id) && id.slot == m.from.slot &&
                id.incarnation == m.from.incarnation)
                send(m.to, (struct message){ .to = n, .from = own, .of = m.from, .is_answer = true });
        }
    }
}

/* ---- faults ---- */

static void wrong(struct node *node) { node->faulty_ms = w.now_ms; }

static void strike(enum fault fault)
{
    struct node *node = &w.nodes[test_random_below(&w.random, w.node_count)];
    uint32_t other = (uint32_t)test_random_below(&w.random, w.node_count);
    switch (fault) {
    case FAULT_KILL:
    case FAULT_WIPE:
        if (node->core == NULL)
            return;
        end(node);
        if (fault == FAULT_WIPE)
            node->disk += 256;
        break;
    case FAULT_PAUSE:
        if (node->core == NULL)
            return;
        node->paused_until_ms = w.now_ms + up_to(90000);
        break;
    case FAULT_CUT_LOG:
        node->cannot_reach_log = true;
        break;
    case FAULT_CUT_PEER:
        node->cannot_reach[other] = true;
        w.nodes[other].faulty_ms = w.now_ms;
        break;
    case FAULT_RESTART:
        if (node->core == NULL)
            return;
        core_leave(node->core);
        break;
    case FAULT_REMOVE:
        if (members_init(w.model) == NULL || !chance(4))
            return;
        command(CONTROL_REMOVE, node->name, REMOVAL_GONE);
        break;
    case FAULT_DRAIN:
        if (members_init(w.model) == NULL)
            return;
        command(CONTROL_REMOVE, node->name, chance(2) ? REMOVAL_DRAIN : REMOVAL_UNDRAIN);
        w.faults[fault]++; /* nobody is the worse for this and the next two */
        return;
    case FAULT_SUSPEND:
        if (members_init(w.model) == NULL)
            return;
        command(CONTROL_SUSPEND, node->name, (unsigned)up_to(2));
        w.faults[fault]++;
        return;
    case FAULT_CLOCK:
        w.broker_skew_ms = up_to(4000) - 2000;
        w.faults[fault]++;
        return;
    case FAULT_DOUBLE:
        if (w.nodes[w.node_count].core != NULL)
            return;
        w.nodes[w.node_count] = (struct node){ .disk = chance(2) ? node->disk : 9000, .lag_ms = up_to(200) };
        strcpy(w.nodes[w.node_count].name, node->name);
        start(&w.nodes[w.node_count]);
        wrong(node);
        break;
    default:
        return;
    }
    wrong(node);
    w.faults[fault]++;
}

static void heal(struct node *node, bool is_last)
{
    if (is_last || chance(400))
        node->cannot_reach_log = false;
    for (uint32_t n = 0; n <= NODES_MAX; n++)
        if (n < NODES_MAX && (is_last || chance(400)))
            node->cannot_reach[n] = false;
    if (is_last)
        node->paused_until_ms = 0;
    if (node->core == NULL && node->is_wanted && (is_last || chance(400)))
        start(node);
}

static bool is_well(const struct node *node)
{
    for (uint32_t n = 0; n < NODES_MAX; n++)
        if (node->cannot_reach[n] || w.nodes[n].cannot_reach[node - w.nodes])
            return false;
    return node->core != NULL && node->paused_until_ms <= w.now_ms && !node->cannot_reach_log;
}

static void append_late(void)
{
    for (size_t i = 0; i < w.late_count;) {
        struct late late = w.late[i];
        if (late.at_ms > w.now_ms) {
            i++;
            continue;
        }
        w.late[i] = w.late[--w.late_count];
        append_now(late.node, late.process, late.bytes);
    }
}

static void tick(void)
{
    w.now_ms += STEP_MS;
    append_late();
    for (uint32_t i = 0; i <= w.node_count; i++) {
        if (w.is_faulty && i < w.node_count)
            heal(&w.nodes[i], false);
        if (!is_well(&w.nodes[i]))
            wrong(&w.nodes[i]);
        run_node(&w.nodes[i]);
    }
    deliver();
}

/* ---- rest ---- */

static const char *unrest(void)
{
    uint32_t *slots;
    uint64_t placed;
    if (members_init(w.model) == NULL || members_assigned(w.model, 0) == NULL)
        return "the cluster has begun";
    for (uint32_t i = 0; i < w.node_count; i++) {
        const struct member *m = members_find(w.model, slice_str(w.nodes[i].name));
        struct member_id id;
        if (w.nodes[i].core == NULL || m == NULL || m->status != MEMBER_UP || m->suspicion != UINT64_MAX)
            return "every node is up and not suspected";
        if (!core_self(w.nodes[i].core, &id) || id.incarnation != m->id.incarnation ||
            !core_may_decide(w.nodes[i].core, clock_ns(&w.nodes[i])))
            return "every node knows itself as the log does";
    }
    assert_ok(members_plan(w.model, w.pool, &slots, &placed));
    if (placed != 0 || members_is_assignment_due(w.model))
        return "the assignment is the plan for these members";
    for (uint32_t p = 0; p < PARTITIONS; p++)
        for (uint32_t i = 0; i < w.node_count; i++) {
            const struct member *m = members_find(w.model, slice_str(w.nodes[i].name));
            bool is_assigned = members_is_assigned(w.model, p, m->id.slot);
            if (member_owns(m, p) != is_assigned)
                return "who is assigned owns, and nobody else";
            if ((w.nodes[i].learnt_ms[p] != 0) != is_assigned)
                return "a partition is open where it is owned, and nowhere else";
            if (is_assigned && core_rank(w.nodes[i].core, clock_ns(&w.nodes[i]), p) >= 2)
                return "owners are ranked";
        }
    return NULL;
}

static void show(const struct node *node)
{
    const struct member *m = members_find(w.model, slice_str(node->name));
    struct member_id id = { .slot = 999 };
    if (node->core != NULL)
        core_self(node->core, &id);
    printf("# node %s: slot %u, own incarnation %lld, in the log %lld with status %d, has read %llu of %llu, "
           "decides %d\n",
           node->name, id.slot, (long long)id.incarnation, m == NULL ? -1LL : (long long)m->id.incarnation,
           m == NULL ? 0 : (int)m->status, (unsigned long long)node->read, (unsigned long long)w.log_count,
           node->core != NULL && core_may_decide(node->core, clock_ns(node)));
}

static void come_to_rest(void)
{
    w.is_faulty = false;
    w.broker_skew_ms = 2000; /* the latest it has been: time stands still no more */
    if (w.nodes[w.node_count].core != NULL)
        end(&w.nodes[w.node_count]);
    for (uint32_t i = 0; i < w.node_count; i++)
        heal(&w.nodes[i], true);
    if (members_init(w.model) != NULL)
        for (unsigned k = 0; k < 3; k++)
            command(CONTROL_SUSPEND, "", k);
    for (uint32_t i = 0; i < w.node_count; i++)
        if (members_init(w.model) != NULL && members_find(w.model, slice_str(w.nodes[i].name)) != NULL)
            command(CONTROL_REMOVE, w.nodes[i].name, REMOVAL_UNDRAIN);
    int64_t begin_ms = w.now_ms, until_ms = begin_ms + REST_MS;
    while (w.now_ms < until_ms && w.found == NULL) {
        for (uint32_t i = 0; i < w.node_count; i++)
            if (w.nodes[i].core == NULL)
                start(&w.nodes[i]); /* whoever watches over processes */
        for (int k = 0; k < 20; k++)
            tick();
        if (unrest() == NULL && w.message_count < 64)
            break;
    }
    w.rest_ms = w.now_ms - begin_ms > w.rest_ms ? w.now_ms - begin_ms : w.rest_ms;
    const char *why = w.found != NULL ? NULL : unrest();
    for (uint32_t i = 0; why != NULL && w.plants == 0 && i < w.node_count; i++)
        show(&w.nodes[i]);
    require(why == NULL, why);
}

/* One life of a cluster. */
static void live(uint64_t seed, uint32_t node_count, unsigned plants, int64_t faulty_ms)
{
    uint64_t faults[FAULT_COUNT], counted[CONTROL_KIND_END];
    int64_t rest_ms = w.rest_ms;
    memcpy(faults, w.faults, sizeof faults);
    memcpy(counted, w.counted, sizeof counted);
    memset(&w, 0, sizeof w);
    memcpy(w.faults, faults, sizeof faults);
    memcpy(w.counted, counted, sizeof counted);
    w.rest_ms = rest_ms;
    w.random.state = seed;
    w.pool = pool_open(pool, "world", POOL_BYTES_UNLIMITED);
    w.plants = plants;
    w.node_count = node_count;
    assert_ok(members_open(w.pool, &w.model));
    members_plant(w.model, plants);
    for (uint32_t i = 0; i < node_count; i++) {
        w.nodes[i] = (struct node){ .disk = i + 1, .is_wanted = true, .lag_ms = up_to(200) };
        w.nodes[i].name[0] = (char)('a' + i);
        start(&w.nodes[i]);
    }
    uint64_t enabled = test_random_u64(&w.random); /* each seed has its own mix */
    w.is_faulty = true;
    while (w.now_ms < faulty_ms && w.found == NULL) {
        if (chance(60)) {
            enum fault fault = (enum fault)test_random_below(&w.random, FAULT_LOST_APPEND);
            if (enabled >> fault & 1)
                strike(fault);
        }
        tick();
    }
    come_to_rest();
    for (uint32_t i = 0; i <= w.node_count; i++)
        core_close(w.nodes[i].core);
    members_close(w.model);
    pool_close(w.pool);
}

static void any_life_comes_to_rest(void **state)
{
    struct test_random r = test_random_begin("any_life_comes_to_rest");
    bool is_full = getenv("KELPIE_SIM") != NULL;
    uint64_t lives = is_full ? 2000 : 60, records = 0;
    memset(&w, 0, sizeof w);
    for (uint64_t i = 0; i < lives; i++) {
        uint64_t seed = getenv("LIFE") != NULL ? strtoull(getenv("LIFE"), NULL, 0) : test_random_u64(&r);
        if (getenv("VERBOSE") != NULL)
            printf("# LIFE=0x%llx\n", (unsigned long long)seed);
        live(seed, 3 + (uint32_t)(seed % 3), 0, 600000);
        records += w.log_count;
    }
    static const char *const names[FAULT_COUNT] = { "kill",          "pause",        "wipe",   "cut from log",
                                                    "cut from peer", "restart",      "remove", "drain",
                                                    "suspend",       "broker clock", "double", "append lost",
                                                    "append twice",  "append late" };
    printf("# %llu lives of 10 minutes, %llu records; at rest %lld s after the faults, or sooner\n",
           (unsigned long long)lives, (unsigned long long)records, (long long)w.rest_ms / 1000);
    for (int f = 0; f < FAULT_COUNT; f++) {
        printf("# fault %s: %llu\n", names[f], (unsigned long long)w.faults[f]);
        assert_true(w.faults[f] > 0);
    }
    for (int k = CONTROL_JOIN; k < CONTROL_SET; k++) {
        printf("# %s counted: %llu\n", control_kind_text((enum control_kind)k),
               (unsigned long long)w.counted[k]);
        assert_true(w.counted[k] > 0);
    }
}

static void one_seed_one_trace(void **state)
{
    live(77, 4, 0, 300000);
    uint64_t first = w.trace;
    live(77, 4, 0, 300000);
    assert_true(first == w.trace);
    live(78, 4, 0, 300000);
    assert_true(first != w.trace);
}

/* Every oracle finds the bug that it is there for. */
static void planted_bugs_are_found(void **state)
{
    static const struct {
        unsigned plant;
        const char *oracle;
    } plants[] = {
        { MEMBERS_PLANT_EVICT_ALONE, "two never evict" },
        { MEMBERS_PLANT_DROP_EARLY, "an owner goes when as many own as are assigned" },
        { MEMBERS_PLANT_OLD_PLAN, "an assignment is the plan for the members it meets" },
        { MEMBERS_PLANT_ANY_LIFE, "only present lives decide" },
        { MEMBERS_PLANT_LATE_JOIN, "a process that has ended takes nobody's place" },
    };
    for (size_t i = 0; i < sizeof plants / sizeof plants[0]; i++) {
        uint64_t lives = 0;
        do {
            assert_true(++lives < 3000);
            live(hash_mix(1000 * i + lives), 3 + (uint32_t)(lives % 3), plants[i].plant, 600000);
        } while (w.found == NULL || strcmp(w.found, plants[i].oracle) != 0);
        printf("# %s: found in life %llu\n", plants[i].oracle, (unsigned long long)lives);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_life_comes_to_rest),
        cmocka_unit_test(one_seed_one_trace),
        cmocka_unit_test(planted_bugs_are_found),
    };
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed;
}
