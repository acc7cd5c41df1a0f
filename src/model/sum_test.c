/* SUM. Goal: the constants of the format never change, sums add and subtract exactly. Method: check
 * values printed in docs/format/sum.md, random sets added in two orders. */
#include "base/bytes.h"
#include "base/test.h"
#include "model/sum.h"

static void constants_hold(void **state)
{
    struct slice labels = slice_of("\x0a\x0e\x0a\x08__name__\x12\x02"
                                   "up",
                                   16);
    struct hash128 series = sum_series_hash(slice_str("default"), labels);
    struct hash128 row = sum_row_hash(series, 1700000000000, double_bits(1.5), 0, 0);
    struct hash128 with_start = sum_row_hash(series, 1700000000000, double_bits(1.5), 1699999999000, 1);
    uint64_t bits = sum_histogram_bits(slice_str("histogram"));
    assert_true(hash128_equal(series, (struct hash128){ 0x6eee5f8494cec01f, 0xfcba370c48aff7f5 }));
    assert_true(hash128_equal(row, (struct hash128){ 0x6a68b5e6d3b1d5c2, 0xa352bc75d27baf10 }));
    assert_true(hash128_equal(with_start, (struct hash128){ 0xefa634485cdf7afc, 0x43a5ea544ee36807 }));
    assert_true(bits == 0x1df0c2ba56aa21bf);
}

static void tenants_differ(void **state)
{
    struct slice labels = slice_str("whatever");
    struct hash128 a = sum_series_hash(slice_str("a"), labels);
    struct hash128 b = sum_series_hash(slice_str("b"), labels);
    assert_false(hash128_equal(a, b));
    assert_true(hash128_equal(a, sum_series_hash(slice_str("a"), labels)));
}

static void every_input_counts(void **state)
{
    struct hash128 s = { 1, 2 };
    struct hash128 base = sum_row_hash(s, 10, 20, 30, 0);
    assert_false(hash128_equal(base, sum_row_hash(s, 11, 20, 30, 0)));
    assert_false(hash128_equal(base, sum_row_hash(s, 10, 21, 30, 0)));
    assert_false(hash128_equal(base, sum_row_hash(s, 10, 20, 31, 0)));
    assert_false(hash128_equal(base, sum_row_hash(s, 10, 20, 30, 1)));
    assert_false(hash128_equal(base, sum_row_hash((struct hash128){ 2, 2 }, 10, 20, 30, 0)));
    assert_false(hash128_equal(base, sum_row_hash((struct hash128){ 1, 3 }, 10, 20, 30, 0)));
}

static void sums_add_in_any_order(void **state)
{
    struct test_random random = test_random_begin("sums_add_in_any_order");
    enum { ROWS = 500 };
    struct hash128 rows[ROWS];
    struct sum forward = { 0 }, backward = { 0 }, left = { 0 }, right = { 0 };
    for (int i = 0; i < ROWS; i++)
        rows[i] = (struct hash128){ test_random_u64(&random), test_random_u64(&random) };
    for (int i = 0; i < ROWS; i++) {
        sum_add_hash(&forward, rows[i]);
        sum_add_hash(&backward, rows[ROWS - 1 - i]);
        sum_add_hash(test_random_below(&random, 2) ? &left : &right, rows[i]);
    }
    assert_true(sum_equal(forward, backward));
    struct sum both = left;
    sum_add(&both, right);
    assert_true(sum_equal(forward, both));
    sum_subtract(&both, left);
    assert_true(sum_equal(both, right));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constants_hold),
        cmocka_unit_test(tenants_differ),
        cmocka_unit_test(every_input_counts),
        cmocka_unit_test(sums_add_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
