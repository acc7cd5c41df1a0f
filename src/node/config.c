/* The table of settings, and what follows from it. See config.h.
 *
 * Data comes from a YAML tree (model/yaml.h), which knows line and column of everything, and goes into struct
 * config, from which node.c fills the configuration of each room. Rooms check their own values again.
 *
 * Invariants
 *  1. A row's type says the C type at its offset: T_DURATION int64_t ms, T_BYTES, T_COUNT and T_ENUM
 *     uint64_t, T_BOOL bool, T_TEXT max + 1 chars, all zero behind the text.
 *  2. A key that no row and no section names is an error with its position. */
#include "node/config.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/time.h"
#include "model/labels.h"
#include "model/yaml.h"
#include "node/config_cluster.h"

#include <stdio.h>
#include <string.h>

enum type { T_DURATION, T_BYTES, T_COUNT, T_BOOL, T_ENUM, T_TEXT };

struct setting {
    const char *section;
    const char *key;
    size_t offset;
    enum type type;
    bool is_live;
    int64_t min, max; /* ms, bytes, count; bytes of a text, without its NUL */
    const void *more; /* T_ENUM: max + 1 names (const char *const *); T_TEXT: a struct config_text */
};

/* Where settings lie in the document; a section comes after the one that it is in. */
static const struct section {
    const char *name;
    const char *parent; /* NULL: the document */
} sections[] = {
    { "storage", NULL }, { "memory", NULL }, { "query", NULL },  { "http", NULL },
    { "log", NULL },     { "kafka", "log" }, { "tls", "kafka" }, { "sasl", "kafka" },
    { "cluster", NULL }, { "blob", NULL },   { "s3", "blob" },
};

#define SECTION_COUNT (sizeof sections / sizeof sections[0])

static const char *const ack_names[] = { "fsync", "os" };
static const char *const level_names[] = { "debug", "info", "warn", "error" };
static const char *const format_names[] = { "logfmt", "json" };
static const char *const sasl_names[] = { "none", "scram-sha-512", "scram-sha-256", "plain" };
static const char *const credentials_names[] = { "instance", "environment", "file", "static" };

#define AT(field) offsetof(struct config, field)
#define LIVE      true
#define RESTART   false
#define GIB       (INT64_C(1) << 30)
#define ANY       INT64_MAX

#define TEXT(section, key, field, min, rule)                                                            \
    {                                                                                                   \
        section, key, AT(field), T_TEXT, RESTART, min, sizeof(((struct config *)0)->field) - 1, &(rule) \
    }
#define KAFKA_TEXT(section, field, min, rule) TEXT(section, #field, cluster.kafka.field, min, rule)
#define S3_TEXT(field, min, rule)             TEXT("s3", #field, cluster.s3.field, min, rule)

