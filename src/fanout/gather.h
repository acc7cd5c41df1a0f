/* Asking the nodes that hold some partitions until each partition is answered for, or nobody is left to ask. */
#ifndef FANOUT_GATHER_H
#define FANOUT_GATHER_H

#include "fanout/fanout.h"
#include "fanout/wire.h"

#define GATHER_WORDS (FANOUT_PARTITION_MAX / 64)

/* A set of partitions. */
struct gather_bits {
    uint64_t word[GATHER_WORDS];
};

static inline bool gather_has(const struct gather_bits *bits, uint32_t partition)
{
    return (bits->word[partition / 64] >> partition % 64 & 1) != 0;
}
static inline void gather_put(struct gather_bits *bits, uint32_t partition)
{
    bits->word[partition / 64] |= UINT64_C(1) << partition % 64;
}
static inline bool gather_is_empty(const struct gather_bits *bits)
{
    for (size_t i = 0; i < GATHER_WORDS; i++)
        if (bits->word[i] != 0)
            return false;
    return true;
}

struct gather_series {
    struct slice labels;
    size_t first_piece, piece_count;
    size_t first_exemplar, exemplar_count;
};

struct gather_group {
    struct slice labels;
    bool drop_name;
    size_t first_piece;                              /* of as many as its steps need */
    const double *columns[SOURCE_GROUP_COLUMNS_MAX]; /* of this node's own, instead */
};

struct own;

/* What one node answered: everything in pool. */
struct gather_answer {
    struct gather_answer *next;
    struct pool *pool;
    /* This node's own. Of samples the set is kept, whose series are series_count; what of its proof's missing
     * list was there when it was selected is in proof, more may be found out as it is read. */
    struct own *own; /* which ends it; NULL: it came from elsewhere */
    const struct source_table *table;
    struct source_set *set;
    size_t missing_seen;
    uint32_t number;              /* among the own ones of a set of series */
    struct gather_bits answered;  /* what it stands for in the end; of other answers, too */
    struct gather_series *series; /* NULL with a set, but for gather.may_meet */
    size_t series_count, series_capacity;
    struct wire_piece *pieces;
    size_t piece_count, piece_capacity;
    struct source_exemplar *exemplars;
    size_t exemplar_count, exemplar_capacity;
    struct gather_group *groups;
    size_t group_count, group_capacity;
    struct wire_group *group_pieces;
    size_t group_piece_count, group_piece_capacity;
    struct source_groups of_unit; /* but its proof */
    uint64_t row_count;           /* that came, or that were read for groups */
    struct wire_texts texts;
    struct wire_metadata metadata;
    struct proof proof;
};

struct gather {
    /* The same rows may be in two, groups of the same series not; their pools are open until
     * fanout_gather_close. */
    struct gather_answer *answers;
    bool may_meet;      /* some partition was asked of two that answered: the same series may be in both */
    struct proof proof; /* of all; partitions ascend */
};

/* Ask for the partitions of request.partitions (all of partition_count when NULL); request.left_ms,
 * partitions are filled in. range: what is missing when nobody answers for a partition. Everything is in pool
 * or below it. Errors ERR_LIMIT (series, samples, memory: also when a node says so), ERR_TIMEOUT,
 * ERR_CANCELED; of groups ERR_UNSUPPORTED, when a node says that it cannot make them. */
err fanout_gather_open(const struct fanout_config *config, const struct wire_request *request,
                       struct time_range range, struct guard *guard, struct pool *pool,
                       struct gather **out_gather);
void fanout_gather_close(struct gather *gather); /* NULL allowed */

/* ---- receiving, receive.c ---- */

struct receive_limits {
    struct time_range range; /* rows outside are no answer */
    uint64_t series_max, samples_max;
    uint64_t step_count; /* of groups, as asked for */
    uint32_t column_count;
};

/* One answer as it comes. */
struct receive {
    struct gather_answer answer;
    struct receive_limits limits;
    struct wire_in in;
    struct wire_series *series;
    struct wire_groups *groups;
    bool is_whole;
    bool has_unit;
    bool is_refused; /* the node ended it because it does not evaluate this unit */
    enum {
        RECEIVE_OVER_NONE,
        RECEIVE_OVER_SERIES,
        RECEIVE_OVER_SAMPLES
    } over; /* after ERR_LIMIT; NONE: memory */
};

/* ERR_LIMIT. pool is the answer's. */
err receive_open(struct receive *r, enum wire_kind kind, const struct receive_limits *limits,
                 struct pool *pool);
/* Take bytes. OK: more may come, or is_whole. ERR_LIMIT: a bound of the asker, see over. Else this answer is
 * of no use: ERR_INPUT, or what the node ended it with. */
err receive_bytes(struct receive *r, struct slice bytes);
void receive_close(struct receive *r); /* what it works with; the answer stays */

/* ---- asking this node, own.c ---- */

/* Begin; the call is of config.transport. io: the clock of deadlines, or NULL.
 * ERR_LIMIT, ERR_BUSY: it cannot be asked now. */
err own_start(const struct fanout_config *config, struct slice request, struct io *io, struct own **out_own,
              void **out_call);
/* After the end of the call: what came, in r, as receive_bytes leaves it. above ends from now on what is read
 * of it (NULL: nobody does). Errors as receive_bytes; r->answer is set only without. */
err own_take(struct own *own, struct guard *above, struct receive *r);
/* Give it up or be done with it, also while it is at work. */
void own_close(struct own *own);

#endif
