/* Chain entries as bytes. See chain.h and docs/format/manifest.md §1.
 *
 * Entries come from build, compaction and retention (encode) and from the blob store at start, verify and
 * restore (decode), where anybody may have written them: every count is bounded before memory is asked for. */
#include "shard/chain.h"

#include "base/check.h"
#include "base/hash.h"

#define ENTRY_MAGIC      UINT32_C(0x4e48434b) /* "KCHN" */
#define ENTRY_HEAD_BYTES 40
#define ENTRY_BYTES_MIN  (ENTRY_HEAD_BYTES + 4)

/* ---- encoding ---- */

static void put_position(struct buf *out, struct log_position p)
{
    buf_put_le64(out, p.generation);
    buf_put_le64(out, p.offset);
}

static void put_range(struct buf *out, struct time_range r)
{
    buf_put_le64(out, (uint64_t)r.min_ms);
    buf_put_le64(out, (uint64_t)r.max_ms);
}

static void put_segments(struct buf *out, const struct chain_entry *entry)
{
    buf_put_le32(out, (uint32_t)entry->segment_count);
    for (size_t i = 0; i < entry->segment_count; i++) {
        const struct chain_segment *s = &entry->segments[i];
        buf_put(out, s->digest, SHA256_BYTES);
        buf_put_le64(out, s->bytes);
        put_position(out, s->from);
        put_position(out, s->to);
        put_range(out, s->range);
        sum_put(out, s->sum);
        buf_put_le16(out, s->format_version);
        buf_put_u8(out, s->flags);
    }
}

static void put_losses(struct buf *out, const struct chain_entry *entry)
{
    buf_put_le32(out, (uint32_t)entry->loss_count);
    for (size_t i = 0; i < entry->loss_count; i++) {
        const struct chain_loss *l = &entry->losses[i];
        buf_put_u8(out, l->kind);
        put_position(out, l->from);
        put_position(out, l->to);
        put_range(out, l->range);
        buf_put_le64(out, l->row_count);
    }
}

static void put_inputs(struct buf *out, const struct chain_entry *entry)
{
    buf_put_le32(out, (uint32_t)entry->input_count);
    for (size_t i = 0; i < entry->input_count; i++)
        buf_put(out, entry->inputs[i], SHA256_BYTES);
}

static void put_commit(struct buf *out, const struct chain_entry *entry)
{
    put_position(out, entry->start);
    put_position(out, entry->end);
    buf_put_u8(out, entry->reason);
    buf_put_le16(out, entry->format_version);
    buf_put_le64(out, entry->record_count);
    buf_put_le64(out, entry->log_bytes);
    sum_put(out, entry->sum);
    sum_put(out, entry->resolved_removed);
    sum_put(out, entry->resolved_added);
    sum_put(out, entry->unresolved);
    buf_put_le64(out, (uint64_t)entry->data_through_ms);
    buf_put(out, entry->state_digest, SHA256_BYTES);
    buf_put_le64(out, entry->state_bytes);
    put_losses(out, entry);
    put_segments(out, entry);
}

static void put_adopt(struct buf *out, const struct chain_entry *entry)
{
    put_position(out, entry->start);
    put_position(out, entry->end);
    sum_put(out, entry->sum);
    put_losses(out, entry);
    put_segments(out, entry);
}

static void put_base(struct buf *out, const struct chain_entry *entry)
{
    put_position(out, entry->end);
    buf_put_le64(out, (uint64_t)entry->cutoff_ms);
    buf_put_le64(out, (uint64_t)entry->data_through_ms);
    buf_put(out, entry->state_digest, SHA256_BYTES);
    buf_put(out, entry->older_state_digest, SHA256_BYTES);
    sum_put(out, entry->unresolved);
    sum_put(out, entry->dropped);
    put_position(out, entry->accepted_end);
    buf_put_le64(out, entry->lost_count);
    buf_put_le64(out, entry->ignored_count);
    buf_put_le64(out, entry->commit_count);
    put_losses(out, entry);
    for (size_t i = 0; i < entry->loss_count; i++)
        buf_put_u8(out, entry->losses[i].accepted);
    put_segments(out, entry);
}

/* At the end of an entry that names objects, unless all of them are of era 0; and behind them, in a base, how far
 * generation 0 reaches, unless nothing was adopted. */
