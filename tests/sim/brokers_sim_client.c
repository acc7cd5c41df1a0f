/* The simulated client's producing half, its view of the cluster, and the one place where its events come out.
 *
 *   produce ─ outbox of the partition ─(batches, up to five in flight)→ broker ─ answer ─→ DELIVERED
 *                    ↑ put back, in order and with its sequence ─────────┘
 *
 * As in the real library: a batch is tried again as it was, so that the broker knows it; when an answer says that
 * sequences do not fit, or a record was given up in the middle, everything in flight is waited for, the library
 * takes another id, and what is not answered is sent again under it: a record may then stand twice.
 *
 * Invariants
 *   1. A sending is in its outbox until its DELIVERED is queued, and its bytes count until that is polled.
 *   2. A request lives on without its client: who gave up, or died, hears nothing of it. */
#include "base/check.h"
#include "base/hash.h"
#include "sim/brokers_sim_inside.h"

#define CLIENT_TICK_MS 100
#define METADATA_MS    2000
#define PURGE_MS       500  /* at most, from a stop until cookies are answered */
#define VANISH_MS      2000 /* at most, from then until the producer is gone */
#define TROUBLES_MAX   8

static struct client *client_of(struct kafka_client *face) { return (struct client *)face; }

static void *block(struct brokers_sim *sim, size_t bytes)
{
    void *at = NULL;
    check(pool_block_resize(sim->pool, &at, bytes) == OK);
    return at;
}

/* ---- what it sees of the cluster ---- */

bool client_reaches(const struct client *client, int32_t broker)
{
    return !client->sim->is_cut[BROKERS_SIM_AT_NODE(client->node)][broker];
}

bool client_hears(const struct client *client, int32_t broker)
{
    return !client->sim->is_cut[broker][BROKERS_SIM_AT_NODE(client->node)];
}

bool client_talks(const struct client *client, int32_t broker)
{
    return broker_runs(client->sim, broker) && client_reaches(client, broker) && client_hears(client, broker);
}

int64_t client_delay_ms(struct client *client, int32_t broker)
{
    return client->is_calm ? 1 : broker_delay_ms(client->sim, broker);
}

int32_t client_any_broker(struct client *client)
{
    int32_t found = NOBODY;
    for (uint32_t i = 0, seen = 0; i < client->sim->config.broker_count; i++)
        if (client_talks(client, (int32_t)i) && sim_chance(client->sim, ++seen))
            found = (int32_t)i;
    return found;
}

/* Ask some broker who leads what. An old epoch is not believed, nor a former topic of the name. */
void client_refresh(struct client *client, struct metadata *of)
{
    struct brokers_sim *sim = client->sim;
    struct topic *topic = &sim->topics[client->topic];
    int32_t broker = client_any_broker(client);
    of->next_ms = sim->now_ms + 100 + (int64_t)sim_below(sim, 300);
    if (broker == NOBODY || client->is_denied) {
        client_trouble(client, client->is_denied ? KAFKA_TROUBLE_DENIED : KAFKA_TROUBLE_UNREACHABLE,
                       client->is_denied ? "credentials are refused" : "no broker can be reached");
        return;
    }
    uint32_t life = client->is_calm ? topic->life : sim->brokers[broker].topic_life[client->topic];
    if (life == 0)
        of->is_known = false;
    if (life == 0 || life < of->life)
        return;
    of->next_ms = sim->now_ms + (client->is_calm ? CLIENT_TICK_MS : METADATA_MS);
    if (life != of->life)
        for (uint32_t p = 0; p < LOG_PARTITION_COUNT_MAX; p++)
            of->at[p].leader = of->at[p].epoch = NOBODY;
    of->is_known = true;
    of->life = life;
    of->partition_count = topic->settings.partition_count;
    for (uint32_t p = 0; p < of->partition_count; p++) {
        const struct replica *r = &topic->parts[p]->replica[broker];
        int32_t leader = client->is_calm ? topic->parts[p]->leader : r->leader;
        int32_t epoch = client->is_calm ? topic->parts[p]->epoch : r->epoch;
        if ((client->is_calm || r->life == life) && epoch >= of->at[p].epoch) {
            of->at[p].leader = leader;
            of->at[p].epoch = epoch;
        }
    }
}

/* ---- events ---- */

