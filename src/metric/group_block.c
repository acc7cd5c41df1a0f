/* The coding of one series in a block of a row group. See docs/format/stream-group.md §3.
 *
 * Rows come from the encoder in arrival order and go back in the same order; nothing is sorted or dropped.
 * Series of one target share their timestamps, so most say "as the series before" and spend nothing on times.
 * Values are what monitoring sends: constants, counters, decimals; they become integers by a power of ten and
 * are stored as differences. What no power of ten expresses exactly is XORed with the value before.
 *
 * Invariants
 *  1. A mode is taken only if decoding gives back all 64 bits of every value: the encoder tries it.
 *  2. The decoder writes at most rows_max rows and histograms_max histograms whatever the bytes say. */
#include "metric/group_block.h"

#include "base/check.h"
#include "metric/group_format.h"

#include <string.h>

static const double powers[MODE_SCALE_MAX + 1] = { 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9 };

#define INTEGER_MAX 9007199254740992.0 /* 2^53: up to here every integer is a double */

/* ---- values ---- */

/* value × 10^scale as an integer, if dividing gives back the very bits. */
static inline bool as_integer(uint64_t bits, unsigned scale, int64_t *out_integer)
{
    double value = bits_double(bits), scaled = scale == 0 ? value : value * powers[scale];
    if (!(scaled > -INTEGER_MAX && scaled < INTEGER_MAX)) /* also NaN */
        return false;
    int64_t integer = (int64_t)(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    *out_integer = integer;
    return double_bits(scale == 0 ? (double)integer : (double)integer / powers[scale]) == bits;
}

/* All values as integers of one scale, the smallest that serves; MODE_XOR when none does. */
static unsigned choose_scale(const uint64_t *bits, uint32_t count, int64_t *integers)
{
    for (unsigned scale = 0; scale <= MODE_SCALE_MAX; scale++) {
        uint32_t i = 0;
        while (i < count && as_integer(bits[i], scale, &integers[i]))
            i++;
        if (i == count)
            return scale;
        /* What the largest scale cannot hold, no smaller one holds, unless it is too large for it. */
        int64_t integer;
        double value = bits_double(bits[i]) * powers[MODE_SCALE_MAX];
        if (!(value <= -INTEGER_MAX || value >= INTEGER_MAX) &&
            !as_integer(bits[i], MODE_SCALE_MAX, &integer))
            return MODE_XOR;
    }
    return MODE_XOR;
}

static unsigned choose_mode(const uint64_t *bits, uint32_t count, int64_t *integers)
{
    bool constant = true;
    for (uint32_t i = 1; i < count && constant; i++)
        constant = bits[i] == bits[0];
    if (constant && (count > 4 || !as_integer(bits[0], 0, &integers[0])))
        return MODE_CONSTANT;
    return choose_scale(bits, count, integers);
}

static uint8_t *put_xor(uint8_t *at, uint64_t x)
{
    if (x == 0) {
        *at++ = 0;
        return at;
    }
    unsigned low = (unsigned)__builtin_ctzll(x) / 8, len = 8 - (unsigned)__builtin_clzll(x) / 8 - low;
    *at++ = (uint8_t)(len << 4 | low);
    x >>= 8 * low;
    memcpy(at, &x, 8);
    return at + len;
}

static void encode_values(const uint64_t *bits, const int64_t *integers, uint32_t count, unsigned mode,
                          struct buf *out)
{
    if (mode == MODE_CONSTANT) {
        buf_put_le64(out, bits[0]);
        return;
    }
    uint8_t *at = buf_room(out, (size_t)count * VARINT_BYTES_MAX + 8);
    if (at == NULL)
        return;
    uint64_t before = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (mode == MODE_XOR) {
            at = put_xor(at, bits[i] ^ before);
            before = bits[i];
        } else {
            at = put_varint(at, zigzag((int64_t)((uint64_t)integers[i] - before)));
            before = (uint64_t)integers[i];
        }
    }
    out->len = (size_t)(at - out->at);
}

static err decode_xor(struct reader *r, uint32_t count, uint64_t *bits)
{
    uint64_t before = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t control = read_u8(r);
        unsigned len = control >> 4, low = control & 15;
        if (len + low > 8)
            return ERR_CORRUPT;
        struct slice bytes = read_bytes(r, len);
        uint64_t x = 0;
        if (bytes.len > 0)
            memcpy(&x, bytes.at, bytes.len);
        before ^= low == 8 ? 0 : x << 8 * low;
        bits[i] = before;
    }
    return r->ok ? OK : ERR_CORRUPT;
}

