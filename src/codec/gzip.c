/* gzip and zlib wrappers. From: HTTP bodies and answers. To: buffers with a maximum.
 *
 * Whole buffers go through libdeflate (2–5 times zlib's speed), streams through zlib.
 *
 * Invariants
 * 1. Output never passes the buffer's maximum, and memory follows the output, not what a header claims:
 *    libdeflate gets a guess from the trailer's length field, never more than 1,032 times the input
 *    (deflate's best ratio) and never more than the maximum.
 * 2. zlib's memory comes from the caller's pool; libdeflate's (some 10 to 100 KB) lives during one call. */
#include "codec/gzip.h"

#include <libdeflate.h>
#include <zlib.h>

#include "base/bytes.h"
#include "base/check.h"

#define GZIP_BYTES_MIN    18 /* header 10, empty block 2 … trailer 8 */
#define DEFLATE_RATIO_MAX 1032
#define OUT_STEP_BYTES    (64u << 10)

/* The size the trailer claims (modulo 2^32), bounded by what is possible. */
static size_t guess_bytes(struct slice bytes, size_t room_max)
{
    size_t claimed = get_le32(bytes.at + bytes.len - 4);
    size_t possible = bytes.len > SIZE_MAX / DEFLATE_RATIO_MAX ? SIZE_MAX : bytes.len * DEFLATE_RATIO_MAX;
    size_t guess = claimed < possible ? claimed : possible;
    if (guess < 64)
        guess = 64;
    return guess < room_max ? guess : room_max;
}

/* Decompress one member at the front of *bytes and step over it. */
static err decompress_member(struct libdeflate_decompressor *d, bool is_gzip, struct slice *bytes,
                             struct buf *out)
{
    size_t room_max = out->max - out->len;
    size_t room = is_gzip ? guess_bytes(*bytes, room_max) : bytes->len * 4;
    if (room > room_max)
        room = room_max;
    for (;;) {
        uint8_t *at = buf_room(out, room);
        if (at == NULL && room > 0)
            return buf_err(out);
        size_t used = 0, made = 0;
        uint8_t none;
        enum libdeflate_result result =
            is_gzip ? libdeflate_gzip_decompress_ex(d, bytes->at, bytes->len, at != NULL ? at : &none, room,
                                                    &used, &made)
                    : libdeflate_zlib_decompress_ex(d, bytes->at, bytes->len, at != NULL ? at : &none, room,
                                                    &used, &made);
        if (result == LIBDEFLATE_SUCCESS) {
            out->len += made;
            *bytes = slice_part(*bytes, used, bytes->len - used);
            return OK;
        }
        if (result != LIBDEFLATE_INSUFFICIENT_SPACE)
            return ERR_INPUT;
        if (room == room_max)
            return ERR_LIMIT;
        room = room > room_max / 2 ? room_max : room * 2;
    }
}

err gzip_decompress(struct slice bytes, struct buf *out)
{
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    check(d != NULL); /* the system refusing memory aborts, as everywhere */
    err e = bytes.len < GZIP_BYTES_MIN ? ERR_INPUT : OK;
    while (e == OK && bytes.len > 0)
        e = bytes.len < GZIP_BYTES_MIN ? ERR_INPUT : decompress_member(d, true, &bytes, out);
    libdeflate_free_decompressor(d);
    return e;
}

err gzip_decompress_zlib(struct slice bytes, struct buf *out)
{
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    check(d != NULL);
    err e = bytes.len == 0 ? ERR_INPUT : decompress_member(d, false, &bytes, out);
    if (e == OK && bytes.len > 0)
        e = ERR_INPUT;
    libdeflate_free_decompressor(d);
    return e;
}

err gzip_compress(struct slice bytes, int level, struct buf *out)
{
    check(level >= 1 && level <= 12);
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(level);
    check(c != NULL);
    size_t bound = libdeflate_gzip_compress_bound(c, bytes.len);
    size_t room = bound < out->max - out->len ? bound : out->max - out->len;
    uint8_t *at = buf_room(out, room);
    err e = buf_err(out);
    if (e == OK) {
        size_t made = at == NULL ? 0 : libdeflate_gzip_compress(c, bytes.at, bytes.len, at, room);
        check(made > 0 || room < bound);
        out->len += made;
        e = made > 0 ? OK : ERR_LIMIT;
    }
    libdeflate_free_compressor(c);
    return e;
}

/* ---- streams ---- */

struct gzip_writer {
    z_stream stream;
    struct pool *pool;
};

struct gzip_reader {
    z_stream stream;
    struct pool *pool;
    bool is_between; /* between members: at the start, or behind a trailer */
    bool has_begun;
};

