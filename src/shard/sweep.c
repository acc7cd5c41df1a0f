/* Sweeps of a store that nodes share: what no manifest names goes, a day later, and by no clock that a store or
 * another node has. See partition.h, docs/format/manifest.md §8, docs/decisions/0022-sweeping-a-shared-store.md.
 *
 *   rank 0, ERA_NS after it met the present era in the chain ─→ an ERA entry: the next one begins
 *   rank 0, once in an era ─ entries ─→ all that was named since the era before the last began
 *                          ─ lists ──→ objects of eras before the last that are not among it
 *                          ─ deletes ─→ they go, a few at a time
 *
 * Invariants
 *  1. What goes is named by nobody and never will be: the fold refuses to name it (chain_fold.c, 5). So it does
 *     not matter how old a list is, how long this process slept, who sweeps beside it, or when a delete arrives.
 *  2. What was live at any time of the last two eras stays, which is a day at least by the boot clocks of those
 *     who began them: queries, replicas that are behind and openings read it. So does all that a hold was put for
 *     within them.
 *  3. A list that lacks what the fold names is not of this chain, or the store lost something: nothing goes, and
 *     people are told.
 *  4. In doubt nothing goes: while the owner says so or a hold stands, where an entry cannot be read, after one
 *     was lost. Such a sweep is given up and counted, and another is made later.
 *  5. Entries of a shared store are never removed: a writer that slept could win the number again.
 *  6. A step does a bounded piece, and holds nothing that commits, merges or queries wait for. */
#include "base/diag.h"
#include "base/stat.h"

#include "shard/partition.h"

#include <stdio.h>
#include <stdlib.h>

#define HOUR_NS        (3600 * NS_PER_SECOND)
#define ERA_NS         (12 * HOUR_NS) /* at least: what was named in one of the last two stays, for a day */
#define FIRST_NS       HOUR_NS        /* after a partition was opened */
#define LOOK_NS        (600 * NS_PER_SECOND)
#define AGAIN_NS       HOUR_NS /* after one that was given up */
#define IDLE_NS        NS_PER_SECOND
#define BACK_MAX       65536 /* entries from the beginning of an era back to a base */
#define READ_COUNT     64    /* entries of a step */
#define REMOVE_COUNT   16    /* objects of a step, for which holds are looked at once */
#define REMOVE_MAX     8192  /* objects of a sweep; the next one follows at once */
#define HOLD_BYTES_MAX 64

/* ---- holds ---- */

/* Seconds since 1970 in decimal, and maybe a newline. False: it has no end that one could read. */
static bool parse_end(struct slice bytes, int64_t *out_end_ms)
{
    int64_t seconds = 0;
    size_t len = bytes.len > 0 && bytes.at[bytes.len - 1] == '\n' ? bytes.len - 1 : bytes.len;
    for (size_t i = 0; i < len; i++) {
        if (bytes.at[i] < '0' || bytes.at[i] > '9' || i >= 12)
            return false;
        seconds = seconds * 10 + (bytes.at[i] - '0');
    }
    *out_end_ms = seconds * 1000;
    return len > 0;
}

/* By a handle: an object that other tools put has no digest of ours, which the whole of one is compared with.
 * ERR_LIMIT: it is too long to be a time. */
static err read_hold(struct blob *blob, const char *key, char text[HOLD_BYTES_MAX], struct slice *out_bytes)
{
    struct blob_handle *handle;
    TRY(blob_open(blob, key, &handle));
    uint64_t bytes = blob_handle_size(handle);
    err e = bytes > HOLD_BYTES_MAX ? ERR_LIMIT : OK;
    if (e == OK && bytes > 0)
        e = blob_read(handle, 0, text, (size_t)bytes);
    blob_handle_close(handle);
    if (e == OK)
        *out_bytes = slice_of(text, (size_t)bytes);
    return e;
}

