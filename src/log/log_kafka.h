/* The Kafka driver of the log: a state machine on kafka_client.h. docs/decisions/0013-log-on-kafka.md. */
#ifndef LOG_LOG_KAFKA_H
#define LOG_LOG_KAFKA_H

#include "io/thread.h"
#include "log/kafka_client.h"
#include "log/log_driver.h"

#define LOG_KAFKA_HEAD_BYTES        20
#define LOG_KAFKA_MARKER_NAME_BYTES 16
#define LOG_KAFKA_MAGIC             UINT32_C(0x4b4c504b) /* "KPLK" */
#define LOG_KAFKA_HOLE_TRIES        3
#define LOG_KAFKA_RESEND_MS         50
#define LOG_KAFKA_RETRY_MS          500
#define LOG_KAFKA_ENDS_MS           1000  /* between two questions for the ends */
#define LOG_KAFKA_ASK_MS            5000  /* an answer comes, or the question is asked again */
#define LOG_KAFKA_TOPIC_MS          30000 /* between two looks at a topic that is fit */
#define LOG_KAFKA_REFUSED_MS_MAX    60000 /* and at one that is not, after a while */
#define LOG_KAFKA_DOUBT_MS          5000  /* without a word of what is looked at: it is begun anew */
#define LOG_KAFKA_RETENTION_MIN_MS  (INT64_C(24) * 3600 * 1000)

/* Bugs that tests plant to prove that the simulation finds them; 0 in the server. */
enum log_kafka_plant {
    LOG_KAFKA_PLANT_NOT_STORED = 1 << 0, /* what may be stored is called not stored */
    LOG_KAFKA_PLANT_EARLY_ACK = 1 << 1,  /* what may be stored is called acknowledged */
    LOG_KAFKA_PLANT_NO_RESEND = 1 << 2,  /* what an attempt left open is neither sent again nor answered */
    LOG_KAFKA_PLANT_NO_EPOCH = 1 << 3,   /* reading begins without the check of the epoch */
    LOG_KAFKA_PLANT_NO_DOUBT = 1 << 4,   /* a new leader's log is not held against what was acknowledged */
    LOG_KAFKA_PLANT_NO_MARKER = 1 << 5,  /* any leader is believed that the log ends below what was read */
    LOG_KAFKA_PLANT_HIGH_BACK = 1 << 6,  /* the log went back to where it was read, not to where it differs */
    LOG_KAFKA_PLANT_ANY_END = 1 << 7,    /* ends of old leaders count */
};

struct log_kafka_config {
    uint8_t cluster_id[16];
    uint8_t topic_id[16]; /* the topic's, as it was first seen; zero: whichever is there now */
    uint32_t partition_count;
    uint64_t queue_bytes_max; /* of appends not answered; beyond: ERR_BUSY at once */
    uint64_t tail_bytes_max;  /* of records read ahead, all partitions, and one record of each */
    int64_t delivery_ms_max;  /* an append is answered by then, give or take one request's time */
    bool accept_weak_topic;   /* settings that could lose what was acknowledged are told, not refused */
    bool is_control;          /* the one partition of the control log: retention must be for ever */
    unsigned plants;
};

/* What stands against the topic, as a sentence in at; OK: nothing. ERR_CONFLICT. With accept_weak_topic only a
 * wrong partition count and compaction are refused. */
err log_kafka_topic_check(const struct kafka_topic *topic, const struct log_kafka_config *config,
                          struct err_at *at);

/* log_kafka_is_there over a client that nobody else polls. */
err log_kafka_find(int64_t budget_ms, struct kafka_client *client, struct io *io, struct err_at *at);

/* log_kafka_found over a client that nobody else polls. */
err log_kafka_create(const struct log_kafka_config *config, uint32_t replica_count, int64_t retention_ms,
                     int64_t budget_ms, struct kafka_client *client, struct io *io, struct err_at *at);

/* Takes the client over, also when it fails. The topic is looked at by the first pumps: until then appends get
 * ERR_BUSY and nothing is read. ERR_LIMIT. */
err log_kafka_open(const struct log_kafka_config *config, struct kafka_client *client, struct io *io,
                   struct pool *pool, struct log **out_log);

/* ---- what the parts of the driver share ---- */

enum kafka_record_kind { KAFKA_RECORD_BATCH = 1, KAFKA_RECORD_MARKER = 2 };

/* One append on its way. */
struct sending {
    struct sending *next;
    struct log_append *append;
    int64_t handed_ns;
    int64_t retry_ns; /* not sent before */
    uint64_t floor;   /* the partition's end as it was known when the client got it: below it, it went back */
    bool is_flying;   /* the client has it */
    bool may_be_stored; /* an attempt ended without an answer */
    bool is_own;        /* a marker of the driver's: goes out, and is answered, whatever became of the log */
    uint8_t head[LOG_KAFKA_HEAD_BYTES];
};

