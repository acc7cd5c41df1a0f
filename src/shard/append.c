/* The chain of an open partition grows: by entries of its own, and by those of other nodes that share the log
 * and the blob store. See partition.h, docs/format/manifest.md §5, §8.
 *
 *   own entry ─→ put under the next number ─ taken? ─ no: fold ─→ done
 *                  ↑                          yes: take over what is there
 *                  └─ still valid? ←──────────┘
 *
 * Invariants
 *  1. An entry is folded in number order, and an own one only once it is durable. What a fold names is live from
 *     the same locked step on in which the rows that it stands for leave stream and head.
 *  2. Of a shared chain a COMMIT is folded only by a replica that has the same range, closed and in its stream
 *     file, with an equal SUM. One that is behind it begins anew at the chain's end; one that differs does so,
 *     too, keeps its stream files aside, and names the doubt in the chain.
 *  3. An entry that would not be valid behind what is folded is not put: its writer looks again.
 *  4. Nothing is deleted from a shared store here: somebody else may be reading it.
 *  5. A replica whose lease has ended puts nothing but what is lost, and the generation of a log that went back:
 *     that is no decision but knowledge, which would die with it. */
#include "shard/partition.h"

#include "base/check.h"
#include "base/diag.h"
#include "base/stat.h"

#include <stdio.h>

#define BEHIND_NS SHARD_RANK_NS /* so long a replica may take to apply what others have committed */

static err fold_locked(struct partition *p, const struct chain_entry *entry, bool *out_valid)
{
    const char *why;
    io_mutex_lock(&p->lock);
    err e = chain_fold(&p->chain, entry, out_valid, &why);
    io_mutex_unlock(&p->lock);
    if (e == OK && !*out_valid)
        diag(DIAG_WARN, "A manifest entry is not valid and ignored.",
             "partition=%u number=%llu reason=\"%s\"", p->number, (unsigned long long)entry->number, why);
    return e;
}

err partition_chain_promise(struct partition *p)
{
    char key[SHARD_KEY_BYTES_MAX];
    if (p->shards->config.is_shared)
        return OK; /* what such a store shows is durable */
    snprintf(key, sizeof key, "p%03u/chain/" CHAIN_MARK, p->number);
    TRY(object_put_again(p->shards->blob, key, slice_str("x")));
    return blob_delete(p->shards->blob, key);
}

err partition_entry_put(struct partition *p, struct chain_entry *entry, struct pool *scratch)
{
    char key[SHARD_KEY_BYTES_MAX];
    struct buf bytes = buf_open(scratch, CHAIN_ENTRY_BYTES_MAX);
    bool is_known = entry->kind == CHAIN_LOSSES || entry->kind == CHAIN_GENERATION;
    if (!is_known && !partition_may_decide(p))
        return ERR_BUSY;
    entry->partition = p->number;
    entry->number = p->chain.next_number;
    if (entry->kind == CHAIN_BASE)
        entry->leader_epoch = p->chain.leader_epoch;
    entry->written_ms = io_now_ms(p->shards->io);
    TRY(chain_entry_encode(entry, &bytes));
    chain_key(p->number, entry->number, key);
    return blob_put(p->shards->blob, key, buf_slice(&bytes));
}

/* Does `there`, decoded as *other, say what *entry does? All but when. */
static err is_same_entry(const struct chain_entry *entry, const struct chain_entry *other, struct slice there,
                         struct pool *scratch, bool *out_is_same)
{
    struct buf bytes = buf_open(scratch, CHAIN_ENTRY_BYTES_MAX);
    struct chain_entry same = *entry;
    same.written_ms = other->written_ms;
    TRY(chain_entry_encode(&same, &bytes));
    *out_is_same = slice_equal(buf_slice(&bytes), there);
    return OK;
}

/* ---- what others wrote ---- */

err partition_entry_read(struct partition *p, uint64_t number, struct pool *scratch, struct slice *out_bytes,
                         struct chain_entry *out_entry)
{
    return chain_entry_read(p->shards->blob, p->number, number, scratch, out_bytes, out_entry);
}

