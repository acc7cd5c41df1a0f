/* PromQL: query text → expression → columns of values. The room's only door.
 *
 * Flow: promql_parse (text → typed, checked tree in a pool) → promql_eval (tree × source → result) →
 * promql_expr_done. The language is Prometheus 3.14's without experimental functions; docs/promql.md lists
 * what is supported and which semantics were chosen. Knows no HTTP, no storage, no clock: time comes in
 * with the request, series through model/source.h, workers through struct promql_runner. */
#ifndef PROMQL_PROMQL_H
#define PROMQL_PROMQL_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "base/time.h"
#include "model/guard.h"
#include "model/matcher.h"
#include "model/sample.h"
#include "model/source.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROMQL_TEXT_BYTES_MAX           (64u << 10) /* of one expression */
#define PROMQL_DEPTH_MAX                256         /* of nesting */
#define PROMQL_NODE_COUNT_MAX           16384
#define PROMQL_STEP_COUNT_MAX           1000000 /* of one grid, subqueries' own grids included */
#define PROMQL_LOOKBACK_MS_DEFAULT      (5 * MS_PER_MINUTE)
#define PROMQL_SUBQUERY_STEP_MS_DEFAULT MS_PER_MINUTE
#define PROMQL_ANNOTATION_COUNT_MAX     10 /* of each kind; more are counted, as Prometheus does */

enum promql_type { PROMQL_SCALAR, PROMQL_VECTOR, PROMQL_MATRIX, PROMQL_STRING };

struct promql_expr;

/* Parse and type-check text. The tree and everything it needs is in pool, except compiled regular
 * expressions, which promql_expr_done frees.
 * Errors ERR_INPUT with line, column (from 1) and Prometheus' message text in at, without position
 *        and without the `invalid parameter "query": ` prefix; ERR_LIMIT text, depth or nodes over the
 *        bounds above, or, with no position (at->line 0), the pool's budget. Nothing is to be freed after a
 *        failure.
 * Cost   linear in the text. */
err promql_parse(struct slice text, struct pool *pool, struct promql_expr **out_expr, struct err_at *at);
void promql_expr_done(struct promql_expr *expr);

/* What the expression yields for an instant query. A range query takes only scalars and vectors. */
enum promql_type promql_expr_type(const struct promql_expr *expr);
const char *promql_type_name(enum promql_type type); /* "scalar", "vector", "matrix", "string": resultType */

/* One vector selector of an expression; matchers borrowed until promql_expr_done. */
struct promql_selector {
    const struct matcher *matchers; /* includes the one for __name__ */
    size_t matcher_count;
};

/* Every selector in order of appearance (query_exemplars, match[]). Array in pool. ERR_LIMIT. */
err promql_selectors(const struct promql_expr *expr, struct pool *pool,
                     struct promql_selector **out_selectors, size_t *out_count);

/* Parse a series selector (match[]): as promql_parse, but anything other than one plain vector selector is
 * ERR_INPUT. The selector is what promql_selectors gives. */
err promql_parse_selector(struct slice text, struct pool *pool, struct promql_expr **out_expr,
                          struct err_at *at);

/* Parse a duration as the HTTP API takes it (`5m`, `1h30m`, `1d`; no sign, no fraction). ERR_INPUT. */
err promql_parse_duration(struct slice text, int64_t *out_ms, struct err_at *at);

/* Who runs jobs in parallel. run calls job(job_context, i) for every i in [0, job_count) from any threads,
 * possibly at once, and returns after the last one ended. NULL run = the caller's thread, in order. */
struct promql_runner {
    void *context;
    unsigned width; /* jobs that may run at once; 0 and 1 mean no parallelism */
    void (*run)(void *context, size_t job_count, void (*job)(void *job_context, size_t index),
                void *job_context);
};

struct promql_request {
    const struct promql_expr *expr;
    struct source *source;
    struct slice tenant;
    int64_t start_ms;
    int64_t end_ms;             /* ≥ start_ms; an instant query has end_ms == start_ms and step_ms == 0 */
    int64_t step_ms;            /* > 0 for a range query, 0 for an instant query */
    int64_t lookback_ms;        /* 0 = PROMQL_LOOKBACK_MS_DEFAULT */
    int64_t subquery_step_ms;   /* of `[r:]`; 0 = PROMQL_SUBQUERY_STEP_MS_DEFAULT */
    size_t series_max;          /* of one selector; 0 = no bound */
    const uint64_t *partitions; /* as in source_request; NULL = all */
    const struct source_position *after;
    size_t after_count;
    struct guard *guard; /* NULL = none */
    struct promql_runner runner;
};

struct promql_series {
    struct slice labels; /* canonical, model/labels.h */
    size_t count;        /* points, ascending by time; exactly one for an instant vector */
    const int64_t *t_ms;
    const double *values;                      /* NaN where the point is a histogram */
    const struct sample_histogram *histograms; /* row = index of the point; ascending */
    size_t histogram_count;
};

struct promql_stats {
    uint64_t samples_loaded; /* rows read from the source */
    uint64_t series_loaded;
    uint64_t step_count;
};

/* Everything is in the pool given to promql_eval and lives as long as it. */
struct promql_result {
    /* Instant query: the expression's type. Range query: PROMQL_MATRIX. */
    enum promql_type type;
    double scalar;                /* PROMQL_SCALAR */
    struct slice string;          /* PROMQL_STRING */
    struct promql_series *series; /* PROMQL_VECTOR, PROMQL_MATRIX (sorted by labels_compare) */
    size_t series_count;
    struct slice *warnings; /* texts as Prometheus writes them, position included */
    size_t warning_count;
    struct slice *infos;
    size_t info_count;
    struct proof proof; /* over all selectors: what any of them lacks; complete when there is none */
    struct promql_stats stats;
};

/* Evaluate. All memory comes from pool and pools opened below it (closed before return), so the
 * pool's budget bounds the query.
 * Errors ERR_EXECUTION Prometheus' message in at; ERR_INPUT a string or matrix expression for a range
 *        query, or a bad time range; ERR_LIMIT budget, series_max, guard's samples or step count (text in at);
 *        ERR_TIMEOUT, ERR_CANCELED from the guard; the source's errors.
 * Owner  one thread per request; the runner's threads work only inside the call.
 * Cost   one pass over the samples of each selector plus O(series × steps). */
err promql_eval(const struct promql_request *request, struct pool *pool, struct promql_result *out_result,
                struct err_at *at);

/* Evaluate one unit of a query over source, as source_table.groups (model/source.h), for whoever asks from
 * elsewhere: promql_eval there takes the groups on, merged with those of others. runner: as in a request; NULL =
 * none. Everything but the groups handed over is in pool.
 * Errors ERR_UNSUPPORTED the text is not understood or is no unit, or its evaluation fails for what the data are
 *        (native histograms): from samples the asker finds out what to say; else as promql_eval. */
err promql_unit_eval(struct source *source, const struct source_request *request,
                     const struct source_unit *unit, const struct promql_runner *runner, struct pool *pool,
                     struct source_groups *out_groups);

#endif
