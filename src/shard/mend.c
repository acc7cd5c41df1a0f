/* Reading a partition's chain, around entries that cannot be read. See mend.h, docs/format/manifest.md §6.
 *
 * Entries come from the blob store and are folded in order. In the place of one that is damaged or missing comes
 * what can be known of it: the same COMMIT, if the state object and the segments of its range are there and
 * their SUMs agree; otherwise a LOST entry, which takes over whole segments that nothing else names, says how
 * far the chain went, and names as a loss what cannot be proved to be there.
 *
 * Invariants
 *  1. No answer becomes complete by this: either the rows of the entry are proved by SUMs, or a loss is named.
 *  2. The damaged object is linked into the quarantine before the new one takes its name, in one rename: a crash
 *     leaves the one or the other.
 *  3. A read error of the disk may pass. Where one was met, only what loses nothing takes an entry's place: the
 *     commit as SUMs prove it was, or anything where a later base tells it all; else a person decides (fsck). */
#include "shard/mend.h"

#include "base/check.h"
#include "shard/partition.h"

#include <stdio.h>

struct mend {
    const struct chain_reader *r;
    const struct chain *chain; /* the fold of what is before the entry */
    uint64_t number;
    struct pool *pool;
    struct chain_entry *later; /* readable entries behind it */
    size_t later_count;
    const struct chain_entry *next_commit; /* of those; NULL: none */
    struct chain_segment *found;           /* whole segments that neither the fold nor a later entry names */
    struct sum *found_inputs;              /* … and the SUM of the rows that were merged into each */
    size_t found_count;
    bool *is_missing; /* of the chain's live segments */
    bool any_missing;
    struct log_position reach; /* how far the chain went at least */
    struct chain_entry
        state; /* end, digest, size of the state object of the range that begins at the chain's end */
    bool has_state;
    bool met_io; /* something could not be read that may be readable another time */
    struct err_at *at;
};

/* ---- quarantine ---- */

err shard_quarantine(struct io *io, const struct shards_config *config, const char *directory,
                     const char *name, char out_path[IO_PATH_BYTES_MAX])
{
    char from[IO_PATH_BYTES_MAX];
    err e = io_dir_create(io, config->quarantine_directory);
    if (e != OK && e != ERR_EXISTS)
        return e;
    if (snprintf(from, sizeof from, "%s/%s", directory, name) >= IO_PATH_BYTES_MAX)
        return ERR_LIMIT;
    for (int copy = 0; copy < 100; copy++) { /* the same name may have been damaged before */
        int len = snprintf(out_path, IO_PATH_BYTES_MAX, "%s/%s", config->quarantine_directory, name);
        if (len + 4 >= IO_PATH_BYTES_MAX)
            return ERR_LIMIT;
        for (char *at = out_path + strlen(config->quarantine_directory) + 1; *at != '\0'; at++)
            *at = *at == '/' ? '_' : *at;
        if (copy > 0)
            snprintf(out_path + len, 4, ".%d", copy);
        e = io_link(io, from, out_path);
        if (e != ERR_EXISTS)
            break;
    }
    TRY(e);
    return io_dir_sync(io, config->quarantine_directory);
}

err shard_set_aside(struct io *io, const struct shards_config *config, const char *name,
                    char out_path[IO_PATH_BYTES_MAX])
{
    char from[IO_PATH_BYTES_MAX];
    TRY(shard_quarantine(io, config, config->stream_directory, name, out_path));
    if (snprintf(from, sizeof from, "%s/%s", config->stream_directory, name) >= IO_PATH_BYTES_MAX)
        return ERR_LIMIT;
    TRY(io_unlink(io, from));
    return io_dir_sync(io, config->stream_directory);
}

/* ---- what is told ---- */

