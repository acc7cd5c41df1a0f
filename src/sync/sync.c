/* The comparison in the background, one partition at a time. See sync.h.
 *
 * From: the node's thread for it, or a test, which calls sync_step. To: shards, which begin anew; another owner,
 * by the table of functions; statistics and diagnostics.
 *
 * Invariants
 *  1. At most one partition is compared at a time, and the next one waits until its turn has come and the disk has
 *     had its rest: what is read back is bounded by read_bytes_s.
 *  2. A replica begins anew by what its own disk says, or by a difference that two comparisons found, SYNC_SOON_MS
 *     apart: one of them may have met a replica that was about to notice something.
 *  3. It begins anew only if both sides, with what both were told, come to the same: sync_is_loser. */
#include "sync/sync.h"

#include "base/check.h"
#include "base/diag.h"
#include "base/stat.h"
#include "base/time.h"

#include <stdatomic.h>

#define NONE UINT32_MAX

struct place {
    int64_t due_ns;
    uint64_t skip;           /* groups read back since the last turn through all of them */
    uint32_t turn;           /* which of the others is next */
    uint32_t differing_slot; /* the other, of the last difference; NONE: there is none */
    bool is_told;            /* of the difference, to people */
    bool is_undecided;
    bool is_mending;          /* it began anew, and was not found equal since */
    _Atomic bool is_doubtful; /* any of them */
};

struct sync {
    struct sync_config config;
    struct io *io;
    struct pool *pool;
    struct place *places;
    _Atomic uint32_t comparing; /* partition; NONE */
    struct shard_sums own, other;
};

err sync_open(const struct sync_config *config, struct io *io, struct pool *parent, struct sync **out_sync)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(parent, "sync", sizeof(struct sync), &pool, &at));
    struct sync *sync = at;
    sync->config = *config;
    sync->io = io;
    sync->pool = pool;
    sync->comparing = NONE;
    if (sync->config.interval_ms == 0)
        sync->config.interval_ms = SYNC_INTERVAL_MS;
    if (sync->config.read_bytes_s == 0)
        sync->config.read_bytes_s = SYNC_READ_BYTES_S;
    err e = pool_zalloc(pool, config->partition_count * sizeof *sync->places, &at);
    if (e != OK) {
        pool_close(pool);
        return e;
    }
    sync->places = at;
    for (uint32_t i = 0; i < config->partition_count; i++) { /* not all at once */
        sync->places[i].differing_slot = NONE;
        sync->places[i].due_ns =
            io_monotonic_ns(io) +
            (int64_t)((double)sync->config.interval_ms * (double)NS_PER_MS * i / config->partition_count);
    }
    *out_sync = sync;
    return OK;
}

void sync_close(struct sync *sync)
{
    if (sync != NULL)
        pool_close(sync->pool);
}

bool sync_may_sweep(struct sync *sync, uint32_t partition)
{
    check(partition < sync->config.partition_count);
    return atomic_load(&sync->comparing) != partition && !atomic_load(&sync->places[partition].is_doubtful);
}

/* ---- differences ---- */

static bool is_doubtful(const struct place *place)
{
    return place->differing_slot != NONE || place->is_mending;
}

static void note(struct sync *sync, struct place *place)
{
    int64_t doubtful = 0, undecided = 0;
    atomic_store(&place->is_doubtful, is_doubtful(place));
    for (uint32_t i = 0; i < sync->config.partition_count; i++) {
        doubtful += is_doubtful(&sync->places[i]);
        undecided += sync->places[i].is_undecided;
    }
    stat_set(STAT_SYNC_DOUBTFUL, doubtful);
    stat_set(STAT_SYNC_UNDECIDED, undecided);
}

static void begin_anew(struct sync *sync, uint32_t partition, const char *why)
{
    struct place *place = &sync->places[partition];
    err e = shards_partition_begin_anew(sync->config.shards, partition, why);
    if (e != OK) {
        diag(DIAG_WARN, "A replica that is wrong cannot begin anew yet.", "partition=%u error=\"%s\"",
             partition, e == ERR_CONFLICT ? "the log does not reach back to the chain's end" : err_text(e));
        return;
    }
    stat_add(STAT_SYNC_QUARANTINED, 1);
    place->is_mending = true;
    place->differing_slot = NONE;
    place->skip = 0;
}

