/* Goal: what Prometheus' documentation promises about scrape_configs holds, and mistakes are named where they
 * are. Method: one full configuration looked at field by field; a table of bad ones with their messages. */
#include "base/test.h"

#include "ingest/scrape_target.h"

static struct pool *root;

static err load(const char *text, struct scrape_config **out_config, struct err_at *at)
{
    struct pool *tree = pool_open(root, "tree", POOL_BYTES_UNLIMITED);
    struct yaml_node *node;
    err e = yaml_parse(slice_str(text), tree, &node, at);
    if (e == OK)
        e = scrape_config_load(yaml_get(node, "global"), yaml_get(node, "scrape_configs"),
                               slice_str("/etc/kelpie"), root, out_config, at);
    pool_close(tree); /* the config must not lean on the tree */
    return e;
}

static void test_full(void **state)
{
    static const char text[] =
        "global:\n"
        "  scrape_interval: 15s\n"
        "  scrape_timeout: 5s\n"
        "  evaluation_interval: 30s\n"
        "  external_labels: {cluster: eu, replica: 1}\n"
        "  body_size_limit: 10MB\n"
        "scrape_configs:\n"
        "  - job_name: node\n"
        "    static_configs:\n"
        "      - targets: ['a:9100', 'b:9100']\n"
        "        labels: {env: prod}\n"
        "      - targets: ['c:9100']\n"
        "  - job_name: full\n"
        "    tenant: team-a\n"
        "    scrape_interval: 1m\n"
        "    scrape_timeout: 20s\n"
        "    metrics_path: /probe\n"
        "    scheme: https\n"
        "    params: {module: [http_2xx, x], empty: []}\n"
        "    honor_labels: true\n"
        "    honor_timestamps: false\n"
        "    track_timestamps_staleness: true\n"
        "    enable_compression: false\n"
        "    follow_redirects: false\n"
        "    basic_auth: {username: u, password_file: secret.txt}\n"
        "    tls_config: {ca_file: /ca.pem, server_name: n, insecure_skip_verify: yes, min_version: TLS13}\n"
        "    file_sd_configs: [{files: ['targets/*.json', /abs/x.yml], refresh_interval: 10s}]\n"
        "    relabel_configs: [{source_labels: [__address__], target_label: x}]\n"
        "    metric_relabel_configs: [{action: drop, source_labels: [__name__], regex: go_.*}]\n"
        "    sample_limit: 1000\n"
        "    label_limit: 30\n"
        "    label_name_length_limit: 100\n"
        "    label_value_length_limit: 200\n"
        "    target_limit: 5\n"
        "    body_size_limit: 1KB\n"
        "  - {job_name: token, authorization: {credentials: abc}}\n"
        "  - {job_name: token2, authorization: {type: Custom, credentials_file: f}}\n"
        "  - {job_name: token3, bearer_token: xyz}\n";
    struct scrape_config *c;
    struct err_at at = { 0 };
    if (load(text, &c, &at) != OK)
        fail_msg("%s", at.text);
    assert_int_equal(c->job_count, 5);
    assert_int_equal(c->evaluation_interval_ms, 30000);
    assert_int_equal(c->external_label_count, 2);
    assert_true(slice_equal_str(c->external_labels[1].value, "1"));
    const struct scrape_job *j = &c->jobs[0];
    assert_int_equal(j->interval_ms, 15000);
    assert_int_equal(j->timeout_ms, 5000);
    assert_true(slice_equal_str(j->tenant, "default"));
    assert_true(slice_equal_str(j->metrics_path, "/metrics"));
    assert_true(slice_equal_str(j->scheme, "http"));
    assert_true(j->honor_timestamps && !j->honor_labels && j->follow_redirects && j->enable_compression);
    assert_int_equal(j->limits.body_bytes, 10 << 20);
    assert_int_equal(j->group_count, 2);
    assert_int_equal(j->groups[0].target_count, 2);
    assert_true(slice_equal_str(j->groups[0].targets[1], "b:9100"));
    assert_true(slice_equal_str(j->groups[0].labels[0].value, "prod"));
    j = &c->jobs[1];
    assert_true(slice_equal_str(j->tenant, "team-a"));
    assert_int_equal(j->interval_ms, 60000);
    assert_int_equal(j->timeout_ms, 20000);
    assert_true(!j->honor_timestamps && j->honor_labels && !j->follow_redirects && !j->enable_compression);
    assert_true(j->track_timestamps_staleness);
    assert_string_equal(j->user, "u");
    assert_string_equal(j->password_file, "/etc/kelpie/secret.txt");
    assert_string_equal(j->tls.ca_file, "/ca.pem");
    assert_true(j->tls.insecure_skip_verify && j->tls.tls_min_set && j->tls.tls_min == NET_TLS_1_3);
    assert_int_equal(j->file_count, 1);
    assert_int_equal(j->files[0].refresh_ms, 10000);
    assert_true(slice_equal_str(j->files[0].patterns[0], "/etc/kelpie/targets/*.json"));
    assert_true(slice_equal_str(j->files[0].patterns[1], "/abs/x.yml"));
    assert_int_equal(j->target_rules.count, 1);
    assert_int_equal(j->metric_rules.count, 1);
    assert_int_equal(j->limits.samples, 1000);
    assert_int_equal(j->limits.labels, 30);
    assert_int_equal(j->limits.name_bytes, 100);
    assert_int_equal(j->limits.value_bytes, 200);
    assert_int_equal(j->limits.targets, 5);
    assert_int_equal(j->limits.body_bytes, 1024);
    assert_string_equal(c->jobs[2].auth_type, "Bearer");
    assert_string_equal(c->jobs[2].credentials, "abc");
    assert_string_equal(c->jobs[3].auth_type, "Custom");
    assert_string_equal(c->jobs[3].credentials_file, "/etc/kelpie/f");
    assert_string_equal(c->jobs[4].credentials, "xyz");
    scrape_config_release(scrape_config_hold(c));
    scrape_config_release(c);

    assert_ok(load("", &c, &at)); /* the defaults */
    assert_int_equal(c->job_count, 0);
    scrape_config_release(c);
    assert_ok(load("scrape_configs: [{job_name: a, scrape_interval: 3s}]", &c, &at));
    assert_int_equal(c->jobs[0].timeout_ms, 3000); /* never above the interval */
    assert_int_equal(c->jobs[0].limits.body_bytes, SCRAPE_BODY_BYTES_DEFAULT);
    scrape_config_release(c);
}

