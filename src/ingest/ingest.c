/* The ingest room's door: configuration, entries, housekeeping. See ingest.h; the work is in request.c (a
 * request's life), route.c (series and rows), and one decoder a file.
 *
 * Locks, in this order: ingest.lock → ingest.mutex | table.mutex | request.mutex | announcer.mutex (never two of
 * the latter).
 * ingest.lock is held for reading while a request is built, some hundred microseconds, never while it waits; for
 * writing by ingest_step, in slices of WALK_SLICE entries.
 *
 * Housekeeping (ingest_step) walks the whole table once in announce_ms. What it meets
 *   was not used for idle_ms  → is dropped; its number is dead and never given again in this incarnation
 *   else                      → loses its mark, so that its next use carries its labels again (protocol §1.7)
 * A partition whose log went back loses all marks at once, metadata is stored again (hear_of_generations), and all
 * live numbers are announced again (announce.c).
 * A partition with more dead than live numbers takes a new incarnation, at most every rotate_ms (§1.8). */
#include "ingest/request.h"

#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"

#include <stdio.h>

#define WALK_SLICE 4096u /* entries looked at under one hold of the lock, about 20 us */
#define DEAD_MIN   1024  /* dead numbers below this are not worth a renewal */
/* An append waits for the sync under way and for its own, and a busy disk may take seconds for each; a disk that
 * takes twice five is ill. Senders wait longer (Prometheus 30 s), so they hear of it before they hang up. */
#define WAIT_MS (10 * MS_PER_SECOND)
/* Sequences given up that are: each is a gap that every checkpoint of the partition carries until the incarnation
 * is forgotten. At the larger number the partition does not wait for its turn: a million would be refused. */
#define GIVEN_UP_MIN 4096
#define GIVEN_UP_MAX (64u << 10)

struct ingest_limits ingest_limits_default(void)
{
    return (struct ingest_limits){ .labels_per_series_max = 60,
                                   .name_bytes_max = 1024,
                                   .value_bytes_max = 4096,
                                   .samples_per_request_max = 1000000 };
}

struct ingest_config ingest_config_default(void)
{
    return (struct ingest_config){
        .partition_count = 8,
        .body_bytes_max = 32u << 20,
        .decoded_bytes_max = 32u << 20,
        .requests_max = 256,
        .wait_ms_max = WAIT_MS,
        .idle_ms = MS_PER_HOUR,
        .announce_ms = 30 * MS_PER_MINUTE,
        .rotate_ms = MS_PER_HOUR,
        .future_ms = 10 * MS_PER_MINUTE,
        .limits = ingest_limits_default(),
    };
}

err ingest_config_check(const struct ingest_config *config, struct err_at *at)
{
    if (config->partition_count == 0 || config->partition_count > LOG_PARTITION_COUNT_MAX)
        return err_set(at, ERR_INPUT, "partition count %u is not in 1 … %d", config->partition_count,
                       LOG_PARTITION_COUNT_MAX);
    if (config->body_bytes_max < 1024 || config->body_bytes_max > 1u << 30)
        return err_set(at, ERR_INPUT, "body limit %zu is not in 1 KiB … 1 GiB", config->body_bytes_max);
    if (config->decoded_bytes_max < 1024 || config->decoded_bytes_max > 1u << 30)
        return err_set(at, ERR_INPUT, "decoded limit %zu is not in 1 KiB … 1 GiB", config->decoded_bytes_max);
    if (config->requests_max == 0 || config->requests_max > 65536)
        return err_set(at, ERR_INPUT, "request limit %u is not in 1 … 65536", config->requests_max);
    if (config->wait_ms_max < 1 || config->wait_ms_max > MS_PER_HOUR)
        return err_set(at, ERR_INPUT, "wait of %lld ms for the log is not in 1 ms … 1 h",
                       (long long)config->wait_ms_max);
    if (config->idle_ms < 5 * MS_PER_MINUTE || config->idle_ms > 7 * MS_PER_DAY)
        return err_set(at, ERR_INPUT, "idle time %lld ms is not in 5 min … 7 d", (long long)config->idle_ms);
    if (config->announce_ms < 10 * MS_PER_MINUTE || config->announce_ms > MS_PER_HOUR)
        return err_set(at, ERR_INPUT, "announce interval %lld ms is not in 10 … 60 min",
                       (long long)config->announce_ms);
    if (config->rotate_ms < MS_PER_HOUR)
        return err_set(at, ERR_INPUT, "rotation interval %lld ms is below 1 h", (long long)config->rotate_ms);
    if (config->future_ms < 0 || config->future_ms > 365 * MS_PER_DAY)
        return err_set(at, ERR_INPUT, "future bound %lld ms is not in 0 … 365 d",
                       (long long)config->future_ms);
    for (size_t i = 0; i < config->tenant_count; i++)
        if (config->tenants[i].tenant.len == 0 || config->tenants[i].tenant.len > TENANT_BYTES_MAX)
            return err_set(at, ERR_INPUT, "a tenant's name has %zu bytes", config->tenants[i].tenant.len);
    return OK;
}