static err append_pending(struct partition *p, struct chain_loss *pending);

void partition_remember(struct partition *p)
{
    if (!p->shards->config.is_shared || p->gone_back.generation != 0)
        return;
    p->gone_back.generation = p->applied.generation; /* what was told of it stays told */
    p->gone_back.since_ns = io_boottime_ns(p->shards->io);
}

static void begin_anew(struct partition *p, const struct chain_entry *entry, const char *why)
{
    stat_add(STAT_SHARD_BEGUN_ANEW, 1);
    diag(DIAG_WARN, "A partition begins anew at the end of its chain.",
         "partition=%u number=%llu why=\"%s\" range_end=%llu", p->number, (unsigned long long)entry->number,
         why, (unsigned long long)entry->end.offset);
    partition_remember(p);
    shards_partition_close(p->shards, p->number); /* the owner opens it again */
}

/* The times of all rows of the oldest range, wherever they are. */
static struct time_range times_of(struct partition *p, const struct chain_entry *entry)
{
    struct time_range times = { INT64_MAX, INT64_MIN };
    for (size_t i = 0; i < entry->segment_count; i++)
        times = time_range_join(times, entry->segments[i].range);
    io_mutex_lock(&p->lock);
    for (const struct range_group *g = p->ranges->groups; g != NULL; g = g->next)
        times = time_range_join(times, g->facts.range);
    for (const struct frozen *f = p->ranges->frozen; f != NULL; f = f->next)
        if (f->head != NULL)
            times = time_range_join(times, f->view.range);
    if (p->ranges == p->open_range && p->head_rows > 0)
        times = time_range_join(times, metric_head_view(p->head).range);
    io_mutex_unlock(&p->lock);
    return times.min_ms <= times.max_ms ? times : (struct time_range){ TIME_MS_MIN, TIME_MS_MAX };
}

static void pend(struct partition *p, struct chain_loss *pending, const struct chain_loss *loss)
{
    io_mutex_lock(&p->lock);
    if (pending->kind == 0)
        *pending = *loss;
    else if (loss->kind != 0) {
        if (position_compare(loss->from, pending->from) < 0)
            pending->from = loss->from;
        chain_loss_join(pending, loss);
    }
    io_mutex_unlock(&p->lock);
}

/* Two replicas made different rows of the same records. The chain's are served, and answers about them say so,
 * until it is known who is right; this replica's are kept. */
static err doubt(struct partition *p, const struct chain_entry *entry, struct sum own)
{
    struct chain_loss loss = { LOSS_DOUBT, entry->start, entry->end, times_of(p, entry), 0, false };
    bool valid;
    stat_add(STAT_SHARD_DOUBTS, 1);
    diag(DIAG_ERROR, "Two replicas of a range differ; answers about its times say so until that is settled.",
         "partition=%u start=%llu end=%llu rows=%llu other_rows=%llu", p->number,
         (unsigned long long)entry->start.offset, (unsigned long long)entry->end.offset,
         (unsigned long long)own.count, (unsigned long long)entry->sum.count);
    for (const struct stream_part *part = p->ranges->parts; part != NULL; part = part->next)
        TRY(range_part_set_aside(p, p->ranges, part->part));
    pend(p, &p->doubt, &loss);
    begin_anew(p, entry, "it differs");
    TRY(fold_locked(p, entry, &valid)); /* so that what is named stands right behind it */
    TRY(append_pending(p, &p->doubt));  /* if that fails, the next life does it */
    return ERR_ORDER;
}

/* ---- a log that went back ---- */

/* What this process saw of a log that went back to `back_to`, that nobody has, and that is not named yet. Kind 0:
 * nothing. What was committed of the log as it was is not lost; a chain's end of a higher epoch than what was seen
 * is of another log. */
