/* The Kafka driver: appends come from any thread into the inbox, the pump hands them to the client and answers
 * them; what the client reads goes to readers (log_kafka_read.c).
 *
 *   log_append → inbox → sending (per partition, in order) → kafka_produce … KAFKA_EVENT_DELIVERED → done
 *
 * Invariants
 *   1. Every append is answered exactly once: from its sending, or from log_append itself when it is refused.
 *   2. OK means: acknowledged at an offset above every one acknowledged before in the partition. An offset below
 *      an end that was known when the record was handed over, a marker too, means that the log went back, and no
 *      append is taken there until it is known how it goes on.
 *   3. What an attempt left open is sent again under the same bytes until its deadline; readers that apply
 *      records count a second copy as none. ERR_TIMEOUT: it may be stored yet. ERR_BUSY: it is not.
 *   4. An end is believed when its leader epoch is not below the highest seen and it is not below any end seen
 *      or acknowledged: a leader that was paused tells old ones. What was seen counts, believed or not.
 *   5. That a log went back is told only after the topic was seen to be the same one since.
 *   6. Deadlines count while the machine sleeps. */
#include "log/log_kafka.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/time.h"

#include <string.h>

#define POLL_MS       50 /* of timers; what is to be done at once wakes the pump */
#define EVENTS_A_PUMP 4096

static struct log_kafka *kafka_of(struct log *log) { return (struct log_kafka *)log; }

err log_kafka_block(struct log_kafka *log, size_t bytes, void **out_at)
{
    void *at = NULL;
    io_mutex_lock(&log->mutex);
    err e = pool_block_resize(log->pool, &at, bytes);
    io_mutex_unlock(&log->mutex);
    if (e == OK)
        *out_at = at;
    return e;
}

void log_kafka_block_free(struct log_kafka *log, void *at)
{
    if (at == NULL)
        return;
    io_mutex_lock(&log->mutex);
    pool_block_free(log->pool, at);
    io_mutex_unlock(&log->mutex);
}

/* ---- records ---- */

static void put_head(const struct log_kafka *log, const struct log_append *append, uint8_t *head)
{
    uint32_t crc = 0;
    put_le32(head, LOG_KAFKA_MAGIC);
    head[4] = append->is_marker ? KAFKA_RECORD_MARKER : KAFKA_RECORD_BATCH;
    memset(head + 5, 0, 3);
    memcpy(head + 8, log->config.cluster_id, 8);
    crc = crc32c(slice_of(head, 16), 0);
    for (size_t i = 0; i < append->part_count; i++)
        crc = crc32c(append->parts[i], crc);
    put_le32(head + 16, crc);
}

static uint64_t append_bytes(const struct log_append *append)
{
    uint64_t bytes = LOG_KAFKA_HEAD_BYTES;
    for (size_t i = 0; i < append->part_count; i++)
        bytes += append->parts[i].len;
    return bytes;
}

/* ---- from any thread ---- */

static const struct log_position nowhere;

static err refusal(const struct log_kafka *log, const struct log_append *append)
{
    uint64_t bytes = append_bytes(append);
    return log->is_closing                                           ? ERR_CLOSED
           : bytes > LOG_RECORD_BYTES_MAX + LOG_KAFKA_HEAD_BYTES     ? ERR_LIMIT
           : log->stage != LOG_KAFKA_RUNNING                         ? ERR_BUSY
           : log->queued_bytes + bytes > log->config.queue_bytes_max ? ERR_BUSY
                                                                     : OK;
}

static void kafka_append(struct log *base, struct log_append *append)
{
    struct log_kafka *log = kafka_of(base);
    append->next = NULL;
    io_mutex_lock(&log->mutex);
    err e = refusal(log, append);
    if (e == OK) {
        bool is_first = log->inbox == NULL;
        log->queued_bytes += append_bytes(append);
        log->open_count++;
        *log->inbox_last = append;
        log->inbox_last = &append->next;
        if (is_first)
            kafka_wake(log->client); /* under the mutex: close cannot have begun */
    }
    io_mutex_unlock(&log->mutex);
    if (e != OK)
        append->done(append, e, nowhere);
}

