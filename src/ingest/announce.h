/* Labels that were announced and acknowledged, kept to be announced again should the log go back. See
 * announce.c. */
#ifndef INGEST_ANNOUNCE_H
#define INGEST_ANNOUNCE_H

#include "base/err.h"
#include "base/pool.h"
#include "io/thread.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct announcement;
struct ingest;
struct ingest_request;
struct record;

/* Those of one partition. */
struct announced {
    struct announcement *first;
    uint64_t settled; /* generation of the log in which all of them were acknowledged; 0: to be looked at */
    size_t flying_count, flying_bytes;
    int64_t retry_ns; /* nothing is sent before */
    int64_t delay_ms; /* after the last failure; 0: it was none */
};

struct announcer {
    struct pool *pool;            /* under the mutex, as all below */
    struct io_mutex mutex;        /* behind the ingest's lock */
    struct announced *partitions; /* NULL: the log never goes back, and nothing is kept */
    struct announcement ***of;    /* by a series' id, in chunks as the table's: its newest; NULL: none */
};

/* Of an ingest whose log, pool and partition count are there; the announcer's pool is the caller's to close.
 * ERR_LIMIT. */
err announcer_init(struct ingest *ingest);
/* The log is drained. */
void announcer_done(struct announcer *announcer);

/* A record was acknowledged: keep what it announced. The ingest's lock is held. False: no memory, and the series
 * must not count as announced. */
bool announcer_keep(struct ingest *ingest, const struct ingest_request *r, const struct record *record);

/* A series is about to be dropped from the table. Lock held for writing, as for the next. */
void announcer_drop(struct ingest *ingest, uint32_t id);
/* The partition's numbers are given anew. */
void announcer_renew(struct ingest *ingest, uint32_t partition);

/* Is something of the partition to be announced again? Its numbers should stay then. Of the thread of ingest_step,
 * as the next. */
bool announcer_is_busy(struct ingest *ingest, uint32_t partition);
/* Send a bounded part of what is to be announced again. Does not wait. Lock not held. */
void announcer_step(struct ingest *ingest, int64_t now_ns);

#endif
