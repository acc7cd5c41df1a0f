/* The source interface: how a query reads series without knowing who stores them. A shard, a set of
 * shards, or later another node implements it; promql/ and api/ use it; query/ hands it over.
 *
 * Flow: select → per thread: open a reader, for each series labels and samples as wanted, close it → close.
 * A set is a consistent snapshot: reads see the rows that were applied when select returned (later rows may
 * appear, none disappear). */
#ifndef MODEL_SOURCE_H
#define MODEL_SOURCE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "base/time.h"
#include "model/guard.h"
#include "model/matcher.h"
#include "model/proof.h"
#include "model/sample.h"

#include <stdbool.h>

#define SOURCE_GENERATION_ANY UINT64_MAX /* whichever the partition has */

/* How far a partition must have been applied before an answer may count as complete (read your writes). */
struct source_position {
    uint32_t partition;
    uint64_t generation;
    uint64_t offset; /* the next one to be applied, within the generation */
};

struct source_request {
    struct slice tenant;
    const struct matcher *matchers; /* of one selector; NULL with count 0 = every series */
    size_t matcher_count;
    struct time_range range; /* only series with a sample possibly in here, rows clipped to it */
    size_t series_max;       /* ERR_LIMIT when more match; SIZE_MAX = no bound */
    const uint64_t
        *partitions; /* a bit for each that is asked for; NULL: all there are. What of them is not here
                                   is named as missing */
    const struct source_position
        *after; /* ascending; a source that waits for all that is durable needs none */
    size_t after_count;
    struct guard *guard;
};

/* Is a partition among those asked for? */
static inline bool source_asks(const uint64_t *partitions, uint32_t number)
{
    return partitions == NULL || (partitions[number / 64] >> number % 64 & 1) != 0;
}

struct source;
struct source_set;
struct
    source_reader; /* of one thread at a time; keeps what neighbours share, so ascending series are cheap */

struct source_exemplar {
    struct slice labels; /* canonical, the exemplar's own */
    int64_t t_ms;
    double value;
};

struct source_metadata {
    struct slice family; /* metric name */
    struct slice type;   /* "counter", "gauge", … */
    struct slice help;
    struct slice unit;
};

struct source_name_count {
    struct slice name;
    uint64_t count;
};

/* Counts for status/tsdb; each list has at most the asked number of entries, largest first. */
struct source_cardinality {
    uint64_t series_count;
    uint64_t label_pair_count;
    struct time_range range;
    struct source_name_count *by_metric;
    size_t by_metric_count;
    struct source_name_count *by_label;
    size_t by_label_count; /* values per label name */
    struct source_name_count *by_pair;
    size_t by_pair_count; /* series per name=value */
    struct source_name_count *bytes_by_label;
    size_t bytes_by_label_count;
};

/* ---- units: parts of a query that a source may evaluate itself ---- */

#define SOURCE_GROUP_COLUMNS_MAX 3
#define SOURCE_NOTE_COUNT_MAX    1000 /* texts of a kind that come with the groups of a unit */

/* A group's partial state: what the evaluator keeps for it at each step. Borrowed during the call of take. */
struct source_group {
    struct slice labels; /* canonical; what the aggregation keeps of its members' */
    bool drop_name;      /* __name__ goes when the result is made */
    const double *columns[SOURCE_GROUP_COLUMNS_MAX]; /* step_count each; SAMPLE_STALE_BITS in the first: no
                                                         value at that step */
};

/* An aggregation over one selector, or absent() of one, and the steps it is wanted at. */
struct source_unit {
    struct slice text;   /* the whole query: what is said of places is said of it */
    uint32_t begin, end; /* bytes of text that are the unit */
    int64_t query_start_ms, query_end_ms,
        query_step_ms;         /* what @ start(), @ end(), step() and range() mean */
    int64_t start_ms, step_ms; /* evaluated at start + i × step, i in [0, step_count) */
    uint64_t step_count;
    int64_t lookback_ms, subquery_step_ms;
    uint32_t column_count; /* of each group */
    err (*take)(void *context, const struct source_group *group);
    void *context;
};

/* What is known of the groups that were taken, besides them. Memory is in the call's pool. */
struct source_groups {
    struct proof proof;
    uint64_t series_count, sample_count; /* selected and read for it */
    struct slice *warnings, *infos;      /* distinct within one source */
    size_t warning_count, info_count;
};

struct source_table {
    /* Wait until everything durable at the call is applied, then find the series. Everything the set
     * needs is in pool; ERR_LIMIT, ERR_TIMEOUT, ERR_CANCELED, ERR_CLOSED. The order of the series is how they
     * are stored, each once: who needs them sorted sorts what it keeps. */
    err (*select)(struct source *source, const struct source_request *request, struct pool *pool,
                  struct source_set **out_set);

    size_t (*set_count)(const struct source_set *set);

    /* Readers of a set, any number, from any thread; all closed before the set. ERR_LIMIT. */
    err (*reader_open)(struct source_set *set, struct source_reader **out_reader);
    void (*reader_close)(struct source_reader *reader); /* NULL allowed */

    /* Append the canonical labels of a series. ERR_CORRUPT (a damaged index), ERR_LIMIT (out's maximum). */
    err (*read_labels)(struct source_reader *reader, size_t series, struct buf *out);

    /* Samples of one series within request.range, replacing what `columns` held. A damaged block is left out
     * and named in the proof (the caller asks set_proof after its last read). Accounts for its rows with
     * guard_samples; callers do not. Errors ERR_LIMIT and the guard's. */
    err (*read_samples)(struct source_reader *reader, size_t series, struct sample_columns *columns);

    const struct proof *(*set_proof)(struct source_set *set);
    void (*set_close)(struct source_set *set);

    /* Sorted, unique, in pool; limited to `limit` entries (0 = all); request as for select, with
     * several selectors meaning their union (selector_count 0 = all series). */
    err (*label_names)(struct source *source, const struct source_request *requests, size_t request_count,
                       size_t limit, struct pool *pool, struct slice **out_names, size_t *out_count,
                       struct proof *out_proof);
    err (*label_values)(struct source *source, struct slice name, const struct source_request *requests,
                        size_t request_count, size_t limit, struct pool *pool, struct slice **out_values,
                        size_t *out_count, struct proof *out_proof);

    /* Exemplars of one series of a set, in time order, in pool. */
    err (*set_exemplars)(struct source_set *set, size_t series, struct pool *pool,
                         struct source_exemplar **out_exemplars, size_t *out_count);

    /* Metadata of a family (empty = all), newest per (family, type, help, unit). */
    err (*metadata)(struct source *source, struct slice tenant, struct slice family, struct pool *pool,
                    struct source_metadata **out_metadata, size_t *out_count);

    err (*cardinality)(struct source *source, struct slice tenant, size_t limit, struct pool *pool,
                       struct source_cardinality *out_cardinality);

    /* NULL: who asks evaluates, from samples. Evaluate a unit where its series are and hand over each group with
     * unit.take, whose errors end it; a group may come several times, each time with the state of other series.
     * *out_groups is filled before the first is taken.
     * The request is that of the unit's select, without matchers. ERR_UNSUPPORTED, before anything was taken: not
     * this unit, or not now; it can be evaluated from samples. Else as select and read_samples; accounts for the
     * rows that were read. */
    err (*groups)(struct source *source, const struct source_request *request, const struct source_unit *unit,
                  struct pool *pool, struct source_groups *out_groups);
};

struct source {
    const struct source_table *table;
    void *context;
};

#endif
