/* Admission, deadlines, cancellation and evaluation of queries. See query.h.
 *
 * A query comes from an API call's thread. query_begin takes a slot or waits for one; a watcher thread asks
 * every WATCH_NS whether the clients of running queries are still there and raises guard.canceled if not. It
 * sleeps for good only after WATCH_IDLE_MAX looks at nothing: waking it costs as much as a small query.
 *
 *   waiting ─(slot free)→ running ─(query_release)→ sending ─(query_end)→ gone
 *      └─(deadline, queue wait, client gone, stop)→ refused
 *
 * Invariants, all under service->mutex
 *  1. running = number of queries in the running list ≤ concurrent_max (as it was when they began).
 *  2. waiting ≤ queue_max. Slots are given in the order of arrival: only the oldest waiter takes one.
 *  3. open_count counts queries between begin and end; the service is freed only at 0. */
#include "query/query.h"

#include "base/check.h"
#include "base/diag.h"
#include "base/stat.h"
#include "io/thread.h"
#include "query/after.h"
#include "query/workers.h"

#define WATCH_NS            (50 * NS_PER_MS)
#define WATCH_IDLE_MAX      100
#define SLOW_TEXT_BYTES_MAX 700 /* of a query in its slow-query line */

struct query_service {
    struct io *io;
    struct pool *pool; /* of all queries */
    struct source *source;
    query_positions positions; /* NULL: every query is strong */
    void *positions_context;
    struct query_workers *workers;
    struct io_thread *watcher;

    struct io_mutex mutex;
    struct io_cond changed; /* for those who wait: a slot became free, the last query ended, stop */
    struct io_cond watch;   /* the first query after the watcher went to sleep; closing */
    bool is_watcher_asleep;
    struct query_config config;
    struct query *running;
    uint32_t running_count;
    uint32_t waiting_count;
    struct waiter *waiters; /* oldest first */
    uint32_t open_count;
    bool is_stopping;
    bool is_closing;
};

struct waiter {
    struct waiter *next;
};

struct query {
    struct query_service *service;
    struct pool *pool;
    struct query *next; /* in the running list */
    struct guard guard;
    struct slice tenant;
    struct slice text;
    bool (*is_canceled)(void *context);
    void *context;
    int64_t lookback_ms;
    int64_t slow_ms;
    uint64_t series_max;
    int64_t begin_ns;
    int64_t queue_ns;
    bool is_running;
    struct source *source; /* the service's, or `after` */
    struct after_source after;
};

struct query_config query_config_default(void)
{
    return (struct query_config){
        .concurrent_max = 20,
        .queue_max = 256,
        .queue_wait_ms_max = 30 * MS_PER_SECOND,
        .timeout_ms = 2 * MS_PER_MINUTE,
        .lookback_ms = PROMQL_LOOKBACK_MS_DEFAULT,
        .slow_ms = 10 * MS_PER_SECOND,
        .samples_max = 50 * 1000 * 1000,
        .query_bytes_max = UINT64_C(1) << 30,
    };
}

err query_config_check(const struct query_config *config, struct err_at *at)
{
    if (config->concurrent_max < 1 || config->concurrent_max > QUERY_CONCURRENT_MAX)
        return err_set(at, ERR_INPUT, "query concurrency must be 1 to %d", QUERY_CONCURRENT_MAX);
    if (config->queue_max > QUERY_QUEUE_MAX)
        return err_set(at, ERR_INPUT, "query queue must be at most %d", QUERY_QUEUE_MAX);
    if (config->queue_wait_ms_max < 0 || config->timeout_ms < 1 || config->timeout_ms > MS_PER_DAY)
        return err_set(at, ERR_INPUT, "query timeout must be 1 ms to 1 day, queue wait not negative");
    if (config->lookback_ms < 1 || config->lookback_ms > 365 * MS_PER_DAY)
        return err_set(at, ERR_INPUT, "query lookback must be 1 ms to 1 year");
    if (config->slow_ms < 0 || config->samples_max == 0 || config->query_bytes_max < 1u << 20)
        return err_set(at, ERR_INPUT, "query budgets must be positive, memory at least 1 MiB");
    if (config->worker_count > QUERY_WORKERS_MAX)
        return err_set(at, ERR_INPUT, "query workers must be at most %d", QUERY_WORKERS_MAX);
    return OK;
}

/* Ask the clients of all running queries whether they are still there. */
static void watch(struct query_service *service)
{
    for (struct query *query = service->running; query != NULL; query = query->next)
        if (query->is_canceled != NULL && query->is_canceled(query->context))
            atomic_store_explicit(&query->guard.canceled, true, memory_order_relaxed);
}

