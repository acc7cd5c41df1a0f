/* Goal: exposition text is read as Prometheus reads it, malformed lines are named and skipped, and no input makes
 * the parser leave its bytes. Method: tables of lines, truncation at every byte, random damage. */
#include "base/test.h"

#include "ingest/text.h"

#include <math.h>

static struct pool *pool;

static int setup(void **state)
{
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    return 0;
}
static int teardown(void **state)
{
    pool_close(pool);
    return 0;
}

/* One line per item, in a form that tables can compare. */
static void print_item(const struct text_item *i, struct buf *out)
{
    if (i->type != TEXT_SAMPLE) {
        static const char *const words[] = { "", "help", "type", "unit" };
        buf_printf(out, "%s %.*s [%.*s] %s;", words[i->type], SLICE_ARG(i->family), SLICE_ARG(i->text),
                   i->type == TEXT_TYPE ? metric_type_text(i->metric_type) : "");
        return;
    }
    buf_printf(out, "<%.*s>", SLICE_ARG(i->series));
    for (size_t k = 0; k < i->label_count; k++)
        buf_printf(out, " %.*s=%.*s", SLICE_ARG(i->labels[k].name), SLICE_ARG(i->labels[k].value));
    buf_printf(out, " %.17g", i->value);
    if (i->has_time)
        buf_printf(out, " @%lld", (long long)i->t_ms);
    if (i->has_exemplar) {
        buf_printf(out, " #");
        for (size_t k = 0; k < i->exemplar_label_count; k++)
            buf_printf(out, " %.*s=%.*s", SLICE_ARG(i->exemplar_labels[k].name),
                       SLICE_ARG(i->exemplar_labels[k].value));
        buf_printf(out, " %.17g", i->exemplar_value);
        if (i->exemplar_has_time)
            buf_printf(out, " @%lld", (long long)i->exemplar_t_ms);
    }
    buf_printf(out, ";");
}

static struct slice parse_all(struct slice body, enum text_format format)
{
    struct text_parser parser;
    struct buf out = buf_open(pool, 1 << 20);
    assert_ok(text_open(&parser, body, format, pool));
    for (int i = 0; i < 10000; i++) {
        struct text_item item;
        struct err_at at = { 0 };
        err e = text_next(&parser, &item, &at);
        if (e == ERR_END)
            break;
        if (e == OK)
            print_item(&item, &out);
        else if (e == ERR_INPUT)
            buf_printf(&out, "!%u:%u %s;", at.line, at.column, at.text);
        else
            fail_msg("%s", err_text(e));
    }
    text_close(&parser);
    return buf_slice(&out);
}

struct row {
    const char *text;
    const char *expected;
};

static void run_table(const struct row *rows, size_t count, enum text_format format)
{
    for (size_t i = 0; i < count; i++) {
        struct slice got = parse_all(slice_str(rows[i].text), format);
        if (!slice_equal_str(got, rows[i].expected))
            fail_msg("%s\n got %.*s\nwant %s", rows[i].text, SLICE_ARG(got), rows[i].expected);
    }
}

