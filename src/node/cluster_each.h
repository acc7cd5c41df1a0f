/* The same done for each partition of a bucket, by several threads: its calls wait for the store, not for the
 * processor. */
#ifndef NODE_CLUSTER_EACH_H
#define NODE_CLUSTER_EACH_H

#include "base/err.h"
#include "io/io.h"

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

#endif
