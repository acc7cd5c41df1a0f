/* The cache driver of the object store: another store, and copies of its immutable objects on the local disk.
 *
 *   open   first block kept? ─ yes: its head tells the size ─ no: the store is asked
 *   read   blocks ─ kept: cache_files.c ─ not: neighbours that lack too in one request of the store ─→ kept
 *   get    all blocks kept? ─ yes ─ no: the store's get, which checks the whole ─→ kept
 *   put    the store first ─ OK: its bytes, or the builder's file, are read ─→ kept
 *   delete, replace, doubt   forgotten, before the store is asked and after
 *
 * Invariants:
 *   1. Every key that is not immutable goes through untouched: its handles are the store's own.
 *   2. What the store fails to do fails; what the local disk fails to do is counted and asked of the store.
 *   3. A handle asks the store for its object when it needs it for the first time, and again once the object was
 *      forgotten; and that has the handle's size.
 *   4. What is kept was read of an object that was opened, or put, after the last time that it was forgotten. */
#include "blob/blob.h"

#include <string.h>

#include "base/check.h"
#include "base/stat.h"
#include "blob/blob_driver.h"
#include "blob/cache_files.h"
#include "io/thread.h"

#define BLOCK_BYTES   (1u << 20)
#define RUN_BYTES_MAX (8u << 20) /* fetched in one request */
#define PUT_PART      4          /* a put is kept if it takes at most such a part of the cache */

struct cache_blob {
    struct blob base;
    struct blob *inner;
    struct io *io;
    struct pool *pool;
    struct cache_files *files;
    bool (*is_immutable)(const char *key);
    uint64_t bytes_max;
};

/* The store's handle of an object. */
struct opened {
    struct pool *pool;
    struct blob_handle *handle;
    uint64_t mark;  /* of before it was opened */
    uint32_t users; /* who reads through it, and the cache's handle while it is the newest */
};

struct cache_handle {
    struct blob_handle base;
    struct pool *pool;
    struct cache_key key;
    struct io_mutex lock; /* of what follows, and of users; never held during a call of the store */
    struct opened *opened;
};

static struct cache_blob *cache_of(struct blob *blob) { return (struct cache_blob *)blob; }

struct blob_cache_config blob_cache_defaults(void)
{
    return (struct blob_cache_config){ .block_bytes = BLOCK_BYTES };
}

/* ---- what is put and forgotten ---- */

static void keep_bytes(struct cache_blob *c, const struct cache_key *key, struct slice bytes, uint64_t mark)
{
    size_t block_bytes = cache_block_bytes(c->files);
    for (uint32_t i = 0; i < cache_block_count(c->files, bytes.len); i++) {
        size_t from = i * block_bytes, left = bytes.len - from;
        cache_files_put(c->files, key, bytes.len, i,
                        slice_part(bytes, from, left < block_bytes ? left : block_bytes), mark);
    }
}

static bool is_kept_whole(const struct cache_blob *c, const char *key, uint64_t size)
{
    return c->is_immutable(key) && size <= c->bytes_max / PUT_PART;
}

/* The builder's file, which has no name any more. */
static void keep_file(struct cache_blob *c, const struct cache_key *key, struct io_file *file, uint64_t size,
                      uint64_t mark)
{
    struct pool *pool = pool_open(c->pool, "blob_cache_put", POOL_BYTES_UNLIMITED);
    size_t block_bytes = cache_block_bytes(c->files);
    void *at = NULL;
    bool is_fine = pool_alloc(pool, block_bytes, &at) == OK;
    for (uint32_t i = 0; is_fine && i < cache_block_count(c->files, size); i++) {
        uint64_t from = (uint64_t)i * block_bytes;
        size_t len = size - from < block_bytes ? (size_t)(size - from) : block_bytes;
        is_fine = io_file_read(file, from, at, len, NULL) == OK;
        if (is_fine)
            cache_files_put(c->files, key, size, i, slice_of(at, len), mark);
    }
    pool_close(pool);
}

static err cache_put(struct blob *base, const char *key, struct slice bytes)
{
    struct cache_blob *c = cache_of(base);
    struct cache_key k = cache_key_of(key);
    uint64_t mark = cache_files_mark(c->files, &k);
    TRY(blob_put(c->inner, key, bytes));
    if (is_kept_whole(c, key, bytes.len))
        keep_bytes(c, &k, bytes, mark);
    return OK;
}

