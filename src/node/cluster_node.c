/* See cluster_node.h.
 *
 * Data comes from: the agent, which says what to open, whom to probe, which rank a partition has here; the
 * HTTP server with requests of other nodes; the owner's thread, which waits in cluster_node_begin. It goes to
 * the shards, to the prober, to the log of the control topic.
 *
 * Invariants
 *   1. The node joins only when the log, the bucket and the cluster were found to belong together: until then
 *      nothing is assigned to it that it could not hold.
 *   2. `shards` is set before the first partition can be asked for, and not looked at after cluster_node_stop.
 *   3. What is waited for is told: in `why`, which the answers of /-/ready show, and now and then on standard
 *   error.
 *   4. A topic is created only by a founder, for a bucket without CLUSTER, and the log's only while nothing was
 *      ever assigned: a topic that is lost later is never replaced by an empty one, but by a restore. */
#include "node/cluster_node.h"

#include "base/diag.h"
#include "base/stat.h"
#include "base/time.h"
#include "io/thread.h"
#include "model/token.h"
#include "node/cluster_mark.h"
#include "node/cluster_node_inside.h"

#include <stdio.h>
#include <string.h>

#define LOOK_MS     50    /* between two looks at what is waited for */
#define TELL_MS     10000 /* between two words about it */
#define FOUND_MS    10000 /* a topic's creation, once */
#define BUCKET_MS   2000  /* between two tries to open the bucket */
#define LEAVE_MS    (CORE_END_MS + 5000)
#define MEMORY_PART 16
#define ANSWERS_PART \
    8 /* of the node's memory, for answers to other nodes, and as much for theirs on their way */
#define MEMBER_FORMAT 1 /* of what this version reads and writes */

/* ---- what is waited for ---- */

struct waiting {
    struct cluster_node *cluster;
    const char *for_what;
    int64_t told_ns;
};

static void set_why(struct cluster_node *cluster, const char *format, const char *what, const char *text)
{
    io_mutex_lock(&cluster->lock);
    snprintf(cluster->why, sizeof cluster->why, format, what, text);
    io_mutex_unlock(&cluster->lock);
}

static struct waiting wait_for(struct cluster_node *cluster, const char *for_what)
{
    set_why(cluster, "%s%s", for_what, "");
    return (struct waiting){ cluster, for_what, INT64_MIN };
}

/* ERR_CLOSED: the agent has ended, with its reason in at. */
static err check_ended(struct cluster_node *cluster, struct err_at *at)
{
    io_mutex_lock(&cluster->lock);
    err e = cluster->has_ended ? err_set(at, ERR_CLOSED, "%s", cluster->ended_why) : OK;
    io_mutex_unlock(&cluster->lock);
    return e;
}

/* Sleep a while. ERR_CLOSED: the agent has ended meanwhile, with its reason in at. */
static err wait_on(struct waiting *waiting, int64_t ms, const char *text, struct err_at *at)
{
    struct cluster_node *cluster = waiting->cluster;
    int64_t now_ns = io_boottime_ns(cluster->io);
    TRY(check_ended(cluster, at));
    set_why(cluster, text[0] != 0 ? "%s: %s" : "%s%s", waiting->for_what, text);
    if (waiting->told_ns == INT64_MIN)
        waiting->told_ns = now_ns;
    if (now_ns - waiting->told_ns >= TELL_MS * NS_PER_MS) {
        waiting->told_ns = now_ns;
        diag(DIAG_WARN, "still waiting", "for=\"%s\" why=\"%s\"", waiting->for_what, text);
    }
    io_sleep_ns(cluster->io, ms * NS_PER_MS);
    return OK;
}

/* Will the next try be answered otherwise without a person's help? */
static bool passes(err e) { return e == ERR_IO || e == ERR_TIMEOUT || e == ERR_BUSY; }

/* ---- what the agent asks for: its thread ---- */

static void on_probe(void *context, const struct agent_probe *probe)
{
    struct cluster_node *cluster = context;
    prober_ask(cluster->prober, probe);
}

