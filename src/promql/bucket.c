/* histogram_quantile and histogram_fraction over classic histograms: series with an `le` label.
 *
 * Rows are grouped by their labels without le (the metric name counts, so histograms of two metrics stay apart);
 * at each step the group's present buckets are sorted by bound, equal bounds joined, small dents from floating
 * point ironed out, decreases removed, and the rank interpolated linearly.
 * Source: Prometheus' documentation of histogram_quantile; behaviour as of 3.14. */
#include "promql/eval.h"

#include "base/check.h"
#include "shim/number.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#define SMALL_DELTA 1e-12

static int compare_buckets(const void *a, const void *b)
{
    const struct bucket *x = a, *y = b;
    return (x->upper > y->upper) - (x->upper < y->upper);
}

/* Equal but for floating point noise? */
static bool almost_equal(double a, double b, double epsilon)
{
    if (a == b || (isnan(a) && isnan(b)))
        return true;
    double sum = fabs(a) + fabs(b), difference = fabs(a - b);
    if (a == 0 || b == 0 || sum < DBL_MIN)
        return difference < epsilon * DBL_MIN;
    return difference / fmin(sum, DBL_MAX) < epsilon;
}

/* Sort and join equal bounds; the number left. */
static size_t buckets_join(struct bucket *buckets, size_t count)
{
    qsort(buckets, count, sizeof *buckets, compare_buckets);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && buckets[kept - 1].upper == buckets[i].upper)
            buckets[kept - 1].count += buckets[i].count;
        else
            buckets[kept++] = buckets[i];
    }
    return kept;
}

/* Returns whether there were decreases, which are told in *repair. */
static bool buckets_force_monotonic(struct bucket *buckets, size_t count, struct bucket_repair *repair)
{
    bool forced = false;
    double previous = buckets[0].count;
    for (size_t i = 1; i < count; i++) {
        double current = buckets[i].count;
        if (current == previous)
            continue;
        bool noise = almost_equal(previous, current, SMALL_DELTA);
        if (!noise && !(current < previous)) {
            previous = current;
            continue;
        }
        buckets[i].count = previous;
        if (noise)
            continue;
        forced = true;
        repair->lowest = fmin(repair->lowest, buckets[i].upper);
        repair->highest = fmax(repair->highest, buckets[i].upper);
        repair->difference = fmax(repair->difference, previous - current);
    }
    return forced;
}

double bucket_quantile(double q, struct bucket *buckets, size_t count, struct bucket_repair *repair)
{
    if (isnan(q))
        return NAN;
    if (q < 0)
        return -INFINITY;
    if (q > 1)
        return INFINITY;
    count = buckets_join(buckets, count);
    if (buckets[count - 1].upper != INFINITY)
        return NAN;
    struct bucket_repair own = { .lowest = INFINITY, .highest = -INFINITY };
    bool forced = buckets_force_monotonic(buckets, count, &own);
    double observations = buckets[count - 1].count;
    if (count < 2 || observations == 0)
        return NAN;
    if (forced) {
        repair->count++;
        repair->lowest = fmin(repair->lowest, own.lowest);
        repair->highest = fmax(repair->highest, own.highest);
        repair->difference = fmax(repair->difference, own.difference);
    }
    double rank = q * observations;
    size_t b = 0, end = count - 1;
    while (b < end) { /* the first with count ≥ rank, else the last */
        size_t middle = b + (end - b) / 2;
        if (buckets[middle].count >= rank)
            end = middle;
        else
            b = middle + 1;
    }
    if (b == count - 1)
        return buckets[count - 2].upper;
    if (b == 0 && buckets[0].upper <= 0)
        return buckets[0].upper;
    double begin = 0, inside = buckets[b].count;
    if (b > 0) {
        begin = buckets[b - 1].upper;
        inside -= buckets[b - 1].count;
        rank -= buckets[b - 1].count;
    }
    return begin + (buckets[b].upper - begin) * (rank / inside);
}

/* Observations below `bound`, interpolated. Those of a bucket without a lower end are all at its upper one. */
static double bucket_rank(double bound, const struct bucket *buckets, size_t count)
{
    double rank = 0, total = buckets[count - 1].count;
    for (size_t i = 0; i < count; i++) {
        double lower = i > 0 ? buckets[i - 1].upper : buckets[0].upper > 0 ? 0 : -INFINITY;
        double upper = buckets[i].upper;
        if (lower >= bound)
            return rank < total ? rank : total;
        if (upper > bound) {
            rank = lower == -INFINITY ? buckets[i].count
                                      : rank + (buckets[i].count - rank) * (bound - lower) / (upper - lower);
            return rank > total ? total : rank;
        }
        rank = buckets[i].count;
    }
    return total;
}

double bucket_fraction(double lower, double upper, struct bucket *buckets, size_t count)
{
    count = buckets_join(buckets, count);
    if (buckets[count - 1].upper != INFINITY)
        return NAN;
    double total = buckets[count - 1].count;
    if (total == 0 || isnan(lower) || isnan(upper))
        return NAN;
    if (lower >= upper)
        return 0;
    return (bucket_rank(upper, buckets, count) - bucket_rank(lower, buckets, count)) / total;
}

