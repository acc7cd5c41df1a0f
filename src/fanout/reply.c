/* Answering one request from a local source. From: serve.c, own.c. To: the source; what comes of it to a taker.
 *
 * Invariants
 *  1. The bounds of the asker (time, series, samples) hold here: work that it would throw away is not done. Every
 *     loop and every wait looks at the guard.
 *  2. Of each partition that is asked for the proof says something. */
#include "fanout/reply.h"

#include "base/check.h"
#include "base/time.h"
#include "io/io.h"

_Static_assert(WIRE_STEP_COUNT_MAX == PROMQL_STEP_COUNT_MAX, "what may be asked for travels");
_Static_assert(ERR_TEXT_BYTES_MAX <= WIRE_NOTE_BYTES_MAX, "so do annotations");

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

static err compile(struct reply *a, const struct wire_selector *selector, struct source_request *out)
{
    void *at;
    TRY(pool_zalloc(a->pool, selector->matcher_count * sizeof(struct matcher) + 1, &at));
    struct matcher *matchers = at;
    *out =
        (struct source_request){ .tenant = a->wire.tenant,
                                 .matchers = matchers,
                                 .range = selector->range,
                                 .series_max = a->wire.series_max >= SIZE_MAX ? SIZE_MAX : a->wire.series_max,
                                 .partitions = a->wire.partitions,
                                 .after = a->wire.after,
                                 .after_count = a->wire.after_count,
                                 .guard = a->guard };
    for (size_t i = 0; i < selector->matcher_count; i++) {
        const struct wire_matcher *m = &selector->matchers[i];
        TRY(matcher_init(a->pool, m->type, m->name, m->value, &matchers[i], NULL));
        out->matcher_count++;
    }
    return OK;
}

static void requests_done(struct reply *a)
{
    for (size_t i = 0; a->requests != NULL && i < a->wire.selector_count; i++)
        for (size_t k = 0; k < a->requests[i].matcher_count; k++)
            matcher_done((struct matcher *)&a->requests[i].matchers[k]);
}

/* A source tells of the partitions that it has. Those asked for are numbered below partition_count. */
static err partitions_widen(struct reply *a)
{
    void *at;
    if (a->wire.partitions == NULL)
        return OK;
    TRY(pool_zalloc(a->pool, WIRE_PARTITION_COUNT_MAX / 8, &at));
    memcpy(at, a->wire.partitions, (a->wire.partition_count + 63) / 64 * sizeof(uint64_t));
    a->wire.partitions = at;
    return OK;
}

