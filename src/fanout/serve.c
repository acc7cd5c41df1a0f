/* Answering one request from a local source. From: the transport of the node that was asked. To: gather.c of
 * the one that asks, through write.
 *
 * Invariants
 *  1. Every answer that begins ends with a proof or an error, unless write refused.
 *  2. The bounds of the asker (time, series, samples) hold here: work that it would throw away is not done. Every
 *     loop and every wait looks at the guard.
 *  3. Memory is one block, one series, and what the source needs for its set; of a unit, its groups. */
#include "fanout/fanout.h"

#include "base/check.h"
#include "base/time.h"
#include "fanout/wire.h"
#include "io/io.h"
#include "model/labels.h"

#define GUARD_TEXTS 256 /* between looks at the clock */

_Static_assert(WIRE_STEP_COUNT_MAX == PROMQL_STEP_COUNT_MAX, "what may be asked for travels");
_Static_assert(ERR_TEXT_BYTES_MAX <= WIRE_NOTE_BYTES_MAX, "so do annotations");

struct serving {
    const struct fanout_serve *serve;
    const struct source_table *table;
    struct pool *pool;
    struct wire_request wire;
    struct source_request *requests; /* one a selector; METADATA: none */
    struct wire_out *out;
    struct proof proof;
    bool has_failed; /* at write */
    err failure;
};

/* ---- the request ---- */

static void tighten(struct guard *guard, const struct wire_request *wire)
{
    if (wire->samples_max < guard->samples_max)
        guard->samples_max = wire->samples_max;
    if (wire->left_ms == 0 || wire->left_ms > (uint64_t)(365 * MS_PER_DAY) || guard->io == NULL)
        return;
    int64_t until_ns = io_monotonic_ns(guard->io) + (int64_t)wire->left_ms * NS_PER_MS;
    if (until_ns < guard->deadline_ns)
        guard->deadline_ns = until_ns;
}

static err compile(struct serving *s, const struct wire_selector *selector, struct source_request *out)
{
    void *at;
    TRY(pool_zalloc(s->pool, selector->matcher_count * sizeof(struct matcher) + 1, &at));
    struct matcher *matchers = at;
    *out =
        (struct source_request){ .tenant = s->wire.tenant,
                                 .matchers = matchers,
                                 .range = selector->range,
                                 .series_max = s->wire.series_max >= SIZE_MAX ? SIZE_MAX : s->wire.series_max,
                                 .partitions = s->wire.partitions,
                                 .after = s->wire.after,
                                 .after_count = s->wire.after_count,
                                 .guard = s->serve->guard };
    for (size_t i = 0; i < selector->matcher_count; i++) {
        const struct wire_matcher *m = &selector->matchers[i];
        TRY(matcher_init(s->pool, m->type, m->name, m->value, &matchers[i], NULL));
        out->matcher_count++;
    }
    return OK;
}

static void requests_done(struct serving *s)
{
    for (size_t i = 0; s->requests != NULL && i < s->wire.selector_count; i++)
        for (size_t k = 0; k < s->requests[i].matcher_count; k++)
            matcher_done((struct matcher *)&s->requests[i].matchers[k]);
}

/* A source tells of the partitions that it has. Those asked for are numbered below partition_count. */
static err partitions_widen(struct serving *s)
{
    void *at;
    if (s->wire.partitions == NULL)
        return OK;
    TRY(pool_zalloc(s->pool, WIRE_PARTITION_COUNT_MAX / 8, &at));
    memcpy(at, s->wire.partitions, (s->wire.partition_count + 63) / 64 * sizeof(uint64_t));
    s->wire.partitions = at;
    return OK;
}

static err compile_all(struct serving *s)
{
    void *at;
    TRY(partitions_widen(s));
    TRY(pool_zalloc(s->pool, s->wire.selector_count * sizeof *s->requests + 1, &at));
    s->requests = at;
    for (size_t i = 0; i < s->wire.selector_count; i++)
        TRY(compile(s, &s->wire.selectors[i], &s->requests[i]));
    return OK;
}

/* ---- the proof ---- */

