/* Readers of the file driver: the tail from memory, everything older from disk.
 *
 * The tail is the list of group buffers as they were written. A reader is lent slices of them without a
 * copy; a buffer goes when every open reader has passed it, or earlier when the tail is over its bound, and a
 * reader that is behind then reads disk. At start all partitions are read at about the same pace, so what is
 * read is a block of 512 KiB which all readers share, at most eight of them; a reader that is alone in a sparse
 * place reads its frames one by one.
 *
 * Invariants:
 *   1. A buffer is not freed or reused while a reader borrows from it (`reading`).
 *   2. A file is not recycled while a reader reads it outside the mutex (`reading`).
 *   3. Bytes from disk are lent only after both checksums matched and partition, offset and length are those
 *      asked for; otherwise the record is reported as damaged. */
#include "log/log_file.h"

#include <string.h>

#include "base/check.h"
#include "base/stat.h"

#define BLOCK_BYTES     (512u << 10)
#define NEAR_BYTES      (64u << 10)
#define NEAR_FRAMES     16u /* of one partition within NEAR_BYTES: a block pays for one reader alone */
#define NEAR_SHARE      4u  /* or one in four partitions has a reader in this file */
#define SPARE_BYTES_MAX (1u << 20)
#define CHUNKS_MAX      (1u << 20)

/* ---- the tail ---- */

err log_chunk_take(struct log_file *log, uint64_t bytes, struct log_chunk **out_chunk)
{
    struct log_chunk *spare = log->spare;
    if (spare != NULL && spare->capacity >= bytes && spare->capacity <= 8 * bytes) {
        log->spare = NULL;
        *out_chunk = spare;
        return OK;
    }
    void *at = NULL;
    uint64_t capacity = (bytes + LOG_PAGE_BYTES - 1) / LOG_PAGE_BYTES * LOG_PAGE_BYTES;
    TRY(pool_block_resize(log->pool, &at, sizeof(struct log_chunk) + (size_t)capacity));
    struct log_chunk *chunk = at;
    *chunk = (struct log_chunk){ .capacity = capacity };
    *out_chunk = chunk;
    return OK;
}

void log_chunk_give(struct log_file *log, struct log_chunk *chunk)
{
    check(chunk->reading == 0);
    if (chunk->capacity <= SPARE_BYTES_MAX) {
        pool_block_free(log->pool, log->spare);
        chunk->is_kept = false;
        log->spare = chunk;
        return;
    }
    pool_block_free(log->pool, chunk);
}

err log_chunks_reserve(struct log_file *log)
{
    void *at = log->chunks;
    if (log->chunk_count == CHUNKS_MAX)
        return ERR_LIMIT;
    TRY(pool_block_reserve(log->pool, &at, sizeof log->chunks[0], log->chunk_count + 1,
                           &log->chunk_capacity));
    log->chunks = at;
    return OK;
}

void log_chunk_keep(struct log_file *log, struct log_chunk *chunk)
{
    check(log->chunk_count < log->chunk_capacity);
    chunk->is_kept = true;
    log->chunks[log->chunk_count++] = chunk;
    log->chunk_bytes += chunk->capacity;
}

uint64_t log_start_offset(const struct log_file *log, uint32_t partition)
{
    uint64_t first = log->file_count == 0 ? 0 : log->files[0]->places[partition].first;
    return log->trims[partition] > first ? log->trims[partition] : first;
}

static uint64_t position_of(struct log_place place) { return (uint64_t)place.position_8 * LOG_FRAME_ALIGN; }

/* The first place that any of them still has to read. */
static void first_needed(const struct log_file *log, uint64_t *out_number, uint64_t *out_position)
{
    uint64_t number = UINT64_MAX;
    uint64_t position = UINT64_MAX;
    for (const struct log_file_reader *reader = log->readers; reader != NULL; reader = reader->next) {
        if (reader->offset >= log->ends[reader->partition] ||
            reader->offset <
                log_start_offset(log, reader->partition)) /* overtaken by a trim: it will be told */
            continue;
        size_t index, place_index;
        uint64_t at = 0; /* damaged: whatever follows in that file */
        if (log_place_of(log, reader->partition, reader->offset, &index, &place_index))
            at = position_of(log->files[index]->places[reader->partition].at[place_index]);
        uint64_t file_number = log->files[index]->number;
        if (file_number < number || (file_number == number && at < position)) {
            number = file_number;
            position = at;
        }
    }
    *out_number = number;
    *out_position = position;
}

