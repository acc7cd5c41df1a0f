/* Goal: predicted, looked-up and newly registered series give the same rows; broken messages are refused as a
 * whole and never read past their bytes. Method: random requests in changing orders against a list of what
 * was sent; truncation at every byte, flips. */
#include "base/test.h"

#include "codec/snappy.h"
#include "ingest/test_log.h"
#include "io/thread.h"

#define V1     "application/x-protobuf"
#define V2     "application/x-protobuf;proto=io.prometheus.write.v2.Request"
#define SERIES 300

static struct pool *pool;
static struct io *io;
static struct log *fake;
static struct ingest *ingest;
static struct pb_symbols symbols;

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

static void open_ingest(void)
{
    struct ingest_config config = ingest_config_default();
    fake = fake_log_open(pool);
    assert_ok(ingest_open(&config, io, fake, pool, &ingest));
}

static struct ingest_result send(struct slice message, int version)
{
    struct ingest_result result;
    struct buf out = buf_open(pool, 64u << 20);
    assert_ok(snappy_block_encode(message, &out));
    ingest_remote_write(ingest, slice_str("a"), slice_str(version == 1 ? V1 : V2), slice_str("snappy"),
                        buf_slice(&out), &result);
    buf_close(&out);
    return result;
}

static char names[SERIES][100];

static void name_series(struct test_random *r)
{
    for (int i = 0; i < SERIES; i++) {
        static const char filler[] = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
        snprintf(names[i], sizeof names[i], "__name__=m%d a=%.*s z=%d", i % 17,
                 (int)(1 + test_random_below(r, 40)), filler, i);
    }
}

static void put_row(struct buf *request, int version, int series_index, int64_t t_ms, uint64_t bits)
{
    if (version == 1) {
        pb_series(request, names[series_index], t_ms, bits);
        return;
    }
    struct buf series = buf_open(pool, 1 << 16);
    pb_refs(&series, &symbols, names[series_index]);
    pb_sample(&series, t_ms, bits, 0);
    pb_message(request, 5, &series);
    buf_close(&series);
}

struct sent {
    int series;
    int64_t t_ms;
    uint64_t bits;
};

static int compare_rows(const void *a, const void *b)
{
    const struct fake_row *x = a, *y = b;
    return x->t_ms < y->t_ms ? -1 : x->t_ms > y->t_ms;
}

static void orders_and_versions(void **state)
{
    struct test_random r = test_random_begin("orders_and_versions");
    static struct sent sent[60 * SERIES];
    size_t count = 0;
    open_ingest();
    name_series(&r);
    struct buf m = buf_open(pool, 16u << 20);
    for (int round = 0; round < 60; round++) {
        int version = 1 + (int)test_random_below(&r, 2);
        uint64_t kind = test_random_below(&r, 4);
        int begin = (int)test_random_below(&r, SERIES);
        int request_rows = (int)test_random_below(&r, SERIES);
        for (int i = 0; i < request_rows; i++) {
            int index = (begin + i) % SERIES;
            if (kind == 0)
                index = (int)test_random_below(&r, SERIES);
            else if (kind == 1)
                index = (begin + SERIES - i % SERIES) % SERIES;
            struct sent s = { index, (int64_t)count, test_random_u64(&r) };
            put_row(&m, version, s.series, s.t_ms, s.bits);
            sent[count++] = s;
        }
        if (version == 2)
            pb_symbols_put(&m, &symbols);
        struct ingest_result result = send(buf_slice(&m), version);
        assert_int_equal(result.status, 204);
        assert_int_equal(result.samples, request_rows);
        buf_clear(&m);
    }
    assert_int_equal(fake->unbound, 0);
    assert_int_equal(fake->row_count, count);
    qsort(fake->rows, fake->row_count, sizeof fake->rows[0], compare_rows); /* t is the number of the row */
    for (size_t i = 0; i < count; i++) {
        struct buf labels = buf_open(pool, 4096);
        pb_labels(&labels, names[sent[i].series]);
        assert_true(slice_equal(fake->rows[i].labels, buf_slice(&labels)));
        assert_true(fake->rows[i].t_ms == sent[i].t_ms && fake->rows[i].bits == sent[i].bits);
        buf_close(&labels);
    }
    assert_true(ingest_usage(ingest).series <= SERIES);
    assert_true(fake->announce_count <= SERIES * 2);
    ingest_close(ingest);
}

static struct histogram_span spans[] = { { -2, 2 } };
static int64_t deltas[] = { 1, 1 };
static double counts[] = { 1, 2 };

