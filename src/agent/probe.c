/* See probe.h. A request comes from a thread of the HTTP server; what it says goes into the agent's inbox, the
 * answer is written from the agent's view: nobody waits for the agent.
 *
 * Invariants: 1. Nothing is told to the agent before the request's proof was checked. 2. Only the life that was
 * asked for answers that it is here, and a life that is not (agent_view) speaks in no answer. */
#include "agent/probe.h"

#include "agent/agent.h"
#include "base/bytes.h"
#include "io/io.h"

#include <string.h>

/* ---- bodies ---- */

void probe_encode(struct member_id of, struct buf *out)
{
    buf_put_u8(out, PROBE_VERSION);
    buf_put_varint(out, of.slot);
    buf_put_varint(out, of.incarnation);
}

err probe_decode(struct slice bytes, struct member_id *out_of)
{
    struct reader r = reader_of(bytes);
    uint8_t version = read_u8(&r);
    if (r.ok && version > PROBE_VERSION)
        return ERR_VERSION;
    uint64_t slot = read_varint(&r), incarnation = read_varint(&r);
    if (!r.ok || version != PROBE_VERSION || read_left(&r) > 0 || slot >= CLUSTER_NODES_MAX)
        return ERR_INPUT;
    *out_of = (struct member_id){ (uint32_t)slot, incarnation };
    return OK;
}

void probe_answer_encode(bool is_here, struct buf *out)
{
    buf_put_u8(out, PROBE_VERSION);
    buf_put_u8(out, is_here);
}

err probe_answer_decode(struct slice bytes, bool *out_is_here)
{
    struct reader r = reader_of(bytes);
    uint8_t version = read_u8(&r);
    if (r.ok && version > PROBE_VERSION)
        return ERR_VERSION;
    uint8_t is_here = read_u8(&r);
    if (!r.ok || version != PROBE_VERSION || read_left(&r) > 0 || is_here > 1)
        return ERR_INPUT;
    *out_is_here = is_here == 1;
    return OK;
}

/* ---- the handler ---- */

static bool is_zero(const uint8_t id[CLUSTER_ID_BYTES])
{
    static const uint8_t none[CLUSTER_ID_BYTES];
    return memcmp(id, none, CLUSTER_ID_BYTES) == 0;
}

static void say(struct net_response *response, unsigned status, const char *why)
{
    response->status = status;
    response->content_type = "text/plain";
    buf_clear(&response->body);
    buf_put_str(&response->body, why);
}

/* The proof is right. */
static void answer(struct agent *agent, const struct agent_view *view, const struct rpc_head *head,
                   struct net_request *request, struct net_response *response)
{
    struct member_id of, from = { head->slot, head->incarnation };
    bool is_other = !is_zero(view->cluster_id) && !is_zero(head->cluster_id) &&
                    memcmp(view->cluster_id, head->cluster_id, CLUSTER_ID_BYTES) != 0;
    if (is_other) {
        say(response, 409, "this is a node of another cluster");
        return;
    }
    err e = probe_decode(request->body, &of);
    if (e != OK) {
        say(response, e == ERR_VERSION ? 505 : 400,
            e == ERR_VERSION ? "a probe of a newer version" : "not a probe");
        return;
    }
    response->content_type = "application/octet-stream";
    probe_answer_encode(agent_asked(agent, from, of), &response->body);
}

static err prove(struct io *io, struct slice secret, const struct agent_view *view, struct slice code,
                 struct net_response *response)
{
    struct rpc_head head = { .slot = RPC_SLOT_NONE, .epoch = view->epoch, .t_ms = io_now_ms(io) };
    struct rpc_proof proof;
    if (view->is_here) {
        head.slot = view->self.slot;
        head.incarnation = view->self.incarnation;
    }
    memcpy(head.cluster_id, view->cluster_id, sizeof head.cluster_id);
    io_random(io, head.nonce, sizeof head.nonce);
    rpc_answer_sign(secret, code, response->status, buf_slice(&response->body), &head, &proof);
    TRY(net_response_header(response, RPC_HEAD_NAME, proof.head));
    return net_response_header(response, RPC_CODE_NAME, proof.code);
}

void probe_handle(struct agent *agent, struct io *io, struct slice secret, struct net_request *request,
                  struct net_response *response)
{
    const struct rpc_request asked = { "POST", request->target, request->body };
    struct slice code = net_request_header(request, RPC_CODE_NAME);
    struct rpc_head head;
    struct agent_view view;
    err e = rpc_request_check(secret, &asked, net_request_header(request, RPC_HEAD_NAME), code, io_now_ms(io),
                              &head);
    agent_view(agent, &view);
    if (e == ERR_DENIED || e == ERR_VERSION) {
        say(response, e == ERR_VERSION ? 505 : 401,
            e == ERR_VERSION ? "a request of a newer version"
                             : "this is for nodes that know the cluster's secret");
        return;
    }
    if (e == ERR_TIMEOUT)
        say(response, 401, "the clocks of the two nodes differ by more than 30 s");
    else
        answer(agent, &view, &head, request, response);
    if (prove(io, secret, &view, code, response) != OK)
        say(response, 503, "no memory for an answer");
}
