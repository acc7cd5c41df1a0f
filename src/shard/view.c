/* A query's snapshot: references to everything its rows may be in, and what is known to be missing.
 *
 * Taken under each partition's lock in turn, after everything durable at the query's begin was applied.
 * References keep it alive and unchanged: ranges, heads and segments go when their last one is dropped.
 *
 * Invariants
 *  1. A row is in exactly one of segments, groups, heads of a view: partition steps that move rows do it in
 *     one locked step.
 *  2. Pieces are in position order, segments before them.
 *  3. The series of its pieces are in the index as long as it lives: what is dropped is in no range that a view
 *     has, committed or not (partition_range_end). */
#include "shard/source.h"

#include "base/check.h"

void views_missing(struct views *views, uint32_t partition, struct time_range range, const char *reason)
{
    io_mutex_lock(&views->lock);
    proof_miss(&views->proof, &(struct proof_missing){ partition, range, reason });
    io_mutex_unlock(&views->lock);
}

err views_segment_read(struct views *views, const struct view *view, uint32_t segment, err e,
                       const struct err_at *at, const char *what)
{
    if (!is_damage(e))
        return e;
    struct live_segment *live = view->segments[segment].live;
    live_segment_damaged(live, e, at);
    views_missing(views, view->partition->number, live->facts.range, what);
    return OK;
}

static void name_losses(struct views *views, struct view *view, const struct chain_loss *losses, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!losses[i].accepted && time_overlaps(losses[i].range, view->range))
            views_missing(views, view->partition->number, losses[i].range, shard_loss_text(losses[i].kind));
}

static void name_unresolved(struct views *views, struct view *view)
{
    struct partition *p = view->partition;
    struct time_range range = { INT64_MAX, INT64_MIN };
    for (size_t i = 0; i < p->unresolved_count; i++) {
        int64_t t_ms = p->unresolved[i].t_ms;
        const struct producer *producer = &p->producers[p->unresolved[i].incarnation];
        if (producer->is_dead && position_compare(producer->last, p->chain.accepted_end) < 0)
            continue; /* accepted by a person */
        if (t_ms < view->range.min_ms || t_ms > view->range.max_ms)
            continue;
        range.min_ms = t_ms < range.min_ms ? t_ms : range.min_ms;
        range.max_ms = t_ms > range.max_ms ? t_ms : range.max_ms;
    }
    if (range.min_ms <= range.max_ms)
        views_missing(views, p->number, range, "unresolved series");
}

static void add_head(struct view *view, struct metric_head *head, struct metric_head_view head_view)
{
    if (head_view.row_count + head_view.histogram_count + head_view.exemplar_count == 0 ||
        (head_view.row_count + head_view.histogram_count > 0 && !time_overlaps(head_view.range, view->range)))
        return;
    view->pieces[view->piece_count++] =
        (struct view_piece){ .head = head_view, .head_reference = metric_head_ref(head) };
}

/* An end that nobody confirmed of late says nothing of what others have written since: a node that is cut off
 * from the log, and not from who asks it. Whoever asks for positions knows the end (is_told), and looks
 * whether they were reached. Nor does one of a log that went back, until that is known here.
 * protocol §5 */
static void name_log(struct views *views, struct view *view, bool is_told)
{
    struct partition *p = view->partition;
    struct log_watermarks marks = log_watermarks(p->shards->log, p->number);
    uint64_t from;
    bool is_old = marks.confirmed_ns == INT64_MIN ||
                  io_boottime_ns(p->shards->io) - marks.confirmed_ns > SHARD_CONFIRMED_MS_MAX * NS_PER_MS;
    if (is_old && !is_told)
        views_missing(views, p->number, view->range, PROOF_NOT_CONFIRMED);
    else if (log_went_back(p->shards->log, p->number, &from) != ERR_NOT_FOUND)
        views_missing(views, p->number, view->range, "the log went back");
}

static bool waits(const struct shards *shards) { return (shards->config.canary & SHARD_CANARY_NO_WAIT) == 0; }

