/* Stores copied to others, and chains that go on without their log, on a real disk: what is answered from the copy
 * is what the source had then, and whatever is wrong is refused by its name. Model and oracle: workload.h. */
#include "shard/fixture.h"

#include "shard/partition.h"

struct copy {
    struct shard_clone door;
    struct shards_config config;
    struct pool *pool;
    uint64_t objects, copied;
};

static void on_copied(void *context, uint64_t bytes, bool was_there)
{
    struct copy *c = context;
    assert_true(bytes > 0);
    c->objects++;
    c->copied += !was_there;
}

static void copy_open(struct fixture *f, struct copy *c)
{
    *c = (struct copy){ .config = f->world.config, .pool = pool_open(f->pool, "copy", POOL_BYTES_UNLIMITED) };
    c->config.is_shared = true;
    c->door = (struct shard_clone){ .config = &c->config,
                                    .io = f->io,
                                    .pool = c->pool,
                                    .temp_path = "piece.tmp",
                                    .copied = on_copied,
                                    .context = c };
    assert_ok(blob_open_dir("blob", f->io, c->pool, &c->door.from));
    assert_ok(blob_open_dir("copy", f->io, c->pool, &c->door.to));
}

static void copy_close(struct copy *c)
{
    blob_close(c->door.from);
    blob_close(c->door.to);
    pool_close(c->pool);
}

/* All partitions as of now. */
static err copy_all(struct copy *c, struct err_at *at)
{
    c->objects = c->copied = 0;
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        struct shard_facts facts;
        TRY(shard_clone_look(&c->door, p, INT64_MAX, &facts, at));
        TRY(shard_clone_partition(&c->door, p, facts.last_number, at));
    }
    return OK;
}

/* Keys are of one more era each time. */
static void begin_eras(struct world *w)
{
    for (uint32_t i = 0; i < WORLD_PARTITIONS; i++) {
        struct partition *p = &w->shards->partitions[i];
        struct chain_entry era = { .kind = CHAIN_ERA,
                                   .leader_epoch = LOG_EPOCH_NONE,
                                   .ended_era = p->chain.eras[0] };
        bool valid;
        io_mutex_lock(&p->chain_lock);
        assert_ok(partition_entry_append(p, &era, &valid));
        io_mutex_unlock(&p->chain_lock);
        assert_true(valid);
    }
}

/* Ranges, each a commit of both partitions; closed. */
static void make_source(struct fixture *f, int ranges)
{
    struct world *w = &f->world;
    assert_ok(world_open(w));
    for (int i = 0; i < ranges; i++) {
        world_write(w, 20);
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
        if (i % 3 == 2)
            begin_eras(w);
    }
    world_close_quick(w);
}

/* A node of the copy alone, with a log of its own. */
static void serve_copy(struct fixture *f)
{
    fixture_remove(f, "blob");
    fixture_remove(f, "log");
    fixture_remove(f, "stream");
    assert_ok(io_rename(f->io, "copy", "blob"));
    world_producer_renew(&f->world);
    assert_ok(world_open(&f->world));
}

static int setup(void **state)
{
    fixture_setup(state);
    ((struct fixture *)*state)->world.config.compact = false;
    return 0;
}

/* ---- copies ---- */

static void a_copy_answers_the_same(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    struct copy c;
    struct shard_facts facts;
    w->config.chain_base_count = 3; /* its chain begins at a base */
    make_source(f, 9);
    copy_open(f, &c);
    assert_ok(copy_all(&c, NULL));
    assert_int_equal(c.copied, c.objects);
    uint64_t objects = c.objects;
    assert_ok(copy_all(&c, NULL)); /* again: all is there */
    assert_int_equal(c.objects, objects);
    assert_int_equal(c.copied, 0);
    assert_ok(shard_facts(&c.config, f->io, c.door.from, c.pool, 0, NULL, &facts, NULL));
    assert_true(facts.newest_ms > 0 && facts.damage_count == 0 && facts.row_count > 0);
    assert_false(io_exists(f->io, "piece.tmp"));
    copy_close(&c);
    serve_copy(f);
    world_expect(w);
    assert_int_equal(shards_partition_sum(w->shards, 0).generation, 2);
    world_write(w, 30);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_expect(w);
}

