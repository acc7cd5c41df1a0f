/* How many calls of a bucket run at a time, first come, first served. A call enters before it allocates or signs
 * anything and leaves when its buffers are gone, so their number bounds memory and connections alike. */
#ifndef BLOB_S3_GATE_H
#define BLOB_S3_GATE_H

#include "base/err.h"
#include "io/thread.h"

#include <stdatomic.h>

struct io;

/* On the stack of who waits. */
struct s3_gate_waiter {
    struct s3_gate_waiter *next;
    bool is_file, is_in;
};

struct s3_gate {
    struct io *io;
    struct io_mutex lock; /* of what follows; a leaf */
    struct io_cond let_in;
    struct s3_gate_waiter *first; /* who came first */
    unsigned inside, inside_max;
    unsigned files,
        files_max; /* of those inside, who sends a file, which may take hours: half, so that others pass */
};

/* inside_max > 0. io is borrowed until done, when nobody is inside and nobody waits. */
void s3_gate_init(struct s3_gate *gate, struct io *io, unsigned inside_max);
void s3_gate_done(struct s3_gate *gate);

/* Wait for a place, at most wait_ms. abort may be NULL. Errors ERR_BUSY no place came free in time, ERR_CANCELED
 * abort was set. With OK the caller leaves with the same is_file. */
err s3_gate_enter(struct s3_gate *gate, bool is_file, int64_t wait_ms, const _Atomic bool *abort);
void s3_gate_leave(struct s3_gate *gate, bool is_file);

#endif