/* One that nobody can read stands; so does one that is not over by this node's clock and by the log's. */
static err hold_stands(struct shards *shards, const char *key, bool *out_stands)
{
    struct slice bytes;
    char text[HOLD_BYTES_MAX];
    int64_t end_ms, now_ms = io_now_ms(shards->io), log_ms = shards_unsaved(shards).newest_ms;
    err e = read_hold(shards->blob, key, text, &bytes);
    *out_stands = e == ERR_LIMIT;
    if (e == ERR_NOT_FOUND || e == ERR_LIMIT) /* taken away meanwhile; or somebody's prose */
        return OK;
    TRY(e);
    *out_stands = !parse_end(bytes, &end_ms) || now_ms < end_ms || log_ms < end_ms;
    return OK;
}

/* ERR_BUSY: one stands. */
static err look_for_holds(struct shards *shards)
{
    struct pool *scratch = pool_open(shards->pool, "holds", POOL_BYTES_UNLIMITED);
    struct blob_entry *entries;
    size_t count;
    int64_t standing = 0;
    err e = OK;
    TRY_OUT(blob_list(shards->blob, SHARD_HOLD_PREFIX, scratch, &entries, &count));
    for (size_t i = 0; i < count; i++) {
        bool stands;
        TRY_OUT(hold_stands(shards, entries[i].key, &stands));
        standing += stands;
    }
    stat_set(STAT_SHARD_HOLDS, standing);
    e = standing > 0 && !(shards->config.canary & SHARD_CANARY_SWEEP_HELD) ? ERR_BUSY : OK;
out:
    pool_close(scratch);
    return e;
}

/* ---- eras ---- */

/* Nothing but eras came since the last but two: what can go goes without another. */
static bool rests(const struct chain *c)
{
    uint64_t last = c->next_number - 1;
    return last == 0 || (c->eras[0] == last && c->eras[1] + 1 == last && c->eras[2] + 2 == last);
}

/* Was the present era met long enough ago? Locked. */
static bool wants_era(struct partition *p)
{
    int64_t now_ns = io_boottime_ns(p->shards->io);
    if (p->era_met_ns == 0 || p->era_met != p->chain.eras[0]) {
        p->era_met = p->chain.eras[0];
        p->era_met_ns = now_ns == 0 ? 1 : now_ns;
    }
    bool is_long = now_ns - p->era_met_ns >= ERA_NS || (p->shards->config.canary & SHARD_CANARY_HASTY_ERAS);
    return is_long && !rests(&p->chain);
}

static err append_era(struct partition *p)
{
    struct chain_entry entry = { .kind = CHAIN_ERA, .leader_epoch = LOG_EPOCH_NONE, .ended_era = p->era_met };
    bool valid;
    err e = OK;
    if (!partition_pin(p))
        return ERR_CLOSED;
    io_mutex_lock(&p->chain_lock);
    if (p->chain.eras[0] == entry.ended_era) /* else somebody began one */
        e = partition_entry_append(p, &entry, &valid);
    io_mutex_unlock(&p->chain_lock);
    partition_unpin(p);
    partition_doomed_release(p);
    return e;
}

/* ---- beginning ---- */

/* Nobody forbids it. ERR_BUSY, or what looking for holds returns. */
static err may_sweep(struct partition *p)
{
    const struct shards_config *config = &p->shards->config;
    bool is_mine =
        atomic_load(&p->rank) == 0 && partition_may_decide(p) && !atomic_load(&p->shards->stopping.canceled);
    if (!is_mine || !config->may_sweep(config->sweep_context, p->number))
        return ERR_BUSY;
    return look_for_holds(p->shards);
}

/* Is there something to do? The next look is set. */
static bool is_due(struct partition *p, int64_t now_ns, bool *out_wants_era)
{
    if (!partition_lock(p))
        return false;
    bool wants = wants_era(p), is_mine = atomic_load(&p->rank) == 0 && partition_may_decide(p);
    bool has_old = p->chain.eras[2] != 0 && p->swept_era != p->chain.eras[0];
    if (p->sweep_ns == 0)
        p->sweep_ns = now_ns + FIRST_NS;
    if (!is_mine) /* whoever looks now tells */
        p->missing_count = 0;
    bool due = is_mine && now_ns >= p->sweep_ns && (wants || has_old);
    if (now_ns >= p->sweep_ns)
        p->sweep_ns = now_ns + LOOK_NS;
    io_mutex_unlock(&p->lock);
    *out_wants_era = wants;
    return due;
}

