/* Reader of compact metric segments: tables, index parts, exemplars, metadata. docs/format/compact.md.
 *
 *   open ─ segment footer, tenants, granule table in memory (a few bytes per 256 series)
 *   select, labels ─ index part of the tenant, one entry of the block cache
 *
 * Invariants: 1. Tables are immutable after open. 2. Whatever was read is bounded before use; what does not fit
 * together is ERR_CORRUPT. */
#include "base/check.h"
#include "metric/compact_reader.h"
#include "model/labels.h"

static err malformed(struct err_at *at, const char *what)
{
    return err_set(at, ERR_CORRUPT, "compact segment: %s is malformed", what);
}

static bool ascends(const uint32_t *column, uint32_t count, uint32_t step_min)
{
    for (uint32_t i = 1; i < count; i++)
        if (column[i] < column[i - 1] || column[i] - column[i - 1] < step_min)
            return false;
    return true;
}

/* Read a table of `columns` columns with a number for each block of another section. */
static err read_table(struct metric_compact *c, unsigned section, uint32_t count, unsigned columns,
                      struct pool *scratch, uint32_t **out_columns, struct err_at *at)
{
    struct slice bytes;
    TRY(segment_section_read(c->segment, section, scratch, &bytes, at));
    struct reader r = reader_of(bytes);
    for (unsigned i = 0; i < columns; i++) {
        TRY(pool_alloc(c->pool, ((size_t)count + 1) * sizeof(uint32_t), (void **)&out_columns[i]));
        if (int_column_decode_u32(&r, count, out_columns[i]) != OK ||
            !ascends(out_columns[i], count, columns - 1) ||
            (columns > 1 && count > 0 && out_columns[i][0] != 0))
            return malformed(at, "a table");
    }
    return read_left(&r) == 0 ? OK : malformed(at, "a table");
}

static err read_tenants(struct metric_compact *c, struct pool *scratch, struct err_at *at)
{
    struct slice bytes;
    TRY(segment_section_read(c->segment, SECTION_TENANTS, scratch, &bytes, at));
    size_t n = c->info->tenant_count;
    TRY(pool_zalloc(c->pool, (n + 1) * sizeof *c->tenants, (void **)&c->tenants));
    struct reader r = reader_of(bytes);
    uint64_t series = 0, block = 0;
    for (size_t i = 0; i < n; i++) {
        struct compact_tenant *tenant = &c->tenants[i];
        uint64_t count = read_varint(&r);
        tenant->index_bytes = read_varint(&r);
        tenant->first = (uint32_t)series;
        tenant->count = (uint32_t)count;
        tenant->index_block = (uint32_t)block;
        if (!r.ok || count == 0 || count > c->info->series_count - series ||
            tenant->index_bytes > METRIC_PART_IMAGE_BYTES_MAX)
            return malformed(at, "the table of tenants");
        series += count;
        block += (tenant->index_bytes + SEGMENT_BLOCK_BYTES - 1) / SEGMENT_BLOCK_BYTES;
    }
    if (read_left(&r) != 0 || series != c->info->series_count ||
        block != segment_block_count(c->segment, SECTION_INDEX))
        return malformed(at, "the table of tenants");
    return OK;
}

static err read_tables(struct metric_compact *c, struct pool *scratch, struct err_at *at)
{
    if (c->info->kind != SEGMENT_METRIC)
        return err_set(at, ERR_UNSUPPORTED, "segment of kind %u, not metrics", c->info->kind);
    if (c->info->kind_version != METRIC_COMPACT_VERSION)
        return err_set(at, ERR_VERSION, "compact segment format %u, and this Kelpie reads %d",
                       c->info->kind_version, METRIC_COMPACT_VERSION);
    if (c->info->series_count > METRIC_COMPACT_SERIES_MAX)
        return malformed(at, "the series count");
    c->granule_count = segment_block_count(c->segment, SECTION_GRANULES);
    c->exemplar_block_count = segment_block_count(c->segment, SECTION_EXEMPLARS);
    if ((c->granule_count == 0) != (c->info->series_count == 0))
        return malformed(at, "the series directory");
    TRY(read_tenants(c, scratch, at));
    uint32_t *columns[2];
    TRY(read_table(c, SECTION_GRANULE_TABLE, c->granule_count, 2, scratch, columns, at));
    c->granule_firsts = columns[0];
    c->granule_parts = columns[1];
    return read_table(c, SECTION_EXEMPLAR_TABLE, c->exemplar_block_count, 1, scratch, &c->exemplar_firsts,
                      at);
}

