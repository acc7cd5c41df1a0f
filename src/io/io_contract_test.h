/* What both implementations of io.h must do alike; included by io_test.c (the system) and io_simtest.c. Each
 * test gets an empty root in `struct io **state`. */
#ifndef IO_IO_CONTRACT_TEST_H
#define IO_IO_CONTRACT_TEST_H

#include "base/test.h"

#include <string.h>

#include "io/io.h"
#include "io/thread.h"

static void test_open_modes(void **state)
{
    struct io *io = *state;
    struct io_file *file;
    assert_err(ERR_NOT_FOUND, io_file_open(io, "a", IO_READ, &file));
    assert_err(ERR_NOT_FOUND, io_file_open(io, "no/a", IO_CREATE, &file));
    assert_ok(io_file_open(io, "a", IO_CREATE, &file));
    io_file_close(file);
    assert_err(ERR_EXISTS, io_file_open(io, "a", IO_CREATE, &file));
    assert_ok(io_file_open(io, "a", IO_WRITE, &file));
    io_file_close(file);
    assert_ok(io_file_open(io, "b", IO_WRITE, &file));
    io_file_close(file);
    assert_ok(io_file_open(io, "b", IO_READ, &file));
    io_file_close(file);
    assert_ok(io_dir_create(io, "d"));
    assert_err(ERR_CONFLICT, io_file_open(io, "d", IO_READ, &file));
    assert_err(ERR_CONFLICT, io_file_open(io, "d", IO_WRITE, &file));
    io_file_close(NULL);
}

static void test_read_write(void **state)
{
    struct io *io = *state;
    struct io_file *file;
    uint8_t bytes[64];
    size_t len;
    uint64_t size;
    assert_ok(io_file_open(io, "a", IO_CREATE, &file));
    assert_ok(io_file_write(file, 10, slice_str("hello")));
    assert_ok(io_file_size(file, &size));
    assert_int_equal(15, size);
    assert_ok(io_file_read(file, 8, bytes, 7, NULL));
    assert_memory_equal("\0\0hello", bytes, 7);
    assert_err(ERR_END, io_file_read(file, 10, bytes, 6, &len));
    assert_int_equal(5, len);
    assert_err(ERR_END, io_file_read(file, 100, bytes, 1, &len));
    assert_int_equal(0, len);
    assert_ok(io_file_read(file, 100, bytes, 0, NULL));
    assert_ok(io_file_sync(file));
    assert_ok(io_file_allocate(file, 5000));
    assert_ok(io_file_size(file, &size));
    assert_int_equal(5000, size);
    assert_ok(io_file_allocate(file, 10)); /* never shrinks */
    assert_ok(io_file_size(file, &size));
    assert_int_equal(5000, size);
    assert_ok(io_file_read(file, 10, bytes, 8, NULL));
    assert_memory_equal("hello\0\0\0", bytes, 8);
    assert_ok(io_file_truncate(file, 12));
    assert_err(ERR_END, io_file_read(file, 10, bytes, 3, &len));
    assert_int_equal(2, len);
    io_file_forget(file, 0, 12);
    io_file_close(file);
    int64_t modified_ms;
    assert_ok(io_path_size(io, "a", &size, &modified_ms));
    assert_int_equal(12, size);
    assert_true(modified_ms <= io_now_ms(io) + 1000 && modified_ms > io_now_ms(io) - 60000);
    assert_err(ERR_NOT_FOUND, io_path_size(io, "b", &size, NULL));
}

