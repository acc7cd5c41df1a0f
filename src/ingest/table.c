/* The series table. See table.h.
 *
 * Open addressing with linear probing over 4-byte slots; the entries lie in chunks that never move. A slot holds
 * the number of an entry and five bits of the hash's high half, so that only one entry in 32 is looked at in vain;
 * the top bits of that half are its home position. Growing, shrinking and dropping look at the entries. Hashes of
 * 128 bits (64 of the routing hash, 64 of the quick one) without comparing labels: the chance of any collision
 * among 10^9 series is 1.5e-21, and both hashes are keyed with a secret.
 *
 *   free ── series_add ──→ filled ── series_publish ──→ found by everyone ── series_drop ──→ free
 *
 * Invariants
 *  1. An entry's identity is written after its other fields and before its slot. Who has seen the identity,
 *     through the slot or through a prediction, sees the rest.
 *  2. Slots only change from empty to full while the lock is held for reading. A full array is copied, the copy
 *     published, the old one retired: who still probes it misses new entries at worst, and then asks again under
 *     the mutex, where the newest array is used.
 *  3. Retired arrays are freed under the lock for writing: nobody probes then.
 *  4. At most 7/8 of the slots are full, so every probe ends. */
#include "ingest/table.h"

#include "base/check.h"

#include <string.h>

#define BITS_MIN 12
#define ID_BITS  27 /* of id + 1 in a slot */
#define ID_MASK  ((UINT32_C(1) << ID_BITS) - 1)

_Static_assert(SERIES_COUNT_MAX < ID_MASK, "an id and a tag fit a slot");

static struct series_slots *slots_new(struct series_table *table, uint32_t bits)
{
    void *at = NULL;
    size_t bytes = sizeof(struct series_slots) + (sizeof(uint32_t) << bits);
    if (pool_block_resize(table->pool, &at, bytes) != OK)
        return NULL;
    memset(at, 0, bytes);
    struct series_slots *slots = at;
    slots->bits = bits;
    return slots;
}

err series_table_init(struct series_table *table, struct pool *pool)
{
    *table = (struct series_table){ .pool = pool, .free_head = SERIES_NONE };
    void *chunks;
    TRY(pool_zalloc(pool, SERIES_COUNT_MAX / SERIES_CHUNK * sizeof table->chunks[0], &chunks));
    table->chunks = chunks;
    struct series_slots *slots = slots_new(table, BITS_MIN);
    if (slots == NULL)
        return ERR_LIMIT;
    atomic_init(&table->slots, slots);
    io_mutex_init(&table->mutex);
    return OK;
}

void series_table_done(struct series_table *table) { io_mutex_done(&table->mutex); }

static uint32_t home_of(const struct series_slots *slots, uint64_t high)
{
    return (uint32_t)(high >> (64 - slots->bits));
}

static uint32_t slot_of(uint64_t high, uint32_t id) { return (uint32_t)high << ID_BITS | (id + 1); }

uint32_t series_find(const struct series_table *table, struct hash128 hash)
{
    const struct series_slots *slots = atomic_load_explicit(&table->slots, memory_order_acquire);
    uint32_t mask = (UINT32_C(1) << slots->bits) - 1;
    for (uint32_t at = home_of(slots, hash.high);; at = (at + 1) & mask) {
        uint32_t slot = atomic_load_explicit(&slots->at[at], memory_order_acquire);
        if (slot == 0)
            return SERIES_NONE;
        uint32_t id = (slot & ID_MASK) - 1;
        if (slot == slot_of(hash.high, id) && series_is(series_at(table, id), hash))
            return id;
    }
}

static void slots_put(struct series_slots *slots, uint64_t high, uint32_t id)
{
    uint32_t mask = (UINT32_C(1) << slots->bits) - 1;
    uint32_t at = home_of(slots, high);
    while (atomic_load_explicit(&slots->at[at], memory_order_relaxed) != 0)
        at = (at + 1) & mask;
    atomic_store_explicit(&slots->at[at], slot_of(high, id), memory_order_release);
}

