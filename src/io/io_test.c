/* Goal: the real io keeps io.h's contract, and what only the real one has: errors of the system, threads, waits.
 * Method: the shared contract tests in a fresh directory, and errors provoked with limits of the process. */
#include "io/io_contract_test.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/time.h"
#include "io/io_real.h"

static char root[64];

static int set_up(void **state)
{
    struct io *io;
    strcpy(root, "/tmp/io_test_XXXXXX");
    assert_non_null(mkdtemp(root));
    assert_ok(io_open(root, &io));
    *state = io;
    return 0;
}

static int tear_down(void **state)
{
    io_close(*state);
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", root);
    assert_int_equal(0, system(command));
    return 0;
}

static void test_root_and_absolute_paths(void **state)
{
    struct io *io = *state;
    struct io *other;
    struct io_file *file;
    assert_err(ERR_NOT_FOUND, io_open("/nowhere/at/all", &other));
    io_close(NULL);
    char path[96];
    snprintf(path, sizeof path, "%s/f", root);
    assert_ok(io_file_open(io, path, IO_CREATE, &file));
    io_file_close(file);
    assert_true(io_exists(io, "f"));
    assert_err(ERR_NOT_FOUND, io_open(path, &other)); /* not a directory */
}

static void test_errors_of_the_system(void **state)
{
    static const struct {
        int system_errno;
        err expected;
    } cases[] = {
        { ENOSPC, ERR_SPACE },       { EDQUOT, ERR_SPACE },
        { EFBIG, ERR_SPACE },        { EMFILE, ERR_LIMIT },
        { ENFILE, ERR_LIMIT },       { EROFS, ERR_DENIED },
        { EACCES, ERR_DENIED },      { EIO, ERR_IO },
        { ENOENT, ERR_NOT_FOUND },   { EEXIST, ERR_EXISTS },
        { ENOTEMPTY, ERR_CONFLICT }, { ENOSYS, ERR_UNSUPPORTED },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(cases[i].expected, io_err_of(cases[i].system_errno));
}

static void test_disk_full_and_file_limit(void **state)
{
    struct io *io = *state;
    struct io_file *file;
    struct rlimit before, less;
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_ok(io_file_open(io, "f", IO_CREATE, &file));
    assert_int_equal(0, getrlimit(RLIMIT_FSIZE, &before));
    less = (struct rlimit){ .rlim_cur = 10000, .rlim_max = before.rlim_max };
    assert_int_equal(0, setrlimit(RLIMIT_FSIZE, &less));
    static const uint8_t bytes[20000];
    assert_err(ERR_SPACE, io_file_write(file, 0, slice_of(bytes, sizeof bytes))); /* short, then none */
    assert_err(ERR_SPACE, io_file_allocate(file, 20000));
    assert_int_equal(0, setrlimit(RLIMIT_FSIZE, &before));
    io_file_close(file);

    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &before));
    less = (struct rlimit){ .rlim_cur = 3, .rlim_max = before.rlim_max };
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &less));
    assert_err(ERR_LIMIT, io_file_open(io, "f", IO_READ, &file));
    assert_int_equal(before.rlim_max, io_files_max_raise());
    assert_ok(io_file_open(io, "f", IO_READ, &file));
    io_file_close(file);
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &before));
}

struct counter {
    struct io_mutex mutex;
    struct io_cond cond;
    int count;
};

static void count_up(void *context)
{
    struct counter *counter = context;
    for (int i = 0; i < 1000; i++) {
        io_mutex_lock(&counter->mutex);
        counter->count++;
        io_cond_signal(&counter->cond);
        io_mutex_unlock(&counter->mutex);
    }
}

static void test_threads(void **state)
{
    struct io *io = *state;
    struct counter counter = { .count = 0 };
    struct io_thread *threads[4];
    io_mutex_init(&counter.mutex);
    io_cond_init(&counter.cond);
    for (int i = 0; i < 4; i++)
        assert_ok(io_thread_start(io, "a name longer than fifteen bytes", count_up, &counter, &threads[i]));
    io_mutex_lock(&counter.mutex);
    while (counter.count < 100)
        io_cond_wait(&counter.cond, &counter.mutex);
    io_mutex_unlock(&counter.mutex);
    for (int i = 0; i < 4; i++)
        io_thread_join(threads[i]);
    assert_int_equal(4000, counter.count);

    int64_t before_ns = io_monotonic_ns(io);
    io_mutex_lock(&counter.mutex);
    assert_false(io_cond_wait_for(&counter.cond, &counter.mutex, 20 * NS_PER_MS));
    io_mutex_unlock(&counter.mutex);
    assert_true(io_monotonic_ns(io) - before_ns >= 20 * NS_PER_MS);
    io_cond_done(&counter.cond);
    io_mutex_done(&counter.mutex);
}

static void charge_too_much(void *context)
{
    for (int i = 0; i < 100000; i++)
        assert_err(ERR_LIMIT, pool_charge(context, 2000));
}

/* A charge that a budget refuses takes no room from others meanwhile. */
static void test_refused_charges(void **state)
{
    struct pool *root = pool_open(NULL, "root", 1000);
    struct pool *child = pool_open(root, "child", POOL_BYTES_UNLIMITED);
    struct io_thread *thread;
    assert_ok(io_thread_start(*state, "refused", charge_too_much, child, &thread));
    for (int i = 0; i < 100000; i++) {
        assert_ok(pool_charge(root, 10));
        pool_uncharge(root, 10);
    }
    io_thread_join(thread);
    assert_int_equal(0, pool_used(child));
    pool_close(child);
    pool_close(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IO_CONTRACT_TESTS,
        cmocka_unit_test_setup_teardown(test_root_and_absolute_paths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_errors_of_the_system, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_disk_full_and_file_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_threads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused_charges, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
