/* Writer of segment files: head, blocks in the order given, footer, tail. docs/format/segment.md.
 *
 *   block ─ second stage if it saves 5 % ─ CRC32C ─ buffer of 1 MiB ─ io_file_write, SHA-256 on the way
 *   finish ─ footer (info, block directory as columns) ─ tail ─ sync ─ close
 *
 * LZ4 decodes three times as fast as Zstandard, so Zstandard must be 5 % smaller still to be taken. Packed values
 * of many series are incompressible block after block: then few are tried.
 * Invariants:
 *   1. Bytes go out in file order, each once; the digest is theirs.
 *   2. After a failed write the writer is dead: every later call returns that failure. */
#include "base/buf.h"
#include "base/check.h"
#include "codec/int.h"
#include "codec/lz4.h"
#include "codec/zstd.h"
#include "segment/layout.h"
#include "segment/segment.h"

#define BUFFER_BYTES    (1u << 20)
#define STAGE_BYTES_MIN 128 /* shorter content is not worth a try */
#define ZSTD_LEVEL      1
#define STAGE_MISSES    2 /* after so many blocks of a section that no compressor made smaller … */
#define STAGE_EVERY     8 /* … only one in so many is tried */

struct segment_writer {
    struct pool *pool; /* of everything below and the writer itself */
    struct io_file *file;
    struct sha256 *sha;
    uint16_t kind;
    err failed;
    uint64_t offset; /* of the next byte, buffered ones included */
    struct buf buffer;
    struct buf lz4, zstd; /* scratch */
    struct segment_entry *entries;
    size_t entry_count, entry_capacity;
    uint32_t section_counts[SEGMENT_SECTION_COUNT_MAX];
    uint32_t section_misses[SEGMENT_SECTION_COUNT_MAX]; /* blocks since one was compressed */
};

static err flush(struct segment_writer *w)
{
    if (w->failed == OK && w->buffer.len > 0) {
        sha256_add(w->sha, buf_slice(&w->buffer));
        w->failed = io_file_write(w->file, w->offset - w->buffer.len, buf_slice(&w->buffer));
        buf_clear(&w->buffer);
    }
    return w->failed;
}

static err put(struct segment_writer *w, struct slice bytes)
{
    while (w->failed == OK && bytes.len > 0) {
        size_t part = BUFFER_BYTES - w->buffer.len < bytes.len ? BUFFER_BYTES - w->buffer.len : bytes.len;
        buf_put(&w->buffer, bytes.at, part);
        if (buf_err(&w->buffer) != OK) {
            w->failed = buf_err(&w->buffer);
            break;
        }
        w->offset += part;
        bytes = slice_part(bytes, part, bytes.len - part);
        if (w->buffer.len == BUFFER_BYTES)
            ERR_IGNORE(flush(w)); /* kept in w->failed */
    }
    return w->failed;
}

err segment_writer_open(struct io *io, const char *path, uint16_t kind, struct pool *pool,
                        struct segment_writer **out_writer)
{
    err e = OK;
    struct pool *own = pool_open(pool, "segment writer", POOL_BYTES_UNLIMITED);
    struct segment_writer *w = NULL;
    TRY_OUT(pool_zalloc(own, sizeof *w, (void **)&w));
    w->pool = own;
    w->kind = kind;
    w->buffer = buf_open(own, BUFFER_BYTES);
    w->lz4 = buf_open(own, SEGMENT_BLOCK_BYTES_MAX + 64);
    w->zstd = buf_open(own, 2 * SEGMENT_BLOCK_BYTES_MAX);
    TRY_OUT(io_file_open(io, path, IO_CREATE, &w->file));
    w->sha = sha256_open();
    uint8_t head[SEGMENT_HEAD_BYTES];
    segment_put_head(head, kind);
    TRY_OUT(put(w, slice_of(head, sizeof head)));
    *out_writer = w;
    return OK;
out:
    if (w != NULL)
        segment_writer_close(w);
    else
        pool_close(own);
    return e;
}

/* The smallest worthwhile form of content: into *out_stored, borrowed from content or scratch. */
static err second_stage(struct segment_writer *w, struct slice content, struct slice *out_stored,
                        uint8_t *out_stage)
{
    *out_stored = content;
    *out_stage = STAGE_NONE;
    buf_clear(&w->lz4);
    buf_clear(&w->zstd);
    err e = lz4_block_encode(content, &w->lz4);
    if (e != OK && e != ERR_FULL)
        return e;
    if (e == OK && w->lz4.len <= content.len - content.len / 20) {
        *out_stored = buf_slice(&w->lz4);
        *out_stage = STAGE_LZ4;
    }
    TRY(zstd_compress(content, ZSTD_LEVEL, &w->zstd));
    if (w->zstd.len <= out_stored->len - out_stored->len / 20) {
        *out_stored = buf_slice(&w->zstd);
        *out_stage = STAGE_ZSTD;
    }
    return OK;
}

