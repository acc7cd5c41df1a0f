/* Replicas of the same partitions over one log and one blob store: whoever cuts, builds and commits first, all
 * come to the same chain and the same rows, through restarts, empty disks, closed partitions, disks that fail and
 * clocks that pass. Model and oracle: workload.h, asked at every replica; at rest also their chains are compared.
 * Test only; shared by replica_simtest.c (a log in memory) and replica_brokers_simtest.c (the Kafka driver over
 * simulated brokers): what differs between them is the ground.
 *
 * A life has a phase of faults and then a time of rest, after which nothing may be open. What came to pass is
 * counted, and none of it may be 0. */
#ifndef SIM_REPLICAS_H
#define SIM_REPLICAS_H

#include "shard/workload.h"

#include "base/stat.h"
#include "shard/partition.h"
#include "sim/io_sim.h"
#include "sync/sync.h"

#define REPLICA_COUNT 3u

struct replica {
    struct life *life;
    struct shards *shards;
    struct sync *sync;
    unsigned sync_plants;
    struct log *log; /* this process' handle */
    struct shards_config config;
    char stream[8], quarantine[8];
    int64_t until_ns; /* its lease on all partitions */
};

/* A time at which the log of a partition lost [to, seen_end) of what processes had seen. */
struct going_back {
    uint32_t partition;
    uint64_t to, seen_end;
};

#define BACKS_MAX 64
#define LOST_MAX  1024

struct life;

/* The log that the replicas share. */
struct ground {
    void (*begin)(struct life *l, uint64_t seed);
    void (*end)(struct life *l);
    /* A handle for a new process of replica k, and the process' end: nothing of it is under way any more. */
    void (*process_open)(struct life *l, uint32_t k);
    void (*process_settle)(struct life *l, uint32_t k);
    void (*process_close)(struct life *l, uint32_t k);
    void (*pass)(struct life *l, int64_t ns); /* time passes for all */
    void (*go_back)(struct life *l, uint32_t partition);
    void (*strike)(struct life *l); /* its own faults */
    void (*heal)(struct life *l);
    void (*judge)(struct life *l); /* at rest, before the oracles are asked */
    void (*wrap)(struct life *l);  /* puts something before the store; NULL: nothing */
};

struct life {
    const struct ground *ground;
    void *ground_state;
    struct world w; /* the model; its shards are those of whichever replica is asked */
    struct replica replicas[REPLICA_COUNT]; /* the producer is in the process of the first */
    bool has_gone_back;                     /* answers may say that they are not complete */
    bool has_late;                          /* records with rows of other days */
    bool goes_back;                         /* the log does … */
    bool is_heard_late;                     /* … and processes hear of it after a while */
    bool is_told_roughly;                   /* what was lost is told with more around it */
    struct going_back backs[BACKS_MAX];
    size_t back_count;
    struct {
        struct world_record *record;
        uint32_t witnesses; /* bit k: the process of replica k had seen it, and goes on */
    } lost[LOST_MAX];
    size_t lost_count;
};

enum event { EVENT_COMMIT, EVENT_TAKEN_OVER, EVENT_RACE, EVENT_BEGUN_ANEW, EVENT_MERGE, EVENT_COUNT };
static const char *const event_names[] = { "commits", "entries taken over", "races", "begun anew", "merges" };
static const enum stat event_stats[] = { STAT_SHARD_COMMITS, STAT_SHARD_TAKEN_OVER, STAT_SHARD_RACES,
                                         STAT_SHARD_BEGUN_ANEW, STAT_SHARD_COMPACTIONS };
enum deed {
    DEED_RESTART,
    DEED_KILL,
    DEED_WIPE,
    DEED_CLOSE,
    DEED_FAULT,
    DEED_RANK,
    DEED_BACK,
    DEED_LEASE,
    DEED_COUNT
};
static const char *const deed_names[] = { "restarts", "kills", "empty disks",         "closed partitions",
                                          "faults",   "ranks", "logs that went back", "leases that end" };
