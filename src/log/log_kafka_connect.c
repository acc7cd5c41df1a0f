/* Opening a log on Kafka over the real client, by settings. See log.h.
 *
 * settings ─→ client's configuration ─→ kafka_client_open ─→ log_kafka_open, or log_kafka_create. What is the
 * same for every log of ours is decided here. */
#include "log/log_kafka.h"

#include <string.h>

#define CONTROL_BYTES_MAX (64u << 10) /* of a record of the control log */
/* Senders' records share a request, which carries one partition: what an append waits buys 40 % more samples a
 * CPU-second with 16 senders a node (docs/decisions/0025). */
#define LINGER_MS 20
/* A leader that froze is given up after it, and an append is answered by then: who writes hears of it within 5
 * s. */
#define SOCKET_MS      5000
#define DELIVERY_MS    5000
#define READ_BYTES_MIN (1u << 20) /* kafka_client.h */

static uint64_t at_least(uint64_t bytes, uint64_t min) { return bytes < min ? min : bytes; }

static uint32_t record_bytes_max(const struct log_kafka_settings *s)
{
    return (s->is_control ? CONTROL_BYTES_MAX : LOG_RECORD_BYTES_MAX) + LOG_KAFKA_HEAD_BYTES;
}

static struct kafka_client_config client_of(const struct log_kafka_settings *s)
{
    uint32_t record_bytes = record_bytes_max(s);
    return (struct kafka_client_config){
        .bootstrap = s->bootstrap,
        .topic = s->topic,
        .client_id = s->client_id,
        .security = s->security,
        .mechanism = s->mechanism,
        .user = s->user,
        .password = s->password,
        .ca_pem = s->ca_pem,
        .cert_pem = s->cert_pem,
        .key_pem = s->key_pem,
        .insecure_skip_verify = s->insecure_skip_verify,
        .record_bytes_max = record_bytes,
        .send_bytes_max = at_least(s->bytes_max, record_bytes + KAFKA_RECORD_OVERHEAD),
        .read_bytes_max = at_least(s->bytes_max, READ_BYTES_MIN),
        .linger_ms = LINGER_MS,
        .socket_timeout_ms = SOCKET_MS,
        .delivery_ms_max = DELIVERY_MS,
    };
}

static struct log_kafka_config driver_of(const struct log_kafka_settings *s)
{
    struct log_kafka_config config = {
        .partition_count = s->partition_count,
        .queue_bytes_max = at_least(s->bytes_max, record_bytes_max(s)),
        .tail_bytes_max = s->bytes_max,
        .delivery_ms_max = DELIVERY_MS,
        .accept_weak_topic = s->accept_weak_topic,
        .is_control = s->is_control,
    };
    memcpy(config.cluster_id, s->cluster_id, sizeof config.cluster_id);
    memcpy(config.topic_id, s->topic_id, sizeof config.topic_id);
    return config;
}

err log_kafka_connect(const struct log_kafka_settings *settings, struct io *io, struct pool *pool,
                      struct log **out_log, struct err_at *at)
{
    struct kafka_client_config client_config = client_of(settings);
    struct log_kafka_config config = driver_of(settings);
    struct kafka_client *client;
    TRY(kafka_client_open(&client_config, io, pool, &client, at));
    return log_kafka_open(&config, client, io, pool, out_log); /* takes the client */
}

err log_kafka_found(const struct log_kafka_settings *settings, uint32_t replica_count, int64_t retention_ms,
                    int64_t budget_ms, struct io *io, struct pool *pool, struct err_at *at)
{
    struct kafka_client_config client_config = client_of(settings);
    struct log_kafka_config config = driver_of(settings);
    struct kafka_client *client;
    TRY(kafka_client_open(&client_config, io, pool, &client, at));
    err e = log_kafka_create(&config, replica_count, retention_ms, budget_ms, client, io, at);
    kafka_client_close(client);
    return e;
}

err log_kafka_is_there(const struct log_kafka_settings *settings, int64_t budget_ms, struct io *io,
                       struct pool *pool, struct err_at *at)
{
    struct kafka_client_config client_config = client_of(settings);
    struct kafka_client *client;
    TRY(kafka_client_open(&client_config, io, pool, &client, at));
    err e = log_kafka_find(budget_ms, client, io, at);
    kafka_client_close(client);
    return e;
}
