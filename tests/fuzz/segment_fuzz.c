/* Segments with any content and valid checksums: opening, reading and verifying ends in rows or in errors.
 * Input: byte 0 chooses. 0: the bytes are blocks (section, length as le16, content), from which a file with true
 * checksums is made; the footer's counts come from the first 16 bytes. Else: the bytes are a file whose
 * checksums are repaired: of blocks, where its directory can be read, of footer and tail. */
#include "base/hash.h"
#include "codec/int.h"
#include "metric/metric.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FILE_BYTES_MAX     (1u << 20)
#define BLOCK_COUNT_MAX    512
#define TAIL_BYTES         32
#define FOOTER_FIXED_BYTES 160

static void put_tail(struct buf *file, size_t footer)
{
    uint8_t tail[TAIL_BYTES] = { 0 };
    put_le64(tail, footer);
    put_le32(tail + 8, (uint32_t)(file->len - footer));
    put_le32(tail + 12, crc32c(slice_of(file->at + footer, file->len - footer), 0));
    put_le16(tail + 16, 1);
    put_le16(tail + 18, SEGMENT_METRIC);
    put_le32(tail + 20, crc32c(slice_of(tail, 20), 0));
    memcpy(tail + 24, "\ngespleK", 8);
    buf_put(file, tail, sizeof tail);
}

/* A file from blocks. */
static void assemble(const uint8_t *data, size_t size, struct buf *file)
{
    uint32_t columns[4][BLOCK_COUNT_MAX], crcs[BLOCK_COUNT_MAX];
    size_t n = 0;
    struct reader r = reader_of(slice_of(data, size));
    struct slice facts = read_bytes(&r, 16);
    if (facts.len < 16)
        return;
    buf_put(file, "kelpseg\n\1\0\1\0\0\0\0\0", 16);
    while (n < BLOCK_COUNT_MAX && read_left(&r) > 3) {
        uint8_t section = read_u8(&r) % SEGMENT_SECTION_COUNT_MAX;
        size_t len = read_le16(&r);
        struct slice content = read_bytes(&r, len < read_left(&r) ? len : read_left(&r));
        if (content.len == 0)
            continue;
        buf_put_slice(file, content);
        columns[0][n] = section;
        columns[1][n] = 0;
        columns[2][n] = columns[3][n] = (uint32_t)content.len;
        crcs[n++] = crc32c(content, 0);
    }
    size_t footer = file->len;
    uint8_t fixed[FOOTER_FIXED_BYTES] = { METRIC_COMPACT_VERSION };
    put_le64(fixed + 56, get_le16(facts.at));                         /* series */
    put_le64(fixed + 64, get_le32(facts.at + 4));                     /* rows */
    put_le64(fixed + 88, get_le32(facts.at + 4) - (facts.at[2] & 1)); /* distinct rows */
    buf_put(file, fixed, sizeof fixed);
    unsigned tenants = facts.at[3] % 4;
    buf_put_varint(file, tenants);
    for (unsigned i = 0; i < tenants; i++) {
        char name[2] = { (char)('a' + i), 0 };
        buf_put_string(file, slice_str(name));
    }
    buf_put_le32(file, (uint32_t)n);
    for (int i = 0; i < 4; i++)
        ERR_IGNORE(int_column_encode_u32(columns[i], n, CODEC_FAST, file)); /* sticks in file */
    for (size_t i = 0; i < n; i++)
        buf_put_le32(file, crcs[i]);
    put_tail(file, footer);
}

/* The checksums of the blocks that the directory at the end of a footer names; it is followed by padding. */
static void repair_blocks(uint8_t *file, size_t footer, size_t end)
{
    uint32_t columns[4][BLOCK_COUNT_MAX];
    struct reader r = reader_of(slice_of(file + footer, end - footer));
    read_bytes(&r, FOOTER_FIXED_BYTES);
    for (uint64_t tenants = read_varint(&r); tenants > 0 && r.ok; tenants--)
        read_string(&r);
    uint32_t n = read_le32(&r);
    if (!r.ok || n > BLOCK_COUNT_MAX)
        return;
    for (int i = 0; i < 4; i++)
        if (int_column_decode_u32(&r, n, columns[i]) != OK)
            return;
    size_t offset = 16;
    for (uint32_t i = 0; i < n && read_left(&r) >= 4; offset += columns[3][i++]) {
        if (columns[3][i] > footer - offset)
            return;
        put_le32(file + end - read_left(&r), crc32c(slice_of(file + offset, columns[3][i]), 0));
        read_le32(&r);
    }
}

