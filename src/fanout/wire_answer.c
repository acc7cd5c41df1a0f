/* Writing an answer: entries gather in the body of a block, which goes out when it holds enough. From: serve.c.
 * To: the transport. See wire.h; byte tables in docs/format/query.md.
 *
 * Invariants
 *  1. A block is decoded alone but for the labels of the series that it continues.
 *  2. No block is larger than WIRE_BLOCK_BYTES_MAX. A body is flushed at WIRE_BLOCK_BYTES_WANTED (64 KiB);
 *     what one entry can add is labels (64 KiB), 4,096 rows in 16 vectors of three columns (16 × (2 × 2,080 +
 *     2,560) = 108 KB), histograms and exemplars, each up to 64 KiB and one more of 64 KiB: below 450 KiB. 4,096
 *     steps of a group are three columns of floats, 123 KB; a unit's texts 2 × 128 KiB.
 *  3. After a failure of write or memory nothing more is written, but an error if memory allows. */
#include "fanout/wire.h"

#include "base/check.h"
#include "base/hash.h"
#include "codec/float.h"
#include "codec/int.h"
#include "fanout/wire_format.h"
#include "model/histogram.h"
#include "model/labels.h"

#define EXTRA_BYTES (64u << 10)  /* of histograms, or exemplars, that end a piece */
#define NOTES_BYTES (128u << 10) /* of warnings, or infos */

struct wire_out {
    err (*write)(void *context, struct slice bytes);
    void *context;
    enum wire_kind kind;
    enum wire_block_type type; /* of what the body holds, when it holds anything */
    bool begun;
    struct buf block;  /* head and body */
    struct buf before; /* labels or text before, in this block */
    int64_t *times;    /* of the piece before, in this block */
    uint32_t times_count;
    uint64_t step_count; /* of each group, as the unit block says */
    uint32_t column_count;
};

err wire_out_open(struct pool *pool, enum wire_kind kind, err (*write)(void *context, struct slice bytes),
                  void *context, struct wire_out **out_wire)
{
    void *at, *times;
    TRY(pool_zalloc(pool, sizeof(struct wire_out), &at));
    TRY(pool_alloc(pool, WIRE_PIECE_ROW_COUNT_MAX * sizeof(int64_t), &times));
    struct wire_out *out = at;
    *out = (struct wire_out){ .write = write,
                              .context = context,
                              .kind = kind,
                              .block = buf_open(pool, WIRE_BLOCK_HEAD_BYTES + WIRE_BLOCK_BYTES_MAX),
                              .before = buf_open(pool, LABELS_BYTES_MAX),
                              .times = times };
    *out_wire = out;
    return OK;
}

/* ---- blocks ---- */

static void block_begin(struct wire_out *out, enum wire_block_type type)
{
    static const uint8_t head[WIRE_BLOCK_HEAD_BYTES];
    buf_clear(&out->block);
    buf_clear(&out->before);
    out->times_count = 0;
    out->type = type;
    buf_put(&out->block, head, sizeof head);
}

/* Fill in the head and hand the block on. */
static err block_send(struct wire_out *out)
{
    TRY(buf_err(&out->block));
    uint8_t *at = out->block.at;
    uint32_t len = (uint32_t)(out->block.len - WIRE_BLOCK_HEAD_BYTES);
    at[0] = (uint8_t)out->type;
    put_le32(at + 1, len);
    put_le32(at + 5, crc32c(slice_of(at + WIRE_BLOCK_HEAD_BYTES, len), crc32c(slice_of(at, 5), 0)));
    err e = out->write(out->context, buf_slice(&out->block));
    buf_clear(&out->block);
    return e;
}

static err send_head(struct wire_out *out)
{
    if (out->begun)
        return OK;
    block_begin(out, WIRE_BLOCK_HEAD);
    buf_put_le32(&out->block, WIRE_ANSWER_MAGIC);
    buf_put_u8(&out->block, wire_version(out->kind));
    buf_put_u8(&out->block, (uint8_t)out->kind);
    TRY(block_send(out));
    out->begun = true;
    return OK;
}

static err flush(struct wire_out *out)
{
    TRY(send_head(out));
    return out->block.len == 0 ? OK : block_send(out);
}

/* Be in a block of this type that has room. */
static err block_for(struct wire_out *out, enum wire_block_type type)
{
    if (out->block.len >= WIRE_BLOCK_BYTES_WANTED)
        TRY(flush(out));
    TRY(send_head(out));
    if (out->block.len > 0)
        return OK;
    block_begin(out, type);
    if (type == WIRE_BLOCK_SERIES)
        buf_put_u8(&out->block, 0); /* its first entry begins a series */
    return OK;
}

/* Front-coded against what stands before it in the block. */
static void put_front(struct wire_out *out, struct slice text)
{
    size_t shared = slice_common(buf_slice(&out->before), text);
    buf_put_varint(&out->block, shared);
    buf_put_string(&out->block, slice_part(text, shared, text.len - shared));
    out->before.len = shared;
    buf_put_slice(&out->before, slice_part(text, shared, text.len - shared));
    if (buf_err(&out->before) != OK)
        out->block.failed = buf_err(&out->before);
}

