/* File headers, frames, and the scan of one file image. Pure functions over bytes; recovery, readers and
 * the fuzzer call them (docs/format/log.md).
 *
 * Invariants:
 *   1. A frame is believed only when its header's checksum, seeded with cluster and file number, is right; a
 *      payload only when the checksum continued over it is right too.
 *   2. Every length is compared with what is left before it is used. */
#include "log/log_frame.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"

#define FRAME_MAGIC            0x464bu                      /* "KF" */
#define FILE_MAGIC             UINT64_C(0x474f4c5f504c454b) /* "KELP_LOG" */
#define HEADER_FIXED_BYTES     64u
#define HEADER_PARTITION_BYTES 16u

uint64_t log_header_copy_bytes(uint32_t partition_count)
{
    uint64_t bytes = HEADER_FIXED_BYTES + (uint64_t)HEADER_PARTITION_BYTES * partition_count + 4;
    return (bytes + LOG_PAGE_BYTES - 1) / LOG_PAGE_BYTES * LOG_PAGE_BYTES;
}

uint64_t log_data_start(uint32_t partition_count) { return 2 * log_header_copy_bytes(partition_count); }

void log_header_encode(const struct log_file_header *header, uint8_t *at)
{
    memset(at, 0, (size_t)log_header_copy_bytes(header->partition_count));
    put_le64(at, FILE_MAGIC);
    put_le32(at + 8, LOG_FORMAT_VERSION);
    put_le32(at + 12, header->partition_count);
    memcpy(at + 16, header->cluster_id, 16);
    put_le64(at + 32, header->number);
    put_le64(at + 40, header->previous_number);
    put_le64(at + 48, header->previous_end);
    put_le64(at + 56, header->generation);
    uint8_t *next = at + HEADER_FIXED_BYTES;
    for (uint32_t p = 0; p < header->partition_count; p++, next += HEADER_PARTITION_BYTES) {
        put_le64(next, header->starts[p]);
        put_le64(next + 8, header->trims[p]);
    }
    put_le32(next, crc32c(slice_of(at, (size_t)(next - at)), 0));
}

err log_header_decode(struct slice copy, uint32_t partition_count_max, struct log_file_header *header)
{
    if (copy.len < HEADER_FIXED_BYTES + 4 || get_le64(copy.at) != FILE_MAGIC)
        return ERR_CORRUPT;
    uint32_t count = get_le32(copy.at + 12);
    uint64_t bytes = HEADER_FIXED_BYTES + (uint64_t)HEADER_PARTITION_BYTES * count;
    if (count > LOG_PARTITION_COUNT_MAX || bytes + 4 > copy.len)
        return ERR_CORRUPT;
    if (get_le32(copy.at + bytes) != crc32c(slice_of(copy.at, (size_t)bytes), 0))
        return ERR_CORRUPT;
    if (get_le32(copy.at + 8) != LOG_FORMAT_VERSION)
        return ERR_VERSION;
    header->partition_count = count;
    memcpy(header->cluster_id, copy.at + 16, 16);
    header->number = get_le64(copy.at + 32);
    header->previous_number = get_le64(copy.at + 40);
    header->previous_end = get_le64(copy.at + 48);
    header->generation = get_le64(copy.at + 56);
    if (count > partition_count_max)
        return ERR_LIMIT;
    const uint8_t *next = copy.at + HEADER_FIXED_BYTES;
    for (uint32_t p = 0; p < count; p++, next += HEADER_PARTITION_BYTES) {
        header->starts[p] = get_le64(next);
        if (header->starts[p] >= LOG_OFFSET_MAX / 2)
            return ERR_CORRUPT;
        header->trims[p] = get_le64(next + 8);
    }
    return OK;
}

uint32_t log_frame_seed(const uint8_t cluster_id[16], uint64_t number)
{
    uint8_t bytes[24];
    memcpy(bytes, cluster_id, 16);
    put_le64(bytes + 16, number);
    return crc32c(slice_of(bytes, sizeof bytes), 0);
}

void log_frame_encode(const struct log_frame *frame, uint32_t seed, uint8_t *at)
{
    check(frame->durable % LOG_FRAME_ALIGN == 0);
    check(frame->length <= LOG_RECORD_BYTES_MAX);
    put_le16(at, FRAME_MAGIC);
    put_le16(at + 2, (uint16_t)frame->partition);
    put_le32(at + 4, frame->length);
    put_le32(at + 8, (uint32_t)frame->number);
    put_le32(at + 12, (uint32_t)(frame->durable / LOG_FRAME_ALIGN));
    put_le64(at + 16, frame->offset);
    uint32_t crc = crc32c(slice_of(at, 24), seed);
    put_le32(at + 24, crc);
    put_le32(at + 28, crc32c(slice_of(at + LOG_FRAME_HEADER_BYTES, frame->length), crc));
}

