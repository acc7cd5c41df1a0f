/* For tests of this room: a log that keeps records in memory and answers as it is told, a reader that binds series
 * numbers to labels as a shard does, and a tiny protobuf writer. Include after base/test.h in one file. */
#ifndef INGEST_TEST_LOG_H
#define INGEST_TEST_LOG_H

#include "ingest/ingest.h"
#include "io/thread.h"
#include "model/histogram.h"

enum fake_mode { FAKE_ACK, FAKE_HOLD };

#ifndef FAKE_BINDING_COUNT
#define FAKE_BINDING_COUNT (1u << 16)
#endif

struct fake_binding {
    uint8_t key[20]; /* incarnation, number */
    bool is_taken;
    struct slice labels; /* at NULL: unknown, or lost */
    uint64_t record;     /* index of the first one that announced them */
};

/* A row as it is in the log, whether its number has a name or not. */
struct fake_use {
    const struct fake_binding *binding;
    uint64_t record, bits;
};

struct fake_row {
    struct slice labels;
    int64_t t_ms;
    uint64_t bits; /* of histograms: hash of the canonical bytes */
    int64_t start_ms;
};

struct log {
    struct pool *pool;
    struct io_mutex mutex; /* of appends: their dones come one after the other, as the real log's do */
    enum fake_mode mode;
    err answer; /* in mode FAKE_ACK */
    struct log_append *held[4096];
    size_t held_count;
    _Atomic uint64_t offset[LOG_PARTITION_COUNT_MAX];
    _Atomic uint64_t generation; /* 0: it never goes back */
    bool discard;                /* do not decode: for measurements */
    uint64_t record_count, byte_count, announce_count;
    struct fake_binding *bindings; /* FAKE_BINDING_COUNT, by hash */
    struct fake_use *uses;
    size_t use_count, use_capacity;
    struct fake_row *rows;
    size_t row_count, row_capacity;
    struct batch_exemplar exemplars[64];
    size_t exemplar_count;
    struct batch_metadata metadata[64];
    size_t metadata_count;
    uint64_t unbound; /* rows whose number no durable record had announced */
    uint64_t sequences
        [FAKE_BINDING_COUNT]; /* hashes of (incarnation, sequence) seen; a full table stops looking */
    size_t sequence_count;
};

static inline struct log *fake_log_open(struct pool *pool)
{
    void *log, *bindings;
    assert_ok(pool_zalloc(pool, sizeof(struct log), &log));
    assert_ok(pool_zalloc(pool, FAKE_BINDING_COUNT * sizeof((struct log *)log)->bindings[0], &bindings));
    struct log *l = log;
    l->pool = pool;
    l->bindings = bindings;
    io_mutex_init(&l->mutex);
    return l;
}

static inline struct fake_binding *fake_binding_of(struct log *log, const uint8_t incarnation[16],
                                                   uint32_t number)
{
    uint8_t key[20];
    memcpy(key, incarnation, 16);
    memcpy(key + 16, &number, 4);
    for (uint64_t i = hash64(slice_of(key, 20), 0);; i++) {
        size_t at = i % FAKE_BINDING_COUNT;
        struct fake_binding *b = &log->bindings[at];
        if (!b->is_taken)
            memcpy(b->key, key, 20);
        else if (memcmp(b->key, key, 20) != 0)
            continue;
        b->is_taken = true;
        return b;
    }
}

static inline void fake_row_add(struct log *log, const struct batch *b, uint32_t number, struct fake_row row)
{
    const struct fake_binding *binding = fake_binding_of(log, b->incarnation, number);
    void *uses = log->uses;
    assert_ok(
        pool_block_reserve(log->pool, &uses, sizeof *log->uses, log->use_count + 1, &log->use_capacity));
    log->uses = uses;
    log->uses[log->use_count++] = (struct fake_use){ binding, log->record_count, row.bits };
    if (binding->labels.at == NULL) {
        log->unbound++;
        return;
    }
    row.labels = binding->labels;
    void *rows = log->rows;
    assert_ok(pool_block_reserve(log->pool, &rows, sizeof row, log->row_count + 1, &log->row_capacity));
    log->rows = rows;
    log->rows[log->row_count++] = row;
}

