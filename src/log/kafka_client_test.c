/* The real Kafka client against librdkafka's own simulated brokers, in this process: what it says about
 * deliveries, reading, epochs and ends, and that every cookie is answered once. What these brokers cannot do
 * (topics' settings, deletion, sequences of producers) is tested with real ones:
 * tests/integration/test_kafka_client.py. */
#include "log/kafka_client.h"

#include "base/test.h"
#include "io/thread.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <string.h>

#define TOPIC      "numbers"
#define PARTITIONS 4
#define REPLICAS   3
#define TURN_MS    20000 /* no test waits as long */

struct fixture {
    rd_kafka_t *host; /* of the simulated brokers */
    rd_kafka_mock_cluster_t *brokers;
    struct io *io;
    struct pool *pool;
    struct kafka_client *client;
};

static struct kafka_client_config config_of(struct fixture *f)
{
    return (struct kafka_client_config){
        .bootstrap = rd_kafka_mock_cluster_bootstraps(f->brokers),
        .topic = TOPIC,
        .client_id = "test",
        .record_bytes_max = 100000,
        .send_bytes_max = 1 << 20,
        .read_bytes_max = 4 << 20,
        .linger_ms = 1,
        .socket_timeout_ms = 5000,
        .delivery_ms_max = 10000,
    };
}

static void reopen(struct fixture *f, const struct kafka_client_config *config)
{
    kafka_client_close(f->client);
    f->client = NULL;
    struct err_at at = { 0 };
    if (kafka_client_open(config, f->io, f->pool, &f->client, &at) != OK)
        fail_msg("%s", at.text);
}

static int set_up(void **state)
{
    static struct fixture f;
    char text[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "log_level", "0", text, sizeof text);
    f.host = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
    assert_non_null(f.host);
    f.brokers = rd_kafka_mock_cluster_new(f.host, REPLICAS);
    assert_non_null(f.brokers);
    assert_int_equal(0, rd_kafka_mock_topic_create(f.brokers, TOPIC, PARTITIONS, REPLICAS));
    for (int p = 0; p < PARTITIONS; p++)
        assert_int_equal(0, rd_kafka_mock_partition_set_leader(f.brokers, TOPIC, p, 1 + p % REPLICAS));
    assert_ok(io_open("/tmp", &f.io));
    f.pool = pool_open(NULL, "test", 256 << 20);
    f.client = NULL;
    struct kafka_client_config config = config_of(&f);
    reopen(&f, &config);
    *state = &f;
    return 0;
}

static void stop_producer(struct fixture *f)
{
    struct kafka_event event;
    kafka_producer_stop(f->client);
    while (kafka_poll(f->client, TURN_MS, false, &event) == OK)
        if (event.kind == KAFKA_EVENT_PRODUCER_STOPPED)
            return;
    fail_msg("the producer did not stop");
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    kafka_client_close(f->client);
    pool_close(f->pool);
    io_close(f->io);
    rd_kafka_mock_cluster_destroy(f->brokers);
    rd_kafka_destroy(f->host);
    return 0;
}

/* The next event of a kind; troubles and what `passing` allows go by. */
static struct kafka_event await(struct fixture *f, enum kafka_event_kind kind)
{
    struct kafka_event event;
    while (kafka_poll(f->client, TURN_MS, true, &event) == OK) {
        if (event.kind == kind)
            return event;
        if (event.kind != KAFKA_EVENT_TROUBLE)
            fail_msg("event %d (%s, %s) instead of %d", event.kind, event.text, err_text(event.result), kind);
    }
    fail_msg("no event %d", kind);
    return event;
}

static err produce(struct fixture *f, uint32_t partition, uint64_t number)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    struct slice parts[] = { slice_str("number "), slice_str(text) };
    return kafka_produce(f->client, partition, parts, 2, number);
}

/* `count` numbers from `first` into one partition, all acknowledged at consecutive offsets from `offset`. */
static void produce_acked(struct fixture *f, uint32_t partition, uint64_t first, unsigned count,
                          uint64_t offset)
{
    for (unsigned i = 0; i < count; i++)
        assert_ok(produce(f, partition, first + i));
    for (unsigned i = 0; i < count; i++) {
        struct kafka_event event = await(f, KAFKA_EVENT_DELIVERED);
        assert_int_equal(KAFKA_ACKED, event.delivery);
        assert_int_equal(first + i, event.cookie);
        assert_int_equal(offset + i, event.offset);
        assert_int_equal(partition, event.partition);
    }
}

