/* A request in work: the rows of one HTTP request on their way into records. Internal to the room.
 *
 *   begin ── decoder: request_series, request_sample, … ──→ seal ──→ append ──→ done of every record ──→ finish
 *            (under the ingest's lock for reading)                              (log's thread)
 *                                                                    └─ too late ──→ finish ──→ last done
 *
 * Decoders call the functions here; they know nothing of partitions, numbers and records. */
#ifndef INGEST_REQUEST_H
#define INGEST_REQUEST_H

#include "ingest/announce.h"
#include "ingest/ingest.h"
#include "ingest/producer.h"
#include "ingest/table.h"
#include "io/thread.h"
#include "model/histogram.h"

#define TENANT_COUNT_MAX     4096u
#define GROWTH_COUNT         8 /* metric names watched per tenant */
#define GROWTH_NAME_BYTES    96
#define METADATA_CACHE_COUNT 8192u
#define IDLE_REQUEST_COUNT   16          /* request memories kept for reuse */
#define IDLE_REQUEST_BYTES   (8u << 20)  /* larger ones are given back after use */
#define RECORD_ROWS          (64u << 10) /* a record is closed at so many rows … */
#define RECORD_BYTES         (6u << 20)  /* … or so many bytes before compression */
#define RECORD_BYTES_ONE_MAX \
    (4u << 20) /* the largest single thing: labels, histogram, metadata are far below */
#define HELP_BYTES_MAX            8192
#define EXEMPLAR_LABELS_BYTES_MAX 1024
#define DETAIL_BYTES_MAX          200

struct growth {
    uint64_t count;
    uint16_t len;
    char name[GROWTH_NAME_BYTES];
};

struct tenant {
    uint8_t name[TENANT_BYTES_MAX];
    uint8_t name_len; /* 0 = free */
    uint16_t index;
    struct series_hasher hasher;
    struct hash_quick_key quick_key;
    struct ingest_limits limits;
    _Atomic uint64_t series; /* active */
    _Atomic uint32_t in_flight;
    int64_t used_ns;                    /* ingest mutex */
    struct growth growth[GROWTH_COUNT]; /* table mutex */
};

struct ingest {
    struct ingest_config config;
    struct io *io;
    struct log *log;
    struct pool *pool; /* parent of all others; used directly only in open and under mutex */
    struct pool *table_pool;
    struct pool *limits_pool; /* copies of the tenants' limits */
    struct io_rwlock lock;    /* for reading: building a request; for writing: dropping, renewing, limits */
    struct io_mutex mutex;    /* tenants' names, idle requests */
    struct series_table table;
    struct producer *producers; /* partition_count */
    struct announcer announcer;
    struct tenant **tenants; /* TENANT_COUNT_MAX, NULL = never used */
    uint32_t tenant_count;
    struct ingest_request *idle; /* list */
    uint32_t idle_count;
    _Atomic uint32_t in_work;        /* those below included, for their memory is still in use */
    _Atomic uint32_t abandoned;      /* requests answered before all of their appends were */
    _Atomic uint64_t *metadata_seen; /* METADATA_CACHE_COUNT hashes of acknowledged metadata */
    _Atomic uint32_t metadata_epoch; /* part of those hashes */
    uint64_t walk_id;                /* of ingest_step: where it goes on */
    int64_t stepped_ns;
    int64_t metadata_renewed_ns;
};

/* Rows of one partition on their way into one record. */
struct columns {
    uint64_t generation; /* of the log when the record was begun, as its producer knew it */
    uint32_t epoch;      /* of the producer then, read after it; 0 = nothing here */
    uint32_t announced;  /* last number announced in this record + 1, 0 = none */
    size_t bytes;        /* upper bound of what the record will take */
    uint64_t future_count;
    bool touched; /* in the request's list */
    uint32_t *numbers;
    int64_t *t_ms;
    uint64_t *value_bits;
    size_t row_count, row_capacity;
    struct batch_start *starts;
    size_t start_count, start_capacity;
    struct batch_histogram *histograms;
    size_t histogram_count, histogram_capacity;
    struct batch_exemplar *exemplars;
    size_t exemplar_count, exemplar_capacity;
    struct batch_metadata *metadata;
    size_t metadata_count, metadata_capacity;
    struct batch_announce *announces;
    uint32_t *announce_ids; /* beside announces */
    size_t announce_count, announce_capacity, announce_id_capacity;
};

