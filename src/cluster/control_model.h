/* The control log's rules a second time, for tests: written from docs/format/control.md alone, with its own
 * reader of bytes and its own state, in the plainest way there is. Tests fold every record with both and
 * compare. Nothing of the room is used here, so that a mistake has to be made twice to go unseen. */
#ifndef CLUSTER_CONTROL_MODEL_H
#define CLUSTER_CONTROL_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define MODEL_SLOTS      64
#define MODEL_PARTITIONS 64
#define MODEL_NEVER      INT64_MIN

enum { MODEL_FREE, MODEL_UP, MODEL_LEFT, MODEL_EVICTED };

struct model_text {
    uint64_t len;
    uint8_t at[256];
};

struct model_slot {
    int status;
    bool draining, leaving, handing, claim;
    struct model_text name, zone;
    uint8_t disk[16], process[16];
    int64_t incarnation, taken, end, suspicion, held; /* offsets; MODEL_NEVER */
    int64_t end_ms, suspicion_ms;
    uint64_t claims;
    bool votes[MODEL_SLOTS], owns[MODEL_PARTITIONS];
};

struct model {
    bool begun;
    uint8_t id[16];
    uint64_t partitions, replicas, awaited, age, delay, former_age;
    int64_t changed, assigned, freed;                         /* offsets */
    int64_t now, heard, last, resumed, evicted, former_until; /* ms */
    int64_t suspended[4];
    uint64_t taken, vacated;
    struct model_slot slots[MODEL_SLOTS];
    uint64_t table[MODEL_PARTITIONS][8]; /* slot + 1 */
};

struct model_bytes {
    const uint8_t *at, *end;
    bool bad;
};

static inline uint64_t model_v(struct model_bytes *b)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (b->at == b->end)
            break;
        uint8_t c = *b->at++;
        v |= (uint64_t)(c & 127) << shift;
        if (c < 128)
            return v;
    }
    b->bad = true;
    return 0;
}

static inline void model_fixed(struct model_bytes *b, void *to, size_t count)
{
    memset(to, 0, count);
    if ((size_t)(b->end - b->at) < count)
        b->bad = true;
    else {
        memcpy(to, b->at, count);
        b->at += count;
    }
}

static inline uint8_t model_1(struct model_bytes *b)
{
    uint8_t v;
    model_fixed(b, &v, 1);
    return v;
}

static inline struct model_text model_string(struct model_bytes *b)
{
    struct model_text t = { .len = model_v(b) };
    if (t.len > sizeof t.at)
        b->bad = true;
    else
        model_fixed(b, t.at, t.len);
    return t;
}

static inline bool model_same(const struct model_text *a, const struct model_text *b)
{
    return a->len == b->len && memcmp(a->at, b->at, a->len) == 0;
}

static inline void model_open(struct model *m)
{
    *m = (struct model){ .changed = MODEL_NEVER,
                         .assigned = MODEL_NEVER,
                         .freed = MODEL_NEVER,
                         .heard = MODEL_NEVER,
                         .resumed = MODEL_NEVER,
                         .evicted = MODEL_NEVER };
    for (int i = 0; i < 4; i++)
        m->suspended[i] = MODEL_NEVER;
}

static inline bool model_is_suspended(const struct model *m, int automation)
{
    return m->suspended[automation] != MODEL_NEVER && m->suspended[automation] > m->last;
}

static inline uint64_t model_age(const struct model *m)
{
    return m->now < m->former_until && m->former_age > m->age ? m->former_age : m->age;
}

static inline bool model_is_old(const struct model *m, const struct model_slot *s)
{
    return s->suspicion != MODEL_NEVER && m->now - s->suspicion_ms >= (int64_t)model_age(m);
}

static inline uint64_t model_up_count(const struct model *m)
{
    uint64_t count = 0;
    for (int i = 0; i < MODEL_SLOTS; i++)
        count += m->slots[i].status == MODEL_UP;
    return count;
}

static inline bool model_assigned(const struct model *m, uint64_t p, uint64_t slot)
{
    for (uint64_t i = 0; i < m->replicas; i++)
        if (m->table[p][i] == slot + 1)
            return true;
    return false;
}

