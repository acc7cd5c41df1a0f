/* One answer as it comes: bytes → blocks → series, groups, texts, metadata, proof. From: gather.c. See gather.h.
 *
 * Invariants: 1. Nothing of an answer is used before is_whole. 2. Blocks stay where they are; series and
 * groups point into them. 3. What passes the asker's bounds ends the answer at once: memory is bounded by them. */
#include "fanout/gather.h"

#include "base/check.h"
#include "model/labels.h"

err receive_open(struct receive *r, enum wire_kind kind, const struct receive_limits *limits,
                 struct pool *pool)
{
    *r = (struct receive){ .answer = { .pool = pool },
                           .limits = *limits,
                           .in = { .pool = pool, .kind = kind } };
    return kind == WIRE_GROUPS ? wire_groups_open(pool, limits->step_count, limits->column_count, &r->groups)
                               : wire_series_open(pool, &r->series);
}

void receive_close(struct receive *r)
{
    wire_series_close(r->series);
    wire_groups_close(r->groups);
    r->series = NULL;
    r->groups = NULL;
}

static err add_exemplars(struct gather_answer *a, const struct wire_entry *entry)
{
    struct wire_exemplars exemplars = wire_exemplars_of(entry);
    struct gather_series *series = &a->series[a->series_count - 1];
    TRY(pool_block_reserve(a->pool, (void **)&a->exemplars, sizeof *a->exemplars,
                           a->exemplar_count + entry->exemplar_count, &a->exemplar_capacity));
    if (series->exemplar_count == 0)
        series->first_exemplar = a->exemplar_count;
    while (wire_exemplar_next(&exemplars, &a->exemplars[a->exemplar_count])) {
        a->exemplar_count++;
        series->exemplar_count++;
    }
    return OK;
}

static err add_entry(struct receive *r, const struct wire_entry *entry)
{
    struct gather_answer *a = &r->answer;
    if (!entry->continues) {
        if (a->series_count == r->limits.series_max) {
            r->over = RECEIVE_OVER_SERIES;
            return ERR_LIMIT;
        }
        TRY(pool_block_reserve(a->pool, (void **)&a->series, sizeof *a->series, a->series_count + 1,
                               &a->series_capacity));
        struct gather_series *series = &a->series[a->series_count];
        *series = (struct gather_series){ .first_piece = a->piece_count };
        TRY(pool_copy(a->pool, entry->labels, &series->labels));
        a->series_count++;
    }
    if (entry->piece.rows > 0) {
        if (entry->piece.first_ms < r->limits.range.min_ms || entry->piece.last_ms > r->limits.range.max_ms)
            return ERR_INPUT;
        a->row_count += entry->piece.rows;
        if (a->row_count > r->limits.samples_max) {
            r->over = RECEIVE_OVER_SAMPLES;
            return ERR_LIMIT;
        }
        TRY(pool_block_reserve(a->pool, (void **)&a->pieces, sizeof *a->pieces, a->piece_count + 1,
                               &a->piece_capacity));
        a->pieces[a->piece_count++] = entry->piece;
        a->series[a->series_count - 1].piece_count++;
    }
    return entry->exemplar_count > 0 ? add_exemplars(a, entry) : OK;
}

static err add_series(struct receive *r, struct slice body)
{
    struct wire_entry entry;
    err e;
    wire_series_block(r->series, body);
    while ((e = wire_series_next(r->series, &entry)) == OK)
        TRY(add_entry(r, &entry));
    return e == ERR_END ? OK : e;
}

/* What it was evaluated from: bounds hold for that as they do for series that come. */
static err add_unit(struct receive *r, struct slice body)
{
    struct gather_answer *a = &r->answer;
    if (r->has_unit)
        return ERR_INPUT;
    TRY(wire_unit_read(body, a->pool, r->limits.step_count, r->limits.column_count, &a->of_unit));
    r->has_unit = true;
    a->row_count = a->of_unit.sample_count;
    r->over = a->of_unit.series_count > r->limits.series_max ? RECEIVE_OVER_SERIES
              : a->row_count > r->limits.samples_max         ? RECEIVE_OVER_SAMPLES
                                                             : RECEIVE_OVER_NONE;
    return r->over == RECEIVE_OVER_NONE ? OK : ERR_LIMIT;
}

/* A group has a series at least, or, with what count_values makes, a series' value at some step. */
static err add_group(struct receive *r, const struct wire_group *piece)
{
    struct gather_answer *a = &r->answer;
    if (!piece->continues) {
        if (a->group_count / r->limits.step_count >= a->of_unit.series_count)
            return ERR_INPUT;
        TRY(pool_block_reserve(a->pool, (void **)&a->groups, sizeof *a->groups, a->group_count + 1,
                               &a->group_capacity));
        struct gather_group *group = &a->groups[a->group_count];
        *group = (struct gather_group){ .drop_name = piece->drop_name, .first_piece = a->group_piece_count };
        TRY(pool_copy(a->pool, piece->labels, &group->labels));
        a->group_count++;
    }
    TRY(pool_block_reserve(a->pool, (void **)&a->group_pieces, sizeof *a->group_pieces,
                           a->group_piece_count + 1, &a->group_piece_capacity));
    a->group_pieces[a->group_piece_count++] = *piece;
    return OK;
}

static err add_groups(struct receive *r, struct slice body)
{
    struct wire_group piece;
    err e;
    if (!r->has_unit)
        return ERR_INPUT;
    wire_groups_block(r->groups, body);
    while ((e = wire_groups_next(r->groups, &piece)) == OK)
        TRY(add_group(r, &piece));
    return e == ERR_END ? OK : e;
}

static err take_proof(struct receive *r, struct slice body)
{
    TRY(wire_proof_read(body, r->answer.pool, &r->answer.proof));
    if (r->groups != NULL && (!r->has_unit || !wire_groups_are_whole(r->groups)))
        return ERR_INPUT;
    r->is_whole = true;
    return OK;
}

static err take_error(struct receive *r, struct slice body)
{
    err error;
    uint64_t series_over;
    TRY(wire_error_read(body, &error, &series_over));
    r->is_refused =
        r->groups != NULL && (error == ERR_UNSUPPORTED || error == ERR_VERSION || error == ERR_INPUT);
    if (error == ERR_LIMIT)
        r->over = series_over != 0 ? RECEIVE_OVER_SERIES : RECEIVE_OVER_SAMPLES;
    return error;
}

static err take_block(struct receive *r, const struct wire_block *block)
{
    struct gather_answer *a = &r->answer;
    switch (block->type) {
    case WIRE_BLOCK_SERIES:
        return add_series(r, block->body);
    case WIRE_BLOCK_TEXTS:
        return wire_texts_read(block->body, a->pool, &a->texts);
    case WIRE_BLOCK_METADATA:
        return wire_metadata_read(block->body, a->pool, &a->metadata);
    case WIRE_BLOCK_ERROR:
        return take_error(r, block->body);
    case WIRE_BLOCK_UNIT:
        return add_unit(r, block->body);
    case WIRE_BLOCK_GROUPS:
        return add_groups(r, block->body);
    default:
        return take_proof(r, block->body);
    }
}

err receive_bytes(struct receive *r, struct slice bytes)
{
    struct wire_block block;
    err e = OK;
    while (e == OK) {
        e = wire_in_next(&r->in, &bytes, &block);
        if (e == OK)
            e = take_block(r, &block);
    }
    return e == ERR_END ? OK : e;
}
