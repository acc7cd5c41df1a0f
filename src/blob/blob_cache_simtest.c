/* Goal: a cache on a simulated disk never changes what a store answers, whatever becomes of that disk. Method: a
 * store in memory that fails only when told to, and behind the cache a disk that is crashed at every call,
 * failed at every call, filled and rotten; every byte that is read is compared with what the store holds. */
#include "sim/cache_world.h"

#define OPERATIONS 40

/* ---- what is done at random ---- */

static bool puts_others; /* an object that is put again has other bytes: what is out of date is seen */

static err operate(struct test_random *r)
{
    size_t key = test_random_below(r, KEYS), size = memory.sizes[key];
    uint64_t from = test_random_below(r, size + 1);
    switch (test_random_below(r, 10)) {
    case 0:
        memory.versions[key] += puts_others;
        if (!memory.is_there[key])
            return key % 2 == 0 ? blob_put(cache, keys[key], content(key)) : put_file(key, blob_put_file);
        return key % 2 == 0 ? blob_replace(cache, keys[key], content(key)) : put_file(key, blob_replace_file);
    case 1:
        assert_int_equal(blob_doubt(cache, keys[key]), is_immutable(keys[key]));
        return OK;
    case 2:
        return memory.is_there[key] ? blob_delete(cache, keys[key]) : OK;
    case 3:
        return memory.is_there[key] ? get_whole(key) : OK;
    case 4:
        return memory.is_there[key] ? read_whole(key) : OK;
    default:
        return memory.is_there[key] ? read_range(key, from, test_random_below(r, size - from + 1)) : OK;
    }
}

/* Objects are put, read, deleted at random through a cache of 12 blocks. The error of the first that fails. */
static err workload(uint64_t seed)
{
    struct test_random r = { seed };
    TRY(open_cache(12 * FILE_DISK));
    for (size_t key = 0; key < KEYS; key++)
        TRY(key % 2 == 0 ? blob_put(cache, keys[key], content(key)) : put_file(key, blob_put_file));
    for (int i = 0; i < OPERATIONS; i++)
        TRY(operate(&r));
    return OK;
}

static void bytes_are_right(void)
{
    for (size_t key = 0; key < KEYS; key++) {
        assert_err(memory.is_there[key] ? OK : ERR_NOT_FOUND, blob_size(cache, keys[key], &(uint64_t){ 0 }));
        if (!memory.is_there[key])
            continue;
        assert_ok(get_whole(key));
        assert_ok(read_whole(key));
    }
}

static void all_is_right(void)
{
    bytes_are_right();
    assert_true(disk_bytes() <= 12 * FILE_DISK);
    assert_int_equal(disk_bytes(), stat_get(STAT_BLOB_CACHE_BYTES));
}

/* ---- tests ---- */

static void test_a_hit_asks_nothing(void **state)
{
    world_begin(1);
    assert_ok(open_cache(1000 * FILE_DISK));
    for (size_t key = 0; key < KEYS; key++)
        assert_ok(key % 2 == 0 ? blob_put(cache, keys[key], content(key)) : put_file(key, blob_put_file));
    for (int turn = 0; turn < 2; turn++) {
        memory.requests = 0;
        for (size_t key = 1; key < KEYS; key++) {
            assert_ok(get_whole(key));
            assert_ok(read_whole(key));
        }
        assert_int_equal(memory.requests, 0);
        memory.fails = ERR_TIMEOUT; /* the store is away */
        assert_ok(get_whole(6));
        assert_err(ERR_TIMEOUT, get_whole(0));
        memory.fails = OK;
        close_cache();
        assert_ok(open_cache(1000 * FILE_DISK)); /* the same after a start */
    }
    world_end();
}

static void test_chains_are_not_kept(void **state)
{
    world_begin_full(1, 1000 * FILE_DISK);
    for (int i = 0; i < 3; i++) {
        memory.requests = 0;
        assert_ok(read_whole(0));
        assert_ok(get_whole(0));
        assert_true(memory.requests >= 2);
        assert_int_equal(disk_bytes(), 0);
    }
    world_end();
}

