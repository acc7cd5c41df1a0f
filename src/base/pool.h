/* Pools: every allocation of the program names one.
 *
 * Pools form a tree (node → shard → segment → request → batch) and each has a byte budget that
 * counts itself and all pools below it. A pool serves two kinds of memory:
 *   arena   pool_alloc: bump allocation, freed all at once by pool_reset or pool_close
 *   block   pool_block_resize: single growable blocks (columns, tables), freed one by one or at close
 * Budget spent → ERR_LIMIT for that request alone. The system refusing memory aborts: budgets sum to
 * less than the machine has.
 *
 * Owner: a pool and its blocks belong to one thread at a time; only the byte counters of ancestors
 * are shared, and they are atomic. pool_open and pool_close of children are safe from any thread. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/err.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool;

#define POOL_BYTES_UNLIMITED SIZE_MAX

/* Open a pool below `parent` (NULL: a root).
 * name       static text, for statistics      bytes_max  budget in bytes, POOL_BYTES_UNLIMITED = only
 * the ancestors' budgets hold                 Errors     none: opening takes a few hundred bytes. */
struct pool *pool_open(struct pool *parent, const char *name, size_t bytes_max);

/* Open a pool without a budget of its own and in it one zeroed object of `bytes` in arena memory; both end with
 * pool_close. The outputs are set on success only. Errors ERR_LIMIT a budget on the way to the root is spent. */
err pool_open_object(struct pool *parent, const char *name, size_t bytes, struct pool **out_pool,
                     void **out_object);

/* Free everything in the pool. It has no open children any more. NULL is allowed. */
void pool_close(struct pool *pool);

/* Free all arena memory, keep blocks; one chunk is kept for reuse. */
void pool_reset(struct pool *pool);

/* bytes of arena memory, aligned to 16, contents undefined, living until reset or close.
 * Errors ERR_LIMIT a budget on the way to the root is spent. */
err pool_alloc(struct pool *pool, size_t bytes, void **out_at);

/* pool_alloc, zeroed. */
err pool_zalloc(struct pool *pool, size_t bytes, void **out_at);

/* Copy of s in arena memory, followed by a NUL byte that is not counted. */
err pool_copy(struct pool *pool, struct slice s, struct slice *out_copy);

/* Grow, shrink, allocate (*at == NULL) or free (new_bytes == 0) a block; contents are kept up to the
 * smaller size, what is added is undefined. *at is unchanged on failure.
 * Errors ERR_LIMIT as above. */
err pool_block_resize(struct pool *pool, void **at, size_t new_bytes);

/* Free a block of this pool; NULL is allowed. */
void pool_block_free(struct pool *pool, void *at);

/* Grow a block so that it holds at least `count` elements of `element_bytes`, doubling (and never less
 * than 16 elements); *capacity is in elements. Errors ERR_LIMIT. */
err pool_block_reserve(struct pool *pool, void **at, size_t element_bytes, size_t count, size_t *capacity);

/* Bytes now charged to this pool and all below it, and their highest value ever. */
size_t pool_used(const struct pool *pool);
size_t pool_peak(const struct pool *pool);
size_t pool_budget(const struct pool *pool);
/* Was a request of this pool, or of one below it, ever refused by an ancestor, while its own budget allowed it? */
bool pool_was_crowded(const struct pool *pool);
void pool_set_budget(struct pool *pool, size_t bytes_max);

/* Charge or return bytes that a library or a mapping holds on behalf of this pool. */
err pool_charge(struct pool *pool, size_t bytes);
void pool_uncharge(struct pool *pool, size_t bytes);

/* Tests: let the nth allocation from now (1 = the next) in the tree of this root fail with ERR_LIMIT,
 * and with `sticky` all after it; 0 switches off. Returns via pool_fault_count the number of
 * allocations seen since. */
void pool_fault_at(struct pool *root, uint64_t nth, bool sticky);
uint64_t pool_fault_count(const struct pool *root);

#endif
