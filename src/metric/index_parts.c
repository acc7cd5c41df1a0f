/* Tails and parts of the live index. See index_inside.h.
 *
 * New series wait in a tenant's tail as raw labels, looked at one by one by queries. A tail that is due
 * becomes an immutable part; parts of a like size are merged, eight into one (at a start sixteen, of longer
 * tails), by concatenation in arrival order. So a series is rewritten about log8(series / 1,024) times in its
 * life, and a query looks at few parts.
 *
 * Invariants
 *  1. Ids ascend within a part, from part to part, and on into the tail.
 *  2. A part is never changed once it is in a list; lists are exchanged under the index's lock.
 *  3. Dropped series are left out whenever a part is written anew.
 *  4. One writer at a time makes a part for a tenant; nobody else exchanges its tail or parts meanwhile. */
#include "metric/index_inside.h"

#include "base/check.h"

#include <string.h>

/* ---- tail ---- */

err tail_open(struct pool *parent, struct tail **out_tail)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(parent, "index tail", sizeof(struct tail), &pool, &at));
    struct tail *tail = at;
    tail->pool = pool;
    atomic_init(&tail->refs, 1);
    *out_tail = tail;
    return OK;
}

void tail_unref(struct tail *tail)
{
    if (tail != NULL && atomic_fetch_sub_explicit(&tail->refs, 1, memory_order_acq_rel) == 1)
        pool_close(tail->pool);
}

err tail_add(struct tail *tail, struct slice labels, uint32_t id)
{
    uint32_t count = atomic_load_explicit(&tail->count, memory_order_relaxed);
    if (count == TAIL_SERIES_MAX)
        return ERR_FULL;
    struct tail_entry **chunk = &tail->chunks[count / TAIL_CHUNK];
    if (*chunk == NULL) {
        void *at;
        TRY(pool_alloc(tail->pool, TAIL_CHUNK * sizeof **chunk, &at));
        *chunk = at;
    }
    struct slice copy;
    TRY(pool_copy(tail->pool, labels, &copy));
    (*chunk)[count % TAIL_CHUNK] =
        (struct tail_entry){ .labels = copy.at, .len = (uint32_t)copy.len, .id = id };
    atomic_store_explicit(&tail->count, count + 1, memory_order_release);
    return OK;
}

const struct tail_entry *tail_find(const struct tail *tail, uint32_t count, uint32_t id)
{
    uint32_t from = 0, to = count;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        const struct tail_entry *entry = tail_entry_at(tail, middle);
        if (entry->id == id)
            return entry;
        if (entry->id < id)
            from = middle + 1;
        else
            to = middle;
    }
    return NULL;
}

/* ---- parts ---- */

void live_part_unref(struct live_part *part)
{
    if (part != NULL && atomic_fetch_sub_explicit(&part->refs, 1, memory_order_acq_rel) == 1)
        pool_close(part->pool);
}

bool live_part_find(const struct live_part *part, uint32_t id, uint32_t *out_ordinal)
{
    if (id < part->id_min || id > part->id_max)
        return false;
    uint32_t from = 0, to = part->extent_count;
    while (to - from > 1) {
        uint32_t middle = from + (to - from) / 2;
        if (part->extents[middle].id <= id)
            from = middle;
        else
            to = middle;
    }
    const struct extent *extent = &part->extents[from];
    uint32_t ordinal = extent->ordinal + (id - extent->id);
    if (ordinal >= extent_end(part, from))
        return false;
    *out_ordinal = ordinal;
    return true;
}

/* A part under construction. */
struct making {
    struct metric_part_builder *builder;
    struct pool *pool; /* of the extents while they grow */
    struct extent *extents;
    size_t extent_count, extent_capacity;
    uint32_t count, next_id;
};

static err making_open(struct pool *parent, struct making *out)
{
    struct pool *pool = pool_open(parent, "index part in the making", POOL_BYTES_UNLIMITED);
    *out = (struct making){ .pool = pool };
    err e = metric_part_builder_open(pool, &out->builder);
    if (e != OK)
        pool_close(pool);
    return e;
}

static void making_close(struct making *m)
{
    metric_part_builder_close(m->builder);
    pool_close(m->pool);
}

/* Note that the next ordinal has this id. */
static err making_note(struct making *m, uint32_t id)
{
    if (m->count == 0 || id != m->next_id) {
        TRY(pool_block_reserve(m->pool, (void **)&m->extents, sizeof *m->extents, m->extent_count + 1,
                               &m->extent_capacity));
        m->extents[m->extent_count++] = (struct extent){ .ordinal = m->count, .id = id };
    }
    m->count++;
    m->next_id = id + 1;
    return OK;
}

