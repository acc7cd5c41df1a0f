/* Live segments: opened at first use, shared by queries and merges, deleted when replaced and unused.
 *
 * Invariants
 *  1. A segment's object is deleted only when it is doomed (an entry that no longer names it is durable) and the
 *     last reference is gone.
 *  2. A segment that cannot be opened is never asked again; answers name its times. One with a damaged block is:
 *     answers that need the block name it each time, those that do not are complete. That it is damaged is known
 *     from the first read on: counted, told once, no input of a merge.
 *     What a checksum finds wrong is read once more where that may help (object.c), until it is known so.
 *  3. Tables of open segments are within one budget. Whoever has a reader of a segment has a reference, so that
 *     one without references but the partition's can be closed. */
#include "shard/partition.h"

#include "base/diag.h"
#include "base/stat.h"

err live_segment_open(struct shards *shards, uint32_t partition, const struct chain_segment *facts,
                      struct live_segment **out_segment)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(shards->pool, "segment", sizeof(struct live_segment), &pool, &at));
    struct live_segment *segment = at;
    segment->references = 1;
    segment->shards = shards;
    segment->partition = partition;
    segment->facts = *facts;
    segment->pool = pool;
    io_mutex_init(&segment->lock);
    *out_segment = segment;
    return OK;
}

struct live_segment *live_segment_ref(struct live_segment *segment)
{
    atomic_fetch_add_explicit(&segment->references, 1, memory_order_relaxed);
    return segment;
}

/* Under the lock, or by the last reference. */
static void close_locked(struct live_segment *segment)
{
    metric_compact_close(segment->compact);
    blob_handle_close(segment->handle);
    pool_close(segment->opened);
    segment->compact = NULL;
    segment->handle = NULL;
    segment->opened = NULL;
}

void live_segment_unref(struct live_segment *segment)
{
    if (segment == NULL || atomic_fetch_sub_explicit(&segment->references, 1, memory_order_acq_rel) != 1)
        return;
    close_locked(segment);
    if (atomic_load(&segment->is_doomed) && !segment->shards->config.is_shared) {
        char key[SHARD_KEY_BYTES_MAX];
        segment_key(segment->partition, segment->facts.digest, segment->facts.era, key);
        /* A failure leaves an object that nothing names; the next start removes it. */
        ERR_IGNORE(blob_delete(segment->shards->blob, key));
    }
    io_mutex_done(&segment->lock);
    pool_close(segment->pool);
}

/* As object_source, but a segment that is known to be damaged is not doubted again: each question would
 * forget, and fetch, all of it. */
static err live_read(void *context, uint64_t offset, void *at, size_t len)
{
    const struct live_segment *segment = context;
    return blob_read(segment->handle, offset, at, len);
}

static bool live_doubt(void *context)
{
    const struct live_segment *segment = context;
    char key[SHARD_KEY_BYTES_MAX];
    segment_key(segment->partition, segment->facts.digest, segment->facts.era, key);
    return !atomic_load(&segment->is_damaged) && object_doubt(segment->shards->blob, key);
}

static struct segment_source live_source(struct live_segment *segment)
{
    return (struct segment_source){
        .read = live_read, .doubt = live_doubt, .context = segment, .size = blob_handle_size(segment->handle)
    };
}

/* *out_is_other: with ERR_CORRUPT, it is whole, and not what the chain names. */
static err open_once(struct live_segment *segment, bool *out_is_other, struct err_at *at)
{
    char key[SHARD_KEY_BYTES_MAX];
    err e = OK;
    segment_key(segment->partition, segment->facts.digest, segment->facts.era, key);
    *out_is_other = false;
    segment->opened = pool_open(segment->shards->opened, "segment", POOL_BYTES_UNLIMITED);
    TRY_OUT(blob_open(segment->shards->blob, key, &segment->handle));
    struct segment_source source = live_source(segment);
    *out_is_other = source.size != segment->facts.bytes;
    if (*out_is_other)
        TRY_OUT(err_set(at, ERR_CORRUPT, "the object has another size than the chain says"));
    TRY_OUT(metric_compact_open(source, segment->shards->cache, segment->opened, &segment->compact, at));
    *out_is_other = !sum_equal(metric_compact_info(segment->compact)->sum, segment->facts.sum);
    if (*out_is_other)
        e = err_set(at, ERR_CORRUPT, "the footer's SUM is not the chain's");
out:
    if (e != OK)
        close_locked(segment);
    return e;
}

