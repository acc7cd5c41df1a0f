/* Decoder of integer vectors. docs/codecs.md §2.
 *
 *   head ─ parse (bounds) ─ unpack `width`-bit fields ─ patch ─ scale by the divisor ─ undo the transform
 *
 * Eight fields begin on a byte, so one table-free loop unpacks every width: a field lies within the 8 bytes from
 * (i · width) / 8, because width ≤ 56. With AVX2 two 16-byte loads, a byte shuffle and a variable shift do four.
 * Invariants:
 *   1. Bytes come from disk: counts, positions and lengths are bounded before use; loads stay within the slice
 *      and CODEC_PAD_BYTES behind it.
 *   2. Both forms give equal results on every input, malformed ones included. */
#include "codec/int.h"
#include "codec/int_format.h"

#include <stdbool.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#endif

/* One more group of 8 may be written behind the last field. */
#define FIELD_COUNT_MAX (CODEC_VECTOR_COUNT_MAX + 8)

struct vector {
    unsigned transform;
    unsigned width;
    uint64_t divisor;
    uint64_t first, delta, base;
    const uint8_t *bitmap;
    size_t count; /* of values */
    size_t field_count;
    const uint8_t *bits;
};

static void unpack_portable(const uint8_t *bits, size_t n, unsigned width, uint64_t *out)
{
    uint64_t mask = (UINT64_C(1) << width) - 1;
    for (size_t i = 0, bit = 0; i < n; i++, bit += width)
        out[i] = get_le64(bits + bit / 8) >> (bit & 7) & mask;
}

/* acc runs over base + field; out[0 … n) are its values. */
static void sum_portable(const uint64_t *fields, size_t n, uint64_t acc, uint64_t base, uint64_t *out)
{
    for (size_t i = 0; i < n; i++) {
        acc += fields[i] + base;
        out[i] = acc;
    }
}

static void add_portable(const uint64_t *fields, size_t n, uint64_t base, uint64_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = fields[i] + base;
}

#ifdef AVX2
AVX2 static void add_avx2(const uint64_t *fields, size_t n, uint64_t base, uint64_t *out)
{
    __m256i step = _mm256_set1_epi64x((long long)base);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        __m256i x = _mm256_add_epi64(_mm256_loadu_si256((const __m256i *)(fields + i)), step);
        _mm256_storeu_si256((__m256i *)(out + i), x);
    }
    add_portable(fields + i, n - i, base, out + i);
}

AVX2 static void unpack_avx2(const uint8_t *bits, size_t n, unsigned width, uint64_t *out)
{
    uint8_t shuffle[64];
    uint64_t shift[8];
    unsigned offset[4];
    for (unsigned lane = 0; lane < 8; lane++) {
        unsigned bit = lane * width;
        if (lane % 2 == 0)
            offset[lane / 2] = bit / 8;
        shift[lane] = bit & 7;
        put_le64(shuffle + 8 * lane,
                 UINT64_C(0x0706050403020100) + UINT64_C(0x0101010101010101) * (bit / 8 - offset[lane / 2]));
    }
    __m256i shuffle_low = _mm256_loadu_si256((const __m256i *)shuffle);
    __m256i shuffle_high = _mm256_loadu_si256((const __m256i *)(shuffle + 32));
    __m256i shift_low = _mm256_loadu_si256((const __m256i *)shift);
    __m256i shift_high = _mm256_loadu_si256((const __m256i *)(shift + 4));
    __m256i mask = _mm256_set1_epi64x((long long)((UINT64_C(1) << width) - 1));
    for (size_t i = 0; i < n; i += 8, bits += width) {
        __m256i low = _mm256_loadu2_m128i((const __m128i *)(bits + offset[1]), (const __m128i *)bits);
        __m256i high =
            _mm256_loadu2_m128i((const __m128i *)(bits + offset[3]), (const __m128i *)(bits + offset[2]));
        low = _mm256_and_si256(_mm256_srlv_epi64(_mm256_shuffle_epi8(low, shuffle_low), shift_low), mask);
        high = _mm256_and_si256(_mm256_srlv_epi64(_mm256_shuffle_epi8(high, shuffle_high), shift_high), mask);
        _mm256_storeu_si256((__m256i *)(out + i), low);
        _mm256_storeu_si256((__m256i *)(out + i + 4), high);
    }
}

/* The next three bits of a bitmap, and where the lanes of four fields come from: as many fields further on as bits
 * are set before. In halves of lanes, as the permutation counts. */
static const uint8_t TAKE[8][8] = {
    { 0, 1, 0, 1, 0, 1, 0, 1 }, { 0, 1, 2, 3, 2, 3, 2, 3 }, { 0, 1, 0, 1, 2, 3, 2, 3 },
    { 0, 1, 2, 3, 4, 5, 4, 5 }, { 0, 1, 0, 1, 0, 1, 2, 3 }, { 0, 1, 2, 3, 2, 3, 4, 5 },
    { 0, 1, 0, 1, 2, 3, 4, 5 }, { 0, 1, 2, 3, 4, 5, 6, 7 },
};

