/* Queries on the live index, and labels for who stores them. See index.h and index_inside.h.
 *
 * A query takes references to its tenant's parts and tail under the lock, and works on them without it: parts
 * through their own reader, the tail by looking at each label set. Ordinals become ids by the part's extents;
 * dropped series are left out on the way.
 *
 * Invariants
 *  1. Parts come before the tail and their ids ascend, so results are ascending by construction.
 *  2. Whoever asks holds the index meanwhile, so no id chunk that a view may touch is freed. */
#include "metric/index_inside.h"

#include "base/check.h"
#include "metric/sort.h"
#include "model/labels.h"

#include <string.h>

/* ---- views ---- */

err index_view_open(struct metric_index *index, struct slice tenant_name, struct pool *pool,
                    struct index_view *out_view)
{
    struct index_view view = { 0 };
    io_rwlock_read(&index->lock);
    const struct tenant *tenant = index_find_tenant(index, tenant_name);
    err e = OK;
    if (tenant != NULL) {
        void *at;
        e = pool_alloc(pool, (tenant->part_count + 1) * sizeof *view.parts, &at);
        if (e == OK) {
            view.parts = at;
            for (; view.part_count < tenant->part_count; view.part_count++) {
                view.parts[view.part_count] = tenant->parts[view.part_count];
                atomic_fetch_add_explicit(&view.parts[view.part_count]->refs, 1, memory_order_relaxed);
            }
            view.tail = tenant->tail;
            atomic_fetch_add_explicit(&view.tail->refs, 1, memory_order_relaxed);
            view.tail_count = atomic_load_explicit(&view.tail->count, memory_order_acquire);
        }
    }
    io_rwlock_unlock(&index->lock);
    if (e == OK)
        *out_view = view;
    return e;
}

void index_view_close(struct index_view *view)
{
    for (size_t i = 0; i < view->part_count; i++)
        live_part_unref(view->parts[i]);
    tail_unref(view->tail);
}

/* An open view and memory that goes with it. */
struct metric_index_view {
    struct metric_index *index;
    struct pool *pool;
    struct index_view at; /* the moment */
};

err metric_index_view_open(struct metric_index *index, struct slice tenant, struct pool *parent,
                           struct metric_index_view **out_view)
{
    check(atomic_load_explicit(&index->holders[0], memory_order_relaxed) +
              atomic_load_explicit(&index->holders[1], memory_order_relaxed) >
          0);
    struct pool *pool = pool_open(parent, "index query", POOL_BYTES_UNLIMITED);
    void *memory;
    err e = OK;
    TRY_OUT(pool_zalloc(pool, sizeof(struct metric_index_view), &memory));
    struct metric_index_view *view = memory;
    *view = (struct metric_index_view){ .index = index, .pool = pool };
    TRY_OUT(index_view_open(index, tenant, pool, &view->at));
    *out_view = view;
out:
    if (e != OK)
        pool_close(pool);
    return e;
}

void metric_index_view_close(struct metric_index_view *view)
{
    if (view == NULL)
        return;
    index_view_close(&view->at);
    pool_close(view->pool);
}

/* ---- labels of one series ---- */

err index_labels_of(const struct metric_index *index, uint32_t id, struct slice *out_tenant, struct buf *out)
{
    const struct tenant *tenant = index_tenant_of(index, id);
    if (tenant == NULL)
        return ERR_NOT_FOUND;
    if (out_tenant != NULL)
        *out_tenant = tenant->name;
    const struct tail_entry *entry =
        tail_find(tenant->tail, atomic_load_explicit(&tenant->tail->count, memory_order_acquire), id);
    if (entry != NULL) {
        buf_put(out, entry->labels, entry->len);
        return buf_err(out);
    }
    uint32_t ordinal;
    size_t at = part_of_id(tenant->parts, tenant->part_count, id);
    if (at == tenant->part_count || !live_part_find(tenant->parts[at], id, &ordinal))
        return ERR_NOT_FOUND;
    return metric_part_labels(&tenant->parts[at]->part, ordinal, out);
}

/* ---- select ---- */

struct id_list {
    struct pool *pool;
    uint32_t *at;
    size_t count, capacity;
};

