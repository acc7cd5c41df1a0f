/* See log_sim.h. Records are kept for ever; a handle knows how far it saw which epoch, and compares that with
 * the cuts. */
#include "sim/log_sim.h"

#include "base/check.h"
#include "base/time.h"
#include "log/log_driver.h"

#include <string.h>

#define HANDLES_MAX 64
#define CUTS_MAX    1024

struct record {
    struct slice bytes;
    int32_t epoch;
    int64_t t_ms; /* when it was put, or LOG_TIME_NONE */
};

struct cut {
    uint64_t to;
    int32_t epoch; /* that began with it */
};

struct store_partition {
    struct record *records; /* block */
    size_t count, capacity;
    int32_t epoch;
    struct cut cuts[CUTS_MAX];
    size_t cut_count;
};

struct log_sim_store {
    struct pool *pool;
    uint32_t partition_count;
    struct store_partition *partitions;
    struct log_sim *handles[HANDLES_MAX]; /* NULL: free */
    int64_t delay_max_ns;
    uint64_t delays; /* drawn so far */
    bool has_times;
    int64_t boot_ms; /* what its clock said when machines booted */
};

struct handle_partition {
    uint64_t generation; /* less one: how often it went on */
    uint64_t seen;       /* end of what was read or appended through this handle */
    int32_t seen_epoch;  /* of the last of it */
    uint64_t back_to;
    bool has_gone_back;
    bool is_to_hear;  /* it went back, and the handle hears of it … */
    int64_t hears_ns; /* … at this boot time, or when it appends */
    int64_t sure_ns;  /* boot time until which its end was that of the log as it is */
    bool is_silent;
};

struct log_sim {
    struct log log;
    struct log_sim_store *store;
    struct io *io;
    struct pool *pool;
    struct handle_partition *partitions;
    void (*wake)(void *context);
    void *wake_context;
    bool is_holding;
    struct log_append *held; /* by next */
    uint64_t hole;           /* before the next record that is read */
};

struct log_sim_reader {
    struct log_reader reader;
    uint32_t partition;
    uint64_t next;
};

err log_sim_store_open(uint32_t partition_count, struct pool *parent, struct log_sim_store **out_store)
{
    struct pool *pool;
    void *at;
    TRY(pool_open_object(parent, "log store", sizeof(struct log_sim_store), &pool, &at));
    struct log_sim_store *store = at;
    store->pool = pool;
    store->partition_count = partition_count;
    TRY(pool_zalloc(pool, partition_count * sizeof *store->partitions, &at));
    store->partitions = at;
    *out_store = store;
    return OK;
}

void log_sim_store_close(struct log_sim_store *store) { pool_close(store->pool); }

uint64_t log_sim_end(const struct log_sim_store *store, uint32_t partition)
{
    return store->partitions[partition].count;
}

void log_sim_times(struct log_sim_store *store, struct io *io)
{
    store->has_times = true;
    store->boot_ms = io_now_ms(io) - io_boottime_ns(io) / NS_PER_MS;
}

/* The handle had seen records up to `seen`, the last of this epoch: where does the log part from that? */
static uint64_t parting(const struct store_partition *p, uint64_t seen, int32_t epoch)
{
    uint64_t lowest = seen;
    for (size_t i = 0; i < p->cut_count; i++)
        if (p->cuts[i].epoch > epoch && p->cuts[i].to < lowest)
            lowest = p->cuts[i].to;
    return lowest;
}

/* Does what the handle saw differ from the log? It hears of it in a while. */
static bool look(struct log_sim *log, uint32_t partition)
{
    struct log_sim_store *store = log->store;
    struct handle_partition *h = &log->partitions[partition];
    if (parting(&store->partitions[partition], h->seen, h->seen_epoch) >= h->seen)
        return false;
    if (!h->is_to_hear && !h->has_gone_back) {
        uint64_t draw = (store->delays++ + 1) * UINT64_C(0x9e3779b97f4a7c15) >> 20;
        h->sure_ns = io_boottime_ns(log->io);
        h->hears_ns = h->sure_ns + (int64_t)(draw % (uint64_t)(store->delay_max_ns + 1));
        h->is_to_hear = true;
    }
    return true;
}

/* What the handle has to hear by now. */
static struct handle_partition *hear(struct log_sim *log, uint32_t partition, bool is_now)
{
    struct handle_partition *h = &log->partitions[partition];
    if (!look(log, partition) || (!h->has_gone_back && !is_now && io_boottime_ns(log->io) < h->hears_ns))
        return h;
    uint64_t to = parting(&log->store->partitions[partition], h->seen, h->seen_epoch);
    h->back_to = h->has_gone_back && h->back_to < to ? h->back_to : to;
    h->has_gone_back = true;
    h->is_to_hear = false;
    return h;
}

