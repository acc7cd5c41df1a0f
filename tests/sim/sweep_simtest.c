/* Sweeps of a shared store by three replicas over days: replicas.h, a log in
 * memory, and a store behind late_blob.h. Deletes arrive days late, lists take
 * hours, wall clocks leap, processes sleep for days in the middle of a call,
 * two sweep at once. What any replica names, or named in the last day, has to
 * be there; what nobody names has to go. KELPIE_SIM=full or --full runs more
 * lives; an argument is the seed of one.
 *
 * Where a rule of docs/decisions/0022-sweeping-a-shared-store.md is broken on
 * purpose, that must be found. */
#include "sim/sweeps.h"

static bool is_full;

#define DAYS_HOURS 40 /* with faults; as many more while processes sleep */

/* ---- days ---- */

static bool is_awake(uint32_t k) { return asleep[k] == 0 && (!is_nested || k != stepping); }

static void steps(struct life *l, uint32_t k, int count)
{
    uint32_t before = stepping;
    bool sweeps = true;
    if (!is_awake(k))
        return;
    stepping = k;
    reopen(l, k);
    step(l, k, count);
    for (int i = 0; i < 40 && sweeps; i++) /* it has a thread of its own */
        assert_ok(shards_sweep_step(l->replicas[k].shards, &sweeps));
    stepping = before;
}

/* Each partition has a replica that is awake and of rank 0, now and then a
 * second one. */
static void give_ranks(struct life *l)
{
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        uint32_t rank = 0;
        for (uint32_t i = 0; i < REPLICA_COUNT; i++) {
            uint32_t k = (p + i) % REPLICA_COUNT;
            replica_rank(l, k, p, is_awake(k) ? rank : 0);
            rank += is_awake(k) && draw(l, 6) > 0;
        }
    }
}

/* Nothing here is about what a crash leaves: what directories still have to
 * promise is promised, or the simulated disk looks at all of it with each sync.
 */
static void promise_names(struct life *l)
{
    static const char *const directories[] = { "blob/.tmp", "s0", "s1", "s2" };
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++)
        assert_ok(io_dir_sync(l->w.io, directories[i]));
}

/* An object of a builder that died, or is slow. */
static void plant(struct life *l, uint32_t k, uint32_t partition)
{
    uint8_t digest[SHA256_BYTES];
    char key[SHARD_KEY_BYTES_MAX];
    const struct partition *p = &l->replicas[k].shards->partitions[partition];
    uint64_t era = draw(l, 3) == 0 ? 0 : chain_put_era(&p->chain);
    for (size_t i = 0; i < sizeof digest; i++)
        digest[i] = (uint8_t)draw(l, 256);
    if (draw(l, 2) == 0)
        segment_key(partition, digest, era, key);
    else
        state_key(partition, digest, era, key);
    assert_ok(blob_put(late.inner, key, slice_str("left")));
}

/* In each partition, or its producer would be forgotten after three hours. */
static void append_everywhere(struct life *l)
{
    appended_ns = io_monotonic_ns(l->w.io);
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        ERR_IGNORE(world_append(&l->w, p, 1 + draw(l, 30), false));
}

static void hour(struct life *l)
{
    for (uint32_t k = 0; k < REPLICA_COUNT; k++)
        asleep[k] -= asleep[k] > 0 && !is_nested;
    give_ranks(l);
    append_everywhere(l);
    for (int i = 0; i < 6; i++) {
        append(l);
        for (uint32_t k = 0; k < REPLICA_COUNT; k++)
            if (is_awake(k))
                steps(l, k, (int)draw(l, 24));
        pass(l, (int64_t)(300 + draw(l, 600)) * NS_PER_SECOND);
        late_arrive(&late);
        promise_names(l);
    }
}

/* Producers go on while a list takes long. */
static void append_meanwhile(void *context)
{
    struct life *l = context;
    if (io_monotonic_ns(l->w.io) - appended_ns >= HOUR_NS)
        append_everywhere(l);
}

/* This process sleeps in the middle of a call; the others go on. */
static void sleep_in_call(void *context)
{
    struct life *l = context;
    is_nested = true;
    io_sim_fault_at(l->w.io, 0, false, OK);
    for (int i = 0; i < sleep_hours; i++)
        hour(l);
    is_nested = false;
}

