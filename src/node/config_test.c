/* Configuration: a table of good documents and one of bad ones with their messages; printing gives a document
 * that reads back the same; a reload keeps what needs a restart. */
#include "base/test.h"

#include "node/config.h"
#include "node/options.h"

#include <string.h>

static struct pool *pool;

static struct config parse(const char *text)
{
    struct config config;
    struct err_at at = { 0 };
    if (config_parse(slice_str(text), pool, &config, &at) != OK)
        fail_msg("%s: %s", text, at.text);
    return config;
}

static void good(void **state)
{
    struct config config = parse("");
    assert_int_equal(config.ack, CONFIG_ACK_FSYNC);
    assert_int_equal(config.query_concurrency, 20);
    config = parse(
        "storage: {ack: os, retention: 30d, free_space_floor: 8MiB, log_file_bytes: 4MiB, head_rows: 5}\n"
        "memory: {budget: 2GiB}\n"
        "query:\n  timeout: 30s\n  max_samples: 1000\n  slow_query_threshold: 0\n"
        "http: {cors: false, max_body_bytes: 1MiB}\n"
        "log: {level: debug, format: json}\n"
        "limits:\n  max_series: 10\n  overrides:\n    \"a\": {max_series: 0}\n    b:\n");
    assert_int_equal(config.ack, CONFIG_ACK_OS);
    assert_true(config.retention_ms == 30 * 86400000LL);
    assert_int_equal(config.free_space_floor, 8 << 20);
    assert_int_equal(config.head_rows_max, 5);
    assert_true(config.memory_budget == 2ULL << 30);
    assert_int_equal(config.query_timeout_ms, 30000);
    assert_int_equal(config.query_slow_ms, 0);
    assert_false(config.http_cors);
    assert_int_equal(config.log_level, CONFIG_DEBUG);
    assert_int_equal(config.log_format, CONFIG_JSON);
    assert_int_equal(config.tenant_count, 2);
    assert_int_equal(config.tenants[0].limits.series_max, 0);
    assert_int_equal(config.tenants[0].limits.labels_per_series_max, 60);
    assert_int_equal(config.tenants[1].limits.series_max, 10);
    config = parse("global: {scrape_interval: 5s}\nscrape_configs: []\n");
    assert_non_null(config.root);
}

