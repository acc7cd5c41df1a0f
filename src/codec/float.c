/* Float vectors: 64-bit patterns become integers, which codec/int.h encodes. docs/codecs.md §3.
 *
 *   bits[n] ─ scale: smallest e with v = i / 10^e for (nearly) all, or the raw bits as integers
 *        ─ exceptions: stale markers (a position), others (position and 8 bytes); in their places the integer
 * before
 *        ─ int_encode
 *   one NaN or infinity again and again: bits[n] ─ a bitmap of its places ─ the other values as above
 *
 * Division by 10^e is correctly rounded, so every decimal of up to 15 digits comes back exactly; each value is
 * tested by the very formula of the decoder (ALP, SIGMOD 2024, needs two multiplications and more exceptions).
 * No fused operations (-ffp-contract=off), round to nearest: the same bytes on every machine.
 * Invariants:
 *   1. Decoding yields the very bits: a value that the scale does not express exactly is an exception.
 *   2. At most n/16 exceptions that are not stale markers; more, and the vector is kept as raw bits. */
#include "codec/float.h"
#include "base/check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#endif

#define STALE_BITS    UINT64_C(0x7ff0000000000002) /* Prometheus' stale marker */
#define SCALE_MAX     17
#define SCALE_RAW     31u /* bits 0 … 4 of the head: scale */
#define HEAD_STALE    32u
#define HEAD_OTHERS   64u
#define HEAD_HOLES    128u /* alone */
#define SCALE_TRY_RAW 6    /* from here on, raw bits may be the smaller form */

static const double POWERS[SCALE_MAX + 1] = {
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17,
};

struct exceptions {
    size_t stale_count, other_count;
    uint8_t stale[CODEC_VECTOR_COUNT_MAX];
    uint8_t others[CODEC_VECTOR_COUNT_MAX];
};

/* Is v = *out / 10^e exactly, as the decoder computes it? */
static inline bool express(uint64_t bits, unsigned e, int64_t *out)
{
    double v = bits_double(bits);
    if (e == 0) {
        if (!(v > -9.2e18 && v < 9.2e18))
            return false;
        int64_t i = (int64_t)v;
        *out = i;
        return double_bits((double)i) == bits;
    }
    double scaled = v * POWERS[e];
    if (!(scaled > -9007199254740992.0 && scaled < 9007199254740992.0))
        return false;
    double rounder = scaled < 0 ? -0.5 : 0.5;
    int64_t i = (int64_t)(scaled + rounder);
    *out = i;
    return double_bits((double)i / POWERS[e]) == bits;
}

/* Integers for scale e, exceptions aside. False when too many are not expressed. */
static bool convert(const uint64_t *bits, size_t n, unsigned e, int64_t *ints, struct exceptions *x)
{
    x->stale_count = x->other_count = 0;
    for (size_t i = 0; i < n; i++) {
        if (__builtin_expect(express(bits[i], e, &ints[i]), 1))
            continue;
        if (bits[i] == STALE_BITS)
            x->stale[x->stale_count++] = (uint8_t)i;
        else if (x->other_count == n / 16)
            return false;
        else
            x->others[x->other_count++] = (uint8_t)i;
    }
    return true;
}

#ifdef AVX2
/* The same for four at a time, integers below 2^51: adding 1.5 · 2^52 rounds to an integer, whose bits are then
 * the low ones of the sum. Of integers below 2^53 no two neighbours have the same quotient, so both ways of
 * rounding find the same one or none. Returns how many values from the front are expressed, a multiple of 4. */
