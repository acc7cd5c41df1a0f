/* See fibers.h. A fiber is a stack and what it waits for; the scheduler looks through all of them, from a place
 * that the seed draws, as often as one can run.
 *
 * Invariants: 1. A fiber runs only from fibers_pass, and returns there. 2. The stack of a fiber that ended or was
 * killed is used again by another, so that thousands of processes cost what a dozen do. 3. Nothing but the seed
 * and the calls decides who runs next. */
#undef _FORTIFY_SOURCE /* it takes a jump to another stack for a mistake */

#include "sim/fibers.h"

#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/pool.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

#define FIBERS_MAX  1024
#define STACK_BYTES ((size_t)1 << 20) /* of which the system gives what is touched */
#define GUARD_BYTES ((size_t)1 << 16)
#define ADDRESSES   1024 /* a power of two */

enum state { STATE_FREE, STATE_WAITING, STATE_RUNNING, STATE_ENDED };

/* Where it goes on. Apart from what is looked at in each pass. */
struct place {
    ucontext_t context; /* it begins here; under a sanitizer it goes on here, too, … */
    jmp_buf jump;       /* … else here, which saves two calls of the system */
    bool has_begun;
};

struct fiber {
    struct fiber_group *group;
    void (*run)(void *context);
    void *argument;
    uint8_t *stack; /* kept while free */
    uint64_t number;
    enum state state;
    bool is_woken, is_detached;
    int64_t until_ns;
    const void *address; /* NULL: none */
    bool (*is_ready)(void *context);
    void *ready_context;
    void *fake_stack; /* the address sanitizer's */
    void *tsan;
};

struct fiber_group {
    bool is_frozen, is_open;
};

static struct {
    bool is_open;
    uint64_t random, trace, numbers;
    int64_t now_ns;
    struct place pass; /* fibers_pass goes on there */
    struct place places[FIBERS_MAX];
    const void *stack; /* … and its stack, for the address sanitizer */
    size_t stack_bytes;
    void *fake_stack, *tsan;
    struct fiber *current;
    struct fiber fibers[FIBERS_MAX];
    size_t used;                 /* places that were ever taken */
    bool has_news;               /* since the last look somebody was woken, began or thawed */
    int64_t next_ns;             /* nobody's time comes before, as of that look */
    uint32_t asking[FIBERS_MAX]; /* those whose is_ready is to be asked */
    size_t asking_count;
    uint16_t waiting_at[ADDRESSES]; /* fibers that wait at an address, by its hash */
    struct fiber_group groups[FIBERS_MAX];
} s;

/* ---- switching ---- */

static struct place *place_of(const struct fiber *f) { return &s.places[f - s.fibers]; }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static void jump(struct place *from, struct place *to)
{
    check(swapcontext(&from->context, &to->context) == 0);
}
#else
static void jump(struct place *from, struct place *to)
{
    if (_setjmp(from->jump) != 0)
        return;
    if (to->has_begun)
        _longjmp(to->jump, 1);
    to->has_begun = true;
    check(setcontext(&to->context) == 0);
}
#endif

static void enter(struct fiber *f)
{
    s.current = f;
    f->state = STATE_RUNNING;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&s.fake_stack, f->stack + GUARD_BYTES, STACK_BYTES);
#endif
#ifdef __SANITIZE_THREAD__
    __tsan_switch_to_fiber(f->tsan, 0);
#endif
    jump(&s.pass, place_of(f));
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(s.fake_stack, NULL, NULL);
#endif
    s.current = NULL;
}

static void leave(struct fiber *f)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(f->state == STATE_ENDED ? NULL : &f->fake_stack, s.stack, s.stack_bytes);
#endif
#ifdef __SANITIZE_THREAD__
    __tsan_switch_to_fiber(s.tsan, 0);
#endif
    jump(place_of(f), &s.pass);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(f->fake_stack, &s.stack, &s.stack_bytes);
#endif
}

static void begin(void)
{
    struct fiber *f = s.current;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(NULL, &s.stack, &s.stack_bytes);
#endif
    f->run(f->argument);
    f->state = STATE_ENDED;
    fiber_wake(f, true);
    leave(f);
}

