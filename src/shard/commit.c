/* Cut and commit: a range that is worth it is cut through the log; a closed one becomes segments, then an
 * entry of the chain; then its stream file and its log go. See partition.h, docs/format/manifest.md.
 *
 * Invariants
 *  1. Ranges are committed in order; an entry names only objects that are durable and were read back.
 *  2. Stream file and log are let go only after the entry is durable and folded.
 *  3. Everything before the entry may be done again: a build is a pure function of the range, so that its
 * objects get the same names.
 *  4. A replica whose lease has ended begins nothing of it and puts no entry (append.c). What it was about to put
 * may yet come, and is an entry like any other. */
#include "shard/partition.h"

#include "base/check.h"
#include "base/diag.h"
#include "base/stat.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- names of objects ---- */

static void digest_key(const char *kind, uint32_t partition, const uint8_t digest[SHA256_BYTES], uint64_t era,
                       char out_key[SHARD_KEY_BYTES_MAX])
{
    char text[SHA256_HEX_BYTES];
    sha256_print(digest, text);
    int len = snprintf(out_key, SHARD_KEY_BYTES_MAX, "p%03u/%s/%s", partition, kind, text);
    if (era != 0)
        snprintf(out_key + len, SHARD_KEY_BYTES_MAX - (size_t)len, "-%llu", (unsigned long long)era);
}

void segment_key(uint32_t partition, const uint8_t digest[SHA256_BYTES], uint64_t era,
                 char out_key[SHARD_KEY_BYTES_MAX])
{
    digest_key("segment", partition, digest, era, out_key);
}

void state_key(uint32_t partition, const uint8_t digest[SHA256_BYTES], uint64_t era,
               char out_key[SHARD_KEY_BYTES_MAX])
{
    digest_key("state", partition, digest, era, out_key);
}

void chain_key(uint32_t partition, uint64_t number, char out_key[SHARD_KEY_BYTES_MAX])
{
    snprintf(out_key, SHARD_KEY_BYTES_MAX, "p%03u/chain/%08llu", partition, (unsigned long long)number);
}

void shards_temp_path(struct shards *shards, char out_path[IO_PATH_BYTES_MAX])
{
    snprintf(out_path, IO_PATH_BYTES_MAX, "%s/build-%llu.tmp", shards->config.stream_directory,
             (unsigned long long)atomic_fetch_add(&shards->temp_number, 1));
}

/* ---- objects ---- */

/* Put an object named by its digest. One that is there already may not be promised (its directory's sync failed
 * once): it is put in its own place, and never away first, because an entry whose put failed at the end may name
 * it. */
err object_put_again(struct blob *blob, const char *key, struct slice bytes)
{
    err e = blob_put(blob, key, bytes);
    return e == ERR_EXISTS ? blob_replace(blob, key, bytes) : e;
}

uint64_t partition_put_era(struct partition *p)
{
    io_mutex_lock(&p->lock);
    uint64_t era = p->shards->config.canary & SHARD_CANARY_NO_ERAS ? 0 : chain_put_era(&p->chain);
    io_mutex_unlock(&p->lock);
    return era;
}

err partition_segment_put(struct partition *p, const char *temp_path, const struct chain_segment *segment)
{
    char key[SHARD_KEY_BYTES_MAX];
    segment_key(p->number, segment->digest, segment->era, key);
    err e = blob_put_file(p->shards->blob, key, temp_path);
    return e == ERR_EXISTS ? blob_replace_file(p->shards->blob, key, temp_path) : e;
}

/* A segment, looked for from *from on, where it is when the lists are alike. NULL: none. */
static struct live_segment *find_segment(struct live_segment *const *list, size_t count,
                                         const struct chain_segment *facts, size_t *from)
{
    for (size_t i = 0; i < count; i++) {
        size_t at = *from + i < count ? *from + i : *from + i - count;
        if (chain_segment_same(&list[at]->facts, facts)) {
            *from = at + 1 < count ? at + 1 : 0;
            return list[at];
        }
    }
    return NULL;
}

