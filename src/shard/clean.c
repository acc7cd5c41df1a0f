/* What no entry of a partition's chain names, and how it goes: segments and states of builds and merges that
 * came to nothing, and what merges, retention and later commits replaced. See partition.h,
 * docs/format/manifest.md §5, §8.
 *
 *   own store     at the start ─ list ─ not named by the fold ─→ removed
 *   shared store  by rank 0, each SWEEP_NS ─ list of entries ─→ the store's time, and the time a day before it
 *                   ─ all that is named by the last base of before then, and by every entry since
 *                   ─ list of objects ─ not named, and put before then ─→ removed
 *
 * Invariants
 *  1. What was live at any time of the last day stays: queries, and replicas that are behind, read it.
 *  2. What was put in the last day stays: somebody may be about to name it. Who names an object put it less
 *     than half a day ago, and waits where an old one was there already, which may be on its way out (commit.c).
 *  3. Days are the store's, and its present is the time of the newest entry. A chain that rests is not swept.
 *  4. Entries of a shared store are never removed: a writer that slept could win the number again.
 *  5. In doubt nothing goes: while the owner says so, where an entry cannot be read, after one was lost. Such
 *     a sweep is skipped and counted, and the next one does its work. */
#include "shard/partition.h"

#include "base/diag.h"
#include "base/stat.h"

#include <stdio.h>
#include <stdlib.h>

#define DAY_MS    (24 * MS_PER_HOUR)
#define BACK_MAX  4096                 /* entries from a day ago back to a base */
#define COUNT_MAX 1024                 /* objects that one sweep removes */
#define LISTED_NS (30 * NS_PER_SECOND) /* so long a list of objects is believed */

/* ---- what is named ---- */

static err add(struct named *named, const uint8_t digest[SHA256_BYTES])
{
    TRY(pool_block_reserve(named->pool, (void **)&named->digests, SHA256_BYTES, named->count + 1,
                           &named->capacity));
    memcpy(named->digests[named->count++], digest, SHA256_BYTES);
    return OK;
}

err named_add_chain(struct named *named, const struct chain *chain)
{
    for (size_t i = 0; i < chain->segment_count; i++)
        TRY(add(named, chain->segments[i].digest));
    for (int i = 0; i < 2; i++)
        TRY(add(named, chain->state_digests[i]));
    return OK;
}

static err add_entry(struct named *named, const struct chain_entry *entry)
{
    for (size_t i = 0; i < entry->segment_count; i++)
        TRY(add(named, entry->segments[i].digest));
    TRY(add(named, entry->state_digest));
    return add(named, entry->older_state_digest);
}

static int digest_order(const void *a, const void *b) { return memcmp(a, b, SHA256_BYTES); }

void named_sort(struct named *named)
{
    if (named->count > 1)
        qsort(named->digests, named->count, SHA256_BYTES, digest_order);
}

bool named_has(const struct named *named, const char *key)
{
    uint8_t digest[SHA256_BYTES];
    const char *name = strrchr(key, '/');
    return named->count > 0 && name != NULL && digest_parse(name + 1, digest) &&
           bsearch(digest, named->digests, named->count, SHA256_BYTES, digest_order) != NULL;
}

/* ---- removing ---- */

/* Objects of one kind that were put before before_ms; INT64_MAX: whenever. */
static err remove_kind(struct partition *p, const char *kind, const struct named *named, int64_t before_ms,
                       struct pool *scratch, size_t *count)
{
    struct shards *shards = p->shards;
    bool is_swept = before_ms != INT64_MAX;
    char prefix[SHARD_KEY_BYTES_MAX];
    struct blob_entry *entries;
    size_t entry_count;
    int64_t listed_ns = io_monotonic_ns(shards->io);
    snprintf(prefix, sizeof prefix, "p%03u/%s", p->number, kind);
    TRY(blob_list(shards->blob, prefix, scratch, &entries, &entry_count));
    for (size_t i = 0; i < entry_count; i++) {
        bool is_young = is_swept && (entries[i].t_ms == 0 || entries[i].t_ms >= before_ms);
        if (is_young || named_has(named, entries[i].key) || /* a file of somebody else stays */
            !shard_is_object(entries[i].key, shards->config.partition_count))
            continue;
        if (is_swept && (*count >= COUNT_MAX || io_monotonic_ns(shards->io) - listed_ns >= LISTED_NS))
            break; /* the next sweep goes on */
        err e = blob_delete(shards->blob, entries[i].key);
        TRY(is_swept && e == ERR_NOT_FOUND ? OK : e);
        ++*count;
    }
    return OK;
}

static err remove_unnamed(struct partition *p, const struct named *named, int64_t before_ms, size_t *count)
{
    struct pool *scratch = pool_open(p->shards->pool, "clean", POOL_BYTES_UNLIMITED);
    err e = remove_kind(p, "segment", named, before_ms, scratch, count);
    if (e == OK)
        e = remove_kind(p, "state", named, before_ms, scratch, count);
    pool_close(scratch);
    return e;
}

