/* Distance between names. See nearest.h. Called with what people write and the program's own names: options,
 * commands, keys of configuration. Memory is one row of the table, which bounds the length. */
#include "base/nearest.h"

#define NAME_BYTES_MAX 64
#define NEAR_EDITS_MAX 3

static size_t distance(struct slice a, struct slice b)
{
    size_t row[NAME_BYTES_MAX + 1];
    for (size_t k = 0; k <= b.len; k++)
        row[k] = k;
    for (size_t i = 1; i <= a.len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t k = 1; k <= b.len; k++) {
            size_t best = diagonal + (a.at[i - 1] != b.at[k - 1]);
            if (row[k] + 1 < best)
                best = row[k] + 1;
            if (row[k - 1] + 1 < best)
                best = row[k - 1] + 1;
            diagonal = row[k];
            row[k] = best;
        }
    }
    return row[b.len];
}

size_t nearest_distance(struct slice text, struct slice name)
{
    size_t apart = text.len > name.len ? text.len - name.len : name.len - text.len;
    if (text.len > NAME_BYTES_MAX || name.len > NAME_BYTES_MAX || apart > NEAR_EDITS_MAX)
        return SIZE_MAX;
    size_t d = distance(text, name);
    return d <= NEAR_EDITS_MAX && d * 2 <= name.len ? d : SIZE_MAX;
}
