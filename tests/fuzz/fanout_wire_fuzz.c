/* Any bytes as a request of a node (first byte 0, magic and checksum made right) or as an answer (1: blocks
 * made of a type, a length and bytes each, with head and checksum right; 2: as they are). The second byte is
 * the kind. What decodes encodes to what decodes the same; series, texts and proofs of an answer are walked
 * to their end, and rows that were found good are read again. */
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
    buf_put(&bytes, "KQRY\1", 5);
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

static void answer_of(struct pool *pool, uint8_t kind, struct slice bytes)
{
    struct wire_in in = { .pool = pool, .kind = (enum wire_kind)kind };
    struct wire_series *series;
    struct wire_block block;
    struct wire_texts texts = { 0 };
    struct wire_metadata metadata = { 0 };
    struct proof proof;
    err error;
    uint64_t series_over;
    if (wire_series_open(pool, &series) != OK)
        return;
    while (wire_in_next(&in, &bytes, &block) == OK) {
        if (block.type == WIRE_BLOCK_SERIES)
            series_of(pool, series, block.body);
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
    uint8_t head[6] = { 'K', 'A', 'N', 'S', WIRE_VERSION, kind };
    struct buf out = buf_open(pool, 16u << 20);
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