static void bad(void **state)
{
    static const struct {
        const char *text, *part;
    } cases[] = {
        { "nonsense: 1\n", "nonsense" },
        { "query:\n  time_out: 5s\n", "line 2 column 3" },
        { "query:\n  timeout: soon\n", "line 2 column 12" },
        { "query:\n  timeout: 2d\n", "timeout must be 1 ms to" },
        { "query: 7\n", "line 1" },
        { "query: {max_concurrency: 0}\n", "line 1" },
        { "storage: {ack: maybe}\n", "maybe" },
        { "storage: {log_file_bytes: 1}\n", "log_file_bytes must be" },
        { "http: {cors: 7}\n", "line 1" },
        { "limits: {max_serie: 7}\n", "max_serie" },
        { "limits: {overrides: {t: {max_serie: 7}}}\n", "max_serie" },
        { "limits: {overrides: {\"\": {max_series: 7}}}\n", "tenant" },
        { "limits: {max_labels_per_series: 5000}\n", "line 1" },
        { "query: {timeout: 1s\n", "line" },
        { "query: {timeout: 1s, timeout: 2s}\n", "timeout" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config config;
        struct err_at at = { 0 };
        assert_err(ERR_INPUT, config_parse(slice_str(cases[i].text), pool, &config, &at));
        if (strstr(at.text, cases[i].part) == NULL || strncmp(at.text, "line ", 5) != 0)
            fail_msg("%s: %s", cases[i].text, at.text);
    }
}

static void printing_reads_back(void **state)
{
    struct config config =
        parse("storage: {ack: os, retention: 1d12h, free_space_floor: 12345}\nlog: {level: warn}\n"
              "query: {timeout: 90s, max_memory: 3GiB}\n"
              "limits: {max_series: 9, overrides: {'x \"y\"': {max_series: 8}}}\n"
              "global:\n  scrape_interval: 5s\n  external_labels: {a: 'b, c'}\n"
              "scrape_configs:\n  - job_name: one\n    basic_auth: {username: ann, password: hush}\n"
              "    static_configs: [{targets: ['127.0.0.1:9100']}]\n    metrics_path: /a b\n");
    struct buf first = buf_open(pool, 1 << 16), second = buf_open(pool, 1 << 16);
    config_print(&config, &first);
    buf_put_u8(&first, 0);
    struct config again = parse((const char *)first.at);
    config_print(&again, &second);
    buf_put_u8(&second, 0);
    assert_string_equal((const char *)first.at, (const char *)second.at);
    assert_non_null(strstr((const char *)first.at, "  retention: 1d12h   # live\n"));
    assert_non_null(strstr((const char *)first.at, "  ack: os   # restart\n"));
    assert_non_null(strstr((const char *)first.at, "  scrape_interval: 5s\n"));
    assert_non_null(strstr((const char *)first.at, "metrics_path: \"/a b\""));
    assert_non_null(strstr((const char *)first.at, "password: <secret>"));
    assert_null(strstr((const char *)first.at, "hush"));
    buf_close(&first);
    buf_close(&second);
}

static void restart_settings_are_kept(void **state)
{
    struct config running = parse(""),
                  next = parse("storage: {ack: os, retention: 1d}\nhttp: {cors: false}\n");
    struct buf names = buf_open(pool, 1 << 12);
    config_keep_restart(&running, &next, &names);
    buf_put_u8(&names, 0);
    assert_string_equal((const char *)names.at, "storage.ack, http.cors");
    assert_int_equal(next.ack, CONFIG_ACK_FSYNC);
    assert_true(next.http_cors && next.retention_ms == 86400000);
    buf_close(&names);
}

static void options(void **state)
{
    const char *file = NULL, *operands[OPTIONS_OPERANDS_MAX];
    bool flag = false;
    int status = 9;
    const struct option list[] = { { "--config", "FILE", "x", &file, NULL },
                                   { "--insecure", NULL, "y", NULL, &flag } };
    const struct command command = { .name = "test",
                                     .operands = "A",
                                     .summary = "s",
                                     .options = list,
                                     .option_count = 2,
                                     .operands_min = 1,
                                     .operands_max = 2 };
    char *good_argv[] = { (char[]){ "--config" }, (char[]){ "f" },  (char[]){ "--insecure" },
                          (char[]){ "one" },      (char[]){ "--" }, (char[]){ "--two" } };
    assert_true(options_parse(&command, 6, good_argv, operands, &status));
    assert_true(operands[2] == NULL && flag);
    assert_string_equal(file, "f");
    assert_string_equal(operands[1], "--two");
    char *with_equals[] = { (char[]){ "--config=g" }, (char[]){ "one" } };
    assert_true(options_parse(&command, 2, with_equals, operands, &status));
    assert_string_equal(file, "g");
    char *wrong[][2] = {
        { (char[]){ "--confg" }, (char[]){ "f" } },
        { (char[]){ "--insecure=1" }, (char[]){ "a" } },
        { (char[]){ "a" }, (char[]){ "--config" } },
        { (char[]){ "--insecure" }, (char[]){ "--insecure" } },
    };
    for (size_t i = 0; i < 4; i++) {
        assert_false(options_parse(&command, 2, wrong[i], operands, &status));
        assert_int_equal(status, 2);
    }
    char *help[] = { (char[]){ "--help" } };
    assert_false(options_parse(&command, 1, help, operands, &status));
    assert_int_equal(status, 0);
    static const char *const names[] = { "serve", "query", "config" };
    assert_string_equal(options_nearest("sevre", names, 3), "serve");
    assert_null(options_nearest("zzzzzzz", names, 3));
    assert_null(options_nearest("foo", (const char *const[]){ "fsck" }, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good),
        cmocka_unit_test(bad),
        cmocka_unit_test(printing_reads_back),
        cmocka_unit_test(restart_settings_are_kept),
        cmocka_unit_test(options),
    };
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_close(pool);
    return failed;
}
