/* The log, the control log and the bucket of a cluster, opened as a configuration names them. */
#ifndef NODE_CLUSTER_STORES_H
#define NODE_CLUSTER_STORES_H

#include "blob/blob.h"
#include "cluster/cluster.h"
#include "log/log.h"
#include "node/config.h"
#include "node/secrets.h"

#include <stdatomic.h>

/* What both topics' settings have in common with each other and with every node's: filled in, the rest is zero.
 * Strings are borrowed from config and secrets. */
struct log_kafka_settings cluster_log_settings(const struct config_cluster *config,
                                               const struct secrets *secrets);

/* … of the control log. Its records are told from others' by its topic's name: the cluster's id is not known
 * before they are read. */
struct log_kafka_settings cluster_control_settings(const struct config_cluster *config,
                                                   const struct secrets *secrets);

/* What a founder begins the cluster with: from the configuration, and a hash key that is drawn. */
struct control_init cluster_init(const struct config_cluster *config, struct io *io);

struct cluster_bucket {
    struct blob
        *store; /* what to read and write through, and to close: with a cache in front, if there is one */
    struct blob *bucket; /* inside: for blob_s3_last_failure */
};

/* Open the bucket, once: errors as blob_open_s3, and of the cache's directory. Local disk is kept free above
 * free_bytes_min. abort: as in blob_s3_config. */
err cluster_bucket_open(const struct config_cluster *config, const struct secrets *secrets,
                        uint64_t free_bytes_min, const _Atomic bool *abort, struct io *io, struct pool *pool,
                        struct cluster_bucket *out_bucket, struct err_at *at);

/* The bucket for a command, without a cache. is_reader: nothing is tried out or cleaned up. Errors of
 * blob_open_s3. */
err cluster_bucket_open_bare(const struct config_cluster *config, const struct secrets *secrets,
                             bool is_reader, struct io *io, struct pool *pool, struct blob **out_bucket,
                             struct err_at *at);

#endif
