/* Remote write 2.0: io.prometheus.write.v2.Request. See request.h.
 *
 *   Request     symbols = 4 (the first is ""), timeseries = 5
 *   TimeSeries  labels_refs = 1 (pairs of symbol numbers), samples = 2, histograms = 3, exemplars = 4,
 *               metadata = 5
 *   Sample      value = 1 double, timestamp = 2 int64 ms, start_timestamp = 3
 *   Exemplar    labels_refs = 1, value = 2, timestamp = 3
 *   Metadata    type = 1, help_ref = 3, unit_ref = 4
 *
 * A series' references are turned into canonical label bytes without looking at them: if their hash is known, they
 * are valid and sorted. Symbols are gathered first, wherever they lie in the message.
 *
 * Invariants
 *  1. A reference beyond the symbols refuses its series, not the request.
 *  2. A malformed message refuses the whole request: nothing of it has been appended yet.
 *  3. The work is bounded by the bytes of the message, each looked at a few times, and by STRING_BYTES_MAX. */
#include "ingest/protobuf.h"
#include "ingest/request.h"

/* A reference takes a byte or two and may stand for a string of any length. This is 500 bytes for each of a
 * million samples. */
#define STRING_BYTES_MAX (512u << 20)

struct symbols {
    struct slice *at;
    size_t count;
    size_t spent; /* bytes that references stood for, so far */
};

static err malformed(struct err_at *at, const char *what)
{
    return err_set(at, ERR_INPUT, "malformed %s", what);
}

static err read_symbols(struct ingest_request *r, struct slice message, struct symbols *out_symbols,
                        struct err_at *at)
{
    struct reader reader = reader_of(message);
    struct field f;
    size_t count = 0;
    while (field_next(&reader, &f))
        count += field_is(&f, 4, WIRE_BYTES);
    if (!reader.ok)
        return malformed(at, "request");
    void *symbols;
    TRY(pool_alloc(r->pool, count * sizeof(struct slice) + 1, &symbols));
    *out_symbols = (struct symbols){ .at = symbols };
    reader = reader_of(message);
    while (field_next(&reader, &f))
        if (field_is(&f, 4, WIRE_BYTES))
            out_symbols->at[out_symbols->count++] = f.bytes;
    return OK;
}

static struct slice symbol(const struct symbols *symbols, uint64_t ref)
{
    return ref < symbols->count ? symbols->at[ref] : slice_of("", 0);
}

/* Strings of so many bytes are about to be looked at or were put together. */
static err spend(struct symbols *symbols, size_t bytes, struct err_at *at)
{
    symbols->spent += bytes;
    return symbols->spent <= STRING_BYTES_MAX
               ? OK
               : err_set(at, ERR_FULL, "labels and metadata take more than %u MB", STRING_BYTES_MAX >> 20);
}

/* Pairs of references, packed or one by one, into label fields. pending carries a name whose value comes in the
 * next field. */
struct pairs {
    struct buf *out;
    const struct symbols *symbols;
    uint64_t pending;    /* name + 1, 0 = none */
    const char *trouble; /* NULL = fine so far */
    bool ok;             /* varints were well-formed */
};

static void put_ref(struct pairs *p, uint64_t ref)
{
    if (ref >= p->symbols->count) {
        p->trouble = "label reference beyond the symbols";
        return;
    }
    if (p->pending == 0) {
        p->pending = ref + 1;
        return;
    }
    labels_put(p->out, p->symbols->at[p->pending - 1], p->symbols->at[ref]);
    p->pending = 0;
}

static void put_refs(struct pairs *p, const struct field *f)
{
    if (f->wire == WIRE_VARINT)
        put_ref(p, f->value);
    if (f->wire != WIRE_BYTES)
        return;
    struct reader r = reader_of(f->bytes);
    while (r.at != r.end && p->trouble == NULL)
        put_ref(p, read_varint(&r));
    p->ok = p->ok && r.ok;
}

static void pairs_end(struct pairs *p)
{
    if (p->trouble == NULL && p->pending != 0)
        p->trouble = "odd number of label references";
    if (p->trouble == NULL && buf_err(p->out) != OK)
        p->trouble = "labels too long";
}

static err read_sample(struct ingest_request *r, struct series_ref *ref, struct slice message,
                       struct err_at *at)
{
    struct reader reader = reader_of(message);
    struct field f;
    uint64_t value_bits = 0;
    int64_t t_ms = 0, start_ms = 0;
    while (field_next(&reader, &f)) {
        if (field_is(&f, 1, WIRE_64))
            value_bits = f.value;
        else if (field_is(&f, 2, WIRE_VARINT))
            t_ms = field_int(&f);
        else if (field_is(&f, 3, WIRE_VARINT))
            start_ms = field_int(&f);
    }
    return reader.ok ? request_sample(r, ref, t_ms, value_bits, start_ms) : malformed(at, "sample");
}

static err read_exemplar(struct ingest_request *r, struct series_ref *ref, struct symbols *symbols,
                         struct slice message, struct err_at *at)
{
    struct reader reader = reader_of(message);
    struct field f;
    double value = 0;
    int64_t t_ms = 0;
    buf_clear(&r->raw_exemplar);
    struct pairs pairs = { .out = &r->raw_exemplar, .symbols = symbols, .ok = true };
    while (field_next(&reader, &f)) {
        if (f.number == 1)
            put_refs(&pairs, &f);
        else if (field_is(&f, 2, WIRE_64))
            value = field_double(&f);
        else if (field_is(&f, 3, WIRE_VARINT))
            t_ms = field_int(&f);
    }
    pairs_end(&pairs);
    if (!reader.ok || !pairs.ok)
        return malformed(at, "exemplar");
    TRY(spend(symbols, r->raw_exemplar.len, at));
    if (pairs.trouble == NULL)
        return request_exemplar(r, ref, t_ms, value, buf_slice(&r->raw_exemplar));
    request_refuse(r, INGEST_EXEMPLAR_INVALID, 1, ref->labels, "%s", pairs.trouble);
    return OK;
}

