/* Any text as a pattern (its first line) and values (the other lines): the matcher, which takes literals out of
 * patterns, and the plain regular expression agree on every value; the set is exactly what the pattern matches. */
#include "base/check.h"
#include "model/matcher.h"
#include "shim/regex.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool in_set(const struct matcher *m, struct slice value)
{
    for (size_t i = 0; i < m->set_count; i++)
        if (slice_equal(m->set[i], value))
            return true;
    return false;
}

static void compare(const struct matcher *m, const struct matcher *opposite, struct slice value)
{
    bool matches = regex_full_match(m->regex, value);
    check(matcher_matches(m, value) == matches && matcher_matches(opposite, value) != matches);
    check(!matches || slice_starts(value, m->prefix));
    check(m->set_count == 0 || in_set(m, value) == matches);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pool *pool = pool_open(NULL, "fuzz", 64u << 20);
    const uint8_t *end = size == 0 ? NULL : memchr(data, '\n', size);
    struct slice pattern = slice_of(data, end == NULL ? size : (size_t)(end - data));
    struct matcher m, opposite;
    struct err_at at = { 0 };
    err e = matcher_init(pool, MATCH_REGEX, slice_str("a"), pattern, &m, &at);
    check(e != ERR_INPUT || at.text[0] != 0);
    if (e == OK) {
        check(matcher_init(pool, MATCH_NOT_REGEX, slice_str("a"), pattern, &opposite, &at) == OK);
        check(matcher_matches_empty(&m) == regex_full_match(m.regex, slice_of("", 0)));
        compare(&m, &opposite, pattern);
        for (size_t i = 0; i < m.set_count; i++)
            compare(&m, &opposite, m.set[i]);
        for (size_t from = pattern.len + 1, lines = 0; from < size && lines < 100; lines++) {
            end = memchr(data + from, '\n', size - from);
            size_t to = end == NULL ? size : (size_t)(end - data);
            compare(&m, &opposite, slice_of(data + from, to - from));
            from = to + 1;
        }
        matcher_done(&opposite);
        matcher_done(&m);
    }
    pool_close(pool);
    return 0;
}
