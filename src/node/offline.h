/* A data directory opened without a node: for commands that check, repair and export. */
#ifndef NODE_OFFLINE_H
#define NODE_OFFLINE_H

#include "base/err.h"
#include "blob/blob.h"
#include "io/io.h"
#include "log/log.h"
#include "node/identity.h"
#include "shard/shard.h"

struct offline {
    struct pool *pool;
    struct io *io; /* rooted at the data directory */
    struct identity identity;
    struct identity_lock *lock;
    bool is_snapshot;
    struct log *log;
    struct blob *blob;
    struct shards_config config;
};

/* Lock the directory and open log and blobs; read_only: without changing anything in it, and only so a snapshot is
 * opened. The reason in at: another process uses it, no data, … */
err offline_open(const char *data_directory, bool read_only, struct offline *out_offline, struct err_at *at);

/* Close what is open; also after a failed offline_open. */
void offline_close(struct offline *offline);

#endif
