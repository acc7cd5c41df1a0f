/* Reading row groups. See group.h and docs/format/stream-group.md.
 *
 * Bytes come from a stream file through positioned reads; what is resident is the header and 12 bytes a block.
 * A series' rows are found by its number in the directory: one read, one checksum, and the block is decoded up
 * to that series.
 *
 * Invariants
 *  1. Opening checked the header's checksum and that all sections lie inside the group, the directory ascends and
 *     its blocks lie between header and dictionary. So no read goes outside the group.
 *  2. No bytes are interpreted whose checksum was not verified; yet all numbers are bounded as if they were
 *     hostile, and memory hangs on the caller's pools. */
#include "metric/group.h"

#include "base/check.h"
#include "codec/lz4.h"
#include "metric/group_block.h"
#include "metric/group_format.h"
#include "model/labels.h"

#include <string.h>

struct block_entry {
    uint32_t first_number;
    uint32_t at;
    uint32_t len;
};

struct metric_group {
    struct pool *pool;
    struct metric_group_bytes bytes;
    struct metric_group_facts facts;
    uint32_t dictionary_at, dictionary_len;
    uint32_t extra_at, extra_len;
    uint32_t directory_at, directory_len;
    struct block_entry *blocks;
    uint32_t block_count;
};

/* Read [offset, offset + len) into arena memory. */
static err read_span(const struct metric_group *group, uint64_t offset, size_t len, struct pool *pool,
                     struct slice *out_bytes)
{
    check(offset + len <= group->bytes.len);
    void *at;
    TRY(pool_alloc(pool, len + 1, &at));
    TRY(group->bytes.read(group->bytes.context, offset, at, len));
    *out_bytes = slice_of(at, len);
    return OK;
}

/* The same for a section that begins with the CRC32C of its rest; *out_bytes is the rest. */
static err read_checked(const struct metric_group *group, uint64_t offset, size_t len, struct pool *pool,
                        struct slice *out_bytes)
{
    struct slice bytes;
    if (len < 4)
        return ERR_CORRUPT;
    TRY(read_span(group, offset, len, pool, &bytes));
    struct slice rest = slice_part(bytes, 4, len - 4);
    if (crc32c(rest, 0) != get_le32(bytes.at))
        return ERR_CORRUPT;
    *out_bytes = rest;
    return OK;
}

/* ---- open ---- */

static err read_header(struct metric_group *g)
{
    uint8_t h[GROUP_HEADER_BYTES];
    if (g->bytes.len < GROUP_HEADER_BYTES || g->bytes.len > METRIC_GROUP_BYTES_MAX)
        return ERR_CORRUPT;
    TRY(g->bytes.read(g->bytes.context, 0, h, sizeof h));
    if (get_le32(h) != GROUP_MAGIC || crc32c(slice_of(h, 124), 0) != get_le32(h + 124))
        return ERR_CORRUPT;
    if (get_le16(h + 4) != GROUP_VERSION)
        return get_le16(h + 4) > GROUP_VERSION ? ERR_VERSION : ERR_CORRUPT;
    g->facts = (struct metric_group_facts){ .sum = { get_le64(h + 56), get_le64(h + 64), get_le64(h + 72) },
                                            .range = { (int64_t)get_le64(h + 40), (int64_t)get_le64(h + 48) },
                                            .row_count = get_le32(h + 16),
                                            .histogram_count = get_le32(h + 20),
                                            .series_count = get_le32(h + 24),
                                            .first_new_number = get_le32(h + 32),
                                            .new_count = get_le32(h + 36),
                                            .exemplar_count = get_le32(h + 80),
                                            .metadata_count = get_le32(h + 84) };
    g->block_count = get_le32(h + 28);
    g->dictionary_at = get_le32(h + 88);
    g->dictionary_len = get_le32(h + 92);
    g->extra_at = get_le32(h + 96);
    g->extra_len = get_le32(h + 100);
    g->directory_at = get_le32(h + 104);
    g->directory_len = get_le32(h + 108);
    const struct metric_group_facts *f = &g->facts;
    bool sound = get_le64(h + 8) == g->bytes.len && f->row_count <= GROUP_ROWS_MAX &&
                 f->histogram_count <= GROUP_ROWS_MAX && f->series_count <= GROUP_ROWS_MAX &&
                 (uint64_t)f->first_new_number + f->new_count < UINT32_MAX &&
                 g->dictionary_at >= GROUP_HEADER_BYTES &&
                 (uint64_t)g->dictionary_at + g->dictionary_len == g->extra_at &&
                 (uint64_t)g->extra_at + g->extra_len == g->directory_at &&
                 (uint64_t)g->directory_at + g->directory_len == g->bytes.len &&
                 (uint64_t)g->block_count * GROUP_ENTRY_BYTES + 4 == g->directory_len;
    return sound ? OK : ERR_CORRUPT;
}

