/* From a series' label bytes to its columns: find or register the series, then add its rows to the record of its
 * partition. See request.h.
 *
 * Data comes from the decoders, in the order of the request; it leaves through batch_encode as records.
 *
 * The way of a known series (about 25 ns): the series that followed last time is predicted; its length says how
 * many bytes are its labels; their quick hash decides. A wrong prediction costs a walk over the labels, a hash
 * and a lookup. Only an unknown hash has its labels validated: the table holds none but valid ones.
 *
 * Invariants
 *  1. A record carries the labels of every number in it that had no mark when the record was begun (protocol
 *     §1.2). The epoch read then is the one that its acknowledgement may mark.
 *  2. Numbers, incarnation and sequence of a record are read under one hold of the ingest's lock. The sequence is
 *     taken when nothing can fail any more (request_seal): one that no record has is a gap for ever.
 *  3. What is refused is counted with a reason; nothing disappears. */
#include "ingest/request.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"

#include <stdio.h>

#define MISSES_MAX    8  /* wrong predictions in a row before predicting pauses … */
#define MISSES_PAUSE  64 /* … for so many series */
#define ROW_BYTES_MAX 32 /* of one row in a record, see batch.c */

static const struct slice name_label = { (const uint8_t *)"__name__", 8 };

static err reserve(struct ingest_request *r, void *at, size_t each, size_t count, size_t *capacity)
{
    void **block = at;
    return count <= *capacity ? OK : pool_block_reserve(r->pool, block, each, count, capacity);
}

/* ---- records ---- */

static struct columns *columns_for(struct ingest_request *r, uint32_t partition)
{
    struct columns *c = &r->columns[partition];
    if (c->epoch == 0) {
        c->generation = atomic_load(&r->ingest->producers[partition].generation);
        c->epoch = atomic_load(&r->ingest->producers[partition].epoch);
        if (!c->touched)
            r->touched[r->touched_count++] = partition;
        c->touched = true;
    }
    return c;
}

static void columns_clear(struct columns *c)
{
    c->epoch = c->announced = 0;
    c->bytes = c->row_count = c->start_count = c->histogram_count = 0;
    c->exemplar_count = c->metadata_count = c->announce_count = 0;
    c->future_count = 0;
}

/* Encode what the columns of a partition hold as one record, and empty them. */
static err record_close(struct ingest_request *r, uint32_t partition)
{
    struct columns *c = &r->columns[partition];
    if (c->epoch == 0 || c->row_count + c->histogram_count + c->exemplar_count + c->metadata_count == 0) {
        columns_clear(c); /* a series all of whose rows were refused announces nothing */
        return OK;
    }
    TRY(reserve(r, &r->records, sizeof r->records[0], r->record_count + 1, &r->record_capacity));
    TRY(reserve(r, &r->marks, sizeof r->marks[0], r->mark_count + c->announce_count, &r->mark_capacity));
    struct batch b = {
        .signal = SIGNAL_METRIC,
        .tenant = slice_of(r->tenant->name, r->tenant->name_len),
        .append_ms = r->now_ms,
        .announces = c->announces,
        .announce_count = c->announce_count,
        .numbers = c->numbers,
        .t_ms = c->t_ms,
        .value_bits = c->value_bits,
        .row_count = c->row_count,
        .starts = c->starts,
        .start_count = c->start_count,
        .histograms = c->histograms,
        .histogram_count = c->histogram_count,
        .exemplars = c->exemplars,
        .exemplar_count = c->exemplar_count,
        .metadata = c->metadata,
        .metadata_count = c->metadata_count,
    };
    memcpy(b.incarnation, r->ingest->producers[partition].incarnation, INCARNATION_BYTES);
    struct record record = {
        .offset = r->encoded.len,
        .generation = c->generation,
        .epoch = c->epoch,
        .mark_begin = r->mark_count,
        .mark_end = r->mark_count + c->announce_count,
        .samples = c->row_count,
        .histograms = c->histogram_count,
        .exemplars = c->exemplar_count,
        .metadata = c->metadata_count,
        .future = c->future_count,
        .append = { .partition = partition, .context = r },
    };
    TRY(batch_encode(&b, &r->encoded));
    record.len = r->encoded.len - record.offset;
    for (size_t i = 0; i < c->announce_count; i++)
        r->marks[r->mark_count++] = (struct mark){ c->announce_ids[i], c->announces[i].number };
    r->records[r->record_count++] = record;
    columns_clear(c);
    return OK;
}

