/* The schedule of targets, the workers that follow it, and the discovery that changes it. From: a
 * scrape_config. To: scrape_run.c per scrape; status for the API.
 *
 *   config, files ─ build: specs of all jobs ─ switch: reuse equal targets, retire others ─→ heap by due time
 *   heap ─ worker: takes the first when due ─ scrape_run ─→ back with its next tick, or freed when retired
 *
 * Ticks are wall-clock times offset + k · interval with offset = hash mod interval: a target keeps its ticks
 * over restarts, and targets spread evenly. Rows carry the tick's own time when the scrape began close to it,
 * which makes timestamps regular and small.
 *
 * Locks: build_lock (reload against discovery; held over file reads) is taken before lock (everything below
 * the line "under lock"), which is held for bounded work in memory only.
 *
 * Invariants
 * 1. A target is in exactly one place: waiting in the heap, or with one worker. Only that worker touches its
 *    cache. A retired target is still in its place until a worker has written its stale markers.
 * 2. A switch happens for all jobs under one hold of lock, after everything that can fail.
 * 3. While one worker scrapes another watches the clock: one is started when none is free, up to workers_max;
 *    beyond, ticks are skipped and counted, never queued. */
#include "ingest/scrape.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/diag.h"
#include "base/stat.h"
#include "base/time.h"
#include "ingest/discovery_file.h"
#include "ingest/ingest.h"
#include "ingest/scrape_run.h"
#include "io/io.h"
#include "io/thread.h"

#define WORKERS_HARD_MAX 4096
#define ALIGN_MS_MAX     10 /* a scrape that begins so close to its tick is stamped with the tick */
#define WAIT_NS_MAX      NS_PER_SECOND /* the wall clock may jump: look again */

/* A spec that became a target, or was dropped (target == NULL). Strings in job_state.pool. */
struct entry {
    struct slice discovered;
    struct target *target;
};

struct job_state {
    const struct scrape_job *job;
    struct discovery_files files; /* under build_lock */
    struct pool *pool;            /* of entries; replaced at a switch */
    struct entry *entries;        /* active ones first */
    size_t entry_count;
    size_t active_count;
};

struct scrape {
    struct io *io;
    struct pool *pool;
    struct scrape_sink sink;
    struct scrape_options options;
    _Atomic bool is_stopping;
    struct io_mutex build_lock;
    struct io_thread *discover_thread;

    struct io_mutex lock; /* under lock, to the end: */
    struct io_cond work;  /* workers wait: something is due earlier, or the end */
    struct io_cond discover_wake;
    struct scrape_config *config;
    struct job_state *jobs;
    size_t job_count;
    struct pool *jobs_pool; /* of the jobs array */
    struct pool *heap_pool;
    struct target **heap;
    size_t heap_count;
    size_t heap_capacity;
    size_t target_count; /* alive, retired ones included */
    struct io_thread *workers[WORKERS_HARD_MAX];
    size_t worker_count;
    size_t idle_count;
    bool has_timer; /* one idle worker watches the clock, the others wait for a signal */
};

struct scrape_options scrape_options_default(void)
{
    return (struct scrape_options){ .workers_max = 256,
                                    .memory_bytes_max = (size_t)4 << 30,
                                    .discover_ms = 2000 };
}

static void write_to_ingest(void *context, struct slice tenant, const struct ingest_rows *rows,
                            struct ingest_result *out_result)
{
    ingest_write(context, tenant, rows, out_result);
}

struct scrape_sink scrape_sink_of(struct ingest *ingest)
{
    return (struct scrape_sink){ .write = write_to_ingest, .context = ingest };
}

const char *scrape_health_text(enum scrape_health health)
{
    static const char *const texts[] = { "unknown", "up", "down" };
    return texts[health];
}

/* ---- the heap, by due_ms; under lock ---- */

static void heap_place(struct scrape *s, size_t at, struct target *t)
{
    s->heap[at] = t;
    t->heap_index = at;
}

