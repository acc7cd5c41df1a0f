/* io/thread.h in the simulation: one real thread. Without fibers (fibers.h) nothing waits: locks are
 * error-checking ones, so that a relock, which would hang the server, is a failed check; waiting on a condition is
 * one too, and no thread can be started. A fiber waits, and others run meanwhile.
 *
 * Invariant: a lock belongs to the one real thread; which fiber took it is not known. A fiber that takes a lock it
 * has already waits for ever, which the world finds as a process that stands still. */
#include "io/thread.h"

#include <errno.h>

#include "base/check.h"
#include "sim/fibers.h"
#include "sim/io_sim.h"

void io_mutex_init(struct io_mutex *mutex)
{
    pthread_mutexattr_t attributes;
    check(pthread_mutexattr_init(&attributes) == 0);
    check(pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK) == 0);
    check(pthread_mutex_init(&mutex->system, &attributes) == 0);
    check(pthread_mutexattr_destroy(&attributes) == 0);
}

void io_mutex_done(struct io_mutex *mutex) { check(pthread_mutex_destroy(&mutex->system) == 0); }

void io_mutex_lock(struct io_mutex *mutex)
{
    int result = pthread_mutex_lock(&mutex->system);
    while (result == EDEADLK && fiber_runs()) {
        (void)fiber_wait_at(mutex, INT64_MAX);
        result = pthread_mutex_lock(&mutex->system);
    }
    check(result == 0);
}

void io_mutex_unlock(struct io_mutex *mutex)
{
    check(pthread_mutex_unlock(&mutex->system) == 0);
    fiber_wake(mutex, true);
}

void io_rwlock_init(struct io_rwlock *lock) { check(pthread_rwlock_init(&lock->system, NULL) == 0); }
void io_rwlock_done(struct io_rwlock *lock) { check(pthread_rwlock_destroy(&lock->system) == 0); }

static void take(struct io_rwlock *lock, int (*try)(pthread_rwlock_t *system))
{
    int result = try(&lock->system);
    while ((result == EBUSY || result == EDEADLK) && fiber_runs()) {
        (void)fiber_wait_at(lock, INT64_MAX);
        result = try(&lock->system);
    }
    check(result == 0);
}

void io_rwlock_read(struct io_rwlock *lock) { take(lock, pthread_rwlock_tryrdlock); }
void io_rwlock_write(struct io_rwlock *lock) { take(lock, pthread_rwlock_trywrlock); }

void io_rwlock_unlock(struct io_rwlock *lock)
{
    check(pthread_rwlock_unlock(&lock->system) == 0);
    fiber_wake(lock, true);
}

void io_cond_init(struct io_cond *cond) { check(pthread_cond_init(&cond->system, NULL) == 0); }
void io_cond_done(struct io_cond *cond) { check(pthread_cond_destroy(&cond->system) == 0); }
void io_cond_signal(struct io_cond *cond) { fiber_wake(cond, false); }
void io_cond_broadcast(struct io_cond *cond) { fiber_wake(cond, true); }

static bool wait(struct io_cond *cond, struct io_mutex *mutex, int64_t ns)
{
    check(fiber_runs()); /* else nobody would signal */
    io_mutex_unlock(mutex);
    bool is_woken = fiber_wait_at(cond, ns);
    io_mutex_lock(mutex);
    return is_woken;
}

void io_cond_wait(struct io_cond *cond, struct io_mutex *mutex) { (void)wait(cond, mutex, INT64_MAX); }

bool io_cond_wait_for(struct io_cond *cond, struct io_mutex *mutex, int64_t timeout_ns)
{
    return timeout_ns > 0 && wait(cond, mutex, timeout_ns);
}

err io_thread_start(struct io *io, const char *name, void (*run)(void *context), void *context,
                    struct io_thread **out_thread)
{
    if (io_sim_group(io) == NULL)
        return ERR_UNSUPPORTED;
    *out_thread = (struct io_thread *)fiber_start_joinable(io_sim_group(io), run, context);
    return OK;
}

void io_thread_join(struct io_thread *thread) { fiber_join((struct fiber *)thread); }
