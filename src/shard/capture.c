/* Between a partition in memory and struct state: what checkpoints and manifest entries carry.
 *
 * Capture copies under the partition's lock (numbers and sequence sets are memory copies; labels are looked up
 * later, by the worker that encodes). Restore takes decoded states over: the whole one of the chain's end,
 * then each checkpoint of the stream files in order.
 *
 * Invariants
 *  1. A binding once made is never changed: an equal one again is a no-op, a different one is
 *     ERR_CORRUPT.
 *  2. restore(capture(all)) and restore(capture(all at A)), restore(each delta since A) give equal states. */
#include "shard/partition.h"

#include "base/check.h"

#include <stdlib.h>

#define FRESH_KEPT 4096 /* numbers for which the room is kept */

/* ---- series ---- */

err partition_series(struct partition *p, struct slice tenant, struct slice labels, uint32_t *out_local)
{
    struct metric_index_item item = { .labels = labels };
    size_t done;
    TRY(metric_index_add_all(p->shards->index, tenant, &item, 1, p->number, &done));
    *out_local = item.local;
    return OK;
}

/* ---- producers ---- */

err producer_find(struct partition *p, const uint8_t id[INCARNATION_BYTES], size_t *out_index)
{
    if (p->producer_last < p->producer_count &&
        memcmp(p->producers[p->producer_last].id, id, INCARNATION_BYTES) == 0) {
        *out_index = p->producer_last;
        return OK;
    }
    for (size_t i = 0; i < p->producer_count; i++)
        if (memcmp(p->producers[i].id, id, INCARNATION_BYTES) == 0) {
            *out_index = p->producer_last = i;
            return OK;
        }
    if (p->producer_count >= STATE_INCARNATION_COUNT_MAX)
        return ERR_LIMIT;
    void *block = p->producers;
    TRY(pool_block_reserve(p->pool, &block, sizeof *p->producers, p->producer_count + 1,
                           &p->producer_capacity));
    p->producers = block;
    struct producer *producer = &p->producers[p->producer_count];
    *producer = (struct producer){ .seen = dedupe_open(p->pool) };
    memcpy(producer->id, id, INCARNATION_BYTES);
    *out_index = p->producer_last = p->producer_count++;
    return OK;
}

err producer_bind(struct partition *p, struct producer *producer, uint32_t number, uint32_t local)
{
    if (number >= STATE_NUMBER_MAX)
        return ERR_CORRUPT;
    uint32_t bound = producer_local(producer, number);
    if (bound != STATE_UNBOUND)
        return bound == local ? OK : ERR_CORRUPT;
    void *block = producer->fresh;
    TRY(pool_block_reserve(p->pool, &block, sizeof(uint32_t), producer->fresh_count + 1,
                           &producer->fresh_capacity));
    producer->fresh = block;
    size_t before = producer->capacity;
    block = producer->locals;
    TRY(pool_block_reserve(p->pool, &block, sizeof(uint32_t), (size_t)number + 1, &producer->capacity));
    producer->locals = block;
    for (size_t i = before; i < producer->capacity; i++)
        producer->locals[i] = STATE_UNBOUND;
    producer->locals[number] = local;
    producer->bound_count++;
    producer->fresh[producer->fresh_count++] = number;
    return OK;
}

void producer_done(struct partition *p, struct producer *producer)
{
    dedupe_close(&producer->seen);
    pool_block_free(p->pool, producer->locals);
    pool_block_free(p->pool, producer->fresh);
}

/* ---- metadata ---- */

/* The four texts one behind the other at `at`. */
static struct state_metadata metadata_place(const struct state_metadata *m, uint8_t *at)
{
    const struct slice texts[4] = { m->tenant, m->family, m->help, m->unit };
    struct slice placed[4];
    for (int i = 0; i < 4; i++) {
        if (texts[i].len > 0)
            memcpy(at, texts[i].at, texts[i].len);
        placed[i] = slice_of(at, texts[i].len);
        at += texts[i].len;
    }
    return (struct state_metadata){
        .tenant = placed[0], .family = placed[1], .help = placed[2], .unit = placed[3], .type = m->type
    };
}

static size_t metadata_bytes(const struct state_metadata *m)
{
    return m->tenant.len + m->family.len + m->help.len + m->unit.len + 1;
}

static void metadata_remove(struct partition *p, size_t index)
{
    pool_block_free(p->pool, (void *)(uintptr_t)p->metadata[index].tenant.at);
    p->metadata_count--;
    p->metadata_checkpointed -= index < p->metadata_checkpointed;
    memmove(p->metadata + index, p->metadata + index + 1, (p->metadata_count - index) * sizeof *p->metadata);
}

