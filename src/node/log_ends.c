/* See log_ends.h.
 *
 * A partition has at most one marker on its way. Whoever asks hands over those that it wants and that are not on
 * their way, and waits until enough is known; a strong question takes what began after it, a plain one what began
 * shortly before. A marker that the log refuses is handed over again by whoever asks next.
 *
 * Nobody but who asks sends anything: markers end with the questions. While questions come, those of plain
 * ones are renewed before they are too old, so that only the first of them waits.
 *
 * Invariants (under the lock)
 *   1. Whatever was acknowledged before marker m was handed over lies below m.offset once m is known.
 *   2. m.covers of a marker on its way is the number of questions that were asked before it was handed over. */
#include "node/log_ends.h"

#include "base/time.h"
#include "io/thread.h"
#include "model/token.h"

#define LOOK_NS   (20 * NS_PER_MS)  /* between two looks at the guard */
#define PAUSE_NS  (50 * NS_PER_MS)  /* between two markers of a partition: each costs */
#define RESEND_NS (100 * NS_PER_MS) /* … of which the first was refused */
#define RENEW_NS  (LOG_ENDS_OLD_MS_MAX * NS_PER_MS / 2)
#define AWAIT_NS  (NS_PER_SECOND) /* a plain question waits so long for a partition that does not answer */

struct marker {
    struct log_append append;
    struct log_ends *ends;
    bool is_under_way;
    int64_t sent_ns; /* io_boottime_ns; INT64_MIN: never */
    uint64_t covers;
    int64_t trying_ns; /* since when none was answered well though they were asked for; INT64_MIN: one was */
    /* Of the newest one that was acknowledged: when it was handed over, behind which questions. */
    int64_t known_ns; /* INT64_MIN: none yet */
    uint64_t known_covers;
    uint64_t offset; /* where it lies */
};

struct log_ends {
    struct log *log;
    struct io *io;
    uint32_t partition_count, token_seed;
    struct io_mutex lock; /* all below; the log's own locks are never taken under it */
    struct io_cond changed;
    uint64_t asked;     /* questions */
    uint32_t under_way; /* markers */
    struct marker *markers;
};

