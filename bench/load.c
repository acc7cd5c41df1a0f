/* The load of the metrics benchmark: makes remote write 1.0 requests once, sends them any number of times.
 *
 *   load make FILE --series N --steps K [--start MS] [--interval MS] [--per-request N] [--connections C]
 *             [--churn PERMILLE] [--seed S]
 *   load send FILE --port P [--path /api/v1/write] [--loops 1]
 *
 * `make` writes whole HTTP requests (snappy bodies), so that sending costs the client next to nothing and every
 * server gets the same bytes. `send` opens one connection a lane and sends that lane's requests in order, each
 * after the reply to the one before; it prints one JSON object: samples, seconds, latency quantiles, refused.
 *
 * The mix (docs/benchmark.md): targets of 500 series, alternating between node_exporter-like and Kubernetes-like
 * label sets; of 500 series 105 constants, 80 counters at rest, 55 integer counters, 30 CPU-second counters
 * (0.01), 20 full-precision counters, 30 page-sized gauges, 8 decimal gauges, 13 full-precision gauges, and 10
 * classic histograms of 14 buckets + Inf with _count (their _sum are among the full-precision counters).
 * Scrape times: the interval, 2 % of them up to 20 ms late. Churn: each step, PERMILLE of a thousand targets get a
 * new instance label (a pod was replaced) and their counters start again. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <snappy-c.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TARGET_SERIES 500
#define LANES_MAX     64

enum kind {
    CONSTANT,
    AT_REST,
    INT_COUNTER,
    CPU_COUNTER,
    FULL_COUNTER,
    PAGES,
    DECIMAL,
    FULL_GAUGE,
    BUCKET,
    COUNT
};

struct series {
    double value;
    uint64_t random;
    uint32_t label_offset; /* of its label bytes in the lane's text */
    uint16_t label_bytes;
    uint8_t kind;
    uint8_t bucket; /* 0 … 14, +Inf last */
};

struct target {
    uint32_t number; /* grows with churn: names the instance */
    uint32_t slot;
    int64_t late_ms;
    struct series series[TARGET_SERIES];
    double bucket_rate[10][15];
};

struct text {
    uint8_t *at;
    size_t len, capacity;
};

struct options {
    long series, steps, start_ms, interval_ms, per_request, connections, churn, port, loops;
    long first; /* number of the first target: others have other series */
    uint64_t seed;
    const char *path;
};

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t v = *state += UINT64_C(0x9e3779b97f4a7c15);
    v = (v ^ v >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    v = (v ^ v >> 27) * UINT64_C(0x94d049bb133111eb);
    return v ^ v >> 31;
}

static double next_unit(uint64_t *state) { return (double)(next_random(state) >> 11) * 0x1p-53; }

static uint8_t *grow(struct text *t, size_t bytes)
{
    if (t->len + bytes > t->capacity) {
        t->capacity = (t->len + bytes) * 2;
        t->at = realloc(t->at, t->capacity);
        if (t->at == NULL)
            die("memory");
    }
    return t->at + t->len;
}

static void put(struct text *t, const void *from, size_t bytes)
{
    memcpy(grow(t, bytes), from, bytes);
    t->len += bytes;
}

