/* Readers of the Kafka driver: what the client reads is queued here until whoever applies it takes it. See
 * log_kafka.h.
 *
 * Invariants  1. A reader tells every offset from where it was opened, in order, once: as a record, as damage,
 * or (markers, holes
 *     that the log really has) as an offset that was passed.
 *  2. A record above the one that is to come is a hole only after it was met LOG_KAFKA_HOLE_TRIES times, each
 * by a
 *     reading of its own: libraries have skipped records before.
 *  3. A leader's word that the log ends below what was read is doubted until a record of our own was
 * acknowledged: below
 *     it, the log went back; above it, the leader was an old one. */
#include "log/log_kafka.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/time.h"

#include <string.h>

static struct log_kafka *log_of(const struct kafka_reader *reader)
{
    return (struct log_kafka *)reader->reader.log;
}

static bool is_idle(const struct kafka_reader *r)
{
    return r->stage == READER_WANTED || r->stage == READER_FAILED;
}

/* told: what a caller hears who has taken everything. */
static void enter(struct kafka_reader *r, enum reader_stage stage, err told)
{
    struct log_kafka *log = log_of(r);
    if (stage != READER_READING)
        kafka_unassign(log->client, r->partition);
    r->stage = stage;
    io_mutex_lock(&log->mutex);
    r->told = told;
    io_mutex_unlock(&log->mutex);
}

static void want(struct kafka_reader *r, int64_t delay_ms)
{
    r->retry_ns = io_monotonic_ns(log_of(r)->io) + delay_ms * NS_PER_MS;
    enter(r, READER_WANTED, ERR_END);
}

/* ---- what was read ---- */

static err push(struct kafka_reader *r, struct log_record record)
{
    struct log_kafka *log = log_of(r);
    void *at = NULL;
    TRY(log_kafka_block(log, sizeof(struct read_ahead) + record.bytes.len, &at));
    struct read_ahead *one = at;
    *one = (struct read_ahead){ .record = record };
    if (record.bytes.len > 0)
        memcpy(one + 1, record.bytes.at, record.bytes.len);
    one->record.bytes = slice_of((uint8_t *)(one + 1), record.bytes.len);
    io_mutex_lock(&log->mutex);
    *r->last = one;
    r->last = &one->next;
    log->ahead_bytes += sizeof *one + record.bytes.len;
    void (*wake)(void *) = log->wake;
    void *context = log->wake_context;
    io_mutex_unlock(&log->mutex);
    if (wake != NULL)
        wake(context);
    return OK;
}

/* The bytes behind our head, when it is ours. */
static bool open_record(const struct log_kafka *log, struct slice bytes, enum kafka_record_kind *out_kind,
                        struct slice *out_payload)
{
    if (bytes.len < LOG_KAFKA_HEAD_BYTES || get_le32(bytes.at) != LOG_KAFKA_MAGIC ||
        memcmp(bytes.at + 8, log->config.cluster_id, 8) != 0)
        return false;
    struct slice payload = slice_of(bytes.at + LOG_KAFKA_HEAD_BYTES, bytes.len - LOG_KAFKA_HEAD_BYTES);
    if (crc32c(payload, crc32c(slice_of(bytes.at, 16), 0)) != get_le32(bytes.at + 16))
        return false;
    *out_kind = bytes.at[4];
    *out_payload = payload;
    return *out_kind == KAFKA_RECORD_BATCH || *out_kind == KAFKA_RECORD_MARKER;
}

static void on_record(struct kafka_reader *r, const struct kafka_event *event)
{
    struct log_kafka *log = log_of(r);
    enum kafka_record_kind kind = KAFKA_RECORD_MARKER;
    struct log_record record = { .position = { .offset = event->offset },
                                 .leader_epoch = event->leader_epoch };
    if (event->offset < r->next)
        return;
    if (event->offset > r->next && ++r->hole_tries < LOG_KAFKA_HOLE_TRIES) {
        want(r, LOG_KAFKA_RETRY_MS);
        return;
    }
    record.missing = event->offset - r->next;
    if (!open_record(log, event->record.bytes, &kind, &record.bytes))
        record.damaged = true;
    else if (kind == KAFKA_RECORD_MARKER)
        record.bytes = slice_of(NULL, 0);
    record.is_marker = !record.damaged && kind == KAFKA_RECORD_MARKER;
    if (push(r, record) != OK) {
        want(r, LOG_KAFKA_RETRY_MS); /* when there is memory again */
        return;
    }
    struct kafka_partition *p = &log->partitions[r->partition];
    r->hole_tries = 0;
    r->marked_at = KAFKA_OFFSET_UNKNOWN;
    r->next = event->offset + 1;
    r->epoch = event->leader_epoch;
    io_mutex_lock(&log->mutex); /* older words of leaders count no more */
    if (event->leader_epoch > p->epoch)
        p->epoch = event->leader_epoch;
    if (r->next > p->end)
        p->end = r->next;
    io_mutex_unlock(&log->mutex);
}

