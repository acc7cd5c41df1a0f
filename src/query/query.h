/* Queries: who may run, for how long, with how much memory, and on which threads. The room's only door.
 *
 *   query_begin (admission: a slot, or a place in the queue) → query_evaluate, or reads of query_source
 *     → query_release (slot free, memory kept while the answer is sent) → query_end
 *
 * The room knows no HTTP and no storage: the node hands over a source, api/ asks. A query's deadline,
 * cancellation and sample budget are one struct guard that everything below asks; its memory is one
 * pool with a budget, below the budget of all queries. */
#ifndef QUERY_QUERY_H
#define QUERY_QUERY_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "io/io.h"
#include "model/guard.h"
#include "model/source.h"
#include "promql/promql.h"

#include <stdbool.h>
#include <stdint.h>

#define QUERY_CONCURRENT_MAX 1024
#define QUERY_QUEUE_MAX      65536
#define QUERY_WORKERS_MAX    256

struct query_config {
    uint32_t concurrent_max;   /* 20: running at once; more wait */
    uint32_t queue_max;        /* 256: waiting; more are refused at once: ERR_BUSY */
    int64_t queue_wait_ms_max; /* 30 s: in the queue; then ERR_BUSY */
    int64_t timeout_ms;        /* 2 min: from begin to the end of evaluation */
    int64_t lookback_ms;       /* 5 min */
    int64_t slow_ms;           /* 10 s: longer ones are reported with their text; 0 = none */
    uint64_t samples_max;      /* 50,000,000: read by one query: ERR_LIMIT */
    uint64_t query_bytes_max;  /* 1 GiB: memory of one query: ERR_LIMIT */
    uint64_t series_max;       /* 0: of one selector; 0 = no bound but the memory's */
    uint32_t worker_count;     /* threads besides the callers'; 0 = cores - 1. Fixed at open */
};

/* The figures above. */
struct query_config query_config_default(void);

/* ERR_INPUT with the reason: a setting outside its range. */
err query_config_check(const struct query_config *config, struct err_at *at);

struct query_service;
struct query;

/* Start the workers and the watcher. source and io outlive the service; pool is the memory of all
 * queries, its budget theirs. Where threads do not exist (simulation) queries run in their callers' alone.
 * ERR_INPUT, ERR_LIMIT. */
err query_service_open(const struct query_config *config, struct io *io, struct source *source,
                       struct pool *pool, struct query_service **out_service);

/* What of that which was acknowledged before query_begin is in the answer, or named as missing. */
struct query_need {
    bool is_strong; /* everything; else what is older than 5 s, and: */
    struct slice
        token; /* … what these tokens (model/token.h) tell; may be empty. Borrowed until query_begin ends */
};

/* How far a query's partitions must have been applied for that: the positions, ascending, in pool. It waits for
 * them, not beyond the guard. Without one (a node that is alone knows what was acknowledged) every query is
 * strong. Set before the first query. Errors those of the guard, ERR_LIMIT, ERR_CLOSED; ERR_INPUT a token is none,
 * text in at. */
typedef err (*query_positions)(void *context, const struct query_need *need, struct guard *guard,
                               struct pool *pool, struct source_position **out_positions, size_t *out_count,
                               struct err_at *at);
void query_service_set_positions(struct query_service *service, query_positions positions, void *context);

/* Refuse new queries with ERR_CLOSED, cancel the waiting and running ones. They end in their own threads. */
void query_service_stop(struct query_service *service);

/* Stop, wait until every query has ended, free. */
void query_service_close(struct query_service *service);

/* Change what can change while running: everything but worker_count; for queries that begin later.
 * ERR_INPUT. */
err query_service_configure(struct query_service *service, const struct query_config *config,
                            struct err_at *at);

struct query_service_usage {
    uint32_t running;
    uint32_t waiting;
    uint64_t bytes_used;
};
struct query_service_usage query_service_usage(struct query_service *service);

struct query_options {
    struct slice tenant; /* borrowed until query_end */
    struct slice text;   /* for the slow-query line; borrowed until query_end */
    int64_t timeout_ms;  /* 0 = the configured; longer ones are cut to it */
    int64_t lookback_ms; /* 0 = the configured */
    struct query_need need;
    bool (*is_canceled)(void *context); /* asked every 50 ms until query_release, from other threads too;
                                         * NULL = never */
    void *context;
};

/* Admit a query, waiting for a slot if there is none. Errors ERR_BUSY queue full or waited too long,
 * ERR_CANCELED, ERR_TIMEOUT its own deadline passed in the queue, or while it waited for positions,
 * ERR_INPUT a token is none, ERR_CLOSED (text in at for all), ERR_LIMIT no memory. Cost a mutex and a pool. */
err query_begin(struct query_service *service, const struct query_options *options, struct query **out_query,
                struct err_at *at);

/* Give back the slot: evaluation is over, the answer stands in query_pool. Reports the query if it was slow
 * and counts it under what is returned: `result`, but ERR_BUSY for an ERR_LIMIT because other queries have the
 * memory, for then it may be asked again. *at (NULL is allowed) comes with the text of the failure, if it has
 * one, and gets the bound that an ERR_LIMIT without text is about; what has words of its own loses it.
 * Idempotent. */
err query_release(struct query *query, err result, struct err_at *at);

/* query_release(query, OK) if that is still to come, then free all memory of the query. NULL is allowed. */
void query_end(struct query *query);

struct pool *query_pool(struct query *query); /* lives until query_end */
struct guard *query_guard(struct query *query);
struct source *query_source(struct query *query);
struct slice query_tenant(const struct query *query);
uint64_t query_series_max(const struct query *query); /* SIZE_MAX when unbounded */

struct query_times {
    int64_t queue_ns; /* waited for a slot */
    int64_t parse_ns;
    int64_t eval_ns;
};

/* Parse and evaluate text at start … end (step_ms 0: an instant query). The result lives in query_pool
 * until query_end. Errors of promql_parse and promql_eval, text in at. */
err query_evaluate(struct query *query, struct slice text, int64_t start_ms, int64_t end_ms, int64_t step_ms,
                   struct promql_result *out_result, struct query_times *out_times, struct err_at *at);

/* The workers, for evaluations that are none of the service's queries; until query_service_close. */
struct promql_runner query_service_runner(struct query_service *service);

/* Call job for every index in [0, count), in this thread and in the service's workers, until all are done. */
void query_run(struct query *query, size_t count, void (*job)(void *context, size_t index), void *context);

#endif
