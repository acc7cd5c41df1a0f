/* The HTTP APIs of a node: Prometheus' paths and its administration. The room's door.
 *
 * node/ opens an api over a query service, an ingest and a few callbacks, and gives its routes to the
 * server (net). docs/api.md is the page for users. */
#ifndef API_API_H
#define API_API_H

#include "base/buf.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "io/io.h"
#include "model/json.h"
#include "net/server.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define API_REASON_BYTES_MAX    256
#define API_IMPORT_BYTES_MAX    (256u << 20) /* of a text import after decompression: 413 */
#define API_RPC_BYTES_MAX       (1u << 20)   /* of a request of another node */
#define API_RANGE_POINTS_MAX    11000        /* (end - start) / step of a range query: 400, as Prometheus */
#define API_SNAPSHOT_NAME_BYTES 64
#define API_TSDB_LIMIT_MAX      10000 /* entries a list of status/tsdb: 400, as Prometheus */

struct api;
struct ingest;        /* ingest/ingest.h */
struct query_service; /* query/query.h */

/* A scrape target as /api/v1/targets shows it. */
struct api_target {
    struct slice job; /* scrapePool */
    struct slice url;
    struct slice labels;     /* canonical, after relabelling */
    struct slice discovered; /* canonical, before */
    struct slice error;      /* of the last scrape; empty = none */
    const char *health;      /* "up", "down", "unknown" */
    int64_t scraped_ms;      /* begin of the last scrape; 0 = never */
    int64_t took_ns;
    int64_t interval_ms;
    int64_t timeout_ms;
    bool is_dropped; /* by relabelling */
};

/* What a person asks of the cluster. */
struct api_cluster_order {
    /* Empty: to be shown; else "drain", "undrain", "remove", "add", "replace", "rebalance", "may-stop", "suspend",
     * "resume", "verify". */
    struct slice action;
    struct slice node; /* a node's name; of add the newcomer's zone; of suspend and resume the automation */
    struct slice zone; /* of replace: the newcomer's */
    struct slice owner, reason, duration; /* of suspend: who, why, and for how long ("2h") */
    bool is_dry;                          /* only say what would move */
    struct slice partition, first; /* of verify: which partition, and which of its objects to begin with */
    bool is_quick;                 /* … and that their bytes are not to be read */
};

typedef void (*api_target_add)(void *to, const struct api_target *target);

/* What the node tells and does for the APIs. Callbacks run on connection threads, several at once; any of
 * them may be NULL (then: ready, open, unsupported, empty). */
struct api_config {
    struct io *io;
    struct query_service *queries; /* NULL until api_attach */
    struct ingest *ingest;         /* NULL: no writes */
    void *context;                 /* of the callbacks */

    /* Is the node ready? If not, reason (API_REASON_BYTES_MAX) says what it waits for, and everything but
     * /-/healthy, /-/ready and /metrics gets 503. */
    bool (*is_ready)(void *context, char *reason);
    /* May writes be taken now? OK; ERR_SPACE → 507; anything else → 503; with the reason. */
    err (*intake)(void *context, char *reason);
    /* Read the configuration again, all or nothing. */
    err (*reload)(void *context, struct err_at *at);
    /* The configuration in force as YAML, appended to out. */
    void (*config_text)(void *context, struct buf *out);
    /* Members of status/flags: name and value in turn, appended to out as "name\0value\0". */
    void (*flags)(void *context, struct buf *out);
    /* Bring gauges up to date (stat_set) before /metrics is written. */
    void (*refresh)(void *context);
    /* Append further lines to /metrics: process_* and the like. */
    void (*metrics_text)(void *context, struct buf *out);
    /* Call add for every scrape target; what it points to lives until the call returns. */
    void (*targets)(void *context, struct pool *pool, api_target_add add, void *to);

    /* Make a snapshot; its name, below snapshots/ of the data directory, in out_name. */
    err (*snapshot)(void *context, char out_name[API_SNAPSHOT_NAME_BYTES], struct err_at *at);

    /* Confirm the retention step that waits for a person; its cut-off. ERR_NOT_FOUND: none waits. */
    err (*confirm_retention)(void *context, int64_t *out_cutoff_ms);

    /* Show the cluster, or do what a person asks: the value of `data`. NULL: the node is alone. Errors with
     * the reason in at. */
    err (*cluster)(void *context, const struct api_cluster_order *order, struct pool *pool, struct json *json,
                   struct err_at *at);
    /* What is not well: the value of `data`. NULL: unsupported. Errors with the reason in at. */
    err (*health)(void *context, struct pool *pool, struct json *json, struct err_at *at);
    /* A request of another node, below /-/rpc/; NULL: there are none, 404. */
    void (*rpc)(void *context, struct net_request *request, struct net_response *response);

    const char *data_directory;
    int64_t start_ms;     /* Unix time of the node's start */
    int64_t retention_ms; /* for runtimeinfo; 0 = for ever */
};

/* Open in pool, which frees it; what config points to is borrowed as long. ERR_LIMIT. */
err api_open(const struct api_config *config, struct pool *pool, struct api **out_api);

/* Hand over what was not open yet when the server began to listen; is_ready says no until after this. Once. */
void api_attach(struct api *api, struct query_service *queries, struct ingest *ingest);

/* The routes for net_server_config, whose context is the api. Static. */
const struct net_route *api_routes(size_t *out_count);

#endif