/* What is on this disk is not what was applied. True: so it is. *out_ns: the time that the reading is to take. */
static bool read_back(struct sync *sync, uint32_t partition, int64_t *out_ns)
{
    struct place *place = &sync->places[partition];
    struct shard_read_back read;
    uint64_t next;
    *out_ns = 0;
    if (sync->config.plants & SYNC_PLANT_NO_READ_BACK)
        return false;
    err e = shards_partition_read_back(sync->config.shards, partition, place->skip, SYNC_STEP_BYTES, &next,
                                       &read);
    if (e != OK)
        return false; /* it closed, or the disk is in trouble, which others tell */
    place->skip = next;
    *out_ns = (int64_t)((double)read.byte_count / (double)sync->config.read_bytes_s * (double)NS_PER_SECOND);
    stat_add(STAT_SYNC_READ_BYTES, (int64_t)read.byte_count);
    if (read.wrong_count == 0)
        return false;
    stat_add(STAT_SYNC_DIFFERED, 1);
    diag(DIAG_ERROR,
         "A stream file does not hold the rows that were applied; they are read from the log again.",
         "partition=%u generation=%llu from=%llu to=%llu rows=%llu rows_found=%llu", partition,
         (unsigned long long)read.generation, (unsigned long long)read.from, (unsigned long long)read.to,
         (unsigned long long)read.applied.count, (unsigned long long)read.found.count);
    begin_anew(sync, partition, "its stream files do not hold what was applied");
    return true;
}

/* Which segments differ: page by page, the newest first, until the rest agrees. What changes meanwhile ends it. */
static void narrow(struct sync *sync, uint32_t partition, uint32_t slot, struct sync_result *result)
{
    for (uint32_t first = 0;; first += SHARD_SEGMENT_PAGE_MAX) {
        const struct sync_request request = { partition, first, SHARD_SEGMENT_PAGE_MAX };
        shards_partition_sums(sync->config.shards, partition, first, request.count, &sync->own);
        err e = sync->config.ask(sync->config.context, slot, &request, &sync->other);
        bool is_as_before =
            e == OK && sync->own.chain_next == sync->other.chain_next && sync->other.first == first;
        if (!is_as_before || sync_narrow(&sync->own, &sync->other, result))
            return;
    }
}

static void tell(struct sync *sync, uint32_t partition, uint32_t slot, struct sync_result *result)
{
    struct place *place = &sync->places[partition];
    if (place->is_told)
        return;
    if (result->is_sealed)
        narrow(sync, partition, slot, result);
    place->is_told = true;
    stat_add(STAT_SYNC_DIFFERED, 1);
    diag(DIAG_ERROR, "Two replicas of a partition differ.",
         "partition=%u other_slot=%u what=\"%s\" generation=%llu from=%llu to=%llu rows=%llu other_rows=%llu",
         partition, slot, result->why, (unsigned long long)result->generation,
         (unsigned long long)result->from, (unsigned long long)result->to,
         (unsigned long long)result->a.count, (unsigned long long)result->b.count);
}

/* The second time in a row decides. */
static void differ(struct sync *sync, uint32_t partition, uint32_t self, uint32_t slot,
                   struct sync_result *result)
{
    struct place *place = &sync->places[partition];
    bool is_again = place->differing_slot == slot, is_undecided;
    bool is_loser = sync_is_loser(&sync->own, self, &sync->other, slot, &is_undecided);
    place->differing_slot = slot;
    tell(sync, partition, slot, result);
    if (!is_again)
        return;
    if (is_undecided && !place->is_undecided)
        diag(DIAG_ERROR,
             "Two replicas read the same log and differ; nobody can say who is right. A person has to look.",
             "partition=%u other_slot=%u", partition, slot);
    place->is_undecided = is_undecided;
    if (is_loser)
        begin_anew(sync, partition, "it differs from another replica");
}

/* slot: of the other; NONE: there is nobody to differ from, and what is here was read back. */
static void found_equal(struct sync *sync, uint32_t partition, uint32_t slot)
{
    struct place *place = &sync->places[partition];
    if (slot != NONE && place->differing_slot != NONE && place->differing_slot != slot)
        return; /* that one is asked again */
    if (is_doubtful(place)) {
        stat_add(STAT_SYNC_REPAIRED, place->is_mending);
        diag(DIAG_INFO, "A replica is equal again.", "partition=%u other_slot=%u", partition, slot);
    }
    place->differing_slot = NONE;
    place->is_told = place->is_undecided = place->is_mending = false;
}