static void on_open(void *context, uint32_t partition, uint64_t opening)
{
    struct cluster_node *cluster = context;
    opener_want(cluster->opener, partition, opening);
}

static void on_close(void *context, uint32_t partition)
{
    struct cluster_node *cluster = context;
    opener_drop(cluster->opener, partition);
}

static void on_trouble(void *context, const char *why)
{
    struct cluster_node *cluster = context;
    if (why != NULL)
        diag(DIAG_WARN, "this node is no member of the cluster", "why=\"%s\"", why);
    set_why(cluster, "%s%s", why != NULL ? why : "", "");
}

static void on_stop(void *context, const char *why, enum core_end end)
{
    struct cluster_node *cluster = context;
    diag(end != CORE_LEFT ? DIAG_ERROR : DIAG_INFO, "this node's part in the cluster has ended", "why=\"%s\"",
         why);
    set_why(cluster, "%s%s", why, "");
    io_mutex_lock(&cluster->lock);
    snprintf(cluster->ended_why, sizeof cluster->ended_why, "%s", why);
    cluster->has_ended = true;
    cluster->end = end;
    io_mutex_unlock(&cluster->lock);
}

static void on_rank(void *context, uint32_t partition, uint32_t rank, int64_t until_ns)
{
    struct cluster_node *cluster = context;
    if (cluster->shards != NULL)
        shards_partition_rank(cluster->shards, partition, rank, until_ns);
}

static struct agent_progress on_progress(void *context, uint32_t partition, uint64_t opening)
{
    struct cluster_node *cluster = context;
    if (!opener_holds(cluster->opener, partition, opening))
        return (struct agent_progress){ 0 };
    struct shard_status status = shards_partition_status(cluster->shards, partition);
    struct log_watermarks marks = log_watermarks(cluster->log, partition);
    if (status.stage == SHARD_CLOSED || status.stage == SHARD_CLOSING)
        opener_lost(cluster->opener, partition, opening);
    return (struct agent_progress){ .is_replayed = status.stage == SHARD_OPEN && status.is_replayed,
                                    .applied_offset = status.applied_offset,
                                    .end_offset = marks.end_offset,
                                    .confirmed_ns = marks.confirmed_ns };
}

static void on_heard(void *context, struct member_id id)
{
    struct cluster_node *cluster = context;
    if (atomic_load(&cluster->has_agent))
        agent_heard(cluster->agent, id);
}

/* ---- what the opener does: its threads ---- */

static err open_partition(void *context, uint32_t partition, struct err_at *at)
{
    struct cluster_node *cluster = context;
    return shards_partition_open(cluster->shards, partition, at);
}

static void close_partition(void *context, uint32_t partition)
{
    struct cluster_node *cluster = context;
    shards_partition_close(cluster->shards, partition);
}

static void abort_bucket(void *context)
{
    struct cluster_node *cluster = context;
    atomic_store(&cluster->is_aborting, true);
}

/* ---- opening ---- */

static err open_prober(struct cluster_node *cluster)
{
    const struct secrets *secrets = cluster->config.secrets;
    struct prober_config config = {
        .secret = secrets->cluster, .is_tls = cluster->config.is_tls, .heard = on_heard, .context = cluster
    };
    if (secrets->cluster_ca_file.len > 0)
        config.tls.ca_file = (const char *)secrets->cluster_ca_file.at;
    return prober_open(&config, cluster->io, cluster->pool, &cluster->prober);
}

err cluster_node_open(const struct cluster_node_config *config, struct io *io, struct pool *pool,
                      struct cluster_node **out_cluster)
{
    struct pool *own;
    void *room;
    TRY(pool_open_object(pool, "cluster", sizeof(struct cluster_node), &own, &room));
    struct cluster_node *cluster = room;
    cluster->io = io;
    cluster->pool = own;
    cluster->config = *config;
    cluster->settings = *config->cluster;
    cluster->config.cluster = &cluster->settings;
    cluster->config.secrets = &cluster->secrets;
    io_mutex_init(&cluster->lock);
    err e = secrets_copy(config->secrets, own, &cluster->secrets);
    if (e == OK)
        e = open_prober(cluster);
    if (e == OK)
        *out_cluster = cluster;
    else
        cluster_node_close(cluster);
    return e;
}