enum reader_stage {
    READER_WANTED, /* to be assigned, at retry_ns */
    READER_READING,
    READER_FULL,     /* its records wait to be taken */
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
    uint64_t next;           /* offset that is to come */
    int32_t epoch;           /* of the record before it; KAFKA_EPOCH_UNKNOWN */
    uint64_t suspected;      /* lowest end that anybody named since the last record; KAFKA_OFFSET_UNKNOWN */
    int32_t suspected_epoch; /* that ends there or above; KAFKA_EPOCH_UNKNOWN */
    uint64_t marked_at; /* where our marker was acknowledged since the last record; KAFKA_OFFSET_UNKNOWN */
    int64_t retry_ns;
    unsigned hole_tries;
    unsigned back_tries; /* looks for the place of an end that is below next for sure */
    bool is_marked;      /* the marker is on its way */
    bool is_closed;      /* under the log's mutex, as all below: the pump frees it */
    bool is_full;
    err told; /* what the caller hears who has taken everything */
    uint64_t ahead_bytes;
    struct read_ahead *first, **last;
    struct read_ahead *current; /* what the caller holds */
    struct log_append marker;
};

/* What was acknowledged, to be found again: log_kafka_doubt.c. */
#define KAFKA_KEPT_MAX   256
#define KAFKA_EPOCHS_MAX 8

struct kafka_kept {
    uint64_t offset;
    uint32_t crc;    /* of the record's head */
    uint32_t number; /* how many were acknowledged before it, and a weight for each pause, modulo 2^32 */
};

enum doubt_stage {
    DOUBT_NONE,
    DOUBT_WANTED,  /* a marker is to be sent, at retry_ns */
    DOUBT_MARKING, /* it is on its way */
    DOUBT_READING, /* from the anchor to the marker */
};

struct kafka_doubt {
    enum doubt_stage stage;
    int32_t epoch;      /* that raised it */
    int64_t retry_ns;   /* WANTED: not before. READING: begun anew then */
    uint64_t marked_at; /* offset of the marker */
    uint64_t next;      /* that is to be read */
    uint64_t intact;    /* below it the log is what it was, under intact_epoch at the end */
    int32_t intact_epoch;
    size_t kept_count; /* of those acknowledged before the marker was sent; 0: there is none */
    bool has_met_end;  /* before the marker: it is to come soon */
    bool is_lost;      /* one of them was not found */
    bool is_marked;    /* the marker is on its way, whatever the stage */
    struct log_append marker;
    uint8_t name[LOG_KAFKA_MARKER_NAME_BYTES]; /* what it carries: no other marker does */
    struct slice part;
};

struct log_kafka;

struct kafka_partition {
    struct log_kafka *log;
    struct sending *first, **last; /* not answered, in the order of the appends */
    struct kafka_reader *reader;
    uint64_t generation; /* under the mutex: of the log as it is taken, from 1 */
    uint64_t acked;      /* offset of the last acknowledged record; KAFKA_OFFSET_UNKNOWN */
    uint64_t anchor;     /* up to here the log of anchor_epoch's leader reached; KAFKA_OFFSET_UNKNOWN */
    int32_t anchor_epoch;
    bool has_acked;                         /* a batch, ever */
    struct kafka_kept kept[KAFKA_KEPT_MAX]; /* batches acknowledged and not below the anchor, rising */
    size_t kept_count;
    uint32_t kept_step;   /* of so many acknowledged in a row one is kept, and the last */
    uint32_t kept_number; /* that were acknowledged */
    int64_t kept_ns;      /* … and when the last was, boot time */
    struct kafka_doubt doubt;
    struct {
        int32_t epoch;
        uint64_t from, to;      /* lowest offset that was read of it, and behind the highest */
    } epochs[KAFKA_EPOCHS_MAX]; /* rising */
    size_t epoch_count;
    uint64_t start, end;  /* as confirmed; end never goes down but when the log went back */
    uint64_t end_asked;   /* end, when the ends were asked for; KAFKA_OFFSET_UNKNOWN: of another generation */
    uint64_t hollow_from; /* a reader met nothing from here … */
    uint64_t hollow_to;   /* … to the end, when that was here … */
    int32_t hollow_epoch; /* … and this the highest epoch: another leader's log may have something there */
    int32_t epoch;        /* highest leader epoch seen */
    struct log_seen seen; /* under the mutex; not while a doubt asks whether it still is so */
    int64_t confirmed_ns; /* when the end was asked for; INT64_MIN: never */
    uint64_t fell_to;     /* lowest acknowledgement below an end that was known; KAFKA_OFFSET_UNKNOWN */
    uint64_t found;       /* where it went back to; told once the topic was seen to be the same one */
    int32_t found_epoch;  /* reaches at least to there in the log as it is now; KAFKA_EPOCH_UNKNOWN */
    uint32_t found_looks; /* looks at the topic that were begun by then */
    uint64_t back_to;     /* under the mutex; KAFKA_OFFSET_UNKNOWN: not known */
    uint64_t back_told;   /* under the mutex: what log_went_back told of that */
    int32_t back_epoch;   /* of the record before it: below it the log is what it was */
    bool goes_on;         /* under the mutex: log_go_on was called for that place … */
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
    int64_t producer_retry_ns, topic_at_ns, topic_delay_ms, ends_asked_ns, ends_at_ns;
    uint64_t topic_cookie, ends_cookie, retain_cookie, next_cookie;
    uint8_t topic_id[16]; /* under the mutex, as the next three */
    int64_t retention_ms; /* LOG_RETENTION_UNKNOWN, LOG_RETENTION_NONE */
    int64_t retain_ms;    /* wanted; LOG_RETENTION_UNKNOWN: nothing is */
    struct err_at retain_refused;
    uint32_t reader_count; /* under the mutex */
    uint32_t topic_looks;
    uint32_t turn; /* which partition is first to be handed over */
    struct kafka_partition *partitions;
    struct kafka_reader *readers;
    struct io_mutex mutex; /* inbox, reader queues and what watermarks tell; all else is the pump's */
    struct io_cond answered;
    struct log_append *inbox, **inbox_last;
    uint64_t queued_bytes, ahead_bytes;
    uint64_t open_count; /* appends not answered, the driver's own aside */
    uint64_t pumps;      /* that have ended */
    bool is_pumping;     /* callbacks may run */
    bool is_closing;
    void (*wake)(void *context);
    void *wake_context;
    struct io_thread *thread;
};

