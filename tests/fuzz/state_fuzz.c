/* Any bytes as the state of a partition. Byte 0 chooses: 0 a control record, 1 an object with its checksum made
 * right, else the plain form as checkpoints carry it. What decodes encodes, and decodes to as much. */
#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "shard/state.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX (64u << 20)

struct names {
    struct pool *pool;
    struct slice labels[256];
    uint32_t count;
};

static err find_reference(void *context, uint32_t reference, uint32_t *out_local)
{
    if (reference > 1000)
        return ERR_CORRUPT;
    *out_local = reference;
    return OK;
}

static err find_labels(void *context, struct slice tenant, struct slice labels, uint32_t *out_local)
{
    struct names *names = context;
    if (names->count == 256)
        return ERR_LIMIT;
    TRY(pool_copy(names->pool, labels, &names->labels[names->count])); /* they live during the call */
    *out_local = 2000 + names->count++;
    return OK;
}

static bool tell_reference(void *context, uint32_t local, uint32_t *out_reference)
{
    *out_reference = local;
    return local < 2000;
}

static err describe(void *context, uint32_t local, struct buf *labels, struct slice *out_tenant)
{
    const struct names *names = context;
    buf_put_slice(labels, names->labels[local - 2000]);
    *out_tenant = slice_str("t");
    return buf_err(labels);
}

/* A copy, to which sequences are added, holds those and what it held. */
static void use_dedupe(const struct dedupe *seen, struct pool *pool, const uint8_t *data, size_t size)
{
    struct dedupe copy;
    if (dedupe_copy(seen, pool, &copy) != OK)
        return;
    for (size_t i = 0; i < size && i < 64; i++) {
        uint64_t before = dedupe_size(&copy);
        bool had = dedupe_has(&copy, data[i]), is_new;
        if (dedupe_add(&copy, data[i], &is_new) != OK)
            break;
        check(is_new != had && dedupe_has(&copy, data[i]) && dedupe_size(&copy) == before + is_new);
    }
    dedupe_close(&copy);
}

static void control(const uint8_t *data, size_t size)
{
    struct control control;
    uint8_t bytes[CONTROL_BYTES] = { 0 };
    if (control_decode(slice_of(data, size), &control) != OK)
        return;
    control_encode(&control, bytes);
    check(control_decode(slice_of(bytes, sizeof bytes), &control) == OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct pool *pool = pool_open(NULL, "fuzz", FUZZ_BYTES_MAX);
    struct names found = { .pool = pool }, again = { .pool = pool };
    struct state_series series = { find_reference, find_labels, &found };
    struct state state, same;
    struct slice bytes = slice_of(data + 1, size - 1);
    struct buf object = buf_open(pool, 1u << 20), encoded = buf_open(pool, 16u << 20);
    err e = ERR_CORRUPT;
    if (data[0] == 0) {
        control(data + 1, size - 1);
    } else if (data[0] == 1) {
        ERR_IGNORE(state_object_decode(bytes, &series, pool, &state));
        buf_put_slice(&object, bytes);
        if (object.len > 24) {
            put_le32(object.at, UINT32_C(0x4154534b));
            put_le64(object.at + 16, object.len - 24);
        }
        buf_put_le32(&object, crc32c(buf_slice(&object), 0));
        found.count = 0;
        e = state_object_decode(buf_slice(&object), &series, pool, &state);
    } else {
        e = state_decode(bytes, &series, pool, &state);
    }
    for (size_t i = 0; e == OK && i < state.incarnation_count && i < 16; i++)
        use_dedupe(&state.incarnations[i].seen, pool, data, size);
    struct state_names names = { tell_reference, describe, &found };
    if (e == OK && state_encode(&state, &names, pool, &encoded) == OK) {
        series.context = &again;
        check(state_decode(buf_slice(&encoded), &series, pool, &same) == OK);
        check(same.incarnation_count == state.incarnation_count);
        check(same.unresolved_count == state.unresolved_count);
        check(sum_equal(state_unresolved_sum(&same), state_unresolved_sum(&state)));
    }
    buf_close(&encoded);
    buf_close(&object);
    pool_close(pool);
    return 0;
}