/* A request with every kind of field. */
static void put_everything(struct buf *m, int version)
{
    struct buf series = buf_open(pool, 1 << 16), part = buf_open(pool, 1 << 16);
    struct histogram h = { .schema = 2,
                           .count_int = 3,
                           .positive_spans = spans,
                           .positive_span_count = 1,
                           .positive_deltas = deltas,
                           .positive_bucket_count = 2 };
    struct histogram f = { .is_float = true,
                           .schema = 2,
                           .count_float = 3,
                           .negative_spans = spans,
                           .negative_span_count = 1,
                           .negative_counts = counts,
                           .negative_bucket_count = 2 };
    for (int i = 0; i < 3; i++) {
        if (version == 1)
            pb_labels(&series, i == 0 ? "__name__=up a=1" : "a=1 __name__=h");
        else
            pb_refs(&series, &symbols, i == 0 ? "__name__=up a=1" : "a=1 __name__=h");
        if (i == 0)
            pb_sample(&series, 5, 6, version == 2 ? 4 : 0);
        else {
            pb_histogram(&part, i == 1 ? &h : &f, 7, version == 2 ? 3 : 0, i == 1);
            pb_message(&series, version == 1 ? 4 : 3, &part);
        }
        if (version == 1)
            pb_labels(&part, "t=u");
        else
            pb_refs(&part, &symbols, "t=u");
        pb_double(&part, 2, 9);
        pb_varint(&part, 3, 10);
        pb_message(&series, version == 1 ? 3 : 4, &part);
        if (version == 2) {
            pb_varint(&part, 1, 2);
            pb_varint(&part, 3, pb_symbol(&symbols, slice_str("help")));
            pb_message(&series, 5, &part);
        }
        pb_tag(&series, 77, 5);
        buf_put_le32(&series, 1);
        pb_message(m, version == 1 ? 1 : 5, &series);
    }
    pb_varint(&part, 1, 2);
    pb_bytes(&part, 2, slice_str("up"));
    pb_bytes(&part, 4, slice_str("help"));
    if (version == 1)
        pb_message(m, 3, &part);
    else
        pb_symbols_put(m, &symbols);
    buf_close(&series);
    buf_close(&part);
}

static void broken_messages(void **state)
{
    struct test_random r = test_random_begin("broken_messages");
    for (int version = 1; version <= 2; version++) {
        open_ingest();
        struct buf m = buf_open(pool, 1 << 20);
        put_everything(&m, version);
        struct ingest_result result = send(buf_slice(&m), version);
        assert_int_equal(result.status, 204);
        assert_true(result.samples == 1 && result.histograms == 2 && result.exemplars == 3);
        for (size_t cut = 0; cut < m.len; cut++) {
            uint64_t rows = fake->row_count;
            result = send(slice_of(m.at, cut), version);
            assert_true(result.status == 204 || result.status == 400);
            /* Cut between fields it is a shorter message, else nothing of it is stored. */
            uint64_t refused = 0;
            for (int i = 0; i < INGEST_REASON_COUNT; i++)
                refused += result.refused[i];
            if (result.status == 400 && refused == 0)
                assert_int_equal(fake->row_count, rows);
        }
        for (int i = 0; i < 4000; i++) {
            size_t flips = 1 + test_random_below(&r, 3);
            struct slice copy;
            assert_ok(pool_copy(pool, buf_slice(&m), &copy));
            uint8_t *bytes = (uint8_t *)(uintptr_t)copy.at;
            for (size_t k = 0; k < flips; k++)
                bytes[test_random_below(&r, m.len)] ^= (uint8_t)(1u << test_random_below(&r, 8));
            uint64_t rows = fake->row_count;
            result = send(copy, version);
            assert_true(result.status == 204 || result.status == 400);
            assert_int_equal(fake->row_count - rows, result.samples + result.histograms);
        }
        assert_int_equal(fake->unbound, 0);
        ingest_close(ingest);
    }
}

/* A sample's fields may be left out, turned around, followed by unknown ones; labels may lie behind samples. All
 * forms are read, alone and beside others, by prediction and without. */
