/* Range functions: one pass over the samples of one series gives the value at every step.
 *
 * A window is (end - range, end]. Both its edges only move forward from step to step, so one walk over the times
 * finds them all; the next series with the same times (a target's series, a histogram's buckets) takes them as
 * they are. On top of that each function keeps what it needs to not look at a sample again:
 *     rate, increase, delta    first and last sample, and the list of counter resets (rare, so summed per window
 *                              in order: bit for bit what a scan of the window would give)
 *     changes, resets          prefix counts
 *     min, max                 two stacks of the best so far (below); with NaN or -0 among the values, a queue of
 *                              candidates, monotonic in value, which keeps the first of equal ones
 *     sum, avg                 where windows overlap much: two stacks (suffix sums of the older part, a running
 *                              sum of the newer), which add but never subtract, so that no precision is lost;
 *                              else a plain scan
 *     quantile                 the window's values in order: newcomers inserted, leavers removed
 *     stddev, stdvar, deriv, predict_linear    window_scan.c
 * Sums are Kahan's in Neumaier's form, as in Prometheus.
 *
 * Invariants: 1. Input has no stale markers and strictly ascending times. 2. Windows' ends do not go back.
 * 3. out[i] is ABSENT exactly where Prometheus gives no sample. */
#include "promql/eval.h"

#include "base/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RESET_BLOCK 16 /* samples compared between two branches */

err window_scratch_reserve(struct window_scratch *scratch, size_t bytes)
{
    if (bytes <= scratch->bytes)
        return OK;
    bytes += bytes / 2;
    TRY(pool_block_resize(scratch->pool, &scratch->at, bytes));
    scratch->bytes = bytes;
    return OK;
}

/* ---- edges ---- */

/* The first sample behind t_ms, at `from` or later. Windows advance by much the same count: `advance`, that of the
 * step before, is tried first and kept up to date. */
static size_t edge_find(const struct window_input *in, size_t from, int64_t t_ms, size_t *advance)
{
    size_t at = *advance < in->count - from ? from + *advance : in->count;
    while (at < in->count && in->t_ms[at] <= t_ms)
        at++;
    while (at > from && in->t_ms[at - 1] > t_ms)
        at--;
    *advance = at - from;
    return at;
}

/* The windows of all steps. Their ends do not go back, so two walks over the times find both edges. */
static err edges_find(const struct window_input *in, struct window_scratch *scratch)
{
    size_t count = in->ends.count, low = 0, high = 0, low_advance = 0, high_advance = 0;
    struct window_places *places = &scratch->places[in->times.low % WINDOW_PLACES];
    scratch->current = places;
    if (sample_times_named(in->times) && hash128_equal(places->times, in->times) && places->count == count)
        return OK;
    places->times = (struct hash128){ 0 };
    places->has_reaches = false;
    TRY(pool_block_reserve(scratch->pool, (void **)&places->edges, sizeof *places->edges, count,
                           &places->edge_capacity));
    for (size_t step = 0; step < count; step++) {
        int64_t end_ms = grid_t(&in->ends, step);
        high = edge_find(in, high, end_ms, &high_advance);
        low = edge_find(in, low, end_ms - in->range_ms, &low_advance);
        places->edges[step] = (struct window_edge){ (uint32_t)low, (uint32_t)high };
    }
    places->count = count;
    places->times = in->times;
    return OK;
}

/* ---- functions of first, last and count ---- */

/* How far the change between first and last sample is taken beyond them: to the window's edge, or half an
 * average interval where the edge is farther than 1.1 of them. */
