/* Blocks of objects as files of the local disk. See cache_files.h.
 *
 *   put:   oldest removed, entry FILLING ─→ file written, not synced ─→ READY   fails: BAD, and removed
 *   read:  entry pinned ─→ head checked, pages read and checked ─→ unpinned     fails: BAD, and removed
 *   remove: off the list of use ─→ file unlinked ─→ entry freed                 fails: BAD, back on the list
 *           as the newest, and no file is removed for a while
 *
 * A file's name is the hash of the object's key and the number of the block, so that a start needs no look into
 * any. Its head holds the key itself, the object's size and the checksums of its pages, and is checksummed as
 * well: nothing is synced, and a crash may leave any bytes under any of the names.
 *
 * Invariants:
 *   1. bytes is what all entries take of the disk, and at most bytes_max; so is the count of entries.
 *   2. A file of our names has an entry, from before it is made until after it is unlinked; but for those that a
 *      start finds no room for and cannot unlink.
 *   3. An entry with readers, and one that is FILLING, is not removed: its name is nobody else's meanwhile.
 *   4. Bytes are given out only if their checksum and the key in their head are right.
 *   5. The local disk's errors end here.
 *   6. The lock is not held during a call of the disk. A disk that cannot unlink is asked to once in a while. */
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
#define FREE_CHECK_BYTES (64u << 20)   /* the disk is asked for its space each time so much was put, … */
#define FREE_CHECK_NS    NS_PER_SECOND /* … and by a read or a put after so long */
#define REMOVE_COUNT     32            /* files that a read or a put removes for the disk's sake */
#define MARK_COUNT       1024          /* keys whose hashes are alike modulo this are forgotten together */

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
    uint8_t state;   /* enum state */
    bool is_leaving; /* off the list of use, by who removes its file; `older` links those that go together */
    bool is_gone;    /* … its file is */
};

