/* The series table: 128-bit hash of (tenant, labels) → a small fixed entry. Holds no labels.
 *
 * Shared by all request threads, which hold the ingest's lock for reading. Finding takes no other lock;
 * adding takes the table's mutex; dropping needs the lock for writing. See table.c. */
#ifndef INGEST_TABLE_H
#define INGEST_TABLE_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/pool.h"
#include "io/thread.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SERIES_NONE       UINT32_MAX
#define SERIES_COUNT_MAX  (1u << 26)
#define SERIES_CHUNK_BITS 14
#define SERIES_CHUNK      (1u << SERIES_CHUNK_BITS)
#define TENANT_NONE       UINT16_MAX

/* An entry. next, mark and used are written by readers of the lock, so they are touched through the inline
 * functions below; the rest changes under the table's mutex before the entry can be found. */
struct series {
    uint64_t low, high; /* its identity: low half of the routing hash, quick hash */
    uint32_t number;    /* of the producer of its partition */
    uint32_t next;      /* the series that followed last time, or SERIES_NONE; free: the next one */
    uint32_t mark;      /* producer epoch in which its labels were acknowledged, 0 = not */
    uint16_t partition;
    uint16_t label_bytes; /* length of its canonical labels */
    uint16_t tenant;      /* index, TENANT_NONE = free entry */
    uint16_t used;        /* minute of the last use, modulo 2^16 */
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct series) == 36, "memory per series is a promise of docs/limits.md");

struct series_slots {
    struct series_slots *retired; /* older ones that a reader may still look at */
    uint32_t bits;                /* 2^bits slots */
    _Atomic uint32_t at[];        /* 5 bits of the hash's high half, then id + 1; 0 = empty */
};

struct series_table {
    struct pool *pool;
    struct io_mutex mutex; /* of everything below but the entries' racing fields */
    struct series_slots *_Atomic slots;
    struct series **chunks;    /* SERIES_COUNT_MAX / SERIES_CHUNK of them, NULL when not in use */
    _Atomic uint32_t id_count; /* ids ever given */
    uint32_t free_head;        /* of the list of dropped entries */
    _Atomic uint32_t count;    /* of live entries */
};

err series_table_init(struct series_table *table, struct pool *pool);
void series_table_done(struct series_table *table);

static inline struct series *series_at(const struct series_table *table, uint32_t id)
{
    return &table->chunks[id >> SERIES_CHUNK_BITS][id & (SERIES_CHUNK - 1)];
}

static inline bool series_is(const struct series *s, struct hash128 h)
{
    return s->low == h.low && s->high == h.high;
}

/* Acquire and release: who follows a prediction to an entry sees it filled. */
static inline uint32_t series_next(const struct series *s)
{
    return __atomic_load_n(&s->next, __ATOMIC_ACQUIRE);
}
static inline uint32_t series_mark(const struct series *s)
{
    return __atomic_load_n(&s->mark, __ATOMIC_RELAXED);
}
static inline uint16_t series_used(const struct series *s)
{
    return __atomic_load_n(&s->used, __ATOMIC_RELAXED);
}

/* The three writers look first: shared cache lines stay clean in the steady state. */
static inline void series_set_next(struct series *s, uint32_t id)
{
    if (series_next(s) != id)
        __atomic_store_n(&s->next, id, __ATOMIC_RELEASE);
}

static inline void series_set_mark(struct series *s, uint32_t mark)
{
    if (series_mark(s) != mark)
        __atomic_store_n(&s->mark, mark, __ATOMIC_RELAXED);
}

static inline void series_set_used(struct series *s, uint16_t minute)
{
    if (series_used(s) != minute)
        __atomic_store_n(&s->used, minute, __ATOMIC_RELAXED);
}

/* The id of a hash, or SERIES_NONE. Lock held for reading. */
uint32_t series_find(const struct series_table *table, struct hash128 hash);

/* Take an entry; the caller fills all fields but the identity and then calls series_publish with a hash that
 * series_find does not know. Mutex held. ERR_LIMIT: SERIES_COUNT_MAX, or the pool. */
err series_add(struct series_table *table, uint32_t *out_id);
void series_publish(struct series_table *table, uint32_t id, struct hash128 hash);

/* Drop an entry; its id will be given again. Lock held for writing. */
void series_drop(struct series_table *table, uint32_t id);

/* Free retired slot arrays and shrink an empty one. Lock held for writing. */
void series_table_tidy(struct series_table *table);

/* Bytes of the table's memory. */
uint64_t series_table_bytes(const struct series_table *table);

#endif
