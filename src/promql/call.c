/* Functions that are neither elementwise nor range functions: they make or need whole frames, or change labels.
 *
 *     time pi scalar                 → scalars
 *     vector absent absent_over_time → one row
 *     sort sort_desc                 order of rows, in instant queries only
 *     label_replace label_join       labels of rows
 *     histogram_*                    classic buckets in bucket.c; the native-histogram ones have nothing to
 *                                    say about floats and refuse histograms */
#include "promql/eval.h"

#include "base/check.h"
#include "shim/regex.h"

#include <math.h>
#include <stdlib.h>

static err scalars_new(struct eval *eval, const struct grid *grid, struct value *out)
{
    void *memory;
    TRY(pool_alloc(eval->pool, grid->count * sizeof(double), &memory));
    *out = (struct value){ .type = PROMQL_SCALAR, .scalars = memory };
    return OK;
}

static err call_time(struct eval *eval, const struct grid *grid, struct value *out)
{
    TRY(scalars_new(eval, grid, out));
    for (size_t i = 0; i < grid->count; i++)
        out->scalars[i] = (double)grid_t(grid, i) / 1000;
    return OK;
}

static err call_scalar(struct eval *eval, const struct node *n, const struct grid *grid, struct value *out)
{
    struct frame *frame;
    TRY(eval_frame(eval, n->call.args[0], grid, &frame));
    TRY(fail_histograms(eval, frame, "scalar"));
    TRY(scalars_new(eval, grid, out));
    for (size_t step = 0; step < grid->count; step++)
        out->scalars[step] = ABSENT;
    for (size_t i = 0; i < frame->count; i++) {
        const struct row *row = &frame->rows[i];
        for (size_t step = 0; step < grid->count; step++)
            if (!is_absent(row->values[step]))
                out->scalars[step] = is_absent(out->scalars[step]) ? row->values[step] : NAN;
    }
    for (size_t step = 0; step < grid->count; step++)
        if (is_absent(out->scalars[step]))
            out->scalars[step] = NAN;
    frame_close(eval, frame);
    return OK;
}

static err call_vector(struct eval *eval, const struct node *n, const struct grid *grid,
                       struct frame **out_frame)
{
    double *scalars;
    struct frame *frame;
    struct row row = { .labels = slice_of("", 0) };
    TRY(eval_scalars(eval, n->call.args[0], grid, &scalars));
    TRY(frame_open(eval, &frame));
    TRY(values_new(frame->pool, grid->count, &row.values));
    memcpy(row.values, scalars, grid->count * sizeof *scalars);
    TRY(frame_add(frame, row));
    *out_frame = frame;
    return OK;
}

/* Labels that an absent series must have had: the first equality of a label, unless another matcher of it
 * follows. */
static err absent_labels(struct frame *frame, const struct node *arg, struct slice *out)
{
    *out = slice_of("", 0);
    if (arg->type != NODE_SELECTOR)
        return OK;
    struct buf labels = buf_open(frame->pool, LABELS_BYTES_MAX);
    const struct matcher *m = arg->selector.matchers;
    void *memory;
    TRY(pool_alloc(frame->pool, (arg->selector.count + 1) * sizeof(struct label), &memory));
    struct label *list = memory;
    size_t count = 0;
    for (size_t i = 0; i < arg->selector.count; i++) {
        bool known = m[i].type == MATCH_EQUAL && m[i].value.len > 0 && !slice_equal(m[i].name, label_name);
        for (size_t k = 0; k < arg->selector.count && known; k++)
            known = k == i || (k < i && m[k].type != MATCH_EQUAL) || !slice_equal(m[i].name, m[k].name);
        if (known)
            list[count++] = (struct label){ m[i].name, m[i].value };
    }
    TRY(labels_encode(list, count, &labels, NULL));
    TRY(buf_err(&labels));
    *out = buf_slice(&labels);
    return OK;
}

