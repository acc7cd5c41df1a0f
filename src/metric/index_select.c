/* Matchers over an index part: which series, names, values. See index_part.h.
 *
 * Every matcher becomes a clause: pairs whose series are kept (the matcher refuses an absent label) or pairs
 * whose series are dropped (it accepts one). Clauses are applied cheapest first: literals by the length of
 * their posting list, then patterns. Once few candidates are left, further clauses look at the candidates'
 * own labels instead of reading long lists or running a pattern over many values.
 *
 * Meaning (Prometheus): an absent label is the empty value. So for a clause only two facts count: does the
 * matcher accept "", and which values does it accept.
 *
 * Invariants
 *  1. Candidates are ascending and unique at every step.
 *  2. A pattern runs at most once per distinct value, or once per candidate. */
#include "metric/index_part.h"

#include "base/check.h"
#include "metric/index_part_read.h"
#include "model/labels.h"

/* Looking at one candidate's label costs about as much as reading this many postings, or running a
 * pattern over an eighth as many values: 250 ns against 2 ns and 100 ns. */
#define CANDIDATE_COST 64
#define PATTERN_COST   32

struct clause {
    const struct matcher *m;
    uint32_t name;     /* UINT32_MAX: no series has it */
    uint32_t from, to; /* its pairs */
    bool drop;         /* accepts an absent label: series of refused values are dropped */
    bool pattern;      /* a regex must run per value */
    uint64_t work;     /* estimated cost in postings */
};

struct ordinals {
    uint32_t *at;
    size_t count;
};

static bool is_regex(const struct matcher *m) { return m->type == MATCH_REGEX || m->type == MATCH_NOT_REGEX; }
static bool is_negative(const struct matcher *m)
{
    return m->type == MATCH_NOT_EQUAL || m->type == MATCH_NOT_REGEX;
}

/* Is the matcher a set of literals that are fewer than the values? */
static bool takes_set(const struct clause *c)
{
    return is_regex(c->m) && c->m->set_count > 0 && c->m->set_count <= c->to - c->from;
}

/* ---- which pairs ---- */

struct pair_list {
    uint32_t *at;
    size_t count;
};

static err list_value(const struct metric_part *part, const struct clause *c, struct slice value,
                      struct pair_list *list)
{
    uint32_t pair;
    struct slice text;
    TRY(part_value_bound(part, value, c->from, c->to, &pair));
    if (pair == c->to)
        return OK;
    TRY(part_value_text(part, pair, &text));
    if (slice_equal(text, value))
        list->at[list->count++] = pair;
    return OK;
}

/* Pairs whose value begins with prefix: [*out_from, *out_to). */
static err prefix_range(const struct metric_part *part, const struct clause *c, struct slice prefix,
                        uint32_t *out_from, uint32_t *out_to)
{
    uint32_t from, to = c->to;
    TRY(part_value_bound(part, prefix, c->from, c->to, &from));
    uint32_t low = from;
    while (low < to) {
        uint32_t middle = low + (to - low) / 2;
        struct slice text;
        TRY(part_value_text(part, middle, &text));
        if (slice_starts(text, prefix))
            low = middle + 1;
        else
            to = middle;
    }
    *out_from = from;
    *out_to = low;
    return OK;
}

/* Is the pattern its literal prefix and then ".*"? */
static bool is_prefix_only(const struct matcher *m)
{
    size_t len = m->prefix.len;
    return len > 0 && m->value.len == len + 2 && slice_starts(m->value, m->prefix) &&
           memcmp(m->value.at + len, ".*", 2) == 0;
}

