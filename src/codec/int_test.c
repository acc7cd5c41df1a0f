/* Integer vectors and columns: every value survives, both decoders agree, hostile bytes do no harm.
 * Method: shapes drawn at random (runs, steps, sparse changes, outliers on both sides, full range), and damaged
 * encodings in a buffer of exact size plus padding. */
#include "base/test.h"
#include "codec/int.h"

#include <string.h>

enum { SHAPE_COUNT = 9 };

static void draw(struct test_random *r, int64_t *v, size_t n)
{
    unsigned shape = (unsigned)test_random_below(r, SHAPE_COUNT);
    uint64_t scale = UINT64_C(1) << test_random_below(r, 63);
    uint64_t unit = test_random_below(r, 3) == 0 ? 1 + test_random_below(r, 100000) : 1;
    uint64_t at = test_random_u64(r) >> test_random_below(r, 64), step = test_random_u64(r) % scale;
    for (size_t i = 0; i < n; i++) {
        uint64_t noise = test_random_u64(r) % scale;
        switch (shape) {
        case 0:
            break;
        case 1:
            at += step;
            break;
        case 2:
            at += noise;
            break;
        case 3:
            at += test_random_below(r, 10) == 0 ? noise : 0;
            break;
        case 4:
            at = noise;
            break;
        case 5:
            at = test_random_below(r, 30) == 0 ? test_random_u64(r) : noise % 64;
            break;
        case 6:
            at = 0 - noise;
            break;
        case 7:
            step += noise;
            at += step;
            break;
        default:
            at = test_random_u64(r);
            break;
        }
        v[i] = (int64_t)(at * unit);
    }
}

static void test_round_trip(void **state)
{
    struct test_random r = test_random_begin("int round trip");
    for (int round = 0; round < 20000; round++) {
        size_t n = 1 + test_random_below(&r, test_random_below(&r, 2) == 0 ? 256 : 12);
        int64_t in[256], fast[256], slow[256];
        uint8_t bytes[INT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES], again[sizeof bytes];
        draw(&r, in, n);
        enum codec_effort effort = round % 2 == 0 ? CODEC_FAST : CODEC_FULL;
        size_t len = int_encode(in, n, effort, bytes);
        assert_int_equal(int_encode(in, n, effort, again), len);
        assert_memory_equal(bytes, again, len);
        size_t used = 0, used_slow = 0;
        assert_ok(int_decode(slice_of(bytes, len), n, fast, &used));
        assert_ok(int_decode_portable(slice_of(bytes, len), n, slow, &used_slow));
        assert_int_equal(used, len);
        assert_int_equal(used_slow, len);
        assert_memory_equal(in, fast, n * 8);
        assert_memory_equal(in, slow, n * 8);
        for (size_t cut = 0; cut < len; cut += 1 + cut / 8)
            assert_err(ERR_CORRUPT, int_decode(slice_of(bytes, cut), n, fast, &used));
    }
}

/* Damaged bytes decode to something or nothing, equally in both forms, and within bounds (sanitizers). */
static void test_damage(void **state)
{
    struct test_random r = test_random_begin("int damage");
    for (int round = 0; round < 60000; round++) {
        size_t n = 1 + test_random_below(&r, 256);
        int64_t in[256], fast[256], slow[256];
        uint8_t bytes[INT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES];
        draw(&r, in, n);
        size_t len = int_encode(in, n, CODEC_FAST, bytes);
        for (unsigned hits = 1 + (unsigned)test_random_below(&r, 3); hits > 0; hits--)
            bytes[test_random_below(&r, test_random_below(&r, 2) == 0 ? len
                                        : len < 16                    ? len
                                                                      : 16)] = (uint8_t)test_random_u64(&r);
        uint8_t *exact = test_malloc(len + CODEC_PAD_BYTES);
        memcpy(exact, bytes, len);
        memset(exact + len, 0xa5, CODEC_PAD_BYTES);
        size_t used = 0, used_slow = 0;
        err a = int_decode(slice_of(exact, len), n, fast, &used);
        err b = int_decode_portable(slice_of(exact, len), n, slow, &used_slow);
        assert_int_equal(a, b);
        assert_int_equal(used, used_slow);
        assert_true(a == OK || a == ERR_CORRUPT);
        if (a == OK)
            assert_memory_equal(fast, slow, n * 8);
        test_free(exact);
    }
}

static void test_columns(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct buf b = buf_open(pool, 1 << 20);
    int64_t in[1000], out[1000];
    uint32_t in32[1000], out32[1000];
    for (size_t i = 0; i < 1000; i++) {
        in[i] = (int64_t)(i * i) - 70000;
        in32[i] = UINT32_MAX - (uint32_t)i * 3;
    }
    assert_ok(int_column_encode(in, 1000, CODEC_FULL, &b));
    assert_ok(int_column_encode_u32(in32, 1000, CODEC_FAST, &b));
    size_t len = b.len;
    assert_non_null(buf_room(&b, CODEC_PAD_BYTES));
    struct reader r = reader_of(slice_of(b.at, len));
    assert_ok(int_column_decode(&r, 1000, out));
    assert_ok(int_column_decode_u32(&r, 1000, out32));
    assert_int_equal(read_left(&r), 0);
    assert_memory_equal(in, out, sizeof in);
    assert_memory_equal(in32, out32, sizeof in32);
    r = reader_of(slice_of(b.at, len));
    assert_err(ERR_CORRUPT, int_column_decode_u32(&r, 1000, out32)); /* negative */
    r = reader_of(slice_of(b.at, len / 4));
    assert_err(ERR_CORRUPT, int_column_decode(&r, 1000, out));
    struct buf small = buf_open(pool, 3);
    assert_err(ERR_LIMIT, int_column_encode(in, 1000, CODEC_FAST, &small));
    buf_close(&small);
    buf_close(&b);
    pool_close(pool);
}

/* A steady clock with little jitter costs little. */
static void test_sizes(void **state)
{
    int64_t t[256];
    uint8_t bytes[INT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES];
    for (size_t i = 0; i < 256; i++)
        t[i] = INT64_C(1700000000000) + (int64_t)i * 15000;
    assert_in_range(int_encode(t, 256, CODEC_FULL, bytes), 1, 14);
    t[100] += 20;
    t[200] += 7;
    assert_in_range(int_encode(t, 256, CODEC_FULL, bytes), 1, 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
