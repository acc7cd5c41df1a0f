/* Pools: arenas and counted blocks with budgets. See pool.h.
 *
 * Invariants
 *  1. pool->used of a pool = bytes of its chunks and blocks (headers included) + used of its children.
 *  2. A charge walks from the pool to the root; if one budget refuses, all charges of the walk are undone. Nothing
 *     is ever charged beyond a budget, so what is refused takes no room from others that share the refusing pool.
 *  3. Chunks grow by doubling up to CHUNK_BYTES_MAX; a larger request gets a chunk of its own. */
#include "base/pool.h"

#include "base/check.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Read by jemalloc at its start. Without a thread of its own it gives memory back only in threads that go on
 * allocating: after a few large queries a node kept three times what its pools held. Freed pages go after a second
 * and not ten: under mixed load they were 60 to 160 MB, and what is used all the time is used again within one. */
extern const char *const malloc_conf;
const char *const malloc_conf = "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0";

#define CHUNK_BYTES_MIN ((size_t)1 << 10)
#define CHUNK_BYTES_MAX ((size_t)1 << 18)
#define ALIGN_BYTES     16

struct chunk {
    struct chunk *next;
    size_t bytes; /* of the whole chunk, this header included */
};

struct block {
    struct block *next;
    struct block *previous;
    size_t bytes;  /* of the whole block, this header included */
    size_t unused; /* keeps what follows aligned to 16 */
};

_Static_assert(sizeof(struct chunk) % ALIGN_BYTES == 0, "chunk contents must stay aligned");
_Static_assert(sizeof(struct block) % ALIGN_BYTES == 0, "block contents must stay aligned");

struct pool {
    struct pool *parent;
    struct pool *root;
    const char *name;
    size_t budget;
    _Atomic bool was_crowded;
    _Atomic size_t used;
    _Atomic size_t peak;
    struct chunk *chunks; /* newest first; the newest is the one being filled */
    uint8_t *fill;
    uint8_t *fill_end;
    struct block *blocks;
    _Atomic uint64_t fault_nth;   /* root only */
    _Atomic uint64_t fault_count; /* root only */
    _Atomic bool fault_sticky;    /* root only */
};

static void *system_alloc(size_t bytes)
{
    void *at = malloc(bytes);
    check(at != NULL); /* budgets sum to less than the machine has; see pool.h */
    return at;
}

static bool fault_hits(struct pool *root)
{
    uint64_t nth = atomic_load_explicit(&root->fault_nth, memory_order_relaxed);
    if (__builtin_expect(nth == 0, 1))
        return false;
    uint64_t seen = atomic_fetch_add_explicit(&root->fault_count, 1, memory_order_relaxed) + 1;
    return seen == nth || (seen > nth && atomic_load_explicit(&root->fault_sticky, memory_order_relaxed));
}

static err charge(struct pool *pool, size_t bytes)
{
    for (struct pool *p = pool; p != NULL; p = p->parent) {
        size_t used = atomic_load_explicit(&p->used, memory_order_relaxed);
        for (;;) {
            if (bytes > p->budget || used > p->budget - bytes) {
                for (struct pool *q = pool; q != p; q = q->parent) {
                    atomic_fetch_sub_explicit(&q->used, bytes, memory_order_relaxed);
                    atomic_store_explicit(&q->was_crowded, true, memory_order_relaxed);
                }
                return ERR_LIMIT;
            }
            if (atomic_compare_exchange_weak_explicit(&p->used, &used, used + bytes, memory_order_relaxed,
                                                      memory_order_relaxed))
                break;
        }
        used += bytes;
        size_t peak = atomic_load_explicit(&p->peak, memory_order_relaxed);
        if (used > peak) /* a lost race makes the peak a little low, which nobody relies on */
            atomic_store_explicit(&p->peak, used, memory_order_relaxed);
    }
    return OK;
}

static void uncharge(struct pool *pool, size_t bytes)
{
    for (struct pool *p = pool; p != NULL; p = p->parent) {
        size_t before = atomic_fetch_sub_explicit(&p->used, bytes, memory_order_relaxed);
        check(before >= bytes);
    }
}

struct pool *pool_open(struct pool *parent, const char *name, size_t bytes_max)
{
    struct pool *pool = system_alloc(sizeof *pool);
    memset(pool, 0, sizeof *pool);
    pool->parent = parent;
    pool->root = parent != NULL ? parent->root : pool;
    pool->name = name;
    pool->budget = bytes_max;
    return pool;
}

static void free_chunks(struct pool *pool, struct chunk *chunk)
{
    while (chunk != NULL) {
        struct chunk *next = chunk->next;
        uncharge(pool, chunk->bytes);
        free(chunk);
        chunk = next;
    }
}

void pool_close(struct pool *pool)
{
    if (pool == NULL)
        return;
    free_chunks(pool, pool->chunks);
    while (pool->blocks != NULL)
        pool_block_free(pool, pool->blocks + 1);
    size_t left = atomic_load(&pool->used);
    check(left == 0); /* a child is still open, or a charge was not returned */
    free(pool);
}

void pool_reset(struct pool *pool)
{
    struct chunk *keep = pool->chunks;
    if (keep == NULL)
        return;
    free_chunks(pool, keep->next);
    keep->next = NULL;
    if (keep->bytes > CHUNK_BYTES_MAX) {
        free_chunks(pool, keep);
        pool->chunks = NULL;
        pool->fill = pool->fill_end = NULL;
        return;
    }
    pool->fill = (uint8_t *)(keep + 1);
    pool->fill_end = (uint8_t *)keep + keep->bytes;
}

