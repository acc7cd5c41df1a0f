/* Encoding a frozen head as a row group. See group.h and docs/format/stream-group.md.
 *
 * Rows come from the head's columns in arrival order; a counting sort by stream number brings each series' rows
 * together, still in arrival order, and its histogram tells where series begin. Series after series goes into
 * blocks; labels of series that the stream file has not seen go into the dictionary.
 *
 * Invariants
 *  1. The result depends only on the view, the stream numbers and the door's answers.
 *  2. New series are numbered in order of local number, from numbers->count.
 *  3. Nothing outside `out` and scratch changes: a failed encoding can be repeated. */
#include "metric/group.h"

#include "base/check.h"
#include "codec/lz4.h"
#include "metric/group_block.h"
#include "metric/group_format.h"
#include "metric/head_rows.h"

#include <string.h>

#define GATHER_AHEAD 16 /* rows of a series lie far apart: fetch early */

/* ---- stream numbers ---- */

void metric_stream_numbers_close(struct metric_stream_numbers *numbers)
{
    pool_block_free(numbers->pool, numbers->number_of_local);
    *numbers = (struct metric_stream_numbers){ .pool = numbers->pool };
}

uint32_t metric_stream_number(const struct metric_stream_numbers *numbers, uint32_t local)
{
    return local < numbers->local_capacity ? numbers->number_of_local[local] : METRIC_ROW_NONE;
}

err metric_stream_numbers_add(struct metric_stream_numbers *numbers, uint32_t local)
{
    if (numbers->count == UINT32_MAX - 1)
        return ERR_LIMIT;
    if (local != METRIC_ROW_NONE && local >= numbers->local_capacity) {
        size_t old = numbers->local_capacity;
        TRY(pool_block_reserve(numbers->pool, (void **)&numbers->number_of_local, sizeof(uint32_t),
                               (size_t)local + 1, &numbers->local_capacity));
        memset(numbers->number_of_local + old, 0xff, (numbers->local_capacity - old) * sizeof(uint32_t));
    }
    if (local != METRIC_ROW_NONE)
        numbers->number_of_local[local] = numbers->count;
    numbers->count++;
    return OK;
}

/* ---- sorting ---- */

struct encoder {
    const struct metric_head_view *view;
    const struct metric_series_door *door;
    struct pool *scratch;
    struct metric_group_result *result;
    struct sum sum;
    bool any_start; /* some row of the head has a start time */
    uint32_t first_new;
    uint32_t number_count;     /* of the file, with the new ones */
    uint32_t local_count;      /* one more than the largest local in the view */
    uint32_t *number_of;       /* by local */
    uint32_t *local_of;        /* by number; METRIC_ROW_NONE: not in this group */
    uint32_t *owners[3];       /* whose each row of a kind is: locals, from sort_rows on numbers */
    uint32_t *rows, *row_from; /* row indexes sorted by number; where a number's begin */
    uint32_t *histograms, *histogram_from;
};

/* Kinds of rows. */
enum { KIND_FLOAT, KIND_HISTOGRAM, KIND_EXEMPLAR, KIND_COUNT };

static err alloc_u32(struct pool *pool, size_t count, int fill, uint32_t **out)
{
    void *at;
    TRY(pool_alloc(pool, (count + 1) * sizeof(uint32_t), &at));
    memset(at, fill, (count + 1) * sizeof(uint32_t));
    *out = at;
    return OK;
}

/* The locals of all float rows, chunk by chunk; the largest of them. Later passes walk 4 bytes a row, not 24. */
static uint32_t read_row_locals(const struct metric_head *head, uint32_t count, uint32_t *locals)
{
    uint32_t local_max = 0;
    for (uint32_t row = 0; row < count;) {
        const struct head_row *r = head_row_of(head, row);
        uint32_t here = HEAD_CHUNK_ROWS - row % HEAD_CHUNK_ROWS;
        here = here < count - row ? here : count - row;
        for (uint32_t i = 0; i < here; i++) {
            locals[row + i] = r[i].local;
            local_max = r[i].local > local_max ? r[i].local : local_max;
        }
        row += here;
    }
    return local_max;
}