static const struct row plain_rows[] = {
    { "up 1\n", "<up> __name__=up 1;" },
    { "up 1", "<up> __name__=up 1;" },
    { "a:b_1{x=\"y\"} 2.5 1000\n", "<a:b_1{x=\"y\"}> __name__=a:b_1 x=y 2.5 @1000;" },
    { "  up\t{ a = \"b\" , c=\"d\", }\t1e3 \t -5 \n",
      "<up\t{ a = \"b\" , c=\"d\", }> __name__=up a=b c=d 1000 @-5;" },
    { "up{}1", "<up{}> __name__=up 1;" },
    { "up{} NaN\nup +Inf\nup -inf\n", "<up{}> __name__=up nan;<up> __name__=up inf;<up> __name__=up -inf;" },
    { "up 123456789012345\nup 1234567890123456789\n",
      "<up> __name__=up 123456789012345;<up> __name__=up 1.2345678901234568e+18;" },
    { "up{a=\"x\\\\y\\\"z\\n\\d\"} 1\n", "<up{a=\"x\\\\y\\\"z\\n\\d\"}> __name__=up a=x\\y\"z\n\\d 1;" },
    { "{\"my.metric\",\"l.1\"=\"v\",b=\"c\"} 1\n",
      "<{\"my.metric\",\"l.1\"=\"v\",b=\"c\"}> __name__=my.metric l.1=v b=c 1;" },
    { "{\"only\"} 3", "<{\"only\"}> __name__=only 3;" },
    { "\n \n# a comment\n#HELP no gap\n", "" },
    { "# HELP up a\\nb \\\\ \\\"c\n# HELP up\n# HELP up \n# TYPE up gauge \n# UNIT up s\n",
      "help up [a\nb \\ \\\"c] ;help up [] ;help up [] ;type up [] gauge;" },
    { "# TYPE up untyped\n# TYPE \"a.b\" counter\n", "type up [] unknown;type a.b [] counter;" },
    { "up\n", "!1:3 expected a space or { after the metric name;" },
    { "up \n", "!1:4 expected a number;" },
    { "1up 1\nup 2\n", "!1:1 expected a metric name;<up> __name__=up 2;" },
    { "up 0x10\n", "!1:4 expected a number;" },
    { "up 1_0\n", "!1:4 expected a number;" },
    { "up 1 1.5\n", "!1:6 expected a time in milliseconds;" },
    { "up 1 99999999999999999999\n", "!1:6 expected a time in milliseconds;" },
    { "up 1 2 3\n", "!1:8 expected the end of the line;" },
    { "up 1 # {a=\"b\"} 1\n", "!1:6 expected a time in milliseconds;" },
    { "up{a=\"b} 1\n", "!1:6 string without closing quote;" },
    { "up{a=\"b\\", "!1:6 string without closing quote;" },
    { "up{a} 1\n", "!1:5 expected =;" },
    { "up{a=b} 1\n", "!1:6 expected \";" },
    { "up{1a=\"b\"} 1\n", "!1:4 expected a label name;" },
    { "up{a=\"b\"c=\"d\"} 1\n", "!1:9 expected , or };" },
    { "up{\"a\"} 1\n", "!1:7 expected =;" },
    { "{\"a\",\"b\"} 1\n", "!1:9 expected =;" },
    { "{a=\"b\"} 1\n", "!1:9 expected a metric name;" },
    { "{\"\"} 1\n", "!1:4 expected a label name;" },
    { "# TYPE up nonsense\nup 1\n", "!1:11 unknown metric type;<up> __name__=up 1;" },
    { "# TYPE 1 gauge\n", "!1:8 expected a metric name;" },
    { "# HELP up \xff\n", "!1:11 not UTF-8;" },
    { "up 1\r\n", "!1:4 expected a number;" },
};

static const struct row open_rows[] = {
    { "up 1\n# EOF\n", "<up> __name__=up 1;" },
    { "up 1\n# EOF", "<up> __name__=up 1;" },
    { "up 1\n", "<up> __name__=up 1;!2:1 # EOF is missing;" },
    { "", "!1:1 # EOF is missing;" },
    { "# EOF\nup 1\n", "!2:1 bytes after # EOF;" },
    { "a_total{x=\"y\"} 1 1.5 # {trace_id=\"z\",b=\"c\"} 0.5 2.25\n# EOF\n",
      "<a_total{x=\"y\"}> __name__=a_total x=y 1 @1500 # trace_id=z b=c 0.5 @2250;" },
    { "a_total 1 # {} 0.5\n# EOF\n", "<a_total> __name__=a_total 1 # 0.5;" },
    { "a_total 1 1 # {a=\"b\"} 0.5\n# EOF\n", "<a_total> __name__=a_total 1 @1000 # a=b 0.5;" },
    { "up 1 -1.5e3\n# EOF\n", "<up> __name__=up 1 @-1500000;" },
    { "# HELP up a\\\"b\n# TYPE up stateset\n# UNIT up seconds\n# EOF\n",
      "help up [a\"b] ;type up [] stateset;unit up [seconds] ;" },
    { "{\"my.metric\",a=\"b\"} 1\n# EOF\n", "<{\"my.metric\",a=\"b\"}> __name__=my.metric a=b 1;" },
    { "up  1\n# EOF\n", "!1:4 expected a number;" },
    { " up 1\n# EOF\n", "!1:1 expected a metric name;" },
    { "up{a=\"b\",} 1\n# EOF\n", "!1:10 expected a label name;" },
    { "up{a=\"b\"}1\n# EOF\n", "!1:10 expected a space;" },
    { "\n# EOF\n", "!1:1 empty line;" },
    { "# comment\n# EOF\n", "!1:1 unknown comment;" },
    { "up 1 2 \n# EOF\n", "!1:8 expected an exemplar;" },
    { "up 1 1e300\n# EOF\n", "!1:6 expected a time in seconds;" },
    { "up 1 NaN\n# EOF\n", "!1:6 expected a time in seconds;" },
    { "up 1 # {a=\"b\"}\n# EOF\n", "!1:15 expected a value;" },
    { "up 1 # {a=\"b\"} 1 x\n# EOF\n", "!1:18 expected a time in seconds;" },
    { "up 1 # {a=\"b\"} 1 1 1\n# EOF\n", "!1:19 expected the end of the line;" },
};

