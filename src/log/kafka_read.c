/* The reading half of the real Kafka client. From: the library's consumer, which fetches ahead into one bounded
 * queue. To: events in offset order per partition.
 *
 *   assign ─→ library assigns ─(epoch known)→ seek to the same place ─→ epoch check by the library ─→ records
 *
 * The seek is there because the library checks the epoch of a position when it is sought, not when it is
 * assigned (its issue 5158). Until the seek is taken nothing of the partition is handed out; taking it, the
 * library drops what it has.
 *
 * Invariants
 *   1. A partition that is not assigned has no event, whatever the library still holds of it.
 *   2. After an event that ends the reading nothing more comes of the partition until it is assigned again. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "log/kafka_inside.h"

#define CHECK_RETRY_NS INT64_C(20000000)
#define SEEK_MS        50 /* the library's main thread answers from memory */

static rd_kafka_topic_partition_list_t *list_of(struct kafka_real *k, uint32_t partition)
{
    const struct kafka_partition *at = &k->reading.partitions[partition];
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_t *one = rd_kafka_topic_partition_list_add(list, k->topic, (int32_t)partition);
    one->offset = (int64_t)at->offset;
    if (at->leader_epoch >= 0)
        rd_kafka_topic_partition_set_leader_epoch(one, at->leader_epoch);
    return list;
}

/* What the library already gave of a partition. */
static void drop_batch(struct kafka_reading *r, uint32_t partition)
{
    for (size_t i = r->batch_at; i < r->batch_count; i++) {
        if (r->batch[i] != NULL && r->batch[i]->partition == (int32_t)partition) {
            rd_kafka_message_destroy(r->batch[i]);
            r->batch[i] = NULL;
        }
    }
}

