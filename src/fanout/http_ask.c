/* The transport over HTTP, on the side that asks. From: gather.c, on threads of queries. To: net/client on
 * threads of its own, one a call; of a call within this node such a thread does the work instead (own.c).
 *
 *   start ─ worker: request ─→ other node
 *   next ←─ ready ←─ worker: proven payloads ←─ frames ←─ body
 *
 * A worker has an HTTP client, so connections are kept with workers; who was used last is taken first, and its
 * connections are the freshest. A call is done by one worker from start to end, and belongs to two until both are
 * done with it: the worker is when its exchange is over, the asker when it closes.
 *
 * Invariants
 *  1. Nothing is ready that was not proven to come from the life that was asked, in answer to this request, in
 *     its place. ERR_END is told only behind a proven end.
 *  2. A worker waits while READY_BYTES_MAX are ready: memory of a call is bounded, however fast a node sends.
 *  3. The lock is not held during an exchange, nor while frames are checked.
 *  4. A call that is closed before its end has its exchange aborted, within a second; one whose end has come
 *     lets it end by itself, so that its connection is used again. */
#include "fanout/http.h"

#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"
#include "fanout/fanout.h"
#include "io/io.h"
#include "io/thread.h"

#include <stdatomic.h>
#include <stdio.h>

#define READY_BYTES_MAX (256u << 10)          /* before the worker waits; one frame may be larger */
#define EXCHANGE_MS_MAX (300 * MS_PER_SECOND) /* of a call that nobody closes */
#define NODE_SELF       UINT32_MAX            /* of calls within: counted as of one node */
#define URL_BYTES_MAX   (FANOUT_ADDRESS_BYTES_MAX + 64)

struct call {
    struct fanout_http *http;
    struct pool *pool; /* the starter's until the worker has it */
    uint32_t node;
    void (*work)(void *work_context); /* of a call within this node; NULL: it is an exchange */
    void *work_context;
    struct fanout_http_node of;
    struct slice request;
    _Atomic bool abort;
    /* the worker's */
    struct rpc_proof asked, answered;
    struct rpc_stream stream;
    bool has_stream;
    /* under the lock */
    struct buf ready, taken; /* what came; what the asker has of it */
    int64_t heard_ns;
    bool has_ended; /* everything has come */
    bool is_over;   /* the worker is done with it */
    bool is_closed; /* the asker is */
};

struct worker {
    struct worker *next_idle;
    struct fanout_http *http;
    struct pool *pool;
    struct net_client *client;
    struct io_thread *thread;
    struct io_cond has_call;
    struct call *call;
};

struct fanout_http {
    struct io *io;
    struct pool *pool;
    struct fanout_http_config config;
    struct io_mutex lock; /* all below and what of calls is under it; a leaf but for the start of a thread */
    struct io_cond news;  /* something came, a call is over */
    struct io_cond room;  /* something was taken, a call is closed */
    struct worker *workers; /* config.calls_max */
    unsigned worker_count;
    struct worker *idle;
    bool is_closing;
};

/* ---- what comes, on the worker's thread ---- */

static void on_header(void *context, struct slice name, struct slice value)
{
    struct call *call = context;
    rpc_proof_header(&call->answered, name, value);
}

/* The first bytes of the body: does it begin as the answer of the life that was asked? Only an answer 200 does. */
static err stream_begin(struct call *call)
{
    const struct fanout_http *http = call->http;
    struct rpc_head self = { .slot = RPC_SLOT_NONE }, head;
    TRY(rpc_stream_open(http->config.secret, slice_str(call->asked.code), 200, slice_str(call->answered.head),
                        slice_str(call->answered.code), call->pool, &head, &call->stream));
    call->has_stream = true;
    http->config.self(http->config.context, &self);
    bool is_it = head.slot == call->of.slot && head.incarnation == call->of.incarnation &&
                 memcmp(head.cluster_id, self.cluster_id, sizeof head.cluster_id) == 0;
    return is_it ? OK : ERR_DENIED;
}

