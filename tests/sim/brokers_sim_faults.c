/* What a world does to the simulated brokers: opening and closing, and the faults that it orders.
 *
 * Invariant: a broker that starts again is put out of every in-sync set that others are in, and leads nothing
 * under its former epoch, so that an epoch and an offset never name two records. */
#include "base/check.h"
#include "base/hash.h"
#include "sim/brokers_sim_inside.h"

static uint64_t one_of(struct brokers_sim *sim, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t which = sim_below(sim, 3);
    return which == 0 ? a : which == 1 ? b : c;
}

static void draw_odds(struct brokers_sim *sim)
{
    bool is_calm = sim->config.is_calm;
    struct odds *o = &sim->odds;
    o->net_ms = is_calm ? 3 : 1 + sim_below(sim, 30);
    o->lost_one_in = is_calm ? 0 : one_of(sim, 0, 30, 200);
    o->fatal_one_in = is_calm ? 0 : 1 + sim_below(sim, 12);
    o->gap_one_in = is_calm ? 0 : one_of(sim, 0, 8, 50);
    o->stale_one_in = is_calm ? 0 : 2 + sim_below(sim, 4);
    o->trouble_one_in = is_calm ? 0 : 50;
    o->batch = 1 + sim_below(sim, 12);
    o->flush_ms = one_of(sim, 500, 5000, 30000);
    o->session_ms = (int64_t)one_of(sim, 3000, 6000, 9000);
    o->lag_ms = (int64_t)one_of(sim, 5000, 10000, 15000);
}

struct brokers_sim *brokers_sim_open(uint64_t seed, const struct brokers_sim_config *config)
{
    struct pool *pool = pool_open(NULL, "brokers_sim", POOL_BYTES_UNLIMITED);
    void *at;
    check(config->broker_count >= 3 && config->broker_count <= BROKERS_MAX);
    check(config->topic_count > 0 && config->topic_count <= BROKERS_SIM_TOPICS_MAX);
    check(pool_zalloc(pool, sizeof(struct brokers_sim), &at) == OK);
    struct brokers_sim *sim = at;
    sim->pool = pool;
    sim->config = *config;
    sim->random = sim->trace = hash_mix(seed);
    draw_odds(sim);
    for (uint32_t i = 0; i < config->broker_count; i++)
        sim->brokers[i].inbox_tail = &sim->brokers[i].inbox;
    for (uint32_t i = 0; i < config->topic_count; i++) {
        const struct brokers_sim_topic *wanted = &config->topics[i];
        sim->topics[i].settings = (struct kafka_topic){ .replica_count_min = 3,
                                                        .min_insync_replicas = 2,
                                                        .retention_ms = wanted->retention_ms,
                                                        .retention_bytes = -1,
                                                        .max_message_bytes = 1048588,
                                                        .is_deleted = true,
                                                        .is_append_time = wanted->is_append_time };
        if (wanted->partition_count > 0)
            topic_create(sim, i, wanted->partition_count);
    }
    sim_at(sim, 0, (struct action){ .kind = ACTION_TICK });
    return sim;
}

void brokers_sim_close(struct brokers_sim *sim)
{
    if (sim != NULL)
        pool_close(sim->pool); /* blocks go with it */
}

/* ---- brokers ---- */

static void drop_requests(struct brokers_sim *sim, struct request *request, bool is_silent)
{
    while (request != NULL) {
        struct request *next = request->next;
        if (is_silent)
            request_vanish(sim, request);
        else
            request_done(sim, request, ANSWER_DISCONNECT);
        request = next;
    }
}