AVX2 static size_t express_run_avx2(const uint64_t *bits, size_t n, unsigned e, int64_t *out)
{
    const __m256d magic = _mm256_set1_pd(6755399441055744.0), most = _mm256_set1_pd(2251799813685248.0);
    const __m256d sign = _mm256_set1_pd(-0.0), power = _mm256_set1_pd(POWERS[e]);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        __m256d v = _mm256_castsi256_pd(_mm256_loadu_si256((const __m256i *)(bits + i)));
        __m256d scaled = e == 0 ? v : _mm256_mul_pd(v, power), sum = _mm256_add_pd(scaled, magic);
        __m256d whole = _mm256_sub_pd(sum, magic), back = e == 0 ? whole : _mm256_div_pd(whole, power);
        __m256i same = _mm256_cmpeq_epi64(_mm256_castpd_si256(back), _mm256_castpd_si256(v));
        __m256d small = _mm256_cmp_pd(_mm256_andnot_pd(sign, scaled), most, _CMP_LT_OQ);
        if (_mm256_movemask_pd(_mm256_and_pd(_mm256_castsi256_pd(same), small)) != 15)
            break;
        __m256i integer = _mm256_sub_epi64(_mm256_castpd_si256(sum), _mm256_castpd_si256(magic));
        _mm256_storeu_si256((__m256i *)(out + i), integer);
    }
    return i;
}
#endif

static size_t express_run(const uint64_t *bits, size_t n, unsigned e, int64_t *out)
{
#ifdef AVX2
    if (__builtin_cpu_supports("avx2"))
        return express_run_avx2(bits, n, e, out);
#endif
    return 0;
}

/* The scale of the vector: the smallest that expresses all but n/64 of what any scale expresses. False: raw.
 * Starts at 0 and restarts at what the misses need, so that a vector of one scale costs two looks. *out_clean: it
 * expresses every value, ints are those of convert. */
static bool find_scale(const uint64_t *bits, size_t n, int64_t *ints, unsigned *out_e, bool *out_clean)
{
    unsigned e = 0;
    for (;;) {
        size_t misses = 0, lost = 0, stale = 0;
        unsigned need_max = e;
        for (size_t i = express_run(bits, n, e, ints); i < n; i++) {
            if (__builtin_expect(express(bits[i], e, &ints[i]), 1))
                continue;
            if (bits[i] == STALE_BITS) {
                stale++;
                continue;
            }
            unsigned need = e + 1;
            int64_t ignored;
            while (need <= SCALE_MAX && !express(bits[i], need, &ignored))
                need++;
            if (need > SCALE_MAX) {
                if (++lost > n / 16)
                    return false;
                continue;
            }
            need_max = need > need_max ? need : need_max;
            if (++misses > n / 64 && (misses >= 4 || i + 1 == n || n < 64))
                break;
        }
        if (misses <= n / 64) {
            *out_e = e;
            *out_clean = misses + lost + stale == 0;
            return true;
        }
        e = need_max;
    }
}

/* Every exception (positions ascend) gets the integer before it; those at the front the first one behind. */
static void fill(int64_t *ints, size_t n, const uint8_t *positions, size_t count)
{
    size_t lead = 0;
    while (lead < count && positions[lead] == lead)
        lead++;
    for (size_t i = 0; i < lead; i++)
        ints[i] = lead < n ? ints[lead] : 0;
    for (size_t i = lead; i < count; i++)
        ints[positions[i]] = ints[positions[i] - 1];
}

static size_t write_vector(const uint64_t *bits, int64_t *ints, size_t n, unsigned scale,
                           const struct exceptions *x, enum codec_effort effort, uint8_t *out)
{
    uint8_t *at = out;
    uint8_t marked[CODEC_VECTOR_COUNT_MAX];
    size_t marked_count = 0;
    for (size_t s = 0, o = 0; s < x->stale_count || o < x->other_count;)
        marked[marked_count++] = o == x->other_count || (s < x->stale_count && x->stale[s] < x->others[o])
                                     ? x->stale[s++]
                                     : x->others[o++];
    if (marked_count != 0)
        fill(ints, n, marked, marked_count);
    *at++ =
        (uint8_t)(scale | (x->stale_count != 0 ? HEAD_STALE : 0) | (x->other_count != 0 ? HEAD_OTHERS : 0));
    if (x->stale_count != 0) {
        *at++ = (uint8_t)(x->stale_count - 1);
        memcpy(at, x->stale, x->stale_count);
        at += x->stale_count;
    }
    if (x->other_count != 0) {
        *at++ = (uint8_t)(x->other_count - 1);
        memcpy(at, x->others, x->other_count);
        at += x->other_count;
        for (size_t i = 0; i < x->other_count; i++, at += 8)
            put_le64(at, bits[x->others[i]]);
    }
    return (size_t)(at - out) + int_encode(ints, n, effort, at);
}

