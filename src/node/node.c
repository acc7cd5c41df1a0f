/* Starting, running and stopping a node. See node.h.
 *
 *   files → loaded → sink → data directory → identity (lock) → api → server → log → blob → shards
 *         → ingest → queries → scraping
 * and back with the server first, which stops accepting; the lock goes last. The server listens while the
 * storage opens, and answers that the node is starting. A node in a cluster has log and blob from
 * node/cluster_node.h, joins when all is open, and leaves before anything is closed.
 *
 * Threads: whoever opened the node steps and closes it; reloads may come from any connection's thread too and are
 * serialised by reload_mutex; api callbacks run on connection threads and read only atomics or call
 * thread-safe functions of rooms.
 *
 * Invariants
 *  1. Every member is NULL until it is open, so that node_close closes exactly what was opened.
 *  2. `loaded` is replaced only under reload_mutex, after every room took the new one; nobody else keeps
 *     pointers into it.
 *  3. Writes are refused while intake_floor is set (free space; the log asks it, too) or shards_intake says so. */
#include "node/node.h"

#include "api/api.h"
#include "base/diag.h"
#include "base/hash.h"
#include "base/stat.h"
#include "base/time.h"
#include "blob/blob.h"
#include "ingest/ingest.h"
#include "io/thread.h"
#include "log/log.h"
#include "node/cluster_node.h"
#include "node/exposure.h"
#include "node/gauges.h"
#include "node/identity.h"
#include "node/loaded.h"
#include "node/process.h"
#include "node/rooms.h"
#include "node/sink.h"
#include "query/query.h"
#include "shard/shard.h"

#include <stdio.h>
#include <string.h>

#define GIB (UINT64_C(1) << 30)
/* A series takes about 150 bytes of memory in all; what is left of the budget is for heads, cache and queries. */
#define SERIES_BYTES    400
#define SNAPSHOT_MS_MAX (10 * MS_PER_MINUTE)

struct node {
    struct pool *pool; /* root of all memory; its budget is the memory budget */
    struct pool *query_pool;
    struct node_options options;
    struct io *cwd; /* rooted at the working directory: configuration, certificates */
    struct io *io;  /* rooted at the data directory */
    struct sink *sink;
    struct identity identity;
    struct identity_lock *lock;
    struct cluster_node *cluster; /* NULL: the node is alone */
    struct log *log;              /* of a cluster's node log and blob are the cluster's */
    struct blob *blob;
    struct shards *shards;
    struct ingest *ingest;
    struct query_service *queries;
    struct scrape *scrape;
    struct api *api;
    struct net_server *server;
    int64_t start_ms;
    uint64_t memory_bytes;

    struct io_mutex reload_mutex;
    struct loaded *loaded;
    _Atomic bool
        is_started; /* all members below `identity` are open; until then only server and api are asked */
    _Atomic bool intake_floor; /* free space is below the floor */
    _Atomic uint64_t free_bytes;
    bool was_ready;
};

static enum diag_level level_of(const struct config *config) { return (enum diag_level)config->log_level; }

/* ---- callbacks of the api ---- */

static bool node_is_ready(void *context, char *reason)
{
    struct node *node = context;
    bool is_started = atomic_load_explicit(&node->is_started, memory_order_acquire);
    char why[CLUSTER_NODE_WHY_BYTES_MAX];
    if (node->cluster != NULL && !cluster_node_is_ready(node->cluster, why)) {
        snprintf(reason, API_REASON_BYTES_MAX, "Kelpie is starting: %.200s.", why);
        return false;
    }
    if (is_started && shards_ready(node->shards))
        return true;
    snprintf(reason, API_REASON_BYTES_MAX, "Kelpie is starting: reading %s.",
             is_started ? "the tail of the log" : "what is stored");
    return false;
}

