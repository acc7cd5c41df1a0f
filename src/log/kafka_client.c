/* The real Kafka client over librdkafka: opening, closing, and the one place where events come out.
 *
 *   library's threads ─ queues: deliveries, troubles, answers, records ─ kafka_poll ─→ one event at a time
 *
 * Deliveries come first, so that a flood of records does not hold up those who wait for an answer.
 *
 * Invariants
 *   1. The library's threads touch nothing of ours but is_ready, and whoever wakes is_woken, under `lock`.
 *   2. What an event points to is kept by the field that names it (message, told, text) until the next poll. */
#include "log/kafka_client.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "log/kafka_inside.h"

struct kafka_real *kafka_real_of(struct kafka_client *client) { return (struct kafka_real *)client; }

void kafka_tell_ready(struct kafka_real *k)
{
    io_mutex_lock(&k->lock);
    k->is_ready = true;
    io_cond_signal(&k->cond);
    io_mutex_unlock(&k->lock);
}

static void wake_real(struct kafka_client *client)
{
    struct kafka_real *k = kafka_real_of(client);
    io_mutex_lock(&k->lock);
    k->is_woken = true;
    io_cond_signal(&k->cond);
    io_mutex_unlock(&k->lock);
}

static void on_queue(rd_kafka_t *handle, void *context) { kafka_tell_ready(context); }

void kafka_watch(struct kafka_real *k, rd_kafka_queue_t *queue)
{
    rd_kafka_queue_cb_event_enable(queue, on_queue, k);
}

static err err_of_server(rd_kafka_resp_err_t code)
{
    switch (code) {
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID:
        return ERR_NOT_FOUND;
    case RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS:
        return ERR_EXISTS;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
        return ERR_DENIED;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
        return ERR_LIMIT;
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
    case RD_KAFKA_RESP_ERR_INVALID_PARTITIONS:
    case RD_KAFKA_RESP_ERR_INVALID_CONFIG:
    case RD_KAFKA_RESP_ERR_INVALID_REQUEST:
    case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
        return ERR_INPUT;
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
        return ERR_ORDER;
    case RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION:
        return ERR_UNSUPPORTED;
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
        return ERR_TIMEOUT;
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
    case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS:
    case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND:
    case RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH:
    case RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH:
    case RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_CONTROLLER:
    case RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR: /* too few brokers are up: now, or ever */
        return ERR_BUSY;
    default:
        return ERR_IO;
    }
}

err kafka_err_of(rd_kafka_resp_err_t code)
{
    switch (code) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        return OK;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
        return ERR_NOT_FOUND;
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR__SSL:
        return ERR_DENIED;
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
        return ERR_TIMEOUT;
    case RD_KAFKA_RESP_ERR__INVALID_ARG:
        return ERR_INPUT;
    case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE:
        return ERR_UNSUPPORTED;
    case RD_KAFKA_RESP_ERR__PURGE_QUEUE:
    case RD_KAFKA_RESP_ERR__PURGE_INFLIGHT:
    case RD_KAFKA_RESP_ERR__FATAL:
    case RD_KAFKA_RESP_ERR__DESTROY:
        return ERR_CLOSED;
    case RD_KAFKA_RESP_ERR__QUEUE_FULL:
    case RD_KAFKA_RESP_ERR__DESTROY_BROKER: /* a bootstrap address gave way to the broker behind it */
        return ERR_BUSY;
    default:
        return code < 0 ? ERR_IO : err_of_server(code);
    }
}

bool kafka_trouble_of(struct kafka_real *k, rd_kafka_event_t *event, struct kafka_event *out)
{
    const char *facility, *text;
    int level;
    out->trouble = KAFKA_TROUBLE_OTHER;
    if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_LOG) {
        if (rd_kafka_event_log(event, &facility, &text, &level) != 0)
            return false;
        snprintf(k->text, sizeof k->text, "%s", text);
    } else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR) {
        rd_kafka_resp_err_t code = rd_kafka_event_error(event);
        if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
            out->trouble = KAFKA_TROUBLE_UNREACHABLE;
        else if (kafka_err_of(code) == ERR_DENIED)
            out->trouble = KAFKA_TROUBLE_DENIED;
        snprintf(k->text, sizeof k->text, "%s", rd_kafka_event_error_string(event));
    } else {
        return false;
    }
    out->kind = KAFKA_EVENT_TROUBLE;
    out->text = k->text;
    return true;
}

static bool take_trouble(struct kafka_real *k, struct kafka_event *out)
{
    for (;;) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(k->main_queue, 0);
        if (event == NULL)
            return false;
        bool has_told = kafka_trouble_of(k, event, out);
        rd_kafka_event_destroy(event);
        if (has_told)
            return true;
    }
}

/* What the last event pointed to. */
static void release(struct kafka_real *k)
{
    kafka_reading_release(&k->reading);
    if (k->told != NULL && k->told->outstanding == 0)
        pool_block_free(k->pool, k->told);
    k->told = NULL;
}

/* How long a wait may be before something is due that no queue tells of. */
static int64_t wait_ns(const struct kafka_real *k, int64_t now_ns, int64_t deadline_ns)
{
    int64_t until_ns = deadline_ns;
    if (k->producer.state == KAFKA_PRODUCER_PURGES && k->producer.stop_deadline_ns < until_ns)
        until_ns = k->producer.stop_deadline_ns;
    if (k->reading.checking_count > 0 && k->reading.check_ns < until_ns)
        until_ns = k->reading.check_ns;
    for (const struct kafka_ask *ask = k->asks; ask != NULL; ask = ask->next)
        if (!ask->is_answered && ask->deadline_ns < until_ns)
            until_ns = ask->deadline_ns;
    return until_ns - now_ns;
}

