/* The log's Kafka driver over the real client against real brokers: tests/integration/test_kafka_log.py
 * starts them and breaks them meanwhile.
 *
 *   log_probe latency BOOTSTRAP TOPIC COUNT       one append after the other: how long until each is there?
 *   log_probe load BOOTSTRAP TOPIC SECONDS RATE   numbered appends into every partition, read by two nodes
 *
 * load exits 0 when every append was answered in time, every acknowledged one was read by both nodes at its
 * position, none that was called not stored was read, and nothing was missing, damaged or taken back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/time.h"
#include "io/io.h"
#include "io/thread.h"
#include "log/log.h"
/* Below log.h: what a node will open by its configuration. */
#include "log/log_kafka.h"

#define PARTITIONS  4
#define TURN_MS     30000
#define DELIVERY_MS 30000
#define NUMBERS_MAX 1000000
#define SETTLE_MS   60000
#define COPIES_MAX  8

static struct io *the_io;

#define expect(condition)                                                           \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

static int64_t now_ms(void) { return io_boottime_ns(the_io) / NS_PER_MS; }

/* ---- a node ---- */

struct node {
    struct pool *pool;
    struct log *log;
    struct log_reader *readers[PARTITIONS];
    uint64_t next[PARTITIONS];
    unsigned wrong;
};

static struct kafka_client *open_client(const char *bootstrap, const char *topic, struct pool *pool)
{
    struct kafka_client_config config = {
        .bootstrap = bootstrap,
        .topic = topic,
        .client_id = "log_probe",
        .record_bytes_max = LOG_RECORD_BYTES_MAX + LOG_KAFKA_HEAD_BYTES,
        .send_bytes_max = 64 << 20,
        .read_bytes_max = 64 << 20,
        .linger_ms = 5,
        .socket_timeout_ms = 6000,
        .delivery_ms_max = DELIVERY_MS,
    };
    struct kafka_client *client = NULL;
    struct err_at at = { 0 };
    if (kafka_client_open(&config, the_io, pool, &client, &at) != OK) {
        fprintf(stderr, "open: %s\n", at.text);
        exit(1);
    }
    return client;
}

static void create(const char *bootstrap, const char *topic)
{
    const struct kafka_config_pair configs[] = {
        { "min.insync.replicas", "2" },
        { "retention.ms", "172800000" },
        { "retention.bytes", "-1" },
        { "max.message.bytes", "20000000" },
        { "message.timestamp.type", "LogAppendTime" },
    };
    const struct kafka_new_topic wanted = { PARTITIONS, 3, configs, sizeof configs / sizeof *configs };
    struct pool *pool = pool_open(NULL, "create", POOL_BYTES_UNLIMITED);
    struct kafka_client *client = open_client(bootstrap, topic, pool);
    struct kafka_event event = { .result = ERR_BUSY };
    /* Brokers that have just started may not know of each other yet. */
    for (int64_t end_ms = now_ms() + TURN_MS; event.result != OK && event.result != ERR_EXISTS;) {
        expect(now_ms() < end_ms);
        expect(kafka_create_topic(client, &wanted, TURN_MS, 1) == OK);
        do
            expect(kafka_poll(client, 2 * TURN_MS, true, &event) == OK);
        while (event.kind != KAFKA_EVENT_DONE);
        io_sleep_ns(the_io, 200 * NS_PER_MS);
    }
    kafka_client_close(client);
    pool_close(pool);
}

static void open_node(struct node *n, const char *bootstrap, const char *topic)
{
    struct log_kafka_config config = { .cluster_id = "a probe's",
                                       .partition_count = PARTITIONS,
                                       .queue_bytes_max = 64 << 20,
                                       .tail_bytes_max = 64 << 20,
                                       .delivery_ms_max = DELIVERY_MS };
    struct err_at at = { 0 };
    n->pool = pool_open(NULL, "node", POOL_BYTES_UNLIMITED);
    struct kafka_client *client = open_client(bootstrap, topic, n->pool);
    expect(log_kafka_open(&config, client, the_io, n->pool, &n->log) == OK);
    expect(log_run_thread(n->log) == OK);
    for (int64_t end_ms = now_ms() + TURN_MS; log_kafka_stage(n->log, &at) != LOG_KAFKA_RUNNING;) {
        if (now_ms() > end_ms) {
            fprintf(stderr, "the log does not begin: %s\n", at.text);
            exit(1);
        }
        io_sleep_ns(the_io, 20 * NS_PER_MS);
    }
    for (uint32_t p = 0; p < PARTITIONS; p++)
        expect(log_reader_open(n->log, p, 0, LOG_EPOCH_NONE, &n->readers[p]) == OK);
}

static void close_node(struct node *n)
{
    for (uint32_t p = 0; p < PARTITIONS; p++)
        log_reader_close(n->readers[p]);
    log_close(n->log);
    pool_close(n->pool);
}

/* ---- latency ---- */