void shard_tell_stand_in(const struct shard_report *report, struct shard_check *check, const char *verb,
                         const struct chain_entry *in_place, err why)
{
    char key[SHARD_KEY_BYTES_MAX];
    chain_key(in_place->partition, in_place->number, key);
    if (in_place->kind == CHAIN_BASE)
        shard_tell(report, check, true, "manifest entry %s: %s; a later one holds all that it told", key,
                   err_text(why));
    else if (in_place->kind != CHAIN_LOST)
        shard_tell(report, check, true,
                   "manifest entry %s: %s; it %s built again from its state and %zu segments", key,
                   err_text(why), verb, in_place->segment_count);
    else
        shard_tell(report, check, true,
                   "manifest entry %s: %s; its place %s taken by what is known: %zu segments, and %s", key,
                   err_text(why), verb, in_place->segment_count,
                   in_place->loss_count > 0 ? "answers will name the rest as missing" : "nothing is missing");
}

/* ---- what else is known ---- */

/* Put the entry's name before the reason, or the code's text where there is none. Returns e. */
static err name_entry(const struct chain_reader *r, uint64_t number, err e, struct err_at *at)
{
    struct err_at why = at != NULL ? *at : (struct err_at){ 0 };
    return err_set(at, e, "manifest entry %s/p%03u/chain/%08llu: %s", r->config->blob_directory, r->partition,
                   (unsigned long long)number, why.text[0] != '\0' ? why.text : err_text(e));
}

static err read_entry(const struct chain_reader *r, uint64_t number, struct pool *pool,
                      struct chain_entry *out_entry, struct err_at *at)
{
    struct slice bytes;
    err e = chain_entry_read(r->blob, r->partition, number, pool, &bytes, out_entry);
    if (e == ERR_VERSION)
        return name_entry(r, number, chain_entry_newer(bytes, at), at);
    TRY(e);
    return out_entry->number == number && out_entry->partition == r->partition ? OK : ERR_CORRUPT;
}

static err read_later(struct mend *m, uint64_t last)
{
    void *at;
    TRY(pool_zalloc(m->pool, (last - m->number) * sizeof *m->later + 1, &at));
    m->later = at;
    for (uint64_t number = m->number + 1; number <= last; number++) {
        err e = read_entry(m->r, number, m->pool, &m->later[m->later_count], m->at);
        if (e == OK)
            m->later_count++;
        else if (!is_damage(e))
            return e;
        m->met_io = m->met_io || e == ERR_IO;
    }
    for (size_t i = 0; i < m->later_count && m->next_commit == NULL; i++)
        if (m->later[i].kind == CHAIN_COMMIT)
            m->next_commit = &m->later[i];
    m->reach = m->chain->end;
    if (m->next_commit != NULL && position_compare(m->next_commit->start, m->reach) > 0)
        m->reach = m->next_commit->start;
    for (size_t i = 0; m->next_commit == NULL && i < m->later_count; i++)
        for (size_t k = 0; k < m->later[i].segment_count; k++)
            if (position_compare(m->later[i].segments[k].to, m->reach) > 0)
                m->reach = m->later[i].segments[k].to;
    return OK;
}

static bool is_named(const struct mend *m, const uint8_t digest[SHA256_BYTES])
{
    for (size_t i = 0; i < m->chain->segment_count; i++)
        if (memcmp(m->chain->segments[i].digest, digest, SHA256_BYTES) == 0)
            return true;
    for (size_t i = 0; i < m->later_count; i++)
        for (size_t k = 0; k < m->later[i].segment_count; k++)
            if (memcmp(m->later[i].segments[k].digest, digest, SHA256_BYTES) == 0)
                return true;
    return false;
}

/* Could the entry have been valid, and the first to name this? Else it may be on its way out. */
static bool may_be_named(const struct mend *m, const struct object_name *name)
{
    return name->era >= m->chain->eras[1];
}

