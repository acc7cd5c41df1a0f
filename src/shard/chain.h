/* The manifest chain of a partition: entries as bytes, and their fold. docs/format/manifest.md.
 *
 * An entry is an immutable numbered object of the blob store, written if absent; what is stored is the
 * fold of all of them plus the open range. The fold is pure: bytes in, state out. */
#ifndef SHARD_CHAIN_H
#define SHARD_CHAIN_H

#include "base/buf.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/sha256.h"
#include "base/slice.h"
#include "base/time.h"
#include "log/log.h"
#include "model/sum.h"

#include <stdbool.h>
#include <stdint.h>

#define CHAIN_ENTRY_BYTES_MAX   (16u << 20)
#define CHAIN_SEGMENT_COUNT_MAX 16384      /* in one entry */
#define CHAIN_LIVE_COUNT_MAX    (1u << 20) /* live segments of a partition */
#define CHAIN_LOSS_COUNT_MAX    65536
#define CHAIN_FORMAT_VERSION    1

enum chain_kind {
    CHAIN_COMMIT = 1,
    CHAIN_REPLACE = 2,
    CHAIN_RETAIN = 3,
    CHAIN_GENERATION = 4,
    CHAIN_LOST = 5,   /* stands where an entry could not be read any more */
    CHAIN_ACCEPT = 6, /* a person accepts losses: answers are complete without them */
    CHAIN_BASE =
        7, /* the fold of all entries before it, which may be removed once two bases stand behind them */
    CHAIN_LOSSES = 8, /* what a replica knows to be lost or doubtful */
    CHAIN_ERA = 9,    /* of a shared store: an era begins, which sweeps count by */
    CHAIN_ADOPT = 10, /* of a shared store: what another store held, older than everything in this one */
    CHAIN_KIND_COUNT
};

enum cut_reason {
    CUT_SIZE = 1,
    CUT_AGE = 2,
    CUT_IDLE = 3,
    CUT_ASKED = 4,
    CUT_BYTES_MAX = 5, /* no CUT record: the range reached RANGE_BYTES_MAX, or the rows that are allowed */
    CUT_REASON_COUNT
};

enum chain_loss_kind {
    LOSS_LOG = 1,        /* damaged records of the log */
    LOSS_UNRESOLVED = 2, /* rows whose labels never came */
    LOSS_CHAIN = 3,      /* what a damaged manifest entry told */
    LOSS_SEGMENT = 4,    /* a segment that cannot be read and was given up */
    LOSS_DOUBT = 5,      /* two replicas made different rows of the same records */
    LOSS_KIND_COUNT
};

/* Something that was acknowledged and is not there; answers that touch its times say so until it is accepted. */
struct chain_loss {
    uint8_t kind;
    struct log_position from, to; /* offsets [from, to) */
    struct time_range range;      /* of the sample times that may be missing */
    uint64_t row_count;           /* 0 = unknown */
    bool accepted;                /* by a person; of the fold, not of the bytes */
};
/* Are two losses one, the second being the later? Rows without labels are counted together whatever lies between
 * them. */
bool chain_losses_meet(const struct chain_loss *last, const struct chain_loss *next);
void chain_loss_join(struct chain_loss *last, const struct chain_loss *next);
/* The same in everything but whether it is accepted. */
bool chain_loss_equal(const struct chain_loss *a, const struct chain_loss *b);

#define CHAIN_SEGMENT_FAR_FUTURE 1u /* rows later than 10 min after their append */
#define CHAIN_SEGMENT_WIDE       2u /* rows of many windows: not merged by window */

/* Eras of a shared store, docs/decisions/0022-sweeping-a-shared-store.md: the number of an ERA entry is the era
 * that it begins; before the first, and in a store of one node for ever, it is 0. An object's key carries the era
 * in which its writer was. */
#define CHAIN_ERA_COUNT 3

struct chain_segment {
    uint8_t digest[SHA256_BYTES];
    uint64_t era; /* of its key */
    uint64_t bytes;
    struct log_position from, to; /* the records whose rows it holds came from [from, to) */
    struct time_range range;
    struct sum sum; /* of every row in it */
    uint16_t format_version;
    uint8_t flags;
};

/* One entry; arrays borrowed from the caller (encode) or in the pool (decode). Fields of other kinds
 * are zero. */
struct chain_entry {
    uint8_t kind;
    uint32_t partition;
    uint64_t number;
    int32_t leader_epoch; /* -1: a log without epochs */
    int64_t written_ms;   /* wall clock, informative */

    /* COMMIT: the range [start, end) became segments */
    struct log_position start, end;
    uint8_t reason; /* enum cut_reason */
    uint16_t format_version;
    uint64_t record_count, log_bytes;
    struct sum sum;              /* rolling SUM of the range = Σ segments */
    struct sum resolved_removed; /* unresolved rows that got their labels in this range: as they were … */
    struct sum resolved_added;   /* … and as they are; counts equal */
    struct sum unresolved;       /* what is unresolved at `end` */
    int64_t data_through_ms;
    uint8_t state_digest[SHA256_BYTES];
    uint64_t state_era;
    uint64_t state_bytes;
    struct chain_loss *losses;
    size_t loss_count;

    /* REPLACE: inputs by digest; outputs in `segments` */
    uint8_t (*inputs)[SHA256_BYTES];
    size_t input_count;
    struct sum dropped;  /* rows of the inputs not in the outputs: duplicates, and below the cut-off */
    struct sum distinct; /* Σ of key hashes over distinct (tenant, labels, t), equal before and
                                       after */