static void heap_up(struct scrape *s, size_t at, struct target *t)
{
    while (at > 0 && s->heap[(at - 1) / 2]->due_ms > t->due_ms) {
        heap_place(s, at, s->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_place(s, at, t);
}

static void heap_down(struct scrape *s, size_t at, struct target *t)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < s->heap_count && s->heap[child + 1]->due_ms < s->heap[child]->due_ms)
            child++;
        if (child >= s->heap_count || s->heap[child]->due_ms >= t->due_ms)
            break;
        heap_place(s, at, s->heap[child]);
        at = child;
    }
    heap_place(s, at, t);
}

static void heap_push(struct scrape *s, struct target *t)
{
    check(s->heap_count < s->heap_capacity && t->heap_index == SIZE_MAX); /* room was made at the switch */
    heap_up(s, s->heap_count++, t);
}

static struct target *heap_pop(struct scrape *s)
{
    struct target *first = s->heap[0], *last = s->heap[--s->heap_count];
    if (s->heap_count > 0)
        heap_down(s, 0, last);
    first->heap_index = SIZE_MAX;
    return first;
}

static void heap_move(struct scrape *s, struct target *t, int64_t due_ms)
{
    t->due_ms = due_ms;
    heap_up(s, t->heap_index, t);
    heap_down(s, t->heap_index, t);
}

/* The first tick at or after now. */
static int64_t next_tick(const struct target *t, int64_t now_ms)
{
    int64_t offset = (int64_t)(t->hash % (uint64_t)t->interval_ms);
    int64_t past = (now_ms - offset) % t->interval_ms;
    if (past < 0)
        past += t->interval_ms;
    return past == 0 ? now_ms : now_ms - past + t->interval_ms;
}

/* ---- workers ---- */

static void run_worker(void *context);

/* Start one more worker when nobody is free. Under lock. */
static void start_worker(struct scrape *s)
{
    if (s->idle_count > 0 || s->worker_count == s->options.workers_max || atomic_load(&s->is_stopping))
        return;
    err e = io_thread_start(s->io, "scrape", run_worker, s, &s->workers[s->worker_count]);
    if (e != OK)
        return; /* the others go on; ticks may be skipped */
    s->worker_count++;
    stat_add(STAT_SCRAPE_WORKERS, 1);
}

/* Wait until a target is due and take it. NULL at the end. Under lock. */
static struct target *take_due(struct scrape *s)
{
    while (!atomic_load(&s->is_stopping)) {
        int64_t wait_ns = WAIT_NS_MAX;
        if (s->heap_count > 0) {
            int64_t now_ms = io_now_ms(s->io);
            struct target *first = s->heap[0];
            if (!first->is_removed && first->due_ms - now_ms > 2 * first->interval_ms)
                heap_move(s, first, next_tick(first, now_ms)); /* the clock went back */
            if (s->heap[0]->due_ms <= now_ms)
                return heap_pop(s);
            int64_t left_ms = s->heap[0]->due_ms - now_ms;
            wait_ns = left_ms < WAIT_NS_MAX / NS_PER_MS ? left_ms * NS_PER_MS : WAIT_NS_MAX;
        }
        s->idle_count++;
        if (s->has_timer) {
            io_cond_wait(&s->work, &s->lock);
        } else {
            s->has_timer = true;
            io_cond_wait_for(&s->work, &s->lock, wait_ns);
            s->has_timer = false;
        }
        s->idle_count--;
    }
    return NULL;
}

/* After a scrape: the outcome into the status, the target back into the heap. Under lock. */
static void give_back(struct scrape *s, struct target *t, const struct scrape_outcome *outcome, int64_t t_ms)
{
    int64_t now_ms = io_now_ms(s->io);
    t->health = outcome->health;
    t->last_scrape_ms = t_ms;
    t->last_duration_ns = outcome->duration_ns;
    memcpy(t->last_error, outcome->error, sizeof t->last_error);
    if (t->is_removed) {
        t->due_ms = now_ms;
    } else {
        int64_t expected_ms = t->due_ms + t->interval_ms;
        t->due_ms = next_tick(t, now_ms + 1);
        if (t->due_ms > expected_ms && t->due_ms - expected_ms < MS_PER_DAY)
            stat_add(STAT_SCRAPES_SKIPPED, (t->due_ms - expected_ms) / t->interval_ms);
    }
    heap_push(s, t);
    if (s->heap[0] == t)
        io_cond_broadcast(&s->work); /* the one that watches the clock must look again */
}

