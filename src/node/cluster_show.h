/* The cluster as people see it and what they order: api/v1/admin/cluster. */
#ifndef NODE_CLUSTER_SHOW_H
#define NODE_CLUSTER_SHOW_H

#include "agent/agent.h"
#include "api/api.h"

/* As api_config.cluster. Errors with the reason in at: ERR_INPUT no such action or node; ERR_CLOSED,
 * ERR_TIMEOUT the agent does not answer, or the order was not decided in time; ERR_BUSY, ERR_LIMIT. */
err cluster_show(struct agent *agent, struct io *io, const struct api_cluster_order *order, struct pool *pool,
                 struct json *json, struct err_at *at);

#endif
