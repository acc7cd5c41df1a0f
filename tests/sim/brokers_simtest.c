/* The simulated brokers under simple producers and readers of numbered records: faults from a seed, then healing.
 *
 * The model stands outside: what became of every record by its client's word, what was read, and what the brokers
 * hold for committed. Oracles: what was acknowledged is committed where it was said to be, unless the log was told
 * to go back; what was called not stored is nowhere; readers see the committed records, all, in order, and hear of
 * a log that went back before they see anything new; every cookie and question is answered once and in time;
 * memory is bounded; when all is healed, everything gets through. */
#include "base/test.h"

#include <string.h>

#include "sim/brokers_strike.h"

#define NODES         4 /* 0 … 2 on topic 0, 3 on topic 1, which it creates */
#define PARTITIONS    3
#define RECORDS_MAX   20000
#define ASKS_MAX      64
#define STEP_MS_MAX   100
#define FAULTY_MS     40000
#define REST_MS       45000
#define MEMORY_MAX    (24u << 20)
#define TOO_LARGE     1500 /* for topic 1 */
#define ASK_BUDGET_MS 3000

enum fate { FATE_OPEN, FATE_ACKED, FATE_NOT_STORED, FATE_MAYBE, FATE_REFUSED, FATE_ORPHAN };

struct record {
    uint8_t fate, node, partition;
    int64_t deadline_ms;
    uint64_t offset;
};

struct reader {
    bool is_assigned, has_epoch;
    uint64_t position;
    size_t backs_seen;
};

struct node {
    struct kafka_client *client;
    uint32_t topic;
    enum { NONE, RUNS, FATAL, STOPPING } producer;
    int64_t stop_ms, frozen_until_ms, denied_until_ms, deaf_until_ms;
    struct reader readers[PARTITIONS];
    int64_t asks[ASKS_MAX]; /* when the answer is due at the latest; 0: free */
    bool has_topic;
};

static struct world {
    struct test_random random;
    struct brokers_sim *sim;
    struct node nodes[NODES];
    struct record records[RECORDS_MAX];
    uint64_t record_count, read_count;
    unsigned recreations;
    struct strikes strikes;
    bool is_faulty;
    size_t memory_max;
} w;

static uint64_t totals[BROKERS_SIM_COUNT_END], total_records, total_read;

static uint64_t below(uint64_t bound) { return test_random_below(&w.random, bound); }
static bool chance(uint64_t one_in) { return below(one_in) == 0; }
static int64_t now_ms(void) { return brokers_sim_now_ms(w.sim); }
static uint32_t partitions_of(const struct node *n) { return n->topic == 0 ? PARTITIONS : 1; }

static bool went_back(uint32_t topic, uint32_t p, size_t since, uint64_t offset)
{
    size_t count;
    const struct brokers_sim_back *backs = brokers_sim_backs(w.sim, topic, p, &count);
    for (size_t i = since; i < count; i++)
        if (backs[i].at <= offset)
            return true;
    return false;
}

/* The highest end that the committed log ever had. A deleted topic grows on until its brokers hear of it. */
static uint64_t end_max(uint32_t topic, uint32_t p)
{
    size_t count;
    uint64_t end = brokers_sim_truth(w.sim, topic, p).end_offset;
    const struct brokers_sim_back *backs = brokers_sim_backs(w.sim, topic, p, &count);
    if (w.recreations > 0)
        return UINT64_MAX;
    for (size_t i = 0; i < count; i++)
        end = backs[i].end > end ? backs[i].end : end;
    return end;
}

/* ---- producing ---- */

