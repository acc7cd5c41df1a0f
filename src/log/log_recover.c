/* Recovery of the file driver: from the files of its directory to ends, places and damages.
 *
 *     list names -> headers of the chain, newest to oldest -> scan each file, oldest to newest -> sync the newest
 *
 * The chain: each header names the file before it and how many bytes of that file count. So only the newest
 * file can have a torn tail; in all others everything below the named end was durable, and what is bad there is
 * damage. In the newest file the frames themselves tell what was durable when they were written.
 *
 * Invariants:
 *   1. Recovery writes nothing into a file with records and gives the same result however often it is interrupted.
 *      The first append afterwards opens a new file, whose header fixes what recovery decided.
 *   2. What was read from the newest file is synced before it is believed: after the death of the process
 *      alone its bytes may be in the page cache only.
 *   3. An offset that may have been acknowledged is never given again: where lost bytes do not tell whose they
 *      were, every partition that could have had records there skips as many as could have fitted.
 *   4. No file with records is removed. Files that the chain does not lead to are renamed to .lost. */
#include "log/log_file.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"

#define READ_BYTES (1u << 20)

/* One file found in the directory. */
struct found {
    uint64_t number;
    bool is_free;
    bool in_chain;
    bool has_header;
    uint64_t limit; /* bytes that count, as the next header says; else the size */
    bool is_limited;
    bool is_newest;
    struct log_file_header header;
    struct log_store_file *file;
};

struct recovery {
    struct log_file *log;
    struct err_at *at;
    struct pool *pool;   /* of this recovery */
    struct found *found; /* sorted by number */
    size_t found_count;
    uint64_t *next;  /* per partition: next offset expected */
    uint8_t *window; /* part of the file being scanned */
    size_t window_bytes;
    uint64_t limit; /* bytes of that file that count */
    struct io_file *scanned;
};

static uint64_t parse_number(const char *name, const char *suffix)
{
    uint64_t number = 0;
    size_t digits = 0;
    for (; name[digits] >= '0' && name[digits] <= '9' && digits < 18; digits++)
        number = number * 10 + (uint64_t)(name[digits] - '0');
    return digits >= 8 && strcmp(name + digits, suffix) == 0 ? number : 0;
}

/* ---- names ---- */

enum log_name_kind log_name_kind(const char *name)
{
    return parse_number(name, ".log") != 0    ? LOG_NAME_RECORDS
           : parse_number(name, ".free") != 0 ? LOG_NAME_FREE
           : parse_number(name, ".lost") != 0 ? LOG_NAME_LOST
                                              : LOG_NAME_FOREIGN;
}

static err list_names(struct recovery *r)
{
    struct io_dir_entry *entries;
    size_t count;
    err e = io_dir_list(r->log->io, r->log->directory, r->pool, &entries, &count);
    if (e == ERR_NOT_FOUND && r->log->config.read_only) /* a snapshot has none */
        return OK;
    TRY(e);
    if (count > LOG_FILES_MAX)
        return ERR_LIMIT;
    void *at = NULL;
    TRY(pool_zalloc(r->pool, (count + 1) * sizeof(struct found), &at));
    r->found = at;
    for (size_t i = 0; i < count; i++) {
        uint64_t number = parse_number(entries[i].name, ".log");
        uint64_t free_number = parse_number(entries[i].name, ".free");
        uint64_t lost_number = parse_number(entries[i].name, ".lost");
        uint64_t any = number | free_number | lost_number;
        if (any >= r->log->next_number)
            r->log->next_number = any + 1;
        if (number == 0 && free_number == 0)
            continue;
        struct found found = { .number = number | free_number, .is_free = number == 0 };
        size_t place = r->found_count++; /* almost sorted already: by name, and 9 digits sort before 8 */
        while (place > 0 && r->found[place - 1].number > found.number) {
            r->found[place] = r->found[place - 1];
            place--;
        }
        r->found[place] = found;
    }
    return OK;
}

/* ---- headers ---- */

