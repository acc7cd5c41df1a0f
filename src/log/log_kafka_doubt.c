/* Is what was acknowledged still in the log? Asked of each partition that this node wrote to: when another
 * leader has it, and when an acknowledgement is below one before it. So a log that went back is found
 * without a reader.
 *
 *   ends of one leader ─→ anchor (offset, epoch)     acknowledgements above it ─→ kept (offset, checksum)
 *   doubt ─→ a marker is acknowledged at M ─→ read from the anchor up to M, checked by epoch ─→ intact or not
 *
 * Where a record of ours stands in a log and M behind it, read in one go, there it still stands in the log
 * that M was acknowledged in: a leader that was paused has an old log, and no M. M carries a name of its own: a
 * log that went back below it often begins with another marker.
 *
 * Invariants
 *   1. The anchor is an end that was told after all that was acknowledged below it, under its epoch.
 *   2. A log goes back by losing its end, so it is enough to look for some of those acknowledged since the
 *      anchor: all that fit; if there are more, one of every two, four … in a row, the last, the last before
 *      the marker, and the last before a pause.
 *   3. A record is what it was when it was read if its epoch is.
 *   4. While a doubt reads the partition, its reader does not. */
#include "log/log_kafka.h"

#include "base/bytes.h"
#include "base/time.h"

#include <string.h>

static uint32_t index_of(const struct kafka_partition *p) { return (uint32_t)(p - p->log->partitions); }

/* Who is not missed goes: the next one is within a step of the one before. The first stays and the last, and the
 * last before the marker. */
static void drop_near(struct kafka_partition *p)
{
    size_t count = 1, held = p->doubt.kept_count;
    for (size_t i = 1; i < p->kept_count; i++) {
        bool is_near =
            i + 1 < p->kept_count && p->kept[i + 1].number - p->kept[count - 1].number <= p->kept_step;
        if (!is_near || i + 1 == held)
            p->kept[count++] = p->kept[i];
        if (i + 1 == held)
            p->doubt.kept_count = count;
    }
    p->kept_count = count;
}

/* An election is a pause: a log that lost its end then is told by the last one before, whatever came after it. */
#define PAUSE_NS     (100 * NS_PER_MS)
#define PAUSE_WEIGHT 64

void log_kafka_keep(struct kafka_partition *p, uint64_t offset, uint32_t crc, int64_t now_ns)
{
    if (p->kept_count > 0 && now_ns - p->kept_ns >= PAUSE_NS)
        p->kept_number += PAUSE_WEIGHT;
    p->kept_ns = now_ns;
    struct kafka_kept kept = { offset, crc, p->kept_number };
    p->has_acked = true;
    if (p->anchor != KAFKA_OFFSET_UNKNOWN && offset < p->anchor)
        return;
    p->kept_number++;
    size_t count = p->kept_count;
    bool is_near = count > 1 && kept.number - p->kept[count - 2].number <= p->kept_step;
    if (is_near && count != p->doubt.kept_count) { /* the last one is not missed */
        p->kept[count - 1] = kept;
        return;
    }
    if (count == KAFKA_KEPT_MAX)
        for (drop_near(p); p->kept_count > KAFKA_KEPT_MAX / 2; drop_near(p))
            p->kept_step *= 2;
    p->kept[p->kept_count++] = kept;
}

static void keep_none(struct kafka_partition *p)
{
    p->kept_count = 0;
    p->kept_step = 1;
}

void log_kafka_saw_epoch(struct kafka_partition *p, int32_t epoch, uint64_t offset)
{
    size_t i = p->epoch_count;
    while (i > 0 && p->epochs[i - 1].epoch > epoch)
        i--;
    if (i > 0 && p->epochs[i - 1].epoch == epoch) {
        if (offset < p->epochs[i - 1].from)
            p->epochs[i - 1].from = offset;
        if (offset >= p->epochs[i - 1].to)
            p->epochs[i - 1].to = offset + 1;
        return;
    }
    if (p->epoch_count == KAFKA_EPOCHS_MAX) {
        if (i == 0)
            return;
        memmove(p->epochs, p->epochs + 1, (KAFKA_EPOCHS_MAX - 1) * sizeof p->epochs[0]);
        p->epoch_count--;
        i--;
    }
    memmove(p->epochs + i + 1, p->epochs + i, (p->epoch_count - i) * sizeof p->epochs[0]);
    p->epochs[i].epoch = epoch;
    p->epochs[i].from = offset;
    p->epochs[i].to = offset + 1;
    p->epoch_count++;
}

