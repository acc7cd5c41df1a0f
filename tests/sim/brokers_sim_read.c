/* The simulated client's reading half, and its questions and orders.
 *
 *   assign ─ epoch check at the leader ─ fetch ─→ records, end ─ wait at the leader until there is more
 *
 * Whoever the client takes for the leader answers from its own log, so a zombie answers from an old one. At each
 * change of leader the position is checked again before anything is read (KIP-320).
 *
 * Invariants
 *   1. Events of a partition are queued in offset order; unassigning takes those away that were not polled.
 *   2. Records not polled are at most read_bytes_max, or one record.
 *   3. A question is in the list until its answer is queued, and counts until that is polled. */
#include "base/check.h"
#include "sim/brokers_sim_inside.h"

#define FETCH_RECORDS_MAX 50
#define MISSING_MS        30000 /* a partition that is not there is told after it */

static struct client *client_of(struct kafka_client *face) { return (struct client *)face; }

/* ---- reading ---- */

void reading_wake(struct client *client, uint32_t partition, int64_t delay_ms)
{
    struct reading *r = &client->reading[partition];
    if (!r->is_assigned || r->has_failed || r->is_due)
        return;
    r->is_due = true;
    r->is_waiting = false;
    sim_at(client->sim, delay_ms,
           (struct action){ .kind = ACTION_FETCH,
                            .client = client,
                            .client_life = client->life,
                            .partition = partition,
                            .life = r->life });
}

void clients_wake_readers(struct brokers_sim *sim, struct part *part, uint32_t broker)
{
    for (uint32_t n = 0; n <= BROKERS_SIM_NODES_MAX; n++) {
        struct client *client = sim->clients[n][part->topic];
        if (client == NULL || !client->is_open)
            continue;
        struct reading *r = &client->reading[part->index];
        if (r->is_waiting && r->wait_broker == (int32_t)broker)
            reading_wake(client, part->index, client_delay_ms(client, r->wait_broker));
    }
}

void clients_believe(struct brokers_sim *sim, int32_t broker)
{
    for (uint32_t n = 0; n < BROKERS_SIM_NODES_MAX; n++)
        for (uint32_t t = 0; t < sim->config.topic_count; t++) {
            struct client *client = sim->clients[n][t];
            struct metadata *of = client == NULL ? NULL : &client->of_reader;
            if (of == NULL || !client->is_open || !of->is_known || !client_talks(client, broker) ||
                !sim_chance(sim, sim->odds.stale_one_in))
                continue;
            for (uint32_t p = 0; p < of->partition_count; p++) {
                const struct replica *r = &sim->topics[t].parts[p]->replica[broker];
                if (r->leader != broker || r->life != of->life)
                    continue;
                of->at[p].leader = broker;
                of->at[p].epoch = r->epoch;
                if (client->reading[p].is_waiting)
                    reading_wake(client, p, client_delay_ms(client, broker));
            }
        }
}

err reading_assign(struct kafka_client *face, uint32_t partition, uint64_t offset, int32_t leader_epoch)
{
    struct client *client = client_of(face);
    struct reading *r = &client->reading[partition];
    check(partition < LOG_PARTITION_COUNT_MAX);
    if (r->is_assigned)
        return ERR_EXISTS;
    if (offset > INT64_MAX || leader_epoch < KAFKA_EPOCH_UNKNOWN)
        return ERR_INPUT;
    *r = (struct reading){ .is_assigned = true,
                           .life = r->life + 1,
                           .offset = offset,
                           .end_told = KAFKA_OFFSET_UNKNOWN,
                           .epoch = leader_epoch,
                           .leader_epoch = KAFKA_EPOCH_UNKNOWN,
                           .missing_ms = -1 };
    if (partition >= client->partitions_used)
        client->partitions_used = partition + 1;
    if (!client->is_calm && sim_chance(client->sim, client->sim->odds.stale_one_in)) {
        /* The library had forgotten the partition: it believes the first broker that tells of it. */
        client->of_reader.at[partition].leader = client->of_reader.at[partition].epoch = NOBODY;
        client_refresh(client, &client->of_reader);
    }
    reading_wake(client, partition, 1);
    return OK;
}

