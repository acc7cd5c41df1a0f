/* Sorting for builders: radix sorts, so that no input is slow and nothing allocates but the given scratch. */
#ifndef METRIC_SORT_H
#define METRIC_SORT_H

#include "base/slice.h"

#include <stddef.h>
#include <stdint.h>

struct sort_item {
    uint64_t key;
    uint32_t id;
    uint32_t class; /* decides between equal keys; at most 255 */
};

/* Sort by (key, class), stable. scratch holds as many items. Cost 8 bytes of key: at most 9 passes, those
 * over constant bytes are skipped. */
void sort_items(struct sort_item *items, struct sort_item *scratch, size_t count);

/* Sort items by the strings texts[item.id], byte order, a prefix first. key and class are overwritten.
 * Equal strings end up side by side in order of id as given. */
void sort_strings(struct sort_item *items, struct sort_item *scratch, size_t count,
                  const struct slice *texts);

#endif
