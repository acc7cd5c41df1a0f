/* What io_real.c shares with thread.c; nobody else includes it. */
#ifndef IO_IO_REAL_H
#define IO_IO_REAL_H

#include "base/pool.h"
#include "io/io.h"
#include "io/thread.h"

struct io {
    int root_fd;
    struct pool *pool;     /* files and threads; used under `mutex` */
    struct io_mutex mutex; /* a leaf: nothing is locked while it is held */
};

/* A zeroed block of the io's pool, and back. From any thread. ERR_LIMIT. */
err io_block_get(struct io *io, size_t bytes, void **out_at);
void io_block_put(struct io *io, void *at);

/* What a caller can do about a failure of the system. */
err io_err_of(int system_errno);

#endif
