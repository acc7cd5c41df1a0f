/* Reader of segment files. docs/format/segment.md.
 *
 *   open ─ tail (last 32 bytes) ─ footer ─ info and block directory in memory (24 B a block)
 *   block_get ─ cache ─ or read, CRC32C, undo the second stage, publish
 *   verify ─ front to end, every byte
 *
 * Nothing read is trusted: lengths and counts are bounded before use, and the footer must account for every
 * byte of the file. Whatever has a checksum that differs (tail, footer, block, head) is doubted and read once
 * more, if the source says that this may help. Invariant: the directory is immutable after open, so any
 * thread may read. */
#include "segment/segment.h"
#include "base/check.h"
#include "codec/int.h"
#include "codec/lz4.h"
#include "codec/zstd.h"
#include "segment/cache.h"
#include "segment/layout.h"

struct segment {
    struct pool *pool;
    struct segment_source source;
    struct segment_cache *cache;
    struct segment_cache *own_cache; /* without a shared one: keeps nothing idle */
    uint64_t id;
    struct segment_info info;
    struct segment_entry *entries; /* in file order */
    uint32_t *by_section;          /* numbers of entries, section by section */
    uint32_t entry_count;
    uint32_t section_start[SEGMENT_SECTION_COUNT_MAX + 1];
    uint64_t footer_offset;
    uint8_t tail[SEGMENT_TAIL_BYTES];
    struct slice footer; /* until open returns */
};

static err read_at(struct segment_source source, uint64_t offset, void *at, size_t len, struct err_at *where)
{
    err e = source.read(source.context, offset, at, len);
    if (e == ERR_END)
        return err_set(where, ERR_CORRUPT, "file ends before offset %llu",
                       (unsigned long long)(offset + len));
    return e;
}

static bool doubts(struct segment_source source)
{
    return source.doubt != NULL && source.doubt(source.context);
}

static err file_read(void *context, uint64_t offset, void *at, size_t len)
{
    return io_file_read(context, offset, at, len, NULL);
}

static err bytes_read(void *context, uint64_t offset, void *at, size_t len)
{
    const struct slice *bytes = context;
    if (offset > bytes->len || len > bytes->len - offset)
        return ERR_END;
    memcpy(at, bytes->at + offset, len);
    return OK;
}

struct segment_source segment_source_bytes(const struct slice *bytes)
{
    return (struct segment_source){ .read = bytes_read, .context = (void *)bytes, .size = bytes->len };
}

err segment_source_file(struct io_file *file, struct segment_source *out_source)
{
    struct segment_source source = { .read = file_read, .context = file };
    TRY(io_file_size(file, &source.size));
    *out_source = source;
    return OK;
}

static err read_info(struct segment *s, struct reader *r)
{
    struct segment_info *info = &s->info;
    info->kind_version = read_le16(r);
    bool reserved = read_le16(r) != 0;
    info->partition = read_le32(r);
    info->from_generation = read_le64(r);
    info->from_offset = read_le64(r);
    info->to_generation = read_le64(r);
    info->to_offset = read_le64(r);
    info->time.min_ms = (int64_t)read_le64(r);
    info->time.max_ms = (int64_t)read_le64(r);
    info->series_count = read_le64(r);
    info->sum = sum_read(r);
    info->distinct = sum_read(r);
    info->dropped = sum_read(r);
    info->expired = sum_read(r);
    uint64_t count = read_varint(r);
    if (!r->ok || reserved || count > SEGMENT_TENANT_COUNT_MAX || count > read_left(r))
        return ERR_CORRUPT;
    TRY(pool_alloc(s->pool, (size_t)(count + 1) * sizeof *info->tenants, (void **)&info->tenants));
    for (size_t i = 0; i < count; i++) {
        struct slice tenant = read_string(r);
        if (!r->ok || (i > 0 && slice_compare(info->tenants[i - 1], tenant) >= 0))
            return ERR_CORRUPT;
        TRY(pool_copy(s->pool, tenant, &info->tenants[i]));
    }
    info->tenant_count = (size_t)count;
    return OK;
}

