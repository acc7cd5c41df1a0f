/* The file NODE. See identity.h, docs/format/node.md.
 *
 * Written once, at the first start, under its own lock; read at every start. Invariants
 *  1. The lock is taken before the first byte is read or written and held until identity_close.
 *  2. A NODE that is empty, short or all zeros (a crash during the first start) counts as absent, but only
 *     when there is no data beside it; otherwise it is damage.
 *  3. Magic, format number, program text and checksum keep their places in all versions, so that an old
 *     program can name the new one. */
#include "node/identity.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"

#include <stdio.h>

#define MAGIC               "KELPNODE"
#define PARTITION_COUNT_MAX 1024

_Static_assert(64 + IDENTITY_PROGRAM_BYTES + 28 + 4 == IDENTITY_BYTES, "docs/format/node.md");

struct identity_lock {
    struct io_file *file;
};

void identity_encode(const struct identity *identity, uint8_t out[IDENTITY_BYTES])
{
    memset(out, 0, IDENTITY_BYTES);
    memcpy(out, MAGIC, 8);
    put_le32(out + 8, identity->is_member ? IDENTITY_FORMAT_MEMBER : IDENTITY_FORMAT);
    if (identity->is_member) {
        memcpy(out + 16, identity->disk_id, 16);
    } else {
        put_le32(out + 12, identity->partition_count);
        memcpy(out + 16, identity->cluster_id, 16);
        memcpy(out + 32, identity->hash_key, 16);
        put_le64(out + 48, identity->range_bytes_max);
    }
    put_le64(out + 56, (uint64_t)identity->created_ms);
    memcpy(out + 64, identity->program, IDENTITY_PROGRAM_BYTES - 1);
    put_le32(out + 124, crc32c(slice_of(out, 124), 0));
}

err identity_decode(const uint8_t bytes[IDENTITY_BYTES], struct identity *out_identity, struct err_at *at)
{
    struct identity identity = { 0 };
    if (memcmp(bytes, MAGIC, 8) != 0)
        return err_set(
            at, ERR_CORRUPT,
            "NODE is damaged: it is not an identity file of Kelpie; put the NODE of a snapshot back");
    if (get_le32(bytes + 124) != crc32c(slice_of(bytes, 124), 0))
        return err_set(at, ERR_CORRUPT,
                       "NODE is damaged: its checksum is wrong; put the NODE of a snapshot back");
    memcpy(identity.program, bytes + 64, IDENTITY_PROGRAM_BYTES - 1);
    uint32_t format = get_le32(bytes + 8);
    if (format != IDENTITY_FORMAT && format != IDENTITY_FORMAT_MEMBER)
        return err_set(at, ERR_VERSION,
                       "the data was written by kelpie %s (data format %u); this is kelpie %s, which"
                       " reads formats up to %d",
                       identity.program, format, KELPIE_VERSION, IDENTITY_FORMAT_MEMBER);
    identity.created_ms = (int64_t)get_le64(bytes + 56);
    identity.is_member = format == IDENTITY_FORMAT_MEMBER;
    if (identity.is_member) {
        memcpy(identity.disk_id, bytes + 16, 16);
        *out_identity = identity;
        return OK;
    }
    identity.partition_count = get_le32(bytes + 12);
    memcpy(identity.cluster_id, bytes + 16, 16);
    memcpy(identity.hash_key, bytes + 32, 16);
    identity.range_bytes_max = get_le64(bytes + 48);
    if (identity.partition_count < 1 || identity.partition_count > PARTITION_COUNT_MAX ||
        identity.range_bytes_max == 0)
        return err_set(at, ERR_CORRUPT, "NODE holds impossible values: %u partitions",
                       identity.partition_count);
    *out_identity = identity;
    return OK;
}

static bool is_zero(const uint8_t *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (at[i] != 0)
            return false;
    return true;
}

static bool has_data(struct io *io)
{
    return io_exists(io, "log") || io_exists(io, "blob") || io_exists(io, "stream");
}

/* A directory is used for what it was made for: what the other kind left would be hidden, not read. */
static err check_kind(const struct identity *identity, const struct identity_fresh *fresh, struct err_at *at)
{
    if (fresh == NULL || identity->is_member == fresh->is_member)
        return OK;
    return err_set(
        at, ERR_INPUT, "%s",
        identity->is_member
            ? "it is that of a node in a cluster, and the configuration has no cluster section"
            : "it holds the data of a node that was alone; a node in a cluster needs a directory of its"
              " own");
}

bool identity_is_snapshot(struct io *io) { return io_exists(io, IDENTITY_SNAPSHOT_FILE); }