static struct chain_loss lost_end(struct partition *p, uint64_t back_to)
{
    const struct gone_back *g = &p->gone_back;
    struct log_seen seen = log_seen(p->shards->log, p->number);
    struct log_position chain_end = p->chain.end;
    uint64_t generation = g->generation != 0 ? g->generation : p->applied.generation, from = back_to;
    bool is_known = seen.leader_epoch != LOG_EPOCH_NONE && p->chain.leader_epoch != LOG_EPOCH_NONE;
    bool is_of_it =
        chain_end.generation == generation && is_known && p->chain.leader_epoch <= seen.leader_epoch;
    if (is_of_it && chain_end.offset > from)
        from = chain_end.offset;
    bool is_told = from >= g->told_from && seen.end_offset <= g->told_to;
    if (is_told || from >= seen.end_offset)
        return (struct chain_loss){ 0 };
    return (struct chain_loss){ .kind = LOSS_LOG,
                                .from = { generation, from },
                                .to = { generation, seen.end_offset },
                                .range = { TIME_MS_MIN, io_now_ms(p->shards->io) + SHARD_LOSS_BEHIND_MS } };
}

/* The driver says where the log parts from what was seen: what is lost waits to be named, once until it goes
 * on: a chain's end that others set back since does not tell any more what of it the chain has. */
static void pend_lost_end(struct partition *p, uint64_t back_to)
{
    struct gone_back *g = &p->gone_back;
    struct log_seen seen = log_seen(p->shards->log, p->number);
    struct chain_loss loss = lost_end(p, back_to);
    pend(p, &p->lost_end, &loss);
    g->told_from = g->told_to == 0 || back_to < g->told_from ? back_to : g->told_from;
    g->told_to = seen.end_offset > g->told_to ? seen.end_offset : g->told_to;
}

/* An entry waits for this replica: may it wait on? */
static bool is_patient(struct partition *p)
{
    int64_t now_ns = io_boottime_ns(p->shards->io);
    if (p->behind_ns == 0)
        p->behind_ns = now_ns == 0 ? 1 : now_ns;
    return now_ns - p->behind_ns < BEHIND_NS;
}

/* Was all that is applied here read of the log as it is now: is an end reached that was confirmed since the entry
 * is known? The driver does not say that it went back. */
static bool is_of_this_log(struct partition *p)
{
    struct log_watermarks w = log_watermarks(p->shards->log, p->number);
    if (p->behind_ns == 0)
        return false;
    if (p->sure_end == 0 && w.confirmed_ns > p->behind_ns)
        p->sure_end = w.end_offset + 1;
    io_mutex_lock(&p->lock);
    bool is_reached = p->sure_end > 0 && p->applied.offset + 1 >= p->sure_end && p->apply_failed == OK;
    io_mutex_unlock(&p->lock);
    return is_reached;
}

/* Does a generation behind this COMMIT in the chain take back some of it? Then it was of a log that is no more. */
static bool is_taken_back(struct partition *p, const struct chain_entry *entry, struct pool *scratch)
{
    for (uint64_t number = entry->number + 1;; number++) {
        struct slice there;
        struct chain_entry later;
        if (partition_entry_read(p, number, scratch, &there, &later) != OK)
            return false;
        if (later.kind == CHAIN_GENERATION)
            return later.end.offset < entry->end.offset;
    }
}

/* May this COMMIT of somebody else be folded: does this replica have the same range, and the same rows? OK;
 * ERR_BUSY: not yet; ERR_ORDER: the partition begins anew. */
