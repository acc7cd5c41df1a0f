/* A file system that forgets what was not synced: a passthrough over FUSE for tests of the real process.
 *
 *   forgetful MOUNTPOINT VOLATILE DURABLE SEED
 *
 * VOLATILE holds what processes see. DURABLE holds what a power cut would leave: the content of each file as of
 * its last fsync (DURABLE/.inode/N), and in each directory the names as of its last fsync, as hard links to
 * those. At start DURABLE is made anew from VOLATILE. When the file system ends (SIGTERM), the power goes out:
 * of every range written but not synced each 4 KiB page is kept or lost by the seed, and so are the names of
 * every directory changed but not synced; then the test copies DURABLE (without .inode) over VOLATILE and mounts
 * again.
 *
 * Runs single-threaded (-s), so that nothing here needs a lock. */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PAGE       4096
#define INODES_MAX 65536
#define NAMES_MAX  4096

struct range {
    uint64_t from, to;
};

struct inode {
    ino_t number;
    struct range *dirty;
    size_t dirty_count, dirty_capacity;
    bool size_changed;
};

static char volatile_root[PATH_MAX], durable_root[PATH_MAX];
static struct inode *inodes;         /* open addressing by inode number */
static char *dirty_names[NAMES_MAX]; /* directories changed since their fsync, relative paths */
static size_t dirty_name_count;
static uint64_t random_state;

static uint64_t next_random(void)
{
    uint64_t v = random_state += UINT64_C(0x9e3779b97f4a7c15);
    v = (v ^ v >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    v = (v ^ v >> 27) * UINT64_C(0x94d049bb133111eb);
    return v ^ v >> 31;
}

static void full(char out[PATH_MAX], const char *root, const char *path)
{
    if (snprintf(out, PATH_MAX, "%s%s", root, path) >= PATH_MAX)
        abort();
}

static void inode_path(char out[PATH_MAX], ino_t number)
{
    if (snprintf(out, PATH_MAX, "%s/.inode/%llu", durable_root, (unsigned long long)number) >= PATH_MAX)
        abort();
}

static struct inode *inode_get(ino_t number)
{
    for (size_t at = (size_t)number % INODES_MAX, tries = 0; tries < INODES_MAX;
         at = (at + 1) % INODES_MAX, tries++) {
        if (inodes[at].number == number)
            return &inodes[at];
        if (inodes[at].number == 0) {
            inodes[at].number = number;
            return &inodes[at];
        }
    }
    abort();
}

static void mark_dirty(int fd, uint64_t from, uint64_t to)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return;
    struct inode *inode = inode_get(info.st_ino);
    inode->size_changed = true;
    if (from >= to)
        return;
    if (inode->dirty_count != 0 && inode->dirty[inode->dirty_count - 1].to == from) {
        inode->dirty[inode->dirty_count - 1].to = to;
        return;
    }
    if (inode->dirty_count == inode->dirty_capacity) {
        inode->dirty_capacity = inode->dirty_capacity == 0 ? 16 : inode->dirty_capacity * 2;
        inode->dirty = realloc(inode->dirty, inode->dirty_capacity * sizeof *inode->dirty);
    }
    inode->dirty[inode->dirty_count++] = (struct range){ from, to };
}

static void mark_names(const char *path)
{
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash != NULL)
        *slash = 0;
    for (size_t i = 0; i < dirty_name_count; i++)
        if (strcmp(dirty_names[i], parent) == 0)
            return;
    if (dirty_name_count == NAMES_MAX)
        abort();
    dirty_names[dirty_name_count++] = strdup(parent);
}

/* Copy [from, to) of the volatile file to the durable one, as far as the volatile file reaches. */
static void copy_range(int source, int target, uint64_t from, uint64_t to)
{
    char bytes[PAGE * 16];
    while (from < to) {
        size_t len = to - from < sizeof bytes ? (size_t)(to - from) : sizeof bytes;
        ssize_t got = pread(source, bytes, len, (off_t)from);
        if (got <= 0)
            return;
        if (pwrite(target, bytes, (size_t)got, (off_t)from) != got)
            abort();
        from += (uint64_t)got;
    }
}

static int open_durable(ino_t number)
{
    char path[PATH_MAX];
    inode_path(path, number);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        abort();
    return fd;
}

/* fsync of a file, or with `lossy` what the power cut leaves of it. */
static void persist(int source, bool lossy)
{
    struct stat info;
    if (fstat(source, &info) != 0)
        return;
    struct inode *inode = inode_get(info.st_ino);
    int target = open_durable(info.st_ino);
    for (size_t i = 0; i < inode->dirty_count; i++) {
        struct range r = inode->dirty[i];
        if (!lossy) {
            copy_range(source, target, r.from, r.to);
            continue;
        }
        for (uint64_t at = r.from; at < r.to; at = (at / PAGE + 1) * PAGE) {
            uint64_t end = (at / PAGE + 1) * PAGE;
            if (next_random() & 1)
                copy_range(source, target, at, end < r.to ? end : r.to);
        }
    }
    if (inode->size_changed && (!lossy || next_random() & 1) && ftruncate(target, info.st_size) != 0)
        abort();
    inode->dirty_count = 0;
    inode->size_changed = false;
    close(target);
}

