/* Objects that come wrongly out of the store, once or for ever, with a cache of blocks in front of it and without.
 * What a checksum finds wrong is doubted and read once more: nothing that is right in the store is mended,
 * set aside or named as missing; what is wrong there is damage, as it is where nothing can be doubted. */
#include "shard/fixture.h"

#include "base/stat.h"
#include "shard/partition.h"
#include "sim/io_sim.h"
#include "sim/liar_blob.h"

#define CACHE_BLOCK 512

static struct io *io;
static struct pool *pool;
static struct world w;
static struct liar liar;
static bool has_cache;
static struct io_sim_image *image; /* of a disk with some segments, states and entries */

static bool is_kept(const char *key) { return strstr(key, "/chain/") == NULL; }

/* Between the directory and the shards. */
static err wrap(struct world *world)
{
    liar.base.driver = &liar_driver;
    liar.inner = world->blob;
    liar.pool = world->node_pool;
    world->blob = &liar.base;
    if (!has_cache)
        return OK;
    struct blob_cache_config config = blob_cache_defaults();
    config.directory = "cache";
    config.bytes_max = 64u << 20;
    config.block_bytes = CACHE_BLOCK;
    config.is_immutable = is_kept;
    struct err_at at;
    return blob_open_cached(&liar.base, &config, world->io, world->node_pool, &world->blob, &at);
}

static int set_up(void **state)
{
    assert_ok(io_sim_open(test_seed(), &io));
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    world_init(&w, io, pool, test_seed());
    w.config.compact = false;
    world_producer_renew(&w);
    assert_ok(world_open(&w));
    for (int i = 0; i < 3; i++) {
        world_write(&w, 12);
        assert_ok(shards_cut_all(w.shards, world_soon(&w)));
    }
    world_expect(&w);
    world_close_quick(&w);
    w.wrap = wrap;
    image = io_sim_snapshot(io);
    return 0;
}

static int tear_down(void **state)
{
    io_sim_image_close(image);
    io_close(io);
    pool_close(pool);
    return 0;
}

/* The store lies in its nth read of an object whose key has this part. */
static void lie(const char *part, uint64_t nth, bool goes_on, bool may_help)
{
    liar = (struct liar){ .part = part, .lies_at = nth, .goes_on = goes_on, .may_help = may_help };
    io_sim_restore(io, image);
}

struct counts {
    int64_t doubts, quarantined;
};

static struct counts counts_now(void)
{
    return (struct counts){ stat_get(STAT_SHARD_OBJECTS_DOUBTED), stat_get(STAT_SHARD_QUARANTINED) };
}

static void expect_counts(struct counts before, int64_t doubts, int64_t quarantined)
{
    struct counts now = counts_now();
    assert_int_equal(now.doubts - before.doubts, doubts);
    assert_int_equal(now.quarantined - before.quarantined, quarantined);
}

/* Read all there is. */
static err ask(bool *out_complete)
{
    struct pool *own = pool_open(pool, "ask", POOL_BYTES_UNLIMITED);
    const struct source_table *table = shards_source(w.shards)->table;
    struct source_request request = { .tenant = slice_str("default"),
                                      .range = { TIME_MS_MIN, TIME_MS_MAX },
                                      .series_max = SIZE_MAX };
    struct sample_columns columns = sample_columns_open(own);
    struct buf labels = buf_open(own, LABELS_BYTES_MAX);
    struct source_reader *reader = NULL;
    struct source_set *set = NULL;
    err e = OK;
    *out_complete = false;
    TRY_OUT(table->select(shards_source(w.shards), &request, own, &set));
    TRY_OUT(table->reader_open(set, &reader));
    for (size_t i = 0; i < table->set_count(set); i++) {
        buf_clear(&labels);
        TRY_OUT(table->read_labels(reader, i, &labels));
        TRY_OUT(table->read_samples(reader, i, &columns));
    }
    *out_complete = table->set_proof(set)->complete;
out:
    table->reader_close(reader);
    if (set != NULL)
        table->set_close(set);
    sample_columns_close(&columns);
    buf_close(&labels);
    pool_close(own);
    return e;
}

