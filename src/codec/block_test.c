/* Goal: snappy and LZ4 blocks come back as they went in, and no broken block gets past its bounds.
 * Method: random compressible bytes, truncation at every byte, flips, lying lengths. */
#include "base/test.h"

#include "base/bytes.h"
#include "codec/lz4.h"
#include "codec/snappy.h"

static struct pool *pool;

static int setup(void **state) { pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED); return 0; }
static int teardown(void **state) { pool_close(pool); return 0; }

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
            ERR_IGNORE(snappy_block_decode(buf_slice(&packed), 1 << 19, &plain));   /* any verdict will do */
            plain.len = before;
        }
        buf_close(&packed);
        buf_close(&plain);
    }
}

/* A decoder from the format's description, a byte at a time. False: malformed. */
static bool snappy_naive(const uint8_t *in, size_t len, uint8_t *to, size_t max, size_t *out_len)
{
    size_t i = 0, n = 0, claimed = 0;
    for (unsigned shift = 0;; shift += 7) {
        if (i == len || shift >= 35)
            return false;
        claimed |= (size_t)(in[i] & 0x7f) << shift;
        if (in[i++] < 0x80)
            break;
    }
    if (claimed > max || claimed / 22 > len)
        return false;
    while (i < len) {
        unsigned tag = in[i++], kind = tag & 3;
        size_t count = kind == 1 ? (tag >> 2 & 7) + 4 : (tag >> 2) + 1, offset = 0;
        size_t extra = kind == 0 ? (count > 60 ? count - 60 : 0) : kind == 3 ? 4 : kind;
        for (size_t k = 0; k < extra; k++) {
            if (i == len)
                return false;
            offset |= (size_t)in[i++] << 8 * k;
        }
        if (kind == 0 && extra > 0)
            count = offset + 1;
        if (kind == 1)
            offset |= (size_t)(tag & 0xe0) << 3;
        if (count > claimed - n || (kind == 0 ? count > len - i : offset == 0 || offset > n))
            return false;
        for (size_t k = 0; k < count; k++, n++)
            to[n] = kind == 0 ? in[i++] : to[n - offset];
    }
    *out_len = n;
    return n == claimed;
}

/* Elements of every kind, near and far, in blocks that are whole, cut short, flipped or claim something else. */
static void snappy_elements(void **state)
{
    struct test_random r = test_random_begin("snappy_elements");
    static uint8_t in[4096], naive[1 << 16];
    struct buf plain = buf_open(pool, 1 << 17);
    unsigned good_count = 0;
    for (int round = 0; round < 20000; round++) {
        size_t len = 3, n = 0, target = test_random_below(&r, 2000);
        while (n < target && len < sizeof in - 80) {
            unsigned kind = n == 0 ? 0 : (unsigned)test_random_below(&r, 4);
            size_t count = 1 + test_random_below(&r, kind == 1 ? 8 : kind == 0 ? 70 : 64);
            size_t offset = 1 + test_random_below(&r, test_random_below(&r, 2) == 0 && n > 40 ? 40 : n + (n == 0));
            if (kind == 0) {
                in[len++] = (uint8_t)((count > 60 ? 60 : count - 1) << 2);
                if (count > 60)
                    in[len++] = (uint8_t)(count - 1);
                for (size_t k = 0; k < count; k++)
                    in[len++] = (uint8_t)test_random_u64(&r);
            } else if (kind == 1) {
                count += 3;
                in[len++] = (uint8_t)(1 | (count - 4) << 2 | (offset >> 8 & 7) << 5);
                in[len++] = (uint8_t)offset;
            } else {
                in[len++] = (uint8_t)(kind | (count - 1) << 2);
                for (unsigned k = 0; k < (kind == 2 ? 2 : 4); k++)
                    in[len++] = (uint8_t)(offset >> 8 * k);
            }
            n += count;
        }
        n += test_random_below(&r, 20) == 0;
        in[0] = (uint8_t)(n & 0x7f) | 0x80;
        in[1] = (uint8_t)(n >> 7 & 0x7f) | 0x80;
        in[2] = 0;
        if (test_random_below(&r, 4) == 0)
            in[3 + test_random_below(&r, len - 3 + (len == 3))] ^= (uint8_t)(1u << test_random_below(&r, 8));
        if (test_random_below(&r, 4) == 0)
            len = test_random_below(&r, len) + 1;
        void *exact;   /* of the very length, for the sanitizer to see reads behind it */
        struct pool *small = pool_open(pool, "small", POOL_BYTES_UNLIMITED);
        exact = NULL;
        assert_ok(pool_block_resize(small, &exact, len));
        memcpy(exact, in, len);
        size_t naive_len = 0;
        bool good = snappy_naive(in, len, naive, sizeof naive, &naive_len);
        buf_clear(&plain);
        err e = snappy_block_decode(slice_of(exact, len), sizeof naive, &plain);
        assert_int_equal(e, good ? OK : ERR_INPUT);
        if (good)
            assert_true(slice_equal(buf_slice(&plain), slice_of(naive, naive_len)));
        good_count += good;
        pool_block_free(small, exact);
        pool_close(small);
    }
    assert_true(good_count > 5000);
    buf_close(&plain);
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
                ERR_IGNORE(lz4_block_decode(buf_slice(&packed), plain, len));   /* any verdict will do */
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
        cmocka_unit_test(snappy_elements),
        cmocka_unit_test(snappy_claims),
        cmocka_unit_test(lz4_round_trip),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
