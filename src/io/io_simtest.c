/* Goal: the simulated io keeps io.h's contract, promises no more durability than it says, and repeats itself.
 * Method: the shared contract tests, then crashes and faults with known outcomes. */
#include "io/io_contract_test.h"

#include "base/time.h"
#include "sim/io_sim.h"

static int set_up(void **state)
{
    struct io *io;
    assert_ok(io_sim_open(5, &io));
    *state = io;
    return 0;
}

static int tear_down(void **state)
{
    io_close(*state);
    return 0;
}

static struct io_file *create(struct io *io, const char *path, const char *text)
{
    struct io_file *file;
    assert_ok(io_file_open(io, path, IO_WRITE, &file));
    assert_ok(io_file_write(file, 0, slice_str(text)));
    return file;
}

static void expect(struct io *io, const char *path, const char *text)
{
    struct slice bytes;
    if (text == NULL) {
        assert_err(ERR_NOT_FOUND, io_sim_bytes(io, path, &bytes));
        return;
    }
    assert_ok(io_sim_bytes(io, path, &bytes));
    assert_true(slice_equal_str(bytes, text));
}

static void test_what_a_crash_leaves(void **state)
{
    struct io *io = *state;
    struct io_file *file = create(io, "a", "old");
    assert_ok(io_file_sync(file));
    io_sim_crash(io, IO_SIM_KEEP_NONE, 1);
    expect(io, "a", NULL); /* bytes synced, name not */
    assert_err(ERR_CLOSED, io_file_sync(file));
    io_file_close(file);

    file = create(io, "a", "old");
    assert_ok(io_file_sync(file));
    assert_ok(io_dir_sync(io, ""));
    assert_ok(io_file_write(file, 0, slice_str("NEW")));
    expect(io, "a", "NEW");
    io_sim_kill(io);
    expect(io, "a", "NEW");
    io_file_close(file);
    io_sim_crash(io, IO_SIM_KEEP_NONE, 1);
    expect(io, "a", "old");

    assert_ok(io_rename(io, "a", "b"));
    expect(io, "b", "old");
    io_sim_crash(io, IO_SIM_KEEP_NONE, 1);
    expect(io, "a", "old");
    expect(io, "b", NULL);
    assert_ok(io_rename(io, "a", "b"));
    io_sim_crash(io, IO_SIM_KEEP_ALL, 1);
    expect(io, "a", NULL);
    expect(io, "b", "old");
    assert_ok(io_unlink(io, "b"));
    assert_ok(io_dir_sync(io, ""));
    io_sim_crash(io, IO_SIM_KEEP_NONE, 1);
    expect(io, "b", NULL);
}

/* A later durable name is never undone by an earlier one that was not. */
static void test_names_keep_their_order(void **state)
{
    struct io *io = *state;
    assert_ok(io_dir_create(io, "d"));
    assert_ok(io_dir_sync(io, ""));
    io_file_close(create(io, "x", ""));
    assert_ok(io_rename(io, "x", "d/y"));
    assert_ok(io_dir_sync(io, "d"));
    for (uint64_t seed = 0; seed < 20; seed++) {
        io_sim_crash(io, IO_SIM_KEEP_SECTORS, seed);
        assert_false(io_exists(io, "x"));
        assert_true(io_exists(io, "d/y"));
    }
}

static void test_sectors_and_tears(void **state)
{
    struct io *io = *state;
    uint64_t whole = 0, none = 0, mixed = 0, torn = 0;
    static uint8_t zeros[4096], ones[4096];
    memset(ones, 1, sizeof ones);
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct io_file *file;
        ERR_IGNORE(io_unlink(io, "f"));
        assert_ok(io_file_open(io, "f", IO_CREATE, &file));
        assert_ok(io_file_write(file, 0, slice_of(zeros, sizeof zeros)));
        assert_ok(io_file_sync(file));
        assert_ok(io_dir_sync(io, ""));
        assert_ok(io_file_write(file, 0, slice_of(ones, sizeof ones)));
        io_sim_crash(io, IO_SIM_KEEP_TORN, seed);
        io_file_close(file);
        struct slice bytes;
        assert_ok(io_sim_bytes(io, "f", &bytes));
        assert_int_equal(4096, bytes.len);
        uint64_t kept = 0, cut = 0;
        for (size_t i = 0; i < 4096; i++) {
            kept += bytes.at[i];
            cut += i % 512 != 0 && bytes.at[i] != bytes.at[i - 1];
        }
        whole += kept == 4096;
        none += kept == 0;
        mixed += kept != 0 && kept != 4096;
        torn += cut != 0;
    }
    assert_true(whole > 5 && none > 5 && mixed > 50 && torn > 20);
}

static void test_failed_sync_loses(void **state)
{
    struct io *io = *state;
    struct io_file *file = create(io, "a", "old");
    assert_ok(io_file_sync(file));
    assert_ok(io_dir_sync(io, ""));
    bool lost = false;
    for (int i = 0; i < 40; i++) {
        assert_ok(io_file_write(file, 0, slice_str("new")));
        io_sim_fault_at(io, 1, false, ERR_IO);
        assert_err(ERR_IO, io_file_sync(file));
        assert_int_equal(1, io_sim_faults(io));
        assert_ok(io_file_sync(file)); /* says OK and did nothing */
        expect(io, "a", "new");
        io_sim_crash(io, IO_SIM_KEEP_NONE, 1);
        io_file_close(file);
        struct slice bytes;
        assert_ok(io_sim_bytes(io, "a", &bytes));
        lost = lost || slice_equal_str(bytes, "old");
        file = create(io, "a", "old");
        assert_ok(io_file_sync(file));
    }
    assert_true(lost);
    io_file_close(file);
}