static err add_ordinals(const struct metric_index_view *view, const struct live_part *part,
                        const uint32_t *ordinals, size_t count, struct id_list *list)
{
    bool all_live = atomic_load_explicit(&part->dropped, memory_order_acquire) == 0;
    TRY(pool_block_reserve(list->pool, (void **)&list->at, sizeof *list->at, list->count + count,
                           &list->capacity));
    uint32_t extent = 0;
    for (size_t i = 0; i < count; i++) {
        while (ordinals[i] >= extent_end(part, extent))
            extent++;
        uint32_t id = part->extents[extent].id + (ordinals[i] - part->extents[extent].ordinal);
        if (all_live || index_lives(view->index, id))
            list->at[list->count++] = id;
    }
    return OK;
}

static uint64_t pair_bits(struct slice name, struct slice value)
{
    uint64_t hash = hash64(value, hash64(name, 0));
    return UINT64_C(1) << (hash & 63) | UINT64_C(1) << (hash >> 6 & 63);
}

/* The bits of an entry's labels. Made by whoever asks first, with the same outcome for all. */
static uint64_t tail_pairs(struct tail_entry *entry)
{
    uint64_t pairs = atomic_load_explicit(&entry->pairs, memory_order_relaxed);
    if (pairs != 0)
        return pairs;
    struct reader reader = reader_of(slice_of(entry->labels, entry->len));
    struct label label;
    while (labels_next(&reader, &label))
        pairs |= pair_bits(label.name, label.value);
    atomic_store_explicit(&entry->pairs, pairs, memory_order_relaxed);
    return pairs;
}

/* A tail has no postings and may hold many series, so most are passed over by their bits. */
static err select_tail(const struct metric_index_view *view, const struct matcher *matchers,
                       size_t matcher_count, struct id_list *list)
{
    uint64_t need = 0;
    for (size_t i = 0; i < matcher_count; i++)
        if (matchers[i].type == MATCH_EQUAL && matchers[i].value.len > 0)
            need |= pair_bits(matchers[i].name, matchers[i].value);
    for (uint32_t i = 0; i < view->at.tail_count; i++) {
        struct tail_entry *entry = tail_entry_at(view->at.tail, i);
        if ((need != 0 && (tail_pairs(entry) & need) != need) ||
            !matchers_match(matchers, matcher_count, slice_of(entry->labels, entry->len)) ||
            !index_lives(view->index, entry->id))
            continue;
        TRY(pool_block_reserve(list->pool, (void **)&list->at, sizeof *list->at, list->count + 1,
                               &list->capacity));
        list->at[list->count++] = entry->id;
    }
    return OK;
}

err metric_index_view_select(struct metric_index_view *view, const struct matcher *matchers,
                             size_t matcher_count, struct pool *pool, uint32_t **out_ids, size_t *out_count)
{
    err e = OK;
    void *at;
    struct pool *scratch = pool_open(view->pool, "index select", POOL_BYTES_UNLIMITED);
    struct pool *part_pool = pool_open(scratch, "part select", POOL_BYTES_UNLIMITED);
    struct id_list list = { .pool = scratch };
    for (size_t i = 0; i < view->at.part_count; i++) {
        uint32_t *ordinals;
        size_t count;
        TRY_OUT(metric_part_select(&view->at.parts[i]->part, matchers, matcher_count, part_pool, &ordinals,
                                   &count));
        TRY_OUT(add_ordinals(view, view->at.parts[i], ordinals, count, &list));
        pool_reset(part_pool);
    }
    TRY_OUT(select_tail(view, matchers, matcher_count, &list));
    TRY_OUT(pool_alloc(pool, (list.count + 1) * sizeof(uint32_t), &at));
    if (list.count > 0)
        memcpy(at, list.at, list.count * sizeof(uint32_t));
    *out_ids = at;
    *out_count = list.count;
out:
    pool_close(part_pool);
    pool_close(scratch);
    check(e != ERR_CORRUPT);
    return e;
}

err metric_index_select(struct metric_index *index, struct slice tenant, const struct matcher *matchers,
                        size_t matcher_count, struct pool *pool, uint32_t **out_ids, size_t *out_count)
{
    struct metric_index_view *view;
    TRY(metric_index_view_open(index, tenant, pool, &view));
    err e = metric_index_view_select(view, matchers, matcher_count, pool, out_ids, out_count);
    metric_index_view_close(view);
    return e;
}

/* ---- labels of a view's series ---- */

