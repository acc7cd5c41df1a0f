/* All partitions of a node: configuration, start and stop, steps, threads, waiting. See shard.h.
 *
 * Four kinds of threads loop around the steps: apply (one), spill (one), background (one for commits, the others
 * for compaction), and of a shared store one that sweeps it. They are woken by the log (new records) and by apply
 * (a full head, a closed range); clocks matter only for ages and retries. At the start others help: partitions are
 * opened, and what the log has of them is applied, by as many threads as there are cores. Where no thread can be
 * had, the simulation above all, the caller does all of it, in order. How partitions come and go: open.c.
 *
 * Invariants
 *  1. Intake is open only while no partition's spill, commit or apply has failed and heads fit their budget.
 *  2. A partition's records are applied by the thread that has taken it. The helpers are gone before the node is
 *     ready, and only then does apply look into partitions beside their records and drop series from the index. */
#include "shard/partition.h"

#include "base/check.h"
#include "base/diag.h"

#include <stdio.h>

#define APPLY_RECORDS_MAX 256 /* of one partition in one step */
#define IDLE_WAIT_NS      (200 * NS_PER_MS)
#define COMPACTORS_MAX    (SHARD_THREAD_COUNT_MAX - 4 - SHARD_REPLAY_COUNT_MAX)

/* ---- configuration ---- */

struct shards_config shards_config_default(uint64_t memory_bytes)
{
    uint64_t sixteenth = memory_bytes / 16;
    return (struct shards_config){
        .stream_directory = "stream",
        .quarantine_directory = "quarantine",
        .blob_directory = "blob",
        .partition_count = 8,
        .range_bytes_max = SHARD_RANGE_BYTES_MAX_DEFAULT,
        .head_rows_max = 256u << 10,
        .heads_bytes_max = sixteenth < (64u << 20)  ? 64u << 20
                           : sixteenth > (1u << 30) ? 1u << 30
                                                    : sixteenth,
        .head_age_ms = 10 * MS_PER_MINUTE,
        .cut_bytes = 64u << 20,
        .cut_group_count = 32,
        .cut_age_ms = MS_PER_HOUR,
        .idle_ms = 20 * MS_PER_SECOND,
        .compact = true,
        .window_ms = MS_PER_DAY,
        .compact_count_min = 4,
        .chain_base_count = 256,
        .cache_bytes_max = sixteenth < (16u << 20) ? 32u << 20 : sixteenth * 2,
        .opened_bytes_max = sixteenth < (16u << 20) ? 16u << 20 : sixteenth,
        .index_bytes_max = memory_bytes / 2 < (256u << 20) ? 256u << 20 : memory_bytes / 2,
        .index_bytes_new = memory_bytes / 5,
    };
}

err shards_config_check(const struct shards_config *c, struct err_at *at)
{
    if (c->partition_count == 0 || c->partition_count > LOG_PARTITION_COUNT_MAX)
        return err_set(at, ERR_INPUT, "partition_count must be 1 … %u", LOG_PARTITION_COUNT_MAX);
    if (c->head_rows_max == 0 || c->head_rows_max > METRIC_HEAD_ROWS_MAX)
        return err_set(at, ERR_INPUT, "storage.head_rows must be at most %u", METRIC_HEAD_ROWS_MAX);
    if (c->window_ms <= 0 || MS_PER_DAY % c->window_ms != 0)
        return err_set(at, ERR_INPUT, "window_ms must divide a day");
    if (c->range_bytes_max == 0 || c->cut_bytes == 0 || c->cut_group_count == 0)
        return err_set(at, ERR_INPUT, "range_bytes_max, cut_bytes and cut_group_count must not be 0");
    if (c->head_age_ms <= 0 || c->cut_age_ms <= 0 || c->cut_age_ms > MS_PER_HOUR || c->idle_ms <= 0)
        return err_set(at, ERR_INPUT, "ages must be above 0, cut_age_ms at most an hour");
    if (c->chain_base_count == 0)
        return err_set(at, ERR_INPUT, "chain_base_count must not be 0");
    if (c->compact_count_min < 2)
        return err_set(at, ERR_INPUT, "compact_count_min must be at least 2");
    if (c->retention_ms < 0 || c->retention_ms > TIME_MS_MAX)
        return err_set(at, ERR_INPUT, "retention_ms is out of range");
    return OK;
}

