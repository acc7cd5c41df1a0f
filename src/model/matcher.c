/* Matchers. A pattern is compiled once by RE2; what is plain text in it is peeled off beforehand, so
 * that an index looks literals up in its postings instead of running the pattern over every value.
 *
 * Peeling reads the pattern by a tiny grammar and gives up (leaving set and prefix empty) at anything else:
 *     pattern = literals [ '(' ['?:'] literals { '|' literals } ')' [ literals ] ]  |  literals { '|' literals }
 * Invariants: 1. With set_count > 0 the set is exactly the language of the pattern. 2. prefix begins
 * every match; both are proper optimisations, matcher_matches gives the same answer without them. */
#include "model/matcher.h"

#include "base/bytes.h"
#include "base/check.h"
#include "model/labels.h"
#include "shim/regex.h"

#include <string.h>

#define SET_COUNT_MAX 1024

static bool is_meta(uint8_t c) { return c < 0x80 && c != 0 && strchr("\\.+*?()|[]{}^$", c) != NULL; }

/* May a quantifier behind p mean what stands before p? Flags, (?i), and an empty quotation, \Q\E, are nothing,
 * and a quantifier behind them means what was before them. */
static bool is_quantified(const uint8_t *p, const uint8_t *end)
{
    if (p == end)
        return false;
    bool is_pair = p + 1 < end;
    return *p == '*' || *p == '?' || *p == '{' || *p == '+' || (*p == '\\' && is_pair && p[1] == 'Q') ||
           (*p == '(' && is_pair && p[1] == '?' && !(p + 2 < end && p[2] == ':'));
}

/* Copy the literal run at *at to out (unescaped), stopping at a meta character. A quantifier behind the run
 * takes its last code point away. Returns the bytes written. */
static size_t literal_run(const uint8_t **at, const uint8_t *end, uint8_t *out)
{
    size_t len = 0, last = 0;
    const uint8_t *p = *at, *last_at = *at;
    while (p < end) {
        const uint8_t *begin = p;
        uint8_t c = *p;
        if (c == '\\') {
            if (p + 1 == end || p[1] >= 0x80 || (p[1] != '-' && !is_meta(p[1])))
                break;
            c = p[1];
            p++;
        } else if (is_meta(c) || c == 0) {
            break;
        }
        p++;
        if ((c & 0xc0) != 0x80) {
            last = len;
            last_at = begin;
        }
        out[len++] = c;
    }
    if (len > 0 && is_quantified(p, end)) {
        len = last;
        p = last_at;
    }
    *at = p;
    return len;
}

struct peel {
    struct slice *set;
    size_t count;
    uint8_t *text; /* where literals are unescaped to; large enough for the whole pattern */
    size_t text_len;
};

/* literals { '|' literals } up to `stop` (')' or the end). False: something else is in there. */
static bool peel_alternatives(struct peel *peel, const uint8_t **at, const uint8_t *end, bool in_group)
{
    for (;;) {
        uint8_t *text = peel->text + peel->text_len;
        size_t len = literal_run(at, end, text);
        if (peel->count == SET_COUNT_MAX)
            return false;
        peel->set[peel->count++] = slice_of(text, len);
        peel->text_len += len;
        if (*at == end)
            return !in_group;
        if (**at == ')' && in_group) {
            ++*at;
            return true;
        }
        if (**at != '|')
            return false;
        ++*at;
    }
}

static size_t alternative_count(struct slice pattern)
{
    size_t count = 1;
    for (size_t i = 0; i < pattern.len; i++)
        count += pattern.at[i] == '|';
    return count;
}

/* prefix + alternative + suffix for every alternative, in place of the alternatives. */
static err join_set(struct pool *pool, struct peel *peel, struct slice prefix, struct slice suffix)
{
    for (size_t i = 0; i < peel->count; i++) {
        size_t len = prefix.len + peel->set[i].len + suffix.len;
        void *joined;
        TRY(pool_alloc(pool, len + 1, &joined));
        uint8_t *out = joined;
        memcpy(out, prefix.at, prefix.len);
        if (peel->set[i].len > 0)
            memcpy(out + prefix.len, peel->set[i].at, peel->set[i].len);
        if (suffix.len > 0)
            memcpy(out + prefix.len + peel->set[i].len, suffix.at, suffix.len);
        peel->set[i] = slice_of(out, len);
    }
    return OK;
}

