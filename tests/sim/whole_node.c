/* A node's processes: what cluster_node.c and node.c make of a process, from the same parts in the same order, its
 * threads as fibers, without HTTP. See whole.h.
 *
 *   start ─ control log ─ agent ─ log ─ bucket ─ shards ─ queries ─ opener, sync, join ─ ingest, clients … end
 *
 * Invariant: whatever a process has lies below its pool, and whatever runs for it in its group: it dies at any
 * moment at which one of its fibers waits. */
#include "sim/whole.h"

#include "base/diag.h"
#include "base/stat.h"
#include "cluster/members.h"
#include "node/log_ends.h"
#include "node/retention_guard.h"
#include "sim/pool_tree.h"

#define CLIENTS          2
#define CACHE_BYTES      (64u << 10)
#define LEAVE_MS         (CORE_END_MS + 5000)
#define JUDGE_MS         100 /* between two looks at who decides */
#define RETENTION_MAX_MS (INT64_C(24) * MS_PER_HOUR)

/* ---- what the agent asks for ---- */

static void on_open(void *context, uint32_t partition, uint64_t opening)
{
    struct whole_process *p = context;
    opener_want(p->opener, partition, opening);
}

static void on_close(void *context, uint32_t partition)
{
    struct whole_process *p = context;
    opener_drop(p->opener, partition);
}

static void on_trouble(void *context, const char *why)
{
    struct whole_process *p = context;
    if (why != NULL && whole_is_verbose())
        printf("# %lld ms: node %u: %s\n", (long long)whole_now_ms(), p->node->number, why);
}

static void on_stop(void *context, const char *why, enum core_end end)
{
    struct whole_process *p = context;
    if (whole_is_verbose())
        printf("# %lld ms: node %u ends: %s\n", (long long)whole_now_ms(), p->node->number, why);
    if (end != CORE_LEFT)
        whole_violate(p->node->whole, "node %u ends with an error: %s", p->node->number, why);
    p->has_ended = true;
}

static void on_rank(void *context, uint32_t partition, uint32_t rank, int64_t until_ns)
{
    struct whole_process *p = context;
    if (p->shards != NULL)
        shards_partition_rank(p->shards, partition, rank, until_ns);
}

static struct agent_progress on_progress(void *context, uint32_t partition, uint64_t opening)
{
    struct whole_process *p = context;
    if (!opener_holds(p->opener, partition, opening))
        return (struct agent_progress){ 0 };
    struct shard_status status = shards_partition_status(p->shards, partition);
    struct log_watermarks marks = log_watermarks(p->logs[TOPIC_DATA], partition);
    bool is_closed = status.stage == SHARD_CLOSED || status.stage == SHARD_CLOSING;
    if (is_closed && !p->node->whole->plants.no_opening_again)
        opener_lost(p->opener, partition, opening);
    return (struct agent_progress){ .is_replayed = status.stage == SHARD_OPEN && status.is_replayed,
                                    .applied_offset = status.applied_offset,
                                    .end_offset = marks.end_offset,
                                    .confirmed_ns = marks.confirmed_ns };
}

/* ---- what the opener does ---- */

static bool has_streams(struct whole_process *p)
{
    struct io_dir_entry *entries;
    size_t count;
    struct pool *pool = pool_open(p->pool, "list", POOL_BYTES_UNLIMITED);
    bool has = io_dir_list(p->node->io, "stream", pool, &entries, &count) == OK && count > 0;
    pool_close(pool);
    return has;
}

static err open_partition(void *context, uint32_t partition, struct err_at *at)
{
    struct whole_process *p = context;
    struct whole *w = p->node->whole;
    bool had_streams = has_streams(p);
    err e = shards_partition_open(p->shards, partition, at);
    whole_note(w, e == OK ? EVENT_PARTITION_OPENED : EVENT_OPEN_FAILED, p->node->number, partition);
    if (e == OK && !had_streams && shards_partition_sum(p->shards, partition).next_offset > 0)
        whole_note(w, EVENT_OPENED_FROM_BUCKET, p->node->number, partition);
    return e;
}

