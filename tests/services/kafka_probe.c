/* The real Kafka client against real brokers: tests/integration/test_kafka_client.py starts them and breaks
 * them meanwhile.
 *
 *   kafka_probe check BOOTSTRAP TOPIC                one of each call, each answer held against what it must be
 *   kafka_probe login BOOTSTRAP TOPIC                is the topic's description to be had? With TLS and SCRAM
 *   as user
 *                                                    $PROBE_USER with $PROBE_PASSWORD, certificates signed by
 *                                                    $PROBE_CA
 *   kafka_probe ends BOOTSTRAP TOPIC                 what the leaders say of the ends, now
 *   kafka_probe load BOOTSTRAP TOPIC SECONDS RATE    numbered records into every partition, read back all the
 *   while
 *
 * load prints what happened as key=value lines and exits 0 when every acknowledged record was read at the
 * offset of its acknowledgement, no record that was called not stored was read, and none was read at two
 * offsets that was not called possibly stored. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/io.h"
#include "log/log.h"
/* The table below log.h: the driver's own, and this test's. */
#include "log/kafka_client.h"

#define PARTITIONS   4
#define RECORD_MAX   200000
#define TURN_MS      30000
#define NUMBERS_MAX  2000000
#define SETTLE_MS    90000
#define FATALS_SHOWN 10

static struct io *the_io;
static struct kafka_client *the_client;

#define expect(condition)                                                           \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

static int64_t now_ms(void) { return io_monotonic_ns(the_io) / 1000000; }

/* The certificate of $PROBE_CA; the system's when there is no such file named. */
static const char *read_ca(void)
{
    static char text[65536];
    FILE *file = getenv("PROBE_CA") == NULL ? NULL : fopen(getenv("PROBE_CA"), "r");
    if (file == NULL)
        return NULL;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    return text;
}

static void open_client(const char *bootstrap, const char *topic, struct pool *pool)
{
    struct kafka_client_config config = {
        .bootstrap = bootstrap,
        .topic = topic,
        .client_id = "kafka_probe",
        .record_bytes_max = RECORD_MAX,
        .send_bytes_max = 64 << 20,
        .read_bytes_max = 32 << 20,
        .linger_ms = 5,
        .socket_timeout_ms = 6000,
        .delivery_ms_max = 60000,
    };
    if (getenv("PROBE_USER") != NULL) {
        config.security = KAFKA_SASL_TLS;
        config.user = getenv("PROBE_USER");
        config.password = getenv("PROBE_PASSWORD");
        config.ca_pem = read_ca();
    }
    struct err_at at = { 0 };
    if (kafka_client_open(&config, the_io, pool, &the_client, &at) != OK) {
        fprintf(stderr, "open: %s\n", at.text);
        exit(1);
    }
}

/* The next event of a kind; what people care for goes to standard output. */
static struct kafka_event await(enum kafka_event_kind kind)
{
    struct kafka_event event;
    while (kafka_poll(the_client, TURN_MS, true, &event) == OK) {
        if (event.kind == kind)
            return event;
        if (event.kind == KAFKA_EVENT_TROUBLE)
            printf("trouble=%d %s\n", (int)event.trouble, event.text);
        else if (event.kind != KAFKA_EVENT_PARTITION_END) {
            fprintf(stderr, "event %d (%s, %s) instead of %d\n", (int)event.kind, event.text,
                    err_text(event.result), (int)kind);
            exit(1);
        }
    }
    fprintf(stderr, "no event %d\n", (int)kind);
    exit(1);
}

/* The answer to what was asked just now; is it to be asked again? */
static bool is_to_repeat(enum kafka_event_kind kind, struct kafka_event *out)
{
    static unsigned repeated;
    *out = await(kind);
    if (out->result != ERR_BUSY)
        return false;
    printf("asked again: %s\n", out->text);
    expect(++repeated < 100);
    io_sleep_ns(the_io, 100000000);
    return true;
}