/* ---- series ---- */

/* The rows [from, …) that travel together. histogram: the first that is not sent yet. */
struct piece {
    uint32_t rows;
    size_t histogram_end;
};

static struct piece piece_of(const struct sample_columns *c, size_t from, size_t histogram)
{
    size_t rows = c->count - from, bytes = 0, h = histogram;
    if (rows > WIRE_PIECE_ROW_COUNT_MAX)
        rows = WIRE_PIECE_ROW_COUNT_MAX;
    for (; h < c->histogram_count && c->histograms[h].row < from + rows; h++) {
        bytes += c->histograms[h].bytes.len;
        if (bytes > EXTRA_BYTES)
            rows = c->histograms[h].row + 1 - from;
    }
    return (struct piece){ .rows = (uint32_t)rows, .histogram_end = h };
}

static bool has_starts(const struct sample_columns *c, size_t from, uint32_t rows)
{
    for (size_t i = from; c->start_ms != NULL && i < from + rows; i++)
        if (c->start_ms[i] != 0)
            return true;
    return false;
}

static err put_values(struct wire_out *out, const double *values, uint32_t count)
{
    uint64_t bits[CODEC_VECTOR_COUNT_MAX];
    for (uint32_t at = 0; at < count; at += CODEC_VECTOR_COUNT_MAX) {
        uint32_t more = count - at < CODEC_VECTOR_COUNT_MAX ? count - at : CODEC_VECTOR_COUNT_MAX;
        memcpy(bits, values + at, more * sizeof *bits);
        TRY(float_column_encode(bits, more, CODEC_FAST, &out->block));
    }
    return OK;
}

static err put_columns(struct wire_out *out, const struct sample_columns *c, size_t from, uint32_t rows,
                       uint8_t flags)
{
    if ((flags & WIRE_ROWS_SAME_TIMES) == 0)
        TRY(int_column_encode(c->t_ms + from, rows, CODEC_FAST, &out->block));
    TRY(put_values(out, c->values + from, rows));
    return (flags & WIRE_ROWS_STARTS) == 0
               ? OK
               : int_column_encode(c->start_ms + from, rows, CODEC_FAST, &out->block);
}

static err put_rows(struct wire_out *out, const struct sample_columns *c, size_t from, size_t histogram,
                    struct piece piece)
{
    uint32_t rows = piece.rows;
    uint8_t flags = 0;
    buf_put_varint(&out->block, rows);
    if (rows == 0)
        return OK;
    if (rows == out->times_count && memcmp(out->times, c->t_ms + from, rows * sizeof *out->times) == 0)
        flags |= WIRE_ROWS_SAME_TIMES;
    if (has_starts(c, from, rows))
        flags |= WIRE_ROWS_STARTS;
    if (histogram < piece.histogram_end)
        flags |= WIRE_ROWS_HISTOGRAMS;
    buf_put_u8(&out->block, flags);
    TRY(put_columns(out, c, from, rows, flags));
    memcpy(out->times, c->t_ms + from, rows * sizeof *out->times);
    out->times_count = rows;
    if (histogram == piece.histogram_end)
        return OK;
    buf_put_varint(&out->block, piece.histogram_end - histogram);
    size_t next = from;
    for (size_t i = histogram; i < piece.histogram_end; i++) {
        check(c->histograms[i].row >= next && c->histograms[i].row < from + rows);
        buf_put_varint(&out->block, c->histograms[i].row - next);
        buf_put_string(&out->block, c->histograms[i].bytes);
        next = c->histograms[i].row + 1;
    }
    return OK;
}

/* Exemplars [from, …) that travel together. Returns how many. */
static size_t put_exemplars(struct wire_out *out, const struct source_exemplar *exemplars, size_t count)
{
    size_t taken = 0, bytes = 0;
    while (taken < count && bytes < EXTRA_BYTES)
        bytes += exemplars[taken++].labels.len + 24;
    int64_t before_ms = 0;
    buf_put_varint(&out->block, taken);
    for (size_t i = 0; i < taken; i++) {
        buf_put_zigzag(&out->block, (int64_t)((uint64_t)exemplars[i].t_ms - (uint64_t)before_ms));
        buf_put_le64(&out->block, double_bits(exemplars[i].value));
        buf_put_string(&out->block, exemplars[i].labels);
        before_ms = exemplars[i].t_ms;
    }
    return taken;
}

/* A block that goes on with the series of the block before. */
static err block_continue(struct wire_out *out)
{
    TRY(flush(out));
    block_begin(out, WIRE_BLOCK_SERIES);
    buf_put_u8(&out->block, 1);
    return buf_err(&out->block);
}