/* out[i] = base + the next field where bit i of the bitmap is set, 0 elsewhere, for n bits rounded up to 4; reads
 * up to 3 fields behind the last. */
AVX2 static void expand_avx2(const uint8_t *bitmap, const uint64_t *fields, size_t n, uint64_t base,
                             uint64_t *out)
{
    const __m256i bits = _mm256_setr_epi64x(1, 2, 4, 8), step = _mm256_set1_epi64x((long long)base);
    for (size_t i = 0; i < n; i += 4) {
        unsigned four = bitmap[i / 8] >> i % 8 & 15;
        __m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)TAKE[four & 7]));
        __m256i x = _mm256_add_epi64(_mm256_loadu_si256((const __m256i *)fields), step);
        __m256i set = _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(four), bits), bits);
        x = _mm256_and_si256(_mm256_permutevar8x32_epi32(x, lanes), set);
        _mm256_storeu_si256((__m256i *)(out + i), x);
        fields += (four & 1) + (four >> 1 & 1) + (four >> 2 & 1) + (four >> 3);
    }
}

AVX2 static void sum_avx2(const uint64_t *fields, size_t n, uint64_t acc, uint64_t base, uint64_t *out)
{
    __m256i carry = _mm256_set1_epi64x((long long)acc);
    __m256i step = _mm256_set1_epi64x((long long)base);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        __m256i x = _mm256_add_epi64(_mm256_loadu_si256((const __m256i *)(fields + i)), step);
        x = _mm256_add_epi64(x, _mm256_slli_si256(x, 8));            /* a, a+b | c, c+d */
        __m256i low = _mm256_permute4x64_epi64(x, 0x50);             /* a, a | a+b, a+b */
        low = _mm256_blend_epi32(_mm256_setzero_si256(), low, 0xf0); /* 0, 0 | a+b, a+b */
        x = _mm256_add_epi64(x, low);
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_add_epi64(x, carry));
        carry = _mm256_add_epi64(carry, _mm256_permute4x64_epi64(x, 0xff));
    }
    uint64_t last[4];
    _mm256_storeu_si256((__m256i *)last, carry);
    sum_portable(fields + i, n - i, last[0], base, out + i);
}
#endif

static void unpack(const uint8_t *bits, size_t n, unsigned width, uint64_t *out, bool simd)
{
    if (width == 64) {
        memcpy(out, bits, n * 8);
        return;
    }
    if (width == 0) {
        memset(out, 0, n * 8);
        return;
    }
#ifdef AVX2
    if (simd) {
        unpack_avx2(bits, n, width, out);
        return;
    }
#endif
    unpack_portable(bits, n, width, out);
}

static void sum(const uint64_t *fields, size_t n, uint64_t acc, uint64_t base, uint64_t *out, bool simd)
{
#ifdef AVX2
    if (simd) {
        sum_avx2(fields, n, acc, base, out);
        return;
    }
#endif
    sum_portable(fields, n, acc, base, out);
}

static void add(const uint64_t *fields, size_t n, uint64_t base, uint64_t *out, bool simd)
{
#ifdef AVX2
    if (simd) {
        add_avx2(fields, n, base, out);
        return;
    }
#endif
    add_portable(fields, n, base, out);
}

/* Deltas where the bitmap has a bit, 0 elsewhere; running sum from v->first on. */
static void sum_bitmap(const struct vector *v, const uint64_t *fields, uint64_t base, uint64_t *out,
                       bool simd)
{
    uint64_t acc = v->first;
    out[0] = acc;
#ifdef AVX2
    if (simd) {
        uint64_t deltas[FIELD_COUNT_MAX];
        expand_avx2(v->bitmap, fields, v->count - 1, base, deltas);
        sum_avx2(deltas, v->count - 1, acc, 0, out + 1);
        return;
    }
#endif
    for (size_t i = 0, field = 0; i + 1 < v->count; i++) {
        uint64_t bit = v->bitmap[i / 8] >> i % 8 & 1;
        acc += (fields[field] + base) & (0 - bit);
        field += bit;
        out[i + 1] = acc;
    }
}

static void undo(const struct vector *v, uint64_t *fields, uint64_t *out, bool simd)
{
    uint64_t base = v->base * v->divisor;
    size_t n = v->field_count;
    if (v->divisor != 1)
        for (size_t i = 0; i < n; i++)
            fields[i] *= v->divisor;
    switch (v->transform) {
    case INT_NONE:
        add(fields, n, v->first, out, simd);
        break;
    case INT_DELTA:
        out[0] = v->first;
        sum(fields, n, v->first, base, out + 1, simd);
        break;
    case INT_BITMAP:
        sum_bitmap(v, fields, base, out, simd);
        break;
    default: /* INT_DELTA2: the deltas first, in place */
        out[0] = v->first;
        out[1] = v->first + v->delta * v->divisor;
        sum(fields, n, v->delta * v->divisor, base, fields, simd);
        sum(fields, n, out[1], 0, out + 2, simd);
        break;
    }
}

