/* RESTORE and CLONE: read as written, every bit counts, and who comes second goes on with the first one's. */
#include "base/test.h"

#include "node/cluster_plan.h"

#include <stdlib.h>
#include <string.h>

static struct cluster_plan sample(void)
{
    struct cluster_plan plan = { .cluster_id = { 1 }, .of_id = { 2, 3 }, .t_ms = -5, .partition_count = 3 };
    for (uint64_t i = 0; i < 3; i++)
        plan.numbers[i] = i << 40 | 7;
    return plan;
}

static void read_as_written(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct cluster_plan plan = sample(), out;
    struct buf bytes = buf_open(pool, 4096);
    cluster_plan_encode(&plan, &bytes);
    assert_ok(buf_err(&bytes));
    assert_ok(cluster_plan_decode(buf_slice(&bytes), &out));
    assert_memory_equal(&out, &plan, sizeof out);
    for (size_t bit = 0; bit < bytes.len * 8; bit++) {
        bytes.at[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_err(ERR_CORRUPT, cluster_plan_decode(buf_slice(&bytes), &out));
        bytes.at[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t len = 0; len < bytes.len; len++)
        assert_err(ERR_CORRUPT, cluster_plan_decode(slice_of(bytes.at, len), &out));
    buf_close(&bytes);
    pool_close(pool);
}

static void the_first_counts(void **state)
{
    char root[] = "/tmp/kelpie-plan-XXXXXX", command[100];
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct io *io;
    struct blob *blob;
    struct err_at at = { 0 };
    struct cluster_plan first = sample(), second = sample(), found;
    assert_non_null(mkdtemp(root));
    assert_ok(io_open(root, &io));
    assert_ok(blob_open_dir("blob", io, pool, &blob));
    assert_err(ERR_NOT_FOUND, cluster_plan_find(blob, CLUSTER_PLAN_CLONE, pool, &found, &at));
    assert_ok(cluster_plan_settle(blob, CLUSTER_PLAN_CLONE, pool, &first, &at));
    second.numbers[1] = 99;
    assert_ok(cluster_plan_settle(blob, CLUSTER_PLAN_CLONE, pool, &second, &at));
    assert_memory_equal(&second, &first, sizeof first);
    assert_ok(blob_replace(blob, CLUSTER_PLAN_CLONE, slice_str("something else")));
    assert_err(ERR_CORRUPT, cluster_plan_find(blob, CLUSTER_PLAN_CLONE, pool, &found, &at));
    assert_non_null(strstr(at.text, "the bucket's CLONE cannot be read"));
    blob_close(blob);
    io_close(io);
    pool_close(pool);
    snprintf(command, sizeof command, "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_as_written),
        cmocka_unit_test(the_first_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