static uint64_t deeds[DEED_COUNT];

/* ---- a life ---- */

static void replica_rank(struct life *l, uint32_t k, uint32_t p, uint32_t rank)
{
    shards_partition_rank(l->replicas[k].shards, p, rank, l->replicas[k].until_ns);
}

/* Until then it may decide, and nothing afterwards. */
static void replica_lease(struct life *l, uint32_t k, int64_t until_ns)
{
    l->replicas[k].until_ns = until_ns;
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        replica_rank(l, k, p, (k + p) % REPLICA_COUNT);
}

/* ---- comparing ---- */

static uint32_t other_owners(void *context, uint32_t partition, uint32_t out_slots[SYNC_OWNERS_MAX],
                             uint32_t *out_self)
{
    const struct replica *self = context;
    uint32_t count = 0;
    for (uint32_t k = 0; k < REPLICA_COUNT; k++)
        if (&self->life->replicas[k] != self)
            out_slots[count++] = k;
    *out_self = (uint32_t)(self - self->life->replicas);
    return count;
}

/* By the bytes that travel. */
static err ask_other(void *context, uint32_t slot, const struct sync_request *request,
                     struct shard_sums *out_sums)
{
    const struct replica *self = context;
    struct shards *shards = self->life->replicas[slot].shards;
    struct pool *pool = pool_open(NULL, "asked", POOL_BYTES_UNLIMITED);
    struct buf bytes = buf_open(pool, SYNC_ANSWER_BYTES_MAX);
    struct sync_request asked;
    sync_request_encode(request, &bytes);
    assert_ok(sync_request_decode(buf_slice(&bytes), &asked));
    buf_clear(&bytes);
    shards_partition_sums(shards, asked.partition, asked.first, asked.count, out_sums);
    sync_answer_encode(out_sums, &bytes);
    assert_ok(buf_err(&bytes));
    err e = sync_answer_decode(buf_slice(&bytes), out_sums);
    pool_close(pool);
    return e;
}

static void replica_compare(struct life *l, uint32_t k)
{
    struct replica *r = &l->replicas[k];
    const struct sync_config config = { .shards = r->shards,
                                        .partition_count = WORLD_PARTITIONS,
                                        .owners = other_owners,
                                        .ask = ask_other,
                                        .context = r,
                                        .plants = r->sync_plants };
    r->life = l;
    assert_ok(sync_open(&config, l->w.io, l->w.node_pool, &r->sync));
}

static void replica_open(struct life *l, uint32_t k)
{
    struct replica *r = &l->replicas[k];
    struct err_at at = { 0 };
    l->ground->process_open(l, k);
    assert_ok(shards_open(&r->config, l->w.io, r->log, l->w.blob, l->w.node_pool, &r->shards, &at));
    replica_compare(l, k);
    if (k == 0)
        l->w.log = r->log;
}

/* What no living process has seen nobody can name. */
static void forget_witness(struct life *l, uint32_t k)
{
    for (size_t i = 0; i < l->lost_count; i++) {
        l->lost[i].witnesses &= ~(1u << k);
        if (l->lost[i].witnesses == 0 && l->lost[i].record->answer == WORLD_LOST)
            l->lost[i].record->answer = WORLD_PENDING;
    }
}

static void replica_close(struct life *l, uint32_t k)
{
    forget_witness(l, k);
    l->ground->process_settle(l, k);
    sync_close(l->replicas[k].sync);
    shards_close(l->replicas[k].shards);
    l->ground->process_close(l, k);
}

static bool may_sweep(void *context, uint32_t partition)
{
    const struct replica *r = context;
    return sync_may_sweep(r->sync, partition);
}

