/* The cache of one target. From: lines of its answers. To: scrape_run.c, which for a known line needs neither
 * to parse labels into a set, nor relabel, nor sort.
 *
 * Lines and series are apart because several texts can mean one series (other order of labels, a label that
 * a rule removes): a series is stale only when none of its texts came.
 *
 * Invariants
 * 1. An item's address is stable until the next trim; between scrapes nobody holds one.
 * 2. is_live says what may be stored, not what was seen: it changes only when rows are handed over, and it stays
 *    when the stale marker was refused.
 * 3. Live series survive a trim whatever their age: their stale marker is still owed.
 *
 * Owner: the worker that runs the target's scrape; handed over under the manager's lock. */
#include "ingest/scrape_cache.h"

#include "base/check.h"
#include "base/hash.h"

#define SLOTS_MIN      64
#define KEEP_SCRAPES   3    /* a line that comes every second scrape stays */
#define TRIM_COUNT_MIN 1000 /* below, garbage is not worth a copy */

struct item {
    uint64_t hash;
    struct slice key;
};

static void **slot_of(const struct cache_table *table, uint64_t hash, struct slice key)
{
    for (size_t i = hash & (table->capacity - 1);; i = (i + 1) & (table->capacity - 1)) {
        const struct item *item = table->slots[i];
        if (item == NULL || (item->hash == hash && slice_equal(item->key, key)))
            return &table->slots[i];
    }
}

static err grow(struct pool *pool, struct cache_table *table)
{
    if (table->capacity != 0 && table->count + 1 <= table->capacity / 4 * 3)
        return OK;
    struct cache_table larger = { .capacity = table->capacity == 0 ? SLOTS_MIN : table->capacity * 2,
                                  .count = table->count };
    TRY(pool_block_resize(pool, (void **)&larger.slots, larger.capacity * sizeof *larger.slots));
    memset(larger.slots, 0, larger.capacity * sizeof *larger.slots);
    for (size_t i = 0; i < table->capacity; i++) {
        struct item *item = table->slots[i];
        if (item != NULL)
            *slot_of(&larger, item->hash, item->key) = item;
    }
    pool_block_free(pool, table->slots);
    *table = larger;
    return OK;
}

/* The item of a key, or a new zeroed one with a copy of the key. */
static err put(struct pool *pool, struct cache_table *table, uint64_t hash, struct slice key,
               size_t item_bytes, void **out_item, bool *out_is_new)
{
    TRY(grow(pool, table));
    void **slot = slot_of(table, hash, key);
    *out_is_new = *slot == NULL;
    if (*slot == NULL) {
        struct item *item;
        struct slice copy;
        TRY(pool_zalloc(pool, item_bytes, (void **)&item));
        TRY(pool_copy(pool, key, &copy));
        item->hash = hash;
        item->key = copy;
        *slot = item;
        table->count++;
    }
    *out_item = *slot;
    return OK;
}

err scrape_cache_open(struct pool *parent, uint64_t seed, struct scrape_cache *out_cache)
{
    struct scrape_cache cache = { .parent = parent, .seed = seed };
    cache.pool = pool_open(parent, "scrape_cache", POOL_BYTES_UNLIMITED);
    err e = grow(cache.pool, &cache.lines);
    if (e == OK)
        e = grow(cache.pool, &cache.series);
    if (e == OK)
        e = grow(cache.pool, &cache.families);
    if (e != OK)
        pool_close(cache.pool);
    else
        *out_cache = cache;
    return e;
}

void scrape_cache_close(struct scrape_cache *cache)
{
    pool_close(cache->pool);
    *cache = (struct scrape_cache){ 0 };
}

void scrape_cache_begin(struct scrape_cache *cache) { cache->scrape++; }

struct cache_line *scrape_cache_line(struct scrape_cache *cache, struct slice text, struct cache_line *guess)
{
    if (guess != NULL && slice_equal(guess->key, text))
        return guess;
    return *slot_of(&cache->lines, hash64(text, cache->seed), text);
}

