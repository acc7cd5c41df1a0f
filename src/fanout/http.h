/* Questions and answers between nodes over HTTP: POST /-/rpc/query, proven by the cluster's secret, the answer a
 * stream of proven frames. docs/format/rpc.md
 *
 * Asking: fanout_http_open → fanout_http_transport, which fanout_open takes. Answering: fanout_answers_open →
 * fanout_answers_handle as the handler of a route. */
#ifndef FANOUT_HTTP_H
#define FANOUT_HTTP_H

#include "base/err.h"
#include "base/pool.h"
#include "net/client.h"
#include "net/rpc.h"
#include "net/server.h"

struct fanout_transport; /* fanout/fanout.h */
struct promql_runner;    /* promql/promql.h */
struct source;

#define FANOUT_HTTP_PATH           "/-/rpc/query"
#define FANOUT_ADDRESS_BYTES_MAX   256
#define FANOUT_REQUEST_BYTES_MAX   (1u << 20) /* body of a request */
#define FANOUT_CALLS_MAX           128
#define FANOUT_CALLS_OF_A_NODE_MAX 48
#define FANOUT_QUIET_MS            10000
#define FANOUT_ANSWERS_MAX         64
#define FANOUT_ANSWER_MS_MAX       120000

/* Who this node is: all of the head but its time and nonce. Any thread. */
typedef void (*fanout_self)(void *context, struct rpc_head *out_head);

/* ---- asking ---- */

struct fanout_http;

/* Where a node is, and in which life: another one's answer is none. */
struct fanout_http_node {
    char address[FANOUT_ADDRESS_BYTES_MAX + 1]; /* host:port */
    uint32_t slot;
    uint64_t incarnation;
};

struct fanout_http_config {
    struct slice secret;        /* of the cluster; copied */
    bool is_tls;                /* https */
    struct net_tls_options tls; /* strings are borrowed until close */
    fanout_self self;
    /* The node that routes call so. False: it is not known where it is. Any thread. */
    bool (*find)(void *context, uint32_t node, struct fanout_http_node *out_node);
    void *context;
    unsigned calls_max, calls_of_a_node_max; /* at a time, a thread each; 0: as above. Beyond: ERR_BUSY */
    int64_t quiet_ms_max; /* a node that is not heard for so long has broken the call; 0: as above */
};

/* ERR_LIMIT. Threads start as they are needed, and keep their connections. */
err fanout_http_open(const struct fanout_http_config *config, struct io *io, struct pool *pool,
                     struct fanout_http **out_http);
/* Ends what is given up but still under way, within a second, and frees everything. No call is open. NULL
 * allowed. */
void fanout_http_close(struct fanout_http *http);

/* The transport over it, for any number of askers on any threads; a call's functions are called by the thread that
 * started it. Closing a call that has not ended closes its connection. */
void fanout_http_transport(struct fanout_http *http, struct fanout_transport *out_transport);

/* ---- answering ---- */

struct fanout_answers;

struct fanout_answers_config {
    struct slice secret;   /* of the cluster; copied */
    struct source *source; /* of this node alone */
    fanout_self self;
    void *context;
    uint64_t samples_max; /* of one answer; 0: as many as the asker allows */
    unsigned answers_max; /* at a time, a thread each; 0: as above. Beyond: 503 */
    int64_t time_ms_max;  /* of one answer, also when the asker would wait longer; 0: as above */
};

/* pool: its budget is that of all answers being made. ERR_LIMIT. */
err fanout_answers_open(const struct fanout_answers_config *config, struct io *io, struct pool *pool,
                        struct fanout_answers **out_answers);
/* Who helps to evaluate units, from now on; once. Its context lives until the server is closed. */
void fanout_answers_set_runner(struct fanout_answers *answers, const struct promql_runner *runner);
/* The server that handles the route is closed. NULL allowed. */
void fanout_answers_close(struct fanout_answers *answers);

/* Handle the request of a route { NET_POST, FANOUT_HTTP_PATH, …, FANOUT_REQUEST_BYTES_MAX, is_open, has_raw_body
 * }: is_open because the proof stands for credentials. 200: a stream of frames whose payloads are the answer of
 * docs/format/query.md, which tells also what went wrong. Refusals of who has proven itself are proven too, as
 * rpc.md says: 401, 409, 505; 503 when too many answers are being made. */
void fanout_answers_handle(struct fanout_answers *answers, struct net_request *request,
                           struct net_response *response);

#endif