static uint64_t fingerprint_of(const char *global, const char *job)
{
    char text[1000];
    struct scrape_config *c;
    struct err_at at;
    snprintf(text, sizeof text, "global: {%s}\nscrape_configs: [{job_name: j%s}]", global, job);
    if (load(text, &c, &at) != OK)
        fail_msg("%s: %s", text, at.text);
    uint64_t fingerprint = c->jobs[0].fingerprint;
    scrape_config_release(c);
    return fingerprint;
}

/* Only what changes the meaning of a target's lines makes it forget them. */
static void test_fingerprint(void **state)
{
    static const struct {
        const char *global, *job;
        bool is_same;
    } cases[] = {
        { "scrape_interval: 7s", "", true },
        { "sample_limit: 7", "", true },
        { "", ", static_configs: [{targets: [a, b]}]", true },
        { "", ", file_sd_configs: [{files: [x.json]}]", true },
        { "", ", scrape_interval: 3s, scrape_timeout: 2s", true },
        { "", ", sample_limit: 10, target_limit: 3, body_size_limit: 1KB", true },
        { "", ", basic_auth: {username: u}, tls_config: {server_name: n}, metrics_path: /x", true },
        { "", ", honor_timestamps: false, track_timestamps_staleness: true", true },
        { "", ", tenant: default, honor_labels: false", true },
        { "", ", tenant: other", true }, /* another target */
        { "", ", honor_labels: true", false },
        { "", ", label_limit: 3", false },
        { "label_limit: 3", "", false },
        { "", ", label_name_length_limit: 3", false },
        { "", ", label_value_length_limit: 3", false },
        { "", ", metric_relabel_configs: [{target_label: a, replacement: b}]", false },
    };
    uint64_t plain = fingerprint_of("", "");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if ((fingerprint_of(cases[i].global, cases[i].job) == plain) != cases[i].is_same)
            fail_msg("{%s} {%s}", cases[i].global, cases[i].job);
    assert_true(fingerprint_of("", ", metric_relabel_configs: [{target_label: a, replacement: b}]") !=
                fingerprint_of("", ", metric_relabel_configs: [{target_label: b, replacement: a}]"));
}

