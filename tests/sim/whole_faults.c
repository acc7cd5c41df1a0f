/* What strikes the whole cluster in a life: drawn from the seed before it begins, so that any of it can be left
 * out and the rest stays as it is. See whole.h.
 *
 * Each fault has a time and, mostly, an end at which it is undone. The control log never goes back: all its
 * processes end then, and a person has to come (docs/status.md); so at most one broker loses its power at a time,
 * while the others run. */
#include "sim/whole.h"

#define FIRST_MS 60000 /* the cluster has begun by then */

const char *fault_name(enum fault_kind kind)
{
#define FAULT_NAME(name) #name,
    static const char *const names[] = { FAULT_KINDS(FAULT_NAME) };
    return names[kind];
}

/* ---- the plan ---- */

static bool may_be(const struct whole *w, enum fault_kind kind)
{
    return kind != FAULT_LOG_BACK || w->goes_back;
}

/* How long it lasts: mostly seconds, sometimes longer than anybody's patience. */
static int64_t lasts_ms(struct test_random *r)
{
    return 1000 + (int64_t)test_random_below(r, test_random_below(r, 3) == 0 ? 90000 : 12000);
}

void faults_plan(struct whole *w)
{
    struct test_random r = { .state = w->seed ^ 0xfa017 };
    uint64_t mean_ms = 15000 + test_random_below(&r, 60000);
    for (int64_t at_ms = FIRST_MS; w->fault_count < FAULTS_MAX;) {
        at_ms += (int64_t)test_random_below(&r, 2 * mean_ms);
        if (at_ms >= w->faulty_ms)
            return;
        struct fault f = { .at_ms = at_ms,
                           .kind = (enum fault_kind)test_random_below(&r, FAULT_KIND_COUNT),
                           .node = (uint32_t)test_random_below(&r, w->node_count),
                           .other = (uint32_t)test_random_below(&r, w->node_count),
                           .broker = (uint32_t)test_random_below(&r, 3),
                           .x = test_random_u64(&r) };
        f.for_ms = lasts_ms(&r);
        if (f.kind == FAULT_BUCKET_AWAY && f.x % 4 == 0) /* longer than the log keeps what it has */
            f.for_ms = RETENTION_MS + (int64_t)(f.x / 4 % (uint64_t)(RETENTION_MS / 2));
        if (may_be(w, f.kind))
            w->faults[w->fault_count++] = f;
    }
}

/* ---- the log's brokers ---- */

static void cut_from_brokers(struct whole *w, uint32_t node, uint32_t but, bool is_cut)
{
    for (uint32_t b = 0; b < 3; b++)
        if (b != but) {
            brokers_sim_cut(w->brokers, b, BROKERS_SIM_AT_NODE(node), is_cut);
            brokers_sim_cut(w->brokers, BROKERS_SIM_AT_NODE(node), b, is_cut);
        }
}

static void cut_from_peers(struct whole *w, uint32_t node, bool is_cut)
{
    for (uint32_t i = 0; i < w->node_count; i++)
        if (i != node)
            w->nodes[node].cannot_reach[i] = w->nodes[i].cannot_reach[node] = is_cut;
}

/* A node sees but one broker, and both nobody else: a zone that is cut off. */
static void island(struct whole *w, const struct fault *f, bool is_cut)
{
    cut_from_brokers(w, f->node, f->broker, is_cut);
    cut_from_peers(w, f->node, is_cut);
    for (uint32_t place = 0; place < BROKERS_SIM_PLACES_COUNT; place++)
        if (place != f->broker && place != BROKERS_SIM_AT_NODE(f->node)) {
            brokers_sim_cut(w->brokers, f->broker, place, is_cut);
            brokers_sim_cut(w->brokers, place, f->broker, is_cut);
        }
}