void log_sim_back(struct log_sim_store *store, uint32_t partition, uint64_t to)
{
    struct store_partition *p = &store->partitions[partition];
    check(p->cut_count < CUTS_MAX);
    if (to < p->count)
        p->count = to;
    p->cuts[p->cut_count++] = (struct cut){ to, ++p->epoch };
    for (int i = 0; i < HANDLES_MAX; i++)
        if (store->handles[i] != NULL)
            (void)hear(store->handles[i], partition, store->delay_max_ns == 0);
}

void log_sim_delay(struct log_sim_store *store, int64_t max_ns) { store->delay_max_ns = max_ns; }

uint64_t log_sim_seen(struct log *base, uint32_t partition)
{
    const struct log_sim *log = (const struct log_sim *)base;
    const struct handle_partition *h = &log->partitions[partition];
    return parting(&log->store->partitions[partition], h->seen, h->seen_epoch);
}

/* ---- the driver ---- */

static void sim_close(struct log *base)
{
    struct log_sim *log = (struct log_sim *)base;
    struct log_append *held;
    while ((held = log->held) != NULL) {
        log->held = held->next;
        held->done(held, ERR_CLOSED, (struct log_position){ 0 });
    }
    for (int i = 0; i < HANDLES_MAX; i++)
        if (log->store->handles[i] == log)
            log->store->handles[i] = NULL;
    pool_close(log->pool);
}

static const struct log_damage *sim_damages(const struct log *log, size_t *out_count)
{
    *out_count = 0;
    return NULL;
}

static int64_t present_ms(const struct log_sim *log)
{
    return log->store->has_times ? log->store->boot_ms + io_boottime_ns(log->io) / NS_PER_MS : LOG_TIME_NONE;
}

static err put(struct log_sim *log, const struct log_append *append, struct log_position *out_position)
{
    struct store_partition *p = &log->store->partitions[append->partition];
    struct handle_partition *h = &log->partitions[append->partition];
    size_t bytes = 0, at_bytes = 0;
    void *block = p->records, *at;
    for (size_t i = 0; i < append->part_count; i++)
        bytes += append->parts[i].len;
    TRY(pool_block_reserve(log->store->pool, &block, sizeof *p->records, p->count + 1, &p->capacity));
    p->records = block;
    TRY(pool_alloc(log->store->pool, bytes + 1, &at));
    for (size_t i = 0; i < append->part_count; i++) {
        memcpy((uint8_t *)at + at_bytes, append->parts[i].at, append->parts[i].len);
        at_bytes += append->parts[i].len;
    }
    p->records[p->count] = (struct record){ slice_of(at, bytes), p->epoch, present_ms(log) };
    *out_position = (struct log_position){ h->generation + 1, p->count++ };
    h->seen = p->count;
    h->seen_epoch = p->epoch;
    return OK;
}

static void sim_append(struct log *base, struct log_append *append)
{
    struct log_sim *log = (struct log_sim *)base;
    struct log_position position = { 0 };
    if ((log->is_holding && !append->is_marker) || log->partitions[append->partition].is_silent) {
        append->next = log->held;
        log->held = append;
        return;
    }
    err e = hear(log, append->partition, true)->has_gone_back ? ERR_BUSY : put(log, append, &position);
    append->done(append, e, position);
    if (e == OK && log->wake != NULL)
        log->wake(log->wake_context);
}

static err sim_pump(struct log *log) { return OK; }
static err sim_run_thread(struct log *log) { return ERR_UNSUPPORTED; }
static void sim_drain(struct log *log) {}

static void sim_on_durable(struct log *base, void (*wake)(void *context), void *context)
{
    struct log_sim *log = (struct log_sim *)base;
    log->wake = wake;
    log->wake_context = context;
}

static err sim_reader_open(struct log *base, uint32_t partition, uint64_t offset, int32_t leader_epoch,
                           struct log_reader **out_reader)
{
    struct log_sim *log = (struct log_sim *)base;
    struct handle_partition *h = &log->partitions[partition];
    void *at = NULL;
    TRY(pool_block_resize(log->pool, &at, sizeof(struct log_sim_reader)));
    struct log_sim_reader *r = at;
    *r = (struct log_sim_reader){ .reader.log = base, .partition = partition, .next = offset };
    (void)hear(log, partition, h->is_to_hear);
    if (!h->has_gone_back && leader_epoch != LOG_EPOCH_NONE && offset > h->seen) {
        h->seen = offset;
        h->seen_epoch = leader_epoch;
        (void)look(log, partition);
    }
    *out_reader = &r->reader;
    return OK;
}

static void sim_reader_close(struct log_reader *reader)
{
    if (reader != NULL)
        pool_block_free(((struct log_sim *)reader->log)->pool, reader);
}

