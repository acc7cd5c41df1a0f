/* The Kafka driver's state machine, event by event: a scripted client stands where the library is, the test
 * says what it answers, and looks at what the driver asks of it. Whole brokers with chance in them are another
 * test's. */
#include "base/test.h"

#include <string.h>

#include "base/bytes.h"
#include "base/time.h"
#include "log/log_kafka.h"
#include "sim/io_sim.h"

#define PARTITIONS 2
#define MADE_MAX   64

/* ---- the scripted client ---- */

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
    bool is_producing, is_stopping, is_full, is_closed, records_are_wanted;
    unsigned producers;
    uint64_t topic_cookie, ends_cookie;
    bool is_assigned[PARTITIONS];
    uint64_t assigned[PARTITIONS]; /* from which offset */
    int32_t assigned_epoch[PARTITIONS];
    unsigned assigns;
};

static struct script script;
static struct pool *pool;
static struct io *io;
static struct log *kafka;
static struct kafka_topic topic;
static struct kafka_ends ends[PARTITIONS];

static void push_event(struct kafka_event event)
{
    assert_true(script.event_count < MADE_MAX);
    event.text = "";
    script.events[script.event_count++] = event;
}

static void answer_made(size_t i, enum kafka_delivery delivery, uint64_t offset)
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

static void script_close(struct kafka_client *client)
{
    for (size_t i = 0; i < script.made_count; i++)
        assert_true(script.made[i].is_answered);
    script.is_closed = true;
}

static err script_poll(struct kafka_client *client, int64_t budget_ms, bool with_records,
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

static err script_start(struct kafka_client *client, struct err_at *at)
{
    if (script.is_producing || script.is_stopping)
        return ERR_BUSY;
    script.is_producing = true;
    script.producers++;
    return OK;
}

static void script_stop(struct kafka_client *client)
{
    script.is_producing = false;
    script.is_stopping = true;
    for (size_t i = 0; i < script.made_count; i++)
        if (!script.made[i].is_answered)
            answer_made(i, KAFKA_MAYBE_STORED, 0);
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_PRODUCER_STOPPED });
    script.is_stopping = false;
}

