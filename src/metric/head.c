/* The head: the newest rows of one partition as rows of 24 bytes. See head.h.
 *
 * Rows come from the apply thread in arrival order and go to queries, and as a whole to a row group
 * (group_encode.c). Rows lie in chunks that never move; each row names the row of its series before it, and
 * a slot per series names its last, so a series is read by walking back.
 *
 * States: filling → (shard freezes it: no more appends) → encoded → last reference gone.
 *
 * Invariants
 *  1. Everything of a row is written before last_row points to it, and before it becomes visible.
 *  2. A chain only leads to smaller row numbers, so a reader with an older view skips the rows it must not see
 *     and ends in those it may.
 *  3. A chunk pointer is set once, before any row in it is reachable.
 *  4. A histogram row stands after the float rows [0, rows_before) and before the later ones. */
#include "metric/head.h"

#include "base/check.h"
#include "base/hash.h"
#include "metric/head_rows.h"

#include <string.h>

/* A record may be larger than an empty head; it is applied nevertheless. */
#define HEAD_SLACK_ROWS BATCH_ROWS_MAX

static err alloc_directory(struct pool *pool, uint64_t rows, uint32_t chunk_rows, void *out_at)
{
    void *at;
    TRY(pool_zalloc(pool, (size_t)(rows / chunk_rows + 1) * sizeof(void *), &at));
    memcpy(out_at, &at, sizeof at);
    return OK;
}

err metric_head_open(struct pool *parent, const struct metric_head_config *config,
                     struct metric_head **out_head)
{
    check(config->rows_max > 0 && config->rows_max <= METRIC_HEAD_ROWS_MAX);
    check(config->histograms_max <= METRIC_HEAD_ROWS_MAX);
    err e = OK;
    struct pool *pool = pool_open(parent, "head", POOL_BYTES_UNLIMITED);
    void *at;
    TRY_OUT(pool_zalloc(pool, sizeof(struct metric_head), &at));
    struct metric_head *head = at;
    head->pool = pool;
    head->config = *config;
    atomic_init(&head->refs, 1);
    head->t_min = INT64_MAX;
    head->t_max = INT64_MIN;
    atomic_init(&head->visible_t_min, INT64_MAX);
    atomic_init(&head->visible_t_max, INT64_MIN);
    TRY_OUT(
        alloc_directory(pool, (uint64_t)config->rows_max + HEAD_SLACK_ROWS, HEAD_CHUNK_ROWS, &head->chunks));
    TRY_OUT(alloc_directory(pool, (uint64_t)config->histograms_max + HEAD_SLACK_ROWS, HEAD_CHUNK_HISTOGRAMS,
                            &head->histogram_chunks));
    TRY_OUT(alloc_directory(pool, config->exemplars_max, HEAD_CHUNK_EXEMPLARS, &head->exemplar_chunks));
    TRY_OUT(alloc_directory(pool, config->metadata_max, HEAD_CHUNK_METADATA, &head->metadata_chunks));
    head->last_row = slots_open(pool);
    head->last_histogram = slots_open(pool);
    TRY_OUT(slots_begin(&head->last_row));
    TRY_OUT(slots_begin(&head->last_histogram));
    *out_head = head;
    return OK;
out:
    pool_close(pool);
    return e;
}

struct metric_head *metric_head_ref(struct metric_head *head)
{
    uint32_t before = atomic_fetch_add_explicit(&head->refs, 1, memory_order_relaxed);
    check(before > 0);
    return head;
}

void metric_head_unref(struct metric_head *head)
{
    if (head != NULL && atomic_fetch_sub_explicit(&head->refs, 1, memory_order_acq_rel) == 1)
        pool_close(head->pool);
}

uint64_t metric_head_dropped(const struct metric_head *head)
{
    return atomic_load_explicit(&head->dropped, memory_order_relaxed);
}

/* ---- writing ---- */

err metric_head_reserve(struct metric_head *head, size_t rows, size_t histograms, size_t arena_bytes)
{
    const struct metric_head_config *c = &head->config;
    if (rows > HEAD_SLACK_ROWS || histograms > HEAD_SLACK_ROWS)
        return ERR_LIMIT; /* no record is so large */
    bool fits = head->row_count + rows <= c->rows_max &&
                head->histogram_count + histograms <= c->histograms_max &&
                head->arena_bytes + arena_bytes <= c->arena_bytes_max;
    bool empty = head->row_count == 0 && head->histogram_count == 0;
    return fits || empty ? OK : ERR_FULL;
}