static void read_numbers(struct fixture *f, uint32_t partition, uint64_t first, unsigned count,
                         uint64_t offset)
{
    for (unsigned i = 0; i < count; i++) {
        char text[40];
        struct kafka_event event = await(f, KAFKA_EVENT_RECORD);
        snprintf(text, sizeof text, "number %llu", (unsigned long long)(first + i));
        assert_int_equal(partition, event.partition);
        assert_int_equal(offset + i, event.offset);
        assert_true(slice_equal_str(event.record.bytes, text));
    }
    struct kafka_event event = await(f, KAFKA_EVENT_PARTITION_END);
    assert_int_equal(offset + count, event.offset);
}

static void what_is_written_is_read(void **state)
{
    struct fixture *f = *state;
    assert_ok(kafka_producer_start(f->client, NULL));
    assert_err(ERR_BUSY, kafka_producer_start(f->client, NULL));
    produce_acked(f, 2, 100, 50, 0);
    assert_ok(kafka_assign(f->client, 2, 0, KAFKA_EPOCH_UNKNOWN));
    assert_err(ERR_EXISTS, kafka_assign(f->client, 2, 0, KAFKA_EPOCH_UNKNOWN));
    read_numbers(f, 2, 100, 50, 0);
    /* From the middle, and the tail as it grows. */
    kafka_unassign(f->client, 2);
    assert_ok(kafka_assign(f->client, 2, 30, KAFKA_EPOCH_UNKNOWN));
    read_numbers(f, 2, 130, 20, 30);
    assert_ok(produce(f, 2, 150));
    unsigned seen = 0;
    while (seen != 7) {
        struct kafka_event event;
        assert_ok(kafka_poll(f->client, TURN_MS, true, &event));
        seen |= event.kind == KAFKA_EVENT_DELIVERED ? 1u : event.kind == KAFKA_EVENT_RECORD ? 2u : 4u;
    }
    stop_producer(f);
}

static void records_wait_when_they_are_not_wanted(void **state)
{
    struct fixture *f = *state;
    struct kafka_event event;
    assert_ok(kafka_producer_start(f->client, NULL));
    produce_acked(f, 0, 0, 10, 0);
    assert_ok(kafka_assign(f->client, 0, 0, KAFKA_EPOCH_UNKNOWN));
    assert_err(ERR_END, kafka_poll(f->client, 300, false, &event));
    read_numbers(f, 0, 0, 10, 0);
    stop_producer(f);
}

static void wake_later(void *context)
{
    struct fixture *f = context;
    io_sleep_ns(f->io, 50 * INT64_C(1000000));
    kafka_wake(f->client);
}

static void a_wait_ends_when_somebody_wakes(void **state)
{
    struct fixture *f = *state;
    struct kafka_event event;
    struct io_thread *thread;
    int64_t begun_ns = io_monotonic_ns(f->io);
    while (kafka_poll(f->client, 300, true, &event) == OK)
        continue; /* what there is to say at the beginning */
    kafka_wake(f->client);
    kafka_wake(f->client);
    assert_err(ERR_END, kafka_poll(f->client, 10 * TURN_MS, true, &event)); /* said before: not missed */
    assert_ok(io_thread_start(f->io, "waker", wake_later, f, &thread));
    assert_err(ERR_END, kafka_poll(f->client, 10 * TURN_MS, true, &event));
    io_thread_join(thread);
    assert_true(io_monotonic_ns(f->io) - begun_ns < TURN_MS * INT64_C(1000000));
}

static void what_is_too_large_or_too_much_is_refused_here(void **state)
{
    struct fixture *f = *state;
    struct kafka_client_config config = config_of(f);
    static uint8_t zeros[100001];
    struct slice large = slice_of(zeros, sizeof zeros);
    config.send_bytes_max = 250000;
    reopen(f, &config);
    assert_err(ERR_CLOSED, kafka_produce(f->client, 0, &large, 1, 1));
    assert_ok(kafka_producer_start(f->client, NULL));
    assert_err(ERR_LIMIT, kafka_produce(f->client, 0, &large, 1, 1));
    large.len = 100000;
    assert_ok(kafka_produce(f->client, 0, &large, 1, 2));
    assert_ok(kafka_produce(f->client, 0, &large, 1, 3));
    assert_err(ERR_BUSY, kafka_produce(f->client, 0, &large, 1, 4));
    for (uint64_t cookie = 2; cookie <= 3; cookie++) {
        struct kafka_event event = await(f, KAFKA_EVENT_DELIVERED);
        assert_int_equal(cookie, event.cookie);
        assert_int_equal(KAFKA_ACKED, event.delivery);
    }
    assert_ok(kafka_produce(f->client, 0, &large, 1, 5));
    assert_int_equal(5, await(f, KAFKA_EVENT_DELIVERED).cookie);
    stop_producer(f);
}

