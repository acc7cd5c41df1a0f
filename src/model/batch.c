/* Batch records. See batch.h; the byte tables are docs/format/batch.md.
 *
 * Data comes from ingest in columns and leaves as one log record; the shard's apply turns it back. The three
 * float columns carry nearly all bytes, and each uses what real requests look like:
 *   numbers  series of one target were numbered in the order in which they keep coming: runs of +1
 *   times    samples of one scrape share their time, samples of one series are spaced evenly: runs of a delta
 *   values   counters and gauges are mostly small integers: a nibble says how many bytes follow
 *
 * Invariants
 *  1. Every 64-bit pattern of a value survives: what is not a whole number ≥ 0 whose double is bit-equal is
 *     stored as raw bytes, of which only the low zero bytes are left out.
 *  2. The decoder allocates in proportion to the bytes that are there: rows cost half a byte at least, and
 *     LZ4 expands at most 255-fold.
 *  3. Labels that the decoder hands out are canonical, numbers fit 32 bits, times are in range. */
#include "model/batch.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/time.h"
#include "codec/lz4.h"
#include "model/histogram.h"

#define BATCH_VERSION     1
#define FLAGS_KNOWN       0
#define HEADER_BYTES      36  /* signal, version, flags, incarnation, sequence, append time */
#define LZ4_FROM_BYTES    256 /* below, the frame around it eats what it saves */
#define LZ4_EXPANSION_MAX 255

/* Worst cases of one row, to reserve once for a column: a token of 34 bits and a run length; a delta of 51
 * bits and a run length; a raw value. */
#define NUMBER_BYTES_MAX 10
#define TIME_BYTES_MAX   13
#define VALUE_BYTES_MAX  8
#define SLACK_BYTES      16 /* value bytes are stored eight at a time */

const char *metric_type_text(enum metric_type type)
{
    static const char *const texts[METRIC_TYPE_COUNT] = {
        [METRIC_UNKNOWN] = "unknown",
        [METRIC_COUNTER] = "counter",
        [METRIC_GAUGE] = "gauge",
        [METRIC_HISTOGRAM] = "histogram",
        [METRIC_GAUGE_HISTOGRAM] = "gaugehistogram",
        [METRIC_SUMMARY] = "summary",
        [METRIC_INFO] = "info",
        [METRIC_STATESET] = "stateset",
    };
    return (unsigned)type < METRIC_TYPE_COUNT ? texts[type] : texts[METRIC_UNKNOWN];
}

uint8_t batch_signal(struct slice bytes) { return bytes.len > 0 ? bytes.at[0] : 0; }

/* ---- encoding ---- */

static void put_announces(const struct batch *b, struct buf *out)
{
    if (b->announce_count == 0)
        return;
    struct buf plain = buf_open(out->pool, BATCH_BYTES_MAX);
    int64_t expected = 0;
    for (size_t i = 0; i < b->announce_count; i++) {
        buf_put_zigzag(&plain, (int64_t)b->announces[i].number - expected);
        buf_put_string(&plain, b->announces[i].labels);
        expected = (int64_t)b->announces[i].number + 1;
    }
    struct buf packed = buf_open(out->pool, BATCH_BYTES_MAX);
    bool is_packed = buf_err(&plain) == OK && plain.len >= LZ4_FROM_BYTES &&
                     lz4_block_encode(buf_slice(&plain), &packed) == OK;
    buf_put_varint(out, plain.len);
    buf_put_varint(out, is_packed ? packed.len : 0);
    buf_put_slice(out, buf_slice(is_packed ? &packed : &plain));
    if (buf_err(&plain) != OK && out->failed == OK)
        out->failed = buf_err(&plain);
    buf_close(&packed);
    buf_close(&plain);
}

