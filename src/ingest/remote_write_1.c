/* Remote write 1.0: prometheus.WriteRequest. See request.h.
 *
 *   WriteRequest  timeseries = 1, metadata = 3
 *   TimeSeries    labels = 1 (name = 1, value = 2), samples = 2 (value = 1 double, timestamp = 2 int64 ms),
 *                 exemplars = 3 (labels = 1, value = 2, timestamp = 3), histograms = 4
 *   Metadata      type = 1, metric_family_name = 2, help = 4, unit = 5
 *
 * Labels come first in every encoder's output; their bytes as they are are the canonical labels if the sender
 * sorts. So a series is known by a hash of bytes that nobody has looked into, and its end is known by prediction.
 * A message whose labels lie elsewhere is read too, slowly.
 *
 * Invariants
 *  1. A series is taken only if no label field follows those that were hashed.
 *  2. A malformed message refuses the whole request: nothing of it has been appended yet. */
#include "ingest/protobuf.h"
#include "ingest/request.h"

#define TAG_LABELS    0x0a
#define TAG_SAMPLES   0x12
#define TAG_VALUE     0x09
#define TAG_TIMESTAMP 0x10

static err malformed(struct err_at *at, const char *what)
{
    return err_set(at, ERR_INPUT, "malformed %s", what);
}

struct sample {
    uint64_t value_bits;
    int64_t t_ms;
};

/* A Sample message; absent fields are 0. False: malformed. */
static bool read_sample(struct slice message, struct sample *out_sample)
{
    struct reader r = reader_of(message);
    struct sample s = { 0 };
    struct field f;
    while (field_next(&r, &f)) {
        if (field_is(&f, 1, WIRE_64))
            s.value_bits = f.value;
        else if (field_is(&f, 2, WIRE_VARINT))
            s.t_ms = field_int(&f);
    }
    *out_sample = s;
    return r.ok;
}

/* The next field, if it is a sample as encoders write it: the value, left out if it is 0, then the time. False: it
 * is something else or in another form, and nothing was read. */
static inline bool read_plain_sample(struct reader *r, struct sample *out_sample)
{
    const uint8_t *at = r->at;
    size_t left = read_left(r);
    if (left < 4 || at[0] != TAG_SAMPLES || at[1] == 0 || at[1] >= 0x80 || at[1] > left - 2)
        return false;
    struct reader s = { at + 2, at + 2 + at[1], true };
    uint64_t value_bits = 0;
    if (at[1] > 10 && *s.at == TAG_VALUE) {
        value_bits = get_le64(s.at + 1);
        s.at += 9;
    }
    if (*s.at++ != TAG_TIMESTAMP)
        return false;
    uint64_t t_ms = read_varint(&s);
    if (!s.ok || s.at != s.end)
        return false;
    *out_sample = (struct sample){ value_bits, (int64_t)t_ms };
    r->at = s.end;
    return true;
}

static err read_exemplar(struct ingest_request *r, struct series_ref *ref, struct slice message,
                         struct err_at *at)
{
    struct buf *labels = &r->raw_exemplar;
    struct reader reader = reader_of(message);
    struct field f;
    double value = 0;
    int64_t t_ms = 0;
    buf_clear(labels);
    while (field_next(&reader, &f)) {
        if (field_is(&f, 1, WIRE_BYTES)) {
            buf_put_u8(labels, TAG_LABELS);
            buf_put_string(labels, f.bytes);
        } else if (field_is(&f, 2, WIRE_64)) {
            value = field_double(&f);
        } else if (field_is(&f, 3, WIRE_VARINT)) {
            t_ms = field_int(&f);
        }
    }
    if (!reader.ok)
        return malformed(at, "exemplar");
    if (buf_err(labels) == OK)
        return request_exemplar(r, ref, t_ms, value, buf_slice(labels));
    request_refuse(r, INGEST_EXEMPLAR_INVALID, 1, ref->labels, "labels too long");
    return OK;
}

static err read_metadata(struct ingest_request *r, struct slice message, struct err_at *at)
{
    struct reader reader = reader_of(message);
    struct batch_metadata m = { .type = METRIC_UNKNOWN };
    struct field f;
    while (field_next(&reader, &f)) {
        if (field_is(&f, 1, WIRE_VARINT))
            m.type = f.value < METRIC_TYPE_COUNT ? (uint8_t)f.value : METRIC_UNKNOWN;
        else if (field_is(&f, 2, WIRE_BYTES))
            m.family = f.bytes;
        else if (field_is(&f, 4, WIRE_BYTES))
            m.help = f.bytes;
        else if (field_is(&f, 5, WIRE_BYTES))
            m.unit = f.bytes;
    }
    return reader.ok ? request_metadata(r, &m) : malformed(at, "metadata");
}

