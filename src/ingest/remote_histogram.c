/* The Histogram message of remote write 1.0 and 2.0 → struct histogram. See request.h.
 *
 *   count = 1 uint64 | 2 double, sum = 3, schema = 4 sint32, zero_threshold = 5, zero_count = 6 uint64 | 7 double,
 *   negative spans = 8, deltas = 9 sint64, counts = 10 double, positive spans = 11, deltas = 12, counts = 13,
 *   reset_hint = 14, timestamp = 15, custom_values = 16 double, start_timestamp = 17 (2.0)
 *
 * Repeated numbers come packed or one by one; both are read. A first pass counts, so that arrays are allocated
 * once, in proportion to the bytes that are there. */
#include "ingest/protobuf.h"
#include "ingest/request.h"

enum side { NEGATIVE, POSITIVE };

struct counts {
    size_t spans[2], deltas[2], floats[2], custom;
};

static size_t count_varints(struct slice s)
{
    size_t count = 0;
    for (size_t i = 0; i < s.len; i++)
        count += s.at[i] < 0x80;
    return count;
}

static size_t count_doubles(const struct field *f) { return f->wire == WIRE_BYTES ? f->bytes.len / 8 : 1; }

static bool count_fields(struct slice message, struct counts *c)
{
    struct reader r = reader_of(message);
    struct field f;
    while (field_next(&r, &f)) {
        enum side side = f.number >= 11 ? POSITIVE : NEGATIVE;
        if (f.number == 8 || f.number == 11)
            c->spans[side]++;
        else if (f.number == 9 || f.number == 12)
            c->deltas[side] += f.wire == WIRE_BYTES ? count_varints(f.bytes) : 1;
        else if (f.number == 10 || f.number == 13)
            c->floats[side] += count_doubles(&f);
        else if (f.number == 16)
            c->custom += count_doubles(&f);
    }
    return r.ok;
}

static err read_span(struct slice message, struct histogram_span *out_span, struct err_at *at)
{
    struct reader r = reader_of(message);
    struct field f;
    struct histogram_span span = { 0 };
    while (field_next(&r, &f)) {
        if (field_is(&f, 1, WIRE_VARINT))
            span.offset = (int32_t)field_sint(&f);
        else if (field_is(&f, 2, WIRE_VARINT))
            span.length = (uint32_t)f.value;
    }
    *out_span = span;
    return r.ok ? OK : err_set(at, ERR_INPUT, "malformed histogram span");
}

static err read_deltas(const struct field *f, int64_t *deltas, size_t *count, struct err_at *at)
{
    if (f->wire == WIRE_VARINT)
        deltas[(*count)++] = field_sint(f);
    struct reader r = reader_of(f->wire == WIRE_BYTES ? f->bytes : slice_of(NULL, 0));
    while (r.at != r.end) {
        int64_t delta = unzigzag(read_varint(&r));
        if (!r.ok)
            return err_set(at, ERR_INPUT, "malformed histogram deltas");
        deltas[(*count)++] = delta;
    }
    return OK;
}

static err read_doubles(const struct field *f, double *values, size_t *count, struct err_at *at)
{
    if (f->wire == WIRE_64)
        values[(*count)++] = field_double(f);
    if (f->wire != WIRE_BYTES)
        return OK;
    if (f->bytes.len % 8 != 0)
        return err_set(at, ERR_INPUT, "malformed histogram counts");
    for (size_t i = 0; i < f->bytes.len; i += 8)
        values[(*count)++] = bits_double(get_le64(f->bytes.at + i));
    return OK;
}

static err allot(struct ingest_request *r, const struct counts *c, struct histogram *h)
{
    void *at;
    TRY(pool_alloc(r->pool, c->spans[POSITIVE] * sizeof(struct histogram_span) + 1, &at));
    h->positive_spans = at;
    TRY(pool_alloc(r->pool, c->spans[NEGATIVE] * sizeof(struct histogram_span) + 1, &at));
    h->negative_spans = at;
    TRY(pool_alloc(r->pool, c->deltas[POSITIVE] * sizeof(int64_t) + 1, &at));
    h->positive_deltas = at;
    TRY(pool_alloc(r->pool, c->deltas[NEGATIVE] * sizeof(int64_t) + 1, &at));
    h->negative_deltas = at;
    TRY(pool_alloc(r->pool, c->floats[POSITIVE] * sizeof(double) + 1, &at));
    h->positive_counts = at;
    TRY(pool_alloc(r->pool, c->floats[NEGATIVE] * sizeof(double) + 1, &at));
    h->negative_counts = at;
    TRY(pool_alloc(r->pool, c->custom * sizeof(double) + 1, &at));
    h->custom_values = at;
    return OK;
}

