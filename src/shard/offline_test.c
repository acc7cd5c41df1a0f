/* What verify and fsck say of a directory besides damage (mend_test.c, shard_test.c): whose every file is, what
 * a newer version wrote, and that the quarantine replaces nothing. On a real disk; model: workload.h. */
#include "shard/fixture.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "shard/partition.h"

/* ---- what tests do ---- */

static char told[1 << 16]; /* the lines of a tool */

static void keep_line(void *context, bool is_damage, const char *text)
{
    size_t len = strlen(told);
    snprintf(told + len, sizeof told - len, "%s%s\n", is_damage ? "DAMAGE " : "", text);
}

typedef err (*check_function)(const struct shards_config *config, struct io *io, struct log *log,
                              struct blob *blob, struct pool *pool, const struct shard_report *report,
                              struct shard_check *out_check);

/* Run a tool over the closed node. */
static err run_tool(struct fixture *f, check_function run, struct shard_check *out_check)
{
    struct world *w = &f->world;
    struct shards_config config = w->config;
    struct shard_report report = { .line = keep_line };
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
    told[0] = '\0';
    assert_ok(log_open(&log_config, f->io, pool, &log, NULL));
    assert_ok(blob_open_dir_as_is("blob", f->io, pool, &blob));
    err e = run(&config, f->io, log, blob, pool, &report, out_check);
    blob_close(blob);
    log_close(log);
    pool_close(pool);
    return e;
}

static struct shard_check verify(struct fixture *f)
{
    struct shard_check check;
    assert_ok(run_tool(f, shard_verify, &check));
    return check;
}