static err read_directory(struct metric_group *g, struct pool *scratch)
{
    struct slice bytes;
    TRY(read_span(g, g->directory_at, g->directory_len, scratch, &bytes));
    struct slice entries = slice_part(bytes, 0, bytes.len - 4);
    if (crc32c(entries, 0) != get_le32(bytes.at + entries.len))
        return ERR_CORRUPT;
    void *at;
    TRY(pool_alloc(g->pool, (size_t)g->block_count * sizeof *g->blocks + 1, &at));
    g->blocks = at;
    uint64_t end = GROUP_HEADER_BYTES;
    for (uint32_t i = 0; i < g->block_count; i++) {
        const uint8_t *e = entries.at + (size_t)i * GROUP_ENTRY_BYTES;
        struct block_entry b = { get_le32(e), get_le32(e + 4), get_le32(e + 8) };
        if (b.at != end || b.len < 4 || (uint64_t)b.at + b.len > g->dictionary_at ||
            (i > 0 && b.first_number <= g->blocks[i - 1].first_number))
            return ERR_CORRUPT;
        end = (uint64_t)b.at + b.len;
        g->blocks[i] = b;
    }
    return end == g->dictionary_at ? OK : ERR_CORRUPT;
}

err metric_group_open(struct pool *parent, const struct metric_group_bytes *bytes,
                      struct metric_group **out_group)
{
    err e = OK;
    struct pool *pool = pool_open(parent, "row group", POOL_BYTES_UNLIMITED);
    struct pool *scratch = pool_open(pool, "row group directory", POOL_BYTES_UNLIMITED);
    void *at;
    TRY_OUT(pool_zalloc(pool, sizeof(struct metric_group), &at));
    struct metric_group *group = at;
    group->pool = pool;
    group->bytes = *bytes;
    TRY_OUT(read_header(group));
    TRY_OUT(read_directory(group, scratch));
    *out_group = group;
out:
    pool_close(scratch);
    if (e != OK)
        pool_close(pool);
    return e;
}

void metric_group_close(struct metric_group *group)
{
    if (group != NULL)
        pool_close(group->pool);
}

struct metric_group_facts metric_group_facts(const struct metric_group *group) { return group->facts; }

/* ---- blocks ---- */

/* A block on its way through the decoder: two sides, so that a series can refer to the one before. */
struct block_cursor {
    struct reader r;
    uint32_t first_number;
    uint32_t series_count, done;
    uint32_t rows_max, histograms_max;
    struct group_rows sides[2];
};

static err alloc_side(struct pool *pool, uint32_t rows, uint32_t histograms, struct group_rows *out)
{
    void *at;
    TRY(pool_alloc(pool, ((size_t)rows + 1) * 24, &at));
    int64_t *columns = at;
    TRY(pool_alloc(pool, ((size_t)histograms + 1) * sizeof *out->histograms, &at));
    *out = (struct group_rows){ .t_ms = columns,
                                .bits = (uint64_t *)(columns + rows),
                                .start_ms = columns + 2 * (size_t)rows,
                                .histograms = at };
    return OK;
}

