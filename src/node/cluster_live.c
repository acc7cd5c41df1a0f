/* What a node that is in its cluster answers, from any thread: whether it is ready, requests of other nodes, its
 * cluster's page, its health. See cluster_node.h. Everything comes from the agent's view and its routes, and from
 * what the parts of the node say of themselves; nothing here changes the node but the first readiness. */
#include "node/cluster_node_inside.h"

#include "base/stat.h"
#include "base/time.h"
#include "node/cluster_show.h"
#include "node/gauges.h"

#include <stdio.h>

#define OWNERS_MS 30000 /* the first readiness waits so long for somebody to own each partition */

static void copy_why(struct cluster_node *cluster, const char *before, char why[CLUSTER_NODE_WHY_BYTES_MAX])
{
    io_mutex_lock(&cluster->lock);
    snprintf(why, CLUSTER_NODE_WHY_BYTES_MAX, "%s%.400s", before, cluster->why);
    io_mutex_unlock(&cluster->lock);
}

/* It waits for others to found the cluster with. */
static bool is_awaiting(const struct agent_view *view, char why[CLUSTER_NODE_WHY_BYTES_MAX])
{
    if (view->is_assigned)
        return false;
    snprintf(why, CLUSTER_NODE_WHY_BYTES_MAX, "the cluster begins when %u nodes have joined, %u are up",
             view->init.expected_nodes, view->up_count);
    return true;
}

/* A node that answers nothing for a while is better than one whose first answers lack partitions; for one without
 * an owner anywhere nobody gains by that. */
static bool knows_owners(struct cluster_node *cluster, char why[CLUSTER_NODE_WHY_BYTES_MAX])
{
    uint32_t unowned = routes_unowned(agent_routes(cluster->agent));
    bool is_waiting = io_boottime_ns(cluster->io) - cluster->joined_ns < OWNERS_MS * NS_PER_MS;
    if (unowned > 0 && is_waiting) {
        snprintf(why, CLUSTER_NODE_WHY_BYTES_MAX, "%u partitions have no owner yet", unowned);
        return false;
    }
    atomic_store(&cluster->was_ready, true);
    return true;
}

/* Its queries would lack whatever others hold. */
static bool is_refused(struct cluster_node *cluster, char why[CLUSTER_NODE_WHY_BYTES_MAX])
{
    struct prober_counts probes = prober_counts(cluster->prober);
    if (probes.refusing == 0 || probes.here > 0)
        return false;
    snprintf(why, CLUSTER_NODE_WHY_BYTES_MAX,
             "nodes refuse to talk to this one (%u), and none does: is its secret another one, or its clock "
             "wrong?",
             probes.refusing);
    return true;
}

bool cluster_node_is_ready(struct cluster_node *cluster, char why[CLUSTER_NODE_WHY_BYTES_MAX])
{
    struct agent_view view;
    if (!atomic_load(&cluster->is_joined)) {
        copy_why(cluster, "waiting for ", why);
        return false;
    }
    agent_view(cluster->agent, &view);
    if (is_awaiting(&view, why))
        return false;
    if (view.self.slot == SLOT_NONE) {
        copy_why(cluster, "this node is not up in the cluster: ", why);
        return false;
    }
    if (is_refused(cluster, why))
        return false;
    if (atomic_load(&cluster->was_ready)) /* what it opens later is asked of others meanwhile */
        return true;
    uint32_t waiting = opener_waiting(cluster->opener);
    if (waiting > 0) {
        snprintf(why, CLUSTER_NODE_WHY_BYTES_MAX, "%u partitions are being opened", waiting);
        return false;
    }
    return knows_owners(cluster, why);
}

err cluster_node_intake(struct cluster_node *cluster, char why[CLUSTER_NODE_WHY_BYTES_MAX])
{
    struct agent_view view;
    agent_view(cluster->agent, &view);
    return is_awaiting(&view, why) ? ERR_BUSY : OK;
}

