/* What a partition knows besides rows: producers with their numbers and sequences, rows whose labels are
 * unknown, metadata. As a whole beside a manifest entry (docs/format/state.md), and as what changed since the
 * last row group in a stream file's checkpoint (docs/format/stream.md §3). */
#ifndef SHARD_STATE_H
#define SHARD_STATE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "base/time.h"
#include "blob/blob.h"
#include "log/log.h"
#include "model/batch.h"
#include "model/sample.h"
#include "model/sum.h"
#include "shard/chain.h"
#include "shard/dedupe.h"

#include <stdbool.h>
#include <stdint.h>

#define STATE_BYTES_MAX             (1u << 30) /* unpacked */
#define STATE_INCARNATION_COUNT_MAX 65536
#define STATE_NUMBER_MAX            (1u << 26) /* series numbers of a producer are below this */
#define STATE_UNRESOLVED_COUNT_MAX  (4u << 20) /* rows; beyond they are a named loss */
#define STATE_METADATA_COUNT_MAX    100000
#define STATE_METADATA_FAMILY_MAX   8 /* of one metric family: texts change with what is deployed */
#define STATE_FORMAT_VERSION        1
#define STATE_UNBOUND               UINT32_MAX

struct state_unresolved {
    uint32_t incarnation; /* index into the incarnations */
    uint32_t number;
    int64_t t_ms;
    int64_t start_ms;
    uint64_t bits;          /* value bits, or sum_histogram_bits */
    struct slice histogram; /* empty: a float row */
};

struct state_metadata {
    struct slice tenant, family, help, unit;
    uint8_t type;
};

struct state_incarnation {
    uint8_t id[INCARNATION_BYTES];
    struct dedupe seen;
    struct log_position last; /* of its last record */
    uint32_t *numbers;        /* bound numbers, ascending, and … */
    uint32_t *locals;         /* … their series; two parallel arrays */
    size_t binding_count;
};

/* A snapshot of the state at one position, or of what changed since the last one. Arrays in the
 * pool of whoever made it. */
struct state {
    struct log_position at;  /* next offset to apply */
    int64_t data_through_ms; /* INT64_MIN = no record yet */
    int32_t leader_epoch;    /* of the record before `at`; LOG_EPOCH_NONE */

    /* of the open range so far */
    struct log_position start;
    uint64_t record_count, log_bytes;
    struct sum sum, resolved_removed, resolved_added;
    uint64_t far_future_rows;
    struct chain_loss *losses;
    size_t loss_count;
    bool closed;    /* the range ends at `at` */
    uint8_t reason; /* enum cut_reason, when closed */
    uint16_t format_version;

    struct state_incarnation *incarnations; /* all; bindings all or only the new ones */
    size_t incarnation_count;
    struct state_unresolved *unresolved; /* all */
    size_t unresolved_count;
    struct state_metadata *metadata; /* all or only the new ones */
    size_t metadata_count;
};

/* How the encoder names a series: either a reference that the reader of these bytes knows already (a stream
 * number), or by its labels. */
struct state_names {
    /* True: *out_reference names the series. False: labels are written. */
    bool (*reference)(void *context, uint32_t local, uint32_t *out_reference);
    err (*describe)(void *context, uint32_t local, struct buf *labels, struct slice *out_tenant);
    void *context;
};

/* Append the bytes of a state. scratch: arena memory. ERR_LIMIT, and what names return. */
err state_encode(const struct state *state, const struct state_names *names, struct pool *scratch,
                 struct buf *out);

/* How the decoder finds the series again. */
struct state_series {
    err (*reference)(void *context, uint32_t reference, uint32_t *out_local); /* ERR_CORRUPT */
    err (*labels)(void *context, struct slice tenant, struct slice labels, uint32_t *out_local);
    void *context;
};

/* Decode into pool memory (dedupe sets are blocks of it, slices borrow bytes). ERR_CORRUPT, ERR_VERSION,
 * ERR_LIMIT, and what series return. */
err state_decode(struct slice bytes, const struct state_series *series, struct pool *pool,
                 struct state *out_state);

/* The object form: head, zstd of the above, checksum. */
err state_object_encode(const struct state *state, const struct state_names *names, struct pool *scratch,
                        struct buf *out);
err state_object_decode(struct slice bytes, const struct state_series *series, struct pool *pool,
                        struct state *out_state);
/* Check head and checksum only. ERR_CORRUPT, ERR_VERSION (at names it and ours). */
err state_object_check(struct slice bytes, struct err_at *at);
/* Read an object whole and compare its digest. Bytes in pool; *out_bytes is set also where the digest differs,
 * else empty. ERR_CORRUPT, and what reading returns. */
err state_object_read(struct blob *blob, const char *key, const uint8_t digest[SHA256_BYTES],
                      struct pool *pool, struct slice *out_bytes);

/* The hash under which an unresolved row is summed: of (incarnation, number) in place of labels. */
struct hash128 state_unresolved_hash(const uint8_t incarnation[INCARNATION_BYTES], uint32_t number);

struct sum state_unresolved_sum(const struct state *state);

/* ---- control records (docs/format/manifest.md §3) ---- */
enum control_kind { CONTROL_CUT = 1, CONTROL_FORGET = 2 };

struct control {
    uint8_t kind;
    struct log_position position; /* CUT: closes the range that starts here; FORGET: of its last record */
    uint16_t format_version;      /* CUT */
    uint8_t reason;               /* CUT: enum cut_reason */
    uint8_t incarnation[INCARNATION_BYTES]; /* FORGET */
};

#define CONTROL_BYTES 40
void control_encode(const struct control *control, uint8_t out_bytes[CONTROL_BYTES]);
/* ERR_CORRUPT, ERR_VERSION (a newer kind: apply ignores it). */
err control_decode(struct slice bytes, struct control *out_control);

#endif
