/* Reading an answer: blocks out of bytes of any cut, and entries out of blocks. From: the transport. To:
 * gather.c. See wire.h; byte tables in docs/format/query.md.
 *
 * Invariants
 *  1. Nothing is believed: lengths, counts, order of times, labels, histograms, reasons are checked as they
 *     are read.
 *  2. A block's memory is taken when its head is there, at most WIRE_BLOCK_BYTES_MAX, and stays where it is:
 *     entries point into it.
 *  3. What was read once decodes the same again (wire_piece_read). */
#include "fanout/wire.h"

#include "base/check.h"
#include "base/hash.h"
#include "codec/float.h"
#include "codec/int.h"
#include "fanout/wire_format.h"
#include "model/histogram.h"
#include "model/labels.h"

#define REASON_BYTES_MAX 200

/* ---- blocks ---- */

static err head_check(struct wire_in *in)
{
    uint8_t type = in->head[0];
    in->body_len = get_le32(in->head + 1);
    if (in->ended || type == 0 || type >= WIRE_BLOCK_TYPE_END || in->body_len > WIRE_BLOCK_BYTES_MAX ||
        in->begun == (type == WIRE_BLOCK_HEAD))
        return ERR_INPUT;
    void *at;
    TRY(pool_alloc(in->pool, in->body_len + CODEC_PAD_BYTES, &at));
    in->body = at;
    memset(in->body + in->body_len, 0, CODEC_PAD_BYTES);
    return OK;
}

/* What the head block says of the answer. Who cannot read a request answers it as one for samples. */
static err begin_check(struct wire_in *in)
{
    if (in->body_len < 5 || get_le32(in->body) != WIRE_ANSWER_MAGIC)
        return ERR_INPUT;
    uint8_t version = in->body[4];
    if (version == 0 || version > WIRE_VERSION)
        return ERR_VERSION;
    if (in->body_len != 6)
        return ERR_INPUT;
    in->begun = true;
    if (in->body[5] == in->kind && version == wire_version(in->kind))
        return OK;
    in->is_refused = in->body[5] == WIRE_SAMPLES && version == wire_version(WIRE_SAMPLES);
    return in->is_refused ? OK : ERR_INPUT;
}

static bool goes_with(enum wire_kind kind, enum wire_block_type type)
{
    switch (type) {
    case WIRE_BLOCK_SERIES:
        return kind == WIRE_SAMPLES || kind == WIRE_EXEMPLARS;
    case WIRE_BLOCK_TEXTS:
        return kind == WIRE_NAMES || kind == WIRE_VALUES;
    case WIRE_BLOCK_METADATA:
        return kind == WIRE_METADATA;
    case WIRE_BLOCK_UNIT:
    case WIRE_BLOCK_GROUPS:
        return kind == WIRE_GROUPS;
    default:
        return true;
    }
}

static void take(struct wire_in *in, struct slice *bytes, uint8_t *to, size_t from, size_t until)
{
    size_t len = until - in->have < bytes->len ? until - in->have : bytes->len;
    if (len > 0)
        memcpy(to + (in->have - from), bytes->at, len);
    in->have += len;
    *bytes = slice_part(*bytes, len, bytes->len - len);
}

/* A whole block stands in head and body. */
static err block_check(const struct wire_in *in, struct wire_block *out)
{
    struct slice body = slice_of(in->body, in->body_len);
    if (crc32c(body, crc32c(slice_of(in->head, 5), 0)) != get_le32(in->head + 5))
        return ERR_INPUT;
    *out = (struct wire_block){ .type = (enum wire_block_type)in->head[0], .body = body };
    bool goes = goes_with(in->kind, out->type) && (!in->is_refused || out->type == WIRE_BLOCK_ERROR);
    return goes || out->type == WIRE_BLOCK_HEAD ? OK : ERR_INPUT;
}

