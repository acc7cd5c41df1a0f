/* Replicas of the same partitions over one log and one blob store: whoever cuts, builds and commits first, all
 * come to the same chain and the same rows, through restarts, empty disks, closed partitions, disks that fail and
 * clocks that pass. Model and oracle: workload.h, asked at every replica; at rest also their chains are compared.
 *
 * A life has a phase of faults and then a time of rest, after which nothing may be open. What came to pass is
 * counted, and none of it may be 0. KELPIE_SIM=full or --full runs more lives; an argument is the seed of one. */
#include "shard/workload.h"

#include "base/stat.h"
#include "shard/partition.h"
#include "sim/io_sim.h"
#include "sim/log_sim.h"

#define REPLICA_COUNT 3u

static bool is_full;

struct replica {
    struct shards *shards;
    struct log *log; /* this process' handle */
    struct shards_config config;
    char stream[8], quarantine[8];
};

struct life {
    struct world w; /* the model; its shards are those of whichever replica is asked */
    struct replica replicas[REPLICA_COUNT]; /* the producer is in the process of the first */
    struct log_sim_store *store;
    bool has_gone_back; /* answers may say that they are not complete */
    bool has_late;      /* records with rows of other days */
    bool goes_back;     /* the log does */
};

enum event { EVENT_COMMIT, EVENT_TAKEN_OVER, EVENT_RACE, EVENT_BEGUN_ANEW, EVENT_MERGE, EVENT_COUNT };
static const char *const event_names[] = { "commits", "entries taken over", "races", "begun anew", "merges" };
static const enum stat event_stats[] = { STAT_SHARD_COMMITS, STAT_SHARD_TAKEN_OVER, STAT_SHARD_RACES,
                                         STAT_SHARD_BEGUN_ANEW, STAT_SHARD_COMPACTIONS };
enum deed { DEED_RESTART, DEED_KILL, DEED_WIPE, DEED_CLOSE, DEED_FAULT, DEED_RANK, DEED_BACK, DEED_COUNT };
static const char *const deed_names[] = { "restarts", "kills", "empty disks",        "closed partitions",
                                          "faults",   "ranks", "logs that went back" };
static uint64_t deeds[DEED_COUNT];

/* ---- a life ---- */

static void replica_open(struct life *l, uint32_t k)
{
    struct replica *r = &l->replicas[k];
    struct err_at at = { 0 };
    assert_ok(log_sim_open(l->store, l->w.io, l->w.node_pool, &r->log));
    assert_ok(shards_open(&r->config, l->w.io, r->log, l->w.blob, l->w.node_pool, &r->shards, &at));
    if (k == 0)
        l->w.log = r->log;
}

static void replica_close(struct life *l, uint32_t k)
{
    shards_close(l->replicas[k].shards);
    log_close(l->replicas[k].log);
}

static void life_open(struct life *l, struct pool *pool, uint64_t seed, uint32_t canary)
{
    struct io *io;
    struct world *w = &l->w;
    *l = (struct life){ 0 };
    assert_ok(io_sim_open(seed, &io));
    world_init(w, io, pool, seed);
    world_producer_renew(w);
    w->node_pool = pool_open(NULL, "node", POOL_BYTES_UNLIMITED);
    assert_ok(log_sim_store_open(WORLD_PARTITIONS, w->node_pool, &l->store));
    assert_ok(blob_open_dir("blob", io, w->node_pool, &w->blob));
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        struct replica *r = &l->replicas[k];
        snprintf(r->stream, sizeof r->stream, "s%u", k);
        snprintf(r->quarantine, sizeof r->quarantine, "q%u", k);
        r->config = w->config;
        r->config.is_shared = true;
        r->config.canary = canary;
        r->config.chain_base_count = 4;
        r->config.stream_directory = r->stream;
        r->config.quarantine_directory = r->quarantine;
        replica_open(l, k);
        for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
            shards_partition_rank(r->shards, p, (k + p) % REPLICA_COUNT);
    }
}

