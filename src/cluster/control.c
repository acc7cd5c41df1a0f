/* Bytes of control records: written by nodes, read back by all of them from a log that anybody who has the
 * broker's password can write to. See control.h; byte tables in docs/format/control.md.
 *
 * Invariants: 1. What is encoded decodes to the same record. 2. A decoded record is within the bounds of
 * control.h; whether it makes sense is the fold's business. 3. The decoder allocates in proportion to the bytes
 * that are there. */
#include "cluster/control.h"

#include "base/bytes.h"
#include "base/check.h"
#include "cluster/placement.h"

#include <string.h>

#define MAGIC UINT32_C(0x4c54434b) /* "KCTL" */

const char *control_kind_text(enum control_kind kind)
{
    static const char *const texts[CONTROL_KIND_END] = {
        [CONTROL_INIT] = "INIT",     [CONTROL_NOOP] = "NOOP",       [CONTROL_JOIN] = "JOIN",
        [CONTROL_REFUTE] = "REFUTE", [CONTROL_SUSPECT] = "SUSPECT", [CONTROL_VOTE] = "VOTE",
        [CONTROL_EVICT] = "EVICT",   [CONTROL_LEAVE] = "LEAVE",     [CONTROL_VACATE] = "VACATE",
        [CONTROL_REMOVE] = "REMOVE", [CONTROL_ASSIGN] = "ASSIGN",   [CONTROL_OWN] = "OWN",
        [CONTROL_DROP] = "DROP",     [CONTROL_SUSPEND] = "SUSPEND", [CONTROL_SET] = "SET",
        [CONTROL_DISOWN] = "DISOWN",
    };
    return kind < CONTROL_KIND_END && texts[kind] != NULL ? texts[kind] : "?";
}

const char *control_automation_text(enum control_automation automation)
{
    static const char *const texts[AUTOMATION_END] = { [AUTOMATION_PLACEMENT] = "placement",
                                                       [AUTOMATION_EVICTION] = "eviction",
                                                       [AUTOMATION_REPAIR] = "repair" };
    return automation < AUTOMATION_END && texts[automation] != NULL ? texts[automation] : "?";
}

bool cluster_name_valid(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.at[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
              c == '_' || c == '-'))
            return false;
    }
    return name.len >= 1 && name.len <= CLUSTER_NAME_BYTES_MAX;
}

static bool text_valid(struct slice text, size_t least, size_t most)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.at[i] < ' ' || text.at[i] == 0x7f)
            return false;
    return text.len >= least && text.len <= most;
}

bool control_text_valid(struct slice text) { return text_valid(text, 1, CLUSTER_TEXT_BYTES_MAX); }

static bool settings_valid(const struct control_settings *s)
{
    return s->suspect_age_ms >= 1000 && s->suspect_age_ms <= 3600000 && s->repair_delay_ms <= 7 * 86400000;
}

/* The bounds that hold for every record, however it came to be. */
static bool record_valid(const struct control_record *r)
{
    switch (r->kind) {
    case CONTROL_INIT:
        return r->init.partition_count >= 1 && r->init.partition_count <= CLUSTER_PARTITIONS_MAX &&
               r->init.replica_count >= 1 && r->init.replica_count <= CLUSTER_REPLICAS_MAX &&
               r->init.expected_nodes >= 1 && r->init.expected_nodes <= CLUSTER_NODES_MAX &&
               r->init.range_bytes_max > 0 && settings_valid(&r->init.settings);
    case CONTROL_JOIN:
        return cluster_name_valid(r->join.name) && cluster_name_valid(r->join.zone) &&
               text_valid(r->join.address, 1, CLUSTER_ADDRESS_BYTES_MAX) &&
               r->join.format_min <= r->join.format_max;
    case CONTROL_LEAVE:
        return r->leaving >= LEAVING_SOON && r->leaving <= LEAVING_DONE;
    case CONTROL_REMOVE:
        return r->removal >= REMOVAL_GONE && r->removal <= REMOVAL_UNDRAIN;
    case CONTROL_ASSIGN:
        return r->assign.partition_count >= 1 && r->assign.partition_count <= CLUSTER_PARTITIONS_MAX &&
               r->assign.replica_count >= 1 && r->assign.replica_count <= CLUSTER_REPLICAS_MAX;
    case CONTROL_OWN:
    case CONTROL_DROP:
    case CONTROL_DISOWN:
        for (uint32_t i = 0; i < r->hold.count; i++)
            if (r->hold.partitions[i] >= CLUSTER_PARTITIONS_MAX ||
                (i > 0 && r->hold.partitions[i] <= r->hold.partitions[i - 1]))
                return false;
        return r->hold.count >= 1;
    case CONTROL_SUSPEND:
        return r->suspend.automation >= AUTOMATION_PLACEMENT && r->suspend.automation < AUTOMATION_END &&
               control_text_valid(r->suspend.owner) && control_text_valid(r->suspend.reason);
    case CONTROL_SET:
        return settings_valid(&r->settings);
    default:
        return r->kind >= CONTROL_INIT && r->kind < CONTROL_KIND_END;
    }
}

