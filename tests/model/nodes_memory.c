/* Nodes in one process behind the transport of fanout/fanout.h. An answer is made whole when a call begins;
 * what of it comes, and when, is the fault's business. Invariant: time moves in wait only, to what happens
 * next or by its limit, and with each piece of an endless answer. */
#include "model/nodes_memory.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/time.h"
#include "fanout/wire.h"

#define ANSWER_BYTES_MAX (256u << 20)

struct node_call {
    struct node_memory *node;
    struct pool *pool;
    struct buf bytes;
    size_t at, fault_at;
    size_t head_bytes, last_at; /* where its second block begins, and its last one */
    int64_t ready_ns, resume_ns;
    struct node_work work; /* of a call within; done when it is ready, or later when that is given up */
    bool is_within, is_done;
};

static err call_write(void *context, struct slice bytes)
{
    struct node_call *call = context;
    if (call->bytes.len == 0)
        call->head_bytes = bytes.len;
    call->last_at = call->bytes.len;
    buf_put_slice(&call->bytes, bytes);
    return buf_err(&call->bytes);
}

/* The same request without the first of its partitions. */
static err omit_first(struct pool *pool, struct slice *request)
{
    struct wire_request wire;
    uint64_t bits[FANOUT_PARTITION_MAX / 64] = { 0 };
    struct buf bytes = buf_open(pool, WIRE_REQUEST_BYTES_MAX);
    TRY(wire_request_decode(*request, pool, &wire, NULL));
    check(wire.partition_count > 0);
    memcpy(bits, wire.partitions, (wire.partition_count + 63) / 64 * sizeof *bits);
    size_t first = 0;
    while (bits[first] == 0)
        first++;
    bits[first] &= bits[first] - 1;
    wire.partitions = bits;
    TRY(wire_request_encode(&wire, &bytes));
    *request = buf_slice(&bytes);
    return OK;
}

static err make_newer(struct pool *pool, struct slice *request)
{
    TRY(pool_copy(pool, *request, request));
    if (request->at[5] == WIRE_GROUPS)
        ((uint8_t *)(uintptr_t)request->at)[4] = WIRE_VERSION + 1;
    return OK;
}

static err node_answer(struct node_call *call, struct slice request)
{
    if (call->node->fault == NODE_OLD)
        TRY(make_newer(call->pool, &request));
    if (call->node->fault == NODE_OMITS)
        TRY(omit_first(call->pool, &request));
    struct guard guard = { .deadline_ns = INT64_MAX, .samples_max = UINT64_MAX };
    struct fanout_serve serve = { .source = &call->node->source.source,
                                  .pool = call->pool,
                                  .guard = &guard,
                                  .write = call_write,
                                  .context = call };
    return fanout_serve(&serve, request);
}

static void spoil(struct node_call *call)
{
    call->fault_at = call->bytes.len == 0 ? 0 : call->node->fault_at % call->bytes.len;
    if (call->node->fault == NODE_LIES)
        call->bytes.at[call->fault_at] ^= 0x10;
    for (size_t i = call->fault_at; call->node->fault == NODE_RAMBLES && i < call->bytes.len; i++)
        call->bytes.at[i] = (uint8_t)(call->bytes.at[i] * 31 + i + 1);
}

static err nodes_start(void *context, uint32_t node, struct slice request, void **out_call)
{
    struct nodes_memory *nodes = context;
    struct pool *pool;
    void *at;
    check(node < nodes->node_count);
    nodes->nodes[node].asked++;
    if (nodes->nodes[node].fault == NODE_AWAY)
        return ERR_IO;
    TRY(pool_open_object(nodes->pool, "call", sizeof(struct node_call), &pool, &at));
    struct node_call *call = at;
    call->node = &nodes->nodes[node];
    call->pool = pool;
    call->bytes = buf_open(pool, ANSWER_BYTES_MAX);
    call->ready_ns = nodes->now_ns + call->node->delay_ns;
    call->resume_ns = nodes->now_ns + call->node->pause_ns;
    check(node_answer(call, request) == OK);
    spoil(call);
    nodes->open_calls++;
    *out_call = call;
    return OK;
}