/* Hand a payload to the asker, when it has room. ERR_CANCELED: it is gone. */
static err hand_on(struct call *call, const struct rpc_frame *frame)
{
    struct fanout_http *http = call->http;
    io_mutex_lock(&http->lock);
    while (call->ready.len > 0 && call->ready.len + frame->payload.len > READY_BYTES_MAX && !call->is_closed)
        io_cond_wait(&http->room, &http->lock);
    err e = call->is_closed ? ERR_CANCELED : OK;
    if (e == OK) {
        buf_put_slice(&call->ready, frame->payload);
        e = buf_err(&call->ready);
        call->heard_ns = io_monotonic_ns(http->io);
        call->has_ended = e == OK && frame->is_last;
        if (frame->payload.len > 0 || frame->is_last)
            io_cond_broadcast(&http->news);
    }
    io_mutex_unlock(&http->lock);
    return e;
}

static err on_body(void *context, struct slice part)
{
    struct call *call = context;
    struct rpc_frame frame;
    err e = call->has_stream ? OK : stream_begin(call);
    while (e == OK) {
        e = rpc_stream_next(&call->stream, &part, &frame);
        if (e == OK)
            e = hand_on(call, &frame);
    }
    return e == ERR_END ? OK : e;
}

/* ---- one exchange ---- */

static void sign(struct call *call)
{
    const struct fanout_http *http = call->http;
    const struct rpc_request asked = { "POST", slice_str(FANOUT_HTTP_PATH), call->request };
    struct rpc_head head = { .slot = RPC_SLOT_NONE };
    http->config.self(http->config.context, &head);
    head.t_ms = io_now_ms(http->io);
    io_random(http->io, head.nonce, sizeof head.nonce);
    rpc_request_sign(http->config.secret, &asked, &head, &call->asked);
}

static err exchange(struct worker *worker, struct call *call)
{
    const struct fanout_http_config *config = &worker->http->config;
    char url[URL_BYTES_MAX], head[sizeof RPC_HEAD_NAME + RPC_HEAD_TEXT_BYTES + 2],
        code[sizeof RPC_CODE_NAME + SHA256_HEX_BYTES + 2];
    const char *const headers[] = { head, code, "Content-Type: application/octet-stream" };
    struct buf none = buf_open(call->pool, 0);
    struct net_client_response response;
    sign(call);
    snprintf(url, sizeof url, "%s://%s%s", config->is_tls ? "https" : "http", call->of.address,
             FANOUT_HTTP_PATH);
    snprintf(head, sizeof head, "%s: %s", RPC_HEAD_NAME, call->asked.head);
    snprintf(code, sizeof code, "%s: %s", RPC_CODE_NAME, call->asked.code);
    const struct net_client_request request = { .url = url,
                                                .headers = headers,
                                                .header_count = sizeof headers / sizeof *headers,
                                                .method = "POST",
                                                .body = call->request,
                                                .tls = config->tls,
                                                .timeout_ms = EXCHANGE_MS_MAX,
                                                .encoded_bytes_max =
                                                    SIZE_MAX, /* as it comes; room bounds it */
                                                .abort = &call->abort,
                                                .path_as_is = true,
                                                .on_header = on_header,
                                                .header_context = call,
                                                .on_body = on_body,
                                                .body_context = call };
    return net_client_do(worker->client, &request, &none, &response, NULL);
}

/* ---- workers ---- */

static void call_free(struct call *call)
{
    if (call->has_stream)
        rpc_stream_close(&call->stream);
    pool_close(call->pool);
}

static void work(struct worker *worker, struct call *call)
{
    struct fanout_http *http = worker->http;
    io_mutex_unlock(&http->lock);
    if (call->work != NULL)
        call->work(call->work_context);
    else
        ERR_IGNORE(exchange(worker, call)); /* has_ended tells what it was good for */
    io_mutex_lock(&http->lock);
    call->has_ended = call->has_ended || call->work != NULL;
    if (!call->has_ended)
        stat_add(STAT_FANOUT_CALLS_BROKEN, 1);
    call->is_over = true;
    worker->call = NULL;
    worker->next_idle = http->idle;
    http->idle = worker;
    io_cond_broadcast(&http->news);
    if (call->is_closed)
        call_free(call);
}

static void run(void *context)
{
    struct worker *worker = context;
    struct fanout_http *http = worker->http;
    io_mutex_lock(&http->lock);
    while (!http->is_closing || worker->call != NULL) {
        if (worker->call != NULL)
            work(worker, worker->call);
        else
            io_cond_wait(&worker->has_call, &http->lock);
    }
    io_mutex_unlock(&http->lock);
}

