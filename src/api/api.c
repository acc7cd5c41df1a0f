/* The table of routes. See api.h.
 *
 * Data comes from net/server.c, which has matched method and path; each handler builds a struct call from
 * the request and answers. The api itself is immutable once it is ready (call_is_open), so handlers need no
 * lock. */
#include "api/api.h"

#include "api/call.h"
#include "api/groups.h"

#define READ (NET_GET | NET_POST) /* Grafana posts long queries as forms */

static const struct net_route routes[] = {
    { .methods = READ, .path = "/api/v1/query", .handle = prom_query },
    { .methods = READ, .path = "/api/v1/query_range", .handle = prom_query_range },
    { .methods = READ, .path = "/api/v1/query_exemplars", .handle = prom_query_exemplars },
    { .methods = READ, .path = "/api/v1/series", .handle = prom_series },
    { .methods = READ, .path = "/api/v1/labels", .handle = prom_labels },
    { .methods = READ, .path = "/api/v1/label/{name}/values", .handle = prom_label_values },
    { .methods = READ, .path = "/api/v1/metadata", .handle = prom_metadata },
    { .methods = READ, .path = "/api/v1/targets", .handle = prom_targets },
    { .methods = READ, .path = "/api/v1/rules", .handle = prom_rules },
    { .methods = READ, .path = "/api/v1/alerts", .handle = prom_alerts },
    { .methods = READ, .path = "/api/v1/alertmanagers", .handle = prom_alertmanagers },
    { .methods = READ, .path = "/api/v1/status/buildinfo", .handle = prom_status_buildinfo },
    { .methods = READ, .path = "/api/v1/status/runtimeinfo", .handle = prom_status_runtimeinfo },
    { .methods = READ, .path = "/api/v1/status/flags", .handle = prom_status_flags },
    { .methods = READ, .path = "/api/v1/status/config", .handle = prom_status_config },
    { .methods = READ, .path = "/api/v1/status/tsdb", .handle = prom_status_tsdb },
    { .methods = NET_POST | NET_PUT, .path = "/api/v1/admin/tsdb/snapshot", .handle = admin_snapshot },
    { .methods = NET_POST, .path = "/api/v1/admin/retention/confirm", .handle = admin_confirm_retention },
    { .methods = READ, .path = "/api/v1/admin/cluster", .handle = admin_cluster },
    { .methods = READ, .path = "/api/v1/admin/health", .handle = admin_health },
    { .methods = NET_POST, .path = "/api/v1/admin/cluster/{action}", .handle = admin_cluster },
    { .methods = NET_POST, .path = "/api/v1/write", .handle = prom_write, .has_raw_body = true },
    { .methods = NET_POST, .path = "/api/v1/import/prometheus", .handle = prom_import, .has_raw_body = true },
    { .methods = NET_GET, .path = "/", .handle = admin_landing },
    { .methods = NET_GET, .path = "/-/healthy", .handle = admin_healthy, .is_open = true },
    { .methods = NET_GET, .path = "/-/ready", .handle = admin_ready, .is_open = true },
    { .methods = NET_POST | NET_PUT, .path = "/-/reload", .handle = admin_reload },
    { .methods = NET_GET, .path = "/metrics", .handle = admin_metrics },
    /* Its proof stands for credentials. */
    { .methods = NET_POST,
      .path = "/-/rpc/*",
      .handle = admin_rpc,
      .is_open = true,
      .has_raw_body = true,
      .body_bytes_max = API_RPC_BYTES_MAX },
};

err api_open(const struct api_config *config, struct pool *pool, struct api **out_api)
{
    void *room;
    TRY(pool_zalloc(pool, sizeof(struct api), &room));
    struct api *api = room;
    api->config = *config;
    *out_api = api;
    return OK;
}

void api_attach(struct api *api, struct query_service *queries, struct ingest *ingest)
{
    api->config.queries = queries;
    api->config.ingest = ingest;
}

const struct net_route *api_routes(size_t *out_count)
{
    *out_count = sizeof routes / sizeof routes[0];
    return routes;
}
