/* Float vectors: all 64 bits survive, whatever they are.
 * Method: millions of hostile values (NaN payloads, -0, infinities, denormals, random bits, integers above 2^53,
 * decimals of every scale, resets, stale markers), both efforts, both decoders; damaged encodings; sizes. */
#include "base/test.h"
#include "codec/float.h"

#include <math.h>
#include <string.h>

#define STALE UINT64_C(0x7ff0000000000002)

static uint64_t hostile(struct test_random *r)
{
    switch (test_random_below(r, 12)) {
    case 0:
        return UINT64_C(0x7ff8000000000000) | (test_random_u64(r) >> 13);
    case 1:
        return UINT64_C(1) << 63;
    case 2:
        return UINT64_C(0x7ff0000000000000) | (test_random_u64(r) & UINT64_C(1) << 63);
    case 3:
        return test_random_u64(r) >> 12; /* denormal */
    case 4:
        return test_random_u64(r);
    case 5:
        return double_bits((double)(test_random_u64(r))); /* above 2^53 */
    case 6:
        return double_bits(-(double)(test_random_u64(r) >> 2));
    case 7:
        return double_bits(9007199254740992.0 + (double)test_random_below(r, 100) - 50);
    case 8:
        return STALE;
    case 9:
        return double_bits((double)(int64_t)test_random_u64(r) / 1e17);
    case 10:
        return UINT64_C(0xfff0000000000001);
    default:
        return 0;
    }
}

static void draw(struct test_random *r, uint64_t *v, size_t n)
{
    static const double powers[] = { 1, 10, 100, 1e3, 1e4, 1e6, 1e9, 1e12, 1e15, 1e17 };
    unsigned shape = (unsigned)test_random_below(r, 8);
    double power = powers[test_random_below(r, 10)];
    int64_t at = (int64_t)(test_random_u64(r) >> (11 + test_random_below(r, 50)));
    uint64_t scale = UINT64_C(1) << test_random_below(r, 40);
    uint64_t rarely = 2 + test_random_below(r, 100), hole = test_random_below(r, 2) == 0 ? STALE : hostile(r);
    bool with_holes = test_random_below(r, 6) == 0;
    for (size_t i = 0; i < n; i++) {
        if (with_holes && test_random_below(r, rarely) < 2) {
            v[i] = hole;
            continue;
        }
        if (test_random_below(r, 3) != 0)
            at += (int64_t)(test_random_u64(r) % scale);
        double d = (double)at / power;
        switch (shape) {
        case 0:
            v[i] = hostile(r);
            continue;
        case 1:
            break;
        case 2:
            d = sqrt(d < 0 ? -d : d);
            break;
        case 3:
            d = (double)(int64_t)(test_random_u64(r) >> 40) / power;
            break;
        case 4:
            d = 4096.0 * (double)at;
            break;
        case 5:
            d = (double)(test_random_u64(r) % scale);
            break;
        case 6:
            v[i] = i == 0 ? hostile(r) : v[0];
            continue;
        default:
            d = -d;
            break;
        }
        v[i] = double_bits(d);
        if (test_random_below(r, rarely) == 0)
            v[i] = test_random_below(r, 2) == 0 ? STALE : hostile(r);
        if (test_random_below(r, 200) == 0)
            at = 0;
    }
}

