/* Where the partitions of a log end for sure, for strong queries: behind everything that was acknowledged
 * before the question, whoever took it. A marker in each partition, acknowledged by all replicas in sync,
 * tells it; queries that ask at the same time share the markers. protocol.md §5 */
#ifndef NODE_LOG_ENDS_H
#define NODE_LOG_ENDS_H

#include "io/io.h"
#include "log/log.h"
#include "model/guard.h"
#include "model/source.h"

struct log_ends;

#define LOG_ENDS_MS_MAX \
    5000 /* a partition whose end is not known by then is told as UINT64_MAX: never reached */

/* ERR_LIMIT. */
err log_ends_open(struct log *log, uint32_t partition_count, struct io *io, struct pool *pool,
                  struct log_ends **out_ends);
/* Nobody asks any more; the log has answered every append (log_drain, or log_close). NULL is allowed. */
void log_ends_close(struct log_ends *ends);

/* As query_positions (query/query.h), context a struct log_ends. */
err log_ends_ask(void *context, struct guard *guard, struct pool *pool,
                 struct source_position **out_positions, size_t *out_count);

#endif
