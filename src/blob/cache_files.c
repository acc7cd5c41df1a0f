/* Blocks of objects as files of the local disk. See cache_files.h.
 *
 *   put:   oldest evicted, entry FILLING ─→ file written, not synced ─→ READY   fails: BAD, and removed
 *   read:  entry pinned ─→ head checked, pages read and checked ─→ unpinned     fails: BAD, and removed
 *   evict: file unlinked ─→ entry freed                                         fails: BAD, and the next one
 *
 * A file's name is the hash of the object's key and the number of the block, so that a start needs no look into
 * any. Its head holds the key itself, the object's size and the checksums of its pages, and is checksummed as
 * well: nothing is synced, and a crash may leave any bytes under any of the names.
 *
 * Invariants:
 *   1. bytes is what all entries take of the disk, and at most bytes_max; so is the count of entries.
 *   2. A file of our names has an entry, from before it is made until after it is unlinked; but for those that a
 *      start finds no room for and cannot unlink.
 *   3. An entry with readers, and one that is FILLING, is not evicted: its name is nobody else's meanwhile.
 *   4. Bytes are given out only if their checksum and the key in their head are right.
 *   5. The local disk's errors end here. */
#include "blob/cache_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"
#include "io/thread.h"

#define MAGIC            0x3143424bu /* "KBC1", of format version 1 */
#define UNIT_BYTES       4096u       /* of the disk's space */
#define BLOCK_BYTES_MAX  (4u << 20)
#define ENTRIES_MAX      (1u << 20)
#define ENTRY_BYTES_MEAN (64u << 10) /* so many bytes of the cache may have one entry */
#define PAUSE_NS         (10 * NS_PER_SECOND)
#define PATH_BYTES       (IO_PATH_BYTES_MAX + CACHE_NAME_BYTES)
#define FREE_CHECK_BYTES (64u << 20) /* the disk is asked for its space each time so much was put */

enum state {
    FILLING, /* being written */
    READY,
    BAD, /* not to be read: its file is damaged, or could not be removed */
};

struct entry {
    struct entry *next; /* of the bucket */
    struct entry *newer, *older;
    struct hash128 hash;
    uint32_t block;
    uint32_t bytes; /* of the disk */
    uint32_t readers;
    enum state state;
};

struct cache_files {
    struct io *io;
    struct pool *pool;
    uint64_t bytes_max, free_bytes_min, check_bytes;
    size_t block_bytes, page_bytes;
    size_t entries_max, bucket_mask;
    struct io_mutex lock; /* of what follows, and of the pool; held while files are unlinked */
    struct entry **buckets;
    struct entry *newest, *oldest;
    uint64_t bytes;
    size_t count;
    uint64_t mark;            /* how often something was forgotten */
    int64_t paused_until_ns;  /* nothing is put: a write failed */
    uint64_t unchecked_bytes; /* put since the disk was asked for its space */
    char directory[IO_PATH_BYTES_MAX];
};

/* ---- names ---- */

struct cache_key cache_key_of(const char *text)
{
    return (struct cache_key){ .text = text, .hash = hash128(slice_str(text), 0) };
}

static void path_of(const struct cache_files *f, struct hash128 hash, uint32_t block, char out[PATH_BYTES])
{
    int printed = snprintf(out, PATH_BYTES, "%s/%016llx%016llx-%08x", f->directory,
                           (unsigned long long)hash.high, (unsigned long long)hash.low, (unsigned)block);
    check(printed > 0 && printed < PATH_BYTES);
}

/* Lower case only, as it is written. */
static bool parse_hex(const char *text, size_t digits, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < digits; i++) {
        int v = hex_value((uint8_t)text[i]);
        if (v < 0 || (text[i] >= 'A' && text[i] <= 'F'))
            return false;
        *out = *out << 4 | (uint64_t)v;
    }
    return true;
}

static bool parse_name(const char *name, struct hash128 *out_hash, uint32_t *out_block)
{
    uint64_t block;
    if (strlen(name) != CACHE_NAME_BYTES - 1 || name[32] != '-' || !parse_hex(name, 16, &out_hash->high) ||
        !parse_hex(name + 16, 16, &out_hash->low) || !parse_hex(name + 33, 8, &block))
        return false;
    *out_block = (uint32_t)block;
    return true;
}