struct told *client_tell(struct client *client, struct told_list *list, enum kafka_event_kind kind,
                         err result, const char *text)
{
    struct told *told = block(client->sim, sizeof *told);
    *told = (struct told){ .event = { .kind = kind,
                                      .result = result,
                                      .offset = KAFKA_OFFSET_UNKNOWN,
                                      .leader_epoch = KAFKA_EPOCH_UNKNOWN },
                           .due_ms = client->sim->now_ms };
    size_t len = strlen(text);
    len = len < sizeof told->text - 1 ? len : sizeof told->text - 1;
    memcpy(told->text, text, len);
    told->event.text = told->text;
    *list->last = told;
    list->last = &told->next;
    return told;
}

void client_trouble(struct client *client, enum kafka_trouble trouble, const char *text)
{
    if (client->trouble_count >= TROUBLES_MAX)
        return;
    client->trouble_count++;
    client_tell(client, &client->replies, KAFKA_EVENT_TROUBLE, OK, text)->event.trouble = trouble;
}

static void free_sending(struct client *client, struct sending *s)
{
    client->sending_bytes -= s->bytes;
    blob_drop(client->sim, s->blob);
    pool_block_free(client->sim->pool, s);
}

static void free_told(struct client *client, struct told *told)
{
    if (told == NULL)
        return;
    if (told->sending != NULL)
        free_sending(client, told->sending);
    blob_drop(client->sim, told->blob);
    if (told->ask != NULL)
        pool_block_free(client->sim->pool, told->ask);
    client->record_bytes -= told->bytes;
    pool_block_free(client->sim->pool, told);
}

void client_forget(struct client *client, struct told_list *list, int64_t partition)
{
    list->last = &list->first;
    while (*list->last != NULL) {
        struct told *told = *list->last;
        if (partition >= 0 && told->event.partition != (uint32_t)partition) {
            list->last = &told->next;
            continue;
        }
        *list->last = told->next;
        free_told(client, told);
    }
}

static void count_event(struct client *client, const struct kafka_event *event)
{
    static const enum brokers_sim_count of_kind[] = {
        BROKERS_SIM_COUNT_DELIVERED_ACKED,
        BROKERS_SIM_COUNT_PRODUCER_FATAL,
        BROKERS_SIM_COUNT_PRODUCER_STOPPED,
        BROKERS_SIM_COUNT_RECORD,
        BROKERS_SIM_COUNT_PARTITION_END,
        BROKERS_SIM_COUNT_OUT_OF_RANGE,
        BROKERS_SIM_COUNT_TRUNCATED,
        BROKERS_SIM_COUNT_READ_FAILED,
        BROKERS_SIM_COUNT_ENDS,
        BROKERS_SIM_COUNT_TOPIC,
        BROKERS_SIM_COUNT_DONE,
        BROKERS_SIM_COUNT_TROUBLE,
    };
    enum brokers_sim_count count = of_kind[event->kind];
    if (event->kind == KAFKA_EVENT_DELIVERED && event->delivery != KAFKA_ACKED)
        count = event->delivery == KAFKA_NOT_STORED ? BROKERS_SIM_COUNT_DELIVERED_NOT_STORED
                                                    : BROKERS_SIM_COUNT_DELIVERED_MAYBE;
    client->sim->counts[count]++;
    sim_trace(client->sim, (uint64_t)event->kind << 32 | client->node,
              event->cookie ^ hash_mix(event->offset));
}

static bool has_told(void *context)
{
    const struct client *client = context;
    bool has_record = client->records.first != NULL && client->records.first->due_ms <= client->sim->now_ms;
    return client->is_woken || client->replies.first != NULL || has_record;
}

void brokers_sim_on_wait(struct brokers_sim *sim,
                         void (*wait)(bool (*is_ready)(void *client), void *client, int64_t budget_ms))
{
    sim->wait = wait;
}

static err poll_client(struct kafka_client *face, int64_t budget_ms, bool with_records,
                       struct kafka_event *out_event)
{
    struct client *client = client_of(face);
    free_told(client, client->held);
    client->held = NULL;
    if (budget_ms > 0 && client->sim->wait != NULL && !has_told(client))
        client->sim->wait(has_told, client, budget_ms);
    client->is_woken = false;
    bool has_record =
        with_records && client->records.first != NULL && client->records.first->due_ms <= client->sim->now_ms;
    struct told_list *list = &client->replies;
    if (has_record && (list->first == NULL || sim_chance(client->sim, 2)))
        list = &client->records;
    struct told *told = list->first;
    if (told == NULL)
        return ERR_END;
    list->first = told->next;
    if (list->first == NULL)
        list->last = &list->first;
    client->held = told;
    client->trouble_count -= told->event.kind == KAFKA_EVENT_TROUBLE;
    client->ask_count -= told->ask != NULL;
    count_event(client, &told->event);
    *out_event = told->event;
    return OK;
}

