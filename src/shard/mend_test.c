/* Damaged manifest entries and state objects, on a real disk: the node starts, nothing is answered as complete
 * that is not, and what segments, states and log still have is there. Model and oracle: workload.h. */
#include "shard/fixture.h"

#include "shard/partition.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Files whose path ends with one of these cannot be read: EIO. Ours takes the place of the C library's. */
static const char *unreadable[2];

ssize_t pread(int fd, void *at, size_t len, off_t offset)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t path_len = unreadable[0] != NULL ? readlink(link, path, sizeof path) : 0;
    for (int i = 0; i < 2 && path_len > 0; i++) {
        size_t tail = unreadable[i] != NULL ? strlen(unreadable[i]) : SIZE_MAX;
        if (tail <= (size_t)path_len && memcmp(path + path_len - tail, unreadable[i], tail) == 0) {
            errno = EIO;
            return -1;
        }
    }
    return (ssize_t)syscall(SYS_pread64, fd, at, len, offset);
}

static int setup(void **state)
{
    fixture_setup(state);
    ((struct fixture *)*state)->world.config.compact = false;
    unreadable[0] = unreadable[1] = NULL;
    return 0;
}

/* ---- what tests do ---- */

static void write_rows(struct world *w, int records)
{
    for (int i = 0; i < records; i++)
        assert_ok(
            world_append(w, (uint32_t)i % WORLD_PARTITIONS, 1 + test_random_below(&w->random, 40), false));
}

/* A node of so many ranges, each a commit of every partition; running. */
static void make_ranges(struct world *w, int ranges)
{
    assert_ok(world_open(w));
    for (int i = 0; i < ranges; i++) {
        write_rows(w, 12);
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
    }
}

static void reopen(struct world *w)
{
    world_close_quick(w);
    world_producer_renew(w);
    assert_ok(world_open(w));
}

/* Every row is there, once and right, but the node cannot know it. */
static void check_named(struct world *w)
{
    const char *wrong = world_check(w);
    assert_non_null(wrong);
    assert_string_equal(wrong, "the answer says it is not complete");
}

static void chain_path(uint64_t number, char out[IO_PATH_BYTES_MAX])
{
    snprintf(out, IO_PATH_BYTES_MAX, "blob/p000/chain/%08llu", (unsigned long long)number);
}

static void state_path(struct world *w, int which, char out[IO_PATH_BYTES_MAX])
{
    char key[SHARD_KEY_BYTES_MAX];
    state_key(0, w->shards->partitions[0].chain.state_digests[which], 0, key);
    snprintf(out, IO_PATH_BYTES_MAX, "blob/%s", key);
}

static size_t count_files(struct fixture *f, const char *directory)
{
    struct io_dir_entry *entries;
    size_t count = 0;
    ERR_IGNORE(io_dir_list(f->io, directory, f->pool, &entries, &count));
    return count;
}

typedef err (*check_function)(const struct shards_config *config, struct io *io, struct log *log,
                              struct blob *blob, struct pool *pool, const struct shard_report *report,
                              struct shard_check *out_check);

/* Damages that a tool finds; the node is closed. */
static int offline(struct fixture *f, check_function run)
{
    struct world *w = &f->world;
    struct shards_config config = w->config;
    struct shard_check check;
    int damages = 0;
    struct shard_report report = { fixture_count_damage, &damages };
    struct log_config log_config = { .directory = "log",
                                     .cluster_id = { 7 },
                                     .partition_count = WORLD_PARTITIONS,
                                     .file_bytes = w->log_file_bytes,
                                     .queue_bytes_max = 1u << 20,
                                     .tail_bytes_max = 1u << 20,
                                     .read_only = run == shard_verify };
    struct pool *pool = pool_open(f->pool, "offline", POOL_BYTES_UNLIMITED);
    struct log *log;
    struct blob *blob;
    config.read_only = run == shard_verify;
    assert_ok(log_open(&log_config, f->io, pool, &log, NULL));
    assert_ok(blob_open_dir_as_is("blob", f->io, pool, &blob));
    assert_ok(run(&config, f->io, log, blob, pool, &report, &check));
    assert_int_equal(check.damage_count, damages);
    blob_close(blob);
    log_close(log);
    pool_close(pool);
    return damages;
}

/* ---- entries ---- */