/* Read both copies; a file without any whole one stays has_header = false. */
static err read_header(struct recovery *r, struct found *found)
{
    struct log_file *log = r->log;
    uint64_t copy_bytes = log_header_copy_bytes(log->config.partition_count);
    void *arrays = NULL;
    void *image = NULL;
    TRY(pool_alloc(r->pool, 16 * (size_t)log->config.partition_count, &arrays));
    TRY(pool_alloc(r->pool, 2 * (size_t)copy_bytes, &image));
    found->header.starts = arrays;
    found->header.trims = (uint64_t *)arrays + log->config.partition_count;
    size_t len = 0;
    err e = io_file_read(found->file->file, 0, image, 2 * (size_t)copy_bytes, &len);
    if (e != OK && e != ERR_END)
        return e;
    for (size_t copy = 0; copy < 2 && !found->has_header; copy++) {
        if (len < (copy + 1) * copy_bytes)
            break;
        struct slice bytes = slice_of((uint8_t *)image + copy * copy_bytes, (size_t)copy_bytes);
        e = log_header_decode(bytes, log->config.partition_count, &found->header);
        if (e == ERR_VERSION)
            return err_set(r->at, e,
                           "log: %s was written by a newer version: log format %u, and this Kelpie reads %u",
                           found->file->path, get_le32(bytes.at + 8), LOG_FORMAT_VERSION);
        bool is_foreign = e == ERR_LIMIT ||
                          (e == OK && (found->header.partition_count != log->config.partition_count ||
                                       memcmp(found->header.cluster_id, log->config.cluster_id, 16) != 0));
        if (is_foreign)
            return err_set(r->at, ERR_CONFLICT,
                           "log: %s belongs to another cluster or has %u partitions, not %u",
                           found->file->path, found->header.partition_count, log->config.partition_count);
        found->has_header = e == OK && found->header.number == found->number;
    }
    return OK;
}

static err open_found(struct recovery *r, struct found *found)
{
    struct log_file *log = r->log;
    TRY(log_store_file_new(log, found->number, &found->file));
    enum io_open_mode mode = log->config.read_only ? IO_READ : IO_WRITE;
    err e = io_file_open(log->io, found->file->path, mode, &found->file->file);
    if (e == OK)
        e = io_file_size(found->file->file, &found->file->size);
    if (e == OK)
        e = read_header(r, found);
    if (e != OK && (r->at == NULL || r->at->text[0] == '\0'))
        return err_set(r->at, e, "log: cannot read %s: %s%s", found->file->path, err_text(e),
                       e == ERR_IO ? "; look at the disk. If it stays so, a copy by dd conv=noerror,sync can"
                                     " take its place: records that are gone are named then, but for those"
                                     " at the very end of the log"
                                   : "");
    return e;
}

static struct found *find_log(struct recovery *r, uint64_t number)
{
    for (size_t i = r->found_count; i > 0; i--)
        if (!r->found[i - 1].is_free && r->found[i - 1].number == number)
            return &r->found[i - 1];
    return NULL;
}

/* The newest file below number, for a chain whose header is lost. */
static struct found *find_below(struct recovery *r, uint64_t number)
{
    for (size_t i = r->found_count; i > 0; i--)
        if (!r->found[i - 1].is_free && r->found[i - 1].number < number)
            return &r->found[i - 1];
    return NULL;
}

/* Follow the headers from the newest file back. */
static err follow_chain(struct recovery *r)
{
    struct found *found = find_below(r, UINT64_MAX);
    uint64_t limit = UINT64_MAX;
    if (found != NULL)
        found->is_newest = true;
    while (found != NULL) {
        TRY(open_found(r, found));
        found->in_chain = true;
        found->is_limited = limit != UINT64_MAX;
        found->limit = found->file->size < limit ? found->file->size : limit;
        uint64_t number = found->number;
        if (!found->has_header) {
            limit = UINT64_MAX;
            found = find_below(r, number);
            continue;
        }
        limit = found->header.previous_end;
        if (found->header.previous_number >= number)
            return err_set(r->at, ERR_CORRUPT, "log: %s names a later file before it", found->file->path);
        found = find_log(r, found->header.previous_number);
    }
    return OK;
}

/* ---- damage ---- */

/* Offsets [from, to) of a partition are lost, in the last file added, at `position`. */
static err add_damage(struct recovery *r, uint32_t partition, uint64_t from, uint64_t to, const char *path,
                      uint64_t position)
{
    struct log_file *log = r->log;
    if (log->damage_count == LOG_DAMAGES_MAX)
        return err_set(r->at, ERR_LIMIT, "log: more than %u damaged ranges", LOG_DAMAGES_MAX);
    void *at = log->damages;
    TRY(pool_block_reserve(log->pool, &at, sizeof log->damages[0], log->damage_count + 1,
                           &log->damage_capacity));
    log->damages = at;
    log->damages[log->damage_count++] = (struct log_damage){
        .partition = partition,
        .from_offset = from,
        .to_offset = to,
        .file = path,
        .file_offset = position,
    };
    stat_add(STAT_LOG_RECORDS_DAMAGED, (int64_t)(to - from));
    return OK;
}