static void wake_client(struct kafka_client *face)
{
    check(client_of(face)->is_open);
    client_of(face)->is_woken = true;
}

/* ---- outboxes ---- */

static void kick(struct client *client, uint32_t p, int64_t delay_ms)
{
    struct outbox *o = &client->outbox[p];
    if (o->is_due || o->first == NULL)
        return;
    o->is_due = true;
    sim_at(client->sim, delay_ms,
           (struct action){
               .kind = ACTION_SEND, .client = client, .client_life = client->life, .partition = p });
}

/* Answer the sendings of a request (0: those that are queued; all: UINT64_MAX) once and for all. zero: where the
 * sequence 0 would be. */
static void finish(struct client *client, uint32_t p, uint64_t request, enum kafka_delivery delivery,
                   err result, const char *text, uint64_t zero)
{
    struct outbox *o = &client->outbox[p];
    for (struct sending **at = &o->first; *at != NULL;) {
        struct sending *s = *at;
        if (request != UINT64_MAX && s->request != request) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        struct told *told = client_tell(client, &client->replies, KAFKA_EVENT_DELIVERED, result, text);
        told->sending = s;
        told->event.cookie = s->cookie;
        told->event.partition = p;
        told->event.delivery = delivery == KAFKA_NOT_STORED && s->is_maybe ? KAFKA_MAYBE_STORED : delivery;
        if (delivery == KAFKA_ACKED)
            told->event.offset = zero + s->sequence;
        if (delivery == KAFKA_ACKED && told->event.offset < o->acked_end)
            COUNT(client->sim, ACKED_BELOW_LAST);
        if (delivery == KAFKA_ACKED)
            o->acked_end = told->event.offset + 1;
    }
    o->last = &o->first;
    while (*o->last != NULL)
        o->last = &(*o->last)->next;
}

static void put_back(struct client *client, uint32_t p, uint64_t request, bool is_maybe)
{
    for (struct sending *s = client->outbox[p].first; s != NULL; s = s->next)
        if (s->request == request) {
            s->request = 0;
            s->is_maybe |= is_maybe;
        }
    client->outbox[p].not_before_ms = client->sim->now_ms + 50 + (int64_t)sim_below(client->sim, 100);
    kick(client, p, LATER_MS);
}

static void go_fatal(struct client *client, const char *text)
{
    client->state = PRODUCER_FATAL;
    struct told *told = client_tell(client, &client->replies, KAFKA_EVENT_PRODUCER_FATAL, ERR_IO, text);
    told->event.result = ERR_IO;
    if (sim_chance(client->sim, 2)) /* what is queued comes back at once, or when its time is up */
        for (uint32_t p = 0; p < client->partitions_used; p++)
            finish(client, p, 0, KAFKA_NOT_STORED, ERR_CLOSED, "the producer had a fatal error", 0);
}

static struct flight *flight_of(struct outbox *o, uint64_t request)
{
    for (size_t i = 0; i < sizeof o->flights / sizeof o->flights[0]; i++)
        if (o->flights[i].request == request)
            return &o->flights[i];
    return NULL;
}

