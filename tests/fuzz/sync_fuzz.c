/* Any bytes as the question what a replica holds, and as its answer. What is decoded is within its bounds, encodes
 * to the same bytes again, and can be compared with itself and with what it becomes when a byte of it is changed:
 * never different from itself, and both sides agree about who would begin anew. */
#include "base/check.h"
#include "sync/sync.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void question(struct slice bytes, struct buf *again)
{
    struct sync_request request;
    if (sync_request_decode(bytes, &request) != OK)
        return;
    check(request.count <= SHARD_SEGMENT_PAGE_MAX);
    buf_clear(again);
    sync_request_encode(&request, again);
    check(buf_err(again) == OK && slice_equal(buf_slice(again), bytes));
}

static void two(const struct shard_sums *a, const struct shard_sums *b)
{
    struct sync_result here = sync_compare(a, b), there = sync_compare(b, a);
    bool is_undecided;
    check(here.verdict == there.verdict && here.has_range == there.has_range);
    check(!here.has_range || (here.from == there.from && here.to == there.to));
    bool loser = sync_is_loser(a, 1, b, 2, &is_undecided);
    check(loser + sync_is_loser(b, 2, a, 1, &is_undecided) == !is_undecided);
    (void)sync_narrow(a, b, &here);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct shard_sums sums, other;
    struct pool *pool = pool_open(NULL, "fuzz", 4u << 20);
    struct buf again = buf_open(pool, SYNC_ANSWER_BYTES_MAX);
    struct slice bytes = slice_of(data, size);
    question(bytes, &again);
    if (sync_answer_decode(bytes, &sums) == OK) {
        check(sums.mark_count <= SHARD_MARKS_MAX && sums.page_count <= SHARD_SEGMENT_PAGE_MAX);
        buf_clear(&again);
        sync_answer_encode(&sums, &again);
        check(buf_err(&again) == OK && slice_equal(buf_slice(&again), bytes));
        check(sync_compare(&sums, &sums).verdict != SYNC_DIFFER);
        for (size_t i = 0; i < again.len && i < 64; i++) {
            again.at[i] ^= 1;
            if (sync_answer_decode(buf_slice(&again), &other) == OK)
                two(&sums, &other);
            again.at[i] ^= 1;
        }
    }
    pool_close(pool);
    return 0;
}
