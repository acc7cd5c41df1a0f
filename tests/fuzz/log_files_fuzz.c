/* Any bytes as the files of a log's directory, with the checksums of what looks like headers and frames made
 * right: recovery ends in an error or in a log whose offsets rise, which gives the same records when it is
 * opened again, and takes another record behind them. Input: files of a byte for the number (bit 7: named
 * .free), a le16 length in units of 64 bytes, content. */
#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "log/log_file.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PARTITIONS      2
#define FILES_MAX       6
#define CONTENT_MAX     (128u << 10)
#define RECORDS_MAX     4096
#define POOL_BYTES_FUZZ (256u << 20)

static struct io *io;
static char directory[] = "/dev/shm/kelpie-fuzz-XXXXXX";
static uint8_t content[CONTENT_MAX];

struct seen {
    uint64_t count, hash, ends[PARTITIONS];
};

static void clear(void)
{
    struct pool *pool = pool_open(NULL, "names", 1u << 20);
    struct io_dir_entry *entries;
    size_t count = 0;
    if (io_dir_list(io, "log", pool, &entries, &count) == OK)
        for (size_t i = 0; i < count; i++) {
            char path[400];
            snprintf(path, sizeof path, "log/%s", entries[i].name);
            check(io_unlink(io, path) == OK);
        }
    pool_close(pool);
}

static void leave(void)
{
    clear();
    ERR_IGNORE(io_dir_remove(io, "log"));
    io_close(io);
    rmdir(directory);
}

static struct log_config config(bool read_only)
{
    return (struct log_config){
        .directory = "log",
        .cluster_id = "fuzz",
        .partition_count = PARTITIONS,
        .ack = LOG_ACK_OS,
        .file_bytes = LOG_FILE_BYTES_MIN,
        .queue_bytes_max = 1u << 20,
        .tail_bytes_max = 1u << 20,
        .read_only = read_only,
    };
}

/* Both copies of the header, and every frame. */
static void repair(uint8_t *at, size_t size, uint32_t number)
{
    struct log_config c = config(false);
    size_t copy = (size_t)log_header_copy_bytes(PARTITIONS), sum = 64 + 16 * PARTITIONS;
    for (size_t i = 0; i < 2 && (i + 1) * copy <= size; i++) {
        uint8_t *header = at + i * copy;
        memcpy(header, "KELP_LOG", 8);
        put_le32(header + 8, get_le32(header + 8) < 3 ? get_le32(header + 8) : 1);
        put_le32(header + 12, PARTITIONS + (header[12] == 77));
        memcpy(header + 16, c.cluster_id, header[16] == 77 ? 0 : 16);
        put_le64(header + 32, number);
        put_le32(header + sum, crc32c(slice_of(header, sum), 0));
    }
    uint32_t seed = log_frame_seed(c.cluster_id, number);
    for (size_t i = 2 * copy; i + LOG_FRAME_HEADER_BYTES <= size; i += LOG_FRAME_ALIGN) {
        if (get_le16(at + i) != 0x464b)
            continue;
        put_le32(at + i + 8, number);
        uint32_t crc = crc32c(slice_of(at + i, 24), seed), length = get_le32(at + i + 4);
        put_le32(at + i + 24, crc);
        if (length % 2 == 0 && length <= size - i - LOG_FRAME_HEADER_BYTES)
            put_le32(at + i + 28, crc32c(slice_of(at + i + LOG_FRAME_HEADER_BYTES, length), crc));
    }
}

static void write_files(struct slice input)
{
    struct reader r = reader_of(input);
    for (int i = 0; i < FILES_MAX && read_left(&r) > 3; i++) {
        uint8_t head = read_u8(&r);
        size_t len = read_le16(&r) * 64u, whole;
        struct slice bytes = read_bytes(&r, len < read_left(&r) ? len : read_left(&r));
        struct io_file *file;
        char path[64];
        bytes.len = bytes.len < CONTENT_MAX ? bytes.len : CONTENT_MAX;
        whole = (bytes.len + LOG_PAGE_BYTES - 1) / LOG_PAGE_BYTES * LOG_PAGE_BYTES;
        memset(content, 0, sizeof content);
        memcpy(content, bytes.at, bytes.len);
        repair(content, whole, head & 15);
        snprintf(path, sizeof path, "log/%08u.%s", head & 15u, head & 128 ? "free" : "log");
        check(io_file_open(io, path, IO_WRITE, &file) == OK && io_file_truncate(file, 0) == OK);
        check(io_file_write(file, 0, slice_of(content, whole)) == OK);
        io_file_close(file);
    }
}

static void read_all(struct log *log, struct seen *out_seen)
{
    *out_seen = (struct seen){ 0 };
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        struct log_watermarks marks = log_watermarks(log, p);
        struct log_reader *reader;
        struct log_record record;
        uint64_t next = marks.start_offset;
        check(marks.start_offset <= marks.end_offset);
        out_seen->ends[p] = marks.end_offset;
        check(log_reader_open(log, p, next, LOG_EPOCH_NONE, &reader) == OK);
        for (int i = 0; i < RECORDS_MAX && log_reader_next(reader, &record) == OK; i++) {
            check(record.position.offset >= next && record.position.offset < marks.end_offset);
            check(!record.damaged || record.bytes.len == 0);
            next = record.position.offset + 1;
            if (record.damaged)
                continue;
            out_seen->count++;
            out_seen->hash = hash64(record.bytes, out_seen->hash + record.position.offset * 2 + p);
        }
        log_reader_close(reader);
    }
}

static void on_done(struct log_append *append, err result, struct log_position position)
{
    uint64_t *offset = append->context;
    *offset = result == OK ? position.offset : UINT64_MAX;
}

/* Open, read, and when appends: add a record, which gets the end's offset. */
static err look(bool read_only, bool appends, struct seen *out_seen)
{
    struct pool *pool = pool_open(NULL, "fuzz", POOL_BYTES_FUZZ);
    struct log_config c = config(read_only);
    struct err_at at = { 0 };
    struct log *log;
    err e = log_open(&c, io, pool, &log, &at);
    if (e == OK) {
        size_t damages;
        const struct log_damage *damage = log_damages(log, &damages);
        for (size_t i = 0; i < damages; i++)
            check(damage[i].partition < PARTITIONS && damage[i].from_offset < damage[i].to_offset);
        read_all(log, out_seen);
        if (appends) {
            struct slice part = slice_str("new");
            uint64_t offset = 0;
            struct log_append append = {
                .parts = &part, .part_count = 1, .done = on_done, .context = &offset
            };
            log_append(log, &append);
            ERR_IGNORE(log_pump(log)); /* its outcome is told to on_done */
            check(offset == UINT64_MAX || offset == out_seen->ends[0]);
            if (offset != UINT64_MAX)
                read_all(log, out_seen);
        }
        log_close(log);
    } else {
        check(at.text[0] != 0 || e == ERR_LIMIT);
    }
    pool_close(pool);
    return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen first, second, third;
    if (io == NULL) {
        check(mkdtemp(directory) != NULL && io_open(directory, &io) == OK);
        check(io_dir_create(io, "log") == OK);
        atexit(leave);
    }
    clear();
    write_files(slice_of(data, size));
    err e = look(true, false, &first);
    check(look(false, true, &second) == e);
    if (e == OK) {
        check(second.count >= first.count && second.ends[1] == first.ends[1]);
        check(look(true, false, &third) == OK);
        check(third.count == second.count && third.hash == second.hash);
        check(memcmp(third.ends, second.ends, sizeof third.ends) == 0);
    }
    return 0;
}
