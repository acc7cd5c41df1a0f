/* The network between nodes: probes, calls of the fan-out, questions of sync. See whole.h.
 *
 * A probe is one message each way, which may be lost, come twice, and be overtaken. A call is a connection: its
 * request arrives or does not, what is answered comes in order or, when the way back is cut, not at all. Nobody
 * is told of a cut: who asks finds out by its own patience. A process that is not there refuses at once. What a
 * process answers itself is a call, too, whose work a fiber of the process does.
 *
 * Invariant: a call belongs to the world; it goes when neither the process that asked nor the fiber that answers
 * can touch it any more. */
#include "sim/whole.h"

#define PROBES_MS_MAX 60000 /* an overheard probe may be sent again */
#define ASK_MS        5000
#define WORK_MS       5 /* before a fiber has its turn */

static struct whole *world_of(const struct whole_process *p) { return p->node->whole; }

static int64_t delay_ms(struct whole *w, const struct whole_node *from)
{
    return 1 + from->slow_ms + (int64_t)whole_below(w, w->is_faulty ? 80 : 10);
}

/* Does a message get through? */
static bool passes(struct whole *w, const struct whole_node *from, uint32_t to)
{
    if (from->number == to)
        return true;
    return !from->cannot_reach[to] && (from->loss_one_in == 0 || !whole_chance(w, from->loss_one_in));
}

static bool is_life(const struct whole *w, uint32_t node, unsigned life)
{
    return w->nodes[node].process != NULL && w->nodes[node].life == life;
}

/* ---- probes ---- */

static void post(struct whole *w, struct whole_message message)
{
    const struct whole_node *from = &w->nodes[message.from];
    if (!passes(w, from, message.to) || w->message_count == MESSAGES_MAX) {
        whole_note(w, EVENT_PROBE_LOST, message.from, message.to);
        return;
    }
    bool is_twice = w->is_faulty && whole_chance(w, 50);
    for (int i = 0; i < 1 + is_twice && w->message_count < MESSAGES_MAX; i++) {
        message.at_ms = whole_now_ms() + delay_ms(w, from);
        if (i > 0 && whole_chance(w, 4))
            message.at_ms += (int64_t)whole_below(w, PROBES_MS_MAX);
        w->messages[w->message_count++] = message;
    }
    if (is_twice)
        whole_note(w, EVENT_PROBE_TWICE, message.from, message.to);
}

void net_probe(void *context, const struct agent_probe *probe)
{
    struct whole_process *p = context;
    struct whole *w = world_of(p);
    uint32_t to = (uint32_t)(probe->address[1] - '0');
    check(probe->address[0] == 'n' && to < w->node_count);
    whole_note(w, EVENT_PROBE, p->node->number, to);
    post(w, (struct whole_message){ .from = p->node->number,
                                    .to = to,
                                    .life = p->node->life,
                                    .sender = probe->self,
                                    .of = probe->of });
}

static void deliver(struct whole *w, const struct whole_message *m)
{
    struct whole_process *to = w->nodes[m->to].process;
    if (to == NULL || to->agent == NULL || to->has_ended || !to->is_ready)
        return;
    if (m->is_answer) {
        if (!is_life(w, m->to, m->life))
            return;
        whole_note(w, EVENT_PROBE_ANSWERED, m->to, m->from);
        agent_heard(to->agent, m->of);
    } else if (agent_asked(to->agent, m->sender, m->of)) {
        post(w, (struct whole_message){
                    .from = m->to, .to = m->from, .life = m->life, .is_answer = true, .of = m->of });
    }
}

static void deliver_due(struct whole *w)
{
    for (size_t i = 0; i < w->message_count;) {
        struct whole_message m = w->messages[i];
        bool waits = w->nodes[m.to].process != NULL && !node_is_alive(&w->nodes[m.to]);
        if (m.at_ms > whole_now_ms() || waits) {
            i++;
            continue;
        }
        w->messages[i] = w->messages[--w->message_count];
        deliver(w, &m);
    }
}

