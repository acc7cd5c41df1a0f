/* The Kafka driver's state machine, event by event: the topic, appends, and what became of what was
 * acknowledged. Whole brokers with chance in them are another test's. */
#include "sim/kafka_script.h"

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

static void settings_are_read_whole(void **state)
{
    struct kafka_topic is = topic;
    static const char *const bad[][2] = {
        { "retention.ms", "" },
        { "retention.ms", "-2" },
        { "retention.ms", "1d" },
        { "retention.bytes", "9223372036854775808" },
        { "min.insync.replicas", " 2" },
        { "max.message.bytes", "+5" },
        { "unclean.leader.election.enable", "True" },
        { "message.timestamp.type", "LogAppendTimes" },
        { "cleanup.policy", "compact,deleted" },
        { "cleanup.policy", "delete;compact" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_err(ERR_INPUT, kafka_topic_set(&is, bad[i][0], bad[i][1]));
    assert_err(ERR_NOT_FOUND, kafka_topic_set(&is, "segment.bytes", "x"));
    assert_memory_equal(&is, &topic, sizeof is);
    assert_ok(kafka_topic_set(&is, "min.insync.replicas", "3"));
    assert_ok(kafka_topic_set(&is, "retention.ms", "9223372036854775807"));
    assert_ok(kafka_topic_set(&is, "retention.bytes", "-1"));
    assert_ok(kafka_topic_set(&is, "max.message.bytes", "0"));
    assert_ok(kafka_topic_set(&is, "unclean.leader.election.enable", "true"));
    assert_ok(kafka_topic_set(&is, "message.timestamp.type", "CreateTime"));
    assert_ok(kafka_topic_set(&is, "cleanup.policy", "compact,delete"));
    assert_true(is.min_insync_replicas == 3 && is.retention_ms == INT64_MAX && is.retention_bytes == -1 &&
                is.max_message_bytes == 0 && is.unclean_election && !is.is_append_time && is.is_compacted &&
                is.is_deleted);
    assert_ok(kafka_topic_set(&is, "cleanup.policy", ""));
    assert_true(!is.is_compacted && !is.is_deleted);
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

/* The doubt reads: what was made, at this offset. */
static void tell_made(size_t i, uint64_t offset, int32_t epoch)
{
    const struct made *m = &script.made[i];
    assert_true(script.is_assigned[m->partition]);
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_RECORD,
                                     .partition = m->partition,
                                     .offset = offset,
                                     .leader_epoch = epoch,
                                     .record = { .bytes = slice_of(m->bytes, m->len) } });
    pump();
}

static void an_old_offset_is_no_acknowledgement(void **state)
{
    struct request a, b, c;
    uint64_t from;
    begin();
    append(&a, 0, "a");
    pump();
    answer_made(0, KAFKA_ACKED, 9);
    pump();
    append(&b, 0, "b");
    pump();
    answer_made(1, KAFKA_ACKED, 4);
    pump();
    assert_int_equal(a.result, OK);
    assert_int_equal(b.result, ERR_IO);
    assert_err(ERR_BUSY, log_went_back(kafka, 0, &from));
    append(&c, 0, "c"); /* nothing more there, until it is known how it goes on */
    append(&b, 1, "b");
    pump();
    assert_int_equal(c.result, ERR_BUSY);
    assert_int_equal(script.made_count, 4); /* and nobody reads it: a marker of the driver's own */
    size_t marker = script.made[2].partition == 0 ? 2 : 3;
    assert_int_equal(script.made[marker].len, LOG_KAFKA_HEAD_BYTES + 16);
    answer_made(5 - marker, KAFKA_ACKED, 0);
    answer_made(marker, KAFKA_ACKED, 5);
    pump();
    assert_int_equal(b.result, OK);
    assert_err(ERR_BUSY, log_went_back(kafka, 0, &from));
    pump();
    tell_topic(); /* it is the same one */
    assert_ok(log_went_back(kafka, 0, &from));
    assert_int_equal(from, 4); /* b stands there now */
    assert_int_equal(log_watermarks(kafka, 0).generation, 1);
    log_go_on(kafka, 0, from);
    append(&c, 0, "c");
    pump();
    assert_int_equal(log_watermarks(kafka, 0).generation, 2);
    answer_made(last_made(), KAFKA_ACKED, 6);
    pump();
    assert_int_equal(c.result, OK);
    assert_int_equal(a.position.generation, 1);
    assert_int_equal(c.position.generation, 2);
    assert_int_equal(log_watermarks(kafka, 1).generation, 1); /* each partition for itself */
}

/* Handed over before the other was acknowledged: it may have been stored before it. */
static void a_late_acknowledgement_is_no_proof(void **state)
{
    struct request a, b;
    uint64_t from;
    begin();
    append(&a, 0, "a");
    append(&b, 0, "b");
    pump();
    answer_made(1, KAFKA_ACKED, 9);
    answer_made(0, KAFKA_ACKED, 8);
    pump();
    assert_int_equal(b.result, OK);
    assert_int_equal(a.result, ERR_TIMEOUT); /* not positive */
    assert_err(ERR_NOT_FOUND, log_went_back(kafka, 0, &from));
    pump(); /* it is looked at */
    answer_made(2, KAFKA_ACKED, 10);
    pump();
    assert_int_equal(script.assigned[0], 9);
    tell_made(1, 9, 3);
    tell_made(2, 10, 3);
    assert_false(script.is_assigned[0]);
    pump_for(2000);
    assert_err(ERR_NOT_FOUND, log_went_back(kafka, 0, &from));
    assert_int_equal(script.made_count, 3);
}

/* Acknowledged below an anchor and above it; then another leader, who has it all, and one who has not. */
static void what_was_acknowledged_is_looked_for(void **state)
{
    struct request r[4];
    uint64_t from;
    begin();
    append(&r[0], 0, "a");
    pump();
    answer_made(0, KAFKA_ACKED, 4);
    tell_ends(0, 5, 1);
    pump_for(1000);
    if (script.made_count == 2) { /* acknowledged before any end was told */
        answer_made(1, KAFKA_ACKED, 5);
        pump();
        tell_made(0, 4, 1);
        tell_made(1, 5, 1);
    }
    size_t first = script.made_count;
    for (int i = 1; i < 4; i++) {
        append(&r[i], 0, i == 1 ? "b" : i == 2 ? "c" : "d");
        pump();
        answer_made(last_made(), KAFKA_ACKED, 9 + (uint64_t)i);
        pump();
    }
    tell_ends(0, 13, 2);
    pump();
    size_t marker = last_made();
    assert_int_equal(script.made[marker].len, LOG_KAFKA_HEAD_BYTES + 16);
    answer_made(marker, KAFKA_ACKED, 13);
    pump();
    assert_true(script.assigned[0] == 6 && script.assigned_epoch[0] == 1);
    for (size_t i = 0; i < 3; i++)
        tell_made(first + i, 10 + i, i == 2 ? 2 : 1);
    tell_made(marker, 13, 2);
    assert_false(script.is_assigned[0]);
    assert_err(ERR_NOT_FOUND, log_went_back(kafka, 0, &from));
    append(&r[0], 0, "e");
    pump();
    answer_made(last_made(), KAFKA_ACKED, 14);
    tell_ends(0, 30, 3);
    pump();
    answer_made(last_made(), KAFKA_ACKED, 30);
    pump();
    assert_true(script.assigned[0] == 14 && script.assigned_epoch[0] == 2);
    tell_made(first, 14, 3); /* another one stands there */
    tell_made(marker, 30, 2);
    pump(); /* of a leader before this one: again */
    assert_false(script.is_assigned[0]);
    pump_for(1000);
    answer_made(last_made(), KAFKA_ACKED, 31);
    pump();
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_TRUNCATED,
                                     .partition = 0,
                                     .offset = 14,
                                     .truncated = { .end_offset = 12, .end_epoch = 2 } });
    pump();
    pump_for(1000);
    tell_topic();
    assert_ok(log_went_back(kafka, 0, &from));
    assert_int_equal(from, 12);
}

