/* Threads of simulated processes: fibers of one real thread, run in an order drawn from the seed.
 *
 * While a scheduler is open, code that was written for threads runs as it is: io_thread_start makes a fiber of an
 * io that has a group (io_sim_run_threads), and whoever sleeps, waits on a condition, for a thread's end or for a
 * lock that is held lets others run. A fiber goes on until it does one of these: nothing interrupts it.
 *
 * Time is the scheduler's, and moves in fibers_pass only. What a fiber touches outside its process must not lie
 * half done when it waits: it may never go on. One scheduler at a time. */
#ifndef TESTS_FIBERS_H
#define TESTS_FIBERS_H

#include <stdbool.h>
#include <stdint.h>

struct fiber;
struct fiber_group; /* a process: it freezes and dies as a whole */

/* Same seed and same calls: same order, and same trace. */
void fibers_open(uint64_t seed);
/* Every group was killed. */
void fibers_close(void);

struct fiber_group *fiber_group_open(void);
/* None of its fibers runs ever again, and it is gone. Not called by one of them. What they hold stays as it is. */
void fiber_group_kill(struct fiber_group *group);
/* Stands still, or goes on: what was due meanwhile is due then. */
void fiber_group_freeze(struct fiber_group *group, bool is_frozen);

/* run(context) in a fiber of its own, from the next fibers_pass on. It is gone when it ends … */
void fiber_start(struct fiber_group *group, void (*run)(void *context), void *context);
/* … or when somebody has joined it. */
struct fiber *fiber_start_joinable(struct fiber_group *group, void (*run)(void *context), void *context);

/* Let time pass, ns ≥ 0, then run everything that can run. Not from a fiber. */
void fibers_pass(int64_t ns);
int64_t fibers_now_ns(void); /* from 0 on */

/* A hash of who ran when. */
uint64_t fibers_trace(void);

/* ---- from a fiber ---- */

bool fiber_runs(void); /* is the caller one? */
void fiber_sleep(int64_t ns);
/* Until is_ready(context), looked at in each fibers_pass; false: it was not for ns. is_ready must not wait. */
bool fiber_wait(bool (*is_ready)(void *context), void *context, int64_t ns);
/* Until somebody wakes the address; false: nobody did for ns, INT64_MAX: for ever. */
bool fiber_wait_at(const void *address, int64_t ns);
void fiber_join(struct fiber *fiber); /* until it has ended; once */

/* ---- from anywhere ---- */
void fiber_wake(const void *address, bool all);

#endif
