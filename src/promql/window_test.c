/* Goal: range functions in one pass give what a scan of every window by itself gives. Method: random series with
 * NaN, infinities, resets, gaps and huge values, random grids (windows that overlap, touch and leave gaps, and
 * the fixed one of @), compared with a reference evaluator written from the documentation, window by window. */
#include "base/test.h"
#include "promql/eval.h"

#include <float.h>
#include <math.h>

#define SAMPLE_COUNT_MAX 1500

static double reference_sum(const double *v, size_t n)
{
    long double sum = 0; /* 64 bits of mantissa and more exponent: nothing to compensate */
    for (size_t i = 0; i < n; i++)
        sum += (long double)v[i];
    return (double)sum;
}

static double reference_average(const double *v, size_t n)
{
    long double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (long double)v[i];
    return (double)(sum / (long double)n);
}

static double reference_variance(const double *v, size_t n)
{
    long double mean = 0, square = 0;
    for (size_t i = 0; i < n; i++)
        mean += (long double)v[i] / (long double)n;
    for (size_t i = 0; i < n; i++)
        square += ((long double)v[i] - mean) * ((long double)v[i] - mean);
    return (double)(square / (long double)n);
}

static double reference_extreme(const double *v, size_t n, bool max)
{
    double best = v[0];
    for (size_t i = 1; i < n; i++)
        if (isnan(best) || (max ? v[i] > best : v[i] < best))
            best = v[i];
    return best;
}

static double reference_events(const double *v, size_t n, bool resets)
{
    double count = 0;
    for (size_t i = 1; i < n; i++)
        count += resets ? v[i] < v[i - 1] : v[i] != v[i - 1] && !(isnan(v[i]) && isnan(v[i - 1]));
    return count;
}

static double reference_rate(const int64_t *t, const double *v, size_t n, int64_t begin, int64_t end,
                             bool counter, bool rate)
{
    if (n < 2)
        return ABSENT;
    double change = v[n - 1] - v[0];
    for (size_t i = 1; i < n && counter; i++)
        if (v[i] < v[i - 1])
            change += v[i - 1];
    double sampled = (double)(t[n - 1] - t[0]) / 1000, average = sampled / (double)(n - 1);
    double start_gap = (double)(t[0] - begin) / 1000, end_gap = (double)(end - t[n - 1]) / 1000;
    if (start_gap >= average * 1.1)
        start_gap = average / 2;
    if (counter && change > 0 && v[0] >= 0 && sampled * (v[0] / change) < start_gap)
        start_gap = sampled * (v[0] / change);
    if (end_gap >= average * 1.1)
        end_gap = average / 2;
    double result =
        change * ((sampled + start_gap + end_gap) / sampled / (rate ? (double)(end - begin) / 1000 : 1));
    return result;
}

static double reference_instant(const int64_t *t, const double *v, size_t n, bool rate)
{
    if (n < 2)
        return ABSENT;
    double change = v[n - 1] - v[n - 2];
    if (rate)
        return (v[n - 1] < v[n - 2] ? v[n - 1] : change) / ((double)(t[n - 1] - t[n - 2]) / 1000);
    return change;
}

