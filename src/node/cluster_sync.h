/* Comparing replicas, in a node of a cluster: the thread that steps sync/, questions to other nodes and answers to
 * theirs over HTTP, and what kelpie verify --cluster asks for. docs/decisions/0019-comparing-replicas.md */
#ifndef NODE_CLUSTER_SYNC_H
#define NODE_CLUSTER_SYNC_H

#include "agent/agent.h"
#include "api/api.h"
#include "blob/blob.h"
#include "model/json.h"
#include "net/client.h"
#include "net/server.h"
#include "shard/shard.h"
#include "sync/sync.h"

struct cluster_sync;

struct cluster_sync_config {
    struct slice secret; /* of the cluster; borrowed, as all that follows, until close */
    bool is_tls;
    struct net_tls_options tls;
    struct agent *agent;
    struct shards *shards;
    struct blob *bucket; /* itself, not through a cache */
    uint32_t partition_count;
};

/* Starts the thread. ERR_LIMIT. */
err cluster_sync_open(const struct cluster_sync_config *config, struct io *io, struct pool *pool,
                      struct cluster_sync **out_sync);
/* Ends the thread: nothing is compared, and the shards are not touched, from now on; the server is closed. NULL is
 * allowed. */
void cluster_sync_stop(struct cluster_sync *sync);
/* The same, and nobody asks any more whether to sweep. */
void cluster_sync_close(struct cluster_sync *sync);

/* ---- any thread ---- */

/* A request of another node for SYNC_PATH. */
void cluster_sync_handle(struct cluster_sync *sync, struct net_request *request,
                         struct net_response *response);

/* As sync_may_sweep, and does this node know what the cluster decided? Until close. */
bool cluster_sync_may_sweep(struct cluster_sync *sync, uint32_t partition);

/* Compare the owners of a partition and look at some of its objects in the bucket, as the order says: the value of
 * `data`. Errors with the reason in at. */
err cluster_sync_verify(struct cluster_sync *sync, const struct api_cluster_order *order, struct pool *pool,
                        struct json *json, struct err_at *at);

#endif
