/* Head: the newest rows of one partition, in memory, in arrival order, 24 bytes a row.
 *
 * One thread appends (apply), any number read at the same time without locks: rows become visible with
 * one release store of the row count. When full (or asked) it is frozen, encoded as a row group (group.h)
 * and dropped when its last reader is done.
 *
 * Series are the partition's local numbers (index.h). Order of rows is arrival order; a histogram row
 * stands between the float rows it arrived between. */
#ifndef METRIC_HEAD_H
#define METRIC_HEAD_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "base/time.h"
#include "model/batch.h"
#include "model/sample.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define METRIC_HEAD_ROWS_MAX (1u << 26) /* hard bound of rows_max */
#define METRIC_ROW_NONE      UINT32_MAX

struct metric_head_config {
    uint32_t rows_max;       /* float rows; at least 1 */
    uint32_t histograms_max; /* histogram rows */
    size_t arena_bytes_max;  /* bytes of histograms, exemplar labels, metadata texts */
    uint32_t exemplars_max;  /* further ones are dropped and counted */
    uint32_t metadata_max;   /* likewise */
};

static inline struct metric_head_config metric_head_config_default(void)
{
    return (struct metric_head_config){ .rows_max = 256u << 10,
                                        .histograms_max = 64u << 10,
                                        .arena_bytes_max = (size_t)32 << 20,
                                        .exemplars_max = 16u << 10,
                                        .metadata_max = 16u << 10 };
}

struct metric_head;

/* Open an empty head with one reference. ERR_LIMIT. */
err metric_head_open(struct pool *parent, const struct metric_head_config *config,
                     struct metric_head **out_head);

/* References: the head goes with its last. Any thread. */
struct metric_head *metric_head_ref(struct metric_head *head);
void metric_head_unref(struct metric_head *head); /* NULL is allowed */

/* ---- writing: one thread ---- */

/* Room for so much more? ERR_FULL: freeze this head and open the next. Ask before a record is applied, so
 * that a record is never split over two heads; a record alone larger than an empty head is applied
 * anyhow (ERR_FULL only when something is in it). */
err metric_head_reserve(struct metric_head *head, size_t rows, size_t histograms, size_t arena_bytes);

/* Append float rows: three parallel columns; starts as in struct batch (ascending rows, indexes into these
 * columns). All or nothing. ERR_LIMIT memory. Cost <= 4 ns a row. */
err metric_head_append(struct metric_head *head, const uint32_t *locals, const int64_t *t_ms,
                       const uint64_t *value_bits, size_t count, const struct batch_start *starts,
                       size_t start_count);

/* Append one histogram row; canonical bytes are copied. start_ms 0 = unset. ERR_LIMIT. */
err metric_head_append_histogram(struct metric_head *head, uint32_t local, int64_t t_ms, int64_t start_ms,
                                 struct slice bytes);

/* Keep an exemplar; labels and value copied. Beyond exemplars_max it is dropped (OK) and counted. */
err metric_head_append_exemplar(struct metric_head *head, uint32_t local, int64_t t_ms, double value,
                                struct slice labels);

/* Keep a metadata row of a tenant, unless the same is in this head already. As above. */
err metric_head_append_metadata(struct metric_head *head, struct slice tenant,
                                const struct batch_metadata *m);

/* Make everything appended so far visible to readers at once (a record's rows appear together). Appends
 * are invisible until this is called. */
void metric_head_publish(struct metric_head *head);

/* Set bit `local` (of bytes, lowest first) for every series with a row, histogram or exemplar in the head, visible
 * or not; local numbers from `count` on are passed over. The writer's: its series stay in the index. */
void metric_head_mark(const struct metric_head *head, uint8_t *bits, uint32_t count);

/* ---- reading: any thread ---- */

/* What was visible at one moment; reads through it see nothing later. */
struct metric_head_view {
    const struct metric_head *head; /* the caller holds a reference */
    uint32_t row_count;
    uint32_t histogram_count;
    uint32_t exemplar_count;
    uint32_t metadata_count;
    struct time_range range; /* of all rows; empty head: min > max */
};
struct metric_head_view metric_head_view(const struct metric_head *head);

/* Has the series any row in the view? */
bool metric_head_has(const struct metric_head_view *view, uint32_t local);

/* Append the series' rows with times in range to columns, oldest arrival first, duplicates included
 * (metric_columns_resolve makes them what queries want). Histogram bytes borrow the head. ERR_LIMIT.
 * Cost about 5-10 ns a row. */
err metric_head_read(const struct metric_head_view *view, uint32_t local, struct time_range range,
                     struct sample_columns *columns);

/* Exemplars of a series, all (range) in arrival order, appended to an arena array of pool; labels borrow
 * the head. */
struct metric_exemplar {
    uint32_t series; /* local number in a head, stream number in a group */
    int64_t t_ms;
    double value;
    struct slice labels;
};
err metric_head_exemplars(const struct metric_head_view *view, uint32_t local, struct time_range range,
                          struct pool *pool, struct metric_exemplar **out_exemplars, size_t *out_count);

/* Metadata rows of a tenant in arrival order; slices borrow the head. family empty = all. */
struct metric_metadata {
    struct slice tenant, family, help, unit;
    uint8_t type;
};
err metric_head_metadata(const struct metric_head_view *view, struct slice tenant, struct slice family,
                         struct pool *pool, struct metric_metadata **out_metadata, size_t *out_count);

/* Exemplars and metadata rows not kept because of their bounds. */
uint64_t metric_head_dropped(const struct metric_head *head);

/* ---- columns ---- */

/* Turn rows in arrival order (of one series, gathered from old to new) into what sample.h promises: times
 * ascend and are unique; of equal times the later arrival stays. In place; sorted input costs one pass.
 * ERR_LIMIT. */
err metric_columns_resolve(struct sample_columns *columns);

#endif
