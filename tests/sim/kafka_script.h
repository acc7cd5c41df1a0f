/* A scripted client behind the log's Kafka driver, for tests that go event by event: the test says what the client
 * answers, and looks at what the driver asks of it. Include after base/test.h. */
#ifndef TESTS_KAFKA_SCRIPT_H
#define TESTS_KAFKA_SCRIPT_H

#include "base/test.h"

#include <string.h>

#include "base/bytes.h"
#include "base/time.h"
#include "log/log_kafka.h"
#include "sim/io_sim.h"

#define PARTITIONS 2
#define MADE_MAX   64

struct made { /* a record that was produced */
    uint32_t partition;
    uint64_t cookie;
    size_t len;
    uint8_t bytes[256];
    bool is_answered;
};

struct script {
    struct kafka_client client;
    struct kafka_event events[MADE_MAX];
    size_t event_first, event_count;
    struct made made[MADE_MAX];
    size_t made_count;
    bool is_producing, is_stopping, is_full, is_too_small, is_closed, records_are_wanted;
    unsigned producers, wakes;
    uint64_t topic_cookie, ends_cookie, altered_cookie;
    unsigned altered; /* orders to keep records longer */
    int64_t altered_ms;
    bool is_assigned[PARTITIONS];
    uint64_t assigned[PARTITIONS]; /* from which offset */
    int32_t assigned_epoch[PARTITIONS];
    unsigned assigns;
    void (*meanwhile)(void); /* what another thread does while a pump is in its middle; once */
};

static struct script script;
static struct pool *pool;
static struct io *io;
static struct log *kafka;
static struct kafka_topic topic;
static struct kafka_ends ends[PARTITIONS];

static inline void push_event(struct kafka_event event)
{
    assert_true(script.event_count < MADE_MAX);
    event.text = event.text != NULL ? event.text : "";
    script.events[script.event_count++] = event;
}

static inline void answer_made(size_t i, enum kafka_delivery delivery, uint64_t offset)
{
    struct made *m = &script.made[i];
    assert_true(i < script.made_count && !m->is_answered);
    m->is_answered = true;
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_DELIVERED,
                                     .partition = m->partition,
                                     .cookie = m->cookie,
                                     .delivery = delivery,
                                     .result = delivery == KAFKA_ACKED ? OK : ERR_TIMEOUT,
                                     .offset = offset });
}

static inline void script_close(struct kafka_client *client)
{
    for (size_t i = 0; i < script.made_count; i++)
        assert_true(script.made[i].is_answered);
    script.is_closed = true;
}

static inline err script_poll(struct kafka_client *client, int64_t budget_ms, bool with_records,
                              struct kafka_event *out_event)
{
    script.records_are_wanted = with_records;
    if (script.event_first == script.event_count) {
        script.event_first = script.event_count = 0;
        return ERR_END;
    }
    *out_event = script.events[script.event_first++];
    return OK;
}

static inline void script_wake(struct kafka_client *client) { script.wakes++; }

static inline err script_start(struct kafka_client *client, struct err_at *at)
{
    if (script.is_producing || script.is_stopping)
        return ERR_BUSY;
    script.is_producing = true;
    script.producers++;
    return OK;
}

static inline void script_stop(struct kafka_client *client)
{
    script.is_producing = false;
    script.is_stopping = true;
    for (size_t i = 0; i < script.made_count; i++)
        if (!script.made[i].is_answered)
            answer_made(i, KAFKA_MAYBE_STORED, 0);
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_PRODUCER_STOPPED });
    script.is_stopping = false;
}

static inline err script_produce(struct kafka_client *client, uint32_t partition, const struct slice *parts,
                                 size_t part_count, uint64_t cookie)
{
    if (!script.is_producing)
        return ERR_CLOSED;
    if (script.is_full)
        return ERR_BUSY;
    if (script.is_too_small)
        return ERR_LIMIT;
    assert_true(script.made_count < MADE_MAX);
    struct made *m = &script.made[script.made_count++];
    *m = (struct made){ .partition = partition, .cookie = cookie };
    for (size_t i = 0; i < part_count; i++) {
        assert_true(m->len + parts[i].len <= sizeof m->bytes);
        memcpy(m->bytes + m->len, parts[i].at, parts[i].len);
        m->len += parts[i].len;
    }
    return OK;
}

static inline err script_assign(struct kafka_client *client, uint32_t partition, uint64_t offset,
                                int32_t leader_epoch)
{
    assert_false(script.is_assigned[partition]);
    script.is_assigned[partition] = true;
    script.assigned[partition] = offset;
    script.assigned_epoch[partition] = leader_epoch;
    script.assigns++;
    return OK;
}