static err node_intake(void *context, char *reason)
{
    struct node *node = context;
    if (atomic_load_explicit(&node->intake_floor, memory_order_relaxed)) {
        snprintf(reason, API_REASON_BYTES_MAX,
                 "free space on the data disk is below storage.free_space_floor"
                 " (%llu bytes free); writes resume by themselves",
                 (unsigned long long)atomic_load_explicit(&node->free_bytes, memory_order_relaxed));
        return ERR_SPACE;
    }
    /* What is in the log already needs memory to be applied: that last eighth is not for more of it. */
    if (pool_used(node->pool) > node->memory_bytes - node->memory_bytes / 8) {
        snprintf(reason, API_REASON_BYTES_MAX,
                 "the memory budget of %llu MiB is nearly spent; writes resume by themselves",
                 (unsigned long long)(node->memory_bytes >> 20));
        return ERR_BUSY;
    }
    char why[CLUSTER_NODE_WHY_BYTES_MAX];
    if (node->cluster != NULL && cluster_node_intake(node->cluster, why) != OK) {
        snprintf(reason, API_REASON_BYTES_MAX, "%.200s", why);
        return ERR_BUSY;
    }
    err e = shards_intake(node->shards);
    if (e != OK)
        snprintf(reason, API_REASON_BYTES_MAX, "storage takes no rows now: %s", err_text(e));
    return e;
}

static err node_cluster(void *context, const struct api_cluster_order *order, struct pool *pool,
                        struct json *json, struct err_at *at)
{
    struct node *node = context;
    return cluster_node_show(node->cluster, order, pool, json, at);
}

static void take_config_hash(struct node *node, char out_hash[CONFIG_HASH_BYTES])
{
    io_mutex_lock(&node->reload_mutex);
    config_hash(&node->loaded->config, out_hash);
    io_mutex_unlock(&node->reload_mutex);
}

static err node_health(void *context, struct pool *pool, struct json *json, struct err_at *at)
{
    struct node *node = context;
    char waits[API_REASON_BYTES_MAX], refuses[API_REASON_BYTES_MAX];
    struct health health = { 0 };
    bool is_ready = node_is_ready(node, waits);
    bool is_started = atomic_load_explicit(&node->is_started, memory_order_acquire);
    struct shards_usage usage = { 0 };
    if (is_started)
        usage = shards_usage(node->shards);
    struct health_node facts = { .not_ready = is_ready ? NULL : waits,
                                 .refuses = is_started && node_intake(node, refuses) != OK ? refuses : NULL,
                                 .losses = usage.losses,
                                 .damaged_segments = usage.quarantined_count,
                                 .retention_waits = usage.retention_waits,
                                 .missing_count = usage.missing_count };
    health_of_node(&health, &facts);
    json_open(json, '{');
    char hash[CONFIG_HASH_BYTES];
    take_config_hash(node, hash);
    json_str(json_key(json, "configHash"), hash);
    if (node->cluster != NULL)
        TRY(cluster_node_health(node->cluster, pool, &health, json, at));
    health_put(&health, json);
    json_close(json, '}');
    return OK;
}

static void node_rpc(void *context, struct net_request *request, struct net_response *response)
{
    struct node *node = context;
    cluster_node_rpc(node->cluster, request, response);
}

static err node_reload_callback(void *context, struct err_at *at) { return node_reload(context, at); }

static void node_config_text(void *context, struct buf *out)
{
    struct node *node = context;
    io_mutex_lock(&node->reload_mutex);
    config_print(&node->loaded->config, out);
    io_mutex_unlock(&node->reload_mutex);
}

static void put_flag(struct buf *out, const char *name, const char *value)
{
    buf_put(out, name, strlen(name) + 1);
    buf_put(out, value, strlen(value) + 1);
}

static void node_flags(void *context, struct buf *out)
{
    const struct node *node = context;
    const struct node_options *options = &node->options;
    put_flag(out, "config", options->config_file != NULL ? options->config_file : "");
    put_flag(out, "data", options->data_directory);
    put_flag(out, "http", options->listen);
    put_flag(out, "insecure", options->is_insecure ? "true" : "false");
    put_flag(out, "web.config.file", options->web_config_file != NULL ? options->web_config_file : "");
}