static err cache_put_file(struct blob *base, const char *key, const char *temp_path)
{
    struct cache_blob *c = cache_of(base);
    struct cache_key k = cache_key_of(key);
    struct io_file *file = NULL;
    uint64_t size = 0, mark = cache_files_mark(c->files, &k);
    if (!c->is_immutable(key))
        return blob_put_file(c->inner, key, temp_path);
    bool is_readable =
        io_file_open(c->io, temp_path, IO_READ, &file) == OK && io_file_size(file, &size) == OK;
    err e = blob_put_file(c->inner, key, temp_path);
    if (e == OK && is_readable && is_kept_whole(c, key, size))
        keep_file(c, &k, file, size, mark);
    io_file_close(file);
    return e;
}

static void forget(struct cache_blob *c, const char *key)
{
    struct cache_key k = cache_key_of(key);
    if (c->is_immutable(key))
        cache_files_forget(c->files, &k);
}

static bool cache_doubt(struct blob *base, const char *key)
{
    struct cache_blob *c = cache_of(base);
    bool may_help = blob_doubt(c->inner, key);
    forget(c, key);
    return may_help || c->is_immutable(key);
}

/* Before and after: a reader may keep what it read meanwhile. */
static err cache_replace(struct blob *base, const char *key, struct slice bytes)
{
    struct cache_blob *c = cache_of(base);
    forget(c, key);
    err e = blob_replace(c->inner, key, bytes);
    forget(c, key);
    return e;
}

static err cache_replace_file(struct blob *base, const char *key, const char *temp_path)
{
    struct cache_blob *c = cache_of(base);
    forget(c, key);
    err e = blob_replace_file(c->inner, key, temp_path);
    forget(c, key);
    return e;
}

static err cache_delete(struct blob *base, const char *key)
{
    struct cache_blob *c = cache_of(base);
    forget(c, key);
    err e = blob_delete(c->inner, key);
    forget(c, key);
    return e;
}

/* ---- handles ---- */

/* Open an object in the store, for one user. mark: asked for before. */
static err open_inner(struct cache_blob *c, const struct cache_key *key, uint64_t mark,
                      struct opened **out_opened)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(c->pool, "blob_cache_inner", sizeof(struct opened), &pool, &at));
    struct opened *opened = at;
    *opened = (struct opened){ .pool = pool, .mark = mark, .users = 1 };
    err e = blob_open(c->inner, key->text, &opened->handle);
    if (e == OK)
        *out_opened = opened;
    else
        pool_close(pool);
    return e;
}

/* NULL is allowed. */
static void let_go(struct cache_handle *h, struct opened *opened)
{
    if (opened == NULL)
        return;
    io_mutex_lock(&h->lock);
    bool is_last = --opened->users == 0;
    io_mutex_unlock(&h->lock);
    if (!is_last)
        return;
    blob_handle_close(opened->handle);
    pool_close(opened->pool);
}

/* The store's handle of the same object, opened after that was last forgotten; to be let go. */
static err take_inner(struct cache_handle *h, struct opened **out_opened)
{
    struct cache_blob *c = cache_of(h->base.blob);
    uint64_t mark = cache_files_mark(c->files, &h->key);
    io_mutex_lock(&h->lock);
    struct opened *opened = h->opened;
    bool is_there = opened != NULL && opened->mark == mark;
    if (is_there)
        opened->users++;
    io_mutex_unlock(&h->lock);
    if (!is_there) {
        TRY(open_inner(c, &h->key, mark, &opened));
        if (blob_handle_size(opened->handle) != h->base.size) { /* what is kept is not what is there */
            let_go(h, opened);
            cache_files_forget(c->files, &h->key);
            return ERR_CONFLICT;
        }
        opened->users++;
        io_mutex_lock(&h->lock);
        struct opened *before = h->opened;
        h->opened = opened;
        io_mutex_unlock(&h->lock);
        let_go(h, before);
    }
    *out_opened = opened;
    return OK;
}

static void cache_handle_close(struct blob_handle *base)
{
    struct cache_handle *h = (struct cache_handle *)base;
    let_go(h, h->opened);
    io_mutex_done(&h->lock);
    pool_close(h->pool);
}