static void put_numbers(const struct batch *b, struct buf *out)
{
    uint8_t *begin = buf_room(out, b->row_count * NUMBER_BYTES_MAX);
    if (begin == NULL)
        return;
    uint8_t *at = begin;
    const uint32_t *numbers = b->numbers;
    uint64_t expected = 0;
    for (size_t i = 0; i < b->row_count;) {
        size_t run = 1;
        while (i + run < b->row_count && numbers[i + run] == (uint64_t)numbers[i] + run)
            run++;
        uint64_t delta = zigzag((int64_t)(numbers[i] - expected));
        at = put_varint(at, delta << 1 | (run > 1));
        if (run > 1)
            at = put_varint(at, run - 2);
        expected = (uint64_t)numbers[i] + run;
        i += run;
    }
    out->len += (size_t)(at - begin);
}

static void put_times(const struct batch *b, struct buf *out)
{
    uint8_t *begin = buf_room(out, b->row_count * TIME_BYTES_MAX);
    if (begin == NULL)
        return;
    uint8_t *at = begin;
    const int64_t *t_ms = b->t_ms;
    int64_t before = b->append_ms;
    for (size_t i = 0; i < b->row_count;) {
        int64_t delta = t_ms[i] - before;
        size_t run = 1;
        while (i + run < b->row_count && t_ms[i + run] - t_ms[i + run - 1] == delta)
            run++;
        check_hot(t_ms[i] >= TIME_MS_MIN && t_ms[i] <= TIME_MS_MAX);
        at = put_varint(at, zigzag(delta) << 1 | (run > 1));
        if (run > 1)
            at = put_varint(at, run - 2);
        before = t_ms[i + run - 1];
        i += run;
    }
    out->len += (size_t)(at - begin);
}

/* Codes 0 … 7: an integer, not negative, in that many bytes. 8 + k: the raw bits without their k low bytes,
 * which are zero; small negative integers take two or three bytes that way. */
static inline unsigned value_code(uint64_t bits, uint64_t *out_payload)
{
    double v = bits_double(bits);
    if (v >= 0 && v < 9007199254740992.0) {
        int64_t whole = (int64_t)v;
        if (double_bits((double)whole) == bits) {
            *out_payload = (uint64_t)whole;
            return whole == 0 ? 0 : (71 - (unsigned)__builtin_clzll((uint64_t)whole)) / 8;
        }
    }
    unsigned zero_bytes = (unsigned)__builtin_ctzll(bits) / 8; /* bits 0 is the integer 0 */
    *out_payload = bits >> (8 * zero_bytes);
    return 8 + zero_bytes;
}

static const uint8_t code_bytes[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1 };

static void put_values(const struct batch *b, struct buf *out)
{
    size_t count = b->row_count;
    uint8_t *codes = buf_room(out, (count + 1) / 2 + count * VALUE_BYTES_MAX + SLACK_BYTES);
    if (codes == NULL)
        return;
    uint8_t *at = codes + (count + 1) / 2;
    for (size_t i = 0; i < count; i += 2) {
        uint64_t payload;
        unsigned low = value_code(b->value_bits[i], &payload), high = 0;
        put_le64(at, payload);
        at += code_bytes[low];
        if (i + 1 < count) {
            high = value_code(b->value_bits[i + 1], &payload);
            put_le64(at, payload);
            at += code_bytes[high];
        }
        codes[i / 2] = (uint8_t)(low | high << 4);
    }
    out->len += (size_t)(at - codes);
}