struct cache_files {
    struct io *io;
    struct pool *pool;
    uint64_t bytes_max, free_bytes_min, check_bytes;
    size_t block_bytes, page_bytes;
    size_t entries_max, bucket_mask;
    struct io_mutex lock; /* of what follows, and of the pool; never held during a call of the disk */
    struct entry **buckets;
    struct entry *newest, *oldest;
    uint64_t bytes;
    size_t count;
    uint64_t marks[MARK_COUNT]; /* how often something was forgotten; by the key's hash … */
    uint64_t forgotten_count;   /* … and in all */
    int64_t paused_until_ns;    /* nothing is put: a write failed */
    int64_t stuck_until_ns;     /* no file is removed: one could not be */
    uint64_t unchecked_bytes;   /* put since the disk was asked for its space */
    int64_t look_ns;            /* it is to be asked again */
    bool is_short;              /* it had less than the floor, or did not say: nothing is put */
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

static void list_remove(struct cache_files *f, struct entry *entry)
{
    *(entry->newer != NULL ? &entry->newer->older : &f->newest) = entry->older;
    *(entry->older != NULL ? &entry->older->newer : &f->oldest) = entry->newer;
    entry->newer = entry->older = NULL;
}

static void list_newest(struct cache_files *f, struct entry *entry)
{
    entry->older = f->newest;
    *(f->newest != NULL ? &f->newest->newer : &f->oldest) = entry;
    f->newest = entry;
}

static void list_oldest(struct cache_files *f, struct entry *entry)
{
    entry->newer = f->oldest;
    *(f->oldest != NULL ? &f->oldest->older : &f->newest) = entry;
    f->oldest = entry;
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
    list_newest(f, entry);
    f->bytes += bytes;
    f->count++;
    stat_add(STAT_BLOB_CACHE_BYTES, bytes);
    return entry;
}

/* One that is on no list. */
static void drop(struct cache_files *f, struct entry *entry)
{
    struct entry **link = bucket_of(f, entry->hash, entry->block);
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    f->bytes -= entry->bytes;
    f->count--;
    stat_add(STAT_BLOB_CACHE_BYTES, -(int64_t)entry->bytes);
    pool_block_free(f->pool, entry);
}

/* ---- removing; locked but for what `unlink_files` does ---- */

static bool may_remove(const struct cache_files *f) { return io_monotonic_ns(f->io) >= f->stuck_until_ns; }

static bool is_idle(const struct entry *entry)
{
    return entry->readers == 0 && entry->state != FILLING && !entry->is_leaving;
}

/* An idle one, before `list`. */
static void take_out(struct cache_files *f, struct entry *entry, struct entry **list)
{
    list_remove(f, entry);
    entry->is_leaving = true;
    entry->is_gone = false;
    entry->older = *list;
    *list = entry;
}

/* Not locked. The first that cannot be removed is the last that is tried; it is returned, or NULL. */
static struct entry *unlink_files(struct cache_files *f, struct entry *list)
{
    for (struct entry *entry = list; entry != NULL; entry = entry->older) {
        char path[PATH_BYTES];
        path_of(f, entry->hash, entry->block, path);
        err e = io_unlink(f->io, path);
        if (e != OK && e != ERR_NOT_FOUND)
            return entry;
        entry->is_gone = true;
    }
    return NULL;
}

struct removed {
    size_t count;
    uint64_t bytes;
};

/* Remove the files of what was taken out, for which the lock is left, and the entries. One whose file stays
 * is BAD, and the newest, so that the next attempt is another's; those behind it were not tried and are as
 * they were, unless something was forgotten meanwhile, which did not see them. */
static struct removed remove_out(struct cache_files *f, struct entry *list)
{
    struct removed removed = { 0 };
    struct entry *older;
    uint64_t forgotten_count = f->forgotten_count;
    io_mutex_unlock(&f->lock);
    struct entry *stuck = unlink_files(f, list);
    io_mutex_lock(&f->lock);
    if (stuck != NULL) {
        stat_add(STAT_BLOB_CACHE_FAILURES, 1);
        f->stuck_until_ns = io_monotonic_ns(f->io) + PAUSE_NS;
        stuck->state = BAD;
    }
    for (struct entry *entry = list; entry != NULL; entry = older) {
        older = entry->older;
        entry->older = NULL;
        entry->is_leaving = false;
        if (entry->is_gone) {
            removed.count++;
            removed.bytes += entry->bytes;
            drop(f, entry);
        } else if (entry == stuck) {
            list_newest(f, entry);
        } else {
            list_oldest(f, entry);
            if (f->forgotten_count != forgotten_count)
                entry->state = BAD;
        }
    }
    return removed;
}

/* An entry that is BAD goes, if nobody reads it and files can be removed; else later. */
static void remove_bad(struct cache_files *f, struct entry *entry)
{
    struct entry *list = NULL;
    if (entry->state != BAD || !is_idle(entry) || !may_remove(f))
        return;
    take_out(f, entry, &list);
    (void)remove_out(f, list);
}

/* Remove the least recently used, of `bytes` and at least one, at most count_max. Nothing: none can be removed. */
static struct removed evict(struct cache_files *f, uint64_t bytes, size_t count_max)
{
    struct entry *list = NULL, *newer;
    struct removed taken = { 0 }, removed = { 0 };
    for (struct entry *e = may_remove(f) ? f->oldest : NULL; e != NULL; e = newer) {
        newer = e->newer;
        if (taken.count == count_max || (taken.count > 0 && taken.bytes >= bytes))
            break;
        if (!is_idle(e))
            continue;
        taken.count++;
        taken.bytes += e->bytes;
        take_out(f, e, &list);
    }
    if (list != NULL)
        removed = remove_out(f, list);
    stat_add(STAT_BLOB_CACHE_EVICTIONS, (int64_t)removed.count);
    return removed;
}

static bool has_room(const struct cache_files *f, uint64_t bytes)
{
    return f->bytes + bytes <= f->bytes_max && f->count < f->entries_max;
}

/* Evict until one entry more of `bytes` fits. False: it does not. Others put meanwhile. */
static bool make_room(struct cache_files *f, uint64_t bytes)
{
    while (!has_room(f, bytes)) {
        uint64_t over = f->bytes + bytes > f->bytes_max ? f->bytes + bytes - f->bytes_max : 0;
        if (evict(f, over, REMOVE_COUNT).count == 0)
            return false;
    }
    return true;
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

/* ---- the floor of free space ---- */

/* Is the disk to be asked for its space? When `bytes` more are to be put, or none. */
static bool look_is_due(struct cache_files *f, uint64_t bytes)
{
    if (f->free_bytes_min == 0)
        return false;
    io_mutex_lock(&f->lock);
    f->unchecked_bytes += bytes;
    bool is_due = io_monotonic_ns(f->io) >= f->look_ns ||
                  (bytes > 0 && (f->is_short || f->unchecked_bytes >= f->check_bytes));
    if (is_due) { /* nobody else looks at the same time */
        f->unchecked_bytes = 0;
        f->look_ns = io_monotonic_ns(f->io) + FREE_CHECK_NS;
    }
    io_mutex_unlock(&f->lock);
    return is_due;
}

/* Ask the disk for its space, which is others' too. Below the floor nothing is put, and what lacks is given back:
 * count_max files at most. */
static void look_at_disk(struct cache_files *f, size_t count_max)
{
    struct io_space space = { 0 };
    bool is_known = io_space(f->io, &space) == OK;
    uint64_t lacking =
        is_known && space.free_bytes < f->free_bytes_min ? f->free_bytes_min - space.free_bytes : 0;
    io_mutex_lock(&f->lock);
    f->is_short = !is_known || lacking > 0;
    while (lacking > 0 && count_max > 0) {
        struct removed removed = evict(f, lacking, count_max < REMOVE_COUNT ? count_max : REMOVE_COUNT);
        if (removed.count == 0)
            break;
        lacking -= removed.bytes < lacking ? removed.bytes : lacking;
        count_max -= removed.count;
    }
    io_mutex_unlock(&f->lock);
}

void cache_files_tend(struct cache_files *f)
{
    if (f->free_bytes_min > 0)
        look_at_disk(f, SIZE_MAX);
}

/* ---- reading ---- */

static bool is_readable(const struct entry *entry)
{
    return entry != NULL && entry->state == READY && !entry->is_leaving;
}

/* Pin a block that can be read, as the newest. NULL: there is none. */
static struct entry *pin(struct cache_files *f, const struct cache_key *key, uint32_t block)
{
    io_mutex_lock(&f->lock);
    struct entry *entry = find(f, key->hash, block);
    if (is_readable(entry)) {
        entry->readers++;
        list_remove(f, entry);
        list_newest(f, entry);
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
    remove_bad(f, entry);
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
    if (look_is_due(f, 0))
        look_at_disk(f, REMOVE_COUNT);
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
    bool has = is_readable(entry);
    io_mutex_unlock(&f->lock);
    return has;
}

/* ---- keeping ---- */

static uint64_t *mark_of(struct cache_files *f, const struct cache_key *key)
{
    return &f->marks[key->hash.low % MARK_COUNT];
}

/* An entry for a block that is about to be written. NULL: it is there, or is not to be kept. */
static struct entry *reserve(struct cache_files *f, const struct cache_key *key, uint32_t block,
                             uint32_t bytes)
{
    struct entry *entry = NULL;
    if (look_is_due(f, bytes))
        look_at_disk(f, REMOVE_COUNT);
    io_mutex_lock(&f->lock);
    struct entry *there = find(f, key->hash, block);
    if (there != NULL) /* it could not be removed when it was found to be bad */
        remove_bad(f, there);
    if (!f->is_short && io_monotonic_ns(f->io) >= f->paused_until_ns && find(f, key->hash, block) == NULL &&
        make_room(f, bytes) && find(f, key->hash, block) == NULL)
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
    entry->state = e == OK && mark == *mark_of(f, key) ? READY : BAD;
    if (e != OK) {
        stat_add(STAT_BLOB_CACHE_FAILURES, 1);
        f->paused_until_ns = io_monotonic_ns(f->io) + PAUSE_NS;
    }
    remove_bad(f, entry);
    io_mutex_unlock(&f->lock);
}

uint64_t cache_files_mark(struct cache_files *f, const struct cache_key *key)
{
    io_mutex_lock(&f->lock);
    uint64_t mark = *mark_of(f, key);
    io_mutex_unlock(&f->lock);
    return mark;
}

void cache_files_forget(struct cache_files *f, const struct cache_key *key)
{
    struct entry *older, *list = NULL;
    io_mutex_lock(&f->lock);
    bool removes = may_remove(f);
    (*mark_of(f, key))++;
    f->forgotten_count++;
    for (struct entry *e = f->newest; e != NULL; e = older) {
        older = e->older;
        if (!hash128_equal(e->hash, key->hash) || e->state == FILLING) /* that one sees the mark */
            continue;
        e->state = BAD;
        if (removes && is_idle(e)) /* else who reads it last does, or who finds it in the way */
            take_out(f, e, &list);
    }
    if (list != NULL)
        (void)remove_out(f, list);
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
        list_remove(f, entry); /* what comes later is older */
        list_oldest(f, entry);
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
