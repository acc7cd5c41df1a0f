/* The live index, writer's side: registering series. See index.h and index_inside.h.
 *
 * Series come from announcements (apply) and, after a restart, from stream dictionaries. Known ones are found by
 * fingerprint and compared by labels; new ones get an id, a local number of their partition and a place in their
 * tenant's tail.
 *
 * Invariants
 *  1. Ids are given out once and ascend within a tenant, over its parts and its tail; so an id is found in parts
 *     by bisection. An id's facts never change but to "dropped".
 *  2. A failed add leaves the index as it was, except for spare memory.
 *  3. Everything of a series is in place before its id can be met in the table or in the tail.
 *  4. Equal fingerprints mean equal (tenant, labels): the labels are compared when it is registered again. */
#include "metric/index_inside.h"

#include "base/check.h"
#include "base/hash.h"
#include "model/labels.h"
#include "model/sum.h"

#include <string.h>

#define SLOTS_MIN   1024u /* a power of two */
#define TABLE_AHEAD 12    /* each entry is a miss in a large table: fetch early */

static uint32_t tag_of(struct hash128 fingerprint) { return (uint32_t)(fingerprint.high >> 32); }

/* ---- open, close ---- */

err metric_index_open(struct pool *parent, uint32_t partition_count, struct metric_index **out_index)
{
    check(partition_count > 0 && partition_count <= METRIC_INDEX_PARTITIONS_MAX);
    err e = OK;
    struct pool *pool = pool_open(parent, "series index", POOL_BYTES_UNLIMITED);
    void *at, *partitions;
    TRY_OUT(pool_zalloc(pool, sizeof(struct metric_index), &at));
    TRY_OUT(pool_zalloc(pool, partition_count * sizeof(struct partition *), &partitions));
    struct metric_index *index = at;
    index->pool = pool;
    index->partition_count = partition_count;
    index->partitions = partitions;
    TRY_OUT(index_table_build(index, SLOTS_MIN, &index->slots, &index->slot_used));
    index->slot_count = SLOTS_MIN;
    io_rwlock_init(&index->lock);
    io_mutex_init(&index->turn);
    io_cond_init(&index->flushed);
    *out_index = index;
out:
    if (e != OK)
        pool_close(pool);
    return e;
}

void metric_index_close(struct metric_index *index)
{
    if (index == NULL)
        return;
    for (size_t i = 0; i < index->tenant_count; i++) {
        struct tenant *tenant = index->tenants[i];
        for (size_t k = 0; k < tenant->part_count; k++)
            live_part_unref(tenant->parts[k]);
        tail_unref(tenant->tail);
    }
    index_limbo_close(index);
    io_rwlock_done(&index->lock);
    io_cond_done(&index->flushed);
    io_mutex_done(&index->turn);
    pool_close(index->pool);
}

/* ---- table ---- */

/* Where a fingerprint is looked for first; any number of slots will do (Lemire 2019: multiply, do not divide). The
 * fingerprint is no secret, so one is mixed in. */
static uint32_t home_of(uint32_t slot_count, struct hash128 fingerprint)
{
    uint64_t mixed = fingerprint.low * (hash_secret() | 1);
    return (uint32_t)((mixed >> 32) * slot_count >> 32);
}

static void table_put(_Atomic uint64_t *slots, uint32_t slot_count, struct hash128 fingerprint, uint32_t id)
{
    uint32_t slot = home_of(slot_count, fingerprint);
    while ((uint32_t)atomic_load_explicit(&slots[slot], memory_order_relaxed) != METRIC_ID_NONE)
        slot = slot + 1 == slot_count ? 0 : slot + 1;
    atomic_store_explicit(&slots[slot], (uint64_t)tag_of(fingerprint) << 32 | id, memory_order_release);
}

err index_table_build(struct metric_index *index, uint32_t slot_count, _Atomic uint64_t **out_slots,
                      uint32_t *out_used)
{
    void *at = NULL;
    uint32_t used = 0;
    TRY(pool_block_resize(index->pool, &at, (size_t)slot_count * sizeof(uint64_t)));
    const uint64_t *slots = at;
    memset(at, 0xff, (size_t)slot_count * sizeof(uint64_t));
    for (uint64_t from = 0; from < index->id_end; from += ID_CHUNK) {
        const struct id_chunk *chunk = index_chunk(index, (uint32_t)from);
        for (uint32_t i = 0; chunk != NULL && i < ID_CHUNK; i++) {
            uint32_t ahead = i + TABLE_AHEAD;
            struct hash128 fingerprint;
            if (ahead < ID_CHUNK && chunk_fingerprint(index, chunk, ahead, &fingerprint))
                __builtin_prefetch(&slots[home_of(slot_count, fingerprint)], 1);
            if (!chunk_fingerprint(index, chunk, i, &fingerprint))
                continue;
            table_put(at, slot_count, fingerprint, (uint32_t)from + i);
            used++;
        }
    }
    *out_slots = at;
    *out_used = used;
    return OK;
}