err partition_segments_sync(struct partition *p)
{
    size_t count = p->chain.segment_count;
    void *block = NULL;
    size_t capacity = 0;
    TRY(pool_block_reserve(p->pool, &block, sizeof *p->segments, count + 1, &capacity));
    struct live_segment **next = block;
    err e = OK;
    size_t made = 0, from = 0;
    for (; made < count && e == OK; made++) {
        const struct chain_segment *facts = &p->chain.segments[made];
        next[made] = find_segment(p->segments, p->segment_count, facts, &from);
        if (next[made] != NULL)
            live_segment_ref(next[made]);
        else
            e = live_segment_open(p->shards, p->number, facts, &next[made]);
    }
    if (e != OK) {
        for (size_t i = 0; i + 1 < made; i++)
            live_segment_unref(next[i]); /* drops only references added above, or segments that nobody saw */
        pool_block_free(p->pool, next);
        return e;
    }
    from = 0;
    for (size_t k = 0; k < p->segment_count; k++) {
        struct live_segment *old = p->segments[k];
        if (find_segment(next, count, &old->facts, &from) != NULL) {
            live_segment_unref(old); /* next holds its own */
            continue;
        }
        atomic_store(&old->is_doomed, true);
        old->next_doomed = p->doomed;
        p->doomed = old;
    }
    pool_block_free(p->pool, p->segments);
    p->segments = next;
    p->segment_count = count;
    return OK;
}

void partition_doomed_release(struct partition *p)
{
    io_mutex_lock(&p->lock);
    struct live_segment *doomed = p->doomed;
    p->doomed = NULL;
    io_mutex_unlock(&p->lock);
    while (doomed != NULL) {
        struct live_segment *next = doomed->next_doomed;
        live_segment_unref(doomed);
        doomed = next;
    }
}

/* ---- commit ---- */

static bool no_reference(void *context, uint32_t local, uint32_t *out_reference) { return false; }

static err put_state(struct partition *p, struct range *range, struct pool *scratch,
                     struct chain_entry *entry)
{
    struct metric_index_describer *describer;
    struct buf bytes = buf_open(scratch, STATE_BYTES_MAX);
    char key[SHARD_KEY_BYTES_MAX];
    TRY(metric_index_describer_open(p->shards->index, p->number, scratch, &describer));
    struct state_names names = { no_reference, metric_index_describe, describer };
    err e = state_object_encode(&range->state, &names, scratch, &bytes);
    metric_index_describer_close(describer);
    TRY(e);
    sha256_of(buf_slice(&bytes), entry->state_digest);
    entry->state_bytes = bytes.len;
    entry->state_era = partition_put_era(p);
    state_key(p->number, entry->state_digest, entry->state_era, key);
    e = object_put_again(p->shards->blob, key, buf_slice(&bytes));
    buf_close(&bytes);
    return e;
}

/* Build, read back, compare: a segment that is not the range's rows is never named. */
static err build_verified(struct partition *p, struct range *range, struct pool *scratch,
                          struct build_output **out_outputs, size_t *out_count)
{
    struct shards *shards = p->shards;
    struct build_output *outputs;
    size_t count;
    struct sum sum = { 0 };
    err e = OK;
    TRY(range_build(shards, p, range, scratch, &outputs, &count));
    for (size_t i = 0; i < count; i++) {
        struct segment_info info;
        struct err_at at = { 0 };
        e = built_file_verify(shards, outputs[i].path, outputs[i].segment.digest, scratch, &info, &at);
        if (e == OK && !sum_equal(info.sum, outputs[i].segment.sum))
            e = ERR_CORRUPT;
        if (e == ERR_CORRUPT)
            diag(DIAG_ERROR, "A built segment reads back wrong; the range is kept and built again.",
                 "partition=%u detail=\"%s\"", p->number, at.text);
        TRY_OUT(e);
        sum_add(&sum, info.sum);
    }
    if (!sum_equal(sum, range->sum)) {
        diag(DIAG_ERROR, "A built range has another SUM than its records; stream file and log are kept.",
             "partition=%u offset=%llu rows=%llu expected=%llu", p->number,
             (unsigned long long)range->start.offset, (unsigned long long)sum.count,
             (unsigned long long)range->sum.count);
        stat_add(STAT_SHARD_QUARANTINED, 1);
        e = ERR_CORRUPT;
    }
out:
    if (e != OK)
        for (size_t i = 0; i < count; i++)
            ERR_IGNORE(io_unlink(shards->io, outputs[i].path));
    *out_outputs = outputs;
    *out_count = count;
    return e;
}

