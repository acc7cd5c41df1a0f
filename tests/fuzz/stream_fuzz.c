/* Any bytes as a stream file: names, header, frames, with the checksums of what looks like them made right.
 * Frames tile the file as far as they go; a checkpoint is decoded, a group opened. */
#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "metric/metric.h"
#include "shard/state.h"
#include "shard/stream.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX (64u << 20)

static struct io *io;
static char directory[] = "/dev/shm/kelpie-fuzz-XXXXXX";

static void leave(void)
{
    ERR_IGNORE(io_unlink(io, "f"));
    io_close(io);
    rmdir(directory);
}

static void repair(uint8_t *at, size_t size)
{
    if (size >= STREAM_FILE_HEADER_BYTES)
        put_le32(at + 60, crc32c(slice_of(at, 60), 0));
    for (size_t i = STREAM_FILE_HEADER_BYTES; i + STREAM_FRAME_HEADER_BYTES <= size;) {
        uint64_t left = size - i - STREAM_FRAME_HEADER_BYTES;
        uint64_t checkpoint = get_le64(at + i + 16), group = get_le64(at + i + 24);
        if (checkpoint <= left && group <= left - checkpoint) {
            uint8_t *bytes = at + i + STREAM_FRAME_HEADER_BYTES;
            put_le32(at + i + 32, crc32c(slice_of(bytes, checkpoint), 0));
            put_le32(at + i + 36, crc32c(slice_of(bytes + checkpoint, group), 0));
        }
        put_le64(at + i + 8, i);
        put_le32(at + i + 44, crc32c(slice_of(at + i, 44), 0));
        if (checkpoint > left || group > left - checkpoint)
            return;
        i += STREAM_FRAME_HEADER_BYTES + checkpoint + group;
    }
}

static err no_series(void *context, uint32_t reference, uint32_t *out_local) { return ERR_CORRUPT; }
static err any_series(void *context, struct slice tenant, struct slice labels, uint32_t *out_local)
{
    *out_local = 0;
    return OK;
}

struct place {
    struct io_file *file;
    uint64_t offset;
};

static err read_group(void *context, uint64_t offset, void *at, size_t len)
{
    const struct place *place = context;
    return io_file_read(place->file, place->offset + offset, at, len, NULL);
}

static void use_frame(struct io_file *file, const struct stream_frame *frame, struct pool *pool)
{
    struct state_series series = { no_series, any_series, NULL };
    struct state state;
    struct place place = { file, frame->group_offset };
    struct metric_group_bytes bytes = { read_group, &place, frame->group_bytes };
    struct metric_group *group;
    ERR_IGNORE(state_decode(frame->checkpoint, &series, pool, &state));
    if (frame->group_bytes > 0 && metric_group_open(pool, &bytes, &group) == OK) {
        ERR_IGNORE(metric_group_verify(group, pool, NULL, NULL));
        metric_group_close(group);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (io == NULL) {
        check(mkdtemp(directory) != NULL && io_open(directory, &io) == OK);
        atexit(leave);
    }
    struct stream_part_header header;
    struct stream_name name;
    struct io_file *file;
    struct pool *pool = pool_open(NULL, "fuzz", FUZZ_BYTES_MAX);
    char text[64], path[IO_PATH_BYTES_MAX];
    snprintf(text, sizeof text, "%.*s", (int)size, (const char *)data);
    if (stream_name_parse(text, &name))
        ERR_IGNORE(stream_path("stream", &name, path));
    uint8_t *copy = malloc(size + 1);
    memcpy(copy, data, size);
    check(io_file_open(io, "f", IO_WRITE, &file) == OK);
    for (int repaired = 0; repaired < 2; repaired++) {
        if (repaired)
            repair(copy, size);
        check(io_file_truncate(file, 0) == OK && io_file_write(file, 0, slice_of(copy, size)) == OK);
        if (stream_header_read(file, &header, NULL) != OK)
            continue;
        ERR_IGNORE(stream_path("stream", &header.name, path));
        struct stream_frame frame;
        uint64_t offset = STREAM_FILE_HEADER_BYTES;
        while (stream_frame_read(file, offset, size, pool, &frame) == OK) {
            check(frame.next_offset > offset && frame.next_offset <= size);
            use_frame(file, &frame, pool);
            offset = frame.next_offset;
        }
    }
    io_file_close(file);
    free(copy);
    pool_close(pool);
    return 0;
}