static void close_partition(void *context, uint32_t partition)
{
    struct whole_process *p = context;
    shards_partition_close(p->shards, partition);
}

/* ---- parts ---- */

static err open_log(struct whole_process *p, uint32_t topic)
{
    static const struct kafka_client_config client = { .record_bytes_max = 1 << 20,
                                                       .send_bytes_max = 4 << 20,
                                                       .read_bytes_max = 1 << 20,
                                                       .linger_ms = 5,
                                                       .socket_timeout_ms = 5000,
                                                       .delivery_ms_max = 10000 };
    const struct log_kafka_config config = { .cluster_id = "the cluster",
                                             .partition_count = topic == TOPIC_DATA ? PARTITIONS : 1,
                                             .queue_bytes_max = 8 << 20,
                                             .tail_bytes_max = 4 << 20,
                                             .delivery_ms_max = 10000,
                                             .accept_weak_topic = true,
                                             .is_control = topic == TOPIC_CONTROL,
                                             .plants = p->node->whole->plants.kafka };
    struct err_at at = { 0 };
    p->clients[topic] = brokers_sim_client(p->node->whole->brokers, p->node->number, topic, &client);
    TRY(log_kafka_open(&config, p->clients[topic], p->node->io, p->pool, &p->logs[topic]));
    TRY(log_run_thread(p->logs[topic]));
    while (log_kafka_stage(p->logs[topic], &at) != LOG_KAFKA_RUNNING)
        io_sleep_ns(p->node->io, 50 * NS_PER_MS);
    return OK;
}

static void set_number(uint8_t *id, unsigned number)
{
    id[0] = (uint8_t)number;
    id[1] = (uint8_t)(number >> 8);
    id[2] = 1;
}

static err open_agent(struct whole_process *p)
{
    static const struct control_init init = { .partition_count = PARTITIONS,
                                              .replica_count = 2,
                                              .expected_nodes = 3,
                                              .range_bytes_max = 1 << 20,
                                              .settings = { SUSPECT_MS, REPAIR_MS } };
    const struct whole_node *node = p->node;
    struct agent_view view;
    struct agent_config config = { .log = p->logs[TOPIC_CONTROL],
                                   .calls = { net_probe, on_open, on_close, on_trouble, on_stop, on_rank,
                                              on_progress },
                                   .context = p };
    struct core_config *core = &config.core;
    core->init = &init;
    core->holds_back = true;
    set_number(core->init_id, node->life);
    set_number(core->self.process_id, node->life);
    set_number(core->self.disk_id, node->disk << 3 | node->number);
    core->self.name = slice_str(node->name);
    core->self.zone = slice_str(node->zone);
    core->self.address = slice_str(node->address);
    core->self.format_min = core->self.format_max = 1;
    struct agent *agent;
    TRY(agent_open(&config, node->io, p->pool, &agent));
    agent_plant(agent, node->whole->plants.agent);
    p->agent = agent;
    TRY(agent_run_thread(agent));
    do {
        io_sleep_ns(node->io, 50 * NS_PER_MS);
        agent_view(agent, &view);
    } while (!p->has_ended && (!view.has_begun || view.known_ns == INT64_MIN));
    return p->has_ended ? ERR_CLOSED : OK;
}

/* As cluster_stores.c's. */
static bool is_immutable(const char *key)
{
    const char *slash = strchr(key, '/');
    return slash != NULL && (strncmp(slash, "/segment/", 9) == 0 || strncmp(slash, "/state/", 7) == 0);
}

/* The bucket, in half of the lives behind a cache on the local disk. */
static err open_bucket(struct whole_process *p, struct err_at *at)
{
    struct blob_cache_config cache = blob_cache_defaults();
    TRY(bucket_sim_store(p->node->whole->bucket, p->node->number, p->node->io, p->pool, &p->blob));
    if (p->node->whole->seed / 2 % 2 == 0)
        return OK;
    cache.directory = "cache";
    cache.block_bytes = 4096;
    cache.bytes_max = CACHE_BYTES;
    cache.is_immutable = is_immutable;
    return blob_open_cached(p->blob, &cache, p->node->io, p->pool, &p->blob, at);
}