/* One column of the directory into the entries. */
static bool take_column(struct segment_entry *entries, const uint32_t *column, size_t n, int which)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t v = column[i];
        switch (which) {
        case 0:
            if (v >= SEGMENT_SECTION_COUNT_MAX)
                return false;
            entries[i].section = (uint8_t)v;
            break;
        case 1:
            if (v > STAGE_ZSTD)
                return false;
            entries[i].stage = (uint8_t)v;
            break;
        case 2:
            if (v == 0 || v > SEGMENT_BLOCK_BYTES_MAX)
                return false;
            entries[i].content_bytes = v;
            break;
        default:
            if (v == 0 || v > entries[i].content_bytes ||
                (entries[i].stage == STAGE_NONE) != (v == entries[i].content_bytes))
                return false;
            entries[i].stored_bytes = v;
            break;
        }
    }
    return true;
}

/* Give offsets, group by section. False: the blocks do not fill the file up to the footer. */
static bool place(struct segment *s)
{
    uint64_t offset = SEGMENT_HEAD_BYTES;
    uint32_t counts[SEGMENT_SECTION_COUNT_MAX] = { 0 };
    for (uint32_t i = 0; i < s->entry_count; i++) {
        s->entries[i].offset = offset;
        offset += s->entries[i].stored_bytes;
        counts[s->entries[i].section]++;
    }
    uint32_t start = 0;
    for (unsigned section = 0; section < SEGMENT_SECTION_COUNT_MAX; section++) {
        s->section_start[section] = start;
        start += counts[section];
        counts[section] = s->section_start[section];
    }
    s->section_start[SEGMENT_SECTION_COUNT_MAX] = start;
    for (uint32_t i = 0; i < s->entry_count; i++)
        s->by_section[counts[s->entries[i].section]++] = i;
    return offset == s->footer_offset;
}

static err read_directory(struct segment *s, struct reader *r)
{
    err e = OK;
    uint32_t *column = NULL;
    uint32_t n = read_le32(r);
    if (!r->ok || n > SEGMENT_BLOCK_COUNT_MAX || read_left(r) < (size_t)n * 4)
        return ERR_CORRUPT;
    s->entry_count = n;
    TRY_OUT(pool_alloc(s->pool, (n + 1) * sizeof *s->entries, (void **)&s->entries));
    TRY_OUT(pool_alloc(s->pool, (n + 1) * sizeof *s->by_section, (void **)&s->by_section));
    TRY_OUT(pool_block_resize(s->pool, (void **)&column, (n + 1) * sizeof *column));
    for (int which = 0; which < 4; which++) {
        TRY_OUT(int_column_decode_u32(r, n, column));
        if (!take_column(s->entries, column, n, which))
            TRY_OUT(ERR_CORRUPT);
    }
    for (uint32_t i = 0; i < n; i++)
        s->entries[i].crc = read_le32(r);
    if (!r->ok || read_left(r) != 0 || !place(s))
        e = ERR_CORRUPT;
out:
    pool_block_free(s->pool, column);
    return e;
}

/* Read and check the tail; its footer's place. */
static err read_tail(struct segment *s, uint32_t *out_footer_bytes, struct err_at *at)
{
    uint8_t *tail = s->tail, expected[SEGMENT_TAIL_BYTES];
    uint64_t size = s->source.size;
    if (size < SEGMENT_HEAD_BYTES + SEGMENT_FOOTER_FIXED_BYTES + SEGMENT_TAIL_BYTES)
        return err_set(at, ERR_CORRUPT, "%llu bytes are too few for a segment", (unsigned long long)size);
    TRY(read_at(s->source, size - SEGMENT_TAIL_BYTES, tail, SEGMENT_TAIL_BYTES, at));
    memcpy(expected + 24, SEGMENT_TAIL_MAGIC, SEGMENT_MAGIC_BYTES);
    if (memcmp(tail + 24, expected + 24, SEGMENT_MAGIC_BYTES) != 0 ||
        get_le32(tail + 20) != crc32c(slice_of(tail, 20), 0))
        return err_set(at, ERR_CORRUPT, "the tail is damaged");
    if (get_le16(tail + 16) != SEGMENT_VERSION)
        return err_set(at, ERR_VERSION, "segment format %u, and this Kelpie reads %d", get_le16(tail + 16),
                       SEGMENT_VERSION);
    s->info.kind = get_le16(tail + 18);
    s->footer_offset = get_le64(tail);
    *out_footer_bytes = get_le32(tail + 8);
    if (*out_footer_bytes > SEGMENT_FOOTER_BYTES_MAX || s->footer_offset < SEGMENT_HEAD_BYTES ||
        s->footer_offset > size || size - s->footer_offset != *out_footer_bytes + SEGMENT_TAIL_BYTES)
        return err_set(at, ERR_CORRUPT, "the footer is not where the tail says");
    return OK;
}