static void produce(struct node *n)
{
    uint8_t filler[TOO_LARGE] = { 0 };
    if (w.record_count >= RECORDS_MAX)
        return;
    uint64_t number = w.record_count;
    uint32_t p = (uint32_t)below(partitions_of(n));
    if (n->topic == 1 && chance(200))
        p = 2; /* there is none */
    struct slice parts[2] = { slice_of(&number, sizeof number), slice_of(filler, below(120)) };
    if (chance(300))
        parts[1].len = n->topic == 1 ? TOO_LARGE - 1 : 0;
    err e = kafka_produce(n->client, p, parts, 2, number);
    struct record *r = &w.records[w.record_count];
    *r = (struct record){ .node = (uint8_t)(n - w.nodes), .partition = (uint8_t)p };
    r->deadline_ms = now_ms() + 30000 + 1000 + STEP_MS_MAX;
    if (e != OK) {
        assert_true(e == ERR_BUSY || e == ERR_NOT_FOUND || (e == ERR_CLOSED && n->producer != RUNS) ||
                    (e == ERR_CLOSED && n->producer == RUNS)); /* fatal, and the event follows */
        r->fate = FATE_REFUSED;
    }
    w.record_count++;
}

/* What the client said last must be so. */
static void judge_acked(const struct node *n, const struct record *r, uint64_t number)
{
    struct brokers_sim_record is;
    struct brokers_sim_truth truth = brokers_sim_truth(w.sim, n->topic, r->partition);
    if (r->offset < truth.start_offset || went_back(n->topic, r->partition, 0, r->offset))
        return;
    if (!brokers_sim_truth_record(w.sim, n->topic, r->partition, r->offset, &is))
        fail_msg("record %llu acknowledged at %llu, the log ends at %llu", (unsigned long long)number,
                 (unsigned long long)r->offset, (unsigned long long)truth.end_offset);
    if (is.bytes.at != NULL) /* else a hole */
        assert_memory_equal(is.bytes.at, &number, sizeof number);
}

static void on_delivered(struct node *n, const struct kafka_event *event)
{
    struct record *r = &w.records[event->cookie];
    assert_true(event->cookie < w.record_count && r->node == n - w.nodes && r->fate == FATE_OPEN);
    assert_true(event->partition == r->partition);
    assert_true(now_ms() <= r->deadline_ms);
    r->fate = event->delivery == KAFKA_ACKED        ? FATE_ACKED
              : event->delivery == KAFKA_NOT_STORED ? FATE_NOT_STORED
                                                    : FATE_MAYBE;
    assert_true((event->delivery == KAFKA_ACKED) == (event->result == OK));
    r->offset = event->offset;
    if (r->fate == FATE_ACKED)
        judge_acked(n, r, event->cookie);
}

static void stop_producer(struct node *n)
{
    if (n->producer != RUNS && n->producer != FATAL)
        return;
    kafka_producer_stop(n->client);
    n->producer = STOPPING;
    n->stop_ms = now_ms();
}

/* ---- reading ---- */

static void assign(struct node *n, uint32_t p)
{
    struct reader *r = &n->readers[p];
    struct brokers_sim_truth truth = brokers_sim_truth(w.sim, n->topic, p);
    struct brokers_sim_record before;
    size_t count;
    const struct brokers_sim_back *backs = brokers_sim_backs(w.sim, n->topic, p, &count);
    for (; r->backs_seen < count; r->backs_seen++)
        if (backs[r->backs_seen].at < r->position)
            r->position = backs[r->backs_seen].at;
    if (r->position < truth.start_offset)
        r->position = truth.start_offset;
    r->has_epoch = r->position > 0 && !chance(4) &&
                   brokers_sim_truth_record(w.sim, n->topic, p, r->position - 1, &before);
    assert_ok(
        kafka_assign(n->client, p, r->position, r->has_epoch ? before.leader_epoch : KAFKA_EPOCH_UNKNOWN));
    assert_err(ERR_EXISTS, kafka_assign(n->client, p, 0, KAFKA_EPOCH_UNKNOWN));
    r->is_assigned = true;
}