struct ingest_limits tenant_limits(const struct ingest *ingest, struct slice tenant)
{
    for (size_t i = 0; i < ingest->config.tenant_count; i++)
        if (slice_equal(ingest->config.tenants[i].tenant, tenant))
            return ingest->config.tenants[i].limits;
    return ingest->config.limits;
}

/* Copies of the tenants' limits in a pool of their own. */
static err copy_limits(struct pool *pool, const struct ingest_tenant_limits *tenants, size_t count,
                       const struct ingest_tenant_limits **out_copy)
{
    void *at;
    TRY(pool_alloc(pool, count * sizeof tenants[0] + 1, &at));
    struct ingest_tenant_limits *copy = at;
    for (size_t i = 0; i < count; i++) {
        copy[i] = tenants[i];
        TRY(pool_copy(pool, tenants[i].tenant, &copy[i].tenant));
    }
    *out_copy = copy;
    return OK;
}

err ingest_open(const struct ingest_config *config, struct io *io, struct log *log, struct pool *pool,
                struct ingest **out_ingest)
{
    TRY(ingest_config_check(config, NULL));
    struct pool *own = pool_open(pool, "ingest", POOL_BYTES_UNLIMITED);
    struct pool *table_pool = pool_open(own, "series table", POOL_BYTES_UNLIMITED);
    struct pool *limits_pool = pool_open(own, "limits", POOL_BYTES_UNLIMITED);
    struct pool *announcements_pool = pool_open(own, "announcements", POOL_BYTES_UNLIMITED);
    void *at, *producers = NULL, *tenants, *seen;
    err e = OK;
    TRY_OUT(pool_zalloc(own, sizeof(struct ingest), &at));
    struct ingest *ingest = at;
    ingest->config = *config;
    ingest->io = io;
    ingest->log = log;
    ingest->pool = own;
    ingest->table_pool = table_pool;
    ingest->limits_pool = limits_pool;
    ingest->announcer.pool = announcements_pool;
    TRY_OUT(copy_limits(limits_pool, config->tenants, config->tenant_count, &ingest->config.tenants));
    /* One cache line pair each, so that counters of different partitions do not meet. */
    TRY_OUT(pool_zalloc(own, (config->partition_count + 1) * sizeof(struct producer), &producers));
    ingest->producers = (struct producer *)(((uintptr_t)producers + 127) & ~(uintptr_t)127);
    TRY_OUT(pool_zalloc(own, TENANT_COUNT_MAX * sizeof ingest->tenants[0], &tenants));
    ingest->tenants = tenants;
    TRY_OUT(pool_zalloc(own, METADATA_CACHE_COUNT * sizeof ingest->metadata_seen[0], &seen));
    ingest->metadata_seen = seen;
    TRY_OUT(series_table_init(&ingest->table, table_pool));
    TRY_OUT(announcer_init(ingest));
    for (uint32_t i = 0; i < config->partition_count; i++) {
        producer_renew(&ingest->producers[i], io);
        producer_hear(&ingest->producers[i], log_watermarks(log, i).generation);
    }
    io_rwlock_init(&ingest->lock);
    io_mutex_init(&ingest->mutex);
    ingest->stepped_ns = ingest->metadata_renewed_ns = io_monotonic_ns(io);
    *out_ingest = ingest;
    return OK;
out:
    pool_close(announcements_pool);
    pool_close(limits_pool);
    pool_close(table_pool);
    pool_close(own);
    return e;
}