static void scrape_one(struct scrape *s, struct scrape_work *work, struct target *t)
{
    /* under lock on entry and exit */
    int64_t now_ms = io_now_ms(s->io), tolerance_ms = t->interval_ms / 100;
    const struct scrape_job *job = t->job;
    struct scrape_config *config = scrape_config_hold(t->config);
    int64_t timeout_ms = t->timeout_ms;
    bool is_removed = t->is_removed, forgets = t->forgets;
    if (tolerance_ms > ALIGN_MS_MAX)
        tolerance_ms = ALIGN_MS_MAX;
    int64_t t_ms = now_ms - t->due_ms <= tolerance_ms && !is_removed ? t->due_ms : now_ms;
    t->forgets = false;
    if (s->heap_count > 0)
        start_worker(s); /* unless somebody is idle */
    if (s->idle_count > 0 && !s->has_timer)
        io_cond_signal(&s->work); /* who watches the clock now */
    io_mutex_unlock(&s->lock);

    struct scrape_outcome outcome = { 0 };
    if (forgets && t->has_cache && scrape_cache_relearn(&t->cache) != OK) { /* no memory: markers are lost */
        scrape_cache_close(&t->cache);
        t->has_cache = false;
    }
    if (is_removed)
        scrape_end(work, t, job, t_ms);
    else
        scrape_run(work, t, job, timeout_ms, t_ms, &outcome);
    scrape_config_release(config);
    if (is_removed)
        target_close(t);

    io_mutex_lock(&s->lock);
    if (is_removed)
        s->target_count--;
    else
        give_back(s, t, &outcome, t_ms);
    stat_set(STAT_SCRAPE_TARGETS, (int64_t)s->target_count);
}

static void run_worker(void *context)
{
    struct scrape *s = context;
    struct scrape_work work;
    while (scrape_work_open(s->io, s->sink, &s->is_stopping, s->pool, &work) != OK) {
        if (atomic_load(&s->is_stopping))
            return;
        io_sleep_ns(s->io, WAIT_NS_MAX); /* memory may come back */
    }
    io_mutex_lock(&s->lock);
    for (;;) {
        struct target *t = take_due(s);
        if (t == NULL)
            break;
        scrape_one(s, &work, t);
    }
    io_mutex_unlock(&s->lock);
    scrape_work_close(&work);
}

/* ---- building: specs and targets of one job, before anything is switched; under build_lock ---- */

struct build {
    struct pool *pool;
    struct entry *entries;
    size_t count;
    size_t capacity;
    size_t active_count;
    struct target_spec *specs; /* parallel to entries while building */
    size_t spec_capacity;
};

static int compare_hash(const void *a, const void *b)
{
    uint64_t x = (*(struct target *const *)a)->hash, y = (*(struct target *const *)b)->hash;
    return x < y ? -1 : x > y;
}

static err add_group(struct build *b, const struct scrape_job *job, const struct scrape_group *group,
                     struct slice file)
{
    for (size_t i = 0; i < group->target_count; i++) {
        if (b->count == SCRAPE_TARGETS_MAX)
            return ERR_LIMIT;
        TRY(pool_block_reserve(b->pool, (void **)&b->entries, sizeof *b->entries, b->count + 1,
                               &b->capacity));
        TRY(pool_block_reserve(b->pool, (void **)&b->specs, sizeof *b->specs, b->count + 1,
                               &b->spec_capacity));
        TRY(target_build(job, group, i, file, b->pool, &b->specs[b->count]));
        b->entries[b->count] = (struct entry){ .discovered = b->specs[b->count].discovered };
        b->count++;
    }
    return OK;
}

/* Find the target of a hash among sorted ones. */
static struct target *find_target(struct target **sorted, size_t count, uint64_t hash)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (sorted[middle]->hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && sorted[low]->hash == hash ? sorted[low] : NULL;
}

static err sort_targets(const struct job_state *old, struct pool *pool, struct target ***out_sorted,
                        size_t *out_count)
{
    size_t count = old == NULL ? 0 : old->active_count;
    TRY(pool_alloc(pool, (count + 1) * sizeof **out_sorted, (void **)out_sorted));
    for (size_t i = 0; i < count; i++)
        (*out_sorted)[i] = old->entries[i].target;
    qsort(*out_sorted, count, sizeof **out_sorted, compare_hash);
    *out_count = count;
    return OK;
}

