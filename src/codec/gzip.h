/* gzip (RFC 1952): whole buffers through libdeflate, streams through zlib. Both bounded while they
 * decode: the output buffer's maximum ends a bomb. */
#ifndef CODEC_GZIP_H
#define CODEC_GZIP_H

#include "base/buf.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"

#include <stdbool.h>

/* Append the decompressed form of a whole gzip body (one member or several) to out.
 * ERR_INPUT not gzip, damaged, or bytes behind the end; ERR_LIMIT larger than out may become. */
err gzip_decompress(struct slice bytes, struct buf *out);

/* The same for zlib-wrapped bytes (RFC 1950, "Content-Encoding: deflate"). */
err gzip_decompress_zlib(struct slice bytes, struct buf *out);

/* Append bytes as one gzip member. level 1 … 12. ERR_LIMIT. */
err gzip_compress(struct slice bytes, int level, struct buf *out);

/* ---- streams; owner: one thread; memory from the pool (256 KB writing, 48 KB reading) ---- */

struct gzip_writer;
err gzip_writer_open(struct pool *pool, int level, struct gzip_writer **out_writer);
void gzip_writer_close(struct gzip_writer *writer); /* NULL is allowed */

/* Compress bytes, appending what is ready to out; `last` ends the member. ERR_LIMIT. */
err gzip_writer_add(struct gzip_writer *writer, struct slice bytes, bool last, struct buf *out);

struct gzip_reader;
err gzip_reader_open(struct pool *pool, struct gzip_reader **out_reader);
void gzip_reader_close(struct gzip_reader *reader); /* NULL is allowed */

/* Decompress the next bytes, appending to out. ERR_INPUT, ERR_LIMIT (out's maximum). */
err gzip_reader_add(struct gzip_reader *reader, struct slice bytes, struct buf *out);

/* Has the stream come to a proper end (trailer seen, nothing half read)? */
bool gzip_reader_ended(const struct gzip_reader *reader);

#endif
