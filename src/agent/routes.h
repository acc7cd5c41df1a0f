/* Who answers for which partition, and where nodes are reached: what the core knew at the agent's last look,
 * for threads that ask other nodes. */
#ifndef AGENT_ROUTES_H
#define AGENT_ROUTES_H

#include "cluster/cluster.h"
#include "io/io.h"

struct routes;

/* ERR_LIMIT. Ends with routes_close. */
err routes_open(struct pool *pool, struct routes **out_routes);
void routes_close(struct routes *routes); /* NULL is allowed; the memory is the pool's */

/* The agent's thread: what is so now. */
void routes_take(struct routes *routes, const struct core *core, int64_t now_ns);

/* ---- any thread ---- */

/* Slots of who may answer for the partition, the best first, as core_route; at most CLUSTER_REPLICAS_MAX. */
size_t routes_of(struct routes *routes, uint32_t partition, uint32_t out_slots[CLUSTER_REPLICAS_MAX]);

/* Partitions that nobody may answer for; all of them before the cluster has begun. */
uint32_t routes_unowned(struct routes *routes);

struct route_node {
    struct member_id id;
    char address[CLUSTER_ADDRESS_BYTES_MAX + 1]; /* host:port */
};
/* Who is up in a slot. False: nobody. */
bool routes_node(struct routes *routes, uint32_t slot, struct route_node *out_node);

#endif
