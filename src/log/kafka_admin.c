/* Questions and orders of the real Kafka client: ends, the topic's description, creation, retention, deletion.
 * Each goes to the library as one or two requests with a time limit; what comes back is gathered until all of
 * it is there or the limit of ours has passed.
 *
 * Invariants
 *   1. Every question is answered once. One whose limit passed is kept until the library gave its address back.
 *   2. Numbers and texts from a broker are read within bounds: partitions that were not asked for are ignored.
 *      */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "log/kafka_inside.h"

static err ask_open(struct kafka_real *k, enum kafka_ask_kind kind, size_t ends_count, int64_t budget_ms,
                    uint64_t cookie, struct kafka_ask **out_ask)
{
    if (k->ask_count >= KAFKA_ASKS_MAX)
        return ERR_BUSY;
    size_t bytes = sizeof(struct kafka_ask) + ends_count * sizeof(struct kafka_ends);
    struct kafka_ask *ask = NULL;
    TRY(pool_block_resize(k->pool, (void **)&ask, bytes));
    memset(ask, 0, bytes);
    ask->kind = kind;
    ask->cookie = cookie;
    ask->deadline_ns = io_monotonic_ns(k->io) + budget_ms * 1000000;
    ask->offset = KAFKA_OFFSET_UNKNOWN;
    ask->ends_count = ends_count;
    ask->parts[0].ask = ask->parts[1].ask = ask;
    ask->parts[1].is_start = true;
    ask->next = k->asks;
    k->asks = ask;
    k->ask_count++;
    *out_ask = ask;
    return OK;
}

/* Options of one request; it counts as outstanding from here. */
static rd_kafka_AdminOptions_t *options_of(struct kafka_real *k, struct kafka_ask_part *part,
                                           rd_kafka_admin_op_t op, int64_t budget_ms)
{
    char text[KAFKA_TEXT_BYTES_MAX];
    int limit_ms = budget_ms < 1 ? 1 : budget_ms > 3600000 ? 3600000 : (int)budget_ms;
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(k->handle, op);
    check(options != NULL);
    check(rd_kafka_AdminOptions_set_request_timeout(options, limit_ms, text, sizeof text) == 0);
    rd_kafka_AdminOptions_set_opaque(options, part);
    part->ask->outstanding++;
    return options;
}

static void fail(struct kafka_ask *ask, rd_kafka_resp_err_t code, const char *text)
{
    if (ask->result != OK || code == RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    ask->result = kafka_err_of(code);
    snprintf(ask->text, sizeof ask->text, "%s", text != NULL ? text : rd_kafka_err2str(code));
}

/* ---- ends ---- */
static void request_offsets(struct kafka_real *k, struct kafka_ask *ask, struct kafka_ask_part *part,
                            int64_t budget_ms)
{
    rd_kafka_AdminOptions_t *options = options_of(k, part, RD_KAFKA_ADMIN_OP_LISTOFFSETS, budget_ms);
    rd_kafka_error_t *error =
        rd_kafka_AdminOptions_set_isolation_level(options, RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED);
    check(error == NULL);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)ask->ends_count);
    for (size_t i = 0; i < ask->ends_count; i++)
        rd_kafka_topic_partition_list_add(list, k->topic, (int32_t)ask->ends[i].partition)->offset =
            part->is_start ? RD_KAFKA_OFFSET_SPEC_EARLIEST : RD_KAFKA_OFFSET_SPEC_LATEST;
    rd_kafka_ListOffsets(k->handle, list, options, k->answer_queue);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_AdminOptions_destroy(options);
}

err kafka_real_ask_ends(struct kafka_client *client, const uint32_t *partitions, size_t count,
                        int64_t budget_ms, uint64_t cookie)
{
    struct kafka_real *k = kafka_real_of(client);
    struct kafka_ask *ask;
    if (count == 0 || count > LOG_PARTITION_COUNT_MAX)
        return ERR_INPUT;
    for (size_t i = 0; i < count; i++) {
        check(partitions[i] < LOG_PARTITION_COUNT_MAX);
        for (size_t j = 0; j < i; j++)
            if (partitions[j] == partitions[i])
                return ERR_INPUT;
    }
    TRY(ask_open(k, KAFKA_ASK_ENDS, count, budget_ms, cookie, &ask));
    for (size_t i = 0; i < count; i++)
        ask->ends[i] = (struct kafka_ends){ .partition = partitions[i],
                                            .start_offset = KAFKA_OFFSET_UNKNOWN,
                                            .end_offset = KAFKA_OFFSET_UNKNOWN,
                                            .leader_epoch = KAFKA_EPOCH_UNKNOWN };
    request_offsets(k, ask, &ask->parts[0], budget_ms);
    request_offsets(k, ask, &ask->parts[1], budget_ms);
    return OK;
}