static void life_close(struct life *l)
{
    for (uint32_t k = 0; k < REPLICA_COUNT; k++)
        replica_close(l, k);
    log_sim_store_close(l->store);
    blob_close(l->w.blob);
    pool_close(l->w.node_pool);
    io_close(l->w.io);
}

/* ---- what happens ---- */

static uint64_t draw(struct life *l, uint64_t below) { return test_random_below(&l->w.random, below); }

/* Some steps of one replica, as its threads would happen to make them. */
static void step(struct life *l, uint32_t k, int count)
{
    struct shards *shards = l->replicas[k].shards;
    for (int i = 0; i < count; i++) {
        bool worked;
        uint64_t kind = draw(l, 5);
        if (kind < 2)
            ERR_IGNORE(shards_apply_step(shards, &worked));
        else if (kind == 2)
            ERR_IGNORE(shards_spill_step(shards, &worked));
        else
            ERR_IGNORE(shards_background_step(shards, &worked));
    }
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
        shards_partition_rank(r->shards, p, (uint32_t)draw(l, REPLICA_COUNT));
}

/* What closed itself, or was closed, is opened again, as the node does. */
static void reopen(struct life *l, uint32_t k)
{
    struct err_at at = { 0 };
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        if (shards_partition_status(l->replicas[k].shards, p).stage == SHARD_CLOSED)
            ERR_IGNORE(shards_partition_open(l->replicas[k].shards, p, &at));
}

/* The log loses its newest records, or as many as there are. What had been acknowledged of them may be gone; a
 * producer announces its series again when it hears of it. */
static void go_back(struct life *l, uint32_t partition)
{
    uint64_t end = log_sim_end(l->store, partition), most = draw(l, 3) == 0 ? end : 12;
    uint64_t to = end - draw(l, (most < end ? most : end) + 1);
    for (size_t i = 0; i < l->w.record_count; i++) {
        struct world_record *r = l->w.records[i];
        if (r->partition == partition && r->answer == WORLD_ACKED && r->offset >= to)
            r->answer = WORLD_LOST;
    }
    log_sim_back(l->store, partition, to);
    memset(l->w.producer.announced[partition], 0, sizeof l->w.producer.announced[partition]);
    l->has_gone_back = true;
    deeds[DEED_BACK]++;
}

static void disturb(struct life *l)
{
    uint32_t k = (uint32_t)draw(l, REPLICA_COUNT), p = (uint32_t)draw(l, WORLD_PARTITIONS);
    switch (draw(l, 13)) {
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
        shards_partition_rank(l->replicas[k].shards, p, (uint32_t)draw(l, REPLICA_COUNT));
        deeds[DEED_RANK]++;
        break;
    case 8:
        world_producer_renew(&l->w);
        break;
    case 9:
        if (l->goes_back)
            go_back(l, p);
        break;
    default:
        io_sim_clock_advance(l->w.io, (int64_t)draw(l, 400) * NS_PER_SECOND);
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
        io_sim_clock_advance(l->w.io, (int64_t)draw(l, 10) * NS_PER_SECOND);
        if (draw(l, 4) == 0)
            disturb(l);
        reopen(l, (uint32_t)draw(l, REPLICA_COUNT));
    }
}

/* Quiet until every patience is over. */
static void rest(struct life *l)
{
    for (int i = 0; i < 120; i++) {
        for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
            reopen(l, k);
            step(l, k, 30);
        }
        io_sim_clock_advance(l->w.io, 10 * NS_PER_SECOND);
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
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        is_open = is_open && shards_partition_status(l->replicas[k].shards, p).stage == SHARD_OPEN &&
                  log_went_back(l->replicas[k].log, p, &from) != OK;
    return is_open ? check_replica(l, k) : NULL;
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
                memcmp(a->chain.segments, b->chain.segments,
                       a->chain.segment_count * sizeof *a->chain.segments))
                return "the chains' segments differ";
            if (position_compare(a->applied, b->applied) != 0)
                return "one has applied more";
            if (!sum_equal(shards_partition_sum(l->replicas[0].shards, p).sum,
                           shards_partition_sum(l->replicas[k].shards, p).sum))
                return "the SUMs differ";
        }
    return NULL;
}

