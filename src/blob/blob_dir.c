/* The directory driver of the object store: one file per object, keys are paths.
 *
 *     blob_put:      bytes -> tmp/N, sync -> link to the key (fails if it exists) -> directory sync -> unlink
 *     blob_put_file: file of the caller, sync -> link -> directory sync -> unlink
 *
 * Linking, not renaming, is what makes "if absent" hold: link(2) fails on an existing name, rename(2)
 * replaces it.
 *
 * Invariants:
 *   1. A key's name exists only over bytes that are durable; OK is returned only when the name is durable too.
 *   2. A directory on the way to a key is durable before the key's name is made in it.
 *   3. No file is changed after it has a key. */
#include "blob/blob.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "blob/blob_driver.h"

#define TEMP_DIRECTORY ".tmp" /* no key begins with '.' */
#define PATH_BYTES     (IO_PATH_BYTES_MAX + BLOB_KEY_BYTES_MAX)

struct dir_blob {
    struct blob base;
    struct io *io;
    struct pool *pool;
    _Atomic uint64_t next_temp;
    size_t directory_len;
    char directory[IO_PATH_BYTES_MAX];
};

struct dir_handle {
    struct blob_handle base;
    struct pool *pool;
    struct io_file *file;
};

static struct dir_blob *dir_of(struct blob *blob) { return (struct dir_blob *)blob; }

static void path_of(const struct dir_blob *blob, const char *key, char out_path[PATH_BYTES])
{
    int printed = snprintf(out_path, PATH_BYTES, "%s/%s", blob->directory, key);
    check(printed > 0 && printed < PATH_BYTES);
}

/* The directory above a path, cut in place; the io's root when there is none. */
static void cut_last(char *path)
{
    char *slash = strrchr(path, '/');
    if (slash == NULL)
        path[0] = '\0';
    else if (slash == path)
        path[1] = '\0';
    else
        *slash = '\0';
}

/* Create a directory and those above it that are missing, from `floor_len` bytes of the path on, durably. */
static err make_directory(struct io *io, const char *path, size_t floor_len)
{
    char part[PATH_BYTES];
    char above[PATH_BYTES];
    size_t len = strlen(path);
    for (size_t end = floor_len + 1; end <= len; end++) {
        if (end != len && path[end] != '/')
            continue;
        memcpy(part, path, end);
        part[end] = '\0';
        err e = io_dir_create(io, part);
        if (e != OK && e != ERR_EXISTS)
            return e;
        /* Also when it exists: another thread may have made it and not yet synced. */
        memcpy(above, part, end + 1);
        cut_last(above);
        TRY(io_dir_sync(io, above));
    }
    return OK;
}

/* Whether the directory holds `key`'s name already is asked first, so that a chain's writer learns it cheaply. */
static err place(struct dir_blob *blob, const char *key, const char *temp)
{
    char path[PATH_BYTES];
    char directory[PATH_BYTES];
    path_of(blob, key, path);
    memcpy(directory, path, strlen(path) + 1);
    cut_last(directory);
    err e = io_link(blob->io, temp, path);
    if (e == ERR_NOT_FOUND && !io_exists(blob->io, directory)) {
        TRY(make_directory(blob->io, directory, blob->directory_len));
        e = io_link(blob->io, temp, path);
    }
    TRY(e);
    TRY(io_dir_sync(blob->io, directory));
    ERR_IGNORE(io_unlink(blob->io, temp)); /* a leftover second name costs nothing: blob_open_dir clears it */
    return OK;
}

static err dir_put_file(struct blob *base, const char *key, const char *temp_path)
{
    struct dir_blob *blob = dir_of(base);
    char path[PATH_BYTES];
    path_of(blob, key, path);
    if (io_exists(blob->io, path))
        return ERR_EXISTS;
    struct io_file *file = NULL;
    TRY(io_file_open(blob->io, temp_path, IO_READ, &file));
    err e = io_file_sync(file);
    io_file_close(file);
    TRY(e);
    return place(blob, key, temp_path);
}