int32_t log_kafka_epoch_below(const struct kafka_partition *p, uint64_t offset)
{
    size_t i = p->epoch_count;
    while (i > 0 && p->epochs[i - 1].from >= offset)
        i--;
    return i > 0 && offset <= p->epochs[i - 1].to ? p->epochs[i - 1].epoch : LOG_EPOCH_NONE;
}

/* A leader may know more of an epoch than those who followed the one after it (KIP-279). */
uint64_t log_kafka_parting(const struct kafka_partition *p, int32_t epoch, uint64_t end)
{
    for (size_t i = p->epoch_count; i > 0 && p->epochs[i - 1].epoch > epoch; i--)
        if (p->epochs[i - 1].from < end)
            end = p->epochs[i - 1].from;
    return end;
}

/* ---- the stages ---- */

static void leave_reading(struct kafka_partition *p)
{
    if (p->doubt.stage == DOUBT_READING)
        kafka_unassign(p->log->client, index_of(p));
}

static void again(struct kafka_partition *p, int64_t delay_ms)
{
    leave_reading(p);
    p->doubt.kept_count = 0;
    p->doubt.stage = DOUBT_WANTED;
    p->doubt.retry_ns = log_kafka_now_ns(p->log) + delay_ms * NS_PER_MS;
}

static void end_doubt(struct kafka_partition *p)
{
    leave_reading(p);
    p->doubt.kept_count = 0;
    p->doubt.stage = DOUBT_NONE;
    p->doubt.epoch = KAFKA_EPOCH_UNKNOWN;
}

void log_kafka_doubt_reset(struct kafka_partition *p, uint64_t from, int32_t epoch)
{
    end_doubt(p);
    p->anchor = epoch >= 0 ? from : KAFKA_OFFSET_UNKNOWN;
    p->anchor_epoch = epoch;
    keep_none(p);
    while (p->epoch_count > 0 && p->epochs[p->epoch_count - 1].from >= from)
        p->epoch_count--;
    if (p->epoch_count > 0 && p->epochs[p->epoch_count - 1].to > from)
        p->epochs[p->epoch_count - 1].to = from;
}

void log_kafka_doubt(struct log_kafka *log, struct kafka_partition *p, int32_t epoch)
{
    if ((log->config.plants & LOG_KAFKA_PLANT_NO_DOUBT) != 0 && !p->has_gone_back)
        return;
    if (p->found != KAFKA_OFFSET_UNKNOWN || p->back_to != KAFKA_OFFSET_UNKNOWN)
        return; /* it is known */
    if (epoch > p->doubt.epoch)
        p->doubt.epoch = epoch;
    if (p->doubt.stage == DOUBT_NONE)
        again(p, 0);
}

void log_kafka_doubt_ends(struct log_kafka *log, struct kafka_partition *p, const struct kafka_ends *ends)
{
    bool is_anchored = p->anchor != KAFKA_OFFSET_UNKNOWN;
    if (p->doubt.stage != DOUBT_NONE || ends->leader_epoch < p->epoch || ends->leader_epoch < p->anchor_epoch)
        return;
    bool is_told = p->has_acked || ends->end_offset < p->end;
    if (is_anchored ? is_told && ends->leader_epoch > p->anchor_epoch : p->kept_count > 0) {
        log_kafka_doubt(log, p, ends->leader_epoch);
        return;
    }
    if (ends->end_offset < p->end)
        return;
    p->anchor = ends->end_offset;
    p->anchor_epoch = ends->leader_epoch;
    keep_none(p);
}

/* from: at most where the log parts from what was acknowledged. */
static void went_back(struct kafka_partition *p, uint64_t from, int32_t epoch)
{
    const struct kafka_reader *r = p->reader;
    uint64_t marked_at = p->doubt.marked_at;
    end_doubt(p);
    uint64_t highest = marked_at < p->fell_to ? marked_at : p->fell_to;
    log_kafka_set_back(p->log, p, from < highest ? from : highest, epoch);
    if (r != NULL && r->suspected < from)
        log_kafka_set_back(p->log, p, r->suspected, r->suspected_epoch);
}

