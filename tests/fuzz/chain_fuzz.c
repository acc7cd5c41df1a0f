/* Any bytes as entries of a manifest chain: (length as le16, bytes) …, each with magic and checksum made right.
 * What decodes encodes and decodes to itself, and is folded, at its own number and as a plausible next entry. */
#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "shard/chain.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX (64u << 20)

static void one(struct pool *pool, struct slice bytes, struct chain *chain)
{
    struct buf entry_bytes = buf_open(pool, 1u << 20), again = buf_open(pool, CHAIN_ENTRY_BYTES_MAX);
    struct chain_entry entry, same;
    bool valid;
    const char *why;
    ERR_IGNORE(chain_entry_decode(bytes, pool, &entry));
    buf_put_le32(&entry_bytes, UINT32_C(0x4e48434b));
    buf_put_slice(&entry_bytes, bytes);
    buf_put_le32(&entry_bytes, crc32c(buf_slice(&entry_bytes), 0));
    if (buf_err(&entry_bytes) == OK && chain_entry_decode(buf_slice(&entry_bytes), pool, &entry) == OK) {
        if (chain_entry_encode(&entry, &again) == OK) {
            check(chain_entry_decode(buf_slice(&again), pool, &same) == OK);
            check(same.kind == entry.kind && same.segment_count == entry.segment_count);
        }
        ERR_IGNORE(chain_fold(chain, &entry, &valid, &why));
        entry.number = chain->next_number;
        entry.partition = chain->partition;
        bool would;
        err asked = chain_would_take(chain, &entry, &would);
        if (chain_fold(chain, &entry, &valid, &why) == OK)
            check(valid == (why == NULL) && (asked != OK || would == valid));
        sum_equal(chain_stored_sum(chain), (struct sum){ 0 });
    }
    buf_close(&again);
    buf_close(&entry_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pool *pool = pool_open(NULL, "fuzz", FUZZ_BYTES_MAX);
    struct chain chain = chain_open(pool, 0, (struct log_position){ .generation = 1 });
    struct reader r = reader_of(slice_of(data, size));
    while (read_left(&r) > 2) {
        size_t len = read_le16(&r);
        one(pool, read_bytes(&r, len < read_left(&r) ? len : read_left(&r)), &chain);
    }
    for (size_t i = 1; i < chain.segment_count; i++) {
        size_t pair[2] = { i - 1, i };
        chain_may_replace(&chain, pair, 2);
    }
    chain_close(&chain);
    pool_close(pool);
    return 0;
}