err wire_in_next(struct wire_in *in, struct slice *bytes, struct wire_block *out_block)
{
    struct wire_block block;
    while (bytes->len > 0) {
        if (in->have < WIRE_BLOCK_HEAD_BYTES) {
            take(in, bytes, in->head, 0, WIRE_BLOCK_HEAD_BYTES);
            if (in->have < WIRE_BLOCK_HEAD_BYTES)
                return ERR_END;
            TRY(head_check(in));
        }
        size_t whole = WIRE_BLOCK_HEAD_BYTES + (size_t)in->body_len;
        take(in, bytes, in->body, WIRE_BLOCK_HEAD_BYTES, whole);
        if (in->have < whole)
            return ERR_END;
        in->have = 0;
        TRY(block_check(in, &block));
        if (block.type == WIRE_BLOCK_HEAD) {
            TRY(begin_check(in));
            continue;
        }
        in->ended = block.type == WIRE_BLOCK_PROOF || block.type == WIRE_BLOCK_ERROR;
        *out_block = block;
        return OK;
    }
    return ERR_END;
}

err wire_front_read(struct reader *r, struct buf *text, bool is_first)
{
    uint64_t shared = read_varint(r);
    struct slice rest = read_string(r);
    if (!r->ok || shared > (is_first ? 0 : text->len))
        return ERR_INPUT;
    text->len = shared;
    buf_put_slice(text, rest);
    err e = buf_err(text);
    return e == ERR_LIMIT && shared + rest.len > text->max ? ERR_INPUT : e;
}

/* ---- series ---- */

struct wire_series {
    struct reader r;
    struct buf labels; /* of the entry before, in this block; of the whole answer for one that continues */
    bool is_first, continues, has_labels;
    int64_t last_ms; /* of the series' rows so far */
    bool has_rows;
    const uint8_t *times; /* of the piece before, in this block */
    uint32_t times_count;
    struct pool *scratch; /* of one entry */
    int64_t t_ms[WIRE_PIECE_ROW_COUNT_MAX];
    int64_t starts[WIRE_PIECE_ROW_COUNT_MAX];
    uint64_t bits[WIRE_PIECE_ROW_COUNT_MAX];
};

err wire_series_open(struct pool *pool, struct wire_series **out_series)
{
    void *at;
    TRY(pool_zalloc(pool, sizeof(struct wire_series), &at));
    struct wire_series *s = at;
    s->labels = buf_open(pool, LABELS_BYTES_MAX);
    s->scratch = pool_open(pool, "entry of an answer", POOL_BYTES_UNLIMITED);
    *out_series = s;
    return OK;
}

void wire_series_close(struct wire_series *s)
{
    if (s == NULL)
        return;
    buf_close(&s->labels);
    pool_close(s->scratch);
    s->scratch = NULL;
}

void wire_series_block(struct wire_series *s, struct slice body)
{
    s->r = reader_of(body);
    s->is_first = true;
    s->times_count = 0;
}

static err read_entry_labels(struct wire_series *s, bool continues)
{
    if (!continues) {
        TRY(wire_front_read(&s->r, &s->labels, s->is_first));
        s->has_labels = true;
        s->has_rows = false;
        return labels_check(buf_slice(&s->labels), NULL) == OK ? OK : ERR_INPUT;
    }
    uint64_t shared = read_varint(&s->r);
    return s->has_labels && shared == 0 && slice_equal(read_string(&s->r), buf_slice(&s->labels)) && s->r.ok
               ? OK
               : ERR_INPUT;
}

static err read_times(struct wire_series *s, uint8_t flags, struct wire_piece *piece)
{
    if ((flags & WIRE_ROWS_SAME_TIMES) != 0) {
        if (s->times_count != piece->rows)
            return ERR_INPUT;
    } else {
        s->times = s->r.at;
        if (int_column_decode(&s->r, piece->rows, s->t_ms) != OK)
            return ERR_INPUT;
    }
    for (uint32_t i = 1; i < piece->rows; i++)
        if (s->t_ms[i] <= s->t_ms[i - 1])
            return ERR_INPUT;
    piece->times = s->times;
    s->times_count = piece->rows;
    piece->first_ms = s->t_ms[0];
    piece->last_ms = s->t_ms[piece->rows - 1];
    if (s->has_rows && piece->first_ms <= s->last_ms)
        return ERR_INPUT;
    s->has_rows = true;
    s->last_ms = piece->last_ms;
    return OK;
}

