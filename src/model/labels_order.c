/* Sorting label sets. See labels_order.
 *
 * A merge of natural runs: what comes out of storage is a few long sorted runs, which cost one comparison an
 * entry; a comparison walks two label sets and is what sorting costs. */
#include "model/labels.h"

#include <string.h>

static bool is_after(const struct slice *labels, uint32_t a, uint32_t b)
{
    return labels_compare(labels[a], labels[b]) > 0;
}

/* Merge the neighbouring runs [a, b) and [b, c) of `from` into `to`. */
static void merge_runs(const struct slice *labels, const uint32_t *from, uint32_t a, uint32_t b, uint32_t c,
                       uint32_t *to)
{
    uint32_t left = a, right = b, at = a;
    if (is_after(labels, from[b - 1], from[b]))
        while (left < b && right < c)
            to[at++] = is_after(labels, from[left], from[right]) ? from[right++] : from[left++];
    memcpy(to + at, from + left, (b - left) * sizeof *to);
    at += b - left;
    memcpy(to + at, from + right, (c - right) * sizeof *to);
}

err labels_order(const struct slice *labels, uint32_t count, struct pool *pool, uint32_t **out_order)
{
    void *memory;
    TRY(pool_alloc(pool, ((size_t)count + 1) * 3 * sizeof(uint32_t), &memory));
    uint32_t *from = memory, *to = from + count + 1, *starts = to + count + 1, runs = 0;
    for (uint32_t i = 0; i < count; i++) {
        from[i] = i;
        if (i == 0 || is_after(labels, i - 1, i))
            starts[runs++] = i;
    }
    starts[runs] = count;
    while (runs > 1) {
        uint32_t kept = 0;
        for (uint32_t i = 0; i < runs; i += 2) {
            if (i + 1 == runs)
                memcpy(to + starts[i], from + starts[i], (count - starts[i]) * sizeof *to);
            else
                merge_runs(labels, from, starts[i], starts[i + 1], starts[i + 2], to);
            starts[kept++] = starts[i];
        }
        starts[kept] = count;
        runs = kept;
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    *out_order = from;
    return OK;
}