static void stop(struct brokers_sim *sim, uint32_t broker, enum power power)
{
    struct broker *b = &sim->brokers[broker];
    b->power = power;
    b->is_paused = b->is_booting = false;
    drop_requests(sim, b->inbox, power == POWER_OFF);
    b->inbox = NULL;
    b->inbox_tail = &b->inbox;
    for (uint32_t t = 0; t < sim->config.topic_count; t++) {
        for (uint32_t p = 0; p < sim->topics[t].parts_made; p++) {
            struct replica *r = &sim->topics[t].parts[p]->replica[broker];
            drop_requests(sim, r->waiting, power == POWER_OFF);
            r->waiting = NULL;
            uint64_t unflushed = r->log.end > r->flushed ? r->log.end - r->flushed : 0;
            if (power == POWER_OFF && unflushed > 0) /* some of it may have reached the disk by itself */
                replica_truncate(sim, r, r->flushed + one_of(sim, 0, 0, sim_below(sim, unflushed + 1)));
            uint64_t behind = sim_below(sim, 50); /* the high watermark is saved now and then */
            r->hw = r->hw > r->log.start + behind ? r->hw - behind : r->log.start;
        }
    }
}

void brokers_sim_kill(struct brokers_sim *sim, uint32_t broker)
{
    if (sim->brokers[broker].power != POWER_UP)
        return;
    COUNT(sim, KILL);
    stop(sim, broker, POWER_KILLED);
}

void brokers_sim_lose_power(struct brokers_sim *sim, uint32_t broker)
{
    if (sim->brokers[broker].power != POWER_UP)
        return;
    COUNT(sim, POWER);
    stop(sim, broker, POWER_OFF);
}

void brokers_sim_wipe(struct brokers_sim *sim, uint32_t broker)
{
    COUNT(sim, WIPE);
    if (sim->brokers[broker].power == POWER_UP)
        stop(sim, broker, POWER_KILLED);
    for (uint32_t t = 0; t < sim->config.topic_count; t++)
        for (uint32_t p = 0; p < sim->topics[t].parts_made; p++)
            replica_reset(sim, &sim->topics[t].parts[p]->replica[broker], 0);
}

/* Forget what it led: after a start, or when its log was cut back under it. */
static void forget_role(struct replica *r)
{
    r->leader = NOBODY;
    r->epoch = -1;
    memset(r->match, 0, sizeof r->match);
}

void brokers_sim_start(struct brokers_sim *sim, uint32_t broker)
{
    struct broker *b = &sim->brokers[broker];
    if (b->power == POWER_UP)
        return;
    COUNT(sim, START);
    b->power = POWER_UP;
    b->is_booting = true;
    b->boot_ms = sim->now_ms + 500 + (int64_t)sim_below(sim, 2500);
    b->view_version = 0;
    for (uint32_t t = 0; t < sim->config.topic_count; t++)
        for (uint32_t p = 0; p < sim->topics[t].parts_made; p++)
            forget_role(&sim->topics[t].parts[p]->replica[broker]);
    broker_fence(sim, broker);
}

void brokers_sim_pause(struct brokers_sim *sim, uint32_t broker)
{
    if (!broker_runs(sim, (int32_t)broker))
        return;
    COUNT(sim, PAUSE);
    sim->brokers[broker].is_paused = true;
}

void brokers_sim_resume(struct brokers_sim *sim, uint32_t broker)
{
    struct broker *b = &sim->brokers[broker];
    int64_t delay_ms = 0;
    if (!b->is_paused)
        return;
    COUNT(sim, RESUME);
    b->is_paused = false;
    b->view_not_before_ms = sim->now_ms + 100 + (int64_t)sim_below(sim, 400);
    for (struct request *request = b->inbox, *next; request != NULL; request = next) {
        next = request->next;
        delay_ms += (int64_t)sim_below(sim, 30);
        const struct client *client =
            request->client; /* a closed connection may come behind the one after it */
        bool is_of_now =
            client->life == request->client_life && client->connection[broker] == request->connection;
        sim_at(sim, is_of_now ? 0 : delay_ms, (struct action){ .kind = ACTION_REQUEST, .request = request });
    }
    b->inbox = NULL;
    b->inbox_tail = &b->inbox;
    clients_believe(sim, (int32_t)broker);
}