static void disturb_days(struct life *l)
{
    static const char *const places[] = { "/chain/", "/state/", "/segment/", "/segment" };
    uint32_t k = (uint32_t)draw(l, REPLICA_COUNT);
    if (draw(l, 8) == 0)
        shards_partition_close(l->replicas[k].shards, (uint32_t)draw(l, WORLD_PARTITIONS));
    if (draw(l, 3) == 0)
        io_sim_fault_at(l->w.io, 1 + draw(l, 40), draw(l, 2) == 0, draw(l, 2) == 0 ? ERR_IO : ERR_SPACE);
    steps(l, k, 20);
    io_sim_fault_at(l->w.io, 0, false, OK);
    if (draw(l, 2) == 0)
        plant(l, k, (uint32_t)draw(l, WORLD_PARTITIONS));
    if (draw(l, 6) == 0)
        io_sim_clock_jump_ms(l->w.io, draw(l, 2) == 0 ? MS_PER_HOUR : -MS_PER_HOUR);
    if (draw(l, 12) == 0)
        asleep[k] = 25 + (int)draw(l, 20); /* stopped between two steps */
    late.sleeps_at = draw(l, 10) == 0 ? places[draw(l, 4)] : NULL;
    late.sleeps_in = 1 + draw(l, 5);
    sleep_hours = draw(l, 2) == 0 ? 1 + (int)draw(l, 10) : 26 + (int)draw(l, 20);
}

static void quiet_hour(struct life *l)
{
    append_everywhere(l);
    for (uint32_t k = 0; k < REPLICA_COUNT; k++)
        steps(l, k, 30);
    pass(l, HOUR_NS);
    late_arrive(&late);
    promise_names(l);
}

static const char *judge_days(struct life *l)
{
    const char *wrong = check_named(l);
    if (wrong == NULL)
        wrong = check_left(l);
    for (uint32_t k = 0; k < REPLICA_COUNT && wrong == NULL; k++)
        wrong = check_replica(l, k);
    return wrong == NULL ? compare_chains(l) : wrong;
}

static const char *run_days(uint64_t seed, uint32_t canary)
{
    struct pool *own = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    struct life *l = calloc(1, sizeof *l);
    struct ground ground = swept_ground();
    const char *wrong = NULL;
    assert_non_null(l);
    named_count = 0;
    life_open(l, &ground, own, seed, canary);
    late.late_ns_max = 60 * HOUR_NS;
    late.put_part = 12;
    late.list_ns_max = seed % 3 == 0 ? HOUR_NS / 2 : 0;
    late.passed = append_meanwhile;
    late.sleep = sleep_in_call;
    late.context = l;
    for (int i = 0; i < DAYS_HOURS && wrong == NULL; i++) {
        hour(l);
        disturb_days(l);
        wrong = check_named(l);
    }
    late.sleeps_at = NULL;
    late.put_part = 0;
    late.list_ns_max = 0;
    memset(asleep, 0, sizeof asleep);
    replica_lease(l, 0, INT64_MAX);
    replica_lease(l, 1, INT64_MAX);
    replica_lease(l, 2, INT64_MAX);
    rest(l);                                        /* who is days behind and of rank 0 begins no eras */
    for (int i = 0; i < 80 && wrong == NULL; i++) { /* two eras of them without deletes that get lost */
        late.late_ns_max = i < 56 ? late.late_ns_max : 0;
        quiet_hour(l);
        wrong = check_named(l);
    }
    if (wrong == NULL)
        rest(l);
    if (wrong == NULL)
        wrong = judge_days(l);
    life_close(l);
    pool_close(own);
    free(l);
    return wrong;
}

static void what_nobody_names_goes_after_a_day(void **unused)
{
    struct test_random r = test_random_begin("what_nobody_names_goes_after_a_day");
    int64_t removed = stat_get(STAT_SHARD_OBJECTS_REMOVED), skipped = stat_get(STAT_SHARD_SWEEPS_SKIPPED);
    uint64_t arrived = 0, puts = 0;
    for (int i = 0; i < (is_full ? 200 : 3); i++) {
        uint64_t seed = test_random_u64(&r) >> 32;
        const char *wrong = run_days(seed, 0);
        if (wrong != NULL)
            fail_msg("seed %llu: %s", (unsigned long long)seed, wrong);
        arrived += late.arrived;
        puts += late.puts_arrived;
    }
    removed = stat_get(STAT_SHARD_OBJECTS_REMOVED) - removed;
    skipped = stat_get(STAT_SHARD_SWEEPS_SKIPPED) - skipped;
    printf("# %lld objects removed, %lld sweeps skipped, %llu deletes and %llu "
           "puts came late\n",
           (long long)removed, (long long)skipped, (unsigned long long)arrived, (unsigned long long)puts);
    assert_true(removed > 20 && arrived > 20 && puts > 5);
}

