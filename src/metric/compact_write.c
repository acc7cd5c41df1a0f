/* Writer of compact metric segments: series in order, exemplars, metadata. docs/format/compact.md.
 *
 *   series ─ order ─ index part of the tenant ─ SUM ─ parts (compact_part.c) ─ granules, tables (compact_finish.c)
 *
 * Blocks leave as they fill; in memory stay: the index part of the open tenant, hashes of timelines, two numbers a
 * granule. Invariants: 1. Series come strictly ascending by (tenant, metric_series_compare). 2. Every row given is
 * in SUM (or the caller knew it); the last of equal times is in the distinct SUM. 3. After an error the file
 * is of no use. */
#include "base/check.h"
#include "metric/compact_writer.h"
#include "model/histogram.h"
#include "model/labels.h"

#define STREAM_BYTES_MAX          (SEGMENT_BLOCK_BYTES + SEGMENT_BLOCK_BYTES_MAX)
#define METADATA_BYTES_MAX        (64u << 20)
#define PREVIOUS_TENANT_BYTES_MAX 4096

static struct compact_stream stream_of(struct pool *pool, unsigned section)
{
    return (struct compact_stream){ .section = section, .content = buf_open(pool, STREAM_BYTES_MAX) };
}

err metric_compact_writer_open(struct io *io, const struct metric_compact_config *config, struct pool *pool,
                               struct metric_compact_writer **out_writer)
{
    err e = OK;
    struct pool *own = pool_open(pool, "compact writer", POOL_BYTES_UNLIMITED);
    struct metric_compact_writer *w;
    size_t rows = METRIC_COMPACT_PART_ROWS_MAX;
    TRY_OUT(pool_zalloc(own, sizeof *w, (void **)&w));
    TRY_OUT(pool_alloc(own, rows * sizeof *w->part_bits, (void **)&w->part_bits));
    TRY_OUT(pool_alloc(own, rows * sizeof *w->part_rows, (void **)&w->part_rows));
    w->pool = own;
    w->config = *config;
    w->effort = config->fast ? CODEC_FAST : CODEC_FULL;
    io_random(io, &w->seed, sizeof w->seed);
    w->values = stream_of(own, SECTION_VALUES);
    w->timelines = stream_of(own, SECTION_TIMELINES);
    w->histograms = stream_of(own, SECTION_HISTOGRAMS);
    w->exemplars = stream_of(own, SECTION_EXEMPLARS);
    w->payload = buf_open(own, 2 * SEGMENT_BLOCK_BYTES_MAX);
    w->scratch = buf_open(own, 2 * SEGMENT_BLOCK_BYTES_MAX);
    w->metadata = buf_open(own, METADATA_BYTES_MAX);
    w->previous.tenant = buf_open(own, PREVIOUS_TENANT_BYTES_MAX);
    w->previous.labels = buf_open(own, LABELS_BYTES_MAX);
    w->timeline_map.pool = w->same_map.pool = w->metadata_map.pool = own;
    w->totals = COMPACT_TOTALS_NONE;
    TRY_OUT(segment_writer_open(io, config->path, SEGMENT_METRIC, own, &w->segment));
    *out_writer = w;
    return OK;
out:
    pool_close(own);
    return e;
}

void metric_compact_writer_close(struct metric_compact_writer *w)
{
    if (w == NULL)
        return;
    segment_writer_close(w->segment);
    metric_part_builder_close(w->builder);
    pool_close(w->pool);
}

static err begin_tenant(struct metric_compact_writer *w, struct slice tenant)
{
    struct compact_tenant_row row = { 0 };
    TRY(compact_tenant_finish(w));
    TRY(pool_block_reserve(w->pool, (void **)&w->tenants, sizeof *w->tenants, w->tenant_count + 1,
                           &w->tenant_capacity));
    TRY(pool_copy(w->pool, tenant, &row.name));
    TRY(metric_part_builder_open(w->pool, &w->builder));
    w->tenants[w->tenant_count++] = row;
    return OK;
}

