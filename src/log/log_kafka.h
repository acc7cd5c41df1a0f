/* The Kafka driver of the log: a state machine on kafka_client.h. docs/decisions/0013-log-on-kafka.md. */
#ifndef LOG_LOG_KAFKA_H
#define LOG_LOG_KAFKA_H

#include "io/thread.h"
#include "log/kafka_client.h"
#include "log/log_driver.h"

#define LOG_KAFKA_HEAD_BYTES       20
#define LOG_KAFKA_MAGIC            UINT32_C(0x4b4c504b) /* "KPLK" */
#define LOG_KAFKA_HOLE_TRIES       3
#define LOG_KAFKA_RESEND_MS        50
#define LOG_KAFKA_RETRY_MS         500
#define LOG_KAFKA_ENDS_MS          1000 /* between two questions for the ends */
#define LOG_KAFKA_ASK_MS           5000 /* an answer comes, or the question is asked again */
#define LOG_KAFKA_RETENTION_MIN_MS (INT64_C(24) * 3600 * 1000)

struct log_kafka_config {
    uint8_t cluster_id[16];
    uint32_t partition_count;
    uint64_t queue_bytes_max; /* of appends not answered; beyond: ERR_BUSY at once */
    uint64_t tail_bytes_max;  /* of records read ahead, all partitions */
    int64_t delivery_ms_max;  /* an append is answered by then, give or take one request's time */
    bool accept_weak_topic;   /* settings that could lose what was acknowledged are told, not refused */
    bool is_control;          /* the one partition of the control log: retention must be for ever */
};

/* What stands against the topic, as a sentence in at; OK: nothing. ERR_CONFLICT. With accept_weak_topic only a
 * wrong partition count and compaction are refused. */
err log_kafka_topic_check(const struct kafka_topic *topic, const struct log_kafka_config *config,
                          struct err_at *at);

/* Takes the client over, also when it fails. The topic is looked at by the first pumps: until then appends get
 * ERR_BUSY and nothing is read. ERR_LIMIT. */
err log_kafka_open(const struct log_kafka_config *config, struct kafka_client *client, struct io *io,
                   struct pool *pool, struct log **out_log);

enum log_kafka_stage { LOG_KAFKA_STARTING, LOG_KAFKA_RUNNING, LOG_KAFKA_REFUSED };
/* REFUSED: the topic is not fit, *at says why; for good. */
enum log_kafka_stage log_kafka_stage(struct log *log, struct err_at *at);

/* ---- what the parts of the driver share ---- */

enum kafka_record_kind { KAFKA_RECORD_BATCH = 1, KAFKA_RECORD_MARKER = 2 };

/* One append on its way. */
struct sending {
    struct sending *next;
    struct log_append *append;
    int64_t handed_ns;
    int64_t retry_ns;   /* not sent before */
    bool is_flying;     /* the client has it */
    bool may_be_stored; /* an attempt ended without an answer */
    uint8_t head[LOG_KAFKA_HEAD_BYTES];
};

enum reader_stage {
    READER_WANTED, /* to be assigned, at retry_ns */
    READER_READING,
    READER_DOUBTING, /* a leader says that the log ends before next; a marker will tell */
    READER_BACK,     /* it does: the log went back */
    READER_TRIMMED,  /* what is next has expired */
    READER_FAILED,   /* no right to read, no such partition; tried again at retry_ns */
};

/* A record read ahead. */
struct read_ahead {
    struct read_ahead *next;
    struct log_record record; /* bytes: behind this struct */
};

struct kafka_reader {
    struct log_reader reader;
    struct kafka_reader *next_reader;
    uint32_t partition;
    enum reader_stage stage;
    uint64_t next;      /* offset that is to come */
    int32_t epoch;      /* of the record before it; KAFKA_EPOCH_UNKNOWN */
    uint64_t suspected; /* lowest end that anybody named since the reader was opened; KAFKA_OFFSET_UNKNOWN */
    uint64_t marked_at; /* where our marker was acknowledged since the last record; KAFKA_OFFSET_UNKNOWN */
    int64_t retry_ns;
    unsigned hole_tries;
    bool is_marked; /* the marker is on its way */
    bool is_closed; /* under the log's mutex, as the next five: the pump frees it */
    err told;       /* what the caller hears who has taken everything */
    struct read_ahead *first, **last;
    struct read_ahead *current; /* what the caller holds */
    struct log_append marker;
};

struct kafka_partition {
    struct sending *first, **last; /* not answered, in the order of the appends */
    struct kafka_reader *reader;
    uint64_t acked;       /* offset of the last acknowledged record; KAFKA_OFFSET_UNKNOWN */
    uint64_t start, end;  /* as confirmed; end never goes down but when the log went back */
    int32_t epoch;        /* highest leader epoch seen */
    int64_t confirmed_ns; /* when the end was asked for; INT64_MIN: never */
    uint64_t back_to;     /* under the mutex; KAFKA_OFFSET_UNKNOWN: no reader has found out */
    bool goes_on;         /* under the mutex: log_go_on was called … */
    uint64_t goes_on_at;  /* … with this */
    bool has_gone_back;   /* nothing is accepted until somebody says where to go on */
};

struct log_kafka {
    struct log log;
    struct io *io;
    struct pool *pool;
    struct kafka_client *client;
    struct log_kafka_config config;
    enum log_kafka_stage stage;
    struct err_at refused;
    bool is_producing, is_stopping_producer;
    int64_t producer_retry_ns, topic_asked_ns, ends_asked_ns, ends_at_ns;
    uint64_t topic_cookie, ends_cookie, next_cookie;
    uint32_t turn; /* which partition is first to be handed over */
    struct kafka_partition *partitions;
    struct kafka_reader *readers;
    struct io_mutex mutex; /* inbox, reader queues and what watermarks tell; all else is the pump's */
    struct io_cond answered;
    struct log_append *inbox, **inbox_last;
    uint64_t queued_bytes, ahead_bytes;
    bool is_pumping; /* events are being taken: callbacks may run */
    bool is_closing;
    void (*wake)(void *context);
    void *wake_context;
    struct io_thread *thread;
};

void log_kafka_read_event(struct log_kafka *log, const struct kafka_event *event);
void log_kafka_read_timers(struct log_kafka *log, int64_t now_ns);
err log_kafka_reader_open(struct log *log, uint32_t partition, uint64_t offset, int32_t leader_epoch,
                          struct log_reader **out_reader);
void log_kafka_reader_close(struct log_reader *reader);
err log_kafka_reader_next(struct log_reader *reader, struct log_record *out_record);
/* Blocks of the log's pool, which both the pump and the callers of readers take: under its mutex. */
err log_kafka_block(struct log_kafka *log, size_t bytes, void **out_at);
void log_kafka_block_free(struct log_kafka *log, void *at); /* NULL allowed; without the mutex */

/* The partition's log went back, to `from` at most (KAFKA_OFFSET_UNKNOWN: as yet unknown). */
void log_kafka_set_back(struct log_kafka *log, struct kafka_partition *p, uint64_t from);
void log_kafka_submit(struct log_kafka *log, struct log_append *append);

#endif
