/* Reader of index parts: tables, series and postings. See index_part.h and docs/format/index.md; matchers
 * are in index_select.c.
 *
 * The image is bytes from a builder or from a disk. The reader keeps slices of its sections and decodes on
 * the way; nothing is unpacked at open.
 *
 * Invariants
 *  1. Opening checked that every fixed-size table lies inside the image for the counts of the header; all
 *     other offsets and numbers are checked where they are read. So no bytes lead outside the image.
 *  2. Every ordinal that leaves this file is below series_count, every pair below pair_count.
 *  3. A decoded series has at most LABEL_COUNT_MAX labels, so a cursor's arrays suffice. */
#include "metric/index_part.h"

#include "base/check.h"
#include "base/hash.h"
#include "metric/index_part_format.h"
#include "metric/index_part_read.h"
#include "model/labels.h"

/* Cut `bytes` off the front of rest; the caller adds up the sizes beforehand. */
static struct slice cut(struct slice *rest, uint64_t bytes)
{
    check(bytes <= rest->len);
    struct slice s = slice_part(*rest, 0, (size_t)bytes);
    *rest = slice_part(*rest, (size_t)bytes, rest->len - (size_t)bytes);
    return s;
}

err metric_part_open(struct slice image, struct metric_part *out_part)
{
    if (image.len < PART_HEADER_BYTES || image.len > METRIC_PART_IMAGE_BYTES_MAX ||
        get_le32(image.at) != PART_MAGIC)
        return ERR_CORRUPT;
    const uint8_t *h = image.at;
    if (get_le16(h + 4) != PART_VERSION)
        return get_le16(h + 4) > PART_VERSION ? ERR_VERSION : ERR_CORRUPT;
    struct metric_part p = { .image = image,
                             .series_count = get_le32(h + 8),
                             .symbol_count = get_le32(h + 12),
                             .name_count = get_le32(h + 16),
                             .pair_count = get_le32(h + 20),
                             .shape_count = get_le32(h + 24),
                             .posting_count = get_le64(h + 32) };
    uint64_t symbol_index_bytes = ((uint64_t)p.symbol_count + 1) * 4;
    uint64_t name_bytes = ((uint64_t)p.name_count + 1) * PART_NAME_BYTES;
    uint64_t pair_bytes = (uint64_t)p.pair_count * PART_PAIR_BYTES;
    uint64_t shape_index_bytes = ((uint64_t)p.shape_count + 1) * 4;
    uint64_t block_count = ((uint64_t)p.series_count + PART_BLOCK_SERIES - 1) / PART_BLOCK_SERIES;
    uint64_t block_index_bytes = (block_count + 1) * 4;
    uint64_t sum = PART_HEADER_BYTES + symbol_index_bytes + get_le32(h + 40) + name_bytes + pair_bytes +
                   shape_index_bytes + get_le32(h + 44) + block_index_bytes + get_le32(h + 48) +
                   get_le32(h + 52);
    if (sum != image.len || get_le32(h + 28) != image.len || p.series_count > METRIC_PART_SERIES_MAX)
        return ERR_CORRUPT;
    struct slice rest = slice_part(image, PART_HEADER_BYTES, image.len - PART_HEADER_BYTES);
    p.symbol_index = cut(&rest, symbol_index_bytes);
    p.symbol_text = cut(&rest, get_le32(h + 40));
    p.names = cut(&rest, name_bytes);
    p.pairs = cut(&rest, pair_bytes);
    p.shape_index = cut(&rest, shape_index_bytes);
    p.shapes = cut(&rest, get_le32(h + 44));
    p.block_index = cut(&rest, block_index_bytes);
    p.blocks = cut(&rest, get_le32(h + 48));
    p.postings = cut(&rest, get_le32(h + 52));
    *out_part = p;
    return OK;
}

/* ---- tables ---- */

/* The bytes between two neighbouring offsets of an index over text. */
static err span_of(struct slice index, struct slice text, uint32_t i, struct slice *out_span)
{
    uint32_t from = get_le32(index.at + (size_t)i * 4), to = get_le32(index.at + (size_t)i * 4 + 4);
    if (from > to || to > text.len)
        return ERR_CORRUPT;
    *out_span = slice_part(text, from, to - from);
    return OK;
}

static err symbol_of(const struct metric_part *part, uint32_t symbol, struct slice *out_text)
{
    if (symbol >= part->symbol_count)
        return ERR_CORRUPT;
    return span_of(part->symbol_index, part->symbol_text, symbol, out_text);
}