/* Read a segment object whole. ERR_CORRUPT and the like: it is of no use, and nothing is changed. */
static err read_segment(const struct mend *m, const char *key, const struct object_name *name,
                        struct chain_segment *out, struct sum *out_inputs)
{
    struct object object;
    struct segment_info info;
    TRY(object_open(m->r->blob, key, &object));
    struct pool *scratch = pool_open(m->pool, "segment", POOL_BYTES_UNLIMITED);
    struct segment_source source = object_source(&object);
    err e = metric_compact_verify(source, name->digest, scratch, &info, NULL);
    if (e == OK && (info.partition != m->r->partition || info.sum.count == 0))
        e = ERR_CORRUPT;
    if (e == OK) {
        int64_t window_ms = m->r->config->window_ms;
        *out = (struct chain_segment){ .era = name->era,
                                       .bytes = source.size,
                                       .from = { info.from_generation, info.from_offset },
                                       .to = { info.to_generation, info.to_offset },
                                       .range = info.time,
                                       .sum = info.sum,
                                       .format_version = METRIC_COMPACT_VERSION };
        memcpy(out->digest, name->digest, SHA256_BYTES);
        if (info.time.max_ms / window_ms != info.time.min_ms / window_ms)
            out->flags |= CHAIN_SEGMENT_WIDE;
        *out_inputs = info.sum;
        sum_add(out_inputs, info.dropped);
        sum_add(out_inputs, info.expired);
    }
    pool_close(scratch);
    object_close(&object);
    return e;
}

static err find_segments(struct mend *m)
{
    char prefix[SHARD_KEY_BYTES_MAX], key[SHARD_KEY_BYTES_MAX];
    struct blob_entry *entries;
    size_t count;
    void *at;
    snprintf(prefix, sizeof prefix, "p%03u/segment", m->r->partition);
    TRY(blob_list(m->r->blob, prefix, m->pool, &entries, &count));
    TRY(pool_zalloc(m->pool, count * sizeof *m->found + 1, &at));
    m->found = at;
    TRY(pool_zalloc(m->pool, count * sizeof *m->found_inputs + 1, &at));
    m->found_inputs = at;
    for (size_t i = 0; i < count; i++) {
        struct object_name name;
        if (!object_name_parse(entries[i].key + strlen(prefix) + 1, &name) || !may_be_named(m, &name) ||
            is_named(m, name.digest))
            continue;
        size_t to = m->found_count; /* copies of one segment follow each other */
        if (to > 0 && memcmp(m->found[to - 1].digest, name.digest, SHA256_BYTES) == 0)
            to--;
        err e = to < m->found_count && m->found[to].era > name.era
                    ? OK
                    : read_segment(m, entries[i].key, &name, &m->found[to], &m->found_inputs[to]);
        if (e == OK)
            m->found_count = to + 1;
        else if (e == ERR_LIMIT)
            return e;
        m->met_io = m->met_io || e == ERR_IO;
    }
    TRY(pool_zalloc(m->pool, m->chain->segment_count * sizeof *m->is_missing + 1, &at));
    m->is_missing = at;
    for (size_t i = 0; i < m->chain->segment_count; i++) {
        uint64_t size;
        segment_key(m->r->partition, m->chain->segments[i].digest, m->chain->segments[i].era, key);
        m->is_missing[i] = blob_size(m->r->blob, key, &size) == ERR_NOT_FOUND;
        m->any_missing = m->any_missing || m->is_missing[i];
    }
    return OK;
}

/* ---- the entry was a commit whose state object is there ---- */

static err no_series(void *context, uint32_t reference, uint32_t *out_local) { return ERR_CORRUPT; }

static err any_series(void *context, struct slice tenant, struct slice labels, uint32_t *out_local)
{
    *out_local = 0; /* only head and sums of the state are looked at */
    return OK;
}

static err read_state(const struct mend *m, const char *key, const uint8_t digest[SHA256_BYTES],
                      struct pool *pool, struct state *out_state, uint64_t *out_bytes)
{
    const struct state_series series = { no_series, any_series, NULL };
    struct slice bytes;
    TRY(state_object_read(m->r->blob, key, digest, pool, &bytes));
    *out_bytes = bytes.len;
    return state_object_decode(bytes, &series, pool, out_state);
}

/* The segments of a range, by their spans, into the entry; their SUM. */
static struct sum take_range(const struct mend *m, struct log_position from, struct log_position to,
                             struct chain_entry *entry)
{
    struct sum sum = { 0 };
    for (size_t i = 0; i < m->found_count; i++) {
        if (position_compare(m->found[i].from, from) < 0 || position_compare(m->found[i].to, to) > 0)
            continue;
        entry->segments[entry->segment_count++] = m->found[i];
        sum_add(&sum, m->found[i].sum);
    }
    return sum;
}

