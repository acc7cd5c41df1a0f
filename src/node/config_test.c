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

#define CLUSTER "cluster: {name: prod, address: 'a.example:9428', secret_file: /etc/kelpie/secret}\n"
#define KAFKA   "log: {kafka: {bootstrap: 'k1:9092', topic: kelpie, control_topic: kelpie-control}}\n"
#define S3      "blob: {s3: {endpoint: 'https://s3.example', bucket: kelpie}}\n"

static const char all_of_a_cluster[] =
    "log:\n"
    "  level: debug\n"
    "  kafka:\n"
    "    bootstrap: 'k1.example:9092,10.0.0.1:9093,[::1]:1'\n"
    "    topic: kelpie\n"
    "    control_topic: kelpie-control\n"
    "    tls: {enabled: true, ca_file: ca.pem, cert_file: c.pem, key_file: k.pem, insecure_skip_verify: "
    "true}\n"
    "    sasl: {mechanism: scram-sha-256, user: 'ann=x,y', password_file: '/a b/p'}\n"
    "cluster: {name: prod_1, zone: eu-1a, address: 'a.example:9428', secret_file: secret, expect: 3}\n"
    "blob:\n"
    "  cache_bytes: 10GiB\n"
    "  s3: {endpoint: 'https://s3.example:9000', bucket: a-b.c, prefix: x/y, region: eu-1, virtual_host: "
    "false,\n"
    "       credentials: static, access_key: AKID, secret_key_file: s, profile: other, ca_file: ca.pem,\n"
    "       insecure_skip_verify: true, request_timeout: 5s, retry_time: 1m, retries_per_minute: 60,\n"
    "       part_size: 8MiB, connections: 32}\n";

static void a_cluster_is_read(void **state)
{
    struct config config = parse(all_of_a_cluster);
    const struct config_cluster *c = &config.cluster;
    assert_true(c->is_given);
    assert_string_equal(c->name, "prod_1");
    assert_string_equal(c->zone, "eu-1a");
    assert_string_equal(c->address, "a.example:9428");
    assert_string_equal(c->secret_file, "secret");
    assert_int_equal(c->expect, 3);
    assert_string_equal(c->kafka.bootstrap, "k1.example:9092,10.0.0.1:9093,[::1]:1");
    assert_string_equal(c->kafka.topic, "kelpie");
    assert_string_equal(c->kafka.control_topic, "kelpie-control");
    assert_true(c->kafka.tls && c->kafka.insecure_skip_verify);
    assert_string_equal(c->kafka.ca_file, "ca.pem");
    assert_string_equal(c->kafka.cert_file, "c.pem");
    assert_string_equal(c->kafka.key_file, "k.pem");
    assert_int_equal(c->kafka.mechanism, CONFIG_SASL_SCRAM_SHA_256);
    assert_string_equal(c->kafka.user, "ann=x,y");
    assert_string_equal(c->kafka.password_file, "/a b/p");
    assert_true(c->cache_bytes == 10ULL << 30);
    assert_string_equal(c->s3.endpoint, "https://s3.example:9000");
    assert_string_equal(c->s3.bucket, "a-b.c");
    assert_string_equal(c->s3.prefix, "x/y");
    assert_string_equal(c->s3.region, "eu-1");
    assert_int_equal(c->s3.credentials, CONFIG_CREDENTIALS_STATIC);
    assert_string_equal(c->s3.access_key, "AKID");
    assert_string_equal(c->s3.secret_key_file, "s");
    assert_string_equal(c->s3.profile, "other");
    assert_true(!c->s3.virtual_host && c->s3.insecure_skip_verify);
    assert_int_equal(c->s3.request_timeout_ms, 5000);
    assert_int_equal(c->s3.retry_time_ms, 60000);
    assert_int_equal(c->s3.retries_per_minute, 60);
    assert_int_equal(c->s3.part_bytes, 8 << 20);
    assert_int_equal(c->s3.connections, 32);

    assert_false(parse("cluster:\nblob:\nlog: {kafka: }\n").cluster.is_given); /* nothing is said */
    config = parse(CLUSTER KAFKA S3);                                          /* the least there must be */
    assert_string_equal(c->s3.region, "us-east-1");
    assert_int_equal(c->s3.credentials, CONFIG_CREDENTIALS_INSTANCE);
    assert_int_equal(c->kafka.mechanism, CONFIG_SASL_NONE);
    assert_string_equal(c->zone, "default");
    assert_true(c->cache_bytes == 10ULL << 30 && c->partitions == 24 && c->replicas == 2);
    assert_true(c->kafka.replicas == 3 && c->kafka.retention_ms == 7 * INT64_C(86400000) &&
                c->kafka.retention_max_ms == 28 * INT64_C(86400000) && !c->kafka.accept_weak_topic);
}

