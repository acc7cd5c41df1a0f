/* Settings of librdkafka: from struct kafka_client_config to the library's own names.
 *
 * Invariants
 *   1. Every setting that matters to a promise of kafka_client.h stands here, also where it is the library's
 *      default.
 *   2. The library reads no file but the system's certificates, and sends no statistics anywhere. */
#include <stdio.h>

#include "base/check.h"
#include "log/kafka_inside.h"
#include "net/socket.h"

struct setting {
    const char *name, *value;
};

static const struct setting common[] = {
    { "allow.auto.create.topics", "false" },
    { "enable.metrics.push", "false" },
    { "statistics.interval.ms", "0" },
    { "log_level", "4" }, /* warnings */
    { "log.queue", "true" },
    { "socket.nagle.disable", "true" },
    { "socket.keepalive.enable", "true" },
    { "reconnect.backoff.ms", "50" },
    { "reconnect.backoff.max.ms", "500" },
    { "retry.backoff.ms", "50" },
    { "retry.backoff.max.ms", "500" },
    /* A leader that moved is noticed by errors; one that is paused only by asking again. */
    { "topic.metadata.refresh.interval.ms", "2000" },
};

static const struct setting producing[] = {
    { "enable.idempotence", "true" }, /* with it acks=all, retries without end and order kept */
    { "acks", "all" },
    { "compression.type", "none" }, /* records come compressed */
    { "queue.buffering.max.messages", "1000000" },
};

static const struct setting reading[] = {
    { "group.id", "kelpie" }, /* the library asks for a name; nothing joins, nothing is committed */
    { "enable.auto.commit", "false" },
    { "enable.auto.offset.store", "false" },
    { "auto.offset.reset", "error" },
    { "enable.partition.eof", "true" },
    { "isolation.level", "read_uncommitted" }, /* nobody else's open transaction holds records back */
    { "check.crcs", "true" },
    { "max.poll.interval.ms", "86400000" },
    /* Each answer wakes two threads, however little it brings; with 1 byte it brings a record or two. An end, a
     * marker of a strong read and a partition just assigned wait for it. */
    { "fetch.wait.max.ms", "50" },
    { "fetch.min.bytes", "65536" },
    { "fetch.error.backoff.ms", "100" },
    { "fetch.queue.backoff.ms", "20" },
};

static err set(rd_kafka_conf_t *conf, const char *name, const char *value, struct err_at *at)
{
    char text[KAFKA_TEXT_BYTES_MAX];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof text) == RD_KAFKA_CONF_OK)
        return OK;
    return err_set(at, ERR_INPUT, "%s", text); /* the library quotes no value of a secret */
}

static err set_number(rd_kafka_conf_t *conf, const char *name, uint64_t value, struct err_at *at)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return set(conf, name, text, at);
}

static err set_all(rd_kafka_conf_t *conf, const struct setting *settings, size_t count, struct err_at *at)
{
    for (size_t i = 0; i < count; i++)
        TRY(set(conf, settings[i].name, settings[i].value, at));
    return OK;
}

static err set_security(rd_kafka_conf_t *conf, const struct kafka_client_config *config, struct err_at *at)
{
    static const char *const protocols[] = { "plaintext", "ssl", "sasl_plaintext", "sasl_ssl" };
    static const char *const mechanisms[] = { "SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN" };
    check(config->security <= KAFKA_SASL_TLS && config->mechanism <= KAFKA_PLAIN);
    TRY(set(conf, "security.protocol", protocols[config->security], at));
    if (config->security == KAFKA_SASL_PLAINTEXT || config->security == KAFKA_SASL_TLS) {
        if (config->user == NULL || config->password == NULL)
            return err_set(at, ERR_INPUT, "SASL needs a user and a password");
        TRY(set(conf, "sasl.mechanism", mechanisms[config->mechanism], at));
        TRY(set(conf, "sasl.username", config->user, at));
        TRY(set(conf, "sasl.password", config->password, at));
    }
    if (config->security != KAFKA_TLS && config->security != KAFKA_SASL_TLS)
        return OK;
    TRY(set(conf, "ssl.endpoint.identification.algorithm", config->insecure_skip_verify ? "none" : "https",
            at));
    TRY(set(conf, "enable.ssl.certificate.verification", config->insecure_skip_verify ? "false" : "true",
            at));
    if (config->ca_pem != NULL)
        TRY(set(conf, "ssl.ca.pem", config->ca_pem, at));
    else
        TRY(set(conf, "ssl.ca.location", "probe", at));
    if (config->cert_pem != NULL)
        TRY(set(conf, "ssl.certificate.pem", config->cert_pem, at));
    if (config->key_pem != NULL)
        TRY(set(conf, "ssl.key.pem", config->key_pem, at));
    if (config->key_password != NULL)
        TRY(set(conf, "ssl.key.password", config->key_password, at));
    return OK;
}

