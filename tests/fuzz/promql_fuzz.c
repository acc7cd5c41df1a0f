/* Any bytes as a query: parse, then evaluate over a tiny source, at an instant and over a range, within a tight
 * budget. Only errors and answers may come out. Seeds: corpus/promql. */
#include "base/check.h"
#include "model/labels.h"
#include "model/source_memory.h"
#include "promql/promql.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX (16u << 20)

static void fill(struct source_memory *source, struct pool *pool)
{
    static const char *const names[] = { "foo", "foo", "bar", "h_bucket", "h_bucket" };
    static const char *const values[] = { "1", "2", "1", "0.5", "+Inf" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
        struct source_memory_series *series;
        labels_put(&labels, slice_str("__name__"), slice_str(names[i]));
        labels_put(&labels, slice_str(i < 3 ? "a" : "le"), slice_str(values[i]));
        if (buf_err(&labels) != OK || source_memory_series(source, buf_slice(&labels), &series) != OK)
            return;
        for (int k = 0; k < 12; k++) {
            double v = k == 5 ? bits_double(SAMPLE_STALE_BITS) : k == 7 ? NAN : k * (double)(i + 1);
            if (source_memory_add(series, k * 30000, v) != OK)
                return;
        }
    }
}

static void evaluate(struct source_memory *source, const struct promql_expr *expr, struct pool *root,
                     int64_t step_ms)
{
    struct pool *pool = pool_open(root, "fuzz_eval", FUZZ_BYTES_MAX);
    struct guard guard = { .deadline_ns = INT64_MAX, .samples_max = 100000 };
    struct promql_request request = {
        .expr = expr,
        .source = &source->source,
        .start_ms = step_ms == 0 ? 300000 : 0,
        .end_ms = 300000,
        .step_ms = step_ms,
        .guard = &guard,
        .series_max = 100,
    };
    struct promql_result result;
    struct err_at at;
    err e = promql_eval(&request, pool, &result, &at);
    check(e == OK || at.text[0] != 0);
    pool_close(pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pool *root = pool_open(NULL, "fuzz", 4 * (size_t)FUZZ_BYTES_MAX);
    struct source_memory source;
    struct promql_expr *expr;
    struct err_at at = { 0 };
    source_memory_init(&source, root);
    fill(&source, root);
    err e = promql_parse(slice_of(data, size), root, &expr, &at);
    if (e == OK) {
        evaluate(&source, expr, root, 0);
        evaluate(&source, expr, root, 60000);
        promql_expr_done(expr);
    } else {
        check(at.text[0] != 0 || e == ERR_LIMIT);
    }
    if (promql_parse_selector(slice_of(data, size), root, &expr, &at) == OK)
        promql_expr_done(expr);
    pool_close(root);
    return 0;
}