static void test_bad(void **state)
{
#define JOB(text) "scrape_configs:\n- job_name: a\n  " text "\n"
    static const struct {
        const char *config, *message;
    } cases[] = {
        { "global: {scrape_intervall: 1s}",
          "line 1 column 10: unknown key \"scrape_intervall\", did you mean scrape_interval?" },
        { "global: {scrape_interval: 1s, scrape_timeout: 2s}",
          "line 1 column 9: global scrape_timeout is above scrape_interval" },
        { "global: {external_labels: [a]}", "line 1 column 27: expected a map, got a list" },
        { "scrape_configs: {}", "line 1 column 17: scrape_configs must be a list" },
        { "scrape_configs: [{}]", "line 1 column 18: job_name is empty" },
        { "scrape_configs: [{job_name: a}, {job_name: a}]", "line 1 column 33: two jobs are named \"a\"" },
        { JOB("kubernetes_sd_configs: []"), "line 3 column 3: unknown key \"kubernetes_sd_configs\"" },
        { JOB("scrape_interval: 1s\n  scrape_timeout: 2s"),
          "line 2 column 3: scrape_timeout is above scrape_interval" },
        { JOB("scrape_interval: 15"), "line 3 column 20: expected a duration like 15s or 1h30m, got \"15\"" },
        { JOB("scheme: ftp"), "line 3 column 11: expected one of http, https, got \"ftp\"" },
        { JOB("honor_labels: 1"), "line 3 column 17: expected true or false, got \"1\"" },
        { JOB("static_configs: [{targets: ['http://a:1/']}]"),
          "line 3 column 31: \"http://a:1/\" is not a host and port" },
        { JOB("static_configs: [{target: [a]}]"),
          "line 3 column 21: unknown key \"target\", did you mean targets?" },
        { JOB("file_sd_configs: [{files: [a.txt]}]"),
          "line 3 column 30: path name \"a.txt\" is not valid for file discovery" },
        { JOB("file_sd_configs: [{files: ['*/a.json']}]"),
          "line 3 column 30: path name \"*/a.json\" is not valid for file discovery" },
        { JOB("file_sd_configs: [{files: []}]"),
          "line 3 column 21: file discovery needs files and a refresh_interval above 0" },
        { JOB("basic_auth: {password: x}"), "line 3 column 15: basic_auth needs a username" },
        { JOB("basic_auth: {username: x, password: y, password_file: z}"),
          "line 3 column 15: at most one of password and password_file" },
        { JOB("authorization: {type: Basic}"),
          "line 3 column 18: authorization type cannot be \"basic\", use basic_auth" },
        { JOB("authorization: {credentials: a, credentials_file: b}"),
          "line 3 column 18: at most one of credentials and credentials_file" },
        { JOB("bearer_token: a\n  bearer_token_file: b"),
          "line 2 column 3: at most one of authorization, bearer_token and bearer_token_file" },
        { JOB("bearer_token: a\n  basic_auth: {username: b}"),
          "line 2 column 3: at most one of basic_auth, authorization and bearer_token" },
        { JOB("bearer_token: \"a\\nb\""), "line 2 column 3: a secret is too long or has a line break" },
        { JOB("tls_config: {cert_file: a}"), "line 3 column 15: cert_file and key_file are needed together" },
        { JOB("tls_config: {min_version: SSL3}"),
          "line 3 column 29: expected one of TLS10, TLS11, TLS12, TLS13, got \"SSL3\"" },
        { JOB("body_size_limit: 2GB"), "line 3 column 20: body_size_limit is above 1GB" },
        { JOB("sample_limit: -1"), "line 3 column 17: -1 is not between 0 and 9223372036854775807" },
        { JOB("params: {a: b}"), "line 3 column 15: expected a list, got \"b\"" },
        { JOB("relabel_configs: [{action: x}]"), NULL },
        { JOB("metric_relabel_configs: [{regex: '('}]"), NULL },
        { JOB("tenant: ''"), "line 2 column 3: tenant is not 1 to 150 letters, digits and !-_.*'()" },
        { JOB("tenant: a/b"), "line 2 column 3: tenant is not 1 to 150 letters, digits and !-_.*'()" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct scrape_config *c;
        struct err_at at = { 0 };
        if (load(cases[i].config, &c, &at) != ERR_INPUT)
            fail_msg("accepted: %s", cases[i].config);
        if (cases[i].message != NULL)
            assert_string_equal(at.text, cases[i].message);
        assert_true(strncmp(at.text, "line ", 5) == 0);
    }
}

static void test_torture(void **state)
{
    static const char text[] = "global: {external_labels: {a: b}}\n" JOB(
        "params: {a: [b]}\n  "
        "static_configs: [{targets: [x], labels: {c: d}}]\n"
        "  relabel_configs: [{target_label: x, replacement: y}]\n  file_sd_configs: [{files: [a.json]}]");
    for (uint64_t nth = 1; nth < 500; nth++) {
        struct pool *tree = pool_open(NULL, "torture", POOL_BYTES_UNLIMITED);
        struct yaml_node *node;
        struct scrape_config *c = NULL;
        assert_ok(yaml_parse(slice_str(text), tree, &node, NULL));
        pool_fault_at(tree, nth, true);
        err e = scrape_config_load(yaml_get(node, "global"), yaml_get(node, "scrape_configs"), slice_str(""),
                                   tree, &c, NULL);
        pool_fault_at(tree, 0, false);
        scrape_config_release(c);
        pool_close(tree);
        if (e == OK)
            return;
        assert_int_equal(e, ERR_LIMIT);
    }
    fail_msg("never succeeded");
}

/* "a=1,b=2" of canonical labels */
static const char *text_of(struct slice labels)
{
    static char text[2000];
    struct reader r = reader_of(labels);
    struct label label;
    size_t len = 0;
    text[0] = 0;
    while (labels_next(&r, &label))
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%.*s=%.*s", len == 0 ? "" : ",",
                                SLICE_ARG(label.name), SLICE_ARG(label.value));
    return text;
}

