/* The ends of a compact segment: directory granules, index parts, tables, info. docs/format/compact.md. */
#include "base/check.h"
#include "metric/compact_writer.h"

err compact_granule_flush(struct metric_compact_writer *w)
{
    struct compact_granule *g = &w->granule;
    if (g->series_count == 0)
        return OK;
    buf_clear(&w->scratch);
    TRY(compact_granule_put(g, w->pool, &w->scratch));
    if (w->scratch.len > SEGMENT_BLOCK_BYTES_MAX)
        return ERR_LIMIT;
    TRY(segment_writer_block(w->segment, SECTION_GRANULES, buf_slice(&w->scratch), true, NULL));
    TRY(pool_block_reserve(w->pool, (void **)&w->granule_firsts, sizeof *w->granule_firsts,
                           w->granule_count + 1, &w->granule_capacity));
    w->granule_firsts[w->granule_count++] =
        (struct compact_first){ .series = g->first_series, .part = g->first_part };
    g->series_count = g->part_count = 0;
    return OK;
}

err compact_tenant_finish(struct metric_compact_writer *w)
{
    if (w->builder == NULL)
        return OK;
    err e = OK;
    struct buf image = buf_open(w->pool, METRIC_PART_IMAGE_BYTES_MAX);
    TRY_OUT(metric_part_builder_finish(w->builder, &image));
    TRY_OUT(segment_writer_bytes(w->segment, SECTION_INDEX, buf_slice(&image), true));
    w->tenants[w->tenant_count - 1].index_bytes = image.len;
    metric_part_builder_close(w->builder);
    w->builder = NULL;
out:
    buf_close(&image);
    return e;
}

/* First series, then first part, of every granule. */
static err put_granule_table(struct metric_compact_writer *w, struct buf *out)
{
    uint32_t *column = NULL;
    size_t n = w->granule_count;
    TRY(pool_block_resize(w->pool, (void **)&column, (n + 1) * sizeof *column));
    buf_clear(out);
    for (int which = 0; which < 2; which++) {
        for (size_t i = 0; i < n; i++)
            column[i] = which == 0 ? w->granule_firsts[i].series : w->granule_firsts[i].part;
        ERR_IGNORE(int_column_encode_u32(column, n, CODEC_FULL, out)); /* failures stick in out */
    }
    pool_block_free(w->pool, column);
    TRY(buf_err(out));
    return segment_writer_bytes(w->segment, SECTION_GRANULE_TABLE, buf_slice(out), true);
}

static err put_tables(struct metric_compact_writer *w, struct buf *out)
{
    TRY(put_granule_table(w, out));
    buf_clear(out);
    TRY(int_column_encode_u32(w->exemplar_firsts, w->exemplar_block_count, CODEC_FULL, out));
    TRY(segment_writer_bytes(w->segment, SECTION_EXEMPLAR_TABLE, buf_slice(out), true));
    buf_clear(out);
    for (size_t i = 0; i < w->tenant_count; i++) {
        buf_put_varint(out, w->tenants[i].series_count);
        buf_put_varint(out, w->tenants[i].index_bytes);
    }
    TRY(buf_err(out));
    TRY(segment_writer_bytes(w->segment, SECTION_TENANTS, buf_slice(out), true));
    return segment_writer_bytes(w->segment, SECTION_METADATA, buf_slice(&w->metadata), true);
}

static err info_of(struct metric_compact_writer *w, const struct sum *dropped, const struct sum *expired,
                   struct segment_info *out_info)
{
    TRY(pool_alloc(w->pool, (w->tenant_count + 1) * sizeof *w->tenant_names, (void **)&w->tenant_names));
    for (size_t i = 0; i < w->tenant_count; i++)
        w->tenant_names[i] = w->tenants[i].name;
    const struct metric_compact_config *c = &w->config;
    struct compact_totals totals = w->totals;
    if (c->sum_known) { /* the totals hold what repeats */
        totals.sum = totals.distinct = c->sum;
        sum_subtract(&totals.distinct, w->totals.sum);
    }
    *out_info = (struct segment_info){
        .kind = SEGMENT_METRIC,
        .kind_version = METRIC_COMPACT_VERSION,
        .partition = c->partition,
        .from_generation = c->from_generation,
        .from_offset = c->from_offset,
        .to_generation = c->to_generation,
        .to_offset = c->to_offset,
        .time = totals.time,
        .series_count = w->series_count,
        .sum = totals.sum,
        .distinct = totals.distinct,
        .tenants = w->tenant_names,
        .tenant_count = w->tenant_count,
    };
    if (dropped != NULL)
        out_info->dropped = *dropped;
    if (expired != NULL)
        out_info->expired = *expired;
    return OK;
}

err metric_compact_writer_finish(struct metric_compact_writer *w, const struct sum *dropped,
                                 const struct sum *expired, struct metric_compact_written *out_written)
{
    err e = OK;
    struct buf out = buf_open(w->pool, SEGMENT_FOOTER_BYTES_MAX);
    TRY_OUT(compact_tenant_finish(w));
    TRY_OUT(compact_granule_flush(w));
    TRY_OUT(compact_timelines_flush(w));
    TRY_OUT(compact_stream_flush(w, &w->values));
    TRY_OUT(compact_stream_flush(w, &w->timelines));
    TRY_OUT(compact_stream_flush(w, &w->histograms));
    TRY_OUT(compact_stream_flush(w, &w->exemplars));
    TRY_OUT(put_tables(w, &out));
    TRY_OUT(info_of(w, dropped, expired, &out_written->info));
    TRY_OUT(segment_writer_finish(w->segment, &out_written->info, &out_written->file));
out:
    buf_close(&out);
    return e;
}