/* A file as it is, with its checksums repaired. */
static void repair(const uint8_t *data, size_t size, struct buf *file)
{
    if (size < TAIL_BYTES)
        return;
    uint64_t footer = get_le64(data + size - TAIL_BYTES);
    buf_put(file, data, size - TAIL_BYTES);
    size_t end = file->len, start = footer >= 16 && footer < end ? (size_t)footer : end;
    buf_put(file, (uint8_t[CODEC_PAD_BYTES]){ 0 }, CODEC_PAD_BYTES);
    if (buf_err(file) == OK && start < end)
        repair_blocks(file->at, start, end);
    file->len = end;
    put_tail(file, start);
}

static void read_everything(struct metric_compact *c, struct pool *pool)
{
    const struct segment_info *info = metric_compact_info(c);
    struct metric_compact_cursor *cursor;
    struct err_at at;
    struct sample_columns columns = sample_columns_open(pool);
    struct metric_compact_labels reader;
    if (metric_compact_labels_open(pool, &reader) != OK ||
        metric_compact_cursor_open(c, METRIC_COMPACT_TIMELINES_MAX, pool, &cursor) != OK)
        return;
    for (uint32_t i = 0; i < info->series_count && i < 300; i++) {
        struct metric_rows rows;
        struct time_range time;
        struct source_exemplar *exemplars;
        size_t count;
        struct buf labels = buf_open(pool, 1 << 16);
        sample_columns_clear(&columns);
        ERR_IGNORE(metric_compact_read(cursor, i, (struct time_range){ 0, 1 << 20 }, &columns, &at));
        ERR_IGNORE(metric_compact_read_all(cursor, i, &rows, &at));
        if (metric_compact_series_time(cursor, i, &time, &at) == OK && time.min_ms / 2 < time.max_ms / 2) {
            int64_t third_ms = (time.max_ms / 2 - time.min_ms / 2) * 2 / 3;
            struct time_range middle = { time.min_ms + third_ms, time.max_ms - third_ms };
            ERR_IGNORE(metric_compact_read(cursor, i, middle, &columns, &at));
            ERR_IGNORE(metric_compact_read(cursor, i, time, &columns, &at));
        }
        ERR_IGNORE(metric_compact_labels_read(&reader, c, i, &labels, &at));
        ERR_IGNORE(metric_compact_exemplars(c, i, pool, &exemplars, &count, &at));
        buf_close(&labels);
    }
    sample_columns_close(&columns);
    metric_compact_labels_close(&reader);
    metric_compact_cursor_close(cursor);
}

static void select_some(struct metric_compact *c, struct pool *pool)
{
    const struct segment_info *info = metric_compact_info(c);
    struct err_at at;
    struct matcher m;
    if (matcher_init(pool, MATCH_NOT_EQUAL, slice_str("job"), slice_str("a"), &m, NULL) != OK)
        return;
    for (size_t i = 0; i < info->tenant_count && i < 4; i++) {
        uint32_t first, count, *ordinals;
        size_t found;
        struct batch_metadata *metadata;
        metric_compact_tenant(c, info->tenants[i], &first, &count);
        ERR_IGNORE(metric_compact_select(c, info->tenants[i], &m, 1, pool, &ordinals, &found, &at));
        ERR_IGNORE(metric_compact_metadata(c, info->tenants[i], pool, &metadata, &found, &at));
    }
    matcher_done(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct pool *pool = pool_open(NULL, "fuzz", 64u << 20);
    struct buf file = buf_open(pool, FILE_BYTES_MAX);
    if (data[0] == 0)
        assemble(data + 1, size - 1, &file);
    else
        repair(data + 1, size - 1, &file);
    struct slice memory = buf_slice(&file);
    struct segment_source source = segment_source_bytes(&memory);
    struct metric_compact *c;
    struct err_at at;
    if (buf_err(&file) == OK && metric_compact_open(source, NULL, pool, &c, &at) == OK) {
        read_everything(c, pool);
        select_some(c, pool);
        metric_compact_close(c);
    }
    if (buf_err(&file) == OK)
        ERR_IGNORE(metric_compact_verify(source, NULL, pool, NULL, &at));
    buf_close(&file);
    pool_close(pool);
    return 0;
}