static void test_targets(void **state)
{
    static const struct {
        const char *job, *labels, *url, *trouble;
        bool is_dropped;
    } cases[] = {
        { "static_configs: [{targets: ['h:1'], labels: {env: p}}]", "env=p,instance=h:1,job=a",
          "http://h:1/metrics", NULL, false },
        { "static_configs: [{targets: ['h:1'], labels: {job: b, instance: i}}]", "instance=i,job=b",
          "http://h:1/metrics", NULL, false },
        { "params: {m: [x y, z]}\n  metrics_path: probe\n  scheme: https\n"
          "  static_configs: [{targets: ['h:1']}]",
          "instance=h:1,job=a", "https://h:1/probe?m=x%20y&m=z", NULL, false },
        { "params: {t: [old]}\n  relabel_configs: [{source_labels: [__address__], target_label: __param_t},"
          "{target_label: __address__, replacement: 'prober:9115'}]\n  static_configs: [{targets: ['h:1']}]",
          "instance=prober:9115,job=a", "http://prober:9115/metrics?t=h%3A1", NULL, false },
        { "relabel_configs: [{action: drop, source_labels: [__address__], regex: 'h:.*'}]\n"
          "  static_configs: [{targets: ['h:1']}]",
          NULL, NULL, NULL, true },
        { "relabel_configs: [{action: labeldrop, regex: '__address__'}]\n"
          "  static_configs: [{targets: ['h:1']}]",
          NULL, NULL, "no address", true },
        { "relabel_configs: [{target_label: __address__, replacement: 'u@h/x'}]\n"
          "  static_configs: [{targets: ['h:1']}]",
          NULL, NULL, "the address is not a host and port", true },
        { "relabel_configs: [{target_label: __scheme__, replacement: 'ftp'}]\n"
          "  static_configs: [{targets: ['h:1']}]",
          NULL, NULL, "the scheme is neither http nor https", true },
        { "relabel_configs: [{target_label: __scrape_interval__, replacement: 'x'}]\n"
          "  static_configs: [{targets: ['h:1']}]",
          NULL, NULL, "__scrape_interval__ is not a duration above 0", true },
        { "relabel_configs: [{target_label: __scrape_timeout__, replacement: '2m'}]\n"
          "  static_configs: [{targets: ['h:1']}]",
          NULL, NULL, "__scrape_timeout__ is not a duration up to the interval", true },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char config[2000];
        struct scrape_config *c;
        struct err_at at = { 0 };
        struct target_spec spec;
        snprintf(config, sizeof config, JOB("%s"), cases[i].job);
        if (load(config, &c, &at) != OK)
            fail_msg("%s: %s", config, at.text);
        assert_ok(target_build(&c->jobs[0], &c->jobs[0].groups[0], 0, slice_of("", 0), root, &spec));
        assert_int_equal(spec.is_dropped, cases[i].is_dropped);
        if (cases[i].trouble != NULL)
            assert_string_equal(spec.trouble, cases[i].trouble);
        if (!spec.is_dropped) {
            assert_string_equal(text_of(spec.labels), cases[i].labels);
            assert_string_equal((const char *)spec.url.at, cases[i].url);
        }
        if (i == 0)
            assert_string_equal(text_of(spec.discovered),
                                "__address__=h:1,__metrics_path__=/metrics,__scheme__=http,"
                                "__scrape_interval__=1m,__scrape_timeout__=10s,env=p,job=a");
        scrape_config_release(c);
    }
}

int main(void)
{
    root = pool_open(NULL, "scrape_config_test", POOL_BYTES_UNLIMITED);
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_full), cmocka_unit_test(test_fingerprint),
                                        cmocka_unit_test(test_bad), cmocka_unit_test(test_torture),
                                        cmocka_unit_test(test_targets) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_close(root);
    return failed;
}