static void test_neighbours_come_in_one_request(void **state)
{
    world_begin_full(1, 1000 * FILE_DISK);
    assert_ok(read_range(7, 5 * BLOCK + 1, 1));
    memory.requests = 0;
    int64_t misses = stat_get(STAT_BLOB_CACHE_MISSES), hits = stat_get(STAT_BLOB_CACHE_HITS);
    assert_ok(read_range(7, BLOCK - 1, 8 * BLOCK)); /* blocks 0 to 8, of which 5 is kept */
    assert_int_equal(memory.requests, 3);           /* open, 0 to 4, 6 to 8 */
    assert_int_equal(stat_get(STAT_BLOB_CACHE_MISSES) - misses, 8);
    assert_int_equal(stat_get(STAT_BLOB_CACHE_HITS) - hits, 1);
    memory.requests = 0;
    int64_t bytes = stat_get(STAT_BLOB_CACHE_HIT_BYTES);
    assert_ok(read_range(7, BLOCK - 1, 8 * BLOCK));
    assert_int_equal(memory.requests, 0);
    assert_int_equal(stat_get(STAT_BLOB_CACHE_HIT_BYTES) - bytes, 8 * BLOCK);
    struct blob_handle *handle;
    uint8_t byte;
    assert_ok(blob_open(cache, keys[7], &handle));
    assert_ok(blob_read(handle, BYTES_MAX, &byte, 0));
    assert_err(ERR_END, blob_read(handle, BYTES_MAX, &byte, 1));
    assert_err(ERR_END, blob_read(handle, UINT64_MAX, &byte, 2));
    blob_handle_close(handle);
    assert_err(ERR_LIMIT, blob_get(cache, keys[7], BYTES_MAX - 1, root, &(struct slice){ 0 }));
    world_end();
}

/* Every bit of every file of an object, read whole: found, counted, fetched again, right. */
static void test_rot(void **state)
{
    world_begin_full(test_random_begin("rot").state, 1000 * FILE_DISK);
    struct test_random r = { 7 };
    struct io_dir_entry *names;
    size_t count;
    assert_ok(read_whole(6));
    assert_ok(read_whole(2));
    assert_ok(io_dir_list(io, DIRECTORY, root, &names, &count));
    assert_int_equal(count, 13);
    for (size_t i = 0; i < count; i++) {
        char path[200];
        uint64_t size;
        snprintf(path, sizeof path, DIRECTORY "/%s", names[i].name);
        assert_ok(io_path_size(io, path, &size, NULL));
        for (uint64_t bit = i == 0 ? 0 : test_random_below(&r, 100); bit < 8 * size;
             bit += i == 0 ? 1 : 1 + test_random_below(&r, 200)) {
            int64_t damaged = stat_get(STAT_BLOB_CACHE_DAMAGED);
            assert_ok(io_sim_flip(io, path, bit));
            assert_ok(bit % 2 == 0 ? read_whole(6) : get_whole(6));
            assert_ok(read_whole(2));
            if (stat_get(STAT_BLOB_CACHE_DAMAGED) != damaged + 1)
                fail_msg("bit %llu of %s: %lld", (unsigned long long)bit, path,
                         (long long)(stat_get(STAT_BLOB_CACHE_DAMAGED) - damaged));
        }
        assert_true(is_kept(6) && is_kept(2));
    }
    world_end();
}

/* Whole and rightly checksummed, under another's name. */
static void test_changed_names(void **state)
{
    world_begin_full(1, 1000 * FILE_DISK);
    struct io_dir_entry *names;
    size_t count;
    char from[200], to[200];
    assert_ok(read_whole(6));
    assert_ok(read_whole(7));
    assert_ok(io_dir_list(io, DIRECTORY, root, &names, &count));
    snprintf(from, sizeof from, DIRECTORY "/%s", names[0].name);
    for (size_t i = 1; i < count; i++) {
        snprintf(to, sizeof to, DIRECTORY "/%s", names[i].name);
        struct slice bytes;
        assert_ok(io_sim_bytes(io, from, &bytes));
        assert_ok(io_unlink(io, to));
        struct io_file *file;
        assert_ok(io_file_open(io, to, IO_CREATE, &file));
        assert_ok(io_file_write(file, 0, bytes));
        io_file_close(file);
    }
    int64_t damaged = stat_get(STAT_BLOB_CACHE_DAMAGED);
    assert_ok(read_whole(6));
    assert_ok(read_whole(7));
    assert_int_equal(stat_get(STAT_BLOB_CACHE_DAMAGED) - damaged, count - 1);
    world_end();
}

static void doubt_6(void) { assert_true(blob_doubt(cache, keys[6])); }

