/* The source whose data are at other nodes. From: promql, api, through model/source.h. To: gather.c.
 *
 * select asks for series with all their rows and returns when every answer is in: reading then touches
 * nothing but memory, from any thread. Exemplars are asked for when the first are wanted. A series lives in
 * one partition, so answers are put one behind the other; should two hold the same labels all the same, their
 * rows are merged. Groups of a unit are handed over answer by answer: merging them is the evaluator's.
 *
 * Invariants
 *  1. A set is immutable but for its exemplars (lock-free: one thread asks for them, as the interface says of
 *     sets), which are all there or not at all.
 *  2. Rows that are read were decoded and checked when they came: reading them fails for lack of memory only.
 *  3. Of equal times of the same labels from two answers, one row counts. */
#include "fanout/fanout.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/time.h"
#include "fanout/gather.h"
#include "fanout/wire.h"
#include "model/labels.h"

#include <stdlib.h>

#define WORK_COUNT (1u << 20) /* steps that are merged between looks at the guard */

struct fanout {
    struct fanout_config config;
    struct source source;
};

struct set_series {
    const struct gather_answer *answer;
    const struct gather_series *series;
    uint32_t twin; /* 1 + index of the same labels from another answer; 0: none */
};

/* Series by their labels: 1 + index, 0 where none is. */
struct label_table {
    uint32_t *slots;
    size_t mask;
};

struct source_set {
    struct fanout *fanout;
    struct pool *pool;
    struct guard *guard;
    struct wire_request request; /* with copies of what it names */
    struct wire_selector selector;
    struct gather *gather;
    struct set_series *series; /* those behind count are twins of others */
    size_t count;
    struct gather *exemplars; /* NULL until they are wanted */
    struct set_series *exemplar_series;
    struct label_table exemplar_table;
    struct proof proof;
};

struct source_reader {
    struct source_set *set;
    struct pool *pool;
    struct sample_columns parts[2], merged; /* of labels that came twice */
};

/* ---- requests ---- */

static err selector_of(const struct source_request *request, struct pool *pool, struct wire_selector *out)
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

/* What all kinds have in common; texts and arrays are the caller's. */
static struct wire_request request_of(enum wire_kind kind, const struct source_request *request)
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

/* ---- sets ---- */

/* For `count` series. */
static err table_open(struct pool *pool, size_t count, struct label_table *out)
{
    size_t size = 16;
    void *at;
    while (size < count * 2)
        size *= 2;
    TRY(pool_zalloc(pool, size * sizeof *out->slots, &at));
    *out = (struct label_table){ .slots = at, .mask = size - 1 };
    return OK;
}

/* Where the labels stand, or would. */
static uint32_t *table_slot(const struct label_table *table, const struct set_series *series,
                            struct slice labels)
{
    size_t slot = hash64(labels, hash_secret()) & table->mask;
    while (table->slots[slot] != 0 && !slice_equal(series[table->slots[slot] - 1].series->labels, labels))
        slot = (slot + 1) & table->mask;
    return &table->slots[slot];
}

/* All series of all answers; of the same labels the first is in [0, *out_count), the others hang behind it. */
static err series_of(const struct gather *gather, struct pool *pool, struct set_series **out_series,
                     size_t *out_count, struct label_table *out_table)
{
    size_t total = 0, count = 0, end;
    void *at;
    for (const struct gather_answer *a = gather->answers; a != NULL; a = a->next)
        total += a->series_count;
    if (total >= UINT32_MAX)
        return ERR_LIMIT;
    TRY(pool_alloc(pool, total * sizeof(struct set_series) + 1, &at));
    TRY(table_open(pool, total, out_table));
    struct set_series *series = at;
    end = total;
    for (const struct gather_answer *a = gather->answers; a != NULL; a = a->next)
        for (size_t i = 0; i < a->series_count; i++) {
            uint32_t *slot = table_slot(out_table, series, a->series[i].labels);
            struct set_series one = { .answer = a, .series = &a->series[i] };
            if (*slot == 0) {
                series[count++] = one;
                *slot = (uint32_t)count;
            } else {
                one.twin = series[*slot - 1].twin;
                series[--end] = one;
                series[*slot - 1].twin = (uint32_t)end + 1;
            }
        }
    *out_series = series;
    *out_count = count;
    return OK;
}