static void node_refresh(void *context)
{
    struct node *node = context;
    stat_set(STAT_NODE_FREE_BYTES, (int64_t)atomic_load(&node->free_bytes));
    stat_set(STAT_NODE_MEMORY_BUDGET_BYTES, (int64_t)node->memory_bytes);
    stat_set(STAT_NODE_MEMORY_BYTES, (int64_t)pool_used(node->pool));
    if (node->cluster != NULL)
        cluster_node_refresh(node->cluster);
    if (!atomic_load_explicit(&node->is_started, memory_order_acquire))
        return;
    struct shards_usage shards = shards_usage(node->shards);
    struct log_usage log = log_usage(node->log);
    struct query_service_usage queries = query_service_usage(node->queries);
    gauges_of_rooms(&shards, &log, &queries);
    stat_set(STAT_NODE_INTAKE_CLOSED, atomic_load(&node->intake_floor) || shards_intake(node->shards) != OK);
}

static void node_metrics_text(void *context, struct buf *out)
{
    struct node *node = context;
    char hash[CONFIG_HASH_BYTES];
    take_config_hash(node, hash);
    process_metrics(node->io, node->start_ms, out);
    buf_printf(out,
               "# HELP kelpie_config_info The configuration in force, but for what nodes are to have each "
               "their own.\n"
               "# TYPE kelpie_config_info gauge\nkelpie_config_info{hash=\"%s\"} 1\n",
               hash);
}

static void node_targets(void *context, struct pool *pool, api_target_add add, void *to)
{
    struct node *node = context;
    struct scrape_target_status *targets;
    size_t count;
    if (scrape_status(node->scrape, pool, &targets, &count) != OK)
        return; /* no memory for the list: it is empty */
    for (size_t i = 0; i < count; i++) {
        const struct scrape_target_status *t = &targets[i];
        struct api_target target = {
            .job = t->job,
            .url = t->url,
            .labels = t->labels,
            .discovered = t->discovered_labels,
            .error = t->last_error,
            .health = scrape_health_text(t->health),
            .scraped_ms = t->last_scrape_ms,
            .took_ns = t->last_duration_ns,
            .interval_ms = t->interval_ms,
            .timeout_ms = t->timeout_ms,
            .is_dropped = t->is_dropped,
        };
        add(to, &target);
    }
}

static err node_confirm_retention(void *context, int64_t *out_cutoff_ms)
{
    struct node *node = context;
    err e = shards_retention_confirm(node->shards, out_cutoff_ms);
    if (e == OK)
        diag(DIAG_WARN, "A person confirmed a large step of retention.", "cutoff_ms=%lld",
             (long long)*out_cutoff_ms);
    return e;
}

/* data/snapshots/NAME: SNAPSHOT, blob/ and, when all is there, NODE. NAME is the time, so that names sort, and a
 * few random digits. */
