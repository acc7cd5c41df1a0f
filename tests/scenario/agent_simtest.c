/* Three to five nodes' agents over one control log: the Kafka driver on simulated brokers, a network of delays and
 * cuts, partitions that take their time to open; one thread, one seed.
 *
 * Faults: nodes killed, frozen, told to leave; cut off from each other, from the brokers, from all but one broker
 * that is itself cut off; brokers killed and frozen, two at once too, so that the log is away; leaders moved;
 * partitions that fall behind; bytes in the log that are nobody's record. Then all is healed and the
 * cluster must come to rest.
 *
 * The model is a fold of what the brokers hold for committed. Oracles
 *   first boot   nobody who began after the cluster did begins another
 *   put out      whoever the log has put out decides nothing
 *   owners       whoever declares a partition its own has opened it, and that opening has caught up
 *   open, close  come in turn
 *   ends         come of being told to leave: none of these faults is a reason to give up
 *   at rest      every node folds to the model's state, is up and may decide; the assignment is the plan for them;
 *                a partition is open where it is assigned, owned there, and nowhere else */
#include "base/test.h"

#include <string.h>

#include "agent/agent_inside.h"
#include "base/time.h"
#include "cluster/members.h"
#include "log/log_kafka.h"
#include "sim/brokers_sim.h"
#include "sim/io_sim.h"

#define NODES_MAX      5
#define PARTITIONS     10
#define SUSPECT_AGE_MS 30000
#define REPAIR_MS      60000
#define STEP_MS_MAX    60
#define FAULTY_MS      300000
#define REST_MS        240000
#define PROCESSES_MAX  512

/* clang-format off */
#define EVENTS(X) \
    X(BOOT) X(KILL) X(FREEZE) X(LEAVE) X(ENDED) X(START) X(CUT_PEER) X(CUT_LOG) X(ISLAND) \
    X(BROKER_DOWN) X(LOG_AWAY) X(LEADER_MOVED) X(BREAK) X(PROBE) X(PROBE_LOST) X(ANSWER) X(NOT_HERE) \
    X(OPEN) X(CLOSE) X(READY) X(READY_LATE) X(TROUBLE) X(REFUSED) X(FOREIGN) X(DAMAGED) X(DECIDES) X(DECIDES_NOT)
/* clang-format on */
enum event {
#define EVENT_ENUM(name) EVENT_##name,
    EVENTS(EVENT_ENUM)
#undef EVENT_ENUM
        EVENT_COUNT,
};
#define EVENT_NAME(name) #name,
static const char *const event_names[] = { EVENTS(EVENT_NAME) };
static uint64_t events[EVENT_COUNT], counted[CONTROL_KIND_END];

struct held {
    uint64_t opening; /* 0: not open */
    bool is_learnt;
};

struct node {
    struct kafka_client *client;
    struct log *log;
    struct agent *agent; /* NULL: not running */
    unsigned process;
    struct held held[PARTITIONS];
    int64_t frozen_until_ms, not_before_ms;
    bool cannot_reach[NODES_MAX];
    bool is_stopping, decided, was_told_to_leave;
};

/* Something that happens later: a message, or an opening that has caught up. */
struct later {
    int64_t at_ms;
    bool is_opening, is_answer;
    uint32_t to, sender;
    unsigned process; /* of whom the opening is */
    struct member_id from, of;
    uint32_t partition;
    uint64_t opening;
};

static struct world {
    struct test_random random;
    struct brokers_sim *sim;
    struct kafka_client *stranger;
    struct io *io;
    struct pool *pool;
    struct node nodes[NODES_MAX];
    uint32_t node_count;
    struct later later[8192];
    size_t later_count;
    struct members *model;
    uint64_t folded, generation;
    int64_t boot_ms; /* when the first INIT was committed */
    int64_t began_ms[PROCESSES_MAX];
    unsigned process_count, plants;
    int64_t resume_ms[3];
    bool is_faulty;
    uint64_t trace;
    char violation[200];
} w;

