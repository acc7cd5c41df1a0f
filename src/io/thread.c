/* Threads, locks and conditions over POSIX threads; see thread.h.
 *
 * Invariants:
 *   1. A lock operation that fails is a mistake of ours (wrong owner, destroyed lock): a failed check.
 *   2. Conditions count monotonic time, so a jump of the wall clock neither cuts nor stretches a wait.
 *   3. Every signal is blocked in started threads but those of faults of our own; the main thread gets
 *      the signals that the system sends to the process. */
#include "io/thread.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/time.h"
#include "io/io_real.h"

struct io_thread {
    struct io *io;
    pthread_t system;
    void (*run)(void *context);
    void *context;
    char name[16];
};

void io_mutex_init(struct io_mutex *mutex) { check(pthread_mutex_init(&mutex->system, NULL) == 0); }

void io_mutex_done(struct io_mutex *mutex) { check(pthread_mutex_destroy(&mutex->system) == 0); }

void io_mutex_lock(struct io_mutex *mutex) { check(pthread_mutex_lock(&mutex->system) == 0); }

void io_mutex_unlock(struct io_mutex *mutex) { check(pthread_mutex_unlock(&mutex->system) == 0); }

void io_rwlock_init(struct io_rwlock *lock) { check(pthread_rwlock_init(&lock->system, NULL) == 0); }

void io_rwlock_done(struct io_rwlock *lock) { check(pthread_rwlock_destroy(&lock->system) == 0); }

void io_rwlock_read(struct io_rwlock *lock) { check(pthread_rwlock_rdlock(&lock->system) == 0); }

void io_rwlock_write(struct io_rwlock *lock) { check(pthread_rwlock_wrlock(&lock->system) == 0); }

void io_rwlock_unlock(struct io_rwlock *lock) { check(pthread_rwlock_unlock(&lock->system) == 0); }

void io_cond_init(struct io_cond *cond)
{
    pthread_condattr_t attributes;
    check(pthread_condattr_init(&attributes) == 0);
    check(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    check(pthread_cond_init(&cond->system, &attributes) == 0);
    check(pthread_condattr_destroy(&attributes) == 0);
}

void io_cond_done(struct io_cond *cond) { check(pthread_cond_destroy(&cond->system) == 0); }

void io_cond_wait(struct io_cond *cond, struct io_mutex *mutex)
{
    check(pthread_cond_wait(&cond->system, &mutex->system) == 0);
}

bool io_cond_wait_for(struct io_cond *cond, struct io_mutex *mutex, int64_t timeout_ns)
{
    if (timeout_ns <= 0)
        return false;
    struct timespec until;
    check(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    until.tv_sec += (time_t)(timeout_ns / NS_PER_SECOND);
    until.tv_nsec += (long)(timeout_ns % NS_PER_SECOND);
    if (until.tv_nsec >= NS_PER_SECOND) {
        until.tv_nsec -= NS_PER_SECOND;
        until.tv_sec++;
    }
    int result = pthread_cond_timedwait(&cond->system, &mutex->system, &until);
    check(result == 0 || result == ETIMEDOUT);
    return result == 0;
}

void io_cond_signal(struct io_cond *cond) { check(pthread_cond_signal(&cond->system) == 0); }

void io_cond_broadcast(struct io_cond *cond) { check(pthread_cond_broadcast(&cond->system) == 0); }

static void *thread_main(void *at)
{
    struct io_thread *thread = at;
    thread->run(thread->context);
    return NULL;
}

/* All but those that a fault of the thread itself raises. */
static sigset_t signals_of_process(void)
{
    sigset_t set;
    sigfillset(&set);
    static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS };
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        sigdelset(&set, own[i]);
    return set;
}

err io_thread_start(struct io *io, const char *name, void (*run)(void *context), void *context,
                    struct io_thread **out_thread)
{
    void *at = NULL;
    TRY(io_block_get(io, sizeof(struct io_thread), &at));
    struct io_thread *thread = at;
    *thread = (struct io_thread){ .io = io, .run = run, .context = context };
    strncpy(thread->name, name, sizeof thread->name - 1);

    /* A started thread inherits the mask, so it is set around the start and nothing is ever missed. */
    sigset_t blocked = signals_of_process();
    sigset_t before;
    check(pthread_sigmask(SIG_SETMASK, &blocked, &before) == 0);
    int result = pthread_create(&thread->system, NULL, thread_main, thread);
    check(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    if (result != 0) {
        io_block_put(io, thread);
        return ERR_LIMIT;
    }
    (void)pthread_setname_np(thread->system, thread->name); /* for people only */
    *out_thread = thread;
    return OK;
}

void io_thread_join(struct io_thread *thread)
{
    check(pthread_join(thread->system, NULL) == 0);
    io_block_put(thread->io, thread);
}
