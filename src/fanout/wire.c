/* The request of one node to another. From: remote.c. To: serve.c. See wire.h; byte tables in
 * docs/format/query.md.
 *
 * Invariants: 1. What is encoded decodes to the same request. 2. The decoder allocates in proportion to the
 * bytes that are there. 3. The checksum stands for bytes that changed on the way; each field is checked all
 * the same. */
#include "fanout/wire.h"

#include "base/hash.h"
#include "model/labels.h"

#define MAGIC UINT32_C(0x5952514b) /* "KQRY" */

/* ---- encoding ---- */

static void put_partitions(const struct wire_request *request, struct buf *out)
{
    buf_put_varint(out, request->partition_count);
    for (uint32_t i = 0; i < request->partition_count; i += 8)
        buf_put_u8(out, (uint8_t)(request->partitions[i / 64] >> i % 64));
}

static void put_after(const struct wire_request *request, struct buf *out)
{
    uint32_t next = 0;
    buf_put_varint(out, request->after_count);
    for (size_t i = 0; i < request->after_count; i++) {
        buf_put_varint(out, request->after[i].partition - next);
        buf_put_varint(out, request->after[i].generation);
        buf_put_varint(out, request->after[i].offset);
        next = request->after[i].partition + 1;
    }
}

static void put_selector(const struct wire_selector *selector, struct buf *out)
{
    buf_put_zigzag(out, selector->range.min_ms);
    buf_put_zigzag(out, selector->range.max_ms);
    buf_put_varint(out, selector->matcher_count);
    for (size_t i = 0; i < selector->matcher_count; i++) {
        buf_put_u8(out, (uint8_t)selector->matchers[i].type);
        buf_put_string(out, selector->matchers[i].name);
        buf_put_string(out, selector->matchers[i].value);
    }
}

static void put_unit(const struct source_unit *unit, struct buf *out)
{
    buf_put_string(out, unit->text);
    buf_put_varint(out, unit->begin);
    buf_put_varint(out, unit->end);
    buf_put_zigzag(out, unit->query_start_ms);
    buf_put_zigzag(out, unit->query_end_ms);
    buf_put_zigzag(out, unit->query_step_ms);
    buf_put_zigzag(out, unit->start_ms);
    buf_put_zigzag(out, unit->step_ms);
    buf_put_varint(out, unit->step_count);
    buf_put_zigzag(out, unit->lookback_ms);
    buf_put_zigzag(out, unit->subquery_step_ms);
    buf_put_varint(out, unit->column_count);
}

err wire_request_encode(const struct wire_request *request, struct buf *out)
{
    size_t begin = out->len;
    buf_put_le32(out, MAGIC);
    buf_put_u8(out, wire_version(request->kind));
    buf_put_u8(out, (uint8_t)request->kind);
    buf_put_string(out, request->tenant);
    buf_put_string(out, request->name);
    buf_put_varint(out, request->left_ms);
    buf_put_varint(out, request->limit);
    buf_put_varint(out, request->series_max);
    buf_put_varint(out, request->samples_max);
    put_partitions(request, out);
    put_after(request, out);
    buf_put_varint(out, request->selector_count);
    for (size_t i = 0; i < request->selector_count; i++)
        put_selector(&request->selectors[i], out);
    if (request->kind == WIRE_GROUPS)
        put_unit(&request->unit, out);
    TRY(buf_err(out));
    buf_put_le32(out, crc32c(slice_of(out->at + begin, out->len - begin), 0));
    TRY(buf_err(out));
    return out->len - begin <= WIRE_REQUEST_BYTES_MAX ? OK : ERR_LIMIT;
}

/* ---- decoding ---- */

static err read_partitions(struct reader *r, struct pool *pool, struct wire_request *out)
{
    uint64_t count = read_varint(r);
    void *at;
    if (count > WIRE_PARTITION_COUNT_MAX) {
        read_bad(r);
        return OK;
    }
    struct slice bytes = read_bytes(r, (count + 7) / 8);
    if (!r->ok || count == 0)
        return OK;
    if (count % 8 != 0 && bytes.at[bytes.len - 1] >> count % 8 != 0)
        read_bad(r);
    TRY(pool_zalloc(pool, (count + 63) / 64 * sizeof(uint64_t), &at));
    uint64_t *bits = at;
    for (size_t i = 0; i < bytes.len; i++)
        bits[i / 8] |= (uint64_t)bytes.at[i] << i % 8 * 8;
    out->partitions = bits;
    out->partition_count = (uint32_t)count;
    return OK;
}

static err read_after(struct reader *r, struct pool *pool, struct wire_request *out)
{
    uint64_t count = read_varint(r), next = 0;
    void *at;
    if (count > WIRE_PARTITION_COUNT_MAX || count > read_left(r)) {
        read_bad(r);
        return OK;
    }
    TRY(pool_alloc(pool, count * sizeof(struct source_position) + 1, &at));
    struct source_position *after = at;
    for (size_t i = 0; i < count; i++) {
        uint64_t gap = read_varint(r);
        if (gap >= WIRE_PARTITION_COUNT_MAX - next) {
            read_bad(r);
            return OK;
        }
        after[i].partition = (uint32_t)(next + gap);
        after[i].generation = read_varint(r);
        after[i].offset = read_varint(r);
        next += gap + 1;
        if (next == WIRE_PARTITION_COUNT_MAX && i + 1 < count)
            read_bad(r);
    }
    out->after = after;
    out->after_count = count;
    return OK;
}