/* Another marker stands where ours was acknowledged: it is not of the log that had ours. */
static void a_doubt_knows_its_marker(void **state)
{
    struct request r;
    begin();
    append(&r, 0, "a");
    pump();
    answer_made(0, KAFKA_ACKED, 4);
    tell_ends(0, 5, 1); /* acknowledged before any end was told */
    pump();
    append(&r, 0, NULL);
    pump();
    answer_made(1, KAFKA_ACKED, 5);
    pump();
    tell_made(0, 4, 1);
    tell_made(2, 5, 2);
    assert_false(script.is_assigned[0]);
    assert_int_equal(((struct log_kafka *)kafka)->partitions[0].doubt.stage, DOUBT_WANTED);
    answer_made(2, KAFKA_ACKED, 6);
    pump_for(1000);
    answer_made(3, KAFKA_ACKED, 7);
    pump();
    tell_made(0, 4, 1);
    tell_made(3, 7, 2);
    assert_int_equal(((struct log_kafka *)kafka)->partitions[0].doubt.stage, DOUBT_NONE);
}

/* The log went back below the marker, and grows: what comes is no sign that the marker will. */
static void a_doubt_does_not_wait_for_ever(void **state)
{
    struct request r;
    begin();
    append(&r, 0, "a");
    pump();
    answer_made(0, KAFKA_ACKED, 4);
    tell_ends(0, 5, 1);
    pump();
    answer_made(1, KAFKA_ACKED, 50);
    pump();
    for (uint64_t i = 0; i < 7; i++) { /* still far behind */
        tell_made(0, 4 + i, 1);
        pump_for(1000);
    }
    assert_int_equal(script.made_count, 2);
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_PARTITION_END, .partition = 0, .offset = 11 });
    for (uint64_t i = 0; i < 7 && (i == 0 || script.is_assigned[0]); i++) {
        tell_made(0, 11 + i, 1);
        pump_for(1000);
    }
    pump_for(1000);
    assert_int_equal(script.made_count, 3); /* another marker */
    answer_made(2, KAFKA_ACKED, 20);
    pump();
}