err wire_out_series(struct wire_out *out, struct slice labels, const struct sample_columns *columns,
                    const struct source_exemplar *exemplars, size_t exemplar_count)
{
    size_t row = 0, histogram = 0, exemplar = 0;
    TRY(block_for(out, WIRE_BLOCK_SERIES));
    for (;;) {
        struct piece piece = piece_of(columns, row, histogram);
        put_front(out, labels);
        TRY(put_rows(out, columns, row, histogram, piece));
        row += piece.rows;
        histogram = piece.histogram_end;
        exemplar +=
            put_exemplars(out, exemplars + exemplar, row < columns->count ? 0 : exemplar_count - exemplar);
        TRY(buf_err(&out->block));
        if (row == columns->count && exemplar == exemplar_count)
            return OK;
        TRY(block_continue(out));
    }
}

/* ---- groups ---- */

static void put_notes(struct wire_out *out, const struct slice *texts, size_t count)
{
    size_t fit = 0;
    for (size_t bytes = 0; fit < count && fit < SOURCE_NOTE_COUNT_MAX; fit++) {
        bytes += texts[fit].len + 2;
        if (bytes > NOTES_BYTES || texts[fit].len > WIRE_NOTE_BYTES_MAX)
            break;
    }
    buf_put_varint(&out->block, fit);
    for (size_t i = 0; i < fit; i++)
        buf_put_string(&out->block, texts[i]);
}

err wire_out_unit(struct wire_out *out, const struct source_groups *groups, uint64_t step_count,
                  uint32_t column_count)
{
    out->step_count = step_count;
    out->column_count = column_count;
    TRY(flush(out));
    block_begin(out, WIRE_BLOCK_UNIT);
    buf_put_varint(&out->block, column_count);
    buf_put_varint(&out->block, step_count);
    buf_put_varint(&out->block, groups->series_count);
    buf_put_varint(&out->block, groups->sample_count);
    put_notes(out, groups->warnings, groups->warning_count);
    put_notes(out, groups->infos, groups->info_count);
    return flush(out);
}

err wire_out_group(struct wire_out *out, const struct source_group *group)
{
    for (uint64_t at = 0; at < out->step_count; at += WIRE_PIECE_ROW_COUNT_MAX) {
        uint64_t left = out->step_count - at;
        uint32_t steps = left < WIRE_PIECE_ROW_COUNT_MAX ? (uint32_t)left : WIRE_PIECE_ROW_COUNT_MAX;
        TRY(block_for(out, WIRE_BLOCK_GROUPS));
        put_front(out, group->labels);
        buf_put_u8(&out->block, (uint8_t)((group->drop_name ? WIRE_GROUP_DROPS_NAME : 0) |
                                          (at > 0 ? WIRE_GROUP_CONTINUES : 0)));
        for (uint32_t i = 0; i < out->column_count; i++)
            TRY(put_values(out, group->columns[i] + at, steps));
        TRY(buf_err(&out->block));
    }
    return OK;
}

/* ---- the rest ---- */

err wire_out_text(struct wire_out *out, struct slice text)
{
    TRY(block_for(out, WIRE_BLOCK_TEXTS));
    put_front(out, text);
    return buf_err(&out->block);
}

err wire_out_metadata(struct wire_out *out, const struct source_metadata *metadata)
{
    TRY(block_for(out, WIRE_BLOCK_METADATA));
    buf_put_string(&out->block, metadata->family);
    buf_put_string(&out->block, metadata->type);
    buf_put_string(&out->block, metadata->help);
    buf_put_string(&out->block, metadata->unit);
    return buf_err(&out->block);
}

err wire_out_proof(struct wire_out *out, const struct proof *proof)
{
    TRY(flush(out));
    block_begin(out, WIRE_BLOCK_PROOF);
    struct buf *b = &out->block;
    buf_put_u8(b, proof->complete);
    buf_put_zigzag(b, proof->data_through_ms);
    buf_put_varint(b, proof->partition_count);
    for (size_t i = 0; i < proof->partition_count; i++) {
        buf_put_varint(b, proof->partitions[i].partition);
        buf_put_varint(b, proof->partitions[i].generation);
        buf_put_varint(b, proof->partitions[i].applied_offset);
        buf_put_varint(b, proof->partitions[i].end_offset);
    }
    buf_put_varint(b, proof->missing_count);
    for (size_t i = 0; i < proof->missing_count; i++) {
        buf_put_varint(b, proof->missing[i].partition);
        buf_put_zigzag(b, proof->missing[i].range.min_ms);
        buf_put_zigzag(b, proof->missing[i].range.max_ms);
        buf_put_string(b, slice_str(proof->missing[i].reason));
    }
    return block_send(out);
}

err wire_out_error(struct wire_out *out, err error, uint64_t series_over)
{
    uint8_t code = 0;
    while (code + 1u < WIRE_ERROR_COUNT && wire_errors[code] != error)
        code++; /* the last one stands for all others */
    TRY(send_head(out));
    block_begin(out, WIRE_BLOCK_ERROR);
    buf_put_u8(&out->block, code);
    buf_put_varint(&out->block, series_over);
    return block_send(out);
}
