/* Apply: what a log record means. See partition.h; protocol in docs/format/manifest.md §4.
 *
 * Records come from the log's reader in order and become bindings, sequences, rows of the head and SUM. Apply
 * is a pure function of log bytes: no clock, configuration or randomness decides what is stored (when a head
 * is frozen does not matter to what it holds). It runs on one thread, at the start on several, of which one at a
 * time takes a partition.
 *
 * Invariants
 *  1. A record is applied once: its sequence enters the producer's set last, after everything else of it
 * succeeded; a record that fails for want of memory is tried again and goes on where it stopped (struct
 *     progress).
 *  2. p->applied is one more than the offset of the last record whose rows readers can see.
 *  3. Rows of a number without labels are kept as unresolved; a later announcement turns them into rows.
 *  4. A record is never split over two heads or two ranges. */
#include "shard/partition.h"

#include "base/check.h"
#include "base/diag.h"
#include "base/stat.h"
#include "model/histogram.h"

#include <stdlib.h>

/* ---- freezing ---- */

err partition_freeze(struct partition *p)
{
    struct range *range = p->open_range;
    if (range->frozen_count >= SHARD_FROZEN_COUNT_MAX && !p->shards->config.read_only)
        return ERR_BUSY;
    struct metric_head *next = NULL;
    metric_head_publish(p->head); /* rows that just got their labels count already: the view must have them */
    struct metric_head_view view = metric_head_view(p->head);
    bool is_empty = view.row_count + view.histogram_count + view.exemplar_count == 0;
    if (!is_empty) {
        struct metric_head_config config = metric_head_config_default();
        config.rows_max = (uint32_t)p->shards->config.head_rows_max;
        TRY(metric_head_open(p->shards->pool, &config, &next)); /* queries may outlive the partition */
    }
    struct pool *pool = pool_open(p->shards->pool, "frozen", POOL_BYTES_UNLIMITED);
    void *at;
    struct frozen *frozen = NULL;
    err e = OK;
    TRY_OUT(pool_zalloc(pool, sizeof *frozen, &at));
    frozen = at;
    frozen->pool = pool;
    frozen->from = p->head_from;
    TRY_OUT(partition_capture(p, range, true, pool, &frozen->checkpoint));
    partition_captured(p);
    if (!is_empty) {
        frozen->head = p->head;
        frozen->view = view;
        p->head = next;
        next = NULL;
    }
    p->head_rows = 0;
    p->head_from = p->applied;
    *range->frozen_end = frozen;
    range->frozen_end = &frozen->next;
    range->frozen_count++;
    pool = NULL;
out:
    metric_head_unref(next);
    pool_close(pool);
    return e;
}

err partition_close_range(struct partition *p, uint8_t reason, uint16_t format_version)
{
    struct range *range = p->open_range, *next = NULL;
    struct pool *state_pool = NULL;
    err e = OK;
    TRY_OUT(range_open(p->shards, p->applied, &next));
    state_pool = pool_open(p->shards->pool, "state", POOL_BYTES_UNLIMITED);
    range->closed = true;
    range->closed_ns = io_monotonic_ns(p->shards->io);
    range->end = p->applied;
    range->reason = reason;
    range->format_version = format_version;
    TRY_OUT(partition_capture(p, range, false, state_pool, &range->state));
    TRY_OUT(partition_freeze(p));
    range->state_pool = state_pool;
    range->unresolved = state_unresolved_sum(&range->state);
    range->next = next;
    p->open_range = next;
    p->head_from = p->applied;
    p->closed_count++;
    shards_wake_work(p->shards);
    return OK;
out:
    range->closed = false;
    range->state = (struct state){ 0 };
    pool_close(state_pool);
    range_unref(next);
    return e;
}

/* Room in the head, freezing a full one. ERR_BUSY: too many wait for spill. */
static err reserve_rows(struct partition *p, size_t rows, size_t histograms, size_t arena_bytes)
{
    err e = metric_head_reserve(p->head, rows, histograms, arena_bytes);
    if (e != ERR_FULL)
        return e;
    TRY(partition_freeze(p));
    shards_wake_work(p->shards);
    return metric_head_reserve(p->head, rows, histograms, arena_bytes);
}

