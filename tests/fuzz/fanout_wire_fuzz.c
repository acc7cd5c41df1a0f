/* Any bytes as a request of a node (first byte 0, magic and checksum made right) or as an answer (1: blocks
 * made of a type, a length and bytes each, with head and checksum right; 2: as they are). The second byte is
 * the kind; of an answer with groups the third stands for the counts of columns and steps. What decodes encodes to
 * what decodes the same; series, groups, texts and proofs of an answer are walked to their end, and rows and
 * states that were found good are read again. */
#include "base/check.h"
#include "base/hash.h"
#include "fanout/wire.h"
#include "fanout/wire_format.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX (256u << 20)

static void request_of(struct pool *pool, uint8_t kind, struct slice body)
{
    struct wire_request request, same;
    struct buf bytes = buf_open(pool, WIRE_REQUEST_BYTES_MAX),
               again = buf_open(pool, 2 * WIRE_REQUEST_BYTES_MAX);
    buf_put(&bytes, "KQRY", 4);
    buf_put_u8(&bytes, wire_version((enum wire_kind)kind));
    buf_put_u8(&bytes, kind);
    buf_put_slice(&bytes, body);
    buf_put_le32(&bytes, buf_err(&bytes) == OK ? crc32c(buf_slice(&bytes), 0) : 0);
    ERR_IGNORE(wire_request_decode(body, pool, &request, NULL)); /* wants no crash only */
    if (buf_err(&bytes) != OK || wire_request_decode(buf_slice(&bytes), pool, &request, NULL) != OK)
        return;
    if (wire_request_encode(&request, &again) != OK) /* a form with long varints may be at the bound */
        return;
    check(wire_request_decode(buf_slice(&again), pool, &same, NULL) == OK);
    struct buf twice = buf_open(pool, 2 * WIRE_REQUEST_BYTES_MAX);
    check(wire_request_encode(&same, &twice) == OK && slice_equal(buf_slice(&again), buf_slice(&twice)));
}

static void series_of(struct pool *pool, struct wire_series *series, struct slice body)
{
    struct wire_entry entry;
    struct source_exemplar exemplar;
    struct sample_columns columns = sample_columns_open(pool);
    wire_series_block(series, body);
    while (wire_series_next(series, &entry) == OK) {
        struct wire_exemplars exemplars = wire_exemplars_of(&entry);
        sample_columns_clear(&columns);
        if (wire_piece_read(&entry.piece, &columns) == OK)
            check(columns.count == entry.piece.rows &&
                  columns.histogram_count == entry.piece.histogram_count);
        for (size_t i = 1; i < columns.count; i++)
            check(columns.t_ms[i - 1] < columns.t_ms[i]);
        while (wire_exemplar_next(&exemplars, &exemplar))
            check(exemplar.labels.len <= body.len);
    }
    sample_columns_close(&columns);
}

static void groups_of(struct wire_groups *groups, uint32_t column_count, struct slice body)
{
    static double columns[SOURCE_GROUP_COLUMNS_MAX][WIRE_PIECE_ROW_COUNT_MAX];
    double *const to[] = { columns[0], columns[1], columns[2] };
    struct wire_group piece;
    wire_groups_block(groups, body);
    while (wire_groups_next(groups, &piece) == OK) {
        check(piece.steps >= 1 && piece.steps <= WIRE_PIECE_ROW_COUNT_MAX);
        wire_group_read(&piece, column_count, to);
    }
}

static void answer_of(struct pool *pool, uint8_t kind, struct slice bytes)
{
    struct wire_in in = { .pool = pool, .kind = (enum wire_kind)kind };
    struct wire_series *series;
    struct wire_block block;
    struct wire_texts texts = { 0 };
    struct wire_metadata metadata = { 0 };
    struct source_groups unit = { 0 };
    struct wire_groups *groups;
    struct proof proof;
    err error;
    uint64_t series_over;
    uint8_t shape = kind == WIRE_GROUPS && bytes.len > 0 ? bytes.at[0] : 0;
    uint32_t column_count = 1 + shape % 3;
    uint64_t step_count = 1 + (uint64_t)shape / 3 * 97;
    if (wire_series_open(pool, &series) != OK ||
        wire_groups_open(pool, step_count, column_count, &groups) != OK)
        return;
    bytes = kind == WIRE_GROUPS && bytes.len > 0 ? slice_part(bytes, 1, bytes.len - 1) : bytes;
    while (wire_in_next(&in, &bytes, &block) == OK) {
        if (block.type == WIRE_BLOCK_SERIES)
            series_of(pool, series, block.body);
        else if (block.type == WIRE_BLOCK_GROUPS)
            groups_of(groups, column_count, block.body);
        else if (block.type == WIRE_BLOCK_UNIT)
            ERR_IGNORE(wire_unit_read(block.body, pool, step_count, column_count, &unit));
        else if (block.type == WIRE_BLOCK_TEXTS)
            ERR_IGNORE(wire_texts_read(block.body, pool, &texts));
        else if (block.type == WIRE_BLOCK_METADATA)
            ERR_IGNORE(wire_metadata_read(block.body, pool, &metadata));
        else if (block.type == WIRE_BLOCK_PROOF && wire_proof_read(block.body, pool, &proof) == OK)
            check(!proof.complete || proof.missing_count == 0);
        else if (block.type == WIRE_BLOCK_ERROR && wire_error_read(block.body, &error, &series_over) == OK)
            check(error != OK);
    }
    wire_series_close(series);
    wire_groups_close(groups);
}

static void put_block(struct buf *out, uint8_t type, struct slice body)
{
    uint8_t head[WIRE_BLOCK_HEAD_BYTES] = { type };
    put_le32(head + 1, (uint32_t)body.len);
    put_le32(head + 5, crc32c(body, crc32c(slice_of(head, 5), 0)));
    buf_put(out, head, sizeof head);
    buf_put_slice(out, body);
}

/* Blocks of (type, length as le16, bytes) …, behind a good head. */
static void framed(struct pool *pool, uint8_t kind, struct slice bytes)
{
    struct reader r = reader_of(bytes);
    uint8_t head[6] = { 'K', 'A', 'N', 'S', wire_version((enum wire_kind)kind), kind };
    struct buf out = buf_open(pool, 16u << 20);
    if (kind == WIRE_GROUPS)
        buf_put_u8(&out, read_u8(&r)); /* the shape */
    put_block(&out, WIRE_BLOCK_HEAD, slice_of(head, sizeof head));
    while (read_left(&r) > 3) {
        uint8_t type = read_u8(&r);
        size_t len = read_le16(&r);
        put_block(&out, type, read_bytes(&r, len < read_left(&r) ? len : read_left(&r)));
    }
    if (buf_err(&out) == OK)
        answer_of(pool, kind, buf_slice(&out));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct pool *pool = pool_open(NULL, "fuzz", FUZZ_BYTES_MAX);
    struct slice rest = slice_of(data + 2, size - 2);
    if (data[0] == 0)
        request_of(pool, data[1], rest);
    else if (data[0] == 1)
        framed(pool, data[1], rest);
    else
        answer_of(pool, data[1], rest);
    pool_close(pool); /* with its children's memory */
    return 0;
}