/* Each read in turn comes wrongly once: of an entry, a state, a tail, a footer, a table, an index, rows. */
static void what_comes_wrongly_once_is_read_again(void **state)
{
    for (int cached = 0; cached < 2; cached++) {
        uint64_t segments = 0, states = 0, entries = 0;
        has_cache = cached == 1;
        for (uint64_t nth = 1;; nth++) {
            lie("", nth, false, true);
            struct counts before = counts_now();
            assert_ok(world_open(&w));
            world_expect(&w);
            world_expect(&w);
            expect_counts(before, liar.lies > 0, 0);
            world_close_quick(&w);
            if (liar.lies == 0)
                break;
            assert_int_equal(liar.lies, 1);
            segments += strstr(liar.key, "/segment/") != NULL;
            states += strstr(liar.key, "/state/") != NULL;
            entries += strstr(liar.key, "/chain/") != NULL;
        }
        printf("# %llu reads of segments, %llu of states, %llu of entries\n", (unsigned long long)segments,
               (unsigned long long)states, (unsigned long long)entries);
        assert_true(segments > 10 && states > 0 && entries > 2);
    }
}

/* It is doubted once; after that it is known. */
static void what_is_wrong_in_the_store_is_damage(void **state)
{
    for (int cached = 0; cached < 2; cached++) {
        has_cache = cached == 1;
        for (uint64_t nth = 1;; nth++) {
            bool is_complete;
            lie("/segment/", nth, true, true);
            struct counts before = counts_now();
            assert_ok(world_open(&w));
            err e = ask(&is_complete);
            bool was_told = liar.lies > 0;
            assert_int_equal(e == OK && is_complete, !was_told);
            expect_counts(before, was_told, was_told);
            for (int i = 0; i < 3; i++) {
                e = ask(&is_complete);
                assert_int_equal(e == OK && is_complete, !was_told);
            }
            expect_counts(before, was_told, was_told);
            world_close_quick(&w);
            if (!was_told)
                break;
            assert_true(liar.lies >= 2); /* it was read again */
        }
        lie("/state/", 1, true, true);
        struct counts before = counts_now();
        assert_ok(world_open(&w)); /* from the state before it */
        assert_int_equal(liar.lies, 2);
        expect_counts(before, 1, 1);
        world_close_quick(&w);
        lie("/chain/", 2, true, true);
        before = counts_now();
        assert_ok(world_open(&w)); /* with what stands in for it */
        assert_true(liar.lies >= 2);
        assert_int_equal(stat_get(STAT_SHARD_QUARANTINED) - before.quarantined, 1);
        world_close_quick(&w);
    }
}

/* A directory gives the same bytes again: it is not asked. */
static void what_cannot_be_doubted_is_read_once(void **state)
{
    has_cache = false;
    for (uint64_t nth = 1;; nth++) {
        bool is_complete;
        lie("/segment/", nth, false, false);
        struct counts before = counts_now();
        assert_ok(world_open(&w));
        err e = ask(&is_complete);
        assert_int_equal(e == OK && is_complete, liar.lies == 0);
        expect_counts(before, 0, liar.lies > 0);
        world_close_quick(&w);
        if (liar.lies == 0)
            break;
    }
}

/* Memory is refused before the second read, in it and after it: that is no damage either. */
static void memory_is_refused_meanwhile(void **state)
{
    static const char *const parts[] = { "/chain/", "/state/", "/segment/", "/segment/" };
    static const uint64_t reads[] = { 2, 1, 1, 7 };
    struct test_random r = test_random_begin("memory");
    for (int i = 0; i < 8; i++) {
        bool was_hit = true;
        has_cache = i >= 4;
        for (uint64_t nth = 1; was_hit; nth += 1 + test_random_below(&r, 40)) {
            bool is_complete = true;
            lie(parts[i % 4], reads[i % 4], false, true);
            struct counts before = counts_now();
            w.alloc_fault_nth = nth;
            err e = world_open(&w);
            w.alloc_fault_nth = 0;
            bool is_open = e == OK;
            if (is_open) {
                e = ask(&is_complete);
                was_hit = pool_fault_count(w.node_pool) >= nth;
                pool_fault_at(w.node_pool, 0, false);
            }
            assert_true(e == OK || e == ERR_LIMIT);
            assert_true(e != OK || is_complete);
            if (is_open) {
                world_expect(&w);
                world_close_quick(&w);
            }
            struct counts now = counts_now();
            assert_int_equal(now.quarantined, before.quarantined);
            assert_true(now.doubts - before.doubts <=
                        2); /* again, where the second read did not come to an end */
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_wrongly_once_is_read_again),
        cmocka_unit_test(what_is_wrong_in_the_store_is_damage),
        cmocka_unit_test(what_cannot_be_doubted_is_read_once),
        cmocka_unit_test(memory_is_refused_meanwhile),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