static err poll_real(struct kafka_client *client, int64_t budget_ms, bool with_records,
                     struct kafka_event *out_event)
{
    struct kafka_real *k = kafka_real_of(client);
    int64_t deadline_ns = io_monotonic_ns(k->io) + budget_ms * 1000000;
    release(k);
    for (;;) {
        io_mutex_lock(&k->lock);
        k->is_ready = false;
        io_mutex_unlock(&k->lock);
        struct kafka_event out = {
            .text = "", .result = OK, .offset = KAFKA_OFFSET_UNKNOWN, .leader_epoch = KAFKA_EPOCH_UNKNOWN
        };
        if (kafka_take_delivery(k, &out) || kafka_take_answer(k, &out) || take_trouble(k, &out) ||
            (with_records && kafka_take_record(k, &out))) {
            *out_event = out;
            return OK;
        }
        int64_t now_ns = io_monotonic_ns(k->io);
        io_mutex_lock(&k->lock);
        bool is_over = now_ns >= deadline_ns || k->is_woken;
        k->is_woken = k->is_woken && !is_over;
        if (!is_over && !k->is_ready)
            io_cond_wait_for(&k->cond, &k->lock, wait_ns(k, now_ns, deadline_ns));
        io_mutex_unlock(&k->lock);
        if (is_over)
            return ERR_END;
    }
}

static void close_real(struct kafka_client *client)
{
    struct kafka_real *k = kafka_real_of(client);
    check(k->producer.state == KAFKA_PRODUCER_NONE);
    release(k);
    struct kafka_reading *r = &k->reading;
    for (; r->batch_at < r->batch_count; r->batch_at++)
        if (r->batch[r->batch_at] != NULL)
            rd_kafka_message_destroy(r->batch[r->batch_at]);
    rd_kafka_queue_t *queues[] = { k->main_queue, k->answer_queue, r->queue };
    for (size_t i = 0; i < sizeof queues / sizeof *queues; i++) {
        rd_kafka_queue_cb_event_enable(queues[i], NULL, NULL);
        rd_kafka_queue_destroy(queues[i]);
    }
    rd_kafka_destroy_flags(k->handle, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    rd_kafka_conf_destroy(k->producer_conf);
    io_cond_done(&k->cond);
    io_mutex_done(&k->lock);
    pool_uncharge(k->pool, k->read_bytes_max);
    pool_close(k->pool);
}

static const struct kafka_client_calls real_calls = {
    .close = close_real,
    .poll = poll_real,
    .wake = wake_real,
    .producer_start = kafka_real_producer_start,
    .producer_stop = kafka_real_producer_stop,
    .produce = kafka_real_produce,
    .assign = kafka_real_assign,
    .unassign = kafka_real_unassign,
    .ask_ends = kafka_real_ask_ends,
    .ask_topic = kafka_real_ask_topic,
    .create_topic = kafka_real_create_topic,
    .alter_retention = kafka_real_alter_retention,
    .delete_records = kafka_real_delete_records,
};

static void open_queues(struct kafka_real *k)
{
    check(rd_kafka_set_log_queue(k->handle, NULL) == RD_KAFKA_RESP_ERR_NO_ERROR);
    k->main_queue = rd_kafka_queue_get_main(k->handle);
    k->answer_queue = rd_kafka_queue_new(k->handle);
    k->reading.queue = rd_kafka_queue_get_consumer(k->handle);
    kafka_watch(k, k->main_queue);
    kafka_watch(k, k->answer_queue);
    kafka_watch(k, k->reading.queue);
}

err kafka_client_open(const struct kafka_client_config *config, struct io *io, struct pool *pool,
                      struct kafka_client **out_client, struct err_at *at)
{
    struct pool *own;
    struct kafka_real *k;
    TRY(pool_open_object(pool, "kafka_client", sizeof *k, &own, (void **)&k));
    struct slice topic;
    rd_kafka_conf_t *conf = NULL;
    err e = OK;
    TRY_OUT(pool_copy(own, slice_str(config->topic), &topic));
    TRY_OUT(kafka_conf_make(config, true, &k->producer_conf, at));
    TRY_OUT(kafka_conf_make(config, false, &conf, at));
    TRY_OUT(pool_charge(own, config->read_bytes_max));
    k->face.calls = &real_calls;
    k->io = io;
    k->pool = own;
    k->topic = (char *)topic.at;
    k->record_bytes_max = config->record_bytes_max;
    k->send_bytes_max = config->send_bytes_max;
    k->read_bytes_max = config->read_bytes_max;
    io_mutex_init(&k->lock);
    io_cond_init(&k->cond);
    k->handle = rd_kafka_new(RD_KAFKA_CONSUMER, conf, k->text, sizeof k->text);
    if (k->handle == NULL) {
        e = err_set(at, ERR_INPUT, "%s", k->text);
        io_cond_done(&k->cond);
        io_mutex_done(&k->lock);
        pool_uncharge(own, config->read_bytes_max);
        goto out;
    }
    open_queues(k);
    *out_client = &k->face;
    return OK;
out:
    if (conf != NULL)
        rd_kafka_conf_destroy(conf);
    if (k->producer_conf != NULL)
        rd_kafka_conf_destroy(k->producer_conf);
    pool_close(own);
    return e;
}
