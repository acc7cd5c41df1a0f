/* Encoder of integer vectors: chooses a transform and a patched frame, writes the bytes of docs/codecs.md §2.
 *
 *   values v[n] ─ normalise: q = (v - v[0]) / g, g the common divisor of all differences
 *        ─ transform: none q, delta q[i]-q[i-1], bitmap (the non-zero deltas), delta2
 *        ─ frame: u = x - base in `width` bits, values outside [base, base + 2^width) patched
 *
 * All arithmetic is modulo 2^64, so that every input survives; nothing here depends on the machine.
 * The frame search sorts the transformed values and tries every pair (low outliers, high outliers) up to n/8
 * together: the window with the fewest bytes wins, ties to the one found first.
 * Invariants:
 *   1. A vector takes at most INT_VECTOR_BYTES_MAX bytes: plain 64-bit frames are always within reach.
 *   2. Widths are 0 … 56 or 64, so that a reader finds every value in one unaligned 64-bit load.
 *   3. The quick effort chooses the transform by a score, the full one by exact sizes of all that may win. */
#include "codec/int.h"
#include "base/check.h"
#include "codec/int_format.h"

#define SORT_COUNT_MIN 8  /* below, patching cannot pay for its own head */
#define TAIL_COUNT_MAX 96 /* beyond, a radix sort of all is cheaper than insertion into the tails */

struct frame {
    int64_t base;
    unsigned width;
    size_t bytes; /* of width, base, patches and bits */
};

static unsigned bit_length(uint64_t v) { return v == 0 ? 0 : 64 - (unsigned)__builtin_clzll(v); }

static unsigned frame_width(unsigned bits) { return bits > INT_WIDTH_MAX ? 64 : bits; }

static size_t varint_bytes(uint64_t v) { return (bit_length(v | 1) + 6) / 7; }

static int64_t minus(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }

/* Sort by radix over the bytes that differ; x becomes ascending. */
static void sort(int64_t *x, size_t n, int64_t min, unsigned bits)
{
    uint64_t keys[2][CODEC_VECTOR_COUNT_MAX];
    uint64_t *from = keys[0], *to = keys[1];
    for (size_t i = 0; i < n; i++)
        from[i] = (uint64_t)x[i] - (uint64_t)min;
    for (unsigned shift = 0; shift < bits; shift += 8) {
        uint16_t start[257] = { 0 };
        for (size_t i = 0; i < n; i++)
            start[(from[i] >> shift & 255) + 1]++;
        for (size_t b = 1; b < 256; b++)
            start[b] = (uint16_t)(start[b] + start[b - 1]);
        for (size_t i = 0; i < n; i++)
            to[start[from[i] >> shift & 255]++] = from[i];
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
    for (size_t i = 0; i < n; i++)
        x[i] = (int64_t)(from[i] + (uint64_t)min);
}

/* The cheapest window over ascending s that leaves out at most n/8 values. Looks at the n/8 + 1 least and greatest
 * alone. */
static struct frame frame_search(const int64_t *s, size_t n, struct frame best, bool with_base)
{
    size_t outliers_max = n / 8;
    for (size_t low = 0; low <= outliers_max; low++) {
        /* What no choice of high can go below: all that may be left out is, at two bytes each. */
        unsigned least =
            frame_width(bit_length((uint64_t)s[n - 1 - (outliers_max - low)] - (uint64_t)s[low]));
        size_t least_bytes = (n * least + 7) / 8;
        if ((low > 0 && s[low] == s[low - 1]) || 2 * low + least_bytes >= best.bytes)
            continue;
        size_t low_bytes = with_base ? varint_bytes(zigzag(s[low])) : 0;
        for (size_t i = 0; i < low; i++)
            low_bytes += 1 + varint_bytes(zigzag(minus(s[i], s[low])));
        size_t patch_bytes = low_bytes + 1 + (low > 0); /* with the width byte */
        for (size_t high = 0; low + high <= outliers_max; high++) {
            if (high > 0)
                patch_bytes += 1 + varint_bytes(zigzag(minus(s[n - high], s[low]))) + (high == 1 && low == 0);
            if (patch_bytes + least_bytes >= best.bytes)
                break;
            if (high > 0 && s[n - high] == s[n - high - 1])
                continue;
            unsigned width = frame_width(bit_length((uint64_t)s[n - 1 - high] - (uint64_t)s[low]));
            size_t bytes = patch_bytes + (n * width + 7) / 8;
            if (bytes < best.bytes)
                best = (struct frame){ .base = s[low], .width = width, .bytes = bytes };
        }
    }
    return best;
}

/* Values counted by the top five of their `bits` bits, as differences to the least. */
struct classes {
    unsigned shift;    /* class of x: (x - min) >> shift */
    unsigned count;    /* of classes, at most 32 */
    uint16_t upto[64]; /* values of classes below k; n from `count` on */
};

static void classes_count(const int64_t *x, size_t n, int64_t min, unsigned bits, struct classes *c)
{
    *c = (struct classes){ .shift = bits > 5 ? bits - 5 : 0 };
    c->count = 1u << (bits - c->shift);
    for (size_t i = 0; i < n; i++)
        c->upto[(((uint64_t)x[i] - (uint64_t)min) >> c->shift) + 1]++;
    for (unsigned k = 0; k < 63; k++)
        c->upto[k + 1] = (uint16_t)(c->upto[k + 1] + c->upto[k]);
}

/* Can leaving out at most n/8 values save bytes at all? A window that is d bits narrower covers at most 2^(5-d) +
 * 1 neighbouring classes. What is outside costs a position, a byte of varint at least, and their count once. */
static bool frame_may_shrink(const struct classes *c, size_t n, unsigned bits)
{
    unsigned width = frame_width(bits), levels = bits - c->shift;
    for (unsigned d = 1; d <= levels; d++) {
        unsigned span = (c->count >> d) + (c->shift > 0), inside = 0;
        for (unsigned k = 0; k < c->count; k++) {
            unsigned here = (unsigned)c->upto[k + span] - c->upto[k];
            inside = here > inside ? here : inside;
        }
        size_t outside = n - inside;
        if (outside > n / 8)
            return false; /* narrower ones leave out more */
        if (n * (width - (d == levels ? 0 : frame_width(bits - d))) / 8 > 1 + 2 * outside)
            return true;
    }
    return false;
}

static void sort_insertion(int64_t *x, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        int64_t v = x[i];
        size_t to = i;
        for (; to > 0 && x[to - 1] > v; to--)
            x[to] = x[to - 1];
        x[to] = v;
    }
}

