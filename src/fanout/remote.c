/* The source whose data are at nodes. From: promql, api, through model/source.h. To: gather.c.
 *
 * select asks for series with all their rows and returns when every answer is in: reading what came of other
 * nodes then touches nothing but memory, from any thread. Of what is this node's own the set is there, and rows
 * are read from it, also from any thread. Exemplars are asked for when the first are wanted. A series lives in
 * one partition, so answers are put one behind the other; where two may hold the same partition, rows of the
 * same labels are merged. Names, values, metadata and groups are in remote_union.c.
 *
 * Invariants
 *  1. A set is immutable but for its exemplars (lock-free: one thread asks for them, as the interface says of
 *     sets), which are all there or not at all, and for what is asked for again (under its lock).
 *  2. Rows that came in bytes were decoded and checked when they came: reading them fails for lack of memory
 *     only. Own rows may turn out damaged, which is named, or not readable: then their partitions are asked
 *     elsewhere, once, and rows that cannot be read here are taken from there.
 *  3. Of equal times of the same labels from two answers, one row counts. */
#include "fanout/fanout.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/time.h"
#include "fanout/gather.h"
#include "fanout/remote.h"
#include "fanout/wire.h"
#include "io/thread.h"
#include "model/labels.h"

#include <stdlib.h>

struct set_series {
    const struct gather_answer *answer;
    const struct gather_series *series; /* NULL: an own one whose labels nobody needed */
    uint32_t index;                     /* in its answer */
    uint32_t twin;                      /* 1 + index of the same labels from another answer; 0: none */
};

/* Series by their labels: 1 + index, 0 where none is. */
struct label_table {
    uint32_t *slots;
    size_t mask;
};

/* Own partitions, asked elsewhere because some of their rows could not be read. */
struct again {
    struct gather *gather; /* NULL: not needed so far */
    struct pool *pool;
    struct set_series *series;
    struct label_table table;
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
    uint32_t own_count; /* answers of this node's own */
    struct again again;
    struct io_mutex lock; /* of again while it is made; held while other nodes are asked */
};

struct source_reader {
    struct source_set *set;
    struct pool *pool;
    struct source_reader **own; /* of each own answer, by its number */
    struct buf labels;
    struct sample_columns parts[2], merged; /* of labels that came twice */
};

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

/* The labels of an own answer's series, in pool. */
static err own_labels(struct gather_answer *answer, struct pool *pool)
{
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    struct source_reader *reader;
    void *at;
    err e = OK;
    TRY(pool_zalloc(pool, answer->series_count * sizeof *answer->series + 1, &at));
    struct gather_series *series = at;
    TRY(answer->table->reader_open(answer->set, &reader));
    for (size_t i = 0; i < answer->series_count && e == OK; i++) {
        buf_clear(&labels);
        e = answer->table->read_labels(reader, i, &labels);
        if (e == OK)
            e = pool_copy(pool, buf_slice(&labels), &series[i].labels);
    }
    answer->table->reader_close(reader);
    if (e == OK)
        answer->series = series;
    return e;
}

/* Series being put one behind the other. */
struct listing {
    struct set_series *series;
    size_t count, end;
};

static void list_one(struct listing *l, const struct label_table *table, struct set_series one)
{
    uint32_t *slot = one.series != NULL ? table_slot(table, l->series, one.series->labels) : NULL;
    if (slot == NULL || *slot == 0) {
        l->series[l->count++] = one;
        if (slot != NULL)
            *slot = (uint32_t)l->count;
        return;
    }
    one.twin = l->series[*slot - 1].twin;
    l->series[--l->end] = one;
    l->series[*slot - 1].twin = (uint32_t)l->end + 1;
}

/* All series of all answers; of the same labels the first is in [0, *out_count), the others hang behind it.
 * Labels of own series are read only where another answer may have them, too. */
static err series_of(struct gather *gather, struct pool *pool, struct set_series **out_series,
                     size_t *out_count, struct label_table *out_table)
{
    size_t total = 0, named = 0;
    void *at;
    for (struct gather_answer *a = gather->answers; a != NULL; a = a->next) {
        if (a->set != NULL && gather->may_meet)
            TRY(own_labels(a, pool));
        total += a->series_count;
        named += a->series != NULL ? a->series_count : 0;
    }
    if (total >= UINT32_MAX)
        return ERR_LIMIT;
    TRY(pool_alloc(pool, total * sizeof(struct set_series) + 1, &at));
    TRY(table_open(pool, named, out_table));
    struct listing listing = { .series = at, .end = total };
    for (const struct gather_answer *a = gather->answers; a != NULL; a = a->next)
        for (size_t i = 0; i < a->series_count; i++)
            list_one(&listing, out_table,
                     (struct set_series){ .answer = a,
                                          .series = a->series != NULL ? &a->series[i] : NULL,
                                          .index = (uint32_t)i });
    *out_series = listing.series;
    *out_count = listing.count;
    return OK;
}

