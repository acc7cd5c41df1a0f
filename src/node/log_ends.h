/* Where the partitions of a log end for sure: behind everything that was acknowledged before a moment, whoever
 * took it. A leader that was deposed and has not heard of it tells an old end; an append that all replicas in
 * sync have acknowledged cannot come from it. So a marker in each partition tells it; queries share them. For
 * a strong query the moment is its beginning, for a plain one at most LOG_ENDS_OLD_MS_MAX before. protocol.md
 * §5 */
#ifndef NODE_LOG_ENDS_H
#define NODE_LOG_ENDS_H

#include "io/io.h"
#include "log/log.h"
#include "model/guard.h"
#include "model/source.h"
#include "query/query.h"

struct log_ends;

#define LOG_ENDS_MS_MAX     5000 /* a strong query waits so long for the ends */
#define LOG_ENDS_OLD_MS_MAX 5000

/* token_seed: as token_seed (model/token.h) of the cluster. ERR_LIMIT. */
err log_ends_open(struct log *log, uint32_t partition_count, uint32_t token_seed, struct io *io,
                  struct pool *pool, struct log_ends **out_ends);
/* Nobody asks any more; the log has answered every append (log_drain, or log_close). NULL is allowed. */
void log_ends_close(struct log_ends *ends);

/* As query_positions (query/query.h), context a struct log_ends. A partition whose end is not known when the
 * waiting is over (a plain query waits 1 s at most, and not at all for a partition that has been silent so
 * long) is told as
 * UINT64_MAX: never reached. */
err log_ends_ask(void *context, const struct query_need *need, struct guard *guard, struct pool *pool,
                 struct source_position **out_positions, size_t *out_count, struct err_at *at);

/* The same without waiting: begin, then look now and then until it is over, and out_positions, one for each
 * partition, are told. Any thread. */
struct log_question {
    uint64_t number;
    int64_t asked_ns;
    bool is_strong;
};
void log_ends_begin(struct log_ends *ends, bool is_strong, struct log_question *out_question);
bool log_ends_look(struct log_ends *ends, const struct log_question *question,
                   struct source_position *out_positions);

#endif