static void configure(struct shards *shards, const struct shards_config *config)
{
    atomic_store(&shards->retention_ms, config->retention_ms);
    atomic_store(&shards->idle_ms, config->idle_ms);
    atomic_store(&shards->cut_age_ms, config->cut_age_ms);
    atomic_store(&shards->compact, config->compact);
}

err shards_reconfigure(struct shards *shards, const struct shards_config *config, struct err_at *at)
{
    TRY(shards_config_check(config, at));
    if (config->retention_ms != atomic_load(&shards->retention_ms))
        for (uint32_t i = 0; i < shards->config.partition_count; i++) {
            struct partition *p = &shards->partitions[i];
            if (!partition_lock(p))
                continue;
            p->retain_is_changed = true;
            p->retain_wait_ns = 0;
            io_mutex_unlock(&p->lock);
        }
    configure(shards, config);
    shards_wake_work(shards);
    return OK;
}

void shards_space_set(struct shards *shards, uint64_t bytes_above_floor)
{
    atomic_store(&shards->space_bytes, bytes_above_floor);
    atomic_store(&shards->merging.canceled,
                 bytes_above_floor == 0 || atomic_load(&shards->stopping.canceled));
}

/* ---- open, close ---- */

/* One of the threads that open partitions. */
struct opener {
    struct shards *shards;
    struct io_thread *thread;
    err result;
    struct err_at at;
};

static void run_open(void *context)
{
    struct opener *o = context;
    while (o->result == OK) {
        uint32_t number = atomic_fetch_add(&o->shards->open_next, 1);
        if (number >= o->shards->config.partition_count)
            return;
        o->result = shards_partition_open(o->shards, number, &o->at);
    }
    atomic_store(&o->shards->open_next, o->shards->config.partition_count); /* the others need not go on */
}

/* Threads that a start may use beside the caller's. */
static uint32_t helper_count(const struct shards *shards)
{
    uint32_t count = io_cpu_count(shards->io);
    count = count < shards->config.partition_count ? count : shards->config.partition_count;
    return (count < SHARD_REPLAY_COUNT_MAX ? count : SHARD_REPLAY_COUNT_MAX) - 1;
}

static err open_partitions(struct shards *shards, struct err_at *at)
{
    struct opener openers[SHARD_REPLAY_COUNT_MAX] = { 0 };
    uint32_t count = 1 + helper_count(shards);
    for (uint32_t i = 0; i < count; i++)
        openers[i].shards = shards;
    for (uint32_t i = 1; i < count; i++)
        if (io_thread_start(shards->io, "shard-open", run_open, &openers[i], &openers[i].thread) != OK)
            break; /* fewer do it as well */
    run_open(&openers[0]);
    err e = OK;
    for (uint32_t i = 0; i < count; i++) {
        if (openers[i].thread != NULL)
            io_thread_join(openers[i].thread);
        if (e == OK && openers[i].result != OK) {
            e = openers[i].result;
            if (at != NULL)
                *at = openers[i].at;
        }
    }
    return e;
}

static void free_all(struct shards *shards)
{
    partitions_done(shards);
    segment_cache_close(shards->cache);
    pool_close(shards->opened);
    io_mutex_done(&shards->idle_lock);
    io_mutex_done(&shards->retain_lock);
    if (shards->index != NULL)
        metric_index_close(shards->index);
    pool_close(shards->index_pool);
    io_cond_done(&shards->wake_apply);
    io_cond_done(&shards->wake_work);
    io_cond_done(&shards->applied_cond);
    io_mutex_done(&shards->wake_lock);
    for (int i = 0; i < SHARD_REPLAY_COUNT_MAX; i++)
        pool_close(shards->scratch[i].pool);
    pool_close(shards->pool);
}

static err directory_create(struct io *io, const char *path)
{
    err e = io_dir_create(io, path);
    return e == ERR_EXISTS ? OK : e;
}

