/* Calls of io.h that are made of others, shared by the real and the simulated system.
 *
 * Invariants:
 *   1. Nothing here talks to the system but through io.h, so the simulated disk sees every step.
 *   2. io_replace_file never writes into the file it replaces. */
#include "io/io.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"

err io_read_file(struct io *io, const char *path, size_t bytes_max, struct pool *pool,
                 struct slice *out_bytes)
{
    struct io_file *file = NULL;
    TRY(io_file_open(io, path, IO_READ, &file));

    err e = OK;
    uint64_t size = 0;
    void *at = NULL;
    TRY_OUT(io_file_size(file, &size));
    if (size > bytes_max) {
        e = ERR_LIMIT;
        goto out;
    }
    TRY_OUT(pool_alloc(pool, (size_t)size + 1, &at));
    size_t len = 0;
    e = io_file_read(file, 0, at, (size_t)size, &len);
    if (e == ERR_END) /* it shrank meanwhile: what is there now */
        e = OK;
    if (e != OK)
        goto out;
    ((char *)at)[len] = '\0';
    *out_bytes = slice_of(at, len);
out:
    io_file_close(file);
    return e;
}

void io_path_cut(char *path)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len > 0 && path[len - 1] != '/')
        len--;
    while (len > 1 && path[len - 1] == '/')
        len--;
    path[len] = '\0';
}

err io_dir_make(struct io *io, const char *path)
{
    char above[IO_PATH_BYTES_MAX];
    size_t len = strlen(path);
    if (len >= sizeof above)
        return ERR_LIMIT;
    memcpy(above, path, len + 1);
    io_path_cut(above);
    err made = io_dir_create(io, path);
    if (made != OK && made != ERR_EXISTS)
        return made;
    err e = io_dir_sync(io, above);
    if (made == ERR_EXISTS && (e == ERR_DENIED || e == ERR_UNSUPPORTED))
        return OK; /* whoever made it there has seen to it: a mount point, another's directory */
    return e;
}

err io_replace_file(struct io *io, const char *path, struct slice bytes)
{
    char temp[IO_PATH_BYTES_MAX];
    char directory[IO_PATH_BYTES_MAX];
    int printed = snprintf(temp, sizeof temp, "%s.tmp", path);
    if (printed < 0 || (size_t)printed >= sizeof temp)
        return ERR_LIMIT;
    memcpy(directory, path, strlen(path) + 1);
    io_path_cut(directory);

    err e = io_unlink(io, temp); /* left by a crash; never written over, its blocks may be anything */
    if (e != OK && e != ERR_NOT_FOUND)
        return e;
    struct io_file *file = NULL;
    TRY_OUT(io_file_open(io, temp, IO_CREATE, &file));
    TRY_OUT(io_file_write(file, 0, bytes));
    TRY_OUT(io_file_sync(file));
    TRY_OUT(io_rename(io, temp, path));
    TRY_OUT(io_dir_sync(io, directory));
out:
    if (e != OK && file != NULL)
        ERR_IGNORE(io_unlink(io, temp)); /* best effort: the next call removes it otherwise */
    io_file_close(file);
    return e;
}
