/* The only door to the system: files, directories, clocks, random bytes.
 *
 * Every call takes the `struct io *` of its node. There are two implementations of this header, chosen
 * at link time: io_real.c over Linux, and tests' io_sim.c, a disk and clocks in memory that crash, tear, rot
 * and fill up from a seed. Code above this room never sees the difference.
 *
 * Paths are relative to the io's root directory (absolute paths are used as they are), '/'-separated,
 * without "..". All calls block the calling thread; all are safe from any thread, except that one
 * io_file's write side has one owner.
 *
 * Durability contract (the same in both implementations, the simulated one enforces it):
 *   - written bytes survive a crash only after io_file_sync of that file returned OK;
 *   - a created, renamed or unlinked name survives only after io_dir_sync of its directory;
 *   - after a failed write or sync nothing is known about the file: never retried, the file is sealed. */
#ifndef IO_IO_H
#define IO_IO_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct io;
struct io_file;

#define IO_PATH_BYTES_MAX 1024

/* Open the system below the directory root_path (which exists). Owner: the node. */
err io_open(const char *root_path, struct io **out_io);
void io_close(struct io *io);

/* ---- files ---- */
enum io_open_mode {
    IO_READ,   /* existing, read only                          ERR_NOT_FOUND */
    IO_WRITE,  /* existing or new, read and write              */
    IO_CREATE, /* new, read and write                          ERR_EXISTS */
};

/* Errors also: ERR_DENIED, ERR_SPACE, ERR_IO, ERR_LIMIT (too many open files), ERR_CONFLICT (a directory). */
err io_file_open(struct io *io, const char *path, enum io_open_mode mode, struct io_file **out_file);
void io_file_close(struct io_file *file); /* NULL is allowed; never fails: what mattered was synced */

/* Read exactly len bytes at offset. ERR_END: the file ends before; *out_len (may be NULL) tells how
 * many were read. Short reads of the system are continued, EINTR is retried. */
err io_file_read(struct io_file *file, uint64_t offset, void *at, size_t len, size_t *out_len);

/* Write all at offset (continued after short writes). ERR_SPACE, ERR_IO: seal the file. */
err io_file_write(struct io_file *file, uint64_t offset, struct slice bytes);

/* Write the slices one after the other at offset, as one call where the system can. */
err io_file_write_all(struct io_file *file, uint64_t offset, const struct slice *parts, size_t part_count);

/* Make written bytes and the size durable (fdatasync). Never retried after a failure. */
err io_file_sync(struct io_file *file);

err io_file_size(struct io_file *file, uint64_t *out_size);
err io_file_truncate(struct io_file *file, uint64_t size);

/* Reserve blocks for [0, size) and extend the file to it, reading as zeros. ERR_SPACE. */
err io_file_allocate(struct io_file *file, uint64_t size);

/* Take an exclusive lock on the whole file, held until close. ERR_BUSY: another process has it. */
err io_file_lock(struct io_file *file);

/* Tell the system that [offset, offset + len) will not be read again soon. A hint. */
void io_file_forget(struct io_file *file, uint64_t offset, uint64_t len);

/* ---- names ---- */
err io_rename(struct io *io, const char *from, const char *to); /* replaces `to` */
err io_link(struct io *io, const char *from, const char *to);   /* ERR_EXISTS */
err io_unlink(struct io *io, const char *path);                 /* ERR_NOT_FOUND */
err io_dir_create(struct io *io, const char *path);             /* ERR_EXISTS */
err io_dir_remove(struct io *io, const char *path);             /* empty ones only: ERR_CONFLICT */
err io_dir_sync(struct io *io, const char *path);
bool io_exists(struct io *io, const char *path);
err io_path_size(struct io *io, const char *path, uint64_t *out_size, int64_t *out_modified_ms);

struct io_dir_entry {
    const char *name; /* in the pool of the listing */
    bool is_dir;
};

/* Create a directory, durably. One that is there is fine: the one above is synced then too, for whoever made it
 * may have died before that; where it may not be read it is not ours and left alone. */
err io_dir_make(struct io *io, const char *path);

/* Cut a path to that of the directory it lies in: "" for a name below the root, "/" for one below "/". */
void io_path_cut(char *path);

/* All entries but "." and "..", sorted by name, in arena memory of the pool. ERR_NOT_FOUND. */
err io_dir_list(struct io *io, const char *path, struct pool *pool, struct io_dir_entry **out_entries,
                size_t *out_count);

struct io_space {
    uint64_t total_bytes;
    uint64_t free_bytes; /* for this user */
};
err io_space(struct io *io, struct io_space *out_space);

/* The path from the file system's root on, for libraries that open files themselves. ERR_LIMIT: longer than
 * IO_PATH_BYTES_MAX; ERR_IO. */
err io_path_absolute(struct io *io, const char *path, char out_path[IO_PATH_BYTES_MAX]);

/* Read a whole file of at most bytes_max into arena memory, NUL-terminated (not counted). ERR_LIMIT. */
err io_read_file(struct io *io, const char *path, size_t bytes_max, struct pool *pool,
                 struct slice *out_bytes);

/* Write a small file so that after a crash either the old or the new content is there: temporary name,
 * sync, rename, directory sync. */
err io_replace_file(struct io *io, const char *path, struct slice bytes);

/* ---- clocks and chance ---- */
int64_t io_now_ms(struct io *io);       /* Unix time; may jump */
int64_t io_monotonic_ns(struct io *io); /* never goes back; stops while suspended */
int64_t io_boottime_ns(struct io *io);  /* never goes back; runs while suspended */
void io_sleep_ns(struct io *io, int64_t ns);
void io_random(struct io *io, void *at, size_t len); /* unpredictable bytes */

/* ---- the machine ---- */
unsigned io_cpu_count(struct io *io);
uint64_t io_memory_bytes(struct io *io); /* RAM, or the cgroup's limit when that is smaller */
/* Let the process open as many files as the system permits, not only as many as it was started with (1,024 is
 * usual, and as many connections are allowed). Returns the limit then in force. */
uint64_t io_files_max_raise(void);
/* Does a person read standard error as it comes: is it a terminal? */
bool io_stderr_is_terminal(void);

#endif
