/* The source over all partitions: label names and values, exemplars, metadata, cardinality. See model/source.h.
 *
 * Names and values come from the index parts themselves, restricted to the series that match, without building
 * any label set; metadata is part of the partitions' state and answered from memory.
 *
 * Invariants
 *  1. Lists are merged as sorted arrays. A string is copied to the caller's pool when it is met first: what it was
 *     read from may leave the block cache before the next list is read. */
#include "shard/source.h"

#include "base/check.h"

#include <stdlib.h>

/* ---- names and values ---- */

/* Sorted and unique. */
struct strings {
    struct pool *pool;           /* the caller's */
    struct pool *list;           /* of one list, until it is merged */
    struct slice *items, *spare; /* blocks; the next merge goes to spare */
    size_t count, capacity, spare_capacity;
};

/* Merge another sorted list in; what is in both stays once. The list's memory is free then. */
static err strings_merge(struct strings *s, const struct slice *items, size_t count)
{
    TRY(pool_block_reserve(s->pool, (void **)&s->spare, sizeof *s->spare, s->count + count + 1,
                           &s->spare_capacity));
    size_t left = 0, right = 0, kept = 0;
    while (left < s->count && right < count) {
        int order = slice_compare(s->items[left], items[right]);
        if (order <= 0)
            s->spare[kept++] = s->items[left];
        else
            TRY(pool_copy(s->pool, items[right], &s->spare[kept++]));
        left += order <= 0;
        right += order >= 0;
    }
    while (left < s->count)
        s->spare[kept++] = s->items[left++];
    while (right < count)
        TRY(pool_copy(s->pool, items[right++], &s->spare[kept++]));
    pool_reset(s->list);
    struct slice *merged = s->spare;
    size_t capacity = s->spare_capacity;
    s->spare = s->items;
    s->spare_capacity = s->capacity;
    s->items = merged;
    s->capacity = capacity;
    s->count = kept;
    return OK;
}

/* Names (name NULL) or values of the live index. */
static err add_live(struct views *views, const struct slice *name, const struct source_request *request,
                    struct strings *out)
{
    struct pool *scratch = out->list;
    uint32_t *ids = NULL;
    size_t id_count = 0, count;
    struct slice *items;
    struct metric_index *index = views->shards->index;
    if (request->matcher_count > 0) {
        TRY(metric_index_select(index, request->tenant, request->matchers, request->matcher_count, scratch,
                                &ids, &id_count));
        if (id_count == 0)
            return OK;
    }
    if (name == NULL)
        TRY(metric_index_names(index, request->tenant, ids, id_count, scratch, &items, &count));
    else
        TRY(metric_index_values(index, request->tenant, *name, ids, id_count, scratch, &items, &count));
    return strings_merge(out, items, count);
}

static err add_segment(struct metric_compact *compact, const struct slice *name,
                       const struct source_request *request, struct strings *out, struct err_at *at)
{
    struct pool *scratch = out->list;
    struct metric_compact_index index;
    err e = metric_compact_index_get(compact, request->tenant, &index, at);
    if (e == ERR_NOT_FOUND)
        return OK; /* no series of this tenant */
    TRY(e);
    uint32_t *ordinals = NULL;
    size_t ordinal_count = 0, count;
    struct slice *items;
    if (request->matcher_count > 0) {
        TRY_OUT(metric_part_select(&index.part, request->matchers, request->matcher_count, scratch, &ordinals,
                                   &ordinal_count));
        if (ordinal_count == 0) {
            pool_reset(scratch);
            goto out;
        }
    }
    if (name == NULL)
        TRY_OUT(metric_part_names(&index.part, ordinals, ordinal_count, scratch, &items, &count));
    else
        TRY_OUT(metric_part_values(&index.part, *name, ordinals, ordinal_count, scratch, &items, &count));
    e = strings_merge(out, items, count);
out:
    metric_compact_index_release(compact, &index);
    return e;
}