static err set_producer(rd_kafka_conf_t *conf, const struct kafka_client_config *config, struct err_at *at)
{
    uint64_t batch = (uint64_t)config->record_bytes_max + KAFKA_RECORD_OVERHEAD;
    TRY(set_all(conf, producing, sizeof producing / sizeof *producing, at));
    TRY(set_number(conf, "linger.ms", config->linger_ms, at));
    TRY(set_number(conf, "message.timeout.ms", config->delivery_ms_max, at));
    TRY(set_number(conf, "request.timeout.ms", config->socket_timeout_ms, at));
    /* A topic's max.message.bytes bounds batches, and what it refuses is refused for good. */
    TRY(set_number(conf, "batch.size", batch < 1000000 ? batch : 1000000, at));
    /* Our own bound comes first; the library's is there for what it counts besides. */
    return set_number(conf, "queue.buffering.max.kbytes", config->send_bytes_max / 512 + 1024, at);
}

static err set_reader(rd_kafka_conf_t *conf, const struct kafka_client_config *config, struct err_at *at)
{
    /* Half is for what waits to be polled, an eighth for the answer that each broker may bring meanwhile. */
    uint64_t wait = config->read_bytes_max / 2, most = config->read_bytes_max / 8;
    uint64_t one = (uint64_t)config->record_bytes_max + KAFKA_RECORD_OVERHEAD;
    if (wait > 1u << 30)
        wait = 1u << 30;
    if (most > 1u << 28)
        most = 1u << 28;
    TRY(set_all(conf, reading, sizeof reading / sizeof *reading, at));
    TRY(set_number(conf, "queued.max.messages.kbytes", wait / 1000, at)); /* the library's KB are 1,000 */
    TRY(set_number(conf, "queued.min.messages", 10000, at));
    if (most < one)
        most = one; /* one record must pass */
    TRY(set_number(conf, "fetch.message.max.bytes", most < 1u << 20 ? most : 1u << 20, at));
    TRY(set_number(conf, "fetch.max.bytes", most, at));
    return set_number(conf, "receive.message.max.bytes", most + one + (1u << 20), at);
}

static int open_socket(int domain, int type, int protocol, void *opaque)
{
    return net_socket_open(domain, type, protocol, KAFKA_DEAD_MS);
}

err kafka_conf_make(const struct kafka_client_config *config, bool is_producer, rd_kafka_conf_t **out_conf,
                    struct err_at *at)
{
    check(config->record_bytes_max > 0 && config->send_bytes_max >= config->record_bytes_max);
    check(config->read_bytes_max >= 1u << 20);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    err e = OK;
    TRY_OUT(set_all(conf, common, sizeof common / sizeof *common, at));
    TRY_OUT(set(conf, "bootstrap.servers", config->bootstrap, at));
    TRY_OUT(set(conf, "client.id", config->client_id, at));
    TRY_OUT(set_number(conf, "socket.timeout.ms", config->socket_timeout_ms, at));
    TRY_OUT(set_number(conf, "socket.connection.setup.timeout.ms", config->socket_timeout_ms, at));
    TRY_OUT(set_number(conf, "message.max.bytes", (uint64_t)config->record_bytes_max + KAFKA_RECORD_OVERHEAD,
                       at));
    TRY_OUT(set_security(conf, config, at));
    TRY_OUT(is_producer ? set_producer(conf, config, at) : set_reader(conf, config, at));
    rd_kafka_conf_set_socket_cb(conf, open_socket);
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
    *out_conf = conf;
    return OK;
out:
    rd_kafka_conf_destroy(conf);
    return e;
}
