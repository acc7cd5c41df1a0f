/* The stream file: frames of (row group, checkpoint), appended and synced. docs/format/stream.md.
 *
 * A range has one file, or several parts: after a failed write or sync a part is sealed for ever and the
 * next frame opens the next part. */
#ifndef SHARD_STREAM_H
#define SHARD_STREAM_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "io/io.h"
#include "log/log.h"

#include <stdbool.h>
#include <stdint.h>

#define STREAM_FILE_HEADER_BYTES  64
#define STREAM_FRAME_HEADER_BYTES 48
#define STREAM_FORMAT_VERSION     1
#define STREAM_PART_COUNT_MAX     1000000

/* Names a part: in its file name and in its header. */
struct stream_name {
    uint32_t partition;
    struct log_position start; /* of the range */
    uint32_t part;             /* 0 … */
};

/* "DIRECTORY/p000-1-0-0.stream". ERR_LIMIT: longer than IO_PATH_BYTES_MAX. */
err stream_path(const char *directory, const struct stream_name *name, char out_path[IO_PATH_BYTES_MAX]);
/* False: not such a name. */
bool stream_name_parse(const char *file_name, struct stream_name *out_name);

/* A part being written. Embedded; one owner. */
struct stream_writer {
    struct io_file *file; /* NULL: none open */
    uint64_t end;         /* where the next frame goes; everything below is durable */
};

/* Create a part: header, sync, directory sync. before_bytes: durable bytes of the part before (0 for part 0).
 * no_dir_sync: a canary, false in use.
 * After an error the name may exist; it counts for nothing and the same call may be tried again. */
err stream_part_create(struct io *io, const char *directory, const struct stream_name *name,
                       uint64_t before_bytes, bool no_dir_sync, struct stream_writer *out_writer);

/* Append a frame and sync. *out_offset: where the group's bytes begin. ERR_SPACE, ERR_IO: the part is not
 * to be written any more. */
err stream_frame_append(struct stream_writer *writer, struct slice group, struct slice checkpoint,
                        uint64_t *out_offset);

/* ---- reading ---- */
struct stream_part_header {
    struct stream_name name;
    uint64_t before_bytes;
};

/* ERR_CORRUPT, ERR_VERSION (at names it and ours), ERR_END (shorter than a header), ERR_IO. */
err stream_header_read(struct io_file *file, struct stream_part_header *out_header, struct err_at *at);

struct stream_frame {
    uint64_t offset; /* of the frame */
    uint64_t group_offset, group_bytes;
    uint64_t next_offset;    /* of the next frame */
    struct slice checkpoint; /* in the pool */
};

/* Read the frame at offset; checks every checksum, of the group too. ERR_END: exactly at the file's end.
 * ERR_CORRUPT: torn or damaged, with no more told. ERR_LIMIT, ERR_IO. */
err stream_frame_read(struct io_file *file, uint64_t offset, uint64_t file_bytes, struct pool *pool,
                      struct stream_frame *out_frame);

/* Of a frame that could not be read: does the file just end within it, as when its write was cut short? */
bool stream_frame_is_cut(struct io_file *file, uint64_t offset, uint64_t file_bytes);

#endif
