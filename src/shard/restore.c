/* Chains whose log is gone: they go on in a generation of their own. See shard.h.
 *
 *   snapshot of one node   all chains ─→ GENERATION{g + 1, 0}, nothing lost
 *   bucket of a cluster    one chain  ─→ GENERATION{g + 1, 0} with what is lost ─→ ACCEPT, if a person accepts it
 *
 * Invariants
 *  1. A restored chain goes on in the next generation at offset 0: no position of the log it came from is given
 *     again.
 *  2. Of a shared store entries are put if absent and never changed; whoever finds a number taken folds what is
 *     there and looks again. So the same call, repeated after whatever crash, appends nothing twice.
 *  3. Nobody can tell how far a log reached that is gone: the loss has a beginning, and times up to now. */
#include "shard/partition.h"

#include <stdio.h>

#define TRIES_MAX 100 /* of an append that finds its number taken: nobody else should be there at all */

struct restorer {
    const struct shards_config *config;
    struct io *io;
    struct blob *blob;
    struct pool *pool;
    bool takes_unreadable;
    const struct shard_report *report;
    struct shard_check check; /* of it only the damages */
};

static void tell_entry(void *context, const struct chain_entry *in_place, err why)
{
    struct restorer *r = context;
    shard_tell_stand_in(r->report, &r->check, "is", in_place, why);
}

static err read_chain(struct restorer *r, uint32_t partition, struct chain *out_chain, struct err_at *at)
{
    struct chain_reader reader = { .config = r->config,
                                   .io = r->io,
                                   .blob = r->blob,
                                   .pool = r->pool,
                                   .partition = partition,
                                   .log_start = UINT64_MAX,
                                   .now_ms = io_now_ms(r->io),
                                   .mends_io = r->takes_unreadable,
                                   .damaged = tell_entry,
                                   .context = r };
    *out_chain = chain_open(r->pool, partition, (struct log_position){ .generation = 1 });
    return shard_chain_read(&reader, out_chain, at);
}

err shard_entry_put(struct io *io, struct blob *blob, const struct chain *chain, struct chain_entry *entry,
                    struct pool *pool)
{
    char key[SHARD_KEY_BYTES_MAX];
    struct buf bytes = buf_open(pool, CHAIN_ENTRY_BYTES_MAX);
    entry->partition = chain->partition;
    entry->number = chain->next_number;
    entry->leader_epoch = LOG_EPOCH_NONE;
    entry->written_ms = io_now_ms(io);
    chain_key(chain->partition, entry->number, key);
    err e = chain_entry_encode(entry, &bytes);
    if (e == OK)
        e = blob_put(blob, key, buf_slice(&bytes));
    buf_close(&bytes);
    return e;
}

static err put_entry(struct restorer *r, const struct chain *chain, struct chain_entry *entry)
{
    return shard_entry_put(r->io, r->blob, chain, entry, r->pool);
}

static struct chain_entry next_generation(const struct chain *chain)
{
    return (struct chain_entry){ .kind = CHAIN_GENERATION, .end = { chain->end.generation + 1, 0 } };
}

/* ---- all chains of a snapshot ---- */

static err restore_partition(struct restorer *r, uint32_t partition, int64_t *data_through_ms,
                             struct err_at *at)
{
    struct chain chain;
    err e = read_chain(r, partition, &chain, at);
    if (e == OK && chain.data_through_ms > *data_through_ms)
        *data_through_ms = chain.data_through_ms;
    if (e == OK && chain.next_number > 1 && chain.end.offset > 0) {
        struct chain_entry entry = next_generation(&chain);
        e = put_entry(r, &chain, &entry);
    }
    chain_close(&chain);
    return e;
}

err shard_restore(const struct shards_config *config, struct io *io, struct blob *blob, struct pool *pool,
                  bool takes_unreadable, const struct shard_report *report,
                  struct shard_restored *out_restored, struct err_at *at)
{
    struct restorer r = { config, io, blob, pool, takes_unreadable, report, { 0 } };
    int64_t data_through_ms = INT64_MIN;
    for (uint32_t i = 0; i < config->partition_count; i++)
        TRY(restore_partition(&r, i, &data_through_ms, at));
    *out_restored = (struct shard_restored){ data_through_ms, r.check.damage_count };
    return OK;
}

/* ---- a chain of a shared store ---- */

/* When the store's newest entry of the partition was put, by the store's clock. */
static err newest_entry(struct restorer *r, uint32_t partition, int64_t *out_ms)
{
    char prefix[SHARD_KEY_BYTES_MAX];
    struct blob_entry *entries;
    size_t count;
    *out_ms = 0;
    snprintf(prefix, sizeof prefix, "p%03u/chain", partition);
    TRY(blob_list(r->blob, prefix, r->pool, &entries, &count));
    for (size_t i = 0; i < count; i++)
        *out_ms = entries[i].t_ms > *out_ms ? entries[i].t_ms : *out_ms;
    return OK;
}