/* Make the durable directory's names those of the volatile one. */
static void persist_names(const char *path)
{
    char from[PATH_MAX], to[PATH_MAX];
    full(from, volatile_root, path);
    full(to, durable_root, path);
    mkdir(to, 0700);
    DIR *dir = opendir(to);
    if (dir == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char a[PATH_MAX * 2], b[PATH_MAX * 2];
        snprintf(a, sizeof a, "%s/%s", from, entry->d_name);
        snprintf(b, sizeof b, "%s/%s", to, entry->d_name);
        struct stat info;
        if (entry->d_name[0] != '.' && lstat(a, &info) != 0 && unlink(b) != 0)
            rmdir(b);
    }
    closedir(dir);
    dir = opendir(from);
    if (dir == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char a[PATH_MAX * 2], b[PATH_MAX * 2], content[PATH_MAX];
        snprintf(a, sizeof a, "%s/%s", from, entry->d_name);
        snprintf(b, sizeof b, "%s/%s", to, entry->d_name);
        struct stat info;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || lstat(a, &info) != 0)
            continue;
        if (S_ISDIR(info.st_mode)) {
            mkdir(b, 0700);
            continue;
        }
        close(open_durable(info.st_ino));
        inode_path(content, info.st_ino);
        unlink(b);
        if (link(content, b) != 0)
            abort();
    }
    closedir(dir);
}

static void clean_names(const char *path)
{
    for (size_t i = 0; i < dirty_name_count; i++)
        if (strcmp(dirty_names[i], strcmp(path, "/") == 0 ? "" : path) == 0) {
            free(dirty_names[i]);
            dirty_names[i] = dirty_names[--dirty_name_count];
            return;
        }
}

/* ---- the file system ------------------------------------------------------------------------------ */
static int fs_getattr(const char *path, struct stat *out, struct fuse_file_info *file)
{
    char at[PATH_MAX];
    full(at, volatile_root, path);
    if (file != NULL)
        return fstat((int)file->fh, out) == 0 ? 0 : -errno;
    return lstat(at, out) == 0 ? 0 : -errno;
}

static int fs_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *file, enum fuse_readdir_flags flags)
{
    (void)offset, (void)file, (void)flags;
    char at[PATH_MAX];
    full(at, volatile_root, path);
    DIR *dir = opendir(at);
    if (dir == NULL)
        return -errno;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        fill(buffer, entry->d_name, NULL, 0, 0);
    closedir(dir);
    return 0;
}

static int fs_open(const char *path, struct fuse_file_info *file)
{
    char at[PATH_MAX];
    full(at, volatile_root, path);
    int fd = open(at, file->flags & ~(O_CREAT | O_EXCL | O_DIRECT));
    if (fd < 0)
        return -errno;
    if (file->flags & O_TRUNC)
        mark_dirty(fd, 0, 0);
    file->fh = (uint64_t)fd;
    return 0;
}

/* The system may reuse the number of an unlinked file, whose old name may still be durable: a new file gets a
 * durable file of its own. */
static void begin_inode(int fd)
{
    struct stat info;
    char path[PATH_MAX];
    if (fstat(fd, &info) != 0 || info.st_size != 0)
        return;
    struct inode *inode = inode_get(info.st_ino);
    inode->dirty_count = 0;
    inode->size_changed = false;
    inode_path(path, info.st_ino);
    unlink(path);
}

static int fs_create(const char *path, mode_t mode, struct fuse_file_info *file)
{
    char at[PATH_MAX];
    full(at, volatile_root, path);
    int fd = open(at, file->flags | O_CREAT, mode);
    if (fd < 0)
        return -errno;
    mark_names(path);
    begin_inode(fd);
    file->fh = (uint64_t)fd;
    return 0;
}

static int fs_read(const char *path, char *bytes, size_t len, off_t offset, struct fuse_file_info *file)
{
    (void)path;
    ssize_t got = pread((int)file->fh, bytes, len, offset);
    return got < 0 ? -errno : (int)got;
}

static int fs_write(const char *path, const char *bytes, size_t len, off_t offset,
                    struct fuse_file_info *file)
{
    (void)path;
    ssize_t put = pwrite((int)file->fh, bytes, len, offset);
    if (put < 0)
        return -errno;
    mark_dirty((int)file->fh, (uint64_t)offset, (uint64_t)offset + (uint64_t)put);
    return (int)put;
}

