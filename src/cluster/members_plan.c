/* What is placed where, for the members as the fold has them, or as somebody would have them: asked by core.c
 * for the next ASSIGN, and by commands that show first what they would do.
 *
 * Invariants: 1. A preview is what members_plan says once the change is in the log and nothing else has come
 * between. 2. Nothing here changes the state. */
#include "cluster/members.h"

#include "base/check.h"
#include "cluster/members_inside.h"
#include "cluster/placement.h"

#include <string.h>

/* The members with one change. */
struct roster {
    const struct members *members;
    enum preview_change change;
    uint32_t slot;     /* whom the change is about */
    uint32_t newcomer; /* its slot; SLOT_NONE: there is none */
    struct slice zone; /* of the newcomer */
};

static bool is_in_use(const struct roster *r, uint32_t slot)
{
    bool is_gone = slot == r->slot && (r->change == PREVIEW_REMOVE || r->change == PREVIEW_REPLACE);
    return r->members->members[slot].status != MEMBER_NONE && !is_gone;
}

static bool takes_part(const struct roster *r, uint32_t slot)
{
    const struct member *m = &r->members->members[slot];
    bool is_draining = m->is_draining;
    if (slot == r->slot)
        is_draining = (is_draining || r->change == PREVIEW_DRAIN) && r->change != PREVIEW_UNDRAIN;
    return is_in_use(r, slot) && !is_draining && !m->hands_over;
}

/* A zone goes by the number of its first slot in use. */
static uint32_t zone_of(const struct roster *r, struct slice zone)
{
    for (uint32_t i = 0; i < r->members->member_count; i++) {
        if (i == r->newcomer && slice_equal(zone, r->zone))
            return i;
        if (is_in_use(r, i) && slice_equal_str(zone, r->members->members[i].zone))
            return i;
    }
    return r->newcomer;
}

static err plan(const struct roster *r, struct pool *pool, uint32_t **out_slots, uint64_t *out_placed)
{
    const struct members *m = r->members;
    struct placement_node nodes[CLUSTER_NODES_MAX];
    struct placement_request request = { .partition_count = m->init.partition_count,
                                         .replica_count = m->init.replica_count,
                                         .nodes = nodes,
                                         .previous = m->assigned_at == OFFSET_NONE ? NULL : m->table };
    for (uint32_t i = 0; i < m->member_count; i++)
        if (takes_part(r, i))
            nodes[request.node_count++] =
                (struct placement_node){ .slot = i, .zone = zone_of(r, slice_str(m->members[i].zone)) };
    if (r->newcomer != SLOT_NONE)
        nodes[request.node_count++] =
            (struct placement_node){ .slot = r->newcomer, .zone = zone_of(r, r->zone) };
    if (!m->is_begun || request.node_count == 0)
        return ERR_NOT_FOUND;
    void *slots;
    struct placement_summary summary;
    TRY(pool_alloc(pool, (size_t)request.partition_count * request.replica_count * sizeof(uint32_t), &slots));
    struct pool *scratch = pool_open(pool, "placement", POOL_BYTES_UNLIMITED);
    err e = placement_plan(&request, scratch, slots, &summary);
    pool_close(scratch);
    TRY(e);
    *out_slots = slots;
    *out_placed = summary.placed;
    return OK;
}

err members_plan(const struct members *members, struct pool *pool, uint32_t **out_slots, uint64_t *out_placed)
{
    struct roster as_it_is = { .members = members, .slot = SLOT_NONE, .newcomer = SLOT_NONE };
    return plan(&as_it_is, pool, out_slots, out_placed);
}