static err read_histograms(struct wire_series *s, struct wire_piece *piece)
{
    uint64_t count = read_varint(&s->r), row = 0;
    if (count == 0 || count > piece->rows)
        return ERR_INPUT;
    piece->histogram_count = (uint32_t)count;
    piece->histograms = s->r.at;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t gap = read_varint(&s->r);
        struct slice bytes = read_string(&s->r);
        struct histogram histogram;
        if (!s->r.ok || gap >= piece->rows - row || bytes.len > HISTOGRAM_BYTES_MAX)
            return ERR_INPUT;
        row += gap + 1;
        if (row == piece->rows && i + 1 < count)
            return ERR_INPUT;
        err e = histogram_decode(bytes, s->scratch, &histogram);
        pool_reset(s->scratch);
        if (e != OK)
            return e == ERR_LIMIT ? e : ERR_INPUT;
    }
    return OK;
}

static err read_rows(struct wire_series *s, struct wire_piece *piece)
{
    uint64_t rows = read_varint(&s->r);
    *piece = (struct wire_piece){ .end = s->r.end };
    if (rows > WIRE_PIECE_ROW_COUNT_MAX || !s->r.ok)
        return ERR_INPUT;
    if (rows == 0)
        return OK;
    piece->rows = (uint32_t)rows;
    uint8_t flags = read_u8(&s->r);
    if ((flags & ~(WIRE_ROWS_SAME_TIMES | WIRE_ROWS_STARTS | WIRE_ROWS_HISTOGRAMS)) != 0)
        return ERR_INPUT;
    TRY(read_times(s, flags, piece));
    piece->values = s->r.at;
    if (float_column_decode(&s->r, piece->rows, s->bits) != OK)
        return ERR_INPUT;
    if ((flags & WIRE_ROWS_STARTS) != 0) {
        piece->starts = s->r.at;
        if (int_column_decode(&s->r, piece->rows, s->starts) != OK)
            return ERR_INPUT;
    }
    return (flags & WIRE_ROWS_HISTOGRAMS) == 0 ? OK : read_histograms(s, piece);
}

/* One exemplar behind the other; the time of the first is a difference to 0. */
static void read_exemplar(struct reader *r, int64_t *t_ms, struct source_exemplar *out)
{
    out->t_ms = *t_ms = (int64_t)((uint64_t)*t_ms + (uint64_t)read_zigzag(r));
    out->value = bits_double(read_le64(r));
    out->labels = read_string(r);
}

static err read_exemplars(struct wire_series *s, struct wire_entry *entry)
{
    uint64_t count = read_varint(&s->r);
    const uint8_t *from = s->r.at;
    int64_t t_ms = 0;
    if (!s->r.ok || count > read_left(&s->r) / 10) /* bytes of the shortest */
        return ERR_INPUT;
    for (uint64_t i = 0; i < count; i++) {
        struct source_exemplar exemplar;
        int64_t before_ms = t_ms;
        read_exemplar(&s->r, &t_ms, &exemplar);
        if (!s->r.ok || (i > 0 && t_ms < before_ms) || labels_check(exemplar.labels, NULL) != OK)
            return ERR_INPUT;
    }
    entry->exemplars = slice_of(from, (size_t)(s->r.at - from));
    entry->exemplar_count = count;
    return OK;
}

err wire_series_next(struct wire_series *s, struct wire_entry *out_entry)
{
    struct wire_entry entry = { 0 };
    if (s->is_first) {
        uint8_t continues = read_u8(&s->r);
        if (!s->r.ok || continues > 1)
            return ERR_INPUT;
        entry.continues = continues == 1;
    }
    if (read_left(&s->r) == 0)
        return s->is_first ? ERR_INPUT : ERR_END;
    TRY(read_entry_labels(s, entry.continues));
    s->is_first = false;
    TRY(read_rows(s, &entry.piece));
    TRY(read_exemplars(s, &entry));
    entry.labels = buf_slice(&s->labels);
    *out_entry = entry;
    return OK;
}

bool wire_exemplar_next(struct wire_exemplars *exemplars, struct source_exemplar *out_exemplar)
{
    if (exemplars->left == 0)
        return false;
    exemplars->left--;
    read_exemplar(&exemplars->reader, &exemplars->t_ms, out_exemplar);
    check(exemplars->reader.ok);
    return true;
}

