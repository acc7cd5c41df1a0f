/* Row group: the rows of one frozen head, sorted by series, as bytes: the unit of the stream file.
 * Layout: docs/format/stream-group.md.
 *
 * Series have stream numbers: dense, local to one stream file, in order of first appearance. A group
 * carries the labels of the series it is the first to use; otherwise it stands alone. Within a series
 * rows keep arrival order, duplicates and out-of-order times included. */
#ifndef METRIC_GROUP_H
#define METRIC_GROUP_H

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/pool.h"
#include "base/slice.h"
#include "base/time.h"
#include "metric/head.h"
#include "model/sample.h"
#include "model/sum.h"

#include <stddef.h>
#include <stdint.h>

#define METRIC_GROUP_BYTES_MAX (1u << 30)

/* ---- stream numbers: which series the file knows, kept per stream file in memory (4 B a local) ---- */
struct metric_stream_numbers {
    struct pool *pool;
    uint32_t *number_of_local; /* METRIC_ROW_NONE = not in the file */
    size_t local_capacity;
    uint32_t count; /* numbers given = series of the file */
};
static inline struct metric_stream_numbers metric_stream_numbers_open(struct pool *pool)
{
    return (struct metric_stream_numbers){ .pool = pool };
}
void metric_stream_numbers_close(struct metric_stream_numbers *numbers);
uint32_t metric_stream_number(const struct metric_stream_numbers *numbers, uint32_t local);
/* Bind the next number to a local: after a group became durable, for each of its new locals in order; at
 * restart for each dictionary entry in order (METRIC_LOCAL_NONE: skip the number). ERR_LIMIT. */
err metric_stream_numbers_add(struct metric_stream_numbers *numbers, uint32_t local);

/* ---- encoding ---- */

/* Describes a series by local number: append canonical labels to labels, tell tenant (borrowed until the
 * end of the encoding). */
struct metric_series_door {
    err (*describe)(void *context, uint32_t local, struct buf *labels, struct slice *out_tenant);
    void *context;
};

struct metric_group_result {
    struct time_range range;
    uint32_t row_count;
    uint32_t histogram_count;
    uint32_t series_count;
    uint32_t *new_locals; /* in scratch: those that get the next stream numbers, in order */
    uint32_t new_count;
};

/* Append the bytes of everything visible in the view to out. sum: of all float and histogram rows, as they were
 * counted when they came; whoever reads the group back can prove it. numbers is only read. scratch: arena memory,
 * also of the result; about 12 B a row. ERR_LIMIT, and what the door returns.
 * Deterministic. Cost about 12 ns a row. */
err metric_group_encode(const struct metric_head_view *view, struct sum sum,
                        const struct metric_stream_numbers *numbers, const struct metric_series_door *door,
                        struct pool *scratch, struct buf *out, struct metric_group_result *out_result);

/* ---- reading ---- */

/* Positioned reads of the bytes of a group: exactly len bytes at offset (within the group). May be called
 * from several threads. ERR_IO, ERR_END. */
struct metric_group_bytes {
    err (*read)(void *context, uint64_t offset, void *at, size_t len);
    void *context;
    uint64_t len;
};

/* An open group: header and block directory in memory (about 0.5 B a series). Immutable, any thread. */
struct metric_group;

/* ERR_CORRUPT, ERR_VERSION, ERR_LIMIT, ERR_IO, ERR_END. bytes is copied; its context outlives the group. */
err metric_group_open(struct pool *parent, const struct metric_group_bytes *bytes,
                      struct metric_group **out_group);
void metric_group_close(struct metric_group *group); /* NULL is allowed */

struct metric_group_facts {
    struct sum sum;
    struct time_range range;
    uint32_t row_count, histogram_count, series_count;
    uint32_t first_new_number, new_count; /* the dictionary covers [first, first + count) */
    uint32_t exemplar_count, metadata_count;
};
struct metric_group_facts metric_group_facts(const struct metric_group *group);

/* Read the dictionary: calls entry for number first_new_number, +1, … with canonical labels; slices live
 * during the call. ERR_CORRUPT, ERR_LIMIT, ERR_IO, and what entry returns. */
