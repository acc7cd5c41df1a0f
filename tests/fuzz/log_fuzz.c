/* Any bytes as a log file: headers, frames, the scan with its search for the next frame. Checksums of what looks
 * like frames are made right first, so that what is behind them is reached. Only errors and items may come out. */
#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "log/log_frame.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PARTITIONS 3
#define NUMBER     7

static const uint8_t cluster_id[16] = "fuzz";

static void repair(uint8_t *at, size_t size, uint32_t seed)
{
    for (size_t i = 0; i + LOG_FRAME_HEADER_BYTES <= size; i += LOG_FRAME_ALIGN) {
        if (get_le16(at + i) != 0x464b)
            continue;
        put_le32(at + i + 8, NUMBER);
        uint32_t crc = crc32c(slice_of(at + i, 24), seed);
        put_le32(at + i + 24, crc);
        uint32_t length = get_le32(at + i + 4);
        if (length % 2 == 0 && length <= size - i - LOG_FRAME_HEADER_BYTES)
            put_le32(at + i + 28, crc32c(slice_of(at + i + LOG_FRAME_HEADER_BYTES, length), crc));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t starts[PARTITIONS];
    uint64_t trims[PARTITIONS];
    struct log_file_header header = { .starts = starts, .trims = trims };
    ERR_IGNORE(log_header_decode(slice_of(data, size), PARTITIONS, &header));

    uint8_t *copy = malloc(size + 1); /* an exact block, but for the empty one */
    memcpy(copy, data, size);
    uint32_t seed = log_frame_seed(cluster_id, NUMBER);
    repair(copy, size, seed);
    struct log_scan scan = {
        .limit = size,
        .seed = seed,
        .number = NUMBER,
        .partition_count = PARTITIONS,
        .window = slice_of(copy, size),
    };
    struct log_item item;
    uint64_t position = 0, durable = 0;
    check(log_scan_ahead(&scan) == OK && scan.position == 0);
    durable = scan.durable;
    while (log_scan_next(&scan, &item) == OK) { /* the items tile the file */
        check(item.position == position);
        check(item.next > position);
        position = item.next;
    }
    check(position == size);
    check(scan.durable == durable && durable <= size);
    free(copy);
    return 0;
}