static void test_what_is_wrong_is_forgotten(void **state)
{
    static const struct slice other = { (const uint8_t *)"other", 5 };
    world_begin_full(1, 1000 * FILE_DISK);
    struct blob_handle *handle;
    uint8_t bytes[3000];
    memory.flips_next = true; /* the store's mistake is kept … */
    assert_ok(blob_open(cache, keys[6], &handle));
    assert_ok(blob_read(handle, 0, bytes, sizeof bytes));
    assert_memory_not_equal(bytes, memory.bytes[6], sizeof bytes);
    assert_ok(blob_read(handle, 0, bytes, sizeof bytes));
    assert_memory_not_equal(bytes, memory.bytes[6], sizeof bytes);
    assert_true(blob_doubt(cache, keys[6])); /* … until somebody says so */
    assert_ok(blob_read(handle, 0, bytes, sizeof bytes));
    assert_memory_equal(bytes, memory.bytes[6], sizeof bytes);
    assert_true(is_kept(6));
    assert_true(blob_doubt(cache, keys[6]));
    memory.flips_next = true;
    memory.meanwhile = doubt_6; /* while it is fetched: that is not kept */
    assert_ok(blob_read(handle, 0, bytes, sizeof bytes));
    assert_ok(blob_read(handle, 0, bytes, sizeof bytes));
    assert_memory_equal(bytes, memory.bytes[6], sizeof bytes);
    blob_handle_close(handle);
    assert_true(is_kept(6) && disk_bytes() == 12 * FILE_DISK);
    memory.meanwhile = doubt_6; /* which is nothing to others */
    assert_ok(read_whole(7));
    assert_true(is_kept(7) && !is_kept(6));
    assert_ok(blob_delete(cache, keys[7]));
    assert_ok(blob_replace(cache, keys[6], other));
    assert_int_equal(disk_bytes(), 0);
    assert_ok(read_whole(6));
    assert_ok(blob_delete(cache, keys[6]));
    assert_err(ERR_NOT_FOUND, get_whole(6));
    assert_int_equal(disk_bytes(), 0);
    world_end();
}

/* A directory's handle may have the file of before: what it gives is not kept once the object was forgotten,
 * and asked for anew. */
static void test_a_handle_from_before(void **state)
{
    struct blob_cache_config config = config_of(100 * FILE_DISK);
    struct blob *directory;
    struct blob_handle *handle;
    uint8_t bytes[BYTES_MAX];
    world_begin(1);
    assert_ok(blob_open_dir("blob", io, root, &directory));
    assert_ok(blob_put(directory, keys[7], content(7)));
    assert_false(blob_doubt(directory, keys[7]));
    assert_ok(blob_open_cached(directory, &config, io, root, &cache, &(struct err_at){ 0 }));
    assert_ok(blob_open(cache, keys[7], &handle));
    assert_ok(blob_read(handle, 0, bytes, 1));
    memory.versions[7]++;
    assert_ok(blob_replace(cache, keys[7], content(7)));
    for (int i = 0; i < 2; i++) {
        assert_ok(blob_read(handle, 0, bytes, sizes[7]));
        assert_memory_equal(bytes, content(7).at, sizes[7]);
        blob_handle_close(handle);
        if (i == 0)
            assert_ok(blob_open(cache, keys[7], &handle));
    }
    world_end();
}

/* Another process replaced it by an object of another size. */
static void test_another_size(void **state)
{
    world_begin_full(1, 1000 * FILE_DISK);
    struct blob_handle *handle;
    uint8_t bytes[3000];
    assert_ok(read_range(6, 0, 10));
    assert_ok(memory_replace(&memory.base, keys[6], content(7)));
    assert_ok(blob_open(cache, keys[6], &handle));
    assert_int_equal(3000, blob_handle_size(handle));
    assert_ok(blob_read(handle, 0, bytes, 10));
    assert_err(ERR_CONFLICT, blob_read(handle, 0, bytes, 3000));
    blob_handle_close(handle);
    assert_ok(read_whole(6));
    world_end();
}

static void test_the_store_fails(void **state)
{
    world_begin_full(1, 1000 * FILE_DISK);
    assert_ok(read_range(7, 0, 3 * BLOCK));
    memory.fails = ERR_DENIED;
    assert_ok(read_range(7, 0, 3 * BLOCK));
    assert_err(ERR_DENIED, read_range(7, 0, 3 * BLOCK + 1));
    assert_err(ERR_DENIED, read_range(6, 0, 1));
    assert_err(ERR_DENIED, get_whole(7));
    assert_err(ERR_DENIED, blob_put(cache, keys[6], content(6)));
    assert_err(ERR_DENIED, blob_size(cache, keys[7], &(uint64_t){ 0 }));
    assert_err(ERR_DENIED, blob_list(cache, "p000", root, &(struct blob_entry *){ NULL }, &(size_t){ 0 }));
    memory.fails = OK;
    assert_err(ERR_EXISTS, blob_put(cache, keys[6], content(6)));
    assert_int_equal(disk_bytes(), 3 * FILE_DISK);
    assert_ok(read_whole(7));
    world_end();
}

