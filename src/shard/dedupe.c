/* Sequences seen, as intervals. See dedupe.h.
 *
 * Data comes from apply, record by record, and goes into every checkpoint and manifest state. A producer's
 * sequences are dense, so that the set is nearly always one interval; a gap is a record that was never
 * acknowledged and never arrived.
 *
 * Invariants
 *  1. intervals[i].last + 1 < intervals[i + 1].first: sorted, disjoint, not touching.
 *  2. Equal sets have equal bytes: the encoding is a function of the set. */
#include "shard/dedupe.h"

#include "base/check.h"

void dedupe_close(struct dedupe *d)
{
    pool_block_free(d->pool, d->intervals);
    d->intervals = NULL;
    d->count = d->capacity = 0;
}

/* Index of the first interval whose last >= sequence; count when none. */
static size_t find(const struct dedupe *d, uint64_t sequence)
{
    size_t low = 0, high = d->count;
    if (high > 0 && d->intervals[high - 1].last < sequence)
        return high;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (d->intervals[middle].last < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool dedupe_has(const struct dedupe *d, uint64_t sequence)
{
    size_t i = find(d, sequence);
    return i < d->count && d->intervals[i].first <= sequence;
}

static err insert(struct dedupe *d, size_t at, struct dedupe_interval interval)
{
    if (d->count >= DEDUPE_INTERVAL_COUNT_MAX)
        return ERR_LIMIT;
    void *block = d->intervals;
    TRY(pool_block_reserve(d->pool, &block, sizeof *d->intervals, d->count + 1, &d->capacity));
    d->intervals = block;
    memmove(d->intervals + at + 1, d->intervals + at, (d->count - at) * sizeof *d->intervals);
    d->intervals[at] = interval;
    d->count++;
    return OK;
}

err dedupe_add(struct dedupe *d, uint64_t sequence, bool *out_new)
{
    size_t i = find(d, sequence);
    if (i < d->count && d->intervals[i].first <= sequence) {
        *out_new = false;
        return OK;
    }
    bool joins_before = i > 0 && d->intervals[i - 1].last + 1 == sequence;
    bool joins_after = i < d->count && sequence + 1 == d->intervals[i].first;
    if (joins_before && joins_after) {
        d->intervals[i - 1].last = d->intervals[i].last;
        memmove(d->intervals + i, d->intervals + i + 1, (d->count - i - 1) * sizeof *d->intervals);
        d->count--;
    } else if (joins_before) {
        d->intervals[i - 1].last = sequence;
    } else if (joins_after) {
        d->intervals[i].first = sequence;
    } else {
        TRY(insert(d, i, (struct dedupe_interval){ .first = sequence, .last = sequence }));
    }
    *out_new = true;
    return OK;
}

uint64_t dedupe_size(const struct dedupe *d)
{
    uint64_t size = 0;
    for (size_t i = 0; i < d->count; i++)
        size += d->intervals[i].last - d->intervals[i].first + 1;
    return size;
}

err dedupe_copy(const struct dedupe *d, struct pool *pool, struct dedupe *out_copy)
{
    struct dedupe copy = dedupe_open(pool);
    if (d->count > 0) {
        void *block = NULL;
        TRY(pool_block_reserve(pool, &block, sizeof *copy.intervals, d->count, &copy.capacity));
        copy.intervals = block;
        memcpy(copy.intervals, d->intervals, d->count * sizeof *copy.intervals);
        copy.count = d->count;
    }
    *out_copy = copy;
    return OK;
}

void dedupe_encode(const struct dedupe *d, struct buf *out)
{
    buf_put_varint(out, d->count);
    uint64_t next = 0;
    for (size_t i = 0; i < d->count; i++) {
        buf_put_varint(out, d->intervals[i].first - next);
        buf_put_varint(out, d->intervals[i].last - d->intervals[i].first);
        next = d->intervals[i].last + 1; /* may wrap only behind the last interval */
    }
}

err dedupe_decode(struct reader *r, struct dedupe *d)
{
    check(d->count == 0);
    uint64_t count = read_varint(r);
    if (!r->ok || count > read_left(r) / 2)
        return ERR_CORRUPT;
    if (count > DEDUPE_INTERVAL_COUNT_MAX)
        return ERR_LIMIT;
    uint64_t next = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t gap = read_varint(r), len = read_varint(r), first, last;
        if (!r->ok || (i > 0 && (gap == 0 || next == 0)) || __builtin_add_overflow(next, gap, &first) ||
            __builtin_add_overflow(first, len, &last))
            return ERR_CORRUPT;
        TRY(insert(d, d->count, (struct dedupe_interval){ .first = first, .last = last }));
        next = last + 1;
    }
    return OK;
}
