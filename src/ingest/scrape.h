/* Scraping: fetch metrics from targets on a schedule and hand them to ingest. docs/scraping.md. */
#ifndef INGEST_SCRAPE_H
#define INGEST_SCRAPE_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "ingest/scrape_config.h"

#include <stdbool.h>
#include <stdint.h>

struct io;
struct ingest;
struct ingest_rows;
struct ingest_result;
struct scrape;

/* Where rows go: ingest_write with its ingest, or a test. Blocks until the rows are durable. */
struct scrape_sink {
    void (*write)(void *context, struct slice tenant, const struct ingest_rows *rows,
                  struct ingest_result *out_result);
    void *context;
};
struct scrape_sink scrape_sink_of(struct ingest *ingest);

struct scrape_options {
    unsigned workers_max;    /* 256 threads; started as they are needed */
    size_t memory_bytes_max; /* bodies, caches, targets: 4 GB; a scrape beyond fails */
    int64_t discover_ms;     /* 2,000: how often discovery files are looked at */
};
struct scrape_options scrape_options_default(void);

/* Start scraping. config is held as long as needed. Errors ERR_LIMIT too many targets or no memory or
 * thread. */
err scrape_open(struct io *io, struct pool *pool, struct scrape_sink sink,
                const struct scrape_options *options, struct scrape_config *config,
                struct scrape **out_scrape, struct err_at *at);

/* Take a new configuration, all or nothing. A target whose labels and URL stay keeps its schedule and state;
 * series of targets that go get stale markers. ERR_LIMIT: the old one goes on. */
err scrape_reload(struct scrape *scrape, struct scrape_config *config, struct err_at *at);

/* End running scrapes (within a second) and stop. Writes no stale markers, so that a restart leaves no
 * hole. */
void scrape_close(struct scrape *scrape);

/* ---- for /api/v1/targets ---- */
enum scrape_health { SCRAPE_UNKNOWN, SCRAPE_UP, SCRAPE_DOWN };
const char *scrape_health_text(enum scrape_health health); /* "unknown", "up", "down" */

struct scrape_target_status {
    struct slice job;               /* scrapePool */
    struct slice discovered_labels; /* canonical */
    struct slice labels;            /* canonical; empty when dropped */
    bool is_dropped;
    struct slice url;        /* scrapeUrl and globalUrl */
    struct slice last_error; /* empty = none */
    int64_t last_scrape_ms;  /* Unix ms; 0 = never */
    int64_t last_duration_ns;
    enum scrape_health health;
    int64_t interval_ms;
    int64_t timeout_ms;
};

/* All targets, active ones first, copied into pool. ERR_LIMIT. */
err scrape_status(struct scrape *scrape, struct pool *pool, struct scrape_target_status **out_targets,
                  size_t *out_count);

/* Names of all jobs, in order, copied into pool. ERR_LIMIT. */
err scrape_job_names(struct scrape *scrape, struct pool *pool, struct slice **out_names, size_t *out_count);

#endif
