/* CLUSTER: to which cluster a bucket or a data directory belongs. docs/format/cluster.md */
#ifndef NODE_CLUSTER_MARK_H
#define NODE_CLUSTER_MARK_H

#include "base/err.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define CLUSTER_MARK_NAME  "CLUSTER" /* of the object, and of the file */
#define CLUSTER_MARK_BYTES 128

struct cluster_mark {
    uint8_t cluster_id[16];
    uint8_t control_topic_id[16]; /* zero: the brokers give none */
    uint8_t topic_id[16];
};

/* The bytes, and back. Errors with text in at: ERR_CORRUPT, ERR_VERSION. */
void cluster_mark_encode(const struct cluster_mark *mark, uint8_t out[CLUSTER_MARK_BYTES]);
err cluster_mark_decode(struct slice bytes, struct cluster_mark *out_mark, struct err_at *at);

/* Is what was found that of the cluster as it is seen now? A topic's id that is zero in either says nothing.
 * ERR_CONFLICT with a sentence that begins with `what`: "the bucket", "the data directory". */
err cluster_mark_check(const struct cluster_mark *found, const struct cluster_mark *seen, const char *what,
                       struct err_at *at);

#endif