void brokers_sim_slow(struct brokers_sim *sim, uint32_t broker, int64_t ms)
{
    if (ms > 0)
        COUNT(sim, SLOW);
    sim->brokers[broker].slow_ms = ms;
}

void brokers_sim_skew(struct brokers_sim *sim, uint32_t broker, int64_t ms)
{
    if (ms != 0)
        COUNT(sim, SKEW);
    sim->brokers[broker].skew_ms = ms;
}

void brokers_sim_cut(struct brokers_sim *sim, uint32_t from, uint32_t to, bool is_cut)
{
    if (is_cut && !sim->is_cut[from][to])
        COUNT(sim, CUT);
    sim->is_cut[from][to] = is_cut;
}

void brokers_sim_heal(struct brokers_sim *sim)
{
    memset(sim->is_cut, 0, sizeof sim->is_cut);
    for (uint32_t i = 0; i < sim->config.broker_count; i++) {
        brokers_sim_slow(sim, i, 0);
        brokers_sim_skew(sim, i, 0);
        brokers_sim_resume(sim, i);
        brokers_sim_start(sim, i);
    }
}

void brokers_sim_calm(struct brokers_sim *sim)
{
    struct odds *o = &sim->odds;
    o->lost_one_in = o->fatal_one_in = o->gap_one_in = o->stale_one_in = o->trouble_one_in = 0;
}

/* ---- partitions ---- */

void brokers_sim_move_leader(struct brokers_sim *sim, uint32_t topic, uint32_t partition, uint32_t broker)
{
    struct part *part = part_at(sim, topic, partition);
    if (part == NULL || part->leader == (int32_t)broker || !(part->isr >> broker & 1) ||
        sim->brokers[broker].is_fenced || !broker_runs(sim, (int32_t)broker))
        return;
    COUNT(sim, MOVE_LEADER);
    part_appoint(sim, part, (int32_t)broker);
    cluster_changed(sim);
}

void brokers_sim_truncate_last_replica(struct brokers_sim *sim, uint32_t topic, uint32_t partition,
                                       uint64_t end)
{
    struct part *part = part_at(sim, topic, partition);
    if (part == NULL || end >= part->truth.end)
        return;
    COUNT(sim, TRUNCATE_LAST);
    for (uint32_t i = 0; i < sim->config.broker_count; i++) {
        struct replica *r = &part->replica[i];
        drop_requests(sim, r->waiting, true);
        r->waiting = NULL;
        replica_truncate(sim, r, end > r->log.start ? end : r->log.start);
        forget_role(r);
    }
    part_shorten_truth(sim, part, end > part->truth.start ? end : part->truth.start);
    part_appoint(sim, part, part->leader);
    cluster_changed(sim);
}

void brokers_sim_expire_records(struct brokers_sim *sim, uint32_t topic, uint32_t partition, uint64_t before)
{
    struct part *part = part_at(sim, topic, partition);
    if (part == NULL || before <= part->truth.start)
        return;
    COUNT(sim, EXPIRE);
    part_expire(sim, part, before);
}

static void punch(struct brokers_sim *sim, struct log_sim *log, uint64_t from, uint64_t to)
{
    for (uint64_t at = from > log->start ? from : log->start; at < to && at < log->end; at++) {
        blob_drop(sim, log_sim_at(log, at)->blob);
        log_sim_at(log, at)->blob = NULL;
    }
}

void brokers_sim_punch_hole(struct brokers_sim *sim, uint32_t topic, uint32_t partition, uint64_t from,
                            uint64_t to)
{
    struct part *part = part_at(sim, topic, partition);
    if (part == NULL || from >= part->truth.end)
        return;
    COUNT(sim, HOLE);
    to = to < part->truth.end ? to : part->truth.end;
    for (uint32_t i = 0; i < sim->config.broker_count; i++)
        punch(sim, &part->replica[i].log, from, to);
    punch(sim, &part->truth, from, to);
}