static void end(struct shards *shards, err why)
{
    struct sweep *s = &shards->sweep;
    struct partition *p = &shards->partitions[s->partition];
    int64_t now_ns = io_monotonic_ns(shards->io);
    if (partition_lock(p)) {
        p->sweep_ns = now_ns + (why != OK ? AGAIN_NS : s->is_more ? 0 : LOOK_NS);
        if (why == OK && !s->is_more)
            p->swept_era = s->era;
        io_mutex_unlock(&p->lock);
    }
    stat_add(why == OK ? STAT_SHARD_SWEEPS : STAT_SHARD_SWEEPS_SKIPPED, 1);
    if (why != OK)
        diag(DIAG_DEBUG, "What no manifest names stays in the store for now.", "partition=%u error=\"%s\"",
             p->number, err_text(why));
    if (s->removed > 0)
        diag(DIAG_DEBUG, "Objects that no manifest named for a day were removed.",
             "partition=%u objects=%llu", p->number, (unsigned long long)s->removed);
    pool_close(s->pool);
    *s = (struct sweep){ .next = s->next };
}

/* Where the chain is now. ERR_CLOSED; ERR_BUSY: what its entries named is not known. */
static err take_place(struct partition *p)
{
    struct sweep *s = &p->shards->sweep;
    const struct chain *c = &p->chain;
    if (!partition_lock(p))
        return ERR_CLOSED;
    bool is_doubtful = c->lost_count > 0 || c->has_stand_in;
    bool has_old = c->eras[2] != 0 && p->swept_era != c->eras[0];
    s->era = c->eras[0];
    s->kept_era = c->eras[1];
    s->since = s->number = c->eras[2];
    s->last = c->next_number - 1;
    s->stage = has_old ? SWEEP_NAMES : SWEEP_NONE;
    io_mutex_unlock(&p->lock);
    return is_doubtful ? ERR_BUSY : OK;
}

/* Begin with a partition; whether it may is asked, and the era ended that was long enough. */
static void begin(struct partition *p, bool ends_era)
{
    struct sweep *s = &p->shards->sweep;
    *s = (struct sweep){ .next = s->next, .partition = p->number };
    s->pool = pool_open(p->shards->pool, "sweep", POOL_BYTES_UNLIMITED);
    s->named.pool = s->live[0].pool = s->live[1].pool = s->pool;
    err e = take_place(p);
    if (e == OK)
        e = may_sweep(p);
    if (e == OK && ends_era)
        e = append_era(p);
    if (e == OK)
        e = take_place(p);
    if (e != OK) {
        end(p->shards, e);
    } else if (s->stage == SWEEP_NONE) {
        pool_close(s->pool);
        s->pool = NULL;
    }
}

/* ---- what was named ---- */

static err name_entry(struct partition *p, uint64_t number, bool *out_is_base)
{
    struct sweep *s = &p->shards->sweep;
    struct pool *scratch = pool_open(s->pool, "entry", POOL_BYTES_UNLIMITED);
    struct slice bytes;
    struct chain_entry entry;
    err e = partition_entry_read(p, number, scratch, &bytes, &entry);
    if (e == OK && (entry.number != number || entry.partition != p->number))
        e = ERR_CORRUPT;
    if (e == OK)
        e = named_add_segments(&s->named, entry.segments, entry.segment_count);
    if (e == OK)
        e = named_add_state(&s->named, entry.state_digest, entry.state_era);
    if (e == OK)
        e = named_add_state(&s->named, entry.older_state_digest, entry.older_state_era);
    *out_is_base = e == OK && entry.kind == CHAIN_BASE;
    pool_close(scratch);
    return e;
}