static err add_chunk(struct pool *pool, size_t bytes)
{
    size_t chunk_bytes = pool->chunks == NULL ? CHUNK_BYTES_MIN : pool->chunks->bytes * 2;
    if (chunk_bytes > CHUNK_BYTES_MAX)
        chunk_bytes = CHUNK_BYTES_MAX;
    if (bytes > SIZE_MAX - sizeof(struct chunk))
        return ERR_LIMIT;
    if (chunk_bytes < bytes + sizeof(struct chunk))
        chunk_bytes = bytes + sizeof(struct chunk);
    TRY(charge(pool, chunk_bytes));

    struct chunk *chunk = system_alloc(chunk_bytes);
    chunk->bytes = chunk_bytes;
    chunk->next = pool->chunks;
    pool->chunks = chunk;
    pool->fill = (uint8_t *)(chunk + 1);
    pool->fill_end = (uint8_t *)chunk + chunk_bytes;
    return OK;
}

err pool_alloc(struct pool *pool, size_t bytes, void **out_at)
{
    if (fault_hits(pool->root) || bytes > SIZE_MAX / 2)
        return ERR_LIMIT;
    /* No bytes are some bytes: the pointer is never NULL, also of a pool that has no memory yet. */
    size_t rounded = bytes == 0 ? ALIGN_BYTES : (bytes + ALIGN_BYTES - 1) & ~(size_t)(ALIGN_BYTES - 1);
    if (rounded > (size_t)(pool->fill_end - pool->fill))
        TRY(add_chunk(pool, rounded));
    *out_at = pool->fill;
    pool->fill += rounded;
    return OK;
}

err pool_zalloc(struct pool *pool, size_t bytes, void **out_at)
{
    void *at;
    TRY(pool_alloc(pool, bytes, &at));
    memset(at, 0, bytes);
    *out_at = at;
    return OK;
}

err pool_open_object(struct pool *parent, const char *name, size_t bytes, struct pool **out_pool,
                     void **out_object)
{
    struct pool *pool = pool_open(parent, name, POOL_BYTES_UNLIMITED);
    err e = pool_zalloc(pool, bytes, out_object);
    if (e == OK)
        *out_pool = pool;
    else
        pool_close(pool);
    return e;
}

err pool_copy(struct pool *pool, struct slice s, struct slice *out_copy)
{
    void *at;
    TRY(pool_alloc(pool, s.len + 1, &at));
    if (s.len != 0)
        memcpy(at, s.at, s.len);
    ((uint8_t *)at)[s.len] = 0;
    *out_copy = slice_of(at, s.len);
    return OK;
}

static void block_link(struct pool *pool, struct block *block)
{
    block->previous = NULL;
    block->next = pool->blocks;
    if (block->next != NULL)
        block->next->previous = block;
    pool->blocks = block;
}

static void block_unlink(struct pool *pool, struct block *block)
{
    if (block->previous != NULL)
        block->previous->next = block->next;
    else
        pool->blocks = block->next;
    if (block->next != NULL)
        block->next->previous = block->previous;
}

err pool_block_resize(struct pool *pool, void **at, size_t new_bytes)
{
    if (new_bytes == 0) {
        pool_block_free(pool, *at);
        *at = NULL;
        return OK;
    }
    if (fault_hits(pool->root) || new_bytes > SIZE_MAX / 2)
        return ERR_LIMIT;
    struct block *old = *at == NULL ? NULL : (struct block *)*at - 1;
    size_t old_total = old == NULL ? 0 : old->bytes;
    size_t new_total = new_bytes + sizeof(struct block);
    if (new_total > old_total)
        TRY(charge(pool, new_total - old_total));
    if (old != NULL)
        block_unlink(pool, old);
    struct block *block = realloc(old, new_total);
    check(block != NULL);
    if (new_total < old_total)
        uncharge(pool, old_total - new_total);
    block->bytes = new_total;
    block_link(pool, block);
    *at = block + 1;
    return OK;
}

void pool_block_free(struct pool *pool, void *at)
{
    if (at == NULL)
        return;
    struct block *block = (struct block *)at - 1;
    block_unlink(pool, block);
    uncharge(pool, block->bytes);
    free(block);
}

err pool_block_reserve(struct pool *pool, void **at, size_t element_bytes, size_t count, size_t *capacity)
{
    if (count <= *capacity)
        return OK;
    size_t grown = *capacity * 2;
    if (grown < 16)
        grown = 16;
    if (grown < count)
        grown = count;
    if (grown > SIZE_MAX / 2 / element_bytes)
        return ERR_LIMIT;
    TRY(pool_block_resize(pool, at, grown * element_bytes));
    *capacity = grown;
    return OK;
}

size_t pool_used(const struct pool *pool) { return atomic_load_explicit(&pool->used, memory_order_relaxed); }
size_t pool_peak(const struct pool *pool) { return atomic_load_explicit(&pool->peak, memory_order_relaxed); }
bool pool_was_crowded(const struct pool *pool)
{
    return atomic_load_explicit(&pool->was_crowded, memory_order_relaxed);
}

size_t pool_budget(const struct pool *pool) { return pool->budget; }
void pool_set_budget(struct pool *pool, size_t bytes_max) { pool->budget = bytes_max; }

err pool_charge(struct pool *pool, size_t bytes) { return charge(pool, bytes); }
void pool_uncharge(struct pool *pool, size_t bytes) { uncharge(pool, bytes); }

void pool_fault_at(struct pool *root, uint64_t nth, bool sticky)
{
    check(root->root == root);
    atomic_store(&root->fault_count, 0);
    atomic_store(&root->fault_sticky, sticky);
    atomic_store(&root->fault_nth, nth);
}

uint64_t pool_fault_count(const struct pool *root) { return atomic_load(&root->fault_count); }