static void the_newest_entry_is_built_again(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[IO_PATH_BYTES_MAX];
    make_ranges(w, 3);
    write_rows(w, 10);
    assert_ok(world_settle(w, 100));
    world_close_quick(w);
    chain_path(3, path);
    fixture_flip(f, path, 2);
    assert_int_equal(offline(f, shard_verify), 1);
    world_producer_renew(w);
    assert_ok(world_open(w));
    world_expect(w);
    assert_int_equal(count_files(f, "quarantine"), 1);
    write_rows(w, 20);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_expect(w);
    world_close_quick(w);
    assert_int_equal(offline(f, shard_verify), 0);
    assert_ok(world_open(w));
    world_expect(w);
}

static void fsck_does_what_a_start_does(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[IO_PATH_BYTES_MAX];
    make_ranges(w, 3);
    world_close_quick(w);
    chain_path(3, path);
    fixture_flip(f, path, 2);
    assert_int_equal(offline(f, shard_fsck), 1);
    assert_int_equal(offline(f, shard_verify), 0);
    assert_int_equal(count_files(f, "quarantine"), 1);
    world_producer_renew(w);
    assert_ok(world_open(w));
    world_expect(w);
}

/* Its state is long gone, so nobody can tell whether all its segments are there. */
static void an_older_entry_is_named(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[IO_PATH_BYTES_MAX];
    make_ranges(w, 5);
    write_rows(w, 10);
    world_close_quick(w);
    chain_path(2, path);
    fixture_flip(f, path, 2);
    for (int life = 0; life < 3; life++) {
        world_producer_renew(w);
        assert_ok(world_open(w));
        check_named(w);
        assert_int_equal(w->shards->partitions[0].chain.lost_count, 1);
        write_rows(w, 20);
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
        check_named(w);
        world_close_quick(w);
    }
    assert_int_equal(count_files(f, "quarantine"), 1);
    assert_int_equal(offline(f, shard_verify), 0); /* every byte that is there is whole */
    chain_path(4, path);
    assert_ok(io_unlink(f->io, path));
    assert_ok(world_open(w));
    check_named(w);
    assert_int_equal(w->shards->partitions[0].chain.lost_count, 2);
}

static void merge_all(struct world *w)
{
    struct shards_config config = w->config;
    config.compact = true;
    assert_ok(shards_reconfigure(w->shards, &config, NULL));
    bool worked = true;
    while (worked)
        assert_ok(shards_compact_step(w->shards, &worked));
    config.compact = false;
    assert_ok(shards_reconfigure(w->shards, &config, NULL));
}

/* A merge's entry: its output has the SUM of the inputs that are gone. */
static void a_merge_is_taken_over(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[IO_PATH_BYTES_MAX];
    make_ranges(w, 4);
    merge_all(w);
    struct partition *p = &w->shards->partitions[0];
    assert_true(p->segment_count < 4 && p->chain.next_number == 6);
    world_close_quick(w);
    chain_path(5, path);
    fixture_flip(f, path, 2);
    world_producer_renew(w);
    assert_ok(world_open(w));
    world_expect(w);
    write_rows(w, 10);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    reopen(w);
    world_expect(w);
}

/* What a commit brought was merged since: the merge's output has it, and nobody can tell whether that is all. */
static void a_merged_commit_is_named(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[IO_PATH_BYTES_MAX];
    make_ranges(w, 4);
    merge_all(w);
    write_rows(w, 10);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_close_quick(w);
    chain_path(2, path);
    fixture_flip(f, path, 2);
    for (int life = 0; life < 2; life++) {
        world_producer_renew(w);
        assert_ok(world_open(w));
        const char *wrong = world_check(w);
        assert_non_null(wrong);
        assert_string_equal(wrong, "the answer says it is not complete");
        world_close_quick(w);
    }
}

/* ---- acceptance ---- */

static struct shards_accepted accept_all(struct world *w)
{
    struct shards_accepted accepted;
    assert_ok(shards_losses_accept(w->shards, world_soon(w), &accepted));
    return accepted;
}