void ingest_close(struct ingest *ingest)
{
    log_drain(ingest->log);
    check(atomic_load(&ingest->in_work) == 0);
    requests_free(ingest);
    announcer_done(&ingest->announcer);
    series_table_done(&ingest->table);
    io_mutex_done(&ingest->mutex);
    io_rwlock_done(&ingest->lock);
    pool_close(ingest->announcer.pool);
    pool_close(ingest->limits_pool);
    pool_close(ingest->table_pool);
    pool_close(ingest->pool);
}

err ingest_set_limits(struct ingest *ingest, const struct ingest_limits *limits,
                      const struct ingest_tenant_limits *tenants, size_t tenant_count)
{
    struct pool *fresh = pool_open(ingest->pool, "limits", POOL_BYTES_UNLIMITED);
    const struct ingest_tenant_limits *copy;
    err e = copy_limits(fresh, tenants, tenant_count, &copy);
    if (e != OK) {
        pool_close(fresh);
        return e;
    }
    io_rwlock_write(&ingest->lock);
    io_mutex_lock(&ingest->mutex);
    struct pool *old = ingest->limits_pool;
    ingest->limits_pool = fresh;
    ingest->config.limits = *limits;
    ingest->config.tenants = copy;
    ingest->config.tenant_count = tenant_count;
    for (uint32_t i = 0; i < ingest->tenant_count; i++) {
        struct tenant *t = ingest->tenants[i];
        t->limits = tenant_limits(ingest, slice_of(t->name, t->name_len));
    }
    io_mutex_unlock(&ingest->mutex);
    io_rwlock_unlock(&ingest->lock);
    pool_close(old);
    return OK;
}

/* ---- entries ---- */

struct ingest_request *ingest_begin_remote_write(struct ingest *ingest, struct slice tenant,
                                                 struct slice content_type, struct slice content_encoding,
                                                 struct slice body, struct ingest_result *out_refusal)
{
    struct ingest_request *r = request_begin(ingest, tenant, out_refusal);
    if (r != NULL)
        remote_write_decode(r, content_type, content_encoding, body);
    return r;
}

struct ingest_request *ingest_begin_import_text(struct ingest *ingest, struct slice tenant,
                                                struct slice content_type, struct slice body,
                                                size_t sent_bytes, struct ingest_result *out_refusal)
{
    struct ingest_request *r = request_begin(ingest, tenant, out_refusal);
    if (r != NULL)
        import_text_decode(r, content_type, body, sent_bytes);
    return r;
}

struct ingest_request *ingest_begin_write(struct ingest *ingest, struct slice tenant,
                                          const struct ingest_rows *rows, struct ingest_result *out_refusal)
{
    struct ingest_request *r = request_begin(ingest, tenant, out_refusal);
    if (r != NULL)
        rows_decode(r, rows);
    return r;
}

/* How long it may still wait; 0 or below: no longer. Mutex held. */
static int64_t wait_left_ns(const struct ingest_request *request)
{
    return request->pending == 0 ? 0 : request->deadline_ns - io_monotonic_ns(request->ingest->io);
}

bool ingest_poll(struct ingest_request *request, struct ingest_result *out_result)
{
    io_mutex_lock(&request->mutex);
    bool done = wait_left_ns(request) <= 0;
    io_mutex_unlock(&request->mutex);
    if (done)
        request_finish(request, out_result);
    return done;
}