static bool is_applied(const struct proof *proof, const struct source_position *after)
{
    for (size_t i = 0; i < proof->partition_count; i++) {
        const struct proof_partition *p = &proof->partitions[i];
        if (p->partition == after->partition)
            return after->generation == SOURCE_GENERATION_ANY ? p->applied_offset >= after->offset
                   : p->generation != after->generation       ? p->generation > after->generation
                                                              : p->applied_offset >= after->offset;
    }
    return false;
}

/* Does the source say anything of a partition? One that was asked for and that it does not know it does not
 * name. */
static bool is_told(const struct proof *proof, uint32_t partition)
{
    for (size_t i = 0; i < proof->partition_count; i++)
        if (proof->partitions[i].partition == partition)
            return true;
    for (size_t i = 0; i < proof->missing_count; i++)
        if (proof->missing[i].partition == partition)
            return true;
    return false;
}

/* The source's proof, that what was asked for is known, and that what had to be applied was. */
static err end_with(struct serving *s, const struct proof *proof)
{
    struct proof whole = { .complete = true };
    TRY(proof_join(&whole, proof, s->pool));
    TRY(proof_reserve(&whole, s->pool));
    for (uint32_t p = 0; p < s->wire.partition_count; p++)
        if (source_asks(s->wire.partitions, p) && !is_told(proof, p))
            proof_miss(&whole, &(struct proof_missing){ p, s->requests[0].range, PROOF_NOT_HERE });
    for (size_t i = 0; i < s->wire.after_count; i++) {
        const struct source_position *after = &s->wire.after[i];
        const char *why = after->offset == UINT64_MAX ? PROOF_NOT_CONFIRMED : PROOF_NOT_APPLIED;
        if (source_asks(s->wire.partitions, after->partition) && !is_applied(proof, after))
            proof_miss(&whole, &(struct proof_missing){ after->partition, s->requests[0].range, why });
    }
    return wire_out_proof(s->out, &whole);
}

/* ---- kinds ---- */

static err serve_one(struct serving *s, struct source_set *set, struct source_reader *reader, size_t i,
                     struct buf *labels, struct sample_columns *columns)
{
    struct source_exemplar *exemplars = NULL;
    size_t exemplar_count = 0;
    struct pool *scratch = columns->pool;
    err e = OK;
    buf_clear(labels);
    if (s->wire.kind == WIRE_SAMPLES) {
        TRY_OUT(s->table->read_samples(reader, i, columns));
    } else {
        TRY_OUT(guard_check(s->serve->guard));
        TRY_OUT(s->table->set_exemplars(set, i, scratch, &exemplars, &exemplar_count));
        if (exemplar_count == 0)
            goto out;
    }
    TRY_OUT(s->table->read_labels(reader, i, labels));
    TRY_OUT(wire_out_series(s->out, buf_slice(labels), columns, exemplars, exemplar_count));
out:
    pool_reset(scratch); /* histograms and exemplars; the columns themselves are blocks */
    return e;
}

static err serve_series(struct serving *s)
{
    struct source_set *set;
    struct source_reader *reader = NULL;
    struct pool *scratch = pool_open(s->pool, "series for a node", POOL_BYTES_UNLIMITED);
    struct sample_columns columns = sample_columns_open(scratch);
    struct buf labels = buf_open(scratch, LABELS_BYTES_MAX);
    err e = s->table->select(s->serve->source, s->requests, s->pool, &set);
    if (e != OK) {
        pool_close(scratch);
        return e;
    }
    TRY_OUT(s->table->reader_open(set, &reader));
    for (size_t i = 0, count = s->table->set_count(set); i < count; i++)
        TRY_OUT(serve_one(s, set, reader, i, &labels, &columns));
    TRY_OUT(end_with(s, s->table->set_proof(set)));
out:
    s->table->reader_close(reader);
    s->table->set_close(set);
    pool_close(scratch);
    return e;
}

/* What is known of a unit goes out before its first group. */
struct unit_out {
    struct serving *s;
    struct source_groups groups;
    bool has_unit;
};

static err put_unit(struct unit_out *out)
{
    const struct source_unit *unit = &out->s->wire.unit;
    if (out->has_unit)
        return OK;
    out->has_unit = true;
    return wire_out_unit(out->s->out, &out->groups, unit->step_count, unit->column_count);
}

static err take_group(void *context, const struct source_group *group)
{
    struct unit_out *out = context;
    TRY(put_unit(out));
    TRY(guard_check(out->s->serve->guard));
    return wire_out_group(out->s->out, group);
}

