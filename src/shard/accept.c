/* A person accepts what is lost: answers are complete again, and the loss stays listed. See shard.h.
 *
 * Everything applied is cut and committed first, so that all losses are in the chain; then an entry of the chain
 * names exactly those that are accepted, segments that cannot be opened among them. What is lost later, also
 * of the same offsets, is a new loss and named.
 *
 * Invariant: only what the entry names is accepted, and the entry is durable before an answer leaves it out. */
#include "shard/partition.h"

#include "base/diag.h"

/* Fill the entry with what is lost and not accepted yet. Under chain_lock: nothing changes the chain. */
static err gather_losses(struct partition *p, struct pool *pool, struct chain_entry *entry)
{
    void *at;
    TRY(pool_zalloc(pool, p->chain.loss_count * sizeof *entry->losses + 1, &at));
    entry->losses = at;
    for (size_t i = 0; i < p->chain.loss_count; i++)
        if (!p->chain.losses[i].accepted)
            entry->losses[entry->loss_count++] = p->chain.losses[i];
    TRY(pool_zalloc(pool, p->segment_count * SHA256_BYTES + 1, &at));
    entry->inputs = at;
    for (size_t i = 0; i < p->segment_count; i++) {
        struct metric_compact *compact;
        err e = live_segment_use(p->segments[i], &compact);
        if (e == ERR_IO || e == ERR_LIMIT)
            return e; /* that may pass */
        if (e != OK)
            memcpy(entry->inputs[entry->input_count++], p->segments[i]->facts.digest, SHA256_BYTES);
    }
    return OK;
}

static err accept_partition(struct partition *p, struct shards_accepted *accepted)
{
    struct pool *pool = pool_open(p->shards->pool, "accept", POOL_BYTES_UNLIMITED);
    struct chain_entry entry = { .kind = CHAIN_ACCEPT, .end = p->chain.end };
    bool valid = false;
    uint64_t waiting = 0;
    err e = OK;
    io_mutex_lock(&p->chain_lock);
    TRY_OUT(gather_losses(p, pool, &entry));
    io_mutex_lock(&p->lock);
    for (size_t i = 0; i < p->unresolved_count; i++) {
        const struct producer *producer = &p->producers[p->unresolved[i].incarnation];
        waiting += producer->is_dead && position_compare(producer->last, p->chain.accepted_end) >= 0;
    }
    io_mutex_unlock(&p->lock);
    if (entry.loss_count + entry.input_count + waiting == 0)
        goto out;
    TRY_OUT(partition_entry_append(p, &entry, &valid));
    io_mutex_lock(&p->lock);
    e = partition_segments_sync(p);
    io_mutex_unlock(&p->lock);
    accepted->loss_count += entry.loss_count;
    accepted->segment_count += entry.input_count;
    accepted->waiting_row_count += waiting;
    diag(DIAG_WARN, "A person accepted losses.",
         "partition=%u losses=%zu segments=%zu rows_without_labels=%llu", p->number, entry.loss_count,
         entry.input_count, (unsigned long long)waiting);
out:
    io_mutex_unlock(&p->chain_lock);
    pool_close(pool);
    partition_doomed_release(p);
    return e;
}

err shards_losses_accept(struct shards *shards, int64_t deadline_ns, struct shards_accepted *out_accepted)
{
    struct shards_accepted accepted = { 0 };
    TRY(shards_cut_all(shards, deadline_ns));
    for (uint32_t i = 0; i < shards->config.partition_count; i++) {
        struct partition *p = &shards->partitions[i];
        if (!partition_pin(p))
            continue;
        err e = accept_partition(p, &accepted);
        partition_unpin(p);
        TRY(e);
    }
    *out_accepted = accepted;
    return OK;
}