void reading_unassign(struct kafka_client *face, uint32_t partition)
{
    struct client *client = client_of(face);
    check(partition < LOG_PARTITION_COUNT_MAX);
    if (!client->reading[partition].is_assigned)
        return;
    client->reading[partition].is_assigned = false;
    client_forget(client, &client->records, partition);
}

static struct told *tell(struct client *client, uint32_t p, enum kafka_event_kind kind, err result,
                         const char *text)
{
    struct told *told = client_tell(client, &client->records, kind, result, text);
    told->event.partition = p;
    told->event.offset = client->reading[p].offset;
    if (client->record_ms > told->due_ms)
        told->due_ms = client->record_ms;
    return told;
}

static void later(struct client *client, uint32_t p)
{
    if (client->sim->now_ms >= client->of_reader.next_ms)
        client_refresh(client, &client->of_reader);
    else if (client->of_reader.next_ms > client->sim->now_ms + 500)
        client->of_reader.next_ms = client->sim->now_ms + 500;
    reading_wake(client, p, LATER_MS);
}

/* Its leader as this client knows it, if that leader agrees. */
static const struct replica *leader_for(struct client *client, uint32_t p)
{
    struct metadata *of = &client->of_reader;
    struct reading *r = &client->reading[p];
    struct brokers_sim *sim = client->sim;
    bool is_there = of->is_known && p < of->partition_count;
    if (!is_there && r->missing_ms < 0)
        r->missing_ms = sim->now_ms;
    if (is_there)
        r->missing_ms = -1;
    if (client->is_denied || (!is_there && sim->now_ms - r->missing_ms > MISSING_MS)) {
        tell(client, p, KAFKA_EVENT_READ_FAILED, client->is_denied ? ERR_DENIED : ERR_NOT_FOUND,
             client->is_denied ? "reading is not allowed" : "no such partition");
        r->has_failed = true;
        return NULL;
    }
    int32_t leader = is_there ? of->at[p].leader : NOBODY;
    if (leader == NOBODY || !client_talks(client, leader))
        return NULL;
    const struct replica *l = &sim->topics[client->topic].parts[p]->replica[leader];
    return l->life == of->life && l->leader == leader && l->epoch == of->at[p].epoch ? l : NULL;
}

/* Does the leader's log hold what was read up to here? */
static bool is_agreed(struct client *client, uint32_t p, const struct replica *l)
{
    struct reading *r = &client->reading[p];
    struct brokers_sim *sim = client->sim;
    int32_t epoch;
    if (r->epoch < 0 || r->offset == 0)
        return true;
    int64_t end = replica_epoch_end(l, r->epoch, &epoch);
    if (end >= 0 && (uint64_t)end >= r->offset)
        return true;
    const struct log_sim *truth = &sim->topics[client->topic].parts[p]->truth;
    if (end < 0)
        COUNT(sim, TRUNCATED_UNKNOWN);
    if (r->offset > truth->start && r->offset <= truth->end &&
        log_sim_at(truth, r->offset - 1)->epoch == r->epoch)
        COUNT(sim, TRUNCATED_FALSE);
    struct told *told = tell(client, p, KAFKA_EVENT_TRUNCATED, OK, "the log went back");
    told->event.truncated.end_offset = end < 0 ? KAFKA_OFFSET_UNKNOWN : (uint64_t)end;
    told->event.truncated.end_epoch = epoch;
    r->has_failed = true;
    return false;
}