/* One more thread, for this call. */
static err add_worker(struct fanout_http *http, struct call *call)
{
    struct worker *worker = &http->workers[http->worker_count];
    struct pool *pool = pool_open(http->pool, "calls of a thread", POOL_BYTES_UNLIMITED);
    *worker = (struct worker){ .http = http, .pool = pool, .call = call };
    io_cond_init(&worker->has_call);
    err e = net_client_open(http->io, pool, &worker->client);
    if (e == OK)
        e = io_thread_start(http->io, "fanout-call", run, worker, &worker->thread);
    if (e == OK) {
        http->worker_count++;
        return OK;
    }
    net_client_close(worker->client);
    io_cond_done(&worker->has_call);
    pool_close(pool);
    return e;
}

/* Give a call to whoever is free. ERR_BUSY: nobody is, or its node has as many as it may have. */
static err assign(struct fanout_http *http, struct call *call)
{
    unsigned of_node = 0;
    for (unsigned i = 0; i < http->worker_count; i++)
        of_node += http->workers[i].call != NULL && http->workers[i].call->node == call->node;
    if (of_node >= http->config.calls_of_a_node_max)
        return ERR_BUSY;
    struct worker *worker = http->idle;
    if (worker == NULL)
        return http->worker_count < http->config.calls_max ? add_worker(http, call) : ERR_BUSY;
    http->idle = worker->next_idle;
    worker->call = call;
    io_cond_signal(&worker->has_call);
    return OK;
}

/* ---- the transport ---- */

static err call_open(struct fanout_http *http, uint32_t node, struct call **out_call)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(http->pool, "call of a node", sizeof(struct call), &pool, &at));
    struct call *call = at;
    call->http = http;
    call->pool = pool;
    call->node = node;
    call->ready = buf_open(pool, READY_BYTES_MAX + RPC_FRAME_BYTES_MAX);
    call->taken = buf_open(pool, READY_BYTES_MAX + RPC_FRAME_BYTES_MAX);
    call->heard_ns = io_monotonic_ns(http->io);
    *out_call = call;
    return OK;
}

/* The call is made, by whoever is free, or gone: e as it is so far. */
static err call_begin(struct call *call, err e, void **out_call)
{
    struct fanout_http *http = call->http;
    if (e == OK) {
        io_mutex_lock(&http->lock);
        e = assign(http, call);
        io_mutex_unlock(&http->lock);
    }
    if (e == OK)
        *out_call = call;
    else
        pool_close(call->pool);
    return e;
}

static err http_start(void *context, uint32_t node, struct slice request, void **out_call)
{
    struct fanout_http *http = context;
    struct call *call;
    TRY(call_open(http, node, &call));
    err e = http->config.find(http->config.context, node, &call->of) ? OK : ERR_NOT_FOUND;
    if (e == OK)
        e = pool_copy(call->pool, request, &call->request);
    TRY(call_begin(call, e, out_call));
    stat_add(STAT_FANOUT_CALLS, 1);
    return OK;
}

static err http_within(void *context, void (*work)(void *work_context), void *work_context, void **out_call)
{
    struct call *call;
    TRY(call_open(context, NODE_SELF, &call));
    call->work = work;
    call->work_context = work_context;
    TRY(call_begin(call, OK, out_call));
    stat_add(STAT_FANOUT_OWN, 1);
    return OK;
}

static err http_next(void *context, void *call_at, struct slice *out_bytes)
{
    struct fanout_http *http = context;
    struct call *call = call_at;
    err e = ERR_BUSY;
    io_mutex_lock(&http->lock);
    int64_t now_ns = io_monotonic_ns(http->io);
    if (call->ready.len > 0) {
        struct buf taken = call->ready;
        call->ready = call->taken;
        call->taken = taken;
        buf_clear(&call->ready);
        *out_bytes = buf_slice(&call->taken);
        call->heard_ns = now_ns; /* the worker may have waited for room, and not heard anything meanwhile */
        io_cond_broadcast(&http->room);
        e = OK;
    } else if (call->has_ended) {
        e = ERR_END;
    } else if (call->is_over) {
        e = ERR_IO;
    } else if (call->work == NULL && now_ns - call->heard_ns > http->config.quiet_ms_max * NS_PER_MS) {
        e = ERR_TIMEOUT;
    }
    io_mutex_unlock(&http->lock);
    return e;
}

