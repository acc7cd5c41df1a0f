/* Goal: every action does what Prometheus does. Method: a table of rules (YAML), labels in, labels out; the
 * cases follow the behaviour of Prometheus 3's relabelling. */
#include "base/test.h"

#include "ingest/relabel.h"

static struct pool *root;

/* "a=1,b=2" → set */
static struct label_set parse_labels(const char *text)
{
    struct label_set set = { .pool = root };
    while (*text != 0) {
        const char *equal = strchr(text, '=');
        const char *end = strchr(text, ',');
        end = end != NULL ? end : text + strlen(text);
        assert_ok(label_set_put(&set, slice_of(text, (size_t)(equal - text)),
                                slice_of(equal + 1, (size_t)(end - equal - 1))));
        text = *end == 0 ? end : end + 1;
    }
    return set;
}

static err load(const char *rules, struct relabel_rules *out_rules, struct err_at *at)
{
    struct yaml_node *node;
    assert_ok(yaml_parse(slice_str(rules), root, &node, NULL));
    return relabel_rules_load(node->items, node->count, root, out_rules, at);
}

static int compare(const void *a, const void *b)
{
    return slice_compare(((const struct label *)a)->name, ((const struct label *)b)->name);
}

static void test_actions(void **state)
{
    static const struct {
        const char *rules, *in, *out;
    } cases[] = {
        /* replace */
        { "[{source_labels: [a], regex: f(.*), target_label: d, replacement: ch$1-ch$1}]", "a=foo,b=bar",
          "a=foo,b=bar,d=choo-choo" },
        { "[{source_labels: [a, b], regex: f(.*);(.*)r, target_label: a, replacement: 'b${1}${2}m'}]",
          "a=foo,b=bar", "a=boobam,b=bar" },
        { "[{source_labels: [a], regex: o, target_label: d}]", "a=foo", "a=foo" }, /* anchored */
        { "[{source_labels: [a], regex: foo|bar, target_label: d, replacement: x}]", "a=foobar", "a=foobar" },
        { "[{target_label: d, replacement: x}]", "a=1", "a=1,d=x" },
        { "[{source_labels: [a], target_label: b}]", "a=1", "a=1,b=1" },
        { "[{source_labels: [a, b], separator: '', target_label: c}]", "a=1,b=2", "a=1,b=2,c=12" },
        { "[{source_labels: [a, b], separator: '-', target_label: c}]", "a=1", "a=1,c=1-" },
        { "[{regex: '.*', target_label: a, replacement: ''}]", "a=1,b=2", "b=2" },
        { "[{source_labels: [none], regex: (.+), target_label: a}]", "a=1", "a=1" },
        /* empty removes */
        { "[{source_labels: [none], target_label: a}]", "a=1", "" },
        { "[{source_labels: [a], regex: '(.*)', target_label: '${1}_x', replacement: y}]", "a=n",
          "a=n,n_x=y" },
        { "[{source_labels: [a], regex: '(?P<name>.*)-.*', target_label: b, replacement: "
          "'$name|$$|$none|${name}s|$'}]",
          "a=foo-bar", "a=foo-bar,b=foo|$||foos|$" },
        { "[{source_labels: [a], regex: '(x)?(.*)', target_label: b, replacement: '[$1]$2'}]", "a=z",
          "a=z,b=[]z" },
        { "[{source_labels: [a], regex: 'a.b', target_label: b, replacement: y}]", "a=a\nb", "a=a\nb,b=y" },
        /* group "1x" is none */
        { "[{source_labels: [a], target_label: b, replacement: '$1x'}]", "a=1,b=2", "a=1" },
        { "[{source_labels: [a], target_label: b, replacement: '$12'}]", "a=1,b=2", "a=1" },
        /* keep, drop */
        { "[{action: keep, source_labels: [a], regex: 'f.*'}]", "a=foo", "a=foo" },
        { "[{action: keep, source_labels: [a], regex: 'f'}]", "a=foo", NULL },
        { "[{action: drop, source_labels: [a], regex: 'f.*'}]", "a=foo", NULL },
        { "[{action: drop, source_labels: [a], regex: 'f'}]", "a=foo", "a=foo" },
        { "[{action: drop, source_labels: [none], regex: ''}]", "a=foo", NULL },
        { "[{action: drop, source_labels: [a], regex: x},{target_label: z, replacement: y}]", "a=x", NULL },
        /* keepequal, dropequal */
        { "[{action: keepequal, source_labels: [a], target_label: b}]", "a=1,b=1", "a=1,b=1" },
        { "[{action: keepequal, source_labels: [a], target_label: b}]", "a=1,b=2", NULL },
        { "[{action: dropequal, source_labels: [a], target_label: b}]", "a=1,b=1", NULL },
        { "[{action: dropequal, source_labels: [a], target_label: b}]", "a=1,b=2", "a=1,b=2" },
        /* hashmod: low eight bytes of md5, as Prometheus' own tests have it */
        { "[{action: hashmod, source_labels: [c], target_label: d, modulus: 1000}]", "a=foo,b=bar,c=baz",
          "a=foo,b=bar,c=baz,d=976" },
        { "[{action: hashmod, source_labels: [a], target_label: d, modulus: 1000}]", "a=foo\nbar",
          "a=foo\nbar,d=734" },
        /* labelmap, labeldrop, labelkeep */
        { "[{action: labelmap, regex: '(b.*)'}]", "a=foo,b1=bar,b2=baz", "a=foo,b1=bar,b2=baz" },
        { "[{action: labelmap, regex: 'meta_(ng.*)', replacement: '${1}'}]", "meta_ng=1,meta_nginx=2,x=3",
          "meta_ng=1,meta_nginx=2,ng=1,nginx=2,x=3" },
        { "[{action: labelmap, regex: 'a(.*)', replacement: 'b$1'}]", "a=1,ax=2", "a=1,ax=2,b=1,bx=2" },
        { "[{action: labeldrop, regex: 'b.*'}]", "a=foo,b=bar,bx=1", "a=foo" },
        { "[{action: labelkeep, regex: 'b.*'}]", "a=foo,b=bar,bx=1", "b=bar,bx=1" },
        /* case */
        { "[{action: lowercase, source_labels: [a], target_label: b}]", "a=FoO-1", "a=FoO-1,b=foo-1" },
        { "[{action: uppercase, source_labels: [a], target_label: b}]", "a=FoO-1", "a=FoO-1,b=FOO-1" },
        /* in order */
        { "[{source_labels: [a], target_label: b},{source_labels: [b], target_label: c}]", "a=1",
          "a=1,b=1,c=1" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct relabel_rules rules;
        struct err_at at = { 0 };
        if (load(cases[i].rules, &rules, &at) != OK)
            fail_msg("%s: %s", cases[i].rules, at.text);
        struct label_set set = parse_labels(cases[i].in);
        bool keep;
        assert_ok(relabel_apply(&rules, &set, &keep));
        if (keep != (cases[i].out != NULL))
            fail_msg("%s: keep %d", cases[i].rules, keep);
        char text[1000] = "";
        qsort(set.labels, set.count, sizeof *set.labels, compare);
        for (size_t n = 0, len = 0; n < set.count; n++)
            len += (size_t)snprintf(text + len, sizeof text - len, "%s%.*s=%.*s", n == 0 ? "" : ",",
                                    SLICE_ARG(set.labels[n].name), SLICE_ARG(set.labels[n].value));
        if (keep && strcmp(text, cases[i].out) != 0)
            fail_msg("%s: got %s, want %s", cases[i].rules, text, cases[i].out);
        pool_block_free(root, set.labels);
        relabel_rules_close(&rules);
    }
}

static void test_refusals(void **state)
{
    static const struct {
        const char *rules, *text;
    } cases[] = {
        { "[{source_labels: [a], regexx: x}]",
          "line 1 column 23: unknown key \"regexx\", did you mean regex?" },
        { "[{source_labels: [a]}]", "line 1 column 2: action replace needs target_label" },
        { "[{action: hashmod, source_labels: [a], target_label: b}]",
          "line 1 column 2: action hashmod needs a modulus above 0" },
        { "[{action: keepequal, source_labels: [a]}]",
          "line 1 column 2: action keepequal needs target_label" },
        { "[{action: labeldrop, source_labels: [a], regex: x}]",
          "line 1 column 2: action labeldrop takes regex only" },
        { "[{action: dropequal, source_labels: [a], target_label: b, regex: x}]",
          "line 1 column 2: action dropequal takes source_labels and target_label only" },
        { "[{action: lowercase, source_labels: [a], target_label: '$1'}]",
          "line 1 column 2: target_label is not a label name" },
        { "[{action: labelmap, regex: x, replacement: ''}]",
          "line 1 column 2: replacement is not a label name" },
        { "[{source_labels: [''], target_label: b}]", "line 1 column 19: not a label name" },
        { "[{source_labels: a, target_label: b}]", "line 1 column 18: expected a list, got \"a\"" },
        { "[x]", "line 1 column 2: expected a map, got \"x\"" },
    };
    struct relabel_rules rules;
    struct err_at at;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_err(ERR_INPUT, load(cases[i].rules, &rules, &at));
        assert_string_equal(at.text, cases[i].text);
    }
    assert_err(ERR_INPUT, load("[{regex: '(', target_label: b},{target_label: c}]", &rules, &at));
    assert_non_null(strstr(at.text, "line 1 column 2: regex: "));
    assert_err(ERR_INPUT, load("[{action: nope, target_label: b}]", &rules, &at));
    assert_non_null(strstr(at.text, "expected one of replace, keep"));
}

