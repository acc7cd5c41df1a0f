/* Goal: histograms are checked as Prometheus checks them, come back from their bytes bit by bit, and no broken
 * bytes get past the bounds. Method: tables, random histograms, truncation, flips. */
#include "base/test.h"

#include "base/bytes.h"
#include "model/histogram.h"

#include <math.h>

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

static struct histogram_span spans_two[] = { { 0, 2 }, { 1, 2 } };
static int64_t deltas_four[] = { 1, 1, -1, 0 }; /* 1 2 1 1 */
static double counts_four[] = { 1, 2, 1, 1.5 };
static struct histogram_span span_one[] = { { 1, 1 } };
static int64_t delta_one[] = { 2 };

static struct histogram integer_one(void)
{
    return (struct histogram){ .hint = HINT_NOT_RESET,
                               .schema = 1,
                               .zero_threshold = 0.001,
                               .sum = 18.4,
                               .count_int = 9,
                               .zero_count_int = 2,
                               .positive_spans = spans_two,
                               .positive_span_count = 2,
                               .positive_deltas = deltas_four,
                               .positive_bucket_count = 4,
                               .negative_spans = span_one,
                               .negative_span_count = 1,
                               .negative_deltas = delta_one,
                               .negative_bucket_count = 1 };
}

static struct histogram custom_one(void)
{
    static double bounds[] = { 0.1, 1, 10 };
    return (struct histogram){ .is_float = true,
                               .schema = HISTOGRAM_SCHEMA_CUSTOM,
                               .sum = 3,
                               .count_float = 5.5,
                               .positive_spans = spans_two,
                               .positive_span_count = 1,
                               .positive_counts = counts_four,
                               .positive_bucket_count = 2,
                               .custom_values = bounds,
                               .custom_value_count = 3 };
}