/* Pairs whose value the positive form of the matcher accepts, ascending. list->at has room for them. */
static err list_accepted(const struct metric_part *part, const struct clause *c, struct pair_list *list)
{
    const struct matcher *m = c->m;
    if (!is_regex(m))
        return list_value(part, c, m->value, list);
    if (takes_set(c)) {
        for (size_t i = 0; i < m->set_count; i++)
            TRY(list_value(part, c, m->set[i], list));
        /* The set is in the pattern's order and may repeat: insertion keeps it a short sorted list. */
        size_t kept = 0;
        for (size_t i = 0; i < list->count; i++) {
            uint32_t pair = list->at[i];
            size_t k = kept;
            while (k > 0 && list->at[k - 1] > pair)
                k--;
            if (k > 0 && list->at[k - 1] == pair)
                continue;
            memmove(list->at + k + 1, list->at + k, (kept - k) * sizeof pair);
            list->at[k] = pair;
            kept++;
        }
        list->count = kept;
        return OK;
    }
    uint32_t from = c->from, to = c->to;
    bool all = slice_equal_str(m->value, ".*") || slice_equal_str(m->value, ".+") || is_prefix_only(m);
    if (m->prefix.len > 0)
        TRY(prefix_range(part, c, m->prefix, &from, &to));
    for (uint32_t pair = from; pair < to; pair++) {
        struct slice text;
        TRY(part_value_text(part, pair, &text));
        if (all || matcher_matches(m, text) != is_negative(m))
            list->at[list->count++] = pair;
    }
    return OK;
}

/* The pairs a clause works with: those it keeps, or those it drops. */
static err list_pairs(const struct metric_part *part, const struct clause *c, struct pool *pool,
                      struct pair_list *out_list)
{
    struct pair_list list = { 0 };
    void *at;
    size_t most = c->to - c->from;
    size_t room = !is_regex(c->m) ? 1 : takes_set(c) ? c->m->set_count : most;
    TRY(pool_alloc(pool, (room + 1) * sizeof(uint32_t), &at));
    list.at = at;
    TRY(list_accepted(part, c, &list));
    bool want_accepted = is_negative(c->m) == c->drop; /* keep & positive, or drop & negative */
    if (!want_accepted) {
        TRY(pool_alloc(pool, (most + 1) * sizeof(uint32_t), &at));
        struct pair_list rest = { .at = at };
        size_t k = 0;
        for (uint32_t pair = c->from; pair < c->to; pair++) {
            if (k < list.count && list.at[k] == pair)
                k++;
            else
                rest.at[rest.count++] = pair;
        }
        list = rest;
    }
    *out_list = list;
    return OK;
}

/* ---- candidates ---- */

static err all_series(const struct metric_part *part, struct pool *pool, struct ordinals *out)
{
    void *at;
    TRY(pool_alloc(pool, ((size_t)part->series_count + 1) * sizeof(uint32_t), &at));
    uint32_t *list = at;
    for (uint32_t i = 0; i < part->series_count; i++)
        list[i] = i;
    *out = (struct ordinals){ .at = list, .count = part->series_count };
    return OK;
}

static err union_bits(const struct metric_part *part, const struct pair_list *pairs, struct pool *pool,
                      struct part_sink *out_sink)
{
    void *at;
    TRY(pool_zalloc(pool, ((size_t)part->series_count / 64 + 1) * 8, &at));
    struct part_sink sink = { .bits = at };
    for (size_t i = 0; i < pairs->count; i++)
        TRY(part_posting_read(part, pairs->at[i], &sink));
    *out_sink = sink;
    return OK;
}

/* The union of the pairs' lists as the first candidates. */
static err union_list(const struct metric_part *part, const struct pair_list *pairs, struct pool *pool,
                      struct ordinals *out)
{
    void *at;
    if (pairs->count <= 1) {
        uint32_t count = 0;
        if (pairs->count == 1)
            TRY(part_posting_count(part, pairs->at[0], &count));
        TRY(pool_alloc(pool, ((size_t)count + 1) * sizeof(uint32_t), &at));
        struct part_sink sink = { .at = at };
        if (pairs->count == 1)
            TRY(part_posting_read(part, pairs->at[0], &sink));
        *out = (struct ordinals){ .at = sink.at, .count = sink.count };
        return OK;
    }
    struct part_sink bits;
    TRY(union_bits(part, pairs, pool, &bits));
    size_t most = bits.count < part->series_count ? bits.count : part->series_count;
    TRY(pool_alloc(pool, (most + 1) * sizeof(uint32_t), &at));
    struct ordinals list = { .at = at };
    for (uint32_t w = 0; w <= part->series_count / 64; w++)
        for (uint64_t word = bits.bits[w]; word != 0; word &= word - 1)
            list.at[list.count++] = w * 64 + (uint32_t)__builtin_ctzll(word);
    *out = list;
    return OK;
}

