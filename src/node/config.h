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

/* Of a node in a cluster: its part of it, the log and the store that all share. Texts end with a NUL and zeros;
 * empty: not given. Secrets are named by their files and never in here. */
#define CONFIG_NAME_BYTES    64
#define CONFIG_PATH_BYTES    1024
#define CONFIG_TOPIC_BYTES   250 /* what brokers take */
#define CONFIG_ADDRESS_BYTES 262 /* of a name of 255 bytes, and a port */

enum config_sasl {
    CONFIG_SASL_NONE,
    CONFIG_SASL_SCRAM_SHA_512,
    CONFIG_SASL_SCRAM_SHA_256,
    CONFIG_SASL_PLAIN,
};

struct config_kafka {
    char bootstrap[1024]; /* "host:port,host:port" */
    char topic[CONFIG_TOPIC_BYTES], control_topic[CONFIG_TOPIC_BYTES];
    bool tls, insecure_skip_verify;
    char ca_file[CONFIG_PATH_BYTES], cert_file[CONFIG_PATH_BYTES], key_file[CONFIG_PATH_BYTES];
    uint64_t mechanism; /* enum config_sasl */
    char user[256], password_file[CONFIG_PATH_BYTES];
    bool accept_weak_topic;   /* settings that could lose what was acknowledged are told, not refused */
    uint64_t replicas;        /* of topics that a founder creates, … */
    int64_t retention_ms;     /* … and of the log's for how long */
    int64_t retention_max_ms; /* to which it may be raised; 0: never */
};

enum config_credentials {
    CONFIG_CREDENTIALS_INSTANCE,    /* the machine's role */
    CONFIG_CREDENTIALS_ENVIRONMENT, /* AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN */
    CONFIG_CREDENTIALS_FILE,        /* as AWS' tools write it */
    CONFIG_CREDENTIALS_STATIC,      /* access_key, and secret_key_file */
};

struct config_s3 {
    char endpoint[CONFIG_ADDRESS_BYTES + 8];
    char bucket[CONFIG_NAME_BYTES], prefix[201], region[CONFIG_NAME_BYTES];
    bool virtual_host, insecure_skip_verify;
    uint64_t credentials; /* enum config_credentials */
    char access_key[129], profile[CONFIG_NAME_BYTES];
    char secret_key_file[CONFIG_PATH_BYTES], credentials_file[CONFIG_PATH_BYTES], ca_file[CONFIG_PATH_BYTES];
    int64_t request_timeout_ms, retry_time_ms;
    uint64_t retries_per_minute, connections, part_bytes;
};

struct config_cluster {
    bool is_given; /* any key of cluster, log.kafka or blob */
    char name[CONFIG_NAME_BYTES], zone[CONFIG_NAME_BYTES];
    char address[CONFIG_ADDRESS_BYTES]; /* where other nodes reach this one: "host:port" */
    char secret_file[CONFIG_PATH_BYTES];
    char ca_file[CONFIG_PATH_BYTES]; /* of the other nodes' certificates; empty: the system's */
    uint64_t expect;                 /* nodes that found the cluster together; 0 = it is founded already */
    /* What a founder decides for the life of the cluster; later the control log says it. */
    uint64_t partitions, replicas;
    int64_t suspect_age_ms, repair_delay_ms;
    struct config_kafka kafka;
    struct config_s3 s3;
    uint64_t cache_bytes; /* of local disk; 0 = no cache */
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

    struct config_cluster cluster;

    /* The parsed document, for ingest's sections; lives in the pool of config_parse. */
    struct yaml_node *root;
};

/* Defaults of everything. */
struct config config_default(void);

/* Parse a document over the defaults. Everything is in pool. global and scrape_configs are left to the
 * caller, who finds them in out_config->root. Errors ERR_INPUT "line L column C: …", ERR_LIMIT. */
err config_parse(struct slice text, struct pool *pool, struct config *out_config, struct err_at *at);

/* Append all settings as YAML, each with its unit and "# live" or "# restart", those of a cluster if any of
 * them is given; then `global` and `scrape_configs` as they were written, secrets masked. */
void config_print(const struct config *config, struct buf *out);

/* A fingerprint, in hex, of what the nodes of a cluster are to have alike: all settings but their names, zones and
 * addresses, what they found, and what they scrape. */
#define CONFIG_HASH_BYTES 17 /* with the end */
void config_hash(const struct config *config, char out_hash[CONFIG_HASH_BYTES]);

/* Names of the settings that differ and need a restart, appended to out as "storage.ack, http.cors"; their
 * values in *next are set back to those of *running, so that *next is what is in force. */
void config_keep_restart(const struct config *running, struct config *next, struct buf *out);

#endif