err request_close_records(struct ingest_request *r)
{
    for (uint32_t i = 0; i < r->touched_count; i++) {
        TRY(record_close(r, r->touched[i]));
        r->columns[r->touched[i]].touched = false;
    }
    r->touched_count = 0;
    return OK;
}

void request_drop_rows(struct ingest_request *r)
{
    for (uint32_t i = 0; i < r->touched_count; i++) {
        columns_clear(&r->columns[r->touched[i]]);
        r->columns[r->touched[i]].touched = false;
    }
    r->touched_count = 0;
}

/* ---- series ---- */

/* Put the labels into the record unless they are known to be in an acknowledged one, or in this one already. */
static err announce(struct ingest_request *r, struct series_ref *ref)
{
    struct columns *c = ref->columns;
    const struct series *s = ref->entry;
    if (series_mark(s) == c->epoch || c->announced == s->number + 1)
        return OK;
    if (c->announce_count > 0 && c->bytes + ref->labels.len > RECORD_BYTES) {
        TRY(record_close(r, s->partition));
        c = ref->columns = columns_for(r, s->partition); /* the row goes where its labels go */
    }
    if (!ref->stable) {
        TRY(pool_copy(r->pool, ref->labels, &ref->labels));
        ref->stable = true;
    }
    TRY(reserve(r, &c->announces, sizeof c->announces[0], c->announce_count + 1, &c->announce_capacity));
    TRY(reserve(r, &c->announce_ids, sizeof c->announce_ids[0], c->announce_count + 1,
                &c->announce_id_capacity));
    c->announces[c->announce_count] = (struct batch_announce){ s->number, ref->labels };
    c->announce_ids[c->announce_count++] = ref->id;
    c->announced = s->number + 1;
    c->bytes += ref->labels.len + 16;
    return OK;
}

static inline err use(struct ingest_request *r, uint32_t id, struct slice labels, bool stable,
                      struct series_ref *ref)
{
    struct series_table *table = &r->ingest->table;
    struct series *s = series_at(table, id);
    series_set_used(s, r->minute);
    if (r->previous != SERIES_NONE && r->previous != id)
        series_set_next(series_at(table, r->previous), id);
    r->previous = id;
    uint32_t next = series_next(s);
    if (next != SERIES_NONE)
        __builtin_prefetch(series_at(table, next));
    *ref = (struct series_ref){ s, columns_for(r, s->partition), id, labels, stable };
    if (series_mark(s) == ref->columns->epoch)
        return OK;
    return announce(r, ref);
}

/* The record is full: close it and go on with the same series in a new one. */
static err next_record(struct ingest_request *r, struct series_ref *ref)
{
    TRY(record_close(r, ref->entry->partition));
    ref->columns = columns_for(r, ref->entry->partition);
    return announce(r, ref);
}

/* What the table knows a series by: half of the routing hash and the quick hash, both keyed, 128 bits together.
 * A prediction looks at the quick half alone: it was made before the labels were seen, so a wrong one (one in
 * 300) passes with 2^-64. */
static struct hash128 identity_of(const struct tenant *tenant, struct slice labels)
{
    return (struct hash128){ .low = series_hash(tenant->hasher, labels).low,
                             .high = hash_quick(labels, &tenant->quick_key) };
}

