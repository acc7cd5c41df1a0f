/* The durable, ordered log of opaque records: P partitions, one order each.
 *
 * The log does not know what it carries. Drivers (file now, Kafka next) sit behind struct log; nothing
 * above may know which runs. Writers: log_append, from any thread, completes when the record is as
 * durable as configured. Readers: one log_reader per partition owner, pulling durable records in order;
 * the file driver hands its tail over from memory and reads disk only at start.
 *
 * Nothing blocks but the pump: log_pump writes and syncs what is queued. The server runs it on a thread
 * of its own (log_run_thread); simulation calls it step by step. */
#ifndef LOG_LOG_H
#define LOG_LOG_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

#define LOG_PARTITION_COUNT_MAX 1024
#define LOG_RECORD_BYTES_MAX    (17u << 20)

struct log_position {
    uint64_t
        generation; /* of an acknowledged append: as log_watermarks tells it; of a record that is read: 0 */
    uint64_t offset;
};

enum log_ack {
    LOG_ACK_FSYNC, /* acknowledged after fdatasync: survives power loss */
    LOG_ACK_OS,    /* acknowledged after write: survives process death only */
};

struct log_config {
    const char *directory;  /* below the io's root; created if missing */
    uint8_t cluster_id[16]; /* a log of another cluster is refused: ERR_CONFLICT */
    uint32_t partition_count;
    enum log_ack ack;
    uint64_t file_bytes;      /* of one physical file, e.g. 64 MiB */
    uint64_t queue_bytes_max; /* waiting appends; beyond: ERR_BUSY at once */
    uint64_t tail_bytes_max;  /* kept in memory for readers; beyond, readers go to disk */
    /* Whether free space is below the node's floor: appends are refused with ERR_SPACE while it is, but
     * those that free space. Called from any thread by every append, so it looks at a flag. NULL: never. */
    bool (*is_space_low)(void *context);
    void *space_context;
    bool read_only; /* for tools: opening changes nothing on disk, appends get ERR_CLOSED */
};

struct log;

/* Damage that recovery found: these offsets of the partition are lost. */
struct log_damage {
    uint32_t partition;
    uint64_t from_offset; /* [from, to) */
    uint64_t to_offset;
    const char *file; /* where, for fsck and messages; lives as long as the log */
    uint64_t file_offset;
};

/* Open or create. Recovery reads all live files, drops a torn tail, names damage. ERR_CONFLICT (another
 * cluster or partition count), ERR_VERSION, ERR_IO, ERR_SPACE, ERR_LIMIT. */
err log_open(const struct log_config *config, struct io *io, struct pool *pool, struct log **out_log,
             struct err_at *at);
/* Pump what is queued, stop the thread, close. Waiting appends that could not be written: ERR_CLOSED. */
void log_close(struct log *log);

const struct log_damage *log_damages(const struct log *log, size_t *out_count);

/* One append, embedded in the caller's request; valid until done is called. */
struct log_append {
    uint32_t partition;
    const struct slice *parts; /* concatenated they are the record; borrowed until done */
    size_t part_count;
    /* Called once, from the pumping thread (or from log_append itself on refusal), in offset order per
     * partition. Must not block. position is meaningful only with OK. */
    void (*done)(struct log_append *append, err result, struct log_position position);
    void *context;
    bool frees_space; /* not refused below the floor: the owner's own word by which records become free */
    /* No record (part_count 0): done(OK) tells a confirmed end, behind everything that was acknowledged
     * before the call. It may come from log_append itself. */
    bool is_marker;
    struct log_append *next; /* the log's own */
};

/* Queue an append. Always calls done exactly once. OK: it is durable. It is not in the log and will not be:
 * ERR_BUSY (queue full, or the log went back), ERR_SPACE (below the floor or disk full), ERR_CLOSED, ERR_LIMIT
 * (record too large). It may be, also later: ERR_TIMEOUT (not known in time), ERR_IO (the disk failed, or the log
 * went back meanwhile). */
void log_append(struct log *log, struct log_append *append);

/* Write and sync one group of what is queued and call its dones. OK also when nothing was queued. */
err log_pump(struct log *log);

/* Run log_pump on a thread of its own until log_close. */
err log_run_thread(struct log *log);

/* Wait until every append that was queued is answered and no callback runs, pumping where no thread does:
 * before memory of appends, or of the listener after log_on_durable took it away, is freed. Not from a
 * callback. */
void log_drain(struct log *log);

