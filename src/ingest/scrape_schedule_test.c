/* Goal: reloads and discovery files take effect, and nothing holds up the others. Method: schedules with intervals
 * of 100 ms against the fixture's target. */
#include "ingest/scrape_fixture.h"

static struct scrape *open_scrape(const char *jobs, struct scrape_config **out_config)
{
    struct scrape *scrape;
    struct err_at at = { 0 };
    struct scrape_options options = scrape_options_default();
    options.discover_ms = 50;
    *out_config = load(jobs);
    err e = scrape_open(io, root, (struct scrape_sink){ sink, NULL }, &options, *out_config, &scrape, &at);
    if (e != OK)
        fail_msg("%s", at.text);
    return scrape;
}

/* Wait until the sink has seen text (2 s). */
static void wait_for(const char *text)
{
    for (int i = 0; i < 400; i++) {
        io_mutex_lock(&lock);
        rows_text[rows_len] = 0;
        bool found = strstr(rows_text, text) != NULL;
        io_mutex_unlock(&lock);
        if (found)
            return;
        io_sleep_ns(io, 5000000);
    }
    fail_msg("never saw %s in %.500s", text, rows_text);
}

static void reload_to(struct scrape *scrape, const char *jobs)
{
    struct scrape_config *config = load(jobs);
    assert_ok(scrape_reload(scrape, config, NULL));
    scrape_config_release(config);
}

static void test_schedule_and_reload(void **state)
{
    char jobs[1000];
    struct scrape_config *config;
    struct scrape_target_status *targets;
    size_t count;
    unsigned port = net_server_port(server);
    set_page("m 1\n");
    take_rows();
    snprintf(jobs, sizeof jobs,
             "[{job_name: a, scrape_interval: 100ms, static_configs: [{targets: ['127.0.0.1:%u', "
             "'localhost:%u']}],"
             "relabel_configs: [{action: drop, source_labels: [__address__], regex: 'local.*'}]},"
             "{job_name: b, scrape_interval: 100ms, static_configs: [{targets: ['127.0.0.1:%u']}]}]",
             port, port, port);
    struct scrape *scrape = open_scrape(jobs, &config);
    scrape_config_release(config);
    wait_for("job=\"a\"} 1 @");
    wait_for("job=\"b\"} 1 @");
    struct pool *pool = pool_open(root, "status", POOL_BYTES_UNLIMITED);
    io_sleep_ns(io, 250000000);
    assert_ok(scrape_status(scrape, pool, &targets, &count));
    assert_int_equal(count, 3);
    assert_true(targets[2].is_dropped && !targets[0].is_dropped && !targets[1].is_dropped);
    assert_int_equal(targets[0].health, SCRAPE_UP);
    assert_string_equal(scrape_health_text(targets[0].health), "up");
    assert_true(targets[0].last_scrape_ms > 0 && targets[0].last_duration_ns > 0 &&
                targets[0].last_error.len == 0);
    assert_true(slice_equal_str(targets[1].job, "b"));
    assert_true(slice_equal_str(labels_get(targets[2].discovered_labels, slice_str("job")), "a"));
    struct slice *names;
    assert_ok(scrape_job_names(scrape, pool, &names, &count));
    assert_int_equal(count, 2);

    /* job a goes, b stays: its series get no stale markers and are not new */
    snprintf(jobs, sizeof jobs,
             "[{job_name: b, scrape_interval: 100ms, static_configs: [{targets: ['127.0.0.1:%u']}]}]", port);
    take_rows();
    reload_to(scrape, jobs);
    wait_for("job=\"a\"} stale");
    take_rows();
    wait_for("m{instance=\"127.0.0.1:");
    wait_for("scrape_series_added{");
    char *rows = take_rows();
    assert_hasnt(rows, "stale");
    assert_hasnt(rows, "job=\"a\"");
    assert_null(strstr(strstr(rows, "scrape_series_added"), "} 1 @"));
    assert_ok(scrape_status(scrape, pool, &targets, &count));
    assert_int_equal(count, 1);

    /* a reload that cannot be: too many targets for the job's own limit; everything goes on */
    snprintf(jobs, sizeof jobs,
             "[{job_name: b, target_limit: 1, static_configs: [{targets: ['a:1', 'b:1']}]}]");
    struct err_at at = { 0 };
    config = load(jobs);
    assert_err(ERR_LIMIT, scrape_reload(scrape, config, &at));
    scrape_config_release(config);
    take_rows();
    wait_for("up{instance=\"127.0.0.1:");
    scrape_close(scrape);
    rows = take_rows();
    assert_hasnt(rows, "stale"); /* a stop is no end of the series */
    pool_close(pool);
}

/* Another interval changes in place; a rule ends the series that it drops, at once. */
static void test_reload_in_place(void **state)
{
    static const char format[] =
        "[{job_name: b, scrape_interval: %dms, static_configs: [{targets: ['127.0.0.1:%u']}]%s}]";
    char jobs[1000];
    struct scrape_config *config;
    struct scrape_target_status *targets;
    size_t count;
    unsigned port = net_server_port(server);
    struct pool *pool = pool_open(root, "status", POOL_BYTES_UNLIMITED);
    set_page("m 1\n");
    take_rows();
    snprintf(jobs, sizeof jobs, format, 100, port, "");
    struct scrape *scrape = open_scrape(jobs, &config);
    scrape_config_release(config);
    wait_for("scrape_series_added{");
    snprintf(jobs, sizeof jobs, format, 150, port, "");
    reload_to(scrape, jobs);
    take_rows();
    wait_for("scrape_series_added{");
    assert_hasnt(take_rows(), "stale");
    assert_ok(scrape_status(scrape, pool, &targets, &count));
    assert_true(count == 1 && targets[0].interval_ms == 150 && targets[0].health == SCRAPE_UP);
    snprintf(jobs, sizeof jobs, format, 150, port,
             ", metric_relabel_configs: [{action: drop, source_labels: [__name__], regex: m}]");
    reload_to(scrape, jobs);
    wait_for("} stale @");
    wait_for("scrape_series_added{");
    take_rows();
    wait_for("scrape_series_added{");
    assert_hasnt(take_rows(), "m{instance");
    scrape_close(scrape);
    pool_close(pool);
}

