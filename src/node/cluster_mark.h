/* CLUSTER: to which cluster a bucket or a data directory belongs. docs/format/cluster.md */
#ifndef NODE_CLUSTER_MARK_H
#define NODE_CLUSTER_MARK_H

#include "base/err.h"
#include "base/slice.h"
#include "blob/blob.h"

#include <stdbool.h>
#include <stdint.h>

#define CLUSTER_MARK_NAME  "CLUSTER" /* of the object, and of the file */
#define CLUSTER_MARK_BYTES 128

struct cluster_mark {
    uint8_t cluster_id[16];
    uint8_t control_topic_id[16]; /* zero: the brokers give none */
    uint8_t topic_id[16];
    /* What INIT says for the life of the cluster, so that it can be restored from the bucket alone. */
    uint8_t hash_key[16];
    uint64_t range_bytes_max;
    uint32_t partition_count;
    uint8_t replica_count;
    bool is_unfinished; /* kelpie cluster clone has not ended: no node may begin here */
};

struct control_init; /* cluster/control.h */

/* The mark of a cluster that began so; the topics' ids are zero. */
struct cluster_mark cluster_mark_of(const uint8_t cluster_id[16], const struct control_init *init);

/* The bytes, and back. Errors with text in at: ERR_CORRUPT, ERR_VERSION. */
void cluster_mark_encode(const struct cluster_mark *mark, uint8_t out[CLUSTER_MARK_BYTES]);
err cluster_mark_decode(struct slice bytes, struct cluster_mark *out_mark, struct err_at *at);

/* Is what was found that of the cluster as it is seen now, and finished? A topic's id that is zero in either says
 * nothing. ERR_CONFLICT with a sentence that begins with `what`: "the bucket", "the data directory". */
err cluster_mark_check(const struct cluster_mark *found, const struct cluster_mark *seen, const char *what,
                       struct err_at *at);

/* CLUSTER in the data directory that is io's root; all zero: there is none. Errors of reading, ERR_CORRUPT,
 * ERR_VERSION, with text in at. */
err cluster_mark_load(struct io *io, struct pool *pool, struct cluster_mark *out_mark, struct err_at *at);
/* Put it there, durably, in the place of another. */
err cluster_mark_save(struct io *io, const struct cluster_mark *mark, struct err_at *at);

/* CLUSTER in a bucket. ERR_NOT_FOUND: there is none; ERR_CORRUPT, ERR_VERSION, and what the store returns. Text in
 * at, but for ERR_NOT_FOUND. */
err cluster_mark_find(struct blob *bucket, struct pool *pool, struct cluster_mark *out_mark,
                      struct err_at *at);

#endif