static void put_eras(struct buf *out, const struct chain_entry *entry)
{
    uint64_t adopted = entry->adopted_end.offset;
    uint64_t any = entry->state_era | entry->older_state_era | entry->eras[0] | adopted;
    for (size_t i = 0; i < entry->segment_count; i++)
        any |= entry->segments[i].era;
    if (any == 0)
        return;
    for (int i = 0; i < CHAIN_ERA_COUNT; i++)
        buf_put_le64(out, entry->eras[i]);
    buf_put_le64(out, entry->state_era);
    buf_put_le64(out, entry->older_state_era);
    for (size_t i = 0; i < entry->segment_count; i++)
        buf_put_le64(out, entry->segments[i].era);
    if (adopted != 0)
        buf_put_le64(out, adopted);
}

err chain_entry_encode(const struct chain_entry *entry, struct buf *out)
{
    check(entry->kind >= CHAIN_COMMIT && entry->kind < CHAIN_KIND_COUNT);
    if (entry->segment_count > CHAIN_SEGMENT_COUNT_MAX || entry->input_count > CHAIN_SEGMENT_COUNT_MAX ||
        entry->loss_count > CHAIN_LOSS_COUNT_MAX)
        return ERR_LIMIT;
    size_t from = out->len;
    buf_put_le32(out, ENTRY_MAGIC);
    buf_put_le16(out, CHAIN_FORMAT_VERSION);
    buf_put_u8(out, entry->kind);
    buf_put_u8(out, 0);
    buf_put_le64(out, entry->number);
    buf_put_le32(out, entry->partition);
    buf_put_le32(out, (uint32_t)entry->leader_epoch);
    buf_put_le64(out, (uint64_t)entry->written_ms);
    buf_put_le64(out, 0); /* reserved */
    switch ((enum chain_kind)entry->kind) {
    case CHAIN_COMMIT:
        put_commit(out, entry);
        break;
    case CHAIN_REPLACE:
        sum_put(out, entry->dropped);
        sum_put(out, entry->distinct);
        put_inputs(out, entry);
        put_segments(out, entry);
        break;
    case CHAIN_RETAIN:
        buf_put_le64(out, (uint64_t)entry->cutoff_ms);
        buf_put_u8(out, entry->confirmed);
        break;
    case CHAIN_GENERATION:
        put_position(out, entry->end);
        if (entry->loss_count > 0)
            put_losses(out, entry);
        break;
    case CHAIN_LOST:
    case CHAIN_ACCEPT:
        put_position(out, entry->end);
        buf_put(out, entry->state_digest, SHA256_BYTES);
        buf_put_le64(out, entry->state_bytes);
        put_losses(out, entry);
        put_inputs(out, entry);
        put_segments(out, entry);
        break;
    case CHAIN_BASE:
        put_base(out, entry);
        break;
    case CHAIN_LOSSES:
        put_losses(out, entry);
        break;
    case CHAIN_ERA:
        buf_put_le64(out, entry->ended_era);
        break;
    case CHAIN_ADOPT:
        put_adopt(out, entry);
        break;
    case CHAIN_KIND_COUNT:
        check(false);
    }
    put_eras(out, entry);
    TRY(buf_err(out));
    buf_put_le32(out, crc32c(slice_of(out->at + from, out->len - from), 0));
    return buf_err(out);
}

/* ---- decoding ---- */

static struct log_position get_position(struct reader *r)
{
    struct log_position p;
    p.generation = read_le64(r);
    p.offset = read_le64(r);
    return p;
}

static struct time_range get_range(struct reader *r)
{
    struct time_range range;
    range.min_ms = (int64_t)read_le64(r);
    range.max_ms = (int64_t)read_le64(r);
    return range;
}

static void get_digest(struct reader *r, uint8_t out_digest[SHA256_BYTES])
{
    struct slice s = read_bytes(r, SHA256_BYTES);
    if (s.len == SHA256_BYTES)
        memcpy(out_digest, s.at, SHA256_BYTES);
    else
        memset(out_digest, 0, SHA256_BYTES);
}

#define SEGMENT_BYTES (SHA256_BYTES + 8 + 32 + 16 + 24 + 3)
#define LOSS_BYTES    (1 + 32 + 16 + 8)