/* Keep (or drop) the candidates that are in the union of the pairs' lists. */
static err filter_by_lists(const struct metric_part *part, const struct pair_list *pairs, bool drop,
                           struct pool *pool, struct ordinals *candidates)
{
    struct part_sink bits;
    TRY(union_bits(part, pairs, pool, &bits));
    size_t kept = 0;
    for (size_t i = 0; i < candidates->count; i++) {
        uint32_t ordinal = candidates->at[i];
        bool in = (bits.bits[ordinal / 64] >> ordinal % 64 & 1) != 0;
        if (in != drop)
            candidates->at[kept++] = ordinal;
    }
    candidates->count = kept;
    return OK;
}

/* The current series' value of a name, empty when it has none. */
static err cursor_value(const struct metric_part_cursor *cursor, uint32_t name, struct slice *out_value)
{
    for (uint32_t i = 0; i < cursor->count && cursor->names[i] <= name; i++)
        if (cursor->names[i] == name)
            return part_value_text(cursor->part, cursor->pairs[i], out_value);
    *out_value = slice_of("", 0);
    return OK;
}

static err filter_by_labels(const struct metric_part *part, const struct clause *clauses, size_t clause_count,
                            struct pool *pool, struct ordinals *candidates)
{
    struct metric_part_cursor cursor;
    TRY(metric_part_cursor_open(part, pool, &cursor));
    size_t kept = 0;
    for (size_t i = 0; i < candidates->count; i++) {
        TRY(metric_part_cursor_seek(&cursor, candidates->at[i]));
        bool fits = true;
        for (size_t c = 0; c < clause_count && fits; c++) {
            struct slice value;
            TRY(cursor_value(&cursor, clauses[c].name, &value));
            fits = matcher_matches(clauses[c].m, value);
        }
        if (fits)
            candidates->at[kept++] = candidates->at[i];
    }
    candidates->count = kept;
    return OK;
}

/* ---- plan ---- */

static err clause_of(const struct metric_part *part, const struct matcher *m, struct pool *pool,
                     struct clause *out)
{
    struct clause c = { .m = m, .drop = matcher_matches_empty(m) };
    TRY(part_find_name(part, m->name, &c.name));
    if (c.name != UINT32_MAX) {
        TRY(part_name_pairs(part, c.name, &c.from, &c.to));
        c.pattern = is_regex(m) && m->set_count == 0;
        c.work = part_name_series(part, c.name);
        if (c.pattern)
            c.work += (uint64_t)(c.to - c.from) * PATTERN_COST;
        if (!c.pattern && is_negative(m) == c.drop) { /* few pairs: their postings are cheap to count */
            struct pair_list pairs;
            TRY(list_pairs(part, &c, pool, &pairs));
            c.work = pairs.count;
            for (size_t i = 0; i < pairs.count; i++) {
                uint32_t count;
                TRY(part_posting_count(part, pairs.at[i], &count));
                c.work += count;
            }
        }
    }
    *out = c;
    return OK;
}

/* Clauses in the order of applying: those that keep before those that drop, cheaper first. */
static void order_clauses(struct clause *clauses, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        struct clause c = clauses[i];
        size_t k = i;
        for (; k > 0 && (c.drop < clauses[k - 1].drop ||
                         (c.drop == clauses[k - 1].drop && c.work < clauses[k - 1].work));
             k--)
            clauses[k] = clauses[k - 1];
        clauses[k] = c;
    }
}

