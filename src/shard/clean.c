/* What a partition's chain names, and what of its own store it does not: segments and states of builds and merges
 * that a crash cut short, and what was replaced and not deleted in time. See partition.h, docs/format/manifest.md
 * §5; of a store that nodes share, sweep.c.
 *
 *   at the start ─ list ─ not named by the fold ─→ removed */
#include "shard/partition.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- what is named ---- */

static err add(struct named *named, const uint8_t digest[SHA256_BYTES], uint64_t era)
{
    void *block = named->objects;
    TRY(pool_block_reserve(named->pool, &block, sizeof *named->objects, named->count + 1, &named->capacity));
    named->objects = block;
    struct object_name *name = &named->objects[named->count++];
    memcpy(name->digest, digest, SHA256_BYTES);
    name->era = era;
    return OK;
}

err named_add_segments(struct named *named, const struct chain_segment *segments, size_t count)
{
    for (size_t i = 0; i < count; i++)
        TRY(add(named, segments[i].digest, segments[i].era));
    return OK;
}

err named_add_state(struct named *named, const uint8_t digest[SHA256_BYTES], uint64_t era)
{
    static const uint8_t none[SHA256_BYTES];
    return memcmp(digest, none, SHA256_BYTES) != 0 ? add(named, digest, era) : OK;
}

err named_add_states(struct named *named, const struct chain *chain)
{
    for (int i = 0; i < 2; i++)
        TRY(named_add_state(named, chain->state_digests[i], chain->state_eras[i]));
    return OK;
}

err named_add_chain(struct named *named, const struct chain *chain)
{
    TRY(named_add_segments(named, chain->segments, chain->segment_count));
    return named_add_states(named, chain);
}

static int name_order(const void *a, const void *b)
{
    const struct object_name *x = a, *y = b;
    int order = memcmp(x->digest, y->digest, SHA256_BYTES);
    return order != 0 ? order : (x->era > y->era) - (x->era < y->era);
}

void named_sort(struct named *named)
{
    if (named->count > 1)
        qsort(named->objects, named->count, sizeof *named->objects, name_order);
}

bool named_has(const struct named *named, const struct object_name *name)
{
    return named->count > 0 &&
           bsearch(name, named->objects, named->count, sizeof *named->objects, name_order) != NULL;
}

/* ---- an own store ---- */

static err remove_kind(struct partition *p, const char *kind, const struct named *named, struct pool *scratch)
{
    struct shards *shards = p->shards;
    char prefix[SHARD_KEY_BYTES_MAX];
    struct blob_entry *entries;
    size_t entry_count;
    snprintf(prefix, sizeof prefix, "p%03u/%s", p->number, kind);
    TRY(blob_list(shards->blob, prefix, scratch, &entries, &entry_count));
    for (size_t i = 0; i < entry_count; i++) {
        struct object_name name;
        bool is_object = object_name_parse(strrchr(entries[i].key, '/') + 1, &name);
        if (is_object && !named_has(named, &name)) /* a file of somebody else stays */
            TRY(blob_delete(shards->blob, entries[i].key));
    }
    return OK;
}

err partition_remove_unnamed(struct partition *p)
{
    struct pool *pool = pool_open(p->shards->pool, "clean", POOL_BYTES_UNLIMITED);
    struct named named = { .pool = pool };
    err e = named_add_chain(&named, &p->chain);
    named_sort(&named);
    if (e == OK)
        e = remove_kind(p, "segment", &named, pool);
    if (e == OK)
        e = remove_kind(p, "state", &named, pool);
    pool_close(pool);
    return e;
}
