/* Are two replicas of a partition equal, and if not, which of them is to begin anew? Pure functions of what both
 * tell. docs/decisions/0019-comparing-replicas.md */
#ifndef SYNC_COMPARE_H
#define SYNC_COMPARE_H

#include "shard/shard.h"

#include <stdbool.h>
#include <stdint.h>

enum sync_verdict {
    SYNC_EQUAL,
    SYNC_UNSURE, /* there is nothing, or not everything, that can be compared now */
    SYNC_DIFFER,
};

struct sync_result {
    enum sync_verdict verdict;
    const char *why; /* static; of what is not equal */
    bool is_sealed;  /* DIFFER: in segments; else in the range that is open */
    bool has_range;  /* DIFFER: which records it is about … */
    uint64_t generation, from, to;
    struct sum a, b; /* … and the two SUMs: of the records, or of all live segments */
    uint64_t at;     /* EQUAL: up to this offset */
};

struct sync_result sync_compare(const struct shard_sums *a, const struct shard_sums *b);

/* Two that differ, by their slots: is `a` to begin anew? The one whose rows came through its own disk; then the
 * one that did not do so yet; then the one in the higher slot. Not when both did, and they differ still:
 * *out_is_undecided. Both sides come to the same. */
bool sync_is_loser(const struct shard_sums *a, uint32_t slot_a, const struct shard_sums *b, uint32_t slot_b,
                   bool *out_is_undecided);

/* Two pages of the same place, of replicas that have read as much of the chain: narrow a difference in segments
 * down. True: this was it, in *result; or the rest agrees, or there is no more. False: go on with the next
 * page. */
bool sync_narrow(const struct shard_sums *a, const struct shard_sums *b, struct sync_result *result);

#endif