static size_t write_raw(const uint64_t *bits, size_t n, enum codec_effort effort, uint8_t *out)
{
    int64_t ints[CODEC_VECTOR_COUNT_MAX];
    struct exceptions x;
    x.stale_count = x.other_count = 0;
    for (size_t i = 0; i < n; i++) {
        ints[i] = (int64_t)bits[i];
        if (bits[i] == STALE_BITS)
            x.stale[x.stale_count++] = (uint8_t)i;
    }
    if (x.stale_count == n)
        x.stale_count = 0; /* all of them: a run of the raw bits */
    return write_vector(bits, ints, n, SCALE_RAW, &x, effort, out);
}

/* The NaN or infinity that is most of those there are, if a bitmap of its places is shorter than exceptions. */
static bool find_holes(const uint64_t *bits, size_t n, uint64_t *out_pattern, size_t *out_count)
{
    const uint64_t special = UINT64_C(0x7ff) << 52;
    uint64_t pattern = 0;
    size_t votes = 0, count = 0;
    for (size_t i = 0; i < n; i++) {
        if ((bits[i] & special) != special)
            continue;
        if (votes == 0)
            pattern = bits[i];
        votes = bits[i] == pattern ? votes + 1 : votes - 1; /* Boyer and Moore's majority vote */
    }
    if (votes == 0)
        return false;
    for (size_t i = 0; i < n; i++)
        count += bits[i] == pattern;
    *out_pattern = pattern;
    *out_count = count;
    return count < n && count * (pattern == STALE_BITS ? 1 : 9) > 8 + (n + 7) / 8;
}

static size_t encode(const uint64_t *bits, size_t n, enum codec_effort effort, bool with_holes, uint8_t *out);

static size_t write_holed(const uint64_t *bits, size_t n, uint64_t pattern, enum codec_effort effort,
                          uint8_t *out)
{
    uint64_t rest[CODEC_VECTOR_COUNT_MAX];
    size_t rest_count = 0, map_bytes = (n + 7) / 8;
    out[0] = HEAD_HOLES;
    put_le64(out + 1, pattern);
    memset(out + 9, 0, map_bytes);
    for (size_t i = 0; i < n; i++) {
        if (bits[i] == pattern)
            out[9 + i / 8] |= (uint8_t)(1u << i % 8);
        else
            rest[rest_count++] = bits[i];
    }
    return 9 + map_bytes + encode(rest, rest_count, effort, false, out + 9 + map_bytes);
}

static size_t encode(const uint64_t *bits, size_t n, enum codec_effort effort, bool with_holes, uint8_t *out)
{
    int64_t ints[CODEC_VECTOR_COUNT_MAX];
    struct exceptions x;
    unsigned e;
    bool clean = false, scaled = find_scale(bits, n, ints, &e, &clean);
    uint64_t pattern;
    size_t holes;
    if (with_holes && !clean && find_holes(bits, n, &pattern, &holes))
        return write_holed(bits, n, pattern, effort, out);
    x.stale_count = x.other_count = 0;
    if (!scaled || (!clean && !convert(bits, n, e, ints, &x)) || x.stale_count == n)
        return write_raw(bits, n, effort, out);
    size_t used = write_vector(bits, ints, n, e, &x, effort, out);
    if (effort == CODEC_FULL && (e >= SCALE_TRY_RAW || x.other_count != 0)) {
        uint8_t raw[FLOAT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES];
        size_t raw_used = write_raw(bits, n, effort, raw);
        if (raw_used < used) {
            memcpy(out, raw, raw_used);
            used = raw_used;
        }
    }
    return used;
}

