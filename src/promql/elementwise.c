/* Elementwise stages: what maps one value to one value at every step. They run in place over a row, one after
 * another, while the row is in the cache.
 *
 * Invariant: ABSENT stays ABSENT; a comparison that does not hold makes it. */
#include "promql/eval.h"

#include "base/check.h"
#include "base/time.h"

#include <math.h>

/* Go's math.Max and math.Min: the infinity wins, then NaN; -0 is below 0. */
static double go_max(double a, double b)
{
    if (a == INFINITY || b == INFINITY)
        return INFINITY;
    if (isnan(a) || isnan(b))
        return NAN;
    if (a == 0 && b == 0)
        return signbit(a) ? b : a;
    return a > b ? a : b;
}

static double go_min(double a, double b)
{
    if (a == -INFINITY || b == -INFINITY)
        return -INFINITY;
    if (isnan(a) || isnan(b))
        return NAN;
    if (a == 0 && b == 0)
        return signbit(a) ? a : b;
    return a < b ? a : b;
}

static double math_sgn(double v) { return v < 0 ? -1 : v > 0 ? 1 : v; }
static double math_deg(double v) { return v * 180 / M_PI; }
static double math_rad(double v) { return v * M_PI / 180; }

static double floor_div(double a, double b) { return floor(a / b); }

/* Days since 1970-01-01 → year, month (1 … 12), day (1 … 31), proleptic Gregorian; after H. Hinnant's
 * civil_from_days. */
static void civil_of_days(int64_t days, int64_t *year, int *month, int *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153;
    *day = (int)(day_of_year - (153 * shifted + 2) / 5 + 1);
    *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
    *year = year_of_era + era * 400 + (*month <= 2);
}

static bool is_leap(int64_t year) { return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0; }

static int month_days(int64_t year, int month)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    return month == 2 && is_leap(year) ? 29 : days[month - 1];
}

/* Seconds since the epoch, cut to whole ones; false when no calendar has them. */
static bool seconds_of(double v, int64_t *out_days, int64_t *out_second_of_day)
{
    if (!(fabs(v) < 9e15))
        return false;
    double seconds = trunc(v);
    double days = floor_div(seconds, 86400);
    *out_days = (int64_t)days;
    *out_second_of_day = (int64_t)(seconds - days * 86400);
    return true;
}

static double date_part(enum function_id id, double v)
{
    int64_t days, second, year;
    int month, day;
    if (!seconds_of(v, &days, &second))
        return NAN;
    civil_of_days(days, &year, &month, &day);
    switch (id) {
    case FUNCTION_MINUTE:
        return (double)(second / 60 % 60);
    case FUNCTION_HOUR:
        return (double)(second / 3600);
    case FUNCTION_DAY_OF_WEEK:
        return (double)(((days + 4) % 7 + 7) % 7);
    case FUNCTION_DAY_OF_MONTH:
        return day;
    case FUNCTION_DAYS_IN_MONTH:
        return month_days(year, month);
    case FUNCTION_MONTH:
        return month;
    case FUNCTION_YEAR:
        return (double)year;
    default:
        break;
    }
    double day_of_year = day;
    for (int m = 1; m < month; m++)
        day_of_year += month_days(year, m);
    return day_of_year;
}

static double math_minute(double v) { return date_part(FUNCTION_MINUTE, v); }
static double math_hour(double v) { return date_part(FUNCTION_HOUR, v); }
static double math_day_of_week(double v) { return date_part(FUNCTION_DAY_OF_WEEK, v); }
static double math_day_of_month(double v) { return date_part(FUNCTION_DAY_OF_MONTH, v); }
static double math_day_of_year(double v) { return date_part(FUNCTION_DAY_OF_YEAR, v); }
static double math_days_in_month(double v) { return date_part(FUNCTION_DAYS_IN_MONTH, v); }
static double math_month(double v) { return date_part(FUNCTION_MONTH, v); }
static double math_year(double v) { return date_part(FUNCTION_YEAR, v); }

static double (*math_of(enum function_id id))(double)
{
    switch (id) {
    case FUNCTION_ABS:
        return fabs;
    case FUNCTION_ACOS:
        return acos;
    case FUNCTION_ACOSH:
        return acosh;
    case FUNCTION_ASIN:
        return asin;
    case FUNCTION_ASINH:
        return asinh;
    case FUNCTION_ATAN:
        return atan;
    case FUNCTION_ATANH:
        return atanh;
    case FUNCTION_CEIL:
        return ceil;
    case FUNCTION_COS:
        return cos;
    case FUNCTION_COSH:
        return cosh;
    case FUNCTION_DAYS_IN_MONTH:
        return math_days_in_month;
    case FUNCTION_DAY_OF_MONTH:
        return math_day_of_month;
    case FUNCTION_DAY_OF_WEEK:
        return math_day_of_week;
    case FUNCTION_DAY_OF_YEAR:
        return math_day_of_year;
    case FUNCTION_DEG:
        return math_deg;
    case FUNCTION_EXP:
        return exp;
    case FUNCTION_FLOOR:
        return floor;
    case FUNCTION_HOUR:
        return math_hour;
    case FUNCTION_LN:
        return log;
    case FUNCTION_LOG10:
        return log10;
    case FUNCTION_LOG2:
        return log2;
    case FUNCTION_MINUTE:
        return math_minute;
    case FUNCTION_MONTH:
        return math_month;
    case FUNCTION_RAD:
        return math_rad;
    case FUNCTION_SGN:
        return math_sgn;
    case FUNCTION_SIN:
        return sin;
    case FUNCTION_SINH:
        return sinh;
    case FUNCTION_SQRT:
        return sqrt;
    case FUNCTION_TAN:
        return tan;
    case FUNCTION_TANH:
        return tanh;
    case FUNCTION_YEAR:
        return math_year;
    default:
        return NULL;
    }
}

