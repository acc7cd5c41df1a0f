/* Announcing again. See announce.h.
 *
 * A record may use a number without its labels once a record that carries them was acknowledged. If the log goes
 * back then, the labels may be lost, and before anybody notices, more records that use the number are
 * acknowledged. Its rows would never have a name if the series were not written again. The table holds no labels,
 * so the records do:
 *
 *   record acknowledged ─→ its announcements alone, as a record (batch_put_announces) ─→ kept
 *   the log's generation is a later one ─→ every kept one is due ─→ appended again ─→ acknowledged in that
 *   generation
 *
 * What is kept is compressed as it was sent: 16 bytes a series of records with 60, 50 with ten, 400 with one, and
 * 8 for the place. A series is announced again now and then (ingest.c), so the older of its announcements becomes
 * free by itself.
 *
 * Invariants
 *  1. A series with a mark has its newest acknowledged announcement kept. What cannot be kept marks nothing.
 *  2. One goes when no series has it as its newest, but not while it is under way, nor, if a series was dropped
 *     from the table meanwhile, before it was acknowledged in the log's generation: rows of that one may wait for
 *     it.
 *  3. It is due as long as the generation in which it was acknowledged is not its producer's: whatever fails, and
 *     however often the log goes back meanwhile, it is sent again until that is so.
 *  4. All that are kept are of their producer's incarnation: a partition with due ones keeps its own, unless its
 *     gaps do not allow that (renew_worn).
 *  5. Over a log that never goes back nothing is kept, and nothing runs. */
#include "ingest/announce.h"

#include "base/stat.h"
#include "base/time.h"
#include "ingest/request.h"

/* Under way at once of a partition; one of any size is always allowed, and after a failure one alone: each that
 * fails is a gap in the sequences. Requests share the log's queue. */
#define FLYING_BYTES (256u << 10)
#define FLYING_COUNT 256
#define DELAY_MS_MIN 1000
#define DELAY_MS_MAX 30000

struct announcement {
    struct announcement *next, *previous; /* of its partition */
    struct announcement *next_sent;
    struct log_append append; /* its context is the ingest */
    struct slice part;
    uint64_t generation; /* of the log, in which it was acknowledged */
    uint64_t sent_in;    /* … as its producer knew it when it was sent last */
    uint32_t live;       /* series whose newest it is */
    bool is_flying;
    bool is_wanted; /* a series that had it was dropped while it was due */
    uint8_t bytes[];
};

err announcer_init(struct ingest *ingest)
{
    struct announcer *a = &ingest->announcer;
    void *partitions, *of;
    if (log_watermarks(ingest->log, 0).generation == 0)
        return OK;
    TRY(pool_zalloc(a->pool, ingest->config.partition_count * sizeof a->partitions[0], &partitions));
    TRY(pool_zalloc(a->pool, SERIES_COUNT_MAX / SERIES_CHUNK * sizeof a->of[0], &of));
    a->of = of;
    a->partitions = partitions;
    io_mutex_init(&a->mutex);
    return OK;
}

void announcer_done(struct announcer *a)
{
    if (a->partitions != NULL)
        io_mutex_done(&a->mutex);
}

/* ---- what is kept; mutex held ---- */

static uint64_t generation_of(const struct ingest *ingest, uint32_t partition)
{
    return atomic_load(&ingest->producers[partition].generation);
}

static bool is_due(const struct ingest *ingest, const struct announcement *one)
{
    return one->generation != generation_of(ingest, one->append.partition);
}

static void put_in(struct announcer *a, struct announcement *one)
{
    struct announced *p = &a->partitions[one->append.partition];
    one->next = p->first;
    if (p->first != NULL)
        p->first->previous = one;
    p->first = one;
}

static void take_out(struct announcer *a, struct announcement *one)
{
    if (one->next != NULL)
        one->next->previous = one->previous;
    if (one->previous != NULL)
        one->previous->next = one->next;
    else
        a->partitions[one->append.partition].first = one->next;
}

static void free_if_idle(struct announcer *a, struct announcement *one)
{
    if (one->live > 0 || one->is_flying || one->is_wanted)
        return;
    take_out(a, one);
    pool_block_free(a->pool, one);
}

static void leave(struct announcer *a, struct announcement *one)
{
    one->live--;
    free_if_idle(a, one);
}