static void remote_set_close(struct source_set *set)
{
    if (set == NULL)
        return;
    fanout_gather_close(set->gather);
    fanout_gather_close(set->exemplars);
    pool_close(set->pool);
}

static err set_fill(struct source_set *set, const struct source_request *request)
{
    struct label_table table;
    void *at;
    set->request = request_of(WIRE_SAMPLES, request);
    TRY(pool_copy(set->pool, request->tenant, &set->request.tenant));
    TRY(selector_of(request, set->pool, &set->selector));
    set->request.selectors = &set->selector;
    set->request.selector_count = 1;
    if (request->partitions != NULL) {
        TRY(pool_zalloc(set->pool, FANOUT_PARTITION_MAX / 8, &at));
        memcpy(at, request->partitions, (set->fanout->config.partition_count + 63) / 64 * sizeof(uint64_t));
        set->request.partitions = at;
    }
    TRY(pool_alloc(set->pool, request->after_count * sizeof *request->after + 1, &at));
    if (request->after_count > 0)
        memcpy(at, request->after, request->after_count * sizeof *request->after);
    set->request.after = at;
    TRY(fanout_gather_open(&set->fanout->config, &set->request, request->range, request->guard, set->pool,
                           &set->gather));
    TRY(series_of(set->gather, set->pool, &set->series, &set->count, &table));
    set->proof = set->gather->proof;
    if (set->count > request->series_max)
        return request->guard == NULL ? ERR_LIMIT
                                      : guard_series(request->guard, set->count, request->series_max);
    return OK;
}

static err remote_select(struct source *source, const struct source_request *request, struct pool *pool,
                         struct source_set **out_set)
{
    struct pool *own;
    void *at;
    TRY(pool_open_object(pool, "set of other nodes", sizeof(struct source_set), &own, &at));
    struct source_set *set = at;
    set->fanout = source->context;
    set->pool = own;
    set->guard = request->guard;
    err e = set_fill(set, request);
    if (e != OK) {
        remote_set_close(set);
        return e;
    }
    *out_set = set;
    return OK;
}

static size_t remote_set_count(const struct source_set *set) { return set->count; }

static const struct proof *remote_set_proof(struct source_set *set) { return &set->proof; }

/* ---- reading ---- */

static err remote_reader_open(struct source_set *set, struct source_reader **out_reader)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(set->pool, "reader", sizeof(struct source_reader), &pool, &at));
    struct source_reader *reader = at;
    *reader = (struct source_reader){ .set = set,
                                      .pool = pool,
                                      .parts = { sample_columns_open(pool), sample_columns_open(pool) },
                                      .merged = sample_columns_open(pool) };
    *out_reader = reader;
    return OK;
}

static void remote_reader_close(struct source_reader *reader)
{
    if (reader != NULL)
        pool_close(reader->pool);
}

static err remote_read_labels(struct source_reader *reader, size_t series, struct buf *out)
{
    check(series < reader->set->count);
    buf_put_slice(out, reader->set->series[series].series->labels);
    return buf_err(out);
}

static err read_rows(const struct set_series *s, struct sample_columns *columns)
{
    sample_columns_clear(columns);
    for (size_t i = 0; i < s->series->piece_count; i++)
        TRY(wire_piece_read(&s->answer->pieces[s->series->first_piece + i], columns));
    return OK;
}

/* Append row i of c; *h walks its histograms. */
static err add_row(struct sample_columns *out, const struct sample_columns *c, size_t i, size_t *h)
{
    int64_t start_ms = c->start_ms != NULL ? c->start_ms[i] : 0;
    if (*h < c->histogram_count && c->histograms[*h].row == i)
        return sample_columns_add_histogram(out, c->t_ms[i], c->histograms[(*h)++].bytes, start_ms);
    return sample_columns_add(out, c->t_ms[i], c->values[i], start_ms);
}

static err merge_rows(const struct sample_columns *a, const struct sample_columns *b,
                      struct sample_columns *out)
{
    size_t i = 0, k = 0, a_histogram = 0, b_histogram = 0;
    sample_columns_clear(out);
    while (i < a->count || k < b->count) {
        if (k < b->count && (i == a->count || b->t_ms[k] < a->t_ms[i])) {
            TRY(add_row(out, b, k++, &b_histogram));
            continue;
        }
        if (k < b->count && b->t_ms[k] == a->t_ms[i]) {
            b_histogram += b_histogram < b->histogram_count && b->histograms[b_histogram].row == k;
            k++;
        }
        TRY(add_row(out, a, i++, &a_histogram));
    }
    return OK;
}