static err make_chunks(struct metric_head *head, uint32_t row_count)
{
    for (uint32_t i = head->row_count / HEAD_CHUNK_ROWS; (uint64_t)i * HEAD_CHUNK_ROWS < row_count; i++) {
        if (head->chunks[i] != NULL)
            continue;
        void *at = NULL;
        TRY(pool_block_resize(head->pool, &at, sizeof(struct head_chunk)));
        struct head_chunk *chunk = at;
        atomic_init(&chunk->start_ms, NULL);
        head->chunks[i] = chunk;
    }
    return OK;
}

static err make_starts(struct metric_head *head, size_t count, const struct batch_start *starts,
                       size_t start_count)
{
    for (size_t i = 0; i < start_count; i++) {
        check(starts[i].row < count);
        struct head_chunk *chunk = head_chunk_of(head, head->row_count + starts[i].row);
        if (atomic_load_explicit(&chunk->start_ms, memory_order_relaxed) != NULL)
            continue;
        void *at;
        TRY(pool_zalloc(head->pool, HEAD_CHUNK_ROWS * sizeof(int64_t), &at));
        atomic_store_explicit(&chunk->start_ms, at, memory_order_release);
    }
    return OK;
}

err metric_head_append(struct metric_head *head, const uint32_t *locals, const int64_t *t_ms,
                       const uint64_t *value_bits, size_t count, const struct batch_start *starts,
                       size_t start_count)
{
    uint64_t end = (uint64_t)head->row_count + count;
    if (end > (uint64_t)head->config.rows_max + HEAD_SLACK_ROWS)
        return ERR_LIMIT;
    uint32_t local_max = 0;
    int64_t t_min = head->t_min, t_max = head->t_max;
    for (size_t i = 0; i < count; i++) {
        local_max = locals[i] > local_max ? locals[i] : local_max;
        t_min = t_ms[i] < t_min ? t_ms[i] : t_min;
        t_max = t_ms[i] > t_max ? t_ms[i] : t_max;
    }
    if (count > 0) {
        if (local_max >= SLOT_COUNT_MAX)
            return ERR_LIMIT;
        TRY(slots_reserve(&head->last_row, local_max + 1));
    }
    TRY(make_chunks(head, (uint32_t)end));
    TRY(make_starts(head, count, starts, start_count));
    for (size_t i = 0; i < start_count; i++) {
        uint32_t row = head->row_count + starts[i].row;
        int64_t *column = atomic_load_explicit(&head_chunk_of(head, row)->start_ms, memory_order_relaxed);
        column[row % HEAD_CHUNK_ROWS] = starts[i].start_ms;
    }
    uint32_t row = head->row_count;
    for (size_t done = 0; done < count;) {
        struct head_chunk *chunk = head_chunk_of(head, row);
        size_t at = row % HEAD_CHUNK_ROWS, here = HEAD_CHUNK_ROWS - at;
        here = here < count - done ? here : count - done;
        for (size_t i = done; i < done + here; i++, row++) {
            uint32_t local = locals[i];
            _Atomic uint32_t *last = slots_entry(&head->last_row, local);
            chunk->rows[at++] =
                (struct head_row){ .t_ms = t_ms[i],
                                   .bits = value_bits[i],
                                   .local = local,
                                   .before = atomic_load_explicit(last, memory_order_relaxed) };
            atomic_store_explicit(last, row, memory_order_release);
        }
        done += here;
    }
    head->row_count = row;
    head->t_min = t_min;
    head->t_max = t_max;
    return OK;
}

