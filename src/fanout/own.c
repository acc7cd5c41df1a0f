/* Calls within this node: the same question as to any other, answered from this node's source on another
 * thread, with nothing encoded. From: gather.c. To: reply.c; the answer back to gather.c and remote.c.
 *
 * Of series the set is kept: rows are read from it when they are wanted, by whichever threads evaluate, as if
 * this node were alone. Groups, texts, metadata and exemplars are copied as they come.
 *
 * Invariants
 *  1. Two hold it: who asks, and the work as long as it goes on. The last one frees it, so whoever gives a slow
 *     call up does not wait for it.
 *  2. Who asks looks at nothing of it before the work has ended, and the work touches nothing of who asks:
 *     request, guard and memory are its own.
 *  3. Once its answer is taken, its guard ends with the guard of who took it. */
#include "fanout/gather.h"

#include "base/check.h"
#include "fanout/reply.h"
#include "model/labels.h"

#include <stdatomic.h>

struct own {
    struct pool *pool;
    struct guard guard;
    struct reply reply;
    struct gather_answer made;
    err e;
    bool is_whole;
    _Atomic unsigned holders;
};

/* ---- what comes ---- */

static err keep_exemplars(struct own *own, struct source_set *set, struct source_reader *reader,
                          size_t series, struct buf *labels)
{
    const struct source_table *table = own->reply.source->table;
    struct gather_answer *a = &own->made;
    struct source_exemplar *exemplars;
    size_t count;
    TRY(guard_check(&own->guard));
    TRY(table->set_exemplars(set, series, own->pool, &exemplars, &count));
    if (count == 0)
        return OK;
    buf_clear(labels);
    TRY(table->read_labels(reader, series, labels));
    TRY(pool_block_reserve(own->pool, (void **)&a->series, sizeof *a->series, a->series_count + 1,
                           &a->series_capacity));
    TRY(pool_block_reserve(own->pool, (void **)&a->exemplars, sizeof *a->exemplars, a->exemplar_count + count,
                           &a->exemplar_capacity));
    struct gather_series one = { .first_exemplar = a->exemplar_count, .exemplar_count = count };
    TRY(pool_copy(own->pool, buf_slice(labels), &one.labels));
    memcpy(a->exemplars + a->exemplar_count, exemplars, count * sizeof *exemplars);
    a->series[a->series_count++] = one;
    a->exemplar_count += count;
    return OK;
}

static err keep_series(void *context, struct source_set *set)
{
    struct own *own = context;
    const struct source_table *table = own->reply.source->table;
    struct source_reader *reader;
    struct buf labels = buf_open(own->pool, LABELS_BYTES_MAX);
    err e = OK;
    if (own->reply.wire.kind == WIRE_SAMPLES) {
        own->made.set = set;
        own->made.table = table;
        own->made.series_count = table->set_count(set);
        own->made.missing_seen = table->set_proof(set)->missing_count;
        return OK;
    }
    TRY(table->reader_open(set, &reader));
    for (size_t i = 0, count = table->set_count(set); i < count && e == OK; i++)
        e = keep_exemplars(own, set, reader, i, &labels);
    table->reader_close(reader);
    return e;
}

static err keep_texts(void *context, const struct slice *texts, size_t count)
{
    struct own *own = context; /* they are in its pool */
    own->made.texts = (struct wire_texts){ .items = (struct slice *)(uintptr_t)texts, .count = count };
    return OK;
}

static err keep_metadata(void *context, const struct source_metadata *metadata, size_t count)
{
    struct own *own = context;
    own->made.metadata =
        (struct wire_metadata){ .items = (struct source_metadata *)(uintptr_t)metadata, .count = count };
    return OK;
}

static err keep_unit(void *context, const struct source_groups *groups)
{
    struct own *own = context;
    own->made.of_unit = *groups;
    own->made.row_count = groups->sample_count;
    return OK;
}