static err decode_values(struct reader *r, unsigned mode, uint32_t count, uint64_t *bits)
{
    if (mode == MODE_XOR)
        return decode_xor(r, count, bits);
    if (mode == MODE_CONSTANT) {
        uint64_t value = read_le64(r);
        for (uint32_t i = 0; i < count; i++)
            bits[i] = value;
        return r->ok ? OK : ERR_CORRUPT;
    }
    if (mode > MODE_SCALE_MAX)
        return ERR_CORRUPT;
    uint64_t integer = 0;
    struct reader at = *r; /* a copy that nobody points to stays in registers */
    for (uint32_t i = 0; i < count; i++) {
        integer += (uint64_t)unzigzag(read_varint(&at));
        bits[i] = double_bits((double)(int64_t)integer);
    }
    *r = at;
    for (uint32_t i = 0; i < count && mode > 0; i++)
        bits[i] = double_bits(bits_double(bits[i]) / powers[mode]);
    return r->ok ? OK : ERR_CORRUPT;
}

/* ---- times ---- */

/* First time as a difference to the first of the series before, then differences of differences. All modulo
 * 2^64, so any times come back. */
static void encode_times(const int64_t *t_ms, uint32_t count, int64_t reference, struct buf *out)
{
    uint8_t *at = buf_room(out, (size_t)count * VARINT_BYTES_MAX);
    if (at == NULL)
        return;
    uint64_t before = (uint64_t)reference, delta = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t now = (uint64_t)t_ms[i] - before;
        at = put_varint(at, zigzag((int64_t)(now - delta)));
        delta = i == 0 ? 0 : now;
        before = (uint64_t)t_ms[i];
    }
    out->len = (size_t)(at - out->at);
}

static err decode_times(struct reader *r, uint32_t count, int64_t reference, int64_t *t_ms)
{
    uint64_t before = (uint64_t)reference, delta = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t now = delta + (uint64_t)unzigzag(read_varint(r));
        before += now;
        t_ms[i] = (int64_t)before;
        delta = i == 0 ? 0 : now;
    }
    return r->ok ? OK : ERR_CORRUPT;
}

/* ---- start times: runs of equal ones ---- */

static void encode_starts(const int64_t *start_ms, uint32_t count, struct buf *out)
{
    uint64_t before = 0;
    for (uint32_t i = 0; i < count;) {
        uint32_t run = 1;
        while (i + run < count && start_ms[i + run] == start_ms[i])
            run++;
        buf_put_varint(out, run);
        buf_put_zigzag(out, (int64_t)((uint64_t)start_ms[i] - before));
        before = (uint64_t)start_ms[i];
        i += run;
    }
}

static err decode_starts(struct reader *r, uint32_t count, int64_t *start_ms)
{
    uint64_t before = 0;
    for (uint32_t i = 0; i < count;) {
        uint64_t run = read_varint(r);
        before += (uint64_t)read_zigzag(r);
        if (!r->ok || run == 0 || run > count - i)
            return ERR_CORRUPT;
        for (uint64_t k = 0; k < run; k++)
            start_ms[i++] = (int64_t)before;
    }
    return OK;
}

/* ---- histograms ---- */

static void encode_histograms(const struct group_rows *rows, struct buf *out)
{
    uint32_t before = 0;
    uint64_t t_ms = 0;
    for (uint32_t i = 0; i < rows->histogram_count; i++) {
        const struct metric_group_histogram *h = &rows->histograms[i];
        buf_put_varint(out, h->before - before);
        buf_put_zigzag(out, (int64_t)((uint64_t)h->t_ms - t_ms));
        buf_put_zigzag(out, h->start_ms);
        buf_put_string(out, h->bytes);
        before = h->before;
        t_ms = (uint64_t)h->t_ms;
    }
}

static err decode_histograms(struct reader *r, struct group_rows *rows)
{
    uint64_t before = 0, t_ms = 0;
    for (uint32_t i = 0; i < rows->histogram_count; i++) {
        uint64_t gap = read_varint(r);
        t_ms += (uint64_t)read_zigzag(r);
        int64_t start_ms = read_zigzag(r);
        struct slice bytes = read_string(r);
        if (!r->ok || gap > rows->row_count - before)
            return ERR_CORRUPT;
        before += gap;
        rows->histograms[i] = (struct metric_group_histogram){
            .before = (uint32_t)before, .t_ms = (int64_t)t_ms, .start_ms = start_ms, .bytes = bytes
        };
    }
    return OK;
}

