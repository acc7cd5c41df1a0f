/* Vectors: any bytes decode to the same in both forms or fail in both; any values survive a round trip.
 * Input: byte 0 chooses (bit 0: bytes or values; bit 1: integers or floats; bit 2: effort), byte 1 the count. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    bool is_float = (data[0] & 2) != 0;
    size_t n = (size_t)data[1] + 1, left = size - 2;
    if (data[0] & 1) {
        n = left / 8 < n ? left / 8 : n;
        if (n > 0)
            round_trip(data + 2, n, is_float, data[0] & 4 ? CODEC_FULL : CODEC_FAST);
        return 0;
    }
    uint8_t *padded = calloc(1, left + CODEC_PAD_BYTES);   /* exact, so that a read beyond the padding is seen */
    must(padded != NULL);
    memcpy(padded, data + 2, left);
    decode_both(slice_of(padded, left), n, is_float);
    free(padded);
    return 0;
}