static void remote_set_close(struct source_set *set)
{
    if (set == NULL)
        return;
    fanout_gather_close(set->again.gather);
    pool_close(set->again.pool);
    fanout_gather_close(set->gather);
    fanout_gather_close(set->exemplars);
    io_mutex_done(&set->lock);
    pool_close(set->pool);
}

static err set_fill(struct source_set *set, const struct source_request *request)
{
    struct label_table table;
    void *at;
    set->request = remote_request_of(WIRE_SAMPLES, request);
    TRY(pool_copy(set->pool, request->tenant, &set->request.tenant));
    TRY(remote_selector_of(request, set->pool, &set->selector));
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
    for (struct gather_answer *a = set->gather->answers; a != NULL; a = a->next)
        if (a->set != NULL)
            a->number = set->own_count++;
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
    io_mutex_init(&set->lock);
    err e = set_fill(set, request);
    if (e != OK) {
        remote_set_close(set);
        return e;
    }
    *out_set = set;
    return OK;
}

static size_t remote_set_count(const struct source_set *set) { return set->count; }

/* What of its own answers was found out to be missing since they were selected; others have room for it. */
static const struct proof *remote_set_proof(struct source_set *set)
{
    for (struct gather_answer *a = set->gather->answers; a != NULL; a = a->next) {
        if (a->set == NULL)
            continue;
        const struct proof *proof = a->table->set_proof(a->set);
        for (; a->missing_seen < proof->missing_count; a->missing_seen++)
            if (gather_has(&a->answered, proof->missing[a->missing_seen].partition))
                proof_miss(&set->proof, &proof->missing[a->missing_seen]);
        if (proof->missing_count == PROOF_MISSING_COUNT_MAX)
            set->proof.complete = false; /* more may have been left out */
    }
    for (size_t i = 0; set->again.gather != NULL && i < set->again.gather->proof.missing_count; i++)
        proof_miss(&set->proof, &set->again.gather->proof.missing[i]);
    return &set->proof;
}

/* ---- reading ---- */

static void remote_reader_close(struct source_reader *reader)
{
    if (reader == NULL)
        return;
    for (const struct gather_answer *a = reader->set->gather->answers; a != NULL; a = a->next)
        if (a->set != NULL)
            a->table->reader_close(reader->own[a->number]);
    pool_close(reader->pool);
}

static err reader_fill(struct source_reader *reader)
{
    void *at;
    TRY(pool_zalloc(reader->pool, reader->set->own_count * sizeof(struct source_reader *) + 1, &at));
    reader->own = at;
    for (const struct gather_answer *a = reader->set->gather->answers; a != NULL; a = a->next)
        if (a->set != NULL)
            TRY(a->table->reader_open(a->set, &reader->own[a->number]));
    return OK;
}

static err remote_reader_open(struct source_set *set, struct source_reader **out_reader)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(set->pool, "reader", sizeof(struct source_reader), &pool, &at));
    struct source_reader *reader = at;
    *reader = (struct source_reader){ .set = set,
                                      .pool = pool,
                                      .labels = buf_open(pool, LABELS_BYTES_MAX),
                                      .parts = { sample_columns_open(pool), sample_columns_open(pool) },
                                      .merged = sample_columns_open(pool) };
    err e = reader_fill(reader);
    if (e == OK)
        *out_reader = reader;
    else if (reader->own == NULL)
        pool_close(pool);
    else
        remote_reader_close(reader);
    return e;
}

static err remote_read_labels(struct source_reader *reader, size_t series, struct buf *out)
{
    check(series < reader->set->count);
    const struct set_series *s = &reader->set->series[series];
    if (s->answer->set != NULL)
        return s->answer->table->read_labels(reader->own[s->answer->number], s->index, out);
    buf_put_slice(out, s->series->labels);
    return buf_err(out);
}

