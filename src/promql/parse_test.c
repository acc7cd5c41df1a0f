/* Goal: the lexer and parser accept what PromQL is, refuse what it is not with Prometheus' texts and the right
 * position, and survive monsters within their bounds. Method: tables of texts; random bytes and random cuts of
 * good queries must give a tree or an error, never more. */
#include "promql/promql.h"

#include "base/test.h"
#include "promql/ast.h"
#include "promql/lex.h"

static err parse(const char *text, struct pool *pool, struct promql_expr **out, struct err_at *at)
{
    memset(at, 0, sizeof *at);
    return promql_parse(slice_str(text), pool, out, at);
}

static void test_good(void **state)
{
    static const struct {
        const char *text;
        enum promql_type type;
    } cases[] = {
        { "1", PROMQL_SCALAR },
        { "1 + 2 ^ 3 ^ 2", PROMQL_SCALAR },
        { "-1^2", PROMQL_SCALAR },
        { "0x1F + 017", PROMQL_SCALAR },
        { "1e3 + 1_000 + .5 + 5. + 5m + 1h30m + Inf - nAn", PROMQL_SCALAR },
        { "\"a\\n\\x41\\u00e9\\101\"", PROMQL_STRING },
        { "`raw\\`", PROMQL_STRING },
        { "'it\\''", PROMQL_STRING },
        { "foo", PROMQL_VECTOR },
        { "job:x:rate5m", PROMQL_VECTOR },
        { ":x", PROMQL_VECTOR },
        { "foo{}", PROMQL_VECTOR },
        { "foo{a=\"b\",c!='d',e=~`f.*`,g!~\"h\",}", PROMQL_VECTOR },
        { "{__name__=\"x\"}", PROMQL_VECTOR },
        { "{\"my.metric\", \"l.x\"=\"v\"}", PROMQL_VECTOR },
        { "{\"a\", \"b\"}", PROMQL_VECTOR }, /* twice is for the braces alone to say, as in Prometheus */
        { "{\"a\", __name__=\"b\"}", PROMQL_VECTOR },
        { "{__name__=~\"a.*\", \"b\"}", PROMQL_VECTOR },
        { "foo[5m]", PROMQL_MATRIX },
        { "foo[300]", PROMQL_MATRIX },
        { "foo[5m*2+step()]", PROMQL_MATRIX },
        { "foo[1h:5m]", PROMQL_MATRIX },
        { "foo[1h:]", PROMQL_MATRIX },
        { "rate(foo[5m])[1h:step()]", PROMQL_MATRIX },
        { "foo offset 5m", PROMQL_VECTOR },
        { "foo offset -5m", PROMQL_VECTOR },
        { "foo offset (1h/2)", PROMQL_VECTOR },
        { "foo offset -min_of(step(), 5m)", PROMQL_VECTOR },
        { "foo @ 100", PROMQL_VECTOR },
        { "foo @ -1.5", PROMQL_VECTOR },
        { "foo @ start() offset 5m", PROMQL_VECTOR },
        { "foo offset 5m @ end()", PROMQL_VECTOR },
        { "foo[5m] @ 1m40s offset 50", PROMQL_MATRIX },
        { "foo[5m:] @ 10 offset 1m", PROMQL_MATRIX },
        { "sum(foo)", PROMQL_VECTOR },
        { "SUM BY (a, b,) (foo)", PROMQL_VECTOR },
        { "sum(foo) without (a)", PROMQL_VECTOR },
        { "sum by (\"l.x\", by, on) (foo)", PROMQL_VECTOR },
        { "sum", PROMQL_VECTOR },
        { "sum{a=\"b\"}", PROMQL_VECTOR },
        { "by + offset + start + end + topk + without + group", PROMQL_VECTOR },
        { "topk(5, foo)", PROMQL_VECTOR },
        { "count_values(\"v\", foo)", PROMQL_VECTOR },
        { "quantile by (a) (0.5, foo)", PROMQL_VECTOR },
        { "a + on(x) group_left(y) b", PROMQL_VECTOR },
        { "a * ignoring() group_right b", PROMQL_VECTOR },
        { "a and b or c unless d", PROMQL_VECTOR },
        { "a AND ON (x) b", PROMQL_VECTOR },
        { "1 == bool 2", PROMQL_SCALAR },
        { "a > bool 1", PROMQL_VECTOR },
        { "a atan2 b", PROMQL_VECTOR },
        { "-foo ^ 2", PROMQL_VECTOR },
        { "+foo", PROMQL_VECTOR },
        { "time()", PROMQL_SCALAR },
        { "round(foo)", PROMQL_VECTOR },
        { "round(foo, 0.5)", PROMQL_VECTOR },
        { "hour()", PROMQL_VECTOR },
        { "label_join(foo, \"a\", \"-\")", PROMQL_VECTOR },
        { "label_join(foo, \"a\", \"-\", \"b\", \"c\", \"d\")", PROMQL_VECTOR },
        { "# a comment\n foo # another\n + bar", PROMQL_VECTOR },
        { "(((foo)))[5m:]", PROMQL_MATRIX },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
        struct promql_expr *expr;
        struct err_at at;
        err e = parse(cases[i].text, pool, &expr, &at);
        if (e != OK)
            fail_msg("%s: %s", cases[i].text, at.text);
        assert_int_equal(cases[i].type, promql_expr_type(expr));
        promql_expr_done(expr);
        pool_close(pool);
    }
}

