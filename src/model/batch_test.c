/* Goal: a record gives back every bit that went in, and no broken record is decoded past its bounds or into
 * values that the shard may not see. Method: random batches of every shape, truncation at every byte, flips. */
#include "base/test.h"

#include "base/bytes.h"
#include "base/time.h"
#include "model/batch.h"
#include "model/histogram.h"

static struct pool *pool;

static int setup(void **state)
{
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    return 0;
}
static int teardown(void **state)
{
    pool_close(pool);
    return 0;
}

static void *allot(size_t bytes)
{
    void *at;
    assert_ok(pool_zalloc(pool, bytes + 1, &at));
    return at;
}

static struct slice some_labels(struct test_random *r)
{
    char a[80], b[80];
    snprintf(a, sizeof a, "metric_%llu_total", (unsigned long long)test_random_below(r, 50));
    snprintf(b, sizeof b, "instance-%llu", (unsigned long long)test_random_u64(r));
    struct label labels[] = { { slice_str("__name__"), slice_str(a) },
                              { slice_str("instance"), slice_str(b) } };
    struct buf out = buf_open(pool, 4096);
    assert_ok(labels_encode(labels, 2, &out, NULL));
    return buf_slice(&out);
}

static uint64_t some_value(struct test_random *r)
{
    switch (test_random_below(r, 8)) {
    case 0:
        return test_random_u64(r);
    case 1:
        return double_bits((double)test_random_below(r, 1000) / 8);
    case 2:
        return SIZE_MAX << test_random_below(r, 64);
    case 3:
        return UINT64_C(0x7ff0000000000002);
    case 4:
        return double_bits(-0.0);
    case 5:
        return 0;
    default:
        return double_bits((double)((int64_t)test_random_u64(r) >> test_random_below(r, 64)));
    }
}

static int64_t some_time(struct test_random *r)
{
    return (int64_t)(test_random_u64(r) % (2 * (uint64_t)TIME_MS_MAX + 1)) - TIME_MS_MAX;
}

static void fill_rows(struct test_random *r, struct batch *b)
{
    size_t n = b->row_count = test_random_below(r, 3) == 0 ? 0 : test_random_below(r, 600);
    b->numbers = allot(n * 4);
    b->t_ms = allot(n * 8);
    b->value_bits = allot(n * 8);
    b->starts = allot(n * sizeof b->starts[0]);
    uint32_t number = 0;
    int64_t t_ms = b->append_ms;
    uint64_t wild = test_random_below(r, 3) == 0 ? 2 : 40;
    for (size_t i = 0; i < n; i++) {
        number = test_random_below(r, wild) == 0 ? (uint32_t)test_random_u64(r) : number + 1;
        t_ms = test_random_below(r, wild) == 0 ? some_time(r) : t_ms;
        b->numbers[i] = number;
        b->t_ms[i] = t_ms;
        b->value_bits[i] = some_value(r);
        if (test_random_below(r, wild) == 0)
            b->starts[b->start_count++] = (struct batch_start){ (uint32_t)i, some_time(r) };
    }
}

static struct batch some_batch(struct test_random *r)
{
    struct batch b = { .signal = SIGNAL_METRIC,
                       .tenant = slice_str("default"),
                       .sequence = test_random_u64(r),
                       .append_ms = INT64_C(1750000000000) };
    for (int i = 0; i < INCARNATION_BYTES; i++)
        b.incarnation[i] = (uint8_t)test_random_u64(r);
    fill_rows(r, &b);
    b.announce_count = test_random_below(r, 2) == 0 ? 0 : test_random_below(r, 30);
    b.announces = allot(b.announce_count * sizeof b.announces[0]);
    for (size_t i = 0; i < b.announce_count; i++)
        b.announces[i] =
            (struct batch_announce){ i == 7 ? UINT32_MAX : (uint32_t)(i * (i % 3)), some_labels(r) };
    b.histogram_count = test_random_below(r, 5);
    b.histograms = allot(b.histogram_count * sizeof b.histograms[0]);
    for (size_t i = 0; i < b.histogram_count; i++)
        b.histograms[i] = (struct batch_histogram){ (uint32_t)test_random_u64(r), some_time(r), some_time(r),
                                                    slice_of("histogram", 1 + test_random_below(r, 9)) };
    b.exemplar_count = test_random_below(r, 5);
    b.exemplars = allot(b.exemplar_count * sizeof b.exemplars[0]);
    for (size_t i = 0; i < b.exemplar_count; i++)
        b.exemplars[i] =
            (struct batch_exemplar){ (uint32_t)test_random_u64(r), some_time(r), (double)i, some_labels(r) };
    b.metadata_count = test_random_below(r, 4);
    b.metadata = allot(b.metadata_count * sizeof b.metadata[0]);
    for (size_t i = 0; i < b.metadata_count; i++)
        b.metadata[i] =
            (struct batch_metadata){ slice_str("up"), METRIC_GAUGE, slice_str("help"), slice_str("") };
    return b;
}

