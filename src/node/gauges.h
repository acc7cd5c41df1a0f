/* The gauges of /metrics that rooms tell when they are asked. */
#ifndef NODE_GAUGES_H
#define NODE_GAUGES_H

#include "agent/agent.h"
#include "log/log.h"
#include "query/query.h"
#include "shard/shard.h"

void gauges_of_rooms(const struct shards_usage *shards, const struct log_usage *log,
                     const struct query_service_usage *queries);

/* unowned_count: partitions that nobody answers for. */
void gauges_of_cluster(const struct agent_view *view, bool may_decide, uint32_t unowned_count);

#endif