/* ---- one partition ---- */

/* Whom to ask: who differed, or the next in turn. */
static uint32_t choose(struct place *place, const uint32_t *slots, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (slots[i] == place->differing_slot)
            return slots[i];
    place->differing_slot = NONE; /* it owns it no more */
    return slots[place->turn++ % count];
}

static enum sync_verdict compare(struct sync *sync, uint32_t partition)
{
    struct place *place = &sync->places[partition];
    uint32_t slots[SYNC_OWNERS_MAX], self;
    uint32_t count = sync->config.owners(sync->config.context, partition, slots, &self);
    const struct sync_request request = { .partition = partition };
    if (count == 0) {
        found_equal(sync, partition, NONE);
        return SYNC_EQUAL;
    }
    uint32_t slot = choose(place, slots, count);
    if (sync->config.ask(sync->config.context, slot, &request, &sync->other) != OK)
        return SYNC_UNSURE;
    shards_partition_sums(sync->config.shards, partition, 0, 0,
                          &sync->own); /* later: what the other knows it may */
    struct sync_result result = sync_compare(&sync->own, &sync->other);
    if (sync->config.plants & SYNC_PLANT_NO_COMPARISON)
        result = (struct sync_result){ .verdict = SYNC_EQUAL };
    if (result.verdict == SYNC_DIFFER)
        differ(sync, partition, self, slot, &result);
    else if (result.verdict == SYNC_EQUAL)
        found_equal(sync, partition, slot);
    stat_add(result.verdict == SYNC_UNSURE ? STAT_SYNC_NOT_COMPARED : STAT_SYNC_COMPARED, 1);
    return result.verdict;
}

/* Between three quarters and five quarters of it. */
static int64_t jitter(struct sync *sync, int64_t ns)
{
    uint16_t chance;
    io_random(sync->io, &chance, sizeof chance);
    return ns - ns / 4 + ns / 2 / UINT16_MAX * chance;
}

static struct place *most_due(struct sync *sync)
{
    struct place *place = &sync->places[0];
    for (uint32_t i = 1; i < sync->config.partition_count; i++)
        if (sync->places[i].due_ns < place->due_ns)
            place = &sync->places[i];
    return place;
}

/* It is not open here: what was doubtful of it goes with it, unless it is to be opened again. */
static void forget(struct sync *sync, struct place *place)
{
    uint32_t slots[SYNC_OWNERS_MAX], self, partition = (uint32_t)(place - sync->places);
    if (!is_doubtful(place) || sync->config.owners(sync->config.context, partition, slots, &self) > 0)
        return;
    place->differing_slot = NONE;
    place->is_told = place->is_undecided = place->is_mending = false;
    note(sync, place);
}

int64_t sync_step(struct sync *sync)
{
    struct place *place = most_due(sync);
    uint32_t partition = (uint32_t)(place - sync->places);
    int64_t now_ns = io_monotonic_ns(sync->io), reading_ns = 0;
    int64_t interval_ns = sync->config.interval_ms * NS_PER_MS;
    if (place->due_ns > now_ns)
        return place->due_ns;
    if (shards_partition_status(sync->config.shards, partition).stage == SHARD_OPEN) {
        atomic_store(&sync->comparing, partition);
        enum sync_verdict verdict = SYNC_UNSURE;
        if (!read_back(sync, partition, &reading_ns))
            verdict = compare(sync, partition);
        note(sync, place);
        atomic_store(&sync->comparing, NONE);
        if (verdict != SYNC_EQUAL && interval_ns > SYNC_SOON_MS * NS_PER_MS)
            interval_ns = SYNC_SOON_MS * NS_PER_MS;
        if (place->skip != 0)
            interval_ns = 0; /* there is more to read back */
    } else {
        forget(sync, place);
    }
    now_ns = io_monotonic_ns(sync->io);
    int64_t wait_ns = jitter(sync, interval_ns);
    place->due_ns = now_ns + (wait_ns > reading_ns ? wait_ns : reading_ns);
    int64_t next_ns = most_due(sync)->due_ns;
    return next_ns > now_ns + reading_ns ? next_ns : now_ns + reading_ns;
}