/* How far the answer has come. */
static size_t call_end(const struct node_call *call, int64_t now_ns)
{
    switch (call->node->fault) {
    case NODE_BREAKS:
    case NODE_STOPS:
    case NODE_HANGS:
        return call->fault_at;
    case NODE_PAUSES:
        return now_ns < call->resume_ns ? call->fault_at : call->bytes.len;
    case NODE_ENDLESS:
        return call->last_at;
    default:
        return call->bytes.len;
    }
}

/* What the node's source does in answer to itself. */
static void fail_own(struct node_memory *node)
{
    bool is_read = node->fault == NODE_BREAKS || node->fault == NODE_LIES;
    bool is_select = node->fault == NODE_STOPS || node->fault == NODE_RAMBLES;
    node->source.select_error = is_select ? ERR_IO : OK;
    node->source.read_error = is_read ? ERR_IO : OK;
    node->source.read_errors = node->fault_at | UINT64_C(1) << node->fault_at % 64;
}

static err nodes_within(void *context, void (*work)(void *work_context), void *work_context, void **out_call)
{
    struct nodes_memory *nodes = context;
    struct node_memory *node = &nodes->nodes[nodes->own - 1];
    struct pool *pool;
    void *at;
    node->asked++;
    if (node->fault == NODE_AWAY)
        return ERR_BUSY;
    TRY(pool_open_object(nodes->pool, "call", sizeof(struct node_call), &pool, &at));
    struct node_call *call = at;
    *call = (struct node_call){ .node = node,
                                .pool = pool,
                                .ready_ns = nodes->now_ns + node->delay_ns,
                                .resume_ns = nodes->now_ns + node->pause_ns,
                                .work = { work, work_context },
                                .is_within = true };
    nodes->open_calls++;
    *out_call = call;
    return OK;
}

static err next_within(const struct nodes_memory *nodes, struct node_call *call)
{
    enum node_fault fault = call->node->fault;
    if (nodes->now_ns < call->ready_ns || fault == NODE_HANGS || fault == NODE_ENDLESS ||
        (fault == NODE_PAUSES && nodes->now_ns < call->resume_ns))
        return ERR_BUSY;
    if (!call->is_done) {
        fail_own(call->node);
        call->is_done = true;
        call->work.work(call->work.context);
    }
    return ERR_END;
}

static err nodes_next(void *context, void *call_at, struct slice *out_bytes)
{
    struct nodes_memory *nodes = context;
    struct node_call *call = call_at;
    enum node_fault fault = call->node->fault;
    if (call->is_within)
        return next_within(nodes, call);
    if (nodes->now_ns < call->ready_ns)
        return ERR_BUSY;
    size_t end = call_end(call, nodes->now_ns);
    if (fault == NODE_ENDLESS) {
        nodes->now_ns += NS_PER_MS;
        call->at = call->at == end ? call->head_bytes : call->at;
    }
    if (call->at >= end && fault == NODE_BREAKS)
        return ERR_IO;
    if (call->at >= end)
        return fault == NODE_HANGS || (fault == NODE_PAUSES && end < call->bytes.len) ? ERR_BUSY : ERR_END;
    size_t len = end - call->at < nodes->cut ? end - call->at : nodes->cut;
    *out_bytes = slice_of(call->bytes.at + call->at, len);
    call->at += len;
    nodes->sent_bytes += len;
    return OK;
}

static void nodes_close(void *context, void *call_at)
{
    struct nodes_memory *nodes = context;
    struct node_call *call = call_at;
    nodes->open_calls--;
    if (call->is_within && !call->is_done) {
        check(nodes->late_count < NODES_MEMORY_LATE_MAX);
        nodes->late[nodes->late_count++] = call->work;
    }
    pool_close(call->pool);
}