static struct shards_config shard_settings(const struct whole_process *p)
{
    struct shards_config c = shards_config_default(1u << 30);
    c.partition_count = PARTITIONS;
    c.range_bytes_max = 1 << 20;
    c.head_rows_max = 64;
    c.cut_group_count = 4;
    c.cut_age_ms = 90 * MS_PER_SECOND;
    c.idle_ms = 60 * MS_PER_SECOND;
    c.compact_count_min = 3;
    c.chain_base_count = 8;
    c.cache_bytes_max = 4u << 20;
    c.thread_count = 1;
    c.canary = p->node->whole->plants.shard;
    if (p->node->number == 0)
        c.canary |= p->node->whole->plants.shard_of_one;
    c.is_shared = c.starts_closed = true;
    return c;
}

static uint32_t route(void *context, uint32_t partition, uint32_t out_nodes[FANOUT_REPLICA_COUNT_MAX])
{
    struct whole_process *p = context;
    return (uint32_t)routes_of(agent_routes(p->agent), partition, out_nodes);
}

static bool is_own(void *context, uint32_t slot)
{
    struct whole_process *p = context;
    struct agent_view view;
    agent_view(p->agent, &view);
    return view.self.slot == slot;
}

static err open_queries(struct whole_process *p)
{
    struct fanout_config fanout = {
        .partition_count = PARTITIONS,
        .route = route,
        .route_context = p,
        .own = { .source = shards_source(p->shards), .pool = p->pool, .is_own = is_own, .context = p }
    };
    struct query_config queries = query_config_default();
    struct log_ends *ends;
    queries.timeout_ms = 15000;
    net_transport(p, &fanout.transport);
    TRY(fanout_open(&fanout, p->pool, &p->fanout));
    TRY(log_ends_open(p->logs[TOPIC_DATA], PARTITIONS, 7, p->node->io, p->pool, &ends));
    TRY(query_service_open(&queries, p->node->io, fanout_source(p->fanout), p->pool, &p->queries));
    query_service_set_positions(p->queries, log_ends_ask, ends);
    return OK;
}

static uint32_t owners(void *context, uint32_t partition, uint32_t out_slots[SYNC_OWNERS_MAX],
                       uint32_t *out_self)
{
    struct whole_process *p = context;
    return agent_other_owners(p->agent, partition, out_slots, out_self);
}

static void run_sync(void *context)
{
    struct whole_process *p = context;
    while (!p->is_stopping) {
        (void)sync_step(p->sync);
        io_sleep_ns(p->node->io, NS_PER_SECOND);
    }
}

static err open_members(struct whole_process *p)
{
    struct opener_config opener = { .open_partition = open_partition,
                                    .close_partition = close_partition,
                                    .context = p };
    const struct sync_config sync = { .shards = p->shards,
                                      .partition_count = PARTITIONS,
                                      .owners = owners,
                                      .ask = net_ask_sums,
                                      .context = p };
    TRY(opener_open(&opener, p->node->io, p->pool, &p->opener));
    TRY(sync_open(&sync, p->node->io, p->pool, &p->sync));
    p->sync_fiber = fiber_start_joinable(p->group, run_sync, p);
    p->joined_ms = whole_now_ms();
    agent_join(p->agent);
    return OK;
}

static err open_ingest(struct whole_process *p)
{
    struct ingest_config c = ingest_config_default();
    c.partition_count = PARTITIONS;
    c.announce_ms = 10 * MS_PER_MINUTE;
    c.wait_ms_max = 10 * MS_PER_SECOND;
    c.canary = p->node->whole->plants.ingest;
    set_number(c.hash_key, 7);
    TRY(ingest_open(&c, p->node->io, p->logs[TOPIC_DATA], p->pool, &p->ingest));
    for (int i = 0; i < CLIENTS; i++)
        fiber_start(p->group, model_write, p);
    return OK;
}

