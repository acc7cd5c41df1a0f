/* Named immutable objects, written if absent: the durable home of segments and manifest chains.
 *
 * One driver now, a directory (blob_dir.c); an object store such as S3 is a second row of the same function table,
 * and nothing above this room knows which runs. Numbered objects (manifest chains) are plain keys.
 *
 * An object appears whole or not at all: once blob_put* returned OK it survives a crash; when it
 * failed or the process died before, the object is absent, or (after a failure of the last sync) there but not
 * promised, which a later blob_put of the same key reports as ERR_EXISTS. Objects are never changed.
 *
 * Keys: 1 … BLOB_KEY_BYTES_MAX bytes of [A-Za-z0-9._-] in parts divided by single '/', no part "." or "..", none
 * beginning with '.'. Any other key: ERR_INPUT.
 *
 * Every call blocks its thread on io; all are safe from any thread. */
#ifndef BLOB_BLOB_H
#define BLOB_BLOB_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

#define BLOB_KEY_BYTES_MAX 240
#define BLOB_FILES_MAX     256 /* files that the handles of a directory hold open */

struct blob;
struct blob_handle;

/* Open (creating if missing) the store in the directory `directory` below the io's root. Leftover
 * temporary files of blob_put are removed. pool: its child holds the store and its handles.
 * Errors ERR_IO, ERR_SPACE, ERR_DENIED, ERR_LIMIT, ERR_INPUT (path too long). */
err blob_open_dir(const char *directory, struct io *io, struct pool *pool, struct blob **out_blob);
/* The same for tools that only read: nothing is created or removed; puts and deletes work nevertheless. */
err blob_open_dir_as_is(const char *directory, struct io *io, struct pool *pool, struct blob **out_blob);
/* Every handle is closed by now. NULL is allowed. */
void blob_close(struct blob *blob);

/* Store bytes under key if it is absent, durably.
 * Errors ERR_EXISTS (nothing changed), ERR_INPUT (key), ERR_SPACE, ERR_IO. */
err blob_put(struct blob *blob, const char *key, struct slice bytes);

/* Put bytes in the place of an object, or of none, durably and at once: a crash leaves the one or the other.
 * Objects are never changed but by the repair of one that cannot be read. Errors ERR_INPUT, ERR_SPACE, ERR_IO. */
err blob_replace(struct blob *blob, const char *key, struct slice bytes);

/* Store a local file built through the same io, written but not necessarily synced: it is synced
 * and moved into place. With OK the temporary path is gone; with an error it is left to the caller, who
 * removes it or retries with a newly written file. After a crash, or a failure to remove it, the temporary path
 * may be a second name of the object: a builder unlinks what it finds there and opens with IO_CREATE, never
 * IO_WRITE. Errors as blob_put, ERR_NOT_FOUND (no file there). */
err blob_put_file(struct blob *blob, const char *key, const char *temp_path);

/* blob_replace with a local file as blob_put_file takes it. */
err blob_replace_file(struct blob *blob, const char *key, const char *temp_path);

/* Open an object for reading; any number of threads may read through one handle, and any number of handles may be
 * open. Errors ERR_NOT_FOUND, ERR_INPUT, ERR_LIMIT, ERR_IO. */
err blob_open(struct blob *blob, const char *key, struct blob_handle **out_handle);
void blob_handle_close(struct blob_handle *handle); /* NULL is allowed */

/* Read exactly len bytes at offset. Errors ERR_END (the object ends before), ERR_NOT_FOUND (deleted meanwhile;
 * that may go unnoticed), ERR_LIMIT, ERR_IO. */
err blob_read(struct blob_handle *handle, uint64_t offset, void *at, size_t len);
uint64_t blob_handle_size(const struct blob_handle *handle);

/* Read a whole object of at most bytes_max into arena memory of pool, NUL-terminated (not counted).
 * Errors ERR_NOT_FOUND, ERR_INPUT, ERR_LIMIT, ERR_IO. */
err blob_get(struct blob *blob, const char *key, size_t bytes_max, struct pool *pool,
             struct slice *out_bytes);

/* Size in bytes of an object. Errors ERR_NOT_FOUND, ERR_INPUT, ERR_IO. */
err blob_size(struct blob *blob, const char *key, uint64_t *out_size);

struct blob_entry {
    const char *key; /* in the pool of the listing */
};

/* Keys directly below the directory `prefix` ("p000/chain"; no trailing '/'), sorted by byte order, in arena
 * memory of pool. A prefix that holds nothing yields no entries. Cost O(entries).
 * Errors ERR_INPUT, ERR_LIMIT, ERR_IO. */
err blob_list(struct blob *blob, const char *prefix, struct pool *pool, struct blob_entry **out_entries,
              size_t *out_count);

/* Remove an object, durably. Who holds handles of it closes them first.
 * Errors ERR_NOT_FOUND (nothing there), ERR_INPUT, ERR_IO. */
err blob_delete(struct blob *blob, const char *key);

#endif
