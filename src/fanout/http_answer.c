/* Answering other nodes over HTTP. From: a route of the server, on threads of its connections. To: fanout_serve.
 *
 * A question is answered by a thread of its own, which hands block after block to the connection's thread; that
 * proves and sends them. While nothing is ready the latter says once a second that the answer is still being made,
 * and looks whether the asker is still there.
 *
 *   handle: proof, bounds ─→ thread: fanout_serve ─ write ─→ block ─ next: frame ─→ asker
 *                                                    done: cancel, join
 *
 * Invariants
 *  1. Nothing is done for who has not proven that it knows the secret.
 *  2. Of an answer one block is ready at most: a slow asker holds one block, and what the source needs.
 *  3. The last frame carries the last block of the answer, a proof or an error. Without one of them the
 *     connection is cut: an answer that is not whole never looks so.
 *  4. The thread ends before the request does: done cancels its guard and joins it. */
#include "fanout/http.h"

#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"
#include "fanout/fanout.h"
#include "fanout/wire.h"
#include "io/io.h"
#include "io/thread.h"

#include <stdatomic.h>

#define LOOK_NS  (20 * NS_PER_MS) /* between looks at asker and guard */
#define ALIVE_NS NS_PER_SECOND    /* without a block: then a frame says that one is being made */
#define LATE_NS  NS_PER_SECOND    /* behind the deadline, for the error that tells of it */

_Static_assert(FANOUT_REQUEST_BYTES_MAX == WIRE_REQUEST_BYTES_MAX, "a request is a body");
_Static_assert(WIRE_BLOCK_HEAD_BYTES + WIRE_BLOCK_BYTES_MAX <= RPC_FRAME_BYTES_MAX, "a block is a frame");
_Static_assert(RPC_FRAME_BYTES_MAX + RPC_FRAME_MORE <= NET_CHUNK_BYTES_MAX, "a frame is a chunk");

struct fanout_answers {
    struct io *io;
    struct pool *pool, *budget; /* budget: of all answers being made */
    struct fanout_answers_config config;
    _Atomic unsigned running;
    struct promql_runner runner; /* when there is one */
    _Atomic bool has_runner;
};

/* One answer being made. It lives in the request's pool. */
struct answering {
    struct fanout_answers *answers;
    struct net_request *request;
    struct pool *pool; /* of block: the making thread's */
    struct guard guard;
    struct rpc_sealer sealer; /* the connection's thread's */
    struct io_thread *thread;
    struct io_mutex lock; /* all below; a leaf */
    struct io_cond changed;
    struct buf block;
    bool has_block, is_last; /* block waits to be sent; nothing follows it */
    bool is_over;            /* the thread has nothing more to say */
};

/* ---- making it, on a thread of its own ---- */

/* May a block be waited with? Beyond the deadline as long as it takes to say that it has passed. */
static err still_wanted(const struct answering *a)
{
    if (atomic_load(&a->guard.canceled))
        return ERR_CANCELED;
    return io_monotonic_ns(a->answers->io) < a->guard.deadline_ns + LATE_NS ? OK : ERR_TIMEOUT;
}

/* As fanout_serve.write. */
static err hand_on(void *context, struct slice bytes)
{
    struct answering *a = context;
    err e = OK;
    io_mutex_lock(&a->lock);
    while (a->has_block && (e = still_wanted(a)) == OK)
        io_cond_wait_for(&a->changed, &a->lock, LOOK_NS);
    if (e == OK) {
        buf_clear(&a->block);
        buf_put_slice(&a->block, bytes);
        e = buf_err(&a->block);
        a->has_block = e == OK;
        a->is_last = e == OK && (bytes.at[0] == WIRE_BLOCK_PROOF || bytes.at[0] == WIRE_BLOCK_ERROR);
        io_cond_broadcast(&a->changed);
    }
    io_mutex_unlock(&a->lock);
    return e;
}