/* The predicted series if its labels begin at `at`, else SERIES_NONE. */
static uint32_t predicted(struct ingest_request *r, const uint8_t *at, size_t left)
{
    if (r->previous == SERIES_NONE)
        return SERIES_NONE;
    if (r->misses >= MISSES_MAX) {
        r->misses = r->misses < MISSES_MAX + MISSES_PAUSE ? r->misses + 1 : MISSES_MAX - 1;
        return SERIES_NONE;
    }
    const struct series_table *table = &r->ingest->table;
    uint32_t id = series_next(series_at(table, r->previous));
    if (id == SERIES_NONE)
        return SERIES_NONE;
    const struct series *s = series_at(table, id);
    size_t len = s->label_bytes;
    if (len == 0 || len > left || s->high != hash_quick(slice_of(at, len), &r->tenant->quick_key)) {
        r->misses++;
        return SERIES_NONE;
    }
    atomic_thread_fence(memory_order_acquire);
    r->misses = 0;
    return id;
}

bool request_predict(struct ingest_request *r, const uint8_t *at, size_t left, struct series_ref *out_ref,
                     size_t *out_len, err *out_error)
{
    uint32_t id = predicted(r, at, left);
    if (id == SERIES_NONE)
        return false;
    *out_len = series_at(&r->ingest->table, id)->label_bytes;
    *out_error = use(r, id, slice_of(at, *out_len), true, out_ref);
    return true;
}

/* Labels as they came, in any order and form → canonical ones in scratch. ERR_INPUT, ERR_LIMIT (too large). */
static err canonical(struct ingest_request *r, struct slice raw, struct buf *out, struct err_at *at)
{
    struct reader walk = reader_of(raw);
    struct label label;
    size_t count = 0;
    while (labels_next(&walk, &label)) {
        if (count > LABEL_COUNT_MAX)
            return err_set(at, ERR_INPUT, "more than %d labels", LABEL_COUNT_MAX);
        r->labels[count++] = label;
    }
    if (!walk.ok)
        return err_set(at, ERR_INPUT, "malformed label field");
    buf_clear(out);
    err e = labels_encode(r->labels, count, out, at);
    return e == ERR_LIMIT && buf_err(out) == OK ? ERR_INPUT : e;
}

/* The tenant's limits on the labels of a new series. False: refused. */
static bool within_limits(struct ingest_request *r, struct slice labels)
{
    const struct ingest_limits *limits = &r->tenant->limits;
    struct reader walk = reader_of(labels);
    struct label label;
    uint32_t count = 0;
    bool named = false;
    while (labels_next(&walk, &label)) {
        bool is_name = slice_equal(label.name, name_label);
        named = named || is_name;
        count++;
        size_t name_len = is_name ? label.value.len : label.name.len;
        if (limits->name_bytes_max != 0 && name_len > limits->name_bytes_max) {
            request_refuse(r, INGEST_NAME_LENGTH, 1, labels, "%s of %zu bytes, limit %u",
                           is_name ? "metric name" : "label name", name_len, limits->name_bytes_max);
            return false;
        }
        if (!is_name && limits->value_bytes_max != 0 && label.value.len > limits->value_bytes_max) {
            request_refuse(r, INGEST_VALUE_LENGTH, 1, labels, "label \"%.*s\" has %zu bytes, limit %u",
                           label.name.len > 60 ? 60 : (int)label.name.len, (const char *)label.name.at,
                           label.value.len, limits->value_bytes_max);
            return false;
        }
    }
    if (!named) {
        request_refuse(r, INGEST_NAME_MISSING, 1, labels, "no __name__");
        return false;
    }
    if (limits->labels_per_series_max != 0 && count > limits->labels_per_series_max) {
        request_refuse(r, INGEST_LABEL_COUNT, 1, labels, "%u labels, limit %u", count,
                       limits->labels_per_series_max);
        return false;
    }
    return true;
}

/* Which metric names do new series come from? Space-saving counters (Metwally 2005): an unwatched name takes
 * the place of the least seen one. Table mutex held. */
