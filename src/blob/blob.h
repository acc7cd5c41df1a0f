/* Named immutable objects, written if absent: the durable home of segments and manifest chains.
 *
 * Two drivers, a directory (blob_dir.c) and an S3 bucket (blob_s3.c), are rows of one function table, and nothing
 * above this room knows which runs. Numbered objects (manifest chains) are plain keys.
 *
 * An object appears whole or not at all: once blob_put* returned OK it survives a crash; when it
 * failed or the process died before, the object is absent, or (after a failure of the last sync, or when a bucket
 * stopped answering) there but not promised, or still to appear, which a later blob_put of the same key reports as
 * ERR_EXISTS. Of any number of blob_put* of one absent key at most one gets OK, wherever they run. Objects are
 * never changed.
 *
 * A request to a bucket that got stuck on the way, and was repeated or given up, may arrive long after. It then
 * changes no object that is there; but where the object was deleted meanwhile it comes back, whole, as it was put.
 * Who deletes must not take absence for lasting, and nobody uses a deleted key again for something else.
 *
 * Every call of a bucket may also fail with the errors of a network, after as many tries as its budget allows:
 *   ERR_BUSY     the bucket asked to be left alone for longer than the call may wait, or as many calls as may run
 *                at a time did for so long
 *   ERR_TIMEOUT  no answer in time                      ERR_IO  cut off, garbage, 5xx, or the bucket is gone
 *   ERR_DENIED   credentials, rights, certificate or clock are not accepted; a person must act
 *   ERR_UNSUPPORTED  the store cannot do it             ERR_CANCELED  blob_s3_config.abort was set
 *   ERR_CORRUPT  (blob_get) the bytes are not those that were put; asked for three times
 * ERR_NOT_FOUND is only what the store itself said of the key: no other failure is taken for absence.
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
#define BLOB_FILES_MAX     32 /* files that the handles of a directory hold open */

struct blob;
struct blob_handle;

/* Open (creating if missing) the store in the directory `directory` below the io's root. Leftover
 * temporary files of blob_put are removed. pool: its child holds the store and its handles.
 * Errors ERR_IO, ERR_SPACE, ERR_DENIED, ERR_LIMIT, ERR_INPUT (path too long). */
err blob_open_dir(const char *directory, struct io *io, struct pool *pool, struct blob **out_blob);
/* The same for tools that only read: nothing is created or removed; puts and deletes work nevertheless. */
err blob_open_dir_as_is(const char *directory, struct io *io, struct pool *pool, struct blob **out_blob);

/* ---- a bucket of an S3 store ---- */

enum blob_s3_source {
    BLOB_S3_STATIC,   /* access_key, secret_key, session_token as they are given, from wherever */
    BLOB_S3_FILE,     /* a credentials file as AWS' tools write it; read again every minute */
    BLOB_S3_INSTANCE, /* the role of the machine, from its metadata service (IMDSv2), renewed before it ends */
};

struct net_tls_options;

/* Strings are borrowed during blob_open_s3; blob_s3_defaults gives what most want. */
struct blob_s3_config {
    const char *endpoint; /* "https://s3.eu-central-1.amazonaws.com": http or https, host, maybe a port */
    const char *bucket;
    const char *prefix; /* a key that all keys lie below, or "" */
    const char *region; /* as signed */
    bool virtual_host;  /* bucket.host instead of host/bucket; not with dots in the bucket over https */
    enum blob_s3_source source;
    const char *access_key, *secret_key, *session_token; /* session_token may be NULL */
    const char *credentials_file, *profile;
    const char *metadata_url;          /* "http://169.254.169.254" */
    const struct net_tls_options *tls; /* borrowed until close; NULL = the client's defaults */
    const _Atomic bool *abort;         /* borrowed until close; true ends calls within 1 s; may be NULL */
    int64_t request_ms;                /* one request, and 1 s more for each MiB it moves */
    int64_t retry_ms;            /* how long a call goes on after its first failure, or waits for its turn */
    int64_t backoff_ms;          /* first wait, at most doubled with each try, cut at random */
    unsigned retries_per_minute; /* of all calls together; as many may be saved up */
    unsigned connections_max;    /* calls at a time, of files half; further ones wait in turn */
    size_t part_bytes; /* larger files go in parts of this size, larger reads in pieces; 5 MiB … 1 GiB */
    bool as_is;        /* for tools that only read: the store is not tried out, nothing is cleaned up */
};
struct blob_s3_config blob_s3_defaults(void);

