/* Bytes of the question what a replica holds, and of its answer. Goal: what is written is read back; nothing
 * that is too long, cut short or out of order is. */
#include "base/test.h"
#include "sync/wire.h"

static struct sum random_sum(struct test_random *r)
{
    return (struct sum){ test_random_u64(r), test_random_u64(r), test_random_u64(r) };
}

static uint64_t random_short(struct test_random *r) { return test_random_u64(r) >> test_random_below(r, 64); }

static void fill(struct shard_sums *s, uint32_t marks, uint32_t segments, struct test_random *r)
{
    memset(s, 0, sizeof *s);
    s->is_open = true;
    s->is_recovered = test_random_below(r, 2) == 0;
    s->anew_count = (uint32_t)test_random_below(r, 3);
    s->generation = random_short(r);
    s->applied = random_short(r);
    s->chain_next = random_short(r);
    s->segment_count = (uint32_t)random_short(r);
    s->segments = random_sum(r);
    s->digests = random_sum(r);
    s->older_digests = random_sum(r);
    s->mark_count = marks;
    for (uint32_t i = 0; i < marks; i++)
        s->marks[i] = (struct shard_mark){ 3, 1000, 1000 + (marks - i) * 7, (int32_t)i - 1, random_sum(r) };
    s->page_count = segments;
    for (uint32_t i = 0; i < segments; i++) {
        s->page[i] = (struct shard_segment){ .era = random_short(r),
                                             .bytes = random_short(r),
                                             .from_generation = random_short(r),
                                             .from_offset = random_short(r),
                                             .to_generation = random_short(r),
                                             .to_offset = random_short(r),
                                             .sum = random_sum(r) };
        for (size_t k = 0; k < sizeof s->page[i].digest; k++)
            s->page[i].digest[k] = (uint8_t)test_random_below(r, 256);
    }
}

/* Encode, decode, and encode again. */
static void round_trip(const struct shard_sums *sums, struct pool *pool)
{
    static struct shard_sums again;
    struct buf bytes = buf_open(pool, SYNC_ANSWER_BYTES_MAX), twice = buf_open(pool, SYNC_ANSWER_BYTES_MAX);
    sync_answer_encode(sums, &bytes);
    assert_ok(buf_err(&bytes));
    assert_ok(sync_answer_decode(buf_slice(&bytes), &again));
    assert_memory_equal(&again, sums, sizeof again);
    sync_answer_encode(&again, &twice);
    assert_true(slice_equal(buf_slice(&bytes), buf_slice(&twice)));
    for (size_t len = 0; len < bytes.len; len += 1 + len / 8)
        assert_err(ERR_INPUT, sync_answer_decode(slice_part(buf_slice(&bytes), 0, len), &again));
    buf_put_u8(&bytes, 0);
    assert_err(ERR_INPUT, sync_answer_decode(buf_slice(&bytes), &again));
    buf_close(&twice);
    buf_close(&bytes);
}

static void answers_come_back(void **unused)
{
    static struct shard_sums sums;
    struct test_random r = test_random_begin("answers_come_back");
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    fill(&sums, SHARD_MARKS_MAX, SHARD_SEGMENT_PAGE_MAX, &r); /* the longest there is, fits */
    round_trip(&sums, pool);
    for (int i = 0; i < 100; i++) {
        fill(&sums, (uint32_t)test_random_below(&r, SHARD_MARKS_MAX + 1),
             (uint32_t)test_random_below(&r, SHARD_SEGMENT_PAGE_MAX + 1), &r);
        round_trip(&sums, pool);
    }
    memset(&sums, 0, sizeof sums); /* it is not open */
    round_trip(&sums, pool);
    pool_close(pool);
}

static void what_is_not_in_order_is_refused(void **unused)
{
    static struct shard_sums sums, got;
    struct test_random r = test_random_begin("what_is_not_in_order_is_refused");
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct buf bytes = buf_open(pool, SYNC_ANSWER_BYTES_MAX);
    fill(&sums, 3, 2, &r);
    sums.marks[2] = sums.marks[1];
    sync_answer_encode(&sums, &bytes);
    assert_err(ERR_INPUT, sync_answer_decode(buf_slice(&bytes), &got));
    bytes.at[0] = SYNC_WIRE_VERSION + 1;
    assert_err(ERR_VERSION, sync_answer_decode(buf_slice(&bytes), &got));
    bytes.at[0] = 0;
    assert_err(ERR_INPUT, sync_answer_decode(buf_slice(&bytes), &got));
    assert_err(ERR_INPUT, sync_answer_decode(slice_of("\1\2", 2), &got)); /* a flag of 2 */
    pool_close(pool);
}

static void questions_come_back(void **unused)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct buf bytes = buf_open(pool, SYNC_REQUEST_BYTES_MAX);
    struct sync_request request = { UINT32_MAX, 1u << 20, SHARD_SEGMENT_PAGE_MAX }, got;
    sync_request_encode(&request, &bytes);
    assert_ok(buf_err(&bytes));
    assert_ok(sync_request_decode(buf_slice(&bytes), &got));
    assert_memory_equal(&got, &request, sizeof got);
    for (size_t len = 0; len < bytes.len; len++)
        assert_err(ERR_INPUT, sync_request_decode(slice_part(buf_slice(&bytes), 0, len), &got));
    buf_put_u8(&bytes, 1);
    assert_err(ERR_INPUT, sync_request_decode(buf_slice(&bytes), &got));
    buf_clear(&bytes);
    request.count = SHARD_SEGMENT_PAGE_MAX + 1;
    sync_request_encode(&request, &bytes);
    assert_err(ERR_INPUT, sync_request_decode(buf_slice(&bytes), &got));
    bytes.at[0] = SYNC_WIRE_VERSION + 1;
    assert_err(ERR_VERSION, sync_request_decode(buf_slice(&bytes), &got));
    assert_err(ERR_INPUT, sync_request_decode(slice_of("\1\x80\0\1\1", 5), &got)); /* 0 in two bytes */
    pool_close(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_come_back),
        cmocka_unit_test(what_is_not_in_order_is_refused),
        cmocka_unit_test(questions_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
