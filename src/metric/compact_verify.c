/* Verification of a compact segment: every checksum, then every row, against what the file says of itself.
 *
 *   segment_verify ─ open ─ per series: labels in order, all rows ─ SUM, distinct SUM, time range, counts
 *
 * Runs after every build and merge, before a commit. */
#include "base/check.h"
#include "metric/compact_reader.h"
#include "model/labels.h"

static err verify_tenant(struct metric_compact *c, size_t index, struct pool *scratch,
                         struct compact_totals *totals, struct err_at *at)
{
    const struct compact_tenant *tenant = &c->tenants[index];
    struct metric_compact_index whole;
    struct metric_compact_labels reader = { 0 };
    struct metric_compact_cursor *cursor = NULL;
    struct buf labels[2] = { buf_open(scratch, LABELS_BYTES_MAX), buf_open(scratch, LABELS_BYTES_MAX) };
    err e = OK;
    TRY_OUT(metric_compact_index_get(c, c->info->tenants[index], &whole, at));
    e = metric_part_verify(&whole.part, scratch);
    metric_compact_index_release(c, &whole);
    if (e != OK)
        TRY_OUT(err_set(at, e, "an index part contradicts itself"));
    TRY_OUT(metric_compact_labels_open(scratch, &reader));
    TRY_OUT(metric_compact_cursor_open(c, METRIC_COMPACT_TIMELINES_MAX, scratch, &cursor));
    for (uint32_t i = 0; i < tenant->count; i++) {
        struct buf *now = &labels[i % 2], *before = &labels[(i + 1) % 2];
        struct metric_rows rows;
        struct time_range time;
        buf_clear(now);
        TRY_OUT(metric_compact_labels_read(&reader, c, tenant->first + i, now, at));
        TRY_OUT(labels_check(buf_slice(now), NULL) == OK
                    ? OK
                    : err_set(at, ERR_CORRUPT, "labels of series %u", tenant->first + i));
        if (i > 0 && metric_series_compare(buf_slice(before), buf_slice(now)) >= 0)
            TRY_OUT(err_set(at, ERR_CORRUPT, "series %u is out of order", tenant->first + i));
        TRY_OUT(metric_compact_read_all(cursor, tenant->first + i, &rows, at));
        TRY_OUT(metric_compact_series_time(cursor, tenant->first + i, &time, at));
        struct hash128 series = sum_series_hash(c->info->tenants[index], buf_slice(now));
        if (rows.count == 0 || !compact_totals_add(totals, series, &rows, true) ||
            rows.t_ms[0] < time.min_ms || rows.t_ms[rows.count - 1] > time.max_ms)
            TRY_OUT(err_set(at, ERR_CORRUPT, "rows of series %u are out of order", tenant->first + i));
    }
out:
    buf_close(&labels[0]);
    buf_close(&labels[1]);
    metric_compact_labels_close(&reader);
    metric_compact_cursor_close(cursor);
    return e;
}

static err verify_rows(struct metric_compact *c, struct pool *scratch, struct err_at *at)
{
    const struct segment_info *info = c->info;
    struct compact_totals t = COMPACT_TOTALS_NONE;
    for (size_t i = 0; i < info->tenant_count; i++) {
        pool_reset(scratch);
        TRY(verify_tenant(c, i, scratch, &t, at));
    }
    if (!sum_equal(t.sum, info->sum) || !sum_equal(t.distinct, info->distinct))
        return err_set(at, ERR_CORRUPT, "SUM of the rows differs: %llu rows, footer says %llu",
                       (unsigned long long)t.sum.count, (unsigned long long)info->sum.count);
    if (t.time.min_ms != info->time.min_ms || t.time.max_ms != info->time.max_ms)
        return err_set(at, ERR_CORRUPT, "the time range differs from the footer's");
    for (uint32_t i = 0; i < info->series_count && c->exemplar_block_count > 0; i++) {
        struct source_exemplar *exemplars;
        size_t count;
        pool_reset(scratch);
        TRY(metric_compact_exemplars(c, i, scratch, &exemplars, &count, at));
    }
    struct batch_metadata *metadata;
    struct slice *owners;
    size_t count;
    pool_reset(scratch);
    return compact_metadata_list(c, NULL, scratch, &owners, &metadata, &count, at);
}

err metric_compact_verify(struct segment_source source, const uint8_t *digest, struct pool *pool,
                          struct segment_info *out_info, struct err_at *at)
{
    struct pool *scratch = pool_open(pool, "compact verify", POOL_BYTES_UNLIMITED);
    struct metric_compact *c = NULL;
    struct segment_cache *cache = NULL;
    err e = OK;
    TRY_OUT(segment_verify(source, digest, scratch, at));
    TRY_OUT(segment_cache_open(scratch, 4u << 20, 1, &cache));
    struct pool *rows = pool_open(scratch, "compact verify rows", POOL_BYTES_UNLIMITED);
    e = metric_compact_open(source, cache, scratch, &c, at);
    if (e == OK)
        e = verify_rows(c, rows, at);
    pool_close(rows);
    if (e == OK && out_info != NULL) {
        *out_info = *metric_compact_info(c);
        out_info->tenants = NULL;
        out_info->tenant_count = 0;
    }
out:
    metric_compact_close(c);
    segment_cache_close(cache);
    pool_close(scratch);
    return e;
}
