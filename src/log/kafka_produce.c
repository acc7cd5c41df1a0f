/* The producing half of the real Kafka client. From: kafka_produce. To: the library's producer; deliveries come
 * back as events.
 *
 * Invariants
 *   1. A cookie whose produce call returned OK is in the list of sendings until its one KAFKA_EVENT_DELIVERED.
 *   2. A sending's bytes stay until the library reported it, or until the library's object is about to be
 *      destroyed, which is when no report can come any more.
 *   3. At most one library object lives: the next is made when the threads of the one before have ended. */
#include <string.h>

#include "base/check.h"
#include "log/kafka_inside.h"

err kafka_real_producer_start(struct kafka_client *client, struct err_at *at)
{
    struct kafka_real *k = kafka_real_of(client);
    struct kafka_producer *p = &k->producer;
    if (p->state != KAFKA_PRODUCER_NONE)
        return err_set(at, ERR_BUSY, "a producer is there");
    char text[KAFKA_TEXT_BYTES_MAX];
    rd_kafka_conf_t *conf = rd_kafka_conf_dup(k->producer_conf);
    p->handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
    if (p->handle == NULL) {
        rd_kafka_conf_destroy(conf);
        return err_set(at, ERR_INPUT, "%s", text);
    }
    check(rd_kafka_set_log_queue(p->handle, NULL) == RD_KAFKA_RESP_ERR_NO_ERROR);
    p->topic = rd_kafka_topic_new(p->handle, k->topic, NULL);
    check(p->topic != NULL);
    p->queue = rd_kafka_queue_get_main(p->handle);
    kafka_watch(k, p->queue);
    p->state = KAFKA_PRODUCER_RUNS;
    return OK;
}

static void drop_sending(struct kafka_real *k, struct kafka_sending *s)
{
    struct kafka_producer *p = &k->producer;
    if (s->next != NULL)
        s->next->previous = s->previous;
    if (s->previous != NULL)
        s->previous->next = s->next;
    else
        p->sendings = s->next;
    p->sending_bytes -= s->bytes;
    pool_block_free(k->pool, s);
}

static err err_of_produce(struct kafka_producer *p)
{
    rd_kafka_resp_err_t code = rd_kafka_last_error();
    if (code == RD_KAFKA_RESP_ERR__FATAL) { /* the event follows */
        if (p->state == KAFKA_PRODUCER_RUNS)
            p->state = KAFKA_PRODUCER_FATAL;
        return ERR_CLOSED;
    }
    return kafka_err_of(code);
}

err kafka_real_produce(struct kafka_client *client, uint32_t partition, const struct slice *parts,
                       size_t part_count, uint64_t cookie)
{
    struct kafka_real *k = kafka_real_of(client);
    struct kafka_producer *p = &k->producer;
    check(partition < LOG_PARTITION_COUNT_MAX);
    if (p->state != KAFKA_PRODUCER_RUNS)
        return ERR_CLOSED;
    uint64_t len = 0;
    for (size_t i = 0; i < part_count; i++)
        len += parts[i].len;
    if (len > k->record_bytes_max)
        return ERR_LIMIT;
    size_t bytes = sizeof(struct kafka_sending) + (size_t)len;
    if (bytes > k->send_bytes_max - p->sending_bytes && p->sendings != NULL)
        return ERR_BUSY;
    struct kafka_sending *s = NULL;
    TRY(pool_block_resize(k->pool, (void **)&s, bytes));
    *s = (struct kafka_sending){
        .cookie = cookie, .partition = partition, .bytes = bytes, .next = p->sendings
    };
    if (s->next != NULL)
        s->next->previous = s;
    p->sendings = s;
    p->sending_bytes += bytes;
    size_t at = 0;
    for (size_t i = 0; i < part_count; i++) {
        if (parts[i].len > 0)
            memcpy(s->payload + at, parts[i].at, parts[i].len);
        at += parts[i].len;
    }
    if (rd_kafka_produce(p->topic, (int32_t)partition, 0, s->payload, at, NULL, 0, s) == 0)
        return OK;
    err e = err_of_produce(p);
    drop_sending(k, s);
    return e;
}

void kafka_real_producer_stop(struct kafka_client *client)
{
    struct kafka_real *k = kafka_real_of(client);
    struct kafka_producer *p = &k->producer;
    if (p->state != KAFKA_PRODUCER_RUNS && p->state != KAFKA_PRODUCER_FATAL)
        return;
    p->state = KAFKA_PRODUCER_PURGES;
    p->stop_deadline_ns = io_monotonic_ns(k->io) + (int64_t)KAFKA_STOP_MS_MAX * 1000000;
    rd_kafka_resp_err_t code = rd_kafka_purge(p->handle, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT |
                                                             RD_KAFKA_PURGE_F_NON_BLOCKING);
    check(code == RD_KAFKA_RESP_ERR_NO_ERROR);
}

static void answer(struct kafka_real *k, struct kafka_sending *s, struct kafka_event *out)
{
    out->kind = KAFKA_EVENT_DELIVERED;
    out->cookie = s->cookie;
    out->partition = s->partition;
    drop_sending(k, s);
}

/* The library takes every error that it does not know for "not persisted". Believed are those that come before
 * anything is written: its own of records that never left, and refusals of the brokers' checks. */