static err read_footer(struct segment *s, struct pool *scratch, struct err_at *at)
{
    uint32_t bytes = 0;
    uint8_t *footer = NULL;
    TRY(read_tail(s, &bytes, at));
    TRY(pool_alloc(scratch, bytes + SEGMENT_PAD_BYTES, (void **)&footer));
    memset(footer + bytes, 0, SEGMENT_PAD_BYTES);
    TRY(read_at(s->source, s->footer_offset, footer, bytes, at));
    s->footer = slice_of(footer, bytes);
    if (crc32c(s->footer, 0) != get_le32(s->tail + 12))
        return err_set(at, ERR_CORRUPT, "the footer's checksum differs");
    struct reader r = reader_of(s->footer);
    err e = read_info(s, &r);
    if (e == OK)
        e = read_directory(s, &r);
    return e == ERR_CORRUPT ? err_set(at, e, "the footer is malformed") : e;
}

static err open_with(struct segment_source source, struct segment_cache *cache, struct pool *pool,
                     struct pool *scratch, struct segment **out_segment, struct err_at *at)
{
    err e = OK;
    struct pool *own = pool_open(pool, "segment", POOL_BYTES_UNLIMITED);
    struct segment *s;
    TRY_OUT(pool_zalloc(own, sizeof *s, (void **)&s));
    s->pool = own;
    s->source = source;
    e = read_footer(s, scratch, at);
    if (e == ERR_CORRUPT && doubts(source))
        e = read_footer(s, scratch,
                        at); /* all of it anew; what the first attempt took goes with the segment */
    TRY_OUT(e);
    if (cache == NULL) {
        TRY_OUT(segment_cache_open(own, 0, 1, &s->own_cache));
        cache = s->own_cache;
    }
    s->cache = cache;
    s->id = cache_segment_id(cache);
    *out_segment = s;
    return OK;
out:
    pool_close(own);
    return e;
}

err segment_open(struct segment_source source, struct segment_cache *cache, struct pool *pool,
                 struct segment **out_segment, struct err_at *at)
{
    struct pool *scratch = pool_open(pool, "segment footer", POOL_BYTES_UNLIMITED);
    err e = open_with(source, cache, pool, scratch, out_segment, at);
    if (e == OK)
        (*out_segment)->footer = slice_of(NULL, 0);
    pool_close(scratch);
    return e;
}

void segment_close(struct segment *segment)
{
    if (segment == NULL)
        return;
    cache_forget(segment->cache, segment->id, segment->entry_count);
    segment_cache_close(segment->own_cache);
    pool_close(segment->pool);
}

const struct segment_info *segment_info(const struct segment *segment) { return &segment->info; }

uint32_t segment_block_count(const struct segment *segment, unsigned section)
{
    check(section < SEGMENT_SECTION_COUNT_MAX);
    return segment->section_start[section + 1] - segment->section_start[section];
}

static const struct segment_entry *entry_of(const struct segment *s, unsigned section, uint32_t index)
{
    return &s->entries[s->by_section[s->section_start[section] + index]];
}

static uint64_t content_bytes(const struct segment *s, unsigned section, uint32_t index, uint32_t count)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += entry_of(s, section, index + i)->content_bytes;
    return bytes;
}

