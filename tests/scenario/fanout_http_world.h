/* Nodes with HTTP servers of their own on 127.0.0.1, which answer questions as they should or in ways that are
 * wrong on purpose, and who asks them. */
#ifndef TESTS_SCENARIO_FANOUT_HTTP_WORLD_H
#define TESTS_SCENARIO_FANOUT_HTTP_WORLD_H

#include "scenario/fanout_world.h"

#include <stdatomic.h>

#include "base/check.h"
#include "io/io.h"

#define NODES     3
#define PEERS_MAX 256
#define LIFE      4711

enum mode {
    MODE_REAL,
    MODE_PLAIN,  /* 200 without a proof */
    MODE_HANG,   /* until the asker is gone */
    MODE_SPOIL,  /* proven for this request, and then changed */
    MODE_RECORD, /* as that, unchanged, and kept */
    MODE_REPLAY, /* what was kept */
};

enum spoil { SPOIL_CUT, SPOIL_BREAK, SPOIL_FLIP, SPOIL_SWAP, SPOIL_DROP, SPOIL_LENGTH, SPOIL_KINDS };

struct node {
    _Atomic uint32_t slot;
    _Atomic uint64_t incarnation;
    _Atomic uint8_t cluster;
    _Atomic int mode; /* enum mode */
    struct source *source;
    struct pool *pool;
    struct fanout_answers *answers;
    struct net_server *server;
    uint16_t port;
    enum spoil spoil;
    size_t spoil_at;
    struct buf sent; /* of MODE_SPOIL */
    struct rpc_proof kept_proof;
    size_t frame_at[16], frame_count;
    struct rpc_sealer sealer;
    bool has_sent;
    _Atomic unsigned asked, hanging, canceled;
    bool notes_peers;                          /* one request comes after the other */
    char peers[PEERS_MAX][NET_PEER_BYTES_MAX]; /* different ones */
    _Atomic unsigned peer_count;
};

static struct io *io;
static struct node nodes[NODES];
static uint8_t own_cluster;

static inline struct slice secret(void) { return slice_str("a secret of the cluster"); }

static inline void wait_until(bool (*is_so)(void))
{
    for (unsigned i = 0; i < 60000; i++) {
        if (is_so())
            return;
        io_sleep_ns(io, NS_PER_MS);
    }
    fail_msg("it did not happen within a minute");
}

/* ---- a node ---- */

static inline void node_self(void *context, struct rpc_head *out_head)
{
    const struct node *node = context;
    out_head->slot = node->slot;
    out_head->incarnation = node->incarnation;
    memset(out_head->cluster_id, node->cluster, sizeof out_head->cluster_id);
}

static inline err put_frame(void *context, struct slice block)
{
    struct node *node = context;
    bool is_last = block.at[0] == WIRE_BLOCK_PROOF || block.at[0] == WIRE_BLOCK_ERROR;
    node->frame_at[node->frame_count++] = node->sent.len;
    rpc_frame_put(&node->sealer, block, is_last, &node->sent);
    return buf_err(&node->sent);
}

/* The whole answer to a request, as a node gives it. */
static inline void make_answer(struct node *node, struct net_request *q)
{
    struct guard guard = { .deadline_ns = INT64_MAX, .samples_max = UINT64_MAX };
    struct fanout_serve serve = { node->source, node->pool, &guard, put_frame, node };
    struct rpc_head head = { .t_ms = io_now_ms(io) };
    node_self(node, &head);
    rpc_stream_sign(secret(), net_request_header(q, RPC_CODE_NAME), 200, &head, &node->sealer,
                    &node->kept_proof);
    buf_clear(&node->sent);
    node->frame_count = 0;
    assert_ok(fanout_serve(&serve, q->body));
    node->frame_at[node->frame_count] = node->sent.len;
}

static inline void exchange_bytes(uint8_t *at, size_t first, size_t second, size_t end)
{
    static uint8_t copy[1u << 20];
    check(end - first <= sizeof copy);
    memcpy(copy, at + second, end - second);
    memcpy(copy + (end - second), at + first, second - first);
    memcpy(at + first, copy, end - first);
}