static void drop_block(struct log_file *log, struct log_chunk *block)
{
    block->is_kept = false;
    if (block->reading == 0)
        log_chunk_give(log, block);
}

static void drop_blocks(struct log_file *log)
{
    while (log->block_count > 0)
        drop_block(log, log->blocks[--log->block_count]);
}

void log_chunks_release(struct log_file *log)
{
    uint64_t number, position;
    first_needed(log, &number, &position);
    size_t gone = 0;
    while (gone < log->chunk_count) {
        struct log_chunk *chunk = log->chunks[gone];
        bool passed =
            chunk->number < number || (chunk->number == number && chunk->position + chunk->len <= position);
        if (!passed && log->chunk_bytes <= log->config.tail_bytes_max)
            break;
        log->chunk_bytes -= chunk->capacity;
        chunk->is_kept = false;
        if (chunk->reading == 0)
            log_chunk_give(log, chunk);
        gone++;
    }
    if (number == UINT64_MAX)
        drop_blocks(log); /* nobody is behind */
    log->chunk_count -= gone;
    if (gone != 0 && log->chunk_count != 0)
        memmove(log->chunks, log->chunks + gone, log->chunk_count * sizeof log->chunks[0]);
}

/* The chunk that holds (number, position), or NULL. */
static struct log_chunk *find_chunk(const struct log_file *log, uint64_t number, uint64_t position)
{
    size_t low = 0;
    size_t high = log->chunk_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct log_chunk *chunk = log->chunks[middle];
        if (chunk->number < number || (chunk->number == number && chunk->position + chunk->len <= position))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == log->chunk_count)
        return NULL;
    struct log_chunk *chunk = log->chunks[low];
    return chunk->number == number && chunk->position <= position ? chunk : NULL;
}

/* ---- places ---- */

/* Damaged offsets of the partition in [from, to); *out_inside tells whether `to` itself is damaged. */
static uint64_t damaged_in(const struct log_file *log, uint32_t partition, uint64_t from, uint64_t to,
                           bool *out_inside)
{
    uint64_t count = 0;
    *out_inside = false;
    for (size_t i = 0; i < log->damage_count; i++) {
        const struct log_damage *damage = &log->damages[i];
        if (damage->partition != partition || damage->to_offset <= from || damage->from_offset > to)
            continue;
        *out_inside = *out_inside || damage->to_offset > to;
        uint64_t begin = damage->from_offset > from ? damage->from_offset : from;
        uint64_t end = damage->to_offset < to ? damage->to_offset : to;
        count += end - begin;
    }
    return count;
}

bool log_place_of(const struct log_file *log, uint32_t partition, uint64_t offset, size_t *out_file_index,
                  size_t *out_place_index)
{
    size_t low = 0; /* the last file whose first offset is not above */
    size_t high = log->file_count;
    check(high > 0);
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (log->files[middle]->places[partition].first <= offset)
            low = middle;
        else
            high = middle;
    }
    *out_file_index = low;
    const struct log_places *places = &log->files[low]->places[partition];
    check(places->first <= offset);
    bool is_damaged = false;
    uint64_t skipped = 0;
    if (places->first < log->damage_ends[partition])
        skipped = damaged_in(log, partition, places->first, offset, &is_damaged);
    if (is_damaged)
        return false;
    uint64_t index = offset - places->first - skipped;
    check(index < places->count);
    *out_place_index = (size_t)index;
    return true;
}

/* ---- readers ---- */