/* Nothing that is committed was passed over. */
static void judge_passed(const struct node *n, uint32_t p, uint64_t from, uint64_t to)
{
    struct brokers_sim_record is;
    for (uint64_t at = from; at < to; at++)
        if (brokers_sim_truth_record(w.sim, n->topic, p, at, &is) && is.bytes.at != NULL &&
            !went_back(n->topic, p, 0, at))
            fail_msg("the record at %llu was passed over", (unsigned long long)at);
}

static bool hole_at(uint32_t topic, uint32_t p, uint64_t offset)
{
    struct brokers_sim_record is;
    return brokers_sim_truth_record(w.sim, topic, p, offset, &is) && is.bytes.at == NULL;
}

/* When the committed record at this offset was last lost. */
static size_t lost_in(uint32_t topic, uint32_t p, uint64_t offset)
{
    size_t count;
    const struct brokers_sim_back *backs = brokers_sim_backs(w.sim, topic, p, &count);
    for (size_t i = count; i > 0; i--)
        if (backs[i - 1].at <= offset && (offset < backs[i - 1].end || w.recreations > 0))
            return i - 1;
    if (!hole_at(topic, p, offset))
        fail_msg("a record at %llu that never was committed", (unsigned long long)offset);
    return count;
}

static void on_record(struct node *n, const struct kafka_event *event)
{
    struct reader *r = &n->readers[event->partition];
    struct brokers_sim_record is;
    assert_true(r->is_assigned && event->offset >= r->position);
    judge_passed(n, event->partition, r->position, event->offset);
    bool is_there = brokers_sim_truth_record(w.sim, n->topic, event->partition, event->offset, &is) &&
                    is.bytes.at != NULL;
    bool is_it =
        is_there && slice_equal(is.bytes, event->record.bytes) && is.leader_epoch == event->leader_epoch;
    size_t back_seen = r->backs_seen;
    bool has_expired = event->offset < brokers_sim_truth(w.sim, n->topic, event->partition).start_offset;
    if (!is_it &&
        !has_expired) /* a zombie's, of a log that went back since: it counts as not heard of again */
        r->backs_seen = lost_in(n->topic, event->partition, event->offset);
    if (is_it && r->has_epoch && w.recreations == 0 && r->position > 0 &&
        went_back(n->topic, event->partition, back_seen, r->position - 1))
        fail_msg("a record at %llu, and no word of a log that went back", (unsigned long long)event->offset);
    if (is_it && went_back(n->topic, event->partition, back_seen, event->offset)) /* read after it */
        brokers_sim_backs(w.sim, n->topic, event->partition, &r->backs_seen);
    r->position = event->offset + 1;
    r->has_epoch = true;
    w.read_count++;
}

static void on_reading(struct node *n, const struct kafka_event *event)
{
    struct reader *r = &n->readers[event->partition];
    if (event->kind == KAFKA_EVENT_RECORD) {
        on_record(n, event);
        return;
    }
    assert_true(r->is_assigned && event->offset >= r->position);
    judge_passed(n, event->partition, r->position, event->offset);
    if (event->kind == KAFKA_EVENT_PARTITION_END) {
        if (event->offset > r->position)
            r->position = event->offset;
        return;
    }
    if (event->kind == KAFKA_EVENT_TRUNCATED && event->truncated.end_offset != KAFKA_OFFSET_UNKNOWN)
        assert_true(event->truncated.end_offset < event->offset);
    kafka_unassign(n->client, event->partition);
    r->is_assigned = false;
}

/* ---- questions ---- */

