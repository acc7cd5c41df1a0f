/* Cardinality of a tenant: which names, values and pairs make its series. See index.h.
 *
 * All parts list their (name, value) pairs in the same order, so one walk over all of them side by side meets
 * every pair once, with the sum of its series. The tail is made a part for the occasion. Of each list only the
 * largest entries are kept on the way.
 *
 * Invariant: a top list is sorted by count, largest first, ties by order of meeting (name, value). */
#include "metric/index_inside.h"

#include "base/check.h"
#include "model/labels.h"

#include <string.h>

#define CARDINALITY_LIMIT_MAX 10000 /* entries of a list */

struct top {
    struct metric_name_count *at;
    size_t count, limit;
};

static err top_open(struct pool *pool, size_t limit, struct top *out)
{
    void *at;
    TRY(pool_alloc(pool, (limit + 1) * sizeof(struct metric_name_count), &at));
    *out = (struct top){ .at = at, .limit = limit };
    return OK;
}

/* Does an entry with this count belong in the list? */
static bool top_takes(const struct top *top, uint64_t count)
{
    return top->limit > 0 && (top->count < top->limit || top->at[top->count - 1].count < count);
}

static void top_add(struct top *top, struct slice name, uint64_t count)
{
    size_t at = top->count < top->limit ? top->count++ : top->count - 1;
    for (; at > 0 && top->at[at - 1].count < count; at--)
        top->at[at] = top->at[at - 1];
    top->at[at] = (struct metric_name_count){ .name = name, .count = count };
}

struct walker {
    const struct metric_part *part;
    uint32_t next;
    struct metric_part_pair pair; /* number next - 1, if live */
    bool live;
};

static err walker_step(struct walker *w)
{
    w->live = w->next < w->part->pair_count;
    return w->live ? metric_part_pair_at(w->part, w->next++, &w->pair) : OK;
}

static int pair_compare(const struct metric_part_pair *a, const struct metric_part_pair *b)
{
    int order = slice_compare(a->name, b->name);
    return order != 0 ? order : slice_compare(a->value, b->value);
}

/* The next pair over all walkers with the sum of its series; false at the end. */
static err next_pair(struct walker *walkers, size_t count, struct metric_part_pair *out_pair,
                     uint64_t *out_series, bool *out_more)
{
    const struct walker *least = NULL;
    for (size_t i = 0; i < count; i++)
        if (walkers[i].live && (least == NULL || pair_compare(&walkers[i].pair, &least->pair) < 0))
            least = &walkers[i];
    *out_more = least != NULL;
    if (least == NULL)
        return OK;
    struct metric_part_pair pair = least->pair;
    *out_series = 0;
    for (size_t i = 0; i < count; i++) {
        if (!walkers[i].live || pair_compare(&walkers[i].pair, &pair) != 0)
            continue;
        *out_series += walkers[i].pair.series_count;
        TRY(walker_step(&walkers[i]));
    }
    *out_pair = pair;
    return OK;
}

struct counting {
    struct pool *pool;
    struct top metrics, labels, pairs, bytes;
    uint64_t pair_count;
    struct slice name; /* the label whose values are being walked */
    uint64_t value_count, value_bytes;
};

static err finish_name(struct counting *c)
{
    struct slice name;
    if (c->value_count == 0 ||
        (!top_takes(&c->labels, c->value_count) && !top_takes(&c->bytes, c->value_bytes)))
        return OK;
    TRY(pool_copy(c->pool, c->name, &name));
    if (top_takes(&c->labels, c->value_count))
        top_add(&c->labels, name, c->value_count);
    if (top_takes(&c->bytes, c->value_bytes))
        top_add(&c->bytes, name, c->value_bytes);
    return OK;
}

static err count_pair(struct counting *c, const struct metric_part_pair *pair, uint64_t series)
{
    if (!slice_equal(pair->name, c->name)) {
        TRY(finish_name(c));
        c->name = pair->name;
        c->value_count = c->value_bytes = 0;
    }
    c->pair_count++;
    c->value_count++;
    c->value_bytes += pair->value.len;
    struct slice text;
    if (slice_equal_str(pair->name, "__name__") && top_takes(&c->metrics, series)) {
        TRY(pool_copy(c->pool, pair->value, &text));
        top_add(&c->metrics, text, series);
    }
    if (top_takes(&c->pairs, series)) {
        void *at;
        size_t len = pair->name.len + 1 + pair->value.len;
        TRY(pool_alloc(c->pool, len + 1, &at));
        uint8_t *bytes = at;
        memcpy(bytes, pair->name.at, pair->name.len);
        bytes[pair->name.len] = '=';
        memcpy(bytes + pair->name.len + 1, pair->value.at, pair->value.len);
        top_add(&c->pairs, slice_of(bytes, len), series);
    }
    return OK;
}

static err count_pairs(struct walker *walkers, size_t count, struct counting *c)
{
    for (size_t i = 0; i < count; i++)
        TRY(walker_step(&walkers[i]));
    for (;;) {
        struct metric_part_pair pair;
        uint64_t series;
        bool more;
        TRY(next_pair(walkers, count, &pair, &series, &more));
        if (!more)
            return finish_name(c);
        TRY(count_pair(c, &pair, series));
    }
}

err metric_index_cardinality(struct metric_index *index, struct slice tenant, size_t limit, struct pool *pool,
                             struct metric_cardinality *out_cardinality)
{
    err e = OK;
    struct index_view view = { 0 };
    struct live_part *tail_part = NULL;
    struct counting c = { .pool = pool, .name = slice_of("", 0) };
    limit = limit < CARDINALITY_LIMIT_MAX ? limit : CARDINALITY_LIMIT_MAX;
    uint32_t token = metric_index_hold(index);
    struct pool *scratch = pool_open(pool, "index cardinality", POOL_BYTES_UNLIMITED);
    void *at;
    TRY_OUT(top_open(pool, limit, &c.metrics));
    TRY_OUT(top_open(pool, limit, &c.labels));
    TRY_OUT(top_open(pool, limit, &c.pairs));
    TRY_OUT(top_open(pool, limit, &c.bytes));
    TRY_OUT(index_view_open(index, tenant, scratch, &view));
    if (view.tail != NULL)
        TRY_OUT(live_part_build(scratch, view.tail, view.tail_count, index, &tail_part));
    TRY_OUT(pool_zalloc(scratch, (view.part_count + 1) * sizeof(struct walker), &at));
    struct walker *walkers = at;
    for (size_t i = 0; i < view.part_count; i++)
        walkers[i].part = &view.parts[i]->part;
    size_t count = view.part_count;
    if (tail_part != NULL)
        walkers[count++].part = &tail_part->part;
    TRY_OUT(count_pairs(walkers, count, &c));
    *out_cardinality = (struct metric_cardinality){ .series_count = metric_index_tenant_series(index, tenant),
                                                    .label_pair_count = c.pair_count,
                                                    .by_metric = c.metrics.at,
                                                    .by_metric_count = c.metrics.count,
                                                    .by_label = c.labels.at,
                                                    .by_label_count = c.labels.count,
                                                    .by_pair = c.pairs.at,
                                                    .by_pair_count = c.pairs.count,
                                                    .bytes_by_label = c.bytes.at,
                                                    .bytes_by_label_count = c.bytes.count };
out:
    live_part_unref(tail_part);
    index_view_close(&view);
    pool_close(scratch);
    metric_index_release(index, token);
    check(e != ERR_CORRUPT);
    return e;
}