/* Readers that were opened and closed since. Under the mutex. */
void log_kafka_take_doors(struct log_kafka *log);
void log_kafka_read_event(struct log_kafka *log, const struct kafka_event *event);
void log_kafka_read_timers(struct log_kafka *log, int64_t now_ns);
err log_kafka_reader_open(struct log *log, uint32_t partition, uint64_t offset, int32_t leader_epoch,
                          struct log_reader **out_reader);
void log_kafka_reader_close(struct log_reader *reader);
err log_kafka_reader_next(struct log_reader *reader, struct log_record *out_record);
/* Blocks of the log's pool, which both the pump and the callers of readers take: under its mutex. */
err log_kafka_block(struct log_kafka *log, size_t bytes, void **out_at);
void log_kafka_block_free(struct log_kafka *log, void *at); /* NULL allowed; without the mutex */

static inline int64_t log_kafka_now_ns(const struct log_kafka *log) { return io_boottime_ns(log->io); }

/* The partition's log went back for sure, to `from` at most (KAFKA_OFFSET_UNKNOWN: as yet unknown), and what
 * is left of it reaches to there under `epoch` (KAFKA_EPOCH_UNKNOWN). */
void log_kafka_set_back(struct log_kafka *log, struct kafka_partition *p, uint64_t from, int32_t epoch);
/* Send a marker of the driver's own: done tells OK and the position behind it, or that it is not known. */
void log_kafka_mark(struct log_kafka *log, struct log_append *append);
/* The partition is read by its doubt: the reader lets it go. */
void log_kafka_reader_pause(struct log_kafka *log, struct kafka_partition *p);
/* The crc of a record that is ours, and its kind and payload. */
bool log_kafka_open_record(const struct log_kafka *log, struct slice bytes, enum kafka_record_kind *out_kind,
                           struct slice *out_payload);

/* log_kafka_topic.c */
void log_kafka_ask_topic(struct log_kafka *log, int64_t now_ns);
void log_kafka_on_topic(struct log_kafka *log, const struct kafka_event *event);
void log_kafka_ask_retain(struct log_kafka *log, int64_t now_ns);
void log_kafka_on_done(struct log_kafka *log, const struct kafka_event *event);

/* log_kafka_doubt.c */
/* It was acknowledged, above all before it. */
void log_kafka_keep(struct kafka_partition *p, uint64_t offset, uint32_t crc, int64_t now_ns);
void log_kafka_doubt(struct log_kafka *log, struct kafka_partition *p, int32_t epoch);
void log_kafka_doubt_ends(struct log_kafka *log, struct kafka_partition *p, const struct kafka_ends *ends);
void log_kafka_doubt_event(struct log_kafka *log, const struct kafka_event *event);
void log_kafka_doubt_timers(struct log_kafka *log, int64_t now_ns);
/* A record was read or acknowledged. */
void log_kafka_saw(struct log_kafka *log, struct kafka_partition *p, uint64_t offset, int32_t epoch);
/* Below from the log is what it was: that is the anchor, if the epoch is known. */
void log_kafka_doubt_reset(struct kafka_partition *p, uint64_t from, int32_t epoch);
/* A record of this epoch stands at offset. */
void log_kafka_saw_epoch(struct kafka_partition *p, int32_t epoch, uint64_t offset);
/* The epoch of the record before offset, as it was read; LOG_EPOCH_NONE: it was not. */
int32_t log_kafka_epoch_below(const struct kafka_partition *p, uint64_t offset);
/* Where the log that was read parts from one in which `epoch` ends at `end`. */
uint64_t log_kafka_parting(const struct kafka_partition *p, int32_t epoch, uint64_t end);

#endif
