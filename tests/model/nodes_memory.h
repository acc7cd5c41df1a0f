/* Nodes in one process: each holds some partitions of one source in memory, answers through fanout_serve, and
 * may be away, break, lie or be slow. A source over all of them (fanout/fanout.h) with a clock that only
 * waiting moves. */
#ifndef TESTS_MODEL_NODES_MEMORY_H
#define TESTS_MODEL_NODES_MEMORY_H

#include "fanout/fanout.h"
#include "model/source_memory.h"

#define NODES_MEMORY_MAX      8
#define NODES_MEMORY_LATE_MAX 64

enum node_fault {
    NODE_FINE,
    NODE_AWAY,    /* cannot be asked */
    NODE_BREAKS,  /* after fault_at bytes of an answer */
    NODE_STOPS,   /* ends there as if that were all */
    NODE_LIES,    /* the byte there is another */
    NODE_RAMBLES, /* from there on come other bytes */
    NODE_HANGS,   /* falls silent there */
    NODE_PAUSES,  /* is silent there until pause_ns after the call began */
    NODE_OMITS,   /* answers well, as if the first partition had not been asked for */
    NODE_OLD,     /* does not read a request for groups: its version is newer */
    NODE_ENDLESS, /* sends the blocks between first and last again and again, one a millisecond */
};

/* Of the node that asks, whose answers are no bytes: BREAKS and LIES cannot read some series behind their select,
 * STOPS and RAMBLES do not select, ENDLESS is as HANGS, OMITS as FINE. */

struct node_memory {
    struct source_memory source;
    uint64_t held[FANOUT_PARTITION_MAX / 64];
    enum node_fault fault;
    size_t fault_at;  /* taken modulo the length of the answer */
    int64_t delay_ns; /* before the first byte */
    int64_t pause_ns;
    bool is_at_work; /* and says so while nothing comes */
    unsigned asked;  /* calls begun */
    struct pool *pool;
};

struct nodes_memory {
    struct source *source;
    struct node_memory nodes[NODES_MEMORY_MAX];
    uint32_t node_count, replica_count;
    const uint32_t (*routes)[FANOUT_REPLICA_COUNT_MAX]; /* of each partition; NULL: as below */
    struct fanout_config config;
    int64_t now_ns;
    size_t cut; /* bytes that come at once, at most */
    unsigned open_calls;
    uint32_t own; /* 1 + the node that asks; 0: none of them does */
    struct node_work {
        void (*work)(void *context);
        void *context;
    } late[NODES_MEMORY_LATE_MAX]; /* work within that was given up before it began */
    unsigned late_count;
    uint64_t sent_bytes; /* of answers, as far as they were taken */
    struct pool *pool;
};

/* The nodes share the series of whole; partition p is at nodes p, p + 1, … (replica_count of them, modulo
 * node_count). whole gets partition_count. Everything is in pool. ERR_LIMIT. */
err nodes_memory_open(struct source_memory *whole, uint32_t node_count, uint32_t partition_count,
                      uint32_t replica_count, struct pool *pool, struct nodes_memory **out_nodes);

/* From now on this node asks: what is asked of it is answered within. ERR_LIMIT. */
err nodes_memory_be(struct nodes_memory *nodes, uint32_t node);
/* Do the work that was given up. */
void nodes_memory_settle(struct nodes_memory *nodes);

#endif
