/* Proofs. Goal: a joined proof is as complete and as new as the part that lacks most, and names each loss once.
 * Method: proofs built by hand. */
#include "base/test.h"
#include "model/proof.h"

static void losses_are_named_once(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct proof proof = { .complete = true };
    char same[] = "gap";
    assert_int_equal(proof_reserve(&proof, pool), OK);
    proof_miss(&proof, &(struct proof_missing){ 1, { 10, 20 }, "gap" });
    proof_miss(&proof, &(struct proof_missing){ 1, { 12, 20 }, same });    /* within the first */
    proof_miss(&proof, &(struct proof_missing){ 1, { 12, 21 }, "gap" });   /* beyond it */
    proof_miss(&proof, &(struct proof_missing){ 2, { 10, 20 }, "gap" });   /* of another partition */
    proof_miss(&proof, &(struct proof_missing){ 1, { 10, 20 }, "other" }); /* for another reason */
    assert_false(proof.complete);
    assert_int_equal(proof.missing_count, 4);
    pool_close(pool);
}

static void losses_beyond_the_room_still_count(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct proof proof = { .complete = true };
    assert_int_equal(proof_reserve(&proof, pool), OK);
    for (uint32_t i = 0; i < PROOF_MISSING_COUNT_MAX + 5; i++)
        proof_miss(&proof, &(struct proof_missing){ i, { 1, 2 }, "gap" });
    assert_int_equal(proof.missing_count, PROOF_MISSING_COUNT_MAX);
    struct proof joined = { .complete = true };
    assert_int_equal(proof_join(&joined, &proof, pool), OK);
    assert_int_equal(joined.missing_count, PROOF_MISSING_COUNT_MAX);
    assert_false(joined.complete);
    pool_close(pool);
}

static void joined_proofs_lack_what_either_lacks(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct proof_partition partitions[3] = { { 0, 1, 5, 6 }, { 1, 1, 7, 7 }, { 0, 1, 9, 9 } };
    struct proof_missing missing = { 1, { 10, 20 }, "gap" };
    struct proof a = {
        .complete = true, .data_through_ms = 50, .partitions = partitions, .partition_count = 1
    };
    struct proof b = { .data_through_ms = 40,
                       .partitions = partitions + 1,
                       .partition_count = 2,
                       .missing = &missing,
                       .missing_count = 1 };
    struct proof joined = { .complete = true };
    assert_int_equal(proof_join(&joined, &a, pool), OK);
    assert_true(joined.complete);
    assert_int_equal(joined.data_through_ms, 50);
    assert_int_equal(proof_join(&joined, &b, pool), OK);
    assert_int_equal(proof_join(&joined, &b, pool), OK);
    assert_int_equal(proof_join(&joined, &a, pool), OK);
    assert_false(joined.complete);
    assert_int_equal(joined.data_through_ms, 40);
    assert_int_equal(joined.partition_count, 2);
    assert_int_equal(joined.partitions[0].applied_offset, 5);
    assert_int_equal(joined.partitions[1].partition, 1);
    assert_int_equal(joined.missing_count, 1);
    assert_int_equal(a.partition_count, 1); /* what was joined is as it was */
    pool_close(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_are_named_once),
        cmocka_unit_test(losses_beyond_the_room_still_count),
        cmocka_unit_test(joined_proofs_lack_what_either_lacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