/* ---- reading ---- */
struct log_record {
    struct log_position position;
    struct slice bytes; /* borrowed until the next call on this reader */
    bool damaged;       /* this offset is lost; bytes is empty */
    bool is_marker;     /* nobody's record: the position was passed; bytes is empty */
    uint64_t missing;   /* so many offsets right before this one are not in the log: they are lost */
    int64_t t_ms;       /* of the append, by the broker's clock if the topic keeps that, else by the writer's;
                           LOG_TIME_NONE */
    int32_t leader_epoch; /* under which it was written; LOG_EPOCH_NONE */
};

struct log_reader;

#define LOG_EPOCH_NONE (-1)      /* a log without epochs, or not known */
#define LOG_TIME_NONE  INT64_MIN /* a log without times */

/* leader_epoch: of the record before `offset`, so that a log which went back and grew again is known:
 * ERR_ORDER. Read the partition from `offset` (≥ the log's start, else ERR_NOT_FOUND; ≤ its end, else
 * ERR_ORDER: the log went back). One thread per reader. Readers are closed before the log. Errors also
 * ERR_LIMIT. */
err log_reader_open(struct log *log, uint32_t partition, uint64_t offset, int32_t leader_epoch,
                    struct log_reader **out_reader);
void log_reader_close(struct log_reader *reader);

/* The next durable record. ERR_END: none yet. Never blocks for new records. ERR_NOT_FOUND: it was trimmed.
 * ERR_IO, ERR_LIMIT: not read this time; the reader stays where it is and may try again. */
err log_reader_next(struct log_reader *reader, struct log_record *out_record);

/* Call wake(context) from the pump after records of any partition became durable. One listener. */
void log_on_durable(struct log *log, void (*wake)(void *context), void *context);

struct log_watermarks {
    /* 0: of a log that never goes back. Else 1, and one more for each log_go_on that this handle has obeyed: what
     * was acknowledged in an earlier one may be gone. No other handle counts alike. */
    uint64_t generation;
    uint64_t start_offset; /* oldest that can be read */
    /* Durable end: next offset to be given, or what is known to be empty before it. Of a log that went back, until
     * log_go_on: the highest that was seen or acknowledged. */
    uint64_t end_offset;
    int64_t confirmed_ns; /* io_boottime_ns at which the end was asked for or known; INT64_MIN: not yet */
};
struct log_watermarks log_watermarks(struct log *log, uint32_t partition);

/* The log itself went back (a replicated one that lost its newest records): readers end with ERR_ORDER, appends
 * are answered with ERR_IO, and who does neither asks now and then. *out_from: the first offset at
 * which it may differ from what was read or acknowledged here. ERR_NOT_FOUND: it did not, or log_go_on was heard
 * since; ERR_BUSY: that it did is known, and not yet where. Until log_go_on appends to the partition get ERR_BUSY.
 *
 * log_go_on: it is known here, and goes on at `from` as a new generation. Each process says so for itself: of a
 * partition that it applies, when its chain has the generation; of one that it only writes to, as soon as it has
 * told whose acknowledgements are gone. A `from` below the place is taken, one above it is not; nor is any when
 * the log went back further than log_went_back told: then it tells the lower place, and waits for another word.
 * Readers that are opened after it are of the new generation, those before it stay at their end. */
err log_went_back(struct log *log, uint32_t partition, uint64_t *out_from);
void log_go_on(struct log *log, uint32_t partition, uint64_t from);

/* What was read or acknowledged through this handle of the log as it was, until log_go_on. */
struct log_seen {
    uint64_t end_offset;  /* behind the highest record; 0: nothing */
    int32_t leader_epoch; /* of that record, or a lower one; LOG_EPOCH_NONE: not known */
};
struct log_seen log_seen(struct log *log, uint32_t partition);

/* The leader epoch of the record before `offset`, as the log is now; LOG_EPOCH_NONE: not known here. */
int32_t log_epoch_before(struct log *log, uint32_t partition, uint64_t offset);

/* Records of the partition below `before` are not needed any more; files go (are recycled) when no
 * partition needs them. */
err log_trim(struct log *log, uint32_t partition, uint64_t before);

/* Give idle recycled files back to the file system, keeping what the recent write rate needs; called now
 * and then by the owner. */
err log_tidy(struct log *log);

/* Do the partition's records that were not trimmed yet keep disk space from being given back: a file that is
 * not the newest one, or, in a log that nobody appends to, a newest file larger than a quiet log needs? A hint
 * for whoever could trim them. */
bool log_is_held(struct log *log, uint32_t partition);

struct log_usage {
    uint64_t live_bytes;     /* of files with records some partition needs */
    uint64_t recycled_bytes; /* preallocated or waiting for reuse */
    uint64_t queued_bytes;
};
struct log_usage log_usage(struct log *log);

