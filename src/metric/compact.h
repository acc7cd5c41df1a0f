/* Compact metric segments: the kind of segment file that keeps series for ever. docs/format/compact.md.
 *
 * Series are sorted by (tenant, metric_series_compare): labels without `le` first, so that a metric's series and
 * a histogram's buckets are neighbours. A series is a list of parts of at most METRIC_COMPACT_PART_ROWS_MAX
 * rows; rows are in
 * (t, position) order, and of equal t the last one wins. Within a segment a series is known by its ordinal. */
#ifndef METRIC_COMPACT_H
#define METRIC_COMPACT_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "base/time.h"
#include "metric/index_part.h"
#include "model/batch.h"
#include "model/matcher.h"
#include "model/sample.h"
#include "model/source.h"
#include "model/sum.h"
#include "segment/segment.h"

#include <stdbool.h>
#include <stdint.h>

#define METRIC_COMPACT_VERSION         1
#define METRIC_COMPACT_PART_ROWS_MAX   6144       /* 24 vectors: a day at 15 s */
#define METRIC_COMPACT_SERIES_ROWS_MAX (1u << 24) /* of one series in one segment */
#define METRIC_COMPACT_SERIES_MAX      (1u << 26)

/* Order of series in a segment: labels but `le` pairwise by name, then value; then without `le` before with
 * it; then
 * by the number in `le`, largest first (+Inf leads its buckets), then by its text. */
int metric_series_compare(struct slice a, struct slice b);

/* ---- writing ---- */

/* The rows of one series in (t, position) order; equal times are allowed where `duplicates` were asked for.
 * A row of a native histogram has an entry (rows ascend); its value_bits are ignored. */
struct metric_rows {
    const int64_t *t_ms;
    const uint64_t *value_bits;
    const int64_t *start_ms; /* NULL: all unset */
    size_t count;
    const struct sample_histogram *histograms;
    size_t histogram_count;
};

struct metric_compact_writer;

struct metric_compact_config {
    const char *path; /* temporary name; the caller moves the file into place */
    uint32_t partition;
    uint64_t from_generation, from_offset, to_generation, to_offset;
    bool fast;      /* the quick search of encodings: +1–3 % size, half the time */
    bool sum_known; /* the SUM of all rows to come is known: it is written, and not added up here; … */
    struct sum sum; /* … this one. A verification of the file proves it */
};

/* Begin a segment. Errors as segment_writer_open. Owner: one thread. Memory: about 40 B a part and 24 B a
 * timeline, plus the index under construction, in a child of pool. */
err metric_compact_writer_open(struct io *io, const struct metric_compact_config *config, struct pool *pool,
                               struct metric_compact_writer **out_writer);

/* Append the next series, 1 or more rows. tenant and labels are in order behind the last ones (checked).
 * Errors ERR_LIMIT, ERR_SPACE, ERR_IO. Cost about 50 ns a row. */
err metric_compact_writer_series(struct metric_compact_writer *writer, struct slice tenant,
                                 struct slice labels, const struct metric_rows *rows);

/* Exemplars of the series appended last, by time. ERR_LIMIT, ERR_SPACE, ERR_IO. */
err metric_compact_writer_exemplars(struct metric_compact_writer *writer,
                                    const struct source_exemplar *exemplars, size_t count);

/* Metadata of a tenant, any time before finish; equal entries are kept once. ERR_LIMIT. */
err metric_compact_writer_metadata(struct metric_compact_writer *writer, struct slice tenant,
                                   const struct batch_metadata *metadata);

struct metric_compact_written {
    struct segment_written file;
    struct segment_info info; /* tenants: until the writer is closed */
};

/* Write the rest, sync, close the file. dropped, expired: SUMs for the info, NULL for none. */
err metric_compact_writer_finish(struct metric_compact_writer *writer, const struct sum *dropped,
                                 const struct sum *expired, struct metric_compact_written *out_written);
void metric_compact_writer_close(struct metric_compact_writer *writer); /* NULL is allowed */

/* ---- reading ---- */
struct metric_compact;

/* Open; the source outlives it. Errors as segment_open; ERR_VERSION also for a newer kind_version, ERR_UNSUPPORTED
 * another kind. Tables of a few bytes per 256 series stay in pool until close, all else is in the cache. */
err metric_compact_open(struct segment_source source, struct segment_cache *cache, struct pool *pool,
                        struct metric_compact **out_compact, struct err_at *at);
void metric_compact_close(struct metric_compact *compact);

const struct segment_info *metric_compact_info(const struct metric_compact *compact);

/* The ordinals of a tenant: [*out_first, *out_first + *out_count); none: count 0. */
void metric_compact_tenant(const struct metric_compact *compact, struct slice tenant, uint32_t *out_first,
                           uint32_t *out_count);

/* Ordinals of the tenant's series that satisfy the matchers, ascending, in arena memory of pool. Any
 * thread. Errors ERR_CORRUPT, ERR_IO, ERR_LIMIT. */
err metric_compact_select(struct metric_compact *compact, struct slice tenant, const struct matcher *matchers,
                          size_t matcher_count, struct pool *pool, uint32_t **out_ordinals, size_t *out_count,
                          struct err_at *at);

/* The label index of a tenant: an entry of the block cache, held from get to release and soon gone after it when
 * the cache needs the room. */