static err read_selector(struct reader *r, struct pool *pool, struct wire_selector *out)
{
    void *at;
    out->range.min_ms = read_zigzag(r);
    out->range.max_ms = read_zigzag(r);
    uint64_t count = read_varint(r);
    if (count > read_left(r) / 3) { /* bytes of the shortest matcher */
        read_bad(r);
        return OK;
    }
    TRY(pool_alloc(pool, count * sizeof *out->matchers + 1, &at));
    out->matchers = at;
    out->matcher_count = count;
    for (size_t i = 0; i < count; i++) {
        uint8_t type = read_u8(r);
        if (type > MATCH_NOT_REGEX)
            read_bad(r);
        out->matchers[i].type = (enum match_type)type;
        out->matchers[i].name = read_string(r);
        out->matchers[i].value = read_string(r);
    }
    return OK;
}

static err read_selectors(struct reader *r, struct pool *pool, struct wire_request *out)
{
    uint64_t count = read_varint(r);
    void *at;
    if (count > WIRE_SELECTOR_COUNT_MAX || count > read_left(r) / 3) { /* bytes of the shortest selector */
        read_bad(r);
        return OK;
    }
    TRY(pool_zalloc(pool, count * sizeof(struct wire_selector) + 1, &at));
    struct wire_selector *selectors = at;
    for (size_t i = 0; i < count && r->ok; i++)
        TRY(read_selector(r, pool, &selectors[i]));
    out->selectors = selectors;
    out->selector_count = count;
    return OK;
}

/* Whether its times make sense is for who evaluates. */
static void read_unit(struct reader *r, struct source_unit *out)
{
    out->text = read_string(r);
    uint64_t begin = read_varint(r), end = read_varint(r);
    out->query_start_ms = read_zigzag(r);
    out->query_end_ms = read_zigzag(r);
    out->query_step_ms = read_zigzag(r);
    out->start_ms = read_zigzag(r);
    out->step_ms = read_zigzag(r);
    out->step_count = read_varint(r);
    out->lookback_ms = read_zigzag(r);
    out->subquery_step_ms = read_zigzag(r);
    uint64_t columns = read_varint(r);
    if (begin > end || end > out->text.len || out->step_count < 1 || out->step_count > WIRE_STEP_COUNT_MAX ||
        columns < 1 || columns > SOURCE_GROUP_COLUMNS_MAX) {
        read_bad(r);
        return;
    }
    out->begin = (uint32_t)begin;
    out->end = (uint32_t)end;
    out->column_count = (uint32_t)columns;
}

/* Does the kind go with the rest? */
static bool request_makes_sense(const struct wire_request *request)
{
    size_t selectors = request->selector_count;
    if (!tenant_valid(request->tenant))
        return false;
    switch (request->kind) {
    case WIRE_SAMPLES:
    case WIRE_EXEMPLARS:
        return selectors == 1 && request->name.len == 0;
    case WIRE_NAMES:
        return selectors >= 1 && request->name.len == 0;
    case WIRE_VALUES:
        return selectors >= 1 && request->name.len > 0;
    case WIRE_GROUPS:
        return selectors == 1 && request->selectors[0].matcher_count == 0 && request->name.len == 0;
    default:
        return selectors == 0;
    }
}

err wire_request_decode(struct slice bytes, struct pool *pool, struct wire_request *out_request,
                        struct err_at *at)
{
    if (bytes.len < 10 || bytes.len > WIRE_REQUEST_BYTES_MAX || get_le32(bytes.at) != MAGIC)
        return err_set(at, ERR_INPUT, "not a request of a node");
    if (bytes.at[4] == 0 || bytes.at[4] > WIRE_VERSION)
        return err_set(at, ERR_VERSION, "a request of version %u, known is %d", bytes.at[4], WIRE_VERSION);
    struct slice checked = slice_part(bytes, 0, bytes.len - 4);
    if (crc32c(checked, 0) != get_le32(bytes.at + checked.len))
        return err_set(at, ERR_INPUT, "the request's checksum is wrong");
    struct reader r = reader_of(slice_part(checked, 5, checked.len - 5));
    struct wire_request out = { 0 };
    uint8_t kind = read_u8(&r);
    if (kind == 0 || kind >= WIRE_KIND_END || wire_version((enum wire_kind)kind) != bytes.at[4])
        return err_set(at, ERR_INPUT, "a request of unknown kind %u", kind);
    out.kind = (enum wire_kind)kind;
    out.tenant = read_string(&r);
    out.name = read_string(&r);
    out.left_ms = read_varint(&r);
    out.limit = read_varint(&r);
    out.series_max = read_varint(&r);
    out.samples_max = read_varint(&r);
    TRY(read_partitions(&r, pool, &out));
    TRY(read_after(&r, pool, &out));
    TRY(read_selectors(&r, pool, &out));
    if (out.kind == WIRE_GROUPS)
        read_unit(&r, &out.unit);
    if (!r.ok || read_left(&r) != 0 || !request_makes_sense(&out))
        return err_set(at, ERR_INPUT, "a malformed request");
    *out_request = out;
    return OK;
}
