/* What nodes answer that is put together at once: names, values, metadata, groups of units; and the requests
 * that all kinds begin with. From: promql, api, through the table of remote.c. To: gather.c.
 *
 * Texts and metadata are unions, sorted, each once. Groups are handed over answer by answer: merging them is the
 * evaluator's. */
#include "fanout/remote.h"

#include "base/check.h"
#include "fanout/wire.h"

#include <stdlib.h>

#define WORK_COUNT (1u << 20) /* steps that are merged between looks at the guard */

/* ---- requests ---- */

err remote_selector_of(const struct source_request *request, struct pool *pool, struct wire_selector *out)
{
    void *at;
    TRY(pool_alloc(pool, request->matcher_count * sizeof *out->matchers + 1, &at));
    *out = (struct wire_selector){ .range = request->range,
                                   .matchers = at,
                                   .matcher_count = request->matcher_count };
    for (size_t i = 0; i < request->matcher_count; i++) {
        out->matchers[i].type = request->matchers[i].type;
        TRY(pool_copy(pool, request->matchers[i].name, &out->matchers[i].name));
        TRY(pool_copy(pool, request->matchers[i].value, &out->matchers[i].value));
    }
    return OK;
}

static uint64_t samples_left(struct guard *guard)
{
    if (guard == NULL)
        return UINT64_MAX;
    uint64_t used = atomic_load_explicit(&guard->samples_used, memory_order_relaxed);
    return used < guard->samples_max ? guard->samples_max - used : 0;
}

struct wire_request remote_request_of(enum wire_kind kind, const struct source_request *request)
{
    return (struct wire_request){ .kind = kind,
                                  .tenant = request->tenant,
                                  .series_max =
                                      request->series_max >= SIZE_MAX ? UINT64_MAX : request->series_max,
                                  .samples_max = samples_left(request->guard),
                                  .partitions = request->partitions,
                                  .after = request->after,
                                  .after_count = request->after_count };
}

/* ---- names, values, metadata ---- */