/* The range's stream files and log are not needed any more. Failures leave files that the next start removes. */
static void forget(struct partition *p, struct range *range)
{
    for (struct stream_part *part = range->parts; part != NULL; part = part->next)
        (void)range_part_unlink(p, range, part->part);
    if (!p->shards->config.is_shared)
        ERR_IGNORE(log_trim(p->shards->log, p->number, range->end.offset));
}

static err delete_old_state(struct partition *p, const struct object_name *old)
{
    uint8_t zero[SHA256_BYTES] = { 0 };
    char key[SHARD_KEY_BYTES_MAX];
    if (p->shards->config.is_shared || memcmp(old->digest, zero, SHA256_BYTES) == 0)
        return OK;
    state_key(p->number, old->digest, old->era, key);
    return blob_delete(p->shards->blob, key);
}

/* What remains of a commit once its entry is durable, all or nothing: the segments are live, the range is not. */
static err range_leave(struct partition *p, struct range *range)
{
    io_mutex_lock(&p->lock);
    err e = partition_segments_sync(p);
    if (e == OK) {
        check(p->ranges == range);
        partition_range_end(p);
        p->commit_failed = OK; /* whoever committed it */
    }
    io_mutex_unlock(&p->lock);
    if (e != OK)
        return e;
    forget(p, range);
    range_unref(range);
    return OK;
}

/* Does the chain have it? In a later generation it has something else there. */
static bool range_is_behind(const struct partition *p, const struct range *range)
{
    return p->chain.end.generation == range->start.generation && p->chain.end.offset > range->start.offset;
}

err partition_chain_settle(struct partition *p)
{
    struct range *range = p->ranges; /* only who has chain_lock takes it away */
    err e = OK;
    io_mutex_lock(&p->lock);
    bool is_over = range->closed && range_is_behind(p, range);
    if (!is_over)
        e = partition_segments_sync(p);
    else if (range->frozen != NULL)
        e = ERR_BUSY;
    io_mutex_unlock(&p->lock);
    return is_over && e == OK ? range_leave(p, range) : e;
}

static err commit_range(struct partition *p, struct range *range, struct pool *scratch)
{
    struct build_output *outputs;
    size_t count;
    err e = OK;
    void *at;
    struct chain_entry entry = { .kind = CHAIN_COMMIT,
                                 .leader_epoch = range->state.leader_epoch,
                                 .start = range->start,
                                 .end = range->end,
                                 .reason = range->reason,
                                 .format_version = range->format_version,
                                 .record_count = range->record_count,
                                 .log_bytes = range->log_bytes,
                                 .sum = range->sum,
                                 .resolved_removed = range->resolved_removed,
                                 .resolved_added = range->resolved_added,
                                 .unresolved = range->unresolved,
                                 .data_through_ms = range->state.data_through_ms,
                                 .losses = range->losses,
                                 .loss_count = range->loss_count };
    TRY(build_verified(p, range, scratch, &outputs, &count));
    TRY_OUT(pool_zalloc(scratch, count * sizeof *entry.segments + 1, &at));
    entry.segments = at;
    entry.segment_count = count;
    for (size_t i = 0; i < count; i++) {
        entry.segments[i] = outputs[i].segment;
        entry.segments[i].era = partition_put_era(p);
        TRY_OUT(partition_segment_put(p, outputs[i].path, &entry.segments[i]));
    }
    TRY_OUT(put_state(p, range, scratch, &entry));
    struct object_name old_state = { .era = p->chain.state_eras[1] };
    memcpy(old_state.digest, p->chain.state_digests[1], SHA256_BYTES);
    if (p->shards->config.canary & SHARD_CANARY_TRIM_FIRST)
        forget(p, range);
    bool valid;
    TRY_OUT(partition_entry_append(p, &entry, &valid));
    if (p->ranges != range)
        return OK; /* somebody else's entry of the same rows was there */
    if (!valid) {
        e = ERR_CONFLICT;
        goto out;
    }
    TRY_OUT(range_leave(p, range)); /* the next attempt finds the entry folded and does this step alone */
    stat_add(STAT_SHARD_COMMITS, 1);
    stat_add(STAT_SHARD_BUILT_ROWS, (int64_t)range->sum.count);
    ERR_IGNORE(delete_old_state(p, &old_state));
    return OK;
out:
    for (size_t i = 0; i < count; i++)
        ERR_IGNORE(io_unlink(p->shards->io, outputs[i].path));
    return e;
}