static void growth_note(struct tenant *tenant, struct slice name)
{
    struct growth *least = &tenant->growth[0];
    uint16_t len = name.len < GROWTH_NAME_BYTES ? (uint16_t)name.len : GROWTH_NAME_BYTES;
    for (size_t i = 0; i < GROWTH_COUNT; i++) {
        struct growth *g = &tenant->growth[i];
        if (g->len == len && memcmp(g->name, name.at, len) == 0) {
            g->count++;
            return;
        }
        if (g->count < least->count)
            least = g;
    }
    least->count++;
    least->len = len;
    memcpy(least->name, name.at, len);
}

/* Table mutex held. bound: what was reached, for a person. */
static void refuse_growth(struct ingest_request *r, enum ingest_reason reason, const char *bound,
                          struct slice labels)
{
    const struct growth *most = &r->tenant->growth[0];
    for (size_t i = 1; i < GROWTH_COUNT; i++)
        if (r->tenant->growth[i].count > most->count)
            most = &r->tenant->growth[i];
    request_refuse(r, reason, 1, labels, "%s; metric \"%.*s\" brought about %llu of the new ones", bound,
                   (int)most->len, most->name, (unsigned long long)most->count);
}

/* May the tenant, and the node, have one more series? Table mutex held. */
static err admit_series(struct ingest_request *r, struct slice labels, bool has_room)
{
    uint64_t max = r->tenant->limits.series_max, all_max = r->ingest->config.series_max;
    char bound[40];
    if (max != 0 && atomic_load(&r->tenant->series) >= max) {
        snprintf(bound, sizeof bound, "limit %llu", (unsigned long long)max);
        refuse_growth(r, INGEST_SERIES_LIMIT, bound, labels);
        return ERR_INPUT;
    }
    if (!has_room || (all_max != 0 && atomic_load(&r->ingest->table.count) >= all_max)) {
        refuse_growth(r, INGEST_SERIES_MEMORY, "memory.budget is taken", labels);
        return ERR_INPUT;
    }
    return OK;
}

/* Enter a series with valid labels into the table, unless another thread just did. */
static err register_series(struct ingest_request *r, struct hash128 hash, struct slice labels,
                           uint32_t *out_id)
{
    uint64_t route;
    TRY(series_route(r->tenant->hasher, hash, labels, &r->bytes, &route));
    struct ingest *ingest = r->ingest;
    struct tenant *tenant = r->tenant;
    const struct ingest_config *config = &ingest->config;
    bool has_room = config->has_room == NULL ||
                    config->has_room(config->context, slice_of(tenant->name, tenant->name_len), labels);
    err e = OK;
    io_mutex_lock(&ingest->table.mutex);
    uint32_t id = series_find(&ingest->table, hash);
    if (id != SERIES_NONE)
        goto out;
    TRY_OUT(admit_series(r, labels, has_room));
    uint16_t partition = (uint16_t)jump_hash(route, ingest->config.partition_count);
    struct producer *producer = &ingest->producers[partition];
    if (producer->next_number >= UINT32_MAX - 1)
        e = ERR_LIMIT; /* the next renewal begins at 0 again */
    else
        e = series_add(&ingest->table, &id);
    if (e != OK)
        goto out;
    struct series *s = series_at(&ingest->table, id);
    s->number = producer->next_number++;
    s->partition = partition;
    s->label_bytes = (uint16_t)labels.len;
    s->tenant = tenant->index;
    s->used = r->minute;
    series_publish(&ingest->table, id, hash);
    producer->live++;
    atomic_fetch_add(&tenant->series, 1);
    growth_note(tenant, labels_get(labels, name_label));
    stat_add(STAT_INGEST_SERIES_CREATED, 1);
out:
    io_mutex_unlock(&ingest->table.mutex);
    *out_id = id;
    return e;
}