struct bucket_row {
    double upper;
    uint32_t group;
    uint32_t row;
};

static int compare_bucket_rows(const void *a, const void *b)
{
    const struct bucket_row *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    return (x->upper > y->upper) - (x->upper < y->upper);
}

/* An upper bound as Go reads floats: what is too large for one is malformed. */
static bool label_bound(struct slice text, double *out)
{
    if (text.len == 0 || !number_parse(text, true, out) || isnan(*out))
        return false;
    bool digits = false;
    for (size_t i = 0; i < text.len && !digits; i++)
        digits = text.at[i] >= '0' && text.at[i] <= '9';
    return !(isinf(*out) && digits);
}

/* Sort the frame's bucket rows by group and bound. */
static err bucket_rows(struct eval *eval, const struct node *n, const struct frame *frame,
                       struct label_index *index, struct bucket_row *rows, size_t *out_count)
{
    static const struct slice le = { (const uint8_t *)"le", 2 };
    const struct function *f = n->call.function;
    struct buf scratch = buf_open(frame->pool, LABELS_BYTES_MAX);
    size_t count = 0;
    for (size_t i = 0; i < frame->count; i++) {
        const struct row *row = &frame->rows[i];
        struct bucket_row *b = &rows[count];
        if (row->histogram_count > 0)
            return fail_histogram(eval->at, row->labels, f->name);
        struct slice text = labels_get(row->labels, le);
        if (!label_bound(text, &b->upper)) {
            annotate_bucket_label(eval, row->labels, text, n->call.args[n->call.arg_count - 1]);
            continue;
        }
        buf_clear(&scratch);
        labels_project(row->labels, &le, 1, false, false, &scratch);
        TRY(buf_err(&scratch));
        bool is_new;
        TRY(label_index_get(index, buf_slice(&scratch), &b->group, &is_new));
        b->row = (uint32_t)i;
        count++;
    }
    if (count > 1)
        qsort(rows, count, sizeof *rows, compare_bucket_rows);
    *out_count = count;
    return OK;
}

struct bucket_args {
    const double *first, *second; /* φ, or lower and upper */
    bool fraction;
    struct bucket_repair repair;
};

static void bucket_group(struct bucket_args *args, const struct frame *frame, const struct bucket_row *rows,
                         size_t count, const struct grid *grid, struct bucket *buckets, double *out)
{
    struct bucket_repair *repair = &args->repair;
    *repair = (struct bucket_repair){ .lowest = INFINITY, .highest = -INFINITY };
    for (size_t step = 0; step < grid->count; step++) {
        size_t present = 0;
        for (size_t i = 0; i < count; i++) {
            double v = frame->rows[rows[i].row].values[step];
            if (!is_absent(v))
                buckets[present++] = (struct bucket){ rows[i].upper, v };
        }
        if (present == 0)
            continue;
        if (args->fraction) {
            out[step] = bucket_fraction(args->first[step], args->second[step], buckets, present);
            continue;
        }
        uint64_t before = repair->count;
        out[step] = bucket_quantile(args->first[step], buckets, present, repair);
        if (repair->count == before)
            continue;
        if (before == 0)
            repair->begin_ms = grid_t(grid, step);
        repair->end_ms = grid_t(grid, step);
    }
}

err bucket_call(struct eval *eval, const struct node *n, const struct grid *grid, struct frame **out_frame)
{
    struct bucket_args args = { .fraction = n->call.function->id == FUNCTION_HISTOGRAM_FRACTION };
    double *scalars;
    TRY(eval_scalars(eval, n->call.args[0], grid, &scalars));
    args.first = scalars;
    if (args.fraction)
        TRY(eval_scalars(eval, n->call.args[1], grid, &scalars));
    args.second = scalars;
    for (size_t i = 0; i < grid->count && !args.fraction; i++)
        if (quantile_is_bad(args.first[i]) &&
            (i == 0 || double_bits(args.first[i]) != double_bits(args.first[i - 1])))
            annotate_quantile(eval, args.first[i], n->call.args[0]);

    struct frame *frame, *out;
    TRY(eval_frame(eval, n->call.args[n->call.arg_count - 1], grid, &frame));
    TRY(frame_open(eval, &out));
    struct label_index index = label_index_open(out->pool);
    void *memory;
    TRY(pool_alloc(frame->pool, (frame->count + 1) * sizeof(struct bucket_row), &memory));
    struct bucket_row *rows = memory;
    size_t count = 0;
    TRY(bucket_rows(eval, n, frame, &index, rows, &count));
    TRY(pool_alloc(frame->pool, (count + 1) * sizeof(struct bucket), &memory));
    for (size_t i = 0; i < count;) {
        TRY(guard_maybe(eval));
        size_t end = i;
        while (end < count && rows[end].group == rows[i].group)
            end++;
        struct row row = { .labels = index.keys[rows[i].group], .drop_name = true };
        TRY(values_new(out->pool, grid->count, &row.values));
        bucket_group(&args, frame, rows + i, end - i, grid, memory, row.values);
        if (args.repair.count > 0)
            annotate_monotonicity(eval, row.labels, &args.repair, n->call.args[1]);
        TRY(frame_add(out, row));
        i = end;
    }
    frame_close(eval, frame);
    *out_frame = out;
    return OK;
}