/* ---- encoding ---- */

static void put_member(struct buf *out, struct member_id id)
{
    buf_put_varint(out, id.slot);
    buf_put_varint(out, id.incarnation);
}

static void put_settings(struct buf *out, const struct control_settings *s)
{
    buf_put_varint(out, s->suspect_age_ms);
    buf_put_varint(out, s->repair_delay_ms);
}

static void put_init(struct buf *out, const struct control_init *init)
{
    buf_put_varint(out, init->partition_count);
    buf_put_u8(out, init->replica_count);
    buf_put_varint(out, init->expected_nodes);
    buf_put_varint(out, init->range_bytes_max);
    buf_put(out, init->hash_key, sizeof init->hash_key);
    put_settings(out, &init->settings);
}

static void put_join(struct buf *out, const struct control_join *join)
{
    buf_put_string(out, join->name);
    buf_put_string(out, join->zone);
    buf_put_string(out, join->address);
    buf_put(out, join->disk_id, sizeof join->disk_id);
    buf_put(out, join->process_id, sizeof join->process_id);
    buf_put_varint(out, join->read_to);
    buf_put_varint(out, join->format_min);
    buf_put_varint(out, join->format_max);
}

static void put_assign(struct buf *out, const struct control_record *r)
{
    buf_put_varint(out, r->assign.based_on);
    buf_put_varint(out, r->assign.partition_count);
    buf_put_u8(out, r->assign.replica_count);
    buf_put_u8(out, r->assign.force);
    for (size_t i = 0; i < (size_t)r->assign.partition_count * r->assign.replica_count; i++)
        buf_put_varint(out, r->assign.slots[i] == SLOT_NONE ? 0 : (uint64_t)r->assign.slots[i] + 1);
}

static void put_hold(struct buf *out, const struct control_record *r)
{
    if (r->kind != CONTROL_DROP)
        buf_put_varint(out, r->hold.answers);
    buf_put_varint(out, r->hold.count);
    for (uint32_t i = 0; i < r->hold.count; i++)
        buf_put_varint(out, i == 0 ? r->hold.partitions[0]
                                   : r->hold.partitions[i] - r->hold.partitions[i - 1] - 1);
}

void control_record_encode(const struct control_record *record, struct buf *out)
{
    check(record_valid(record));
    buf_put_le32(out, MAGIC);
    buf_put_u8(out, CONTROL_FORMAT_VERSION);
    buf_put_u8(out, (uint8_t)record->kind);
    buf_put(out, record->cluster_id, sizeof record->cluster_id);
    put_member(out, record->by);
    put_member(out, record->of);
    switch (record->kind) {
    case CONTROL_INIT:
        put_init(out, &record->init);
        break;
    case CONTROL_NOOP:
        buf_put(out, record->nonce, sizeof record->nonce);
        break;
    case CONTROL_JOIN:
        put_join(out, &record->join);
        break;
    case CONTROL_REFUTE:
    case CONTROL_VOTE:
    case CONTROL_EVICT:
        buf_put_varint(out, record->suspicion);
        break;
    case CONTROL_SUSPECT:
        buf_put_varint(out, record->silent_ms);
        break;
    case CONTROL_LEAVE:
        buf_put_u8(out, (uint8_t)record->leaving);
        break;
    case CONTROL_REMOVE:
        buf_put_u8(out, (uint8_t)record->removal);
        break;
    case CONTROL_ASSIGN:
        put_assign(out, record);
        break;
    case CONTROL_OWN:
    case CONTROL_DROP:
    case CONTROL_DISOWN:
        put_hold(out, record);
        break;
    case CONTROL_SUSPEND:
        buf_put_u8(out, (uint8_t)record->suspend.automation);
        buf_put_varint(out, record->suspend.duration_ms);
        buf_put_string(out, record->suspend.owner);
        buf_put_string(out, record->suspend.reason);
        break;
    case CONTROL_SET:
        put_settings(out, &record->settings);
        break;
    case CONTROL_VACATE:
    case CONTROL_KIND_END:
        break;
    }
}

/* ---- decoding ---- */

static uint32_t read_u32(struct reader *r)
{
    uint64_t v = read_varint(r);
    if (v > UINT32_MAX)
        read_bad(r);
    return (uint32_t)v;
}

static bool read_flag(struct reader *r)
{
    uint8_t v = read_u8(r);
    if (v > 1)
        read_bad(r);
    return v == 1;
}

static void read_id(struct reader *r, uint8_t *out_id)
{
    struct slice bytes = read_bytes(r, CLUSTER_ID_BYTES);
    if (bytes.len == CLUSTER_ID_BYTES)
        memcpy(out_id, bytes.at, CLUSTER_ID_BYTES);
}

static struct member_id read_member(struct reader *r)
{
    struct member_id id = { .slot = read_u32(r) };
    id.incarnation = read_varint(r);
    return id;
}

static void read_settings(struct reader *r, struct control_settings *out_settings)
{
    out_settings->suspect_age_ms = read_u32(r);
    out_settings->repair_delay_ms = read_u32(r);
}

