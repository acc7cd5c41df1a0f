/* The plan is made in four steps over a table of partitions × replicas:
 *
 *   keep   what the previous assignment has on members, less what breaks the rule of zones
 *   share  how many replicas each node is to hold: even, within what the zones allow; where one more or less is
 *          free to choose, who holds more today gets it
 *   fill   free places, each with the node of the zone that lacks most, then the node that lacks most
 *   level  nodes above their share hand replicas to nodes below, directly or along a path of nodes
 *
 * Why fill ends well from an empty table: giving each partition the nodes that lack most keeps what nodes of a
 * zone lack within one of each other, and such remainders can always be completed (Gale 1957, Ryser 1957). With
 * kept replicas it may not; then a place goes to a node above its share, and level moves it on.
 *
 * Invariants: 1. node_count[n] is how often n stands in held. 2. The nodes of a zone lie in `order` by what
 * they lack, most first; lack_end[v] is where those that lack at least v end. 3. Everything is drawn from slots
 * and partition numbers; nothing depends on the order of the request or on addresses. */
#include "cluster/placement.h"

#include "base/check.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

#define NODE_NONE UINT32_MAX

struct zone {
    uint32_t number;
    uint32_t first, count;      /* its nodes, in plan.nodes */
    uint32_t least, most;       /* replicas of one partition in it */
    uint64_t share;             /* replicas of all partitions */
    int64_t free;               /* what it lacks beyond what partitions to come must give it */
    uint32_t *order, *lack_end; /* of its nodes; lack_end[1 … lack_max] */
    uint32_t lack_max;
};

struct node {
    uint32_t slot;
    uint32_t zone;     /* index */
    uint32_t count;    /* replicas it holds */
    uint32_t share;    /* replicas it is to hold */
    uint32_t at;       /* its place in the zone's order, from the zone's first */
    uint32_t from;     /* level: the node before it on the path */
    uint32_t path_row; /* level: the partition that moves from there to here */
};

struct plan {
    const struct placement_request *request;
    struct pool *pool;
    uint32_t rows, width; /* partitions; replicas of each that there can be */
    struct node *nodes;   /* by zone, then slot */
    uint32_t node_count;
    struct zone *zones;
    uint32_t zone_count;
    uint32_t *held; /* rows × request.replica_count node indexes, NODE_NONE where free */
};

static err alloc(struct plan *plan, size_t count, size_t bytes, void *out_at)
{
    void *at;
    TRY(pool_zalloc(plan->pool, count * bytes + 1, &at));
    memcpy(out_at, &at, sizeof at);
    return OK;
}

static uint64_t draw(uint64_t row, uint64_t what)
{
    return hash_mix(row * UINT64_C(0x9e3779b97f4a7c15) + what);
}

static uint32_t *row_of(const struct plan *plan, uint32_t row)
{
    return plan->held + (size_t)row * plan->request->replica_count;
}

static bool holds(const struct plan *plan, uint32_t row, uint32_t node)
{
    const uint32_t *held = row_of(plan, row);
    for (uint32_t i = 0; i < plan->request->replica_count; i++)
        if (held[i] == node)
            return true;
    return false;
}

static uint32_t in_zone(const struct plan *plan, uint32_t row, uint32_t zone)
{
    const uint32_t *held = row_of(plan, row);
    uint32_t count = 0;
    for (uint32_t i = 0; i < plan->request->replica_count; i++)
        count += held[i] != NODE_NONE && plan->nodes[held[i]].zone == zone;
    return count;
}

/* ---- members ---- */

