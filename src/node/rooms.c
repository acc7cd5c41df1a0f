/* What a node gives its rooms of its configuration, and what they refuse of it. See rooms.h.
 *
 * From: the configuration as loaded.h read it. To: the rooms' config structs, before a node opens them and when it
 * reads its configuration again; and `kelpie serve --check-config`, which opens none. */
#include "node/rooms.h"

#include "ingest/ingest.h"
#include "node/loaded.h"
#include "node/node.h"

#define MEMORY_BYTES_MIN (256u << 20)

uint64_t rooms_memory(struct io *io, const struct config *config)
{
    uint64_t machine = io_memory_bytes(io);
    uint64_t budget = config->memory_budget != 0 ? config->memory_budget : machine / 10 * 6;
    return budget < MEMORY_BYTES_MIN ? MEMORY_BYTES_MIN : budget;
}

struct shards_config rooms_shards(uint64_t memory_bytes, const struct identity *identity,
                                  const struct config *config)
{
    struct shards_config shards = shards_config_default(memory_bytes);
    shards.partition_count = identity->partition_count;
    shards.range_bytes_max = identity->range_bytes_max;
    shards.retention_ms = config->retention_ms;
    shards.compact = config->compaction;
    shards.cut_age_ms = config->cut_age_ms;
    shards.idle_ms = config->idle_cut_ms;
    shards.thread_count = (uint32_t)config->background_threads;
    shards.is_shared = shards.starts_closed = identity->is_member;
    if (config->head_rows_max != 0)
        shards.head_rows_max = config->head_rows_max;
    return shards;
}

/* What rooms refuse when a node opens them, which reading does not know. */
static err check_rooms(struct io *io, const struct loaded *loaded, struct err_at *at)
{
    const struct identity identity = { .partition_count = NODE_PARTITIONS_MIN,
                                       .range_bytes_max = SHARD_RANGE_BYTES_MAX_DEFAULT };
    struct shards_config shards = rooms_shards(rooms_memory(io, &loaded->config), &identity, &loaded->config);
    struct ingest_config ingest = ingest_config_default();
    struct ingest_tenant_limits *tenants;
    TRY(shards_config_check(&shards, at));
    ingest.limits = loaded_limits(&loaded->config.limits);
    TRY(loaded_tenants(loaded, loaded->pool, &tenants, &ingest.tenant_count));
    ingest.tenants = tenants;
    return ingest_config_check(&ingest, at);
}

err node_check_config(const struct node_options *options, struct err_at *at)
{
    struct io *cwd;
    struct loaded *loaded;
    TRY(io_open(".", &cwd));
    struct pool *pool = pool_open(NULL, "check", POOL_BYTES_UNLIMITED);
    err e = loaded_read(options, cwd, pool, &loaded, at);
    if (e == OK) {
        e = check_rooms(cwd, loaded, at);
        loaded_free(loaded);
    }
    pool_close(pool);
    io_close(cwd);
    return e;
}