err metric_compact_open(struct segment_source source, struct segment_cache *cache, struct pool *pool,
                        struct metric_compact **out_compact, struct err_at *at)
{
    err e = OK;
    struct pool *own = pool_open(pool, "compact segment", POOL_BYTES_UNLIMITED);
    struct pool *scratch = pool_open(own, "compact open", POOL_BYTES_UNLIMITED);
    struct metric_compact *c;
    struct segment *segment = NULL;
    TRY_OUT(pool_zalloc(own, sizeof *c, (void **)&c));
    TRY_OUT(segment_open(source, cache, own, &segment, at));
    c->pool = own;
    c->segment = segment;
    c->info = segment_info(segment);
    TRY_OUT(read_tables(c, scratch, at));
    *out_compact = c;
out:
    pool_close(scratch);
    if (e != OK) {
        segment_close(segment);
        pool_close(own);
    }
    return e;
}

void metric_compact_close(struct metric_compact *c)
{
    if (c == NULL)
        return;
    segment_close(c->segment);
    pool_close(c->pool);
}

const struct segment_info *metric_compact_info(const struct metric_compact *c) { return c->info; }

static const struct compact_tenant *find_tenant(const struct metric_compact *c, struct slice tenant)
{
    size_t low = 0, high = c->info->tenant_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = slice_compare(c->info->tenants[middle], tenant);
        if (order == 0)
            return &c->tenants[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

void metric_compact_tenant(const struct metric_compact *c, struct slice tenant, uint32_t *out_first,
                           uint32_t *out_count)
{
    const struct compact_tenant *found = find_tenant(c, tenant);
    *out_first = found == NULL ? 0 : found->first;
    *out_count = found == NULL ? 0 : found->count;
}

static err index_get(struct metric_compact *c, const struct compact_tenant *tenant,
                     struct metric_compact_index *out_index, struct err_at *at)
{
    uint32_t block_count = (uint32_t)((tenant->index_bytes + SEGMENT_BLOCK_BYTES - 1) / SEGMENT_BLOCK_BYTES);
    struct segment_block block;
    if (block_count == 0)
        return malformed(at, "an index part");
    TRY(segment_blocks_get(c->segment, SECTION_INDEX, tenant->index_block, block_count, &block, at));
    *out_index = (struct metric_compact_index){ .first = tenant->first, .block = block };
    err e = block.content.len == tenant->index_bytes ? metric_part_open(block.content, &out_index->part)
                                                     : ERR_CORRUPT;
    if (e == OK && out_index->part.series_count != tenant->count)
        e = ERR_CORRUPT;
    if (e != OK)
        metric_compact_index_release(c, out_index);
    return e == ERR_CORRUPT ? malformed(at, "an index part") : e;
}

err metric_compact_index_get(struct metric_compact *c, struct slice tenant,
                             struct metric_compact_index *out_index, struct err_at *at)
{
    const struct compact_tenant *found = find_tenant(c, tenant);
    return found == NULL ? ERR_NOT_FOUND : index_get(c, found, out_index, at);
}

void metric_compact_index_release(struct metric_compact *c, struct metric_compact_index *index)
{
    segment_block_release(c->segment, &index->block);
}

err metric_compact_select(struct metric_compact *c, struct slice tenant, const struct matcher *matchers,
                          size_t matcher_count, struct pool *pool, uint32_t **out_ordinals, size_t *out_count,
                          struct err_at *at)
{
    const struct compact_tenant *found = find_tenant(c, tenant);
    *out_ordinals = NULL;
    *out_count = 0;
    if (found == NULL)
        return OK;
    struct metric_compact_index index;
    TRY(index_get(c, found, &index, at));
    err e = metric_part_select(&index.part, matchers, matcher_count, pool, out_ordinals, out_count);
    metric_compact_index_release(c, &index);
    if (e != OK)
        return err_set(at, e, "compact segment: selecting series");
    for (size_t i = 0; i < *out_count; i++)
        (*out_ordinals)[i] += found->first;
    return OK;
}

/* The tenant that an ordinal belongs to; the ordinal is below the series count. */
static const struct compact_tenant *tenant_of(const struct metric_compact *c, uint32_t ordinal)
{
    size_t low = 0, high = c->info->tenant_count - 1;
    while (low < high) {
        size_t middle = (low + high + 1) / 2;
        if (c->tenants[middle].first <= ordinal)
            low = middle;
        else
            high = middle - 1;
    }
    return &c->tenants[low];
}

err metric_compact_labels_open(struct pool *pool, struct metric_compact_labels *out_labels)
{
    *out_labels = (struct metric_compact_labels){ 0 };
    return metric_part_cursor_open(NULL, pool, &out_labels->cursor);
}

void metric_compact_labels_close(struct metric_compact_labels *labels)
{
    if (labels->compact != NULL)
        metric_compact_index_release(labels->compact, &labels->index);
    labels->compact = NULL;
}

err metric_compact_labels_read(struct metric_compact_labels *labels, struct metric_compact *c,
                               uint32_t ordinal, struct buf *out, struct err_at *at)
{
    const struct metric_compact_index *index = &labels->index;
    check(ordinal < c->info->series_count);
    if (labels->compact != c || ordinal - index->first >= index->part.series_count) {
        metric_compact_labels_close(labels);
        TRY(index_get(c, tenant_of(c, ordinal), &labels->index, at));
        labels->compact = c;
        metric_part_cursor_turn(&labels->cursor, &index->part);
    }
    err e = metric_part_cursor_seek(&labels->cursor, ordinal - index->first);
    if (e == OK)
        e = metric_part_cursor_labels(&labels->cursor, out);
    return e == OK ? OK : err_set(at, e == ERR_LIMIT ? e : ERR_CORRUPT, "labels of series %u", ordinal);
}

struct exemplar_list {
    struct source_exemplar *items;
    size_t count, capacity;
};

/* Take the exemplars of `ordinal` from a block. *out_done: a later series was met. */
static err read_exemplars(struct slice content, uint32_t first, uint32_t ordinal, struct pool *pool,
                          struct exemplar_list *list, bool *out_done)
{
    struct reader r = reader_of(content);
    uint64_t series = first;
    while (read_left(&r) > 0) {
        series += read_varint(&r);
        struct source_exemplar x = { .t_ms = read_zigzag(&r) };
        x.value = bits_double(read_le64(&r));
        struct slice labels = read_string(&r);
        if (!r.ok)
            return ERR_CORRUPT;
        *out_done = series > ordinal;
        if (*out_done)
            return OK;
        if (series < ordinal)
            continue;
        TRY(pool_copy(pool, labels, &x.labels));
        if (list->count == list->capacity) {
            struct source_exemplar *larger;
            list->capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
            TRY(pool_alloc(pool, list->capacity * sizeof *larger, (void **)&larger));
            if (list->count != 0)
                memcpy(larger, list->items, list->count * sizeof *larger);
            list->items = larger;
        }
        list->items[list->count++] = x;
    }
    return OK;
}

err metric_compact_exemplars(struct metric_compact *c, uint32_t ordinal, struct pool *pool,
                             struct source_exemplar **out_exemplars, size_t *out_count, struct err_at *at)
{
    check(ordinal < c->info->series_count);
    uint32_t low = 0, high = c->exemplar_block_count; /* the first block that begins at ordinal or later */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (c->exemplar_firsts[middle] < ordinal)
            low = middle + 1;
        else
            high = middle;
    }
    struct exemplar_list list = { 0 };
    bool done = false;
    for (uint32_t i = low == 0 ? 0 : low - 1;
         !done && i < c->exemplar_block_count && c->exemplar_firsts[i] <= ordinal; i++) {
        struct segment_block block;
        TRY(segment_block_get(c->segment, SECTION_EXEMPLARS, i, &block, at));
        err e = read_exemplars(block.content, c->exemplar_firsts[i], ordinal, pool, &list, &done);
        segment_block_release(c->segment, &block);
        if (e != OK)
            return e == ERR_CORRUPT ? malformed(at, "a block of exemplars") : e;
    }
    *out_exemplars = list.items;
    *out_count = list.count;
    return OK;
}

err compact_metadata_list(struct metric_compact *c, const struct slice *tenant, struct pool *pool,
                          struct slice **out_owners, struct batch_metadata **out_metadata, size_t *out_count,
                          struct err_at *at)
{
    struct slice bytes;
    TRY(segment_section_read(c->segment, SECTION_METADATA, pool, &bytes, at));
    size_t count = 0;
    struct batch_metadata *list = NULL;
    struct slice *owners = NULL;
    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        struct reader r = reader_of(bytes);
        if (pass == 1) {
            TRY(pool_alloc(pool, (count + 1) * sizeof *list, (void **)&list));
            TRY(pool_alloc(pool, (count + 1) * sizeof *owners, (void **)&owners));
        }
        count = 0;
        while (read_left(&r) > 0) {
            struct slice owner = read_string(&r);
            struct batch_metadata m = { .family = read_string(&r) };
            m.type = read_u8(&r);
            m.help = read_string(&r);
            m.unit = read_string(&r);
            if (!r.ok || m.type >= METRIC_TYPE_COUNT)
                return malformed(at, "the metadata");
            if (tenant != NULL && !slice_equal(owner, *tenant))
                continue;
            if (pass == 1) {
                list[count] = m;
                owners[count] = owner;
            }
            count++;
        }
    }
    *out_metadata = list;
    *out_owners = owners;
    *out_count = count;
    return OK;
}

err metric_compact_metadata(struct metric_compact *c, struct slice tenant, struct pool *pool,
                            struct batch_metadata **out_metadata, size_t *out_count, struct err_at *at)
{
    struct slice *owners;
    return compact_metadata_list(c, &tenant, pool, &owners, out_metadata, out_count, at);
}