/* ---- reading pieces again ---- */

static err read_starts(const struct wire_piece *piece, struct sample_columns *c, size_t base)
{
    if (piece->starts == NULL && c->start_ms == NULL)
        return OK;
    bool is_new = c->start_ms == NULL;
    TRY(pool_block_reserve(c->pool, (void **)&c->start_ms, sizeof *c->start_ms, base + piece->rows,
                           &c->start_capacity));
    if (is_new)
        memset(c->start_ms, 0, base * sizeof *c->start_ms);
    if (piece->starts == NULL) {
        memset(c->start_ms + base, 0, piece->rows * sizeof *c->start_ms);
        return OK;
    }
    struct reader r = reader_of(slice_of(piece->starts, (size_t)(piece->end - piece->starts)));
    check(int_column_decode(&r, piece->rows, c->start_ms + base) == OK);
    return OK;
}

static err read_piece_histograms(const struct wire_piece *piece, struct sample_columns *c, size_t base)
{
    if (piece->histogram_count == 0)
        return OK;
    TRY(pool_block_reserve(c->pool, (void **)&c->histograms, sizeof *c->histograms,
                           c->histogram_count + piece->histogram_count, &c->histogram_capacity));
    struct reader r = reader_of(slice_of(piece->histograms, (size_t)(piece->end - piece->histograms)));
    size_t row = base;
    for (uint32_t i = 0; i < piece->histogram_count; i++) {
        row += read_varint(&r);
        struct sample_histogram histogram = { .row = (uint32_t)row++ };
        TRY(pool_copy(c->pool, read_string(&r), &histogram.bytes));
        check(r.ok);
        c->histograms[c->histogram_count++] = histogram;
    }
    return OK;
}

err wire_piece_read(const struct wire_piece *piece, struct sample_columns *columns)
{
    size_t base = columns->count;
    if (piece->rows == 0)
        return OK;
    if (base + piece->rows > UINT32_MAX)
        return ERR_LIMIT;
    TRY(sample_columns_reserve(columns, piece->rows));
    TRY(read_starts(piece, columns, base));
    struct reader times = reader_of(slice_of(piece->times, (size_t)(piece->end - piece->times)));
    struct reader values = reader_of(slice_of(piece->values, (size_t)(piece->end - piece->values)));
    check(int_column_decode(&times, piece->rows, columns->t_ms + base) == OK);
    uint64_t bits[CODEC_VECTOR_COUNT_MAX];
    for (uint32_t at = 0; at < piece->rows; at += CODEC_VECTOR_COUNT_MAX) {
        uint32_t count =
            piece->rows - at < CODEC_VECTOR_COUNT_MAX ? piece->rows - at : CODEC_VECTOR_COUNT_MAX;
        check(float_column_decode(&values, count, bits) == OK);
        memcpy(columns->values + base + at, bits, count * sizeof *bits);
    }
    columns->times = (struct hash128){ 0 };
    columns->count += piece->rows;
    return read_piece_histograms(piece, columns, base);
}

/* ---- texts and metadata ---- */

err wire_texts_read(struct slice body, struct pool *pool, struct wire_texts *texts)
{
    struct reader r = reader_of(body);
    struct buf text = buf_open(pool, LABELS_BYTES_MAX);
    bool is_first = true;
    err e = OK;
    if (body.len == 0)
        return ERR_INPUT;
    for (; read_left(&r) > 0; is_first = false) {
        TRY_OUT(wire_front_read(&r, &text, is_first));
        struct slice item = buf_slice(&text);
        if (texts->count > 0 && slice_compare(item, texts->items[texts->count - 1]) <= 0)
            e = ERR_INPUT;
        if (!utf8_valid(item))
            e = ERR_INPUT;
        if (e != OK)
            goto out;
        TRY_OUT(pool_block_reserve(pool, (void **)&texts->items, sizeof *texts->items, texts->count + 1,
                                   &texts->capacity));
        TRY_OUT(pool_copy(pool, item, &texts->items[texts->count]));
        texts->count++;
    }
out:
    buf_close(&text);
    return e;
}

