/* How far a command is, on standard error: every few seconds, when a person reads along or asked for it. */
#ifndef NODE_PROGRESS_H
#define NODE_PROGRESS_H

#include "io/io.h"
#include "io/thread.h"

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *command;
    const char *unit; /* NULL: bytes */
    struct io *io;
    bool is_on;
    int64_t told_ns; /* monotonic, of the last line */

    int64_t began_ns; /* of a wait, and what follows, too */
    struct io_mutex lock;
    struct io_cond ended;
    bool has_ended; /* under lock */
    struct io_thread *thread;
};

/* The row of a command's options. */
#define PROGRESS_OPTION(flag)                                                                   \
    {                                                                                           \
        "--progress", NULL, "say how far it is on standard error, as on a terminal", NULL, flag \
    }

/* is_asked: at once and wherever standard error leads; else only on a terminal, and not before some seconds. io
 * outlives it. */
struct progress progress_open(const char *command, struct io *io, bool is_asked);

/* So much is done of so much. As the progress of a struct shard_report: context is the struct progress. */
void progress_tell(void *context, uint64_t done, uint64_t total);

/* Tell how long it takes until progress_wait_end, of something that does not tell itself how far it is. */
void progress_wait_begin(struct progress *progress);
void progress_wait_end(struct progress *progress);

#endif
