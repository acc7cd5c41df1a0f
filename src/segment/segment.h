/* The segment file: an immutable container of checksummed blocks. It knows no telemetry.
 *
 * A file is a head, blocks one behind the other, a footer and a tail; not a byte besides. Each block
 * belongs to a section (a number given by the writer) and is at most SEGMENT_BLOCK_BYTES_MAX bytes of content,
 * compressed where that pays, with its CRC32C in the footer. The footer also holds the info below and is
 * checksummed itself. Readable by ranges: tail, footer, then only the blocks that are needed, from a
 * file or an object alike, through a cache with a byte budget. docs/format/segment.md. */
#ifndef SEGMENT_SEGMENT_H
#define SEGMENT_SEGMENT_H

#include "base/err.h"
#include "base/pool.h"
#include "base/sha256.h"
#include "base/slice.h"
#include "base/time.h"
#include "io/io.h"
#include "model/sum.h"

#include <stdbool.h>
#include <stdint.h>

#define SEGMENT_BLOCK_BYTES_MAX   (128u << 10) /* content of one block */
#define SEGMENT_BLOCK_BYTES       (64u << 10)  /* content at which writers close a block */
#define SEGMENT_BLOCK_COUNT_MAX   (1u << 24)
#define SEGMENT_SECTION_COUNT_MAX 64 /* section numbers are below this */
#define SEGMENT_FOOTER_BYTES_MAX  (1u << 30)
#define SEGMENT_TENANT_COUNT_MAX  (1u << 20)

enum segment_kind { SEGMENT_METRIC = 1, SEGMENT_EVENT = 2 };

/* What a segment says of itself. Positions [from, to) of one generation; a merge spans its inputs. */
struct segment_info {
    uint16_t kind;         /* enum segment_kind */
    uint16_t kind_version; /* format of the sections, the kind's own */
    uint32_t partition;
    uint64_t from_generation, from_offset;
    uint64_t to_generation, to_offset;
    struct time_range time; /* of the rows; min > max when there are none */
    uint64_t series_count;
    struct sum sum;        /* every row in the file */
    struct sum distinct;   /* the rows that win among those with equal (tenant, labels, t) */
    struct sum dropped;    /* rows that the merge writing this file dropped as duplicates */
    struct sum expired;    /* … and because they were older than its cut-off */
    struct slice *tenants; /* sorted; in the reader's pool */
    size_t tenant_count;
};

/* ---- writing ---- */
struct segment_writer;

/* Begin a file of this path, which must not exist. The writer's memory is in a child of pool.
 * Errors ERR_EXISTS, ERR_SPACE, ERR_IO, ERR_LIMIT. Owner: one thread. */
err segment_writer_open(struct io *io, const char *path, uint16_t kind, struct pool *pool,
                        struct segment_writer **out_writer);

/* Append a block of 1 … SEGMENT_BLOCK_BYTES_MAX bytes to a section. Blocks of sections may alternate.
 * compress: try the second stage, kept if it saves 5 %. *out_block (may be NULL): its number within the
 * section, from 0. Errors ERR_SPACE, ERR_IO, ERR_LIMIT. */
err segment_writer_block(struct segment_writer *writer, unsigned section, struct slice content, bool compress,
                         uint32_t *out_block);

/* Append bytes of any length to a section as blocks of SEGMENT_BLOCK_BYTES (the last one shorter). */
err segment_writer_bytes(struct segment_writer *writer, unsigned section, struct slice bytes, bool compress);

struct segment_written {
    uint8_t digest[SHA256_BYTES]; /* of the whole file */
    uint64_t size;
};

/* Write footer and tail, sync the file, close it. Errors as above; then the file is of no use: abandon. */
err segment_writer_finish(struct segment_writer *writer, const struct segment_info *info,
                          struct segment_written *out_written);

/* Close without an end (after any error, and after finish); the file is left to the caller. NULL is
 * allowed. */
void segment_writer_close(struct segment_writer *writer);

/* ---- the block cache ---- */
struct segment_cache;

/* bytes_max: of decoded blocks, over all shards of the cache; blocks in use count but are never evicted. */
err segment_cache_open(struct pool *pool, uint64_t bytes_max, unsigned shard_count,
                       struct segment_cache **out_cache);
/* Every reader is closed. NULL is allowed. */
void segment_cache_close(struct segment_cache *cache);

struct segment_cache_usage {
    uint64_t bytes, bytes_max, block_count, hits, misses, evicted;
};
struct segment_cache_usage segment_cache_usage(struct segment_cache *cache);

/* ---- reading ---- */

/* Where the bytes come from. read: exactly len bytes at offset; ERR_END when the object ends before. doubt: a
 * checksum finds bytes wrong that read gave; may another read give others? Then they are read once more
 * before they count as damaged. NULL: it would give the same. Both safe from any thread. */
struct segment_source {
    err (*read)(void *context, uint64_t offset, void *at, size_t len);
    bool (*doubt)(void *context);
    void *context;
    uint64_t size;
};

/* A source over bytes in memory; *bytes and what it names outlive it. */
struct segment_source segment_source_bytes(const struct slice *bytes);

/* A source over an open file, which outlives it. */
err segment_source_file(struct io_file *file, struct segment_source *out_source);

struct segment;

/* Read tail and footer. The source outlives the segment. cache may be NULL: every block is read anew.
 * Errors ERR_CORRUPT (with the place in at), ERR_VERSION, ERR_IO, ERR_LIMIT. */
err segment_open(struct segment_source source, struct segment_cache *cache, struct pool *pool,
                 struct segment **out_segment, struct err_at *at);
void segment_close(struct segment *segment); /* NULL is allowed; no block is held */

const struct segment_info *segment_info(const struct segment *segment);
uint32_t segment_block_count(const struct segment *segment, unsigned section);
uint64_t segment_section_bytes(const struct segment *segment, unsigned section); /* of content */
uint64_t segment_stored_bytes(const struct segment *segment, unsigned section);  /* in the file */

/* A block's content, immutable, followed by at least 64 readable bytes. */
struct segment_block {
    struct slice content;
    void *entry; /* the cache's own */
};

/* Get block `index` of a section; release it when done. Any thread. Errors ERR_CORRUPT (index out of range or
 * bytes damaged; at names the block), ERR_IO, ERR_LIMIT. */
err segment_block_get(struct segment *segment, unsigned section, uint32_t index,
                      struct segment_block *out_block, struct err_at *at);
/* `count` ≥ 1 consecutive blocks of a section as one, for what is read whole. A block is asked for either always
 * alone or always in the same run. Errors as above. */
err segment_blocks_get(struct segment *segment, unsigned section, uint32_t index, uint32_t count,
                       struct segment_block *out_block, struct err_at *at);
void segment_block_release(struct segment *segment, struct segment_block *block);

/* The content of a whole section in arena memory of pool, followed by 64 readable bytes. Bypasses the cache.
 * Errors as segment_block_get. */
err segment_section_read(struct segment *segment, unsigned section, struct pool *pool,
                         struct slice *out_bytes, struct err_at *at);

/* Read the file from front to end: head, every block's checksum and content, footer, tail, every byte accounted
 * for. digest (may be NULL): the SHA-256 the whole file must have. Cost one read of the file.
 * Errors ERR_CORRUPT with the place in at, ERR_VERSION, ERR_IO, ERR_LIMIT. */
err segment_verify(struct segment_source source, const uint8_t *digest, struct pool *pool, struct err_at *at);

#endif
