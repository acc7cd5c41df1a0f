/* Zstandard: round trips, bounds, malformed frames. Method: text and noise of several lengths, every prefix of a
 * frame, several frames in a row, outputs one byte too small. */
#include "base/test.h"
#include "codec/zstd.h"

#include <string.h>

static void test_round_trip(void **state)
{
    struct test_random r = test_random_begin("zstd");
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    static const size_t lens[] = { 0, 1, 100, 65536, 131072, 131073, 500000 };
    for (size_t k = 0; k < sizeof lens / sizeof *lens; k++) {
        size_t len = lens[k];
        struct buf in = buf_open(pool, 1 << 20), packed = buf_open(pool, 1 << 20);
        for (size_t i = 0; i < len; i++)
            buf_put_u8(&in, (uint8_t)(i % 3 == 0 ? test_random_below(&r, 4) : i % 50));
        assert_ok(zstd_compress(buf_slice(&in), 1, &packed));
        struct buf out = buf_open(pool, len);
        assert_ok(zstd_decompress(buf_slice(&packed), &out));
        assert_true(slice_equal(buf_slice(&in), buf_slice(&out)));
        uint8_t *exact = test_malloc(len + 1);
        assert_ok(zstd_decompress_exact(buf_slice(&packed), exact, len));
        assert_true(len == 0 || memcmp(exact, in.at, len) == 0);
        assert_err(ERR_INPUT, zstd_decompress_exact(buf_slice(&packed), exact, len + 1));
        if (len > 0) {
            struct buf small = buf_open(pool, len - 1);
            assert_err(ERR_LIMIT, zstd_decompress(buf_slice(&packed), &small));
            buf_close(&small);
        }
        buf_close(&out);
        out = buf_open(pool, 2 * len + 10);
        for (size_t cut = 0; cut < packed.len; cut += 1 + packed.len / 40) {
            buf_clear(&out);
            assert_err(ERR_INPUT, zstd_decompress(slice_of(packed.at, cut), &out));
        }
        buf_clear(&out);
        size_t one = packed.len;
        assert_ok(zstd_compress(buf_slice(&in), 3, &packed));
        assert_ok(zstd_decompress(buf_slice(&packed), &out));
        assert_int_equal(out.len, 2 * len);
        packed.at[one / 2] ^= 0x55;
        buf_clear(&out);
        /* without a checksum damage may pass; bounds hold */
        ERR_IGNORE(zstd_decompress(buf_slice(&packed), &out));
        buf_close(&out);
        buf_close(&in);
        buf_close(&packed);
        test_free(exact);
    }
    struct buf tiny = buf_open(pool, 4);
    assert_err(ERR_LIMIT, zstd_compress(slice_str("abcdefghijklmnop"), 1, &tiny));
    buf_clear(&tiny);
    assert_err(ERR_INPUT, zstd_decompress(slice_str("no frame"), &tiny));
    buf_close(&tiny);
    pool_close(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_round_trip) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
