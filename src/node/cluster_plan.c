/* See cluster_plan.h. Bytes from outside are checked before anything is done with them. */
#include "node/cluster_plan.h"

#include "base/bytes.h"
#include "base/hash.h"

#include <string.h>

#define MAGIC      "KELPPLAN"
#define FORMAT     1
#define HEAD_BYTES 64
#define BYTES_MAX  (HEAD_BYTES + 8 * CLUSTER_PARTITIONS_MAX + 4)

void cluster_plan_encode(const struct cluster_plan *plan, struct buf *out)
{
    size_t from = out->len;
    buf_put(out, MAGIC, 8);
    buf_put_le32(out, FORMAT);
    buf_put_le32(out, plan->partition_count);
    buf_put(out, plan->cluster_id, sizeof plan->cluster_id);
    buf_put(out, plan->of_id, sizeof plan->of_id);
    buf_put_le64(out, (uint64_t)plan->t_ms);
    buf_put_le64(out, 0);
    for (uint32_t i = 0; i < plan->partition_count; i++)
        buf_put_le64(out, plan->numbers[i]);
    if (buf_err(out) == OK)
        buf_put_le32(out, crc32c(slice_of(out->at + from, out->len - from), 0));
}

err cluster_plan_decode(struct slice bytes, struct cluster_plan *out_plan)
{
    if (bytes.len < HEAD_BYTES + 4 || memcmp(bytes.at, MAGIC, 8) != 0 ||
        get_le32(bytes.at + bytes.len - 4) != crc32c(slice_of(bytes.at, bytes.len - 4), 0))
        return ERR_CORRUPT;
    if (get_le32(bytes.at + 8) != FORMAT)
        return ERR_VERSION;
    uint32_t count = get_le32(bytes.at + 12);
    if (count == 0 || count > CLUSTER_PARTITIONS_MAX || bytes.len != HEAD_BYTES + 8 * (size_t)count + 4)
        return ERR_CORRUPT;
    *out_plan = (struct cluster_plan){ .t_ms = (int64_t)get_le64(bytes.at + 48), .partition_count = count };
    memcpy(out_plan->cluster_id, bytes.at + 16, sizeof out_plan->cluster_id);
    memcpy(out_plan->of_id, bytes.at + 32, sizeof out_plan->of_id);
    for (uint32_t i = 0; i < count; i++)
        out_plan->numbers[i] = get_le64(bytes.at + HEAD_BYTES + 8 * (size_t)i);
    return OK;
}

err cluster_plan_find(struct blob *bucket, const char *name, struct pool *pool, struct cluster_plan *out_plan,
                      struct err_at *at)
{
    struct slice bytes;
    struct pool *scratch = pool_open(pool, "plan", POOL_BYTES_UNLIMITED);
    err e = blob_get(bucket, name, BYTES_MAX, scratch, &bytes);
    if (e == OK)
        e = cluster_plan_decode(bytes, out_plan);
    pool_close(scratch);
    return e == OK || e == ERR_NOT_FOUND
               ? e
               : err_set(at, e, "the bucket's %s cannot be read: %s", name, err_text(e));
}

err cluster_plan_settle(struct blob *bucket, const char *name, struct pool *pool, struct cluster_plan *plan,
                        struct err_at *at)
{
    struct buf bytes = buf_open(pool, BYTES_MAX);
    cluster_plan_encode(plan, &bytes);
    err e = buf_err(&bytes);
    if (e == OK)
        e = blob_put(bucket, name, buf_slice(&bytes));
    buf_close(&bytes);
    if (e != OK && e != ERR_EXISTS)
        return err_set(at, e, "the bucket's %s cannot be written: %s", name, err_text(e));
    e = cluster_plan_find(bucket, name, pool, plan, at);
    return e == ERR_NOT_FOUND ? err_set(at, e, "the bucket's %s was removed meanwhile", name) : e;
}