/* max_message_bytes: "150000" is less than the client may send at once. */
static void create(const char *max_message_bytes)
{
    const struct kafka_config_pair configs[] = {
        { "min.insync.replicas", "2" },
        { "unclean.leader.election.enable", "false" },
        { "cleanup.policy", "delete" },
        { "retention.ms", "172800000" },
        { "retention.bytes", "-1" },
        { "max.message.bytes", max_message_bytes },
        { "message.timestamp.type", "LogAppendTime" },
    };
    const struct kafka_new_topic topic = {
        .partition_count = PARTITIONS,
        .replica_count = 3,
        .configs = configs,
        .config_count = sizeof configs / sizeof *configs,
    };
    struct kafka_event event;
    unsigned turns = 0;
    do {
        turns++;
        expect(kafka_create_topic(the_client, &topic, TURN_MS, 1) == OK);
    } while (is_to_repeat(KAFKA_EVENT_DONE, &event));
    printf("create=%s %s\n", err_text(event.result), event.text);
    expect((event.result == OK || (turns > 1 && event.result == ERR_EXISTS)) && event.cookie == 1);
    do
        expect(kafka_create_topic(the_client, &topic, TURN_MS, 2) == OK);
    while (is_to_repeat(KAFKA_EVENT_DONE, &event));
    expect(event.result == ERR_EXISTS);
}

static struct kafka_topic describe(void)
{
    /* A new topic takes a moment until every broker knows it. */
    for (int turn = 0; turn < 50; turn++) {
        expect(kafka_ask_topic(the_client, TURN_MS, 3) == OK);
        struct kafka_event event = await(KAFKA_EVENT_TOPIC);
        if (event.result == OK && event.topic->partition_count == PARTITIONS &&
            event.topic->leaderless_count == 0)
            return *event.topic;
        io_sleep_ns(the_io, 100000000);
    }
    fprintf(stderr, "no description\n");
    exit(1);
}

static void check_description(void)
{
    struct kafka_topic topic = describe();
    uint8_t any = 0;
    for (size_t i = 0; i < sizeof topic.id; i++)
        any |= topic.id[i];
    printf("topic partitions=%u replicas=%u in_sync=%u min_insync=%lld unclean=%d compact=%d delete=%d "
           "retention_ms=%lld retention_bytes=%lld max_message_bytes=%lld append_time=%d\n",
           topic.partition_count, topic.replica_count_min, topic.isr_count_min,
           (long long)topic.min_insync_replicas, topic.unclean_election, topic.is_compacted, topic.is_deleted,
           (long long)topic.retention_ms, (long long)topic.retention_bytes,
           (long long)topic.max_message_bytes, topic.is_append_time);
    expect(any != 0 && topic.replica_count_min == 3 && topic.min_insync_replicas == 2 &&
           !topic.unclean_election);
    expect(topic.is_deleted && !topic.is_compacted && topic.retention_ms == 172800000 &&
           topic.retention_bytes == -1);
    expect(topic.max_message_bytes == 150000 && topic.is_append_time);
    struct kafka_event event;
    do
        expect(kafka_alter_retention(the_client, 259200000, TURN_MS, 4) == OK);
    while (is_to_repeat(KAFKA_EVENT_DONE, &event));
    expect(event.result == OK);
    for (int turn = 0; topic.retention_ms != 259200000 && turn < 50; turn++, topic = describe())
        io_sleep_ns(the_io, 100000000);
    expect(topic.retention_ms == 259200000 && topic.max_message_bytes == 150000);
}

static void check_sizes(void)
{
    static uint8_t bytes[RECORD_MAX + 1];
    struct slice one = slice_of(bytes, sizeof bytes);
    expect(kafka_produce(the_client, 1, &one, 1, 5) == ERR_LIMIT);
    one.len = RECORD_MAX; /* the topic takes 150,000 */
    expect(kafka_produce(the_client, 1, &one, 1, 6) == OK);
    struct kafka_event event = await(KAFKA_EVENT_DELIVERED);
    printf("too large for the broker: delivery=%d result=%s\n", (int)event.delivery, err_text(event.result));
    expect(event.delivery == KAFKA_NOT_STORED && event.result == ERR_LIMIT);
}

