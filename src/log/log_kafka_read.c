/* Readers of the Kafka driver: what the client reads is queued here until whoever applies it takes it. See
 * log_kafka.h.
 *
 * Invariants
 *   1. A reader tells every offset from where it was opened, in order, once: as a record, as damage, or (markers,
 *      holes that the log really has) as an offset that was passed.
 *   2. A record above the one that is to come is a hole only after it was met LOG_KAFKA_HOLE_TRIES times, each by
 *      a reading of its own: libraries have skipped records before.
 *   3. A leader's word that the log ends below what was read is doubted until a record of our own was
 *      acknowledged: below it, the log went back; above it, the leader was an old one, or others wrote since, and
 *      then the next one says it again. Where it parts is what the check by epoch says. A record of an epoch below
 *      that of the record before it is such a word.
 *   4. Who takes nothing holds up nobody else: all may hold half of tail_bytes_max, and above that each its share
 *      of the other half; whose share is full is not read on. */
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
    if (r->stage == READER_READING && stage != READER_READING)
        kafka_unassign(log->client, r->partition);
    r->stage = stage;
    io_mutex_lock(&log->mutex);
    r->told = told;
    r->is_full = stage == READER_FULL;
    io_mutex_unlock(&log->mutex);
}

static void want(struct kafka_reader *r, int64_t delay_ms)
{
    r->retry_ns = log_kafka_now_ns(log_of(r)) + delay_ms * NS_PER_MS;
    enter(r, READER_WANTED, ERR_END);
}

void log_kafka_reader_pause(struct log_kafka *log, struct kafka_partition *p)
{
    if (p->reader != NULL && p->reader->stage == READER_READING)
        want(p->reader, 0);
}

/* ---- room, under the mutex ---- */

static uint64_t share(const struct log_kafka *log)
{
    return log->config.tail_bytes_max / 2 / (log->reader_count > 0 ? log->reader_count : 1);
}

static bool is_full(const struct log_kafka *log, const struct kafka_reader *r)
{
    return r->ahead_bytes >= share(log) && log->ahead_bytes >= log->config.tail_bytes_max / 2;
}

/* Some less than full, or it would be begun anew for each record. */
static bool has_room(const struct log_kafka *log, const struct kafka_reader *r)
{
    return r->ahead_bytes <= share(log) / 2 || log->ahead_bytes <= log->config.tail_bytes_max / 4;
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
    r->ahead_bytes += sizeof *one + record.bytes.len;
    log->ahead_bytes += sizeof *one + record.bytes.len;
    void (*wake)(void *) = log->wake;
    void *context = log->wake_context;
    io_mutex_unlock(&log->mutex);
    if (wake != NULL)
        wake(context);
    return OK;
}