static void test_bad(void **state)
{
    static const struct {
        const char *text;
        const char *message; /* a part of it */
        uint32_t line, column;
    } cases[] = {
        { "", "no expression found in input", 1, 1 },
        { "# only", "no expression found in input", 1, 1 },
        { "1 +", "unexpected end of input", 1, 4 },
        { "(1", "unclosed left parenthesis", 1, 1 },
        { "1)", "unexpected right parenthesis ')'", 1, 2 },
        { "foo bar", "unexpected identifier \"bar\"", 1, 5 },
        { "foo{", "unexpected end of input in label matching", 1, 5 },
        { "foo{a}", "expected label matching operator", 1, 6 },
        { "foo{a=1}", "expected string", 1, 7 },
        { "foo{a=\"b\" c=\"d\"}", "expected \",\" or \"}\"", 1, 11 },
        { "{}", "vector selector must contain at least one non-empty matcher", 1, 1 },
        { "{a=~\".*\"}", "vector selector must contain at least one non-empty matcher", 1, 1 },
        { "foo{__name__=\"bar\"}", "metric name must not be set twice", 1, 1 },
        { "foo{\"bar\"}", "metric name must not be set twice", 1, 1 },
        { "foo{a=~\"(\"}", "", 1, 5 },
        { "foo{a:b=\"c\"}", "unexpected", 1, 6 },
        { "foo[5m", "subquery or range", 1, 7 },
        { "foo[]", "duration expression", 1, 5 },
        { "foo[0s]", "duration must be greater than 0", 1, 5 },
        { "foo[5m/0]", "division by zero", 1, 5 },
        { "foo[5mx]", "bad number or duration syntax", 1, 5 },
        { "foo[1s1m]", "bad number or duration syntax", 1, 5 },
        { "foo[5m][5m]", "ranges only allowed for vector selectors", 1, 8 },
        { "sum(foo)[5m]", "ranges only allowed for vector selectors", 1, 9 },
        { "foo offset 5m [5m]", "no offset modifiers allowed before range", 1, 15 },
        { "foo @ 5 [5m]", "no @ modifiers allowed before range", 1, 9 },
        { "foo offset 5m offset 5m", "offset may not be set multiple times", 1, 15 },
        { "foo @ 5 @ 6", "@ <timestamp> may not be set multiple times", 1, 9 },
        { "sum(foo) offset 5m", "offset modifier must be preceded by", 1, 1 },
        { "1 @ 5", "@ modifier must be preceded by", 1, 1 },
        { "foo @ Inf", "timestamp out of bounds for @ modifier: +Inf", 1, 1 },
        { "rate(foo)", "expected type range vector in call to function \"rate\", got instant vector", 1, 6 },
        { "sum(foo[5m])", "expected type instant vector in aggregation expression, got range vector", 1, 5 },
        { "topk(foo)", "wrong number of arguments for aggregate expression provided, expected 2, got 1", 1,
          1 },
        { "sum()", "no arguments for aggregate expression provided", 1, 1 },
        { "nosuch(foo)", "unknown function with name \"nosuch\"", 1, 1 },
        { "sort_by_label(foo, \"a\")", "is not enabled", 1, 1 },
        { "abs()", "expected 1 argument(s) in call to \"abs\", got 0", 1, 1 },
        { "round(foo, 1, 2)", "expected at most 2 argument(s) in call to \"round\", got 3", 1, 1 },
        { "label_join(foo, \"a\")", "expected at least 3 argument(s) in call to \"label_join\", got 2", 1,
          1 },
        { "abs(foo,)", "trailing commas not allowed in function call args", 1, 8 },
        { "1 == 2", "comparisons between scalars must use BOOL modifier", 1, 3 },
        { "foo + bool bar", "bool modifier can only be used on comparison operators", 1, 5 },
        { "1 and foo", "set operator \"and\" not allowed in binary scalar expression", 1, 1 },
        { "foo and on(a) group_left bar", "no grouping allowed for \"and\" operation", 1, 1 },
        { "foo * on(inf) bar", "unexpected identifier \"inf\" in grouping opts", 1, 10 },
        { "1 + on(a) foo", "vector matching only allowed between instant vectors", 1, 1 },
        { "foo + on(a) group_left(a) bar", "must not occur in ON and GROUP clause at once", 1, 1 },
        { "foo + \"a\"", "binary expression must contain only scalar and instant vector types", 1, 7 },
        { "-\"a\"", "unary expression only allowed on expressions of type scalar or instant vector", 1, 1 },
        { "1[5m:]", "subquery is only allowed on instant vector, got scalar instead", 1, 1 },
        { "\"a", "unterminated quoted string", 1, 1 },
        { "`a", "unterminated raw string", 1, 1 },
        { "\"\\q\"", "escape", 1, 2 },
        { "foo ! bar", "unexpected character: '!'", 1, 5 },
        { "foo\n  + $", "unexpected character: '$'", 2, 5 },
        { "\xff", "unexpected character: 0xff", 1, 1 },
        { "foo </ 5", "histogram trim operators are not supported", 1, 5 },
        { "on", "unexpected identifier \"on\"", 1, 1 },
        { "08a", "bad number or duration syntax", 1, 1 },
        { "1.2.3", "bad number or duration syntax", 1, 1 },
        { "2 + 1e400", "parsing \"1e400\": value out of range", 1, 5 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
        struct promql_expr *expr;
        struct err_at at;
        err e = parse(cases[i].text, pool, &expr, &at);
        if (e != ERR_INPUT || strstr(at.text, cases[i].message) == NULL || at.line != cases[i].line ||
            at.column != cases[i].column)
            fail_msg("%s: %s, %u:%u \"%s\"", cases[i].text, err_text(e), at.line, at.column, at.text);
        pool_close(pool);
    }
}

static void repeat(char *out, size_t count, const char *part)
{
    out[0] = 0;
    size_t len = strlen(part);
    for (size_t i = 0; i < count; i++)
        memcpy(out + i * len, part, len + 1);
}

static void test_monsters(void **state)
{
    static char text[PROMQL_TEXT_BYTES_MAX + 1024];
    struct promql_expr *expr;
    struct err_at at;
    static const char *const parts[] = { "(",    "-",       "abs(", "sum(",  "foo[5m:", "1^",
                                         "foo+", "foo or ", "{",    "foo[(", "foo[-" };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
        repeat(text, 60000 / strlen(parts[i]), parts[i]);
        err e = parse(text, pool, &expr, &at);
        if (e != ERR_LIMIT && e != ERR_INPUT)
            fail_msg("%s…: %s", parts[i], err_text(e));
        pool_close(pool);
    }
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    repeat(text, 300, "(");
    assert_err(ERR_LIMIT, parse(text, pool, &expr, &at));
    repeat(text, PROMQL_TEXT_BYTES_MAX + 1, " ");
    assert_err(ERR_LIMIT, parse(text, pool, &expr, &at));
    /* many parts at little depth: calls of label_join with a thousand strings each */
    strcpy(text, "foo");
    for (int i = 0; i < 20; i++) {
        strcat(text, "+label_join(foo,\"a\",\"\"");
        for (int k = 0; k < 1000; k++)
            strcat(text, ",''");
        strcat(text, ")");
    }
    assert_err(ERR_LIMIT, parse(text, pool, &expr, &at));
    pool_close(pool);
    pool = pool_open(NULL, "test", 20000); /* the pool's budget */
    repeat(text, 200, "foo+");
    strcat(text, "foo");
    assert_err(ERR_LIMIT, parse(text, pool, &expr, &at));
    assert_string_equal("expression takes more memory than a query may use", at.text);
    assert_int_equal(at.line, 0); /* not the text's fault */
    pool_close(pool);
}