/* Accepted, answers are complete again, over restarts; a new loss is named again. */
static void a_person_accepts(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[IO_PATH_BYTES_MAX];
    make_ranges(w, 6);
    world_close_quick(w);
    chain_path(2, path);
    fixture_flip(f, path, 2);
    assert_ok(world_open(w));
    check_named(w);
    assert_int_equal(accept_all(w).loss_count, 1);
    assert_int_equal(shards_usage(w->shards).losses, 0);
    for (int life = 0; life < 2; life++) {
        world_expect(w);
        assert_int_equal(shards_usage(w->shards).losses_accepted, 1);
        assert_int_equal(accept_all(w).loss_count, 0);
        write_rows(w, 10);
        reopen(w);
    }
    world_close_quick(w);
    chain_path(4, path);
    fixture_flip(f, path, 2);
    assert_ok(world_open(w));
    check_named(w);
    assert_int_equal(shards_usage(w->shards).losses, 1);
}

/* A segment that is gone, and rows whose labels are. */
static void segments_and_waiting_rows_are_accepted(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[2][IO_PATH_BYTES_MAX], key[SHARD_KEY_BYTES_MAX], segment[IO_PATH_BYTES_MAX];
    make_ranges(w, 3);
    state_path(w, 0, path[0]);
    state_path(w, 1, path[1]);
    segment_key(0, w->shards->partitions[0].chain.segments[1].digest, 0, key);
    snprintf(segment, sizeof segment, "blob/%s", key);
    write_rows(w, 10);
    world_close_quick(w);
    fixture_remove(f, "stream");
    assert_ok(io_unlink(f->io, path[0]));
    assert_ok(io_unlink(f->io, path[1]));
    assert_ok(io_unlink(f->io, segment));
    world_producer_renew(w);
    assert_ok(world_open(w));
    assert_non_null(world_check(w));
    assert_false(w->was_complete);
    struct shards_accepted accepted = accept_all(w);
    assert_int_equal(accepted.segment_count, 1);
    assert_true(accepted.waiting_row_count > 0);
    for (int life = 0; life < 2; life++) {
        assert_non_null(world_check(w));
        assert_true(w->was_complete); /* without them */
        write_rows(w, 10);
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
        reopen(w);
    }
}

/* ---- states ---- */

static void an_older_state_serves(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[IO_PATH_BYTES_MAX];
    make_ranges(w, 3);
    state_path(w, 0, path);
    world_close_quick(w);
    fixture_flip(f, path, 2);
    assert_int_equal(offline(f, shard_verify), 1);
    world_producer_renew(w);
    assert_ok(world_open(w));
    world_expect(w); /* all its producers ended: nothing of it is needed */
    write_rows(w, 20);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    reopen(w);
    world_expect(w);
    assert_false(w->shards->partitions[0].state_is_old);
    world_close_quick(w);
    assert_int_equal(offline(f, shard_verify), 1); /* now it is the older one */
    assert_int_equal(offline(f, shard_fsck), 1);
    assert_int_equal(offline(f, shard_verify), 0);
}

/* The tail of the log uses numbers that only the damaged states bound. */
static void a_tail_without_labels_is_named(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[2][IO_PATH_BYTES_MAX];
    make_ranges(w, 3);
    state_path(w, 0, path[0]);
    state_path(w, 1, path[1]);
    write_rows(w, 10);
    assert_ok(log_pump(w->log));
    world_close_quick(w);
    fixture_remove(f, "stream"); /* as after kill -9: nothing of it was spilled */
    fixture_flip(f, path[0], 2);
    fixture_flip(f, path[1], 2);
    for (int life = 0; life < 2; life++) {
        world_producer_renew(w);
        assert_ok(world_open(w));
        assert_ok(shards_wait_applied(w->shards, world_soon(w)));
        assert_true(shards_usage(w->shards).unresolved_rows > 0);
        assert_non_null(world_check(w));
        assert_false(w->was_complete);
        assert_true(shards_usage(w->shards).segment_rows > 0);
        write_rows(w, 10);
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
        world_close_quick(w);
    }
}

/* ---- read errors, which may pass ---- */

/* What another file proves stands in for it; what nothing proves stops the start, and is there when the error
 * passes. */