static void http_close(void *context, void *call_at)
{
    struct fanout_http *http = context;
    struct call *call = call_at;
    io_mutex_lock(&http->lock);
    if (!call->has_ended)
        atomic_store(&call->abort, true);
    call->is_closed = true;
    bool is_over = call->is_over;
    io_cond_broadcast(&http->room);
    io_mutex_unlock(&http->lock);
    if (is_over)
        call_free(call);
}

static bool has_news(void *const *calls, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct call *call = calls[i];
        if (call->ready.len > 0 || call->has_ended || call->is_over)
            return true;
    }
    return false;
}

static void http_wait(void *context, void *const *calls, size_t count, int64_t timeout_ns)
{
    struct fanout_http *http = context;
    int64_t until_ns = io_monotonic_ns(http->io) + timeout_ns;
    io_mutex_lock(&http->lock);
    while (!has_news(calls, count)) {
        int64_t left_ns = until_ns - io_monotonic_ns(http->io);
        if (left_ns <= 0)
            break;
        io_cond_wait_for(&http->news, &http->lock, left_ns);
    }
    io_mutex_unlock(&http->lock);
}

static int64_t http_now(void *context) { return io_monotonic_ns(((struct fanout_http *)context)->io); }

static int64_t http_heard(void *context, void *call_at)
{
    struct fanout_http *http = context;
    const struct call *call = call_at;
    io_mutex_lock(&http->lock);
    int64_t heard_ns = call->work != NULL ? io_monotonic_ns(http->io) : call->heard_ns;
    io_mutex_unlock(&http->lock);
    return heard_ns;
}

void fanout_http_transport(struct fanout_http *http, struct fanout_transport *out_transport)
{
    *out_transport = (struct fanout_transport){ http,      http_start, http_next,  http_close,
                                                http_wait, http_now,   http_heard, http_within };
}

/* ---- open and close ---- */

static err http_fill(struct fanout_http *http, const struct fanout_http_config *config)
{
    struct fanout_http_config *own = &http->config;
    void *at;
    *own = *config;
    own->calls_max = config->calls_max != 0 ? config->calls_max : FANOUT_CALLS_MAX;
    own->calls_of_a_node_max =
        config->calls_of_a_node_max != 0 ? config->calls_of_a_node_max : FANOUT_CALLS_OF_A_NODE_MAX;
    own->quiet_ms_max = config->quiet_ms_max != 0 ? config->quiet_ms_max : FANOUT_QUIET_MS;
    TRY(pool_copy(http->pool, config->secret, &own->secret));
    TRY(pool_zalloc(http->pool, own->calls_max * sizeof *http->workers, &at));
    http->workers = at;
    return OK;
}

err fanout_http_open(const struct fanout_http_config *config, struct io *io, struct pool *parent,
                     struct fanout_http **out_http)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(parent, "calls of nodes", sizeof(struct fanout_http), &pool, &at));
    struct fanout_http *http = at;
    http->io = io;
    http->pool = pool;
    err e = http_fill(http, config);
    if (e != OK) {
        pool_close(pool);
        return e;
    }
    io_mutex_init(&http->lock);
    io_cond_init(&http->news);
    io_cond_init(&http->room);
    *out_http = http;
    return OK;
}

void fanout_http_close(struct fanout_http *http)
{
    if (http == NULL)
        return;
    io_mutex_lock(&http->lock);
    http->is_closing = true;
    for (unsigned i = 0; i < http->worker_count; i++) {
        struct worker *worker = &http->workers[i];
        check(worker->call == NULL || worker->call->is_closed);
        if (worker->call != NULL)
            atomic_store(&worker->call->abort, true);
        io_cond_signal(&worker->has_call);
    }
    io_mutex_unlock(&http->lock);
    for (unsigned i = 0; i < http->worker_count; i++) {
        io_thread_join(http->workers[i].thread);
        net_client_close(http->workers[i].client);
        io_cond_done(&http->workers[i].has_call);
        pool_close(http->workers[i].pool);
    }
    io_cond_done(&http->room);
    io_cond_done(&http->news);
    io_mutex_done(&http->lock);
    explicit_bzero((void *)(uintptr_t)http->config.secret.at, http->config.secret.len);
    pool_close(http->pool);
}
