/* Export: every stored row, as it is stored, out of the files of a node that does not run. See shard.h.
 *
 * The shards are opened read-only, as a start would open them: chains, state, stream files. Then, per
 * partition: the rows of every live segment, the rows of every row group, and what the log holds behind
 * those, applied by the same code as always. Heads that fill up on the way are handed out and dropped
 * instead of being spilled. Nothing is resolved: rows with equal series and time come out as often as they
 * are stored, and rows below a cut-off come out while their segment is there.
 *
 * Invariants
 *  1. Nothing on disk changes (shards_config.read_only; no step that writes is run).
 *  2. A row is in exactly one of live segments, groups of the path of stream files, records behind that path:
 *     so every stored row comes out once, and a row that comes out twice is stored twice. */
#include "shard/partition.h"

#include "base/check.h"

struct exporter {
    struct shards *shards;
    struct pool *pool; /* reset between pieces */
    struct sample_columns columns;
    struct buf labels;
    struct metric_index_describer *describer; /* of the partition */
    const struct shard_rows_door *door;
    struct shard_exported *exported;
    uint64_t done_bytes, total_bytes; /* of segments */
    struct err_at *at;
};

static err hand_out(struct exporter *x, struct slice tenant, struct slice labels)
{
    if (x->columns.count == 0)
        return OK;
    struct shard_rows rows = { .tenant = tenant, .labels = labels, .columns = &x->columns };
    x->exported->row_count += x->columns.count;
    return x->door->rows(x->door->context, &rows);
}

/* The columns as rows of a series of the live index. */
static err hand_out_local(struct exporter *x, uint32_t local)
{
    struct slice tenant;
    if (x->columns.count == 0)
        return OK;
    buf_clear(&x->labels);
    TRY(metric_index_describe(x->describer, local, &x->labels, &tenant));
    return hand_out(x, tenant, buf_slice(&x->labels));
}

/* ---- segments ---- */

static err take_rows(struct exporter *x, const struct metric_rows *rows)
{
    size_t histogram = 0;
    sample_columns_clear(&x->columns);
    for (size_t i = 0; i < rows->count; i++) {
        int64_t start_ms = rows->start_ms != NULL ? rows->start_ms[i] : 0;
        if (histogram < rows->histogram_count && rows->histograms[histogram].row == i)
            TRY(sample_columns_add_histogram(&x->columns, rows->t_ms[i], rows->histograms[histogram++].bytes,
                                             start_ms));
        else
            TRY(sample_columns_add(&x->columns, rows->t_ms[i], bits_double(rows->value_bits[i]), start_ms));
    }
    return OK;
}

static err export_segment(struct exporter *x, struct live_segment *segment)
{
    struct metric_compact *compact;
    struct metric_compact_cursor *cursor;
    err e = live_segment_use(segment, &compact);
    if (e != OK)
        return err_set(x->at, e, "a segment of partition %u cannot be read: %s", segment->partition,
                       err_text(e));
    const struct segment_info *info = metric_compact_info(compact);
    pool_reset(x->pool);
    struct metric_compact_labels labels;
    TRY(metric_compact_labels_open(x->pool, &labels));
    TRY(metric_compact_cursor_open(compact, METRIC_COMPACT_TIMELINES_MAX, x->pool, &cursor));
    for (uint32_t i = 0; i < info->tenant_count && e == OK; i++) {
        uint32_t first, count;
        metric_compact_tenant(compact, info->tenants[i], &first, &count);
        for (uint32_t ordinal = first; ordinal < first + count && e == OK; ordinal++) {
            struct metric_rows rows;
            buf_clear(&x->labels);
            e = metric_compact_labels_read(&labels, compact, ordinal, &x->labels, x->at);
            if (e == OK)
                e = metric_compact_read_all(cursor, ordinal, &rows, x->at);
            if (e == OK)
                e = take_rows(x, &rows);
            if (e == OK)
                e = hand_out(x, info->tenants[i], buf_slice(&x->labels));
        }
    }
    metric_compact_cursor_close(cursor);
    metric_compact_labels_close(&labels);
    return e;
}

/* ---- stream files ---- */

static err export_group(struct exporter *x, const struct range *range, const struct range_group *g)
{
    struct metric_group_walk *walk;
    err e;
    pool_reset(x->pool);
    TRY(metric_group_walk_open(g->group, x->pool, &walk));
    for (;;) {
        struct metric_group_series series;
        e = metric_group_walk_next(walk, &series);
        if (e != OK)
            break;
        sample_columns_clear(&x->columns);
        for (size_t i = 0; i < series.row_count && e == OK; i++)
            e = sample_columns_add(&x->columns, series.t_ms[i], bits_double(series.value_bits[i]),
                                   series.start_ms != NULL ? series.start_ms[i] : 0);
        for (size_t i = 0; i < series.histogram_count && e == OK; i++)
            e = sample_columns_add_histogram(&x->columns, series.histograms[i].t_ms,
                                             series.histograms[i].bytes, series.histograms[i].start_ms);
        if (e == OK)
            e = series.number < range->numbers.count
                    ? hand_out_local(x, range->local_of_number[series.number])
                    : ERR_CORRUPT;
        if (e != OK)
            break;
    }
    metric_group_walk_close(walk);
    return e == ERR_END ? OK : e;
}