static err add_request(struct views *views, const struct slice *name, const struct source_request *request,
                       struct strings *out)
{
    TRY(add_live(views, name, request, out));
    for (uint32_t i = 0; i < views->shards->config.partition_count; i++) {
        struct view *view = &views->views[i];
        for (size_t k = 0; k < view->segment_count; k++) {
            if (!time_overlaps(view->segments[k].live->facts.range, request->range))
                continue;
            struct err_at at = { 0 };
            err e = add_segment(view->segments[k].compact, name, request, out, &at);
            TRY(views_segment_read(views, view, (uint32_t)k, e, &at, "damaged segment index"));
        }
    }
    return request->guard != NULL ? guard_check(request->guard) : OK;
}

static err collect(struct source *source, const struct slice *name, const struct source_request *requests,
                   size_t request_count, size_t limit, struct pool *pool, struct slice **out_items,
                   size_t *out_count, struct proof *out_proof)
{
    check(request_count > 0);
    struct time_range range = requests[0].range;
    for (size_t i = 1; i < request_count; i++)
        range = time_range_join(range, requests[i].range);
    struct views views;
    TRY(views_open(source->context, &requests[0], range, pool, &views));
    struct strings strings = { .pool = pool, .list = pool_open(pool, "names", POOL_BYTES_UNLIMITED) };
    err e = OK;
    for (size_t i = 0; i < request_count; i++)
        TRY_OUT(add_request(&views, name, &requests[i], &strings));
    *out_items = strings.items;
    *out_count = limit > 0 && strings.count > limit ? limit : strings.count;
    *out_proof = views.proof;
out:
    pool_block_free(pool, strings.spare);
    pool_close(strings.list);
    views_close(&views);
    return e;
}

err source_label_names(struct source *source, const struct source_request *requests, size_t request_count,
                       size_t limit, struct pool *pool, struct slice **out_names, size_t *out_count,
                       struct proof *out_proof)
{
    return collect(source, NULL, requests, request_count, limit, pool, out_names, out_count, out_proof);
}

err source_label_values(struct source *source, struct slice name, const struct source_request *requests,
                        size_t request_count, size_t limit, struct pool *pool, struct slice **out_values,
                        size_t *out_count, struct proof *out_proof)
{
    return collect(source, &name, requests, request_count, limit, pool, out_values, out_count, out_proof);
}

/* ---- exemplars ---- */

struct exemplars {
    struct pool *pool;
    struct pool *scratch; /* until the next piece or segment */
    struct time_range range;
    struct source_exemplar *items; /* block of pool, copied at the end */
    size_t count, capacity;
};

static err exemplars_add(struct exemplars *x, int64_t t_ms, double value, struct slice labels)
{
    if (t_ms < x->range.min_ms || t_ms > x->range.max_ms)
        return OK;
    void *block = x->items;
    TRY(pool_block_reserve(x->pool, &block, sizeof *x->items, x->count + 1, &x->capacity));
    x->items = block;
    struct source_exemplar *item = &x->items[x->count];
    *item = (struct source_exemplar){ .t_ms = t_ms, .value = value };
    TRY(pool_copy(x->pool, labels, &item->labels));
    x->count++;
    return OK;
}

static int exemplar_order(const void *a, const void *b)
{
    const struct source_exemplar *x = a, *y = b;
    if (x->t_ms != y->t_ms)
        return x->t_ms < y->t_ms ? -1 : 1;
    return slice_compare(x->labels, y->labels);
}