/* ---- calls ---- */

struct chunk {
    struct chunk *next;
    int64_t due_ms;
    size_t len;
    uint8_t bytes[];
};

struct whole_call {
    struct whole_call *next;
    struct whole *world;
    uint32_t from, to;
    unsigned from_life, to_life;
    struct member_id of;              /* the life that is asked */
    void (*work)(void *work_context); /* of a call within a process, which has arrived when it begins */
    void *work_context;
    int64_t arrives_ms; /* INT64_MAX: never */
    int64_t breaks_ms;  /* then who asks hears that nobody is there; INT64_MAX: never */
    bool has_arrived, is_served, is_closed, is_cut;
    int64_t last_due_ms, heard_ns;
    struct chunk *first, **last, *held;
    struct guard guard; /* of who answers */
    size_t request_len;
    uint8_t request[];
};

static err write_block(void *context, struct slice bytes)
{
    struct whole_call *call = context;
    struct whole *w = call->world;
    struct whole_node *from = &w->nodes[call->to];
    if (call->is_closed || !is_life(w, call->from, call->from_life))
        return ERR_CANCELED;
    if (!passes(w, from, call->from))
        call->is_cut = true;
    if (call->is_cut)
        return OK; /* it lies in a socket */
    void *at = NULL;
    check(pool_block_resize(w->pool, &at, sizeof(struct chunk) + bytes.len) == OK);
    struct chunk *chunk = at;
    int64_t due_ms = whole_now_ms() + delay_ms(w, from);
    call->last_due_ms = due_ms > call->last_due_ms ? due_ms : call->last_due_ms;
    *chunk = (struct chunk){ .due_ms = call->last_due_ms, .len = bytes.len };
    memcpy(chunk->bytes, bytes.at, bytes.len);
    *call->last = chunk;
    call->last = &chunk->next;
    return OK;
}

/* In the group of who answers. */
static void serve(void *context)
{
    struct whole_call *call = context;
    struct whole_process *p = call->world->nodes[call->to].process;
    const struct fanout_serve serving = { .source = shards_source(p->shards),
                                          .pool = p->pool,
                                          .guard = &call->guard,
                                          .write = write_block,
                                          .context = call };
    p->busy_requests++;
    ERR_IGNORE(fanout_serve(&serving, slice_of(call->request, call->request_len)));
    p->busy_requests--;
    whole_note(call->world, EVENT_CALL_SERVED, call->to, call->from);
    call->is_served = true;
}

static void work(void *context)
{
    struct whole_call *call = context;
    struct whole_process *p = call->world->nodes[call->to].process;
    fiber_sleep((int64_t)whole_below(call->world, WORK_MS) * NS_PER_MS);
    call->work(call->work_context);
    p->busy_requests--;
    whole_note(call->world, EVENT_CALL_WITHIN, call->to, call->from);
    call->is_served = true;
}

static err call_within(void *context, void (*work_of)(void *work_context), void *work_context,
                       void **out_call)
{
    struct whole_process *p = context;
    struct whole *w = world_of(p);
    void *at = NULL;
    check(pool_block_resize(w->pool, &at, sizeof(struct whole_call)) == OK);
    struct whole_call *call = at;
    *call = (struct whole_call){ .next = w->calls,
                                 .world = w,
                                 .from = p->node->number,
                                 .to = p->node->number,
                                 .from_life = p->node->life,
                                 .to_life = p->node->life,
                                 .work = work_of,
                                 .work_context = work_context,
                                 .arrives_ms = INT64_MAX,
                                 .breaks_ms = INT64_MAX,
                                 .has_arrived = true };
    call->last = &call->first;
    w->calls = call;
    *out_call = call;
    p->busy_requests++;
    fiber_start(p->group, work, call);
    return OK;
}

