/* The file driver of the log: appends, groups, syncs.
 *
 *     log_append -> queue -> pump: take a group -> frames into one buffer -> one write -> one sync
 *                                      -> publish (ends, places, tail) -> done of each, in order -> wake
 *
 * All partitions share one physical log, so a group costs one sync however many partitions it touches.
 * The buffer that was written stays in memory as the tail until its readers passed it (log_read.c).
 *
 * Invariants:
 *   1. done(OK) is called only after the sync of its bytes returned OK (with ack=os: after the write).
 *   2. Offsets of a partition are dense and rise; one is given for good when its group is published, and
 *      given anew when the group failed.
 *   3. After a failed write or sync the active file is sealed: nothing is written to it any more, and the
 *      next file's header, durable before its first record, names the last end that counts.
 *   4. Whatever a group needs (memory for places, tail, buffers) is reserved before its write: nothing can fail
 *      between sync and acknowledgement.
 *   5. A group's pages are written whole: the rest of the last page is zeros, so that the system never reads a
 *      recycled file's old page to complete it. */
#include "log/log_file.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"

#define OS_SYNC_NS     NS_PER_SECOND /* with ack=os: at most this long without a sync */
#define MARKER_IDLE_NS (50 * NS_PER_MS)
#define IDLE_NS        (30 * NS_PER_SECOND)  /* without appends: give memory and disk back */
#define ROTATE_NS      (600 * NS_PER_SECOND) /* without a new file: none is kept for the next */

/* ---- append ---- */

static uint64_t append_bytes(const struct log_append *append)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < append->part_count; i++)
        bytes += append->parts[i].len;
    return bytes;
}

static void refuse(struct log_append *append, err e)
{
    stat_add(STAT_LOG_APPENDS_REFUSED, 1);
    append->done(append, e, (struct log_position){ 0 });
}

static void file_append(struct log *base, struct log_append *append)
{
    struct log_file *log = log_file_of(base);
    uint64_t bytes = append_bytes(append);
    append->next = NULL;
    if (append->is_marker) { /* what is durable here is confirmed */
        struct log_watermarks w = base->driver->watermarks(base, append->partition);
        append->done(append, OK, (struct log_position){ .offset = w.end_offset });
        return;
    }
    if (bytes > LOG_RECORD_BYTES_MAX) {
        refuse(append, ERR_LIMIT);
        return;
    }
    if (!append->frees_space && log->config.is_space_low != NULL &&
        log->config.is_space_low(log->config.space_context)) {
        refuse(append, ERR_SPACE);
        return;
    }
    io_mutex_lock(&log->mutex);
    err e = OK;
    if (log->is_closing || log->config.read_only)
        e = ERR_CLOSED;
    else if (bytes > log->config.queue_bytes_max || log->queued_bytes > log->config.queue_bytes_max - bytes)
        e = ERR_BUSY;
    if (e == OK) {
        if (log->queue == NULL) {
            log->queue = append;
            io_cond_signal(&log->work);
        } else {
            log->queue_last->next = append;
        }
        log->queue_last = append;
        log->queued_bytes += bytes;
    }
    io_mutex_unlock(&log->mutex);
    if (e != OK)
        refuse(append, e);
}

/* ---- the group ---- */

struct group {
    struct log_append *first, *last;
    size_t count;
    uint64_t frame_bytes;
    uint64_t payload_bytes;
};

/* Move from the queue what fits into one group and `room` bytes of file; never empty when the first fits. */
static struct group take_group(struct log_file *log, uint64_t room)
{
    struct group group = { 0 };
    io_mutex_lock(&log->mutex);
    while (log->queue != NULL && group.count < LOG_GROUP_RECORDS_MAX) {
        struct log_append *append = log->queue;
        uint64_t payload = append_bytes(append);
        uint64_t bytes = log_frame_bytes(payload);
        uint64_t total = group.frame_bytes + bytes;
        if (total > room || (group.count != 0 && total > LOG_GROUP_BYTES_MAX))
            break;
        log->queue = append->next;
        append->next = NULL;
        if (group.last == NULL)
            group.first = append;
        else
            group.last->next = append;
        group.last = append;
        group.count++;
        group.frame_bytes += bytes;
        group.payload_bytes += payload;
    }
    log->queued_bytes -= group.payload_bytes;
    io_mutex_unlock(&log->mutex);
    return group;
}