/* Under the partition's lock. end_offset: what was durable when the query began. */
static err take(struct views *views, struct view *view, uint64_t end_offset, bool is_told)
{
    struct partition *p = view->partition;
    size_t piece_max = 1, range_max = 0;
    for (struct range *r = p->ranges; r != NULL; r = r->next) {
        piece_max += r->group_count + r->frozen_count;
        range_max++;
    }
    void *at;
    TRY(pool_alloc(views->pool, piece_max * sizeof *view->pieces, &at));
    view->pieces = at;
    TRY(pool_alloc(views->pool, range_max * sizeof *view->ranges + 1, &at));
    view->ranges = at;
    TRY(pool_alloc(views->pool, p->segment_count * sizeof *view->segments + 1, &at));
    view->segments = at;
    if (p->chain.cutoff_ms > view->range.min_ms)
        view->range.min_ms = p->chain.cutoff_ms;
    name_losses(views, view, p->chain.losses, p->chain.loss_count);
    name_losses(views, view, &p->lost_end, p->lost_end.kind != 0); /* before the chain has them */
    name_losses(views, view, &p->doubt, p->doubt.kind != 0);
    name_unresolved(views, view);
    if (p->apply_failed != OK || p->applied.offset < end_offset) /* the waiting ended with a failure, too */
        views_missing(views, p->number, view->range, "the log cannot be applied");
    name_log(views, view, is_told);
    for (size_t i = 0; i < p->segment_count; i++)
        if (time_overlaps(p->segments[i]->facts.range, view->range))
            view->segments[view->segment_count++] =
                (struct view_segment){ .live = live_segment_ref(p->segments[i]) };
    for (struct range *r = p->ranges; r != NULL; r = r->next) {
        uint32_t index = view->range_count;
        view->ranges[view->range_count++] = range_ref(r);
        name_losses(views, view, r->losses, r->loss_count);
        for (const struct range_group *g = r->groups; g != NULL; g = g->next)
            if (time_overlaps(g->facts.range, view->range) || g->facts.exemplar_count > 0)
                view->pieces[view->piece_count++] = (struct view_piece){ .group = g, .range_index = index };
        for (struct frozen *f = r->frozen; f != NULL; f = f->next)
            if (f->head != NULL)
                add_head(view, f->head, f->view);
    }
    add_head(view, p->head, metric_head_view(p->head));
    views->proof.partitions[views->proof.partition_count++] =
        (struct proof_partition){ .partition = p->number,
                                  .generation = p->applied.generation,
                                  .applied_offset = waits(p->shards) ? p->applied.offset : UINT64_MAX / 2,
                                  .end_offset = end_offset };
    if (p->data_through_ms > views->proof.data_through_ms)
        views->proof.data_through_ms = p->data_through_ms;
    return OK;
}

/* Open the segments (first use reads their footers); damaged ones are left out and named. */
static err open_segments(struct views *views, struct view *view, struct guard *guard)
{
    size_t kept = 0;
    err result = OK;
    for (size_t i = 0; i < view->segment_count; i++) {
        struct view_segment s = view->segments[i];
        if (result == OK && guard != NULL)
            result = guard_check(guard); /* each may take a store that is away as long as its tries last */
        err e = result == OK ? live_segment_use(s.live, &s.compact) : result;
        if (result == OK && e == OK) {
            view->segments[kept++] = s;
            continue;
        }
        if (e == ERR_LIMIT)
            result = e;
        if (result == OK)
            views_missing(views, view->partition->number, s.live->facts.range,
                          e == ERR_VERSION ? "segment of a newer format"
                          : is_damage(e)   ? "damaged segment"
                                           : "segment cannot be read now");
        live_segment_unref(s.live);
    }
    view->segment_count = kept;
    return result;
}

/* Does the asker know the partition's end? */
static bool is_told(const struct source_request *request, uint32_t partition)
{
    for (size_t i = 0; i < request->after_count; i++)
        if (request->after[i].partition == partition)
            return true;
    return false;
}

/* Take what one partition has, and open it. One that is not here is named. */
static err view_open(struct views *views, struct view *view, uint64_t end_offset,
                     const struct source_request *request)
{
    struct partition *p = view->partition;
    if (!partition_lock(p)) {
        views_missing(views, p->number, view->range, PROOF_NOT_HERE);
        return OK;
    }
    err e = take(views, view, end_offset, is_told(request, p->number));
    io_mutex_unlock(&p->lock);
    return e == OK ? open_segments(views, view, request->guard) : e;
}