static int by_text(const void *a, const void *b)
{
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

/* The union of all answers' texts, sorted, copied to pool. */
static err texts_unite(const struct gather *gather, size_t limit, struct pool *pool, struct slice **out_texts,
                       size_t *out_count)
{
    size_t total = 0, count = 0, kept = 0;
    void *at;
    for (const struct gather_answer *a = gather->answers; a != NULL; a = a->next)
        total += a->texts.count;
    TRY(pool_alloc(pool, total * sizeof(struct slice) + 1, &at));
    struct slice *texts = at;
    for (const struct gather_answer *a = gather->answers; a != NULL; a = a->next)
        for (size_t i = 0; i < a->texts.count; i++)
            texts[count++] = a->texts.items[i];
    if (count > 0)
        qsort(texts, count, sizeof *texts, by_text);
    for (size_t i = 0; i < count && (limit == 0 || kept < limit); i++)
        if (kept == 0 || !slice_equal(texts[kept - 1], texts[i]))
            TRY(pool_copy(pool, texts[i], &texts[kept++]));
    *out_texts = texts;
    *out_count = kept;
    return OK;
}

static err gather_texts(struct source *source, enum wire_kind kind, struct slice name,
                        const struct source_request *requests, size_t request_count, size_t limit,
                        struct pool *pool, struct slice **out_texts, size_t *out_count,
                        struct proof *out_proof)
{
    struct fanout *fanout = source->context;
    struct gather *gather = NULL;
    struct pool *scratch = pool_open(pool, "names of other nodes", POOL_BYTES_UNLIMITED);
    struct wire_request request = remote_request_of(kind, &requests[0]);
    struct time_range range = requests[0].range;
    struct proof proof = { .complete = true };
    err e;
    void *at;
    check(request_count > 0);
    TRY_OUT(pool_alloc(scratch, request_count * sizeof *request.selectors, &at));
    struct wire_selector *selectors = at;
    for (size_t i = 0; i < request_count; i++) {
        TRY_OUT(remote_selector_of(&requests[i], scratch, &selectors[i]));
        range = time_range_join(range, requests[i].range);
    }
    request.name = name;
    request.limit = limit;
    request.selectors = selectors;
    request.selector_count = request_count;
    TRY_OUT(fanout_gather_open(&fanout->config, &request, range, requests[0].guard, scratch, &gather));
    TRY_OUT(texts_unite(gather, limit, pool, out_texts, out_count));
    TRY_OUT(proof_join(&proof, &gather->proof, pool));
    *out_proof = proof;
out:
    fanout_gather_close(gather);
    pool_close(scratch);
    return e;
}

err remote_label_names(struct source *source, const struct source_request *requests, size_t request_count,
                       size_t limit, struct pool *pool, struct slice **out_names, size_t *out_count,
                       struct proof *out_proof)
{
    return gather_texts(source, WIRE_NAMES, slice_of("", 0), requests, request_count, limit, pool, out_names,
                        out_count, out_proof);
}

err remote_label_values(struct source *source, struct slice name, const struct source_request *requests,
                        size_t request_count, size_t limit, struct pool *pool, struct slice **out_values,
                        size_t *out_count, struct proof *out_proof)
{
    return gather_texts(source, WIRE_VALUES, name, requests, request_count, limit, pool, out_values,
                        out_count, out_proof);
}

static int metadata_order(const void *a, const void *b)
{
    const struct source_metadata *x = a, *y = b;
    int order = slice_compare(x->family, y->family);
    order = order != 0 ? order : slice_compare(x->type, y->type);
    order = order != 0 ? order : slice_compare(x->help, y->help);
    return order != 0 ? order : slice_compare(x->unit, y->unit);
}

static err metadata_copy(const struct source_metadata *from, struct pool *pool, struct source_metadata *out)
{
    TRY(pool_copy(pool, from->family, &out->family));
    TRY(pool_copy(pool, from->type, &out->type));
    TRY(pool_copy(pool, from->help, &out->help));
    return pool_copy(pool, from->unit, &out->unit);
}

static err metadata_unite(const struct gather *gather, struct pool *pool,
                          struct source_metadata **out_metadata, size_t *out_count)
{
    size_t total = 0, count = 0, kept = 0;
    void *at;
    for (const struct gather_answer *a = gather->answers; a != NULL; a = a->next)
        total += a->metadata.count;
    TRY(pool_alloc(pool, total * sizeof(struct source_metadata) + 1, &at));
    struct source_metadata *items = at;
    for (const struct gather_answer *a = gather->answers; a != NULL; a = a->next)
        for (size_t i = 0; i < a->metadata.count; i++)
            items[count++] = a->metadata.items[i];
    if (count > 0)
        qsort(items, count, sizeof *items, metadata_order);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || metadata_order(&items[kept - 1], &items[i]) != 0)
            TRY(metadata_copy(&items[i], pool, &items[kept++]));
    *out_metadata = items;
    *out_count = kept;
    return OK;
}

err remote_metadata(struct source *source, struct slice tenant, struct slice family, struct pool *pool,
                    struct source_metadata **out_metadata, size_t *out_count)
{
    struct fanout *fanout = source->context;
    struct source_request all = { .tenant = tenant,
                                  .range = { TIME_MS_MIN, TIME_MS_MAX },
                                  .series_max = SIZE_MAX };
    struct wire_request request = remote_request_of(WIRE_METADATA, &all);
    struct gather *gather;
    request.name = family;
    TRY(fanout_gather_open(&fanout->config, &request, all.range, NULL, pool, &gather));
    err e = metadata_unite(gather, pool, out_metadata, out_count);
    fanout_gather_close(gather);
    return e;
}

/* ---- groups ---- */

struct group_columns {
    double *values[SOURCE_GROUP_COLUMNS_MAX];
};

static err group_columns_open(const struct source_unit *unit, struct pool *pool, struct group_columns *out)
{
    for (uint32_t i = 0; i < unit->column_count; i++) {
        void *at;
        TRY(pool_alloc(pool, unit->step_count * sizeof(double), &at));
        out->values[i] = at;
    }
    return OK;
}