/* ---- begin: whose directory and bucket ---- */

static bool is_none(const struct cluster_mark *mark)
{
    static const uint8_t none[sizeof mark->cluster_id];
    return memcmp(mark->cluster_id, none, sizeof none) == 0;
}

static err open_bucket(struct cluster_node *cluster, struct err_at *at)
{
    struct waiting waiting = wait_for(cluster, "the bucket");
    for (;;) {
        struct err_at why = { 0 };
        struct pool *pool = pool_open(cluster->pool, "bucket", POOL_BYTES_UNLIMITED);
        err e = cluster_bucket_open(cluster->config.cluster, cluster->config.secrets,
                                    cluster->config.free_bytes_min, &cluster->is_aborting, cluster->io, pool,
                                    &cluster->bucket, &why);
        cluster->bucket_pool = pool;
        if (e == OK)
            return OK;
        cluster->bucket_pool = NULL;
        pool_close(pool);
        if (!passes(e))
            return err_set(at, e, "bucket %s: %s", cluster->config.cluster->s3.bucket, why.text);
        TRY(wait_on(&waiting, BUCKET_MS, why.text, at));
    }
}

/* The bucket is away: why, and wait on. */
static err wait_on_bucket(struct waiting *waiting, err e, struct err_at *at)
{
    struct err_at last = { 0 };
    blob_s3_last_failure(waiting->cluster->bucket.bucket, &last);
    return wait_on(waiting, BUCKET_MS, last.text[0] != 0 ? last.text : err_text(e), at);
}

/* The directory's mark; of a cluster that was restored since it was written the bucket's, which knows the topics
 * that were made anew. Where there is neither, this node may found a cluster. */
static err find_mark(struct cluster_node *cluster, struct cluster_mark *out_mark, struct err_at *at)
{
    struct waiting waiting = wait_for(cluster, "the bucket");
    struct cluster_mark bucket = { 0 };
    TRY(cluster_mark_load(cluster->io, cluster->pool, out_mark, at));
    TRY(open_bucket(cluster, at));
    err e;
    while (passes(e = cluster_mark_find(cluster->bucket.store, cluster->pool, &bucket, at)))
        TRY(wait_on_bucket(&waiting, e, at));
    cluster->is_founder = is_none(out_mark) && e == ERR_NOT_FOUND && cluster->config.cluster->expect > 0;
    if (e != OK)
        return e == ERR_NOT_FOUND ? OK : e;
    if (bucket.is_unfinished)
        return cluster_mark_check(&bucket, &bucket, "the bucket", at);
    if (memcmp(bucket.cluster_id, out_mark->cluster_id, sizeof bucket.cluster_id) != 0)
        return OK; /* check_bucket says what is wrong, if the directory has a mark */
    struct err_at why = { 0 };
    if (cluster_mark_check(out_mark, &bucket, "the data directory", &why) != OK)
        diag(
            DIAG_INFO,
            "The cluster was restored since this node ran; it goes on with the topics that the bucket names.",
            "directory=\"%s\"", why.text);
    *out_mark = bucket;
    return OK;
}

/* ---- begin: the control log ---- */

/* Create the topic, as long as brokers are away. */
static err found(struct cluster_node *cluster, const struct log_kafka_settings *settings, struct err_at *at)
{
    const struct config_kafka *k = &cluster->config.cluster->kafka;
    struct waiting waiting = wait_for(cluster, "brokers, to create a topic");
    for (;;) {
        struct err_at why = { 0 };
        err e = log_kafka_found(settings, (uint32_t)k->replicas, k->retention_ms, FOUND_MS, cluster->io,
                                cluster->pool, &why);
        if (e == OK)
            return OK;
        if (!passes(e))
            return err_set(at, e, "topic %s: %s", settings->topic, why.text);
        TRY(wait_on(&waiting, LOOK_MS, why.text, at));
    }
}

