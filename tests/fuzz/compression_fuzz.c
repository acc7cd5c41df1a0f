/* Any bytes as gzip, zlib, zstd and LZ4. Whole buffers and streams agree, nothing grows beyond its buffer, and
 * the bytes themselves survive each codec. Input: byte 0 chooses (bit 0: the rest is a deflate stream, around
 * which a gzip member with true checksum and length is made), byte 1 is where the stream is cut, and times 16
 * the size that an LZ4 block claims. */
#include "base/bytes.h"
#include "base/check.h"
#include "codec/gzip.h"
#include "codec/lz4.h"
#include "codec/zstd.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PLAIN_BYTES_MAX (256u << 10)

/* A gzip member around the deflate stream at the front of `deflated`, as zlib reads it; false: there is none. */
static bool make_member(struct slice deflated, struct pool *pool, struct buf *member, struct buf *plain)
{
    uint8_t *room = buf_room(plain, PLAIN_BYTES_MAX);
    z_stream z = { .next_in = (uint8_t *)(uintptr_t)deflated.at, .avail_in = (unsigned)deflated.len };
    z.next_out = room;
    z.avail_out = PLAIN_BYTES_MAX;
    check(room != NULL && inflateInit2(&z, -15) == Z_OK);
    bool is_whole = inflate(&z, Z_FINISH) == Z_STREAM_END;
    inflateEnd(&z);
    plain->len = z.total_out;
    static const uint8_t head[10] = { 0x1f, 0x8b, 8 };
    buf_put(member, head, sizeof head);
    buf_put(member, deflated.at, z.total_in);
    buf_put_le32(member, (uint32_t)crc32(0, plain->at, (unsigned)plain->len));
    buf_put_le32(member, (uint32_t)plain->len);
    return is_whole;
}

static err read_stream(struct slice bytes, size_t cut, struct pool *pool, struct buf *out)
{
    struct gzip_reader *reader;
    check(gzip_reader_open(pool, &reader) == OK);
    cut = cut < bytes.len ? cut : bytes.len;
    err e = gzip_reader_add(reader, slice_of(bytes.at, cut), out);
    if (e == OK)
        e = gzip_reader_add(reader, slice_of(bytes.at + cut, bytes.len - cut), out);
    if (e == OK && !gzip_reader_ended(reader))
        e = ERR_END;
    gzip_reader_close(reader);
    return e;
}

static void ungzip(struct slice bytes, size_t cut, struct pool *pool, const struct buf *expected)
{
    struct buf whole = buf_open(pool, PLAIN_BYTES_MAX), parts = buf_open(pool, PLAIN_BYTES_MAX);
    struct buf tiny = buf_open(pool, 100);
    err a = gzip_decompress(bytes, &whole), b = read_stream(bytes, cut, pool, &parts);
    check(a == OK || a == ERR_INPUT || a == ERR_LIMIT);
    if (a == OK && b == OK)
        check(slice_equal(buf_slice(&whole), buf_slice(&parts)));
    if (expected != NULL)
        check(a == OK && b == OK && slice_equal(buf_slice(&whole), buf_slice(expected)));
    err c = gzip_decompress(bytes, &tiny);
    check(a != OK || c == (whole.len <= 100 ? OK : ERR_LIMIT));
    buf_clear(&tiny);
    ERR_IGNORE(gzip_decompress_zlib(bytes, &tiny));
    buf_clear(&parts);
    ERR_IGNORE(gzip_decompress_zlib(bytes, &parts));
}

static void unblock(struct slice bytes, size_t claimed, struct pool *pool)
{
    struct buf plain = buf_open(pool, PLAIN_BYTES_MAX), tiny = buf_open(pool, 100);
    uint8_t *exact = malloc(claimed + 1);
    check(exact != NULL);
    ERR_IGNORE(lz4_block_decode(bytes, exact, claimed));
    ERR_IGNORE(zstd_decompress_exact(bytes, exact, claimed));
    check(lz4_block_decode(bytes, exact, LZ4_DECODED_BYTES_MAX + 1) == ERR_CORRUPT);
    err e = zstd_decompress(bytes, &plain), f = zstd_decompress(bytes, &tiny);
    free(exact);
    check(e != OK || f == (plain.len <= 100 ? OK : ERR_LIMIT));
    if (e != OK)
        return;
    exact = malloc(plain.len + 1);
    check(exact != NULL);
    if (zstd_decompress_exact(bytes, exact, plain.len) == OK) /* not if there are several frames */
        check(slice_equal(slice_of(exact, plain.len), buf_slice(&plain)));
    free(exact);
}

/* A pool that has no room for what comes out. */
static void refuse(struct slice bytes)
{
    struct pool *pool = pool_open(NULL, "small", 1024);
    struct buf out = buf_open(pool, PLAIN_BYTES_MAX);
    check(gzip_decompress(bytes, &out) != OK || out.len <= 1024);
    buf_close(&out);
    out = buf_open(pool, PLAIN_BYTES_MAX);
    check(zstd_decompress(bytes, &out) != OK || out.len <= 1024);
    pool_close(pool);
}

/* The bytes, twice over so that there is something to find, through every encoder and back. */
static void round_trips(struct slice bytes, size_t cut, struct pool *pool)
{
    struct buf plain = buf_open(pool, 1u << 20), packed = buf_open(pool, 2u << 20),
               again = buf_open(pool, 1u << 20);
    struct gzip_writer *writer;
    buf_put_slice(&plain, bytes);
    buf_put_slice(&plain, bytes);
    cut = cut < plain.len ? cut : plain.len;
    struct slice in = buf_slice(&plain), rest = slice_of(plain.at + cut, plain.len - cut);
    check(gzip_compress(in, 1, &packed) == OK && gzip_writer_open(pool, 1, &writer) == OK);
    check(gzip_writer_add(writer, slice_of(plain.at, cut), false, &packed) == OK);
    check(gzip_writer_add(writer, rest, true, &packed) == OK);
    gzip_writer_close(writer);
    check(gzip_decompress(buf_slice(&packed), &again) == OK && again.len == 2 * in.len);
    check(slice_equal(slice_of(again.at, in.len), in) &&
          slice_equal(slice_of(again.at + in.len, in.len), in));
    buf_clear(&packed);
    buf_clear(&again);
    check(zstd_compress(in, 1, &packed) == OK && zstd_decompress(buf_slice(&packed), &again) == OK);
    check(slice_equal(buf_slice(&again), in));
    buf_clear(&packed);
    if (lz4_block_encode(in, &packed) == OK)
        check(lz4_block_decode(buf_slice(&packed), again.at, in.len) == OK &&
              slice_equal(buf_slice(&again), in));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    struct pool *pool = pool_open(NULL, "fuzz", 64u << 20);
    struct slice rest = slice_of(data + 2, size - 2);
    struct buf member = buf_open(pool, 2u << 20), plain = buf_open(pool, PLAIN_BYTES_MAX);
    if (data[0] & 1) {
        if (make_member(rest, pool, &member, &plain))
            ungzip(buf_slice(&member), data[1], pool, &plain);
    } else {
        ungzip(rest, data[1], pool, NULL);
        unblock(rest, data[1] * 16u, pool);
        refuse(rest);
    }
    if (rest.len < 65536)
        round_trips(rest, data[1], pool);
    pool_close(pool);
    return 0;
}
