/* Zstandard (RFC 8878) over whole buffers. */
#ifndef CODEC_ZSTD_H
#define CODEC_ZSTD_H

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"

/* Append one frame to out. level 1 … 19. Errors ERR_LIMIT (out's bound). Cost 3–10 ns a byte; allocates the
 * library's context for the call. */
err zstd_compress(struct slice in, int level, struct buf *out);

/* Append the content of all frames of `in` to out, whose max bounds it. Frames need not name their size.
 * Errors ERR_INPUT (malformed, short, or a window above 8 MiB), ERR_LIMIT (larger than out may get). */
err zstd_decompress(struct slice in, struct buf *out);

/* Decompress one frame into exactly `len` bytes. Errors ERR_INPUT: malformed or of another size. */
err zstd_decompress_exact(struct slice in, uint8_t *out, size_t len);

#endif
