/* The directory driver of the object store: one file per object, keys are paths.
 *
 *     blob_put:      bytes -> tmp/N, sync -> link to the key (fails if it exists) -> directory sync -> unlink
 *     blob_put_file: file of the caller, sync -> link -> directory sync -> unlink
 *     blob_replace:  bytes -> tmp/N, sync -> rename to the key -> directory sync
 *
 * Linking, not renaming, is what makes "if absent" hold: link(2) fails on an existing name, rename(2)
 * replaces it.
 *
 * Invariants:
 *   1. A key's name exists only over bytes that are durable; OK is returned only when the name is durable too.
 *   2. A directory on the way to a key is durable before the key's name is made in it. That it is there proves
 *      nothing (who made it may have died, failed or not come to the sync): each process makes sure once.
 *   3. No file is changed after it has a key.
 *   4. Handles hold at most BLOB_FILES_MAX descriptors, and one for each read that is running: a node has more
 *      segments than a process may have files. The handle read longest ago gives its descriptor back. */
#include "blob/blob.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "blob/blob_driver.h"
#include "io/thread.h"

#define TEMP_DIRECTORY ".tmp" /* no key begins with '.' */
#define PATH_BYTES     (IO_PATH_BYTES_MAX + BLOB_KEY_BYTES_MAX)

struct dir_blob {
    struct blob base;
    struct io *io;
    struct pool *pool;
    _Atomic uint64_t next_temp;
    struct io_mutex lock; /* of what follows, and of `file`, `readers` and the links of every handle */
    struct dir_handle *newest, *oldest; /* handles with a file, by last read */
    size_t file_count;
    struct made_directory *made; /* known to be durable: a few a partition */
    unsigned plants;             /* enum blob_plant: of tests alone */
    size_t directory_len;
    char directory[IO_PATH_BYTES_MAX];
};

struct made_directory {
    struct made_directory *next;
    char path[];
};

struct dir_handle {
    struct blob_handle base;
    struct pool *pool;
    struct io_file *file; /* NULL: opened by the next read */
    uint32_t readers;     /* reads that are running; the file stays */
    struct dir_handle *newer, *older;
    const char *key;
};

static struct dir_blob *dir_of(struct blob *blob) { return (struct dir_blob *)blob; }

static void path_of(const struct dir_blob *blob, const char *key, char out_path[PATH_BYTES])
{
    int printed = snprintf(out_path, PATH_BYTES, "%s/%s", blob->directory, key);
    check(printed > 0 && printed < PATH_BYTES);
}

void blob_dir_plant(struct blob *blob, unsigned plants) { dir_of(blob)->plants = plants; }

static err sync_names(struct dir_blob *blob, const char *directory)
{
    return (blob->plants & BLOB_PLANT_NO_DIR_SYNC) != 0 ? OK : io_dir_sync(blob->io, directory);
}

/* Create a directory and those above it that are missing, from `floor_len` bytes of the path on, durably. */
static err make_directory(struct io *io, const char *path, size_t floor_len)
{
    char part[PATH_BYTES];
    size_t len = strlen(path);
    for (size_t end = floor_len + 1; end <= len; end++) {
        if (end != len && path[end] != '/')
            continue;
        memcpy(part, path, end);
        part[end] = '\0';
        TRY(io_dir_make(io, part));
    }
    return OK;
}

/* Locked. */
static bool is_made(const struct dir_blob *blob, const char *directory)
{
    for (const struct made_directory *made = blob->made; made != NULL; made = made->next)
        if (strcmp(made->path, directory) == 0)
            return true;
    return false;
}

/* Make sure that the directory of a key's path is durable; out_directory is it. Invariant 2. */
static err make_sure(struct dir_blob *blob, const char *path, char out_directory[PATH_BYTES])
{
    memcpy(out_directory, path, strlen(path) + 1);
    io_path_cut(out_directory);
    io_mutex_lock(&blob->lock);
    bool known = is_made(blob, out_directory);
    io_mutex_unlock(&blob->lock);
    if (known)
        return OK;
    if ((blob->plants & BLOB_PLANT_NO_PARENT_SYNC) == 0 || !io_exists(blob->io, out_directory))
        TRY(make_directory(blob->io, out_directory, blob->directory_len));
    void *at = NULL;
    size_t bytes = strlen(out_directory) + 1;
    io_mutex_lock(&blob->lock);
    err e =
        is_made(blob, out_directory) ? ERR_EXISTS : pool_alloc(blob->pool, sizeof *blob->made + bytes, &at);
    if (e == OK) { /* else it is done again */
        struct made_directory *made = at;
        made->next = blob->made;
        memcpy(made->path, out_directory, bytes);
        blob->made = made;
    }
    io_mutex_unlock(&blob->lock);
    return OK;
}