static err script_produce(struct kafka_client *client, uint32_t partition, const struct slice *parts,
                          size_t part_count, uint64_t cookie)
{
    if (!script.is_producing)
        return ERR_CLOSED;
    if (script.is_full)
        return ERR_BUSY;
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

static err script_assign(struct kafka_client *client, uint32_t partition, uint64_t offset,
                         int32_t leader_epoch)
{
    assert_false(script.is_assigned[partition]);
    script.is_assigned[partition] = true;
    script.assigned[partition] = offset;
    script.assigned_epoch[partition] = leader_epoch;
    script.assigns++;
    return OK;
}

static void script_unassign(struct kafka_client *client, uint32_t partition)
{
    script.is_assigned[partition] = false;
}

static err script_ask_ends(struct kafka_client *client, const uint32_t *partitions, size_t count,
                           int64_t budget_ms, uint64_t cookie)
{
    assert_int_equal(script.ends_cookie, 0);
    script.ends_cookie = cookie;
    return OK;
}

static err script_ask_topic(struct kafka_client *client, int64_t budget_ms, uint64_t cookie)
{
    script.topic_cookie = cookie;
    return OK;
}

static const struct kafka_client_calls calls = {
    .close = script_close,
    .poll = script_poll,
    .producer_start = script_start,
    .producer_stop = script_stop,
    .produce = script_produce,
    .assign = script_assign,
    .unassign = script_unassign,
    .ask_ends = script_ask_ends,
    .ask_topic = script_ask_topic,
};

/* ---- appends ---- */

struct request {
    struct log_append append;
    struct slice part;
    unsigned answers;
    err result;
    struct log_position position;
};

static void done(struct log_append *append, err result, struct log_position position)
{
    struct request *r = append->context;
    r->answers++;
    r->result = result;
    r->position = position;
}

static void append(struct request *r, uint32_t partition, const char *text)
{
    *r = (struct request){ .part = slice_str(text) };
    r->append = (struct log_append){
        .partition = partition, .parts = &r->part, .part_count = 1, .done = done, .context = r
    };
    log_append(kafka, &r->append);
}

static void pump_for(int64_t ms)
{
    for (int64_t i = 0; i < ms; i += 100) {
        assert_ok(log_pump(kafka));
        io_sim_clock_advance(io, 100 * NS_PER_MS);
    }
    assert_ok(log_pump(kafka));
}

static void pump(void) { pump_for(0); }

static void tell_topic(void)
{
    push_event(
        (struct kafka_event){ .kind = KAFKA_EVENT_TOPIC, .cookie = script.topic_cookie, .topic = &topic });
    script.topic_cookie = 0;
    pump();
}

static void tell_ends(uint64_t start, uint64_t end, int32_t epoch)
{
    while (script.ends_cookie == 0)
        pump_for(500);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        ends[p] = (struct kafka_ends){ p, OK, start, end, epoch };
    push_event((struct kafka_event){
        .kind = KAFKA_EVENT_ENDS, .cookie = script.ends_cookie, .ends = { ends, PARTITIONS } });
    script.ends_cookie = 0;
    pump();
}

static void begin(void)
{
    pump();
    assert_int_not_equal(script.topic_cookie, 0);
    tell_topic();
    assert_int_equal(log_kafka_stage(kafka, NULL), LOG_KAFKA_RUNNING);
    pump();
    assert_true(script.is_producing);
}

/* ---- writing ---- */

static void weak_topics_are_refused(void **state)
{
    struct log_kafka_config config = { .partition_count = PARTITIONS };
    struct err_at at;
    struct kafka_topic bad;
    assert_ok(log_kafka_topic_check(&topic, &config, &at));
#define REFUSED(field, value, sentence)                                  \
    bad = topic;                                                         \
    bad.field = value;                                                   \
    assert_err(ERR_CONFLICT, log_kafka_topic_check(&bad, &config, &at)); \
    assert_string_equal(at.text, sentence)
    REFUSED(partition_count, 3, "the topic has 3 partitions, not 2");
    REFUSED(is_compacted, true, "the topic's cleanup.policy is not delete");
    REFUSED(replica_count_min, 2, "a partition of the topic has 2 replicas, at least 3 are needed");
    REFUSED(min_insync_replicas, 1, "the topic's min.insync.replicas is 1, at least 2 is needed");
    REFUSED(unclean_election, true, "the topic's unclean.leader.election.enable is true");
    REFUSED(retention_bytes, 1000, "the topic's retention.bytes is 1000, not -1");
    REFUSED(retention_ms, 3600000, "the topic's retention.ms is 3600000, at least a day is needed");
    REFUSED(max_message_bytes, 1000000,
            "the topic's max.message.bytes is 1000000, at least 17826816 is needed");
    REFUSED(is_append_time, false, "the topic's message.timestamp.type is not LogAppendTime");
    config.is_control = true;
    REFUSED(retention_ms, INT64_C(90000000), "the topic's retention.ms is 90000000, not -1");
    config.accept_weak_topic = true;
    assert_ok(log_kafka_topic_check(&bad, &config, &at));
    bad.partition_count = 1;
    assert_err(ERR_CONFLICT, log_kafka_topic_check(&bad, &config, &at));
}

static void nothing_is_taken_before_the_topic_is_known(void **state)
{
    struct request r;
    struct err_at at;
    append(&r, 0, "early");
    assert_int_equal(r.answers, 1);
    assert_int_equal(r.result, ERR_BUSY);
    pump();
    topic.min_insync_replicas = 1;
    tell_topic();
    assert_int_equal(log_kafka_stage(kafka, &at), LOG_KAFKA_REFUSED);
    assert_string_equal(at.text, "the topic's min.insync.replicas is 1, at least 2 is needed");
    pump_for(5000);
    assert_false(script.is_producing);
    append(&r, 0, "late");
    assert_int_equal(r.result, ERR_BUSY);
}

static void acknowledged_is_stored(void **state)
{
    struct request a, b;
    begin();
    append(&a, 0, "a");
    append(&b, 1, "b");
    pump();
    assert_int_equal(a.answers + b.answers, 0);
    size_t of_b = script.made[1].partition == 1; /* partitions take turns */
    answer_made(of_b, KAFKA_ACKED, 70);
    answer_made(1 - of_b, KAFKA_ACKED, 5);
    pump();
    assert_true(a.answers == 1 && a.result == OK && a.position.offset == 5);
    assert_true(b.answers == 1 && b.result == OK && b.position.offset == 70);
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 6);
    assert_int_equal(log_usage(kafka).queued_bytes, 0);
}