/* The finished part, in a pool of its own. NULL when no series is in it. */
static err making_finish(struct making *m, struct pool *parent, struct live_part **out_part)
{
    err e = OK;
    *out_part = NULL;
    if (m->count == 0)
        return OK;
    struct pool *pool = pool_open(parent, "index part", POOL_BYTES_UNLIMITED);
    struct buf image = buf_open(pool, METRIC_PART_IMAGE_BYTES_MAX);
    void *at, *extents, *exact;
    TRY_OUT(metric_part_builder_finish(m->builder, &image));
    TRY_OUT(pool_alloc(pool, sizeof(struct live_part), &at));
    TRY_OUT(pool_alloc(pool, m->extent_count * sizeof *m->extents, &extents));
    exact = image.at;
    TRY_OUT(pool_block_resize(pool, &exact, image.len)); /* a buf grows by doubling; parts live long */
    memcpy(extents, m->extents, m->extent_count * sizeof *m->extents);
    struct live_part *part = at;
    *part = (struct live_part){ .pool = pool,
                                .extents = extents,
                                .extent_count = (uint32_t)m->extent_count,
                                .id_min = m->extents[0].id,
                                .id_max = m->next_id - 1 };
    atomic_init(&part->refs, 1);
    TRY_OUT(metric_part_open(slice_of(exact, image.len), &part->part));
    check(part->part.series_count == m->count);
    *out_part = part;
out:
    if (e != OK)
        pool_close(pool);
    check(e != ERR_CORRUPT); /* we wrote the image ourselves */
    return e;
}

err live_part_build(struct pool *parent, const struct tail *tail, uint32_t count,
                    const struct metric_index *index, struct live_part **out_part)
{
    err e;
    struct making m;
    TRY(making_open(parent, &m));
    for (uint32_t i = 0; i < count; i++) {
        const struct tail_entry *entry = tail_entry_at(tail, i);
        if (!index_lives(index, entry->id))
            continue;
        TRY_OUT(metric_part_builder_add(m.builder, slice_of(entry->labels, entry->len)));
        TRY_OUT(making_note(&m, entry->id));
    }
    e = making_finish(&m, parent, out_part);
out:
    check(e != ERR_INPUT); /* labels were checked when they came */
    making_close(&m);
    return e;
}

/* Others may add series while one part is built; the tail and the list of parts stay those they are. */
static void leave_turn(struct metric_index *index, struct tenant *tenant)
{
    check(!tenant->is_flushing);
    tenant->is_flushing = true;
    io_mutex_unlock(&index->turn);
}

static void take_turn(struct metric_index *index, struct tenant *tenant)
{
    io_mutex_lock(&index->turn);
    tenant->is_flushing = false;
    io_cond_broadcast(&index->flushed);
}

/* The living series of these parts as one part. */
static err merge_parts(struct metric_index *index, struct live_part *const *parts, size_t count,
                       struct live_part **out_part)
{
    err e;
    struct making m;
    TRY(making_open(index->pool, &m));
    for (size_t p = 0; p < count; p++) {
        const struct live_part *part = parts[p];
        uint32_t series = part->part.series_count;
        void *at = NULL;
        bool all = atomic_load_explicit(&part->dropped, memory_order_relaxed) == 0;
        TRY_OUT(pool_block_resize(m.pool, &at, ((size_t)series / 64 + 1) * 8));
        uint64_t *keep = at;
        memset(keep, 0, ((size_t)series / 64 + 1) * 8);
        for (uint32_t x = 0; x < part->extent_count; x++) {
            for (uint32_t ordinal = part->extents[x].ordinal; ordinal < extent_end(part, x); ordinal++) {
                uint32_t id = part->extents[x].id + (ordinal - part->extents[x].ordinal);
                if (!all && !index_lives(index, id))
                    continue;
                keep[ordinal / 64] |= UINT64_C(1) << ordinal % 64;
                TRY_OUT(making_note(&m, id));
            }
        }
        TRY_OUT(metric_part_builder_add_part(m.builder, &part->part, all ? NULL : keep));
        pool_block_free(m.pool, at);
    }
    e = making_finish(&m, index->pool, out_part);
out:
    check(e != ERR_CORRUPT);
    making_close(&m);
    return e;
}

/* Put `part` (NULL: nothing) in the place of parts [from, from + count) of the tenant. */
static err exchange(struct metric_index *index, struct tenant *tenant, size_t from, size_t count,
                    struct live_part *part)
{
    err e = OK;
    struct pool *scratch = pool_open(index->pool, "index exchange", POOL_BYTES_UNLIMITED);
    void *at;
    TRY_OUT(pool_alloc(scratch, (count + 1) * sizeof(struct live_part *), &at));
    struct live_part **old = at;
    size_t added = part != NULL, tail_from = from + count, tail_count = tenant->part_count - tail_from;
    io_rwlock_write(&index->lock);
    e = pool_block_reserve(index->pool, (void **)&tenant->parts, sizeof part, tenant->part_count + 1,
                           &tenant->part_capacity);
    if (e == OK) {
        if (count > 0)
            memcpy(old, tenant->parts + from, count * sizeof part);
        memmove(tenant->parts + from + added, tenant->parts + tail_from, tail_count * sizeof part);
        if (part != NULL)
            tenant->parts[from] = part;
        tenant->part_count = from + added + tail_count;
    }
    io_rwlock_unlock(&index->lock);
    for (size_t i = 0; i < count && e == OK; i++)
        live_part_unref(old[i]);
out:
    pool_close(scratch);
    return e;
}