/* ---- entries; all locked ---- */

static struct entry **bucket_of(struct cache_files *f, struct hash128 hash, uint32_t block)
{
    return &f->buckets[hash_mix(hash.low ^ block * UINT64_C(0x9e3779b97f4a7c15)) & f->bucket_mask];
}

static struct entry *find(struct cache_files *f, struct hash128 hash, uint32_t block)
{
    struct entry *entry = *bucket_of(f, hash, block);
    while (entry != NULL && (entry->block != block || !hash128_equal(entry->hash, hash)))
        entry = entry->next;
    return entry;
}

static void unlink_entry(struct cache_files *f, struct entry *entry)
{
    *(entry->newer != NULL ? &entry->newer->older : &f->newest) = entry->older;
    *(entry->older != NULL ? &entry->older->newer : &f->oldest) = entry->newer;
    entry->newer = entry->older = NULL;
}

static void link_newest(struct cache_files *f, struct entry *entry)
{
    entry->older = f->newest;
    *(f->newest != NULL ? &f->newest->newer : &f->oldest) = entry;
    f->newest = entry;
}

static uint32_t disk_bytes(uint64_t file_bytes)
{
    return (uint32_t)((file_bytes + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES);
}

/* NULL: no memory. */
static struct entry *add(struct cache_files *f, struct hash128 hash, uint32_t block, uint32_t bytes)
{
    void *at = NULL;
    if (pool_block_resize(f->pool, &at, sizeof(struct entry)) != OK)
        return NULL;
    struct entry *entry = at, **bucket = bucket_of(f, hash, block);
    *entry =
        (struct entry){ .next = *bucket, .hash = hash, .block = block, .bytes = bytes, .state = FILLING };
    *bucket = entry;
    link_newest(f, entry);
    f->bytes += bytes;
    f->count++;
    stat_add(STAT_BLOB_CACHE_BYTES, bytes);
    return entry;
}

static void drop(struct cache_files *f, struct entry *entry)
{
    struct entry **link = bucket_of(f, entry->hash, entry->block);
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    unlink_entry(f, entry);
    f->bytes -= entry->bytes;
    f->count--;
    stat_add(STAT_BLOB_CACHE_BYTES, -(int64_t)entry->bytes);
    pool_block_free(f->pool, entry);
}

/* Remove the file of an entry that nobody uses, and the entry. False: the file cannot be removed; it stays
 * known. */
static bool remove_entry(struct cache_files *f, struct entry *entry)
{
    char path[PATH_BYTES];
    path_of(f, entry->hash, entry->block, path);
    err e = io_unlink(f->io, path);
    if (e == OK || e == ERR_NOT_FOUND) {
        drop(f, entry);
        return true;
    }
    entry->state = BAD;
    stat_add(STAT_BLOB_CACHE_FAILURES, 1);
    return false;
}

/* Evict until `bytes` and one entry more fit below `bytes_max`. False: they do not. */
static bool make_room(struct cache_files *f, uint64_t bytes_max, uint64_t bytes)
{
    struct entry *next;
    for (struct entry *e = f->oldest; e != NULL; e = next) {
        if (f->bytes + bytes <= bytes_max && f->count < f->entries_max)
            break;
        next = e->newer;
        if (e->readers == 0 && e->state != FILLING && remove_entry(f, e))
            stat_add(STAT_BLOB_CACHE_EVICTIONS, 1);
    }
    return f->bytes + bytes <= bytes_max && f->count < f->entries_max;
}

/* ---- heads ---- */

struct head {
    uint64_t size;
    uint32_t block, len; /* of the block's bytes */
    uint32_t crcs[CACHE_PAGES];
};

static void head_put(const struct cache_files *f, const struct cache_key *key, const struct head *head,
                     uint8_t out[CACHE_HEAD_BYTES])
{
    size_t key_len = strlen(key->text);
    check(key_len <= BLOB_KEY_BYTES_MAX);
    memset(out, 0, CACHE_HEAD_BYTES);
    put_le32(out, MAGIC);
    put_le32(out + 4, (uint32_t)f->block_bytes);
    put_le64(out + 8, head->size);
    put_le32(out + 16, head->block);
    put_le32(out + 20, head->len);
    put_le32(out + 24, (uint32_t)key_len);
    memcpy(out + 32, key->text, key_len);
    for (size_t i = 0; i < CACHE_PAGES; i++)
        put_le32(out + 32 + BLOB_KEY_BYTES_MAX + 4 * i, head->crcs[i]);
    put_le32(out + CACHE_HEAD_BYTES - 4, crc32c(slice_of(out, CACHE_HEAD_BYTES - 4), 0));
}

/* How many bytes a block of an object has. */
static size_t len_of(const struct cache_files *f, uint64_t size, uint32_t block)
{
    uint64_t begin = (uint64_t)block * f->block_bytes;
    check(begin <= size);
    return size - begin < f->block_bytes ? (size_t)(size - begin) : f->block_bytes;
}

/* False: damaged, of another key, or of a cache with other blocks. */
static bool head_take(const struct cache_files *f, const struct cache_key *key, uint32_t block,
                      const uint8_t in[CACHE_HEAD_BYTES], struct head *out)
{
    size_t key_len = strlen(key->text);
    if (get_le32(in + CACHE_HEAD_BYTES - 4) != crc32c(slice_of(in, CACHE_HEAD_BYTES - 4), 0) ||
        get_le32(in) != MAGIC || get_le32(in + 4) != f->block_bytes || get_le32(in + 16) != block ||
        get_le32(in + 24) != key_len || memcmp(in + 32, key->text, key_len) != 0)
        return false;
    *out = (struct head){ .size = get_le64(in + 8), .block = block, .len = get_le32(in + 20) };
    for (size_t i = 0; i < CACHE_PAGES; i++)
        out->crcs[i] = get_le32(in + 32 + BLOB_KEY_BYTES_MAX + 4 * i);
    return (uint64_t)block * f->block_bytes <= out->size && out->len == len_of(f, out->size, block);
}

/* ---- reading ---- */

/* Pin a block that can be read, as the newest. NULL: there is none. */
static struct entry *pin(struct cache_files *f, const struct cache_key *key, uint32_t block)
{
    io_mutex_lock(&f->lock);
    struct entry *entry = find(f, key->hash, block);
    if (entry != NULL && entry->state == READY) {
        entry->readers++;
        unlink_entry(f, entry);
        link_newest(f, entry);
    } else {
        entry = NULL;
    }
    io_mutex_unlock(&f->lock);
    return entry;
}

/* e: what came of reading. Damage and failures take the block out. */
static err unpin(struct cache_files *f, struct entry *entry, err e)
{
    bool is_lost = e != OK && e != ERR_LIMIT;
    io_mutex_lock(&f->lock);
    entry->readers--;
    if (is_lost && entry->state == READY) {
        entry->state = BAD;
        stat_add(e == ERR_CORRUPT ? STAT_BLOB_CACHE_DAMAGED : STAT_BLOB_CACHE_FAILURES, 1);
    }
    if (entry->state == BAD && entry->readers == 0)
        (void)remove_entry(f, entry);
    io_mutex_unlock(&f->lock);
    return is_lost ? ERR_NOT_FOUND : e;
}

static err open_block(struct cache_files *f, const struct cache_key *key, uint32_t block,
                      struct io_file **out_file, struct head *out_head)
{
    char path[PATH_BYTES];
    uint8_t bytes[CACHE_HEAD_BYTES];
    struct io_file *file = NULL;
    path_of(f, key->hash, block, path);
    TRY(io_file_open(f->io, path, IO_READ, &file));
    err e = io_file_read(file, 0, bytes, sizeof bytes, NULL);
    if (e == ERR_END || (e == OK && !head_take(f, key, block, bytes, out_head)))
        e = ERR_CORRUPT;
    if (e == OK)
        *out_file = file;
    else
        io_file_close(file);
    return e;
}

/* [from, from + len) of a block through `pages`, which has room for all pages that it touches. */
static err read_pages(const struct cache_files *f, struct io_file *file, const struct head *head, size_t from,
                      void *at, size_t len, uint8_t *pages)
{
    size_t first = from / f->page_bytes * f->page_bytes;
    size_t end = (from + len + f->page_bytes - 1) / f->page_bytes * f->page_bytes;
    end = end < head->len ? end : head->len;
    err e = io_file_read(file, CACHE_HEAD_BYTES + first, pages, end - first, NULL);
    if (e != OK)
        return e == ERR_END ? ERR_CORRUPT : e;
    for (size_t page = first; page < end; page += f->page_bytes) {
        size_t page_len = end - page < f->page_bytes ? end - page : f->page_bytes;
        if (crc32c(slice_of(pages + (page - first), page_len), 0) != head->crcs[page / f->page_bytes])
            return ERR_CORRUPT;
    }
    memcpy(at, pages + (from - first), len);
    return OK;
}

static err read_block(struct cache_files *f, const struct cache_key *key, uint64_t size, uint32_t block,
                      size_t from, void *at, size_t len)
{
    struct pool *pool = pool_open(f->pool, "blob_cache_read", POOL_BYTES_UNLIMITED);
    struct io_file *file = NULL;
    struct head head;
    void *pages = NULL;
    err e = OK;
    TRY_OUT(pool_alloc(pool, len + 2 * f->page_bytes, &pages));
    TRY_OUT(open_block(f, key, block, &file, &head));
    TRY_OUT(head.size == size ? OK : ERR_CORRUPT);
    e = read_pages(f, file, &head, from, at, len, pages);
out:
    io_file_close(file);
    pool_close(pool);
    return e;
}

err cache_files_read(struct cache_files *f, const struct cache_key *key, uint64_t size, uint64_t offset,
                     void *at, size_t len)
{
    uint32_t block = (uint32_t)(offset / f->block_bytes);
    size_t from = (size_t)(offset - (uint64_t)block * f->block_bytes);
    check(len > 0 && offset + len <= size && from + len <= f->block_bytes);
    struct entry *entry = pin(f, key, block);
    if (entry == NULL)
        return ERR_NOT_FOUND;
    return unpin(f, entry, read_block(f, key, size, block, from, at, len));
}

err cache_files_size(struct cache_files *f, const struct cache_key *key, uint64_t *out_size)
{
    struct io_file *file = NULL;
    struct head head;
    struct entry *entry = pin(f, key, 0);
    if (entry == NULL)
        return ERR_NOT_FOUND;
    err e = open_block(f, key, 0, &file, &head);
    if (e == OK)
        io_file_close(file);
    TRY(unpin(f, entry, e));
    *out_size = head.size;
    return OK;
}

bool cache_files_has(struct cache_files *f, const struct cache_key *key, uint32_t block)
{
    io_mutex_lock(&f->lock);
    const struct entry *entry = find(f, key->hash, block);
    bool has = entry != NULL && entry->state == READY;
    io_mutex_unlock(&f->lock);
    return has;
}

/* ---- keeping ---- */

/* Locked. The disk's space is others' too: below the floor the cache gives back. */
static bool disk_allows(struct cache_files *f, uint64_t bytes)
{
    struct io_space space;
    if (f->free_bytes_min == 0 || (f->unchecked_bytes += bytes) < f->check_bytes)
        return true;
    f->unchecked_bytes = f->check_bytes; /* until it is enough */
    if (io_space(f->io, &space) != OK)
        return false;
    if (space.free_bytes < f->free_bytes_min) {
        uint64_t lacking = f->free_bytes_min - space.free_bytes;
        (void)make_room(f, f->bytes > lacking ? f->bytes - lacking : 0, 0);
        return false;
    }
    f->unchecked_bytes = 0;
    return true;
}

/* An entry for a block that is about to be written. NULL: it is there, or is not to be kept. */
static struct entry *reserve(struct cache_files *f, const struct cache_key *key, uint32_t block,
                             uint32_t bytes)
{
    struct entry *entry = NULL;
    io_mutex_lock(&f->lock);
    if (find(f, key->hash, block) == NULL && io_monotonic_ns(f->io) >= f->paused_until_ns &&
        disk_allows(f, bytes) && make_room(f, f->bytes_max, bytes))
        entry = add(f, key->hash, block, bytes);
    io_mutex_unlock(&f->lock);
    return entry;
}

static err write_block(struct cache_files *f, const struct cache_key *key, const struct head *head,
                       struct slice bytes)
{
    char path[PATH_BYTES];
    uint8_t head_bytes[CACHE_HEAD_BYTES];
    struct io_file *file = NULL;
    head_put(f, key, head, head_bytes);
    path_of(f, key->hash, head->block, path);
    err e = io_file_open(f->io, path, IO_CREATE, &file);
    if (e == ERR_EXISTS && io_unlink(f->io, path) == OK) /* a start could not remove it; the name is ours */
        e = io_file_open(f->io, path, IO_CREATE, &file);
    TRY(e);
    struct slice parts[2] = { slice_of(head_bytes, sizeof head_bytes), bytes };
    e = io_file_write_all(file, 0, parts, 2);
    io_file_close(file);
    return e;
}

void cache_files_put(struct cache_files *f, const struct cache_key *key, uint64_t size, uint32_t block,
                     struct slice bytes, uint64_t mark)
{
    check(bytes.len == len_of(f, size, block));
    struct entry *entry = reserve(f, key, block, disk_bytes(CACHE_HEAD_BYTES + bytes.len));
    if (entry == NULL)
        return;
    struct head head = { .size = size, .block = block, .len = (uint32_t)bytes.len };
    for (size_t i = 0; i * f->page_bytes < bytes.len; i++) {
        size_t left = bytes.len - i * f->page_bytes;
        head.crcs[i] =
            crc32c(slice_part(bytes, i * f->page_bytes, left < f->page_bytes ? left : f->page_bytes), 0);
    }
    err e = write_block(f, key, &head, bytes);
    io_mutex_lock(&f->lock);
    entry->state = e == OK && mark == f->mark ? READY : BAD;
    if (e != OK) {
        stat_add(STAT_BLOB_CACHE_FAILURES, 1);
        f->paused_until_ns = io_monotonic_ns(f->io) + PAUSE_NS;
    }
    if (entry->state == BAD)
        (void)remove_entry(f, entry);
    io_mutex_unlock(&f->lock);
}

uint64_t cache_files_mark(struct cache_files *f)
{
    io_mutex_lock(&f->lock);
    uint64_t mark = f->mark;
    io_mutex_unlock(&f->lock);
    return mark;
}

void cache_files_forget(struct cache_files *f, const struct cache_key *key)
{
    struct entry *older;
    io_mutex_lock(&f->lock);
    f->mark++;
    for (struct entry *e = f->newest; e != NULL; e = older) {
        older = e->older;
        if (!hash128_equal(e->hash, key->hash) || e->state == FILLING) /* that one sees the mark */
            continue;
        e->state = BAD;
        if (e->readers == 0) /* else the last of them removes it */
            (void)remove_entry(f, e);
    }
    io_mutex_unlock(&f->lock);
}

/* ---- opening ---- */

uint32_t cache_block_count(const struct cache_files *f, uint64_t size)
{
    uint64_t count = size == 0 ? 1 : (size - 1) / f->block_bytes + 1;
    return count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
}

size_t cache_block_bytes(const struct cache_files *f) { return f->block_bytes; }

struct found {
    struct hash128 hash;
    uint32_t block;
    uint64_t bytes;
    int64_t t_ms;
};

static int newest_first(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return x->t_ms != y->t_ms ? (x->t_ms < y->t_ms ? 1 : -1) : 0;
}

/* Files of our names, the newest first. One that cannot be looked at is as one of no bytes: read, it is
 * damaged. */
static err look(struct cache_files *f, struct pool *pool, struct found **out_found, size_t *out_count)
{
    struct io_dir_entry *names;
    size_t name_count, count = 0;
    TRY(io_dir_list(f->io, f->directory, pool, &names, &name_count));
    TRY(pool_alloc(pool, (name_count + 1) * sizeof **out_found, (void **)out_found));
    for (size_t i = 0; i < name_count; i++) {
        struct found found = { 0 };
        char path[PATH_BYTES];
        if (names[i].is_dir || !parse_name(names[i].name, &found.hash, &found.block))
            continue;
        path_of(f, found.hash, found.block, path);
        ERR_IGNORE(io_path_size(f->io, path, &found.bytes, &found.t_ms));
        (*out_found)[count++] = found;
    }
    if (count > 1)
        qsort(*out_found, count, sizeof **out_found, newest_first);
    *out_count = count;
    return OK;
}

/* The newest that fit become entries, the others go. */
static err take_found(struct cache_files *f)
{
    struct pool *pool = pool_open(f->pool, "blob_cache_open", POOL_BYTES_UNLIMITED);
    struct found *found;
    size_t count;
    err e = OK;
    TRY_OUT(look(f, pool, &found, &count));
    for (size_t i = 0; i < count; i++) {
        bool is_whole =
            found[i].bytes >= CACHE_HEAD_BYTES && found[i].bytes <= CACHE_HEAD_BYTES + f->block_bytes;
        uint32_t bytes = is_whole ? disk_bytes(found[i].bytes) : 0;
        struct entry *entry = NULL;
        if (is_whole && f->bytes + bytes <= f->bytes_max && f->count < f->entries_max)
            entry = add(f, found[i].hash, found[i].block, bytes);
        if (entry == NULL) {
            char path[PATH_BYTES];
            path_of(f, found[i].hash, found[i].block, path);
            ERR_IGNORE(io_unlink(f->io, path)); /* IO_CREATE will not take its name */
            continue;
        }
        entry->state = READY;
        unlink_entry(f, entry); /* what comes later is older */
        entry->newer = f->oldest;
        *(f->oldest != NULL ? &f->oldest->older : &f->newest) = entry;
        f->oldest = entry;
    }
out:
    pool_close(pool);
    return e;
}

static err check_config(const struct blob_cache_config *config, struct err_at *at)
{
    size_t len = strlen(config->directory);
    if (len == 0 || len > IO_PATH_BYTES_MAX - CACHE_NAME_BYTES)
        return err_set(at, ERR_INPUT, "the cache's directory has 1 to %d bytes",
                       IO_PATH_BYTES_MAX - CACHE_NAME_BYTES);
    if (config->block_bytes == 0 || config->block_bytes > BLOCK_BYTES_MAX ||
        config->block_bytes % CACHE_PAGES != 0)
        return err_set(at, ERR_INPUT, "blocks of the cache have at most %u bytes, a multiple of %d",
                       BLOCK_BYTES_MAX, CACHE_PAGES);
    if (config->bytes_max < 2 * (uint64_t)disk_bytes(CACHE_HEAD_BYTES + config->block_bytes))
        return err_set(at, ERR_INPUT, "the cache is smaller than two of its blocks, which have %zu bytes",
                       config->block_bytes);
    if (config->is_immutable == NULL)
        return err_set(at, ERR_INPUT, "nobody says which objects never change");
    return OK;
}

err cache_files_open(const struct blob_cache_config *config, struct io *io, struct pool *parent,
                     struct cache_files **out_files, struct err_at *at)
{
    struct pool *pool;
    void *room;
    TRY(check_config(config, at));
    TRY(pool_open_object(parent, "blob_cache_files", sizeof(struct cache_files), &pool, &room));
    struct cache_files *f = room;
    uint64_t entries = config->bytes_max / ENTRY_BYTES_MEAN;
    f->io = io;
    f->pool = pool;
    f->bytes_max = config->bytes_max;
    f->free_bytes_min = config->free_bytes_min;
    f->block_bytes = config->block_bytes;
    f->page_bytes = config->block_bytes / CACHE_PAGES;
    f->entries_max = entries < 1024 ? 1024 : entries > ENTRIES_MAX ? ENTRIES_MAX : (size_t)entries;
    f->check_bytes = f->bytes_max / 16 < FREE_CHECK_BYTES ? f->bytes_max / 16 : FREE_CHECK_BYTES;
    f->unchecked_bytes = f->check_bytes;
    memcpy(f->directory, config->directory, strlen(config->directory) + 1);
    io_mutex_init(&f->lock);
    size_t buckets = 1024;
    while (buckets < f->entries_max)
        buckets *= 2;
    f->bucket_mask = buckets - 1;
    err e = OK;
    TRY_OUT(pool_zalloc(pool, buckets * sizeof *f->buckets, (void **)&f->buckets));
    e = io_dir_make(io, f->directory);
    if (e == OK)
        e = take_found(f);
    if (e != OK)
        ERR_IGNORE(err_set(at, e, "the cache's directory %s: %s", config->directory, err_text(e)));
out:
    if (e == OK)
        *out_files = f;
    else
        cache_files_close(f);
    return e;
}

void cache_files_close(struct cache_files *f)
{
    if (f == NULL)
        return;
    stat_add(STAT_BLOB_CACHE_BYTES, -(int64_t)f->bytes);
    io_mutex_done(&f->lock);
    pool_close(f->pool);
}
