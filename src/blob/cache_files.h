/* Blocks of objects as files in a directory of the local disk: what blob_cache.c keeps. Bounded in bytes,
 * evicted by least recent use, every byte checksummed. Nothing of it is promised: a block that cannot be kept
 * is not kept, one that cannot be read, or is damaged, is gone.
 *
 * An object of `size` bytes has cache_block_count blocks of block_bytes, the last one shorter; an empty object has
 * one of 0 bytes. All calls are safe from any thread. */
#ifndef BLOB_CACHE_FILES_H
#define BLOB_CACHE_FILES_H

#include "base/hash.h"
#include "blob/blob.h"

#define CACHE_PAGES 16 /* of a block, each with its checksum: what is read at least */
#define CACHE_HEAD_BYTES \
    (32 + BLOB_KEY_BYTES_MAX + 4 * CACHE_PAGES + 4) /* before a block's bytes: docs/format/blob-cache.md */
#define CACHE_NAME_BYTES 42                         /* of a file, with its NUL */

struct cache_files;

struct cache_key {
    const char *text; /* borrowed during the call */
    struct hash128 hash;
};
struct cache_key cache_key_of(const char *text);

/* Take the blocks that are there, the newest as far as they fit, and remove the others. Files of other names are
 * left alone.
 * Errors ERR_INPUT the configuration; ERR_DENIED, ERR_SPACE, ERR_IO the directory; ERR_LIMIT. */
err cache_files_open(const struct blob_cache_config *config, struct io *io, struct pool *pool,
                     struct cache_files **out_files, struct err_at *at);
void cache_files_close(struct cache_files *files); /* NULL is allowed */

uint32_t cache_block_count(const struct cache_files *files, uint64_t size);
size_t cache_block_bytes(const struct cache_files *files);

/* Is it there, as far as is known without reading? */
bool cache_files_has(struct cache_files *files, const struct cache_key *key, uint32_t block);

/* Read [offset, offset + len), within one block of an object of `size` bytes.
 * Errors ERR_NOT_FOUND it is not there, or was damaged and is not there any more; ERR_LIMIT. */
err cache_files_read(struct cache_files *files, const struct cache_key *key, uint64_t size, uint64_t offset,
                     void *at, size_t len);

/* The size of an object whose first block is there. Errors ERR_NOT_FOUND. */
err cache_files_size(struct cache_files *files, const struct cache_key *key, uint64_t *out_size);

/* To be asked before an object is opened in the store whose bytes will be put: what was fetched of one that was
 * opened before it was forgotten is not put, for it may be what is wrong. */
uint64_t cache_files_mark(struct cache_files *files, const struct cache_key *key);

/* Keep a whole block, if there is room and a disk for it. */
void cache_files_put(struct cache_files *files, const struct cache_key *key, uint64_t size, uint32_t block,
                     struct slice bytes, uint64_t mark);

/* Forget all blocks of an object. A crash, or a start after a file could not be removed, may bring them back,
 * whole. Cost O(all blocks). */
void cache_files_forget(struct cache_files *files, const struct cache_key *key);

/* Ask the disk for its space, and give back all that it lacks below the floor. */
void cache_files_tend(struct cache_files *files);

#endif