/* Groups need memory, rows go out as they are read: who has none for them says so. */
static err no_memory(const struct serving *s)
{
    const struct guard *guard = s->serve->guard;
    bool is_bound =
        atomic_load(&guard->series_over) != 0 || atomic_load(&guard->samples_used) > guard->samples_max;
    return is_bound || pool_was_crowded(s->pool) ? ERR_LIMIT : ERR_UNSUPPORTED;
}

static err serve_groups(struct serving *s)
{
    struct source_unit unit = s->wire.unit;
    struct unit_out out = { .s = s };
    unit.take = take_group;
    unit.context = &out;
    TRY(guard_check(s->serve->guard)); /* there may be nothing to read that asks it */
    err e =
        promql_unit_eval(s->serve->source, &s->requests[0], &unit, s->serve->runner, s->pool, &out.groups);
    if (e == ERR_LIMIT && !out.has_unit)
        e = no_memory(s);
    TRY(e);
    TRY(put_unit(&out));
    return end_with(s, &out.groups.proof);
}

static err serve_texts(struct serving *s)
{
    struct slice *texts;
    size_t count;
    struct proof proof;
    if (s->wire.kind == WIRE_NAMES)
        TRY(s->table->label_names(s->serve->source, s->requests, s->wire.selector_count, s->wire.limit,
                                  s->pool, &texts, &count, &proof));
    else
        TRY(s->table->label_values(s->serve->source, s->wire.name, s->requests, s->wire.selector_count,
                                   s->wire.limit, s->pool, &texts, &count, &proof));
    for (size_t i = 0; i < count; i++) {
        if (i % GUARD_TEXTS == 0)
            TRY(guard_check(s->serve->guard));
        TRY(wire_out_text(s->out, texts[i]));
    }
    return end_with(s, &proof);
}

static err serve_metadata(struct serving *s)
{
    struct source_metadata *metadata;
    size_t count;
    struct proof proof = { .complete = true };
    TRY(s->table->metadata(s->serve->source, s->wire.tenant, s->wire.name, s->pool, &metadata, &count));
    for (size_t i = 0; i < count; i++) {
        if (i % GUARD_TEXTS == 0)
            TRY(guard_check(s->serve->guard));
        TRY(wire_out_metadata(s->out, &metadata[i]));
    }
    return wire_out_proof(s->out, &proof);
}

static err serve_kind(struct serving *s)
{
    TRY(compile_all(s));
    switch (s->wire.kind) {
    case WIRE_SAMPLES:
    case WIRE_EXEMPLARS:
        return serve_series(s);
    case WIRE_NAMES:
    case WIRE_VALUES:
        return serve_texts(s);
    case WIRE_GROUPS:
        return serve_groups(s);
    default:
        return serve_metadata(s);
    }
}

/* What the transport says is kept apart from what the source says: only then may an error be written. */
static err write_on(void *context, struct slice bytes)
{
    struct serving *s = context;
    if (!s->has_failed) {
        s->failure = s->serve->write(s->serve->context, bytes);
        s->has_failed = s->failure != OK;
    }
    return s->failure;
}

err fanout_serve(const struct fanout_serve *serve, struct slice request)
{
    struct pool *pool = pool_open(serve->pool, "request of a node", POOL_BYTES_UNLIMITED);
    struct serving s = { .serve = serve, .table = serve->source->table, .pool = pool };
    err e = wire_request_decode(request, pool, &s.wire, NULL);
    enum wire_kind kind =
        e == OK ? s.wire.kind : WIRE_SAMPLES; /* who asked what is not known reads the error */
    err opened = wire_out_open(pool, kind, write_on, &s, &s.out);
    if (opened != OK) {
        pool_close(pool);
        return opened;
    }
    if (e == OK) {
        tighten(serve->guard, &s.wire);
        e = serve_kind(&s);
    }
    if (e == ERR_LIMIT && pool_was_crowded(pool))
        e = ERR_BUSY; /* others use the memory: another replica may have some */
    if (e != OK && !s.has_failed) {
        e = wire_out_error(s.out, e, atomic_load(&serve->guard->series_over));
        e = s.has_failed ? e : OK;
    }
    requests_done(&s);
    pool_close(pool);
    return s.has_failed ? s.failure : e;
}