struct metric_index_cursor {
    const struct metric_index_view *view;
    struct pool *pool;
    struct metric_part_cursor *cursors; /* by part; opened on use */
};

err metric_index_cursor_open(const struct metric_index_view *view, struct pool *pool,
                             struct metric_index_cursor **out_cursor)
{
    void *memory, *cursors;
    TRY(pool_zalloc(pool, sizeof(struct metric_index_cursor), &memory));
    TRY(pool_zalloc(pool, (view->at.part_count + 1) * sizeof(struct metric_part_cursor), &cursors));
    struct metric_index_cursor *cursor = memory;
    *cursor = (struct metric_index_cursor){ .view = view, .pool = pool, .cursors = cursors };
    *out_cursor = cursor;
    return OK;
}

err metric_index_cursor_labels(struct metric_index_cursor *cursor, uint32_t id, struct buf *out)
{
    const struct index_view *at = &cursor->view->at;
    const struct tail_entry *entry = NULL;
    if (at->tail_count > 0 && id >= tail_entry_at(at->tail, 0)->id)
        entry = tail_find(at->tail, at->tail_count, id);
    if (entry != NULL) {
        buf_put(out, entry->labels, entry->len);
        return buf_err(out);
    }
    uint32_t ordinal;
    size_t i = part_of_id(at->parts, at->part_count, id);
    if (i == at->part_count || !live_part_find(at->parts[i], id, &ordinal))
        return ERR_NOT_FOUND;
    struct metric_part_cursor *part = &cursor->cursors[i];
    if (part->part == NULL)
        TRY(metric_part_cursor_open(&at->parts[i]->part, cursor->pool, part));
    err e = metric_part_cursor_seek(part, ordinal);
    if (e == OK)
        e = metric_part_cursor_labels(part, out);
    check(e != ERR_CORRUPT);
    return e;
}

/* ---- labels of a partition's series ---- */

/* A tenant as it was when one of its series was asked for. */
struct described {
    struct slice tenant;
    struct metric_index_view *view; /* NULL: not asked for yet */
    struct metric_index_cursor *cursor;
};

struct metric_index_describer {
    struct metric_index *index;
    struct pool *pool;
    uint32_t partition, token;
    struct described *tenants; /* block, by number */
    size_t tenant_count;
};

err metric_index_describer_open(struct metric_index *index, uint32_t partition, struct pool *parent,
                                struct metric_index_describer **out_describer)
{
    struct pool *pool;
    void *memory;
    TRY(pool_open_object(parent, "describe", sizeof(struct metric_index_describer), &pool, &memory));
    struct metric_index_describer *d = memory;
    *d = (struct metric_index_describer){
        .index = index, .pool = pool, .partition = partition, .token = metric_index_hold(index)
    };
    *out_describer = d;
    return OK;
}

void metric_index_describer_close(struct metric_index_describer *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; i < d->tenant_count; i++)
        metric_index_view_close(d->tenants[i].view);
    metric_index_release(d->index, d->token);
    pool_close(d->pool);
}

/* The tenant as it is now, with a cursor in place of the one there may be. */
static err describe_anew(struct metric_index_describer *d, uint16_t number)
{
    size_t before = d->tenant_count, capacity = before;
    TRY(pool_block_reserve(d->pool, (void **)&d->tenants, sizeof *d->tenants, number + (size_t)1, &capacity));
    memset(d->tenants + before, 0, (capacity - before) * sizeof *d->tenants);
    d->tenant_count = capacity;
    struct described *t = &d->tenants[number];
    metric_index_view_close(t->view);
    io_rwlock_read(&d->index->lock);
    *t = (struct described){ .tenant = d->index->tenants[number]->name };
    io_rwlock_unlock(&d->index->lock);
    TRY(metric_index_view_open(d->index, t->tenant, d->pool, &t->view));
    err e = metric_index_cursor_open(t->view, t->view->pool, &t->cursor);
    if (e != OK) {
        metric_index_view_close(t->view);
        t->view = NULL;
    }
    return e;
}

