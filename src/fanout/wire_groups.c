/* Reading the groups of an answer: what its unit block says, and pieces of groups out of blocks. From, to:
 * receive.c. See wire.h; byte tables in docs/format/query.md.
 *
 * Invariants
 *  1. Nothing is believed: counts, lengths, labels, and that every group has each of its steps once.
 *  2. What was read once decodes the same again (wire_group_read). */
#include "fanout/wire.h"

#include "base/check.h"
#include "codec/float.h"
#include "fanout/wire_format.h"
#include "model/labels.h"

/* ---- the unit ---- */

static err read_notes(struct reader *r, struct pool *pool, struct slice **out_texts, size_t *out_count)
{
    uint64_t count = read_varint(r);
    void *at;
    if (!r->ok || count > SOURCE_NOTE_COUNT_MAX || count > read_left(r))
        return ERR_INPUT;
    TRY(pool_alloc(pool, count * sizeof(struct slice) + 1, &at));
    struct slice *texts = at;
    for (uint64_t i = 0; i < count; i++) {
        struct slice text = read_string(r);
        if (!r->ok || text.len > WIRE_NOTE_BYTES_MAX)
            return ERR_INPUT;
        TRY(pool_copy(pool, text, &texts[i]));
    }
    *out_texts = texts;
    *out_count = count;
    return OK;
}

err wire_unit_read(struct slice body, struct pool *pool, uint64_t step_count, uint32_t column_count,
                   struct source_groups *out_groups)
{
    struct reader r = reader_of(body);
    struct source_groups groups = { .proof = out_groups->proof };
    bool is_asked = read_varint(&r) == column_count;
    is_asked &= read_varint(&r) == step_count;
    groups.series_count = read_varint(&r);
    groups.sample_count = read_varint(&r);
    if (!r.ok || !is_asked)
        return ERR_INPUT;
    TRY(read_notes(&r, pool, &groups.warnings, &groups.warning_count));
    TRY(read_notes(&r, pool, &groups.infos, &groups.info_count));
    if (read_left(&r) != 0)
        return ERR_INPUT;
    *out_groups = groups;
    return OK;
}

/* ---- groups ---- */

struct wire_groups {
    struct reader r;
    uint64_t step_count;
    uint32_t column_count;
    bool is_first;     /* in the block */
    struct buf front;  /* labels before, in the block */
    struct buf labels; /* of the group that is being read */
    uint64_t steps;    /* of it that have come; step_count: all */
    bool drop_name;
    uint64_t bits[WIRE_PIECE_ROW_COUNT_MAX];
};

err wire_groups_open(struct pool *pool, uint64_t step_count, uint32_t column_count,
                     struct wire_groups **out_groups)
{
    void *at;
    check(step_count >= 1 && step_count <= WIRE_STEP_COUNT_MAX && column_count >= 1 &&
          column_count <= SOURCE_GROUP_COLUMNS_MAX);
    TRY(pool_zalloc(pool, sizeof(struct wire_groups), &at));
    struct wire_groups *g = at;
    g->step_count = g->steps = step_count;
    g->column_count = column_count;
    g->front = buf_open(pool, LABELS_BYTES_MAX);
    g->labels = buf_open(pool, LABELS_BYTES_MAX);
    *out_groups = g;
    return OK;
}

void wire_groups_close(struct wire_groups *g)
{
    if (g == NULL)
        return;
    buf_close(&g->front);
    buf_close(&g->labels);
}

void wire_groups_block(struct wire_groups *g, struct slice body)
{
    g->r = reader_of(body);
    g->is_first = true;
}

bool wire_groups_are_whole(const struct wire_groups *g) { return g->steps == g->step_count; }

/* Labels and flags: does the piece continue the group before, as it has to, or begin one? */
static err read_piece_head(struct wire_groups *g, bool *out_continues)
{
    TRY(wire_front_read(&g->r, &g->front, g->is_first));
    uint8_t flags = read_u8(&g->r);
    bool continues = (flags & WIRE_GROUP_CONTINUES) != 0, drop_name = (flags & WIRE_GROUP_DROPS_NAME) != 0;
    if (!g->r.ok || (flags & ~(WIRE_GROUP_CONTINUES | WIRE_GROUP_DROPS_NAME)) != 0 ||
        continues == wire_groups_are_whole(g))
        return ERR_INPUT;
    *out_continues = continues;
    if (continues)
        return drop_name == g->drop_name && slice_equal(buf_slice(&g->front), buf_slice(&g->labels))
                   ? OK
                   : ERR_INPUT;
    if (labels_check(buf_slice(&g->front), NULL) != OK)
        return ERR_INPUT;
    buf_clear(&g->labels);
    buf_put_slice(&g->labels, buf_slice(&g->front));
    g->drop_name = drop_name;
    g->steps = 0;
    return buf_err(&g->labels);
}

err wire_groups_next(struct wire_groups *g, struct wire_group *out_group)
{
    struct wire_group piece = { 0 };
    if (read_left(&g->r) == 0)
        return g->is_first ? ERR_INPUT : ERR_END;
    TRY(read_piece_head(g, &piece.continues));
    g->is_first = false;
    uint64_t left = g->step_count - g->steps;
    piece.steps = left < WIRE_PIECE_ROW_COUNT_MAX ? (uint32_t)left : WIRE_PIECE_ROW_COUNT_MAX;
    piece.at = g->r.at;
    piece.end = g->r.end;
    for (uint32_t i = 0; i < g->column_count; i++)
        if (float_column_decode(&g->r, piece.steps, g->bits) != OK)
            return ERR_INPUT;
    g->steps += piece.steps;
    piece.drop_name = g->drop_name;
    piece.labels = buf_slice(&g->labels);
    *out_group = piece;
    return OK;
}

void wire_group_read(const struct wire_group *piece, uint32_t column_count, double *const columns[])
{
    struct reader r = reader_of(slice_of(piece->at, (size_t)(piece->end - piece->at)));
    uint64_t bits[CODEC_VECTOR_COUNT_MAX];
    for (uint32_t i = 0; i < column_count; i++)
        for (uint32_t at = 0; at < piece->steps; at += CODEC_VECTOR_COUNT_MAX) {
            uint32_t left = piece->steps - at;
            uint32_t count = left < CODEC_VECTOR_COUNT_MAX ? left : CODEC_VECTOR_COUNT_MAX;
            check(float_column_decode(&r, count, bits) == OK);
            memcpy(columns[i] + at, bits, count * sizeof *bits);
        }
}
