/* Merging compact segments: k inputs in position order, one output, duplicates dropped and summed.
 *
 *   the least (tenant, labels) of all inputs ─ rows of each input that has it, cut to the window ─ by time, stably
 *        ─ last of equal times ─ writer;   the others ─ SUM of dropped;   older than the cut-off ─ SUM of expired
 *
 * Invariants: 1. Of equal (tenant, labels, t) the row of the last input, and in it the last row, survives. 2.
 * Each row of the window goes to exactly one of output, dropped, expired. */
#include "base/check.h"
#include "metric/compact_reader.h"
#include "model/guard.h"
#include "model/labels.h"

#define NO_HISTOGRAM UINT32_MAX

struct input {
    struct metric_compact *compact;
    struct metric_compact_cursor *cursor;
    uint32_t next; /* ordinal */
    bool more;
    struct slice tenant;
    size_t tenant_number;
    struct metric_compact_labels reader;
    struct buf labels;
    struct metric_rows rows; /* of the series being merged */
};

/* Rows of one series from all inputs; order[] sorts them. */
struct rows {
    int64_t *t_ms, *start_ms;
    uint64_t *bits;
    uint32_t *histogram; /* index into histograms, or NO_HISTOGRAM */
    uint32_t *order, *scratch;
    size_t count, capacity;
    struct sample_histogram *histograms;
    size_t histogram_count, histogram_capacity;
    bool any_start;
};

struct merge {
    const struct metric_compact_merge *request;
    struct metric_compact_writer *writer;
    struct pool *pool;
    struct pool *exemplar_pool;
    struct input *inputs;
    struct rows in, out;
    struct sum dropped, expired;
    uint64_t kept;
};

static err rows_reserve(struct pool *pool, struct rows *r, size_t more)
{
    size_t count = r->count + more;
    if (count > UINT32_MAX)
        return ERR_LIMIT;
    if (count <= r->capacity)
        return OK;
    size_t capacity = count < 2 * r->capacity ? 2 * r->capacity : count;
    TRY(pool_block_resize(pool, (void **)&r->t_ms, capacity * sizeof *r->t_ms));
    TRY(pool_block_resize(pool, (void **)&r->start_ms, capacity * sizeof *r->start_ms));
    TRY(pool_block_resize(pool, (void **)&r->bits, capacity * sizeof *r->bits));
    TRY(pool_block_resize(pool, (void **)&r->histogram, capacity * sizeof *r->histogram));
    TRY(pool_block_resize(pool, (void **)&r->order, capacity * sizeof *r->order));
    TRY(pool_block_resize(pool, (void **)&r->scratch, capacity * sizeof *r->scratch));
    r->capacity = capacity;
    return OK;
}

static err add_histogram(struct pool *pool, struct rows *r, struct slice bytes, uint32_t row)
{
    TRY(pool_block_reserve(pool, (void **)&r->histograms, sizeof *r->histograms, r->histogram_count + 1,
                           &r->histogram_capacity));
    r->histograms[r->histogram_count++] = (struct sample_histogram){ .row = row, .bytes = bytes };
    return OK;
}

/* Go to the next series of an input that is wanted. */
static err advance(const struct metric_compact_share *share, struct input *input, struct err_at *at)
{
    const struct segment_info *info = input->compact->info;
    while (share != NULL && input->next < info->series_count &&
           share->number_of_series[input->next] != share->number)
        input->next++;
    input->more = input->next < info->series_count;
    if (!input->more)
        return OK;
    while (input->tenant_number + 1 < info->tenant_count &&
           input->compact->tenants[input->tenant_number + 1].first <= input->next)
        input->tenant_number++;
    input->tenant = info->tenants[input->tenant_number];
    buf_clear(&input->labels);
    return metric_compact_labels_read(&input->reader, input->compact, input->next, &input->labels, at);
}

static int compare(const struct input *a, const struct input *b)
{
    int order = slice_compare(a->tenant, b->tenant);
    return order != 0 ? order : metric_series_compare(buf_slice(&a->labels), buf_slice(&b->labels));
}