/* ---- a log on Kafka: one topic ---- */

enum kafka_security {
    KAFKA_PLAINTEXT,
    KAFKA_TLS,
    KAFKA_SASL_PLAINTEXT, /* user and password over an open connection */
    KAFKA_SASL_TLS,
};

enum kafka_mechanism {
    KAFKA_SCRAM_SHA_512,
    KAFKA_SCRAM_SHA_256,
    KAFKA_PLAIN,
};

/* Strings are borrowed during a call. PEM texts are contents, not paths; NULL: none, of an authority the
 * system's. */
struct log_kafka_settings {
    const char *bootstrap; /* "host:port,host:port" */
    const char *topic, *client_id;
    enum kafka_security security;
    enum kafka_mechanism mechanism;          /* with SASL */
    const char *user, *password;             /* with SASL */
    const char *ca_pem, *cert_pem, *key_pem; /* with TLS */
    bool insecure_skip_verify;               /* accept any certificate of a broker */
    uint8_t cluster_id[16];                  /* whose records these are: others are passed over */
    uint8_t topic_id[16];     /* the topic's, as it was first seen; zero: whichever is there now */
    uint32_t partition_count; /* 1 … LOG_PARTITION_COUNT_MAX */
    uint64_t
        bytes_max; /* of appends not answered, of what the client sends, of what it has fetched and of what is read
                           ahead, each; as much as one record is always allowed */
    bool is_control;        /* one partition of small records, kept for ever */
    bool accept_weak_topic; /* settings that could lose what was acknowledged are told, not refused */
};

/* Open the log; connects in the background. Until the topic is known appends get ERR_BUSY, and nothing is read.
 * ERR_INPUT a setting is refused, text in at; ERR_LIMIT. */
err log_kafka_connect(const struct log_kafka_settings *settings, struct io *io, struct pool *pool,
                      struct log **out_log, struct err_at *at);

/* Create the topic with settings that such a log takes, and wait until a broker says that it is there; one that is
 * there already stays as it is. retention_ms of a control log is for ever whatever is given; −1: for ever. Errors,
 * with the broker's words in at: ERR_TIMEOUT no broker answered within budget_ms; ERR_INPUT it refuses the
 * counts or a setting; ERR_DENIED; ERR_LIMIT. */
err log_kafka_found(const struct log_kafka_settings *settings, uint32_t replica_count, int64_t retention_ms,
                    int64_t budget_ms, struct io *io, struct pool *pool, struct err_at *at);

/* Is there such a topic? OK, ERR_NOT_FOUND: a broker says that there is none; ERR_TIMEOUT none answered within
 * budget_ms; ERR_DENIED, ERR_INPUT, ERR_LIMIT. */
err log_kafka_is_there(const struct log_kafka_settings *settings, int64_t budget_ms, struct io *io,
                       struct pool *pool, struct err_at *at);

enum log_kafka_stage { LOG_KAFKA_STARTING, LOG_KAFKA_RUNNING, LOG_KAFKA_REFUSED };
/* STARTING: the topic is not known yet, or not there. REFUSED: it is not fit, or another one of the same name.
 * *at says why; of one that runs it is empty, or says what the last look at the topic failed with. Both end when
 * somebody mends the topic, which is looked at again and again. */
enum log_kafka_stage log_kafka_stage(struct log *log, struct err_at *at);
/* The topic's id, to be kept for the next open; zero: brokers that have none, or not known yet. */
void log_kafka_topic_id(struct log *log, uint8_t *out_id);

#define LOG_RETENTION_UNKNOWN 0
#define LOG_RETENTION_NONE    (-1) /* nothing expires */
/* For how many ms the brokers keep a record, as the topic was last described; UNKNOWN, NONE. *out_refused: why
 * they would not have it raised when that was last asked; empty: they did not refuse. */
int64_t log_kafka_retention(struct log *log, struct err_at *out_refused);
/* Have the brokers keep records so many ms from now on. The thread that pumps asks, once; log_kafka_retention
 * tells what came of it. */
void log_kafka_retain(struct log *log, int64_t retention_ms);

/* What a file in the file driver's directory is, by its name. For tools. */
enum log_name_kind {
    LOG_NAME_FOREIGN,
    LOG_NAME_RECORDS, /* the newest of them leads to all that count */
    LOG_NAME_FREE,    /* waits for another life */
    LOG_NAME_LOST,    /* set aside by an open */
};
enum log_name_kind log_name_kind(const char *name);

#endif