static void life_open(struct life *l, const struct ground *ground, struct pool *pool, uint64_t seed,
                      uint32_t canary)
{
    struct io *io;
    struct world *w = &l->w;
    *l = (struct life){ .ground = ground };
    assert_ok(io_sim_open(seed, &io));
    world_init(w, io, pool, seed);
    world_producer_renew(w);
    w->node_pool = pool_open(NULL, "node", POOL_BYTES_UNLIMITED);
    ground->begin(l, seed);
    assert_ok(blob_open_dir("blob", io, w->node_pool, &w->blob));
    if (ground->wrap != NULL)
        ground->wrap(l);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        struct replica *r = &l->replicas[k];
        snprintf(r->stream, sizeof r->stream, "s%u", k);
        snprintf(r->quarantine, sizeof r->quarantine, "q%u", k);
        r->config = w->config;
        r->config.is_shared = true;
        r->config.canary = canary;
        r->config.chain_base_count = 4;
        r->config.may_sweep = may_sweep;
        r->config.sweep_context = r;
        r->config.stream_directory = r->stream;
        r->config.quarantine_directory = r->quarantine;
        replica_open(l, k);
        replica_lease(l, k, INT64_MAX);
    }
}

static void life_close(struct life *l)
{
    for (uint32_t k = 0; k < REPLICA_COUNT; k++)
        replica_close(l, k);
    l->ground->end(l);
    blob_close(l->w.blob);
    pool_close(l->w.node_pool);
    io_close(l->w.io);
}

/* ---- what happens ---- */

static uint64_t draw(struct life *l, uint64_t below) { return test_random_below(&l->w.random, below); }

static int64_t decisions(void) { return stat_get(STAT_SHARD_COMMITS) + stat_get(STAT_SHARD_COMPACTIONS); }

/* Some steps of one replica, as its threads would happen to make them. */
static void step(struct life *l, uint32_t k, int count)
{
    struct shards *shards = l->replicas[k].shards;
    bool may_decide = io_boottime_ns(l->w.io) < l->replicas[k].until_ns; /* no time passes in here */
    int64_t before = decisions();
    for (int i = 0; i < count; i++) {
        bool worked;
        uint64_t kind = draw(l, 5);
        if (kind < 2)
            ERR_IGNORE(shards_apply_step(shards, &worked));
        else if (kind == 2)
            ERR_IGNORE(shards_spill_step(shards, &worked));
        else
            ERR_IGNORE(shards_background_step(shards, &worked));
        if (kind == 4)
            ERR_IGNORE(shards_sweep_step(shards, &worked));
    }
    assert_true(may_decide || decisions() == before);
    if (count > 0)
        (void)sync_step(l->replicas[k].sync);
}

static void append(struct life *l)
{
    ERR_IGNORE(world_append(&l->w, (uint32_t)draw(l, WORLD_PARTITIONS), 1 + draw(l, 30), l->has_late));
}

