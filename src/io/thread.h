/* Threads, locks and waiting. The simulated implementation has one thread: either simulated code is driven step
 * by step and never blocks, so that io_thread_start is refused (ERR_UNSUPPORTED) and waiting on a condition is a
 * failed check; or threads are fibers, which wait as real ones do.
 *
 * Lock order: docs/locks.md. */
#ifndef IO_THREAD_H
#define IO_THREAD_H

#include "base/err.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct io;
struct io_thread;

struct io_mutex {
    pthread_mutex_t system;
};
struct io_cond {
    pthread_cond_t system;
};
struct io_rwlock {
    pthread_rwlock_t system;
};

void io_mutex_init(struct io_mutex *mutex);
void io_mutex_done(struct io_mutex *mutex);
void io_mutex_lock(struct io_mutex *mutex);
void io_mutex_unlock(struct io_mutex *mutex);

void io_rwlock_init(struct io_rwlock *lock);
void io_rwlock_done(struct io_rwlock *lock);
void io_rwlock_read(struct io_rwlock *lock);
void io_rwlock_write(struct io_rwlock *lock);
void io_rwlock_unlock(struct io_rwlock *lock);

void io_cond_init(struct io_cond *cond); /* waits count monotonic time */
void io_cond_done(struct io_cond *cond);
void io_cond_wait(struct io_cond *cond, struct io_mutex *mutex);
/* False when timeout_ns passed without a signal; timeout_ns <= 0 only looks. */
bool io_cond_wait_for(struct io_cond *cond, struct io_mutex *mutex, int64_t timeout_ns);
void io_cond_signal(struct io_cond *cond);
void io_cond_broadcast(struct io_cond *cond);

/* Start a thread; name is shown by the system (at most 15 bytes). ERR_LIMIT, ERR_UNSUPPORTED. */
err io_thread_start(struct io *io, const char *name, void (*run)(void *context), void *context,
                    struct io_thread **out_thread);
/* Wait for its end and free it. */
void io_thread_join(struct io_thread *thread);

#endif
