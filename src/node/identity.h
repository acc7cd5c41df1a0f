/* NODE: who a data directory belongs to, and the lock that lets one process use it. docs/format/node.md. */
#ifndef NODE_IDENTITY_H
#define NODE_IDENTITY_H

#include "base/err.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

#define IDENTITY_FILE          "NODE"
#define IDENTITY_SNAPSHOT_FILE "SNAPSHOT" /* beside NODE: what kelpie snapshot made, no data directory */
#define IDENTITY_FORMAT        1          /* of the whole data directory of a node that is alone */
#define IDENTITY_FORMAT_MEMBER 2 /* … and of one in a cluster, which older versions refuse by that */
#define IDENTITY_BYTES         128
#define IDENTITY_PROGRAM_BYTES 32

struct identity {
    bool is_member;           /* of a cluster: the next four are not in the file, the cluster says them */
    uint8_t cluster_id[16];   /* random, drawn at init */
    uint8_t hash_key[16];     /* routing of series; random, never changed */
    uint32_t partition_count; /* fixed for life */
    uint64_t range_bytes_max; /* fixed for life */
    uint8_t disk_id[16];      /* of a member: of this directory; random, drawn at init */
    int64_t created_ms;
    char program[IDENTITY_PROGRAM_BYTES]; /* version that wrote the file, NUL-terminated */
};

struct identity_lock;

/* What a directory without NODE becomes. */
struct identity_fresh {
    bool is_member;
    uint32_t partition_count; /* both of a node that is alone */
    uint64_t range_bytes_max;
};

/* Lock the data directory that is io's root, and read its NODE; a directory without one is initialised as fresh
 * says. fresh NULL: not initialised (ERR_NOT_FOUND), and the right to read will do.
 * Errors ERR_INPUT it is a member's and fresh is not, or the other way round; ERR_BUSY another process uses
 * it; ERR_VERSION written by a newer version, named in at;
 *        ERR_CORRUPT; ERR_DENIED; ERR_CONFLICT data but no NODE; ERR_IO, ERR_SPACE, ERR_LIMIT. */
err identity_open(struct io *io, struct pool *pool, const struct identity_fresh *fresh,
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