/* Texts change with every deployment: the oldest go, those in use come again with the next announcement. */
err partition_metadata_add(struct partition *p, const struct state_metadata *m)
{
    size_t of_family = 0, oldest = 0;
    for (size_t i = p->metadata_count; i > 0; i--) { /* newest first: senders repeat what they sent last */
        const struct state_metadata *have = &p->metadata[i - 1];
        if (!slice_equal(have->family, m->family) || !slice_equal(have->tenant, m->tenant))
            continue;
        if (have->type == m->type && slice_equal(have->help, m->help) && slice_equal(have->unit, m->unit))
            return OK;
        of_family++;
        oldest = i - 1;
    }
    void *block = p->metadata, *texts = NULL;
    TRY(pool_block_reserve(p->pool, &block, sizeof *p->metadata, p->metadata_count + 1,
                           &p->metadata_capacity));
    p->metadata = block;
    TRY(pool_block_resize(p->pool, &texts, metadata_bytes(m)));
    p->metadata[p->metadata_count++] = metadata_place(m, texts);
    if (of_family >= STATE_METADATA_FAMILY_MAX)
        metadata_remove(p, oldest);
    else if (p->metadata_count > STATE_METADATA_COUNT_MAX)
        metadata_remove(p, 0);
    return OK;
}

static err capture_metadata(const struct partition *p, size_t from, struct pool *pool, struct state *state)
{
    void *at;
    TRY(pool_alloc(pool, (p->metadata_count - from) * sizeof *p->metadata + 1, &at));
    state->metadata = at;
    for (size_t i = from; i < p->metadata_count; i++) {
        TRY(pool_alloc(pool, metadata_bytes(&p->metadata[i]), &at));
        state->metadata[state->metadata_count++] = metadata_place(&p->metadata[i], at);
    }
    return OK;
}

/* ---- capture ---- */

