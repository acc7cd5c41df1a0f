/* The block cache: decoded blocks of all segments under one byte budget, in shards with a lock each. What is read
 * whole (the label index of a tenant) is one entry of many blocks.
 *
 *   absent ─ cache_take: miss ─→ filled by the caller outside the lock ─ cache_publish ─→ in use
 *   in use ─ cache_release (last) ─→ idle, newest of the shard's list ─ over budget ─→ oldest freed, first of this
 *            shard, then of the next
 *   idle ─ cache_take: hit ─→ in use
 *
 * Keys are (segment id, block); ids are never reused. A closed segment's blocks go with it: replaced segments
 * would fill the budget with what nobody can ask for.
 * Invariants:
 *   1. Idle entries are in the list, entries in use are not; both are in the table.
 *   2. A shard's pool is touched only under its lock.
 *   3. bytes counts every entry in a table; idle ones are freed while bytes exceed the budget. */
#include "segment/cache.h"
#include "base/check.h"
#include "base/stat.h"

#define BUCKET_COUNT_MIN 64
#define SHARD_COUNT_MAX  64

static size_t entry_bytes(size_t content_bytes)
{
    return sizeof(struct cache_entry) + content_bytes + SEGMENT_PAD_BYTES;
}

static struct cache_shard *shard_of(struct segment_cache *cache, uint64_t segment_id, uint32_t block,
                                    uint64_t *out_hash)
{
    *out_hash = hash_mix(segment_id * UINT64_C(0x9e3779b97f4a7c15) + block);
    return &cache->shards[(*out_hash >> 40) % cache->shard_count];
}

err segment_cache_open(struct pool *pool, uint64_t bytes_max, unsigned shard_count,
                       struct segment_cache **out_cache)
{
    check(shard_count >= 1 && shard_count <= SHARD_COUNT_MAX);
    err e = OK;
    struct pool *own = pool_open(pool, "block cache", POOL_BYTES_UNLIMITED);
    struct segment_cache *cache = NULL;
    TRY_OUT(pool_zalloc(own, sizeof *cache, (void **)&cache));
    TRY_OUT(pool_zalloc(own, shard_count * sizeof *cache->shards, (void **)&cache->shards));
    size_t buckets = BUCKET_COUNT_MIN;
    while (buckets < bytes_max / shard_count / (SEGMENT_BLOCK_BYTES / 2) && buckets < 1u << 22)
        buckets *= 2;
    for (unsigned i = 0; i < shard_count; i++) {
        struct cache_shard *shard = &cache->shards[i];
        TRY_OUT(pool_zalloc(own, buckets * sizeof *shard->buckets, (void **)&shard->buckets));
        shard->bucket_mask = buckets - 1;
    }
    for (unsigned i = 0; i < shard_count; i++) {
        cache->shards[i].pool = pool_open(own, "block cache shard", POOL_BYTES_UNLIMITED);
        io_mutex_init(&cache->shards[i].lock);
    }
    cache->pool = own;
    cache->shard_count = shard_count;
    cache->bytes_max = bytes_max;
    *out_cache = cache;
    return OK;
out:
    pool_close(own);
    return e;
}

void segment_cache_close(struct segment_cache *cache)
{
    if (cache == NULL)
        return;
    for (unsigned i = 0; i < cache->shard_count; i++) {
        check(cache->shards[i].used_count == 0);
        io_mutex_done(&cache->shards[i].lock);
        pool_close(cache->shards[i].pool);
    }
    pool_close(cache->pool);
}

struct segment_cache_usage segment_cache_usage(struct segment_cache *cache)
{
    struct segment_cache_usage u = { .bytes = atomic_load(&cache->bytes), .bytes_max = cache->bytes_max };
    for (unsigned i = 0; i < cache->shard_count; i++) {
        struct cache_shard *shard = &cache->shards[i];
        io_mutex_lock(&shard->lock);
        u.block_count += shard->count;
        u.hits += shard->hits;
        u.misses += shard->misses;
        u.evicted += shard->evicted;
        io_mutex_unlock(&shard->lock);
    }
    return u;
}

uint64_t cache_segment_id(struct segment_cache *cache)
{
    return atomic_fetch_add_explicit(&cache->next_id, 1, memory_order_relaxed);
}

static struct cache_entry **find(struct cache_shard *shard, uint64_t hash, uint64_t segment_id,
                                 uint32_t block)
{
    struct cache_entry **at = &shard->buckets[hash & shard->bucket_mask];
    while (*at != NULL && ((*at)->segment_id != segment_id || (*at)->block != block))
        at = &(*at)->next_in_bucket;
    return at;
}

static void list_remove(struct cache_shard *shard, struct cache_entry *entry)
{
    *(entry->newer == NULL ? &shard->newest : &entry->newer->older) = entry->older;
    *(entry->older == NULL ? &shard->oldest : &entry->older->newer) = entry->newer;
    entry->newer = entry->older = NULL;
}