struct mark {
    uint32_t id;
    uint32_t number;
};

struct record {
    struct log_append append;
    struct slice part;
    size_t offset, len; /* in encoded */
    uint64_t generation;
    uint32_t epoch;
    size_t mark_begin, mark_end; /* in marks */
    uint64_t samples, histograms, exemplars, metadata, future;
    err result;   /* of its append, ERR_TIMEOUT until that ended; under the request's mutex */
    err answer;   /* … as the request's answer takes it */
    uint64_t end; /* behind it, with OK */
};

struct ingest_request {
    struct ingest *ingest;
    struct ingest_request *next_idle;
    struct tenant *tenant;
    struct pool *pool; /* blocks live on between requests, the arena is reset */
    int64_t now_ms;
    uint16_t minute;
    uint32_t previous;       /* the series before, for the prediction */
    uint32_t misses;         /* wrong predictions in a row */
    struct buf decoded;      /* the body, decompressed */
    struct buf scratch;      /* canonical labels of one series */
    struct buf bytes;        /* one histogram, or an exemplar's labels */
    struct buf raw;          /* label fields that a decoder puts together: of a series */
    struct buf raw_exemplar; /* … of an exemplar */
    enum ingest_reason last_reason;
    struct buf encoded;      /* records */
    struct columns *columns; /* partition_count */
    uint32_t *touched;       /* partitions in use, partition_count at most */
    uint32_t touched_count;
    uint64_t *ends;       /* partition_count, for the token; NULL: none is given */
    struct label *labels; /* LABEL_COUNT_MAX + 1, for sorting */
    struct record *records;
    size_t record_count, record_capacity;
    struct mark *marks;
    size_t mark_count, mark_capacity;
    uint64_t *metadata_hashes; /* to be remembered when all is acknowledged */
    size_t metadata_hash_count, metadata_hash_capacity;
    uint64_t row_total; /* rows and histograms so far */
    uint32_t metadata_epoch;

    int64_t deadline_ns;   /* monotonic; who waits gives up then */
    struct io_mutex mutex; /* of pending, left and the records' results; signalled at 0 */
    struct io_cond cond;
    size_t pending;
    bool left;   /* nobody waits any more: the last append to end gives the memory back */
    bool failed; /* given up: result is complete */
    char detail[INGEST_REASON_COUNT][DETAIL_BYTES_MAX];
    struct ingest_result result;
};

/* A series of a request, ready to take rows. Valid until the next request_series. */
struct series_ref {
    struct series *entry;
    struct columns *columns;
    uint32_t id;
    struct slice labels;
    bool stable;
};

/* Take a request's memory and its place among the tenant's. NULL: refused, out_refusal says why. The lock is held
 * for reading until request_seal or request_fail. */
struct ingest_request *request_begin(struct ingest *ingest, struct slice tenant,
                                     struct ingest_result *out_refusal);

/* Find or register the series of canonical or raw label fields. stable: the bytes live until the request is
 * sealed, else until the next series. ERR_INPUT: it was refused and counted once (request_refuse_more for the
 * rest of its rows); go on with the next. ERR_LIMIT: no memory. */
err request_series(struct ingest_request *r, struct slice labels, bool stable, struct series_ref *out_ref);

/* The same, if the labels may well be those that came behind the last series' the time before: no bytes are hashed
 * twice or looked up then. */
err request_series_next(struct ingest_request *r, struct slice labels, bool stable,
                        struct series_ref *out_ref);