static void refused(struct histogram h, const char *reason)
{
    struct err_at at;
    assert_err(ERR_INPUT, histogram_check(&h, &at));
    if (strstr(at.text, reason) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", at.text, reason);
}

static void checks(void **state)
{
    struct histogram h = integer_one();
    assert_ok(histogram_check(&h, NULL));
    h.schema = 9;
    refused(h, "schema");
    h = integer_one();
    h.hint = 4;
    refused(h, "hint");
    h = integer_one();
    h.count_int = 8;
    refused(h, "count is 8");
    h = integer_one();
    h.count_int = 8;
    h.sum = NAN;
    refused(h, "count is 8");
    h = integer_one();
    h.count_int = 10;
    h.sum = NAN;
    assert_ok(histogram_check(&h, NULL));
    h = integer_one();
    h.positive_bucket_count = 3;
    refused(h, "spans need 4");
    h = integer_one();
    h.positive_bucket_count = HISTOGRAM_BUCKET_COUNT_MAX + 1;
    refused(h, "more than");
    int64_t falling[] = { 1, -2, 0, 0 };
    h = integer_one();
    h.positive_deltas = falling;
    refused(h, "negative count");
    int64_t overflowing[] = { INT64_MAX, 1, 0, 0 };
    h = integer_one();
    h.positive_deltas = overflowing;
    refused(h, "negative count");
    int64_t too_many[] = { INT64_MAX, 0, 0, 0 };
    h = integer_one();
    h.positive_deltas = too_many;
    refused(h, "overflow");
    struct histogram_span backward[] = { { 0, 2 }, { -1, 2 } };
    h = integer_one();
    h.positive_spans = backward;
    refused(h, "negative offset");
    struct histogram_span far_off[] = { { INT32_MAX, 2 }, { 0, 2 } };
    h = integer_one();
    h.positive_spans = far_off;
    refused(h, "out of range");
    h = integer_one();
    h.custom_value_count = 1;
    h.custom_values = counts_four;
    refused(h, "custom bounds with");

    static double from_minus_infinity[] = { -INFINITY, 1, 2 };
    h = custom_one();
    h.custom_values = from_minus_infinity;
    refused(h, "do not ascend");

    h = custom_one();
    assert_ok(histogram_check(&h, NULL));
    double falling_bounds[] = { 1, 1 };
    h.custom_values = falling_bounds;
    h.custom_value_count = 2;
    refused(h, "ascend");
    double nan_bounds[] = { NAN };
    h = custom_one();
    h.custom_values = nan_bounds;
    h.custom_value_count = 1;
    refused(h, "ascend");
    double infinite[] = { 1, INFINITY };
    h = custom_one();
    h.custom_values = infinite;
    h.custom_value_count = 2;
    refused(h, "+Inf");
    h = custom_one();
    h.zero_count_float = 1;
    refused(h, "zero count");
    h = custom_one();
    h.zero_threshold = 1;
    refused(h, "zero threshold");
    h = custom_one();
    h.negative_span_count = 1;
    h.negative_spans = span_one;
    h.negative_bucket_count = 1;
    refused(h, "negative buckets");
    h = custom_one();
    h.custom_value_count = 0;
    refused(h, "more custom buckets");
    h = custom_one();
    h.custom_value_count = HISTOGRAM_BUCKET_COUNT_MAX + 1;
    refused(h, "custom bounds");
    struct histogram_span early[] = { { -1, 2 } };
    h = custom_one();
    h.positive_spans = early;
    refused(h, "before the first");
    double minus[] = { 1, -1 };
    h = custom_one();
    h.positive_counts = minus;
    refused(h, "negative count");
    h = custom_one();
    h.count_float = -1;
    refused(h, "negative count");
    struct histogram stale = { .sum = bits_double(UINT64_C(0x7ff0000000000002)) };
    assert_ok(histogram_check(&stale, NULL));
}

static struct slice encode(const struct histogram *h)
{
    struct buf out = buf_open(pool, HISTOGRAM_BYTES_MAX * 2);
    histogram_encode(h, &out);
    assert_ok(buf_err(&out));
    return buf_slice(&out);
}

static struct histogram some_histogram(struct test_random *r)
{
    static struct histogram_span spans[2][20];
    static int64_t deltas[2][100];
    static double counts[2][100], bounds[100];
    struct histogram h = { .is_float = test_random_below(r, 2),
                           .hint = test_random_below(r, 4),
                           .schema = (int32_t)test_random_below(r, 14) - 4,
                           .sum = bits_double(test_random_u64(r)),
                           .zero_threshold =
                               test_random_below(r, 2) == 0 ? 0x1p-128 : bits_double(test_random_u64(r)) };
    if (h.schema == 9) {
        h.schema = HISTOGRAM_SCHEMA_CUSTOM;
        h.custom_values = bounds;
        h.custom_value_count = test_random_below(r, 100);
        for (size_t i = 0; i < h.custom_value_count; i++)
            bounds[i] = bits_double(test_random_u64(r));
    }
    if (h.is_float) {
        h.count_float = bits_double(test_random_u64(r));
        h.zero_count_float = bits_double(test_random_u64(r));
    } else {
        h.count_int = test_random_u64(r) >> test_random_below(r, 64);
        h.zero_count_int = test_random_u64(r) >> test_random_below(r, 64);
    }
    size_t span_counts[2], bucket_counts[2] = { 0, 0 };
    for (int side = 0; side < 2; side++) {
        span_counts[side] = test_random_below(r, 20);
        for (size_t i = 0; i < span_counts[side]; i++) {
            spans[side][i].offset = (int32_t)test_random_u64(r);
            spans[side][i].length = (uint32_t)test_random_below(r, 6);
            bucket_counts[side] += spans[side][i].length;
        }
        for (size_t i = 0; i < bucket_counts[side]; i++) {
            deltas[side][i] = (int64_t)test_random_u64(r) >> test_random_below(r, 64);
            counts[side][i] = bits_double(test_random_u64(r));
        }
    }
    h.positive_spans = spans[0];
    h.positive_span_count = span_counts[0];
    h.positive_bucket_count = bucket_counts[0];
    h.negative_spans = spans[1];
    h.negative_span_count = span_counts[1];
    h.negative_bucket_count = bucket_counts[1];
    h.positive_deltas = deltas[0];
    h.positive_counts = counts[0];
    h.negative_deltas = deltas[1];
    h.negative_counts = counts[1];
    return h;
}

static void round_trips(void **state)
{
    struct test_random r = test_random_begin("round_trips");
    for (int round = 0; round < 3000; round++) {
        pool_reset(pool);
        struct histogram h = some_histogram(&r), decoded;
        struct slice bytes = encode(&h);
        assert_ok(histogram_decode(bytes, pool, &decoded));
        assert_true(decoded.is_float == h.is_float && decoded.hint == h.hint && decoded.schema == h.schema);
        assert_true(double_bits(decoded.sum) == double_bits(h.sum));
        assert_true(double_bits(decoded.zero_threshold) == double_bits(h.zero_threshold));
        assert_int_equal(decoded.positive_bucket_count, h.positive_bucket_count);
        assert_true(slice_equal(encode(&decoded), bytes));
        struct histogram_bucket *buckets;
        size_t count;
        assert_ok(histogram_buckets(&decoded, pool, &buckets, &count));
        uint8_t *broken = malloc(bytes.len);
        for (size_t cut = 0; cut < bytes.len; cut++) {
            memcpy(broken, bytes.at, cut);
            assert_err(ERR_CORRUPT, histogram_decode(slice_of(broken, cut), pool, &decoded));
        }
        memcpy(broken, bytes.at, bytes.len);
        for (int i = 0; i < 30; i++) {
            broken[test_random_below(&r, bytes.len)] ^= (uint8_t)(1u << test_random_below(&r, 8));
            if (histogram_decode(slice_of(broken, bytes.len), pool, &decoded) == OK)
                assert_ok(histogram_buckets(&decoded, pool, &buckets, &count));
        }
        free(broken);
    }
}

static void decode_limits(void **state)
{
    struct buf out = buf_open(pool, HISTOGRAM_BYTES_MAX * 2);
    struct histogram decoded;
    static const uint8_t head[] = { 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 };
    buf_put(&out, head, sizeof head);
    buf_put_varint(&out, HISTOGRAM_SPAN_COUNT_MAX + 1);
    for (int i = 0; i <= HISTOGRAM_SPAN_COUNT_MAX; i++)
        buf_put_le16(&out, 0);
    assert_err(ERR_CORRUPT, histogram_decode(buf_slice(&out), pool, &decoded));
    out.len = sizeof head;
    buf_put_varint(&out, 1);
    buf_put_zigzag(&out, 0);
    buf_put_varint(&out, HISTOGRAM_BUCKET_COUNT_MAX + 1);
    assert_err(ERR_CORRUPT, histogram_decode(buf_slice(&out), pool, &decoded));
    out.at[0] = 2;
    assert_err(ERR_CORRUPT, histogram_decode(buf_slice(&out), pool, &decoded));
    struct histogram h = integer_one();
    struct pool *tight = pool_open(pool, "tight", 500);
    assert_err(ERR_LIMIT, histogram_decode(encode(&h), tight, &decoded));
    assert_err(ERR_LIMIT, histogram_buckets(&h, tight, &(struct histogram_bucket *){ NULL }, &(size_t){ 0 }));
    pool_close(tight);
}

static void bounds(void **state)
{
    struct histogram h = { .schema = 0 };
    static const struct {
        int32_t schema, index;
        double bound;
    } rows[] = {
        { 0, 0, 1 },
        { 0, 1, 2 },
        { 0, -1, 0.5 },
        { 0, 512, 0x1p512 },
        { 0, 1023, 0x1p1023 },
        { 0, 1024, 0x1.fffffffffffffp1023 },
        { 0, 1025, INFINITY },
        { 0, -1074, 0x1p-1074 },
        { -1, 0, 1 },
        { -1, 1, 4 },
        { -1, 512, 0x1.fffffffffffffp1023 },
        { -4, -1, 0x1p-16 },
        { -4, 64, 0x1.fffffffffffffp1023 },
        { -4, 65, INFINITY },
        { 1, 1, 1.414213562373095 },
        { 1, 2, 2 },
        { 2, -1, 0.8408964152537144 },
        { 2, 1, 1.189207115002721 },
        { 3, -8, 0.5 },
        { 5, 1, 1.0218971486541166 },
        { 8, 1, 1.0027112750502026 },
        { 8, 19, 2 * 0.526395386502313 },
        { 8, 53, 2 * 0.5771552102951081 },
        { 8, 255, 2 * 0.9972960560854698 },
        { 7, 127, 2 * 0.9945994234836328 },
        { 6, 63, 2 * 0.9892280131939752 },
        { 8, -2, 0.9945994234836328 },
        { 8, 256, 2 },
        { 5, 32768, 0x1.fffffffffffffp1023 },
        { 5, 32769, INFINITY },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        h.schema = rows[i].schema;
        double got = histogram_bound(&h, rows[i].index);
        if (got != rows[i].bound) /* equal to the bit */
            fail_msg("schema %d index %d: %.17g", rows[i].schema, rows[i].index, got);
    }
    h = custom_one();
    assert_true(histogram_bound(&h, -1) == -INFINITY && histogram_bound(&h, 0) == 0.1);
    assert_true(histogram_bound(&h, 2) == 10 && histogram_bound(&h, 3) == INFINITY);
}

static void buckets_as_shown(void **state)
{
    struct histogram h = integer_one();
    h.zero_threshold = 1.2; /* cuts the first positive bucket (0.7, 1] … */
    struct histogram_bucket *b;
    size_t count;
    assert_ok(histogram_buckets(&h, pool, &b, &count));
    assert_int_equal(count, 6);
    assert_true(b[0].boundaries == 1 && b[0].lower == -histogram_bound(&h, 1) && b[0].upper == -1.2);
    assert_true(b[0].count == 2);
    assert_true(b[1].boundaries == 3 && b[1].lower == -1.2 && b[1].upper == 1.2 && b[1].count == 2);
    assert_true(b[2].boundaries == 0 && b[2].count == 1 && b[3].lower == 1.2 && b[3].count == 2);
    assert_true(b[4].upper == histogram_bound(&h, 3) && b[5].upper == 4);
    h = custom_one();
    assert_ok(histogram_buckets(&h, pool, &b, &count));
    assert_int_equal(count, 2);
    assert_true(b[0].boundaries == 3 && b[0].lower == -INFINITY && b[0].upper == 0.1 && b[0].count == 1);
    assert_true(b[1].boundaries == 0 && b[1].lower == 0.1 && b[1].upper == 1 && b[1].count == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checks), cmocka_unit_test(round_trips),      cmocka_unit_test(decode_limits),
        cmocka_unit_test(bounds), cmocka_unit_test(buckets_as_shown),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