err segment_writer_block(struct segment_writer *w, unsigned section, struct slice content, bool compress,
                         uint32_t *out_block)
{
    check(section < SEGMENT_SECTION_COUNT_MAX);
    check(content.len >= 1 && content.len <= SEGMENT_BLOCK_BYTES_MAX);
    TRY(w->failed);
    if (w->entry_count == SEGMENT_BLOCK_COUNT_MAX)
        return w->failed = ERR_LIMIT;
    struct segment_entry entry = { .offset = w->offset,
                                   .section = (uint8_t)section,
                                   .content_bytes = (uint32_t)content.len };
    struct slice stored = content;
    uint32_t *misses = &w->section_misses[section];
    if (compress && content.len >= STAGE_BYTES_MIN) {
        if (*misses < STAGE_MISSES || *misses % STAGE_EVERY == 0)
            TRY(w->failed = second_stage(w, content, &stored, &entry.stage));
        *misses = entry.stage == STAGE_NONE ? *misses + 1 : 0;
    }
    entry.stored_bytes = (uint32_t)stored.len;
    entry.crc = crc32c(stored, 0);
    TRY(w->failed = pool_block_reserve(w->pool, (void **)&w->entries, sizeof *w->entries, w->entry_count + 1,
                                       &w->entry_capacity));
    TRY(put(w, stored));
    w->entries[w->entry_count++] = entry;
    if (out_block != NULL)
        *out_block = w->section_counts[section];
    w->section_counts[section]++;
    return OK;
}

err segment_writer_bytes(struct segment_writer *w, unsigned section, struct slice bytes, bool compress)
{
    for (size_t at = 0; at < bytes.len; at += SEGMENT_BLOCK_BYTES) {
        size_t len = bytes.len - at < SEGMENT_BLOCK_BYTES ? bytes.len - at : SEGMENT_BLOCK_BYTES;
        TRY(segment_writer_block(w, section, slice_part(bytes, at, len), compress, NULL));
    }
    return OK;
}

/* The block directory: five columns. */
static err put_directory(struct segment_writer *w, struct buf *out)
{
    size_t n = w->entry_count;
    uint32_t *column = NULL;
    TRY(pool_block_resize(w->pool, (void **)&column, (n + 1) * sizeof *column));
    buf_put_le32(out, (uint32_t)n);
    for (int which = 0; which < 4; which++) {
        for (size_t i = 0; i < n; i++) {
            const struct segment_entry *entry = &w->entries[i];
            column[i] = which == 0   ? entry->section
                        : which == 1 ? entry->stage
                        : which == 2 ? entry->content_bytes
                                     : entry->stored_bytes;
        }
        ERR_IGNORE(int_column_encode_u32(column, n, CODEC_FULL, out)); /* sticks in out */
    }
    for (size_t i = 0; i < n; i++)
        buf_put_le32(out, w->entries[i].crc);
    pool_block_free(w->pool, column);
    return buf_err(out);
}

static err put_footer(struct segment_writer *w, const struct segment_info *info, struct buf *out)
{
    buf_put_le16(out, info->kind_version);
    buf_put_le16(out, 0);
    buf_put_le32(out, info->partition);
    buf_put_le64(out, info->from_generation);
    buf_put_le64(out, info->from_offset);
    buf_put_le64(out, info->to_generation);
    buf_put_le64(out, info->to_offset);
    buf_put_le64(out, (uint64_t)info->time.min_ms);
    buf_put_le64(out, (uint64_t)info->time.max_ms);
    buf_put_le64(out, info->series_count);
    sum_put(out, info->sum);
    sum_put(out, info->distinct);
    sum_put(out, info->dropped);
    sum_put(out, info->expired);
    check(out->failed != OK || out->len == SEGMENT_FOOTER_FIXED_BYTES);
    buf_put_varint(out, info->tenant_count);
    for (size_t i = 0; i < info->tenant_count; i++)
        buf_put_string(out, info->tenants[i]);
    return put_directory(w, out);
}

err segment_writer_finish(struct segment_writer *w, const struct segment_info *info,
                          struct segment_written *out_written)
{
    check(info->kind == w->kind);
    check(w->file != NULL);
    TRY(w->failed);
    err e = OK;
    struct buf footer = buf_open(w->pool, SEGMENT_FOOTER_BYTES_MAX);
    if (info->tenant_count > SEGMENT_TENANT_COUNT_MAX)
        TRY_OUT(ERR_LIMIT);
    TRY_OUT(put_footer(w, info, &footer));
    uint8_t tail[SEGMENT_TAIL_BYTES];
    segment_put_tail(tail, w->offset, buf_slice(&footer), w->kind);
    TRY_OUT(put(w, buf_slice(&footer)));
    TRY_OUT(put(w, slice_of(tail, sizeof tail)));
    TRY_OUT(flush(w));
    TRY_OUT(io_file_sync(w->file));
    io_file_close(w->file);
    w->file = NULL;
    sha256_finish(w->sha, out_written->digest);
    w->sha = NULL;
    out_written->size = w->offset;
    w->failed = ERR_CLOSED; /* nothing may follow */
out:
    if (e != OK)
        w->failed = e;
    buf_close(&footer);
    return e;
}

void segment_writer_close(struct segment_writer *w)
{
    if (w == NULL)
        return;
    uint8_t digest[SHA256_BYTES];
    if (w->sha != NULL)
        sha256_finish(w->sha, digest);
    io_file_close(w->file);
    pool_close(w->pool);
}
