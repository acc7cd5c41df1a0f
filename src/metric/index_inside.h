/* The inside of the live index, for its files: index.c (writer), index_parts.c (tails, parts, merging),
 * index_read.c (queries), index_cardinality.c, index_retain.c.
 *
 *   index ─ table: fingerprint → id            ids: chunks of partition, local number
 *         └ tenants ─ parts (immutable, refcounted, ids ascend over them) ─ tail (newest series, raw labels)
 *
 * Locking: the writer is who holds `turn`; it leaves it while it builds a part, which depends only on what does
 * not change any more. `lock` guards the array of slots, the list of tenants, and every tenant's list of parts and
 * its tail pointer. The writer takes it for writing only to exchange pointers; it reads without it. Readers take
 * it for reading to find something or to take references. What is behind a reference needs no lock: parts never
 * change, a tail grows behind its published count, ids change only to "dropped". */
#ifndef METRIC_INDEX_INSIDE_H
#define METRIC_INDEX_INSIDE_H

#include "io/thread.h"
#include "metric/index.h"
#include "metric/index_part.h"
#include "metric/slots.h"

#include <stdatomic.h>

#define ID_CHUNK   4096u      /* ids a chunk */
#define ID_BLOCK   64u        /* ids that a tenant takes at a time */
#define ID_MIDDLE  1024u      /* chunks below a root entry */
#define ID_ROOT    1024u      /* 4096 × 1024 × 1024 = 2^32 ids */
#define ID_DROPPED UINT16_MAX /* as a partition */

#define TAIL_SERIES_MIN  1024u /* a tail becomes a part at a 32nd of its tenant, within these */
#define TAIL_SERIES_DUE  16384u
#define TAIL_SERIES_MANY 65536u  /* … or at so many, when many are expected */
#define TAIL_SERIES_MAX  131072u /* bound of a tail whose part is not there yet */
#define TAIL_CHUNK       1024u
#define PART_TIER_COUNT  8u         /* so many parts of a size are merged into one … */
#define PART_TIER_MANY   16u        /* … when many series are expected: full tails, once … */
#define PART_MERGE_MAX   (1u << 20) /* … of at most so many series, which bounds memory and time */

struct id_chunk {
    uint32_t locals[ID_CHUNK];
    _Atomic uint16_t partitions[ID_CHUNK];
    uint16_t tenants[ID_CHUNK / ID_BLOCK];
    uint32_t live; /* the writer's */
};

struct id_middle {
    _Atomic(struct id_chunk *) chunks[ID_MIDDLE];
};

/* Ordinals from `ordinal` on have ids from `id` on, until the next extent. Both ascend. */
struct extent {
    uint32_t ordinal;
    uint32_t id;
};

struct live_part {
    _Atomic uint32_t refs;
    struct pool *pool;
    struct metric_part part;
    struct extent *extents;
    uint32_t extent_count;
    uint32_t id_min, id_max;
    _Atomic uint32_t dropped; /* series of it that are dropped */
};

struct tail_entry {
    const uint8_t *labels;
    uint32_t len;
    uint32_t id;
    _Atomic uint64_t pairs; /* two bits for each label; 0 until the first query looks */
};

struct tail {
    _Atomic uint32_t refs;
    struct pool *pool;
    struct tail_entry *chunks[TAIL_SERIES_MAX / TAIL_CHUNK];
    _Atomic uint32_t count;
    uint32_t dropped; /* the writer's */
};

struct tenant {
    struct slice name;
    uint16_t number;
    struct live_part **parts;
    size_t part_count, part_capacity;
    struct tail *tail;
    bool is_flushing;         /* the writer's: one of them makes a part of the tail */
    uint32_t next_id, end_id; /* ids taken and not yet given out */
    _Atomic uint64_t live;
};

struct partition {
    struct slots id_of_local;
    struct metric_fingerprints fingerprints; /* by local */
    _Atomic uint32_t local_count;
    uint32_t *free_locals;
    size_t free_count, free_capacity;
};

/* What waits until no query that may know it is left. */
struct freed_local {
    uint32_t partition;
    uint32_t local;
};
struct limbo {
    struct freed_local *locals;
    size_t local_count, local_capacity;
    struct id_chunk **chunks;
    size_t chunk_count, chunk_capacity;
};

struct metric_index {
    struct pool *pool;
    struct io_mutex turn;
    struct io_cond flushed; /* a tail became a part, or could not */
    bool expects_many;      /* the writer's */
    struct io_rwlock lock;
    _Atomic uint64_t *slots; /* 32 bits of the fingerprint, then the id; METRIC_ID_NONE: free */
    uint32_t slot_count, slot_used;
    struct tenant **tenants;
    size_t tenant_count, tenant_capacity;
    struct tenant *last_tenant; /* the writer's guess */
    uint32_t partition_count;
    _Atomic(struct partition *) *partitions;
    _Atomic(struct id_middle *) ids[ID_ROOT];
    uint64_t id_end; /* ids below were taken */
    _Atomic uint64_t live;
    _Atomic uint32_t epoch;
    _Atomic uint32_t holders[2];
    struct limbo limbos[2];
};

