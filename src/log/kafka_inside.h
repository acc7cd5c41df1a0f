/* What the files of the real Kafka client share; kafka_client.h is its face. */
#ifndef LOG_KAFKA_INSIDE_H
#define LOG_KAFKA_INSIDE_H

#include "io/thread.h"
#include "log/kafka_client.h"

#include <librdkafka/rdkafka.h>
#include <stdatomic.h>

#define KAFKA_BATCH 64 /* records taken from the library at once */

/* A record that is not answered yet. The library borrows its bytes until it reports the record's delivery. */
struct kafka_sending {
    struct kafka_sending *next, *previous;
    uint64_t cookie;
    uint32_t partition;
    size_t bytes; /* charged: payload and overhead */
    uint8_t payload[];
};

enum kafka_producer_state {
    KAFKA_PRODUCER_NONE,
    KAFKA_PRODUCER_RUNS,
    KAFKA_PRODUCER_FATAL,    /* runs, takes nothing more */
    KAFKA_PRODUCER_PURGES,   /* cookies are being answered */
    KAFKA_PRODUCER_VANISHES, /* the library's threads end, on a thread that waits for them */
};

struct kafka_producer {
    enum kafka_producer_state state;
    rd_kafka_t *handle;
    rd_kafka_topic_t *topic;
    rd_kafka_queue_t *queue;
    rd_kafka_event_t *reports; /* deliveries not yet handed out; NULL: none */
    struct kafka_sending *sendings;
    uint64_t sending_bytes;
    int64_t stop_deadline_ns;
    struct io_thread *reaper;
    _Atomic bool is_reaped;
};

struct kafka_partition {
    bool is_assigned;
    bool is_checking; /* the epoch check is not begun: nothing is handed out yet */
    bool has_begun;   /* a record or an end was handed out */
    bool has_failed;  /* an event ended the reading */
    uint64_t offset;
    int32_t leader_epoch;
};

struct kafka_reading {
    rd_kafka_queue_t *queue;
    rd_kafka_message_t *batch[KAFKA_BATCH]; /* NULL: of a partition that was unassigned meanwhile */
    size_t batch_at, batch_count;
    rd_kafka_message_t *message; /* of the event handed out last */
    unsigned checking_count;
    int64_t check_ns; /* when to try again to begin the checks */
    struct kafka_partition partitions[LOG_PARTITION_COUNT_MAX];
};

enum kafka_ask_kind {
    KAFKA_ASK_ENDS,
    KAFKA_ASK_TOPIC,
    KAFKA_ASK_ORDER,
};

struct kafka_ask;

/* One request to the library; what it answers with leads back to the question. */
struct kafka_ask_part {
    struct kafka_ask *ask;
    bool is_start; /* of ENDS: the starts were asked for */
};

struct kafka_ask {
    struct kafka_ask *next;
    enum kafka_ask_kind kind;
    uint64_t cookie;
    uint32_t partition;
    int64_t deadline_ns;
    unsigned outstanding; /* requests that the library still has */
    bool is_answered;     /* timed out; kept because the library still has its address */
    err result;
    uint64_t offset;
    char text[KAFKA_TEXT_BYTES_MAX];
    struct kafka_ask_part parts[2];
    struct kafka_topic topic;
    size_t ends_count;
    struct kafka_ends ends[];
};

struct kafka_real {
    struct kafka_client face;
    struct io *io;
    struct pool *pool;
    char *topic;
    uint32_t record_bytes_max;
    uint64_t send_bytes_max, read_bytes_max;
    rd_kafka_conf_t *producer_conf; /* copied for each producer */
    rd_kafka_t *handle;             /* the consumer; questions go through it, too */
    rd_kafka_queue_t *main_queue;   /* its troubles */
    rd_kafka_queue_t *answer_queue;
    struct kafka_ask *asks;
    unsigned ask_count;
    struct kafka_ask *told; /* of the event handed out last */
    char text[2 * KAFKA_TEXT_BYTES_MAX];
    struct kafka_producer producer;
    struct kafka_reading reading;
    struct io_mutex lock; /* a leaf; nothing else is shared with other threads */
    struct io_cond cond;
    bool is_ready; /* the library's threads say that a queue is not empty any more */
    bool is_woken; /* somebody wants the poll to end */
};

#define KAFKA_DEAD_MS 3500 /* of a broker's host: nothing that was sent is acknowledged for so long */

/* kafka_conf.c: settings of the two library objects. */
err kafka_conf_make(const struct kafka_client_config *config, bool is_producer, rd_kafka_conf_t **out_conf,
                    struct err_at *at);

/* kafka_client.c */
struct kafka_real *kafka_real_of(struct kafka_client *client);
void kafka_tell_ready(struct kafka_real *k);
void kafka_watch(struct kafka_real *k, rd_kafka_queue_t *queue); /* a record in it ends a wait */
err kafka_err_of(rd_kafka_resp_err_t code);
/* Events of a library object that only people care for; false: none came of it. */
bool kafka_trouble_of(struct kafka_real *k, rd_kafka_event_t *event, struct kafka_event *out);

/* kafka_produce.c */
err kafka_real_producer_start(struct kafka_client *client, struct err_at *at);
void kafka_real_producer_stop(struct kafka_client *client);
err kafka_real_produce(struct kafka_client *client, uint32_t partition, const struct slice *parts,
                       size_t part_count, uint64_t cookie);
bool kafka_take_delivery(struct kafka_real *k, struct kafka_event *out);

/* kafka_read.c */
err kafka_real_assign(struct kafka_client *client, uint32_t partition, uint64_t offset, int32_t leader_epoch);
void kafka_real_unassign(struct kafka_client *client, uint32_t partition);
bool kafka_take_record(struct kafka_real *k, struct kafka_event *out);
void kafka_reading_release(struct kafka_reading *reading);

/* kafka_admin.c */
err kafka_real_ask_ends(struct kafka_client *client, const uint32_t *partitions, size_t count,
                        int64_t budget_ms, uint64_t cookie);
err kafka_real_ask_topic(struct kafka_client *client, int64_t budget_ms, uint64_t cookie);
err kafka_real_create_topic(struct kafka_client *client, const struct kafka_new_topic *topic,
                            int64_t budget_ms, uint64_t cookie);
err kafka_real_alter_retention(struct kafka_client *client, int64_t retention_ms, int64_t budget_ms,
                               uint64_t cookie);
err kafka_real_delete_records(struct kafka_client *client, uint32_t partition, uint64_t before,
                              int64_t budget_ms, uint64_t cookie);
bool kafka_take_answer(struct kafka_real *k, struct kafka_event *out);

#endif