static void put_rare(const struct batch *b, struct buf *out)
{
    int64_t row = -1, start_ms = b->append_ms;
    for (size_t i = 0; i < b->start_count; i++) {
        const struct batch_start *start = &b->starts[i];
        check((int64_t)start->row > row && start->row < b->row_count);
        buf_put_varint(out, (uint64_t)((int64_t)start->row - row - 1));
        buf_put_zigzag(out, start->start_ms - start_ms);
        row = start->row;
        start_ms = start->start_ms;
    }
    int64_t number = 0, t_ms = b->append_ms;
    for (size_t i = 0; i < b->histogram_count; i++) {
        const struct batch_histogram *h = &b->histograms[i];
        buf_put_zigzag(out, (int64_t)h->number - number);
        buf_put_zigzag(out, h->t_ms - t_ms);
        buf_put_zigzag(out, h->start_ms);
        buf_put_string(out, h->bytes);
        number = h->number;
        t_ms = h->t_ms;
    }
    number = 0;
    t_ms = b->append_ms;
    for (size_t i = 0; i < b->exemplar_count; i++) {
        const struct batch_exemplar *x = &b->exemplars[i];
        buf_put_zigzag(out, (int64_t)x->number - number);
        buf_put_zigzag(out, x->t_ms - t_ms);
        buf_put_le64(out, double_bits(x->value));
        buf_put_string(out, x->labels);
        number = x->number;
        t_ms = x->t_ms;
    }
    for (size_t i = 0; i < b->metadata_count; i++) {
        const struct batch_metadata *m = &b->metadata[i];
        buf_put_string(out, m->family);
        buf_put_u8(out, m->type);
        buf_put_string(out, m->help);
        buf_put_string(out, m->unit);
    }
}

void batch_set_sequence(uint8_t *record, uint64_t sequence) { put_le64(record + 20, sequence); }

void batch_set_append_ms(uint8_t *record, int64_t append_ms)
{
    check(append_ms >= TIME_MS_MIN && append_ms <= TIME_MS_MAX);
    put_le64(record + 28, (uint64_t)append_ms);
}

#define COUNTS 6 /* announces first */

/* The head up to the count of announces is the same, all other counts are 0, and of the sections theirs is
 * first. */
size_t batch_put_announces(struct slice record, uint8_t *out)
{
    struct reader r = reader_of(record);
    (void)read_bytes(&r, HEADER_BYTES);
    (void)read_string(&r);
    uint64_t announces = read_varint(&r);
    size_t head = (size_t)(r.at - record.at);
    for (int i = 1; i < COUNTS; i++)
        (void)read_varint(&r);
    if (announces == 0)
        return 0;
    const uint8_t *section = r.at;
    uint64_t plain_bytes = read_varint(&r), packed_bytes = read_varint(&r);
    (void)read_bytes(&r, (size_t)(packed_bytes > 0 ? packed_bytes : plain_bytes));
    check(r.ok);
    size_t section_bytes = (size_t)(r.at - section);
    if (out != NULL) {
        memcpy(out, record.at, head);
        memset(out + head, 0, COUNTS - 1);
        memcpy(out + head + COUNTS - 1, section, section_bytes);
    }
    return head + COUNTS - 1 + section_bytes;
}

err batch_encode(const struct batch *b, struct buf *out)
{
    check(b->tenant.len > 0 && b->tenant.len <= TENANT_BYTES_MAX);
    check(b->append_ms >= TIME_MS_MIN && b->append_ms <= TIME_MS_MAX);
    check(b->row_count <= BATCH_ROWS_MAX);
    size_t before = out->len;
    uint8_t header[HEADER_BYTES] = { b->signal, BATCH_VERSION };
    memcpy(header + 4, b->incarnation, INCARNATION_BYTES);
    batch_set_sequence(header, b->sequence);
    put_le64(header + 28, (uint64_t)b->append_ms);
    buf_put(out, header, sizeof header);
    buf_put_string(out, b->tenant);
    buf_put_varint(out, b->announce_count);
    buf_put_varint(out, b->row_count);
    buf_put_varint(out, b->start_count);
    buf_put_varint(out, b->histogram_count);
    buf_put_varint(out, b->exemplar_count);
    buf_put_varint(out, b->metadata_count);
    put_announces(b, out);
    if (b->row_count > 0) {
        put_numbers(b, out);
        put_times(b, out);
        put_values(b, out);
    }
    put_rare(b, out);
    if (buf_err(out) == OK && out->len - before > BATCH_BYTES_MAX) {
        out->len = before;
        return ERR_LIMIT;
    }
    return buf_err(out);
}

