/* What other threads ask the agent's thread for: a copy of the cluster's state, and to append a person's word. */
#ifndef AGENT_ASK_H
#define AGENT_ASK_H

#include "base/pool.h"
#include "cluster/cluster.h"

struct agent;

#define AGENT_ASK_MS 5000 /* an answer comes by then, or none does */

/* The state of the cluster as this node knows it. */
struct agent_copy {
    struct members *members;           /* ends with members_close */
    struct member_id self;             /* slot SLOT_NONE: it is not up */
    bool is_silent[CLUSTER_NODES_MAX]; /* by slot: not heard by this node for CORE_SILENT_MS */
};

/* Any thread but the agent's; waits for its next step. ERR_CLOSED: the agent has ended; ERR_TIMEOUT; ERR_LIMIT. */
err agent_copy(struct agent *agent, struct pool *pool, struct agent_copy **out_copy);

/* Append a record to the control log: a person's word, REMOVE or SUSPEND or SET. OK: it was handed over; what
 * becomes of it is seen in the state. Errors as agent_copy; ERR_BUSY: too much is on its way. */
err agent_append(struct agent *agent, const struct control_record *record, struct pool *pool);

#endif