err log_read_open(struct log *base, uint32_t partition, uint64_t offset, int32_t leader_epoch,
                  struct log_reader **out_reader)
{
    struct log_file *log = log_file_of(base);
    struct pool *pool;
    void *at;
    TRY(pool_open_object(log->pool, "log_reader", sizeof(struct log_file_reader), &pool, &at));
    err e = OK;
    struct log_file_reader *reader = at;
    *reader = (struct log_file_reader){
        .base.log = base,
        .partition = partition,
        .offset = offset,
        .pool = pool,
    };
    io_mutex_lock(&log->mutex);
    if (offset < log_start_offset(log, partition))
        e = ERR_NOT_FOUND;
    else if (offset > log->ends[partition])
        e = ERR_ORDER;
    if (e == OK) {
        reader->next = log->readers;
        log->readers = reader;
    }
    io_mutex_unlock(&log->mutex);
    if (e != OK) {
        pool_close(pool);
        return e;
    }
    *out_reader = &reader->base;
    return OK;
}

/* Give back what was lent. Under mutex. */
static void give_back(struct log_file *log, struct log_file_reader *reader)
{
    struct log_chunk *chunk = reader->chunk;
    reader->chunk = NULL;
    if (chunk != NULL && --chunk->reading == 0 && !chunk->is_kept)
        log_chunk_give(log, chunk);
}

void log_read_close(struct log_reader *base)
{
    struct log_file *log = log_file_of(base->log);
    struct log_file_reader *reader = (struct log_file_reader *)base;
    io_mutex_lock(&log->mutex);
    give_back(log, reader);
    struct log_file_reader **link = &log->readers;
    while (*link != reader)
        link = &(*link)->next;
    *link = reader->next;
    log_chunks_release(log);
    io_mutex_unlock(&log->mutex);
    pool_close(reader->pool);
}

/* Whether a block should be read rather than the frame alone. Under mutex. */
static bool block_pays(const struct log_file *log, const struct log_places *places, size_t index,
                       uint64_t number)
{
    if (index + NEAR_FRAMES < places->count &&
        places->at[index + NEAR_FRAMES].position_8 - places->at[index].position_8 <=
            NEAR_BYTES / LOG_FRAME_ALIGN)
        return true;
    uint32_t near = 0;
    for (const struct log_file_reader *reader = log->readers; reader != NULL; reader = reader->next)
        near += reader->at_number == number;
    return near * NEAR_SHARE >= log->config.partition_count;
}

/* The shared block that holds [position, position + bytes) of a file, or NULL. Under mutex. */
static struct log_chunk *find_block(const struct log_file *log, uint64_t number, uint64_t position,
                                    uint64_t bytes)
{
    for (size_t i = 0; i < log->block_count; i++) {
        struct log_chunk *block = log->blocks[i];
        if (block->number == number && position >= block->position &&
            position + bytes <= block->position + block->len)
            return block;
    }
    return NULL;
}

/* Share a block that was read; the oldest one makes room. Under mutex. */
static void keep_block(struct log_file *log, struct log_chunk *block)
{
    block->is_kept = true;
    if (log->block_count < LOG_BLOCKS_MAX) {
        log->blocks[log->block_count++] = block;
        return;
    }
    size_t place = log->block_next++ % LOG_BLOCKS_MAX;
    drop_block(log, log->blocks[place]);
    log->blocks[place] = block;
}

/* Read from disk what holds the frame: into a block, which is then the reader's to give back, or into its own
 * buffer. Called under the mutex, which is left meanwhile; the file is held by `reading`. */
