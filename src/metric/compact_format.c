/* Compact metric segments: the order of series, lists of vectors, directory granules. docs/format/compact.md.
 *
 * Invariants: 1. Bytes are read from disk: every count is bounded before it sizes or indexes anything.
 * 2. Columns are coded with the full effort, so that equal input gives equal bytes. */
#include "metric/compact_format.h"
#include "base/check.h"
#include "model/labels.h"
#include "shim/number.h"

#define LE slice_str("le")

/* The next label that is not `le`; `le`'s value on the way. */
static bool next_other(struct reader *r, struct label *label, struct slice *le)
{
    while (labels_next(r, label)) {
        if (!slice_equal(label->name, LE))
            return true;
        *le = label->value;
    }
    return false;
}

static size_t first_difference(struct slice a, struct slice b)
{
    size_t n = a.len < b.len ? a.len : b.len, i = 0;
    while (n - i >= 8 && get_le64(a.at + i) == get_le64(b.at + i))
        i += 8;
    while (i < n && a.at[i] == b.at[i])
        i++;
    return i;
}

int metric_series_compare(struct slice a, struct slice b)
{
    struct reader ra = reader_of(a), rb;
    struct slice le_a = slice_of(NULL, 0), le_b;
    struct label x, y;
    size_t same =
        first_difference(a, b); /* labels that end before it are equal: neighbours share most of them */
    for (struct reader next = ra; labels_next(&next, &x) && (size_t)(next.at - a.at) <= same; ra = next)
        if (slice_equal(x.name, LE))
            le_a = x.value;
    size_t skipped = (size_t)(ra.at - a.at);
    rb = reader_of(slice_part(b, skipped, b.len - skipped));
    le_b = le_a;
    for (;;) {
        bool more_a = next_other(&ra, &x, &le_a), more_b = next_other(&rb, &y, &le_b);
        if (!more_a || !more_b) {
            if (more_a || more_b)
                return more_a ? 1 : -1;
            break;
        }
        int order = slice_compare(x.name, y.name);
        if (order == 0)
            order = slice_compare(x.value, y.value);
        if (order != 0)
            return order;
    }
    if (le_a.len == 0 || le_b.len == 0)
        return (le_a.len != 0) - (le_b.len != 0);
    double va, vb;
    bool number_a = number_parse(le_a, false, &va), number_b = number_parse(le_b, false, &vb);
    number_a = number_a && va == va;
    number_b = number_b && vb == vb;
    if (number_a != number_b)
        return number_a ? -1 : 1;
    if (number_a && va != vb)
        return va > vb ? -1 : 1;
    return slice_compare(le_a, le_b);
}

/* Float rows of strictly ascending times, nearly all there are: no row decides anything. False: they do not
 * ascend; totals are as before. */
static bool add_plain(struct compact_totals *totals, struct hash128 series, const struct metric_rows *rows,
                      bool with_sum)
{
    struct sum sum = { 0 };
    bool ascends = true;
    for (size_t i = 1; i < rows->count; i++)
        ascends &= rows->t_ms[i - 1] < rows->t_ms[i];
    if (!ascends || !with_sum)
        return ascends;
    if (rows->start_ms == NULL)
        for (size_t i = 0; i < rows->count; i++)
            sum_add_hash(&sum, sum_row_hash(series, rows->t_ms[i], rows->value_bits[i], 0, SAMPLE_FLOAT));
    else
        for (size_t i = 0; i < rows->count; i++)
            sum_add_hash(&sum, sum_row_hash(series, rows->t_ms[i], rows->value_bits[i], rows->start_ms[i],
                                            SAMPLE_FLOAT));
    sum_add(&totals->sum, sum);
    sum_add(&totals->distinct, sum);
    return true;
}

static bool add_any(struct compact_totals *totals, struct hash128 series, const struct metric_rows *rows,
                    bool with_sum)
{
    size_t h = 0;
    for (size_t i = 0; i < rows->count; i++) {
        bool is_histogram = h < rows->histogram_count && rows->histograms[h].row == i;
        uint64_t bits = is_histogram ? sum_histogram_bits(rows->histograms[h++].bytes) : rows->value_bits[i];
        int64_t start_ms = rows->start_ms == NULL ? 0 : rows->start_ms[i];
        struct hash128 row = sum_row_hash(series, rows->t_ms[i], bits, start_ms,
                                          is_histogram ? SAMPLE_HISTOGRAM : SAMPLE_FLOAT);
        if (i + 1 < rows->count && rows->t_ms[i + 1] < rows->t_ms[i])
            return false;
        bool repeats = i + 1 < rows->count && rows->t_ms[i + 1] == rows->t_ms[i];
        if (with_sum || repeats)
            sum_add_hash(&totals->sum, row);
        if (with_sum && !repeats)
            sum_add_hash(&totals->distinct, row);
    }
    return h == rows->histogram_count;
}