err metric_head_append_histogram(struct metric_head *head, uint32_t local, int64_t t_ms, int64_t start_ms,
                                 struct slice bytes)
{
    uint32_t row = head->histogram_count;
    if (row >= (uint64_t)head->config.histograms_max + HEAD_SLACK_ROWS || local >= SLOT_COUNT_MAX)
        return ERR_LIMIT;
    TRY(slots_reserve(&head->last_histogram, local + 1));
    struct head_histogram **chunk = &head->histogram_chunks[row / HEAD_CHUNK_HISTOGRAMS];
    void *at;
    if (*chunk == NULL) {
        TRY(pool_alloc(head->pool, HEAD_CHUNK_HISTOGRAMS * sizeof **chunk, &at));
        *chunk = at;
    }
    struct slice copy;
    TRY(pool_copy(head->pool, bytes, &copy));
    (*chunk)[row % HEAD_CHUNK_HISTOGRAMS] =
        (struct head_histogram){ .local = local,
                                 .before = slots_at(&head->last_histogram, local),
                                 .rows_before = head->row_count,
                                 .t_ms = t_ms,
                                 .start_ms = start_ms,
                                 .bytes = copy };
    slots_set(&head->last_histogram, local, row);
    head->histogram_count++;
    head->arena_bytes += bytes.len;
    head->t_min = t_ms < head->t_min ? t_ms : head->t_min;
    head->t_max = t_ms > head->t_max ? t_ms : head->t_max;
    return OK;
}

static err drop_row(struct metric_head *head)
{
    atomic_fetch_add_explicit(&head->dropped, 1, memory_order_relaxed);
    return OK;
}

err metric_head_append_exemplar(struct metric_head *head, uint32_t local, int64_t t_ms, double value,
                                struct slice labels)
{
    uint32_t row = head->exemplar_count;
    if (row >= head->config.exemplars_max || head->arena_bytes + labels.len > head->config.arena_bytes_max)
        return drop_row(head);
    struct metric_exemplar **chunk = &head->exemplar_chunks[row / HEAD_CHUNK_EXEMPLARS];
    void *at;
    if (*chunk == NULL) {
        TRY(pool_alloc(head->pool, HEAD_CHUNK_EXEMPLARS * sizeof **chunk, &at));
        *chunk = at;
    }
    struct slice copy;
    TRY(pool_copy(head->pool, labels, &copy));
    (*chunk)[row % HEAD_CHUNK_EXEMPLARS] =
        (struct metric_exemplar){ .series = local, .t_ms = t_ms, .value = value, .labels = copy };
    head->exemplar_count++;
    head->arena_bytes += labels.len;
    return OK;
}

static bool metadata_equal(const struct metric_metadata *a, const struct metric_metadata *b)
{
    return a->type == b->type && slice_equal(a->tenant, b->tenant) && slice_equal(a->family, b->family) &&
           slice_equal(a->help, b->help) && slice_equal(a->unit, b->unit);
}

/* The table slot of m, free or holding its equal. The table is never more than half full. */
static err find_metadata(struct metric_head *head, const struct metric_metadata *m, uint32_t **out_slot)
{
    if (head->metadata_table == NULL) {
        uint32_t slots = 64;
        while (slots < 2 * (uint64_t)head->config.metadata_max)
            slots *= 2;
        void *at;
        TRY(pool_zalloc(head->pool, (size_t)slots * sizeof(uint32_t), &at));
        head->metadata_table = at;
        head->metadata_slots = slots;
    }
    uint64_t hash =
        hash64(m->tenant, hash64(m->family, hash64(m->help, hash64(m->unit, hash_secret() + m->type))));
    uint32_t slot = (uint32_t)hash & (head->metadata_slots - 1);
    while (head->metadata_table[slot] != 0 &&
           !metadata_equal(head_metadata_of(head, head->metadata_table[slot] - 1), m))
        slot = (slot + 1) & (head->metadata_slots - 1);
    *out_slot = &head->metadata_table[slot];
    return OK;
}

err metric_head_append_metadata(struct metric_head *head, struct slice tenant, const struct batch_metadata *m)
{
    uint32_t row = head->metadata_count;
    struct metric_metadata copy = {
        .tenant = tenant, .family = m->family, .help = m->help, .unit = m->unit, .type = m->type
    };
    size_t bytes = tenant.len + m->family.len + m->help.len + m->unit.len;
    if (head->config.metadata_max == 0)
        return drop_row(head);
    uint32_t *slot;
    TRY(find_metadata(head, &copy, &slot));
    if (*slot != 0)
        return OK;
    if (row >= head->config.metadata_max || head->arena_bytes + bytes > head->config.arena_bytes_max)
        return drop_row(head);
    struct metric_metadata **chunk = &head->metadata_chunks[row / HEAD_CHUNK_METADATA];
    void *at;
    if (*chunk == NULL) {
        TRY(pool_alloc(head->pool, HEAD_CHUNK_METADATA * sizeof **chunk, &at));
        *chunk = at;
    }
    TRY(pool_copy(head->pool, tenant, &copy.tenant));
    TRY(pool_copy(head->pool, m->family, &copy.family));
    TRY(pool_copy(head->pool, m->help, &copy.help));
    TRY(pool_copy(head->pool, m->unit, &copy.unit));
    (*chunk)[row % HEAD_CHUNK_METADATA] = copy;
    *slot = row + 1;
    head->metadata_count++;
    head->arena_bytes += bytes;
    return OK;
}

