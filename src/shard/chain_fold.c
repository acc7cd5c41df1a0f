/* The fold of a chain's entries: what a partition has stored. See chain.h and docs/format/manifest.md §2.
 *
 * The same fold runs over what the blob store has, at start, verify and restore, and when an entry was just
 * written, so that memory and disk cannot tell different stories.
 *
 * Invariants  1. c->segments are sorted by (from, to, digest): position order; ties only between segments of
 * one range,
 *     whose rows never share a (series, t), or whose times do not overlap.
 *  2. Two live segments whose times overlap have disjoint spans, or come from one range: chain_may_replace
 *     keeps it so.
 *  3. A COMMIT is valid only if its start is c->end; so the spans of all commits tile the path of positions.
 * 4. An entry that is not valid changes nothing but next_number.
 *  5. Of an era before the one before the present one no object becomes live that was not: sweeps delete such
 *     objects, and a delete may arrive as late as it likes. */
#include "shard/chain.h"

#include "base/check.h"

struct chain chain_open(struct pool *pool, uint32_t partition, struct log_position start)
{
    return (struct chain){ .pool = pool,
                           .partition = partition,
                           .next_number = 1,
                           .first_number = 1,
                           .end = start,
                           .leader_epoch = LOG_EPOCH_NONE,
                           .cutoff_ms = TIME_MS_MIN,
                           .data_through_ms = INT64_MIN };
}

void chain_close(struct chain *c)
{
    pool_block_free(c->pool, c->segments);
    pool_block_free(c->pool, c->losses);
    c->segments = NULL;
    c->losses = NULL;
    c->segment_count = c->segment_capacity = c->loss_count = c->loss_capacity = 0;
}

static int segment_order(const struct chain_segment *a, const struct chain_segment *b)
{
    int order = position_compare(a->from, b->from);
    if (order == 0)
        order = position_compare(a->to, b->to);
    if (order == 0)
        order = a->range.min_ms < b->range.min_ms ? -1 : a->range.min_ms > b->range.min_ms;
    return order != 0 ? order : memcmp(a->digest, b->digest, SHA256_BYTES);
}

static err reserve_segments(struct chain *c, size_t more)
{
    if (c->segment_count + more > CHAIN_LIVE_COUNT_MAX)
        return ERR_LIMIT;
    void *block = c->segments;
    TRY(pool_block_reserve(c->pool, &block, sizeof *c->segments, c->segment_count + more,
                           &c->segment_capacity));
    c->segments = block;
    return OK;
}

/* Room was reserved. */
static void insert_segment(struct chain *c, const struct chain_segment *s)
{
    size_t at = c->segment_count;
    while (at > 0 && segment_order(s, &c->segments[at - 1]) < 0)
        at--;
    memmove(c->segments + at + 1, c->segments + at, (c->segment_count - at) * sizeof *c->segments);
    c->segments[at] = *s;
    c->segment_count++;
}

static void remove_segment(struct chain *c, size_t at)
{
    c->segment_count--;
    memmove(c->segments + at, c->segments + at + 1, (c->segment_count - at) * sizeof *c->segments);
}

static bool ranges_overlap(struct time_range a, struct time_range b)
{
    return a.min_ms <= b.max_ms && b.min_ms <= a.max_ms;
}

bool chain_may_replace(const struct chain *c, const size_t *indexes, size_t count)
{
    check(count > 0);
    struct log_position from = c->segments[indexes[0]].from, to = c->segments[indexes[0]].to;
    struct time_range range = c->segments[indexes[0]].range;
    for (size_t i = 1; i < count; i++) {
        const struct chain_segment *s = &c->segments[indexes[i]];
        from = position_compare(s->from, from) < 0 ? s->from : from;
        to = position_compare(s->to, to) > 0 ? s->to : to;
        range = time_range_join(range, s->range);
    }
    size_t next = 0;
    for (size_t i = 0; i < c->segment_count; i++) {
        if (next < count && indexes[next] == i) {
            next++;
            continue;
        }
        const struct chain_segment *s = &c->segments[i];
        bool between = position_compare(s->from, to) < 0 && position_compare(from, s->to) < 0;
        if (between && ranges_overlap(s->range, range))
            return false;
    }
    return true;
}