static err cache_open(struct blob *base, const char *key, struct blob_handle **out_handle)
{
    struct cache_blob *c = cache_of(base);
    if (!c->is_immutable(key))
        return blob_open(c->inner, key, out_handle);
    struct pool *pool;
    void *at;
    TRY(pool_open_object(c->pool, "blob_cache_handle", sizeof(struct cache_handle), &pool, &at));
    struct cache_handle *h = at;
    struct slice copy;
    err e = OK;
    *h = (struct cache_handle){ .base.blob = base, .pool = pool };
    io_mutex_init(&h->lock);
    TRY_OUT(pool_copy(pool, slice_str(key), &copy));
    h->key = cache_key_of((const char *)copy.at);
    uint64_t mark = cache_files_mark(c->files, &h->key);
    if (cache_files_size(c->files, &h->key, &h->base.size) != OK) {
        TRY_OUT(open_inner(c, &h->key, mark, &h->opened));
        h->base.size = blob_handle_size(h->opened->handle);
        if (cache_block_count(c->files, h->base.size) == UINT32_MAX) /* their numbers have 32 bits */
            TRY_OUT(ERR_LIMIT);
    }
    *out_handle = &h->base;
out:
    if (e != OK)
        cache_handle_close(&h->base);
    return e;
}

/* ---- reading ---- */

struct range {
    uint64_t offset;
    size_t len; /* never 0 */
    uint8_t *at;
};

static void take_off(struct range *range, size_t len)
{
    range->offset += len;
    range->at += len;
    range->len -= len;
}

/* The beginning of a range that lies in one block. */
static struct range in_block(const struct cache_blob *c, const struct range *range)
{
    size_t block_bytes = cache_block_bytes(c->files);
    size_t left = block_bytes - (size_t)(range->offset % block_bytes);
    return (struct range){ range->offset, range->len < left ? range->len : left, range->at };
}

/* From the block of `first` on, how many that the range touches are not kept: at least 1. */
static uint32_t run_of(struct cache_blob *c, const struct cache_handle *h, const struct range *range,
                       uint32_t first)
{
    size_t block_bytes = cache_block_bytes(c->files);
    uint64_t last = (range->offset + range->len - 1) / block_bytes;
    uint64_t most = RUN_BYTES_MAX / block_bytes > 1 ? RUN_BYTES_MAX / block_bytes : 1;
    uint32_t count = 1;
    while (count < most && first + count <= last && !cache_files_has(c->files, &h->key, first + count))
        count++;
    return count;
}

/* Fetch whole blocks, keep them, and give the beginning of the range that lies in them. */
static err fetch_run(struct cache_blob *c, struct cache_handle *h, struct range *range)
{
    size_t block_bytes = cache_block_bytes(c->files);
    uint32_t first = (uint32_t)(range->offset / block_bytes), count = run_of(c, h, range, first);
    uint64_t begin = (uint64_t)first * block_bytes, end = begin + (uint64_t)count * block_bytes;
    end = end < h->base.size ? end : h->base.size;
    size_t given = end - range->offset < range->len ? (size_t)(end - range->offset) : range->len;
    struct pool *pool = pool_open(c->pool, "blob_cache_fetch", POOL_BYTES_UNLIMITED);
    struct opened *inner = NULL;
    void *at = NULL;
    err e = OK;
    stat_add(STAT_BLOB_CACHE_MISSES, count);
    TRY_OUT(take_inner(h, &inner));
    if (pool_alloc(pool, (size_t)(end - begin), &at) != OK) { /* no room to keep any of it */
        e = blob_read(inner->handle, range->offset, range->at, given);
        goto out;
    }
    TRY_OUT(blob_read(inner->handle, begin, at, (size_t)(end - begin)));
    memcpy(range->at, (const uint8_t *)at + (range->offset - begin), given);
    for (uint32_t i = 0; i < count; i++) {
        size_t from = i * block_bytes, left = (size_t)(end - begin) - from;
        cache_files_put(c->files, &h->key, h->base.size, first + i,
                        slice_of((const uint8_t *)at + from, left < block_bytes ? left : block_bytes),
                        inner->mark);
    }
out:
    let_go(h, inner);
    pool_close(pool);
    if (e == OK)
        take_off(range, given);
    return e;
}

/* OK: the beginning of the range was kept, and is taken off it. */
static err read_kept(struct cache_blob *c, struct cache_handle *h, struct range *range)
{
    struct range part = in_block(c, range);
    TRY(cache_files_read(c->files, &h->key, h->base.size, part.offset, part.at, part.len));
    stat_add(STAT_BLOB_CACHE_HITS, 1);
    stat_add(STAT_BLOB_CACHE_HIT_BYTES, (int64_t)part.len);
    take_off(range, part.len);
    return OK;
}