/* Every unlock asks whether somebody waits: mostly nobody does. */
static uint16_t *waiting_at(const void *address)
{
    return &s.waiting_at[hash_mix((uint64_t)(uintptr_t)address) & (ADDRESSES - 1)];
}

/* ---- places ---- */

static void free_fiber(struct fiber *f)
{
    check(f != s.current);
    if (f->state == STATE_WAITING && f->address != NULL)
        --*waiting_at(f->address);
#ifdef __SANITIZE_THREAD__
    __tsan_destroy_fiber(f->tsan);
#endif
    f->state = STATE_FREE;
    f->group = NULL;
}

static struct fiber *take_place(void)
{
    struct fiber *f = NULL;
    for (size_t i = 0; i < s.used && f == NULL; i++)
        if (s.fibers[i].state == STATE_FREE)
            f = &s.fibers[i];
    if (f == NULL) {
        check(s.used < FIBERS_MAX);
        f = &s.fibers[s.used++];
        f->stack = mmap(NULL, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        check(f->stack != MAP_FAILED && mprotect(f->stack, GUARD_BYTES, PROT_NONE) == 0);
    }
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(f->stack + GUARD_BYTES, STACK_BYTES);
#endif
    uint8_t *stack = f->stack;
    memset(f, 0, sizeof *f);
    f->stack = stack;
    return f;
}

static void prepare(struct place *place, uint8_t *stack)
{
    check(getcontext(&place->context) == 0);
    place->has_begun = false;
    place->context.uc_stack.ss_sp = stack;
    place->context.uc_stack.ss_size = STACK_BYTES;
    place->context.uc_link = NULL;
    makecontext(&place->context, begin, 0);
    place->context.uc_stack.ss_size = 0; /* or the address sanitizer clears its shadow at each switch */
}

struct fiber *fiber_start_joinable(struct fiber_group *group, void (*run)(void *context), void *context)
{
    check(s.is_open && group->is_open);
    struct fiber *f = take_place();
    f->group = group;
    f->run = run;
    f->argument = context;
    f->number = ++s.numbers;
    f->state = STATE_WAITING;
    f->until_ns = s.now_ns;
    s.has_news = true;
    prepare(place_of(f), f->stack + GUARD_BYTES);
#ifdef __SANITIZE_THREAD__
    f->tsan = __tsan_create_fiber(0);
#endif
    return f;
}

void fiber_start(struct fiber_group *group, void (*run)(void *context), void *context)
{
    fiber_start_joinable(group, run, context)->is_detached = true;
}

struct fiber_group *fiber_group_open(void)
{
    for (size_t i = 0; i < FIBERS_MAX; i++)
        if (!s.groups[i].is_open) {
            s.groups[i] = (struct fiber_group){ .is_open = true };
            return &s.groups[i];
        }
    check(!"too many groups");
    return NULL;
}

void fiber_group_kill(struct fiber_group *group)
{
    for (size_t i = 0; i < s.used; i++)
        if (s.fibers[i].state != STATE_FREE && s.fibers[i].group == group)
            free_fiber(&s.fibers[i]);
    group->is_open = false;
    s.has_news = true; /* what was noted of them is over */
}

void fiber_group_freeze(struct fiber_group *group, bool is_frozen)
{
    group->is_frozen = is_frozen;
    s.has_news = true;
}

/* ---- time ---- */

static bool can_run(struct fiber *f)
{
    if (f->state != STATE_WAITING || f->group->is_frozen)
        return false;
    if (f->is_woken || f->until_ns <= s.now_ns)
        return true;
    f->is_woken = f->is_ready != NULL && f->is_ready(f->ready_context);
    return f->is_woken;
}

/* Nothing can have changed but the time and what is_ready tells. */
static bool is_idle(void)
{
    bool is_idle = !s.has_news && s.now_ns < s.next_ns;
    for (size_t i = 0; i < s.asking_count && is_idle; i++)
        is_idle = !can_run(&s.fibers[s.asking[i]]);
    return is_idle;
}

/* Run whoever can, from a place that is drawn on. False: nobody could; what is waited for is noted. */
static bool run_all(void)
{
    bool any = false;
    s.random += UINT64_C(0x9e3779b97f4a7c15);
    size_t first = s.used > 0 ? (size_t)(hash_mix(s.random) % s.used) : 0;
    s.next_ns = INT64_MAX;
    s.asking_count = 0;
    for (size_t i = 0, count = s.used; i < count; i++) {
        struct fiber *f = &s.fibers[first + i < count ? first + i : first + i - count];
        if (f->state != STATE_WAITING)
            continue;
        if (!can_run(f)) {
            s.next_ns = f->until_ns < s.next_ns && !f->group->is_frozen ? f->until_ns : s.next_ns;
            if (f->is_ready != NULL)
                s.asking[s.asking_count++] = (uint32_t)(f - s.fibers);
            continue;
        }
        s.trace = hash_mix(s.trace ^ hash_mix(f->number ^ hash_mix((uint64_t)s.now_ns)));
        enter(f);
        if (f->state == STATE_ENDED && f->is_detached)
            free_fiber(f);
        any = true;
    }
    return any;
}

void fibers_pass(int64_t ns)
{
    check(s.is_open && s.current == NULL && ns >= 0);
    s.now_ns += ns;
    while (!is_idle()) {
        s.has_news = false;
        s.has_news = run_all() || s.has_news;
    }
}

int64_t fibers_now_ns(void) { return s.now_ns; }
uint64_t fibers_trace(void) { return s.trace; }

/* ---- waiting ---- */

bool fiber_runs(void) { return s.current != NULL; }

/* What it waits for is set. */
static bool wait(struct fiber *f, int64_t ns)
{
    f->until_ns = ns > INT64_MAX - s.now_ns ? INT64_MAX : s.now_ns + (ns > 0 ? ns : 1);
    f->is_woken = false;
    f->state = STATE_WAITING;
    if (f->address != NULL)
        ++*waiting_at(f->address);
    leave(f);
    if (f->address != NULL)
        --*waiting_at(f->address);
    f->address = NULL;
    f->is_ready = NULL;
    return f->is_woken;
}

void fiber_sleep(int64_t ns)
{
    check(s.current != NULL);
    (void)wait(s.current, ns);
}

bool fiber_wait(bool (*is_ready)(void *context), void *context, int64_t ns)
{
    check(s.current != NULL);
    s.current->is_ready = is_ready;
    s.current->ready_context = context;
    return wait(s.current, ns);
}

bool fiber_wait_at(const void *address, int64_t ns)
{
    check(s.current != NULL && address != NULL);
    s.current->address = address;
    return wait(s.current, ns);
}

void fiber_wake(const void *address, bool all)
{
    if (*waiting_at(address) == 0)
        return;
    for (size_t i = 0; i < s.used; i++) {
        struct fiber *f = &s.fibers[i];
        if (f->state != STATE_WAITING || f->address != address || f->is_woken)
            continue;
        f->is_woken = s.has_news = true;
        if (!all)
            return;
    }
}

void fiber_join(struct fiber *fiber)
{
    while (fiber->state != STATE_ENDED)
        (void)fiber_wait_at(fiber, INT64_MAX);
    free_fiber(fiber);
}

/* ---- the scheduler ---- */

void fibers_open(uint64_t seed)
{
    check(!s.is_open);
    s.is_open = s.pass.has_begun = true;
    s.random = hash_mix(seed ^ 0xf1be5);
    s.trace = seed;
    s.now_ns = 0;
    s.numbers = 0;
    s.has_news = true;
    s.asking_count = 0;
    memset(s.waiting_at, 0, sizeof s.waiting_at);
#ifdef __SANITIZE_THREAD__
    s.tsan = __tsan_get_current_fiber();
#endif
}

void fibers_close(void)
{
    check(s.is_open && s.current == NULL);
    for (size_t i = 0; i < s.used; i++) {
        check(s.fibers[i].state == STATE_FREE);
        check(munmap(s.fibers[i].stack, STACK_BYTES + GUARD_BYTES) == 0);
    }
    s.used = 0;
    s.is_open = false;
}
