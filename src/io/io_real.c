/* The system as io.h shows it, over Linux: files and names. Clocks, chance and the machine: machine.c.
 *
 * The root directory is held open and every relative path is resolved below it with the *at() calls,
 * so the process never changes its working directory and a renamed data directory stays the same one.
 *
 * Invariants:
 *   1. A call either did all it was asked or returns an error: short reads and writes are continued,
 *      EINTR is retried everywhere but at close and fsync, whose result would then be of no meaning.
 *   2. A failed write or fsync is never retried here: after it the kernel has dropped the dirty mark of pages
 *      that never reached the disk (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
 *   3. All files are opened O_CLOEXEC, and no path is a terminal. */
#include "io/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/check.h"
#include "base/time.h"
#include "io/io_real.h"

#define WRITE_PARTS_MAX 256 /* of one pwritev; the system allows 1,024 */
#define DIR_ENTRIES_MAX (4u << 20)

struct io_file {
    struct io *io;
    int fd;
};

err io_err_of(int system_errno)
{
    switch (system_errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return ERR_SPACE;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EMLINK:
    case EAGAIN:
    case ENAMETOOLONG:
        return ERR_LIMIT;
    case EROFS:
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case ENOTEMPTY:
    case EISDIR:
    case EXDEV:
        return ERR_CONFLICT;
    case EOPNOTSUPP:
    case ENOSYS:
        return ERR_UNSUPPORTED;
    default:
        return ERR_IO;
    }
}

err io_block_get(struct io *io, size_t bytes, void **out_at)
{
    void *at = NULL;
    io_mutex_lock(&io->mutex);
    err e = pool_block_resize(io->pool, &at, bytes);
    io_mutex_unlock(&io->mutex);
    TRY(e);
    memset(at, 0, bytes);
    *out_at = at;
    return OK;
}

void io_block_put(struct io *io, void *at)
{
    io_mutex_lock(&io->mutex);
    pool_block_free(io->pool, at);
    io_mutex_unlock(&io->mutex);
}