static void broken_rules_are_found(void **unused)
{
    static const uint32_t canaries[] = { SHARD_CANARY_SWEEP_YOUNG, SHARD_CANARY_SWEEP_TODAY,
                                         SHARD_CANARY_HASTY_ERAS };
    for (size_t i = 0; i < sizeof canaries / sizeof canaries[0]; i++) {
        const char *wrong = NULL;
        uint64_t seed = 0;
        for (; seed < 20 && wrong == NULL; seed++)
            wrong = run_days(seed, canaries[i]);
        assert_non_null(wrong);
        printf("# planted bug %u found with seed %llu: %s\n", canaries[i], (unsigned long long)seed - 1,
               wrong);
    }
}

/* ---- one thing at a time ---- */

static struct pool *own_pool;

static struct life *begin_life(uint32_t canary)
{
    struct ground ground = swept_ground();
    static struct ground kept;
    struct life *l = calloc(1, sizeof *l);
    assert_non_null(l);
    kept = ground;
    own_pool = pool_open(NULL, "sim", POOL_BYTES_UNLIMITED);
    named_count = 0;
    life_open(l, &kept, own_pool, 5, canary);
    late.sleep = sleep_in_call;
    late.context = l;
    return l;
}

/* The next call of such a key does. */
static void sleep_next(const char *place, int hours)
{
    late.sleeps_at = place;
    late.sleeps_in = 1;
    sleep_hours = hours;
}

static void end_life(struct life *l)
{
    life_close(l);
    pool_close(own_pool);
    free(l);
}

static struct partition *first_of(struct life *l, uint32_t k)
{
    return &l->replicas[k].shards->partitions[0];
}

static void quiet(struct life *l, int hours)
{
    for (int i = 0; i < hours; i++)
        quiet_hour(l);
}

/* Nobody writes. */
static void silence(struct life *l, int hours)
{
    for (int i = 0; i < hours; i++) {
        for (uint32_t k = 0; k < REPLICA_COUNT; k++)
            steps(l, k, 30);
        pass(l, HOUR_NS);
    }
}

/* Something that nobody names, of an era that is over. */
static void leave_one(void)
{
    char key[SHARD_KEY_BYTES_MAX];
    uint8_t digest[SHA256_BYTES] = { 0xab };
    segment_key(0, digest, 0, key);
    assert_ok(blob_put(late.inner, key, slice_str("left")));
}

static bool is_left(void)
{
    char key[SHARD_KEY_BYTES_MAX];
    uint8_t digest[SHA256_BYTES] = { 0xab };
    uint64_t size;
    segment_key(0, digest, 0, key);
    return blob_size(late.inner, key, &size) == OK;
}

/* The whole of a builder's objects was put, and swept since by somebody whose
 * deletes hang in a proxy; then the same content is put again and named, and
 * the deletes arrive. */
static bool a_late_delete_hits(uint32_t canary)
{
    struct life *l = begin_life(canary);
    struct partition *p = first_of(l, 0);
    struct shards *shards = l->replicas[0].shards;
    bool is_put = false, valid;
    for (uint64_t nth = 1; nth < 1000 && !is_put; nth++) {
        assert_ok(world_append(&l->w, 0, 20, false));
        io_sim_fault_at(l->w.io, nth, true, ERR_IO);
        ERR_IGNORE(shards_cut_all(shards, io_monotonic_ns(l->w.io) + NS_PER_SECOND));
        io_sim_fault_at(l->w.io, 0, false, OK);
        is_put = p->ranges->closed && count_objects("p000/state") > p->chain.commit_count &&
                 count_objects("p000/chain") + 1 == p->chain.next_number;
        if (!is_put)
            assert_ok(shards_cut_all(shards, io_monotonic_ns(l->w.io) + 10 * NS_PER_SECOND));
    }
    assert_true(is_put);
    uint64_t commits = p->chain.commit_count;
    for (int i = 0; i < 3; i++) { /* eras pass, and the builder stands still */
        struct chain_entry era = { .kind = CHAIN_ERA,
                                   .leader_epoch = LOG_EPOCH_NONE,
                                   .ended_era = p->chain.eras[0] };
        io_mutex_lock(&p->chain_lock);
        assert_ok(partition_entry_append(p, &era, &valid));
        io_mutex_unlock(&p->chain_lock);
        assert_true(valid);
    }
    struct blob_entry *entries;
    size_t count, kinds = 0;
    for (int kind = 0; kind < 2; kind++) { /* all that is there hangs in the proxy, named or not */
        assert_ok(
            blob_list(late.inner, kind == 0 ? "p000/segment" : "p000/state", l->w.pool, &entries, &count));
        for (size_t i = 0; i < count; i++) {
            struct late_delete *d = &late.deletes[late.delete_count];
            struct object_name name;
            struct named live = { .pool = l->w.pool };
            assert_true(object_name_parse(strrchr(entries[i].key, '/') + 1, &name));
            assert_ok(named_add_chain(&live, &p->chain));
            named_sort(&live);
            if (named_has(&live, &name))
                continue;
            snprintf(d->key, sizeof d->key, "%s", entries[i].key);
            late.delete_count++;
            kinds |= 1u << kind;
        }
    }
    assert_int_equal(kinds, 3);
    pass(l, 10 * NS_PER_SECOND);
    assert_ok(shards_cut_all(shards, io_monotonic_ns(l->w.io) + 10 * NS_PER_SECOND));
    for (int i = 0; i < 50; i++)
        ERR_IGNORE(shards_background_step(shards, &valid));
    assert_int_equal(p->chain.commit_count, commits + 1);
    assert_null(check_named(l));
    late_arrive(&late);
    assert_true(late.hit > 1);
    bool hits = check_named(l) != NULL;
    rest(l);
    for (uint32_t k = 0; k < REPLICA_COUNT && !hits; k++)
        assert_null(check_replica(l, k));
    end_life(l);
    return hits;
}