static uint64_t bytes_below(struct fixture *f, const char *path)
{
    struct io_dir_entry *entries;
    size_t count;
    uint64_t bytes = 0;
    assert_ok(io_dir_list(f->io, path, f->pool, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        char child[IO_PATH_BYTES_MAX];
        uint64_t size = 0;
        assert_true(snprintf(child, sizeof child, "%s/%s", path, entries[i].name) < IO_PATH_BYTES_MAX);
        if (!entries[i].is_dir)
            assert_ok(io_path_size(f->io, child, &size, NULL));
        bytes += entries[i].is_dir ? bytes_below(f, child) : size;
    }
    return bytes;
}

/* Every byte of blob and stream is of one class. */
static void expect_sums(struct fixture *f, const struct shard_check *check)
{
    uint64_t bytes = 0;
    for (int i = 0; i < SHARD_CLASS_COUNT; i++)
        bytes += check->classes[i].byte_count;
    assert_int_equal(bytes, bytes_below(f, "blob") + bytes_below(f, "stream"));
}

static void put_file(struct fixture *f, const char *path, struct slice bytes)
{
    struct io_file *file;
    assert_ok(io_file_open(f->io, path, IO_WRITE, &file));
    assert_ok(io_file_truncate(file, 0));
    assert_ok(io_file_write(file, 0, bytes));
    io_file_close(file);
}

static struct slice get_file(struct fixture *f, const char *path)
{
    struct slice bytes;
    assert_ok(io_read_file(f->io, path, 64u << 20, f->pool, &bytes));
    return bytes;
}

static void put_text(struct fixture *f, const char *path) { put_file(f, path, slice_str("0123456789")); }

/* Rows in segments of two ranges and in stream files; closed. */
static void make_node(struct fixture *f)
{
    struct world *w = &f->world;
    w->config.compact = false;
    assert_ok(world_open(w));
    for (int i = 0; i < 2; i++) {
        world_write(w, 30);
        assert_ok(shards_cut_all(w->shards, world_soon(w)));
    }
    world_write(w, 30);
    assert_ok(shards_wait_applied(w->shards, world_soon(w)));
}

static uint64_t count_of(const struct shard_check *check, enum shard_class class)
{
    return check->classes[class].file_count;
}

/* The first stream file. */
static void stream_file(struct fixture *f, char out_path[IO_PATH_BYTES_MAX])
{
    struct io_dir_entry *entries;
    size_t count;
    assert_ok(io_dir_list(f->io, "stream", f->pool, &entries, &count));
    assert_true(count > 0);
    snprintf(out_path, IO_PATH_BYTES_MAX, "stream/%s", entries[0].name);
}

/* ---- classes ---- */

static void what_a_node_leaves_is_its_own(void **state)
{
    struct fixture *f = *state;
    make_node(f);
    world_close_quick(&f->world);
    struct shard_check check = verify(f);
    assert_int_equal(check.damage_count, 0);
    assert_int_equal(count_of(&check, SHARD_CLASS_LEFTOVER) + count_of(&check, SHARD_CLASS_FOREIGN) +
                         count_of(&check, SHARD_CLASS_ASIDE),
                     0);
    assert_true(check.classes[SHARD_CLASS_LIVE].byte_count > 0);
    expect_sums(f, &check);
    assert_string_equal(told, "");
}

/* Leftovers of a process that died go with the next start, which needs nobody. */
static void leftovers_are_told_and_go(void **state)
{
    static const char *const paths[] = { "stream/build-7.tmp", "blob/.tmp/3", "blob/p000/chain/mark",
                                         "blob/p001/segment/"
                                         "00000000000000000000000000000000000000000000000000000000000000aa",
                                         "blob/p000/state/"
                                         "00000000000000000000000000000000000000000000000000000000000000bb" };
    struct fixture *f = *state;
    make_node(f);
    world_close_quick(&f->world);
    for (size_t i = 0; i < 5; i++)
        put_text(f, paths[i]);
    struct shard_check check = verify(f);
    assert_int_equal(check.damage_count, 0);
    assert_int_equal(count_of(&check, SHARD_CLASS_LEFTOVER), 5);
    assert_int_equal(check.classes[SHARD_CLASS_LEFTOVER].byte_count, 50);
    assert_int_equal(count_of(&check, SHARD_CLASS_FOREIGN), 0);
    expect_sums(f, &check);
    for (size_t i = 0; i < 5; i++)
        if (i != 1) /* a directory is told as one */
            assert_non_null(strstr(told, paths[i]));
    assert_ok(world_open(&f->world));
    world_expect(&f->world);
    world_write(&f->world, 10);
    assert_ok(shards_cut_all(f->world.shards, world_soon(&f->world)));
    world_close_quick(&f->world);
    check = verify(f);
    assert_int_equal(count_of(&check, SHARD_CLASS_LEFTOVER), 0);
}

/* Nothing that is not ours goes unseen, wherever it lies, and none of it is taken for ours. */
static void foreign_files_are_told(void **state)
{
    static const char *const paths[] = {
        "blob/notes",
        "blob/p002/chain/00000001",
        "blob/p0/x",
        "blob/p000/x",
        "blob/p000/chain/1",
        "blob/p000/chain/0000000x",
        "blob/p000/chain/000000009",
        "blob/p000/segment/x",
        "stream/x",
        "stream/p000-01-0-0.stream",
        "stream/p002-1-0-0.stream",
    };
    struct fixture *f = *state;
    make_node(f);
    world_close_quick(&f->world);
    assert_ok(io_dir_create(f->io, "blob/p0"));
    assert_ok(io_dir_create(f->io, "blob/p002"));
    assert_ok(io_dir_create(f->io, "blob/p002/chain"));
    size_t count = sizeof paths / sizeof paths[0];
    for (size_t i = 0; i < count; i++)
        put_text(f, paths[i]);
    struct shard_check check = verify(f);
    assert_int_equal(check.damage_count, 0);
    assert_int_equal(count_of(&check, SHARD_CLASS_FOREIGN), count);
    assert_int_equal(check.classes[SHARD_CLASS_FOREIGN].byte_count, 10 * count);
    expect_sums(f, &check);
    assert_ok(run_tool(f, shard_fsck, &check)); /* moves none of them */
    assert_int_equal(count_of(&check, SHARD_CLASS_FOREIGN), count);
    for (size_t i = 0; i < count; i++)
        assert_true(io_exists(f->io, paths[i]));
    assert_ok(world_open(&f->world));
    world_expect(&f->world);
    for (size_t i = 0; i < count; i++) /* nor does a start */
        assert_true(io_exists(f->io, paths[i]));
}

/* A process that is killed within a write leaves the beginning of a frame: no damage. A file that lost what the
 * part behind it says it had is damaged. */
static void a_torn_stream_file_is_no_damage(void **state)
{
    struct fixture *f = *state;
    char path[IO_PATH_BYTES_MAX];
    make_node(f);
    world_close_quick(&f->world);
    stream_file(f, path);
    struct slice whole = get_file(f, path);
    static const size_t cuts[] = { 0, 1, STREAM_FILE_HEADER_BYTES - 1, STREAM_FILE_HEADER_BYTES + 1,
                                   STREAM_FILE_HEADER_BYTES + STREAM_FRAME_HEADER_BYTES + 1 };
    for (size_t i = 0; i < 5; i++) {
        put_file(f, path, slice_part(whole, 0, cuts[i]));
        struct shard_check check = verify(f);
        assert_int_equal(check.damage_count, 0);
        assert_non_null(strstr(told, path));
        expect_sums(f, &check);
    }
    put_file(f, path, whole);
    fixture_flip(f, path, 2);
    assert_int_equal(verify(f).damage_count, 1);
    put_file(f, path, slice_part(whole, 0, cuts[4]));
    world_producer_renew(&f->world);
    assert_ok(world_open(&f->world));
    world_expect(&f->world); /* the log has them */
    world_close_quick(&f->world);
    assert_int_equal(verify(f).damage_count, 0);
    put_file(f, path, whole); /* what the next part does not count is not looked at */
    fixture_flip(f, path, 2);
    assert_int_equal(verify(f).damage_count, 0);
}

static void a_part_shorter_than_promised_is_damage(void **state)
{
    struct fixture *f = *state;
    char path[IO_PATH_BYTES_MAX], next[IO_PATH_BYTES_MAX];
    struct stream_name name;
    struct stream_writer writer;
    make_node(f);
    world_close_quick(&f->world);
    stream_file(f, path);
    struct slice whole = get_file(f, path);
    assert_true(stream_name_parse(path + strlen("stream/"), &name));
    name.part++;
    assert_ok(stream_part_create(f->io, "stream", &name, whole.len, false, &writer));
    io_file_close(writer.file);
    assert_ok(stream_path("stream", &name, next));
    assert_int_equal(verify(f).damage_count, 0);
    put_file(f, path, slice_part(whole, 0, whole.len - 1));
    struct shard_check check = verify(f);
    assert_int_equal(check.damage_count, 1);
    assert_non_null(strstr(told, "shorter"));
    put_file(f, path, whole);
    put_file(f, next, slice_str("")); /* one that never got a header */
    check = verify(f);
    assert_int_equal(check.damage_count, 0);
    assert_int_equal(count_of(&check, SHARD_CLASS_LEFTOVER), 1);
}

/* Two files of the same name, damaged one after the other, are both there for a person. */
static void the_quarantine_replaces_nothing(void **state)
{
    struct fixture *f = *state;
    char to[2][IO_PATH_BYTES_MAX];
    assert_ok(world_open(&f->world)); /* makes the directories */
    world_close_quick(&f->world);
    for (int i = 0; i < 2; i++) {
        put_file(f, "stream/x", slice_of(i == 0 ? "first" : "again", 5));
        assert_ok(shard_set_aside(f->io, &f->world.config, "x", to[i]));
        assert_false(io_exists(f->io, "stream/x"));
    }
    assert_true(slice_equal_str(get_file(f, to[0]), "first"));
    assert_true(slice_equal_str(get_file(f, to[1]), "again"));
}

/* A stream file of a log that is gone, and one of its name that was set aside before. */
static void a_start_sets_aside_under_another_name(void **state)
{
    struct fixture *f = *state;
    char path[IO_PATH_BYTES_MAX], kept[IO_PATH_BYTES_MAX + 16];
    make_node(f);
    world_close_quick(&f->world);
    stream_file(f, path);
    snprintf(kept, sizeof kept, "quarantine/%s", path + strlen("stream/"));
    put_text(f, kept);
    struct slice whole = get_file(f, path);
    fixture_remove(f, "log");
    world_producer_renew(&f->world);
    assert_ok(world_open(&f->world));
    assert_true(slice_equal_str(get_file(f, kept), "0123456789"));
    strcat(kept, ".1");
    assert_true(slice_equal(get_file(f, kept), whole));
}

/* ---- newer formats ---- */

/* Change a file's version and checksum: of `len` bytes from `from`, behind them. */
static void make_newer(struct fixture *f, const char *path, size_t version_at, size_t from, size_t len)
{
    struct slice bytes = get_file(f, path);
    uint8_t *at = (uint8_t *)bytes.at;
    at[version_at] = 9;
    put_le32(at + from + len, crc32c(slice_of(at + from, len), 0));
    put_file(f, path, bytes);
}

static void expect_refusal(struct fixture *f, const char *path, const char *words)
{
    struct world *w = &f->world;
    struct err_at at = { 0 };
    struct log *log;
    struct blob *blob;
    struct shards *shards;
    struct log_config log_config = { .directory = "log",
                                     .cluster_id = { 7 },
                                     .partition_count = WORLD_PARTITIONS,
                                     .file_bytes = w->log_file_bytes,
                                     .queue_bytes_max = 1u << 20,
                                     .tail_bytes_max = 1u << 20 };
    struct pool *pool = pool_open(f->pool, "start", POOL_BYTES_UNLIMITED);
    err e = log_open(&log_config, f->io, pool, &log, &at);
    if (e == OK) {
        assert_ok(blob_open_dir("blob", f->io, pool, &blob));
        e = shards_open(&w->config, f->io, log, blob, pool, &shards, &at);
        blob_close(blob);
        log_close(log);
    }
    assert_err(ERR_VERSION, e);
    assert_non_null(strstr(at.text, path));
    assert_non_null(strstr(at.text, words));
    pool_close(pool);
}

static void a_newer_log(void **state)
{
    struct fixture *f = *state;
    char path[IO_PATH_BYTES_MAX];
    struct io_dir_entry *entries;
    size_t count;
    make_node(f);
    world_close_quick(&f->world);
    assert_ok(io_dir_list(f->io, "log", f->pool, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        if (log_name_kind(entries[i].name) != LOG_NAME_RECORDS)
            continue;
        snprintf(path, sizeof path, "log/%s", entries[i].name);
        for (size_t copy = 0; copy < 2; copy++)
            make_newer(f, path, 4096 * copy + 8, 4096 * copy, 64 + 16 * WORLD_PARTITIONS);
    }
    expect_refusal(f, path, "log format 9, and this Kelpie reads 1");
    assert_int_equal(log_name_kind("00000001.lost"), LOG_NAME_LOST);
    assert_int_equal(log_name_kind("00000001.free"), LOG_NAME_FREE);
    assert_int_equal(log_name_kind("1.log"), LOG_NAME_FOREIGN);
}

static void a_newer_entry(void **state)
{
    static const char path[] = "blob/p000/chain/00000002";
    struct fixture *f = *state;
    struct shard_check check;
    make_node(f);
    world_close_quick(&f->world);
    make_newer(f, path, 4, 0, get_file(f, path).len - 4);
    expect_refusal(f, path, "entry format 9, and this Kelpie reads up to 1");
    assert_err(ERR_VERSION, run_tool(f, shard_verify, &check));
    assert_non_null(strstr(check.at.text, path));
    assert_non_null(strstr(check.at.text, "entry format 9"));
    assert_err(ERR_VERSION, run_tool(f, shard_fsck, &check));
    assert_true(io_exists(f->io, path));
}

static void a_newer_stream_file(void **state)
{
    struct fixture *f = *state;
    char path[IO_PATH_BYTES_MAX];
    struct shard_check check;
    make_node(f);
    world_close_quick(&f->world);
    stream_file(f, path);
    make_newer(f, path, 4, 0, 60);
    expect_refusal(f, path, "stream format 9, and this Kelpie reads up to 1");
    for (int i = 0; i < 2; i++) {
        assert_ok(run_tool(f, i == 0 ? shard_verify : shard_fsck, &check));
        assert_int_equal(check.newer_count, 1);
        assert_int_equal(check.damage_count, 0);
        assert_non_null(strstr(told, path));
        assert_non_null(strstr(told, "stream format 9, and this Kelpie reads up to 1"));
        assert_true(io_exists(f->io, path));
    }
}

/* The object under the digest of its new bytes, and its name in the entries that hold the old one. */
static void rename_object(struct fixture *f, const char *kind, const uint8_t old[SHA256_BYTES],
                          char out_path[IO_PATH_BYTES_MAX])
{
    char from[IO_PATH_BYTES_MAX], hex[2 * SHA256_BYTES + 1];
    uint8_t digest[SHA256_BYTES];
    sha256_print(old, hex);
    snprintf(from, sizeof from, "blob/p000/%s/%s", kind, hex);
    sha256_of(get_file(f, from), digest);
    sha256_print(digest, hex);
    snprintf(out_path, IO_PATH_BYTES_MAX, "blob/p000/%s/%s", kind, hex);
    assert_ok(io_rename(f->io, from, out_path));
    for (int number = 1; number <= 2; number++) {
        char entry[IO_PATH_BYTES_MAX];
        snprintf(entry, sizeof entry, "blob/p000/chain/%08d", number);
        struct slice bytes = get_file(f, entry);
        uint8_t *at = (uint8_t *)bytes.at;
        for (size_t i = 0; i + SHA256_BYTES <= bytes.len; i++)
            if (memcmp(at + i, old, SHA256_BYTES) == 0)
                memcpy(at + i, digest, SHA256_BYTES);
        put_le32(at + bytes.len - 4, crc32c(slice_of(at, bytes.len - 4), 0));
        put_file(f, entry, bytes);
    }
}

static void a_newer_state(void **state)
{
    struct fixture *f = *state;
    char key[SHARD_KEY_BYTES_MAX], path[IO_PATH_BYTES_MAX];
    uint8_t digest[SHA256_BYTES];
    make_node(f);
    memcpy(digest, f->world.shards->partitions[0].chain.state_digests[0], sizeof digest);
    world_close_quick(&f->world);
    state_key(0, digest, 0, key);
    snprintf(path, sizeof path, "blob/%s", key);
    make_newer(f, path, 4, 0, get_file(f, path).len - 4);
    rename_object(f, "state", digest, path);
    expect_refusal(f, path, "state format 9, and this Kelpie reads up to 1");
    struct shard_check check = verify(f);
    assert_int_equal(check.newer_count, 1);
    assert_int_equal(check.damage_count, 0);
    assert_non_null(strstr(told, path + strlen("blob/")));
    assert_non_null(strstr(told, "state format 9"));
}

/* A start does not read segments: its log and answers name it. */
static void a_newer_segment(void **state)
{
    struct fixture *f = *state;
    char key[SHARD_KEY_BYTES_MAX], path[IO_PATH_BYTES_MAX];
    uint8_t digest[SHA256_BYTES];
    struct shard_check check;
    make_node(f);
    memcpy(digest, f->world.shards->partitions[0].chain.segments[0].digest, sizeof digest);
    world_close_quick(&f->world);
    segment_key(0, digest, 0, key);
    snprintf(path, sizeof path, "blob/%s", key);
    size_t tail = get_file(f, path).len - 32;
    make_newer(f, path, tail + 16, tail, 20);
    rename_object(f, "segment", digest, path);
    for (int i = 0; i < 2; i++) {
        assert_ok(run_tool(f, i == 0 ? shard_verify : shard_fsck, &check));
        assert_int_equal(check.newer_count, 1);
        assert_int_equal(check.damage_count, 0);
        assert_non_null(strstr(told, path + strlen("blob/")));
        assert_non_null(strstr(told, "segment format 9, and this Kelpie reads 1"));
        assert_true(io_exists(f->io, path));
    }
    world_producer_renew(&f->world);
    assert_ok(world_open(&f->world));
    assert_non_null(world_check(&f->world));
    assert_false(f->world.was_complete);
}

/* What an entry says of a segment is known at the start. */
static void a_newer_segment_by_its_entry(void **state)
{
    static const char entry[] = "blob/p000/chain/00000001";
    struct fixture *f = *state;
    char key[SHARD_KEY_BYTES_MAX];
    uint8_t digest[SHA256_BYTES];
    struct shard_check check;
    make_node(f);
    memcpy(digest, f->world.shards->partitions[0].chain.segments[0].digest, sizeof digest);
    world_close_quick(&f->world);
    struct slice bytes = get_file(f, entry);
    const uint8_t *facts = memmem(bytes.at, bytes.len, digest, sizeof digest);
    assert_non_null(facts);
    size_t version_at =
        (size_t)(facts - bytes.at) + SHA256_BYTES + 8 + 32 + 16 + 24; /* docs/format/manifest.md */
    make_newer(f, entry, version_at, 0, bytes.len - 4);
    segment_key(0, digest, 0, key);
    expect_refusal(f, key, "compact segment format 9, and this Kelpie reads up to 1");
    assert_err(ERR_VERSION, run_tool(f, shard_verify, &check));
    assert_non_null(strstr(check.at.text, key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_a_node_leaves_is_its_own, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(leftovers_are_told_and_go, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(foreign_files_are_told, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_torn_stream_file_is_no_damage, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_part_shorter_than_promised_is_damage, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(the_quarantine_replaces_nothing, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_start_sets_aside_under_another_name, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(a_newer_log, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_newer_entry, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_newer_stream_file, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_newer_state, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_newer_segment, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_newer_segment_by_its_entry, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