/* Sections lie together, in the order of `sections`. */
static const struct setting settings[] = {
    { "storage", "ack", AT(ack), T_ENUM, RESTART, 0, 1, ack_names },
    { "storage", "retention", AT(retention_ms), T_DURATION, LIVE, 0, ANY, NULL },
    { "storage", "compaction", AT(compaction), T_BOOL, LIVE, 0, 1, NULL },
    { "storage", "cut_age", AT(cut_age_ms), T_DURATION, LIVE, MS_PER_MINUTE, MS_PER_HOUR, NULL },
    { "storage", "idle_cut", AT(idle_cut_ms), T_DURATION, LIVE, MS_PER_SECOND, MS_PER_HOUR, NULL },
    { "storage", "free_space_floor", AT(free_space_floor), T_BYTES, LIVE, 0, ANY, NULL },
    { "storage", "log_file_bytes", AT(log_file_bytes), T_BYTES, RESTART, 1 << 20, GIB, NULL },
    { "storage", "head_rows", AT(head_rows_max), T_COUNT, RESTART, 0, ANY, NULL },
    { "storage", "background_threads", AT(background_threads), T_COUNT, RESTART, 0, 256, NULL },
    { "memory", "budget", AT(memory_budget), T_BYTES, RESTART, 0, ANY, NULL },
    { "query", "max_concurrency", AT(query_concurrency), T_COUNT, LIVE, 1, 1024, NULL },
    { "query", "max_queue", AT(query_queue), T_COUNT, LIVE, 0, 65536, NULL },
    { "query", "queue_timeout", AT(query_queue_timeout_ms), T_DURATION, LIVE, 0, MS_PER_HOUR, NULL },
    { "query", "timeout", AT(query_timeout_ms), T_DURATION, LIVE, 1, MS_PER_DAY, NULL },
    { "query", "lookback_delta", AT(query_lookback_ms), T_DURATION, LIVE, 1, 365 * MS_PER_DAY, NULL },
    { "query", "max_samples", AT(query_samples_max), T_COUNT, LIVE, 1, ANY, NULL },
    { "query", "max_memory", AT(query_bytes_max), T_BYTES, LIVE, 1 << 20, ANY, NULL },
    { "query", "max_series", AT(query_series_max), T_COUNT, LIVE, 0, ANY, NULL },
    { "query", "slow_query_threshold", AT(query_slow_ms), T_DURATION, LIVE, 0, MS_PER_DAY, NULL },
    { "query", "workers", AT(query_workers), T_COUNT, RESTART, 0, 256, NULL },
    { "http", "max_connections", AT(http_connections_max), T_COUNT, RESTART, 1, 65536, NULL },
    { "http", "max_connections_per_ip", AT(http_connections_per_ip_max), T_COUNT, RESTART, 1, 65536, NULL },
    { "http", "max_body_bytes", AT(http_body_bytes_max), T_BYTES, RESTART, 1 << 20, GIB, NULL },
    { "http", "cors", AT(http_cors), T_BOOL, RESTART, 0, 1, NULL },
    { "log", "level", AT(log_level), T_ENUM, LIVE, 0, 3, level_names },
    { "log", "format", AT(log_format), T_ENUM, RESTART, 0, 1, format_names },
    KAFKA_TEXT("kafka", bootstrap, 3, config_addresses),
    KAFKA_TEXT("kafka", topic, 1, config_topic),
    KAFKA_TEXT("kafka", control_topic, 1, config_topic),
    { "kafka", "accept_weak_topic", AT(cluster.kafka.accept_weak_topic), T_BOOL, RESTART, 0, 1, NULL },
    { "kafka", "replicas", AT(cluster.kafka.replicas), T_COUNT, RESTART, 1, 32, NULL },
    { "kafka", "retention", AT(cluster.kafka.retention_ms), T_DURATION, RESTART, MS_PER_DAY,
      3650 * MS_PER_DAY, NULL },
    { "kafka", "retention_max", AT(cluster.kafka.retention_max_ms), T_DURATION, RESTART, 0, 3650 * MS_PER_DAY,
      NULL },
    { "tls", "enabled", AT(cluster.kafka.tls), T_BOOL, RESTART, 0, 1, NULL },
    KAFKA_TEXT("tls", ca_file, 1, config_path),
    KAFKA_TEXT("tls", cert_file, 1, config_path),
    KAFKA_TEXT("tls", key_file, 1, config_path),
    { "tls", "insecure_skip_verify", AT(cluster.kafka.insecure_skip_verify), T_BOOL, RESTART, 0, 1, NULL },
    { "sasl", "mechanism", AT(cluster.kafka.mechanism), T_ENUM, RESTART, 0, 3, sasl_names },
    KAFKA_TEXT("sasl", user, 1, config_word),
    KAFKA_TEXT("sasl", password_file, 1, config_path),
    TEXT("cluster", "name", cluster.name, 1, config_name),
    TEXT("cluster", "zone", cluster.zone, 1, config_name),
    TEXT("cluster", "address", cluster.address, 3, config_address),
    TEXT("cluster", "secret_file", cluster.secret_file, 1, config_path),
    TEXT("cluster", "ca_file", cluster.ca_file, 1, config_path),
    { "cluster", "expect", AT(cluster.expect), T_COUNT, RESTART, 0, CONFIG_NODES_MAX, NULL },
    { "cluster", "partitions", AT(cluster.partitions), T_COUNT, RESTART, 1, CONFIG_PARTITIONS_MAX, NULL },
    { "cluster", "replicas", AT(cluster.replicas), T_COUNT, RESTART, 1, CONFIG_REPLICAS_MAX, NULL },
    { "cluster", "suspect_age", AT(cluster.suspect_age_ms), T_DURATION, RESTART, MS_PER_SECOND, MS_PER_HOUR,
      NULL },
    { "cluster", "repair_delay", AT(cluster.repair_delay_ms), T_DURATION, RESTART, 0, 7 * MS_PER_DAY, NULL },
    { "blob", "cache_bytes", AT(cluster.cache_bytes), T_BYTES, RESTART, 0, ANY, NULL },
    S3_TEXT(endpoint, 8, config_endpoint),
    S3_TEXT(bucket, 3, config_bucket),
    S3_TEXT(prefix, 1, config_prefix),
    S3_TEXT(region, 1, config_name),
    { "s3", "virtual_host", AT(cluster.s3.virtual_host), T_BOOL, RESTART, 0, 1, NULL },
    { "s3", "credentials", AT(cluster.s3.credentials), T_ENUM, RESTART, 0, 3, credentials_names },
    S3_TEXT(access_key, 1, config_word),
    S3_TEXT(secret_key_file, 1, config_path),
    S3_TEXT(credentials_file, 1, config_path),
    S3_TEXT(profile, 1, config_name),
    S3_TEXT(ca_file, 1, config_path),
    { "s3", "insecure_skip_verify", AT(cluster.s3.insecure_skip_verify), T_BOOL, RESTART, 0, 1, NULL },
    { "s3", "request_timeout", AT(cluster.s3.request_timeout_ms), T_DURATION, RESTART, MS_PER_SECOND,
      10 * MS_PER_MINUTE, NULL },
    { "s3", "retry_time", AT(cluster.s3.retry_time_ms), T_DURATION, RESTART, 0, MS_PER_HOUR, NULL },
    { "s3", "retries_per_minute", AT(cluster.s3.retries_per_minute), T_COUNT, RESTART, 0, 100000, NULL },
    { "s3", "part_size", AT(cluster.s3.part_bytes), T_BYTES, RESTART, 5 << 20, GIB, NULL },
    { "s3", "connections", AT(cluster.s3.connections), T_COUNT, RESTART, 1, 256, NULL },
};