static void check_deletion(void)
{
    const uint32_t partition = 0;
    for (uint64_t i = 0; i < 100; i++) {
        struct slice one = slice_of(&i, sizeof i);
        expect(kafka_produce(the_client, partition, &one, 1, 1000 + i) == OK);
    }
    for (uint64_t i = 0; i < 100; i++) {
        struct kafka_event event = await(KAFKA_EVENT_DELIVERED);
        expect(event.delivery == KAFKA_ACKED && event.offset == i && event.cookie == 1000 + i);
    }
    struct kafka_event event;
    do
        expect(kafka_delete_records(the_client, partition, 40, TURN_MS, 7) == OK);
    while (is_to_repeat(KAFKA_EVENT_DONE, &event));
    expect(event.result == OK && event.offset == 40);
    do
        expect(kafka_delete_records(the_client, partition, 4000, TURN_MS, 7) == OK);
    while (is_to_repeat(KAFKA_EVENT_DONE, &event));
    printf("delete above the end: %s %s\n", err_text(event.result), event.text);
    expect(event.result == ERR_ORDER);
    do
        expect(kafka_ask_ends(the_client, &partition, 1, TURN_MS, 8) == OK);
    while (is_to_repeat(KAFKA_EVENT_ENDS, &event));
    expect(event.result == OK && event.ends.at[0].result == OK);
    printf("ends start=%llu end=%llu epoch=%d\n", (unsigned long long)event.ends.at[0].start_offset,
           (unsigned long long)event.ends.at[0].end_offset, event.ends.at[0].leader_epoch);
    expect(event.ends.at[0].start_offset == 40 && event.ends.at[0].end_offset == 100);
    expect(event.ends.at[0].leader_epoch >= 0);
}

static void check_reading(void)
{
    const uint32_t partition = 0;
    const uint64_t wrong[] = { 10, 5000 };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        expect(kafka_assign(the_client, partition, wrong[i], KAFKA_EPOCH_UNKNOWN) == OK);
        struct kafka_event event = await(KAFKA_EVENT_OUT_OF_RANGE);
        printf("out of range at %llu: %s\n", (unsigned long long)event.offset, event.text);
        expect(event.offset == wrong[i] && event.partition == partition);
        expect(kafka_poll(the_client, 700, true, &event) == ERR_END); /* nothing is reset */
        kafka_unassign(the_client, partition);
    }
    expect(kafka_assign(the_client, partition, 40, 0) == OK);
    for (uint64_t i = 40; i < 100; i++) {
        uint64_t number;
        struct kafka_event event = await(KAFKA_EVENT_RECORD);
        memcpy(&number, event.record.bytes.at, sizeof number);
        expect(event.offset == i && number == i && event.record.bytes.len == sizeof number);
        expect(event.record.is_append_time && event.record.t_ms > 1600000000000 && event.leader_epoch >= 0);
    }
    expect(await(KAFKA_EVENT_PARTITION_END).offset == 100);
    kafka_unassign(the_client, partition);
}

static void stop_producer(void)
{
    kafka_producer_stop(the_client);
    await(KAFKA_EVENT_PRODUCER_STOPPED);
}

static int check_calls(void)
{
    struct kafka_event event;
    do
        expect(kafka_ask_topic(the_client, TURN_MS, 9) == OK);
    while (is_to_repeat(KAFKA_EVENT_TOPIC, &event));
    printf("before it is there: %s %s\n", err_text(event.result), event.text);
    expect(event.result == ERR_NOT_FOUND);
    create("150000");
    check_description();
    expect(kafka_producer_start(the_client, NULL) == OK);
    check_sizes();
    check_deletion();
    check_reading();
    stop_producer();
    return 0;
}

static int check_login(void)
{
    unsigned denied = 0;
    struct kafka_event event;
    do {
        expect(kafka_ask_topic(the_client, 5000, 10) == OK);
        while (kafka_poll(the_client, TURN_MS, true, &event) == OK && event.kind != KAFKA_EVENT_TOPIC) {
            expect(event.kind == KAFKA_EVENT_TROUBLE);
            denied += event.trouble == KAFKA_TROUBLE_DENIED;
            printf("trouble=%d %s\n", (int)event.trouble, event.text);
        }
        expect(event.kind == KAFKA_EVENT_TOPIC && event.cookie == 10);
    } while (event.result == ERR_BUSY);
    printf("answer=%s denied=%d\n", err_text(event.result), denied > 0);
    return 0;
}

static int show_ends(void)
{
    const uint32_t partitions[PARTITIONS] = { 0, 1, 2, 3 };
    expect(kafka_ask_ends(the_client, partitions, PARTITIONS, 3000, 11) == OK);
    struct kafka_event event = await(KAFKA_EVENT_ENDS);
    printf("ends %s", err_text(event.result));
    for (size_t i = 0; i < event.ends.count; i++)
        printf(" %u:%s:%lld:%d", event.ends.at[i].partition, err_text(event.ends.at[i].result),
               (long long)event.ends.at[i].end_offset, event.ends.at[i].leader_epoch);
    printf("\n");
    return 0;
}

/* ---- load ---- */
enum fate {
    NOT_ASKED,
    WAITING,
    ACKED,
    NOT_STORED,
    MAYBE_STORED,
};

