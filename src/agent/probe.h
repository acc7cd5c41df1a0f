/* Probes between nodes: "are you there, in this life?" Bodies of POST /-/rpc/probe and of its answer, who asks and
 * who answers. docs/format/rpc.md */
#ifndef AGENT_PROBE_H
#define AGENT_PROBE_H

#include "base/buf.h"
#include "cluster/cluster.h"
#include "net/rpc.h"
#include "net/server.h"

struct agent; /* agent/agent.h */

#define PROBE_VERSION   1
#define PROBE_PATH      "/-/rpc/probe"
#define PROBE_BYTES_MAX 64 /* of either body */

/* The body of a request: the life that is asked for. */
void probe_encode(struct member_id of, struct buf *out);
/* ERR_INPUT: it is none. ERR_VERSION. */
err probe_decode(struct slice bytes, struct member_id *out_of);

/* The body of an answer: is the life here that was asked for? */
void probe_answer_encode(bool is_here, struct buf *out);
err probe_answer_decode(struct slice bytes, bool *out_is_here);

/* Handle the request of a route { NET_POST, PROBE_PATH, …, is_open, has_raw_body }: is_open because the proof
 * stands for credentials. secret: the cluster's; nobody knows an empty one. Whoever proves that it knows the
 * secret gets an answer that is proven too: 200 with the body above, 400 (not a probe), 401 (its clock is too far
 * from ours), 409 (another cluster's), 505 (a newer version's); without a proof 401. The answer's
 * text says why. */
void probe_handle(struct agent *agent, struct io *io, struct slice secret, struct net_request *request,
                  struct net_response *response);

#endif