/* Is the predicted series the one whose labels begin at `at`? If so the ref is filled, and *out_len says how
 * many bytes the labels take. */
bool request_predict(struct ingest_request *r, const uint8_t *at, size_t left, struct series_ref *out_ref,
                     size_t *out_len, err *out_error);

/* Add a row. start_ms 0 = unset. ERR_LIMIT: no memory. What is out of range is refused and counted. */
err request_sample(struct ingest_request *r, struct series_ref *ref, int64_t t_ms, uint64_t value_bits,
                   int64_t start_ms);
err request_histogram(struct ingest_request *r, struct series_ref *ref, int64_t t_ms, int64_t start_ms,
                      const struct histogram *h);
/* The same from canonical bytes, which are checked. */
err request_histogram_bytes(struct ingest_request *r, struct series_ref *ref, int64_t t_ms, int64_t start_ms,
                            struct slice bytes);
/* labels are raw label fields, sorted or not; copied. */
err request_exemplar(struct ingest_request *r, struct series_ref *ref, int64_t t_ms, double value,
                     struct slice labels);
/* Slices are borrowed until the request is sealed. */
err request_metadata(struct ingest_request *r, const struct batch_metadata *metadata);

/* Count something refused; the first text of a reason is kept for the answer. */
void request_refuse(struct ingest_request *r, enum ingest_reason reason, uint64_t count, struct slice labels,
                    const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Count so many more for the reason counted last. */
void request_refuse_more(struct ingest_request *r, uint64_t count);

/* Give up the whole request: nothing of it is appended. Unlocks. */
void request_fail(struct ingest_request *r, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Close the records, unlock, append them. `trouble` (may be NULL) makes the answer 400 with that text even if
 * all rows were stored. */
void request_seal(struct ingest_request *r, const char *trouble);

/* All appends ended, or they take too long: marks, statistics, result. The memory goes back, at once or with the
 * last append. */
void request_finish(struct ingest_request *r, struct ingest_result *out_result);

/* Free the idle requests' memory, at close. */
void requests_free(struct ingest *ingest);

/* The series of a mark; NULL: it is not that one any more. Lock held. */
struct series *mark_series(const struct ingest *ingest, uint32_t partition, const struct mark *mark);

/* The limits that the configuration gives a tenant. */
struct ingest_limits tenant_limits(const struct ingest *ingest, struct slice tenant);

/* Inside of seal and fail: encode what the columns hold (ERR_LIMIT: no memory), or drop it. Lock held. */
err request_close_records(struct ingest_request *r);
void request_drop_rows(struct ingest_request *r);

/* ---- decoders, one file each ---- */
void remote_write_decode(struct ingest_request *r, struct slice content_type, struct slice content_encoding,
                         struct slice body);
/* ERR_INPUT: malformed, text in at. ERR_LIMIT: no memory. ERR_FULL: too many samples. */
err remote_write_1_decode(struct ingest_request *r, struct slice message, struct err_at *at);
err remote_write_2_decode(struct ingest_request *r, struct slice message, struct err_at *at);
/* A TimeSeries message of either version was refused: fields 2 to 4, all that it would have brought, count too. */
void remote_series_refused(struct ingest_request *r, struct slice message);
/* One Histogram message, the same in both versions. ERR_INPUT: malformed; refused ones are OK. */
err remote_histogram_decode(struct ingest_request *r, struct series_ref *ref, struct slice message,
                            struct err_at *at);
void import_text_decode(struct ingest_request *r, struct slice content_type, struct slice body,
                        size_t sent_bytes);

/* Is a body of so many bytes, as sent, within the bounds? False: the request has failed with 413. */
bool request_body_fits(struct ingest_request *r, size_t sent_bytes);
void rows_decode(struct ingest_request *r, const struct ingest_rows *rows);

/* ERR_FULL when the tenant's samples_per_request_max is passed. */
err request_room(const struct ingest_request *r);

#endif
