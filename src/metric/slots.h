/* struct slots: one u32 per dense number, written by one thread, read by any without locks.
 *
 * Chunks of 16,384 entries that never move, below a root of fixed size; entries begin as SLOT_NONE. A reader
 * sees an entry's last value and everything its writer did before. */
#ifndef METRIC_SLOTS_H
#define METRIC_SLOTS_H

#include "base/err.h"
#include "base/pool.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#define SLOT_NONE        UINT32_MAX
#define SLOT_CHUNK       16384u
#define SLOT_CHUNK_COUNT 4096u
#define SLOT_COUNT_MAX   (SLOT_CHUNK * SLOT_CHUNK_COUNT) /* 2^26 numbers */

struct slots {
    struct pool *pool;
    _Atomic(_Atomic uint32_t *) *root; /* NULL until the first entry */
    uint32_t count;                    /* entries that exist; the writer's */
};

static inline struct slots slots_open(struct pool *pool) { return (struct slots){ .pool = pool }; }

/* Make entries [0, count) exist. ERR_LIMIT. The writer's. All memory is the pool's arena. */
static inline err slots_reserve(struct slots *s, uint32_t count)
{
    if (count <= s->count)
        return OK;
    if (count > SLOT_COUNT_MAX)
        return ERR_LIMIT;
    while (s->count < count) {
        void *at;
        TRY(pool_alloc(s->pool, SLOT_CHUNK * sizeof(uint32_t), &at));
        memset(at, 0xff, SLOT_CHUNK * sizeof(uint32_t));
        atomic_store_explicit(&s->root[s->count / SLOT_CHUNK], at, memory_order_release);
        s->count += SLOT_CHUNK;
    }
    return OK;
}

/* Allocate the root: 32 KiB of addresses. ERR_LIMIT. */
static inline err slots_begin(struct slots *s)
{
    void *at;
    TRY(pool_zalloc(s->pool, SLOT_CHUNK_COUNT * sizeof(*s->root), &at));
    s->root = at;
    return OK;
}

static inline uint32_t slots_get(const struct slots *s, uint32_t number)
{
    if (number >= SLOT_COUNT_MAX || s->root == NULL)
        return SLOT_NONE;
    _Atomic uint32_t *chunk = atomic_load_explicit(&s->root[number / SLOT_CHUNK], memory_order_acquire);
    return chunk == NULL ? SLOT_NONE
                         : atomic_load_explicit(&chunk[number % SLOT_CHUNK], memory_order_acquire);
}

/* An entry that exists, for the writer: loaded relaxed, stored with release. */
static inline _Atomic uint32_t *slots_entry(const struct slots *s, uint32_t number)
{
    return &atomic_load_explicit(&s->root[number / SLOT_CHUNK], memory_order_relaxed)[number % SLOT_CHUNK];
}

/* The writer's; the entry exists. */
static inline void slots_set(struct slots *s, uint32_t number, uint32_t value)
{
    atomic_store_explicit(slots_entry(s, number), value, memory_order_release);
}

/* slots_get of an entry that exists, for the writer. */
static inline uint32_t slots_at(const struct slots *s, uint32_t number)
{
    return atomic_load_explicit(slots_entry(s, number), memory_order_relaxed);
}

#endif