/* Open a bucket. Unless it is as_is the store is tried out with an object of its own, which is removed again:
 * it must write if absent, give ETags, keep metadata, read ranges and list. What earlier processes left of such
 * objects (for an hour) and of uploads in parts (for two days) is removed, as far as that goes in 10 s. at says
 * what is wrong and what would mend it.
 * Errors ERR_INPUT the configuration; ERR_NOT_FOUND no such bucket, ERR_DENIED credentials not accepted, the
 * clock is off or the bucket is in another region, ERR_UNSUPPORTED the store ignores If-None-Match or lacks
 * something else, ERR_IO, ERR_TIMEOUT, ERR_BUSY not reachable now, ERR_LIMIT. */
err blob_open_s3(const struct blob_s3_config *config, struct io *io, struct pool *pool,
                 struct blob **out_blob, struct err_at *at);

/* The text of the last call that failed, for health pages; empty when none did. Of a bucket only. */
void blob_s3_last_failure(struct blob *blob, struct err_at *out_at);

/* ---- a cache on the local disk, in front of another store ---- */

struct blob_cache_config {
    const char *directory;   /* of its own; made if missing, in one that is there; borrowed during the call */
    uint64_t bytes_max;      /* of the disk, at least two blocks */
    uint64_t free_bytes_min; /* the cache shrinks while the disk of the io's root has less; 0 = never */
    size_t block_bytes;      /* fetched and kept at once: a multiple of 16, at most 4 MiB */
    /* Does the object never have other bytes than those it had first? Asked from any thread. */
    bool (*is_immutable)(const char *key);
};
/* 1 MiB blocks; directory, bytes_max and is_immutable are the caller's. */
struct blob_cache_config blob_cache_defaults(void);

/* Open a store that keeps blocks of immutable objects of `inner` which were read or put through it; decision
 * 0016. Everything else goes through. Nothing that the local disk does or fails to do changes what a call answers,
 * but:
 *   - an object whose first block is kept opens, and reads as far as it is kept, also when the store is away or
 *     lost it; blob_size and blob_list ask the store;
 *   - what the store gave wrongly would be given again: who finds bytes wrong by a checksum of their own says so.
 * inner is taken on success, and closed with the cache. Errors ERR_INPUT the configuration; ERR_DENIED, ERR_SPACE,
 * ERR_IO the directory; ERR_LIMIT. */
err blob_open_cached(struct blob *inner, const struct blob_cache_config *config, struct io *io,
                     struct pool *pool, struct blob **out_blob, struct err_at *at);

/* The bytes read of this object were wrong by a checksum of the reader's: may another read give others? True: a
 * cache has forgotten its copies, and asks the store again; a bucket may have been misunderstood on the way.
 * False, at no cost: a directory gives the same bytes again (or it is no key). Handles stay open. */
bool blob_doubt(struct blob *blob, const char *key);

/* Let a store look after itself, about every second, from any one thread: a cache gives back what the local disk
 * lacks below its floor, which it sees at each read and put else. Takes as long as removing those files. */
void blob_tend(struct blob *blob);

/* Every handle is closed by now. NULL is allowed. */
void blob_close(struct blob *blob);

/* Store bytes under key if it is absent, durably.
 * Errors ERR_EXISTS (nothing changed), ERR_INPUT (key), ERR_SPACE, ERR_IO. */
err blob_put(struct blob *blob, const char *key, struct slice bytes);

/* Put bytes in the place of an object, or of none, durably and at once: a crash leaves the one or the other.
 * Objects are never changed but by the repair of one that cannot be read. Errors ERR_INPUT, ERR_SPACE, ERR_IO; of
 * a bucket ERR_BUSY where others replace it all the time. */
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

/* Read exactly len bytes at offset. Errors ERR_END (the object ends before), ERR_NOT_FOUND (deleted meanwhile),
 * ERR_CONFLICT (replaced by other bytes meanwhile; both may go unnoticed in a directory), ERR_LIMIT, ERR_IO. */
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
    int64_t t_ms;    /* Unix ms of its last modification; 0 = not known */
};

/* Keys directly below the directory `prefix` ("p000/chain"; no trailing '/'), sorted by byte order, in arena
 * memory of pool. A prefix that holds nothing yields no entries. Cost O(entries).
 * Times are the store's: of a bucket by its own clock, in whole seconds; of a directory when the last byte was
 * written, which for blob_put_file is before the put. Who removes what is old leaves alone what has no time.
 * Errors ERR_INPUT, ERR_LIMIT, ERR_IO. */
err blob_list(struct blob *blob, const char *prefix, struct pool *pool, struct blob_entry **out_entries,
              size_t *out_count);

/* Remove an object, durably. Who holds handles of it closes them first.
 * Errors ERR_NOT_FOUND (nothing there), ERR_INPUT, ERR_IO. */
err blob_delete(struct blob *blob, const char *key);

#endif