/* Keep a free slot in eight. By a half and by a third in turn: a large table is never half empty. */
static err table_grow(struct metric_index *index)
{
    uint32_t count = index->slot_count;
    if ((uint64_t)(index->slot_used + 1) * 8 <= (uint64_t)count * 7)
        return OK;
    if (count > UINT32_MAX / 2)
        return ERR_LIMIT;
    count = (count & (count - 1)) == 0 ? count + count / 2 : count / 3 * 4;
    _Atomic uint64_t *slots, *old = index->slots;
    uint32_t used;
    TRY(index_table_build(index, count, &slots, &used));
    io_rwlock_write(&index->lock);
    index->slots = slots;
    index->slot_count = count;
    index->slot_used = used;
    io_rwlock_unlock(&index->lock);
    pool_block_free(index->pool, (void *)(uintptr_t)old);
    return OK;
}

static uint32_t table_find(const struct metric_index *index, struct hash128 fingerprint)
{
    uint32_t tag = tag_of(fingerprint), slot = home_of(index->slot_count, fingerprint);
    for (;; slot = slot + 1 == index->slot_count ? 0 : slot + 1) {
        uint64_t v = atomic_load_explicit(&index->slots[slot], memory_order_acquire);
        uint32_t id = (uint32_t)v;
        if (id == METRIC_ID_NONE)
            return METRIC_ID_NONE;
        if (v >> 32 != tag)
            continue;
        struct hash128 found;
        if (chunk_fingerprint(index, index_chunk(index, id), id, &found) && hash128_equal(found, fingerprint))
            return id;
    }
}

uint32_t metric_index_find(struct metric_index *index, struct hash128 fingerprint)
{
    uint32_t token = metric_index_hold(index); /* else a chunk might be freed under the comparison */
    io_rwlock_read(&index->lock);
    uint32_t id = table_find(index, fingerprint);
    io_rwlock_unlock(&index->lock);
    metric_index_release(index, token);
    return id;
}

/* ---- tenants and partitions ---- */

struct tenant *index_find_tenant(const struct metric_index *index, struct slice name)
{
    /* Tenants are few; a node with thousands pays a microsecond per announcement of another tenant. */
    for (size_t i = 0; i < index->tenant_count; i++)
        if (slice_equal(index->tenants[i]->name, name))
            return index->tenants[i];
    return NULL;
}

struct tenant *index_tenant_of(const struct metric_index *index, uint32_t id)
{
    const struct id_chunk *chunk = index_chunk(index, id);
    if (chunk_partition(chunk, id) == ID_DROPPED)
        return NULL;
    return index->tenants[chunk->tenants[id % ID_CHUNK / ID_BLOCK]];
}

/* A tenant of which nothing is left gives its place to a new one, ids that it had not used included. Its old name
 * stays in the pool: queries may hold it. */
static err reuse_tenant(struct metric_index *index, struct slice name, struct tenant **out_tenant)
{
    *out_tenant = NULL;
    for (size_t i = 0; i < index->tenant_count; i++) {
        struct tenant *tenant = index->tenants[i];
        if (atomic_load_explicit(&tenant->live, memory_order_relaxed) != 0 || tenant->part_count != 0 ||
            atomic_load_explicit(&tenant->tail->count, memory_order_relaxed) != 0)
            continue;
        struct slice copy;
        TRY(pool_copy(index->pool, name, &copy));
        io_rwlock_write(&index->lock);
        tenant->name = copy;
        io_rwlock_unlock(&index->lock);
        *out_tenant = tenant;
        return OK;
    }
    return OK;
}

