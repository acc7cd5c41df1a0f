/* The JSON writer and the parsing of parameters: exact bytes and values of hand-written cases, from
 * Prometheus' behaviour, and what is refused. */
#include "base/test.h"

#include "api/params.h"
#include "base/time.h"
#include "model/json.h"
#include "model/labels.h"

#include <math.h>

static struct pool *pool;

static void expect(struct buf *out, const char *text)
{
    assert_ok(buf_err(out));
    assert_int_equal(out->len, strlen(text));
    assert_memory_equal(out->at, text, out->len);
    buf_clear(out);
}

static void commas_and_brackets(void **state)
{
    struct buf out = buf_open(pool, 1 << 16);
    struct json j = json_begin(&out);
    json_open(&j, '{');
    json_key(&j, "a");
    json_open(&j, '[');
    json_int(&j, -7);
    json_uint(&j, UINT64_MAX);
    json_int(&j, INT64_MIN);
    json_bool(&j, true);
    json_null(&j);
    json_open(&j, '[');
    json_close(&j, ']');
    json_close(&j, ']');
    json_key(&j, "b");
    json_str(&j, "x");
    json_key_slice(&j, slice_str("c\"d"));
    json_seconds(&j, 0.25);
    json_close(&j, '}');
    expect(&out,
           "{\"a\":[-7,18446744073709551615,-9223372036854775808,true,null,[]],\"b\":\"x\",\"c\\\"d\":0.25}");
    buf_close(&out);
}

static void strings_are_escaped(void **state)
{
    struct buf out = buf_open(pool, 1 << 16);
    struct json j = json_begin(&out);
    json_str(&j, "q\" b\\ n\n t\t r\r \x01 \x7f \xc3\xa9 \xf0\x9f\x90\x95 <>&");
    expect(&out, "\"q\\\" b\\\\ n\\n t\\t r\\r \\u0001 \x7f \xc3\xa9 \xf0\x9f\x90\x95 <>&\"");
    j = json_begin(&out);
    json_string(&j, slice_str("a\xff\xc0\xaf\xed\xa0\x80z\xc3")); /* none of these is UTF-8 */
    expect(&out,
           "\"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\"");
    buf_close(&out);
}

static void points(void **state)
{
    static const struct {
        int64_t t_ms;
        double v;
        const char *text;
    } cases[] = {
        { 0, 0, "[0,\"0\"]" },
        { 1500, 1.5, "[1.500,\"1.5\"]" },
        { 1435781430781, -2, "[1435781430.781,\"-2\"]" },
        { -1, INFINITY, "[-0.001,\"+Inf\"]" },
        { -60000, -INFINITY, "[-60,\"-Inf\"]" },
        { 7050, NAN, "[7.050,\"NaN\"]" },
        { TIME_MS_MAX, 1e21, "[253402300799.999,\"1e+21\"]" },
        { TIME_MS_MIN, 1e-7, "[-253402300799.999,\"1e-07\"]" },
        { 1000, 123456789, "[1,\"123456789\"]" },
    };
    struct buf out = buf_open(pool, 1 << 16);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct json j = json_begin(&out);
        json_point(&j, cases[i].t_ms, cases[i].v);
        expect(&out, cases[i].text);
    }
    buf_close(&out);
}

static void labels_object(void **state)
{
    struct buf labels = buf_open(pool, 1024), out = buf_open(pool, 1024);
    labels_put(&labels, slice_str("__name__"), slice_str("up"));
    labels_put(&labels, slice_str("my.job"), slice_str("a\nb"));
    struct json j = json_begin(&out);
    json_labels(&j, buf_slice(&labels));
    expect(&out, "{\"__name__\":\"up\",\"my.job\":\"a\\nb\"}");
    buf_close(&labels);
    buf_close(&out);
}

static void a_full_buffer_is_an_error(void **state)
{
    struct buf out = buf_open(pool, 8);
    struct json j = json_begin(&out);
    json_str(&j, "much longer than eight bytes");
    json_point(&j, 1, 1);
    assert_err(ERR_LIMIT, buf_err(&out));
    buf_close(&out);
}