/* Two specs of one hash are one target: true for the first of them. seen is a table of hashes. */
static bool is_first(uint64_t *seen, size_t capacity, uint64_t hash)
{
    hash |= 1; /* 0 marks a free slot */
    for (size_t i = hash & (capacity - 1);; i = (i + 1) & (capacity - 1)) {
        if (seen[i] == hash)
            return false;
        if (seen[i] == 0) {
            seen[i] = hash;
            return true;
        }
    }
}

/* Targets for the specs: those of `old` with an equal hash, else new ones; active entries come first. */
static err make_targets(struct scrape *s, struct build *b, const struct scrape_job *job,
                        const struct job_state *old)
{
    struct target **sorted;
    size_t sorted_count, seen_capacity = 64, active = 0;
    uint64_t *seen;
    while (seen_capacity < b->count * 2)
        seen_capacity *= 2;
    TRY(sort_targets(old, b->pool, &sorted, &sorted_count));
    TRY(pool_zalloc(b->pool, seen_capacity * sizeof *seen, (void **)&seen));
    for (size_t i = 0; i < b->count; i++) {
        if (b->specs[i].is_dropped || !is_first(seen, seen_capacity, b->specs[i].hash))
            continue;
        struct target *t = find_target(sorted, sorted_count, b->specs[i].hash);
        if (t == NULL)
            TRY(target_open(&b->specs[i], job, s->pool, &t));
        struct entry entry = b->entries[i];
        struct target_spec spec = b->specs[i];
        b->entries[i] = b->entries[active];
        b->specs[i] = b->specs[active];
        b->entries[active] = (struct entry){ .discovered = entry.discovered, .target = t };
        b->specs[active] = spec;
        b->active_count = ++active;
    }
    return OK;
}

static void build_discard(struct build *b)
{
    for (size_t i = 0; i < b->active_count; i++) {
        if (b->entries[i].target->is_new)
            target_close(b->entries[i].target);
    }
    pool_close(b->pool);
}

static err build_job(struct scrape *s, const struct scrape_job *job, const struct discovery_files *files,
                     const struct job_state *old, struct build *out_build)
{
    struct build b = { .pool = pool_open(s->pool, "scrape_build", POOL_BYTES_UNLIMITED) };
    err e = OK;
    for (size_t i = 0; i < job->group_count; i++)
        TRY_OUT(add_group(&b, job, &job->groups[i], slice_of("", 0)));
    for (size_t i = 0; i < files->count; i++) {
        for (size_t g = 0; g < files->files[i].group_count; g++)
            TRY_OUT(add_group(&b, job, &files->files[i].groups[g], files->files[i].path));
    }
    TRY_OUT(make_targets(s, &b, job, old));
    if (job->limits.targets > 0 && b.active_count > job->limits.targets)
        TRY_OUT(ERR_LIMIT);
    *out_build = b;
out:
    if (e != OK)
        build_discard(&b);
    return e;
}

/* ---- switching; under both locks; cannot fail ---- */

static void retire(struct scrape *s, struct target *t)
{
    t->is_removed = true;
    if (t->heap_index != SIZE_MAX)
        heap_move(s, t, 0);
}

/* Put what was built in the place of what was there. old_entries are those of the job before (may be
 * none). */
static void switch_job(struct scrape *s, struct job_state *state, struct build *b,
                       const struct entry *old_entries, size_t old_count)
{
    int64_t now_ms = io_now_ms(s->io);
    for (size_t i = 0; i < old_count; i++)
        old_entries[i].target->is_removed = true; /* unless it comes again, below */
    for (size_t i = 0; i < b->active_count; i++) {
        struct target *t = b->entries[i].target;
        const struct target_spec *spec = &b->specs[i];
        t->is_removed = false;
        if (t->is_new) {
            t->is_new = false;
            t->due_ms = next_tick(t, now_ms);
            s->target_count++;
            heap_push(s, t);
            continue;
        }
        t->forgets = t->forgets || t->job->fingerprint != state->job->fingerprint;
        if (t->config != state->job->config) {
            scrape_config_release(t->config);
            t->config = scrape_config_hold(state->job->config);
        }
        t->job = state->job;
        t->timeout_ms = spec->timeout_ms;
        if (t->interval_ms != spec->interval_ms) {
            t->interval_ms = spec->interval_ms;
            if (t->heap_index != SIZE_MAX)
                heap_move(s, t, next_tick(t, now_ms));
        }
    }
    for (size_t i = 0; i < old_count; i++) {
        if (old_entries[i].target->is_removed)
            retire(s, old_entries[i].target);
    }
    state->pool = b->pool;
    state->entries = b->entries;
    state->entry_count = b->count;
    state->active_count = b->active_count;
}