err part_name_text(const struct metric_part *part, uint32_t name, struct slice *out_text)
{
    check(name < part->name_count);
    return symbol_of(part, get_le32(part->names.at + (size_t)name * PART_NAME_BYTES), out_text);
}

err part_name_pairs(const struct metric_part *part, uint32_t name, uint32_t *out_from, uint32_t *out_to)
{
    check(name < part->name_count);
    const uint8_t *at = part->names.at + (size_t)name * PART_NAME_BYTES;
    uint32_t from = get_le32(at + 4), to = get_le32(at + PART_NAME_BYTES + 4);
    if (from > to || to > part->pair_count)
        return ERR_CORRUPT;
    *out_from = from;
    *out_to = to;
    return OK;
}

uint32_t part_name_series(const struct metric_part *part, uint32_t name)
{
    check(name < part->name_count);
    return get_le32(part->names.at + (size_t)name * PART_NAME_BYTES + 8);
}

err part_value_text(const struct metric_part *part, uint32_t pair, struct slice *out_text)
{
    check(pair < part->pair_count);
    return symbol_of(part, get_le32(part->pairs.at + (size_t)pair * PART_PAIR_BYTES), out_text);
}

err part_find_name(const struct metric_part *part, struct slice name, uint32_t *out_name)
{
    uint32_t from = 0, to = part->name_count;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        struct slice text;
        TRY(part_name_text(part, middle, &text));
        int order = slice_compare(text, name);
        if (order == 0) {
            *out_name = middle;
            return OK;
        }
        if (order < 0)
            from = middle + 1;
        else
            to = middle;
    }
    *out_name = UINT32_MAX;
    return OK;
}

err part_value_bound(const struct metric_part *part, struct slice value, uint32_t from, uint32_t to,
                     uint32_t *out_pair)
{
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        struct slice text;
        TRY(part_value_text(part, middle, &text));
        if (slice_compare(text, value) < 0)
            from = middle + 1;
        else
            to = middle;
    }
    *out_pair = from;
    return OK;
}

/* Which name a pair belongs to: the last whose first pair is not above it. */
static uint32_t name_of_pair(const struct metric_part *part, uint32_t pair)
{
    uint32_t from = 0, to = part->name_count;
    while (to - from > 1) {
        uint32_t middle = from + (to - from) / 2;
        if (get_le32(part->names.at + (size_t)middle * PART_NAME_BYTES + 4) <= pair)
            from = middle;
        else
            to = middle;
    }
    return from;
}

err metric_part_pair_at(const struct metric_part *part, uint32_t pair, struct metric_part_pair *out_pair)
{
    check(pair < part->pair_count);
    if (part->name_count == 0)
        return ERR_CORRUPT;
    struct metric_part_pair p;
    TRY(part_name_text(part, name_of_pair(part, pair), &p.name));
    TRY(part_value_text(part, pair, &p.value));
    TRY(part_posting_count(part, pair, &p.series_count));
    *out_pair = p;
    return OK;
}

/* ---- series ---- */

err metric_part_cursor_open(const struct metric_part *part, struct pool *pool,
                            struct metric_part_cursor *out_cursor)
{
    void *at;
    TRY(pool_alloc(pool, 4 * LABEL_COUNT_MAX * sizeof(uint32_t), &at));
    uint32_t *arrays = at;
    *out_cursor = (struct metric_part_cursor){ .part = part,
                                               .next = UINT32_MAX,
                                               .names = arrays,
                                               .pairs = arrays + LABEL_COUNT_MAX,
                                               .before_names = arrays + 2 * LABEL_COUNT_MAX,
                                               .before_pairs = arrays + 3 * LABEL_COUNT_MAX };
    return OK;
}

void metric_part_cursor_turn(struct metric_part_cursor *cursor, const struct metric_part *part)
{
    cursor->part = part;
    cursor->next = UINT32_MAX;
}

err part_shape_names(const struct metric_part *part, uint32_t shape, uint32_t *names, uint32_t *out_count)
{
    struct slice text;
    if (shape >= part->shape_count)
        return ERR_CORRUPT;
    TRY(span_of(part->shape_index, part->shapes, shape, &text));
    struct reader r = reader_of(text);
    uint64_t count = read_varint(&r), next = 0;
    if (count > LABEL_COUNT_MAX)
        return ERR_CORRUPT;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t gap = read_varint(&r);
        if (gap >= part->name_count || next + gap >= part->name_count)
            return ERR_CORRUPT;
        names[i] = (uint32_t)(next + gap);
        next = names[i] + UINT64_C(1);
    }
    *out_count = (uint32_t)count;
    return r.ok && r.at == r.end ? OK : ERR_CORRUPT;
}

