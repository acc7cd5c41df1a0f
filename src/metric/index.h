/* The live index: every series of the node by tenant and labels; which partition it lives in and under
 * which local number. Private to the process: no file or answer depends on its ids.
 *
 * add and add_all may be called by several threads, which take turns; nobody adds during retain and close.
 * Everything else is safe from any thread. */
#ifndef METRIC_INDEX_H
#define METRIC_INDEX_H

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/pool.h"
#include "base/slice.h"
#include "model/matcher.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define METRIC_INDEX_TENANTS_MAX    65535
#define METRIC_INDEX_PARTITIONS_MAX 4096
#define METRIC_ID_NONE              UINT32_MAX
#define METRIC_LOCAL_NONE           UINT32_MAX
#define METRIC_LOCALS_MAX           (1u << 26) /* of one partition */

struct metric_index;

/* All memory hangs below `parent`; partition_count in [1, METRIC_INDEX_PARTITIONS_MAX]. ERR_LIMIT. */
err metric_index_open(struct pool *parent, uint32_t partition_count, struct metric_index **out_index);
void metric_index_close(struct metric_index *index);

/* Find or register the series (tenant, labels) of a partition. Labels are canonical: whoever decoded them has
 * checked. out_id      its id, stable while the series lives    out_is_new  it was not there before
 * A new series gets the partition's next local number (dense from 0; numbers of dropped series are used
 * again, see retain).
 * Errors  ERR_CONFLICT known in another partition, or two label sets share a fingerprint   ERR_LIMIT memory,
 *         tenants or ids.
 * Cost ~0.1 us known, ~0.7 us new (part building included). */
err metric_index_add(struct metric_index *index, struct slice tenant, struct slice labels, uint32_t partition,
                     uint32_t *out_id, bool *out_is_new);

/* The same for several series of one tenant and partition, in order: one turn for all, and memory is asked for
 * ahead. *out_done: how many were added, also on failure; their other fields are filled in then. */
struct metric_index_item {
    struct slice labels;
    struct hash128 fingerprint;
    uint32_t id, local;
};
#define METRIC_INDEX_ITEMS 64 /* a good number of them */
err metric_index_add_all(struct metric_index *index, struct slice tenant, struct metric_index_item *items,
                         size_t count, uint32_t partition, size_t *out_done);

/* Many series are expected and few questions (a start): tails become parts only when they are long, and parts are
 * merged once. */
void metric_index_expect_many(struct metric_index *index, bool many);

/* Id of a series by its fingerprint (sum_series_hash), METRIC_ID_NONE when unknown. */
uint32_t metric_index_find(struct metric_index *index, struct hash128 fingerprint);

/* Fingerprints of a partition's series by their local number: where the index keeps them, so that who applies rows
 * needs no copy. Chunks never move; a number's is there from its add on. */
#define METRIC_FINGERPRINT_CHUNK 16384u
struct metric_fingerprints {
    _Atomic(struct hash128 *) chunks[METRIC_LOCALS_MAX / METRIC_FINGERPRINT_CHUNK];
};
static inline struct hash128 metric_fingerprint_of_local(const struct metric_fingerprints *f, uint32_t local)
{
    return atomic_load_explicit(&f->chunks[local / METRIC_FINGERPRINT_CHUNK],
                                memory_order_acquire)[local % METRIC_FINGERPRINT_CHUNK];
}
/* Of a partition, made if it is not there; lives as long as the index. ERR_LIMIT. */
err metric_index_fingerprints(struct metric_index *index, uint32_t partition,
                              const struct metric_fingerprints **out_fingerprints);

/* Facts of a series. Dropped or unknown ids: UINT16_MAX, METRIC_LOCAL_NONE, zero hash, ERR_NOT_FOUND. */
uint16_t metric_index_partition(const struct metric_index *index, uint32_t id);
uint32_t metric_index_local(const struct metric_index *index, uint32_t id);
struct hash128 metric_index_fingerprint(const struct metric_index *index, uint32_t id);
/* The id of a partition's local number; METRIC_ID_NONE. */
uint32_t metric_index_id_of_local(const struct metric_index *index, uint32_t partition, uint32_t local);
/* One more than the highest local number ever used in a partition: sizes arrays indexed by it. */
uint32_t metric_index_local_count(const struct metric_index *index, uint32_t partition);

/* A query holds the index from before its first look at ids until it keeps none any more: what it sees is not
 * freed, and local numbers freed after the hold began are not given to other series before the release. Select,
 * views, names and values below are asked under a hold. */