/* What log.h lists for done. */
static err append_error(err e) { return e == ERR_SPACE || e == ERR_LIMIT || e == ERR_CLOSED ? e : ERR_IO; }

static void group_fail(struct log_file *log, struct group *group, err e)
{
    stat_add(STAT_LOG_APPENDS_FAILED, (int64_t)group->count);
    for (struct log_append *append = group->first, *next; append != NULL; append = next) {
        next = append->next; /* done may free or reuse it */
        append->done(append, append_error(e), (struct log_position){ 0 });
    }
}

/* Reserve everything that publishing needs. Under mutex. */
static err group_reserve(struct log_file *log, const struct group *group, uint64_t bytes,
                         struct log_chunk **out_chunk)
{
    memset(log->group_counts, 0, log->config.partition_count * sizeof log->group_counts[0]);
    for (const struct log_append *append = group->first; append != NULL; append = append->next) {
        struct log_places *places = &log->active->places[append->partition];
        size_t count = places->count + ++log->group_counts[append->partition];
        void *at = places->at;
        TRY(pool_block_reserve(log->pool, &at, sizeof places->at[0], count, &places->capacity));
        places->at = at;
    }
    TRY(log_chunks_reserve(log));
    return log_chunk_take(log, bytes, out_chunk);
}

/* Lay out the group's frames; assigns offsets. */
static void group_encode(struct log_file *log, const struct group *group, struct log_chunk *chunk)
{
    const struct log_store_file *file = log->active;
    uint64_t durable = (log->plants & LOG_PLANT_NO_DURABLE) != 0 ? 0 : log->synced_end;
    memset(log->group_counts, 0, log->config.partition_count * sizeof log->group_counts[0]);
    uint8_t *at = chunk->bytes;
    size_t index = 0;
    for (const struct log_append *append = group->first; append != NULL; append = append->next, index++) {
        uint64_t offset = log->ends[append->partition] + log->group_counts[append->partition]++;
        log->group_offsets[index] = offset;
        uint8_t *payload = at + LOG_FRAME_HEADER_BYTES;
        uint64_t length = 0;
        for (size_t i = 0; i < append->part_count; i++) {
            if (append->parts[i].len != 0)
                memcpy(payload + length, append->parts[i].at, append->parts[i].len);
            length += append->parts[i].len;
        }
        uint64_t bytes = log_frame_bytes(length);
        memset(payload + length, 0, (size_t)(bytes - LOG_FRAME_HEADER_BYTES - length));
        struct log_frame frame = {
            .partition = append->partition,
            .length = (uint32_t)length,
            .number = file->frame_number,
            .offset = offset,
            .durable = durable,
        };
        log_frame_encode(&frame, file->seed, at);
        at += bytes;
    }
    check((uint64_t)(at - chunk->bytes) == group->frame_bytes);
}

/* Give the active file up: see invariant 3. */
static void seal(struct log_file *log)
{
    stat_add(STAT_LOG_FILES_SEALED, 1);
    log->active = NULL;
}

static err sync_active(struct log_file *log)
{
    err e = io_file_sync(log->active->file);
    if (e != OK && (log->plants & LOG_PLANT_RETRY_SYNC) != 0)
        e = io_file_sync(log->active->file);
    stat_add(STAT_LOG_SYNCS, 1);
    log->synced_ns = io_monotonic_ns(log->io);
    if (e != OK)
        seal(log);
    else
        log->synced_end = log->active->end;
    return e;
}

/* Write the first `bytes` of the chunk at the end of the file, and zeros up to a whole page. */
static err write_padded(const struct log_store_file *file, struct log_chunk *chunk, uint64_t bytes)
{
    uint64_t padding = (LOG_PAGE_BYTES - (file->end + bytes) % LOG_PAGE_BYTES) % LOG_PAGE_BYTES;
    if (file->end + bytes + padding > file->size)
        padding = file->size - file->end - bytes;
    memset(chunk->bytes + bytes, 0, (size_t)padding);
    return io_file_write(file->file, file->end, slice_of(chunk->bytes, (size_t)(bytes + padding)));
}