/* Connect, and wait until the topic is there and fit. */
static err connect(struct cluster_node *cluster, const struct log_kafka_settings *settings,
                   const char *for_what, struct log **out_log, struct err_at *at)
{
    struct waiting waiting = wait_for(cluster, for_what);
    TRY(log_kafka_connect(settings, cluster->io, cluster->pool, out_log, at));
    TRY(log_run_thread(*out_log));
    for (;;) {
        struct err_at why = { 0 };
        enum log_kafka_stage stage = log_kafka_stage(*out_log, &why);
        if (stage == LOG_KAFKA_RUNNING)
            return OK;
        if (stage == LOG_KAFKA_REFUSED)
            return err_set(at, ERR_CONFLICT, "topic %s: %s", settings->topic, why.text);
        TRY(wait_on(&waiting, LOOK_MS, why.text, at));
    }
}

static err open_agent(struct cluster_node *cluster, const struct cluster_mark *mark)
{
    const struct config_cluster *c = cluster->config.cluster;
    struct control_init init = cluster_init(c, cluster->io);
    struct agent_config config = { .log = cluster->control,
                                   .calls = { on_probe, on_open, on_close, on_trouble, on_stop, on_rank,
                                              on_progress },
                                   .context = cluster };
    struct core_config *core = &config.core;
    memcpy(core->cluster_id, mark->cluster_id, sizeof core->cluster_id);
    core->init = cluster->is_founder ? &init : NULL;
    core->holds_back = true;
    io_random(cluster->io, core->init_id, sizeof core->init_id);
    core->self.name = slice_str(c->name);
    core->self.zone = slice_str(c->zone);
    core->self.address = slice_str(c->address);
    core->self.format_min = core->self.format_max = MEMBER_FORMAT;
    memcpy(core->self.disk_id, cluster->config.disk_id, sizeof core->self.disk_id);
    io_random(cluster->io, core->self.process_id, sizeof core->self.process_id);
    TRY(agent_open(&config, cluster->io, cluster->pool, &cluster->agent));
    atomic_store(&cluster->has_agent, true);
    err e = agent_run_thread(cluster->agent);
    if (e != OK) /* nobody would ever say that it has left */
        on_stop(cluster, "its thread could not be started", CORE_FAILED);
    return e;
}

/* A broker that has not heard yet that the topic is gone lets a node connect: what the others say is told. */
static err await_beginning(struct cluster_node *cluster, const char *for_what, struct agent_view *out_view,
                           struct err_at *at)
{
    struct waiting waiting = wait_for(cluster, "the control log");
    for (;;) {
        struct err_at why = { 0 };
        agent_view(cluster->agent, out_view);
        TRY(check_ended(cluster, at));
        if (out_view->has_begun && out_view->known_ns != INT64_MIN)
            return OK;
        log_kafka_stage(cluster->control, &why);
        bool is_known = why.text[0] == 0;
        waiting.for_what = is_known ? "the control log" : for_what;
        TRY(wait_on(&waiting, LOOK_MS, is_known ? out_view->trouble : why.text, at));
    }
}

/* ---- begin: the bucket ---- */

/* What is in the bucket, put there if nothing is and the cluster is new: one that has written already has its
 * mark, and another bucket than its own is a mistake. */
static err mark_bucket(struct cluster_node *cluster, const struct cluster_mark *seen, bool is_new,
                       struct cluster_mark *out_mark, struct err_at *at)
{
    uint8_t bytes[CLUSTER_MARK_BYTES];
    err e = cluster_mark_find(cluster->bucket.store, cluster->pool, out_mark, at);
    if (e != ERR_NOT_FOUND || !is_new)
        return e;
    cluster_mark_encode(seen, bytes);
    e = blob_put(cluster->bucket.store, CLUSTER_MARK_NAME, slice_of(bytes, sizeof bytes));
    if (e != OK && e != ERR_EXISTS)
        return err_set(at, e, "the bucket's %s cannot be written: %s", CLUSTER_MARK_NAME, err_text(e));
    return cluster_mark_find(cluster->bucket.store, cluster->pool, out_mark, at);
}

