/* A producer of one partition: who numbers its series, counts its records and knows what was acknowledged.
 * Source: protocol "Producers, announcements, dedupe". See producer.c. */
#ifndef INGEST_PRODUCER_H
#define INGEST_PRODUCER_H

#include "base/err.h"
#include "io/io.h"
#include "log/log.h"
#include "model/batch.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct producer {
    uint8_t incarnation[INCARNATION_BYTES]; /* changes under the ingest's lock for writing only */
    uint32_t next_number;                   /* under the table's mutex, as the next two */
    uint32_t live;                          /* numbers in use */
    uint32_t dead;                          /* numbers of dropped series */
    int64_t renewed_ns;
    _Atomic uint64_t sequence;   /* of the next record */
    _Atomic uint64_t generation; /* of the log, as far as it was heard of: log_watermarks */
    _Atomic uint32_t epoch;      /* marks of another epoch do not count; never 0 */
    _Atomic uint32_t
        given_up;   /* records of this life without a positive acknowledgement: gaps in the sequences */
    bool has_acked; /* the pumping thread's, as the next */
    struct log_position acked;
} __attribute__((aligned(128)));

/* A new life: random incarnation, numbers and sequence from 0, all marks cleared. */
void producer_renew(struct producer *producer, struct io *io);

/* Clear all marks of the partition. Any thread. */
void producer_forget_marks(struct producer *producer);

/* The partition's log is in this generation: if that is a later one than was known, its marks are cleared, and it
 * says true. Any thread. */
bool producer_hear(struct producer *producer, uint64_t generation);

/* An append ended, of a record that was begun when the log was known to be in `generation` (read before the
 * epoch). False when it must not count as acknowledged; marks are cleared then. Called from the log's done, which
 * for successes comes in order from one thread. */
bool producer_acked(struct producer *producer, uint64_t generation, err result, struct log_position position);

#endif
