/* Goal: rows, stale markers and reports as Prometheus makes them, against targets that change, lie, stall and
 * fail. Method: single scrapes of the fixture's target, called directly. */
#include "ingest/scrape_fixture.h"

struct single {
    struct scrape_config *config;
    struct target *target;
    struct scrape_work work;
    struct scrape_outcome outcome;
    _Atomic bool abort;
};

/* extra: keys of the job, "path: /x, sample_limit: 1". */
static void single_open(struct single *s, const char *extra)
{
    char job[3000];
    struct target_spec spec;
    snprintf(job, sizeof job,
             "[{job_name: j, scrape_interval: 10s, scrape_timeout: 500ms, static_configs: "
             "[{targets: ['127.0.0.1:%u'], labels: {instance: i}}]%s%s}]",
             net_server_port(server), *extra ? ", " : "", extra);
    *s = (struct single){ .config = load(job) };
    assert_ok(
        target_build(&s->config->jobs[0], &s->config->jobs[0].groups[0], 0, slice_of("", 0), root, &spec));
    assert_false(spec.is_dropped);
    assert_ok(target_open(&spec, &s->config->jobs[0], root, &s->target));
    assert_ok(scrape_work_open(io, (struct scrape_sink){ sink, NULL }, &s->abort, root, &s->work));
}

static char *single_run(struct single *s, int64_t t_ms)
{
    take_rows();
    scrape_run(&s->work, s->target, &s->config->jobs[0], s->target->timeout_ms, t_ms, &s->outcome);
    s->target->last_scrape_ms = t_ms;
    return take_rows();
}

static void single_close(struct single *s)
{
    scrape_work_close(&s->work);
    target_close(s->target);
    scrape_config_release(s->config);
}

#define L "{instance=\"i\", job=\"j\"}"

static void test_rows_and_staleness(void **state)
{
    struct single s;
    single_open(&s, "");
    set_page("# HELP a_total help me\n# TYPE a_total counter\na_total 1\nb{x=\"y\"} 2\n");
    char *rows = single_run(&s, 1000);
    assert_has(rows, "a_total" L " 1 @1000\n");
    assert_has(rows, "b{instance=\"i\", job=\"j\", x=\"y\"} 2 @1000\n");
    assert_has(rows, "up" L " 1 @1000\n");
    assert_has(rows, "scrape_samples_scraped" L " 2 @1000\n");
    assert_has(rows, "scrape_samples_post_metric_relabeling" L " 2 @1000\n");
    assert_has(rows, "scrape_series_added" L " 2 @1000\n");
    assert_has(rows, "scrape_duration_seconds" L);
    assert_has(rows, "metadata a_total 1 help me\n");
    assert_int_equal(s.outcome.health, SCRAPE_UP);
    assert_string_equal(s.outcome.error, "");
    assert_has(last_accept, "application/openmetrics-text");

    rows = single_run(&s, 2000); /* the same again: from the cache, nothing new */
    assert_has(rows, "scrape_series_added" L " 0 @2000\n");
    assert_hasnt(rows, "metadata");
    set_page("a_total 3\nc 1\n");
    rows = single_run(&s, 3000);
    assert_has(rows, "a_total" L " 3 @3000\n");
    assert_has(rows, "b{instance=\"i\", job=\"j\", x=\"y\"} stale @3000\n");
    assert_has(rows, "scrape_series_added" L " 1 @3000\n");
    rows = single_run(&s, 4000);
    assert_hasnt(rows, "stale");
    page_status = 500; /* failing: stale once, up 0 */
    rows = single_run(&s, 5000);
    assert_has(rows, "a_total" L " stale @5000\n");
    assert_has(rows, "c" L " stale @5000\n");
    assert_has(rows, "up" L " 0 @5000\n");
    assert_has(rows, "scrape_samples_scraped" L " 0 @5000\n");
    assert_string_equal(s.outcome.error, "server returned HTTP status 500");
    assert_int_equal(s.outcome.health, SCRAPE_DOWN);
    rows = single_run(&s, 6000);
    assert_hasnt(rows, "stale");
    page_status = 200;
    rows = single_run(&s, 7000);
    assert_has(rows, "a_total" L " 3 @7000\n");
    atomic_store(&s.abort, true); /* the node stops: that says nothing about the target */
    assert_string_equal(single_run(&s, 7500), "");
    assert_int_equal(s.outcome.health, SCRAPE_UNKNOWN);
    take_rows();
    scrape_end(&s.work, s.target, &s.config->jobs[0], 8000);
    rows = take_rows();
    assert_has(rows, "a_total" L " stale @8000\n");
    assert_has(rows, "up" L " stale @8000\n");
    single_close(&s);
}

