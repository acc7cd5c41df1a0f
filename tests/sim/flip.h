/* Changes a row in a stream file so that every checksum is right: what a disk, a controller or a person may do,
 * and what no checksum tells. Test only.
 *
 * Of the first row group a bit is changed, the last one of a block with which the group still decodes, to as
 * many rows; then the checksums of block, group and frame are made right, and, if so asked, the SUMs of the group
 * and of every checkpoint from there on. */
#ifndef SIM_FLIP_H
#define SIM_FLIP_H

#include "base/bytes.h"
#include "base/hash.h"
#include "base/test.h"
#include "metric/metric.h"
#include "shard/stream.h"

#define FLIP_BYTES_MAX   (64u << 20)
#define FLIP_NUMBERS_MAX 4096

/* How much is made right, beside checksums. */
enum flip_depth {
    FLIP_ROW,   /* nothing */
    FLIP_GROUP, /* SUM of the group */
    FLIP_ALL,   /* and of every checkpoint from there on */
};

struct flip_frame {
    uint8_t *at; /* its head */
    uint64_t checkpoint_bytes, group_bytes;
};

static inline struct flip_frame flip_frame_at(struct slice file, uint64_t offset)
{
    uint8_t *at = (uint8_t *)(uintptr_t)file.at + offset;
    return (struct flip_frame){ at, get_le64(at + 16), get_le64(at + 24) };
}

static inline uint8_t *flip_group(const struct flip_frame *f)
{
    return f->at + STREAM_FRAME_HEADER_BYTES + f->checkpoint_bytes;
}

static inline void flip_frame_seal(const struct flip_frame *f)
{
    uint8_t *checkpoint = f->at + STREAM_FRAME_HEADER_BYTES;
    put_le32(f->at + 32, crc32c(slice_of(checkpoint, f->checkpoint_bytes), 0));
    if (f->group_bytes > 0)
        put_le32(f->at + 36, crc32c(slice_of(flip_group(f), f->group_bytes), 0));
    put_le32(f->at + 44, crc32c(slice_of(f->at, 44), 0));
}

/* ---- what a group holds ---- */

struct flip_series {
    struct hash128 hashes[FLIP_NUMBERS_MAX];
};

static inline err flip_read(void *context, uint64_t offset, void *at, size_t len)
{
    const struct slice *group = context;
    memcpy(at, group->at + offset, len);
    return OK;
}

static inline err flip_entry(void *context, uint32_t number, struct slice tenant, struct slice labels)
{
    struct flip_series *series = context;
    assert_true(number < FLIP_NUMBERS_MAX);
    series->hashes[number] = sum_series_hash(tenant, labels);
    return OK;
}

/* SUM of its float rows. Any error: it is no group any more. */
static inline err flip_sum(struct slice group, struct pool *parent, struct sum *out_sum)
{
    static struct flip_series series;
    struct pool *pool = pool_open(parent, "flip", POOL_BYTES_UNLIMITED);
    const struct metric_group_bytes bytes = { flip_read, &group, group.len };
    struct metric_group *opened = NULL;
    struct metric_group_walk *walk = NULL;
    struct metric_group_series s;
    struct sum sum = { 0 };
    err e = OK;
    TRY_OUT(metric_group_open(pool, &bytes, &opened));
    TRY_OUT(metric_group_dictionary(opened, pool, flip_entry, &series));
    TRY_OUT(metric_group_walk_open(opened, pool, &walk));
    while ((e = metric_group_walk_next(walk, &s)) == OK)
        for (size_t i = 0; i < s.row_count && s.number < FLIP_NUMBERS_MAX; i++)
            sum_add_hash(&sum, sum_row_hash(series.hashes[s.number], s.t_ms[i], s.value_bits[i],
                                            s.start_ms != NULL ? s.start_ms[i] : 0, SAMPLE_FLOAT));
    e = e == ERR_END ? OK : e;
    *out_sum = sum;
out:
    metric_group_walk_close(walk);
    metric_group_close(opened);
    pool_close(pool);
    return e;
}