static void an_unreadable_entry(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[IO_PATH_BYTES_MAX], next[IO_PATH_BYTES_MAX];
    make_ranges(w, 4);
    write_rows(w, 10);
    world_close_quick(w);
    chain_path(2, path);
    unreadable[0] = path;
    assert_err(ERR_IO, world_open(w));
    assert_int_equal(count_files(f, "quarantine"), 0);
    unreadable[0] = NULL;
    world_producer_renew(w);
    assert_ok(world_open(w));
    world_expect(w);
    world_close_quick(w);
    chain_path(4, path); /* the newest: its state proves it */
    unreadable[0] = path;
    world_producer_renew(w);
    assert_ok(world_open(w));
    world_expect(w);
    assert_int_equal(count_files(f, "quarantine"), 1);
    write_rows(w, 20);
    assert_ok(shards_cut_all(w->shards, world_soon(w)));
    world_close_quick(w);
    chain_path(3, next);
    unreadable[0] = next;
    assert_int_equal(offline(f, shard_fsck), 1); /* a person asked */
    unreadable[0] = NULL;
    world_producer_renew(w);
    assert_ok(world_open(w));
    check_named(w);
}

/* A read error of the disk may pass: a restore ends there, unless a person takes it for damage; then it is
 * mended in the new directory, told, and named in answers. */
static void a_restore_of_an_unreadable_entry(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[IO_PATH_BYTES_MAX];
    struct blob *blob;
    struct shard_restored restored;
    struct err_at at = { 0 };
    int damages = 0;
    struct shard_report report = { .line = fixture_count_damage, .context = &damages };
    make_ranges(w, 4);
    world_close_quick(w);
    chain_path(2, path); /* nothing proves it: a start waits */
    unreadable[0] = path;
    struct pool *pool = pool_open(w->pool, "restore", POOL_BYTES_UNLIMITED);
    assert_ok(blob_open_dir("blob", w->io, pool, &blob));
    assert_err(ERR_IO, shard_restore(&w->config, w->io, blob, pool, false, &report, &restored, &at));
    assert_non_null(strstr(at.text, path));
    assert_int_equal(damages, 0);
    assert_int_equal(count_files(f, "quarantine"), 0);
    assert_ok(shard_restore(&w->config, w->io, blob, pool, true, &report, &restored, &at));
    assert_int_equal(damages, 1);
    assert_int_equal(restored.damage_count, 1);
    assert_true(restored.data_through_ms > WORLD_EPOCH_MS);
    blob_close(blob);
    pool_close(pool);
    unreadable[0] = NULL;
    fixture_remove(f, "log");
    fixture_remove(f, "stream");
    world_producer_renew(w);
    assert_ok(world_open(w));
    check_named(w);
}

/* Two entries: the later one is not known while the earlier one is built again. */
static void two_unreadable_entries(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[2][IO_PATH_BYTES_MAX];
    make_ranges(w, 4);
    world_close_quick(w);
    for (int i = 0; i < 2; i++) {
        chain_path(3 + (uint64_t)i, path[i]);
        unreadable[i] = path[i];
    }
    err e = world_open(w);
    assert_true(e == OK || e == ERR_IO);
    if (e == OK)
        world_close_quick(w);
    unreadable[0] = unreadable[1] = NULL;
    world_producer_renew(w);
    assert_ok(world_open(w));
    world_expect(w);
}

/* With a base behind it an entry tells nothing that is needed. */
static void an_unreadable_entry_before_a_base(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[IO_PATH_BYTES_MAX];
    w->config.chain_base_count = 4;
    make_ranges(w, 6);
    assert_true(w->shards->partitions[0].chain.base_number > 0);
    uint64_t base = w->shards->partitions[0].chain.base_number;
    world_close_quick(w);
    chain_path(base - 1, path);
    unreadable[0] = path;
    for (int life = 0; life < 2; life++) {
        world_producer_renew(w);
        assert_ok(world_open(w));
        world_expect(w);
        assert_int_equal(w->shards->partitions[0].chain.lost_count, 0);
        write_rows(w, 10);
        world_close_quick(w);
    }
}

/* Nobody needs the state of what is all stored; with rows behind it the start waits for the disk or a person. */
static void an_unreadable_state(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    char path[IO_PATH_BYTES_MAX];
    make_ranges(w, 3);
    state_path(w, 0, path);
    world_close_quick(w);
    unreadable[0] = path;
    assert_ok(world_open(w));
    world_expect(w);
    unreadable[0] = NULL;
    reopen(w);
    write_rows(w, 10); /* the new producer announces them: but who knows before they are read? */
    assert_ok(log_pump(w->log));
    world_close_quick(w);
    fixture_remove(f, "stream");
    unreadable[0] = path;
    assert_err(ERR_IO, world_open(w));
    unreadable[0] = NULL;
    world_producer_renew(w);
    assert_ok(world_open(w));
    world_expect(w);
}

