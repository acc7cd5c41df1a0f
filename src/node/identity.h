/* NODE: who a data directory belongs to, and the lock that lets one process use it. docs/format/node.md. */
#ifndef NODE_IDENTITY_H
#define NODE_IDENTITY_H

#include "base/err.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

#define IDENTITY_FILE          "NODE"
#define IDENTITY_SNAPSHOT_FILE "SNAPSHOT" /* beside NODE: what kelpie snapshot made, no data directory */
#define IDENTITY_FORMAT        1          /* of the whole data directory */
#define IDENTITY_BYTES         128
#define IDENTITY_PROGRAM_BYTES 32

struct identity {
    uint8_t cluster_id[16];   /* random, drawn at init */
    uint8_t hash_key[16];     /* routing of series; random, never changed */
    uint32_t partition_count; /* fixed for life */
    uint64_t range_bytes_max; /* fixed for life */
    int64_t created_ms;
    char program[IDENTITY_PROGRAM_BYTES]; /* version that wrote the file, NUL-terminated */
};

struct identity_lock;

/* Lock the data directory that is io's root, and read its NODE; a directory without one is initialised
 * when partition_count is not 0 (else ERR_NOT_FOUND). With 0 the right to read will do.
 * Errors ERR_BUSY another process uses it; ERR_VERSION written by a newer version, named in at;
 *        ERR_CORRUPT; ERR_DENIED; ERR_CONFLICT data but no NODE; ERR_IO, ERR_SPACE, ERR_LIMIT. */
err identity_open(struct io *io, struct pool *pool, uint32_t partition_count, uint64_t range_bytes_max,
                  struct identity *out_identity, struct identity_lock **out_lock, struct err_at *at);

/* Is the directory that is io's root a snapshot? Its marker says so, never what is absent: a node that lost its
 * log is none. */
bool identity_is_snapshot(struct io *io);

/* Give up the lock. NULL is allowed. */
void identity_close(struct identity_lock *lock);

/* The file's bytes, and back. identity_decode: ERR_CORRUPT, ERR_VERSION with text in at. */
void identity_encode(const struct identity *identity, uint8_t out[IDENTITY_BYTES]);
err identity_decode(const uint8_t bytes[IDENTITY_BYTES], struct identity *out_identity, struct err_at *at);

#endif