static inline void spoil(struct node *node)
{
    uint8_t *at = node->sent.at;
    size_t n = node->spoil_at;
    const size_t *frames = node->frame_at;
    switch (node->spoil) {
    case SPOIL_CUT:
    case SPOIL_BREAK:
        node->sent.len = n;
        break;
    case SPOIL_FLIP:
        at[n] ^= (uint8_t)(1u << n % 8);
        break;
    case SPOIL_SWAP:
        exchange_bytes(at, frames[n], frames[n + 1], frames[n + 2]);
        break;
    case SPOIL_DROP:
        memmove(at + frames[n], at + frames[n + 1], node->sent.len - frames[n + 1]);
        node->sent.len -= frames[n + 1] - frames[n];
        break;
    default: /* a length that is none */
        put_le32(at + frames[0], n % 2 == 0 ? UINT32_MAX : (uint32_t)n << 20);
    }
}

static inline err next_broken(void *context, struct buf *chunk)
{
    struct node *node = context;
    if (node->has_sent)
        return ERR_IO;
    node->has_sent = true;
    buf_put_slice(chunk, buf_slice(&node->sent));
    return buf_err(chunk);
}

static inline void send_made(struct node *node, struct net_response *r)
{
    r->content_type = "application/octet-stream";
    assert_ok(net_response_header(r, RPC_HEAD_NAME, node->kept_proof.head));
    assert_ok(net_response_header(r, RPC_CODE_NAME, node->kept_proof.code));
    node->has_sent = false;
    r->next_context = node;
    if (node->mode == MODE_SPOIL && node->spoil == SPOIL_BREAK)
        r->next = next_broken;
    else
        buf_put_slice(&r->body, buf_slice(&node->sent));
}

static inline void note_peer(struct node *node, const char *peer)
{
    unsigned count = atomic_load(&node->peer_count);
    for (unsigned i = 0; i < count; i++)
        if (strcmp(node->peers[i], peer) == 0)
            return;
    if (count < PEERS_MAX) {
        memcpy(node->peers[count], peer, NET_PEER_BYTES_MAX);
        atomic_store(&node->peer_count, count + 1);
    }
}

static inline void handle(void *context, struct net_request *q, struct net_response *r)
{
    struct node *node = context;
    atomic_fetch_add(&node->asked, 1);
    if (node->notes_peers)
        note_peer(node, q->peer);
    switch (atomic_load(&node->mode)) {
    case MODE_REAL:
        fanout_answers_handle(node->answers, q, r);
        return;
    case MODE_PLAIN:
        r->content_type = "application/octet-stream";
        buf_put_str(&r->body, "KANS, and no proof of anything");
        return;
    case MODE_HANG:
        atomic_fetch_add(&node->hanging, 1);
        while (!net_request_canceled(q))
            io_sleep_ns(io, NS_PER_MS);
        atomic_fetch_add(&node->canceled, 1);
        return;
    case MODE_SPOIL:
    case MODE_RECORD:
        make_answer(node, q);
        if (node->mode == MODE_SPOIL)
            spoil(node);
        send_made(node, r);
        return;
    default:
        send_made(node, r);
    }
}

static const struct net_route routes[] = {
    { NET_POST, FANOUT_HTTP_PATH, handle, FANOUT_REQUEST_BYTES_MAX, true, true },
};

static inline void node_start(struct node *node, uint32_t slot, struct source *source,
                              const struct fanout_answers_config *answers)
{
    *node = (struct node){ .slot = slot,
                           .incarnation = LIFE + slot,
                           .cluster = 7,
                           .source = source,
                           .pool = pool_open(NULL, "node", POOL_BYTES_UNLIMITED) };
    struct fanout_answers_config config = *answers;
    struct net_server_config server = net_server_config_default();
    struct err_at at = { 0 };
    node->sent = buf_open(node->pool, 64u << 20);
    config.secret = secret();
    config.source = source;
    config.self = node_self;
    config.context = node;
    assert_ok(fanout_answers_open(&config, io, node->pool, &node->answers));
    server.listen = "127.0.0.1:0";
    server.routes = routes;
    server.route_count = 1;
    server.context = node;
    if (net_server_open(io, node->pool, &server, &node->server, &at) != OK)
        fail_msg("open: %s", at.text);
    node->port = net_server_port(node->server);
}

