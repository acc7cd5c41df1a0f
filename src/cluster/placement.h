/* Which nodes hold which partition: a pure function of the members and of the assignment before.
 *
 * Rules in their order: 1. the replicas of a partition are on different nodes and in as many zones as there are
 * replicas or zones, whichever is less; 2. the counts of a zone's nodes differ by at most one, and nodes of
 * different zones are as even as rule 1 allows; 3. no placement that satisfies both moves much less (tests hold
 * it to 1.1 times the least that is possible). */
#ifndef CLUSTER_PLACEMENT_H
#define CLUSTER_PLACEMENT_H

#include "base/err.h"
#include "base/pool.h"

#include <stdint.h>

#define PLACEMENT_REPLICAS_MAX   8
#define PLACEMENT_PARTITIONS_MAX 1000000
#define PLACEMENT_NODES_MAX      10000
#define PLACEMENT_ZONES_MAX      256
#define SLOT_NONE                UINT32_MAX

struct placement_node {
    uint32_t slot; /* the node's number in the cluster, each once; not SLOT_NONE */
    uint32_t zone; /* any number: equal ones are one failure domain */
};

struct placement_request {
    uint32_t partition_count;           /* 1 … PLACEMENT_PARTITIONS_MAX */
    uint32_t replica_count;             /* 1 … PLACEMENT_REPLICAS_MAX; fewer nodes hold one replica each */
    const struct placement_node *nodes; /* in any order: the result does not depend on it */
    size_t node_count;                  /* 1 … PLACEMENT_NODES_MAX */
    const uint32_t *previous; /* partition_count × replica_count slots, SLOT_NONE where none is; NULL: none */
};

struct placement_summary {
    uint64_t kept;   /* replicas that stay where they were */
    uint64_t placed; /* replicas that a node gets: what has to be copied */
};

/* Fill out_slots (partition_count × replica_count; rank 0 first, SLOT_NONE behind the last). Ranks are drawn
 * from partition and slot, so that every node is first about equally often. The same request gives the same
 * result in every process. scratch: about 32 bytes a replica. Errors ERR_INPUT (a number out of range, a slot
 * twice, too many zones), ERR_LIMIT (memory). Cost O(replicas × zones) for an empty previous, O(replicas) and
 * what moves otherwise. */
err placement_plan(const struct placement_request *request, struct pool *scratch, uint32_t *out_slots,
                   struct placement_summary *out_summary);

#endif
