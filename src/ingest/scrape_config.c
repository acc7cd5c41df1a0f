/* scrape_configs → structs. From: the tree of the configuration file. To: scrape.c, which takes the whole or
 * nothing.
 *
 * Invariants
 * 1. Everything is copied into the config's own pool: the tree may go.
 * 2. What Prometheus calls an error is one here, with line and column; keys it has and we do not are errors
 *    too, because a setting that does nothing is worse than a start that fails.
 * 3. A job's fingerprint covers its whole section and the defaults that flow into it. */
#include "ingest/scrape_config.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/time.h"

struct defaults {
    int64_t interval_ms, timeout_ms;
    struct scrape_limits limits;
};

struct loader {
    struct pool *pool;
    struct slice base_dir;
    struct defaults defaults;
    struct err_at *at;
};

static err get_slice(struct loader *l, struct yaml_node *map, const char *key, struct slice *out)
{
    struct slice text = { 0 };
    TRY(yaml_get_string(map, key, &text, l->at));
    return text.at == NULL ? OK : pool_copy(l->pool, text, out);
}

static err get_text(struct loader *l, struct yaml_node *map, const char *key, const char **out)
{
    struct slice text = { 0 };
    TRY(get_slice(l, map, key, &text));
    if (text.at != NULL)
        *out = (const char *)text.at;
    return OK;
}

/* A file name, made absolute or relative to the io's root. */
static err resolve(struct loader *l, struct slice name, struct slice *out)
{
    if (l->base_dir.len == 0 || (name.len > 0 && name.at[0] == '/'))
        return pool_copy(l->pool, name, out);
    struct buf path = buf_open(l->pool, 4096);
    buf_put_slice(&path, l->base_dir);
    buf_put_u8(&path, '/');
    buf_put_slice(&path, name);
    TRY(buf_err(&path));
    return pool_copy(l->pool, buf_slice(&path), out);
}

static err get_path(struct loader *l, struct yaml_node *map, const char *key, const char **out)
{
    struct slice text = { 0 };
    TRY(yaml_get_string(map, key, &text, l->at));
    if (text.len == 0)
        return OK;
    TRY(resolve(l, text, &text));
    *out = (const char *)text.at;
    return OK;
}

static err get_limit(struct loader *l, struct yaml_node *map, const char *key, uint64_t *out)
{
    int64_t v = (int64_t)*out;
    TRY(yaml_get_int(map, key, 0, INT64_MAX, &v, l->at));
    *out = (uint64_t)v;
    return OK;
}

static err get_limits(struct loader *l, struct yaml_node *map, struct scrape_limits *limits)
{
    struct yaml_node *body = yaml_get(map, "body_size_limit");
    if (body != NULL && !yaml_is_null(body)) {
        TRY(yaml_bytes(body, &limits->body_bytes, l->at));
        if (limits->body_bytes > SCRAPE_BODY_BYTES_MAX)
            return yaml_error(body, ERR_INPUT, l->at, "body_size_limit is above 1GB");
        if (limits->body_bytes == 0)
            limits->body_bytes = SCRAPE_BODY_BYTES_MAX;
    }
    TRY(get_limit(l, map, "sample_limit", &limits->samples));
    TRY(get_limit(l, map, "label_limit", &limits->labels));
    TRY(get_limit(l, map, "label_name_length_limit", &limits->name_bytes));
    TRY(get_limit(l, map, "label_value_length_limit", &limits->value_bytes));
    return get_limit(l, map, "target_limit", &limits->targets);
}

