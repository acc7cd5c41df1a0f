/* Goal: what configuration relies on: positions in errors, unknown and double keys, the strict subset, every
 * scalar kind, bounds. Method: tables of texts with the value or the message that must come out. */
#include "base/test.h"

#include "model/yaml.h"

static struct pool *root;

static struct yaml_node *parse_ok(const char *text)
{
    struct yaml_node *node;
    struct err_at at = { 0 };
    err e = yaml_parse(slice_str(text), root, &node, &at);
    if (e != OK)
        fail_msg("%s: %s", text, at.text);
    return node;
}

static void assert_parse_fails(const char *text, err expected, const char *message)
{
    struct yaml_node *node;
    struct err_at at = { 0 };
    assert_err(expected, yaml_parse(slice_str(text), root, &node, &at));
    assert_string_equal(at.text, message);
}

static void test_tree(void **state)
{
    struct yaml_node *node = parse_ok("a: 1\nb:\n  - x\n  - \"y z\"\nc: {d: , e: []}\n");
    assert_int_equal(node->type, YAML_MAP);
    assert_int_equal(node->count, 3);
    struct yaml_node *b = yaml_get(node, "b");
    assert_int_equal(b->type, YAML_SEQUENCE);
    assert_int_equal(b->count, 2);
    assert_int_equal(b->items[1]->line, 4);
    assert_int_equal(b->items[1]->column, 5);
    assert_true(slice_equal_str(b->items[1]->text, "y z"));
    struct yaml_node *c = yaml_get(node, "c");
    assert_true(yaml_is_null(yaml_get(c, "d")));
    assert_int_equal(yaml_get(c, "e")->count, 0);
    assert_int_equal(parse_ok("")->type, YAML_MAP);
    assert_int_equal(parse_ok("# only a comment\n")->count, 0);
    assert_int_equal(parse_ok("[]")->count, 0); /* nothing was ever pending */
    assert_int_equal(parse_ok("[{\"targets\": [\"a:1\"], \"labels\": {\"x\": \"y\"}}]")->count, 1);
}

static void test_refusals(void **state)
{
    assert_parse_fails("a: &x 1\nb: *x\n", ERR_INPUT,
                       "line 1 column 4: anchors and aliases are not supported");
    assert_parse_fails("b: *x\n", ERR_INPUT, "line 1 column 4: anchors and aliases are not supported");
    assert_parse_fails("b: !!str 1\n", ERR_INPUT, "line 1 column 4: tags are not supported");
    assert_parse_fails("a: 1\nb: 2\na: 3\n", ERR_INPUT, "line 3 column 1: key \"a\" is given twice");
    assert_parse_fails("---\na: 1\n---\nb: 1\n", ERR_INPUT, "line 3 column 1: more than one document");
    assert_parse_fails("? [a]\n: 1\n", ERR_INPUT, "line 1 column 3: a key must be a plain text");
    assert_parse_fails("a: \"\\0\"\n", ERR_INPUT, "line 1 column 4: a zero byte in a text");
    assert_parse_fails("a: [1\nb: 2\n", ERR_INPUT, "line 2 column 2: did not find expected ',' or ']'");
    assert_parse_fails("a: \xff\n", ERR_INPUT, "line 1 column 4: invalid leading UTF-8 octet");
    assert_parse_fails("# \xc3\xa9\na:\t}\n", ERR_INPUT,
                       "line 2 column 4: did not find expected node content");
    assert_parse_fails("# \xc3\xa9\xe2\x82\xac\xf0\x9f\x8c\x8a\r\na:\n\tb: 1\n", ERR_INPUT,
                       "line 3 column 1: a tab where YAML wants spaces");
    assert_parse_fails("\xef\xbb\xbf"
                       "a:\n\tb: 1\n",
                       ERR_INPUT, "line 2 column 1: a tab where YAML wants spaces");
    assert_parse_fails("\t# \xff\n", ERR_INPUT, "line 1 column 4: invalid leading UTF-8 octet");
    assert_parse_fails("a: \xc3\xa9\nb: \xc3\xa9\x01\n", ERR_INPUT,
                       "line 2 column 5: control characters are not allowed");
    char deep[201];
    memset(deep, '[', 200);
    deep[200] = 0;
    assert_parse_fails(deep, ERR_LIMIT, "line 1 column 65: nested more than 64 deep");
}