static err reaches_find(const struct window_input *in, struct window_scratch *scratch, double scale)
{
    struct window_places *places = scratch->current;
    if (places->has_reaches)
        return OK;
    TRY(pool_block_reserve(scratch->pool, (void **)&places->reaches, sizeof *places->reaches, in->ends.count,
                           &places->reach_capacity));
    for (size_t step = 0; step < in->ends.count; step++) {
        struct window_edge w = places->edges[step];
        if (w.high - w.low < 2)
            continue;
        int64_t end_ms = grid_t(&in->ends, step);
        double to_start = (double)(in->t_ms[w.low] - (end_ms - in->range_ms));
        double to_end = (double)(end_ms - in->t_ms[w.high - 1]);
        double sampled = (double)(in->t_ms[w.high - 1] - in->t_ms[w.low]);
        double average = sampled / (double)(w.high - w.low - 1);
        double threshold = average * 1.1;
        if (to_start >= threshold)
            to_start = average * 0.5;
        if (to_end >= threshold)
            to_end = average * 0.5;
        places->reaches[step] = (struct window_reach){
            .sampled_ms = sampled,
            .to_start = to_start,
            .to_end = to_end,
            .factor = (sampled + to_start + to_end) / sampled * scale,
        };
    }
    places->has_reaches = true;
    return OK;
}

/* A counter cannot be negative: it is not extrapolated beyond the point where it would be 0. */
static double rate_of(const struct window_reach *r, double first, double change, bool counter, double scale)
{
    if (!counter || !(change > 0 && first >= 0 && r->sampled_ms * first < r->to_start * change))
        return change * r->factor;
    double to_zero = r->sampled_ms * (first / change);
    double to_start = to_zero < r->to_start ? to_zero : r->to_start;
    return change * ((r->sampled_ms + to_start + r->to_end) / r->sampled_ms * scale);
}

/* The first sample of [*at, end) below the one before it, at *at; false when there is none. Pairs are compared at
 * once, blocks of pairs looked at together. */
static bool reset_next(const double *v, size_t end, size_t *at)
{
    size_t i = *at;
    for (; i + RESET_BLOCK <= end; i += RESET_BLOCK) {
        typedef double pair __attribute__((vector_size(16)));
        typedef int64_t pair_mask __attribute__((vector_size(16)));
        pair_mask any = { 0 };
        for (size_t k = 0; k < RESET_BLOCK; k += 2) {
            pair before, now;
            memcpy(&before, v + i + k - 1, sizeof before);
            memcpy(&now, v + i + k, sizeof now);
            any |= now < before;
        }
        if ((any[0] | any[1]) != 0)
            break;
    }
    while (i < end && !(v[i] < v[i - 1]))
        i++;
    *at = i;
    return i < end;
}

/* Samples below the one before them, in scratch. */
static err resets_find(const struct window_input *in, struct window_scratch *scratch, uint32_t **out_resets,
                       size_t *out_count)
{
    size_t count = 0;
    for (size_t i = 1; reset_next(in->values, in->count, &i); i++) {
        if (count % 256 == 0) {
            TRY(window_scratch_reserve(scratch, (count + 256) * sizeof **out_resets));
            *out_resets = scratch->at;
        }
        (*out_resets)[count++] = (uint32_t)i;
    }
    *out_count = count;
    return OK;
}

static err window_rate(enum function_id id, const struct window_input *in, struct window_scratch *scratch,
                       double *out)
{
    bool counter = id != FUNCTION_DELTA;
    uint32_t *resets = NULL;
    size_t reset_count = 0, reset_low = 0, looked = 0;
    double scale = id == FUNCTION_RATE ? 1000 / (double)in->range_ms : 1;
    if (counter)
        TRY(resets_find(in, scratch, &resets, &reset_count));
    TRY(reaches_find(in, scratch, scale));
    for (size_t step = 0; step < in->ends.count; step++) {
        struct window_edge w = scratch->current->edges[step];
        if (w.high - w.low < 2) {
            out[step] = ABSENT;
            continue;
        }
        double first = in->values[w.low], change = in->values[w.high - 1] - first;
        while (reset_low < reset_count && resets[reset_low] <= w.low)
            reset_low++;
        size_t r = reset_low;
        for (; r < reset_count && resets[r] < w.high; r++)
            change += in->values[resets[r] - 1];
        TRY(guard_work(in->guard, &looked, r - reset_low));
        out[step] = rate_of(&scratch->current->reaches[step], first, change, counter, scale);
    }
    return OK;
}

