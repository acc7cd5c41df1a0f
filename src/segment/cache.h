/* The inside of the block cache, for the reader. See segment.h for the public face, cache.c for the states. */
#ifndef SEGMENT_CACHE_H
#define SEGMENT_CACHE_H

#include "base/err.h"
#include "io/thread.h"
#include "segment/layout.h"
#include "segment/segment.h"

#include <stdatomic.h>

struct cache_entry {
    struct cache_entry *next_in_bucket;
    struct cache_entry *newer, *older; /* of the idle list */
    uint64_t segment_id;
    uint64_t hash;
    size_t len;
    uint32_t block; /* the first one */
    uint32_t users;
    uint8_t content[]; /* len bytes and SEGMENT_PAD_BYTES */
};

struct cache_shard {
    struct io_mutex lock; /* of everything below */
    struct pool *pool;
    struct cache_entry **buckets;
    size_t bucket_mask;
    struct cache_entry *newest, *oldest;
    uint64_t count, used_count;
    uint64_t hits, misses, evicted;
};

struct segment_cache {
    struct pool *pool;
    struct cache_shard *shards;
    unsigned shard_count;
    uint64_t bytes_max;
    _Atomic uint64_t bytes; /* of all entries that are visible */
    _Atomic uint64_t next_id;
};

/* A number for a newly opened segment, never given twice. */
uint64_t cache_segment_id(struct segment_cache *cache);

/* A block, or several that are always asked for together by the first one's number. A hit: the entry, in use. A
 * miss: a new entry of content_bytes for the caller to fill, then publish or abandon; nobody else sees it until
 * then. ERR_LIMIT. */
err cache_take(struct segment_cache *cache, uint64_t segment_id, uint32_t block, size_t content_bytes,
               struct cache_entry **out_entry, bool *out_hit);
/* Make a filled entry visible; the entry to be used comes back, possibly another thread's equal one. */
struct cache_entry *cache_publish(struct segment_cache *cache, struct cache_entry *entry);
void cache_abandon(struct segment_cache *cache, struct cache_entry *entry);
void cache_release(struct segment_cache *cache, struct cache_entry *entry);
/* A segment that is being closed, of which no block is in use: free its blocks [0, block_count). */
void cache_forget(struct segment_cache *cache, uint64_t segment_id, uint32_t block_count);

#endif
