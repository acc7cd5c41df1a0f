/* The proof of completeness that every answer carries: what it covers, and what is missing from it. Made by a
 * source for each selector, joined over the selectors of a query, written by api/. */
#ifndef MODEL_PROOF_H
#define MODEL_PROOF_H

#include "base/err.h"
#include "base/pool.h"
#include "base/time.h"

#include <stdbool.h>

#define PROOF_MISSING_COUNT_MAX 1000 /* losses named in a proof; it stays incomplete without the others */

/* The reason of a partition that the answering node does not serve: another one may. */
#define PROOF_NOT_HERE      "partition is not open here"
#define PROOF_NOT_CONFIRMED "the log's end is not confirmed"

/* What is missing from an answer, for X-Kelpie-Missing and the proof. */
struct proof_missing {
    uint32_t partition;
    struct time_range range; /* of sample times that may lack rows */
    const char *reason;      /* static text: "quarantine", "gap", "unresolved series", … */
};

struct proof_partition {
    uint32_t partition;
    uint64_t generation;
    uint64_t applied_offset; /* next offset to be applied when the query began to read */
    uint64_t end_offset;     /* confirmed end of the log when the query began */
    uint32_t node;           /* of a query over many nodes: 1 + slot of the one that answered; else 0 */
};

/* Begins as { .complete = true }. */
struct proof {
    bool complete;
    int64_t
        data_through_ms; /* append time of the newest applied record, over all partitions; 0: there is none */
    struct proof_partition *partitions;
    size_t partition_count;
    struct proof_missing *missing; /* room for PROOF_MISSING_COUNT_MAX, or NULL */
    size_t missing_count;
};

/* Room for all that proof_miss may name. ERR_LIMIT. */
err proof_reserve(struct proof *proof, struct pool *pool);

/* Say that something is missing: named once, and only as far as there is room. Room must be reserved. */
void proof_miss(struct proof *proof, const struct proof_missing *missing);

/* Add what another selector of the same question saw to *proof. The answer is as complete and as new as the
 * selector that lacks most; a partition stands with the positions of the first selector, which are the lowest.
 * Memory is in pool, nothing of *other is borrowed but the static reasons. ERR_LIMIT. */
err proof_join(struct proof *proof, const struct proof *other, struct pool *pool);

#endif
