/* Fuzz: remote write 1.0. The first byte chooses how deep the bytes are put: a request, what follows the labels
 * of a series, a histogram, an exemplar, metadata. The layers around are valid, snappy included. */
#include "fuzz/fuzz_ingest.h"

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len)
{
    if (len == 0)
        return 0;
    struct slice rest = slice_of(at + 1, len - 1);
    struct pool *pool = pool_open(NULL, "message", POOL_BYTES_UNLIMITED);
    struct buf request = buf_open(pool, 1u << 24), series = buf_open(pool, 1u << 24);
    unsigned depth = at[0] % 5;
    if (depth == 0) {
        buf_put_slice(&request, rest);
    } else if (depth == 4) {
        pb_bytes(&request, 3, rest);
    } else {
        pb_labels(&series, "__name__=m job=a");
        if (depth == 1)
            buf_put_slice(&series, rest);
        else
            pb_bytes(&series, depth == 2 ? 4 : 3, rest);
        pb_message(&request, 1, &series);
        pb_series(&request, "__name__=n", 1, 2);
    }
    fuzz_remote_write(buf_slice(&request), "application/x-protobuf");
    pool_close(pool);
    return 0;
}