static err call_absent(struct eval *eval, const struct node *n, const struct grid *grid,
                       struct frame **out_frame)
{
    struct frame *frame;
    TRY(frame_open(eval, &frame));
    struct group_set set = group_set_of(n, grid, frame->pool);
    TRY(unit_groups(eval, n, grid, &set));
    struct row row = { .drop_name = true };
    TRY(absent_labels(frame, node_unwrap(n->call.args[0]), &row.labels));
    TRY(values_new(frame->pool, grid->count, &row.values));
    bool any = false;
    for (size_t step = 0; step < grid->count; step++) {
        if (set.index.count > 0 && !is_absent(set.groups[0].a[step]))
            continue;
        row.values[step] = 1;
        any = true;
    }
    if (any)
        TRY(frame_add(frame, row));
    *out_frame = frame;
    return OK;
}

/* NaN last, ties by labels, so that the order of storage does not show. */
static int compare_values(const struct row *a, const struct row *b, int direction)
{
    double x = a->values[0], y = b->values[0];
    int order = isnan(x) || isnan(y) ? isnan(x) - isnan(y) : direction * ((x > y) - (x < y));
    return order != 0 ? order : labels_compare(a->labels, b->labels);
}

static int compare_rows(const void *a, const void *b) { return compare_values(a, b, 1); }
static int compare_rows_descending(const void *a, const void *b) { return compare_values(a, b, -1); }

static err call_sort(struct eval *eval, const struct node *n, const struct grid *grid,
                     struct frame **out_frame)
{
    TRY(eval_frame(eval, n->call.args[0], grid, out_frame));
    struct frame *frame = *out_frame;
    TRY(fail_histograms(eval, frame, n->call.function->name));
    if (grid->count != 1) {
        annotate_sort(eval, n);
        return OK;
    }
    if (frame->count > 1)
        qsort(frame->rows, frame->count, sizeof *frame->rows,
              n->call.function->id == FUNCTION_SORT ? compare_rows : compare_rows_descending);
    frame->ordered = true;
    return OK;
}

static err string_arg(struct eval *eval, const struct node *n, size_t i, const struct grid *grid,
                      struct slice *out)
{
    struct value value;
    TRY(eval_node(eval, n->call.args[i], grid, &value));
    *out = value.string;
    return OK;
}

/* Rows that a new label made equal become one if they never meet. */
static err rows_unite(struct eval *eval, struct frame *frame, const struct grid *grid)
{
    struct pool *pool = pool_open(eval->pool, "promql_unite", POOL_BYTES_UNLIMITED);
    struct label_index index = label_index_open(pool);
    size_t kept = 0;
    err e = OK;
    for (size_t i = 0; i < frame->count; i++) {
        struct row *row = &frame->rows[i];
        uint32_t number;
        bool is_new;
        TRY_OUT(label_index_get(&index, row->labels, &number, &is_new));
        if (is_new) {
            frame->rows[kept++] = *row;
            continue;
        }
        TRY_OUT(row_join(eval, &frame->rows[number], row, grid->count));
        frame->rows[number].drop_name |= row->drop_name;
    }
    frame->count = kept;
out:
    pool_close(pool);
    return e;
}

static err relabel_row(struct frame *frame, struct row *row, struct slice name, struct slice value,
                       struct buf *scratch)
{
    buf_clear(scratch);
    labels_set(row->labels, name, value, scratch);
    TRY(buf_err(scratch));
    if (slice_equal(name, label_name))
        row->drop_name = false;
    return pool_copy(frame->pool, buf_slice(scratch), &row->labels);
}

