/* Proofs of completeness. From: sources. To: the proofs of whole answers.
 *
 * Invariant: a proof that lacks anything is not complete, whether or not there was room to name it. */
#include "model/proof.h"

#include <string.h>

err proof_reserve(struct proof *proof, struct pool *pool)
{
    void *room = proof->missing;
    if (room == NULL)
        TRY(pool_alloc(pool, PROOF_MISSING_COUNT_MAX * sizeof *proof->missing, &room));
    proof->missing = room;
    return OK;
}

static bool covers(const struct proof_missing *known, const struct proof_missing *missing)
{
    return known->partition == missing->partition && known->range.min_ms <= missing->range.min_ms &&
           known->range.max_ms >= missing->range.max_ms && strcmp(known->reason, missing->reason) == 0;
}

/* likely: where to look first. */
static void miss(struct proof *proof, const struct proof_missing *missing, size_t likely)
{
    proof->complete = false;
    if (proof->missing_count == PROOF_MISSING_COUNT_MAX)
        return;
    if (likely < proof->missing_count && covers(&proof->missing[likely], missing))
        return;
    for (size_t i = 0; i < proof->missing_count; i++)
        if (covers(&proof->missing[i], missing))
            return;
    proof->missing[proof->missing_count++] = *missing;
}

void proof_miss(struct proof *proof, const struct proof_missing *missing) { miss(proof, missing, SIZE_MAX); }

static bool has_partition(const struct proof *proof, uint32_t partition, size_t likely)
{
    if (likely < proof->partition_count && proof->partitions[likely].partition == partition)
        return true;
    for (size_t i = 0; i < proof->partition_count; i++)
        if (proof->partitions[i].partition == partition)
            return true;
    return false;
}

/* Nearly always the first selector's are all there are. */
static err join_partitions(struct proof *proof, const struct proof *other, struct pool *pool)
{
    struct proof_partition *joined = NULL;
    size_t count = proof->partition_count;
    for (size_t i = 0; i < other->partition_count; i++) {
        if (has_partition(proof, other->partitions[i].partition, i))
            continue;
        if (joined == NULL) {
            void *room;
            TRY(pool_alloc(pool, (count + other->partition_count) * sizeof *joined, &room));
            joined = room;
            if (count > 0)
                memcpy(joined, proof->partitions, count * sizeof *joined);
        }
        joined[count++] = other->partitions[i];
    }
    if (joined != NULL)
        proof->partitions = joined;
    proof->partition_count = count;
    return OK;
}

err proof_join(struct proof *proof, const struct proof *other, struct pool *pool)
{
    if (proof->data_through_ms == 0 || other->data_through_ms < proof->data_through_ms)
        proof->data_through_ms = other->data_through_ms;
    TRY(join_partitions(proof, other, pool));
    if (other->missing_count > 0)
        TRY(proof_reserve(proof, pool));
    for (size_t i = 0; i < other->missing_count; i++)
        miss(proof, &other->missing[i], i); /* selectors of one question lack the same, in the same order */
    proof->complete = proof->complete && other->complete;
    return OK;
}