bool compact_totals_add(struct compact_totals *totals, struct hash128 series, const struct metric_rows *rows,
                        bool with_sum)
{
    check(rows->count >= 1);
    int64_t first_ms = rows->t_ms[0], last_ms = rows->t_ms[rows->count - 1];
    totals->time.min_ms = first_ms < totals->time.min_ms ? first_ms : totals->time.min_ms;
    totals->time.max_ms = last_ms > totals->time.max_ms ? last_ms : totals->time.max_ms;
    return (rows->histogram_count == 0 && add_plain(totals, series, rows, with_sum)) ||
           add_any(totals, series, rows, with_sum);
}

void compact_vectors_put(const uint64_t *values, size_t rows, bool is_float, enum codec_effort effort,
                         struct buf *out)
{
    check(rows >= 1 && rows <= METRIC_COMPACT_PART_ROWS_MAX);
    size_t k = compact_vector_count(rows), ends = out->len;
    uint8_t vector[FLOAT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES];
    for (size_t i = 0; i + 1 < k; i++)
        buf_put_le16(out, 0);
    size_t start = out->len;
    for (size_t i = 0; i < k; i++) {
        const uint64_t *from = values + i * CODEC_VECTOR_COUNT_MAX;
        size_t n = i + 1 < k ? CODEC_VECTOR_COUNT_MAX : rows - i * CODEC_VECTOR_COUNT_MAX;
        buf_put(out, vector,
                is_float ? float_encode(from, n, effort, vector)
                         : int_encode((const int64_t *)from, n, effort, vector));
        if (buf_err(out) == OK && i + 1 < k)
            put_le16(out->at + ends + 2 * i, (uint16_t)(out->len - start));
    }
}

err compact_vectors_get(struct slice list, size_t rows, bool is_float, size_t from, size_t to, uint64_t *out)
{
    size_t k = compact_vector_count(rows), head = 2 * (k - 1);
    check(rows >= 1 && from < to && to <= k);
    if (list.len < head)
        return ERR_CORRUPT;
    struct slice area = slice_part(list, head, list.len - head);
    size_t at = from == 0 ? 0 : get_le16(list.at + 2 * (from - 1));
    for (size_t i = from; i < to; i++) {
        size_t n = i + 1 < k ? CODEC_VECTOR_COUNT_MAX : rows - i * CODEC_VECTOR_COUNT_MAX;
        size_t end = i + 1 < k ? get_le16(list.at + 2 * i) : area.len, used;
        if (at > end || end > area.len)
            return ERR_CORRUPT;
        struct slice vector = slice_part(area, at, end - at);
        TRY(is_float ? float_decode(vector, n, out, &used) : int_decode(vector, n, (int64_t *)out, &used));
        if (used != vector.len)
            return ERR_CORRUPT;
        at = end;
        out += n;
    }
    return OK;
}

/* Column `which` of the parts; returns how many entries it has. */
static size_t gather(const struct compact_granule *g, int which, uint32_t *column)
{
    size_t n = 0;
    for (size_t i = 0; i < g->part_count; i++) {
        const struct compact_part *p = &g->parts[i];
        switch (which) {
        case 0:
            column[n++] = p->flags;
            break;
        case 1:
            column[n++] = p->rows;
            break;
        case 2:
            column[n++] = p->bytes;
            break;
        case 3:
            column[n++] = p->timeline;
            break;
        default:
            if (p->flags & PART_SUBSET)
                column[n++] = p->first;
            break;
        }
    }
    return n;
}

err compact_granule_put(const struct compact_granule *g, struct pool *scratch, struct buf *out)
{
    check(g->series_count >= 1 && g->series_count <= COMPACT_GRANULE_SERIES);
    check(g->part_count <= COMPACT_GRANULE_PARTS_MAX);
    uint32_t *column = NULL;
    size_t count_max = g->part_count > g->series_count ? g->part_count : g->series_count;
    TRY(pool_block_resize(scratch, (void **)&column, count_max * sizeof *column));
    buf_put_le32(out, g->first_series);
    buf_put_le32(out, g->first_part);
    buf_put_le32(out, g->value_block);
    buf_put_le32(out, g->value_offset);
    buf_put_le16(out, (uint16_t)g->series_count);
    buf_put_le16(out, (uint16_t)g->part_count);
    for (size_t i = 0; i < g->series_count; i++)
        column[i] = g->part_start[i + 1] - g->part_start[i];
    ERR_IGNORE(int_column_encode_u32(column, g->series_count, CODEC_FULL, out)); /* failures stick in out */
    for (int which = 0; which < 5; which++) {
        size_t n = gather(g, which, column);
        ERR_IGNORE(int_column_encode_u32(column, n, CODEC_FULL, out));
    }
    pool_block_free(scratch, column);
    return buf_err(out);
}

