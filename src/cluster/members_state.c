/* The state of the cluster as bytes, so that a start need not read the control log from its beginning: written
 * to the blob store by a node that is up, read back by any. docs/format/control.md §4.
 *
 * Invariants: 1. Equal states have equal bytes. 2. Bytes that decode give a state that keeps the invariants of
 * members.c: whatever does not is damage, for the store holds what somebody wrote. */
#include "cluster/members.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "cluster/members_inside.h"
#include "cluster/placement.h"

#include <string.h>

#define MAGIC   UINT32_C(0x534d434b) /* "KCMS" */
#define VERSION 1

#define TIME_MS_BOUND (INT64_C(1) << 53)

/* ---- encoding ---- */

static void put_settings(struct buf *out, const struct control_settings *s)
{
    buf_put_varint(out, s->suspect_age_ms);
    buf_put_varint(out, s->repair_delay_ms);
}

static void put_bits(struct buf *out, const uint8_t *bits, uint32_t bit_count)
{
    buf_put(out, bits, (bit_count + 7) / 8);
}

static void put_member(struct buf *out, const struct members *members, const struct member *m)
{
    buf_put_u8(out, (uint8_t)m->status);
    if (m->status == MEMBER_NONE)
        return;
    buf_put_u8(out, (uint8_t)(m->is_draining | m->is_leaving << 1 | m->hands_over << 2 | m->is_claimed << 3));
    buf_put_varint(out, m->id.incarnation);
    buf_put_varint(out, m->slot_since);
    buf_put_zigzag(out, m->ended_ms);
    buf_put_varint(out, m->ended_at);
    buf_put_varint(out, m->suspicion);
    buf_put_zigzag(out, m->suspected_ms);
    buf_put_varint(out, m->claims);
    buf_put_varint(out, m->held_at);
    buf_put_string(out, slice_str(m->name));
    buf_put_string(out, slice_str(m->zone));
    buf_put_string(out, slice_str(m->address));
    buf_put(out, m->disk_id, sizeof m->disk_id);
    buf_put(out, m->process_id, sizeof m->process_id);
    buf_put_varint(out, m->format_min);
    buf_put_varint(out, m->format_max);
    put_bits(out, m->votes, members->member_count);
    put_bits(out, m->owns, members->init.partition_count);
}

void members_encode(const struct members *members, struct buf *out)
{
    size_t begin = buf_slice(out).len;
    buf_put_le32(out, MAGIC);
    buf_put_le16(out, VERSION);
    buf_put_u8(out, members->is_begun);
    buf_put_varint(out, members->epoch);
    buf_put_zigzag(out, members->now_ms);
    buf_put_zigzag(out, members->heard_ms);
    buf_put_zigzag(out, members->append_ms);
    if (members->is_begun) {
        buf_put(out, members->cluster_id, sizeof members->cluster_id);
        buf_put_varint(out, members->init.partition_count);
        buf_put_u8(out, members->init.replica_count);
        buf_put_varint(out, members->init.expected_nodes);
        buf_put_varint(out, members->init.range_bytes_max);
        buf_put(out, members->init.hash_key, sizeof members->init.hash_key);
        put_settings(out, &members->init.settings);
        put_settings(out, &members->settings);
        buf_put_varint(out, members->changed_at);
        buf_put_varint(out, members->assigned_at);
        buf_put_varint(out, members->joined_ever);
        buf_put_varint(out, members->freed_at);
        buf_put_varint(out, members->vacated_since);
        buf_put_zigzag(out, members->evicted_ms);
        buf_put_zigzag(out, members->resumed_ms);
        buf_put_varint(out, members->former_age_ms);
        buf_put_zigzag(out, members->former_until_ms);
        for (int i = AUTOMATION_PLACEMENT; i < AUTOMATION_END; i++) {
            buf_put_zigzag(out, members->suspensions[i].until_ms);
            buf_put_string(out, slice_str(members->suspensions[i].owner));
            buf_put_string(out, slice_str(members->suspensions[i].reason));
        }
        buf_put_varint(out, members->member_count);
        for (uint32_t i = 0; i < members->member_count; i++)
            put_member(out, members, &members->members[i]);
        size_t count = (size_t)members->init.partition_count * members->init.replica_count;
        for (size_t i = 0; i < count; i++)
            buf_put_varint(out, members->table[i] == SLOT_NONE ? 0 : (uint64_t)members->table[i] + 1);
    }
    struct slice all = buf_slice(out);
    if (buf_err(out) == OK)
        buf_put_le32(out, crc32c(slice_of(all.at + begin, all.len - begin), 0));
}

/* ---- decoding ---- */

static uint32_t read_bounded(struct reader *r, uint64_t least, uint64_t most)
{
    uint64_t v = read_varint(r);
    if (v < least || v > most)
        read_bad(r);
    return (uint32_t)v;
}