static err sim_reader_next(struct log_reader *reader, struct log_record *out_record)
{
    struct log_sim_reader *r = (struct log_sim_reader *)reader;
    struct log_sim *log = (struct log_sim *)reader->log;
    struct handle_partition *h = hear(log, r->partition, false);
    const struct store_partition *p = &log->store->partitions[r->partition];
    if (h->has_gone_back && r->next >= h->back_to)
        return ERR_ORDER;
    if (r->next >= p->count || h->is_to_hear) /* a leader's log that does not go on from here */
        return ERR_END;
    const struct record *record = &p->records[r->next];
    *out_record = (struct log_record){ .position.offset = r->next,
                                       .bytes = record->bytes,
                                       .missing = log->hole,
                                       .t_ms = record->t_ms,
                                       .leader_epoch = record->epoch };
    log->hole = 0;
    r->next++;
    if (r->next > h->seen) {
        h->seen = r->next;
        h->seen_epoch = record->epoch;
    }
    return OK;
}

static struct log_watermarks sim_watermarks(struct log *base, uint32_t partition)
{
    struct log_sim *log = (struct log_sim *)base;
    const struct handle_partition *h = hear(log, partition, false);
    uint64_t end = log->store->partitions[partition].count;
    bool is_old = h->has_gone_back || h->is_to_hear;
    return (struct log_watermarks){ .generation = h->generation + 1,
                                    .end_offset =
                                        h->has_gone_back || (is_old && h->seen > end) ? h->seen : end,
                                    .confirmed_ns = is_old ? h->sure_ns : io_boottime_ns(log->io) };
}

static err sim_went_back(struct log *base, uint32_t partition, uint64_t *out_from)
{
    const struct handle_partition *h = hear((struct log_sim *)base, partition, false);
    if (!h->has_gone_back)
        return ERR_NOT_FOUND;
    *out_from = h->back_to;
    return OK;
}

static struct log_seen sim_seen(struct log *base, uint32_t partition)
{
    const struct handle_partition *h = &((const struct log_sim *)base)->partitions[partition];
    return (struct log_seen){ h->seen, h->seen > 0 ? h->seen_epoch : LOG_EPOCH_NONE };
}

static int32_t sim_epoch_before(struct log *base, uint32_t partition, uint64_t offset)
{
    const struct store_partition *p = &((const struct log_sim *)base)->store->partitions[partition];
    return offset > 0 && offset <= p->count ? p->records[offset - 1].epoch : LOG_EPOCH_NONE;
}

static void sim_go_on(struct log *base, uint32_t partition, uint64_t from)
{
    struct log_sim *log = (struct log_sim *)base;
    if (from > log->partitions[partition].back_to)
        return; /* it went back further meanwhile */
    log->partitions[partition] =
        (struct handle_partition){ .generation = log->partitions[partition].generation + 1,
                                   .seen = from,
                                   .seen_epoch = log->store->partitions[partition].epoch };
}

static err sim_trim(struct log *log, uint32_t partition, uint64_t before) { return OK; }
static bool sim_is_held(struct log *log, uint32_t partition) { return false; }
static err sim_tidy(struct log *log) { return OK; }
static struct log_usage sim_usage(struct log *log) { return (struct log_usage){ 0 }; }

static const struct log_driver sim_driver = {
    .close = sim_close,
    .damages = sim_damages,
    .append = sim_append,
    .pump = sim_pump,
    .run_thread = sim_run_thread,
    .drain = sim_drain,
    .on_durable = sim_on_durable,
    .reader_open = sim_reader_open,
    .reader_close = sim_reader_close,
    .reader_next = sim_reader_next,
    .watermarks = sim_watermarks,
    .went_back = sim_went_back,
    .seen = sim_seen,
    .epoch_before = sim_epoch_before,
    .go_on = sim_go_on,
    .trim = sim_trim,
    .is_held = sim_is_held,
    .tidy = sim_tidy,
    .usage = sim_usage,
};

void log_sim_silence(struct log *handle, uint32_t partition, bool is_silent)
{
    struct log_sim *log = (struct log_sim *)handle;
    log->partitions[partition].is_silent = is_silent;
    struct log_append **at = &log->held, *append;
    while (!is_silent && (append = *at) != NULL) {
        if (append->partition != partition) {
            at = &append->next;
            continue;
        }
        *at = append->next;
        append->done(append, ERR_TIMEOUT, (struct log_position){ 0 });
    }
}

void log_sim_hold(struct log *handle) { ((struct log_sim *)handle)->is_holding = true; }
void log_sim_hole(struct log *handle, uint64_t count) { ((struct log_sim *)handle)->hole = count; }

err log_sim_open(struct log_sim_store *store, struct io *io, struct pool *parent, struct log **out_log)
{
    struct pool *pool;
    void *at;
    int slot = 0;
    while (slot < HANDLES_MAX && store->handles[slot] != NULL)
        slot++;
    check(slot < HANDLES_MAX);
    TRY(pool_open_object(parent, "log", sizeof(struct log_sim), &pool, &at));
    struct log_sim *log = at;
    log->log = (struct log){ .driver = &sim_driver, .partition_count = store->partition_count };
    log->store = store;
    log->io = io;
    log->pool = pool;
    TRY(pool_zalloc(pool, store->partition_count * sizeof *log->partitions, &at));
    log->partitions = at;
    store->handles[slot] = log;
    *out_log = &log->log;
    return OK;
}