static err check_bucket(struct cluster_node *cluster, const struct cluster_mark *seen, bool is_new,
                        struct err_at *at)
{
    struct waiting waiting = wait_for(cluster, "the bucket");
    struct cluster_mark found_mark;
    err e;
    while (passes(e = mark_bucket(cluster, seen, is_new, &found_mark, at)))
        TRY(wait_on_bucket(&waiting, e, at));
    if (e == ERR_NOT_FOUND)
        return err_set(
            at, ERR_CONFLICT,
            "the bucket has no %s: it is another one than the cluster's, another prefix, or was emptied",
            CLUSTER_MARK_NAME);
    return e == OK ? cluster_mark_check(&found_mark, seen, "the bucket", at) : e;
}

/* The data directory is of this cluster, by its mark; or it has none. */
static err check_directory(const struct cluster_mark *mark, const struct cluster_mark *seen,
                           struct err_at *at)
{
    return is_none(mark) ? OK : cluster_mark_check(mark, seen, "the data directory", at);
}

/* ---- begin ---- */

static err begin_control(struct cluster_node *cluster, const struct cluster_mark *mark,
                         struct agent_view *out_view, struct err_at *at)
{
    struct log_kafka_settings settings =
        cluster_control_settings(cluster->config.cluster, cluster->config.secrets);
    memcpy(settings.topic_id, mark->control_topic_id, sizeof settings.topic_id);
    const char *for_what =
        cluster->is_founder || is_none(mark)
            ? "the control log's topic (a node with cluster.expect and a new bucket creates it)"
            : "the control log's topic (if it is gone for good: kelpie cluster restore)";
    if (cluster->is_founder)
        TRY(found(cluster, &settings, at));
    TRY(connect(cluster, &settings, for_what, &cluster->control, at));
    TRY(open_agent(cluster, mark));
    return await_beginning(cluster, for_what, out_view, at);
}

static err begin_log(struct cluster_node *cluster, const struct cluster_mark *mark,
                     const struct agent_view *view, struct err_at *at)
{
    struct log_kafka_settings settings =
        cluster_log_settings(cluster->config.cluster, cluster->config.secrets);
    settings.partition_count = view->init.partition_count;
    settings.bytes_max = cluster->config.memory_bytes / MEMORY_PART;
    memcpy(settings.cluster_id, view->cluster_id, sizeof settings.cluster_id);
    memcpy(settings.topic_id, mark->topic_id, sizeof settings.topic_id);
    if (cluster->is_founder && !view->is_assigned)
        TRY(found(cluster, &settings, at));
    return connect(cluster, &settings, "the log's topic", &cluster->log, at);
}

err cluster_node_begin(struct cluster_node *cluster, struct identity *identity, struct err_at *at)
{
    struct cluster_mark mark, seen;
    struct agent_view view;
    TRY(find_mark(cluster, &mark, at));
    TRY(begin_control(cluster, &mark, &view, at));
    TRY(begin_log(cluster, &mark, &view, at));
    seen = cluster_mark_of(view.cluster_id, &view.init);
    log_kafka_topic_id(cluster->control, seen.control_topic_id);
    log_kafka_topic_id(cluster->log, seen.topic_id);
    TRY(check_directory(&mark, &seen, at));
    TRY(check_bucket(cluster, &seen, !view.is_assigned, at));
    TRY(cluster_mark_save(cluster->io, &seen, at));
    set_why(cluster, "%s%s", "its storage to open", "");
    cluster->replica_count = view.init.replica_count;
    cluster->partition_count = view.init.partition_count;
    identity->partition_count = view.init.partition_count;
    identity->range_bytes_max = view.init.range_bytes_max;
    memcpy(identity->hash_key, view.init.hash_key, sizeof identity->hash_key);
    memcpy(identity->cluster_id, view.cluster_id, sizeof identity->cluster_id);
    return OK;
}

