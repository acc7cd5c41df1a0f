/* Compaction: neighbours among a window's live segments become one. See partition.h.
 *
 * Segments of one window are looked at in position order. Small ones of about the same size are merged when
 * there are compact_count_min of them in a row; when the partition is quiet, all of a window are, unless one
 * of them is so large that the others would not pay for writing it again. Growing by a factor of four each
 * time, a sample is written again about three times in a day.
 *
 * Invariants
 *  1. A merge takes neighbours only (chain_may_replace), so that "highest position wins" stays decided by the
 * order of segments.
 *  2. Inputs = outputs + dropped, in counts and SUM, checked before the entry and by the fold.
 *  3. A segment known to be damaged is not merged: what of it can be read stays readable, and the others go on
 * without it. */
#include "shard/partition.h"

#include "base/check.h"
#include "base/diag.h"
#include "base/stat.h"

#include <stdlib.h>

#define TIER_FACTOR 4
#define QUIET_FACTOR \
    4                               /* a quiet merge may write the largest again if the rest is a quarter of
                                        it, */
#define QUIET_BYTES     (16u << 20) /* or all is this small, */
#define QUIET_COUNT     8           /* or there are so many */
#define MERGE_COUNT_MAX 64
#define UNREAD_RETRY_NS (24 * 3600 * NS_PER_SECOND)
#define LIMIT_RETRY_NS  (3600 * NS_PER_SECOND)
#define MERGE_BYTES_MAX (UINT64_C(16) << 30)

struct candidate {
    size_t index; /* in the chain */
    int64_t window;
    uint64_t bytes;
};

static int64_t window_of(int64_t t_ms, int64_t window_ms)
{
    int64_t index = t_ms / window_ms;
    return index - (t_ms % window_ms < 0);
}

static int candidate_order(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->window != y->window)
        return x->window < y->window ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* The first run of neighbours of about one size, as pick_run; NULL chain: whatever lies between them. */
static bool pick_tier(const struct shards_config *config, const struct chain *chain,
                      const struct candidate *c, size_t count, size_t *out_from, size_t *out_count)
{
    for (size_t from = 0; from < count; from++) {
        uint64_t least = c[from].bytes, most = c[from].bytes, sum = c[from].bytes;
        size_t n = 1, indexes[MERGE_COUNT_MAX] = { c[from].index };
        while (from + n < count && n < MERGE_COUNT_MAX) {
            uint64_t bytes = c[from + n].bytes;
            uint64_t low = bytes < least ? bytes : least, high = bytes > most ? bytes : most;
            indexes[n] = c[from + n].index;
            if (high / TIER_FACTOR > low + (64u << 10) || sum + bytes > MERGE_BYTES_MAX ||
                (chain != NULL && !chain_may_replace(chain, indexes, n + 1)))
                break;
            least = low;
            most = high;
            sum += bytes;
            n++;
        }
        if (n >= config->compact_count_min) {
            *out_from = from;
            *out_count = n;
            return true;
        }
    }
    return false;
}

/* The first run of neighbours [*out_from, + *out_count) of one window, c[0 … count), worth merging. */
static bool pick_run(const struct shards_config *config, bool is_quiet, const struct candidate *c,
                     size_t count, size_t *out_from, size_t *out_count)
{
    if (pick_tier(config, NULL, c, count, out_from, out_count))
        return true;
    if (!is_quiet || count < 2)
        return false;
    uint64_t sum = 0, most = 0;
    size_t n = count < MERGE_COUNT_MAX ? count : MERGE_COUNT_MAX;
    for (size_t i = 0; i < n; i++) {
        sum += c[i].bytes;
        most = c[i].bytes > most ? c[i].bytes : most;
    }
    *out_from = 0;
    *out_count = n;
    return sum <= MERGE_BYTES_MAX &&
           ((sum - most) * QUIET_FACTOR >= most || sum <= QUIET_BYTES || n >= QUIET_COUNT);
}

/* Whether p->segments is parallel to the chain's: between a fold and partition_segments_sync it is not. */
static bool segments_are_in_step(const struct partition *p)
{
    bool same = p->segment_count == p->chain.segment_count;
    for (size_t i = 0; i < p->segment_count && same; i++)
        same = chain_segment_same(&p->segments[i]->facts, &p->chain.segments[i]);
    return same;
}

