/* What a node gives its rooms of its configuration. */
#ifndef NODE_ROOMS_H
#define NODE_ROOMS_H

#include "io/io.h"
#include "node/config.h"
#include "node/identity.h"
#include "shard/shard.h"

#include <stdint.h>

/* The memory budget in bytes: 60 % of the machine's or the cgroup's memory unless configured. */
uint64_t rooms_memory(struct io *io, const struct config *config);

/* memory_bytes: of the node. What asks the node itself, such as may_sweep, is not set. */
struct shards_config rooms_shards(uint64_t memory_bytes, const struct identity *identity,
                                  const struct config *config);

#endif
