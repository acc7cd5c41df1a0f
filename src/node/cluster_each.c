/* See cluster_each.h. */
#include "node/cluster_each.h"

#include "io/thread.h"

struct crew {
    struct cluster_each *each;
    _Atomic uint32_t next;
    struct io_mutex lock; /* the two below */
    err first;
    struct err_at *at;
};

static void keep_first(struct crew *crew, err e, const struct err_at *at)
{
    io_mutex_lock(&crew->lock);
    if (crew->first == OK) {
        crew->first = e;
        if (crew->at != NULL)
            *crew->at = *at;
    }
    io_mutex_unlock(&crew->lock);
    atomic_store(&crew->each->cancel, true);
}

static void work(void *context)
{
    struct crew *crew = context;
    struct cluster_each *each = crew->each;
    for (uint32_t p;
         !atomic_load(&each->cancel) && (p = atomic_fetch_add(&crew->next, 1)) < each->partition_count;) {
        struct err_at at = { 0 };
        err e = each->run(each->context, p, &at);
        if (e != OK)
            keep_first(crew, e, &at);
    }
}

err cluster_each(struct cluster_each *each, struct io *io, struct err_at *at)
{
    struct crew crew = { .each = each, .at = at };
    struct io_thread *threads[CLUSTER_EACH_THREADS];
    uint32_t started = 0;
    io_mutex_init(&crew.lock);
    while (started < CLUSTER_EACH_THREADS - 1 && started + 1 < each->partition_count &&
           io_thread_start(io, "partition", work, &crew, &threads[started]) == OK)
        started++;
    work(&crew); /* the caller's is one of them, and enough */
    while (started > 0)
        io_thread_join(threads[--started]);
    io_mutex_done(&crew.lock);
    return crew.first;
}
