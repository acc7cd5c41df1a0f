/* State of a partition as bytes. See state.h; byte tables in docs/format/state.md.
 *
 * Data comes from apply's captures and goes beside manifest entries and into stream checkpoints; at start it
 * comes back. Series are process-private local numbers in memory and labels (or stream numbers) in bytes,
 * front-coded against the series before, because neighbours in arrival order share most of their labels.
 *
 * Invariants
 *  1. Bindings of one incarnation ascend by number; equal states with equal series order have equal bytes.
 *  2. The decoder allocates in proportion to the bytes that are there. */
#include "shard/state.h"

#include "base/check.h"
#include "codec/zstd.h"
#include "model/labels.h"
#include "shard/object.h"

#define OBJECT_MAGIC      UINT32_C(0x4154534b) /* "KSTA" */
#define OBJECT_HEAD_BYTES 24
#define ZSTD_LEVEL        1

struct hash128 state_unresolved_hash(const uint8_t incarnation[INCARNATION_BYTES], uint32_t number)
{
    uint8_t key[INCARNATION_BYTES + 4];
    memcpy(key, incarnation, INCARNATION_BYTES);
    put_le32(key + INCARNATION_BYTES, number);
    return sum_series_hash(slice_of(NULL, 0), slice_of(key, sizeof key));
}

struct sum state_unresolved_sum(const struct state *state)
{
    struct sum sum = { 0 };
    for (size_t i = 0; i < state->unresolved_count; i++) {
        const struct state_unresolved *u = &state->unresolved[i];
        struct hash128 series = state_unresolved_hash(state->incarnations[u->incarnation].id, u->number);
        sum_add_hash(&sum, sum_row_hash(series, u->t_ms, u->bits, u->start_ms,
                                        u->histogram.len > 0 ? SAMPLE_HISTOGRAM : SAMPLE_FLOAT));
    }
    return sum;
}

/* ---- encoding ---- */

static void put_sum(struct buf *out, struct sum s)
{
    buf_put_varint(out, s.count);
    buf_put_le64(out, s.low);
    buf_put_le64(out, s.high);
}

static void put_position(struct buf *out, struct log_position p)
{
    buf_put_varint(out, p.generation);
    buf_put_varint(out, p.offset);
}

/* The series written by labels: in order of first use, each once. */
struct labels_writer {
    const struct state_names *names;
    struct buf previous, current;
    struct buf text; /* the table's bytes */
    uint32_t count;
    uint32_t *index_of; /* per local: 1 + index in the table, 0 = not there */
    struct slice tenant;
};

static err labels_put_series(struct labels_writer *w, uint32_t local, uint32_t *out_index)
{
    if (w->index_of[local] != 0) {
        *out_index = w->index_of[local] - 1;
        return OK;
    }
    struct slice tenant;
    buf_clear(&w->current);
    TRY(w->names->describe(w->names->context, local, &w->current, &tenant));
    TRY(buf_err(&w->current));
    bool same_tenant = w->count > 0 && slice_equal(tenant, w->tenant);
    buf_put_u8(&w->text, !same_tenant);
    if (!same_tenant)
        buf_put_string(&w->text, tenant);
    w->tenant = tenant;
    size_t shared = slice_common(buf_slice(&w->current), buf_slice(&w->previous));
    buf_put_varint(&w->text, shared);
    buf_put_string(&w->text, slice_of(w->current.at + shared, w->current.len - shared));
    struct buf swap = w->previous;
    w->previous = w->current;
    w->current = swap;
    w->index_of[local] = ++w->count;
    *out_index = w->count - 1;
    return buf_err(&w->text);
}

static err put_bindings(const struct state_incarnation *incarnation, struct labels_writer *w, struct buf *out)
{
    buf_put_varint(out, incarnation->binding_count);
    uint32_t expected = 0;
    int64_t before = 0;
    for (size_t i = 0; i < incarnation->binding_count; i++) {
        uint32_t reference;
        bool known = w->names->reference(w->names->context, incarnation->locals[i], &reference);
        if (!known)
            TRY(labels_put_series(w, incarnation->locals[i], &reference));
        int64_t value = (int64_t)reference << 1 | !known;
        buf_put_varint(out, incarnation->numbers[i] - expected);
        buf_put_zigzag(out, value - before);
        expected = incarnation->numbers[i] + 1;
        before = value;
    }
    return buf_err(out);
}

