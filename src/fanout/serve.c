/* Answering a request of another node. From: the transport of the node that was asked. To: gather.c of the one
 * that asks, through write; what is sent comes from reply.c.
 *
 * Invariants
 *  1. Every answer that begins ends with a proof or an error, unless write refused.
 *  2. Memory is one block, one series, and what the source needs for its set; of a unit, its groups. */
#include "fanout/fanout.h"
#include "fanout/reply.h"

#include "base/check.h"
#include "fanout/wire.h"
#include "model/labels.h"

#define GUARD_TEXTS 256 /* between looks at the clock */

struct serving {
    const struct fanout_serve *serve;
    struct reply reply;
    struct wire_out *out;
    bool has_failed; /* at write */
    err failure;
};

/* ---- series ---- */

static err put_one(struct serving *s, struct source_set *set, struct source_reader *reader, size_t i,
                   struct buf *labels, struct sample_columns *columns)
{
    const struct source_table *table = s->serve->source->table;
    struct source_exemplar *exemplars = NULL;
    size_t exemplar_count = 0;
    struct pool *scratch = columns->pool;
    err e = OK;
    buf_clear(labels);
    if (s->reply.wire.kind == WIRE_SAMPLES) {
        TRY_OUT(table->read_samples(reader, i, columns));
    } else {
        TRY_OUT(guard_check(s->serve->guard));
        TRY_OUT(table->set_exemplars(set, i, scratch, &exemplars, &exemplar_count));
        if (exemplar_count == 0)
            goto out;
    }
    TRY_OUT(table->read_labels(reader, i, labels));
    TRY_OUT(wire_out_series(s->out, buf_slice(labels), columns, exemplars, exemplar_count));
out:
    pool_reset(scratch); /* histograms and exemplars; the columns themselves are blocks */
    return e;
}

static err put_series(void *context, struct source_set *set)
{
    struct serving *s = context;
    const struct source_table *table = s->serve->source->table;
    struct source_reader *reader = NULL;
    struct pool *scratch = pool_open(s->reply.pool, "series for a node", POOL_BYTES_UNLIMITED);
    struct sample_columns columns = sample_columns_open(scratch);
    struct buf labels = buf_open(scratch, LABELS_BYTES_MAX);
    err e;
    TRY_OUT(table->reader_open(set, &reader));
    for (size_t i = 0, count = table->set_count(set); i < count; i++)
        TRY_OUT(put_one(s, set, reader, i, &labels, &columns));
out:
    table->reader_close(reader);
    pool_close(scratch);
    return e;
}

/* ---- the rest ---- */

static err put_unit(void *context, const struct source_groups *groups)
{
    struct serving *s = context;
    const struct source_unit *unit = &s->reply.wire.unit;
    return wire_out_unit(s->out, groups, unit->step_count, unit->column_count);
}

static err put_group(void *context, const struct source_group *group)
{
    return wire_out_group(((struct serving *)context)->out, group);
}

static err put_texts(void *context, const struct slice *texts, size_t count)
{
    struct serving *s = context;
    for (size_t i = 0; i < count; i++) {
        if (i % GUARD_TEXTS == 0)
            TRY(guard_check(s->serve->guard));
        TRY(wire_out_text(s->out, texts[i]));
    }
    return OK;
}

static err put_metadata(void *context, const struct source_metadata *metadata, size_t count)
{
    struct serving *s = context;
    for (size_t i = 0; i < count; i++) {
        if (i % GUARD_TEXTS == 0)
            TRY(guard_check(s->serve->guard));
        TRY(wire_out_metadata(s->out, &metadata[i]));
    }
    return OK;
}

static err put_proof(void *context, const struct proof *proof)
{
    return wire_out_proof(((struct serving *)context)->out, proof);
}

static const struct reply_taker sending = { put_series, put_texts, put_metadata,
                                            put_unit,   put_group, put_proof };

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
    struct serving s = { .serve = serve };
    s.reply = (struct reply){ .source = serve->source,
                              .pool = pool,
                              .guard = serve->guard,
                              .runner = serve->runner,
                              .taker = &sending,
                              .context = &s };
    err e = reply_open(&s.reply, request);
    enum wire_kind kind =
        e == OK ? s.reply.wire.kind : WIRE_SAMPLES; /* who asked what is not known reads the error */
    err opened = wire_out_open(pool, kind, write_on, &s, &s.out);
    if (opened != OK) {
        pool_close(pool);
        return opened;
    }
    if (e == OK)
        e = reply_make(&s.reply);
    if (e != OK && !s.has_failed) {
        e = wire_out_error(s.out, e, atomic_load(&serve->guard->series_over));
        e = s.has_failed ? e : OK;
    }
    reply_close(&s.reply);
    pool_close(pool);
    return s.has_failed ? s.failure : e;
}