/* The n/8 + 1 least values of x to the front of s and as many of the greatest to its end, ascending; what is
 * between them is anything. They are the first and last classes; when these are large, all is sorted. */
static void sort_tails(const int64_t *x, size_t n, int64_t min, unsigned bits, const struct classes *c,
                       int64_t *s)
{
    size_t wanted = n / 8 + 1;
    unsigned low = 0, high = c->count;
    while (c->upto[low] < wanted)
        low++;
    while (n - c->upto[high] < wanted)
        high--;
    size_t low_count = c->upto[low], high_count = n - c->upto[high];
    if (c->shift == 0) { /* a class is a value */
        for (unsigned k = 0; k < c->count; k++)
            for (size_t i = c->upto[k]; i < c->upto[k + 1]; i++)
                s[i] = (int64_t)((uint64_t)min + k);
        return;
    }
    if (low >= high || low_count > TAIL_COUNT_MAX || high_count > TAIL_COUNT_MAX) {
        memcpy(s, x, n * sizeof *s);
        sort(s, n, min, bits);
        return;
    }
    size_t from = 0, to = n;
    for (size_t i = 0; i < n; i++) {
        uint64_t class = ((uint64_t)x[i] - (uint64_t)min) >> c->shift;
        if (class < low)
            s[from++] = x[i];
        else if (class >= high)
            s[--to] = x[i];
    }
    sort_insertion(s, low_count);
    sort_insertion(s + n - high_count, high_count);
}

/* The frame of n values; with_base: it is stored (else the caller folds it into the first value). */
static struct frame frame_find(const int64_t *x, size_t n, bool with_base)
{
    int64_t min = x[0], max = x[0];
    for (size_t i = 1; i < n; i++) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
    }
    unsigned bits = bit_length((uint64_t)max - (uint64_t)min);
    struct frame best = { .base = min, .width = frame_width(bits) };
    best.bytes = 1 + (with_base ? varint_bytes(zigzag(min)) : 0) + (n * best.width + 7) / 8;
    if (bits <= 1 || n < SORT_COUNT_MIN)
        return best;
    struct classes classes;
    classes_count(x, n, min, bits, &classes);
    if (!frame_may_shrink(&classes, n, bits))
        return best;
    int64_t s[CODEC_VECTOR_COUNT_MAX];
    sort_tails(x, n, min, bits, &classes, s);
    return frame_search(s, n, best, with_base);
}