static err get_labels(struct loader *l, struct yaml_node *map, const char *key, struct label **out_labels,
                      size_t *out_count)
{
    struct yaml_node *node;
    TRY(yaml_get_map(map, key, &node, l->at));
    *out_count = 0;
    *out_labels = NULL;
    if (node == NULL)
        return OK;
    if (node->count > LABEL_COUNT_MAX)
        return yaml_error(node, ERR_LIMIT, l->at, "more than %d labels", LABEL_COUNT_MAX);
    TRY(pool_alloc(l->pool, (node->count + 1) * sizeof **out_labels, (void **)out_labels));
    for (size_t i = 0; i < node->count; i++) {
        struct label *label = &(*out_labels)[i];
        struct slice value = slice_of("", 0);
        node->pairs[i].is_used = true;
        if (node->pairs[i].key->text.len == 0)
            return yaml_error(node->pairs[i].key, ERR_INPUT, l->at, "empty label name");
        if (!yaml_is_null(node->pairs[i].value))
            TRY(yaml_string(node->pairs[i].value, &value, l->at));
        TRY(pool_copy(l->pool, node->pairs[i].key->text, &label->name));
        TRY(pool_copy(l->pool, value, &label->value));
    }
    *out_count = node->count;
    return OK;
}

static err load_group(struct loader *l, struct yaml_node *node, struct scrape_group *group)
{
    struct yaml_node **items;
    TRY(yaml_map_begin(node, l->at));
    TRY(yaml_get_sequence(node, "targets", &items, &group->target_count, l->at));
    if (group->target_count > SCRAPE_TARGETS_MAX)
        return yaml_error(node, ERR_LIMIT, l->at, "more than %d targets", SCRAPE_TARGETS_MAX);
    TRY(pool_alloc(l->pool, (group->target_count + 1) * sizeof *group->targets, (void **)&group->targets));
    for (size_t i = 0; i < group->target_count; i++) {
        struct slice target;
        TRY(yaml_string(items[i], &target, l->at));
        if (memchr(target.at, '/', target.len) != NULL)
            return yaml_error(items[i], ERR_INPUT, l->at, "\"%.*s\" is not a host and port",
                              SLICE_SHORT_ARG(target));
        TRY(pool_copy(l->pool, target, &group->targets[i]));
    }
    TRY(get_labels(l, node, "labels", &group->labels, &group->label_count));
    return yaml_map_end(node, l->at);
}

static err load_groups(struct loader *l, struct yaml_node **items, size_t count,
                       struct scrape_group **out_groups)
{
    if (count > SCRAPE_GROUPS_MAX)
        return yaml_error(items[0], ERR_LIMIT, l->at, "more than %d groups", SCRAPE_GROUPS_MAX);
    TRY(pool_zalloc(l->pool, (count + 1) * sizeof **out_groups, (void **)out_groups));
    for (size_t i = 0; i < count; i++)
        TRY(load_group(l, items[i], &(*out_groups)[i]));
    return OK;
}

err scrape_groups_load(struct yaml_node **items, size_t count, struct pool *pool,
                       struct scrape_group **out_groups, struct err_at *at)
{
    struct loader l = { .pool = pool, .at = at };
    return load_groups(&l, items, count, out_groups);
}

/* dir/name with at most one '*', in the last part, and a suffix that says JSON or YAML (as Prometheus). */
static bool is_pattern(struct slice s)
{
    static const char *const suffixes[] = { ".json", ".yml", ".yaml", ".JSON", ".YML", ".YAML" };
    bool has_suffix = false;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        size_t len = strlen(suffixes[i]);
        has_suffix = has_suffix || (s.len > len && memcmp(s.at + s.len - len, suffixes[i], len) == 0);
    }
    const uint8_t *star = s.len == 0 ? NULL : memchr(s.at, '*', s.len);
    size_t behind = star == NULL ? 0 : s.len - (size_t)(star - s.at) - 1;
    return has_suffix &&
           (star == NULL || (memchr(star + 1, '*', behind) == NULL && memchr(star + 1, '/', behind) == NULL));
}