/* ---- a log that seems to end below what was read ---- */

static void go_back(struct kafka_reader *r)
{
    struct log_kafka *log = log_of(r);
    log_kafka_set_back(log, &log->partitions[r->partition], r->suspected);
    enter(r, READER_BACK, ERR_ORDER);
}

static void marker_done(struct log_append *append, err result, struct log_position position)
{
    struct kafka_reader *r = append->context; /* on the pump, as all that touches a reader's stage */
    r->is_marked = false;
    if (r->stage != READER_DOUBTING)
        return;
    if (result != OK) { /* refused where the log is known to have gone back: read_timers sees that */
        r->retry_ns = io_monotonic_ns(log_of(r)->io) + LOG_KAFKA_RETRY_MS * NS_PER_MS;
        return;
    }
    r->marked_at = position.offset - 1;
    if (r->marked_at < r->suspected)
        r->suspected = r->marked_at;
    if (r->marked_at < r->next)
        go_back(r);
    else
        want(r, LOG_KAFKA_RETRY_MS);
}

/* Once a marker was acknowledged, the leader is a present one: then its word is final. */
static void doubt(struct kafka_reader *r, uint64_t end, bool is_final)
{
    if (end < r->suspected)
        r->suspected = end;
    if (is_final && r->marked_at != KAFKA_OFFSET_UNKNOWN) {
        go_back(r);
        return;
    }
    r->retry_ns = 0;
    enter(r, READER_DOUBTING, ERR_END);
}

static void on_out_of_range(struct kafka_reader *r)
{
    struct log_kafka *log = log_of(r);
    const struct kafka_partition *p = &log->partitions[r->partition];
    if (p->confirmed_ns != INT64_MIN && p->start > r->next)
        enter(r, READER_TRIMMED, ERR_NOT_FOUND);
    else if (p->confirmed_ns == INT64_MIN)
        want(r, LOG_KAFKA_RETRY_MS); /* the ends are not known yet */
    else
        doubt(r, p->end < r->next ? p->end : r->next, false);
}

void log_kafka_read_event(struct log_kafka *log, const struct kafka_event *event)
{
    struct kafka_reader *r = log->partitions[event->partition].reader;
    if (r == NULL || r->stage != READER_READING)
        return;
    switch (event->kind) {
    case KAFKA_EVENT_RECORD:
        on_record(r, event);
        break;
    case KAFKA_EVENT_OUT_OF_RANGE:
        on_out_of_range(r);
        break;
    case KAFKA_EVENT_TRUNCATED:
        doubt(r, event->truncated.end_offset < r->next ? event->truncated.end_offset : r->next,
              event->truncated.end_offset != KAFKA_OFFSET_UNKNOWN);
        break;
    case KAFKA_EVENT_READ_FAILED:
        r->retry_ns = io_monotonic_ns(log->io) + LOG_KAFKA_RETRY_MS * NS_PER_MS;
        enter(r, READER_FAILED, ERR_IO);
        break;
    default:
        break; /* an end tells nothing that the ends asked for do not */
    }
}

/* ---- timers ---- */

static void try_to_read(struct kafka_reader *r, int64_t now_ns)
{
    struct log_kafka *log = log_of(r);
    r->retry_ns = now_ns + LOG_KAFKA_RETRY_MS * NS_PER_MS;
    if (kafka_assign(log->client, r->partition, r->next, r->epoch) == OK)
        enter(r, READER_READING, ERR_END);
}

