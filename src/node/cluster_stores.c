/* See cluster_stores.h. Configuration in, the rooms' own settings out; nothing is decided but what a
 * configuration has no key for. */
#include "node/cluster_stores.h"

#include "base/sha256.h"
#include "net/client.h"
#include "shard/shard.h"

#include <string.h>

#define CACHE_DIRECTORY   "cache"
#define CONTROL_BYTES_MAX (1u << 20)

static const char *text_or_null(struct slice text) { return text.len > 0 ? (const char *)text.at : NULL; }

struct log_kafka_settings cluster_log_settings(const struct config_cluster *config,
                                               const struct secrets *secrets)
{
    static const enum kafka_mechanism mechanisms[] = {
        [CONFIG_SASL_SCRAM_SHA_512] = KAFKA_SCRAM_SHA_512,
        [CONFIG_SASL_SCRAM_SHA_256] = KAFKA_SCRAM_SHA_256,
        [CONFIG_SASL_PLAIN] = KAFKA_PLAIN,
    };
    const struct config_kafka *k = &config->kafka;
    bool has_sasl = k->mechanism != CONFIG_SASL_NONE;
    return (struct log_kafka_settings){
        .bootstrap = k->bootstrap,
        .topic = k->topic,
        .client_id = config->name,
        .security = has_sasl ? (k->tls ? KAFKA_SASL_TLS : KAFKA_SASL_PLAINTEXT)
                    : k->tls ? KAFKA_TLS
                             : KAFKA_PLAINTEXT,
        .mechanism = mechanisms[k->mechanism],
        .user = has_sasl ? k->user : NULL,
        .password = has_sasl ? text_or_null(secrets->kafka_password) : NULL,
        .ca_pem = text_or_null(secrets->kafka_ca),
        .cert_pem = text_or_null(secrets->kafka_cert),
        .key_pem = text_or_null(secrets->kafka_key),
        .insecure_skip_verify = k->insecure_skip_verify,
        .accept_weak_topic = k->accept_weak_topic,
    };
}

struct log_kafka_settings cluster_control_settings(const struct config_cluster *config,
                                                   const struct secrets *secrets)
{
    struct log_kafka_settings settings = cluster_log_settings(config, secrets);
    uint8_t digest[SHA256_BYTES];
    sha256_hmac(slice_str("kelpie control log"), slice_str(config->kafka.control_topic), digest);
    settings.topic = config->kafka.control_topic;
    settings.partition_count = 1;
    settings.bytes_max = CONTROL_BYTES_MAX;
    settings.is_control = true;
    memcpy(settings.cluster_id, digest, sizeof settings.cluster_id);
    return settings;
}

/* Segments and states are named by their bytes; chains grow by one object after the other, whose absence must be
 * asked of the store each time, and whose repair replaces them. */
static bool is_immutable(const char *key)
{
    const char *slash = strchr(key, '/');
    return slash != NULL && (strncmp(slash, "/segment/", 9) == 0 || strncmp(slash, "/state/", 7) == 0);
}

static struct blob_s3_config s3_settings(const struct config_s3 *s3, const struct secrets *secrets,
                                         const struct net_tls_options *tls, const _Atomic bool *abort)
{
    static const enum blob_s3_source sources[] = {
        [CONFIG_CREDENTIALS_INSTANCE] = BLOB_S3_INSTANCE,
        [CONFIG_CREDENTIALS_ENVIRONMENT] = BLOB_S3_STATIC,
        [CONFIG_CREDENTIALS_FILE] = BLOB_S3_FILE,
        [CONFIG_CREDENTIALS_STATIC] = BLOB_S3_STATIC,
    };
    struct blob_s3_config settings = blob_s3_defaults();
    settings.endpoint = s3->endpoint;
    settings.bucket = s3->bucket;
    settings.prefix = s3->prefix;
    settings.region = s3->region;
    settings.virtual_host = s3->virtual_host;
    settings.source = sources[s3->credentials];
    settings.access_key = text_or_null(secrets->s3_access_key);
    settings.secret_key = text_or_null(secrets->s3_secret_key);
    settings.session_token = text_or_null(secrets->s3_session_token);
    settings.credentials_file = text_or_null(secrets->s3_credentials_file);
    settings.profile = s3->profile;
    settings.tls = tls;
    settings.abort = abort;
    settings.request_ms = s3->request_timeout_ms;
    settings.retry_ms = s3->retry_time_ms;
    settings.retries_per_minute = (unsigned)s3->retries_per_minute;
    settings.connections_max = (unsigned)s3->connections;
    settings.part_bytes = s3->part_bytes;
    return settings;
}

/* The client's options outlive the call: they are in the pool. */
static err tls_of(const struct config_s3 *s3, const struct secrets *secrets, struct pool *pool,
                  struct net_tls_options **out_tls)
{
    void *room;
    struct slice ca = { 0 };
    TRY(pool_zalloc(pool, sizeof(struct net_tls_options), &room));
    TRY(pool_copy(pool, secrets->s3_ca_file, &ca));
    *out_tls = room;
    (*out_tls)->ca_file = text_or_null(ca);
    (*out_tls)->insecure_skip_verify = s3->insecure_skip_verify;
    return OK;
}

err cluster_bucket_open(const struct config_cluster *config, const struct secrets *secrets,
                        uint64_t free_bytes_min, const _Atomic bool *abort, struct io *io, struct pool *pool,
                        struct cluster_bucket *out_bucket, struct err_at *at)
{
    struct net_tls_options *tls;
    TRY(tls_of(&config->s3, secrets, pool, &tls));
    struct blob_s3_config settings = s3_settings(&config->s3, secrets, tls, abort);
    struct cluster_bucket opened;
    TRY(blob_open_s3(&settings, io, pool, &opened.bucket, at));
    opened.store = opened.bucket;
    if (config->cache_bytes > 0) {
        struct blob_cache_config cache = blob_cache_defaults();
        cache.directory = CACHE_DIRECTORY;
        cache.bytes_max = config->cache_bytes;
        cache.free_bytes_min = free_bytes_min;
        cache.is_immutable = is_immutable;
        err e = blob_open_cached(opened.bucket, &cache, io, pool, &opened.store, at);
        if (e != OK) {
            blob_close(opened.bucket);
            return e;
        }
    }
    *out_bucket = opened;
    return OK;
}

err cluster_bucket_open_bare(const struct config_cluster *config, const struct secrets *secrets,
                             bool is_reader, struct io *io, struct pool *pool, struct blob **out_bucket,
                             struct err_at *at)
{
    struct net_tls_options *tls;
    TRY(tls_of(&config->s3, secrets, pool, &tls));
    struct blob_s3_config settings = s3_settings(&config->s3, secrets, tls, NULL);
    settings.as_is = is_reader;
    return blob_open_s3(&settings, io, pool, out_bucket, at);
}

struct control_init cluster_init(const struct config_cluster *c, struct io *io)
{
    struct control_init init = {
        .partition_count = (uint32_t)c->partitions,
        .replica_count = (uint8_t)c->replicas,
        .expected_nodes = (uint32_t)c->expect,
        .range_bytes_max = SHARD_RANGE_BYTES_MAX_DEFAULT,
        .settings = { .suspect_age_ms = (uint32_t)c->suspect_age_ms,
                      .repair_delay_ms = (uint32_t)c->repair_delay_ms },
    };
    io_random(io, init.hash_key, sizeof init.hash_key);
    return init;
}
