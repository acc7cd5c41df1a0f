/* What the files that read index parts share; not part of the room's door. All check what they read and
 * answer ERR_CORRUPT. Numbers given in are below the part's counts (checked). */
#ifndef METRIC_INDEX_PART_READ_H
#define METRIC_INDEX_PART_READ_H

#include "metric/index_part.h"

err part_name_text(const struct metric_part *part, uint32_t name, struct slice *out_text);
err part_name_pairs(const struct metric_part *part, uint32_t name, uint32_t *out_from, uint32_t *out_to);
uint32_t part_name_series(const struct metric_part *part, uint32_t name);
err part_value_text(const struct metric_part *part, uint32_t pair, struct slice *out_text);

/* Number of a name; UINT32_MAX when there is none. */
err part_find_name(const struct metric_part *part, struct slice name, uint32_t *out_name);

/* First pair of [from, to), pairs of one name, whose value is not below `value`. */
err part_value_bound(const struct metric_part *part, struct slice value, uint32_t from, uint32_t to,
                     uint32_t *out_pair);

/* Name numbers of a shape, ascending, into an array of LABEL_COUNT_MAX. */
err part_shape_names(const struct metric_part *part, uint32_t shape, uint32_t *names, uint32_t *out_count);

/* Append the canonical labels of the cursor's current series. */
err part_put_labels(const struct metric_part_cursor *cursor, struct buf *out);

/* Where ordinals go: an array with room for a whole posting list (its count, at most series_count), or
 * bits. Counts both ways. */
struct part_sink {
    uint32_t *at;
    size_t count;
    uint64_t *bits;
};
err part_posting_count(const struct metric_part *part, uint32_t pair, uint32_t *out_count);
err part_posting_read(const struct metric_part *part, uint32_t pair, struct part_sink *sink);

#endif
