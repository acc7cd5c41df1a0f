/* Numbers of the segment file's layout, shared by writer and reader. docs/format/segment.md. */
#ifndef SEGMENT_LAYOUT_H
#define SEGMENT_LAYOUT_H

#include "base/bytes.h"
#include "base/hash.h"

#define SEGMENT_VERSION            1
#define SEGMENT_HEAD_MAGIC         "kelpseg\n"
#define SEGMENT_TAIL_MAGIC         "\ngespleK"
#define SEGMENT_MAGIC_BYTES        8
#define SEGMENT_HEAD_BYTES         16
#define SEGMENT_TAIL_BYTES         32
#define SEGMENT_PAD_BYTES          64  /* readable behind every content handed out */
#define SEGMENT_FOOTER_FIXED_BYTES 160 /* before the tenants */

enum segment_stage { STAGE_NONE = 0, STAGE_LZ4 = 1, STAGE_ZSTD = 2 };

/* One block as the footer tells it. */
struct segment_entry {
    uint64_t offset;
    uint32_t stored_bytes;
    uint32_t content_bytes;
    uint32_t crc; /* of the stored bytes */
    uint8_t section;
    uint8_t stage;
};

/* The head's bytes follow from the kind alone. */
static inline void segment_put_head(uint8_t head[SEGMENT_HEAD_BYTES], uint16_t kind)
{
    memcpy(head, SEGMENT_HEAD_MAGIC, SEGMENT_MAGIC_BYTES);
    put_le16(head + 8, SEGMENT_VERSION);
    put_le16(head + 10, kind);
    put_le32(head + 12, 0);
}

/* footer offset, footer bytes, CRC of the footer, version, kind, CRC of the 20 bytes before, magic */
static inline void segment_put_tail(uint8_t tail[SEGMENT_TAIL_BYTES], uint64_t footer_offset,
                                    struct slice footer, uint16_t kind)
{
    put_le64(tail, footer_offset);
    put_le32(tail + 8, (uint32_t)footer.len);
    put_le32(tail + 12, crc32c(footer, 0));
    put_le16(tail + 16, SEGMENT_VERSION);
    put_le16(tail + 18, kind);
    put_le32(tail + 20, crc32c(slice_of(tail, 20), 0));
    memcpy(tail + 24, SEGMENT_TAIL_MAGIC, SEGMENT_MAGIC_BYTES);
}

#endif