static err make_tenant(struct metric_index *index, struct slice name, struct tenant **out_tenant)
{
    if (index->last_tenant != NULL && slice_equal(index->last_tenant->name, name)) {
        *out_tenant = index->last_tenant;
        return OK;
    }
    struct tenant *tenant = index_find_tenant(index, name);
    if (tenant == NULL)
        TRY(reuse_tenant(index, name, &tenant));
    if (tenant == NULL) {
        void *at;
        if (index->tenant_count == METRIC_INDEX_TENANTS_MAX)
            return ERR_LIMIT;
        TRY(pool_zalloc(index->pool, sizeof *tenant, &at));
        tenant = at;
        TRY(pool_copy(index->pool, name, &tenant->name));
        tenant->number = (uint16_t)index->tenant_count;
        TRY(tail_open(index->pool, &tenant->tail));
        io_rwlock_write(&index->lock);
        err e = pool_block_reserve(index->pool, (void **)&index->tenants, sizeof tenant,
                                   index->tenant_count + 1, &index->tenant_capacity);
        if (e == OK)
            index->tenants[index->tenant_count++] = tenant;
        io_rwlock_unlock(&index->lock);
        if (e != OK) {
            tail_unref(tenant->tail);
            return e;
        }
    }
    index->last_tenant = tenant;
    *out_tenant = tenant;
    return OK;
}

static err make_partition(struct metric_index *index, uint32_t number, struct partition **out_partition)
{
    struct partition *partition = atomic_load_explicit(&index->partitions[number], memory_order_relaxed);
    if (partition == NULL) {
        void *at;
        TRY(pool_zalloc(index->pool, sizeof *partition, &at));
        partition = at;
        partition->id_of_local = slots_open(index->pool);
        TRY(slots_begin(&partition->id_of_local));
        atomic_store_explicit(&index->partitions[number], partition, memory_order_release);
    }
    *out_partition = partition;
    return OK;
}

/* Make sure that the tenant has an id to give. */
static err make_id(struct metric_index *index, struct tenant *tenant)
{
    if (tenant->next_id != tenant->end_id)
        return OK;
    if (index->id_end + ID_BLOCK > UINT32_MAX)
        return ERR_LIMIT;
    uint32_t id = (uint32_t)index->id_end;
    _Atomic(struct id_middle *) *root = &index->ids[id / (ID_CHUNK * ID_MIDDLE)];
    void *at;
    if (atomic_load_explicit(root, memory_order_relaxed) == NULL) {
        TRY(pool_zalloc(index->pool, sizeof(struct id_middle), &at));
        atomic_store_explicit(root, at, memory_order_release);
    }
    struct id_chunk *chunk = index_chunk(index, id);
    if (chunk == NULL) {
        at = NULL;
        TRY(pool_block_resize(index->pool, &at, sizeof(struct id_chunk)));
        chunk = at;
        memset(chunk->partitions, 0xff, sizeof chunk->partitions);
        chunk->live = 0;
        struct id_middle *middle = atomic_load_explicit(root, memory_order_relaxed);
        atomic_store_explicit(&middle->chunks[id / ID_CHUNK % ID_MIDDLE], chunk, memory_order_release);
    }
    chunk->tenants[id % ID_CHUNK / ID_BLOCK] = tenant->number;
    tenant->next_id = id;
    tenant->end_id = id + ID_BLOCK;
    index->id_end += ID_BLOCK;
    return OK;
}

/* The local number that the partition's next series gets. */
static err make_local(struct pool *pool, struct partition *partition, uint32_t *out_local)
{
    if (partition->free_count > 0) {
        *out_local = partition->free_locals[partition->free_count - 1];
        return OK;
    }
    uint32_t local = atomic_load_explicit(&partition->local_count, memory_order_relaxed);
    if (local == METRIC_LOCALS_MAX)
        return ERR_LIMIT;
    TRY(slots_reserve(&partition->id_of_local, local + 1));
    _Atomic(struct hash128 *) *chunk = &partition->fingerprints.chunks[local / METRIC_FINGERPRINT_CHUNK];
    if (atomic_load_explicit(chunk, memory_order_relaxed) == NULL) {
        void *at;
        TRY(pool_alloc(pool, METRIC_FINGERPRINT_CHUNK * sizeof(struct hash128), &at));
        atomic_store_explicit(chunk, at, memory_order_release);
    }
    *out_local = local;
    return OK;
}

/* ---- add ---- */

