/* Physical files of the file driver: their names, their lives, their headers.
 *
 *     (none) --create--> NNNNNNNN.free --header, sync, rename, sync--> MMMMMMMM.log --trimmed--> MMMMMMMM.free
 *                             ^                                                                    |
 *                             +------------------------- recycled ---------------------------------+--> (removed)
 *
 * A file is recycled because writing over blocks that exist halves the time of a sync: no block is
 * allocated and no extent changes its state.
 *
 * Invariants:
 *   1. A name ending in .log exists only over a header that is durable: header, sync, rename, directory sync.
 *   2. A recycled file's content is touched only after its loss of the .log name is durable.
 *   3. Files disappear oldest first, each durably before the next, so the live ones are a chain without holes.
 *   4. The newest file never disappears: its header holds every partition's offsets.
 *   5. A number is never used twice, also not after a failure, whose file may or may not have a name. */
#include "log/log_file.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"

#define FAST_FILL_NS (10 * NS_PER_SECOND)
#define SLOW_FILL_NS (120 * NS_PER_SECOND)

void log_store_path(const struct log_file *log, uint64_t number, const char *suffix,
                    char out_path[LOG_PATH_BYTES])
{
    int printed =
        snprintf(out_path, LOG_PATH_BYTES, "%s/%08llu%s", log->directory, (unsigned long long)number, suffix);
    check(printed > 0 && printed < (int)LOG_PATH_BYTES);
}

err log_store_file_new(struct log_file *log, uint64_t number, struct log_store_file **out_file)
{
    void *at = NULL;
    size_t bytes = sizeof(struct log_store_file) + log->config.partition_count * sizeof(struct log_places);
    TRY(pool_block_resize(log->pool, &at, bytes));
    memset(at, 0, bytes);
    struct log_store_file *file = at;
    file->number = number;
    bool seeded = (log->plants & LOG_PLANT_UNSEEDED) == 0;
    file->seed = seeded ? log_frame_seed(log->config.cluster_id, number) : 0;
    file->frame_number = seeded ? number : 0;
    log_store_path(log, number, ".log", file->path);
    *out_file = file;
    return OK;
}

void log_store_file_free(struct log_file *log, struct log_store_file *file)
{
    if (file == NULL)
        return;
    for (uint32_t p = 0; p < log->config.partition_count; p++)
        pool_block_free(log->pool, file->places[p].at);
    io_file_close(file->file);
    pool_block_free(log->pool, file);
}

/* Before log_store_file_free under the mutex: closing a removed file gives its blocks back, which takes time. */
static void close_file(struct log_store_file *file)
{
    io_file_close(file->file);
    file->file = NULL;
}

err log_store_reserve(struct log_file *log)
{
    void *at = log->files;
    if (log->file_count == LOG_FILES_MAX)
        return ERR_LIMIT;
    TRY(pool_block_reserve(log->pool, &at, sizeof log->files[0], log->file_count + 1, &log->file_capacity));
    log->files = at;
    return OK;
}

void log_store_add(struct log_file *log, struct log_store_file *file)
{
    check(log->file_count < log->file_capacity);
    log->files[log->file_count++] = file;
}

/* ---- a new file ---- */

/* The next file's size: four times the last one's when that filled within seconds, half when it took minutes. */
static uint64_t next_size(struct log_file *log, int64_t now_ns)
{
    uint64_t small =
        LOG_FILE_BYTES_SMALL < log->config.file_bytes ? LOG_FILE_BYTES_SMALL : log->config.file_bytes;
    if (log->rotated_ns != 0) {
        int64_t age_ns = now_ns - log->rotated_ns;
        if (age_ns < FAST_FILL_NS)
            log->size_wanted *= 4;
        else if (age_ns > SLOW_FILL_NS)
            log->size_wanted /= 2;
    }
    if (log->wants_small || log->size_wanted < small)
        log->size_wanted = small;
    if (log->size_wanted > log->config.file_bytes)
        log->size_wanted = log->config.file_bytes;
    return log->size_wanted;
}