static struct log_watermarks kafka_watermarks(struct log *base, uint32_t partition)
{
    struct log_kafka *log = kafka_of(base);
    io_mutex_lock(&log->mutex);
    const struct kafka_partition *p = &log->partitions[partition];
    bool is_hollow = p->end == p->hollow_to && p->epoch == p->hollow_epoch;
    uint64_t end = is_hollow ? p->hollow_from : p->end;
    struct log_watermarks w = { .generation = p->generation,
                                .start_offset = p->start,
                                .end_offset = p->goes_on ? p->goes_on_at : end,
                                .confirmed_ns = p->goes_on ? INT64_MIN : p->confirmed_ns };
    io_mutex_unlock(&log->mutex);
    return w;
}

/* Known for the place that it went back to, where a generation begins. */
static int32_t kafka_epoch_before(struct log *base, uint32_t partition, uint64_t offset)
{
    struct log_kafka *log = kafka_of(base);
    const struct kafka_partition *p = &log->partitions[partition];
    io_mutex_lock(&log->mutex);
    int32_t epoch = p->back_to == offset ? p->back_epoch : LOG_EPOCH_NONE;
    io_mutex_unlock(&log->mutex);
    return epoch;
}

static err kafka_went_back(struct log *base, uint32_t partition, uint64_t *out_from)
{
    struct log_kafka *log = kafka_of(base);
    struct kafka_partition *p = &log->partitions[partition];
    io_mutex_lock(&log->mutex);
    err e = p->goes_on || !p->has_gone_back      ? ERR_NOT_FOUND
            : p->back_to == KAFKA_OFFSET_UNKNOWN ? ERR_BUSY
                                                 : OK;
    if (e == OK)
        *out_from = p->back_told = p->back_to;
    io_mutex_unlock(&log->mutex);
    return e;
}

static struct log_seen kafka_seen(struct log *base, uint32_t partition)
{
    struct log_kafka *log = kafka_of(base);
    io_mutex_lock(&log->mutex);
    struct log_seen seen = log->partitions[partition].seen;
    io_mutex_unlock(&log->mutex);
    return seen;
}

static void kafka_go_on(struct log *base, uint32_t partition, uint64_t from)
{
    struct log_kafka *log = kafka_of(base);
    struct kafka_partition *p = &log->partitions[partition];
    io_mutex_lock(&log->mutex);
    if (p->back_to != KAFKA_OFFSET_UNKNOWN && p->back_told == p->back_to && from <= p->back_to) {
        p->goes_on_at = from;
        p->goes_on = true;
        kafka_wake(log->client);
    }
    io_mutex_unlock(&log->mutex);
}

/* What was known of the partition's end was of a log that is gone. */
static void begin_generation(struct kafka_partition *p)
{
    uint64_t place = p->back_to;
    p->goes_on = false;
    p->back_to = p->back_told = KAFKA_OFFSET_UNKNOWN;
    if (p->found < place)
        return; /* it went back further meanwhile: the owner hears of that when the topic was looked at */
    p->has_gone_back = false;
    p->generation++;
    p->acked = p->found = p->fell_to = KAFKA_OFFSET_UNKNOWN;
    p->end = p->hollow_from = p->hollow_to = p->goes_on_at;
    p->seen = (struct log_seen){ p->goes_on_at, LOG_EPOCH_NONE };
    p->end_asked = KAFKA_OFFSET_UNKNOWN;
    p->confirmed_ns = INT64_MIN;
    log_kafka_doubt_reset(p, place, p->found_epoch);
    p->found_epoch = KAFKA_EPOCH_UNKNOWN;
    for (struct sending *s = p->first; s != NULL; s = s->next)
        s->floor = 0;
}

/* What other threads said. In one look: a reader that is opened after log_go_on belongs to the new generation. */
static void take_orders(struct log_kafka *log)
{
    io_mutex_lock(&log->mutex);
    for (uint32_t i = 0; i < log->log.partition_count; i++)
        if (log->partitions[i].goes_on)
            begin_generation(&log->partitions[i]);
    log_kafka_take_doors(log);
    io_mutex_unlock(&log->mutex);
}

static struct log_usage kafka_usage(struct log *base)
{
    struct log_kafka *log = kafka_of(base);
    io_mutex_lock(&log->mutex);
    struct log_usage usage = { .queued_bytes = log->queued_bytes };
    io_mutex_unlock(&log->mutex);
    return usage;
}

/* ---- answering ---- */