uint64_t segment_section_bytes(const struct segment *segment, unsigned section)
{
    return content_bytes(segment, section, 0, segment_block_count(segment, section));
}

uint64_t segment_stored_bytes(const struct segment *segment, unsigned section)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < segment_block_count(segment, section); i++)
        bytes += entry_of(segment, section, i)->stored_bytes;
    return bytes;
}

/* The stored bytes of a block, checked. */
static err read_stored(const struct segment *s, const struct segment_entry *entry, uint8_t *stored,
                       struct err_at *at)
{
    struct slice bytes = slice_of(stored, entry->stored_bytes);
    TRY(read_at(s->source, entry->offset, stored, entry->stored_bytes, at));
    bool is_right = crc32c(bytes, 0) == entry->crc;
    if (!is_right && doubts(s->source)) {
        TRY(read_at(s->source, entry->offset, stored, entry->stored_bytes, at));
        is_right = crc32c(bytes, 0) == entry->crc;
    }
    return is_right ? OK
                    : err_set(at, ERR_CORRUPT, "block at offset %llu (section %u): checksum differs",
                              (unsigned long long)entry->offset, entry->section);
}

/* Turn stored bytes into content; they may be content itself (no second stage). */
static err decode_block(const struct segment_entry *entry, const uint8_t *stored, uint8_t *content,
                        struct err_at *at)
{
    struct slice in = slice_of(stored, entry->stored_bytes);
    err e = OK;
    if (entry->stage == STAGE_LZ4)
        e = lz4_block_decode(in, content, entry->content_bytes);
    else if (entry->stage == STAGE_ZSTD)
        e = zstd_decompress_exact(in, content, entry->content_bytes);
    if (e != OK)
        return err_set(at, ERR_CORRUPT, "block at offset %llu (section %u): does not decompress",
                       (unsigned long long)entry->offset, entry->section);
    return OK;
}

/* Read a block into content; a compressed one by way of memory that is given back. */
static err load_block(struct segment *s, const struct segment_entry *entry, struct pool *scratch,
                      uint8_t *content, struct err_at *at)
{
    if (entry->stage == STAGE_NONE)
        return read_stored(s, entry, content, at);
    void *stored;
    TRY(pool_alloc(scratch, entry->stored_bytes, &stored));
    TRY(read_stored(s, entry, stored, at));
    return decode_block(entry, stored, content, at);
}

/* Read consecutive blocks of a section, one behind the other. parent: not the segment's pool, whose budget is for
 * what stays. */
static err load_blocks(struct segment *s, unsigned section, uint32_t index, uint32_t count,
                       struct pool *parent, uint8_t *content, struct err_at *at)
{
    err e = OK;
    struct pool *scratch = pool_open(parent, "stored block", POOL_BYTES_UNLIMITED);
    for (uint32_t i = 0; e == OK && i < count; i++) {
        const struct segment_entry *entry = entry_of(s, section, index + i);
        pool_reset(scratch);
        e = load_block(s, entry, scratch, content, at);
        content += entry->content_bytes;
    }
    pool_close(scratch);
    return e;
}

err segment_blocks_get(struct segment *s, unsigned section, uint32_t index, uint32_t count,
                       struct segment_block *out_block, struct err_at *at)
{
    check(section < SEGMENT_SECTION_COUNT_MAX && count > 0);
    uint32_t all = segment_block_count(s, section);
    if (index >= all || count > all - index)
        return err_set(at, ERR_CORRUPT, "section %u has no block %u", section, index);
    uint64_t bytes = content_bytes(s, section, index, count);
    struct cache_entry *cached;
    bool hit;
    if (bytes > SIZE_MAX / 2)
        return ERR_LIMIT;
    uint32_t number = s->by_section[s->section_start[section] + index];
    TRY(cache_take(s->cache, s->id, number, (size_t)bytes, &cached, &hit));
    if (!hit) {
        err e = load_blocks(s, section, index, count, s->cache->pool, cached->content, at);
        if (e != OK) {
            cache_abandon(s->cache, cached);
            return e;
        }
        cached = cache_publish(s->cache, cached);
    }
    *out_block = (struct segment_block){ .content = slice_of(cached->content, cached->len), .entry = cached };
    return OK;
}

