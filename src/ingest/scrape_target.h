/* Targets: from addresses and rules to labels, a URL and a state. Private to scraping. */
#ifndef INGEST_SCRAPE_TARGET_H
#define INGEST_SCRAPE_TARGET_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "ingest/scrape.h"
#include "ingest/scrape_cache.h"
#include "ingest/scrape_config.h"

#include <stdbool.h>
#include <stdint.h>

#define SCRAPE_REPORTS(X)                                   \
    X(REPORT_UP, "up")                                      \
    X(REPORT_DURATION, "scrape_duration_seconds")           \
    X(REPORT_SCRAPED, "scrape_samples_scraped")             \
    X(REPORT_KEPT, "scrape_samples_post_metric_relabeling") \
    X(REPORT_ADDED, "scrape_series_added")

#define REPORT_ENUM(id, name) id,
enum scrape_report { SCRAPE_REPORTS(REPORT_ENUM) REPORT_COUNT };
#undef REPORT_ENUM

/* What discovery and rules make of one address. In the pool it was built in. */
struct target_spec {
    struct slice discovered; /* canonical labels before the rules */
    bool is_dropped;
    const char *trouble; /* why it cannot be scraped; then is_dropped too */
    struct slice labels; /* canonical, what every series gets */
    struct slice url;    /* NUL-terminated */
    int64_t interval_ms, timeout_ms;
    uint64_t hash; /* of labels with the hidden ones, and the URL */
};

/* Build the spec of group.targets[index]; file: where the group came from, empty for static ones.
 * ERR_LIMIT. Cost: the job's rules once. Source: Prometheus 3, scrape/target.go PopulateLabels. */
err target_build(const struct scrape_job *job, const struct scrape_group *group, size_t index,
                 struct slice file, struct pool *pool, struct target_spec *out_spec);

struct target {
    struct pool *pool; /* of this struct, its strings and its cache */
    /* constant */
    struct slice labels;
    struct label *label_list; /* the same, apart; sorted */
    size_t label_count;
    struct slice url;
    uint64_t hash;
    struct slice reports[REPORT_COUNT]; /* canonical labels of the rows about the scrape */
    /* under the manager's lock */
    struct scrape_config *config; /* held; job is inside */
    const struct scrape_job *job;
    int64_t interval_ms, timeout_ms;
    int64_t due_ms;
    size_t heap_index; /* SIZE_MAX: not waiting, a worker has it */
    bool is_new;       /* built, not yet in the schedule */
    bool is_removed;
    bool forgets; /* the job changed: what its lines meant is worth nothing */
    enum scrape_health health;
    int64_t last_scrape_ms, last_duration_ns;
    char last_error[ERR_TEXT_BYTES_MAX];
    /* the worker that runs it */
    struct scrape_cache cache;
    bool has_cache;
};

/* A target below pool with the spec's strings copied; holds job->config. ERR_LIMIT. */
err target_open(const struct target_spec *spec, const struct scrape_job *job, struct pool *pool,
                struct target **out_target);
void target_close(struct target *target);

/* Copy canonical labels into an array. ERR_LIMIT. */
err labels_list(struct slice labels, struct pool *pool, struct label **out_list, size_t *out_count);

#endif