static void watcher_run(void *context)
{
    struct query_service *service = context;
    unsigned idle_count = 0;
    io_mutex_lock(&service->mutex);
    while (!service->is_closing) {
        service->is_watcher_asleep = service->running == NULL && idle_count >= WATCH_IDLE_MAX;
        if (service->is_watcher_asleep)
            io_cond_wait(&service->watch, &service->mutex);
        else
            (void)io_cond_wait_for(&service->watch, &service->mutex, WATCH_NS);
        idle_count = service->running == NULL ? idle_count + 1 : 0;
        watch(service);
    }
    io_mutex_unlock(&service->mutex);
}

err query_service_open(const struct query_config *config, struct io *io, struct source *source,
                       struct pool *pool, struct query_service **out_service)
{
    TRY(query_config_check(config, NULL));
    void *room;
    TRY(pool_zalloc(pool, sizeof(struct query_service), &room));
    struct query_service *service = room;
    service->io = io;
    service->pool = pool;
    service->source = source;
    service->config = *config;
    /* A query's own thread works, too: one more would only make them wait for each other. */
    unsigned worker_count = config->worker_count != 0 ? config->worker_count : io_cpu_count(io) - 1;
    TRY(query_workers_open(io, pool, worker_count, &service->workers));
    io_mutex_init(&service->mutex);
    io_cond_init(&service->changed);
    io_cond_init(&service->watch);
    if (io_thread_start(io, "query-watch", watcher_run, service, &service->watcher) != OK)
        service->watcher = NULL; /* deadlines still hold; only clients that left are noticed late */
    *out_service = service;
    return OK;
}

void query_service_set_positions(struct query_service *service, query_positions positions, void *context)
{
    service->positions = positions;
    service->positions_context = context;
}

void query_service_stop(struct query_service *service)
{
    io_mutex_lock(&service->mutex);
    service->is_stopping = true;
    for (struct query *query = service->running; query != NULL; query = query->next)
        atomic_store_explicit(&query->guard.canceled, true, memory_order_relaxed);
    io_cond_broadcast(&service->changed);
    io_mutex_unlock(&service->mutex);
}

void query_service_close(struct query_service *service)
{
    if (service == NULL)
        return;
    query_service_stop(service);
    io_mutex_lock(&service->mutex);
    while (service->open_count > 0)
        io_cond_wait(&service->changed, &service->mutex);
    service->is_closing = true;
    io_cond_signal(&service->watch);
    io_mutex_unlock(&service->mutex);
    if (service->watcher != NULL)
        io_thread_join(service->watcher);
    query_workers_close(service->workers);
    io_cond_done(&service->changed);
    io_cond_done(&service->watch);
    io_mutex_done(&service->mutex);
}

err query_service_configure(struct query_service *service, const struct query_config *config,
                            struct err_at *at)
{
    TRY(query_config_check(config, at));
    io_mutex_lock(&service->mutex);
    service->config = *config;
    io_cond_broadcast(&service->changed); /* more slots may have become free */
    io_mutex_unlock(&service->mutex);
    return OK;
}

struct query_service_usage query_service_usage(struct query_service *service)
{
    io_mutex_lock(&service->mutex);
    struct query_service_usage usage = { .running = service->running_count,
                                         .waiting = service->waiting_count,
                                         .bytes_used = pool_used(service->pool) };
    io_mutex_unlock(&service->mutex);
    return usage;
}

/* ---- admission ---- */

static void waiters_add(struct query_service *service, struct waiter *waiter)
{
    struct waiter **at = &service->waiters;
    while (*at != NULL)
        at = &(*at)->next;
    *at = waiter;
    service->waiting_count++;
}

static void waiters_remove(struct query_service *service, struct waiter *waiter)
{
    struct waiter **at = &service->waiters;
    while (*at != waiter)
        at = &(*at)->next;
    *at = waiter->next;
    service->waiting_count--;
    io_cond_broadcast(&service->changed); /* the next in line may be the first now */
}

/* Wait for a slot, the mutex held. The waiter is the first in line and a slot is free when this is OK. */
static err wait_for_slot(struct query_service *service, const struct query_options *options,
                         const struct guard *guard, struct err_at *at)
{
    struct waiter self = { .next = NULL };
    int64_t wait_ms_max = service->config.queue_wait_ms_max;
    int64_t until_ns = io_monotonic_ns(service->io) + wait_ms_max * NS_PER_MS;
    err e = OK;

    waiters_add(service, &self);
    for (;;) {
        int64_t now_ns = io_monotonic_ns(service->io);
        if (service->is_stopping)
            e = err_set(at, ERR_CLOSED, "the server is shutting down");
        else if (service->waiters == &self && service->running_count < service->config.concurrent_max)
            break;
        else if (now_ns >= guard->deadline_ns)
            e = err_set(at, ERR_TIMEOUT, "query timed out in the queue");
        else if (now_ns >= until_ns)
            e = err_set(at, ERR_BUSY, "too many queries: waited %lld ms for a slot", (long long)wait_ms_max);
        else if (options->is_canceled != NULL && options->is_canceled(options->context))
            e = err_set(at, ERR_CANCELED, "query was canceled in the queue");
        if (e != OK)
            break;
        (void)io_cond_wait_for(&service->changed, &service->mutex, WATCH_NS);
    }
    waiters_remove(service, &self);
    return e;
}