static err group_write(struct log_file *log, struct log_chunk *chunk, uint64_t bytes)
{
    struct log_store_file *file = log->active;
    int64_t begin_ns = io_monotonic_ns(log->io);
    err e = write_padded(file, chunk, bytes);
    if (e == OK && log->config.ack == LOG_ACK_FSYNC && (log->plants & LOG_PLANT_ACK_BEFORE_SYNC) == 0) {
        e = io_file_sync(file->file);
        if (e != OK && (log->plants & LOG_PLANT_RETRY_SYNC) != 0)
            e = io_file_sync(file->file);
        stat_add(STAT_LOG_SYNCS, 1);
        if (e == OK)
            log->synced_end = file->end + bytes;
    }
    stat_add(STAT_LOG_SYNC_NS, io_monotonic_ns(log->io) - begin_ns);
    if (e != OK)
        seal(log);
    return e;
}

/* Make a written group visible to readers. Nothing here can fail. */
static void group_publish(struct log_file *log, const struct group *group, struct log_chunk *chunk)
{
    struct log_store_file *file = log->active;
    int64_t now_ns = io_monotonic_ns(log->io);
    chunk->number = file->number;
    chunk->position = file->end;
    chunk->len = group->frame_bytes;

    io_mutex_lock(&log->mutex);
    uint64_t position = file->end;
    for (const struct log_append *append = group->first; append != NULL; append = append->next) {
        uint64_t length = append_bytes(append);
        struct log_places *places = &file->places[append->partition];
        check(places->count < places->capacity);
        places->at[places->count++] = (struct log_place){
            .position_8 = (uint32_t)(position / LOG_FRAME_ALIGN),
            .length = (uint32_t)length,
        };
        log->ends[append->partition]++;
        position += log_frame_bytes(length);
    }
    file->end = position;
    log->appended_ns = now_ns;
    log_chunk_keep(log, chunk);
    log_chunks_release(log);
    void (*wake)(void *context) = log->wake;
    void *wake_context = log->wake_context;
    io_mutex_unlock(&log->mutex);

    stat_add(STAT_LOG_APPENDS, (int64_t)group->count);
    stat_add(STAT_LOG_BYTES, (int64_t)group->frame_bytes);
    size_t index = 0;
    for (struct log_append *append = group->first, *next; append != NULL; append = next, index++) {
        next = append->next; /* done may free or reuse it */
        append->done(append, OK,
                     (struct log_position){ .generation = 0, .offset = log->group_offsets[index] });
    }
    if (wake != NULL)
        wake(wake_context);
}

/* Open the next file. With ack=os the old one is synced first, so that what it holds is torn by no
 * power loss that comes later than a second. */
static err rotate(struct log_file *log, uint64_t frame_bytes)
{
    if (log->active != NULL && log->synced_end < log->active->end)
        ERR_IGNORE(sync_active(log)); /* acknowledged already; recovery will name what is missing */
    log->active = NULL;
    err e = log_store_rotate(log, frame_bytes);
    log->is_failing = e != OK;
    return e;
}

/* Make sure that the active file has room for the first record of the queue. */
static err ensure_room(struct log_file *log)
{
    io_mutex_lock(&log->mutex);
    uint64_t bytes = log->queue == NULL ? 0 : log_frame_bytes(append_bytes(log->queue));
    io_mutex_unlock(&log->mutex);
    if (log->active != NULL && log->active->size - log->active->end >= bytes)
        return OK;
    return rotate(log, bytes);
}

/* ---- when nothing is queued ---- */

/* Write a frame that tells the durable end and every partition's next offset, so that recovery can name the loss
 * of the last group instead of taking it for a torn tail. Not synced: losing it loses nothing else. */
static err write_marker(struct log_file *log)
{
    struct log_store_file *file = log->active;
    uint32_t length = 8 * log->config.partition_count;
    uint64_t bytes = log_frame_bytes(length);
    if (file->size - file->end < bytes)
        return OK; /* the next file's header tells the same */
    struct log_chunk *chunk = NULL;
    io_mutex_lock(&log->mutex);
    err e = log_chunk_take(log, bytes + LOG_PAGE_BYTES, &chunk);
    io_mutex_unlock(&log->mutex);
    TRY(e);
    for (uint32_t p = 0; p < log->config.partition_count; p++)
        put_le64(chunk->bytes + LOG_FRAME_HEADER_BYTES + 8 * (size_t)p, log->ends[p]);
    struct log_frame frame = {
        .partition = LOG_MARKER_PARTITION,
        .length = length,
        .number = file->frame_number,
        .durable = (log->plants & LOG_PLANT_NO_DURABLE) != 0 ? 0 : file->end,
    };
    log_frame_encode(&frame, file->seed, chunk->bytes);
    e = write_padded(file, chunk, bytes);
    io_mutex_lock(&log->mutex);
    if (e == OK) {
        file->end += bytes;
        log->marked_end = file->end;
    }
    log_chunk_give(log, chunk);
    io_mutex_unlock(&log->mutex);
    if (e != OK)
        seal(log);
    return e;
}

