/* Replicas over a log in memory that can go back: replicas.h. KELPIE_SIM=full or --full runs more lives; an
 * argument is the seed of one. */
#include "sim/replicas_memory.h"

static bool is_full;

/* ---- tests ---- */

static void replicas_come_to_the_same(void **unused)
{
    struct test_random r = test_random_begin("replicas_come_to_the_same");
    run_lives(&memory, is_full ? 2000 : 60, 100, &r);
}

/* A life in which replica 1, which is the first to commit or the last, applies records twice. At rest every
 * replica's answers are wrong in some way: how many say so. */
static uint32_t differ(bool is_first, uint32_t canary)
{
    struct life *l = calloc(1, sizeof *l);
    struct pool *pool = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    uint32_t told = 0;
    assert_non_null(l);
    life_open(l, &memory, pool, 3, canary);
    replica_close(l, 1);
    l->replicas[1].config.canary |= SHARD_CANARY_NO_DEDUPE;
    replica_open(l, 1);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++)
        for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
            shards_partition_rank(l->replicas[k].shards, p, (k == 1) == is_first ? 0 : 1, INT64_MAX);
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
        (void)check_replica(l, k); /* the rows may be those of the one that is wrong */
        told += doubts > 0 && !l->w.was_complete;
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

/* ---- one going back at a time, of partition 0 ---- */

static struct partition *first_of(struct life *l, uint32_t k)
{
    return &l->replicas[k].shards->partitions[0];
}

/* No time passes. */
static void settle(struct life *l, uint32_t k)
{
    for (int i = 0; i < 20; i++) {
        reopen(l, k);
        step(l, k, 30);
    }
}

static void write_first(struct life *l, int count)
{
    for (int i = 0; i < count; i++)
        assert_ok(world_append(&l->w, 0, 20, false));
}

/* Ten records, of which the chain has six, and all three have seen them. */
static void begin_with_ten(struct life *l, struct pool *own)
{
    life_open(l, &memory, own, 5, 0);
    write_first(l, 6);
    assert_ok(shards_cut_all(l->replicas[0].shards, io_monotonic_ns(l->w.io) + NS_PER_SECOND));
    rest(l);
    write_first(l, 4);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        settle(l, k);
        assert_int_equal(first_of(l, k)->chain.end.offset, first_of(l, 0)->chain.end.offset);
        assert_int_equal(first_of(l, k)->applied.offset, log_sim_end(store_of(l), 0));
    }
}

/* What the chain had of it when it was told is not named, nor is anything twice: not by the life of the partition
 * that began a generation, not by the next, for which the chain ends below, and not by other replicas. */
static void what_was_lost_is_named_once(void **unused)
{
    struct pool *own = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    struct life *l = calloc(1, sizeof *l);
    assert_non_null(l);
    begin_with_ten(l, own);
    uint64_t committed = first_of(l, 0)->chain.end.offset, end = log_sim_end(store_of(l), 0);
    assert_true(committed > 2 && committed < end);
    log_sim_back(store_of(l), 0, 2);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        settle(l, k);
        assert_int_equal(first_of(l, k)->lost_end.kind, 0);
    }
    rest(l);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        const struct chain *c = &first_of(l, k)->chain;
        assert_int_equal(c->end.generation, 2);
        assert_int_equal(c->loss_count, 1);
        assert_int_equal(c->losses[0].from.generation, 1);
        assert_int_equal(c->losses[0].from.offset, committed);
        assert_int_equal(c->losses[0].to.offset, end);
    }
    life_close(l);
    pool_close(own);
    free(l);
}

/* A replica that has the partition not open, and told what it saw of a going back, opens it in the generation that
 * another began for the next one before its driver hears of that: no other begins. */