static err compile_all(struct reply *a)
{
    void *at;
    TRY(partitions_widen(a));
    TRY(pool_zalloc(a->pool, a->wire.selector_count * sizeof *a->requests + 1, &at));
    a->requests = at;
    for (size_t i = 0; i < a->wire.selector_count; i++)
        TRY(compile(a, &a->wire.selectors[i], &a->requests[i]));
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
static err end_with(struct reply *a, const struct proof *proof)
{
    struct proof whole = { .complete = true };
    TRY(proof_join(&whole, proof, a->pool));
    TRY(proof_reserve(&whole, a->pool));
    for (uint32_t p = 0; p < a->wire.partition_count; p++)
        if (source_asks(a->wire.partitions, p) && !is_told(proof, p))
            proof_miss(&whole, &(struct proof_missing){ p, a->requests[0].range, PROOF_NOT_HERE });
    for (size_t i = 0; i < a->wire.after_count; i++) {
        const struct source_position *after = &a->wire.after[i];
        const char *why = after->offset == UINT64_MAX ? PROOF_NOT_CONFIRMED : PROOF_NOT_APPLIED;
        if (source_asks(a->wire.partitions, after->partition) && !is_applied(proof, after))
            proof_miss(&whole, &(struct proof_missing){ after->partition, a->requests[0].range, why });
    }
    return a->taker->proof(a->context, &whole);
}

/* ---- kinds ---- */

static err make_series(struct reply *a)
{
    const struct source_table *table = a->source->table;
    TRY(table->select(a->source, a->requests, a->pool, &a->set));
    TRY(a->taker->series(a->context, a->set));
    return end_with(a, table->set_proof(a->set));
}

struct making_groups {
    struct reply *reply;
    struct source_groups groups;
};

static err put_unit(struct making_groups *m)
{
    if (m->reply->has_unit)
        return OK;
    m->reply->has_unit = true;
    return m->reply->taker->unit(m->reply->context, &m->groups);
}

static err take_group(void *context, const struct source_group *group)
{
    struct making_groups *m = context;
    TRY(put_unit(m));
    TRY(guard_check(m->reply->guard));
    return m->reply->taker->group(m->reply->context, group);
}

/* Groups need memory, rows go out as they are read: who has none for them says so. */
static err no_memory(const struct reply *a)
{
    bool is_bound = atomic_load(&a->guard->series_over) != 0 ||
                    atomic_load(&a->guard->samples_used) > a->guard->samples_max;
    return is_bound || pool_was_crowded(a->pool) ? ERR_LIMIT : ERR_UNSUPPORTED;
}

static err make_groups(struct reply *a)
{
    struct source_unit unit = a->wire.unit;
    struct making_groups m = { .reply = a };
    unit.take = take_group;
    unit.context = &m;
    TRY(guard_check(a->guard)); /* there may be nothing to read that asks it */
    err e = promql_unit_eval(a->source, &a->requests[0], &unit, a->runner, a->pool, &m.groups);
    if (e == ERR_LIMIT && !a->has_unit)
        e = no_memory(a);
    TRY(e);
    TRY(put_unit(&m));
    return end_with(a, &m.groups.proof);
}

static err make_texts(struct reply *a)
{
    const struct source_table *table = a->source->table;
    const struct wire_request *wire = &a->wire;
    struct slice *texts;
    size_t count;
    struct proof proof;
    if (wire->kind == WIRE_NAMES)
        TRY(table->label_names(a->source, a->requests, wire->selector_count, wire->limit, a->pool, &texts,
                               &count, &proof));
    else
        TRY(table->label_values(a->source, wire->name, a->requests, wire->selector_count, wire->limit,
                                a->pool, &texts, &count, &proof));
    TRY(a->taker->texts(a->context, texts, count));
    return end_with(a, &proof);
}

static err make_metadata(struct reply *a)
{
    struct source_metadata *metadata;
    size_t count;
    struct proof proof = { .complete = true };
    TRY(a->source->table->metadata(a->source, a->wire.tenant, a->wire.name, a->pool, &metadata, &count));
    TRY(a->taker->metadata(a->context, metadata, count));
    return a->taker->proof(a->context, &proof);
}

static err make_kind(struct reply *a)
{
    TRY(compile_all(a));
    switch (a->wire.kind) {
    case WIRE_SAMPLES:
    case WIRE_EXEMPLARS:
        return make_series(a);
    case WIRE_NAMES:
    case WIRE_VALUES:
        return make_texts(a);
    case WIRE_GROUPS:
        return make_groups(a);
    default:
        return make_metadata(a);
    }
}

/* Others use the memory: another replica may have some. */
static err or_busy(const struct reply *a, err e)
{
    return e == ERR_LIMIT && pool_was_crowded(a->pool) ? ERR_BUSY : e;
}

err reply_open(struct reply *a, struct slice request)
{
    return or_busy(a, wire_request_decode(request, a->pool, &a->wire, NULL));
}

err reply_make(struct reply *a)
{
    tighten(a->guard, &a->wire);
    return or_busy(a, make_kind(a));
}

void reply_close(struct reply *a)
{
    if (a->set != NULL)
        a->source->table->set_close(a->set);
    a->set = NULL;
    requests_done(a);
}
