/* Any bytes as a canonical histogram: what decodes and is valid survives being encoded, and its buckets ascend. */
#include "base/check.h"
#include "model/histogram.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pool *pool = pool_open(NULL, "fuzz", 64u << 20);
    struct histogram h;
    struct err_at at = { 0 };
    if (histogram_decode(slice_of(data, size), pool, &h) == OK) {
        struct buf again = buf_open(pool, 2 * HISTOGRAM_BYTES_MAX);
        struct histogram same;
        bool valid = histogram_check(&h, &at) == OK;
        histogram_encode(&h, &again);
        if (valid && buf_err(&again) == OK) {
            check(histogram_decode(buf_slice(&again), pool, &same) == OK);
            check(histogram_check(&same, &at) == OK);
            struct histogram_bucket *buckets;
            size_t count;
            if (histogram_buckets(&h, pool, &buckets, &count) == OK)
                for (size_t i = 1; i < count;
                     i++) /* but for the zero bucket (3), which may be of any width */
                    check(buckets[i - 1].lower <= buckets[i].lower || buckets[i - 1].boundaries == 3 ||
                          buckets[i].boundaries == 3);
        }
        buf_close(&again);
    }
    pool_close(pool);
    return 0;
}
