/* Ingest: from bytes that someone sent to rows that are durable. The door of the room.
 *
 *   remote write 1.0 / 2.0, exposition text, scraped rows
 *     → decode → validate → limit → route by series hash → one batch record per partition → log → answer
 *
 * Every entry blocks its caller's thread until all records of the request are as durable as the log is
 * configured to make them, but no longer than config.wait_ms_max: then the answer is 503, and what was sent may
 * be stored yet. Simulation, which never waits, uses ingest_begin_… and ingest_poll.
 * All calls are safe from any thread unless their comment says otherwise. */
#ifndef INGEST_INGEST_H
#define INGEST_INGEST_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "ingest/scrape.h"
#include "io/io.h"
#include "log/log.h"
#include "model/batch.h"
#include "model/labels.h"
#include "model/token.h"

#include <stdbool.h>
#include <stdint.h>

struct ingest;
struct ingest_request;

/* Limits of one tenant. 0 means no limit but the hard bounds of model/. */
struct ingest_limits {
    uint64_t series_max; /* active series (used within config.idle_ms) */
    uint32_t labels_per_series_max;
    uint32_t name_bytes_max;  /* of a label name and of the metric name */
    uint32_t value_bytes_max; /* of a label value */
    uint32_t samples_per_request_max;
    uint32_t requests_in_flight_max;
    uint64_t body_bytes_max; /* as sent; the config's holds besides */
};

/* 0 series, 60 labels, 1,024 and 4,096 bytes, 1,000,000 samples, 0 requests, 0 body bytes. */
struct ingest_limits ingest_limits_default(void);

struct ingest_tenant_limits {
    struct slice tenant;
    struct ingest_limits limits;
};

/* Test-only sabotage, one bit each; the simulator proves that its checker finds every one. 0 in use. */
enum ingest_canary {
    INGEST_CANARY_MARK_AT_SEND = 1 << 0, /* a series counts as announced when its labels are sent */
    INGEST_CANARY_NEVER_AGAIN = 1 << 1,  /* a log that went back is nobody's business */
};

struct ingest_config {
    uint8_t hash_key[16];     /* routing; of the node's identity */
    uint32_t partition_count; /* 1 … LOG_PARTITION_COUNT_MAX */
    size_t body_bytes_max;    /* of a body as sent; beyond: 413 */
    size_t decoded_bytes_max; /* after decompression, checked before allocating; beyond: 413 */
    uint32_t requests_max;    /* requests in work at once, over all tenants; beyond: 429 */
    /* A request waits so long for the log; then 503, and so do new ones at once until the log has answered it. */
    int64_t wait_ms_max;
    int64_t idle_ms;     /* a series not used for so long is not active any more */
    int64_t announce_ms; /* every live number is announced again this often, 10–60 min */
    int64_t rotate_ms;   /* a partition takes a new incarnation at most this often */
    int64_t future_ms;   /* samples beyond now + this are accepted and counted */
    uint64_t series_max; /* in the table, over all tenants: what memory is for; 0 = no bound */
    /* Does storage have memory for a series that the table does not know? Asked of any thread, under the ingest's
     * lock for reading, before the series is entered; NULL: always. Canonical labels. False, or series_max
     * reached: its rows are refused, all others go on. */
    bool (*has_room)(void *context, struct slice tenant, struct slice labels);
    void *context;
    struct ingest_limits limits;                /* of tenants without own ones */
    const struct ingest_tenant_limits *tenants; /* borrowed for the call, copied */
    size_t tenant_count;
    bool gives_tokens;   /* a result comes with a token (model/token.h) … */
    uint32_t token_seed; /* … of this cluster */
    uint32_t canary;     /* enum ingest_canary */
};

/* 8 partitions, 32 MiB body and decoded, 256 requests, 10 s wait, 1 h idle, 30 min, 1 h, 10 min; hash_key zero. */
struct ingest_config ingest_config_default(void);

/* ERR_INPUT with the reason in at: a setting outside its range. */
err ingest_config_check(const struct ingest_config *config, struct err_at *at);

/* Open below pool. The log outlives the ingest. ERR_INPUT, ERR_LIMIT. */
err ingest_open(const struct ingest_config *config, struct io *io, struct log *log, struct pool *pool,
                struct ingest **out_ingest);

/* Nobody calls or waits any more. Appends of requests that were given up lie in their memory: the log is drained
 * first, so this takes as long as the disk does. */
void ingest_close(struct ingest *ingest);

/* Replace the limits (they apply to requests that begin later). ERR_LIMIT: the old ones stay. */
err ingest_set_limits(struct ingest *ingest, const struct ingest_limits *limits,
                      const struct ingest_tenant_limits *tenants, size_t tenant_count);

/* Housekeeping (forgetting idle series, spreading re-announcements, new incarnations); call it about once
 * a second from one thread. Cost: a bounded slice of the series table. */
void ingest_step(struct ingest *ingest);

