/* Fuzz: batch records. The first byte chooses: a whole record, or bytes behind a valid header. What decodes must
 * satisfy what apply relies on, and encode and decode to itself. */
#include "fuzz/fuzz_ingest.h"

#include "base/time.h"

static void require_valid(const struct batch *b)
{
    for (size_t i = 0; i < b->row_count; i++)
        FUZZ_REQUIRE(b->t_ms[i] >= TIME_MS_MIN && b->t_ms[i] <= TIME_MS_MAX);
    for (size_t i = 0; i < b->announce_count; i++)
        FUZZ_REQUIRE(labels_check(b->announces[i].labels, NULL) == OK);
    for (size_t i = 0; i < b->start_count; i++)
        FUZZ_REQUIRE(b->starts[i].row < b->row_count && (i == 0 || b->starts[i].row > b->starts[i - 1].row));
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len)
{
    if (len == 0)
        return 0;
    struct pool *pool = pool_open(NULL, "fuzz", POOL_BYTES_UNLIMITED);
    struct buf record = buf_open(pool, 64u << 20), again = buf_open(pool, 64u << 20);
    struct batch b, c;
    if (at[0] % 2 == 1) {
        static const uint8_t header[36] = { SIGNAL_METRIC, 1 };
        buf_put(&record, header, sizeof header);
        buf_put_string(&record, slice_str("t"));
    }
    buf_put(&record, at + 1, len - 1);
    if (batch_decode(buf_slice(&record), pool, &b) == OK) {
        require_valid(&b);
        if (batch_encode(&b, &again) == OK) {
            FUZZ_REQUIRE(batch_decode(buf_slice(&again), pool, &c) == OK);
            FUZZ_REQUIRE(b.row_count == c.row_count && b.announce_count == c.announce_count);
            for (size_t i = 0; i < b.row_count; i++)
                FUZZ_REQUIRE(b.numbers[i] == c.numbers[i] && b.t_ms[i] == c.t_ms[i] &&
                             b.value_bits[i] == c.value_bits[i]);
        }
    }
    pool_close(pool);
    return 0;
}