static bool take_records(struct client *client, uint32_t p, const struct replica *l)
{
    struct reading *r = &client->reading[p];
    for (unsigned i = 0; i < FETCH_RECORDS_MAX && r->offset < l->hw; i++) {
        const struct entry *entry = log_sim_at(&l->log, r->offset);
        if (entry->blob != NULL) {
            if (client->record_bytes + entry->blob->len > client->config.read_bytes_max &&
                client->record_bytes > 0) {
                COUNT(client->sim, READING_BLOCKED);
                return false;
            }
            struct told *told = tell(client, p, KAFKA_EVENT_RECORD, OK, "");
            told->blob = blob_ref(entry->blob);
            told->bytes = entry->blob->len;
            client->record_bytes += told->bytes;
            told->event.leader_epoch = entry->epoch;
            told->event.record.bytes = slice_of(entry->blob->bytes, entry->blob->len);
            told->event.record.t_ms = entry->t_ms;
            told->event.record.is_append_time = client->sim->topics[client->topic].settings.is_append_time;
        }
        r->epoch = entry->epoch;
        r->offset++;
    }
    return true;
}

void reading_fetch(struct client *client, uint32_t p, uint32_t life)
{
    struct brokers_sim *sim = client->sim;
    struct reading *r = &client->reading[p];
    if (!r->is_assigned || r->life != life)
        return;
    r->is_due = false;
    const struct replica *l = r->has_failed ? NULL : leader_for(client, p);
    if (l == NULL) {
        later(client, p);
        return;
    }
    int64_t due_ms = sim->now_ms + client_delay_ms(client, l->leader);
    client->record_ms = due_ms > client->record_ms ? due_ms : client->record_ms;
    if ((r->leader_epoch != l->epoch || r->checked_life != l->life) && !is_agreed(client, p, l))
        return;
    r->leader_epoch = l->epoch;
    r->checked_life = l->life;
    if (r->offset < l->log.start || r->offset > l->log.end) {
        const struct log_sim *truth = &sim->topics[client->topic].parts[p]->truth;
        if (r->offset >= truth->start && r->offset <= truth->end)
            COUNT(sim, OUT_OF_RANGE_FALSE);
        tell(client, p, KAFKA_EVENT_OUT_OF_RANGE, OK, "the offset is not there");
        r->has_failed = true;
        return;
    }
    if (!take_records(client, p, l))
        return; /* the tick goes on when there is room */
    if (r->offset == l->hw && r->end_told != r->offset) {
        tell(client, p, KAFKA_EVENT_PARTITION_END, OK, "");
        r->end_told = r->offset;
    }
    if (r->offset < l->hw) {
        reading_wake(client, p, client->record_ms - sim->now_ms + client_delay_ms(client, l->leader));
        return;
    }
    r->is_waiting = true;
    r->wait_broker = l->leader;
}

void reading_tick(struct client *client, uint32_t p)
{
    struct reading *r = &client->reading[p];
    if (!r->is_assigned || r->has_failed || r->is_due)
        return;
    const struct replica *l =
        r->is_waiting ? &client->sim->topics[client->topic].parts[p]->replica[r->wait_broker] : NULL;
    if (l == NULL || !client_talks(client, r->wait_broker) || l->epoch != r->leader_epoch ||
        client->of_reader.at[p].leader != r->wait_broker || client->is_denied)
        reading_wake(client, p, 1);
}

/* ---- questions and orders ---- */

void asks_forget(struct client *client)
{
    while (client->asks != NULL) {
        struct ask *ask = client->asks;
        client->asks = ask->next;
        pool_block_free(client->sim->pool, ask);
    }
    client->ask_count = 0;
}

static err ask_open(struct client *client, enum ask_kind kind, size_t count, int64_t budget_ms,
                    uint64_t cookie, struct ask **out_ask)
{
    struct brokers_sim *sim = client->sim;
    void *at = NULL;
    if (client->ask_count >= KAFKA_ASKS_MAX)
        return ERR_BUSY;
    size_t bytes = sizeof(struct ask) + count * sizeof(struct kafka_ends);
    check(pool_block_resize(sim->pool, &at, bytes) == OK);
    struct ask *ask = at;
    memset(ask, 0, bytes);
    ask->kind = kind;
    ask->cookie = cookie;
    ask->number = ++sim->numbers;
    ask->deadline_ms = sim->now_ms + budget_ms;
    ask->offset = KAFKA_OFFSET_UNKNOWN;
    ask->is_lost = !client->is_calm && sim_chance(sim, sim->odds.lost_one_in);
    ask->count = count;
    ask->next = client->asks;
    client->asks = ask;
    client->ask_count++;
    struct action action = {
        .kind = ACTION_ASK, .client = client, .client_life = client->life, .number = ask->number
    };
    sim_at(sim, 1 + (int64_t)sim_below(sim, client->is_calm ? 1 : 2 * sim->odds.net_ms), action);
    sim_at(sim, budget_ms, action);
    *out_ask = ask;
    return OK;
}