err metric_group_dictionary(const struct metric_group *group, struct pool *scratch,
                            err (*entry)(void *context, uint32_t number, struct slice tenant,
                                         struct slice labels),
                            void *context);

/* Append the rows of one series with times in range to columns, in arrival order, duplicates included;
 * histogram bytes are copied into columns->pool's arena. A series that is not in the group adds nothing.
 * ERR_CORRUPT (nothing of this series is added), ERR_LIMIT, ERR_IO, ERR_END. scratch: arena memory for the
 * block, the caller resets it. Cost: one read of about 1-8 KiB and ~5 ns a row of 64 series. */
err metric_group_read(const struct metric_group *group, uint32_t number, struct time_range range,
                      struct pool *scratch, struct sample_columns *columns);

/* Many series of one group: a block decoded once for all of them. One flat piece of memory of `bytes` bytes that
 * may be copied anywhere (8-byte aligned). */
struct metric_group_rows {
    size_t bytes;
    uint32_t series_count, row_count; /* … series, times and values follow */
};

/* The block that may hold a series; metric_group_block_count when none does. */
uint32_t metric_group_block_find(const struct metric_group *group, uint32_t number);
uint32_t metric_group_block_count(const struct metric_group *group);

/* Decode a block: rows with times in range of the series whose bit is set in wanted (numbers ≥ wanted_count are
 * not). The result is arena memory of scratch, which the caller resets. ERR_CORRUPT, ERR_LIMIT, ERR_IO, ERR_END.
 * Cost: one read and ~5 ns a row of the block. */
err metric_group_block_load(const struct metric_group *group, uint32_t block, const uint64_t *wanted,
                            uint32_t wanted_count, struct time_range range, struct pool *scratch,
                            struct metric_group_rows **out_rows);

/* As metric_group_read from decoded rows. *out_other: the series has histograms or start times, which decoded rows
 * do not keep; nothing was added, metric_group_read has them. ERR_LIMIT. */
err metric_group_rows_add(const struct metric_group_rows *rows, uint32_t number,
                          struct sample_columns *columns, bool *out_other);

/* Walk all rows in (stream number, arrival) order; reads ahead block by block. */
struct metric_group_histogram {
    uint32_t before; /* float rows of this series that arrived before it */
    int64_t t_ms;
    int64_t start_ms; /* 0 = unset */
    struct slice bytes;
};
struct metric_group_series {
    uint32_t number;
    const int64_t *t_ms;
    const uint64_t *value_bits;
    const int64_t *start_ms; /* NULL: none has one; 0 = unset */
    size_t row_count;
    const struct metric_group_histogram *histograms;
    size_t histogram_count;
};
struct metric_group_walk;
err metric_group_walk_open(const struct metric_group *group, struct pool *parent,
                           struct metric_group_walk **out_walk);
/* Borrowed until the next call. ERR_END after the last; ERR_CORRUPT, ERR_LIMIT, ERR_IO. */
err metric_group_walk_next(struct metric_group_walk *walk, struct metric_group_series *out_series);
void metric_group_walk_close(struct metric_group_walk *walk); /* NULL is allowed */

/* Add to row_counts[number] the rows of each series, floats and histograms; values are not decoded.
 * ERR_CORRUPT (also: a number ≥ number_count), ERR_LIMIT, ERR_IO, ERR_END. Cost below 1 ns a row. */
err metric_group_count(const struct metric_group *group, struct pool *scratch, uint64_t *row_counts,
                       uint32_t number_count);

/* Exemplars (series = stream number) and metadata rows, all of the group, in arena memory of pool. */
err metric_group_exemplars(const struct metric_group *group, struct pool *pool,
                           struct metric_exemplar **out_exemplars, size_t *out_count);
err metric_group_metadata(const struct metric_group *group, struct pool *pool,
                          struct metric_metadata **out_metadata, size_t *out_count);

/* Read everything, check every checksum and count; with fingerprints (of stream numbers) also the SUM.
 * ERR_CORRUPT, … fingerprint may be NULL. */
err metric_group_verify(const struct metric_group *group, struct pool *scratch,
                        struct hash128 (*fingerprint)(void *context, uint32_t number), void *context);

#endif