static void test_scalars(void **state)
{
    struct yaml_node *node = parse_ok("s: \"12\"\nb: yes\ni: -42\nd: 1.5e3\nt: 1h30m\ny: 512MB\np: 25%\n"
                                      "q: 0.5\n"
                                      "n: ~\nk: [1, 2]\nm: {a: b}\ne: two\n");
    struct slice s = slice_of(NULL, 0);
    bool b = false;
    int64_t i = 0, t = 0;
    double d = 0, p = 0, q = 0;
    uint64_t y = 0;
    struct yaml_node **items;
    struct yaml_node *map;
    size_t count, index = 9;
    static const char *const names[] = { "one", "two" };
    assert_ok(yaml_get_string(node, "s", &s, NULL));
    assert_true(slice_equal_str(s, "12"));
    assert_ok(yaml_get_bool(node, "b", &b, NULL));
    assert_true(b);
    assert_ok(yaml_get_int(node, "i", -50, 50, &i, NULL));
    assert_int_equal(i, -42);
    assert_ok(yaml_get_double(node, "d", &d, NULL));
    assert_true(d == 1500);
    assert_ok(yaml_get_duration(node, "t", &t, NULL));
    assert_int_equal(t, 90 * 60000);
    assert_ok(yaml_get_bytes(node, "y", &y, NULL));
    assert_int_equal(y, 512u << 20);
    assert_ok(yaml_get_percent(node, "p", &p, NULL));
    assert_true(p == 0.25);
    assert_ok(yaml_get_percent(node, "q", &q, NULL));
    assert_true(q == 0.5);
    assert_ok(yaml_get_enum(node, "e", names, 2, &index, NULL));
    assert_int_equal(index, 1);
    assert_ok(yaml_get_sequence(node, "k", &items, &count, NULL));
    assert_int_equal(count, 2);
    assert_ok(yaml_get_map(node, "m", &map, NULL));
    assert_non_null(map);

    /* absent and null leave what was there */
    assert_ok(yaml_get_string(node, "absent", &s, NULL));
    assert_ok(yaml_get_string(node, "n", &s, NULL));
    assert_true(slice_equal_str(s, "12"));
    assert_ok(yaml_get_sequence(node, "n", &items, &count, NULL));
    assert_int_equal(count, 0);
    assert_ok(yaml_get_map(node, "n", &map, NULL));
    assert_null(map);

    /* and the wrong kinds are named */
    struct err_at at;
    assert_err(ERR_INPUT, yaml_get_int(node, "s", 0, 50, &i, &at));
    assert_string_equal(at.text, "line 1 column 4: expected a whole number, got \"12\"");
    assert_err(ERR_INPUT, yaml_get_int(node, "i", 0, 50, &i, &at));
    assert_string_equal(at.text, "line 3 column 4: -42 is not between 0 and 50");
    assert_err(ERR_INPUT, yaml_get_bool(node, "k", &b, &at));
    assert_string_equal(at.text, "line 10 column 4: expected true or false, got a list");
    assert_err(ERR_INPUT, yaml_get_duration(node, "m", &t, &at));
    assert_err(ERR_INPUT, yaml_get_double(node, "t", &d, &at));
    assert_err(ERR_INPUT, yaml_get_bytes(node, "t", &y, &at));
    assert_err(ERR_INPUT, yaml_get_percent(node, "t", &p, &at));
    assert_err(ERR_INPUT, yaml_get_map(node, "s", &map, &at));
    assert_err(ERR_INPUT, yaml_get_sequence(node, "s", &items, &count, &at));
    assert_err(ERR_INPUT, yaml_string(yaml_get(node, "n"), &s, &at));
    assert_err(ERR_INPUT, yaml_get_enum(node, "s", names, 2, &index, &at));
    assert_string_equal(at.text, "line 1 column 4: expected one of one, two, got \"12\"");
}

static void test_durations(void **state)
{
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {
        { "0", 0 },
        { "0s", 0 },
        { "15s", 15000 },
        { "100ms", 100 },
        { "1m30s", 90000 },
        { "1y", 31536000000 },
        { "1w2d3h4m5s6ms", 788645006 },
        { "2m", 120000 },
    };
    static const char *const bad[] = { "",
                                       "s",
                                       "15",
                                       "1s1m",
                                       "1s1s",
                                       "-1s",
                                       "1.5s",
                                       "1S",
                                       "1 s",
                                       "99999999999999999999s",
                                       "999999999999999s",
                                       "1sm" };
    int64_t ms;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(yaml_duration_parse(slice_str(good[i].text), &ms));
        assert_int_equal(ms, good[i].ms);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(yaml_duration_parse(slice_str(bad[i]), &ms));
}

static void test_bytes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        { "0", 0 },           { "10", 10 },     { "10B", 10 },
        { "1KB", 1024 },      { "1KiB", 1024 }, { "1.5GB", 3ull << 29 },
        { "2T", 2ull << 40 },
    };
    static const char *const bad[] = { "MB", "1XB", "1MBB", "-1", "99999999EB", "\"\"", "1..2" };
    uint64_t bytes;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_ok(yaml_bytes(parse_ok(good[i].text), &bytes, NULL));
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_err(ERR_INPUT, yaml_bytes(parse_ok(bad[i]), &bytes, NULL));
}