static void answer(struct client *client, struct ask *ask, err result, const char *text)
{
    static const enum kafka_event_kind kinds[] = { KAFKA_EVENT_ENDS, KAFKA_EVENT_TOPIC, KAFKA_EVENT_DONE,
                                                   KAFKA_EVENT_DONE, KAFKA_EVENT_DONE };
    struct ask **link = &client->asks;
    while (*link != ask)
        link = &(*link)->next;
    *link = ask->next;
    struct told *told = client_tell(client, &client->replies, kinds[ask->kind], result, text);
    told->ask = ask;
    told->event.cookie = ask->cookie;
    told->event.partition = ask->partition;
    if (ask->kind == ASK_ENDS && result == OK) {
        told->event.ends.at = ask->ends;
        told->event.ends.count = ask->count;
    } else if (ask->kind == ASK_TOPIC && result == OK) {
        told->event.topic = &ask->topic;
    } else if (ask->kind == ASK_DELETE && result == OK) {
        told->event.offset = ask->offset;
    }
}

/* Whom the library takes for the leader: sometimes on the word of one broker that is behind. */
static int32_t leader_to_ask(struct client *client, uint32_t p)
{
    struct brokers_sim *sim = client->sim;
    int32_t told_by = client_any_broker(client);
    if (!client->is_calm && told_by != NOBODY && sim_chance(sim, sim->odds.stale_one_in) &&
        p < sim->topics[client->topic].parts_made)
        return sim->topics[client->topic].parts[p]->replica[told_by].leader;
    return client->of_reader.is_known && p < client->of_reader.partition_count
               ? client->of_reader.at[p].leader
               : NOBODY;
}

/* Ask for what is missing of one partition's ends; start and end are two requests. */
static void ask_for_ends(struct client *client, struct kafka_ends *ends, bool is_patient)
{
    struct brokers_sim *sim = client->sim;
    uint32_t p = ends->partition;
    struct metadata *of = &client->of_reader;
    int32_t leader = leader_to_ask(client, p);
    if (of->is_known && p >= of->partition_count) {
        ends->result = ERR_NOT_FOUND;
        return;
    }
    if (leader == NOBODY || !client_talks(client, leader))
        return;
    const struct part *part = sim->topics[client->topic].parts[p];
    const struct replica *l = &part->replica[leader];
    if (l->leader != leader || l->life == 0 || l->hw < l->epoch_start) {
        if (!is_patient && sim_chance(sim, 4)) /* some errors are told, not tried again */
            ends->result = ERR_BUSY;
        return;
    }
    bool takes_both = client->is_calm || sim_chance(sim, 2);
    if (ends->start_offset == KAFKA_OFFSET_UNKNOWN) {
        ends->start_offset = l->log.start;
        if (!takes_both)
            return;
    }
    if (l->leader != part->leader || l->epoch != part->epoch || l->hw < part->truth.end)
        COUNT(sim, ENDS_STALE);
    ends->end_offset = l->hw;
    ends->leader_epoch = l->epoch;
    ends->result = OK;
}

static bool try_ends(struct client *client, struct ask *ask)
{
    bool is_all = true;
    for (size_t i = 0; i < ask->count; i++) {
        if (ask->ends[i].result == ERR_END) /* not answered yet */
            ask_for_ends(client, &ask->ends[i], client->is_calm);
        is_all &= ask->ends[i].result != ERR_END;
    }
    if (!is_all && client->sim->now_ms >= client->of_reader.next_ms)
        client_refresh(client, &client->of_reader);
    return is_all;
}