static void test_discovery_files(void **state)
{
    char text[300];
    struct scrape_config *config;
    unsigned port = net_server_port(server);
    assert_true(discovery_matches(slice_str("a*.json"), slice_str("abc.json")));
    assert_false(discovery_matches(slice_str("a*.json"), slice_str("abc.yml")));
    assert_false(discovery_matches(slice_str("aa*a.json"), slice_str("aa.json")));
    set_page("m 1\n");
    take_rows();
    ERR_IGNORE(io_dir_create(io, "sd"));
    struct scrape *scrape = open_scrape("[{job_name: f, scrape_interval: 100ms, file_sd_configs: [{files: "
                                        "['sd/t*.json', sd/x.yml]}]}]",
                                        &config);
    scrape_config_release(config);
    snprintf(text, sizeof text, "[{\"targets\": [\"127.0.0.1:%u\"], \"labels\": {\"v\": \"one\"}}]", port);
    assert_ok(io_replace_file(io, "sd/t1.json", slice_str(text)));
    wait_for("v=\"one\"} 1 @");
    snprintf(text, sizeof text, "- targets: ['127.0.0.1:%u']\n  labels: {v: yaml}\n", port);
    assert_ok(io_replace_file(io, "sd/x.yml", slice_str(text)));
    wait_for("v=\"yaml\"} 1 @");
    assert_ok(io_replace_file(io, "sd/t1.json", slice_str("[{\"targets\": [\"brok"))); /* damaged: kept */
    io_sleep_ns(io, 200000000);
    take_rows();
    wait_for("v=\"one\"} 1 @");
    snprintf(text, sizeof text, "[{\"targets\": [\"127.0.0.1:%u\"], \"labels\": {\"v\": \"two\"}}]", port);
    assert_ok(io_replace_file(io, "sd/t1.json", slice_str(text)));
    wait_for("v=\"one\"} stale");
    wait_for("v=\"two\"} 1 @");
    assert_ok(io_unlink(io, "sd/t1.json"));
    wait_for("v=\"two\"} stale");
    take_rows();
    wait_for("v=\"yaml\"} 1 @");
    scrape_close(scrape);
    ERR_IGNORE(io_unlink(io, "sd/x.yml"));
    ERR_IGNORE(io_dir_remove(io, "sd"));
}

/* Targets that stall do not hold up the others: workers are added. */
static void test_stalling_targets(void **state)
{
    char jobs[1000];
    struct scrape_config *config;
    unsigned port = net_server_port(server);
    set_page("m 1\n");
    take_rows();
    snprintf(jobs, sizeof jobs,
             "[{job_name: bad, scrape_interval: 1s, scrape_timeout: 1s, metrics_path: /stall, "
             "static_configs: "
             "[{targets: ['127.0.0.1:%u'], labels: {n: '1'}}, {targets: ['127.0.0.1:%u'], labels: {n: '2'}},"
             "{targets: ['127.0.0.1:%u'], labels: {n: '3'}}]},"
             "{job_name: good, scrape_interval: 100ms, static_configs: [{targets: ['127.0.0.1:%u']}]}]",
             port, port, port, port);
    struct scrape *scrape = open_scrape(jobs, &config);
    scrape_config_release(config);
    io_sleep_ns(io, 1500000000);
    char *rows = take_rows();
    int good = 0;
    for (char *at = rows; (at = strstr(at, "\nup{instance=\"127.0.0.1:")) != NULL; at++)
        good += strncmp(strchr(at, ','), ", job=\"good\"", 12) == 0;
    assert_true(good >= 8);
    int64_t begin_ns = io_monotonic_ns(io);
    scrape_close(scrape);
    assert_true(io_monotonic_ns(io) - begin_ns < 1800000000);
}

/* New targets do not wait for the only worker, which is in a slow scrape. */
static void test_reload_during_a_stall(void **state)
{
    char jobs[1000];
    struct scrape_config *config;
    unsigned port = net_server_port(server);
    set_page("m 1\n");
    take_rows();
    size_t len = (size_t)snprintf(jobs, sizeof jobs,
                                  "[{job_name: bad, scrape_interval: 3s, scrape_timeout: 3s, metrics_path: "
                                  "/stall, static_configs: [{targets: ['127.0.0.1:%u']}]}",
                                  port);
    strcpy(jobs + len, "]");
    int before = atomic_load(&stalls_begun);
    struct scrape *scrape = open_scrape(jobs, &config);
    scrape_config_release(config);
    while (atomic_load(&stalls_begun) == before)
        io_sleep_ns(io, 5000000);
    snprintf(jobs + len, sizeof jobs - len,
             ", {job_name: good, scrape_interval: 100ms, static_configs: [{targets: ['127.0.0.1:%u']}]}]",
             port);
    reload_to(scrape, jobs);
    wait_for("job=\"good\"} 1 @");
    scrape_close(scrape);
    assert_hasnt(take_rows(), "job=\"bad\"");
}

int main(void)
{
    if (!scrape_fixture_open())
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedule_and_reload),   cmocka_unit_test(test_reload_in_place),
        cmocka_unit_test(test_discovery_files),       cmocka_unit_test(test_stalling_targets),
        cmocka_unit_test(test_reload_during_a_stall),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scrape_fixture_close();
    return failed;
}