static bool has_unmarked(const struct log_file *log)
{
    return log->active != NULL && log->active->end > log->marked_end;
}

static err pump_idle(struct log_file *log)
{
    io_mutex_lock(&log->mutex);
    log_chunks_release(log);
    bool wants_small = log->wants_small;
    io_mutex_unlock(&log->mutex);
    if (wants_small && !log->is_failing)
        TRY(rotate(log, 0));
    if (!has_unmarked(log))
        return OK;
    if (log->config.ack == LOG_ACK_OS && log->synced_end < log->active->end) {
        if (io_monotonic_ns(log->io) - log->synced_ns < OS_SYNC_NS)
            return OK;
        TRY(sync_active(log));
    }
    return write_marker(log);
}

static err file_pump(struct log *base)
{
    struct log_file *log = log_file_of(base);
    io_mutex_lock(&log->mutex);
    bool is_empty = log->queue == NULL;
    io_mutex_unlock(&log->mutex);
    if (is_empty)
        return pump_idle(log);

    err e = ensure_room(log);
    struct group group = take_group(log, e == OK ? log->active->size - log->active->end : UINT64_MAX);
    check(group.count > 0);
    struct log_chunk *chunk = NULL;
    if (e == OK) {
        io_mutex_lock(&log->mutex);
        e = group_reserve(log, &group, group.frame_bytes + LOG_PAGE_BYTES, &chunk);
        io_mutex_unlock(&log->mutex);
    }
    if (e == OK) {
        group_encode(log, &group, chunk);
        e = group_write(log, chunk, group.frame_bytes);
    }
    if (e != OK) {
        io_mutex_lock(&log->mutex);
        if (chunk != NULL)
            log_chunk_give(log, chunk);
        io_mutex_unlock(&log->mutex);
        group_fail(log, &group, e);
        return e;
    }
    group_publish(log, &group, chunk);
    if (log->config.ack == LOG_ACK_OS && io_monotonic_ns(log->io) - log->synced_ns >= OS_SYNC_NS)
        return sync_active(log);
    return OK;
}

/* ---- the thread ---- */

static int64_t idle_wait_ns(const struct log_file *log)
{
    if (!has_unmarked(log) && !log->wants_small)
        return OS_SYNC_NS;
    return MARKER_IDLE_NS;
}

static void thread_run(void *context)
{
    struct log_file *log = context;
    for (;;) {
        io_mutex_lock(&log->mutex);
        if (log->queue == NULL && !log->is_closing)
            (void)io_cond_wait_for(&log->work, &log->mutex, idle_wait_ns(log));
        bool stop = log->is_closing;
        log->is_pumping = !stop;
        io_mutex_unlock(&log->mutex);
        if (stop)
            return;                        /* log_close pumps the rest */
        ERR_IGNORE(file_pump(&log->base)); /* each append was told; the next group tries a new file */
        io_mutex_lock(&log->mutex);
        log->is_pumping = false;
        io_cond_broadcast(&log->idle);
        io_mutex_unlock(&log->mutex);
    }
}

static void file_drain(struct log *base)
{
    struct log_file *log = log_file_of(base);
    while (log->thread == NULL && log->queue != NULL)
        ERR_IGNORE(file_pump(base)); /* a group that fails is answered too */
    io_mutex_lock(&log->mutex);
    while (log->queue != NULL || log->is_pumping)
        io_cond_wait(&log->idle, &log->mutex);
    io_mutex_unlock(&log->mutex);
}

static err file_run_thread(struct log *base)
{
    struct log_file *log = log_file_of(base);
    check(log->thread == NULL);
    return io_thread_start(log->io, "log", thread_run, log, &log->thread);
}

/* ---- the rest of log.h ---- */

static const struct log_damage *file_damages(const struct log *base, size_t *out_count)
{
    const struct log_file *log = log_file_of_const(base);
    *out_count = log->damage_count;
    return log->damages;
}