/* Expand $1, ${1}, $name, ${name}, $$ of Go's regexp templates. */
static void expand(struct slice template, const struct regex *regex, const struct slice *groups,
                   int group_count, struct buf *out)
{
    for (size_t i = 0; i < template.len; i++) {
        if (template.at[i] != '$' || i + 1 == template.len) {
            buf_put_u8(out, template.at[i]);
            continue;
        }
        if (template.at[i + 1] == '$') {
            buf_put_u8(out, '$');
            i++;
            continue;
        }
        bool braces = template.at[i + 1] == '{';
        size_t begin = i + 1 + braces, end = begin;
        while (end < template.len &&
               ((template.at[end] >= '0' && template.at[end] <= '9') ||
                ((template.at[end] | 0x20) >= 'a' && (template.at[end] | 0x20) <= 'z') ||
                template.at[end] == '_'))
            end++;
        if (end == begin || (braces && (end == template.len || template.at[end] != '}'))) {
            buf_put_u8(out, '$');
            continue;
        }
        struct slice name = slice_part(template, begin, end - begin);
        int number = name.len > 1 && name.at[0] == '0' ? -1 : 0; /* $01 is a name */
        for (size_t k = 0; k < name.len && number >= 0; k++)
            number = name.at[k] >= '0' && name.at[k] <= '9' && number < 100000
                         ? number * 10 + name.at[k] - '0'
                         : -1;
        for (int g = 1; number < 0 && g < group_count; g++)
            if (slice_equal(regex_group_name(regex, g), name))
                number = g;
        if (number >= 0 && number < group_count && groups[number].at != NULL)
            buf_put_slice(out, groups[number]);
        i = braces ? end : end - 1;
    }
}

struct replacement {
    struct slice target, template, source;
    struct regex *regex;
    struct slice *groups;
    int group_count;
};

static err replace_rows(struct eval *eval, struct frame *frame, const struct replacement *r)
{
    struct buf value = buf_open(frame->pool, LABELS_BYTES_MAX),
               scratch = buf_open(frame->pool, LABELS_BYTES_MAX);
    for (size_t i = 0; i < frame->count; i++) {
        struct row *row = &frame->rows[i];
        struct slice source = labels_get(row->labels, r->source);
        if (i % 256 == 0)
            TRY(guard_maybe(eval));
        if (!regex_full_match_groups(r->regex, source, r->groups, r->group_count))
            continue;
        buf_clear(&value);
        expand(r->template, r->regex, r->groups, r->group_count, &value);
        TRY(buf_err(&value));
        if (value.len > 0 && !utf8_valid(buf_slice(&value)))
            return err_set(eval->at, ERR_EXECUTION, "invalid UTF-8 in label value made by label_replace()");
        TRY(relabel_row(frame, row, r->target, buf_slice(&value), &scratch));
    }
    return OK;
}

static err call_label_replace(struct eval *eval, const struct node *n, const struct grid *grid,
                              struct frame **out_frame)
{
    struct replacement r = { 0 };
    struct slice pattern;
    TRY(string_arg(eval, n, 1, grid, &r.target));
    TRY(string_arg(eval, n, 2, grid, &r.template));
    TRY(string_arg(eval, n, 3, grid, &r.source));
    TRY(string_arg(eval, n, 4, grid, &pattern));
    struct err_at at = { 0 };
    TRY(eval_frame(eval, n->call.args[0], grid, out_frame)); /* before: one pattern is open at a time */
    err e = regex_open(pattern, REGEX_MEMORY_BYTES_MAX, &r.regex, &at);
    if (e != OK)
        return err_set(eval->at, ERR_EXECUTION, "invalid regular expression in label_replace(): %.*s",
                       text_shown(pattern), pattern.at);
    if (r.target.len == 0 || !utf8_valid(r.target))
        TRY_OUT(err_set(eval->at, ERR_EXECUTION, "invalid destination label name in label_replace(): %.*s",
                        text_shown(r.target), r.target.at));
    r.group_count = regex_group_count(r.regex) + 1;
    void *memory;
    TRY_OUT(pool_alloc(eval->pool, (size_t)r.group_count * sizeof *r.groups, &memory));
    r.groups = memory;
    TRY_OUT(replace_rows(eval, *out_frame, &r));
    TRY_OUT(rows_unite(eval, *out_frame, grid));
out:
    regex_close(r.regex);
    return e;
}