err io_open(const char *root_path, struct io **out_io)
{
    int fd = open(root_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return io_err_of(errno);
    struct pool *pool;
    void *at;
    err e = pool_open_object(NULL, "io", sizeof(struct io), &pool, &at);
    if (e != OK) {
        close(fd);
        return e;
    }
    struct io *io = at;
    io->root_fd = fd;
    io->pool = pool;
    io_mutex_init(&io->mutex);
    *out_io = io;
    return OK;
}

void io_close(struct io *io)
{
    if (io == NULL)
        return;
    close(io->root_fd);
    io_mutex_done(&io->mutex);
    pool_close(io->pool);
}

/* "" is the root, as in "the directory of a name without '/'". */
static const char *system_path(const char *path) { return path[0] == '\0' ? "." : path; }

/* ---- files ---- */

err io_file_open(struct io *io, const char *path, enum io_open_mode mode, struct io_file **out_file)
{
    int flags = O_CLOEXEC | O_NOCTTY;
    if (mode == IO_READ)
        flags |= O_RDONLY;
    else if (mode == IO_WRITE)
        flags |= O_RDWR | O_CREAT;
    else
        flags |= O_RDWR | O_CREAT | O_EXCL;

    int fd;
    do
        fd = openat(io->root_fd, system_path(path), flags, 0640);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return io_err_of(errno);

    void *at = NULL;
    struct stat info;
    err e = OK;
    if (mode == IO_READ && fstat(fd, &info) == 0 && S_ISDIR(info.st_mode))
        e = ERR_CONFLICT; /* the system opens directories for reading; nobody here means that */
    if (e == OK)
        e = io_block_get(io, sizeof(struct io_file), &at);
    if (e != OK) {
        close(fd);
        return e;
    }
    struct io_file *file = at;
    *file = (struct io_file){ .io = io, .fd = fd };
    *out_file = file;
    return OK;
}

void io_file_close(struct io_file *file)
{
    if (file == NULL)
        return;
    close(file->fd);
    io_block_put(file->io, file);
}

err io_file_read(struct io_file *file, uint64_t offset, void *at, size_t len, size_t *out_len)
{
    size_t done = 0;
    err e = OK;
    while (done < len) {
        ssize_t got = pread(file->fd, (uint8_t *)at + done, len - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            e = got == 0 ? ERR_END : io_err_of(errno);
            break;
        }
        done += (size_t)got;
    }
    if (out_len != NULL)
        *out_len = done;
    return e;
}

err io_file_write(struct io_file *file, uint64_t offset, struct slice bytes)
{
    return io_file_write_all(file, offset, &bytes, 1);
}

/* Write what one call takes of parts, beginning `skip` bytes into parts[0]. */
static ssize_t write_some(int fd, uint64_t offset, const struct slice *parts, size_t part_count, size_t skip)
{
    struct iovec vectors[WRITE_PARTS_MAX];
    size_t count = part_count < WRITE_PARTS_MAX ? part_count : WRITE_PARTS_MAX;
    for (size_t i = 0; i < count; i++) {
        vectors[i].iov_base = (void *)(uintptr_t)parts[i].at; /* written from, not to */
        vectors[i].iov_len = parts[i].len;
    }
    vectors[0].iov_base = (uint8_t *)vectors[0].iov_base + skip;
    vectors[0].iov_len -= skip;
    return pwritev(fd, vectors, (int)count, (off_t)offset);
}

err io_file_write_all(struct io_file *file, uint64_t offset, const struct slice *parts, size_t part_count)
{
    size_t skip = 0;
    while (part_count > 0) {
        if (skip == parts->len) {
            parts++;
            part_count--;
            skip = 0;
            continue;
        }
        ssize_t wrote = write_some(file->fd, offset, parts, part_count, skip);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return wrote == 0 ? ERR_IO : io_err_of(errno);
        offset += (uint64_t)wrote;
        size_t left = (size_t)wrote;
        while (left > 0 && left >= parts->len - skip) {
            left -= parts->len - skip;
            parts++;
            part_count--;
            skip = 0;
        }
        skip += left;
    }
    return OK;
}

err io_file_sync(struct io_file *file) { return fdatasync(file->fd) == 0 ? OK : io_err_of(errno); }

err io_file_size(struct io_file *file, uint64_t *out_size)
{
    struct stat info;
    if (fstat(file->fd, &info) != 0)
        return io_err_of(errno);
    *out_size = (uint64_t)info.st_size;
    return OK;
}

err io_file_truncate(struct io_file *file, uint64_t size)
{
    int result;
    do
        result = ftruncate(file->fd, (off_t)size);
    while (result != 0 && errno == EINTR);
    return result == 0 ? OK : io_err_of(errno);
}

err io_file_allocate(struct io_file *file, uint64_t size)
{
    if (size == 0)
        return OK;
    int result;
    do
        result = fallocate(file->fd, 0, 0, (off_t)size);
    while (result != 0 && errno == EINTR);
    if (result == 0)
        return OK;
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return io_err_of(errno);
    do
        result = posix_fallocate(file->fd, 0, (off_t)size); /* emulated by the C library */
    while (result == EINTR);
    return result == 0 ? OK : io_err_of(result);
}

err io_file_lock(struct io_file *file)
{
    int result;
    do
        result = flock(file->fd, LOCK_EX | LOCK_NB);
    while (result != 0 && errno == EINTR);
    if (result == 0)
        return OK;
    return errno == EWOULDBLOCK ? ERR_BUSY : io_err_of(errno);
}

void io_file_forget(struct io_file *file, uint64_t offset, uint64_t len)
{
    (void)posix_fadvise(file->fd, (off_t)offset, (off_t)len, POSIX_FADV_DONTNEED); /* a hint */
}

/* ---- names ---- */

err io_rename(struct io *io, const char *from, const char *to)
{
    return renameat(io->root_fd, from, io->root_fd, to) == 0 ? OK : io_err_of(errno);
}

err io_link(struct io *io, const char *from, const char *to)
{
    return linkat(io->root_fd, from, io->root_fd, to, 0) == 0 ? OK : io_err_of(errno);
}

err io_unlink(struct io *io, const char *path)
{
    return unlinkat(io->root_fd, path, 0) == 0 ? OK : io_err_of(errno);
}

err io_dir_create(struct io *io, const char *path)
{
    return mkdirat(io->root_fd, path, 0750) == 0 ? OK : io_err_of(errno);
}

err io_dir_remove(struct io *io, const char *path)
{
    if (unlinkat(io->root_fd, path, AT_REMOVEDIR) == 0)
        return OK;
    return errno == EEXIST ? ERR_CONFLICT : io_err_of(errno); /* POSIX allows it for "not empty" */
}

err io_dir_sync(struct io *io, const char *path)
{
    int fd = openat(io->root_fd, system_path(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return io_err_of(errno);
    err e = fsync(fd) == 0 ? OK : errno == EINVAL ? ERR_UNSUPPORTED : io_err_of(errno);
    close(fd);
    return e;
}

bool io_exists(struct io *io, const char *path)
{
    struct stat info;
    return fstatat(io->root_fd, system_path(path), &info, 0) == 0;
}

err io_path_size(struct io *io, const char *path, uint64_t *out_size, int64_t *out_modified_ms)
{
    struct stat info;
    if (fstatat(io->root_fd, system_path(path), &info, 0) != 0)
        return io_err_of(errno);
    if (out_size != NULL)
        *out_size = (uint64_t)info.st_size;
    if (out_modified_ms != NULL)
        *out_modified_ms = (int64_t)info.st_mtim.tv_sec * MS_PER_SECOND + info.st_mtim.tv_nsec / NS_PER_MS;
    return OK;
}

static int entry_compare(const void *a, const void *b)
{
    return strcmp(((const struct io_dir_entry *)a)->name, ((const struct io_dir_entry *)b)->name);
}

static err entry_of(int dir_fd, const struct dirent *found, struct pool *pool, struct io_dir_entry *out_entry)
{
    bool is_dir = found->d_type == DT_DIR;
    if (found->d_type == DT_UNKNOWN) {
        struct stat info;
        is_dir = fstatat(dir_fd, found->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(info.st_mode);
    }
    struct slice name;
    TRY(pool_copy(pool, slice_str(found->d_name), &name));
    *out_entry = (struct io_dir_entry){ .name = (const char *)name.at, .is_dir = is_dir };
    return OK;
}

err io_dir_list(struct io *io, const char *path, struct pool *pool, struct io_dir_entry **out_entries,
                size_t *out_count)
{
    int fd = openat(io->root_fd, system_path(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return io_err_of(errno);
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        err failed = io_err_of(errno);
        close(fd);
        return failed;
    }

    err e = OK;
    void *list = NULL;
    size_t count = 0;
    size_t capacity = 0;
    for (;;) {
        errno = 0;
        const struct dirent *found = readdir(dir);
        if (found == NULL) {
            if (errno != 0)
                e = io_err_of(errno);
            break;
        }
        if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0)
            continue;
        if (count == DIR_ENTRIES_MAX) {
            e = ERR_LIMIT;
            break;
        }
        TRY_OUT(pool_block_reserve(pool, &list, sizeof(struct io_dir_entry), count + 1, &capacity));
        TRY_OUT(entry_of(fd, found, pool, (struct io_dir_entry *)list + count));
        count++;
    }
    if (e != OK)
        goto out;
    void *sorted = NULL;
    TRY_OUT(pool_alloc(pool, count * sizeof(struct io_dir_entry), &sorted));
    if (count != 0) {
        memcpy(sorted, list, count * sizeof(struct io_dir_entry));
        qsort(sorted, count, sizeof(struct io_dir_entry), entry_compare);
    }
    *out_entries = sorted;
    *out_count = count;
out:
    pool_block_free(pool, list);
    closedir(dir);
    return e;
}

err io_path_absolute(struct io *io, const char *path, char out_path[IO_PATH_BYTES_MAX])
{
    char link[32], root[IO_PATH_BYTES_MAX] = "";
    ssize_t len = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", io->root_fd);
    if (path[0] != '/')
        len = readlink(link, root, sizeof root - 1);
    if (len < 0)
        return io_err_of(errno);
    int all = snprintf(out_path, IO_PATH_BYTES_MAX, "%s%s%s", root, path[0] != '/' ? "/" : "", path);
    return all >= IO_PATH_BYTES_MAX ? ERR_LIMIT : OK;
}

err io_space(struct io *io, struct io_space *out_space)
{
    struct statvfs info;
    if (fstatvfs(io->root_fd, &info) != 0)
        return io_err_of(errno);
    *out_space = (struct io_space){
        .total_bytes = (uint64_t)info.f_blocks * info.f_frsize,
        .free_bytes = (uint64_t)info.f_bavail * info.f_frsize,
    };
    return OK;
}