/* It stops the start: with a part that stands in for one that is back another time, rows would be there twice. */
static void an_unreadable_stream_file(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    struct io_dir_entry *entries;
    size_t count;
    make_ranges(w, 2);
    write_rows(w, 20);
    assert_ok(world_settle(w, 100));
    world_close_quick(w);
    assert_ok(io_dir_list(f->io, "stream", f->pool, &entries, &count));
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        unreadable[0] = entries[i].name;
        assert_err(ERR_IO, world_open(w));
        unreadable[0] = NULL;
        world_producer_renew(w);
        assert_ok(world_open(w));
        world_expect(w);
        world_close_quick(w);
    }
}

/* ---- anything ---- */

static void harm(struct fixture *f, const char *path, uint64_t how)
{
    struct io_file *file;
    uint64_t size;
    if (how == 0) {
        assert_ok(io_unlink(f->io, path));
    } else if (how == 1) {
        assert_ok(io_file_open(f->io, path, IO_WRITE, &file));
        assert_ok(io_file_size(file, &size));
        assert_ok(io_file_truncate(file, size / 2));
        io_file_close(file);
    } else {
        fixture_flip(f, path, 2);
    }
}

/* One or two objects of any kind, at any time, in a history of every kind of entry. */
static void whatever_is_damaged_is_never_silent(void **state)
{
    struct fixture *f = *state;
    struct world *w = &f->world;
    struct test_random r = test_random_begin("whatever_is_damaged");
    static const char *const kinds[] = { "chain", "state", "segment" };
    for (int round = 0; round < 40; round++) {
        world_init(w, f->io, f->pool, test_random_u64(&r));
        w->config.compact = false;
        w->incarnation_count = (uint64_t)round * 1000;
        world_producer_renew(w);
        make_ranges(w, 1 + (int)test_random_below(&r, 4));
        if (test_random_below(&r, 2) == 0)
            merge_all(w);
        write_rows(w, (int)test_random_below(&r, 20));
        if (test_random_below(&r, 2) == 0)
            assert_ok(shards_cut_all(w->shards, world_soon(w)));
        world_close_quick(w);
        for (uint64_t harms = 1 + test_random_below(&r, 2); harms > 0; harms--) {
            char directory[64], path[IO_PATH_BYTES_MAX];
            struct io_dir_entry *entries;
            size_t count = 0;
            snprintf(directory, sizeof directory, "blob/p%03u/%s", (unsigned)test_random_below(&r, 2),
                     kinds[test_random_below(&r, 3)]);
            ERR_IGNORE(io_dir_list(f->io, directory, f->pool, &entries, &count));
            if (count == 0)
                continue;
            snprintf(path, sizeof path, "%s/%s", directory, entries[test_random_below(&r, count)].name);
            harm(f, path, test_random_below(&r, 4));
        }
        for (int life = 0; life < 3; life++) {
            world_producer_renew(w);
            assert_ok(world_open(w));
            const char *wrong = world_check(w);
            if (wrong != NULL &&
                (w->was_complete || strstr(wrong, "value") != NULL || strstr(wrong, "nobody") != NULL))
                fail_msg("round %d, life %d: %s", round, life, wrong);
            write_rows(w, 5);
            assert_ok(shards_cut_all(w->shards, world_soon(w)));
            world_close_quick(w);
            if (life == 1)
                offline(f, shard_fsck);
        }
        fixture_remove(f, "blob");
        fixture_remove(f, "log");
        fixture_remove(f, "stream");
        fixture_remove(f, "quarantine");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_newest_entry_is_built_again, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(fsck_does_what_a_start_does, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(an_older_entry_is_named, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_merge_is_taken_over, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_merged_commit_is_named, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_person_accepts, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(segments_and_waiting_rows_are_accepted, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(an_older_state_serves, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_tail_without_labels_is_named, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(an_unreadable_entry, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_restore_of_an_unreadable_entry, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(two_unreadable_entries, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(an_unreadable_entry_before_a_base, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(an_unreadable_state, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(an_unreadable_stream_file, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(whatever_is_damaged_is_never_silent, setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
