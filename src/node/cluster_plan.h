/* What kelpie cluster restore, clone and adopt have set out to do: an object of the bucket while they are at
 * it, so that whoever runs them again goes on with the same. docs/format/cluster.md */
#ifndef NODE_CLUSTER_PLAN_H
#define NODE_CLUSTER_PLAN_H

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"
#include "blob/blob.h"
#include "cluster/cluster.h"

#define CLUSTER_PLAN_RESTORE "RESTORE" /* names of the objects */
#define CLUSTER_PLAN_CLONE   "CLONE"
#define CLUSTER_PLAN_ADOPT   "ADOPT"

struct cluster_plan {
    uint8_t cluster_id[16]; /* of the cluster in whose bucket it lies */
    uint8_t of_id
        [16];     /* RESTORE: of the log's topic that is gone; CLONE: of the cluster that is copied; ADOPT: of
                          the snapshot, the first bytes of shard_adopt_facts.digest */
    int64_t t_ms; /* RESTORE, ADOPT: when it was begun; CLONE: as of when; INT64_MAX: as of then */
    uint32_t partition_count;
    uint64_t
        numbers[CLUSTER_PARTITIONS_MAX]; /* of each partition: RESTORE the generation that is to begin, CLONE
                                                 the last entry that is copied, 0: none, ADOPT where it begins
                                                 in generation 0 */
};

/* Append the bytes; and back: ERR_CORRUPT, ERR_VERSION. */
void cluster_plan_encode(const struct cluster_plan *plan, struct buf *out);
err cluster_plan_decode(struct slice bytes, struct cluster_plan *out_plan);

/* The plan in a bucket; ERR_NOT_FOUND: there is none; else with text in at. */
err cluster_plan_find(struct blob *bucket, const char *name, struct pool *pool, struct cluster_plan *out_plan,
                      struct err_at *at);
/* Put it, if there is none; *plan becomes the one that is there then, whoever put it. Text in at. */
err cluster_plan_settle(struct blob *bucket, const char *name, struct pool *pool, struct cluster_plan *plan,
                        struct err_at *at);

#endif
