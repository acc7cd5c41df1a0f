/* "Did you mean …?": how much two names differ. */
#ifndef BASE_NEAREST_H
#define BASE_NEAREST_H

#include "base/slice.h"

/* Levenshtein distance of what a person wrote to a known name, when that is near enough to be meant: at most 3
 * edits and half of the name's bytes. SIZE_MAX: it is not, or one of them has more than 64 bytes. */
size_t nearest_distance(struct slice text, struct slice name);

#endif