static void test_unknown_key(void **state)
{
    struct yaml_node *node = parse_ok("job_name: a\nscrape_intervall: 15s\n");
    struct slice s;
    struct err_at at;
    assert_ok(yaml_map_begin(node, &at));
    assert_ok(yaml_get_string(node, "job_name", &s, &at));
    assert_err(ERR_INPUT, yaml_map_end(node, &at));
    assert_string_equal(at.text, "line 2 column 1: unknown key \"scrape_intervall\"");
    assert_int_equal(at.line, 2);
    assert_int_equal(at.column, 1);
    assert_null(yaml_get(node, "scrape_intrval")); /* the nearest one that was asked for is named */
    assert_null(yaml_get(node, "scrape_interval"));
    assert_null(yaml_get(node, "scrape_timeout"));
    for (int i = 0; i < 1000; i++) /* however much is asked for in between */
        assert_null(yaml_get(node, "not_like_it"));
    assert_err(ERR_INPUT, yaml_map_end(node, &at));
    assert_string_equal(at.text,
                        "line 2 column 1: unknown key \"scrape_intervall\", did you mean scrape_interval?");
    assert_non_null(yaml_get(node, "scrape_intervall"));
    assert_ok(yaml_map_end(node, &at));
    node = parse_ok("labels: {jop: x}\ntargest: []\n"); /* what was asked for in another map does not count */
    assert_null(yaml_get(node, "job"));
    assert_null(yaml_find(node, "targets")); /* nor what was only looked up */
    assert_err(ERR_INPUT, yaml_map_end(yaml_get(node, "labels"), &at));
    assert_string_equal(at.text, "line 1 column 10: unknown key \"jop\"");
    assert_err(ERR_INPUT, yaml_map_end(node, &at));
    assert_string_equal(at.text, "line 2 column 1: unknown key \"targest\"");
    assert_null(yaml_get(node, "targets"));
    assert_err(ERR_INPUT, yaml_map_end(node, &at));
    assert_string_equal(at.text, "line 2 column 1: unknown key \"targest\", did you mean targets?");
    assert_err(ERR_INPUT, yaml_map_begin(parse_ok("- a"), &at));
    assert_string_equal(at.text, "line 1 column 1: expected a map, got a list");
}

/* Every allocation may fail; nothing leaks or crashes (the sanitizer build watches). */
static void test_torture(void **state)
{
    static const char text[] = "a: [1, 2, {b: c}]\nd: {e: [f, g], h: i}\n";
    for (uint64_t nth = 1;; nth++) {
        struct pool *tree = pool_open(NULL, "yaml_torture", POOL_BYTES_UNLIMITED);
        struct yaml_node *node;
        pool_fault_at(tree, nth, true);
        err e = yaml_parse(slice_str(text), tree, &node, NULL);
        pool_fault_at(tree, 0, false);
        pool_close(tree);
        if (e == OK)
            break;
        assert_int_equal(e, ERR_LIMIT);
        assert_true(nth < 1000);
    }
}

/* Random edits of a real document: an error with a position, or a tree; never a crash. */
static void test_random_damage(void **state)
{
    static const char text[] = "global:\n  scrape_interval: 15s\nscrape_configs:\n  - job_name: \"x\"\n"
                               "    params: {a: [b]}\n";
    struct test_random r = test_random_begin("yaml damage");
    for (int round = 0; round < 3000; round++) {
        char copy[sizeof text];
        memcpy(copy, text, sizeof text);
        for (uint64_t edits = 1 + test_random_below(&r, 4); edits > 0; edits--)
            copy[test_random_below(&r, sizeof text - 1)] =
                "\n :-[]{},&*!|>'\"%@`#?\t\xc3x"[test_random_below(&r, 24)];
        struct pool *tree = pool_open(root, "yaml_damage", 1 << 20);
        struct yaml_node *node;
        struct err_at at = { 0 };
        if (yaml_parse(slice_of(copy, sizeof text - 1), tree, &node, &at) != OK)
            assert_true(strncmp(at.text, "line ", 5) == 0 && at.line > 0 && at.column > 0);
        pool_close(tree);
    }
}

int main(void)
{
    root = pool_open(NULL, "yaml_test", POOL_BYTES_UNLIMITED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_scalars), cmocka_unit_test(test_durations),
        cmocka_unit_test(test_bytes),   cmocka_unit_test(test_unknown_key),
        cmocka_unit_test(test_torture), cmocka_unit_test(test_random_damage),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_close(root);
    return failed;
}
