/* The APIs over a real server and client, a fake source behind them: exact JSON of every shape, every error
 * with its status and errorType, headers, limits, streaming, and the callbacks of administration. */
#include "base/test.h"

#include "api/answer.h"
#include "api/api.h"
#include "api/fake_source.h"
#include "net/client.h"
#include "query/query.h"

#include <stdatomic.h>

static struct io *io;
static struct pool *pool;
static struct fake_source fake;
static struct query_service *queries;
static struct net_server *server;
static struct net_client *client;
static struct buf body;
static struct net_client_response reply;
static bool is_ready = true;
static err reload_result = OK;

static bool ready(void *context, char *reason)
{
    snprintf(reason, API_REASON_BYTES_MAX, "still reading");
    return is_ready;
}

static err reload(void *context, struct err_at *at)
{
    return reload_result == OK ? OK : err_set(at, reload_result, "line 3 column 1: unknown key \"x\"");
}

static size_t config_bytes; /* of a long one */

static void config_text(void *context, struct buf *out)
{
    buf_put_str(out, "query:\n  timeout: 2m\n");
    for (size_t i = 0; i < config_bytes; i++)
        buf_put_u8(out, '#');
}

static void flags(void *context, struct buf *out) { buf_put(out, "data\0d\0http\0:1\0", 15); }
static void metrics_text(void *context, struct buf *out) { buf_put_str(out, "process_threads 3\n"); }

static _Atomic int targets_asked;

static void targets(void *context, struct pool *request_pool, api_target_add add, void *to)
{
    struct api_target target = { .job = slice_str("j"),
                                 .url = slice_str("http://a/metrics"),
                                 .health = "up",
                                 .scraped_ms = 1500,
                                 .took_ns = 250000000,
                                 .interval_ms = 15000,
                                 .timeout_ms = 500 };
    add(to, &target);
    target.is_dropped = true;
    add(to, &target);
    atomic_fetch_add(&targets_asked, 1);
}

static void ask_with(const char *method, const char *target, const char *form, const char *header)
{
    char url[2048];
    const char *headers[] = { header, "Content-Type: application/x-www-form-urlencoded" };
    snprintf(url, sizeof url, "http://127.0.0.1:%u%s", net_server_port(server), target);
    struct net_client_request request = {
        .url = url,
        .method = method,
        .headers = headers + (header == NULL),
        .header_count = (size_t)(form != NULL) + (header != NULL),
        .body = form != NULL ? slice_str(form) : slice_of("", 0),
        .timeout_ms = 20000,
        .encoded_bytes_max = 64 << 20,
    };
    if (form == NULL && header != NULL)
        request.headers = headers;
    struct err_at at = { 0 };
    buf_clear(&body);
    err e = net_client_do(client, &request, &body, &reply, &at);
    if (e != OK)
        fail_msg("%s: %s", target, at.text);
    buf_put_u8(&body, 0);
}

static void get(const char *target) { ask_with("GET", target, NULL, NULL); }

static void expect_body(unsigned status, const char *text)
{
    if (reply.status != status || strcmp((const char *)body.at, text) != 0)
        fail_msg("%u %s\nexpected %u %s", reply.status, (const char *)body.at, status, text);
}

static void expect_part(unsigned status, const char *part)
{
    if (reply.status != status || strstr((const char *)body.at, part) == NULL)
        fail_msg("%u %s\nexpected %u … %s", reply.status, (const char *)body.at, status, part);
}

#define SUCCESS(data)       "{\"status\":\"success\",\"data\":" data "}"
#define FAILURE(type, text) "{\"status\":\"error\",\"errorType\":\"" type "\",\"error\":\"" text "\"}"