/* From where the era before the last began back to a base, and then from there on. */
static err name_some(struct partition *p)
{
    struct sweep *s = &p->shards->sweep;
    if (p->shards->config.canary & SHARD_CANARY_SWEEP_TODAY)
        s->number = s->last + 1;
    for (int i = 0; i < READ_COUNT && s->number <= s->last; i++) {
        bool is_base, goes_back = s->number <= s->since;
        if (s->number + BACK_MAX < s->since)
            return ERR_LIMIT;
        err e = name_entry(p, s->number, &is_base);
        if ((p->shards->config.canary & SHARD_CANARY_SWEEP_BLIND) == 0)
            TRY(e);
        bool is_first = goes_back && (is_base || s->number == 1);
        s->number = is_first ? s->since + 1 : goes_back ? s->number - 1 : s->number + 1;
    }
    if (s->number > s->last)
        s->stage = SWEEP_LISTS;
    return OK;
}

/* ---- what is there ---- */

static const char *const kinds[] = { "segment", "state" };

static err copy_live(struct partition *p)
{
    struct sweep *s = &p->shards->sweep;
    if (!partition_lock(p))
        return ERR_CLOSED;
    err e = named_add_segments(&s->live[0], p->chain.segments, p->chain.segment_count);
    if (e == OK)
        e = named_add_states(&s->live[1], &p->chain);
    if (e == OK)
        e = named_add_chain(&s->named, &p->chain);
    io_mutex_unlock(&p->lock);
    named_sort(&s->named);
    return e;
}

static int key_order(const void *key, const void *entry)
{
    return strcmp(key, ((const struct blob_entry *)entry)->key);
}

/* How many of these the list lacks. */
static size_t count_missing(const struct partition *p, int kind, const struct blob_entry *entries,
                            size_t count)
{
    const struct named *live = &p->shards->sweep.live[kind];
    size_t missing = 0;
    for (size_t i = 0; i < live->count; i++) {
        char key[SHARD_KEY_BYTES_MAX];
        const struct object_name *name = &live->objects[i];
        (kind == 0 ? segment_key : state_key)(p->number, name->digest, name->era, key);
        if (count > 0 && bsearch(key, entries, count, sizeof *entries, key_order) != NULL)
            continue;
        if (missing++ == 0)
            diag(DIAG_WARN, "The list of a shared store lacks an object that the manifest names.",
                 "object=%s", key);
    }
    return missing;
}

/* Of an era before the last, and named in none of the last two. */
static bool may_go(const struct shards *shards, const struct object_name *name)
{
    const struct sweep *s = &shards->sweep;
    bool is_old = name->era < s->kept_era || (shards->config.canary & SHARD_CANARY_SWEEP_YOUNG);
    return is_old && !named_has(&s->named, name);
}

static err list_kind(struct partition *p, int kind, size_t *missing)
{
    struct sweep *s = &p->shards->sweep;
    struct pool *scratch = pool_open(s->pool, "list", POOL_BYTES_UNLIMITED);
    char prefix[SHARD_KEY_BYTES_MAX];
    struct blob_entry *entries;
    size_t count;
    err e = OK;
    snprintf(prefix, sizeof prefix, "p%03u/%s", p->number, kinds[kind]);
    TRY_OUT(blob_list(p->shards->blob, prefix, scratch, &entries, &count));
    *missing += count_missing(p, kind, entries, count);
    for (size_t i = 0; i < count; i++) {
        struct object_name name;
        if (!object_name_parse(strrchr(entries[i].key, '/') + 1, &name) || !may_go(p->shards, &name))
            continue; /* the first: a file of somebody else stays */
        s->is_more = s->count == REMOVE_MAX;
        if (s->is_more)
            break;
        void *block = s->old;
        TRY_OUT(pool_block_reserve(s->pool, &block, sizeof *s->old, s->count + 1, &s->capacity));
        s->old = block;
        s->old[s->count++] = (struct old_object){ name, kind };
    }
out:
    pool_close(scratch);
    return e;
}

/* Does the chain go on behind what is folded here, or is it not open any more? Then what the fold named may be
 * gone for good reason. */