/* Read the head up to the frame's width and base. */
static void parse_head(struct reader *r, struct vector *v, uint8_t head)
{
    v->divisor = head & INT_DIVISOR ? read_varint(r) : 1;
    v->first = (uint64_t)read_zigzag(r);
    v->field_count = v->count;
    switch (v->transform) {
    case INT_NONE:
        break;
    case INT_DELTA:
        v->field_count = v->count - 1;
        break;
    case INT_BITMAP:
        v->bitmap = read_bytes(r, (v->count + 6) / 8).at;
        v->field_count = 0;
        if (r->ok && (v->count - 1) % 8 != 0 && v->bitmap[(v->count - 1) / 8] >> (v->count - 1) % 8 != 0)
            read_bad(r);
        for (size_t i = 0; r->ok && i + 1 < v->count; i += 64) {
            size_t left = v->count - 1 - i;
            uint64_t mask = left < 64 ? (UINT64_C(1) << left) - 1 : UINT64_MAX; /* not what is behind it */
            v->field_count += (size_t)__builtin_popcountll(get_le64(v->bitmap + i / 8) & mask);
        }
        break;
    case INT_DELTA2:
        v->delta = (uint64_t)read_zigzag(r);
        if (v->count < 2)
            read_bad(r);
        v->field_count = v->count - 2;
        break;
    default:
        read_bad(r);
        break;
    }
    v->width = read_u8(r);
    v->base = v->transform == INT_NONE ? 0 : (uint64_t)read_zigzag(r);
    if (v->width > INT_WIDTH_MAX && v->width != 64)
        read_bad(r);
}

static inline err decode(struct slice bytes, size_t count, uint64_t *out, size_t *out_used, bool simd)
{
    if (count == 0 || count > CODEC_VECTOR_COUNT_MAX || bytes.len == 0)
        return ERR_CORRUPT;
    uint64_t fields[FIELD_COUNT_MAX];
    struct reader r = reader_of(bytes);
    uint8_t head = read_u8(&r);
    struct vector v = { .transform = head & INT_TRANSFORM_MASK, .count = count };
    if (head >> 5 != 0)
        return ERR_CORRUPT;
    if (v.transform == INT_RUN) {
        uint64_t value = (uint64_t)read_zigzag(&r);
        if (!r.ok || head != INT_RUN)
            return ERR_CORRUPT;
        for (size_t i = 0; i < count; i++)
            out[i] = value;
        *out_used = (size_t)(r.at - bytes.at);
        return OK;
    }
    parse_head(&r, &v, head);
    size_t patch_count = head & INT_PATCHED ? read_u8(&r) : 0;
    struct slice positions = read_bytes(&r, patch_count);
    uint64_t patches[CODEC_VECTOR_COUNT_MAX];
    for (size_t i = 0; i < positions.len; i++) {
        patches[i] = (uint64_t)read_zigzag(&r);
        if (positions.at[i] >= v.field_count)
            return ERR_CORRUPT;
    }
    v.bits = read_bytes(&r, (v.field_count * v.width + 7) / 8).at;
    if (!r.ok)
        return ERR_CORRUPT;
    unpack(v.bits, v.field_count, v.width, fields, simd);
    for (size_t i = 0; i < positions.len; i++)
        fields[positions.at[i]] = patches[i];
    fields[v.field_count] = 0; /* sum_bitmap looks at it, masked */
    undo(&v, fields, out, simd);
    *out_used = (size_t)(r.at - bytes.at);
    return OK;
}

err int_decode(struct slice bytes, size_t count, int64_t *out_values, size_t *out_used)
{
#ifdef AVX2
    if (__builtin_cpu_supports("avx2"))
        return decode(bytes, count, (uint64_t *)out_values, out_used, true);
#endif
    return decode(bytes, count, (uint64_t *)out_values, out_used, false);
}

err int_decode_portable(struct slice bytes, size_t count, int64_t *out_values, size_t *out_used)
{
    return decode(bytes, count, (uint64_t *)out_values, out_used, false);
}

err int_column_decode(struct reader *r, size_t count, int64_t *out_values)
{
    for (size_t i = 0; i < count; i += CODEC_VECTOR_COUNT_MAX) {
        size_t n = count - i < CODEC_VECTOR_COUNT_MAX ? count - i : CODEC_VECTOR_COUNT_MAX;
        size_t used;
        TRY(int_decode(slice_of(r->at, read_left(r)), n, out_values + i, &used));
        r->at += used;
    }
    return OK;
}

err int_column_decode_u32(struct reader *r, size_t count, uint32_t *out_values)
{
    for (size_t i = 0; i < count; i += CODEC_VECTOR_COUNT_MAX) {
        size_t n = count - i < CODEC_VECTOR_COUNT_MAX ? count - i : CODEC_VECTOR_COUNT_MAX;
        int64_t wide[CODEC_VECTOR_COUNT_MAX];
        size_t used;
        TRY(int_decode(slice_of(r->at, read_left(r)), n, wide, &used));
        uint64_t high = 0;
        for (size_t k = 0; k < n; k++) {
            high |= (uint64_t)wide[k] >> 32;
            out_values[i + k] = (uint32_t)wide[k];
        }
        if (high != 0)
            return ERR_CORRUPT;
        r->at += used;
    }
    return OK;
}