static err read_pieces(const struct set_series *s, struct sample_columns *columns)
{
    sample_columns_clear(columns);
    for (size_t i = 0; i < s->series->piece_count; i++)
        TRY(wire_piece_read(&s->answer->pieces[s->series->first_piece + i], columns));
    return OK;
}

/* ---- own rows that cannot be read ---- */

static err ask_again(struct source_set *set)
{
    struct again *again = &set->again;
    struct fanout_config config = set->fanout->config;
    struct wire_request request = set->request;
    struct gather_bits wanted = { { 0 } };
    struct gather *gather;
    size_t count;
    config.own.source = NULL; /* as any other node */
    for (const struct gather_answer *a = set->gather->answers; a != NULL; a = a->next)
        for (size_t i = 0; a->set != NULL && i < GATHER_WORDS; i++)
            wanted.word[i] |= a->answered.word[i];
    request.partitions = wanted.word;
    again->pool = pool_open(set->pool, "asked again", POOL_BYTES_UNLIMITED);
    err e = fanout_gather_open(&config, &request, set->selector.range, set->guard, again->pool, &gather);
    if (e == OK) {
        e = series_of(gather, again->pool, &again->series, &count, &again->table);
        if (e == OK)
            again->gather = gather;
        else
            fanout_gather_close(gather);
    }
    if (e != OK) {
        pool_close(again->pool);
        again->pool = NULL;
    }
    return e;
}

/* The rows of an own series as others have them. */
static err read_elsewhere(struct source_reader *reader, const struct set_series *s,
                          struct sample_columns *columns)
{
    struct source_set *set = reader->set;
    const struct gather_answer *a = s->answer;
    buf_clear(&reader->labels);
    TRY(a->table->read_labels(reader->own[a->number], s->index, &reader->labels));
    io_mutex_lock(&set->lock);
    err e = set->again.gather != NULL ? OK : ask_again(set);
    io_mutex_unlock(&set->lock);
    TRY(e);
    uint32_t number = *table_slot(&set->again.table, set->again.series, buf_slice(&reader->labels));
    sample_columns_clear(columns);
    return number != 0 ? read_pieces(&set->again.series[number - 1], columns) : OK;
}

static err read_rows(struct source_reader *reader, const struct set_series *s, struct sample_columns *columns)
{
    const struct gather_answer *a = s->answer;
    if (a->set == NULL)
        return read_pieces(s, columns);
    err e = a->table->read_samples(reader->own[a->number], s->index, columns);
    bool is_of_the_query = e == ERR_LIMIT || e == ERR_TIMEOUT || e == ERR_CANCELED;
    return e == OK || is_of_the_query ? e : read_elsewhere(reader, s, columns);
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
    TRY(read_rows(reader, s, so_far));
    for (uint32_t twin = s->twin; twin != 0; twin = reader->set->series[twin - 1].twin) {
        TRY(read_rows(reader, &reader->set->series[twin - 1], more));
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
    TRY(s->twin == 0 ? read_rows(reader, s, columns) : read_twins(reader, s, columns));
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

static err labels_of_series(struct source_set *set, size_t series, struct pool *pool,
                            struct slice *out_labels)
{
    struct source_reader *reader;
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    const struct set_series *s = &set->series[series];
    if (s->series != NULL) {
        *out_labels = s->series->labels;
        return OK;
    }
    TRY(s->answer->table->reader_open(s->answer->set, &reader));
    err e = s->answer->table->read_labels(reader, s->index, &labels);
    s->answer->table->reader_close(reader);
    *out_labels = buf_slice(&labels);
    return e;
}

static err remote_set_exemplars(struct source_set *set, size_t series, struct pool *pool,
                                struct source_exemplar **out_exemplars, size_t *out_count)
{
    check(series < set->count);
    if (set->exemplars == NULL)
        TRY(exemplars_fetch(set));
    struct slice labels;
    TRY(labels_of_series(set, series, pool, &labels));
    uint32_t first = *table_slot(&set->exemplar_table, set->exemplar_series, labels);
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

/* ---- the whole ---- */

static err remote_cardinality(struct source *source, struct slice tenant, size_t limit, struct pool *pool,
                              struct source_cardinality *out_cardinality)
{
    return ERR_UNSUPPORTED; /* a node's counts are over all that it holds, replicas included: no sum is right */
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

void fanout_set_runner(struct fanout *fanout, const struct promql_runner *runner)
{
    fanout->runner = *runner;
    fanout->config.own.runner = &fanout->runner;
}

struct source *fanout_source(struct fanout *fanout) { return &fanout->source; }