static err commit_compare(struct partition *p, const struct chain_entry *entry, struct pool *scratch)
{
    uint64_t back_to;
    err e = log_went_back(p->shards->log, p->number, &back_to);
    if (e == OK) { /* what is here is no measure */
        pend_lost_end(p, back_to);
        begin_anew(p, entry, "the log went back");
        return ERR_ORDER;
    }
    io_mutex_lock(&p->lock);
    const struct range *range = p->ranges; /* stays: chain_lock is held */
    bool is_other = position_compare(range->start, entry->start) != 0;
    bool is_closed = range->closed && position_compare(range->end, entry->end) == 0;
    bool is_spilled = range->frozen == NULL;
    bool is_behind = position_compare(p->applied, entry->end) < 0;
    struct sum own = range->sum;
    bool is_equal =
        is_closed && sum_equal(range->sum, entry->sum) && sum_equal(range->unresolved, entry->unresolved);
    io_mutex_unlock(&p->lock);
    if (is_other || (is_equal && is_spilled))
        return OK; /* other: it left already, or the entry is not valid, which the fold knows */
    if (is_equal)
        return ERR_BUSY;
    bool may_wait = is_patient(p), is_sure = e == ERR_NOT_FOUND && is_of_this_log(p);
    if (may_wait || (!is_behind && !is_sure))
        return ERR_BUSY; /* a moment, mostly: until it is applied here, or the log is known to have gone back */
    if (!is_behind && !is_taken_back(p, entry, scratch))
        return doubt(p, entry, own);
    begin_anew(p, entry, is_behind ? "it is behind" : "the log went back");
    return ERR_ORDER;
}

/* A later generation: what this replica applied since the chain's end may not be what the log has now. Once it is
 * known whether it is, what nobody else told is named, and the partition begins anew. */
static err generation_compare(struct partition *p, const struct chain_entry *entry)
{
    uint64_t back_to;
    bool valid;
    if (entry->end.generation <= p->applied.generation)
        return OK;
    err e = log_went_back(p->shards->log, p->number, &back_to);
    (void)is_patient(p); /* it waits from here on, however long brokers are away */
    if (e == OK)
        pend_lost_end(p, back_to);
    else if (e != ERR_NOT_FOUND || !is_of_this_log(p))
        return ERR_BUSY;
    begin_anew(p, entry, "the log went back");
    TRY(fold_locked(p, entry, &valid));
    TRY(append_pending(p, &p->lost_end)); /* if that fails, the next life does it */
    return ERR_ORDER;
}

/* Fold the entry that is there under the next number, and make live what it names. ERR_NOT_FOUND: there is
 * none. mine: the one that was to be put there, or NULL; *out_is_mine, and then *out_valid. */
static err take_over(struct partition *p, const struct chain_entry *mine, struct pool *scratch,
                     bool *out_is_mine, bool *out_valid)
{
    struct slice there;
    struct chain_entry entry;
    bool is_shared = p->shards->config.is_shared && atomic_load(&p->stage) != SHARD_OPENING;
    if (is_shared)
        TRY(partition_chain_settle(p)); /* memory may have failed behind the entry before */
    TRY(partition_entry_read(p, p->chain.next_number, scratch, &there, &entry));
    *out_is_mine = false;
    if (mine != NULL)
        TRY(is_same_entry(mine, &entry, there, scratch, out_is_mine));
    bool compares = is_shared && !*out_is_mine && !(p->shards->config.canary & SHARD_CANARY_FOLD_BLINDLY);
    if (compares && entry.kind == CHAIN_COMMIT)
        TRY(commit_compare(p, &entry, scratch));
    if (compares && entry.kind == CHAIN_GENERATION)
        TRY(generation_compare(p, &entry));
    TRY(partition_chain_promise(p)); /* an attempt of ours whose end was not seen */
    TRY(fold_locked(p, &entry, out_valid));
    stat_add(STAT_SHARD_TAKEN_OVER, !*out_is_mine);
    p->behind_ns = 0;
    p->sure_end = 0;
    if (entry.kind == CHAIN_RETAIN && *out_valid)
        partition_retained(p);
    return is_shared && !*out_is_mine ? partition_chain_settle(p) : OK;
}

err partition_entry_append(struct partition *p, struct chain_entry *entry, bool *out_valid)
{
    struct pool *scratch = pool_open(p->shards->pool, "entry", POOL_BYTES_UNLIMITED);
    err e = OK;
    for (bool done = false; !done;) {
        pool_reset(scratch);
        if (p->shards->config.is_shared)
            TRY_OUT(chain_would_take(&p->chain, entry, out_valid));
        if (p->shards->config.is_shared && !*out_valid)
            break;
        e = partition_entry_put(p, entry, scratch);
        if (e == OK) {
            TRY_OUT(fold_locked(p, entry, out_valid));
            break;
        }
        if (e != ERR_EXISTS)
            goto out;
        stat_add(STAT_SHARD_RACES, 1);
        TRY_OUT(take_over(p, entry, scratch, &done, out_valid));
    }
    e = OK;
out:
    pool_close(scratch);
    return e;
}