struct log *cluster_node_log(struct cluster_node *cluster) { return cluster->log; }
struct blob *cluster_node_blob(struct cluster_node *cluster) { return cluster->bucket.store; }

/* ---- queries ---- */

static uint32_t route(void *context, uint32_t partition, uint32_t out_nodes[FANOUT_REPLICA_COUNT_MAX])
{
    struct cluster_node *cluster = context;
    _Static_assert(CLUSTER_REPLICAS_MAX <= FANOUT_REPLICA_COUNT_MAX, "a node for each replica");
    return (uint32_t)routes_of(agent_routes(cluster->agent), partition, out_nodes);
}

static bool find_node(void *context, uint32_t node, struct fanout_http_node *out_node)
{
    struct cluster_node *cluster = context;
    struct route_node found;
    if (!routes_node(agent_routes(cluster->agent), node, &found))
        return false;
    _Static_assert(sizeof found.address <= sizeof out_node->address, "an address fits");
    memcpy(out_node->address, found.address, sizeof found.address);
    out_node->slot = found.id.slot;
    out_node->incarnation = found.id.incarnation;
    return true;
}

static void tell_self(void *context, struct rpc_head *out_head)
{
    struct cluster_node *cluster = context;
    struct agent_view view;
    agent_view(cluster->agent, &view);
    *out_head = (struct rpc_head){ .slot = view.self.slot,
                                   .incarnation = view.self.incarnation,
                                   .epoch = view.epoch };
    memcpy(out_head->cluster_id, view.cluster_id, sizeof out_head->cluster_id);
}

/* Is it this node, in this life? */
static bool is_own(void *context, uint32_t node)
{
    struct cluster_node *cluster = context;
    struct agent_view view;
    struct route_node found;
    agent_view(cluster->agent, &view);
    return view.self.slot == node && routes_node(agent_routes(cluster->agent), node, &found) &&
           found.id.incarnation == view.self.incarnation;
}

static err open_asking(struct cluster_node *cluster, struct source *own)
{
    const struct secrets *secrets = cluster->config.secrets;
    struct fanout_http_config http = { .secret = secrets->cluster,
                                       .is_tls = cluster->config.is_tls,
                                       .self = tell_self,
                                       .find = find_node,
                                       .context = cluster };
    struct fanout_config fanout = {
        .partition_count = cluster->partition_count,
        .route = route,
        .route_context = cluster,
        .own = { .source = own, .pool = cluster->answers_pool, .is_own = is_own, .context = cluster }
    };
    if (secrets->cluster_ca_file.len > 0)
        http.tls.ca_file = (const char *)secrets->cluster_ca_file.at;
    cluster->asking_pool = pool_open(cluster->pool, "asking", cluster->config.memory_bytes / ANSWERS_PART);
    TRY(fanout_http_open(&http, cluster->io, cluster->asking_pool, &cluster->http));
    fanout_http_transport(cluster->http, &fanout.transport);
    return fanout_open(&fanout, cluster->pool, &cluster->fanout);
}

err cluster_node_attach(struct cluster_node *cluster, struct source *own, struct cluster_queries *out_queries)
{
    struct fanout_answers_config answers = {
        .secret = cluster->config.secrets->cluster, .source = own, .self = tell_self, .context = cluster
    };
    cluster->answers_pool = pool_open(cluster->pool, "answers", cluster->config.memory_bytes / ANSWERS_PART);
    TRY(fanout_answers_open(&answers, cluster->io, cluster->answers_pool, &cluster->answers));
    atomic_store(&cluster->has_answers, true);
    TRY(open_asking(cluster, own));
    struct agent_view view;
    agent_view(cluster->agent, &view);
    TRY(log_ends_open(cluster->log, cluster->partition_count, token_seed(view.cluster_id), cluster->io,
                      cluster->pool, &cluster->ends));
    *out_queries = (struct cluster_queries){ .source = fanout_source(cluster->fanout),
                                             .positions = log_ends_ask,
                                             .positions_context = cluster->ends };
    return OK;
}