/* States that a node of its own removes as soon as newer ones are there; a shared store keeps them for a day. */
static void link_states(struct fixture *f, const char *from, const char *to)
{
    struct io_dir_entry *entries;
    size_t count;
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        char paths[2][IO_PATH_BYTES_MAX], directory[64];
        snprintf(directory, sizeof directory, "%s/p%03u/state", from, p);
        assert_ok(io_dir_list(f->io, directory, f->pool, &entries, &count));
        for (size_t i = 0; i < count; i++) {
            snprintf(paths[0], sizeof paths[0], "%s/%s", directory, entries[i].name);
            snprintf(paths[1], sizeof paths[1], "%s/p%03u/state/%s", to, p, entries[i].name);
            err e = io_link(f->io, paths[0], paths[1]);
            assert_true(e == OK || e == ERR_EXISTS);
        }
    }
}

static void keep_states(struct fixture *f)
{
    static const char *const directories[] = { "kept", "kept/p000", "kept/p001", "kept/p000/state",
                                               "kept/p001/state" };
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
        assert_ok(io_dir_create(f->io, directories[i]));
    link_states(f, "blob", "kept");
}

static void a_copy_as_of_a_moment(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    struct copy c;
    uint64_t numbers[WORLD_PARTITIONS];
    make_source(f, 2);
    size_t then = w->record_count;
    keep_states(f);
    io_sleep_ns(f->io, 5 * NS_PER_MS);
    int64_t then_ms = io_now_ms(f->io);
    io_sleep_ns(f->io, 5 * NS_PER_MS);
    world_producer_renew(w);
    make_source(f, 2);
    link_states(f, "kept", "blob");
    copy_open(f, &c);
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        struct shard_facts facts, present;
        assert_ok(shard_clone_look(&c.door, p, then_ms, &facts, NULL));
        assert_ok(shard_clone_look(&c.door, p, INT64_MAX, &present, NULL));
        assert_true(facts.last_number > 0 && facts.last_number < present.last_number);
        assert_true(facts.segment_bytes < present.segment_bytes);
        numbers[p] = facts.last_number;
        assert_ok(shard_clone_look(&c.door, p, 0, &facts, NULL)); /* before everything */
        assert_int_equal(facts.last_number, 0);
        assert_ok(shard_clone_partition(&c.door, p, 0, NULL));
    }
    assert_int_equal(c.objects, 0);
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        assert_ok(shard_clone_partition(&c.door, p, numbers[p], NULL));
        assert_err(ERR_NOT_FOUND, shard_clone_partition(&c.door, p, 1000, NULL));
    }
    copy_close(&c);
    serve_copy(f);
    for (size_t i = then; i < w->record_count; i++)
        w->records[i]->answer = WORLD_REFUSED; /* of the source alone */
    world_expect(w);
    for (size_t i = 0; i < w->record_count; i++)
        assert_int_equal(w->records[i]->is_there, i < then && w->records[i]->row_count > 0);
}

/* The first segment of partition 0 by its entry. */
static void first_segment(struct copy *c, char out_key[SHARD_KEY_BYTES_MAX])
{
    struct chain_entry entry;
    struct slice bytes;
    uint64_t number = 1;
    do
        assert_ok(chain_entry_read(c->door.from, 0, number++, c->pool, &bytes, &entry));
    while (entry.segment_count == 0);
    segment_key(0, entry.segments[0].digest, entry.segments[0].era, out_key);
}

static size_t entry_count(struct copy *c, struct blob *blob)
{
    struct blob_entry *entries;
    size_t count;
    assert_ok(blob_list(blob, "p000/chain", c->pool, &entries, &count));
    return count;
}