/* Where the asker knows the ends, these are what is to be applied, be they beyond what is known to be durable here
 * (wanted) or before it (ends): what others, and this node, have written since then is not waited for. Of another
 * generation there is nothing to wait for: an earlier one has ended, a later one is not read before its chain has
 * it. Returns whether any is beyond. */
static bool take_ends(struct shards *shards, const struct source_request *request, uint64_t *ends,
                      uint64_t *wanted)
{
    bool any = false;
    for (size_t i = 0; i < request->after_count; i++) {
        const struct source_position *after = &request->after[i];
        uint32_t number = after->partition;
        if (number >= shards->config.partition_count || !source_asks(request->partitions, number) ||
            after->offset == UINT64_MAX)
            continue;
        struct partition *p = &shards->partitions[number];
        if (!partition_lock(p))
            continue;
        bool is_present =
            after->generation == SOURCE_GENERATION_ANY || after->generation == p->applied.generation;
        io_mutex_unlock(&p->lock);
        if (!is_present)
            continue;
        any |= after->offset > ends[number];
        wanted[number] = after->offset;
        ends[number] = after->offset < ends[number] ? after->offset : ends[number];
    }
    return any;
}

/* Wait for what was durable at the call, or for the asker's positions: for what of them is not known to be durable
 * here not longer than SHARD_AFTER_MS_MAX, and whoever asked names what is not reached. */
static err wait_applied(struct shards *shards, const struct source_request *request, uint64_t *out_ends)
{
    struct guard *guard = request->guard;
    int64_t deadline_ns = guard != NULL ? guard->deadline_ns : INT64_MAX;
    uint64_t wanted[LOG_PARTITION_COUNT_MAX];
    shards_ends(shards, request->partitions, out_ends);
    memcpy(wanted, out_ends, shards->config.partition_count * sizeof *wanted);
    if (take_ends(shards, request, out_ends, wanted)) {
        int64_t until_ns = io_monotonic_ns(shards->io) + SHARD_AFTER_MS_MAX * NS_PER_MS;
        err e = shards_ends_wait(shards, request->partitions, wanted,
                                 until_ns < deadline_ns ? until_ns : deadline_ns, guard);
        if (e != ERR_TIMEOUT || (guard != NULL && guard_check(guard) != OK))
            return e;
    }
    return shards_ends_wait(shards, request->partitions, out_ends, deadline_ns, guard);
}

err views_open(struct shards *shards, const struct source_request *request, struct time_range range,
               struct pool *pool, struct views *out_views)
{
    uint32_t count = shards->config.partition_count;
    uint64_t ends[LOG_PARTITION_COUNT_MAX];
    if (waits(shards))
        TRY(wait_applied(shards, request, ends));
    else
        memset(ends, 0, sizeof ends);
    struct views *views = out_views;
    *views = (struct views){ .shards = shards, .pool = pool };
    void *at;
    TRY(pool_zalloc(pool, count * sizeof *views->views, &at));
    views->views = at;
    TRY(pool_zalloc(pool, count * sizeof *views->proof.partitions, &at));
    views->proof = (struct proof){ .complete = true, .partitions = at };
    TRY(proof_reserve(&views->proof, pool));
    io_mutex_init(&views->lock);
    views->hold = metric_index_hold(shards->index);
    err e = OK;
    for (uint32_t i = 0; i < count && e == OK; i++) {
        struct view *view = &views->views[i];
        view->partition = &shards->partitions[i];
        view->range = range;
        if (source_asks(request->partitions, i))
            e = view_open(views, view, ends[i], request);
    }
    if (e != OK)
        views_close(views);
    return e;
}

void views_close(struct views *views)
{
    for (uint32_t i = 0; i < views->shards->config.partition_count; i++) {
        struct view *view = &views->views[i];
        for (size_t k = 0; k < view->piece_count; k++)
            metric_head_unref(view->pieces[k].head_reference);
        for (size_t k = 0; k < view->segment_count; k++)
            live_segment_unref(view->segments[k].live);
        for (uint32_t k = 0; k < view->range_count; k++)
            range_unref(view->ranges[k]);
    }
    metric_index_release(views->shards->index, views->hold);
    io_mutex_done(&views->lock);
}