static uint64_t below(uint64_t bound) { return test_random_below(&w.random, bound); }
static bool chance(uint64_t one_in) { return below(one_in) == 0; }
static int64_t now_ms(void) { return brokers_sim_now_ms(w.sim); }

static void note(enum event event, uint64_t a, uint64_t b)
{
    events[event]++;
    w.trace = hash_mix(w.trace ^ hash_mix((uint64_t)event ^ hash_mix(a ^ hash_mix(b ^ (uint64_t)now_ms()))));
}

/* The first one counts; the life ends with it. */
static void violate(const char *text, uint64_t a, uint64_t b)
{
    if (w.violation[0] == 0)
        snprintf(w.violation, sizeof w.violation, "%s: %llu, %llu at %lld ms", text, (unsigned long long)a,
                 (unsigned long long)b, (long long)now_ms());
}

static uint32_t number_of(const struct node *n) { return (uint32_t)(n - w.nodes); }

static void add_later(struct later later)
{
    assert_true(w.later_count < sizeof w.later / sizeof w.later[0]);
    w.later[w.later_count++] = later;
}

/* ---- what the agents ask for ---- */

static void send(uint32_t from, struct later message)
{
    if (w.nodes[from].cannot_reach[message.to] || (w.is_faulty && chance(30))) {
        note(EVENT_PROBE_LOST, from, message.to);
        return;
    }
    message.sender = from;
    message.at_ms = now_ms() + 1 + (int64_t)below(w.is_faulty ? 300 : 20);
    add_later(message);
}

static void on_probe(void *context, const struct agent_probe *probe)
{
    struct node *n = context;
    uint32_t to = (uint32_t)(probe->address[1] - '0');
    assert_true(probe->address[0] == 'n' && to < w.node_count);
    note(EVENT_PROBE, number_of(n), to);
    send(number_of(n), (struct later){ .to = to, .from = probe->self, .of = probe->of });
}

static void on_open(void *context, uint32_t partition, uint64_t opening)
{
    struct node *n = context;
    struct held *held = &n->held[partition];
    if (held->opening != 0)
        violate("opened twice", number_of(n), partition);
    *held = (struct held){ .opening = opening };
    int64_t takes_ms = 100 + (int64_t)below(w.is_faulty && chance(3) ? 120000 : 10000);
    add_later((struct later){ .at_ms = now_ms() + takes_ms,
                              .is_opening = true,
                              .to = number_of(n),
                              .process = n->process,
                              .partition = partition,
                              .opening = opening });
    note(EVENT_OPEN, number_of(n), partition);
}

static void on_close(void *context, uint32_t partition)
{
    struct node *n = context;
    if (n->held[partition].opening == 0)
        violate("closed twice", number_of(n), partition);
    n->held[partition] = (struct held){ 0 };
    note(EVENT_CLOSE, number_of(n), partition);
}

static void on_trouble(void *context, const char *why)
{
    note(EVENT_TROUBLE, number_of(context), why != NULL);
}

static void on_stop(void *context, const char *why, bool is_error)
{
    struct node *n = context;
    if (getenv("VERBOSE") != NULL)
        printf("# %lld ms: node %u ends: %s\n", (long long)now_ms(), number_of(n), why);
    n->is_stopping = true;
    if (is_error)
        violate("ends with an error", number_of(n), n->process);
    note(EVENT_ENDED, number_of(n), 0);
}

/* ---- the model ---- */

static const struct node *node_of(const struct member *m) { return &w.nodes[m->name[0] - 'a']; }

static bool is_process(const struct member *m, const struct node *n)
{
    return n->agent != NULL && m->process_id[0] == (n->process & 255) && m->process_id[1] == n->process >> 8;
}

static void judge_init(struct slice bytes)
{
    struct control_record record;
    if (control_record_decode(bytes, w.pool, &record) != OK)
        return;
    unsigned process = record.cluster_id[0] | (unsigned)record.cluster_id[1] << 8;
    if (w.boot_ms == 0)
        w.boot_ms = now_ms();
    else if (w.began_ms[process] > w.boot_ms)
        violate("another cluster is begun", process, w.folded);
    note(EVENT_BOOT, process, w.folded);
}

