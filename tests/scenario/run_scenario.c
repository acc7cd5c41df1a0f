/* Runs .test scripts of the query language against the evaluator and a source in memory.
 *
 * Usage: run_scenario [-v] [-r] [-f] [-n] FILE…    -v prints every evaluation, -r does not ask again as a range,
 * -f evaluates blocks with native histograms as if their series were not there, -n asks three nodes, of which the
 * second cannot be reached
 *
 * The grammar is the one Prometheus' own scripts use, so that a user's bug report can be run as it is:
 *     clear
 *     load <step>                 then lines: series values
 *     eval instant at <t> <expr>  then lines: expect …, or series value, or one number
 *     eval range from <a> to <b> step <s> <expr>
 *     expect fail [msg: text|regex: text] | warn | info | no_warn | no_info | ordered | string "…"
 * Values: numbers, durations, stale, _ , _xN, axN, a+bxN, a-bxN. Every instant evaluation is asked again as a
 * range query around its time. Chunks of series are run last to first: their order must not matter.
 *
 * Native histograms ({{…}}) are not read: an evaluation in a block that has them counts as skipped.
 * Ends with "N passed, N failed, N skipped"; exit status 1 when something failed or nothing passed. */
#include "base/check.h"
#include "model/labels.h"
#include "model/nodes_memory.h"
#include "model/source_memory.h"
#include "promql/promql.h"
#include "shim/number.h"
#include "shim/regex.h"

#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LINE_COUNT_MAX  100000
#define VALUE_COUNT_MAX 100000

struct expected_series {
    struct slice labels;
    double *values; /* per step; ABSENT-marked by present */
    bool *present;
    size_t count;
    bool used;
};

struct scenario {
    const char *file;
    char **lines;
    size_t line_count, at;
    struct pool *pool; /* of the block: until clear */
    struct source_memory source;
    bool has_histograms;
    bool verbose;
    bool no_range_check;
    bool force;
    bool asks_nodes;
    unsigned passed, failed, skipped;
};

struct expectation {
    bool fail, warn, info, no_warn, no_info, ordered, skip, is_string, is_scalar;
    const char *message;
    const char *pattern;
    char *string;
    double scalar;
    struct expected_series *series;
    size_t count;
    int64_t matrix_start_ms, matrix_end_ms, matrix_step_ms;
    bool matrix;
};

static const char *skip_space(const char *at)
{
    while (*at == ' ' || *at == '\t')
        at++;
    return at;
}

static bool take_word(const char **at, const char *word)
{
    size_t len = strlen(word);
    if (strncasecmp(*at, word, len) != 0 ||
        (isalnum((unsigned char)(*at)[len]) && isalnum((unsigned char)word[len - 1])))
        return false;
    *at = skip_space(*at + len);
    return true;
}

static bool take_duration(const char **at, int64_t *out_ms)
{
    const char *end = *at;
    bool negative = *end == '-';
    end += negative;
    *at = end;
    while (isalnum((unsigned char)*end))
        end++;
    struct err_at error;
    if (promql_parse_duration(slice_of(*at, (size_t)(end - *at)), out_ms, &error) != OK)
        return false;
    if (negative)
        *out_ms = -*out_ms;
    *at = skip_space(end);
    return true;
}

/* A quoted string at *at; borrowed copy in pool. */
static bool take_string(struct pool *pool, const char **at, struct slice *out)
{
    char quote = **at;
    const char *begin = ++*at;
    void *memory;
    if (pool_alloc(pool, strlen(begin) + 1, &memory) != OK)
        return false;
    char *text = memory;
    size_t len = 0;
    while (**at != quote) {
        if (**at == 0)
            return false;
        if (**at == '\\' && quote != '`') {
            ++*at;
            char c = **at;
            text[len++] = c == 'n' ? '\n' : c == 't' ? '\t' : c;
            ++*at;
            continue;
        }
        text[len++] = *(*at)++;
    }
    ++*at;
    text[len] = 0;
    *out = slice_of(text, len);
    return true;
}