struct metric_compact_index {
    struct metric_part part; /* its ordinals count from the tenant's first */
    uint32_t first;          /* that one */
    struct segment_block block;
};
/* Any thread. ERR_NOT_FOUND: no such tenant here; else as for select. */
err metric_compact_index_get(struct metric_compact *compact, struct slice tenant,
                             struct metric_compact_index *out_index, struct err_at *at);
void metric_compact_index_release(struct metric_compact *compact, struct metric_compact_index *index);

/* Labels of series for one thread, of one segment after the other; ascending ordinals are the cheap order. Holds
 * one index at a time. It must not move between reads. */
struct metric_compact_labels {
    struct metric_compact *compact; /* of the index that is held; NULL: none */
    struct metric_compact_index index;
    struct metric_part_cursor cursor;
};
/* Memory is in arena memory of pool. ERR_LIMIT. */
err metric_compact_labels_open(struct pool *pool, struct metric_compact_labels *out_labels);
void metric_compact_labels_close(struct metric_compact_labels *labels); /* a zeroed one is allowed */
/* Append the canonical labels of a series to out. The segment outlives the labels' next turn to another, or their
 * close. Errors as for select. */
err metric_compact_labels_read(struct metric_compact_labels *labels, struct metric_compact *compact,
                               uint32_t ordinal, struct buf *out, struct err_at *at);

/* A cursor reads series of one segment for one thread; it keeps what neighbours share (directory granule, the
 * bucket above, the last timelines: timeline_count of them, 1 … METRIC_COMPACT_TIMELINES_MAX, up to 48 KiB
 * each). Ascending ordinals are the cheap order. */
#define METRIC_COMPACT_TIMELINES_MAX 16
struct metric_compact_cursor;
err metric_compact_cursor_open(struct metric_compact *compact, unsigned timeline_count, struct pool *pool,
                               struct metric_compact_cursor **out_cursor);
void metric_compact_cursor_close(struct metric_compact_cursor *cursor); /* NULL is allowed */

/* Append to columns the rows of a series in the range: times unique (the last of equal ones), ascending. Histogram
 * bytes live until the next read with this cursor. start_ms of columns is filled only when some row has one.
 * Errors ERR_CORRUPT (at names the block), ERR_IO, ERR_LIMIT; then columns hold what they held. Cost about
 * 1 ns a row. */
err metric_compact_read(struct metric_compact_cursor *cursor, uint32_t ordinal, struct time_range range,
                        struct sample_columns *columns, struct err_at *at);

/* Every row of a series as it is stored, duplicates too, borrowed until the next call. For merges and
 * verification. Errors as metric_compact_read. */
err metric_compact_read_all(struct metric_compact_cursor *cursor, uint32_t ordinal,
                            struct metric_rows *out_rows, struct err_at *at);

/* First and last time of a series without decoding rows. */
err metric_compact_series_time(struct metric_compact_cursor *cursor, uint32_t ordinal,
                               struct time_range *out_time, struct err_at *at);

/* Exemplars of a series in the order they were given, in arena memory of pool. */
err metric_compact_exemplars(struct metric_compact *compact, uint32_t ordinal, struct pool *pool,
                             struct source_exemplar **out_exemplars, size_t *out_count, struct err_at *at);

/* Metadata of a tenant, in arena memory of pool. */
err metric_compact_metadata(struct metric_compact *compact, struct slice tenant, struct pool *pool,
                            struct batch_metadata **out_metadata, size_t *out_count, struct err_at *at);

/* Verify everything: segment_verify, then decode every row and compare order, counts, time range, SUM and
 * distinct SUM with the info. digest may be NULL. Errors ERR_CORRUPT with the place in at, ERR_VERSION, ERR_IO,
 * ERR_LIMIT. Cost one read and one decode of the file. */
err metric_compact_verify(struct segment_source source, const uint8_t *digest, struct pool *pool,
                          struct segment_info *out_info, struct err_at *at);

/* ---- merging ---- */
struct metric_compact_share;
struct metric_compact_merge {
    struct metric_compact **inputs; /* in position order: of equal (tenant, labels, t) the later wins */
    size_t input_count;
    struct time_range window;                 /* rows outside are left alone: another merge takes them */
    int64_t cutoff_ms;                        /* rows older are dropped as expired; INT64_MIN = none */
    struct guard *guard;                      /* may be NULL; canceled → ERR_CANCELED */
    const struct metric_compact_share *share; /* NULL: every series and all metadata */
};

/* A part of one input: of the series those whose number, by ordinal, is this one. */
struct metric_compact_share {
    const uint16_t *number_of_series;
    uint16_t number;
    bool (*takes_metadata)(const struct metric_compact_share *share, struct slice tenant,
                           struct slice family);
    void *context;
};

/* Write the merge of inputs to writer (opened, empty) and finish it. Duplicates are dropped and summed. Over all
 * windows of a set of inputs: Σ info.sum of inputs = Σ (sum + dropped + expired) of outputs.
 * ERR_NOT_FOUND: no row is left; abandon the file (out_written has dropped and expired in its info).
 * Errors of reading (at names the input) and of writing. */
err metric_compact_merge(const struct metric_compact_merge *merge, struct metric_compact_writer *writer,
                         struct pool *pool, struct metric_compact_written *out_written, struct err_at *at);

#endif