void ingest_wait(struct ingest_request *request, struct ingest_result *out_result)
{
    int64_t left_ns;
    io_mutex_lock(&request->mutex);
    while ((left_ns = wait_left_ns(request)) > 0)
        (void)io_cond_wait_for(&request->cond, &request->mutex, left_ns);
    io_mutex_unlock(&request->mutex);
    request_finish(request, out_result);
}

void ingest_remote_write(struct ingest *ingest, struct slice tenant, struct slice content_type,
                         struct slice content_encoding, struct slice body, struct ingest_result *out_result)
{
    struct ingest_request *r =
        ingest_begin_remote_write(ingest, tenant, content_type, content_encoding, body, out_result);
    if (r != NULL)
        ingest_wait(r, out_result);
}

void ingest_import_text(struct ingest *ingest, struct slice tenant, struct slice content_type,
                        struct slice body, size_t sent_bytes, struct ingest_result *out_result)
{
    struct ingest_request *r =
        ingest_begin_import_text(ingest, tenant, content_type, body, sent_bytes, out_result);
    if (r != NULL)
        ingest_wait(r, out_result);
}

void ingest_write(struct ingest *ingest, struct slice tenant, const struct ingest_rows *rows,
                  struct ingest_result *out_result)
{
    struct ingest_request *r = ingest_begin_write(ingest, tenant, rows, out_result);
    if (r != NULL)
        ingest_wait(r, out_result);
}

/* ---- housekeeping ---- */

/* Look at one entry of the walk. Lock held for writing. */
static void walk_entry(struct ingest *ingest, uint32_t id, uint16_t minute)
{
    struct series *s = series_at(&ingest->table, id);
    if (s->tenant == TENANT_NONE)
        return;
    int16_t idle_minutes = (int16_t)(minute - s->used); /* below 0: used since the step began */
    if ((int64_t)idle_minutes * MS_PER_MINUTE < ingest->config.idle_ms) {
        s->mark = 0;
        return;
    }
    announcer_drop(ingest, id);
    struct producer *producer = &ingest->producers[s->partition];
    producer->live--;
    producer->dead++;
    atomic_fetch_sub(&ingest->tenants[s->tenant]->series, 1);
    series_drop(&ingest->table, id);
    stat_add(STAT_INGEST_SERIES_DROPPED, 1);
}

static void walk(struct ingest *ingest, int64_t now_ns, int64_t elapsed_ms)
{
    uint16_t minute = (uint16_t)(now_ns / (60 * NS_PER_SECOND));
    uint64_t total = ingest->table.id_count;
    uint64_t share = elapsed_ms >= ingest->config.announce_ms
                         ? total
                         : (total * (uint64_t)elapsed_ms + (uint64_t)ingest->config.announce_ms - 1) /
                               (uint64_t)ingest->config.announce_ms;
    while (share > 0) {
        io_rwlock_write(&ingest->lock);
        for (uint32_t i = 0; i < WALK_SLICE && share > 0; i++, share--) {
            if (ingest->walk_id >= ingest->table.id_count)
                ingest->walk_id = 0;
            walk_entry(ingest, (uint32_t)ingest->walk_id++, minute);
        }
        io_rwlock_unlock(&ingest->lock);
    }
}

/* What was acknowledged may be gone. An acknowledgement tells it too (producer_acked), and makes a request
 * fail. */
static void hear_of_generations(struct ingest *ingest)
{
    for (uint32_t i = 0; i < ingest->config.partition_count; i++)
        if (producer_hear(&ingest->producers[i], log_watermarks(ingest->log, i).generation))
            atomic_fetch_add(&ingest->metadata_epoch, 1);
}