bool chain_losses_meet(const struct chain_loss *last, const struct chain_loss *next)
{
    return last->kind == next->kind && position_compare(last->from, next->from) <= 0 &&
           (next->kind == LOSS_UNRESOLVED || position_compare(next->from, last->to) <= 0);
}

void chain_loss_join(struct chain_loss *last, const struct chain_loss *next)
{
    if (position_compare(last->to, next->to) < 0)
        last->to = next->to;
    last->row_count = last->row_count > 0 && next->row_count > 0 ? last->row_count + next->row_count : 0;
    last->range = time_range_join(last->range, next->range);
    last->accepted = last->accepted && next->accepted;
}

/* Beyond the bound the last one grows: what is lost stays named, though not exactly where. */
static err add_losses(struct chain *c, const struct chain_entry *entry)
{
    void *block = c->losses;
    TRY(pool_block_reserve(c->pool, &block, sizeof *c->losses, c->loss_count + entry->loss_count + 1,
                           &c->loss_capacity));
    c->losses = block;
    for (size_t i = 0; i < entry->loss_count; i++)
        if (c->loss_count < CHAIN_LOSS_COUNT_MAX)
            c->losses[c->loss_count++] = entry->losses[i];
        else
            chain_loss_join(&c->losses[c->loss_count - 1], &entry->losses[i]);
    return OK;
}

static void take_state(struct chain *c, const struct chain_entry *entry)
{
    memcpy(c->state_digests[1], c->state_digests[0], SHA256_BYTES);
    memcpy(c->state_digests[0], entry->state_digest, SHA256_BYTES);
    c->state_eras[1] = c->state_eras[0];
    c->state_eras[0] = entry->state_era;
}

uint64_t chain_put_era(const struct chain *c)
{
    return c->era_unread > c->eras[0] ? c->era_unread : c->eras[0];
}

/* May what the entry names be on its way out? */
static bool names_old(const struct chain *c, const struct chain_entry *entry)
{
    bool is_old = entry->kind == CHAIN_COMMIT && entry->state_era < c->eras[1];
    for (size_t i = 0; i < entry->segment_count && !is_old; i++)
        is_old = entry->segments[i].era < c->eras[1];
    return is_old && !c->takes_old;
}

#define NAMES_OLD "what it names was put two eras ago, and may be deleted"

/* Of an entry with a range: what it names lies in it, and adds up to its SUM. */
static const char *segments_invalid(const struct chain *c, const struct chain_entry *entry)
{
    struct sum sum = { 0 };
    if (names_old(c, entry))
        return NAMES_OLD;
    for (size_t i = 0; i < entry->segment_count; i++) {
        const struct chain_segment *s = &entry->segments[i];
        if (position_compare(s->from, entry->start) < 0 || position_compare(s->to, entry->end) > 0)
            return "a segment lies outside its range";
        sum_add(&sum, s->sum);
    }
    return sum_equal(sum, entry->sum) ? NULL : "its sums do not agree";
}

static const char *commit_invalid(const struct chain *c, const struct chain_entry *entry)
{
    if (position_compare(entry->start, c->end) != 0 || position_compare(entry->start, entry->end) >= 0)
        return "its range does not start at the chain's end";
    const char *why = segments_invalid(c, entry);
    if (why != NULL)
        return why;
    return entry->resolved_added.count == entry->resolved_removed.count ? NULL : "its sums do not agree";
}

static err fold_commit(struct chain *c, const struct chain_entry *entry, const char **out_why)
{
    *out_why = commit_invalid(c, entry);
    if (*out_why != NULL)
        return OK;
    TRY(reserve_segments(c, entry->segment_count));
    TRY(add_losses(c, entry));
    for (size_t i = 0; i < entry->segment_count; i++)
        insert_segment(c, &entry->segments[i]);
    c->end = entry->end;
    c->leader_epoch = entry->leader_epoch;
    if (entry->data_through_ms > c->data_through_ms)
        c->data_through_ms = entry->data_through_ms;
    take_state(c, entry);
    c->unresolved = entry->unresolved;
    c->commit_count++;
    return OK;
}

/* Index of a live segment by digest, at or behind `from` in the cyclic sense of a plain scan; count = none. */
static size_t find_segment(const struct chain *c, const uint8_t digest[SHA256_BYTES])
{
    size_t i = 0;
    while (i < c->segment_count && memcmp(c->segments[i].digest, digest, SHA256_BYTES) != 0)
        i++;
    return i;
}