#define SETTING_COUNT (sizeof settings / sizeof settings[0])

/* Of `limits` and of each of its overrides; offsets into struct config_limits. */
#define LIMIT(field) offsetof(struct config_limits, field)
static const struct setting limit_settings[] = {
    { "limits", "max_series", LIMIT(series_max), T_COUNT, LIVE, 0, ANY, NULL },
    { "limits", "max_labels_per_series", LIMIT(labels_per_series_max), T_COUNT, LIVE, 0, LABEL_COUNT_MAX,
      NULL },
    { "limits", "max_label_name_bytes", LIMIT(name_bytes_max), T_BYTES, LIVE, 0, LABELS_BYTES_MAX, NULL },
    { "limits", "max_label_value_bytes", LIMIT(value_bytes_max), T_BYTES, LIVE, 0, LABELS_BYTES_MAX, NULL },
    { "limits", "max_samples_per_request", LIMIT(samples_per_request_max), T_COUNT, LIVE, 0, UINT32_MAX,
      NULL },
    { "limits", "max_requests_in_flight", LIMIT(requests_in_flight_max), T_COUNT, LIVE, 0, UINT32_MAX, NULL },
    { "limits", "max_body_bytes", LIMIT(body_bytes_max), T_BYTES, LIVE, 0, GIB, NULL },
};

#define LIMIT_COUNT (sizeof limit_settings / sizeof limit_settings[0])