err segment_block_get(struct segment *s, unsigned section, uint32_t index, struct segment_block *out_block,
                      struct err_at *at)
{
    return segment_blocks_get(s, section, index, 1, out_block, at);
}

void segment_block_release(struct segment *s, struct segment_block *block)
{
    if (block->entry == NULL)
        return;
    cache_release(s->cache, block->entry);
    *block = (struct segment_block){ 0 };
}

err segment_section_read(struct segment *s, unsigned section, struct pool *pool, struct slice *out_bytes,
                         struct err_at *at)
{
    uint64_t bytes = segment_section_bytes(s, section);
    uint8_t *content;
    if (bytes > SIZE_MAX / 2)
        return ERR_LIMIT;
    TRY(pool_alloc(pool, (size_t)bytes + SEGMENT_PAD_BYTES, (void **)&content));
    memset(content + bytes, 0, SEGMENT_PAD_BYTES);
    *out_bytes = slice_of(content, (size_t)bytes);
    return load_blocks(s, section, 0, segment_block_count(s, section), pool, content, at);
}

/* Everything before the footer: head and blocks, into sha. */
static err verify_blocks(struct segment *s, struct sha256 *sha, uint8_t *stored, uint8_t *content,
                         struct err_at *at)
{
    uint8_t head[SEGMENT_HEAD_BYTES], expected[SEGMENT_HEAD_BYTES];
    TRY(read_at(s->source, 0, head, sizeof head, at));
    segment_put_head(expected, s->info.kind);
    if (memcmp(head, expected, sizeof head) != 0 && doubts(s->source))
        TRY(read_at(s->source, 0, head, sizeof head, at));
    if (memcmp(head, expected, sizeof head) != 0)
        return err_set(at, ERR_CORRUPT, "the head is damaged");
    sha256_add(sha, slice_of(head, sizeof head));
    for (uint32_t i = 0; i < s->entry_count; i++) {
        const struct segment_entry *entry = &s->entries[i];
        TRY(read_stored(s, entry, stored, at));
        sha256_add(sha, slice_of(stored, entry->stored_bytes));
        TRY(decode_block(entry, stored, content, at));
    }
    return OK;
}

err segment_verify(struct segment_source source, const uint8_t *digest, struct pool *pool, struct err_at *at)
{
    err e = OK;
    struct segment *s = NULL;
    struct sha256 *sha = NULL;
    uint8_t *memory;
    struct pool *scratch = pool_open(pool, "segment verify", POOL_BYTES_UNLIMITED);
    TRY_OUT(pool_alloc(scratch, 2 * SEGMENT_BLOCK_BYTES_MAX, (void **)&memory));
    TRY_OUT(open_with(source, NULL, scratch, scratch, &s, at));
    sha = sha256_open();
    TRY_OUT(verify_blocks(s, sha, memory, memory + SEGMENT_BLOCK_BYTES_MAX, at));
    uint8_t tail[SEGMENT_TAIL_BYTES], actual[SHA256_BYTES];
    segment_put_tail(tail, s->footer_offset, s->footer, s->info.kind);
    if (memcmp(tail, s->tail, sizeof tail) != 0)
        TRY_OUT(err_set(at, ERR_CORRUPT, "the tail is damaged"));
    sha256_add(sha, s->footer);
    sha256_add(sha, slice_of(tail, sizeof tail));
    sha256_finish(sha, actual);
    sha = NULL;
    if (digest != NULL && memcmp(digest, actual, SHA256_BYTES) != 0)
        TRY_OUT(err_set(at, ERR_CORRUPT, "the file's digest differs from its name's"));
out:
    if (sha != NULL) {
        uint8_t ignored[SHA256_BYTES];
        sha256_finish(sha, ignored);
    }
    segment_close(s);
    pool_close(scratch);
    return e;
}
