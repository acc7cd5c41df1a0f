/* Fuzz: remote write 2.0. The first byte chooses how deep the bytes are put: a request, a series, what follows its
 * labels, a histogram, an exemplar, metadata. The layers around are valid, symbols and snappy included. */
#include "fuzz/fuzz_ingest.h"

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len)
{
    if (len == 0)
        return 0;
    struct slice rest = slice_of(at + 1, len - 1);
    struct pool *pool = pool_open(NULL, "message", POOL_BYTES_UNLIMITED);
    struct buf request = buf_open(pool, 1u << 24), series = buf_open(pool, 1u << 24);
    struct pb_symbols symbols = { .count = 0 };
    unsigned depth = at[0] % 6;
    if (depth == 0) {
        buf_put_slice(&request, rest);
    } else {
        if (depth > 1) {
            pb_refs(&series, &symbols, "__name__=m job=a");
            pb_sample(&series, 1, 2, 0);
        } else {
            pb_symbol(&symbols, slice_str("__name__"));
            pb_symbol(&symbols, slice_str("m"));
        }
        if (depth <= 2)
            buf_put_slice(&series, rest);
        else
            pb_bytes(&series, depth, rest); /* 3 histogram, 4 exemplar, 5 metadata */
        pb_message(&request, 5, &series);
        pb_symbols_put(&request, &symbols);
    }
    fuzz_remote_write(buf_slice(&request), "application/x-protobuf;proto=io.prometheus.write.v2.Request");
    pool_close(pool);
    return 0;
}
