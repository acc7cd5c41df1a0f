/* What writer and reader of answers share beyond wire.h: bits and numbers of the format.
 * docs/format/query.md. */
#ifndef FANOUT_WIRE_FORMAT_H
#define FANOUT_WIRE_FORMAT_H

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define WIRE_ANSWER_MAGIC UINT32_C(0x534e414b) /* "KANS" */

enum wire_rows_flag {
    WIRE_ROWS_SAME_TIMES = 1, /* those of the piece before in the block */
    WIRE_ROWS_STARTS = 2,
    WIRE_ROWS_HISTOGRAMS = 4,
};

enum wire_group_flag {
    WIRE_GROUP_DROPS_NAME = 1,
    WIRE_GROUP_CONTINUES = 2, /* more steps of the group before */
};

/* The text before becomes the one that follows it, front-coded. ERR_INPUT, ERR_LIMIT. */
err wire_front_read(struct reader *r, struct buf *text, bool is_first);

/* Numbers of errors on the wire; the last stands for every other. */
static const err wire_errors[] = { ERR_LIMIT,    ERR_INPUT,  ERR_VERSION, ERR_BUSY,        ERR_TIMEOUT,
                                   ERR_CANCELED, ERR_CLOSED, ERR_CORRUPT, ERR_UNSUPPORTED, ERR_IO };
#define WIRE_ERROR_COUNT (sizeof wire_errors / sizeof wire_errors[0])

#endif