size_t float_encode(const uint64_t *bits, size_t count, enum codec_effort effort, uint8_t *out)
{
    check(count >= 1 && count <= CODEC_VECTOR_COUNT_MAX);
    size_t used = encode(bits, count, effort, true, out);
    check(used <= FLOAT_VECTOR_BYTES_MAX);
    return used;
}

static void to_doubles_portable(const uint64_t *ints, size_t n, unsigned e, uint64_t *out)
{
    double power = POWERS[e];
    for (size_t i = 0; i < n; i++)
        out[i] = double_bits((double)(int64_t)ints[i] / power);
}

#ifdef AVX2
/* int64 to double, correctly rounded over the whole range: the high and low halves as the mantissas of 2^84 and
 * 2^52, one rounding in the last sum (the method of Mysticial, "How to efficiently perform double/int64
 * conversions with SSE/AVX", answer of 2016). */
AVX2 static void to_doubles_avx2(const uint64_t *ints, size_t n, unsigned e, uint64_t *out)
{
    const __m256i low_magic = _mm256_set1_epi64x(0x4330000000000000);  /* 2^52 */
    const __m256i high_magic = _mm256_set1_epi64x(0x4530000080000000); /* 2^84 + 2^63 */
    const __m256d all_magic = _mm256_castsi256_pd(_mm256_set1_epi64x(0x4530000080100000));
    __m256d power = _mm256_set1_pd(POWERS[e]);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(ints + i));
        __m256i low = _mm256_blend_epi32(low_magic, v, 0x55);
        __m256i high = _mm256_xor_si256(_mm256_srli_epi64(v, 32), high_magic);
        __m256d d =
            _mm256_add_pd(_mm256_sub_pd(_mm256_castsi256_pd(high), all_magic), _mm256_castsi256_pd(low));
        if (e != 0)
            d = _mm256_div_pd(d, power);
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_castpd_si256(d));
    }
    to_doubles_portable(ints + i, n - i, e, out + i);
}
#endif

/* The exceptions in front of the integers: read and bound. */
static bool read_exceptions(struct reader *r, uint8_t head, size_t n, struct slice *stale,
                            struct slice *others, struct slice *other_bits)
{
    *stale = *others = *other_bits = slice_of(r->at, 0);
    if (head & HEAD_STALE)
        *stale = read_bytes(r, (size_t)read_u8(r) + 1);
    if (head & HEAD_OTHERS) {
        size_t count = (size_t)read_u8(r) + 1;
        *others = read_bytes(r, count);
        *other_bits = read_bytes(r, count * 8);
    }
    for (size_t i = 0; i < stale->len; i++)
        if (stale->at[i] >= n)
            return false;
    for (size_t i = 0; i < others->len; i++)
        if (others->at[i] >= n)
            return false;
    return r->ok;
}

static inline err decode_whole(struct slice bytes, size_t n, uint64_t *out, size_t *out_used, bool simd)
{
    struct reader r = reader_of(bytes);
    uint8_t head = read_u8(&r);
    unsigned scale = head & 31;
    if (!r.ok || head >> 7 != 0 || (scale > SCALE_MAX && scale != SCALE_RAW))
        return ERR_CORRUPT;
    struct slice stale, others, other_bits;
    if (!read_exceptions(&r, head, n, &stale, &others, &other_bits))
        return ERR_CORRUPT;
    size_t used;
    struct slice ints = slice_of(r.at, read_left(&r));
    TRY(simd ? int_decode(ints, n, (int64_t *)out, &used)
             : int_decode_portable(ints, n, (int64_t *)out, &used));
    if (scale != SCALE_RAW) {
#ifdef AVX2
        if (simd)
            to_doubles_avx2(out, n, scale, out);
        else
#endif
            to_doubles_portable(out, n, scale, out);
    }
    for (size_t i = 0; i < stale.len; i++)
        out[stale.at[i]] = STALE_BITS;
    for (size_t i = 0; i < others.len; i++)
        out[others.at[i]] = get_le64(other_bits.at + 8 * i);
    *out_used = (size_t)(r.at - bytes.at) + used;
    return OK;
}