/* Hand the next batch to the leader. */
static void launch(struct client *client, uint32_t p, struct sending *first, struct flight *flight,
                   int32_t broker)
{
    struct brokers_sim *sim = client->sim;
    struct outbox *o = &client->outbox[p];
    uint64_t batch = first->batch;
    uint32_t count = 0;
    for (struct sending *s = first; s != NULL && s->request == 0 && s->batch == batch; s = s->next)
        if (++count == (batch == 0 ? sim->odds.batch : WINDOW))
            break;
    struct request *request = block(sim, sizeof *request + count * sizeof request->records[0]);
    *request = (struct request){ .client = client,
                                 .client_life = client->life,
                                 .topic = client->topic,
                                 .producer_life = client->producer_life,
                                 .partition = p,
                                 .count = count,
                                 .id = ++sim->numbers,
                                 .producer = client->producer,
                                 .broker = broker };
    struct sending *s = first;
    for (uint32_t i = 0; i < count; i++, s = s->next) {
        if (!s->is_numbered)
            s->sequence = o->next_sequence++;
        s->is_numbered = true;
        s->request = request->id;
        s->batch = batch == 0 ? request->id : batch;
        request->records[i].blob = blob_ref(s->blob);
        request->records[i].t_ms = s->t_ms;
    }
    request->base = first->sequence;
    *flight = (struct flight){ request->id, broker, sim->now_ms + client->config.socket_timeout_ms };
    request->connection = client->connection[broker];
    if (!client_reaches(client, broker) || client->is_broken[broker]) {
        request_vanish(sim, request);
        return;
    }
    int64_t at_ms = sim->now_ms + client_delay_ms(client, broker);
    at_ms = at_ms > client->sent_ms[broker] ? at_ms : client->sent_ms[broker];
    client->sent_ms[broker] = at_ms;
    sim_at(sim, at_ms - sim->now_ms, (struct action){ .kind = ACTION_REQUEST, .request = request });
}

static void send(struct client *client, uint32_t p)
{
    struct brokers_sim *sim = client->sim;
    struct outbox *o = &client->outbox[p];
    struct metadata *of = &client->of_producer;
    struct sending *s = o->first;
    struct flight *flight = flight_of(o, 0);
    o->is_due = false;
    while (s != NULL && s->request != 0)
        s = s->next;
    if (client->state != PRODUCER_RUNS || client->is_changing_id || client->producer == 0 || s == NULL ||
        flight == NULL)
        return; /* the tick, or an answer, begins again */
    int32_t leader = of->is_known && p < of->partition_count ? of->at[p].leader : NOBODY;
    bool is_refused =
        leader != NOBODY && (sim->brokers[leader].power == POWER_KILLED || sim->brokers[leader].is_booting);
    if (leader == NOBODY || is_refused || sim->now_ms < o->not_before_ms) {
        if (sim->now_ms >= of->next_ms || (is_refused && sim_chance(sim, 4)))
            client_refresh(client, of);
        kick(client, p, LATER_MS);
        return;
    }
    for (size_t i = 0; i < 5; i++)
        if (o->flights[i].request != 0 && o->flights[i].broker != leader)
            return; /* what is in flight to the former leader ends first */
    launch(client, p, s, flight, leader);
    kick(client, p, 1);
}

/* ---- answers ---- */

static void on_refusal(struct client *client, struct request *request)
{
    struct outbox *o = &client->outbox[request->partition];
    struct brokers_sim *sim = client->sim;
    bool was_written = request->answer == ANSWER_DISCONNECT || request->answer == ANSWER_NOT_LEADER ||
                       request->answer == ANSWER_FEW_AFTER || request->answer == ANSWER_TIMEOUT;
    bool is_head = o->first != NULL && o->first->request == request->id;
    switch (request->answer) {
    case ANSWER_TOO_LARGE:
        finish(client, request->partition, request->id, KAFKA_NOT_STORED, ERR_LIMIT,
               "too large for the broker", 0);
        client->is_changing_id = true;
        break;
    case ANSWER_DENIED:
        finish(client, request->partition, request->id, KAFKA_NOT_STORED, ERR_DENIED, "not allowed", 0);
        client->is_changing_id = true;
        break;
    case ANSWER_OLD_DOUBLE:
        finish(client, request->partition, request->id, KAFKA_MAYBE_STORED, ERR_BUSY, "stored somewhere", 0);
        break;
    case ANSWER_GAP:
        if (is_head && sim_chance(sim, sim->odds.fatal_one_in) && client->state == PRODUCER_RUNS)
            go_fatal(client, "sequences do not fit");
        client->is_changing_id = true;
        put_back(client, request->partition, request->id, false);
        break;
    default:
        if (was_written && client->state == PRODUCER_RUNS && sim_chance(sim, 40 * sim->odds.fatal_one_in))
            go_fatal(client, "the library gave up");
        put_back(client, request->partition, request->id, was_written);
        client->of_producer.next_ms = sim->now_ms;
        break;
    }
}

static void open_connection(struct client *client, uint32_t broker)
{
    client->sent_ms[broker] = client->answered_ms[broker] = 0;
    client->connection[broker]++;
    client->is_broken[broker] = false;
}