struct config config_default(void)
{
    return (struct config){
        .ack = CONFIG_ACK_FSYNC,
        .log_file_bytes = 64 << 20,
        .compaction = true,
        .cut_age_ms = MS_PER_HOUR,
        .idle_cut_ms = 20 * MS_PER_SECOND,
        .query_concurrency = 20,
        .query_queue = 256,
        .query_queue_timeout_ms = 30 * MS_PER_SECOND,
        .query_timeout_ms = 2 * MS_PER_MINUTE,
        .query_lookback_ms = 5 * MS_PER_MINUTE,
        .query_samples_max = 50 * 1000 * 1000,
        .query_bytes_max = 1 << 30,
        .query_slow_ms = 10 * MS_PER_SECOND,
        .http_connections_max = 1024,
        .http_connections_per_ip_max = 512,
        .http_body_bytes_max = 64 << 20,
        .http_cors = true,
        .log_level = CONFIG_INFO,
        .log_format = CONFIG_LOGFMT,
        .cluster = { .zone = "default",
                     .partitions = 24,
                     .replicas = 2,
                     .suspect_age_ms = 30 * MS_PER_SECOND,
                     .repair_delay_ms = 10 * MS_PER_MINUTE,
                     .cache_bytes = 10 * (uint64_t)GIB,
                     .kafka = { .replicas = 3,
                                .retention_ms = 7 * MS_PER_DAY,
                                .retention_max_ms = 28 * MS_PER_DAY },
                     .s3 = { .region = "us-east-1",
                             .profile = "default",
                             .request_timeout_ms = 10 * MS_PER_SECOND,
                             .retry_time_ms = 30 * MS_PER_SECOND,
                             .retries_per_minute = 120,
                             .connections = 16,
                             .part_bytes = 16 << 20 } },
        .limits = { .labels_per_series_max = 60,
                    .name_bytes_max = 1024,
                    .value_bytes_max = 4096,
                    .samples_per_request_max = 1000000 },
    };
}

/* ---- reading ---- */

static err read_text(const struct setting *s, const struct yaml_node *node, char *field, struct err_at *at)
{
    const struct config_text *rule = s->more;
    struct slice text;
    TRY(yaml_string(node, &text, at));
    if (text.len < (size_t)s->min || text.len > (size_t)s->max || !rule->holds(text))
        return yaml_error(node, ERR_INPUT, at, "%s must be %s, %lld to %lld bytes", s->key, rule->says,
                          (long long)s->min, (long long)s->max);
    memset(field, 0, (size_t)s->max + 1);
    memcpy(field, text.at, text.len);
    return OK;
}

/* base: the struct that the row's offset is of. */
static err read_setting(const struct setting *s, struct yaml_node *section, void *base, struct err_at *at)
{
    void *field = (char *)base + s->offset;
    struct yaml_node *node = yaml_get(section, s->key);
    if (node == NULL || yaml_is_null(node))
        return OK;
    int64_t number = 0;
    switch (s->type) {
    case T_BOOL:
        return yaml_bool(node, field, at);
    case T_ENUM: {
        size_t index = (size_t) * (uint64_t *)field;
        TRY(yaml_get_enum(section, s->key, s->more, (size_t)s->max + 1, &index, at));
        *(uint64_t *)field = index;
        return OK;
    }
    case T_COUNT:
        TRY(yaml_int(node, s->min, s->max, &number, at));
        *(uint64_t *)field = (uint64_t)number;
        return OK;
    case T_DURATION:
        TRY(yaml_duration(node, &number, at));
        if (number < s->min || number > s->max)
            return yaml_error(node, ERR_INPUT, at, "%s must be %lld ms to %lld ms", s->key, (long long)s->min,
                              (long long)s->max);
        *(int64_t *)field = number;
        return OK;
    case T_BYTES: {
        uint64_t bytes = 0;
        TRY(yaml_bytes(node, &bytes, at));
        if (bytes < (uint64_t)s->min || bytes > (uint64_t)s->max)
            return yaml_error(node, ERR_INPUT, at, "%s must be %lld to %lld bytes", s->key, (long long)s->min,
                              (long long)s->max);
        *(uint64_t *)field = bytes;
        return OK;
    }
    case T_TEXT:
        return read_text(s, node, field, at);
    }
    return OK;
}

static err read_limits(struct yaml_node *map, struct config_limits *limits, struct err_at *at)
{
    for (size_t i = 0; i < LIMIT_COUNT; i++)
        TRY(read_setting(&limit_settings[i], map, limits, at));
    return OK;
}