static void an_old_offset_is_no_acknowledgement(void **state)
{
    struct request a, b, c;
    begin();
    append(&a, 0, "a");
    append(&b, 0, "b");
    pump();
    answer_made(0, KAFKA_ACKED, 9);
    answer_made(1, KAFKA_ACKED, 4);
    pump();
    assert_int_equal(a.result, OK);
    assert_int_equal(b.result, ERR_IO);
    uint64_t from;
    assert_err(ERR_BUSY, log_went_back(kafka, 0, &from)); /* readers find out where */
    append(&c, 0, "c"); /* nothing more there, until it is known how it goes on */
    pump();
    assert_int_equal(c.result, ERR_BUSY);
    append(&c, 1, "c");
    pump();
    assert_int_equal(script.made_count, 3);
    answer_made(2, KAFKA_ACKED, 0);
    pump();
    assert_int_equal(c.result, OK);
}

static void what_is_open_is_sent_again(void **state)
{
    struct request a, b;
    begin();
    append(&a, 0, "a");
    append(&b, 0, "b");
    pump();
    answer_made(0, KAFKA_MAYBE_STORED, 0);
    answer_made(1, KAFKA_NOT_STORED, 0);
    pump();
    pump_for(100);
    assert_int_equal(a.answers + b.answers, 0);
    assert_int_equal(script.made_count, 4);
    assert_memory_equal(script.made[2].bytes, script.made[0].bytes, script.made[0].len); /* the same bytes */
    assert_memory_equal(script.made[3].bytes, script.made[1].bytes, script.made[1].len);
    answer_made(2, KAFKA_ACKED, 1);
    pump();
    assert_int_equal(a.result, OK);
    pump_for(40000); /* b is in flight: its answer is waited for */
    assert_int_equal(b.answers, 0);
    answer_made(3, KAFKA_NOT_STORED, 0);
    pump();
    assert_int_equal(b.result, ERR_BUSY); /* no attempt got out */
    append(&b, 0, "b");
    pump();
    answer_made(4, KAFKA_MAYBE_STORED, 0);
    pump_for(40000);
    answer_made(5, KAFKA_NOT_STORED, 0);
    pump();
    assert_int_equal(b.answers, 1);
    assert_int_equal(b.result, ERR_TIMEOUT); /* the first may have */
}

static void a_fatal_producer_is_replaced(void **state)
{
    struct request r[3];
    begin();
    for (int i = 0; i < 3; i++)
        append(&r[i], 0, i == 0 ? "a" : i == 1 ? "b" : "c");
    pump();
    answer_made(0, KAFKA_ACKED, 0);
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_PRODUCER_FATAL });
    pump();
    pump_for(1000);
    assert_int_equal(script.producers, 2);
    assert_int_equal(script.made_count, 5); /* the two that were open, once more, in their order */
    assert_memory_equal(script.made[3].bytes, script.made[1].bytes, script.made[1].len);
    answer_made(3, KAFKA_ACKED, 3);
    answer_made(4, KAFKA_ACKED, 4);
    pump();
    for (int i = 0; i < 3; i++)
        assert_true(r[i].answers == 1 && r[i].result == OK);
}

