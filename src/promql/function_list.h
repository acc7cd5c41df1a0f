/* The table of functions: identifier, name, argument letters, variadic, return type. Internal to the room.
 * Letters and variadic as described at struct function. Sorted by name. */
#ifndef PROMQL_FUNCTION_LIST_H
#define PROMQL_FUNCTION_LIST_H

#define FUNCTION_LIST(X)                                          \
    X(ABS, "abs", "v", 0, VECTOR)                                 \
    X(ABSENT, "absent", "v", 0, VECTOR)                           \
    X(ABSENT_OVER_TIME, "absent_over_time", "m", 0, VECTOR)       \
    X(ACOS, "acos", "v", 0, VECTOR)                               \
    X(ACOSH, "acosh", "v", 0, VECTOR)                             \
    X(ASIN, "asin", "v", 0, VECTOR)                               \
    X(ASINH, "asinh", "v", 0, VECTOR)                             \
    X(ATAN, "atan", "v", 0, VECTOR)                               \
    X(ATANH, "atanh", "v", 0, VECTOR)                             \
    X(AVG_OVER_TIME, "avg_over_time", "m", 0, VECTOR)             \
    X(CEIL, "ceil", "v", 0, VECTOR)                               \
    X(CHANGES, "changes", "m", 0, VECTOR)                         \
    X(CLAMP, "clamp", "vss", 0, VECTOR)                           \
    X(CLAMP_MAX, "clamp_max", "vs", 0, VECTOR)                    \
    X(CLAMP_MIN, "clamp_min", "vs", 0, VECTOR)                    \
    X(COS, "cos", "v", 0, VECTOR)                                 \
    X(COSH, "cosh", "v", 0, VECTOR)                               \
    X(COUNT_OVER_TIME, "count_over_time", "m", 0, VECTOR)         \
    X(DAY_OF_MONTH, "day_of_month", "v", 1, VECTOR)               \
    X(DAY_OF_WEEK, "day_of_week", "v", 1, VECTOR)                 \
    X(DAY_OF_YEAR, "day_of_year", "v", 1, VECTOR)                 \
    X(DAYS_IN_MONTH, "days_in_month", "v", 1, VECTOR)             \
    X(DEG, "deg", "v", 0, VECTOR)                                 \
    X(DELTA, "delta", "m", 0, VECTOR)                             \
    X(DERIV, "deriv", "m", 0, VECTOR)                             \
    X(EXP, "exp", "v", 0, VECTOR)                                 \
    X(FIRST_OVER_TIME, "first_over_time", "m", 0, VECTOR)         \
    X(FLOOR, "floor", "v", 0, VECTOR)                             \
    X(HISTOGRAM_AVG, "histogram_avg", "v", 0, VECTOR)             \
    X(HISTOGRAM_COUNT, "histogram_count", "v", 0, VECTOR)         \
    X(HISTOGRAM_FRACTION, "histogram_fraction", "ssv", 0, VECTOR) \
    X(HISTOGRAM_QUANTILE, "histogram_quantile", "sv", 0, VECTOR)  \
    X(HISTOGRAM_STDDEV, "histogram_stddev", "v", 0, VECTOR)       \
    X(HISTOGRAM_STDVAR, "histogram_stdvar", "v", 0, VECTOR)       \
    X(HISTOGRAM_SUM, "histogram_sum", "v", 0, VECTOR)             \
    X(HOUR, "hour", "v", 1, VECTOR)                               \
    X(IDELTA, "idelta", "m", 0, VECTOR)                           \
    X(INCREASE, "increase", "m", 0, VECTOR)                       \
    X(IRATE, "irate", "m", 0, VECTOR)                             \
    X(LABEL_JOIN, "label_join", "vttt", -1, VECTOR)               \
    X(LABEL_REPLACE, "label_replace", "vtttt", 0, VECTOR)         \
    X(LAST_OVER_TIME, "last_over_time", "m", 0, VECTOR)           \
    X(LN, "ln", "v", 0, VECTOR)                                   \
    X(LOG10, "log10", "v", 0, VECTOR)                             \
    X(LOG2, "log2", "v", 0, VECTOR)                               \
    X(MAX_OVER_TIME, "max_over_time", "m", 0, VECTOR)             \
    X(MIN_OVER_TIME, "min_over_time", "m", 0, VECTOR)             \
    X(MINUTE, "minute", "v", 1, VECTOR)                           \
    X(MONTH, "month", "v", 1, VECTOR)                             \
    X(PI, "pi", "", 0, SCALAR)                                    \
    X(PREDICT_LINEAR, "predict_linear", "ms", 0, VECTOR)          \
    X(PRESENT_OVER_TIME, "present_over_time", "m", 0, VECTOR)     \
    X(QUANTILE_OVER_TIME, "quantile_over_time", "sm", 0, VECTOR)  \
    X(RAD, "rad", "v", 0, VECTOR)                                 \
    X(RATE, "rate", "m", 0, VECTOR)                               \
    X(RESETS, "resets", "m", 0, VECTOR)                           \
    X(ROUND, "round", "vs", 1, VECTOR)                            \
    X(SCALAR, "scalar", "v", 0, SCALAR)                           \
    X(SGN, "sgn", "v", 0, VECTOR)                                 \
    X(SIN, "sin", "v", 0, VECTOR)                                 \
    X(SINH, "sinh", "v", 0, VECTOR)                               \
    X(SORT, "sort", "v", 0, VECTOR)                               \
    X(SORT_DESC, "sort_desc", "v", 0, VECTOR)                     \
    X(SQRT, "sqrt", "v", 0, VECTOR)                               \
    X(STDDEV_OVER_TIME, "stddev_over_time", "m", 0, VECTOR)       \
    X(STDVAR_OVER_TIME, "stdvar_over_time", "m", 0, VECTOR)       \
    X(SUM_OVER_TIME, "sum_over_time", "m", 0, VECTOR)             \
    X(TAN, "tan", "v", 0, VECTOR)                                 \
    X(TANH, "tanh", "v", 0, VECTOR)                               \
    X(TIME, "time", "", 0, SCALAR)                                \
    X(TIMESTAMP, "timestamp", "v", 0, VECTOR)                     \
    X(VECTOR, "vector", "s", 0, VECTOR)                           \
    X(YEAR, "year", "v", 1, VECTOR)

#endif