err partition_commit(struct partition *p)
{
    struct pool *scratch = pool_open(p->shards->pool, "commit", POOL_BYTES_UNLIMITED);
    io_mutex_lock(&p->chain_lock);
    io_mutex_lock(&p->lock); /* somebody else's entry may have been taken over in between */
    struct range *range = range_ref(p->ranges);
    bool is_there = range_is_behind(p, range);                        /* its entry: memory failed behind it */
    bool is_next = position_compare(p->chain.end, range->start) == 0; /* else the partition begins anew */
    bool is_due = range->closed && range->frozen == NULL && (is_there || is_next);
    io_mutex_unlock(&p->lock);
    err e = !is_due ? OK : is_there ? range_leave(p, range) : commit_range(p, range, scratch);
    range_unref(range);
    if (e == OK)
        partition_base(p);
    io_mutex_unlock(&p->chain_lock);
    pool_close(scratch);
    partition_doomed_release(p);
    if (e == ERR_ORDER)
        e = OK;                                               /* the partition begins anew */
    bool is_over = e == ERR_BUSY && !partition_may_decide(p); /* its lease */
    if (e != OK && e != ERR_CANCELED && e != p->commit_failed && !is_over)
        diag(DIAG_ERROR, "Cannot commit a range, retrying in 2 s; stream file and log keep it.",
             "partition=%u error=\"%s\"", p->number, err_text(e));
    io_mutex_lock(&p->lock);
    p->commit_failed = e; /* shards_intake_update looks at it */
    io_mutex_unlock(&p->lock);
    return e;
}

/* ---- control records ---- */

static void control_done(struct log_append *append, err result, struct log_position position)
{
    struct control_append *slot = append->context;
    atomic_store(&slot->result, result);
    atomic_store(&slot->in_flight, false);
}

void control_send(struct partition *p, struct control_append *slot, const struct control *control)
{
    if (atomic_load(&slot->in_flight))
        return;
    control_encode(control, slot->bytes);
    slot->part = slice_of(slot->bytes, CONTROL_BYTES);
    slot->append =
        (struct log_append){ .partition = p->number,
                             .parts = &slot->part,
                             .part_count = 1,
                             .done = control_done,
                             .context = slot,
                             .frees_space = true }; /* what follows a CUT gives back log and stream */
    atomic_store(&slot->in_flight, true);
    log_append(p->shards->log, &slot->append);
}

/* A range that got nothing for idle_ms settles if it is worth a segment; one of half the size waits twice as long,
 * and so on, or scrapes a minute apart would make a segment each. */
#define IDLE_BYTES_MIN (1u << 20)
#define IDLE_PATIENCE  15

static bool is_idle(const struct partition *p, int64_t now_ns)
{
    const struct range *range = p->open_range;
    int64_t silent_ns = now_ns - p->heard_ns, idle_ns = atomic_load(&p->shards->idle_ms) * NS_PER_MS;
    if (range->row_count == 0 || silent_ns < idle_ns)
        return false;
    uint64_t patience = range->log_bytes == 0 ? IDLE_PATIENCE : 1 + (IDLE_BYTES_MIN - 1) / range->log_bytes;
    return silent_ns / (int64_t)(patience < IDLE_PATIENCE ? patience : IDLE_PATIENCE) >= idle_ns;
}