static void answer_append(struct log_kafka *log, struct log_append *append, bool is_own, err result,
                          struct log_position position)
{
    uint64_t bytes = append_bytes(append); /* the parts are the caller's again once done is called */
    append->done(append, result, position);
    io_mutex_lock(&log->mutex);
    log->queued_bytes -= bytes;
    log->open_count -= !is_own;
    io_cond_broadcast(&log->answered);
    io_mutex_unlock(&log->mutex);
}

/* The sending is out of its list. */
static void answer(struct log_kafka *log, struct sending *sending, err result, struct log_position position)
{
    struct log_append *append = sending->append;
    bool is_own = sending->is_own;
    log_kafka_block_free(log, sending);
    answer_append(log, append, is_own, result, position);
}

static void unlink_sending(struct kafka_partition *p, struct sending *sending)
{
    struct sending **at = &p->first;
    while (*at != sending)
        at = &(*at)->next;
    *at = sending->next;
    if (p->last == &sending->next)
        p->last = at;
}

/* Of an append that is given up. */
static err lost(const struct log_kafka *log, const struct sending *sending)
{
    return sending->may_be_stored ? ERR_TIMEOUT : log->is_closing ? ERR_CLOSED : ERR_BUSY;
}

static bool is_late(const struct log_kafka *log, const struct sending *sending, int64_t now_ns)
{
    return log->is_closing || now_ns - sending->handed_ns >= log->config.delivery_ms_max * NS_PER_MS;
}

void log_kafka_set_back(struct log_kafka *log, struct kafka_partition *p, uint64_t from, int32_t epoch)
{
    io_mutex_lock(&log->mutex);
    p->has_gone_back = true;
    io_mutex_unlock(&log->mutex);
    if (from == KAFKA_OFFSET_UNKNOWN)
        return;
    if ((log->config.plants & LOG_KAFKA_PLANT_HIGH_BACK) != 0)
        from = p->end;
    if (from < p->found) {
        p->found = from;
        p->found_epoch = epoch;
    }
    p->found_looks = log->topic_looks;
    log->topic_at_ns = INT64_MIN;
}

void log_kafka_saw(struct log_kafka *log, struct kafka_partition *p, uint64_t offset, int32_t epoch)
{
    bool is_new = offset >= p->seen.end_offset;
    if (!is_new && p->seen.leader_epoch != LOG_EPOCH_NONE && epoch > p->seen.leader_epoch)
        log_kafka_doubt(log, p, epoch); /* what was seen behind it is of a lower epoch */
    if (!is_new || p->has_gone_back || p->doubt.stage != DOUBT_NONE)
        return;
    io_mutex_lock(&log->mutex);
    p->seen = (struct log_seen){ offset + 1, epoch };
    io_mutex_unlock(&log->mutex);
}

static void raise_end(struct log_kafka *log, struct kafka_partition *p, uint64_t end)
{
    io_mutex_lock(&log->mutex);
    if (end > p->end)
        p->end = end;
    io_mutex_unlock(&log->mutex);
}

/* Whose clock stood still, so that who forgets writers may have forgotten this one, was not acknowledged. */
static bool is_too_late(const struct log_kafka *log, const struct sending *sending, int64_t now_ns)
{
    return now_ns - sending->handed_ns >= (2 * log->config.delivery_ms_max + LOG_KAFKA_ASK_MS) * NS_PER_MS;
}

static void on_acked(struct log_kafka *log, struct kafka_partition *p, struct sending *sending,
                     uint64_t offset, int64_t now_ns)
{
    bool is_above = p->acked == KAFKA_OFFSET_UNKNOWN || offset > p->acked;
    bool is_late = is_too_late(log, sending, now_ns);
    if (offset < sending->floor) {
        p->fell_to = offset < p->fell_to ? offset : p->fell_to;
        log_kafka_set_back(log, p, KAFKA_OFFSET_UNKNOWN, KAFKA_EPOCH_UNKNOWN);
    }
    if (!is_above)
        log_kafka_doubt(log, p, KAFKA_EPOCH_UNKNOWN);
    if (is_above && !p->has_gone_back) {
        p->acked = offset;
        raise_end(log, p, offset + 1);
        if (!sending->append->is_marker)
            log_kafka_saw(log, p, offset, p->epoch);
        if (!sending->append->is_marker)
            log_kafka_keep(p, offset, get_le32(sending->head + 16), now_ns);
    }
    err result = sending->is_own ? OK : p->has_gone_back ? ERR_IO : !is_above || is_late ? ERR_TIMEOUT : OK;
    answer(log, sending, result, (struct log_position){ p->generation, offset + sending->append->is_marker });
}