static void swap_arrays(uint32_t **a, uint32_t **b)
{
    uint32_t *swap = *a;
    *a = *b;
    *b = swap;
}

/* The value of label i of the current series stands in the block as its rank within the name. */
static err read_rank(struct metric_part_cursor *c, uint32_t i)
{
    uint32_t from, to;
    TRY(part_name_pairs(c->part, c->names[i], &from, &to));
    uint64_t rank = read_varint(&c->block);
    if (rank >= to - from)
        return ERR_CORRUPT;
    c->pairs[i] = from + (uint32_t)rank;
    return OK;
}

/* A series with the names of the one before: only the labels that changed are touched. */
static err step_same_shape(struct metric_part_cursor *c)
{
    struct slice mask = read_bytes(&c->block, (c->count + 7) / 8);
    if (!c->block.ok)
        return ERR_CORRUPT;
    for (uint32_t from = 0; from < c->count; from += 8) {
        unsigned width = c->count - from < 8 ? c->count - from : 8;
        unsigned changed = ~(unsigned)mask.at[from / 8] & ((1u << width) - 1);
        for (; changed != 0; changed &= changed - 1)
            TRY(read_rank(c, from + (unsigned)__builtin_ctz(changed)));
    }
    return c->block.ok ? OK : ERR_CORRUPT;
}

/* A series with other names, or the first of a block: `same` labels are looked up by name in the one before. */
static err step_new_shape(struct metric_part_cursor *c, bool first)
{
    uint32_t before_count = c->count;
    swap_arrays(&c->names, &c->before_names);
    swap_arrays(&c->pairs, &c->before_pairs);
    TRY(part_shape_names(c->part, c->shape, c->names, &c->count));
    struct slice mask = read_bytes(&c->block, first ? 0 : (c->count + 7) / 8);
    if (!c->block.ok)
        return ERR_CORRUPT;
    for (uint32_t i = 0, k = 0; i < c->count; i++) {
        if (first || (mask.at[i / 8] >> i % 8 & 1) == 0) {
            TRY(read_rank(c, i));
            continue;
        }
        while (k < before_count && c->before_names[k] < c->names[i])
            k++;
        if (k == before_count || c->before_names[k] != c->names[i])
            return ERR_CORRUPT;
        c->pairs[i] = c->before_pairs[k];
    }
    return c->block.ok ? OK : ERR_CORRUPT;
}

/* Decode the next series of the block the cursor is in; `first` = it opens the block. */
static err cursor_step(struct metric_part_cursor *c, bool first)
{
    uint64_t head = read_varint(&c->block);
    if (head == 0)
        return first ? ERR_CORRUPT : step_same_shape(c);
    if (head > c->part->shape_count)
        return ERR_CORRUPT;
    c->shape = (uint32_t)head - 1;
    return step_new_shape(c, first);
}

err metric_part_cursor_seek(struct metric_part_cursor *c, uint32_t ordinal)
{
    if (ordinal >= c->part->series_count)
        return ERR_NOT_FOUND;
    uint32_t block = ordinal / PART_BLOCK_SERIES;
    if (c->next != UINT32_MAX && ordinal + 1 == c->next)
        return OK; /* it is the current one */
    if (c->next == UINT32_MAX || ordinal < c->next || c->next / PART_BLOCK_SERIES != block ||
        c->next % PART_BLOCK_SERIES == 0) {
        struct slice bytes;
        TRY(span_of(c->part->block_index, c->part->blocks, block, &bytes));
        c->block = reader_of(bytes);
        c->next = block * PART_BLOCK_SERIES;
    }
    while (c->next <= ordinal) {
        err e = cursor_step(c, c->next % PART_BLOCK_SERIES == 0);
        if (e != OK) {
            c->next = UINT32_MAX;
            return e;
        }
        c->next++;
    }
    return OK;
}

err part_put_labels(const struct metric_part_cursor *cursor, struct buf *out)
{
    for (uint32_t i = 0; i < cursor->count; i++) {
        struct slice name, value;
        TRY(part_name_text(cursor->part, cursor->names[i], &name));
        TRY(part_value_text(cursor->part, cursor->pairs[i], &value));
        labels_put(out, name, value);
    }
    return buf_err(out);
}

err metric_part_labels(const struct metric_part *part, uint32_t ordinal, struct buf *out)
{
    uint32_t arrays[4][LABEL_COUNT_MAX];
    struct metric_part_cursor cursor = { .part = part,
                                         .next = UINT32_MAX,
                                         .names = arrays[0],
                                         .pairs = arrays[1],
                                         .before_names = arrays[2],
                                         .before_pairs = arrays[3] };
    TRY(metric_part_cursor_seek(&cursor, ordinal));
    return part_put_labels(&cursor, out);
}