static void judge_owners(void)
{
    for (uint32_t i = 0; i < members_slot_count(w.model); i++) {
        const struct member *m = members_at(w.model, i);
        if (m->status != MEMBER_UP || !is_process(m, node_of(m)))
            continue;
        for (uint32_t p = 0; p < PARTITIONS; p++)
            if (member_owns(m, p) && !node_of(m)->held[p].is_learnt && m->held_at == w.folded)
                violate("owns what it has not opened and read", number_of(node_of(m)), p);
    }
}

static void fold_one(struct slice bytes, int64_t t_ms)
{
    struct members_change change;
    assert_ok(members_apply(w.model, w.folded, t_ms, bytes, &change));
    counted[change.kind] += change.counted;
    w.trace = hash_mix(w.trace ^ hash64(bytes, w.folded));
    if (change.kind == CONTROL_INIT)
        judge_init(bytes);
    if (change.counted && change.kind == CONTROL_OWN)
        judge_owners();
    if (getenv("VERBOSE") != NULL)
        printf("# %lld ms: %llu %s %s\n", (long long)now_ms(), (unsigned long long)w.folded,
               control_kind_text(change.kind), change.counted ? "counts" : change.why);
}

static void fold_committed(void)
{
    struct brokers_sim_record is;
    struct brokers_sim_truth truth = brokers_sim_truth(w.sim, 0, 0);
    if (truth.generation != w.generation)
        violate("the log went back, which is not what these worlds are about", truth.generation, 0);
    for (; w.folded < truth.end_offset; w.folded++)
        if (brokers_sim_truth_record(w.sim, 0, 0, w.folded, &is) && is.bytes.at != NULL &&
            is.bytes.len >= LOG_KAFKA_HEAD_BYTES && is.bytes.at[4] == KAFKA_RECORD_BATCH)
            fold_one(slice_part(is.bytes, LOG_KAFKA_HEAD_BYTES, is.bytes.len - LOG_KAFKA_HEAD_BYTES),
                     is.t_ms);
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

static void judge_decision(struct node *n)
{
    struct agent_view view;
    bool decides = agent_may_decide(n->agent);
    agent_view(n->agent, &view);
    if (decides != n->decided)
        note(decides ? EVENT_DECIDES : EVENT_DECIDES_NOT, number_of(n), 0);
    n->decided = decides;
    if (decides && members_at(w.model, view.self.slot)->status != MEMBER_LEFT &&
        !members_is_current(w.model, view.self))
        violate("whoever was put out decides", number_of(n), view.self.slot);
}

/* ---- nodes ---- */

static void start(struct node *n)
{
    static const struct control_init init = { .partition_count = PARTITIONS,
                                              .replica_count = 2,
                                              .expected_nodes = 3,
                                              .range_bytes_max = 1 << 20,
                                              .settings = { SUSPECT_AGE_MS, REPAIR_MS } };
    static const struct kafka_client_config client = { .record_bytes_max = 70000,
                                                       .send_bytes_max = 1 << 20,
                                                       .read_bytes_max = 1 << 20,
                                                       .linger_ms = 5,
                                                       .socket_timeout_ms = 5000,
                                                       .delivery_ms_max = 10000 };
    const struct log_kafka_config log = { .cluster_id = "the cluster",
                                          .partition_count = 1,
                                          .queue_bytes_max = 1 << 20,
                                          .tail_bytes_max = 100000,
                                          .delivery_ms_max = 10000,
                                          .accept_weak_topic = true,
                                          .is_control = true };
    char name[2] = { (char)('a' + number_of(n)) }, zone[3] = { 'z', (char)('0' + number_of(n) % 3) };
    char address[3] = { 'n', (char)('0' + number_of(n)) };
    struct agent_config config = { .calls = { on_probe, on_open, on_close, on_trouble, on_stop },
                                   .context = n };
    assert_true(++w.process_count < PROCESSES_MAX);
    n->process = w.process_count;
    w.began_ms[n->process] = now_ms();
    config.core.init = &init;
    config.core.init_id[0] = config.core.self.process_id[0] = (uint8_t)n->process;
    config.core.init_id[1] = config.core.self.process_id[1] = (uint8_t)(n->process >> 8);
    config.core.self.disk_id[0] = (uint8_t)(1 + number_of(n));
    config.core.self.name = slice_str(name);
    config.core.self.zone = slice_str(zone);
    config.core.self.address = slice_str(address);
    memset(n->held, 0, sizeof n->held);
    n->is_stopping = n->decided = n->was_told_to_leave = false;
    n->client = brokers_sim_client(w.sim, number_of(n), 0, &client);
    assert_ok(log_kafka_open(&log, n->client, w.io, w.pool, &n->log));
    config.log = n->log;
    assert_ok(agent_open(&config, w.io, w.pool, &n->agent));
    agent_plant(n->agent, w.plants);
    note(EVENT_START, number_of(n), n->process);
}

/* The process dies: nothing of it says good-bye. */
static void end(struct node *n)
{
    struct agent_view view;
    agent_view(n->agent, &view);
    events[EVENT_REFUSED] += view.refused_count;
    events[EVENT_DAMAGED] += view.damaged_count;
    brokers_sim_client_drop(n->client);
    pool_close(((struct log_kafka *)n->log)->pool);
    core_close(n->agent->core);
    pool_close(n->agent->pool);
    n->agent = NULL;
    n->frozen_until_ms = 0;
}

static void run(struct node *n)
{
    if (n->agent == NULL || now_ms() < n->frozen_until_ms)
        return;
    brokers_sim_client_freeze(n->client, false);
    assert_ok(log_pump(n->log));
    agent_step(n->agent);
    judge_decision(n);
    if (n->is_stopping) {
        end(n);
        n->not_before_ms = now_ms() + (int64_t)below(w.is_faulty ? 90000 : 3000);
    }
}

static void ready(const struct later *later)
{
    struct node *n = &w.nodes[later->to];
    if (n->agent == NULL || n->process != later->process)
        return;
    struct held *held = &n->held[later->partition];
    bool is_late = held->opening != later->opening;
    held->is_learnt = held->is_learnt || !is_late;
    note(is_late ? EVENT_READY_LATE : EVENT_READY, later->to, later->partition);
    agent_ready(n->agent, later->partition, later->opening, true);
}

static void deliver(const struct later *m)
{
    struct node *to = &w.nodes[m->to];
    if (m->is_opening) {
        ready(m);
    } else if (to->agent != NULL && m->is_answer) {
        note(EVENT_ANSWER, m->to, m->sender);
        agent_heard(to->agent, m->from);
    } else if (to->agent != NULL) {
        if (agent_asked(to->agent, m->from, m->of))
            send(m->to, (struct later){ .to = m->sender, .from = m->of, .is_answer = true });
        else
            note(EVENT_NOT_HERE, m->to, m->sender);
    }
}

static void deliver_all(void)
{
    for (size_t i = 0; i < w.later_count;) {
        struct later m = w.later[i];
        if (m.at_ms > now_ms() || now_ms() < w.nodes[m.to].frozen_until_ms) {
            i++;
            continue;
        }
        w.later[i] = w.later[--w.later_count];
        deliver(&m);
    }
}

/* ---- faults ---- */

static void cut_from_brokers(uint32_t node, uint32_t but)
{
    for (uint32_t b = 0; b < 3; b++)
        if (b != but) {
            brokers_sim_cut(w.sim, b, BROKERS_SIM_AT_NODE(node), true);
            brokers_sim_cut(w.sim, BROKERS_SIM_AT_NODE(node), b, true);
        }
}

static void cut_from_peers(uint32_t node)
{
    for (uint32_t i = 0; i < w.node_count; i++)
        w.nodes[node].cannot_reach[i] = w.nodes[i].cannot_reach[node] = true;
}

/* A node sees but one broker, and that sees nobody else. */
static void isolate(uint32_t node, uint32_t broker)
{
    cut_from_brokers(node, broker);
    cut_from_peers(node);
    for (uint32_t i = 0; i < w.node_count; i++)
        if (i != node) {
            brokers_sim_cut(w.sim, broker, BROKERS_SIM_AT_NODE(i), true);
            brokers_sim_cut(w.sim, BROKERS_SIM_AT_NODE(i), broker, true);
        }
    for (uint32_t b = 0; b < 4; b++) {
        uint32_t place = b < 3 ? b : BROKERS_SIM_CONTROLLER;
        if (place == broker)
            continue;
        brokers_sim_cut(w.sim, broker, place, true);
        brokers_sim_cut(w.sim, place, broker, true);
    }
}

static void strike_brokers(uint64_t which)
{
    uint32_t b = (uint32_t)below(3);
    if (which == 0) {
        brokers_sim_kill(w.sim, b);
        note(EVENT_BROKER_DOWN, b, 0);
    } else if (which == 1) {
        for (uint32_t i = 0; i < 2; i++) {
            brokers_sim_pause(w.sim, (b + i) % 3);
            w.resume_ms[(b + i) % 3] = now_ms() + 5000 + (int64_t)below(40000);
        }
        note(EVENT_LOG_AWAY, b, 0);
    } else if (which == 2) {
        brokers_sim_move_leader(w.sim, 0, 0, b);
        note(EVENT_LEADER_MOVED, b, 0);
    } else {
        struct slice bytes = slice_str("somebody wrote into the wrong topic");
        if (kafka_produce(w.stranger, 0, &bytes, 1, 1) == OK)
            note(EVENT_FOREIGN, 0, 0);
    }
}

static void run_stranger(void)
{
    struct kafka_event event;
    while (kafka_poll(w.stranger, 0, false, &event) == OK)
        continue;
}

static void strike_node(struct node *n, uint64_t which)
{
    uint32_t p = (uint32_t)below(PARTITIONS), other = (uint32_t)below(w.node_count);
    switch (which) {
    case 4:
        end(n);
        n->not_before_ms = now_ms() + (int64_t)below(chance(3) ? 150000 : 20000);
        note(EVENT_KILL, number_of(n), 0);
        break;
    case 5:
        n->frozen_until_ms = now_ms() + (int64_t)below(chance(3) ? 100000 : 10000);
        brokers_sim_client_freeze(n->client, true);
        note(EVENT_FREEZE, number_of(n), 0);
        break;
    case 6:
        agent_leave(n->agent);
        note(EVENT_LEAVE, number_of(n), 0);
        break;
    case 7:
        n->cannot_reach[other] = true;
        note(EVENT_CUT_PEER, number_of(n), other);
        break;
    case 8:
        cut_from_brokers(number_of(n), UINT32_MAX);
        if (chance(2))
            cut_from_peers(number_of(n));
        note(EVENT_CUT_LOG, number_of(n), 0);
        break;
    case 9:
        isolate(number_of(n), (uint32_t)below(3));
        note(EVENT_ISLAND, number_of(n), 0);
        break;
    default:
        if (!n->held[p].is_learnt)
            return;
        agent_ready(n->agent, p, n->held[p].opening, false);
        add_later((struct later){ .at_ms = now_ms() + (int64_t)below(20000),
                                  .is_opening = true,
                                  .to = number_of(n),
                                  .process = n->process,
                                  .partition = p,
                                  .opening = n->held[p].opening });
        note(EVENT_BREAK, number_of(n), p);
        break;
    }
}

static void strike(void)
{
    uint64_t which = below(11);
    struct node *n = &w.nodes[below(w.node_count)];
    if (which < 4)
        strike_brokers(which);
    else if (n->agent != NULL && now_ms() >= n->frozen_until_ms)
        strike_node(n, which);
}

static void mend_some(void)
{
    for (uint32_t i = 0; i < 3; i++)
        if (now_ms() >= w.resume_ms[i])
            brokers_sim_resume(w.sim, i);
    if (chance(200))
        brokers_sim_start(w.sim, (uint32_t)below(3));
    if (chance(1500)) { /* cuts are healed together: an island lasts a while */
        for (uint32_t a = 0; a < BROKERS_SIM_PLACES_COUNT; a++)
            for (uint32_t b = 0; b < 3; b++) {
                brokers_sim_cut(w.sim, a, b, false);
                brokers_sim_cut(w.sim, b, a, false);
            }
        for (uint32_t i = 0; i < w.node_count; i++)
            memset(w.nodes[i].cannot_reach, 0, sizeof w.nodes[i].cannot_reach);
    }
}

/* ---- lives ---- */

static void step(void)
{
    int64_t ms = 1 + (int64_t)below(STEP_MS_MAX);
    brokers_sim_advance(w.sim, ms);
    io_sim_clock_advance(w.io, ms * NS_PER_MS);
    run_stranger();
    fold_committed();
    deliver_all();
    for (uint32_t i = 0; i < w.node_count; i++) {
        struct node *n = &w.nodes[i];
        if (n->agent == NULL && now_ms() >= n->not_before_ms)
            start(n);
        run(n);
    }
}

static const char *unrest_of(const struct node *n)
{
    struct agent_view view;
    char name[2] = { (char)('a' + number_of(n)) };
    const struct member *m = members_find(w.model, slice_str(name));
    if (n->agent == NULL || m == NULL || m->status != MEMBER_UP || m->is_leaving ||
        m->suspicion != UINT64_MAX)
        return "every node is up, stays, and is not suspected";
    agent_view(n->agent, &view);
    if (view.self.slot != m->id.slot || view.self.incarnation != m->id.incarnation ||
        !agent_may_decide(n->agent))
        return "every node knows itself as the log does, and decides";
    if (view.epoch != members_epoch(w.model) ||
        state_hash(core_members(n->agent->core)) != state_hash(w.model))
        return "every node comes to the model's state";
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        bool is_assigned = members_is_assigned(w.model, p, m->id.slot);
        if (member_owns(m, p) != is_assigned)
            return "who is assigned owns, and nobody else";
        if ((n->held[p].opening != 0) != is_assigned || n->held[p].is_learnt != is_assigned)
            return "a partition is open where it is owned, and nowhere else";
        if (is_assigned && core_rank(n->agent->core, io_boottime_ns(w.io), p) >= 2)
            return "owners are ranked";
    }
    return NULL;
}

