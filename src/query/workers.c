/* A pool of worker threads with one list of tasks. See workers.h.
 *
 * A task is one call of query_workers_run and lives on its caller's stack. The caller works on it too, so
 * a task ends even when every worker is busy with others, and a job that starts tasks cannot deadlock.
 *
 * Invariants
 *  1. A task is listed while it may have indexes left; whoever finds none left unlinks it.
 *  2. helpers counts the workers inside a task; run returns only when it is unlinked and has no helpers,
 *     so no worker touches a task after its stack frame is gone.
 *  3. Every index is given out once, by an atomic counter; list and helpers change under the mutex. */
#include "query/workers.h"

#include "base/check.h"
#include "io/thread.h"

#include <stdatomic.h>

struct task {
    struct task *next;
    void (*job)(void *context, size_t index);
    void *context;
    size_t count;
    _Atomic size_t next_index;
    unsigned helpers;
    bool is_listed;
};

struct query_workers {
    struct pool *pool;
    struct io_mutex mutex;
    struct io_cond work; /* a task was listed, or closing */
    struct io_cond idle; /* a helper left a task */
    struct task *tasks;
    bool is_closing;
    unsigned thread_count;
    struct io_thread *threads[];
};

static void unlink_task(struct query_workers *workers, struct task *task)
{
    if (!task->is_listed)
        return;
    struct task **at = &workers->tasks;
    while (*at != task)
        at = &(*at)->next;
    *at = task->next;
    task->is_listed = false;
}

static void work_on(struct task *task)
{
    size_t index;
    while ((index = atomic_fetch_add_explicit(&task->next_index, 1, memory_order_relaxed)) < task->count)
        task->job(task->context, index);
}

static void worker_run(void *context)
{
    struct query_workers *workers = context;
    io_mutex_lock(&workers->mutex);
    for (;;) {
        while (workers->tasks == NULL && !workers->is_closing)
            io_cond_wait(&workers->work, &workers->mutex);
        struct task *task = workers->tasks;
        if (task == NULL)
            break;
        task->helpers++;
        io_mutex_unlock(&workers->mutex);
        work_on(task);
        io_mutex_lock(&workers->mutex);
        unlink_task(workers, task);
        if (--task->helpers == 0)
            io_cond_broadcast(&workers->idle);
    }
    io_mutex_unlock(&workers->mutex);
}

err query_workers_open(struct io *io, struct pool *parent, unsigned count, struct query_workers **out_workers)
{
    struct pool *pool;
    void *room;
    TRY(pool_open_object(parent, "query workers",
                         sizeof(struct query_workers) + count * sizeof(struct io_thread *), &pool, &room));
    struct query_workers *workers = room;
    workers->pool = pool;
    io_mutex_init(&workers->mutex);
    io_cond_init(&workers->work);
    io_cond_init(&workers->idle);
    for (unsigned i = 0; i < count; i++) {
        if (io_thread_start(io, "query", worker_run, workers, &workers->threads[i]) != OK)
            break; /* fewer helpers are slower, not wrong */
        workers->thread_count++;
    }
    *out_workers = workers;
    return OK;
}

void query_workers_close(struct query_workers *workers)
{
    if (workers == NULL)
        return;
    io_mutex_lock(&workers->mutex);
    check(workers->tasks == NULL);
    workers->is_closing = true;
    io_cond_broadcast(&workers->work);
    io_mutex_unlock(&workers->mutex);
    for (unsigned i = 0; i < workers->thread_count; i++)
        io_thread_join(workers->threads[i]);
    io_cond_done(&workers->work);
    io_cond_done(&workers->idle);
    io_mutex_done(&workers->mutex);
    pool_close(workers->pool);
}

unsigned query_workers_width(const struct query_workers *workers) { return workers->thread_count + 1; }

void query_workers_run(void *context, size_t count, void (*job)(void *context, size_t index),
                       void *job_context)
{
    struct query_workers *workers = context;
    struct task task = { .job = job, .context = job_context, .count = count };
    if (count > 1 && workers->thread_count > 0) {
        io_mutex_lock(&workers->mutex);
        struct task **end = &workers->tasks; /* at the end: older queries are helped first */
        while (*end != NULL)
            end = &(*end)->next;
        *end = &task;
        task.is_listed = true;
        io_mutex_unlock(&workers->mutex);
        for (size_t i = 1; i < count && i <= workers->thread_count; i++)
            io_cond_signal(&workers->work); /* with the mutex free: they need it at once */
    }
    work_on(&task);
    if (count > 1 && workers->thread_count > 0) {
        io_mutex_lock(&workers->mutex);
        unlink_task(workers, &task);
        while (task.helpers > 0)
            io_cond_wait(&workers->idle, &workers->mutex);
        io_mutex_unlock(&workers->mutex);
    }
}
