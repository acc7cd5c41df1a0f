/* Goal: a cache on a simulated disk never changes what a store answers, whatever becomes of that disk. Method: a
 * store in memory that fails only when told to, and behind the cache a disk that is crashed at every call,
 * failed at every call, filled and rotten; every byte that is read is compared with what the store holds. */
#include "base/test.h"

#include <string.h>

#include "base/stat.h"
#include "base/time.h"
#include "blob/blob.h"
#include "blob/blob_driver.h"
#include "blob/cache_files.h"
#include "sim/io_sim.h"

#define KEYS       8
#define BYTES_MAX  5000
#define BLOCK      256
#define FILE_DISK  4096 /* what the file of a block of BLOCK bytes takes */
#define DIRECTORY  "cache"
#define OPERATIONS 40

static const char *const keys[KEYS] = {
    "p000/chain/00000001", "p000/segment/aa", "p000/segment/bb", "p001/segment/cc",
    "p001/state/dd",       "p001/state/ee",   "p002/segment/ff", "p002/segment/gg",
};
static const size_t sizes[KEYS] = { 300, 0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3000, BYTES_MAX };

static bool is_immutable(const char *key) { return strstr(key, "/chain/") == NULL; }

/* ---- a store in memory ---- */

struct memory {
    struct blob base;
    struct io *io;
    bool is_there[KEYS];
    size_t sizes[KEYS];
    uint8_t bytes[KEYS][BYTES_MAX];
    int requests; /* but for puts */
    err fails;    /* what every call answers */
    bool flips_next;
    void (*meanwhile)(void); /* during the next read */
};

struct memory_handle {
    struct blob_handle base;
    size_t key;
};

static struct pool *root;
static struct memory memory;
static struct blob *cache;
static struct io *io;

static size_t index_of(const char *key)
{
    size_t i = 0;
    while (i < KEYS && strcmp(keys[i], key) != 0)
        i++;
    assert_true(i < KEYS);
    return i;
}

static err memory_put(struct blob *blob, const char *key, struct slice bytes)
{
    size_t i = index_of(key);
    if (memory.fails != OK || memory.is_there[i])
        return memory.fails != OK ? memory.fails : ERR_EXISTS;
    memory.is_there[i] = true;
    memory.sizes[i] = bytes.len;
    if (bytes.len > 0)
        memcpy(memory.bytes[i], bytes.at, bytes.len);
    return OK;
}

static err memory_replace(struct blob *blob, const char *key, struct slice bytes)
{
    memory.is_there[index_of(key)] = false;
    return memory_put(blob, key, bytes);
}

static uint8_t byte_of(size_t key, size_t i) { return (uint8_t)(key * 31 + i * 7 + i / 251); }

/* The bytes of a key as they are first. */
static struct slice content(size_t key)
{
    static uint8_t bytes[BYTES_MAX];
    for (size_t i = 0; i < sizes[key]; i++)
        bytes[i] = byte_of(key, i);
    return slice_of(bytes, sizes[key]);
}

/* Takes its bytes from elsewhere, so that the simulated disk's failures are the cache's alone. */
static err memory_put_file(struct blob *blob, const char *key, const char *temp_path)
{
    TRY(memory_put(blob, key, content(index_of(key))));
    ERR_IGNORE(io_unlink(memory.io, temp_path));
    return OK;
}

static err memory_replace_file(struct blob *blob, const char *key, const char *temp_path)
{
    memory.is_there[index_of(key)] = false;
    return memory_put_file(blob, key, temp_path);
}

static err asked(const char *key)
{
    memory.requests++;
    return memory.fails != OK ? memory.fails : memory.is_there[index_of(key)] ? OK : ERR_NOT_FOUND;
}

static err memory_open(struct blob *blob, const char *key, struct blob_handle **out_handle)
{
    void *at;
    TRY(asked(key));
    TRY(pool_alloc(root, sizeof(struct memory_handle), &at));
    struct memory_handle *h = at;
    *h = (struct memory_handle){ .base = { blob, memory.sizes[index_of(key)] }, .key = index_of(key) };
    *out_handle = &h->base;
    return OK;
}

static void memory_handle_close(struct blob_handle *handle) { memset(handle, 0xdd, sizeof *handle); }

