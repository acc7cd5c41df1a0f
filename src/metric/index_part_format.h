/* Numbers that the builder and the reader of index parts share. docs/format/index.md. */
#ifndef METRIC_INDEX_PART_FORMAT_H
#define METRIC_INDEX_PART_FORMAT_H

#define PART_MAGIC              0x31505849u /* "IXP1" */
#define PART_VERSION            1
#define PART_HEADER_BYTES       64
#define PART_BLOCK_SERIES       16          /* series a block */
#define PART_NAME_BYTES         12          /* symbol, first pair, series */
#define PART_PAIR_BYTES         8           /* value symbol, posting */
#define PART_POSTING_SINGLE     0x80000000u /* the pair's only series is in the low 31 bits */
#define PART_CHUNK_SERIES       65536u      /* ordinals a container of a posting list */
#define PART_CHUNK_BITSET_BYTES (PART_CHUNK_SERIES / 8)

/* How a container holds its ordinals: the low two bits of its head. */
enum part_container { CONTAINER_DELTAS = 0, CONTAINER_RUNS = 1, CONTAINER_BITSET = 2 };

#endif