err metric_part_cursor_labels(const struct metric_part_cursor *cursor, struct buf *out)
{
    return part_put_labels(cursor, out);
}

/* ---- postings ---- */

static uint32_t posting_field(const struct metric_part *part, uint32_t pair)
{
    check(pair < part->pair_count);
    return get_le32(part->pairs.at + (size_t)pair * PART_PAIR_BYTES + 4);
}

err part_posting_count(const struct metric_part *part, uint32_t pair, uint32_t *out_count)
{
    uint32_t field = posting_field(part, pair);
    if (field & PART_POSTING_SINGLE) {
        *out_count = 1;
        return OK;
    }
    if (field > part->postings.len)
        return ERR_CORRUPT;
    struct reader r = reader_of(slice_part(part->postings, field, part->postings.len - field));
    uint64_t count = read_varint(&r);
    if (!r.ok || count > part->series_count)
        return ERR_CORRUPT;
    *out_count = (uint32_t)count;
    return OK;
}

static void emit_run(struct part_sink *sink, uint32_t from, uint32_t count)
{
    if (sink->bits == NULL) {
        for (uint32_t i = 0; i < count; i++)
            sink->at[sink->count + i] = from + i;
        sink->count += count;
        return;
    }
    sink->count += count;
    for (uint32_t to = from + count; from < to;) {
        uint32_t bit = from % 64, here = to - from < 64 - bit ? to - from : 64 - bit;
        uint64_t mask = here == 64 ? UINT64_MAX : ((UINT64_C(1) << here) - 1) << bit;
        sink->bits[from / 64] |= mask;
        from += here;
    }
}

static err read_deltas(struct reader *r, uint32_t base, uint32_t limit, uint32_t count,
                       struct part_sink *sink)
{
    uint64_t next = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t gap = r->at != r->end && *r->at < 0x80 ? *r->at++ : read_varint(r);
        if (gap >= limit || next + gap >= limit)
            return ERR_CORRUPT;
        next += gap;
        if (sink->bits == NULL)
            sink->at[sink->count] = base + (uint32_t)next;
        else
            sink->bits[(base + next) / 64] |= UINT64_C(1) << (base + next) % 64;
        sink->count++;
        next++;
    }
    return r->ok ? OK : ERR_CORRUPT;
}

static err read_runs(struct reader *r, uint32_t base, uint32_t limit, uint32_t count, struct part_sink *sink)
{
    uint64_t next = 0, run_count = read_varint(r), left = count;
    for (uint64_t i = 0; i < run_count && r->ok; i++) {
        uint64_t gap = read_varint(r), more = read_varint(r);
        if (gap >= limit || more >= left || next + gap + more >= limit)
            return ERR_CORRUPT;
        emit_run(sink, base + (uint32_t)(next + gap), (uint32_t)more + 1);
        left -= more + 1;
        next += gap + more + 1;
    }
    return r->ok && left == 0 ? OK : ERR_CORRUPT;
}

static err read_bitset(struct reader *r, uint32_t base, uint32_t limit, uint32_t count,
                       struct part_sink *sink)
{
    struct slice bytes = read_bytes(r, PART_CHUNK_BITSET_BYTES);
    if (!r->ok)
        return ERR_CORRUPT;
    uint32_t left = count;
    for (uint32_t w = 0; w < PART_CHUNK_SERIES / 64; w++) {
        uint64_t word = get_le64(bytes.at + (size_t)w * 8);
        uint32_t ones = (uint32_t)__builtin_popcountll(word);
        if (ones == 0)
            continue;
        if (ones > left || w * 64 + 63 - (uint32_t)__builtin_clzll(word) >= limit)
            return ERR_CORRUPT;
        left -= ones;
        if (sink->bits != NULL) {
            sink->bits[base / 64 + w] |= word;
            sink->count += ones;
            continue;
        }
        for (; word != 0; word &= word - 1)
            sink->at[sink->count++] = base + w * 64 + (uint32_t)__builtin_ctzll(word);
    }
    return left == 0 ? OK : ERR_CORRUPT;
}

