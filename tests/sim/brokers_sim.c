/* The simulated brokers: time, replication, the controller, and the world's faults.
 *
 *   produce request ─ leader appends ─ followers fetch ─ high watermark ─ answer
 *                                            └→ the truth: what was committed, for oracles
 *
 * The controller is one and always there; what it decided reaches brokers later, and who is paused or cut off goes
 * on as before: a zombie takes requests into a log that will be cut back, and answers with its old ends.
 *
 * Invariants
 *   1. Everything happens in `advance`, in the order of time; chance comes from the seed.
 *   2. A leader's in-sync set contains the controller's, so it commits nothing that a successor lacks. There are
 *      no unclean elections; the setting is only told.
 *   3. The truth grows with high watermarks and shrinks only in judge_leader, which records it. */
#include "base/check.h"
#include "base/hash.h"
#include "sim/brokers_sim_inside.h"

#define TICK_MS     100
#define PATIENCE_MS 5000 /* of a broker with a produce request that waits for followers */

#define COUNT_NAME(name) #name,
static const char *const count_names[] = { BROKERS_SIM_COUNTS(COUNT_NAME) };
const char *brokers_sim_count_name(enum brokers_sim_count count) { return count_names[count]; }
const uint64_t *brokers_sim_counts(const struct brokers_sim *sim) { return sim->counts; }
uint64_t brokers_sim_trace(const struct brokers_sim *sim) { return sim->trace; }
size_t brokers_sim_bytes(const struct brokers_sim *sim) { return pool_used(sim->pool); }
int64_t brokers_sim_now_ms(const struct brokers_sim *sim) { return sim->now_ms; }

/* ---- chance and time ---- */

uint64_t sim_below(struct brokers_sim *sim, uint64_t bound)
{
    sim->random += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    return hash_mix(sim->random) % bound;
}

bool sim_chance(struct brokers_sim *sim, uint64_t one_in)
{
    return one_in != 0 && sim_below(sim, one_in) == 0;
}

void sim_trace(struct brokers_sim *sim, uint64_t a, uint64_t b)
{
    sim->trace = hash_mix(sim->trace ^ hash_mix(a ^ hash_mix(b ^ (uint64_t)sim->now_ms)));
}