static const char *unrest(void)
{
    uint32_t *slots;
    uint64_t placed;
    const char *why = NULL;
    if (members_init(w.model) == NULL || members_assigned(w.model, 0) == NULL)
        return "the cluster has begun";
    for (uint32_t i = 0; i < w.node_count && why == NULL; i++)
        why = unrest_of(&w.nodes[i]);
    if (why != NULL)
        return why;
    assert_ok(members_plan(w.model, w.pool, &slots, &placed));
    return placed != 0 || members_is_assignment_due(w.model) ? "the assignment is the plan for these members"
                                                             : NULL;
}

static void heal(void)
{
    w.is_faulty = false;
    brokers_sim_heal(w.sim);
    brokers_sim_calm(w.sim);
    for (uint32_t i = 0; i < w.node_count; i++) {
        struct node *n = &w.nodes[i];
        memset(n->cannot_reach, 0, sizeof n->cannot_reach);
        n->frozen_until_ms = n->frozen_until_ms > now_ms() ? now_ms() : n->frozen_until_ms;
        n->not_before_ms = 0;
    }
    for (size_t i = 0; i < w.later_count; i++)
        if (w.later[i].at_ms > now_ms() + 10000)
            w.later[i].at_ms = now_ms() + 10000;
}

static void begin(uint64_t seed, unsigned plants)
{
    struct brokers_sim_config config = {
        .broker_count = 3, .zone_count = 3, .topics = { { 1, -1, true } }, .topic_count = 1
    };
    memset(&w, 0, sizeof w);
    w.random.state = seed;
    w.plants = plants;
    w.node_count = 3 + (uint32_t)(seed % 3);
    w.sim = brokers_sim_open(seed, &config);
    assert_ok(io_sim_open(seed, &w.io));
    w.pool = pool_open(NULL, "world", POOL_BYTES_UNLIMITED);
    assert_ok(members_open(w.pool, &w.model));
    w.generation = brokers_sim_truth(w.sim, 0, 0).generation;
    w.stranger = brokers_sim_client(w.sim, BROKERS_SIM_CALM, 0, NULL);
    assert_ok(kafka_producer_start(w.stranger, NULL));
    for (uint32_t i = 0; i < w.node_count; i++)
        w.nodes[i].not_before_ms = (int64_t)below(10000);
}