/* The next record of the partition has this offset: what lies between was lost. */
static err skip_to(struct recovery *r, uint32_t partition, uint64_t offset, const char *path,
                   uint64_t position)
{
    if (offset > r->next[partition])
        TRY(add_damage(r, partition, r->next[partition], offset, path, position));
    r->next[partition] = offset;
    return OK;
}

/* ---- scanning ---- */

/* A record is at most 17 MiB, so the window is, however large the file. */
static err read_window(void *context, uint64_t position, uint64_t bytes, struct slice *out_window)
{
    struct recovery *r = context;
    uint64_t want = bytes < READ_BYTES ? READ_BYTES : bytes;
    if (want > r->limit - position)
        want = r->limit - position;
    if (want > r->window_bytes) {
        void *at = r->window;
        TRY(pool_block_resize(r->pool, &at, (size_t)want));
        r->window = at;
        r->window_bytes = (size_t)want;
    }
    TRY(io_file_read(r->scanned, position, r->window, (size_t)want, NULL));
    *out_window = slice_of(r->window, (size_t)want);
    return OK;
}

static struct log_scan scan_of(struct recovery *r, const struct log_store_file *file, uint64_t limit)
{
    r->scanned = file->file;
    r->limit = limit;
    return (struct log_scan){
        .position = log_data_start(r->log->config.partition_count),
        .limit = limit,
        .seed = file->seed,
        .number = file->frame_number,
        .partition_count = r->log->config.partition_count,
        .read = read_window,
        .context = r,
    };
}

static err add_record(struct recovery *r, const struct found *found, const struct log_item *item,
                      bool is_lost)
{
    struct log_places *places = &found->file->places[item->partition];
    uint64_t *next = &r->next[item->partition];
    if (item->offset < *next)
        return OK; /* a record of a group that failed and was written anew elsewhere */
    if (item->offset - *next > found->file->size / LOG_FRAME_HEADER_BYTES)
        return OK; /* more than can have been lost: not ours, whatever its checksum says */
    TRY(skip_to(r, item->partition, item->offset, found->file->path, item->position));
    if (is_lost)
        return skip_to(r, item->partition, item->offset + 1, found->file->path, item->position);
    void *at = places->at;
    TRY(pool_block_reserve(r->log->pool, &at, sizeof places->at[0], places->count + 1, &places->capacity));
    places->at = at;
    places->at[places->count++] = (struct log_place){
        .position_8 = (uint32_t)(item->position / LOG_FRAME_ALIGN),
        .length = item->length,
    };
    (*next)++;
    return OK;
}

/* A marker names the next offset of every partition at its place. */
static err add_marker(struct recovery *r, const struct found *found, const struct log_item *item)
{
    for (uint32_t p = 0; p < r->log->config.partition_count; p++) {
        uint64_t end = get_le64(item->payload + 8 * (size_t)p);
        if (end > r->next[p] && end - r->next[p] <= found->file->size / LOG_FRAME_HEADER_BYTES)
            TRY(skip_to(r, p, end, found->file->path, item->position));
    }
    return OK;
}

/* Invariant 3: bytes below the durable end were lost and nothing behind them told whose they were. */
static err skip_unknown(struct recovery *r, const struct found *found, uint64_t lost_bytes, uint64_t position,
                        const bool *is_told)
{
    uint64_t count = lost_bytes / LOG_FRAME_HEADER_BYTES;
    for (uint32_t p = 0; p < r->log->config.partition_count && count != 0; p++)
        if (!is_told[p])
            TRY(skip_to(r, p, r->next[p] + count, found->file->path, position));
    return OK;
}

/* Take the items of a scan up to the file's end. In the newest file (and one whose end nobody names) that
 * is the first thing bad at or above the durable position; in the others the limit. */