/* ---- changing it ---- */

/* Change a bit of the block; true: the group decodes to as many rows, others. */
static inline bool flip_bit(const struct flip_frame *f, uint8_t *block, uint32_t bytes, uint64_t bit,
                            struct sum before, struct pool *pool, struct sum *out_after)
{
    block[bit / 8] ^= (uint8_t)(1u << bit % 8);
    put_le32(block, crc32c(slice_of(block + 4, bytes - 4), 0));
    if (flip_sum(slice_of(flip_group(f), f->group_bytes), pool, out_after) == OK &&
        out_after->count == before.count && !sum_equal(*out_after, before))
        return true;
    block[bit / 8] ^= (uint8_t)(1u << bit % 8);
    put_le32(block, crc32c(slice_of(block + 4, bytes - 4), 0));
    return false;
}

static inline void flip_group_row(const struct flip_frame *f, struct pool *pool, struct sum *out_before,
                                  struct sum *out_after)
{
    uint8_t *group = flip_group(f);
    uint8_t *block = group + get_le32(group + get_le32(group + 104) + 4);
    uint32_t bytes = get_le32(group + get_le32(group + 104) + 8);
    assert_ok(flip_sum(slice_of(group, f->group_bytes), pool, out_before));
    for (uint64_t bit = (uint64_t)bytes * 8; bit-- > 32;)
        if (flip_bit(f, block, bytes, bit, *out_before, pool, out_after))
            return;
    fail_msg("no bit of the block can be changed");
}

/* SUM of the range in a checkpoint: docs/format/state.md §2. */
static inline void flip_checkpoint(const struct flip_frame *f, struct sum before, struct sum after)
{
    struct reader r = reader_of(slice_of(f->at + STREAM_FRAME_HEADER_BYTES, f->checkpoint_bytes));
    for (int i = 0; i < 8; i++) /* version, two positions, data-through, records, log bytes */
        (void)read_varint(&r);
    struct sum sum = { .count = read_varint(&r) };
    uint8_t *at = (uint8_t *)(uintptr_t)r.at;
    assert_true(r.ok && read_left(&r) >= 16);
    sum.low = get_le64(at);
    sum.high = get_le64(at + 8);
    sum_subtract(&sum, before);
    sum_add(&sum, after);
    put_le64(at, sum.low);
    put_le64(at + 8, sum.high);
}

/* False: the file has no group yet. */
static inline bool flip_stream_row(struct io *io, const char *path, enum flip_depth depth,
                                   struct pool *parent)
{
    struct pool *pool = pool_open(parent, "flip", POOL_BYTES_UNLIMITED);
    struct io_file *file;
    struct slice bytes;
    struct sum before = { 0 }, after = { 0 };
    bool is_done = false;
    assert_ok(io_read_file(io, path, FLIP_BYTES_MAX, pool, &bytes));
    for (uint64_t at = STREAM_FILE_HEADER_BYTES; at + STREAM_FRAME_HEADER_BYTES <= bytes.len;) {
        struct flip_frame f = flip_frame_at(bytes, at);
        if (!is_done && f.group_bytes > 0) {
            flip_group_row(&f, pool, &before, &after);
            is_done = true;
            if (depth >= FLIP_GROUP) {
                uint8_t *head = flip_group(&f);
                put_le64(head + 64, after.low);
                put_le64(head + 72, after.high);
                put_le32(head + 124, crc32c(slice_of(head, 124), 0));
            }
        }
        if (is_done && depth == FLIP_ALL)
            flip_checkpoint(&f, before, after);
        flip_frame_seal(&f);
        at += STREAM_FRAME_HEADER_BYTES + f.checkpoint_bytes + f.group_bytes;
    }
    if (is_done) { /* in place: whoever has it open reads it, too */
        assert_ok(io_file_open(io, path, IO_WRITE, &file));
        assert_ok(io_file_write(file, 0, bytes));
        assert_ok(io_file_sync(file));
        io_file_close(file);
    }
    pool_close(pool);
    return is_done;
}

#endif