static void mark(struct kafka_reader *r, int64_t now_ns)
{
    struct log_kafka *log = log_of(r);
    r->retry_ns = now_ns + LOG_KAFKA_RETRY_MS * NS_PER_MS;
    r->is_marked = true;
    r->marker = (struct log_append){
        .partition = r->partition, .is_marker = true, .done = marker_done, .context = r, .frees_space = true
    };
    io_mutex_lock(&log->mutex);
    log->queued_bytes += LOG_KAFKA_HEAD_BYTES;
    io_mutex_unlock(&log->mutex);
    log_kafka_submit(log, &r->marker);
}

/* ---- open and close: any thread says it, the pump does it ---- */

static void drop_queue(struct log_kafka *log, struct kafka_reader *r)
{
    while (r->first != NULL) {
        struct read_ahead *one = r->first;
        r->first = one->next;
        log->ahead_bytes -= sizeof *one + one->record.bytes.len;
        pool_block_free(log->pool, one);
    }
}

static void take_doors(struct log_kafka *log)
{
    struct kafka_reader **at = &log->readers, *r;
    io_mutex_lock(&log->mutex);
    while ((r = *at) != NULL) {
        struct kafka_partition *p = &log->partitions[r->partition];
        if (r->is_closed && p->reader == r) {
            kafka_unassign(log->client, r->partition);
            p->reader = NULL;
        }
        if (r->is_closed && !r->is_marked) {
            drop_queue(log, r);
            *at = r->next_reader;
            pool_block_free(log->pool, r);
            continue;
        }
        if (!r->is_closed && p->reader == NULL)
            p->reader = r;
        at = &r->next_reader;
    }
    io_mutex_unlock(&log->mutex);
}

void log_kafka_read_timers(struct log_kafka *log, int64_t now_ns)
{
    take_doors(log);
    if (log->stage != LOG_KAFKA_RUNNING || log->is_closing)
        return;
    for (uint32_t i = 0; i < log->log.partition_count; i++) {
        struct kafka_reader *r = log->partitions[i].reader;
        if (r == NULL || r->is_closed || now_ns < r->retry_ns)
            continue;
        if (is_idle(r))
            try_to_read(r, now_ns);
        else if (r->stage == READER_DOUBTING && log->partitions[i].has_gone_back)
            go_back(r);
        else if (r->stage == READER_DOUBTING && !r->is_marked)
            mark(r, now_ns);
    }
}

err log_kafka_reader_open(struct log *base, uint32_t partition, uint64_t offset, int32_t leader_epoch,
                          struct log_reader **out_reader)
{
    struct log_kafka *log = (struct log_kafka *)base;
    void *at = NULL;
    TRY(log_kafka_block(log, sizeof(struct kafka_reader), &at));
    struct kafka_reader *r = at;
    *r = (struct kafka_reader){ .reader = { .log = base },
                                .partition = partition,
                                .stage = READER_WANTED,
                                .next = offset,
                                .epoch = leader_epoch,
                                .retry_ns = INT64_MIN,
                                .told = ERR_END,
                                .suspected = KAFKA_OFFSET_UNKNOWN,
                                .marked_at = KAFKA_OFFSET_UNKNOWN,
                                .last = &r->first };
    io_mutex_lock(&log->mutex);
    r->next_reader = log->readers;
    log->readers = r;
    io_mutex_unlock(&log->mutex);
    *out_reader = &r->reader;
    return OK;
}

void log_kafka_reader_close(struct log_reader *reader)
{
    struct kafka_reader *r = (struct kafka_reader *)reader;
    struct log_kafka *log = log_of(r);
    io_mutex_lock(&log->mutex);
    if (r->current != NULL)
        pool_block_free(log->pool, r->current);
    r->current = NULL;
    drop_queue(log, r);
    r->is_closed = true;
    io_mutex_unlock(&log->mutex);
}

err log_kafka_reader_next(struct log_reader *reader, struct log_record *out_record)
{
    struct kafka_reader *r = (struct kafka_reader *)reader;
    struct log_kafka *log = log_of(r);
    io_mutex_lock(&log->mutex);
    if (r->current != NULL)
        pool_block_free(log->pool, r->current);
    r->current = r->first;
    err e = r->current == NULL ? r->told : OK;
    if (r->current != NULL) {
        r->first = r->current->next;
        if (r->first == NULL)
            r->last = &r->first;
        log->ahead_bytes -= sizeof *r->current + r->current->record.bytes.len;
        *out_record = r->current->record;
    }
    io_mutex_unlock(&log->mutex);
    return e;
}