static void instant_queries(void **state)
{
    get("/api/v1/query?query=1%2B1&time=4");
    expect_body(200, SUCCESS("{\"resultType\":\"scalar\",\"result\":[4,\"2\"]}"));
    get("/api/v1/query?query=%22a%22&time=-1.5");
    expect_body(200, SUCCESS("{\"resultType\":\"string\",\"result\":[-1.500,\"a\"]}"));
    get("/api/v1/query?query=up&time=3");
    expect_body(
        200,
        SUCCESS(
            "{\"resultType\":\"vector\",\"result\":[{\"metric\":{\"__name__\":\"up\",\"job\":\"a\"},"
            "\"value\":[3,\"3\"]},{\"metric\":{\"__name__\":\"up\",\"job\":\"b\"},\"value\":[3,\"30\"]}]}"));
    get("/api/v1/query?query=up%7Bjob=%22b%22%7D%5B1500ms%5D&time=3");
    expect_body(200,
                SUCCESS(
                    "{\"resultType\":\"matrix\",\"result\":[{\"metric\":{\"__name__\":\"up\",\"job\":\"b\"},"
                    "\"values\":[[2,\"20\"],[3,\"30\"]]}]}"));
    get("/api/v1/query?query=nothing&time=3");
    expect_body(200, SUCCESS("{\"resultType\":\"vector\",\"result\":[]}"));
    ask_with("POST", "/api/v1/query", "query=up&time=3&limit=1", NULL);
    expect_body(
        200,
        "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[{\"metric\":{\"__name__\":"
        "\"up\",\"job\":\"a\"},\"value\":[3,\"3\"]}]},\"warnings\":[\"results truncated due to limit\"]}");
}

static void histograms(void **state)
{
    get("/api/v1/query?query=h&time=3");
    expect_body(
        200,
        SUCCESS("{\"resultType\":\"vector\",\"result\":[{\"metric\":{\"__name__\":\"h\"},\"histogram\":[3,"
                "{\"count\":\"4\",\"sum\":\"7.5\",\"buckets\":[[3,\"-0.5\",\"0.5\",\"1\"],"
                "[0,\"1\",\"2\",\"2\"],[0,\"2\",\"4\",\"1\"]]}]}]}"));
    get("/api/v1/query?query=h%5B2500ms%5D&time=3"); /* a float at 1 s and 2 s, histograms at 3 s */
    expect_part(200, "\"values\":[[1,\"1\"],[2,\"2\"]],\"histograms\":[[3,{\"count\":\"4\"");
}

static void range_queries(void **state)
{
    get("/api/v1/query_range?query=up%7Bjob=%22a%22%7D&start=1&end=3&step=1");
    expect_body(200,
                SUCCESS(
                    "{\"resultType\":\"matrix\",\"result\":[{\"metric\":{\"__name__\":\"up\",\"job\":\"a\"},"
                    "\"values\":[[1,\"1\"],[2,\"2\"],[3,\"3\"]]}]}"));
    get("/api/v1/query_range?query=5&start=0&end=10&step=5s");
    expect_body(200,
                SUCCESS(
                    "{\"resultType\":\"matrix\",\"result\":[{\"metric\":{},\"values\":[[0,\"5\"],[5,\"5\"],"
                    "[10,\"5\"]]}]}"));
    get("/api/v1/query_range?query=up&start=1970-01-01T00:00:01Z&end=3&step=2&limit=1");
    expect_part(200,
                "\"values\":[[1,\"1\"],[3,\"3\"]]}]},\"warnings\":[\"results truncated due to limit\"]}");
}