static void fold_offset(struct kafka_ask *ask, bool is_start, const rd_kafka_topic_partition_t *one)
{
    for (size_t i = 0; i < ask->ends_count; i++) {
        struct kafka_ends *ends = &ask->ends[i];
        if ((int32_t)ends->partition != one->partition)
            continue;
        if (one->err != RD_KAFKA_RESP_ERR_NO_ERROR || one->offset < 0) {
            if (ends->result == OK)
                ends->result = one->err == RD_KAFKA_RESP_ERR_NO_ERROR ? ERR_BUSY : kafka_err_of(one->err);
        } else if (is_start) {
            ends->start_offset = (uint64_t)one->offset;
        } else {
            ends->end_offset = (uint64_t)one->offset;
            ends->leader_epoch = rd_kafka_topic_partition_get_leader_epoch(one);
        }
    }
}

static void fold_offsets(struct kafka_ask_part *part, rd_kafka_event_t *event)
{
    size_t count;
    const rd_kafka_ListOffsetsResultInfo_t **infos =
        rd_kafka_ListOffsets_result_infos(rd_kafka_event_ListOffsets_result(event), &count);
    for (size_t i = 0; i < count; i++)
        fold_offset(part->ask, part->is_start, rd_kafka_ListOffsetsResultInfo_topic_partition(infos[i]));
}

/* ---- the topic ---- */
err kafka_real_ask_topic(struct kafka_client *client, int64_t budget_ms, uint64_t cookie)
{
    struct kafka_real *k = kafka_real_of(client);
    struct kafka_ask *ask;
    TRY(ask_open(k, KAFKA_ASK_TOPIC, 0, budget_ms, cookie, &ask));
    ask->topic.min_insync_replicas = -1;
    const char *names[] = { k->topic };
    rd_kafka_AdminOptions_t *options =
        options_of(k, &ask->parts[0], RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, budget_ms);
    rd_kafka_TopicCollection_t *topics = rd_kafka_TopicCollection_of_topic_names(names, 1);
    rd_kafka_DescribeTopics(k->handle, topics, options, k->answer_queue);
    rd_kafka_TopicCollection_destroy(topics);
    rd_kafka_AdminOptions_destroy(options);

    options = options_of(k, &ask->parts[1], RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, budget_ms);
    rd_kafka_ConfigResource_t *resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, k->topic);
    rd_kafka_DescribeConfigs(k->handle, &resource, 1, options, k->answer_queue);
    rd_kafka_ConfigResource_destroy(resource);
    rd_kafka_AdminOptions_destroy(options);
    return OK;
}

static void fold_partitions(struct kafka_topic *topic, const rd_kafka_TopicDescription_t *description)
{
    size_t count, replicas, in_sync;
    const rd_kafka_TopicPartitionInfo_t **infos = rd_kafka_TopicDescription_partitions(description, &count);
    topic->partition_count = (uint32_t)count;
    topic->replica_count_min = topic->isr_count_min = count == 0 ? 0 : UINT32_MAX;
    for (size_t i = 0; i < count; i++) {
        const rd_kafka_Node_t *leader = rd_kafka_TopicPartitionInfo_leader(infos[i]);
        rd_kafka_TopicPartitionInfo_replicas(infos[i], &replicas);
        rd_kafka_TopicPartitionInfo_isr(infos[i], &in_sync);
        topic->leaderless_count += leader == NULL || rd_kafka_Node_id(leader) < 0;
        if (replicas < topic->replica_count_min)
            topic->replica_count_min = (uint32_t)replicas;
        if (in_sync < topic->isr_count_min)
            topic->isr_count_min = (uint32_t)in_sync;
    }
}

static void fold_topic(struct kafka_ask *ask, rd_kafka_event_t *event)
{
    size_t count;
    const rd_kafka_TopicDescription_t **topics =
        rd_kafka_DescribeTopics_result_topics(rd_kafka_event_DescribeTopics_result(event), &count);
    if (count != 1) {
        fail(ask, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, NULL);
        return;
    }
    const rd_kafka_error_t *error = rd_kafka_TopicDescription_error(topics[0]);
    if (error != NULL && rd_kafka_error_code(error) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        fail(ask, rd_kafka_error_code(error), rd_kafka_error_string(error));
        return;
    }
    const rd_kafka_Uuid_t *id = rd_kafka_TopicDescription_topic_id(topics[0]);
    uint64_t halves[2] = { (uint64_t)rd_kafka_Uuid_most_significant_bits(id),
                           (uint64_t)rd_kafka_Uuid_least_significant_bits(id) };
    for (size_t i = 0; i < 16; i++)
        ask->topic.id[i] = (uint8_t)(halves[i / 8] >> (56 - 8 * (i % 8)));
    fold_partitions(&ask->topic, topics[0]);
}

