/* Snappy's block format through its C library: what remote write and remote read put on the wire. The framed
 * format is another one and is not understood here. Source: google/snappy format_description.txt. */
#ifndef CODEC_SNAPPY_H
#define CODEC_SNAPPY_H

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"

/* Append the decoded bytes of the block `in` to out. The length that the block claims is compared with
 * bytes_max, and with what its size can possibly hold, before anything is allocated.
 * Errors ERR_INPUT malformed; ERR_LIMIT larger than bytes_max, or out's own maximum. out->len is unchanged
 * on failure.   Cost about 0.15 ns a decoded byte. */
err snappy_block_decode(struct slice in, size_t bytes_max, struct buf *out);

/* Append the compressed block of `in` to out. ERR_LIMIT: out's maximum. */
err snappy_block_encode(struct slice in, struct buf *out);

#endif
