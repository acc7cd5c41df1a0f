/* Who speaks among a cluster's nodes: requests below /-/rpc/ and their answers carry a head that says so and a
 * code (HMAC-SHA-256 of the cluster's secret) over it and everything that matters. docs/format/rpc.md
 *
 * Bytes in, bytes out: nothing here waits, and it knows neither server nor client. What is secret is compared in
 * constant time. An empty secret is none: nobody signs with it, and nothing is believed. */
#ifndef NET_RPC_H
#define NET_RPC_H

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

#endif