/* Nobody reads: the log went back to 4. */
static void go_back_to_4(void)
{
    static struct request r[2];
    uint64_t from;
    append(&r[0], 0, "a");
    pump();
    answer_made(last_made(), KAFKA_ACKED, 9);
    pump();
    append(&r[1], 0, "b");
    pump();
    answer_made(last_made(), KAFKA_ACKED, 4);
    pump();
    pump();
    answer_made(last_made(), KAFKA_ACKED, 5);
    pump();
    pump();
    assert_err(ERR_BUSY, log_went_back(kafka, 0, &from));
    tell_topic();
    assert_ok(log_went_back(kafka, 0, &from));
    assert_int_equal(from, 4);
}

/* The word of whoever only writes: above the place it is not believed, below it is, and later it is nothing. */
static void it_goes_on_where_it_is_said(void **state)
{
    struct request r;
    uint64_t from;
    begin();
    go_back_to_4();
    log_go_on(kafka, 0, 5);
    pump();
    assert_ok(log_went_back(kafka, 0, &from));
    assert_int_equal(log_watermarks(kafka, 0).generation, 1);
    append(&r, 0, "c");
    pump();
    assert_int_equal(r.result, ERR_BUSY);
    log_go_on(kafka, 0, 3);
    assert_err(ERR_NOT_FOUND, log_went_back(kafka, 0, &from)); /* at once, not when the pump has seen it */
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 3);
    append(&r, 0, "c");
    pump();
    assert_err(ERR_NOT_FOUND, log_went_back(kafka, 0, &from));
    answer_made(last_made(), KAFKA_ACKED, 6);
    pump();
    assert_int_equal(r.result, OK);
    log_go_on(kafka, 0, 3); /* late: all of it is known already */
    pump();
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 7);
    assert_int_equal(log_watermarks(kafka, 0).generation, 2);
}

/* It went back a second time, and where is known, but not told yet: the first place is not where it goes on. */
static void a_late_word_is_of_the_former_place(void **state)
{
    struct request r;
    uint64_t from;
    begin();
    go_back_to_4();
    log_kafka_set_back((struct log_kafka *)kafka, &((struct log_kafka *)kafka)->partitions[0], 2, 1);
    log_go_on(kafka, 0, 4);
    pump();
    assert_err(ERR_BUSY, log_went_back(kafka, 0, &from));
    append(&r, 0, "c");
    pump();
    assert_int_equal(r.result, ERR_BUSY);
    tell_topic();
    assert_ok(log_went_back(kafka, 0, &from));
    assert_int_equal(from, 2);
    log_go_on(kafka, 0, 2);
    pump();
    assert_err(ERR_NOT_FOUND, log_went_back(kafka, 0, &from));
}

/* What is said of a place that was not told, or is not the place any more, is not taken, however low. */
static void only_what_was_told_is_known(void **state)
{
    struct log_kafka *log = (struct log_kafka *)kafka;
    struct kafka_event event = { .kind = KAFKA_EVENT_TOPIC, .topic = &topic };
    uint64_t from;
    begin();
    go_back_to_4();
    log_kafka_set_back(log, &log->partitions[0], 2, 1);
    pump();
    log_go_on(kafka, 0, 0);
    event.cookie = script.topic_cookie; /* before the pump looks at that */
    log_kafka_on_topic(log, &event);
    script.topic_cookie = 0;
    pump();
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 10);
    log_go_on(kafka, 0, 0); /* the 2 is not told yet */
    assert_ok(log_went_back(kafka, 0, &from));
    assert_int_equal(from, 2);
    log_go_on(kafka, 0, 0);
    assert_err(ERR_NOT_FOUND, log_went_back(kafka, 0, &from));
}