struct shard_facts shard_facts_of(const struct chain *chain)
{
    struct shard_facts facts = { .last_number = chain->next_number - 1,
                                 .generation = chain->end.generation,
                                 .end_offset = chain->end.offset,
                                 .data_through_ms = chain->data_through_ms,
                                 .segment_count = chain->segment_count,
                                 .row_count = chain_stored_sum(chain).count };
    for (size_t i = 0; i < chain->segment_count; i++)
        facts.segment_bytes += chain->segments[i].bytes;
    return facts;
}

err shard_facts(const struct shards_config *config, struct io *io, struct blob *blob, struct pool *pool,
                uint32_t partition, const struct shard_report *report, struct shard_facts *out_facts,
                struct err_at *at)
{
    struct pool *scratch = pool_open(pool, "facts", POOL_BYTES_UNLIMITED);
    struct restorer r = { config, io, blob, scratch, false, report, { 0 } };
    struct chain chain;
    int64_t newest_ms;
    err e = read_chain(&r, partition, &chain, at);
    if (e == OK)
        e = newest_entry(&r, partition, &newest_ms);
    if (e == OK) {
        *out_facts = shard_facts_of(&chain);
        out_facts->newest_ms = newest_ms;
        out_facts->damage_count = r.check.damage_count;
    }
    chain_close(&chain);
    pool_close(scratch);
    return e;
}

/* The loss that the generation named, not accepted yet; or NULL. Its times tell whose it is: nobody else's end in
 * the same millisecond. */
static const struct chain_loss *open_loss(const struct chain *chain, const struct shard_revival *wanted)
{
    int64_t max_ms = wanted->lost_until_ms + SHARD_LOSS_BEHIND_MS;
    for (size_t i = 0; i < chain->loss_count; i++) {
        const struct chain_loss *loss = &chain->losses[i];
        if (loss->kind == LOSS_LOG && !loss->accepted && loss->range.max_ms == max_ms)
            return loss;
    }
    return NULL;
}

/* The next entry that the chain lacks. False: it lacks none. */
static bool lacks(const struct chain *chain, const struct shard_revival *wanted, struct chain_loss *loss,
                  struct chain_entry *out_entry)
{
    if (chain->end.generation < wanted->generation || chain->end.offset != 0) {
        *loss = (struct chain_loss){
            .kind = LOSS_LOG,
            .from = chain->end,
            .to = chain->end,
            .range = { TIME_MS_MIN, wanted->lost_until_ms + SHARD_LOSS_BEHIND_MS },
        };
        *out_entry = next_generation(chain);
        out_entry->losses = loss;
        out_entry->loss_count = wanted->names_loss;
        return true;
    }
    const struct chain_loss *open = wanted->accepts_loss ? open_loss(chain, wanted) : NULL;
    if (open == NULL)
        return false;
    *loss = *open;
    *out_entry = (struct chain_entry){ .kind = CHAIN_ACCEPT, .losses = loss, .loss_count = 1 };
    return true;
}

err shard_revive(const struct shards_config *config, struct io *io, struct blob *blob, struct pool *pool,
                 uint32_t partition, const struct shard_revival *wanted, struct err_at *at)
{
    err e = ERR_BUSY;
    bool is_done = false;
    for (int i = 0; i < TRIES_MAX && !is_done && (e == OK || e == ERR_BUSY); i++) {
        struct pool *scratch = pool_open(pool, "revive", POOL_BYTES_UNLIMITED);
        struct restorer r = { config, io, blob, scratch, false, NULL, { 0 } };
        struct chain chain;
        struct chain_entry entry;
        struct chain_loss loss;
        e = read_chain(&r, partition, &chain, at);
        if (e == OK && !lacks(&chain, wanted, &loss, &entry)) {
            is_done = true;
        } else if (e == OK) {
            e = put_entry(&r, &chain, &entry);
            e = e == ERR_EXISTS ? ERR_BUSY : e; /* as after each entry: what is there now is looked at */
        }
        chain_close(&chain);
        pool_close(scratch);
    }
    if (is_done)
        return OK;
    return e != OK && e != ERR_BUSY && at != NULL && at->text[0] != '\0'
               ? e
               : err_set(at, e == OK ? ERR_BUSY : e, "the chain of partition %u cannot be appended to: %s",
                         partition,
                         e == OK || e == ERR_BUSY ? "somebody else appends all the time" : err_text(e));
}