/* After a switch: all workers may be in slow scrapes, or none is there. Under lock. */
static void wake_workers(struct scrape *s)
{
    if (s->heap_count > 0)
        start_worker(s); /* unless somebody is idle */
    io_cond_broadcast(&s->work);
}

/* Room in the heap for every target there may be after a switch. Under lock. */
static err reserve_heap(struct scrape *s, size_t more)
{
    if (s->target_count + more > 2 * (size_t)SCRAPE_TARGETS_MAX)
        return ERR_LIMIT; /* retired ones have not gone yet */
    return pool_block_reserve(s->heap_pool, (void **)&s->heap, sizeof *s->heap, s->target_count + more,
                              &s->heap_capacity);
}

/* ---- discovery ---- */

static err refresh_job(struct scrape *s, struct job_state *state, struct err_at *at)
{
    bool changed = false;
    if (state->job->file_count == 0)
        return OK;
    TRY(discovery_files_refresh(&state->files, s->io, state->job, &changed, at));
    if (!changed)
        return OK;
    struct build b;
    TRY(build_job(s, state->job, &state->files, state, &b));
    io_mutex_lock(&s->lock);
    err e = reserve_heap(s, b.active_count);
    if (e == OK) {
        struct pool *old_pool = state->pool;
        switch_job(s, state, &b, state->entries, state->active_count);
        wake_workers(s);
        io_mutex_unlock(&s->lock);
        pool_close(old_pool);
        return OK;
    }
    io_mutex_unlock(&s->lock);
    build_discard(&b);
    return e;
}

static void run_discovery(void *context)
{
    struct scrape *s = context;
    io_mutex_lock(&s->lock);
    while (!atomic_load(&s->is_stopping)) {
        io_cond_wait_for(&s->discover_wake, &s->lock, s->options.discover_ms * NS_PER_MS);
        io_mutex_unlock(&s->lock);
        io_mutex_lock(&s->build_lock);
        for (size_t i = 0; i < s->job_count && !atomic_load(&s->is_stopping); i++) {
            struct err_at at = { 0 };
            err e = refresh_job(s, &s->jobs[i], &at);
            if (e != OK || at.text[0] != 0)
                diag(DIAG_WARN, "file discovery keeps the old targets", "job=%.*s error=\"%s\"",
                     SLICE_ARG(s->jobs[i].job->name), at.text[0] != 0 ? at.text : err_text(e));
        }
        io_mutex_unlock(&s->build_lock);
        io_mutex_lock(&s->lock);
    }
    io_mutex_unlock(&s->lock);
}

/* ---- configurations ---- */

static struct job_state *find_state(struct scrape *s, struct slice name)
{
    for (size_t i = 0; i < s->job_count; i++) {
        if (slice_equal(s->jobs[i].job->name, name))
            return &s->jobs[i];
    }
    return NULL;
}

/* Read the files and build all jobs of a configuration. Under build_lock. builds and fresh have job_count
 * elements. */
