/* See wire.h. Pure: bytes in, facts out. From: the handler and the asker of SYNC_PATH (node). To: compare.c.
 *
 * Invariants
 *  1. What is decoded is bounded by the arrays it goes to, and marks are in order: compare.c relies on both.
 *  2. Every answer that is decoded is encoded to the same bytes again: there is one form of each. */
#include "sync/wire.h"

#include "base/bytes.h"

#include <string.h>

/* The shortest form alone counts. */
static uint64_t read_short(struct reader *r)
{
    size_t before = read_left(r);
    uint64_t v = read_varint(r);
    size_t used = before - read_left(r);
    r->ok = r->ok && (used == 1 || v >> (7 * (used - 1)) != 0);
    return v;
}

static uint32_t read_count(struct reader *r, uint32_t most)
{
    uint64_t v = read_short(r);
    r->ok = r->ok && v <= most;
    return r->ok ? (uint32_t)v : 0;
}

static bool read_flag(struct reader *r)
{
    uint8_t v = read_u8(r);
    r->ok = r->ok && v <= 1;
    return v == 1;
}

static err begin(struct slice bytes, struct reader *out_reader)
{
    *out_reader = reader_of(bytes);
    uint8_t version = read_u8(out_reader);
    if (out_reader->ok && version > SYNC_WIRE_VERSION)
        return ERR_VERSION;
    return out_reader->ok && version == SYNC_WIRE_VERSION ? OK : ERR_INPUT;
}

/* ---- the question ---- */

void sync_request_encode(const struct sync_request *request, struct buf *out)
{
    buf_put_u8(out, SYNC_WIRE_VERSION);
    buf_put_varint(out, request->partition);
    buf_put_varint(out, request->first);
    buf_put_varint(out, request->count);
}

err sync_request_decode(struct slice bytes, struct sync_request *out_request)
{
    struct reader r;
    TRY(begin(bytes, &r));
    struct sync_request request = { .partition = read_count(&r, UINT32_MAX) };
    request.first = read_count(&r, UINT32_MAX);
    request.count = read_count(&r, SHARD_SEGMENT_PAGE_MAX);
    if (!r.ok || read_left(&r) > 0)
        return ERR_INPUT;
    *out_request = request;
    return OK;
}

/* ---- the answer ---- */

static void put_mark(struct buf *out, const struct shard_mark *mark)
{
    buf_put_varint(out, mark->generation);
    buf_put_varint(out, mark->start);
    buf_put_varint(out, mark->at - mark->start);
    buf_put_le32(out, (uint32_t)mark->leader_epoch);
    sum_put(out, mark->sum);
}

static void put_segment(struct buf *out, const struct shard_segment *s)
{
    buf_put(out, s->digest, sizeof s->digest);
    buf_put_varint(out, s->era);
    buf_put_varint(out, s->bytes);
    buf_put_varint(out, s->from_generation);
    buf_put_varint(out, s->from_offset);
    buf_put_varint(out, s->to_generation);
    buf_put_varint(out, s->to_offset);
    sum_put(out, s->sum);
}

void sync_answer_encode(const struct shard_sums *sums, struct buf *out)
{
    buf_put_u8(out, SYNC_WIRE_VERSION);
    buf_put_u8(out, sums->is_open);
    if (!sums->is_open)
        return;
    buf_put_u8(out, sums->is_recovered);
    buf_put_varint(out, sums->anew_count);
    buf_put_varint(out, sums->generation);
    buf_put_varint(out, sums->applied);
    buf_put_varint(out, sums->chain_next);
    buf_put_varint(out, sums->segment_count);
    sum_put(out, sums->segments);
    sum_put(out, sums->digests);
    buf_put_varint(out, sums->mark_count);
    for (uint32_t i = 0; i < sums->mark_count; i++)
        put_mark(out, &sums->marks[i]);
    buf_put_varint(out, sums->first);
    buf_put_varint(out, sums->page_count);
    for (uint32_t i = 0; i < sums->page_count; i++)
        put_segment(out, &sums->page[i]);
    sum_put(out, sums->older_digests);
}

static void read_mark(struct reader *r, struct shard_mark *out)
{
    out->generation = read_short(r);
    out->start = read_short(r);
    uint64_t passed = read_short(r);
    out->at = out->start + passed;
    r->ok = r->ok && out->at >= passed;
    out->leader_epoch = (int32_t)read_le32(r);
    out->sum = sum_read(r);
}

static void read_segment(struct reader *r, struct shard_segment *out)
{
    struct slice digest = read_bytes(r, sizeof out->digest);
    if (r->ok)
        memcpy(out->digest, digest.at, sizeof out->digest);
    out->era = read_short(r);
    out->bytes = read_short(r);
    out->from_generation = read_short(r);
    out->from_offset = read_short(r);
    out->to_generation = read_short(r);
    out->to_offset = read_short(r);
    out->sum = sum_read(r);
}

static void read_marks(struct reader *r, struct shard_sums *out)
{
    out->mark_count = read_count(r, SHARD_MARKS_MAX);
    for (uint32_t i = 0; i < out->mark_count && r->ok; i++) {
        read_mark(r, &out->marks[i]);
        r->ok = r->ok && (i == 0 || shard_mark_order(&out->marks[i - 1], &out->marks[i]) < 0);
    }
}

static void read_page(struct reader *r, struct shard_sums *out)
{
    out->first = read_count(r, UINT32_MAX);
    out->page_count = read_count(r, SHARD_SEGMENT_PAGE_MAX);
    for (uint32_t i = 0; i < out->page_count && r->ok; i++)
        read_segment(r, &out->page[i]);
    out->older_digests = sum_read(r);
}

err sync_answer_decode(struct slice bytes, struct shard_sums *out_sums)
{
    struct reader r;
    TRY(begin(bytes, &r));
    memset(out_sums, 0, sizeof *out_sums);
    out_sums->is_open = read_flag(&r);
    if (out_sums->is_open) {
        out_sums->is_recovered = read_flag(&r);
        out_sums->anew_count = read_count(&r, UINT32_MAX);
        out_sums->generation = read_short(&r);
        out_sums->applied = read_short(&r);
        out_sums->chain_next = read_short(&r);
        out_sums->segment_count = read_count(&r, UINT32_MAX);
        out_sums->segments = sum_read(&r);
        out_sums->digests = sum_read(&r);
        read_marks(&r, out_sums);
        read_page(&r, out_sums);
    }
    return r.ok && read_left(&r) == 0 ? OK : ERR_INPUT;
}