static void window_instant_rate(enum function_id id, const struct window_input *in,
                                const struct window_scratch *scratch, double *out)
{
    for (size_t step = 0; step < in->ends.count; step++) {
        struct window_edge w = scratch->current->edges[step];
        out[step] = ABSENT;
        if (w.high - w.low < 2)
            continue;
        double last = in->values[w.high - 1], previous = in->values[w.high - 2];
        int64_t interval_ms = in->t_ms[w.high - 1] - in->t_ms[w.high - 2];
        if (interval_ms == 0)
            continue;
        if (id == FUNCTION_IDELTA)
            out[step] = last - previous;
        else
            out[step] = (last < previous ? last : last - previous) / ((double)interval_ms / 1000);
    }
}

static void window_pick(enum function_id id, const struct window_input *in,
                        const struct window_scratch *scratch, double *out)
{
    for (size_t step = 0; step < in->ends.count; step++) {
        struct window_edge w = scratch->current->edges[step];
        if (w.high == w.low)
            out[step] = ABSENT;
        else if (id == FUNCTION_COUNT_OVER_TIME)
            out[step] = (double)(w.high - w.low);
        else if (id == FUNCTION_LAST_OVER_TIME)
            out[step] = in->values[w.high - 1];
        else if (id == FUNCTION_FIRST_OVER_TIME)
            out[step] = in->values[w.low];
        else
            out[step] = 1; /* present_over_time, absent_over_time */
    }
}

/* ---- prefix counts ---- */

static err window_events(enum function_id id, const struct window_input *in, struct window_scratch *scratch,
                         double *out)
{
    TRY(window_scratch_reserve(scratch, (in->count + 1) * sizeof(uint32_t)));
    uint32_t *before = scratch->at; /* before[i]: events at samples ≤ i */
    before[0] = 0;
    for (size_t i = 1; i < in->count; i++) {
        double previous = in->values[i - 1], current = in->values[i];
        bool event = id == FUNCTION_RESETS ? current < previous
                                           : current != previous && !(isnan(current) && isnan(previous));
        before[i] = before[i - 1] + event;
    }
    for (size_t step = 0; step < in->ends.count; step++) {
        struct window_edge w = scratch->current->edges[step];
        out[step] = w.high == w.low ? ABSENT : (double)(before[w.high - 1] - before[w.low]);
    }
    return OK;
}

/* ---- min and max ---- */

static inline double better_of(double now, double best, bool max)
{
    return max ? (now > best ? now : best) : (now < best ? now : best);
}

/* The best of v and `best`. Four at a time, since each comparison waits for the one before. */
static inline double best_of(const double *v, size_t count, double best, bool max)
{
    size_t i = 0;
    if (count >= 8) {
        double b0 = best, b1 = best, b2 = best, b3 = best;
        for (; i + 4 <= count; i += 4) {
            b0 = better_of(v[i], b0, max);
            b1 = better_of(v[i + 1], b1, max);
            b2 = better_of(v[i + 2], b2, max);
            b3 = better_of(v[i + 3], b3, max);
        }
        best = better_of(better_of(b0, b1, max), better_of(b2, b3, max), max);
    }
    for (; i < count; i++)
        best = better_of(v[i], best, max);
    return best;
}

/* Windows over values whose order decides nothing. Two stacks, as for sums: of the samples up to `middle` the best
 * from each window's begin on, found where a window begins at the middle or behind, and the best of the newer. */
static inline void extreme_stacks(const struct window_input *in, const struct window_edge *edges, bool max,
                                  double *out)
{
    const double *v = in->values, worst = max ? -INFINITY : INFINITY;
    double newer = worst;
    size_t middle = 0, entered = 0;
    for (size_t step = 0; step < in->ends.count; step++) {
        struct window_edge w = edges[step];
        if (w.low >= middle) {
            size_t end = step + 1, at = w.high;
            double best = newer = worst;
            middle = entered = w.high;
            while (end < in->ends.count && edges[end].low < middle)
                end++;
            for (size_t i = end; i-- > step; at = edges[i].low)
                out[i] = best = best_of(v + edges[i].low, at - edges[i].low, best, max);
        }
        newer = best_of(v + entered, w.high - entered, newer, max);
        entered = w.high;
        out[step] = w.high == w.low ? ABSENT : better_of(newer, out[step], max);
    }
}

