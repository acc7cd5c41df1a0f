/* Bytes between the node that asks and the node that answers: one request, and an answer as a stream of blocks.
 * docs/format/query.md.
 *
 * Asking: wire_request_encode → bytes → wire_request_decode. Answering: wire_out_open, then series, texts,
 * metadata, or a unit and its groups, then wire_out_proof or wire_out_error as the last block → bytes →
 * wire_in_next block by block, and the cursors over what a block holds. Everything that is read is checked: a
 * damaged or invented byte is ERR_INPUT, never more memory than the bounds below. */
#ifndef FANOUT_WIRE_H
#define FANOUT_WIRE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/pool.h"
#include "model/matcher.h"
#include "model/proof.h"
#include "model/sample.h"
#include "model/source.h"

#define WIRE_VERSION             2 /* the newest; each kind travels in the one that brought it */
#define WIRE_REQUEST_BYTES_MAX   (1u << 20)
#define WIRE_BLOCK_BYTES_WANTED  (64u << 10) /* a block is sent when it holds so much */
#define WIRE_BLOCK_BYTES_MAX     (1u << 20)
#define WIRE_BLOCK_HEAD_BYTES    9
#define WIRE_PARTITION_COUNT_MAX 1024
#define WIRE_SELECTOR_COUNT_MAX  1024
#define WIRE_PIECE_ROW_COUNT_MAX 4096 /* rows of one series, or steps of a group, that travel together */
#define WIRE_STEP_COUNT_MAX      1000000
#define WIRE_NOTE_BYTES_MAX      1000 /* of a text that comes with groups */

enum wire_kind {
    WIRE_SAMPLES = 1, /* series with their samples */
    WIRE_EXEMPLARS,   /* series with their exemplars */
    WIRE_NAMES,
    WIRE_VALUES,
    WIRE_METADATA,
    WIRE_GROUPS, /* partial states of a unit's groups */
    WIRE_KIND_END,
};

/* The version of its request, and of the answer. */
static inline uint8_t wire_version(enum wire_kind kind) { return kind < WIRE_GROUPS ? 1 : 2; }

/* ---- the request ---- */

struct wire_matcher {
    enum match_type type;
    struct slice name, value;
};

struct wire_selector {
    struct time_range range;
    struct wire_matcher *matchers;
    size_t matcher_count;
};

struct wire_request {
    enum wire_kind kind;
    struct slice tenant;
    struct slice name;    /* VALUES: of the label; METADATA: the family, empty = all */
    uint64_t left_ms;     /* until the asker gives up; 0 = it does not */
    uint64_t limit;       /* of names or values; 0 = all */
    uint64_t series_max;  /* of one selector; UINT64_MAX = no bound */
    uint64_t samples_max; /* of the whole answer; UINT64_MAX = no bound */
    uint32_t partition_count;
    const uint64_t *partitions; /* a bit for each of partition_count; NULL with 0: all there are */
    const struct source_position *after;
    size_t after_count;
    const struct wire_selector *selectors; /* SAMPLES, EXEMPLARS, GROUPS: one; METADATA: none */
    size_t selector_count;
    struct source_unit unit; /* GROUPS, whose selector tells the times alone; but for take and context */
};

/* Append the request. Errors: out's; ERR_LIMIT when it is larger than a request may be. */
err wire_request_encode(const struct wire_request *request, struct buf *out);

/* Memory is in pool, texts are borrowed from bytes. ERR_INPUT (malformed; reason in at), ERR_VERSION, ERR_LIMIT
 * (pool). Patterns are not compiled yet. */
err wire_request_decode(struct slice bytes, struct pool *pool, struct wire_request *out_request,
                        struct err_at *at);

/* ---- writing an answer ---- */

enum wire_block_type {
    WIRE_BLOCK_HEAD = 1,
    WIRE_BLOCK_SERIES,
    WIRE_BLOCK_TEXTS,
    WIRE_BLOCK_METADATA,
    WIRE_BLOCK_PROOF, /* last: the answer is whole */
    WIRE_BLOCK_ERROR, /* last: what came before is void */
    WIRE_BLOCK_UNIT,  /* first of an answer with groups */
    WIRE_BLOCK_GROUPS,
    WIRE_BLOCK_TYPE_END,
};

struct wire_out;

/* write takes a whole block and may wait; what it returns but OK ends the answer and is returned by whatever
 * wrote. The head goes out with the first block. ERR_LIMIT. */
err wire_out_open(struct pool *pool, enum wire_kind kind, err (*write)(void *context, struct slice bytes),
                  void *context, struct wire_out **out_wire);

/* One series: canonical labels, rows, exemplars in time order. ERR_LIMIT, and write's. */
err wire_out_series(struct wire_out *out, struct slice labels, const struct sample_columns *columns,
                    const struct source_exemplar *exemplars, size_t exemplar_count);
/* One name or value, each above the one before. */
err wire_out_text(struct wire_out *out, struct slice text);
err wire_out_metadata(struct wire_out *out, const struct source_metadata *metadata);

/* What is known of a unit, before its first group; no more texts than fit a block. step_count and column_count of
 * each group. */
err wire_out_unit(struct wire_out *out, const struct source_groups *groups, uint64_t step_count,
                  uint32_t column_count);
err wire_out_group(struct wire_out *out, const struct source_group *group);

/* The last block, one of the two. series_over: the bound that was passed, or 0. */
err wire_out_proof(struct wire_out *out, const struct proof *proof);
err wire_out_error(struct wire_out *out, err error, uint64_t series_over);