/* Fill the entry with a commit as this state says it was. False: the segments are not all there. */
static err commit_of_state(const struct mend *m, const struct state *state, struct chain_entry *entry,
                           bool *out_is_whole)
{
    void *at;
    *entry = (struct chain_entry){ .kind = CHAIN_COMMIT,
                                   .leader_epoch = state->leader_epoch,
                                   .start = state->start,
                                   .end = state->at,
                                   .reason = state->reason,
                                   .format_version = state->format_version,
                                   .record_count = state->record_count,
                                   .log_bytes = state->log_bytes,
                                   .sum = state->sum,
                                   .resolved_removed = state->resolved_removed,
                                   .resolved_added = state->resolved_added,
                                   .unresolved = state_unresolved_sum(state),
                                   .data_through_ms = state->data_through_ms,
                                   .state_era = m->state.state_era,
                                   .state_bytes = m->state.state_bytes,
                                   .loss_count = state->loss_count };
    memcpy(entry->state_digest, m->state.state_digest, SHA256_BYTES);
    TRY(pool_alloc(m->pool, state->loss_count * sizeof *entry->losses + 1, &at));
    entry->losses = at;
    if (state->loss_count > 0)
        memcpy(entry->losses, state->losses, state->loss_count * sizeof *entry->losses);
    TRY(pool_zalloc(m->pool, m->found_count * sizeof *entry->segments + 1, &at));
    entry->segments = at;
    struct sum sum = take_range(m, state->start, state->at, entry);
    for (size_t i = 0; i < entry->segment_count; i++)
        if (entry->segments[i].range.min_ms > state->data_through_ms + SHARD_FAR_FUTURE_MS &&
            (entry->segments[i].flags & CHAIN_SEGMENT_WIDE) == 0)
            entry->segments[i].flags |= CHAIN_SEGMENT_FAR_FUTURE;
    *out_is_whole = sum_equal(sum, state->sum);
    return OK;
}

/* *out_is_done: the entry is what it was. m->state is set when there is a state of that range at all. */
static err rebuild_commit(struct mend *m, struct chain_entry *entry, bool *out_is_done)
{
    char prefix[SHARD_KEY_BYTES_MAX];
    struct blob_entry *objects;
    size_t count;
    snprintf(prefix, sizeof prefix, "p%03u/state", m->r->partition);
    TRY(blob_list(m->r->blob, prefix, m->pool, &objects, &count));
    for (size_t i = 0; i < count && !*out_is_done; i++) {
        struct object_name name;
        struct state state;
        uint64_t bytes;
        if (!object_name_parse(objects[i].key + strlen(prefix) + 1, &name) || !may_be_named(m, &name))
            continue;
        struct pool *scratch = pool_open(m->pool, "state", POOL_BYTES_UNLIMITED);
        err e = read_state(m, objects[i].key, name.digest, scratch, &state, &bytes);
        bool fits = e == OK && state.closed && position_compare(state.start, m->chain->end) == 0 &&
                    position_compare(state.at, state.start) > 0 &&
                    (m->next_commit == NULL || position_compare(state.at, m->next_commit->start) == 0);
        if (fits) {
            m->has_state = true;
            m->state.end = state.at;
            m->state.leader_epoch = state.leader_epoch;
            m->state.state_bytes = bytes;
            m->state.state_era = name.era;
            memcpy(m->state.state_digest, name.digest, SHA256_BYTES);
            e = commit_of_state(m, &state, entry, out_is_done);
        }
        pool_close(scratch);
        if (e == ERR_LIMIT)
            return e;
        m->met_io = m->met_io || e == ERR_IO;
    }
    return OK;
}

/* ---- it was something else, or not all is there ---- */

static void add_loss(struct chain_entry *entry, struct log_position from, struct log_position to,
                     struct time_range range)
{
    entry->losses[entry->loss_count++] =
        (struct chain_loss){ .kind = LOSS_CHAIN, .from = from, .to = to, .range = range };
}

