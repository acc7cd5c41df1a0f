/* A node's part in a cluster, between the command line and the rooms: agent, prober, opener, the two logs and the
 * bucket, in the order of docs/decisions/0015-a-node-in-a-cluster.md.
 *
 *   open ─ begin ─ (the owner opens shards and all above them) ─ join … leave ─ (server closed) ─ stop
 *        ─ (the owner closes what it opened) ─ close
 *
 * One thread makes these calls, in this order; the rest comes from any thread. */
#ifndef NODE_CLUSTER_NODE_H
#define NODE_CLUSTER_NODE_H

#include "agent/agent.h"
#include "api/api.h"
#include "blob/blob.h"
#include "net/server.h"
#include "node/config.h"
#include "node/health.h"
#include "node/identity.h"
#include "node/secrets.h"
#include "query/query.h"
#include "shard/shard.h"

struct cluster_node;

#define CLUSTER_NODE_WHY_BYTES_MAX ERR_TEXT_BYTES_MAX

struct cluster_node_config {
    const struct config_cluster *cluster; /* copied, as what secrets has is */
    const struct secrets *secrets;
    uint8_t disk_id[16];
    bool is_tls;             /* nodes speak TLS to each other */
    uint64_t memory_bytes;   /* of the node: logs take a sixteenth of it, several times */
    uint64_t free_bytes_min; /* of the local disk: the cache leaves it free */
};

/* Nothing is asked of anybody yet. io: of the data directory. ERR_LIMIT. */
err cluster_node_open(const struct cluster_node_config *config, struct io *io, struct pool *pool,
                      struct cluster_node **out_cluster);

/* Wait for the control log, the cluster's beginning, the log and the bucket, as long as any of them is away,
 * and check that they belong together. A founder (cluster.expect) creates the topics that are missing and
 * begins the cluster. Fills in what the cluster says of *identity. Anything that a person has to mend is an
 * error with its reason:
 * ERR_INPUT, ERR_DENIED, ERR_NOT_FOUND, ERR_CONFLICT, ERR_UNSUPPORTED, ERR_VERSION, ERR_CORRUPT; also ERR_LIMIT,
 * ERR_SPACE, ERR_CLOSED (the node was told to end). */
err cluster_node_begin(struct cluster_node *cluster, struct identity *identity, struct err_at *at);

/* After begin: the log, whose thread runs, and the store. They end with close. */
struct log *cluster_node_log(struct cluster_node *cluster);
struct blob *cluster_node_blob(struct cluster_node *cluster);

/* Queries: a source over all nodes, of which `own` is what this one holds; other nodes are answered from that.
 * positions: for query_service_set_positions, with its context. All of it ends with stop; no query runs then. */
struct cluster_queries {
    struct source *source;
    query_positions positions;
    void *positions_context;
};
err cluster_node_attach(struct cluster_node *cluster, struct source *own,
                        struct cluster_queries *out_queries);

/* Who helps to answer other nodes, from now on; as long as the server is open. After attach, once. */
void cluster_node_set_runner(struct cluster_node *cluster, const struct promql_runner *runner);

/* Be a member: partitions of shards are opened and closed from now on. shards lives until stop. */
err cluster_node_join(struct cluster_node *cluster, struct shards *shards);

/* Hand over and leave, if it has joined: returns within CORE_END_MS and some seconds. */
void cluster_node_leave(struct cluster_node *cluster);
/* From here on the shards are not touched, and nobody is asked. The server is closed, no query runs. */
void cluster_node_stop(struct cluster_node *cluster);
/* NULL is allowed. */
void cluster_node_close(struct cluster_node *cluster);

/* ---- any thread ---- */

/* Is the node a member, has what it is to hold been opened, and, before it is ready for the first time, does
 * it know somebody for each partition (or has waited for that)? Why not, if not. */
bool cluster_node_is_ready(struct cluster_node *cluster, char why[CLUSTER_NODE_WHY_BYTES_MAX]);
/* May writes be taken? ERR_BUSY: before the cluster has begun, with whom it waits for. */
err cluster_node_intake(struct cluster_node *cluster, char why[CLUSTER_NODE_WHY_BYTES_MAX]);
/* The process is to end: it was put out for good, or has left. */
bool cluster_node_has_ended(struct cluster_node *cluster, enum core_end *out_end);
/* A request below /-/rpc/. */
void cluster_node_rpc(struct cluster_node *cluster, struct net_request *request,
                      struct net_response *response);
/* As api_config.cluster; ERR_BUSY before the node knows its cluster. */
err cluster_node_show(struct cluster_node *cluster, const struct api_cluster_order *order, struct pool *pool,
                      struct json *json, struct err_at *at);
/* Findings about the cluster, and members of an open JSON object that show it. Errors as cluster_node_show. */
err cluster_node_health(struct cluster_node *cluster, struct pool *pool, struct health *health,
                        struct json *json, struct err_at *at);
/* What is looked at once a second, by the owner's thread: see retention_guard.h. */
void cluster_node_step(struct cluster_node *cluster);
/* Set the gauges of kelpie_cluster_*. */
void cluster_node_refresh(struct cluster_node *cluster);

#endif