/* The rows of a series behind its labels. */
static err read_rows(struct ingest_request *r, struct series_ref *ref, struct reader reader,
                     struct err_at *at)
{
    struct field f;
    struct sample s;
    for (;;) {
        if (read_plain_sample(&reader, &s)) {
            TRY(request_sample(r, ref, s.t_ms, s.value_bits, 0));
            continue;
        }
        if (!field_next(&reader, &f))
            break;
        if (f.wire != WIRE_BYTES)
            continue;
        if (f.number == 2) {
            if (!read_sample(f.bytes, &s))
                return malformed(at, "sample");
            TRY(request_sample(r, ref, s.t_ms, s.value_bits, 0));
        } else if (f.number == 3) {
            TRY(read_exemplar(r, ref, f.bytes, at));
        } else if (f.number == 4) {
            TRY(remote_histogram_decode(r, ref, f.bytes, at));
        }
    }
    return reader.ok ? OK : malformed(at, "time series");
}

static bool has_label_field(struct reader reader)
{
    struct field f = { 0 };
    struct sample ignored;
    while (read_plain_sample(&reader, &ignored) || field_next(&reader, &f))
        if (field_is(&f, 1, WIRE_BYTES))
            return true;
    return false;
}

/* Labels that are not all at the front: gather them. The rows are read from the whole message then. */
static err read_scattered(struct ingest_request *r, struct slice message, struct err_at *at)
{
    struct reader reader = reader_of(message);
    struct field f;
    struct series_ref ref;
    buf_clear(&r->raw);
    while (field_next(&reader, &f))
        if (field_is(&f, 1, WIRE_BYTES)) {
            buf_put_u8(&r->raw, TAG_LABELS);
            buf_put_string(&r->raw, f.bytes);
        }
    if (!reader.ok)
        return malformed(at, "time series");
    err e = ERR_INPUT;
    if (buf_err(&r->raw) == OK)
        e = request_series(r, buf_slice(&r->raw), false, &ref);
    else
        request_refuse(r, INGEST_LABELS_INVALID, 1, slice_of(NULL, 0), "labels too long");
    if (e == ERR_INPUT)
        remote_series_refused(r, message);
    TRY(e == ERR_INPUT ? OK : e);
    return e == OK ? read_rows(r, &ref, reader_of(message), at) : OK;
}

static err read_series(struct ingest_request *r, struct slice message, struct err_at *at)
{
    struct series_ref ref;
    size_t label_bytes;
    err e = OK;
    bool found = request_predict(r, message.at, message.len, &ref, &label_bytes, &e);
    if (!found) {
        struct reader reader = reader_of(message);
        while (reader.at != reader.end && *reader.at == TAG_LABELS) {
            reader.at++;
            read_string(&reader);
        }
        if (!reader.ok)
            return malformed(at, "time series");
        if (has_label_field(reader))
            return read_scattered(r, message, at);
        label_bytes = (size_t)(reader.at - message.at);
        if (label_bytes == message.len)
            return OK; /* no rows: nothing to store and nothing to refuse */
        e = request_series(r, slice_part(message, 0, label_bytes), true, &ref);
        if (e == ERR_INPUT) {
            remote_series_refused(r, message);
            return OK;
        }
    }
    TRY(e);
    struct reader rows = reader_of(slice_part(message, label_bytes, message.len - label_bytes));
    if (rows.at != rows.end && *rows.at == TAG_LABELS)
        return read_scattered(r, message, at);
    /* One sample and nothing else: nearly always. */
    struct reader behind = rows;
    struct sample s;
    if (read_plain_sample(&behind, &s) && behind.at == behind.end)
        return request_sample(r, &ref, s.t_ms, s.value_bits, 0);
    if (found && has_label_field(rows))
        return read_scattered(r, message, at);
    return read_rows(r, &ref, rows, at);
}

err remote_write_1_decode(struct ingest_request *r, struct slice message, struct err_at *at)
{
    struct reader reader = reader_of(message);
    struct field f;
    while (field_next(&reader, &f)) {
        if (field_is(&f, 1, WIRE_BYTES))
            TRY(read_series(r, f.bytes, at));
        else if (field_is(&f, 3, WIRE_BYTES))
            TRY(read_metadata(r, f.bytes, at));
        TRY(request_room(r));
    }
    return reader.ok ? OK : malformed(at, "write request");
}