/* Free the idle entry that *at leads to. Under the lock. */
static void drop(struct segment_cache *cache, struct cache_shard *shard, struct cache_entry **at)
{
    struct cache_entry *entry = *at;
    list_remove(shard, entry);
    *at = entry->next_in_bucket;
    atomic_fetch_sub(&cache->bytes, entry_bytes(entry->len));
    shard->count--;
    pool_block_free(shard->pool, entry);
}

/* Free idle entries while the cache is over its budget, those of `first` before those of other shards. No lock is
 * held. */
static void shrink(struct segment_cache *cache, const struct cache_shard *first)
{
    size_t start = (size_t)(first - cache->shards);
    for (size_t i = 0; i < cache->shard_count && atomic_load(&cache->bytes) > cache->bytes_max; i++) {
        struct cache_shard *shard = &cache->shards[(start + i) % cache->shard_count];
        io_mutex_lock(&shard->lock);
        while (atomic_load(&cache->bytes) > cache->bytes_max && shard->oldest != NULL) {
            const struct cache_entry *oldest = shard->oldest;
            drop(cache, shard, find(shard, oldest->hash, oldest->segment_id, oldest->block));
            shard->evicted++;
            stat_add(STAT_SEGMENT_CACHE_EVICTIONS, 1);
        }
        io_mutex_unlock(&shard->lock);
    }
}

static void use(struct cache_shard *shard, struct cache_entry *entry)
{
    if (entry->users++ == 0) {
        list_remove(shard, entry);
        shard->used_count++;
    }
}

err cache_take(struct segment_cache *cache, uint64_t segment_id, uint32_t block, size_t content_bytes,
               struct cache_entry **out_entry, bool *out_hit)
{
    uint64_t hash;
    struct cache_shard *shard = shard_of(cache, segment_id, block, &hash);
    err e = OK;
    io_mutex_lock(&shard->lock);
    struct cache_entry *entry = *find(shard, hash, segment_id, block);
    *out_hit = entry != NULL;
    if (entry != NULL) {
        check(entry->len == content_bytes);
        use(shard, entry);
        shard->hits++;
        stat_add(STAT_SEGMENT_CACHE_HITS, 1);
    } else {
        shard->misses++;
        stat_add(STAT_SEGMENT_CACHE_MISSES, 1);
        e = pool_block_resize(shard->pool, (void **)&entry, entry_bytes(content_bytes));
    }
    io_mutex_unlock(&shard->lock);
    if (e == OK && !*out_hit) {
        *entry = (struct cache_entry){
            .segment_id = segment_id, .block = block, .hash = hash, .users = 1, .len = content_bytes
        };
        memset(entry->content + content_bytes, 0, SEGMENT_PAD_BYTES);
    }
    *out_entry = entry;
    return e;
}

struct cache_entry *cache_publish(struct segment_cache *cache, struct cache_entry *entry)
{
    uint64_t hash;
    struct cache_shard *shard = shard_of(cache, entry->segment_id, entry->block, &hash);
    io_mutex_lock(&shard->lock);
    struct cache_entry **at = find(shard, hash, entry->segment_id, entry->block);
    if (*at != NULL) { /* another thread was faster */
        pool_block_free(shard->pool, entry);
        entry = *at;
        use(shard, entry);
    } else {
        *at = entry;
        atomic_fetch_add(&cache->bytes, entry_bytes(entry->len));
        shard->count++;
        shard->used_count++;
    }
    io_mutex_unlock(&shard->lock);
    shrink(cache, shard);
    return entry;
}

void cache_abandon(struct segment_cache *cache, struct cache_entry *entry)
{
    uint64_t hash;
    struct cache_shard *shard = shard_of(cache, entry->segment_id, entry->block, &hash);
    io_mutex_lock(&shard->lock);
    pool_block_free(shard->pool, entry);
    io_mutex_unlock(&shard->lock);
}

void cache_release(struct segment_cache *cache, struct cache_entry *entry)
{
    uint64_t hash;
    struct cache_shard *shard = shard_of(cache, entry->segment_id, entry->block, &hash);
    io_mutex_lock(&shard->lock);
    check(entry->users > 0);
    if (--entry->users == 0) {
        shard->used_count--;
        entry->older = shard->newest;
        *(shard->newest == NULL ? &shard->oldest : &shard->newest->newer) = entry;
        shard->newest = entry;
    }
    io_mutex_unlock(&shard->lock);
    shrink(cache, shard);
}

void cache_forget(struct segment_cache *cache, uint64_t segment_id, uint32_t block_count)
{
    for (uint32_t block = 0; block < block_count; block++) {
        uint64_t hash;
        struct cache_shard *shard = shard_of(cache, segment_id, block, &hash);
        io_mutex_lock(&shard->lock);
        struct cache_entry **at = find(shard, hash, segment_id, block);
        if (*at != NULL) {
            check((*at)->users == 0);
            drop(cache, shard, at);
        }
        io_mutex_unlock(&shard->lock);
    }
}