/* Write patches and bits; at is behind width and base. Returns the end. */
static uint8_t *frame_write(const int64_t *x, size_t n, struct frame frame, uint8_t *at, bool *out_patched)
{
    uint64_t u[CODEC_VECTOR_COUNT_MAX];
    uint8_t positions[CODEC_VECTOR_COUNT_MAX];
    uint64_t mask = frame.width == 64 ? UINT64_MAX : (UINT64_C(1) << frame.width) - 1;
    size_t patches = 0;
    for (size_t i = 0; i < n; i++) {
        u[i] = (uint64_t)x[i] - (uint64_t)frame.base;
        if (u[i] > mask)
            positions[patches++] = (uint8_t)i;
    }
    *out_patched = patches != 0;
    if (patches != 0) {
        check(patches < CODEC_VECTOR_COUNT_MAX);
        *at++ = (uint8_t)patches;
        memcpy(at, positions, patches);
        at += patches;
        for (size_t i = 0; i < patches; i++) {
            at = put_varint(at, zigzag((int64_t)u[positions[i]]));
            u[positions[i]] = 0;
        }
    }
    if (frame.width == 64) {
        memcpy(at, u, n * 8);
        return at + n * 8;
    }
    uint64_t hold = 0;
    unsigned held = 0; /* bits in hold, below 8 after each step */
    for (size_t i = 0; i < n; i++) {
        hold |= u[i] << held;
        held += frame.width;
        put_le64(at, hold);
        at += held / 8;
        hold >>= held & ~7u;
        held &= 7;
    }
    if (held != 0)
        *at++ = (uint8_t)hold;
    return at;
}

/* Greatest common divisor of all q, which lie behind q[0] = 0: its odd part (the loop ends when that is 1), then
 * the power of two, *out_shift. any: all of them by `or`, not 0. */
static uint64_t common_divisor(const int64_t *q, size_t n, uint64_t any, unsigned *out_shift)
{
    unsigned shift = (unsigned)__builtin_ctzll(any);
    uint64_t g = 0;
    for (size_t i = 1; i < n && g != 1; i++) {
        uint64_t a = (q[i] < 0 ? 0 - (uint64_t)q[i] : (uint64_t)q[i]) >> shift;
        if (a == 0 || (g != 0 && a % g == 0))
            continue;
        a >>= __builtin_ctzll(a);
        while (a != 0) {
            uint64_t rest = g % a;
            g = a;
            a = rest;
        }
    }
    bool fits = bit_length(g) + shift < 64; /* a divisor is below 2^63 */
    *out_shift = fits ? shift : 0;
    return fits ? g : 1;
}

/* Exact division of all by odd << shift: the inverse of an odd number modulo 2^64 by Newton's iteration, each
 * step of which doubles the number of right bits (3 of them at the beginning). */
static void divide(int64_t *q, size_t n, uint64_t odd, unsigned shift)
{
    uint64_t inverse = odd;
    for (int step = 0; step < 5; step++)
        inverse *= 2 - odd * inverse;
    for (size_t i = 0; i < n; i++)
        q[i] = (int64_t)((uint64_t)(q[i] >> shift) * inverse);
}

struct plan {
    unsigned transform;
    struct frame frame;
    size_t bytes;
    const int64_t *x;
    size_t x_count;
};

static void plan_try(struct plan *best, unsigned transform, const int64_t *x, size_t x_count,
                     size_t extra_bytes)
{
    struct frame frame = frame_find(x, x_count, transform != INT_NONE);
    size_t bytes = frame.bytes + extra_bytes;
    if (bytes < best->bytes)
        *best = (struct plan){
            .transform = transform, .frame = frame, .bytes = bytes, .x = x, .x_count = x_count
        };
}

/* What the transforms would roughly cost, in bits. */
struct scores {
    uint64_t none, delta, delta2, bitmap;
};

static struct scores score(const int64_t *q, const int64_t *d, const int64_t *d2, size_t n, size_t nonzero)
{
    int64_t min = 0, max = 0;
    uint64_t delta = 0, delta2 = 0;
    for (size_t i = 0; i < n; i++) {
        min = q[i] < min ? q[i] : min;
        max = q[i] > max ? q[i] : max;
    }
    for (size_t i = 0; i + 1 < n; i++)
        delta += bit_length(zigzag(d[i]));
    for (size_t i = 0; i + 2 < n; i++)
        delta2 += bit_length(zigzag(d2[i]));
    return (struct scores){ .none = n * bit_length((uint64_t)max - (uint64_t)min),
                            .delta = delta + n / 2,
                            .delta2 = delta2 + n / 2,
                            .bitmap = delta + n + 16 - (n - 1 - nonzero) / 2 };
}

static void put_bitmap(const int64_t *d, size_t n, uint8_t *at)
{
    memset(at, 0, (n + 7) / 8);
    for (size_t i = 0; i < n; i++)
        at[i / 8] = (uint8_t)(at[i / 8] | (d[i] != 0) << i % 8);
}