static err open_all(struct whole_process *p)
{
    struct shards_config shards = shard_settings(p);
    struct err_at at = { 0 };
    TRY(open_log(p, TOPIC_CONTROL));
    TRY(open_agent(p));
    TRY(open_log(p, TOPIC_DATA));
    TRY(open_bucket(p, &at));
    TRY(shards_open(&shards, p->node->io, p->logs[TOPIC_DATA], p->blob, p->pool, &p->shards, &at));
    TRY(shards_run_threads(p->shards));
    TRY(open_queries(p));
    TRY(open_members(p));
    return open_ingest(p);
}

/* ---- its life ---- */

/* In order: hand over, then close what others cannot see; logs and the rest go with the process. */
static void stop(struct whole_process *p)
{
    int64_t end_ns = io_boottime_ns(p->node->io) + LEAVE_MS * NS_PER_MS;
    agent_leave(p->agent);
    while (!p->has_ended && io_boottime_ns(p->node->io) < end_ns)
        io_sleep_ns(p->node->io, 50 * NS_PER_MS);
    if (!p->has_ended)
        whole_violate(p->node->whole, "node %u was told to leave and does not end", p->node->number);
    p->is_ready = false;
    p->is_stopping = true;
    agent_stop(p->agent);
    fiber_join(p->sync_fiber);
    opener_close(p->opener);
    p->opener = NULL;
    while (p->busy_requests > 0) /* queries, of other nodes and its own; they have deadlines */
        io_sleep_ns(p->node->io, 50 * NS_PER_MS);
    struct shards *shards = p->shards;
    p->shards = NULL;
    shards_close(shards);
    whole_note(p->node->whole, EVENT_STOPPED_IN_ORDER, p->node->number, 0);
}

static void main_of(void *context)
{
    struct whole_process *p = context;
    struct retention_guard guard = { 0 };
    err e = open_all(p);
    if (e != OK && whole_is_verbose())
        printf("# %lld ms: node %u cannot start: %s\n", (long long)whole_now_ms(), p->node->number,
               err_text(e));
    p->is_ready = e == OK;
    while (e == OK && !p->has_ended && !p->is_told_to_leave) {
        ingest_step(p->ingest);
        if (!p->node->whole->plants.no_guard)
            retention_guard_step(&guard, p->logs[TOPIC_DATA], p->shards, opener_waits_since_ns(p->opener),
                                 RETENTION_MAX_MS, p->node->io);
        io_sleep_ns(p->node->io, NS_PER_SECOND);
    }
    if (e == OK && !p->has_ended)
        stop(p);
    p->is_over = true;
}

void node_start(struct whole_node *node)
{
    void *at;
    struct pool *pool = pool_open(NULL, "process", POOL_BYTES_UNLIMITED);
    check(pool_zalloc(pool, sizeof(struct whole_process), &at) == OK);
    struct whole_process *p = at;
    p->node = node;
    p->pool = pool;
    p->group = fiber_group_open();
    node->life = ++node->whole->lives;
    check(node->life < LIVES_MAX);
    node->process = p;
    io_sim_run_threads(node->io, p->group);
    fiber_start(p->group, main_of, p);
    whole_note(node->whole, EVENT_START, node->number, node->life);
}

static void end(struct whole_node *node)
{
    struct whole_process *p = node->process;
    node->process = NULL;
    node->whole->ended_ms[node->life] = whole_now_ms();
    node->frozen_until_ms = 0;
    fiber_group_kill(p->group);
    io_sim_run_threads(node->io, NULL);
    for (int i = 0; i < 2; i++)
        if (p->clients[i] != NULL)
            brokers_sim_client_drop(p->clients[i]);
    pool_tree_kill(p->pool);
}