static err place(struct dir_blob *blob, const char *key, const char *temp)
{
    char path[PATH_BYTES];
    char directory[PATH_BYTES];
    path_of(blob, key, path);
    TRY(make_sure(blob, path, directory));
    TRY(io_link(blob->io, temp, path));
    TRY(sync_names(blob, directory));
    ERR_IGNORE(io_unlink(blob->io, temp)); /* a leftover second name costs nothing: blob_open_dir clears it */
    return OK;
}

static err sync_file(struct io *io, const char *path)
{
    struct io_file *file = NULL;
    TRY(io_file_open(io, path, IO_READ, &file));
    err e = io_file_sync(file);
    io_file_close(file);
    return e;
}

/* Whether the directory holds `key`'s name already is asked first, so that a chain's writer learns it cheaply. */
static err dir_put_file(struct blob *base, const char *key, const char *temp_path)
{
    struct dir_blob *blob = dir_of(base);
    char path[PATH_BYTES];
    path_of(blob, key, path);
    if (io_exists(blob->io, path))
        return ERR_EXISTS;
    TRY(sync_file(blob->io, temp_path));
    return place(blob, key, temp_path);
}

static err dir_replace_file(struct blob *base, const char *key, const char *temp_path)
{
    struct dir_blob *blob = dir_of(base);
    char path[PATH_BYTES], directory[PATH_BYTES];
    path_of(blob, key, path);
    TRY(sync_file(blob->io, temp_path));
    TRY(make_sure(blob, path, directory));
    TRY(io_rename(blob->io, temp_path, path));
    return sync_names(blob, directory);
}

/* Bytes as a new temporary file, synced. */
static err write_temp(struct dir_blob *blob, struct slice bytes, char out_temp[PATH_BYTES])
{
    uint64_t number = atomic_fetch_add_explicit(&blob->next_temp, 1, memory_order_relaxed);
    int printed = snprintf(out_temp, PATH_BYTES, "%s/%s/%llu", blob->directory, TEMP_DIRECTORY,
                           (unsigned long long)number);
    check(printed > 0 && printed < PATH_BYTES);
    struct io_file *file = NULL;
    TRY(io_file_open(blob->io, out_temp, IO_CREATE, &file));
    err e = io_file_write(file, 0, bytes);
    if (e == OK)
        e = io_file_sync(file);
    io_file_close(file);
    if (e != OK)
        ERR_IGNORE(io_unlink(blob->io, out_temp)); /* blob_open_dir clears it otherwise */
    return e;
}

static err dir_put(struct blob *base, const char *key, struct slice bytes)
{
    struct dir_blob *blob = dir_of(base);
    char path[PATH_BYTES], temp[PATH_BYTES];
    path_of(blob, key, path);
    if (io_exists(blob->io, path))
        return ERR_EXISTS;
    TRY(write_temp(blob, bytes, temp));
    err e = place(blob, key, temp);
    if (e != OK)
        ERR_IGNORE(io_unlink(blob->io, temp));
    return e;
}

static err dir_replace(struct blob *base, const char *key, struct slice bytes)
{
    struct dir_blob *blob = dir_of(base);
    char path[PATH_BYTES], directory[PATH_BYTES], temp[PATH_BYTES];
    path_of(blob, key, path);
    TRY(make_sure(blob, path, directory));
    TRY(write_temp(blob, bytes, temp));
    err e = io_rename(blob->io, temp, path);
    if (e != OK)
        ERR_IGNORE(io_unlink(blob->io, temp));
    return e == OK ? io_dir_sync(blob->io, directory) : e;
}

/* ---- handles: a bounded number of them has a file. All locked but for the driver's own functions ---- */

static void unlink_handle(struct dir_blob *blob, struct dir_handle *handle)
{
    *(handle->newer != NULL ? &handle->newer->older : &blob->newest) = handle->older;
    *(handle->older != NULL ? &handle->older->newer : &blob->oldest) = handle->newer;
    handle->newer = handle->older = NULL;
    blob->file_count--;
}