static void run(void *context)
{
    struct answering *a = context;
    const struct fanout_serve serve = { .source = a->answers->config.source,
                                        .pool = a->answers->budget,
                                        .guard = &a->guard,
                                        .write = hand_on,
                                        .context = a,
                                        .runner = atomic_load(&a->answers->has_runner) ? &a->answers->runner
                                                                                       : NULL };
    ERR_IGNORE(fanout_serve(&serve, a->request->body)); /* an answer that has no last block is cut */
    io_mutex_lock(&a->lock);
    a->is_over = true;
    io_cond_broadcast(&a->changed);
    io_mutex_unlock(&a->lock);
}

/* ---- sending it, on the connection's thread ---- */

/* Wait for a block, or the end without one; not much longer than ALIVE_NS. ERR_CANCELED: the asker is gone. */
static err wait_for_block(struct answering *a)
{
    struct io *io = a->answers->io;
    int64_t until_ns = io_monotonic_ns(io) + ALIVE_NS;
    while (!a->has_block && !a->is_over && io_monotonic_ns(io) < until_ns) {
        if (net_request_canceled(a->request))
            return ERR_CANCELED;
        io_cond_wait_for(&a->changed, &a->lock, LOOK_NS);
    }
    return OK;
}

/* As net_response.next. */
static err send_next(void *context, struct buf *chunk)
{
    struct answering *a = context;
    io_mutex_lock(&a->lock);
    err e = wait_for_block(a);
    if (e == OK && a->has_block) {
        rpc_frame_put(&a->sealer, buf_slice(&a->block), a->is_last, chunk);
        a->has_block = false;
        io_cond_broadcast(&a->changed);
        e = a->is_last ? ERR_END : OK;
    } else if (e == OK && a->is_over) {
        e = ERR_IO;
    } else if (e == OK) {
        rpc_frame_put(&a->sealer, slice_of("", 0), false, chunk);
    }
    io_mutex_unlock(&a->lock);
    return buf_err(chunk) != OK ? buf_err(chunk) : e;
}

static void parts_close(struct answering *a)
{
    io_cond_done(&a->changed);
    io_mutex_done(&a->lock);
    pool_close(a->pool);
}

/* End the thread, wherever it is. */
static void answering_end(struct answering *a)
{
    atomic_store(&a->guard.canceled, true);
    io_mutex_lock(&a->lock);
    io_cond_broadcast(&a->changed);
    io_mutex_unlock(&a->lock);
    io_thread_join(a->thread);
    parts_close(a);
}

/* As net_response.done. */
static void send_done(void *context)
{
    struct answering *a = context;
    answering_end(a);
    atomic_fetch_sub(&a->answers->running, 1);
}

/* ---- the handler ---- */

static struct rpc_head own_head(const struct fanout_answers *answers)
{
    struct rpc_head head = { .slot = RPC_SLOT_NONE };
    answers->config.self(answers->config.context, &head);
    head.t_ms = io_now_ms(answers->io);
    io_random(answers->io, head.nonce, sizeof head.nonce);
    return head;
}

static void say(struct net_response *response, unsigned status, const char *why)
{
    response->status = status;
    response->content_type = "text/plain";
    buf_clear(&response->body);
    buf_put_str(&response->body, why);
}

static err put_proof(struct net_response *response, const struct rpc_proof *proof)
{
    TRY(net_response_header(response, RPC_HEAD_NAME, proof->head));
    return net_response_header(response, RPC_CODE_NAME, proof->code);
}

/* Refuse who has proven itself, with a proof. */
static void refuse(const struct fanout_answers *answers, struct slice code, struct net_response *response,
                   unsigned status, const char *why)
{
    struct rpc_head head = own_head(answers);
    struct rpc_proof proof;
    say(response, status, why);
    rpc_answer_sign(answers->config.secret, code, status, buf_slice(&response->body), &head, &proof);
    if (put_proof(response, &proof) != OK)
        say(response, 503, "no memory for an answer");
}

static bool is_of_another(const struct rpc_head *a, const struct rpc_head *b)
{
    static const uint8_t none[RPC_CLUSTER_BYTES];
    return memcmp(a->cluster_id, b->cluster_id, sizeof none) != 0 &&
           memcmp(a->cluster_id, none, sizeof none) != 0 && memcmp(b->cluster_id, none, sizeof none) != 0;
}