static err load_files(struct loader *l, struct yaml_node *map, struct scrape_job *job)
{
    struct yaml_node **items, **names;
    TRY(yaml_get_sequence(map, "file_sd_configs", &items, &job->file_count, l->at));
    TRY(pool_zalloc(l->pool, (job->file_count + 1) * sizeof *job->files, (void **)&job->files));
    size_t sum = 0;
    for (size_t i = 0; i < job->file_count; i++) {
        struct scrape_files *files = &job->files[i];
        files->refresh_ms = 5 * MS_PER_MINUTE;
        TRY(yaml_map_begin(items[i], l->at));
        TRY(yaml_get_duration(items[i], "refresh_interval", &files->refresh_ms, l->at));
        TRY(yaml_get_sequence(items[i], "files", &names, &files->pattern_count, l->at));
        TRY(yaml_map_end(items[i], l->at));
        sum += files->pattern_count;
        if (files->pattern_count == 0 || files->refresh_ms <= 0)
            return yaml_error(items[i], ERR_INPUT, l->at,
                              "file discovery needs files and a refresh_interval above 0");
        if (sum > SCRAPE_FILES_MAX)
            return yaml_error(items[i], ERR_LIMIT, l->at, "more than %d files", SCRAPE_FILES_MAX);
        TRY(pool_alloc(l->pool, files->pattern_count * sizeof *files->patterns, (void **)&files->patterns));
        for (size_t n = 0; n < files->pattern_count; n++) {
            struct slice name;
            TRY(yaml_string(names[n], &name, l->at));
            if (!is_pattern(name))
                return yaml_error(names[n], ERR_INPUT, l->at,
                                  "path name \"%.*s\" is not valid for file discovery",
                                  SLICE_SHORT_ARG(name));
            TRY(resolve(l, name, &files->patterns[n]));
        }
    }
    return OK;
}

static err load_params(struct loader *l, struct yaml_node *map, struct scrape_job *job)
{
    struct yaml_node *node;
    TRY(yaml_get_map(map, "params", &node, l->at));
    if (node == NULL)
        return OK;
    if (node->count > SCRAPE_PARAMS_MAX)
        return yaml_error(node, ERR_LIMIT, l->at, "more than %d params", SCRAPE_PARAMS_MAX);
    TRY(pool_zalloc(l->pool, (node->count + 1) * sizeof *job->params, (void **)&job->params));
    for (size_t i = 0; i < node->count; i++) {
        struct scrape_param *param = &job->params[i];
        struct yaml_node **items;
        const char *key = (const char *)node->pairs[i].key->text.at;
        TRY(pool_copy(l->pool, node->pairs[i].key->text, &param->name));
        TRY(yaml_get_sequence(node, key, &items, &param->value_count, l->at));
        TRY(pool_alloc(l->pool, (param->value_count + 1) * sizeof *param->values, (void **)&param->values));
        for (size_t n = 0; n < param->value_count; n++) {
            struct slice value;
            TRY(yaml_string(items[n], &value, l->at));
            TRY(pool_copy(l->pool, value, &param->values[n]));
        }
        job->param_count++;
    }
    return OK;
}

static err check_secret(struct loader *l, struct yaml_node *node, const char *text)
{
    if (text != NULL && (strlen(text) > SCRAPE_SECRET_BYTES_MAX || strpbrk(text, "\r\n") != NULL))
        return yaml_error(node, ERR_INPUT, l->at, "a secret is too long or has a line break");
    return OK;
}