/* The same series written differently is one series, and no stale marker comes from it. */
static void test_spelling(void **state)
{
    struct single s;
    single_open(&s, "");
    set_page("m{a=\"1\",b=\"2\"} 1\n");
    single_run(&s, 1000);
    set_page("m{b=\"2\",a=\"1\"} 2\n");
    char *rows = single_run(&s, 2000);
    assert_has(rows, "m{a=\"1\", b=\"2\", instance=\"i\", job=\"j\"} 2 @2000\n");
    assert_hasnt(rows, "stale");
    assert_has(rows, "scrape_series_added" L " 0 ");
    set_page("m 1\nn 2\no 3\n"); /* what is expected next begins the same way, and is something else */
    single_run(&s, 2100);
    set_page("m 1\nn {x=\"y\"} 2\no{z=\"1\"} 3\n");
    rows = single_run(&s, 2200);
    assert_has(rows, "\nn{instance=\"i\", job=\"j\", x=\"y\"} 2 ");
    assert_has(rows, "\no{instance=\"i\", job=\"j\", z=\"1\"} 3 ");
    assert_has(rows, "n" L " stale ");
    set_page("# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"2.50\"} 1\nh_bucket{le=\"+Inf\"} 1\n"
             "h_bucket{le=\"1000000\"} 1\nh_sum 1\nh_count 1\n"
             "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns{quantile=\"1\"} 1\n# TYPE g gauge\ng{le=\"1\"} 1\n");
    rows = single_run(&s, 3000);
    assert_has(rows, "le=\"1.0\"");
    assert_has(rows, "le=\"2.5\"");
    assert_has(rows, "le=\"+Inf\"");
    assert_has(rows, "le=\"1e+06\"");
    assert_has(rows, "quantile=\"0.5\"");
    assert_has(rows, "quantile=\"1.0\"");
    assert_has(rows, "g{instance=\"i\", job=\"j\", le=\"1\"}");
    single_close(&s);
}

static void test_labels(void **state)
{
    struct single s;
    set_page("m{instance=\"other\",job=\"\",x=\"1\"} 1\n");
    single_open(&s, "");
    assert_has(single_run(&s, 1), "m{exported_instance=\"other\", instance=\"i\", job=\"j\", x=\"1\"} 1 ");
    single_close(&s);
    single_open(&s, "honor_labels: true"); /* an empty label counts as there, and is then no label */
    assert_has(single_run(&s, 1), "m{instance=\"other\", x=\"1\"} 1 ");
    single_close(&s);
    set_page("m{instance=\"a\",exported_instance=\"b\"} 1\n");
    single_open(&s, "");
    assert_has(single_run(&s, 1),
               "m{exported_exported_instance=\"a\", exported_instance=\"b\", instance=\"i\", job=\"j\"} 1 ");
    single_close(&s);
    set_page("keep_me 1\ndrop_me 2\n");
    single_open(&s, "metric_relabel_configs: [{action: drop, source_labels: [__name__], regex: 'drop.*'},"
                    "{target_label: new, replacement: v}]");
    for (int i = 0; i < 2; i++) {
        char *rows = single_run(&s, 1 + i);
        assert_has(rows, "keep_me{instance=\"i\", job=\"j\", new=\"v\"} 1 ");
        assert_hasnt(rows, "drop_me");
        assert_has(rows, "scrape_samples_scraped" L " 2 ");
        assert_has(rows, "scrape_samples_post_metric_relabeling" L " 1 ");
    }
    single_close(&s);
    single_open(&s, "metric_relabel_configs: [{action: labeldrop, regex: __name__}]");
    single_run(&s, 1);
    assert_string_equal(s.outcome.error, "missing metric name (__name__ label)");
    single_close(&s);
}

static void test_timestamps(void **state)
{
    struct single s;
    set_page("m 1 777\nn 2\n");
    single_open(&s, "");
    char *rows = single_run(&s, 1000);
    assert_has(rows, "m" L " 1 @777\n");
    assert_has(rows, "n" L " 2 @1000\n");
    set_page("");
    rows = single_run(&s, 2000);
    assert_hasnt(rows, "m" L " stale"); /* its times are its own affair */
    assert_has(rows, "n" L " stale @2000\n");
    single_close(&s);
    set_page("m 1 777\n");
    single_open(&s, "track_timestamps_staleness: true");
    single_run(&s, 1000);
    set_page("");
    assert_has(single_run(&s, 2000), "m" L " stale @2000\n");
    single_close(&s);
    set_page("m 1 777\n");
    single_open(&s, "honor_timestamps: false");
    assert_has(single_run(&s, 1000), "m" L " 1 @1000\n");
    single_close(&s);
}