static err block_begin(const struct metric_group *g, uint32_t block, struct pool *scratch,
                       struct block_cursor *out)
{
    const struct block_entry *entry = &g->blocks[block];
    struct slice bytes;
    TRY(read_checked(g, entry->at, entry->len, scratch, &bytes));
    struct block_cursor c = { .r = reader_of(bytes), .first_number = entry->first_number };
    uint64_t series = read_varint(&c.r), rows = read_varint(&c.r), histograms = read_varint(&c.r);
    if (!c.r.ok || series == 0 || series > GROUP_BLOCK_SERIES || rows > g->facts.row_count ||
        histograms > g->facts.histogram_count)
        return ERR_CORRUPT;
    c.series_count = (uint32_t)series;
    c.rows_max = (uint32_t)rows;
    c.histograms_max = (uint32_t)histograms;
    TRY(alloc_side(scratch, c.rows_max, c.histograms_max, &c.sides[0]));
    TRY(alloc_side(scratch, c.rows_max, c.histograms_max, &c.sides[1]));
    *out = c;
    return OK;
}

/* The next series of the block: its head, the caller wants the body or not. ERR_END behind the last. Valid until
 * the call after the next. */
static err block_next(struct block_cursor *c, struct group_rows **out_rows)
{
    if (c->done == c->series_count)
        return c->r.at == c->r.end ? ERR_END : ERR_CORRUPT;
    struct group_rows *rows = &c->sides[c->done % 2];
    TRY(group_series_head(&c->r, c->done == 0 ? NULL : &c->sides[c->done % 2 ^ 1], c->first_number,
                          c->rows_max, c->histograms_max, rows));
    c->done++;
    *out_rows = rows;
    return OK;
}

/* ---- one series ---- */

/* The block that may hold a number; block_count when none does. */
static uint32_t find_block(const struct metric_group *g, uint32_t number)
{
    uint32_t from = 0, to = g->block_count;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (g->blocks[middle].first_number <= number)
            from = middle + 1;
        else
            to = middle;
    }
    return from == 0 ? g->block_count : from - 1;
}

static bool in_range(int64_t t_ms, struct time_range range)
{
    return t_ms >= range.min_ms && t_ms <= range.max_ms;
}

/* Append rows to columns, floats and histograms in the order of arrival. */
static err add_rows(const struct group_rows *rows, struct time_range range, struct sample_columns *columns)
{
    TRY(sample_columns_reserve(columns, (size_t)rows->row_count + rows->histogram_count));
    for (uint32_t i = 0, h = 0; i < rows->row_count || h < rows->histogram_count;) {
        if (h < rows->histogram_count && rows->histograms[h].before <= i) {
            const struct metric_group_histogram *x = &rows->histograms[h++];
            struct slice copy;
            if (!in_range(x->t_ms, range))
                continue;
            TRY(pool_copy(columns->pool, x->bytes, &copy));
            TRY(sample_columns_add_histogram(columns, x->t_ms, copy, x->start_ms));
            continue;
        }
        int64_t t_ms = rows->t_ms[i];
        if (in_range(t_ms, range)) {
            int64_t start_ms = rows->has_starts ? rows->start_ms[i] : 0;
            if (start_ms != 0 || columns->start_ms != NULL) {
                TRY(sample_columns_add(columns, t_ms, bits_double(rows->bits[i]), start_ms));
            } else {
                columns->t_ms[columns->count] = t_ms;
                columns->values[columns->count++] = bits_double(rows->bits[i]);
            }
        }
        i++;
    }
    return OK;
}

err metric_group_read(const struct metric_group *group, uint32_t number, struct time_range range,
                      struct pool *scratch, struct sample_columns *columns)
{
    uint32_t block = find_block(group, number);
    if (block == group->block_count || range.min_ms > group->facts.range.max_ms ||
        range.max_ms < group->facts.range.min_ms)
        return OK;
    struct block_cursor cursor;
    struct group_rows *rows;
    TRY(block_begin(group, block, scratch, &cursor));
    for (;;) {
        err e = block_next(&cursor, &rows);
        if (e == ERR_END)
            return OK;
        if (e != OK)
            return e;
        if (rows->number >= number)
            break;
    }
    if (rows->number > number)
        return OK;
    TRY(group_series_body(rows));
    size_t count = columns->count, histogram_count = columns->histogram_count;
    err e = add_rows(rows, range, columns);
    if (e != OK) {
        columns->count = count;
        columns->histogram_count = histogram_count;
    }
    return e;
}

/* ---- many series ---- */

/* A series in decoded rows. */
struct rows_series {
    uint32_t number;
    uint32_t first, count; /* of the times and values */
    uint32_t is_other;     /* has what decoded rows do not keep */
};