static bool try_topic(struct client *client, struct ask *ask)
{
    struct brokers_sim *sim = client->sim;
    struct topic *topic = &sim->topics[client->topic];
    int32_t broker = client_any_broker(client);
    if (broker == NOBODY)
        return false;
    uint32_t life = client->is_calm ? topic->life : sim->brokers[broker].topic_life[client->topic];
    ask->result = life == 0 ? ERR_NOT_FOUND : OK;
    ask->topic = topic->settings;
    ask->topic.isr_count_min = UINT32_MAX;
    if (life != topic->life) /* a former topic of the name */
        ask->topic.id[15] ^= (uint8_t)(topic->life - life);
    for (uint32_t p = 0; p < topic->settings.partition_count; p++) {
        const struct replica *r = &topic->parts[p]->replica[broker];
        uint32_t isr = (uint32_t)__builtin_popcount(client->is_calm ? topic->parts[p]->isr : r->isr);
        ask->topic.isr_count_min = isr < ask->topic.isr_count_min ? isr : ask->topic.isr_count_min;
        ask->topic.leaderless_count += (client->is_calm ? topic->parts[p]->leader : r->leader) == NOBODY;
    }
    return true;
}

static bool try_delete(struct client *client, struct ask *ask)
{
    struct brokers_sim *sim = client->sim;
    uint32_t p = ask->partition;
    struct metadata *of = &client->of_reader;
    if (of->is_known && p >= of->partition_count) {
        ask->result = ERR_NOT_FOUND;
        return true;
    }
    struct part *part = part_at(sim, client->topic, p);
    int32_t leader = of->is_known ? of->at[p].leader : NOBODY;
    if (part == NULL || leader == NOBODY || leader != part->leader || !client_talks(client, leader)) {
        if (sim->now_ms >= of->next_ms)
            client_refresh(client, of);
        return false;
    }
    const struct replica *l = &part->replica[leader];
    if (l->leader != leader || l->epoch != part->epoch)
        return false;
    ask->result = ask->before > l->hw ? ERR_ORDER : OK;
    if (ask->result == OK)
        part_expire(sim, part, ask->before);
    ask->offset = l->log.start;
    return true;
}

/* An order to the cluster: some broker passes it to the controller. */
static bool try_order(struct client *client, struct ask *ask)
{
    struct brokers_sim *sim = client->sim;
    struct topic *topic = &sim->topics[client->topic];
    int32_t broker = client_any_broker(client);
    if (broker == NOBODY || sim->is_cut[broker][BROKERS_SIM_CONTROLLER] ||
        sim->is_cut[BROKERS_SIM_CONTROLLER][broker])
        return false;
    if (ask->kind == ASK_CREATE) {
        ask->result = topic->life != 0                                                      ? ERR_EXISTS
                      : ask->topic.replica_count_min > 3 || ask->topic.partition_count == 0 ? ERR_INPUT
                                                                                            : OK;
        if (ask->result == OK) {
            topic->settings = ask->topic;
            topic_create(sim, client->topic, ask->topic.partition_count);
        }
        return true;
    }
    ask->result = topic->life == 0 ? ERR_NOT_FOUND : OK;
    if (ask->result == OK)
        topic->settings.retention_ms = ask->retention_ms;
    return true;
}

