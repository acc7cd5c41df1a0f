/* Goal: what the cache takes of the local disk is bounded, by its own size and by what others need of the
 * disk, and a disk that fails is left alone. Method: cache_world.h, on a simulated disk that is filled, or
 * holds names that cannot be unlinked. */
#include "sim/cache_world.h"

static void test_the_least_used_goes(void **state)
{
    int64_t evictions = stat_get(STAT_BLOB_CACHE_EVICTIONS);
    world_begin_full(1, 3 * FILE_DISK);
    assert_ok(read_whole(1)); /* no bytes: there is nothing to keep of a read */
    assert_ok(read_whole(2));
    assert_ok(read_whole(3));
    assert_ok(read_whole(4));
    assert_true(is_kept(2));
    assert_int_equal(stat_get(STAT_BLOB_CACHE_EVICTIONS) - evictions, 0);
    assert_ok(read_range(5, 0, 1)); /* and 3 goes */
    assert_int_equal(stat_get(STAT_BLOB_CACHE_EVICTIONS) - evictions, 1);
    assert_true(is_kept(2) && is_kept(4));
    assert_false(is_kept(3));
    assert_int_equal(disk_bytes(), 3 * FILE_DISK);
    io_sim_clock_advance(io, NS_PER_SECOND);
    assert_ok(read_range(6, 0, 1)); /* 2 goes; 3 is older than this */
    close_cache();
    assert_ok(open_cache(2 * FILE_DISK)); /* a smaller cache keeps the newest files */
    assert_int_equal(disk_bytes(), 2 * FILE_DISK);
    memory.requests = 0;
    assert_ok(read_range(6, 0, 1));
    assert_int_equal(memory.requests, 0);
    world_end();
}

static void test_foreign_files_stay(void **state)
{
    static const char *const names[] = { "README", "00000000000000000000000000000000-0000000A",
                                         "00000000000000000000000000000000-000000000" };
    struct io_file *file;
    world_begin(1);
    assert_ok(io_dir_create(io, DIRECTORY));
    assert_ok(io_dir_create(io, DIRECTORY "/00000000000000000000000000000000-00000001"));
    for (size_t i = 0; i < 3; i++) {
        char path[200];
        snprintf(path, sizeof path, DIRECTORY "/%s", names[i]);
        assert_ok(io_file_open(io, path, IO_CREATE, &file));
        io_file_close(file);
    }
    assert_ok(io_file_open(io, DIRECTORY "/00000000000000000000000000000000-00000000", IO_CREATE, &file));
    io_file_close(file); /* ours, and empty: what a crash leaves */
    assert_ok(open_cache(1000 * FILE_DISK));
    struct io_dir_entry *entries;
    size_t count;
    assert_ok(io_dir_list(io, DIRECTORY, root, &entries, &count));
    assert_int_equal(count, 4);
    world_end();
}

/* A start finds no room for a file and cannot remove it: its name is taken when its block comes again. */
static void test_a_file_that_a_start_cannot_remove(void **state)
{
    bool is_left = false;
    for (uint64_t call = 1; !is_left; call++) {
        world_begin_full(1, 3 * FILE_DISK);
        for (size_t key = 2; key <= 4; key++)
            assert_ok(read_whole(key));
        close_cache();
        io_sim_fault_at(io, call, false, ERR_IO);
        err e = open_cache(2 * FILE_DISK);
        assert_int_equal(io_sim_faults(io), 1);
        io_sim_fault_at(io, 0, false, ERR_IO);
        is_left = e == OK && disk_bytes() == 3 * FILE_DISK;
        int64_t failures = stat_get(STAT_BLOB_CACHE_FAILURES);
        for (size_t key = 2; is_left && key <= 4; key++) {
            assert_ok(read_whole(key));
            assert_true(is_kept(key));
        }
        assert_int_equal(stat_get(STAT_BLOB_CACHE_FAILURES), failures);
        assert_true(!is_left || disk_bytes() == 2 * FILE_DISK);
        world_end();
    }
}

static void test_a_full_disk(void **state)
{
    world_begin_full(1, 1000 * FILE_DISK);
    int64_t failures = stat_get(STAT_BLOB_CACHE_FAILURES);
    io_sim_set_capacity(io, 3000); /* five files */
    assert_ok(read_whole(7));
    assert_ok(read_whole(7));
    assert_int_equal(stat_get(STAT_BLOB_CACHE_FAILURES) - failures, 1); /* and not another try for a while */
    assert_int_equal(disk_bytes(), 5 * FILE_DISK);
    io_sim_set_capacity(io, 0);
    io_sim_clock_advance(io, 11 * NS_PER_SECOND);
    assert_ok(read_whole(7));
    assert_true(is_kept(7));
    world_end();
}