err metric_index_describe(void *describer, uint32_t local, struct buf *labels, struct slice *out_tenant)
{
    struct metric_index_describer *d = describer;
    uint32_t id = metric_index_id_of_local(d->index, d->partition, local);
    const struct id_chunk *chunk = id == METRIC_ID_NONE ? NULL : index_chunk(d->index, id);
    if (chunk_partition(chunk, id) == ID_DROPPED)
        return ERR_NOT_FOUND;
    uint16_t number = chunk->tenants[id % ID_CHUNK / ID_BLOCK];
    err e = ERR_NOT_FOUND;
    if (number < d->tenant_count && d->tenants[number].view != NULL)
        e = metric_index_cursor_labels(d->tenants[number].cursor, id, labels);
    if (e == ERR_NOT_FOUND) { /* it came since, or the tenant was not asked for yet */
        TRY(describe_anew(d, number));
        e = metric_index_cursor_labels(d->tenants[number].cursor, id, labels);
    }
    if (e == OK)
        *out_tenant = d->tenants[number].tenant;
    return e;
}

/* ---- names and values ---- */

#define RECENT_TEXTS 64 /* neighbours in the tail repeat most of their names and values */

struct texts {
    struct pool *pool;
    struct slice *at;
    size_t count, capacity;
    struct slice recent[RECENT_TEXTS]; /* of the tail, by hash */
};

static err texts_add(struct texts *texts, const struct slice *add, size_t count)
{
    TRY(pool_block_reserve(texts->pool, (void **)&texts->at, sizeof *texts->at, texts->count + count,
                           &texts->capacity));
    if (count > 0)
        memcpy(texts->at + texts->count, add, count * sizeof *add);
    texts->count += count;
    return OK;
}

/* Add a text of the tail, unless it was added a moment ago. */
static err texts_add_tail(struct texts *texts, struct slice text)
{
    struct slice *recent = &texts->recent[hash64(text, 0) % RECENT_TEXTS];
    if (recent->at != NULL && slice_equal(*recent, text))
        return OK;
    *recent = text;
    return texts_add(texts, &text, 1);
}

/* Sort, drop repeats, copy into the caller's pool. */
static err texts_finish(struct texts *texts, struct pool *pool, struct slice **out_texts, size_t *out_count)
{
    void *items_at, *scratch, *list_at;
    TRY(pool_alloc(texts->pool, (texts->count + 1) * sizeof(struct sort_item), &items_at));
    TRY(pool_alloc(texts->pool, (texts->count + 1) * sizeof(struct sort_item), &scratch));
    TRY(pool_alloc(pool, (texts->count + 1) * sizeof(struct slice), &list_at));
    struct sort_item *items = items_at;
    struct slice *list = list_at;
    size_t count = 0;
    for (size_t i = 0; i < texts->count; i++)
        items[i] = (struct sort_item){ .id = (uint32_t)i };
    sort_strings(items, scratch, texts->count, texts->at);
    for (size_t i = 0; i < texts->count; i++) {
        struct slice text = texts->at[items[i].id];
        if (count > 0 && slice_equal(list[count - 1], text))
            continue;
        TRY(pool_copy(pool, text, &list[count]));
        count++;
    }
    *out_texts = list;
    *out_count = count;
    return OK;
}

/* Ordinals of a part that are asked for: ids that are in it, or with ids NULL all that live. NULL: all. */
static err asked_ordinals(const struct metric_index_view *view, const struct live_part *part,
                          const uint32_t *ids, size_t id_count, struct pool *pool, uint32_t **out_ordinals,
                          size_t *out_count)
{
    uint32_t series = part->part.series_count;
    size_t count = 0;
    void *at;
    *out_ordinals = NULL;
    *out_count = 0;
    if (ids == NULL && atomic_load_explicit(&part->dropped, memory_order_acquire) == 0)
        return OK;
    TRY(pool_alloc(pool,
                   ((ids == NULL         ? series
                     : id_count < series ? id_count
                                         : series) +
                    (size_t)1) *
                       4,
                   &at));
    uint32_t *ordinals = at;
    if (ids == NULL) {
        for (uint32_t x = 0; x < part->extent_count; x++)
            for (uint32_t o = part->extents[x].ordinal; o < extent_end(part, x); o++)
                if (index_lives(view->index, part->extents[x].id + (o - part->extents[x].ordinal)))
                    ordinals[count++] = o;
    } else {
        size_t from = 0, to = id_count;
        while (from < to) {
            size_t middle = from + (to - from) / 2;
            if (ids[middle] < part->id_min)
                from = middle + 1;
            else
                to = middle;
        }
        for (; from < id_count && ids[from] <= part->id_max && count < series; from++)
            if (live_part_find(part, ids[from], &ordinals[count]))
                count++;
    }
    *out_ordinals = ordinals;
    *out_count = count;
    return OK;
}