static void on_delivered(struct log_kafka *log, const struct kafka_event *event, int64_t now_ns)
{
    struct sending *sending = (struct sending *)(uintptr_t)event->cookie;
    struct kafka_partition *p = &log->partitions[event->partition];
    unsigned plants = log->config.plants;
    sending->is_flying = false;
    if (event->delivery == KAFKA_ACKED) {
        unlink_sending(p, sending);
        on_acked(log, p, sending, event->offset, now_ns);
        return;
    }
    bool may_be = event->delivery == KAFKA_MAYBE_STORED && (plants & LOG_KAFKA_PLANT_NOT_STORED) == 0;
    sending->may_be_stored = sending->may_be_stored || may_be;
    if (may_be && (plants & LOG_KAFKA_PLANT_EARLY_ACK) != 0) {
        unlink_sending(p, sending);
        answer(log, sending, OK, (struct log_position){ p->generation, p->end });
    } else if (event->result == ERR_LIMIT && !sending->may_be_stored) {
        unlink_sending(p, sending);
        answer(log, sending, ERR_LIMIT, nowhere);
    } else if (is_late(log, sending, now_ns)) {
        unlink_sending(p, sending);
        answer(log, sending, lost(log, sending), nowhere);
    } else
        sending->retry_ns = now_ns + LOG_KAFKA_RESEND_MS * NS_PER_MS;
    if (may_be && (plants & LOG_KAFKA_PLANT_NO_RESEND) != 0)
        sending->is_flying = true;
}

/* ---- the pump ---- */

static void submit(struct log_kafka *log, struct log_append *append, bool is_own)
{
    struct kafka_partition *p = &log->partitions[append->partition];
    void *at = NULL;
    err e = p->has_gone_back && !is_own ? ERR_BUSY : log_kafka_block(log, sizeof(struct sending), &at);
    if (e != OK) {
        answer_append(log, append, is_own, e == ERR_LIMIT ? ERR_BUSY : e, nowhere);
        return;
    }
    struct sending *sending = at;
    *sending = (struct sending){ .append = append, .handed_ns = log_kafka_now_ns(log), .is_own = is_own };
    put_head(log, append, sending->head);
    *p->last = sending;
    p->last = &sending->next;
}

void log_kafka_mark(struct log_kafka *log, struct log_append *append)
{
    append->is_marker = true;
    io_mutex_lock(&log->mutex);
    log->queued_bytes += append_bytes(append);
    io_mutex_unlock(&log->mutex);
    submit(log, append, true);
}

static void take_inbox(struct log_kafka *log)
{
    io_mutex_lock(&log->mutex);
    struct log_append *append = log->inbox;
    log->inbox = NULL;
    log->inbox_last = &log->inbox;
    io_mutex_unlock(&log->mutex);
    while (append != NULL) {
        struct log_append *next = append->next;
        submit(log, append, false);
        append = next;
    }
}

#define PARTS_MAX 64

/* False: the client takes no more for now. */
static bool hand_over(struct log_kafka *log, struct kafka_partition *p, struct sending *sending)
{
    struct slice parts[PARTS_MAX + 1];
    const struct log_append *append = sending->append;
    check(append->part_count <= PARTS_MAX);
    parts[0] = slice_of(sending->head, LOG_KAFKA_HEAD_BYTES);
    for (size_t i = 0; i < append->part_count; i++)
        parts[i + 1] = append->parts[i];
    err e = kafka_produce(log->client, append->partition, parts, append->part_count + 1,
                          (uint64_t)(uintptr_t)sending);
    sending->is_flying = e == OK;
    sending->floor = p->end;
    if (e == OK || e == ERR_BUSY || e == ERR_CLOSED)
        return e == OK;
    unlink_sending(p, sending);
    answer(log, sending, e == ERR_LIMIT && !sending->may_be_stored ? ERR_LIMIT : lost(log, sending), nowhere);
    return true;
}