static err cache_read(struct blob_handle *base, uint64_t offset, void *at, size_t len)
{
    struct cache_handle *h = (struct cache_handle *)base;
    struct cache_blob *c = cache_of(base->blob);
    struct range range = { offset, len, at };
    if (offset > base->size || len > base->size - offset)
        return ERR_END;
    while (range.len > 0)
        if (read_kept(c, h, &range) != OK)
            TRY(fetch_run(c, h, &range));
    return OK;
}

/* All of an object from what is kept. Any error: not all of it is, or there is no memory; nothing is given. */
static err get_kept(struct cache_blob *c, const struct cache_key *key, size_t bytes_max, struct pool *pool,
                    struct slice *out_bytes)
{
    uint64_t size;
    void *at;
    TRY(cache_files_size(c->files, key, &size));
    if (size > bytes_max)
        return ERR_LIMIT;
    for (uint32_t i = 0; i < cache_block_count(c->files, size); i++)
        if (!cache_files_has(c->files, key, i))
            return ERR_NOT_FOUND;
    TRY(pool_alloc(pool, (size_t)size + 1, &at));
    struct cache_handle h = { .base = { &c->base, size }, .key = *key };
    struct range range = { 0, (size_t)size, at };
    while (range.len > 0)
        TRY(read_kept(c, &h, &range));
    ((char *)at)[size] = '\0';
    *out_bytes = slice_of(at, (size_t)size);
    return OK;
}

static err cache_get(struct blob *base, const char *key, size_t bytes_max, struct pool *pool,
                     struct slice *out_bytes)
{
    struct cache_blob *c = cache_of(base);
    if (!c->is_immutable(key))
        return blob_get(c->inner, key, bytes_max, pool, out_bytes);
    struct cache_key k = cache_key_of(key);
    if (get_kept(c, &k, bytes_max, pool, out_bytes) == OK)
        return OK;
    uint64_t mark = cache_files_mark(c->files, &k);
    TRY(blob_get(c->inner, key, bytes_max, pool, out_bytes));
    stat_add(STAT_BLOB_CACHE_MISSES, cache_block_count(c->files, out_bytes->len));
    if (is_kept_whole(c, key, out_bytes->len))
        keep_bytes(c, &k, *out_bytes, mark);
    return OK;
}

/* ---- what the store knows alone ---- */

static err cache_size(struct blob *base, const char *key, uint64_t *out_size)
{
    return blob_size(cache_of(base)->inner, key, out_size);
}

static err cache_list(struct blob *base, const char *prefix, struct pool *pool,
                      struct blob_entry **out_entries, size_t *out_count)
{
    return blob_list(cache_of(base)->inner, prefix, pool, out_entries, out_count);
}

static void cache_tend(struct blob *base)
{
    struct cache_blob *c = cache_of(base);
    cache_files_tend(c->files);
    blob_tend(c->inner);
}

static void cache_close(struct blob *base)
{
    struct cache_blob *c = cache_of(base);
    cache_files_close(c->files);
    blob_close(c->inner);
    pool_close(c->pool);
}

static const struct blob_driver cache_driver = {
    .close = cache_close,
    .put = cache_put,
    .replace = cache_replace,
    .put_file = cache_put_file,
    .replace_file = cache_replace_file,
    .open_handle = cache_open,
    .handle_close = cache_handle_close,
    .read = cache_read,
    .get = cache_get,
    .size = cache_size,
    .list = cache_list,
    .delete_ = cache_delete,
    .doubt = cache_doubt,
    .tend = cache_tend,
};

err blob_open_cached(struct blob *inner, const struct blob_cache_config *config, struct io *io,
                     struct pool *parent, struct blob **out_blob, struct err_at *at)
{
    struct pool *pool;
    void *room;
    TRY(pool_open_object(parent, "blob_cache", sizeof(struct cache_blob), &pool, &room));
    struct cache_blob *c = room;
    *c = (struct cache_blob){ .base.driver = &cache_driver,
                              .inner = inner,
                              .io = io,
                              .pool = pool,
                              .is_immutable = config->is_immutable,
                              .bytes_max = config->bytes_max };
    err e = cache_files_open(config, io, pool, &c->files, at);
    if (e == OK)
        *out_blob = &c->base;
    else
        pool_close(pool);
    return e;
}