void ask_act(struct client *client, uint64_t number)
{
    struct brokers_sim *sim = client->sim;
    struct ask *ask = client->asks;
    while (ask != NULL && ask->number != number)
        ask = ask->next;
    if (ask == NULL)
        return; /* answered */
    if (sim->now_ms >= ask->deadline_ms) {
        COUNT(sim, ASK_TIMED_OUT);
        if (ask->is_done && ask->kind >= ASK_CREATE && ask->result == OK)
            COUNT(sim, ORDER_AFTER_TIMEOUT);
        answer(client, ask, ERR_TIMEOUT, "no answer in time");
        return;
    }
    if (ask->is_done && !ask->is_lost) {
        answer(client, ask, ask->result, ask->result == OK ? "" : "refused");
        return;
    }
    if (client->is_denied && client_any_broker(client) != NOBODY) {
        answer(client, ask, ERR_DENIED, "not allowed");
        return;
    }
    if (!ask->is_done)
        ask->is_done = ask->kind == ASK_ENDS     ? try_ends(client, ask)
                       : ask->kind == ASK_TOPIC  ? try_topic(client, ask)
                       : ask->kind == ASK_DELETE ? try_delete(client, ask)
                                                 : try_order(client, ask);
    int32_t broker = (int32_t)sim_below(sim, sim->config.broker_count);
    sim_at(sim, ask->is_done ? client_delay_ms(client, broker) : LATER_MS,
           (struct action){
               .kind = ACTION_ASK, .client = client, .client_life = client->life, .number = number });
}

err ask_ends(struct kafka_client *face, const uint32_t *partitions, size_t count, int64_t budget_ms,
             uint64_t cookie)
{
    struct ask *ask;
    if (count == 0 || count > LOG_PARTITION_COUNT_MAX)
        return ERR_INPUT;
    for (size_t i = 0; i < count; i++) {
        check(partitions[i] < LOG_PARTITION_COUNT_MAX);
        for (size_t j = 0; j < i; j++)
            if (partitions[j] == partitions[i])
                return ERR_INPUT;
    }
    TRY(ask_open(client_of(face), ASK_ENDS, count, budget_ms, cookie, &ask));
    for (size_t i = 0; i < count; i++)
        ask->ends[i] = (struct kafka_ends){ .partition = partitions[i],
                                            .result = ERR_END,
                                            .start_offset = KAFKA_OFFSET_UNKNOWN,
                                            .end_offset = KAFKA_OFFSET_UNKNOWN,
                                            .leader_epoch = KAFKA_EPOCH_UNKNOWN };
    return OK;
}

err ask_topic(struct kafka_client *face, int64_t budget_ms, uint64_t cookie)
{
    struct ask *ask;
    return ask_open(client_of(face), ASK_TOPIC, 0, budget_ms, cookie, &ask);
}

err ask_create(struct kafka_client *face, const struct kafka_new_topic *topic, int64_t budget_ms,
               uint64_t cookie)
{
    struct ask *ask;
    if (topic->partition_count == 0 || topic->partition_count > LOG_PARTITION_COUNT_MAX ||
        topic->replica_count == 0 || topic->replica_count > KAFKA_REPLICAS_MAX)
        return ERR_INPUT;
    TRY(ask_open(client_of(face), ASK_CREATE, 0, budget_ms, cookie, &ask));
    ask->topic = (struct kafka_topic){ .partition_count = topic->partition_count,
                                       .replica_count_min = topic->replica_count,
                                       .min_insync_replicas = 1,
                                       .retention_ms = INT64_C(604800000),
                                       .retention_bytes = -1,
                                       .max_message_bytes = 1048588,
                                       .is_deleted = true };
    for (size_t i = 0; i < topic->config_count; i++)
        if (kafka_topic_set(&ask->topic, topic->configs[i].name, topic->configs[i].value) != OK)
            ask->topic.partition_count = 0; /* the broker refuses it */
    return OK;
}

err ask_retention(struct kafka_client *face, int64_t retention_ms, int64_t budget_ms, uint64_t cookie)
{
    struct ask *ask;
    if (retention_ms < -1)
        return ERR_INPUT;
    TRY(ask_open(client_of(face), ASK_RETENTION, 0, budget_ms, cookie, &ask));
    ask->retention_ms = retention_ms;
    return OK;
}

err ask_delete(struct kafka_client *face, uint32_t partition, uint64_t before, int64_t budget_ms,
               uint64_t cookie)
{
    struct ask *ask;
    check(partition < LOG_PARTITION_COUNT_MAX);
    if (before > INT64_MAX)
        return ERR_INPUT;
    TRY(ask_open(client_of(face), ASK_DELETE, 0, budget_ms, cookie, &ask));
    ask->partition = partition;
    ask->before = before;
    return OK;
}
