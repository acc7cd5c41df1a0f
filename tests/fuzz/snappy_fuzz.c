/* Fuzz: snappy blocks. Whatever decodes is not larger than claimed and allowed, and encodes and decodes again; and
 * so does the input itself, several times over, so that there is something to copy. */
#include "fuzz/fuzz_ingest.h"

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len)
{
    struct pool *pool = pool_open(NULL, "fuzz", 64u << 20);
    struct buf plain = buf_open(pool, 1u << 20), packed = buf_open(pool, 4u << 20);
    struct buf again = buf_open(pool, 1u << 20);
    if (snappy_block_decode(slice_of(at, len), 1u << 20, &plain) == OK) {
        FUZZ_REQUIRE(plain.len <= 22 * len + 22);
        FUZZ_REQUIRE(snappy_block_encode(buf_slice(&plain), &packed) == OK);
        FUZZ_REQUIRE(snappy_block_decode(buf_slice(&packed), plain.len, &again) == OK);
        FUZZ_REQUIRE(slice_equal(buf_slice(&again), buf_slice(&plain)));
    } else {
        FUZZ_REQUIRE(plain.len == 0);
    }
    buf_clear(&plain);
    buf_clear(&packed);
    buf_clear(&again);
    for (size_t i = 0; i < 8 && len < 65536; i++)
        buf_put(&plain, at, len - (len > i ? i : 0));
    FUZZ_REQUIRE(snappy_block_encode(buf_slice(&plain), &packed) == OK);
    FUZZ_REQUIRE(snappy_block_decode(buf_slice(&packed), plain.len, &again) == OK);
    FUZZ_REQUIRE(slice_equal(buf_slice(&again), buf_slice(&plain)));
    pool_close(pool);
    return 0;
}
