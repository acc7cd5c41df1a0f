/* See opener.h.
 *
 * Invariants: 1. A partition is worked on by one thread at a time, in and out of the table of functions. 2. What
 * was opened and is not wanted, or wanted under another number, or lost, is closed before anything else happens to
 * it. 3. The lock is not held during a call. 4. While something is due later, every thread that waits does so
 * until then at most: whichever is woken for something else may be busy with that for minutes. */
#include "agent/opener.h"

#include "base/check.h"
#include "base/diag.h"
#include "base/time.h"
#include "io/thread.h"

struct place {
    uint64_t wanted;   /* number of the opening; 0: none */
    uint64_t is_open;  /* the opening that is open; 0: none */
    bool is_busy;      /* a thread works on it */
    bool is_lost;      /* it has closed itself */
    int64_t opened_ns; /* is_open was opened then */
    int64_t retry_ns;  /* not before */
    int64_t waits_ns;  /* boot time when it was wanted first since it was open last; 0: it was not */
    unsigned failures; /* and losses */
};

struct opener {
    struct io *io;
    struct pool *pool;
    struct opener_config config;
    struct io_mutex lock; /* all below; a leaf */
    struct io_cond changed;
    struct place places[CLUSTER_PARTITIONS_MAX];
    bool is_closing;
    struct io_thread *threads[OPENER_THREADS];
};

static bool is_as_wanted(const struct place *place)
{
    return !place->is_busy && !place->is_lost && place->wanted == place->is_open;
}

/* The next partition that is wanted and not open. *out_wait_ns: until one of those that wait is due. */
static struct place *find_work(struct opener *opener, int64_t now_ns, int64_t *out_wait_ns)
{
    *out_wait_ns = INT64_MAX;
    for (uint32_t p = 0; p < CLUSTER_PARTITIONS_MAX; p++) {
        struct place *place = &opener->places[p];
        if (place->is_busy || is_as_wanted(place))
            continue;
        if (place->retry_ns <= now_ns)
            return place;
        if (place->retry_ns - now_ns < *out_wait_ns)
            *out_wait_ns = place->retry_ns - now_ns;
    }
    return NULL;
}

static int64_t retry_ms(unsigned failures)
{
    int64_t ms = (int64_t)OPENER_RETRY_MS << (failures < 5 ? failures : 5);
    return ms < OPENER_RETRY_MS_MAX ? ms : OPENER_RETRY_MS_MAX;
}

static void fail(struct opener *opener, uint32_t p, struct place *place, err e, const struct err_at *at)
{
    const int64_t ms = e == ERR_BUSY ? OPENER_BUSY_MS : retry_ms(place->failures++);
    place->retry_ns = io_monotonic_ns(opener->io) + ms * NS_PER_MS;
    io_cond_broadcast(&opener->changed);
    if (e != ERR_BUSY && !opener->is_closing)
        diag(DIAG_ERROR, "Cannot open a partition, retrying.", "partition=%u retry_ms=%lld error=\"%s: %s\"",
             p, (long long)ms, err_text(e), at->text);
}

/* Under the lock, which is given up during calls. */
static void work(struct opener *opener, struct place *place)
{
    uint32_t p = (uint32_t)(place - opener->places);
    uint64_t opening = place->wanted;
    struct err_at at = { 0 };
    bool was_open = place->is_open != 0;
    err e = OK;
    place->is_busy = true;
    place->is_lost = false;
    place->is_open = 0;
    io_mutex_unlock(&opener->lock);
    if (was_open)
        opener->config.close_partition(opener->config.context, p);
    if (opening != 0) {
        e = opener->config.open_partition(opener->config.context, p, &at);
        if (opener->config.ended != NULL && e != ERR_BUSY)
            opener->config.ended(opener->config.context, p, opening, e == OK);
    }
    io_mutex_lock(&opener->lock);
    place->is_busy = false;
    if (e == OK) {
        place->is_open = opening;
        place->waits_ns = 0;
        place->opened_ns = io_monotonic_ns(opener->io);
        place->retry_ns = 0;               /* failures are forgotten when it stays open */
    } else if (place->wanted == opening) { /* another one is tried at once */
        fail(opener, p, place, e, &at);
    }
}

static void run(void *context)
{
    struct opener *opener = context;
    io_mutex_lock(&opener->lock);
    while (!opener->is_closing) {
        int64_t wait_ns;
        struct place *place = find_work(opener, io_monotonic_ns(opener->io), &wait_ns);
        if (place != NULL)
            work(opener, place);
        else if (wait_ns == INT64_MAX)
            io_cond_wait(&opener->changed, &opener->lock);
        else
            io_cond_wait_for(&opener->changed, &opener->lock, wait_ns);
    }
    io_mutex_unlock(&opener->lock);
}