static void a_cluster_prints_and_reads_back(void **state)
{
    static const char *const lines[] = {
        "  kafka:\n    bootstrap: \"k1.example:9092,10.0.0.1:9093,[::1]:1\"   # restart\n",
        "    tls:\n      enabled: true   # restart\n",
        "    sasl:\n      mechanism: scram-sha-256   # restart\n",
        "\nblob:\n  cache_bytes: 10GiB   # restart\n  s3:\n    endpoint: \"https://s3.example:9000\"",
    };
    struct config config = parse(all_of_a_cluster);
    struct buf first = buf_open(pool, 1 << 16), second = buf_open(pool, 1 << 16);
    config_print(&config, &first);
    buf_put_u8(&first, 0);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        assert_non_null(strstr((const char *)first.at, lines[i]));
    struct config again = parse((const char *)first.at);
    config_print(&again, &second);
    buf_put_u8(&second, 0);
    assert_string_equal((const char *)first.at, (const char *)second.at);
    buf_clear(&first); /* one node has none of it */
    config = parse("");
    config_print(&config, &first);
    buf_put_u8(&first, 0);
    assert_null(strstr((const char *)first.at, "kafka"));
    assert_null(strstr((const char *)first.at, "blob"));
    assert_null(strstr((const char *)first.at, "cluster"));

    struct config running = parse(CLUSTER KAFKA S3), next = parse(all_of_a_cluster);
    buf_clear(&second);
    config_keep_restart(&running, &next, &second);
    buf_put_u8(&second, 0);
    assert_non_null(strstr((const char *)second.at, "log.kafka.tls.enabled, "));
    assert_non_null(strstr((const char *)second.at, "cluster.name, cluster.zone, "));
    assert_non_null(strstr((const char *)second.at, "blob.s3.bucket, "));
    assert_string_equal(next.cluster.name, "prod");
    assert_string_equal(next.cluster.zone, "default");
    assert_int_equal(next.log_level, CONFIG_DEBUG);
    buf_close(&first);
    buf_close(&second);
}

#define KAFKA_WITH(more) \
    CLUSTER S3 "log: {kafka: {bootstrap: 'k1:9092', topic: t, control_topic: c, " more "}}\n"
#define S3_WITH(more)      CLUSTER KAFKA "blob: {s3: {endpoint: 'https://s3.example', bucket: kelpie, " more "}}\n"
#define CLUSTER_WITH(more) KAFKA S3 "cluster: {name: n, address: 'a:1', secret_file: s, " more "}\n"