static void wipe(struct life *l, const char *directory)
{
    struct io_dir_entry *entries;
    size_t count;
    assert_ok(io_dir_list(l->w.io, directory, l->w.pool, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        char path[IO_PATH_BYTES_MAX];
        snprintf(path, sizeof path, "%s/%s", directory, entries[i].name);
        assert_ok(io_unlink(l->w.io, path));
    }
}

/* Stop a replica and start it again; killed: without what it would spill; wiped: on an empty disk. */
static void restart(struct life *l, uint32_t k, bool is_killed, bool is_wiped)
{
    struct replica *r = &l->replicas[k];
    if (is_killed)
        io_sim_fault_at(l->w.io, 1, true, ERR_IO);
    replica_close(l, k);
    io_sim_fault_at(l->w.io, 0, false, OK);
    deeds[is_wiped ? DEED_WIPE : is_killed ? DEED_KILL : DEED_RESTART]++;
    if (is_wiped)
        wipe(l, r->stream);
    replica_open(l, k);
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        replica_rank(l, k, p, (uint32_t)draw(l, REPLICA_COUNT));
}

/* What closed itself, or was closed, is opened again, as the node does. */
static void reopen(struct life *l, uint32_t k)
{
    struct err_at at = { 0 };
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        if (shards_partition_status(l->replicas[k].shards, p).stage == SHARD_CLOSED)
            ERR_IGNORE(shards_partition_open(l->replicas[k].shards, p, &at));
}

static void disturb(struct life *l)
{
    uint32_t k = (uint32_t)draw(l, REPLICA_COUNT), p = (uint32_t)draw(l, WORLD_PARTITIONS);
    switch (draw(l, 15)) {
    case 0:
        restart(l, k, false, false);
        break;
    case 1:
        restart(l, k, true, false);
        break;
    case 2:
        restart(l, k, true, true);
        break;
    case 3:
    case 4:
        shards_partition_close(l->replicas[k].shards, p);
        deeds[DEED_CLOSE]++;
        break;
    case 5:
    case 6: /* the next calls of this replica's disk, or of the store, fail */
        io_sim_fault_at(l->w.io, 1 + draw(l, 12), draw(l, 2) == 0, draw(l, 2) == 0 ? ERR_IO : ERR_SPACE);
        for (int i = 0; i < 8; i++) {
            bool worked;
            ERR_IGNORE(shards_spill_step(l->replicas[k].shards, &worked));
            ERR_IGNORE(shards_background_step(l->replicas[k].shards, &worked));
        }
        deeds[DEED_FAULT] += io_sim_faults(l->w.io) > 0;
        io_sim_fault_at(l->w.io, 0, false, OK);
        break;
    case 7: /* two of the same rank, or none of rank 0 */
        replica_rank(l, k, p, (uint32_t)draw(l, REPLICA_COUNT));
        deeds[DEED_RANK]++;
        break;
    case 8:
        world_producer_renew(&l->w);
        break;
    case 9:
        if (l->goes_back)
            l->ground->go_back(l, p);
        break;
    case 10:
        l->ground->strike(l);
        break;
    case 11: /* one that did not hear that it is over in time, or at once; or that is given another */
        replica_lease(l, k,
                      draw(l, 3) == 0   ? INT64_MAX
                      : draw(l, 2) == 0 ? INT64_MIN
                                        : io_boottime_ns(l->w.io) + (int64_t)draw(l, 100) * NS_PER_SECOND);
        deeds[DEED_LEASE] += l->replicas[k].until_ns != INT64_MAX;
        break;
    default:
        l->ground->pass(l, (int64_t)draw(l, 400) * NS_PER_SECOND);
    }
}

static void live(struct life *l, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        append(l);
        if (draw(l, 3) > 0)
            append(l);
        for (uint32_t k = 0; k < REPLICA_COUNT; k++) /* some lag behind */
            step(l, k, draw(l, 4) == 0 ? 0 : (int)draw(l, 12));
        l->ground->pass(l, (int64_t)draw(l, 10) * NS_PER_SECOND);
        if (draw(l, 4) == 0)
            disturb(l);
        reopen(l, (uint32_t)draw(l, REPLICA_COUNT));
    }
}

/* Quiet until every patience is over. */
static void rest(struct life *l)
{
    for (uint32_t k = 0; k < REPLICA_COUNT; k++)
        if (l->replicas[k].until_ns != INT64_MAX)
            replica_lease(l, k, INT64_MAX);
    for (int i = 0; i < 120; i++) {
        for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
            reopen(l, k);
            step(l, k, 30);
        }
        l->ground->pass(l, 10 * NS_PER_SECOND);
    }
}

/* ---- the oracle ---- */

#define NOT_COMPLETE "the answer says it is not complete"

static const char *check_replica(struct life *l, uint32_t k)
{
    l->w.shards = l->replicas[k].shards;
    struct log *log = l->w.log;
    l->w.log = l->replicas[k].log;
    const char *wrong = world_check(&l->w);
    l->w.shards = NULL;
    l->w.log = log;
    return wrong != NULL && l->has_gone_back && strcmp(wrong, NOT_COMPLETE) == 0 ? NULL : wrong;
}

