/* What commands share that work on a cluster through its bucket: the same done for each partition, by several
 * threads, for its calls wait for the store, not for the processor; how the store is read; totals. */
#ifndef NODE_CLUSTER_EACH_H
#define NODE_CLUSTER_EACH_H

#include "base/err.h"
#include "io/io.h"
#include "node/cluster_mark.h"
#include "shard/shard.h"

#include <stdatomic.h>

#define CLUSTER_EACH_THREADS 8

struct cluster_each {
    /* One partition; its text in at. From any thread, each partition once. */
    err (*run)(void *context, uint32_t partition, struct err_at *at);
    void *context;
    uint32_t partition_count;
    _Atomic bool cancel; /* set with the first error: calls under way may look at it */
};

/* Returns when all ended; the first error, and no further partition is begun after it. */
err cluster_each(struct cluster_each *each, struct io *io, struct err_at *at);

/* How the store of a cluster is read without a node of it. Half of the memory is its. */
struct shards_config cluster_shards_of(const struct cluster_mark *mark, const char *store_name,
                                       struct io *io);

/* What all partitions have together. */
struct cluster_total {
    uint64_t segments, bytes, rows, damages;
    int64_t oldest_ms,
        newest_ms;  /* through which the partitions reach; INT64_MAX, INT64_MIN: none has anything */
    uint32_t empty; /* partitions without anything */
};
struct cluster_total cluster_total_of(const struct shard_facts *facts, uint32_t partition_count);

#endif