/* Files of builds that a crash cut short. */
static err remove_temporaries(struct shards *shards)
{
    struct io_dir_entry *entries;
    size_t count;
    err e = OK;
    struct pool *scratch = pool_open(shards->pool, "clean", POOL_BYTES_UNLIMITED);
    TRY_OUT(io_dir_list(shards->io, shards->config.stream_directory, scratch, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        char path[IO_PATH_BYTES_MAX];
        size_t len = strlen(entries[i].name);
        if (len < 4 || strcmp(entries[i].name + len - 4, ".tmp") != 0)
            continue;
        int printed = snprintf(path, sizeof path, "%s/%s", shards->config.stream_directory, entries[i].name);
        if (printed < IO_PATH_BYTES_MAX)
            TRY_OUT(io_unlink(shards->io, path));
    }
out:
    pool_close(scratch);
    return e;
}

static err prepare_directories(struct shards *shards)
{
    TRY(directory_create(shards->io, shards->config.stream_directory));
    TRY(directory_create(shards->io, shards->config.quarantine_directory));
    TRY(io_dir_sync(shards->io, "."));
    return remove_temporaries(shards);
}

err shards_open(const struct shards_config *config, struct io *io, struct log *log, struct blob *blob,
                struct pool *parent, struct shards **out_shards, struct err_at *at)
{
    TRY(shards_config_check(config, at));
    struct pool *pool;
    void *memory;
    err e = OK;
    TRY(pool_open_object(parent, "shards", sizeof(struct shards), &pool, &memory));
    struct shards *shards = memory;
    *shards = (struct shards){ .config = *config, .io = io, .log = log, .blob = blob, .pool = pool };
    shards->stopping.deadline_ns = INT64_MAX;
    shards->merging.deadline_ns = INT64_MAX;
    atomic_store(&shards->space_bytes, UINT64_MAX);
    shards->source = (struct source){ .table = &shard_source_table, .context = shards };
    for (int i = 0; i < SHARD_REPLAY_COUNT_MAX; i++)
        shards->scratch[i].pool = pool_open(pool, "apply", POOL_BYTES_UNLIMITED);
    configure(shards, config);
    io_mutex_init(&shards->idle_lock);
    io_mutex_init(&shards->retain_lock);
    io_mutex_init(&shards->wake_lock);
    io_cond_init(&shards->wake_apply);
    io_cond_init(&shards->wake_work);
    io_cond_init(&shards->applied_cond);
    if (!config->read_only)
        TRY_OUT(prepare_directories(shards));
    TRY_OUT(segment_cache_open(pool, config->cache_bytes_max, 16, &shards->cache));
    shards->opened = pool_open(pool, "open segments", (size_t)config->opened_bytes_max);
    shards->index_pool = pool_open(pool, "index", (size_t)config->index_bytes_max);
    TRY_OUT(metric_index_open(shards->index_pool, config->partition_count, &shards->index));
    metric_index_expect_many(shards->index, true);
    TRY_OUT(partitions_init(shards));
    if (!config->starts_closed)
        TRY_OUT(open_partitions(shards, at));
    *out_shards = shards;
    return OK;
out:
    if (at != NULL && at->text[0] == '\0')
        ERR_IGNORE(err_set(at, e, "cannot open the partitions: %s", err_text(e)));
    free_all(shards);
    return e;
}

void shards_close(struct shards *shards)
{
    if (shards == NULL)
        return;
    io_mutex_lock(&shards->wake_lock);
    atomic_store(&shards->stopping.canceled, true);
    atomic_store(&shards->merging.canceled, true);
    io_cond_broadcast(&shards->wake_apply);
    io_cond_broadcast(&shards->wake_work);
    io_cond_broadcast(&shards->applied_cond);
    io_mutex_unlock(&shards->wake_lock);
    if (shards->has_threads)
        log_on_durable(shards->log, NULL, NULL);
    for (uint32_t i = 0; i < shards->thread_count; i++)
        io_thread_join(shards->threads[i]);
    pool_close(shards->sweep.pool);
    log_drain(shards->log); /* control records lie in the partitions, and we listen to it */
    for (uint32_t i = 0; i < shards->config.partition_count && !shards->config.read_only; i++) {
        struct partition *p = &shards->partitions[i];
        /* Only to shorten the next start's replay: a failure changes nothing that is promised. */
        bool in_record =
            p->progress.floats_done || p->progress.histograms_done > 0; /* it comes again whole */
        if (atomic_load(&p->stage) != SHARD_OPEN)
            continue;
        bool has_rows = p->head_rows > 0 && p->apply_failed == OK && !in_record && partition_freeze(p) == OK;
        for (struct range *r = p->ranges; r != NULL; r = r->next)
            has_rows = has_rows || r->frozen != NULL;
        while (has_rows && partition_spill(p) == OK) {
            has_rows = false;
            for (struct range *r = p->ranges; r != NULL; r = r->next)
                has_rows = has_rows || r->frozen != NULL;
        }
    }
    free_all(shards);
}

/* ---- steps ---- */

struct heads {
    uint64_t open_rows, frozen_rows;
    struct partition *largest; /* of the open ones; NULL: all are empty */
};

static struct heads heads_of(struct shards *shards)
{
    struct heads heads = { 0 };
    for (uint32_t i = 0; i < shards->config.partition_count; i++) {
        struct partition *p = &shards->partitions[i];
        if (atomic_load(&p->stage) != SHARD_OPEN)
            continue;
        heads.open_rows += p->head_rows;
        if (p->head_rows > (heads.largest != NULL ? heads.largest->head_rows : 0))
            heads.largest = p;
        for (struct range *r = p->ranges; r != NULL; r = r->next)
            for (struct frozen *f = r->frozen; f != NULL; f = f->next)
                heads.frozen_rows += f->head != NULL ? f->view.row_count : 0;
    }
    return heads;
}

static bool freeze(struct shards *shards, struct partition *p)
{
    if (p == NULL || p->progress.floats_done || p->progress.histograms_done > 0 || partition_freeze(p) != OK)
        return false; /* in the middle of a record: it is finished first */
    shards_wake_work(shards);
    return true;
}

/* Freeze heads that are old. */
static void freeze_due(struct shards *shards)
{
    int64_t now_ns = io_monotonic_ns(shards->io);
    for (uint32_t i = 0; i < shards->config.partition_count; i++) {
        struct partition *p = &shards->partitions[i];
        if (atomic_load(&p->stage) != SHARD_OPEN || p->head_rows == 0 || p->apply_failed != OK ||
            now_ns - p->head_since_ns < shards->config.head_age_ms * NS_PER_MS)
            continue;
        if (!partition_lock(p))
            continue;
        (void)freeze(shards, p);
        io_mutex_unlock(&p->lock);
    }
}

/* Freeze the largest head when all together are over their budget, and the largest ones while the open heads hold
 * more than n heads would that are 1/n, 2/n … n/n full. Partitions fill alike: without the second they would all
 * be full at the same moment, and twice in memory until the last of them is spilled. */
static void freeze_for_memory(struct shards *shards)
{
    uint32_t count = shards->config.partition_count;
    uint64_t open_rows_max = shards->config.head_rows_max * (count + 1) / 2;
    for (uint32_t i = 0; i < count; i++)
        io_mutex_lock(&shards->partitions[i].lock);
    struct heads heads = heads_of(shards);
    if ((heads.open_rows + heads.frozen_rows) * SHARD_HEAD_ROW_BYTES > shards->config.heads_bytes_max &&
        freeze(shards, heads.largest))
        heads = heads_of(shards);
    while (heads.open_rows > open_rows_max && freeze(shards, heads.largest))
        heads = heads_of(shards);
    for (uint32_t i = count; i > 0; i--)
        io_mutex_unlock(&shards->partitions[i - 1].lock);
}

/* Some records of every partition that nobody else has taken. */
static bool apply_all(struct shards *shards, uint32_t first, struct apply_scratch *scratch)
{
    uint32_t count = shards->config.partition_count;
    bool worked = false;
    for (uint32_t i = 0; i < count; i++) {
        struct partition *p = &shards->partitions[(first + i) % count];
        if (atomic_load(&p->stage) != SHARD_OPEN || atomic_exchange(&p->is_taken, true))
            continue;
        p->scratch = scratch;
        worked = apply_partition(p, APPLY_RECORDS_MAX) || worked;
        atomic_store(&p->is_taken, false);
    }
    return worked;
}

/* Is everything applied that the log had when the shards were opened, as far as it can be? or_waits: or waits for
 * memory. */
static bool is_replayed(struct shards *shards, bool or_waits)
{
    bool done = true;
    for (uint32_t i = 0; i < shards->config.partition_count && done; i++) {
        struct partition *p = &shards->partitions[i];
        if (!partition_lock(p))
            continue;
        done = p->applied.offset >= p->open_end || p->apply_failed != OK || (or_waits && p->apply_waits);
        io_mutex_unlock(&p->lock);
    }
    return done;
}

static void become_ready(struct shards *shards)
{
    atomic_store(&shards->is_ready, true);
    shards_wake_work(shards);                       /* spill waited */
    metric_index_expect_many(shards->index, false); /* merges parts, while what they hold can be asked for */
}

/* What only queries saw that are closed by now; it may have kept series in the index. */
static void release_ended(struct shards *shards)
{
    for (uint32_t i = 0; i < shards->config.partition_count && atomic_load(&shards->ended_count) > 0; i++)
        if (partition_ended_release(&shards->partitions[i]))
            atomic_store(&shards->retain_index, true);
}

err shards_apply_step(struct shards *shards, bool *out_worked)
{
    *out_worked = apply_all(shards, shards->apply_next++, &shards->scratch[0]);
    if (*out_worked)
        freeze_for_memory(shards);
    if (atomic_load(&shards->replaying) == 0) {
        freeze_due(shards);
        if (!*out_worked && !atomic_load(&shards->is_ready) && is_replayed(shards, false))
            become_ready(shards);
        partitions_close_due(shards);
        release_ended(shards);
        if (atomic_load(&shards->retain_index))
            shards_index_retain(shards);
    }
    shards_intake_update(shards);
    return atomic_load(&shards->stopping.canceled) ? ERR_CLOSED : OK;
}

bool shards_ready(struct shards *shards) { return atomic_load(&shards->is_ready); }

static err worse(err have, err e)
{
    if (e == OK || have == ERR_IO)
        return have;
    if (e == ERR_SPACE)
        return ERR_SPACE;
    if (e == ERR_LIMIT || e == ERR_BUSY)
        return have == OK ? ERR_BUSY : have;
    return ERR_IO;
}

void shards_intake_update(struct shards *shards)
{
    err e = OK;
    uint64_t frozen_rows = 0;
    for (uint32_t i = 0; i < shards->config.partition_count; i++) {
        struct partition *p = &shards->partitions[i];
        if (!partition_lock(p))
            continue;
        e = worse(e, p->spill_failed);
        e = worse(e, p->commit_failed);
        e = worse(e, p->apply_failed == ERR_ORDER ? OK : p->apply_failed); /* the log refuses for it */
        e = worse(e, p->apply_waits ? ERR_BUSY : OK);
        for (struct range *r = p->ranges; r != NULL; r = r->next) {
            for (struct frozen *f = r->frozen; f != NULL; f = f->next)
                frozen_rows += f->view.row_count;
            if (r->frozen_count >= SHARD_FROZEN_COUNT_MAX)
                e = worse(e, ERR_BUSY);
        }
        io_mutex_unlock(&p->lock);
    }
    bool is_full = frozen_rows * SHARD_HEAD_ROW_BYTES > 2 * shards->config.heads_bytes_max;
    atomic_store(&shards->heads_are_full, is_full);
    if (is_full)
        e = worse(e, ERR_BUSY);
    /* A shared log takes the records: who cannot keep up lags, and others answer for it. */
    atomic_store(&shards->intake, shards->config.is_shared ? OK : e);
}

err shards_intake(const struct shards *shards)
{
    return atomic_load_explicit(&((struct shards *)(uintptr_t)shards)->intake, memory_order_relaxed);
}

err shards_background_step(struct shards *shards, bool *out_worked)
{
    err e = shards_commit_step(shards, out_worked);
    if (e == OK && !*out_worked)
        e = shards_compact_step(shards, out_worked);
    return e;
}

/* ---- threads ---- */

void shards_wake_work(struct shards *shards)
{
    if (shards->has_threads)
        io_cond_broadcast(&shards->wake_work);
}

void shards_wake_apply(struct shards *shards)
{
    io_mutex_lock(&shards->wake_lock);
    shards->apply_is_woken = true;
    io_cond_signal(&shards->wake_apply);
    io_mutex_unlock(&shards->wake_lock);
}

static void wake_apply(void *context) { shards_wake_apply(context); }

static void run_apply(void *context)
{
    struct shards *shards = context;
    while (!atomic_load(&shards->stopping.canceled)) {
        bool worked;
        ERR_IGNORE(shards_apply_step(shards, &worked)); /* only ERR_CLOSED, which the loop sees itself */
        io_mutex_lock(&shards->wake_lock);
        if (worked)
            io_cond_broadcast(&shards->applied_cond);
        else if (!shards->apply_is_woken && !atomic_load(&shards->stopping.canceled))
            io_cond_wait_for(&shards->wake_apply, &shards->wake_lock, IDLE_WAIT_NS);
        shards->apply_is_woken = false;
        io_mutex_unlock(&shards->wake_lock);
    }
}

/* At the start, beside apply. */
static void run_replay(void *context)
{
    struct shards *shards = context;
    uint32_t number = atomic_fetch_add(&shards->replay_next, 1) + 1;
    while (!atomic_load(&shards->stopping.canceled) && !is_replayed(shards, false)) {
        if (apply_all(shards, number, &shards->scratch[number]))
            continue;
        if ((atomic_load(&shards->retain_index) || atomic_load(&shards->ended_count) > 0) &&
            is_replayed(shards, true))
            break; /* dropping series may make room, and apply does that when it is alone */
        io_sleep_ns(shards->io, NS_PER_MS); /* another has what is left, or it waits for spill */
    }
    atomic_fetch_sub(&shards->replaying, 1);
    wake_apply(shards);
}

static void run_steps(struct shards *shards, err (*step)(struct shards *, bool *))
{
    while (!atomic_load(&shards->stopping.canceled)) {
        bool worked;
        err e = step(shards, &worked); /* reported where it happened */
        if (e == OK && worked)
            continue;
        io_mutex_lock(&shards->wake_lock);
        if (!atomic_load(&shards->stopping.canceled))
            io_cond_wait_for(&shards->wake_work, &shards->wake_lock, IDLE_WAIT_NS);
        io_mutex_unlock(&shards->wake_lock);
    }
}

static void run_spill(void *context) { run_steps(context, shards_spill_step); }
static void run_commit(void *context) { run_steps(context, shards_commit_step); }
static void run_compact(void *context) { run_steps(context, shards_compact_step); }
static void run_sweep(void *context) { run_steps(context, shards_sweep_step); }

err shards_run_threads(struct shards *shards)
{
    check(!shards->has_threads);
    uint32_t compactors =
        shards->config.thread_count > 0 ? shards->config.thread_count : io_cpu_count(shards->io) / 2;
    compactors = compactors < 1 ? 1 : compactors > COMPACTORS_MAX ? COMPACTORS_MAX : compactors;
    shards->has_threads = true;
    log_on_durable(shards->log, wake_apply, shards);
    static const struct {
        const char *name;
        void (*run)(void *);
    } kinds[] = { { "shard-apply", run_apply },
                  { "shard-spill", run_spill },
                  { "shard-commit", run_commit },
                  { "shard-compact", run_compact },
                  { "shard-sweep", run_sweep } };
    uint32_t sweepers = shards->config.is_shared && shards->config.may_sweep != NULL;
    for (uint32_t i = is_replayed(shards, false) ? 0 : helper_count(shards); i > 0; i--) {
        atomic_fetch_add(&shards->replaying, 1);
        if (io_thread_start(shards->io, "shard-replay", run_replay, shards,
                            &shards->threads[shards->thread_count]) == OK)
            shards->thread_count++;
        else
            atomic_fetch_sub(&shards->replaying, 1);
    }
    for (uint32_t i = 0; i < 3 + compactors + sweepers; i++) {
        uint32_t kind = i < 3 ? i : i < 3 + compactors ? 3 : 4;
        TRY(io_thread_start(shards->io, kinds[kind].name, kinds[kind].run, shards,
                            &shards->threads[shards->thread_count]));
        shards->thread_count++;
    }
    return OK;
}

/* ---- waiting ---- */

static bool is_applied(struct shards *shards, const uint64_t *partitions, const uint64_t *ends)
{
    bool done = true;
    for (uint32_t i = 0; i < shards->config.partition_count && done; i++) {
        struct partition *p = &shards->partitions[i];
        if (!source_asks(partitions, i) || !partition_lock(p))
            continue;
        done = p->applied.offset >= ends[i] || p->apply_failed != OK;
        io_mutex_unlock(&p->lock);
    }
    return done;
}

/* Everything that one thread can do at once; simulation only. */
static bool step_all(struct shards *shards)
{
    bool any = false, worked;
    if (shards_apply_step(shards, &worked) == OK)
        any = any || worked;
    if (shards_spill_step(shards, &worked) == OK)
        any = any || worked;
    return any;
}

void shards_ends(struct shards *shards, const uint64_t *partitions, uint64_t *out_ends)
{
    for (uint32_t i = 0; i < shards->config.partition_count; i++)
        out_ends[i] = source_asks(partitions, i) ? log_watermarks(shards->log, i).end_offset : 0;
}

err shards_ends_wait(struct shards *shards, const uint64_t *partitions, const uint64_t *ends,
                     int64_t deadline_ns, struct guard *guard)
{
    while (!is_applied(shards, partitions, ends)) {
        if (guard != NULL)
            TRY(guard_check(guard));
        if (!shards->has_threads && !step_all(shards))
            return ERR_TIMEOUT;
        if (!shards->has_threads)
            continue;
        if (atomic_load(&shards->stopping.canceled))
            return ERR_CLOSED;
        int64_t left_ns = deadline_ns - io_monotonic_ns(shards->io);
        if (left_ns <= 0)
            return ERR_TIMEOUT;
        io_mutex_lock(&shards->wake_lock);
        /* The apply thread may have finished in between; a short wait costs less than a counter for it. */
        io_cond_wait_for(&shards->applied_cond, &shards->wake_lock,
                         left_ns < NS_PER_MS ? left_ns : NS_PER_MS);
        io_mutex_unlock(&shards->wake_lock);
    }
    return OK;
}

err shards_wait_applied(struct shards *shards, int64_t deadline_ns)
{
    uint64_t ends[LOG_PARTITION_COUNT_MAX];
    shards_ends(shards, NULL, ends);
    return shards_ends_wait(shards, NULL, ends, deadline_ns, NULL);
}

static bool is_cut(struct shards *shards)
{
    bool done = true;
    for (uint32_t i = 0; i < shards->config.partition_count && done; i++) {
        struct partition *p = &shards->partitions[i];
        if (!partition_lock(p))
            continue;
        done = !p->cut_asked &&
               !(p->ranges->closed && position_compare(p->ranges->start, p->cut_asked_start) <= 0);
        io_mutex_unlock(&p->lock);
    }
    return done;
}

err shards_cut_all(struct shards *shards, int64_t deadline_ns)
{
    TRY(shards_wait_applied(shards, deadline_ns));
    for (uint32_t i = 0; i < shards->config.partition_count; i++) {
        struct partition *p = &shards->partitions[i];
        if (!partition_lock(p))
            continue;
        p->cut_asked = !open_range_is_empty(p) && p->apply_failed == OK;
        p->cut_asked_start = p->open_range->start;
        io_mutex_unlock(&p->lock);
    }
    shards_wake_work(shards);
    while (!is_cut(shards)) {
        if (atomic_load(&shards->stopping.canceled))
            return ERR_CLOSED;
        err intake = shards_intake(shards);
        if (intake == ERR_SPACE || intake == ERR_IO)
            return intake;
        if (io_monotonic_ns(shards->io) >= deadline_ns)
            return ERR_TIMEOUT;
        if (shards->has_threads) {
            io_sleep_ns(shards->io, 2 * NS_PER_MS);
            continue;
        }
        bool worked;
        TRY(shards_commit_step(shards, &worked));
        TRY(log_pump(shards->log));
        if (!step_all(shards) && !worked)
            io_sleep_ns(shards->io, NS_PER_MS);
    }
    return OK;
}

/* ---- what others are given ---- */

bool shards_have_room(struct shards *shards, struct slice tenant, struct slice labels)
{
    return pool_used(shards->index_pool) <= shards->config.index_bytes_new ||
           metric_index_find(shards->index, sum_series_hash(tenant, labels)) != METRIC_ID_NONE;
}

struct source *shards_source(struct shards *shards) { return &shards->source; }