/* Whatever it lacks at the moment, it says so. */
static const char *check_while_moving(struct life *l, uint32_t k)
{
    bool is_open = true;
    uint64_t from;
    if (l->is_heard_late && l->has_gone_back)
        return NULL; /* who has not heard of it yet cannot say so */
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        is_open = is_open && shards_partition_status(l->replicas[k].shards, p).stage == SHARD_OPEN &&
                  log_went_back(l->replicas[k].log, p, &from) != OK;
    const char *wrong = is_open ? check_replica(l, k) : NULL;
    if (wrong != NULL && strcmp(wrong, WORLD_NOT_NAMED) == 0)
        return NULL; /* another replica knows, and will tell */
    bool may_lag =
        wrong != NULL && (strcmp(wrong, NOT_COMPLETE) == 0 || strcmp(wrong, WORLD_NO_ANSWER) == 0 ||
                          strcmp(wrong, WORLD_NOT_THERE) == 0);
    return may_lag && l->is_told_roughly ? NULL
                                         : wrong; /* ends are confirmed each second, if brokers are there */
}

static const char *compare_chains(struct life *l)
{
    for (uint32_t k = 0; k < REPLICA_COUNT; k++)
        for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
            const struct partition *a = &l->replicas[0].shards->partitions[p];
            const struct partition *b = &l->replicas[k].shards->partitions[p];
            if (a->ranges->closed || b->ranges->closed)
                return "a range is not committed";
            if (a->chain.next_number != b->chain.next_number || a->chain.ignored_count != 0)
                return "the chains differ, or hold entries that are not valid";
            if (a->chain.segment_count != b->chain.segment_count ||
                (a->chain.segment_count > 0 && memcmp(a->chain.segments, b->chain.segments,
                                                      a->chain.segment_count * sizeof *a->chain.segments)))
                return "the chains' segments differ";
            if (position_compare(a->applied, b->applied) != 0)
                return "one has applied more";
            if (!sum_equal(shards_partition_sum(l->replicas[0].shards, p).sum,
                           shards_partition_sum(l->replicas[k].shards, p).sum))
                return "the SUMs differ";
        }
    return NULL;
}

/* One that was told with another of a later generation goes from a position of one to a position of the other. */
static bool is_joined(const struct chain_loss *loss) { return loss->from.generation != loss->to.generation; }

static bool has_offset(const struct chain_loss *loss, uint64_t offset)
{
    bool is_behind = loss->from.offset <= offset, is_before = offset < loss->to.offset;
    bool has_whole = loss->to.generation > loss->from.generation + 1;
    return is_joined(loss) ? is_behind || is_before || has_whole : is_behind && is_before;
}

static bool is_lost_named(struct life *l, const struct world_record *r)
{
    const struct chain *c = &l->replicas[0].shards->partitions[r->partition].chain;
    for (size_t i = 0; i < c->loss_count; i++)
        if (has_offset(&c->losses[i], r->offset) && c->losses[i].range.max_ms >= r->append_ms)
            return true;
    return false;
}

/* Is every offset of it one that the log lost? Where that cannot be told exactly: is any? */
static bool was_lost_between(const struct life *l, uint32_t partition, uint64_t from, uint64_t to)
{
    uint64_t at = from;
    for (bool found = true; found && at < to;) {
        found = false;
        for (size_t i = 0; i < l->back_count && !found; i++) {
            const struct going_back *back = &l->backs[i];
            found = back->partition == partition && back->to <= at && at < back->seen_end;
            at = found ? back->seen_end : at;
            if (l->is_told_roughly && back->partition == partition && back->to < to && from < back->seen_end)
                return true;
        }
    }
    return at >= to;
}

static bool was_lost(const struct life *l, uint32_t partition, const struct chain_loss *loss)
{
    uint64_t from = loss->from.offset, to = loss->to.offset;
    if (!is_joined(loss))
        return was_lost_between(l, partition, from, to);
    return to > 0 && was_lost_between(l, partition, from, from + 1) &&
           was_lost_between(l, partition, to - 1, to);
}