/* Give the partition a new incarnation, and its series numbers from 0. Lock held for writing. */
static void renew(struct ingest *ingest, uint32_t partition)
{
    struct producer *producer = &ingest->producers[partition];
    announcer_renew(ingest, partition);
    producer_renew(producer, ingest->io);
    for (uint32_t id = 0; id < ingest->table.id_count; id++) {
        struct series *s = series_at(&ingest->table, id);
        if (s->tenant == TENANT_NONE || s->partition != partition)
            continue;
        s->number = producer->next_number++;
        producer->live++;
    }
    stat_add(STAT_INGEST_INCARNATIONS, 1);
}

/* At most one partition a step, so that requests wait for one pass over the table only. */
static void renew_worn(struct ingest *ingest, int64_t now_ns)
{
    for (uint32_t i = 0; i < ingest->config.partition_count; i++) {
        struct producer *p = &ingest->producers[i];
        uint32_t given_up = atomic_load(&p->given_up);
        bool worn = (p->dead >= DEAD_MIN && p->dead > p->live) || p->next_number >= UINT32_MAX / 2 ||
                    given_up >= GIVEN_UP_MIN;
        bool due = (now_ns - p->renewed_ns) / NS_PER_MS >= ingest->config.rotate_ms;
        if ((worn && due && !announcer_is_busy(ingest, i)) || given_up >= GIVEN_UP_MAX) {
            renew(ingest, i);
            return;
        }
    }
}

/* A tenant without series and requests gives its place back. Lock and mutex held. */
static void forget_tenants(struct ingest *ingest, int64_t now_ns)
{
    for (uint32_t i = 0; i < ingest->tenant_count; i++) {
        struct tenant *t = ingest->tenants[i];
        if (t->name_len != 0 && atomic_load(&t->series) == 0 && atomic_load(&t->in_flight) == 0 &&
            (now_ns - t->used_ns) / NS_PER_MS >= ingest->config.idle_ms)
            t->name_len = 0;
    }
}

void ingest_step(struct ingest *ingest)
{
    int64_t now_ns = io_monotonic_ns(ingest->io);
    int64_t elapsed_ms = (now_ns - ingest->stepped_ns) / NS_PER_MS;
    if (elapsed_ms <= 0)
        return;
    ingest->stepped_ns += elapsed_ms * NS_PER_MS;
    hear_of_generations(ingest);
    announcer_step(ingest, now_ns);
    walk(ingest, now_ns, elapsed_ms);
    if ((now_ns - ingest->metadata_renewed_ns) / NS_PER_MS >= ingest->config.announce_ms) {
        ingest->metadata_renewed_ns = now_ns;
        atomic_fetch_add(&ingest->metadata_epoch, 1);
    }
    io_rwlock_write(&ingest->lock);
    renew_worn(ingest, now_ns);
    series_table_tidy(&ingest->table);
    io_mutex_lock(&ingest->mutex);
    forget_tenants(ingest, now_ns);
    io_mutex_unlock(&ingest->mutex);
    stat_set(STAT_INGEST_SERIES, atomic_load(&ingest->table.count));
    stat_set(STAT_INGEST_TABLE_BYTES, (int64_t)series_table_bytes(&ingest->table));
    io_rwlock_unlock(&ingest->lock);
}

/* ---- for status pages ---- */

struct ingest_usage ingest_usage(struct ingest *ingest)
{
    io_rwlock_read(&ingest->lock);
    struct ingest_usage usage = { .series = atomic_load(&ingest->table.count),
                                  .table_bytes = series_table_bytes(&ingest->table),
                                  .requests = atomic_load(&ingest->in_work) };
    io_rwlock_unlock(&ingest->lock);
    return usage;
}

uint64_t ingest_tenant_series(struct ingest *ingest, struct slice tenant)
{
    uint64_t series = 0;
    io_mutex_lock(&ingest->mutex);
    for (uint32_t i = 0; i < ingest->tenant_count; i++) {
        struct tenant *t = ingest->tenants[i];
        if (t->name_len != 0 && slice_equal(slice_of(t->name, t->name_len), tenant))
            series = atomic_load(&t->series);
    }
    io_mutex_unlock(&ingest->mutex);
    return series;
}