static int fs_truncate(const char *path, off_t size, struct fuse_file_info *file)
{
    char at[PATH_MAX];
    full(at, volatile_root, path);
    int fd = file != NULL ? (int)file->fh : open(at, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = ftruncate(fd, size) == 0 ? 0 : -errno;
    mark_dirty(fd, 0, 0);
    if (file == NULL)
        close(fd);
    return result;
}

static int fs_fallocate(const char *path, int mode, off_t offset, off_t len, struct fuse_file_info *file)
{
    (void)path;
    if (fallocate((int)file->fh, mode, offset, len) != 0)
        return -errno;
    mark_dirty((int)file->fh, 0, 0);
    return 0;
}

static int fs_fsync(const char *path, int data_only, struct fuse_file_info *file)
{
    (void)path, (void)data_only;
    persist((int)file->fh, false);
    return 0;
}

static int fs_fsyncdir(const char *path, int data_only, struct fuse_file_info *file)
{
    (void)data_only, (void)file;
    const char *relative = strcmp(path, "/") == 0 ? "" : path;
    persist_names(relative);
    clean_names(relative);
    return 0;
}

static int fs_release(const char *path, struct fuse_file_info *file)
{
    (void)path;
    close((int)file->fh);
    return 0;
}

static int fs_unlink(const char *path)
{
    char at[PATH_MAX];
    full(at, volatile_root, path);
    mark_names(path);
    return unlink(at) == 0 ? 0 : -errno;
}

static int fs_mkdir(const char *path, mode_t mode)
{
    char at[PATH_MAX];
    full(at, volatile_root, path);
    mark_names(path);
    return mkdir(at, mode) == 0 ? 0 : -errno;
}

static int fs_rmdir(const char *path)
{
    char at[PATH_MAX];
    full(at, volatile_root, path);
    mark_names(path);
    return rmdir(at) == 0 ? 0 : -errno;
}

static int fs_rename(const char *from, const char *to, unsigned flags)
{
    char a[PATH_MAX], b[PATH_MAX];
    if (flags != 0)
        return -EINVAL;
    full(a, volatile_root, from);
    full(b, volatile_root, to);
    mark_names(from);
    mark_names(to);
    return rename(a, b) == 0 ? 0 : -errno;
}

static int fs_link(const char *from, const char *to)
{
    char a[PATH_MAX], b[PATH_MAX];
    full(a, volatile_root, from);
    full(b, volatile_root, to);
    mark_names(to);
    return link(a, b) == 0 ? 0 : -errno;
}

static int fs_statfs(const char *path, struct statvfs *out)
{
    (void)path;
    return statvfs(volatile_root, out) == 0 ? 0 : -errno;
}

static int fs_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *file)
{
    (void)path, (void)times, (void)file;
    return 0;
}

static void *fs_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
    (void)connection;
    config->use_ino = 1;
    config->kernel_cache = 0;
    config->entry_timeout = config->attr_timeout = config->negative_timeout = 0;
    config->hard_remove = 1;
    return NULL;
}

static const struct fuse_operations operations = {
    .getattr = fs_getattr,
    .readdir = fs_readdir,
    .open = fs_open,
    .create = fs_create,
    .read = fs_read,
    .write = fs_write,
    .truncate = fs_truncate,
    .fallocate = fs_fallocate,
    .fsync = fs_fsync,
    .fsyncdir = fs_fsyncdir,
    .release = fs_release,
    .unlink = fs_unlink,
    .mkdir = fs_mkdir,
    .rmdir = fs_rmdir,
    .rename = fs_rename,
    .link = fs_link,
    .statfs = fs_statfs,
    .utimens = fs_utimens,
    .init = fs_init,
};

/* Walk the volatile tree; `end` false: everything there is durable, true: the power cut. */
static void walk(const char *path, bool end)
{
    char at[PATH_MAX];
    full(at, volatile_root, path);
    DIR *dir = opendir(at);
    if (dir == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char child[PATH_MAX * 2], inner[PATH_MAX];
        snprintf(child, sizeof child, "%s/%s", at, entry->d_name);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        struct stat info;
        if (lstat(child, &info) != 0)
            continue;
        if (S_ISDIR(info.st_mode)) {
            if (snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) < (int)sizeof inner) {
                if (!end)
                    persist_names(path);
                walk(inner, end);
            }
            continue;
        }
        int fd = open(child, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (!end)
            mark_dirty(fd, 0, (uint64_t)info.st_size);
        persist(fd, end);
        close(fd);
    }
    closedir(dir);
    if (!end)
        persist_names(path);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: forgetful MOUNTPOINT VOLATILE DURABLE SEED\n");
        return 2;
    }
    inodes = calloc(INODES_MAX, sizeof *inodes);
    char inner[PATH_MAX + 16];
    if (inodes == NULL || realpath(argv[2], volatile_root) == NULL || realpath(argv[3], durable_root) == NULL)
        return 1;
    random_state = strtoull(argv[4], NULL, 0);
    snprintf(inner, sizeof inner, "%s/.inode", durable_root);
    mkdir(inner, 0700);
    walk("", false);
    char foreground[] = "-f", single[] = "-s", option[] = "-o", permissions[] = "default_permissions";
    char *arguments[] = { argv[0], foreground, single, option, permissions, argv[1], NULL };
    int result = fuse_main(6, arguments, &operations, NULL);
    walk("", true);
    for (size_t i = 0; i < dirty_name_count; i++)
        if (next_random() & 1)
            persist_names(dirty_names[i]);
    return result;
}