static void test_openmetrics(void **state)
{
    struct single s;
    single_open(&s, "");
    page_type = "application/openmetrics-text; version=1.0.0";
    set_page("# TYPE c counter\n# HELP c text\nc_total 5 # {trace_id=\"abc\"} 0.5\n# EOF\n");
    char *rows = single_run(&s, 1000);
    assert_has(rows, "c_total" L " 5 @1000\n");
    assert_has(rows, "exemplar of row 0: {trace_id=\"abc\"} 0.5\n");
    assert_has(rows, "metadata c 1 text\n");
    assert_hasnt(single_run(&s, 2000), "exemplar"); /* the same one again */
    set_page("c_total 5\n");                        /* without # EOF it is cut */
    rows = single_run(&s, 3000);
    assert_has(rows, "up" L " 0 ");
    assert_has(rows, "c_total" L " stale ");
    page_type = "text/plain; version=0.0.4";
    single_close(&s);
}

static void test_limits_and_failures(void **state)
{
    static const struct {
        const char *extra, *page, *error;
    } cases[] = {
        { "sample_limit: 2", "a 1\nb 2\nc 3\n", "sample limit exceeded: 3 samples, limit 2" },
        { "label_limit: 3", "a{x=\"1\"} 1\n", "label_limit exceeded: 4 labels, limit 3" },
        { "label_name_length_limit: 9", "a{very_long_name=\"1\"} 1\n",
          "label_name_length_limit exceeded by very_long_name" },
        { "label_value_length_limit: 5", "a{x=\"123456\"} 1\n",
          "label_value_length_limit exceeded by a value of x" },
        { "body_size_limit: 10B", "a 1\nb 1\nc 1\n", NULL },
        { "", "a 1\n{{{\n", NULL },
        { "metrics_path: /stall", "", NULL },
        { "metrics_path: /endless, body_size_limit: 1MB", "", NULL },
        { "metrics_path: /bomb, body_size_limit: 1MB", "", "decoded body is over the size limit" },
        { "metrics_path: /cut", "", NULL },
        { "metrics_path: /nowhere", "", "server returned HTTP status 404" },
        { "bearer_token_file: no_such_file", "", "cannot read no_such_file: not found" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct single s;
        set_page("");
        single_open(&s, cases[i].extra);
        set_page(cases[i].page);
        int64_t begin_ns = io_monotonic_ns(io);
        char *rows = single_run(&s, 1000);
        assert_true(io_monotonic_ns(io) - begin_ns < 2000000000);
        if (s.outcome.health != SCRAPE_DOWN)
            fail_msg("%s: up", cases[i].extra);
        assert_has(rows, "up" L " 0 @1000\n");
        assert_null(strstr(rows, "\na" L));
        assert_true(strlen(s.outcome.error) > 0);
        if (cases[i].error != NULL)
            assert_string_equal(s.outcome.error, cases[i].error);
        if (i == 0) {
            assert_has(rows, "scrape_samples_scraped" L " 3 ");
            assert_has(rows, "scrape_samples_post_metric_relabeling" L " 3 ");
            assert_has(rows, "scrape_series_added" L " 0 ");
        }
        single_close(&s);
    }
    struct single s;
    set_page("a 1\n");
    single_open(&s, "");
    sink_status = 503;
    single_run(&s, 1000);
    sink_status = 204;
    assert_string_equal(s.outcome.error, "storing failed (503): no");
    single_close(&s);
}

/* What a refused write, or a scrape that fails at its end, would have stored is handed over again. */
static void test_refused_writes(void **state)
{
    static const int answers[] = { 429, 503, 507, 400 };
    static const char page_of_c[] =
        "# TYPE c counter\n# HELP c text\nc_total 5 # {trace_id=\"abc\"} 0.5\n# EOF\n";
    page_type = "application/openmetrics-text; version=1.0.0";
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct single s;
        bool again = answers[i] != 400; /* 400: all is stored but what never will be */
        single_open(&s, "");
        set_page("c_total 5 # {trace_id=\"abc\"} 0.5\nbroken\n");
        single_run(&s, 500);
        set_page(page_of_c);
        sink_status = answers[i];
        char *rows = single_run(&s, 1000);
        assert_has(rows, "exemplar of row 0: {trace_id=\"abc\"} 0.5\n");
        sink_status = 204;
        rows = single_run(&s, 2000);
        assert_int_equal(strstr(rows, "exemplar of row 0: {trace_id=\"abc\"} 0.5\n") != NULL, again);
        assert_int_equal(strstr(rows, "metadata c 1 text\n") != NULL, again);
        rows = single_run(&s, 3000);
        assert_hasnt(rows, "exemplar");
        assert_hasnt(rows, "metadata");
        set_page("# EOF\n");
        sink_status = answers[i];
        assert_has(single_run(&s, 4000), "c_total" L " stale @4000\n");
        sink_status = 204;
        rows = single_run(&s, 5000);
        assert_int_equal(strstr(rows, "c_total" L " stale @5000\n") != NULL, again);
        assert_hasnt(single_run(&s, 6000), "stale");
        single_close(&s);
    }
    page_type = "text/plain; version=0.0.4";
}