/* More parts than one call of the system takes, with empty ones between. */
static void test_write_many_parts(void **state)
{
    struct io *io = *state;
    struct io_file *file;
    struct slice parts[700];
    static uint8_t bytes[700 * 50];
    static uint8_t back[700 * 50];
    size_t len = 0;
    for (size_t i = 0; i < 700; i++) {
        parts[i] = slice_of(bytes + len, i % 3 == 0 ? 0 : i % 50);
        for (size_t k = 0; k < parts[i].len; k++)
            bytes[len++] = (uint8_t)(i + k);
    }
    assert_ok(io_file_open(io, "a", IO_CREATE, &file));
    assert_ok(io_file_write_all(file, 3, parts, 700));
    assert_ok(io_file_write_all(file, 3, parts, 0));
    assert_ok(io_file_read(file, 3, back, len, NULL));
    assert_memory_equal(bytes, back, len);
    io_file_close(file);
}

static void test_names(void **state)
{
    struct io *io = *state;
    struct io_file *file;
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct io_dir_entry *entries;
    size_t count;
    assert_ok(io_dir_create(io, "d"));
    assert_err(ERR_EXISTS, io_dir_create(io, "d"));
    assert_ok(io_dir_create(io, "d/e"));
    assert_err(ERR_NOT_FOUND, io_dir_create(io, "x/e"));
    assert_ok(io_file_open(io, "d/b", IO_CREATE, &file));
    assert_ok(io_file_write(file, 0, slice_str("one")));
    io_file_close(file);
    assert_ok(io_file_open(io, "d/a", IO_CREATE, &file));
    io_file_close(file);
    assert_ok(io_dir_list(io, "d", pool, &entries, &count));
    assert_int_equal(3, count);
    assert_string_equal("a", entries[0].name);
    assert_string_equal("b", entries[1].name);
    assert_string_equal("e", entries[2].name);
    assert_false(entries[1].is_dir);
    assert_true(entries[2].is_dir);
    assert_err(ERR_NOT_FOUND, io_dir_list(io, "nothing", pool, &entries, &count));

    assert_err(ERR_EXISTS, io_link(io, "d/b", "d/a"));
    assert_ok(io_link(io, "d/b", "c"));
    assert_err(ERR_NOT_FOUND, io_link(io, "nothing", "c2"));
    assert_ok(io_rename(io, "d/b", "d/a")); /* replaces */
    assert_false(io_exists(io, "d/b"));
    assert_err(ERR_NOT_FOUND, io_rename(io, "d/b", "d/z"));
    struct slice bytes;
    assert_ok(io_read_file(io, "d/a", 3, pool, &bytes));
    assert_true(slice_equal_str(bytes, "one"));
    assert_int_equal(0, bytes.at[3]);
    assert_err(ERR_LIMIT, io_read_file(io, "c", 2, pool, &bytes));
    assert_err(ERR_NOT_FOUND, io_read_file(io, "b", 2, pool, &bytes));

    assert_err(ERR_CONFLICT, io_dir_remove(io, "d"));
    assert_err(ERR_CONFLICT, io_unlink(io, "d/e"));
    assert_ok(io_dir_remove(io, "d/e"));
    assert_ok(io_unlink(io, "d/a"));
    assert_err(ERR_NOT_FOUND, io_unlink(io, "d/a"));
    assert_ok(io_dir_sync(io, "d"));
    assert_ok(io_dir_sync(io, ""));
    assert_err(ERR_NOT_FOUND, io_dir_sync(io, "x"));
    assert_ok(io_dir_remove(io, "d"));
    assert_true(io_exists(io, "c"));
    pool_close(pool);
}