/* Take a waiting file that is large enough and not wastefully so; false when there is none. */
static bool take_free(struct log_file *log, uint64_t size, uint64_t size_min, struct log_free_file *out_free)
{
    for (size_t i = 0; i < log->free_count; i++) {
        struct log_free_file found = log->free_files[i];
        if (found.size < size_min || found.size < size / 2 || found.size > size * 2)
            continue;
        log->free_files[i] = log->free_files[--log->free_count];
        *out_free = found;
        return true;
    }
    return false;
}

/* Write both copies of the header of `file`, which follows the newest file of the log. */
static err write_header(struct log_file *log, struct log_store_file *file)
{
    uint32_t count = log->config.partition_count;
    uint64_t copy_bytes = log_header_copy_bytes(count);
    struct log_file_header header = {
        .partition_count = count,
        .number = file->number,
        .starts = log->ends,
        .trims = log->trims,
    };
    memcpy(header.cluster_id, log->config.cluster_id, sizeof header.cluster_id);

    void *at = NULL;
    io_mutex_lock(&log->mutex); /* trims move under other threads, and the list with them */
    if (log->file_count != 0) {
        const struct log_store_file *newest = log->files[log->file_count - 1];
        header.previous_number = newest->number;
        header.previous_end = newest->end;
    }
    err e = pool_block_resize(log->pool, &at, (size_t)copy_bytes);
    if (e == OK)
        log_header_encode(&header, at);
    io_mutex_unlock(&log->mutex);
    TRY(e);
    struct slice copies[2] = { slice_of(at, (size_t)copy_bytes), slice_of(at, (size_t)copy_bytes) };
    e = io_file_write_all(file->file, 0, copies, 2);
    if (e == OK)
        e = io_file_sync(file->file);
    io_mutex_lock(&log->mutex);
    pool_block_free(log->pool, at);
    io_mutex_unlock(&log->mutex);
    return e;
}

/* Open, allocate, head and name the file. On failure it is removed as far as that goes: nothing is
 * known about a file after a failed write, so it is not kept for reuse. */
static err prepare(struct log_file *log, struct log_store_file *file, const struct log_free_file *recycled)
{
    char temp[LOG_PATH_BYTES];
    log_store_path(log, recycled != NULL ? recycled->number : file->number, ".free", temp);
    err e = OK;
    TRY_OUT(io_file_open(log->io, temp, IO_WRITE, &file->file));
    if (recycled == NULL)
        TRY_OUT(io_file_allocate(file->file, file->size));
    TRY_OUT(write_header(log, file));
    TRY_OUT(io_rename(log->io, temp, file->path));
    if ((log->plants & LOG_PLANT_NO_DIR_SYNC) == 0)
        TRY_OUT(io_dir_sync(log->io, log->directory));
out:
    if (e != OK) {
        /* One of the names exists. A leftover is cleared by the next open of the log. */
        ERR_IGNORE(io_unlink(log->io, temp));
        ERR_IGNORE(io_unlink(log->io, file->path));
    }
    return e;
}

err log_store_rotate(struct log_file *log, uint64_t frame_bytes)
{
    int64_t now_ns = io_monotonic_ns(log->io);
    uint64_t data_start = log_data_start(log->config.partition_count);
    uint64_t size_min = (data_start + frame_bytes + LOG_PAGE_BYTES - 1) / LOG_PAGE_BYTES * LOG_PAGE_BYTES;
    struct log_free_file recycled;
    struct log_store_file *file = NULL;

    io_mutex_lock(&log->mutex);
    uint64_t size = next_size(log, now_ns);
    size = size / LOG_PAGE_BYTES * LOG_PAGE_BYTES;
    if (size < size_min)
        size = size_min;
    err e = log_store_reserve(log); /* now, so that nothing fails once the file has its name */
    if (e == OK)
        e = log_store_file_new(log, log->next_number, &file);
    bool is_recycled = e == OK && take_free(log, size, size_min, &recycled);
    io_mutex_unlock(&log->mutex);
    TRY(e);

    log->next_number++;
    file->size = is_recycled ? recycled.size : size;
    file->end = data_start;
    e = prepare(log, file, is_recycled ? &recycled : NULL);
    if (e != OK)
        close_file(file);

    io_mutex_lock(&log->mutex);
    if (e == OK) {
        for (uint32_t p = 0; p < log->config.partition_count; p++)
            file->places[p].first = log->ends[p];
        log_store_add(log, file);
        log->active = file;
        log->marked_end = log->synced_end = data_start;
        log->rotated_ns = now_ns;
        log->wants_small = false;
    } else {
        log_store_file_free(log, file);
    }
    io_mutex_unlock(&log->mutex);
    if (e == OK)
        stat_add(STAT_LOG_FILES_OPENED, 1);
    return e;
}