static err read_locals(struct encoder *x, const uint32_t counts[KIND_COUNT])
{
    const struct metric_head *head = x->view->head;
    for (int kind = 0; kind < KIND_COUNT; kind++)
        TRY(alloc_u32(x->scratch, counts[kind], 0, &x->owners[kind]));
    uint32_t local_max = read_row_locals(head, counts[KIND_FLOAT], x->owners[KIND_FLOAT]);
    for (int kind = KIND_HISTOGRAM; kind < KIND_COUNT; kind++)
        for (uint32_t row = 0; row < counts[kind]; row++) {
            uint32_t local = kind == KIND_HISTOGRAM ? head_histogram_of(head, row)->local
                                                    : head_exemplar_of(head, row)->series;
            x->owners[kind][row] = local;
            local_max = local > local_max ? local : local_max;
        }
    x->local_count = local_max + 1;
    return OK;
}

static err number_series(struct encoder *x, const struct metric_stream_numbers *numbers)
{
    const struct metric_head_view *view = x->view;
    const uint32_t counts[KIND_COUNT] = { view->row_count, view->histogram_count, view->exemplar_count };
    TRY(read_locals(x, counts));
    TRY(alloc_u32(x->scratch, x->local_count, 0xff, &x->number_of));
    for (int kind = 0; kind < KIND_COUNT; kind++)
        for (uint32_t row = 0; row < counts[kind]; row++)
            x->number_of[x->owners[kind][row]] = 0; /* is in the group */
    uint32_t new_count = 0;
    for (uint32_t local = 0; local < x->local_count; local++)
        new_count += x->number_of[local] == 0 && metric_stream_number(numbers, local) == METRIC_ROW_NONE;
    if ((uint64_t)numbers->count + new_count >= UINT32_MAX)
        return ERR_LIMIT;
    x->first_new = numbers->count;
    x->number_count = numbers->count + new_count;
    TRY(alloc_u32(x->scratch, new_count, 0, &x->result->new_locals));
    TRY(alloc_u32(x->scratch, x->number_count, 0xff, &x->local_of));
    for (uint32_t local = 0; local < x->local_count; local++) {
        if (x->number_of[local] != 0)
            continue;
        uint32_t number = metric_stream_number(numbers, local);
        if (number == METRIC_ROW_NONE) {
            x->result->new_locals[x->result->new_count] = local;
            number = x->first_new + x->result->new_count++;
        }
        check(number < x->number_count);
        x->number_of[local] = number;
        x->local_of[number] = local;
    }
    return OK;
}

/* Stable counting sort of the rows of one kind by number. */
static err sort_rows(struct encoder *x, int kind, uint32_t count, uint32_t **out_rows, uint32_t **out_from)
{
    uint32_t *rows, *from, *owners = x->owners[kind];
    TRY(alloc_u32(x->scratch, count, 0, &rows));
    TRY(alloc_u32(x->scratch, (size_t)x->number_count + 1, 0, &from));
    for (uint32_t row = 0; row < count; row++) {
        owners[row] = x->number_of[owners[row]];
        from[owners[row] + 2]++;
    }
    for (uint32_t n = 0; n < x->number_count; n++)
        from[n + 1] += from[n];
    for (uint32_t row = 0; row < count; row++)
        rows[from[owners[row] + 1]++] = row;
    *out_rows = rows;
    *out_from = from;
    return OK;
}

/* ---- blocks ---- */

struct blocks {
    struct buf body; /* the block being filled, without its head */
    struct buf series_body;
    struct buf directory;
    uint32_t first_number;
    uint32_t series, rows, rows_max, histograms_max;
    uint32_t block_count;
};

static void finish_block(struct blocks *b, size_t base, struct buf *out)
{
    if (b->series == 0)
        return;
    size_t from = out->len;
    buf_put_le32(out, 0);
    buf_put_varint(out, b->series);
    buf_put_varint(out, b->rows_max);
    buf_put_varint(out, b->histograms_max);
    buf_put_slice(out, buf_slice(&b->body));
    if (buf_err(out) == OK)
        put_le32(out->at + from, crc32c(slice_of(out->at + from + 4, out->len - from - 4), 0));
    buf_put_le32(&b->directory, b->first_number);
    buf_put_le32(&b->directory, (uint32_t)(from - base));
    buf_put_le32(&b->directory, (uint32_t)(out->len - from));
    buf_clear(&b->body);
    b->series = b->rows = b->rows_max = b->histograms_max = 0;
    b->block_count++;
}