static inline void node_stop(struct node *node)
{
    net_server_close(node->server, 10000);
    fanout_answers_close(node->answers);
    buf_close(&node->sent);
    pool_close(node->pool);
    node->server = NULL;
}

/* ---- who asks ---- */

static inline void asker_self(void *context, struct rpc_head *out_head)
{
    out_head->slot = 99;
    out_head->incarnation = 1;
    memset(out_head->cluster_id, own_cluster, sizeof out_head->cluster_id);
}

static inline bool asker_find(void *context, uint32_t node, struct fanout_http_node *out)
{
    if (node >= NODES || nodes[node].port == 0)
        return false;
    snprintf(out->address, sizeof out->address, "127.0.0.1:%u", nodes[node].port);
    out->slot = node;
    out->incarnation = LIFE + node;
    return true;
}

static inline struct fanout_http_config asker(void)
{
    return (struct fanout_http_config){ .secret = secret(), .self = asker_self, .find = asker_find };
}

struct asking {
    struct pool *pool;
    struct fanout_http *http;
    struct fanout_transport t;
};

static inline struct asking asking_open(const struct fanout_http_config *config)
{
    struct asking a = { .pool = pool_open(NULL, "asking", POOL_BYTES_UNLIMITED) };
    own_cluster = 7;
    assert_ok(fanout_http_open(config, io, a.pool, &a.http));
    fanout_http_transport(a.http, &a.t);
    return a;
}

static inline void asking_close(struct asking *a)
{
    fanout_http_close(a->http);
    pool_close(a->pool);
}

/* Ask, while nobody is free. */
static inline void *start(const struct asking *a, uint32_t node, struct slice request)
{
    void *call;
    err e;
    while ((e = a->t.start(a->t.context, node, request, &call)) == ERR_BUSY)
        io_sleep_ns(io, NS_PER_MS);
    assert_ok(e);
    return call;
}

/* Everything that comes, to the end or a failure: ERR_END is the good one. */
static inline err take(const struct asking *a, void *call, struct buf *out)
{
    struct slice bytes;
    for (;;) {
        err e = a->t.next(a->t.context, call, &bytes);
        if (e == OK)
            buf_put_slice(out, bytes);
        else if (e == ERR_BUSY)
            a->t.wait(a->t.context, &call, 1, 100 * NS_PER_MS);
        else
            return e;
        assert_ok(buf_err(out));
    }
}

static inline err ask(const struct asking *a, uint32_t node, struct slice request, struct buf *out)
{
    void *call = start(a, node, request);
    buf_clear(out);
    err e = take(a, call, out);
    a->t.close(a->t.context, call);
    return e;
}

static inline err keep_bytes(void *context, struct slice bytes)
{
    buf_put_slice(context, bytes);
    return buf_err(context);
}

/* What a source answers when nothing lies between. */
static inline struct slice answer_of(struct pool *pool, struct source *source, struct slice request)
{
    struct guard guard = { .deadline_ns = INT64_MAX, .samples_max = UINT64_MAX };
    struct buf bytes = buf_open(pool, 64u << 20);
    struct fanout_serve serve = { source, pool, &guard, keep_bytes, &bytes };
    assert_ok(fanout_serve(&serve, request));
    return buf_slice(&bytes);
}

static inline struct slice request_of(struct pool *pool, uint64_t left_ms)
{
    struct wire_selector selector = { .range = EVERYTHING };
    struct wire_request request = { .kind = WIRE_SAMPLES,
                                    .tenant = TENANT,
                                    .left_ms = left_ms,
                                    .series_max = UINT64_MAX,
                                    .samples_max = UINT64_MAX,
                                    .selectors = &selector,
                                    .selector_count = 1 };
    struct buf bytes = buf_open(pool, WIRE_REQUEST_BYTES_MAX);
    assert_ok(wire_request_encode(&request, &bytes));
    return buf_slice(&bytes);
}

#endif