static void test_round_trip(void **state)
{
    struct test_random r = test_random_begin("float round trip");
    for (int round = 0; round < 24000; round++) {
        size_t n = test_random_below(&r, 4) == 0 ? 1 + test_random_below(&r, 256) : 256;
        uint64_t in[256], fast[256], slow[256];
        uint8_t bytes[FLOAT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES], again[sizeof bytes];
        draw(&r, in, n);
        enum codec_effort effort = round % 2 == 0 ? CODEC_FAST : CODEC_FULL;
        size_t len = float_encode(in, n, effort, bytes);
        assert_in_range(len, 1, FLOAT_VECTOR_BYTES_MAX);
        assert_int_equal(float_encode(in, n, effort, again), len);
        assert_memory_equal(bytes, again, len);
        size_t used = 0, used_slow = 0;
        assert_ok(float_decode(slice_of(bytes, len), n, fast, &used));
        assert_ok(float_decode_portable(slice_of(bytes, len), n, slow, &used_slow));
        assert_int_equal(used, len);
        assert_int_equal(used_slow, len);
        assert_memory_equal(in, fast, n * 8);
        assert_memory_equal(in, slow, n * 8);
        assert_err(ERR_CORRUPT, float_decode(slice_of(bytes, len - 1), n, fast, &used));
        assert_err(ERR_CORRUPT, float_decode(slice_of(bytes, 0), n, fast, &used));
    }
}

static void test_damage(void **state)
{
    struct test_random r = test_random_begin("float damage");
    for (int round = 0; round < 40000; round++) {
        size_t n = 1 + test_random_below(&r, 256);
        uint64_t in[256], fast[256], slow[256];
        uint8_t bytes[FLOAT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES];
        draw(&r, in, n);
        size_t len = float_encode(in, n, CODEC_FAST, bytes);
        for (unsigned hits = 1 + (unsigned)test_random_below(&r, 3); hits > 0; hits--)
            bytes[test_random_below(&r, test_random_below(&r, 2) == 0 ? len
                                        : len < 16                    ? len
                                                                      : 16)] = (uint8_t)test_random_u64(&r);
        uint8_t *exact = test_malloc(len + CODEC_PAD_BYTES);
        memcpy(exact, bytes, len);
        memset(exact + len, 0xa5, CODEC_PAD_BYTES);
        size_t used = 0, used_slow = 0;
        err a = float_decode(slice_of(exact, len), n, fast, &used);
        err b = float_decode_portable(slice_of(exact, len), n, slow, &used_slow);
        assert_int_equal(a, b);
        assert_int_equal(used, used_slow);
        if (a == OK)
            assert_memory_equal(fast, slow, n * 8);
        test_free(exact);
    }
}

static size_t size_of(double (*value)(size_t i), enum codec_effort effort)
{
    uint64_t v[256];
    uint8_t bytes[FLOAT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES];
    for (size_t i = 0; i < 256; i++)
        v[i] = double_bits(value(i));
    return float_encode(v, 256, effort, bytes);
}

static double constant(size_t i) { return 1234.5; }
static double steady(size_t i) { return 1e9 + 100.0 * (double)i; }
static double seconds(size_t i) { return ((double)(1000000 + i * 15 + i * 7919 % 8)) / 100; }
static double pages(size_t i) { return 4096.0 * (double)(1000000 + i * 7919 % 16); }
static double reset(size_t i)
{
    return i < 100 ? 5e6 + (double)(i * 7919 % 1000) : (double)(i * 7919 % 1000);
}
static double often_nan(size_t i) { return i * 7919 % 10 < 3 ? (double)NAN : (double)(i * 7919 % 64); }
static double often_stale(size_t i)
{
    return i * 7919 % 10 < 5 ? bits_double(STALE) : (double)(i * 7919 % 64);
}
static double seldom_whole(size_t i)
{
    return i % 50 == 7 ? 0.1 : i % 90 == 3 ? -(double)INFINITY : (double)INFINITY;
}
static double stale(size_t i) { return i == 77 ? bits_double(STALE) : 42.0; }

static void test_sizes(void **state)
{
    for (int effort = CODEC_FAST; effort <= CODEC_FULL; effort++) {
        assert_in_range(size_of(constant, effort), 1, 5);
        assert_in_range(size_of(steady, effort), 1, 16);
        assert_in_range(size_of(seconds, effort), 1, 150);
        assert_in_range(size_of(pages, effort), 1, 180);
        assert_in_range(size_of(reset, effort), 1, 560);
        assert_in_range(size_of(stale, effort), 1, 7);
        assert_in_range(size_of(often_nan, effort), 1, 9 + 32 + 180 + 10);
        assert_in_range(size_of(often_stale, effort), 1, 9 + 32 + 128 + 10);
        assert_in_range(size_of(seldom_whole, effort), 1, 9 + 32 + 60);
    }
}