static void begin_reading(struct kafka_partition *p)
{
    struct kafka_doubt *d = &p->doubt;
    struct log_kafka *log = p->log;
    uint64_t from = p->anchor;
    int32_t epoch = p->anchor_epoch;
    if (from == KAFKA_OFFSET_UNKNOWN && p->kept_count > 0) {
        from = p->kept[0].offset;
    } else if (from == KAFKA_OFFSET_UNKNOWN && p->reader != NULL) {
        from = p->reader->next;
        epoch = p->reader->epoch;
    } else if (from == KAFKA_OFFSET_UNKNOWN)
        from = d->marked_at;
    bool has_expired = from < p->start; /* what is below */
    if (has_expired) {
        from = p->start;
        epoch = KAFKA_EPOCH_UNKNOWN;
    }
    if (has_expired && d->marked_at < from) { /* the marker, too, or the start is one of a log that is gone */
        again(p, LOG_KAFKA_RETRY_MS);
        return;
    }
    d->next = d->intact = from;
    d->intact_epoch = epoch;
    d->is_lost = d->has_met_end = false;
    if (epoch == KAFKA_EPOCH_UNKNOWN && d->marked_at < from) {
        went_back(p, d->marked_at, KAFKA_EPOCH_UNKNOWN);
        return;
    }
    log_kafka_reader_pause(log, p);
    if ((log->config.plants & LOG_KAFKA_PLANT_NO_EPOCH) != 0)
        epoch = KAFKA_EPOCH_UNKNOWN;
    if (kafka_assign(log->client, index_of(p), from, epoch) != OK) {
        again(p, LOG_KAFKA_RETRY_MS);
        return;
    }
    d->stage = DOUBT_READING;
    d->retry_ns = log_kafka_now_ns(log) + LOG_KAFKA_DOUBT_MS * NS_PER_MS;
}

static void marker_done(struct log_append *append, err result, struct log_position position)
{
    struct kafka_partition *p = append->context;
    p->doubt.is_marked = false;
    if (p->doubt.stage != DOUBT_MARKING)
        return;
    p->doubt.marked_at = position.offset - 1;
    bool is_last = p->kept_count == 0 || p->kept[p->kept_count - 1].offset < p->doubt.marked_at;
    if (result == OK && !is_last && !p->has_gone_back)
        again(p, 0); /* one behind it was acknowledged before it: a marker that is sent now knows that */
    else if (result == OK)
        begin_reading(p);
    else
        again(p, LOG_KAFKA_RETRY_MS);
}

static void mark(struct kafka_partition *p)
{
    struct kafka_doubt *d = &p->doubt;
    d->stage = DOUBT_MARKING;
    d->is_marked = true;
    d->kept_count = p->kept_count;
    io_random(p->log->io, d->name, sizeof d->name);
    d->part = slice_of(d->name, sizeof d->name);
    d->marker = (struct log_append){
        .partition = index_of(p), .parts = &d->part, .part_count = 1, .done = marker_done, .context = p
    };
    log_kafka_mark(p->log, &d->marker);
}

void log_kafka_doubt_timers(struct log_kafka *log, int64_t now_ns)
{
    if (log->stage != LOG_KAFKA_RUNNING || log->is_closing)
        return;
    for (uint32_t i = 0; i < log->log.partition_count; i++) {
        struct kafka_partition *p = &log->partitions[i];
        struct kafka_doubt *d = &p->doubt;
        if (d->stage == DOUBT_NONE && !p->has_gone_back)
            continue;
        if (p->found != KAFKA_OFFSET_UNKNOWN || p->back_to != KAFKA_OFFSET_UNKNOWN)
            end_doubt(p); /* somebody else knows more */
        else if (d->stage == DOUBT_NONE) {
            if (p->reader == NULL || p->reader->suspected == KAFKA_OFFSET_UNKNOWN)
                again(p, LOG_KAFKA_RETRY_MS); /* for sure, and nobody looks where */
        } else if (d->stage == DOUBT_READING && now_ns >= d->retry_ns)
            again(p, 0);
        else if (d->stage == DOUBT_WANTED && now_ns >= d->retry_ns && !d->is_marked)
            mark(p);
    }
}

/* ---- what is read ---- */