/* Replace the slots by 2^bits ones. */
static err resize(struct series_table *table, uint32_t bits)
{
    struct series_slots *old = atomic_load(&table->slots), *fresh = slots_new(table, bits);
    if (fresh == NULL)
        return ERR_LIMIT;
    for (uint32_t i = 0; i >> old->bits == 0; i++) {
        uint32_t slot = atomic_load_explicit(&old->at[i], memory_order_relaxed);
        uint32_t id = (slot & ID_MASK) - 1;
        if (slot != 0)
            slots_put(fresh, series_at(table, id)->high, id);
    }
    fresh->retired = old;
    atomic_store_explicit(&table->slots, fresh, memory_order_release);
    return OK;
}

err series_add(struct series_table *table, uint32_t *out_id)
{
    struct series_slots *slots = atomic_load(&table->slots);
    uint64_t count = atomic_load(&table->count);
    if (count + 1 > (UINT64_C(7) << slots->bits) / 8)
        TRY(resize(table, slots->bits + 1));
    uint32_t id = table->free_head;
    if (id == SERIES_NONE) {
        if (table->id_count == SERIES_COUNT_MAX)
            return ERR_LIMIT;
        id = table->id_count;
        if (table->chunks[id >> SERIES_CHUNK_BITS] == NULL) {
            void *chunk = NULL;
            TRY(pool_block_resize(table->pool, &chunk, SERIES_CHUNK * sizeof(struct series)));
            table->chunks[id >> SERIES_CHUNK_BITS] = chunk;
        }
        table->id_count++;
    } else {
        table->free_head = series_at(table, id)->next;
    }
    *series_at(table, id) = (struct series){ .next = SERIES_NONE };
    *out_id = id;
    return OK;
}

void series_publish(struct series_table *table, uint32_t id, struct hash128 hash)
{
    struct series *s = series_at(table, id);
    atomic_thread_fence(
        memory_order_release); /* a prediction may look at the entry before its slot is there */
    s->low = hash.low;
    s->high = hash.high;
    slots_put(atomic_load(&table->slots), hash.high, id);
    atomic_fetch_add(&table->count, 1);
}

/* Backward shift (Knuth 6.4, algorithm R): what follows moves up unless it is at home behind the hole. */
static void slots_remove(struct series_table *table, uint32_t id)
{
    struct series_slots *slots = atomic_load(&table->slots);
    uint64_t high = series_at(table, id)->high;
    uint32_t mask = (UINT32_C(1) << slots->bits) - 1, slot = slot_of(high, id);
    uint32_t hole = home_of(slots, high);
    while (atomic_load_explicit(&slots->at[hole], memory_order_relaxed) != slot)
        hole = (hole + 1) & mask;
    for (uint32_t at = (hole + 1) & mask;; at = (at + 1) & mask) {
        uint32_t other = atomic_load_explicit(&slots->at[at], memory_order_relaxed);
        if (other == 0)
            break;
        uint32_t home = home_of(slots, series_at(table, (other & ID_MASK) - 1)->high);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            atomic_store_explicit(&slots->at[hole], other, memory_order_relaxed);
            hole = at;
        }
    }
    atomic_store_explicit(&slots->at[hole], 0, memory_order_relaxed);
}

void series_drop(struct series_table *table, uint32_t id)
{
    struct series *s = series_at(table, id);
    check(s->tenant != TENANT_NONE);
    slots_remove(table, id);
    *s = (struct series){ .tenant = TENANT_NONE, .next = table->free_head };
    table->free_head = id;
    atomic_fetch_sub(&table->count, 1);
}

void series_table_tidy(struct series_table *table)
{
    struct series_slots *slots = atomic_load(&table->slots);
    if (slots->bits > BITS_MIN && atomic_load(&table->count) < (UINT32_C(1) << slots->bits) / 8) {
        ERR_IGNORE(resize(table, slots->bits - 1)); /* no memory: it stays larger than it need be */
        slots = atomic_load(&table->slots);
    }
    struct series_slots *old = slots->retired;
    slots->retired = NULL;
    while (old != NULL) {
        struct series_slots *next = old->retired;
        pool_block_free(table->pool, old);
        old = next;
    }
}

uint64_t series_table_bytes(const struct series_table *table)
{
    uint64_t chunks = (table->id_count + SERIES_CHUNK - 1) / SERIES_CHUNK;
    struct series_slots *slots = atomic_load(&((struct series_table *)table)->slots);
    return chunks * SERIES_CHUNK * sizeof(struct series) + (sizeof(uint32_t) << slots->bits);
}