uint32_t metric_group_block_find(const struct metric_group *group, uint32_t number)
{
    return find_block(group, number);
}

uint32_t metric_group_block_count(const struct metric_group *group) { return group->block_count; }

static const struct rows_series *rows_series_of(const struct metric_group_rows *rows)
{
    return (const struct rows_series *)(rows + 1);
}

/* Columns under way: blocks of scratch, as the header's largest count is per series. */
struct rows_draft {
    struct rows_series series[GROUP_BLOCK_SERIES];
    uint32_t series_count;
    struct sample_columns columns;
};

static err draft_add(struct rows_draft *draft, struct group_rows *rows, struct time_range range)
{
    struct sample_columns *c = &draft->columns;
    TRY(group_series_body(rows));
    struct rows_series *s = &draft->series[draft->series_count++];
    *s = (struct rows_series){ .number = rows->number, .first = (uint32_t)c->count };
    s->is_other = rows->has_starts || rows->histogram_count > 0;
    if (!s->is_other)
        TRY(add_rows(rows, range, c));
    s->count = (uint32_t)c->count - s->first;
    if (s->count == 0 && !s->is_other)
        draft->series_count--;
    return OK;
}

static err draft_finish(const struct rows_draft *draft, struct pool *pool,
                        struct metric_group_rows **out_rows)
{
    size_t series_bytes = draft->series_count * sizeof *draft->series, n = draft->columns.count;
    size_t bytes = sizeof(struct metric_group_rows) + series_bytes + n * 16;
    void *at;
    TRY(pool_alloc(pool, bytes, &at));
    struct metric_group_rows *rows = at;
    *rows = (struct metric_group_rows){ .bytes = bytes,
                                        .series_count = draft->series_count,
                                        .row_count = (uint32_t)n };
    uint8_t *to = (uint8_t *)(rows + 1);
    memcpy(to, draft->series, series_bytes);
    if (n > 0) {
        memcpy(to + series_bytes, draft->columns.t_ms, n * 8);
        memcpy(to + series_bytes + n * 8, draft->columns.values, n * 8);
    }
    *out_rows = rows;
    return OK;
}

err metric_group_block_load(const struct metric_group *group, uint32_t block, const uint64_t *wanted,
                            uint32_t wanted_count, struct time_range range, struct pool *scratch,
                            struct metric_group_rows **out_rows)
{
    check(block < group->block_count);
    struct block_cursor cursor;
    struct group_rows *rows;
    TRY(block_begin(group, block, scratch, &cursor));
    struct rows_draft draft = { .series_count = 0, .columns = sample_columns_open(scratch) };
    err e = OK;
    while (e == OK && (e = block_next(&cursor, &rows)) == OK)
        if (rows->number < wanted_count && (wanted[rows->number / 64] >> rows->number % 64 & 1) != 0)
            e = draft_add(&draft, rows, range);
    if (e == ERR_END)
        e = draft_finish(&draft, scratch, out_rows);
    sample_columns_close(&draft.columns);
    return e;
}

err metric_group_rows_add(const struct metric_group_rows *rows, uint32_t number,
                          struct sample_columns *columns, bool *out_other)
{
    const struct rows_series *series = rows_series_of(rows);
    uint32_t low = 0, high = rows->series_count;
    *out_other = false;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (series[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == rows->series_count || series[low].number != number)
        return OK;
    const struct rows_series *s = &series[low];
    *out_other = s->is_other != 0;
    if (s->is_other || s->count == 0)
        return OK;
    TRY(sample_columns_reserve(columns, s->count));
    const int64_t *t_ms = (const int64_t *)(series + rows->series_count);
    const double *values = (const double *)(t_ms + rows->row_count);
    memcpy(columns->t_ms + columns->count, t_ms + s->first, s->count * sizeof *t_ms);
    memcpy(columns->values + columns->count, values + s->first, s->count * sizeof *values);
    if (columns->start_ms != NULL)
        memset(columns->start_ms + columns->count, 0, s->count * sizeof *columns->start_ms);
    columns->count += s->count;
    return OK;
}

/* ---- walk ---- */

struct metric_group_walk {
    const struct metric_group *group;
    struct pool *pool;
    struct pool *block_pool;
    uint32_t next_block;
    struct block_cursor cursor; /* series_count 0: no block is open */
    uint64_t number_min;        /* numbers ascend over blocks, too */
};

err metric_group_walk_open(const struct metric_group *group, struct pool *parent,
                           struct metric_group_walk **out_walk)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(parent, "row group walk", sizeof(struct metric_group_walk), &pool, &at));
    struct metric_group_walk *walk = at;
    walk->group = group;
    walk->pool = pool;
    walk->block_pool = pool_open(pool, "row group block", POOL_BYTES_UNLIMITED);
    *out_walk = walk;
    return OK;
}