static inline struct id_chunk *index_chunk(const struct metric_index *index, uint32_t id)
{
    struct id_middle *middle =
        atomic_load_explicit(&index->ids[id / (ID_CHUNK * ID_MIDDLE)], memory_order_acquire);
    if (middle == NULL)
        return NULL;
    return atomic_load_explicit(&middle->chunks[id / ID_CHUNK % ID_MIDDLE], memory_order_acquire);
}

static inline uint16_t chunk_partition(const struct id_chunk *chunk, uint32_t id)
{
    return chunk == NULL ? ID_DROPPED
                         : atomic_load_explicit(&chunk->partitions[id % ID_CHUNK], memory_order_relaxed);
}

/* False when the id is dropped, which may happen at any moment: who drops holds no lock that readers take. */
static inline bool chunk_fingerprint(const struct metric_index *index, const struct id_chunk *chunk,
                                     uint32_t id, struct hash128 *out)
{
    uint16_t number = chunk_partition(chunk, id);
    if (number == ID_DROPPED)
        return false;
    const struct partition *p = atomic_load_explicit(&index->partitions[number], memory_order_acquire);
    *out = metric_fingerprint_of_local(&p->fingerprints, chunk->locals[id % ID_CHUNK]);
    return true;
}

static inline bool index_lives(const struct metric_index *index, uint32_t id)
{
    return chunk_partition(index_chunk(index, id), id) != ID_DROPPED;
}

static inline struct tail_entry *tail_entry_at(const struct tail *tail, uint32_t i)
{
    return &tail->chunks[i / TAIL_CHUNK][i % TAIL_CHUNK];
}

static inline uint32_t extent_end(const struct live_part *part, uint32_t extent)
{
    return extent + 1 < part->extent_count ? part->extents[extent + 1].ordinal : part->part.series_count;
}

/* The last part whose ids begin at or below id; count when there is no part. */
static inline size_t part_of_id(struct live_part *const *parts, size_t count, uint32_t id)
{
    size_t from = 0, to = count;
    while (to - from > 1) {
        size_t middle = from + (to - from) / 2;
        if (parts[middle]->id_min <= id)
            from = middle;
        else
            to = middle;
    }
    return from;
}

/* The tenant of a name, NULL. Under the lock, or the writer. */
struct tenant *index_find_tenant(const struct metric_index *index, struct slice name);
struct tenant *index_tenant_of(const struct metric_index *index, uint32_t id);

/* ---- index_parts.c: what changes lists of parts wants the turn held ---- */
/* Of the first `count` series of a tail. *out_part NULL: none of them lives. */
err live_part_build(struct pool *parent, const struct tail *tail, uint32_t count,
                    const struct metric_index *index, struct live_part **out_part);
void live_part_unref(struct live_part *part);
/* Ordinal of an id; false when the id is not in the part. */
bool live_part_find(const struct live_part *part, uint32_t id, uint32_t *out_ordinal);
err tail_open(struct pool *parent, struct tail **out_tail);
void tail_unref(struct tail *tail);
err tail_add(struct tail *tail, struct slice labels, uint32_t id); /* ERR_FULL, ERR_LIMIT */
/* The entry of an id, NULL. */
const struct tail_entry *tail_find(const struct tail *tail, uint32_t count, uint32_t id);
/* Turn the tenant's tail into a part, and merge parts while there are many of a size. The turn is left meanwhile:
 * what others add stays in the tail. ERR_LIMIT: nothing changed, or the merge is left for the next time. */
err tenant_flush(struct metric_index *index, struct tenant *tenant);
/* Rewrite or remove parts with many dropped series; see metric_index_retain. */
err tenant_clean(struct metric_index *index, struct tenant *tenant);

/* ---- index_read.c ---- */

/* A tenant's parts and tail as they were at one moment, with references. */
struct index_view {
    struct live_part **parts;
    size_t part_count;
    struct tail *tail;
    uint32_t tail_count;
};
/* Arrays in pool. An unknown tenant gives an empty view. ERR_LIMIT. */
err index_view_open(struct metric_index *index, struct slice tenant, struct pool *pool,
                    struct index_view *out_view);
void index_view_close(struct index_view *view);

/* Labels of an id, under the lock or by the writer. ERR_NOT_FOUND, ERR_LIMIT. */
err index_labels_of(const struct metric_index *index, uint32_t id, struct slice *out_tenant, struct buf *out);

/* ---- index_retain.c ---- */
void index_limbo_close(struct metric_index *index);

/* ---- index.c ---- */
/* A table of slot_count slots with all live ids. ERR_LIMIT. */
err index_table_build(struct metric_index *index, uint32_t slot_count, _Atomic uint64_t **out_slots,
                      uint32_t *out_used);

#endif
