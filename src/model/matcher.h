/* Matchers of selectors: name = "v", != , =~ , !~ (RE2, fully anchored, '.' matches newline). */
#ifndef MODEL_MATCHER_H
#define MODEL_MATCHER_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>

enum match_type { MATCH_EQUAL, MATCH_NOT_EQUAL, MATCH_REGEX, MATCH_NOT_REGEX };

struct regex; /* compiled; shim/regex.h */

struct matcher {
    enum match_type type;
    struct slice name;
    struct slice value;  /* literal, or the pattern */
    struct regex *regex; /* for the two regex types, NULL otherwise */
    struct pool *pool;   /* that it is charged to */
    size_t charged;
    /* Literals peeled from the pattern, so that indexes need not run it (NULL/empty when none): */
    const struct slice *set; /* the pattern is exactly an alternation of these literals */
    size_t set_count;
    struct slice prefix; /* every match begins with this */
};

/* Build a matcher in the pool (copies name and value; a pattern is charged with what it may take). ERR_INPUT: the
 * pattern does not compile, ERR_LIMIT: it is too large, text in at; or the pool's budget, no text. The regex is
 * freed by matcher_done, before the pool. */
err matcher_init(struct pool *pool, enum match_type type, struct slice name, struct slice value,
                 struct matcher *out_matcher, struct err_at *at);
void matcher_done(struct matcher *m);

/* Does this value (empty = label absent) satisfy the matcher? Thread-safe. */
bool matcher_matches(const struct matcher *m, struct slice value);

/* Would an absent label satisfy it? */
bool matcher_matches_empty(const struct matcher *m);

/* Do canonical labels satisfy all matchers? */
bool matchers_match(const struct matcher *matchers, size_t count, struct slice labels);

#endif