static void put_unresolved(const struct state *state, struct buf *out)
{
    buf_put_varint(out, state->unresolved_count);
    for (size_t i = 0; i < state->unresolved_count; i++) {
        const struct state_unresolved *u = &state->unresolved[i];
        buf_put_varint(out, u->incarnation);
        buf_put_varint(out, u->number);
        buf_put_zigzag(out, u->t_ms);
        buf_put_zigzag(out, u->start_ms);
        buf_put_le64(out, u->bits);
        buf_put_string(out, u->histogram);
    }
}

static void put_losses(const struct state *state, struct buf *out)
{
    buf_put_varint(out, state->loss_count);
    for (size_t i = 0; i < state->loss_count; i++) {
        const struct chain_loss *l = &state->losses[i];
        buf_put_u8(out, l->kind);
        put_position(out, l->from);
        put_position(out, l->to);
        buf_put_zigzag(out, l->range.min_ms);
        buf_put_zigzag(out, l->range.max_ms);
        buf_put_varint(out, l->row_count);
    }
}

static void put_head(const struct state *state, struct buf *out)
{
    buf_put_varint(out, STATE_FORMAT_VERSION);
    put_position(out, state->at);
    put_position(out, state->start);
    buf_put_zigzag(out, state->data_through_ms);
    buf_put_varint(out, state->record_count);
    buf_put_varint(out, state->log_bytes);
    put_sum(out, state->sum);
    put_sum(out, state->resolved_removed);
    put_sum(out, state->resolved_added);
    buf_put_varint(out, state->far_future_rows);
    buf_put_u8(out, state->closed);
    buf_put_u8(out, state->reason);
    buf_put_varint(out, state->format_version);
    put_losses(state, out);
}

err state_encode(const struct state *state, const struct state_names *names, struct pool *scratch,
                 struct buf *out)
{
    err e = OK;
    struct labels_writer w = { .names = names,
                               .previous = buf_open(out->pool, LABELS_BYTES_MAX + TENANT_BYTES_MAX),
                               .current = buf_open(out->pool, LABELS_BYTES_MAX + TENANT_BYTES_MAX),
                               .text = buf_open(out->pool, STATE_BYTES_MAX) };
    struct buf body = buf_open(out->pool, STATE_BYTES_MAX);
    uint32_t local_max = 0;
    for (size_t i = 0; i < state->incarnation_count; i++)
        for (size_t k = 0; k < state->incarnations[i].binding_count; k++)
            if (state->incarnations[i].locals[k] > local_max)
                local_max = state->incarnations[i].locals[k];
    void *index_of;
    TRY_OUT(pool_zalloc(scratch, ((size_t)local_max + 1) * sizeof *w.index_of, &index_of));
    w.index_of = index_of;

    buf_put_varint(&body, state->incarnation_count);
    for (size_t i = 0; i < state->incarnation_count; i++) {
        const struct state_incarnation *incarnation = &state->incarnations[i];
        buf_put(&body, incarnation->id, INCARNATION_BYTES);
        put_position(&body, incarnation->last);
        dedupe_encode(&incarnation->seen, &body);
        TRY_OUT(put_bindings(incarnation, &w, &body));
    }
    put_unresolved(state, &body);
    buf_put_varint(&body, state->metadata_count);
    for (size_t i = 0; i < state->metadata_count; i++) {
        const struct state_metadata *m = &state->metadata[i];
        buf_put_string(&body, m->tenant);
        buf_put_string(&body, m->family);
        buf_put_u8(&body, m->type);
        buf_put_string(&body, m->help);
        buf_put_string(&body, m->unit);
    }
    buf_put_zigzag(&body, state->leader_epoch);
    TRY_OUT(buf_err(&body));
    put_head(state, out);
    buf_put_varint(out, w.count);
    buf_put_string(out, buf_slice(&w.text));
    buf_put_slice(out, buf_slice(&body));
    e = buf_err(out);
out:
    buf_close(&body);
    buf_close(&w.text);
    buf_close(&w.current);
    buf_close(&w.previous);
    return e;
}

/* ---- decoding ---- */

static struct sum get_sum(struct reader *r)
{
    struct sum s;
    s.count = read_varint(r);
    s.low = read_le64(r);
    s.high = read_le64(r);
    return s;
}

static struct log_position get_position(struct reader *r)
{
    struct log_position p;
    p.generation = read_varint(r);
    p.offset = read_varint(r);
    return p;
}