struct times {
    int64_t t_ms;
    int64_t start_ms;
};

static err read_field(const struct field *f, struct histogram *h, struct counts *got, struct times *times,
                      struct err_at *at)
{
    switch (f->number) {
    case 1:
        h->count_int = f->value;
        h->is_float = false;
        break;
    case 2:
        h->count_float = field_double(f);
        h->is_float = true;
        break;
    case 3:
        h->sum = field_double(f);
        break;
    case 4:
        h->schema = (int32_t)field_sint(f);
        break;
    case 5:
        h->zero_threshold = field_double(f);
        break;
    case 6:
        h->zero_count_int = f->value;
        break;
    case 7:
        h->zero_count_float = field_double(f);
        break;
    case 8:
        return read_span(f->bytes, &h->negative_spans[got->spans[NEGATIVE]++], at);
    case 11:
        return read_span(f->bytes, &h->positive_spans[got->spans[POSITIVE]++], at);
    case 9:
        return read_deltas(f, h->negative_deltas, &got->deltas[NEGATIVE], at);
    case 12:
        return read_deltas(f, h->positive_deltas, &got->deltas[POSITIVE], at);
    case 10:
        return read_doubles(f, h->negative_counts, &got->floats[NEGATIVE], at);
    case 13:
        return read_doubles(f, h->positive_counts, &got->floats[POSITIVE], at);
    case 14:
        h->hint = f->value <= HINT_GAUGE ? (enum histogram_hint)f->value : HINT_UNKNOWN;
        break;
    case 15:
        times->t_ms = field_int(f);
        break;
    case 16:
        return read_doubles(f, h->custom_values, &got->custom, at);
    case 17:
        times->start_ms = field_int(f);
        break;
    }
    return OK;
}

/* The wire types of fields 1 … 17: a field with another type is skipped like an unknown one. */
static bool is_known(const struct field *f)
{
    static const uint8_t wires[18] = {
        [1] = 1 << WIRE_VARINT,
        [2] = 1 << WIRE_64,
        [3] = 1 << WIRE_64,
        [4] = 1 << WIRE_VARINT,
        [5] = 1 << WIRE_64,
        [6] = 1 << WIRE_VARINT,
        [7] = 1 << WIRE_64,
        [8] = 1 << WIRE_BYTES,
        [9] = 1 << WIRE_BYTES | 1 << WIRE_VARINT,
        [10] = 1 << WIRE_BYTES | 1 << WIRE_64,
        [11] = 1 << WIRE_BYTES,
        [12] = 1 << WIRE_BYTES | 1 << WIRE_VARINT,
        [13] = 1 << WIRE_BYTES | 1 << WIRE_64,
        [14] = 1 << WIRE_VARINT,
        [15] = 1 << WIRE_VARINT,
        [16] = 1 << WIRE_BYTES | 1 << WIRE_64,
        [17] = 1 << WIRE_VARINT,
    };
    return f->number < 18 && (wires[f->number] >> f->wire & 1) != 0;
}

err remote_histogram_decode(struct ingest_request *r, struct series_ref *ref, struct slice message,
                            struct err_at *at)
{
    struct counts counts = { 0 }, got = { 0 };
    if (!count_fields(message, &counts))
        return err_set(at, ERR_INPUT, "malformed histogram");
    struct histogram h = { 0 };
    struct times times = { 0 };
    TRY(allot(r, &counts, &h));
    struct reader reader = reader_of(message);
    struct field f;
    while (field_next(&reader, &f))
        if (is_known(&f))
            TRY(read_field(&f, &h, &got, &times, at));
    h.positive_span_count = got.spans[POSITIVE];
    h.negative_span_count = got.spans[NEGATIVE];
    h.positive_bucket_count = h.is_float ? got.floats[POSITIVE] : got.deltas[POSITIVE];
    h.negative_bucket_count = h.is_float ? got.floats[NEGATIVE] : got.deltas[NEGATIVE];
    h.custom_value_count = got.custom;
    return request_histogram(r, ref, times.t_ms, times.start_ms, &h);
}