static void queues_are_bounded(void **state)
{
    static char large[60000];
    struct request r[3];
    begin();
    memset(large, 'x', sizeof large - 1);
    script.is_full = true;
    for (int i = 0; i < 3; i++) {
        append(&r[i], 0, large);
        pump();
    }
    assert_int_equal(r[0].answers, 0);
    assert_int_equal(r[2].result, ERR_BUSY);
    assert_true(log_usage(kafka).queued_bytes <= 128000);
    pump_for(40000);
    assert_true(r[0].result == ERR_BUSY && r[1].result == ERR_BUSY && r[0].answers == 1);
    assert_int_equal(log_usage(kafka).queued_bytes, 0);
}

static void closing_answers_everything(void **state)
{
    struct request a, b;
    begin();
    append(&a, 0, "a");
    pump();
    append(&b, 0, "b");
    log_close(kafka);
    kafka = NULL;
    assert_true(script.is_closed);
    assert_true(a.answers == 1 && a.result == ERR_TIMEOUT); /* it may be stored */
    assert_true(b.answers == 1 && b.result == ERR_CLOSED);
}

/* ---- reading ---- */

static struct log_reader *reader;

static void open_reader(uint64_t offset, int32_t epoch)
{
    assert_ok(log_reader_open(kafka, 0, offset, epoch, &reader));
    pump();
    pump();
    assert_true(script.is_assigned[0]);
    assert_int_equal(script.assigned[0], offset);
    assert_int_equal(script.assigned_epoch[0], epoch);
}

static void tell_record(uint64_t offset, int32_t epoch, struct slice bytes)
{
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_RECORD,
                                     .partition = 0,
                                     .offset = offset,
                                     .leader_epoch = epoch,
                                     .record = { .bytes = bytes } });
    pump();
}

/* The bytes that the driver makes of a text; the append stays open. */
static struct slice made_of(const char *text)
{
    static struct request requests[8];
    static size_t count;
    append(&requests[count++ % 8], 1, text);
    pump();
    struct made *m = &script.made[script.made_count - 1];
    answer_made(script.made_count - 1, KAFKA_ACKED, 100 + script.made_count);
    pump();
    return slice_of(m->bytes, m->len);
}

static struct log_record next_record(void)
{
    struct log_record record;
    assert_ok(log_reader_next(reader, &record));
    return record;
}

static void records_come_in_order(void **state)
{
    struct log_record record;
    begin();
    struct slice a = made_of("first"), b = made_of("second");
    open_reader(7, 2);
    assert_err(ERR_END, log_reader_next(reader, &record));
    tell_record(7, 2, a);
    tell_record(8, 3, b);
    record = next_record();
    assert_true(record.position.offset == 7 && slice_equal_str(record.bytes, "first") &&
                record.leader_epoch == 2);
    record = next_record();
    assert_true(record.position.offset == 8 && slice_equal_str(record.bytes, "second") &&
                record.missing == 0);
    assert_err(ERR_END, log_reader_next(reader, &record));
    tell_record(9, 3, slice_str("somebody else's"));
    assert_true(next_record().damaged);
    uint8_t torn[64];
    memcpy(torn, a.at, a.len);
    torn[a.len - 1] ^= 1;
    tell_record(10, 3, slice_of(torn, a.len));
    assert_true(next_record().damaged);
    tell_record(10, 3, a); /* again: no */
    assert_err(ERR_END, log_reader_next(reader, &record));
}

