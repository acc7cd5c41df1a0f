/* A thin client of one Kafka topic: calls go in, events come out, nothing is decided here.
 *
 * The driver's state machine (positions, continuity, what to resend, when a log went back) stands on this table
 * of functions and sees no library below it; simulation puts brokers of its own behind the same table. The real
 * row is kafka_client_open, over librdkafka (docs/decisions/0012-kafka-client.md).
 *
 * Owner: one thread makes all calls of a client, kafka_poll too; kafka_wake comes from any thread. No call but
 * close waits for the network.
 * Strings and slices passed in are borrowed during the call. Somebody polls at least every second: what the
 * library has to say to people waits for it without a bound.
 *
 * WHAT THE LIBRARY PROMISES AND WHAT NOT. The driver must rest on nothing else.
 *   1. KAFKA_ACKED: all in-sync replicas have the record at `offset`. It says nothing about a log that goes
 *      back later, and it may be told for a leader that lost its office: compare the offset with the last
 *      acknowledged one.
 *   2. KAFKA_NOT_STORED: on every attempt the record did not leave this machine in a complete request, or a
 *      broker refused it with an error that brokers give before they write. The library calls more records so;
 *      what it calls so after any other error is KAFKA_MAYBE_STORED here.
 *   3. KAFKA_MAYBE_STORED: unknown, and not yet final: a request that lies in the socket of a paused broker is
 *      carried out when the broker goes on, also after producer_stop, and also behind records of the next
 *      producer. Only a reader can tell, and only readers that know records by (producer, sequence) make them
 *      count once.
 *   4. Idempotence is of one producer between two changes of its id. The library changes the id by itself after
 *      some errors; a record sent before and again after is then twice in the log, acknowledged once. So a
 *      reader sees records twice even without any KAFKA_MAYBE_STORED; two offsets for one acknowledged record
 *      are possible.
 *   5. Order within a partition: by produce call as long as nothing fails. After a failed record the later ones
 *      are still sent.
 *   6. Events of a partition come in offset order from assign to unassign, without gaps that the log does not
 *      have; but logs have gaps (control records, records removed): compare offsets, never count.
 *   7. KAFKA_EVENT_OUT_OF_RANGE is one leader's word. A leader that was paused and goes on says it for offsets
 *      that it does not know yet. The same holds for ends: see kafka_ask_ends.
 *   8. The epoch check (KIP-320): the library has no public call for OffsetsForLeaderEpoch. It makes that
 *      request itself when a partition is assigned with (offset, leader epoch of the record before it), and at
 *      each change of leader while reading. Divergence ends the reading with KAFKA_EVENT_TRUNCATED; the first
 *      RECORD or PARTITION_END after an assign with an epoch means that the check passed. Until a leader
 *      answers there is no event at all. Brokers older than 2.1 cannot be asked, and the library then skips the
 *      check without a word.
 *   9. Errors that pass (leaders move, brokers are away) are retried inside and show as KAFKA_EVENT_TROUBLE at
 *      most. */
#ifndef LOG_KAFKA_CLIENT_H
#define LOG_KAFKA_CLIENT_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "io/io.h"
#include "log/log.h"

#include <stdbool.h>
#include <stdint.h>

#define KAFKA_OFFSET_UNKNOWN  UINT64_MAX
#define KAFKA_EPOCH_UNKNOWN   (-1)
#define KAFKA_ASKS_MAX        64 /* questions and orders that are not answered; beyond: ERR_BUSY */
#define KAFKA_TEXT_BYTES_MAX  256
#define KAFKA_STOP_MS_MAX     3000 /* from producer_stop until every cookie is answered */
#define KAFKA_CONFIGS_MAX     16   /* settings of a topic to be created */
#define KAFKA_REPLICAS_MAX    32
#define KAFKA_RECORD_OVERHEAD 1024 /* bytes of a record's frame and batch in a request, generously */

