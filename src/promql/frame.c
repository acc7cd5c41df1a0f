/* Frames: where intermediate instant vectors live, and the small services all parts of the evaluator share.
 *
 * A frame owns a pool of its own (and one per chunk that filled it in parallel), so that an operand's memory
 * goes back as soon as its operator is done, long before the query ends.
 * Invariants: 1. Every open frame is linked in eval->frames; promql_eval closes what an error left behind.
 * 2. Only the evaluation's thread opens and closes frames. */
#include "promql/eval.h"

#include "base/check.h"

err frame_open(struct eval *eval, struct frame **out_frame)
{
    struct pool *pool;
    void *memory;
    TRY(pool_open_object(eval->pool, "promql_frame", sizeof(struct frame), &pool, &memory));
    struct frame *frame = memory;
    frame->pool = pool;
    frame->next = eval->frames;
    eval->frames = frame;
    *out_frame = frame;
    return OK;
}

void frame_close(struct eval *eval, struct frame *frame)
{
    if (frame == NULL)
        return;
    struct frame **link = &eval->frames;
    while (*link != frame) {
        check(*link != NULL);
        link = &(*link)->next;
    }
    *link = frame->next;
    for (size_t i = 0; i < frame->chunk_pool_count; i++)
        pool_close(frame->chunk_pools[i]);
    pool_close(frame->pool);
}

struct pool *frame_chunk_pool(struct frame *frame)
{
    check(frame->chunk_pool_count < CHUNK_COUNT_MAX);
    struct pool *pool = pool_open(frame->pool, "promql_chunk", POOL_BYTES_UNLIMITED);
    frame->chunk_pools[frame->chunk_pool_count++] = pool;
    return pool;
}

err frame_add(struct frame *frame, struct row row)
{
    TRY(pool_block_reserve(frame->pool, (void **)&frame->rows, sizeof *frame->rows, frame->count + 1,
                           &frame->capacity));
    frame->rows[frame->count++] = row;
    return OK;
}

err frame_widen(struct frame *frame, size_t count)
{
    for (size_t i = 0; i < frame->count; i++) {
        struct row *row = &frame->rows[i];
        double value = row->values[0];
        check(row->histogram_count <= 1);
        TRY(values_new(frame->pool, count, &row->values));
        for (size_t step = 0; step < count; step++)
            row->values[step] = value;
        if (row->histogram_count == 0)
            continue;
        struct slice bytes = row->histograms[0].bytes;
        void *memory;
        TRY(pool_alloc(frame->pool, count * sizeof *row->histograms, &memory));
        row->histograms = memory;
        row->histogram_count = count;
        for (size_t step = 0; step < count; step++)
            row->histograms[step] = (struct sample_histogram){ .row = (uint32_t)step, .bytes = bytes };
    }
    return OK;
}

err values_new(struct pool *pool, size_t count, double **out_values)
{
    void *memory;
    TRY(pool_alloc(pool, count * sizeof(double), &memory));
    double *values = memory;
    for (size_t i = 0; i < count; i++)
        values[i] = ABSENT;
    *out_values = values;
    return OK;
}

bool values_any(const double *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!is_absent(values[i]))
            return true;
    return false;
}

void frame_compact(struct frame *frame, size_t step_count)
{
    size_t kept = 0;
    for (size_t i = 0; i < frame->count; i++)
        if (values_any(frame->rows[i].values, step_count))
            frame->rows[kept++] = frame->rows[i];
    frame->count = kept;
}

err row_join(struct eval *eval, struct row *into, const struct row *from, size_t step_count)
{
    bool meet = into->histogram_count > 0 || from->histogram_count > 0;
    for (size_t step = 0; step < step_count && !meet; step++)
        meet = !is_absent(into->values[step]) && !is_absent(from->values[step]);
    if (meet)
        return err_set(eval->at, ERR_EXECUTION, "vector cannot contain metrics with the same labelset");
    for (size_t step = 0; step < step_count; step++)
        if (!is_absent(from->values[step]))
            into->values[step] = from->values[step];
    return OK;
}

err fail_histogram(struct err_at *at, struct slice labels, const char *what)
{
    uint8_t memory[256];
    struct slice name = labels_get(labels, label_name);
    size_t len = name.len < sizeof memory ? name.len : sizeof memory;
    memcpy(memory, name.at, len);
    return err_set(at, ERR_EXECUTION, "native histograms are not supported by %s: series \"%.*s\"", what,
                   (int)len, (const char *)memory);
}

err fail_histograms(struct eval *eval, const struct frame *frame, const char *what)
{
    for (size_t i = 0; i < frame->count; i++)
        if (frame->rows[i].histogram_count > 0)
            return fail_histogram(eval->at, frame->rows[i].labels, what);
    return OK;
}

err guard_maybe(const struct eval *eval)
{
    return eval->request->guard != NULL ? guard_check(eval->request->guard) : OK;
}