static err build_all(struct scrape *s, struct scrape_config *config, struct job_state *fresh,
                     struct build *builds, size_t *out_built, struct err_at *at)
{
    size_t sum = 0;
    *out_built = 0;
    for (size_t i = 0; i < config->job_count; i++) {
        const struct scrape_job *job = &config->jobs[i];
        struct err_at file_at = { 0 };
        bool changed;
        fresh[i] = (struct job_state){ .job = job };
        discovery_files_open(s->pool, &fresh[i].files);
        err e = discovery_files_refresh(&fresh[i].files, s->io, job, &changed, &file_at);
        if (e == OK)
            e = build_job(s, job, &fresh[i].files, find_state(s, job->name), &builds[i]);
        if (e != OK) {
            discovery_files_close(&fresh[i].files);
            return err_set(at, e, "job \"%.*s\": %s", SLICE_SHORT_ARG(job->name),
                           file_at.text[0] != 0 ? file_at.text : "too many targets, or no memory for them");
        }
        if (file_at.text[0] != 0)
            diag(DIAG_WARN, "a discovery file is left out", "error=\"%s\"", file_at.text);
        (*out_built)++;
        sum += builds[i].active_count;
        if (sum > SCRAPE_TARGETS_MAX)
            return err_set(at, ERR_LIMIT, "more than %d targets", SCRAPE_TARGETS_MAX);
    }
    return OK;
}

/* Everything of the old configuration that has no successor goes. Under both locks. */
static void switch_all(struct scrape *s, struct scrape_config *config, struct job_state *fresh,
                       struct build *builds)
{
    for (size_t i = 0; i < config->job_count; i++) {
        struct job_state *old = find_state(s, fresh[i].job->name);
        switch_job(s, &fresh[i], &builds[i], old == NULL ? NULL : old->entries,
                   old == NULL ? 0 : old->active_count);
        if (old != NULL)
            old->active_count = 0; /* taken over */
    }
    for (size_t i = 0; i < s->job_count; i++) {
        for (size_t n = 0; n < s->jobs[i].active_count; n++)
            retire(s, s->jobs[i].entries[n].target);
    }
    wake_workers(s);
}

static void close_states(struct job_state *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        discovery_files_close(&jobs[i].files);
        if (jobs[i].pool != NULL)
            pool_close(jobs[i].pool);
    }
}

err scrape_reload(struct scrape *s, struct scrape_config *config, struct err_at *at)
{
    struct pool *pool = pool_open(s->pool, "scrape_jobs", POOL_BYTES_UNLIMITED), *old_pool = NULL;
    struct job_state *fresh, *old = NULL;
    struct build *builds;
    size_t built = 0, sum = 0, old_count = 0;
    err e = OK;
    io_mutex_lock(&s->build_lock);
    TRY_OUT(pool_zalloc(pool, (config->job_count + 1) * sizeof *fresh, (void **)&fresh));
    TRY_OUT(pool_zalloc(pool, (config->job_count + 1) * sizeof *builds, (void **)&builds));
    e = build_all(s, config, fresh, builds, &built, at);
    for (size_t i = 0; i < built; i++)
        sum += builds[i].active_count;
    io_mutex_lock(&s->lock);
    if (e == OK)
        e = reserve_heap(s, sum);
    if (e == OK) {
        struct scrape_config *old_config = s->config;
        switch_all(s, config, fresh, builds);
        old = s->jobs;
        old_count = s->job_count;
        old_pool = s->jobs_pool;
        s->config = scrape_config_hold(config);
        s->jobs = fresh;
        s->job_count = config->job_count;
        s->jobs_pool = pool;
        stat_set(STAT_SCRAPE_TARGETS, (int64_t)s->target_count);
        scrape_config_release(old_config);
    }
    io_mutex_unlock(&s->lock);
    for (size_t i = 0; i < built && e != OK; i++) {
        build_discard(&builds[i]);
        discovery_files_close(&fresh[i].files);
    }
    close_states(old, old_count);
    if (old_pool != NULL)
        pool_close(old_pool);
out:
    if (e != OK)
        pool_close(pool);
    io_mutex_unlock(&s->build_lock);
    return e == ERR_LIMIT && at != NULL && at->text[0] == 0 ? err_set(at, e, "no memory for the targets") : e;
}

