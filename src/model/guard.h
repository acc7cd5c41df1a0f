/* struct guard: what ends a request early: its deadline, its client going away, its sample budget. One
 * per query, shared by all threads that work on it, asked about once per series or 10,000 rows. */
#ifndef MODEL_GUARD_H
#define MODEL_GUARD_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct io;

struct guard {
    struct io *io;       /* clock */
    int64_t deadline_ns; /* io_monotonic_ns; INT64_MAX = none */
    _Atomic bool canceled;
    uint64_t samples_max; /* loaded by the whole query */
    _Atomic uint64_t samples_used;
};

/* OK, ERR_TIMEOUT, ERR_CANCELED. */
err guard_check(struct guard *g);

/* Account for n more samples. ERR_LIMIT over the budget; also checks as above. */
err guard_samples(struct guard *g, uint64_t n);

#endif
