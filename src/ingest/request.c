/* The life of a request around its decoder: memory, places, records into the log, acknowledgements, the answer.
 * See request.h.
 *
 * Invariants
 *  1. A request's memory is owned by the thread that began it. The log's thread touches only producers and, under
 *     the request's mutex, records' results and pending. After pending is 0 it touches nothing, unless the owner
 *     has left before: then the last append to end owns the memory and gives it back.
 *  2. Each record marks the series it announced on its own acknowledgement, and only in the epoch that was
 *     current when it was begun (protocol §1.2).
 *  3. The request fails if any of its records fails; what the others stored is counted, and a retry may store
 *     it again.
 *  4. A record that was not answered in time has no positive acknowledgement: the marks of its partition are
 *     cleared, whatever its answer will be. While one is under way no request begins, for it would wait behind
 *     it, and its sender would store it again: so those given up are never more than requests_max, and their
 *     records never more than the log's queue and the group it writes. */
#include "ingest/request.h"

#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"

#include <stdarg.h>
#include <stdio.h>

#define REQUEST_BYTES_MIN    ((size_t)64 << 20)
#define REQUEST_BYTES_FACTOR 10 /* of decoded_bytes_max: body, columns, records */

static const char *const reason_names[INGEST_REASON_COUNT] = {
#define REASON_NAME(id, name, text) name,
    INGEST_REASON_LIST(REASON_NAME)
#undef REASON_NAME
};

static const char *const reason_texts[INGEST_REASON_COUNT] = {
#define REASON_TEXT(id, name, text) text,
    INGEST_REASON_LIST(REASON_TEXT)
#undef REASON_TEXT
};

static const enum stat reason_stats[INGEST_REASON_COUNT] = {
    [INGEST_NAME_MISSING] = STAT_INGEST_REFUSED_NAME_MISSING,
    [INGEST_LABELS_INVALID] = STAT_INGEST_REFUSED_LABELS_INVALID,
    [INGEST_LABEL_COUNT] = STAT_INGEST_REFUSED_LABEL_COUNT,
    [INGEST_NAME_LENGTH] = STAT_INGEST_REFUSED_NAME_LENGTH,
    [INGEST_VALUE_LENGTH] = STAT_INGEST_REFUSED_VALUE_LENGTH,
    [INGEST_SERIES_LIMIT] = STAT_INGEST_REFUSED_SERIES_LIMIT,
    [INGEST_SERIES_MEMORY] = STAT_INGEST_REFUSED_SERIES_MEMORY,
    [INGEST_TIME_RANGE] = STAT_INGEST_REFUSED_TIME_RANGE,
    [INGEST_HISTOGRAM_INVALID] = STAT_INGEST_REFUSED_HISTOGRAM_INVALID,
    [INGEST_EXEMPLAR_INVALID] = STAT_INGEST_REFUSED_EXEMPLAR_INVALID,
    [INGEST_METADATA_INVALID] = STAT_INGEST_REFUSED_METADATA_INVALID,
    [INGEST_SAMPLE_MISSING] = STAT_INGEST_REFUSED_SAMPLE_MISSING,
};

const char *ingest_reason_name(enum ingest_reason reason)
{
    check((unsigned)reason < INGEST_REASON_COUNT);
    return reason_names[reason];
}

/* ---- the answer ---- */