/* Others need the disk: the cache gives back. */
static void test_the_floor_of_free_space(void **state)
{
    world_begin(1);
    struct blob_cache_config config = config_of(64 * FILE_DISK);
    config.free_bytes_min = 100000;
    memory.base.driver = &memory_driver;
    memory.io = io;
    for (size_t key = 0; key < KEYS; key++)
        assert_ok(memory_put(&memory.base, keys[key], content(key)));
    assert_ok(blob_open_cached(&memory.base, &config, io, root, &cache, &(struct err_at){ 0 }));
    io_sim_set_capacity(io, 200000);
    assert_ok(read_whole(6));
    assert_true(is_kept(6));
    struct io_file *file;
    assert_ok(io_file_open(io, "log", IO_CREATE, &file));
    assert_ok(io_file_allocate(file, 150000));
    io_file_close(file);
    for (int i = 0; i < 10; i++)
        assert_ok(read_whole(7));
    assert_int_equal(disk_bytes(), 0);
    assert_ok(io_unlink(io, "log"));
    assert_ok(read_whole(7));
    assert_true(is_kept(7));
    world_end();
}

#define FLOOR 400000

/* A world whose disk has 500,000 bytes, of which 400,000 are to be free, with all objects kept. */
static void world_begin_with_floor(void)
{
    struct blob_cache_config config = config_of(64 * FILE_DISK);
    config.free_bytes_min = FLOOR;
    world_begin(1);
    memory.base.driver = &memory_driver;
    for (size_t key = 0; key < KEYS; key++)
        assert_ok(memory_put(&memory.base, keys[key], content(key)));
    assert_ok(blob_open_cached(&memory.base, &config, io, root, &cache, &(struct err_at){ 0 }));
    io_sim_set_capacity(io, 500000);
    for (size_t key = 1; key < KEYS; key++)
        assert_ok(get_whole(key));
    assert_int_equal(disk_bytes(), 38 * FILE_DISK);
}

/* Others take so much of the disk. */
static void take_disk(uint64_t bytes)
{
    struct io_file *file;
    assert_ok(io_file_open(io, "log", IO_CREATE, &file));
    assert_ok(io_file_allocate(file, bytes));
    io_file_close(file);
}

static uint64_t free_bytes(void)
{
    struct io_space space;
    assert_ok(io_space(io, &space));
    return space.free_bytes;
}

/* Nothing is put: reads see it, after a while, and give back some; who looks after the cache gives back all. */
static void test_the_floor_is_seen_without_puts(void **state)
{
    world_begin_with_floor();
    take_disk(450000);
    assert_ok(read_whole(2));
    assert_int_equal(disk_bytes(), 38 * FILE_DISK); /* the disk was asked a moment ago */
    io_sim_clock_advance(io, 2 * NS_PER_SECOND);
    assert_true(is_kept(2));
    assert_int_equal(disk_bytes(), 6 * FILE_DISK); /* 32 files for one read */
    blob_tend(cache);
    assert_int_equal(disk_bytes(), 0);
    assert_ok(io_unlink(io, "log"));
    assert_ok(read_whole(7));
    assert_true(is_kept(7));
    world_end();
}

/* No more goes than lacks, and the least used first. */
static void test_what_lacks_is_given_back(void **state)
{
    world_begin_with_floor();
    assert_ok(read_whole(2));
    take_disk(free_bytes() - FLOOR + 3000); /* the files of some blocks */
    for (int i = 0; i < 20; i++)
        blob_tend(cache);
    assert_true(free_bytes() >= FLOOR && free_bytes() < FLOOR + FILE_DISK);
    assert_true(disk_bytes() >= 31 * FILE_DISK && disk_bytes() < 38 * FILE_DISK);
    assert_true(is_kept(2) && is_kept(7));
    assert_false(is_kept(1));
    world_end();
}