void metric_group_walk_close(struct metric_group_walk *walk)
{
    if (walk == NULL)
        return;
    struct pool *pool = walk->pool;
    pool_close(walk->block_pool);
    pool_close(pool);
}

err metric_group_walk_next(struct metric_group_walk *walk, struct metric_group_series *out_series)
{
    struct group_rows *rows = NULL;
    err e = walk->cursor.series_count == 0 ? ERR_END : block_next(&walk->cursor, &rows);
    while (e == ERR_END) {
        if (walk->next_block == walk->group->block_count)
            return ERR_END;
        pool_reset(walk->block_pool);
        walk->cursor.series_count = 0;
        TRY(block_begin(walk->group, walk->next_block, walk->block_pool, &walk->cursor));
        walk->next_block++;
        e = block_next(&walk->cursor, &rows);
    }
    if (e != OK)
        return e;
    if (rows->number < walk->number_min)
        return ERR_CORRUPT;
    walk->number_min = rows->number + UINT64_C(1);
    TRY(group_series_body(rows));
    *out_series = (struct metric_group_series){ .number = rows->number,
                                                .t_ms = rows->t_ms,
                                                .value_bits = rows->bits,
                                                .start_ms = rows->has_starts ? rows->start_ms : NULL,
                                                .row_count = rows->row_count,
                                                .histograms = rows->histograms,
                                                .histogram_count = rows->histogram_count };
    return OK;
}

err metric_group_count(const struct metric_group *group, struct pool *parent, uint64_t *row_counts,
                       uint32_t number_count)
{
    struct pool *scratch = pool_open(parent, "row group block", POOL_BYTES_UNLIMITED);
    err e = OK;
    for (uint32_t block = 0; block < group->block_count; block++) {
        struct block_cursor cursor;
        struct group_rows *rows;
        pool_reset(scratch);
        TRY_OUT(block_begin(group, block, scratch, &cursor));
        while ((e = block_next(&cursor, &rows)) == OK) {
            if (rows->number >= number_count)
                TRY_OUT(ERR_CORRUPT);
            row_counts[rows->number] += (uint64_t)rows->row_count + rows->histogram_count;
        }
        if (e != ERR_END)
            goto out;
        e = OK;
    }
out:
    pool_close(scratch);
    return e;
}

/* ---- dictionary ---- */

/* One chunk of the dictionary, decoded into arena memory. *at moves behind it. */
static err read_chunk(const struct metric_group *g, uint64_t *at, struct pool *scratch,
                      struct slice *out_bytes, uint32_t *out_entries)
{
    uint64_t end = (uint64_t)g->dictionary_at + g->dictionary_len;
    struct slice head, bytes;
    if (end - *at < GROUP_CHUNK_HEADER_BYTES)
        return ERR_CORRUPT;
    TRY(read_span(g, *at, GROUP_CHUNK_HEADER_BYTES, scratch, &head));
    uint32_t decoded = get_le32(head.at + 4), stored = get_le32(head.at + 8);
    if (stored > end - *at - GROUP_CHUNK_HEADER_BYTES || decoded > GROUP_CHUNK_BYTES + 2 * LABELS_BYTES_MAX ||
        stored > decoded)
        return ERR_CORRUPT;
    TRY(read_checked(g, *at, (size_t)GROUP_CHUNK_HEADER_BYTES + stored, scratch, &bytes));
    bytes = slice_part(bytes, GROUP_CHUNK_HEADER_BYTES - 4, stored);
    if (stored != decoded) {
        void *plain;
        TRY(pool_alloc(scratch, (size_t)decoded + 1, &plain));
        TRY(lz4_block_decode(bytes, plain, decoded));
        bytes = slice_of(plain, decoded);
    }
    *out_entries = get_le32(head.at + 12);
    *out_bytes = bytes;
    *at += GROUP_CHUNK_HEADER_BYTES + stored;
    return OK;
}