/* All strings are borrowed during open. PEM texts are contents, not paths. */
struct kafka_client_config {
    const char *bootstrap; /* "host:port,host:port" */
    const char *topic;
    const char *client_id;
    enum kafka_security security;
    enum kafka_mechanism mechanism; /* with SASL */
    const char *user, *password;    /* with SASL */
    const char *ca_pem;             /* with TLS; NULL: the system's */
    const char *cert_pem, *key_pem; /* of this client; NULL: none */
    const char *key_password;       /* NULL: none */
    bool insecure_skip_verify;      /* accept any certificate of a broker */
    uint32_t record_bytes_max;      /* > 0; larger records are refused here */
    uint64_t send_bytes_max;        /* of records not answered, ≥ record_bytes_max; beyond: ERR_BUSY */
    uint64_t read_bytes_max;    /* of records fetched and not polled, at least 1 MiB; see docs/limits.md */
    uint32_t linger_ms;         /* how long records wait for others to share a request */
    uint32_t socket_timeout_ms; /* of one request; 5,000 … 10,000: a frozen leader is given up after it */
    uint32_t delivery_ms_max;   /* from produce to the answer at the latest, ≥ socket_timeout_ms */
};

enum kafka_delivery {
    KAFKA_ACKED,
    KAFKA_NOT_STORED,
    KAFKA_MAYBE_STORED,
};

enum kafka_trouble {
    KAFKA_TROUBLE_OTHER,
    KAFKA_TROUBLE_UNREACHABLE, /* no broker can be reached now */
    KAFKA_TROUBLE_DENIED,      /* credentials, certificates or rights are refused */
};

/* The ends of a partition as its leader told them. */
struct kafka_ends {
    uint32_t partition;
    err result;            /* of this partition; the rest counts only with OK */
    uint64_t start_offset; /* oldest record, or the end of an empty log */
    uint64_t end_offset;   /* high watermark: offset of the next record to be committed */
    int32_t leader_epoch;  /* of the leader that gave the end; KAFKA_EPOCH_UNKNOWN: an old broker */
};

struct kafka_topic {
    uint8_t id[16]; /* big-endian, as the broker has it; all zero: an old broker */
    uint32_t partition_count;
    uint32_t replica_count_min; /* of the partition with the fewest */
    uint32_t isr_count_min;     /* replicas in sync now, of the partition with the fewest */
    uint32_t leaderless_count;  /* partitions that have no leader now */
    /* Settings in force, the brokers' defaults included. */
    int64_t min_insync_replicas; /* −1: not told */
    int64_t retention_ms;        /* −1: for ever */
    int64_t retention_bytes;     /* −1: unbounded */
    int64_t max_message_bytes;
    bool unclean_election;
    bool is_compacted;   /* cleanup.policy contains compact */
    bool is_deleted;     /* cleanup.policy contains delete */
    bool is_append_time; /* message.timestamp.type is LogAppendTime */
};

enum kafka_event_kind {
    KAFKA_EVENT_DELIVERED,        /* answers a produce, exactly once */
    KAFKA_EVENT_PRODUCER_FATAL,   /* this producer takes nothing more: stop it, start another */
    KAFKA_EVENT_PRODUCER_STOPPED, /* every cookie is answered; a new one may be started */
    KAFKA_EVENT_RECORD,
    KAFKA_EVENT_PARTITION_END, /* nothing behind `offset` for now; once each time the end is reached */
    KAFKA_EVENT_OUT_OF_RANGE,  /* the partition is not read on: unassign it; see promise 7 */
    KAFKA_EVENT_TRUNCATED,     /* the same; the epoch check failed */
    KAFKA_EVENT_READ_FAILED,   /* the same; result and text say why (no right to read; no such partition,
                                  told after half a minute, in which a new topic may spread) */
    KAFKA_EVENT_ENDS,          /* answers ask_ends */
    KAFKA_EVENT_TOPIC,         /* answers ask_topic */
    KAFKA_EVENT_DONE,          /* answers create_topic, alter_retention, delete_records */
    KAFKA_EVENT_TROUBLE,       /* for people, never for decisions */
};

