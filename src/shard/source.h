/* What select.c, source.c, gather.c and source_meta.c share: a query's snapshot of the partitions. */
#ifndef SHARD_SOURCE_H
#define SHARD_SOURCE_H

#include "shard/partition.h"

#include <stdatomic.h>

/* Rows not in segments yet: a row group or a head, in position order. */
struct view_piece {
    const struct range_group *group; /* NULL: a head */
    uint32_t range_index;            /* of the group's range in the view */
    struct metric_head_view head;
    struct metric_head *head_reference;
    struct metric_group_rows *_Atomic *blocks; /* of the group, decoded at first use; NULL: not gathered */
};

/* Stream numbers of a set's series in one range. */
struct gather_wanted {
    uint64_t *bits;
    uint32_t count;
};

struct view_segment {
    struct live_segment *live;
    struct metric_compact *compact;
};

/* One partition as it was at one moment; holds references. Arrays in the set's pool. */
struct view {
    struct partition *partition;
    struct time_range range; /* asked for, clipped by the retention cut-off */
    struct range **ranges;
    uint32_t range_count;
    struct view_piece *pieces; /* only those whose times overlap the range */
    size_t piece_count;
    struct gather_wanted *wanted;  /* per range, once gather_open was called */
    struct view_segment *segments; /* likewise; NULL compact never */
    size_t segment_count;
    size_t first_series, series_count; /* of the set's series, once they are selected */
};

struct views {
    struct shards *shards;
    struct pool *pool;
    struct view *views; /* by partition */
    uint32_t hold;      /* of the index */
    struct proof proof;
    struct io_mutex lock; /* of the proof's missing list, and of the set's reader list */
};

/* Wait for what is durable of the partitions that the request asks for, then take references to their rows within
 * `range`; the others' views are empty. Close with views_close in any case but an error. */
err views_open(struct shards *shards, const struct source_request *request, struct time_range range,
               struct pool *pool, struct views *out_views);
void views_close(struct views *views);
/* Name something as missing; any thread. */
void views_missing(struct views *views, uint32_t partition, struct time_range range, const char *reason);

static inline bool time_overlaps(struct time_range a, struct time_range b)
{
    return a.min_ms <= b.max_ms && b.min_ms <= a.max_ms;
}

struct set_reference {
    uint32_t segment; /* of the partition's view */
    uint32_t ordinal;
};

struct set_series {
    uint32_t partition;
    uint32_t id;    /* of the live index; METRIC_ID_NONE: only in segments */
    uint32_t local; /* METRIC_LOCAL_NONE likewise */
    uint32_t first_reference, reference_count;
    const uint32_t *numbers; /* stream number per range of the view */
};

struct gather;

struct source_set {
    struct views views;
    struct guard *guard;
    struct metric_index_view *index; /* labels of live series; NULL: no rows outside segments */
    struct set_series *series;
    size_t series_count;
    struct set_reference *references;
    struct source_reader *readers; /* free ones, under views.lock */
    struct gather *gather;         /* NULL: few series */
};

/* view.c: a segment of the view was read with this outcome. Damage is remembered and named as missing, and is then
 * OK to go on with; all else is handed back. what: static text. Any thread. */
err views_segment_read(struct views *views, const struct view *view, uint32_t segment, err e,
                       const struct err_at *at, const char *what);

/* select.c */
err source_select(struct source *source, const struct source_request *request, struct pool *pool,
                  struct source_set **out_set);

/* gather.c: rows of groups, each block decoded once for all series of the set. Open after the series are known;
 * ERR_LIMIT. */
err gather_open(struct source_set *set);
void gather_close(struct source_set *set);
/* Append a series' rows of a group. *out_alone: nothing was added, metric_group_read must read them. Errors as
 * metric_group_read. */
err gather_read(struct source_set *set, const struct view *view, const struct view_piece *piece,
                uint32_t number, struct pool *scratch, struct sample_columns *columns, bool *out_alone);

/* source_meta.c */
err source_label_names(struct source *source, const struct source_request *requests, size_t request_count,
                       size_t limit, struct pool *pool, struct slice **out_names, size_t *out_count,
                       struct proof *out_proof);
err source_label_values(struct source *source, struct slice name, const struct source_request *requests,
                        size_t request_count, size_t limit, struct pool *pool, struct slice **out_values,
                        size_t *out_count, struct proof *out_proof);
err source_set_exemplars(struct source_set *set, size_t series, struct pool *pool,
                         struct source_exemplar **out_exemplars, size_t *out_count);
err source_metadata(struct source *source, struct slice tenant, struct slice family, struct pool *pool,
                    struct source_metadata **out_metadata, size_t *out_count);
err source_cardinality(struct source *source, struct slice tenant, size_t limit, struct pool *pool,
                       struct source_cardinality *out_cardinality);

#endif