static err node_snapshot(void *context, char out_name[API_SNAPSHOT_NAME_BYTES], struct err_at *at)
{
    struct node *node = context;
    char time[TIME_TEXT_BYTES], path[IO_PATH_BYTES_MAX];
    uint8_t bytes[IDENTITY_BYTES];
    uint32_t salt;
    if (node->cluster != NULL)
        return err_set(at, ERR_UNSUPPORTED,
                       "a node in a cluster makes no snapshots: the bucket holds what is stored");
    io_random(node->io, &salt, sizeof salt);
    time_print(io_now_ms(node->io), time);
    snprintf(out_name, API_SNAPSHOT_NAME_BYTES, "%.4s%.2s%.2sT%.2s%.2s%.2sZ-%08x", time, time + 5, time + 8,
             time + 11, time + 14, time + 17, salt);
    err e = io_dir_make(node->io, "snapshots");
    if (e != OK)
        return err_set(at, e, "cannot create snapshots/: %s", err_text(e));
    snprintf(path, sizeof path, "snapshots/%s", out_name);
    TRY(io_dir_create(node->io, path));
    snprintf(path, sizeof path, "snapshots/%s/%s", out_name, IDENTITY_SNAPSHOT_FILE);
    TRY(io_replace_file(node->io, path, slice_str("kelpie restore makes a data directory of this one.\n")));
    snprintf(path, sizeof path, "snapshots/%s/blob", out_name);
    e = shards_snapshot(node->shards, path, io_monotonic_ns(node->io) + SNAPSHOT_MS_MAX * NS_PER_MS);
    if (e != OK)
        return err_set(at, e, "cannot make the snapshot: %s", err_text(e));
    identity_encode(&node->identity, bytes);
    snprintf(path, sizeof path, "snapshots/%s/%s", out_name, IDENTITY_FILE);
    e = io_replace_file(node->io, path, slice_of(bytes, sizeof bytes));
    if (e == OK)
        e = io_dir_sync(node->io, "snapshots");
    diag(DIAG_INFO, "snapshot made", "name=%s result=\"%s\"", out_name, err_text(e));
    return e;
}

/* ---- free space ---- */

/* max(5 %, min(1 GiB, 20 %)) of the disk unless configured. */
static uint64_t space_floor(uint64_t configured, const struct io_space *space)
{
    if (configured != 0)
        return configured;
    uint64_t small = space->total_bytes / 5 < GIB ? space->total_bytes / 5 : GIB;
    return space->total_bytes / 20 > small ? space->total_bytes / 20 : small;
}

/* The recycled files of the log are space of ours: they are written again, not allocated. */
static void watch_space(struct node *node)
{
    struct io_space space;
    if (io_space(node->io, &space) != OK)
        return;
    io_mutex_lock(&node->reload_mutex);
    uint64_t floor = space_floor(node->loaded->config.free_space_floor, &space);
    io_mutex_unlock(&node->reload_mutex);
    bool was_below = atomic_load(&node->intake_floor);
    /* 2 % of the floor more to open again, so that the answer does not flicker. */
    bool is_below = space.free_bytes < (was_below ? floor + floor / 50 : floor);
    atomic_store(&node->free_bytes, space.free_bytes);
    atomic_store(&node->intake_floor, is_below);
    if (node->shards != NULL)
        shards_space_set(node->shards, space.free_bytes > floor ? space.free_bytes - floor : 0);
    if (is_below && !was_below)
        diag(DIAG_ERROR, "free space is below the floor, writes are refused until there is more",
             "free_bytes=%llu floor_bytes=%llu", (unsigned long long)space.free_bytes,
             (unsigned long long)floor);
    if (!is_below && was_below)
        diag(DIAG_INFO, "free space is above the floor again, writes are taken", "free_bytes=%llu",
             (unsigned long long)space.free_bytes);
}

/* ---- opening ---- */

void node_secret_draw(struct io *io)
{
    uint64_t secret;
    io_random(io, &secret, sizeof secret);
    hash_secret_set(secret);
}

static err open_data_directory(struct node *node, struct err_at *at)
{
    const char *path = node->options.data_directory;
    err e = io_dir_make(node->cwd, path);
    if (e != OK)
        return err_set(at, e, "cannot create the data directory %s: %s", path,
                       e == ERR_NOT_FOUND ? "there is no directory to create it in" : err_text(e));
    e = io_open(path, &node->io);
    if (e == OK)
        node_secret_draw(node->io);
    return e == OK ? OK
                   : err_set(at, e, "cannot open the data directory %s: %s", path,
                             e == ERR_NOT_FOUND ? "it is not a directory" : err_text(e));
}

static uint32_t partition_count(struct io *io)
{
    uint32_t count = NODE_PARTITIONS_MIN;
    unsigned cpus = io_cpu_count(io);
    while (count < cpus && count < NODE_PARTITIONS_MAX)
        count *= 2;
    return count;
}