/* ---- decoding ---- */

static bool time_ok(int64_t t_ms) { return t_ms >= TIME_MS_MIN && t_ms <= TIME_MS_MAX; }

/* before + delta without overflow; anything out of range comes out as a time that time_ok refuses. */
static int64_t time_after(int64_t before, int64_t delta)
{
    int64_t t_ms;
    return __builtin_add_overflow(before, delta, &t_ms) ? INT64_MAX : t_ms;
}

static err read_announces(struct reader *r, struct pool *pool, struct batch *b)
{
    if (b->announce_count == 0)
        return OK;
    uint64_t plain_bytes = read_varint(r), packed_bytes = read_varint(r);
    if (!r->ok || plain_bytes > BATCH_BYTES_MAX || packed_bytes > read_left(r))
        return ERR_CORRUPT;
    struct slice plain;
    if (packed_bytes == 0) {
        plain = read_bytes(r, (size_t)plain_bytes);
    } else {
        if (plain_bytes / LZ4_EXPANSION_MAX > packed_bytes)
            return ERR_CORRUPT;
        void *at;
        TRY(pool_alloc(pool, plain_bytes + 1, &at));
        TRY(lz4_block_decode(read_bytes(r, (size_t)packed_bytes), at, (size_t)plain_bytes));
        plain = slice_of(at, (size_t)plain_bytes);
    }
    if (!r->ok || b->announce_count > plain.len / 2) /* two varints at least */
        return ERR_CORRUPT;
    void *announces;
    TRY(pool_alloc(pool, b->announce_count * sizeof b->announces[0], &announces));
    b->announces = announces;
    struct reader p = reader_of(plain);
    int64_t expected = 0;
    for (size_t i = 0; i < b->announce_count; i++) {
        int64_t number = time_after(expected, read_zigzag(&p));
        b->announces[i].labels = read_string(&p);
        if (!p.ok || number < 0 || number > UINT32_MAX || labels_check(b->announces[i].labels, NULL) != OK)
            return ERR_CORRUPT;
        b->announces[i].number = (uint32_t)number;
        expected = number + 1;
    }
    return p.at == p.end ? OK : ERR_CORRUPT;
}

/* A token: a zigzag delta and how many rows it stands for, at most `left`. 0 rows: malformed. */
static inline size_t read_token(struct reader *r, size_t left, int64_t *out_delta)
{
    uint64_t token = r->at != r->end && *r->at < 0x80 ? *r->at++ : read_varint(r);
    *out_delta = unzigzag(token >> 1);
    if ((token & 1) == 0)
        return r->ok ? 1 : 0;
    uint64_t more = read_varint(r);
    return r->ok && more < left - 1 ? (size_t)more + 2 : 0;
}

static err read_numbers(struct reader *r, struct batch *b)
{
    int64_t expected = 0;
    for (size_t i = 0; i < b->row_count;) {
        int64_t delta;
        size_t run = read_token(r, b->row_count - i, &delta);
        int64_t number = expected + delta; /* both below 2^63 / 2: no overflow */
        if (run == 0 || run > b->row_count - i || number < 0 || number + (int64_t)run - 1 > UINT32_MAX)
            return ERR_CORRUPT;
        for (size_t k = 0; k < run; k++)
            b->numbers[i + k] = (uint32_t)number + (uint32_t)k;
        expected = number + (int64_t)run;
        i += run;
    }
    return OK;
}

static err read_times(struct reader *r, struct batch *b)
{
    int64_t t_ms = b->append_ms;
    for (size_t i = 0; i < b->row_count;) {
        int64_t delta;
        size_t run = read_token(r, b->row_count - i, &delta);
        if (run == 0 || run > b->row_count - i || delta > 2 * TIME_MS_MAX || delta < 2 * TIME_MS_MIN)
            return ERR_CORRUPT;
        for (size_t k = 0; k < run; k++) {
            t_ms += delta;
            if (!time_ok(t_ms))
                return ERR_CORRUPT;
            b->t_ms[i + k] = t_ms;
        }
        i += run;
    }
    return OK;
}