/* ---- old files ---- */

/* Whether no partition needs the oldest file. Under mutex. */
static bool oldest_is_dead(const struct log_file *log)
{
    if (log->file_count < 2 || log->files[0]->reading != 0)
        return false;
    for (uint32_t p = 0; p < log->config.partition_count; p++) {
        uint64_t end = log->files[1]->places[p].first;
        uint64_t spare = (log->plants & LOG_PLANT_EARLY_RECYCLE) != 0 ? 1 : 0;
        if (log->trims[p] + spare < end && log->files[0]->places[p].first != end)
            return false;
    }
    return true;
}

/* Take away a file's name: for another life when `*keep`, which becomes false when that cannot be. What an
 * earlier attempt did is no error: the directory's sync is what may be missing. */
static err retire(struct log_file *log, const struct log_store_file *file, bool *keep)
{
    char path[LOG_PATH_BYTES];
    log_store_path(log, file->number, ".free", path);
    err e = *keep ? io_rename(log->io, file->path, path) : ERR_NOT_FOUND;
    if (e == ERR_NOT_FOUND) {
        *keep = false;
        e = io_unlink(log->io, file->path);
        if (e == OK || e == ERR_NOT_FOUND)
            e = io_unlink(log->io, path);
    }
    if (e != OK && e != ERR_NOT_FOUND)
        return e;
    return io_dir_sync(log->io, log->directory);
}

/* Remove the oldest file when nobody needs it: durably first, from the list then, so that the next call tries
 * again what failed and no younger file goes before it. ERR_END: it is needed. Under store_mutex, which keeps it
 * in the list; no reader comes to it any more. */
static err release_oldest(struct log_file *log)
{
    io_mutex_lock(&log->mutex);
    if (!oldest_is_dead(log)) {
        io_mutex_unlock(&log->mutex);
        return ERR_END;
    }
    struct log_store_file *file = log->files[0];
    bool keep = log->free_count < LOG_RECYCLED_FILES_MAX && file->size <= log->size_wanted * 2 &&
                file->size >= log->size_wanted / 2;
    io_mutex_unlock(&log->mutex);
    TRY(retire(log, file, &keep));

    io_mutex_lock(&log->mutex);
    log->file_count--;
    memmove(log->files, log->files + 1, log->file_count * sizeof log->files[0]);
    if (keep) /* the pump takes from the list, and only who holds store_mutex adds */
        log->free_files[log->free_count++] =
            (struct log_free_file){ .number = file->number, .size = file->size };
    io_mutex_unlock(&log->mutex);
    close_file(file);
    io_mutex_lock(&log->mutex);
    log_store_file_free(log, file);
    io_mutex_unlock(&log->mutex);
    return OK;
}

err log_store_release(struct log_file *log)
{
    io_mutex_lock(&log->store_mutex);
    err e = OK;
    while (e == OK)
        e = release_oldest(log);
    io_mutex_unlock(&log->store_mutex);
    return e == ERR_END ? OK : e;
}

err log_store_shrink(struct log_file *log, size_t keep)
{
    io_mutex_lock(&log->store_mutex);
    err e = OK;
    bool removed = false;
    while (e == OK) {
        io_mutex_lock(&log->mutex);
        bool found = log->free_count > keep;
        struct log_free_file gone = { 0 };
        if (found)
            gone = log->free_files[--log->free_count];
        io_mutex_unlock(&log->mutex);
        if (!found)
            break;
        char path[LOG_PATH_BYTES];
        log_store_path(log, gone.number, ".free", path);
        e = io_unlink(log->io, path);
        if (e == ERR_NOT_FOUND)
            e = OK;
        removed = true;
    }
    if (e == OK && removed)
        e = io_dir_sync(log->io, log->directory);
    io_mutex_unlock(&log->store_mutex);
    return e;
}