static err take_items(struct recovery *r, struct found *found, struct log_scan *scan)
{
    uint32_t count = r->log->config.partition_count;
    void *at = NULL;
    TRY(pool_zalloc(r->pool, count * sizeof(bool), &at));
    bool *is_told = at; /* since the last bytes of unknown owners */
    uint64_t lost_bytes = 0;
    uint64_t lost_position = 0;
    bool is_ahead_known = found->is_limited; /* the durable position matters where something is bad */
    struct log_item item;
    err e;
    while ((e = log_scan_next(scan, &item)) == OK) {
        bool is_bad = item.kind == LOG_ITEM_BAD || item.kind == LOG_ITEM_DAMAGED;
        if (is_bad && !is_ahead_known)
            TRY(log_scan_ahead(scan));
        is_ahead_known = is_ahead_known || is_bad;
        if (is_bad && !found->is_limited && item.position >= scan->durable)
            break; /* a torn tail */
        if (item.kind == LOG_ITEM_BAD) {
            /* What was torn begins behind the durable position even when no whole frame parts the two. */
            bool cut = !found->is_limited && scan->durable < item.next;
            uint64_t next = cut ? scan->durable : item.next;
            lost_bytes += next - item.position;
            lost_position = item.position;
            memset(is_told, 0, count * sizeof(bool));
            found->file->end = next;
            if (cut)
                break;
            continue;
        }
        if (item.kind == LOG_ITEM_MARKER) {
            TRY(add_marker(r, found, &item));
            lost_bytes = 0;
        } else {
            TRY(add_record(r, found, &item, item.kind == LOG_ITEM_DAMAGED));
            is_told[item.partition] = true;
        }
        found->file->end = item.next;
    }
    if (e != OK && e != ERR_END)
        return e;
    if (found->is_newest)
        TRY(skip_unknown(r, found, lost_bytes, lost_position, is_told));
    return OK;
}

static err scan_file(struct recovery *r, struct found *found)
{
    uint32_t count = r->log->config.partition_count;
    struct log_store_file *file = found->file;
    for (uint32_t p = 0; p < count; p++)
        file->places[p].first = r->next[p];
    file->end = log_data_start(count);
    if (found->limit > LOG_FILE_BYTES_MAX + LOG_RECORD_BYTES_MAX + LOG_PAGE_BYTES)
        return err_set(r->at, ERR_LIMIT, "log: %s is larger than any log file", file->path);
    struct log_scan scan = scan_of(r, file, found->limit);
    return take_items(r, found, &scan);
}

/* A partition goes on at `start`, below what was found: the header between was lost, with a failed group before
 * it. What was found from there on was never acknowledged. Firsts of files keep rising. */
static void go_back(struct recovery *r, uint32_t partition, uint64_t start)
{
    struct log_file *log = r->log;
    size_t kept = 0;
    for (size_t i = 0; i < log->damage_count; i++) {
        struct log_damage damage = log->damages[i];
        if (damage.partition == partition && damage.to_offset > start)
            damage.to_offset = start;
        if (damage.from_offset < damage.to_offset)
            log->damages[kept++] = damage;
    }
    log->damage_count = kept;
    for (size_t i = log->file_count; i-- > 0;) {
        struct log_places *places = &log->files[i]->places[partition];
        if (places->first > start)
            places->first = start;
        uint64_t count = start - places->first;
        for (size_t k = 0; k < kept; k++) /* they have no places */
            if (log->damages[k].partition == partition && log->damages[k].from_offset >= places->first)
                count -= log->damages[k].to_offset - log->damages[k].from_offset;
        if (places->count > count)
            places->count = (size_t)count;
    }
    r->next[partition] = start;
}

/* The header says where the partitions stand; what the files before did not show of it is lost. */
static err take_header(struct recovery *r, struct found *found, struct found *previous)
{
    uint32_t count = r->log->config.partition_count;
    for (uint32_t p = 0; p < count; p++) {
        uint64_t start = found->header.starts[p];
        if (previous == NULL) {
            r->next[p] = start;
            continue;
        }
        if (start < r->next[p])
            go_back(r, p, start);
        TRY(skip_to(r, p, start, previous->file->path, previous->file->end));
    }
    return OK;
}

static err scan_chain(struct recovery *r)
{
    struct log_file *log = r->log;
    struct found *previous = NULL;
    for (size_t i = 0; i < r->found_count; i++) {
        struct found *found = &r->found[i];
        if (!found->in_chain)
            continue;
        if (!found->has_header && previous == NULL)
            return err_set(r->at, ERR_CORRUPT, "log: both headers of the oldest file %s are damaged",
                           found->file->path);
        if (found->has_header)
            TRY(take_header(r, found, previous));
        TRY(scan_file(r, found));
        TRY(log_store_reserve(log));
        log_store_add(log, found->file);
        previous = found;
    }
    if (previous == NULL)
        return OK;
    if ((log->plants & LOG_PLANT_NO_OPEN_SYNC) == 0 && !log->config.read_only)
        TRY(io_file_sync(previous->file->file));
    for (uint32_t p = 0; p < log->config.partition_count; p++) {
        log->ends[p] = r->next[p];
        if (previous->has_header)
            log->trims[p] =
                previous->header.trims[p] < log->ends[p] ? previous->header.trims[p] : log->ends[p];
    }
    for (size_t i = 0; i < log->damage_count; i++) {
        uint64_t *end = &log->damage_ends[log->damages[i].partition];
        if (log->damages[i].to_offset > *end)
            *end = log->damages[i].to_offset;
    }
    log->next_number = previous->number >= log->next_number ? previous->number + 1 : log->next_number;
    if ((log->plants & LOG_PLANT_SAME_FILE) != 0) {
        log->active = previous->file;
        log->marked_end = log->synced_end = previous->file->end;
    }
    return OK;
}