/* Whatever else waits: nothing waits beyond its deadline. */
static void give_up_late(struct log_kafka *log, int64_t now_ns)
{
    for (uint32_t i = 0; i < log->log.partition_count; i++) {
        struct kafka_partition *p = &log->partitions[i];
        struct sending *next;
        for (struct sending *s = p->first; s != NULL; s = next) {
            next = s->next;
            if (s->is_flying || !is_late(log, s, now_ns))
                continue;
            unlink_sending(p, s);
            answer(log, s, lost(log, s), nowhere);
        }
    }
}

/* Another partition is first each time: when the client takes no more, nobody is always the last. */
static void hand_over_all(struct log_kafka *log, int64_t now_ns)
{
    uint32_t first = log->turn++;
    bool goes = log->is_producing && log->stage == LOG_KAFKA_RUNNING;
    for (uint32_t i = 0; goes && i < log->log.partition_count; i++) {
        struct kafka_partition *p = &log->partitions[(first + i) % log->log.partition_count];
        struct sending *next;
        for (struct sending *s = p->first; s != NULL; s = next) {
            next = s->next;
            bool may_go = !s->is_flying && now_ns >= s->retry_ns && (s->is_own || !p->has_gone_back);
            if (may_go && !hand_over(log, p, s))
                return;
        }
    }
}

static void keep_producer(struct log_kafka *log, int64_t now_ns)
{
    struct err_at at = { 0 };
    if (log->is_producing || log->is_stopping_producer || log->is_closing ||
        log->stage != LOG_KAFKA_RUNNING || now_ns < log->producer_retry_ns)
        return;
    log->producer_retry_ns = now_ns + LOG_KAFKA_RETRY_MS * NS_PER_MS;
    log->is_producing = kafka_producer_start(log->client, &at) == OK;
}

static void stop_producer(struct log_kafka *log)
{
    if (!log->is_producing)
        return;
    log->is_producing = false;
    log->is_stopping_producer = true;
    kafka_producer_stop(log->client);
}

/* ---- ends ---- */

/* Of all partitions at first, then of those that are read or written. */
static void ask_ends(struct log_kafka *log, int64_t now_ns)
{
    uint32_t partitions[LOG_PARTITION_COUNT_MAX];
    size_t count = 0;
    if (log->stage != LOG_KAFKA_RUNNING || log->ends_cookie != 0 || now_ns < log->ends_at_ns)
        return;
    for (uint32_t i = 0; i < log->log.partition_count; i++) {
        struct kafka_partition *p = &log->partitions[i];
        p->end_asked = p->end;
        if (p->reader != NULL || p->has_acked || p->anchor == KAFKA_OFFSET_UNKNOWN)
            partitions[count++] = i;
    }
    log->ends_at_ns = now_ns + LOG_KAFKA_ENDS_MS * NS_PER_MS;
    log->ends_asked_ns = now_ns;
    if (count > 0 &&
        kafka_ask_ends(log->client, partitions, count, LOG_KAFKA_ASK_MS, ++log->next_cookie) == OK)
        log->ends_cookie = log->next_cookie;
}

static void on_ends(struct log_kafka *log, const struct kafka_event *event)
{
    if (event->cookie != log->ends_cookie)
        return;
    log->ends_cookie = 0;
    for (size_t i = 0; event->result == OK && i < event->ends.count; i++) {
        const struct kafka_ends *ends = &event->ends.at[i];
        struct kafka_partition *p = &log->partitions[ends->partition];
        bool is_any = (log->config.plants & LOG_KAFKA_PLANT_ANY_END) != 0;
        if (ends->result != OK)
            continue;
        if (!p->has_gone_back)
            log_kafka_doubt_ends(log, p, ends);
        if (!is_any && ends->leader_epoch < p->epoch)
            continue; /* an old leader */
        if (ends->leader_epoch != p->epoch && p->hollow_from < p->hollow_to)
            log_kafka_reader_pause(log, p); /* is it still empty there? */
        io_mutex_lock(&log->mutex);
        p->epoch = ends->leader_epoch;
        p->start = ends->start_offset;
        /* What was read or acknowledged meanwhile may be beyond it: a log that is written to all the time
         * would hardly ever be confirmed else. */
        if (is_any || (ends->end_offset >= p->end_asked && !p->has_gone_back)) {
            if (is_any || ends->end_offset > p->end)
                p->end = ends->end_offset;
            p->confirmed_ns = log->ends_asked_ns;
        } /* else the log went back: then readers and doubts find out */
        io_mutex_unlock(&log->mutex);
    }
}