struct dictionary_state {
    struct buf labels;   /* of the entry before */
    struct slice tenant; /* borrows the chunk */
    uint32_t number;
};

static err read_entries(struct slice chunk, uint32_t entry_count, struct dictionary_state *s,
                        err (*entry)(void *context, uint32_t number, struct slice tenant,
                                     struct slice labels),
                        void *context)
{
    struct reader r = reader_of(chunk);
    for (uint32_t i = 0; i < entry_count; i++) {
        uint8_t new_tenant = read_u8(&r);
        if (new_tenant > 1 || (i == 0 && new_tenant == 0))
            return ERR_CORRUPT;
        if (new_tenant == 1)
            s->tenant = read_string(&r);
        uint64_t shared = read_varint(&r);
        struct slice rest = read_string(&r);
        if (!r.ok || shared > s->labels.len || s->tenant.len > TENANT_BYTES_MAX ||
            rest.len > LABELS_BYTES_MAX - shared)
            return ERR_CORRUPT;
        s->labels.len = (size_t)shared;
        buf_put_slice(&s->labels, rest);
        TRY(buf_err(&s->labels));
        if (labels_check(buf_slice(&s->labels), NULL) != OK)
            return ERR_CORRUPT;
        TRY(entry(context, s->number, s->tenant, buf_slice(&s->labels)));
        s->number++;
    }
    return r.ok && r.at == r.end ? OK : ERR_CORRUPT;
}

err metric_group_dictionary(const struct metric_group *group, struct pool *scratch,
                            err (*entry)(void *context, uint32_t number, struct slice tenant,
                                         struct slice labels),
                            void *context)
{
    err e = OK;
    const struct metric_group_facts *f = &group->facts;
    struct pool *pool = pool_open(scratch, "row group dictionary", POOL_BYTES_UNLIMITED);
    struct dictionary_state s = { .labels = buf_open(scratch, LABELS_BYTES_MAX),
                                  .number = f->first_new_number };
    uint64_t at = group->dictionary_at;
    while (at < (uint64_t)group->dictionary_at + group->dictionary_len) {
        struct slice chunk;
        uint32_t entry_count;
        pool_reset(pool);
        buf_clear(&s.labels);
        TRY_OUT(read_chunk(group, &at, pool, &chunk, &entry_count));
        if (entry_count > f->first_new_number + f->new_count - s.number) {
            e = ERR_CORRUPT;
            goto out;
        }
        TRY_OUT(read_entries(chunk, entry_count, &s, entry, context));
    }
    if (s.number != f->first_new_number + f->new_count)
        e = ERR_CORRUPT;
out:
    buf_close(&s.labels);
    pool_close(pool);
    return e;
}

/* ---- exemplars and metadata ---- */

static err read_extra(const struct metric_group *g, struct pool *pool, struct reader *out_reader)
{
    struct slice bytes = slice_of("", 0);
    if (g->facts.exemplar_count + (uint64_t)g->facts.metadata_count > g->extra_len)
        return ERR_CORRUPT; /* each takes several bytes */
    if (g->extra_len > 0)
        TRY(read_checked(g, g->extra_at, g->extra_len, pool, &bytes));
    *out_reader = reader_of(bytes);
    return OK;
}

static err read_exemplars(struct reader *r, uint32_t count, struct metric_exemplar *list)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t number = read_varint(r);
        int64_t t_ms = read_zigzag(r);
        double value = bits_double(read_le64(r));
        struct slice labels = read_string(r);
        if (!r->ok || number >= UINT32_MAX)
            return ERR_CORRUPT;
        list[i] = (struct metric_exemplar){
            .series = (uint32_t)number, .t_ms = t_ms, .value = value, .labels = labels
        };
    }
    return OK;
}