/* ---- results ---- */
/* Why something was refused: identifier, label of the statistic, words for a person. */
#define INGEST_REASON_LIST(X)                                                                   \
    X(INGEST_NAME_MISSING, "name_missing", "series without __name__")                           \
    X(INGEST_LABELS_INVALID, "labels_invalid", "invalid labels")                                \
    X(INGEST_LABEL_COUNT, "label_count", "too many labels in a series")                         \
    X(INGEST_NAME_LENGTH, "name_length", "label name or metric name too long")                  \
    X(INGEST_VALUE_LENGTH, "value_length", "label value too long")                              \
    X(INGEST_SERIES_LIMIT, "series_limit", "too many active series")                            \
    X(INGEST_SERIES_MEMORY, "series_memory", "no memory for more series")                       \
    X(INGEST_TIME_RANGE, "time_range", "timestamp beyond the year 9999, or as far before 1970") \
    X(INGEST_HISTOGRAM_INVALID, "histogram_invalid", "invalid native histogram")                \
    X(INGEST_EXEMPLAR_INVALID, "exemplar_invalid", "invalid exemplar")                          \
    X(INGEST_METADATA_INVALID, "metadata_invalid", "invalid metadata")                          \
    X(INGEST_SAMPLE_MISSING, "sample_missing", "series without sample or histogram")

#define INGEST_REASON_ENUM(id, name, text) id,
enum ingest_reason { INGEST_REASON_LIST(INGEST_REASON_ENUM) INGEST_REASON_COUNT };
#undef INGEST_REASON_ENUM

const char *ingest_reason_name(enum ingest_reason reason);

#define INGEST_TEXT_BYTES_MAX 1024

struct ingest_result {
    /* HTTP status: 204 all stored; 400 malformed, or partly stored (refused[] and text say what was not);
     * 413 too large; 415 unknown type or encoding; 429 over a limit; 503 try again; 507 disk full. */
    int status;
    int retry_after_s; /* for 429 and 503; 0 = none */
    uint64_t samples;  /* durable rows of this request, whatever the status */
    uint64_t histograms;
    uint64_t exemplars;
    uint64_t metadata;
    uint64_t future_samples; /* of them beyond now + future_ms */
    uint64_t refused[INGEST_REASON_COUNT];
    bool has_written_headers; /* remote write 2.0: answer with X-Prometheus-Remote-Write-*-Written */
    size_t text_len, token_len;
    char text[INGEST_TEXT_BYTES_MAX]; /* NUL-terminated, one line per kind of trouble; empty with 204 */
    char token[TOKEN_LEN_MAX +
               1]; /* NUL-terminated; of what is durable; empty if nothing is, or none is given */
};

/* ---- entries ---- */
/* Remote write 1.0 and 2.0. content_type and content_encoding as in the headers (empty when absent, which
 * means protobuf 1.0 and snappy). body is borrowed for the call. tenant: 1 … TENANT_BYTES_MAX bytes. */
void ingest_remote_write(struct ingest *ingest, struct slice tenant, struct slice content_type,
                         struct slice content_encoding, struct slice body, struct ingest_result *out_result);

/* Prometheus text 0.0.4 or, when content_type says so, OpenMetrics 1.0. Samples without a timestamp get
 * the present time. Everything up to the first malformed line is stored, and 400 names line and column.
 * sent_bytes: of the body as it came, before it was decompressed; the bounds of bodies are for these. */
void ingest_import_text(struct ingest *ingest, struct slice tenant, struct slice content_type,
                        struct slice body, size_t sent_bytes, struct ingest_result *out_result);

/* Rows that this process made itself: scraping, rules, self telemetry. */
struct ingest_row {
    struct slice labels; /* canonical, with __name__; checked when the series is new */
    int64_t t_ms;
    uint64_t value_bits;    /* of a float row */
    int64_t start_ms;       /* 0 = unset */
    struct slice histogram; /* canonical histogram; empty = a float row */
};

struct ingest_row_exemplar {
    uint32_t row; /* index of a row of the same series */
    int64_t t_ms;
    double value;
    struct slice labels; /* canonical, without __name__ */
};

struct ingest_rows {
    const struct ingest_row *rows;
    size_t row_count;
    const struct ingest_row_exemplar *exemplars;
    size_t exemplar_count;
    const struct batch_metadata *metadata;
    size_t metadata_count;
};

void ingest_write(struct ingest *ingest, struct slice tenant, const struct ingest_rows *rows,
                  struct ingest_result *out_result);

/* ---- the same without waiting ---- */
/* Each does all but the wait and gives a request to be polled until it is done. NULL: it was refused before
 * anything was decoded (too many requests, no memory, a bad tenant), and out_refusal says why. */
struct ingest_request *ingest_begin_remote_write(struct ingest *ingest, struct slice tenant,
                                                 struct slice content_type, struct slice content_encoding,
                                                 struct slice body, struct ingest_result *out_refusal);
struct ingest_request *ingest_begin_import_text(struct ingest *ingest, struct slice tenant,
                                                struct slice content_type, struct slice body,
                                                size_t sent_bytes, struct ingest_result *out_refusal);
struct ingest_request *ingest_begin_write(struct ingest *ingest, struct slice tenant,
                                          const struct ingest_rows *rows, struct ingest_result *out_refusal);

/* False while appends are under way, but not longer than wait_ms_max. True: out_result is filled and the request
 * is gone; if the log has not answered all of it, its memory goes when it does. */
bool ingest_poll(struct ingest_request *request, struct ingest_result *out_result);

/* Wait until ingest_poll would be true; as ingest_poll then. */
void ingest_wait(struct ingest_request *request, struct ingest_result *out_result);

/* ---- for status pages ---- */
struct ingest_usage {
    uint64_t series; /* in the table, all tenants */
    uint64_t table_bytes;
    uint64_t requests; /* in work now, those included that were given up and that the log has not answered */
};
struct ingest_usage ingest_usage(struct ingest *ingest);

/* Active series of a tenant as its limit counts them. */
uint64_t ingest_tenant_series(struct ingest *ingest, struct slice tenant);

#endif