static inline void fake_apply(struct log *log, struct slice record)
{
    struct batch b;
    struct slice copy;
    assert_ok(pool_copy(log->pool, record, &copy));
    assert_ok(batch_decode(copy, log->pool, &b));
    uint64_t once = hash64(slice_of(b.incarnation, INCARNATION_BYTES), b.sequence + 1);
    for (uint64_t i = once; log->sequence_count < FAKE_BINDING_COUNT / 2; i++) {
        uint64_t *seen = &log->sequences[i % FAKE_BINDING_COUNT];
        assert_true(*seen != once); /* a sequence is used once */
        if (*seen == 0) {
            *seen = once;
            log->sequence_count++;
            break;
        }
    }
    for (size_t i = 0; i < b.announce_count; i++) {
        struct fake_binding *bound = fake_binding_of(log, b.incarnation, b.announces[i].number);
        if (bound->labels.at != NULL) { /* never rebound */
            assert_true(slice_equal(bound->labels, b.announces[i].labels));
            continue;
        }
        bound->labels = b.announces[i].labels;
        bound->record = log->record_count;
    }
    log->announce_count += b.announce_count;
    size_t start = 0;
    for (size_t i = 0; i < b.row_count; i++) {
        bool has_start = start < b.start_count && b.starts[start].row == i;
        struct fake_row row = { .t_ms = b.t_ms[i], .bits = b.value_bits[i] };
        row.start_ms = has_start ? b.starts[start].start_ms : 0;
        fake_row_add(log, &b, b.numbers[i], row);
        start += has_start;
    }
    for (size_t i = 0; i < b.histogram_count; i++)
        fake_row_add(log, &b, b.histograms[i].number,
                     (struct fake_row){ .t_ms = b.histograms[i].t_ms,
                                        .start_ms = b.histograms[i].start_ms,
                                        .bits = hash64(b.histograms[i].bytes, 0) });
    for (size_t i = 0; i < b.exemplar_count && log->exemplar_count < 64; i++)
        log->exemplars[log->exemplar_count++] = b.exemplars[i];
    for (size_t i = 0; i < b.metadata_count && log->metadata_count < 64; i++)
        log->metadata[log->metadata_count++] = b.metadata[i];
}

static inline void fake_answer(struct log *log, struct log_append *append, err answer)
{
    struct log_position position = { log->generation, 0 };
    if (answer == OK) {
        log->byte_count += append->parts[0].len;
        if (!log->discard)
            fake_apply(log, append->parts[0]);
        log->record_count++;
        position.offset = ++log->offset[append->partition];
    }
    append->done(append, answer, position);
}

/* The newest records are lost, with what only they announced. Offsets go on rising: others wrote. Nobody hears of
 * it before the generation changes. */
static inline void fake_lose(struct log *log, uint64_t count)
{
    size_t kept = 0;
    log->record_count -= count;
    for (size_t i = 0; i < FAKE_BINDING_COUNT; i++)
        if (log->bindings[i].record >= log->record_count)
            log->bindings[i].labels = slice_of(NULL, 0);
    for (size_t i = 0; i < log->use_count; i++)
        if (log->uses[i].record < log->record_count)
            log->uses[kept++] = log->uses[i];
    log->use_count = kept;
}

/* Answer a held append; the others keep their order. */
static inline void fake_release(struct log *log, size_t index, err answer)
{
    struct log_append *append = log->held[index];
    memmove(&log->held[index], &log->held[index + 1], (--log->held_count - index) * sizeof log->held[0]);
    fake_answer(log, append, answer);
}

void log_append(struct log *log, struct log_append *append)
{
    io_mutex_lock(&log->mutex);
    assert_int_equal(append->part_count, 1);
    if (log->mode == FAKE_HOLD && log->held_count < 4096)
        log->held[log->held_count++] = append;
    else
        fake_answer(log, append, log->answer);
    io_mutex_unlock(&log->mutex);
}

struct log_watermarks log_watermarks(struct log *log, uint32_t partition)
{
    return (struct log_watermarks){ .generation = log->generation, .end_offset = log->offset[partition] };
}

/* What is held gets the answer of a log that is closed without having written it. */
void log_drain(struct log *log)
{
    io_mutex_lock(&log->mutex);
    while (log->held_count > 0)
        fake_release(log, 0, ERR_CLOSED);
    io_mutex_unlock(&log->mutex);
}

/* ---- a protobuf writer ---- */

static inline void pb_tag(struct buf *b, unsigned number, unsigned wire)
{
    buf_put_varint(b, number << 3 | wire);
}

static inline void pb_varint(struct buf *b, unsigned number, uint64_t v)
{
    pb_tag(b, number, 0);
    buf_put_varint(b, v);
}

static inline void pb_double(struct buf *b, unsigned number, uint64_t bits)
{
    pb_tag(b, number, 1);
    buf_put_le64(b, bits);
}

static inline void pb_bytes(struct buf *b, unsigned number, struct slice s)
{
    pb_tag(b, number, 2);
    buf_put_string(b, s);
}

static inline void pb_message(struct buf *b, unsigned number, struct buf *message)
{
    pb_bytes(b, number, buf_slice(message));
    buf_clear(message);
}

/* Label fields of version 1 from "name=value name=value". */
static inline void pb_labels(struct buf *series, const char *text)
{
    struct buf part = buf_open(series->pool, 1 << 17);
    while (*text != 0) {
        size_t len = strcspn(text, " "), name = strcspn(text, "=");
        assert_true(name < len);
        pb_bytes(&part, 1, slice_of(text, name));
        pb_bytes(&part, 2, slice_of(text + name + 1, len - name - 1));
        pb_message(series, 1, &part);
        text += len + (text[len] == ' ');
    }
    buf_close(&part);
}

