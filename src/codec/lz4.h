/* LZ4 raw blocks: fast compression of bytes whose decoded length is stored beside them.
 * Source: lz4 block format description 1.10. */
#ifndef CODEC_LZ4_H
#define CODEC_LZ4_H

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"

#define LZ4_DECODED_BYTES_MAX (64u << 20)

/* Append the compressed form of `in` to out if that is smaller than `in`; else append nothing and return
 * ERR_FULL: store it plain. ERR_LIMIT: in is longer than LZ4_DECODED_BYTES_MAX, or out's maximum.
 * Cost about 1.5 ns a byte of text, 16 KiB of stack. */
err lz4_block_encode(struct slice in, struct buf *out);

/* Decode into `at`, which has room for exactly decoded_bytes. ERR_CORRUPT: malformed, or another length. */
err lz4_block_decode(struct slice in, uint8_t *at, size_t decoded_bytes);

#endif