/* ---- a series ---- */

static void encode_body(const struct group_rows *rows, unsigned mode, struct buf *out)
{
    if (rows->row_count > 0)
        encode_values(rows->bits, rows->integers, rows->row_count, mode, out);
    if (rows->has_starts)
        encode_starts(rows->start_ms, rows->row_count, out);
    if (rows->histogram_count > 0)
        encode_histograms(rows, out);
}

void group_series_encode(const struct group_rows *rows, const struct group_rows *before, struct buf *scratch,
                         struct buf *out)
{
    uint32_t count = rows->row_count;
    unsigned mode = count == 0 ? 0 : choose_mode(rows->bits, count, rows->integers);
    uint8_t flags = (uint8_t)mode;
    if (before != NULL && before->row_count == count) {
        flags |= SERIES_SAME_COUNT;
        if (count > 0 && memcmp(before->t_ms, rows->t_ms, count * sizeof *rows->t_ms) == 0)
            flags |= SERIES_SAME_TIMES;
    }
    if (rows->has_starts)
        flags |= SERIES_HAS_STARTS;
    if (rows->histogram_count > 0)
        flags |= SERIES_HAS_HISTOGRAMS;
    if (before != NULL)
        buf_put_varint(out, rows->number - before->number - 1);
    buf_put_u8(out, flags);
    if ((flags & SERIES_SAME_COUNT) == 0)
        buf_put_varint(out, count);
    if (rows->histogram_count > 0)
        buf_put_varint(out, rows->histogram_count);
    if (count > 0 && (flags & SERIES_SAME_TIMES) == 0)
        encode_times(rows->t_ms, count, before != NULL && before->row_count > 0 ? before->t_ms[0] : 0, out);
    buf_clear(scratch);
    encode_body(rows, mode, scratch);
    out->failed = out->failed == OK ? buf_err(scratch) : out->failed;
    buf_put_string(out, buf_slice(scratch));
}

err group_series_head(struct reader *r, const struct group_rows *before, uint32_t first_number,
                      uint32_t rows_max, uint32_t histograms_max, struct group_rows *rows)
{
    uint64_t number = first_number;
    if (before != NULL) {
        uint64_t gap = read_varint(r);
        number = (uint64_t)before->number + 1 + (gap < UINT32_MAX ? gap : UINT32_MAX);
    }
    uint8_t flags = read_u8(r);
    if (!r->ok || number >= UINT32_MAX)
        return ERR_CORRUPT;
    bool same_count = (flags & SERIES_SAME_COUNT) != 0, same_times = (flags & SERIES_SAME_TIMES) != 0;
    if ((same_count && before == NULL) || (same_times && !same_count))
        return ERR_CORRUPT;
    uint64_t count = same_count ? before->row_count : read_varint(r);
    uint64_t histogram_count = (flags & SERIES_HAS_HISTOGRAMS) != 0 ? read_varint(r) : 0;
    if (!r->ok || count > rows_max || histogram_count > histograms_max)
        return ERR_CORRUPT;
    rows->number = (uint32_t)number;
    rows->row_count = (uint32_t)count;
    rows->histogram_count = (uint32_t)histogram_count;
    rows->flags = flags;
    rows->has_starts = (flags & SERIES_HAS_STARTS) != 0;
    if (same_times)
        memcpy(rows->t_ms, before->t_ms, count * sizeof *rows->t_ms);
    else if (count > 0)
        TRY(decode_times(r, rows->row_count, before != NULL && before->row_count > 0 ? before->t_ms[0] : 0,
                         rows->t_ms));
    rows->rest = read_string(r);
    return r->ok ? OK : ERR_CORRUPT;
}

err group_series_body(struct group_rows *rows)
{
    struct reader r = reader_of(rows->rest);
    if (rows->row_count > 0)
        TRY(decode_values(&r, rows->flags & SERIES_MODE_MASK, rows->row_count, rows->bits));
    if (rows->has_starts)
        TRY(decode_starts(&r, rows->row_count, rows->start_ms));
    if (rows->histogram_count > 0)
        TRY(decode_histograms(&r, rows));
    return r.at == r.end ? OK : ERR_CORRUPT;
}
