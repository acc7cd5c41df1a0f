/* Creating the topic of a log. See log_kafka.h.
 *
 * One question or order at a time goes to the client, which belongs to the caller meanwhile; what cannot be
 * answered now (brokers that have just started do not know of each other) is asked again until the budget is
 * spent.
 *
 * Invariant: a topic is created only after a broker said that there is none. */
#include "log/log_kafka.h"

#include "base/time.h"

#include <stdio.h>

#define PAUSE_MS 200

/* What is asked of the brokers, by when, and what the last answer said. */
struct creation {
    struct kafka_client *client;
    struct io *io;
    int64_t end_ns;
    uint64_t cookie;
    err result;
    char text[KAFKA_TEXT_BYTES_MAX];
};

static int64_t left_ms(const struct creation *c) { return (c->end_ns - io_boottime_ns(c->io)) / NS_PER_MS; }

static int64_t ask_ms(const struct creation *c)
{
    int64_t left = left_ms(c);
    return left < 1 ? 1 : left < LOG_KAFKA_ASK_MS ? left : LOG_KAFKA_ASK_MS;
}

/* The answer to the last question, or ERR_TIMEOUT. */
static err answer(struct creation *c)
{
    struct kafka_event event;
    int64_t end_ns = io_boottime_ns(c->io) + ask_ms(c) * NS_PER_MS;
    for (int64_t left; (left = (end_ns - io_boottime_ns(c->io)) / NS_PER_MS) > 0;) {
        err e = kafka_poll(c->client, left, false, &event);
        if (e == ERR_END)
            continue;
        TRY(e);
        bool is_answer = event.kind == KAFKA_EVENT_TOPIC || event.kind == KAFKA_EVENT_DONE;
        bool is_ours = is_answer && event.cookie == c->cookie;
        if (event.kind == KAFKA_EVENT_TROUBLE || (is_ours && event.result != OK))
            snprintf(c->text, sizeof c->text, "%s", event.text);
        if (is_ours)
            return event.result;
    }
    return ERR_TIMEOUT;
}

/* Is it there? OK, ERR_NOT_FOUND, or why that is not known. */
static err look(struct creation *c)
{
    TRY(kafka_ask_topic(c->client, ask_ms(c), ++c->cookie));
    return answer(c);
}

static err order(struct creation *c, const struct kafka_new_topic *wanted)
{
    TRY(kafka_create_topic(c->client, wanted, ask_ms(c), ++c->cookie));
    err e = answer(c);
    return e == ERR_EXISTS ? OK : e;
}

/* Would the same order get the same answer? */
static bool is_final(err e) { return e == ERR_INPUT || e == ERR_DENIED || e == ERR_LIMIT; }

static err create(struct creation *c, const struct kafka_new_topic *wanted)
{
    err e = ERR_TIMEOUT;
    while (left_ms(c) > 0) {
        e = look(c);
        if (e == OK)
            return OK;
        if (e == ERR_NOT_FOUND)
            e = order(c, wanted);
        if (is_final(e))
            return e;
        io_sleep_ns(c->io,
                    PAUSE_MS * NS_PER_MS); /* and when it was created: a new topic takes a moment to spread */
    }
    return e == OK || e == ERR_BUSY ? ERR_TIMEOUT : e;
}

err log_kafka_find(int64_t budget_ms, struct kafka_client *client, struct io *io, struct err_at *at)
{
    struct creation c = { .client = client, .io = io, .end_ns = io_boottime_ns(io) + budget_ms * NS_PER_MS };
    while (left_ms(&c) > 0) {
        err e = look(&c);
        if (e == OK || e == ERR_NOT_FOUND || is_final(e))
            return is_final(e) ? err_set(at, e, "%s", c.text[0] != 0 ? c.text : err_text(e)) : e;
        io_sleep_ns(io, PAUSE_MS * NS_PER_MS);
    }
    return err_set(at, ERR_TIMEOUT, "no broker says whether the topic is there%s%s",
                   c.text[0] != 0 ? ": " : "", c.text);
}

err log_kafka_create(const struct log_kafka_config *config, uint32_t replica_count, int64_t retention_ms,
                     int64_t budget_ms, struct kafka_client *client, struct io *io, struct err_at *at)
{
    char bytes_max[16], retention[24];
    snprintf(bytes_max, sizeof bytes_max, "%u", LOG_RECORD_BYTES_MAX + KAFKA_RECORD_OVERHEAD);
    snprintf(retention, sizeof retention, "%lld", config->is_control ? -1 : (long long)retention_ms);
    const struct kafka_config_pair configs[] = {
        { "cleanup.policy", "delete" },
        { "retention.ms", retention },
        { "retention.bytes", "-1" },
        { "min.insync.replicas", replica_count > 1 ? "2" : "1" },
        { "unclean.leader.election.enable", "false" },
        { "max.message.bytes", bytes_max },
        { "message.timestamp.type", "LogAppendTime" },
    };
    const struct kafka_new_topic wanted = { config->partition_count, replica_count, configs,
                                            sizeof configs / sizeof configs[0] };
    struct creation c = { .client = client, .io = io, .end_ns = io_boottime_ns(io) + budget_ms * NS_PER_MS };
    err e = create(&c, &wanted);
    return e == OK ? OK
                   : err_set(at, e, "the topic cannot be created: %s%s%s", err_text(e),
                             c.text[0] != 0 ? ": " : "", c.text);
}
