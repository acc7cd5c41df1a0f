/* Dropping series from the live index. See metric_index_retain.
 *
 * A series is dropped by one store into its id's partition; from then on nobody who asks anew finds it. What it
 * occupied is given back later: its part when more than half of it is gone, its local number and its id chunk when
 * no query is left that may have seen it.
 *
 * Epochs. A query holds the index under the parity of the epoch in which it began. Something dropped in epoch
 * E waits in limbo E mod 2. The epoch may go from E to E + 1 when nobody holds parity (E + 1) mod 2, that is,
 * no query from E - 1 is left; at that moment what was dropped in E - 1 is free.
 *
 * Invariants
 *  1. Queries begun after a drop do not see the series; so only queries of its epoch or older matter.
 *  2. A chunk leaves the tree of ids only when none of its ids lives and none can still be given out. */
#include "metric/index_inside.h"

#include "base/check.h"

#include <string.h>

uint32_t metric_index_hold(struct metric_index *index)
{
    for (;;) {
        uint32_t parity = atomic_load(&index->epoch) & 1;
        atomic_fetch_add(&index->holders[parity], 1);
        if ((atomic_load(&index->epoch) & 1) == parity)
            return parity;
        atomic_fetch_sub(&index->holders[parity], 1);
    }
}

void metric_index_release(struct metric_index *index, uint32_t token)
{
    check(token < 2);
    uint32_t before = atomic_fetch_sub(&index->holders[token], 1);
    check(before > 0);
}

void index_limbo_close(struct metric_index *index)
{
    for (int i = 0; i < 2; i++) {
        struct limbo *limbo = &index->limbos[i];
        for (size_t k = 0; k < limbo->chunk_count; k++)
            pool_block_free(index->pool, limbo->chunks[k]);
        limbo->chunk_count = limbo->local_count = 0;
    }
}

/* Give back what waited in a limbo. A local number for whose list there is no memory is never used again. */
static void reclaim(struct metric_index *index, struct limbo *limbo)
{
    for (size_t i = 0; i < limbo->local_count; i++) {
        struct freed_local freed = limbo->locals[i];
        struct partition *p = atomic_load_explicit(&index->partitions[freed.partition], memory_order_relaxed);
        if (pool_block_reserve(index->pool, (void **)&p->free_locals, sizeof(uint32_t), p->free_count + 1,
                               &p->free_capacity) == OK)
            p->free_locals[p->free_count++] = freed.local;
    }
    for (size_t i = 0; i < limbo->chunk_count; i++)
        pool_block_free(index->pool, limbo->chunks[i]);
    limbo->local_count = limbo->chunk_count = 0;
}

static void advance_epoch(struct metric_index *index)
{
    uint32_t epoch = atomic_load(&index->epoch), next = (epoch + 1) & 1;
    if (atomic_load(&index->holders[next]) != 0)
        return;
    reclaim(index, &index->limbos[next]);
    atomic_store(&index->epoch, epoch + 1);
}

/* Take one series out. */
static void drop_series(struct metric_index *index, struct id_chunk *chunk, uint32_t id, struct limbo *limbo)
{
    struct tenant *tenant = index_tenant_of(index, id);
    uint32_t partition_number = chunk_partition(chunk, id), local = chunk->locals[id % ID_CHUNK], ordinal;
    atomic_store_explicit(&chunk->partitions[id % ID_CHUNK], ID_DROPPED, memory_order_relaxed);
    chunk->live--;
    atomic_fetch_sub_explicit(&tenant->live, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&index->live, 1, memory_order_relaxed);
    struct partition *p = atomic_load_explicit(&index->partitions[partition_number], memory_order_relaxed);
    slots_set(&p->id_of_local, local, METRIC_ID_NONE);
    if (pool_block_reserve(index->pool, (void **)&limbo->locals, sizeof *limbo->locals,
                           limbo->local_count + 1, &limbo->local_capacity) == OK)
        limbo->locals[limbo->local_count++] = (struct freed_local){ partition_number, local };
    size_t at = part_of_id(tenant->parts, tenant->part_count, id);
    if (at != tenant->part_count && live_part_find(tenant->parts[at], id, &ordinal))
        atomic_fetch_add_explicit(&tenant->parts[at]->dropped, 1, memory_order_release);
    else
        tenant->tail->dropped++;
}

/* Can a tenant still give out an id of this chunk? */
static bool chunk_is_open(const struct metric_index *index, uint64_t first_id)
{
    if (first_id + ID_CHUNK > index->id_end)
        return true;
    for (size_t i = 0; i < index->tenant_count; i++) {
        const struct tenant *tenant = index->tenants[i];
        if (tenant->next_id != tenant->end_id && tenant->next_id / ID_CHUNK == first_id / ID_CHUNK)
            return true;
    }
    return false;
}

/* Take an empty chunk out of the tree. Without memory to remember it, it stays until the next time. */
static void retire_chunk(struct metric_index *index, struct id_chunk *chunk, uint64_t first_id,
                         struct limbo *limbo)
{
    if (pool_block_reserve(index->pool, (void **)&limbo->chunks, sizeof chunk, limbo->chunk_count + 1,
                           &limbo->chunk_capacity) != OK)
        return;
    struct id_middle *middle =
        atomic_load_explicit(&index->ids[first_id / (ID_CHUNK * ID_MIDDLE)], memory_order_relaxed);
    atomic_store_explicit(&middle->chunks[first_id / ID_CHUNK % ID_MIDDLE], NULL, memory_order_release);
    limbo->chunks[limbo->chunk_count++] = chunk;
}

/* The table without the dropped ids. */
static err rebuild_table(struct metric_index *index)
{
    _Atomic uint64_t *slots, *old = index->slots;
    uint32_t used;
    TRY(index_table_build(index, index->slot_count, &slots, &used));
    io_rwlock_write(&index->lock);
    index->slots = slots;
    index->slot_used = used;
    io_rwlock_unlock(&index->lock);
    pool_block_free(index->pool, (void *)(uintptr_t)old);
    return OK;
}

err metric_index_retain(struct metric_index *index, bool (*keep)(void *context, uint32_t id), void *context,
                        uint64_t *out_dropped)
{
    err first = OK;
    uint64_t dropped = 0;
    io_mutex_lock(&index->turn);
    advance_epoch(index);
    struct limbo *limbo = &index->limbos[atomic_load(&index->epoch) & 1];
    for (uint64_t from = 0; from < index->id_end; from += ID_CHUNK) {
        struct id_chunk *chunk = index_chunk(index, (uint32_t)from);
        if (chunk == NULL)
            continue;
        for (uint32_t i = 0; i < ID_CHUNK; i++) {
            uint32_t id = (uint32_t)from + i;
            if (chunk_partition(chunk, id) == ID_DROPPED || keep(context, id))
                continue;
            drop_series(index, chunk, id, limbo);
            dropped++;
        }
    }
    if (dropped > 0)
        first = rebuild_table(index);
    for (size_t i = 0; i < index->tenant_count; i++) {
        err e = tenant_clean(index, index->tenants[i]);
        first = first == OK ? e : first;
    }
    /* A part may still name ids of such a chunk: that it is gone says that they are dropped. */
    for (uint64_t at = 0; at < index->id_end && first == OK; at += ID_CHUNK) {
        struct id_chunk *chunk = index_chunk(index, (uint32_t)at);
        if (chunk != NULL && chunk->live == 0 && !chunk_is_open(index, at))
            retire_chunk(index, chunk, at, limbo);
    }
    advance_epoch(index);
    advance_epoch(index);
    io_mutex_unlock(&index->turn);
    *out_dropped = dropped;
    return first;
}