/* The place of a series; NULL: its chunk is not there. */
static struct announcement **place_of(const struct announcer *a, uint32_t id)
{
    struct announcement **chunk = a->of[id >> SERIES_CHUNK_BITS];
    return chunk == NULL ? NULL : &chunk[id & (SERIES_CHUNK - 1)];
}

static err make_place(struct announcer *a, uint32_t id)
{
    void *chunk = NULL;
    if (place_of(a, id) != NULL)
        return OK;
    TRY(pool_block_resize(a->pool, &chunk, SERIES_CHUNK * sizeof(struct announcement *)));
    memset(chunk, 0, SERIES_CHUNK * sizeof(struct announcement *));
    a->of[id >> SERIES_CHUNK_BITS] = chunk;
    return OK;
}

static void announced_again(struct log_append *append, err result, struct log_position position);

static err put_new(struct ingest *ingest, struct slice record, const struct record *of,
                   struct announcement **out_one)
{
    struct announcer *a = &ingest->announcer;
    void *at = NULL;
    size_t len = batch_put_announces(record, NULL);
    TRY(pool_block_resize(a->pool, &at, sizeof(struct announcement) + len));
    struct announcement *one = at;
    *one = (struct announcement){ .generation = of->generation };
    (void)batch_put_announces(record, one->bytes);
    one->part = slice_of(one->bytes, len);
    one->append = (struct log_append){ .partition = of->append.partition,
                                       .parts = &one->part,
                                       .part_count = 1,
                                       .done = announced_again,
                                       .context = ingest };
    put_in(a, one);
    *out_one = one;
    return OK;
}

static err keep(struct ingest *ingest, const struct ingest_request *r, const struct record *record)
{
    struct announcer *a = &ingest->announcer;
    struct announcement *one;
    for (size_t i = record->mark_begin; i < record->mark_end; i++)
        TRY(make_place(a, r->marks[i].id));
    TRY(put_new(ingest, slice_of(r->encoded.at + record->offset, record->len), record, &one));
    for (size_t i = record->mark_begin; i < record->mark_end; i++) {
        struct announcement **place = place_of(a, r->marks[i].id);
        if (mark_series(ingest, record->append.partition, &r->marks[i]) == NULL || *place == one)
            continue;
        if (*place != NULL)
            leave(a, *place);
        *place = one;
        one->live++;
    }
    if (is_due(ingest, one))
        a->partitions[record->append.partition].settled = 0;
    free_if_idle(a, one);
    return OK;
}

bool announcer_keep(struct ingest *ingest, const struct ingest_request *r, const struct record *record)
{
    struct announcer *a = &ingest->announcer;
    if (a->partitions == NULL || record->mark_begin == record->mark_end)
        return true;
    io_mutex_lock(&a->mutex);
    err e = keep(ingest, r, record);
    io_mutex_unlock(&a->mutex);
    return e == OK;
}

void announcer_drop(struct ingest *ingest, uint32_t id)
{
    struct announcer *a = &ingest->announcer;
    if (a->partitions == NULL)
        return;
    io_mutex_lock(&a->mutex);
    struct announcement **place = place_of(a, id), *one = place == NULL ? NULL : *place;
    if (one != NULL) {
        *place = NULL;
        one->is_wanted = one->is_wanted || is_due(ingest, one);
        leave(a, one);
    }
    io_mutex_unlock(&a->mutex);
}

void announcer_renew(struct ingest *ingest, uint32_t partition)
{
    struct announcer *a = &ingest->announcer;
    if (a->partitions == NULL)
        return;
    io_mutex_lock(&a->mutex);
    for (uint32_t id = 0; id < ingest->table.id_count; id++) {
        struct announcement **place = place_of(a, id);
        if (place != NULL && *place != NULL && (*place)->append.partition == partition)
            *place = NULL;
    }
    struct announcement *next;
    for (struct announcement *one = a->partitions[partition].first; one != NULL; one = next) {
        next = one->next;
        one->live = 0;
        one->is_wanted = false;
        free_if_idle(a, one);
    }
    io_mutex_unlock(&a->mutex);
}

/* ---- announcing again ---- */