/* What is not looked at is not read either. */
static void fold_setting(struct kafka_ask *ask, const char *name, const char *value)
{
    if (value == NULL || kafka_topic_set(&ask->topic, name, value) != ERR_INPUT || ask->result != OK)
        return;
    ask->result = ERR_INPUT;
    snprintf(ask->text, sizeof ask->text, "the topic's %s is told as \"%.100s\"", name, value);
}

static void fold_resources(struct kafka_ask *ask, const rd_kafka_ConfigResource_t **resources,
                           size_t resource_count)
{
    for (size_t i = 0; i < resource_count; i++) {
        fail(ask, rd_kafka_ConfigResource_error(resources[i]),
             rd_kafka_ConfigResource_error_string(resources[i]));
        size_t count;
        const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(resources[i], &count);
        for (size_t j = 0; j < count; j++)
            fold_setting(ask, rd_kafka_ConfigEntry_name(entries[j]), rd_kafka_ConfigEntry_value(entries[j]));
    }
}

/* ---- orders ---- */
static err order_open(struct kafka_real *k, uint32_t partition, rd_kafka_admin_op_t op, int64_t budget_ms,
                      uint64_t cookie, rd_kafka_AdminOptions_t **out_options)
{
    struct kafka_ask *ask;
    TRY(ask_open(k, KAFKA_ASK_ORDER, 0, budget_ms, cookie, &ask));
    ask->partition = partition;
    *out_options = options_of(k, &ask->parts[0], op, budget_ms);
    return OK;
}

err kafka_real_create_topic(struct kafka_client *client, const struct kafka_new_topic *topic,
                            int64_t budget_ms, uint64_t cookie)
{
    struct kafka_real *k = kafka_real_of(client);
    if (topic->partition_count == 0 || topic->partition_count > LOG_PARTITION_COUNT_MAX ||
        topic->replica_count == 0 || topic->replica_count > KAFKA_REPLICAS_MAX)
        return ERR_INPUT;
    char text[KAFKA_TEXT_BYTES_MAX];
    rd_kafka_NewTopic_t *wanted = rd_kafka_NewTopic_new(k->topic, (int)topic->partition_count,
                                                        (int)topic->replica_count, text, sizeof text);
    if (wanted == NULL)
        return ERR_INPUT;
    err e = OK;
    for (size_t i = 0; i < topic->config_count && e == OK; i++)
        e = kafka_err_of(
            rd_kafka_NewTopic_set_config(wanted, topic->configs[i].name, topic->configs[i].value));
    rd_kafka_AdminOptions_t *options;
    if (e == OK)
        e = order_open(k, 0, RD_KAFKA_ADMIN_OP_CREATETOPICS, budget_ms, cookie, &options);
    if (e == OK) {
        rd_kafka_CreateTopics(k->handle, &wanted, 1, options, k->answer_queue);
        rd_kafka_AdminOptions_destroy(options);
    }
    rd_kafka_NewTopic_destroy(wanted);
    return e;
}

err kafka_real_alter_retention(struct kafka_client *client, int64_t retention_ms, int64_t budget_ms,
                               uint64_t cookie)
{
    struct kafka_real *k = kafka_real_of(client);
    rd_kafka_AdminOptions_t *options;
    if (retention_ms < -1)
        return ERR_INPUT;
    TRY(order_open(k, 0, RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS, budget_ms, cookie, &options));
    char value[24];
    snprintf(value, sizeof value, "%lld", (long long)retention_ms);
    rd_kafka_ConfigResource_t *resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, k->topic);
    rd_kafka_error_t *error =
        rd_kafka_ConfigResource_add_incremental_config(resource, "retention.ms",
                                                       RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET, value);
    check(error == NULL);
    rd_kafka_IncrementalAlterConfigs(k->handle, &resource, 1, options, k->answer_queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_ConfigResource_destroy(resource);
    return OK;
}

err kafka_real_delete_records(struct kafka_client *client, uint32_t partition, uint64_t before,
                              int64_t budget_ms, uint64_t cookie)
{
    struct kafka_real *k = kafka_real_of(client);
    rd_kafka_AdminOptions_t *options;
    check(partition < LOG_PARTITION_COUNT_MAX);
    if (before > INT64_MAX)
        return ERR_INPUT;
    TRY(order_open(k, partition, RD_KAFKA_ADMIN_OP_DELETERECORDS, budget_ms, cookie, &options));
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, k->topic, (int32_t)partition)->offset = (int64_t)before;
    rd_kafka_DeleteRecords_t *wanted = rd_kafka_DeleteRecords_new(list);
    rd_kafka_DeleteRecords(k->handle, &wanted, 1, options, k->answer_queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_DeleteRecords_destroy(wanted);
    rd_kafka_topic_partition_list_destroy(list);
    return OK;
}

