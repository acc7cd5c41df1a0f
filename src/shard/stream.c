/* Stream files: framing. See stream.h and docs/format/stream.md.
 *
 * Data comes from spill (a row group of metric/ and the checkpoint of state.c) and goes back to recovery
 * and build. The file only saves replay: the log keeps the range until the chain names its segments. So
 * whatever is torn or damaged here is cut off, and what lay behind is applied again from the log.
 *
 * Invariants
 *  1. A frame is promised when its sync returned OK; a crash before leaves a torn last frame at most.
 *  2. A part whose write or sync failed is never written again; the next part's header says how many of its
 *     bytes count, so that a frame that reached the disk unpromised is not used twice. */
#include "shard/stream.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"

#include <stdio.h>

#define FILE_MAGIC       UINT32_C(0x5254534b) /* "KSTR" */
#define FRAME_MAGIC      UINT32_C(0x5246534b) /* "KSFR" */
#define READ_CHUNK_BYTES ((size_t)1 << 20)

err stream_path(const char *directory, const struct stream_name *name, char out_path[IO_PATH_BYTES_MAX])
{
    int len = snprintf(out_path, IO_PATH_BYTES_MAX, "%s/p%03u-%llu-%llu-%u.stream", directory,
                       name->partition, (unsigned long long)name->start.generation,
                       (unsigned long long)name->start.offset, name->part);
    return len > 0 && len < IO_PATH_BYTES_MAX ? OK : ERR_LIMIT;
}

bool stream_name_parse(const char *file_name, struct stream_name *out_name)
{
    unsigned partition, part;
    unsigned long long generation, offset;
    int end = 0;
    if (sscanf(file_name, "p%u-%llu-%llu-%u.stream%n", &partition, &generation, &offset, &part, &end) != 4 ||
        end == 0 || file_name[end] != '\0' || part >= STREAM_PART_COUNT_MAX)
        return false;
    struct stream_name name = { .partition = partition, .start = { generation, offset }, .part = part };
    char path[IO_PATH_BYTES_MAX]; /* as we would write it: "p0-01-…" names another file */
    if (stream_path(".", &name, path) != OK || strcmp(path + 2, file_name) != 0)
        return false;
    *out_name = name;
    return true;
}

err stream_part_create(struct io *io, const char *directory, const struct stream_name *name,
                       uint64_t before_bytes, bool no_dir_sync, struct stream_writer *out_writer)
{
    char path[IO_PATH_BYTES_MAX];
    TRY(stream_path(directory, name, path));
    struct io_file *file = NULL;
    err e = OK;
    uint8_t header[STREAM_FILE_HEADER_BYTES] = { 0 };
    put_le32(header, FILE_MAGIC);
    put_le16(header + 4, STREAM_FORMAT_VERSION);
    put_le32(header + 8, name->partition);
    put_le32(header + 12, name->part);
    put_le64(header + 16, name->start.generation);
    put_le64(header + 24, name->start.offset);
    put_le64(header + 32, before_bytes);
    put_le32(header + 60, crc32c(slice_of(header, 60), 0));
    TRY_OUT(io_file_open(io, path, IO_WRITE, &file));
    TRY_OUT(io_file_truncate(file, 0)); /* leftovers of an attempt that failed before its first frame */
    TRY_OUT(io_file_write(file, 0, slice_of(header, sizeof header)));
    TRY_OUT(io_file_sync(file));
    if (!no_dir_sync)
        TRY_OUT(io_dir_sync(io, directory));
    *out_writer = (struct stream_writer){ .file = file, .end = STREAM_FILE_HEADER_BYTES };
    file = NULL;
out:
    io_file_close(file);
    return e;
}

err stream_frame_append(struct stream_writer *writer, struct slice group, struct slice checkpoint,
                        uint64_t *out_offset)
{
    check(checkpoint.len > 0);
    uint8_t header[STREAM_FRAME_HEADER_BYTES] = { 0 };
    put_le32(header, FRAME_MAGIC);
    put_le64(header + 8, writer->end); /* where it stands: a copied block elsewhere does not match */
    put_le64(header + 16, checkpoint.len);
    put_le64(header + 24, group.len);
    put_le32(header + 32, crc32c(checkpoint, 0));
    put_le32(header + 36, crc32c(group, 0));
    put_le32(header + 44, crc32c(slice_of(header, 44), 0));
    struct slice parts[] = { slice_of(header, sizeof header), checkpoint, group };
    TRY(io_file_write_all(writer->file, writer->end, parts, group.len > 0 ? 3 : 2));
    TRY(io_file_sync(writer->file));
    *out_offset = writer->end + sizeof header + checkpoint.len;
    writer->end = *out_offset + group.len;
    return OK;
}