static void a_generation_begins_once(void **unused)
{
    struct pool *own = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    struct life *l = calloc(1, sizeof *l);
    uint64_t back_to;
    assert_non_null(l);
    begin_with_ten(l, own);
    struct log *first = l->replicas[0].log, *second = l->replicas[1].log;
    shards_partition_close(l->replicas[1].shards, 0);
    log_sim_back(store_of(l), 0, first_of(l, 0)->chain.end.offset + 1);
    settle(l, 0);
    assert_ok(log_went_back(second, 0, &back_to));
    for (int i = 0; i < 10; i++)
        step(l, 1, 30);
    assert_int_equal(shards_partition_status(l->replicas[1].shards, 0).stage, SHARD_CLOSED);
    assert_err(ERR_NOT_FOUND, log_went_back(second, 0, &back_to));
    log_sim_delay(store_of(l), 1000 * NS_PER_SECOND);
    log_sim_back(store_of(l), 0, 2);
    ERR_IGNORE(world_append(&l->w, 0, 20, false));
    assert_ok(log_went_back(first, 0, &back_to)); /* it wrote, and so heard of it */
    settle(l, 0);
    write_first(l, 3);
    assert_ok(shards_cut_all(l->replicas[0].shards, io_monotonic_ns(l->w.io) + NS_PER_SECOND));
    settle(l, 0);
    assert_int_equal(first_of(l, 0)->chain.end.generation, 3);
    assert_true(first_of(l, 0)->chain.end.offset > 2);
    assert_err(ERR_NOT_FOUND, log_went_back(second, 0, &back_to));
    settle(l, 1);
    rest(l);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++)
        assert_int_equal(first_of(l, k)->chain.end.generation, 3);
    assert_null(compare_chains(l));
    life_close(l);
    pool_close(own);
    free(l);
}

/* ---- what nobody names goes after a day ---- */

#define OBJECTS_MAX 8192
#define HOURS       40

/* When any replica's chain named an object last. */
static struct {
    char key[SHARD_KEY_BYTES_MAX];
    int64_t named_ms;
} named[OBJECTS_MAX];
static size_t named_count;

static int64_t *named_at(const char *key)
{
    size_t i = 0;
    while (i < named_count && strcmp(named[i].key, key) != 0)
        i++;
    return i < named_count ? &named[i].named_ms : NULL;
}

static void note(const char *key, int64_t now_ms)
{
    int64_t *at = named_at(key);
    if (at == NULL) {
        assert_true(named_count < OBJECTS_MAX);
        snprintf(named[named_count].key, sizeof named[0].key, "%s", key);
        at = &named[named_count++].named_ms;
    }
    *at = now_ms;
}

static void note_chain(const struct chain *c, int64_t now_ms)
{
    static const uint8_t none[SHA256_BYTES];
    char key[SHARD_KEY_BYTES_MAX];
    for (size_t i = 0; i < c->segment_count; i++) {
        segment_key(c->partition, c->segments[i].digest, key);
        note(key, now_ms);
    }
    for (int i = 0; i < 2; i++)
        if (memcmp(c->state_digests[i], none, SHA256_BYTES) != 0) {
            state_key(c->partition, c->state_digests[i], key);
            note(key, now_ms);
        }
}

/* What any replica names, or named less than a day ago, is there. A replica may be behind. */
static const char *check_named(struct life *l)
{
    int64_t now_ms = io_now_ms(l->w.io);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++)
        for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
            if (shards_partition_status(l->replicas[k].shards, p).stage == SHARD_OPEN)
                note_chain(&l->replicas[k].shards->partitions[p].chain, now_ms);
    for (size_t i = 0; i < named_count; i++) {
        uint64_t size;
        if (named[i].named_ms >= now_ms - 23 * MS_PER_HOUR && blob_size(l->w.blob, named[i].key, &size) != OK)
            return "an object that was named in the last day is gone";
    }
    return NULL;
}