static struct {
    struct io_mutex mutex;
    struct io_cond cond;
    bool is_done;
    err result;
} turn;

static void turn_done(struct log_append *append, err result, struct log_position position)
{
    io_mutex_lock(&turn.mutex);
    turn.is_done = true;
    turn.result = result;
    io_cond_signal(&turn.cond);
    io_mutex_unlock(&turn.mutex);
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int measure(const char *bootstrap, const char *topic, size_t count)
{
    static uint8_t bytes[10000];
    static struct node node;
    struct slice part = slice_of(bytes, sizeof bytes);
    struct log_append append = { .parts = &part, .part_count = 1, .done = turn_done };
    int64_t *took_ns = malloc(count * sizeof *took_ns);
    create(bootstrap, topic);
    open_node(&node, bootstrap, topic);
    io_mutex_init(&turn.mutex);
    io_cond_init(&turn.cond);
    for (size_t i = 0; i < count; i++) {
        append.partition = (uint32_t)(i % PARTITIONS);
        turn.is_done = false;
        io_sleep_ns(the_io, (int64_t)(i % 7) * NS_PER_MS); /* not in step with anything */
        int64_t begun_ns = io_monotonic_ns(the_io);
        log_append(node.log, &append);
        io_mutex_lock(&turn.mutex);
        while (!turn.is_done)
            io_cond_wait(&turn.cond, &turn.mutex);
        io_mutex_unlock(&turn.mutex);
        took_ns[i] = io_monotonic_ns(the_io) - begun_ns;
        i -= turn.result != OK; /* the producer begins */
    }
    qsort(took_ns, count, sizeof *took_ns, by_size);
    printf("latency_ms p50=%.2f p90=%.2f p99=%.2f max=%.2f count=%zu\n", (double)took_ns[count / 2] / 1e6,
           (double)took_ns[count * 9 / 10] / 1e6, (double)took_ns[count * 99 / 100] / 1e6,
           (double)took_ns[count - 1] / 1e6, count);
    close_node(&node);
    free(took_ns);
    return 0;
}

/* ---- load ---- */

enum fate { WAITING, ACKED, NOT_STORED, MAYBE_STORED };

struct number {
    struct log_append append;
    struct slice part;
    uint8_t bytes[100];
    enum fate fate;
    uint64_t offset;                 /* of the acknowledgement */
    uint64_t read_at[2][COPIES_MAX]; /* by node */
    unsigned read_count[2];
    int64_t handed_ms, answered_ms;
};

static struct {
    struct io_mutex mutex; /* fates */
    struct number *numbers;
    uint64_t count;
    unsigned fates[4];
    int64_t longest_ms, acked_ms, gap_ms;
    struct node nodes[2];
    uint64_t read[2], missing, damaged;
} load;

static void number_done(struct log_append *append, err result, struct log_position position)
{
    struct number *n = append->context;
    io_mutex_lock(&load.mutex);
    expect(n->fate == WAITING);
    n->fate = result == OK ? ACKED : result == ERR_BUSY || result == ERR_CLOSED ? NOT_STORED : MAYBE_STORED;
    n->offset = position.offset;
    n->answered_ms = now_ms();
    load.fates[n->fate]++;
    if (n->answered_ms - n->handed_ms > load.longest_ms)
        load.longest_ms = n->answered_ms - n->handed_ms;
    if (n->fate == ACKED && load.acked_ms != 0 && n->answered_ms - load.acked_ms > load.gap_ms)
        load.gap_ms = n->answered_ms - load.acked_ms;
    if (n->fate == ACKED)
        load.acked_ms = n->answered_ms;
    io_mutex_unlock(&load.mutex);
}

static void append_next(void)
{
    struct number *n = &load.numbers[load.count];
    memset(n, 0, sizeof *n);
    put_le64(n->bytes, load.count);
    n->part = slice_of(n->bytes, sizeof n->bytes);
    n->handed_ms = now_ms();
    n->append = (struct log_append){ .partition = (uint32_t)(load.count++ % PARTITIONS),
                                     .parts = &n->part,
                                     .part_count = 1,
                                     .done = number_done,
                                     .context = n };
    log_append(load.nodes[0].log, &n->append);
}

static void on_record(unsigned node, uint32_t p, const struct log_record *record)
{
    struct node *at = &load.nodes[node];
    uint64_t offset = record->position.offset;
    load.missing += record->missing;
    load.damaged += record->damaged;
    at->wrong += offset - record->missing != at->next[p];
    at->next[p] = offset + 1;
    if (record->damaged || record->is_marker)
        return;
    uint64_t number = get_le64(record->bytes.at);
    expect(number < load.count && number % PARTITIONS == p && record->t_ms > INT64_C(1600000000000));
    struct number *n = &load.numbers[number];
    if (n->read_count[node] < COPIES_MAX)
        n->read_at[node][n->read_count[node]] = offset;
    n->read_count[node]++;
    load.read[node]++;
}

static void read_all(void)
{
    struct log_record record;
    for (unsigned node = 0; node < 2; node++)
        for (uint32_t p = 0; p < PARTITIONS; p++) {
            err e;
            while ((e = log_reader_next(load.nodes[node].readers[p], &record)) == OK)
                on_record(node, p, &record);
            if (e != ERR_END && e != ERR_IO) {
                fprintf(stderr, "node %u, partition %u: %s\n", node, p, err_text(e));
                exit(1);
            }
        }
}

static bool has_settled(void)
{
    bool settled = true;
    io_mutex_lock(&load.mutex);
    for (uint64_t i = 0; settled && i < load.count; i++) {
        const struct number *n = &load.numbers[i];
        settled = n->fate != WAITING && (n->fate != ACKED || (n->read_count[0] > 0 && n->read_count[1] > 0));
    }
    io_mutex_unlock(&load.mutex);
    return settled;
}

static bool was_read_at(const struct number *n, unsigned node, uint64_t offset)
{
    for (unsigned i = 0; i < n->read_count[node] && i < COPIES_MAX; i++)
        if (n->read_at[node][i] == offset)
            return true;
    return false;
}

static int judge(void)
{
    unsigned lost = 0, wrong = 0, ghosts = 0, twice = 0, differ = 0;
    for (uint64_t i = 0; i < load.count; i++) {
        const struct number *n = &load.numbers[i];
        for (unsigned node = 0; node < 2; node++) {
            lost += n->fate == WAITING || (n->fate == ACKED && n->read_count[node] == 0);
            wrong += n->fate == ACKED && n->read_count[node] > 0 && !was_read_at(n, node, n->offset);
            ghosts += n->fate == NOT_STORED && n->read_count[node] > 0;
        }
        twice += n->read_count[0] > 1;
        differ += n->read_count[0] != n->read_count[1];
    }
    printf("numbers=%llu acked=%u not_stored=%u maybe_stored=%u read=%llu,%llu twice=%u longest_ms=%lld "
           "gap_ms=%lld\n",
           (unsigned long long)load.count, load.fates[ACKED], load.fates[NOT_STORED],
           load.fates[MAYBE_STORED], (unsigned long long)load.read[0], (unsigned long long)load.read[1],
           twice, (long long)load.longest_ms, (long long)load.gap_ms);
    printf("lost=%u wrong=%u ghosts=%u differ=%u missing=%llu damaged=%llu order=%u,%u\n", lost, wrong,
           ghosts, differ, (unsigned long long)load.missing, (unsigned long long)load.damaged,
           load.nodes[0].wrong, load.nodes[1].wrong);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        uint64_t from;
        expect(log_went_back(load.nodes[0].log, p, &from) == ERR_NOT_FOUND);
    }
    return lost + wrong + ghosts + differ + load.missing + load.damaged + load.nodes[0].wrong +
                   load.nodes[1].wrong !=
               0 ||
           load.longest_ms > 2 * DELIVERY_MS + 5000;
}