static err load_auth(struct loader *l, struct yaml_node *map, struct scrape_job *job)
{
    struct yaml_node *basic, *other;
    const char *token = NULL, *token_file = NULL;
    TRY(yaml_get_map(map, "basic_auth", &basic, l->at));
    if (basic != NULL) {
        TRY(get_text(l, basic, "username", &job->user));
        TRY(get_text(l, basic, "password", &job->password));
        TRY(get_path(l, basic, "password_file", &job->password_file));
        TRY(yaml_map_end(basic, l->at));
        if (job->user == NULL)
            return yaml_error(basic, ERR_INPUT, l->at, "basic_auth needs a username");
        if (job->password != NULL && job->password_file != NULL)
            return yaml_error(basic, ERR_INPUT, l->at, "at most one of password and password_file");
    }
    TRY(yaml_get_map(map, "authorization", &other, l->at));
    if (other != NULL) {
        job->auth_type = "Bearer";
        TRY(get_text(l, other, "type", &job->auth_type));
        TRY(get_text(l, other, "credentials", &job->credentials));
        TRY(get_path(l, other, "credentials_file", &job->credentials_file));
        TRY(yaml_map_end(other, l->at));
        if (strcasecmp(job->auth_type, "basic") == 0)
            return yaml_error(other, ERR_INPUT, l->at,
                              "authorization type cannot be \"basic\", use basic_auth");
        if (job->credentials != NULL && job->credentials_file != NULL)
            return yaml_error(other, ERR_INPUT, l->at, "at most one of credentials and credentials_file");
    }
    TRY(get_text(l, map, "bearer_token", &token));
    TRY(get_path(l, map, "bearer_token_file", &token_file));
    if (token != NULL || token_file != NULL) {
        if (other != NULL || (token != NULL && token_file != NULL))
            return yaml_error(map, ERR_INPUT, l->at,
                              "at most one of authorization, bearer_token and bearer_token_file");
        job->auth_type = "Bearer";
        job->credentials = token;
        job->credentials_file = token_file;
    }
    if (job->user != NULL && job->auth_type != NULL)
        return yaml_error(map, ERR_INPUT, l->at, "at most one of basic_auth, authorization and bearer_token");
    TRY(check_secret(l, map, job->password));
    TRY(check_secret(l, map, job->auth_type));
    return check_secret(l, map, job->credentials);
}

static err load_tls(struct loader *l, struct yaml_node *map, struct net_tls_options *tls)
{
    static const char *const versions[] = { "TLS10", "TLS11", "TLS12", "TLS13" };
    struct yaml_node *node;
    size_t version = SIZE_MAX;
    TRY(yaml_get_map(map, "tls_config", &node, l->at));
    if (node == NULL)
        return OK;
    TRY(get_path(l, node, "ca_file", &tls->ca_file));
    TRY(get_path(l, node, "cert_file", &tls->cert_file));
    TRY(get_path(l, node, "key_file", &tls->key_file));
    TRY(get_text(l, node, "server_name", &tls->server_name));
    TRY(yaml_get_bool(node, "insecure_skip_verify", &tls->insecure_skip_verify, l->at));
    TRY(yaml_get_enum(node, "min_version", versions, 4, &version, l->at));
    if (version != SIZE_MAX) {
        tls->tls_min = (enum net_tls_version)version;
        tls->tls_min_set = true;
    }
    if ((tls->cert_file == NULL) != (tls->key_file == NULL))
        return yaml_error(node, ERR_INPUT, l->at, "cert_file and key_file are needed together");
    return yaml_map_end(node, l->at);
}

static err load_rules(struct loader *l, struct yaml_node *map, const char *key, struct relabel_rules *rules)
{
    struct yaml_node **items;
    size_t count;
    TRY(yaml_get_sequence(map, key, &items, &count, l->at));
    return count == 0 ? OK : relabel_rules_load(items, count, l->pool, rules, l->at);
}

static err load_times(struct loader *l, struct yaml_node *map, struct scrape_job *job)
{
    job->interval_ms = 0;
    job->timeout_ms = 0;
    TRY(yaml_get_duration(map, "scrape_interval", &job->interval_ms, l->at));
    TRY(yaml_get_duration(map, "scrape_timeout", &job->timeout_ms, l->at));
    if (job->interval_ms == 0)
        job->interval_ms = l->defaults.interval_ms;
    if (job->timeout_ms > job->interval_ms)
        return yaml_error(map, ERR_INPUT, l->at, "scrape_timeout is above scrape_interval");
    if (job->timeout_ms == 0)
        job->timeout_ms =
            l->defaults.timeout_ms < job->interval_ms ? l->defaults.timeout_ms : job->interval_ms;
    return OK;
}