/* No loss is named but of what the log lost, and no generation begins but when it did. */
static const char *check_losses(struct life *l)
{
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        const struct chain *c = &l->replicas[0].shards->partitions[p].chain;
        uint64_t generations = 1;
        for (size_t i = 0; i < l->back_count; i++)
            generations += l->backs[i].partition == p && l->backs[i].seen_end > l->backs[i].to;
        if (c->end.generation > generations)
            return "a generation began, and the log had not gone back";
        for (size_t i = 0; i < c->loss_count; i++) {
            const struct chain_loss *loss = &c->losses[i];
            if (loss->kind == LOSS_DOUBT)
                return "replicas are said to differ";
            if (!was_lost(l, p, loss))
                return "a loss is named that was none";
        }
    }
    for (size_t i = 0; i < l->w.record_count; i++) {
        const struct world_record *r = l->w.records[i];
        if (r->answer == WORLD_LOST && !r->is_there && !is_lost_named(l, r))
            return WORLD_NOT_NAMED;
    }
    return NULL;
}

static const char *run_life(const struct ground *ground, uint64_t seed, int rounds, uint32_t canary)
{
    struct pool *pool = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    const char *wrong = NULL;
    int64_t differed = stat_get(STAT_SYNC_DIFFERED);
    void *at;
    assert_ok(pool_zalloc(pool, sizeof(struct life), &at));
    struct life *l = at;
    life_open(l, ground, pool, seed, canary);
    l->has_late = seed % 2 == 0;
    l->goes_back = seed / 2 % 2 == 0;
    for (int i = 0; i < rounds / 20 && wrong == NULL; i++) {
        live(l, 20);
        wrong = check_while_moving(l, (uint32_t)draw(l, REPLICA_COUNT));
    }
    l->ground->heal(l);
    if (wrong == NULL)
        rest(l);
    l->ground->judge(l);
    for (uint32_t k = 0; k < REPLICA_COUNT && wrong == NULL; k++)
        wrong = check_replica(l, k);
    if (wrong == NULL)
        wrong = compare_chains(l);
    if (wrong == NULL)
        wrong = check_losses(l);
    if (wrong == NULL && stat_get(STAT_SYNC_DIFFERED) > differed)
        wrong = "replicas were found to differ, and none was made to";
    life_close(l);
    pool_close(pool);
    return wrong;
}

/* Lives of a ground; every event and deed must have come to pass. */
static inline void run_lives(const struct ground *ground, uint64_t lives, int rounds, struct test_random *r)
{
    int64_t events[EVENT_COUNT];
    for (int i = 0; i < EVENT_COUNT; i++)
        events[i] = stat_get(event_stats[i]);
    int64_t compared = stat_get(STAT_SYNC_COMPARED);
    for (uint64_t i = 0; i < lives; i++) {
        uint64_t seed = test_random_u64(r) >> 32;
        const char *wrong = run_life(ground, seed, rounds, 0);
        if (wrong != NULL)
            fail_msg("seed %llu: %s", (unsigned long long)seed, wrong);
    }
    printf("# %llu lives, %lld comparisons", (unsigned long long)lives,
           (long long)(stat_get(STAT_SYNC_COMPARED) - compared));
    assert_true(stat_get(STAT_SYNC_COMPARED) - compared > 100);
    for (int i = 0; i < EVENT_COUNT; i++) {
        events[i] = stat_get(event_stats[i]) - events[i];
        printf(", %lld %s", (long long)events[i], event_names[i]);
        assert_true(events[i] > 0);
    }
    for (int i = 0; i < DEED_COUNT; i++) {
        printf(", %llu %s", (unsigned long long)deeds[i], deed_names[i]);
        assert_true(deeds[i] > 0);
    }
    printf("\n");
}

#endif