static int run_load(const char *bootstrap, const char *topic, unsigned seconds, unsigned rate)
{
    create(bootstrap, topic);
    expect((uint64_t)seconds * rate < NUMBERS_MAX);
    load.numbers = calloc((size_t)seconds * rate + 1, sizeof *load.numbers);
    io_mutex_init(&load.mutex);
    for (unsigned i = 0; i < 2; i++)
        open_node(&load.nodes[i], bootstrap, topic);
    printf("loading\n");
    fflush(stdout);
    int64_t begun_ms = now_ms();
    while (now_ms() < begun_ms + seconds * 1000) {
        while (load.count < (uint64_t)(now_ms() - begun_ms) * rate / 1000)
            append_next();
        read_all();
        io_sleep_ns(the_io, NS_PER_MS);
    }
    for (int64_t end_ms = now_ms() + SETTLE_MS; now_ms() < end_ms && !has_settled();) {
        read_all();
        io_sleep_ns(the_io, 10 * NS_PER_MS);
    }
    for (int64_t end_ms = now_ms() + 1000; now_ms() < end_ms; io_sleep_ns(the_io, 10 * NS_PER_MS))
        read_all(); /* whatever comes twice, at both */
    int status = judge();
    for (unsigned i = 0; i < 2; i++)
        close_node(&load.nodes[i]);
    return status;
}

int main(int argc, char **argv)
{
    expect(io_open(".", &the_io) == OK);
    if (argc == 5 && strcmp(argv[1], "latency") == 0)
        return measure(argv[2], argv[3], (size_t)atoi(argv[4]));
    if (argc == 6 && strcmp(argv[1], "load") == 0)
        return run_load(argv[2], argv[3], (unsigned)atoi(argv[4]), (unsigned)atoi(argv[5]));
    fprintf(stderr, "usage: log_probe latency BOOTSTRAP TOPIC COUNT | load BOOTSTRAP TOPIC SECONDS RATE\n");
    return 2;
}
