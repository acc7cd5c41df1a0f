/* Bytes of the question what a replica holds, and of its answer: docs/format/rpc.md §5. */
#ifndef SYNC_WIRE_H
#define SYNC_WIRE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"
#include "shard/shard.h"

#include <stdint.h>

#define SYNC_WIRE_VERSION      1
#define SYNC_REQUEST_BYTES_MAX 32
#define SYNC_ANSWER_BYTES_MAX  (64u << 10)
#define SYNC_PATH              "/-/rpc/sums"

/* Of which partition, and which page of its segments. */
struct sync_request {
    uint32_t partition;    /* the server knows how many there are */
    uint32_t first, count; /* count: at most SHARD_SEGMENT_PAGE_MAX */
};

void sync_request_encode(const struct sync_request *request, struct buf *out);
/* ERR_VERSION: a newer node's; ERR_INPUT: not a request. */
err sync_request_decode(struct slice bytes, struct sync_request *out_request);

void sync_answer_encode(const struct shard_sums *sums, struct buf *out);
/* ERR_VERSION, ERR_INPUT. */
err sync_answer_decode(struct slice bytes, struct shard_sums *out_sums);

#endif