static void link_newest(struct dir_blob *blob, struct dir_handle *handle)
{
    handle->older = blob->newest;
    *(blob->newest != NULL ? &blob->newest->newer : &blob->oldest) = handle;
    blob->newest = handle;
    blob->file_count++;
}

static void close_file(struct dir_blob *blob, struct dir_handle *handle)
{
    unlink_handle(blob, handle);
    io_file_close(handle->file);
    handle->file = NULL;
}

/* Make room for one more file. */
static void give_back(struct dir_blob *blob)
{
    struct dir_handle *next;
    for (struct dir_handle *h = blob->oldest; h != NULL && blob->file_count >= BLOB_FILES_MAX; h = next) {
        next = h->newer;
        if (h->readers == 0)
            close_file(blob, h);
    }
}

/* The handle has a file until the matching `end_read`. */
static err begin_read(struct dir_blob *blob, struct dir_handle *handle)
{
    if (handle->file == NULL) {
        char path[PATH_BYTES];
        path_of(blob, handle->key, path);
        give_back(blob);
        TRY(io_file_open(blob->io, path, IO_READ, &handle->file));
        link_newest(blob, handle);
    } else if (blob->newest != handle) {
        unlink_handle(blob, handle);
        link_newest(blob, handle);
    }
    handle->readers++;
    return OK;
}

static err dir_read(struct blob_handle *base, uint64_t offset, void *at, size_t len)
{
    struct dir_handle *handle = (struct dir_handle *)base;
    struct dir_blob *blob = dir_of(base->blob);
    if (offset > base->size || len > base->size - offset)
        return ERR_END;
    io_mutex_lock(&blob->lock);
    err e = begin_read(blob, handle);
    io_mutex_unlock(&blob->lock);
    TRY(e);
    e = io_file_read(handle->file, offset, at, len, NULL);
    io_mutex_lock(&blob->lock);
    handle->readers--;
    io_mutex_unlock(&blob->lock);
    return e;
}

static void dir_handle_close(struct blob_handle *base)
{
    struct dir_handle *handle = (struct dir_handle *)base;
    struct dir_blob *blob = dir_of(base->blob);
    io_mutex_lock(&blob->lock);
    if (handle->file != NULL)
        close_file(blob, handle);
    io_mutex_unlock(&blob->lock);
    pool_close(handle->pool);
}

static err dir_open(struct blob *base, const char *key, struct blob_handle **out_handle)
{
    struct dir_blob *blob = dir_of(base);
    struct pool *pool = pool_open(blob->pool, "blob_handle", POOL_BYTES_UNLIMITED);
    void *at = NULL;
    err e = OK;
    TRY_OUT(pool_zalloc(pool, sizeof(struct dir_handle) + strlen(key) + 1, &at));
    struct dir_handle *handle = at;
    *handle = (struct dir_handle){ .base.blob = base, .pool = pool, .key = (char *)(handle + 1) };
    memcpy(handle + 1, key, strlen(key) + 1);
    io_mutex_lock(&blob->lock);
    e = begin_read(blob, handle);
    if (e == OK) {
        e = io_file_size(handle->file, &handle->base.size);
        handle->readers = 0;
    }
    if (e != OK && handle->file != NULL)
        close_file(blob, handle);
    io_mutex_unlock(&blob->lock);
    TRY_OUT(e);
    *out_handle = &handle->base;
out:
    if (e != OK)
        pool_close(pool);
    return e == ERR_CONFLICT ? ERR_NOT_FOUND : e; /* a directory is no object */
}

static err dir_size(struct blob *base, const char *key, uint64_t *out_size)
{
    char path[PATH_BYTES];
    path_of(dir_of(base), key, path);
    return io_path_size(dir_of(base)->io, path, out_size, NULL);
}

/* 0: deleted since it was listed, or the disk does not say; the listing is of use nevertheless. */
static int64_t modified_ms(struct dir_blob *blob, const char *key)
{
    char path[PATH_BYTES];
    int64_t t_ms;
    path_of(blob, key, path);
    return io_path_size(blob->io, path, NULL, &t_ms) == OK && t_ms > 0 ? t_ms : 0;
}