static err exemplars_of_piece(struct source_set *set, const struct set_series *s,
                              const struct view_piece *piece, struct exemplars *x)
{
    struct metric_exemplar *found;
    size_t count;
    uint32_t series = s->local;
    if (piece->group == NULL) {
        TRY(metric_head_exemplars(&piece->head, s->local, x->range, x->scratch, &found, &count));
    } else {
        series = s->numbers[piece->range_index];
        if (piece->group->facts.exemplar_count == 0 || series == METRIC_ROW_NONE)
            return OK;
        TRY(metric_group_exemplars(piece->group->group, x->scratch, &found, &count));
    }
    for (size_t i = 0; i < count; i++)
        if (found[i].series == series)
            TRY(exemplars_add(x, found[i].t_ms, found[i].value, found[i].labels));
    return set->guard != NULL ? guard_check(set->guard) : OK;
}

static err exemplars_of_segments(struct source_set *set, const struct set_series *s, struct exemplars *x)
{
    const struct view *view = &set->views.views[s->partition];
    for (uint32_t i = 0; i < s->reference_count; i++) {
        struct set_reference reference = set->references[s->first_reference + i];
        struct source_exemplar *found;
        size_t count;
        struct err_at at = { 0 };
        pool_reset(x->scratch);
        err e = metric_compact_exemplars(view->segments[reference.segment].compact, reference.ordinal,
                                         x->scratch, &found, &count, &at);
        if (e != OK)
            count = 0;
        TRY(views_segment_read(&set->views, view, reference.segment, e, &at, "damaged block"));
        for (size_t k = 0; k < count; k++)
            TRY(exemplars_add(x, found[k].t_ms, found[k].value, found[k].labels));
    }
    return OK;
}

err source_set_exemplars(struct source_set *set, size_t series, struct pool *pool,
                         struct source_exemplar **out_exemplars, size_t *out_count)
{
    check(series < set->series_count);
    const struct set_series *s = &set->series[series];
    const struct view *view = &set->views.views[s->partition];
    struct exemplars x = { .pool = pool,
                           .scratch = pool_open(pool, "exemplars", POOL_BYTES_UNLIMITED),
                           .range = view->range };
    err e = OK;
    TRY_OUT(exemplars_of_segments(set, s, &x));
    for (size_t i = 0; i < view->piece_count && s->local != METRIC_LOCAL_NONE; i++) {
        pool_reset(x.scratch);
        e = exemplars_of_piece(set, s, &view->pieces[i], &x);
        if (is_damage(e))
            views_missing(&set->views, s->partition, view->range, "damaged row group");
        else
            TRY_OUT(e);
    }
    if (x.count > 0)
        qsort(x.items, x.count, sizeof *x.items, exemplar_order);
    size_t kept = 0;
    for (size_t i = 0; i < x.count; i++) /* senders repeat an exemplar until there is a newer one */
        if (kept == 0 || exemplar_order(&x.items[kept - 1], &x.items[i]) != 0)
            x.items[kept++] = x.items[i];
    void *at;
    TRY_OUT(pool_alloc(pool, kept * sizeof *x.items + 1, &at));
    if (kept > 0)
        memcpy(at, x.items, kept * sizeof *x.items);
    *out_exemplars = at;
    *out_count = kept;
    e = OK;
out:
    pool_block_free(pool, x.items);
    pool_close(x.scratch);
    return e;
}

/* ---- metadata ---- */

static bool metadata_equal(const struct source_metadata *a, const struct source_metadata *b)
{
    return slice_equal(a->family, b->family) && slice_equal(a->type, b->type) &&
           slice_equal(a->help, b->help) && slice_equal(a->unit, b->unit);
}

static int metadata_order(const void *a, const void *b)
{
    return slice_compare(((const struct source_metadata *)a)->family,
                         ((const struct source_metadata *)b)->family);
}

/* Append a copy: the partition's own goes when newer ones come. */
static err metadata_copy(const struct state_metadata *m, struct pool *pool, struct source_metadata **items,
                         size_t *count, size_t *capacity)
{
    struct source_metadata copy = { .type = slice_str(metric_type_text((enum metric_type)m->type)) };
    TRY(pool_block_reserve(pool, (void **)items, sizeof **items, *count + 1, capacity));
    TRY(pool_copy(pool, m->family, &copy.family));
    TRY(pool_copy(pool, m->help, &copy.help));
    TRY(pool_copy(pool, m->unit, &copy.unit));
    (*items)[(*count)++] = copy;
    return OK;
}

