/* The world of agent_simtest.c: three to five nodes' agents over one control log: the Kafka driver on simulated
 * brokers, a network of delays and cuts, partitions that take their time to open; one thread, one seed.
 *
 * Faults: nodes killed, frozen, told to leave; cut off from each other, from the brokers, from all but one broker
 * that is itself cut off; brokers killed and frozen, two at once too, so that the log is away; leaders moved;
 * partitions that fall behind, close themselves, hear no end of their log, one node's or all; bytes in the log
 * that are nobody's record. Then all is healed and the cluster must come to rest. In half of the lives readiness
 * is told by looks at partitions, in the others by events.
 *
 * The model is a fold of what the brokers hold for committed. Oracles
 *   first boot   nobody who began after the cluster did begins another
 *   put out      whoever the log has put out, or who was told to leave, decides nothing and has no lease; a node
 *                that was frozen is judged before it takes its first step
 *   there        whoever hangs or knows no log neither answers probes nor sends them as a member
 *   owners       whoever declares a partition its own has opened it, and that opening has caught up
 *   open, close  come in turn
 *   ends         come of being told to leave: none of these faults is a reason to give up
 *   at rest      every node folds to the model's state, is up and may decide; the assignment is the plan for them;
 *                a partition is open where it is assigned, owned there, and nowhere else */
#ifndef SCENARIO_AGENT_WORLD_H
#define SCENARIO_AGENT_WORLD_H

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
#define OWN_MS_MAX     60000 /* an OWN may take so long to come, in a paused broker's socket */

/* clang-format off */
#define EVENTS(X) \
    X(BOOT) X(KILL) X(FREEZE) X(LEAVE) X(ENDED) X(START) X(CUT_PEER) X(CUT_LOG) X(ISLAND) \
    X(BROKER_DOWN) X(LOG_AWAY) X(LEADER_MOVED) X(BREAK) X(PROBE) X(PROBE_LOST) X(ANSWER) X(NOT_HERE) \
    X(OPEN) X(CLOSE) X(READY) X(READY_LATE) X(TROUBLE) X(REFUSED) X(FOREIGN) X(DAMAGED) X(DECIDES) X(DECIDES_NOT) \
    X(LOST) X(OPENED_AGAIN) X(DATA_AWAY) X(DATA_CUT) X(LEASE) X(NO_LEASE) X(MUTE)
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
    bool is_lost;     /* it has closed itself, and nobody found it yet */
    int64_t broke_ms; /* when it was learnt last and ceased to be */
};

struct lease {
    struct member_id self; /* as the agent knew itself then */
    uint32_t rank;
    int64_t until_ns;
};