static err known_series(struct metric_index *index, struct slice tenant, struct slice labels,
                        uint32_t partition, uint32_t id)
{
    struct slice stored_tenant;
    struct buf stored = buf_open(index->pool, LABELS_BYTES_MAX);
    err e = index_labels_of(index, id, &stored_tenant, &stored);
    if (e == OK && (!slice_equal(stored_tenant, tenant) || !slice_equal(buf_slice(&stored), labels) ||
                    chunk_partition(index_chunk(index, id), id) != partition))
        e = ERR_CONFLICT;
    buf_close(&stored);
    return e;
}

static bool tail_is_due(const struct tenant *tenant, bool expects_many)
{
    uint64_t due = atomic_load_explicit(&tenant->live, memory_order_relaxed) / 32;
    due = due < TAIL_SERIES_MIN ? TAIL_SERIES_MIN : due > TAIL_SERIES_DUE ? TAIL_SERIES_DUE : due;
    if (expects_many)
        due = TAIL_SERIES_MANY;
    return atomic_load_explicit(&tenant->tail->count, memory_order_relaxed) >= due;
}

static bool tail_is_full(const struct tenant *tenant)
{
    return atomic_load_explicit(&tenant->tail->count, memory_order_relaxed) == TAIL_SERIES_MAX;
}

/* Room in the tail, by making a part of it when it is due. *out_left: the turn was left meanwhile. */
static err make_tail_room(struct metric_index *index, struct tenant *tenant, bool *out_left)
{
    *out_left = false;
    for (;;) {
        if (tenant->is_flushing ? !tail_is_full(tenant) : !tail_is_due(tenant, index->expects_many))
            return OK;
        *out_left = true;
        if (tenant->is_flushing) {
            io_cond_wait(&index->flushed, &index->turn);
            continue;
        }
        err e = tenant_flush(index, tenant);
        if (!tail_is_full(tenant))
            return OK; /* a part too few, or a merge left over: nothing is lost but speed */
        TRY(e);        /* else others filled the tail while parts were merged */
    }
}

static err new_series(struct metric_index *index, struct tenant *tenant, struct slice labels,
                      struct hash128 fingerprint, uint32_t partition_number, uint32_t *out_id)
{
    struct partition *partition;
    uint32_t local;
    TRY(table_grow(index));
    TRY(make_partition(index, partition_number, &partition));
    TRY(make_id(index, tenant));
    TRY(make_local(index->pool, partition, &local));
    uint32_t id = tenant->next_id;
    struct id_chunk *chunk = index_chunk(index, id);
    atomic_load_explicit(&partition->fingerprints.chunks[local / METRIC_FINGERPRINT_CHUNK],
                         memory_order_relaxed)[local % METRIC_FINGERPRINT_CHUNK] = fingerprint;
    chunk->locals[id % ID_CHUNK] = local;
    atomic_store_explicit(&chunk->partitions[id % ID_CHUNK], (uint16_t)partition_number,
                          memory_order_relaxed);
    err e = tail_add(tenant->tail, labels, id);
    if (e != OK) {
        atomic_store_explicit(&chunk->partitions[id % ID_CHUNK], ID_DROPPED, memory_order_relaxed);
        return e;
    }
    tenant->next_id++;
    chunk->live++;
    slots_set(&partition->id_of_local, local, id);
    if (partition->free_count > 0)
        partition->free_count--;
    else
        atomic_store_explicit(&partition->local_count, local + 1, memory_order_release);
    atomic_fetch_add_explicit(&tenant->live, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&index->live, 1, memory_order_relaxed);
    table_put(index->slots, index->slot_count, fingerprint, id);
    index->slot_used++;
    *out_id = id;
    return OK;
}

/* The writer's. */
static err add(struct metric_index *index, struct slice tenant_name, struct slice labels,
               struct hash128 fingerprint, uint32_t partition, uint32_t *out_id, bool *out_is_new)
{
    uint32_t id = table_find(index, fingerprint);
    struct tenant *tenant = NULL;
    bool is_left = false;
    if (id == METRIC_ID_NONE) {
        TRY(make_tenant(index, tenant_name, &tenant));
        TRY(make_tail_room(index, tenant, &is_left));
    }
    if (is_left) /* it may have come since */
        id = table_find(index, fingerprint);
    bool is_new = id == METRIC_ID_NONE;
    if (is_new) {
        TRY(new_series(index, tenant, labels, fingerprint, partition, &id));
    } else {
        TRY(known_series(index, tenant_name, labels, partition, id));
    }
    *out_id = id;
    *out_is_new = is_new;
    return OK;
}

