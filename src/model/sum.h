/* SUM: (row count, 128-bit Σ of row hashes) of a range: additive, order-independent, equal in any
 * storage format. Proves that a build, a compaction or a replica kept every row.
 * Source: design "SUM"; the row hash and its constants are fixed in docs/format/sum.md. */
#ifndef MODEL_SUM_H
#define MODEL_SUM_H

#include "base/buf.h"
#include "base/bytes.h"
#include "base/hash.h"

#include <stdbool.h>
#include <stdint.h>

struct sum {
    uint64_t count;
    uint64_t low; /* 128-bit sum, modulo 2^128 */
    uint64_t high;
};

static inline void sum_add_hash(struct sum *s, struct hash128 h)
{
    s->count++;
    s->low += h.low;
    s->high += h.high + (s->low < h.low);
}

static inline void sum_add(struct sum *s, struct sum other)
{
    s->count += other.count;
    s->low += other.low;
    s->high += other.high + (s->low < other.low);
}

static inline void sum_subtract(struct sum *s, struct sum other)
{
    s->count -= other.count;
    s->high -= other.high + (s->low < other.low);
    s->low -= other.low;
}

static inline bool sum_equal(struct sum a, struct sum b)
{
    return a.count == b.count && a.low == b.low && a.high == b.high;
}

/* As manifest entries and segments carry it: count, low, high as le64. A reader that ends early is not ok. */
static inline void sum_put(struct buf *out, struct sum s)
{
    buf_put_le64(out, s.count);
    buf_put_le64(out, s.low);
    buf_put_le64(out, s.high);
}

static inline struct sum sum_read(struct reader *r)
{
    struct sum s;
    s.count = read_le64(r);
    s.low = read_le64(r);
    s.high = read_le64(r);
    return s;
}

/* Hash of (tenant, labels), computed once per series with a constant of the format (not the cluster's
 * hash_key, so SUMs survive adoption by another cluster). */
struct hash128 sum_series_hash(struct slice tenant, struct slice labels);

/* Row hash of a float sample: series hash × (t, type, value bits, start time). Two 64×64 multiplies.
 * start_ms 0 = unset. */
static inline struct hash128 sum_row_hash(struct hash128 series, int64_t t_ms, uint64_t value_bits,
                                          int64_t start_ms, uint64_t type)
{
    unsigned __int128 a = (unsigned __int128)(series.low ^ (uint64_t)t_ms * UINT64_C(0x9e3779b97f4a7c15)) *
                          ((value_bits ^ UINT64_C(0xd6e8feb86659fd93)) | 1);
    unsigned __int128 b = (unsigned __int128)(series.high ^ value_bits * UINT64_C(0xc2b2ae3d27d4eb4f)) *
                          (((uint64_t)t_ms ^ (uint64_t)start_ms * UINT64_C(0x165667b19e3779f9) ^
                            type * UINT64_C(0xff51afd7ed558ccd)) |
                           1);
    return (struct hash128){ .low = hash_mix((uint64_t)a ^ (uint64_t)(b >> 64)),
                             .high = hash_mix((uint64_t)b ^ (uint64_t)(a >> 64)) };
}

/* Row hash of a histogram sample: value_bits is the 64-bit hash of its canonical bytes. */
uint64_t sum_histogram_bits(struct slice canonical_histogram);

#endif