/* The rows of all twins, as one series. */
static err read_twins(struct source_reader *reader, const struct set_series *s,
                      struct sample_columns *columns)
{
    struct sample_columns *so_far = &reader->parts[0], *more = &reader->parts[1], *merged = &reader->merged;
    TRY(read_rows(s, so_far));
    for (uint32_t twin = s->twin; twin != 0; twin = reader->set->series[twin - 1].twin) {
        TRY(read_rows(&reader->set->series[twin - 1], more));
        TRY(merge_rows(so_far, more, merged));
        struct sample_columns *spare = so_far;
        so_far = merged;
        merged = spare;
    }
    size_t histogram = 0;
    sample_columns_clear(columns);
    for (size_t i = 0; i < so_far->count; i++) {
        TRY(add_row(columns, so_far, i, &histogram));
        bool is_histogram = columns->histogram_count == histogram && histogram > 0 &&
                            columns->histograms[histogram - 1].row == i;
        if (is_histogram) /* the reader's memory is used again */
            TRY(pool_copy(columns->pool, columns->histograms[histogram - 1].bytes,
                          &columns->histograms[histogram - 1].bytes));
    }
    return OK;
}

static err remote_read_samples(struct source_reader *reader, size_t series, struct sample_columns *columns)
{
    struct source_set *set = reader->set;
    check(series < set->count);
    const struct set_series *s = &set->series[series];
    TRY(s->twin == 0 ? read_rows(s, columns) : read_twins(reader, s, columns));
    return set->guard != NULL ? guard_samples(set->guard, columns->count) : OK;
}

/* ---- exemplars ---- */

/* All or nothing: what fails leaves the set as it was. */
static err exemplars_fetch(struct source_set *set)
{
    struct wire_request request = set->request;
    struct proof proof = set->proof; /* what is named as missing more stands behind its count */
    struct gather *gather;
    struct set_series *series;
    struct label_table table;
    size_t count;
    request.kind = WIRE_EXEMPLARS;
    TRY(fanout_gather_open(&set->fanout->config, &request, set->selector.range, set->guard, set->pool,
                           &gather));
    err e = series_of(gather, set->pool, &series, &count, &table);
    if (e == OK)
        e = proof_join(&proof, &gather->proof, set->pool);
    if (e != OK) {
        fanout_gather_close(gather);
        return e;
    }
    set->exemplars = gather;
    set->exemplar_series = series;
    set->exemplar_table = table;
    set->proof = proof;
    return OK;
}

static int exemplar_order(const void *a, const void *b)
{
    const struct source_exemplar *x = a, *y = b;
    if (x->t_ms != y->t_ms)
        return x->t_ms < y->t_ms ? -1 : 1;
    return slice_compare(x->labels, y->labels);
}

static size_t exemplar_total(const struct source_set *set, uint32_t first)
{
    size_t total = 0;
    for (uint32_t at = first; at != 0; at = set->exemplar_series[at - 1].twin)
        total += set->exemplar_series[at - 1].series->exemplar_count;
    return total;
}

