/* The configuration of a node: one YAML file, Prometheus' section names where they exist.
 *
 * Every setting is one row of a table (config.c), which says its type, its bounds, and whether a reload
 * applies it; parsing, printing, comparing and docs/configuration.md follow that table.
 * `global` and `scrape_configs` are read by ingest (scrape). */
#ifndef NODE_CONFIG_H
#define NODE_CONFIG_H

#include "base/buf.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_BYTES_MAX   (16u << 20)
#define CONFIG_TENANTS_MAX 100000

struct yaml_node;

/* Limits of one tenant; 0 = none. */
struct config_limits {
    uint64_t series_max;
    uint64_t labels_per_series_max;
    uint64_t name_bytes_max;
    uint64_t value_bytes_max;
    uint64_t samples_per_request_max;
    uint64_t requests_in_flight_max;
    uint64_t body_bytes_max;
};

struct config_tenant {
    struct slice name;
    struct config_limits limits; /* defaults of `limits` where the override says nothing */
};

enum config_ack { CONFIG_ACK_FSYNC, CONFIG_ACK_OS };
enum config_level { CONFIG_DEBUG, CONFIG_INFO, CONFIG_WARN, CONFIG_ERROR };
enum config_format { CONFIG_LOGFMT, CONFIG_JSON };

struct config {
    /* storage */
    uint64_t ack;         /* enum config_ack */
    int64_t retention_ms; /* 0 = for ever */
    uint64_t log_file_bytes;
    uint64_t free_space_floor; /* bytes; 0 = max(5 %, min(1 GiB, 20 %)) of the disk */
    bool compaction;
    int64_t cut_age_ms;
    int64_t idle_cut_ms;
    uint64_t head_rows_max;      /* of one partition before a spill; 0 = by memory */
    uint64_t background_threads; /* that merge; 0 = half the cores, at least one */

    /* memory */
    uint64_t memory_budget; /* 0 = 60 % of the machine or cgroup */

    /* query */
    uint64_t query_concurrency;
    uint64_t query_queue;
    int64_t query_queue_timeout_ms;
    int64_t query_timeout_ms;
    int64_t query_lookback_ms;
    uint64_t query_samples_max;
    uint64_t query_bytes_max;
    uint64_t query_series_max;
    int64_t query_slow_ms;
    uint64_t query_workers; /* 0 = cores */

    /* http */
    uint64_t http_connections_max;
    uint64_t http_connections_per_ip_max;
    uint64_t http_body_bytes_max;
    bool http_cors;

    /* log (diagnostics) */
    uint64_t log_level;  /* enum config_level */
    uint64_t log_format; /* enum config_format */

    /* limits */
    struct config_limits limits;
    struct config_tenant *tenants;
    size_t tenant_count;

    /* The parsed document, for ingest's sections; lives in the pool of config_parse. */
    struct yaml_node *root;
};

/* Defaults of everything. */
struct config config_default(void);

/* Parse a document over the defaults. Everything is in pool. global and scrape_configs are left to the
 * caller, who finds them in out_config->root. Errors ERR_INPUT "line L column C: …", ERR_LIMIT. */
err config_parse(struct slice text, struct pool *pool, struct config *out_config, struct err_at *at);

/* Append all settings as YAML, each with its unit and "# live" or "# restart"; then `global` and
 * `scrape_configs` as they were written, secrets masked. */
void config_print(const struct config *config, struct buf *out);

/* Names of the settings that differ and need a restart, appended to out as "storage.ack, http.cors"; their
 * values in *next are set back to those of *running, so that *next is what is in force. */
void config_keep_restart(const struct config *running, struct config *next, struct buf *out);

#endif