/* Does the chain name it already? Who tells of the same going back does so within minutes, with times up to
 * then. */
static bool is_named(const struct chain *c, const struct chain_loss *loss)
{
    int64_t max_ms = loss->range.max_ms - (loss->kind == LOSS_LOG ? SHARD_LOSS_BEHIND_MS : 0);
    for (size_t i = 0; i < c->loss_count; i++) {
        const struct chain_loss *there = &c->losses[i];
        bool has_times = there->range.min_ms <= loss->range.min_ms && there->range.max_ms >= max_ms;
        if (there->kind == loss->kind && !there->accepted && has_times &&
            position_compare(there->from, loss->from) <= 0 && position_compare(there->to, loss->to) >= 0)
            return true;
    }
    return false;
}

static void forget_pending(struct partition *p, struct chain_loss *pending)
{
    io_mutex_lock(&p->lock); /* answers look at it */
    pending->kind = 0;
    io_mutex_unlock(&p->lock);
}

/* What an earlier life of the partition left to be named, unless an attempt whose end was not seen did it. */
static err append_pending(struct partition *p, struct chain_loss *pending)
{
    struct chain_entry entry = {
        .kind = CHAIN_LOSSES, .leader_epoch = LOG_EPOCH_NONE, .losses = pending, .loss_count = 1
    };
    bool valid;
    if (pending->kind != 0 && !is_named(&p->chain, pending))
        TRY(partition_entry_append(p, &entry, &valid));
    forget_pending(p, pending);
    return OK;
}

err partition_follow(struct partition *p, bool *out_worked)
{
    struct pool *scratch = pool_open(p->shards->pool, "follow", POOL_BYTES_UNLIMITED);
    err e = OK;
    io_mutex_lock(&p->chain_lock);
    while (e == OK) {
        bool is_mine, valid;
        pool_reset(scratch);
        e = take_over(p, NULL, scratch, &is_mine, &valid);
        *out_worked = *out_worked || e == OK;
    }
    e = e == ERR_NOT_FOUND || e == ERR_BUSY || e == ERR_ORDER ? OK : e;
    if (e == OK && atomic_load(&p->stage) == SHARD_OPEN)
        e = append_pending(p, &p->doubt);
    if (e == OK && atomic_load(&p->stage) == SHARD_OPEN)
        e = append_pending(p, &p->lost_end);
    if (e != OK && e != p->follow_failed)
        diag(DIAG_WARN, "Cannot take over what other replicas appended to a chain, retrying.",
             "partition=%u number=%llu error=\"%s\"", p->number, (unsigned long long)p->chain.next_number,
             err_text(e));
    p->follow_failed = e;
    io_mutex_unlock(&p->chain_lock);
    pool_close(scratch);
    partition_doomed_release(p);
    return e;
}

/* What is applied, and what the chain holds, is of the log as it is now: it lies below `back_to`, or a generation
 * that others began since came in between. What is above `back_to` then, the reader checks by its epoch. */
static bool is_good(struct partition *p, uint64_t back_to)
{
    uint64_t seen = p->gone_back.generation;
    io_mutex_lock(&p->lock);
    bool is_below = p->applied.offset <= back_to && p->chain.end.offset <= back_to;
    io_mutex_unlock(&p->lock);
    return is_below ||
           (seen != 0 && p->chain.end.generation > seen && p->chain.leader_epoch != LOG_EPOCH_NONE);
}

