/* Replicas compared, and the one that is wrong mended: docs/decisions/0019-comparing-replicas.md. The room's door.
 *
 *   own shards ─ sums ─┐
 *   another owner ─ ask ─┴→ sync_compare ─ differ, twice ─→ who is to begin anew? ─ this one ─→ shards
 *   own stream files ─ read back ─ not what was applied ─────────────────────────────────────────┘
 *
 * sync_step does a bounded piece of it; how other nodes are asked is a table of functions, so that tests and the
 * simulator step it as the server does. */
#ifndef SYNC_SYNC_H
#define SYNC_SYNC_H

#include "base/err.h"
#include "base/pool.h"
#include "io/io.h"
#include "shard/shard.h"

#include "sync/compare.h"
#include "sync/wire.h"

#include <stdbool.h>
#include <stdint.h>

struct sync;

#define SYNC_OWNERS_MAX   5
#define SYNC_INTERVAL_MS  60000       /* between two comparisons of a partition … */
#define SYNC_READ_BYTES_S (8u << 20)  /* … or longer, for stream files are read again no faster */
#define SYNC_STEP_BYTES   (16u << 20) /* of them at once, a group at least */
#define SYNC_SOON_MS      5000        /* after a difference, or when nothing could be compared */

/* Test-only sabotage, one bit each. 0 in use. */
enum sync_plant {
    SYNC_PLANT_NO_COMPARISON = 1, /* whatever others tell is equal */
    SYNC_PLANT_NO_READ_BACK = 2,  /* what is on the disk is believed */
};

struct sync_config {
    struct shards *shards; /* shared ones; outlive it */
    uint32_t partition_count;
    /* Slots of the other live owners of a partition into out_slots, and this node's own; returns how many, 0 also
     * when this node is none of them. */
    uint32_t (*owners)(void *context, uint32_t partition, uint32_t out_slots[SYNC_OWNERS_MAX],
                       uint32_t *out_self);
    /* Ask one of them. Any error: it does not answer now. */
    err (*ask)(void *context, uint32_t slot, const struct sync_request *request, struct shard_sums *out_sums);
    void *context;
    int64_t interval_ms;   /* 0: as above */
    uint64_t read_bytes_s; /* 0: as above */
    unsigned plants;
};

/* The config is copied. ERR_LIMIT. */
err sync_open(const struct sync_config *config, struct io *io, struct pool *pool, struct sync **out_sync);
void sync_close(struct sync *sync); /* NULL is allowed */

/* Compare at most one partition. Returns the time of io_monotonic_ns at which there is more to do. One thread. */
int64_t sync_step(struct sync *sync);

/* May the objects of a partition be swept: is it not being compared, and known to be like others? Any thread. */
bool sync_may_sweep(struct sync *sync, uint32_t partition);

#endif