/* Records without rows (FORGET, what was seen before) are no reason for a segment-less entry, but they must not
 * keep files of the log for an hour either. The age keeps a busy log from asking for it again and again. */
static bool keeps_log(const struct partition *p, int64_t now_ns)
{
    const struct range *range = p->open_range;
    return range->row_count == 0 && !p->shards->config.is_shared &&
           now_ns - range->opened_ns >= atomic_load(&p->shards->idle_ms) * NS_PER_MS &&
           log_is_held(p->shards->log, p->number);
}

/* Why the open range should be cut; 0 = it should not. Locked. */
static uint8_t find_cut_reason(struct partition *p, int64_t now_ns)
{
    const struct range *range = p->open_range;
    if (p->cut_asked && (open_range_is_empty(p) || position_compare(range->start, p->cut_asked_start) != 0))
        p->cut_asked = false; /* done: records that came since are not waited for */
    if (p->apply_failed != OK || open_range_is_empty(p) || p->closed_count >= SHARD_CLOSED_COUNT_MAX)
        return 0;
    if (p->cut_asked)
        return CUT_ASKED;
    if (range->stream_bytes >= p->shards->config.cut_bytes ||
        range->group_count >= p->shards->config.cut_group_count)
        return CUT_SIZE;
    if (!atomic_load(&p->shards->is_ready) || p->applied.offset < p->open_end)
        return 0;
    if (now_ns - range->opened_ns >= atomic_load(&p->shards->cut_age_ms) * NS_PER_MS)
        return CUT_AGE;
    return is_idle(p, now_ns) || keeps_log(p, now_ns) ? CUT_IDLE : 0;
}

/* The same, once those before this replica had time to do it. Locked. */
static uint8_t cut_reason(struct partition *p, int64_t now_ns)
{
    uint8_t reason = find_cut_reason(p, now_ns);
    if (reason == 0 || p->cut_wanted_ns == 0 || p->cut_wanted_ns < p->open_range->opened_ns)
        p->cut_wanted_ns = reason == 0 ? 0 : now_ns;
    return reason == CUT_ASKED || now_ns - p->cut_wanted_ns >= partition_patience_ns(p) ? reason : 0;
}

#define FORGET_SILENCE_NS (3 * 3600 * NS_PER_SECOND)
#define FORGET_AGAIN_NS   (3600 * NS_PER_SECOND) /* one that was refused or came to nothing is sent again */

/* A producer of which no record can come any more. Locked. */
static bool find_forgettable(struct partition *p, int64_t now_ns, struct control *out_control)
{
    if (!atomic_load(&p->shards->is_ready) || p->applied.offset < p->open_end || p->apply_failed != OK)
        return false;
    for (size_t i = 0; i < p->producer_count; i++) {
        struct producer *producer = &p->producers[i];
        if (!producer->is_dead && now_ns - producer->heard_ns < FORGET_SILENCE_NS + partition_patience_ns(p))
            continue;
        if (producer->forget_asked_ns != 0 && now_ns - producer->forget_asked_ns < FORGET_AGAIN_NS)
            continue;
        if (producer->waiting_count > 0)
            continue;
        producer->forget_asked_ns = now_ns == 0 ? 1 : now_ns;
        *out_control = (struct control){ .kind = CONTROL_FORGET, .position = producer->last };
        memcpy(out_control->incarnation, producer->id, INCARNATION_BYTES);
        return true;
    }
    return false;
}

/* Is it on its way, or taken at once? */
static bool is_sent(struct control_append *slot)
{
    return atomic_load(&slot->in_flight) || atomic_load(&slot->result) == OK;
}