static void a_partition_that_is_not_there(void **state)
{
    struct fixture *f = *state;
    assert_ok(kafka_producer_start(f->client, NULL));
    if (produce(f, 77, 1) == OK) {
        struct kafka_event event = await(f, KAFKA_EVENT_DELIVERED);
        assert_int_equal(KAFKA_NOT_STORED, event.delivery);
        assert_int_equal(ERR_NOT_FOUND, event.result);
    }
    produce_acked(f, 0, 0, 1, 0); /* now the topic is known */
    assert_err(ERR_NOT_FOUND, produce(f, 77, 2));
    stop_producer(f);
}

/* Without brokers that answer, records are given up by stop, each once, and reading says nothing. */
static void every_cookie_is_answered_once(void **state)
{
    struct fixture *f = *state;
    uint8_t answers[200] = { 0 };
    unsigned fates[3] = { 0 };
    assert_ok(kafka_producer_start(f->client, NULL));
    produce_acked(f, 0, 1000, 1, 0);
    for (int b = 1; b <= REPLICAS; b++)
        rd_kafka_mock_broker_set_rtt(f->brokers, b, 5000);
    for (unsigned i = 0; i < 100; i++)
        assert_ok(produce(f, i % PARTITIONS, i));
    io_sleep_ns(f->io, 200000000); /* some are on their way */
    for (unsigned i = 100; i < 200; i++)
        assert_ok(produce(f, i % PARTITIONS, i));
    kafka_producer_stop(f->client);
    assert_err(ERR_CLOSED, produce(f, 0, 200));
    for (;;) {
        struct kafka_event event;
        assert_ok(kafka_poll(f->client, TURN_MS, true, &event));
        if (event.kind == KAFKA_EVENT_PRODUCER_STOPPED)
            break;
        if (event.kind != KAFKA_EVENT_DELIVERED)
            continue;
        assert_true(event.cookie < 200);
        answers[event.cookie]++;
        fates[event.delivery]++;
    }
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(1, answers[i]);
    printf("# stopped with 200 under way: %u acked, %u not stored, %u maybe\n", fates[0], fates[1], fates[2]);
    assert_true(fates[KAFKA_NOT_STORED] >= 100 && fates[KAFKA_MAYBE_STORED] > 0);
    /* Another one works. */
    for (int b = 1; b <= REPLICAS; b++)
        rd_kafka_mock_broker_set_rtt(f->brokers, b, 0);
    assert_ok(kafka_producer_start(f->client, NULL));
    assert_ok(produce(f, 0, 300));
    struct kafka_event event = await(f, KAFKA_EVENT_DELIVERED);
    assert_int_equal(300, event.cookie);
    assert_int_equal(KAFKA_ACKED, event.delivery);
    stop_producer(f);
}