/* Gather a series' rows from the head. */
static void gather_rows(const struct encoder *x, uint32_t number, struct group_rows *rows)
{
    const struct metric_head *head = x->view->head;
    uint32_t from = x->row_from[number], count = x->row_from[number + 1] - from;
    uint32_t h_from = x->histogram_from[number], h_count = x->histogram_from[number + 1] - h_from;
    rows->number = number;
    rows->row_count = count;
    rows->histogram_count = h_count;
    rows->has_starts = false;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t row = x->rows[from + i], ahead = from + i + GATHER_AHEAD;
        if (ahead < x->view->row_count)
            __builtin_prefetch(head_row_of(head, x->rows[ahead]));
        const struct head_row *r = head_row_of(head, row);
        rows->t_ms[i] = r->t_ms;
        rows->bits[i] = r->bits;
    }
    for (uint32_t i = 0; i < count && x->any_start; i++) {
        uint32_t row = x->rows[from + i];
        rows->start_ms[i] = head_start_ms(head_chunk_of(head, row), row);
        rows->has_starts |= rows->start_ms[i] != 0;
    }
    for (uint32_t k = 0, i = 0; k < h_count; k++) {
        const struct head_histogram *h = head_histogram_of(head, x->histograms[h_from + k]);
        while (i < count && x->rows[from + i] < h->rows_before)
            i++;
        rows->histograms[k] = (struct metric_group_histogram){
            .before = i, .t_ms = h->t_ms, .start_ms = h->start_ms, .bytes = h->bytes
        };
    }
}

static void widen(struct time_range *range, const struct group_rows *rows)
{
    for (uint32_t i = 0; i < rows->row_count; i++) {
        range->min_ms = rows->t_ms[i] < range->min_ms ? rows->t_ms[i] : range->min_ms;
        range->max_ms = rows->t_ms[i] > range->max_ms ? rows->t_ms[i] : range->max_ms;
    }
    for (uint32_t i = 0; i < rows->histogram_count; i++) {
        int64_t t_ms = rows->histograms[i].t_ms;
        range->min_ms = t_ms < range->min_ms ? t_ms : range->min_ms;
        range->max_ms = t_ms > range->max_ms ? t_ms : range->max_ms;
    }
}

static err alloc_rows(struct pool *pool, uint32_t rows_max, uint32_t histograms_max, struct group_rows *out)
{
    void *t, *bits, *start, *integers, *histograms;
    TRY(pool_alloc(pool, ((size_t)rows_max + 1) * 8, &t));
    TRY(pool_alloc(pool, ((size_t)rows_max + 1) * 8, &bits));
    TRY(pool_alloc(pool, ((size_t)rows_max + 1) * 8, &start));
    TRY(pool_alloc(pool, ((size_t)rows_max + 1) * 8, &integers));
    TRY(pool_alloc(pool, ((size_t)histograms_max + 1) * sizeof *out->histograms, &histograms));
    *out = (struct group_rows){
        .t_ms = t, .bits = bits, .start_ms = start, .integers = integers, .histograms = histograms
    };
    return OK;
}

static err put_blocks(struct encoder *x, struct blocks *b, size_t base, struct buf *out)
{
    uint32_t rows_max = 0, histograms_max = 0, present = 0;
    for (uint32_t n = 0; n < x->number_count; n++) {
        uint32_t rows = x->row_from[n + 1] - x->row_from[n];
        uint32_t histograms = x->histogram_from[n + 1] - x->histogram_from[n];
        rows_max = rows > rows_max ? rows : rows_max;
        histograms_max = histograms > histograms_max ? histograms : histograms_max;
    }
    struct group_rows sides[2];
    TRY(alloc_rows(x->scratch, rows_max, histograms_max, &sides[0]));
    TRY(alloc_rows(x->scratch, rows_max, histograms_max, &sides[1]));
    for (uint32_t n = 0; n < x->number_count; n++) {
        if (x->row_from[n + 1] == x->row_from[n] && x->histogram_from[n + 1] == x->histogram_from[n])
            continue;
        struct group_rows *rows = &sides[present % 2], *before = &sides[present % 2 ^ 1];
        gather_rows(x, n, rows);
        widen(&x->result->range, rows);
        if (b->series == 0)
            b->first_number = n;
        group_series_encode(rows, b->series == 0 ? NULL : before, &b->series_body, &b->body);
        present++;
        b->series++;
        b->rows += rows->row_count + rows->histogram_count;
        b->rows_max = rows->row_count > b->rows_max ? rows->row_count : b->rows_max;
        b->histograms_max =
            rows->histogram_count > b->histograms_max ? rows->histogram_count : b->histograms_max;
        TRY(buf_err(&b->body));
        if (b->series == GROUP_BLOCK_SERIES || b->rows >= GROUP_BLOCK_ROWS)
            finish_block(b, base, out);
    }
    finish_block(b, base, out);
    x->result->series_count = present;
    TRY(buf_err(out));
    return buf_err(&b->directory);
}