err source_metadata(struct source *source, struct slice tenant, struct slice family, struct pool *pool,
                    struct source_metadata **out_metadata, size_t *out_count)
{
    struct shards *shards = source->context;
    struct source_metadata *items = NULL;
    size_t count = 0, capacity = 0;
    err e = OK;
    void *at;
    for (uint32_t i = 0; i < shards->config.partition_count && e == OK; i++) {
        struct partition *p = &shards->partitions[i];
        if (!partition_lock(p))
            continue;
        for (size_t k = p->metadata_count; k > 0 && e == OK; k--) {
            const struct state_metadata *m = &p->metadata[k - 1];
            if (!slice_equal(m->tenant, tenant) || (family.len > 0 && !slice_equal(m->family, family)))
                continue;
            e = metadata_copy(m, pool, &items, &count, &capacity);
        }
        io_mutex_unlock(&p->lock);
    }
    TRY_OUT(e);
    if (count > 0)
        qsort(items, count, sizeof *items, metadata_order);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        bool is_known = false;
        for (size_t k = kept; k > 0 && slice_equal(items[k - 1].family, items[i].family) && !is_known; k--)
            is_known = metadata_equal(&items[k - 1], &items[i]);
        if (!is_known)
            items[kept++] = items[i];
    }
    TRY_OUT(pool_alloc(pool, kept * sizeof *items + 1, &at));
    if (kept > 0)
        memcpy(at, items, kept * sizeof *items);
    *out_metadata = at;
    *out_count = kept;
out:
    pool_block_free(pool, items);
    return e;
}

/* ---- cardinality ---- */

static err name_counts(const struct metric_name_count *from, size_t count, struct pool *pool,
                       struct source_name_count **out_counts, size_t *out_count)
{
    void *at;
    TRY(pool_alloc(pool, count * sizeof(struct source_name_count) + 1, &at));
    struct source_name_count *counts = at;
    for (size_t i = 0; i < count; i++)
        counts[i] = (struct source_name_count){ .name = from[i].name, .count = from[i].count };
    *out_counts = counts;
    *out_count = count;
    return OK;
}

err source_cardinality(struct source *source, struct slice tenant, size_t limit, struct pool *pool,
                       struct source_cardinality *out_cardinality)
{
    struct shards *shards = source->context;
    struct metric_cardinality c;
    TRY(metric_index_cardinality(shards->index, tenant, limit, pool, &c));
    struct source_cardinality out = { .series_count = c.series_count,
                                      .label_pair_count = c.label_pair_count,
                                      .range = { INT64_MAX, INT64_MIN } };
    TRY(name_counts(c.by_metric, c.by_metric_count, pool, &out.by_metric, &out.by_metric_count));
    TRY(name_counts(c.by_label, c.by_label_count, pool, &out.by_label, &out.by_label_count));
    TRY(name_counts(c.by_pair, c.by_pair_count, pool, &out.by_pair, &out.by_pair_count));
    TRY(name_counts(c.bytes_by_label, c.bytes_by_label_count, pool, &out.bytes_by_label,
                    &out.bytes_by_label_count));
    for (uint32_t i = 0; i < shards->config.partition_count; i++) {
        struct partition *p = &shards->partitions[i];
        if (!partition_lock(p))
            continue;
        struct metric_head_view head = metric_head_view(p->head);
        if (p->head_rows > 0)
            out.range = time_range_join(out.range, head.range);
        for (struct range *r = p->ranges; r != NULL; r = r->next)
            for (struct range_group *g = r->groups; g != NULL; g = g->next)
                out.range = time_range_join(out.range, g->facts.range);
        io_mutex_unlock(&p->lock);
    }
    *out_cardinality = out;
    return OK;
}