/* What the end of a life takes, and the beginning of another. */
static inline void model_forget(struct model *m, uint64_t slot)
{
    struct model_slot *s = &m->slots[slot];
    s->suspicion = MODEL_NEVER;
    s->suspicion_ms = 0;
    s->claim = s->leaving = false;
    s->claims = 0;
    s->held = MODEL_NEVER;
    memset(s->votes, 0, sizeof s->votes);
    memset(s->owns, 0, sizeof s->owns);
    for (int i = 0; i < MODEL_SLOTS; i++)
        m->slots[i].votes[slot] = false;
}

static inline void model_ends(struct model *m, uint64_t slot, int status, int64_t offset)
{
    model_forget(m, slot);
    m->slots[slot].status = status;
    m->slots[slot].end = offset;
    m->slots[slot].end_ms = m->now;
    for (uint64_t p = 0; p < m->partitions && m->slots[slot].handing; p++) {
        if (!model_assigned(m, p, slot))
            continue;
        m->slots[slot].handing = false;
        m->changed = offset;
    }
    if (status != MODEL_FREE)
        return;
    m->slots[slot] = (struct model_slot){ 0 };
    m->freed = offset;
    for (uint64_t p = 0; p < m->partitions; p++)
        for (uint64_t i = 0; i < m->replicas; i++)
            if (m->table[p][i] == slot + 1)
                m->table[p][i] = 0;
}

static inline bool model_init(struct model *m, struct model_bytes *b, const uint8_t *id)
{
    if (m->begun)
        return false;
    m->begun = true;
    memcpy(m->id, id, 16);
    m->partitions = model_v(b);
    m->replicas = model_1(b);
    m->awaited = model_v(b);
    model_v(b);
    uint8_t key[16];
    model_fixed(b, key, 16);
    m->age = model_v(b);
    m->delay = model_v(b);
    return true;
}

static inline bool model_join(struct model *m, struct model_bytes *b, int64_t offset)
{
    struct model_text name = model_string(b), zone = model_string(b);
    model_string(b);
    uint8_t disk[16], process[16];
    model_fixed(b, disk, 16);
    model_fixed(b, process, 16);
    int64_t read_to = (int64_t)model_v(b);
    int at = -1, lowest = -1;
    for (int i = MODEL_SLOTS - 1; i >= 0; i--) {
        if (m->slots[i].status == MODEL_FREE)
            lowest = i;
        else if (model_same(&m->slots[i].name, &name))
            at = i;
    }
    struct model_slot *s = at < 0 ? NULL : &m->slots[at];
    int64_t decided = s == NULL ? m->freed : s->end;
    if (decided != MODEL_NEVER && read_to <= decided)
        return false;
    if (s != NULL && s->status == MODEL_UP) {
        if (memcmp(s->process, process, 16) == 0)
            return false;
        if (memcmp(s->disk, disk, 16) != 0 && !model_is_old(m, s)) {
            if (s->suspicion != MODEL_NEVER)
                return false;
            s->suspicion = offset;
            s->suspicion_ms = m->now;
            s->claim = true;
            return true;
        }
    }
    for (int i = 0; i < MODEL_SLOTS; i++)
        if (i != at && m->slots[i].status == MODEL_UP && memcmp(m->slots[i].disk, disk, 16) == 0)
            return false;
    if (s == NULL) {
        s = &m->slots[at = lowest];
        s->taken = offset;
        m->taken++;
        m->changed = offset;
        s->name = name;
    } else if (s->handing || !model_same(&s->zone, &zone))
        m->changed = offset;
    model_forget(m, (uint64_t)at);
    s->handing = false;
    s->status = MODEL_UP;
    s->end = s->incarnation = offset; /* what ended the life before is known to have */
    s->zone = zone;
    memcpy(s->disk, disk, 16);
    memcpy(s->process, process, 16);
    return true;
}

static inline bool model_assign(struct model *m, struct model_bytes *b, int64_t offset, uint64_t by,
                                const struct model_slot *speaker)
{
    uint64_t table[MODEL_PARTITIONS][8] = { 0 };
    int64_t based_on = (int64_t)model_v(b);
    uint64_t partitions = model_v(b), replicas = model_1(b);
    bool forced = model_1(b) == 1;
    if ((by != UINT32_MAX && speaker == NULL) || partitions != m->partitions || replicas != m->replicas ||
        based_on != m->changed)
        return false;
    if (!forced && (model_is_suspended(m, 1) || (m->assigned == MODEL_NEVER && m->taken < m->awaited)))
        return false;
    for (uint64_t p = 0; p < partitions; p++) {
        bool any = false;
        for (uint64_t i = 0; i < replicas; i++) {
            uint64_t v = table[p][i] = model_v(b);
            any = any || v != 0;
            if (v > MODEL_SLOTS || (v != 0 && m->slots[v - 1].status == MODEL_FREE))
                return false;
            for (uint64_t k = 0; k < i; k++)
                if (v != 0 && table[p][k] == v)
                    return false;
        }
        if (!any)
            return false;
    }
    memcpy(m->table, table, sizeof table);
    m->assigned = m->changed = offset;
    m->vacated = 0;
    return true;
}

