/* Integer columns as bytes: vectors of at most 256 values, each a transform (run, none, difference,
 * differences with a bitmap of the non-zero ones, difference of differences) and a patched frame of
 * reference: a bit width and a base for most values, outliers on both sides beside it. docs/codecs.md.
 *
 * Every 64-bit value survives. Output is a function of input and effort alone. Decoding never reads
 * outside its slice but for CODEC_PAD_BYTES behind it, whose contents do not matter. */
#ifndef CODEC_INT_H
#define CODEC_INT_H

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/slice.h"

#include <stddef.h>
#include <stdint.h>

#define CODEC_VECTOR_COUNT_MAX 256
#define CODEC_PAD_BYTES        64   /* readable behind every slice that is decoded */
#define INT_VECTOR_BYTES_MAX   2080 /* 256 values of 64 bits and the vector's head */

/* How long to search: the fast one for row groups, the full one for what is kept. */
enum codec_effort { CODEC_FAST, CODEC_FULL };

/* Encode 1 … 256 values. out has room for INT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES. Returns the bytes
 * used. Cost about 15 (fast) or 35 ns (full) a value. Source docs/codecs.md §2. */
size_t int_encode(const int64_t *values, size_t count, enum codec_effort effort, uint8_t *out);

/* Decode a vector of `count` values (known to the caller, 1 … 256). *out_used: its bytes. Errors ERR_CORRUPT.
 * Cost about 0.3 ns a value. */
err int_decode(struct slice bytes, size_t count, int64_t *out_values, size_t *out_used);

/* The same without vector instructions: the oracle of tests. */
err int_decode_portable(struct slice bytes, size_t count, int64_t *out_values, size_t *out_used);

/* A column of any length: its vectors one after the other. Errors of encode: out's. */
err int_column_encode(const int64_t *values, size_t count, enum codec_effort effort, struct buf *out);
err int_column_encode_u32(const uint32_t *values, size_t count, enum codec_effort effort, struct buf *out);

/* Decode a column of `count` values from r, which has CODEC_PAD_BYTES readable behind its end. Errors
 * ERR_CORRUPT (for u32: also a value outside 32 bits). */
err int_column_decode(struct reader *r, size_t count, int64_t *out_values);
err int_column_decode_u32(struct reader *r, size_t count, uint32_t *out_values);

#endif