static err take_slot(struct query_service *service, const struct query_options *options, struct query *query,
                     struct err_at *at)
{
    if (service->is_stopping)
        return err_set(at, ERR_CLOSED, "the server is shutting down");
    if (service->waiters != NULL || service->running_count >= service->config.concurrent_max) {
        if (service->waiting_count >= service->config.queue_max)
            return err_set(at, ERR_BUSY, "too many queries: %u run, %u wait", service->running_count,
                           service->waiting_count);
        stat_add(STAT_QUERIES_QUEUED, 1);
        TRY(wait_for_slot(service, options, &query->guard, at));
    }
    query->next = service->running;
    service->running = query;
    service->running_count++;
    query->is_running = true;
    if (service->is_watcher_asleep)
        io_cond_signal(&service->watch);
    return OK;
}

static void query_fill(struct query *query, const struct query_options *options)
{
    const struct query_config *config = &query->service->config;
    int64_t timeout_ms = config->timeout_ms;
    if (options->timeout_ms > 0 && options->timeout_ms < timeout_ms)
        timeout_ms = options->timeout_ms;
    query->begin_ns = io_monotonic_ns(query->service->io);
    query->guard = (struct guard){
        .io = query->service->io,
        .deadline_ns = query->begin_ns + timeout_ms * NS_PER_MS,
        .samples_max = config->samples_max,
    };
    query->tenant = options->tenant;
    query->text = options->text;
    query->is_canceled = options->is_canceled;
    query->context = options->context;
    query->lookback_ms = options->lookback_ms > 0 ? options->lookback_ms : config->lookback_ms;
    query->slow_ms = config->slow_ms;
    query->series_max = config->series_max;
    /* Less than all have: alone, a query that is too large fails at its own bound, and is not told to wait. */
    size_t all = pool_budget(query->service->pool), most = all - all / 16;
    pool_set_budget(query->pool, config->query_bytes_max < most ? config->query_bytes_max : most);
}

/* With its slot, so that as many wait at a time as may run. */
static err take_positions(struct query *query, const struct query_need *need, struct err_at *at)
{
    struct query_service *service = query->service;
    struct source_position *positions;
    size_t count;
    err e = service->positions(service->positions_context, need, &query->guard, query->pool, &positions,
                               &count, at);
    if (e == ERR_INPUT)
        return e;
    if (e != OK)
        return err_set(at, e, "it is not known where the log ends: %s", err_text(e));
    query->source = after_source_open(&query->after, service->source, positions, count);
    return OK;
}

err query_begin(struct query_service *service, const struct query_options *options, struct query **out_query,
                struct err_at *at)
{
    struct pool *pool;
    void *room;
    err e = pool_open_object(service->pool, "query", sizeof(struct query), &pool, &room);
    if (e != OK)
        return err_set(at, e, "all memory for queries is in use");
    struct query *query = room;
    query->service = service;
    query->source = service->source;
    query->pool = pool;

    io_mutex_lock(&service->mutex);
    query_fill(query, options);
    e = take_slot(service, options, query, at);
    if (e == OK)
        service->open_count++;
    io_mutex_unlock(&service->mutex);
    if (e != OK) {
        stat_add(STAT_QUERIES_REFUSED, 1);
        pool_close(pool);
        return e;
    }
    query->queue_ns = io_monotonic_ns(service->io) - query->begin_ns;
    if (service->positions != NULL)
        e = take_positions(query, &options->need, at);
    if (e == OK)
        *out_query = query;
    else {
        ERR_IGNORE(query_release(query, e, NULL)); /* counts it */
        query_end(query);
    }
    return e;
}

/* ---- the end ---- */

/* text quoted for a diagnostic line: one line, cut to SLOW_TEXT_BYTES_MAX. */
static void quote(struct slice text, char out[SLOW_TEXT_BYTES_MAX + 8])
{
    size_t len = 0;
    out[len++] = '"';
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.at[i];
        if (len + 2 > SLOW_TEXT_BYTES_MAX) {
            memcpy(out + len, "...", 3);
            len += 3;
            break;
        }
        if (c == '"' || c == '\\')
            out[len++] = '\\';
        out[len++] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
    }
    out[len++] = '"';
    out[len] = 0;
}