static bool is_before(const struct action *a, const struct action *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

void sim_at(struct brokers_sim *sim, int64_t delay_ms, struct action action)
{
    check(pool_block_reserve(sim->pool, (void **)&sim->heap, sizeof action, sim->heap_count + 1,
                             &sim->heap_capacity) == OK);
    action.at_ms = sim->now_ms + (delay_ms > 0 ? delay_ms : 0);
    action.order = ++sim->orders;
    size_t i = sim->heap_count++;
    for (; i > 0 && is_before(&action, &sim->heap[(i - 1) / 2]); i = (i - 1) / 2)
        sim->heap[i] = sim->heap[(i - 1) / 2];
    sim->heap[i] = action;
}

static struct action pop(struct brokers_sim *sim)
{
    struct action first = sim->heap[0], last = sim->heap[--sim->heap_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < sim->heap_count; i = child) {
        if (child + 1 < sim->heap_count && is_before(&sim->heap[child + 1], &sim->heap[child]))
            child++;
        if (!is_before(&sim->heap[child], &last))
            break;
        sim->heap[i] = sim->heap[child];
    }
    sim->heap[i] = last;
    return first;
}

/* ---- small questions ---- */

bool broker_runs(const struct brokers_sim *sim, int32_t broker)
{
    const struct broker *b = &sim->brokers[broker];
    return b->power == POWER_UP && !b->is_paused && !b->is_booting;
}

bool brokers_sim_is_up(const struct brokers_sim *sim, uint32_t broker)
{
    return broker_runs(sim, (int32_t)broker);
}

uint32_t brokers_sim_zone(const struct brokers_sim *sim, uint32_t broker)
{
    return broker % (sim->config.zone_count == 0 ? 1 : sim->config.zone_count);
}

int64_t broker_delay_ms(struct brokers_sim *sim, int32_t broker)
{
    return 1 + (int64_t)sim_below(sim, sim->odds.net_ms) + sim->brokers[broker].slow_ms;
}

static bool are_linked(const struct brokers_sim *sim, uint32_t a, uint32_t b)
{
    return !sim->is_cut[a][b] && !sim->is_cut[b][a];
}

struct part *part_at(struct brokers_sim *sim, uint32_t topic, uint32_t partition)
{
    struct topic *t = &sim->topics[topic];
    return t->life == 0 || partition >= t->settings.partition_count ? NULL : t->parts[partition];
}

static bool is_in(uint32_t set, uint32_t broker) { return set >> broker & 1; }
static uint32_t size_of(uint32_t set) { return (uint32_t)__builtin_popcount(set); }

/* Every partition ever made: `for (each_part)`, with t and p as its place. */
#define each_part(sim, part)                                    \
    uint32_t t = 0;                                             \
    t < (sim)->config.topic_count; t++)                  \
        for (uint32_t p = 0; p < (sim)->topics[t].parts_made &&          \
                             ((part) = (sim)->topics[t].parts[p]); p++

/* ---- the truth ---- */

void part_shorten_truth(struct brokers_sim *sim, struct part *part, uint64_t at)
{
    for (uint64_t i = at > part->truth.start ? at : part->truth.start; i < part->truth.end; i++)
        if (log_sim_at(&part->truth, i)->blob != NULL)
            log_sim_at(&part->truth, i)->blob->truth_refs--;
    check(pool_block_reserve(sim->pool, (void **)&part->backs, sizeof *part->backs, part->back_count + 1,
                             &part->back_capacity) == OK);
    part->backs[part->back_count] =
        (struct brokers_sim_back){ part->back_count, at, part->truth.end, sim->now_ms };
    part->back_count++;
    log_sim_truncate(sim, &part->truth, at);
    if (at < part->truth.start)
        log_sim_reset(sim, &part->truth, at);
    COUNT(sim, LOG_WENT_BACK);
    sim_trace(sim, 0xbac, at);
}

/* Does the leader that begins have all that was committed? (One that was chosen and is dead loses nothing.) */
static void judge_leader(struct brokers_sim *sim, struct part *part)
{
    const struct log_sim *log = &part->replica[part->leader].log;
    uint64_t at = log->end < part->truth.end ? log->end : part->truth.end;
    uint64_t lowest = log->start > part->truth.start ? log->start : part->truth.start;
    while (at > lowest && log_sim_at(log, at - 1)->epoch != log_sim_at(&part->truth, at - 1)->epoch)
        at--;
    if (at < part->truth.end)
        part_shorten_truth(sim, part, at);
}

static void lengthen_truth(struct brokers_sim *sim, struct part *part, const struct replica *r)
{
    const struct log_sim *leader = part->leader == NOBODY ? &r->log : &part->replica[part->leader].log;
    if (r->life != sim->topics[part->topic].life)
        return;
    if (part->truth.end < r->log.start)
        log_sim_reset(sim, &part->truth, r->log.start);
    while (part->truth.end < r->hw) {
        uint64_t at = part->truth.end;
        const struct entry *entry = log_sim_at(&r->log, at);
        if (at < leader->start || at >= leader->end || log_sim_at(leader, at)->epoch != entry->epoch)
            return;
        log_sim_push(sim, &part->truth, *entry);
        if (entry->blob != NULL && entry->blob->truth_refs++ > 0)
            COUNT(sim, STORED_TWICE);
    }
}

struct brokers_sim_truth brokers_sim_truth(const struct brokers_sim *sim, uint32_t topic, uint32_t partition)
{
    const struct part *part = part_at((struct brokers_sim *)sim, topic, partition);
    if (part == NULL)
        return (struct brokers_sim_truth){ 0 };
    return (struct brokers_sim_truth){ part->back_count, part->truth.start, part->truth.end };
}

const struct brokers_sim_back *brokers_sim_backs(const struct brokers_sim *sim, uint32_t topic,
                                                 uint32_t partition, size_t *out_count)
{
    const struct topic *t = &sim->topics[topic];
    *out_count = partition < t->parts_made ? t->parts[partition]->back_count : 0;
    return *out_count == 0 ? NULL : t->parts[partition]->backs;
}

bool brokers_sim_truth_record(const struct brokers_sim *sim, uint32_t topic, uint32_t partition,
                              uint64_t offset, struct brokers_sim_record *out)
{
    const struct part *part = part_at((struct brokers_sim *)sim, topic, partition);
    if (part == NULL || offset < part->truth.start || offset >= part->truth.end)
        return false;
    const struct entry *entry = log_sim_at(&part->truth, offset);
    *out = (struct brokers_sim_record){ .leader_epoch = entry->epoch,
                                        .producer = entry->producer,
                                        .t_ms = entry->t_ms };
    if (entry->blob != NULL)
        out->bytes = slice_of(entry->blob->bytes, entry->blob->len);
    return true;
}

/* ---- produce requests ---- */

void request_free(struct brokers_sim *sim, struct request *request)
{
    for (uint32_t i = 0; i < request->count; i++)
        blob_drop(sim, request->records[i].blob);
    pool_block_free(sim->pool, request);
}

void request_vanish(struct brokers_sim *sim, struct request *request)
{
    struct client *client = request->client;
    if (client->life == request->client_life && client->connection[request->broker] == request->connection)
        client->is_broken[request->broker] = true;
    COUNT(sim, REPLY_LOST);
    request_free(sim, request);
}

/* Send the answer, if it can get through. */
void request_done(struct brokers_sim *sim, struct request *request, enum answer answer)
{
    struct client *client = request->client;
    request->answer = answer;
    request->next = NULL;
    bool is_of_now =
        client->life == request->client_life && client->connection[request->broker] == request->connection;
    bool is_lost = !client->is_calm && sim_chance(sim, sim->odds.lost_one_in);
    if (!is_of_now && answer == ANSWER_OK)
        COUNT(sim, STORED_AFTER_GIVEN_UP);
    if (!is_of_now || !client_hears(client, request->broker) || client->is_broken[request->broker] ||
        is_lost) {
        request_vanish(sim, request);
        return;
    }
    int64_t at_ms = sim->now_ms + client_delay_ms(client, request->broker);
    if (at_ms < client->answered_ms[request->broker])
        at_ms = client->answered_ms[request->broker];
    client->answered_ms[request->broker] = at_ms;
    sim_at(sim, at_ms - sim->now_ms,
           (struct action){
               .kind = ACTION_ANSWER, .client = client, .client_life = client->life, .request = request });
}

/* All that wait at a leader that is none any more, or that died (without a word, if power went). */
static void refuse_waiting(struct brokers_sim *sim, struct replica *r, enum answer answer, bool is_silent)
{
    while (r->waiting != NULL) {
        struct request *request = r->waiting;
        r->waiting = request->next;
        if (is_silent)
            request_vanish(sim, request);
        else
            request_done(sim, request, answer);
    }
}

static void kick_followers(struct brokers_sim *sim, struct part *part, uint32_t leader)
{
    for (uint32_t f = 0; f < sim->config.broker_count; f++) {
        struct replica *r = &part->replica[f];
        if (f == leader || !is_in(part->replicas, f) || r->is_fetching)
            continue;
        r->is_fetching = true;
        sim_at(sim, broker_delay_ms(sim, (int32_t)f) + sim->brokers[leader].slow_ms,
               (struct action){ .kind = ACTION_REPLICATE, .part = part, .broker = f });
    }
}

/* The high watermark follows the slowest of those in sync; what it passes is committed. */
static void advance_hw(struct brokers_sim *sim, struct part *part, uint32_t leader)
{
    struct replica *r = &part->replica[leader];
    uint64_t hw = r->log.end;
    for (uint32_t i = 0; i < sim->config.broker_count; i++)
        if (i != leader && is_in(r->isr, i) && r->match[i] < hw)
            hw = r->match[i];
    if (hw <= r->hw)
        return;
    r->hw = hw;
    lengthen_truth(sim, part, r);
    const struct kafka_topic *settings = &sim->topics[part->topic].settings;
    for (struct request **at = &r->waiting; *at != NULL;) {
        struct request *request = *at;
        if (request->first + request->count > hw) {
            at = &request->next;
            continue;
        }
        *at = request->next;
        bool is_few = size_of(r->isr) < (uint32_t)settings->min_insync_replicas;
        if (is_few)
            COUNT(sim, FEW_REPLICAS_AFTER);
        request_done(sim, request, is_few ? ANSWER_FEW_AFTER : ANSWER_OK);
    }
    clients_wake_readers(sim, part, leader);
    kick_followers(sim, part, leader);
}

static void append(struct brokers_sim *sim, struct part *part, struct request *request)
{
    struct replica *r = &part->replica[request->broker];
    bool is_broker_clock = sim->topics[part->topic].settings.is_append_time;
    request->first = r->log.end;
    for (uint32_t i = 0; i < request->count; i++) {
        int64_t t_ms = is_broker_clock ? START_WALL_MS + sim->now_ms + sim->brokers[request->broker].skew_ms
                                       : request->records[i].t_ms;
        replica_append(sim, r,
                       (struct entry){ .blob = request->records[i].blob,
                                       .producer = request->producer,
                                       .sequence = request->base + i,
                                       .epoch = r->epoch,
                                       .t_ms = t_ms });
    }
    if (!sim->config.is_gapless && sim_chance(sim, sim->odds.gap_one_in)) {
        replica_append(sim, r, (struct entry){ .epoch = r->epoch, .t_ms = START_WALL_MS + sim->now_ms });
        COUNT(sim, CONTROL_RECORD);
    }
    if (part->leader != request->broker)
        COUNT(sim, APPENDED_BY_ZOMBIE);
    sim_trace(sim, request->first, (uint64_t)request->broker << 32 | request->count);
}

/* Whether the broker has the request's records already, or misses some before them. ANSWER_OK: neither. */
static enum answer look_up(struct brokers_sim *sim, struct replica *r, struct request *request, bool *out_has)
{
    const struct producer_memory *known = replica_producer(r, request->producer);
    *out_has = false;
    if (known == NULL ||
        known->next_sequence == request->base) /* of a producer not known any start will do */
        return ANSWER_OK;
    bool is_old = known->next_sequence - request->base > WINDOW;
    if (request->base + request->count > known->next_sequence ||
        (!is_old && known->offsets[request->base % WINDOW] == KAFKA_OFFSET_UNKNOWN)) {
        COUNT(sim, SEQUENCE_GAP);
        return ANSWER_GAP;
    }
    COUNT(sim, DEDUPED);
    if (is_old || sim_chance(sim, 4 * sim->odds.fatal_one_in))
        return ANSWER_OLD_DOUBLE;
    *out_has = true;
    request->first = known->offsets[request->base % WINDOW];
    return ANSWER_OK;
}

static enum answer take_produce(struct brokers_sim *sim, struct request *request)
{
    struct topic *topic = &sim->topics[request->topic];
    struct part *part = request->partition < topic->parts_made ? topic->parts[request->partition] : NULL;
    struct replica *r = part == NULL ? NULL : &part->replica[request->broker];
    bool has;
    if (request->client->is_denied)
        return ANSWER_DENIED;
    if (r == NULL || r->life == 0)
        return ANSWER_UNKNOWN_TOPIC;
    if (r->leader != request->broker) {
        COUNT(sim, REFUSED_NOT_LEADER);
        return ANSWER_NOT_LEADER;
    }
    for (uint32_t i = 0; i < request->count; i++) {
        if (request->records[i].blob->len > (uint64_t)topic->settings.max_message_bytes) {
            COUNT(sim, REFUSED_TOO_LARGE);
            return ANSWER_TOO_LARGE;
        }
    }
    if (size_of(r->isr) < (uint32_t)topic->settings.min_insync_replicas) {
        COUNT(sim, REFUSED_FEW_REPLICAS);
        return ANSWER_FEW_REPLICAS;
    }
    enum answer answer = look_up(sim, r, request, &has);
    if (answer != ANSWER_OK)
        return answer;
    if (!has)
        append(sim, part, request);
    if (has && request->first + request->count <= r->hw)
        return ANSWER_OK;
    struct request **last = &r->waiting;
    while (*last != NULL)
        last = &(*last)->next;
    request->next = NULL;
    request->give_up_ms = sim->now_ms + PATIENCE_MS;
    *last = request;
    kick_followers(sim, part, (uint32_t)request->broker);
    advance_hw(sim, part, (uint32_t)request->broker);
    return ANSWER_TIMEOUT; /* it waits */
}

static void on_request(struct brokers_sim *sim, struct request *request)
{
    struct broker *b = &sim->brokers[request->broker];
    if (b->power == POWER_OFF) {
        request_vanish(sim, request);
    } else if (b->power == POWER_KILLED || b->is_booting) {
        request_done(sim, request, ANSWER_DISCONNECT);
    } else if (b->is_paused) {
        request->next = NULL;
        *b->inbox_tail = request;
        b->inbox_tail = &request->next;
    } else {
        enum answer answer = take_produce(sim, request);
        if (answer != ANSWER_TIMEOUT)
            request_done(sim, request, answer);
    }
}

/* ---- replication ---- */

/* Cut the follower back to where it agrees with the leader, epoch by epoch (KIP-101, KIP-279). */
static void agree(struct brokers_sim *sim, struct replica *f, const struct replica *l)
{
    uint64_t before = f->log.end;
    while (f->epoch_count > 0) {
        int32_t own, epoch = f->epochs[f->epoch_count - 1].epoch, theirs;
        int64_t end = replica_epoch_end(l, epoch, &theirs);
        if (end < 0) { /* the leader never heard of such an epoch: it has none of ours */
            f->epoch_count--;
            replica_truncate(sim, f, f->epochs[f->epoch_count].at);
            continue;
        }
        int64_t own_end = replica_epoch_end(f, theirs, &own);
        replica_truncate(sim, f, (uint64_t)(own_end >= 0 && own_end < end ? own_end : end));
        while (f->epoch_count > 0 && f->epochs[f->epoch_count - 1].epoch > theirs)
            f->epoch_count--;
        if (theirs == epoch)
            break;
    }
    if (f->epoch_count == 0 && f->log.end > f->log.start)
        replica_reset(sim, f, l->log.start);
    if (f->log.end < before)
        COUNT(sim, FOLLOWER_CUT_BACK);
    f->must_agree = false;
}

static struct replica *leader_of(struct brokers_sim *sim, struct part *part, uint32_t f)
{
    struct replica *r = &part->replica[f];
    if (r->life == 0 || r->leader == NOBODY || r->leader == (int32_t)f || !broker_runs(sim, (int32_t)f) ||
        !broker_runs(sim, r->leader) || !are_linked(sim, f, (uint32_t)r->leader))
        return NULL;
    struct replica *l = &part->replica[r->leader];
    return l->leader == r->leader && l->epoch == r->epoch && l->life == r->life ? l : NULL;
}

static bool may_change_isr(struct brokers_sim *sim, const struct part *part, uint32_t leader)
{
    const struct replica *r = &part->replica[leader];
    return part->leader == (int32_t)leader && part->epoch == r->epoch &&
           r->life == sim->topics[part->topic].life && broker_runs(sim, (int32_t)leader) &&
           are_linked(sim, leader, BROKERS_SIM_CONTROLLER);
}

static void set_isr(struct brokers_sim *sim, struct part *part, uint32_t isr)
{
    part->isr = isr;
    part->version = ++sim->version;
    part->replica[part->leader].isr = isr;
    advance_hw(sim, part, (uint32_t)part->leader);
}

static void replicate(struct brokers_sim *sim, struct part *part, uint32_t follower)
{
    struct replica *f = &part->replica[follower], *l = leader_of(sim, part, follower);
    f->is_fetching = false;
    if (l == NULL)
        return;
    uint32_t leader = (uint32_t)f->leader;
    if (f->must_agree)
        agree(sim, f, l);
    if (f->log.end < l->log.start || f->log.start > l->log.end)
        replica_reset(sim, f, l->log.start);
    replica_truncate(sim, f, l->log.end);
    for (unsigned i = 0; i < 200 && f->log.end < l->log.end; i++)
        replica_append(sim, f, *log_sim_at(&l->log, f->log.end));
    if (f->log.start < l->log.start)
        log_sim_advance(sim, &f->log, l->log.start);
    uint64_t hw = l->hw < f->log.end ? l->hw : f->log.end;
    f->hw = hw > f->hw ? hw : f->hw;
    l->match[follower] = f->log.end;
    if (f->log.end == l->log.end)
        l->caught_up_ms[follower] = sim->now_ms;
    advance_hw(sim, part, leader);
    if (!is_in(part->isr, follower) && may_change_isr(sim, part, leader) &&
        !sim->brokers[follower].is_fenced && l->match[follower] >= l->hw &&
        l->match[follower] >= l->epoch_start) {
        set_isr(sim, part, part->isr | 1u << follower);
        COUNT(sim, ISR_GROW);
    }
    if (f->log.end < l->log.end || f->hw < l->hw)
        kick_followers(sim, part, leader);
}

/* ---- the controller ---- */

void cluster_changed(struct brokers_sim *sim)
{
    for (uint32_t i = 0; i < sim->config.broker_count; i++) {
        struct broker *b = &sim->brokers[i];
        if (b->is_view_due || b->view_version >= sim->version)
            continue;
        b->is_view_due = true;
        int64_t delay_ms = broker_delay_ms(sim, (int32_t)i) + (int64_t)sim_below(sim, 50);
        if (sim->now_ms + delay_ms < b->view_not_before_ms)
            delay_ms = b->view_not_before_ms - sim->now_ms;
        sim_at(sim, delay_ms, (struct action){ .kind = ACTION_VIEW, .broker = i });
    }
}

void part_appoint(struct brokers_sim *sim, struct part *part, int32_t leader)
{
    part->leader = leader;
    part->epoch++;
    part->version = ++sim->version;
    sim_trace(sim, (uint64_t)part->epoch, (uint64_t)(uint32_t)leader << 32 | part->index);
    if (leader != NOBODY)
        COUNT(sim, ELECTION);
}

static void elect(struct brokers_sim *sim, struct part *part)
{
    int32_t best = NOBODY;
    for (uint32_t i = 0, seen = 0; i < sim->config.broker_count; i++)
        if (is_in(part->isr, i) && !sim->brokers[i].is_fenced && sim_chance(sim, ++seen))
            best = (int32_t)i;
    if (best != NOBODY || part->leader != NOBODY)
        part_appoint(sim, part, best);
}

void broker_fence(struct brokers_sim *sim, uint32_t broker)
{
    struct part *part;
    sim->brokers[broker].is_fenced = true;
    for (each_part(sim, part)) {
        if (sim->topics[t].life == 0 || !is_in(part->isr, broker))
            continue;
        if (part->isr != 1u << broker) { /* the last one stays, whatever became of it */
            part->isr &= ~(1u << broker);
            part->version = ++sim->version;
            COUNT(sim, ISR_SHRINK);
        }
        if (part->leader == (int32_t)broker)
            elect(sim, part);
    }
}

static void drop_topic_copy(struct brokers_sim *sim, struct part *part, uint32_t broker, uint32_t life)
{
    struct replica *r = &part->replica[broker];
    refuse_waiting(sim, r, ANSWER_UNKNOWN_TOPIC, false);
    replica_reset(sim, r, 0);
    r->life = life;
    r->leader = NOBODY;
    r->epoch = -1;
}

/* A broker learns what the controller decided. */
static void learn(struct brokers_sim *sim, uint32_t broker)
{
    struct broker *b = &sim->brokers[broker];
    struct part *part;
    b->is_view_due = false;
    if (!broker_runs(sim, (int32_t)broker) || sim->is_cut[BROKERS_SIM_CONTROLLER][broker] ||
        sim->now_ms < b->view_not_before_ms)
        return; /* the tick tries again */
    for (uint32_t i = 0; i < sim->config.topic_count; i++)
        b->topic_life[i] = sim->topics[i].life;
    uint64_t had = b->view_version;
    b->view_version = sim->version;
    for (each_part(sim, part)) {
        struct replica *r = &part->replica[broker];
        if (part->version <= had)
            continue;
        if (r->life != sim->topics[t].life)
            drop_topic_copy(sim, part, broker, sim->topics[t].life);
        if (r->life == 0)
            continue;
        r->isr = part->isr;
        bool is_new = r->epoch != part->epoch;
        r->epoch = part->epoch;
        r->leader = part->leader;
        if (is_new)
            refuse_waiting(sim, r, ANSWER_NOT_LEADER, false);
        if (is_new && r->leader == (int32_t)broker) {
            judge_leader(sim, part);
            replica_begin_epoch(sim, r, r->epoch);
            r->epoch_start = r->log.end;
            for (uint32_t i = 0; i < sim->config.broker_count; i++) {
                r->match[i] = 0;
                r->caught_up_ms[i] = sim->now_ms;
            }
        }
        r->must_agree = r->leader != (int32_t)broker && (is_new || r->must_agree);
        if (r->leader == (int32_t)broker)
            advance_hw(sim, part, broker);
    }
}

void topic_create(struct brokers_sim *sim, uint32_t topic, uint32_t partition_count)
{
    struct topic *t = &sim->topics[topic];
    uint32_t n = sim->config.broker_count;
    t->life = ++t->last_life;
    t->settings.partition_count = partition_count;
    for (uint32_t i = 0; i < 16; i++)
        t->settings.id[i] = (uint8_t)(hash_mix(sim->random ^ t->life ^ i) | 1);
    for (uint32_t p = t->parts_made; p < partition_count; p++) {
        void *at;
        check(pool_zalloc(sim->pool, sizeof(struct part), &at) == OK);
        t->parts[p] = at;
        *t->parts[p] = (struct part){ .topic = topic, .index = p, .preferred = (int32_t)(p % n) };
        for (uint32_t i = 0; i < 3; i++)
            t->parts[p]->replicas |= 1u << (p + i) % n;
    }
    if (partition_count > t->parts_made)
        t->parts_made = partition_count;
    for (uint32_t p = 0; p < partition_count; p++) {
        struct part *part = t->parts[p];
        part->isr = 0;
        for (uint32_t i = 0; i < n; i++)
            if (is_in(part->replicas, i) && !sim->brokers[i].is_fenced)
                part->isr |= 1u << i;
        part->isr = part->isr == 0 ? part->replicas : part->isr;
        part->epoch = -1;
        part->leader = NOBODY;
        bool is_there =
            is_in(part->isr, (uint32_t)part->preferred) && !sim->brokers[part->preferred].is_fenced;
        part->epoch = is_there ? 0 : -1;
        part->leader = is_there ? part->preferred : NOBODY;
        part->version = ++sim->version;
        if (!is_there)
            elect(sim, part);
    }
    sim->version++;
    cluster_changed(sim);
}

void brokers_sim_delete_topic(struct brokers_sim *sim, uint32_t topic, bool again)
{
    struct topic *t = &sim->topics[topic];
    if (t->life == 0)
        return;
    COUNT(sim, RECREATE);
    t->life = 0;
    for (uint32_t p = 0; p < t->settings.partition_count; p++) {
        t->parts[p]->version = ++sim->version;
        t->parts[p]->leader = NOBODY;
        part_shorten_truth(sim, t->parts[p],
                           0); /* of an empty one, too: it grows until its brokers hear of it */
    }
    if (again)
        topic_create(sim, topic, t->settings.partition_count);
    sim->version++;
    cluster_changed(sim);
}

/* ---- what happens all the time ---- */

static void tick_broker(struct brokers_sim *sim, uint32_t broker)
{
    struct broker *b = &sim->brokers[broker];
    struct part *part;
    if (b->is_booting && sim->now_ms >= b->boot_ms && b->power == POWER_UP)
        b->is_booting = false;
    if (broker_runs(sim, (int32_t)broker) && are_linked(sim, broker, BROKERS_SIM_CONTROLLER)) {
        b->heard_ms = sim->now_ms;
        b->is_fenced = false;
    } else if (!b->is_fenced && sim->now_ms - b->heard_ms > sim->odds.session_ms) {
        broker_fence(sim, broker);
    }
    if (!broker_runs(sim, (int32_t)broker))
        return;
    bool flushes = sim->now_ms >= b->flush_ms;
    if (flushes)
        b->flush_ms = sim->now_ms + 1 + (int64_t)sim_below(sim, sim->odds.flush_ms);
    for (each_part(sim, part)) {
        struct replica *r = &part->replica[broker];
        if (flushes)
            r->flushed = r->log.end;
        while (r->waiting != NULL && sim->now_ms > r->waiting->give_up_ms) {
            struct request *request = r->waiting;
            r->waiting = request->next;
            request_done(sim, request, ANSWER_TIMEOUT);
        }
    }
}

static void tick_part(struct brokers_sim *sim, struct part *part)
{
    if (part->leader == NOBODY)
        elect(sim, part);
    for (uint32_t i = 0; i < sim->config.broker_count; i++) {
        struct replica *f = &part->replica[i], *l = leader_of(sim, part, i);
        if (!is_in(part->replicas, i) || l == NULL || f->is_fetching)
            continue;
        if (!f->must_agree && f->log.end == l->log.end && f->hw == l->hw && l->match[i] == f->log.end &&
            is_in(part->isr, i))
            l->caught_up_ms[i] = sim->now_ms;
        else
            kick_followers(sim, part, (uint32_t)f->leader);
    }
    if (part->leader == NOBODY || !may_change_isr(sim, part, (uint32_t)part->leader))
        return;
    struct replica *l = &part->replica[part->leader];
    for (uint32_t i = 0; i < sim->config.broker_count; i++)
        if ((int32_t)i != part->leader && is_in(part->isr, i) &&
            sim->now_ms - l->caught_up_ms[i] > sim->odds.lag_ms) {
            set_isr(sim, part, part->isr & ~(1u << i));
            COUNT(sim, ISR_SHRINK);
        }
}

void part_expire(struct brokers_sim *sim, struct part *part, uint64_t before)
{
    before = before < part->truth.end ? before : part->truth.end;
    if (before <= part->truth.start)
        return;
    log_sim_advance(sim, &part->truth, before);
    for (uint32_t i = 0; i < sim->config.broker_count; i++) {
        struct replica *r = &part->replica[i];
        if (r->life != sim->topics[part->topic].life || r->log.end < before)
            continue;
        log_sim_advance(sim, &r->log, before);
        r->hw = r->hw > before ? r->hw : before;
        r->flushed = r->flushed > before ? r->flushed : before;
    }
    sim_trace(sim, 0xe8, before);
}

static void expire_by_age(struct brokers_sim *sim, struct part *part)
{
    int64_t retention_ms = sim->topics[part->topic].settings.retention_ms;
    uint64_t before = part->truth.start;
    while (before < part->truth.end &&
           log_sim_at(&part->truth, before)->t_ms + retention_ms < START_WALL_MS + sim->now_ms)
        before++;
    if (retention_ms < 0 || before == part->truth.start)
        return;
    part_expire(sim, part, before);
    COUNT(sim, EXPIRED_BY_AGE);
}

static void tick(struct brokers_sim *sim)
{
    struct part *part;
    bool balances = sim->now_ms >= sim->balance_ms, expires = sim->now_ms >= sim->expiry_ms;
    sim_at(sim, TICK_MS, (struct action){ .kind = ACTION_TICK });
    for (uint32_t i = 0; i < sim->config.broker_count; i++)
        tick_broker(sim, i);
    for (each_part(sim, part)) {
        if (sim->topics[t].life == 0 || p >= sim->topics[t].settings.partition_count)
            continue;
        tick_part(sim, part);
        if (balances && part->leader != part->preferred && sim_chance(sim, 2))
            brokers_sim_move_leader(sim, t, p, (uint32_t)part->preferred);
        if (expires)
            expire_by_age(sim, part);
    }
    sim->balance_ms = balances ? sim->now_ms + 5000 : sim->balance_ms;
    sim->expiry_ms = expires ? sim->now_ms + 5000 : sim->expiry_ms;
    cluster_changed(sim);
}

void brokers_sim_advance(struct brokers_sim *sim, int64_t ms)
{
    int64_t until_ms = sim->now_ms + ms;
    while (sim->heap_count > 0 && sim->heap[0].at_ms <= until_ms) {
        struct action action = pop(sim);
        sim->now_ms = action.at_ms;
        switch (action.kind) {
        case ACTION_TICK:
            tick(sim);
            break;
        case ACTION_VIEW:
            learn(sim, action.broker);
            break;
        case ACTION_REPLICATE:
            replicate(sim, action.part, action.broker);
            break;
        case ACTION_REQUEST:
            on_request(sim, action.request);
            break;
        default:
            client_act(&action);
            break;
        }
    }
    sim->now_ms = until_ms;
}
