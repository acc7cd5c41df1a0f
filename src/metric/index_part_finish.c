/* The end of building an index part: strings sorted, symbols, names and pairs numbered in order, rows
 * rewritten with value ranks, the image put together. See index_part_build.c for how the series came here.
 *
 * Invariants
 *  1. Symbols are numbered in byte order of their strings, names by symbol, pairs by (name, value symbol): the
 *     reader's binary searches rely on it.
 *  2. Rows keep their order and their shapes' numbers; only the numbers of changed values are replaced. */
#include "metric/index_part_build.h"

#include "base/check.h"
#include "metric/sort.h"

/* Everything that finishing computes: final numbers by provisional ones and the other way round. */
struct finish {
    struct metric_part_builder *b;
    struct pool *pool;
    struct slice *texts; /* names, then pairs' values */
    struct sort_item *items, *scratch;
    uint32_t *symbol_of; /* text → symbol */
    struct slice *symbols;
    uint32_t symbol_count;
    uint32_t *name_rank;      /* provisional name → number */
    uint32_t *name_at;        /* number → provisional name */
    uint32_t *pair_at;        /* number → provisional pair */
    uint32_t *value_rank;     /* provisional pair → rank of the value within its name */
    uint32_t *first_pair;     /* by name number, one more at the end */
    uint32_t *container_from; /* by pair number, one more at the end */
    uint32_t *container_order;
    uint64_t *name_series; /* by name number */
};

static err alloc_array(struct pool *pool, size_t count, size_t bytes, void *out_at)
{
    void *at;
    TRY(pool_alloc(pool, (count + 1) * bytes, &at));
    memcpy(out_at, &at, sizeof at);
    return OK;
}

static err finish_symbols(struct finish *f)
{
    struct metric_part_builder *b = f->b;
    size_t count = b->name_count + b->pair_count;
    TRY(alloc_array(f->pool, count, sizeof *f->texts, &f->texts));
    TRY(alloc_array(f->pool, count, sizeof *f->items, &f->items));
    TRY(alloc_array(f->pool, count, sizeof *f->scratch, &f->scratch));
    TRY(alloc_array(f->pool, count, sizeof *f->symbol_of, &f->symbol_of));
    TRY(alloc_array(f->pool, count, sizeof *f->symbols, &f->symbols));
    for (size_t i = 0; i < b->name_count; i++)
        f->texts[i] = part_builder_text(b, b->names[i].at, b->names[i].len);
    for (size_t i = 0; i < b->pair_count; i++) {
        struct reader r = reader_of(part_builder_text(b, b->pairs[i].at, b->pairs[i].len));
        struct label label;
        check(labels_next(&r, &label));
        f->texts[b->name_count + i] = label.value;
    }
    for (size_t i = 0; i < count; i++)
        f->items[i] = (struct sort_item){ .id = (uint32_t)i };
    sort_strings(f->items, f->scratch, count, f->texts);
    for (size_t i = 0; i < count; i++) {
        struct slice text = f->texts[f->items[i].id];
        if (i == 0 || !slice_equal(text, f->symbols[f->symbol_count - 1]))
            f->symbols[f->symbol_count++] = text;
        f->symbol_of[f->items[i].id] = f->symbol_count - 1;
    }
    return OK;
}

static err finish_names(struct finish *f)
{
    struct metric_part_builder *b = f->b;
    TRY(alloc_array(f->pool, b->name_count, 4, &f->name_rank));
    TRY(alloc_array(f->pool, b->name_count, 4, &f->name_at));
    TRY(alloc_array(f->pool, b->name_count + 1, 4, &f->first_pair));
    TRY(alloc_array(f->pool, b->name_count, 8, &f->name_series));
    TRY(alloc_array(f->pool, b->pair_count, 4, &f->pair_at));
    TRY(alloc_array(f->pool, b->pair_count, 4, &f->value_rank));
    for (size_t i = 0; i < b->name_count; i++)
        f->items[i] = (struct sort_item){ .key = f->symbol_of[i], .id = (uint32_t)i };
    sort_items(f->items, f->scratch, b->name_count);
    for (size_t i = 0; i < b->name_count; i++) {
        f->name_at[i] = f->items[i].id;
        f->name_rank[f->items[i].id] = (uint32_t)i;
        f->name_series[i] = 0;
    }
    for (size_t i = 0; i < b->pair_count; i++)
        f->items[i] = (struct sort_item){ .key = (uint64_t)f->name_rank[b->pairs[i].name] << 32 |
                                                 f->symbol_of[b->name_count + i],
                                          .id = (uint32_t)i };
    sort_items(f->items, f->scratch, b->pair_count);
    size_t name = 0;
    for (size_t i = 0; i < b->pair_count; i++) {
        uint32_t rank = (uint32_t)(f->items[i].key >> 32);
        for (; name <= rank; name++)
            f->first_pair[name] = (uint32_t)i;
        f->pair_at[i] = f->items[i].id;
        f->value_rank[f->items[i].id] = (uint32_t)i - f->first_pair[rank];
    }
    for (; name <= b->name_count; name++)
        f->first_pair[name] = (uint32_t)b->pair_count;
    return OK;
}