static void nodes_wait(void *context, void *const *calls, size_t count, int64_t timeout_ns)
{
    struct nodes_memory *nodes = context;
    int64_t until_ns = nodes->now_ns + (timeout_ns > 0 ? timeout_ns : 1);
    for (size_t i = 0; i < count; i++) {
        const struct node_call *call = calls[i];
        if (call->ready_ns > nodes->now_ns && call->ready_ns < until_ns)
            until_ns = call->ready_ns;
    }
    nodes->now_ns = until_ns;
}

static int64_t nodes_now(void *context) { return ((struct nodes_memory *)context)->now_ns; }

static int64_t nodes_heard(void *context, void *call_at)
{
    const struct node_call *call = call_at;
    return call->node->is_at_work ? ((struct nodes_memory *)context)->now_ns : 0;
}

static uint32_t nodes_route(void *context, uint32_t partition, uint32_t out_nodes[FANOUT_REPLICA_COUNT_MAX])
{
    const struct nodes_memory *nodes = context;
    for (uint32_t i = 0; i < nodes->replica_count; i++)
        out_nodes[i] =
            nodes->routes != NULL ? nodes->routes[partition][i] : (partition + i) % nodes->node_count;
    return nodes->replica_count;
}

err nodes_memory_open(struct source_memory *whole, uint32_t node_count, uint32_t partition_count,
                      uint32_t replica_count, struct pool *pool, struct nodes_memory **out_nodes)
{
    void *at;
    struct fanout *fanout;
    check(node_count <= NODES_MEMORY_MAX && replica_count <= node_count);
    TRY(pool_zalloc(pool, sizeof(struct nodes_memory), &at));
    struct nodes_memory *nodes = at;
    *nodes = (struct nodes_memory){ .node_count = node_count,
                                    .replica_count = replica_count,
                                    .now_ns = NS_PER_SECOND,
                                    .cut = SIZE_MAX,
                                    .pool = pool };
    whole->partition_count = partition_count;
    for (uint32_t i = 0; i < node_count; i++) {
        struct node_memory *node = &nodes->nodes[i];
        node->source = *whole;
        node->source.source.context = &node->source;
        node->source.held = node->held;
        for (uint32_t p = 0; p < partition_count; p++)
            if ((i + node_count - p % node_count) % node_count < replica_count)
                node->held[p / 64] |= UINT64_C(1) << p % 64;
    }
    nodes->config = (struct fanout_config){ .transport = { nodes, nodes_start, nodes_next, nodes_close,
                                                           nodes_wait, nodes_now, nodes_heard, nodes_within },
                                            .partition_count = partition_count,
                                            .route = nodes_route,
                                            .route_context = nodes };
    TRY(fanout_open(&nodes->config, pool, &fanout));
    nodes->source = fanout_source(fanout);
    *out_nodes = nodes;
    return OK;
}

static bool nodes_is_own(void *context, uint32_t node)
{
    return node + 1 == ((struct nodes_memory *)context)->own;
}

err nodes_memory_be(struct nodes_memory *nodes, uint32_t node)
{
    struct fanout *fanout;
    check(node < nodes->node_count);
    nodes->own = node + 1;
    nodes->config.own = (struct fanout_own){ .source = &nodes->nodes[node].source.source,
                                             .pool = nodes->pool,
                                             .is_own = nodes_is_own,
                                             .context = nodes };
    TRY(fanout_open(&nodes->config, nodes->pool, &fanout));
    nodes->source = fanout_source(fanout);
    return OK;
}

void nodes_memory_settle(struct nodes_memory *nodes)
{
    for (unsigned i = 0; i < nodes->late_count; i++)
        nodes->late[i].work(nodes->late[i].context);
    nodes->late_count = 0;
}