/* ---- dictionary ---- */

static err finish_chunk(struct buf *chunk, uint32_t entry_count, struct buf *out)
{
    if (entry_count == 0)
        return OK;
    size_t from = out->len;
    buf_put_le32(out, 0);
    buf_put_le32(out, (uint32_t)chunk->len);
    buf_put_le32(out, 0);
    buf_put_le32(out, entry_count);
    TRY(buf_err(out));
    size_t body = out->len;
    err e = lz4_block_encode(buf_slice(chunk), out);
    if (e == ERR_FULL)
        buf_put_slice(out, buf_slice(chunk));
    else if (e != OK)
        return e;
    TRY(buf_err(out));
    put_le32(out->at + from + 8, (uint32_t)(out->len - body));
    put_le32(out->at + from, crc32c(slice_of(out->at + from + 4, out->len - from - 4), 0));
    buf_clear(chunk);
    return OK;
}

/* Labels of the new series: tenant, what is shared with the series before, the rest; chunk by chunk through
 * LZ4. */
static err put_dictionary(const struct encoder *x, struct buf *out)
{
    err e = OK;
    struct buf chunk = buf_open(x->scratch, GROUP_CHUNK_BYTES + 2 * LABELS_BYTES_MAX);
    struct buf sides[2] = { buf_open(x->scratch, LABELS_BYTES_MAX), buf_open(x->scratch, LABELS_BYTES_MAX) };
    struct slice tenant_before = slice_of("", 0);
    uint32_t entry_count = 0;
    for (uint32_t i = 0; i < x->result->new_count; i++) {
        struct buf *labels = &sides[i % 2], *before = &sides[i % 2 ^ 1];
        struct slice tenant;
        buf_clear(labels);
        TRY_OUT(x->door->describe(x->door->context, x->result->new_locals[i], labels, &tenant));
        bool same_tenant = entry_count > 0 && slice_equal(tenant, tenant_before);
        size_t shared = entry_count == 0 ? 0 : slice_common(buf_slice(labels), buf_slice(before));
        buf_put_u8(&chunk, !same_tenant);
        if (!same_tenant)
            buf_put_string(&chunk, tenant);
        buf_put_varint(&chunk, shared);
        buf_put_string(&chunk, slice_of(labels->at + shared, labels->len - shared));
        TRY_OUT(buf_err(&chunk));
        tenant_before = tenant;
        entry_count++;
        if (chunk.len >= GROUP_CHUNK_BYTES) {
            TRY_OUT(finish_chunk(&chunk, entry_count, out));
            entry_count = 0;
        }
    }
    TRY_OUT(finish_chunk(&chunk, entry_count, out));
out:
    buf_close(&chunk);
    buf_close(&sides[0]);
    buf_close(&sides[1]);
    return e;
}

/* ---- exemplars, metadata, header ---- */

static void put_extra(const struct encoder *x, struct buf *out)
{
    const struct metric_head *head = x->view->head;
    if (x->view->exemplar_count + x->view->metadata_count == 0)
        return;
    size_t from = out->len;
    buf_put_le32(out, 0);
    for (uint32_t i = 0; i < x->view->exemplar_count; i++) {
        const struct metric_exemplar *exemplar = head_exemplar_of(head, i);
        buf_put_varint(out, x->number_of[exemplar->series]);
        buf_put_zigzag(out, exemplar->t_ms);
        buf_put_le64(out, double_bits(exemplar->value));
        buf_put_string(out, exemplar->labels);
    }
    for (uint32_t i = 0; i < x->view->metadata_count; i++) {
        const struct metric_metadata *m = head_metadata_of(head, i);
        buf_put_string(out, m->tenant);
        buf_put_u8(out, m->type);
        buf_put_string(out, m->family);
        buf_put_string(out, m->help);
        buf_put_string(out, m->unit);
    }
    if (buf_err(out) == OK)
        put_le32(out->at + from, crc32c(slice_of(out->at + from + 4, out->len - from - 4), 0));
}

