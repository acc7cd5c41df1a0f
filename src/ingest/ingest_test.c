/* Goal: what is sent is what a reader of the log finds, bit by bit, or it is refused and said so; and a reader can
 * always name the series. Method: hand-built and random messages against a naive model, through a log in memory
 * that answers, refuses and delays as it is told. */
#include "base/test.h"

#include "base/stat.h"
#include "base/time.h"
#include "codec/snappy.h"
#include "ingest/test_log.h"
#include "model/sample.h"

#include <math.h>

static struct pool *pool;
static struct io *io;
static struct log *fake;
static struct ingest *ingest;

static void open_with(struct ingest_config config)
{
    fake = fake_log_open(pool);
    assert_ok(ingest_open(&config, io, fake, pool, &ingest));
}

static int setup(void **state)
{
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    return io_open("/tmp", &io) == OK ? 0 : -1;
}

static int teardown(void **state)
{
    io_close(io);
    pool_close(pool);
    return 0;
}

static struct slice tenant_a(void) { return slice_str("a"); }

static struct slice pack(struct buf *message)
{
    struct buf out = buf_open(pool, 64u << 20);
    assert_ok(snappy_block_encode(buf_slice(message), &out));
    buf_clear(message);
    return buf_slice(&out);
}

static struct ingest_result send_1(struct buf *message)
{
    struct ingest_result result;
    struct slice body = pack(message);
    ingest_remote_write(ingest, tenant_a(), slice_str("application/x-protobuf"), slice_str("snappy"), body, &result);
    pool_block_free(pool, (void *)(uintptr_t)body.at);
    return result;
}

/* A TimeSeries of version 1 from text pairs "name=value" and one sample. */
static void put_series(struct buf *request, const char *const *pairs, size_t count, int64_t t_ms, uint64_t bits)
{
    struct buf series = buf_open(pool, 1 << 20), part = buf_open(pool, 1 << 20);
    for (size_t i = 0; i < count; i++) {
        const char *equals = strchr(pairs[i], '=');
        pb_bytes(&part, 1, slice_of(pairs[i], (size_t)(equals - pairs[i])));
        pb_bytes(&part, 2, slice_str(equals + 1));
        pb_message(&series, 1, &part);
    }
    pb_double(&part, 1, bits);
    pb_varint(&part, 2, (uint64_t)t_ms);
    pb_message(&series, 2, &part);
    pb_message(request, 1, &series);
    buf_close(&series);
    buf_close(&part);
}

static struct slice print_labels(struct slice labels)
{
    struct buf out = buf_open(pool, 1 << 20);
    labels_print(labels, &out);
    return buf_slice(&out);
}

static void first_and_second_write(void **state)
{
    open_with(ingest_config_default());
    struct buf m = buf_open(pool, 1 << 20);
    static const char *const up[] = { "__name__=up", "job=a" };
    put_series(&m, up, 2, 1000, double_bits(1.5));
    struct ingest_result r = send_1(&m);
    assert_int_equal(r.status, 204);
    assert_int_equal(r.samples, 1);
    assert_int_equal(r.text_len, 0);
    put_series(&m, up, 2, 2000, SAMPLE_STALE_BITS);
    assert_int_equal(send_1(&m).status, 204);
    assert_int_equal(fake->row_count, 2);
    assert_int_equal(fake->announce_count, 1);
    assert_true(slice_equal_str(print_labels(fake->rows[0].labels), "up{job=\"a\"}"));
    assert_true(fake->rows[0].t_ms == 1000 && fake->rows[0].bits == double_bits(1.5));
    assert_true(fake->rows[1].t_ms == 2000 && fake->rows[1].bits == SAMPLE_STALE_BITS);
    assert_int_equal(ingest_tenant_series(ingest, tenant_a()), 1);
    assert_int_equal(ingest_tenant_series(ingest, slice_str("b")), 0);
    ingest_close(ingest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_and_second_write),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