    struct chain_segment *segments;
    size_t segment_count;

    /* RETAIN */
    int64_t cutoff_ms; /* rows older than this are gone */
    bool confirmed;    /* by a person, or after the wait: the step may be large */

    /* BASE: as in struct chain, with end, cutoff_ms, data_through_ms, state_digest, unresolved, dropped, losses
     * (and whether they are accepted) and segments */
    uint8_t older_state_digest[SHA256_BYTES];
    uint64_t older_state_era;
    uint64_t eras[CHAIN_ERA_COUNT];
    struct log_position accepted_end;
    struct log_position adopted_end;
    uint64_t lost_count, ignored_count, commit_count;

    /* ADOPT: [start, end) of generation 0, sum, losses, segments */

    /* ERA: the era that it ends */
    uint64_t ended_era;

    /* GENERATION: reading goes on at `end`; losses. LOSSES: losses */

    /* LOST: the chain goes on at `end`; state (zero: as it was), losses; inputs are not live any more,
     * segments are. ACCEPT: losses as the fold holds them; inputs are segments given up, which become accepted
     * losses; rows that waited for labels since before `end` are accepted, too. */
};

/* Append the bytes of an entry. ERR_LIMIT. */
err chain_entry_encode(const struct chain_entry *entry, struct buf *out);

/* Decode into pool memory. ERR_CORRUPT, ERR_VERSION, ERR_LIMIT. */
err chain_entry_decode(struct slice bytes, struct pool *pool, struct chain_entry *out_entry);

/* What is newer in bytes that decoding answered ERR_VERSION. Returns that. */
err chain_entry_newer(struct slice bytes, struct err_at *at);

/* The fold. Segments in position order. */
struct chain {
    struct pool *pool;
    uint32_t partition;
    uint64_t next_number;
    struct log_position end; /* where the next range starts */
    int32_t leader_epoch;    /* of the record before it; LOG_EPOCH_NONE */
    struct chain_segment *segments;
    size_t segment_count, segment_capacity;
    struct chain_loss *losses;
    size_t loss_count, loss_capacity;
    int64_t cutoff_ms; /* TIME_MS_MIN = everything is kept */
    int64_t data_through_ms;
    uint8_t state_digests[2][SHA256_BYTES]; /* newest first; zero = none */
    uint64_t state_eras[2];                 /* of their keys */
    uint64_t eras[CHAIN_ERA_COUNT];         /* the present one first; 0: there were not so many */
    uint64_t era_unread;   /* number of the last entry that could not be read here and may have been an ERA */
    struct sum unresolved; /* at `end` */
    struct sum dropped;    /* by compaction and retention so far */
    struct log_position accepted_end; /* unresolved rows of producers last heard before are accepted */
    struct log_position adopted_end;  /* of generation 0, where the next adoption begins */
    uint64_t lost_count;              /* LOST entries */
    uint64_t ignored_count;           /* entries that were not valid */
    uint64_t commit_count;
    uint64_t first_number;              /* of the oldest entry that is there */
    uint64_t base_number, older_number; /* of the newest BASE and the one before; 0 = none */
    bool
        has_stand_in; /* an entry was not readable here, and others know what it told: no BASE is made of this */
    bool takes_old; /* planted bug: names of any era are valid */
};

/* The fold so far as a BASE with the chain's next number. Arrays in pool. ERR_LIMIT: it is too large for one. */
err chain_base(const struct chain *c, struct pool *pool, struct chain_entry *out_entry);

/* An empty chain; `start` is the log's first position: its generations are the log's own. */
struct chain chain_open(struct pool *pool, uint32_t partition, struct log_position start);
void chain_close(struct chain *c);

/* Fold the next entry in; a BASE may also be the first, whatever its number. *out_valid false: it is ignored (but
 * its number is taken), with a static text why. ERR_LIMIT; ERR_CONFLICT: number or partition are not the expected
 * ones, nothing changed. */
err chain_fold(struct chain *c, const struct chain_entry *entry, bool *out_valid, const char **out_why);

/* The era for keys of objects that are put now: one that no fold of this chain finds too old. */
uint64_t chain_put_era(const struct chain *c);

/* Would the fold find this entry, under the next number, valid? ERR_LIMIT. */
err chain_would_take(const struct chain *c, const struct chain_entry *entry, bool *out_valid);

/* What answers call a loss of this kind. Static. */
const char *shard_loss_text(uint8_t kind);

/* Sum of the live segments. */
struct sum chain_stored_sum(const struct chain *c);

/* May these live segments (indexes into c->segments, ascending) be replaced together: does no other
 * segment lie between them in position order whose times overlap theirs? */
bool chain_may_replace(const struct chain *c, const size_t *indexes, size_t count);

/* Is it one object, under one key? */
static inline bool chain_segment_same(const struct chain_segment *a, const struct chain_segment *b)
{
    return a->era == b->era && memcmp(a->digest, b->digest, SHA256_BYTES) == 0;
}

/* < 0, 0, > 0: order of positions. */
static inline int position_compare(struct log_position a, struct log_position b)
{
    if (a.generation != b.generation)
        return a.generation < b.generation ? -1 : 1;
    return a.offset < b.offset ? -1 : a.offset > b.offset;
}

#endif
