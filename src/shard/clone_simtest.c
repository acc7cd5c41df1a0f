/* Copying a store, letting its chains go on without their log, and taking a node's store into a shared one,
 * with the process killed or the power gone at every call, and with every call failing once: run again, it
 * comes to the same end, and no state between says more than is there. KELPIE_SIM=full has each call end in
 * each of the four ways, else in one of them. */
#include "shard/fixture.h"

#include "shard/partition.h"
#include "sim/io_sim.h"
#include "sim/liar_blob.h"

#define UNTIL_MS WORLD_EPOCH_MS

static struct io *io;
static struct pool *pool;
static struct world w;
static struct io_sim_image *image; /* of a disk with some ranges in blob/ */
static struct shards_config config;
static bool is_full;

static int set_up(void **state)
{
    assert_ok(io_sim_open(test_seed(), &io));
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    world_init(&w, io, pool, test_seed());
    w.config.compact = false;
    w.config.chain_base_count = 2;
    world_producer_renew(&w);
    assert_ok(world_open(&w));
    for (int i = 0; i < 3; i++) {
        world_write(&w, 6);
        assert_ok(shards_cut_all(w.shards, INT64_MAX));
    }
    world_close_quick(&w);
    config = w.config;
    config.is_shared = true;
    image = io_sim_snapshot(io);
    return 0;
}

static int tear_down(void **state)
{
    io_sim_image_close(image);
    pool_close(pool);
    io_close(io);
    return 0;
}

/* ---- what is tried ---- */

struct stores {
    struct pool *pool;
    struct blob *from, *to;
};

static void stores_close(struct stores *s)
{
    if (s->from != NULL)
        blob_close(s->from);
    if (s->to != NULL)
        blob_close(s->to);
    pool_close(s->pool);
}

static err stores_open(struct stores *s)
{
    *s = (struct stores){ .pool = pool_open(pool, "stores", POOL_BYTES_UNLIMITED) };
    err e = blob_open_dir("blob", io, s->pool, &s->from);
    return e == OK ? blob_open_dir("copy", io, s->pool, &s->to) : e;
}

static struct shard_clone door_of(struct stores *s)
{
    return (struct shard_clone){
        .config = &config, .io = io, .pool = s->pool, .from = s->from, .to = s->to, .temp_path = "piece.tmp"
    };
}

static err copy(struct stores *s)
{
    struct shard_clone door = door_of(s);
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        struct shard_facts facts;
        TRY(shard_clone_look(&door, p, INT64_MAX, &facts, NULL));
        TRY(shard_clone_partition(&door, p, facts.last_number, NULL));
    }
    return OK;
}

static err revive(struct stores *s)
{
    const struct shard_revival wanted = {
        .generation = 2, .names_loss = true, .accepts_loss = true, .lost_until_ms = UNTIL_MS
    };
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++)
        TRY(shard_revive(&config, io, s->from, s->pool, p, &wanted, NULL));
    return OK;
}

static err route(void *context, struct slice tenant, struct slice labels, struct buf *scratch,
                 uint32_t *out_partition)
{
    *out_partition = jump_hash(hash64(labels, 0), WORLD_PARTITIONS);
    return OK;
}

static uint32_t route_family(void *context, struct slice tenant, struct slice family) { return 0; }

static err adopt(struct stores *s)
{
    struct shards_config from_config = w.config;
    struct shard_adoption *adoption;
    struct shard_adopt_facts facts;
    uint64_t ignored;
    from_config.read_only = true;
    const struct shard_adopt door = { .from_config = &from_config,
                                      .to_config = &config,
                                      .io = io,
                                      .pool = s->pool,
                                      .from = s->from,
                                      .to = s->to,
                                      .route = route,
                                      .route_family = route_family,
                                      .entry_segments_max = 2 };
    err e = OK;
    TRY(shard_adoption_open(&door, &adoption, &facts, NULL));
    for (uint32_t p = 0; p < WORLD_PARTITIONS && e == OK; p++) {
        e = shard_adoption_look(adoption, p, &ignored, NULL);
        shard_adoption_begin(adoption, p, 0);
    }
    for (uint32_t p = 0; p < WORLD_PARTITIONS && e == OK; p++)
        e = shard_adoption_write(adoption, p, "piece.tmp", NULL);
    for (uint32_t p = 0; p < WORLD_PARTITIONS && e == OK; p++)
        e = shard_adoption_name(adoption, p, NULL);
    shard_adoption_close(adoption);
    return e;
}

typedef err (*deed)(struct stores *s);

static err once(deed run)
{
    struct stores s;
    err e = stores_open(&s);
    if (e == OK)
        e = run(&s);
    stores_close(&s);
    return e;
}

/* ---- oracles ---- */

/* Every chain that is there can be read whole, and everything that it names is there and right. */
static const char *wrong_store(struct blob *blob, struct pool *scratch,
                               uint64_t out_numbers[WORLD_PARTITIONS])
{
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        struct stores s = { .pool = scratch, .from = blob, .to = blob }; /* onto itself: only reads */
        struct shard_clone door = door_of(&s);
        struct shard_facts facts;
        struct chain chain = chain_open(scratch, p, (struct log_position){ .generation = 1 });
        struct chain_reader reader = { .config = &config,
                                       .io = io,
                                       .blob = blob,
                                       .pool = scratch,
                                       .partition = p,
                                       .log_start = UINT64_MAX };
        if (shard_clone_look(&door, p, INT64_MAX, &facts, NULL) != OK ||
            shard_chain_read(&reader, &chain, NULL) != OK)
            return "a chain cannot be read";
        out_numbers[p] = facts.last_number;
        for (size_t i = 0; i < chain.segment_count; i++) {
            char key[SHARD_KEY_BYTES_MAX];
            struct slice bytes;
            uint8_t digest[SHA256_BYTES];
            segment_key(p, chain.segments[i].digest, chain.segments[i].era, key);
            if (blob_get(blob, key, 1u << 20, scratch, &bytes) != OK)
                return "a chain names what is not there";
            sha256_of(bytes, digest);
            if (memcmp(digest, chain.segments[i].digest, SHA256_BYTES) != 0)
                return "a chain names what is damaged";
        }
        chain_close(&chain);
    }
    return NULL;
}