bool log_kafka_open_record(const struct log_kafka *log, struct slice bytes, enum kafka_record_kind *out_kind,
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

/* Nothing is missing before `offset`, or it is for good. */
static bool may_pass(struct kafka_reader *r, uint64_t offset)
{
    if (offset == r->next || ++r->hole_tries >= LOG_KAFKA_HOLE_TRIES)
        return true;
    want(r, 0);
    return false;
}

static void on_record(struct kafka_reader *r, const struct kafka_event *event)
{
    struct log_kafka *log = log_of(r);
    struct kafka_partition *p = &log->partitions[r->partition];
    enum kafka_record_kind kind = KAFKA_RECORD_MARKER;
    if (event->offset < r->next || !may_pass(r, event->offset))
        return;
    struct log_record record = { .position = { .offset = event->offset },
                                 .missing = event->offset - r->next,
                                 .t_ms = event->record.t_ms,
                                 .leader_epoch = event->leader_epoch };
    if (!log_kafka_open_record(log, event->record.bytes, &kind, &record.bytes))
        record.damaged = true;
    else if (kind == KAFKA_RECORD_MARKER)
        record.bytes = slice_of(NULL, 0);
    record.is_marker = !record.damaged && kind == KAFKA_RECORD_MARKER;
    if (push(r, record) != OK) {
        want(r, LOG_KAFKA_RETRY_MS); /* when there is memory again */
        return;
    }
    r->hole_tries = r->back_tries = 0;
    r->marked_at = r->suspected = KAFKA_OFFSET_UNKNOWN;
    r->next = event->offset + 1;
    r->epoch = event->leader_epoch;
    log_kafka_saw_epoch(p, event->leader_epoch, event->offset);
    log_kafka_saw(log, p, event->offset, event->leader_epoch);
    io_mutex_lock(&log->mutex); /* older words of leaders count no more */
    if (event->leader_epoch > p->epoch)
        p->epoch = event->leader_epoch;
    if (r->next > p->end)
        p->end = r->next;
    bool has_enough = is_full(log, r);
    io_mutex_unlock(&log->mutex);
    if (has_enough)
        enter(r, READER_FULL, ERR_END);
}

/* The last of a log may be a hole: whoever waits for the end is to get there. */
static void on_end(struct kafka_reader *r, uint64_t end)
{
    struct log_kafka *log = log_of(r);
    struct kafka_partition *p = &log->partitions[r->partition];
    if (end <= r->next || !may_pass(r, end))
        return;
    io_mutex_lock(&log->mutex);
    p->hollow_from = r->next;
    p->hollow_to = end;
    p->hollow_epoch = p->epoch;
    io_mutex_unlock(&log->mutex);
}

/* ---- a log that seems to end below what was read ---- */

static void go_back(struct kafka_reader *r)
{
    struct log_kafka *log = log_of(r);
    log_kafka_set_back(log, &log->partitions[r->partition], r->suspected, r->suspected_epoch);
    enter(r, READER_DOUBTING, ERR_END); /* told when the topic was looked at */
}

/* epoch: that of the log as it is now reaches to there; KAFKA_EPOCH_UNKNOWN. */
static void suspect(struct kafka_reader *r, uint64_t end, int32_t epoch)
{
    if (end < r->suspected) {
        r->suspected = end;
        r->suspected_epoch = epoch;
    }
}

static void marker_done(struct log_append *append, err result, struct log_position position)
{
    struct kafka_reader *r = append->context; /* on the pump, as all that touches a reader's stage */
    struct log_kafka *log = log_of(r);
    r->is_marked = false;
    io_mutex_lock(&log->mutex);
    bool is_over = r->is_closed;
    io_mutex_unlock(&log->mutex);
    if (is_over || r->stage != READER_DOUBTING)
        return;
    if (result != OK) {
        r->retry_ns = log_kafka_now_ns(log) + LOG_KAFKA_RETRY_MS * NS_PER_MS;
        return;
    }
    r->marked_at = position.offset - 1;
    suspect(r, r->marked_at, KAFKA_EPOCH_UNKNOWN);
    if (r->marked_at < r->next) { /* for sure: nothing is appended until it is known where */
        log_kafka_set_back(log, &log->partitions[r->partition], KAFKA_OFFSET_UNKNOWN, KAFKA_EPOCH_UNKNOWN);
        if (r->epoch < 0 || ++r->back_tries > LOG_KAFKA_HOLE_TRIES) {
            go_back(r); /* no leader says better */
            return;
        }
    }
    want(r, LOG_KAFKA_RETRY_MS);
}

/* Once a marker was acknowledged, a leader is a present one: then its word is final, if it has one. */
static void doubt(struct kafka_reader *r, bool is_final)
{
    const struct log_kafka *log = log_of(r);
    bool believes_all = (log->config.plants & LOG_KAFKA_PLANT_NO_MARKER) != 0;
    if (believes_all || (is_final && r->marked_at != KAFKA_OFFSET_UNKNOWN)) {
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
    else {
        suspect(r, p->end < r->next ? p->end : r->next, KAFKA_EPOCH_UNKNOWN);
        doubt(r, false);
    }
}

static void on_truncated(struct kafka_reader *r, const struct kafka_event *event)
{
    const struct kafka_partition *p = &log_of(r)->partitions[r->partition];
    int32_t epoch = event->truncated.end_epoch;
    bool is_known = event->truncated.end_offset != KAFKA_OFFSET_UNKNOWN;
    suspect(r, r->next, KAFKA_EPOCH_UNKNOWN);
    if (is_known)
        suspect(r, log_kafka_parting(p, epoch, event->truncated.end_offset), epoch);
    doubt(r, is_known);
}

/* In one log epochs never fall: what is next is of a log without the record before it. */
static bool is_fallen(const struct kafka_reader *r, const struct kafka_event *event)
{
    return event->offset >= r->next && event->leader_epoch >= 0 && event->leader_epoch < r->epoch;
}

static void on_fallen(struct kafka_reader *r, const struct kafka_event *event)
{
    const struct kafka_partition *p = &log_of(r)->partitions[r->partition];
    uint64_t end = r->next > 0 ? r->next - 1 : 0;
    suspect(r, log_kafka_parting(p, event->leader_epoch, end), event->leader_epoch);
    doubt(r, true);
}

void log_kafka_read_event(struct log_kafka *log, const struct kafka_event *event)
{
    struct kafka_reader *r = log->partitions[event->partition].reader;
    if (r == NULL || r->stage != READER_READING)
        return;
    switch (event->kind) {
    case KAFKA_EVENT_RECORD:
        if (is_fallen(r, event))
            on_fallen(r, event);
        else
            on_record(r, event);
        break;
    case KAFKA_EVENT_OUT_OF_RANGE:
        on_out_of_range(r);
        break;
    case KAFKA_EVENT_TRUNCATED:
        on_truncated(r, event);
        break;
    case KAFKA_EVENT_READ_FAILED:
        r->retry_ns = log_kafka_now_ns(log) + LOG_KAFKA_RETRY_MS * NS_PER_MS;
        enter(r, READER_FAILED, ERR_IO);
        break;
    case KAFKA_EVENT_PARTITION_END:
        on_end(r, event->offset);
        break;
    default:
        break;
    }
}

/* ---- timers ---- */

static void try_to_read(struct kafka_reader *r, int64_t now_ns)
{
    struct log_kafka *log = log_of(r);
    int32_t epoch = (log->config.plants & LOG_KAFKA_PLANT_NO_EPOCH) != 0 ? KAFKA_EPOCH_UNKNOWN : r->epoch;
    r->retry_ns = now_ns + LOG_KAFKA_RETRY_MS * NS_PER_MS;
    if (log->partitions[r->partition].doubt.stage == DOUBT_READING)
        r->retry_ns = now_ns;
    else if (kafka_assign(log->client, r->partition, r->next, epoch) == OK)
        enter(r, READER_READING, ERR_END);
}

static void go_on_with(struct kafka_reader *r)
{
    struct log_kafka *log = log_of(r);
    io_mutex_lock(&log->mutex);
    bool goes = has_room(log, r);
    io_mutex_unlock(&log->mutex);
    if (goes)
        want(r, 0);
}

static void mark(struct kafka_reader *r, int64_t now_ns)
{
    struct log_kafka *log = log_of(r);
    r->retry_ns = now_ns + LOG_KAFKA_RETRY_MS * NS_PER_MS;
    r->is_marked = true;
    r->marker = (struct log_append){ .partition = r->partition, .done = marker_done, .context = r };
    log_kafka_mark(log, &r->marker);
}

/* ---- open and close: any thread says it, the pump does it ---- */

static void drop_queue(struct log_kafka *log, struct kafka_reader *r)
{
    while (r->first != NULL) {
        struct read_ahead *one = r->first;
        r->first = one->next;
        r->ahead_bytes -= sizeof *one + one->record.bytes.len;
        log->ahead_bytes -= sizeof *one + one->record.bytes.len;
        pool_block_free(log->pool, one);
    }
    r->last = &r->first; /* more may come until the pump has looked */
}

void log_kafka_take_doors(struct log_kafka *log)
{
    struct kafka_reader **at = &log->readers, *r;
    while ((r = *at) != NULL) {
        struct kafka_partition *p = &log->partitions[r->partition];
        if (r->is_closed && p->reader == r) {
            if (r->stage == READER_READING)
                kafka_unassign(log->client, r->partition);
            p->reader = NULL;
            log->reader_count--;
        }
        if (r->is_closed && !r->is_marked) {
            drop_queue(log, r);
            *at = r->next_reader;
            pool_block_free(log->pool, r);
            continue;
        }
        if (!r->is_closed && p->reader == NULL) {
            p->reader = r;
            log->reader_count++;
        }
        at = &r->next_reader;
    }
}

void log_kafka_read_timers(struct log_kafka *log, int64_t now_ns)
{
    if (log->stage != LOG_KAFKA_RUNNING || log->is_closing)
        return;
    for (uint32_t i = 0; i < log->log.partition_count; i++) {
        const struct kafka_partition *p = &log->partitions[i];
        struct kafka_reader *r = p->reader;
        if (r == NULL || r->is_closed)
            continue;
        if (p->back_to != KAFKA_OFFSET_UNKNOWN && r->stage != READER_TRIMMED && r->stage != READER_BACK)
            enter(r, READER_BACK, ERR_ORDER);
        else if (r->stage == READER_FULL)
            go_on_with(r);
        else if (now_ns < r->retry_ns)
            continue;
        else if (is_idle(r))
            try_to_read(r, now_ns);
        else if (r->stage == READER_DOUBTING && p->found == KAFKA_OFFSET_UNKNOWN && !r->is_marked)
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
    kafka_wake(log->client);
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
    kafka_wake(log->client);
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
        r->ahead_bytes -= sizeof *r->current + r->current->record.bytes.len;
        log->ahead_bytes -= sizeof *r->current + r->current->record.bytes.len;
        *out_record = r->current->record;
        if (r->is_full && has_room(log, r)) {
            r->is_full = false; /* said once */
            kafka_wake(log->client);
        }
    }
    io_mutex_unlock(&log->mutex);
    return e;
}