static void on_event(struct log_kafka *log, const struct kafka_event *event)
{
    switch (event->kind) {
    case KAFKA_EVENT_DELIVERED:
        on_delivered(log, event, log_kafka_now_ns(log));
        break;
    case KAFKA_EVENT_PRODUCER_FATAL:
        stop_producer(log);
        break;
    case KAFKA_EVENT_PRODUCER_STOPPED:
        log->is_stopping_producer = false;
        break;
    case KAFKA_EVENT_ENDS:
        on_ends(log, event);
        break;
    case KAFKA_EVENT_TOPIC:
        log_kafka_on_topic(log, event);
        break;
    case KAFKA_EVENT_RECORD:
    case KAFKA_EVENT_PARTITION_END:
    case KAFKA_EVENT_OUT_OF_RANGE:
    case KAFKA_EVENT_TRUNCATED:
    case KAFKA_EVENT_READ_FAILED:
        if (log->partitions[event->partition].doubt.stage == DOUBT_READING)
            log_kafka_doubt_event(log, event);
        else
            log_kafka_read_event(log, event);
        break;
    case KAFKA_EVENT_DONE:
        log_kafka_on_done(log, event);
        break;
    case KAFKA_EVENT_TROUBLE:
        break;
    }
}

static void take_events(struct log_kafka *log, int64_t budget_ms)
{
    struct kafka_event event;
    for (int i = 0; i < EVENTS_A_PUMP; i++) {
        if (kafka_poll(log->client, i == 0 ? budget_ms : 0, true, &event) != OK)
            break;
        on_event(log, &event);
    }
}

static void set_pumping(struct log_kafka *log, bool is_pumping)
{
    io_mutex_lock(&log->mutex);
    log->is_pumping = is_pumping;
    if (!is_pumping) {
        log->pumps++;
        io_cond_broadcast(&log->answered);
    }
    io_mutex_unlock(&log->mutex);
}

static err pump(struct log_kafka *log, int64_t budget_ms)
{
    int64_t now_ns = log_kafka_now_ns(log);
    set_pumping(log, true);
    take_orders(log);
    log_kafka_ask_topic(log, now_ns);
    log_kafka_ask_retain(log, now_ns);
    keep_producer(log, now_ns);
    ask_ends(log, now_ns);
    log_kafka_read_timers(log, now_ns);
    log_kafka_doubt_timers(log, now_ns);
    take_inbox(log);
    give_up_late(log, now_ns);
    hand_over_all(log, now_ns);
    take_events(log, budget_ms);
    set_pumping(log, false);
    return OK;
}

static err kafka_pump(struct log *base) { return pump(kafka_of(base), 0); }

/* ---- its thread, its end ---- */

static void run(void *context)
{
    struct log_kafka *log = context;
    for (;;) {
        io_mutex_lock(&log->mutex);
        bool is_over = log->is_closing;
        io_mutex_unlock(&log->mutex);
        if (is_over)
            return;
        ERR_IGNORE(pump(log, POLL_MS)); /* nothing of it fails */
    }
}

static err kafka_run_thread(struct log *base)
{
    struct log_kafka *log = kafka_of(base);
    return io_thread_start(log->io, "log", run, log, &log->thread);
}

static void kafka_drain(struct log *base)
{
    struct log_kafka *log = kafka_of(base);
    io_mutex_lock(&log->mutex);
    uint64_t pumps = log->pumps + log->is_pumping; /* one that begins later knows what is so now */
    kafka_wake(log->client);
    while (log->open_count > 0 || log->pumps < pumps) {
        if (log->thread != NULL)
            io_cond_wait(&log->answered, &log->mutex);
        else {
            io_mutex_unlock(&log->mutex);
            ERR_IGNORE(pump(log, POLL_MS));
            io_mutex_lock(&log->mutex);
        }
    }
    io_mutex_unlock(&log->mutex);
}

static bool is_anything_open(const struct log_kafka *log)
{
    for (uint32_t i = 0; i < log->log.partition_count; i++)
        if (log->partitions[i].first != NULL)
            return true;
    return log->is_stopping_producer;
}