struct cache_series *scrape_cache_series(const struct scrape_cache *cache, struct slice labels)
{
    return *slot_of(&cache->series, hash64(labels, cache->seed), labels);
}

err scrape_cache_add(struct scrape_cache *cache, struct slice text, const struct slice *labels,
                     struct cache_line **out_line, bool *out_is_new)
{
    struct cache_series *series = NULL;
    bool is_new_line;
    *out_is_new = false;
    if (labels != NULL)
        TRY(put(cache->pool, &cache->series, hash64(*labels, cache->seed), *labels, sizeof *series,
                (void **)&series, out_is_new));
    TRY(put(cache->pool, &cache->lines, hash64(text, cache->seed), text, sizeof **out_line, (void **)out_line,
            &is_new_line));
    (*out_line)->series = series;
    return OK;
}

err scrape_cache_family(struct scrape_cache *cache, struct slice family, struct cache_family **out_family)
{
    bool is_new;
    return put(cache->pool, &cache->families, hash64(family, cache->seed), family, sizeof **out_family,
               (void **)out_family, &is_new);
}

static bool is_kept(const struct scrape_cache *cache, const struct cache_series *series)
{
    return series->is_live || series->seen + KEEP_SCRAPES > cache->scrape;
}

static err copy_series(const struct scrape_cache *cache, struct scrape_cache *fresh)
{
    bool is_new;
    for (size_t i = 0; i < cache->series.capacity; i++) {
        const struct cache_series *series = cache->series.slots[i];
        struct cache_series *copy;
        if (series == NULL || !is_kept(cache, series))
            continue;
        TRY(put(fresh->pool, &fresh->series, series->hash, series->key, sizeof *copy, (void **)&copy,
                &is_new));
        struct slice key = copy->key;
        *copy = *series;
        copy->key = key;
    }
    return OK;
}

static err copy_lines(const struct scrape_cache *cache, struct scrape_cache *fresh)
{
    bool is_new;
    for (size_t i = 0; i < cache->lines.capacity; i++) {
        const struct cache_line *line = cache->lines.slots[i];
        struct cache_line *copy;
        if (line == NULL || line->seen + KEEP_SCRAPES <= cache->scrape)
            continue;
        TRY(put(fresh->pool, &fresh->lines, line->hash, line->key, sizeof *copy, (void **)&copy, &is_new));
        copy->seen = line->seen;
        if (line->series != NULL) {
            copy->series = *slot_of(&fresh->series, line->series->hash, line->series->key);
            check(copy->series != NULL); /* a line seen lately keeps its series seen lately */
        }
    }
    return OK;
}

/* Go on with a copy of what is kept. Families are handed on anew, which is harmless. */
static err renew(struct scrape_cache *cache, bool with_lines)
{
    struct scrape_cache fresh;
    TRY(scrape_cache_open(cache->parent, cache->seed, &fresh));
    fresh.scrape = cache->scrape;
    err e = copy_series(cache, &fresh);
    if (e == OK && with_lines)
        e = copy_lines(cache, &fresh);
    if (e != OK) {
        scrape_cache_close(&fresh);
        return e;
    }
    scrape_cache_close(cache);
    *cache = fresh;
    return OK;
}

err scrape_cache_relearn(struct scrape_cache *cache) { return renew(cache, false); }

err scrape_cache_trim(struct scrape_cache *cache)
{
    size_t kept = 0;
    if (cache->lines.count < TRIM_COUNT_MIN)
        return OK;
    for (size_t i = 0; i < cache->lines.capacity; i++) {
        const struct cache_line *line = cache->lines.slots[i];
        kept += line != NULL && line->seen + KEEP_SCRAPES > cache->scrape;
    }
    if (kept * 2 > cache->lines.count)
        return OK;
    return renew(cache, true);
}