static void holes_are_looked_at_again(void **state)
{
    begin();
    struct slice a = made_of("a");
    open_reader(0, LOG_EPOCH_NONE);
    tell_record(0, 1, a);
    next_record();
    for (int i = 0; i < LOG_KAFKA_HOLE_TRIES - 1; i++) {
        struct log_record record;
        tell_record(4, 1, a);
        assert_err(ERR_END, log_reader_next(reader, &record));
        assert_false(script.is_assigned[0]);
        pump_for(1000);
        assert_true(script.is_assigned[0] && script.assigned[0] == 1 && script.assigned_epoch[0] == 1);
    }
    tell_record(4, 1, a);
    struct log_record record = next_record();
    assert_true(record.position.offset == 4 && record.missing == 3 && !record.damaged);
}

static void an_old_leader_is_not_believed(void **state)
{
    struct log_record record;
    begin();
    struct slice a = made_of("a");
    open_reader(5, 1);
    tell_ends(0, 6, 1);
    tell_record(5, 1, a);
    next_record();
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_OUT_OF_RANGE, .partition = 0, .offset = 6 });
    pump();
    assert_false(script.is_assigned[0]);
    pump_for(100);
    size_t marker = script.made_count - 1; /* a word of our own */
    assert_int_equal(script.made[marker].len, LOG_KAFKA_HEAD_BYTES);
    answer_made(marker, KAFKA_ACKED, 9);
    pump_for(1000);
    assert_true(script.is_assigned[0] && script.assigned[0] == 6);
    tell_record(6, 1, slice_of(script.made[marker].bytes, LOG_KAFKA_HEAD_BYTES));
    record = next_record();
    assert_true(record.is_marker && record.bytes.len == 0 && record.position.offset == 6);
}

static void a_log_that_went_back_is_told(void **state)
{
    struct log_record record;
    begin();
    open_reader(50, 4);
    tell_ends(0, 50, 4);
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_TRUNCATED,
                                     .partition = 0,
                                     .offset = 50,
                                     .truncated = { .end_offset = 44, .end_epoch = 4 } });
    pump();
    pump_for(100);
    assert_err(ERR_END, log_reader_next(reader, &record)); /* not yet sure */
    answer_made(script.made_count - 1, KAFKA_MAYBE_STORED, 0);
    pump_for(200);
    answer_made(script.made_count - 1, KAFKA_ACKED, 45);
    pump();
    assert_err(ERR_ORDER, log_reader_next(reader, &record));
    uint64_t from;
    struct request r;
    assert_ok(log_went_back(kafka, 0, &from));
    assert_int_equal(from, 44);
    assert_err(ERR_NOT_FOUND, log_went_back(kafka, 1, &from));
    append(&r, 0, "too early");
    pump();
    assert_int_equal(r.result, ERR_BUSY);
    log_reader_close(reader); /* whoever applies begins a generation there */
    log_go_on(kafka, 0, 44);
    open_reader(44, 4);
    assert_err(ERR_NOT_FOUND, log_went_back(kafka, 0, &from));
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 44);
    assert_true(log_watermarks(kafka, 0).confirmed_ns == INT64_MIN);
    append(&r, 0, "new");
    pump();
    answer_made(script.made_count - 1, KAFKA_ACKED, 46); /* below what was acknowledged in the life before */
    pump();
    assert_int_equal(r.result, OK);
}

/* It went back and others wrote since, beyond what was read: the check by epoch tells, the marker does not. */
static void a_log_that_grew_again_is_told(void **state)
{
    struct log_record record;
    struct kafka_event truncated = { .kind = KAFKA_EVENT_TRUNCATED,
                                     .partition = 0,
                                     .offset = 50,
                                     .truncated = { .end_offset = 44, .end_epoch = 4 } };
    uint64_t from;
    begin();
    open_reader(50, 4);
    push_event(truncated);
    pump();
    pump_for(100);
    answer_made(script.made_count - 1, KAFKA_ACKED, 60);
    pump_for(1000);
    assert_true(script.is_assigned[0] && script.assigned[0] == 50);
    assert_err(ERR_END, log_reader_next(reader, &record));
    push_event(truncated); /* by a leader that has our marker */
    pump();
    assert_err(ERR_ORDER, log_reader_next(reader, &record));
    assert_ok(log_went_back(kafka, 0, &from));
    assert_int_equal(from, 44);
}