static void read_fixed(struct reader *r, uint8_t *to, size_t bytes)
{
    struct slice s = read_bytes(r, bytes);
    if (s.len == bytes)
        memcpy(to, s.at, bytes);
}

static void read_text(struct reader *r, char *to, size_t bytes_max)
{
    struct slice s = read_string(r);
    if (s.len > bytes_max || (s.len > 0 && memchr(s.at, 0, s.len) != NULL)) {
        read_bad(r);
        return;
    }
    memcpy(to, s.at, s.len);
    to[s.len] = 0;
}

/* Bits at or behind bit_count are zero. */
static void read_bits(struct reader *r, uint8_t *to, uint32_t bit_count)
{
    read_fixed(r, to, (bit_count + 7) / 8);
    if (bit_count % 8 != 0 && to[bit_count / 8] >> bit_count % 8 != 0)
        read_bad(r);
}

static void read_settings(struct reader *r, struct control_settings *out_settings)
{
    out_settings->suspect_age_ms = read_bounded(r, 1000, 3600000);
    out_settings->repair_delay_ms = read_bounded(r, 0, 7 * 86400000);
}

/* Times are in ms, and far from where differences of them overflow. */
static int64_t read_time(struct reader *r, bool or_none)
{
    int64_t t_ms = read_zigzag(r);
    if ((t_ms != INT64_MIN || !or_none) && (t_ms < -TIME_MS_BOUND || t_ms > TIME_MS_BOUND))
        read_bad(r);
    return t_ms;
}

static void read_member(struct reader *r, const struct members *members, uint32_t slot,
                        struct member *out_member)
{
    struct member m = { .id = { .slot = slot }, .suspicion = OFFSET_NONE };
    m.status = read_u8(r);
    if (m.status > MEMBER_EVICTED)
        read_bad(r);
    if (m.status != MEMBER_NONE) {
        uint32_t bits = read_bounded(r, 0, 15);
        m.is_draining = (bits & 1) != 0;
        m.is_leaving = (bits & 2) != 0;
        m.hands_over = (bits & 4) != 0;
        m.is_claimed = (bits & 8) != 0;
        m.id.incarnation = read_varint(r);
        m.slot_since = read_varint(r);
        m.ended_ms = read_time(r, false);
        m.ended_at = read_varint(r);
        m.suspicion = read_varint(r);
        m.suspected_ms = read_time(r, false);
        m.claims = (uint8_t)read_bounded(r, 0, MEMBERS_CLAIMS_MAX);
        m.held_at = read_varint(r);
        read_text(r, m.name, CLUSTER_NAME_BYTES_MAX);
        read_text(r, m.zone, CLUSTER_NAME_BYTES_MAX);
        read_text(r, m.address, CLUSTER_ADDRESS_BYTES_MAX);
        read_fixed(r, m.disk_id, sizeof m.disk_id);
        read_fixed(r, m.process_id, sizeof m.process_id);
        m.format_min = read_bounded(r, 0, UINT32_MAX);
        m.format_max = read_bounded(r, 0, UINT32_MAX);
        read_bits(r, m.votes, members->member_count);
        read_bits(r, m.owns, members->init.partition_count);
    }
    *out_member = m;
}

static bool any_bit(const uint8_t *bits, size_t bytes)
{
    uint8_t any = 0;
    for (size_t i = 0; i < bytes; i++)
        any |= bits[i];
    return any != 0;
}

/* The invariants of members.c that the numbers alone do not keep. */
static bool member_valid(const struct members *m, const struct member *one)
{
    if (one->status == MEMBER_NONE)
        return true;
    bool is_idle = one->suspicion == OFFSET_NONE && !any_bit(one->owns, sizeof one->owns);
    if (one->status != MEMBER_UP && (!is_idle || one->is_leaving || one->claims > 0 || one->held_at > 0))
        return false;
    if (one->is_claimed && one->suspicion == OFFSET_NONE)
        return false;
    if (one->suspicion == OFFSET_NONE && any_bit(one->votes, sizeof one->votes))
        return false;
    for (uint32_t i = 0; i < m->member_count; i++) {
        const struct member *other = &m->members[i];
        if (member_is_accused_by(one, i) && other->status != MEMBER_UP)
            return false;
        if (i < one->id.slot && other->status != MEMBER_NONE && strcmp(other->name, one->name) == 0)
            return false;
    }
    return cluster_name_valid(slice_str(one->name)) && cluster_name_valid(slice_str(one->zone)) &&
           one->id.incarnation < m->epoch && one->slot_since <= one->id.incarnation &&
           (one->suspicion == OFFSET_NONE || one->suspicion < m->epoch) && one->held_at < m->epoch;
}

