/* What a target said last time: raw series text → labels as stored, and which series are alive. */
#ifndef INGEST_SCRAPE_CACHE_H
#define INGEST_SCRAPE_CACHE_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct cache_series {
    uint64_t hash;          /* of key; these two first, as in every item of a table */
    struct slice key;       /* canonical labels */
    uint64_t seen;          /* the last scrape that had it */
    uint64_t exemplar_hash; /* of the last exemplar that was handed on, 0 = none */
    bool is_tracked;        /* in that scrape: a stale marker is due when it goes */
    bool is_live;           /* its newest row is not a stale marker */
};

struct cache_line {
    uint64_t hash;
    struct slice key;            /* the text of name and labels */
    struct cache_series *series; /* NULL: dropped by a rule */
    struct cache_line *next;     /* the line that followed last time: a guess that saves hashing */
    uint64_t seen;
};

struct cache_family {
    uint64_t hash;
    struct slice key;       /* metric family */
    uint64_t metadata_hash; /* what was last handed on */
};

struct cache_table {
    void **slots; /* a power of two, at most 3/4 full */
    size_t capacity;
    size_t count;
};

struct scrape_cache {
    struct pool *parent;
    struct pool *pool; /* items, texts, slots */
    uint64_t seed;
    struct cache_table lines, series, families;
    uint64_t scrape; /* number of the scrape in work, from 1 */
};

err scrape_cache_open(struct pool *parent, uint64_t seed, struct scrape_cache *out_cache);
void scrape_cache_close(struct scrape_cache *cache);

/* A new scrape begins. */
void scrape_cache_begin(struct scrape_cache *cache);

/* The line of a text, NULL when new. guess: what may follow, or NULL. */
struct cache_line *scrape_cache_line(struct scrape_cache *cache, struct slice text, struct cache_line *guess);

/* The series of canonical labels, NULL when there is none. */
struct cache_series *scrape_cache_series(const struct scrape_cache *cache, struct slice labels);

/* Add a text with its labels (dropped: NULL). *out_is_new: the series was not there. ERR_LIMIT. */
err scrape_cache_add(struct scrape_cache *cache, struct slice text, const struct slice *labels,
                     struct cache_line **out_line, bool *out_is_new);

/* The entry of a metric family, made when new. ERR_LIMIT. */
err scrape_cache_family(struct scrape_cache *cache, struct slice family, struct cache_family **out_family);

/* The lines may mean other series from now on: forget what they meant. Series that are live stay, for their stale
 * markers are owed if they do not come again. ERR_LIMIT: nothing forgotten. */
err scrape_cache_relearn(struct scrape_cache *cache);

/* Forget what was not seen for some scrapes once it is the larger part. ERR_LIMIT: nothing forgotten. */
err scrape_cache_trim(struct scrape_cache *cache);

#endif