err request_series(struct ingest_request *r, struct slice labels, bool stable, struct series_ref *out_ref)
{
    struct hash128 hash = identity_of(r->tenant, labels);
    uint32_t id = series_find(&r->ingest->table, hash);
    if (id != SERIES_NONE)
        return use(r, id, labels, stable, out_ref);
    struct err_at at = { 0 };
    if (labels_check(labels, &at) != OK) {
        err e = canonical(r, labels, &r->scratch, &at);
        if (e == ERR_INPUT)
            request_refuse(r, INGEST_LABELS_INVALID, 1, labels, "%s", at.text);
        TRY(e);
        labels = buf_slice(&r->scratch);
        stable = false;
        hash = identity_of(r->tenant, labels);
        id = series_find(&r->ingest->table, hash);
        if (id != SERIES_NONE)
            return use(r, id, labels, stable, out_ref);
    }
    if (labels.len > UINT16_MAX) {
        request_refuse(r, INGEST_LABELS_INVALID, 1, labels, "labels take %zu bytes", labels.len);
        return ERR_INPUT;
    }
    if (!within_limits(r, labels))
        return ERR_INPUT;
    TRY(register_series(r, hash, labels, &id));
    return use(r, id, labels, stable, out_ref);
}

err request_series_next(struct ingest_request *r, struct slice labels, bool stable,
                        struct series_ref *out_ref)
{
    uint32_t id = predicted(r, labels.at, labels.len);
    if (id != SERIES_NONE && series_at(&r->ingest->table, id)->label_bytes == labels.len)
        return use(r, id, labels, stable, out_ref);
    return request_series(r, labels, stable, out_ref);
}

/* ---- rows ---- */

static bool time_ok(int64_t t_ms) { return t_ms >= TIME_MS_MIN && t_ms <= TIME_MS_MAX; }

static void refuse_time(struct ingest_request *r, const struct series_ref *ref, int64_t t_ms)
{
    request_refuse(r, INGEST_TIME_RANGE, 1, ref->labels, "%lld ms", (long long)t_ms);
}

bool request_body_fits(struct ingest_request *r, size_t sent_bytes)
{
    size_t max = r->ingest->config.body_bytes_max;
    if (r->tenant->limits.body_bytes_max != 0 && r->tenant->limits.body_bytes_max < max)
        max = (size_t)r->tenant->limits.body_bytes_max;
    if (sent_bytes > max)
        request_fail(r, 413, "the body has %zu bytes, limit %zu", sent_bytes, max);
    return sent_bytes <= max;
}

err request_room(const struct ingest_request *r)
{
    uint32_t max = r->tenant->limits.samples_per_request_max;
    return max != 0 && r->row_total > max ? ERR_FULL : OK;
}

static err columns_grow(struct ingest_request *r, struct series_ref *ref)
{
    if (ref->columns->row_count >= RECORD_ROWS)
        TRY(next_record(r, ref));
    struct columns *c = ref->columns;
    if (c->row_count < c->row_capacity)
        return OK;
    size_t capacity = c->row_capacity == 0 ? 256 : c->row_capacity * 2;
    void *numbers = c->numbers, *t_ms = c->t_ms, *value_bits = c->value_bits;
    err e = pool_block_resize(r->pool, &numbers, capacity * sizeof c->numbers[0]);
    c->numbers = numbers;
    if (e == OK)
        e = pool_block_resize(r->pool, &t_ms, capacity * sizeof c->t_ms[0]);
    c->t_ms = t_ms;
    if (e == OK)
        e = pool_block_resize(r->pool, &value_bits, capacity * sizeof c->value_bits[0]);
    c->value_bits = value_bits;
    if (e == OK)
        c->row_capacity = capacity;
    return e;
}

