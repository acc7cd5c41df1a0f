/* Values of parts of a compact segment: plain, constant, the same as another part's, differences from the bucket
 * above. docs/format/compact.md §4.
 *
 *   part ─ payload ─ kind ─ plain or constant ─→ bits
 *                         ├ same ─ the other part ─→ bits
 *                         └ difference ─ up the chain to a plain one or to what the cursor holds ─ integers,
 *                           down again subtracting ─→ bits, and the integers kept for the next bucket
 *
 * Invariants: 1. References point to lower part numbers, so every walk ends; chains are bounded besides.
 * 2. A part referred to has the same timeline and as many rows. */
#include "base/check.h"
#include "metric/compact_cursor.h"

err cursor_malformed(struct err_at *at, const char *what, uint32_t number)
{
    return err_set(at, ERR_CORRUPT, "compact segment: %s %u is malformed", what, number);
}

/* ERR_CORRUPT, ERR_LIMIT. */
static err parse(struct metric_compact_cursor *c, struct slice payload, struct cursor_part *p)
{
    struct reader r = reader_of(payload);
    if (p->part.flags & PART_START)
        p->start = read_string(&r);
    if (p->part.flags & PART_HISTOGRAM) {
        p->histogram_block = (uint32_t)read_varint(&r);
        p->histogram_offset = (uint32_t)read_varint(&r);
        uint64_t count = read_varint(&r);
        if (!r.ok || count == 0 || count > p->part.rows)
            return ERR_CORRUPT;
        p->histogram_count = (uint32_t)count;
        TRY(cursor_column(c, sizeof *c->histogram_rows, (void **)&c->histogram_rows));
        if (int_column_decode_u32(&r, count, c->histogram_rows) != OK)
            return ERR_CORRUPT;
        for (size_t i = 0; i < count; i++)
            if (c->histogram_rows[i] >= p->part.rows ||
                (i > 0 && c->histogram_rows[i] <= c->histogram_rows[i - 1]))
                return ERR_CORRUPT;
    }
    p->rest = slice_of(r.at, read_left(&r));
    return r.ok ? OK : ERR_CORRUPT;
}

err cursor_part_open(struct metric_compact_cursor *c, uint32_t number, const struct compact_part *part,
                     struct cursor_part *out, struct err_at *at)
{
    *out = (struct cursor_part){ .part = *part, .number = number };
    TRY(segment_block_get(c->compact->segment, SECTION_VALUES, part->block, &out->block, at));
    struct slice content = out->block.content;
    err e = ERR_CORRUPT;
    if (part->offset <= content.len && part->bytes <= content.len - part->offset)
        e = parse(c, slice_part(content, part->offset, part->bytes), out);
    if (e == OK)
        return OK;
    segment_block_release(c->compact->segment, &out->block);
    return e == ERR_LIMIT ? e : cursor_malformed(at, "part", number);
}

void cursor_part_close(struct metric_compact_cursor *c, struct cursor_part *part)
{
    segment_block_release(c->compact->segment, &part->block);
}

static size_t rows_of(size_t rows, size_t from, size_t to)
{
    size_t end = to * CODEC_VECTOR_COUNT_MAX < rows ? to * CODEC_VECTOR_COUNT_MAX : rows;
    return end - from * CODEC_VECTOR_COUNT_MAX;
}

/* Kinds that need no other part. */
static err own_values(const struct cursor_part *p, size_t from, size_t to, uint64_t *out)
{
    if ((p->part.flags & PART_KIND) == KIND_PLAIN)
        return compact_vectors_get(p->rest, p->part.rows, true, from, to, out);
    uint64_t value;
    size_t used;
    TRY(float_decode(p->rest, 1, &value, &used));
    if (used != p->rest.len)
        return ERR_CORRUPT;
    for (size_t i = 0, n = rows_of(p->part.rows, from, to); i < n; i++)
        out[i] = value;
    return OK;
}

/* Open the part that p refers to, `distance` before it; *out_rest: what follows the distance in p. */
static err open_other(struct metric_compact_cursor *c, const struct cursor_part *p,
                      struct cursor_part *out_other, struct slice *out_rest, struct err_at *at)
{
    struct reader r = reader_of(p->rest);
    uint64_t distance = read_varint(&r);
    struct compact_part other;
    if (!r.ok || distance == 0 || distance > p->number)
        return cursor_malformed(at, "part", p->number);
    uint32_t number = p->number - (uint32_t)distance;
    *out_rest = slice_of(r.at, read_left(&r));
    TRY(cursor_part_find(c, number, &other, at));
    if (other.rows != p->part.rows || other.timeline != p->part.timeline || (other.flags & PART_HISTOGRAM))
        return cursor_malformed(at, "part", p->number);
    return cursor_part_open(c, number, &other, out_other, at);
}