/* Are a and b buckets of one histogram: equal but for le, which both have? */
static bool same_group(struct slice a, struct slice b)
{
    struct reader ra = reader_of(a), rb = reader_of(b);
    struct label x, y;
    bool has_le = false;
    for (;;) {
        bool more_a = labels_next(&ra, &x), more_b = labels_next(&rb, &y);
        if (!more_a || !more_b)
            return has_le && !more_a && !more_b;
        if (!slice_equal(x.name, y.name))
            return false;
        if (slice_equal_str(x.name, "le"))
            has_le = true;
        else if (!slice_equal(x.value, y.value))
            return false;
    }
}

static struct compact_series describe(const struct metric_compact_writer *w, struct slice tenant,
                                      struct slice labels, const struct metric_rows *rows)
{
    struct slice le = labels_get(labels, slice_str("le")), name = labels_get(labels, slice_str("__name__"));
    const struct compact_previous *p = &w->previous;
    struct compact_series series = { .has_le = le.len != 0 };
    if (rows->histogram_count > 0)
        return series;
    series.is_infinity = slice_equal_str(le, "+Inf");
    series.is_count = le.len == 0 && name.len > 6 && memcmp(name.at + name.len - 6, "_count", 6) == 0;
    series.may_differ = series.has_le && p->is_integer && p->chain < COMPACT_DIFFERENCE_CHAIN_MAX &&
                        p->rows == rows->count && slice_equal(buf_slice(&p->tenant), tenant) &&
                        same_group(buf_slice(&p->labels), labels);
    return series;
}

/* Remember this series for the next bucket of its group. */
static err remember(struct metric_compact_writer *w, struct slice tenant, struct slice labels,
                    const struct metric_rows *rows, const struct compact_series *series, bool any_difference)
{
    struct compact_previous *p = &w->previous;
    buf_clear(&p->tenant);
    buf_clear(&p->labels);
    buf_put_slice(&p->tenant, tenant);
    buf_put_slice(&p->labels, labels);
    TRY(buf_err(&p->tenant));
    TRY(buf_err(&p->labels));
    p->any = true;
    p->rows = rows->count;
    p->chain = any_difference ? p->chain + 1 : 0;
    p->is_integer =
        series->has_le && rows->histogram_count == 0 && rows->count <= COMPACT_DIFFERENCE_ROWS_MAX;
    if (!p->is_integer)
        return OK;
    if (p->ints == NULL)
        TRY(pool_alloc(w->pool, COMPACT_DIFFERENCE_ROWS_MAX * sizeof *p->ints, (void **)&p->ints));
    p->is_integer = float_integers(rows->value_bits, rows->count, p->ints);
    struct compact_granule *g = &w->granule;
    p->part_count =
        (uint32_t)((rows->count + METRIC_COMPACT_PART_ROWS_MAX - 1) / METRIC_COMPACT_PART_ROWS_MAX);
    for (uint32_t i = 0; i < p->part_count; i++)
        p->timelines[i] = g->parts[g->part_count - p->part_count + i].timeline;
    return OK;
}

static err put_parts(struct metric_compact_writer *w, const struct compact_series *series,
                     const struct metric_rows *rows, bool *out_any_difference)
{
    struct compact_granule *g = &w->granule;
    size_t h = 0;
    uint32_t index = 0;
    *out_any_difference = false;
    g->part_start[g->series_count] = g->part_count;
    for (size_t from = 0; from < rows->count; from += METRIC_COMPACT_PART_ROWS_MAX, index++) {
        size_t left = rows->count - from;
        size_t count = left < METRIC_COMPACT_PART_ROWS_MAX ? left : METRIC_COMPACT_PART_ROWS_MAX;
        size_t h_end = h;
        while (h_end < rows->histogram_count && rows->histograms[h_end].row < from + count)
            h_end++;
        TRY(compact_part_put(w, series, rows, from, count, index, rows->histograms + h, h_end - h));
        *out_any_difference |= (g->parts[g->part_count - 1].flags & PART_KIND) == KIND_DIFFERENCE;
        h = h_end;
    }
    g->part_start[++g->series_count] = g->part_count;
    return OK;
}

