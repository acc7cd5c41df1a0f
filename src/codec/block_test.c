/* Goal: snappy and LZ4 blocks come back as they went in, and no broken block gets past its bounds.
 * Method: random compressible bytes, truncation at every byte, flips, lying lengths. */
#include "base/test.h"

#include "base/bytes.h"
#include "codec/lz4.h"
#include "codec/snappy.h"

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

static size_t fill(struct test_random *r, uint8_t *at, size_t max)
{
    size_t len = test_random_below(r, max);
    for (size_t i = 0; i < len; i++)
        at[i] = i >= 40 && test_random_below(r, 20) != 0 ? at[i - 40] : (uint8_t)test_random_u64(r);
    return len;
}

static void snappy_round_trip(void **state)
{
    struct test_random r = test_random_begin("snappy_round_trip");
    static uint8_t bytes[5000];
    for (int round = 0; round < 300; round++) {
        size_t len = fill(&r, bytes, sizeof bytes);
        struct buf packed = buf_open(pool, 1 << 20), plain = buf_open(pool, 1 << 20);
        assert_ok(snappy_block_encode(slice_of(bytes, len), &packed));
        assert_ok(snappy_block_decode(buf_slice(&packed), len, &plain));
        assert_true(slice_equal(buf_slice(&plain), slice_of(bytes, len)));
        if (len > 0)
            assert_err(ERR_LIMIT, snappy_block_decode(buf_slice(&packed), len - 1, &plain));
        size_t before = plain.len;
        for (size_t cut = 0; cut < packed.len; cut++)
            assert_err(ERR_INPUT, snappy_block_decode(slice_of(packed.at, cut), 1 << 20, &plain));
        assert_int_equal(plain.len, before);
        for (int i = 0; i < 20; i++) {
            packed.at[test_random_below(&r, packed.len)] ^= (uint8_t)(1u << test_random_below(&r, 8));
            ERR_IGNORE(snappy_block_decode(buf_slice(&packed), 1 << 19, &plain)); /* any verdict will do */
            plain.len = before;
        }
        buf_close(&packed);
        buf_close(&plain);
    }
}

static void snappy_claims(void **state)
{
    /* Ten bytes that claim 4 GiB less one, or 16 MiB: refused before anything is allocated. */
    struct pool *small = pool_open(pool, "small", 4096);
    struct buf plain = buf_open(small, 1u << 30);
    static const uint8_t huge[] = { 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0 };
    static const uint8_t large[] = { 0x80, 0x80, 0x80, 0x08, 0, 0, 0, 0, 0, 0 };
    assert_err(ERR_LIMIT, snappy_block_decode(slice_of(huge, sizeof huge), 32 << 20, &plain));
    assert_err(ERR_INPUT, snappy_block_decode(slice_of(large, sizeof large), 32 << 20, &plain));
    assert_err(ERR_INPUT, snappy_block_decode(slice_of("", 0), 32 << 20, &plain));
    /* The framed format begins with a stream identifier. */
    static const char framed[] = "\xff\x06\x00\x00sNaPpY\x01\x05\x00\x00\x00\x00\x00\x00x";
    assert_err(ERR_INPUT, snappy_block_decode(slice_of(framed, sizeof framed - 1), 32 << 20, &plain));
    struct buf tight = buf_open(small, 10);
    assert_err(ERR_LIMIT, snappy_block_encode(slice_of("aaaaaaaaaaaaaaaaaaaaaaaa", 24), &tight));
    buf_close(&plain);
    buf_close(&tight);
    pool_close(small);
}

static void lz4_round_trip(void **state)
{
    struct test_random r = test_random_begin("lz4_round_trip");
    static uint8_t bytes[5000];
    for (int round = 0; round < 300; round++) {
        size_t len = fill(&r, bytes, sizeof bytes);
        struct buf packed = buf_open(pool, 1 << 20);
        err e = lz4_block_encode(slice_of(bytes, len), &packed);
        assert_true(e == OK || (e == ERR_FULL && packed.len == 0));
        if (e == OK) {
            assert_true(packed.len < len);
            uint8_t *plain = malloc(len + 1);
            assert_ok(lz4_block_decode(buf_slice(&packed), plain, len));
            assert_memory_equal(plain, bytes, len);
            assert_err(ERR_CORRUPT, lz4_block_decode(buf_slice(&packed), plain, len - 1));
            assert_err(ERR_CORRUPT, lz4_block_decode(buf_slice(&packed), plain, len + 1));
            for (size_t cut = 0; cut < packed.len; cut++)
                assert_err(ERR_CORRUPT, lz4_block_decode(slice_of(packed.at, cut), plain, len));
            for (int i = 0; i < 20; i++) {
                packed.at[test_random_below(&r, packed.len)] ^= (uint8_t)(1u << test_random_below(&r, 8));
                ERR_IGNORE(lz4_block_decode(buf_slice(&packed), plain, len)); /* any verdict will do */
            }
            free(plain);
        }
        buf_close(&packed);
    }
    struct buf tight = buf_open(pool, 10);
    static const uint8_t zeros[100];
    assert_err(ERR_LIMIT, lz4_block_encode(slice_of(zeros, sizeof zeros), &tight));
    assert_err(ERR_LIMIT, lz4_block_encode(slice_of(zeros, LZ4_DECODED_BYTES_MAX + 1), &tight));
    assert_err(ERR_CORRUPT, lz4_block_decode(slice_of(zeros, 0), bytes, LZ4_DECODED_BYTES_MAX + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snappy_round_trip),
        cmocka_unit_test(snappy_claims),
        cmocka_unit_test(lz4_round_trip),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