/* *out_count: how many of the inputs are live, their indexes ascending. Behind a lost entry an input may be
 * one that only it named: what the outputs hold is known all the same, and of their sums nothing can be said. */
static const char *replace_invalid(const struct chain *c, const struct chain_entry *entry, size_t *indexes,
                                   size_t *out_count)
{
    struct sum in = { 0 }, out = entry->dropped;
    struct log_position from = { UINT64_MAX, UINT64_MAX }, to = { 0, 0 };
    size_t count = 0;
    if (names_old(c, entry))
        return NAMES_OLD;
    for (size_t i = 0; i < entry->input_count; i++) {
        size_t at = find_segment(c, entry->inputs[i]);
        if (at == c->segment_count && c->lost_count > 0)
            continue;
        if (at == c->segment_count)
            return "an input is not live";
        size_t k = count++; /* insertion sort; equal indexes mean an input named twice */
        while (k > 0 && indexes[k - 1] > at) {
            indexes[k] = indexes[k - 1];
            k--;
        }
        if (k > 0 && indexes[k - 1] == at)
            return "an input is named twice";
        indexes[k] = at;
        sum_add(&in, c->segments[at].sum);
        from = position_compare(c->segments[at].from, from) < 0 ? c->segments[at].from : from;
        to = position_compare(c->segments[at].to, to) > 0 ? c->segments[at].to : to;
    }
    *out_count = count;
    if (count < entry->input_count) {
        for (size_t i = 0; i < entry->segment_count; i++)
            if (find_segment(c, entry->segments[i].digest) < c->segment_count)
                return "an output is live";
        return NULL;
    }
    for (size_t i = 0; i < entry->segment_count; i++) {
        const struct chain_segment *s = &entry->segments[i];
        if (position_compare(s->from, from) != 0 || position_compare(s->to, to) != 0)
            return "an output's span is not that of the inputs";
        sum_add(&out, s->sum);
    }
    if (!sum_equal(in, out))
        return "its sums do not agree";
    if (!chain_may_replace(c, indexes, entry->input_count))
        return "the inputs are not neighbours";
    return NULL;
}

static err fold_replace(struct chain *c, const struct chain_entry *entry, const char **out_why)
{
    void *block = NULL;
    TRY(pool_block_resize(c->pool, &block, entry->input_count * sizeof(size_t)));
    size_t *indexes = block, count;
    err e = OK;
    *out_why = replace_invalid(c, entry, indexes, &count);
    if (*out_why != NULL)
        goto out;
    TRY_OUT(reserve_segments(c, entry->segment_count));
    for (size_t i = count; i > 0; i--)
        remove_segment(c, indexes[i - 1]);
    for (size_t i = 0; i < entry->segment_count; i++)
        insert_segment(c, &entry->segments[i]);
    sum_add(&c->dropped, entry->dropped);
out:
    pool_block_free(c->pool, block);
    return e;
}

static const char *adopt_invalid(const struct chain *c, const struct chain_entry *entry)
{
    bool follows = position_compare(entry->start, c->adopted_end) == 0 && entry->end.generation == 0 &&
                   position_compare(entry->start, entry->end) < 0;
    return follows ? segments_invalid(c, entry) : "it does not begin where the adoption before it ends";
}

/* Its segments lie below every position of the log, whose generations begin at 1: of equal times the log's win. */
static err fold_adopt(struct chain *c, const struct chain_entry *entry, const char **out_why)
{
    *out_why = adopt_invalid(c, entry);
    if (*out_why != NULL)
        return OK;
    TRY(reserve_segments(c, entry->segment_count));
    TRY(add_losses(c, entry));
    for (size_t i = 0; i < entry->segment_count; i++)
        insert_segment(c, &entry->segments[i]);
    c->adopted_end = entry->end;
    return OK;
}

static void fold_retain(struct chain *c, const struct chain_entry *entry, const char **out_why)
{
    if (entry->cutoff_ms <= c->cutoff_ms) {
        *out_why = "the cut-off does not advance";
        return;
    }
    c->cutoff_ms = entry->cutoff_ms;
    size_t kept = 0;
    for (size_t i = 0; i < c->segment_count; i++) {
        if (c->segments[i].range.max_ms < c->cutoff_ms)
            sum_add(&c->dropped, c->segments[i].sum);
        else
            c->segments[kept++] = c->segments[i];
    }
    c->segment_count = kept;
    kept = 0;
    for (size_t i = 0; i < c->loss_count; i++)
        if (c->losses[i].range.max_ms >= c->cutoff_ms)
            c->losses[kept++] = c->losses[i];
    c->loss_count = kept;
    *out_why = NULL;
}

