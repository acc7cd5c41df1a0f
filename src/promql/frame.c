/* Frames: where intermediate instant vectors live, and the small services all parts of the evaluator share.
 *
 * A frame owns a pool of its own (and one per chunk that filled it in parallel), so that an operand's memory
 * goes back as soon as its operator is done, long before the query ends.
 * Invariants: 1. Every open frame is linked in eval->frames; promql_eval closes what an error left behind.
 * 2. Only the evaluation's thread opens and closes frames. */
#include "promql/eval.h"

#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>

err frame_open(struct eval *eval, struct frame **out_frame)
{
    struct pool *pool = pool_open(eval->pool, "promql_frame", POOL_BYTES_UNLIMITED);
    void *memory;
    err e = pool_zalloc(pool, sizeof(struct frame), &memory);
    if (e != OK) {
        pool_close(pool);
        return e;
    }
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

void annotate(struct eval *eval, struct annotations *list, const char *format, ...)
{
    char text[ERR_TEXT_BYTES_MAX];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct slice s = slice_of(text, len < (int)sizeof text ? (size_t)len : sizeof text - 1);
    for (size_t i = 0; i < list->count; i++)
        if (slice_equal(list->texts[i], s))
            return;
    if (list->count == PROMQL_ANNOTATION_COUNT_MAX) {
        list->dropped++;
        return;
    }
    if (list->texts == NULL) {
        void *memory;
        if (pool_alloc(eval->result_pool, (PROMQL_ANNOTATION_COUNT_MAX + 1) * sizeof s, &memory) != OK)
            return; /* an annotation is a courtesy: without memory the answer goes without it */
        list->texts = memory;
    }
    if (pool_copy(eval->result_pool, s, &list->texts[list->count]) == OK)
        list->count++;
}

struct position_text position_of(const struct eval *eval, const struct node *n)
{
    struct position_text position;
    uint32_t line = 1, column = 1;
    struct slice source = eval->request->expr->source;
    for (uint32_t i = 0; i < n->begin && i < source.len; i++) {
        column++;
        if (source.at[i] == '\n') {
            line++;
            column = 1;
        }
    }
    snprintf(position.text, sizeof position.text, " (%u:%u)", line, column);
    return position;
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

err guard_maybe(const struct eval *eval)
{
    return eval->request->guard != NULL ? guard_check(eval->request->guard) : OK;
}