/* ---- the log behind them ---- */

static err export_head(struct exporter *x, struct partition *p, const struct metric_head_view *view)
{
    static const struct time_range always = { INT64_MIN, INT64_MAX };
    uint32_t count = metric_index_local_count(p->shards->index, p->number);
    for (uint32_t local = 0; local < count; local++) {
        if (!metric_head_has(view, local))
            continue;
        sample_columns_clear(&x->columns);
        TRY(metric_head_read(view, local, always, &x->columns));
        TRY(hand_out_local(x, local));
    }
    return OK;
}

/* Hand out what waits for a spill, and forget it. */
static err drain(struct exporter *x, struct partition *p, bool *out_worked)
{
    *out_worked = false;
    for (struct range *range = p->ranges; range != NULL; range = range->next)
        while (range->frozen != NULL) {
            struct frozen *frozen = range->frozen;
            if (frozen->head != NULL)
                TRY(export_head(x, p, &frozen->view));
            range->frozen = frozen->next;
            if (range->frozen == NULL)
                range->frozen_end = &range->frozen;
            range->frozen_count--;
            frozen_free(frozen);
            *out_worked = true;
        }
    return OK;
}

static err export_tail(struct exporter *x, struct partition *p)
{
    bool applied, drained;
    do {
        applied = apply_partition(p, 256);
        TRY(drain(x, p, &drained));
    } while (applied || drained);
    if (p->apply_failed != OK || p->has_pending)
        return err_set(x->at, p->apply_failed != OK ? p->apply_failed : ERR_LIMIT,
                       "the log of partition %u cannot be applied at offset %llu", p->number,
                       (unsigned long long)p->applied.offset);
    struct metric_head_view view = metric_head_view(p->head);
    return export_head(x, p, &view);
}

/* Rows that wait for their labels. */
static err export_unresolved(struct exporter *x, struct partition *p)
{
    for (size_t i = 0; i < p->unresolved_count; i++) {
        const struct state_unresolved *u = &p->unresolved[i];
        struct shard_rows rows = { .columns = &x->columns,
                                   .incarnation = p->producers[u->incarnation].id,
                                   .number = u->number };
        sample_columns_clear(&x->columns);
        if (u->histogram.len > 0)
            TRY(sample_columns_add_histogram(&x->columns, u->t_ms, u->histogram, u->start_ms));
        else
            TRY(sample_columns_add(&x->columns, u->t_ms, bits_double(u->bits), u->start_ms));
        x->exported->unresolved_count++;
        TRY(x->door->rows(x->door->context, &rows));
    }
    return OK;
}

static err export_partition(struct exporter *x, struct partition *p)
{
    for (size_t i = 0; i < p->segment_count; i++) {
        TRY(export_segment(x, p->segments[i]));
        x->done_bytes += p->segments[i]->facts.bytes;
        if (x->door->progress != NULL)
            x->door->progress(x->door->context, x->done_bytes, x->total_bytes);
    }
    for (const struct range *range = p->ranges; range != NULL; range = range->next)
        for (const struct range_group *g = range->groups; g != NULL; g = g->next) {
            err e = export_group(x, range, g);
            if (e != OK)
                return err_set(x->at, e, "a row group of partition %u cannot be read: %s", p->number,
                               err_text(e));
        }
    TRY(export_tail(x, p));
    x->exported->lost_record_count = atomic_load(&x->shards->lost_records);
    x->exported->duplicate_record_count = atomic_load(&x->shards->duplicate_records);
    return export_unresolved(x, p);
}

err shard_export(const struct shards_config *config, struct io *io, struct log *log, struct blob *blob,
                 struct pool *pool, const struct shard_rows_door *door, struct shard_exported *out_exported,
                 struct err_at *at)
{
    struct shards_config read_only = *config;
    struct shards *shards;
    read_only.read_only = true;
    TRY(shards_open(&read_only, io, log, blob, pool, &shards, at));
    struct pool *own = pool_open(pool, "export", POOL_BYTES_UNLIMITED);
    struct shard_exported exported = { 0 };
    struct exporter x = {
        .shards = shards,
        .pool = pool_open(own, "piece", POOL_BYTES_UNLIMITED),
        .columns = sample_columns_open(own),
        .labels = buf_open(own, LABELS_BYTES_MAX),
        .door = door,
        .exported = &exported,
        .at = at,
    };
    err e = OK;
    for (uint32_t i = 0; i < config->partition_count; i++)
        for (size_t k = 0; k < shards->partitions[i].segment_count; k++)
            x.total_bytes += shards->partitions[i].segments[k]->facts.bytes;
    for (uint32_t i = 0; i < config->partition_count && e == OK; i++) {
        e = metric_index_describer_open(shards->index, i, own, &x.describer);
        if (e != OK)
            break;
        e = export_partition(&x, &shards->partitions[i]);
        metric_index_describer_close(x.describer);
    }
    if (e == OK)
        *out_exported = exported;
    sample_columns_close(&x.columns);
    buf_close(&x.labels);
    pool_close(x.pool);
    pool_close(own);
    shards_close(shards);
    return e;
}