static err read_overrides(struct yaml_node *overrides, struct pool *pool, struct config *config,
                          struct err_at *at)
{
    void *room;
    if (overrides->count > CONFIG_TENANTS_MAX)
        return yaml_error(overrides, ERR_INPUT, at, "more than %d tenants", CONFIG_TENANTS_MAX);
    TRY(pool_zalloc(pool, (overrides->count + 1) * sizeof *config->tenants, &room));
    config->tenants = room;
    for (size_t i = 0; i < overrides->count; i++) {
        struct yaml_pair *pair = &overrides->pairs[i];
        struct config_tenant *tenant = &config->tenants[i];
        pair->is_used = true;
        if (pair->key->text.len == 0 || pair->key->text.len > TENANT_BYTES_MAX)
            return yaml_error(pair->key, ERR_INPUT, at, "a tenant's name has 1 to %d bytes",
                              TENANT_BYTES_MAX);
        *tenant = (struct config_tenant){ .name = pair->key->text, .limits = config->limits };
        TRY(yaml_map_begin(pair->value, at));
        TRY(read_limits(pair->value, &tenant->limits, at));
        TRY(yaml_map_end(pair->value, at));
        config->tenant_count++;
    }
    return OK;
}

static err read_limits_section(struct yaml_node *root, struct pool *pool, struct config *config,
                               struct err_at *at)
{
    struct yaml_node *section, *overrides;
    TRY(yaml_get_map(root, "limits", &section, at));
    if (section == NULL)
        return OK;
    TRY(read_limits(section, &config->limits, at));
    TRY(yaml_get_map(section, "overrides", &overrides, at));
    if (overrides != NULL)
        TRY(read_overrides(overrides, pool, config, at));
    return yaml_map_end(section, at);
}

static size_t section_index(const char *name)
{
    size_t i = 0;
    while (i < SECTION_COUNT && strcmp(sections[i].name, name) != 0)
        i++;
    check(i < SECTION_COUNT);
    return i;
}

static err read_sections(struct yaml_node *root, struct config *config, struct err_at *at)
{
    struct yaml_node *nodes[SECTION_COUNT];
    for (size_t i = 0; i < SECTION_COUNT; i++) {
        const char *parent = sections[i].parent;
        struct yaml_node *above = parent != NULL ? nodes[section_index(parent)] : root;
        nodes[i] = NULL;
        if (above != NULL)
            TRY(yaml_get_map(above, sections[i].name, &nodes[i], at));
    }
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        struct yaml_node *section = nodes[section_index(settings[i].section)];
        if (section != NULL)
            TRY(read_setting(&settings[i], section, config, at));
    }
    for (size_t i = 0; i < SECTION_COUNT; i++)
        if (nodes[i] != NULL)
            TRY(yaml_map_end(nodes[i], at));
    return OK;
}

err config_parse(struct slice text, struct pool *pool, struct config *out_config, struct err_at *at)
{
    struct config config = config_default();
    struct yaml_node *root;
    TRY(yaml_parse(text, pool, &root, at));
    TRY(yaml_map_begin(root, at));
    config.root = root;
    TRY(read_sections(root, &config, at));
    TRY(read_limits_section(root, pool, &config, at));
    (void)yaml_get(root, "global"); /* marks them used: ingest reads them */
    (void)yaml_get(root, "scrape_configs");
    TRY(yaml_map_end(root, at));
    TRY(config_cluster_check(root, &config.cluster, at));
    *out_config = config;
    return OK;
}

/* ---- printing ---- */

static void print_duration(struct buf *out, int64_t ms)
{
    static const struct {
        int64_t ms;
        const char *unit;
    } units[] = {
        { MS_PER_DAY, "d" },    { MS_PER_HOUR, "h" }, { MS_PER_MINUTE, "m" },
        { MS_PER_SECOND, "s" }, { 1, "ms" },
    };
    if (ms == 0) {
        buf_put_str(out, "0s");
        return;
    }
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (ms / units[i].ms > 0)
            buf_printf(out, "%lld%s", (long long)(ms / units[i].ms), units[i].unit);
        ms %= units[i].ms;
    }
}

