/* How far a command is. See progress.h. From: verify, fsck, restore, export and snapshot. To: standard error,
 * where nothing else is written that a script reads. */
#include "node/progress.h"

#include "base/time.h"

#include <stdio.h>

#define TELL_NS   (2 * NS_PER_SECOND)
#define MIB_BYTES (UINT64_C(1) << 20)

struct progress progress_open(const char *command, struct io *io, bool is_asked)
{
    bool is_on = is_asked || io_stderr_is_terminal();
    int64_t now_ns = io_monotonic_ns(io);
    return (struct progress){ .command = command,
                              .io = io,
                              .is_on = is_on,
                              .told_ns = is_asked ? now_ns - TELL_NS : now_ns,
                              .began_ns = now_ns };
}

static bool is_due(struct progress *progress)
{
    if (!progress->is_on)
        return false;
    int64_t now_ns = io_monotonic_ns(progress->io);
    if (now_ns - progress->told_ns < TELL_NS)
        return false;
    progress->told_ns = now_ns;
    return true;
}

void progress_tell(void *context, uint64_t done, uint64_t total)
{
    struct progress *progress = context;
    if (!is_due(progress))
        return;
    total = total < done ? done : total;
    uint64_t scale = progress->unit == NULL ? MIB_BYTES : 1;
    fprintf(stderr, "kelpie %s: %llu of %llu %s (%.0f %%)\n", progress->command,
            (unsigned long long)(done / scale), (unsigned long long)((total + scale - 1) / scale),
            progress->unit != NULL ? progress->unit : "MiB",
            total > 0 ? 100.0 * (double)done / (double)total : 100.0);
}

static void run(void *context)
{
    struct progress *progress = context;
    io_mutex_lock(&progress->lock);
    while (!progress->has_ended) {
        if (is_due(progress))
            fprintf(stderr, "kelpie %s: waiting for the node, %lld s\n", progress->command,
                    (long long)((progress->told_ns - progress->began_ns) / NS_PER_SECOND));
        io_cond_wait_for(&progress->ended, &progress->lock, TELL_NS);
    }
    io_mutex_unlock(&progress->lock);
}

void progress_wait_begin(struct progress *progress)
{
    io_mutex_init(&progress->lock);
    io_cond_init(&progress->ended);
    if (progress->is_on) /* without a thread nothing is told */
        ERR_IGNORE(io_thread_start(progress->io, "progress", run, progress, &progress->thread));
}

void progress_wait_end(struct progress *progress)
{
    io_mutex_lock(&progress->lock);
    progress->has_ended = true;
    io_cond_signal(&progress->ended);
    io_mutex_unlock(&progress->lock);
    if (progress->thread != NULL)
        io_thread_join(progress->thread);
    io_cond_done(&progress->ended);
    io_mutex_done(&progress->lock);
}
