/* What commands share that read a snapshot. */
#ifndef NODE_SNAPSHOT_H
#define NODE_SNAPSHOT_H

#include "base/err.h"
#include "base/slice.h"
#include "io/io.h"

/* The bytes of NODE, the last thing that a snapshot gets, IDENTITY_BYTES of them in arena memory of pool. Text in
 * at: ERR_INPUT it is no snapshot of kelpie snapshot, ERR_NOT_FOUND no whole one, ERR_CORRUPT, ERR_IO. */
err snapshot_read_identity(struct io *io, const char *snapshot, struct pool *pool, struct slice *out_bytes,
                           struct err_at *at);

#endif