struct sections {
    size_t dictionary, extra, directory, end; /* offsets from the group's begin */
};

static void put_header(const struct encoder *x, const struct blocks *b, const struct sections *s, uint8_t *at)
{
    const struct metric_group_result *r = x->result;
    memset(at, 0, GROUP_HEADER_BYTES);
    put_le32(at, GROUP_MAGIC);
    put_le16(at + 4, GROUP_VERSION);
    put_le64(at + 8, s->end);
    put_le32(at + 16, r->row_count);
    put_le32(at + 20, r->histogram_count);
    put_le32(at + 24, r->series_count);
    put_le32(at + 28, b->block_count);
    put_le32(at + 32, x->first_new);
    put_le32(at + 36, r->new_count);
    put_le64(at + 40, (uint64_t)r->range.min_ms);
    put_le64(at + 48, (uint64_t)r->range.max_ms);
    put_le64(at + 56, x->sum.count);
    put_le64(at + 64, x->sum.low);
    put_le64(at + 72, x->sum.high);
    put_le32(at + 80, x->view->exemplar_count);
    put_le32(at + 84, x->view->metadata_count);
    put_le32(at + 88, (uint32_t)s->dictionary);
    put_le32(at + 92, (uint32_t)(s->extra - s->dictionary));
    put_le32(at + 96, (uint32_t)s->extra);
    put_le32(at + 100, (uint32_t)(s->directory - s->extra));
    put_le32(at + 104, (uint32_t)s->directory);
    put_le32(at + 108, (uint32_t)(s->end - s->directory));
    put_le32(at + 124, crc32c(slice_of(at, 124), 0));
}

static err put_group(struct encoder *x, struct buf *out)
{
    err e = OK;
    size_t base = out->len;
    struct sections s;
    struct blocks b = { .body = buf_open(x->scratch, GROUP_BLOCK_BYTES_MAX),
                        .series_body = buf_open(x->scratch, GROUP_BLOCK_BYTES_MAX),
                        .directory = buf_open(x->scratch, METRIC_GROUP_BYTES_MAX) };
    uint8_t *header = buf_room(out, GROUP_HEADER_BYTES);
    if (header == NULL)
        return buf_err(out);
    memset(header, 0, GROUP_HEADER_BYTES);
    out->len += GROUP_HEADER_BYTES;
    TRY_OUT(put_blocks(x, &b, base, out));
    s.dictionary = out->len - base;
    TRY_OUT(put_dictionary(x, out));
    s.extra = out->len - base;
    put_extra(x, out);
    s.directory = out->len - base;
    buf_put_slice(out, buf_slice(&b.directory));
    buf_put_le32(out, crc32c(buf_slice(&b.directory), 0));
    TRY_OUT(buf_err(out));
    s.end = out->len - base;
    if (s.end > METRIC_GROUP_BYTES_MAX) {
        e = ERR_LIMIT;
        goto out;
    }
    put_header(x, &b, &s, out->at + base);
out:
    buf_close(&b.body);
    buf_close(&b.series_body);
    buf_close(&b.directory);
    return e;
}

err metric_group_encode(const struct metric_head_view *view, struct sum sum,
                        const struct metric_stream_numbers *numbers, const struct metric_series_door *door,
                        struct pool *scratch, struct buf *out, struct metric_group_result *out_result)
{
    struct metric_group_result result = { .row_count = view->row_count,
                                          .histogram_count = view->histogram_count,
                                          .range = { .min_ms = INT64_MAX, .max_ms = INT64_MIN } };
    struct encoder x = { .view = view, .sum = sum, .door = door, .scratch = scratch, .result = &result };
    for (uint32_t row = 0; row < view->row_count && !x.any_start; row += HEAD_CHUNK_ROWS)
        x.any_start =
            atomic_load_explicit(&head_chunk_of(view->head, row)->start_ms, memory_order_acquire) != NULL;
    TRY(number_series(&x, numbers));
    TRY(sort_rows(&x, KIND_FLOAT, view->row_count, &x.rows, &x.row_from));
    TRY(sort_rows(&x, KIND_HISTOGRAM, view->histogram_count, &x.histograms, &x.histogram_from));
    TRY(put_group(&x, out));
    *out_result = result;
    return OK;
}