static err keep_group(void *context, const struct source_group *group)
{
    struct own *own = context;
    struct gather_answer *a = &own->made;
    const struct source_unit *unit = &own->reply.wire.unit;
    TRY(pool_block_reserve(own->pool, (void **)&a->groups, sizeof *a->groups, a->group_count + 1,
                           &a->group_capacity));
    struct gather_group *kept = &a->groups[a->group_count];
    *kept = (struct gather_group){ .drop_name = group->drop_name };
    TRY(pool_copy(own->pool, group->labels, &kept->labels));
    for (uint32_t i = 0; i < unit->column_count; i++) {
        void *at;
        TRY(pool_alloc(own->pool, unit->step_count * sizeof(double), &at));
        memcpy(at, group->columns[i], unit->step_count * sizeof(double));
        kept->columns[i] = at;
    }
    a->group_count++;
    return OK;
}

static err keep_proof(void *context, const struct proof *proof)
{
    struct own *own = context;
    own->is_whole = true;
    own->made.proof = (struct proof){ .complete = true };
    return proof_join(&own->made.proof, proof, own->pool);
}

static const struct reply_taker keeping = { keep_series, keep_texts, keep_metadata,
                                            keep_unit,   keep_group, keep_proof };

/* ---- the call ---- */

static void own_free(struct own *own)
{
    reply_close(&own->reply);
    pool_close(own->pool);
}

/* One holder less. */
static void own_leave(struct own *own)
{
    if (atomic_fetch_sub(&own->holders, 1) == 1)
        own_free(own);
}

static void work(void *context)
{
    struct own *own = context;
    own->e = reply_make(&own->reply);
    own_leave(own);
}

/* The request is read again from its bytes: so it is a copy, and whatever it is asked is what others are. */
static err request_copy(struct own *own, struct slice request)
{
    TRY(pool_copy(own->pool, request, &request));
    return reply_open(&own->reply, request);
}

err own_start(const struct fanout_config *config, struct slice request, struct io *io, struct own **out_own,
              void **out_call)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(config->own.pool, "question of this node", sizeof(struct own), &pool, &at));
    struct own *own = at;
    own->pool = pool;
    own->guard = (struct guard){ .io = io, .deadline_ns = INT64_MAX, .samples_max = UINT64_MAX };
    own->reply = (struct reply){ .source = config->own.source,
                                 .pool = pool,
                                 .guard = &own->guard,
                                 .runner = config->own.runner,
                                 .taker = &keeping,
                                 .context = own };
    own->made.pool = pool;
    own->made.own = own;
    own->e = ERR_IO;
    atomic_init(&own->holders, 2);
    err e = request_copy(own, request);
    if (e == OK)
        e = config->transport.within(config->transport.context, work, own, out_call);
    if (e != OK) {
        own_free(own);
        return e;
    }
    *out_own = own;
    return OK;
}

err own_take(struct own *own, struct guard *above, struct receive *r)
{
    const struct guard *guard = &own->guard;
    check(atomic_load(&own->holders) == 1);
    if (own->e == ERR_LIMIT)
        r->over = atomic_load(&guard->series_over) != 0                    ? RECEIVE_OVER_SERIES
                  : atomic_load(&guard->samples_used) > guard->samples_max ? RECEIVE_OVER_SAMPLES
                                                                           : RECEIVE_OVER_NONE;
    if (own->e == ERR_LIMIT && r->over == RECEIVE_OVER_NONE)
        return ERR_BUSY; /* it was memory: others may have some */
    if (own->reply.wire.kind == WIRE_GROUPS)
        r->is_refused = own->e == ERR_UNSUPPORTED || own->e == ERR_INPUT;
    TRY(own->e);
    check(own->is_whole);
    own->guard.deadline_ns = INT64_MAX;
    own->guard.samples_max = UINT64_MAX; /* who asks counts what it reads */
    own->guard.above = above;
    r->answer = own->made;
    r->is_whole = true;
    return OK;
}

void own_close(struct own *own)
{
    atomic_store(&own->guard.canceled, true);
    own_leave(own);
}
