/* The logs of the simulated brokers: entries by offset, where each leader epoch begins in them, and what a broker
 * remembers of producers. All of it follows from the entries, as on a real broker, so cutting back rebuilds it.
 *
 * Invariants
 *   1. Two logs that agree in the epoch at an offset agree in everything up to it.
 *   2. Bytes are shared: an entry holds one reference. */
#include "base/check.h"
#include "sim/brokers_sim_inside.h"

struct blob *blob_new(struct brokers_sim *sim, const struct slice *parts, size_t part_count)
{
    size_t len = 0;
    for (size_t i = 0; i < part_count; i++)
        len += parts[i].len;
    void *at = NULL;
    check(pool_block_resize(sim->pool, &at, sizeof(struct blob) + len) == OK);
    struct blob *blob = at;
    *blob = (struct blob){ .refs = 1, .len = (uint32_t)len };
    len = 0;
    for (size_t i = 0; i < part_count; i++) {
        if (parts[i].len != 0)
            memcpy(blob->bytes + len, parts[i].at, parts[i].len);
        len += parts[i].len;
    }
    return blob;
}

struct blob *blob_ref(struct blob *blob)
{
    if (blob != NULL)
        blob->refs++;
    return blob;
}

void blob_drop(struct brokers_sim *sim, struct blob *blob)
{
    if (blob != NULL && --blob->refs == 0)
        pool_block_free(sim->pool, blob);
}

/* ---- entries ---- */

struct entry *log_sim_at(const struct log_sim *log, uint64_t offset)
{
    check_hot(offset >= log->start && offset < log->end);
    return &log->entries[log->skip + (offset - log->start)];
}

void log_sim_push(struct brokers_sim *sim, struct log_sim *log, struct entry entry)
{
    size_t used = log->skip + (size_t)(log->end - log->start);
    check(pool_block_reserve(sim->pool, (void **)&log->entries, sizeof entry, used + 1, &log->capacity) ==
          OK);
    blob_ref(entry.blob);
    log->entries[used] = entry;
    log->end++;
}

void log_sim_truncate(struct brokers_sim *sim, struct log_sim *log, uint64_t end)
{
    while (log->end > end && log->end > log->start) {
        blob_drop(sim, log_sim_at(log, log->end - 1)->blob);
        log->end--;
    }
}

void log_sim_advance(struct brokers_sim *sim, struct log_sim *log, uint64_t start)
{
    for (; log->start < start && log->start < log->end; log->start++, log->skip++)
        blob_drop(sim, log_sim_at(log, log->start)->blob);
    size_t live = (size_t)(log->end - log->start);
    if (log->skip > live + 64) {
        memmove(log->entries, log->entries + log->skip, live * sizeof *log->entries);
        log->skip = 0;
    }
}

void log_sim_reset(struct brokers_sim *sim, struct log_sim *log, uint64_t start)
{
    log_sim_truncate(sim, log, log->start);
    log->start = log->end = start;
    log->skip = 0;
}

/* ---- what a replica keeps beside them ---- */

struct producer_memory *replica_producer(struct replica *r, uint64_t id)
{
    for (size_t i = 0; i < r->producer_count; i++)
        if (r->producers[i].id == id)
            return &r->producers[i];
    return NULL;
}

static void remember(struct brokers_sim *sim, struct replica *r, const struct entry *entry, uint64_t offset)
{
    struct producer_memory *p = replica_producer(r, entry->producer);
    if (entry->blob == NULL)
        return;
    if (p == NULL && r->producer_count < PRODUCERS_MAX) {
        check(pool_block_reserve(sim->pool, (void **)&r->producers, sizeof *p, r->producer_count + 1,
                                 &r->producer_capacity) == OK);
        p = &r->producers[r->producer_count++];
        p->id = 0;
    } else if (p == NULL) {
        p = &r->producers[0];
        for (size_t i = 1; i < r->producer_count; i++)
            if (r->producers[i].last_use < p->last_use)
                p = &r->producers[i];
    }
    if (p->id != entry->producer) {
        *p = (struct producer_memory){ .id = entry->producer };
        memset(p->offsets, 0xff, sizeof p->offsets); /* KAFKA_OFFSET_UNKNOWN */
    }
    p->offsets[entry->sequence % WINDOW] = offset;
    p->next_sequence = entry->sequence + 1;
    p->last_use = offset;
}

void replica_begin_epoch(struct brokers_sim *sim, struct replica *r, int32_t epoch)
{
    while (r->epoch_count > 0 && r->epochs[r->epoch_count - 1].at >= r->log.end)
        r->epoch_count--; /* an epoch without a record */
    if (r->epoch_count > 0 && r->epochs[r->epoch_count - 1].epoch >= epoch)
        return;
    check(pool_block_reserve(sim->pool, (void **)&r->epochs, sizeof *r->epochs, r->epoch_count + 1,
                             &r->epoch_capacity) == OK);
    r->epochs[r->epoch_count++] = (struct epoch_start){ epoch, r->log.end };
}

void replica_append(struct brokers_sim *sim, struct replica *r, struct entry entry)
{
    if (r->epoch_count == 0 || r->epochs[r->epoch_count - 1].epoch != entry.epoch)
        replica_begin_epoch(sim, r, entry.epoch);
    remember(sim, r, &entry, r->log.end);
    log_sim_push(sim, &r->log, entry);
}

static void shorten(struct brokers_sim *sim, struct replica *r)
{
    while (r->epoch_count > 0 && r->epochs[r->epoch_count - 1].at >= r->log.end)
        r->epoch_count--;
    r->hw = r->hw < r->log.end ? r->hw : r->log.end;
    r->hw = r->hw > r->log.start ? r->hw : r->log.start;
    r->flushed = r->flushed < r->log.end ? r->flushed : r->log.end;
    r->producer_count = 0;
    for (uint64_t at = r->log.start; at < r->log.end; at++)
        remember(sim, r, log_sim_at(&r->log, at), at);
}

void replica_truncate(struct brokers_sim *sim, struct replica *r, uint64_t end)
{
    if (end >= r->log.end)
        return;
    log_sim_truncate(sim, &r->log, end);
    if (end < r->log.start)
        log_sim_reset(sim, &r->log, end);
    shorten(sim, r);
}

void replica_reset(struct brokers_sim *sim, struct replica *r, uint64_t start)
{
    log_sim_reset(sim, &r->log, start);
    r->epoch_count = 0;
    r->hw = r->flushed = start;
    shorten(sim, r);
}

int64_t replica_epoch_end(const struct replica *r, int32_t epoch, int32_t *out_epoch)
{
    *out_epoch = KAFKA_EPOCH_UNKNOWN;
    if (r->epoch_count == 0 || epoch > r->epochs[r->epoch_count - 1].epoch)
        return -1;
    for (size_t i = r->epoch_count; i > 0; i--) {
        if (r->epochs[i - 1].epoch > epoch)
            continue;
        *out_epoch = r->epochs[i - 1].epoch;
        return (int64_t)(i == r->epoch_count ? r->log.end : r->epochs[i].at);
    }
    *out_epoch = epoch; /* older than all it has */
    return (int64_t)r->epochs[0].at;
}