/* An array of `count` elements, each of which costs at least bytes_min bytes of input. */
static err get_array(struct reader *r, uint64_t count, size_t bytes_min, size_t element_bytes,
                     uint64_t count_max, struct pool *pool, void **out_at)
{
    if (!r->ok || count > read_left(r) / bytes_min)
        return ERR_CORRUPT;
    if (count > count_max)
        return ERR_LIMIT;
    return pool_zalloc(pool, (size_t)count * element_bytes + 1, out_at);
}

static err get_labels(struct reader *r, const struct state_series *series, struct pool *pool,
                      uint32_t **out_locals, uint32_t *out_count)
{
    uint64_t count = read_varint(r);
    struct slice text = read_string(r);
    struct reader t = reader_of(text);
    void *at;
    TRY(get_array(&t, count, 3, sizeof(uint32_t), UINT32_MAX - 1, pool, &at));
    uint32_t *locals = at;
    err e = OK;
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    struct slice tenant = slice_of(NULL, 0);
    for (uint64_t i = 0; i < count; i++) {
        if (read_u8(&t) != 0)
            tenant = read_string(&t);
        uint64_t shared = read_varint(&t);
        struct slice rest = read_string(&t);
        if (!t.ok || shared > labels.len || tenant.len > TENANT_BYTES_MAX) {
            e = ERR_CORRUPT;
            goto out;
        }
        labels.len = (size_t)shared;
        buf_put_slice(&labels, rest);
        TRY_OUT(buf_err(&labels) == ERR_LIMIT && shared + rest.len > LABELS_BYTES_MAX ? ERR_CORRUPT
                                                                                      : buf_err(&labels));
        TRY_OUT(labels_check(buf_slice(&labels), NULL) == OK ? OK : ERR_CORRUPT);
        TRY_OUT(series->labels(series->context, tenant, buf_slice(&labels), &locals[i]));
    }
    e = read_left(&t) == 0 ? OK : ERR_CORRUPT;
    *out_locals = locals;
    *out_count = (uint32_t)count;
out:
    buf_close(&labels);
    return e;
}

static err get_bindings(struct reader *r, const struct state_series *series, const uint32_t *locals,
                        uint32_t count, struct pool *pool, struct state_incarnation *incarnation)
{
    uint64_t bindings = read_varint(r);
    void *numbers, *targets;
    TRY(get_array(r, bindings, 2, sizeof(uint32_t), STATE_NUMBER_MAX, pool, &numbers));
    TRY(pool_alloc(pool, (size_t)bindings * sizeof(uint32_t) + 1, &targets));
    incarnation->numbers = numbers;
    incarnation->locals = targets;
    uint64_t expected = 0;
    int64_t before = 0;
    for (uint64_t i = 0; i < bindings; i++) {
        uint64_t gap = read_varint(r);
        int64_t delta = read_zigzag(r), value;
        if (!r->ok || gap >= STATE_NUMBER_MAX - expected || __builtin_add_overflow(before, delta, &value) ||
            value < 0 || value >> 1 > UINT32_MAX)
            return ERR_CORRUPT;
        uint32_t reference = (uint32_t)(value >> 1);
        incarnation->numbers[i] = (uint32_t)(expected + gap);
        if ((value & 1) == 0)
            TRY(series->reference(series->context, reference, &incarnation->locals[i]));
        else if (reference < count)
            incarnation->locals[i] = locals[reference];
        else
            return ERR_CORRUPT;
        expected += gap + 1;
        before = value;
    }
    incarnation->binding_count = (size_t)bindings;
    return OK;
}

static err get_incarnations(struct reader *r, const struct state_series *series, const uint32_t *locals,
                            uint32_t count, struct pool *pool, struct state *state)
{
    uint64_t incarnations = read_varint(r);
    void *at;
    TRY(get_array(r, incarnations, INCARNATION_BYTES + 4, sizeof *state->incarnations,
                  STATE_INCARNATION_COUNT_MAX, pool, &at));
    state->incarnations = at;
    for (uint64_t i = 0; i < incarnations; i++) {
        struct state_incarnation *incarnation = &state->incarnations[i];
        struct slice id = read_bytes(r, INCARNATION_BYTES);
        if (id.len != INCARNATION_BYTES)
            return ERR_CORRUPT;
        memcpy(incarnation->id, id.at, INCARNATION_BYTES);
        incarnation->last = get_position(r);
        incarnation->seen = dedupe_open(pool);
        state->incarnation_count++;
        TRY(dedupe_decode(r, &incarnation->seen));
        TRY(get_bindings(r, series, locals, count, pool, incarnation));
    }
    return OK;
}