void node_kill(struct whole_node *node, bool is_power)
{
    if (node->process != NULL)
        end(node);
    if (is_power)
        io_sim_crash(node->io, (enum io_sim_keep)whole_below(node->whole, IO_SIM_KEEP_COUNT),
                     test_random_u64(&node->whole->random));
    else
        io_sim_kill(node->io);
}

static void empty(struct whole_node *node, const char *directory, struct pool *pool)
{
    struct io_dir_entry *entries;
    size_t count;
    if (io_dir_list(node->io, directory, pool, &entries, &count) != OK)
        return;
    for (size_t i = 0; i < count; i++) {
        char path[IO_PATH_BYTES_MAX];
        snprintf(path, sizeof path, "%s/%s", directory, entries[i].name);
        check(io_unlink(node->io, path) == OK);
    }
}

void node_wipe(struct whole_node *node)
{
    struct pool *pool = pool_open(NULL, "wipe", POOL_BYTES_UNLIMITED);
    node_kill(node, false);
    empty(node, "stream", pool);
    empty(node, "quarantine", pool);
    empty(node, "cache", pool);
    pool_close(pool);
    node->disk++;
}

void node_freeze(struct whole_node *node, int64_t ms)
{
    struct whole_process *p = node->process;
    if (p == NULL)
        return;
    node->frozen_until_ms = whole_now_ms() + ms;
    fiber_group_freeze(p->group, true);
    for (int i = 0; i < 2; i++)
        if (p->clients[i] != NULL)
            brokers_sim_client_freeze(p->clients[i], true);
}

static void thaw(struct whole_node *node)
{
    struct whole_process *p = node->process;
    node->frozen_until_ms = 0;
    fiber_group_freeze(p->group, false);
    for (int i = 0; i < 2; i++)
        if (p->clients[i] != NULL)
            brokers_sim_client_freeze(p->clients[i], false);
}

bool node_is_alive(const struct whole_node *node)
{
    return node->process != NULL && node->frozen_until_ms == 0;
}

/* ---- what its agent says ---- */

/* Whoever the log has put out decides nothing: also while it is frozen, or hangs. */
static void judge(struct whole_node *node)
{
    struct whole_process *p = node->process;
    struct whole *w = node->whole;
    struct agent_view view;
    if (p == NULL || p->agent == NULL || !p->is_ready)
        return;
    agent_view(p->agent, &view);
    bool decides = agent_may_decide(p->agent);
    bool is_member = view.self.slot != SLOT_NONE,
         is_current = is_member && members_is_current(w->members, view.self);
    if (is_member && !p->was_up)
        whole_note(w, EVENT_JOINED, node->number, view.self.slot);
    p->was_up = p->was_up || is_member;
    if (p->was_deciding && !decides)
        whole_note(w, EVENT_DECIDES_NOT, node->number, 0);
    p->was_deciding = decides;
    if (decides && !is_current)
        whole_violate(w, "node %u was put out, and decides", node->number);
    if (is_member && !is_current && !node->is_zombie)
        whole_note(w, EVENT_ZOMBIE, node->number, view.self.slot);
    node->is_zombie = is_member && !is_current;
}

void node_pass(struct whole_node *node)
{
    struct whole *w = node->whole;
    io_sim_clock_advance(node->io, TICK_MS * NS_PER_MS + TICK_MS * node->drift_ppm);
    if (node->process != NULL && node->frozen_until_ms != 0 && whole_now_ms() >= node->frozen_until_ms)
        thaw(node);
    if (whole_now_ms() % JUDGE_MS == 0)
        judge(node);
    if (node->process != NULL && node->process->is_over) {
        whole_note(w, EVENT_ENDED_ITSELF, node->number, 0);
        node_kill(node, false);
        node->not_before_ms = whole_now_ms() + 1000 + (int64_t)whole_below(w, 5000);
    }
    if (node->process == NULL && whole_now_ms() >= node->not_before_ms)
        node_start(node);
}