static err open_identity(struct node *node, struct err_at *at)
{
    struct io *io = node->io;
    const char *path = node->options.data_directory;
    struct err_at why = { 0 };
    if (identity_is_snapshot(io)) /* its log would count as lost */
        return err_set(
            at, ERR_INPUT,
            "%s is a snapshot, as the file SNAPSHOT in it says: kelpie restore %s --data NEWDIR makes a"
            " data directory of it",
            path, path);
    const struct identity_fresh fresh = { .is_member = node->loaded->config.cluster.is_given,
                                          .partition_count = partition_count(io),
                                          .range_bytes_max = SHARD_RANGE_BYTES_MAX_DEFAULT };
    err e = identity_open(io, node->pool, &fresh, &node->identity, &node->lock, &why);
    return e == OK ? OK : err_set(at, e, "data directory %s: %s", path, why.text);
}

static bool space_is_low(void *context)
{
    const struct node *node = context;
    return atomic_load_explicit(&node->intake_floor, memory_order_relaxed);
}

static err open_log(struct node *node, struct err_at *at)
{
    const struct config *config = &node->loaded->config;
    struct log_config log = {
        .directory = "log",
        .partition_count = node->identity.partition_count,
        .ack = config->ack == CONFIG_ACK_OS ? LOG_ACK_OS : LOG_ACK_FSYNC,
        .file_bytes = config->log_file_bytes,
        .queue_bytes_max = node->memory_bytes / 16,
        .tail_bytes_max = node->memory_bytes / 16,
        .is_space_low = space_is_low,
        .space_context = node,
    };
    memcpy(log.cluster_id, node->identity.cluster_id, sizeof log.cluster_id);
    err e = log_open(&log, node->io, node->pool, &node->log, at);
    if (e != OK)
        return e;
    size_t damage_count;
    const struct log_damage *damages = log_damages(node->log, &damage_count);
    for (size_t i = 0; i < damage_count; i++)
        diag(DIAG_ERROR, "the log is damaged, these records are lost and answers say so",
             "partition=%u from_offset=%llu to_offset=%llu file=%s file_offset=%llu", damages[i].partition,
             (unsigned long long)damages[i].from_offset, (unsigned long long)damages[i].to_offset,
             damages[i].file, (unsigned long long)damages[i].file_offset);
    return OK;
}

static err open_alone(struct node *node, struct err_at *at)
{
    TRY(open_log(node, at));
    err e = blob_open_dir("blob", node->io, node->pool, &node->blob);
    return e == OK ? OK : err_set(at, e, "cannot open the blob directory: %s", err_text(e));
}

/* Before the server listens, so that its callbacks find it. */
static err open_cluster(struct node *node)
{
    const struct loaded *loaded = node->loaded;
    struct io_space space = { 0 };
    if (!loaded->config.cluster.is_given)
        return OK;
    ERR_IGNORE(io_space(node->io, &space)); /* nothing is known: the cache looks itself */
    struct cluster_node_config config = { .cluster = &loaded->config.cluster,
                                          .secrets = &loaded->secrets,
                                          .is_tls = loaded->has_web && loaded->web.cert_file.len > 0,
                                          .memory_bytes = node->memory_bytes,
                                          .free_bytes_min =
                                              space_floor(loaded->config.free_space_floor, &space) };
    memcpy(config.disk_id, node->identity.disk_id, sizeof config.disk_id);
    return cluster_node_open(&config, node->io, node->pool, &node->cluster);
}

static err open_together(struct node *node, struct err_at *at)
{
    TRY(cluster_node_begin(node->cluster, &node->identity, at));
    node->log = cluster_node_log(node->cluster);
    node->blob = cluster_node_blob(node->cluster);
    return OK;
}