static void ask(struct node *n)
{
    static const struct kafka_config_pair pairs[] = { { "max.message.bytes", "1000" },
                                                      { "min.insync.replicas", "2" },
                                                      { "message.timestamp.type", "LogAppendTime" },
                                                      { "retention.ms", "20000" } };
    static const struct kafka_new_topic wanted = { 1, 3, pairs, 4 };
    const uint32_t all[PARTITIONS] = { 0, 1, 2 };
    uint64_t slot = below(ASKS_MAX), p = below(partitions_of(n));
    struct brokers_sim_truth truth = brokers_sim_truth(w.sim, n->topic, (uint32_t)p);
    err e = ERR_BUSY;
    if (n->asks[slot] != 0)
        return;
    uint64_t kind = below(8);
    if (kind < 4)
        e = kafka_ask_ends(n->client, all, partitions_of(n), ASK_BUDGET_MS, slot);
    else if (kind < 6)
        e = kafka_ask_topic(n->client, ASK_BUDGET_MS, slot);
    else if (n->topic == 1 && kind == 6)
        e = n->has_topic && chance(2) ? kafka_alter_retention(n->client, 10000, ASK_BUDGET_MS, slot)
                                      : kafka_create_topic(n->client, &wanted, ASK_BUDGET_MS, slot);
    else if (kind == 7 && chance(8))
        e = kafka_delete_records(n->client, (uint32_t)p, truth.start_offset + below(20), ASK_BUDGET_MS, slot);
    else
        return;
    assert_ok(e);
    n->asks[slot] = now_ms() + ASK_BUDGET_MS + STEP_MS_MAX;
}

static void on_answer(struct node *n, const struct kafka_event *event)
{
    assert_true(event->cookie < ASKS_MAX && n->asks[event->cookie] != 0);
    assert_true(now_ms() <= n->asks[event->cookie]);
    n->asks[event->cookie] = 0;
    if (event->kind == KAFKA_EVENT_DONE && (event->result == OK || event->result == ERR_EXISTS))
        n->has_topic = true;
    if (event->kind == KAFKA_EVENT_TOPIC && event->result == OK)
        assert_true(event->topic->partition_count == partitions_of(n) && event->topic->id[0] != 0);
    for (size_t i = 0; event->kind == KAFKA_EVENT_ENDS && event->result == OK && i < event->ends.count; i++) {
        const struct kafka_ends *at = &event->ends.at[i];
        if (at->result == OK)
            assert_true(at->partition == i && at->end_offset <= end_max(n->topic, at->partition) &&
                        at->leader_epoch >= 0);
    }
}

/* ---- nodes ---- */

static void on_event(struct node *n, const struct kafka_event *event)
{
    assert_true(event->text != NULL);
    switch (event->kind) {
    case KAFKA_EVENT_DELIVERED:
        on_delivered(n, event);
        break;
    case KAFKA_EVENT_PRODUCER_FATAL:
        n->producer = n->producer == RUNS ? FATAL : n->producer;
        break;
    case KAFKA_EVENT_PRODUCER_STOPPED:
        assert_true(n->producer == STOPPING && now_ms() <= n->stop_ms + KAFKA_STOP_MS_MAX);
        for (uint64_t i = 0; i < w.record_count; i++)
            assert_true(w.records[i].fate != FATE_OPEN || w.records[i].node != n - w.nodes);
        n->producer = NONE;
        break;
    case KAFKA_EVENT_TROUBLE:
        break;
    case KAFKA_EVENT_ENDS:
    case KAFKA_EVENT_TOPIC:
    case KAFKA_EVENT_DONE:
        on_answer(n, event);
        break;
    default:
        assert_true(now_ms() >= n->deaf_until_ms);
        on_reading(n, event);
        break;
    }
}

