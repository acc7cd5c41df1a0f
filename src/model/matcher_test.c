/* Goal: matchers answer as RE2 does whatever was peeled off the pattern, and what was peeled is right. Method: a
 * table, and random patterns over a small alphabet compared with the pattern alone. */
#include "model/matcher.h"

#include "base/test.h"
#include "model/labels.h"
#include "model/sample.h"
#include "shim/regex.h"

static struct matcher make(struct pool *pool, enum match_type type, const char *value)
{
    struct matcher m;
    assert_ok(matcher_init(pool, type, slice_str("a"), slice_str(value), &m, NULL));
    return m;
}

static bool matches(struct pool *pool, enum match_type type, const char *pattern, const char *value)
{
    struct matcher m = make(pool, type, pattern);
    bool result = matcher_matches(&m, slice_str(value));
    matcher_done(&m);
    return result;
}

static void test_types(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    assert_true(matches(pool, MATCH_EQUAL, "x", "x"));
    assert_false(matches(pool, MATCH_EQUAL, "x", "y"));
    assert_true(matches(pool, MATCH_EQUAL, "", ""));
    assert_true(matches(pool, MATCH_NOT_EQUAL, "x", ""));
    assert_true(matches(pool, MATCH_REGEX, "a|b", "b"));
    assert_false(matches(pool, MATCH_REGEX, "a|b", "ab"));
    assert_true(matches(pool, MATCH_NOT_REGEX, "a.*", "b"));
    assert_true(matches(pool, MATCH_REGEX, "a.b", "a\nb"));
    assert_true(matches(pool, MATCH_REGEX, "(?i)abc", "aBC"));
    struct matcher m = make(pool, MATCH_REGEX, "x*");
    assert_true(matcher_matches_empty(&m));
    matcher_done(&m);
    struct err_at at = { 0 };
    assert_err(ERR_INPUT, matcher_init(pool, MATCH_REGEX, slice_str("a"), slice_str("("), &m, &at));
    assert_true(at.text[0] != 0);
    pool_close(pool);
}

static void test_peeling(void **state)
{
    static const struct {
        const char *pattern;
        size_t set_count;
        const char *last; /* of the set */
        const char *prefix;
    } cases[] = {
        { "abc", 1, "abc", "abc" },
        { "a|b|c", 3, "c", "" },
        { "a\\.b", 1, "a.b", "a.b" },
        { "", 1, "", "" },
        { "a|", 2, "", "" },
        { "foo(a|b)", 2, "foob", "foo" },
        { "foo(?:a|b)bar", 2, "foobbar", "foo" },
        { "(a|b)", 2, "b", "" },
        { "foo.*", 0, NULL, "foo" },
        { "foo?", 0, NULL, "fo" },
        { "foo+", 0, NULL, "fo" },
        { "fo\xc3\xa9*", 0, NULL, "fo" },
        { "a|b.*", 0, NULL, "" },
        { "foo(a|b)*", 0, NULL, "" },
        { "^foo$", 0, NULL, "" },
        { "a(b(c|d))", 0, NULL, "" },
        { "foo[ab]", 0, NULL, "foo" },
        { "a\\d", 0, NULL, "a" },
        { "a{2}", 0, NULL, "" },
        { "ab(?i)*", 0, NULL, "a" }, /* flags are nothing: the star means b */
        { "ab(?i){0}", 0, NULL, "a" },
        { "ab\\Q\\E*", 0, NULL, "a" },
        { "ab(?:c)*", 0, NULL, "ab" },
    };
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct matcher m = make(pool, MATCH_REGEX, cases[i].pattern);
        assert_int_equal(cases[i].set_count, m.set_count);
        if (m.set_count > 0)
            assert_true(slice_equal_str(m.set[m.set_count - 1], cases[i].last));
        if (!slice_equal_str(m.prefix, cases[i].prefix))
            fail_msg("prefix of %s: %.*s", cases[i].pattern, SLICE_ARG(m.prefix));
        matcher_done(&m);
    }
    pool_close(pool);
}