static void forms_of_samples(void **state)
{
    open_ingest();
    static const uint8_t filler[200];
    static const struct {
        int64_t t_ms;
        uint64_t bits;
    } want[] = { { 1, 7 }, { 2, 0 }, { 3, 9 }, { 4, 10 }, { 5, 11 }, { 0, 0 }, { 0, 12 }, { -6, 13 } };
    enum { FORMS = sizeof want / sizeof want[0] };
    for (int only = -1; only < FORMS; only++)
        for (int labels_behind = 0; labels_behind < 2; labels_behind++)
            for (int again = 0; again < 2; again++) {
                struct buf m = buf_open(pool, 1 << 16), series = buf_open(pool, 1 << 16),
                           part = buf_open(pool, 4096);
                pb_series(&m, "__name__=before", 0, 1); /* predicts the other */
                pb_labels(&series, "__name__=forms a=1");
                for (int i = 0; i < FORMS; i++) {
                    if (only >= 0 && only != i)
                        continue;
                    buf_clear(&part);
                    if (i == 3)
                        pb_varint(&part, 2, (uint64_t)want[i].t_ms); /* before the value */
                    if (i != 1 && i != 5)
                        pb_double(&part, 1, want[i].bits);
                    if (i != 3 && i != 5 && i != 6)
                        pb_varint(&part, 2, (uint64_t)want[i].t_ms);
                    if (i == 2)
                        pb_varint(&part, 9, 1);
                    if (i == 4)
                        pb_bytes(&part, 9, slice_of(filler, sizeof filler));
                    pb_message(&series, 2, &part);
                }
                if (labels_behind)
                    pb_labels(&series, "b=2");
                pb_message(&m, 1, &series);
                uint64_t rows = fake->row_count;
                struct ingest_result result = send(buf_slice(&m), 1);
                assert_int_equal(result.status, 204);
                assert_int_equal(fake->row_count - rows, only >= 0 ? 2 : 1 + FORMS);
                struct buf labels = buf_open(pool, 4096);
                pb_labels(&labels, labels_behind ? "__name__=forms a=1 b=2" : "__name__=forms a=1");
                for (int i = 0, found = 0; i < FORMS; i++) {
                    if (only >= 0 && only != i)
                        continue;
                    for (uint64_t k = rows; k < fake->row_count; k++)
                        found += slice_equal(fake->rows[k].labels, buf_slice(&labels)) &&
                                 fake->rows[k].t_ms == want[i].t_ms && fake->rows[k].bits == want[i].bits;
                    assert_int_equal(found, only >= 0 ? 1 : i + 1);
                }
                buf_close(&labels);
                buf_close(&part);
                buf_close(&series);
                buf_close(&m);
            }
    ingest_close(ingest);
}

/* More bytes of new labels than a record may have: more records, each with the labels of its rows. */
static void many_new_labels(void **state)
{
    static char text[2100];
    struct ingest_config config = ingest_config_default();
    config.partition_count = 1;
    fake = fake_log_open(pool);
    assert_ok(ingest_open(&config, io, fake, pool, &ingest));
    struct buf m = buf_open(pool, 32u << 20);
    for (int round = 0; round < 2; round++) {
        buf_clear(&m);
        for (int i = 0; i < 10000; i++) {
            snprintf(text, sizeof text, "__name__=m i=%d long=%0*d", i, 2000, i);
            pb_series(&m, text, round, (uint64_t)i);
        }
        struct ingest_result result = send(buf_slice(&m), 1);
        assert_int_equal(result.status, 204);
        assert_int_equal(result.samples, 10000);
        assert_int_equal(fake->announce_count, 10000);
        assert_in_range(fake->record_count, 4 + round, 5 + round);
        assert_int_equal(fake->unbound, 0);
    }
    for (int i = 0; i < 20000; i++)
        assert_int_equal(fake->rows[i].bits, i % 10000);
    ingest_close(ingest);
}

/* A series of version 2 whose labels lie behind very many metadata fields: each field is looked at a few times,
 * not as often as there are others, or this takes hours. */
static void labels_behind_metadata(void **state)
{
    open_ingest();
    struct buf m = buf_open(pool, 8u << 20), series = buf_open(pool, 8u << 20), part = buf_open(pool, 100);
    for (int i = 0; i < 2000000; i++)
        pb_bytes(&series, 5, slice_of("", 0));
    pb_varint(&part, 1, METRIC_COUNTER);
    pb_varint(&part, 3, pb_symbol(&symbols, slice_str("help")));
    pb_message(&series, 5, &part);
    pb_sample(&series, 1, 1, 0);
    pb_refs(&series, &symbols, "__name__=up");
    pb_message(&m, 5, &series);
    pb_symbols_put(&m, &symbols);
    struct ingest_result result = send(buf_slice(&m), 2);
    assert_int_equal(result.status, 204);
    assert_int_equal(result.samples, 1);
    assert_int_equal(result.metadata, 1);
    assert_true(slice_equal_str(fake->metadata[0].family, "up"));
    ingest_close(ingest);
}