static void run(struct node *n, bool produces)
{
    struct kafka_event event;
    struct err_at at;
    if (now_ms() < n->frozen_until_ms)
        return;
    brokers_sim_client_freeze(n->client, false);
    brokers_sim_client_deny(n->client, now_ms() < n->denied_until_ms);
    while (kafka_poll(n->client, 0, now_ms() >= n->deaf_until_ms, &event) == OK)
        on_event(n, &event);
    if (n->producer == NONE) {
        assert_ok(kafka_producer_start(n->client, &at));
        assert_err(ERR_BUSY, kafka_producer_start(n->client, &at));
        n->producer = RUNS;
    }
    if (n->producer == FATAL || (w.is_faulty && chance(2000)))
        stop_producer(n);
    for (uint64_t i = produces ? below(3) : 0; i > 0; i--)
        produce(n);
    for (uint32_t p = 0; p < partitions_of(n); p++)
        if (!n->readers[p].is_assigned && chance(4)) {
            assign(n, p);
        } else if (n->readers[p].is_assigned && w.is_faulty && chance(100)) {
            kafka_unassign(n->client, p);
            n->readers[p].is_assigned = false;
        }
    if (n->topic == 1 && w.is_faulty && !n->readers[2].is_assigned && chance(8))
        assign(n, 2); /* there is none */
    if (chance(5))
        ask(n);
}

static void open_node(struct node *n)
{
    static const struct kafka_client_config small = { .record_bytes_max = 4096,
                                                      .send_bytes_max = 8192,
                                                      .read_bytes_max = 2048,
                                                      .linger_ms = 5,
                                                      .socket_timeout_ms = 5000,
                                                      .delivery_ms_max = 30000 };
    n->topic = n - w.nodes == 3;
    n->client = brokers_sim_client(w.sim, (uint32_t)(n - w.nodes), n->topic, &small);
}

static void drop_node(struct node *n)
{
    brokers_sim_client_drop(n->client);
    for (uint64_t i = 0; i < w.record_count; i++)
        if (w.records[i].node == n - w.nodes && w.records[i].fate == FATE_OPEN)
            w.records[i].fate = FATE_ORPHAN;
    memset(n->asks, 0, sizeof n->asks);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        n->readers[p].is_assigned = false;
    n->producer = NONE;
    n->frozen_until_ms = n->denied_until_ms = 0;
    open_node(n);
}

static void freeze_node(struct node *n)
{
    n->frozen_until_ms = now_ms() + 500 + (int64_t)below(8000);
    brokers_sim_client_freeze(n->client, true);
    for (uint64_t i = 0; i < w.record_count; i++) /* who stands still is late */
        if (w.records[i].node == n - w.nodes && w.records[i].deadline_ms < n->frozen_until_ms + 1000)
            w.records[i].deadline_ms = n->frozen_until_ms + 1000;
    for (unsigned i = 0; i < ASKS_MAX; i++)
        if (n->asks[i] != 0 && n->asks[i] < n->frozen_until_ms + 1000)
            n->asks[i] = n->frozen_until_ms + 1000;
    n->stop_ms = n->frozen_until_ms;
}

/* ---- faults ---- */

static void strike_partition(uint64_t which)
{
    uint32_t t = chance(4), p = t == 1 ? 0 : (uint32_t)below(PARTITIONS);
    struct brokers_sim_truth truth = brokers_sim_truth(w.sim, t, p);
    uint64_t len = truth.end_offset - truth.start_offset, at = truth.start_offset + below(len + 1);
    switch (which) {
    case 0:
        if (chance(3))
            brokers_sim_truncate_last_replica(w.sim, t, p, truth.end_offset - below(len / 8 + 1));
        break;
    case 1:
        brokers_sim_expire_records(w.sim, t, p, truth.start_offset + below(len / 2 + 1));
        break;
    case 2:
        brokers_sim_punch_hole(w.sim, t, p, at, at + 1 + below(5));
        break;
    case 3:
        if (chance(10)) {
            w.recreations++;
            brokers_sim_delete_topic(w.sim, t, t == 0 || chance(2));
        }
        break;
    default:
        brokers_sim_move_leader(w.sim, t, p, (uint32_t)below(w.strikes.brokers));
        break;
    }
}