static bool row_valid(const uint32_t *slots, uint32_t width)
{
    for (uint32_t i = 0; i < width; i++)
        for (uint32_t k = 0; k < i; k++)
            if (slots[i] != SLOT_NONE && slots[i] == slots[k])
                return false;
    return true;
}

static bool state_valid(const struct members *m)
{
    uint32_t zones = 0;
    for (uint32_t i = 0; i < m->member_count; i++) {
        if (!member_valid(m, &m->members[i]))
            return false;
        zones += members_is_first_of_zone(m, i);
    }
    for (uint32_t p = 0; p < m->init.partition_count; p++)
        if (!row_valid(m->table + (size_t)p * m->init.replica_count, m->init.replica_count))
            return false;
    return zones <= PLACEMENT_ZONES_MAX && m->init.range_bytes_max > 0 &&
           (m->changed_at == OFFSET_NONE || m->changed_at < m->epoch) &&
           (m->assigned_at == OFFSET_NONE || m->assigned_at < m->epoch);
}

static err read_table(struct reader *r, struct members *m)
{
    size_t count = (size_t)m->init.partition_count * m->init.replica_count;
    if (count > read_left(r))
        return ERR_CORRUPT;
    void *table;
    TRY(pool_alloc(m->pool, count * sizeof *m->table, &table));
    m->table = table;
    for (size_t i = 0; i < count; i++) {
        uint32_t slot = read_bounded(r, 0, m->member_count);
        if (r->ok && slot != 0 && m->members[slot - 1].status == MEMBER_NONE)
            return ERR_CORRUPT;
        m->table[i] = slot == 0 ? SLOT_NONE : slot - 1;
    }
    return OK;
}

static err read_begun(struct reader *r, struct members *m)
{
    read_fixed(r, m->cluster_id, sizeof m->cluster_id);
    m->init.partition_count = read_bounded(r, 1, CLUSTER_PARTITIONS_MAX);
    m->init.replica_count = (uint8_t)read_bounded(r, 1, CLUSTER_REPLICAS_MAX);
    m->init.expected_nodes = read_bounded(r, 1, CLUSTER_NODES_MAX);
    m->init.range_bytes_max = read_varint(r);
    read_fixed(r, m->init.hash_key, sizeof m->init.hash_key);
    read_settings(r, &m->init.settings);
    read_settings(r, &m->settings);
    m->changed_at = read_varint(r);
    m->assigned_at = read_varint(r);
    m->joined_ever = read_varint(r);
    m->freed_at = read_varint(r);
    m->vacated_since = read_varint(r);
    m->evicted_ms = read_time(r, true);
    m->resumed_ms = read_time(r, true);
    m->former_age_ms = read_bounded(r, 0, 3600000);
    m->former_until_ms = read_time(r, false);
    for (int i = AUTOMATION_PLACEMENT; i < AUTOMATION_END; i++) {
        m->suspensions[i].until_ms = read_time(r, true);
        read_text(r, m->suspensions[i].owner, CLUSTER_TEXT_BYTES_MAX);
        read_text(r, m->suspensions[i].reason, CLUSTER_TEXT_BYTES_MAX);
    }
    uint32_t count = read_bounded(r, 0, CLUSTER_NODES_MAX);
    if (!r->ok || count > read_left(r))
        return ERR_CORRUPT;
    void *block = NULL;
    TRY(pool_block_reserve(m->pool, &block, sizeof *m->members, count, &m->member_capacity));
    m->members = block;
    m->member_count = count;
    for (uint32_t i = 0; i < count; i++)
        read_member(r, m, i, &m->members[i]);
    return r->ok ? read_table(r, m) : ERR_CORRUPT;
}

err members_decode(struct slice bytes, struct pool *pool, struct members **out_members)
{
    if (bytes.len < 4 || crc32c(slice_of(bytes.at, bytes.len - 4), 0) != get_le32(bytes.at + bytes.len - 4))
        return ERR_CORRUPT;
    struct reader r = reader_of(slice_of(bytes.at, bytes.len - 4));
    if (read_le32(&r) != MAGIC)
        return ERR_CORRUPT;
    if (read_le16(&r) > VERSION)
        return ERR_VERSION;
    struct members *m;
    TRY(members_open(pool, &m));
    m->is_begun = read_bounded(&r, 0, 1) == 1;
    m->epoch = read_varint(&r);
    if (m->epoch > INT64_MAX) /* offsets are less */
        read_bad(&r);
    m->now_ms = read_time(&r, false);
    m->heard_ms = read_time(&r, true);
    m->append_ms = read_time(&r, false);
    err e = m->is_begun ? read_begun(&r, m) : OK;
    if (e == OK && (!r.ok || read_left(&r) != 0 || (m->is_begun && !state_valid(m))))
        e = ERR_CORRUPT;
    if (e != OK) {
        members_close(m);
        return e;
    }
    *out_members = m;
    return OK;
}
