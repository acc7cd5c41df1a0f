/* Range functions that look at every sample of every window: variance and linear regression. Called by window.c,
 * with its edges, for one series.
 *
 * A compensated sum waits for itself at each addition, so four windows are walked at once, a lane of a vector
 * each; what one has more samples than another it walks alone. The bits are those of a plain scan of the window
 * with kahan_add, which is what Prometheus does: of a sum's two terms it finds the rounding error by their order,
 * here it is found without asking for it (D. Knuth, The Art of Computer Programming 2, 4.2.2, theorem B). Both
 * errors are exact unless something is not finite; such a window is scanned again by itself.
 *
 * Invariants: 1. No value depends on the windows beside it.
 * 2. Lanes without a window of their own repeat the last. */
#include "promql/eval.h"

#include "base/check.h"

#include <math.h>

#define LANES 4

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2")))
#endif
#define INLINE static inline __attribute__((always_inline))

typedef double lanes __attribute__((vector_size(8 * LANES)));
typedef int64_t lanes_mask __attribute__((vector_size(8 * LANES)));

/* Four windows of the series. */
struct quad {
    const double *v[LANES], *t[LANES];
    double at[LANES]; /* the time at which a regression's intercept is asked for */
    size_t counts[LANES];
    size_t steps[LANES];
    size_t used; /* lanes with a window of their own, 1 … LANES */
};

/* Sums and their compensations, a lane each. */
struct lane_sum {
    lanes sum, c;
};

struct variance {
    double mean, mean_c, square, square_c;
};

struct regression {
    double x, x_c, y, y_c, xy, xy_c, xx, xx_c;
    bool constant;
};

INLINE void lane_add(struct lane_sum *s, const lanes *v)
{
    lanes sum = s->sum + *v, part = sum - s->sum;
    s->c += (s->sum - (sum - part)) + (*v - part);
    s->sum = sum;
}

INLINE void lane_load(const double *const from[LANES], size_t i, lanes *out)
{
    *out = (lanes){ from[0][i], from[1][i], from[2][i], from[3][i] };
}

/* ---- variance ---- */

/* Samples [from, to). Welford with compensated sums. */
static void variance_add(const double *v, size_t from, size_t to, struct variance *s)
{
    for (size_t i = from; i < to; i++) {
        double delta = v[i] - (s->mean + s->mean_c);
        kahan_add(delta / (double)(i + 1), &s->mean, &s->mean_c);
        kahan_add(delta * (v[i] - (s->mean + s->mean_c)), &s->square, &s->square_c);
    }
}

INLINE void variance_lanes_body(const struct quad *q, size_t count, struct variance out[LANES])
{
    struct lane_sum mean = { 0 }, square = { 0 };
    for (size_t i = 0; i < count; i++) {
        lanes v, delta, term;
        lane_load(q->v, i, &v);
        delta = v - (mean.sum + mean.c);
        term = delta / (double)(i + 1);
        lane_add(&mean, &term);
        term = delta * (v - (mean.sum + mean.c));
        lane_add(&square, &term);
    }
    for (size_t k = 0; k < LANES; k++)
        out[k] = (struct variance){ mean.sum[k], mean.c[k], square.sum[k], square.c[k] };
}

/* ---- regression ---- */

/* Samples [from, to). Seconds are counted from `at`. */
static void regression_add(const struct quad *q, size_t lane, size_t from, size_t to, struct regression *r)
{
    const double *t = q->t[lane], *v = q->v[lane];
    for (size_t i = from; i < to; i++) {
        double x = (t[i] - q->at[lane]) / 1000;
        r->constant = r->constant && v[i] == v[0];
        kahan_add(x, &r->x, &r->x_c);
        kahan_add(v[i], &r->y, &r->y_c);
        kahan_add(x * v[i], &r->xy, &r->xy_c);
        kahan_add(x * x, &r->xx, &r->xx_c);
    }
}

INLINE void regression_lanes_body(const struct quad *q, size_t count, struct regression out[LANES])
{
    struct lane_sum x_sum = { 0 }, y_sum = { 0 }, xy_sum = { 0 }, xx_sum = { 0 };
    lanes at = { q->at[0], q->at[1], q->at[2], q->at[3] }, first;
    lanes_mask differs = { 0 };
    lane_load(q->v, 0, &first);
    for (size_t i = 0; i < count; i++) {
        lanes x, y, term;
        lane_load(q->t, i, &x);
        lane_load(q->v, i, &y);
        x = (x - at) / 1000;
        differs |= y != first;
        lane_add(&x_sum, &x);
        lane_add(&y_sum, &y);
        term = x * y;
        lane_add(&xy_sum, &term);
        term = x * x;
        lane_add(&xx_sum, &term);
    }
    for (size_t k = 0; k < LANES; k++)
        out[k] =
            (struct regression){ x_sum.sum[k], x_sum.c[k],    y_sum.sum[k], y_sum.c[k],     xy_sum.sum[k],
                                 xy_sum.c[k],  xx_sum.sum[k], xx_sum.c[k],  differs[k] == 0 };
}

static void regression_line(const struct regression *r, double first, double n, double *out_slope,
                            double *out_intercept)
{
    if (r->constant) {
        *out_slope = isinf(first) ? NAN : 0;
        *out_intercept = isinf(first) ? NAN : first;
        return;
    }
    double x = r->x + r->x_c, y = r->y + r->y_c, xy = r->xy + r->xy_c, xx = r->xx + r->xx_c;
    double covariance = xy - x * y / n;
    double variance = xx - x * x / n;
    *out_slope = covariance / variance;
    *out_intercept = y / n - *out_slope * x / n;
}

