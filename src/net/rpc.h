/* Who speaks among a cluster's nodes: requests below /-/rpc/ and their answers carry a head that says so and a
 * code (HMAC-SHA-256 of the cluster's secret) over it and everything that matters. docs/format/rpc.md
 *
 * Bytes in, bytes out: nothing here waits, and it knows neither server nor client. What is secret is compared in
 * constant time. An empty secret is none: nobody signs with it, and nothing is believed. */
#ifndef NET_RPC_H
#define NET_RPC_H

#include "base/buf.h"
#include "base/err.h"
#include "base/sha256.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define RPC_VERSION         1
#define RPC_CLUSTER_BYTES   16
#define RPC_NONCE_BYTES     16
#define RPC_HEAD_BYTES      61
#define RPC_HEAD_TEXT_BYTES (2 * RPC_HEAD_BYTES + 1)
#define RPC_AGE_MS_MAX      30000 /* between the clocks of who asks and who answers */
#define RPC_SLOT_NONE       UINT32_MAX
#define RPC_HEAD_NAME       "Kelpie-Rpc" /* the two headers */
#define RPC_CODE_NAME       "Kelpie-Rpc-Code"
#define RPC_FRAME_BYTES_MAX (2u << 20)         /* of a payload */
#define RPC_FRAME_MORE      (4 + SHA256_BYTES) /* what a frame adds to it */

/* Who speaks, in which of its lives, knowing how much. */
struct rpc_head {
    uint8_t cluster_id[RPC_CLUSTER_BYTES];
    uint32_t slot; /* RPC_SLOT_NONE: it is no member yet */
    uint64_t incarnation;
    uint64_t epoch; /* records of the control log below it are known */
    int64_t t_ms;   /* Unix time of who speaks */
    uint8_t nonce[RPC_NONCE_BYTES];
};

/* A head and its code as the values of their headers, NUL-terminated. */
struct rpc_proof {
    char head[RPC_HEAD_TEXT_BYTES];
    char code[SHA256_HEX_BYTES];
};

/* What a request says. target: path and query as sent. */
struct rpc_request {
    const char *method;
    struct slice target, body;
};

/* Prove a request. */
void rpc_request_sign(struct slice secret, const struct rpc_request *request, const struct rpc_head *head,
                      struct rpc_proof *out_proof);
/* Is the request by somebody who knows the secret? head and code: values of the headers, empty when absent.
 * ERR_DENIED: no, or there is no proof; *out_head is not touched. ERR_VERSION: a newer node's. ERR_TIMEOUT: it is,
 * but was made more than RPC_AGE_MS_MAX before or after now_ms, or sent again by somebody else; *out_head is
 * set. */
err rpc_request_check(struct slice secret, const struct rpc_request *request, struct slice head,
                      struct slice code, int64_t now_ms, struct rpc_head *out_head);

/* Prove the answer to the request that had this code (of SHA256_HEX_BYTES - 1 bytes, checked before). */
void rpc_answer_sign(struct slice secret, struct slice asked_code, unsigned status, struct slice body,
                     const struct rpc_head *head, struct rpc_proof *out_proof);
/* Does the answer come from somebody who knows the secret and was asked this? ERR_DENIED, ERR_VERSION. Its time
 * is not looked at: it answers what was asked just now. */
err rpc_answer_check(struct slice secret, struct slice asked_code, unsigned status, struct slice body,
                     struct slice head, struct slice code, struct rpc_head *out_head);

/* Keep a header of an answer when it is one of the two. An empty name begins another answer, as
 * net_client_on_header says; a value that is too long is none. */
void rpc_proof_header(struct rpc_proof *proof, struct slice name, struct slice value);

/* ---- answers that are sent as they are made ---- */

/* Who answers: the secret, borrowed, and the code of what was sent last. */
struct rpc_sealer {
    struct slice secret;
    uint8_t code[SHA256_BYTES];
};

/* Prove head and status of the answer to the request that had this code; frames follow as its body. */
void rpc_stream_sign(struct slice secret, struct slice asked_code, unsigned status,
                     const struct rpc_head *head, struct rpc_sealer *out_sealer, struct rpc_proof *out_proof);
/* Append the next frame to out, whose error tells; at most RPC_FRAME_BYTES_MAX. An empty one that is not the last
 * says only that the answer is still being made. Nothing follows the last one. */
void rpc_frame_put(struct rpc_sealer *sealer, struct slice payload, bool is_last, struct buf *out);

/* Who asked: one answer as it comes. */
struct rpc_stream {
    struct slice secret;
    uint8_t code[SHA256_BYTES]; /* of what was believed last */
    struct buf frame;           /* as far as it has come */
    bool is_told, has_ended;    /* frame was handed out; it was the last */
};

struct rpc_frame {
    struct slice payload;
    bool is_last;
};

/* The head of a streamed answer, as rpc_answer_check. The secret is borrowed until close; at most one frame is
 * kept, in pool. */
err rpc_stream_open(struct slice secret, struct slice asked_code, unsigned status, struct slice head,
                    struct slice code, struct pool *pool, struct rpc_head *out_head,
                    struct rpc_stream *out_stream);
void rpc_stream_close(struct rpc_stream *stream);
/* Take from *bytes until a frame is whole. OK: a frame that is proven, borrowed until the next call; ERR_END:
 * all of *bytes is taken, more is needed; ERR_INPUT: too long, or behind the last frame; ERR_DENIED: not the
 * next frame of who answers; ERR_LIMIT (pool). After an error but ERR_END nothing more of it can be believed. */
err rpc_stream_next(struct rpc_stream *stream, struct slice *bytes, struct rpc_frame *out_frame);

#endif
