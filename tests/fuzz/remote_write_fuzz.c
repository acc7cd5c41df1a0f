/* Fuzz: a remote write request as it comes: Content-Type, Content-Encoding and tenant (a line each), then the body
 * with all that Snappy may be wrong in it. */
#include "fuzz/fuzz_ingest.h"

static struct slice line(struct slice *rest)
{
    const uint8_t *end = rest->len == 0 ? NULL : memchr(rest->at, '\n', rest->len);
    size_t len = end == NULL ? rest->len : (size_t)(end - rest->at);
    struct slice head = slice_of(rest->at, len);
    *rest = slice_part(*rest, len + (end != NULL), rest->len - len - (end != NULL));
    return head;
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len)
{
    struct slice rest = slice_of(at, len);
    struct slice type = line(&rest), encoding = line(&rest);
    struct ingest_config config = ingest_config_default();
    config.decoded_bytes_max = 1u << 20;
    config.body_bytes_max = 8192;
    fuzz_ingest(&config, FUZZ_REMOTE_WRITE, type, encoding, rest);
    return 0;
}