static bool is_before_writing(rd_kafka_resp_err_t code)
{
    switch (code) {
    case RD_KAFKA_RESP_ERR__PURGE_QUEUE:
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
    case RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS:
    case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS:
        return true;
    default:
        return false;
    }
}

/* A report of the library, in the words of kafka_client.h. */
static void answer_reported(struct kafka_real *k, const rd_kafka_message_t *message, struct kafka_event *out)
{
    answer(k, message->_private, out);
    rd_kafka_msg_status_t status = rd_kafka_message_status(message);
    if (status == RD_KAFKA_MSG_STATUS_PERSISTED && message->err == RD_KAFKA_RESP_ERR_NO_ERROR &&
        message->offset >= 0) {
        out->delivery = KAFKA_ACKED;
        out->offset = (uint64_t)message->offset;
        return;
    }
    out->result = kafka_err_of(message->err);
    out->text = rd_kafka_err2str(message->err);
    out->delivery = KAFKA_MAYBE_STORED;
    if (status == RD_KAFKA_MSG_STATUS_NOT_PERSISTED && is_before_writing(message->err))
        out->delivery = KAFKA_NOT_STORED;
    if (out->result == OK) { /* the broker knew it already, and not where: the offset is part of an ack */
        out->result = ERR_BUSY;
        out->text = "stored at an offset that the broker did not tell";
    }
}

static bool take_report(struct kafka_real *k, struct kafka_event *out)
{
    struct kafka_producer *p = &k->producer;
    if (p->reports == NULL)
        return false;
    const rd_kafka_message_t *message = rd_kafka_event_message_next(p->reports);
    if (message == NULL) {
        rd_kafka_event_destroy(p->reports);
        p->reports = NULL;
        return false;
    }
    answer_reported(k, message, out);
    return true;
}

/* The library's object ends on a thread of ours, because its threads may sit in a call of the system. */
static void reap(void *context)
{
    struct kafka_real *k = context;
    rd_kafka_destroy(k->producer.handle);
    atomic_store(&k->producer.is_reaped, true);
    kafka_tell_ready(k);
}

static void vanish(struct kafka_real *k)
{
    struct kafka_producer *p = &k->producer;
    if (p->reports != NULL)
        rd_kafka_event_destroy(p->reports);
    p->reports = NULL;
    rd_kafka_queue_cb_event_enable(p->queue, NULL, NULL);
    rd_kafka_queue_destroy(p->queue);
    rd_kafka_topic_destroy(p->topic);
    p->state = KAFKA_PRODUCER_VANISHES;
    atomic_store(&p->is_reaped, false);
    p->reaper = NULL;
    if (io_thread_start(k->io, "kafka_reaper", reap, k, &p->reaper) != OK)
        reap(k); /* no thread is to be had: wait here */
}

/* The steps of stopping that are due. */
static bool take_stop(struct kafka_real *k, struct kafka_event *out)
{
    struct kafka_producer *p = &k->producer;
    if (p->state == KAFKA_PRODUCER_PURGES && p->sendings == NULL)
        vanish(k);
    if (p->state == KAFKA_PRODUCER_PURGES && io_monotonic_ns(k->io) >= p->stop_deadline_ns) {
        /* Reports that did not come: their bytes are still the library's until its threads have ended. */
        vanish(k);
    }
    if (p->state != KAFKA_PRODUCER_VANISHES || !atomic_load(&p->is_reaped))
        return false;
    if (p->reaper != NULL)
        io_thread_join(p->reaper);
    p->reaper = NULL;
    if (p->sendings != NULL) {
        answer(k, p->sendings, out);
        out->delivery = KAFKA_MAYBE_STORED;
        out->result = ERR_CLOSED;
        out->text = "the producer was stopped";
        return true;
    }
    p->state = KAFKA_PRODUCER_NONE;
    out->kind = KAFKA_EVENT_PRODUCER_STOPPED;
    return true;
}

static bool take_error(struct kafka_real *k, rd_kafka_event_t *event, struct kafka_event *out)
{
    struct kafka_producer *p = &k->producer;
    if (rd_kafka_event_type(event) != RD_KAFKA_EVENT_ERROR ||
        (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR__FATAL && !rd_kafka_event_error_is_fatal(event)))
        return kafka_trouble_of(k, event, out);
    rd_kafka_resp_err_t code = rd_kafka_fatal_error(p->handle, k->text, sizeof k->text);
    if (p->state == KAFKA_PRODUCER_RUNS)
        p->state = KAFKA_PRODUCER_FATAL;
    out->kind = KAFKA_EVENT_PRODUCER_FATAL;
    out->result = kafka_err_of(code);
    out->text = k->text;
    return true;
}

bool kafka_take_delivery(struct kafka_real *k, struct kafka_event *out)
{
    struct kafka_producer *p = &k->producer;
    while (p->state != KAFKA_PRODUCER_NONE) {
        if (take_report(k, out) || take_stop(k, out))
            return true;
        if (p->state == KAFKA_PRODUCER_VANISHES)
            return false;
        rd_kafka_event_t *event = rd_kafka_queue_poll(p->queue, 0);
        if (event == NULL)
            return false;
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR) {
            p->reports = event;
            continue;
        }
        bool has_told = take_error(k, event, out);
        rd_kafka_event_destroy(event);
        if (has_told)
            return true;
    }
    return false;
}
