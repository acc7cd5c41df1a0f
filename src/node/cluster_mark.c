/* See cluster_mark.h. Who decides when it is written is node/cluster_node.c; restore and clone replace it. */
#include "node/cluster_mark.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "cluster/cluster.h"

#include <string.h>

#define MAGIC         "KELPCLUS"
#define FORMAT        2
#define PROGRAM_BYTES 32
#define UNFINISHED    1 /* of the flags */

struct cluster_mark cluster_mark_of(const uint8_t cluster_id[16], const struct control_init *init)
{
    struct cluster_mark mark = { .range_bytes_max = init->range_bytes_max,
                                 .partition_count = init->partition_count,
                                 .replica_count = init->replica_count };
    memcpy(mark.cluster_id, cluster_id, 16);
    memcpy(mark.hash_key, init->hash_key, 16);
    return mark;
}

void cluster_mark_encode(const struct cluster_mark *mark, uint8_t out[CLUSTER_MARK_BYTES])
{
    _Static_assert(sizeof KELPIE_VERSION <= PROGRAM_BYTES, "docs/format/cluster.md");
    memset(out, 0, CLUSTER_MARK_BYTES);
    memcpy(out, MAGIC, 8);
    put_le32(out + 8, FORMAT);
    memcpy(out + 16, mark->cluster_id, 16);
    memcpy(out + 32, mark->control_topic_id, 16);
    memcpy(out + 48, mark->topic_id, 16);
    memcpy(out + 64, KELPIE_VERSION, sizeof KELPIE_VERSION);
    memcpy(out + 96, mark->hash_key, 16);
    put_le64(out + 112, mark->range_bytes_max);
    put_le16(out + 120, (uint16_t)mark->partition_count);
    out[122] = mark->replica_count;
    out[123] = mark->is_unfinished ? UNFINISHED : 0;
    put_le32(out + 124, crc32c(slice_of(out, 124), 0));
}

err cluster_mark_decode(struct slice bytes, struct cluster_mark *out_mark, struct err_at *at)
{
    if (bytes.len != CLUSTER_MARK_BYTES || memcmp(bytes.at, MAGIC, 8) != 0 ||
        get_le32(bytes.at + 124) != crc32c(slice_of(bytes.at, 124), 0))
        return err_set(at, ERR_CORRUPT, "CLUSTER is damaged");
    if (get_le32(bytes.at + 8) != FORMAT)
        return err_set(at, ERR_VERSION,
                       "CLUSTER was written by kelpie %.*s, and this one does not know its format",
                       PROGRAM_BYTES - 1, (const char *)bytes.at + 64);
    struct cluster_mark mark = { .range_bytes_max = get_le64(bytes.at + 112),
                                 .partition_count = get_le16(bytes.at + 120),
                                 .replica_count = bytes.at[122],
                                 .is_unfinished = bytes.at[123] == UNFINISHED };
    if (mark.range_bytes_max == 0 || mark.partition_count == 0 ||
        mark.partition_count > CLUSTER_PARTITIONS_MAX || mark.replica_count == 0 ||
        mark.replica_count > CLUSTER_REPLICAS_MAX || bytes.at[123] > UNFINISHED)
        return err_set(at, ERR_CORRUPT, "CLUSTER is damaged: a number in it is out of its bounds");
    memcpy(mark.cluster_id, bytes.at + 16, 16);
    memcpy(mark.control_topic_id, bytes.at + 32, 16);
    memcpy(mark.topic_id, bytes.at + 48, 16);
    memcpy(mark.hash_key, bytes.at + 96, 16);
    *out_mark = mark;
    return OK;
}

static bool differ(const uint8_t *a, const uint8_t *b)
{
    static const uint8_t none[16];
    return memcmp(a, none, 16) != 0 && memcmp(b, none, 16) != 0 && memcmp(a, b, 16) != 0;
}

err cluster_mark_check(const struct cluster_mark *found, const struct cluster_mark *seen, const char *what,
                       struct err_at *at)
{
    if (memcmp(found->cluster_id, seen->cluster_id, 16) != 0)
        return err_set(at, ERR_CONFLICT, "%s belongs to another cluster than the control log", what);
    if (found->is_unfinished)
        return err_set(at, ERR_CONFLICT,
                       "%s is being made by kelpie cluster clone, which has not ended: run it again", what);
    if (memcmp(found->hash_key, seen->hash_key, 16) != 0 || found->partition_count != seen->partition_count ||
        found->range_bytes_max != seen->range_bytes_max)
        return err_set(at, ERR_CONFLICT,
                       "%s and the control log tell different partitions of the same cluster", what);
    bool is_control = differ(found->control_topic_id, seen->control_topic_id);
    if (is_control || differ(found->topic_id, seen->topic_id))
        return err_set(at, ERR_CONFLICT,
                       "%s knows another topic of that name: the %stopic was deleted and created anew", what,
                       is_control ? "control log's " : "");
    return OK;
}

err cluster_mark_load(struct io *io, struct pool *pool, struct cluster_mark *out_mark, struct err_at *at)
{
    struct slice bytes;
    struct pool *scratch = pool_open(pool, "mark", CLUSTER_MARK_BYTES * 64);
    *out_mark = (struct cluster_mark){ 0 };
    err e = io_read_file(io, CLUSTER_MARK_NAME, CLUSTER_MARK_BYTES, scratch, &bytes);
    if (e == OK)
        e = cluster_mark_decode(bytes, out_mark, at);
    else if (e == ERR_NOT_FOUND)
        e = OK;
    else
        e = err_set(at, e, "cannot read %s: %s", CLUSTER_MARK_NAME, err_text(e));
    pool_close(scratch);
    return e;
}

err cluster_mark_save(struct io *io, const struct cluster_mark *mark, struct err_at *at)
{
    uint8_t bytes[CLUSTER_MARK_BYTES];
    cluster_mark_encode(mark, bytes);
    err e = io_replace_file(io, CLUSTER_MARK_NAME, slice_of(bytes, sizeof bytes));
    return e == OK ? OK : err_set(at, e, "cannot write %s: %s", CLUSTER_MARK_NAME, err_text(e));
}

err cluster_mark_find(struct blob *bucket, struct pool *pool, struct cluster_mark *out_mark,
                      struct err_at *at)
{
    struct slice bytes;
    struct pool *scratch = pool_open(pool, "mark", POOL_BYTES_UNLIMITED);
    err e = blob_get(bucket, CLUSTER_MARK_NAME, CLUSTER_MARK_BYTES, scratch, &bytes);
    if (e == OK)
        e = cluster_mark_decode(bytes, out_mark, at);
    else if (e == ERR_LIMIT)
        e = err_set(at, ERR_CORRUPT, "the bucket's %s is too long", CLUSTER_MARK_NAME);
    else if (e != ERR_NOT_FOUND)
        e = err_set(at, e, "the bucket's %s cannot be read: %s", CLUSTER_MARK_NAME, err_text(e));
    pool_close(scratch);
    return e;
}