bool cluster_node_has_ended(struct cluster_node *cluster, enum core_end *out_end)
{
    io_mutex_lock(&cluster->lock);
    bool has_ended = cluster->has_ended;
    *out_end = cluster->end;
    io_mutex_unlock(&cluster->lock);
    return has_ended;
}

static void say(struct net_response *response, unsigned status, const char *why)
{
    response->status = status;
    response->content_type = "text/plain";
    buf_put_str(&response->body, why);
}

void cluster_node_rpc(struct cluster_node *cluster, struct net_request *request,
                      struct net_response *response)
{
    if (!atomic_load(&cluster->has_agent))
        say(response, 503, "this node is starting\n");
    else if (slice_equal_str(request->path, PROBE_PATH))
        probe_handle(cluster->agent, cluster->io, cluster->config.secrets->cluster, request, response);
    else if (slice_equal_str(request->path, FANOUT_HTTP_PATH) && atomic_load(&cluster->has_answers))
        fanout_answers_handle(cluster->answers, request, response);
    else if (slice_equal_str(request->path, SYNC_PATH) && atomic_load(&cluster->has_sync))
        cluster_sync_handle(cluster->sync, request, response);
    else if (slice_equal_str(request->path, FANOUT_HTTP_PATH) || slice_equal_str(request->path, SYNC_PATH))
        say(response, 503, "this node is starting\n");
    else
        say(response, 404, "no such request between nodes\n");
}

bool cluster_node_may_sweep(void *context, uint32_t partition)
{
    struct cluster_node *cluster = context;
    return atomic_load(&cluster->has_sync) && cluster_sync_may_sweep(cluster->sync, partition);
}

err cluster_node_show(struct cluster_node *cluster, const struct api_cluster_order *order, struct pool *pool,
                      struct json *json, struct err_at *at)
{
    if (!atomic_load(&cluster->has_agent))
        return err_set(at, ERR_BUSY, "this node does not know its cluster yet");
    if (slice_equal_str(order->action, "verify"))
        return atomic_load(&cluster->has_sync) ? cluster_sync_verify(cluster->sync, order, pool, json, at)
                                               : err_set(at, ERR_BUSY, "this node is starting");
    return cluster_show(cluster->agent, cluster->io, order, pool, json, at);
}

err cluster_node_health(struct cluster_node *cluster, struct pool *pool, struct health *health,
                        struct json *json, struct err_at *at)
{
    struct agent_copy *copy;
    if (!atomic_load(&cluster->has_agent))
        return err_set(at, ERR_BUSY, "this node does not know its cluster yet");
    err e = agent_copy(cluster->agent, pool, &copy);
    if (e != OK)
        return err_set(at, e, "this node's part in the cluster does not answer: %s", err_text(e));
    const struct health_cluster facts = { .copy = copy,
                                          .may_decide = agent_may_decide(cluster->agent),
                                          .retention = atomic_load(&cluster->guard.level),
                                          .left_ms = atomic_load(&cluster->guard.left_ms) };
    if (members_init(copy->members) != NULL)
        health_of_cluster(health, &facts, json);
    else
        health_add(health, HEALTH_ALARM, "members", "the cluster has not begun");
    members_close(copy->members);
    return OK;
}

void cluster_node_step(struct cluster_node *cluster)
{
    if (atomic_load(&cluster->is_joined))
        retention_guard_step(&cluster->guard, cluster->log, cluster->shards,
                             opener_waits_since_ns(cluster->opener), cluster->settings.kafka.retention_max_ms,
                             cluster->io);
}

void cluster_node_refresh(struct cluster_node *cluster)
{
    struct agent_view view;
    if (!atomic_load(&cluster->has_agent))
        return;
    agent_view(cluster->agent, &view);
    gauges_of_cluster(&view, agent_may_decide(cluster->agent),
                      view.is_assigned ? routes_unowned(agent_routes(cluster->agent)) : 0);
}