/* Of eight values two are NaN. */
static void test_holes_refused(void **state)
{
    uint8_t bytes[FLOAT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES] = { 128, 1, 0, 0, 0, 0, 0, 0xf8, 0x7f, 0x11 };
    uint64_t seven[7] = { 0 }, out[8];
    size_t used;
    for (size_t i = 0; i < 7; i++)
        seven[i] = double_bits((double)(i * 3 % 5));
    size_t len = 10 + float_encode(seven, 6, CODEC_FAST, bytes + 10);
    assert_ok(float_decode(slice_of(bytes, len), 8, out, &used));
    assert_int_equal(used, len);
    assert_true(isnan(bits_double(out[0])) && isnan(bits_double(out[4])) && out[1] == seven[0] &&
                out[7] == seven[5]);
    assert_err(ERR_CORRUPT, float_decode(slice_of(bytes, len), 4, out, &used)); /* a bit behind the end */
    for (size_t cut = 0; cut < 10; cut++)
        assert_err(ERR_CORRUPT, float_decode(slice_of(bytes, cut), 8, out, &used));
    bytes[9] = 0; /* none */
    assert_err(ERR_CORRUPT, float_decode(slice_of(bytes, len), 8, out, &used));
    bytes[9] = 0xff; /* nothing else */
    assert_err(ERR_CORRUPT, float_decode(slice_of(bytes, len), 8, out, &used));
    bytes[9] = 0x11;
    memmove(bytes + 20, bytes + 10, len - 10); /* holes within holes */
    memcpy(bytes + 10, bytes, 10);
    bytes[19] = 1;
    assert_err(ERR_CORRUPT, float_decode(slice_of(bytes, len + 10), 8, out, &used));
}

static void test_integers(void **state)
{
    uint64_t v[3] = { double_bits(0), double_bits(9007199254740991.0), double_bits(17) };
    int64_t out[3];
    assert_true(float_integers(v, 3, out));
    assert_int_equal(out[1], 9007199254740991);
    v[2] = double_bits(-0.0);
    assert_false(float_integers(v, 3, out));
    v[2] = double_bits(0.5);
    assert_false(float_integers(v, 3, out));
    v[2] = double_bits(-1);
    assert_false(float_integers(v, 3, out));
    v[2] = STALE;
    assert_false(float_integers(v, 3, out));
    v[2] = double_bits(9007199254740992.0);
    assert_false(float_integers(v, 3, out));
}

static void test_column(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct buf b = buf_open(pool, 1 << 20);
    uint64_t in[777], out[777];
    for (size_t i = 0; i < 777; i++)
        in[i] = double_bits(seconds(i));
    assert_ok(float_column_encode(in, 777, CODEC_FULL, &b));
    size_t len = b.len;
    assert_non_null(buf_room(&b, CODEC_PAD_BYTES));
    struct reader r = reader_of(slice_of(b.at, len));
    assert_ok(float_column_decode(&r, 777, out));
    assert_int_equal(read_left(&r), 0);
    assert_memory_equal(in, out, sizeof in);
    r = reader_of(slice_of(b.at, len - 1));
    assert_err(ERR_CORRUPT, float_column_decode(&r, 777, out));
    struct buf small = buf_open(pool, 10);
    assert_err(ERR_LIMIT, float_column_encode(in, 777, CODEC_FAST, &small));
    buf_close(&small);
    buf_close(&b);
    pool_close(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_damage),   cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_holes_refused), cmocka_unit_test(test_integers), cmocka_unit_test(test_column),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