/* A request without an answer closes the connection, and with it all that is in flight there. */
static void close_connection(struct client *client, int32_t broker)
{
    for (uint32_t p = 0; p < client->partitions_used; p++)
        for (size_t i = 0; i < 5; i++) {
            struct flight *f = &client->outbox[p].flights[i];
            if (f->request == 0 || f->broker != broker)
                continue;
            put_back(client, p, f->request, true);
            f->request = 0;
        }
    open_connection(client, (uint32_t)broker);
    client_refresh(client, &client->of_producer);
}

/* Who comes after was taken, so those before it, which wait for another try, were too: nobody knows where. */
static void imply(struct client *client, uint32_t p, uint64_t request)
{
    bool any = false;
    for (struct sending *s = client->outbox[p].first; s != NULL && s->request != request; s = s->next) {
        if (s->request != 0 || !s->is_numbered)
            continue;
        s->request = UINT64_MAX - 1;
        any = true;
    }
    if (!any)
        return;
    COUNT(client->sim, IMPLIED);
    finish(client, p, UINT64_MAX - 1, KAFKA_MAYBE_STORED, ERR_BUSY, "stored somewhere", 0);
}

static void on_answer(struct client *client, struct request *request)
{
    struct brokers_sim *sim = client->sim;
    uint32_t p = request->partition;
    bool is_mine = client->is_open && client->life == request->client_life &&
                   client->producer_life == request->producer_life;
    struct flight *flight = is_mine ? flight_of(&client->outbox[p], request->id) : NULL;
    if (flight == NULL) { /* given up since */
        if (request->answer == ANSWER_OK)
            COUNT(sim, STORED_AFTER_GIVEN_UP);
        request_free(sim, request);
        return;
    }
    flight->request = 0;
    if (request->answer == ANSWER_OK)
        imply(client, p, request->id);
    if (request->answer == ANSWER_OK)
        finish(client, p, request->id, KAFKA_ACKED, OK, "", request->first - request->base);
    else
        on_refusal(client, request);
    if (request->answer == ANSWER_DISCONNECT)
        close_connection(client, request->broker);
    kick(client, p, 1);
    request_free(sim, request);
}

/* ---- as time goes by ---- */

static void tick_outbox(struct client *client, uint32_t p, bool *io_is_flying)
{
    struct brokers_sim *sim = client->sim;
    struct outbox *o = &client->outbox[p];
    for (size_t i = 0; i < 5; i++) {
        if (o->flights[i].request != 0 && sim->now_ms >= o->flights[i].give_up_ms)
            close_connection(client, o->flights[i].broker);
        *io_is_flying |= o->flights[i].request != 0;
    }
    while (o->first != NULL && sim->now_ms >= o->first->deadline_ms) {
        struct sending *s = o->first; /* alone: the others of its batch have their own time */
        bool is_maybe = s->is_maybe || s->request != 0;
        bool is_there = client->of_producer.is_known && p < client->of_producer.partition_count;
        client->is_changing_id |= s->is_numbered;
        s->request = UINT64_MAX - 1;
        finish(client, p, UINT64_MAX - 1, is_maybe ? KAFKA_MAYBE_STORED : KAFKA_NOT_STORED,
               is_there ? ERR_TIMEOUT : ERR_NOT_FOUND,
               is_there ? "not answered in time" : "no such partition", 0);
    }
    if (client->state == PRODUCER_RUNS && client->producer != 0)
        kick(client, p, 0);
}

static void change_id(struct client *client)
{
    struct brokers_sim *sim = client->sim;
    client->is_changing_id = false;
    client->producer = 0;
    client->producer_ms = sim->now_ms + 50 + (int64_t)sim_below(sim, 500);
    COUNT(sim, ID_CHANGED);
    for (uint32_t p = 0; p < client->partitions_used; p++) {
        client->outbox[p].next_sequence = 0;
        for (struct sending *s = client->outbox[p].first; s != NULL; s = s->next) {
            s->is_numbered = false;
            s->batch = 0;
        }
    }
}