static err get_unresolved(struct reader *r, struct pool *pool, struct state *state)
{
    uint64_t count = read_varint(r);
    void *at;
    TRY(get_array(r, count, 13, sizeof *state->unresolved, STATE_UNRESOLVED_COUNT_MAX, pool, &at));
    state->unresolved = at;
    state->unresolved_count = (size_t)count;
    for (uint64_t i = 0; i < count; i++) {
        struct state_unresolved *u = &state->unresolved[i];
        uint64_t incarnation = read_varint(r), number = read_varint(r);
        u->t_ms = read_zigzag(r);
        u->start_ms = read_zigzag(r);
        u->bits = read_le64(r);
        u->histogram = read_string(r);
        if (!r->ok || incarnation >= state->incarnation_count || number >= STATE_NUMBER_MAX)
            return ERR_CORRUPT;
        u->incarnation = (uint32_t)incarnation;
        u->number = (uint32_t)number;
    }
    return OK;
}

static err get_metadata(struct reader *r, struct pool *pool, struct state *state)
{
    uint64_t count = read_varint(r);
    void *at;
    TRY(get_array(r, count, 5, sizeof *state->metadata, STATE_METADATA_COUNT_MAX, pool, &at));
    state->metadata = at;
    state->metadata_count = (size_t)count;
    for (uint64_t i = 0; i < count; i++) {
        struct state_metadata *m = &state->metadata[i];
        m->tenant = read_string(r);
        m->family = read_string(r);
        m->type = read_u8(r);
        m->help = read_string(r);
        m->unit = read_string(r);
    }
    return r->ok ? OK : ERR_CORRUPT;
}

static err get_head(struct reader *r, struct pool *pool, struct state *state)
{
    uint64_t version = read_varint(r);
    if (r->ok && version != STATE_FORMAT_VERSION)
        return version > STATE_FORMAT_VERSION ? ERR_VERSION : ERR_CORRUPT;
    state->at = get_position(r);
    state->start = get_position(r);
    state->data_through_ms = read_zigzag(r);
    state->record_count = read_varint(r);
    state->log_bytes = read_varint(r);
    state->sum = get_sum(r);
    state->resolved_removed = get_sum(r);
    state->resolved_added = get_sum(r);
    state->far_future_rows = read_varint(r);
    state->closed = read_u8(r) != 0;
    state->reason = read_u8(r);
    state->format_version = (uint16_t)read_varint(r);
    uint64_t count = read_varint(r);
    void *at;
    TRY(get_array(r, count, 8, sizeof *state->losses, CHAIN_LOSS_COUNT_MAX, pool, &at));
    state->losses = at;
    state->loss_count = (size_t)count;
    for (uint64_t i = 0; i < count; i++) {
        struct chain_loss *l = &state->losses[i];
        l->kind = read_u8(r);
        l->from = get_position(r);
        l->to = get_position(r);
        l->range.min_ms = read_zigzag(r);
        l->range.max_ms = read_zigzag(r);
        l->row_count = read_varint(r);
    }
    return r->ok && position_compare(state->start, state->at) <= 0 ? OK : ERR_CORRUPT;
}

err state_decode(struct slice bytes, const struct state_series *series, struct pool *pool,
                 struct state *out_state)
{
    struct reader r = reader_of(bytes);
    struct state state = { 0 };
    uint32_t *locals = NULL, count = 0;
    TRY(get_head(&r, pool, &state));
    TRY(get_labels(&r, series, pool, &locals, &count));
    TRY(get_incarnations(&r, series, locals, count, pool, &state));
    TRY(get_unresolved(&r, pool, &state));
    TRY(get_metadata(&r, pool, &state));
    int64_t epoch = read_zigzag(&r);
    if (epoch < LOG_EPOCH_NONE || epoch > INT32_MAX)
        return ERR_CORRUPT;
    state.leader_epoch = (int32_t)epoch;
    if (!r.ok || read_left(&r) != 0)
        return ERR_CORRUPT;
    *out_state = state;
    return OK;
}

/* ---- the object ---- */

err state_object_encode(const struct state *state, const struct state_names *names, struct pool *scratch,
                        struct buf *out)
{
    err e = OK;
    size_t from = out->len;
    struct buf plain = buf_open(out->pool, STATE_BYTES_MAX);
    TRY_OUT(state_encode(state, names, scratch, &plain));
    buf_put_le32(out, OBJECT_MAGIC);
    buf_put_le16(out, STATE_FORMAT_VERSION);
    buf_put_le16(out, 0);
    buf_put_le64(out, plain.len);
    buf_put_le64(out, 0); /* packed length, below */
    TRY_OUT(buf_err(out));
    TRY_OUT(zstd_compress(buf_slice(&plain), ZSTD_LEVEL, out));
    put_le64(out->at + from + 16, out->len - from - OBJECT_HEAD_BYTES);
    buf_put_le32(out, crc32c(slice_of(out->at + from, out->len - from), 0));
    e = buf_err(out);
out:
    buf_close(&plain);
    return e;
}