static err call_start(void *context, uint32_t slot, struct slice request, void **out_call)
{
    struct whole_process *p = context;
    struct whole *w = world_of(p);
    struct route_node found;
    void *at = NULL;
    if (!routes_node(agent_routes(p->agent), slot, &found))
        return ERR_NOT_FOUND;
    uint32_t to = (uint32_t)(found.address[1] - '0');
    check(pool_block_resize(w->pool, &at, sizeof(struct whole_call) + request.len) == OK);
    struct whole_call *call = at;
    *call = (struct whole_call){ .next = w->calls,
                                 .world = w,
                                 .from = p->node->number,
                                 .to = to,
                                 .from_life = p->node->life,
                                 .of = found.id,
                                 .arrives_ms = INT64_MAX,
                                 .breaks_ms = INT64_MAX,
                                 .heard_ns = io_monotonic_ns(p->node->io),
                                 .request_len = request.len };
    call->last = &call->first;
    memcpy(call->request, request.at, request.len);
    if (passes(w, p->node, to))
        call->arrives_ms = whole_now_ms() + delay_ms(w, p->node);
    whole_note(w, call->arrives_ms == INT64_MAX ? EVENT_CALL_STUCK : EVENT_CALL, p->node->number, to);
    w->calls = call;
    *out_call = call;
    return OK;
}

static void free_held(struct whole *w, struct whole_call *call)
{
    pool_block_free(w->pool, call->held);
    call->held = NULL;
}

static err call_next(void *context, void *call_at, struct slice *out_bytes)
{
    struct whole_call *call = call_at;
    struct whole *w = call->world;
    struct chunk *chunk = call->first;
    free_held(w, call);
    if (chunk != NULL && chunk->due_ms <= whole_now_ms()) {
        call->first = chunk->next;
        if (call->first == NULL)
            call->last = &call->first;
        call->held = chunk;
        *out_bytes = slice_of(chunk->bytes, chunk->len);
        return OK;
    }
    if (chunk == NULL && call->is_served && !call->is_cut)
        return ERR_END;
    return whole_now_ms() >= call->breaks_ms ? ERR_IO : ERR_BUSY;
}

static void call_close(void *context, void *call_at)
{
    struct whole_call *call = call_at;
    call->is_closed = true;
    atomic_store(&call->guard.canceled, true);
}

static bool has_news(void *context)
{
    const struct whole_process *p = context;
    for (const struct whole_call *call = p->node->whole->calls; call != NULL; call = call->next)
        if (call->from == p->node->number && call->from_life == p->node->life && !call->is_closed &&
            ((call->first != NULL && call->first->due_ms <= whole_now_ms()) ||
             whole_now_ms() >= call->breaks_ms || (call->work != NULL && call->is_served)))
            return true;
    return false;
}

static void call_wait(void *context, void *const *calls, size_t count, int64_t timeout_ns)
{
    (void)fiber_wait(has_news, context, timeout_ns);
}

static int64_t call_now(void *context)
{
    return io_monotonic_ns(((struct whole_process *)context)->node->io);
}

/* Who answers says that it is at work, as long as its words come through. */
static int64_t call_heard(void *context, void *call_at)
{
    struct whole_call *call = call_at;
    const struct whole *w = call->world;
    bool is_at_work = call->has_arrived && !call->is_served && !call->is_cut &&
                      is_life(w, call->to, call->to_life) && node_is_alive(&w->nodes[call->to]) &&
                      !w->nodes[call->to].cannot_reach[call->from];
    if (is_at_work)
        call->heard_ns = call_now(context);
    return call->heard_ns;
}

void net_transport(struct whole_process *process, struct fanout_transport *out_transport)
{
    *out_transport = (struct fanout_transport){ process,   call_start, call_next,  call_close,
                                                call_wait, call_now,   call_heard, call_within };
}

/* The answering side: nobody is there, or not the life that is meant. */
static void refuse(struct whole *w, struct whole_call *call)
{
    call->has_arrived = true;
    if (passes(w, &w->nodes[call->to], call->from))
        call->breaks_ms = whole_now_ms() + delay_ms(w, &w->nodes[call->to]);
    whole_note(w, EVENT_CALL_BROKEN, call->from, call->to);
}