uint32_t metric_index_hold(struct metric_index *index); /* returns a token */
void metric_index_release(struct metric_index *index, uint32_t token);

/* Ids of the live series that satisfy all matchers, ascending, in arena memory of pool (unknown tenant:
 * none). ERR_LIMIT. */
err metric_index_select(struct metric_index *index, struct slice tenant, const struct matcher *matchers,
                        size_t matcher_count, struct pool *pool, uint32_t **out_ids, size_t *out_count);

/* The series of a tenant as they were at one moment: their labels stay readable while the view is open, whatever
 * is dropped meanwhile. Opening and closing: any thread. Errors ERR_LIMIT. */
struct metric_index_view;
err metric_index_view_open(struct metric_index *index, struct slice tenant, struct pool *parent,
                           struct metric_index_view **out_view);
void metric_index_view_close(struct metric_index_view *view); /* NULL is allowed */
/* As metric_index_select, of the view. One thread at a time. */
err metric_index_view_select(struct metric_index_view *view, const struct matcher *matchers,
                             size_t matcher_count, struct pool *pool, uint32_t **out_ids, size_t *out_count);

/* Labels of a view's series for one thread; ids that ascend are cheap (0.1 us instead of 0.3). The cursor is
 * arena memory of pool, gone with it. ERR_NOT_FOUND: not of the view; ERR_LIMIT. */
struct metric_index_cursor;
err metric_index_cursor_open(const struct metric_index_view *view, struct pool *pool,
                             struct metric_index_cursor **out_cursor);
err metric_index_cursor_labels(struct metric_index_cursor *cursor, uint32_t id, struct buf *out);

/* Tenant and labels of a partition's series by local number, for one thread; numbers that ascend are cheap, as
 * above. It holds the index while it is open. parent: its memory. Errors of opening: ERR_LIMIT. */
struct metric_index_describer;
err metric_index_describer_open(struct metric_index *index, uint32_t partition, struct pool *parent,
                                struct metric_index_describer **out_describer);
void metric_index_describer_close(struct metric_index_describer *describer); /* NULL is allowed */
/* Append the canonical labels; the tenant's slice lives as long as the index. ERR_NOT_FOUND, ERR_LIMIT. */
err metric_index_describe(void *describer, uint32_t local, struct buf *labels, struct slice *out_tenant);

/* Label names, and values of a name, sorted and unique, copied into pool. ids: restrict to these series
 * (ascending); NULL = all of the tenant. ERR_LIMIT. */
err metric_index_names(struct metric_index *index, struct slice tenant, const uint32_t *ids, size_t id_count,
                       struct pool *pool, struct slice **out_names, size_t *out_count);
err metric_index_values(struct metric_index *index, struct slice tenant, struct slice name,
                        const uint32_t *ids, size_t id_count, struct pool *pool, struct slice **out_values,
                        size_t *out_count);

/* Cardinality of a tenant: lists of at most `limit` entries, largest first, in pool. Series dropped but
 * still inside a part are counted until it is rewritten. ERR_LIMIT. */
struct metric_name_count {
    struct slice name;
    uint64_t count;
};
struct metric_cardinality {
    uint64_t series_count;
    uint64_t label_pair_count;
    struct metric_name_count *by_metric;
    size_t by_metric_count; /* series per metric name */
    struct metric_name_count *by_label;
    size_t by_label_count; /* values per label name */
    struct metric_name_count *by_pair;
    size_t by_pair_count; /* series per name=value */
    struct metric_name_count *bytes_by_label;
    size_t bytes_by_label_count; /* bytes of distinct values */
};
err metric_index_cardinality(struct metric_index *index, struct slice tenant, size_t limit, struct pool *pool,
                             struct metric_cardinality *out_cardinality);

/* Tenants that ever had a series, in pool. ERR_LIMIT. */
err metric_index_tenants(struct metric_index *index, struct pool *pool, struct slice **out_tenants,
                         size_t *out_count);

/* Live series of a tenant and of the node. */
uint64_t metric_index_tenant_series(struct metric_index *index, struct slice tenant);
uint64_t metric_index_series(const struct metric_index *index);

/* Drop every series for which keep answers false. Survivors keep id and local number. Parts with no
 * living series go, parts with more than half dead are rewritten. Queries wait for microseconds at a
 * time. ERR_LIMIT: dead series are marked all the same, rewriting is tried at the next call.
 * keep is called for live series in ascending id order. */
err metric_index_retain(struct metric_index *index, bool (*keep)(void *context, uint32_t id), void *context,
                        uint64_t *out_dropped);

#endif
