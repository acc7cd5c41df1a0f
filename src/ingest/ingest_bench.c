/* Measures decode → encoded records, without a log: nanoseconds a sample for new and for known series, at one and
 * more threads. Not a test; run it by hand:  ingest_bench [series [threads [passes]]] */
#include "base/test.h"

#include "codec/snappy.h"
#include "ingest/test_log.h"
#include "io/thread.h"

#include <time.h>

#define SAMPLES_PER_REQUEST 2000
#define SERIES_PER_TARGET   1000

struct bodies {
    struct slice *at;
    size_t count;
};

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void put_pair(struct buf *series, struct buf *part, const char *name, const char *value)
{
    pb_bytes(part, 1, slice_str(name));
    pb_bytes(part, 2, slice_str(value));
    pb_message(series, 1, part);
}

static struct bodies make_bodies(struct pool *pool, uint32_t series_count)
{
    struct bodies bodies = { .count = (series_count + SAMPLES_PER_REQUEST - 1) / SAMPLES_PER_REQUEST };
    void *at;
    assert_ok(pool_alloc(pool, bodies.count * sizeof(struct slice), &at));
    bodies.at = at;
    struct buf request = buf_open(pool, 1u << 24), series = buf_open(pool, 1 << 16);
    struct buf part = buf_open(pool, 1 << 16);
    struct test_random r = { .state = 1 };
    uint32_t id = 0;
    for (size_t i = 0; i < bodies.count; i++) {
        for (uint32_t k = 0; k < SAMPLES_PER_REQUEST && id < series_count; k++, id++) {
            uint32_t target = id / SERIES_PER_TARGET, metric = id % SERIES_PER_TARGET / 10;
            char text[100];
            snprintf(text, sizeof text, "http_server_metric_number_%u_total", metric);
            put_pair(&series, &part, "__name__", text);
            put_pair(&series, &part, "cluster", "production-eu-west-1");
            snprintf(text, sizeof text, "/api/v1/handler/%u", id % 10);
            put_pair(&series, &part, "handler", text);
            snprintf(text, sizeof text, "10.%u.%u.%u:9100", target >> 16 & 255, target >> 8 & 255,
                     target & 255);
            put_pair(&series, &part, "instance", text);
            put_pair(&series, &part, "job", "node-exporter");
            put_pair(&series, &part, "method", id % 2 ? "GET" : "POST");
            put_pair(&series, &part, "namespace", "monitoring");
            snprintf(text, sizeof text, "web-server-6d4cf56db6-%u", target);
            put_pair(&series, &part, "pod", text);
            pb_double(&part, 1, double_bits((double)test_random_below(&r, 1 << 14)));
            pb_varint(&part, 2, UINT64_C(1750000000000) + target % 15000);
            pb_message(&series, 2, &part);
            pb_message(&request, 1, &series);
        }
        struct buf packed = buf_open(pool, 1u << 24);
        assert_ok(snappy_block_encode(buf_slice(&request), &packed));
        bodies.at[i] = buf_slice(&packed);
        buf_clear(&request);
    }
    buf_close(&request);
    return bodies;
}

struct job {
    struct ingest *ingest;
    const struct bodies *bodies;
    size_t from, step;
};

static void send_all(void *context)
{
    struct job *job = context;
    for (size_t i = job->from; i < job->bodies->count; i += job->step) {
        struct ingest_result result;
        ingest_remote_write(job->ingest, slice_str("bench"), slice_str("application/x-protobuf"),
                            slice_str("snappy"), job->bodies->at[i], &result);
        if (result.status != 204)
            printf("status %d: %s", result.status, result.text);
    }
}

int main(int argc, char **argv)
{
    uint32_t series_count = argc > 1 ? (uint32_t)atoi(argv[1]) : 1000000;
    size_t threads = argc > 2 ? (size_t)atoi(argv[2]) : 1;
    int passes = argc > 3 ? atoi(argv[3]) : 8;
    struct pool *pool = pool_open(NULL, "bench", POOL_BYTES_UNLIMITED);
    struct io *io;
    assert_ok(io_open("/tmp", &io));
    struct log *log = fake_log_open(pool);
    log->discard = true;
    struct bodies bodies = make_bodies(pool, series_count);
    struct ingest_config config = ingest_config_default();
    struct ingest *ingest;
    assert_ok(ingest_open(&config, io, log, pool, &ingest));
    for (int pass = 0; pass < passes; pass++) {
        uint64_t bytes = log->byte_count;
        double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        struct job jobs[16];
        struct io_thread *handles[16];
        for (size_t i = 0; i < threads && i < 16; i++) {
            jobs[i] = (struct job){ ingest, &bodies, i, threads };
            assert_ok(io_thread_start(io, "bench", send_all, &jobs[i], &handles[i]));
        }
        for (size_t i = 0; i < threads && i < 16; i++)
            io_thread_join(handles[i]);
        wall = seconds(CLOCK_MONOTONIC) - wall;
        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        printf("pass %d: %.0f ns wall, %.0f ns cpu, %.2f bytes a sample\n", pass, wall * 1e9 / series_count,
               cpu * 1e9 / series_count, (double)(log->byte_count - bytes) / series_count);
    }
    struct ingest_usage usage = ingest_usage(ingest);
    printf("%llu series, %.1f bytes each\n", (unsigned long long)usage.series,
           (double)usage.table_bytes / (double)usage.series);
    ingest_close(ingest);
    io_close(io);
    pool_close(pool);
    return 0;
}