err state_object_check(struct slice bytes, struct err_at *at)
{
    if (bytes.len < OBJECT_HEAD_BYTES + 4 || get_le32(bytes.at) != OBJECT_MAGIC)
        return ERR_CORRUPT;
    if (crc32c(slice_part(bytes, 0, bytes.len - 4), 0) != get_le32(bytes.at + bytes.len - 4))
        return ERR_CORRUPT;
    if (get_le16(bytes.at + 4) > STATE_FORMAT_VERSION)
        return err_set(at, ERR_VERSION,
                       "written by a newer version: state format %u, and this Kelpie reads up to %u",
                       get_le16(bytes.at + 4), STATE_FORMAT_VERSION);
    return get_le64(bytes.at + 16) == bytes.len - OBJECT_HEAD_BYTES - 4 ? OK : ERR_CORRUPT;
}

static err read_once(struct blob *blob, const char *key, const uint8_t digest[SHA256_BYTES],
                     struct pool *pool, struct slice *out_bytes)
{
    uint8_t actual[SHA256_BYTES];
    *out_bytes = slice_of("", 0);
    TRY(blob_get(blob, key, STATE_BYTES_MAX, pool, out_bytes));
    sha256_of(*out_bytes, actual);
    return memcmp(actual, digest, SHA256_BYTES) == 0 ? OK : ERR_CORRUPT;
}

err state_object_read(struct blob *blob, const char *key, const uint8_t digest[SHA256_BYTES],
                      struct pool *pool, struct slice *out_bytes)
{
    err e = read_once(blob, key, digest, pool, out_bytes);
    if (e == ERR_CORRUPT && object_doubt(blob, key))
        e = read_once(blob, key, digest, pool, out_bytes);
    return e;
}

err state_object_decode(struct slice bytes, const struct state_series *series, struct pool *pool,
                        struct state *out_state)
{
    TRY(state_object_check(bytes, NULL));
    uint64_t plain_bytes = get_le64(bytes.at + 8);
    if (plain_bytes > STATE_BYTES_MAX)
        return ERR_CORRUPT;
    void *at;
    TRY(pool_alloc(pool, (size_t)plain_bytes + 1, &at));
    struct slice packed = slice_part(bytes, OBJECT_HEAD_BYTES, bytes.len - OBJECT_HEAD_BYTES - 4);
    if (zstd_decompress_exact(packed, at, (size_t)plain_bytes) != OK)
        return ERR_CORRUPT;
    return state_decode(slice_of(at, (size_t)plain_bytes), series, pool, out_state);
}

/* ---- control records ---- */

#define CONTROL_VERSION 1

void control_encode(const struct control *control, uint8_t out_bytes[CONTROL_BYTES])
{
    memset(out_bytes, 0, CONTROL_BYTES);
    out_bytes[0] = SIGNAL_CONTROL;
    out_bytes[1] = CONTROL_VERSION;
    out_bytes[2] = control->kind;
    out_bytes[3] = control->reason;
    put_le16(out_bytes + 4, control->format_version);
    put_le64(out_bytes + 8, control->position.generation);
    put_le64(out_bytes + 16, control->position.offset);
    memcpy(out_bytes + 24, control->incarnation, INCARNATION_BYTES);
}

err control_decode(struct slice bytes, struct control *out_control)
{
    if (bytes.len < 3 || bytes.at[0] != SIGNAL_CONTROL)
        return ERR_CORRUPT;
    if (bytes.at[1] != CONTROL_VERSION || bytes.at[2] < CONTROL_CUT || bytes.at[2] > CONTROL_FORGET)
        return ERR_VERSION;
    if (bytes.len != CONTROL_BYTES)
        return ERR_CORRUPT;
    *out_control = (struct control){ .kind = bytes.at[2],
                                     .reason = bytes.at[3],
                                     .format_version = get_le16(bytes.at + 4),
                                     .position = { get_le64(bytes.at + 8), get_le64(bytes.at + 16) } };
    memcpy(out_control->incarnation, bytes.at + 24, INCARNATION_BYTES);
    return OK;
}