err request_sample(struct ingest_request *r, struct series_ref *ref, int64_t t_ms, uint64_t value_bits,
                   int64_t start_ms)
{
    r->row_total++;
    if (!time_ok(t_ms) || !time_ok(start_ms)) {
        refuse_time(r, ref, time_ok(t_ms) ? start_ms : t_ms);
        return OK;
    }
    if (ref->columns->row_count == ref->columns->row_capacity || ref->columns->row_count >= RECORD_ROWS)
        TRY(columns_grow(r, ref));
    struct columns *c = ref->columns;
    size_t row = c->row_count;
    if (start_ms != 0) {
        TRY(reserve(r, &c->starts, sizeof c->starts[0], c->start_count + 1, &c->start_capacity));
        c->starts[c->start_count++] = (struct batch_start){ (uint32_t)row, start_ms };
    }
    c->numbers[row] = ref->entry->number;
    c->t_ms[row] = t_ms;
    c->value_bits[row] = value_bits;
    c->row_count = row + 1;
    c->future_count += t_ms > r->now_ms + r->ingest->config.future_ms;
    return OK;
}

/* Room in the record for something of so many bytes. */
static err make_room(struct ingest_request *r, struct series_ref *ref, size_t bytes)
{
    if (ref->columns->bytes + bytes > RECORD_BYTES)
        TRY(next_record(r, ref));
    ref->columns->bytes += bytes + ROW_BYTES_MAX;
    return OK;
}

static err put_histogram(struct ingest_request *r, struct series_ref *ref, int64_t t_ms, int64_t start_ms,
                         struct slice bytes)
{
    if (!time_ok(t_ms) || !time_ok(start_ms)) {
        refuse_time(r, ref, time_ok(t_ms) ? start_ms : t_ms);
        return OK;
    }
    TRY(pool_copy(r->pool, bytes, &bytes));
    TRY(make_room(r, ref, bytes.len));
    struct columns *c = ref->columns;
    TRY(reserve(r, &c->histograms, sizeof c->histograms[0], c->histogram_count + 1, &c->histogram_capacity));
    c->histograms[c->histogram_count++] =
        (struct batch_histogram){ ref->entry->number, t_ms, start_ms, bytes };
    c->future_count += t_ms > r->now_ms + r->ingest->config.future_ms;
    return OK;
}

err request_histogram(struct ingest_request *r, struct series_ref *ref, int64_t t_ms, int64_t start_ms,
                      const struct histogram *h)
{
    struct err_at at;
    r->row_total++;
    if (histogram_check(h, &at) != OK) {
        request_refuse(r, INGEST_HISTOGRAM_INVALID, 1, ref->labels, "%s", at.text);
        return OK;
    }
    buf_clear(&r->bytes);
    histogram_encode(h, &r->bytes);
    TRY(buf_err(&r->bytes));
    if (r->bytes.len > HISTOGRAM_BYTES_MAX) {
        request_refuse(r, INGEST_HISTOGRAM_INVALID, 1, ref->labels, "%zu bytes, more than %u", r->bytes.len,
                       HISTOGRAM_BYTES_MAX);
        return OK;
    }
    return put_histogram(r, ref, t_ms, start_ms, buf_slice(&r->bytes));
}

err request_histogram_bytes(struct ingest_request *r, struct series_ref *ref, int64_t t_ms, int64_t start_ms,
                            struct slice bytes)
{
    struct histogram h;
    err e = histogram_decode(bytes, r->pool, &h);
    if (e == OK)
        return request_histogram(r, ref, t_ms, start_ms, &h);
    r->row_total++;
    request_refuse(r, INGEST_HISTOGRAM_INVALID, 1, ref->labels, "not a canonical histogram");
    return OK;
}