size_t int_encode(const int64_t *values, size_t count, enum codec_effort effort, uint8_t *out)
{
    check(count >= 1 && count <= CODEC_VECTOR_COUNT_MAX);
    int64_t q[CODEC_VECTOR_COUNT_MAX], d[CODEC_VECTOR_COUNT_MAX], d2[CODEC_VECTOR_COUNT_MAX];
    int64_t nonzero[CODEC_VECTOR_COUNT_MAX];
    uint64_t any = 0;
    for (size_t i = 0; i < count; i++) {
        q[i] = minus(values[i], values[0]);
        any |= (uint64_t)q[i];
    }
    uint8_t *at = out + 1;
    if (any == 0) {
        out[0] = INT_RUN;
        return (size_t)(put_varint(at, zigzag(values[0])) - out);
    }
    unsigned shift;
    uint64_t odd = common_divisor(q, count, any, &shift), g = odd << shift;
    if (g != 1)
        divide(q, count, odd, shift);
    size_t nonzero_count = 0;
    for (size_t i = 0; i + 1 < count; i++) {
        d[i] = minus(q[i + 1], q[i]);
        nonzero[nonzero_count] = d[i];
        nonzero_count += d[i] != 0;
    }
    for (size_t i = 0; i + 2 < count; i++)
        d2[i] = minus(d[i + 1], d[i]);

    struct scores s = score(q, d, d2, count, nonzero_count);
    uint64_t least = s.none < s.delta ? s.none : s.delta;
    least = s.delta2 < least && count > 2 ? s.delta2 : least;
    bool bitmap_may = nonzero_count <= count - count / 8 && nonzero_count < count - 1;
    uint64_t slack = effort == CODEC_FULL ? least / 2 + 128 : 0;
    size_t first_bytes = varint_bytes(zigzag(values[0]));
    struct plan plan = { .bytes = SIZE_MAX };
    if (s.delta <= least + slack)
        plan_try(&plan, INT_DELTA, d, count - 1, first_bytes);
    if (bitmap_may && (effort == CODEC_FULL || s.delta <= least))
        plan_try(&plan, INT_BITMAP, nonzero, nonzero_count, first_bytes + (count + 6) / 8);
    if (s.none <= least + slack)
        plan_try(&plan, INT_NONE, q, count, first_bytes);
    if (count > 2 && (s.delta2 <= least || (effort == CODEC_FULL && s.delta2 < s.delta)))
        plan_try(&plan, INT_DELTA2, d2, count - 2, first_bytes + varint_bytes(zigzag(d[0])));
    check(plan.bytes != SIZE_MAX);

    if (g != 1)
        at = put_varint(at, g);
    if (plan.transform == INT_NONE) {
        at = put_varint(at, zigzag((int64_t)((uint64_t)values[0] + g * (uint64_t)plan.frame.base)));
    } else {
        at = put_varint(at, zigzag(values[0]));
        if (plan.transform == INT_DELTA2)
            at = put_varint(at, zigzag(d[0]));
        if (plan.transform == INT_BITMAP) {
            put_bitmap(d, count - 1, at);
            at += (count + 6) / 8;
        }
    }
    *at++ = (uint8_t)plan.frame.width;
    if (plan.transform != INT_NONE)
        at = put_varint(at, zigzag(plan.frame.base));
    bool patched;
    at = frame_write(plan.x, plan.x_count, plan.frame, at, &patched);
    out[0] = (uint8_t)(plan.transform | (g != 1 ? INT_DIVISOR : 0) | (patched ? INT_PATCHED : 0));
    check((size_t)(at - out) <= INT_VECTOR_BYTES_MAX);
    return (size_t)(at - out);
}

err int_column_encode(const int64_t *values, size_t count, enum codec_effort effort, struct buf *out)
{
    for (size_t i = 0; i < count; i += CODEC_VECTOR_COUNT_MAX) {
        size_t n = count - i < CODEC_VECTOR_COUNT_MAX ? count - i : CODEC_VECTOR_COUNT_MAX;
        uint8_t vector[INT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES];
        buf_put(out, vector, int_encode(values + i, n, effort, vector));
    }
    return buf_err(out);
}

err int_column_encode_u32(const uint32_t *values, size_t count, enum codec_effort effort, struct buf *out)
{
    for (size_t i = 0; i < count; i += CODEC_VECTOR_COUNT_MAX) {
        size_t n = count - i < CODEC_VECTOR_COUNT_MAX ? count - i : CODEC_VECTOR_COUNT_MAX;
        uint8_t vector[INT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES];
        int64_t wide[CODEC_VECTOR_COUNT_MAX];
        for (size_t k = 0; k < n; k++)
            wide[k] = values[i + k];
        buf_put(out, vector, int_encode(wide, n, effort, vector));
    }
    return buf_err(out);
}
