/* struct guard: what ends a request early: its deadline, its client going away, its budget of samples and
 * series. One per query, shared by all threads that work on it, asked about once per series or 10,000 rows. */
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
    struct guard *above;  /* ends this one, too; NULL: nobody does */
    uint64_t samples_max; /* loaded by the whole query */
    _Atomic uint64_t samples_used;
    _Atomic uint64_t series_over; /* the bound that a selector passed; 0 = none did */
    /* What answers of other nodes brought, hedges included: series with rows (or names of them); groups. */
    _Atomic uint64_t rows_bytes, groups_bytes;
};

/* OK, ERR_TIMEOUT, ERR_CANCELED. */
err guard_check(struct guard *g);

/* Account for n more samples. ERR_LIMIT over the budget; also checks as above. */
err guard_samples(struct guard *g, uint64_t n);

/* ERR_LIMIT when a selector's count of series is above max, which is remembered for the text. */
err guard_series(struct guard *g, uint64_t count, uint64_t max);

#define GUARD_TEXT_BYTES 128

/* After ERR_LIMIT: which bound it was, with its number; when it was none of the guard's, it was memory. */
void guard_limit_text(const struct guard *g, char out_text[GUARD_TEXT_BYTES]);

#endif