static void file_on_durable(struct log *base, void (*wake)(void *context), void *context)
{
    struct log_file *log = log_file_of(base);
    io_mutex_lock(&log->mutex);
    log->wake = wake;
    log->wake_context = context;
    io_mutex_unlock(&log->mutex);
}

/* A file log that lost its newest records is known by its end below what was stored, at the start. */
static int32_t file_epoch_before(struct log *log, uint32_t partition, uint64_t offset)
{
    return LOG_EPOCH_NONE;
}

/* It never goes back. */
static struct log_seen file_seen(struct log *log, uint32_t partition)
{
    return (struct log_seen){ 0, LOG_EPOCH_NONE };
}

static err file_went_back(struct log *log, uint32_t partition, uint64_t *out_from) { return ERR_NOT_FOUND; }
static void file_go_on(struct log *log, uint32_t partition, uint64_t from) {}

static struct log_watermarks file_watermarks(struct log *base, uint32_t partition)
{
    struct log_file *log = log_file_of(base);
    io_mutex_lock(&log->mutex);
    struct log_watermarks marks = {
        .generation = 0,
        .start_offset = log_start_offset(log, partition),
        .end_offset = log->ends[partition],
        .confirmed_ns = io_boottime_ns(log->io),
    };
    io_mutex_unlock(&log->mutex);
    return marks;
}

static err file_trim(struct log *base, uint32_t partition, uint64_t before)
{
    struct log_file *log = log_file_of(base);
    io_mutex_lock(&log->mutex);
    if (before > log->ends[partition])
        before = log->ends[partition];
    bool changed = before > log->trims[partition];
    if (changed)
        log->trims[partition] = before;
    io_mutex_unlock(&log->mutex);
    return changed ? log_store_release(log) : OK;
}

/* A quiet log needs no more than this of its newest file. Under mutex. */
static bool newest_is_large(const struct log_file *log, int64_t now_ns)
{
    return now_ns - log->appended_ns > IDLE_NS && log->file_count != 0 &&
           log->files[log->file_count - 1]->size > 2 * LOG_FILE_BYTES_SMALL;
}

static bool file_is_held(struct log *base, uint32_t partition)
{
    struct log_file *log = log_file_of(base);
    int64_t now_ns = io_monotonic_ns(log->io);
    io_mutex_lock(&log->mutex);
    uint64_t trim = log->trims[partition];
    bool is_held = trim < log->ends[partition] &&
                   (newest_is_large(log, now_ns) ||
                    (log->file_count > 1 && trim < log->files[log->file_count - 1]->places[partition].first));
    io_mutex_unlock(&log->mutex);
    return is_held;
}

static err file_tidy(struct log *base)
{
    struct log_file *log = log_file_of(base);
    int64_t now_ns = io_monotonic_ns(log->io);
    io_mutex_lock(&log->mutex);
    log_chunks_release(log);
    bool is_idle = now_ns - log->appended_ns > IDLE_NS;
    bool rotates = !is_idle && log->rotated_ns != 0 && now_ns - log->rotated_ns <= ROTATE_NS;
    bool is_empty = log->file_count != 0;
    for (uint32_t p = 0; p < log->config.partition_count; p++)
        is_empty = is_empty && log->trims[p] >= log->ends[p];
    if (is_empty && newest_is_large(log, now_ns)) {
        log->wants_small = true;
        io_cond_signal(&log->work);
    }
    io_mutex_unlock(&log->mutex);
    TRY(log_store_release(log));
    return log_store_shrink(log, rotates ? LOG_RECYCLED_FILES_MAX : 0);
}

static struct log_usage file_usage(struct log *base)
{
    struct log_file *log = log_file_of(base);
    struct log_usage usage = { 0 };
    io_mutex_lock(&log->mutex);
    for (size_t i = 0; i < log->file_count; i++)
        usage.live_bytes += log->files[i]->size;
    for (size_t i = 0; i < log->free_count; i++)
        usage.recycled_bytes += log->free_files[i].size;
    usage.queued_bytes = log->queued_bytes;
    io_mutex_unlock(&log->mutex);
    return usage;
}

/* ---- open and close ---- */

/* Free what an open log holds; no thread, no readers, nothing queued. */
static void destroy(struct log_file *log)
{
    for (size_t i = 0; i < log->file_count; i++)
        log_store_file_free(log, log->files[i]);
    io_cond_done(&log->work);
    io_cond_done(&log->idle);
    io_mutex_done(&log->mutex);
    io_mutex_done(&log->store_mutex);
    pool_close(log->pool);
}