static err call_label_join(struct eval *eval, const struct node *n, const struct grid *grid,
                           struct frame **out_frame)
{
    struct slice target, separator;
    TRY(string_arg(eval, n, 1, grid, &target));
    TRY(string_arg(eval, n, 2, grid, &separator));
    for (size_t k = 3; k < n->call.arg_count; k++) {
        struct slice source;
        TRY(string_arg(eval, n, k, grid, &source));
        if (source.len == 0 || !utf8_valid(source))
            return err_set(eval->at, ERR_EXECUTION, "invalid source label name in label_join(): %.*s",
                           text_shown(source), source.at);
    }
    if (target.len == 0 || !utf8_valid(target))
        return err_set(eval->at, ERR_EXECUTION, "invalid destination label name in label_join(): %.*s",
                       text_shown(target), target.at);
    TRY(eval_frame(eval, n->call.args[0], grid, out_frame));
    struct frame *frame = *out_frame;
    struct buf value = buf_open(frame->pool, LABELS_BYTES_MAX),
               scratch = buf_open(frame->pool, LABELS_BYTES_MAX);
    for (size_t i = 0; i < frame->count; i++) {
        buf_clear(&value);
        for (size_t k = 3; k < n->call.arg_count; k++) {
            struct slice source;
            TRY(string_arg(eval, n, k, grid, &source));
            if (k > 3)
                buf_put_slice(&value, separator);
            buf_put_slice(&value, labels_get(frame->rows[i].labels, source));
        }
        TRY(buf_err(&value));
        TRY(relabel_row(frame, &frame->rows[i], target, buf_slice(&value), &scratch));
    }
    return rows_unite(eval, frame, grid);
}

/* histogram_count and its like: floats give nothing. */
static err call_histogram_only(struct eval *eval, const struct node *n, const struct grid *grid,
                               struct frame **out_frame)
{
    TRY(eval_frame(eval, n->call.args[0], grid, out_frame));
    struct frame *frame = *out_frame;
    TRY(fail_histograms(eval, frame, n->call.function->name));
    frame->count = 0;
    return OK;
}

err call_eval(struct eval *eval, const struct node *n, const struct grid *grid, struct value *out)
{
    *out = (struct value){ .type = PROMQL_VECTOR };
    switch (n->call.function->id) {
    case FUNCTION_TIME:
        return call_time(eval, grid, out);
    case FUNCTION_PI:
        TRY(scalars_new(eval, grid, out));
        for (size_t i = 0; i < grid->count; i++)
            out->scalars[i] = M_PI;
        return OK;
    case FUNCTION_SCALAR:
        return call_scalar(eval, n, grid, out);
    case FUNCTION_VECTOR:
        return call_vector(eval, n, grid, &out->frame);
    case FUNCTION_ABSENT:
    case FUNCTION_ABSENT_OVER_TIME:
        return call_absent(eval, n, grid, &out->frame);
    case FUNCTION_SORT:
    case FUNCTION_SORT_DESC:
        return call_sort(eval, n, grid, &out->frame);
    case FUNCTION_LABEL_REPLACE:
        return call_label_replace(eval, n, grid, &out->frame);
    case FUNCTION_LABEL_JOIN:
        return call_label_join(eval, n, grid, &out->frame);
    case FUNCTION_HISTOGRAM_QUANTILE:
    case FUNCTION_HISTOGRAM_FRACTION:
        return bucket_call(eval, n, grid, &out->frame);
    case FUNCTION_HISTOGRAM_AVG:
    case FUNCTION_HISTOGRAM_COUNT:
    case FUNCTION_HISTOGRAM_STDDEV:
    case FUNCTION_HISTOGRAM_STDVAR:
    case FUNCTION_HISTOGRAM_SUM:
        return call_histogram_only(eval, n, grid, &out->frame);
    default:
        break;
    }
    struct pipeline p;
    TRY(pipeline_build(eval, n, grid, &p));
    return pipeline_to_frame(eval, &p, grid, &out->frame);
}
