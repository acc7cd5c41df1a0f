/* Batches: the canonical decoded input of one signal and tenant, and their bytes, which are what a log
 * record holds. ingest/ encodes, shard/ applies; nobody else looks inside. docs/format/batch.md.
 *
 * Series appear as dense numbers of their producer (node incarnation × partition). A number's labels
 * travel in the record that first uses it (protocol §1.2).
 *
 * Position of a row = (position of the record, index in the record): float rows 0 … n-1 in column
 * order, then histogram rows. Of two rows with equal (series, t) the higher position wins. */
#ifndef MODEL_BATCH_H
#define MODEL_BATCH_H

#include "base/buf.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "model/labels.h"

#include <stdint.h>

#define BATCH_BYTES_MAX   (16u << 20) /* of one encoded record; larger requests are split */
#define BATCH_ROWS_MAX    (1u << 20)
#define INCARNATION_BYTES 16

enum batch_signal { SIGNAL_METRIC = 1, SIGNAL_EVENT = 2, SIGNAL_CONTROL = 3 };

struct batch_announce {
    uint32_t number;
    struct slice labels; /* canonical */
};

struct batch_histogram {
    uint32_t number;
    int64_t t_ms;
    int64_t start_ms;   /* 0 = unset */
    struct slice bytes; /* canonical histogram */
};

struct batch_start {
    uint32_t row; /* index of a float row */
    int64_t start_ms;
};

struct batch_exemplar {
    uint32_t number;
    int64_t t_ms;
    double value;
    struct slice labels; /* canonical */
};

struct batch_metadata {
    struct slice family;
    uint8_t type; /* enum metric_type */
    struct slice help;
    struct slice unit;
};

enum metric_type {
    METRIC_UNKNOWN,
    METRIC_COUNTER,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_GAUGE_HISTOGRAM,
    METRIC_SUMMARY,
    METRIC_INFO,
    METRIC_STATESET,
    METRIC_TYPE_COUNT
};
const char *metric_type_text(enum metric_type type); /* "counter", … as Prometheus' API says */

/* A batch in columns. All arrays belong to the caller (encoder) or the pool (decoder). */
struct batch {
    uint8_t signal;
    struct slice tenant;
    uint8_t incarnation[INCARNATION_BYTES];
    uint64_t sequence; /* dense per (incarnation, partition), from 0 */
    int64_t append_ms; /* ingest's wall clock, informative: data-through */

    struct batch_announce *announces;
    size_t announce_count;
    uint32_t *numbers; /* float rows, three parallel columns */
    int64_t *t_ms;
    uint64_t *value_bits;
    size_t row_count;
    struct batch_start *starts;
    size_t start_count; /* ascending rows */
    struct batch_histogram *histograms;
    size_t histogram_count;
    struct batch_exemplar *exemplars;
    size_t exemplar_count;
    struct batch_metadata *metadata;
    size_t metadata_count;
};

/* Append the record bytes of b to out. ERR_LIMIT. Cost about 10 ns a row, no allocation but out's. */
err batch_encode(const struct batch *b, struct buf *out);

/* Give a record that batch_encode made another sequence: who puts records together may learn only at the end
 * whether they are sent. */
void batch_set_sequence(uint8_t *record, uint64_t sequence);

/* The announcements of a record that batch_encode made as a record of its own, without rows: written to `out`, or
 * only measured (NULL). 0: it has none. At most as long as the record. */
size_t batch_put_announces(struct slice record, uint8_t *out);

/* Give a record without rows another append time, in ms, TIME_MS_MIN … TIME_MS_MAX. */
void batch_set_append_ms(uint8_t *record, int64_t append_ms);

/* Decode a record into pool (strings are borrowed from `bytes` except announces, which may be
 * decompressed into pool). ERR_CORRUPT, ERR_VERSION, ERR_LIMIT. */
err batch_decode(struct slice bytes, struct pool *pool, struct batch *out_batch);

/* Signal of a record without decoding it; 0 when too short. */
uint8_t batch_signal(struct slice bytes);

#endif