static void bad_parameters(void **state)
{
    static const struct {
        const char *target, *text;
    } cases[] = {
        { "/api/v1/query?query=up&time=yesterday",
          "invalid parameter \\\"time\\\": cannot parse \\\"yesterday\\\" to a valid timestamp" },
        { "/api/v1/query?query=up&timeout=soon",
          "invalid parameter \\\"timeout\\\": cannot parse \\\"soon\\\" to a valid duration" },
        { "/api/v1/query?query=up&limit=-1", "invalid parameter \\\"limit\\\": limit must be non-negative" },
        { "/api/v1/query?query=up&partial=no",
          "invalid parameter \\\"partial\\\": must be \\\"allow\\\" or \\\"deny\\\"" },
        { "/api/v1/query_range?query=up&end=1&step=1",
          "invalid parameter \\\"start\\\": cannot parse \\\"\\\" to a valid timestamp" },
        { "/api/v1/query_range?query=up&start=10&end=1&step=1",
          "invalid parameter \\\"end\\\": end timestamp must not be before start time" },
        { "/api/v1/query_range?query=up&start=0&end=1",
          "invalid parameter \\\"step\\\": cannot parse \\\"\\\" to a valid duration" },
        { "/api/v1/query_range?query=up&start=0&end=1&step=0",
          "invalid parameter \\\"step\\\": zero or negative query resolution step widths are not accepted. "
          "Try a"
          " positive integer" },
        { "/api/v1/query_range?query=up&start=0&end=11001&step=1",
          "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution"
          " (?step=XX)" },
        { "/api/v1/series", "no match[] parameter provided" },
        { "/api/v1/labels?start=2&end=1",
          "invalid parameter \\\"end\\\": end timestamp must not be before start timestamp" },
        { "/api/v1/status/tsdb?limit=0", "limit must be a positive number of at most 10000" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        get(cases[i].target);
        snprintf(text, sizeof text, FAILURE("bad_data", "%s"), cases[i].text);
        expect_body(400, text);
    }
    get("/api/v1/query_range?query=up&start=0&end=11000&step=1");
    expect_part(200, "success");
}

static void bad_expressions(void **state)
{
    get("/api/v1/query?query=sum(");
    expect_part(400,
                "\"errorType\":\"bad_data\",\"error\":\"invalid parameter \\\"query\\\": 1:5: parse error: ");
    get("/api/v1/query");
    expect_part(400, "\"errorType\":\"bad_data\",\"error\":\"invalid parameter \\\"query\\\": ");
    get("/api/v1/query_range?query=up%5B5m%5D&start=0&end=1&step=1");
    expect_part(400, "\"errorType\":\"bad_data\",\"error\":\"invalid parameter \\\"query\\\": ");
    get("/api/v1/series?match%5B%5D=sum(up)");
    expect_part(400, "\"errorType\":\"bad_data\",\"error\":\"invalid parameter \\\"match[]\\\": ");
    get("/api/v1/query?query=up*on(x)up&time=3");
    expect_part(422, "\"errorType\":\"execution\"");
}

static void names_and_values(void **state)
{
    get("/api/v1/labels");
    expect_body(200, SUCCESS("[\"__name__\",\"job\",\"my.label\"]"));
    get("/api/v1/labels?match%5B%5D=h");
    expect_body(200, SUCCESS("[\"__name__\"]"));
    get("/api/v1/labels?limit=1");
    expect_body(
        200,
        "{\"status\":\"success\",\"data\":[\"__name__\"],\"warnings\":[\"results truncated due to limit\"]}");
    get("/api/v1/label/job/values");
    expect_body(200, SUCCESS("[\"a\",\"b\"]"));
    get("/api/v1/label/job/values?match%5B%5D=up%7Bjob=%22a%22%7D&match%5B%5D=h");
    expect_body(200, SUCCESS("[\"a\"]"));
    get("/api/v1/label/U__my_2e_label/values");
    expect_body(200, SUCCESS("[\"x\"]"));
    get("/api/v1/label/nothing/values?start=5&end=6");
    expect_body(200, SUCCESS("[]"));
    get("/api/v1/label/%ff/values");
    expect_part(400, "invalid label name");
}

static void series(void **state)
{
    get("/api/v1/series?match%5B%5D=up&match%5B%5D=%7Bjob=%22a%22%7D");
    expect_body(200, SUCCESS("[{\"__name__\":\"up\",\"job\":\"a\"},{\"__name__\":\"up\",\"job\":\"b\"}]"));
    get("/api/v1/series?match%5B%5D=%7B__name__!=%22%22%7D&limit=1");
    expect_part(200, "[{\"__name__\":\"big\"}],\"warnings\":[\"results truncated due to limit\"]");
    ask_with("POST", "/api/v1/series", "match[]=h&start=1000", NULL);
    expect_body(200, SUCCESS("[]"));
    static char many[(ANSWER_SETS_MAX + 1) * 10];
    for (size_t i = 0; i < ANSWER_SETS_MAX + 1; i++)
        memcpy(many + i * 10, "match[]=h&", 10);
    many[sizeof many - 1] = 0;
    ask_with("POST", "/api/v1/series", many, NULL);
    expect_part(400, "more than 1024 selectors");
}

static void exemplars_and_metadata(void **state)
{
    get("/api/v1/query_exemplars?query=test&start=1700000000000&end=1700000001000");
    expect_body(200, SUCCESS("[]"));
    fake.exemplar_series_count = 2;
    get("/api/v1/query_exemplars?query=rate(up%7Bjob=%22a%22%7D%5B1m%5D)");
    expect_body(200, SUCCESS("[{\"seriesLabels\":{\"__name__\":\"up\",\"job\":\"a\"},\"exemplars\":[{"
                             "\"labels\":{},\"value\":\"0.5\","
                             "\"timestamp\":1.250}]}]"));
#define EXEMPLARS  "\"exemplars\":[{\"labels\":{},\"value\":\"0.5\",\"timestamp\":1.250}]"
#define OF_UP(job) "{\"seriesLabels\":{\"__name__\":\"up\",\"job\":\"" job "\"}," EXEMPLARS "}"
    get("/api/v1/query_exemplars?query=up%7Bjob=%22b%22%7D%2Bup%2Bup"); /* each once, sorted */
    expect_body(200, SUCCESS("[" OF_UP("a") "," OF_UP("b") "]"));
    fake.exemplars_are_damaged = true; /* which only reading them shows */
    get("/api/v1/query_exemplars?query=up%7Bjob=%22a%22%7D&proof=true");
    expect_body(200, "{\"status\":\"success\",\"data\":[" OF_UP(
                         "a") "],\"kelpie\":{\"complete\":false,"
                              "\"dataThrough\":5,\"partitions\":[],\"missing\":[]}}");
    fake.proof.complete = true;
    get("/api/v1/query_exemplars?query=up&partial=deny");
    expect_part(503, "\"error\":\"the answer would be incomplete");
    fake.exemplars_are_damaged = false;
    fake.proof.complete = true;
    get("/api/v1/query_exemplars?query=up&partial=deny&proof=true");
    expect_part(200, "\"kelpie\":{\"complete\":true");
    get("/api/v1/query_exemplars?query=)");
    expect_part(400, "bad_data");
    get("/api/v1/query_exemplars?query=1");
    expect_body(200, SUCCESS("[]"));
    static char many[64 + 4 * ANSWER_SETS_MAX] = "query=1";
    for (size_t i = 0; i <= ANSWER_SETS_MAX; i++) /* in groups: nesting is bounded, too */
        strcat(many, i == ANSWER_SETS_MAX ? ")*h" : i == 0 ? "*(h" : i % 100 == 0 ? ")*(h" : "*h");
    ask_with("POST", "/api/v1/query_exemplars", many, NULL);
    expect_part(400, "more than 1024 selectors");
    get("/api/v1/metadata");
    expect_body(
        200,
        SUCCESS(
            "{\"a\":[{\"type\":\"counter\",\"help\":\"y\",\"unit\":\"\"},{\"type\":\"gauge\",\"help\":\"x\","
            "\"unit\":\"\"}],\"up\":[{\"type\":\"gauge\",\"help\":\"Up?\",\"unit\":\"\"}]}"));
    get("/api/v1/metadata?limit=1&limit_per_metric=1");
    expect_body(200, SUCCESS("{\"a\":[{\"type\":\"counter\",\"help\":\"y\",\"unit\":\"\"}]}"));
    get("/api/v1/metadata?metric=up");
    expect_body(200, SUCCESS("{\"up\":[{\"type\":\"gauge\",\"help\":\"Up?\",\"unit\":\"\"}]}"));
}

static void status_pages(void **state)
{
    get("/api/v1/status/buildinfo");
    expect_part(200, "\"version\":\"3.14.0\"");
    assert_null(strstr((const char *)body.at, "features"));
    get("/api/v1/status/runtimeinfo");
    expect_part(200, "\"startTime\":\"1970-01-01T00:00:01.000Z\"");
    get("/api/v1/status/flags");
    expect_body(200, SUCCESS("{\"data\":\"d\",\"http\":\":1\"}"));
    get("/api/v1/status/config");
    expect_body(200, SUCCESS("{\"yaml\":\"query:\\n  timeout: 2m\\n\"}"));
    get("/api/v1/status/tsdb");
    expect_body(200,
                SUCCESS(
                    "{\"headStats\":{\"numSeries\":3,\"numLabelPairs\":5,\"chunkCount\":0,\"minTime\":1000,"
                    "\"maxTime\":2000},\"seriesCountByMetricName\":[{\"name\":\"up\",\"value\":3}],"
                    "\"labelValueCountByLabelName\":[],\"memoryInBytesByLabelName\":[],"
                    "\"seriesCountByLabelValuePair\":[]}"));
    get("/api/v1/targets");
    expect_body(
        200,
        SUCCESS(
            "{\"activeTargets\":[{\"discoveredLabels\":{},\"labels\":{},\"scrapePool\":\"j\",\"scrapeUrl\":"
            "\"http://a/metrics\",\"globalUrl\":\"http://a/metrics\",\"lastError\":\"\",\"lastScrape\":"
            "\"1970-01-01T00:00:01.500Z\",\"lastScrapeDuration\":0.25,\"health\":\"up\","
            "\"scrapeInterval\":\"15s\",\"scrapeTimeout\":\"0.5s\"}],\"droppedTargets\":["
            "{\"discoveredLabels\":{}}],\"droppedTargetCounts\":{}}"));
    assert_int_equal(atomic_load(&targets_asked), 1);
    get("/api/v1/targets?state=dropped");
    expect_body(200, SUCCESS("{\"activeTargets\":[],\"droppedTargets\":[{\"discoveredLabels\":{}}],"
                             "\"droppedTargetCounts\":{}}"));
    get("/api/v1/targets?state=active");
    expect_part(200, "\"droppedTargets\":[],");
    get("/api/v1/rules");
    expect_body(200, SUCCESS("{\"groups\":[]}"));
    get("/api/v1/alerts");
    expect_body(200, SUCCESS("{\"alerts\":[]}"));
    get("/api/v1/alertmanagers");
    expect_body(200, SUCCESS("{\"activeAlertmanagers\":[],\"droppedAlertmanagers\":[]}"));
}

static void proofs(void **state)
{
    struct proof_missing missing[60];
    struct proof_partition partition = {
        .partition = 2, .generation = 1, .applied_offset = 7, .end_offset = 9
    };
    struct proof whole = fake.proof;
    for (uint32_t i = 0; i < 60; i++)
        missing[i] =
            (struct proof_missing){ .partition = i, .range = { 1000, 2500 }, .reason = "quarantine" };
    fake.proof = (struct proof){ .complete = false,
                                 .data_through_ms = 4000,
                                 .partitions = &partition,
                                 .partition_count = 1,
                                 .missing = missing,
                                 .missing_count = 1 };
    get("/api/v1/labels?match%5B%5D=h&proof=true");
    expect_body(
        200,
        "{\"status\":\"success\",\"data\":[\"__name__\"],\"kelpie\":{\"complete\":false,\"dataThrough\":4,"
        "\"partitions\":[{\"partition\":2,\"generation\":1,\"applied\":7,\"end\":9}],\"missing\":["
        "{\"partition\":0,\"reason\":\"quarantine\",\"from\":1,\"to\":2.500}]}}");
    get("/api/v1/query?query=up&time=3&partial=deny");
    expect_body(503,
                FAILURE("unavailable", "the answer would be incomplete: quarantine partition=0 from=1.000"
                                       " to=2.500"));
    fake.proof.missing_count = 60;
    get("/api/v1/query?query=up&time=3&partial=deny");
    expect_part(503, "more\"}");
    get("/api/v1/query?query=up&time=3&stats=all");
    expect_part(200, "\"stats\":{\"timings\":{\"evalTotalTime\":");
    expect_part(200, "\"received\":{\"rowsBytes\":0,\"groupsBytes\":0}");
    expect_part(200, "\"complete\":false");
    fake.proof = whole;
}

static void refusals(void **state)
{
    ask_with("GET", "/api/v1/query?query=1&time=0", NULL, "X-Scope-OrgID: a/b");
    expect_part(400, "invalid X-Scope-OrgID");
    ask_with("GET", "/api/v1/query?query=1&time=0", NULL, "X-Scope-OrgID: team-a");
    expect_part(200, "success");
    fake.select_sleep_ns = 2 * NS_PER_SECOND;
    get("/api/v1/query?query=up&time=3&timeout=50ms");
    expect_body(503, FAILURE("timeout", "query timed out in expression evaluation"));
    fake.select_sleep_ns = 0;
    static const struct {
        err e;
        unsigned status;
        const char *type;
    } cases[] = {
        { ERR_CANCELED, 499, "canceled" },
        { ERR_CLOSED, 503, "unavailable" },
        { ERR_IO, 500, "internal" },
        { ERR_LIMIT, 422, "execution" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char type[64];
        fake.select_error = cases[i].e;
        snprintf(type, sizeof type, "\"errorType\":\"%s\"", cases[i].type);
        get("/api/v1/query?query=up&time=3");
        expect_part(cases[i].status, type);
        get("/api/v1/series?match%5B%5D=up");
        expect_part(cases[i].status, type);
    }
    fake.select_error = OK;
}

/* 5,000 points and 400 histograms are written by more than one thread; the text must be as by one. */
static void long_answers_are_written_in_parts(void **state)
{
    get("/api/v1/query?query=%7B__name__=~%22big%7Ch%22%7D%5B2h%5D&time=6000");
    assert_int_equal(reply.status, 200);
    const char *at = strstr((const char *)body.at, "\"values\":[");
    char expected[64];
    assert_non_null(at);
    at += strlen("\"values\":[");
    for (int i = 0; i < 5000; i++) {
        int len = snprintf(expected, sizeof expected, "%s[%d,\"%d.5\"]", i == 0 ? "" : ",", i + 1, i);
        if (strncmp(at, expected, (size_t)len) != 0)
            fail_msg("point %d: %.40s", i, at);
        at += len;
    }
    assert_int_equal(
        strncmp(at,
                "]},{\"metric\":{\"__name__\":\"h\"},\"values\":[[1,\"1\"],[2,\"2\"]],\"histograms\":[[3,",
                60),
        0);
    for (int i = 4; i <= 400; i++) {
        snprintf(expected, sizeof expected, ",[%d,{\"count\":\"4\"", i);
        at = strstr(at, expected);
        assert_non_null(at);
    }
    assert_non_null(strstr(at, "]}]}}"));
}

/* 2,700 times a histogram leave in pieces; the text must be as in one. */
static void longer_answers_are_streamed(void **state)
{
    get("/api/v1/query_range?query=h&start=3&end=690&step=0.25");
    assert_int_equal(reply.status, 200);
    const char *at = strstr((const char *)body.at, "\"histograms\":[");
    assert_non_null(at);
    at += strlen("\"histograms\":[");
    for (int t_ms = 3000; t_ms <= 690000; t_ms += 250) {
        char expected[64], fraction[8] = "";
        if (t_ms % 1000 != 0)
            snprintf(fraction, sizeof fraction, ".%03d", t_ms % 1000);
        int len = snprintf(expected, sizeof expected, "%s[%d%s,{\"count\":\"4\"", t_ms == 3000 ? "" : ",",
                           t_ms / 1000, fraction);
        if (strncmp(at, expected, (size_t)len) != 0)
            fail_msg("%d ms: %.40s", t_ms, at);
        at = strstr(at, "}]") + 2;
    }
    assert_int_equal(strncmp(at, "]}]}}", 5), 0);
}

/* A piece takes the longest histogram, and another the longest list of what is missing. */
static void long_items_are_streamed(void **state)
{
    static struct proof_missing missing[1000];
    struct proof whole = fake.proof;
    for (uint32_t i = 0; i < 1000; i++)
        missing[i] = (struct proof_missing){ i, { 1700000000001 + i, 1700000000999 + i }, "quarantine" };
    fake.proof.complete = false;
    fake.proof.missing = missing;
    fake.proof.missing_count = 1000;
    get("/api/v1/query_range?proof=true&query=%7B__name__=~%22h%7Chuge%22%7D&start=1&end=690&step=0.25");
    expect_part(200, "\"kelpie\":{\"complete\":false");
    const char *at = strstr((const char *)body.at, "\"histograms\":[[1,{\"count\":");
    assert_non_null(at);
    assert_true(strlen(at) > 1 << 20);
    /* what many selectors miss together is listed once, and no more than one of them may name */
    static char many[ANSWER_SETS_MAX * 12] = "proof=1";
    for (size_t i = 0; i < ANSWER_SETS_MAX; i++)
        strcat(many, "&match[]=h");
    ask_with("POST", "/api/v1/series", many, NULL);
    expect_part(200, "\"complete\":false");
    size_t count = 0;
    for (at = (const char *)body.at; (at = strstr(at, "\"reason\"")) != NULL; at++)
        count++;
    assert_int_equal(count, 1000);
    fake.proof = whole;
}

static void too_long_an_answer(void **state)
{
    config_bytes = 5 << 20;
    get("/api/v1/status/config");
    expect_body(422, FAILURE("execution", "the answer is larger than a response may be"));
    config_bytes = 0;
}

static void administration(void **state)
{
    get("/-/healthy");
    expect_body(200, "Kelpie is healthy.\n");
    get("/-/ready");
    expect_body(200, "Kelpie is ready.\n");
    is_ready = false;
    get("/-/ready");
    expect_body(503, "still reading\n");
    get("/-/healthy");
    expect_body(200, "Kelpie is healthy.\n");
    get("/metrics");
    expect_part(200, "kelpie_build_info");
    get("/api/v1/query?query=1");
    expect_body(503, "{\"status\":\"error\",\"errorType\":\"unavailable\",\"error\":\"still reading\"}");
    get("/api/v1/labels");
    assert_int_equal(reply.status, 503);
    ask_with("POST", "/-/reload", "", NULL);
    expect_body(503, "still reading\n");
    ask_with("POST", "/api/v1/write", "", NULL);
    expect_body(503, "still reading\n");
    is_ready = true;
    ask_with("POST", "/-/reload", "", NULL);
    expect_part(200, "reloaded");
    reload_result = ERR_INPUT;
    ask_with("POST", "/-/reload", "", NULL);
    expect_body(500, "failed to reload config: line 3 column 1: unknown key \"x\"\n");
    get("/-/reload");
    assert_int_equal(reply.status, 405);
    get("/metrics");
    expect_part(200, "kelpie_build_info{version=\"");
    expect_part(200, "# TYPE kelpie_queries_total counter\nkelpie_queries_total ");
    expect_part(200, "process_threads 3\n");
    get("/");
    expect_part(200, "<h1>Kelpie");
    ask_with("POST", "/api/v1/write", "x", NULL);
    expect_part(503, "this node takes no writes");
    ask_with("POST", "/api/v1/admin/tsdb/snapshot", "", NULL);
    expect_part(422, "not supported");
    get("/api/v1/nothing");
    assert_int_equal(reply.status, 404);
}

static int open_all(void **state)
{
    assert_ok(io_open(".", &io));
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    fake_open(&fake, pool);
    struct fake_series *a = fake_add(&fake, "up|job=a"), *b = fake_add(&fake, "up|job=b");
    struct fake_series *h = fake_add(&fake, "h"), *big = fake_add(&fake, "big");
    fake_sample(fake_add(&fake, "dotted|my.label=x"), 1000, 1);
    for (int i = 1; i <= 3; i++) {
        fake_sample(a, i * 1000, i);
        fake_sample(b, i * 1000, i * 10);
    }
    fake_sample(h, 1000, 1);
    fake_sample(h, 2000, 2);
    for (int i = 3; i <= 400; i++)
        fake_histogram(&fake, h, i * 1000);
    for (int i = 0; i < 5000; i++)
        fake_sample(big, (i + 1) * 1000, i + 0.5);
    struct fake_series *huge = fake_add(&fake, "huge");
    fake_huge_histogram(&fake, huge, 1000);
    fake_sample(huge, 1200, bits_double(SAMPLE_STALE_BITS));
    fake.exemplar = (struct source_exemplar){ .t_ms = 1250, .value = 0.5 };

    struct query_config query = query_config_default();
    query.worker_count = 2;
    assert_ok(query_service_open(&query, io, &fake.source, pool, &queries));
    struct api_config config = {
        .io = io,
        .queries = queries,
        .is_ready = ready,
        .reload = reload,
        .config_text = config_text,
        .flags = flags,
        .metrics_text = metrics_text,
        .targets = targets,
        .start_ms = 1000,
    };
    struct api *api;
    assert_ok(api_open(&config, pool, &api));
    struct net_server_config net = net_server_config_default();
    struct err_at at = { 0 };
    net.listen = "127.0.0.1:0";
    net.response_bytes_max = 4 << 20;
    net.context = api;
    net.routes = api_routes(&net.route_count);
    if (net_server_open(io, pool, &net, &server, &at) != OK)
        fail_msg("%s", at.text);
    assert_ok(net_client_open(io, pool, &client));
    body = buf_open(pool, 64 << 20);
    return 0;
}

static int close_all(void **state)
{
    net_client_close(client);
    net_server_close(server, 5000);
    query_service_close(queries);
    buf_close(&body);
    pool_close(pool);
    io_close(io);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instant_queries),
        cmocka_unit_test(histograms),
        cmocka_unit_test(range_queries),
        cmocka_unit_test(bad_parameters),
        cmocka_unit_test(bad_expressions),
        cmocka_unit_test(names_and_values),
        cmocka_unit_test(series),
        cmocka_unit_test(exemplars_and_metadata),
        cmocka_unit_test(status_pages),
        cmocka_unit_test(proofs),
        cmocka_unit_test(refusals),
        cmocka_unit_test(long_answers_are_written_in_parts),
        cmocka_unit_test(longer_answers_are_streamed),
        cmocka_unit_test(long_items_are_streamed),
        cmocka_unit_test(too_long_an_answer),
        cmocka_unit_test(administration),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
