/* The ground of sweep_simtest.c, replicas over a log in memory and a store behind late_blob.h, and its oracle:
 * when each object was named last by whoever knew all of the chain. Test only. */
#ifndef SIM_SWEEPS_H
#define SIM_SWEEPS_H

#include "sim/late_blob.h"
#include "sim/replicas_memory.h"

#define HOUR_NS (3600 * NS_PER_SECOND)

/* ---- the ground ---- */

static struct late late;          /* of the life that runs */
static uint32_t stepping;         /* the replica that makes a step */
static int asleep[REPLICA_COUNT]; /* for so many hours more */
static bool is_nested;
static int sleep_hours;     /* the next sleep in a call */
static int64_t appended_ns; /* when something was written last (monotonic) */

static void wrap(struct life *l)
{
    late = (struct late){
        .base.driver = &late_driver, .inner = l->w.blob, .io = l->w.io, .random = &l->w.random
    };
    l->w.blob = &late.base;
    memset(asleep, 0, sizeof asleep);
    is_nested = false;
    appended_ns = 0;
}

static struct ground swept_ground(void)
{
    struct ground ground = memory;
    ground.wrap = wrap;
    return ground;
}

/* ---- when objects were named ---- */

#define OBJECTS_MAX 8192

/* When any replica's chain named an object last. */
static struct {
    char key[SHARD_KEY_BYTES_MAX];
    int64_t named_ns; /* monotonic */
    int kind;         /* as list_kind */
} named[OBJECTS_MAX];
static size_t named_count;

static int64_t *named_at(const char *key)
{
    size_t i = 0;
    while (i < named_count && strcmp(named[i].key, key) != 0)
        i++;
    return i < named_count ? &named[i].named_ns : NULL;
}

static void note(const char *key, int kind, int64_t now_ns)
{
    int64_t *at = named_at(key);
    if (at == NULL) {
        assert_true(named_count < OBJECTS_MAX);
        snprintf(named[named_count].key, sizeof named[0].key, "%s", key);
        named[named_count].kind = kind;
        at = &named[named_count++].named_ns;
    }
    *at = now_ns;
}

/* Everything below "p000/segment", "p000/state", "p001/segment" and so on. */
static size_t list_kind(int kind, struct pool *pool, struct blob_entry **out_entries)
{
    char prefix[SHARD_KEY_BYTES_MAX];
    size_t count;
    snprintf(prefix, sizeof prefix, "p%03d/%s", kind / 2, kind % 2 == 0 ? "segment" : "state");
    assert_ok(blob_list(late.inner, prefix, pool, out_entries, &count));
    return count;
}

static int key_order(const void *key, const void *entry)
{
    return strcmp(key, ((const struct blob_entry *)entry)->key);
}

static void note_chain(const struct chain *c, int64_t now_ns)
{
    static const uint8_t none[SHA256_BYTES];
    char key[SHARD_KEY_BYTES_MAX];
    for (size_t i = 0; i < c->segment_count; i++) {
        segment_key(c->partition, c->segments[i].digest, c->segments[i].era, key);
        note(key, 2 * (int)c->partition, now_ns);
    }
    for (int i = 0; i < 2; i++)
        if (memcmp(c->state_digests[i], none, SHA256_BYTES) != 0) {
            state_key(c->partition, c->state_digests[i], c->state_eras[i], key);
            note(key, 2 * (int)c->partition + 1, now_ns);
        }
}

/* Only the fold of one that is up to date counts: one that sleeps finds things gone, and then looks again. */
static const struct chain *chain_of_all(struct life *l, uint32_t partition)
{
    for (uint32_t k = 0; k < REPLICA_COUNT; k++) {
        const struct chain *c = &l->replicas[k].shards->partitions[partition].chain;
        char next[SHARD_KEY_BYTES_MAX];
        uint64_t size;
        if (shards_partition_status(l->replicas[k].shards, partition).stage != SHARD_OPEN)
            continue;
        chain_key(partition, c->next_number, next);
        if (blob_size(late.inner, next, &size) == ERR_NOT_FOUND)
            return c;
    }
    return NULL;
}

static const char *check_named(struct life *l)
{
    int64_t now_ns = io_monotonic_ns(l->w.io);
    for (uint32_t p = 0; p < WORLD_PARTITIONS; p++) {
        const struct chain *c = chain_of_all(l, p);
        if (c != NULL)
            note_chain(c, now_ns);
    }
    struct pool *pool = pool_open(NULL, "lists", POOL_BYTES_UNLIMITED);
    const char *wrong = NULL;
    for (int i = 0; i < 2 * WORLD_PARTITIONS && wrong == NULL; i++) {
        struct blob_entry *entries;
        size_t count = list_kind(i, pool, &entries);
        for (size_t k = 0; k < named_count && wrong == NULL; k++)
            if (named[k].kind == i && named[k].named_ns >= now_ns - 23 * HOUR_NS &&
                (count == 0 || bsearch(named[k].key, entries, count, sizeof *entries, key_order) == NULL))
                wrong = "an object that was named in the last day is gone";
    }
    pool_close(pool);
    return wrong;
}

static size_t count_objects(const char *prefix)
{
    struct pool *pool = pool_open(NULL, "list", POOL_BYTES_UNLIMITED);
    struct blob_entry *entries;
    size_t count;
    assert_ok(blob_list(late.inner, prefix, pool, &entries, &count));
    pool_close(pool);
    return count;
}

/* What nobody named for much longer than three eras is not there. */
static const char *check_left(struct life *l)
{
    int64_t now_ns = io_monotonic_ns(l->w.io);
    for (int i = 0; i < 2 * WORLD_PARTITIONS; i++) {
        struct blob_entry *entries;
        size_t count = list_kind(i, l->w.pool, &entries);
        for (size_t e = 0; e < count; e++) {
            const int64_t *at = named_at(entries[e].key);
            int64_t age_ns = at != NULL ? now_ns - *at : (io_now_ms(l->w.io) - entries[e].t_ms) * NS_PER_MS;
            if (age_ns > 55 * HOUR_NS)
                return "an object that nobody names is left";
        }
    }
    return NULL;
}

#endif