/* Begin to answer; running counts it already. ERR_LIMIT: no memory, no thread. */
static err begin(struct fanout_answers *answers, struct slice code, struct net_request *request,
                 struct net_response *response)
{
    const struct fanout_answers_config *config = &answers->config;
    struct rpc_head head = own_head(answers);
    struct rpc_proof proof;
    void *at;
    TRY(pool_zalloc(request->pool, sizeof(struct answering), &at));
    struct answering *a = at;
    a->answers = answers;
    a->request = request;
    a->guard.io = answers->io;
    a->guard.deadline_ns = io_monotonic_ns(answers->io) + config->time_ms_max * NS_PER_MS;
    a->guard.samples_max = config->samples_max;
    a->pool = pool_open(answers->budget, "block for a node", POOL_BYTES_UNLIMITED);
    a->block = buf_open(a->pool, WIRE_BLOCK_HEAD_BYTES + WIRE_BLOCK_BYTES_MAX);
    io_mutex_init(&a->lock);
    io_cond_init(&a->changed);
    err e = io_thread_start(answers->io, "fanout-answer", run, a, &a->thread);
    if (e != OK) {
        parts_close(a);
        return e;
    }
    rpc_stream_sign(config->secret, code, response->status, &head, &a->sealer, &proof);
    e = put_proof(response, &proof);
    if (e != OK) {
        answering_end(a);
        return e;
    }
    response->content_type = "application/octet-stream";
    response->next = send_next;
    response->done = send_done;
    response->next_context = a;
    return OK;
}

void fanout_answers_handle(struct fanout_answers *answers, struct net_request *request,
                           struct net_response *response)
{
    const struct rpc_request asked = { "POST", request->target, request->body };
    struct slice code = net_request_header(request, RPC_CODE_NAME);
    struct rpc_head head, self = own_head(answers);
    err e = rpc_request_check(answers->config.secret, &asked, net_request_header(request, RPC_HEAD_NAME),
                              code, self.t_ms, &head);
    stat_add(STAT_FANOUT_ANSWERS, 1);
    if (e == ERR_VERSION)
        return say(response, 505, "a request of a newer version");
    if (e == ERR_DENIED)
        return say(response, 401, "this is for nodes that know the cluster's secret");
    if (e == ERR_TIMEOUT)
        return refuse(answers, code, response, 401, "the clocks of the two nodes differ by more than 30 s");
    if (is_of_another(&head, &self))
        return refuse(answers, code, response, 409, "this is a node of another cluster");
    bool is_free = atomic_fetch_add(&answers->running, 1) < answers->config.answers_max;
    if (is_free && begin(answers, code, request, response) == OK)
        return;
    atomic_fetch_sub(&answers->running, 1);
    refuse(answers, code, response, 503, "too many answers are being made, try later");
}

/* ---- open and close ---- */

err fanout_answers_open(const struct fanout_answers_config *config, struct io *io, struct pool *parent,
                        struct fanout_answers **out_answers)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(parent, "answers to nodes", sizeof(struct fanout_answers), &pool, &at));
    struct fanout_answers *answers = at;
    struct fanout_answers_config *own = &answers->config;
    answers->io = io;
    answers->pool = pool;
    answers->budget = parent;
    *own = *config;
    own->samples_max = config->samples_max != 0 ? config->samples_max : UINT64_MAX;
    own->answers_max = config->answers_max != 0 ? config->answers_max : FANOUT_ANSWERS_MAX;
    own->time_ms_max = config->time_ms_max != 0 ? config->time_ms_max : FANOUT_ANSWER_MS_MAX;
    err e = pool_copy(pool, config->secret, &own->secret);
    if (e != OK) {
        pool_close(pool);
        return e;
    }
    *out_answers = answers;
    return OK;
}

void fanout_answers_set_runner(struct fanout_answers *answers, const struct promql_runner *runner)
{
    check(!atomic_load(&answers->has_runner));
    answers->runner = *runner;
    atomic_store(&answers->has_runner, true);
}

void fanout_answers_close(struct fanout_answers *answers)
{
    if (answers == NULL)
        return;
    check(atomic_load(&answers->running) == 0);
    explicit_bzero((void *)(uintptr_t)answers->config.secret.at, answers->config.secret.len);
    pool_close(answers->pool);
}