/* What was acknowledged to others behind the place where the log went back is not passed over. */
static void the_lowest_end_counts(void **state)
{
    uint64_t from;
    begin();
    open_reader(50, 4);
    tell_ends(0, 50, 4);
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_OUT_OF_RANGE, .partition = 0, .offset = 50 });
    pump();
    pump_for(100);
    answer_made(script.made_count - 1, KAFKA_ACKED, 48);
    pump();
    assert_ok(log_went_back(kafka, 0, &from));
    assert_int_equal(from, 48);
}

static void a_reader_may_go_while_its_marker_is_on_its_way(void **state)
{
    begin();
    open_reader(50, 4);
    tell_ends(0, 50, 4);
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_OUT_OF_RANGE, .partition = 0, .offset = 50 });
    pump();
    pump_for(100);
    log_reader_close(reader);
    open_reader(7, 1); /* its place is free at once */
    log_reader_close(reader);
    reader = NULL;
    log_close(kafka);
    kafka = NULL;
}

static void what_expired_is_told(void **state)
{
    struct log_record record;
    begin();
    open_reader(10, 1);
    tell_ends(20, 30, 1);
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_OUT_OF_RANGE, .partition = 0, .offset = 10 });
    pump();
    assert_err(ERR_NOT_FOUND, log_reader_next(reader, &record));
    assert_int_equal(log_watermarks(kafka, 0).start_offset, 20);
}

static void ends_of_old_leaders_do_not_count(void **state)
{
    begin();
    open_reader(0, LOG_EPOCH_NONE);
    tell_ends(0, 10, 3);
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 10);
    tell_ends(0, 40, 2);
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 10);
    tell_ends(0, 8, 3);
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 10);
    tell_ends(0, 12, 4);
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 12);
}

static void reading_stops_when_nobody_takes(void **state)
{
    begin();
    struct slice a = made_of("0123456789012345678901234567890123456789012345678901234567890123456789");
    open_reader(0, LOG_EPOCH_NONE);
    for (uint64_t i = 0; i < 40; i++)
        tell_record(i, 1, a);
    pump();
    assert_false(script.records_are_wanted);
    for (uint64_t i = 0; i < 40; i++)
        assert_int_equal(next_record().position.offset, i);
    pump();
    assert_true(script.records_are_wanted);
}

/* ---- */

static int set_up(void **state)
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
                                  .is_append_time = true };
    reader = NULL;
    assert_ok(log_kafka_open(&config, &script.client, io, pool, &kafka));
    return 0;
}

static int tear_down(void **state)
{
    log_reader_close(reader);
    log_close(kafka);
    io_close(io);
    pool_close(pool);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(weak_topics_are_refused),
        TEST(nothing_is_taken_before_the_topic_is_known),
        TEST(acknowledged_is_stored),
        TEST(an_old_offset_is_no_acknowledgement),
        TEST(what_is_open_is_sent_again),
        TEST(a_fatal_producer_is_replaced),
        TEST(queues_are_bounded),
        TEST(closing_answers_everything),
        TEST(records_come_in_order),
        TEST(holes_are_looked_at_again),
        TEST(an_old_leader_is_not_believed),
        TEST(a_log_that_went_back_is_told),
        TEST(a_log_that_grew_again_is_told),
        TEST(the_lowest_end_counts),
        TEST(a_reader_may_go_while_its_marker_is_on_its_way),
        TEST(what_expired_is_told),
        TEST(ends_of_old_leaders_do_not_count),
        TEST(reading_stops_when_nobody_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
