/* Bases: entries that hold the fold of all before them, so that a chain does not grow for ever. See chain.h,
 * docs/format/manifest.md §7.
 *
 * Every so many entries the commit appends one. Once two stand behind an entry, its object is removed, a few
 * with each commit: a start reads what is behind the older of the two, and if that is damaged, behind the newer.
 *
 * Invariants
 *  1. A base is the fold of exactly the entries before its number. Nothing is appended between the fold and the
 * put; if its number is taken by an entry whose end was not seen, that one is folded by the next append.
 *  2. An entry is removed only while two bases behind it can be read. */
#include "shard/partition.h"

#include "base/check.h"

#define PRUNE_COUNT_MAX 256 /* entries removed with one commit; each costs a sync of the directory */

err chain_base(const struct chain *c, struct pool *pool, struct chain_entry *out_entry)
{
    struct chain_entry entry = { .kind = CHAIN_BASE,
                                 .partition = c->partition,
                                 .number = c->next_number,
                                 .end = c->end,
                                 .cutoff_ms = c->cutoff_ms,
                                 .data_through_ms = c->data_through_ms,
                                 .unresolved = c->unresolved,
                                 .dropped = c->dropped,
                                 .accepted_end = c->accepted_end,
                                 .adopted_end = c->adopted_end,
                                 .lost_count = c->lost_count,
                                 .ignored_count = c->ignored_count,
                                 .commit_count = c->commit_count,
                                 .loss_count = c->loss_count,
                                 .segment_count = c->segment_count };
    void *at;
    if (c->segment_count > CHAIN_SEGMENT_COUNT_MAX)
        return ERR_LIMIT;
    memcpy(entry.state_digest, c->state_digests[0], SHA256_BYTES);
    memcpy(entry.older_state_digest, c->state_digests[1], SHA256_BYTES);
    entry.state_era = c->state_eras[0];
    entry.older_state_era = c->state_eras[1];
    memcpy(entry.eras, c->eras, sizeof entry.eras);
    TRY(pool_alloc(pool, c->loss_count * sizeof *c->losses + 1, &at));
    entry.losses = at;
    if (c->loss_count > 0)
        memcpy(entry.losses, c->losses, c->loss_count * sizeof *c->losses);
    TRY(pool_alloc(pool, c->segment_count * sizeof *c->segments + 1, &at));
    entry.segments = at;
    if (c->segment_count > 0)
        memcpy(entry.segments, c->segments, c->segment_count * sizeof *c->segments);
    *out_entry = entry;
    return OK;
}

/* Is the entry of this number there, whole, and a base? */
static bool base_is_readable(struct partition *p, uint64_t number, struct pool *scratch)
{
    struct slice bytes;
    struct chain_entry entry;
    return number != 0 && partition_entry_read(p, number, scratch, &bytes, &entry) == OK &&
           entry.kind == CHAIN_BASE && entry.number == number && entry.partition == p->number;
}

static void prune(struct partition *p, struct pool *scratch)
{
    struct chain *c = &p->chain;
    if (p->shards->config.is_shared || c->first_number >= c->older_number ||
        !base_is_readable(p, c->older_number, scratch) || !base_is_readable(p, c->base_number, scratch))
        return;
    for (int i = 0; i < PRUNE_COUNT_MAX && c->first_number < c->older_number; i++) {
        char key[SHARD_KEY_BYTES_MAX];
        chain_key(p->number, c->first_number, key);
        err e = blob_delete(p->shards->blob, key);
        if (e != OK && e != ERR_NOT_FOUND)
            return; /* the next commit tries again */
        c->first_number++;
    }
}

static err append_base(struct partition *p, struct pool *scratch)
{
    struct chain_entry entry;
    const char *why;
    bool valid;
    TRY(chain_base(&p->chain, scratch, &entry));
    TRY(partition_entry_put(p, &entry, scratch));
    io_mutex_lock(&p->lock);
    err e = chain_fold(&p->chain, &entry, &valid, &why);
    io_mutex_unlock(&p->lock);
    return e;
}

void partition_base(struct partition *p)
{
    struct pool *scratch = pool_open(p->shards->pool, "base", POOL_BYTES_UNLIMITED);
    err e = OK;
    if (p->chain.next_number - p->chain.base_number > p->shards->config.chain_base_count &&
        !p->chain.has_stand_in)
        e = append_base(p, scratch);
    pool_reset(scratch);
    if (e == OK) /* else doing nothing is safe: the chain is a little longer */
        prune(p, scratch);
    pool_close(scratch);
}
