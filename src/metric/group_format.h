/* Numbers of the row group's layout, shared by its encoder and reader. docs/format/stream-group.md. */
#ifndef METRIC_GROUP_FORMAT_H
#define METRIC_GROUP_FORMAT_H

#define GROUP_MAGIC              0x31505247u /* "GRP1" */
#define GROUP_VERSION            1
#define GROUP_HEADER_BYTES       128
#define GROUP_ENTRY_BYTES        12   /* of the block directory: first number, offset, length */
#define GROUP_BLOCK_SERIES       64   /* a block ends at so many series … */
#define GROUP_BLOCK_ROWS         2048 /* … or behind the series that brings it to so many rows */
#define GROUP_BLOCK_BYTES_MAX    (256u << 20)
#define GROUP_ROWS_MAX           (1u << 27)   /* bound for readers; a head holds at most 2^26 + 2^20 */
#define GROUP_CHUNK_BYTES        (128u << 10) /* of the dictionary, before compression */
#define GROUP_CHUNK_HEADER_BYTES 16

/* Flags of a series in a block. */
#define SERIES_MODE_MASK      0x0f
#define SERIES_SAME_TIMES     0x10 /* the times of the series before */
#define SERIES_HAS_STARTS     0x20
#define SERIES_HAS_HISTOGRAMS 0x40
#define SERIES_SAME_COUNT     0x80 /* as many float rows as the series before */

/* Value modes: 0 … 9 integers of value × 10^mode. */
#define MODE_SCALE_MAX 9
#define MODE_CONSTANT  10
#define MODE_XOR       11

#endif