static err open_locked(struct live_segment *segment, struct err_at *at)
{
    bool is_other;
    err e = open_once(segment, &is_other, at);
    if (is_other && live_doubt(segment))
        e = open_once(segment, &is_other, at);
    return e;
}

/* References to open segments that only their partitions have, without the locks that closing takes. */
static struct live_segment *find_idle(struct shards *shards)
{
    struct live_segment *list = NULL;
    for (uint32_t i = 0; i < shards->config.partition_count; i++) {
        struct partition *p = &shards->partitions[i];
        if (!partition_lock(p))
            continue;
        for (size_t k = 0; k < p->segment_count; k++) {
            if (atomic_load(&p->segments[k]->references) != 1)
                continue;
            struct live_segment *segment = live_segment_ref(p->segments[k]);
            segment->next_idle = list;
            list = segment;
        }
        io_mutex_unlock(&p->lock);
    }
    return list;
}

/* Close open segments that nobody uses: those not used since the last call, or all if there are none. */
static void close_idle(struct shards *shards)
{
    size_t closed = 0;
    io_mutex_lock(&shards->idle_lock);
    for (int pass = 0; pass < 2 && closed == 0; pass++) {
        struct live_segment *list = find_idle(shards);
        while (list != NULL) {
            struct live_segment *segment = list;
            list = segment->next_idle;
            io_mutex_lock(&segment->lock);
            bool is_idle = segment->compact != NULL && atomic_load(&segment->references) <= 2;
            if (is_idle && !segment->is_used) {
                close_locked(segment);
                closed++;
            }
            segment->is_used = false;
            io_mutex_unlock(&segment->lock);
            live_segment_unref(segment);
        }
    }
    io_mutex_unlock(&shards->idle_lock);
}

void live_segment_damaged(struct live_segment *segment, err e, const struct err_at *at)
{
    if (e == ERR_IO) { /* it may pass: nothing is remembered */
        diag(DIAG_ERROR,
             "A segment could not be read just now; answers that need it say so. Look at the disk.",
             "partition=%u digest=%02x%02x%02x%02x error=\"%s\"", segment->partition,
             segment->facts.digest[0], segment->facts.digest[1], segment->facts.digest[2],
             segment->facts.digest[3], err_text(e));
        return;
    }
    if (atomic_exchange(&segment->is_damaged, true))
        return;
    stat_add(STAT_SHARD_QUARANTINED, 1);
    if (e == ERR_VERSION) {
        char key[SHARD_KEY_BYTES_MAX];
        segment_key(segment->partition, segment->facts.digest, segment->facts.era, key);
        diag(DIAG_ERROR,
             "A segment was written by a newer version; answers lack its rows and say so. Run the Kelpie that"
             " wrote it, or a newer one.",
             "segment=%s detail=\"%s\"", key, at->text);
        return;
    }
    diag(DIAG_ERROR,
         "A segment cannot be read in whole; answers that need what is damaged say so. Run kelpie fsck.",
         "partition=%u digest=%02x%02x%02x%02x error=\"%s\" detail=\"%s\"", segment->partition,
         segment->facts.digest[0], segment->facts.digest[1], segment->facts.digest[2],
         segment->facts.digest[3], err_text(e), at->text);
}

static err use_locked(struct live_segment *segment, struct metric_compact **out_compact)
{
    struct err_at at = { 0 };
    err e = segment->failed;
    if (e == OK && segment->compact == NULL) {
        e = open_locked(segment, &at);
        if (is_damage(e) || e == ERR_VERSION) {
            bool may_pass = e == ERR_IO || (e == ERR_NOT_FOUND && segment->shards->config.is_shared);
            segment->failed = may_pass ? OK : e;
            live_segment_damaged(segment, e, &at);
        }
    }
    segment->is_used = true;
    *out_compact = segment->compact;
    return e;
}

err live_segment_use(struct live_segment *segment, struct metric_compact **out_compact)
{
    io_mutex_lock(&segment->lock);
    err e = use_locked(segment, out_compact);
    io_mutex_unlock(&segment->lock);
    if (e != ERR_LIMIT)
        return e;
    close_idle(segment->shards);
    io_mutex_lock(&segment->lock);
    e = use_locked(segment, out_compact);
    io_mutex_unlock(&segment->lock);
    return e;
}

err live_segment_examine(struct live_segment *segment, struct pool *pool)
{
    struct segment_info info;
    struct err_at at = { 0 };
    err e = stoppable_verify(segment->shards, live_source(segment), segment->facts.digest, pool, &info, &at);
    if (e == ERR_CORRUPT || e == ERR_END)
        live_segment_damaged(segment, e, &at);
    return e;
}