static void check_store(deed run, uint64_t out_numbers[WORLD_PARTITIONS])
{
    struct stores s;
    assert_ok(stores_open(&s));
    const char *wrong = wrong_store(run == revive ? s.from : s.to, s.pool, out_numbers);
    stores_close(&s);
    if (wrong != NULL)
        fail_msg("%s", wrong);
}

/* What an undisturbed run comes to. */
static void expected_numbers(deed run, uint64_t out_numbers[WORLD_PARTITIONS])
{
    io_sim_restore(io, image);
    assert_ok(once(run));
    check_store(run, out_numbers);
}

static void check_end(deed run, const uint64_t expected[WORLD_PARTITIONS])
{
    uint64_t numbers[WORLD_PARTITIONS];
    check_store(run, numbers); /* between */
    assert_ok(once(run));
    check_store(run, numbers);
    assert_memory_equal(numbers, expected, sizeof numbers);
    assert_ok(once(run)); /* once more: nothing */
    check_store(run, numbers);
    assert_memory_equal(numbers, expected, sizeof numbers);
}

/* ---- at every call ---- */

static void explore(deed run)
{
    static const enum io_sim_keep keeps[] = { IO_SIM_KEEP_NONE, IO_SIM_KEEP_ALL, IO_SIM_KEEP_SECTORS };
    uint64_t expected[WORLD_PARTITIONS], states = 0;
    bool was_down = true;
    expected_numbers(run, expected);
    for (uint64_t call = 1; was_down; call++)
        for (int how = is_full ? 0 : (int)(call % 4); how < 4; how += is_full ? 1 : 4) {
            io_sim_restore(io, image);
            io_sim_crash_at_call(io, call);
            ERR_IGNORE(once(run));
            was_down = io_sim_is_down(io);
            if (how < 3)
                io_sim_crash(io, keeps[how], call);
            else
                io_sim_kill(io);
            check_end(run, expected);
            states++;
        }
    printf("# %llu states\n", (unsigned long long)states);
    assert_true(states > 150);
}

static void a_copy_crashes(void **state) { explore(copy); }
static void a_revival_crashes(void **state) { explore(revive); }
static void an_adoption_crashes(void **state) { explore(adopt); }

static void fail_each(deed run)
{
    uint64_t expected[WORLD_PARTITIONS], faults = 1, all = 0;
    expected_numbers(run, expected);
    for (uint64_t call = 1; faults > 0; call++) {
        io_sim_restore(io, image);
        io_sim_fault_at(io, call, false, call % 2 == 0 ? ERR_IO : ERR_SPACE);
        err e = once(run);
        faults = io_sim_faults(io);
        all += faults;
        io_sim_fault_at(io, 0, false, OK);
        if (faults == 0)
            assert_ok(e);
        check_end(run, expected);
    }
    printf("# %llu faults\n", (unsigned long long)all);
    assert_true(all > 50);
}

static void calls_of_a_copy_fail(void **state) { fail_each(copy); }
static void calls_of_a_revival_fail(void **state) { fail_each(revive); }
static void calls_of_an_adoption_fail(void **state) { fail_each(adopt); }

/* A process of before takes the number meanwhile: it is folded, and the next one taken. */
static void a_number_is_taken(void **state)
{
    struct stores s;
    struct shard_facts facts;
    struct shard_revival wanted = { .generation = 2, .names_loss = true };
    io_sim_restore(io, image);
    assert_ok(stores_open(&s));
    assert_ok(shard_facts(&config, io, s.from, s.pool, 0, NULL, &facts, NULL));
    struct chain_entry stale = { .kind = CHAIN_LOSSES, .number = facts.last_number + 1 };
    struct buf bytes = buf_open(s.pool, 4096);
    assert_ok(chain_entry_encode(&stale, &bytes));
    struct liar liar = { .base = { &liar_driver },
                         .inner = s.from,
                         .pool = s.pool,
                         .part = "none",
                         .before_put = buf_slice(&bytes) };
    assert_ok(shard_revive(&config, io, &liar.base, s.pool, 0, &wanted, NULL));
    assert_int_equal(liar.before_put.len, 0);
    assert_ok(shard_facts(&config, io, s.from, s.pool, 0, NULL, &facts, NULL));
    assert_int_equal(facts.last_number, stale.number + 1);
    assert_int_equal(facts.generation, 2);
    buf_close(&bytes);
    stores_close(&s);
}

int main(void)
{
    const char *set = getenv("KELPIE_SIM");
    is_full = set != NULL && strcmp(set, "full") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_crashes),       cmocka_unit_test(a_revival_crashes),
        cmocka_unit_test(calls_of_a_copy_fail), cmocka_unit_test(calls_of_a_revival_fail),
        cmocka_unit_test(an_adoption_crashes),  cmocka_unit_test(calls_of_an_adoption_fail),
        cmocka_unit_test(a_number_is_taken),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