/* Choose inputs, as indexes into the chain. Locked. */
static err choose(struct partition *p, int64_t now_ns, struct pool *pool, size_t *indexes, size_t *out_count)
{
    const struct shards_config *config = &p->shards->config;
    bool is_quiet = now_ns - p->heard_ns >= atomic_load(&p->shards->idle_ms) * NS_PER_MS &&
                    p->open_range != NULL && p->open_range->row_count == 0 && p->closed_count == 0;
    void *at;
    *out_count = 0;
    if (!segments_are_in_step(p))
        return OK; /* an entry was folded a moment ago */
    TRY(pool_alloc(pool, p->chain.segment_count * sizeof(struct candidate) + 1, &at));
    struct candidate *c = at;
    size_t count = 0;
    for (size_t i = 0; i < p->chain.segment_count; i++) {
        const struct chain_segment *s = &p->chain.segments[i];
        if ((s->flags & CHAIN_SEGMENT_WIDE) == 0 && !atomic_load(&p->segments[i]->is_damaged) &&
            now_ns >= atomic_load(&p->segments[i]->merge_retry_ns))
            c[count++] = (struct candidate){ i, window_of(s->range.min_ms, config->window_ms), s->bytes };
    }
    qsort(c, count, sizeof *c, candidate_order);
    for (size_t from = 0, end; from < count; from = end) {
        end = from;
        while (end < count && c[end].window == c[from].window)
            end++;
        size_t run, n;
        if (!pick_run(config, is_quiet, c + from, end - from, &run, &n))
            continue;
        for (size_t i = 0; i < n; i++)
            indexes[i] = c[from + run + i].index;
        if (chain_may_replace(&p->chain, indexes, n)) {
            *out_count = n;
            return OK;
        }
        /* One that is no candidate lies between them: those on either side are merged. */
        if (!pick_tier(config, &p->chain, c + from, end - from, &run, &n))
            continue;
        for (size_t i = 0; i < n; i++)
            indexes[i] = c[from + run + i].index;
        *out_count = n;
        return OK;
    }
    return OK;
}

/* ---- merging ---- */

struct merge {
    struct partition *p;
    struct live_segment *inputs[MERGE_COUNT_MAX];
    size_t count;
    int64_t cutoff_ms;
    char path[IO_PATH_BYTES_MAX];
    struct chain_segment output;
    bool has_output;
    struct sum in, dropped, distinct;
};

static err write_merged(struct merge *m, struct pool *pool)
{
    struct metric_compact *compacts[MERGE_COUNT_MAX];
    struct shards *shards = m->p->shards;
    struct metric_compact_writer *writer = NULL;
    struct metric_compact_written written;
    struct err_at at = { 0 };
    struct log_position from = m->inputs[0]->facts.from, to = m->inputs[0]->facts.to;
    err e = OK;
    for (size_t i = 0; i < m->count; i++) {
        const struct chain_segment *facts = &m->inputs[i]->facts;
        TRY(live_segment_use(m->inputs[i], &compacts[i]));
        sum_add(&m->in, facts->sum);
        from = position_compare(facts->from, from) < 0 ? facts->from : from;
        to = position_compare(facts->to, to) > 0 ? facts->to : to;
    }
    shards_temp_path(shards, m->path);
    struct metric_compact_config config = { .path = m->path,
                                            .partition = m->p->number,
                                            .from_generation = from.generation,
                                            .from_offset = from.offset,
                                            .to_generation = to.generation,
                                            .to_offset = to.offset };
    TRY(metric_compact_writer_open(shards->io, &config, pool, &writer));
    struct metric_compact_merge merge = { .inputs = compacts,
                                          .input_count = m->count,
                                          .window = { TIME_MS_MIN, TIME_MS_MAX },
                                          .cutoff_ms = m->cutoff_ms == TIME_MS_MIN ? INT64_MIN : m->cutoff_ms,
                                          .guard = &m->p->closing };
    e = metric_compact_merge(&merge, writer, pool, &written, &at);
    m->has_output = e == OK;
    if (e == ERR_NOT_FOUND)
        e = OK; /* every row was below the cut-off */
    if (e == ERR_CORRUPT)
        diag(DIAG_ERROR, "A segment cannot be merged; it stays as it is.", "partition=%u detail=\"%s\"",
             m->p->number, at.text);
    TRY_OUT(e);
    m->dropped = written.info.dropped;
    sum_add(&m->dropped, written.info.expired);
    struct sum out = m->dropped;
    if (m->has_output) {
        m->distinct = written.info.distinct;
        m->output = (struct chain_segment){ .bytes = written.file.size,
                                            .from = from,
                                            .to = to,
                                            .range = written.info.time,
                                            .sum = written.info.sum,
                                            .format_version = METRIC_COMPACT_VERSION };
        memcpy(m->output.digest, written.file.digest, SHA256_BYTES);
        sum_add(&out, written.info.sum);
    }
    e = sum_equal(out, m->in) ? OK : ERR_CORRUPT;
out:
    metric_compact_writer_close(writer);
    return e;
}

