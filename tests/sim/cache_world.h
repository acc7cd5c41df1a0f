/* Test only: a cache on a simulated disk in front of a store in memory, which fails only when told to. Every
 * byte that is read through the cache is compared with what the store holds. */
#ifndef SIM_CACHE_WORLD_H
#define SIM_CACHE_WORLD_H

#include "base/test.h"

#include <string.h>

#include "base/stat.h"
#include "base/time.h"
#include "blob/blob.h"
#include "blob/blob_driver.h"
#include "blob/cache_files.h"
#include "sim/io_sim.h"

#define KEYS      8
#define BYTES_MAX 5000
#define BLOCK     256
#define FILE_DISK 4096 /* what the file of a block of BLOCK bytes takes */
#define DIRECTORY "cache"

static const char *const keys[KEYS] = {
    "p000/chain/00000001", "p000/segment/aa", "p000/segment/bb", "p001/segment/cc",
    "p001/state/dd",       "p001/state/ee",   "p002/segment/ff", "p002/segment/gg",
};
static const size_t sizes[KEYS] = { 300, 0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3000, BYTES_MAX }; /* 38 blocks */

static bool is_immutable(const char *key) { return strstr(key, "/chain/") == NULL; }

/* ---- a store in memory ---- */

struct memory {
    struct blob base;
    struct io *io;
    bool is_there[KEYS];
    size_t sizes[KEYS];
    uint8_t bytes[KEYS][BYTES_MAX];
    unsigned versions[KEYS]; /* of the bytes that are put next */
    int requests;            /* but for puts */
    err fails;               /* what every call answers */
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

static uint8_t byte_of(size_t key, size_t i)
{
    return (uint8_t)(key * 31 + i * 7 + i / 251 + memory.versions[key] * 101);
}

/* The bytes of a key that are put next. */
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

static inline struct blob_cache_config config_of(uint64_t bytes_max)
{
    struct blob_cache_config config = blob_cache_defaults();
    config.directory = DIRECTORY;
    config.bytes_max = bytes_max;
    config.block_bytes = BLOCK;
    config.is_immutable = is_immutable;
    return config;
}

static inline err open_cache(uint64_t bytes_max)
{
    struct blob_cache_config config = config_of(bytes_max);
    struct err_at at;
    memory.base.driver = &memory_driver;
    memory.io = io;
    return blob_open_cached(&memory.base, &config, io, root, &cache, &at);
}

static inline void close_cache(void)
{
    blob_close(cache);
    cache = NULL;
}

static inline void world_begin(uint64_t seed)
{
    memset(&memory, 0, sizeof memory);
    cache = NULL;
    assert_ok(io_sim_open(seed, &io));
    root = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
}

static inline void world_end(void)
{
    close_cache();
    assert_int_equal(0, stat_get(STAT_BLOB_CACHE_BYTES));
    pool_close(root);
    io_close(io);
}

/* A world with objects in the store, none in the cache. */
static inline void world_begin_full(uint64_t seed, uint64_t bytes_max)
{
    world_begin(seed);
    for (size_t key = 0; key < KEYS; key++)
        assert_ok(memory_put(&memory.base, keys[key], content(key)));
    assert_ok(open_cache(bytes_max));
}

/* What the cache's files take of the disk. */
static inline uint64_t disk_bytes(void)
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

static inline err read_range(size_t key, uint64_t from, size_t len)
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

static inline err read_whole(size_t key) { return read_range(key, 0, memory.sizes[key]); }

static inline err get_whole(size_t key)
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
static inline err put_file(size_t key, err (*put)(struct blob *blob, const char *key, const char *temp_path))
{
    struct io_file *file = NULL;
    ERR_IGNORE(io_unlink(io, "built"));
    if (io_file_open(io, "built", IO_CREATE, &file) != OK)
        return OK;
    err e = io_file_write(file, 0, content(key));
    io_file_close(file);
    return e == OK ? put(cache, keys[key], "built") : OK;
}

/* Is all of it read without a request? */
static inline bool is_kept(size_t key)
{
    memory.requests = 0;
    assert_ok(read_whole(key));
    return memory.requests == 0;
}

#endif