static void wait_from_now(const struct opener *opener, struct place *place)
{
    if (place->waits_ns == 0 && !is_as_wanted(place))
        place->waits_ns = io_boottime_ns(opener->io);
}

void opener_want(struct opener *opener, uint32_t partition, uint64_t opening)
{
    check(partition < CLUSTER_PARTITIONS_MAX && opening > 0);
    io_mutex_lock(&opener->lock);
    struct place *place = &opener->places[partition];
    place->wanted = opening;
    place->retry_ns = 0;
    place->failures = 0;
    wait_from_now(opener, place);
    io_cond_signal(&opener->changed);
    io_mutex_unlock(&opener->lock);
}

/* At once, on the caller's thread, unless it is being opened: then by who opens it. */
void opener_drop(struct opener *opener, uint32_t partition)
{
    check(partition < CLUSTER_PARTITIONS_MAX);
    struct place *place = &opener->places[partition];
    io_mutex_lock(&opener->lock);
    place->wanted = 0;
    place->retry_ns = 0;
    if (!place->is_busy && place->is_open != 0)
        work(opener, place);
    io_cond_signal(&opener->changed); /* it may be wanted again by now, and somebody waits for another */
    io_mutex_unlock(&opener->lock);
}

static bool holds(const struct place *place, uint64_t opening)
{
    return opening != 0 && place->is_open == opening && !place->is_busy && !place->is_lost;
}

bool opener_holds(struct opener *opener, uint32_t partition, uint64_t opening)
{
    check(partition < CLUSTER_PARTITIONS_MAX);
    io_mutex_lock(&opener->lock);
    bool is_held = holds(&opener->places[partition], opening);
    io_mutex_unlock(&opener->lock);
    return is_held;
}

void opener_lost(struct opener *opener, uint32_t partition, uint64_t opening)
{
    check(partition < CLUSTER_PARTITIONS_MAX);
    struct place *place = &opener->places[partition];
    io_mutex_lock(&opener->lock);
    bool is_held = holds(place, opening);
    if (is_held) {
        int64_t now_ns = io_monotonic_ns(opener->io);
        if (now_ns - place->opened_ns >= OPENER_STEADY_MS * NS_PER_MS)
            place->failures = 0;
        int64_t ms = place->failures == 0 ? 0 : retry_ms(place->failures - 1);
        place->failures++;
        place->is_lost = true;
        wait_from_now(opener, place);
        place->retry_ns = now_ns + ms * NS_PER_MS;
        diag(DIAG_WARN, "A partition has closed itself and is opened again.", "partition=%u in_ms=%lld",
             partition, (long long)ms);
        io_cond_broadcast(&opener->changed);
    }
    io_mutex_unlock(&opener->lock);
    if (is_held && opener->config.ended != NULL)
        opener->config.ended(opener->config.context, partition, opening, false);
}

int64_t opener_waits_since_ns(struct opener *opener)
{
    int64_t since_ns = INT64_MAX;
    io_mutex_lock(&opener->lock);
    for (uint32_t p = 0; p < CLUSTER_PARTITIONS_MAX; p++) {
        const struct place *place = &opener->places[p];
        if (place->wanted != 0 && place->waits_ns != 0 && place->waits_ns < since_ns)
            since_ns = place->waits_ns;
    }
    io_mutex_unlock(&opener->lock);
    return since_ns;
}

uint32_t opener_waiting(struct opener *opener)
{
    uint32_t count = 0;
    io_mutex_lock(&opener->lock);
    for (uint32_t p = 0; p < CLUSTER_PARTITIONS_MAX; p++)
        count += !is_as_wanted(&opener->places[p]);
    io_mutex_unlock(&opener->lock);
    return count;
}

err opener_open(const struct opener_config *config, struct io *io, struct pool *parent,
                struct opener **out_opener)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(parent, "opener", sizeof(struct opener), &pool, &at));
    struct opener *opener = at;
    opener->io = io;
    opener->pool = pool;
    opener->config = *config;
    io_mutex_init(&opener->lock);
    io_cond_init(&opener->changed);
    err e = OK;
    for (int i = 0; i < OPENER_THREADS && e == OK; i++)
        e = io_thread_start(io, "open", run, opener, &opener->threads[i]);
    if (e != OK) {
        opener_close(opener);
        return e;
    }
    *out_opener = opener;
    return OK;
}

void opener_close(struct opener *opener)
{
    if (opener == NULL)
        return;
    io_mutex_lock(&opener->lock);
    opener->is_closing = true;
    io_cond_broadcast(&opener->changed);
    io_mutex_unlock(&opener->lock);
    if (opener->config.abort != NULL)
        opener->config.abort(opener->config.context);
    for (int i = 0; i < OPENER_THREADS; i++)
        if (opener->threads[i] != NULL)
            io_thread_join(opener->threads[i]);
    io_cond_done(&opener->changed);
    io_mutex_done(&opener->lock);
    pool_close(opener->pool);
}