/* Any sequence of acknowledgements, doubts that begin and doubts that end. */
static void what_is_kept_is_spread(void **state)
{
    struct test_random random = test_random_begin("what_is_kept_is_spread");
    for (unsigned life = 0; life < 300; life++) {
        struct log_kafka *log = (struct log_kafka *)kafka;
        struct kafka_partition *p = &log->partitions[0];
        uint64_t count = 0, rarity = 1 + test_random_below(&random, 400), held = 0;
        log_kafka_doubt_reset(p, 0, 0);
        for (uint64_t i = test_random_below(&random, 3000); i > 0; i--) {
            log_kafka_keep(p, 10 * count, (uint32_t)count, 0);
            count++;
            if (test_random_below(&random, rarity) == 0) { /* a marker is sent, or its doubt is over */
                p->doubt.kept_count = p->doubt.kept_count == 0 ? p->kept_count : 0;
                held = count - 1;
            }
            uint64_t before = 0;
            assert_in_range(p->kept_count, 1, KAFKA_KEPT_MAX);
            for (size_t k = 0; k < p->kept_count; k++) {
                assert_int_equal(p->kept[k].offset, 10 * p->kept[k].crc);
                assert_true(k == 0 || p->kept[k].crc > before);
                assert_true(p->kept[k].crc - before <= p->kept_step);
                before = p->kept[k].crc;
            }
            assert_int_equal(before, count - 1);
            if (p->doubt.kept_count > 0) /* those before the marker, to the last of them */
                assert_int_equal(p->kept[p->doubt.kept_count - 1].crc, held);
        }
        assert_true(p->kept_step <= 1 + 8 * count / KAFKA_KEPT_MAX);
    }
}

/* The last one before a pause stays, however many come after it. */
static void what_came_before_a_pause_is_kept(void **state)
{
    struct kafka_partition *p = &((struct log_kafka *)kafka)->partitions[0];
    log_kafka_doubt_reset(p, 0, 0);
    for (uint64_t i = 0; i < 3000; i++)
        log_kafka_keep(p, i, (uint32_t)i, i <= 777 ? 0 : NS_PER_SECOND);
    size_t at = 0;
    while (at < p->kept_count && p->kept[at].offset != 777)
        at++;
    assert_true(at < p->kept_count);
    assert_true(p->kept_step > 8);
}

static void who_slept_was_not_acknowledged(void **state)
{
    struct request a;
    begin();
    append(&a, 0, "a");
    pump();
    io_sim_clock_advance(io, 3600 * INT64_C(1000) * NS_PER_MS);
    answer_made(0, KAFKA_ACKED, 4);
    pump();
    assert_int_equal(a.result, ERR_TIMEOUT); /* it is stored, and nobody may count on it */
    assert_int_equal(log_watermarks(kafka, 0).end_offset, 5);
}

static void another_topic_of_the_name_is_refused(void **state)
{
    struct request r;
    struct err_at at;
    uint8_t id[16];
    begin();
    pump_for(LOG_KAFKA_TOPIC_MS);
    push_event((struct kafka_event){
        .kind = KAFKA_EVENT_TOPIC, .cookie = script.topic_cookie, .result = ERR_NOT_FOUND, .topic = &topic });
    script.topic_cookie = 0;
    pump(); /* one broker's word: told, and no reason to stop */
    assert_int_equal(log_kafka_stage(kafka, &at), LOG_KAFKA_RUNNING);
    assert_string_equal(at.text, "the topic is not known: not found");
    pump_for(LOG_KAFKA_RETRY_MS);
    tell_topic();
    assert_int_equal(log_kafka_stage(kafka, &at), LOG_KAFKA_RUNNING);
    assert_string_equal(at.text, "");
    topic.id[0] ^= 1;
    pump_for(LOG_KAFKA_TOPIC_MS);
    tell_topic();
    assert_int_equal(log_kafka_stage(kafka, &at), LOG_KAFKA_REFUSED);
    assert_string_equal(at.text, "the topic was deleted and created anew: its id is not the known one");
    append(&r, 0, "a");
    assert_int_equal(r.result, ERR_BUSY);
    topic.id[0] ^= 1;
    for (int64_t waited_ms = 0, delay_ms = 1000; waited_ms < 200000; waited_ms += delay_ms) {
        pump_for(delay_ms);
        assert_int_not_equal(script.topic_cookie, 0); /* asked again and again */
        topic.min_insync_replicas = 1;
        tell_topic();
        assert_int_equal(log_kafka_stage(kafka, &at), LOG_KAFKA_REFUSED);
        delay_ms = delay_ms < LOG_KAFKA_REFUSED_MS_MAX ? 2 * delay_ms : delay_ms + 1;
    }
    topic.min_insync_replicas = 2;
    pump_for(2 * LOG_KAFKA_REFUSED_MS_MAX);
    tell_topic();
    assert_int_equal(log_kafka_stage(kafka, NULL), LOG_KAFKA_RUNNING);
    log_kafka_topic_id(kafka, id);
    assert_memory_equal(id, topic.id, 16);
    append(&r, 0, "a");
    pump();
    answer_made(last_made(), KAFKA_ACKED, 4);
    pump();
    assert_int_equal(r.result, OK);
}