static err remote_set_exemplars(struct source_set *set, size_t series, struct pool *pool,
                                struct source_exemplar **out_exemplars, size_t *out_count)
{
    check(series < set->count);
    if (set->exemplars == NULL)
        TRY(exemplars_fetch(set));
    uint32_t first =
        *table_slot(&set->exemplar_table, set->exemplar_series, set->series[series].series->labels);
    size_t total = exemplar_total(set, first), count = 0, kept = 0;
    void *at;
    TRY(pool_alloc(pool, total * sizeof(struct source_exemplar) + 1, &at));
    struct source_exemplar *exemplars = at;
    for (uint32_t twin = first; twin != 0; twin = set->exemplar_series[twin - 1].twin) {
        const struct set_series *s = &set->exemplar_series[twin - 1];
        for (size_t i = 0; i < s->series->exemplar_count; i++) {
            exemplars[count] = s->answer->exemplars[s->series->first_exemplar + i];
            TRY(pool_copy(pool, exemplars[count].labels, &exemplars[count].labels));
            count++;
        }
    }
    if (count > 0)
        qsort(exemplars, count, sizeof *exemplars, exemplar_order);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || exemplar_order(&exemplars[kept - 1], &exemplars[i]) != 0)
            exemplars[kept++] = exemplars[i];
    *out_exemplars = exemplars;
    *out_count = kept;
    return OK;
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
    struct wire_request request = request_of(kind, &requests[0]);
    struct time_range range = requests[0].range;
    struct proof proof = { .complete = true };
    err e;
    void *at;
    check(request_count > 0);
    TRY_OUT(pool_alloc(scratch, request_count * sizeof *request.selectors, &at));
    struct wire_selector *selectors = at;
    for (size_t i = 0; i < request_count; i++) {
        TRY_OUT(selector_of(&requests[i], scratch, &selectors[i]));
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

static err remote_label_names(struct source *source, const struct source_request *requests,
                              size_t request_count, size_t limit, struct pool *pool, struct slice **out_names,
                              size_t *out_count, struct proof *out_proof)
{
    return gather_texts(source, WIRE_NAMES, slice_of("", 0), requests, request_count, limit, pool, out_names,
                        out_count, out_proof);
}

static err remote_label_values(struct source *source, struct slice name,
                               const struct source_request *requests, size_t request_count, size_t limit,
                               struct pool *pool, struct slice **out_values, size_t *out_count,
                               struct proof *out_proof)
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

static err remote_metadata(struct source *source, struct slice tenant, struct slice family, struct pool *pool,
                           struct source_metadata **out_metadata, size_t *out_count)
{
    struct fanout *fanout = source->context;
    struct source_request all = { .tenant = tenant,
                                  .range = { TIME_MS_MIN, TIME_MS_MAX },
                                  .series_max = SIZE_MAX };
    struct wire_request request = request_of(WIRE_METADATA, &all);
    struct gather *gather;
    request.name = family;
    TRY(fanout_gather_open(&fanout->config, &request, all.range, NULL, pool, &gather));
    err e = metadata_unite(gather, pool, out_metadata, out_count);
    fanout_gather_close(gather);
    return e;
}

static err remote_cardinality(struct source *source, struct slice tenant, size_t limit, struct pool *pool,
                              struct source_cardinality *out_cardinality)
{
    return ERR_UNSUPPORTED; /* a node's counts are over all that it holds, replicas included: no sum is right */
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

/* Hand over a group: its pieces, put one behind the other. */
static err hand_over(const struct gather_answer *answer, const struct gather_group *group,
                     const struct source_unit *unit, const struct group_columns *columns)
{
    struct source_group whole = { .labels = group->labels, .drop_name = group->drop_name };
    size_t piece = group->first_piece;
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

static err remote_groups(struct source *source, const struct source_request *request,
                         const struct source_unit *unit, struct pool *pool, struct source_groups *out_groups)
{
    struct fanout *fanout = source->context;
    struct gather *gather = NULL;
    struct source_groups groups;
    struct wire_selector times = { .range = request->range };
    struct wire_request wire = request_of(WIRE_GROUPS, request);
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

static const struct source_table remote_table = {
    .select = remote_select,
    .set_count = remote_set_count,
    .reader_open = remote_reader_open,
    .reader_close = remote_reader_close,
    .read_labels = remote_read_labels,
    .read_samples = remote_read_samples,
    .set_proof = remote_set_proof,
    .set_close = remote_set_close,
    .label_names = remote_label_names,
    .label_values = remote_label_values,
    .set_exemplars = remote_set_exemplars,
    .metadata = remote_metadata,
    .cardinality = remote_cardinality,
    .groups = remote_groups,
};

err fanout_open(const struct fanout_config *config, struct pool *pool, struct fanout **out_fanout)
{
    void *at;
    check(config->partition_count >= 1 && config->partition_count <= FANOUT_PARTITION_MAX);
    TRY(pool_zalloc(pool, sizeof(struct fanout), &at));
    struct fanout *fanout = at;
    fanout->config = *config;
    fanout->source = (struct source){ .table = &remote_table, .context = fanout };
    *out_fanout = fanout;
    return OK;
}

struct source *fanout_source(struct fanout *fanout) { return &fanout->source; }