/* Draw a new identity and write it durably. */
static err initialise(struct io *io, struct io_file *file, const struct identity_fresh *fresh,
                      struct identity *out_identity)
{
    struct identity identity = { .is_member = fresh->is_member, .created_ms = io_now_ms(io) };
    uint8_t bytes[IDENTITY_BYTES];
    if (fresh->is_member) {
        io_random(io, identity.disk_id, sizeof identity.disk_id);
    } else {
        check(fresh->partition_count > 0 && fresh->partition_count <= PARTITION_COUNT_MAX &&
              fresh->range_bytes_max > 0);
        identity.partition_count = fresh->partition_count;
        identity.range_bytes_max = fresh->range_bytes_max;
        io_random(io, identity.cluster_id, sizeof identity.cluster_id);
        io_random(io, identity.hash_key, sizeof identity.hash_key);
    }
    snprintf(identity.program, sizeof identity.program, "%s", KELPIE_VERSION);
    identity_encode(&identity, bytes);
    TRY(io_file_write(file, 0, slice_of(bytes, sizeof bytes)));
    TRY(io_file_sync(file));
    TRY(io_dir_sync(io, "."));
    *out_identity = identity;
    return OK;
}

/* The file is locked. */
static err read_or_init(struct io *io, struct io_file *file, const struct identity_fresh *fresh,
                        struct identity *out_identity, struct err_at *at)
{
    uint8_t bytes[IDENTITY_BYTES] = { 0 };
    size_t len = 0;
    err e = io_file_read(file, 0, bytes, sizeof bytes, &len);
    if (e != OK && e != ERR_END)
        return err_set(at, e, "cannot read NODE: %s; put the NODE of a snapshot back", err_text(e));
    if (e == OK && !is_zero(bytes, sizeof bytes))
        return identity_decode(bytes, out_identity, at);
    if (fresh != NULL && fresh->is_member && has_data(io))
        return err_set(
            at, ERR_CONFLICT,
            "its NODE file is empty, missing or cut short; give the node an empty directory: what was"
            " here can be had again from the log and the bucket");
    if (len > 0 && !is_zero(bytes, len) && has_data(io))
        return err_set(at, ERR_CORRUPT, "NODE is cut short; put the NODE of a snapshot back");
    if (has_data(io))
        return err_set(
            at, ERR_CONFLICT,
            "it holds data, but its NODE file is empty or missing: put the NODE of a snapshot back,"
            " or, if this is what a restore that was interrupted left, remove it and restore again");
    if (fresh == NULL)
        return err_set(at, ERR_NOT_FOUND, "there is no node's data in it");
    e = initialise(io, file, fresh, out_identity);
    return e == OK ? OK : err_set(at, e, "cannot write NODE: %s", err_text(e));
}

err identity_open(struct io *io, struct pool *pool, const struct identity_fresh *fresh,
                  struct identity *out_identity, struct identity_lock **out_lock, struct err_at *at)
{
    struct io_file *file = NULL;
    void *room;
    if (fresh == NULL && !io_exists(io, IDENTITY_FILE))
        return err_set(at, ERR_NOT_FOUND, "there is no node's data in it");
    TRY(pool_zalloc(pool, sizeof(struct identity_lock), &room));
    struct identity_lock *lock = room;
    err e = io_file_open(io, IDENTITY_FILE, IO_WRITE, &file); /* NFS locks only what is open for writing */
    if (e == ERR_DENIED && fresh == NULL)                     /* to read is right enough for reading */
        e = io_file_open(io, IDENTITY_FILE, IO_READ, &file);
    if (e != OK)
        return err_set(at, e, "cannot open NODE: %s%s", err_text(e),
                       e != ERR_DENIED ? ""
                       : fresh == NULL ? "; this user must have the right to read the directory"
                                       : "; this user must own the directory, and its file system must"
                                         " be writable");
    e = io_file_lock(file);
    if (e != OK)
        e = err_set(at, e, "%s",
                    e == ERR_BUSY ? "in use by another process; stop that one first" : "cannot lock NODE");
    if (e == OK)
        e = read_or_init(io, file, fresh, out_identity, at);
    if (e == OK)
        e = check_kind(out_identity, fresh, at);
    if (e != OK) {
        io_file_close(file);
        return e;
    }
    lock->file = file;
    *out_lock = lock;
    return OK;
}

void identity_close(struct identity_lock *lock)
{
    if (lock == NULL)
        return;
    io_file_close(lock->file);
    lock->file = NULL;
}