/* name{a="b", …} | {"name", a="b"} → canonical labels. */
static bool take_labels(struct pool *pool, const char **at, struct slice *out)
{
    struct label labels[64];
    size_t count = 0;
    const char *begin = *at;
    while (isalnum((unsigned char)**at) || **at == '_' || **at == ':')
        ++*at;
    if (*at > begin)
        labels[count++] = (struct label){ slice_str("__name__"), slice_of(begin, (size_t)(*at - begin)) };
    if (**at != '{' && count == 0)
        return false;
    if (**at == '{') {
        for (++*at;;) {
            *at = skip_space(*at);
            while (**at == ',')
                *at = skip_space(*at + 1);
            if (**at == '}')
                break;
            struct slice name;
            if (**at == '"' || **at == '\'' || **at == '`') {
                if (!take_string(pool, at, &name))
                    return false;
            } else {
                begin = *at;
                while (isalnum((unsigned char)**at) || **at == '_')
                    ++*at;
                name = slice_of(begin, (size_t)(*at - begin));
                if (name.len == 0)
                    return false;
            }
            *at = skip_space(*at);
            if (count == 64)
                return false;
            if (**at != '=') {
                labels[count++] = (struct label){ slice_str("__name__"), name };
                continue;
            }
            *at = skip_space(*at + 1);
            struct slice value;
            if (!take_string(pool, at, &value))
                return false;
            labels[count++] = (struct label){ name, value };
        }
        ++*at;
    }
    struct buf buf = buf_open(pool, LABELS_BYTES_MAX);
    if (labels_encode(labels, count, &buf, NULL) != OK || buf_err(&buf) != OK)
        return false;
    *out = buf_slice(&buf);
    return true;
}

static bool take_number(const char **at, double *out)
{
    const char *begin = *at;
    double sign = 1;
    if (*begin == '+' || *begin == '-')
        sign = *begin++ == '-' ? -1 : 1;
    const char *end = begin;
    while (isalnum((unsigned char)*end) || *end == '.' || *end == '_' ||
           ((*end == '+' || *end == '-') && (end[-1] | 0x20) == 'e' && end > begin && begin[1] != 'x' &&
            isdigit((unsigned char)begin[0])))
        end++;
    for (const char *x = begin; x < end; x++) /* axN */
        if (*x == 'x' && !(x == begin + 1 && *begin == '0' && isxdigit((unsigned char)x[1]) && x[1] != '_' &&
                           memchr(x + 1, 'x', (size_t)(end - x - 1)) != NULL)) {
            end = x;
            break;
        }
    struct slice text = slice_of(begin, (size_t)(end - begin));
    int64_t ms;
    struct err_at error;
    if (slice_equal_str(text, "stale")) {
        *out = bits_double(SAMPLE_STALE_BITS);
    } else if (text.len > 1 && isdigit(text.at[0]) && text.at[text.len - 1] != 'f' &&
               promql_parse_duration(text, &ms, &error) == OK) {
        *out = sign * (double)ms / 1000;
    } else if (number_parse(text, true, out)) {
        *out *= sign;
    } else {
        return false;
    }
    *at = end;
    return true;
}

/* The values of a series line. */
static bool take_values(const char *at, double *values, bool *present, size_t *out_count)
{
    size_t count = 0;
    for (at = skip_space(at); *at != 0 && *at != '#'; at = skip_space(at)) {
        double v = 0, increment = 0;
        bool gap = *at == '_';
        if (gap)
            at++;
        else if (!take_number(&at, &v))
            return false;
        if (!gap && (*at == '+' || *at == '-') && !take_number(&at, &increment))
            return false;
        size_t repeat = gap ? 1 : 0;
        if (*at == 'x') {
            char *end;
            repeat = strtoul(at + 1, &end, 10);
            at = end;
        }
        if (!gap)
            repeat++;
        if (*at != 0 && *at != ' ' && *at != '\t')
            return false;
        for (size_t i = 0; i < repeat; i++) {
            if (count == VALUE_COUNT_MAX)
                return false;
            present[count] = !gap;
            values[count++] = v;
            if (increment != 0)
                v += increment;
        }
    }
    *out_count = count;
    return true;
}