/* The log's done. */
static void announced_again(struct log_append *append, err result, struct log_position position)
{
    struct announcement *one =
        (struct announcement *)(void *)((uint8_t *)append - offsetof(struct announcement, append));
    struct ingest *ingest = append->context;
    struct announcer *a = &ingest->announcer;
    struct announced *p = &a->partitions[append->partition];
    int64_t now_ns = io_monotonic_ns(ingest->io);
    bool is_acked = producer_acked(&ingest->producers[append->partition], one->sent_in, result, position);
    io_mutex_lock(&a->mutex);
    p->flying_count--;
    p->flying_bytes -= one->part.len;
    one->is_flying = false;
    if (is_acked) {
        stat_add(STAT_INGEST_ANNOUNCES_AGAIN, one->live);
        one->generation = one->sent_in;
        one->is_wanted = false;
        p->delay_ms = 0;
    } else if (now_ns >= p->retry_ns) {
        p->delay_ms = p->delay_ms == 0                 ? DELAY_MS_MIN
                      : p->delay_ms < DELAY_MS_MAX / 2 ? p->delay_ms * 2
                                                       : DELAY_MS_MAX;
        p->retry_ns = now_ns + p->delay_ms * NS_PER_MS;
    }
    free_if_idle(a, one);
    io_mutex_unlock(&a->mutex);
}

/* As many of the partition's due ones as may be under way, by next_sent. NULL: none. */
static struct announcement *take_due(struct ingest *ingest, uint32_t partition, int64_t now_ns)
{
    struct announcer *a = &ingest->announcer;
    struct announced *p = &a->partitions[partition];
    struct announcement *list = NULL;
    io_mutex_lock(&a->mutex);
    uint64_t generation = generation_of(ingest, partition);
    bool is_settled = p->settled == generation, may_send = !is_settled && now_ns >= p->retry_ns;
    p->settled = generation;
    for (struct announcement *one = is_settled ? NULL : p->first; one != NULL; one = one->next) {
        if (one->generation == generation)
            continue;
        p->settled = 0;
        bool has_room = p->flying_count == 0 || (p->delay_ms == 0 && p->flying_count < FLYING_COUNT &&
                                                 p->flying_bytes + one->part.len <= FLYING_BYTES);
        if (!may_send || one->is_flying || !has_room)
            continue;
        one->is_flying = true;
        one->sent_in = generation;
        p->flying_count++;
        p->flying_bytes += one->part.len;
        one->next_sent = list;
        list = one;
    }
    io_mutex_unlock(&a->mutex);
    return list;
}

/* What is under way is not freed, and of this incarnation: who renews is this thread. */
static void send(struct ingest *ingest, struct announcement *list)
{
    int64_t now_ms = io_now_ms(ingest->io);
    while (list != NULL) {
        struct announcement *one = list;
        struct producer *producer = &ingest->producers[one->append.partition];
        list = one->next_sent;
        batch_set_sequence(one->bytes, atomic_fetch_add(&producer->sequence, 1));
        batch_set_append_ms(one->bytes, now_ms < TIME_MS_MIN   ? TIME_MS_MIN
                                        : now_ms > TIME_MS_MAX ? TIME_MS_MAX
                                                               : now_ms);
        log_append(ingest->log, &one->append);
        stat_add(STAT_INGEST_RECORDS, 1);
    }
}

bool announcer_is_busy(struct ingest *ingest, uint32_t partition)
{
    struct announcer *a = &ingest->announcer;
    if (a->partitions == NULL)
        return false;
    io_mutex_lock(&a->mutex);
    bool is_busy = a->partitions[partition].settled != generation_of(ingest, partition);
    io_mutex_unlock(&a->mutex);
    return is_busy;
}

void announcer_step(struct ingest *ingest, int64_t now_ns)
{
    struct announcer *a = &ingest->announcer;
    if (a->partitions == NULL || (ingest->config.canary & INGEST_CANARY_NEVER_AGAIN) != 0)
        return;
    for (uint32_t i = 0; i < ingest->config.partition_count; i++)
        send(ingest, take_due(ingest, i, now_ns));
    io_mutex_lock(&a->mutex);
    stat_set(STAT_INGEST_ANNOUNCEMENTS_BYTES, (int64_t)pool_used(a->pool));
    io_mutex_unlock(&a->mutex);
}