/* The same for a record. */
static err reserve(struct partition *p, const struct batch *b)
{
    size_t arena_bytes = 0;
    for (size_t i = 0; i < b->histogram_count; i++)
        arena_bytes += b->histograms[i].bytes.len + 16;
    for (size_t i = 0; i < b->exemplar_count; i++)
        arena_bytes += b->exemplars[i].labels.len + 16;
    return reserve_rows(p, b->row_count, b->histogram_count, arena_bytes);
}

/* ---- unresolved rows ---- */

static err unresolved_add(struct partition *p, struct range *range, size_t producer, uint32_t number,
                          int64_t t_ms, int64_t start_ms, uint64_t bits, struct slice histogram)
{
    if (number >= STATE_NUMBER_MAX)
        return ERR_CORRUPT; /* a state with it could not be read back */
    if (p->unresolved_count >= STATE_UNRESOLVED_COUNT_MAX) {
        struct chain_loss loss = { .kind = LOSS_UNRESOLVED,
                                   .from = p->applied,
                                   .to = { p->applied.generation, p->applied.offset + 1 },
                                   .range = { t_ms, t_ms },
                                   .row_count = 1 };
        return range_loss_add(range, &loss);
    }
    void *block = p->unresolved, *bytes = NULL;
    TRY(pool_block_reserve(p->pool, &block, sizeof *p->unresolved, p->unresolved_count + 1,
                           &p->unresolved_capacity));
    p->unresolved = block;
    if (histogram.len > 0) {
        TRY(pool_block_resize(p->pool, &bytes, histogram.len));
        memcpy(bytes, histogram.at, histogram.len);
    }
    p->unresolved[p->unresolved_count++] =
        (struct state_unresolved){ .incarnation = (uint32_t)producer,
                                   .number = number,
                                   .t_ms = t_ms,
                                   .start_ms = start_ms,
                                   .bits = bits,
                                   .histogram = slice_of(bytes, histogram.len) };
    p->producers[producer].waiting_count++;
    return OK;
}

/* A number that gets its labels with the record. */
struct announced {
    uint32_t number, local;
};