static void print_bytes(struct buf *out, uint64_t bytes)
{
    static const char *const units[] = { "", "KiB", "MiB", "GiB", "TiB" };
    size_t unit = 0;
    while (bytes != 0 && bytes % 1024 == 0 && unit < 4) {
        bytes /= 1024;
        unit++;
    }
    buf_printf(out, "%llu%s", (unsigned long long)bytes, units[unit]);
}

static void print_text(struct slice text, struct buf *out)
{
    buf_put_u8(out, '"');
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.at[i];
        if (c == '"' || c == '\\')
            buf_put_u8(out, '\\');
        if (c < 0x20 || c == 0x7f)
            buf_printf(out, "\\x%02x", c);
        else
            buf_put_u8(out, c);
    }
    buf_put_u8(out, '"');
}

static void print_setting(const struct setting *s, const void *base, const char *indent, struct buf *out)
{
    const void *field = (const char *)base + s->offset;
    if (s->type == T_TEXT && ((const char *)field)[0] == 0)
        return; /* not given, and nothing could be written that says so */
    buf_printf(out, "%s%s: ", indent, s->key);
    switch (s->type) {
    case T_BOOL:
        buf_put_str(out, *(const bool *)field ? "true" : "false");
        break;
    case T_ENUM:
        buf_put_str(out, ((const char *const *)s->more)[*(const uint64_t *)field]);
        break;
    case T_COUNT:
        buf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)field);
        break;
    case T_DURATION:
        print_duration(out, *(const int64_t *)field);
        break;
    case T_BYTES:
        print_bytes(out, *(const uint64_t *)field);
        break;
    case T_TEXT:
        print_text(slice_str(field), out);
        break;
    }
    buf_printf(out, "   # %s\n", s->is_live ? "live" : "restart");
}

static void print_limits(const struct config_limits *limits, const struct config_limits *unless,
                         const char *indent, struct buf *out)
{
    for (size_t i = 0; i < LIMIT_COUNT; i++) {
        size_t offset = limit_settings[i].offset;
        uint64_t value = *(const uint64_t *)((const char *)limits + offset);
        if (unless == NULL || value != *(const uint64_t *)((const char *)unless + offset))
            print_setting(&limit_settings[i], limits, indent, out);
    }
}

static bool is_secret(struct slice key)
{
    static const char *const names[] = { "password", "credentials", "bearer_token" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (slice_equal_str(key, names[i]))
            return true;
    return false;
}

/* Needs no quotes, and with them it might not be a number any more. */
static bool is_word(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.at[i];
        bool is_fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       (c != 0 && strchr("_.+-/<>", c) != NULL);
        if (!is_fine)
            return false;
    }
    return true;
}

static void print_key(const struct yaml_node *key, struct buf *out)
{
    if (key->is_plain && key->text.len > 0 && is_word(key->text))
        buf_put_slice(out, key->text);
    else
        print_text(key->text, out);
    buf_put_str(out, ": ");
}

/* In flow style, which needs no indentation. Depth is bounded by the parser. */
static void print_node(const struct yaml_node *node, struct buf *out)
{
    if (node->type == YAML_SCALAR && node->is_plain && is_word(node->text))
        buf_put_slice(out, node->text);
    else if (node->type == YAML_SCALAR)
        print_text(node->text, out);
    else
        buf_put_u8(out, node->type == YAML_MAP ? '{' : '[');
    for (size_t i = 0; node->type != YAML_SCALAR && i < node->count; i++) {
        buf_put_str(out, i > 0 ? ", " : "");
        if (node->type == YAML_SEQUENCE) {
            print_node(node->items[i], out);
            continue;
        }
        print_key(node->pairs[i].key, out);
        if (is_secret(node->pairs[i].key->text))
            buf_put_str(out, "<secret>");
        else
            print_node(node->pairs[i].value, out);
    }
    if (node->type != YAML_SCALAR)
        buf_put_u8(out, node->type == YAML_MAP ? '}' : ']');
}