static void a_late_delete_meets_nothing(void **unused)
{
    assert_false(a_late_delete_hits(0));
    assert_true(a_late_delete_hits(SHARD_CANARY_NO_ERAS | SHARD_CANARY_NAME_OLD));
}

/* Nobody but the second replica does anything, and that sweeps. */
static void sweep_alone(void *context)
{
    struct life *l = context;
    bool worked = false;
    replica_rank(l, 1, 0, 0);
    for (int i = 0; i < 70; i++) {
        ERR_IGNORE(partition_follow(first_of(l, 1), &worked));
        for (int k = 0; k < 40; k++)
            assert_ok(shards_sweep_step(l->replicas[1].shards, &worked));
        pass(l, HOUR_NS);
    }
}

/* A writer puts its objects, sleeps for three eras, and then puts its entry:
 * what it names was swept. */
static bool names_what_was_swept(uint32_t canary)
{
    struct life *l = begin_life(canary);
    bool worked;
    assert_ok(world_append(&l->w, 0, 20, false));
    assert_ok(shards_cut_all(l->replicas[0].shards, io_monotonic_ns(l->w.io) + 10 * NS_PER_SECOND));
    rest(l); /* a chain without entries gets no eras */
    int64_t removed = stat_get(STAT_SHARD_OBJECTS_REMOVED);
    uint64_t commits = first_of(l, 0)->chain.commit_count;
    assert_ok(world_append(&l->w, 0, 20, false));
    late.sleep = sweep_alone;
    late.sleeps_in_puts = true;
    sleep_next("p000/chain/", 0);
    ERR_IGNORE(shards_cut_all(l->replicas[0].shards, io_monotonic_ns(l->w.io) + NS_PER_SECOND));
    assert_null(late.sleeps_at);
    assert_true(stat_get(STAT_SHARD_OBJECTS_REMOVED) > removed);
    bool names = check_named(l) != NULL;
    for (int i = 0; i < 30 && !names; i++) {
        pass(l, 10 * NS_PER_SECOND);
        ERR_IGNORE(shards_background_step(l->replicas[0].shards, &worked));
        names = check_named(l) != NULL;
    }
    assert_int_equal(first_of(l, 0)->chain.commit_count, commits + 1);
    end_life(l);
    return names;
}

static void what_was_swept_is_never_named(void **unused)
{
    assert_false(names_what_was_swept(0));
    assert_true(names_what_was_swept(SHARD_CANARY_NAME_OLD));
}

/* Entries of the era before can be read by nobody any more; those who folded
 * them in time go on. */
