/* Any bytes as what nodes say to each other: (length, bytes) of a head, of a code and the rest as a body, of a
 * request and of its answer. Nothing is believed, but what was signed; what decodes encodes to what decodes the
 * same. */
#include "agent/agent.h"
#include "base/check.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void bodies(struct pool *pool, struct slice bytes)
{
    struct buf again = buf_open(pool, PROBE_BYTES_MAX);
    struct member_id of, same;
    bool is_here, is_same;
    if (probe_decode(bytes, &of) == OK) {
        probe_encode(of, &again);
        check(buf_err(&again) == OK && probe_decode(buf_slice(&again), &same) == OK);
        check(same.slot == of.slot && same.incarnation == of.incarnation);
    }
    buf_clear(&again);
    if (probe_answer_decode(bytes, &is_here) == OK) {
        probe_answer_encode(is_here, &again);
        check(buf_err(&again) == OK && probe_answer_decode(buf_slice(&again), &is_same) == OK);
        check(is_here == is_same && slice_equal(buf_slice(&again), bytes));
    }
    buf_close(&again);
}

/* What is signed is believed; with the one byte of it changed that the input names, it is not. */
static void signed_by_us(struct slice secret, struct slice body, uint8_t pick)
{
    struct rpc_head head = { .slot = body.len > 0 ? body.at[0] : 0, .epoch = body.len, .t_ms = 1000 }, got;
    struct rpc_request request = { "POST", slice_part(body, 0, body.len < 2000 ? body.len : 2000), body };
    struct rpc_proof proof, answer;
    rpc_request_sign(secret, &request, &head, &proof);
    struct slice code = slice_str(proof.code);
    check(rpc_request_check(secret, &request, slice_str(proof.head), code, 1000, &got) == OK);
    check(got.slot == head.slot && got.epoch == head.epoch && got.t_ms == head.t_ms);
    rpc_answer_sign(secret, code, 200, body, &head, &answer);
    check(rpc_answer_check(secret, code, 200, body, slice_str(answer.head), slice_str(answer.code), &got) ==
          OK);
    char *at = pick % 2 == 0 ? &answer.head[pick % (RPC_HEAD_TEXT_BYTES - 1)] : &answer.code[pick % 64];
    *at = *at == '0' ? '1' : '0';
    check(rpc_answer_check(secret, code, 200, body, slice_str(answer.head), slice_str(answer.code), &got) !=
          OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pool *pool = pool_open(NULL, "fuzz", 64u << 20);
    struct reader r = reader_of(slice_of(data, size));
    struct slice secret = slice_str("the fuzzer's own secret");
    struct rpc_head got;
    uint8_t pick = read_u8(&r);
    struct slice head = read_bytes(&r, read_u8(&r)), code = read_bytes(&r, read_u8(&r)),
                 body = slice_of(r.at, read_left(&r));
    if (r.ok) {
        struct rpc_request request = { "POST", slice_str("/-/rpc/probe"), body };
        struct rpc_proof proof;
        check(rpc_request_check(secret, &request, head, code, 0, &got) != OK);
        rpc_request_sign(secret, &request, &(struct rpc_head){ 0 }, &proof);
        check(rpc_answer_check(secret, slice_str(proof.code), 200, body, head, code, &got) != OK);
        bodies(pool, body);
        signed_by_us(secret, body, pick);
    }
    pool_close(pool);
    return 0;
}