/* A whole segment nobody names over the span of live ones that are gone: the entry replaced those by it. */
static bool take_replaced(const struct mend *m, size_t found, struct chain_entry *entry)
{
    const struct chain_segment *out = &m->found[found];
    struct sum in = { 0 };
    struct time_range range = { INT64_MAX, INT64_MIN };
    for (size_t i = 0; i < m->chain->segment_count; i++) {
        const struct chain_segment *s = &m->chain->segments[i];
        if (!m->is_missing[i] || position_compare(s->from, out->from) < 0 ||
            position_compare(s->to, out->to) > 0 || s->range.min_ms > out->range.max_ms ||
            s->range.max_ms < out->range.min_ms)
            continue;
        memcpy(entry->inputs[entry->input_count++], s->digest, SHA256_BYTES);
        sum_add(&in, s->sum);
        range.min_ms = s->range.min_ms < range.min_ms ? s->range.min_ms : range.min_ms;
        range.max_ms = s->range.max_ms > range.max_ms ? s->range.max_ms : range.max_ms;
    }
    if (in.count == 0)
        return false;
    entry->segments[entry->segment_count++] = *out;
    if (!sum_equal(in, m->found_inputs[found]))
        add_loss(entry, out->from, out->to, range);
    return true;
}

static err make_lost(struct mend *m, int64_t until_ms, struct chain_entry *entry)
{
    void *at;
    struct log_position begin = m->chain->end;
    *entry = (struct chain_entry){ .kind = CHAIN_LOST, .leader_epoch = LOG_EPOCH_NONE };
    TRY(pool_zalloc(m->pool, m->found_count * sizeof *entry->segments + 1, &at));
    entry->segments = at;
    TRY(pool_zalloc(m->pool, (m->found_count + 1) * sizeof *entry->losses, &at));
    entry->losses = at;
    TRY(pool_zalloc(m->pool, (m->chain->segment_count * (m->found_count + 1) + 1) * SHA256_BYTES, &at));
    entry->inputs = at;
    bool is_replace = false;
    for (size_t i = 0; i < m->found_count; i++)
        if (position_compare(m->found[i].to, begin) <= 0 && take_replaced(m, i, entry))
            is_replace = true;
    /* With the range still in the log it is read again from there; else what is known of its state is taken. */
    if (m->has_state && position_compare(m->state.end, m->reach) > 0 && m->r->log_start > begin.offset)
        m->reach = m->state.end;
    entry->end = m->reach;
    if (m->has_state && position_compare(m->state.end, m->reach) == 0) {
        memcpy(entry->state_digest, m->state.state_digest, SHA256_BYTES);
        entry->state_era = m->state.state_era;
        entry->state_bytes = m->state.state_bytes;
        entry->leader_epoch = m->state.leader_epoch;
    }
    if (position_compare(m->reach, begin) > 0)
        take_range(m, begin, m->reach, entry);
    else if (is_replace || m->next_commit != NULL)
        return OK; /* no rows came with it: what is not there is named segment by segment */
    add_loss(entry, begin, m->reach, (struct time_range){ TIME_MS_MIN, until_ms });
    return OK;
}

static err mend(struct mend *m, uint64_t last, struct chain_entry *entry)
{
    TRY(read_later(m, last));
    TRY(find_segments(m));
    int64_t until_ms = m->r->now_ms + SHARD_LOSS_BEHIND_MS;
    if (m->later_count > 0 && m->later[0].written_ms < m->r->now_ms)
        until_ms = m->later[0].written_ms + SHARD_LOSS_BEHIND_MS;
    bool is_done = false;
    if (m->next_commit == NULL || position_compare(m->next_commit->start, m->chain->end) > 0)
        TRY(rebuild_commit(m, entry, &is_done));
    if (!is_done || m->any_missing) { /* with segments missing it may have been a replace instead */
        struct chain_entry lost;
        TRY(make_lost(m, until_ms, &lost));
        if (!is_done || lost.input_count > 0)
            *entry = lost;
    }
    entry->partition = m->r->partition;
    entry->number = m->number;
    entry->written_ms = m->r->now_ms;
    return OK;
}