static void what_is_damaged_is_refused_by_its_name(void **state)
{
    struct fixture *f = *state;
    struct copy c;
    struct err_at at = { 0 };
    char key[SHARD_KEY_BYTES_MAX], path[IO_PATH_BYTES_MAX];
    make_source(f, 3);
    copy_open(f, &c);
    first_segment(&c, key);
    snprintf(path, sizeof path, "blob/%s", key);
    fixture_flip(f, path, 2);
    assert_err(ERR_CORRUPT, copy_all(&c, &at));
    assert_non_null(strstr(at.text, key));
    assert_non_null(strstr(at.text, "in the source: it is damaged"));
    assert_int_equal(entry_count(&c, c.door.to), 0); /* nothing names what is not there */
    fixture_flip(f, path, 2);
    assert_ok(io_rename(f->io, path, "aside"));
    assert_err(ERR_NOT_FOUND, copy_all(&c, &at));
    assert_non_null(strstr(at.text, key));
    assert_ok(io_rename(f->io, "aside", path));
    fixture_flip(f, "blob/p000/chain/00000002", 2);
    assert_err(ERR_CORRUPT, copy_all(&c, &at));
    assert_non_null(strstr(at.text, "p000/chain/00000002 in the source: it is damaged"));
    fixture_flip(f, "blob/p000/chain/00000002", 2);
    assert_ok(io_rename(f->io, "blob/p000/chain/00000002", "aside"));
    assert_err(ERR_NOT_FOUND, copy_all(&c, &at));
    assert_non_null(strstr(at.text, "p000/chain/00000002 in the source: it is gone"));
    assert_ok(io_rename(f->io, "aside", "blob/p000/chain/00000002"));
    assert_ok(copy_all(&c, &at));
    copy_close(&c);
    serve_copy(f);
    world_expect(&f->world);
}

static void what_is_wrong_in_the_copy(void **state)
{
    struct fixture *f = *state;
    struct copy c;
    struct err_at at = { 0 };
    char key[SHARD_KEY_BYTES_MAX];
    make_source(f, 2);
    copy_open(f, &c);
    first_segment(&c, key);
    assert_ok(blob_put(c.door.to, key, slice_str("of a disk that lied")));
    assert_ok(copy_all(&c, &at));
    assert_int_equal(c.copied, c.objects);
    copy_close(&c);
    fixture_remove(f, "copy");
    copy_open(f, &c);
    assert_ok(blob_put(c.door.to, "p000/chain/00000001", slice_str("of somebody else")));
    assert_err(ERR_CONFLICT, copy_all(&c, &at));
    assert_non_null(strstr(at.text, "p000/chain/00000001 in the copy is not the source's"));
    copy_close(&c);
}

static void a_copy_that_is_canceled(void **state)
{
    struct fixture *f = *state;
    struct copy c;
    _Atomic bool cancel = true;
    make_source(f, 1);
    copy_open(f, &c);
    c.door.cancel = &cancel;
    assert_err(ERR_CANCELED, copy_all(&c, NULL));
    assert_int_equal(c.objects, 0);
    atomic_store(&cancel, false);
    assert_ok(copy_all(&c, NULL));
    copy_close(&c);
}

/* ---- chains without their log ---- */

static uint64_t revive_all(struct fixture *f, struct shard_revival wanted)
{
    struct copy c;
    struct shard_facts facts;
    uint64_t entries = 0;
    copy_open(f, &c);
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        assert_ok(shard_revive(&c.config, f->io, c.door.from, c.pool, p, &wanted, NULL));
        assert_ok(shard_facts(&c.config, f->io, c.door.from, c.pool, p, NULL, &facts, NULL));
        assert_int_equal(facts.end_offset, 0);
        assert_int_equal(facts.generation, wanted.generation);
        entries += facts.last_number;
    }
    copy_close(&c);
    return entries;
}

static void a_chain_goes_on_without_its_log(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    struct shard_revival wanted = { .generation = 2, .names_loss = true, .lost_until_ms = WORLD_EPOCH_MS };
    make_source(f, 2);
    fixture_remove(f, "log");
    fixture_remove(f, "stream");
    uint64_t entries = revive_all(f, wanted);
    assert_int_equal(revive_all(f, wanted), entries); /* again: nothing */
    world_producer_renew(w);
    assert_ok(world_open(w));
    const char *wrong = world_check(w);
    assert_non_null(wrong);
    assert_string_equal(wrong, "the answer says it is not complete");
    assert_int_equal(shards_usage(w->shards).losses, WORLD_PARTITIONS);
    world_close_quick(w);
    wanted.accepts_loss = true;
    assert_int_equal(revive_all(f, wanted), entries + WORLD_PARTITIONS);
    assert_int_equal(revive_all(f, wanted), entries + WORLD_PARTITIONS);
    wanted.lost_until_ms++; /* of another one nothing is there to accept */
    assert_int_equal(revive_all(f, wanted), entries + WORLD_PARTITIONS);
    assert_ok(world_open(w));
    world_expect(w);
    world_write(w, 20);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_expect(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_copy_answers_the_same, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_copy_as_of_a_moment, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(what_is_damaged_is_refused_by_its_name, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(what_is_wrong_in_the_copy, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_copy_that_is_canceled, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_chain_goes_on_without_its_log, setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