/* Read the output back; put it. */
static err verify_merged(struct merge *m, struct pool *pool)
{
    struct segment_info info;
    struct err_at at = { 0 };
    TRY(built_file_verify(m->p->shards, m->path, m->output.digest, pool, &info, &at));
    if (!sum_equal(info.sum, m->output.sum) || !sum_equal(info.distinct, m->output.sum))
        return ERR_CORRUPT; /* a merge keeps one row of each (series, t): all of them, and nothing else */
    m->output.era = partition_put_era(m->p);
    return partition_segment_put(m->p, m->path, &m->output);
}

/* Of a merge that came to nothing. But an earlier attempt, whose end was not seen, may be what replaced the
 * inputs: then its output is the same and lives. Under chain_lock. */
static void remove_output(struct merge *m)
{
    struct partition *p = m->p;
    char key[SHARD_KEY_BYTES_MAX];
    for (size_t i = 0; i < p->chain.segment_count; i++)
        if (memcmp(p->chain.segments[i].digest, m->output.digest, SHA256_BYTES) == 0)
            return;
    segment_key(p->number, m->output.digest, m->output.era, key);
    if (!p->shards->config.is_shared)
        ERR_IGNORE(blob_delete(p->shards->blob, key));
}

static err append_replace(struct merge *m)
{
    struct partition *p = m->p;
    uint8_t inputs[MERGE_COUNT_MAX][SHA256_BYTES];
    for (size_t i = 0; i < m->count; i++)
        memcpy(inputs[i], m->inputs[i]->facts.digest, SHA256_BYTES);
    struct chain_entry entry = { .kind = CHAIN_REPLACE,
                                 .inputs = inputs,
                                 .input_count = m->count,
                                 .dropped = m->dropped,
                                 .distinct = m->distinct,
                                 .segments = &m->output,
                                 .segment_count = m->has_output };
    bool valid;
    io_mutex_lock(&p->chain_lock);
    err e = partition_entry_append(p, &entry, &valid);
    if (e == OK) {
        io_mutex_lock(&p->lock);
        e = partition_segments_sync(p);
        io_mutex_unlock(&p->lock);
    }
    if (e == OK && !valid && m->has_output) /* something else happened to the inputs meanwhile */
        remove_output(m);
    io_mutex_unlock(&p->chain_lock);
    return e;
}

/* A merge failed on what it read. Damaged inputs are marked by the look at them; those that could not be read
 * now, and all if it was none of them, are left out for a while, so that others are merged and disks have rest. */
static void set_aside(struct merge *m, err why, int64_t now_ns, struct pool *pool)
{
    size_t found = 0;
    for (size_t i = 0; i < m->count; i++) {
        struct metric_compact *compact;
        err e = live_segment_use(m->inputs[i], &compact);
        if (e == OK)
            e = live_segment_examine(m->inputs[i], pool);
        if (e == ERR_CANCELED)
            return;
        if (e == ERR_IO)
            atomic_store(&m->inputs[i]->merge_retry_ns, now_ns + UNREAD_RETRY_NS);
        found += e != OK;
    }
    for (size_t i = 0; found == 0 && why == ERR_CORRUPT && i < m->count; i++)
        atomic_store(&m->inputs[i]->merge_retry_ns, now_ns + UNREAD_RETRY_NS);
}