static void fold_created(struct kafka_ask *ask, rd_kafka_event_t *event)
{
    size_t count;
    const rd_kafka_topic_result_t **topics =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
    for (size_t i = 0; i < count; i++)
        fail(ask, rd_kafka_topic_result_error(topics[i]), rd_kafka_topic_result_error_string(topics[i]));
}

static void fold_deleted(struct kafka_ask *ask, rd_kafka_event_t *event)
{
    const rd_kafka_topic_partition_list_t *list =
        rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event));
    for (int i = 0; i < list->cnt; i++) {
        fail(ask, list->elems[i].err, NULL);
        if (list->elems[i].err == RD_KAFKA_RESP_ERR_NO_ERROR && list->elems[i].offset >= 0)
            ask->offset = (uint64_t)list->elems[i].offset;
    }
}

/* ---- answers ---- */
static void fold(struct kafka_ask_part *part, rd_kafka_event_t *event)
{
    struct kafka_ask *ask = part->ask;
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    size_t count;
    const rd_kafka_ConfigResource_t **resources;
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
        fail(ask, code, rd_kafka_event_error_string(event));
        return;
    }
    switch (rd_kafka_event_type(event)) {
    case RD_KAFKA_EVENT_LISTOFFSETS_RESULT:
        fold_offsets(part, event);
        break;
    case RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT:
        fold_topic(ask, event);
        break;
    case RD_KAFKA_EVENT_CREATETOPICS_RESULT:
        fold_created(ask, event);
        break;
    case RD_KAFKA_EVENT_DELETERECORDS_RESULT:
        fold_deleted(ask, event);
        break;
    case RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT:
        resources =
            rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(event), &count);
        fold_resources(ask, resources, count);
        break;
    case RD_KAFKA_EVENT_INCREMENTALALTERCONFIGS_RESULT:
        resources = rd_kafka_IncrementalAlterConfigs_result_resources(
            rd_kafka_event_IncrementalAlterConfigs_result(event), &count);
        fold_resources(ask, resources, count);
        break;
    default:
        break;
    }
}

static void tell(struct kafka_real *k, struct kafka_ask *ask, struct kafka_event *out)
{
    out->cookie = ask->cookie;
    out->result = ask->result;
    out->partition = ask->partition;
    out->offset = ask->offset;
    out->text = ask->text;
    if (ask->kind == KAFKA_ASK_ENDS) {
        out->kind = KAFKA_EVENT_ENDS;
        out->ends.at = ask->ends;
        out->ends.count = ask->result == OK ? ask->ends_count : 0;
    } else if (ask->kind == KAFKA_ASK_TOPIC) {
        out->kind = KAFKA_EVENT_TOPIC;
        out->topic = ask->result == OK ? &ask->topic : NULL;
    } else {
        out->kind = KAFKA_EVENT_DONE;
    }
    ask->is_answered = true;
    k->told = ask;
}

/* A question that the library is through with, or whose limit has passed, leaves; the former for good. */
static bool take_finished(struct kafka_real *k, struct kafka_event *out)
{
    int64_t now_ns = io_monotonic_ns(k->io);
    for (struct kafka_ask **link = &k->asks; *link != NULL;) {
        struct kafka_ask *ask = *link;
        bool is_late = !ask->is_answered && now_ns >= ask->deadline_ns;
        bool is_due = !ask->is_answered && (ask->outstanding == 0 || is_late);
        if (is_due && ask->outstanding > 0) {
            ask->result = ERR_TIMEOUT;
            snprintf(ask->text, sizeof ask->text, "no answer in time");
        }
        if (ask->outstanding == 0) {
            *link = ask->next;
            k->ask_count--;
            if (!is_due)
                pool_block_free(k->pool, ask);
        } else {
            link = &ask->next;
        }
        if (is_due) {
            tell(k, ask, out);
            return true;
        }
    }
    return false;
}

bool kafka_take_answer(struct kafka_real *k, struct kafka_event *out)
{
    for (;;) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(k->answer_queue, 0);
        if (event == NULL)
            return take_finished(k, out);
        struct kafka_ask_part *part = rd_kafka_event_opaque(event);
        if (part != NULL) {
            if (!part->ask->is_answered)
                fold(part, event);
            part->ask->outstanding--;
        }
        rd_kafka_event_destroy(event);
    }
}