err metric_part_select(const struct metric_part *part, const struct matcher *matchers, size_t matcher_count,
                       struct pool *pool, uint32_t **out_ordinals, size_t *out_count)
{
    void *at;
    size_t clause_count = 0;
    bool none = false;
    TRY(pool_alloc(pool, (matcher_count + 1) * sizeof(struct clause), &at));
    struct clause *clauses = at;
    for (size_t i = 0; i < matcher_count; i++) {
        struct clause c;
        TRY(clause_of(part, &matchers[i], pool, &c));
        if (c.name == UINT32_MAX)
            none |= !c.drop; /* nobody has the label: everyone's value is empty */
        else
            clauses[clause_count++] = c;
    }
    order_clauses(clauses, clause_count);
    struct ordinals candidates = { 0 };
    bool started = none;
    for (size_t i = 0; i < clause_count && !none; i++) {
        const struct clause *c = &clauses[i];
        if (started && candidates.count * CANDIDATE_COST <= c->work) {
            TRY(filter_by_labels(part, c, 1, pool, &candidates));
        } else {
            struct pair_list pairs;
            TRY(list_pairs(part, c, pool, &pairs));
            if (!started && !c->drop) {
                TRY(union_list(part, &pairs, pool, &candidates));
            } else {
                if (!started)
                    TRY(all_series(part, pool, &candidates));
                if (pairs.count > 0 || !c->drop)
                    TRY(filter_by_lists(part, &pairs, c->drop, pool, &candidates));
            }
            started = true;
        }
        none = candidates.count == 0;
    }
    if (!started)
        TRY(all_series(part, pool, &candidates));
    *out_ordinals = candidates.at;
    *out_count = candidates.count;
    return OK;
}

/* ---- names and values ---- */

/* Mark in `seen` (a byte each) the names of these series: one look per distinct shape in a row. */
static err mark_names(const struct metric_part *part, const uint32_t *ordinals, size_t count,
                      struct pool *pool, uint8_t *seen)
{
    struct metric_part_cursor cursor;
    uint32_t shape = UINT32_MAX;
    TRY(metric_part_cursor_open(part, pool, &cursor));
    for (size_t i = 0; i < count; i++) {
        TRY(metric_part_cursor_seek(&cursor, ordinals[i]));
        if (cursor.shape == shape)
            continue;
        shape = cursor.shape;
        for (uint32_t k = 0; k < cursor.count; k++)
            seen[cursor.names[k]] = 1;
    }
    return OK;
}

err metric_part_names(const struct metric_part *part, const uint32_t *ordinals, size_t ordinal_count,
                      struct pool *pool, struct slice **out_names, size_t *out_count)
{
    void *names_at, *seen_at;
    TRY(pool_alloc(pool, ((size_t)part->name_count + 1) * sizeof(struct slice), &names_at));
    TRY(pool_zalloc(pool, (size_t)part->name_count + 1, &seen_at));
    struct slice *names = names_at;
    uint8_t *seen = seen_at;
    if (ordinals != NULL)
        TRY(mark_names(part, ordinals, ordinal_count, pool, seen));
    size_t count = 0;
    for (uint32_t name = 0; name < part->name_count; name++)
        if (ordinals == NULL || seen[name])
            TRY(part_name_text(part, name, &names[count++]));
    *out_names = names;
    *out_count = count;
    return OK;
}

static err mark_values(const struct metric_part *part, uint32_t name, uint32_t first_pair,
                       const uint32_t *ordinals, size_t count, struct pool *pool, uint8_t *seen)
{
    struct metric_part_cursor cursor;
    TRY(metric_part_cursor_open(part, pool, &cursor));
    for (size_t i = 0; i < count; i++) {
        TRY(metric_part_cursor_seek(&cursor, ordinals[i]));
        for (uint32_t k = 0; k < cursor.count && cursor.names[k] <= name; k++)
            if (cursor.names[k] == name)
                seen[cursor.pairs[k] - first_pair] = 1;
    }
    return OK;
}

err metric_part_values(const struct metric_part *part, struct slice name, const uint32_t *ordinals,
                       size_t ordinal_count, struct pool *pool, struct slice **out_values, size_t *out_count)
{
    void *values_at, *seen_at;
    uint32_t number, from = 0, to = 0;
    TRY(part_find_name(part, name, &number));
    if (number != UINT32_MAX)
        TRY(part_name_pairs(part, number, &from, &to));
    TRY(pool_alloc(pool, ((size_t)(to - from) + 1) * sizeof(struct slice), &values_at));
    TRY(pool_zalloc(pool, (size_t)(to - from) + 1, &seen_at));
    struct slice *values = values_at;
    uint8_t *seen = seen_at;
    if (ordinals != NULL && from < to)
        TRY(mark_values(part, number, from, ordinals, ordinal_count, pool, seen));
    size_t count = 0;
    for (uint32_t pair = from; pair < to; pair++)
        if (ordinals == NULL || seen[pair - from])
            TRY(part_value_text(part, pair, &values[count++]));
    *out_values = values;
    *out_count = count;
    return OK;
}