/* Merge the chosen inputs, all or nothing. */
static err merge_inputs(struct merge *m, struct pool *pool)
{
    struct shards *shards = m->p->shards;
    uint64_t bytes = 0;
    for (size_t i = 0; i < m->count; i++)
        bytes += m->inputs[i]->facts.bytes;
    uint64_t wanted = atomic_fetch_add(&shards->merging_bytes, bytes) + bytes;
    err e = wanted <= atomic_load(&shards->space_bytes) ? write_merged(m, pool) : ERR_SPACE;
    if (e == OK && m->has_output)
        e = verify_merged(m, pool);
    if (e == OK)
        e = append_replace(m);
    if (m->path[0] != '\0' && (e != OK || !m->has_output))
        ERR_IGNORE(io_unlink(shards->io, m->path));
    atomic_fetch_sub(&shards->merging_bytes, bytes);
    bool is_over = atomic_load(&shards->stopping.canceled) || atomic_load(&m->p->closing.canceled);
    return e == ERR_CANCELED && !is_over ? ERR_SPACE : e;
}

static err partition_compact(struct partition *p, int64_t now_ns, bool *out_worked)
{
    size_t indexes[MERGE_COUNT_MAX];
    struct merge m = { .p = p };
    struct pool *pool = pool_open(p->shards->pool, "compact", POOL_BYTES_UNLIMITED);
    err e = OK;
    io_mutex_lock(&p->lock);
    e = choose(p, now_ns, pool, indexes, &m.count);
    if (m.count == 0 || p->merge_wanted_ns == 0)
        p->merge_wanted_ns = m.count == 0 ? 0 : now_ns;
    if (now_ns - p->merge_wanted_ns < partition_patience_ns(p) || !partition_may_decide(p))
        m.count = 0; /* those before this replica first */
    for (size_t i = 0; e == OK && i < m.count; i++)
        m.inputs[i] = live_segment_ref(p->segments[indexes[i]]);
    m.cutoff_ms = p->chain.cutoff_ms;
    io_mutex_unlock(&p->lock);
    if (e == OK && m.count > 0) {
        e = merge_inputs(&m, pool);
        if (e == ERR_CORRUPT || e == ERR_IO)
            set_aside(&m, e, now_ns, pool);
        for (size_t i = 0; e == ERR_LIMIT && i < m.count;
             i++) /* too much for a file or for memory: others first */
            atomic_store(&m.inputs[i]->merge_retry_ns, now_ns + LIMIT_RETRY_NS);
        *out_worked = e == OK;
        io_mutex_lock(&p->lock);
        p->merge_wanted_ns = 0; /* the next one is waited for anew */
        io_mutex_unlock(&p->lock);
        if (e == OK) {
            stat_add(STAT_SHARD_COMPACTIONS, 1);
            stat_add(STAT_SHARD_COMPACTED_ROWS, (int64_t)m.in.count);
        }
    }
    for (size_t i = 0; i < m.count; i++)
        live_segment_unref(m.inputs[i]);
    partition_doomed_release(p);
    pool_close(pool);
    return e;
}

err shards_compact_step(struct shards *shards, bool *out_worked)
{
    *out_worked = false;
    if (!atomic_load(&shards->compact) || !atomic_load(&shards->is_ready))
        return OK;
    uint32_t count = shards->config.partition_count, first = atomic_fetch_add(&shards->work_next, 1);
    int64_t now_ns = io_monotonic_ns(shards->io);
    for (uint32_t i = 0; i < count && !*out_worked; i++) {
        struct partition *p = &shards->partitions[(first + i) % count];
        if (!partition_lock(p))
            continue;
        bool taken = !p->compacting && now_ns >= p->compact_retry_ns;
        p->compacting = p->compacting || taken;
        io_mutex_unlock(&p->lock);
        if (!taken)
            continue;
        err e = partition_compact(p, now_ns, out_worked);
        io_mutex_lock(&p->lock);
        p->compacting = false;
        if (e != OK)
            p->compact_retry_ns = now_ns + 30 * SHARD_RETRY_NS;
        io_mutex_unlock(&p->lock);
        if (e != OK && e != ERR_CANCELED && e != ERR_SPACE && e != ERR_BUSY && e != ERR_ORDER)
            diag(DIAG_WARN, "Cannot merge some segments now; others are tried, and the inputs stay.",
                 "partition=%u error=\"%s\"", p->number, err_text(e));
    }
    return OK;
}