static void test_credentials(void **state)
{
    struct single s;
    assert_ok(io_replace_file(io, "token", slice_str("  tok \n")));
    static const struct {
        const char *extra, *header;
    } cases[] = {
        { "basic_auth: {username: alice, password: secret}", "Basic YWxpY2U6c2VjcmV0" },
        { "basic_auth: {username: alice, password_file: token}", "Basic YWxpY2U6dG9r" },
        { "authorization: {credentials: abc}", "Bearer abc" },
        { "authorization: {type: Custom, credentials_file: token}", "Custom tok" },
        { "bearer_token_file: token, params: {a: [b c]}", "Bearer tok" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        single_open(&s, cases[i].extra);
        single_run(&s, 1000);
        assert_int_equal(s.outcome.health, SCRAPE_UP);
        assert_string_equal(last_authorization, cases[i].header);
        single_close(&s);
    }
    assert_string_equal(last_path, "/metrics?a=b%20c");
    ERR_IGNORE(io_unlink(io, "token"));
}

/* Many series that come and go: memory follows what is there, not what ever was. */
static void test_churn(void **state)
{
    struct single s;
    single_open(&s, "");
    size_t used_early = 0;
    for (int round = 0; round < 60; round++) {
        char text[sizeof page];
        size_t len = 0;
        for (int i = 0; i < 600; i++)
            len +=
                (size_t)snprintf(text + len, sizeof text - len, "churn{round=\"%d\",i=\"%d\"} 1\n", round, i);
        set_page(text);
        single_run(&s, 1000 * round);
        if (round == 20)
            used_early = pool_used(s.target->pool);
    }
    assert_true(pool_used(s.target->pool) < 2 * used_early);
    set_page("");
    char *rows = single_run(&s, 100000);
    assert_has(rows, "round=\"59\"} stale");
    assert_hasnt(rows, "round=\"58\"} stale");
    single_close(&s);
}

static void set_series(const char *value, int count)
{
    char text[sizeof page];
    size_t len = 0;
    for (int i = 0; i < count; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "over{v=\"%s\",i=\"%d\"} 1\n", value, i);
    set_page(text);
}

/* Series beyond the limit of samples are remembered as the others are: they go when they are old, not before. */
static void test_churn_over_the_limit(void **state)
{
    struct single s;
    single_open(&s, "sample_limit: 1000");
    set_series("a", 1200);
    assert_has(single_run(&s, 1000), "up" L " 0 @1000\n");
    for (int i = 2; i < 7; i++) {
        set_series("b", 1200);
        char *rows = single_run(&s, 1000 * i);
        assert_has(rows, "up" L " 0 ");
        assert_has(rows, "scrape_samples_post_metric_relabeling" L " 1200 ");
    }
    set_series("b", 1000);
    assert_has(single_run(&s, 7000), "scrape_series_added" L " 0 @7000\n");
    single_close(&s);
}

int main(void)
{
    if (!scrape_fixture_open())
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_and_staleness),
        cmocka_unit_test(test_spelling),
        cmocka_unit_test(test_labels),
        cmocka_unit_test(test_timestamps),
        cmocka_unit_test(test_openmetrics),
        cmocka_unit_test(test_limits_and_failures),
        cmocka_unit_test(test_refused_writes),
        cmocka_unit_test(test_credentials),
        cmocka_unit_test(test_churn),
        cmocka_unit_test(test_churn_over_the_limit),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scrape_fixture_close();
    return failed;
}