/* What nobody named for much longer than a day is not. A base comes every few hours, and a sweep every six. */
static const char *check_left(struct life *l)
{
    int64_t now_ms = io_now_ms(l->w.io);
    for (uint32_t i = 0; i < 2 * WORLD_PARTITIONS; i++) {
        char prefix[SHARD_KEY_BYTES_MAX];
        struct blob_entry *entries;
        size_t count;
        snprintf(prefix, sizeof prefix, "p%03u/%s", i / 2, i % 2 == 0 ? "segment" : "state");
        assert_ok(blob_list(l->w.blob, prefix, l->w.pool, &entries, &count));
        for (size_t e = 0; e < count; e++) {
            const int64_t *at = named_at(entries[e].key);
            if ((at != NULL ? *at : entries[e].t_ms) < now_ms - 40 * MS_PER_HOUR)
                return "an object that nobody names is left";
        }
    }
    return NULL;
}

/* An object of a builder that died, or is slow. */
static void plant(struct life *l, uint32_t partition)
{
    uint8_t digest[SHA256_BYTES];
    char key[SHARD_KEY_BYTES_MAX];
    for (size_t i = 0; i < sizeof digest; i++)
        digest[i] = (uint8_t)draw(l, 256);
    if (draw(l, 2) == 0)
        segment_key(partition, digest, key);
    else
        state_key(partition, digest, key);
    assert_ok(blob_put(l->w.blob, key, slice_str("left")));
    note(key, io_now_ms(l->w.io)); /* as if somebody was about to name it */
}

static void hour(struct life *l)
{
    for (int i = 0; i < 6; i++) {
        append(l);
        append(l);
        for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
            reopen(l, k);
            step(l, k, (int)draw(l, 24));
        }
        pass(l, (int64_t)(300 + draw(l, 600)) * NS_PER_SECOND);
    }
    if (draw(l, 3) == 0)
        shards_partition_close(l->replicas[draw(l, REPLICA_COUNT)].shards,
                               (uint32_t)draw(l, WORLD_PARTITIONS));
    if (draw(l, 3) == 0)
        io_sim_fault_at(l->w.io, 1 + draw(l, 40), draw(l, 2) == 0, draw(l, 2) == 0 ? ERR_IO : ERR_SPACE);
    step(l, (uint32_t)draw(l, REPLICA_COUNT), 20);
    io_sim_fault_at(l->w.io, 0, false, OK);
    if (draw(l, 2) == 0)
        plant(l, (uint32_t)draw(l, WORLD_PARTITIONS));
}

static const char *run_days(uint64_t seed)
{
    struct pool *own = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    struct life *l = calloc(1, sizeof *l);
    const char *wrong = NULL;
    assert_non_null(l);
    named_count = 0;
    life_open(l, &memory, own, seed, 0);
    for (int i = 0; i < HOURS && wrong == NULL; i++) {
        hour(l);
        wrong = check_named(l);
    }
    for (int i = 0; i < 42 && wrong == NULL; i++) { /* and some sweeps without faults */
        append(l);
        append(l);
        for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
            reopen(l, k);
            step(l, k, 30);
        }
        pass(l, 600 * NS_PER_SECOND);
        wrong = check_named(l);
    }
    if (wrong == NULL)
        rest(l);
    if (wrong == NULL)
        wrong = check_left(l);
    for (uint32_t k = 0; k < REPLICA_COUNT && wrong == NULL; k++)
        wrong = check_replica(l, k);
    if (wrong == NULL)
        wrong = compare_chains(l);
    life_close(l);
    pool_close(own);
    free(l);
    return wrong;
}

static void what_nobody_names_goes_after_a_day(void **unused)
{
    struct test_random r = test_random_begin("what_nobody_names_goes_after_a_day");
    int64_t removed = stat_get(STAT_SHARD_OBJECTS_REMOVED), skipped = stat_get(STAT_SHARD_SWEEPS_SKIPPED);
    for (int i = 0; i < (is_full ? 100 : 2); i++) {
        uint64_t seed = test_random_u64(&r) >> 32;
        const char *wrong = run_days(seed);
        if (wrong != NULL)
            fail_msg("seed %llu: %s", (unsigned long long)seed, wrong);
    }
    removed = stat_get(STAT_SHARD_OBJECTS_REMOVED) - removed;
    skipped = stat_get(STAT_SHARD_SWEEPS_SKIPPED) - skipped;
    printf("# %lld objects removed, %lld sweeps skipped\n", (long long)removed, (long long)skipped);
    assert_true(removed > 20);
}