static bool sweeps_blindly(uint32_t canary)
{
    struct life *l = begin_life(canary);
    const struct chain *c = &first_of(l, 0)->chain;
    uint64_t era = 0;
    for (int i = 0; i < 40 || c->eras[0] == era; i++) {
        era = c->eras[0];
        quiet_hour(l);
        assert_null(check_named(l));
    }
    int64_t skipped = stat_get(STAT_SHARD_SWEEPS_SKIPPED);
    for (uint64_t number = c->eras[1] + 1; number < c->eras[0]; number++) {
        char key[SHARD_KEY_BYTES_MAX];
        chain_key(0, number, key);
        assert_ok(blob_replace(late.inner, key, slice_str("garbage")));
    }
    bool went = false;
    for (int i = 0; i < 30 && !went; i++) {
        quiet_hour(l);
        went = check_named(l) != NULL;
    }
    assert_true(canary != 0 || stat_get(STAT_SHARD_SWEEPS_SKIPPED) > skipped);
    end_life(l);
    return went;
}

static void what_cannot_be_read_may_have_been_named(void **unused)
{
    assert_false(sweeps_blindly(0));
    assert_true(sweeps_blindly(SHARD_CANARY_SWEEP_BLIND));
}

/* A writer sleeps for days between its put and its entry, while others sweep.
 */
static void a_writer_sleeps_before_it_names(void **unused)
{
    for (int which = 0; which < 3; which++) {
        static const char *const places[] = { "p000/chain/", "p000/state/", "p000/segment/" };
        struct life *l = begin_life(0);
        quiet(l, 2);
        assert_ok(world_append(&l->w, 0, 20, false));
        sleep_next(places[which], 60);
        stepping = 0;
        ERR_IGNORE(shards_cut_all(l->replicas[0].shards, io_monotonic_ns(l->w.io) + NS_PER_SECOND));
        assert_null(late.sleeps_at);
        for (int i = 0; i < 60; i++) {
            quiet_hour(l);
            assert_null(check_named(l));
        }
        rest(l);
        assert_null(judge_days(l));
        end_life(l);
    }
}

/* A process that opens a partition sleeps for days between the chain and its
 * state. What it read is gone; it reads anew, and names nothing as lost. */
static bool opens_without_state(uint32_t canary)
{
    struct life *l = begin_life(canary);
    struct err_at at = { 0 };
    quiet(l, 40);
    shards_partition_close(l->replicas[2].shards, 0);
    for (int i = 0; i < 20; i++)
        step(l, 2, 10);
    assert_int_equal(shards_partition_status(l->replicas[2].shards, 0).stage, SHARD_CLOSED);
    uint64_t began = count_objects("p000/state");
    sleep_next("p000/state/", 60);
    stepping = 2;
    int64_t damaged = stat_get(STAT_SHARD_QUARANTINED);
    err e = shards_partition_open(l->replicas[2].shards, 0, &at);
    assert_null(late.sleeps_at);
    assert_true(began > 0 && stat_get(STAT_SHARD_OBJECTS_REMOVED) > 0);
    bool is_without = e != OK || stat_get(STAT_SHARD_QUARANTINED) != damaged || first_of(l, 2)->state_is_old;
    quiet(l, is_without ? 0 : 3);
    rest(l);
    for (uint32_t k = 0; k < REPLICA_COUNT && !is_without; k++) {
        assert_int_equal(first_of(l, k)->chain.loss_count, 0);
        assert_null(check_replica(l, k));
    }
    end_life(l);
    return is_without;
}

static void an_opening_sleeps_for_days(void **unused)
{
    assert_false(opens_without_state(0));
    assert_true(opens_without_state(SHARD_CANARY_READ_ONCE));
}

/* A list that lacks what the fold names: nothing goes, and it is told. */
static bool sweeps_with_a_gap(uint32_t canary)
{
    struct life *l = begin_life(canary);
    quiet(l, 40);
    leave_one();
    int64_t told = stat_get(STAT_SHARD_SWEEPS_MISSING);
    late.lacks = "p000/state/";
    quiet(l, 30);
    bool went = !is_left();
    assert_true(canary != 0 || stat_get(STAT_SHARD_SWEEPS_MISSING) > told);
    assert_true(canary != 0 || shards_usage(l->replicas[0].shards).missing_count == 1);
    late.lacks = NULL;
    quiet(l, 16);
    assert_false(is_left());
    assert_int_equal(shards_usage(l->replicas[0].shards).missing_count, 0);
    end_life(l);
    return went;
}

static void a_list_with_a_gap_deletes_nothing(void **unused)
{
    assert_false(sweeps_with_a_gap(0));
    assert_true(sweeps_with_a_gap(SHARD_CANARY_SWEEP_GAPS));
}

