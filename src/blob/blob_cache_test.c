/* The cache on the system, with threads: objects are read at random through a cache that holds a third of them,
 * while others doubt, delete and put them again. Run under ThreadSanitizer too. */
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

static struct blob *blob;
static struct io *io;
static _Atomic uint64_t next_seed;
static _Atomic bool is_wrong;

static bool is_immutable(const char *key) { return true; }

static uint8_t byte_of(unsigned object, uint64_t i) { return (uint8_t)(object * 31 + i * 7 + i / 251); }

static void key_of(unsigned object, char out[32]) { snprintf(out, 32, "p000/segment/%02u", object); }

static void fill(unsigned object, uint8_t *out)
{
    for (size_t i = 0; i < OBJECT_BYTES; i++)
        out[i] = byte_of(object, i);
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
        err e = blob_open(blob, key, &handle);
        if (e == OK) {
            e = blob_read(handle, from, bytes, len);
            for (size_t i = 0; e == OK && i < len; i++)
                if (bytes[i] != byte_of(object, from + i))
                    is_wrong = true;
            blob_handle_close(handle);
        }
        if (!is_fine(object, e))
            is_wrong = true;
        if (turn % 50 == 0 && blob_doubt(blob, key) != OK)
            is_wrong = true;
    }
}

static void run_writer(void *context)
{
    static uint8_t bytes[OBJECT_BYTES];
    char key[32];
    key_of(OBJECTS - 1, key);
    fill(OBJECTS - 1, bytes);
    for (int turn = 0; turn < TURNS / 10; turn++)
        if (blob_delete(blob, key) != OK || blob_put(blob, key, slice_of(bytes, sizeof bytes)) != OK)
            is_wrong = true;
}

static void test_threads(void **state)
{
    static uint8_t bytes[OBJECT_BYTES];
    char path[] = "/tmp/blob_cache_test_XXXXXX", key[32];
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct blob *inner;
    struct io_thread *threads[READERS + 1];
    next_seed = test_random_begin("threads").state;
    assert_non_null(mkdtemp(path));
    assert_ok(io_open(path, &io));
    assert_ok(blob_open_dir("blob", io, pool, &inner));
    struct blob_cache_config config = blob_cache_defaults();
    config.directory = "cache";
    config.block_bytes = BLOCK;
    config.bytes_max = OBJECTS * 11 * (BLOCK + 4096) / 3;
    config.is_immutable = is_immutable;
    assert_ok(blob_open_cached(inner, &config, io, pool, &blob, &(struct err_at){ 0 }));
    for (unsigned i = 0; i < OBJECTS; i++) {
        key_of(i, key);
        fill(i, bytes);
        assert_ok(blob_put(blob, key, slice_of(bytes, sizeof bytes)));
    }
    int64_t hits = stat_get(STAT_BLOB_CACHE_HITS), evictions = stat_get(STAT_BLOB_CACHE_EVICTIONS);
    int64_t bad = stat_get(STAT_BLOB_CACHE_DAMAGED) + stat_get(STAT_BLOB_CACHE_FAILURES);
    for (int i = 0; i <= READERS; i++)
        assert_ok(io_thread_start(io, "test", i < READERS ? run_reader : run_writer, NULL, &threads[i]));
    for (int i = 0; i <= READERS; i++)
        io_thread_join(threads[i]);
    assert_false(is_wrong);
    assert_true(stat_get(STAT_BLOB_CACHE_HITS) > hits && stat_get(STAT_BLOB_CACHE_EVICTIONS) > evictions);
    assert_int_equal(bad, stat_get(STAT_BLOB_CACHE_DAMAGED) + stat_get(STAT_BLOB_CACHE_FAILURES));
    assert_true(stat_get(STAT_BLOB_CACHE_BYTES) > 0 &&
                stat_get(STAT_BLOB_CACHE_BYTES) <= (int64_t)config.bytes_max);
    blob_close(blob);
    pool_close(pool);
    io_close(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