/* Any values. The first of equal ones (0 and -0) is taken; NaN only where there is nothing else. */
static err extreme_queue(const struct window_input *in, struct window_scratch *scratch, bool max, double *out)
{
    TRY(window_scratch_reserve(scratch, (in->count + 1) * sizeof(uint32_t)));
    uint32_t *queue = scratch->at; /* sample indexes, values best first; NaN never enters */
    size_t front = 0, back = 0, entered = 0;
    for (size_t step = 0; step < in->ends.count; step++) {
        struct window_edge w = scratch->current->edges[step];
        if (entered < w.low)
            entered = w.low;
        for (; entered < w.high; entered++) {
            double v = in->values[entered];
            if (isnan(v))
                continue;
            while (back > front && (max ? in->values[queue[back - 1]] < v : in->values[queue[back - 1]] > v))
                back--;
            queue[back++] = (uint32_t)entered;
        }
        while (front < back && queue[front] < w.low)
            front++;
        if (w.high == w.low)
            out[step] = ABSENT;
        else
            out[step] = front < back ? in->values[queue[front]] : in->values[w.low];
    }
    return OK;
}

static err window_extreme(enum function_id id, const struct window_input *in, struct window_scratch *scratch,
                          double *out)
{
    bool max = id == FUNCTION_MAX_OVER_TIME, plain = true;
    for (size_t i = 0; i < in->count; i++)
        plain &= !isnan(in->values[i]) & (double_bits(in->values[i]) != UINT64_C(1) << 63);
    if (!plain)
        return extreme_queue(in, scratch, max, out);
    if (max)
        extreme_stacks(in, scratch->current->edges, true, out);
    else
        extreme_stacks(in, scratch->current->edges, false, out);
    return OK;
}

/* ---- sum and avg ---- */

static double scan_sum(const double *v, size_t count)
{
    double sum = 0, c = 0;
    for (size_t i = 0; i < count; i++)
        kahan_add(v[i], &sum, &c);
    return isinf(sum) ? sum : sum + c;
}

/* The mean; should the sum overflow, goes on with a running mean. */
static double scan_average(const double *v, size_t count)
{
    double sum = 0, c = 0;
    for (size_t i = 0; i < count; i++) {
        double sum_next = sum, c_next = c;
        kahan_add(v[i], &sum_next, &c_next);
        if (i > 0 && isinf(sum_next)) {
            double mean = sum / (double)i;
            c /= (double)i;
            for (; i < count; i++) {
                double n = (double)(i + 1), keep = (n - 1) / n;
                mean *= keep;
                c *= keep;
                kahan_add(v[i] / n, &mean, &c);
            }
            return isinf(mean) ? mean : mean + c;
        }
        sum = sum_next;
        c = c_next;
    }
    if (isinf(sum))
        return sum;
    return sum / (double)count + c / (double)count;
}

static err scan_window(const struct window_input *in, struct window_edge w, bool average, size_t *looked,
                       double *out)
{
    const double *v = in->values + w.low;
    size_t count = w.high - w.low;
    *out = average ? scan_average(v, count) : scan_sum(v, count);
    return guard_work(in->guard, looked, count);
}

struct partial_sum {
    double sum, c;
};

/* Suffix sums of samples [low, middle) into stack. */
static void stack_fill(const struct window_input *in, size_t low, size_t middle, struct partial_sum *stack)
{
    struct partial_sum p = { 0 };
    for (size_t i = middle; i > low; i--) {
        kahan_add(in->values[i - 1], &p.sum, &p.c);
        stack[i - 1] = p;
    }
}