/* Counting sort of the containers by final pair number; chunks stay ascending. */
static err finish_containers(struct finish *f)
{
    struct metric_part_builder *b = f->b;
    TRY(alloc_array(f->pool, b->pair_count + 1, 4, &f->container_from));
    TRY(alloc_array(f->pool, b->container_count, 4, &f->container_order));
    memset(f->container_from, 0, (b->pair_count + 1) * 4);
    for (size_t i = 0; i < b->container_count; i++) {
        const struct container *c = &b->containers[i];
        uint32_t name = f->name_rank[b->pairs[c->pair].name];
        f->container_from[f->first_pair[name] + f->value_rank[c->pair] + 1]++;
        f->name_series[name] += c->count;
    }
    for (size_t p = 0; p < b->pair_count; p++)
        f->container_from[p + 1] += f->container_from[p];
    uint32_t *next;
    TRY(alloc_array(f->pool, b->pair_count, 4, &next));
    memcpy(next, f->container_from, b->pair_count * 4);
    for (size_t i = 0; i < b->container_count; i++) {
        uint32_t pair = b->containers[i].pair;
        uint32_t number = f->first_pair[f->name_rank[b->pairs[pair].name]] + f->value_rank[pair];
        f->container_order[next[number]++] = (uint32_t)i;
    }
    return OK;
}

static void put_symbols(const struct finish *f, struct buf *out)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < f->symbol_count; i++) {
        buf_put_le32(out, at);
        at += (uint32_t)f->symbols[i].len;
    }
    buf_put_le32(out, at);
    for (uint32_t i = 0; i < f->symbol_count; i++)
        buf_put_slice(out, f->symbols[i]);
}

static void put_names(const struct finish *f, struct buf *out)
{
    for (size_t i = 0; i <= f->b->name_count; i++) {
        bool end = i == f->b->name_count;
        buf_put_le32(out, end ? 0 : f->symbol_of[f->name_at[i]]);
        buf_put_le32(out, f->first_pair[i]);
        buf_put_le32(out, end ? 0 : (uint32_t)f->name_series[i]);
    }
}

/* The ordinal in a container of one. */
static uint32_t single_ordinal(const struct metric_part_builder *b, const struct container *c)
{
    struct reader r = reader_of(slice_of(b->container_bytes.at + c->at, c->len));
    uint64_t head = read_varint(&r);
    check(head == CONTAINER_DELTAS); /* one ordinal: deltas are never longer than the others */
    return c->chunk * PART_CHUNK_SERIES + (uint32_t)read_varint(&r);
}

/* The pairs table into out, the posting lists into postings. */
static void put_pairs(const struct finish *f, struct buf *out, struct buf *postings)
{
    const struct metric_part_builder *b = f->b;
    for (size_t i = 0; i < b->pair_count; i++) {
        uint32_t from = f->container_from[i], to = f->container_from[i + 1];
        buf_put_le32(out, f->symbol_of[b->name_count + f->pair_at[i]]);
        const struct container *first = &b->containers[f->container_order[from]];
        if (to - from == 1 && first->count == 1) {
            buf_put_le32(out, PART_POSTING_SINGLE | single_ordinal(b, first));
            continue;
        }
        buf_put_le32(out, (uint32_t)postings->len);
        uint64_t count = 0;
        for (uint32_t k = from; k < to; k++)
            count += b->containers[f->container_order[k]].count;
        buf_put_varint(postings, count);
        uint32_t chunk = 0;
        for (uint32_t k = from; k < to; k++) {
            const struct container *c = &b->containers[f->container_order[k]];
            buf_put_varint(postings, c->chunk - chunk);
            buf_put(postings, b->container_bytes.at + c->at, c->len);
            chunk = c->chunk + 1;
        }
    }
}

static void put_shapes(const struct finish *f, struct buf *out, struct buf *text)
{
    const struct metric_part_builder *b = f->b;
    for (size_t i = 0; i < b->shape_count; i++) {
        const struct shape_entry *s = &b->shapes[i];
        buf_put_le32(out, (uint32_t)text->len);
        buf_put_varint(text, s->count);
        uint32_t next = 0;
        for (uint32_t k = 0; k < s->count; k++) {
            uint32_t rank = f->name_rank[b->shape_names[s->at + k]];
            buf_put_varint(text, rank - next);
            next = rank + 1;
        }
    }
    buf_put_le32(out, (uint32_t)text->len);
}