static bool holds(const struct metric_compact_cursor *c, uint32_t number, size_t from, size_t to)
{
    return c->bucket_any && c->bucket_part == number && c->bucket_from <= from && to <= c->bucket_to;
}

/* Bits of counts to the cursor's integers. */
static bool to_integers(struct metric_compact_cursor *c, const uint64_t *bits, size_t n)
{
    for (size_t i = 0; i < n; i += CODEC_VECTOR_COUNT_MAX)
        if (!float_integers(bits + i, n - i < CODEC_VECTOR_COUNT_MAX ? n - i : CODEC_VECTOR_COUNT_MAX,
                            c->bucket + i))
            return false;
    return true;
}

/* The integers of p's vectors [from, to) at c->bucket (+ what it holds before), p being a difference. */
static err bucket_values(struct metric_compact_cursor *c, const struct cursor_part *p, size_t from, size_t to,
                         uint64_t *scratch, struct err_at *at)
{
    err e = OK;
    struct cursor_part chain[CURSOR_CHAIN_MAX];
    struct slice lists[CURSOR_CHAIN_MAX];
    size_t depth = 0, n = rows_of(p->part.rows, from, to);
    TRY(cursor_column(c, sizeof *c->bucket, (void **)&c->bucket));
    TRY(cursor_column(c, sizeof *c->differences, (void **)&c->differences));
    chain[0] = *p;
    for (;;) {
        struct cursor_part *top = &chain[depth];
        if (holds(c, top->number, from, to)) {
            from = c->bucket_from; /* go on with what is held: the others are decoded as far */
            to = c->bucket_to;
            n = rows_of(p->part.rows, from, to);
            break;
        }
        unsigned kind = top->part.flags & PART_KIND;
        if (kind == KIND_PLAIN || kind == KIND_CONSTANT) {
            c->bucket_any = false;
            e = own_values(top, from, to, scratch);
            if (e != OK || !to_integers(c, scratch, n))
                TRY_OUT(cursor_malformed(at, "part", top->number));
            break;
        }
        if (kind != KIND_DIFFERENCE || depth + 1 == CURSOR_CHAIN_MAX)
            TRY_OUT(cursor_malformed(at, "part", top->number));
        TRY_OUT(open_other(c, top, &chain[depth + 1], &lists[depth], at));
        depth++;
    }
    c->bucket_any = false;
    for (size_t i = depth; i-- > 0;) {
        if (compact_vectors_get(lists[i], p->part.rows, false, from, to, (uint64_t *)c->differences) != OK)
            TRY_OUT(cursor_malformed(at, "part", chain[i].number));
        for (size_t k = 0; k < n; k++)
            c->bucket[k] = (int64_t)((uint64_t)c->bucket[k] - (uint64_t)c->differences[k]);
    }
    c->bucket_any = true;
    c->bucket_part = p->number;
    c->bucket_from = from;
    c->bucket_to = to;
out:
    for (size_t i = 1; i <= depth; i++)
        cursor_part_close(c, &chain[i]);
    return e;
}

err cursor_part_values(struct metric_compact_cursor *c, const struct cursor_part *p, size_t from, size_t to,
                       uint64_t *out, struct err_at *at)
{
    err e = OK;
    switch (p->part.flags & PART_KIND) {
    case KIND_PLAIN:
    case KIND_CONSTANT:
        e = own_values(p, from, to, out);
        return e == OK ? OK : cursor_malformed(at, "part", p->number);
    case KIND_SAME: {
        struct cursor_part other;
        struct slice rest;
        TRY(open_other(c, p, &other, &rest, at));
        bool fits = rest.len == 0 && (other.part.flags & PART_KIND) <= KIND_CONSTANT &&
                    own_values(&other, from, to, out) == OK;
        cursor_part_close(c, &other);
        return fits ? OK : cursor_malformed(at, "part", p->number);
    }
    default:
        TRY(bucket_values(c, p, from, to, out, at));
        size_t skip = (from - c->bucket_from) * CODEC_VECTOR_COUNT_MAX;
        float_from_integers(c->bucket + skip, rows_of(p->part.rows, from, to), out);
        return OK;
    }
}