static void test_limits(void **state)
{
    struct label_set set = { .pool = root };
    char names[LABEL_SET_COUNT_MAX + 1][8];
    for (size_t i = 0; i < LABEL_SET_COUNT_MAX; i++) {
        snprintf(names[i], sizeof names[i], "l%zu", i);
        assert_ok(label_set_put_str(&set, names[i], slice_str("v")));
    }
    assert_err(ERR_LIMIT, label_set_put_str(&set, "one_more", slice_str("v")));
    assert_ok(label_set_put_str(&set, "l0", slice_str("w")));
    assert_true(slice_equal_str(label_set_get(&set, slice_str("l0")), "w"));
    pool_block_free(root, set.labels);

    /* doubling a value stops at its bound */
    struct relabel_rules rules;
    bool keep;
    assert_ok(load("[{source_labels: [a], target_label: a, replacement: '$1$1'}]", &rules, NULL));
    set = parse_labels("a=0123456789");
    err e = OK;
    for (int i = 0; i < 30 && e == OK; i++)
        e = relabel_apply(&rules, &set, &keep);
    assert_int_equal(e, ERR_LIMIT);
    pool_block_free(root, set.labels);
    relabel_rules_close(&rules);
}

int main(void)
{
    root = pool_open(NULL, "relabel_test", POOL_BYTES_UNLIMITED);
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_actions), cmocka_unit_test(test_refusals),
                                        cmocka_unit_test(test_limits) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_close(root);
    return failed;
}
