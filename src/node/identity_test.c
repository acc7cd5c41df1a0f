/* NODE: written once and read back, refused when damaged, newer or in use; a crash during the first start is
 * not damage. Runs on the real file system in a directory of its own. */
#include "base/test.h"

#include "base/bytes.h"
#include "node/identity.h"

#include <string.h>

static struct pool *pool;
static struct io *io;
static char directory[64];

static void write_node(const void *bytes, size_t len)
{
    assert_ok(io_replace_file(io, IDENTITY_FILE, slice_of(bytes, len)));
}

static const struct identity_fresh sixteen = { .partition_count = 16, .range_bytes_max = 1 << 30 };
static const struct identity_fresh eight = { .partition_count = 8, .range_bytes_max = 1 << 30 };
static const struct identity_fresh member = { .is_member = true };

static err open_node(const struct identity_fresh *fresh, struct identity *identity, struct err_at *at)
{
    struct identity_lock *lock;
    err e = identity_open(io, pool, fresh, identity, &lock, at);
    if (e == OK)
        identity_close(lock);
    return e;
}

static void first_start_and_second(void **state)
{
    struct identity first, second, offline;
    struct identity_lock *lock, *other;
    struct err_at at = { 0 };
    assert_err(ERR_NOT_FOUND, open_node(NULL, &offline, &at));
    assert_ok(identity_open(io, pool, &sixteen, &first, &lock, &at));
    assert_int_equal(first.partition_count, 16);
    assert_string_equal(first.program, KELPIE_VERSION);
    assert_err(ERR_BUSY, identity_open(io, pool, &sixteen, &second, &other, &at));
    assert_non_null(strstr(at.text, "in use"));
    identity_close(lock);
    assert_ok(open_node(&eight, &second, &at)); /* what NODE says holds, not what this machine would choose */
    assert_int_equal(second.partition_count, 16);
    assert_memory_equal(first.cluster_id, second.cluster_id, 16);
    assert_memory_equal(first.hash_key, second.hash_key, 16);
    assert_true(first.created_ms == second.created_ms && second.range_bytes_max == 1 << 30);
}

static void damage_and_versions(void **state)
{
    uint8_t bytes[IDENTITY_BYTES], changed[IDENTITY_BYTES];
    struct identity identity = { .partition_count = 8, .range_bytes_max = 1, .program = "9.9.9" }, out;
    struct err_at at = { 0 };
    identity_encode(&identity, bytes);
    assert_ok(identity_decode(bytes, &out, &at));
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) { /* every one counts */
        memcpy(changed, bytes, sizeof bytes);
        changed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_err(ERR_CORRUPT, identity_decode(changed, &out, &at));
    }
    memcpy(changed, bytes, sizeof bytes);
    put_le32(changed + 8, 3);
    put_le32(changed + 124, crc32c(slice_of(changed, 124), 0));
    assert_err(ERR_VERSION, identity_decode(changed, &out, &at));
    assert_non_null(strstr(at.text, "9.9.9"));
    identity.partition_count = 0;
    identity_encode(&identity, bytes);
    assert_err(ERR_CORRUPT, identity_decode(bytes, &out, &at));
}

/* A node that is alone and one of a cluster do not take each other's directory, and a tool sees which it is. */
static void member_and_alone(void **state)
{
    struct identity first, second;
    struct err_at at = { 0 };
    assert_err(ERR_INPUT, open_node(&member, &first, &at)); /* of first_start_and_second */
    assert_non_null(strstr(at.text, "alone"));
    assert_ok(io_unlink(io, IDENTITY_FILE));
    assert_ok(open_node(&member, &first, &at));
    assert_true(first.is_member);
    assert_ok(open_node(&member, &second, &at));
    assert_memory_equal(first.disk_id, second.disk_id, sizeof first.disk_id);
    assert_err(ERR_INPUT, open_node(&eight, &second, &at));
    assert_non_null(strstr(at.text, "no cluster section"));
    assert_ok(open_node(NULL, &second, &at));
    assert_true(second.is_member);

    assert_ok(io_dir_create(io, "stream"));
    write_node("", 0);
    assert_err(ERR_CONFLICT, open_node(&member, &first, &at));
    assert_non_null(strstr(at.text, "empty directory"));
    assert_ok(io_dir_remove(io, "stream"));
    assert_ok(open_node(&member, &first, &at));
    assert_memory_not_equal(first.disk_id, second.disk_id, sizeof first.disk_id);
    assert_ok(io_unlink(io, IDENTITY_FILE));
}

static void interrupted_first_start(void **state)
{
    struct identity identity;
    struct err_at at = { 0 };
    uint8_t zeros[IDENTITY_BYTES] = { 0 };
    write_node("", 0);
    assert_ok(open_node(&eight, &identity, &at));
    write_node(zeros, sizeof zeros);
    assert_ok(open_node(&eight, &identity, &at));
    write_node("KELPNODE", 8);
    assert_ok(open_node(&eight, &identity, &at)); /* no data beside it: begun, not finished */

    assert_ok(io_dir_create(io, "log"));
    write_node("KELPNODE", 8);
    assert_err(ERR_CORRUPT, open_node(&eight, &identity, &at));
    write_node("", 0);
    assert_err(ERR_CONFLICT, open_node(&eight, &identity, &at));
    assert_ok(io_dir_remove(io, "log"));
}

static int set_up(void **state)
{
    struct io *here;
    uint64_t salt;
    assert_ok(io_open("/tmp", &here));
    io_random(here, &salt, sizeof salt);
    snprintf(directory, sizeof directory, "/tmp/kelpie-identity-%016llx", (unsigned long long)salt);
    assert_ok(io_dir_create(here, directory));
    io_close(here);
    assert_ok(io_open(directory, &io));
    return 0;
}

static int tear_down(void **state)
{
    ERR_IGNORE(io_unlink(io, IDENTITY_FILE)); /* a test may have left none */
    assert_ok(io_dir_remove(io, directory));
    io_close(io);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_start_and_second),
        cmocka_unit_test(member_and_alone),
        cmocka_unit_test(damage_and_versions),
        cmocka_unit_test(interrupted_first_start),
    };
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    pool_close(pool);
    return failed;
}