/* kind: OWN, DROP or DISOWN. */
static inline bool model_hold(struct model *m, struct model_bytes *b, int kind, int64_t offset, uint64_t by,
                              struct model_slot *s)
{
    int64_t answers = kind == 13 ? 0 : (int64_t)model_v(b), right = 0;
    if (s == NULL)
        return false;
    if (m->assigned != MODEL_NEVER)
        right = m->assigned;
    if (s->held != MODEL_NEVER && s->held > right)
        right = s->held;
    if (kind != 13 && answers != right)
        return false;
    bool any = false;
    uint64_t count = model_v(b), p = 0;
    for (uint64_t i = 0; i < count; i++) {
        p += model_v(b) + (i > 0);
        if (p >= m->partitions)
            continue;
        bool assigned = m->assigned != MODEL_NEVER && model_assigned(m, p, by);
        if (kind == 12 && assigned && !s->owns[p])
            any = s->owns[p] = true;
        bool all = m->assigned != MODEL_NEVER && m->changed == m->assigned && !assigned, some = false;
        for (uint64_t k = 0; k < m->replicas; k++) {
            if (m->table[p][k] == 0)
                continue;
            some = true;
            all = all && m->slots[m->table[p][k] - 1].owns[p];
        }
        if ((kind == 16 || (kind == 13 && all && some)) && s->owns[p]) {
            s->owns[p] = false;
            any = true;
        }
    }
    if (any && kind != 13)
        s->held = offset;
    return any;
}

static inline bool model_accuse(struct model *m, struct model_bytes *b, int kind, int64_t offset, uint64_t by,
                                const struct model_slot *s, struct model_slot *of)
{
    uint64_t suspicion = model_v(b), votes = 0;
    if (s == NULL || of == NULL || of->status != MODEL_UP || s == of || model_is_suspended(m, 2))
        return false;
    if (kind == 5) {
        if (of->suspicion != MODEL_NEVER)
            return false;
        of->suspicion = offset;
        of->suspicion_ms = m->now;
        return true;
    }
    if (of->suspicion == MODEL_NEVER || of->suspicion != (int64_t)suspicion)
        return false;
    if (kind == 6) {
        bool first = !of->votes[by];
        of->votes[by] = true;
        return first;
    }
    for (int i = 0; i < MODEL_SLOTS; i++)
        votes += of->votes[i];
    if (!model_is_old(m, of) || !of->votes[by] || 2 * votes <= model_up_count(m) ||
        (m->evicted != MODEL_NEVER && m->now - m->evicted < (int64_t)m->delay))
        return false;
    model_ends(m, (uint64_t)(of - m->slots), MODEL_EVICTED, offset);
    m->evicted = m->now;
    return true;
}

static inline bool model_vacate(struct model *m, int64_t offset, const struct model_slot *s,
                                struct model_slot *of)
{
    if (s == NULL || of == NULL || (of->status != MODEL_LEFT && of->status != MODEL_EVICTED) ||
        model_is_suspended(m, 3))
        return false;
    uint64_t newcomers = 0, delay = m->delay;
    for (int i = 0; i < MODEL_SLOTS; i++)
        newcomers +=
            m->slots[i].status == MODEL_UP && m->assigned != MODEL_NEVER && m->slots[i].taken > m->assigned;
    if (newcomers > m->vacated && delay > 120000)
        delay = 120000;
    int64_t since = m->resumed != MODEL_NEVER && m->resumed > of->end_ms ? m->resumed : of->end_ms;
    if (m->now - since < (int64_t)delay)
        return false;
    model_ends(m, (uint64_t)(of - m->slots), MODEL_FREE, offset);
    m->vacated++;
    m->changed = offset;
    return true;
}