/* What ingest reads: one line a setting of `global`, one a job. */
static void print_scraping(const struct yaml_node *root, struct buf *out)
{
    const struct yaml_node *global = yaml_find(root, "global"), *jobs = yaml_find(root, "scrape_configs");
    if (global != NULL && global->type == YAML_MAP && global->count > 0)
        buf_put_str(out, "global:   # live\n");
    for (size_t i = 0; global != NULL && global->type == YAML_MAP && i < global->count; i++) {
        buf_put_str(out, "  ");
        print_key(global->pairs[i].key, out);
        print_node(global->pairs[i].value, out);
        buf_put_u8(out, '\n');
    }
    if (jobs == NULL || jobs->type != YAML_SEQUENCE || jobs->count == 0)
        return;
    buf_put_str(out, "scrape_configs:   # live\n");
    for (size_t i = 0; i < jobs->count; i++) {
        buf_put_str(out, "  - ");
        print_node(jobs->items[i], out);
        buf_put_u8(out, '\n');
    }
}

/* How many sections a section lies in. */
static unsigned depth_of(const char *section)
{
    const char *parent = sections[section_index(section)].parent;
    return parent == NULL ? 0 : 1 + depth_of(parent);
}

static bool is_of_cluster(const char *section)
{
    return strcmp(section, "cluster") == 0 || strcmp(section, "blob") == 0 || depth_of(section) > 0;
}

static void print_sections(const struct config *config, struct buf *out)
{
    static const char indents[] = "        ";
    const char *section = "";
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const struct setting *s = &settings[i];
        if (!config->cluster.is_given && is_of_cluster(s->section))
            continue;
        unsigned depth = depth_of(s->section);
        if (strcmp(section, s->section) != 0)
            buf_printf(out, "%.*s%s:\n", (int)(2 * depth), indents, s->section);
        section = s->section;
        print_setting(s, config, indents + sizeof indents - 1 - 2 * (depth + 1), out);
    }
}

void config_print(const struct config *config, struct buf *out)
{
    print_sections(config, out);
    buf_put_str(out, "limits:\n");
    print_limits(&config->limits, NULL, "  ", out);
    if (config->tenant_count > 0)
        buf_put_str(out, "  overrides:\n");
    for (size_t i = 0; i < config->tenant_count; i++) {
        const struct config_tenant *tenant = &config->tenants[i];
        buf_put_str(out, "    ");
        print_text(tenant->name, out);
        buf_put_str(out, ":\n");
        print_limits(&tenant->limits, &config->limits, "      ", out);
    }
    if (config->root != NULL)
        print_scraping(config->root, out);
}

void config_hash(const struct config *config, char out_hash[CONFIG_HASH_BYTES])
{
    struct config alike = *config;
    struct pool *pool = pool_open(NULL, "hash", POOL_BYTES_UNLIMITED);
    struct buf text = buf_open(pool, CONFIG_BYTES_MAX);
    alike.root = NULL;
    alike.cluster.name[0] = alike.cluster.zone[0] = alike.cluster.address[0] = 0;
    alike.cluster.expect = 0;
    config_print(&alike, &text);
    snprintf(out_hash, CONFIG_HASH_BYTES, "%016llx", (unsigned long long)hash64(buf_slice(&text), 0));
    pool_close(pool);
}

/* ---- comparing ---- */

static size_t setting_bytes(const struct setting *s)
{
    return s->type == T_BOOL ? sizeof(bool) : s->type == T_TEXT ? (size_t)s->max + 1 : sizeof(uint64_t);
}

static void print_section_name(const char *section, struct buf *out)
{
    const char *parent = sections[section_index(section)].parent;
    if (parent != NULL)
        print_section_name(parent, out);
    buf_printf(out, "%s.", section);
}

void config_keep_restart(const struct config *running, struct config *next, struct buf *out)
{
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const struct setting *s = &settings[i];
        const void *old_field = (const char *)running + s->offset;
        void *new_field = (char *)next + s->offset;
        if (s->is_live || memcmp(old_field, new_field, setting_bytes(s)) == 0)
            continue;
        buf_put_str(out, out->len > 0 ? ", " : "");
        print_section_name(s->section, out);
        buf_put_str(out, s->key);
        memcpy(new_field, old_field, setting_bytes(s));
    }
}