static err window_sum(enum function_id id, const struct window_input *in, struct window_scratch *scratch,
                      double *out)
{
    bool average = id == FUNCTION_AVG_OVER_TIME;
    bool overlap = in->ends.step_ms > 0 && in->range_ms / 4 >= in->ends.step_ms && in->ends.count > 4;
    struct partial_sum *stack = NULL, back = { 0 };
    if (overlap) {
        TRY(window_scratch_reserve(scratch, (in->count + 1) * sizeof *stack));
        stack = scratch->at;
    }
    size_t middle = 0, entered = 0, looked = 0; /* stack: [low, middle), back: [middle, entered) */
    for (size_t step = 0; step < in->ends.count; step++) {
        struct window_edge w = scratch->current->edges[step];
        size_t count = w.high - w.low;
        if (count == 0) {
            out[step] = ABSENT;
            continue;
        }
        if (!overlap) {
            TRY(scan_window(in, w, average, &looked, &out[step]));
            continue;
        }
        if (w.low >= middle) {
            middle = entered = w.high;
            stack_fill(in, w.low, middle, stack);
            back = (struct partial_sum){ 0 };
        }
        for (; entered < w.high; entered++)
            kahan_add(in->values[entered], &back.sum, &back.c);
        struct partial_sum total = stack[w.low];
        double compensation = total.c + back.c;
        total.c = 0;
        kahan_add(back.sum, &total.sum, &total.c);
        total.c += compensation;
        if (!isfinite(total.sum))
            TRY(scan_window(in, w, average, &looked, &out[step]));
        else if (average)
            out[step] = total.sum / (double)count + total.c / (double)count;
        else
            out[step] = total.sum + total.c;
    }
    return OK;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    if (isnan(x) || isnan(y))
        return isnan(y) - isnan(x); /* NaN first, as Go sorts */
    return (x > y) - (x < y);
}

/* ---- quantile ---- */

/* The window's values in order, NaN first; kept from step to step. */
struct sorted_window {
    double *values;
    size_t count;
    size_t nan_count; /* of them */
};

/* Where v is, or would be inserted: the first value not below it. */
static size_t sorted_find(const struct sorted_window *w, double v)
{
    size_t low = w->nan_count, high = w->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (w->values[middle] < v)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void sorted_insert(struct sorted_window *w, double v)
{
    size_t at = isnan(v) ? w->nan_count : sorted_find(w, v);
    memmove(w->values + at + 1, w->values + at, (w->count - at) * sizeof v);
    w->values[at] = v;
    w->count++;
    w->nan_count += isnan(v);
}

static void sorted_remove(struct sorted_window *w, double v)
{
    size_t at = isnan(v) ? w->nan_count - 1 : sorted_find(w, v);
    check_hot(at < w->count);
    w->count--;
    memmove(w->values + at, w->values + at + 1, (w->count - at) * sizeof v);
    w->nan_count -= isnan(v);
}

static double quantile_sorted(double q, const double *values, size_t count)
{
    if (count == 0 || isnan(q))
        return NAN;
    if (q < 0)
        return -INFINITY;
    if (q > 1)
        return INFINITY;
    double rank = q * (double)(count - 1);
    size_t lower = (size_t)rank, upper = lower + 1 < count ? lower + 1 : count - 1;
    double weight = rank - floor(rank);
    return values[lower] * (1 - weight) + values[upper] * weight;
}

double quantile_of(double q, double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare_doubles);
    return quantile_sorted(q, values, count);
}

static void sorted_fill(struct sorted_window *w, const double *values, size_t count)
{
    w->nan_count = 0;
    for (size_t i = 0; i < count; i++)
        w->nan_count += isnan(values[i]);
    if (count <= 32) {
        w->count = w->nan_count = 0;
        for (size_t i = 0; i < count; i++)
            sorted_insert(w, values[i]);
        return;
    }
    memcpy(w->values, values, count * sizeof *values);
    qsort(w->values, count, sizeof *values, compare_doubles);
    w->count = count;
}