static err dir_list(struct blob *base, const char *prefix, struct pool *pool, struct blob_entry **out_entries,
                    size_t *out_count)
{
    struct dir_blob *blob = dir_of(base);
    char path[PATH_BYTES];
    path_of(blob, prefix, path);
    struct io_dir_entry *names = NULL;
    size_t name_count = 0;
    err e = io_dir_list(blob->io, path, pool, &names, &name_count);
    if (e != OK && e != ERR_NOT_FOUND)
        return e;
    void *at = NULL;
    TRY(pool_alloc(pool, name_count * sizeof(struct blob_entry), &at));
    struct blob_entry *entries = at;
    size_t count = 0;
    for (size_t i = 0; i < name_count; i++) {
        if (names[i].is_dir || names[i].name[0] == '.')
            continue;
        void *key = NULL;
        size_t bytes = strlen(prefix) + 1 + strlen(names[i].name) + 1;
        TRY(pool_alloc(pool, bytes, &key));
        (void)snprintf(key, bytes, "%s/%s", prefix, names[i].name);
        entries[count++] = (struct blob_entry){ .key = key, .t_ms = modified_ms(blob, key) };
    }
    *out_entries = entries;
    *out_count = count;
    return OK;
}

static err dir_delete(struct blob *base, const char *key)
{
    struct dir_blob *blob = dir_of(base);
    char path[PATH_BYTES];
    path_of(blob, key, path);
    err e = io_unlink(blob->io, path);
    TRY(e == ERR_CONFLICT ? ERR_NOT_FOUND : e);
    io_path_cut(path);
    return sync_names(blob, path);
}

static void dir_close(struct blob *base)
{
    io_mutex_done(&dir_of(base)->lock);
    pool_close(dir_of(base)->pool);
}

static const struct blob_driver dir_driver = {
    .close = dir_close,
    .put = dir_put,
    .replace = dir_replace,
    .put_file = dir_put_file,
    .replace_file = dir_replace_file,
    .open_handle = dir_open,
    .handle_close = dir_handle_close,
    .read = dir_read,
    .size = dir_size,
    .list = dir_list,
    .delete_ = dir_delete,
};

/* Remove what an earlier process left half written. */
static err clear_temporary(struct dir_blob *blob, const char *temp_directory)
{
    struct pool *pool = pool_open(blob->pool, "blob_clear", POOL_BYTES_UNLIMITED);
    struct io_dir_entry *names;
    size_t count;
    err e = OK;
    TRY_OUT(io_dir_list(blob->io, temp_directory, pool, &names, &count));
    for (size_t i = 0; i < count; i++) {
        char path[PATH_BYTES];
        int printed = snprintf(path, sizeof path, "%s/%s", temp_directory, names[i].name);
        if (names[i].is_dir || printed < 0 || printed >= (int)sizeof path)
            continue;
        TRY_OUT(io_unlink(blob->io, path));
    }
out:
    pool_close(pool);
    return e;
}

static err prepare(struct dir_blob *blob)
{
    char temp[PATH_BYTES];
    path_of(blob, TEMP_DIRECTORY, temp);
    /* Those above the store are looked at only to make it. */
    size_t floor_len = 0;
    const char *slash = strrchr(blob->directory, '/');
    if (slash != NULL && io_exists(blob->io, blob->directory))
        floor_len = (size_t)(slash - blob->directory);
    else
        floor_len = strspn(blob->directory, "/");
    TRY(make_directory(blob->io, temp, floor_len));
    return clear_temporary(blob, temp);
}

static err open_dir(const char *directory, bool as_is, struct io *io, struct pool *parent,
                    struct blob **out_blob)
{
    size_t len = strlen(directory);
    if (len == 0 || len > IO_PATH_BYTES_MAX - BLOB_KEY_BYTES_MAX - 16)
        return ERR_INPUT;
    struct pool *pool;
    void *at;
    TRY(pool_open_object(parent, "blob", sizeof(struct dir_blob), &pool, &at));
    struct dir_blob *blob = at;
    blob->base.driver = &dir_driver;
    blob->io = io;
    blob->pool = pool;
    blob->directory_len = len;
    memcpy(blob->directory, directory, len + 1);
    io_mutex_init(&blob->lock);
    err e = as_is ? OK : prepare(blob);
    if (e != OK)
        dir_close(&blob->base);
    else
        *out_blob = &blob->base;
    return e;
}

err blob_open_dir(const char *directory, struct io *io, struct pool *parent, struct blob **out_blob)
{
    return open_dir(directory, false, io, parent, out_blob);
}

err blob_open_dir_as_is(const char *directory, struct io *io, struct pool *parent, struct blob **out_blob)
{
    return open_dir(directory, true, io, parent, out_blob);
}