static void strike_node(uint64_t which)
{
    struct node *n = &w.nodes[below(NODES)];
    if (now_ms() < n->frozen_until_ms)
        return;
    if (which == 0)
        drop_node(n);
    else if (which == 1)
        freeze_node(n);
    else if (which == 2)
        n->denied_until_ms = now_ms() + (int64_t)below(4000);
    else
        n->deaf_until_ms = now_ms() + (int64_t)below(4000);
}

/* ---- lives ---- */

static void step(bool produces)
{
    brokers_sim_advance(w.sim, 1 + (int64_t)below(STEP_MS_MAX));
    for (unsigned i = 0; i < NODES; i++)
        run(&w.nodes[i], produces);
    size_t bytes = brokers_sim_bytes(w.sim);
    w.memory_max = bytes > w.memory_max ? bytes : w.memory_max;
    assert_true(bytes <= MEMORY_MAX);
}

static void rest(void)
{
    struct kafka_event event;
    w.is_faulty = false;
    brokers_sim_heal(w.sim);
    for (unsigned i = 0; i < NODES; i++)
        w.nodes[i].frozen_until_ms = w.nodes[i].denied_until_ms = w.nodes[i].deaf_until_ms = 0;
    for (int64_t until_ms = now_ms() + REST_MS; now_ms() < until_ms;)
        step(now_ms() < until_ms - REST_MS + 10000);
    for (unsigned i = 0; i < NODES; i++)
        stop_producer(&w.nodes[i]);
    for (int64_t until_ms = now_ms() + KAFKA_STOP_MS_MAX; now_ms() < until_ms;) {
        brokers_sim_advance(w.sim, STEP_MS_MAX);
        for (unsigned i = 0; i < NODES; i++)
            while (kafka_poll(w.nodes[i].client, 0, true, &event) == OK)
                on_event(&w.nodes[i], &event);
    }
    for (unsigned i = 0; i < NODES; i++)
        assert_true(w.nodes[i].producer == NONE);
}

/* After the rest: the truth as a client reads it that no fault touches, and what was said of each record. */
static void compare_all(void)
{
    struct kafka_event event;
    uint64_t position[PARTITIONS], last_acked = 0, last_taken = 0;
    struct brokers_sim_record is;
    struct kafka_client *calm = brokers_sim_client(w.sim, BROKERS_SIM_CALM, 0, NULL);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        position[p] = brokers_sim_truth(w.sim, 0, p).start_offset;
        assert_ok(kafka_assign(calm, p, position[p], KAFKA_EPOCH_UNKNOWN));
    }
    for (int i = 0; i < 100; i++) {
        brokers_sim_advance(w.sim, 20);
        while (kafka_poll(calm, 0, true, &event) == OK) {
            assert_true(event.kind == KAFKA_EVENT_RECORD || event.kind == KAFKA_EVENT_PARTITION_END);
            uint64_t *at = &position[event.partition];
            for (; *at < event.offset; (*at)++)
                assert_true(brokers_sim_truth_record(w.sim, 0, event.partition, *at, &is) &&
                            is.bytes.at == NULL);
            if (event.kind != KAFKA_EVENT_RECORD)
                continue;
            assert_true(brokers_sim_truth_record(w.sim, 0, event.partition, (*at)++, &is));
            assert_true(slice_equal(is.bytes, event.record.bytes));
            uint64_t number;
            memcpy(&number, is.bytes.at, sizeof number);
            assert_true(w.records[number].fate != FATE_NOT_STORED && w.records[number].fate != FATE_REFUSED);
        }
    }
    for (uint32_t p = 0; p < PARTITIONS; p++)
        assert_true(position[p] == brokers_sim_truth(w.sim, 0, p).end_offset);
    kafka_client_close(calm);
    for (uint64_t i = 0; i < w.record_count; i++) {
        assert_true(w.records[i].fate != FATE_OPEN);
        last_taken = w.records[i].fate == FATE_REFUSED ? last_taken : i;
        if (w.records[i].fate == FATE_ACKED) {
            judge_acked(&w.nodes[w.records[i].node], &w.records[i], i);
            last_acked = i;
        }
    }
    assert_true(w.record_count < RECORDS_MAX && last_acked + 200 > last_taken);
    for (unsigned i = 0; i < 3; i++)
        for (uint32_t p = 0; p < PARTITIONS; p++)
            assert_true(w.nodes[i].readers[p].position == brokers_sim_truth(w.sim, 0, p).end_offset);
}