/* The window's rows of an input's series behind those of the inputs before it. */
static err take(struct merge *m, struct input *input, struct hash128 series, struct err_at *at)
{
    const struct metric_compact_merge *request = m->request;
    struct rows *r = &m->in;
    TRY(metric_compact_read_all(input->cursor, input->next, &input->rows, at));
    const struct metric_rows *rows = &input->rows;
    TRY(rows_reserve(m->pool, r, rows->count));
    size_t h = 0;
    for (size_t i = 0; i < rows->count; i++) {
        int64_t t_ms = rows->t_ms[i], start_ms = rows->start_ms == NULL ? 0 : rows->start_ms[i];
        const struct sample_histogram *histogram = NULL;
        if (h < rows->histogram_count && rows->histograms[h].row == i)
            histogram = &rows->histograms[h++];
        if (t_ms < request->window.min_ms || t_ms > request->window.max_ms)
            continue;
        if (t_ms < request->cutoff_ms) {
            uint64_t bits = histogram == NULL ? rows->value_bits[i] : sum_histogram_bits(histogram->bytes);
            sum_add_hash(&m->expired, sum_row_hash(series, t_ms, bits, start_ms,
                                                   histogram == NULL ? SAMPLE_FLOAT : SAMPLE_HISTOGRAM));
            continue;
        }
        r->t_ms[r->count] = t_ms;
        r->start_ms[r->count] = start_ms;
        r->any_start |= start_ms != 0;
        r->bits[r->count] = rows->value_bits[i];
        r->histogram[r->count] = histogram == NULL ? NO_HISTOGRAM : (uint32_t)r->histogram_count;
        if (histogram != NULL)
            TRY(add_histogram(m->pool, r, histogram->bytes, 0));
        r->count++;
    }
    return OK;
}

/* order[] so that times ascend, equal ones as they came: bottom-up merge sort, nothing to do when sorted. */
static void sort(struct rows *r)
{
    bool sorted = true;
    for (size_t i = 0; i < r->count; i++) {
        r->order[i] = (uint32_t)i;
        sorted &= i == 0 || r->t_ms[i - 1] <= r->t_ms[i];
    }
    for (size_t width = 1; !sorted && width < r->count; width *= 2) {
        for (size_t low = 0; low < r->count; low += 2 * width) {
            size_t middle = low + width < r->count ? low + width : r->count;
            size_t high = low + 2 * width < r->count ? low + 2 * width : r->count;
            for (size_t a = low, b = middle, k = low; k < high; k++) {
                bool left = a < middle && (b == high || r->t_ms[r->order[a]] <= r->t_ms[r->order[b]]);
                r->scratch[k] = r->order[left ? a++ : b++];
            }
        }
        uint32_t *swap = r->order;
        r->order = r->scratch;
        r->scratch = swap;
    }
}

/* Sorted, without duplicates, into m->out; what is dropped is summed. */
static err resolve(struct merge *m, struct hash128 series)
{
    struct rows *in = &m->in, *out = &m->out;
    sort(in);
    out->count = out->histogram_count = 0;
    TRY(rows_reserve(m->pool, out, in->count));
    for (size_t i = 0; i < in->count; i++) {
        uint32_t k = in->order[i];
        bool is_histogram = in->histogram[k] != NO_HISTOGRAM;
        struct slice bytes = is_histogram ? in->histograms[in->histogram[k]].bytes : slice_of(NULL, 0);
        if (i + 1 < in->count && in->t_ms[in->order[i + 1]] == in->t_ms[k]) {
            uint64_t bits = is_histogram ? sum_histogram_bits(bytes) : in->bits[k];
            sum_add_hash(&m->dropped, sum_row_hash(series, in->t_ms[k], bits, in->start_ms[k],
                                                   is_histogram ? SAMPLE_HISTOGRAM : SAMPLE_FLOAT));
            continue;
        }
        out->t_ms[out->count] = in->t_ms[k];
        out->bits[out->count] = in->bits[k];
        out->start_ms[out->count] = in->start_ms[k];
        if (is_histogram)
            TRY(add_histogram(m->pool, out, bytes, (uint32_t)out->count));
        out->count++;
    }
    return OK;
}

static bool same_exemplar(const struct source_exemplar *a, const struct source_exemplar *b)
{
    return a->t_ms == b->t_ms && double_bits(a->value) == double_bits(b->value) &&
           slice_equal(a->labels, b->labels);
}

/* Exemplars of the merged series: those of all inputs in the window, by time, equal ones once. */
static err merge_exemplars(struct merge *m, const bool *has, struct err_at *at)
{
    const struct metric_compact_merge *request = m->request;
    struct source_exemplar *list = NULL;
    size_t count = 0, capacity = 0;
    err e = OK;
    for (size_t i = 0; i < request->input_count; i++) {
        struct source_exemplar *from;
        size_t n;
        if (!has[i])
            continue;
        TRY_OUT(metric_compact_exemplars(m->inputs[i].compact, m->inputs[i].next, m->exemplar_pool, &from, &n,
                                         at));
        TRY_OUT(pool_block_reserve(m->pool, (void **)&list, sizeof *list, count + n, &capacity));
        for (size_t k = 0; k < n; k++) {
            if (from[k].t_ms < request->window.min_ms || from[k].t_ms > request->window.max_ms ||
                from[k].t_ms < request->cutoff_ms)
                continue;
            size_t place = count; /* insertion: they come nearly sorted */
            while (place > 0 && list[place - 1].t_ms > from[k].t_ms)
                place--;
            if (place > 0 && same_exemplar(&list[place - 1], &from[k]))
                continue;
            memmove(list + place + 1, list + place, (count - place) * sizeof *list);
            list[place] = from[k];
            count++;
        }
    }
    TRY_OUT(metric_compact_writer_exemplars(m->writer, list, count));
out:
    pool_block_free(m->pool, list);
    pool_reset(m->exemplar_pool);
    return e;
}

