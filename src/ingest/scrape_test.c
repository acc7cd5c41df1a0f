/* Goal: rows, stale markers and reports as Prometheus makes them, against targets that change, lie, stall and
 * fail; reloads and discovery files take effect. Method: a target server on 127.0.0.1 whose pages the test
 * sets; a sink that writes down what it is given; single scrapes called directly, schedules with intervals of
 * 100 ms. */
#include "base/test.h"

#include <string.h>
#include <unistd.h>

#include "codec/gzip.h"
#include "ingest/discovery_file.h"
#include "ingest/ingest.h"
#include "ingest/scrape_run.h"
#include "io/io.h"
#include "io/thread.h"
#include "model/sample.h"
#include "net/server.h"

static struct pool *root;
static struct io *io;
static struct net_server *server;
static char directory[100];

/* ---- the target ---- */

static struct io_mutex lock;
static char page[1 << 16];
static const char *page_type = "text/plain; version=0.0.4";
static unsigned page_status = 200;
static char last_path[300], last_accept[600], last_authorization[200];
static _Atomic int hits;

static void handle_page(void *context, struct net_request *q, struct net_response *r)
{
    atomic_fetch_add(&hits, 1);
    io_mutex_lock(&lock);
    snprintf(last_path, sizeof last_path, "%.*s", SLICE_ARG(q->target));
    snprintf(last_accept, sizeof last_accept, "%.*s", SLICE_ARG(net_request_header(q, "Accept")));
    snprintf(last_authorization, sizeof last_authorization, "%.*s",
             SLICE_ARG(net_request_header(q, "Authorization")));
    r->status = page_status;
    r->content_type = page_type;
    buf_put_str(&r->body, page);
    io_mutex_unlock(&lock);
}

static _Atomic int stalls_begun;

static void handle_stall(void *context, struct net_request *q, struct net_response *r)
{
    atomic_fetch_add(&stalls_begun, 1);
    while (!net_request_canceled(q))
        io_sleep_ns(io, 5000000);
}

static err endless(void *context, struct buf *chunk)
{
    for (int i = 0; i < 1000; i++)
        buf_put_str(chunk, "endless_metric{a=\"b\"} 1\n");
    return OK;
}

static void handle_endless(void *context, struct net_request *q, struct net_response *r)
{
    r->next = endless;
    r->content_type = "text/plain";
}

static void handle_bomb(void *context, struct net_request *q, struct net_response *r)
{
    static char zeros[1 << 20];
    struct gzip_writer *writer;
    assert_ok(gzip_writer_open(q->pool, 1, &writer));
    for (int i = 0; i < 4; i++)
        assert_ok(gzip_writer_add(writer, slice_of(zeros, sizeof zeros), i == 3, &r->body));
    gzip_writer_close(writer);
    assert_ok(net_response_header(r, "Content-Encoding", "gzip"));
}

static err cut(void *context, struct buf *chunk)
{
    buf_put_str(chunk, "cut 1\n");
    return ERR_IO;
}

static void handle_cut(void *context, struct net_request *q, struct net_response *r) { r->next = cut; }

static const struct net_route routes[] = {
    { NET_GET, "/metrics", handle_page, 0, false },    { NET_GET, "/stall", handle_stall, 0, false },
    { NET_GET, "/endless", handle_endless, 0, false }, { NET_GET, "/bomb", handle_bomb, 0, false },
    { NET_GET, "/cut", handle_cut, 0, false },
};

static void set_page(const char *text)
{
    io_mutex_lock(&lock);
    snprintf(page, sizeof page, "%s", text);
    io_mutex_unlock(&lock);
}

/* ---- the sink ---- */

static char rows_text[1 << 18];
static size_t rows_len;
static int sink_status = 204;

static void put_labels(struct slice labels)
{
    struct buf out = buf_open(root, 100000);
    labels_print(labels, &out);
    rows_len += (size_t)snprintf(rows_text + rows_len, sizeof rows_text - rows_len, "%.*s",
                                 SLICE_ARG(buf_slice(&out)));
    buf_close(&out);
}

