/* Columns of 64-bit floats as bytes, all bits surviving: NaN payloads, -0, infinities, denormals.
 *
 * A vector of at most 256 values becomes integers by the smallest exact decimal scale (value = integer
 * / 10^e), or the raw bits; integers are divided by their common divisor and encoded as codec/int.h does.
 * Values that no scale expresses (stale markers, NaN, -0, Inf) are exceptions, one that comes again and again is a
 * bitmap. docs/codecs.md §3. */
#ifndef CODEC_FLOAT_H
#define CODEC_FLOAT_H

#include "codec/int.h"

#define FLOAT_VECTOR_BYTES_MAX 2560

/* Encode 1 … 256 values given as bits. out has room for FLOAT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES. Returns
 * the bytes used. Deterministic on every machine. Cost about 20 (fast) or 45 ns (full) a value. */
size_t float_encode(const uint64_t *bits, size_t count, enum codec_effort effort, uint8_t *out);

/* Decode a vector of `count` values (1 … 256, known to the caller) into bits. Errors ERR_CORRUPT. Cost about
 * 0.35 (AVX2) or 0.7 ns a value. */
err float_decode(struct slice bytes, size_t count, uint64_t *out_bits, size_t *out_used);

/* The same without vector instructions: the oracle of tests. */
err float_decode_portable(struct slice bytes, size_t count, uint64_t *out_bits, size_t *out_used);

/* A column of any length: its vectors one after the other; as in codec/int.h. */
err float_column_encode(const uint64_t *bits, size_t count, enum codec_effort effort, struct buf *out);
err float_column_decode(struct reader *r, size_t count, uint64_t *out_bits);

/* The integers behind a vector, if all values are non-negative integers below 2^53 (no -0): for differences of
 * histogram buckets. False otherwise. */
bool float_integers(const uint64_t *bits, size_t count, int64_t *out_integers);

/* The way back: integers, converted exactly below 2^53, as bits. Any count. */
void float_from_integers(const int64_t *integers, size_t count, uint64_t *out_bits);

#endif