static void compare(const struct batch *a, const struct batch *b)
{
    assert_int_equal(a->signal, b->signal);
    assert_true(slice_equal(a->tenant, b->tenant));
    assert_memory_equal(a->incarnation, b->incarnation, INCARNATION_BYTES);
    assert_true(a->sequence == b->sequence && a->append_ms == b->append_ms);
    assert_int_equal(a->announce_count, b->announce_count);
    for (size_t i = 0; i < a->announce_count; i++) {
        assert_int_equal(a->announces[i].number, b->announces[i].number);
        assert_true(slice_equal(a->announces[i].labels, b->announces[i].labels));
    }
    assert_int_equal(a->row_count, b->row_count);
    for (size_t i = 0; i < a->row_count; i++)
        assert_true(a->numbers[i] == b->numbers[i] && a->t_ms[i] == b->t_ms[i] &&
                    a->value_bits[i] == b->value_bits[i]);
    assert_int_equal(a->start_count, b->start_count);
    for (size_t i = 0; i < a->start_count; i++)
        assert_true(a->starts[i].row == b->starts[i].row && a->starts[i].start_ms == b->starts[i].start_ms);
    assert_int_equal(a->histogram_count, b->histogram_count);
    for (size_t i = 0; i < a->histogram_count; i++) {
        const struct batch_histogram *x = &a->histograms[i], *y = &b->histograms[i];
        assert_true(x->number == y->number && x->t_ms == y->t_ms && x->start_ms == y->start_ms);
        assert_true(slice_equal(x->bytes, y->bytes));
    }
    assert_int_equal(a->exemplar_count, b->exemplar_count);
    for (size_t i = 0; i < a->exemplar_count; i++) {
        const struct batch_exemplar *x = &a->exemplars[i], *y = &b->exemplars[i];
        assert_true(x->number == y->number && x->t_ms == y->t_ms && x->value == y->value);
        assert_true(slice_equal(x->labels, y->labels));
    }
    assert_int_equal(a->metadata_count, b->metadata_count);
    for (size_t i = 0; i < a->metadata_count; i++) {
        const struct batch_metadata *x = &a->metadata[i], *y = &b->metadata[i];
        assert_true(slice_equal(x->family, y->family) && x->type == y->type);
        assert_true(slice_equal(x->help, y->help) && slice_equal(x->unit, y->unit));
    }
}

static void round_trips(void **state)
{
    struct test_random r = test_random_begin("round_trips");
    for (int round = 0; round < 500; round++) {
        pool_reset(pool);
        struct batch b = some_batch(&r), decoded;
        struct buf out = buf_open(pool, 32u << 20);
        assert_ok(batch_encode(&b, &out));
        assert_int_equal(batch_signal(buf_slice(&out)), SIGNAL_METRIC);
        assert_ok(batch_decode(buf_slice(&out), pool, &decoded));
        compare(&b, &decoded);
        buf_close(&out);
    }
}

/* What a record announces, without the rest, is a record of its own. */
static void announces_alone(void **state)
{
    struct test_random r = test_random_begin("announces_alone");
    size_t packed = 0;
    for (int round = 0; round < 200; round++) {
        pool_reset(pool);
        struct batch b = some_batch(&r), decoded;
        struct buf out = buf_open(pool, 32u << 20);
        assert_ok(batch_encode(&b, &out));
        size_t bytes = batch_put_announces(buf_slice(&out), NULL);
        assert_true(bytes <= out.len && (bytes == 0) == (b.announce_count == 0));
        if (bytes > 0) {
            uint8_t *exact = allot(bytes);
            assert_int_equal(batch_put_announces(buf_slice(&out), exact), bytes);
            batch_set_sequence(exact, b.sequence + 1);
            batch_set_append_ms(exact, b.append_ms + 5);
            struct batch alone = { .signal = b.signal,
                                   .tenant = b.tenant,
                                   .sequence = b.sequence + 1,
                                   .append_ms = b.append_ms + 5,
                                   .announces = b.announces,
                                   .announce_count = b.announce_count };
            memcpy(alone.incarnation, b.incarnation, INCARNATION_BYTES);
            assert_ok(batch_decode(slice_of(exact, bytes), pool, &decoded));
            compare(&alone, &decoded);
            packed += b.announce_count > 20;
        }
        buf_close(&out);
    }
    assert_true(packed > 0);
}

/* What apply relies on, of anything that decodes. */
static void check_decoded(const struct batch *b, size_t record_bytes)
{
    assert_true(b->row_count <= 2 * record_bytes);
    for (size_t i = 0; i < b->row_count; i++)
        assert_true(b->t_ms[i] >= TIME_MS_MIN && b->t_ms[i] <= TIME_MS_MAX);
    for (size_t i = 0; i < b->announce_count; i++)
        assert_ok(labels_check(b->announces[i].labels, NULL));
    for (size_t i = 0; i < b->start_count; i++)
        assert_true(b->starts[i].row < b->row_count && (i == 0 || b->starts[i].row > b->starts[i - 1].row));
}

