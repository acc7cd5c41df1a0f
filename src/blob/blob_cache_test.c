/* The cache on the system, with threads: objects are read at random through a cache that holds a third of them,
 * while others doubt them, and delete one and put it again, each time with other bytes. Run under ThreadSanitizer
 * too. */
#include "base/test.h"

#include <stdatomic.h>
#include <string.h>

#include "base/stat.h"
#include "blob/blob.h"
#include "io/io.h"
#include "io/thread.h"

#define OBJECTS      24
#define BLOCK        4096
#define OBJECT_BYTES (10 * BLOCK + 77)
#define READERS      4
#define TURNS        2000
#define CACHE_BYTES  (OBJECTS * 11 * (BLOCK + 4096) / 3)

static struct blob *blob;
static struct io *io;
static _Atomic uint64_t next_seed;
static _Atomic bool is_wrong;
static _Atomic unsigned put_begun, put_done; /* versions of the last object */

static bool is_immutable(const char *key) { return true; }

static uint8_t byte_of(unsigned object, unsigned version, uint64_t i)
{
    return (uint8_t)(object * 31 + version * 101 + i * 7 + i / 251);
}

static void key_of(unsigned object, char out[32]) { snprintf(out, 32, "p000/segment/%02u", object); }

static void fill(unsigned object, unsigned version, uint8_t *out)
{
    for (size_t i = 0; i < OBJECT_BYTES; i++)
        out[i] = byte_of(object, version, i);
}

/* Are these the object's bytes from `from` on, of a version that there was meanwhile? */
static bool are_bytes_of(unsigned object, unsigned first, unsigned last, uint64_t from, const uint8_t *bytes,
                         size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned version = first;
        while (version <= last && bytes[i] != byte_of(object, version, from + i))
            version++;
        if (version > last)
            return false;
    }
    return true;
}

/* The last object comes and goes. */
static bool is_fine(unsigned object, err e)
{
    return e == OK || (object == OBJECTS - 1 && e == ERR_NOT_FOUND);
}

static void run_reader(void *context)
{
    static _Thread_local uint8_t bytes[3 * BLOCK];
    struct test_random r = { atomic_fetch_add(&next_seed, 1) };
    for (int turn = 0; turn < TURNS; turn++) {
        unsigned object = (unsigned)test_random_below(&r, OBJECTS);
        uint64_t from = test_random_below(&r, OBJECT_BYTES - sizeof bytes);
        size_t len = 1 + test_random_below(&r, sizeof bytes);
        char key[32];
        struct blob_handle *handle;
        key_of(object, key);
        unsigned first = object == OBJECTS - 1 ? put_done : 0;
        err e = blob_open(blob, key, &handle);
        if (e == OK) {
            e = blob_read(handle, from, bytes, len);
            unsigned last = object == OBJECTS - 1 ? put_begun : 0;
            if (e == OK && !are_bytes_of(object, first, last, from, bytes, len))
                is_wrong = true;
            blob_handle_close(handle);
        }
        if (!is_fine(object, e))
            is_wrong = true;
        if (turn % 50 == 0 && !blob_doubt(blob, key))
            is_wrong = true;
    }
}

static void run_writer(void *context)
{
    static uint8_t bytes[OBJECT_BYTES];
    char key[32];
    key_of(OBJECTS - 1, key);
    for (unsigned version = 1; version <= TURNS / 10; version++) {
        fill(OBJECTS - 1, version, bytes);
        put_begun = version;
        if (blob_delete(blob, key) != OK || blob_put(blob, key, slice_of(bytes, sizeof bytes)) != OK)
            is_wrong = true;
        put_done = version;
    }
}

/* While the disk has too little, and nobody puts. */
static void run_tender(void *context)
{
    for (int turn = 0; turn < TURNS / 10; turn++)
        blob_tend(blob);
}

static struct pool *pool;
static int64_t bad_before;

static int64_t bad_now(void)
{
    return stat_get(STAT_BLOB_CACHE_DAMAGED) + stat_get(STAT_BLOB_CACHE_FAILURES);
}

static void open_cache(uint64_t free_bytes_min)
{
    struct blob *inner;
    struct blob_cache_config config = blob_cache_defaults();
    config.directory = "cache";
    config.block_bytes = BLOCK;
    config.bytes_max = CACHE_BYTES;
    config.free_bytes_min = free_bytes_min;
    config.is_immutable = is_immutable;
    assert_ok(blob_open_dir("blob", io, pool, &inner));
    assert_ok(blob_open_cached(inner, &config, io, pool, &blob, &(struct err_at){ 0 }));
}

/* A store with all objects, and a third of them in the cache. */
static void begin(void)
{
    static uint8_t bytes[OBJECT_BYTES];
    char path[] = "/tmp/blob_cache_test_XXXXXX", key[32];
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    next_seed = test_random_begin("threads").state;
    put_begun = put_done = 0;
    assert_non_null(mkdtemp(path));
    assert_ok(io_open(path, &io));
    open_cache(0);
    for (unsigned i = 0; i < OBJECTS; i++) {
        key_of(i, key);
        fill(i, 0, bytes);
        assert_ok(blob_put(blob, key, slice_of(bytes, sizeof bytes)));
    }
    bad_before = bad_now();
}

static void end(void)
{
    assert_false(is_wrong);
    assert_int_equal(bad_before, bad_now());
    blob_close(blob);
    pool_close(pool);
    io_close(io);
}

/* Readers, and one that does something else. */
static void run_threads(void (*run_other)(void *context))
{
    struct io_thread *threads[READERS + 1];
    for (int i = 0; i <= READERS; i++)
        assert_ok(io_thread_start(io, "test", i < READERS ? run_reader : run_other, NULL, &threads[i]));
    for (int i = 0; i <= READERS; i++)
        io_thread_join(threads[i]);
}

static void test_threads(void **state)
{
    begin();
    int64_t hits = stat_get(STAT_BLOB_CACHE_HITS), evictions = stat_get(STAT_BLOB_CACHE_EVICTIONS);
    run_threads(run_writer);
    assert_true(stat_get(STAT_BLOB_CACHE_HITS) > hits && stat_get(STAT_BLOB_CACHE_EVICTIONS) > evictions);
    assert_true(stat_get(STAT_BLOB_CACHE_BYTES) > 0 && stat_get(STAT_BLOB_CACHE_BYTES) <= CACHE_BYTES);
    end();
}

static void test_threads_on_a_full_disk(void **state)
{
    begin();
    blob_close(blob);
    open_cache(UINT64_MAX);
    assert_true(stat_get(STAT_BLOB_CACHE_BYTES) > CACHE_BYTES / 2);
    run_threads(run_tender);
    blob_tend(blob); /* what was read, or put, while it was given back */
    assert_int_equal(stat_get(STAT_BLOB_CACHE_BYTES), 0);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_threads_on_a_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