#define COUNT(rows) (sizeof rows / sizeof rows[0])

static void plain_text(void **state) { run_table(plain_rows, COUNT(plain_rows), TEXT_PROMETHEUS); }
static void open_text(void **state) { run_table(open_rows, COUNT(open_rows), TEXT_OPENMETRICS); }

static void formats(void **state)
{
    assert_int_equal(text_format_of(slice_str("application/openmetrics-text; version=1.0.0")),
                     TEXT_OPENMETRICS);
    assert_int_equal(text_format_of(slice_str("Application/OpenMetrics-Text")), TEXT_OPENMETRICS);
    assert_int_equal(text_format_of(slice_str("application/openmetrics-textual")), TEXT_PROMETHEUS);
    assert_int_equal(text_format_of(slice_str("text/plain; version=0.0.4")), TEXT_PROMETHEUS);
    assert_int_equal(text_format_of(slice_str("")), TEXT_PROMETHEUS);
}

static void damage(void **state)
{
    struct test_random r = test_random_begin("damage");
    for (int format = 0; format < 2; format++) {
        const struct row *rows = format == 0 ? plain_rows : open_rows;
        size_t count = format == 0 ? COUNT(plain_rows) : COUNT(open_rows);
        for (size_t i = 0; i < count; i++) {
            pool_reset(pool);
            size_t len = strlen(rows[i].text);
            for (size_t cut = 0; cut <= len; cut++) {
                char *exact = malloc(cut + 1);
                memcpy(exact, rows[i].text, cut);
                parse_all(slice_of(exact, cut), (enum text_format)format);
                for (int k = 0; k < 10 && cut > 0; k++) {
                    exact[test_random_below(&r, cut)] = "\"\\{}=,# \n1a\xff"[test_random_below(&r, 12)];
                    parse_all(slice_of(exact, cut), (enum text_format)format);
                }
                free(exact);
            }
        }
    }
}

static void limits(void **state)
{
    struct text_parser parser;
    struct text_item item;
    struct err_at at;
    struct buf body = buf_open(pool, 4u << 20);
    buf_put_str(&body, "up{");
    for (int i = 0; i <= LABEL_COUNT_MAX; i++)
        buf_printf(&body, "l%d=\"x\",", i);
    buf_put_str(&body, "} 1\nup{a=\"\\n\"} 1\n");
    assert_ok(text_open(&parser, buf_slice(&body), TEXT_PROMETHEUS, pool));
    assert_err(ERR_INPUT, text_next(&parser, &item, &at));
    assert_non_null(strstr(at.text, "too many labels"));
    assert_ok(text_next(&parser, &item, &at));
    assert_err(ERR_END, text_next(&parser, &item, &at));
    text_close(&parser);

    buf_clear(&body);
    for (int i = 0; i < 1100000; i++)
        buf_put_u8(&body, '\\');
    assert_ok(text_open(&parser, buf_slice(&body), TEXT_PROMETHEUS, pool));
    assert_err(ERR_INPUT, text_next(&parser, &item, &at));
    text_close(&parser);

    struct pool *tight = pool_open(pool, "tight", 100000);
    body.len = 200000;
    assert_ok(text_open(&parser, buf_slice(&body), TEXT_PROMETHEUS, tight));
    assert_err(ERR_LIMIT, text_next(&parser, &item, &at));
    text_close(&parser);
    pool_close(tight);
    struct pool *none = pool_open(pool, "none", 10);
    assert_err(ERR_LIMIT, text_open(&parser, buf_slice(&body), TEXT_PROMETHEUS, none));
    pool_close(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_text), cmocka_unit_test(open_text), cmocka_unit_test(formats),
        cmocka_unit_test(damage),     cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
