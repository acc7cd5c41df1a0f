/* See ask.h. A question lies on the stack of who asks, in a list under the agent's lock; the agent's thread
 * takes it out, answers it without the lock, and says that it is done.
 *
 * Invariant: who asks returns only when its question is in no list and nobody works on it. */
#include "agent/ask.h"

#include "agent/agent_inside.h"
#include "base/time.h"

#define WAIT_NS          (100 * NS_PER_MS)
#define STATE_BYTES_MAX  (64u << 20)
#define RECORD_BYTES_MAX 1024

enum question_state { QUESTION_WAITS, QUESTION_TAKEN, QUESTION_DONE };

struct agent_question {
    struct agent_question *next;
    enum question_state state;
    err result;
    struct slice record; /* to be appended; empty: a copy is wanted, into these: */
    struct buf *state_bytes;
    struct agent_copy *copy;
};

static void answer(struct agent *agent, struct agent_question *q, int64_t now_ns)
{
    if (q->record.len > 0) {
        q->result = agent_send_record(agent, q->record) ? OK : ERR_BUSY;
        return;
    }
    const struct members *members = core_members(agent->core);
    members_encode(members, q->state_bytes);
    q->result = buf_err(q->state_bytes);
    if (!core_self(agent->core, &q->copy->self))
        q->copy->self = (struct member_id){ .slot = SLOT_NONE };
    for (uint32_t i = 0; i < members_slot_count(members); i++)
        q->copy->is_silent[i] = core_is_silent(agent->core, now_ns, i);
}

void agent_answer_questions(struct agent *agent, int64_t now_ns)
{
    io_mutex_lock(&agent->lock);
    struct agent_question *q;
    while ((q = agent->questions) != NULL) {
        agent->questions = q->next;
        q->state = QUESTION_TAKEN;
        io_mutex_unlock(&agent->lock);
        answer(agent, q, now_ns);
        io_mutex_lock(&agent->lock);
        q->state = QUESTION_DONE;
        io_cond_broadcast(&agent->answered);
    }
    io_mutex_unlock(&agent->lock);
}

/* The lock is held. */
static void take_back(struct agent *agent, struct agent_question *q)
{
    struct agent_question **at = &agent->questions;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
}

static err ask(struct agent *agent, struct agent_question *q)
{
    int64_t end_ns = io_boottime_ns(agent->io) + AGENT_ASK_MS * NS_PER_MS;
    io_mutex_lock(&agent->lock);
    q->next = agent->questions;
    agent->questions = q;
    agent->is_woken = true;
    io_cond_signal(&agent->woken);
    while (q->state != QUESTION_DONE) {
        bool is_over = agent->view.has_ended || agent->is_closing;
        if (q->state == QUESTION_WAITS && (is_over || io_boottime_ns(agent->io) >= end_ns)) {
            take_back(agent, q);
            q->result = is_over ? ERR_CLOSED : ERR_TIMEOUT;
            break;
        }
        io_cond_wait_for(&agent->answered, &agent->lock, WAIT_NS);
    }
    io_mutex_unlock(&agent->lock);
    return q->result;
}

err agent_copy(struct agent *agent, struct pool *pool, struct agent_copy **out_copy)
{
    struct buf bytes = buf_open(pool, STATE_BYTES_MAX);
    void *room;
    TRY(pool_zalloc(pool, sizeof **out_copy, &room));
    struct agent_question q = { .state_bytes = &bytes, .copy = room };
    err e = ask(agent, &q);
    if (e == OK)
        e = members_decode(buf_slice(&bytes), pool, &q.copy->members);
    buf_close(&bytes);
    *out_copy = q.copy;
    return e;
}

err agent_append(struct agent *agent, const struct control_record *record, struct pool *pool)
{
    struct buf bytes = buf_open(pool, RECORD_BYTES_MAX);
    control_record_encode(record, &bytes);
    struct agent_question q = { .record = buf_slice(&bytes) };
    err e = buf_err(&bytes);
    if (e == OK)
        e = ask(agent, &q);
    buf_close(&bytes);
    return e;
}