static void count_end(const struct query *query, err result, int64_t took_ns)
{
    stat_add(STAT_QUERIES, 1);
    stat_add(STAT_QUERY_MILLISECONDS, took_ns / NS_PER_MS);
    stat_add(STAT_QUERY_SAMPLES, (int64_t)atomic_load(&query->guard.samples_used));
    if (result == ERR_TIMEOUT)
        stat_add(STAT_QUERIES_TIMED_OUT, 1);
    else if (result == ERR_CANCELED)
        stat_add(STAT_QUERIES_CANCELED, 1);
    else if (result != OK)
        stat_add(STAT_QUERIES_FAILED, 1);
    if (query->slow_ms == 0 || took_ns < query->slow_ms * NS_PER_MS)
        return;
    stat_add(STAT_QUERIES_SLOW, 1);
    char text[SLOW_TEXT_BYTES_MAX + 8];
    quote(query->text, text);
    diag(DIAG_WARN, "slow query",
         "tenant=%.*s duration_ms=%lld queue_ms=%lld samples=%llu result=\"%s\" query=%s",
         SLICE_ARG(query->tenant), (long long)(took_ns / NS_PER_MS), (long long)(query->queue_ns / NS_PER_MS),
         (unsigned long long)atomic_load(&query->guard.samples_used), err_text(result), text);
}

/* The words of a failure that has its own, whatever stands in at. */
static void release_text(const struct query *query, err result, struct err_at *at)
{
    if (result == ERR_LIMIT && at->text[0] == 0) {
        char text[GUARD_TEXT_BYTES];
        guard_limit_text(&query->guard, text);
        ERR_IGNORE(err_set(at, result, "%s", text)); /* result itself */
    } else if (result == ERR_BUSY || result == ERR_TIMEOUT || result == ERR_CANCELED)
        *at = (struct err_at){ 0 };
}

err query_release(struct query *query, err result, struct err_at *at)
{
    if (result == ERR_LIMIT && pool_was_crowded(query->pool))
        result = ERR_BUSY;
    if (at != NULL)
        release_text(query, result, at);
    struct query_service *service = query->service;
    io_mutex_lock(&service->mutex);
    bool was_running = query->is_running;
    if (was_running) {
        struct query **at = &service->running;
        while (*at != query)
            at = &(*at)->next;
        *at = query->next;
        check(service->running_count > 0);
        service->running_count--;
        query->is_running = false;
        if (service->waiters != NULL)
            io_cond_broadcast(&service->changed);
    }
    io_mutex_unlock(&service->mutex);
    if (was_running)
        count_end(query, result, io_monotonic_ns(service->io) - query->begin_ns);
    return result;
}

void query_end(struct query *query)
{
    if (query == NULL)
        return;
    struct query_service *service = query->service;
    ERR_IGNORE(query_release(query, OK, NULL));
    pool_close(query->pool);
    io_mutex_lock(&service->mutex);
    check(service->open_count > 0);
    if (--service->open_count == 0)
        io_cond_broadcast(&service->changed);
    io_mutex_unlock(&service->mutex);
}

/* ---- the work ---- */

struct pool *query_pool(struct query *query) { return query->pool; }
struct guard *query_guard(struct query *query) { return &query->guard; }
struct source *query_source(struct query *query) { return query->source; }
struct slice query_tenant(const struct query *query) { return query->tenant; }

uint64_t query_series_max(const struct query *query)
{
    return query->series_max != 0 ? query->series_max : SIZE_MAX;
}

err query_evaluate(struct query *query, struct slice text, int64_t start_ms, int64_t end_ms, int64_t step_ms,
                   struct promql_result *out_result, struct query_times *out_times, struct err_at *at)
{
    struct query_service *service = query->service;
    struct promql_expr *expr;
    int64_t begin_ns = io_monotonic_ns(service->io);
    *out_times = (struct query_times){ .queue_ns = query->queue_ns };
    TRY(promql_parse(text, query->pool, &expr, at));
    int64_t parsed_ns = io_monotonic_ns(service->io);
    struct promql_request request = {
        .expr = expr,
        .source = query->source,
        .tenant = query->tenant,
        .start_ms = start_ms,
        .end_ms = end_ms,
        .step_ms = step_ms,
        .lookback_ms = query->lookback_ms,
        .series_max = query->series_max,
        .guard = &query->guard,
        .runner = query_service_runner(service),
    };
    err e = promql_eval(&request, query->pool, out_result, at);
    promql_expr_done(expr);
    out_times->parse_ns = parsed_ns - begin_ns;
    out_times->eval_ns = io_monotonic_ns(service->io) - parsed_ns;
    return e;
}

struct promql_runner query_service_runner(struct query_service *service)
{
    return (struct promql_runner){ .context = service->workers,
                                   .width = query_workers_width(service->workers),
                                   .run = query_workers_run };
}

void query_run(struct query *query, size_t count, void (*job)(void *context, size_t index), void *context)
{
    query_workers_run(query->service->workers, count, job, context);
}