static void broken_records(void **state)
{
    struct test_random r = test_random_begin("broken_records");
    int decoded_count = 0;
    for (int round = 0; round < 60; round++) {
        pool_reset(pool);
        struct batch b = some_batch(&r), decoded;
        struct buf out = buf_open(pool, 32u << 20);
        assert_ok(batch_encode(&b, &out));
        struct pool *scratch = pool_open(pool, "scratch", 64u << 20);
        for (size_t cut = 0; cut<out.len; cut += out.len> 3000 ? 7 : 1) {
            uint8_t *exact = malloc(cut + 1);
            memcpy(exact, out.at, cut);
            assert_err(ERR_CORRUPT, batch_decode(slice_of(exact, cut), scratch, &decoded));
            free(exact);
            pool_reset(scratch);
        }
        for (int i = 0; i < 400; i++) {
            size_t where = test_random_below(&r, 2) == 0 ? test_random_below(&r, out.len)
                                                         : test_random_below(&r, out.len < 90 ? out.len : 90);
            uint8_t bit = (uint8_t)(1u << test_random_below(&r, 8));
            out.at[where] ^= bit;
            if (batch_decode(buf_slice(&out), scratch, &decoded) == OK) {
                decoded_count++;
                check_decoded(&decoded, out.len * 300);
            }
            out.at[where] ^= bit;
            pool_reset(scratch);
        }
        pool_close(scratch);
        buf_close(&out);
    }
    assert_true(decoded_count > 0);
}

static void refusals(void **state)
{
    struct test_random r = test_random_begin("refusals");
    struct batch b = { .signal = SIGNAL_METRIC, .tenant = slice_str("t") }, decoded;
    struct buf out = buf_open(pool, 64u << 20);
    assert_ok(batch_encode(&b, &out));
    assert_int_equal(out.len, 36 + 2 + 6);
    out.at[1] = 2;
    assert_err(ERR_VERSION, batch_decode(buf_slice(&out), pool, &decoded));
    out.at[1] = 1;
    out.at[2] = 1;
    assert_err(ERR_VERSION, batch_decode(buf_slice(&out), pool, &decoded));
    out.at[2] = 0;
    out.at[0] = SIGNAL_EVENT;
    assert_err(ERR_CORRUPT, batch_decode(buf_slice(&out), pool, &decoded));
    out.at[0] = SIGNAL_METRIC;
    buf_put_u8(&out, 0);
    assert_err(ERR_CORRUPT, batch_decode(buf_slice(&out), pool, &decoded));
    buf_clear(&out);

    /* Too large as a record, or for the buffer. */
    size_t n = (BATCH_BYTES_MAX >> 3) / 2;
    b.row_count = n > BATCH_ROWS_MAX ? BATCH_ROWS_MAX : n;
    b.numbers = allot(b.row_count * 4);
    b.t_ms = allot(b.row_count * 8);
    b.value_bits = allot(b.row_count * 8);
    for (size_t i = 0; i < b.row_count; i++) {
        b.numbers[i] = (uint32_t)test_random_u64(&r);
        b.t_ms[i] = some_time(&r);
        b.value_bits[i] = test_random_u64(&r) | 1;
    }
    assert_err(ERR_LIMIT, batch_encode(&b, &out));
    struct buf small = buf_open(pool, 100);
    assert_err(ERR_LIMIT, batch_encode(&b, &small));
    b.row_count = 1000;
    buf_clear(&out);
    assert_ok(batch_encode(&b, &out));
    struct pool *tight = pool_open(pool, "tight", 2000);
    assert_err(ERR_LIMIT, batch_decode(buf_slice(&out), tight, &decoded));
    pool_close(tight);
    buf_close(&out);
    assert_int_equal(batch_signal(slice_of("", 0)), 0);
    assert_string_equal(metric_type_text(METRIC_GAUGE_HISTOGRAM), "gaugehistogram");
    assert_string_equal(metric_type_text(METRIC_TYPE_COUNT), "unknown");
}

/* A scrape of known series: the size that the design counts on. */
static void usual_size(void **state)
{
    struct test_random r = test_random_begin("usual_size");
    struct batch b = { .signal = SIGNAL_METRIC, .tenant = slice_str("default"), .append_ms = 1750000000000 };
    b.row_count = 2000;
    b.numbers = allot(b.row_count * 4);
    b.t_ms = allot(b.row_count * 8);
    b.value_bits = allot(b.row_count * 8);
    for (size_t i = 0; i < b.row_count; i++) {
        b.numbers[i] = (uint32_t)(1000 + i + i / 300 * 5000);
        b.t_ms[i] = b.append_ms - 20 - (int64_t)(i / 300);
        b.value_bits[i] = double_bits((double)test_random_below(&r, 1 << 16));
    }
    struct buf out = buf_open(pool, 1 << 20);
    assert_ok(batch_encode(&b, &out));
    assert_in_range(out.len, 1, 2000 * 26 / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips), cmocka_unit_test(announces_alone), cmocka_unit_test(broken_records),
        cmocka_unit_test(refusals),    cmocka_unit_test(usual_size),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
