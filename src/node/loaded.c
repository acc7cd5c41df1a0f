/* Reading the configuration files, and turning them into what rooms take. See loaded.h. */
#include "node/loaded.h"

#include "model/yaml.h"
#include "node/web_file.h"

#include <string.h>

/* Put the file's name before what a parser said. */
static err name_file(const char *path, err e, struct err_at *at)
{
    struct err_at inner = at != NULL ? *at : (struct err_at){ 0 };
    return err_set_pos(at, inner.line, inner.column, e, "%s: %s", path,
                       inner.text[0] != 0 ? inner.text : err_text(e));
}

static err read_level(const struct node_options *options, struct config *config, struct err_at *at)
{
    static const char *const levels[] = { "debug", "info", "warn", "error" };
    static const char *const formats[] = { "logfmt", "json" };
    bool level_known = options->log_level == NULL, format_known = options->log_format == NULL;
    for (size_t i = 0; !level_known && i < 4; i++)
        if (strcmp(options->log_level, levels[i]) == 0) {
            config->log_level = i;
            level_known = true;
        }
    for (size_t i = 0; !format_known && i < 2; i++)
        if (strcmp(options->log_format, formats[i]) == 0) {
            config->log_format = i;
            format_known = true;
        }
    if (!level_known)
        return err_set(at, ERR_INPUT, "--log.level must be debug, info, warn or error");
    if (!format_known)
        return err_set(at, ERR_INPUT, "--log.format must be logfmt or json");
    return OK;
}

/* Relative names of files in the configuration file are relative to it. */
static struct slice directory_of(const char *path)
{
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    return slash != NULL ? slice_of(path, (size_t)(slash - path)) : slice_of("", 0);
}

/* global and scrape_configs. */
static err read_scraping(const char *path, struct pool *parent, struct loaded *loaded, struct err_at *at)
{
    struct yaml_node *root = loaded->config.root;
    return scrape_config_load(yaml_get(root, "global"), yaml_get(root, "scrape_configs"), directory_of(path),
                              parent, &loaded->scrape, at);
}

static err read_files(const struct node_options *options, struct io *io, struct pool *parent,
                      struct loaded *loaded, struct err_at *at)
{
    struct slice text = slice_of("", 0);
    if (options->config_file != NULL) {
        err e = io_read_file(io, options->config_file, CONFIG_BYTES_MAX, loaded->pool, &text);
        if (e != OK)
            return err_set(at, e, "cannot read %s: %s", options->config_file,
                           e == ERR_LIMIT ? "larger than 16 MB" : err_text(e));
    }
    err e = config_parse(text, loaded->pool, &loaded->config, at);
    if (e == OK)
        e = secrets_read(&loaded->config, directory_of(options->config_file), io, loaded->pool,
                         &loaded->secrets, at);
    if (e == OK)
        e = read_scraping(options->config_file, parent, loaded, at);
    if (e != OK)
        return name_file(options->config_file != NULL ? options->config_file : "defaults", e, at);
    TRY(read_level(options, &loaded->config, at));
    struct query_config query = loaded_query(loaded);
    TRY(query_config_check(&query, at));
    loaded->web = net_web_config_default();
    if (options->web_config_file == NULL)
        return OK;
    e = web_file_read(io, options->web_config_file, loaded->pool, &loaded->web, at);
    if (e != OK)
        return name_file(options->web_config_file, e, at);
    loaded->has_web = true;
    return OK;
}

err loaded_read(const struct node_options *options, struct io *io, struct pool *parent,
                struct loaded **out_loaded, struct err_at *at)
{
    struct pool *pool;
    void *room;
    TRY(pool_open_object(parent, "configuration", sizeof(struct loaded), &pool, &room));
    struct loaded *loaded = room;
    loaded->pool = pool;
    err e = read_files(options, io, parent, loaded, at);
    if (e == OK)
        *out_loaded = loaded;
    else
        loaded_free(loaded);
    return e;
}

void loaded_free(struct loaded *loaded)
{
    if (loaded == NULL)
        return;
    scrape_config_release(loaded->scrape); /* scraping may hold it longer */
    pool_close(loaded->pool);
}

struct query_config loaded_query(const struct loaded *loaded)
{
    const struct config *config = &loaded->config;
    return (struct query_config){
        .concurrent_max = (uint32_t)config->query_concurrency,
        .queue_max = (uint32_t)config->query_queue,
        .queue_wait_ms_max = config->query_queue_timeout_ms,
        .timeout_ms = config->query_timeout_ms,
        .lookback_ms = config->query_lookback_ms,
        .slow_ms = config->query_slow_ms,
        .samples_max = config->query_samples_max,
        .query_bytes_max = config->query_bytes_max,
        .series_max = config->query_series_max,
        .worker_count = (uint32_t)config->query_workers,
    };
}

struct ingest_limits loaded_limits(const struct config_limits *limits)
{
    return (struct ingest_limits){
        .series_max = limits->series_max,
        .labels_per_series_max = (uint32_t)limits->labels_per_series_max,
        .name_bytes_max = (uint32_t)limits->name_bytes_max,
        .value_bytes_max = (uint32_t)limits->value_bytes_max,
        .samples_per_request_max = (uint32_t)limits->samples_per_request_max,
        .requests_in_flight_max = (uint32_t)limits->requests_in_flight_max,
        .body_bytes_max = limits->body_bytes_max,
    };
}

err loaded_tenants(const struct loaded *loaded, struct pool *pool, struct ingest_tenant_limits **out_tenants,
                   size_t *out_count)
{
    const struct config *config = &loaded->config;
    void *room;
    TRY(pool_alloc(pool, (config->tenant_count + 1) * sizeof(struct ingest_tenant_limits), &room));
    struct ingest_tenant_limits *tenants = room;
    for (size_t i = 0; i < config->tenant_count; i++)
        tenants[i] = (struct ingest_tenant_limits){ .tenant = config->tenants[i].name,
                                                    .limits = loaded_limits(&config->tenants[i].limits) };
    *out_tenants = tenants;
    *out_count = config->tenant_count;
    return OK;
}