err metric_group_exemplars(const struct metric_group *group, struct pool *pool,
                           struct metric_exemplar **out_exemplars, size_t *out_count)
{
    struct reader r;
    void *at;
    TRY(read_extra(group, pool, &r));
    TRY(pool_alloc(pool, ((size_t)group->facts.exemplar_count + 1) * sizeof(struct metric_exemplar), &at));
    TRY(read_exemplars(&r, group->facts.exemplar_count, at));
    *out_exemplars = at;
    *out_count = group->facts.exemplar_count;
    return OK;
}

err metric_group_metadata(const struct metric_group *group, struct pool *pool,
                          struct metric_metadata **out_metadata, size_t *out_count)
{
    struct reader r;
    void *at;
    TRY(read_extra(group, pool, &r));
    TRY(pool_alloc(pool, ((size_t)group->facts.exemplar_count + 1) * sizeof(struct metric_exemplar), &at));
    TRY(read_exemplars(&r, group->facts.exemplar_count, at));
    TRY(pool_alloc(pool, ((size_t)group->facts.metadata_count + 1) * sizeof(struct metric_metadata), &at));
    struct metric_metadata *list = at;
    for (uint32_t i = 0; i < group->facts.metadata_count; i++) {
        struct metric_metadata *m = &list[i];
        m->tenant = read_string(&r);
        m->type = read_u8(&r);
        m->family = read_string(&r);
        m->help = read_string(&r);
        m->unit = read_string(&r);
    }
    if (!r.ok || r.at != r.end)
        return ERR_CORRUPT;
    *out_metadata = list;
    *out_count = group->facts.metadata_count;
    return OK;
}

/* ---- verification ---- */

static err pass_entry(void *context, uint32_t number, struct slice tenant, struct slice labels) { return OK; }

struct totals {
    struct sum sum;
    uint64_t rows, histograms, series;
    struct time_range range;
};

static void widen(struct time_range *range, int64_t t_ms)
{
    range->min_ms = t_ms < range->min_ms ? t_ms : range->min_ms;
    range->max_ms = t_ms > range->max_ms ? t_ms : range->max_ms;
}

static void add_totals(const struct metric_group_series *s, struct hash128 series, struct totals *totals)
{
    for (size_t i = 0; i < s->row_count; i++) {
        widen(&totals->range, s->t_ms[i]);
        sum_add_hash(&totals->sum, sum_row_hash(series, s->t_ms[i], s->value_bits[i],
                                                s->start_ms == NULL ? 0 : s->start_ms[i], SAMPLE_FLOAT));
    }
    for (size_t i = 0; i < s->histogram_count; i++) {
        const struct metric_group_histogram *h = &s->histograms[i];
        widen(&totals->range, h->t_ms);
        sum_add_hash(&totals->sum, sum_row_hash(series, h->t_ms, sum_histogram_bits(h->bytes), h->start_ms,
                                                SAMPLE_HISTOGRAM));
    }
    totals->rows += s->row_count;
    totals->histograms += s->histogram_count;
    totals->series++;
}

err metric_group_verify(const struct metric_group *group, struct pool *scratch,
                        struct hash128 (*fingerprint)(void *context, uint32_t number), void *context)
{
    const struct metric_group_facts *f = &group->facts;
    struct totals totals = { .range = { INT64_MAX, INT64_MIN } };
    struct metric_group_walk *walk;
    struct metric_group_series series;
    struct metric_metadata *metadata;
    size_t count;
    err e;
    TRY(metric_group_walk_open(group, scratch, &walk));
    while ((e = metric_group_walk_next(walk, &series)) == OK) {
        struct hash128 none = { 0 };
        add_totals(&series, fingerprint == NULL ? none : fingerprint(context, series.number), &totals);
    }
    metric_group_walk_close(walk);
    if (e != ERR_END)
        return e;
    if (totals.rows != f->row_count || totals.histograms != f->histogram_count ||
        totals.series != f->series_count || totals.range.min_ms != f->range.min_ms ||
        totals.range.max_ms != f->range.max_ms || totals.sum.count != f->sum.count ||
        (fingerprint != NULL && !sum_equal(totals.sum, f->sum)))
        return ERR_CORRUPT;
    TRY(metric_group_dictionary(group, scratch, pass_entry, NULL));
    return metric_group_metadata(group, scratch, &metadata, &count);
}
