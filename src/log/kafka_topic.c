/* A topic's settings, as brokers write them: text by name. Read by the real client from what brokers tell, and by
 * simulated brokers from what they are ordered.
 *
 * Invariant: a value is taken whole or not at all. */
#include <stdlib.h>
#include <string.h>

#include "log/kafka_client.h"

/* Decimal, not below -1, which stands for no bound. */
static err read_number(const char *text, int64_t *out_number)
{
    int64_t number = 0;
    const char *at = text;
    if (strcmp(text, "-1") == 0) {
        *out_number = -1;
        return OK;
    }
    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(number, 10, &number) || __builtin_add_overflow(number, *at - '0', &number))
            return ERR_INPUT;
    if (at == text || *at != 0)
        return ERR_INPUT;
    *out_number = number;
    return OK;
}

/* One of two words. */
static err read_word(const char *text, const char *no, const char *yes, bool *out_is_yes)
{
    bool is_yes = strcmp(text, yes) == 0;
    if (!is_yes && strcmp(text, no) != 0)
        return ERR_INPUT;
    *out_is_yes = is_yes;
    return OK;
}

/* "compact", "delete" or both with a comma; an empty list keeps everything. */
static err read_policy(const char *text, struct kafka_topic *topic)
{
    bool is_compacted = false, is_deleted = false;
    while (*text != 0) {
        size_t len = strcspn(text, ",");
        bool compacts = len == strlen("compact") && memcmp(text, "compact", len) == 0;
        bool deletes = len == strlen("delete") && memcmp(text, "delete", len) == 0;
        if (!compacts && !deletes)
            return ERR_INPUT;
        is_compacted |= compacts;
        is_deleted |= deletes;
        text += len;
        text += *text == ',';
    }
    topic->is_compacted = is_compacted;
    topic->is_deleted = is_deleted;
    return OK;
}

err kafka_topic_set(struct kafka_topic *topic, const char *name, const char *value)
{
    if (strcmp(name, "min.insync.replicas") == 0)
        return read_number(value, &topic->min_insync_replicas);
    if (strcmp(name, "retention.ms") == 0)
        return read_number(value, &topic->retention_ms);
    if (strcmp(name, "retention.bytes") == 0)
        return read_number(value, &topic->retention_bytes);
    if (strcmp(name, "max.message.bytes") == 0)
        return read_number(value, &topic->max_message_bytes);
    if (strcmp(name, "unclean.leader.election.enable") == 0)
        return read_word(value, "false", "true", &topic->unclean_election);
    if (strcmp(name, "message.timestamp.type") == 0)
        return read_word(value, "CreateTime", "LogAppendTime", &topic->is_append_time);
    if (strcmp(name, "cleanup.policy") == 0)
        return read_policy(value, topic);
    return ERR_NOT_FOUND;
}