static bool are_brokers_well(const struct whole *w)
{
    bool is_well = true;
    for (size_t i = 0; i < w->fault_count; i++) {
        const struct fault *f = &w->faults[i];
        bool is_of_brokers = f->kind >= FAULT_BROKER_KILL && f->kind <= FAULT_BROKER_SLOW;
        bool is_near = f->is_on || (f->has_struck && whole_now_ms() < f->at_ms + f->for_ms + 30000);
        is_well = is_well && !((is_of_brokers || f->kind == FAULT_ISLAND) && is_near);
    }
    return is_well;
}

static void log_back(struct whole *w, const struct fault *f)
{
    uint32_t partition = (uint32_t)(f->x % PARTITIONS);
    struct brokers_sim_truth truth = brokers_sim_truth(w->brokers, TOPIC_DATA, partition);
    uint64_t back = f->x / PARTITIONS % 12;
    uint64_t end =
        truth.end_offset - truth.start_offset > back ? truth.end_offset - back : truth.start_offset;
    brokers_sim_truncate_last_replica(w->brokers, TOPIC_DATA, partition, end);
}

/* False: not now. */
static bool strike_broker(struct whole *w, const struct fault *f, bool is_on)
{
    uint32_t other = (uint32_t)(f->x % 4), place = other == 3 ? BROKERS_SIM_CONTROLLER : other;
    switch (f->kind) {
    case FAULT_BROKER_KILL:
        if (is_on && !are_brokers_well(w))
            return false;
        is_on ? brokers_sim_kill(w->brokers, f->broker) : brokers_sim_start(w->brokers, f->broker);
        return true;
    case FAULT_BROKER_POWER:
        if (is_on && !are_brokers_well(w))
            return false;
        is_on ? brokers_sim_lose_power(w->brokers, f->broker) : brokers_sim_start(w->brokers, f->broker);
        return true;
    case FAULT_BROKER_PAUSE:
        is_on ? brokers_sim_pause(w->brokers, f->broker) : brokers_sim_resume(w->brokers, f->broker);
        return true;
    case FAULT_BROKER_CUT:
        brokers_sim_cut(w->brokers, f->broker, place, is_on);
        return true;
    case FAULT_BROKER_SLOW:
        brokers_sim_slow(w->brokers, f->broker, is_on ? (int64_t)(f->x % 1500) : 0);
        return true;
    case FAULT_LEADER_MOVE:
        if (is_on)
            brokers_sim_move_leader(w->brokers, f->x % 5 == 0 ? TOPIC_CONTROL : TOPIC_DATA,
                                    f->x % 5 == 0 ? 0 : (uint32_t)(f->x / 5 % PARTITIONS), f->broker);
        return true;
    default:
        if (is_on)
            log_back(w, f);
        return true;
    }
}

/* ---- the bucket ---- */

static void strike_bucket(struct whole *w, const struct fault *f, bool is_on)
{
    static const struct bucket_sim_odds bad = { .lost = 12,
                                                .unavailable = 6,
                                                .slow = 4,
                                                .reply_lost = 6,
                                                .conflict = 8,
                                                .late = 20,
                                                .partial = 4 },
                                        good = { 0 };
    if (f->kind == FAULT_BUCKET_BAD)
        bucket_sim_set_odds(w->bucket, is_on ? &bad : &good);
    for (uint32_t i = 0; i < w->node_count; i++)
        if (f->kind == FAULT_BUCKET_AWAY || (f->kind == FAULT_BUCKET_CUT && i == f->node))
            bucket_sim_cut(w->bucket, i, is_on);
}

/* ---- nodes ---- */

static void stay_away(struct whole_node *n, const struct fault *f)
{
    n->not_before_ms = whole_now_ms() + f->for_ms;
}

static void strike_process(struct whole *w, struct whole_node *n, const struct fault *f)
{
    switch (f->kind) {
    case FAULT_NODE_KILL:
        node_kill(n, false);
        return stay_away(n, f);
    case FAULT_NODE_POWER:
        node_kill(n, true);
        return stay_away(n, f);
    case FAULT_NODE_WIPE:
        node_wipe(n);
        return stay_away(n, f);
    case FAULT_NODE_FREEZE:
        return node_freeze(n, f->for_ms);
    case FAULT_NODE_LEAVE:
        if (n->process != NULL)
            n->process->is_told_to_leave = true;
        return;
    default:
        if (n->process != NULL && n->process->shards != NULL)
            shards_partition_close(n->process->shards, (uint32_t)(f->x % PARTITIONS));
    }
}

