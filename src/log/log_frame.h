/* Bytes of the file driver: file headers, frames, and the scan of one file image (docs/format/log.md). */
#ifndef LOG_LOG_FRAME_H
#define LOG_LOG_FRAME_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "log/log.h"

#include <stdbool.h>
#include <stdint.h>

#define LOG_PAGE_BYTES         4096u
#define LOG_FRAME_HEADER_BYTES 32u
#define LOG_FRAME_ALIGN        8u
#define LOG_FORMAT_VERSION     1u
#define LOG_OFFSET_MAX         (UINT64_MAX / 2) /* of a record; a file begins below half of it */
#define LOG_MARKER_PARTITION   0xffffu /* a frame that carries the ends of all partitions, not a record */

_Static_assert(LOG_PARTITION_COUNT_MAX < LOG_MARKER_PARTITION,
               "docs/format/log.md: the partition has 16 bits");

struct log_file_header {
    uint8_t cluster_id[16];
    uint32_t partition_count;
    uint64_t number;
    uint64_t previous_number; /* 0: the first file */
    uint64_t previous_end;    /* bytes of the previous file that count; what lies beyond is ignored */
    uint64_t generation;
    uint64_t *starts; /* per partition: offset of the first record in this file or later */
    uint64_t *trims;  /* per partition: records below are not needed */
};

/* Bytes of one of the two copies of a header, and where frames begin. */
uint64_t log_header_copy_bytes(uint32_t partition_count);
uint64_t log_data_start(uint32_t partition_count);

/* Write one copy, log_header_copy_bytes long, zero-filled behind. */
void log_header_encode(const struct log_file_header *header, uint8_t *at);

/* Decode a copy; starts and trims point to arrays of partition_count_max on entry.
 * Errors ERR_CORRUPT, ERR_VERSION, ERR_LIMIT (more partitions than that). */
err log_header_decode(struct slice copy, uint32_t partition_count_max, struct log_file_header *header);

struct log_frame {
    uint32_t partition; /* or LOG_MARKER_PARTITION */
    uint32_t length;    /* of the payload */
    uint64_t number;    /* of the file; 32 bits are stored */
    uint64_t offset;    /* in the partition */
    uint64_t durable;   /* bytes of this file that were durable when the frame was written */
};

/* Bytes a record of `length` takes in a file. */
static inline uint64_t log_frame_bytes(uint64_t length)
{
    return (LOG_FRAME_HEADER_BYTES + length + LOG_FRAME_ALIGN - 1) / LOG_FRAME_ALIGN * LOG_FRAME_ALIGN;
}

/* The checksum seed of a file: a frame of another cluster or of a file's former life never matches. */
uint32_t log_frame_seed(const uint8_t cluster_id[16], uint64_t number);

/* Fill the header at `at` for the payload behind it, which is in place. */
void log_frame_encode(const struct log_frame *frame, uint32_t seed, uint8_t *at);

/* Decode a header of 32 bytes; false: not a header of this file. The payload is not looked at. */
bool log_frame_decode(const uint8_t *at, uint32_t seed, uint64_t number, struct log_frame *out_frame);

/* Whether header and payload are whole; `at` has log_frame_bytes. */
bool log_frame_is_whole(const uint8_t *at, const struct log_frame *frame);

/* ---- the scan ---- */
enum log_item_kind {
    LOG_ITEM_RECORD,  /* whole */
    LOG_ITEM_MARKER,  /* whole; `ends` are in the image behind its header */
    LOG_ITEM_DAMAGED, /* header whole, payload not */
    LOG_ITEM_BAD,     /* bytes that are no frame */
};

struct log_item {
    enum log_item_kind kind;
    uint32_t partition;
    uint32_t length;   /* of the payload; of BAD: 0 */
    uint64_t position; /* in the file */
    uint64_t next;     /* where the next item begins */
    uint64_t offset;
    const uint8_t *payload; /* of a whole frame, else NULL; borrowed until the scan goes on */
};

/* Where the scan's bytes come from: the file from `position` on, at least `bytes` of it, which are below the
 * limit; borrowed until the next call. Its errors pass through. */
typedef err (*log_scan_read)(void *context, uint64_t position, uint64_t bytes, struct slice *out_window);

/* A walk over the frames of one file, whose bytes pass through a window. */
struct log_scan {
    /* the caller's, but for `position` and `window` fixed */
    uint64_t position; /* of the next item: at first where frames begin */
    uint64_t limit;    /* bytes that count */
    uint32_t seed;
    uint64_t number;
    uint32_t partition_count;
    log_scan_read read; /* NULL: the window holds the whole file */
    void *context;
    struct slice window;
    uint64_t window_position; /* of its first byte in the file */

    uint64_t durable; /* highest durable position that a believable header named so far */
};

/* The next item; items tile the file in the order of positions. Behind what is no frame the next one is searched
 * at 8-byte steps. For bytes from anywhere: nothing in them is trusted. Asks for one frame's bytes at most.
 * Errors ERR_END (the limit), those of read. Cost O(item). Source docs/format/log.md §4. */
err log_scan_next(struct log_scan *scan, struct log_item *out_item);

/* Raise `durable` to what the headers up to the limit name; the scan stays where it is. Errors of read. */
err log_scan_ahead(struct log_scan *scan);

#endif