static err fetch(struct log_file *log, struct log_file_reader *reader, struct log_store_file *file,
                 uint64_t position, uint64_t bytes, bool as_block, const uint8_t **out_at)
{
    struct log_chunk *block = NULL;
    uint64_t len = file->end - position < BLOCK_BYTES ? file->end - position : BLOCK_BYTES;
    if (as_block && len >= bytes && log_chunk_take(log, BLOCK_BYTES, &block) != OK)
        block = NULL; /* no memory to share: the frame alone */
    file->reading++;
    io_mutex_unlock(&log->mutex);
    err e = OK;
    if (block == NULL) {
        void *at = reader->buffer;
        if (bytes > reader->buffer_capacity &&
            (e = pool_block_resize(reader->pool, &at, (size_t)bytes)) == OK)
            reader->buffer_capacity = (size_t)bytes;
        reader->buffer = at;
    }
    uint8_t *into = block == NULL ? reader->buffer : block->bytes;
    if (e == OK)
        e = io_file_read(file->file, position, into, (size_t)(block == NULL ? bytes : len), NULL);
    io_mutex_lock(&log->mutex);
    file->reading--;
    if (block != NULL && e != OK)
        log_chunk_give(log, block);
    TRY(e == ERR_END ? ERR_IO : e); /* the file is shorter than it was */
    if (block != NULL) {
        block->number = file->number;
        block->position = position;
        block->len = len;
        block->reading = 1;
        keep_block(log, block);
        reader->chunk = block;
    }
    *out_at = into;
    return OK;
}

/* Check what came from disk: invariant 3. */
static void verify(const struct log_file_reader *reader, uint32_t seed, uint64_t frame_number,
                   uint32_t length, const uint8_t *at, struct log_record *out_record)
{
    struct log_frame frame;
    bool is_whole = log_frame_decode(at, seed, frame_number, &frame) &&
                    frame.partition == reader->partition && frame.offset == reader->offset &&
                    frame.length == length && log_frame_is_whole(at, &frame);
    stat_add(is_whole ? STAT_LOG_RECORDS_FROM_DISK : STAT_LOG_RECORDS_DAMAGED, 1);
    out_record->damaged = !is_whole;
    if (is_whole)
        out_record->bytes = slice_of(at + LOG_FRAME_HEADER_BYTES, length);
}

err log_read_next(struct log_reader *base, struct log_record *out_record)
{
    struct log_file *log = log_file_of(base->log);
    struct log_file_reader *reader = (struct log_file_reader *)base;
    uint32_t p = reader->partition;
    err e = OK;
    *out_record = (struct log_record){ .position = { .offset = reader->offset },
                                       .t_ms = LOG_TIME_NONE,
                                       .leader_epoch = LOG_EPOCH_NONE };

    io_mutex_lock(&log->mutex);
    give_back(log, reader);
    if (reader->offset < log_start_offset(log, p))
        e = ERR_NOT_FOUND;
    else if (reader->offset >= log->ends[p])
        e = ERR_END;
    if (e != OK)
        goto out;
    size_t index, place_index;
    if (!log_place_of(log, p, reader->offset, &index, &place_index)) {
        out_record->damaged = true;
        goto out;
    }
    struct log_store_file *file = log->files[index];
    const struct log_places *places = &file->places[p];
    struct log_place place = places->at[place_index];
    uint64_t position = position_of(place);
    uint64_t bytes = log_frame_bytes(place.length);
    reader->at_number = file->number;
    struct log_chunk *chunk = find_chunk(log, file->number, position);
    if (chunk != NULL) {
        chunk->reading++;
        reader->chunk = chunk;
        const uint8_t *frame = chunk->bytes + (position - chunk->position);
        out_record->bytes = slice_of(frame + LOG_FRAME_HEADER_BYTES, place.length);
        goto out;
    }
    uint32_t seed = file->seed;
    uint64_t frame_number = file->frame_number;
    const uint8_t *at = NULL;
    chunk = find_block(log, file->number, position, bytes);
    if (chunk != NULL) {
        chunk->reading++;
        reader->chunk = chunk;
        at = chunk->bytes + (position - chunk->position);
    } else {
        e = fetch(log, reader, file, position, bytes, block_pays(log, places, place_index, file->number),
                  &at);
    }
    if (e == OK) {
        io_mutex_unlock(&log->mutex);
        verify(reader, seed, frame_number, place.length, at, out_record);
        io_mutex_lock(&log->mutex);
    }
out:
    if (e == OK)
        reader->offset++;
    io_mutex_unlock(&log->mutex);
    return e;
}