static err memory_read(struct blob_handle *handle, uint64_t offset, void *at, size_t len)
{
    size_t key = ((struct memory_handle *)handle)->key;
    void (*meanwhile)(void) = memory.meanwhile;
    TRY(asked(keys[key]));
    assert_true(offset + len <= memory.sizes[key]);
    memcpy(at, memory.bytes[key] + offset, len);
    if (memory.flips_next && len > 0)
        *(uint8_t *)at ^= 1;
    memory.flips_next = false;
    memory.meanwhile = NULL;
    if (meanwhile != NULL)
        meanwhile();
    return OK;
}

static err memory_size(struct blob *blob, const char *key, uint64_t *out_size)
{
    TRY(asked(key));
    *out_size = memory.sizes[index_of(key)];
    return OK;
}

static err memory_list(struct blob *blob, const char *prefix, struct pool *pool,
                       struct blob_entry **out_entries, size_t *out_count)
{
    *out_count = 0;
    return memory.fails;
}

static err memory_delete(struct blob *blob, const char *key)
{
    TRY(asked(key));
    memory.is_there[index_of(key)] = false;
    return OK;
}

static void memory_close(struct blob *blob) {}

static const struct blob_driver memory_driver = {
    .close = memory_close,
    .put = memory_put,
    .replace = memory_replace,
    .put_file = memory_put_file,
    .replace_file = memory_replace_file,
    .open_handle = memory_open,
    .handle_close = memory_handle_close,
    .read = memory_read,
    .size = memory_size,
    .list = memory_list,
    .delete_ = memory_delete,
};

/* ---- a world ---- */

static struct blob_cache_config config_of(uint64_t bytes_max)
{
    struct blob_cache_config config = blob_cache_defaults();
    config.directory = DIRECTORY;
    config.bytes_max = bytes_max;
    config.block_bytes = BLOCK;
    config.is_immutable = is_immutable;
    return config;
}

static err open_cache(uint64_t bytes_max)
{
    struct blob_cache_config config = config_of(bytes_max);
    struct err_at at;
    memory.base.driver = &memory_driver;
    memory.io = io;
    return blob_open_cached(&memory.base, &config, io, root, &cache, &at);
}

static void close_cache(void)
{
    blob_close(cache);
    cache = NULL;
}

static void world_begin(uint64_t seed)
{
    memset(&memory, 0, sizeof memory);
    cache = NULL;
    assert_ok(io_sim_open(seed, &io));
    root = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
}

static void world_end(void)
{
    close_cache();
    assert_int_equal(0, stat_get(STAT_BLOB_CACHE_BYTES));
    pool_close(root);
    io_close(io);
}

/* A world with objects in the store, none in the cache. */
static void world_begin_full(uint64_t seed, uint64_t bytes_max)
{
    world_begin(seed);
    for (size_t key = 0; key < KEYS; key++)
        assert_ok(memory_put(&memory.base, keys[key], content(key)));
    assert_ok(open_cache(bytes_max));
}

/* What the cache's files take of the disk. */
static uint64_t disk_bytes(void)
{
    struct io_dir_entry *names;
    size_t count;
    uint64_t sum = 0;
    assert_ok(io_dir_list(io, DIRECTORY, root, &names, &count));
    for (size_t i = 0; i < count; i++) {
        char path[200];
        uint64_t size;
        snprintf(path, sizeof path, DIRECTORY "/%s", names[i].name);
        assert_ok(io_path_size(io, path, &size, NULL));
        sum += (size + FILE_DISK - 1) / FILE_DISK * FILE_DISK;
    }
    return sum;
}

/* ---- what is done, and compared ---- */

static err read_range(size_t key, uint64_t from, size_t len)
{
    static uint8_t bytes[BYTES_MAX];
    struct blob_handle *handle;
    TRY(blob_open(cache, keys[key], &handle));
    assert_int_equal(memory.sizes[key], blob_handle_size(handle));
    err e = blob_read(handle, from, bytes, len);
    blob_handle_close(handle);
    if (e == OK && memcmp(bytes, memory.bytes[key] + from, len) != 0)
        fail_msg("wrong bytes of %s from %llu, %zu", keys[key], (unsigned long long)from, len);
    return e;
}

static err read_whole(size_t key) { return read_range(key, 0, memory.sizes[key]); }

static err get_whole(size_t key)
{
    struct slice bytes;
    struct pool *pool = pool_open(root, "get", POOL_BYTES_UNLIMITED);
    err e = blob_get(cache, keys[key], BYTES_MAX, pool, &bytes);
    if (e == OK)
        assert_true(slice_equal(bytes, slice_of(memory.bytes[key], memory.sizes[key])) &&
                    bytes.at[bytes.len] == 0);
    pool_close(pool);
    return e;
}