static void put_varint(struct text *t, uint64_t v)
{
    uint8_t bytes[10];
    size_t n = 0;
    while (v >= 0x80) {
        bytes[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    bytes[n++] = (uint8_t)v;
    put(t, bytes, n);
}

static size_t varint_bytes(uint64_t v)
{
    size_t n = 1;
    while (v >>= 7)
        n++;
    return n;
}

static void put_label(struct text *t, const char *name, const char *value)
{
    size_t name_len = strlen(name), value_len = strlen(value);
    size_t body = 1 + varint_bytes(name_len) + name_len + 1 + varint_bytes(value_len) + value_len;
    put(t, "\x0a", 1);
    put_varint(t, body);
    put(t, "\x0a", 1);
    put_varint(t, name_len);
    put(t, name, name_len);
    put(t, "\x12", 1);
    put_varint(t, value_len);
    put(t, value, value_len);
}

/* ---- what a series is called ------------------------------------------------------------------- */
static const char *const bucket_bounds[15] = { "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1",
                                               "2.5",   "5",    "10",    "25",   "50",  "100",  "+Inf" };

struct naming {
    enum kind kind;
    int bucket;
    char name[64];
    char device[24], mode[24], method[24], code[8];
};

/* Series i of a target: its kind and metric name; every family has several series told apart by labels. */
static struct naming naming_of(int i, bool kubernetes)
{
    struct naming n = { 0 };
    static const struct {
        int count;
        enum kind kind;
        const char *stem;
        int per_family;
    } rows[] = {
        { 105, CONSTANT, "info_limit", 7 },
        { 80, AT_REST, "errors_total", 8 },
        { 55, INT_COUNTER, "packets_total", 5 },
        { 30, CPU_COUNTER, "cpu_seconds_total", 8 },
        { 20, FULL_COUNTER, "request_duration_seconds_sum", 1 },
        { 30, PAGES, "memory_bytes", 3 },
        { 8, DECIMAL, "load", 2 },
        { 13, FULL_GAUGE, "utilization_ratio", 3 },
    };
    const char *side = kubernetes ? "container" : "node";
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        if (i < rows[r].count) {
            n.kind = rows[r].kind;
            if (n.kind == FULL_COUNTER && i < 10)
                snprintf(n.name, sizeof n.name, "%s_h%d_request_duration_seconds_sum", side, i);
            else
                snprintf(n.name, sizeof n.name, "%s_s%d_%s", side, i / rows[r].per_family, rows[r].stem);
            snprintf(n.device, sizeof n.device, "dev%d", i % rows[r].per_family);
            if (n.kind == CPU_COUNTER) {
                static const char *const modes[] = { "idle",    "iowait", "irq",    "nice",
                                                     "softirq", "steal",  "system", "user" };
                snprintf(n.mode, sizeof n.mode, "%s", modes[i % 8]);
            }
            return n;
        }
        i -= rows[r].count;
    }
    /* 159 left: 10 histograms of 15 buckets, 9 counts (the tenth histogram has none) */
    if (i < 150) {
        n.kind = BUCKET;
        n.bucket = i % 15;
        snprintf(n.name, sizeof n.name, "%s_h%d_request_duration_seconds_bucket", side, i / 15);
        snprintf(n.method, sizeof n.method, "GET");
        snprintf(n.code, sizeof n.code, "200");
    } else {
        n.kind = COUNT;
        n.bucket = 14;
        snprintf(n.name, sizeof n.name, "%s_h%d_request_duration_seconds_count", side, i - 150);
        snprintf(n.method, sizeof n.method, "GET");
        snprintf(n.code, sizeof n.code, "200");
    }
    return n;
}

static void put_labels(struct text *t, const struct target *target, int i)
{
    bool kubernetes = target->slot % 2 == 1;
    struct naming n = naming_of(i, kubernetes);
    char value[128];
    put_label(t, "__name__", n.name);
    snprintf(value, sizeof value, "eu-%u", target->slot % 4);
    put_label(t, "cluster", value);
    if (n.code[0])
        put_label(t, "code", n.code);
    if (kubernetes) {
        snprintf(value, sizeof value, "app-%u", target->slot % 37);
        put_label(t, "container", value);
    }
    if (n.device[0])
        put_label(t, "device", n.device);
    snprintf(value, sizeof value, "10.%u.%u.%u:9100", target->number >> 16 & 255, target->number >> 8 & 255,
             target->number & 255);
    put_label(t, "instance", value);
    put_label(t, "job", kubernetes ? "kubelet" : "node");
    if (n.kind == BUCKET)
        put_label(t, "le", bucket_bounds[n.bucket]);
    if (n.method[0])
        put_label(t, "method", n.method);
    if (n.mode[0])
        put_label(t, "mode", n.mode);
    if (kubernetes) {
        snprintf(value, sizeof value, "team-%u", target->slot % 11);
        put_label(t, "namespace", value);
        snprintf(value, sizeof value, "worker-%03u.eu.example.net", target->slot % 200);
        put_label(t, "node", value);
        snprintf(value, sizeof value, "app-%u-7d9c8b%05x-x%04u", target->slot % 37,
                 target->number * 2654435761u >> 12, target->number % 10000);
        put_label(t, "pod", value);
    }
    put_label(t, "region", "eu-central-1");
    put_label(t, "team", kubernetes ? "platform" : "infrastructure");
}

static void name_target(struct text *labels, struct target *target)
{
    for (int i = 0; i < TARGET_SERIES; i++) {
        struct series *s = &target->series[i];
        s->label_offset = (uint32_t)labels->len;
        put_labels(labels, target, i);
        s->label_bytes = (uint16_t)(labels->len - s->label_offset);
    }
}

/* ---- how a series moves --------------------------------------------------------------------------- */
static void begin_series(struct series *s, int i, uint64_t seed, bool kubernetes)
{
    struct naming n = naming_of(i, kubernetes);
    s->kind = (uint8_t)n.kind;
    s->bucket = (uint8_t)n.bucket;
    s->random = seed;
    double u = next_unit(&s->random);
    switch (n.kind) {
    case CONSTANT:
        s->value = floor(u * 100000);
        break;
    case AT_REST:
        s->value = u < 0.7 ? 0 : floor(u * 1000);
        break;
    case INT_COUNTER:
        s->value = floor(u * 1e9);
        break;
    case CPU_COUNTER:
        s->value = floor(u * 1e7) / 100;
        break;
    case FULL_COUNTER:
        s->value = u * 1e5;
        break;
    case PAGES:
        s->value = floor(u * 1e6) * 4096;
        break;
    case DECIMAL:
        s->value = floor(u * 1000) / 100;
        break;
    case FULL_GAUGE:
        s->value = u;
        break;
    case BUCKET:
    case COUNT:
        s->value = 0;
        break;
    }
}

static void step_series(struct target *target, int i)
{
    struct series *s = &target->series[i];
    double u = next_unit(&s->random);
    switch ((enum kind)s->kind) {
    case CONSTANT:
    case AT_REST:
        break;
    case INT_COUNTER:
        s->value += floor(u * 20000);
        break;
    case CPU_COUNTER:
        s->value = floor((s->value + u * 15) * 100 + 0.5) / 100;
        break;
    case FULL_COUNTER:
        s->value += u * 7.3;
        break;
    case PAGES:
        if (u < 0.5)
            s->value = fmax(0, s->value + floor((u - 0.25) * 4000) * 4096);
        break;
    case DECIMAL:
        s->value = floor(fmax(0, s->value + (u - 0.5)) * 100 + 0.5) / 100;
        break;
    case FULL_GAUGE:
        s->value = u * 0.37 + s->value * 0.63;
        break;
    case BUCKET: {
        /* bucket b holds what is <= its bound: the sum of the increments below it, kept by the first of 15 */
        int histogram = (i - 341) / 15;
        target->bucket_rate[histogram][s->bucket] = floor(u * u * 4);
        double total = 0;
        for (int b = 0; b <= s->bucket; b++)
            total += target->bucket_rate[histogram][b];
        s->value += total;
        break;
    }
    case COUNT:
        s->value = target->series[341 + (i - 491) * 15 + 14].value;
        break;
    }
}

/* ---- making requests ------------------------------------------------------------------------------ */
struct lane {
    struct target *targets;
    long target_count;
    struct text labels, body, packed, out;
    uint64_t random;
    uint32_t next_number;
    int number;
    const struct options *options;
    long pending;
    FILE *file;
    uint64_t samples;
};

static void flush_request(struct lane *lane)
{
    if (lane->pending == 0)
        return;
    size_t packed_len = snappy_max_compressed_length(lane->body.len);
    lane->packed.len = 0;
    grow(&lane->packed, packed_len);
    if (snappy_compress((const char *)lane->body.at, lane->body.len, (char *)lane->packed.at, &packed_len) !=
        SNAPPY_OK)
        die("snappy");
    char head[512];
    int head_len = snprintf(
        head, sizeof head,
        "POST /api/v1/write HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-protobuf\r\n"
        "Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: %zu\r\n\r\n",
        packed_len);
    uint32_t record[2] = { (uint32_t)((size_t)head_len + packed_len), (uint32_t)lane->pending };
    fwrite(record, sizeof record, 1, lane->file);
    fwrite(head, (size_t)head_len, 1, lane->file);
    fwrite(lane->packed.at, packed_len, 1, lane->file);
    lane->samples += (uint64_t)lane->pending;
    lane->body.len = 0;
    lane->pending = 0;
}

static void put_sample(struct lane *lane, const struct series *s, int64_t t_ms)
{
    size_t sample_bytes = 9 + 1 + varint_bytes((uint64_t)t_ms);
    size_t message = s->label_bytes + 2 + sample_bytes;
    put(&lane->body, "\x0a", 1);
    put_varint(&lane->body, message);
    put(&lane->body, lane->labels.at + s->label_offset, s->label_bytes);
    put(&lane->body, "\x12", 1);
    put_varint(&lane->body, sample_bytes);
    put(&lane->body, "\x09", 1);
    put(&lane->body, &s->value, 8);
    put(&lane->body, "\x10", 1);
    put_varint(&lane->body, (uint64_t)t_ms);
    if (++lane->pending == lane->options->per_request)
        flush_request(lane);
}

static void begin_target(struct lane *lane, struct target *target)
{
    target->number = lane->next_number;
    lane->next_number += (uint32_t)lane->options->connections;
    name_target(&lane->labels, target);
    for (int i = 0; i < TARGET_SERIES; i++)
        begin_series(&target->series[i], i, next_random(&lane->random), target->slot % 2 == 1);
}

static void *make_lane(void *context)
{
    struct lane *lane = context;
    const struct options *o = lane->options;
    for (long t = 0; t < lane->target_count; t++) {
        lane->targets[t].slot = (uint32_t)(t * o->connections + lane->number);
        begin_target(lane, &lane->targets[t]);
    }
    for (long step = 0; step < o->steps; step++) {
        for (long t = 0; t < lane->target_count; t++) {
            struct target *target = &lane->targets[t];
            if (o->churn != 0 && step != 0 && next_unit(&lane->random) * 1000 < (double)o->churn)
                begin_target(lane, target);
            int64_t late = next_unit(&lane->random) < 0.02 ? (int64_t)(next_unit(&lane->random) * 20) : 0;
            int64_t offset = (int64_t)((uint64_t)target->slot * 7919 % (uint64_t)o->interval_ms);
            for (int i = 0; i < TARGET_SERIES; i++) {
                put_sample(lane, &target->series[i], o->start_ms + step * o->interval_ms + offset + late);
                step_series(target, i);
            }
        }
    }
    flush_request(lane);
    fclose(lane->file);
    return NULL;
}

static int make(const char *path, const struct options *o)
{
    long target_count = o->series / TARGET_SERIES;
    struct lane lanes[LANES_MAX] = { 0 };
    pthread_t threads[LANES_MAX];
    uint64_t samples = 0;
    for (long c = 0; c < o->connections; c++) {
        char name[1024];
        snprintf(name, sizeof name, "%s.%ld", path, c);
        lanes[c].options = o;
        lanes[c].number = (int)c;
        lanes[c].next_number = (uint32_t)(o->first + c);
        lanes[c].random = o->seed * 1000003 + (uint64_t)c;
        lanes[c].target_count = target_count / o->connections + (c < target_count % o->connections);
        lanes[c].targets = calloc((size_t)lanes[c].target_count + 1, sizeof(struct target));
        lanes[c].file = fopen(name, "wb");
        if (lanes[c].targets == NULL || lanes[c].file == NULL)
            die(name);
        if (pthread_create(&threads[c], NULL, make_lane, &lanes[c]) != 0)
            die("thread");
    }
    for (long c = 0; c < o->connections; c++) {
        pthread_join(threads[c], NULL);
        samples += lanes[c].samples;
    }
    printf("{\"samples\": %llu}\n", (unsigned long long)samples);
    return 0;
}

/* ---- sending ---------------------------------------------------------------------------------------- */
/* Lanes stay together: the peers refuse what lags an hour of data behind the newest sample, so a lane that is
 * more than LEAD_MAX of its file ahead of the slowest one waits. */
#define LEAD_MAX 0.004

struct sender {
    _Atomic double progress; /* 0 … 1, of its own file */
    struct sender *all;
    long lane_count;
    const uint8_t *at, *end;
    const struct options *o;
    float *latency_ms;
    size_t latency_count, latency_capacity;
    uint64_t samples, refused, bytes;
    char first_error[300];
};

static int connect_to(long port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int one = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct timeval limit = { .tv_sec = 120 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

/* Read one reply; returns its status, 0 when the connection ended. Bodies by Content-Length only. */
static int read_reply(int fd, char *text, size_t size)
{
    size_t len = 0;
    for (;;) {
        ssize_t got = recv(fd, text + len, size - 1 - len, 0);
        if (got <= 0)
            return 0;
        len += (size_t)got;
        text[len] = 0;
        char *body = strstr(text, "\r\n\r\n");
        if (body == NULL && len < size - 1)
            continue;
        if (body == NULL)
            return 0;
        char *length = strcasestr(text, "content-length:");
        size_t body_len = length != NULL && length < body ? strtoul(length + 15, NULL, 10) : 0;
        size_t have = len - (size_t)(body + 4 - text);
        while (have < body_len) {
            char rest[4096];
            got = recv(fd, rest, body_len - have < sizeof rest ? body_len - have : sizeof rest, 0);
            if (got <= 0)
                return 0;
            have += (size_t)got;
        }
        return (int)strtol(text + 9, NULL, 10);
    }
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static bool send_all(int fd, const uint8_t *at, size_t len)
{
    while (len != 0) {
        ssize_t sent = send(fd, at, len, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        at += sent;
        len -= (size_t)sent;
    }
    return true;
}

static void wait_for_others(struct sender *s, const uint8_t *at)
{
    s->progress = (double)(at - s->at) / (double)(s->end - s->at);
    for (;;) {
        double slowest = 1;
        for (long c = 0; c < s->lane_count; c++)
            slowest = fmin(slowest, s->all[c].progress);
        if (s->progress <= slowest + LEAD_MAX)
            return;
        usleep(200);
    }
}

static void send_file(struct sender *s, int *fd)
{
    char reply[8192];
    for (const uint8_t *at = s->at; at + 8 <= s->end;) {
        uint32_t record[2];
        wait_for_others(s, at);
        memcpy(record, at, 8);
        double begun = seconds_now();
        int status = send_all(*fd, at + 8, record[0]) ? read_reply(*fd, reply, sizeof reply) : 0;
        if (s->latency_count < s->latency_capacity)
            s->latency_ms[s->latency_count++] = (float)((seconds_now() - begun) * 1000);
        if (status / 100 == 2) {
            s->samples += record[1];
        } else {
            s->refused += record[1];
            if (s->first_error[0] == 0)
                snprintf(s->first_error, sizeof s->first_error, "%.250s",
                         status == 0 ? "connection ended" : reply);
            if (status == 0) {
                close(*fd);
                *fd = connect_to(s->o->port);
            }
        }
        s->bytes += record[0];
        at += 8 + record[0];
    }
    s->progress = 1;
}

static void *send_lane(void *context)
{
    struct sender *s = context;
    int fd = connect_to(s->o->port);
    for (long loop = 0; loop < s->o->loops; loop++)
        send_file(s, &fd);
    close(fd);
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static int send_files(const char *path, const struct options *o)
{
    struct sender senders[LANES_MAX] = { 0 };
    pthread_t threads[LANES_MAX];
    long count = 0;
    for (; count < LANES_MAX; count++) {
        char name[1024];
        snprintf(name, sizeof name, "%s.%ld", path, count);
        int fd = open(name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            break;
        struct stat info;
        fstat(fd, &info);
        senders[count].o = o;
        senders[count].latency_capacity = 1 << 20;
        senders[count].latency_ms = malloc(sizeof(float) << 20);
        senders[count].at =
            info.st_size == 0 ? NULL
                              : mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
        if (senders[count].at == MAP_FAILED || senders[count].latency_ms == NULL)
            die(name);
        senders[count].end = senders[count].at + info.st_size;
        close(fd);
    }
    if (count == 0)
        die(path);
    for (long c = 0; c < count; c++) {
        senders[c].all = senders;
        senders[c].lane_count = count;
        if (senders[c].at == NULL)
            senders[c].progress = 1;
    }
    double begun = seconds_now();
    for (long c = 0; c < count; c++)
        if (pthread_create(&threads[c], NULL, send_lane, &senders[c]) != 0)
            die("thread");
    float *all = malloc(sizeof(float) * (size_t)count << 20);
    size_t all_count = 0;
    uint64_t samples = 0, refused = 0, bytes = 0;
    const char *error = "";
    for (long c = 0; c < count; c++) {
        pthread_join(threads[c], NULL);
        memcpy(all + all_count, senders[c].latency_ms, senders[c].latency_count * sizeof(float));
        all_count += senders[c].latency_count;
        samples += senders[c].samples;
        refused += senders[c].refused;
        bytes += senders[c].bytes;
        if (senders[c].first_error[0] != 0)
            error = senders[c].first_error;
    }
    double seconds = seconds_now() - begun;
    qsort(all, all_count, sizeof(float), by_value);
    printf("{\"samples\": %llu, \"refused\": %llu, \"bytes\": %llu, \"seconds\": %.3f, \"requests\": %zu, "
           "\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n",
           (unsigned long long)samples, (unsigned long long)refused, (unsigned long long)bytes, seconds,
           all_count, all_count ? (double)all[all_count / 2] : 0,
           all_count ? (double)all[all_count * 99 / 100] : 0, all_count ? (double)all[all_count - 1] : 0);
    if (error[0] != 0)
        fprintf(stderr, "load: first refusal: %s\n", error);
    return refused != 0 ? 3 : 0;
}

int main(int argc, char **argv)
{
    struct options o = { .series = 10000,
                         .steps = 10,
                         .start_ms = 1700000000000,
                         .interval_ms = 15000,
                         .per_request = 2000,
                         .connections = 4,
                         .loops = 1,
                         .port = 9428,
                         .seed = 1 };
    if (argc < 3) {
        fprintf(stderr, "usage: load make|send FILE [--NAME VALUE …]\n");
        return 2;
    }
    for (int i = 3; i + 1 < argc; i += 2) {
        const struct {
            const char *name;
            long *at;
        } names[] = {
            { "--series", &o.series },
            { "--steps", &o.steps },
            { "--start", &o.start_ms },
            { "--interval", &o.interval_ms },
            { "--per-request", &o.per_request },
            { "--connections", &o.connections },
            { "--churn", &o.churn },
            { "--port", &o.port },
            { "--loops", &o.loops },
            { "--seed", (long *)&o.seed },
            { "--first", &o.first },
        };
        bool known = false;
        for (size_t n = 0; n < sizeof names / sizeof *names; n++)
            if (strcmp(argv[i], names[n].name) == 0) {
                *names[n].at = strtol(argv[i + 1], NULL, 10);
                known = true;
            }
        if (!known) {
            fprintf(stderr, "load: unknown option %s\n", argv[i]);
            return 2;
        }
    }
    if (o.connections < 1 || o.connections > LANES_MAX) {
        fprintf(stderr, "load: 1 to %d connections\n", LANES_MAX);
        return 2;
    }
    if (strcmp(argv[1], "make") == 0)
        return make(argv[2], &o);
    return send_files(argv[2], &o);
}