static bool is_behind(struct partition *p)
{
    if (!partition_lock(p))
        return true;
    uint64_t next = p->chain.next_number;
    io_mutex_unlock(&p->lock);
    struct pool *scratch = pool_open(p->shards->sweep.pool, "next", POOL_BYTES_UNLIMITED);
    struct slice bytes;
    struct chain_entry entry;
    bool is_there = partition_entry_read(p, next, scratch, &bytes, &entry) != ERR_NOT_FOUND;
    pool_close(scratch);
    return is_there;
}

static err find_old(struct partition *p)
{
    struct sweep *s = &p->shards->sweep;
    size_t missing = 0;
    TRY(copy_live(p));
    for (int kind = 0; kind < 2; kind++)
        TRY(list_kind(p, kind, &missing));
    if (missing > 0 && is_behind(p))
        return ERR_BUSY;
    if (partition_lock(p)) {
        p->missing_count = missing;
        io_mutex_unlock(&p->lock);
    }
    if (missing > 0 && !(p->shards->config.canary & SHARD_CANARY_SWEEP_GAPS)) {
        stat_add(STAT_SHARD_SWEEPS_MISSING, 1);
        diag(DIAG_ERROR,
             "Objects that the manifest names are missing in the shared store, or its list is not whole; "
             "nothing is"
             " deleted there. Look at the bucket: its versions, rules that expire objects, other programs.",
             "partition=%u objects=%zu of=%zu", p->number, missing, s->live[0].count + s->live[1].count);
        return ERR_CONFLICT;
    }
    s->stage = SWEEP_REMOVES;
    return OK;
}

/* ---- what goes ---- */

static err remove_some(struct partition *p, bool *out_is_done)
{
    struct sweep *s = &p->shards->sweep;
    for (int i = 0; i < REMOVE_COUNT && s->done < s->count; i++) {
        char key[SHARD_KEY_BYTES_MAX];
        const struct old_object *old = &s->old[s->done];
        if (i == 0)
            TRY(may_sweep(p));
        (old->kind == 0 ? segment_key : state_key)(p->number, old->name.digest, old->name.era, key);
        err e = blob_delete(p->shards->blob, key);
        if (e != ERR_NOT_FOUND) /* another sweep's, or a delete that came late */
            TRY(e);
        s->done++;
        s->removed += e == OK;
        stat_add(STAT_SHARD_OBJECTS_REMOVED, e == OK);
    }
    *out_is_done = s->done == s->count;
    return OK;
}

/* ---- steps ---- */

static void go_on(struct shards *shards)
{
    struct sweep *s = &shards->sweep;
    struct partition *p = &shards->partitions[s->partition];
    bool is_done = false;
    err e = OK;
    switch (s->stage) {
    case SWEEP_NONE:
        return;
    case SWEEP_NAMES:
        e = name_some(p);
        break;
    case SWEEP_LISTS:
        e = find_old(p);
        break;
    case SWEEP_REMOVES:
        e = remove_some(p, &is_done);
        break;
    }
    if (e != OK || is_done)
        end(shards, e);
}

err shards_sweep_step(struct shards *shards, bool *out_worked)
{
    struct sweep *s = &shards->sweep;
    int64_t now_ns = io_monotonic_ns(shards->io);
    const struct shards_config *config = &shards->config;
    *out_worked = s->stage != SWEEP_NONE;
    if (*out_worked)
        go_on(shards);
    if (*out_worked || now_ns < s->idle_ns || !config->is_shared || config->read_only ||
        config->may_sweep == NULL)
        return OK;
    for (uint32_t i = 0; i < config->partition_count && !*out_worked; i++) {
        struct partition *p = &shards->partitions[s->next];
        bool wants_era;
        s->next = (s->next + 1) % config->partition_count;
        *out_worked = is_due(p, now_ns, &wants_era);
        if (*out_worked)
            begin(p, wants_era);
    }
    s->idle_ns = *out_worked ? 0 : now_ns + IDLE_NS;
    return OK;
}