static void sink(void *context, struct slice tenant, const struct ingest_rows *rows,
                 struct ingest_result *out_result)
{
    io_mutex_lock(&lock);
    for (size_t i = 0; i < rows->row_count && rows_len < sizeof rows_text - 2000; i++) {
        const struct ingest_row *row = &rows->rows[i];
        double v = bits_double(row->value_bits);
        put_labels(row->labels);
        rows_len += (size_t)snprintf(rows_text + rows_len, sizeof rows_text - rows_len,
                                     sample_is_stale(v) ? " stale @%lld\n" : " %2$g @%1$lld\n",
                                     (long long)row->t_ms, v);
    }
    for (size_t i = 0; i < rows->exemplar_count; i++) {
        rows_len += (size_t)snprintf(rows_text + rows_len, sizeof rows_text - rows_len,
                                     "exemplar of row %u: ", rows->exemplars[i].row);
        put_labels(rows->exemplars[i].labels);
        rows_len += (size_t)snprintf(rows_text + rows_len, sizeof rows_text - rows_len, " %g\n",
                                     rows->exemplars[i].value);
    }
    for (size_t i = 0; i < rows->metadata_count; i++)
        rows_len += (size_t)snprintf(rows_text + rows_len, sizeof rows_text - rows_len,
                                     "metadata %.*s %d %.*s\n", SLICE_ARG(rows->metadata[i].family),
                                     rows->metadata[i].type, SLICE_ARG(rows->metadata[i].help));
    *out_result = (struct ingest_result){ .status = sink_status, .samples = rows->row_count };
    if (sink_status != 204)
        strcpy(out_result->text, "no");
    io_mutex_unlock(&lock);
}

static char *take_rows(void)
{
    static char text[sizeof rows_text];
    io_mutex_lock(&lock);
    memcpy(text, rows_text, rows_len);
    text[rows_len] = 0;
    rows_len = 0;
    io_mutex_unlock(&lock);
    return text;
}

/* ---- single scrapes ---- */

static struct scrape_config *load(const char *jobs)
{
    char text[4000];
    struct yaml_node *node;
    struct scrape_config *config = NULL;
    struct err_at at = { 0 };
    snprintf(text, sizeof text, "scrape_configs: %s", jobs);
    struct pool *tree = pool_open(root, "tree", POOL_BYTES_UNLIMITED);
    err e = yaml_parse(slice_str(text), tree, &node, &at);
    if (e == OK)
        e = scrape_config_load(NULL, yaml_get(node, "scrape_configs"), slice_str(""), root, &config, &at);
    if (e != OK)
        fail_msg("%s", at.text);
    pool_close(tree);
    return config;
}

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
#define assert_has(text, part)                             \
    do {                                                   \
        if (strstr(text, part) == NULL)                    \
            fail_msg("no \"%s\" in:\n%.900s", part, text); \
    } while (0)
#define assert_hasnt(text, part)                        \
    do {                                                \
        if (strstr(text, part) != NULL)                 \
            fail_msg("\"%s\" in:\n%.900s", part, text); \
    } while (0)

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

/* ---- the schedule ---- */

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
    config = load(jobs);
    assert_ok(scrape_reload(scrape, config, NULL));
    scrape_config_release(config);
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
    config = load(jobs);
    assert_ok(scrape_reload(scrape, config, NULL));
    scrape_config_release(config);
    wait_for("job=\"good\"} 1 @");
    scrape_close(scrape);
    assert_hasnt(take_rows(), "job=\"bad\"");
}

int main(void)
{
    strcpy(directory, "/tmp/kelpie-scrape-test-XXXXXX");
    if (mkdtemp(directory) == NULL || io_open(directory, &io) != OK)
        return 1;
    root = pool_open(NULL, "scrape_test", POOL_BYTES_UNLIMITED);
    io_mutex_init(&lock);
    struct net_server_config config = net_server_config_default();
    config.listen = "127.0.0.1:0";
    config.routes = routes;
    config.route_count = sizeof routes / sizeof routes[0];
    struct err_at at;
    if (net_server_open(io, root, &config, &server, &at) != OK)
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
        cmocka_unit_test(test_schedule_and_reload),
        cmocka_unit_test(test_discovery_files),
        cmocka_unit_test(test_stalling_targets),
        cmocka_unit_test(test_reload_during_a_stall),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    net_server_close(server, 100);
    io_mutex_done(&lock);
    io_close(io);
    rmdir(directory);
    pool_close(root);
    return failed;
}
