/* Any bytes as a row group, after its checksums have been made right, so that the decoders behind them are
 * reached: open, dictionary, reads, walk, exemplars, metadata, verify. Only errors and answers may come out.
 * Seeds: corpus/group. */
#include "base/bytes.h"
#include "base/hash.h"
#include "metric/metric.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX (64u << 20)
#define HEADER_BYTES   128
#define ENTRY_BYTES    12

/* Put the CRC32C of [from + 4, from + len) at from, if that lies inside. */
static void repair(uint8_t *at, size_t size, uint64_t from, uint64_t len)
{
    if (len >= 4 && from <= size && len <= size - from)
        put_le32(at + from, crc32c(slice_of(at + from + 4, (size_t)len - 4), 0));
}

static void repair_all(uint8_t *at, size_t size)
{
    uint64_t dictionary = get_le32(at + 88), dictionary_len = get_le32(at + 92);
    uint64_t directory = get_le32(at + 104), directory_len = get_le32(at + 108);
    put_le64(at + 8, size);
    repair(at, size, get_le32(at + 96), get_le32(at + 100));
    for (uint64_t i = 0; directory + directory_len <= size && (i + 1) * ENTRY_BYTES + 4 <= directory_len;
         i++) {
        const uint8_t *entry = at + directory + i * ENTRY_BYTES;
        repair(at, size, get_le32(entry + 4), get_le32(entry + 8));
    }
    for (uint64_t from = dictionary; from + 16 <= dictionary + dictionary_len && from + 16 <= size;) {
        uint64_t stored = get_le32(at + from + 8);
        repair(at, size, from, 16 + stored);
        from += 16 + stored;
    }
    if (directory_len >= 4 && directory + directory_len <= size)
        put_le32(at + directory + directory_len - 4,
                 crc32c(slice_of(at + directory, (size_t)directory_len - 4), 0));
    put_le32(at + 124, crc32c(slice_of(at, 124), 0));
}

static err read_at(void *context, uint64_t offset, void *at, size_t len)
{
    const struct slice *s = context;
    if (offset > s->len || len > s->len - offset)
        return ERR_END;
    memcpy(at, s->at + offset, len);
    return OK;
}

static err take_entry(void *context, uint32_t number, struct slice tenant, struct slice labels) { return OK; }

static void read_group(const struct metric_group *group, struct pool *pool)
{
    struct sample_columns columns = sample_columns_open(pool);
    struct time_range all = { INT64_MIN, INT64_MAX };
    struct metric_exemplar *exemplars;
    struct metric_metadata *metadata;
    size_t count;
    for (uint32_t number = 0; number < 80; number += 7)
        ERR_IGNORE(metric_group_read(group, number, all, pool, &columns));
    ERR_IGNORE(metric_columns_resolve(&columns));
    ERR_IGNORE(metric_group_dictionary(group, pool, take_entry, NULL));
    ERR_IGNORE(metric_group_exemplars(group, pool, &exemplars, &count));
    ERR_IGNORE(metric_group_metadata(group, pool, &metadata, &count));
    ERR_IGNORE(metric_group_verify(group, pool, NULL, NULL));
    sample_columns_close(&columns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEADER_BYTES)
        return 0;
    uint8_t *copy = malloc(size); /* an exact block: one byte too far is noticed */
    memcpy(copy, data, size);
    repair_all(copy, size);
    struct slice bytes = slice_of(copy, size);
    struct metric_group_bytes source = { .read = read_at, .context = &bytes, .len = size };
    struct pool *pool = pool_open(NULL, "fuzz", FUZZ_BYTES_MAX);
    struct metric_group *group;
    if (metric_group_open(pool, &source, &group) == OK) {
        read_group(group, pool);
        metric_group_close(group);
    }
    pool_close(pool);
    free(copy);
    return 0;
}