/* Messages show texts of any length, cut where a character ends. */
static void test_long_texts(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    static char name[2048], text[8192];
    struct promql_expr *expr;
    struct err_at at;
    for (size_t len = 1; len < 900; len++) {
        repeat(name, len, len % 2 == 0 ? "x" : "é");
        size_t shown = strlen(name) < 200 ? strlen(name) : 200;
        snprintf(text, sizeof text, "foo{__name__=\"%s\"}", name);
        assert_err(ERR_INPUT, parse(text, pool, &expr, &at));
        const char *begin = strstr(at.text, " or \"") + 5;
        assert_memory_equal(name, begin, shown);
        assert_string_equal("\"", begin + shown);
        snprintf(text, sizeof text, "foo + on(\"y%s\") group_left(\"y%s\") bar", name, name);
        assert_err(ERR_INPUT, parse(text, pool, &expr, &at));
        shown = strlen(name) < 200 ? strlen(name) + 1 : len % 2 == 0 ? 200 : 199;
        begin = strchr(at.text, '"') + 1;
        assert_memory_equal(name, begin + 1, shown - 1);
        assert_memory_equal("\" must not occur", begin + shown, 16);
    }
    pool_close(pool);
}

static void test_height(void **state)
{
    static char text[PROMQL_TEXT_BYTES_MAX + 1024];
    struct promql_expr *expr;
    struct err_at at;
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    repeat(text, PROMQL_DEPTH_MAX - 1, "foo+");
    strcat(text, "foo");
    assert_ok(parse(text, pool, &expr, &at));
    assert_int_equal(PROMQL_DEPTH_MAX, expr->root->height);
    promql_expr_done(expr);
    strcat(text, "+foo");
    assert_err(ERR_LIMIT, parse(text, pool, &expr, &at));
    assert_non_null(strstr(at.text, "nested deeper than 256 levels"));
    /* Parentheses, each closed behind a chain: little recursion, a high tree. */
    static const struct {
        const char *begin, *leaf, *part, *end;
        unsigned nest, count;
    } cases[] = {
        { "", "a", "+a", "", 34, 220 },
        { "", "a", "[1m:]", "", 20, 200 },
        { "sum(", "a", "+a", ")", 3, 100 },
        { "-", "a", "*a", "", 3, 100 },
        { "abs(", "a", "*2", ")", 10, 50 },
        { "topk(1,", "a", " or a", ")", 3, 100 },
        { "a[", "1s", "+1s", "]", 1, 8000 },
        { "a[1m:", "1s", "*1s", "]", 20, 200 },
        { "a offset ", "1s", "-1s", "", 20, 200 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        strcpy(text, cases[i].begin);
        repeat(text + strlen(text), cases[i].nest, "(");
        strcat(text, cases[i].leaf);
        for (unsigned k = 0; k < cases[i].nest; k++) {
            repeat(text + strlen(text), cases[i].count, cases[i].part);
            strcat(text, ")");
        }
        strcat(text, cases[i].end);
        err e = parse(text, pool, &expr, &at);
        if (e != ERR_LIMIT)
            fail_msg("%.40s: %s %s", text, err_text(e), at.text);
    }
    pool_close(pool);
}

static void test_selectors(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct promql_expr *expr;
    struct err_at at;
    struct promql_selector *selectors;
    size_t count;
    assert_ok(parse("sum(rate(a{x=\"1\"}[5m])) / on() max_over_time(b[1h:1m]) + c", pool, &expr, &at));
    assert_ok(promql_selectors(expr, pool, &selectors, &count));
    assert_int_equal(3, count);
    assert_int_equal(2, selectors[0].matcher_count);
    assert_true(slice_equal_str(selectors[0].matchers[0].value, "a"));
    assert_true(slice_equal_str(selectors[2].matchers[0].value, "c"));
    promql_expr_done(expr);

    assert_ok(promql_parse_selector(slice_str("up{job=~\"a|b\"}"), pool, &expr, &at));
    promql_expr_done(expr);
    assert_ok(promql_parse_selector(slice_str("{__name__!=\"\"}"), pool, &expr, &at));
    promql_expr_done(expr);
    assert_err(ERR_INPUT, promql_parse_selector(slice_str("up[5m]"), pool, &expr, &at));
    assert_err(ERR_INPUT, promql_parse_selector(slice_str("sum(up)"), pool, &expr, &at));
    assert_err(ERR_INPUT, promql_parse_selector(slice_str("1"), pool, &expr, &at));
    assert_err(ERR_INPUT, promql_parse_selector(slice_str("{a=~\"b*\"}"), pool, &expr, &at));
    pool_close(pool);
}

static void test_duration(void **state)
{
    int64_t ms;
    struct err_at at;
    assert_ok(promql_parse_duration(slice_str("1y2w3d4h5m6s7ms"), &ms, &at));
    assert_int_equal(INT64_C(31536000000) + 2 * INT64_C(604800000) + 3 * 86400000 + 4 * 3600000 + 5 * 60000 +
                         6007,
                     ms);
    assert_ok(promql_parse_duration(slice_str("0"), &ms, &at));
    assert_int_equal(0, ms);
    static const char *const bad[] = {
        "", "5", "m", "1m1h", "1m1m", "1.5h", "-1m", "1h ", "99999999999999999999s", "9999999999999y"
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_err(ERR_INPUT, promql_parse_duration(slice_str(bad[i]), &ms, &at));
}

static void test_random(void **state)
{
    struct test_random random = test_random_begin("parse");
    static const char good[] = "sum by (a) (rate(foo{a=~\"b.*\", c!='d'}[5m:1m] @ start() offset -5m)) "
                               "> bool on(x) group_left(y) topk(3, {\"q.r\"}) ^ 2 or absent(x)";
    char text[sizeof good + 8];
    for (int i = 0; i < 20000; i++) {
        struct pool *pool = pool_open(NULL, "test", 1 << 20);
        struct promql_expr *expr;
        struct err_at at;
        size_t len = 1 + test_random_below(&random, sizeof good - 1);
        memcpy(text, good, len);
        for (uint64_t n = test_random_below(&random, 4); n > 0; n--)
            text[test_random_below(&random, len)] = (char)test_random_u64(&random);
        if (promql_parse(slice_of(text, len), pool, &expr, &at) == OK)
            promql_expr_done(expr);
        pool_close(pool);
    }
}

/* Every allocation fails once: an error comes back and no regular expression is lost (the sanitizer looks). */
static void test_faults(void **state)
{
    for (uint64_t nth = 1;; nth++) {
        struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
        struct promql_expr *expr;
        struct err_at at;
        pool_fault_at(pool, nth, false);
        err e = parse("sum by (a) (rate(foo{a=~\"b|c\", d=~\"x.*\"}[5m])) / bar{e!~\"f\"}", pool, &expr, &at);
        pool_fault_at(pool, 0, false);
        if (e == OK)
            promql_expr_done(expr);
        pool_close(pool);
        if (e == OK)
            break;
        assert_err(ERR_LIMIT, e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),     cmocka_unit_test(test_bad),        cmocka_unit_test(test_monsters),
        cmocka_unit_test(test_height),   cmocka_unit_test(test_long_texts), cmocka_unit_test(test_selectors),
        cmocka_unit_test(test_duration), cmocka_unit_test(test_random),     cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