/* Put a decoded column into the parts. False: a value is out of bounds. */
static bool scatter(struct compact_granule *g, int which, const uint32_t *column)
{
    struct compact_part *parts = g->parts;
    uint32_t lowest = UINT32_MAX, highest = 0;
    for (size_t i = 0; which <= 2 && i < g->part_count; i++) {
        lowest = column[i] < lowest ? column[i] : lowest;
        highest = column[i] > highest ? column[i] : highest;
    }
    switch (which) {
    case 0:
        for (size_t i = 0; i < g->part_count; i++)
            parts[i] = (struct compact_part){ .flags = (uint8_t)column[i] };
        return highest <= PART_FLAGS;
    case 1:
        for (size_t i = 0; i < g->part_count; i++)
            parts[i].rows = (uint16_t)column[i];
        return lowest > 0 && highest <= METRIC_COMPACT_PART_ROWS_MAX;
    case 2:
        for (size_t i = 0; i < g->part_count; i++)
            parts[i].bytes = column[i];
        return lowest > 0 && highest <= SEGMENT_BLOCK_BYTES_MAX;
    case 3:
        for (size_t i = 0; i < g->part_count; i++)
            parts[i].timeline = column[i];
        return true;
    default:
        for (size_t i = 0, n = 0; i < g->part_count; i++)
            if (parts[i].flags & PART_SUBSET)
                parts[i].first = column[n++];
        return true;
    }
}

static err read_columns(struct reader *r, struct compact_granule *g, uint32_t *column)
{
    TRY(int_column_decode_u32(r, g->series_count, column));
    uint64_t total = 0;
    for (size_t i = 0; i < g->series_count; i++) {
        g->part_start[i] = (uint32_t)total;
        total += column[i];
        if (column[i] == 0 || total > g->part_count)
            return ERR_CORRUPT;
    }
    g->part_start[g->series_count] = (uint32_t)total;
    if (total != g->part_count)
        return ERR_CORRUPT;
    size_t subsets = 0;
    for (int which = 0; which < 5; which++) {
        TRY(int_column_decode_u32(r, which < 4 ? g->part_count : subsets, column));
        if (!scatter(g, which, column))
            return ERR_CORRUPT;
        for (size_t i = 0; which == 0 && i < g->part_count; i++)
            subsets += (g->parts[i].flags & PART_SUBSET) != 0;
    }
    return read_left(r) == 0 ? OK : ERR_CORRUPT;
}

err compact_granule_get(struct slice bytes, struct pool *pool, struct compact_granule *g)
{
    struct reader r = reader_of(bytes);
    g->first_series = read_le32(&r);
    g->first_part = read_le32(&r);
    g->value_block = read_le32(&r);
    g->value_offset = read_le32(&r);
    g->series_count = read_le16(&r);
    g->part_count = read_le16(&r);
    if (!r.ok || g->series_count == 0 || g->series_count > COMPACT_GRANULE_SERIES ||
        g->part_count > COMPACT_GRANULE_PARTS_MAX || g->part_count < g->series_count ||
        g->value_offset > SEGMENT_BLOCK_BYTES_MAX || g->first_part > UINT32_MAX - g->part_count)
        return ERR_CORRUPT;
    uint32_t *column = NULL;
    TRY(pool_block_reserve(pool, (void **)&g->parts, sizeof *g->parts, g->part_count, &g->part_capacity));
    TRY(pool_block_resize(pool, (void **)&column, g->part_count * sizeof *column));
    err e = read_columns(&r, g, column);
    pool_block_free(pool, column);
    if (e == OK)
        compact_granule_place(g);
    return e;
}

void compact_granule_place(struct compact_granule *g)
{
    uint32_t block = g->value_block, offset = g->value_offset;
    for (size_t i = 0; i < g->part_count; i++) {
        struct compact_part *p = &g->parts[i];
        if (offset > 0 && offset + p->bytes > SEGMENT_BLOCK_BYTES) {
            block++;
            offset = 0;
        }
        p->block = block;
        p->offset = offset;
        offset += p->bytes;
    }
}