static void finish(void)
{
    for (uint32_t i = 0; i < w.node_count; i++)
        if (w.nodes[i].agent != NULL)
            end(&w.nodes[i]);
    brokers_sim_client_drop(w.stranger);
    members_close(w.model);
    io_close(w.io);
    pool_close(w.pool);
    brokers_sim_close(w.sim);
}

/* True: no oracle had anything to say. */
static bool live(uint64_t seed, unsigned plants)
{
    const char *why = "";
    begin(seed, plants);
    uint64_t rarity = 100 + below(400);
    w.is_faulty = true;
    while (now_ms() < FAULTY_MS && w.violation[0] == 0) {
        if (chance(rarity))
            strike();
        mend_some();
        step();
    }
    heal();
    for (int64_t until_ms = now_ms() + REST_MS; why != NULL && now_ms() < until_ms && w.violation[0] == 0;) {
        for (int i = 0; i < 30; i++)
            step();
        why = unrest();
    }
    if (why != NULL)
        violate(why, 0, 0);
    finish();
    return w.violation[0] == 0;
}

static void any_life_comes_to_rest(void **state)
{
    struct test_random r = test_random_begin("any_life_comes_to_rest");
    const char *life = getenv("LIFE"), *many = getenv("LIVES");
    uint64_t lives = life != NULL                   ? 1
                     : many != NULL                 ? strtoull(many, NULL, 0)
                     : getenv("KELPIE_SIM") != NULL ? 500
                                                    : 20;
    unsigned missing = 0;
    for (uint64_t i = 0; i < lives; i++) {
        uint64_t seed = life != NULL ? strtoull(life, NULL, 0) : test_random_u64(&r);
        if (!live(seed, 0))
            fail_msg("LIFE=0x%llx: %s", (unsigned long long)seed, w.violation);
    }
    printf("# %llu lives\n", (unsigned long long)lives);
    for (unsigned i = 0; i < EVENT_COUNT; i++) {
        printf("# %s: %llu\n", event_names[i], (unsigned long long)events[i]);
        missing += events[i] == 0;
    }
    for (int k = CONTROL_INIT; k < CONTROL_KIND_END; k++) {
        bool is_by_people = k == CONTROL_REMOVE || k == CONTROL_SUSPEND || k == CONTROL_SET;
        printf("# %s counted: %llu\n", control_kind_text((enum control_kind)k),
               (unsigned long long)counted[k]);
        missing += !is_by_people && counted[k] == 0;
    }
    if (lives >= 20)
        assert_int_equal(missing, 0);
}

static void one_seed_one_history(void **state)
{
    live(5, 0);
    uint64_t first = w.trace;
    live(5, 0);
    assert_true(w.trace == first);
    live(6, 0);
    assert_true(w.trace != first);
}

static void planted_bugs_are_found(void **state)
{
    static const char *const oracles[] = { "another cluster is begun", "whoever was put out decides",
                                           "whoever was put out decides", "owns what it has not opened" };
    for (unsigned plant = 0; plant < sizeof oracles / sizeof *oracles; plant++) {
        uint64_t seed = 1;
        while (seed < 200 && live(seed, 1u << plant))
            seed++;
        printf("# plant %u: life %llu: %s\n", plant, (unsigned long long)seed, w.violation);
        assert_int_equal(strncmp(w.violation, oracles[plant], strlen(oracles[plant])), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_life_comes_to_rest),
        cmocka_unit_test(one_seed_one_history),
        cmocka_unit_test(planted_bugs_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