static err open_storage(struct node *node, struct err_at *at)
{
    TRY(node->cluster != NULL ? open_together(node, at) : open_alone(node, at));
    struct shards_config shards = rooms_shards(node->memory_bytes, &node->identity, &node->loaded->config);
    shards.may_sweep = node->cluster != NULL ? cluster_node_may_sweep : NULL;
    shards.sweep_context = node->cluster;
    TRY(shards_config_check(&shards, at));
    struct err_at why = { 0 };
    err e = shards_open(&shards, node->io, node->log, node->blob, node->pool, &node->shards, &why);
    if (e != OK)
        return err_set(at, e,
                       e == ERR_IO ? "%s; look at the disk: if it stays so, kelpie fsck --data %s sets"
                                     " aside what cannot be read"
                                   : "%s (data directory %s)",
                       why.text, node->options.data_directory);
    if (node->cluster == NULL)
        TRY(log_run_thread(node->log));
    return shards_run_threads(node->shards);
}

static bool node_has_room(void *context, struct slice tenant, struct slice labels)
{
    struct node *node = context;
    return shards_have_room(node->shards, tenant, labels);
}

static err open_ingest(struct node *node, struct err_at *at)
{
    struct ingest_config config = ingest_config_default();
    struct ingest_tenant_limits *tenants;
    size_t tenant_count;
    memcpy(config.hash_key, node->identity.hash_key, sizeof config.hash_key);
    config.partition_count = node->identity.partition_count;
    config.limits = loaded_limits(&node->loaded->config.limits);
    TRY(loaded_tenants(node->loaded, node->loaded->pool, &tenants, &tenant_count));
    config.tenants = tenants;
    config.tenant_count = tenant_count;
    config.series_max = node->memory_bytes / SERIES_BYTES;
    config.gives_tokens = node->cluster != NULL;
    config.token_seed = token_seed(node->identity.cluster_id);
    config.has_room = node_has_room;
    config.context = node;
    TRY(ingest_config_check(&config, at));
    return ingest_open(&config, node->io, node->log, node->pool, &node->ingest);
}

static err open_queries(struct node *node)
{
    struct query_config config = loaded_query(node->loaded);
    struct cluster_queries queries = { .source = shards_source(node->shards) };
    node->query_pool = pool_open(node->pool, "queries", node->memory_bytes / 4);
    if (node->cluster != NULL)
        TRY(cluster_node_attach(node->cluster, queries.source, &queries));
    TRY(query_service_open(&config, node->io, queries.source, node->query_pool, &node->queries));
    query_service_set_positions(node->queries, queries.positions, queries.positions_context);
    struct promql_runner runner = query_service_runner(node->queries);
    if (node->cluster != NULL)
        cluster_node_set_runner(node->cluster, &runner);
    return OK;
}

static err open_scraping(struct node *node, struct err_at *at)
{
    struct scrape_options options = scrape_options_default();
    if (options.memory_bytes_max > node->memory_bytes / 4)
        options.memory_bytes_max = node->memory_bytes / 4;
    return scrape_open(node->cwd, node->pool, scrape_sink_of(node->ingest), &options, node->loaded->scrape,
                       &node->scrape, at);
}

static err open_server(struct node *node, struct err_at *at)
{
    const struct config *config = &node->loaded->config;
    struct api_config api = {
        .io = node->io,
        .context = node,
        .is_ready = node_is_ready,
        .intake = node_intake,
        .reload = node_reload_callback,
        .config_text = node_config_text,
        .flags = node_flags,
        .refresh = node_refresh,
        .metrics_text = node_metrics_text,
        .targets = node_targets,
        .snapshot = node_snapshot,
        .confirm_retention = node_confirm_retention,
        .cluster = node->cluster != NULL ? node_cluster : NULL,
        .rpc = node->cluster != NULL ? node_rpc : NULL,
        .health = node_health,
        .data_directory = node->options.data_directory,
        .start_ms = node->start_ms,
        .retention_ms = config->retention_ms,
    };
    TRY(api_open(&api, node->pool, &node->api));
    struct net_server_config server = net_server_config_default();
    server.listen = node->options.listen;
    server.context = node->api;
    server.routes = api_routes(&server.route_count);
    server.web = node->loaded->has_web ? &node->loaded->web : NULL;
    server.cors = config->http_cors;
    server.connections_max = (unsigned)config->http_connections_max;
    server.connections_per_ip_max = (unsigned)config->http_connections_per_ip_max;
    server.body_bytes_max = config->http_body_bytes_max;
    return net_server_open(node->cwd, node->pool, &server, &node->server, at);
}