static inline uint64_t value_bits(unsigned code, uint64_t payload)
{
    if (code >= 8)
        return payload << (8 * (code - 8));
    return double_bits((double)payload);
}

static err read_values(struct reader *r, struct batch *b)
{
    static const uint64_t masks[9] = {
        0,
        0xff,
        0xffff,
        0xffffff,
        0xffffffff,
        UINT64_C(0xffffffffff),
        UINT64_C(0xffffffffffff),
        UINT64_C(0xffffffffffffff),
        UINT64_MAX,
    };
    const uint8_t *codes = read_bytes(r, (b->row_count + 1) / 2).at;
    if (!r->ok)
        return ERR_CORRUPT;
    for (size_t i = 0; i < b->row_count; i++) {
        unsigned code = codes[i / 2] >> (4 * (i & 1)) & 15;
        size_t bytes = code_bytes[code];
        uint64_t payload = 0;
        if (read_left(r) >= 8)
            payload = get_le64(r->at) & masks[bytes];
        else if (read_left(r) >= bytes)
            memcpy(&payload, r->at, bytes);
        else
            return ERR_CORRUPT;
        r->at += bytes;
        b->value_bits[i] = value_bits(code, payload);
    }
    if (b->row_count % 2 == 1 && codes[b->row_count / 2] >> 4 != 0)
        return ERR_CORRUPT;
    return OK;
}

static err read_rows(struct reader *r, struct pool *pool, struct batch *b)
{
    if (b->row_count == 0)
        return OK;
    void *numbers, *times, *values;
    TRY(pool_alloc(pool, b->row_count * sizeof b->numbers[0], &numbers));
    TRY(pool_alloc(pool, b->row_count * sizeof b->t_ms[0], &times));
    TRY(pool_alloc(pool, b->row_count * sizeof b->value_bits[0], &values));
    b->numbers = numbers;
    b->t_ms = times;
    b->value_bits = values;
    TRY(read_numbers(r, b));
    TRY(read_times(r, b));
    return read_values(r, b);
}

static err read_starts(struct reader *r, struct pool *pool, struct batch *b)
{
    void *at;
    TRY(pool_alloc(pool, b->start_count * sizeof b->starts[0] + 1, &at));
    b->starts = at;
    uint64_t next_row = 0;
    int64_t start_ms = b->append_ms;
    for (size_t i = 0; i < b->start_count; i++) {
        uint64_t gap = read_varint(r);
        start_ms = time_after(start_ms, read_zigzag(r));
        if (!r->ok || gap >= b->row_count - next_row || !time_ok(start_ms))
            return ERR_CORRUPT;
        next_row += gap;
        b->starts[i] = (struct batch_start){ .row = (uint32_t)next_row++, .start_ms = start_ms };
    }
    return OK;
}

static err read_histograms(struct reader *r, struct pool *pool, struct batch *b)
{
    void *at;
    TRY(pool_alloc(pool, b->histogram_count * sizeof b->histograms[0] + 1, &at));
    b->histograms = at;
    int64_t number = 0, t_ms = b->append_ms;
    for (size_t i = 0; i < b->histogram_count; i++) {
        number = time_after(number, read_zigzag(r));
        t_ms = time_after(t_ms, read_zigzag(r));
        int64_t start_ms = read_zigzag(r);
        struct slice bytes = read_string(r);
        if (!r->ok || number < 0 || number > UINT32_MAX || !time_ok(t_ms) || !time_ok(start_ms) ||
            bytes.len > HISTOGRAM_BYTES_MAX || bytes.len == 0)
            return ERR_CORRUPT;
        b->histograms[i] = (struct batch_histogram){ (uint32_t)number, t_ms, start_ms, bytes };
    }
    return OK;
}