bool log_frame_decode(const uint8_t *at, uint32_t seed, uint64_t number, struct log_frame *out_frame)
{
    if (get_le16(at) != FRAME_MAGIC || get_le32(at + 8) != (uint32_t)number)
        return false;
    if (get_le32(at + 4) > LOG_RECORD_BYTES_MAX || get_le32(at + 24) != crc32c(slice_of(at, 24), seed))
        return false;
    *out_frame = (struct log_frame){
        .partition = get_le16(at + 2),
        .length = get_le32(at + 4),
        .number = number,
        .durable = (uint64_t)get_le32(at + 12) * LOG_FRAME_ALIGN,
        .offset = get_le64(at + 16),
    };
    return true;
}

bool log_frame_is_whole(const uint8_t *at, const struct log_frame *frame)
{
    struct slice payload = slice_of(at + LOG_FRAME_HEADER_BYTES, frame->length);
    return get_le32(at + 28) == crc32c(payload, get_le32(at + 24));
}

/* ---- the scan ---- */

/* Bytes of the file that are below the limit, through the window. */
static err bytes_at(struct log_scan *scan, uint64_t position, uint64_t bytes, const uint8_t **out_at)
{
    uint64_t skipped = position - scan->window_position;
    if (position < scan->window_position || skipped > scan->window.len ||
        scan->window.len - skipped < bytes) {
        check(scan->read != NULL);
        struct slice window;
        TRY(scan->read(scan->context, position, bytes, &window));
        check(window.len >= bytes);
        scan->window = window;
        scan->window_position = position;
        skipped = 0;
    }
    *out_at = scan->window.at + skipped;
    return OK;
}

/* Whether a believable header begins at position: of an existing partition, ending within the limit. */
static err frame_at(struct log_scan *scan, uint64_t position, struct log_frame *out_frame, bool *out_is_frame)
{
    const uint8_t *at;
    *out_is_frame = false;
    TRY(bytes_at(scan, position, LOG_FRAME_HEADER_BYTES, &at));
    if (!log_frame_decode(at, scan->seed, scan->number, out_frame))
        return OK;
    if (log_frame_bytes(out_frame->length) > scan->limit - position || out_frame->durable > position)
        return OK;
    if (out_frame->partition == LOG_MARKER_PARTITION)
        *out_is_frame = out_frame->length == 8 * scan->partition_count;
    else
        *out_is_frame = out_frame->partition < scan->partition_count && out_frame->offset < LOG_OFFSET_MAX;
    return OK;
}

static err item_of_frame(struct log_scan *scan, const struct log_frame *frame, struct log_item *out_item)
{
    const uint8_t *at;
    uint64_t bytes = log_frame_bytes(frame->length);
    TRY(bytes_at(scan, scan->position, bytes, &at));
    if (frame->durable > scan->durable) /* true when the header was written, whatever became of the payload */
        scan->durable = frame->durable;
    bool is_whole = log_frame_is_whole(at, frame);
    enum log_item_kind kind = LOG_ITEM_DAMAGED;
    if (frame->partition == LOG_MARKER_PARTITION)
        kind = is_whole ? LOG_ITEM_MARKER : LOG_ITEM_BAD; /* no record is in it */
    else if (is_whole)
        kind = LOG_ITEM_RECORD;
    *out_item = (struct log_item){
        .kind = kind,
        .partition = frame->partition,
        .length = kind == LOG_ITEM_BAD ? 0 : frame->length,
        .position = scan->position,
        .next = scan->position + bytes,
        .offset = frame->offset,
        .payload = is_whole ? at + LOG_FRAME_HEADER_BYTES : NULL,
    };
    return OK;
}

err log_scan_next(struct log_scan *scan, struct log_item *out_item)
{
    if (scan->position >= scan->limit)
        return ERR_END;
    struct log_frame frame;
    bool is_frame = false;
    uint64_t position = scan->position;
    while (scan->limit - position >= LOG_FRAME_HEADER_BYTES) {
        TRY(frame_at(scan, position, &frame, &is_frame));
        if (is_frame)
            break;
        position += LOG_FRAME_ALIGN;
    }
    if (is_frame && position == scan->position)
        TRY(item_of_frame(scan, &frame, out_item));
    else
        *out_item = (struct log_item){
            .kind = LOG_ITEM_BAD,
            .position = scan->position,
            .next = is_frame ? position : scan->limit, /* what is left is too short for a frame */
        };
    scan->position = out_item->next;
    return OK;
}

err log_scan_ahead(struct log_scan *scan)
{
    uint64_t position = scan->position;
    struct log_item item;
    err e = OK;
    while (e == OK)
        e = log_scan_next(scan, &item);
    scan->position = position;
    return e == ERR_END ? OK : e;
}