/* Put a directory in the place of each file of the cache, which cannot be unlinked then; or take them away. */
static void block_names(bool is_blocked)
{
    struct io_dir_entry *names;
    size_t count;
    assert_ok(io_dir_list(io, DIRECTORY, root, &names, &count));
    for (size_t i = 0; i < count; i++) {
        char path[200];
        snprintf(path, sizeof path, DIRECTORY "/%s", names[i].name);
        if (is_blocked && !names[i].is_dir) {
            assert_ok(io_unlink(io, path));
            assert_ok(io_dir_create(io, path));
        } else if (!is_blocked && names[i].is_dir) {
            assert_ok(io_dir_remove(io, path));
        }
    }
}

static void test_a_disk_that_cannot_unlink(void **state)
{
    world_begin_full(1, 12 * FILE_DISK);
    assert_ok(read_whole(6));
    block_names(true);
    int64_t failures = stat_get(STAT_BLOB_CACHE_FAILURES);
    for (int i = 0; i < 5; i++) /* 20 blocks each time, for which there is no room */
        assert_ok(read_whole(7));
    assert_int_equal(stat_get(STAT_BLOB_CACHE_FAILURES) - failures, 1);
    for (int i = 2; i < 5; i++) {
        io_sim_clock_advance(io, 11 * NS_PER_SECOND);
        assert_ok(read_whole(7));
        assert_ok(read_whole(7));
        assert_int_equal(stat_get(STAT_BLOB_CACHE_FAILURES) - failures, i); /* another try, and no more */
    }
    block_names(false);
    io_sim_clock_advance(io, 11 * NS_PER_SECOND);
    assert_ok(read_whole(5));
    assert_true(is_kept(5));
    assert_ok(read_whole(7));
    assert_int_equal(stat_get(STAT_BLOB_CACHE_FAILURES) - failures, 4);
    assert_int_equal(disk_bytes(), 12 * FILE_DISK);
    world_end();
}

/* The others go in its place. */
static void test_one_file_that_cannot_be_removed(void **state)
{
    world_begin_full(1, 3 * FILE_DISK);
    assert_ok(read_whole(2));
    block_names(true);
    assert_ok(read_whole(3));
    assert_ok(read_whole(4));
    int64_t failures = stat_get(STAT_BLOB_CACHE_FAILURES);
    assert_ok(read_range(5, 0, 1));
    assert_int_equal(stat_get(STAT_BLOB_CACHE_FAILURES) - failures, 1);
    io_sim_clock_advance(io, 11 * NS_PER_SECOND);
    assert_ok(read_range(5, 0, 1));
    memory.requests = 0;
    assert_ok(read_range(5, 0, 1));
    assert_int_equal(memory.requests, 0);
    assert_true(is_kept(4));
    assert_int_equal(stat_get(STAT_BLOB_CACHE_FAILURES) - failures, 1);
    assert_false(is_kept(3));
    block_names(false);
    world_end();
}

/* What is doubted is not read again, though it is there; and kept again once it can be removed. */
static void test_a_doubt_on_a_disk_that_cannot_unlink(void **state)
{
    world_begin_full(1, 100 * FILE_DISK);
    memory.flips_next = true;
    struct blob_handle *handle;
    uint8_t bytes[3000];
    assert_ok(blob_open(cache, keys[6], &handle));
    assert_ok(blob_read(handle, 0, bytes, sizeof bytes));
    blob_handle_close(handle);
    assert_memory_not_equal(bytes, memory.bytes[6], sizeof bytes);
    block_names(true);
    int64_t failures = stat_get(STAT_BLOB_CACHE_FAILURES);
    assert_true(blob_doubt(cache, keys[6]));
    assert_ok(read_whole(6));
    assert_false(is_kept(6));
    assert_int_equal(stat_get(STAT_BLOB_CACHE_FAILURES) - failures, 1);
    block_names(false);
    io_sim_clock_advance(io, 11 * NS_PER_SECOND);
    assert_ok(read_whole(6));
    assert_true(is_kept(6));
    assert_int_equal(disk_bytes(), 12 * FILE_DISK);
    world_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_least_used_goes),
        cmocka_unit_test(test_foreign_files_stay),
        cmocka_unit_test(test_a_file_that_a_start_cannot_remove),
        cmocka_unit_test(test_a_full_disk),
        cmocka_unit_test(test_the_floor_of_free_space),
        cmocka_unit_test(test_the_floor_is_seen_without_puts),
        cmocka_unit_test(test_what_lacks_is_given_back),
        cmocka_unit_test(test_a_disk_that_cannot_unlink),
        cmocka_unit_test(test_one_file_that_cannot_be_removed),
        cmocka_unit_test(test_a_doubt_on_a_disk_that_cannot_unlink),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