static err load_job(struct loader *l, struct yaml_node *node, struct scrape_job *job)
{
    static const char *const schemes[] = { "http", "https" };
    struct yaml_node **groups;
    size_t scheme = 0;
    job->tenant = slice_str("default");
    job->metrics_path = slice_str("/metrics");
    job->honor_timestamps = job->enable_compression = job->follow_redirects = true;
    job->limits = l->defaults.limits;
    TRY(yaml_map_begin(node, l->at));
    TRY(get_slice(l, node, "job_name", &job->name));
    TRY(get_slice(l, node, "tenant", &job->tenant));
    TRY(load_times(l, node, job));
    TRY(get_slice(l, node, "metrics_path", &job->metrics_path));
    TRY(yaml_get_enum(node, "scheme", schemes, 2, &scheme, l->at));
    job->scheme = slice_str(schemes[scheme]);
    TRY(load_params(l, node, job));
    TRY(yaml_get_bool(node, "honor_labels", &job->honor_labels, l->at));
    TRY(yaml_get_bool(node, "honor_timestamps", &job->honor_timestamps, l->at));
    TRY(yaml_get_bool(node, "track_timestamps_staleness", &job->track_timestamps_staleness, l->at));
    TRY(yaml_get_bool(node, "enable_compression", &job->enable_compression, l->at));
    TRY(yaml_get_bool(node, "follow_redirects", &job->follow_redirects, l->at));
    TRY(load_auth(l, node, job));
    TRY(load_tls(l, node, &job->tls));
    TRY(get_limits(l, node, &job->limits));
    TRY(yaml_get_sequence(node, "static_configs", &groups, &job->group_count, l->at));
    TRY(load_groups(l, groups, job->group_count, &job->groups));
    TRY(load_files(l, node, job));
    TRY(load_rules(l, node, "relabel_configs", &job->target_rules));
    TRY(load_rules(l, node, "metric_relabel_configs", &job->metric_rules));
    if (job->name.len == 0)
        return yaml_error(node, ERR_INPUT, l->at, "job_name is empty");
    if (!utf8_valid(job->name))
        return yaml_error(node, ERR_INPUT, l->at, "job_name is not UTF-8");
    if (!tenant_valid(job->tenant)) /* a header that asks for it has to pass, too */
        return yaml_error(node, ERR_INPUT, l->at, "tenant is not 1 to %d letters, digits and !-_.*'()",
                          TENANT_BYTES_MAX);
    return yaml_map_end(node, l->at);
}

static err load_global(struct loader *l, struct yaml_node *node, struct scrape_config *config)
{
    struct defaults *d = &l->defaults;
    *d = (struct defaults){ .interval_ms = MS_PER_MINUTE,
                            .timeout_ms = 0,
                            .limits = { .body_bytes = SCRAPE_BODY_BYTES_DEFAULT } };
    config->evaluation_interval_ms = MS_PER_MINUTE;
    if (node != NULL) {
        TRY(yaml_map_begin(node, l->at));
        TRY(yaml_get_duration(node, "scrape_interval", &d->interval_ms, l->at));
        TRY(yaml_get_duration(node, "scrape_timeout", &d->timeout_ms, l->at));
        TRY(yaml_get_duration(node, "evaluation_interval", &config->evaluation_interval_ms, l->at));
        TRY(get_limits(l, node, &d->limits));
        TRY(get_labels(l, node, "external_labels", &config->external_labels, &config->external_label_count));
        TRY(yaml_map_end(node, l->at));
        if (d->interval_ms == 0)
            d->interval_ms = MS_PER_MINUTE;
        if (d->timeout_ms > d->interval_ms)
            return yaml_error(node, ERR_INPUT, l->at, "global scrape_timeout is above scrape_interval");
    }
    if (d->timeout_ms == 0)
        d->timeout_ms = 10 * MS_PER_SECOND < d->interval_ms ? 10 * MS_PER_SECOND : d->interval_ms;
    return OK;
}