static void read_init(struct reader *r, struct control_init *out_init)
{
    out_init->partition_count = read_u32(r);
    out_init->replica_count = read_u8(r);
    out_init->expected_nodes = read_u32(r);
    out_init->range_bytes_max = read_varint(r);
    read_id(r, out_init->hash_key);
    read_settings(r, &out_init->settings);
}

static void read_join(struct reader *r, struct control_join *out_join)
{
    out_join->name = read_string(r);
    out_join->zone = read_string(r);
    out_join->address = read_string(r);
    read_id(r, out_join->disk_id);
    read_id(r, out_join->process_id);
    out_join->read_to = read_varint(r);
    out_join->format_min = read_u32(r);
    out_join->format_max = read_u32(r);
}

/* Each number takes a byte at least, so what is allocated is bounded by what is there. */
static err read_assign(struct reader *r, struct pool *pool, struct control_record *record)
{
    record->assign.based_on = read_varint(r);
    record->assign.partition_count = read_u32(r);
    record->assign.replica_count = read_u8(r);
    record->assign.force = read_flag(r);
    size_t count = (size_t)record->assign.partition_count * record->assign.replica_count;
    if (!r->ok || count > read_left(r))
        return ERR_INPUT;
    void *at;
    TRY(pool_alloc(pool, count * sizeof(uint32_t) + 1, &at));
    uint32_t *slots = at;
    for (size_t i = 0; i < count; i++) {
        uint64_t slot = read_varint(r);
        if (slot > CLUSTER_NODES_MAX)
            return ERR_INPUT;
        slots[i] = slot == 0 ? SLOT_NONE : (uint32_t)slot - 1;
    }
    record->assign.slots = slots;
    return OK;
}

static err read_hold(struct reader *r, struct pool *pool, struct control_record *record)
{
    if (record->kind != CONTROL_DROP)
        record->hold.answers = read_varint(r);
    uint64_t count = read_varint(r), next = 0;
    if (!r->ok || count > read_left(r) || count > CLUSTER_PARTITIONS_MAX)
        return ERR_INPUT;
    void *at;
    TRY(pool_alloc(pool, count * sizeof(uint32_t) + 1, &at));
    uint32_t *partitions = at;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t skipped = read_varint(r);
        if (skipped > CLUSTER_PARTITIONS_MAX)
            return ERR_INPUT;
        partitions[i] = (uint32_t)(next + skipped);
        next += skipped + 1;
    }
    record->hold.partitions = partitions;
    record->hold.count = (uint32_t)count;
    return OK;
}

static err read_payload(struct reader *r, struct pool *pool, struct control_record *record)
{
    switch (record->kind) {
    case CONTROL_INIT:
        read_init(r, &record->init);
        return OK;
    case CONTROL_NOOP:
        read_id(r, record->nonce);
        return OK;
    case CONTROL_JOIN:
        read_join(r, &record->join);
        return OK;
    case CONTROL_REFUTE:
    case CONTROL_VOTE:
    case CONTROL_EVICT:
        record->suspicion = read_varint(r);
        return OK;
    case CONTROL_SUSPECT:
        record->silent_ms = read_u32(r);
        return OK;
    case CONTROL_LEAVE:
        record->leaving = read_u8(r);
        return OK;
    case CONTROL_REMOVE:
        record->removal = read_u8(r);
        return OK;
    case CONTROL_ASSIGN:
        return read_assign(r, pool, record);
    case CONTROL_OWN:
    case CONTROL_DROP:
    case CONTROL_DISOWN:
        return read_hold(r, pool, record);
    case CONTROL_SUSPEND:
        record->suspend.automation = read_u8(r);
        record->suspend.duration_ms = read_varint(r);
        record->suspend.owner = read_string(r);
        record->suspend.reason = read_string(r);
        return OK;
    case CONTROL_SET:
        read_settings(r, &record->settings);
        return OK;
    case CONTROL_VACATE:
        return OK;
    case CONTROL_KIND_END:
        break;
    }
    return ERR_VERSION;
}

err control_record_decode(struct slice bytes, struct pool *pool, struct control_record *out_record)
{
    if (bytes.len > CONTROL_RECORD_BYTES_MAX)
        return ERR_INPUT;
    struct reader r = reader_of(bytes);
    struct control_record record = { 0 };
    if (read_le32(&r) != MAGIC)
        return ERR_INPUT;
    uint8_t version = read_u8(&r), kind = read_u8(&r);
    read_id(&r, record.cluster_id);
    if (!r.ok || version == 0 || kind == 0)
        return ERR_INPUT;
    if (version > CONTROL_FORMAT_VERSION || kind >= CONTROL_KIND_END) {
        memcpy(out_record->cluster_id, record.cluster_id, CLUSTER_ID_BYTES); /* whose it is can be told */
        return ERR_VERSION;
    }
    record.kind = kind;
    record.by = read_member(&r);
    record.of = read_member(&r);
    TRY(read_payload(&r, pool, &record));
    if (!r.ok || read_left(&r) != 0 || !record_valid(&record))
        return ERR_INPUT;
    *out_record = record;
    return OK;
}