err metric_compact_writer_series(struct metric_compact_writer *w, struct slice tenant, struct slice labels,
                                 const struct metric_rows *rows)
{
    struct compact_previous *p = &w->previous;
    check(rows->count >= 1);
    if (rows->count > METRIC_COMPACT_SERIES_ROWS_MAX || w->series_count == METRIC_COMPACT_SERIES_MAX)
        return ERR_LIMIT;
    int order = p->any ? slice_compare(buf_slice(&p->tenant), tenant) : -1;
    if (order > 0 || (order == 0 && metric_series_compare(buf_slice(&p->labels), labels) >= 0))
        return ERR_ORDER;
    if (order != 0)
        TRY(begin_tenant(w, tenant));
    TRY(metric_part_builder_add(w->builder, labels));
    if (!compact_totals_add(&w->totals, sum_series_hash(tenant, labels), rows, !w->config.sum_known))
        return ERR_ORDER;
    struct compact_granule *g = &w->granule;
    if (g->series_count == COMPACT_GRANULE_SERIES || g->part_count >= COMPACT_GRANULE_PARTS)
        TRY(compact_granule_flush(w));
    if (g->series_count == 0) {
        g->first_series = w->series_count;
        g->first_part = w->part_count;
    }
    struct compact_series series = describe(w, tenant, labels, rows);
    bool any_difference;
    TRY(put_parts(w, &series, rows, &any_difference));
    w->tenants[w->tenant_count - 1].series_count++;
    w->series_count++;
    return remember(w, tenant, labels, rows, &series, any_difference);
}

err metric_compact_writer_exemplars(struct metric_compact_writer *w, const struct source_exemplar *exemplars,
                                    size_t count)
{
    check(w->series_count > 0);
    uint32_t series = w->series_count - 1;
    for (size_t i = 0; i < count; i++) {
        struct buf *out = &w->scratch;
        bool is_first = w->exemplars.content.len == 0 ||
                        w->exemplars.content.len + exemplars[i].labels.len + 64 > SEGMENT_BLOCK_BYTES;
        if (is_first) {
            TRY(compact_stream_flush(w, &w->exemplars));
            TRY(pool_block_reserve(w->pool, (void **)&w->exemplar_firsts, sizeof *w->exemplar_firsts,
                                   w->exemplar_block_count + 1, &w->exemplar_capacity));
            w->exemplar_firsts[w->exemplar_block_count++] = series;
        }
        buf_clear(out);
        buf_put_varint(out, is_first ? 0 : series - w->exemplar_last);
        buf_put_zigzag(out, exemplars[i].t_ms);
        buf_put_le64(out, double_bits(exemplars[i].value));
        buf_put_string(out, exemplars[i].labels);
        TRY(buf_err(out));
        TRY(compact_stream_put(w, &w->exemplars, buf_slice(out), NULL, NULL));
        w->exemplar_last = series;
    }
    return OK;
}

err metric_compact_writer_metadata(struct metric_compact_writer *w, struct slice tenant,
                                   const struct batch_metadata *metadata)
{
    struct buf *out = &w->scratch;
    buf_clear(out);
    buf_put_string(out, tenant);
    buf_put_string(out, metadata->family);
    buf_put_u8(out, metadata->type);
    buf_put_string(out, metadata->help);
    buf_put_string(out, metadata->unit);
    TRY(buf_err(out));
    uint32_t ignored;
    struct hash128 key = hash128(buf_slice(out), w->seed);
    if (compact_map_get(&w->metadata_map, key, &ignored))
        return OK;
    TRY(compact_map_put(&w->metadata_map, key, 0));
    buf_put_slice(&w->metadata, buf_slice(out));
    return buf_err(&w->metadata);
}