static void strike_ways(struct whole *w, struct whole_node *n, const struct fault *f, bool is_on)
{
    switch (f->kind) {
    case FAULT_PEER_CUT:
        if (f->other != f->node)
            n->cannot_reach[f->other] = is_on;
        return;
    case FAULT_PEER_LOSS:
        n->loss_one_in = is_on ? 2 + (uint32_t)(f->x % 8) : 0;
        return;
    case FAULT_PEER_SLOW:
        n->slow_ms = is_on ? (int64_t)(f->x % 1500) : 0;
        return;
    case FAULT_PEERS_CUT:
        return cut_from_peers(w, f->node, is_on);
    case FAULT_LOG_CUT:
        return cut_from_brokers(w, f->node, UINT32_MAX, is_on);
    default:
        return island(w, f, is_on);
    }
}

static void strike_machine(struct whole *w, struct whole_node *n, const struct fault *f, bool is_on)
{
    int64_t jump_ms = (int64_t)(f->x % 7200000) - 3600000;
    switch (f->kind) {
    case FAULT_DISK:
        if (is_on)
            io_sim_fault_at(n->io, 1 + f->x % 40, f->x % 3 == 0, f->x % 2 == 0 ? ERR_IO : ERR_SPACE);
        else
            io_sim_fault_at(n->io, 0, false, OK);
        return;
    case FAULT_CLOCK_JUMP:
        return io_sim_clock_jump_ms(n->io, is_on ? jump_ms : -jump_ms);
    default:
        n->drift_ppm = is_on ? (int64_t)(f->x % 401) - 200 : 0;
    }
}

/* ---- all ---- */

static bool strike(struct whole *w, const struct fault *f, bool is_on)
{
    struct whole_node *n = &w->nodes[f->node];
    if (f->kind <= FAULT_PARTITION_CLOSED) {
        if (is_on)
            strike_process(w, n, f);
    } else if (f->kind <= FAULT_ISLAND)
        strike_ways(w, n, f, is_on);
    else if (f->kind <= FAULT_LOG_BACK)
        return strike_broker(w, f, is_on);
    else if (f->kind <= FAULT_BUCKET_BAD)
        strike_bucket(w, f, is_on);
    else
        strike_machine(w, n, f, is_on);
    return true;
}

static void undo(struct whole *w, struct fault *f)
{
    f->is_on = false;
    (void)strike(w, f, false);
}

void faults_pass(struct whole *w)
{
    for (size_t i = 0; i < w->fault_count; i++) {
        struct fault *f = &w->faults[i];
        if (f->is_on && whole_now_ms() >= f->at_ms + f->for_ms)
            undo(w, f);
        if (f->is_left_out || f->has_struck || f->is_skipped || whole_now_ms() < f->at_ms)
            continue;
        f->is_on = f->has_struck = strike(w, f, true);
        f->is_skipped = !f->has_struck;
        w->fault_counts[f->kind] += f->has_struck;
        if (whole_is_verbose())
            printf("# %lld ms: %s of node %u, %u, broker %u for %lld ms\n", (long long)whole_now_ms(),
                   fault_name(f->kind), f->node, f->other, f->broker, (long long)f->for_ms);
    }
}

void faults_heal(struct whole *w)
{
    for (size_t i = 0; i < w->fault_count; i++)
        if (w->faults[i].is_on)
            undo(w, &w->faults[i]);
    w->fault_count = 0;
    w->is_faulty = false;
    brokers_sim_heal(w->brokers);
    brokers_sim_calm(w->brokers);
    for (uint32_t i = 0; i < w->node_count; i++) {
        w->nodes[i].not_before_ms = 0;
        if (w->nodes[i].frozen_until_ms != 0)
            w->nodes[i].frozen_until_ms = whole_now_ms();
    }
}