static void *zlib_alloc(void *pool, unsigned count, unsigned size)
{
    void *at = NULL;
    size_t bytes;
    if (__builtin_mul_overflow((size_t)count, (size_t)size, &bytes) ||
        pool_block_resize(pool, &at, bytes) != OK)
        return NULL;
    memset(at, 0, bytes); /* deflate hashes a little beyond what it was given */
    return at;
}

static void zlib_free(void *pool, void *at) { pool_block_free(pool, at); }

err gzip_writer_open(struct pool *pool, int level, struct gzip_writer **out_writer)
{
    struct gzip_writer *writer = NULL;
    TRY(pool_block_resize(pool, (void **)&writer, sizeof *writer));
    *writer = (struct gzip_writer){ .pool = pool,
                                    .stream = { .zalloc = zlib_alloc, .zfree = zlib_free, .opaque = pool } };
    int result =
        deflateInit2(&writer->stream, level > 9 ? 9 : level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    if (result != Z_OK) {
        pool_block_free(pool, writer);
        return ERR_LIMIT;
    }
    *out_writer = writer;
    return OK;
}

void gzip_writer_close(struct gzip_writer *writer)
{
    if (writer == NULL)
        return;
    deflateEnd(&writer->stream);
    pool_block_free(writer->pool, writer);
}

err gzip_writer_add(struct gzip_writer *writer, struct slice bytes, bool last, struct buf *out)
{
    z_stream *z = &writer->stream;
    check(bytes.len <= UINT32_MAX);
    z->next_in = (uint8_t *)(uintptr_t)bytes.at;
    z->avail_in = (unsigned)bytes.len;
    for (;;) {
        size_t left = out->max - out->len;
        size_t room = left < OUT_STEP_BYTES ? left : OUT_STEP_BYTES;
        uint8_t *at = room == 0 ? NULL : buf_room(out, room);
        if (at == NULL)
            return ERR_LIMIT;
        z->next_out = at;
        z->avail_out = (unsigned)room;
        int result = deflate(z, last ? Z_FINISH : Z_NO_FLUSH);
        check(result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR);
        out->len += room - z->avail_out;
        if (last ? result == Z_STREAM_END : z->avail_in == 0 && z->avail_out > 0)
            return OK;
    }
}

err gzip_reader_open(struct pool *pool, struct gzip_reader **out_reader)
{
    struct gzip_reader *reader = NULL;
    TRY(pool_block_resize(pool, (void **)&reader, sizeof *reader));
    *reader = (struct gzip_reader){ .pool = pool,
                                    .is_between = true,
                                    .stream = { .zalloc = zlib_alloc, .zfree = zlib_free, .opaque = pool } };
    if (inflateInit2(&reader->stream, 15 + 16) != Z_OK) {
        pool_block_free(pool, reader);
        return ERR_LIMIT;
    }
    *out_reader = reader;
    return OK;
}

void gzip_reader_close(struct gzip_reader *reader)
{
    if (reader == NULL)
        return;
    inflateEnd(&reader->stream);
    pool_block_free(reader->pool, reader);
}

err gzip_reader_add(struct gzip_reader *reader, struct slice bytes, struct buf *out)
{
    z_stream *z = &reader->stream;
    check(bytes.len <= UINT32_MAX);
    z->next_in = (uint8_t *)(uintptr_t)bytes.at;
    z->avail_in = (unsigned)bytes.len;
    for (;;) {
        if (z->avail_in > 0 && reader->is_between) {
            if (reader->has_begun && inflateReset(z) != Z_OK)
                return ERR_INPUT;
            reader->is_between = false;
            reader->has_begun = true;
        }
        if (reader->is_between)
            return OK;
        size_t left = out->max - out->len;
        size_t room = left < OUT_STEP_BYTES ? left : OUT_STEP_BYTES;
        uint8_t full;
        uint8_t *at = room == 0 ? &full : buf_room(out, room);
        if (at == NULL)
            return ERR_LIMIT;
        z->next_out = at; /* with no room left one byte tells whether the stream goes on */
        z->avail_out = room == 0 ? 1 : (unsigned)room;
        int result = inflate(z, Z_NO_FLUSH);
        if (room == 0 && z->avail_out == 0)
            return ERR_LIMIT;
        if (room != 0)
            out->len += room - z->avail_out;
        if (result == Z_MEM_ERROR)
            return ERR_LIMIT;
        if (result == Z_STREAM_END)
            reader->is_between = true;
        else if (result == Z_BUF_ERROR || (result == Z_OK && z->avail_in == 0 && z->avail_out > 0))
            return OK; /* wants more input */
        else if (result != Z_OK)
            return ERR_INPUT;
    }
}

bool gzip_reader_ended(const struct gzip_reader *reader) { return reader->is_between && reader->has_begun; }
