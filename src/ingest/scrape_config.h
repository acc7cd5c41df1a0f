/* scrape_configs and the part of global that scraping uses, under Prometheus' names. docs/scraping.md. */
#ifndef INGEST_SCRAPE_CONFIG_H
#define INGEST_SCRAPE_CONFIG_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "ingest/relabel.h"
#include "model/labels.h"
#include "model/yaml.h"
#include "net/client.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SCRAPE_JOBS_MAX           10000
#define SCRAPE_GROUPS_MAX         10000  /* static_configs of a job, groups of a discovery file */
#define SCRAPE_FILES_MAX          1000   /* patterns in file_sd_configs of a job */
#define SCRAPE_PARAMS_MAX         100    /* of a job */
#define SCRAPE_TARGETS_MAX        100000 /* of all jobs */
#define SCRAPE_BODY_BYTES_MAX     ((uint64_t)1 << 30) /* hard bound of body_size_limit; default 256 MB */
#define SCRAPE_BODY_BYTES_DEFAULT ((uint64_t)256 << 20)
#define SCRAPE_SECRET_BYTES_MAX   7000 /* password, credentials, and files with them */

struct scrape_config;

/* targets with common labels: a static_config or a group of a discovery file. */
struct scrape_group {
    struct slice *targets;
    size_t target_count;
    struct label *labels;
    size_t label_count;
};

struct scrape_files {
    struct slice *patterns; /* dir/name*.json */
    size_t pattern_count;
    int64_t refresh_ms;
};

struct scrape_param {
    struct slice name;
    struct slice *values;
    size_t value_count;
};

struct scrape_limits { /* 0 = none; beyond, the whole scrape fails, as in Prometheus */
    uint64_t body_bytes;
    uint64_t samples;
    uint64_t labels;
    uint64_t name_bytes;
    uint64_t value_bytes;
    uint64_t targets; /* of the job; beyond, all its targets fail */
};

struct scrape_job {
    struct scrape_config *config;
    uint64_t fingerprint; /* equal: a target's lines still mean the same series */
    struct slice name;
    struct slice tenant; /* own addition: where rows go; "default" */
    int64_t interval_ms;
    int64_t timeout_ms;
    struct slice metrics_path;
    struct slice scheme; /* "http", "https" */
    struct scrape_param *params;
    size_t param_count;
    bool honor_labels;
    bool honor_timestamps;
    bool track_timestamps_staleness;
    bool enable_compression;
    bool follow_redirects;
    /* credentials; text or file, NULL = none, NUL-terminated */
    const char *user, *password, *password_file;
    const char *auth_type, *credentials, *credentials_file;
    struct net_tls_options tls;
    struct scrape_limits limits;
    struct scrape_group *groups;
    size_t group_count;
    struct scrape_files *files;
    size_t file_count;
    struct relabel_rules target_rules;
    struct relabel_rules metric_rules;
};

/* Immutable after loading; shared by everything that scrapes with it, counted. */
struct scrape_config {
    struct pool *pool;
    _Atomic int use_count;
    struct scrape_job *jobs;
    size_t job_count;
    struct label *external_labels; /* for answers to others, not for stored series */
    size_t external_label_count;
    int64_t evaluation_interval_ms; /* for rules */
};

/* Read `global` and `scrape_configs` of the configuration file (each may be NULL or a null). base_dir: what
 * relative file names are relative to, "" = the io's root. The result lives in a child of pool and is held
 * once by the caller.
 * Errors ERR_INPUT "line L column C: …", ERR_LIMIT. Reads no other files. */
err scrape_config_load(struct yaml_node *global, struct yaml_node *scrape_configs, struct slice base_dir,
                       struct pool *pool, struct scrape_config **out_config, struct err_at *at);

struct scrape_config *scrape_config_hold(struct scrape_config *config);
void scrape_config_release(struct scrape_config *config); /* the last one frees; NULL is allowed */

/* Read a list of groups ("targets", "labels") as in static_configs and discovery files. Copies into pool. */
err scrape_groups_load(struct yaml_node **items, size_t count, struct pool *pool,
                       struct scrape_group **out_groups, struct err_at *at);

#endif