static size_t count_objects(struct life *l, const char *prefix)
{
    struct blob_entry *entries;
    size_t count;
    assert_ok(blob_list(l->w.blob, prefix, l->w.pool, &entries, &count));
    return count;
}

/* A builder put its objects and could not append the entry. When it tries again a day later, a sweep of
 * somebody else may have them in its list: they are put again, and named only when that is over. */
static void an_old_leftover_is_not_named_at_once(void **unused)
{
    struct pool *own = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    struct life *l = calloc(1, sizeof *l);
    assert_non_null(l);
    life_open(l, &memory, own, 5, 0);
    struct shards *shards = l->replicas[0].shards;
    struct partition *p = &shards->partitions[0];
    bool is_left = false, valid, worked;
    for (uint64_t nth = 1; nth < 1000 && !is_left; nth++) {
        assert_ok(world_append(&l->w, 0, 20, false));
        io_sim_fault_at(l->w.io, nth, true, ERR_IO);
        ERR_IGNORE(shards_cut_all(shards, io_monotonic_ns(l->w.io) + NS_PER_SECOND));
        io_sim_fault_at(l->w.io, 0, false, OK);
        is_left = p->ranges->closed && count_objects(l, "p000/state") > p->chain.commit_count &&
                  count_objects(l, "p000/chain") + 1 == p->chain.next_number;
        if (!is_left)
            assert_ok(shards_cut_all(shards, io_monotonic_ns(l->w.io) + 10 * NS_PER_SECOND));
    }
    assert_true(is_left);
    uint64_t commits = p->chain.commit_count;
    pass(l, 25 * 3600 * NS_PER_SECOND);
    struct chain_entry accept = { .kind = CHAIN_ACCEPT, .leader_epoch = LOG_EPOCH_NONE, .end = p->chain.end };
    io_mutex_lock(&p->chain_lock);
    assert_ok(partition_entry_append(p, &accept, &valid)); /* the store's time goes on */
    io_mutex_unlock(&p->chain_lock);
    for (int i = 0; i < 100; i++)
        ERR_IGNORE(shards_commit_step(shards, &worked));
    assert_int_equal(p->chain.commit_count, commits);
    pass(l, 110 * NS_PER_SECOND);
    for (int i = 0; i < 100; i++)
        ERR_IGNORE(shards_commit_step(shards, &worked));
    assert_int_equal(p->chain.commit_count, commits);
    pass(l, 15 * NS_PER_SECOND);
    for (int i = 0; i < 100; i++)
        ERR_IGNORE(shards_commit_step(shards, &worked));
    assert_int_equal(p->chain.commit_count, commits + 1);
    life_close(l);
    pool_close(own);
    free(l);
}

int main(int argc, char **argv)
{
    const char *set = getenv("KELPIE_SIM");
    is_full = set != NULL && strcmp(set, "full") == 0;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--full") == 0)
            is_full = true;
        else {
            const char *wrong = run_life(&memory, strtoull(argv[i], NULL, 0), 100, 0);
            printf("seed %s: %s\n", argv[i], wrong == NULL ? "right" : wrong);
            return wrong != NULL;
        }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicas_come_to_the_same),
        cmocka_unit_test(replicas_that_differ_are_told),
        cmocka_unit_test(what_was_lost_is_named_once),
        cmocka_unit_test(a_generation_begins_once),
        cmocka_unit_test(what_nobody_names_goes_after_a_day),
        cmocka_unit_test(an_old_leftover_is_not_named_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