/* A hash of a subtree's shape and texts; recursion is bounded by YAML_DEPTH_MAX. */
static uint64_t hash_node(const struct yaml_node *node, uint64_t seed)
{
    uint64_t hash = hash_mix(seed ^ (uint64_t)node->type ^ (uint64_t)node->count << 8);
    if (node->type == YAML_SCALAR)
        return hash64(node->text, hash);
    for (size_t i = 0; i < node->count; i++) {
        if (node->type == YAML_MAP)
            hash = hash_node(node->pairs[i].key, hash);
        hash = hash_node(node->type == YAML_MAP ? node->pairs[i].value : node->items[i], hash);
    }
    return hash;
}

/* Of all that decides what a line of a target becomes; the rest of it is decided anew at each scrape. */
static uint64_t fingerprint_of(const struct yaml_node *node, const struct scrape_job *job)
{
    const struct yaml_node *rules = yaml_find(node, "metric_relabel_configs");
    uint64_t hash = hash_mix(job->honor_labels);
    hash = hash_mix(hash ^ job->limits.labels);
    hash = hash_mix(hash ^ job->limits.name_bytes);
    hash = hash_mix(hash ^ job->limits.value_bytes);
    return rules == NULL ? hash : hash_node(rules, hash);
}

static err load(struct loader *l, struct yaml_node *global, struct yaml_node *jobs,
                struct scrape_config *config)
{
    TRY(load_global(l, global, config));
    if (jobs == NULL || yaml_is_null(jobs))
        return OK;
    if (jobs->type != YAML_SEQUENCE)
        return yaml_error(jobs, ERR_INPUT, l->at, "scrape_configs must be a list");
    if (jobs->count > SCRAPE_JOBS_MAX)
        return yaml_error(jobs, ERR_LIMIT, l->at, "more than %d jobs", SCRAPE_JOBS_MAX);
    TRY(pool_zalloc(l->pool, (jobs->count + 1) * sizeof *config->jobs, (void **)&config->jobs));
    for (size_t i = 0; i < jobs->count; i++) {
        struct scrape_job *job = &config->jobs[config->job_count++];
        job->config = config;
        TRY(load_job(l, jobs->items[i], job));
        job->fingerprint = fingerprint_of(jobs->items[i], job);
        for (size_t other = 0; other < i; other++) {
            if (slice_equal(config->jobs[other].name, job->name))
                return yaml_error(jobs->items[i], ERR_INPUT, l->at, "two jobs are named \"%.*s\"",
                                  SLICE_SHORT_ARG(job->name));
        }
    }
    return OK;
}

err scrape_config_load(struct yaml_node *global, struct yaml_node *scrape_configs, struct slice base_dir,
                       struct pool *pool, struct scrape_config **out_config, struct err_at *at)
{
    struct pool *own = pool_open(pool, "scrape_config", POOL_BYTES_UNLIMITED);
    struct loader l = { .pool = own, .base_dir = base_dir, .at = at };
    struct scrape_config *config;
    err e = pool_zalloc(own, sizeof *config, (void **)&config);
    if (e != OK) {
        pool_close(own);
        return e;
    }
    config->pool = own;
    config->use_count = 1;
    e = load(&l, global, scrape_configs, config);
    if (e != OK)
        scrape_config_release(config);
    else
        *out_config = config;
    return e;
}

struct scrape_config *scrape_config_hold(struct scrape_config *config)
{
    int before = atomic_fetch_add(&config->use_count, 1);
    check(before > 0);
    return config;
}

void scrape_config_release(struct scrape_config *config)
{
    if (config == NULL || atomic_fetch_sub(&config->use_count, 1) > 1)
        return;
    for (size_t i = 0; i < config->job_count; i++) {
        relabel_rules_close(&config->jobs[i].target_rules);
        relabel_rules_close(&config->jobs[i].metric_rules);
    }
    pool_close(config->pool);
}