static err matcher_peel(struct pool *pool, struct matcher *m)
{
    size_t alternatives = alternative_count(m->value);
    if (alternatives > SET_COUNT_MAX)
        return OK;
    struct peel peel = { 0 };
    void *memory;
    TRY(pool_alloc(pool, alternatives * sizeof *peel.set, &memory));
    peel.set = memory;
    TRY(pool_alloc(pool, m->value.len + 1, &memory));
    peel.text = memory;

    const uint8_t *at = m->value.at, *end = at + m->value.len;
    if (peel_alternatives(&peel, &at, end, false)) {
        m->set = peel.set;
        m->set_count = peel.count;
        if (peel.count == 1)
            m->prefix = peel.set[0];
        return OK;
    }
    if (memchr(m->value.at, '|', m->value.len) == NULL)
        m->prefix = peel.set[0]; /* no alternative at all: the first run begins every match */
    if (peel.count != 1 || *at != '(')
        return OK;

    struct slice prefix = peel.set[0];
    peel.count = 0;
    at++;
    if (end - at >= 2 && at[0] == '?' && at[1] == ':')
        at += 2;
    if (!peel_alternatives(&peel, &at, end, true))
        return OK;
    uint8_t *text = peel.text + peel.text_len;
    struct slice suffix = slice_of(text, literal_run(&at, end, text));
    if (at != end)
        return OK;
    TRY(join_set(pool, &peel, prefix, suffix));
    m->prefix = prefix;
    m->set = peel.set;
    m->set_count = peel.count;
    return OK;
}

/* A few bytes of pattern can ask for megabytes, and a query can hold thousands of patterns: each counts with all
 * that it may come to take. Few need more than the first size. */
static err compile(struct pool *pool, struct matcher *m, struct err_at *at)
{
    static const size_t sizes[] = { REGEX_MEMORY_BYTES_MAX / 8, REGEX_MEMORY_BYTES_MAX };
    err e = ERR_LIMIT;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && e == ERR_LIMIT; i++) {
        struct err_at why = { 0 };
        TRY(pool_charge(pool, sizes[i]));
        e = regex_open(m->value, sizes[i], &m->regex, &why);
        if (e == OK) {
            m->pool = pool;
            m->charged = sizes[i];
            return OK;
        }
        pool_uncharge(pool, sizes[i]);
        if (at != NULL)
            *at = why;
    }
    return e;
}

err matcher_init(struct pool *pool, enum match_type type, struct slice name, struct slice value,
                 struct matcher *out_matcher, struct err_at *at)
{
    struct matcher m = { .type = type };
    TRY(pool_copy(pool, name, &m.name));
    TRY(pool_copy(pool, value, &m.value));
    if (type == MATCH_REGEX || type == MATCH_NOT_REGEX) {
        TRY(matcher_peel(pool, &m));
        TRY(compile(pool, &m, at));
    }
    *out_matcher = m;
    return OK;
}

void matcher_done(struct matcher *m)
{
    if (m->regex == NULL)
        return;
    regex_close(m->regex);
    pool_uncharge(m->pool, m->charged);
    m->regex = NULL;
}

static bool pattern_matches(const struct matcher *m, struct slice value)
{
    if (m->set_count > 0 && m->set_count <= 8) {
        for (size_t i = 0; i < m->set_count; i++)
            if (slice_equal(m->set[i], value))
                return true;
        return false;
    }
    if (m->prefix.len > 0 && !slice_starts(value, m->prefix))
        return false;
    return regex_full_match(m->regex, value);
}

bool matcher_matches(const struct matcher *m, struct slice value)
{
    switch (m->type) {
    case MATCH_EQUAL:
        return slice_equal(m->value, value);
    case MATCH_NOT_EQUAL:
        return !slice_equal(m->value, value);
    case MATCH_REGEX:
        return pattern_matches(m, value);
    case MATCH_NOT_REGEX:
        return !pattern_matches(m, value);
    }
    check(false);
    return false;
}

bool matcher_matches_empty(const struct matcher *m) { return matcher_matches(m, slice_of("", 0)); }

bool matchers_match(const struct matcher *matchers, size_t count, struct slice labels)
{
    for (size_t i = 0; i < count; i++)
        if (!matcher_matches(&matchers[i], labels_get(labels, matchers[i].name)))
            return false;
    return true;
}