/* What is pointed to is borrowed until the next kafka_poll or close. */
struct kafka_event {
    enum kafka_event_kind kind;
    uint64_t cookie;    /* DELIVERED, ENDS, TOPIC, DONE: of the call */
    uint32_t partition; /* DELIVERED, RECORD … READ_FAILED, DONE of delete_records */
    err result;         /* DELIVERED that was not acked, READ_FAILED, ENDS, TOPIC, DONE: why */
    const char *text;   /* the same for people, never NULL, no secret */
    /* KAFKA_ACKED: the record's. RECORD: its own. PARTITION_END: the next. OUT_OF_RANGE, TRUNCATED: the one
     * that was next. DONE of delete_records: the new start. Else unknown. */
    uint64_t offset;
    int32_t leader_epoch; /* RECORD: of its batch */
    union {
        enum kafka_delivery delivery;
        enum kafka_trouble trouble;
        struct {
            struct slice bytes;
            int64_t t_ms;        /* of the topic's kind: append time or the producer's clock */
            bool is_append_time; /* the broker's clock */
        } record;
        struct {
            uint64_t end_offset; /* below it the log agrees with the epoch asked for; may be unknown */
            int32_t end_epoch;   /* highest epoch there that is not above that one */
        } truncated;
        struct {
            const struct kafka_ends *at; /* with OK; in the order asked for */
            size_t count;
        } ends;
        const struct kafka_topic *topic; /* with OK */
    };
};

/* One setting by Kafka's name for it, as brokers tell it and as one orders it. ERR_NOT_FOUND: not one of those
 * above; ERR_INPUT: the value is none of its kind, and the topic stays as it was. */
err kafka_topic_set(struct kafka_topic *topic, const char *name, const char *value);

struct kafka_config_pair {
    const char *name, *value;
};

struct kafka_new_topic {
    uint32_t partition_count;
    uint32_t replica_count;
    const struct kafka_config_pair *configs;
    size_t config_count; /* ≤ KAFKA_CONFIGS_MAX */
};

struct kafka_client;

/* The table. Each function has the contract of the kafka_… call of its name below. */
struct kafka_client_calls {
    void (*close)(struct kafka_client *client);
    err (*poll)(struct kafka_client *client, int64_t budget_ms, bool with_records,
                struct kafka_event *out_event);
    void (*wake)(struct kafka_client *client);
    err (*producer_start)(struct kafka_client *client, struct err_at *at);
    void (*producer_stop)(struct kafka_client *client);
    err (*produce)(struct kafka_client *client, uint32_t partition, const struct slice *parts,
                   size_t part_count, uint64_t cookie);
    err (*assign)(struct kafka_client *client, uint32_t partition, uint64_t offset, int32_t leader_epoch);
    void (*unassign)(struct kafka_client *client, uint32_t partition);
    err (*ask_ends)(struct kafka_client *client, const uint32_t *partitions, size_t count, int64_t budget_ms,
                    uint64_t cookie);
    err (*ask_topic)(struct kafka_client *client, int64_t budget_ms, uint64_t cookie);
    err (*create_topic)(struct kafka_client *client, const struct kafka_new_topic *topic, int64_t budget_ms,
                        uint64_t cookie);
    err (*alter_retention)(struct kafka_client *client, int64_t retention_ms, int64_t budget_ms,
                           uint64_t cookie);
    err (*delete_records)(struct kafka_client *client, uint32_t partition, uint64_t before, int64_t budget_ms,
                          uint64_t cookie);
};

/* First member of each row's own struct. */
struct kafka_client {
    const struct kafka_client_calls *calls;
};

/* Open the row over librdkafka: connects in the background, nothing is known about the brokers yet. The pool is
 * charged read_bytes_max. Errors ERR_INPUT (a setting is refused; `at` says which), ERR_LIMIT. */
err kafka_client_open(const struct kafka_client_config *config, struct io *io, struct pool *pool,
                      struct kafka_client **out_client, struct err_at *at);

/* The producer was never started or is stopped (a failed check otherwise, because cookies would stay
 * unanswered). Unanswered questions are dropped. Waits for the library's threads: below a second, or as long as
 * the resolver takes for a name. NULL is allowed. */
static inline void kafka_client_close(struct kafka_client *client)
{
    if (client != NULL)
        client->calls->close(client);
}

/* The next event, waiting up to budget_ms for one. Without with_records records and what belongs to reading
 * stay where they are, bounded by read_bytes_max, and the rest comes nevertheless: for a driver whose readers
 * are behind. ERR_END: none came. */
static inline err kafka_poll(struct kafka_client *client, int64_t budget_ms, bool with_records,
                             struct kafka_event *out_event)
{
    return client->calls->poll(client, budget_ms, with_records, out_event);
}

/* Let the poll that waits, or else the next one that would, end at once. From any thread, until close begins; may
 * be called under a lock of the caller's. */
