/* Regular expressions with RE2 semantics behind a C face (shim/regex.cc). Linear time always. */
#ifndef SHIM_REGEX_H
#define SHIM_REGEX_H

#include "base/err.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct regex;

#define REGEX_MEMORY_BYTES_MAX  (8 << 20)
#define REGEX_PATTERN_BYTES_MAX 65536

/* Compile, '.' matching newline, \C refused. memory_max: bytes that it may take, compiled and while it matches, at
 * most REGEX_MEMORY_BYTES_MAX; less makes long texts slower, not wrong. ERR_INPUT with RE2's message in at;
 * ERR_LIMIT: too long, or too large for memory_max, likewise. */
err regex_open(struct slice pattern, size_t memory_max, struct regex **out_regex, struct err_at *at);
void regex_close(struct regex *regex);

/* Does the whole text match? Thread-safe. */
bool regex_full_match(const struct regex *regex, struct slice text);

/* Number of capturing groups, and the name of one ("" when unnamed; borrowed). Groups count from 1. */
int regex_group_count(const struct regex *regex);
struct slice regex_group_name(const struct regex *regex, int group);

/* Whole-text match with captures: groups[0] is the text, groups[i] group i (at == NULL: took no part).
 * group_max entries are written. */
bool regex_full_match_groups(const struct regex *regex, struct slice text, struct slice *groups,
                             int group_max);

#ifdef __cplusplus
}
#endif

#endif