err log_ends_open(struct log *log, uint32_t partition_count, uint32_t token_seed, struct io *io,
                  struct pool *pool, struct log_ends **out_ends)
{
    void *room;
    TRY(pool_zalloc(pool, sizeof(struct log_ends), &room));
    struct log_ends *ends = room;
    *ends = (struct log_ends){
        .log = log, .io = io, .partition_count = partition_count, .token_seed = token_seed
    };
    TRY(pool_zalloc(pool, partition_count * sizeof *ends->markers, &room));
    ends->markers = room;
    for (uint32_t p = 0; p < partition_count; p++)
        ends->markers[p] = (struct marker){
            .ends = ends, .sent_ns = INT64_MIN, .trying_ns = INT64_MIN, .known_ns = INT64_MIN
        };
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

static void on_done(struct log_append *append, err result, struct log_position position)
{
    struct marker *m = append->context;
    struct log_ends *ends = m->ends;
    io_mutex_lock(&ends->lock);
    m->is_under_way = false;
    if (result == OK) {
        m->known_ns = m->sent_ns;
        m->known_covers = m->covers;
        m->offset = position.offset;
        m->trying_ns = INT64_MIN;
    }
    if (--ends->under_way == 0)
        io_cond_broadcast(&ends->changed);
    io_mutex_unlock(&ends->lock);
}

/* Did that come to pass less than so long ago? */
static bool is_within(int64_t at_ns, int64_t now_ns, int64_t most_ns)
{
    return at_ns != INT64_MIN && now_ns - at_ns < most_ns;
}

static bool is_wanted(const struct marker *m, const struct log_question *q)
{
    return q->is_strong ? m->known_covers < q->number : !is_within(m->known_ns, q->asked_ns, RENEW_NS);
}

static bool is_enough(const struct marker *m, const struct log_question *q)
{
    return q->is_strong ? m->known_covers >= q->number
                        : is_within(m->known_ns, q->asked_ns, LOG_ENDS_OLD_MS_MAX * NS_PER_MS);
}

/* May it be handed over now? The log has answered the one before. */
static bool may_send(const struct marker *m, int64_t now_ns)
{
    bool was_refused = m->trying_ns != INT64_MIN;
    return !m->is_under_way && !is_within(m->sent_ns, now_ns, was_refused ? RESEND_NS : PAUSE_NS);
}

/* The lock is held, and given back for each append: its done may come from log_append itself. */
static void send_wanted(struct log_ends *ends, const struct log_question *q, int64_t now_ns)
{
    for (uint32_t p = 0; p < ends->partition_count; p++) {
        struct marker *m = &ends->markers[p];
        if (!is_wanted(m, q) || !may_send(m, now_ns))
            continue;
        if (m->trying_ns == INT64_MIN || !is_within(m->sent_ns, now_ns, LOG_ENDS_OLD_MS_MAX * NS_PER_MS))
            m->trying_ns = now_ns; /* what was tried before nobody asked says nothing */
        m->is_under_way = true;
        m->sent_ns = now_ns;
        m->covers = ends->asked;
        ends->under_way++;
        m->append = (struct log_append){
            .partition = p, .done = on_done, .context = m, .frees_space = true, .is_marker = true
        };
        io_mutex_unlock(&ends->lock);
        log_append(ends->log, &m->append);
        io_mutex_lock(&ends->lock);
    }
}

/* Is there something to wait for? A plain question does not wait for a partition that has been silent for long. */
static bool is_awaited(const struct log_ends *ends, const struct log_question *q, int64_t now_ns)
{
    int64_t most_ns = q->is_strong ? LOG_ENDS_MS_MAX * NS_PER_MS : AWAIT_NS;
    if (now_ns - q->asked_ns >= most_ns)
        return false;
    for (uint32_t p = 0; p < ends->partition_count; p++) {
        const struct marker *m = &ends->markers[p];
        if (!is_enough(m, q) && (q->is_strong || is_within(m->trying_ns, now_ns, AWAIT_NS)))
            return true;
    }
    return false;
}

void log_ends_begin(struct log_ends *ends, bool is_strong, struct log_question *out_question)
{
    io_mutex_lock(&ends->lock);
    *out_question = (struct log_question){ .number = ++ends->asked,
                                           .asked_ns = io_boottime_ns(ends->io),
                                           .is_strong = is_strong };
    io_mutex_unlock(&ends->lock);
}

/* The lock is held. Hand over what is wanted. True: there is nothing to wait for any more, the positions are
 * told. */
static bool look(struct log_ends *ends, const struct log_question *q, struct source_position *out_positions)
{
    int64_t now_ns = io_boottime_ns(ends->io);
    send_wanted(ends, q, now_ns);
    if (is_awaited(ends, q, now_ns))
        return false;
    for (uint32_t p = 0; p < ends->partition_count; p++) {
        const struct marker *m = &ends->markers[p];
        out_positions[p] =
            (struct source_position){ p, SOURCE_GENERATION_ANY, is_enough(m, q) ? m->offset : UINT64_MAX };
    }
    return true;
}

bool log_ends_look(struct log_ends *ends, const struct log_question *question,
                   struct source_position *out_positions)
{
    io_mutex_lock(&ends->lock);
    bool is_over = look(ends, question, out_positions);
    io_mutex_unlock(&ends->lock);
    return is_over;
}

static err await(struct log_ends *ends, const struct log_question *q, struct guard *guard,
                 struct source_position *out_positions)
{
    err e = OK;
    io_mutex_lock(&ends->lock);
    while (e == OK && !look(ends, q, out_positions)) {
        io_cond_wait_for(&ends->changed, &ends->lock, LOOK_NS);
        e = guard_check(guard);
    }
    io_mutex_unlock(&ends->lock);
    return e;
}

/* Where tokens name more than is known, they are right. */
static void raise_ends(struct source_position *positions, const uint64_t *ends, uint32_t count)
{
    for (uint32_t p = 0; p < count; p++)
        if (ends[p] > positions[p].offset)
            positions[p].offset = ends[p];
}

err log_ends_ask(void *context, const struct query_need *need, struct guard *guard, struct pool *pool,
                 struct source_position **out_positions, size_t *out_count, struct err_at *at)
{
    struct log_ends *ends = context;
    struct log_question question;
    void *room, *told;
    bool is_all = need->is_strong;
    *out_count = ends->partition_count;
    TRY(pool_alloc(pool, ends->partition_count * sizeof **out_positions, &room));
    *out_positions = room;
    TRY(pool_zalloc(pool, ends->partition_count * sizeof(uint64_t), &told));
    TRY(token_read(ends->token_seed, need->token, ends->partition_count, told, &is_all, at));
    log_ends_begin(ends, is_all, &question);
    TRY(await(ends, &question, guard, room));
    raise_ends(*out_positions, told, ends->partition_count);
    return OK;
}
