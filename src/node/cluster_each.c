/* See cluster_each.h. */
#include "node/cluster_each.h"

#include "io/thread.h"

struct crew {
    struct cluster_each *each;
    _Atomic uint32_t next;
    struct io_mutex lock; /* the two below */
    err first;
    struct err_at *at;
};

static void keep_first(struct crew *crew, err e, const struct err_at *at)
{
    io_mutex_lock(&crew->lock);
    if (crew->first == OK) {
        crew->first = e;
        if (crew->at != NULL)
            *crew->at = *at;
    }
    io_mutex_unlock(&crew->lock);
    atomic_store(&crew->each->cancel, true);
}

static void work(void *context)
{
    struct crew *crew = context;
    struct cluster_each *each = crew->each;
    for (uint32_t p;
         !atomic_load(&each->cancel) && (p = atomic_fetch_add(&crew->next, 1)) < each->partition_count;) {
        struct err_at at = { 0 };
        err e = each->run(each->context, p, &at);
        if (e != OK)
            keep_first(crew, e, &at);
    }
}

err cluster_each(struct cluster_each *each, struct io *io, struct err_at *at)
{
    struct crew crew = { .each = each, .at = at };
    struct io_thread *threads[CLUSTER_EACH_THREADS];
    uint32_t started = 0;
    io_mutex_init(&crew.lock);
    while (started < CLUSTER_EACH_THREADS - 1 && started + 1 < each->partition_count &&
           io_thread_start(io, "partition", work, &crew, &threads[started]) == OK)
        started++;
    work(&crew); /* the caller's is one of them, and enough */
    while (started > 0)
        io_thread_join(threads[--started]);
    io_mutex_done(&crew.lock);
    return crew.first;
}

struct shards_config cluster_shards_of(const struct cluster_mark *mark, const char *store_name, struct io *io)
{
    struct shards_config config = shards_config_default(io_memory_bytes(io) / 2);
    config.partition_count = mark->partition_count;
    config.range_bytes_max = mark->range_bytes_max;
    config.blob_directory = store_name;
    config.is_shared = true;
    return config;
}

struct cluster_total cluster_total_of(const struct shard_facts *facts, uint32_t partition_count)
{
    struct cluster_total total = { .oldest_ms = INT64_MAX, .newest_ms = INT64_MIN };
    for (uint32_t i = 0; i < partition_count; i++) {
        const struct shard_facts *f = &facts[i];
        total.segments += f->segment_count;
        total.bytes += f->segment_bytes;
        total.rows += f->row_count;
        total.damages += f->damage_count;
        total.empty += f->data_through_ms == INT64_MIN;
        if (f->data_through_ms == INT64_MIN)
            continue;
        total.oldest_ms = f->data_through_ms < total.oldest_ms ? f->data_through_ms : total.oldest_ms;
        total.newest_ms = f->data_through_ms > total.newest_ms ? f->data_through_ms : total.newest_ms;
    }
    return total;
}