static err open_all(struct node *node, struct err_at *at)
{
    err e = io_open(".", &node->cwd);
    if (e != OK)
        return err_set(at, e, "cannot open the working directory: %s", err_text(e));
    node->start_ms = io_now_ms(node->cwd);
    TRY(loaded_read(&node->options, node->cwd, node->pool, &node->loaded, at));
    TRY(exposure_check(&node->options, node->loaded, at));
    const struct config *config = &node->loaded->config;
    TRY(sink_open(node->cwd, node->pool, config->log_format == CONFIG_JSON, level_of(config), &node->sink));
    node->memory_bytes = rooms_memory(node->cwd, config);
    pool_set_budget(node->pool, node->memory_bytes);
    TRY(open_data_directory(node, at));
    TRY(open_identity(node, at));
    watch_space(node);
    TRY(open_cluster(node));
    TRY(open_server(node, at));
    diag(DIAG_INFO, "kelpie is listening",
         "version=%s address=%s port=%u data=%s partitions=%u memory_budget_bytes=%llu", KELPIE_VERSION,
         node->options.listen, net_server_port(node->server), node->options.data_directory,
         node->identity.partition_count, (unsigned long long)node->memory_bytes);
    TRY(open_storage(node, at));
    TRY(open_ingest(node, at));
    TRY(open_queries(node));
    TRY(open_scraping(node, at));
    api_attach(node->api, node->queries, node->ingest);
    atomic_store_explicit(&node->is_started, true, memory_order_release);
    return node->cluster != NULL ? cluster_node_join(node->cluster, node->shards) : OK;
}

err node_open(const struct node_options *options, struct node **out_node, struct err_at *at)
{
    struct pool *pool;
    void *room;
    TRY(pool_open_object(NULL, "node", sizeof(struct node), &pool, &room));
    struct node *node = room;
    node->pool = pool;
    node->options = *options;
    io_mutex_init(&node->reload_mutex);
    err e = open_all(node, at);
    if (e != OK) {
        node_close(node);
        return at != NULL && at->text[0] != 0 ? e : err_set(at, e, "cannot start: %s", err_text(e));
    }
    *out_node = node;
    return OK;
}

uint16_t node_port(const struct node *node) { return net_server_port(node->server); }

/* ---- running ---- */

void node_step(struct node *node)
{
    watch_space(node);
    blob_tend(node->blob);
    if (node->cluster != NULL)
        cluster_node_step(node->cluster);
    ingest_step(node->ingest);
    err e = log_tidy(node->log);
    if (e != OK)
        diag(DIAG_WARN, "cannot give log files back", "error=\"%s\"", err_text(e));
    char why[CLUSTER_NODE_WHY_BYTES_MAX];
    bool is_in = node->cluster == NULL || node->was_ready || cluster_node_is_ready(node->cluster, why);
    if (!node->was_ready && is_in && shards_ready(node->shards)) {
        node->was_ready = true;
        diag(DIAG_INFO, "kelpie is ready", "after_ms=%lld series=%llu",
             (long long)(io_now_ms(node->io) - node->start_ms),
             (unsigned long long)shards_usage(node->shards).series_count);
    }
}

bool node_has_ended(struct node *node, enum core_end *out_end)
{
    return node->cluster != NULL && cluster_node_has_ended(node->cluster, out_end);
}