static void the_topic_is_told_to_keep_more(void **state)
{
    struct err_at at;
    begin();
    assert_int_equal(log_kafka_retention(kafka, &at), topic.retention_ms);
    log_kafka_retain(kafka, 2 * INT64_C(604800000));
    pump_for(1000);
    assert_int_equal(script.altered, 1); /* once */
    assert_int_equal(script.altered_ms, 2 * INT64_C(604800000));
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_DONE,
                                     .cookie = script.altered_cookie,
                                     .result = ERR_DENIED,
                                     .text = "no right to alter" });
    pump_for(LOG_KAFKA_RETRY_MS); /* it looks at once what came of it */
    tell_topic();
    assert_int_equal(log_kafka_retention(kafka, &at), topic.retention_ms);
    assert_string_equal(at.text, "no right to alter");
    log_kafka_retain(kafka, 2 * INT64_C(604800000));
    pump();
    assert_int_equal(script.altered, 2);
    push_event((struct kafka_event){ .kind = KAFKA_EVENT_DONE, .cookie = script.altered_cookie });
    int64_t before_ms = topic.retention_ms;
    topic.retention_ms = 2 * INT64_C(604800000);
    pump_for(LOG_KAFKA_RETRY_MS);
    tell_topic();
    assert_int_equal(log_kafka_retention(kafka, &at), topic.retention_ms);
    assert_string_equal(at.text, "");
    topic.retention_ms = before_ms;
}

static void appends_wake_the_pump(void **state)
{
    struct request r[3];
    begin();
    unsigned before = script.wakes;
    append(&r[0], 0, "a");
    assert_int_equal(script.wakes, before + 1);
    append(&r[1], 0, "b"); /* it is awake */
    assert_int_equal(script.wakes, before + 1);
    pump();
    append(&r[2], 0, "c");
    assert_int_equal(script.wakes, before + 2);
    pump();
    for (size_t i = 0; i < 3; i++)
        answer_made(i, KAFKA_ACKED, i);
    pump();
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

/* The client takes no more of that size; an attempt before was left open. */
static void what_may_be_stored_is_not_called_refused(void **state)
{
    struct request a, b;
    begin();
    append(&a, 0, "a");
    pump();
    answer_made(0, KAFKA_MAYBE_STORED, 0);
    pump();
    script.is_too_small = true;
    append(&b, 0, "b");
    pump_for(100);
    assert_true(a.answers == 1 && a.result == ERR_TIMEOUT);
    assert_true(b.answers == 1 && b.result == ERR_LIMIT);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(weak_topics_are_refused),
        TEST(settings_are_read_whole),
        TEST(nothing_is_taken_before_the_topic_is_known),
        TEST(acknowledged_is_stored),
        TEST(an_old_offset_is_no_acknowledgement),
        TEST(a_late_acknowledgement_is_no_proof),
        TEST(what_was_acknowledged_is_looked_for),
        TEST(a_doubt_knows_its_marker),
        TEST(a_doubt_does_not_wait_for_ever),
        TEST(it_goes_on_where_it_is_said),
        TEST(a_late_word_is_of_the_former_place),
        TEST(only_what_was_told_is_known),
        TEST(what_is_kept_is_spread),
        TEST(what_came_before_a_pause_is_kept),
        TEST(who_slept_was_not_acknowledged),
        TEST(another_topic_of_the_name_is_refused),
        TEST(the_topic_is_told_to_keep_more),
        TEST(appends_wake_the_pump),
        TEST(what_is_open_is_sent_again),
        TEST(what_may_be_stored_is_not_called_refused),
        TEST(a_fatal_producer_is_replaced),
        TEST(queues_are_bounded),
        TEST(closing_answers_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