/* ---- leftovers ---- */

/* Whether a .log file outside the chain may hold records. The header is durable before the name, and nobody
 * appends where opening failed: only our header without any frame is known to be nothing. */
static bool may_hold_records(const struct recovery *r, struct found *found)
{
    struct recovery quiet = *r; /* what is wrong with the file does not matter */
    quiet.at = NULL;
    quiet.window = NULL;
    quiet.window_bytes = 0;
    struct log_item item = { .kind = LOG_ITEM_RECORD };
    err e = open_found(&quiet, found);
    if (e == OK && found->has_header) {
        struct log_scan scan = scan_of(&quiet, found->file, found->file->size);
        do
            e = log_scan_next(&scan, &item);
        while (e == OK && item.kind == LOG_ITEM_BAD);
    }
    pool_block_free(r->pool, quiet.window);
    log_store_file_free(r->log, found->file);
    found->file = NULL;
    return e != ERR_END;
}

/* Files outside the chain: set aside what may hold records, keep a few that wait for reuse, remove the rest. */
static err clear_leftovers(struct recovery *r)
{
    struct log_file *log = r->log;
    bool changed = false;
    for (size_t i = 0; i < r->found_count; i++) {
        struct found *found = &r->found[i];
        char path[LOG_PATH_BYTES];
        if (found->in_chain)
            continue;
        log_store_path(log, found->number, found->is_free ? ".free" : ".log", path);
        changed = true;
        if (!found->is_free && may_hold_records(r, found)) {
            char aside[LOG_PATH_BYTES];
            log_store_path(log, found->number, ".lost", aside);
            TRY(io_rename(log->io, path, aside));
            continue;
        }
        uint64_t size = 0;
        TRY(io_path_size(log->io, path, &size, NULL));
        if (found->is_free && size >= LOG_FILE_BYTES_MIN && size <= log->config.file_bytes &&
            log->free_count < LOG_RECYCLED_FILES_MAX)
            log->free_files[log->free_count++] =
                (struct log_free_file){ .number = found->number, .size = size };
        else
            TRY(io_unlink(log->io, path));
    }
    return changed ? io_dir_sync(log->io, log->directory) : OK;
}

err log_recover(struct log_file *log, struct err_at *at)
{
    if (at != NULL)
        at->text[0] = '\0';
    if (!log->config.read_only) {
        err made = io_dir_make(log->io, log->directory);
        if (made != OK)
            return err_set(at, made, "log: cannot create %s: %s", log->directory, err_text(made));
    }
    struct recovery r = { .log = log, .at = at };
    r.pool = pool_open(log->pool, "log_recovery", POOL_BYTES_UNLIMITED);
    void *next = NULL;
    err e = OK;
    TRY_OUT(pool_zalloc(r.pool, 8 * (size_t)log->config.partition_count, &next));
    r.next = next;
    TRY_OUT(list_names(&r));
    TRY_OUT(follow_chain(&r));
    TRY_OUT(scan_chain(&r));
    if (!log->config.read_only)
        TRY_OUT(clear_leftovers(&r));
    log->size_wanted = log->file_count == 0 ? 0 : log->files[log->file_count - 1]->size;
out:
    for (size_t i = 0; e != OK && i < r.found_count; i++) {
        bool is_listed = false;
        for (size_t k = 0; k < log->file_count; k++)
            is_listed = is_listed || log->files[k] == r.found[i].file;
        if (!is_listed)
            log_store_file_free(log, r.found[i].file);
    }
    if (e != OK && at != NULL && at->text[0] == '\0')
        e = err_set(at, e, "log: cannot recover %s: %s%s", log->directory, err_text(e),
                    e == ERR_LIMIT ? "; the memory budget may be too small for its records" : "");
    pool_close(r.pool);
    return e;
}