/* The other values, then each to its place, the last first. */
static inline err decode_holed(struct slice bytes, size_t n, uint64_t *out, size_t *out_used, bool simd)
{
    size_t map_bytes = (n + 7) / 8, holes = 0, used;
    if (bytes.len < 9 + map_bytes)
        return ERR_CORRUPT;
    uint64_t pattern = get_le64(bytes.at + 1);
    const uint8_t *map = bytes.at + 9;
    for (size_t i = 0; i < map_bytes; i++)
        holes += (size_t)__builtin_popcount(map[i]);
    if (holes == 0 || holes >= n || (n % 8 != 0 && map[n / 8] >> n % 8 != 0))
        return ERR_CORRUPT;
    TRY(decode_whole(slice_part(bytes, 9 + map_bytes, bytes.len - 9 - map_bytes), n - holes, out, &used,
                     simd));
    for (size_t i = n, from = n - holes; i-- > 0;)
        out[i] = map[i / 8] >> i % 8 & 1 ? pattern : out[--from];
    *out_used = 9 + map_bytes + used;
    return OK;
}

static inline err decode(struct slice bytes, size_t n, uint64_t *out, size_t *out_used, bool simd)
{
    if (n == 0 || n > CODEC_VECTOR_COUNT_MAX)
        return ERR_CORRUPT;
    if (bytes.len != 0 && bytes.at[0] == HEAD_HOLES)
        return decode_holed(bytes, n, out, out_used, simd);
    return decode_whole(bytes, n, out, out_used, simd);
}

err float_decode(struct slice bytes, size_t count, uint64_t *out_bits, size_t *out_used)
{
#ifdef AVX2
    if (__builtin_cpu_supports("avx2"))
        return decode(bytes, count, out_bits, out_used, true);
#endif
    return decode(bytes, count, out_bits, out_used, false);
}

err float_decode_portable(struct slice bytes, size_t count, uint64_t *out_bits, size_t *out_used)
{
    return decode(bytes, count, out_bits, out_used, false);
}

err float_column_encode(const uint64_t *bits, size_t count, enum codec_effort effort, struct buf *out)
{
    for (size_t i = 0; i < count; i += CODEC_VECTOR_COUNT_MAX) {
        size_t n = count - i < CODEC_VECTOR_COUNT_MAX ? count - i : CODEC_VECTOR_COUNT_MAX;
        uint8_t vector[FLOAT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES];
        buf_put(out, vector, float_encode(bits + i, n, effort, vector));
    }
    return buf_err(out);
}

err float_column_decode(struct reader *r, size_t count, uint64_t *out_bits)
{
    for (size_t i = 0; i < count; i += CODEC_VECTOR_COUNT_MAX) {
        size_t n = count - i < CODEC_VECTOR_COUNT_MAX ? count - i : CODEC_VECTOR_COUNT_MAX;
        size_t used;
        TRY(float_decode(slice_of(r->at, read_left(r)), n, out_bits + i, &used));
        r->at += used;
    }
    return OK;
}

bool float_integers(const uint64_t *bits, size_t count, int64_t *out_integers)
{
    for (size_t i = 0; i < count; i++) {
        double v = bits_double(bits[i]);
        if (!(v >= 0 && v < 9007199254740992.0))
            return false;
        out_integers[i] = (int64_t)v;
        if (double_bits((double)out_integers[i]) != bits[i])
            return false;
    }
    return true;
}

void float_from_integers(const int64_t *integers, size_t count, uint64_t *out_bits)
{
#ifdef AVX2
    if (__builtin_cpu_supports("avx2")) {
        to_doubles_avx2((const uint64_t *)integers, count, 0, out_bits);
        return;
    }
#endif
    to_doubles_portable((const uint64_t *)integers, count, 0, out_bits);
}