static err get_segments(struct reader *r, struct pool *pool, struct chain_entry *entry)
{
    size_t count = read_le32(r);
    if (count > CHAIN_SEGMENT_COUNT_MAX)
        return ERR_LIMIT;
    if (!r->ok || count > read_left(r) / SEGMENT_BYTES)
        return ERR_CORRUPT;
    void *at;
    TRY(pool_zalloc(pool, count * sizeof *entry->segments + 1, &at));
    entry->segments = at;
    entry->segment_count = count;
    for (size_t i = 0; i < count; i++) {
        struct chain_segment *s = &entry->segments[i];
        get_digest(r, s->digest);
        s->bytes = read_le64(r);
        s->from = get_position(r);
        s->to = get_position(r);
        s->range = get_range(r);
        s->sum = sum_read(r);
        s->format_version = read_le16(r);
        s->flags = read_u8(r);
        if (position_compare(s->from, s->to) >= 0 || s->range.min_ms > s->range.max_ms || s->sum.count == 0)
            return ERR_CORRUPT;
    }
    return OK;
}

static err get_losses(struct reader *r, struct pool *pool, struct chain_entry *entry)
{
    size_t count = read_le32(r);
    if (count > CHAIN_LOSS_COUNT_MAX)
        return ERR_LIMIT;
    if (!r->ok || count > read_left(r) / LOSS_BYTES)
        return ERR_CORRUPT;
    void *at;
    TRY(pool_zalloc(pool, count * sizeof *entry->losses + 1, &at));
    entry->losses = at;
    entry->loss_count = count;
    for (size_t i = 0; i < count; i++) {
        struct chain_loss *l = &entry->losses[i];
        l->kind = read_u8(r);
        l->from = get_position(r);
        l->to = get_position(r);
        l->range = get_range(r);
        l->row_count = read_le64(r);
    }
    return OK;
}

static err get_commit(struct reader *r, struct pool *pool, struct chain_entry *entry)
{
    entry->start = get_position(r);
    entry->end = get_position(r);
    entry->reason = read_u8(r);
    entry->format_version = read_le16(r);
    entry->record_count = read_le64(r);
    entry->log_bytes = read_le64(r);
    entry->sum = sum_read(r);
    entry->resolved_removed = sum_read(r);
    entry->resolved_added = sum_read(r);
    entry->unresolved = sum_read(r);
    entry->data_through_ms = (int64_t)read_le64(r);
    get_digest(r, entry->state_digest);
    entry->state_bytes = read_le64(r);
    TRY(get_losses(r, pool, entry));
    return get_segments(r, pool, entry);
}

static err get_inputs(struct reader *r, struct pool *pool, struct chain_entry *entry)
{
    size_t count = read_le32(r);
    if (count > CHAIN_SEGMENT_COUNT_MAX)
        return ERR_LIMIT;
    if (!r->ok || count > read_left(r) / SHA256_BYTES)
        return ERR_CORRUPT;
    void *at;
    TRY(pool_zalloc(pool, count * SHA256_BYTES + 1, &at));
    entry->inputs = at;
    entry->input_count = count;
    for (size_t i = 0; i < count; i++)
        get_digest(r, entry->inputs[i]);
    return OK;
}

static err get_replace(struct reader *r, struct pool *pool, struct chain_entry *entry)
{
    entry->dropped = sum_read(r);
    entry->distinct = sum_read(r);
    TRY(get_inputs(r, pool, entry));
    return entry->input_count > 0 ? get_segments(r, pool, entry) : ERR_CORRUPT;
}

/* LOST and ACCEPT. */
static err get_amends(struct reader *r, struct pool *pool, struct chain_entry *entry)
{
    entry->end = get_position(r);
    get_digest(r, entry->state_digest);
    entry->state_bytes = read_le64(r);
    TRY(get_losses(r, pool, entry));
    TRY(get_inputs(r, pool, entry));
    return get_segments(r, pool, entry);
}

static err get_adopt(struct reader *r, struct pool *pool, struct chain_entry *entry)
{
    entry->start = get_position(r);
    entry->end = get_position(r);
    entry->sum = sum_read(r);
    TRY(get_losses(r, pool, entry));
    return get_segments(r, pool, entry);
}

static err get_base(struct reader *r, struct pool *pool, struct chain_entry *entry)
{
    entry->end = get_position(r);
    entry->cutoff_ms = (int64_t)read_le64(r);
    entry->data_through_ms = (int64_t)read_le64(r);
    get_digest(r, entry->state_digest);
    get_digest(r, entry->older_state_digest);
    entry->unresolved = sum_read(r);
    entry->dropped = sum_read(r);
    entry->accepted_end = get_position(r);
    entry->lost_count = read_le64(r);
    entry->ignored_count = read_le64(r);
    entry->commit_count = read_le64(r);
    TRY(get_losses(r, pool, entry));
    for (size_t i = 0; i < entry->loss_count; i++)
        entry->losses[i].accepted = read_u8(r) != 0;
    return get_segments(r, pool, entry);
}