static unsigned tier_of(const struct live_part *part)
{
    unsigned tier = 0;
    for (uint64_t size = (uint64_t)TAIL_SERIES_MIN * 2; part->part.series_count >= size;
         size *= PART_TIER_COUNT)
        tier++;
    return tier;
}

/* Merge the newest parts while enough of a size (or smaller) stand together. */
static err merge_tiers(struct metric_index *index, struct tenant *tenant)
{
    size_t due = index->expects_many ? PART_TIER_MANY : PART_TIER_COUNT;
    for (;;) {
        size_t count = 0;
        uint64_t series = 0;
        unsigned tier = tenant->part_count == 0 ? 0 : tier_of(tenant->parts[tenant->part_count - 1]);
        while (count < tenant->part_count) {
            const struct live_part *part = tenant->parts[tenant->part_count - 1 - count];
            if (tier_of(part) > tier || series + part->part.series_count > PART_MERGE_MAX)
                break;
            series += part->part.series_count;
            count++;
        }
        if (count < due)
            return OK;
        size_t from = tenant->part_count - count;
        struct live_part *merged;
        struct live_part *const *parts = tenant->parts + from;
        leave_turn(index, tenant);
        err e = merge_parts(index, parts, count, &merged);
        take_turn(index, tenant);
        TRY(e);
        e = exchange(index, tenant, from, count, merged);
        if (e != OK) {
            live_part_unref(merged);
            return e;
        }
    }
}

/* A tail with what was added behind `count`. */
static err rest_of_tail(struct metric_index *index, const struct tail *tail, uint32_t count,
                        struct tail **out_rest)
{
    TRY(tail_open(index->pool, out_rest));
    uint32_t end = atomic_load_explicit(&tail->count, memory_order_relaxed);
    for (uint32_t i = count; i < end; i++) {
        const struct tail_entry *entry = tail_entry_at(tail, i);
        err e = tail_add(*out_rest, slice_of(entry->labels, entry->len), entry->id);
        if (e != OK) {
            tail_unref(*out_rest);
            return e;
        }
    }
    return OK;
}

/* Put a part (NULL: nothing) in the place of the first `count` series of the tail. */
static err exchange_tail(struct metric_index *index, struct tenant *tenant, uint32_t count,
                         struct live_part *part)
{
    struct tail *rest, *old = tenant->tail;
    TRY(rest_of_tail(index, old, count, &rest));
    /* One exchange for both, so that no reader misses or doubles the tail's series. */
    io_rwlock_write(&index->lock);
    err e = pool_block_reserve(index->pool, (void **)&tenant->parts, sizeof part, tenant->part_count + 1,
                               &tenant->part_capacity);
    if (e == OK) {
        if (part != NULL)
            tenant->parts[tenant->part_count++] = part;
        tenant->tail = rest;
    }
    io_rwlock_unlock(&index->lock);
    tail_unref(e == OK ? old : rest);
    return e;
}

static err flush_tail(struct metric_index *index, struct tenant *tenant)
{
    struct live_part *part = NULL;
    struct tail *tail = tenant->tail;
    uint32_t count = atomic_load_explicit(&tail->count, memory_order_relaxed);
    if (count == 0)
        return OK;
    leave_turn(index, tenant);
    err e = live_part_build(index->pool, tail, count, index, &part);
    take_turn(index, tenant);
    if (e == OK) {
        e = exchange_tail(index, tenant, count, part);
        if (e != OK)
            live_part_unref(part);
    }
    return e;
}

err tenant_flush(struct metric_index *index, struct tenant *tenant)
{
    TRY(flush_tail(index, tenant));
    return merge_tiers(index, tenant);
}

err tenant_clean(struct metric_index *index, struct tenant *tenant)
{
    err first = OK;
    if (tenant->tail->dropped > 0)
        first = tenant_flush(index, tenant);
    for (size_t i = 0; i < tenant->part_count;) {
        struct live_part *part = tenant->parts[i], *fresh = NULL;
        uint32_t dropped = atomic_load_explicit(&part->dropped, memory_order_relaxed);
        if ((uint64_t)dropped * 2 <= part->part.series_count) {
            i++;
            continue;
        }
        err e = dropped == part->part.series_count ? OK : merge_parts(index, &part, 1, &fresh);
        if (e == OK)
            e = exchange(index, tenant, i, 1, fresh);
        if (e != OK) {
            live_part_unref(fresh);
            first = first == OK ? e : first;
            i++;
            continue;
        }
        i += fresh != NULL;
    }
    err e = merge_tiers(index, tenant);
    return first == OK ? e : first;
}
