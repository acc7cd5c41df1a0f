/* Any bytes as NODE, as they are and with magic and checksum made right: what decodes encodes to the same. */
#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "node/identity.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct identity identity, same;
    struct err_at at = { 0 };
    uint8_t bytes[IDENTITY_BYTES] = { 0 }, again[IDENTITY_BYTES], magic[IDENTITY_BYTES];
    memcpy(bytes, data, size < sizeof bytes ? size : sizeof bytes);
    ERR_IGNORE(identity_decode(bytes, &identity, &at));
    identity = (struct identity){ .partition_count = 1, .range_bytes_max = 1 };
    identity_encode(&identity, magic);
    memcpy(bytes, magic, 8);
    ERR_IGNORE(identity_decode(bytes, &identity, &at));
    put_le32(bytes + 124, crc32c(slice_of(bytes, 124), 0));
    if (identity_decode(bytes, &identity, &at) == OK) {
        check(memchr(identity.program, 0, sizeof identity.program) != NULL);
        identity_encode(&identity, again);
        check(identity_decode(again, &same, &at) == OK);
        check(same.partition_count == identity.partition_count);
        check(same.range_bytes_max == identity.range_bytes_max);
    }
    return 0;
}