/* ---- reading an answer ---- */

/* One answer being received. Zeroed but for pool and kind. */
struct wire_in {
    struct pool *pool; /* blocks are in it */
    enum wire_kind kind;
    uint8_t head[WIRE_BLOCK_HEAD_BYTES];
    size_t have; /* of head and body */
    uint8_t *body;
    uint32_t body_len;
    bool begun, ended;
    bool is_refused; /* who answers has not read the request: only an error can follow */
};

struct wire_block {
    enum wire_block_type type;
    struct slice body; /* in the pool of the wire_in, CODEC_PAD_BYTES readable behind it */
};

/* Take from *bytes until a block is whole. OK: a block; ERR_END: all of *bytes is taken, more is needed;
 * ERR_INPUT: damaged, invented or behind the end; ERR_VERSION; ERR_LIMIT (pool). */
err wire_in_next(struct wire_in *in, struct slice *bytes, struct wire_block *out_block);

/* Rows of one series as they came: the block must live as long. */
struct wire_piece {
    const uint8_t *times, *values, *starts, *histograms; /* starts NULL: none is set */
    const uint8_t *end;
    uint32_t rows;
    uint32_t histogram_count;
    int64_t first_ms, last_ms; /* with rows > 0 */
};

struct wire_entry {
    bool continues;      /* more of the series before, whose labels stand here again */
    struct slice labels; /* until the next entry is read */
    struct wire_piece piece;
    struct slice exemplars; /* for wire_exemplar_next */
    size_t exemplar_count;
};

/* Over the entries of series blocks, one block after the other. */
struct wire_series;
err wire_series_open(struct pool *pool, struct wire_series **out_series);
void wire_series_close(struct wire_series *series); /* NULL allowed */
void wire_series_block(struct wire_series *series, struct slice body);
/* OK, ERR_END, ERR_INPUT, ERR_LIMIT. The entry's rows were decoded once: reading them again cannot find
 * damage. */
err wire_series_next(struct wire_series *series, struct wire_entry *out_entry);

/* Append a checked piece's rows to columns, histograms copied to their pool. ERR_LIMIT. */
err wire_piece_read(const struct wire_piece *piece, struct sample_columns *columns);

struct wire_exemplars {
    struct reader reader;
    size_t left;
    int64_t t_ms;
};
static inline struct wire_exemplars wire_exemplars_of(const struct wire_entry *entry)
{
    return (struct wire_exemplars){ .reader = reader_of(entry->exemplars), .left = entry->exemplar_count };
}
/* False at the end. Labels are borrowed from the block. Entries are checked already. */
bool wire_exemplar_next(struct wire_exemplars *exemplars, struct source_exemplar *out_exemplar);

/* Append the texts of a block to *texts (a block of pool), copies in pool; before: the last of the block before.
 * ERR_INPUT, ERR_LIMIT. */
struct wire_texts {
    struct slice *items;
    size_t count, capacity;
};
err wire_texts_read(struct slice body, struct pool *pool, struct wire_texts *texts);

struct wire_metadata {
    struct source_metadata *items;
    size_t count, capacity;
};
/* The same of metadata, borrowed from the block. */
err wire_metadata_read(struct slice body, struct pool *pool, struct wire_metadata *metadata);

/* What a unit block says; texts are copied to pool, the proof is left alone. Its numbers are to be those asked
 * for. ERR_INPUT, ERR_LIMIT. */
err wire_unit_read(struct slice body, struct pool *pool, uint64_t step_count, uint32_t column_count,
                   struct source_groups *out_groups);

/* Over the groups of blocks, one block after the other. */
struct wire_groups;
err wire_groups_open(struct pool *pool, uint64_t step_count, uint32_t column_count,
                     struct wire_groups **out_groups);
void wire_groups_close(struct wire_groups *groups); /* NULL allowed */
void wire_groups_block(struct wire_groups *groups, struct slice body);

/* Some steps of a group as they came: the block must live as long. Of n steps a group has n ÷
 * WIRE_PIECE_ROW_COUNT_MAX pieces, rounded up, all but the last one full. */
struct wire_group {
    bool continues;      /* the group before */
    bool drop_name;      /* of one that begins */
    struct slice labels; /* until the next is read */
    const uint8_t *at, *end;
    uint32_t steps;
};
/* OK, ERR_END, ERR_INPUT, ERR_LIMIT. The columns were decoded once. */
err wire_groups_next(struct wire_groups *groups, struct wire_group *out_group);
/* Has the last group all its steps? */
bool wire_groups_are_whole(const struct wire_groups *groups);
/* Write a checked piece's columns, each from columns[i][0]. */
void wire_group_read(const struct wire_group *piece, uint32_t column_count, double *const columns[]);

/* Memory in pool; reasons become static texts, one that is not known PROOF_ELSEWHERE. ERR_INPUT, ERR_LIMIT. */
#define PROOF_ELSEWHERE   "lost at another node"
#define PROOF_NOT_APPLIED "not applied yet"
#define PROOF_UNANSWERED  "no replica answered"
err wire_proof_read(struct slice body, struct pool *pool, struct proof *out_proof);

/* The error that a node ended its answer with, never OK. *out_error and *out_series_over are set only when
 * this is OK. ERR_INPUT. */
err wire_error_read(struct slice body, err *out_error, uint64_t *out_series_over);

#endif