/* A Sample of either version; start_ms 0 = none. */
static inline void pb_sample(struct buf *series, int64_t t_ms, uint64_t bits, int64_t start_ms)
{
    struct buf part = buf_open(series->pool, 100);
    pb_double(&part, 1, bits);
    pb_varint(&part, 2, (uint64_t)t_ms);
    if (start_ms != 0)
        pb_varint(&part, 3, (uint64_t)start_ms);
    pb_message(series, 2, &part);
    buf_close(&part);
}

/* A whole TimeSeries of version 1 with one sample. */
static inline void pb_series(struct buf *request, const char *labels, int64_t t_ms, uint64_t bits)
{
    struct buf series = buf_open(request->pool, 1 << 18);
    pb_labels(&series, labels);
    pb_sample(&series, t_ms, bits, 0);
    pb_message(request, 1, &series);
    buf_close(&series);
}

/* The symbols of a version 2 request under construction. */
struct pb_symbols {
    struct slice at[4096];
    size_t count;
};

static inline uint64_t pb_symbol(struct pb_symbols *symbols, struct slice s)
{
    if (symbols->count == 0)
        symbols->at[symbols->count++] = slice_of("", 0);
    for (size_t i = 0; i < symbols->count; i++)
        if (slice_equal(symbols->at[i], s))
            return i;
    assert_true(symbols->count < 4096);
    symbols->at[symbols->count] = s;
    return symbols->count++;
}

/* Packed references from "name=value name=value". */
static inline void pb_refs(struct buf *series, struct pb_symbols *symbols, const char *text)
{
    struct buf part = buf_open(series->pool, 1 << 17);
    while (*text != 0) {
        size_t len = strcspn(text, " "), name = strcspn(text, "=");
        buf_put_varint(&part, pb_symbol(symbols, slice_of(text, name)));
        buf_put_varint(&part, pb_symbol(symbols, slice_of(text + name + 1, len - name - 1)));
        text += len + (text[len] == ' ');
    }
    pb_message(series, 1, &part);
    buf_close(&part);
}

static inline void pb_symbols_put(struct buf *request, struct pb_symbols *symbols)
{
    for (size_t i = 0; i < symbols->count; i++)
        pb_bytes(request, 4, symbols->at[i]);
    symbols->count = 0;
}

/* A Histogram message of both versions. */
static inline void pb_histogram(struct buf *out, const struct histogram *h, int64_t t_ms, int64_t start_ms,
                                bool packed)
{
    struct buf part = buf_open(out->pool, 1 << 17);
    if (h->is_float) {
        pb_double(out, 2, double_bits(h->count_float));
        pb_double(out, 7, double_bits(h->zero_count_float));
    } else {
        pb_varint(out, 1, h->count_int);
        pb_varint(out, 6, h->zero_count_int);
    }
    pb_double(out, 3, double_bits(h->sum));
    pb_varint(out, 4, zigzag(h->schema));
    pb_double(out, 5, double_bits(h->zero_threshold));
    for (int side = 0; side < 2; side++) {
        const struct histogram_span *spans = side == 0 ? h->negative_spans : h->positive_spans;
        size_t span_count = side == 0 ? h->negative_span_count : h->positive_span_count;
        size_t count = side == 0 ? h->negative_bucket_count : h->positive_bucket_count;
        for (size_t i = 0; i < span_count; i++) {
            pb_varint(&part, 1, zigzag(spans[i].offset));
            pb_varint(&part, 2, spans[i].length);
            pb_message(out, side == 0 ? 8 : 11, &part);
        }
        for (size_t i = 0; i < count; i++) {
            if (h->is_float) {
                uint64_t bits = double_bits(side == 0 ? h->negative_counts[i] : h->positive_counts[i]);
                if (packed)
                    buf_put_le64(&part, bits);
                else
                    pb_double(out, side == 0 ? 10 : 13, bits);
            } else {
                int64_t delta = side == 0 ? h->negative_deltas[i] : h->positive_deltas[i];
                if (packed)
                    buf_put_zigzag(&part, delta);
                else
                    pb_varint(out, side == 0 ? 9 : 12, zigzag(delta));
            }
        }
        if (packed && count > 0)
            pb_message(out, (h->is_float ? 10u : 9u) + (side == 0 ? 0 : 3), &part);
    }
    pb_varint(out, 14, h->hint);
    pb_varint(out, 15, (uint64_t)t_ms);
    for (size_t i = 0; i < h->custom_value_count; i++) {
        if (packed)
            buf_put_le64(&part, double_bits(h->custom_values[i]));
        else
            pb_double(out, 16, double_bits(h->custom_values[i]));
    }
    if (packed && h->custom_value_count > 0)
        pb_message(out, 16, &part);
    if (start_ms != 0)
        pb_varint(out, 17, (uint64_t)start_ms);
    buf_close(&part);
}

#endif
