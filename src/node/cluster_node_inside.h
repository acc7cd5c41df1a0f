/* What cluster_node.c (how a node gets into its cluster and out of it) and cluster_live.c (what it answers
 * meanwhile) share. Internal to the room. */
#ifndef NODE_CLUSTER_NODE_INSIDE_H
#define NODE_CLUSTER_NODE_INSIDE_H

#include "fanout/fanout.h"
#include "io/thread.h"
#include "node/cluster_node.h"
#include "node/cluster_stores.h"
#include "node/cluster_sync.h"
#include "node/log_ends.h"
#include "node/retention_guard.h"

struct cluster_node {
    struct io *io;
    struct pool *pool;
    struct cluster_node_config config; /* of which two point to: */
    struct config_cluster settings;
    struct secrets secrets;
    struct log *control, *log;
    struct cluster_bucket bucket;
    struct pool *bucket_pool;
    struct agent *agent;
    struct prober *prober;
    struct opener *opener;
    struct shards *shards;
    struct pool *asking_pool, *answers_pool; /* of http, of answers */
    struct fanout_http *http;
    struct fanout_answers *answers;
    struct fanout *fanout;
    struct log_ends *ends;
    struct retention_guard guard;
    struct cluster_sync *sync;
    uint32_t replica_count, partition_count;
    _Atomic bool is_aborting;
    _Atomic bool has_agent;   /* requests of other nodes may be answered */
    _Atomic bool has_answers; /* … about what is stored, too */
    _Atomic bool has_sync;    /* … and compared */
    _Atomic bool is_joined;   /* the owner has called join */
    _Atomic bool was_ready;
    bool is_founder; /* the bucket is nobody's yet, as far as this node knows, nor is its directory */
    int64_t joined_ns;

    struct io_mutex lock; /* all below */
    char why[CLUSTER_NODE_WHY_BYTES_MAX], ended_why[CLUSTER_NODE_WHY_BYTES_MAX];
    bool has_ended;
    enum core_end end; /* how, then */
};

#endif