static void bad_clusters(void **state)
{
    static const struct {
        const char *text, *part;
    } cases[] = {
        { "cluster: {}\n", "cluster needs name" },
        { "cluster: 7\n", "line 1" },
        { "cluster: {nam: x}\n", "did you mean name?" },
        { KAFKA, "log.kafka is for a node in a cluster" },
        { S3, "blob is for a node in a cluster" },
        { "blob: {cache_bytes: 1GiB}\n", "blob is for a node in a cluster" },
        { CLUSTER S3, "cluster needs log.kafka" },
        { CLUSTER KAFKA, "cluster needs blob.s3" },
        { CLUSTER KAFKA "blob: {cache_bytes: 1GiB}\n", "cluster needs blob.s3" },
        { KAFKA S3 "cluster: {address: 'a:1', secret_file: s}\n", "cluster needs name" },
        { KAFKA S3 "cluster: {name: n, secret_file: s}\n", "cluster needs address" },
        { KAFKA S3 "cluster: {name: n, address: 'a:1'}\n", "cluster needs secret_file" },
        { KAFKA S3 "cluster: {name: n, address: 'a:1', secret: hush}\n", "unknown key \"secret\"" },
        { KAFKA S3 "cluster: {name: '', address: 'a:1', secret_file: s}\n", "name must be letters" },
        { KAFKA S3 "cluster: {name: 'a b', address: 'a:1', secret_file: s}\n", "name must be letters" },
        { KAFKA S3 "cluster: {name: .a, address: 'a:1', secret_file: s}\n", "name must be letters" },
        { KAFKA S3 "cluster: {name: n, address: a, secret_file: s}\n", "address must be HOST:PORT" },
        { KAFKA S3 "cluster: {name: n, address: 'a:0', secret_file: s}\n", "address must be HOST:PORT" },
        { KAFKA S3 "cluster: {name: n, address: 'a:65536', secret_file: s}\n", "address must be HOST:PORT" },
        { KAFKA S3 "cluster: {name: n, address: 'a:99999999999', secret_file: s}\n", "address must be" },
        { KAFKA S3 "cluster: {name: n, address: 'a:1x', secret_file: s}\n", "address must be HOST:PORT" },
        { KAFKA S3 "cluster: {name: n, address: ':80', secret_file: s}\n", "address must be HOST:PORT" },
        { KAFKA S3 "cluster: {name: n, address: '::1:80', secret_file: s}\n", "address must be HOST:PORT" },
        { KAFKA S3 "cluster: {name: n, address: '[]:80', secret_file: s}\n", "address must be HOST:PORT" },
        { KAFKA S3 "cluster: {name: n, address: 'a:1', secret_file: d/}\n", "secret_file must be the path" },
        { KAFKA S3 "cluster: {name: n, address: 'a:1', secret_file: \"a\\nb\"}\n",
          "secret_file must be the" },
        { CLUSTER_WITH("zone: 'a/b'"), "zone must be letters" },
        { CLUSTER_WITH("expect: 1001"), "line" },
        { CLUSTER_WITH("expect: -1"), "line" },
        { CLUSTER S3 "log: {kafka: {topic: t, control_topic: c}}\n", "log.kafka needs bootstrap" },
        { CLUSTER S3 "log: {kafka: {bootstrap: 'a:1', control_topic: c}}\n", "log.kafka needs topic" },
        { CLUSTER S3 "log: {kafka: {bootstrap: 'a:1', topic: c}}\n", "log.kafka needs control_topic" },
        { CLUSTER S3 "log: {kafka: {bootstrap: 'a:1', topic: c, control_topic: c}}\n", "are the same" },
        { CLUSTER S3 "log: {kafka: {bootstrap: 'a:1,', topic: t, control_topic: c}}\n", "bootstrap must be" },
        { CLUSTER S3 "log: {kafka: {bootstrap: 'a:1,b', topic: t, control_topic: c}}\n",
          "bootstrap must be" },
        { CLUSTER S3 "log: {kafka: {bootstrap: 'a:1 b:2', topic: t, control_topic: c}}\n",
          "bootstrap must be" },
        { CLUSTER S3 "log: {kafka: {bootstrap: 'a:1', topic: '..', control_topic: c}}\n", "topic must be" },
        { CLUSTER S3 "log: {kafka: {bootstrap: 'a:1', topic: 't t', control_topic: c}}\n", "topic must be" },
        { CLUSTER S3 "log: {kafka: {bootstrap: 'a:1', topic: t, control_topic: c, acks: 1}}\n", "acks" },
        { KAFKA_WITH("tls: {ca_file: x}"), "not enabled: true" },
        { KAFKA_WITH("tls: {insecure_skip_verify: true}"), "not enabled: true" },
        { KAFKA_WITH("tls: {enabled: true, cert_file: x}"), "cert_file and key_file" },
        { KAFKA_WITH("tls: {enabled: true, key_file: x}"), "cert_file and key_file" },
        { KAFKA_WITH("tls: {enable: true}"), "did you mean enabled?" },
        { KAFKA_WITH("sasl: {mechanism: gssapi}"), "gssapi" },
        { KAFKA_WITH("sasl: {mechanism: scram-sha-512, user: ann}"), "user and password_file" },
        { KAFKA_WITH("sasl: {mechanism: scram-sha-512, password_file: p}"), "user and password_file" },
        { KAFKA_WITH("sasl: {user: ann, password_file: p}"), "no mechanism" },
        { KAFKA_WITH("sasl: {mechanism: plain, user: ann, password_file: p}"), "needs tls" },
        { KAFKA_WITH("sasl: {mechanism: plain, user: 'a b', password_file: p}"), "user must be printable" },
        { KAFKA_WITH("sasl: {password: hush}"), "unknown key \"password\"" },
        { CLUSTER KAFKA "blob: {s3: {bucket: abc}}\n", "blob.s3 needs endpoint" },
        { CLUSTER KAFKA "blob: {s3: {endpoint: 'http://a'}}\n", "blob.s3 needs bucket" },
        { CLUSTER KAFKA "blob: {s3: {endpoint: 's3.example', bucket: abc}}\n",
          "endpoint must be http://HOST" },
        { CLUSTER KAFKA "blob: {s3: {endpoint: 'ftp://a.example', bucket: abc}}\n", "endpoint must be" },
        { CLUSTER KAFKA "blob: {s3: {endpoint: 'http://a/b', bucket: abc}}\n", "endpoint must be" },
        { CLUSTER KAFKA "blob: {s3: {endpoint: 'http://u:p@a', bucket: abc}}\n", "endpoint must be" },
        { CLUSTER KAFKA "blob: {s3: {endpoint: 'http://a', bucket: ab}}\n", "bucket must be" },
        { CLUSTER KAFKA "blob: {s3: {endpoint: 'http://a', bucket: -abc}}\n", "bucket must be" },
        { CLUSTER KAFKA "blob: {s3: {endpoint: 'http://a', bucket: abc, ca_file: x}}\n", "https" },
        { CLUSTER KAFKA "blob: {s3: {endpoint: 'https://a', bucket: a.bc, virtual_host: true}}\n", "'.'" },
        { CLUSTER KAFKA "blob: {cache_byte: 1}\n", "did you mean cache_bytes?" },
        { S3_WITH("prefix: /a"), "prefix must be" },
        { S3_WITH("prefix: a/"), "prefix must be" },
        { S3_WITH("prefix: a//b"), "prefix must be" },
        { S3_WITH("prefix: a/../b"), "prefix must be" },
        { S3_WITH("region: 'eu 1'"), "region must be" },
        { S3_WITH("credentials: mine"), "mine" },
        { S3_WITH("credentials: static, access_key: A"), "needs access_key and secret_key_file" },
        { S3_WITH("credentials: static, secret_key_file: s"), "needs access_key and secret_key_file" },
        { S3_WITH("access_key: A"), "are for credentials static" },
        { S3_WITH("secret_key: hush"), "unknown key \"secret_key\"" },
        { S3_WITH("credentials: file"), "needs credentials_file" },
        { S3_WITH("credentials_file: x"), "is for credentials file" },
        { S3_WITH("request_timeout: 999ms"), "request_timeout must be 1000 ms to" },
        { S3_WITH("retry_time: 2h"), "retry_time must be" },
        { S3_WITH("retries_per_minute: -1"), "line" },
        { S3_WITH("part_size: 4MiB"), "part_size must be" },
        { S3_WITH("connections: 0"), "line" },
        { S3_WITH("connections: 257"), "line" },
    };
    char text[1500];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config config;
        struct err_at at = { 0 };
        if (config_parse(slice_str(cases[i].text), pool, &config, &at) != ERR_INPUT)
            fail_msg("taken: %s", cases[i].text);
        if (strstr(at.text, cases[i].part) == NULL || strncmp(at.text, "line ", 5) != 0 ||
            strstr(at.text, "hush") != NULL)
            fail_msg("%s: %s", cases[i].text, at.text);
    }
    for (size_t len = 62; len <= 65; len++) { /* one byte more than fits */
        struct config config;
        snprintf(text, sizeof text, KAFKA S3 "cluster: {name: %.*s, address: 'a:1', secret_file: s}\n",
                 (int)len, "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn");
        assert_err(len <= 63 ? OK : ERR_INPUT,
                   config_parse(slice_str(text), pool, &config, &(struct err_at){ 0 }));
    }
}

/* Until there is a cluster nobody is made to believe that there is. */
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
        cmocka_unit_test(a_cluster_is_read),
        cmocka_unit_test(a_cluster_prints_and_reads_back),
        cmocka_unit_test(bad_clusters),
        cmocka_unit_test(restart_settings_are_kept),
        cmocka_unit_test(options),
    };
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_close(pool);
    return failed;
}