static int by_zone_and_slot(const void *a, const void *b)
{
    const struct placement_node *x = a, *y = b;
    if (x->zone != y->zone)
        return x->zone < y->zone ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static err take_members(struct plan *plan)
{
    const struct placement_request *request = plan->request;
    struct placement_node *sorted;
    TRY(alloc(plan, request->node_count, sizeof *sorted, &sorted));
    memcpy(sorted, request->nodes, request->node_count * sizeof *sorted);
    qsort(sorted, request->node_count, sizeof *sorted, by_zone_and_slot);
    TRY(alloc(plan, request->node_count, sizeof *plan->nodes, &plan->nodes));
    TRY(alloc(plan, PLACEMENT_ZONES_MAX, sizeof *plan->zones, &plan->zones));
    for (uint32_t i = 0; i < request->node_count; i++) {
        if (i == 0 || sorted[i].zone != sorted[i - 1].zone) {
            if (plan->zone_count == PLACEMENT_ZONES_MAX)
                return ERR_INPUT;
            plan->zones[plan->zone_count++] = (struct zone){ .number = sorted[i].zone, .first = i };
        }
        plan->zones[plan->zone_count - 1].count++;
        plan->nodes[i] = (struct node){ .slot = sorted[i].slot, .zone = plan->zone_count - 1 };
    }
    plan->node_count = (uint32_t)request->node_count;
    plan->width = request->replica_count < plan->node_count ? request->replica_count : plan->node_count;
    return OK;
}

/* Rule 1 as bounds: at least and at most so many replicas of a partition in a zone, such that the others can
 * have the rest. */
static void bound_zones(struct plan *plan)
{
    uint32_t width = plan->width, zones = plan->zone_count;
    for (uint32_t z = 0; z < zones; z++) {
        struct zone *zone = &plan->zones[z];
        uint32_t others = plan->node_count - zone->count;
        if (zones >= width) {
            zone->least = 0;
            zone->most = 1;
        } else {
            zone->least = width > others && width - others > 1 ? width - others : 1;
            zone->most = width - (zones - 1) < zone->count ? width - (zones - 1) : zone->count;
        }
    }
    if (zones == width)
        for (uint32_t z = 0; z < zones; z++)
            plan->zones[z].least = 1;
}

/* ---- keep ---- */

struct slot_index {
    uint32_t slot, node;
};

static int by_slot(const void *a, const void *b)
{
    const struct slot_index *x = a, *y = b;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static err keep_members(struct plan *plan)
{
    const struct placement_request *request = plan->request;
    size_t cells = (size_t)plan->rows * request->replica_count;
    struct slot_index *index;
    TRY(alloc(plan, plan->node_count, sizeof *index, &index));
    for (uint32_t n = 0; n < plan->node_count; n++)
        index[n] = (struct slot_index){ plan->nodes[n].slot, n };
    qsort(index, plan->node_count, sizeof *index, by_slot);
    for (uint32_t n = 0; n < plan->node_count; n++)
        if (index[n].slot == SLOT_NONE || (n > 0 && index[n].slot == index[n - 1].slot))
            return ERR_INPUT;
    TRY(alloc(plan, cells, sizeof *plan->held, &plan->held));
    for (size_t i = 0; i < cells; i++)
        plan->held[i] = NODE_NONE;
    for (size_t i = 0; request->previous != NULL && i < cells; i++) {
        struct slot_index key = { .slot = request->previous[i] };
        const struct slot_index *found = bsearch(&key, index, plan->node_count, sizeof *index, by_slot);
        if (found == NULL || holds(plan, (uint32_t)(i / request->replica_count), found->node))
            continue;
        plan->held[i] = found->node;
        plan->nodes[found->node].count++;
    }
    return OK;
}

/* ---- share ---- */

static uint64_t zone_share(const struct plan *plan, const struct zone *zone, uint64_t level)
{
    uint64_t least = (uint64_t)plan->rows * zone->least, most = (uint64_t)plan->rows * zone->most;
    uint64_t even = level * zone->count;
    return even < least ? least : even > most ? most : even;
}

static uint64_t all_shares(const struct plan *plan, uint64_t level)
{
    uint64_t sum = 0;
    for (uint32_t z = 0; z < plan->zone_count; z++)
        sum += zone_share(plan, &plan->zones[z], level);
    return sum;
}

/* Nodes by what they hold, most first: who is to hold one more than others holds it already, if anybody does. */
struct loaded {
    uint32_t count, slot, node;
};

static int by_load(const void *a, const void *b)
{
    const struct loaded *x = a, *y = b;
    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* The highest level of replicas a node that does not need more than there are; what remains goes one each to the
 * zones of the nodes that hold most. */
static err share_out(struct plan *plan)
{
    uint64_t total = (uint64_t)plan->rows * plan->width, low = 0, high = plan->rows;
    while (low < high) {
        uint64_t middle = (low + high + 1) / 2;
        if (all_shares(plan, middle) <= total)
            low = middle;
        else
            high = middle - 1;
    }
    struct loaded *loaded;
    TRY(alloc(plan, plan->node_count, sizeof *loaded, &loaded));
    for (uint32_t n = 0; n < plan->node_count; n++)
        loaded[n] = (struct loaded){ plan->nodes[n].count, plan->nodes[n].slot, n };
    qsort(loaded, plan->node_count, sizeof *loaded, by_load);
    uint64_t rest = total - all_shares(plan, low);
    for (uint32_t z = 0; z < plan->zone_count; z++)
        plan->zones[z].share = zone_share(plan, &plan->zones[z], low);
    for (uint32_t i = 0; i < plan->node_count && rest > 0; i++) {
        struct zone *zone = &plan->zones[plan->nodes[loaded[i].node].zone];
        if (zone->share < zone_share(plan, zone, low + 1)) {
            zone->share++;
            rest--;
        }
    }
    check(rest == 0);
    for (uint32_t z = 0; z < plan->zone_count; z++)
        for (uint32_t n = 0; n < plan->zones[z].count; n++)
            plan->nodes[plan->zones[z].first + n].share =
                (uint32_t)(plan->zones[z].share / plan->zones[z].count);
    for (uint32_t z = 0; z < plan->zone_count; z++)
        plan->zones[z].share %= plan->zones[z].count; /* how many of its nodes get one more */
    for (uint32_t i = 0; i < plan->node_count; i++) {
        struct zone *zone = &plan->zones[plan->nodes[loaded[i].node].zone];
        if (zone->share > 0) {
            zone->share--;
            plan->nodes[loaded[i].node].share++;
        }
    }
    return OK;
}

/* ---- what nodes lack, in order ---- */

static int64_t lacks(const struct node *node) { return (int64_t)node->share - node->count; }

static int by_lack(const void *a, const void *b, void *context)
{
    const struct plan *plan = context;
    const struct node *x = &plan->nodes[*(const uint32_t *)a], *y = &plan->nodes[*(const uint32_t *)b];
    if (lacks(x) != lacks(y))
        return lacks(x) > lacks(y) ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static err order_zone(struct plan *plan, struct zone *zone)
{
    if (zone->order == NULL)
        TRY(alloc(plan, zone->count, sizeof *zone->order, &zone->order));
    for (uint32_t i = 0; i < zone->count; i++)
        zone->order[i] = zone->first + i;
    qsort_r(zone->order, zone->count, sizeof *zone->order, by_lack, plan);
    int64_t most = lacks(&plan->nodes[zone->order[0]]);
    zone->lack_max = most > 0 ? (uint32_t)most : 0;
    TRY(alloc(plan, (size_t)zone->lack_max + 2, sizeof *zone->lack_end, &zone->lack_end));
    uint32_t end = 0;
    for (uint32_t v = zone->lack_max; v >= 1; v--) {
        while (end < zone->count && lacks(&plan->nodes[zone->order[end]]) >= (int64_t)v)
            end++;
        zone->lack_end[v] = end;
    }
    for (uint32_t i = 0; i < zone->count; i++)
        plan->nodes[zone->order[i]].at = i;
    return OK;
}

static void swap_places(struct plan *plan, struct zone *zone, uint32_t a, uint32_t b)
{
    uint32_t node = zone->order[a];
    zone->order[a] = zone->order[b];
    zone->order[b] = node;
    plan->nodes[zone->order[a]].at = a;
    plan->nodes[zone->order[b]].at = b;
}

/* One more on a node: it goes behind the last of those that lacked as much. */
static void count_up(struct plan *plan, uint32_t n)
{
    struct node *node = &plan->nodes[n];
    struct zone *zone = &plan->zones[node->zone];
    int64_t lack = lacks(node);
    node->count++;
    if (lack >= 1)
        swap_places(plan, zone, node->at, --zone->lack_end[lack]);
}

static void count_down(struct plan *plan, uint32_t n)
{
    struct node *node = &plan->nodes[n];
    struct zone *zone = &plan->zones[node->zone];
    node->count--;
    int64_t lack = lacks(node);
    check(lack <= (int64_t)zone->lack_max + 1); /* one above for a moment, within a path */
    if (lack >= 1)
        swap_places(plan, zone, node->at, zone->lack_end[lack]++);
}

/* The node of a zone that lacks most and does not hold the partition; among equals one is drawn. NODE_NONE:
 * none that lacks any, and with or_any none at all. */
static uint32_t pick(const struct plan *plan, uint32_t row, const struct zone *zone, bool or_any)
{
    uint32_t begin = 0;
    while (begin < zone->count && lacks(&plan->nodes[zone->order[begin]]) >= 1) {
        uint32_t end = zone->lack_end[lacks(&plan->nodes[zone->order[begin]])], count = end - begin;
        uint64_t drawn = draw(row, begin);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t node = zone->order[begin + (drawn + i) % count];
            if (!holds(plan, row, node))
                return node;
        }
        begin = end;
    }
    for (uint32_t i = begin; or_any && i < zone->count; i++)
        if (!holds(plan, row, zone->order[i]))
            return zone->order[i];
    return NODE_NONE;
}

static void put(struct plan *plan, uint32_t row, uint32_t node)
{
    uint32_t *held = row_of(plan, row);
    while (*held != NODE_NONE)
        held++;
    *held = node;
    count_up(plan, node);
    plan->zones[plan->nodes[node].zone].free--;
}

static void move(struct plan *plan, uint32_t row, uint32_t from, uint32_t to)
{
    uint32_t *held = row_of(plan, row);
    while (*held != from)
        held++;
    *held = NODE_NONE;
    count_down(plan, from);
    plan->zones[plan->nodes[from].zone].free++;
    put(plan, row, to);
}

/* ---- what the rule of zones breaks ---- */

static uint32_t places(const struct plan *plan, uint32_t row)
{
    const uint32_t *held = row_of(plan, row);
    uint32_t count = 0;
    for (uint32_t i = 0; i < plan->request->replica_count; i++)
        count += held[i] != NODE_NONE;
    return plan->width - count;
}

/* Places of a partition that must go to zones which have too few of it. */
static uint32_t places_owed(const struct plan *plan, uint32_t row)
{
    uint32_t owed = 0;
    for (uint32_t z = 0; z < plan->zone_count; z++) {
        uint32_t here = in_zone(plan, row, z), least = plan->zones[z].least;
        owed += here < least ? least - here : 0;
    }
    return owed;
}

/* Give up the replica of the fullest node among those whose zone has more than it needs, or more than it may
 * have. */
static bool give_up(struct plan *plan, uint32_t row, bool only_beyond_most)
{
    uint32_t *held = row_of(plan, row), *chosen = NULL;
    for (uint32_t i = 0; i < plan->request->replica_count; i++) {
        if (held[i] == NODE_NONE)
            continue;
        const struct node *node = &plan->nodes[held[i]];
        const struct zone *zone = &plan->zones[node->zone];
        if (in_zone(plan, row, node->zone) <= (only_beyond_most ? zone->most : zone->least))
            continue;
        if (chosen == NULL || lacks(node) < lacks(&plan->nodes[*chosen]))
            chosen = &held[i];
    }
    if (chosen == NULL)
        return false;
    plan->nodes[*chosen].count--;
    *chosen = NODE_NONE;
    return true;
}

static void obey_zones(struct plan *plan)
{
    for (uint32_t row = 0; row < plan->rows; row++) {
        while (give_up(plan, row, true))
            continue;
        if (plan->zone_count > plan->width)
            continue; /* no zone needs any */
        while (places_owed(plan, row) > places(plan, row))
            check(give_up(plan, row, false));
    }
}

/* ---- fill ---- */

static err count_zones(struct plan *plan)
{
    for (uint32_t z = 0; z < plan->zone_count; z++) {
        struct zone *zone = &plan->zones[z];
        TRY(order_zone(plan, zone));
        zone->free = 0;
        for (uint32_t n = 0; n < zone->count; n++)
            zone->free += lacks(&plan->nodes[zone->first + n]);
        for (uint32_t row = 0; zone->least > 0 && row < plan->rows; row++) {
            uint32_t here = in_zone(plan, row, z);
            zone->free -= here < zone->least ? zone->least - here : 0;
        }
    }
    return OK;
}

/* The zone that lacks most of those that may have one more replica of the partition. `refused` are zones not to be
 * asked again. Index, or zone_count. */
static uint32_t choose_zone(const struct plan *plan, uint32_t row, bool only_owed, const uint64_t *refused)
{
    uint32_t chosen = plan->zone_count;
    for (uint32_t z = 0; z < plan->zone_count; z++) {
        const struct zone *zone = &plan->zones[z];
        if (in_zone(plan, row, z) >= (only_owed ? zone->least : zone->most) ||
            (refused[z / 64] >> z % 64 & 1) != 0)
            continue;
        const struct zone *best = &plan->zones[chosen];
        if (chosen == plan->zone_count || zone->free > best->free ||
            (zone->free == best->free && draw(row, zone->number) > draw(row, best->number)))
            chosen = z;
    }
    return chosen;
}

static void fill_place(struct plan *plan, uint32_t row)
{
    bool only_owed = places_owed(plan, row) >= places(plan, row);
    uint64_t refused[PLACEMENT_ZONES_MAX / 64] = { 0 };
    uint32_t first = choose_zone(plan, row, only_owed, refused), node = NODE_NONE;
    uint32_t z = first;
    check(first < plan->zone_count);
    while (z < plan->zone_count && node == NODE_NONE) {
        node = pick(plan, row, &plan->zones[z], false);
        refused[z / 64] |= UINT64_C(1) << z % 64;
        if (node == NODE_NONE)
            z = choose_zone(plan, row, only_owed, refused);
    }
    if (node == NODE_NONE)
        node = pick(plan, row, &plan->zones[z = first], true);
    check(node != NODE_NONE);
    plan->zones[z].free += in_zone(plan, row, z) < plan->zones[z].least; /* it was counted as owed */
    put(plan, row, node);
}

static void fill(struct plan *plan)
{
    for (uint32_t row = 0; row < plan->rows; row++)
        for (uint32_t count = places(plan, row); count > 0; count--)
            fill_place(plan, row);
}

/* ---- level ---- */

/* Which partitions each node holds: rows of node n are rows[first[n] … first[n + 1]). Moves make it old. */
struct rows_of_nodes {
    uint32_t *first, *rows;
};

static err list_rows(struct plan *plan, struct rows_of_nodes *list)
{
    size_t cells = (size_t)plan->rows * plan->request->replica_count;
    if (list->rows == NULL) {
        TRY(alloc(plan, cells, sizeof *list->rows, &list->rows));
        TRY(alloc(plan, (size_t)plan->node_count + 2, sizeof *list->first, &list->first));
    }
    memset(list->first, 0, ((size_t)plan->node_count + 2) * sizeof *list->first);
    for (size_t i = 0; i < cells; i++)
        if (plan->held[i] != NODE_NONE)
            list->first[plan->held[i] + 2]++;
    for (uint32_t n = 2; n < plan->node_count + 2; n++)
        list->first[n] += list->first[n - 1];
    for (size_t i = 0; i < cells; i++)
        if (plan->held[i] != NODE_NONE)
            list->rows[list->first[plan->held[i] + 1]++] = (uint32_t)(i / plan->request->replica_count);
    return OK;
}

static bool may_move(const struct plan *plan, uint32_t row, uint32_t from, uint32_t to)
{
    uint32_t a = plan->nodes[from].zone, b = plan->nodes[to].zone;
    return !holds(plan, row, to) && (a == b || (in_zone(plan, row, a) > plan->zones[a].least &&
                                                in_zone(plan, row, b) < plan->zones[b].most));
}

/* Where a replica could go from a node that is above its share: within its zone, else to the zone that lacks
 * most. */
static uint32_t taker(const struct plan *plan, uint32_t row, uint32_t from)
{
    uint32_t a = plan->nodes[from].zone;
    uint32_t node = pick(plan, row, &plan->zones[a], false);
    if (node != NODE_NONE || in_zone(plan, row, a) <= plan->zones[a].least)
        return node;
    uint64_t refused[PLACEMENT_ZONES_MAX / 64] = { 0 };
    refused[a / 64] |= UINT64_C(1) << a % 64;
    for (;;) {
        uint32_t z = choose_zone(plan, row, false, refused);
        if (z == plan->zone_count)
            return NODE_NONE;
        node = pick(plan, row, &plan->zones[z], false);
        if (node != NODE_NONE)
            return node;
        refused[z / 64] |= UINT64_C(1) << z % 64;
    }
}

static void hand_over(struct plan *plan, const struct rows_of_nodes *list, uint32_t n)
{
    uint32_t count = list->first[n + 1] - list->first[n];
    uint64_t begin = draw(plan->nodes[n].slot, count);
    for (uint32_t i = 0; i < count && lacks(&plan->nodes[n]) < 0; i++) {
        uint32_t row = list->rows[list->first[n] + (begin + i) % count];
        uint32_t to = taker(plan, row, n);
        if (to != NODE_NONE)
            move(plan, row, n, to);
    }
}

static void move_along(struct plan *plan, uint32_t begin, uint32_t end)
{
    for (uint32_t n = end; n != begin; n = plan->nodes[n].from)
        move(plan, plan->nodes[n].path_row, plan->nodes[n].from, n);
}

/* A node above its share from which no replica can go straight to one below: the shortest path of nodes that
 * hand a replica each to the next (breadth first). False: there is none. */
static err move_by_path(struct plan *plan, struct rows_of_nodes *list, uint32_t *queue, uint32_t begin,
                        bool *out_found)
{
    uint32_t queued = 1;
    TRY(list_rows(plan, list));
    for (uint32_t n = 0; n < plan->node_count; n++)
        plan->nodes[n].from = NODE_NONE;
    plan->nodes[begin].from = begin;
    queue[0] = begin;
    *out_found = false;
    for (uint32_t q = 0; q < queued; q++)
        for (uint32_t i = list->first[queue[q]]; i < list->first[queue[q] + 1]; i++)
            for (uint32_t n = 0; n < plan->node_count; n++) {
                struct node *node = &plan->nodes[n];
                if (node->from != NODE_NONE || !may_move(plan, list->rows[i], queue[q], n))
                    continue;
                node->from = queue[q];
                node->path_row = list->rows[i];
                queue[queued++] = n;
                if (lacks(node) < 1)
                    continue;
                move_along(plan, begin, n);
                *out_found = true;
                return OK;
            }
    return OK;
}

static err level(struct plan *plan)
{
    struct rows_of_nodes list = { 0 };
    uint32_t *queue;
    TRY(alloc(plan, plan->node_count, sizeof *queue, &queue));
    TRY(list_rows(plan, &list));
    for (uint32_t n = 0; n < plan->node_count; n++)
        hand_over(plan, &list, n);
    for (uint32_t n = 0; n < plan->node_count; n++) {
        bool found = true;
        while (found && lacks(&plan->nodes[n]) < 0)
            TRY(move_by_path(plan, &list, queue, n, &found));
    }
    return OK;
}

/* ---- the result ---- */

struct ranked {
    uint64_t rank;
    uint32_t slot;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static void put_row(const struct plan *plan, uint32_t row, uint32_t *out_slots,
                    struct placement_summary *summary)
{
    uint32_t width = plan->request->replica_count, count = 0;
    const uint32_t *held = row_of(plan, row);
    const uint32_t *previous =
        plan->request->previous == NULL ? NULL : plan->request->previous + (size_t)row * width;
    struct ranked ranked[PLACEMENT_REPLICAS_MAX];
    for (uint32_t i = 0; i < width; i++) {
        if (held[i] == NODE_NONE)
            continue;
        uint32_t slot = plan->nodes[held[i]].slot;
        bool was_here = false;
        for (uint32_t k = 0; previous != NULL && k < width; k++)
            was_here = was_here || previous[k] == slot;
        summary->kept += was_here;
        summary->placed += !was_here;
        ranked[count++] = (struct ranked){ draw(row, UINT64_C(1) << 32 | slot), slot };
    }
    qsort(ranked, count, sizeof *ranked, by_rank);
    for (uint32_t i = 0; i < width; i++)
        out_slots[(size_t)row * width + i] = i < count ? ranked[i].slot : SLOT_NONE;
}

err placement_plan(const struct placement_request *request, struct pool *scratch, uint32_t *out_slots,
                   struct placement_summary *out_summary)
{
    if (request->partition_count < 1 || request->partition_count > PLACEMENT_PARTITIONS_MAX ||
        request->replica_count < 1 || request->replica_count > PLACEMENT_REPLICAS_MAX ||
        request->node_count < 1 || request->node_count > PLACEMENT_NODES_MAX)
        return ERR_INPUT;
    struct plan plan = { .request = request, .pool = scratch, .rows = request->partition_count };
    TRY(take_members(&plan));
    bound_zones(&plan);
    TRY(keep_members(&plan));
    TRY(share_out(&plan));
    obey_zones(&plan);
    TRY(count_zones(&plan));
    fill(&plan);
    TRY(level(&plan));
    struct placement_summary summary = { 0 };
    for (uint32_t row = 0; row < plan.rows; row++)
        put_row(&plan, row, out_slots, &summary);
    *out_summary = summary;
    return OK;
}
