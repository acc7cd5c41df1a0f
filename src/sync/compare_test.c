/* Are replicas equal, and who is to begin anew? Goal: only what both know is compared, a difference is narrowed
 * down to what differs, and both sides agree about who is wrong. */
#include "base/test.h"
#include "sync/compare.h"

static struct sum sum_of(uint64_t rows, uint64_t low) { return (struct sum){ rows, low, 0 }; }

/* A replica that marked these offsets, the newest first, of a range that began at 100; rows as many as offsets. */
static struct shard_sums replica(const uint64_t *at, size_t count)
{
    struct shard_sums s = { .is_open = true, .generation = 1, .applied = at[0], .chain_next = 7 };
    for (size_t i = 0; i < count; i++)
        s.marks[s.mark_count++] = (struct shard_mark){ 1, 100, at[i], 3, sum_of(at[i] - 100, at[i] * 17) };
    return s;
}

static void marks_of_the_same_place_are_compared(void **unused)
{
    static const uint64_t here[] = { 190, 189, 176, 160 }, there[] = { 183, 182, 176, 160, 144 };
    struct shard_sums a = replica(here, 4), b = replica(there, 5);
    struct sync_result r = sync_compare(&a, &b);
    assert_int_equal(r.verdict, SYNC_EQUAL);
    assert_int_equal(r.at, 176);
    b.marks[0].sum.low ^= 1; /* where only one of them was */
    assert_int_equal(sync_compare(&a, &b).verdict, SYNC_EQUAL);
    b.marks[2].sum.low ^= 1;
    r = sync_compare(&a, &b);
    assert_int_equal(r.verdict, SYNC_DIFFER);
    assert_false(r.is_sealed);
    assert_true(r.has_range);
    assert_int_equal(r.from, 160);
    assert_int_equal(r.to, 176);
    assert_true(sum_equal(r.a, a.marks[2].sum) && sum_equal(r.b, b.marks[2].sum));
    b.marks[3].sum.low ^= 1;
    r = sync_compare(&a, &b);
    assert_int_equal(r.from, 100); /* nothing below agrees */
    assert_int_equal(r.to, 160);
}

static void what_cannot_be_compared_is_neither(void **unused)
{
    static const uint64_t here[] = { 190, 189 }, there[] = { 183, 182 };
    struct shard_sums a = replica(here, 2), b = replica(there, 2);
    assert_int_equal(sync_compare(&a, &b).verdict, SYNC_UNSURE);
    b = a;
    assert_int_equal(sync_compare(&a, &b).verdict, SYNC_EQUAL);
    b.chain_next++; /* it has read more */
    assert_int_equal(sync_compare(&a, &b).verdict, SYNC_UNSURE);
    b.marks[0].sum.count++; /* which excuses nothing else */
    assert_int_equal(sync_compare(&a, &b).verdict, SYNC_DIFFER);
    b = a;
    b.is_open = false;
    assert_int_equal(sync_compare(&a, &b).verdict, SYNC_UNSURE);
    b = a; /* a log that went back has other records there */
    b.marks[0].leader_epoch = b.marks[1].leader_epoch = 4;
    b.marks[0].sum.count++;
    assert_int_equal(sync_compare(&a, &b).verdict, SYNC_UNSURE);
    b = a;
    b.marks[0].start = b.marks[1].start = 150; /* of another range */
    assert_int_equal(sync_compare(&a, &b).verdict, SYNC_UNSURE);
    b = a;
    b.generation = 2;
    assert_int_equal(sync_compare(&a, &b).verdict, SYNC_UNSURE);
}

static struct shard_segment segment_of(uint8_t name)
{
    struct shard_segment s = { .digest = { name }, .from_offset = name * 10u, .to_offset = name * 10u + 10 };
    s.sum = sum_of(name, name * 31);
    return s;
}

static void segments_are_narrowed_down(void **unused)
{
    static const uint64_t at[] = { 190 };
    struct shard_sums a = replica(at, 1), b;
    for (uint8_t i = 0; i < 4; i++) {
        a.page[a.page_count++] = segment_of(9 - i);
        sum_add(&a.segments, a.page[i].sum);
    }
    a.segment_count = 4;
    a.digests = sum_of(4, 77);
    b = a;
    assert_int_equal(sync_compare(&a, &b).verdict, SYNC_EQUAL);
    b.digests.low++; /* the same rows otherwise packed are another fold */
    struct sync_result r = sync_compare(&a, &b);
    assert_int_equal(r.verdict, SYNC_DIFFER);
    assert_true(r.is_sealed);
    assert_true(sync_narrow(&a, &b, &r)); /* this page agrees, and so does what is older */
    assert_false(r.has_range);
    b.older_digests.low = 5;
    assert_false(sync_narrow(&a, &b, &r)); /* it is on another page */
    assert_false(r.has_range);
    b.page[2].digest[1] = 1;
    assert_true(sync_narrow(&a, &b, &r));
    assert_true(r.has_range);
    assert_int_equal(r.from, 70);
    assert_int_equal(r.to, 80);
    b.page_count = 1; /* it lacks them */
    r.has_range = false;
    assert_true(sync_narrow(&a, &b, &r));
    assert_int_equal(r.from, 80);
    assert_int_equal(r.b.count, 0);
    a.page_count = b.page_count = 0; /* no more pages */
    assert_true(sync_narrow(&a, &b, &r));
}

static void both_sides_agree_who_begins_anew(void **unused)
{
    struct test_random random = test_random_begin("both_sides_agree_who_begins_anew");
    for (int i = 0; i < 1000; i++) {
        struct shard_sums a = { .is_recovered = test_random_below(&random, 2) == 0,
                                .anew_count = (uint32_t)test_random_below(&random, 3) };
        struct shard_sums b = { .is_recovered = test_random_below(&random, 2) == 0,
                                .anew_count = (uint32_t)test_random_below(&random, 3) };
        bool is_undecided, is_undecided_there;
        bool here = sync_is_loser(&a, 4, &b, 7, &is_undecided);
        bool there = sync_is_loser(&b, 7, &a, 4, &is_undecided_there);
        assert_int_equal(is_undecided, is_undecided_there);
        assert_int_equal(here + there, is_undecided ? 0 : 1);
        if (a.is_recovered != b.is_recovered)
            assert_int_equal(here, a.is_recovered);
    }
    struct shard_sums a = { .anew_count = 1 }, b = { .anew_count = 1 };
    bool is_undecided;
    assert_false(sync_is_loser(&a, 4, &b, 7, &is_undecided));
    assert_true(is_undecided);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_of_the_same_place_are_compared),
        cmocka_unit_test(what_cannot_be_compared_is_neither),
        cmocka_unit_test(segments_are_narrowed_down),
        cmocka_unit_test(both_sides_agree_who_begins_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