err kafka_real_assign(struct kafka_client *client, uint32_t partition, uint64_t offset, int32_t leader_epoch)
{
    struct kafka_real *k = kafka_real_of(client);
    check(partition < LOG_PARTITION_COUNT_MAX);
    struct kafka_partition *at = &k->reading.partitions[partition];
    if (at->is_assigned)
        return ERR_EXISTS;
    if (offset > INT64_MAX || leader_epoch < KAFKA_EPOCH_UNKNOWN)
        return ERR_INPUT;
    bool is_checking = leader_epoch >= 0 && offset > 0;
    *at = (struct kafka_partition){ .offset = offset, .leader_epoch = leader_epoch };
    rd_kafka_topic_partition_list_t *list = list_of(k, partition);
    rd_kafka_error_t *error = rd_kafka_incremental_assign(k->handle, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (error != NULL) {
        rd_kafka_error_destroy(error);
        return ERR_INPUT;
    }
    at->is_assigned = true;
    at->is_checking = is_checking;
    k->reading.checking_count += is_checking;
    return OK;
}

void kafka_real_unassign(struct kafka_client *client, uint32_t partition)
{
    struct kafka_real *k = kafka_real_of(client);
    check(partition < LOG_PARTITION_COUNT_MAX);
    struct kafka_partition *at = &k->reading.partitions[partition];
    if (!at->is_assigned)
        return;
    rd_kafka_topic_partition_list_t *list = list_of(k, partition);
    rd_kafka_error_t *error = rd_kafka_incremental_unassign(k->handle, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (error != NULL)
        rd_kafka_error_destroy(error);
    k->reading.checking_count -= at->is_checking;
    at->is_assigned = at->is_checking = false;
    drop_batch(&k->reading, partition);
}

/* Begin the epoch checks that wait: the library refuses while the partition's former reading is ending. */
static void begin_checks(struct kafka_real *k)
{
    struct kafka_reading *r = &k->reading;
    int64_t now_ns = io_monotonic_ns(k->io);
    if (r->checking_count == 0 || now_ns < r->check_ns)
        return;
    r->check_ns = now_ns + CHECK_RETRY_NS;
    for (uint32_t p = 0; p < LOG_PARTITION_COUNT_MAX; p++) {
        if (!r->partitions[p].is_checking)
            continue;
        rd_kafka_topic_partition_list_t *list = list_of(k, p);
        rd_kafka_error_t *error = rd_kafka_seek_partitions(k->handle, list, SEEK_MS);
        if (error == NULL && list->elems[0].err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            r->partitions[p].is_checking = false;
            r->checking_count--;
            drop_batch(r, p);
        }
        if (error != NULL)
            rd_kafka_error_destroy(error);
        rd_kafka_topic_partition_list_destroy(list);
    }
}

/* "… truncation detected at offset 15 (leader epoch 1): broker end offset is 10 (offset leader epoch 0) …": the
 * library tells these numbers in its text alone. A test holds this against the library that is linked. */
static int64_t read_truncation(const char *text, struct kafka_event *out)
{
    static const char place[] = "at offset ", end[] = "broker end offset is ";
    long long offset;
    int epoch;
    const char *at = strstr(text, end);
    out->truncated.end_offset = KAFKA_OFFSET_UNKNOWN;
    out->truncated.end_epoch = KAFKA_EPOCH_UNKNOWN;
    if (at != NULL && sscanf(at + sizeof end - 1, "%lld (offset leader epoch %d)", &offset, &epoch) == 2 &&
        offset >= 0 && epoch >= 0) {
        out->truncated.end_offset = (uint64_t)offset;
        out->truncated.end_epoch = epoch;
    }
    at = strstr(text, place);
    return at != NULL && sscanf(at + sizeof place - 1, "%lld", &offset) == 1 ? offset : -1;
}

/* The log does not have what comes next, says a leader. The library may say it twice of one place, and the
 * second time when the partition is read from another one already; only what it says of the place that is read
 * counts. */
static bool tell_lost(struct kafka_partition *at, const rd_kafka_message_t *message, struct kafka_event *out)
{
    int64_t offset = message->offset;
    out->kind = KAFKA_EVENT_OUT_OF_RANGE;
    if (strstr(out->text, rd_kafka_err2str(RD_KAFKA_RESP_ERR__LOG_TRUNCATION)) != NULL) {
        out->kind = KAFKA_EVENT_TRUNCATED;
        int64_t place = read_truncation(out->text, out);
        offset = offset < 0 ? place : offset;
    }
    if (!at->has_begun && offset >= 0 && offset != (int64_t)at->offset)
        return false;
    at->has_failed = true;
    return true;
}

static bool tell_trouble(struct kafka_real *k, const rd_kafka_message_t *message, struct kafka_event *out)
{
    out->kind = KAFKA_EVENT_TROUBLE;
    out->trouble = kafka_err_of(message->err) == ERR_DENIED ? KAFKA_TROUBLE_DENIED : KAFKA_TROUBLE_OTHER;
    snprintf(k->text, sizeof k->text, "%s", rd_kafka_message_errstr(message));
    out->text = k->text;
    return true;
}

static bool tell_error(struct kafka_real *k, const rd_kafka_message_t *message, struct kafka_event *out)
{
    if (message->partition < 0) /* the coordinator of a group that nobody joins, … */
        return tell_trouble(k, message, out);
    struct kafka_partition *at = &k->reading.partitions[message->partition];
    out->partition = (uint32_t)message->partition;
    out->offset = at->offset;
    snprintf(k->text, sizeof k->text, "%s", rd_kafka_message_errstr(message));
    out->text = k->text;
    switch (message->err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        out->kind = KAFKA_EVENT_PARTITION_END;
        out->offset = (uint64_t)message->offset;
        out->text = "";
        at->has_begun = true;
        return true;
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR__LOG_TRUNCATION:
        return tell_lost(at, message, out);
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
        return tell_trouble(k, message, out); /* tried again inside */
    default:
        out->kind = KAFKA_EVENT_READ_FAILED;
        out->result = kafka_err_of(message->err);
        break;
    }
    at->has_failed = true;
    return true;
}

/* False: nothing that is to be told. */
static bool tell(struct kafka_real *k, const rd_kafka_message_t *message, struct kafka_event *out)
{
    if (message->partition >= (int32_t)LOG_PARTITION_COUNT_MAX)
        return false;
    if (message->partition >= 0) {
        const struct kafka_partition *at = &k->reading.partitions[message->partition];
        if (!at->is_assigned || at->is_checking || at->has_failed)
            return false;
    }
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
        return tell_error(k, message, out);
    rd_kafka_timestamp_type_t type;
    out->kind = KAFKA_EVENT_RECORD;
    out->partition = (uint32_t)message->partition;
    out->offset = (uint64_t)message->offset;
    out->leader_epoch = rd_kafka_message_leader_epoch(message);
    out->record.bytes = slice_of(message->payload, message->len);
    out->record.t_ms = rd_kafka_message_timestamp(message, &type);
    out->record.is_append_time = type == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME;
    k->reading.partitions[message->partition].offset = out->offset + 1;
    k->reading.partitions[message->partition].has_begun = true;
    return true;
}

bool kafka_take_record(struct kafka_real *k, struct kafka_event *out)
{
    struct kafka_reading *r = &k->reading;
    begin_checks(k);
    for (;;) {
        while (r->batch_at < r->batch_count) {
            rd_kafka_message_t *message = r->batch[r->batch_at++];
            if (message != NULL && tell(k, message, out)) {
                r->message = message;
                return true;
            }
            if (message != NULL)
                rd_kafka_message_destroy(message);
        }
        r->batch_at = r->batch_count = 0;
        ssize_t count = rd_kafka_consume_batch_queue(r->queue, 0, r->batch, KAFKA_BATCH);
        if (count <= 0)
            return false;
        r->batch_count = (size_t)count;
    }
}

void kafka_reading_release(struct kafka_reading *r)
{
    if (r->message != NULL)
        rd_kafka_message_destroy(r->message);
    r->message = NULL;
}