static int number_order(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static err capture_bindings(struct producer *producer, bool is_delta, struct pool *pool,
                            struct state_incarnation *out)
{
    size_t count = is_delta ? producer->fresh_count : producer->bound_count;
    void *numbers, *locals;
    TRY(pool_alloc(pool, count * sizeof(uint32_t) + 1, &numbers));
    TRY(pool_alloc(pool, count * sizeof(uint32_t) + 1, &locals));
    out->numbers = numbers;
    out->locals = locals;
    if (is_delta) {
        if (count > 0)
            memcpy(out->numbers, producer->fresh, count * sizeof(uint32_t));
        bool is_sorted = true;
        for (size_t i = 1; i < count; i++)
            is_sorted = is_sorted && out->numbers[i - 1] < out->numbers[i];
        if (!is_sorted)
            qsort(out->numbers, count, sizeof(uint32_t), number_order);
        for (size_t i = 0; i < count; i++)
            out->locals[i] = producer->locals[out->numbers[i]];
    } else {
        size_t n = 0;
        for (size_t number = 0; number < producer->capacity && n < count; number++)
            if (producer->locals[number] != STATE_UNBOUND) {
                out->numbers[n] = (uint32_t)number;
                out->locals[n++] = producer->locals[number];
            }
        check(n == count);
    }
    out->binding_count = count;
    return OK;
}

static err capture_unresolved(struct partition *p, struct pool *pool, struct state *state)
{
    void *at;
    TRY(pool_alloc(pool, p->unresolved_count * sizeof *p->unresolved + 1, &at));
    state->unresolved = at;
    if (p->unresolved_count > 0)
        memcpy(state->unresolved, p->unresolved, p->unresolved_count * sizeof *p->unresolved);
    for (size_t i = 0; i < p->unresolved_count; i++)
        if (p->unresolved[i].histogram.len > 0)
            TRY(pool_copy(pool, p->unresolved[i].histogram, &state->unresolved[i].histogram));
    state->unresolved_count = p->unresolved_count;
    return OK;
}

err partition_capture(struct partition *p, struct range *range, bool is_delta, struct pool *pool,
                      struct state *out_state)
{
    struct state state = { .at = p->applied,
                           .data_through_ms = p->data_through_ms,
                           .leader_epoch = p->leader_epoch,
                           .start = range->start,
                           .record_count = range->record_count,
                           .log_bytes = range->log_bytes,
                           .sum = range->sum,
                           .resolved_removed = range->resolved_removed,
                           .resolved_added = range->resolved_added,
                           .far_future_rows = range->far_future_rows,
                           .closed = range->closed,
                           .reason = range->reason,
                           .format_version = range->format_version,
                           .incarnation_count = p->producer_count };
    void *at;
    TRY(pool_alloc(pool, range->loss_count * sizeof *range->losses + 1, &at));
    state.losses = at;
    state.loss_count = range->loss_count;
    if (range->loss_count > 0)
        memcpy(state.losses, range->losses, range->loss_count * sizeof *range->losses);
    TRY(pool_zalloc(pool, p->producer_count * sizeof *state.incarnations + 1, &at));
    state.incarnations = at;
    for (size_t i = 0; i < p->producer_count; i++) {
        struct state_incarnation *out = &state.incarnations[i];
        memcpy(out->id, p->producers[i].id, INCARNATION_BYTES);
        out->last = p->producers[i].last;
        TRY(dedupe_copy(&p->producers[i].seen, pool, &out->seen));
        TRY(capture_bindings(&p->producers[i], is_delta, pool, out));
    }
    TRY(capture_unresolved(p, pool, &state));
    TRY(capture_metadata(p, is_delta ? p->metadata_checkpointed : 0, pool, &state));
    *out_state = state;
    return OK;
}

void partition_captured(struct partition *p)
{
    for (size_t i = 0; i < p->producer_count; i++) {
        struct producer *producer = &p->producers[i];
        if (producer->fresh_capacity > FRESH_KEPT) { /* many came: they do not come again */
            pool_block_free(p->pool, producer->fresh);
            producer->fresh = NULL;
            producer->fresh_capacity = 0;
        }
        producer->fresh_count = 0;
    }
    p->metadata_checkpointed = p->metadata_count;
}

/* ---- restore ---- */

static err restore_producers(struct partition *p, const struct state *state)
{
    /* A producer that is not in the state any more was forgotten. */
    size_t kept = 0;
    for (size_t i = 0; i < p->producer_count; i++) {
        bool is_there = false;
        for (size_t k = 0; k < state->incarnation_count && !is_there; k++)
            is_there = memcmp(p->producers[i].id, state->incarnations[k].id, INCARNATION_BYTES) == 0;
        if (is_there)
            p->producers[kept++] = p->producers[i];
        else
            producer_done(p, &p->producers[i]);
    }
    p->producer_count = kept;
    p->producer_last = 0;
    for (size_t k = 0; k < state->incarnation_count; k++) {
        const struct state_incarnation *in = &state->incarnations[k];
        size_t index;
        TRY(producer_find(p, in->id, &index));
        if (index != k) /* unresolved rows name producers by this order */
            return ERR_CORRUPT;
        struct producer *producer = &p->producers[index];
        dedupe_close(&producer->seen);
        TRY(dedupe_copy(&in->seen, p->pool, &producer->seen));
        producer->last = in->last;
        for (size_t i = 0; i < in->binding_count; i++)
            TRY(producer_bind(p, producer, in->numbers[i], in->locals[i]));
    }
    return OK;
}

static err restore_unresolved(struct partition *p, const struct state *state)
{
    for (size_t i = 0; i < p->unresolved_count; i++)
        pool_block_free(p->pool, (void *)p->unresolved[i].histogram.at);
    p->unresolved_count = 0;
    for (size_t i = 0; i < p->producer_count; i++)
        p->producers[i].waiting_count = 0;
    void *block = p->unresolved;
    TRY(pool_block_reserve(p->pool, &block, sizeof *p->unresolved, state->unresolved_count + 1,
                           &p->unresolved_capacity));
    p->unresolved = block;
    for (size_t i = 0; i < state->unresolved_count; i++) {
        struct state_unresolved u = state->unresolved[i];
        if (u.histogram.len > 0) {
            void *bytes = NULL;
            TRY(pool_block_resize(p->pool, &bytes, u.histogram.len));
            memcpy(bytes, u.histogram.at, u.histogram.len);
            u.histogram.at = bytes;
        } else {
            u.histogram = slice_of(NULL, 0);
        }
        p->unresolved[p->unresolved_count++] = u;
        p->producers[u.incarnation].waiting_count++;
    }
    return OK;
}

err partition_restore(struct partition *p, const struct state *state)
{
    TRY(restore_producers(p, state));
    TRY(restore_unresolved(p, state));
    for (size_t i = 0; i < state->metadata_count; i++)
        TRY(partition_metadata_add(p, &state->metadata[i]));
    p->data_through_ms = state->data_through_ms;
    p->leader_epoch = state->leader_epoch;
    partition_captured(p); /* what came from a checkpoint need not be in the next one */
    return OK;
}