/* Hand over a group: its pieces, put one behind the other; an own one as it is. */
static err hand_over(const struct gather_answer *answer, const struct gather_group *group,
                     const struct source_unit *unit, const struct group_columns *columns)
{
    struct source_group whole = { .labels = group->labels, .drop_name = group->drop_name };
    size_t piece = group->first_piece;
    if (answer->own != NULL) {
        memcpy(whole.columns, group->columns, sizeof whole.columns);
        return unit->take(unit->context, &whole);
    }
    for (uint64_t at = 0; at < unit->step_count; at += WIRE_PIECE_ROW_COUNT_MAX) {
        double *to[SOURCE_GROUP_COLUMNS_MAX];
        for (uint32_t i = 0; i < unit->column_count; i++)
            to[i] = columns->values[i] + at;
        wire_group_read(&answer->group_pieces[piece++], unit->column_count, to);
    }
    for (uint32_t i = 0; i < unit->column_count; i++)
        whole.columns[i] = columns->values[i];
    return unit->take(unit->context, &whole);
}

static err hand_over_all(const struct gather *gather, const struct source_unit *unit, struct guard *guard,
                         struct pool *pool)
{
    struct group_columns columns;
    size_t work = 0;
    TRY(group_columns_open(unit, pool, &columns));
    for (const struct gather_answer *a = gather->answers; a != NULL; a = a->next)
        for (size_t i = 0; i < a->group_count; i++) {
            TRY(hand_over(a, &a->groups[i], unit, &columns));
            work += unit->step_count;
            if (work < WORK_COUNT)
                continue;
            work = 0;
            if (guard != NULL)
                TRY(guard_check(guard));
        }
    return OK;
}

static err notes_copy(const struct slice *from, size_t count, struct pool *pool, struct slice *to,
                      size_t *to_count)
{
    for (size_t i = 0; i < count; i++)
        TRY(pool_copy(pool, from[i], &to[(*to_count)++]));
    return OK;
}

/* Sums and unions of what the answers say. */
static err groups_unite(const struct gather *gather, struct pool *pool, struct source_groups *out)
{
    size_t warnings = 0, infos = 0;
    void *warnings_at, *infos_at;
    for (const struct gather_answer *a = gather->answers; a != NULL; a = a->next) {
        warnings += a->of_unit.warning_count;
        infos += a->of_unit.info_count;
    }
    *out = (struct source_groups){ .proof = { .complete = true } };
    TRY(pool_alloc(pool, warnings * sizeof(struct slice) + 1, &warnings_at));
    TRY(pool_alloc(pool, infos * sizeof(struct slice) + 1, &infos_at));
    out->warnings = warnings_at;
    out->infos = infos_at;
    for (const struct gather_answer *a = gather->answers; a != NULL; a = a->next) {
        const struct source_groups *one = &a->of_unit;
        out->series_count += one->series_count;
        out->sample_count += one->sample_count;
        TRY(notes_copy(one->warnings, one->warning_count, pool, out->warnings, &out->warning_count));
        TRY(notes_copy(one->infos, one->info_count, pool, out->infos, &out->info_count));
    }
    return proof_join(&out->proof, &gather->proof, pool);
}

/* The bounds hold for what all of them read together. */
static err account(const struct source_request *request, const struct source_groups *groups)
{
    if (groups->series_count > request->series_max)
        return request->guard == NULL
                   ? ERR_LIMIT
                   : guard_series(request->guard, groups->series_count, request->series_max);
    return request->guard != NULL ? guard_samples(request->guard, groups->sample_count) : OK;
}

err remote_groups(struct source *source, const struct source_request *request, const struct source_unit *unit,
                  struct pool *pool, struct source_groups *out_groups)
{
    struct fanout *fanout = source->context;
    struct gather *gather = NULL;
    struct source_groups groups;
    struct wire_selector times = { .range = request->range };
    struct wire_request wire = remote_request_of(WIRE_GROUPS, request);
    struct pool *scratch = pool_open(pool, "groups of other nodes", POOL_BYTES_UNLIMITED);
    err e;
    wire.unit = *unit;
    wire.selectors = &times;
    wire.selector_count = 1;
    TRY_OUT(fanout_gather_open(&fanout->config, &wire, request->range, request->guard, scratch, &gather));
    TRY_OUT(groups_unite(gather, pool, &groups));
    TRY_OUT(account(request, &groups));
    TRY_OUT(hand_over_all(gather, unit, request->guard, scratch));
    *out_groups = groups;
out:
    fanout_gather_close(gather);
    pool_close(scratch);
    return e;
}
