/* The gauges of /metrics that rooms tell when they are asked. */
#ifndef NODE_GAUGES_H
#define NODE_GAUGES_H

#include "log/log.h"
#include "query/query.h"
#include "shard/shard.h"

void gauges_of_rooms(const struct shards_usage *shards, const struct log_usage *log,
                     const struct query_service_usage *queries);

#endif