static err merge_series(struct merge *m, const struct input *least, bool *has, struct err_at *at)
{
    struct hash128 series = sum_series_hash(least->tenant, buf_slice(&least->labels));
    m->in.count = m->in.histogram_count = 0;
    m->in.any_start = false;
    for (size_t i = 0; i < m->request->input_count; i++) {
        struct input *input = &m->inputs[i];
        has[i] = input->more && (input == least || compare(input, least) == 0);
        if (has[i])
            TRY(take(m, input, series, at));
    }
    if (m->in.count == 0)
        return OK;
    TRY(resolve(m, series));
    m->kept += m->out.count;
    struct metric_rows rows = {
        .t_ms = m->out.t_ms,
        .value_bits = m->out.bits,
        .start_ms = m->in.any_start ? m->out.start_ms : NULL,
        .count = m->out.count,
        .histograms = m->out.histograms,
        .histogram_count = m->out.histogram_count,
    };
    TRY(metric_compact_writer_series(m->writer, least->tenant, buf_slice(&least->labels), &rows));
    return merge_exemplars(m, has, at);
}

static err merge_all(struct merge *m, bool *has, struct err_at *at)
{
    const struct metric_compact_merge *request = m->request;
    for (;;) {
        struct input *least = NULL;
        for (size_t i = 0; i < request->input_count; i++)
            if (m->inputs[i].more && (least == NULL || compare(&m->inputs[i], least) < 0))
                least = &m->inputs[i];
        if (least == NULL)
            return OK;
        if (request->guard != NULL)
            TRY(guard_check(request->guard));
        TRY(merge_series(m, least, has, at));
        for (size_t i = 0; i < request->input_count; i++) {
            if (!has[i])
                continue;
            m->inputs[i].next++;
            TRY(advance(request->share, &m->inputs[i], at));
        }
    }
}

static err merge_metadata(struct merge *m, struct err_at *at)
{
    const struct metric_compact_share *share = m->request->share;
    for (size_t i = 0; i < m->request->input_count; i++) {
        struct batch_metadata *list;
        struct slice *owners;
        size_t count;
        TRY(compact_metadata_list(m->inputs[i].compact, NULL, m->exemplar_pool, &owners, &list, &count, at));
        for (size_t k = 0; k < count; k++)
            if (share == NULL || share->takes_metadata(share, owners[k], list[k].family))
                TRY(metric_compact_writer_metadata(m->writer, owners[k], &list[k]));
        pool_reset(m->exemplar_pool);
    }
    return OK;
}

err metric_compact_merge(const struct metric_compact_merge *request, struct metric_compact_writer *writer,
                         struct pool *pool, struct metric_compact_written *out_written, struct err_at *at)
{
    struct pool *own = pool_open(pool, "compact merge", POOL_BYTES_UNLIMITED);
    struct merge m = { .request = request, .writer = writer, .pool = own };
    size_t n = request->input_count;
    bool *has;
    err e = OK;
    check(n >= 1 && (request->share == NULL || n == 1));
    m.exemplar_pool = pool_open(own, "merge exemplars", POOL_BYTES_UNLIMITED);
    TRY_OUT(pool_zalloc(own, n * sizeof *m.inputs, (void **)&m.inputs));
    TRY_OUT(pool_zalloc(own, n * sizeof *has, (void **)&has));
    for (size_t i = 0; i < n; i++) {
        m.inputs[i].compact = request->inputs[i];
        m.inputs[i].labels = buf_open(own, LABELS_BYTES_MAX);
        TRY_OUT(metric_compact_labels_open(own, &m.inputs[i].reader));
        TRY_OUT(metric_compact_cursor_open(request->inputs[i], METRIC_COMPACT_TIMELINES_MAX, own,
                                           &m.inputs[i].cursor));
        TRY_OUT(advance(request->share, &m.inputs[i], at));
    }
    TRY_OUT(merge_all(&m, has, at));
    if (m.kept == 0) {
        out_written->info = (struct segment_info){ .kind = SEGMENT_METRIC, .time = { INT64_MAX, INT64_MIN } };
        out_written->info.dropped = m.dropped;
        out_written->info.expired = m.expired;
        TRY_OUT(ERR_NOT_FOUND);
    }
    TRY_OUT(merge_metadata(&m, at));
    TRY_OUT(metric_compact_writer_finish(writer, &m.dropped, &m.expired, out_written));
out:
    for (size_t i = 0; m.inputs != NULL && i < n; i++) {
        metric_compact_labels_close(&m.inputs[i].reader);
        metric_compact_cursor_close(m.inputs[i].cursor);
    }
    pool_close(m.exemplar_pool);
    pool_close(own);
    return e;
}
