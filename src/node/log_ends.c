/* See log_ends.h.
 *
 * Rounds: a round begins with a marker handed over for each partition and ends when all are known, or is given up.
 * A marker that the log refuses is handed over again. Whoever asks waits for a round that begins after it
 * asked: the next one, if one is under way. A marker that is on its way when its round is given up stays the
 * log's until it is answered; it tells later rounds nothing.
 *
 * Invariants (under the lock)
 *   1. At most one round is under way; `begun` counts those that began, `ended` those that ended: begun −
 *   ended ≤ 1.
 *   2. offsets[] are of the last round that ended. */
#include "node/log_ends.h"

#include "base/time.h"
#include "io/thread.h"

#define LOOK_NS   (20 * NS_PER_MS) /* between two looks at the guard */
#define PAUSE_NS  (50 * NS_PER_MS) /* between the beginnings of two rounds: a marker in each partition costs */
#define RESEND_NS (100 * NS_PER_MS) /* between two tries of what was refused */

struct marker {
    struct log_append append;
    struct log_ends *ends;
    bool is_under_way;
    uint64_t round;       /* whose it is */
    uint64_t known_round; /* the last one that knows the end: */
    uint64_t offset;
};

struct log_ends {
    struct log *log;
    struct io *io;
    uint32_t partition_count;
    struct io_mutex lock; /* all below; the log's own locks are never taken under it */
    struct io_cond changed;
    uint64_t begun, ended;
    uint32_t left; /* partitions whose end the round does not know yet */
    int64_t resend_ns, give_up_ns, next_ns;
    struct marker *markers;
    uint64_t *offsets; /* UINT64_MAX: not known */
};

err log_ends_open(struct log *log, uint32_t partition_count, struct io *io, struct pool *pool,
                  struct log_ends **out_ends)
{
    void *room;
    TRY(pool_zalloc(pool, sizeof(struct log_ends), &room));
    struct log_ends *ends = room;
    *ends =
        (struct log_ends){ .log = log, .io = io, .partition_count = partition_count, .next_ns = INT64_MIN };
    TRY(pool_zalloc(pool, partition_count * sizeof *ends->markers, &room));
    ends->markers = room;
    TRY(pool_zalloc(pool, partition_count * sizeof *ends->offsets, &room));
    ends->offsets = room;
    io_mutex_init(&ends->lock);
    io_cond_init(&ends->changed);
    *out_ends = ends;
    return OK;
}

void log_ends_close(struct log_ends *ends)
{
    if (ends == NULL)
        return;
    io_cond_done(&ends->changed);
    io_mutex_done(&ends->lock);
}

/* The lock is held. */
static void end_round(struct log_ends *ends)
{
    for (uint32_t p = 0; p < ends->partition_count; p++) {
        const struct marker *m = &ends->markers[p];
        ends->offsets[p] = m->known_round == ends->begun ? m->offset : UINT64_MAX;
    }
    ends->ended = ends->begun;
    io_cond_broadcast(&ends->changed);
}

static void on_done(struct log_append *append, err result, struct log_position position)
{
    struct marker *m = append->context;
    struct log_ends *ends = m->ends;
    io_mutex_lock(&ends->lock);
    m->is_under_way = false;
    if (result == OK && m->round == ends->begun && ends->ended < ends->begun) {
        m->known_round = m->round;
        m->offset = position.offset;
        if (--ends->left == 0)
            end_round(ends);
    }
    io_mutex_unlock(&ends->lock);
}

/* The lock is held, and given back for each append: its done may come from log_append itself. Only who began
 * the round or waits for it comes here; of two at a time each hands over what the other has not. */
static void send_missing(struct log_ends *ends)
{
    uint64_t round = ends->begun;
    ends->resend_ns = io_monotonic_ns(ends->io) + RESEND_NS;
    for (uint32_t p = 0; p < ends->partition_count && ends->ended < round; p++) {
        struct marker *m = &ends->markers[p];
        if (m->is_under_way || m->known_round == round)
            continue;
        m->ends = ends;
        m->is_under_way = true;
        m->round = round;
        m->append = (struct log_append){
            .partition = p, .done = on_done, .context = m, .frees_space = true, .is_marker = true
        };
        io_mutex_unlock(&ends->lock);
        log_append(ends->log, &m->append);
        io_mutex_lock(&ends->lock);
    }
}

static void begin_round(struct log_ends *ends)
{
    ends->begun++;
    ends->left = ends->partition_count;
    int64_t now_ns = io_monotonic_ns(ends->io);
    ends->give_up_ns = now_ns + LOG_ENDS_MS_MAX * NS_PER_MS;
    ends->next_ns = now_ns + PAUSE_NS;
    send_missing(ends);
}

/* The lock is held. Be there when a round that begins from now on has ended. */
static err await_round(struct log_ends *ends, struct guard *guard)
{
    uint64_t mine = ends->begun + 1;
    while (ends->ended < mine) {
        int64_t now_ns = io_monotonic_ns(ends->io);
        bool is_under_way = ends->begun != ends->ended;
        if (!is_under_way && now_ns >= ends->next_ns)
            begin_round(ends);
        else if (is_under_way && now_ns >= ends->give_up_ns)
            end_round(ends);
        else if (is_under_way && now_ns >= ends->resend_ns)
            send_missing(ends);
        else {
            io_cond_wait_for(&ends->changed, &ends->lock, LOOK_NS);
            TRY(guard_check(guard));
        }
    }
    return OK;
}

err log_ends_ask(void *context, struct guard *guard, struct pool *pool,
                 struct source_position **out_positions, size_t *out_count)
{
    struct log_ends *ends = context;
    void *room;
    TRY(pool_alloc(pool, ends->partition_count * sizeof **out_positions, &room));
    struct source_position *positions = room;
    io_mutex_lock(&ends->lock);
    err e = await_round(ends, guard);
    for (uint32_t p = 0; e == OK && p < ends->partition_count; p++)
        positions[p] = (struct source_position){ p, SOURCE_GENERATION_ANY, ends->offsets[p] };
    io_mutex_unlock(&ends->lock);
    *out_positions = positions;
    *out_count = ends->partition_count;
    return e;
}
