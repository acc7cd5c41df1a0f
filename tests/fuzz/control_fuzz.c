/* Any bytes as a control log: (length as le16, seconds to the next as a byte, bytes) …, each also with its
 * magic and cluster made right, folded one after the other. What decodes encodes to what decodes the same; the
 * state survives its snapshot. When the first byte is odd, the rest is a snapshot itself, with magic and
 * checksum made right, on which records are folded. */
#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "cluster/members.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX (256u << 20)

static void survives(struct pool *pool, const struct members *members)
{
    struct buf state = buf_open(pool, 8u << 20), again = buf_open(pool, 8u << 20);
    struct members *twin;
    members_encode(members, &state);
    if (buf_err(&state) == OK) {
        check(members_decode(buf_slice(&state), pool, &twin) == OK);
        members_encode(twin, &again);
        check(slice_equal(buf_slice(&state), buf_slice(&again)));
        members_close(twin);
    }
    buf_close(&again);
    buf_close(&state);
}

static void encodes(struct pool *pool, struct slice bytes)
{
    struct control_record record, same;
    struct buf again = buf_open(pool, CONTROL_RECORD_BYTES_MAX + 4096),
               twice = buf_open(pool, CONTROL_RECORD_BYTES_MAX + 4096);
    if (control_record_decode(bytes, pool, &record) == OK) {
        control_record_encode(&record, &again);
        check(buf_err(&again) == OK && control_record_decode(buf_slice(&again), pool, &same) == OK);
        control_record_encode(&same, &twice);
        check(slice_equal(buf_slice(&again), buf_slice(&twice)));
    }
    buf_close(&twice);
    buf_close(&again);
}

static void one(struct pool *pool, struct members *members, int64_t now_ms, struct slice body)
{
    struct members_change change;
    uint8_t head[22] = { 'K', 'C', 'T', 'L', CONTROL_FORMAT_VERSION };
    struct buf bytes = buf_open(pool, 1u << 17);
    head[5] = body.len > 0 ? body.at[0] : 0;
    buf_put(&bytes, head, sizeof head);
    if (body.len > 0)
        buf_put(&bytes, body.at + 1, body.len - 1);
    encodes(pool, body);
    encodes(pool, buf_slice(&bytes));
    ERR_IGNORE(members_apply(members, members_epoch(members), now_ms, body, &change));
    if (members_apply(members, members_epoch(members), now_ms, buf_slice(&bytes), &change) == OK)
        check(change.counted == (change.why == NULL));
    buf_close(&bytes);
}

static void log_of(struct pool *pool, struct slice bytes)
{
    struct members *members;
    struct pool *scratch = pool_open(pool, "records", POOL_BYTES_UNLIMITED);
    struct reader r = reader_of(bytes);
    int64_t now_ms = 0;
    check(members_open(pool, &members) == OK);
    while (read_left(&r) > 3) {
        size_t len = read_le16(&r);
        now_ms += read_u8(&r) * 1000;
        one(scratch, members, now_ms, read_bytes(&r, len < read_left(&r) ? len : read_left(&r)));
        pool_reset(scratch);
    }
    uint32_t *slots;
    uint64_t placed;
    if (members_init(members) != NULL)
        ERR_IGNORE(members_plan(members, scratch, &slots, &placed));
    survives(scratch, members);
    pool_close(scratch);
    members_close(members);
}

/* A person gives the slot up, in whatever life. */
static void end_of(struct pool *pool, struct members *members, uint32_t slot)
{
    struct control_record record = { .kind = CONTROL_REMOVE,
                                     .of = members_at(members, slot)->id,
                                     .removal = REMOVAL_GONE };
    struct members_change change;
    struct buf bytes = buf_open(pool, 4096);
    memcpy(record.cluster_id, members_cluster_id(members), CLUSTER_ID_BYTES);
    control_record_encode(&record, &bytes);
    ERR_IGNORE(members_apply(members, members_epoch(members), members_append_ms(members) + 1000,
                             buf_slice(&bytes), &change));
    buf_close(&bytes);
}

static void snapshot_of(struct pool *pool, struct slice bytes)
{
    struct buf made = buf_open(pool, 1u << 20);
    struct members *members;
    buf_put(&made, "KCMS\1\0", 6);
    buf_put_slice(&made, bytes);
    buf_put_le32(&made, crc32c(buf_slice(&made), 0));
    if (buf_err(&made) == OK && members_decode(buf_slice(&made), pool, &members) == OK) {
        uint32_t *slots;
        uint64_t placed;
        survives(pool, members);
        for (uint8_t kind = 1; kind < CONTROL_KIND_END; kind++)
            one(pool, members, members_append_ms(members) + 1000, slice_of(&kind, 1));
        for (uint32_t i = 0; i < members_slot_count(members); i++)
            end_of(pool, members, i);
        if (members_init(members) != NULL)
            ERR_IGNORE(members_plan(members, pool, &slots, &placed));
        survives(pool, members);
        members_close(members);
    }
    buf_close(&made);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pool *pool = pool_open(NULL, "fuzz", FUZZ_BYTES_MAX);
    if (size > 0 && data[0] % 2 == 1)
        snapshot_of(pool, slice_of(data + 1, size - 1));
    else if (size > 0)
        log_of(pool, slice_of(data + 1, size - 1));
    pool_close(pool);
    return 0;
}