static void result_text(struct ingest_result *result, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Add a line to the text; what does not fit is cut at the end of a UTF-8 sequence or before. */
static void result_text(struct ingest_result *result, const char *format, ...)
{
    size_t left = INGEST_TEXT_BYTES_MAX - 1 - result->text_len;
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(result->text + result->text_len, left + 1, format, args);
    va_end(args);
    size_t written = wanted < 0 ? 0 : (size_t)wanted < left ? (size_t)wanted : left;
    result->text_len += written;
    if ((size_t)wanted > left)
        while (result->text_len > 0 && (result->text[result->text_len - 1] & 0x80) != 0)
            result->text_len--;
    result->text[result->text_len] = 0;
}

static void count_status(int status)
{
    stat_add(STAT_INGEST_REQUESTS, 1);
    if (status >= 500)
        stat_add(STAT_INGEST_REQUESTS_FAILED, 1);
    else if (status == 400)
        stat_add(STAT_INGEST_REQUESTS_PARTIAL, 1);
    else if (status > 400)
        stat_add(STAT_INGEST_REQUESTS_REFUSED, 1);
}

static struct ingest_request *refuse(struct ingest_result *out_refusal, int status, const char *text)
{
    *out_refusal = (struct ingest_result){ .status = status, .retry_after_s = status == 400 ? 0 : 1 };
    result_text(out_refusal, "%s\n", text);
    count_status(status);
    return NULL;
}

void request_refuse(struct ingest_request *r, enum ingest_reason reason, uint64_t count, struct slice labels,
                    const char *format, ...)
{
    r->result.refused[reason] += count;
    r->last_reason = reason;
    char *detail = r->detail[reason];
    if (detail[0] != 0)
        return;
    va_list args;
    va_start(args, format);
    int written = vsnprintf(detail, DETAIL_BYTES_MAX, format, args);
    va_end(args);
    size_t len = written < 0 ? 0 : (size_t)written;
    if (len + 8 >= DETAIL_BYTES_MAX || labels.len == 0 || labels_count(labels) == 0)
        return;
    struct buf printed = buf_open(r->pool, LABELS_BYTES_MAX * 5);
    labels_print(labels, &printed);
    snprintf(detail + len, DETAIL_BYTES_MAX - len, " in %.*s", (int)printed.len, (const char *)printed.at);
    buf_close(&printed);
}

void request_refuse_more(struct ingest_request *r, uint64_t count)
{
    r->result.refused[r->last_reason] += count;
}

/* ---- begin ---- */

static void request_free(struct ingest_request *r)
{
    io_cond_done(&r->cond);
    io_mutex_done(&r->mutex);
    pool_close(r->pool);
}

/* Nobody needs the request any more: its memory and its place go back. */
static void request_release(struct ingest_request *r)
{
    struct ingest *ingest = r->ingest;
    pool_reset(r->pool);
    bool keep = pool_used(r->pool) <= IDLE_REQUEST_BYTES;
    io_mutex_lock(&ingest->mutex);
    atomic_fetch_sub(&ingest->in_work, 1);
    keep = keep && ingest->idle_count < IDLE_REQUEST_COUNT;
    if (keep) {
        r->next_idle = ingest->idle;
        ingest->idle = r;
        ingest->idle_count++;
    }
    io_mutex_unlock(&ingest->mutex);
    if (!keep)
        request_free(r);
}

static struct ingest_request *request_new(struct ingest *ingest)
{
    size_t budget = ingest->config.decoded_bytes_max * REQUEST_BYTES_FACTOR + REQUEST_BYTES_MIN;
    struct pool *pool = pool_open(ingest->pool, "ingest request", budget);
    size_t partitions = ingest->config.partition_count;
    void *self = NULL, *columns = NULL, *touched = NULL, *labels = NULL, *ends = NULL;
    if (pool_block_resize(pool, &self, sizeof(struct ingest_request)) != OK ||
        pool_block_resize(pool, &columns, partitions * sizeof(struct columns)) != OK ||
        pool_block_resize(pool, &touched, partitions * sizeof(uint32_t)) != OK ||
        pool_block_resize(pool, &labels, (LABEL_COUNT_MAX + 1) * sizeof(struct label)) != OK ||
        (ingest->config.gives_tokens &&
         pool_block_resize(pool, &ends, partitions * sizeof(uint64_t)) != OK)) {
        pool_close(pool);
        return NULL;
    }
    memset(columns, 0, partitions * sizeof(struct columns));
    struct ingest_request *r = self;
    *r = (struct ingest_request){
        .ingest = ingest,
        .pool = pool,
        .columns = columns,
        .touched = touched,
        .ends = ends,
        .labels = labels,
        .decoded = buf_open(pool, ingest->config.decoded_bytes_max + 64),
        .scratch = buf_open(pool, LABELS_BYTES_MAX + 16),
        .bytes = buf_open(pool, HISTOGRAM_BYTES_MAX * 4),
        .raw = buf_open(pool, LABELS_BYTES_MAX * 2),
        .raw_exemplar = buf_open(pool, LABELS_BYTES_MAX),
        .encoded = buf_open(pool, budget),
    };
    io_mutex_init(&r->mutex);
    io_cond_init(&r->cond);
    return r;
}

/* Ingest mutex held. NULL: there are TENANT_COUNT_MAX already, or no memory. */
static struct tenant *tenant_take(struct ingest *ingest, struct slice name)
{
    struct tenant *t = NULL;
    for (uint32_t i = 0; i < ingest->tenant_count; i++) {
        struct tenant *other = ingest->tenants[i];
        if (other->name_len == 0)
            t = t == NULL ? other : t;
        else if (slice_equal(slice_of(other->name, other->name_len), name))
            return other;
    }
    if (t == NULL) {
        void *at;
        if (ingest->tenant_count == TENANT_COUNT_MAX || pool_zalloc(ingest->pool, sizeof *t, &at) != OK)
            return NULL;
        t = at;
        t->index = (uint16_t)ingest->tenant_count;
        ingest->tenants[ingest->tenant_count++] = t;
    }
    memcpy(t->name, name.at, name.len);
    t->name_len = (uint8_t)name.len;
    t->hasher = series_hasher_of(ingest->config.hash_key, name);
    t->quick_key = hash_quick_key_of(t->hasher.seed);
    t->limits = tenant_limits(ingest, name);
    memset(t->growth, 0, sizeof t->growth);
    return t;
}

/* Find the tenant and count the request in. NULL with the refusal filled. */
static struct tenant *tenant_enter(struct ingest *ingest, struct slice name, int64_t now_ns,
                                   struct ingest_request **out_idle, struct ingest_result *out_refusal)
{
    *out_idle = NULL;
    io_mutex_lock(&ingest->mutex);
    struct tenant *t = tenant_take(ingest, name);
    bool too_many = false, full = ingest->tenant_count == TENANT_COUNT_MAX;
    if (t != NULL) {
        uint32_t max = t->limits.requests_in_flight_max;
        too_many = max != 0 && atomic_load(&t->in_flight) >= max;
        if (!too_many) {
            atomic_fetch_add(&t->in_flight, 1);
            t->used_ns = now_ns;
            *out_idle = ingest->idle;
            if (ingest->idle != NULL) {
                ingest->idle = ingest->idle->next_idle;
                ingest->idle_count--;
            }
        }
    }
    io_mutex_unlock(&ingest->mutex);
    if (t == NULL)
        refuse(out_refusal, full ? 429 : 503, full ? "too many tenants" : "out of memory for tenants");
    else if (too_many)
        refuse(out_refusal, 429, "too many requests of this tenant are in work");
    return too_many ? NULL : t;
}

struct ingest_request *request_begin(struct ingest *ingest, struct slice tenant,
                                     struct ingest_result *out_refusal)
{
    if (tenant.len == 0 || tenant.len > TENANT_BYTES_MAX || !utf8_valid(tenant))
        return refuse(out_refusal, 400, "invalid tenant name");
    if (atomic_load(&ingest->abandoned) > 0)
        return refuse(out_refusal, 503, "the log takes too long to answer, try later");
    if (atomic_fetch_add(&ingest->in_work, 1) >= ingest->config.requests_max) {
        atomic_fetch_sub(&ingest->in_work, 1);
        return refuse(out_refusal, 429, "too many requests are in work");
    }
    int64_t now_ns = io_monotonic_ns(ingest->io);
    struct ingest_request *r;
    struct tenant *t = tenant_enter(ingest, tenant, now_ns, &r, out_refusal);
    if (t == NULL) {
        atomic_fetch_sub(&ingest->in_work, 1);
        return NULL;
    }
    if (r == NULL)
        r = request_new(ingest);
    if (r == NULL) {
        atomic_fetch_sub(&t->in_flight, 1);
        atomic_fetch_sub(&ingest->in_work, 1);
        return refuse(out_refusal, 503, "out of memory for requests");
    }
    int64_t now_ms = io_now_ms(ingest->io);
    r->tenant = t;
    r->now_ms = now_ms < TIME_MS_MIN ? TIME_MS_MIN : now_ms > TIME_MS_MAX ? TIME_MS_MAX : now_ms;
    r->minute = (uint16_t)(now_ns / (60 * NS_PER_SECOND));
    r->previous = SERIES_NONE;
    r->misses = 0;
    r->record_count = r->mark_count = r->metadata_hash_count = 0;
    r->row_total = 0;
    r->pending = 0;
    r->failed = r->left = false;
    r->metadata_epoch = atomic_load(&ingest->metadata_epoch);
    memset(&r->result, 0, offsetof(struct ingest_result, text) + 1);
    r->result.token[0] = 0;
    for (int i = 0; i < INGEST_REASON_COUNT; i++)
        r->detail[i][0] = 0;
    buf_clear(&r->decoded);
    buf_clear(&r->scratch);
    buf_clear(&r->bytes);
    buf_clear(&r->encoded);
    io_rwlock_read(&ingest->lock);
    return r;
}

/* ---- records into the log ---- */

static void append_done(struct log_append *append, err result, struct log_position position)
{
    struct record *record = (struct record *)(void *)((uint8_t *)append - offsetof(struct record, append));
    struct ingest_request *r = append->context;
    struct ingest *ingest = r->ingest;
    struct producer *producer = &ingest->producers[append->partition];
    if (!producer_acked(producer, record->generation, result, position)) {
        atomic_fetch_add(&ingest->metadata_epoch, 1);
        result = result == OK ? ERR_TIMEOUT : result; /* it is stored, and nobody may count on it */
    }
    io_mutex_lock(&r->mutex);
    record->result = result;
    record->end = position.offset + 1;
    bool is_last = --r->pending == 0, left = r->left;
    if (is_last)
        io_cond_signal(&r->cond);
    io_mutex_unlock(&r->mutex);
    if (is_last && left) {
        request_release(r);
        atomic_fetch_sub(&ingest->abandoned, 1);
    }
}

void request_fail(struct ingest_request *r, int status, const char *format, ...)
{
    request_drop_rows(r);
    io_rwlock_unlock(&r->ingest->lock);
    r->record_count = 0;
    r->failed = true;
    struct ingest_result *result = &r->result;
    memset(result->refused, 0, sizeof result->refused);
    result->status = status;
    result->retry_after_s = status == 429 || status == 503 ? 1 : 0;
    char text[INGEST_TEXT_BYTES_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    result_text(result, "%s\n", text);
}

struct series *mark_series(const struct ingest *ingest, uint32_t partition, const struct mark *mark)
{
    struct series *s = series_at(&ingest->table, mark->id);
    return s->tenant != TENANT_NONE && s->number == mark->number && s->partition == partition ? s : NULL;
}

static void set_marks(struct ingest_request *r, const struct record *record)
{
    struct ingest *ingest = r->ingest;
    uint32_t partition = record->append.partition;
    if (atomic_load(&ingest->producers[partition].epoch) != record->epoch ||
        !announcer_keep(ingest, r, record))
        return;
    for (size_t i = record->mark_begin; i < record->mark_end; i++) {
        struct series *s = mark_series(ingest, partition, &r->marks[i]);
        if (s != NULL)
            series_set_mark(s, record->epoch);
    }
    stat_add(STAT_INGEST_ANNOUNCES, (int64_t)(record->mark_end - record->mark_begin));
}

void request_seal(struct ingest_request *r, const char *trouble)
{
    if (request_close_records(r) != OK) {
        request_fail(r, 503, "out of memory for this request");
        return;
    }
    for (size_t i = 0; i < r->record_count; i++) {
        struct producer *producer = &r->ingest->producers[r->records[i].append.partition];
        batch_set_sequence(r->encoded.at + r->records[i].offset, atomic_fetch_add(&producer->sequence, 1));
        if ((r->ingest->config.canary & INGEST_CANARY_MARK_AT_SEND) != 0)
            set_marks(r, &r->records[i]);
    }
    io_rwlock_unlock(&r->ingest->lock);
    if (trouble != NULL)
        result_text(&r->result, "%s\n", trouble);
    r->pending = r->record_count;
    r->deadline_ns = io_monotonic_ns(r->ingest->io) + r->ingest->config.wait_ms_max * NS_PER_MS;
    size_t count = r->record_count; /* with the last append the request may be finished by a poll */
    for (size_t i = 0; i < count; i++) {
        struct record *record = &r->records[i];
        record->part = slice_of(r->encoded.at + record->offset, record->len);
        record->append.parts = &record->part;
        record->append.part_count = 1;
        record->append.done = append_done;
        record->result = ERR_TIMEOUT;
        log_append(r->ingest->log, &record->append);
    }
    stat_add(STAT_INGEST_RECORDS, (int64_t)count);
}

/* ---- the end ---- */

/* Take the appends' results as the answer will tell them. True: some have none yet and are given up. */
static bool take_results(struct ingest_request *r)
{
    io_mutex_lock(&r->mutex);
    bool is_late = r->pending > 0;
    for (size_t i = 0; i < r->record_count; i++)
        r->records[i].answer = r->records[i].result;
    io_mutex_unlock(&r->mutex);
    for (size_t i = 0; is_late && i < r->record_count; i++)
        if (r->records[i].answer == ERR_TIMEOUT)
            producer_forget_marks(&r->ingest->producers[r->records[i].append.partition]);
    if (is_late)
        atomic_fetch_add(&r->ingest->metadata_epoch, 1);
    return is_late;
}

/* What became of a request's records. */
struct outcome {
    err worst;       /* failure of them; OK: there is none */
    bool is_open;    /* of one it is not known whether it is stored */
    bool is_in_part; /* one is stored */
};

/* Add up what the records did. */
static struct outcome collect(struct ingest_request *r)
{
    struct outcome outcome = { .worst = OK };
    struct ingest_result *result = &r->result;
    io_rwlock_read(&r->ingest->lock);
    for (size_t i = 0; i < r->record_count; i++) {
        const struct record *record = &r->records[i];
        if (record->answer != OK) {
            outcome.worst = outcome.worst == ERR_SPACE ? ERR_SPACE : record->answer;
            outcome.is_open |= record->answer == ERR_TIMEOUT || record->answer == ERR_IO;
            continue;
        }
        outcome.is_in_part = true;
        set_marks(r, record);
        result->samples += record->samples;
        result->histograms += record->histograms;
        result->exemplars += record->exemplars;
        result->metadata += record->metadata;
        result->future_samples += record->future;
    }
    io_rwlock_unlock(&r->ingest->lock);
    if (outcome.worst == OK && atomic_load(&r->ingest->metadata_epoch) == r->metadata_epoch)
        for (size_t i = 0; i < r->metadata_hash_count; i++)
            atomic_store_explicit(&r->ingest->metadata_seen[r->metadata_hashes[i] % METADATA_CACHE_COUNT],
                                  r->metadata_hashes[i], memory_order_relaxed);
    return outcome;
}

static void write_answer(struct ingest_request *r, struct outcome outcome, bool is_late)
{
    struct ingest_result *result = &r->result;
    err worst = outcome.worst;
    bool refused = result->text_len > 0; /* the decoder's trouble */
    for (int i = 0; i < INGEST_REASON_COUNT; i++) {
        if (result->refused[i] == 0)
            continue;
        refused = true;
        stat_add(reason_stats[i], (int64_t)result->refused[i]);
        result_text(result, "%s: %llu refused, first: %s\n", reason_texts[i],
                    (unsigned long long)result->refused[i], r->detail[i]);
    }
    result->status = refused ? 400 : 204;
    if (worst != OK) {
        result->status = worst == ERR_SPACE ? 507 : 503;
        result->retry_after_s = worst == ERR_BUSY ? 1 : 5;
        if (is_late)
            result_text(result, "the log did not answer within %lld ms; what was sent may be stored yet\n",
                        (long long)r->ingest->config.wait_ms_max);
        else
            result_text(result, "%s: %s\n",
                        outcome.is_open      ? "may be stored yet"
                        : outcome.is_in_part ? "stored in part"
                                             : "not stored",
                        err_text(worst));
    }
    stat_add(STAT_INGEST_SAMPLES, (int64_t)result->samples);
    stat_add(STAT_INGEST_HISTOGRAMS, (int64_t)result->histograms);
    stat_add(STAT_INGEST_EXEMPLARS, (int64_t)result->exemplars);
    stat_add(STAT_INGEST_SAMPLES_FUTURE, (int64_t)result->future_samples);
}

static void write_token(struct ingest_request *r)
{
    const struct ingest_config *config = &r->ingest->config;
    memset(r->ends, 0, config->partition_count * sizeof *r->ends);
    for (size_t i = 0; i < r->record_count; i++) {
        const struct record *record = &r->records[i];
        uint64_t *end = &r->ends[record->append.partition];
        if (record->answer == OK && record->end > *end)
            *end = record->end;
    }
    r->result.token_len = token_write(config->token_seed, r->ends, config->partition_count, r->result.token);
}

void request_finish(struct ingest_request *r, struct ingest_result *out_result)
{
    struct ingest *ingest = r->ingest;
    bool is_late = take_results(r);
    if (!r->failed)
        write_answer(r, collect(r), is_late);
    if (r->ends != NULL)
        write_token(r);
    memcpy(out_result, &r->result, offsetof(struct ingest_result, text) + r->result.text_len + 1);
    memcpy(out_result->token, r->result.token, r->result.token_len + 1);
    count_status(out_result->status);
    atomic_fetch_sub(&r->tenant->in_flight, 1);
    if (is_late) {
        stat_add(STAT_INGEST_REQUESTS_ABANDONED, 1);
        atomic_fetch_add(&ingest->abandoned, 1);
        io_mutex_lock(&r->mutex);
        r->left = true;
        is_late = r->pending > 0;
        io_mutex_unlock(&r->mutex);
        if (is_late)
            return; /* it is the log's now */
        atomic_fetch_sub(&ingest->abandoned, 1);
    }
    request_release(r);
}

void requests_free(struct ingest *ingest)
{
    while (ingest->idle != NULL) {
        struct ingest_request *r = ingest->idle;
        ingest->idle = r->next_idle;
        request_free(r);
    }
}