static void test_directories_above(void **state)
{
    static const char *const cases[][2] = {
        { "a", "" },    { "a/b", "a" }, { "a//b", "a" },    { "a/b/", "a" }, { "/a", "/" },
        { "/a/", "/" }, { "/", "/" },   { "/a/b//", "/a" }, { "", "" },      { "a/", "" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[16];
        snprintf(path, sizeof path, "%s", cases[i][0]);
        io_path_cut(path);
        assert_string_equal(cases[i][1], path);
    }
    assert_ok(io_dir_make(*state, "d"));
    assert_ok(io_dir_make(*state, "d/e"));
    assert_ok(io_dir_make(*state, "d/e"));
    assert_err(ERR_NOT_FOUND, io_dir_make(*state, "x/y"));
}

static void test_replace_file(void **state)
{
    struct io *io = *state;
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct slice bytes;
    assert_ok(io_replace_file(io, "f", slice_str("first")));
    assert_ok(io_replace_file(io, "f", slice_str("2nd")));
    assert_ok(io_read_file(io, "f", 100, pool, &bytes));
    assert_true(slice_equal_str(bytes, "2nd"));
    assert_false(io_exists(io, "f.tmp"));
    assert_err(ERR_NOT_FOUND, io_replace_file(io, "no/f", slice_str("")));
    char path[IO_PATH_BYTES_MAX + 1];
    memset(path, 'p', sizeof path);
    path[IO_PATH_BYTES_MAX] = '\0';
    assert_err(ERR_LIMIT, io_replace_file(io, path, slice_str("")));
    pool_close(pool);
}

static void test_lock(void **state)
{
    struct io *io = *state;
    struct io_file *a, *b;
    assert_ok(io_file_open(io, "lock", IO_WRITE, &a));
    assert_ok(io_file_open(io, "lock", IO_WRITE, &b));
    assert_ok(io_file_lock(a));
    assert_err(ERR_BUSY, io_file_lock(b));
    io_file_close(a);
    assert_ok(io_file_lock(b));
    io_file_close(b);
}

static void test_clocks_and_chance(void **state)
{
    struct io *io = *state;
    int64_t before_ns = io_monotonic_ns(io);
    int64_t boot_ns = io_boottime_ns(io);
    io_sleep_ns(io, 2000000);
    io_sleep_ns(io, -1);
    assert_true(io_monotonic_ns(io) - before_ns >= 2000000);
    assert_true(io_boottime_ns(io) - boot_ns >= 2000000);
    assert_true(io_now_ms(io) > INT64_C(1600000000000));
    uint8_t a[100], b[100];
    io_random(io, a, sizeof a);
    io_random(io, b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    assert_true(io_cpu_count(io) >= 1);
    assert_true(io_memory_bytes(io) >= 1 << 20);
    struct io_space space;
    assert_ok(io_space(io, &space));
    assert_true(space.total_bytes >= space.free_bytes);
    assert_true(space.free_bytes > 0);
}

static void test_locks(void **state)
{
    struct io_mutex mutex;
    struct io_cond cond;
    struct io_rwlock lock;
    io_mutex_init(&mutex);
    io_cond_init(&cond);
    io_mutex_lock(&mutex);
    assert_false(io_cond_wait_for(&cond, &mutex, 0));
    io_cond_signal(&cond);
    io_cond_broadcast(&cond);
    io_mutex_unlock(&mutex);
    io_cond_done(&cond);
    io_mutex_done(&mutex);
    io_rwlock_init(&lock);
    io_rwlock_read(&lock);
    io_rwlock_read(&lock);
    io_rwlock_unlock(&lock);
    io_rwlock_unlock(&lock);
    io_rwlock_write(&lock);
    io_rwlock_unlock(&lock);
    io_rwlock_done(&lock);
}

#define IO_CONTRACT_TESTS                                                           \
    cmocka_unit_test_setup_teardown(test_open_modes, set_up, tear_down),            \
        cmocka_unit_test_setup_teardown(test_read_write, set_up, tear_down),        \
        cmocka_unit_test_setup_teardown(test_write_many_parts, set_up, tear_down),  \
        cmocka_unit_test_setup_teardown(test_names, set_up, tear_down),             \
        cmocka_unit_test_setup_teardown(test_directories_above, set_up, tear_down), \
        cmocka_unit_test_setup_teardown(test_replace_file, set_up, tear_down),      \
        cmocka_unit_test_setup_teardown(test_lock, set_up, tear_down),              \
        cmocka_unit_test_setup_teardown(test_clocks_and_chance, set_up, tear_down), \
        cmocka_unit_test_setup_teardown(test_locks, set_up, tear_down)

#endif