static err window_quantile(const struct window_input *in, struct window_scratch *scratch, double *out)
{
    TRY(window_scratch_reserve(scratch, (in->count + 1) * sizeof(double)));
    struct sorted_window sorted = { .values = scratch->at };
    struct window_edge last = { 0 };
    size_t looked = 0;
    for (size_t step = 0; step < in->ends.count; step++) {
        struct window_edge w = scratch->current->edges[step];
        if (w.low >= last.high || (w.high - last.high) * 4 > w.high - w.low) {
            sorted_fill(&sorted, in->values + w.low, w.high - w.low);
        } else {
            for (size_t i = last.low; i < w.low; i++)
                sorted_remove(&sorted, in->values[i]);
            for (size_t i = last.high; i < w.high; i++)
                sorted_insert(&sorted, in->values[i]);
        }
        TRY(guard_work(in->guard, &looked,
                       (w.high - w.low) / 16 + 1)); /* moved by memmove, or sorted now and then */
        last = w;
        out[step] = w.high == w.low ? ABSENT : quantile_sorted(in->arg[step], sorted.values, sorted.count);
    }
    return OK;
}

bool function_is_window(enum function_id id)
{
    switch (id) {
    case FUNCTION_ABSENT_OVER_TIME:
    case FUNCTION_AVG_OVER_TIME:
    case FUNCTION_CHANGES:
    case FUNCTION_COUNT_OVER_TIME:
    case FUNCTION_DELTA:
    case FUNCTION_DERIV:
    case FUNCTION_FIRST_OVER_TIME:
    case FUNCTION_IDELTA:
    case FUNCTION_INCREASE:
    case FUNCTION_IRATE:
    case FUNCTION_LAST_OVER_TIME:
    case FUNCTION_MAX_OVER_TIME:
    case FUNCTION_MIN_OVER_TIME:
    case FUNCTION_PREDICT_LINEAR:
    case FUNCTION_PRESENT_OVER_TIME:
    case FUNCTION_QUANTILE_OVER_TIME:
    case FUNCTION_RATE:
    case FUNCTION_RESETS:
    case FUNCTION_STDDEV_OVER_TIME:
    case FUNCTION_STDVAR_OVER_TIME:
    case FUNCTION_SUM_OVER_TIME:
        return true;
    default:
        return false;
    }
}

static err window_steps(enum function_id id, const struct window_input *in, struct window_scratch *scratch,
                        double *out)
{
    TRY(edges_find(in, scratch));
    switch (id) {
    case FUNCTION_RATE:
    case FUNCTION_INCREASE:
    case FUNCTION_DELTA:
        return window_rate(id, in, scratch, out);
    case FUNCTION_IRATE:
    case FUNCTION_IDELTA:
        window_instant_rate(id, in, scratch, out);
        return OK;
    case FUNCTION_COUNT_OVER_TIME:
    case FUNCTION_PRESENT_OVER_TIME:
    case FUNCTION_ABSENT_OVER_TIME:
    case FUNCTION_LAST_OVER_TIME:
    case FUNCTION_FIRST_OVER_TIME:
        window_pick(id, in, scratch, out);
        return OK;
    case FUNCTION_CHANGES:
    case FUNCTION_RESETS:
        return window_events(id, in, scratch, out);
    case FUNCTION_MIN_OVER_TIME:
    case FUNCTION_MAX_OVER_TIME:
        return window_extreme(id, in, scratch, out);
    case FUNCTION_SUM_OVER_TIME:
    case FUNCTION_AVG_OVER_TIME:
        return window_sum(id, in, scratch, out);
    case FUNCTION_QUANTILE_OVER_TIME:
        return window_quantile(in, scratch, out);
    default:
        return window_scan(id, in, scratch, out);
    }
}

err window_apply(enum function_id id, const struct window_input *in, struct window_scratch *scratch,
                 double *out)
{
    if (in->ends.step_ms != 0 || in->ends.count <= 1 || in->arg != NULL)
        return window_steps(id, in, scratch, out);
    /* All windows are the same (@): compute one. */
    struct window_input one = *in;
    one.ends.count = 1;
    TRY(window_steps(id, &one, scratch, out));
    for (size_t step = 1; step < in->ends.count; step++)
        out[step] = out[0];
    return OK;
}