static inline void script_unassign(struct kafka_client *client, uint32_t partition)
{
    script.is_assigned[partition] = false;
}

static inline err script_ask_ends(struct kafka_client *client, const uint32_t *partitions, size_t count,
                                  int64_t budget_ms, uint64_t cookie)
{
    assert_int_equal(script.ends_cookie, 0);
    script.ends_cookie = cookie;
    if (script.meanwhile != NULL)
        script.meanwhile();
    script.meanwhile = NULL;
    return OK;
}

static inline err script_ask_topic(struct kafka_client *client, int64_t budget_ms, uint64_t cookie)
{
    script.topic_cookie = cookie;
    return OK;
}

static inline err script_alter(struct kafka_client *client, int64_t retention_ms, int64_t budget_ms,
                               uint64_t cookie)
{
    script.altered++;
    script.altered_ms = retention_ms;
    script.altered_cookie = cookie;
    return OK;
}

static const struct kafka_client_calls calls = {
    .close = script_close,
    .poll = script_poll,
    .wake = script_wake,
    .producer_start = script_start,
    .producer_stop = script_stop,
    .produce = script_produce,
    .assign = script_assign,
    .unassign = script_unassign,
    .ask_ends = script_ask_ends,
    .ask_topic = script_ask_topic,
    .alter_retention = script_alter,
};

/* ---- appends ---- */

struct request {
    struct log_append append;
    struct slice part;
    unsigned answers;
    err result;
    struct log_position position;
};

static inline void done(struct log_append *append, err result, struct log_position position)
{
    struct request *r = append->context;
    r->answers++;
    r->result = result;
    r->position = position;
}

/* NULL: a marker. */
static inline void append(struct request *r, uint32_t partition, const char *text)
{
    *r = (struct request){ .part = slice_str(text != NULL ? text : "") };
    r->append = (struct log_append){ .partition = partition,
                                     .parts = &r->part,
                                     .part_count = text != NULL,
                                     .is_marker = text == NULL,
                                     .done = done,
                                     .context = r };
    log_append(kafka, &r->append);
}

static inline void pump_for(int64_t ms)
{
    for (int64_t i = 0; i < ms; i += 100) {
        assert_ok(log_pump(kafka));
        io_sim_clock_advance(io, 100 * NS_PER_MS);
    }
    assert_ok(log_pump(kafka));
}

static inline void pump(void) { pump_for(0); }

static inline void tell_topic(void)
{
    push_event(
        (struct kafka_event){ .kind = KAFKA_EVENT_TOPIC, .cookie = script.topic_cookie, .topic = &topic });
    script.topic_cookie = 0;
    pump();
}

static inline void tell_ends(uint64_t start, uint64_t end, int32_t epoch)
{
    while (script.ends_cookie == 0)
        pump_for(500);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        ends[p] = (struct kafka_ends){ p, p == 0 ? OK : ERR_BUSY, start, end, epoch };
    push_event((struct kafka_event){
        .kind = KAFKA_EVENT_ENDS, .cookie = script.ends_cookie, .ends = { ends, PARTITIONS } });
    script.ends_cookie = 0;
    pump();
}

static inline void begin(void)
{
    pump();
    assert_int_not_equal(script.topic_cookie, 0);
    tell_topic();
    assert_int_equal(log_kafka_stage(kafka, NULL), LOG_KAFKA_RUNNING);
    pump();
    assert_true(script.is_producing);
}

static inline size_t last_made(void) { return script.made_count - 1; }

static struct log_reader *reader; /* closed by tear_down */

static inline int set_up(void **state)
{
    struct log_kafka_config config = { .partition_count = PARTITIONS,
                                       .queue_bytes_max = 128000,
                                       .tail_bytes_max = 4000,
                                       .delivery_ms_max = 30000,
                                       .cluster_id = "a cluster" };
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    assert_ok(io_sim_open(1, &io));
    memset(&script, 0, sizeof script);
    script.client.calls = &calls;
    topic = (struct kafka_topic){ .partition_count = PARTITIONS,
                                  .replica_count_min = 3,
                                  .min_insync_replicas = 2,
                                  .retention_ms = -1,
                                  .retention_bytes = -1,
                                  .max_message_bytes = 20 << 20,
                                  .is_deleted = true,
                                  .is_append_time = true,
                                  .id = "a topic's id...." };
    reader = NULL;
    assert_ok(log_kafka_open(&config, &script.client, io, pool, &kafka));
    return 0;
}

static inline int tear_down(void **state)
{
    log_reader_close(reader);
    log_close(kafka);
    io_close(io);
    pool_close(pool);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