struct node {
    struct kafka_client *client;
    struct log *log;
    struct agent *agent; /* NULL: not running */
    unsigned process;
    struct held held[PARTITIONS];
    struct lease leases[PARTITIONS];
    int64_t confirmed_ns; /* the last end of the data's log that it heard of */
    int64_t data_cut_until_ms;
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
    int64_t data_away_until_ms;
    bool is_faulty, looks;
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

static bool knows_log(const struct node *n)
{
    return n->agent->known_ns != INT64_MIN &&
           io_boottime_ns(w.io) - n->agent->known_ns < SUSPECT_AGE_MS * NS_PER_MS;
}

static void on_probe(void *context, const struct agent_probe *probe)
{
    struct node *n = context;
    uint32_t to = (uint32_t)(probe->address[1] - '0');
    assert_true(probe->address[0] == 'n' && to < w.node_count);
    note(EVENT_PROBE, number_of(n), to);
    if (probe->self.slot != SLOT_NONE && !knows_log(n))
        violate("who knows no log asks as a member", number_of(n), to);
    send(number_of(n), (struct later){ .to = to, .from = probe->self, .of = probe->of });
}

static void on_open(void *context, uint32_t partition, uint64_t opening)
{
    struct node *n = context;
    struct held *held = &n->held[partition];
    if (held->opening != 0)
        violate("opened twice", number_of(n), partition);
    *held = (struct held){ .opening = opening, .broke_ms = -OWN_MS_MAX };
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

static void on_rank(void *context, uint32_t partition, uint32_t rank, int64_t until_ns)
{
    struct node *n = context;
    struct lease *lease = &n->leases[partition];
    bool has = until_ns > io_boottime_ns(w.io), had = lease->until_ns > io_boottime_ns(w.io);
    if (has != had)
        note(has ? EVENT_LEASE : EVENT_NO_LEASE, number_of(n), partition);
    *lease = (struct lease){ { .slot = SLOT_NONE }, rank, until_ns };
    core_self(n->agent->core, &lease->self);
}

/* As the opener would: what is found closed is opened again. */
static void open_again(struct node *n, uint32_t partition)
{
    struct held *held = &n->held[partition];
    held->is_lost = false;
    add_later((struct later){ .at_ms = now_ms() + 100 + (int64_t)below(10000),
                              .is_opening = true,
                              .to = number_of(n),
                              .process = n->process,
                              .partition = partition,
                              .opening = held->opening });
    note(EVENT_OPENED_AGAIN, number_of(n), partition);
}

static struct agent_progress on_progress(void *context, uint32_t partition, uint64_t opening)
{
    struct node *n = context;
    if (n->held[partition].opening != opening)
        violate("another opening is looked at", number_of(n), partition);
    if (n->held[partition].is_lost)
        open_again(n, partition);
    if (now_ms() >= w.data_away_until_ms && now_ms() >= n->data_cut_until_ms)
        n->confirmed_ns = io_boottime_ns(w.io);
    return n->held[partition].is_learnt ? (struct agent_progress){ true, 1, 1, n->confirmed_ns }
                                        : (struct agent_progress){ 0 };
}

static void on_trouble(void *context, const char *why)
{
    note(EVENT_TROUBLE, number_of(context), why != NULL);
}

static void on_stop(void *context, const char *why, enum core_end end)
{
    struct node *n = context;
    if (getenv("VERBOSE") != NULL)
        printf("# %lld ms: node %u ends: %s\n", (long long)now_ms(), number_of(n), why);
    n->is_stopping = true;
    if (end != CORE_LEFT)
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
            if (member_owns(m, p) && !node_of(m)->held[p].is_learnt && m->held_at == w.folded &&
                now_ms() - node_of(m)->held[p].broke_ms >= OWN_MS_MAX)
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
    if (decides && !members_is_current(w.model, view.self))
        violate("whoever was put out decides", number_of(n), view.self.slot);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        if (n->leases[p].until_ns > io_boottime_ns(w.io) &&
            (n->held[p].opening == 0 || !members_is_current(w.model, n->leases[p].self)))
            violate("whoever was put out has a lease", number_of(n), p);
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
    struct agent_config config = { .calls = { on_probe, on_open, on_close, on_trouble, on_stop, on_rank,
                                              w.looks ? on_progress : NULL },
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
    for (uint32_t p = 0; p < PARTITIONS; p++)
        n->leases[p].until_ns = INT64_MIN;
    n->confirmed_ns = INT64_MIN;
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
    judge_decision(n); /* its threads may run before the agent's does */
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
    note(is_late ? EVENT_READY_LATE : EVENT_READY, later->to, later->partition);
    if (held->is_lost && !is_late)
        return; /* what was under way when it closed itself */
    held->is_learnt = held->is_learnt || !is_late;
    if (is_late || !w.looks)
        agent_ready(n->agent, later->partition, later->opening, true);
}

/* A probe of it, at any moment. */
static bool answers(struct node *n, const struct later *m)
{
    bool does = agent_asked(n->agent, m->from, m->of);
    if (does &&
        (!knows_log(n) || io_boottime_ns(w.io) - n->agent->view.stepped_ns >= AGENT_LEASE_MS * NS_PER_MS))
        violate("who knows no log answers, or hangs", number_of(n), m->sender);
    if (!does && !knows_log(n))
        note(EVENT_MUTE, number_of(n), m->sender);
    return does;
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
        if (answers(to, m))
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

#endif