struct number {
    uint8_t fate;
    uint8_t read_count;
    uint64_t offset;      /* of the acknowledgement */
    uint64_t read_offset; /* the first one it was read at */
};

static struct {
    unsigned seconds, rate; /* as asked for */
    struct number *numbers;
    uint64_t count; /* numbers given */
    uint64_t next_offset[PARTITIONS];
    unsigned acked, not_stored, maybe_stored, read, twice, fatals, out_of_range, truncated, wrong;
    int64_t acked_ms, gap_ms; /* the last acknowledgement, and the longest time without one */
    int64_t partition_acked_ms[PARTITIONS], partition_gap_ms;
    bool is_stopping;
} load;

static void longest(int64_t *last_ms, int64_t *gap_ms)
{
    int64_t at_ms = now_ms();
    if (*last_ms != 0 && at_ms - *last_ms > *gap_ms)
        *gap_ms = at_ms - *last_ms;
    *last_ms = at_ms;
}

static void on_delivered(const struct kafka_event *event)
{
    struct number *n = &load.numbers[event->cookie];
    expect(n->fate == WAITING);
    if (event->delivery == KAFKA_ACKED) {
        n->fate = ACKED;
        n->offset = event->offset;
        load.acked++;
        longest(&load.acked_ms, &load.gap_ms);
        longest(&load.partition_acked_ms[event->partition], &load.partition_gap_ms);
        return;
    }
    if (load.not_stored + load.maybe_stored < FATALS_SHOWN)
        printf("number %llu: delivery=%d %s\n", (unsigned long long)event->cookie, (int)event->delivery,
               event->text);
    n->fate = event->delivery == KAFKA_NOT_STORED ? NOT_STORED : MAYBE_STORED;
    load.not_stored += n->fate == NOT_STORED;
    load.maybe_stored += n->fate == MAYBE_STORED;
}

static void on_record(const struct kafka_event *event)
{
    uint64_t number;
    expect(event->record.bytes.len >= sizeof number);
    memcpy(&number, event->record.bytes.at, sizeof number);
    expect(number < load.count && number % PARTITIONS == event->partition);
    load.wrong += event->offset < load.next_offset[event->partition];
    load.next_offset[event->partition] = event->offset + 1;
    struct number *n = &load.numbers[number];
    if (n->read_count++ == 0)
        n->read_offset = event->offset;
    load.read++;
}

static void on_event(const struct kafka_event *event)
{
    switch (event->kind) {
    case KAFKA_EVENT_DELIVERED:
        on_delivered(event);
        break;
    case KAFKA_EVENT_RECORD:
        on_record(event);
        break;
    case KAFKA_EVENT_PRODUCER_FATAL:
        load.fatals++;
        printf("fatal: %s\n", event->text);
        kafka_producer_stop(the_client);
        break;
    case KAFKA_EVENT_PRODUCER_STOPPED:
        if (!load.is_stopping)
            expect(kafka_producer_start(the_client, NULL) == OK);
        break;
    case KAFKA_EVENT_OUT_OF_RANGE:
    case KAFKA_EVENT_TRUNCATED:
        load.out_of_range += event->kind == KAFKA_EVENT_OUT_OF_RANGE;
        load.truncated += event->kind == KAFKA_EVENT_TRUNCATED;
        printf("event %d at %llu: %s\n", (int)event->kind, (unsigned long long)event->offset, event->text);
        kafka_unassign(the_client, event->partition);
        expect(kafka_assign(the_client, event->partition, load.next_offset[event->partition],
                            KAFKA_EPOCH_UNKNOWN) == OK);
        break;
    case KAFKA_EVENT_READ_FAILED:
        fprintf(stderr, "reading failed: %s\n", event->text);
        exit(1);
    default:
        break;
    }
}

static void poll_all(int64_t budget_ms)
{
    struct kafka_event event;
    for (int i = 0; i < 1000 && kafka_poll(the_client, budget_ms, true, &event) == OK; i++, budget_ms = 0)
        on_event(&event);
}

static bool has_settled(void)
{
    for (uint64_t i = 0; i < load.count; i++) {
        const struct number *n = &load.numbers[i];
        if (n->fate == WAITING || (n->fate == ACKED && n->read_count == 0))
            return false;
    }
    return true;
}