static err dir_put(struct blob *base, const char *key, struct slice bytes)
{
    struct dir_blob *blob = dir_of(base);
    char path[PATH_BYTES];
    path_of(blob, key, path);
    if (io_exists(blob->io, path))
        return ERR_EXISTS;
    char temp[PATH_BYTES];
    uint64_t number = atomic_fetch_add_explicit(&blob->next_temp, 1, memory_order_relaxed);
    int printed = snprintf(temp, sizeof temp, "%s/%s/%llu", blob->directory, TEMP_DIRECTORY,
                           (unsigned long long)number);
    check(printed > 0 && printed < (int)sizeof temp);

    struct io_file *file = NULL;
    TRY(io_file_open(blob->io, temp, IO_CREATE, &file));
    err e = OK;
    TRY_OUT(io_file_write(file, 0, bytes));
    TRY_OUT(io_file_sync(file));
    TRY_OUT(place(blob, key, temp));
out:
    io_file_close(file);
    if (e != OK)
        ERR_IGNORE(io_unlink(blob->io, temp)); /* blob_open_dir clears it otherwise */
    return e;
}

static err dir_open(struct blob *base, const char *key, struct blob_handle **out_handle)
{
    struct dir_blob *blob = dir_of(base);
    char path[PATH_BYTES];
    path_of(blob, key, path);
    struct pool *pool = pool_open(blob->pool, "blob_handle", POOL_BYTES_UNLIMITED);
    void *at = NULL;
    struct io_file *file = NULL;
    err e = OK;
    TRY_OUT(pool_zalloc(pool, sizeof(struct dir_handle), &at));
    TRY_OUT(io_file_open(blob->io, path, IO_READ, &file));
    struct dir_handle *handle = at;
    *handle = (struct dir_handle){ .base.blob = base, .pool = pool, .file = file };
    TRY_OUT(io_file_size(file, &handle->base.size));
    *out_handle = &handle->base;
out:
    if (e != OK) {
        io_file_close(file);
        pool_close(pool);
    }
    return e == ERR_CONFLICT ? ERR_NOT_FOUND : e; /* a directory is no object */
}

static void dir_handle_close(struct blob_handle *base)
{
    struct dir_handle *handle = (struct dir_handle *)base;
    io_file_close(handle->file);
    pool_close(handle->pool);
}

static err dir_read(struct blob_handle *base, uint64_t offset, void *at, size_t len)
{
    struct dir_handle *handle = (struct dir_handle *)base;
    if (offset > base->size || len > base->size - offset)
        return ERR_END;
    return io_file_read(handle->file, offset, at, len, NULL);
}

static err dir_size(struct blob *base, const char *key, uint64_t *out_size)
{
    char path[PATH_BYTES];
    path_of(dir_of(base), key, path);
    return io_path_size(dir_of(base)->io, path, out_size, NULL);
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
        entries[count++].key = key;
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
    cut_last(path);
    return io_dir_sync(blob->io, path);
}

static void dir_close(struct blob *base) { pool_close(dir_of(base)->pool); }

static const struct blob_driver dir_driver = {
    .close = dir_close,
    .put = dir_put,
    .put_file = dir_put_file,
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
    size_t floor_len = 0;
    while (blob->directory[floor_len] == '/')
        floor_len++;
    if (io_exists(blob->io, temp))
        return clear_temporary(blob, temp);
    return make_directory(blob->io, temp,
                          io_exists(blob->io, blob->directory) ? blob->directory_len : floor_len);
}

static err open_dir(const char *directory, bool as_is, struct io *io, struct pool *parent,
                    struct blob **out_blob)
{
    size_t len = strlen(directory);
    if (len == 0 || len > IO_PATH_BYTES_MAX - BLOB_KEY_BYTES_MAX - 16)
        return ERR_INPUT;
    struct pool *pool = pool_open(parent, "blob", POOL_BYTES_UNLIMITED);
    void *at = NULL;
    err e = OK;
    TRY_OUT(pool_zalloc(pool, sizeof(struct dir_blob), &at));
    struct dir_blob *blob = at;
    blob->base.driver = &dir_driver;
    blob->io = io;
    blob->pool = pool;
    blob->directory_len = len;
    memcpy(blob->directory, directory, len + 1);
    if (!as_is)
        TRY_OUT(prepare(blob));
    *out_blob = &blob->base;
out:
    if (e != OK)
        pool_close(pool);
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
