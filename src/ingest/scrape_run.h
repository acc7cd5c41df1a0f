/* One scrape of one target. Private to scraping. */
#ifndef INGEST_SCRAPE_RUN_H
#define INGEST_SCRAPE_RUN_H

#include "ingest/ingest.h"
#include "ingest/scrape_target.h"

#include <stdatomic.h>

#define SCRAPE_ROWS_PER_WRITE 100000 /* larger scrapes are handed over in parts */

/* What one worker needs, reused from scrape to scrape. Owner: the worker. */
struct scrape_work {
    struct io *io;
    struct scrape_sink sink;
    const _Atomic bool *abort;
    struct pool *pool;    /* blocks below, connections */
    struct pool *scratch; /* reset for every scrape */
    struct net_client *client;
    struct buf body;
    struct ingest_row *rows;
    size_t row_count, row_capacity;
    struct ingest_row_exemplar *exemplars;
    size_t exemplar_count, exemplar_capacity;
    struct batch_metadata *metadata;
    size_t metadata_count, metadata_capacity;
};

struct scrape_outcome {
    enum scrape_health health;
    int64_t duration_ns;
    char error[ERR_TEXT_BYTES_MAX]; /* empty = none */
};

/* ERR_LIMIT. */
err scrape_work_open(struct io *io, struct scrape_sink sink, const _Atomic bool *abort, struct pool *pool,
                     struct scrape_work *out_work);
void scrape_work_close(struct scrape_work *work);

/* Fetch, parse, relabel, write rows stamped t_ms; failures become up = 0, stale markers and outcome.error. The
 * caller has the target for itself; job is what it is scraped with. */
void scrape_run(struct scrape_work *work, struct target *target, const struct scrape_job *job,
                int64_t timeout_ms, int64_t t_ms, struct scrape_outcome *out_outcome);

/* The target is gone: stale markers for all it had, the rows about the scrape included. */
void scrape_end(struct scrape_work *work, struct target *target, const struct scrape_job *job, int64_t t_ms);

#endif