static void mark(uint8_t *bits, uint32_t local) { bits[local / 8] |= (uint8_t)(1u << local % 8); }

static void mark_slots(const struct slots *slots, uint8_t *bits, uint32_t count)
{
    for (uint32_t local = 0; local < count && local < slots->count; local++)
        if (slots_at(slots, local) != SLOT_NONE)
            mark(bits, local);
}

void metric_head_mark(const struct metric_head *head, uint8_t *bits, uint32_t count)
{
    mark_slots(&head->last_row, bits, count);
    mark_slots(&head->last_histogram, bits, count);
    for (uint32_t row = 0; row < head->exemplar_count; row++) {
        uint32_t local = head_exemplar_of(head, row)->series;
        if (local < count)
            mark(bits, local);
    }
}

void metric_head_publish(struct metric_head *head)
{
    atomic_store_explicit(&head->visible_t_min, head->t_min, memory_order_relaxed);
    atomic_store_explicit(&head->visible_t_max, head->t_max, memory_order_relaxed);
    atomic_store_explicit(&head->visible_exemplars, head->exemplar_count, memory_order_release);
    atomic_store_explicit(&head->visible_metadata, head->metadata_count, memory_order_release);
    atomic_store_explicit(&head->visible, head->row_count | (uint64_t)head->histogram_count << 32,
                          memory_order_release);
}

/* ---- reading ---- */

struct metric_head_view metric_head_view(const struct metric_head *head)
{
    uint64_t visible = atomic_load_explicit(&head->visible, memory_order_acquire);
    return (struct metric_head_view){
        .head = head,
        .row_count = (uint32_t)visible,
        .histogram_count = (uint32_t)(visible >> 32),
        .exemplar_count = atomic_load_explicit(&head->visible_exemplars, memory_order_acquire),
        .metadata_count = atomic_load_explicit(&head->visible_metadata, memory_order_acquire),
        .range = { .min_ms = atomic_load_explicit(&head->visible_t_min, memory_order_relaxed),
                   .max_ms = atomic_load_explicit(&head->visible_t_max, memory_order_relaxed) }
    };
}

/* The series' last float row in the view. */
static uint32_t last_row(const struct metric_head_view *view, uint32_t local)
{
    uint32_t row = slots_get(&view->head->last_row, local);
    while (row != METRIC_ROW_NONE && row >= view->row_count)
        row = head_row_of(view->head, row)->before;
    return row;
}

static uint32_t last_histogram(const struct metric_head_view *view, uint32_t local)
{
    uint32_t row = slots_get(&view->head->last_histogram, local);
    while (row != METRIC_ROW_NONE && row >= view->histogram_count)
        row = head_histogram_of(view->head, row)->before;
    return row;
}

bool metric_head_has(const struct metric_head_view *view, uint32_t local)
{
    return last_row(view, local) != METRIC_ROW_NONE || last_histogram(view, local) != METRIC_ROW_NONE;
}

static bool in_range(int64_t t_ms, struct time_range range)
{
    return t_ms >= range.min_ms && t_ms <= range.max_ms;
}

struct counted {
    size_t rows, histograms;
    bool starts;
};

static struct counted count_rows(const struct metric_head *head, uint32_t row, uint32_t histogram,
                                 struct time_range range)
{
    struct counted c = { 0 };
    while (row != METRIC_ROW_NONE) {
        const struct head_row *r = head_row_of(head, row);
        if (in_range(r->t_ms, range)) {
            c.rows++;
            c.starts |= head_start_ms(head_chunk_of(head, row), row) != 0;
        }
        row = r->before;
    }
    while (histogram != METRIC_ROW_NONE) {
        const struct head_histogram *h = head_histogram_of(head, histogram);
        if (in_range(h->t_ms, range)) {
            c.histograms++;
            c.starts |= h->start_ms != 0;
        }
        histogram = h->before;
    }
    return c;
}