/* Rewrite the provisional rows with value ranks; block_at takes the final offsets. */
static err put_blocks(const struct finish *f, struct buf *out)
{
    struct metric_part_builder *b = f->b;
    struct reader r = reader_of(buf_slice(&b->rows));
    size_t base = out->len;
    uint32_t shape = 0;
    for (uint32_t row = 0; row < b->series_count; row++) {
        bool first = row % PART_BLOCK_SERIES == 0;
        if (first)
            b->block_at[row / PART_BLOCK_SERIES] = (uint32_t)(out->len - base);
        uint64_t head = read_varint(&r);
        if (head != 0)
            shape = (uint32_t)head - 1;
        uint32_t count = b->shapes[shape].count;
        size_t mask_bytes = first ? 0 : (count + 7) / 8;
        struct slice mask = read_bytes(&r, mask_bytes);
        uint8_t *at = buf_room(out, VARINT_BYTES_MAX + mask_bytes + (size_t)count * 5);
        if (at == NULL)
            return buf_err(out);
        at = put_varint(at, head);
        memcpy(at, mask.at, mask_bytes);
        at += mask_bytes;
        for (uint32_t i = 0; i < count; i++)
            if (first || (mask.at[i / 8] >> i % 8 & 1) == 0)
                at = put_varint(at, f->value_rank[read_varint(&r)]);
        out->len = (size_t)(at - out->at);
    }
    check(r.ok && r.at == r.end);
    return OK;
}

static void put_header(const struct finish *f, uint8_t *at, uint64_t image_bytes, uint32_t shape_bytes,
                       uint32_t block_bytes, uint32_t posting_bytes)
{
    const struct metric_part_builder *b = f->b;
    uint64_t symbol_bytes = 0;
    for (uint32_t i = 0; i < f->symbol_count; i++)
        symbol_bytes += f->symbols[i].len;
    memset(at, 0, PART_HEADER_BYTES);
    put_le32(at, PART_MAGIC);
    put_le16(at + 4, PART_VERSION);
    put_le32(at + 8, b->series_count);
    put_le32(at + 12, f->symbol_count);
    put_le32(at + 16, (uint32_t)b->name_count);
    put_le32(at + 20, (uint32_t)b->pair_count);
    put_le32(at + 24, (uint32_t)b->shape_count);
    put_le32(at + 28, (uint32_t)image_bytes);
    put_le64(at + 32, b->posting_count);
    put_le32(at + 40, (uint32_t)symbol_bytes);
    put_le32(at + 44, shape_bytes);
    put_le32(at + 48, block_bytes);
    put_le32(at + 52, posting_bytes);
}

/* Sections in the order of docs/format/index.md. */
static err put_image(struct finish *f, struct buf *out)
{
    err e = OK;
    struct metric_part_builder *b = f->b;
    size_t base = out->len;
    struct buf shapes = buf_open(b->pool, METRIC_PART_IMAGE_BYTES_MAX);
    struct buf blocks = buf_open(b->pool, METRIC_PART_IMAGE_BYTES_MAX);
    struct buf postings = buf_open(b->pool, PART_POSTING_SINGLE - 1);
    static const uint8_t empty_header[PART_HEADER_BYTES];
    buf_put(out, empty_header, PART_HEADER_BYTES);
    put_symbols(f, out);
    put_names(f, out);
    put_pairs(f, out, &postings);
    put_shapes(f, out, &shapes);
    buf_put_slice(out, buf_slice(&shapes));
    TRY_OUT(put_blocks(f, &blocks));
    for (size_t i = 0; i < b->block_count; i++)
        buf_put_le32(out, b->block_at[i]);
    buf_put_le32(out, (uint32_t)blocks.len);
    buf_put_slice(out, buf_slice(&blocks));
    buf_put_slice(out, buf_slice(&postings));
    TRY_OUT(buf_err(&shapes));
    TRY_OUT(buf_err(&postings));
    TRY_OUT(buf_err(out));
    if (out->len - base > METRIC_PART_IMAGE_BYTES_MAX) {
        e = ERR_LIMIT;
        goto out;
    }
    put_header(f, out->at + base, out->len - base, (uint32_t)shapes.len, (uint32_t)blocks.len,
               (uint32_t)postings.len);
out:
    buf_close(&shapes);
    buf_close(&blocks);
    buf_close(&postings);
    return e;
}

err metric_part_builder_finish(struct metric_part_builder *b, struct buf *out)
{
    err e = OK;
    struct pool *pool = pool_open(b->pool, "index part finish", POOL_BYTES_UNLIMITED);
    struct finish f = { .b = b, .pool = pool };
    if (b->series_count > 0)
        TRY_OUT(part_builder_flush(b));
    TRY_OUT(finish_symbols(&f));
    TRY_OUT(finish_names(&f));
    TRY_OUT(finish_containers(&f));
    TRY_OUT(put_image(&f, out));
out:
    pool_close(pool);
    return e;
}
