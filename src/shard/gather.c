/* Row groups read for many series at once. See source.h.
 *
 * A block of a row group holds 64 series that arrived together; a query reads series in the order of its set.
 * Reading a series alone decodes its block up to it, so a query over all of them would decode every block 64
 * times. Here the first reader of a block decodes it once and keeps the rows of every series of the set; the
 * others copy theirs.
 *
 *   select ─ wanted: a bit per stream number and range ─┐
 *   read ─ block of the number ─ decoded? ─ no: load ───┴─ rows kept until the set closes ─ columns
 *
 * Invariants
 *  1. A block's pointer goes from NULL to its rows once, under the block's lock; readers need none.
 *  2. Rows kept stay below GATHER_BYTES_MAX and the query's budget; blocks beyond are read series by series. */
#include "shard/source.h"

#include "base/check.h"

#define GATHER_SERIES_MIN 4 /* fewer series rarely share a block */
#define GATHER_BYTES_MAX  ((size_t)256 << 20)
#define LOCK_COUNT        16

struct gather {
    struct pool *pool; /* the rows; under pool_lock */
    struct io_mutex pool_lock;
    struct io_mutex locks[LOCK_COUNT]; /* of the blocks */
    _Atomic bool is_full;
};

/* The stream numbers of the set's series in one range of a view. */
static err want(struct source_set *set, const struct view *view, uint32_t range, struct gather_wanted *out)
{
    uint32_t count = 0;
    const struct set_series *series = set->series + view->first_series;
    for (size_t i = 0; i < view->series_count; i++) {
        const struct set_series *s = &series[i];
        if (s->local == METRIC_LOCAL_NONE)
            continue;
        uint32_t number = s->numbers[range];
        if (number != METRIC_ROW_NONE && number >= count)
            count = number + 1;
    }
    void *at;
    TRY(pool_zalloc(set->views.pool, ((size_t)count / 64 + 1) * sizeof(uint64_t), &at));
    *out = (struct gather_wanted){ .bits = at, .count = count };
    for (size_t i = 0; i < view->series_count; i++) {
        const struct set_series *s = &series[i];
        if (s->local == METRIC_LOCAL_NONE)
            continue;
        uint32_t number = s->numbers[range];
        if (number != METRIC_ROW_NONE)
            out->bits[number / 64] |= UINT64_C(1) << number % 64;
    }
    return OK;
}

static err prepare(struct source_set *set, struct view *view)
{
    void *at;
    TRY(pool_zalloc(set->views.pool, (view->range_count + (size_t)1) * sizeof *view->wanted, &at));
    view->wanted = at;
    for (size_t i = 0; i < view->piece_count; i++) {
        struct view_piece *piece = &view->pieces[i];
        if (piece->group == NULL || !time_overlaps(piece->group->facts.range, view->range))
            continue;
        struct gather_wanted *wanted = &view->wanted[piece->range_index];
        if (wanted->bits == NULL)
            TRY(want(set, view, piece->range_index, wanted));
        size_t count = metric_group_block_count(piece->group->group);
        TRY(pool_zalloc(set->views.pool, (count + 1) * sizeof *piece->blocks, &at));
        piece->blocks = at;
    }
    return OK;
}

err gather_open(struct source_set *set)
{
    if (set->series_count < GATHER_SERIES_MIN)
        return OK;
    void *at;
    TRY(pool_zalloc(set->views.pool, sizeof(struct gather), &at));
    for (uint32_t i = 0; i < set->views.shards->config.partition_count; i++)
        TRY(prepare(set, &set->views.views[i]));
    struct gather *g = at;
    g->pool = pool_open(set->views.pool, "gathered rows", GATHER_BYTES_MAX);
    io_mutex_init(&g->pool_lock);
    for (size_t i = 0; i < LOCK_COUNT; i++)
        io_mutex_init(&g->locks[i]);
    set->gather = g;
    return OK;
}

void gather_close(struct source_set *set)
{
    struct gather *g = set->gather;
    if (g == NULL)
        return;
    for (size_t i = 0; i < LOCK_COUNT; i++)
        io_mutex_done(&g->locks[i]);
    io_mutex_done(&g->pool_lock);
    pool_close(g->pool);
    set->gather = NULL;
}

/* Decode a block and keep it; under the block's lock. */
static err load(struct gather *g, const struct view *view, const struct view_piece *piece, uint32_t block,
                struct pool *scratch, struct metric_group_rows **out_rows)
{
    const struct gather_wanted *wanted = &view->wanted[piece->range_index];
    struct metric_group_rows *rows;
    void *at;
    TRY(metric_group_block_load(piece->group->group, block, wanted->bits, wanted->count, view->range, scratch,
                                &rows));
    io_mutex_lock(&g->pool_lock);
    err e = pool_alloc(g->pool, rows->bytes, &at);
    io_mutex_unlock(&g->pool_lock);
    if (e != OK) {
        g->is_full = true;
        return e;
    }
    memcpy(at, rows, rows->bytes);
    *out_rows = at;
    atomic_store_explicit(&piece->blocks[block], *out_rows, memory_order_release);
    return OK;
}

err gather_read(struct source_set *set, const struct view *view, const struct view_piece *piece,
                uint32_t number, struct pool *scratch, struct sample_columns *columns, bool *out_alone)
{
    struct gather *g = set->gather;
    *out_alone = true;
    if (g == NULL || piece->blocks == NULL)
        return OK;
    uint32_t block = metric_group_block_find(piece->group->group, number);
    if (block == metric_group_block_count(piece->group->group)) {
        *out_alone = false;
        return OK;
    }
    struct metric_group_rows *rows = atomic_load_explicit(&piece->blocks[block], memory_order_acquire);
    if (rows == NULL) {
        if (g->is_full)
            return OK;
        struct io_mutex *lock = &g->locks[(block + (size_t)(piece - view->pieces)) % LOCK_COUNT];
        io_mutex_lock(lock);
        rows = atomic_load_explicit(&piece->blocks[block], memory_order_relaxed);
        err e = rows != NULL ? OK : load(g, view, piece, block, scratch, &rows);
        io_mutex_unlock(lock);
        if (e == ERR_LIMIT)
            return OK; /* alone it may fit */
        TRY(e);
    }
    return metric_group_rows_add(rows, number, columns, out_alone);
}