static void times(void **state)
{
    static const struct {
        const char *text;
        int64_t t_ms;
    } good[] = {
        { "0", 0 },
        { "4", 4000 },
        { "1435781430.781", 1435781430781 },
        { "-60", -60000 },
        { "-0.5", -500 },
        { "1e3", 1000000 },
        { "1970-01-01T00:00:00Z", 0 },
        { "2015-07-01T20:10:51.781Z", 1435781451781 },
        { "2015-07-01T22:10:51+02:00", 1435781451000 },
        { "2016-02-29T00:00:00Z", 1456704000000 },
        { "1969-12-31T23:59:59.999Z", -1 },
        { "1e300", TIME_MS_MAX },
        { "-1e300", TIME_MS_MIN },
        { "-292273086-05-16T16:47:06Z", TIME_MS_MIN },
        { "+292277025-08-18T07:12:54.999999999Z", TIME_MS_MAX },
        { "1700000000000", TIME_MS_MAX }, /* Grafana's milliseconds where seconds are meant */
    };
    static const char *const bad[] = { "",
                                       "yesterday",
                                       "NaN",
                                       "2015-07-01",
                                       "2015-13-01T00:00:00Z",
                                       "2015-02-29T00:00:00Z",
                                       "2015-07-01T20:10:51",
                                       "2015-07-01T20:10:51.Z",
                                       "2015-07-01T24:00:00Z",
                                       "2015-07-01T20:10:51+2:00",
                                       "2015-07-01T20:10:51Zx",
                                       "1 " };
    int64_t t_ms;
    struct err_at at;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_ok(param_time(slice_str(good[i].text), &t_ms, &at));
        if (t_ms != good[i].t_ms)
            fail_msg("%s gave %lld", good[i].text, (long long)t_ms);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_err(ERR_INPUT, param_time(slice_str(bad[i]), &t_ms, &at));
    assert_string_equal(at.text, "cannot parse \"1 \" to a valid timestamp");
}

static void durations_and_numbers(void **state)
{
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {
        { "15", 15000 },  { "0.5", 500 },       { "5m", 300000 }, { "1h30m", 5400000 },
        { "250ms", 250 }, { "1d", MS_PER_DAY }, { "-5", -5000 },
    };
    static const char *const bad[] = { "", "5x", "m", "1e300", "NaN", "5m5", "-5m" };
    int64_t ms;
    uint64_t number;
    struct err_at at;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_ok(param_duration(slice_str(good[i].text), &ms, &at));
        assert_int_equal(ms, good[i].ms);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_err(ERR_INPUT, param_duration(slice_str(bad[i]), &ms, &at));
    assert_ok(param_uint(slice_str("18446744073709551615"), &number));
    assert_true(number == UINT64_MAX);
    assert_err(ERR_INPUT, param_uint(slice_str("18446744073709551616"), &number));
    assert_err(ERR_INPUT, param_uint(slice_str(""), &number));
    assert_err(ERR_INPUT, param_uint(slice_str("-1"), &number));
    assert_true(param_is_true(slice_str("true")) && param_is_true(slice_str("1")));
    assert_false(param_is_true(slice_str("no")) || param_is_true(slice_str("")));
}

static void escaped_names(void **state)
{
    static const struct {
        const char *from, *to;
    } cases[] = {
        { "plain", "plain" },
        { "U__my_2e_metric", "my.metric" },
        { "U__a__b", "a_b" },
        { "U___1f415_", "\xf0\x9f\x90\x95" },
        { "U__", "" },
        { "U__bad_", "U__bad_" },
        { "U__x_zz_", "U__x_zz_" },
        { "U___d800_", "U___d800_" },
        { "U___1234567_", "U___1234567_" },
        { "U____", "_" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct slice name;
        assert_ok(param_unescape_name(slice_str(cases[i].from), pool, &name));
        if (!slice_equal_str(name, cases[i].to))
            fail_msg("%s gave %.*s", cases[i].from, SLICE_ARG(name));
    }
}

int main(void)
{
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas_and_brackets),
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(points),
        cmocka_unit_test(labels_object),
        cmocka_unit_test(a_full_buffer_is_an_error),
        cmocka_unit_test(times),
        cmocka_unit_test(durations_and_numbers),
        cmocka_unit_test(escaped_names),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_close(pool);
    return failed;
}