err part_posting_read(const struct metric_part *part, uint32_t pair, struct part_sink *sink)
{
    uint32_t field = posting_field(part, pair), count;
    if (field & PART_POSTING_SINGLE) {
        uint32_t ordinal = field & ~PART_POSTING_SINGLE;
        if (ordinal >= part->series_count)
            return ERR_CORRUPT;
        emit_run(sink, ordinal, 1);
        return OK;
    }
    TRY(part_posting_count(part, pair, &count));
    struct reader r = reader_of(slice_part(part->postings, field, part->postings.len - field));
    uint64_t chunk = 0,
             chunk_count = ((uint64_t)part->series_count + PART_CHUNK_SERIES - 1) / PART_CHUNK_SERIES;
    read_varint(&r);
    for (uint64_t left = count; left > 0; chunk++) {
        uint64_t skip = read_varint(&r), head = read_varint(&r), here = (head >> 2) + 1;
        if (!r.ok || skip >= chunk_count || chunk + skip >= chunk_count || here > left ||
            here > PART_CHUNK_SERIES)
            return ERR_CORRUPT;
        chunk += skip;
        uint32_t base = (uint32_t)chunk * PART_CHUNK_SERIES;
        uint32_t limit =
            part->series_count - base < PART_CHUNK_SERIES ? part->series_count - base : PART_CHUNK_SERIES;
        switch (head & 3) {
        case CONTAINER_DELTAS:
            TRY(read_deltas(&r, base, limit, (uint32_t)here, sink));
            break;
        case CONTAINER_RUNS:
            TRY(read_runs(&r, base, limit, (uint32_t)here, sink));
            break;
        case CONTAINER_BITSET:
            TRY(read_bitset(&r, base, limit, (uint32_t)here, sink));
            break;
        default:
            return ERR_CORRUPT;
        }
        left -= here;
    }
    return OK;
}

/* ---- verification ---- */

static err verify_order(const struct metric_part *part)
{
    struct slice before = slice_of("", 0), text;
    for (uint32_t i = 0; i < part->symbol_count; i++) {
        TRY(symbol_of(part, i, &text));
        if (i > 0 && slice_compare(before, text) >= 0)
            return ERR_CORRUPT;
        before = text;
    }
    uint32_t expected = 0;
    for (uint32_t name = 0; name < part->name_count; name++) {
        const uint8_t *at = part->names.at + (size_t)name * PART_NAME_BYTES;
        uint32_t from, to;
        TRY(part_name_pairs(part, name, &from, &to));
        if (from != expected || from == to || get_le32(at) >= part->symbol_count ||
            (name > 0 && get_le32(at) <= get_le32(at - PART_NAME_BYTES)))
            return ERR_CORRUPT;
        for (uint32_t pair = from; pair < to; pair++) {
            const uint8_t *p = part->pairs.at + (size_t)pair * PART_PAIR_BYTES;
            if (get_le32(p) >= part->symbol_count ||
                (pair > from && get_le32(p) <= get_le32(p - PART_PAIR_BYTES)))
                return ERR_CORRUPT;
        }
        expected = to;
    }
    return expected == part->pair_count ? OK : ERR_CORRUPT;
}

/* Counts of pairs by walking the series against the posting lists, and every posting against its series
 * by a sum that depends on both. */
err metric_part_verify(const struct metric_part *part, struct pool *scratch)
{
    TRY(verify_order(part));
    struct metric_part_cursor cursor;
    void *sums_at, *list_at;
    TRY(metric_part_cursor_open(part, scratch, &cursor));
    TRY(pool_zalloc(scratch, ((size_t)part->pair_count + 1) * 8, &sums_at));
    TRY(pool_alloc(scratch, ((size_t)part->series_count + 1) * 4, &list_at));
    uint64_t *sums = sums_at, total = 0;
    for (uint32_t row = 0; row < part->series_count; row++) {
        TRY(metric_part_cursor_seek(&cursor, row));
        for (uint32_t i = 0; i < cursor.count; i++)
            sums[cursor.pairs[i]] += hash_mix(row + UINT64_C(1));
        total += cursor.count;
    }
    if (total != part->posting_count)
        return ERR_CORRUPT;
    for (uint32_t name = 0; name < part->name_count; name++) {
        uint64_t series = 0;
        uint32_t from, to;
        TRY(part_name_pairs(part, name, &from, &to));
        for (uint32_t pair = from; pair < to; pair++) {
            struct part_sink sink = { .at = list_at };
            TRY(part_posting_read(part, pair, &sink));
            for (size_t i = 0; i < sink.count; i++)
                sums[pair] -= hash_mix(sink.at[i] + UINT64_C(1));
            if (sums[pair] != 0)
                return ERR_CORRUPT;
            series += sink.count;
        }
        if (series != part_name_series(part, name))
            return ERR_CORRUPT;
    }
    return OK;
}