static void a_fatal_error_ends_the_producer_alone(void **state)
{
    struct fixture *f = *state;
    unsigned answered = 0, acked = 0;
    bool is_fatal = false;
    assert_ok(kafka_producer_start(f->client, NULL));
    produce_acked(f, 1, 0, 5, 0);
    rd_kafka_mock_push_request_errors(f->brokers, 0 /* Produce */, 1,
                                      RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    for (unsigned i = 0; i < 10; i++)
        assert_ok(produce(f, 1, 5 + i));
    while (!is_fatal || answered < 10) {
        struct kafka_event event;
        assert_ok(kafka_poll(f->client, TURN_MS, true, &event));
        is_fatal = is_fatal || event.kind == KAFKA_EVENT_PRODUCER_FATAL;
        answered += event.kind == KAFKA_EVENT_DELIVERED;
        acked += event.kind == KAFKA_EVENT_DELIVERED && event.delivery == KAFKA_ACKED;
    }
    assert_int_equal(0, acked);
    assert_err(ERR_CLOSED, produce(f, 1, 99));
    stop_producer(f);
    assert_ok(kafka_producer_start(f->client, NULL));
    produce_acked(f, 1, 100, 1, 5);
    stop_producer(f);
}

static void a_leader_moves_and_a_broker_goes_down(void **state)
{
    struct fixture *f = *state;
    assert_ok(kafka_producer_start(f->client, NULL));
    assert_ok(kafka_assign(f->client, 3, 0, KAFKA_EPOCH_UNKNOWN));
    unsigned delivered = 0, read = 0;
    for (unsigned i = 0; i < 60; i++) {
        if (i == 20)
            rd_kafka_mock_partition_set_leader(f->brokers, TOPIC, 3, 2);
        if (i == 40) {
            rd_kafka_mock_broker_set_down(f->brokers, 2);
            rd_kafka_mock_partition_set_leader(f->brokers, TOPIC, 3, 3);
        }
        assert_ok(produce(f, 3, i));
        struct kafka_event event;
        while (delivered <= i) {
            assert_ok(kafka_poll(f->client, TURN_MS, true, &event));
            delivered += event.kind == KAFKA_EVENT_DELIVERED && event.delivery == KAFKA_ACKED;
            if (event.kind == KAFKA_EVENT_RECORD)
                assert_int_equal(read++, event.offset);
        }
    }
    while (read < 60) {
        struct kafka_event event;
        assert_ok(kafka_poll(f->client, TURN_MS, true, &event));
        if (event.kind == KAFKA_EVENT_RECORD)
            assert_int_equal(read++, event.offset);
    }
    stop_producer(f);
}

static void out_of_range_is_told_and_nothing_is_reset(void **state)
{
    struct fixture *f = *state;
    struct kafka_event event;
    assert_ok(kafka_producer_start(f->client, NULL));
    produce_acked(f, 0, 0, 10, 0);
    stop_producer(f);
    assert_ok(kafka_assign(f->client, 0, 500, KAFKA_EPOCH_UNKNOWN));
    event = await(f, KAFKA_EVENT_OUT_OF_RANGE);
    assert_int_equal(0, event.partition);
    assert_int_equal(500, event.offset);
    assert_err(ERR_END, kafka_poll(f->client, 500, true, &event));
    kafka_unassign(f->client, 0);
    assert_ok(kafka_assign(f->client, 0, 4, KAFKA_EPOCH_UNKNOWN));
    read_numbers(f, 0, 4, 6, 4);
}

static void the_epoch_is_checked_when_reading_begins(void **state)
{
    struct fixture *f = *state;
    assert_ok(kafka_producer_start(f->client, NULL));
    produce_acked(f, 1, 0, 10, 0);
    assert_ok(kafka_assign(f->client, 1, 9, KAFKA_EPOCH_UNKNOWN));
    int32_t old_epoch = await(f, KAFKA_EVENT_RECORD).leader_epoch;
    kafka_unassign(f->client, 1);
    rd_kafka_mock_partition_set_leader(f->brokers, TOPIC, 1, 3);
    produce_acked(f, 1, 10, 10, 10);
    stop_producer(f);
    /* Who read up to 15 in the old epoch read another log: that epoch ended at 10. Again and again, because the
     * library takes the check or not depending on when it hears of the leader. */
    for (unsigned turn = 0; turn < 10; turn++) {
        assert_ok(kafka_assign(f->client, 1, 15, old_epoch));
        struct kafka_event event = await(f, KAFKA_EVENT_TRUNCATED);
        assert_int_equal(1, event.partition);
        assert_int_equal(15, event.offset);
        assert_int_equal(10, event.truncated.end_offset);
        assert_int_equal(old_epoch, event.truncated.end_epoch);
        kafka_unassign(f->client, 1);
        assert_ok(kafka_assign(f->client, 1, 10, old_epoch));
        read_numbers(f, 1, 10, 10, 10);
        kafka_unassign(f->client, 1);
    }
    /* A client that has heard nothing yet finds the same. */
    struct kafka_client_config config = config_of(f);
    reopen(f, &config);
    assert_ok(kafka_assign(f->client, 1, 15, old_epoch));
    assert_int_equal(10, await(f, KAFKA_EVENT_TRUNCATED).truncated.end_offset);
}

static void ends_are_told_with_the_leaders_epoch(void **state)
{
    struct fixture *f = *state;
    assert_ok(kafka_producer_start(f->client, NULL));
    produce_acked(f, 2, 0, 7, 0);
    stop_producer(f);
    const uint32_t partitions[] = { 2, 0 }, twice[] = { 1, 1 };
    assert_err(ERR_INPUT, kafka_ask_ends(f->client, twice, 2, 1000, 1));
    assert_ok(kafka_ask_ends(f->client, partitions, 2, 10000, 42));
    struct kafka_event event = await(f, KAFKA_EVENT_ENDS);
    assert_int_equal(42, event.cookie);
    assert_ok(event.result);
    assert_int_equal(2, event.ends.count);
    assert_int_equal(2, event.ends.at[0].partition);
    assert_int_equal(0, event.ends.at[0].start_offset);
    assert_int_equal(7, event.ends.at[0].end_offset);
    assert_int_equal(0, event.ends.at[1].end_offset);
}

static void questions_are_answered_in_time_or_refused(void **state)
{
    struct fixture *f = *state;
    const uint32_t partitions[] = { 0, 1, 2, 3 };
    for (int b = 1; b <= REPLICAS; b++)
        rd_kafka_mock_broker_set_rtt(f->brokers, b, 3000);
    for (unsigned i = 0; i < KAFKA_ASKS_MAX; i++)
        assert_ok(kafka_ask_ends(f->client, partitions, 4, 200, i));
    assert_err(ERR_BUSY, kafka_ask_ends(f->client, partitions, 4, 200, 99));
    uint64_t seen = 0;
    for (unsigned i = 0; i < KAFKA_ASKS_MAX; i++) {
        struct kafka_event event = await(f, KAFKA_EVENT_ENDS);
        assert_int_equal(ERR_TIMEOUT, event.result);
        assert_int_equal(0, seen & (UINT64_C(1) << event.cookie));
        seen |= UINT64_C(1) << event.cookie;
    }
}

static void the_topic_is_described_as_far_as_it_is_known(void **state)
{
    struct fixture *f = *state;
    assert_ok(kafka_ask_topic(f->client, 500, 5));
    struct kafka_event event = await(f, KAFKA_EVENT_TOPIC); /* these brokers know no settings */
    assert_int_equal(5, event.cookie);
    assert_true(event.result != OK);
    assert_true(event.text[0] != 0);
}

static void settings_are_refused_by_name(void **state)
{
    struct fixture *f = *state;
    struct kafka_client_config config = config_of(f);
    struct kafka_client *other;
    struct err_at at = { 0 };
    config.security = KAFKA_SASL_PLAINTEXT;
    assert_err(ERR_INPUT, kafka_client_open(&config, f->io, f->pool, &other, &at));
    assert_string_equal("SASL needs a user and a password", at.text);
    config.security = KAFKA_TLS;
    config.ca_pem = "no certificate";
    assert_err(ERR_INPUT, kafka_client_open(&config, f->io, f->pool, &other, &at));
    assert_true(strlen(at.text) > 10);
    config = config_of(f);
    config.security = KAFKA_SASL_TLS; /* built with TLS and SCRAM */
    config.user = config.password = "x";
    assert_ok(kafka_client_open(&config, f->io, f->pool, &other, &at));
    kafka_client_close(other);
    config = config_of(f);
    config.read_bytes_max = UINT64_C(1) << 40; /* more than the pool has */
    assert_err(ERR_LIMIT, kafka_client_open(&config, f->io, f->pool, &other, &at));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_written_is_read),
        TEST(records_wait_when_they_are_not_wanted),
        TEST(a_wait_ends_when_somebody_wakes),
        TEST(what_is_too_large_or_too_much_is_refused_here),
        TEST(a_partition_that_is_not_there),
        TEST(every_cookie_is_answered_once),
        TEST(a_fatal_error_ends_the_producer_alone),
        TEST(a_leader_moves_and_a_broker_goes_down),
        TEST(out_of_range_is_told_and_nothing_is_reset),
        TEST(the_epoch_is_checked_when_reading_begins),
        TEST(ends_are_told_with_the_leaders_epoch),
        TEST(questions_are_answered_in_time_or_refused),
        TEST(the_topic_is_described_as_far_as_it_is_known),
        TEST(settings_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
