/* The set of record sequences seen from one producer, as intervals (protocol: no window, no "highest seen"). */
#ifndef SHARD_DEDUPE_H
#define SHARD_DEDUPE_H

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/pool.h"

#include <stdbool.h>
#include <stdint.h>

#define DEDUPE_INTERVAL_COUNT_MAX (1u << 20)

struct dedupe_interval {
    uint64_t first;
    uint64_t last; /* inclusive */
};

/* Intervals ascend, neither overlap nor touch. Blocks of `pool`; embedded in its owner. */
struct dedupe {
    struct pool *pool;
    struct dedupe_interval *intervals;
    size_t count;
    size_t capacity;
};

static inline struct dedupe dedupe_open(struct pool *pool) { return (struct dedupe){ .pool = pool }; }
void dedupe_close(struct dedupe *d);

bool dedupe_has(const struct dedupe *d, uint64_t sequence);

/* Add a sequence. *out_new: it was not there before. ERR_LIMIT: too many gaps, or the pool's budget.
 * Cost O(1) for the next in order, else O(log n) and a move. */
err dedupe_add(struct dedupe *d, uint64_t sequence, bool *out_new);

/* Number of sequences in the set; the empty set of a whole uint64 range cannot occur. */
uint64_t dedupe_size(const struct dedupe *d);

/* An independent copy in `pool`. ERR_LIMIT. */
err dedupe_copy(const struct dedupe *d, struct pool *pool, struct dedupe *out_copy);

/* docs/format/state.md §2: count, then gap and length of each interval as varints. */
void dedupe_encode(const struct dedupe *d, struct buf *out);
/* d is freshly opened. ERR_CORRUPT, ERR_LIMIT; d is to be closed in any case. */
err dedupe_decode(struct reader *r, struct dedupe *d);

#endif