/* ---- by the machine ---- */

#ifdef AVX2
AVX2 static void variance_lanes_avx2(const struct quad *q, size_t count, struct variance out[LANES])
{
    variance_lanes_body(q, count, out);
}

AVX2 static void regression_lanes_avx2(const struct quad *q, size_t count, struct regression out[LANES])
{
    regression_lanes_body(q, count, out);
}
#endif

static void variance_lanes(const struct quad *q, size_t count, struct variance out[LANES])
{
#ifdef AVX2
    if (__builtin_cpu_supports("avx2")) {
        variance_lanes_avx2(q, count, out);
        return;
    }
#endif
    variance_lanes_body(q, count, out);
}

static void regression_lanes(const struct quad *q, size_t count, struct regression out[LANES])
{
#ifdef AVX2
    if (__builtin_cpu_supports("avx2")) {
        regression_lanes_avx2(q, count, out);
        return;
    }
#endif
    regression_lanes_body(q, count, out);
}

/* ---- windows ---- */

static size_t common_count(const struct quad *q)
{
    size_t least = q->counts[0];
    for (size_t k = 1; k < LANES; k++)
        least = q->counts[k] < least ? q->counts[k] : least;
    return least;
}

static void quad_variance(const struct quad *q, bool deviation, double *out)
{
    struct variance s[LANES];
    size_t common = common_count(q);
    variance_lanes(q, common, s);
    for (size_t k = 0; k < q->used; k++) {
        if (isfinite(s[k].mean + s[k].mean_c + s[k].square + s[k].square_c)) {
            variance_add(q->v[k], common, q->counts[k], &s[k]);
        } else {
            s[k] = (struct variance){ 0 };
            variance_add(q->v[k], 0, q->counts[k], &s[k]);
        }
        double variance = (s[k].square + s[k].square_c) / (double)q->counts[k];
        out[q->steps[k]] = deviation ? sqrt(variance) : variance;
    }
}

/* ahead_s: NULL for the slope, else seconds behind `at` at which the line is asked for, by step. */
static void quad_regression(const struct quad *q, const double *ahead_s, double *out)
{
    struct regression r[LANES];
    size_t common = common_count(q);
    regression_lanes(q, common, r);
    for (size_t k = 0; k < q->used; k++) {
        double slope, intercept;
        if (isfinite(r[k].x + r[k].x_c + r[k].y + r[k].y_c + r[k].xy + r[k].xy_c + r[k].xx + r[k].xx_c)) {
            regression_add(q, k, common, q->counts[k], &r[k]);
        } else {
            r[k] = (struct regression){ .constant = true };
            regression_add(q, k, 0, q->counts[k], &r[k]);
        }
        regression_line(&r[k], q->v[k][0], (double)q->counts[k], &slope, &intercept);
        out[q->steps[k]] = ahead_s == NULL ? slope : slope * ahead_s[q->steps[k]] + intercept;
    }
}

static void quad_apply(enum function_id id, const struct window_input *in, struct quad *q, double *out)
{
    for (size_t k = q->used; k < LANES; k++) {
        q->v[k] = q->v[k - 1];
        q->t[k] = q->t[k - 1];
        q->at[k] = q->at[k - 1];
        q->counts[k] = q->counts[k - 1];
    }
    if (id == FUNCTION_DERIV || id == FUNCTION_PREDICT_LINEAR)
        quad_regression(q, id == FUNCTION_DERIV ? NULL : in->arg, out);
    else
        quad_variance(q, id == FUNCTION_STDDEV_OVER_TIME, out);
    q->used = 0;
}

/* Times as numbers, exact below 2^53 ms, in scratch. */
static err times_convert(const struct window_input *in, struct window_scratch *scratch, const double **out)
{
    TRY(window_scratch_reserve(scratch, (in->count + 1) * sizeof(double)));
    double *t = scratch->at;
    for (size_t i = 0; i < in->count; i++)
        t[i] = (double)in->t_ms[i];
    *out = t;
    return OK;
}

err window_scan(enum function_id id, const struct window_input *in, struct window_scratch *scratch,
                double *out)
{
    bool regression = id == FUNCTION_DERIV || id == FUNCTION_PREDICT_LINEAR;
    check(regression || id == FUNCTION_STDDEV_OVER_TIME || id == FUNCTION_STDVAR_OVER_TIME);
    size_t looked = 0, least = regression ? 2 : 1;
    const double *t = in->values; /* of variance: something to point to */
    struct quad q = { .used = 0 };
    if (regression)
        TRY(times_convert(in, scratch, &t));
    for (size_t step = 0; step < in->ends.count; step++) {
        struct window_edge w = scratch->current->edges[step];
        size_t count = w.high - w.low;
        TRY(guard_work(in->guard, &looked, count));
        if (count < least) {
            out[step] = ABSENT;
            continue;
        }
        q.v[q.used] = in->values + w.low;
        q.t[q.used] = t + w.low;
        q.at[q.used] = id == FUNCTION_DERIV ? q.t[q.used][0]
                                            : (double)(in->eval_start_ms + (int64_t)step * in->eval_step_ms);
        q.counts[q.used] = count;
        q.steps[q.used++] = step;
        if (q.used == LANES)
            quad_apply(id, in, &q, out);
    }
    if (q.used != 0)
        quad_apply(id, in, &q, out);
    return OK;
}