/* As put_eras; an entry has one form. */
static err get_eras(struct reader *r, struct chain_entry *entry)
{
    uint64_t any = 0;
    if (read_left(r) == 0)
        return OK;
    for (int i = 0; i < CHAIN_ERA_COUNT; i++)
        any |= entry->eras[i] = read_le64(r);
    any |= entry->state_era = read_le64(r);
    any |= entry->older_state_era = read_le64(r);
    for (size_t i = 0; i < entry->segment_count; i++)
        any |= entry->segments[i].era = read_le64(r);
    if (entry->kind == CHAIN_BASE && read_left(r) > 0) {
        any |= entry->adopted_end.offset = read_le64(r);
        if (entry->adopted_end.offset == 0)
            return ERR_CORRUPT;
    }
    bool has_eras = entry->kind == CHAIN_BASE || (entry->eras[0] | entry->eras[1] | entry->eras[2]) == 0;
    bool is_ordered = entry->eras[0] < entry->number && entry->eras[0] >= entry->eras[1] &&
                      entry->eras[1] >= entry->eras[2];
    return any != 0 && has_eras && is_ordered ? OK : ERR_CORRUPT;
}

err chain_entry_decode(struct slice bytes, struct pool *pool, struct chain_entry *out_entry)
{
    if (bytes.len < ENTRY_BYTES_MIN || bytes.len > CHAIN_ENTRY_BYTES_MAX || get_le32(bytes.at) != ENTRY_MAGIC)
        return ERR_CORRUPT;
    struct slice body = slice_part(bytes, 0, bytes.len - 4);
    if (crc32c(body, 0) != get_le32(bytes.at + body.len))
        return ERR_CORRUPT;
    struct reader r = reader_of(body);
    struct chain_entry entry = { 0 };
    read_le32(&r);
    if (read_le16(&r) > CHAIN_FORMAT_VERSION)
        return ERR_VERSION;
    entry.kind = read_u8(&r);
    read_u8(&r);
    entry.number = read_le64(&r);
    entry.partition = read_le32(&r);
    entry.leader_epoch = (int32_t)read_le32(&r);
    entry.written_ms = (int64_t)read_le64(&r);
    read_le64(&r);
    switch (entry.kind) {
    case CHAIN_COMMIT:
        TRY(get_commit(&r, pool, &entry));
        break;
    case CHAIN_REPLACE:
        TRY(get_replace(&r, pool, &entry));
        break;
    case CHAIN_RETAIN:
        entry.cutoff_ms = (int64_t)read_le64(&r);
        entry.confirmed = read_u8(&r) != 0;
        break;
    case CHAIN_GENERATION:
        entry.end = get_position(&r);
        if (read_left(&r) > 0)
            TRY(get_losses(&r, pool, &entry));
        break;
    case CHAIN_LOST:
    case CHAIN_ACCEPT:
        TRY(get_amends(&r, pool, &entry));
        break;
    case CHAIN_BASE:
        TRY(get_base(&r, pool, &entry));
        break;
    case CHAIN_LOSSES:
        TRY(get_losses(&r, pool, &entry));
        break;
    case CHAIN_ERA:
        entry.ended_era = read_le64(&r);
        break;
    case CHAIN_ADOPT:
        TRY(get_adopt(&r, pool, &entry));
        break;
    default:
        return ERR_VERSION;
    }
    if (entry.kind == CHAIN_COMMIT || entry.kind == CHAIN_REPLACE || entry.kind == CHAIN_LOST ||
        entry.kind == CHAIN_BASE || entry.kind == CHAIN_ADOPT)
        TRY(get_eras(&r, &entry));
    if (!r.ok || read_left(&r) != 0)
        return ERR_CORRUPT;
    *out_entry = entry;
    return OK;
}

err chain_entry_newer(struct slice bytes, struct err_at *at)
{
    unsigned version = get_le16(bytes.at + 4);
    return version > CHAIN_FORMAT_VERSION
               ? err_set(at, ERR_VERSION,
                         "written by a newer version: entry format %u, and this Kelpie reads up to %u",
                         version, CHAIN_FORMAT_VERSION)
               : err_set(at, ERR_VERSION,
                         "written by a newer version: entry kind %u, and this Kelpie knows up to %d",
                         bytes.at[6], CHAIN_KIND_COUNT - 1);
}