static int announced_order(const void *a, const void *b)
{
    const struct announced *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

/* The record's new numbers, which rows may wait for. */
struct resolving {
    struct partition *p;
    struct range *range;
    size_t producer;
    const struct announced *list; /* sorted */
    size_t count;
};

static const struct announced *find_announced(const struct resolving *r, const struct state_unresolved *u)
{
    struct announced key = { .number = u->number };
    return u->incarnation != r->producer ? NULL
                                         : bsearch(&key, r->list, r->count, sizeof key, announced_order);
}

/* One row goes to the head, where room is reserved, as if it had come with its labels. */
static err resolve_row(const struct resolving *r, const struct state_unresolved *u, uint32_t local)
{
    struct partition *p = r->p;
    bool is_histogram = u->histogram.len > 0;
    struct batch_start start = { .row = 0, .start_ms = u->start_ms };
    if (is_histogram)
        TRY(metric_head_append_histogram(p->head, local, u->t_ms, u->start_ms, u->histogram));
    else
        TRY(metric_head_append(p->head, &local, &u->t_ms, &u->bits, 1, &start, u->start_ms != 0));
    uint64_t type = is_histogram ? SAMPLE_HISTOGRAM : SAMPLE_FLOAT;
    struct producer *producer = &p->producers[r->producer];
    struct hash128 removed =
        sum_row_hash(state_unresolved_hash(producer->id, u->number), u->t_ms, u->bits, u->start_ms, type);
    struct hash128 added = sum_row_hash(metric_fingerprint_of_local(p->fingerprints, local), u->t_ms, u->bits,
                                        u->start_ms, type);
    sum_add_hash(&r->range->resolved_removed, removed);
    sum_add_hash(&r->range->resolved_added, added);
    sum_add_hash(&r->range->sum, added);
    r->range->row_count++;
    p->head_rows++;
    producer->waiting_count--;
    pool_block_free(p->pool, (void *)u->histogram.at);
    return OK;
}

#define RESOLVE_ARENA_BYTES (16u << 20)

/* As many of them as a head takes at once, from *from on, in the order in which they came. *from: behind the last;
 * the count of rows if there was none. A head is frozen only before the first of them moves: a checkpoint has each
 * row once, as waiting or as a row. */
static err resolve_some(const struct resolving *r, size_t *from)
{
    struct partition *p = r->p;
    size_t rows = 0, histograms = 0, arena_bytes = 0, end = *from;
    for (; end < p->unresolved_count && rows + histograms < BATCH_ROWS_MAX &&
           arena_bytes < RESOLVE_ARENA_BYTES && rows + histograms < p->shards->config.head_rows_max;
         end++) {
        const struct state_unresolved *u = &p->unresolved[end];
        if (find_announced(r, u) == NULL)
            continue;
        rows += u->histogram.len == 0;
        histograms += u->histogram.len > 0;
        arena_bytes += u->histogram.len > 0 ? u->histogram.len + 16 : 0;
    }
    if (rows + histograms > 0)
        TRY(reserve_rows(p, rows, histograms, arena_bytes));
    err e = OK;
    size_t kept = *from, i = *from;
    for (; i < end && e == OK; i += e == OK) {
        const struct announced *a = find_announced(r, &p->unresolved[i]);
        if (a != NULL)
            e = resolve_row(r, &p->unresolved[i], a->local);
        else
            p->unresolved[kept++] = p->unresolved[i];
    }
    memmove(p->unresolved + kept, p->unresolved + i, (p->unresolved_count - i) * sizeof *p->unresolved);
    p->unresolved_count -= i - kept;
    *from = kept;
    return e;
}

/* ---- parts of a record ---- */

/* Rows that waited for these numbers get their labels, before the numbers are bound: without memory it goes on
 * here when the record is tried again. */
static err resolve(struct partition *p, struct range *range, size_t index, const struct batch *b,
                   const uint32_t *locals)
{
    void *at;
    struct resolving r = { .p = p, .range = range, .producer = index };
    if (p->producers[index].waiting_count == 0)
        return OK;
    TRY(pool_alloc(p->scratch->pool, b->announce_count * sizeof(struct announced) + 1, &at));
    struct announced *list = at;
    for (size_t i = 0; i < b->announce_count; i++)
        if (producer_local(&p->producers[index], b->announces[i].number) == STATE_UNBOUND)
            list[r.count++] = (struct announced){ b->announces[i].number, locals[i] };
    qsort(list, r.count, sizeof *list, announced_order);
    r.list = list;
    for (size_t from = 0; r.count > 0 && from < p->unresolved_count && p->producers[index].waiting_count > 0;)
        TRY(resolve_some(&r, &from));
    return OK;
}

static err apply_announces(struct partition *p, struct range *range, size_t index, const struct batch *b)
{
    struct metric_index_item items[METRIC_INDEX_ITEMS];
    void *at;
    if (b->announce_count == 0)
        return OK;
    TRY(pool_alloc(p->scratch->pool, b->announce_count * sizeof(uint32_t), &at));
    uint32_t *locals = at;
    for (size_t from = 0, done; from < b->announce_count; from += done) {
        size_t left = b->announce_count - from;
        size_t count = left < METRIC_INDEX_ITEMS ? left : METRIC_INDEX_ITEMS;
        for (size_t i = 0; i < count; i++)
            items[i].labels = b->announces[from + i].labels;
        TRY(metric_index_add_all(p->shards->index, b->tenant, items, count, p->number, &done));
        for (size_t i = 0; i < done; i++)
            locals[from + i] = items[i].local;
    }
    TRY(resolve(p, range, index, b, locals));
    for (size_t i = 0; i < b->announce_count; i++)
        TRY(producer_bind(p, &p->producers[index], b->announces[i].number, locals[i]));
    return OK;
}

/* Numbers of a record's rows as series. *out_unknown: how many have none. */
static err map_numbers(struct partition *p, const struct producer *producer, const struct batch *b,
                       size_t *out_unknown)
{
    struct apply_scratch *scratch = p->scratch;
    void *block = scratch->locals;
    TRY(pool_block_reserve(scratch->pool, &block, sizeof(uint32_t), b->row_count + 1, &scratch->capacity));
    scratch->locals = block;
    size_t unknown = 0;
    for (size_t i = 0; i < b->row_count; i++) {
        uint32_t number = b->numbers[i];
        uint32_t local = producer_local(producer, number);
        scratch->locals[i] = local;
        unknown += local == STATE_UNBOUND;
    }
    *out_unknown = unknown;
    return OK;
}

static void sum_floats(struct partition *p, struct range *range, const struct batch *b)
{
    const uint32_t *locals = p->scratch->locals;
    size_t start = 0;
    int64_t far_ms = b->append_ms + SHARD_FAR_FUTURE_MS;
    for (size_t i = 0; i < b->row_count; i++) {
        int64_t start_ms = 0;
        if (start < b->start_count && b->starts[start].row == i)
            start_ms = b->starts[start++].start_ms;
        range->far_future_rows += b->t_ms[i] > far_ms;
        if (locals[i] != STATE_UNBOUND)
            sum_add_hash(&range->sum, sum_row_hash(metric_fingerprint_of_local(p->fingerprints, locals[i]),
                                                   b->t_ms[i], b->value_bits[i], start_ms, SAMPLE_FLOAT));
    }
}

/* The rows with known series, closed up in place; the others become unresolved. */
static err take_unknown(struct partition *p, struct range *range, size_t producer, struct batch *b)
{
    uint32_t *locals = p->scratch->locals;
    size_t rows = 0, starts = 0, start = 0;
    for (size_t i = 0; i < b->row_count; i++) {
        int64_t start_ms = 0;
        if (start < b->start_count && b->starts[start].row == i)
            start_ms = b->starts[start++].start_ms;
        if (locals[i] == STATE_UNBOUND) {
            TRY(unresolved_add(p, range, producer, b->numbers[i], b->t_ms[i], start_ms, b->value_bits[i],
                               slice_of(NULL, 0)));
            continue;
        }
        locals[rows] = locals[i];
        b->t_ms[rows] = b->t_ms[i];
        b->value_bits[rows] = b->value_bits[i];
        if (start_ms != 0)
            b->starts[starts++] = (struct batch_start){ .row = (uint32_t)rows, .start_ms = start_ms };
        rows++;
    }
    b->row_count = rows;
    b->start_count = starts;
    return OK;
}

static err apply_floats(struct partition *p, struct range *range, size_t index, struct batch *b)
{
    if (b->row_count == 0 || p->progress.floats_done)
        return OK;
    size_t unknown, before = p->unresolved_count, losses = range->loss_count;
    struct chain_loss loss = { 0 };
    if (losses > 0)
        loss = range->losses[losses - 1];
    TRY(map_numbers(p, &p->producers[index], b, &unknown));
    struct sum sum = range->sum;
    uint64_t far = range->far_future_rows;
    sum_floats(p, range, b);
    err e = OK;
    if (unknown > 0)
        TRY_OUT(take_unknown(p, range, index, b));
    if (b->row_count > 0)
        TRY_OUT(metric_head_append(p->head, p->scratch->locals, b->t_ms, b->value_bits, b->row_count,
                                   b->starts, b->start_count));
    range->row_count += b->row_count;
    p->head_rows += b->row_count;
    p->progress.floats_done = true;
    return OK;
out:
    range->sum = sum;
    range->far_future_rows = far;
    p->producers[index].waiting_count -= p->unresolved_count - before;
    p->unresolved_count = before; /* float rows own nothing */
    range->loss_count = losses;
    if (losses > 0)
        range->losses[losses - 1] = loss;
    return e;
}

static err apply_histograms(struct partition *p, struct range *range, size_t index, const struct batch *b)
{
    for (size_t i = p->progress.histograms_done; i < b->histogram_count; i++) {
        const struct batch_histogram *h = &b->histograms[i];
        const struct producer *producer = &p->producers[index];
        uint32_t local = producer_local(producer, h->number);
        uint64_t bits = sum_histogram_bits(h->bytes);
        if (local == STATE_UNBOUND) {
            TRY(unresolved_add(p, range, index, h->number, h->t_ms, h->start_ms, bits, h->bytes));
        } else {
            TRY(metric_head_append_histogram(p->head, local, h->t_ms, h->start_ms, h->bytes));
            sum_add_hash(&range->sum, sum_row_hash(metric_fingerprint_of_local(p->fingerprints, local),
                                                   h->t_ms, bits, h->start_ms, SAMPLE_HISTOGRAM));
            range->row_count++;
            p->head_rows++;
        }
        range->far_future_rows += h->t_ms > b->append_ms + SHARD_FAR_FUTURE_MS;
        p->progress.histograms_done = i + 1;
    }
    return OK;
}

static err apply_extras(struct partition *p, size_t index, const struct batch *b)
{
    for (size_t i = p->progress.exemplars_done; i < b->exemplar_count; i++) {
        const struct batch_exemplar *x = &b->exemplars[i];
        const struct producer *producer = &p->producers[index];
        uint32_t local = producer_local(producer, x->number);
        if (local != STATE_UNBOUND)
            TRY(metric_head_append_exemplar(p->head, local, x->t_ms, x->value, x->labels));
        else /* without its series it is of no use */
            stat_add(STAT_SHARD_EXEMPLARS_DROPPED, 1);
        p->progress.exemplars_done = i + 1;
    }
    for (size_t i = 0; i < b->metadata_count; i++) {
        const struct batch_metadata *m = &b->metadata[i];
        struct state_metadata copy = {
            .tenant = b->tenant, .family = m->family, .help = m->help, .unit = m->unit, .type = m->type
        };
        TRY(partition_metadata_add(p, &copy));
    }
    return OK;
}

/* Records from here to `to` are lost: named, and gone over. */
static err lose(struct partition *p, uint64_t to)
{
    struct chain_loss loss = {
        .kind = LOSS_LOG,
        .from = p->applied,
        .to = { p->applied.generation, to },
        .range = { TIME_MS_MIN, TIME_MS_MAX }
    };                                         /* whoever wrote it may have sent rows of any age */
    TRY(range_loss_add(p->open_range, &loss)); /* the next record's append time ends it: loss_end */
    uint64_t count = to - p->applied.offset;
    atomic_fetch_add_explicit(&p->shards->lost_records, count, memory_order_relaxed);
    stat_add(STAT_SHARD_LOST_RECORDS, (int64_t)count);
    return OK;
}

/* A record whose bytes are lost or make no sense. */
static err apply_loss(struct partition *p) { return lose(p, p->applied.offset + 1); }

/* A record that is whole tells until when the lost ones before it were sent. */
static void loss_end(struct range *range, int64_t append_ms)
{
    struct chain_loss *last = range->loss_count > 0 ? &range->losses[range->loss_count - 1] : NULL;
    if (last != NULL && last->kind == LOSS_LOG && last->range.max_ms == TIME_MS_MAX &&
        append_ms < TIME_MS_MAX - SHARD_LOSS_BEHIND_MS)
        last->range.max_ms = append_ms + SHARD_LOSS_BEHIND_MS;
}

static err apply_metric(struct partition *p, struct batch *b)
{
    struct range *range = p->open_range;
    size_t index;
    TRY(producer_find(p, b->incarnation, &index));
    struct producer *producer = &p->producers[index];
    if (dedupe_has(&producer->seen, b->sequence) &&
        (p->shards->config.canary & SHARD_CANARY_NO_DEDUPE) == 0) {
        atomic_fetch_add_explicit(&p->shards->duplicate_records, 1, memory_order_relaxed);
        stat_add(STAT_SHARD_DUPLICATE_RECORDS, 1);
        return OK;
    }
    loss_end(range, b->append_ms); /* before rows of this one are lost, too */
    /* A record of which rows are in the head already is finished there: a checkpoint between its rows would
     * bring those before it a second time with the replay. */
    if (!p->progress.floats_done && p->progress.histograms_done == 0)
        TRY(reserve(p, b));
    uint64_t rows_before = p->head_rows;
    TRY(apply_announces(p, range, index, b));
    TRY(apply_floats(p, range, index, b));
    TRY(apply_histograms(p, range, index, b));
    TRY(apply_extras(p, index, b));
    producer = &p->producers[index];
    bool is_new;
    TRY(dedupe_add(&producer->seen, b->sequence, &is_new));
    producer->last = p->applied;
    producer->heard_ns = io_monotonic_ns(p->shards->io);
    producer->is_dead = partition_is_past(p, p->applied);
    p->heard_ns = producer->heard_ns;
    if (rows_before == 0 && p->head_rows > 0)
        p->head_since_ns = p->heard_ns;
    metric_head_publish(p->head);
    if (b->append_ms > p->data_through_ms)
        p->data_through_ms = b->append_ms;
    stat_add(STAT_SHARD_APPLIED_ROWS, (int64_t)(b->row_count + b->histogram_count));
    return OK;
}

static void apply_forget(struct partition *p, const struct control *control)
{
    for (size_t i = 0; i < p->producer_count; i++) {
        struct producer *producer = &p->producers[i];
        if (memcmp(producer->id, control->incarnation, INCARNATION_BYTES) != 0)
            continue;
        if (position_compare(producer->last, control->position) != 0)
            return; /* it was heard since */
        if (producer->waiting_count > 0)
            return; /* what it sent is still waiting for labels: it stays, and answers name it */
        for (size_t k = 0; k < p->unresolved_count; k++)
            p->unresolved[k].incarnation -= p->unresolved[k].incarnation > i;
        producer_done(p, producer);
        p->producer_count--;
        memmove(p->producers + i, p->producers + i + 1, (p->producer_count - i) * sizeof *p->producers);
        p->producer_last = 0;
        atomic_store(&p->shards->retain_index, true);
        return;
    }
}

/* With the rows of one more record, and all that may wait for its labels, a range is what a segment takes of one
 * series. */
#define RANGE_ROWS_MAX (METRIC_COMPACT_SERIES_ROWS_MAX - BATCH_ROWS_MAX - STATE_UNRESOLVED_COUNT_MAX)
_Static_assert(RANGE_ROWS_MAX == 11534336,
               "all who read the log end ranges alike: docs/format/manifest.md §4.1");

/* A range that ends with the record being applied. */
struct range_end {
    bool is_end;
    uint8_t reason;
    uint16_t format_version;
};

static err apply_control(struct partition *p, struct slice bytes, struct range_end *out_end)
{
    struct control control;
    err e = control_decode(bytes, &control);
    if (e == ERR_VERSION)
        return OK; /* a newer node's: what it asks for is not for us */
    if (e != OK)
        return apply_loss(p);
    if (control.kind == CONTROL_FORGET)
        apply_forget(p, &control);
    else if (position_compare(control.position, p->open_range->start) == 0)
        *out_end = (struct range_end){ true, control.reason, control.format_version };
    return OK;
}

err apply_record(struct partition *p, const struct log_record *record)
{
    struct range *range = p->open_range;
    struct range_end end = { 0 };
    err e = OK;
    if (p->applied.offset != record->position.offset) {
        check(p->applied.offset < record->position.offset);
        if (record->missing > 0)
            TRY(lose(p, record->position.offset));
        p->applied.offset = record->position.offset; /* the log says these offsets never were */
    }
    if (record->is_marker) { /* nothing came up to then */
        if (record->t_ms != LOG_TIME_NONE && record->t_ms > p->data_through_ms)
            p->data_through_ms = record->t_ms;
        p->applied.offset++;
        p->leader_epoch = record->leader_epoch;
        return OK;
    }
    if (record->damaged) {
        TRY(apply_loss(p));
    } else if (batch_signal(record->bytes) == SIGNAL_CONTROL) {
        TRY(apply_control(p, record->bytes, &end));
    } else {
        struct batch b;
        pool_reset(p->scratch->pool);
        e = batch_decode(record->bytes, p->scratch->pool, &b);
        if (e == OK)
            e = apply_metric(p, &b);
        if (e == ERR_CORRUPT || e == ERR_INPUT || e == ERR_CONFLICT)
            e = apply_loss(p); /* two meanings of one number, or bytes that are no batch */
        TRY(e);
    }
    int32_t epoch_before = p->leader_epoch;
    p->applied.offset++;
    p->leader_epoch = record->leader_epoch; /* a range that ends here names it */
    if (range->record_count == 0)
        range->first_ms = record->t_ms;
    if (record->t_ms != LOG_TIME_NONE)
        p->newest_ms = record->t_ms;
    range->record_count++;
    range->log_bytes += record->bytes.len;
    if (!end.is_end &&
        (range->log_bytes >= p->shards->config.range_bytes_max || range->row_count >= RANGE_ROWS_MAX))
        end = (struct range_end){ true, CUT_BYTES_MAX, METRIC_COMPACT_VERSION };
    if (end.is_end)
        e = partition_close_range(p, end.reason, end.format_version);
    if (e != OK) { /* tried again as a whole: the record itself is a no-op then */
        p->applied.offset--;
        p->leader_epoch = epoch_before;
        range->record_count--;
        range->log_bytes -= record->bytes.len;
        return e;
    }
    p->progress = (struct progress){ 0 };
    return OK;
}

static void set_waits(struct partition *p, bool waits)
{
    if (p->apply_waits == waits)
        return; /* only this thread writes it */
    io_mutex_lock(&p->lock);
    p->apply_waits = waits;
    io_mutex_unlock(&p->lock);
}

/* Queries and workers look at it. */
static void set_failed(struct partition *p, err e)
{
    io_mutex_lock(&p->lock);
    p->apply_failed = e;
    io_mutex_unlock(&p->lock);
}

bool apply_partition(struct partition *p, size_t record_max)
{
    bool worked = false;
    for (size_t i = 0; i < record_max && !atomic_load(&p->shards->stopping.canceled) &&
                       (p->apply_failed == OK || p->apply_failed == ERR_IO);
         i++) {
        if (!p->has_pending) {
            err e = log_reader_next(p->reader, &p->pending);
            if (e == ERR_END || e == ERR_LIMIT)
                break;
            if (e != OK) { /* after ERR_IO the reader may try again; intake is closed meanwhile */
                if (p->apply_failed != e && e != ERR_ORDER) /* it went back: a generation begins (append.c) */
                    diag(DIAG_ERROR, "Cannot read the log; answers lack what is behind.",
                         "partition=%u offset=%llu error=\"%s\"", p->number,
                         (unsigned long long)p->applied.offset, err_text(e));
                set_failed(p, e);
                break;
            }
            if (p->apply_failed != OK)
                set_failed(p, OK);
            p->has_pending = true;
        }
        const struct shards_config *config = &p->shards->config;
        bool spills = config->is_shared && !config->read_only;
        bool is_full = spills && atomic_load(&p->shards->heads_are_full);
        io_mutex_lock(&p->lock);
        uint64_t before = p->applied.offset;
        err e = is_full ? ERR_BUSY : apply_record(p, &p->pending); /* elsewhere intake is closed instead */
        if (e == OK)
            partition_mark(p, before);
        io_mutex_unlock(&p->lock);
        if (e == ERR_LIMIT || e == ERR_BUSY) { /* spill makes room; the record is tried again */
            set_waits(p, true);
            shards_wake_work(p->shards);
            break;
        }
        set_waits(p, false);
        if (e != OK) {
            set_failed(p, e);
            diag(DIAG_ERROR, "Cannot apply a record; the partition applies no more.",
                 "partition=%u offset=%llu error=\"%s\"", p->number,
                 (unsigned long long)p->pending.position.offset, err_text(e));
            break;
        }
        p->has_pending = false;
        worked = true;
        atomic_fetch_add_explicit(&p->shards->applied_records, 1, memory_order_relaxed);
    }
    return worked;
}