static int judge(void)
{
    unsigned lost = 0, elsewhere = 0, doubled = 0, raised = 0;
    for (uint64_t i = 0; i < load.count; i++) {
        const struct number *n = &load.numbers[i];
        lost += n->fate == ACKED && n->read_count == 0;
        elsewhere += n->fate == ACKED && n->read_count == 1 && n->read_offset != n->offset;
        doubled += n->read_count > 1 && n->fate != MAYBE_STORED;
        raised += n->fate == NOT_STORED && n->read_count > 0;
        load.twice += n->read_count > 1;
        if (n->read_count > 1)
            printf("number %llu: read %u times, first at %llu, acknowledged at %llu, fate=%d\n",
                   (unsigned long long)i, n->read_count, (unsigned long long)n->read_offset,
                   (unsigned long long)n->offset, n->fate);
    }
    printf("numbers=%llu acked=%u not_stored=%u maybe_stored=%u read=%u twice=%u fatals=%u\n",
           (unsigned long long)load.count, load.acked, load.not_stored, load.maybe_stored, load.read,
           load.twice, load.fatals);
    printf("gap_s=%.1f partition_gap_s=%.1f out_of_range=%u truncated=%u\n", (double)load.gap_ms / 1000,
           (double)load.partition_gap_ms / 1000, load.out_of_range, load.truncated);
    printf("lost=%u elsewhere=%u doubled=%u raised=%u disorder=%u\n", lost, elsewhere, doubled, raised,
           load.wrong);
    return lost + elsewhere + doubled + raised + load.wrong == 0 && load.acked > 0 ? 0 : 1;
}

static int run_load(void)
{
    load.numbers = calloc(NUMBERS_MAX, sizeof *load.numbers);
    create("1048576");
    describe();
    expect(kafka_producer_start(the_client, NULL) == OK);
    for (uint32_t p = 0; p < PARTITIONS; p++)
        expect(kafka_assign(the_client, p, 0, KAFKA_EPOCH_UNKNOWN) == OK);
    printf("loading\n");
    fflush(stdout);
    int64_t begun_ms = now_ms();
    static uint8_t filler[92];
    for (;;) {
        int64_t passed_ms = now_ms() - begun_ms;
        uint64_t due = (uint64_t)passed_ms * load.rate / 1000;
        if (passed_ms >= (int64_t)load.seconds * 1000)
            break;
        for (; load.count < due && load.count < NUMBERS_MAX; load.count++) {
            uint64_t number = load.count;
            struct slice parts[] = { slice_of(&number, sizeof number), slice_of(filler, sizeof filler) };
            load.numbers[number].fate = WAITING;
            if (kafka_produce(the_client, number % PARTITIONS, parts, 2, number) != OK) {
                load.numbers[number].fate =
                    NOT_ASKED; /* busy, or between two producers: the number comes later */
                break;
            }
        }
        poll_all(5);
    }
    printf("loaded\n");
    fflush(stdout);
    for (int64_t end_ms = now_ms() + SETTLE_MS; !has_settled() && now_ms() < end_ms;)
        poll_all(100);
    load.is_stopping = true;
    kafka_producer_stop(the_client);
    struct kafka_event event;
    while (kafka_poll(the_client, TURN_MS, true, &event) == OK) {
        on_event(&event);
        if (event.kind == KAFKA_EVENT_PRODUCER_STOPPED)
            break;
    }
    poll_all(3000); /* what came late is read, too */
    return judge();
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(void);
    } verbs[] = {
        { "check", check_calls }, { "login", check_login }, { "ends", show_ends }, { "load", run_load }
    };
    size_t verb = 0;
    while (verb < 4 && (argc < 4 || strcmp(argv[1], verbs[verb].name) != 0))
        verb++;
    if (verb == 4 || argc != (verb == 3 ? 6 : 4)) {
        fprintf(stderr,
                "usage: kafka_probe check|login|ends BOOTSTRAP TOPIC | load BOOTSTRAP TOPIC SECONDS RATE\n");
        return 2;
    }
    load.seconds = verb == 3 ? (unsigned)atoi(argv[4]) : 0;
    load.rate = verb == 3 ? (unsigned)atoi(argv[5]) : 0;
    struct pool *pool = pool_open(NULL, "probe", POOL_BYTES_UNLIMITED);
    expect(io_open("/", &the_io) == OK);
    open_client(argv[2], argv[3], pool);
    int status = verbs[verb].run();
    kafka_client_close(the_client);
    pool_close(pool);
    io_close(the_io);
    free(load.numbers);
    return status;
}