err metric_index_add(struct metric_index *index, struct slice tenant, struct slice labels, uint32_t partition,
                     uint32_t *out_id, bool *out_is_new)
{
    check(partition < index->partition_count);
    struct hash128 fingerprint = sum_series_hash(tenant, labels);
    io_mutex_lock(&index->turn);
    err e = add(index, tenant, labels, fingerprint, partition, out_id, out_is_new);
    io_mutex_unlock(&index->turn);
    return e;
}

err metric_index_add_all(struct metric_index *index, struct slice tenant, struct metric_index_item *items,
                         size_t count, uint32_t partition, size_t *out_done)
{
    check(partition < index->partition_count);
    for (size_t i = 0; i < count; i++)
        items[i].fingerprint = sum_series_hash(tenant, items[i].labels);
    size_t done = 0;
    err e = OK;
    io_mutex_lock(&index->turn);
    for (size_t i = 0; i < count; i++) /* each is a miss in a large table: let them overlap */
        __builtin_prefetch((const void *)&index->slots[home_of(index->slot_count, items[i].fingerprint)]);
    for (; done < count && e == OK; done += e == OK) {
        bool is_new;
        e = add(index, tenant, items[done].labels, items[done].fingerprint, partition, &items[done].id,
                &is_new);
        if (e == OK)
            items[done].local = metric_index_local(index, items[done].id);
    }
    io_mutex_unlock(&index->turn);
    *out_done = done;
    return e;
}

void metric_index_expect_many(struct metric_index *index, bool many)
{
    io_mutex_lock(&index->turn);
    bool is_over = index->expects_many && !many;
    index->expects_many = many; /* before: parts are merged as they are from now on */
    if (is_over)                /* what is left in tails is looked at one by one */
        for (size_t i = 0; i < index->tenant_count; i++)
            if (!index->tenants[i]->is_flushing && tail_is_due(index->tenants[i], false))
                ERR_IGNORE(
                    tenant_flush(index, index->tenants[i])); /* tried again when the next series comes */
    io_mutex_unlock(&index->turn);
}

err metric_index_fingerprints(struct metric_index *index, uint32_t number,
                              const struct metric_fingerprints **out_fingerprints)
{
    struct partition *partition;
    check(number < index->partition_count);
    io_mutex_lock(&index->turn);
    err e = make_partition(index, number, &partition);
    io_mutex_unlock(&index->turn);
    if (e == OK)
        *out_fingerprints = &partition->fingerprints;
    return e;
}

/* ---- facts ---- */

uint16_t metric_index_partition(const struct metric_index *index, uint32_t id)
{
    return chunk_partition(index_chunk(index, id), id);
}

uint32_t metric_index_local(const struct metric_index *index, uint32_t id)
{
    const struct id_chunk *chunk = index_chunk(index, id);
    return chunk_partition(chunk, id) == ID_DROPPED ? METRIC_LOCAL_NONE : chunk->locals[id % ID_CHUNK];
}

struct hash128 metric_index_fingerprint(const struct metric_index *index, uint32_t id)
{
    struct hash128 fingerprint = { 0 };
    return chunk_fingerprint(index, index_chunk(index, id), id, &fingerprint) ? fingerprint
                                                                              : (struct hash128){ 0 };
}

uint32_t metric_index_id_of_local(const struct metric_index *index, uint32_t partition, uint32_t local)
{
    check(partition < index->partition_count);
    const struct partition *p = atomic_load_explicit(&index->partitions[partition], memory_order_acquire);
    return p == NULL ? METRIC_ID_NONE : slots_get(&p->id_of_local, local);
}

uint32_t metric_index_local_count(const struct metric_index *index, uint32_t partition)
{
    check(partition < index->partition_count);
    const struct partition *p = atomic_load_explicit(&index->partitions[partition], memory_order_acquire);
    return p == NULL ? 0 : atomic_load_explicit(&p->local_count, memory_order_acquire);
}

uint64_t metric_index_series(const struct metric_index *index)
{
    return atomic_load_explicit(&index->live, memory_order_relaxed);
}

uint64_t metric_index_tenant_series(struct metric_index *index, struct slice tenant_name)
{
    io_rwlock_read(&index->lock);
    const struct tenant *tenant = index_find_tenant(index, tenant_name);
    uint64_t live = tenant == NULL ? 0 : atomic_load_explicit(&tenant->live, memory_order_relaxed);
    io_rwlock_unlock(&index->lock);
    return live;
}
