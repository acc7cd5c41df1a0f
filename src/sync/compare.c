/* See compare.h. From: shards_partition_sums of this node, and of others through wire.c. To: sync.c and the node's
 * verify.
 *
 * Invariants
 *  1. SUMs are compared only of the same records: marks of the same generation, start, offset and leader epoch;
 *     segments of chains that were read equally far.
 *  2. What cannot be compared is neither equal nor different. */
#include "sync/compare.h"

#include <string.h>

/* ---- the range that is open ---- */

/* The next place that both know, from *i and *j on, the newest first. False: none. */
static bool next_common(const struct shard_sums *a, const struct shard_sums *b, uint32_t *i, uint32_t *j)
{
    while (*i < a->mark_count && *j < b->mark_count) {
        const struct shard_mark *x = &a->marks[*i], *y = &b->marks[*j];
        int order = shard_mark_order(x, y);
        if (order == 0 && x->leader_epoch == y->leader_epoch)
            return true;
        *i += order <= 0;
        *j += order >= 0;
    }
    return false;
}

/* The newest common place differs: since when? */
static void narrow_open(const struct shard_sums *a, const struct shard_sums *b, uint32_t i, uint32_t j,
                        struct sync_result *r)
{
    const struct shard_mark *newest = &a->marks[i];
    r->verdict = SYNC_DIFFER;
    r->why = "rows of the range that is open differ";
    r->has_range = true;
    r->generation = newest->generation;
    r->from = newest->start;
    r->to = newest->at;
    r->a = newest->sum;
    r->b = b->marks[j].sum;
    for (i++, j++; next_common(a, b, &i, &j); i++, j++) {
        const struct shard_mark *x = &a->marks[i], *y = &b->marks[j];
        if (x->generation != newest->generation || x->start != newest->start)
            return;
        if (sum_equal(x->sum, y->sum)) {
            r->from = x->at;
            return;
        }
        r->to = x->at;
        r->a = x->sum;
        r->b = y->sum;
    }
}

static struct sync_result compare_open(const struct shard_sums *a, const struct shard_sums *b)
{
    struct sync_result r = { .verdict = SYNC_UNSURE, .why = "there is no position that both know" };
    uint32_t i = 0, j = 0;
    if (!next_common(a, b, &i, &j))
        return r;
    if (!sum_equal(a->marks[i].sum, b->marks[j].sum)) {
        narrow_open(a, b, i, j, &r);
        return r;
    }
    return (struct sync_result){ .verdict = SYNC_EQUAL, .why = "", .at = a->marks[i].at };
}

/* ---- segments ---- */

static struct sync_result compare_sealed(const struct shard_sums *a, const struct shard_sums *b)
{
    if (a->generation != b->generation || a->chain_next != b->chain_next)
        return (struct sync_result){ .verdict = SYNC_UNSURE, .why = "one has read more of the chain" };
    if (sum_equal(a->segments, b->segments) && sum_equal(a->digests, b->digests))
        return (struct sync_result){ .verdict = SYNC_EQUAL, .why = "" };
    return (struct sync_result){ .verdict = SYNC_DIFFER,
                                 .why = "live segments differ",
                                 .is_sealed = true,
                                 .a = a->segments,
                                 .b = b->segments };
}

static bool is_same(const struct shard_segment *x, const struct shard_segment *y)
{
    return memcmp(x->digest, y->digest, sizeof x->digest) == 0 && sum_equal(x->sum, y->sum);
}

bool sync_narrow(const struct shard_sums *a, const struct shard_sums *b, struct sync_result *result)
{
    uint32_t count = a->page_count < b->page_count ? a->page_count : b->page_count, i = 0;
    while (i < count && is_same(&a->page[i], &b->page[i]))
        i++;
    const struct shard_sums *has = i < a->page_count ? a : b;
    if (i < has->page_count) {
        const struct shard_segment *s = &has->page[i];
        result->has_range = true;
        result->generation = s->from_generation;
        result->from = s->from_offset;
        result->to = s->to_offset;
        result->a = i < a->page_count ? a->page[i].sum : (struct sum){ 0 };
        result->b = i < b->page_count ? b->page[i].sum : (struct sum){ 0 };
        return true;
    }
    return count == 0 || sum_equal(a->older_digests, b->older_digests);
}

/* ---- both ---- */

struct sync_result sync_compare(const struct shard_sums *a, const struct shard_sums *b)
{
    if (!a->is_open || !b->is_open)
        return (struct sync_result){ .verdict = SYNC_UNSURE, .why = "it is not open everywhere" };
    struct sync_result open = compare_open(a, b), sealed = compare_sealed(a, b);
    return open.verdict >= sealed.verdict ? open : sealed;
}

/* Who of two that differ is doubted more: > 0: a. */
static int more_doubtful(const struct shard_sums *a, uint32_t slot_a, const struct shard_sums *b,
                         uint32_t slot_b)
{
    if (a->is_recovered != b->is_recovered)
        return a->is_recovered ? 1 : -1;
    if (a->anew_count != b->anew_count)
        return a->anew_count < b->anew_count ? 1 : -1;
    return slot_a > slot_b ? 1 : -1;
}

bool sync_is_loser(const struct shard_sums *a, uint32_t slot_a, const struct shard_sums *b, uint32_t slot_b,
                   bool *out_is_undecided)
{
    bool is_from_log = !a->is_recovered && !b->is_recovered;
    *out_is_undecided = is_from_log && a->anew_count > 0 && b->anew_count > 0;
    return !*out_is_undecided && more_doubtful(a, slot_a, b, slot_b) > 0;
}