/* The family that a series of this type belongs to: parts of histograms and summaries carry a suffix. */
static struct slice family_of(struct slice name, uint8_t type)
{
    static const char *const suffixes[] = { "_bucket", "_gcount", "_count", "_gsum", "_sum" };
    if (type != METRIC_HISTOGRAM && type != METRIC_SUMMARY && type != METRIC_GAUGE_HISTOGRAM)
        return name;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        size_t len = strlen(suffixes[i]);
        if (name.len > len && memcmp(name.at + name.len - len, suffixes[i], len) == 0)
            return slice_part(name, 0, name.len - len);
    }
    return name;
}

static err read_metadata(struct ingest_request *r, struct slice name, struct symbols *symbols,
                         struct slice message, struct err_at *at)
{
    struct reader reader = reader_of(message);
    struct field f;
    struct batch_metadata m = { .help = slice_of("", 0), .unit = slice_of("", 0) };
    while (field_next(&reader, &f)) {
        if (field_is(&f, 1, WIRE_VARINT))
            m.type = f.value < METRIC_TYPE_COUNT ? (uint8_t)f.value : METRIC_UNKNOWN;
        else if (field_is(&f, 3, WIRE_VARINT))
            m.help = symbol(symbols, f.value);
        else if (field_is(&f, 4, WIRE_VARINT))
            m.unit = symbol(symbols, f.value);
    }
    if (!reader.ok)
        return malformed(at, "metadata");
    if (name.len == 0 || (m.type == METRIC_UNKNOWN && m.help.len == 0 && m.unit.len == 0))
        return OK;
    TRY(spend(symbols, name.len + m.help.len + m.unit.len, at));
    m.family = family_of(name, m.type);
    return request_metadata(r, &m);
}

/* The name as a symbol, which lives as long as the request, unlike the bytes in r->raw. */
static struct slice stable_name(const struct symbols *symbols, struct slice message)
{
    struct reader reader = reader_of(message);
    struct field f;
    bool is_value = false, is_name = false;
    while (field_next(&reader, &f)) {
        struct reader refs = reader_of(f.number == 1 && f.wire == WIRE_BYTES ? f.bytes : slice_of("", 0));
        while (refs.at != refs.end) {
            struct slice s = symbol(symbols, read_varint(&refs));
            if (is_value && is_name)
                return s;
            is_name = !is_value && slice_equal_str(s, "__name__");
            is_value = !is_value;
        }
    }
    return slice_of("", 0);
}

static err read_series(struct ingest_request *r, struct symbols *symbols, struct slice message,
                       struct err_at *at)
{
    struct reader reader = reader_of(message);
    struct field f;
    bool has_rows = false, has_metadata = false;
    buf_clear(&r->raw);
    struct pairs pairs = { .out = &r->raw, .symbols = symbols, .ok = true };
    while (field_next(&reader, &f)) {
        if (f.number == 1)
            put_refs(&pairs, &f);
        has_rows = has_rows || field_is(&f, 2, WIRE_BYTES) || field_is(&f, 3, WIRE_BYTES);
        has_metadata = has_metadata || field_is(&f, 5, WIRE_BYTES);
    }
    pairs_end(&pairs);
    if (!reader.ok || !pairs.ok)
        return malformed(at, "time series");
    TRY(spend(symbols, r->raw.len, at));
    struct series_ref ref;
    err e = ERR_INPUT;
    if (pairs.trouble != NULL)
        request_refuse(r, INGEST_LABELS_INVALID, 1, slice_of(NULL, 0), "%s", pairs.trouble);
    else if (!has_rows)
        request_refuse(r, INGEST_SAMPLE_MISSING, 1, buf_slice(&r->raw), "neither sample nor histogram");
    else
        e = request_series_next(r, buf_slice(&r->raw), false, &ref);
    if (e == ERR_INPUT) {
        remote_series_refused(r, message);
        return OK;
    }
    TRY(e);
    struct slice name = has_metadata ? stable_name(symbols, message) : slice_of("", 0);
    reader = reader_of(message);
    while (field_next(&reader, &f)) {
        if (field_is(&f, 2, WIRE_BYTES))
            TRY(read_sample(r, &ref, f.bytes, at));
        else if (field_is(&f, 3, WIRE_BYTES))
            TRY(remote_histogram_decode(r, &ref, f.bytes, at));
        else if (field_is(&f, 4, WIRE_BYTES))
            TRY(read_exemplar(r, &ref, symbols, f.bytes, at));
        else if (field_is(&f, 5, WIRE_BYTES))
            TRY(read_metadata(r, name, symbols, f.bytes, at));
    }
    return OK;
}

err remote_write_2_decode(struct ingest_request *r, struct slice message, struct err_at *at)
{
    struct symbols symbols;
    TRY(read_symbols(r, message, &symbols, at));
    struct reader reader = reader_of(message);
    struct field f;
    while (field_next(&reader, &f)) {
        if (!field_is(&f, 5, WIRE_BYTES))
            continue;
        TRY(read_series(r, &symbols, f.bytes, at));
        TRY(request_room(r));
    }
    return OK;
}