/* All up to the marker was read. */
static void judge(struct kafka_partition *p, int32_t epoch)
{
    struct kafka_doubt *d = &p->doubt;
    for (size_t i = 0; i < d->kept_count; i++)
        d->is_lost = d->is_lost || p->kept[i].offset >= d->marked_at;
    if (d->is_lost || p->has_gone_back) {
        went_back(p, d->intact, d->intact_epoch);
        return;
    }
    size_t gone = 0;
    while (gone < p->kept_count && p->kept[gone].offset < d->marked_at)
        gone++;
    p->kept_count -= gone;
    memmove(p->kept, p->kept + gone, p->kept_count * sizeof p->kept[0]);
    if (p->kept_count == 0)
        keep_none(p);
    p->anchor = d->marked_at + 1;
    p->anchor_epoch = epoch;
    io_mutex_lock(&p->log->mutex);
    if (epoch > p->epoch)
        p->epoch = epoch;
    if (p->seen.leader_epoch != LOG_EPOCH_NONE && epoch > p->seen.leader_epoch)
        p->seen.leader_epoch = epoch; /* at most: what was seen is there */
    io_mutex_unlock(&p->log->mutex);
    end_doubt(p);
}

static void set_intact(struct kafka_doubt *d, uint64_t offset, int32_t epoch)
{
    d->intact = offset;
    d->intact_epoch = epoch;
}

static void on_record(struct kafka_partition *p, const struct kafka_event *event)
{
    struct kafka_doubt *d = &p->doubt;
    enum kafka_record_kind kind = KAFKA_RECORD_BATCH;
    struct slice payload;
    if (event->offset < d->next)
        return;
    bool is_ours = log_kafka_open_record(p->log, event->record.bytes, &kind, &payload);
    uint32_t crc = is_ours ? get_le32(event->record.bytes.at + 16) : 0;
    int32_t was = log_kafka_epoch_below(p, event->offset + 1); /* when a reader of ours read it */
    d->is_lost = d->is_lost || (was != LOG_EPOCH_NONE && was != event->leader_epoch);
    /* A log that lost its end goes on under a later epoch: what is passed over while the epoch is still that of
     * what was found before is a hole of the log that was acknowledged. */
    bool is_same = event->leader_epoch >= 0 && event->leader_epoch == d->intact_epoch && !d->is_lost;
    for (size_t i = 0; i < p->kept_count; i++) {
        const struct kafka_kept *k = &p->kept[i];
        if (k->offset < d->next || k->offset > event->offset || (is_same && k->offset < event->offset))
            continue;
        if (k->offset == event->offset && is_ours && crc == k->crc && !d->is_lost)
            set_intact(d, k->offset + 1, event->leader_epoch);
        else
            d->is_lost = d->is_lost || i < d->kept_count || k->offset == event->offset;
    }
    /* Of a later epoch than what was found it may have been read of the new log. */
    if (was != LOG_EPOCH_NONE && was == d->intact_epoch && !d->is_lost)
        set_intact(d, event->offset + 1, was);
    d->next = event->offset + 1;
    if (event->offset < d->marked_at)
        return;
    if (event->offset == d->marked_at && is_ours && kind == KAFKA_RECORD_MARKER &&
        slice_equal(payload, d->part) && event->leader_epoch >= d->epoch)
        judge(p, event->leader_epoch);
    else
        again(p, LOG_KAFKA_RETRY_MS); /* another log than the marker's */
}

static void on_truncated(struct kafka_partition *p, const struct kafka_event *event)
{
    const struct kafka_doubt *d = &p->doubt;
    int32_t epoch = event->truncated.end_epoch;
    if (event->truncated.end_offset == KAFKA_OFFSET_UNKNOWN) { /* a leader that does not know the epoch yet */
        again(p, LOG_KAFKA_RETRY_MS);
        return;
    }
    uint64_t end = log_kafka_parting(p, epoch, event->truncated.end_offset);
    if (d->is_lost && d->intact < end) /* it went back twice, and what was read is of the log between */
        went_back(p, d->intact, d->intact_epoch);
    else
        went_back(p, end, epoch);
}

void log_kafka_doubt_event(struct log_kafka *log, const struct kafka_event *event)
{
    struct kafka_partition *p = &log->partitions[event->partition];
    struct kafka_doubt *d = &p->doubt;
    if (!d->has_met_end)
        d->retry_ns = log_kafka_now_ns(log) + LOG_KAFKA_DOUBT_MS * NS_PER_MS;
    switch (event->kind) {
    case KAFKA_EVENT_RECORD:
        on_record(p, event);
        break;
    case KAFKA_EVENT_PARTITION_END: /* the marker is to come, unless it was passed over or is lost */
        d->has_met_end = true;
        if (event->offset > d->marked_at)
            again(p, LOG_KAFKA_RETRY_MS);
        break;
    case KAFKA_EVENT_TRUNCATED:
        on_truncated(p, event);
        break;
    default:
        again(p, LOG_KAFKA_RETRY_MS);
        break;
    }
}