static void apply_math(const struct stage *stage, double *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!is_absent(values[i]))
            values[i] = stage->math(values[i]);
}

static void apply_clamp(const struct stage *stage, double *values, size_t count)
{
    const double *low = stage->scalars[0], *high = stage->scalars[1];
    for (size_t i = 0; i < count; i++) {
        if (is_absent(values[i]))
            continue;
        if (low != NULL && high != NULL && high[i] < low[i]) {
            values[i] = ABSENT;
            continue;
        }
        if (high != NULL)
            values[i] = go_min(high[i], values[i]);
        if (low != NULL)
            values[i] = go_max(low[i], values[i]);
    }
}

static void apply_round(const struct stage *stage, double *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_absent(values[i]))
            continue;
        /* Dividing by the inverse is what keeps 0.1 exact enough. */
        double inverse = 1 / (stage->scalars[0] != NULL ? stage->scalars[0][i] : 1);
        values[i] = floor(values[i] * inverse + 0.5) / inverse;
    }
}

static void apply_negate(const struct stage *stage, double *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!is_absent(values[i]))
            values[i] = -values[i];
}

static void apply_timestamp(const struct stage *stage, double *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!is_absent(values[i]))
            values[i] = (double)grid_t(&stage->grid, i) / 1000;
}

double scalar_operate(enum operator_type op, double left, double right)
{
    switch (op) {
    case OPERATOR_ADD:
        return left + right;
    case OPERATOR_SUBTRACT:
        return left - right;
    case OPERATOR_MULTIPLY:
        return left * right;
    case OPERATOR_DIVIDE:
        return left / right;
    case OPERATOR_MODULO:
        return fmod(left, right);
    case OPERATOR_POWER:
        return pow(left, right);
    case OPERATOR_ATAN2:
        return atan2(left, right);
    case OPERATOR_EQUAL:
        return left == right;
    case OPERATOR_NOT_EQUAL:
        return left != right;
    case OPERATOR_LESS:
        return left < right;
    case OPERATOR_LESS_EQUAL:
        return left <= right;
    case OPERATOR_GREATER:
        return left > right;
    case OPERATOR_GREATER_EQUAL:
        return left >= right;
    default:
        check(false);
        return 0;
    }
}

static void apply_compare(const struct stage *stage, double *values, size_t count)
{
    const double *scalar = stage->scalars[0];
    for (size_t i = 0; i < count; i++) {
        if (is_absent(values[i]))
            continue;
        double holds = stage->scalar_left ? scalar_operate(stage->op, scalar[i], values[i])
                                          : scalar_operate(stage->op, values[i], scalar[i]);
        if (stage->return_bool)
            values[i] = holds;
        else if (holds == 0)
            values[i] = ABSENT;
    }
}

static void apply_arithmetic(const struct stage *stage, double *values, size_t count)
{
    const double *scalar = stage->scalars[0];
    if (stage->op == OPERATOR_MULTIPLY) { /* by far the most frequent: unit conversions */
        for (size_t i = 0; i < count; i++)
            values[i] = is_absent(values[i]) ? values[i] : values[i] * scalar[i];
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (!is_absent(values[i]))
            values[i] = stage->scalar_left ? scalar_operate(stage->op, scalar[i], values[i])
                                           : scalar_operate(stage->op, values[i], scalar[i]);
}

bool function_is_elementwise(enum function_id id)
{
    return math_of(id) != NULL || id == FUNCTION_CLAMP || id == FUNCTION_CLAMP_MAX ||
           id == FUNCTION_CLAMP_MIN || id == FUNCTION_ROUND || id == FUNCTION_TIMESTAMP;
}

void stage_of_function(enum function_id id, struct stage *stage)
{
    stage->drops_name = true;
    stage->math = math_of(id);
    switch (id) {
    case FUNCTION_CLAMP:
        stage->apply = apply_clamp;
        break;
    case FUNCTION_CLAMP_MIN:
        stage->apply = apply_clamp;
        break;
    case FUNCTION_CLAMP_MAX:
        stage->apply = apply_clamp;
        stage->scalars[1] = stage->scalars[0];
        stage->scalars[0] = NULL;
        break;
    case FUNCTION_ROUND:
        stage->apply = apply_round;
        break;
    case FUNCTION_TIMESTAMP:
        stage->apply = apply_timestamp;
        break;
    default:
        check(stage->math != NULL);
        stage->apply = apply_math;
    }
}

void stage_of_operator(enum operator_type op, struct stage *stage)
{
    stage->op = op;
    stage->name = operator_name(op);
    stage->apply = operator_is_comparison(op) ? apply_compare : apply_arithmetic;
    stage->drops_name = !operator_is_comparison(op) || stage->return_bool;
}

void stage_of_negation(struct stage *stage)
{
    stage->apply = apply_negate;
    stage->name = "-";
    stage->drops_name = true;
}
