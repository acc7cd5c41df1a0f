/* Index part: series, symbols and postings of one tenant as one immutable byte image. The live index is
 * a list of parts in memory, a segment holds one as a section; this reader serves both.
 * Layout: docs/format/index.md.
 *
 * A series' ordinal is its place in the order of adding (0 …). Names and values are symbols; the symbol
 * table is sorted, so comparing symbol numbers compares strings.
 *
 * The image may come from a disk: the caller has checked its CRC, yet the reader trusts nothing, every
 * offset is bounded, hostile bytes give ERR_CORRUPT or wrong series, never a bad access. */
#ifndef METRIC_INDEX_PART_H
#define METRIC_INDEX_PART_H

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "model/matcher.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define METRIC_PART_SERIES_MAX      (1u << 24)   /* of one part */
#define METRIC_PART_IMAGE_BYTES_MAX (UINT32_MAX) /* offsets are 32 bits */

/* ---- builder ---- */
struct metric_part_builder;

/* Open a builder; all its memory hangs below `parent`. ERR_LIMIT. Owner: one thread. */
err metric_part_builder_open(struct pool *parent, struct metric_part_builder **out_builder);
void metric_part_builder_close(struct metric_part_builder *builder); /* NULL is allowed */

/* Add the next series; its ordinal is the number of series added before. The builder does not look for
 * duplicates. labels: canonical. ERR_INPUT malformed, ERR_LIMIT. Cost ~200 ns. */
err metric_part_builder_add(struct metric_part_builder *builder, struct slice labels);
/* Add the series of a part in their order, only those whose bit is set in keep (NULL = all). Cheaper than
 * adding labels: strings are looked at once per pair. ERR_CORRUPT, ERR_LIMIT. Cost ~100 ns a series. */
struct metric_part;
err metric_part_builder_add_part(struct metric_part_builder *builder, const struct metric_part *part,
                                 const uint64_t *keep);
uint32_t metric_part_builder_count(const struct metric_part_builder *builder);
/* Bytes the builder holds now, to stop it at a budget. */
size_t metric_part_builder_bytes(const struct metric_part_builder *builder);

/* Append the image of the series added so far to out (no alignment needed). ERR_LIMIT. The builder may
 * only be closed afterwards. Deterministic: equal series in equal order give equal bytes. */
err metric_part_builder_finish(struct metric_part_builder *builder, struct buf *out);

/* ---- reader ---- */
struct metric_part {
    struct slice image; /* borrowed, must outlive the part */
    uint32_t series_count;
    uint32_t symbol_count;
    uint32_t name_count;
    uint32_t pair_count;    /* distinct (name, value) */
    uint64_t posting_count; /* labels of all series together */
    uint32_t shape_count;   /* distinct lists of label names */
    struct slice symbol_index, symbol_text, names, pairs, shape_index, shapes, block_index, blocks, postings;
};

/* Open a reader over an image: checks header, version and section bounds, O(1), no allocation. Reading is
 * safe from any number of threads. ERR_CORRUPT, ERR_VERSION. */
err metric_part_open(struct slice image, struct metric_part *out_part);

/* Append the canonical labels of a series to out. ERR_CORRUPT, ERR_NOT_FOUND (no such ordinal), ERR_LIMIT
 * (out's maximum). Cost ~0.3 us. */
err metric_part_labels(const struct metric_part *part, uint32_t ordinal, struct buf *out);

/* Ordinals of the series that satisfy all matchers, ascending, as an arena array of pool (scratch is in
 * the same pool). Meaning as in Prometheus: an absent label is an empty value. No matchers: all series.
 * ERR_CORRUPT, ERR_LIMIT. Cost: postings read; a pattern runs once per distinct value of its name. */
err metric_part_select(const struct metric_part *part, const struct matcher *matchers, size_t matcher_count,
                       struct pool *pool, uint32_t **out_ordinals, size_t *out_count);

/* Label names, sorted; slices borrow the image, the array is arena memory. With ordinals (ascending) only
 * names that one of these series has. ERR_CORRUPT, ERR_LIMIT. */
err metric_part_names(const struct metric_part *part, const uint32_t *ordinals, size_t ordinal_count,
                      struct pool *pool, struct slice **out_names, size_t *out_count);

/* Values of a name, sorted, as above; ordinals NULL = of all series. An unknown name has none. */
err metric_part_values(const struct metric_part *part, struct slice name, const uint32_t *ordinals,
                       size_t ordinal_count, struct pool *pool, struct slice **out_values, size_t *out_count);

/* Walk all series in order as lists of pair numbers (ascending): what merging and verifying read. */
struct metric_part_cursor {
    const struct metric_part *part;
    uint32_t next; /* ordinal that the next call yields */
    struct reader block;
    uint32_t shape;
    uint32_t count;         /* labels of the current series */
    uint32_t *names;        /* LABEL_COUNT_MAX each, in the pool given: name numbers … */
    uint32_t *pairs;        /* … and pair numbers of the current series */
    uint32_t *before_names; /* the same of the series before */
    uint32_t *before_pairs;
};
/* Start at any ordinal. part may be NULL until one is given below. ERR_LIMIT. */
err metric_part_cursor_open(const struct metric_part *part, struct pool *pool,
                            struct metric_part_cursor *out_cursor);
/* Go on with another part, with the memory the cursor has. */
void metric_part_cursor_turn(struct metric_part_cursor *cursor, const struct metric_part *part);
/* Decode series `ordinal` into count, names, pairs; going forward inside a block is cheap. ERR_CORRUPT,
 * ERR_NOT_FOUND. */
err metric_part_cursor_seek(struct metric_part_cursor *cursor, uint32_t ordinal);
/* Append the canonical labels of the current series. ERR_CORRUPT, ERR_LIMIT. */
err metric_part_cursor_labels(const struct metric_part_cursor *cursor, struct buf *out);

/* Walk the (name, value) pairs in order of name, then value, with the number of series of each:
 * pair in [0, pair_count). ERR_CORRUPT. */
struct metric_part_pair {
    struct slice name;
    struct slice value;
    uint32_t series_count;
};
err metric_part_pair_at(const struct metric_part *part, uint32_t pair, struct metric_part_pair *out_pair);

/* Read everything and check that it fits together (series against postings, order of the tables). For
 * fsck and verify after a build. ERR_CORRUPT, ERR_LIMIT. */
err metric_part_verify(const struct metric_part *part, struct pool *scratch);

#endif