static void report(struct scenario *s, size_t line, bool ok, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void report(struct scenario *s, size_t line, bool ok, const char *format, ...)
{
    if (ok && !s->verbose)
        return;
    va_list args;
    printf("%s:%zu: %s ", s->file, line + 1, ok ? "ok" : "FAILED");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

static void block_open(struct scenario *s)
{
    pool_close(s->pool);
    s->pool = pool_open(NULL, "scenario", POOL_BYTES_UNLIMITED);
    source_memory_init(&s->source, s->pool);
    s->has_histograms = false;
}

static bool load(struct scenario *s, const char *at)
{
    static double values[VALUE_COUNT_MAX];
    static bool present[VALUE_COUNT_MAX];
    int64_t step_ms;
    if (!take_duration(&at, &step_ms))
        return false;
    for (s->at++; s->at < s->line_count && s->lines[s->at][0] != 0; s->at++) {
        const char *line = s->lines[s->at];
        struct slice labels;
        size_t count;
        if (strstr(line, "{{") != NULL || strstr(line, "@st ") != NULL) {
            s->has_histograms = true;
            continue;
        }
        if (!take_labels(s->pool, &line, &labels) || !take_values(line, values, present, &count))
            return false;
        struct source_memory_series *series;
        if (source_memory_series(&s->source, labels, &series) != OK)
            return false;
        for (size_t i = 0; i < count; i++)
            if (present[i] && source_memory_add(series, (int64_t)i * step_ms, values[i]) != OK)
                return false;
    }
    return true;
}

/* ---- comparison ---- */

static bool equal_enough(double want, double got)
{
    if (sample_is_stale(want) || sample_is_stale(got))
        return sample_is_stale(want) && sample_is_stale(got);
    if (want == got || (isnan(want) && isnan(got)))
        return true;
    double sum = fabs(want) + fabs(got), difference = fabs(want - got);
    if (want == 0 || got == 0 || sum < DBL_MIN)
        return difference < 1e-6 * DBL_MIN;
    return difference / fmin(sum, DBL_MAX) < 1e-6;
}

static void print_result(const struct promql_result *r)
{
    struct pool *pool = pool_open(NULL, "print", POOL_BYTES_UNLIMITED);
    for (size_t i = 0; i < r->series_count; i++) {
        struct buf text = buf_open(pool, 1 << 20);
        labels_print(r->series[i].labels, &text);
        printf("    got %.*s", (int)text.len, (const char *)text.at);
        for (size_t k = 0; k < r->series[i].count && k < 20; k++)
            printf(" %.17g@%lld", r->series[i].values[k], (long long)r->series[i].t_ms[k]);
        printf("\n");
    }
    if (r->type == PROMQL_SCALAR)
        printf("    got scalar %.17g\n", r->scalar);
    pool_close(pool);
}

static struct expected_series *find_expected(struct expectation *x, struct slice labels)
{
    for (size_t i = 0; i < x->count; i++)
        if (slice_equal(x->series[i].labels, labels))
            return &x->series[i];
    return NULL;
}

/* A matrix against expected rows at start + k × step. */
static const char *compare_matrix(struct expectation *x, const struct promql_result *r, int64_t start_ms,
                                  int64_t step_ms)
{
    for (size_t i = 0; i < r->series_count; i++) {
        struct expected_series *e = find_expected(x, r->series[i].labels);
        size_t at = 0;
        if (e == NULL)
            return "unexpected series";
        if (i > 0 && labels_compare(r->series[i - 1].labels, r->series[i].labels) >= 0)
            return "series are not sorted";
        e->used = true;
        for (size_t k = 0; k < e->count; k++) {
            if (!e->present[k])
                continue;
            if (at == r->series[i].count || r->series[i].t_ms[at] != start_ms + (int64_t)k * step_ms)
                return "a point is missing or at another time";
            if (!equal_enough(e->values[k], r->series[i].values[at]))
                return "a value differs";
            at++;
        }
        if (at != r->series[i].count)
            return "more points than expected";
    }
    for (size_t i = 0; i < x->count; i++) {
        bool any = false;
        for (size_t k = 0; k < x->series[i].count; k++)
            any |= x->series[i].present[k];
        if (any && !x->series[i].used)
            return "a series is missing";
    }
    return NULL;
}

static const char *compare_vector(struct expectation *x, const struct promql_result *r)
{
    if (r->series_count != x->count)
        return "number of series differs";
    for (size_t i = 0; i < r->series_count; i++) {
        struct expected_series *e = x->ordered ? &x->series[i] : find_expected(x, r->series[i].labels);
        if (e == NULL || e->used || !slice_equal(e->labels, r->series[i].labels))
            return "unexpected series";
        e->used = true;
        if (r->series[i].count != 1 || !equal_enough(e->values[0], r->series[i].values[0]))
            return "a value differs";
    }
    return NULL;
}

/* The point at t of a range answer must be what the instant query gave. */
static const char *compare_with_range(const struct promql_result *instant, const struct promql_result *range,
                                      int64_t t_ms)
{
    size_t found = 0;
    for (size_t i = 0; i < range->series_count; i++) {
        const struct promql_series *series = &range->series[i];
        for (size_t k = 0; k < series->count; k++) {
            if (series->t_ms[k] != t_ms)
                continue;
            found++;
            bool same = instant->type == PROMQL_SCALAR && equal_enough(instant->scalar, series->values[k]);
            for (size_t n = 0; n < instant->series_count && !same; n++)
                same = slice_equal(instant->series[n].labels, series->labels) &&
                       equal_enough(instant->series[n].values[0], series->values[k]);
            if (!same)
                return "the range query disagrees";
        }
    }
    if (found != (instant->type == PROMQL_SCALAR ? 1 : instant->series_count))
        return "the range query has another number of points";
    return NULL;
}

/* ---- evaluation ---- */

/* Runs jobs from last to first: the order must not matter. */
static void run_backwards(void *context, size_t job_count, void (*job)(void *job_context, size_t index),
                          void *job_context)
{
    while (job_count > 0)
        job(job_context, --job_count);
}

struct evaluation {
    const char *text;
    bool instant;
    int64_t start_ms, end_ms, step_ms;
    size_t line;
};

static err evaluate(struct scenario *s, const struct evaluation *v, struct pool *pool,
                    struct promql_result *out, struct err_at *at)
{
    struct promql_expr *expr;
    TRY(promql_parse(slice_str(v->text), pool, &expr, at));
    struct guard guard = { .deadline_ns = INT64_MAX, .samples_max = UINT64_MAX };
    struct source *source = &s->source.source;
    if (s->asks_nodes) {
        struct nodes_memory *nodes;
        TRY(nodes_memory_open(&s->source, 3, 16, 2, pool, &nodes));
        TRY(nodes_memory_be(nodes, 0)); /* what it holds is read in place */
        nodes->nodes[1].fault = NODE_AWAY;
        source = nodes->source;
    }
    struct promql_request request = {
        .expr = expr,
        .source = source,
        .tenant = slice_str("scenario"),
        .start_ms = v->start_ms,
        .end_ms = v->end_ms,
        .step_ms = v->instant ? 0 : v->step_ms,
        .guard = &guard,
        .runner = { .width = 4, .run = run_backwards },
    };
    err e = promql_eval(&request, pool, out, at);
    promql_expr_done(expr);
    return e;
}

/* A message may also be written as the HTTP API gives mistakes of the text: with line and column in front. */
static const char *check_failure(const struct expectation *x, const struct err_at *at)
{
    if (!x->fail)
        return at->text;
    char placed[ERR_TEXT_BYTES_MAX + 64];
    snprintf(placed, sizeof placed, "%u:%u: parse error: %s", at->line, at->column, at->text);
    if (x->message != NULL && strcmp(x->message, at->text) != 0 && strcmp(x->message, placed) != 0)
        return at->text;
    if (x->pattern != NULL) {
        struct regex *regex;
        struct err_at error;
        char pattern[4096];
        snprintf(pattern, sizeof pattern, ".*(?:%s).*", x->pattern);
        if (regex_open(slice_str(pattern), REGEX_MEMORY_BYTES_MAX, &regex, &error) != OK)
            return "bad pattern in the script";
        bool match = regex_full_match(regex, slice_str(at->text));
        regex_close(regex);
        if (!match)
            return at->text;
    }
    return NULL;
}

static const char *check_result(struct scenario *s, const struct evaluation *v, struct expectation *x,
                                const struct promql_result *r, struct pool *pool)
{
    if (x->fail)
        return "it did not fail";
    if (x->warn && r->warning_count == 0)
        return "no warning";
    if (x->info && r->info_count == 0)
        return "no info";
    if (x->no_warn && r->warning_count > 0)
        return "a warning";
    if (x->no_info && r->info_count > 0)
        return "an info";
    if (x->is_string)
        return r->type == PROMQL_STRING && slice_equal_str(r->string, x->string) ? NULL : "another string";
    if (x->is_scalar)
        return r->type == PROMQL_SCALAR && equal_enough(x->scalar, r->scalar) ? NULL : "another scalar";
    if (x->matrix)
        return compare_matrix(x, r, x->matrix_start_ms, x->matrix_step_ms);
    if (!v->instant)
        return compare_matrix(x, r, v->start_ms, v->step_ms);
    return compare_vector(x, r);
}

static const char *check_as_range(struct scenario *s, const struct evaluation *v,
                                  const struct promql_result *r, struct pool *pool)
{
    static const char *const names[] = { "start()", "end()", "range()", "step()" };
    for (size_t i = 0; i < 4; i++)
        if (strstr(v->text, names[i]) != NULL)
            return NULL;
    if (r->type != PROMQL_VECTOR && r->type != PROMQL_SCALAR)
        return NULL;
    struct evaluation range = *v;
    struct promql_result result;
    struct err_at at = { 0 };
    range.instant = false;
    range.start_ms = v->start_ms - 60000;
    range.end_ms = v->start_ms + 60000;
    range.step_ms = 60000;
    if (evaluate(s, &range, pool, &result, &at) != OK)
        return "the range query failed";
    return compare_with_range(r, &result, v->start_ms);
}

static void run_evaluation(struct scenario *s, const struct evaluation *v, struct expectation *x)
{
    if (x->skip || (s->has_histograms && !s->force)) {
        s->skipped++;
        return;
    }
    struct pool *pool = pool_open(NULL, "evaluation", POOL_BYTES_UNLIMITED);
    struct promql_result result = { 0 };
    struct err_at at = { 0 };
    const char *why;
    err e = evaluate(s, v, pool, &result, &at);
    if (e != OK && at.text[0] == 0)
        why = "an error without text";
    else
        why = e != OK ? check_failure(x, &at) : check_result(s, v, x, &result, pool);
    if (why == NULL && e == OK && v->instant && !x->matrix && !s->no_range_check)
        why = check_as_range(s, v, &result, pool);
    if (why == NULL)
        s->passed++;
    else
        s->failed++;
    report(s, v->line, why == NULL, "%s%s%s", v->text, why != NULL ? ": " : "", why != NULL ? why : "");
    if (why != NULL && e == OK)
        print_result(&result);
    pool_close(pool);
}

static const char *after_colon(const char *at, const char *word)
{
    if (strncmp(at, word, strlen(word)) != 0)
        return NULL;
    return skip_space(at + strlen(word));
}

static bool read_expect(struct scenario *s, struct expectation *x, const char *at)
{
    if (take_word(&at, "fail")) {
        x->fail = true;
        x->message = after_colon(at, "msg:");
        x->pattern = after_colon(at, "regex:");
    } else if (take_word(&at, "warn")) {
        x->warn = true;
    } else if (take_word(&at, "info")) {
        x->info = true;
    } else if (take_word(&at, "no_warn")) {
        x->no_warn = true;
    } else if (take_word(&at, "no_info")) {
        x->no_info = true;
    } else if (take_word(&at, "ordered")) {
        x->ordered = true;
    } else if (take_word(&at, "string")) {
        struct slice text;
        if (!take_string(s->pool, &at, &text))
            return false;
        x->is_string = true;
        x->string = (char *)(uintptr_t)text.at;
    } else if (take_word(&at, "range")) {
        x->matrix = true;
        return take_word(&at, "vector") && take_word(&at, "from") &&
               take_duration(&at, &x->matrix_start_ms) && take_word(&at, "to") &&
               take_duration(&at, &x->matrix_end_ms) && take_word(&at, "step") &&
               take_duration(&at, &x->matrix_step_ms);
    } else {
        return false;
    }
    return true;
}

static bool read_expected_series(struct scenario *s, struct expectation *x, const char *line, bool instant)
{
    static double values[VALUE_COUNT_MAX];
    static bool present[VALUE_COUNT_MAX];
    struct slice labels;
    size_t count;
    const char *at = line;
    double number;
    if (strstr(line, "{{") != NULL) {
        x->skip = true;
        return true;
    }
    if (instant && !x->matrix && take_number(&at, &number) && *at == 0) {
        x->is_scalar = true;
        x->scalar = number;
        return true;
    }
    at = line;
    if (!take_labels(s->pool, &at, &labels) || !take_values(at, values, present, &count))
        return false;
    struct expected_series *e = &x->series[x->count++];
    void *memory;
    *e = (struct expected_series){ .labels = labels, .count = count };
    if (pool_alloc(s->pool, (count + 1) * sizeof *values, &memory) != OK)
        return false;
    e->values = memcpy(memory, values, count * sizeof *values);
    if (pool_alloc(s->pool, count + 1, &memory) != OK)
        return false;
    e->present = memcpy(memory, present, count * sizeof *present);
    return true;
}

static bool read_eval(struct scenario *s, const char *at)
{
    struct evaluation v = { .line = s->at };
    struct expectation x = { 0 };
    /* older forms: eval_fail, eval_ordered, eval_warn, eval_info */
    at += strlen("eval");
    if (*at == '_') {
        at++;
        if (!read_expect(s, &x, at))
            return false;
        while (isalpha((unsigned char)*at))
            at++;
    }
    at = skip_space(at);
    if (take_word(&at, "instant")) {
        v.instant = true;
        if (!take_word(&at, "at") || !take_duration(&at, &v.start_ms))
            return false;
        v.end_ms = v.start_ms;
    } else if (!take_word(&at, "range") || !take_word(&at, "from") || !take_duration(&at, &v.start_ms) ||
               !take_word(&at, "to") || !take_duration(&at, &v.end_ms) || !take_word(&at, "step") ||
               !take_duration(&at, &v.step_ms)) {
        return false;
    }
    v.text = at;
    size_t end = s->at + 1;
    while (end < s->line_count && s->lines[end][0] != 0)
        end++;
    void *memory;
    if (pool_zalloc(s->pool, (end - s->at + 1) * sizeof *x.series, &memory) != OK)
        return false;
    x.series = memory;
    for (s->at++; s->at < end; s->at++) {
        const char *line = s->lines[s->at];
        if (line[0] == '#')
            continue;
        if (take_word(&line, "expect")) {
            if (!read_expect(s, &x, line))
                return false;
        } else if (strncmp(line, "expected_fail_message", 21) == 0) {
            x.message = skip_space(line + 21);
        } else if (strncmp(line, "expected_fail_regexp", 20) == 0) {
            x.pattern = skip_space(line + 20);
        } else if (!read_expected_series(s, &x, line, v.instant)) {
            return false;
        }
    }
    run_evaluation(s, &v, &x);
    return true;
}

static bool run_script(struct scenario *s)
{
    block_open(s);
    for (s->at = 0; s->at < s->line_count;) {
        const char *line = s->lines[s->at];
        size_t begin = s->at;
        bool ok = true;
        if (line[0] == 0) {
            s->at++;
        } else if (strncasecmp(line, "clear", 5) == 0) {
            block_open(s);
            s->at++;
        } else if (strncasecmp(line, "load_with_nhcb", 14) == 0) {
            ok = load(s, skip_space(line + 14));
            s->has_histograms = true;
        } else if (strncasecmp(line, "load", 4) == 0) {
            ok = load(s, skip_space(line + 4));
        } else if (strncasecmp(line, "eval", 4) == 0) {
            ok = read_eval(s, line);
        } else {
            ok = false;
        }
        if (!ok) {
            printf("%s:%zu: cannot read line %zu: %s\n", s->file, begin + 1, s->at + 1, s->lines[s->at]);
            return false;
        }
    }
    return true;
}

/* The file's lines, trimmed; comment lines are empty unless inside a block. */
static bool read_lines(struct scenario *s, struct pool *pool)
{
    FILE *file = fopen(s->file, "r");
    if (file == NULL)
        return false;
    void *memory;
    bool ok = pool_alloc(pool, LINE_COUNT_MAX * sizeof(char *), &memory) == OK;
    s->lines = memory;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t len;
    while (ok && (len = getline(&line, &capacity, file)) >= 0 && s->line_count < LINE_COUNT_MAX) {
        while (len > 0 && isspace((unsigned char)line[len - 1]))
            len--;
        const char *begin = line;
        while (begin < line + len && isspace((unsigned char)*begin))
            begin++;
        struct slice copy;
        ok = pool_copy(pool, slice_of(begin, (size_t)(line + len - begin)), &copy) == OK;
        s->lines[s->line_count] = (char *)(uintptr_t)copy.at;
        if (ok && s->lines[s->line_count][0] == '#')
            s->lines[s->line_count][0] = 0;
        s->line_count++;
    }
    free(line);
    fclose(file);
    return ok;
}

int main(int argc, char **argv)
{
    unsigned passed = 0, failed = 0, skipped = 0;
    bool verbose = false, no_range_check = false, force = false, asks_nodes = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-v") == 0 || strcmp(argv[i], "-r") == 0 || strcmp(argv[i], "-f") == 0 ||
            strcmp(argv[i], "-n") == 0) {
            asks_nodes |= argv[i][1] == 'n';
            verbose |= argv[i][1] == 'v';
            force |= argv[i][1] == 'f';
            no_range_check |= argv[i][1] == 'r';
            continue;
        }
        struct pool *pool = pool_open(NULL, "script", POOL_BYTES_UNLIMITED);
        struct scenario s = { .file = argv[i],
                              .verbose = verbose,
                              .no_range_check = no_range_check,
                              .force = force,
                              .asks_nodes = asks_nodes };
        bool ok = read_lines(&s, pool) && run_script(&s);
        pool_close(s.pool);
        pool_close(pool);
        passed += s.passed;
        failed += s.failed + !ok;
        skipped += s.skipped;
    }
    printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    return failed > 0 || passed == 0;
}
