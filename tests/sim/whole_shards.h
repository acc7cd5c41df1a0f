/* What the whole world's oracles look at inside the shards; apart, because names of the rooms shard and cluster
 * meet elsewhere. */
#ifndef TESTS_WHOLE_SHARDS_H
#define TESTS_WHOLE_SHARDS_H

#include "log/log.h"
#include "shard/shard.h"

/* A replica's fold of its chain; zero while it is not open. */
struct whole_fold {
    bool is_open;
    bool waits; /* a closed range is not committed yet */
    uint64_t next_number, generation;
    uint64_t segments; /* a hash of what the chain names */
    uint64_t losses;   /* that it names */
};
struct whole_fold whole_fold_of(struct shards *shards, uint32_t partition);

/* What a record of the data's log is, without the driver's head: rows, or the word of a shard. */
enum whole_record { WHOLE_ROWS, WHOLE_CUT, WHOLE_OTHER };
/* out_closes: of a CUT. */
enum whole_record whole_record_of(struct slice record, struct log_position *out_closes);

#endif
