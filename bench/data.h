/* Values like node_exporter's and the clock, for the benchmarks of codecs and segments. */
#ifndef BENCH_DATA_H
#define BENCH_DATA_H

#include "base/bytes.h"
#include "base/hash.h"

#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum data_kind {
    DATA_CONSTANT,     /* an integer that never changes */
    DATA_ZERO,         /* a counter at rest */
    DATA_COUNTER,      /* + 0 … a step of the series' own */
    DATA_SECONDS,      /* two decimals */
    DATA_FULL_COUNTER, /* all 53 bits */
    DATA_PAGES,        /* multiples of 4,096, a third of them change */
    DATA_GAUGE,        /* one decimal */
    DATA_FULL_GAUGE,
    DATA_BUCKET, /* + 1 now and then */
};

static inline uint64_t data_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return hash_mix(*state);
}

/* CPU time of the process. */
static inline double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline double data_next(enum data_kind kind, uint64_t r, uint64_t scale, int64_t *at, double *full)
{
    switch (kind) {
    case DATA_CONSTANT:
        return (double)*at;
    case DATA_ZERO:
        return 0;
    case DATA_COUNTER:
        return (double)(*at += (int64_t)(r % scale));
    case DATA_SECONDS:
        return (double)(*at += (int64_t)(r % 200)) / 100;
    case DATA_FULL_COUNTER:
        return *full += (double)(r >> 11) * 0x1p-53;
    case DATA_PAGES:
        return 4096.0 * (double)(*at += r % 3 == 0 ? (int64_t)(r >> 8) % 64 - 32 : 0);
    case DATA_GAUGE:
        return (double)(500 + r % 40) / 10;
    case DATA_FULL_GAUGE:
        return (double)(r >> 11) * 0x1p-53;
    default:
        return (double)(*at += r % 10 == 0);
    }
}

/* n values of one series as bits; *state goes on. */
static inline void data_fill(uint64_t *bits, size_t n, enum data_kind kind, uint64_t *state)
{
    int64_t at = (int64_t)(data_random(state) % 100000000);
    double full = (double)at / 7;
    uint64_t scale = 100 + data_random(state) % 2000;
    for (size_t i = 0; i < n; i++)
        bits[i] = double_bits(data_next(kind, data_random(state), scale, &at, &full));
}

#endif