/* One series with so many exemplars or metadata, or so many series, that refer to a long string. */
static void put_long_strings(struct buf *m, unsigned field, int count)
{
    static uint8_t text[60000];
    memset(text, 'x', sizeof text);
    struct buf series = buf_open(pool, 1u << 20), part = buf_open(pool, 100), refs = buf_open(pool, 100);
    uint64_t value = pb_symbol(&symbols, slice_of(text, sizeof text));
    buf_put_varint(&refs, pb_symbol(&symbols, slice_str("a")));
    buf_put_varint(&refs, value);
    for (int i = 0; i < count; i++) {
        if (field == 1) {
            pb_bytes(&series, 1, buf_slice(&refs));
            pb_sample(&series, 1, 1, 0);
            pb_message(m, 5, &series);
            continue;
        }
        if (field == 4)
            pb_bytes(&part, 1, buf_slice(&refs));
        else
            pb_varint(&part, 3, value);
        pb_message(&series, field, &part);
    }
    pb_refs(&series, &symbols, "__name__=up");
    pb_sample(&series, 1, 1, 0);
    pb_message(m, 5, &series);
    pb_symbols_put(m, &symbols);
}

/* Short references to long strings: what they stand for is bounded. */
static void long_strings_often(void **state)
{
    static const unsigned fields[] = { 1, 4, 5 }; /* of a series: labels, exemplars, metadata */
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        open_ingest();
        struct buf m = buf_open(pool, 8u << 20);
        put_long_strings(&m, fields[i], 100);
        struct ingest_result result = send(buf_slice(&m), 2);
        assert_int_equal(result.status, 400); /* each is too long, the rest is stored */
        assert_int_equal(result.samples, 1);
        buf_clear(&m);
        put_long_strings(&m, fields[i], 20000);
        result = send(buf_slice(&m), 2);
        assert_int_equal(result.status, 413);
        assert_non_null(strstr(result.text, "labels and metadata take more than 512 MB"));
        assert_int_equal(fake->row_count, 1);
        ingest_close(ingest);
    }
}

static void many_threads_one(void *context)
{
    struct test_random r = { .state = (uint64_t)(uintptr_t)context };
    struct pool *own = pool_open(NULL, "thread", POOL_BYTES_UNLIMITED);
    struct buf m = buf_open(own, 1u << 20), out = buf_open(own, 1u << 20);
    for (int round = 0; round < 200; round++) {
        buf_clear(&m);
        buf_clear(&out);
        for (int i = 0; i < 50; i++) {
            char text[60];
            snprintf(text, sizeof text, "__name__=m z=%llu", (unsigned long long)test_random_below(&r, 5000));
            pb_series(&m, text, i, 1);
        }
        struct ingest_result result;
        ERR_IGNORE(snappy_block_encode(buf_slice(&m), &out)); /* it has room */
        ingest_remote_write(ingest, slice_str("a"), slice_str(V1), slice_str("snappy"), buf_slice(&out),
                            &result);
        if (result.status != 204 || result.samples != 50)
            abort();
    }
    pool_close(own);
}

/* Four threads register and find the same series while the table grows and housekeeping goes on. */
static void many_threads(void **state)
{
    open_ingest();
    fake->discard = true;
    struct io_thread *threads[4];
    for (uintptr_t i = 0; i < 4; i++)
        assert_ok(io_thread_start(io, "test", many_threads_one, (void *)(i + 1), &threads[i]));
    for (int i = 0; i < 20; i++) {
        io_sleep_ns(io, 2000000);
        ingest_step(ingest);
    }
    for (int i = 0; i < 4; i++)
        io_thread_join(threads[i]);
    struct ingest_usage usage = ingest_usage(ingest);
    assert_in_range(usage.series, 4000, 5000);
    assert_int_equal(usage.series, ingest_tenant_series(ingest, slice_str("a")));
    ingest_close(ingest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orders_and_versions),    cmocka_unit_test(broken_messages),
        cmocka_unit_test(forms_of_samples),       cmocka_unit_test(many_new_labels),
        cmocka_unit_test(labels_behind_metadata), cmocka_unit_test(long_strings_often),
        cmocka_unit_test(many_threads),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
