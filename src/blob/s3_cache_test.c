/* The cache in front of the S3 driver, over the store in memory that lies: what the driver mends is kept
 * mended, what it cannot see is forgotten when somebody says so. */
#include "blob/s3_fixture.h"

#define BLOCK 512
#define KEY   "p000/segment/a"

static bool is_immutable(const char *key) { return strstr(key, "/chain/") == NULL; }

static struct blob *open_cached(void)
{
    struct blob_cache_config config = blob_cache_defaults();
    struct blob *cache = NULL;
    config.directory = "cache";
    config.block_bytes = BLOCK;
    config.bytes_max = 1 << 20;
    config.is_immutable = is_immutable;
    assert_ok(blob_open_cached(open_blob(), &config, io, root, &cache, &(struct err_at){ 0 }));
    return cache;
}

static struct slice object(void) { return slice_of(file_bytes, sizeof file_bytes); }

static void assert_reads(struct blob *cache, size_t from, size_t len)
{
    uint8_t bytes[sizeof file_bytes];
    struct blob_handle *handle;
    assert_ok(blob_open(cache, KEY, &handle));
    assert_int_equal(sizeof file_bytes, blob_handle_size(handle));
    assert_ok(blob_read(handle, from, bytes, len));
    assert_memory_equal(bytes, file_bytes + from, len);
    blob_handle_close(handle);
}

static void test_a_bucket_is_asked_once(void **state)
{
    struct blob *cache = open_cached();
    store_ours(KEY, object());
    fake_add(&fake, (struct fake_fault){ FAKE_TRUNCATED, "GET", .count = 1 });
    fake_add(&fake, (struct fake_fault){ FAKE_SHIFTED, "GET", .count = 1 });
    fake_add(&fake, (struct fake_fault){ FAKE_LOST_AFTER, "GET", .count = 1 });
    fake_add(&fake, (struct fake_fault){ FAKE_PAGE, "GET", .count = 1 });
    assert_reads(cache, 600, 1000); /* blocks 1 to 3, in two pieces of the driver, after four failures */
    assert_true(fake.requests >= 7);
    fake.requests = 0;
    for (size_t i = 0; i < 15; i++)
        assert_reads(cache, BLOCK + 100 * i, 3 * BLOCK - 100 * i);
    assert_int_equal(fake.requests, 15); /* for its size, while the first block is not kept */
    assert_reads(cache, 0, 1);
    fake.requests = 0;
    assert_reads(cache, 0, 4 * BLOCK);
    assert_int_equal(fake.requests, 0);
    blob_close(cache);
}

static void test_puts_are_kept(void **state)
{
    struct blob *cache = open_cached();
    struct slice got;
    make_file("built", sizeof file_bytes);
    assert_ok(blob_put_file(cache, KEY, "built"));
    assert_false(io_exists(io, "built"));
    assert_ok(blob_put(cache, "p000/state/b", slice_part(object(), 0, 2000)));
    assert_ok(blob_put(cache, "p000/chain/00000001", slice_part(object(), 0, 2000)));
    fake.requests = 0;
    assert_reads(cache, 0, sizeof file_bytes);
    assert_ok(blob_get(cache, "p000/state/b", 2000, root, &got));
    assert_true(slice_equal(got, slice_part(object(), 0, 2000)));
    assert_int_equal(fake.requests, 0);
    assert_ok(blob_get(cache, "p000/chain/00000001", 2000, root, &got));
    assert_true(fake.requests > 0);
    make_file("built", sizeof file_bytes);
    assert_err(ERR_EXISTS, blob_put_file(cache, KEY, "built"));
    assert_true(io_exists(io, "built"));
    blob_close(cache);
}

static void test_what_the_bucket_gives_wrongly(void **state)
{
    struct blob *cache = open_cached();
    uint8_t bytes[BLOCK];
    struct blob_handle *handle;
    struct slice got;
    store_ours(KEY, object());
    fake_add(&fake, (struct fake_fault){ FAKE_FLIPPED, "GET", .count = 1 });
    assert_ok(blob_get(cache, KEY, 4000, root, &got)); /* the whole is checked, and asked for again */
    assert_true(slice_equal(got, object()));
    assert_reads(cache, 0, sizeof file_bytes);
    assert_true(blob_doubt(cache, KEY));
    fake.fault_count = 0;
    fake_add(&fake, (struct fake_fault){ FAKE_FLIPPED, "GET", .count = 1 });
    assert_ok(blob_open(cache, KEY, &handle));
    assert_ok(blob_read(handle, 0, bytes, sizeof bytes)); /* a part is not */
    assert_memory_not_equal(bytes, file_bytes, sizeof bytes);
    blob_handle_close(handle);
    assert_true(blob_doubt(cache, KEY));
    assert_reads(cache, 0, sizeof file_bytes);
    blob_close(cache);
}

/* Equal bytes put again have another ETag, and are the same object; others are not. */
static void test_replaced_in_the_bucket(void **state)
{
    struct blob *cache = open_cached();
    uint8_t bytes[sizeof file_bytes];
    struct blob_handle *handle;
    store_ours(KEY, object());
    assert_ok(blob_open(cache, KEY, &handle));
    assert_ok(blob_read(handle, 0, bytes, 10));
    store_ours(KEY, object());
    assert_ok(blob_read(handle, 0, bytes, 2 * BLOCK));
    store_ours(KEY, slice_of(file_bytes + 1, sizeof file_bytes - 1));
    assert_ok(blob_read(handle, 0, bytes, 2 * BLOCK));
    assert_err(ERR_CONFLICT, blob_read(handle, 0, bytes, 3 * BLOCK));
    blob_handle_close(handle);
    blob_close(cache);
}

static void test_what_the_bucket_lost(void **state)
{
    struct blob *cache = open_cached();
    struct blob_entry *entries;
    size_t count;
    uint64_t size;
    store_ours(KEY, object());
    assert_reads(cache, 0, BLOCK + 1);
    assert_ok(blob_list(cache, "p000/segment", root, &entries, &count));
    assert_true(count == 1 && entries[0].t_ms > 0);
    fake_remove(&fake, PREFIX "/" KEY);
    assert_reads(cache, 0, BLOCK + 1);
    assert_err(ERR_NOT_FOUND, blob_size(cache, KEY, &size));
    assert_ok(blob_list(cache, "p000/segment", root, &entries, &count));
    assert_int_equal(count, 0);
    struct blob_handle *handle;
    uint8_t byte;
    assert_ok(blob_open(cache, KEY, &handle));
    assert_err(ERR_NOT_FOUND, blob_read(handle, 2 * BLOCK, &byte, 1));
    blob_handle_close(handle);
    assert_err(ERR_NOT_FOUND, blob_delete(cache, KEY)); /* and nothing of it stays */
    assert_err(ERR_NOT_FOUND, blob_open(cache, KEY, &handle));
    blob_close(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_bucket_is_asked_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_puts_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_the_bucket_gives_wrongly, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replaced_in_the_bucket, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_the_bucket_lost, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
