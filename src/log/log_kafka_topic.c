/* The topic of the Kafka driver: is it fit, and still the same one? Asked at the start until it is known,
 * then every now and then, and once more when a partition seems to have gone back: a topic that was deleted
 * and created anew begins at 0, and is not a log that went back to 0.
 *
 * Invariants
 *   1. Nothing is appended and no reader begins but while the last answer was that it is fit.
 *   2. Where a partition went back to is told only after an answer to a question that was asked since. */
#include "log/log_kafka.h"

#include "base/time.h"

#include <string.h>

err log_kafka_topic_check(const struct kafka_topic *t, const struct log_kafka_config *config,
                          struct err_at *at)
{
    if (t->partition_count != config->partition_count)
        return err_set(at, ERR_CONFLICT, "the topic has %u partitions, not %u", t->partition_count,
                       config->partition_count);
    if (t->is_compacted || !t->is_deleted)
        return err_set(at, ERR_CONFLICT, "the topic's cleanup.policy is not delete");
    if (config->accept_weak_topic)
        return OK;
    if (t->replica_count_min < 3)
        return err_set(at, ERR_CONFLICT, "a partition of the topic has %u replicas, at least 3 are needed",
                       t->replica_count_min);
    if (t->min_insync_replicas < 2)
        return err_set(at, ERR_CONFLICT, "the topic's min.insync.replicas is %lld, at least 2 is needed",
                       (long long)t->min_insync_replicas);
    if (t->unclean_election)
        return err_set(at, ERR_CONFLICT, "the topic's unclean.leader.election.enable is true");
    if (t->retention_bytes != -1)
        return err_set(at, ERR_CONFLICT, "the topic's retention.bytes is %lld, not -1",
                       (long long)t->retention_bytes);
    if (t->retention_ms != -1 && (config->is_control || t->retention_ms < LOG_KAFKA_RETENTION_MIN_MS))
        return err_set(at, ERR_CONFLICT, "the topic's retention.ms is %lld, %s", (long long)t->retention_ms,
                       config->is_control ? "not -1" : "at least a day is needed");
    if (t->max_message_bytes < LOG_RECORD_BYTES_MAX + KAFKA_RECORD_OVERHEAD)
        return err_set(at, ERR_CONFLICT, "the topic's max.message.bytes is %lld, at least %u is needed",
                       (long long)t->max_message_bytes, LOG_RECORD_BYTES_MAX + KAFKA_RECORD_OVERHEAD);
    if (!t->is_append_time)
        return err_set(at, ERR_CONFLICT, "the topic's message.timestamp.type is not LogAppendTime");
    return OK;
}

enum log_kafka_stage log_kafka_stage(struct log *log, struct err_at *at)
{
    struct log_kafka *k = (struct log_kafka *)log;
    io_mutex_lock(&k->mutex);
    enum log_kafka_stage stage = k->stage;
    if (at != NULL)
        *at = k->refused;
    io_mutex_unlock(&k->mutex);
    return stage;
}

void log_kafka_topic_id(struct log *log, uint8_t *out_id)
{
    struct log_kafka *k = (struct log_kafka *)log;
    io_mutex_lock(&k->mutex);
    memcpy(out_id, k->topic_id, sizeof k->topic_id);
    io_mutex_unlock(&k->mutex);
}

static bool is_zero(const uint8_t *id)
{
    static const uint8_t none[16];
    return memcmp(id, none, sizeof none) == 0;
}

static err check_topic(struct log_kafka *log, const struct kafka_topic *topic, struct err_at *at)
{
    TRY(log_kafka_topic_check(topic, &log->config, at));
    const uint8_t *had = is_zero(log->topic_id) ? log->config.topic_id : log->topic_id;
    if (!is_zero(had) && !is_zero(topic->id) && memcmp(had, topic->id, sizeof topic->id) != 0)
        return err_set(at, ERR_CONFLICT,
                       "the topic was deleted and created anew: its id is not the known one");
    return OK;
}

/* The topic is the same one: where its partitions went back to may be told. */
static void tell_backs(struct log_kafka *log)
{
    for (uint32_t i = 0; i < log->log.partition_count; i++) {
        struct kafka_partition *p = &log->partitions[i];
        if (p->found == KAFKA_OFFSET_UNKNOWN)
            continue;
        if (p->found_looks == log->topic_looks) { /* found since this look began: another one */
            log->topic_at_ns = INT64_MIN;
            continue;
        }
        io_mutex_lock(&log->mutex);
        if (p->found < p->back_to) {
            p->back_to = p->found;
            p->goes_on = false; /* that was of another place */
            p->back_epoch = log_kafka_epoch_below(p, p->found);
        }
        io_mutex_unlock(&log->mutex);
        p->found = KAFKA_OFFSET_UNKNOWN;
    }
}