err scrape_open(struct io *io, struct pool *pool, struct scrape_sink sink,
                const struct scrape_options *options, struct scrape_config *config,
                struct scrape **out_scrape, struct err_at *at)
{
    if (options->workers_max == 0 || options->workers_max > WORKERS_HARD_MAX || options->discover_ms <= 0)
        return err_set(at, ERR_LIMIT, "workers must be 1 to %d", WORKERS_HARD_MAX);
    struct pool *own = pool_open(pool, "scrape", options->memory_bytes_max);
    struct scrape *s;
    err e = pool_zalloc(own, sizeof *s, (void **)&s);
    if (e != OK) {
        pool_close(own);
        return e;
    }
    s->io = io;
    s->pool = own;
    s->sink = sink;
    s->options = *options;
    s->heap_pool = pool_open(own, "scrape_heap", POOL_BYTES_UNLIMITED);
    io_mutex_init(&s->build_lock);
    io_mutex_init(&s->lock);
    io_cond_init(&s->work);
    io_cond_init(&s->discover_wake);
    TRY_OUT(scrape_reload(s, config, at));
    TRY_OUT(io_thread_start(io, "scrape-files", run_discovery, s, &s->discover_thread));
    *out_scrape = s;
out:
    if (e != OK)
        scrape_close(s);
    return e;
}

void scrape_close(struct scrape *s)
{
    if (s == NULL)
        return;
    io_mutex_lock(&s->lock);
    atomic_store(&s->is_stopping, true);
    io_cond_broadcast(&s->work);
    io_cond_broadcast(&s->discover_wake);
    io_mutex_unlock(&s->lock);
    if (s->discover_thread != NULL)
        io_thread_join(s->discover_thread);
    for (size_t i = 0; i < s->worker_count; i++) /* no new ones are started now */
        io_thread_join(s->workers[i]);
    stat_add(STAT_SCRAPE_WORKERS, -(int64_t)s->worker_count);
    check(s->heap_count == s->target_count);
    for (size_t i = 0; i < s->heap_count; i++)
        target_close(s->heap[i]);
    close_states(s->jobs, s->job_count);
    if (s->jobs_pool != NULL)
        pool_close(s->jobs_pool);
    scrape_config_release(s->config);
    pool_close(s->heap_pool);
    io_cond_done(&s->work);
    io_cond_done(&s->discover_wake);
    io_mutex_done(&s->lock);
    io_mutex_done(&s->build_lock);
    pool_close(s->pool);
}

/* ---- status ---- */

static err copy_status(const struct job_state *state, const struct entry *entry, struct pool *pool,
                       struct scrape_target_status *out)
{
    const struct target *t = entry->target;
    *out = (struct scrape_target_status){ .is_dropped = t == NULL };
    TRY(pool_copy(pool, state->job->name, &out->job));
    TRY(pool_copy(pool, entry->discovered, &out->discovered_labels));
    if (t == NULL)
        return OK;
    TRY(pool_copy(pool, t->labels, &out->labels));
    TRY(pool_copy(pool, t->url, &out->url));
    TRY(pool_copy(pool, slice_str(t->last_error), &out->last_error));
    out->last_scrape_ms = t->last_scrape_ms;
    out->last_duration_ns = t->last_duration_ns;
    out->health = t->health;
    out->interval_ms = t->interval_ms;
    out->timeout_ms = t->timeout_ms;
    return OK;
}

err scrape_status(struct scrape *s, struct pool *pool, struct scrape_target_status **out_targets,
                  size_t *out_count)
{
    size_t count = 0, n = 0;
    err e = OK;
    io_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->job_count; i++)
        count += s->jobs[i].entry_count;
    TRY_OUT(pool_alloc(pool, (count + 1) * sizeof **out_targets, (void **)out_targets));
    for (int dropped = 0; dropped < 2; dropped++) {
        for (size_t i = 0; i < s->job_count; i++) {
            const struct job_state *state = &s->jobs[i];
            size_t from = dropped ? state->active_count : 0;
            size_t to = dropped ? state->entry_count : state->active_count;
            for (; from < to; from++)
                TRY_OUT(copy_status(state, &state->entries[from], pool, &(*out_targets)[n++]));
        }
    }
    *out_count = count;
out:
    io_mutex_unlock(&s->lock);
    return e;
}

err scrape_job_names(struct scrape *s, struct pool *pool, struct slice **out_names, size_t *out_count)
{
    err e = OK;
    io_mutex_lock(&s->lock);
    TRY_OUT(pool_alloc(pool, (s->job_count + 1) * sizeof **out_names, (void **)out_names));
    for (size_t i = 0; i < s->job_count; i++)
        TRY_OUT(pool_copy(pool, s->jobs[i].job->name, &(*out_names)[i]));
    *out_count = s->job_count;
out:
    io_mutex_unlock(&s->lock);
    return e;
}