static inline bool model_leave(struct model *m, struct model_bytes *b, int64_t offset, struct model_slot *s)
{
    uint8_t stage = model_1(b);
    if (s == NULL || (stage == 1 && s->leaving) || (stage == 2 && (!s->leaving || s->handing)))
        return false;
    if (stage == 1)
        s->leaving = true;
    if (stage == 2) {
        s->handing = true;
        m->changed = offset;
    }
    if (stage == 3)
        model_ends(m, (uint64_t)(s - m->slots), MODEL_LEFT, offset);
    return true;
}

static inline bool model_remove(struct model *m, struct model_bytes *b, int64_t offset, struct model_slot *of)
{
    uint8_t what = model_1(b);
    if (of == NULL || (what != 1 && of->draining == (what == 2)))
        return false;
    if (what == 1)
        model_ends(m, (uint64_t)(of - m->slots), MODEL_FREE, offset);
    else
        of->draining = what == 2;
    m->changed = offset;
    return true;
}

static inline bool model_refute(struct model_bytes *b, struct model_slot *s)
{
    uint64_t suspicion = model_v(b);
    if (s == NULL || s->suspicion == MODEL_NEVER || s->suspicion != (int64_t)suspicion)
        return false;
    s->claims += s->claim && s->claims < 30;
    s->claim = false;
    s->suspicion = MODEL_NEVER;
    memset(s->votes, 0, sizeof s->votes);
    return true;
}

static inline bool model_set(struct model *m, struct model_bytes *b)
{
    uint64_t age = model_v(b), before = model_age(m);
    if (age < before) {
        m->former_age = before;
        m->former_until = m->now + (int64_t)before + 20000;
    }
    m->age = age;
    m->delay = model_v(b);
    return true;
}

static inline bool model_suspend(struct model *m, struct model_bytes *b)
{
    uint8_t automation = model_1(b);
    uint64_t ms = model_v(b);
    if (ms > UINT64_C(365) * 86400000)
        return false;
    m->suspended[automation] = ms == 0 ? MODEL_NEVER : m->last + (int64_t)ms;
    return true;
}

/* The slot and life that two numbers name; NULL: another life, or none. */
static inline struct model_slot *model_life(struct model *m, uint64_t slot, uint64_t incarnation)
{
    struct model_slot *s = slot < MODEL_SLOTS ? &m->slots[slot] : NULL;
    return s != NULL && s->status != MODEL_FREE && s->incarnation == (int64_t)incarnation ? s : NULL;
}

static inline void model_pass(struct model *m, int kind, const struct model_slot *by, int64_t append_ms)
{
    m->last = append_ms;
    if (kind != 3 && by == NULL)
        return;
    int64_t step = m->heard == MODEL_NEVER ? 0 : append_ms - m->heard;
    if (step >= 0 && step <= 20000)
        m->now += step;
    if (kind == 3 && (m->heard == MODEL_NEVER || step > 20000 || step < -20000))
        m->resumed = m->now;
    m->heard = append_ms;
}

/* Fold one record, which is one (tests of bounds are elsewhere). Does it count? */
static inline bool model_fold(struct model *m, int64_t offset, int64_t append_ms, const void *bytes,
                              size_t len)
{
    struct model_bytes b = { bytes, (const uint8_t *)bytes + len, false };
    uint8_t head[6], id[16];
    model_fixed(&b, head, 6);
    model_fixed(&b, id, 16);
    int kind = head[5];
    uint64_t by = model_v(&b), by_life = model_v(&b), of = model_v(&b), of_life = model_v(&b);
    if (m->begun ? memcmp(id, m->id, 16) != 0 : kind != 1)
        return false;
    struct model_slot *s = model_life(m, by, by_life), *t = model_life(m, of, of_life);
    if (s != NULL && s->status != MODEL_UP)
        s = NULL;
    model_pass(m, kind, s, append_ms);
    switch (kind) {
    case 1:
        return model_init(m, &b, id);
    case 2:
        return true;
    case 3:
        return model_join(m, &b, offset);
    case 4:
        return model_refute(&b, s);
    case 5:
    case 6:
    case 7:
        return model_accuse(m, &b, kind, offset, by, s, t);
    case 8:
        return model_leave(m, &b, offset, s);
    case 9:
        return model_vacate(m, offset, s, t);
    case 10:
        return model_remove(m, &b, offset, t);
    case 11:
        return model_assign(m, &b, offset, by, s);
    case 12:
    case 13:
    case 16:
        return model_hold(m, &b, kind, offset, by, s);
    case 14:
        return model_suspend(m, &b);
    case 15:
        return model_set(m, &b);
    default:
        return false;
    }
}

#endif
