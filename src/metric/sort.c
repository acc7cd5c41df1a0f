/* Radix sorts for the builders of index parts. See sort.h.
 *
 * Strings are sorted eight bytes at a time: the bytes at `depth` as a big-endian integer, zero-padded, with
 * the number of bytes that were really there (0 … 8, or 9 = more follow) as class. Runs of equal keys with
 * class 9 are sorted again eight bytes deeper.
 *
 * Invariants
 *  1. Padding is harmless: of two strings with equal keys the one with fewer real bytes is a prefix of the
 *     other, and the class puts it first.
 *  2. Recursion enters only proper sub-runs; a run that covers the whole range is looped over, so depth is
 *     bounded by the logarithm-like shape of common prefixes, at most by the number of items. */
#include "metric/sort.h"

#include "base/check.h"

#include <stdbool.h>
#include <string.h>

#define INSERTION_MAX 48
#define CLASS_MORE    9

static bool item_less(const struct sort_item *a, const struct sort_item *b)
{
    return a->key != b->key ? a->key < b->key : a->class < b->class;
}

static void sort_insertion(struct sort_item *items, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        struct sort_item item = items[i];
        size_t j = i;
        for (; j > 0 && item_less(&item, &items[j - 1]); j--)
            items[j] = items[j - 1];
        items[j] = item;
    }
}

static unsigned digit_of(const struct sort_item *item, unsigned pass)
{
    return pass == 0 ? item->class & 255 : (unsigned)(item->key >> 8 * (pass - 1)) & 255;
}

/* One stable pass over one byte; false when that byte is the same everywhere (nothing moved). */
static bool sort_pass(const struct sort_item *from, struct sort_item *to, size_t count, unsigned pass)
{
    size_t starts[256] = { 0 };
    for (size_t i = 0; i < count; i++)
        starts[digit_of(&from[i], pass)]++;
    if (starts[digit_of(&from[0], pass)] == count)
        return false;
    size_t sum = 0;
    for (unsigned d = 0; d < 256; d++) {
        size_t here = starts[d];
        starts[d] = sum;
        sum += here;
    }
    for (size_t i = 0; i < count; i++)
        to[starts[digit_of(&from[i], pass)]++] = from[i];
    return true;
}

void sort_items(struct sort_item *items, struct sort_item *scratch, size_t count)
{
    if (count <= INSERTION_MAX) {
        sort_insertion(items, count);
        return;
    }
    struct sort_item *from = items, *to = scratch;
    for (unsigned pass = 0; pass < 9; pass++) {
        if (sort_pass(from, to, count, pass)) {
            struct sort_item *swap = from;
            from = to;
            to = swap;
        }
    }
    if (from != items)
        memcpy(items, from, count * sizeof *items);
}

static void fill_key(struct sort_item *item, struct slice text, size_t depth)
{
    size_t left = text.len > depth ? text.len - depth : 0;
    uint8_t bytes[8] = { 0 };
    if (left >= 8)
        memcpy(bytes, text.at + depth, 8);
    else if (left > 0)
        memcpy(bytes, text.at + depth, left);
    uint64_t key;
    memcpy(&key, bytes, 8);
    item->key = __builtin_bswap64(key);
    item->class = left > 8 ? CLASS_MORE : (uint32_t)left;
}

static void sort_from(struct sort_item *items, struct sort_item *scratch, size_t count,
                      const struct slice *texts, size_t depth)
{
    for (;; depth += 8) {
        for (size_t i = 0; i < count; i++)
            fill_key(&items[i], texts[items[i].id], depth);
        sort_items(items, scratch, count);
        if (items[0].key == items[count - 1].key && items[0].class == CLASS_MORE)
            continue; /* all share these eight bytes */
        break;
    }
    for (size_t from = 0; from < count;) {
        size_t to = from + 1;
        while (to < count && items[to].key == items[from].key && items[to].class == items[from].class)
            to++;
        if (items[from].class == CLASS_MORE && to - from > 1) {
            check_hot(to - from < count);
            sort_from(items + from, scratch, to - from, texts, depth + 8);
        }
        from = to;
    }
}

void sort_strings(struct sort_item *items, struct sort_item *scratch, size_t count, const struct slice *texts)
{
    if (count > 1)
        sort_from(items, scratch, count, texts, 0);
}