static void kafka_close(struct log *base)
{
    struct log_kafka *log = kafka_of(base);
    io_mutex_lock(&log->mutex);
    log->is_closing = true;
    kafka_wake(log->client);
    io_mutex_unlock(&log->mutex);
    if (log->thread != NULL)
        io_thread_join(log->thread);
    stop_producer(log);
    take_inbox(log);
    while (is_anything_open(log)) { /* the client answers within KAFKA_STOP_MS_MAX */
        give_up_late(log, log_kafka_now_ns(log));
        take_events(log, POLL_MS);
    }
    take_orders(log);
    check(log->readers == NULL); /* closed before the log; their markers are answered by now */
    kafka_client_close(log->client);
    io_cond_done(&log->answered);
    io_mutex_done(&log->mutex);
    pool_close(log->pool);
}

static void kafka_on_durable(struct log *base, void (*wake)(void *context), void *context)
{
    struct log_kafka *log = kafka_of(base);
    io_mutex_lock(&log->mutex);
    log->wake = wake;
    log->wake_context = context;
    io_mutex_unlock(&log->mutex);
}

/* ---- what brokers do by themselves ---- */

static const struct log_damage *kafka_damages(const struct log *log, size_t *out_count)
{
    *out_count = 0; /* told by readers */
    return NULL;
}

static err kafka_trim(struct log *log, uint32_t partition, uint64_t before) { return OK; }
static bool kafka_is_held(struct log *log, uint32_t partition) { return false; }
static err kafka_tidy(struct log *log) { return OK; }

static const struct log_driver kafka_driver = {
    .close = kafka_close,
    .damages = kafka_damages,
    .append = kafka_append,
    .pump = kafka_pump,
    .run_thread = kafka_run_thread,
    .drain = kafka_drain,
    .on_durable = kafka_on_durable,
    .reader_open = log_kafka_reader_open,
    .reader_close = log_kafka_reader_close,
    .reader_next = log_kafka_reader_next,
    .watermarks = kafka_watermarks,
    .went_back = kafka_went_back,
    .seen = kafka_seen,
    .epoch_before = kafka_epoch_before,
    .go_on = kafka_go_on,
    .trim = kafka_trim,
    .is_held = kafka_is_held,
    .tidy = kafka_tidy,
    .usage = kafka_usage,
};

err log_kafka_open(const struct log_kafka_config *config, struct kafka_client *client, struct io *io,
                   struct pool *pool, struct log **out_log)
{
    struct pool *own;
    void *at, *partitions;
    err e = pool_open_object(pool, "log", sizeof(struct log_kafka), &own, &at);
    if (e != OK) {
        kafka_client_close(client);
        return e;
    }
    struct log_kafka *log = at;
    e = pool_zalloc(own, config->partition_count * sizeof *log->partitions, &partitions);
    if (e != OK) {
        kafka_client_close(client);
        pool_close(own);
        return e;
    }
    *log = (struct log_kafka){ .log = { .driver = &kafka_driver, .partition_count = config->partition_count },
                               .io = io,
                               .pool = own,
                               .client = client,
                               .config = *config,
                               .partitions = partitions,
                               .topic_at_ns = INT64_MIN,
                               .topic_delay_ms = LOG_KAFKA_RETRY_MS,
                               .inbox_last = &log->inbox };
    for (uint32_t i = 0; i < config->partition_count; i++) {
        struct kafka_partition *p = &log->partitions[i];
        *p = (struct kafka_partition){ .log = log,
                                       .last = &p->first,
                                       .generation = 1,
                                       .acked = KAFKA_OFFSET_UNKNOWN,
                                       .fell_to = KAFKA_OFFSET_UNKNOWN,
                                       .epoch = KAFKA_EPOCH_UNKNOWN,
                                       .seen.leader_epoch = LOG_EPOCH_NONE,
                                       .found = KAFKA_OFFSET_UNKNOWN,
                                       .found_epoch = KAFKA_EPOCH_UNKNOWN,
                                       .back_to = KAFKA_OFFSET_UNKNOWN,
                                       .back_told = KAFKA_OFFSET_UNKNOWN,
                                       .confirmed_ns = INT64_MIN };
        log_kafka_doubt_reset(p, 0, KAFKA_EPOCH_UNKNOWN);
    }
    io_mutex_init(&log->mutex);
    io_cond_init(&log->answered);
    *out_log = &log->log;
    return OK;
}