void log_kafka_on_topic(struct log_kafka *log, const struct kafka_event *event)
{
    int64_t now_ns = log_kafka_now_ns(log);
    struct err_at at = { 0 };
    if (event->cookie != log->topic_cookie)
        return;
    log->topic_cookie = 0;
    bool is_found = event->result == OK;
    err e = is_found ? check_topic(log, event->topic, &at) : event->result;
    if (!is_found)
        e = err_set(&at, e, "the topic is not known: %s", err_text(e));
    if (!is_found && log->stage == LOG_KAFKA_RUNNING) { /* one broker's word, or none: asked again */
        log->topic_at_ns = now_ns + LOG_KAFKA_RETRY_MS * NS_PER_MS;
        io_mutex_lock(&log->mutex);
        log->refused = at;
        io_mutex_unlock(&log->mutex);
        return;
    }
    io_mutex_lock(&log->mutex);
    if (is_found)
        log->stage = e == OK ? LOG_KAFKA_RUNNING : LOG_KAFKA_REFUSED;
    if (e == OK)
        log->retention_ms = event->topic->retention_ms;
    if (e == OK && is_zero(log->topic_id))
        memcpy(log->topic_id, event->topic->id, sizeof log->topic_id);
    log->refused = at;
    io_mutex_unlock(&log->mutex);
    if (log->stage != LOG_KAFKA_REFUSED)
        log->topic_delay_ms = LOG_KAFKA_RETRY_MS;
    else if ((log->topic_delay_ms *= 2) > LOG_KAFKA_REFUSED_MS_MAX)
        log->topic_delay_ms = LOG_KAFKA_REFUSED_MS_MAX;
    log->topic_at_ns = now_ns + (e == OK ? LOG_KAFKA_TOPIC_MS : log->topic_delay_ms) * NS_PER_MS;
    if (e == OK)
        tell_backs(log);
}

void log_kafka_ask_topic(struct log_kafka *log, int64_t now_ns)
{
    if (log->topic_cookie != 0 || now_ns < log->topic_at_ns)
        return;
    log->topic_at_ns = now_ns + LOG_KAFKA_RETRY_MS * NS_PER_MS;
    log->topic_looks++;
    if (kafka_ask_topic(log->client, LOG_KAFKA_ASK_MS, ++log->next_cookie) == OK)
        log->topic_cookie = log->next_cookie;
}

/* ---- how long it keeps records ---- */

int64_t log_kafka_retention(struct log *log, struct err_at *out_refused)
{
    struct log_kafka *k = (struct log_kafka *)log;
    io_mutex_lock(&k->mutex);
    int64_t retention_ms = k->retention_ms;
    *out_refused = k->retain_refused;
    io_mutex_unlock(&k->mutex);
    return retention_ms;
}

void log_kafka_retain(struct log *log, int64_t retention_ms)
{
    struct log_kafka *k = (struct log_kafka *)log;
    io_mutex_lock(&k->mutex);
    k->retain_ms = retention_ms;
    io_mutex_unlock(&k->mutex);
}

void log_kafka_ask_retain(struct log_kafka *log, int64_t now_ns)
{
    io_mutex_lock(&log->mutex);
    int64_t retention_ms = log->stage == LOG_KAFKA_RUNNING ? log->retain_ms : LOG_RETENTION_UNKNOWN;
    if (retention_ms != LOG_RETENTION_UNKNOWN)
        log->retain_ms = LOG_RETENTION_UNKNOWN;
    io_mutex_unlock(&log->mutex);
    if (retention_ms == LOG_RETENTION_UNKNOWN)
        return;
    log->retain_cookie = ++log->next_cookie;
    if (kafka_alter_retention(log->client, retention_ms, LOG_KAFKA_ASK_MS, log->retain_cookie) == OK)
        log->topic_at_ns = now_ns + LOG_KAFKA_RETRY_MS * NS_PER_MS; /* what came of it is seen there */
}

void log_kafka_on_done(struct log_kafka *log, const struct kafka_event *event)
{
    if (event->cookie != log->retain_cookie)
        return;
    io_mutex_lock(&log->mutex);
    log->retain_refused = (struct err_at){ 0 };
    if (event->result != OK)
        ERR_IGNORE(
            err_set(&log->retain_refused, event->result, "%s", /* told by log_kafka_retention */
                    event->text != NULL && event->text[0] != 0 ? event->text : err_text(event->result)));
    io_mutex_unlock(&log->mutex);
}