void cluster_node_set_runner(struct cluster_node *cluster, const struct promql_runner *runner)
{
    fanout_answers_set_runner(cluster->answers, runner);
    fanout_set_runner(cluster->fanout, runner);
}

static err open_sync(struct cluster_node *cluster)
{
    const struct secrets *secrets = cluster->config.secrets;
    struct cluster_sync_config config = { .secret = secrets->cluster,
                                          .is_tls = cluster->config.is_tls,
                                          .agent = cluster->agent,
                                          .shards = cluster->shards,
                                          .bucket = cluster->bucket.bucket,
                                          .partition_count = cluster->partition_count };
    if (secrets->cluster_ca_file.len > 0)
        config.tls.ca_file = (const char *)secrets->cluster_ca_file.at;
    TRY(cluster_sync_open(&config, cluster->io, cluster->pool, &cluster->sync));
    atomic_store(&cluster->has_sync, true);
    return OK;
}

err cluster_node_join(struct cluster_node *cluster, struct shards *shards)
{
    struct opener_config config = { .open_partition = open_partition,
                                    .close_partition = close_partition,
                                    .abort = abort_bucket,
                                    .context = cluster };
    cluster->shards = shards;
    TRY(opener_open(&config, cluster->io, cluster->pool, &cluster->opener));
    TRY(open_sync(cluster));
    set_why(cluster, "%s%s", "", "");
    cluster->joined_ns = io_boottime_ns(cluster->io);
    atomic_store(&cluster->is_joined, true);
    agent_join(cluster->agent);
    return OK;
}

/* ---- the end ---- */

void cluster_node_leave(struct cluster_node *cluster)
{
    enum core_end end;
    int64_t end_ns = io_boottime_ns(cluster->io) + LEAVE_MS * NS_PER_MS;
    if (cluster->agent != NULL)
        agent_leave(cluster->agent);
    while (cluster->agent != NULL && !cluster_node_has_ended(cluster, &end) &&
           io_boottime_ns(cluster->io) < end_ns)
        io_sleep_ns(cluster->io, LOOK_MS * NS_PER_MS);
    atomic_store(&cluster->is_aborting, true); /* what is still to be written goes to the local disk */
}

void cluster_node_stop(struct cluster_node *cluster)
{
    if (cluster->agent != NULL)
        agent_stop(cluster->agent);
    cluster_sync_stop(cluster->sync); /* sweeps ask it until the shards are closed */
    prober_close(cluster->prober);
    cluster->prober = NULL;
    opener_close(cluster->opener);
    cluster->opener = NULL;
    fanout_http_close(cluster->http);
    cluster->http = NULL;
    fanout_answers_close(cluster->answers);
    cluster->answers = NULL;
    pool_close(cluster->asking_pool);
    pool_close(cluster->answers_pool);
    cluster->asking_pool = cluster->answers_pool = NULL;
}

void cluster_node_close(struct cluster_node *cluster)
{
    if (cluster == NULL)
        return;
    prober_close(cluster->prober);
    cluster_sync_close(cluster->sync);
    if (cluster->log != NULL)
        log_close(cluster->log);
    log_ends_close(cluster->ends); /* its markers are answered now */
    if (cluster->control != NULL)
        log_close(cluster->control); /* answers every append of the agent's */
    if (cluster->agent != NULL)
        agent_close(cluster->agent);
    if (cluster->bucket.store != NULL)
        blob_close(cluster->bucket.store);
    if (cluster->bucket_pool != NULL)
        pool_close(cluster->bucket_pool);
    io_mutex_done(&cluster->lock);
    pool_close(cluster->pool);
}