static err fold_lost(struct chain *c, const struct chain_entry *entry)
{
    TRY(reserve_segments(c, entry->segment_count));
    TRY(add_losses(c, entry));
    for (size_t i = 0; i < entry->input_count; i++) {
        size_t at = find_segment(c, entry->inputs[i]);
        if (at < c->segment_count)
            remove_segment(c, at);
    }
    for (size_t i = 0; i < entry->segment_count; i++)
        if (find_segment(c, entry->segments[i].digest) == c->segment_count)
            insert_segment(c, &entry->segments[i]);
    if (position_compare(entry->end, c->end) > 0) {
        c->end = entry->end;
        c->leader_epoch = entry->leader_epoch; /* not known: the one before is another record's */
    }
    static const uint8_t none[SHA256_BYTES];
    if (memcmp(entry->state_digest, none, SHA256_BYTES) != 0)
        take_state(c, entry);
    c->lost_count++;
    return OK;
}

bool chain_loss_equal(const struct chain_loss *a, const struct chain_loss *b)
{
    return a->kind == b->kind && position_compare(a->from, b->from) == 0 &&
           position_compare(a->to, b->to) == 0 && a->range.min_ms == b->range.min_ms &&
           a->range.max_ms == b->range.max_ms && a->row_count == b->row_count;
}

static err fold_accept(struct chain *c, const struct chain_entry *entry)
{
    struct chain_loss *gone = NULL;
    void *block = NULL;
    TRY(pool_block_resize(c->pool, &block, entry->input_count * sizeof *gone + 1));
    gone = block;
    struct chain_entry given_up = { .losses = gone };
    for (size_t i = 0; i < entry->input_count; i++) {
        size_t at = find_segment(c, entry->inputs[i]);
        if (at == c->segment_count)
            continue;
        const struct chain_segment *s = &c->segments[at];
        gone[given_up.loss_count++] =
            (struct chain_loss){ LOSS_SEGMENT, s->from, s->to, s->range, s->sum.count, true };
    }
    err e = add_losses(c, &given_up);
    pool_block_free(c->pool, block);
    TRY(e);
    for (size_t i = 0; i < entry->input_count; i++) {
        size_t at = find_segment(c, entry->inputs[i]);
        if (at == c->segment_count)
            continue;
        sum_add(&c->dropped, c->segments[at].sum);
        remove_segment(c, at);
    }
    for (size_t i = 0; i < entry->loss_count; i++)
        for (size_t k = 0; k < c->loss_count; k++)
            c->losses[k].accepted =
                c->losses[k].accepted || chain_loss_equal(&c->losses[k], &entry->losses[i]);
    if (position_compare(entry->end, c->accepted_end) > 0)
        c->accepted_end = entry->end;
    return OK;
}

/* Whoever wrote it knew every entry before, so that it also heals what stood in for a damaged one. */
static err fold_base(struct chain *c, const struct chain_entry *entry)
{
    size_t segments = c->segment_count, losses = c->loss_count;
    c->segment_count = c->loss_count = 0;
    err e = reserve_segments(c, entry->segment_count + 1);
    if (e == OK)
        e = add_losses(c, entry);
    if (e != OK) {
        c->segment_count = segments;
        c->loss_count = losses;
        return e;
    }
    for (size_t i = 0; i < entry->segment_count; i++)
        insert_segment(c, &entry->segments[i]);
    c->end = entry->end;
    c->leader_epoch = entry->leader_epoch;
    c->cutoff_ms = entry->cutoff_ms;
    c->data_through_ms = entry->data_through_ms;
    memcpy(c->state_digests[0], entry->state_digest, SHA256_BYTES);
    memcpy(c->state_digests[1], entry->older_state_digest, SHA256_BYTES);
    c->state_eras[0] = entry->state_era;
    c->state_eras[1] = entry->older_state_era;
    memcpy(c->eras, entry->eras, sizeof c->eras);
    c->era_unread = 0;
    c->unresolved = entry->unresolved;
    c->dropped = entry->dropped;
    c->accepted_end = entry->accepted_end;
    c->adopted_end = entry->adopted_end;
    c->lost_count = entry->lost_count;
    c->ignored_count = entry->ignored_count;
    c->commit_count = entry->commit_count;
    c->has_stand_in = false;
    c->older_number = c->base_number;
    c->base_number = entry->number;
    return OK;
}