static void test_crash_at_every_call(void **state)
{
    uint64_t seed = test_random_begin("crash").state, states = 0;
    int64_t damaged = stat_get(STAT_BLOB_CACHE_DAMAGED);
    bool was_down = true;
    for (uint64_t call = 1; was_down; call++)
        for (int keep = -1; keep < IO_SIM_KEEP_COUNT; keep++) {
            world_begin(seed);
            io_sim_crash_at_call(io, call);
            err e = workload(seed);
            was_down = io_sim_is_down(io);
            if (cache == NULL) /* it was to be opened */
                assert_err(ERR_IO, e);
            else
                assert_ok(e);
            close_cache();
            if (keep < 0)
                io_sim_kill(io);
            else
                io_sim_crash(io, (enum io_sim_keep)keep, seed ^ call);
            assert_ok(open_cache(12 * FILE_DISK));
            all_is_right();
            world_end();
            states++;
        }
    damaged = stat_get(STAT_BLOB_CACHE_DAMAGED) - damaged;
    printf("# %llu crash states, %lld damaged blocks in them\n", (unsigned long long)states,
           (long long)damaged);
    assert_true(damaged > 0);
}

static void test_fail_every_call(void **state)
{
    static const err errors[] = { ERR_IO, ERR_SPACE };
    uint64_t seed = test_random_begin("fail").state, failures = 0;
    for (size_t i = 0; i < 8; i++) {
        bool failed = true;
        puts_others = i >= 4;
        for (uint64_t call = 1; failed; call++) {
            world_begin(seed);
            io_sim_fault_at(io, call, i % 4 >= 2, errors[i % 2]);
            err e = workload(seed);
            failed = io_sim_faults(io) != 0;
            failures += io_sim_faults(io);
            if (cache == NULL)
                assert_true(e == ERR_IO || e == ERR_SPACE);
            else
                assert_ok(e);
            io_sim_fault_at(io, 0, false, ERR_IO);
            if (cache != NULL) {
                struct test_random r = { seed };
                for (int k = 0; k < OPERATIONS; k++) /* the same cache, on a disk that works again */
                    assert_ok(operate(&r));
                bytes_are_right();
            }
            close_cache();
            assert_ok(open_cache(12 * FILE_DISK));
            if (!puts_others) /* else what could not be removed comes back, and is of what was there before */
                all_is_right();
            world_end();
        }
    }
    puts_others = false;
    printf("# %llu failures\n", (unsigned long long)failures);
}

static void test_fail_every_allocation(void **state)
{
    err e = ERR_LIMIT;
    uint64_t nth = 1;
    puts_others = true;
    for (; nth < 100000; nth++) {
        world_begin(9);
        pool_fault_at(root, nth, nth % 2 == 0);
        e = workload(9);
        bool was_hit = pool_fault_count(root) >= nth;
        pool_fault_at(root, 0, false);
        close_cache();
        assert_ok(open_cache(12 * FILE_DISK));
        all_is_right();
        world_end();
        if (!was_hit)
            break;
        assert_true(e == OK || e == ERR_LIMIT); /* OK: only a copy was not kept */
    }
    puts_others = false;
    assert_ok(e);
    printf("# %llu allocations\n", (unsigned long long)nth);
}

static void test_bad_configuration(void **state)
{
    static const struct {
        struct blob_cache_config config;
        const char *part;
    } cases[] = {
        { { "", 1 << 20, 0, BLOCK, is_immutable }, "directory" },
        { { "c", 1 << 20, 0, 0, is_immutable }, "blocks of the cache" },
        { { "c", 1 << 20, 0, 255, is_immutable }, "blocks of the cache" },
        { { "c", 1 << 30, 0, (4 << 20) + 16, is_immutable }, "blocks of the cache" },
        { { "c", 2 * FILE_DISK - 1, 0, BLOCK, is_immutable }, "smaller than two" },
        { { "c", 1 << 20, 0, BLOCK, NULL }, "never change" },
    };
    world_begin(1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err_at at = { 0 };
        assert_err(ERR_INPUT, blob_open_cached(&memory.base, &cases[i].config, io, root, &cache, &at));
        assert_non_null(strstr(at.text, cases[i].part));
    }
    struct blob_cache_config config = config_of(1 << 20);
    config.directory = "not/there";
    assert_err(ERR_NOT_FOUND,
               blob_open_cached(&memory.base, &config, io, root, &cache, &(struct err_at){ 0 }));
    world_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hit_asks_nothing),
        cmocka_unit_test(test_chains_are_not_kept),
        cmocka_unit_test(test_neighbours_come_in_one_request),
        cmocka_unit_test(test_rot),
        cmocka_unit_test(test_changed_names),
        cmocka_unit_test(test_what_is_wrong_is_forgotten),
        cmocka_unit_test(test_a_handle_from_before),
        cmocka_unit_test(test_another_size),
        cmocka_unit_test(test_the_store_fails),
        cmocka_unit_test(test_crash_at_every_call),
        cmocka_unit_test(test_fail_every_call),
        cmocka_unit_test(test_fail_every_allocation),
        cmocka_unit_test(test_bad_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