static err read_exemplars(struct reader *r, struct pool *pool, struct batch *b)
{
    void *at;
    TRY(pool_alloc(pool, b->exemplar_count * sizeof b->exemplars[0] + 1, &at));
    b->exemplars = at;
    int64_t number = 0, t_ms = b->append_ms;
    for (size_t i = 0; i < b->exemplar_count; i++) {
        number = time_after(number, read_zigzag(r));
        t_ms = time_after(t_ms, read_zigzag(r));
        double value = bits_double(read_le64(r));
        struct slice labels = read_string(r);
        if (!r->ok || number < 0 || number > UINT32_MAX || !time_ok(t_ms) || labels_check(labels, NULL) != OK)
            return ERR_CORRUPT;
        b->exemplars[i] = (struct batch_exemplar){ (uint32_t)number, t_ms, value, labels };
    }
    return OK;
}

static err read_metadata(struct reader *r, struct pool *pool, struct batch *b)
{
    void *at;
    TRY(pool_alloc(pool, b->metadata_count * sizeof b->metadata[0] + 1, &at));
    b->metadata = at;
    for (size_t i = 0; i < b->metadata_count; i++) {
        struct batch_metadata *m = &b->metadata[i];
        m->family = read_string(r);
        m->type = read_u8(r);
        m->help = read_string(r);
        m->unit = read_string(r);
        if (!r->ok || m->type >= METRIC_TYPE_COUNT || m->family.len == 0)
            return ERR_CORRUPT;
    }
    return OK;
}

/* A count of things that take at least `bytes_each` of what is left. */
static size_t read_count(struct reader *r, size_t bytes_each, size_t each)
{
    uint64_t count = read_varint(r);
    if (count > read_left(r) / bytes_each * each) {
        read_bad(r);
        return 0;
    }
    return (size_t)count;
}

err batch_decode(struct slice bytes, struct pool *pool, struct batch *out_batch)
{
    struct reader r = reader_of(bytes);
    struct batch b = { .signal = read_u8(&r) };
    uint8_t version = read_u8(&r);
    uint16_t flags = read_le16(&r);
    if (!r.ok || b.signal != SIGNAL_METRIC)
        return ERR_CORRUPT;
    if (version != BATCH_VERSION || flags != FLAGS_KNOWN)
        return ERR_VERSION;
    struct slice incarnation = read_bytes(&r, INCARNATION_BYTES);
    b.sequence = read_le64(&r);
    b.append_ms = (int64_t)read_le64(&r);
    b.tenant = read_string(&r);
    if (!r.ok || b.tenant.len == 0 || b.tenant.len > TENANT_BYTES_MAX || !time_ok(b.append_ms))
        return ERR_CORRUPT;
    memcpy(b.incarnation, incarnation.at, INCARNATION_BYTES);
    uint64_t announce_count = read_varint(&r);
    b.row_count = read_count(&r, 1, 2);
    b.start_count = read_count(&r, 2, 1);
    b.histogram_count = read_count(&r, 4, 1);
    b.exemplar_count = read_count(&r, 11, 1);
    b.metadata_count = read_count(&r, 4, 1);
    if (!r.ok || b.row_count > BATCH_ROWS_MAX || b.start_count > b.row_count ||
        announce_count > BATCH_BYTES_MAX)
        return ERR_CORRUPT;
    b.announce_count = (size_t)announce_count;
    TRY(read_announces(&r, pool, &b));
    TRY(read_rows(&r, pool, &b));
    TRY(read_starts(&r, pool, &b));
    TRY(read_histograms(&r, pool, &b));
    TRY(read_exemplars(&r, pool, &b));
    TRY(read_metadata(&r, pool, &b));
    if (r.at != r.end)
        return ERR_CORRUPT;
    *out_batch = b;
    return OK;
}