struct redundancy members_redundancy(const struct members *members, uint32_t without)
{
    struct redundancy r = { .owner_count_min = UINT32_MAX };
    check(members->is_begun);
    for (uint32_t p = 0; p < members->init.partition_count; p++) {
        uint32_t owners = 0;
        for (uint32_t i = 0; i < members->member_count; i++) {
            const struct member *m = &members->members[i];
            owners += i != without && m->status == MEMBER_UP && !m->is_leaving && member_owns(m, p);
        }
        r.owner_count_min = owners < r.owner_count_min ? owners : r.owner_count_min;
        r.unowned_count += owners == 0;
        r.lacking_count += owners < members->init.replica_count;
    }
    return r;
}

/* ---- previews ---- */

static uint32_t free_slot(const struct members *m)
{
    uint32_t slot = 0;
    while (slot < m->member_count && m->members[slot].status != MEMBER_NONE)
        slot++;
    return slot;
}

static bool holds(const uint32_t *slots, uint32_t width, uint32_t slot)
{
    for (uint32_t i = 0; i < width; i++)
        if (slots[i] == slot)
            return true;
    return false;
}

static void count_node(const struct members *m, const struct preview_request *request, const uint32_t *after,
                       struct preview_node *node)
{
    uint32_t width = m->init.replica_count;
    for (uint32_t p = 0; p < m->init.partition_count; p++) {
        const uint32_t *before = members_assigned(m, p);
        bool had = before != NULL && holds(before, width, node->slot);
        bool has = holds(after + (size_t)p * width, width, node->slot);
        uint64_t bytes = request->partition_bytes == NULL ? 0 : request->partition_bytes[p];
        node->partition_count += has;
        node->bytes += has ? bytes : 0;
        node->gained_count += has && !had;
        node->gained_bytes += has && !had ? bytes : 0;
        node->lost_count += had && !has;
        node->lost_bytes += had && !has ? bytes : 0;
    }
}

static uint32_t least_replicas(const struct members *m, const uint32_t *slots)
{
    uint32_t width = m->init.replica_count, least = width;
    for (uint32_t p = 0; p < m->init.partition_count; p++) {
        uint32_t count = 0;
        for (uint32_t i = 0; i < width; i++)
            count += slots[(size_t)p * width + i] != SLOT_NONE;
        least = count < least ? count : least;
    }
    return least;
}

err members_preview(const struct members *members, const struct preview_request *request, struct pool *pool,
                    struct preview *out_preview)
{
    bool is_of_slot = request->change >= PREVIEW_DRAIN && request->change <= PREVIEW_REPLACE;
    bool has_newcomer = request->change == PREVIEW_ADD || request->change == PREVIEW_REPLACE;
    struct roster r = { .members = members,
                        .change = request->change,
                        .slot = is_of_slot ? request->slot : SLOT_NONE,
                        .newcomer = has_newcomer ? free_slot(members) : SLOT_NONE,
                        .zone = request->zone };
    check(members->is_begun);
    if (is_of_slot &&
        (request->slot >= members->member_count || members->members[request->slot].status == MEMBER_NONE))
        return ERR_INPUT;
    if (has_newcomer && (r.newcomer == CLUSTER_NODES_MAX || !cluster_name_valid(r.zone)))
        return ERR_INPUT;
    uint32_t *slots;
    uint64_t placed;
    void *nodes;
    TRY(plan(&r, pool, &slots, &placed));
    TRY(pool_zalloc(pool, ((size_t)members->member_count + 1) * sizeof(struct preview_node), &nodes));
    struct preview preview = { .nodes = nodes, .moved_count = placed, .slots = slots };
    preview.replica_count_min = least_replicas(members, slots);
    for (uint32_t i = 0; i <= members->member_count; i++) {
        bool is_newcomer = i == r.newcomer;
        if (!is_newcomer && (i == members->member_count || members->members[i].status == MEMBER_NONE))
            continue;
        struct preview_node *node = &preview.nodes[preview.node_count++];
        *node = (struct preview_node){ .slot = i, .is_newcomer = is_newcomer };
        count_node(members, request, slots, node);
        preview.moved_bytes += node->gained_bytes;
    }
    *out_preview = preview;
    return OK;
}