static const char *run_life(uint64_t seed, int rounds, uint32_t canary)
{
    struct life *l = calloc(1, sizeof *l);
    struct pool *pool = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    const char *wrong = NULL;
    assert_non_null(l);
    life_open(l, pool, seed, canary);
    l->has_late = seed % 2 == 0;
    l->goes_back = seed / 2 % 2 == 0;
    for (int i = 0; i < rounds / 20 && wrong == NULL; i++) {
        live(l, 20);
        wrong = check_while_moving(l, (uint32_t)draw(l, REPLICA_COUNT));
    }
    if (wrong == NULL)
        rest(l);
    for (uint32_t k = 0; k < REPLICA_COUNT && wrong == NULL; k++)
        wrong = check_replica(l, k);
    if (wrong == NULL)
        wrong = compare_chains(l);
    life_close(l);
    pool_close(pool);
    free(l);
    return wrong;
}

/* ---- tests ---- */

static void replicas_come_to_the_same(void **unused)
{
    struct test_random r = test_random_begin("replicas_come_to_the_same");
    int64_t events[EVENT_COUNT];
    uint64_t lives = is_full ? 2000 : 60;
    for (int i = 0; i < EVENT_COUNT; i++)
        events[i] = stat_get(event_stats[i]);
    for (uint64_t i = 0; i < lives; i++) {
        uint64_t seed = test_random_u64(&r) >> 32;
        const char *wrong = run_life(seed, 100, 0);
        if (wrong != NULL)
            fail_msg("seed %llu: %s", (unsigned long long)seed, wrong);
    }
    printf("# %llu lives", (unsigned long long)lives);
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

/* A life in which replica 1, which is the first to commit or the last, applies records twice. At rest every
 * replica's answers are wrong in some way: how many say so. */
static uint32_t differ(bool is_first, uint32_t canary)
{
    struct life *l = calloc(1, sizeof *l);
    struct pool *pool = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    uint32_t told = 0;
    assert_non_null(l);
    life_open(l, pool, 3, canary);
    replica_close(l, 1);
    l->replicas[1].config.canary |= SHARD_CANARY_NO_DEDUPE;
    replica_open(l, 1);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++)
        for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
            shards_partition_rank(l->replicas[k].shards, p, (k == 1) == is_first ? 0 : 1);
    for (int i = 0; i < 40; i++)
        append(l);
    for (size_t i = 0; i < l->w.record_count; i += 3) {
        world_send(&l->w, l->w.records[i]);
    }
    rest(l);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        const struct chain *chain = &l->replicas[k].shards->partitions[0].chain;
        size_t doubts = 0;
        for (size_t i = 0; i < chain->loss_count; i++)
            doubts += chain->losses[i].kind == LOSS_DOUBT;
        const char *wrong = check_replica(l, k);
        told += doubts > 0 && wrong != NULL && strcmp(wrong, NOT_COMPLETE) == 0;
    }
    life_close(l);
    pool_close(pool);
    free(l);
    return told;
}

/* A replica that made other rows of the same range is found, and all name it. */
static void replicas_that_differ_are_told(void **unused)
{
    for (int is_first = 0; is_first < 2; is_first++) {
        int64_t before = stat_get(STAT_SHARD_DOUBTS);
        assert_int_equal(differ(is_first, 0), REPLICA_COUNT);
        assert_true(stat_get(STAT_SHARD_DOUBTS) > before);
        assert_int_equal(differ(is_first, SHARD_CANARY_FOLD_BLINDLY), 0); /* planted: nobody compares */
    }
}

int main(int argc, char **argv)
{
    const char *set = getenv("KELPIE_SIM");
    is_full = set != NULL && strcmp(set, "full") == 0;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--full") == 0)
            is_full = true;
        else {
            const char *wrong = run_life(strtoull(argv[i], NULL, 0), 100, 0);
            printf("seed %s: %s\n", argv[i], wrong == NULL ? "right" : wrong);
            return wrong != NULL;
        }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicas_come_to_the_same),
        cmocka_unit_test(replicas_that_differ_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