static inline void kafka_wake(struct kafka_client *client) { client->calls->wake(client); }

/* Start a producer, idempotent and with acks=all. One at a time: ERR_BUSY while one is not stopped yet. */
static inline err kafka_producer_start(struct kafka_client *client, struct err_at *at)
{
    return client->calls->producer_start(client, at);
}

/* Give up what is queued and in flight. Each cookie is answered within KAFKA_STOP_MS_MAX of polling, then comes
 * KAFKA_EVENT_PRODUCER_STOPPED. A second call, or one without a producer, does nothing. */
static inline void kafka_producer_stop(struct kafka_client *client) { client->calls->producer_stop(client); }

/* Queue a record, the parts one after the other, for a partition; they are copied. With OK the cookie is
 * answered once by KAFKA_EVENT_DELIVERED, within delivery_ms_max and a second. Otherwise nothing was queued:
 * ERR_LIMIT larger than record_bytes_max; ERR_BUSY over send_bytes_max; ERR_CLOSED no producer runs, or it had
 * a fatal error; ERR_NOT_FOUND the topic has no such partition (a topic not yet known: told by DELIVERED). */
static inline err kafka_produce(struct kafka_client *client, uint32_t partition, const struct slice *parts,
                                size_t part_count, uint64_t cookie)
{
    return client->calls->produce(client, partition, parts, part_count, cookie);
}

/* Read the partition from `offset`, whatever it is, never from elsewhere. leader_epoch: of the record at offset
 * − 1, for the epoch check; KAFKA_EPOCH_UNKNOWN: no check. ERR_EXISTS it is being read; ERR_INPUT. */
static inline err kafka_assign(struct kafka_client *client, uint32_t partition, uint64_t offset,
                               int32_t leader_epoch)
{
    return client->calls->assign(client, partition, offset, leader_epoch);
}

/* No event of reading the partition comes after this. Not assigned: does nothing. */
static inline void kafka_unassign(struct kafka_client *client, uint32_t partition)
{
    client->calls->unassign(client, partition);
}

/* Questions and orders are answered exactly once, with ERR_TIMEOUT at the latest after budget_ms of polling; an
 * order that timed out may still be carried out. ERR_BUSY over KAFKA_ASKS_MAX, ERR_LIMIT, ERR_INPUT: not asked.
 * An answer of ERR_BUSY says: ask again. The connection went away meanwhile, and an order may have been carried
 * out.
 *
 * Each partition of ask_ends is answered by whom the library takes for its leader. A leader that was paused and
 * goes on tells an old end for some 100 ms, with an old epoch: believe no end whose leader_epoch is below the
 * highest one seen for the partition, nor one below an end seen or acknowledged in it, until the log is known
 * to have gone back. */
static inline err kafka_ask_ends(struct kafka_client *client, const uint32_t *partitions, size_t count,
                                 int64_t budget_ms, uint64_t cookie)
{
    return client->calls->ask_ends(client, partitions, count, budget_ms, cookie);
}

/* ERR_NOT_FOUND: there is no such topic (as far as the broker asked knows; a new topic takes a moment to
 * spread). */
static inline err kafka_ask_topic(struct kafka_client *client, int64_t budget_ms, uint64_t cookie)
{
    return client->calls->ask_topic(client, budget_ms, cookie);
}

/* ERR_EXISTS: it is there, with whatever settings. ERR_INPUT: the broker refuses a setting or the counts. */
static inline err kafka_create_topic(struct kafka_client *client, const struct kafka_new_topic *topic,
                                     int64_t budget_ms, uint64_t cookie)
{
    return client->calls->create_topic(client, topic, budget_ms, cookie);
}

/* Set retention.ms of the topic and leave its other settings alone. */
static inline err kafka_alter_retention(struct kafka_client *client, int64_t retention_ms, int64_t budget_ms,
                                        uint64_t cookie)
{
    return client->calls->alter_retention(client, retention_ms, budget_ms, cookie);
}

/* Let the broker delete the partition's records below `before`. ERR_ORDER: `before` is above the end. */
static inline err kafka_delete_records(struct kafka_client *client, uint32_t partition, uint64_t before,
                                       int64_t budget_ms, uint64_t cookie)
{
    return client->calls->delete_records(client, partition, before, budget_ms, cookie);
}

#endif