err partition_remove_unnamed(struct partition *p)
{
    struct named named = { .pool = pool_open(p->shards->pool, "named", POOL_BYTES_UNLIMITED) };
    size_t count = 0;
    err e = named_add_chain(&named, &p->chain);
    named_sort(&named);
    if (e == OK)
        e = remove_unnamed(p, &named, INT64_MAX, &count);
    pool_close(named.pool);
    return e;
}

/* ---- a shared store ---- */

err partition_present(struct partition *p, struct pool *pool, struct blob_entry **out_entries,
                      size_t *out_count, int64_t *out_ms)
{
    char prefix[SHARD_KEY_BYTES_MAX];
    int64_t newest_ms = 0;
    snprintf(prefix, sizeof prefix, "p%03u/chain", p->number);
    TRY(blob_list(p->shards->blob, prefix, pool, out_entries, out_count));
    for (size_t i = 0; i < *out_count; i++)
        newest_ms = (*out_entries)[i].t_ms > newest_ms ? (*out_entries)[i].t_ms : newest_ms;
    *out_ms = newest_ms;
    return OK;
}

/* Which entries there are, and up to which they are older than before_ms. */
struct span {
    uint64_t first, last, old; /* numbers; old 0: none is */
};

static struct span span_of(const struct blob_entry *entries, size_t count, int64_t before_ms)
{
    struct span span = { 0 };
    bool is_old = true;
    for (size_t i = 0; i < count; i++) {
        uint64_t number = chain_number_parse(strrchr(entries[i].key, '/') + 1);
        if (number == 0)
            continue;
        span.first = span.first == 0 ? number : span.first;
        span.last = number;
        is_old = is_old && entries[i].t_ms != 0 && entries[i].t_ms < before_ms;
        span.old = is_old ? number : span.old;
    }
    return span;
}

static err add_number(struct partition *p, uint64_t number, struct named *named, bool *out_is_base)
{
    struct pool *scratch = pool_open(p->shards->pool, "entry", POOL_BYTES_UNLIMITED);
    struct slice bytes;
    struct chain_entry entry;
    err e = partition_entry_read(p, number, scratch, &bytes, &entry);
    if (e == OK && (entry.number != number || entry.partition != p->number))
        e = ERR_CORRUPT;
    if (e == OK)
        e = add_entry(named, &entry);
    *out_is_base = e == OK && entry.kind == CHAIN_BASE;
    pool_close(scratch);
    return e;
}

/* Everything that was live in the last day, and since when that is. ERR_NOT_FOUND: the chain is younger. */
static err name_the_day(struct partition *p, struct named *named, int64_t *out_before_ms)
{
    struct pool *scratch = pool_open(p->shards->pool, "sweep", POOL_BYTES_UNLIMITED);
    struct blob_entry *entries;
    size_t count;
    int64_t present_ms;
    bool is_base = false;
    err e = OK;
    TRY_OUT(partition_present(p, scratch, &entries, &count, &present_ms));
    struct span span = span_of(entries, count, present_ms - DAY_MS);
    if (span.old == 0)
        TRY_OUT(ERR_NOT_FOUND);
    if (span.last + 1 < p->chain.next_number)
        TRY_OUT(ERR_CORRUPT); /* what is folded here is not in the list */
    for (uint64_t number = span.old; !is_base && number >= span.first; number--) {
        if (span.old - number == BACK_MAX)
            TRY_OUT(ERR_LIMIT);
        TRY_OUT(add_number(p, number, named, &is_base));
    }
    if (!is_base && span.first != 1)
        TRY_OUT(ERR_CORRUPT); /* what its first entries named is not known */
    for (uint64_t number = span.old + 1; number <= span.last; number++)
        TRY_OUT(add_number(p, number, named, &is_base));
    TRY_OUT(named_add_chain(named, &p->chain));
    named_sort(named);
    *out_before_ms = present_ms - DAY_MS;
out:
    pool_close(scratch);
    return e;
}

bool partition_sweep(struct partition *p)
{
    const struct shards_config *config = &p->shards->config;
    struct named named = { .pool = pool_open(p->shards->pool, "named", POOL_BYTES_UNLIMITED) };
    size_t count = 0;
    int64_t before_ms;
    err e = ERR_BUSY;
    io_mutex_lock(&p->chain_lock);
    bool is_doubtful = p->chain.lost_count > 0 || p->chain.has_stand_in;
    if (!is_doubtful && config->may_sweep(config->sweep_context, p->number))
        e = name_the_day(p, &named, &before_ms);
    if (e == OK)
        e = remove_unnamed(p, &named, before_ms, &count);
    io_mutex_unlock(&p->chain_lock);
    pool_close(named.pool);
    stat_add(STAT_SHARD_OBJECTS_REMOVED, (int64_t)count);
    if (e != OK && e != ERR_NOT_FOUND) {
        stat_add(STAT_SHARD_SWEEPS_SKIPPED, 1);
        diag(DIAG_DEBUG, "What no manifest names stays in the store for now.", "partition=%u error=\"%s\"",
             p->number, err_text(e));
    }
    if (count > 0)
        diag(DIAG_DEBUG, "Objects that no manifest named for a day were removed.", "partition=%u objects=%zu",
             p->number, count);
    return count > 0;
}