err request_exemplar(struct ingest_request *r, struct series_ref *ref, int64_t t_ms, double value,
                     struct slice labels)
{
    struct err_at at = { 0 };
    if (labels.len > EXEMPLAR_LABELS_BYTES_MAX) {
        request_refuse(r, INGEST_EXEMPLAR_INVALID, 1, ref->labels, "labels take %zu bytes, limit %d",
                       labels.len, EXEMPLAR_LABELS_BYTES_MAX);
        return OK;
    }
    if (labels_check(labels, &at) != OK) {
        err e = canonical(r, labels, &r->bytes, &at);
        if (e == ERR_INPUT)
            request_refuse(r, INGEST_EXEMPLAR_INVALID, 1, ref->labels, "%s", at.text);
        if (e != OK)
            return e == ERR_INPUT ? OK : e;
        labels = buf_slice(&r->bytes);
    }
    if (!time_ok(t_ms)) {
        request_refuse(r, INGEST_EXEMPLAR_INVALID, 1, ref->labels, "time of %lld ms", (long long)t_ms);
        return OK;
    }
    TRY(pool_copy(r->pool, labels, &labels));
    TRY(make_room(r, ref, labels.len));
    struct columns *c = ref->columns;
    TRY(reserve(r, &c->exemplars, sizeof c->exemplars[0], c->exemplar_count + 1, &c->exemplar_capacity));
    c->exemplars[c->exemplar_count++] = (struct batch_exemplar){ ref->entry->number, t_ms, value, labels };
    return OK;
}

/* Metadata comes with every series or every minute: what was acknowledged in this epoch is not stored again. */
static uint64_t metadata_hash(const struct ingest_request *r, const struct batch_metadata *m)
{
    uint64_t h = hash64(m->family, r->tenant->hasher.seed ^ r->metadata_epoch);
    h = hash64(m->help, h ^ m->type);
    h = hash64(m->unit, h);
    return h == 0 ? 1 : h;
}

err request_metadata(struct ingest_request *r, const struct batch_metadata *m)
{
    const struct ingest_limits *limits = &r->tenant->limits;
    const char *trouble =
        m->family.len == 0                                                       ? "empty family name"
        : m->family.len > LABELS_BYTES_MAX / 4                                   ? "family name too long"
        : limits->name_bytes_max != 0 && m->family.len > limits->name_bytes_max  ? "family name too long"
        : m->help.len > HELP_BYTES_MAX || m->unit.len > HELP_BYTES_MAX           ? "help or unit too long"
        : m->type >= METRIC_TYPE_COUNT                                           ? "unknown type"
        : !utf8_valid(m->family) || !utf8_valid(m->help) || !utf8_valid(m->unit) ? "not UTF-8"
                                                                                 : NULL;
    if (trouble != NULL) {
        buf_clear(&r->raw);
        labels_put(&r->raw, slice_str("__name__"), m->family);
        request_refuse(r, INGEST_METADATA_INVALID, 1,
                       buf_err(&r->raw) == OK ? buf_slice(&r->raw) : slice_of(NULL, 0), "%s", trouble);
        return OK;
    }
    uint64_t hash = metadata_hash(r, m);
    if (atomic_load_explicit(&r->ingest->metadata_seen[hash % METADATA_CACHE_COUNT], memory_order_relaxed) ==
        hash)
        return OK;
    if (r->metadata_hash_count > 0 && r->metadata_hashes[r->metadata_hash_count - 1] == hash)
        return OK;
    uint32_t partition =
        jump_hash(family_route(r->tenant->hasher, m->family), r->ingest->config.partition_count);
    size_t bytes = m->family.len + m->help.len + m->unit.len + ROW_BYTES_MAX;
    struct columns *c = columns_for(r, partition);
    if (c->bytes + bytes > RECORD_BYTES) {
        TRY(record_close(r, partition));
        c = columns_for(r, partition);
    }
    TRY(reserve(r, &c->metadata, sizeof c->metadata[0], c->metadata_count + 1, &c->metadata_capacity));
    TRY(reserve(r, &r->metadata_hashes, sizeof r->metadata_hashes[0], r->metadata_hash_count + 1,
                &r->metadata_hash_capacity));
    c->metadata[c->metadata_count++] = *m;
    c->bytes += bytes;
    r->metadata_hashes[r->metadata_hash_count++] = hash;
    return OK;
}