static double reference_quantile(const double *v, size_t n, double q)
{
    double sorted[SAMPLE_COUNT_MAX];
    size_t count = 0;
    for (size_t i = 0; i < n; i++) { /* insertion, NaN first */
        size_t at = count++;
        for (; at > 0 && (isnan(v[i]) ? !isnan(sorted[at - 1]) : sorted[at - 1] > v[i]); at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = v[i];
    }
    double rank = q * (double)(n - 1), low = floor(rank), high = fmin(low + 1, (double)(n - 1));
    return sorted[(size_t)low] * (1 - (rank - low)) + sorted[(size_t)high] * (rank - low);
}

static double reference(enum function_id id, const struct window_input *in, size_t step)
{
    int64_t end = grid_t(&in->ends, step), begin = end - in->range_ms;
    size_t low = 0, high = 0;
    while (low < in->count && in->t_ms[low] <= begin)
        low++;
    for (high = low; high < in->count && in->t_ms[high] <= end;)
        high++;
    size_t n = high - low;
    const double *v = in->values + low;
    const int64_t *t = in->t_ms + low;
    if (n == 0)
        return ABSENT;
    switch (id) {
    case FUNCTION_SUM_OVER_TIME:
        return reference_sum(v, n);
    case FUNCTION_AVG_OVER_TIME:
        return reference_average(v, n);
    case FUNCTION_STDVAR_OVER_TIME:
        return reference_variance(v, n);
    case FUNCTION_MIN_OVER_TIME:
        return reference_extreme(v, n, false);
    case FUNCTION_MAX_OVER_TIME:
        return reference_extreme(v, n, true);
    case FUNCTION_QUANTILE_OVER_TIME:
        return reference_quantile(v, n, in->arg[step]);
    case FUNCTION_COUNT_OVER_TIME:
        return (double)n;
    case FUNCTION_LAST_OVER_TIME:
        return v[n - 1];
    case FUNCTION_FIRST_OVER_TIME:
        return v[0];
    case FUNCTION_PRESENT_OVER_TIME:
        return 1;
    case FUNCTION_CHANGES:
        return reference_events(v, n, false);
    case FUNCTION_RESETS:
        return reference_events(v, n, true);
    case FUNCTION_RATE:
        return reference_rate(t, v, n, begin, end, true, true);
    case FUNCTION_INCREASE:
        return reference_rate(t, v, n, begin, end, true, false);
    case FUNCTION_DELTA:
        return reference_rate(t, v, n, begin, end, false, false);
    case FUNCTION_IRATE:
        return reference_instant(t, v, n, true);
    default:
        return reference_instant(t, v, n, false);
    }
}

static bool close_enough(double want, double got, double scale, double epsilon)
{
    if (is_absent(want) || is_absent(got))
        return is_absent(want) && is_absent(got);
    if (want == got || (isnan(want) && isnan(got)))
        return true;
    return fabs(want - got) <= epsilon * fmax(fabs(want), scale);
}

enum flavour { FLAVOUR_COUNTER, FLAVOUR_GAUGE, FLAVOUR_SMALL, FLAVOUR_ODD, FLAVOUR_COUNT };

static double random_value(struct test_random *r, enum flavour flavour, double previous)
{
    switch (flavour) {
    case FLAVOUR_COUNTER:
        return test_random_below(r, 20) == 0 ? (double)test_random_below(r, 5)
                                             : previous + (double)test_random_below(r, 100);
    case FLAVOUR_GAUGE:
        return (double)(int64_t)test_random_below(r, 2000000) / 1000 - 1000;
    case FLAVOUR_SMALL:
        return (double)test_random_below(r, 3);
    default:
        break;
    }
    switch (test_random_below(r, 12)) {
    case 0:
        return NAN;
    case 1:
        return INFINITY;
    case 2:
        return -INFINITY;
    case 3:
        return -0.0;
    default:
        return (double)test_random_below(r, 1000) / 7;
    }
}

static void test_against_reference(void **state)
{
    static const enum function_id ids[] = {
        FUNCTION_SUM_OVER_TIME,  FUNCTION_AVG_OVER_TIME,   FUNCTION_STDVAR_OVER_TIME,
        FUNCTION_MIN_OVER_TIME,  FUNCTION_MAX_OVER_TIME,   FUNCTION_COUNT_OVER_TIME,
        FUNCTION_LAST_OVER_TIME, FUNCTION_FIRST_OVER_TIME, FUNCTION_PRESENT_OVER_TIME,
        FUNCTION_CHANGES,        FUNCTION_RESETS,          FUNCTION_RATE,
        FUNCTION_INCREASE,       FUNCTION_DELTA,           FUNCTION_IRATE,
        FUNCTION_IDELTA,
    };
    struct test_random random = test_random_begin("window");
    static int64_t t_ms[SAMPLE_COUNT_MAX];
    static double values[SAMPLE_COUNT_MAX], out[1000], quantiles[1000];
    for (size_t i = 0; i < 1000; i++)
        quantiles[i] = (double)(i % 11) / 10;
    for (int round = 0; round < 2000; round++) {
        struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
        struct window_scratch scratch = { .pool = pool };
        enum flavour flavour = (enum flavour)test_random_below(&random, FLAVOUR_COUNT);
        size_t count = test_random_below(&random, SAMPLE_COUNT_MAX);
        int64_t t = -50000;
        double scale = 0, previous = 0;
        for (size_t i = 0; i < count; i++) {
            t +=
                1 + (int64_t)test_random_below(&random, test_random_below(&random, 10) == 0 ? 200000 : 20000);
            t_ms[i] = t;
            values[i] = previous = random_value(&random, flavour, previous);
            if (isfinite(values[i]))
                scale = fmax(scale, fabs(values[i]));
        }
        struct window_input in = {
            .t_ms = t_ms,
            .values = values,
            .count = count,
            .range_ms = 1 + (int64_t)test_random_below(&random, 300000),
            .ends = { .start_ms = -60000 + (int64_t)test_random_below(&random, 100000),
                      .step_ms =
                          (int64_t)test_random_below(&random, 4) * (int64_t)test_random_below(&random, 30000),
                      .count = 1 + test_random_below(&random, 200) },
        };
        enum function_id id = ids[test_random_below(&random, sizeof ids / sizeof *ids)];
        in.arg = id == FUNCTION_QUANTILE_OVER_TIME ? quantiles : NULL;
        assert_ok(window_apply(id, &in, &scratch, out));
        double epsilon = id == FUNCTION_STDVAR_OVER_TIME ? 1e-9 : 1e-12;
        for (size_t step = 0; step < in.ends.count; step++) {
            double want = reference(id, &in, step);
            bool is_extreme = id == FUNCTION_MIN_OVER_TIME || id == FUNCTION_MAX_OVER_TIME;
            if (is_extreme && !isnan(want))
                assert_int_equal(double_bits(want), double_bits(out[step]));
            else if (!close_enough(want, out[step], id == FUNCTION_STDVAR_OVER_TIME ? scale * scale : scale,
                                   epsilon))
                fail_msg("round %d function %d step %zu: want %.17g got %.17g", round, (int)id, step, want,
                         out[step]);
        }
        pool_close(pool);
    }
}

/* Sums whose parts cancel, and averages whose sum overflows. */
static void test_precision(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct window_scratch scratch = { .pool = pool };
    int64_t t_ms[64];
    double values[64], out[64];
    for (int i = 0; i < 64; i++) {
        t_ms[i] = i * 1000;
        values[i] = i % 4 == 0 ? 1e100 : i % 4 == 1 ? 1 : i % 4 == 2 ? -1e100 : 1;
    }
    struct window_input in = { .t_ms = t_ms,
                               .values = values,
                               .count = 64,
                               .range_ms = 8000,
                               .ends = { .start_ms = 7000, .step_ms = 1000, .count = 57 } };
    assert_ok(window_apply(FUNCTION_SUM_OVER_TIME, &in, &scratch, out));
    for (int i = 0; i < 57; i++)
        assert_true(out[i] == 4);
    for (int i = 0; i < 64; i++)
        values[i] = DBL_MAX;
    assert_ok(window_apply(FUNCTION_AVG_OVER_TIME, &in, &scratch, out));
    for (int i = 0; i < 57; i++)
        assert_true(fabs(out[i] / DBL_MAX - 1) < 1e-12);
    assert_ok(window_apply(FUNCTION_SUM_OVER_TIME, &in, &scratch, out));
    assert_true(isinf(out[0]));
    pool_close(pool);
}

static void test_regression(void **state)
{
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct window_scratch scratch = { .pool = pool };
    int64_t t_ms[20];
    double values[20], out[4], ahead[4] = { 100, 100, 100, 100 };
    for (int i = 0; i < 20; i++) {
        t_ms[i] = i * 1000;
        values[i] = 3 + 0.5 * i;
    }
    struct window_input in = { .t_ms = t_ms,
                               .values = values,
                               .count = 20,
                               .range_ms = 10000,
                               .arg = ahead,
                               .ends = { .start_ms = 10000, .step_ms = 3000, .count = 4 },
                               .eval_start_ms = 10000,
                               .eval_step_ms = 3000 };
    assert_ok(window_apply(FUNCTION_DERIV, &in, &scratch, out));
    for (int i = 0; i < 4; i++)
        assert_true(fabs(out[i] - 0.5) < 1e-12);
    assert_ok(window_apply(FUNCTION_PREDICT_LINEAR, &in, &scratch, out));
    for (int i = 0; i < 4; i++)
        assert_true(fabs(out[i] - (3 + 0.5 * (10 + 3 * i + 100))) < 1e-9);
    double half[4] = { 0.5, 0, 1, 2 };
    in.arg = half;
    assert_ok(window_apply(FUNCTION_QUANTILE_OVER_TIME, &in, &scratch, out));
    assert_true(out[0] == (values[5] + values[6]) / 2 && out[1] == values[4] && out[2] == values[16] &&
                isinf(out[3]));
    pool_close(pool);
}

/* What Prometheus computes, sample by sample. */
static double plain_variance(const double *v, size_t n)
{
    double mean = 0, mean_c = 0, square = 0, square_c = 0;
    for (size_t i = 0; i < n; i++) {
        double delta = v[i] - (mean + mean_c);
        kahan_add(delta / (double)(i + 1), &mean, &mean_c);
        kahan_add(delta * (v[i] - (mean + mean_c)), &square, &square_c);
    }
    return (square + square_c) / (double)n;
}

static double plain_regression(const int64_t *t_ms, const double *v, size_t n, int64_t at_ms, double ahead,
                               bool slope_only)
{
    double x_sum = 0, y_sum = 0, xy_sum = 0, xx_sum = 0, x_c = 0, y_c = 0, xy_c = 0, xx_c = 0;
    bool constant = true;
    for (size_t i = 0; i < n; i++) {
        double x = (double)(t_ms[i] - at_ms) / 1000;
        constant = constant && v[i] == v[0];
        kahan_add(x, &x_sum, &x_c);
        kahan_add(v[i], &y_sum, &y_c);
        kahan_add(x * v[i], &xy_sum, &xy_c);
        kahan_add(x * x, &xx_sum, &xx_c);
    }
    if (constant)
        return isinf(v[0]) ? NAN : slope_only ? 0 : v[0];
    x_sum += x_c;
    y_sum += y_c;
    xy_sum += xy_c;
    xx_sum += xx_c;
    double count = (double)n;
    double slope = (xy_sum - x_sum * y_sum / count) / (xx_sum - x_sum * x_sum / count);
    return slope_only ? slope : slope * ahead + (y_sum / count - slope * x_sum / count);
}

/* Four windows at once give the bits of each by itself. */
static void test_scans_bitwise(void **state)
{
    enum { SAMPLES = 300, STEPS = 61 };
    static const enum function_id ids[] = { FUNCTION_STDVAR_OVER_TIME, FUNCTION_DERIV,
                                            FUNCTION_PREDICT_LINEAR };
    struct test_random random = test_random_begin("scans");
    int64_t t_ms[SAMPLES];
    double v[SAMPLES], out[STEPS], ahead[STEPS];
    struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    struct window_scratch scratch = { .pool = pool };
    for (int round = 0; round < 600; round++) {
        int64_t t = 1700000000000, apart = 1 + (int64_t)test_random_below(&random, 20000);
        double size = pow(10, (double)test_random_below(&random, 40) - 20);
        uint64_t odd = round % 3 == 0 ? 40 : 1u << 30, same = round % 4 == 0 ? 2 : 20;
        for (size_t i = 0; i < SAMPLES; i++) {
            t_ms[i] = t += 1 + (int64_t)test_random_below(&random, (uint64_t)apart);
            v[i] = ((double)test_random_below(&random, 1u << 30) - 5e8) * size /
                   (1 + test_random_below(&random, 7));
            if (i > 0 && test_random_below(&random, same) != 0 && same == 2)
                v[i] = v[i - 1];
            uint64_t which = test_random_below(&random, odd);
            if (which < 5)
                v[i] = which == 0   ? NAN
                       : which == 1 ? INFINITY
                       : which == 2 ? -INFINITY
                       : which == 3 ? DBL_MAX
                                    : -0.0;
        }
        for (size_t i = 0; i < STEPS; i++)
            ahead[i] = (double)test_random_below(&random, 10000);
        struct window_input in = { .t_ms = t_ms,
                                   .values = v,
                                   .count = 1 + test_random_below(&random, SAMPLES),
                                   .range_ms = 1 + (int64_t)test_random_below(&random, 400000),
                                   .arg = ahead,
                                   .eval_step_ms = (int64_t)test_random_below(&random, 20000),
                                   .ends = { .start_ms = 1700000000000,
                                             .count = 1 + (size_t)round % STEPS } };
        in.ends.step_ms = in.eval_step_ms;
        in.eval_start_ms = in.ends.start_ms + 5000;
        enum function_id id = ids[round % 3];
        assert_ok(window_apply(id, &in, &scratch, out));
        for (size_t step = 0; step < in.ends.count; step++) {
            int64_t end = grid_t(&in.ends, step), begin = end - in.range_ms;
            size_t low = 0, high = 0;
            for (size_t i = 0; i < in.count; i++) {
                low += t_ms[i] <= begin;
                high += t_ms[i] <= end;
            }
            size_t n = high - low;
            double want = ABSENT;
            int64_t at = id == FUNCTION_DERIV ? t_ms[low < in.count ? low : 0]
                                              : in.eval_start_ms + (int64_t)step * in.eval_step_ms;
            if (id == FUNCTION_STDVAR_OVER_TIME && n > 0)
                want = plain_variance(v + low, n);
            else if (id != FUNCTION_STDVAR_OVER_TIME && n > 1)
                want = plain_regression(t_ms + low, v + low, n, at, ahead[step], id == FUNCTION_DERIV);
            if (isnan(want) ? !isnan(out[step]) || is_absent(want) != is_absent(out[step])
                            : want != out[step])
                fail_msg("round %d function %d step %zu: want %a got %a", round, (int)id, step, want,
                         out[step]);
        }
    }
    pool_close(pool);
}

/* Series that share times give what each gives alone, however their turns mix. */
static void test_shared_times(void **state)
{
    enum { RUNS = 20, SAMPLES = 100 };
    static const enum function_id ids[] = { FUNCTION_RATE, FUNCTION_DELTA, FUNCTION_MAX_OVER_TIME };
    struct test_random random = test_random_begin("shared times");
    int64_t t_ms[RUNS][SAMPLES];
    size_t counts[RUNS];
    double values[SAMPLES], out[60], alone[60];
    for (int run = 0; run < RUNS; run++) {
        counts[run] = test_random_below(&random, SAMPLES);
        int64_t t = (int64_t)test_random_below(&random, 20000);
        for (size_t i = 0; i < counts[run]; i++)
            t_ms[run][i] = t += 1 + (int64_t)test_random_below(&random, 20000);
    }
    for (int round = 0; round < 3; round++) {
        struct pool *pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
        struct window_scratch scratch = { .pool = pool };
        for (int i = 0; i < 300; i++) {
            size_t run = test_random_below(&random, RUNS);
            struct window_scratch fresh = { .pool = pool };
            for (int k = 0; k < SAMPLES; k++)
                values[k] = (double)test_random_below(&random, 1000);
            struct window_input in = { .t_ms = t_ms[run],
                                       .values = values,
                                       .count = counts[run],
                                       .range_ms = 60000,
                                       .ends = { .start_ms = 7000, .step_ms = 15000, .count = 60 } };
            assert_ok(window_apply(ids[round], &in, &fresh, alone));
            in.times = run % 5 == 0 ? (struct hash128){ 0 } : (struct hash128){ run, 1 };
            assert_ok(window_apply(ids[round], &in, &scratch, out));
            assert_memory_equal(out, alone, sizeof out);
        }
        pool_close(pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference), cmocka_unit_test(test_precision),
        cmocka_unit_test(test_shared_times),      cmocka_unit_test(test_regression),
        cmocka_unit_test(test_scans_bitwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