static uint64_t live(uint64_t seed)
{
    struct brokers_sim_config config = { .broker_count = 3,
                                         .zone_count = 3,
                                         .topics = { { PARTITIONS, -1, false }, { 0, -1, true } },
                                         .topic_count = 2 };
    memset(&w, 0, sizeof w);
    w.random.state = seed;
    config.broker_count += seed % 4 == 0 ? 1 + seed % 8 / 4 : 0;
    w.sim = brokers_sim_open(seed, &config);
    w.strikes = (struct strikes){ w.sim, &w.random, config.broker_count, NODES, { 0 } };
    w.is_faulty = true;
    for (unsigned i = 0; i < NODES; i++)
        open_node(&w.nodes[i]);
    uint64_t enabled = test_random_u64(&w.random), rarity = 8 + below(50); /* each seed has its own mix */
    while (now_ms() < FAULTY_MS) {
        uint64_t which = below(STRIKES_ON_BROKERS + 9);
        if (chance(rarity) && enabled >> which & 1) {
            if (which < STRIKES_ON_BROKERS)
                strike_broker(&w.strikes, which);
            else if (which < STRIKES_ON_BROKERS + 5)
                strike_partition(which - STRIKES_ON_BROKERS);
            else
                strike_node(which - STRIKES_ON_BROKERS - 5);
        }
        strikes_mend(&w.strikes);
        step(true);
    }
    rest();
    compare_all();
    uint64_t trace = brokers_sim_trace(w.sim);
    for (unsigned i = 0; i < BROKERS_SIM_COUNT_END; i++)
        totals[i] += brokers_sim_counts(w.sim)[i];
    total_records += w.record_count;
    total_read += w.read_count;
    for (unsigned i = 0; i < NODES; i++)
        kafka_client_close(w.nodes[i].client);
    brokers_sim_close(w.sim);
    return trace;
}

static void any_life_is_true_to_its_promises(void **state)
{
    struct test_random r = test_random_begin("any_life_is_true_to_its_promises");
    uint64_t lives = getenv("KELPIE_SIM") != NULL ? 5000 : 500;
    size_t memory_max = 0;
    unsigned kinds = 0;
    for (uint64_t i = 0; i < lives; i++) {
        uint64_t seed = getenv("LIFE") != NULL ? strtoull(getenv("LIFE"), NULL, 0) : test_random_u64(&r);
        if (getenv("VERBOSE") != NULL) {
            printf("# LIFE=0x%llx\n", (unsigned long long)seed);
            fflush(stdout);
        }
        live(seed);
        memory_max = w.memory_max > memory_max ? w.memory_max : memory_max;
        if (getenv("LIFE") != NULL)
            return;
    }
    printf("# %llu lives, %llu records, %llu read, at most %zu bytes of memory\n", (unsigned long long)lives,
           (unsigned long long)total_records, (unsigned long long)total_read, memory_max);
    for (unsigned i = 0; i < BROKERS_SIM_COUNT_END; i++) {
        printf("# %s: %llu\n", brokers_sim_count_name((enum brokers_sim_count)i),
               (unsigned long long)totals[i]);
        kinds += totals[i] > 0;
    }
    assert_true(kinds == BROKERS_SIM_COUNT_END);
}

static void one_seed_one_trace(void **state)
{
    uint64_t first = live(77);
    assert_true(live(77) == first);
    assert_true(live(78) != first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_life_is_true_to_its_promises),
        cmocka_unit_test(one_seed_one_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