static void tick_producer(struct client *client)
{
    struct brokers_sim *sim = client->sim;
    bool is_flying = false;
    if (sim->now_ms >= client->of_producer.next_ms)
        client_refresh(client, &client->of_producer);
    if (client->producer == 0 && sim->now_ms >= client->producer_ms && !client->is_denied &&
        client_any_broker(client) != NOBODY)
        client->producer = ++sim->numbers;
    for (uint32_t p = 0; p < client->partitions_used; p++)
        tick_outbox(client, p, &is_flying);
    if (client->is_changing_id && !is_flying)
        change_id(client);
    if (client->state == PRODUCER_PURGES && sim->now_ms >= client->purge_ms) {
        for (uint32_t p = 0; p < client->partitions_used; p++) {
            finish(client, p, 0, KAFKA_NOT_STORED, ERR_CLOSED, "the producer was stopped", 0);
            finish(client, p, UINT64_MAX, KAFKA_MAYBE_STORED, ERR_CLOSED, "the producer was stopped", 0);
            memset(client->outbox[p].flights, 0, sizeof client->outbox[p].flights);
        }
        client->state = PRODUCER_VANISHES;
    }
    if (client->state == PRODUCER_VANISHES && sim->now_ms >= client->vanish_ms) {
        client->state = PRODUCER_NONE;
        client_tell(client, &client->replies, KAFKA_EVENT_PRODUCER_STOPPED, OK, "");
    }
}

static void tick(struct client *client)
{
    struct brokers_sim *sim = client->sim;
    sim_at(sim, CLIENT_TICK_MS,
           (struct action){ .kind = ACTION_CLIENT_TICK, .client = client, .client_life = client->life });
    if (client->is_frozen)
        return;
    if (sim->now_ms >= client->of_reader.next_ms)
        client_refresh(client, &client->of_reader);
    if (client->state != PRODUCER_NONE)
        tick_producer(client);
    for (uint32_t p = 0; p < client->partitions_used; p++)
        reading_tick(client, p);
    if (!client->is_calm && sim_chance(sim, 100 * sim->odds.trouble_one_in))
        client_trouble(client, KAFKA_TROUBLE_OTHER, "a broker closed a connection");
}

void client_act(const struct action *action)
{
    struct client *client = action->client;
    struct action again = *action;
    bool is_alive = client->is_open && client->life == action->client_life;
    if (is_alive && client->is_frozen && action->kind != ACTION_CLIENT_TICK) {
        sim_at(client->sim, LATER_MS, again);
        return;
    }
    if (action->kind == ACTION_ANSWER)
        on_answer(client, action->request);
    else if (!is_alive)
        return;
    else if (action->kind == ACTION_SEND)
        send(client, action->partition);
    else if (action->kind == ACTION_FETCH)
        reading_fetch(client, action->partition, action->life);
    else if (action->kind == ACTION_ASK)
        ask_act(client, action->number);
    else
        tick(client);
}

/* ---- calls ---- */

static err producer_start(struct kafka_client *face, struct err_at *at)
{
    struct client *client = client_of(face);
    if (client->state != PRODUCER_NONE)
        return err_set(at, ERR_BUSY, "a producer is there");
    memset(client->outbox, 0, sizeof client->outbox);
    for (uint32_t p = 0; p < LOG_PARTITION_COUNT_MAX; p++)
        client->outbox[p].last = &client->outbox[p].first;
    memset(&client->of_producer, 0, sizeof client->of_producer);
    for (uint32_t i = 0; i < BROKERS_MAX; i++)
        open_connection(client, i);
    client->state = PRODUCER_RUNS;
    client->producer_life++;
    client->producer = 0;
    client->is_changing_id = false;
    client->producer_ms =
        client->sim->now_ms + 50 + (int64_t)sim_below(client->sim, client->is_calm ? 10 : 1500);
    return OK;
}

static void producer_stop(struct kafka_client *face)
{
    struct client *client = client_of(face);
    if (client->state != PRODUCER_RUNS && client->state != PRODUCER_FATAL)
        return;
    client->state = PRODUCER_PURGES;
    client->purge_ms = client->sim->now_ms + (int64_t)sim_below(client->sim, PURGE_MS);
    client->vanish_ms = client->purge_ms + (int64_t)sim_below(client->sim, VANISH_MS);
}