static void test_random(void **state)
{
    struct test_random random = test_random_begin("matcher");
    static const char alphabet[] = "aab|()?*.\\";
    for (int i = 0; i < 20000; i++) {
        struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
        char pattern[10], value[4];
        size_t len = test_random_below(&random, 9), value_len = test_random_below(&random, 4);
        for (size_t k = 0; k < len; k++)
            pattern[k] = alphabet[test_random_below(&random, sizeof alphabet - 1)];
        for (size_t k = 0; k < value_len; k++)
            value[k] = "ab."[test_random_below(&random, 3)];
        struct matcher m;
        if (matcher_init(pool, MATCH_REGEX, slice_str("a"), slice_of(pattern, len), &m, NULL) == OK) {
            bool want = regex_full_match(m.regex, slice_of(value, value_len));
            if (matcher_matches(&m, slice_of(value, value_len)) != want)
                fail_msg("%.*s on %.*s", (int)len, pattern, (int)value_len, value);
            bool in_set = false;
            for (size_t k = 0; k < m.set_count; k++)
                in_set |= slice_equal(m.set[k], slice_of(value, value_len));
            if (m.set_count > 0 && in_set != want)
                fail_msg("set of %.*s on %.*s", (int)len, pattern, (int)value_len, value);
            matcher_done(&m);
        }
        pool_close(pool);
    }
}

static void test_labels(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct buf buf = buf_open(pool, LABELS_BYTES_MAX);
    labels_put(&buf, slice_str("a"), slice_str("x"));
    struct matcher m[2] = { make(pool, MATCH_EQUAL, "x"), make(pool, MATCH_REGEX, "y.*") };
    assert_true(matchers_match(m, 1, buf_slice(&buf)));
    assert_false(matchers_match(m, 2, buf_slice(&buf)));
    matcher_done(&m[1]);
    pool_close(pool);
}

static void test_columns(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct sample_columns c = sample_columns_open(pool);
    for (int i = 0; i < 100; i++)
        assert_ok(sample_columns_add(&c, i, i * 2, 0));
    assert_null(c.start_ms);
    assert_ok(sample_columns_add_histogram(&c, 100, slice_str("h"), 7));
    assert_int_equal(101, c.count);
    assert_int_equal(100, c.histograms[0].row);
    assert_int_equal(0, c.start_ms[99]);
    assert_int_equal(7, c.start_ms[100]);
    sample_columns_clear(&c);
    assert_int_equal(0, c.count + c.histogram_count);
    assert_err(ERR_LIMIT, sample_columns_reserve(&c, SIZE_MAX));
    pool_set_budget(pool, pool_used(pool));
    assert_err(ERR_LIMIT, sample_columns_reserve(&c, 1 << 20));
    sample_columns_close(&c);
    pool_close(pool);
}

/* Patterns count with what they may take, and give it back. */
static void patterns_are_charged(void **state)
{
    struct pool *small = pool_open(NULL, "small", (2u << 20) + 4096),
                *large = pool_open(NULL, "large", 9u << 20);
    struct matcher m[3];
    struct err_at at = { 0 };
    assert_ok(matcher_init(small, MATCH_REGEX, slice_str("a"), slice_str("x.*y"), &m[0], &at));
    assert_ok(matcher_init(small, MATCH_REGEX, slice_str("a"), slice_str("x.+y"), &m[1], &at));
    assert_err(ERR_LIMIT, matcher_init(small, MATCH_REGEX, slice_str("a"), slice_str("x.?y"), &m[2], &at));
    assert_int_equal(at.text[0], 0);
    matcher_done(&m[0]);
    assert_ok(matcher_init(small, MATCH_REGEX, slice_str("a"), slice_str("x.?y"), &m[2], &at));
    matcher_done(&m[1]);
    matcher_done(&m[2]);
    pool_close(small);
    assert_ok(matcher_init(large, MATCH_REGEX, slice_str("a"), slice_str("\\pL{100}"), &m[0],
                           &at)); /* not in 1 MB */
    assert_true(pool_used(large) > 8u << 20);
    matcher_done(&m[0]);
    assert_err(ERR_LIMIT,
               matcher_init(large, MATCH_REGEX, slice_str("a"), slice_str("(\\pL{100}){10}"), &m[0], &at));
    assert_non_null(strstr(at.text, "too large"));
    pool_close(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),  cmocka_unit_test(test_peeling), cmocka_unit_test(test_random),
        cmocka_unit_test(test_labels), cmocka_unit_test(test_columns), cmocka_unit_test(patterns_are_charged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