static void test_faults_and_power(void **state)
{
    struct io *io = *state;
    struct io_file *file = create(io, "a", "0123456789");
    io_sim_fault_at(io, 2, true, ERR_SPACE);
    assert_ok(io_file_write(file, 0, slice_str("abc")));
    assert_err(ERR_SPACE, io_file_write(file, 0, slice_str("ABCDEFGHIJ")));
    assert_err(ERR_SPACE, io_file_write(file, 0, slice_str("ABCDEFGHIJ")));
    uint8_t byte;
    assert_ok(io_file_read(file, 9, &byte, 1, NULL)); /* a full disk can be read */
    io_sim_fault_at(io, 0, false, OK);
    assert_ok(io_file_write(file, 0, slice_str("0123456789")));

    io_sim_crash_at_call(io, 2);
    assert_ok(io_file_write(file, 0, slice_str("x")));
    assert_false(io_sim_is_down(io));
    assert_err(ERR_IO, io_file_sync(file));
    assert_true(io_sim_is_down(io));
    assert_err(ERR_IO, io_file_write(file, 0, slice_str("y")));
    assert_err(ERR_IO, io_unlink(io, "a"));
    assert_err(ERR_IO, io_file_read(file, 0, &byte, 1, NULL));
    expect(io, "a", "x123456789");
    io_file_close(file);
    io_sim_crash(io, IO_SIM_KEEP_ALL, 1);
    expect(io, "a", "x123456789");
}

static void test_capacity(void **state)
{
    struct io *io = *state;
    struct io_space space;
    struct io_file *file;
    io_sim_set_capacity(io, 10000);
    assert_ok(io_file_open(io, "a", IO_CREATE, &file));
    assert_ok(io_file_allocate(file, 9000));
    assert_ok(io_space(io, &space));
    assert_int_equal(10000, space.total_bytes);
    assert_int_equal(1000, space.free_bytes);
    assert_int_equal(9000, io_sim_used(io));
    assert_err(ERR_SPACE, io_file_allocate(file, 10001));
    assert_err(ERR_SPACE, io_file_write(file, 9990, slice_of("01234567890", 11)));
    assert_ok(io_file_write(file, 9990, slice_of("0123456789", 10)));
    io_file_close(file);
    assert_ok(io_unlink(io, "a"));
    assert_ok(io_dir_sync(io, ""));
    assert_ok(io_space(io, &space));
    assert_int_equal(10000, space.free_bytes);
}

static void test_rot_and_images(void **state)
{
    struct io *io = *state;
    assert_ok(io_dir_create(io, "d"));
    io_file_close(create(io, "d/f", "abc"));
    struct io_sim_image *image = io_sim_snapshot(io);
    assert_ok(io_sim_flip(io, "d/f", 9));
    expect(io, "d/f", "a`c");
    assert_ok(io_sim_overwrite(io, "d/f", 1, slice_str("BC")));
    expect(io, "d/f", "aBC");
    assert_err(ERR_END, io_sim_flip(io, "d/f", 24));
    assert_err(ERR_END, io_sim_overwrite(io, "d/f", 2, slice_str("xy")));
    assert_err(ERR_NOT_FOUND, io_sim_flip(io, "d", 0));
    for (int i = 0; i < 2; i++) {
        io_sim_restore(io, image);
        expect(io, "d/f", "abc");
        assert_ok(io_unlink(io, "d/f"));
        io_sim_crash(io, IO_SIM_KEEP_ALL, 1);
        expect(io, "d/f", NULL);
    }
    io_sim_image_close(image);
}

static void test_same_seed_same_everything(void **state)
{
    uint64_t traces[3];
    uint8_t random[3][8];
    for (uint64_t i = 0; i < 3; i++) {
        struct io *io;
        assert_ok(io_sim_open(i < 2 ? 9 : 10, &io));
        struct io_file *file = create(io, "f", "text");
        assert_ok(io_file_sync(file));
        io_file_close(file);
        io_random(io, random[i], 8);
        traces[i] = io_sim_trace(io);
        int64_t now_ms = io_now_ms(io);
        io_sim_clock_advance(io, 5 * NS_PER_SECOND);
        assert_int_equal(now_ms + 5000, io_now_ms(io));
        io_sim_clock_jump_ms(io, -3600000);
        assert_int_equal(now_ms + 5000 - 3600000, io_now_ms(io));
        assert_true(io_sim_calls(io) == 3);
        io_close(io);
    }
    assert_true(traces[0] == traces[1]);
    assert_true(traces[0] != traces[2]);
    assert_memory_equal(random[0], random[1], 8);
    assert_memory_not_equal(random[0], random[2], 8);
}

static void no_run(void *context) {}

static void test_no_threads(void **state)
{
    struct io_thread *thread;
    assert_err(ERR_UNSUPPORTED, io_thread_start(*state, "x", no_run, NULL, &thread));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IO_CONTRACT_TESTS,
        cmocka_unit_test_setup_teardown(test_what_a_crash_leaves, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names_keep_their_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sectors_and_tears, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failed_sync_loses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_faults_and_power, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_capacity, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rot_and_images, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_same_seed_same_everything, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_threads, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