/* Send what control records are due. True: something was sent. What the log refuses is sent again, not at once. */
static bool send_controls(struct partition *p, int64_t now_ns)
{
    struct control cut = { 0 }, gone = { 0 };
    io_mutex_lock(&p->lock);
    bool may_decide = partition_may_decide(p);
    uint8_t reason = atomic_load(&p->cut.in_flight) ? 0 : cut_reason(p, now_ns);
    if (!may_decide)
        reason = 0;
    /* One CUT for a range start: another is sent only if the last one was refused. */
    if (reason != 0 && p->cut_sent && position_compare(p->cut_position, p->open_range->start) == 0 &&
        (atomic_load(&p->cut.result) == OK || now_ns < p->cut_retry_ns))
        reason = 0;
    if (reason != 0) {
        p->cut_sent = true;
        p->cut_retry_ns = now_ns + SHARD_RETRY_NS;
        p->cut_position = p->open_range->start;
        cut = (struct control){ .kind = CONTROL_CUT,
                                .position = p->open_range->start,
                                .reason = reason,
                                .format_version = METRIC_COMPACT_VERSION };
    }
    bool forget_due = may_decide && !atomic_load(&p->forget.in_flight) && find_forgettable(p, now_ns, &gone);
    io_mutex_unlock(&p->lock);
    if (reason != 0)
        control_send(p, &p->cut, &cut);
    if (forget_due)
        control_send(p, &p->forget, &gone);
    return (reason != 0 && is_sent(&p->cut)) || (forget_due && is_sent(&p->forget));
}

static bool commit_is_due(struct partition *p, int64_t now_ns)
{
    return p->ranges->closed && p->ranges->frozen == NULL && now_ns >= p->commit_retry_ns &&
           now_ns - p->ranges->closed_ns >= partition_patience_ns(p) && partition_may_decide(p);
}

#define FOLLOW_NS      (30 * NS_PER_SECOND)
#define FOLLOW_SOON_NS (5 * NS_PER_SECOND) /* while somebody else is to commit a range */

/* Is it time to look for what others appended? The next look is then set. Locked. */
static bool follow_is_due(struct partition *p, int64_t now_ns)
{
    bool is_due = p->shards->config.is_shared && now_ns >= p->follow_ns;
    if (is_due)
        p->follow_ns = now_ns + (p->ranges->closed ? FOLLOW_SOON_NS : FOLLOW_NS);
    return is_due;
}

err shards_commit_step(struct shards *shards, bool *out_worked)
{
    *out_worked = false;
    uint32_t count = shards->config.partition_count, first = atomic_fetch_add(&shards->work_next, 1);
    int64_t now_ns = io_monotonic_ns(shards->io);
    uint64_t back_to;
    for (uint32_t i = 0; i < count && !*out_worked; i++) {
        struct partition *p = &shards->partitions[(first + i) % count];
        if (!partition_lock(p)) {
            *out_worked = partition_tell_closed(p, now_ns) || partition_clean(p, now_ns);
            continue;
        }
        bool taken = !p->committing, due = taken && commit_is_due(p, now_ns);
        bool follows = taken && !due && follow_is_due(p, now_ns);
        bool is_back = taken && p->shards->config.is_shared && now_ns >= p->commit_retry_ns &&
                       log_went_back(shards->log, p->number, &back_to) == OK;
        p->committing = true;
        io_mutex_unlock(&p->lock);
        if (!taken)
            continue;
        err e = OK;
        if (is_back) {
            e = partition_log_went_back(p, back_to);
            *out_worked = e == OK;
        } else if (due) {
            e = partition_commit(p);
            *out_worked = e == OK;
        } else if (follows) {
            e = partition_follow(p, out_worked);
        } else {
            bool is_sending = send_controls(p, now_ns), retained = false;
            if (now_ns >= p->commit_retry_ns) /* also while the log refuses: it may be what gives it room */
                e = partition_retain(p, &retained);
            *out_worked = is_sending || retained;
        }
        io_mutex_lock(&p->lock);
        p->committing = false;
        if (e != OK)
            p->commit_retry_ns = now_ns + SHARD_RETRY_NS;
        io_mutex_unlock(&p->lock);
        if (due)
            shards_intake_update(shards);
    }
    return OK;
}