static void arrive(struct whole *w, struct whole_call *call)
{
    struct whole_node *node = &w->nodes[call->to];
    struct whole_process *p = node->process;
    struct agent_view view = { .self = { .slot = SLOT_NONE } };
    if (p != NULL && !node_is_alive(node))
        return; /* it lies in a socket */
    if (p != NULL && p->is_ready)
        agent_view(p->agent, &view);
    if (view.self.slot != call->of.slot || view.self.incarnation != call->of.incarnation)
        return refuse(w, call);
    call->has_arrived = true;
    call->to_life = node->life;
    call->guard = (struct guard){ .io = node->io,
                                  .deadline_ns = io_monotonic_ns(node->io) + 60 * NS_PER_SECOND,
                                  .samples_max = UINT64_MAX };
    fiber_start(p->group, serve, call);
}

static void call_free(struct whole *w, struct whole_call *call)
{
    free_held(w, call);
    while (call->first != NULL) {
        struct chunk *chunk = call->first;
        call->first = chunk->next;
        pool_block_free(w->pool, chunk);
    }
    pool_block_free(w->pool, call);
}

static void calls_pass(struct whole *w)
{
    for (struct whole_call **link = &w->calls; *link != NULL;) {
        struct whole_call *call = *link;
        bool is_asker_gone = call->is_closed || !is_life(w, call->from, call->from_life);
        if (!call->has_arrived && whole_now_ms() >= call->arrives_ms && !is_asker_gone)
            arrive(w, call);
        bool is_served = !call->has_arrived || call->is_served || call->to_life == 0 ||
                         !is_life(w, call->to, call->to_life);
        if (call->has_arrived && !call->is_served && call->to_life != 0 && is_served && !call->is_cut &&
            call->breaks_ms == INT64_MAX && passes(w, &w->nodes[call->to], call->from))
            call->breaks_ms = whole_now_ms() + delay_ms(w, &w->nodes[call->to]); /* its connection is reset */
        if (is_asker_gone && is_served) {
            *link = call->next;
            call_free(w, call);
            continue;
        }
        link = &call->next;
    }
}

void net_pass(struct whole *w)
{
    deliver_due(w);
    calls_pass(w);
}

void net_close(struct whole *w)
{
    while (w->calls != NULL) {
        struct whole_call *call = w->calls;
        w->calls = call->next;
        call_free(w, call);
    }
}

/* ---- sync's questions ---- */

err net_ask_sums(void *context, uint32_t slot, const struct sync_request *request,
                 struct shard_sums *out_sums)
{
    struct whole_process *p = context;
    struct whole *w = world_of(p);
    struct route_node found;
    struct agent_view view = { .self = { .slot = SLOT_NONE } };
    if (!routes_node(agent_routes(p->agent), slot, &found))
        return ERR_NOT_FOUND;
    struct whole_node *other = &w->nodes[found.address[1] - '0'];
    whole_note(w, EVENT_SUMS_ASKED, p->node->number, other->number);
    fiber_sleep(delay_ms(w, p->node) * NS_PER_MS);
    bool is_there = passes(w, p->node, other->number) && node_is_alive(other);
    if (is_there && other->process->is_ready)
        agent_view(other->process->agent, &view);
    if (is_there && view.self.slot == found.id.slot && view.self.incarnation == found.id.incarnation) {
        shards_partition_sums(other->process->shards, request->partition, request->first, request->count,
                              out_sums);
        fiber_sleep(delay_ms(w, other) * NS_PER_MS);
        if (passes(w, other, p->node->number))
            return OK;
    }
    whole_note(w, EVENT_SUMS_LOST, p->node->number, other->number);
    fiber_sleep((int64_t)whole_below(w, ASK_MS) * NS_PER_MS);
    return ERR_TIMEOUT;
}