/* Hand the configuration to the rooms; each takes it whole or not. The mutex is held. */
static err apply(struct node *node, struct loaded *next, struct err_at *at)
{
    struct shards_config shards = rooms_shards(node->memory_bytes, &node->identity, &next->config);
    struct query_config query = loaded_query(next);
    struct ingest_limits limits = loaded_limits(&next->config.limits);
    struct ingest_tenant_limits *tenants;
    size_t tenant_count;
    TRY(shards_config_check(&shards, at));
    TRY(loaded_tenants(next, next->pool, &tenants, &tenant_count));
    if (next->has_web)
        TRY(net_server_reload(node->server, &next->web, at));
    err e = ingest_set_limits(node->ingest, &limits, tenants, tenant_count);
    if (e == OK)
        e = shards_reconfigure(node->shards, &shards, at);
    if (e == OK)
        e = query_service_configure(node->queries, &query, at);
    if (e == OK)
        e = scrape_reload(node->scrape, next->scrape, at);
    return e;
}

/* The reason quotes keys, and it stands in quotes itself. */
static void report_refusal(const struct err_at *at)
{
    char reason[ERR_TEXT_BYTES_MAX];
    size_t len = strlen(at->text);
    memcpy(reason, at->text, len + 1);
    for (size_t i = 0; i < len; i++)
        if (reason[i] == '"')
            reason[i] = '\'';
    diag(DIAG_ERROR, "configuration not reloaded, nothing was changed", "reason=\"%s\"", reason);
}

err node_reload(struct node *node, struct err_at *at)
{
    struct loaded *next;
    struct err_at local = { 0 };
    at = at != NULL ? at : &local;
    io_mutex_lock(&node->reload_mutex);
    err e = loaded_read(&node->options, node->cwd, node->pool, &next, at);
    if (e == OK) {
        struct buf waiting = buf_open(next->pool, 4096);
        config_keep_restart(&node->loaded->config, &next->config, &waiting);
        e = apply(node, next, at);
        if (e != OK) /* what one room took, it gives back: the old values were accepted once and are again */
            ERR_IGNORE(apply(node, node->loaded, NULL));
        if (e == OK && waiting.len > 0)
            diag(DIAG_WARN, "some changed settings wait for a restart", "settings=\"%.*s\"",
                 SLICE_ARG(buf_slice(&waiting)));
        struct loaded *old = e == OK ? node->loaded : next;
        if (e == OK) {
            node->loaded = next;
            sink_set_level(node->sink, level_of(&next->config));
        }
        loaded_free(old);
    }
    io_mutex_unlock(&node->reload_mutex);
    stat_add(e == OK ? STAT_NODE_RELOADS : STAT_NODE_RELOADS_FAILED, 1);
    if (e == OK)
        diag(DIAG_INFO, "configuration reloaded", "%s", "");
    else
        report_refusal(at);
    return e;
}

void node_close(struct node *node)
{
    if (node == NULL)
        return;
    if (node->cluster != NULL)
        cluster_node_leave(node->cluster);
    if (node->server != NULL) {
        diag(DIAG_INFO, "stopping: no more connections, running requests end", "drain_ms_max=%d",
             NODE_DRAIN_MS);
        net_server_close(node->server, NODE_DRAIN_MS);
    }
    if (node->scrape != NULL)
        scrape_close(node->scrape);
    if (node->cluster != NULL) /* its own answers that were given up may still have the workers of queries */
        cluster_node_stop(node->cluster);
    if (node->queries != NULL)
        query_service_close(node->queries);
    if (node->ingest != NULL)
        ingest_close(node->ingest);
    if (node->shards != NULL)
        shards_close(node->shards);
    if (node->log != NULL && node->cluster == NULL)
        log_close(node->log);
    if (node->blob != NULL && node->cluster == NULL)
        blob_close(node->blob);
    cluster_node_close(node->cluster);
    identity_close(node->lock);
    if (node->server != NULL)
        diag(DIAG_INFO, "stopped", "%s", "");
    loaded_free(node->loaded);
    pool_close(node->query_pool);
    sink_close(node->sink);
    if (node->io != NULL)
        io_close(node->io);
    if (node->cwd != NULL)
        io_close(node->cwd);
    io_mutex_done(&node->reload_mutex);
    pool_close(node->pool);
}