static err produce(struct kafka_client *face, uint32_t partition, const struct slice *parts,
                   size_t part_count, uint64_t cookie)
{
    struct client *client = client_of(face);
    struct brokers_sim *sim = client->sim;
    struct outbox *o = &client->outbox[partition];
    uint64_t len = 0;
    check(partition < LOG_PARTITION_COUNT_MAX);
    if (client->state != PRODUCER_RUNS)
        return ERR_CLOSED;
    for (size_t i = 0; i < part_count; i++)
        len += parts[i].len;
    if (len > client->config.record_bytes_max)
        return ERR_LIMIT;
    uint64_t bytes = len + sizeof(struct sending);
    if (client->sending_bytes + bytes > client->config.send_bytes_max && client->sending_bytes > 0) {
        COUNT(sim, BUSY);
        return ERR_BUSY;
    }
    if (client->of_producer.is_known && partition >= client->of_producer.partition_count)
        return ERR_NOT_FOUND;
    struct sending *s = block(sim, sizeof *s);
    *s = (struct sending){ .blob = blob_new(sim, parts, part_count),
                           .cookie = cookie,
                           .bytes = (uint32_t)bytes,
                           .t_ms = START_WALL_MS + sim->now_ms,
                           .deadline_ms = sim->now_ms + client->config.delivery_ms_max };
    client->sending_bytes += bytes;
    *o->last = s;
    o->last = &s->next;
    if (partition >= client->partitions_used)
        client->partitions_used = partition + 1;
    kick(client, partition, client->config.linger_ms);
    return OK;
}

void brokers_sim_client_drop(struct kafka_client *face)
{
    struct client *client = client_of(face);
    if (face == NULL || !client->is_open)
        return;
    client->is_open = false;
    client->life++;
    COUNT(client->sim, DROP);
    free_told(client, client->held);
    client->held = NULL;
    client_forget(client, &client->replies, -1);
    client_forget(client, &client->records, -1);
    asks_forget(client);
    for (uint32_t p = 0; p < client->partitions_used && client->state != PRODUCER_NONE; p++) {
        while (client->outbox[p].first != NULL) {
            struct sending *s = client->outbox[p].first;
            client->outbox[p].first = s->next;
            free_sending(client, s);
        }
    }
    check(client->sending_bytes == 0 && client->record_bytes == 0);
}

static void close_client(struct kafka_client *face)
{
    check(client_of(face)->state == PRODUCER_NONE);
    brokers_sim_client_drop(face);
    client_of(face)->sim->counts[BROKERS_SIM_COUNT_DROP]--;
}

void brokers_sim_client_freeze(struct kafka_client *face, bool is_frozen)
{
    if (is_frozen && !client_of(face)->is_frozen)
        COUNT(client_of(face)->sim, FREEZE);
    client_of(face)->is_frozen = is_frozen;
}

void brokers_sim_client_deny(struct kafka_client *face, bool is_denied)
{
    if (is_denied && !client_of(face)->is_denied)
        COUNT(client_of(face)->sim, DENY);
    client_of(face)->is_denied = is_denied;
}

static const struct kafka_client_calls sim_calls = {
    .close = close_client,
    .poll = poll_client,
    .wake = wake_client,
    .producer_start = producer_start,
    .producer_stop = producer_stop,
    .produce = produce,
    .assign = reading_assign,
    .unassign = reading_unassign,
    .ask_ends = ask_ends,
    .ask_topic = ask_topic,
    .create_topic = ask_create,
    .alter_retention = ask_retention,
    .delete_records = ask_delete,
};

struct kafka_client *brokers_sim_client(struct brokers_sim *sim, uint32_t node, uint32_t topic,
                                        const struct kafka_client_config *config)
{
    static const struct kafka_client_config usual = { .record_bytes_max = 1 << 20,
                                                      .send_bytes_max = 4 << 20,
                                                      .read_bytes_max = 1 << 20,
                                                      .linger_ms = 5,
                                                      .socket_timeout_ms = 5000,
                                                      .delivery_ms_max = 30000 };
    check(node <= BROKERS_SIM_NODES_MAX && topic < sim->config.topic_count);
    struct client *client = sim->clients[node][topic];
    if (client == NULL)
        check(pool_zalloc(sim->pool, sizeof *client, (void **)&client) == OK);
    check(!client->is_open);
    uint32_t life = client->life + 1, producer_life = client->producer_life;
    *client = (struct client){ .face = { &sim_calls },
                               .sim = sim,
                               .node = node,
                               .topic = topic,
                               .life = life,
                               .producer_life = producer_life,
                               .is_open = true,
                               .is_calm = node == BROKERS_SIM_CALM,
                               .config = config == NULL ? usual : *config };
    client->replies.last = &client->replies.first;
    client->records.last = &client->records.first;
    sim->clients[node][topic] = client;
    sim_at(sim, 0, (struct action){ .kind = ACTION_CLIENT_TICK, .client = client, .client_life = life });
    return &client->face;
}