/* ---- reading ---- */

static err put_in_place(const struct chain_reader *r, const struct chain_entry *entry, bool was_there,
                        struct pool *pool)
{
    char key[SHARD_KEY_BYTES_MAX], path[IO_PATH_BYTES_MAX];
    struct buf bytes = buf_open(pool, CHAIN_ENTRY_BYTES_MAX);
    chain_key(r->partition, entry->number, key);
    err e = chain_entry_encode(entry, &bytes);
    if (e == OK && was_there)
        e = shard_quarantine(r->io, r->config, r->config->blob_directory, key, path);
    if (e == OK)
        e = blob_replace(r->blob, key, buf_slice(&bytes));
    buf_close(&bytes);
    return e;
}

/* With this in the entry's place, is everything told that the entry told? */
static bool is_proved(const struct mend *m, const struct chain_entry *entry)
{
    bool is_told = entry->kind == CHAIN_COMMIT;
    for (size_t i = 0; i < m->later_count && !is_told; i++)
        is_told = m->later[i].kind == CHAIN_BASE;
    return is_told;
}

static err mend_and_fold(const struct chain_reader *r, struct chain *chain, uint64_t last, err why,
                         struct err_at *at)
{
    struct pool *pool = pool_open(r->pool, "mend", POOL_BYTES_UNLIMITED);
    struct mend m = {
        .r = r, .chain = chain, .number = chain->next_number, .pool = pool, .met_io = why == ERR_IO, .at = at
    };
    struct chain_entry entry;
    bool valid;
    const char *text;
    err e = OK;
    TRY_OUT(mend(&m, last, &entry));
    if (m.met_io && !r->mends_io && !is_proved(&m, &entry))
        TRY_OUT(ERR_IO);
    if (r->damaged != NULL)
        r->damaged(r->context, &entry, why);
    if (!r->config->read_only && !r->config->is_shared) /* others hold the entry as it was */
        TRY_OUT(put_in_place(r, &entry, why != ERR_NOT_FOUND, pool));
    TRY_OUT(chain_fold(chain, &entry, &valid, &text));
    if (r->config->is_shared) {
        chain->has_stand_in = true;
        chain->era_unread = entry.number;
    }
    if (!valid)
        e = ERR_CORRUPT;
out:
    pool_close(pool);
    return e;
}

/* The lowest and the highest number of an entry that is there; 0: there is none. */
static err find_numbers(const struct chain_reader *r, struct pool *pool, uint64_t *out_first,
                        uint64_t *out_last)
{
    char prefix[SHARD_KEY_BYTES_MAX];
    struct blob_entry *entries;
    size_t count;
    snprintf(prefix, sizeof prefix, "p%03u/chain", r->partition);
    TRY(blob_list(r->blob, prefix, pool, &entries, &count));
    *out_first = *out_last = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t number = chain_number_parse(entries[i].key + strlen(prefix) + 1);
        if (number == 0)
            continue;
        *out_last = number > *out_last ? number : *out_last;
        *out_first = *out_first == 0 || number < *out_first ? number : *out_first;
    }
    return OK;
}

/* A damaged entry before the base that is read instead. */
static err discard(const struct chain_reader *r, uint64_t number, err why)
{
    struct chain_entry in_place = { .kind = CHAIN_BASE, .partition = r->partition, .number = number };
    char key[SHARD_KEY_BYTES_MAX], path[IO_PATH_BYTES_MAX];
    if (r->damaged != NULL)
        r->damaged(r->context, &in_place, why);
    if (r->config->read_only || r->config->is_shared)
        return OK;
    chain_key(r->partition, number, key);
    TRY(shard_quarantine(r->io, r->config, r->config->blob_directory, key, path));
    return blob_delete(r->blob, key);
}

/* Entries before `first` were removed: the fold begins at the first base that can be read. Without any it begins
 * at what is missing. */