static void file_close(struct log *base)
{
    struct log_file *log = log_file_of(base);
    io_mutex_lock(&log->mutex);
    log->is_closing = true;
    io_cond_signal(&log->work);
    io_mutex_unlock(&log->mutex);
    if (log->thread != NULL)
        io_thread_join(log->thread);
    while (log->queue != NULL && file_pump(base) == OK) {
    }
    struct group rest = take_group(log, UINT64_MAX);
    while (rest.count != 0) {
        group_fail(log, &rest, ERR_CLOSED);
        rest = take_group(log, UINT64_MAX);
    }
    if (has_unmarked(log) && sync_active(log) == OK && write_marker(log) == OK)
        ERR_IGNORE(io_file_sync(log->active->file)); /* a lost marker loses nothing else */
    check(log->readers == NULL);
    destroy(log);
}

static const struct log_driver file_driver = {
    .close = file_close,
    .damages = file_damages,
    .append = file_append,
    .pump = file_pump,
    .run_thread = file_run_thread,
    .drain = file_drain,
    .on_durable = file_on_durable,
    .reader_open = log_read_open,
    .reader_close = log_read_close,
    .reader_next = log_read_next,
    .watermarks = file_watermarks,
    .went_back = file_went_back,
    .seen = file_seen,
    .epoch_before = file_epoch_before,
    .go_on = file_go_on,
    .trim = file_trim,
    .is_held = file_is_held,
    .tidy = file_tidy,
    .usage = file_usage,
};

static err config_check(const struct log_config *config, struct err_at *at)
{
    if (config->partition_count == 0 || config->partition_count > LOG_PARTITION_COUNT_MAX)
        return err_set(at, ERR_LIMIT, "log: %u partitions, allowed are 1 to %u", config->partition_count,
                       LOG_PARTITION_COUNT_MAX);
    if (config->file_bytes < LOG_FILE_BYTES_MIN || config->file_bytes > LOG_FILE_BYTES_MAX)
        return err_set(at, ERR_LIMIT, "log: files of %llu bytes, allowed are %u to %llu",
                       (unsigned long long)config->file_bytes, LOG_FILE_BYTES_MIN,
                       (unsigned long long)LOG_FILE_BYTES_MAX);
    if (strlen(config->directory) > LOG_PATH_BYTES - 32)
        return err_set(at, ERR_LIMIT, "log: the directory's path is longer than %u bytes",
                       LOG_PATH_BYTES - 32);
    return OK;
}

err log_file_open(const struct log_config *config, struct io *io, struct pool *parent, unsigned plants,
                  struct log **out_log, struct err_at *at)
{
    TRY(config_check(config, at));
    struct pool *pool;
    void *memory;
    err e = pool_open_object(parent, "log", sizeof(struct log_file), &pool, &memory);
    if (e != OK)
        return err_set(at, e, "log: out of memory");
    struct log_file *log = memory;
    log->base = (struct log){ .driver = &file_driver, .partition_count = config->partition_count };
    log->io = io;
    log->pool = pool;
    log->config = *config;
    log->plants = plants;
    log->next_number = 1;
    log->synced_ns = log->appended_ns = io_monotonic_ns(io);
    memcpy(log->directory, config->directory, strlen(config->directory) + 1);
    log->config.directory = log->directory;
    io_mutex_init(&log->store_mutex);
    io_mutex_init(&log->mutex);
    io_cond_init(&log->work);
    io_cond_init(&log->idle);

    size_t count = config->partition_count;
    void *arrays[5] = { NULL };
    const size_t bytes[5] = { 8 * count, 8 * count, 8 * LOG_GROUP_RECORDS_MAX, sizeof(size_t) * count,
                              8 * count };
    for (size_t i = 0; i < 5 && e == OK; i++)
        e = pool_zalloc(pool, bytes[i], &arrays[i]);
    if (e != OK) {
        e = err_set(at, e, "log: out of memory");
        goto out;
    }
    log->ends = arrays[0];
    log->trims = arrays[1];
    log->group_offsets = arrays[2];
    log->group_counts = arrays[3];
    log->damage_ends = arrays[4];
    TRY_OUT(log_recover(log, at));
    *out_log = &log->base;
out:
    if (e != OK)
        destroy(log);
    return e;
}
