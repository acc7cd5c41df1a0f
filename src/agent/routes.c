/* See routes.h. Two tables under a lock that is held for a copy: slots by partition, and nodes by slot.
 *
 * Invariant: a slot that a partition names was up when its row was written; who it was then is told by
 * routes_node, which may know a later life already. */
#include "agent/routes.h"

#include "io/thread.h"

#include <string.h>

struct row {
    uint16_t count;
    uint16_t slots[CLUSTER_REPLICAS_MAX];
};

struct routes {
    struct io_mutex lock; /* all below; a leaf */
    uint32_t partition_count, slot_count, unowned_count;
    struct row rows[CLUSTER_PARTITIONS_MAX];
    struct route_node nodes[CLUSTER_NODES_MAX]; /* slot SLOT_NONE: nobody is up there */
};

err routes_open(struct pool *pool, struct routes **out_routes)
{
    void *room;
    TRY(pool_zalloc(pool, sizeof(struct routes), &room));
    struct routes *routes = room;
    io_mutex_init(&routes->lock);
    routes->unowned_count = CLUSTER_PARTITIONS_MAX;
    *out_routes = routes;
    return OK;
}

void routes_close(struct routes *routes)
{
    if (routes != NULL)
        io_mutex_done(&routes->lock);
}

static void take_node(struct route_node *node, const struct member *member)
{
    node->id = member->id;
    memcpy(node->address, member->address, sizeof node->address);
    if (member->status != MEMBER_UP)
        node->id.slot = SLOT_NONE;
}

void routes_take(struct routes *routes, const struct core *core, int64_t now_ns)
{
    const struct members *members = core_members(core);
    const struct control_init *init = members_init(members);
    uint32_t slots[CLUSTER_REPLICAS_MAX];
    io_mutex_lock(&routes->lock);
    routes->partition_count = init != NULL ? init->partition_count : 0;
    routes->slot_count = members_slot_count(members);
    for (uint32_t i = 0; i < routes->slot_count; i++)
        take_node(&routes->nodes[i], members_at(members, i));
    routes->unowned_count = init != NULL ? 0 : CLUSTER_PARTITIONS_MAX;
    for (uint32_t p = 0; p < routes->partition_count; p++) {
        struct row *row = &routes->rows[p];
        row->count = (uint16_t)core_route(core, now_ns, p, slots, CLUSTER_REPLICAS_MAX);
        for (uint16_t i = 0; i < row->count; i++)
            row->slots[i] = (uint16_t)slots[i];
        routes->unowned_count += row->count == 0;
    }
    io_mutex_unlock(&routes->lock);
}

size_t routes_of(struct routes *routes, uint32_t partition, uint32_t out_slots[CLUSTER_REPLICAS_MAX])
{
    size_t count = 0;
    io_mutex_lock(&routes->lock);
    if (partition < routes->partition_count) {
        const struct row *row = &routes->rows[partition];
        for (count = 0; count < row->count; count++)
            out_slots[count] = row->slots[count];
    }
    io_mutex_unlock(&routes->lock);
    return count;
}

uint32_t routes_unowned(struct routes *routes)
{
    io_mutex_lock(&routes->lock);
    uint32_t count = routes->unowned_count;
    io_mutex_unlock(&routes->lock);
    return count;
}

bool routes_node(struct routes *routes, uint32_t slot, struct route_node *out_node)
{
    bool is_up = false;
    io_mutex_lock(&routes->lock);
    if (slot < routes->slot_count && routes->nodes[slot].id.slot != SLOT_NONE) {
        *out_node = routes->nodes[slot];
        is_up = true;
    }
    io_mutex_unlock(&routes->lock);
    return is_up;
}