/* ERR_LIMIT where memory is refused, else OK; the builder's own failures are its own. */
static err put_file(size_t key, err (*put)(struct blob *blob, const char *key, const char *temp_path))
{
    struct io_file *file = NULL;
    ERR_IGNORE(io_unlink(io, "built"));
    if (io_file_open(io, "built", IO_CREATE, &file) != OK)
        return OK;
    err e = io_file_write(file, 0, content(key));
    io_file_close(file);
    return e == OK ? put(cache, keys[key], "built") : OK;
}

static err operate(struct test_random *r)
{
    size_t key = test_random_below(r, KEYS), size = memory.sizes[key];
    uint64_t from = test_random_below(r, size + 1);
    switch (test_random_below(r, 10)) {
    case 0:
        if (!memory.is_there[key])
            return key % 2 == 0 ? blob_put(cache, keys[key], content(key)) : put_file(key, blob_put_file);
        return key % 2 == 0 ? blob_replace(cache, keys[key], content(key)) : put_file(key, blob_replace_file);
    case 1:
        return blob_doubt(cache, keys[key]);
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

static void all_is_right(void)
{
    for (size_t key = 0; key < KEYS; key++) {
        assert_err(memory.is_there[key] ? OK : ERR_NOT_FOUND, blob_size(cache, keys[key], &(uint64_t){ 0 }));
        if (!memory.is_there[key])
            continue;
        assert_ok(get_whole(key));
        assert_ok(read_whole(key));
    }
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

static bool is_kept(size_t key)
{
    memory.requests = 0;
    assert_ok(read_whole(key));
    return memory.requests == 0;
}

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

static void doubt_6(void) { assert_ok(blob_doubt(cache, keys[6])); }

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
    assert_ok(blob_doubt(cache, keys[6])); /* … until somebody says so */
    assert_ok(blob_read(handle, 0, bytes, sizeof bytes));
    assert_memory_equal(bytes, memory.bytes[6], sizeof bytes);
    assert_true(is_kept(6));
    assert_ok(blob_doubt(cache, keys[6]));
    memory.flips_next = true;
    memory.meanwhile = doubt_6; /* while it is fetched: that is not kept */
    assert_ok(blob_read(handle, 0, bytes, sizeof bytes));
    assert_ok(blob_read(handle, 0, bytes, sizeof bytes));
    assert_memory_equal(bytes, memory.bytes[6], sizeof bytes);
    blob_handle_close(handle);
    assert_true(is_kept(6) && disk_bytes() == 12 * FILE_DISK);
    assert_ok(blob_replace(cache, keys[6], other));
    assert_int_equal(disk_bytes(), 0);
    assert_ok(read_whole(6));
    assert_ok(blob_delete(cache, keys[6]));
    assert_err(ERR_NOT_FOUND, get_whole(6));
    assert_int_equal(disk_bytes(), 0);
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
    for (size_t i = 0; i < 4; i++) {
        bool failed = true;
        for (uint64_t call = 1; failed; call++) {
            world_begin(seed);
            io_sim_fault_at(io, call, i >= 2, errors[i % 2]);
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
            }
            close_cache();
            assert_ok(open_cache(12 * FILE_DISK));
            all_is_right();
            world_end();
        }
    }
    printf("# %llu failures\n", (unsigned long long)failures);
}

static void test_fail_every_allocation(void **state)
{
    err e = ERR_LIMIT;
    uint64_t nth = 1;
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
        cmocka_unit_test(test_the_least_used_goes),
        cmocka_unit_test(test_foreign_files_stay),
        cmocka_unit_test(test_a_file_that_a_start_cannot_remove),
        cmocka_unit_test(test_rot),
        cmocka_unit_test(test_changed_names),
        cmocka_unit_test(test_what_is_wrong_is_forgotten),
        cmocka_unit_test(test_another_size),
        cmocka_unit_test(test_the_store_fails),
        cmocka_unit_test(test_a_full_disk),
        cmocka_unit_test(test_the_floor_of_free_space),
        cmocka_unit_test(test_crash_at_every_call),
        cmocka_unit_test(test_fail_every_call),
        cmocka_unit_test(test_fail_every_allocation),
        cmocka_unit_test(test_bad_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