/* Names (name.len == 0) or values of a label set. */
static err texts_of_labels(struct slice labels, struct slice name, struct texts *texts)
{
    if (name.len > 0) {
        struct slice value = labels_get(labels, name);
        return value.len == 0 ? OK : texts_add_tail(texts, value);
    }
    struct reader reader = reader_of(labels);
    struct label label;
    while (labels_next(&reader, &label))
        TRY(texts_add_tail(texts, label.name));
    return OK;
}

static err texts_of_tail(const struct metric_index_view *view, const uint32_t *ids, size_t id_count,
                         struct slice name, struct texts *texts)
{
    if (ids == NULL) {
        for (uint32_t i = 0; i < view->at.tail_count; i++) {
            const struct tail_entry *entry = tail_entry_at(view->at.tail, i);
            if (index_lives(view->index, entry->id))
                TRY(texts_of_labels(slice_of(entry->labels, entry->len), name, texts));
        }
        return OK;
    }
    for (size_t i = 0; i < id_count && view->at.tail_count > 0; i++) {
        const struct tail_entry *entry = tail_find(view->at.tail, view->at.tail_count, ids[i]);
        if (entry != NULL)
            TRY(texts_of_labels(slice_of(entry->labels, entry->len), name, texts));
    }
    return OK;
}

static err names_or_values(struct metric_index *index, struct slice tenant, struct slice name,
                           const uint32_t *ids, size_t id_count, struct pool *pool, struct slice **out_texts,
                           size_t *out_count)
{
    err e;
    struct metric_index_view *view;
    TRY(metric_index_view_open(index, tenant, pool, &view));
    struct texts texts = { .pool = view->pool };
    for (size_t i = 0; i < view->at.part_count; i++) {
        const struct live_part *part = view->at.parts[i];
        uint32_t *ordinals;
        struct slice *found;
        size_t count;
        TRY_OUT(asked_ordinals(view, part, ids, id_count, view->pool, &ordinals, &count));
        if (ordinals != NULL && count == 0)
            continue;
        TRY_OUT(name.len == 0
                    ? metric_part_names(&part->part, ordinals, count, view->pool, &found, &count)
                    : metric_part_values(&part->part, name, ordinals, count, view->pool, &found, &count));
        TRY_OUT(texts_add(&texts, found, count));
    }
    TRY_OUT(texts_of_tail(view, ids, id_count, name, &texts));
    TRY_OUT(texts_finish(&texts, pool, out_texts, out_count));
out:
    metric_index_view_close(view);
    check(e != ERR_CORRUPT);
    return e;
}

err metric_index_names(struct metric_index *index, struct slice tenant, const uint32_t *ids, size_t id_count,
                       struct pool *pool, struct slice **out_names, size_t *out_count)
{
    return names_or_values(index, tenant, slice_of("", 0), ids, id_count, pool, out_names, out_count);
}

err metric_index_values(struct metric_index *index, struct slice tenant, struct slice name,
                        const uint32_t *ids, size_t id_count, struct pool *pool, struct slice **out_values,
                        size_t *out_count)
{
    if (name.len == 0) { /* no label has an empty name */
        void *at;
        TRY(pool_alloc(pool, sizeof(struct slice), &at));
        *out_values = at;
        *out_count = 0;
        return OK;
    }
    return names_or_values(index, tenant, name, ids, id_count, pool, out_values, out_count);
}

err metric_index_tenants(struct metric_index *index, struct pool *pool, struct slice **out_tenants,
                         size_t *out_count)
{
    void *at;
    io_rwlock_read(&index->lock);
    err e = pool_alloc(pool, (index->tenant_count + 1) * sizeof(struct slice), &at);
    size_t count = 0;
    if (e == OK) {
        struct slice *list = at;
        for (; count < index->tenant_count && e == OK; count++)
            e = pool_copy(pool, index->tenants[count]->name, &list[count]);
    }
    io_rwlock_unlock(&index->lock);
    if (e != OK)
        return e;
    *out_tenants = at;
    *out_count = count;
    return OK;
}