/* Two that were to end the same era are one: the first. */
static bool is_next_era(const struct chain *c, const struct chain_entry *entry)
{
    return entry->ended_era == c->eras[0];
}

static void fold_era(struct chain *c, const struct chain_entry *entry)
{
    memmove(c->eras + 1, c->eras, sizeof c->eras - sizeof c->eras[0]);
    c->eras[0] = entry->number;
}

err chain_fold(struct chain *c, const struct chain_entry *entry, bool *out_valid, const char **out_why)
{
    bool is_first = entry->kind == CHAIN_BASE && c->next_number == 1 && entry->number > 0;
    if ((entry->number != c->next_number && !is_first) || entry->partition != c->partition)
        return ERR_CONFLICT;
    const char *why = NULL;
    switch ((enum chain_kind)entry->kind) {
    case CHAIN_COMMIT:
        TRY(fold_commit(c, entry, &why));
        break;
    case CHAIN_REPLACE:
        TRY(fold_replace(c, entry, &why));
        break;
    case CHAIN_RETAIN:
        fold_retain(c, entry, &why);
        break;
    case CHAIN_GENERATION:
        if (entry->end.generation != c->end.generation + 1) {
            why = "the generation does not follow";
            break;
        }
        TRY(add_losses(c, entry));
        c->end = entry->end;
        c->leader_epoch = entry->leader_epoch;
        break;
    case CHAIN_LOST:
        TRY(fold_lost(c, entry));
        break;
    case CHAIN_ACCEPT:
        TRY(fold_accept(c, entry));
        break;
    case CHAIN_BASE:
        TRY(fold_base(c, entry));
        break;
    case CHAIN_LOSSES:
        TRY(add_losses(c, entry));
        break;
    case CHAIN_ERA:
        if (is_next_era(c, entry))
            fold_era(c, entry);
        else
            why = "the era that it ends is not the present one";
        break;
    case CHAIN_ADOPT:
        TRY(fold_adopt(c, entry, &why));
        break;
    case CHAIN_KIND_COUNT:
        check(false);
    }
    c->next_number = entry->number + 1;
    c->ignored_count += why != NULL;
    *out_valid = why == NULL;
    *out_why = why;
    return OK;
}

err chain_would_take(const struct chain *c, const struct chain_entry *entry, bool *out_valid)
{
    void *block = NULL;
    size_t count;
    *out_valid = true;
    switch ((enum chain_kind)entry->kind) {
    case CHAIN_COMMIT:
        *out_valid = commit_invalid(c, entry) == NULL;
        break;
    case CHAIN_REPLACE:
        TRY(pool_block_resize(c->pool, &block, entry->input_count * sizeof(size_t)));
        *out_valid = replace_invalid(c, entry, block, &count) == NULL;
        pool_block_free(c->pool, block);
        break;
    case CHAIN_RETAIN:
        *out_valid = entry->cutoff_ms > c->cutoff_ms;
        break;
    case CHAIN_GENERATION:
        *out_valid = entry->end.generation == c->end.generation + 1;
        break;
    case CHAIN_ERA:
        *out_valid = is_next_era(c, entry);
        break;
    case CHAIN_ADOPT:
        *out_valid = adopt_invalid(c, entry) == NULL;
        break;
    default:
        break;
    }
    return OK;
}

const char *shard_loss_text(uint8_t kind)
{
    switch (kind) {
    case LOSS_LOG:
        return "damaged log records";
    case LOSS_UNRESOLVED:
        return "unresolved series";
    case LOSS_CHAIN:
        return "damaged manifest entry";
    case LOSS_SEGMENT:
        return "damaged segment";
    case LOSS_DOUBT:
        return "replicas differ";
    default:
        return "loss";
    }
}

struct sum chain_stored_sum(const struct chain *c)
{
    struct sum sum = { 0 };
    for (size_t i = 0; i < c->segment_count; i++)
        sum_add(&sum, c->segments[i].sum);
    return sum;
}