static err begin_at_base(const struct chain_reader *r, struct chain *chain, uint64_t first, uint64_t last,
                         struct pool *scratch, struct err_at *at)
{
    uint64_t number = first;
    struct chain_entry entry;
    err e = ERR_NOT_FOUND;
    bool valid;
    const char *why;
    for (; number <= last; number++) {
        pool_reset(scratch);
        e = read_entry(r, number, scratch, &entry, at);
        if (e == OK && entry.kind == CHAIN_BASE)
            break;
        if (e != OK && !is_damage(e))
            return e;
    }
    if (number > last) {
        chain->next_number = first - 1;
        return OK;
    }
    TRY(chain_fold(chain, &entry, &valid, &why));
    for (uint64_t before = first; before < number; before++) {
        pool_reset(scratch);
        e = read_entry(r, before, scratch, &entry, at);
        if (e == OK || e == ERR_NOT_FOUND)
            continue;
        TRY(is_damage(e) ? discard(r, before, e) : e);
    }
    return OK;
}

/* Where to begin with a chain of which nothing is ever removed: at the newest base that can be read, or at
 * `first`. A year of entries is 70,000. */
static err find_base(const struct chain_reader *r, uint64_t first, uint64_t last, struct pool *scratch,
                     uint64_t *out_number, struct err_at *at)
{
    *out_number = first;
    for (uint64_t number = last; number > first; number--) {
        struct chain_entry entry;
        pool_reset(scratch);
        err e = read_entry(r, number, scratch, &entry, at);
        if (e != OK && !is_damage(e))
            return e;
        if (e == OK && entry.kind == CHAIN_BASE) {
            *out_number = number;
            return OK;
        }
    }
    return OK;
}

/* Segments of a newer format are known by their entries: nothing is begun that their rows would be missing in. */
static err check_formats(const struct chain_reader *r, const struct chain *chain, struct err_at *at)
{
    char key[SHARD_KEY_BYTES_MAX];
    for (size_t i = 0; i < chain->segment_count; i++) {
        const struct chain_segment *s = &chain->segments[i];
        segment_key(r->partition, s->digest, s->era, key);
        if (s->format_version > METRIC_COMPACT_VERSION)
            return err_set(
                at, ERR_VERSION,
                "segment %s/%s: written by a newer version: compact segment format %u, and this Kelpie reads"
                " up to %d",
                r->config->blob_directory, key, s->format_version, METRIC_COMPACT_VERSION);
    }
    return OK;
}

err shard_chain_read(const struct chain_reader *r, struct chain *chain, struct err_at *at)
{
    struct pool *scratch = pool_open(r->pool, "chain", POOL_BYTES_UNLIMITED);
    uint64_t first, last;
    err e = OK;
    struct err_at why = { 0 };
    TRY_OUT(find_numbers(r, scratch, &first, &last));
    last = r->last_number != 0 && last > r->last_number ? r->last_number : last;
    if (r->config->is_shared && last > 0)
        TRY_OUT(find_base(r, first, last, scratch, &first, &why));
    if (first > 1) {
        TRY_OUT(begin_at_base(r, chain, first, last, scratch, &why));
        chain->first_number = first < chain->next_number ? first : chain->next_number;
    }
    while (chain->next_number <= last) {
        struct chain_entry entry;
        bool valid;
        const char *ignored;
        pool_reset(scratch);
        e = read_entry(r, chain->next_number, scratch, &entry, &why);
        if (e == OK)
            e = chain_fold(chain, &entry, &valid, &ignored);
        else if (is_damage(e))
            e = mend_and_fold(r, chain, last, e, &why);
        if (e != OK)
            break;
    }
    if (e == OK)
        e = check_formats(r, chain, &why);
out:
    pool_close(scratch);
    if (e == ERR_VERSION && why.text[0] != '\0') /* names what is newer */
        return err_set(at, e, "%s", why.text);
    if (e == ERR_IO)
        ERR_IGNORE(err_set(&why, e, "it, or what would stand in for it, cannot be read (%s)", err_text(e)));
    else
        why.text[0] = '\0';
    if (e != OK && at != NULL) {
        *at = why;
        return name_entry(r, chain->next_number, e, at);
    }
    return e;
}
