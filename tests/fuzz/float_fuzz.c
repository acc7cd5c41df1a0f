/* Vectors: any bytes decode to the same in both forms or fail in both; any values survive a round trip.
 * Input: byte 0 chooses (bit 0: bytes or values; bit 1: integers or floats; bit 2: effort; bit 3: columns of
 * several vectors), byte 1 the count. */
#include "codec/float.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void decode_both(struct slice bytes, size_t n, bool is_float)
{
    uint64_t fast[CODEC_VECTOR_COUNT_MAX], slow[CODEC_VECTOR_COUNT_MAX];
    size_t used = 0, used_slow = 0;
    err a = is_float ? float_decode(bytes, n, fast, &used) : int_decode(bytes, n, (int64_t *)fast, &used);
    err b = is_float ? float_decode_portable(bytes, n, slow, &used_slow)
                     : int_decode_portable(bytes, n, (int64_t *)slow, &used_slow);
    must(a == b && used == used_slow && used <= bytes.len);
    must(a != OK || memcmp(fast, slow, n * 8) == 0);
}

static void round_trip(const uint8_t *data, size_t n, bool is_float, enum codec_effort effort)
{
    uint64_t in[CODEC_VECTOR_COUNT_MAX], out[CODEC_VECTOR_COUNT_MAX];
    uint8_t bytes[FLOAT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES];
    size_t used;
    memcpy(in, data, n * 8);
    size_t len = is_float ? float_encode(in, n, effort, bytes) : int_encode((int64_t *)in, n, effort, bytes);
    struct slice s = slice_of(bytes, len);
    must((is_float ? float_decode(s, n, out, &used) : int_decode(s, n, (int64_t *)out, &used)) == OK);
    must(used == len && memcmp(in, out, n * 8) == 0);
    decode_both(s, n, is_float);
}

/* The bytes as a column of each kind, then as the values of a column, which come back. */
static void columns(const uint8_t *data, size_t size, size_t n, enum codec_effort effort)
{
    static uint64_t in[2048], out[2048];
    static uint32_t small[2048], small_out[2048];
    struct pool *pool = pool_open(NULL, "fuzz", 4u << 20);
    n *= 8;
    struct reader readers[3] = { reader_of(slice_of(data, size)), reader_of(slice_of(data, size)),
                                 reader_of(slice_of(data, size)) };
    ERR_IGNORE(int_column_decode(&readers[0], n, (int64_t *)out));
    ERR_IGNORE(int_column_decode_u32(&readers[1], n, small_out));
    ERR_IGNORE(float_column_decode(&readers[2], n, out));
    n = size / 8 < n ? size / 8 : n;
    memcpy(in, data, n * 8);
    for (size_t i = 0; i < n; i++)
        small[i] = (uint32_t)in[i];
    struct buf bytes = buf_open(pool, 1u << 20);
    must(int_column_encode((int64_t *)in, n, effort, &bytes) == OK);
    must(int_column_encode_u32(small, n, effort, &bytes) == OK);
    must(float_column_encode(in, n, effort, &bytes) == OK);
    buf_put(&bytes, (uint8_t[CODEC_PAD_BYTES]){ 0 }, CODEC_PAD_BYTES);
    struct reader r = reader_of(slice_of(bytes.at, bytes.len - CODEC_PAD_BYTES));
    must(int_column_decode(&r, n, (int64_t *)out) == OK && memcmp(in, out, n * 8) == 0);
    must(int_column_decode_u32(&r, n, small_out) == OK && memcmp(small, small_out, n * 4) == 0);
    must(float_column_decode(&r, n, out) == OK && memcmp(in, out, n * 8) == 0);
    must(read_left(&r) == 0);
    int64_t integers[CODEC_VECTOR_COUNT_MAX];
    size_t some = n < CODEC_VECTOR_COUNT_MAX ? n : CODEC_VECTOR_COUNT_MAX;
    if (float_integers(in, some, integers)) {
        float_from_integers(integers, some, out);
        must(memcmp(in, out, some * 8) == 0);
    }
    pool_close(pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    bool is_float = (data[0] & 2) != 0;
    size_t n = (size_t)data[1] + 1, left = size - 2;
    if (data[0] & 8) {
        uint8_t *padded = calloc(1, left + CODEC_PAD_BYTES);
        must(padded != NULL);
        memcpy(padded, data + 2, left);
        columns(padded, left, n, data[0] & 4 ? CODEC_FULL : CODEC_FAST);
        free(padded);
        return 0;
    }
    if (data[0] & 1) {
        n = left / 8 < n ? left / 8 : n;
        if (n > 0)
            round_trip(data + 2, n, is_float, data[0] & 4 ? CODEC_FULL : CODEC_FAST);
        return 0;
    }
    uint8_t *padded =
        calloc(1, left + CODEC_PAD_BYTES); /* exact, so that a read beyond the padding is seen */
    must(padded != NULL);
    memcpy(padded, data + 2, left);
    decode_both(slice_of(padded, left), n, is_float);
    free(padded);
    return 0;
}