/* Room for what was counted, the start column included if it is or comes into use. */
static err reserve_columns(struct sample_columns *columns, const struct counted *c)
{
    size_t total = c->rows + c->histograms;
    TRY(sample_columns_reserve(columns, total));
    TRY(pool_block_reserve(columns->pool, (void **)&columns->histograms, sizeof *columns->histograms,
                           columns->histogram_count + c->histograms, &columns->histogram_capacity));
    if (c->starts && columns->start_ms == NULL) {
        TRY(pool_block_reserve(columns->pool, (void **)&columns->start_ms, sizeof *columns->start_ms,
                               columns->count + total, &columns->start_capacity));
        memset(columns->start_ms, 0, columns->count * sizeof *columns->start_ms);
    }
    return OK;
}

err metric_head_read(const struct metric_head_view *view, uint32_t local, struct time_range range,
                     struct sample_columns *columns)
{
    const struct metric_head *head = view->head;
    uint32_t row = last_row(view, local), histogram = last_histogram(view, local);
    struct counted c = count_rows(head, row, histogram, range);
    size_t left = c.rows + c.histograms;
    if (left == 0)
        return OK;
    TRY(reserve_columns(columns, &c));
    size_t at = columns->count + left, histogram_at = columns->histogram_count + c.histograms;
    while (left > 0) {
        const struct head_histogram *h =
            histogram == METRIC_ROW_NONE ? NULL : head_histogram_of(head, histogram);
        if (h != NULL && (row == METRIC_ROW_NONE || h->rows_before > row)) {
            histogram = h->before;
            if (!in_range(h->t_ms, range))
                continue;
            at--;
            columns->t_ms[at] = h->t_ms;
            columns->values[at] = __builtin_nan("");
            if (columns->start_ms != NULL)
                columns->start_ms[at] = h->start_ms;
            columns->histograms[--histogram_at] =
                (struct sample_histogram){ .row = (uint32_t)at, .bytes = h->bytes };
        } else {
            const struct head_row *r = head_row_of(head, row);
            uint32_t here = row;
            row = r->before;
            if (!in_range(r->t_ms, range))
                continue;
            at--;
            columns->t_ms[at] = r->t_ms;
            columns->values[at] = bits_double(r->bits);
            if (columns->start_ms != NULL)
                columns->start_ms[at] = head_start_ms(head_chunk_of(head, here), here);
        }
        left--;
    }
    columns->count += c.rows + c.histograms;
    columns->histogram_count += c.histograms;
    return OK;
}

err metric_head_exemplars(const struct metric_head_view *view, uint32_t local, struct time_range range,
                          struct pool *pool, struct metric_exemplar **out_exemplars, size_t *out_count)
{
    size_t count = 0;
    for (int pass = 0; pass < 2; pass++) {
        struct metric_exemplar *list = NULL;
        if (pass == 1) {
            void *at;
            TRY(pool_alloc(pool, (count + 1) * sizeof *list, &at));
            list = at;
            count = 0;
        }
        for (uint32_t row = 0; row < view->exemplar_count; row++) {
            const struct metric_exemplar *x = head_exemplar_of(view->head, row);
            if (x->series != local || !in_range(x->t_ms, range))
                continue;
            if (pass == 1)
                list[count] = *x;
            count++;
        }
        *out_exemplars = list;
    }
    *out_count = count;
    return OK;
}

err metric_head_metadata(const struct metric_head_view *view, struct slice tenant, struct slice family,
                         struct pool *pool, struct metric_metadata **out_metadata, size_t *out_count)
{
    void *at;
    TRY(pool_alloc(pool, ((size_t)view->metadata_count + 1) * sizeof(struct metric_metadata), &at));
    struct metric_metadata *list = at;
    size_t count = 0;
    for (uint32_t row = 0; row < view->metadata_count; row++) {
        const struct metric_metadata *m = head_metadata_of(view->head, row);
        if (slice_equal(m->tenant, tenant) && (family.len == 0 || slice_equal(m->family, family)))
            list[count++] = *m;
    }
    *out_metadata = list;
    *out_count = count;
    return OK;
}