static void put_hold(struct life *l, int64_t hours)
{
    char text[32];
    snprintf(text, sizeof text, "%lld\n", (long long)((io_now_ms(l->w.io) + hours * MS_PER_HOUR) / 1000));
    assert_ok(
        blob_replace(late.inner, SHARD_HOLD_PREFIX "/copy", slice_str(hours > 0 ? text : "until I say so")));
}

/* A hold keeps everything until its end, by the node's clock and by the log's;
 * one without an end until it is gone. */
static bool sweeps_while_held(uint32_t canary)
{
    struct life *l = begin_life(canary);
    quiet(l, 40);
    leave_one();
    put_hold(l, 60);
    quiet(l, 30);
    bool went = !is_left();
    assert_true(canary != 0 || stat_get(STAT_SHARD_HOLDS) == 1);
    silence(l, 6);                                    /* nothing is left to be cut or forgotten */
    io_sim_clock_jump_ms(l->w.io, 100 * MS_PER_HOUR); /* this node's clock alone; the log's is as it was */
    silence(l, 12);
    went = went || !is_left();
    io_sim_clock_jump_ms(l->w.io, -100 * MS_PER_HOUR);
    quiet(l, 40);
    assert_false(is_left());
    leave_one();
    put_hold(l, 0);
    quiet(l, 60);
    went = went || !is_left();
    assert_ok(blob_delete(late.inner, SHARD_HOLD_PREFIX "/copy"));
    quiet(l, 20);
    assert_false(is_left());
    end_life(l);
    return went;
}

static void a_hold_keeps_sweeps_away(void **unused)
{
    assert_false(sweeps_while_held(0));
    assert_true(sweeps_while_held(SHARD_CANARY_SWEEP_HELD));
}

/* A list may take longer than the time between two looks. */
static void a_slow_list_is_enough(void **unused)
{
    struct life *l = begin_life(0);
    late.list_ns_max = 3 * HOUR_NS;
    quiet(l, 30);
    leave_one();
    quiet(l, 30);
    assert_false(is_left());
    assert_null(check_named(l));
    end_life(l);
}

/* Two of rank 0: their eras are one, and none is shorter than it should be. */
static void two_sweepers_begin_one_era(void **unused)
{
    struct life *l = begin_life(0);
    uint64_t present = 0;
    int64_t begun_ns = 0;
    for (int i = 0; i < 100; i++) {
        for (uint32_t k = 0; k < REPLICA_COUNT; k++)
            replica_rank(l, k, 0, 0);
        quiet_hour(l);
        uint64_t now = first_of(l, 1)->chain.eras[0];
        if (now == present)
            continue;
        assert_true(present == 0 || io_monotonic_ns(l->w.io) - begun_ns >= 11 * HOUR_NS);
        present = now;
        begun_ns = io_monotonic_ns(l->w.io);
    }
    assert_true(present > 0);
    assert_int_equal(first_of(l, 0)->chain.ignored_count, 0);
    end_life(l);
}

/* A chain that rests gets no eras for ever. */
static void a_chain_that_rests_gets_no_eras(void **unused)
{
    struct life *l = begin_life(0);
    quiet(l, 4);
    rest(l);
    silence(l, 200);
    const struct chain *c = &first_of(l, 0)->chain;
    assert_true(c->eras[2] != 0);
    assert_int_equal(c->eras[0] + 1, c->next_number);
    assert_int_equal(c->eras[0], c->eras[2] + 2);
    end_life(l);
}

int main(int argc, char **argv)
{
    const char *set = getenv("KELPIE_SIM");
    is_full = set != NULL && strcmp(set, "full") == 0;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--full") == 0)
            is_full = true;
        else {
            const char *wrong = run_days(strtoull(argv[i], NULL, 0), 0);
            printf("seed %s: %s\n", argv[i], wrong == NULL ? "right" : wrong);
            return wrong != NULL;
        }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_late_delete_meets_nothing),
        cmocka_unit_test(a_writer_sleeps_before_it_names),
        cmocka_unit_test(what_was_swept_is_never_named),
        cmocka_unit_test(what_cannot_be_read_may_have_been_named),
        cmocka_unit_test(an_opening_sleeps_for_days),
        cmocka_unit_test(a_list_with_a_gap_deletes_nothing),
        cmocka_unit_test(a_hold_keeps_sweeps_away),
        cmocka_unit_test(a_slow_list_is_enough),
        cmocka_unit_test(two_sweepers_begin_one_era),
        cmocka_unit_test(a_chain_that_rests_gets_no_eras),
        cmocka_unit_test(what_nobody_names_goes_after_a_day),
        cmocka_unit_test(broken_rules_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