static err begin_generation(struct partition *p, uint64_t back_to)
{
    bool valid;
    pend_lost_end(p, back_to);
    struct chain_loss loss = p->lost_end; /* and what an earlier life left */
    struct log_position end = p->chain.end;
    struct chain_entry entry = { .kind = CHAIN_GENERATION,
                                 .end = { end.generation + 1, back_to < end.offset ? back_to : end.offset },
                                 .losses = &loss,
                                 .loss_count = loss.kind != 0 };
    entry.leader_epoch = log_epoch_before(p->shards->log, p->number, entry.end.offset);
    if (entry.leader_epoch == LOG_EPOCH_NONE && entry.end.offset == end.offset)
        entry.leader_epoch = p->chain.leader_epoch;
    diag(DIAG_ERROR, "The log went back; a new generation begins, and answers name what was lost.",
         "partition=%u generation=%llu offset=%llu lost=%llu", p->number,
         (unsigned long long)entry.end.generation, (unsigned long long)back_to,
         (unsigned long long)(loss.to.offset - loss.from.offset));
    TRY(partition_entry_append(p, &entry, &valid)); /* ERR_ORDER: somebody else's generation was there */
    if (!valid)
        return OK;
    forget_pending(p, &p->lost_end);
    begin_anew(p, &entry, "the log went back");
    return OK;
}

err partition_log_went_back(struct partition *p, uint64_t back_to)
{
    err e;
    io_mutex_lock(&p->chain_lock);
    if (is_good(p, back_to)) {
        const struct chain_entry here = { .number = p->chain.next_number - 1, .end = p->chain.end };
        pend_lost_end(p, back_to);
        e = append_pending(p, &p->lost_end);
        if (e == OK)
            begin_anew(p, &here, "the log went back, not below what is applied");
    } else {
        e = begin_generation(p, back_to);
    }
    io_mutex_unlock(&p->chain_lock);
    partition_doomed_release(p);
    return e == ERR_ORDER ? OK : e;
}

/* So long a driver may take to find out that the log went back. */
#define REMEMBERED_NS (3600 * NS_PER_SECOND)

static void go_on(struct partition *p, uint64_t from)
{
    log_go_on(p->shards->log, p->number, from);
    p->gone_back = (struct gone_back){ 0 };
}

void partition_log_goes_on(struct partition *p)
{
    uint64_t back_to;
    if (!p->shards->config.is_shared)
        return;
    err e = log_went_back(p->shards->log, p->number, &back_to);
    if (e == ERR_NOT_FOUND) {
        if (io_boottime_ns(p->shards->io) - p->gone_back.since_ns >= REMEMBERED_NS)
            p->gone_back = (struct gone_back){ 0 };
        return;
    }
    /* What the chain alone tells, with its epoch, the reader checks. */
    bool is_chain =
        position_compare(p->applied, p->chain.end) == 0 && p->chain.leader_epoch != LOG_EPOCH_NONE;
    if (e != OK || !(is_chain || is_good(p, back_to)))
        return; /* the first steps find out more */
    /* If the life before did not: the first steps append it. */
    pend_lost_end(p, back_to);
    go_on(p, p->applied.offset < back_to ? p->applied.offset : back_to);
}

err partition_log_told(struct partition *p)
{
    uint64_t back_to;
    err e = log_went_back(p->shards->log, p->number, &back_to);
    bool is_back = e == OK;
    p->applied = p->chain.end;
    p->leader_epoch = p->chain.leader_epoch;
    io_mutex_lock(&p->chain_lock);
    bool is_unsure = is_back && p->chain.end.offset > back_to && p->chain.leader_epoch == LOG_EPOCH_NONE;
    if (is_back && !is_unsure)
        pend_lost_end(p, back_to);
    e = is_unsure ? begin_generation(p, back_to) : append_pending(p, &p->lost_end);
    if (e == OK)
        e = append_pending(p, &p->doubt);
    io_mutex_unlock(&p->chain_lock);
    TRY(e);
    if (is_back) {
        go_on(p, back_to);
        p->applied = p->chain.end; /* with the generation that began here, if one did */
        partition_remember(p); /* it may be opened in a later one before the driver hears why that began */
    }
    return OK;
}