err stream_header_read(struct io_file *file, struct stream_part_header *out_header, struct err_at *at)
{
    uint8_t header[STREAM_FILE_HEADER_BYTES];
    TRY(io_file_read(file, 0, header, sizeof header, NULL));
    if (get_le32(header) != FILE_MAGIC || get_le32(header + 60) != crc32c(slice_of(header, 60), 0))
        return ERR_CORRUPT;
    if (get_le16(header + 4) > STREAM_FORMAT_VERSION)
        return err_set(at, ERR_VERSION,
                       "written by a newer version: stream format %u, and this Kelpie reads up to %u",
                       get_le16(header + 4), STREAM_FORMAT_VERSION);
    *out_header =
        (struct stream_part_header){ .name = { .partition = get_le32(header + 8),
                                               .part = get_le32(header + 12),
                                               .start = { get_le64(header + 16), get_le64(header + 24) } },
                                     .before_bytes = get_le64(header + 32) };
    return OK;
}

static err check_group(struct io_file *file, uint64_t offset, uint64_t len, uint32_t expected,
                       struct pool *pool)
{
    void *block = NULL;
    TRY(pool_block_resize(pool, &block, READ_CHUNK_BYTES));
    uint32_t crc = 0;
    err e = OK;
    for (uint64_t done = 0; done < len;) {
        size_t part = len - done < READ_CHUNK_BYTES ? (size_t)(len - done) : READ_CHUNK_BYTES;
        TRY_OUT(io_file_read(file, offset + done, block, part, NULL));
        crc = crc32c(slice_of(block, part), crc);
        done += part;
    }
    e = crc == expected ? OK : ERR_CORRUPT;
out:
    pool_block_free(pool, block);
    return e == ERR_END ? ERR_CORRUPT : e;
}

err stream_frame_read(struct io_file *file, uint64_t offset, uint64_t file_bytes, struct pool *pool,
                      struct stream_frame *out_frame)
{
    if (offset == file_bytes)
        return ERR_END;
    if (offset > file_bytes || file_bytes - offset < STREAM_FRAME_HEADER_BYTES)
        return ERR_CORRUPT;
    uint8_t header[STREAM_FRAME_HEADER_BYTES];
    TRY(io_file_read(file, offset, header, sizeof header, NULL));
    if (get_le32(header) != FRAME_MAGIC || get_le64(header + 8) != offset ||
        get_le32(header + 44) != crc32c(slice_of(header, 44), 0))
        return ERR_CORRUPT;
    uint64_t left = file_bytes - offset - STREAM_FRAME_HEADER_BYTES;
    uint64_t checkpoint_bytes = get_le64(header + 16), group_bytes = get_le64(header + 24);
    if (checkpoint_bytes > left || group_bytes > left - checkpoint_bytes)
        return ERR_CORRUPT;
    void *at;
    TRY(pool_alloc(pool, (size_t)checkpoint_bytes + 1, &at));
    TRY(io_file_read(file, offset + STREAM_FRAME_HEADER_BYTES, at, (size_t)checkpoint_bytes, NULL));
    struct slice checkpoint = slice_of(at, (size_t)checkpoint_bytes);
    if (crc32c(checkpoint, 0) != get_le32(header + 32))
        return ERR_CORRUPT;
    uint64_t group_offset = offset + STREAM_FRAME_HEADER_BYTES + checkpoint_bytes;
    TRY(check_group(file, group_offset, group_bytes, get_le32(header + 36), pool));
    *out_frame = (struct stream_frame){ .offset = offset,
                                        .group_offset = group_offset,
                                        .group_bytes = group_bytes,
                                        .next_offset = group_offset + group_bytes,
                                        .checkpoint = checkpoint };
    return OK;
}

bool stream_frame_is_cut(struct io_file *file, uint64_t offset, uint64_t file_bytes)
{
    uint8_t header[STREAM_FRAME_HEADER_BYTES];
    if (offset >= file_bytes)
        return false;
    uint64_t left = file_bytes - offset;
    if (left < sizeof header)
        return true;
    if (io_file_read(file, offset, header, sizeof header, NULL) != OK || get_le32(header) != FRAME_MAGIC ||
        get_le64(header + 8) != offset || get_le32(header + 44) != crc32c(slice_of(header, 44), 0))
        return false;
    left -= sizeof header;
    uint64_t checkpoint_bytes = get_le64(header + 16), group_bytes = get_le64(header + 24);
    return checkpoint_bytes > left || group_bytes > left - checkpoint_bytes;
}