err wire_metadata_read(struct slice body, struct pool *pool, struct wire_metadata *metadata)
{
    struct reader r = reader_of(body);
    if (body.len == 0)
        return ERR_INPUT;
    while (read_left(&r) > 0) {
        struct source_metadata item;
        item.family = read_string(&r);
        item.type = read_string(&r);
        item.help = read_string(&r);
        item.unit = read_string(&r);
        if (!r.ok || !utf8_valid(item.family) || !utf8_valid(item.type) || !utf8_valid(item.help) ||
            !utf8_valid(item.unit))
            return ERR_INPUT;
        TRY(pool_block_reserve(pool, (void **)&metadata->items, sizeof item, metadata->count + 1,
                               &metadata->capacity));
        metadata->items[metadata->count++] = item;
    }
    return OK;
}

/* ---- the last block ---- */

/* Reasons outlive the answer they came in, so they are ours. */
static const char *reason_of(struct slice text)
{
    static const char *const known[] = { PROOF_NOT_HERE,
                                         PROOF_NOT_APPLIED,
                                         PROOF_UNANSWERED,
                                         "unresolved series",
                                         "the log cannot be applied",
                                         "segment of a newer format",
                                         "damaged segment",
                                         "damaged segment index",
                                         "damaged block",
                                         "damaged row group",
                                         "segment cannot be read now",
                                         PROOF_NOT_CONFIRMED,
                                         "the log went back" };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (slice_equal_str(text, known[i]))
            return known[i];
    return PROOF_ELSEWHERE;
}

static err read_proof_partitions(struct reader *r, struct pool *pool, struct proof *out)
{
    uint64_t count = read_varint(r);
    void *at;
    if (!r->ok || count > WIRE_PARTITION_COUNT_MAX || count > read_left(r) / 4)
        return ERR_INPUT;
    TRY(pool_alloc(pool, count * sizeof *out->partitions + 1, &at));
    out->partitions = at;
    out->partition_count = count;
    for (size_t i = 0; i < count; i++) {
        struct proof_partition *p = &out->partitions[i];
        uint64_t partition = read_varint(r);
        if (partition >= WIRE_PARTITION_COUNT_MAX)
            return ERR_INPUT;
        p->partition = (uint32_t)partition;
        p->generation = read_varint(r);
        p->applied_offset = read_varint(r);
        p->end_offset = read_varint(r);
    }
    return OK;
}

static err read_proof_missing(struct reader *r, struct pool *pool, struct proof *out)
{
    uint64_t count = read_varint(r);
    if (!r->ok || count > PROOF_MISSING_COUNT_MAX || count > read_left(r) / 4)
        return ERR_INPUT;
    if (count > 0)
        TRY(proof_reserve(out, pool));
    for (uint64_t i = 0; i < count; i++) {
        struct proof_missing missing;
        uint64_t partition = read_varint(r);
        missing.range.min_ms = read_zigzag(r);
        missing.range.max_ms = read_zigzag(r);
        struct slice reason = read_string(r);
        if (!r->ok || partition >= WIRE_PARTITION_COUNT_MAX || reason.len > REASON_BYTES_MAX)
            return ERR_INPUT;
        missing.partition = (uint32_t)partition;
        missing.reason = reason_of(reason);
        out->missing[out->missing_count++] = missing;
    }
    return OK;
}

err wire_proof_read(struct slice body, struct pool *pool, struct proof *out_proof)
{
    struct reader r = reader_of(body);
    uint8_t complete = read_u8(&r);
    struct proof proof = { .complete = complete == 1, .data_through_ms = read_zigzag(&r) };
    TRY(read_proof_partitions(&r, pool, &proof));
    TRY(read_proof_missing(&r, pool, &proof));
    if (!r.ok || read_left(&r) != 0 || complete > 1 || (proof.complete && proof.missing_count > 0))
        return ERR_INPUT;
    *out_proof = proof;
    return OK;
}

err wire_error_read(struct slice body, err *out_error, uint64_t *out_series_over)
{
    struct reader r = reader_of(body);
    uint8_t code = read_u8(&r);
    uint64_t series_over = read_varint(&r);
    if (!r.ok || read_left(&r) != 0 || code >= WIRE_ERROR_COUNT)
        return ERR_INPUT;
    *out_error = wire_errors[code];
    *out_series_over = series_over;
    return OK;
}
