/* Aggregations.
 *
 * sum, avg, min, max, count, group, stddev and stdvar are folded: each group keeps one to three accumulators a
 * step (group_set_add), partial sets of chunks are joined by group_set_merge, group_set_finish turns
 * accumulators into values. topk, bottomk, quantile and count_values need all values of a group at once and
 * work on a frame.
 *
 *     type            a                    b              c
 *     sum             sum                  compensation
 *     avg             sum                  compensation   count; negative: a and b are scaled by 2^-64
 *     min max         value
 *     count group     count
 *     stddev stdvar   mean                 Σ(v - mean)²   count
 *
 * The rows of topk and bottomk that are candidates, and those of count_values, may come of who holds the series
 * (unit.c): then they are in a group_set whose keys are the rows' labels, and merge as those of group and count.
 *
 * a is ABSENT until the first value of its step. The average's scaling keeps sums beyond DBL_MAX exact where
 * Prometheus changes to a running mean.
 * Invariant: merge(a, b) then finish equals adding everything to one set, up to rounding; both are
 * deterministic in the order of their inputs. */
#include "promql/eval.h"

#include "base/check.h"
#include "shim/number.h"

#include <math.h>
#include <stdlib.h>

#define AVERAGE_SCALE    0x1p-64
#define COUNT_VALUE_WORK 8 /* values looked at: what printing one costs */

unsigned group_columns(enum aggregate_type type)
{
    switch (type) {
    case AGGREGATE_SUM:
        return 2;
    case AGGREGATE_AVG:
    case AGGREGATE_STDDEV:
    case AGGREGATE_STDVAR:
        return 3;
    default:
        return 1;
    }
}

static err group_new(struct group_set *set, uint32_t number)
{
    TRY(pool_block_reserve(set->pool, (void **)&set->groups, sizeof *set->groups, number + 1,
                           &set->capacity));
    struct group *g = &set->groups[number];
    *g = (struct group){ 0 };
    TRY(values_new(set->pool, set->grid.count, &g->a));
    unsigned columns = group_columns(set->type);
    void *memory;
    if (columns > 1) {
        TRY(pool_zalloc(set->pool, set->grid.count * sizeof(double), &memory));
        g->b = memory;
    }
    if (columns > 2) {
        TRY(pool_zalloc(set->pool, set->grid.count * sizeof(double), &memory));
        g->c = memory;
    }
    return OK;
}

/* The group of a label set. */
static err group_of(struct group_set *set, struct slice labels, struct buf *scratch, struct group **out)
{
    struct slice key = slice_of("", 0);
    if (group_set_needs_labels(set)) {
        buf_clear(scratch);
        labels_project(labels, set->names, set->name_count, set->keep, true, scratch);
        TRY(buf_err(scratch));
        key = buf_slice(scratch);
    }
    uint32_t number;
    bool is_new;
    TRY(label_index_get(&set->index, key, &number, &is_new));
    if (is_new)
        TRY(group_new(set, number));
    *out = &set->groups[number];
    return OK;
}

/* One more value of an average; n and scaling are in *count. */
static void average_add(double v, double *sum, double *c, double *count)
{
    bool scaled = *count < 0;
    double sum_next = *sum, c_next = *c;
    kahan_add(scaled ? v * AVERAGE_SCALE : v, &sum_next, &c_next);
    if (!scaled && isinf(sum_next) && isfinite(*sum) && isfinite(v)) {
        sum_next = *sum * AVERAGE_SCALE;
        c_next = *c * AVERAGE_SCALE;
        kahan_add(v * AVERAGE_SCALE, &sum_next, &c_next);
        *count = -*count;
    }
    *sum = sum_next;
    *c = c_next;
    *count += *count < 0 ? -1 : 1;
}

static bool is_better(enum aggregate_type type, double old, double v)
{
    return isnan(old) || (type == AGGREGATE_MIN ? v < old : v > old);
}

static void variance_add(double v, double *mean, double *square, double *count)
{
    *count += 1;
    if (is_absent(*mean)) {
        *mean = v;
        *square = isfinite(v) ? 0 : NAN;
        return;
    }
    double delta = v - *mean;
    *mean += delta / *count;
    *square += delta * (v - *mean);
}

static void sum_row(struct group *g, const double *values, size_t count)
{
    double *a = g->a, *b = g->b;
    for (size_t i = 0; i < count; i++) {
        double v = values[i];
        if (is_absent(v))
            continue;
        if (is_absent(a[i]))
            a[i] = v;
        else
            kahan_add(v, &a[i], &b[i]);
    }
}

static void average_row(struct group *g, const double *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_absent(values[i]))
            continue;
        if (is_absent(g->a[i]))
            g->a[i] = 0;
        average_add(values[i], &g->a[i], &g->b[i], &g->c[i]);
    }
}

err group_set_add(struct group_set *set, const struct row *row, struct buf *scratch)
{
    struct group *g;
    TRY(group_of(set, row->labels, scratch, &g));
    g->drop_name |= row->drop_name;
    size_t count = set->grid.count;
    switch (set->type) {
    case AGGREGATE_SUM:
        sum_row(g, row->values, count);
        return OK;
    case AGGREGATE_AVG:
        average_row(g, row->values, count);
        return OK;
    case AGGREGATE_MIN:
    case AGGREGATE_MAX:
        for (size_t i = 0; i < count; i++)
            if (!is_absent(row->values[i]) &&
                (is_absent(g->a[i]) || is_better(set->type, g->a[i], row->values[i])))
                g->a[i] = row->values[i];
        return OK;
    case AGGREGATE_COUNT:
        for (size_t i = 0; i < count; i++)
            if (!is_absent(row->values[i]))
                g->a[i] = is_absent(g->a[i]) ? 1 : g->a[i] + 1;
        return OK;
    case AGGREGATE_GROUP:
        for (size_t i = 0; i < count; i++)
            if (!is_absent(row->values[i]))
                g->a[i] = 1;
        return OK;
    default:
        for (size_t i = 0; i < count; i++)
            if (!is_absent(row->values[i]))
                variance_add(row->values[i], &g->a[i], &g->b[i], &g->c[i]);
        return OK;
    }
}

static void average_merge(struct group *into, const struct group *from, size_t i)
{
    double sum = from->a[i], c = from->b[i], count = fabs(from->c[i]);
    double into_sum = into->a[i], into_c = into->b[i], into_count = fabs(into->c[i]);
    bool scale =
        from->c[i] < 0 || into->c[i] < 0 || (isinf(sum + into_sum) && isfinite(sum) && isfinite(into_sum));
    if (scale && into->c[i] >= 0) {
        into_sum *= AVERAGE_SCALE;
        into_c *= AVERAGE_SCALE;
    }
    if (scale && from->c[i] >= 0) {
        sum *= AVERAGE_SCALE;
        c *= AVERAGE_SCALE;
    }
    kahan_add(sum, &into_sum, &into_c);
    into->a[i] = into_sum;
    into->b[i] = into_c + c;
    into->c[i] = scale ? -(count + into_count) : count + into_count;
}

static void step_merge(enum aggregate_type type, struct group *into, const struct group *from, size_t i)
{
    double n, delta;
    switch (type) {
    case AGGREGATE_SUM:
        kahan_add(from->a[i], &into->a[i], &into->b[i]);
        into->b[i] += from->b[i];
        return;
    case AGGREGATE_AVG:
        average_merge(into, from, i);
        return;
    case AGGREGATE_MIN:
    case AGGREGATE_MAX:
        if (is_better(type, into->a[i], from->a[i]))
            into->a[i] = from->a[i];
        return;
    case AGGREGATE_COUNT:
        into->a[i] += from->a[i];
        return;
    case AGGREGATE_GROUP:
        return;
    default: /* Chan, Golub, LeVeque (1979) */
        n = into->c[i] + from->c[i];
        delta = from->a[i] - into->a[i];
        into->a[i] += delta * (from->c[i] / n);
        into->b[i] += from->b[i] + delta * delta * (into->c[i] * from->c[i] / n);
        into->c[i] = n;
    }
}

err group_set_merge_one(struct group_set *into, struct slice key, const struct group *from)
{
    uint32_t number;
    bool is_new;
    TRY(label_index_get(&into->index, key, &number, &is_new));
    if (is_new)
        TRY(group_new(into, number));
    struct group *g = &into->groups[number];
    g->drop_name |= from->drop_name;
    for (size_t i = 0; i < into->grid.count; i++) {
        if (is_absent(from->a[i]))
            continue;
        if (!is_absent(g->a[i])) {
            step_merge(into->type, g, from, i);
            continue;
        }
        g->a[i] = from->a[i];
        if (g->b != NULL)
            g->b[i] = from->b[i];
        if (g->c != NULL)
            g->c[i] = from->c[i];
    }
    return OK;
}

err group_set_merge(struct group_set *into, const struct group_set *from)
{
    for (size_t k = 0; k < from->index.count; k++)
        TRY(group_set_merge_one(into, from->index.keys[k], &from->groups[k]));
    return OK;
}

static void group_finish(enum aggregate_type type, struct group *g, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_absent(g->a[i]))
            continue;
        double n;
        switch (type) {
        case AGGREGATE_SUM:
            if (!isinf(g->a[i]))
                g->a[i] += g->b[i];
            break;
        case AGGREGATE_AVG:
            n = fabs(g->c[i]);
            g->a[i] = isinf(g->a[i]) ? g->a[i] : g->a[i] / n + g->b[i] / n;
            if (g->c[i] < 0)
                g->a[i] /= AVERAGE_SCALE;
            break;
        case AGGREGATE_STDVAR:
            g->a[i] = g->b[i] / g->c[i];
            break;
        case AGGREGATE_STDDEV:
            g->a[i] = sqrt(g->b[i] / g->c[i]);
            break;
        default:
            break;
        }
    }
}

struct group_set group_set_of(const struct node *n, const struct grid *grid, struct pool *pool)
{
    struct group_set set = {
        .type = AGGREGATE_GROUP, .keep = true, .grid = *grid, .pool = pool, .index = label_index_open(pool)
    };
    if (n->type == NODE_AGGREGATE) {
        set.type = aggregate_is_folded(n->aggregate.type)        ? n->aggregate.type
                   : n->aggregate.type == AGGREGATE_COUNT_VALUES ? AGGREGATE_COUNT
                                                                 : AGGREGATE_GROUP;
        set.names = n->aggregate.names;
        set.name_count = n->aggregate.name_count;
        set.keep = !n->aggregate.without;
    }
    return set;
}

static err aggregate_folded(struct eval *eval, const struct node *n, const struct grid *grid,
                            struct frame **out_frame)
{
    struct frame *frame;
    TRY(frame_open(eval, &frame));
    struct group_set set = group_set_of(n, grid, frame->pool);
    TRY(unit_groups(eval, n, grid, &set));
    for (size_t i = 0; i < set.index.count; i++) {
        group_finish(set.type, &set.groups[i], grid->count);
        TRY(frame_add(frame, (struct row){ .labels = set.index.keys[i],
                                           .values = set.groups[i].a,
                                           .drop_name = set.groups[i].drop_name }));
    }
    *out_frame = frame;
    return OK;
}

/* ---- aggregations over whole groups ---- */

struct member {
    double value;
    struct row *row;
};

/* Rows of a frame by group: rows of group g are members[starts[g] … starts[g + 1]). */
struct grouping {
    struct label_index index;
    uint32_t *members;
    size_t *starts;
    size_t largest;
    size_t work; /* for guard_work */
};

static err grouping_make(struct pool *pool, const struct node *n, const struct frame *frame,
                         struct grouping *out)
{
    struct grouping g = { .index = label_index_open(pool) };
    struct buf scratch = buf_open(pool, LABELS_BYTES_MAX);
    void *memory;
    TRY(pool_alloc(pool, (frame->count + 1) * sizeof(uint32_t), &memory));
    uint32_t *groups = memory;
    for (size_t i = 0; i < frame->count; i++) {
        bool is_new;
        buf_clear(&scratch);
        if (n->aggregate.name_count > 0 || n->aggregate.without)
            labels_project(frame->rows[i].labels, n->aggregate.names, n->aggregate.name_count,
                           !n->aggregate.without, true, &scratch);
        TRY(buf_err(&scratch));
        TRY(label_index_get(&g.index, buf_slice(&scratch), &groups[i], &is_new));
    }
    TRY(pool_zalloc(pool, (g.index.count + 2) * sizeof *g.starts, &memory));
    g.starts = memory;
    TRY(pool_alloc(pool, (frame->count + 1) * sizeof *g.members, &memory));
    g.members = memory;
    for (size_t i = 0; i < frame->count; i++)
        g.starts[groups[i] + 2]++;
    for (size_t i = 2; i < g.index.count + 2; i++) {
        if (g.starts[i] > g.largest)
            g.largest = g.starts[i];
        g.starts[i] += g.starts[i - 1];
    }
    for (size_t i = 0; i < frame->count; i++)
        g.members[g.starts[groups[i] + 1]++] = (uint32_t)i;
    *out = g;
    return OK;
}

/* Present values of a group at a step. The guard's errors. */
static err members_at(const struct eval *eval, const struct frame *frame, struct grouping *g, size_t group,
                      size_t step, struct member *out, size_t *out_count)
{
    size_t count = 0;
    for (size_t i = g->starts[group]; i < g->starts[group + 1]; i++) {
        double v = frame->rows[g->members[i]].values[step];
        if (!is_absent(v))
            out[count++] = (struct member){ v, &frame->rows[g->members[i]] };
    }
    *out_count = count;
    return guard_work(eval->request->guard, &g->work, g->starts[group + 1] - g->starts[group] + 1);
}

/* Best first: NaN last, ties by labels, so that the order of storage does not show. */
static int compare_top(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    if (isnan(x->value) || isnan(y->value)) {
        if (isnan(x->value) != isnan(y->value))
            return isnan(x->value) ? 1 : -1;
    } else if (x->value != y->value) {
        return x->value > y->value ? -1 : 1;
    }
    return labels_compare(x->row->labels, y->row->labels);
}

static int compare_bottom(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    if (isnan(x->value) || isnan(y->value) || x->value == y->value)
        return compare_top(a, b);
    return x->value < y->value ? -1 : 1;
}

/* Put m into a heap of k, whose root is the worst, at a place whose member may go. */
static void heap_put(struct member *heap, size_t k, size_t place, struct member m,
                     int (*compare)(const void *, const void *))
{
    for (size_t child; (child = 2 * place + 1) < k; place = child) {
        if (child + 1 < k && compare(&heap[child + 1], &heap[child]) > 0)
            child++;
        if (compare(&heap[child], &m) <= 0)
            break;
        heap[place] = heap[child];
    }
    heap[place] = m;
}

/* Order the members so that the k best, k < count, come first. */
static void members_best(struct member *members, size_t count, size_t k,
                         int (*compare)(const void *, const void *))
{
    for (size_t i = k / 2; i > 0; i--)
        heap_put(members, k, i - 1, members[i - 1], compare);
    for (size_t i = k; i < count && k > 0; i++) {
        if (compare(&members[i], &members[0]) >= 0)
            continue;
        struct member worst = members[0];
        heap_put(members, k, 0, members[i], compare);
        members[i] = worst;
    }
}

/* The numbers k of all steps, as Prometheus judges them: what is below 1 everywhere asks for nothing, whatever it
 * is. */
static err check_k(struct eval *eval, const double *param, size_t count, bool *out_none)
{
    double least = INFINITY, most = -INFINITY;
    bool is_nan = false;
    char text[NUMBER_TEXT_BYTES_MAX];
    for (size_t i = 0; i < count; i++) {
        is_nan |= isnan(param[i]);
        least = fmin(least, param[i]);
        most = fmax(most, param[i]);
    }
    *out_none = !is_nan && most < 1;
    if (*out_none)
        return OK;
    if (is_nan)
        return err_set(eval->at, ERR_EXECUTION, "Parameter value is NaN");
    if (least <= -0x1p63)
        return err_set(eval->at, ERR_EXECUTION, "Scalar value %.*s underflows int64",
                       (int)number_print_general(least, text), text);
    if (most >= 0x1p63 - 1024)
        return err_set(eval->at, ERR_EXECUTION, "Scalar value %.*s overflows int64",
                       (int)number_print_general(most, text), text);
    return OK;
}

static err top_step(struct eval *eval, struct frame *frame, struct grouping *g, size_t group, size_t step,
                    bool bottom, double k, struct member *members, struct frame *sorted)
{
    size_t count;
    TRY(members_at(eval, frame, g, group, step, members, &count));
    size_t keep = k < 1 ? 0 : k >= (double)count ? count : (size_t)k;
    int (*compare)(const void *, const void *) = bottom ? compare_bottom : compare_top;
    if (keep < count)
        members_best(members, count, keep, compare);
    if (keep > 1 && sorted != NULL)
        qsort(members, keep, sizeof *members, compare);
    for (size_t i = keep; i < count; i++)
        members[i].row->values[step] = ABSENT;
    for (size_t i = 0; i < keep && sorted != NULL; i++)
        TRY(frame_add(sorted, *members[i].row));
    return OK;
}

/* Groups come in the order of their labels: neither storage nor who held their series shows in an instant
 * result. */
static err aggregate_top(struct eval *eval, const struct node *n, const struct grid *grid,
                         struct frame *frame, struct grouping *g, struct member *members, struct frame *out)
{
    double *k;
    uint32_t *order;
    TRY(eval_scalars(eval, n->aggregate.param, grid, &k));
    bool none;
    TRY(check_k(eval, k, grid->count, &none));
    TRY(labels_order(g->index.keys, (uint32_t)g->index.count, frame->pool, &order));
    bool instant = grid->count == 1;
    for (size_t i = 0; i < g->index.count && !none; i++)
        for (size_t step = 0; step < grid->count; step++)
            TRY(top_step(eval, frame, g, order[i], step, n->aggregate.type == AGGREGATE_BOTTOMK, k[step],
                         members, instant ? out : NULL));
    out->ordered = instant;
    for (size_t i = 0; i < frame->count && !instant && !none; i++) {
        if (values_any(frame->rows[i].values, grid->count))
            TRY(frame_add(out, frame->rows[i]));
    }
    /* Rows of the result point into frame's memory: copy what stays. */
    for (size_t i = 0; i < out->count; i++) {
        double *values;
        TRY(values_new(out->pool, grid->count, &values));
        memcpy(values, out->rows[i].values, grid->count * sizeof *values);
        out->rows[i].values = values;
        TRY(pool_copy(out->pool, out->rows[i].labels, &out->rows[i].labels));
    }
    return OK;
}

static bool group_drops_name(const struct frame *frame, const struct grouping *g, size_t group)
{
    for (size_t i = g->starts[group]; i < g->starts[group + 1]; i++)
        if (frame->rows[g->members[i]].drop_name)
            return true;
    return false;
}

/* Whether there was NaN, the most and the least that is out of range. */
static void annotate_quantiles(struct eval *eval, const double *q, size_t count, const struct node *param)
{
    double least = 0, most = 1;
    bool is_nan = false;
    for (size_t i = 0; i < count; i++) {
        is_nan |= isnan(q[i]);
        least = fmin(least, q[i]);
        most = fmax(most, q[i]);
    }
    if (is_nan)
        annotate_quantile(eval, NAN, param);
    if (most > 1)
        annotate_quantile(eval, most, param);
    if (least < 0)
        annotate_quantile(eval, least, param);
}

static err aggregate_quantile(struct eval *eval, const struct node *n, const struct grid *grid,
                              const struct frame *frame, struct grouping *g, struct member *members,
                              struct frame *out)
{
    double *q, *values;
    TRY(eval_scalars(eval, n->aggregate.param, grid, &q));
    annotate_quantiles(eval, q, grid->count, n->aggregate.param);
    TRY(values_new(out->pool, g->largest + 1, &values));
    for (size_t group = 0; group < g->index.count; group++) {
        struct row row = { .drop_name = group_drops_name(frame, g, group) };
        TRY(pool_copy(out->pool, g->index.keys[group], &row.labels));
        TRY(values_new(out->pool, grid->count, &row.values));
        for (size_t step = 0; step < grid->count; step++) {
            size_t count;
            TRY(members_at(eval, frame, g, group, step, members, &count));
            for (size_t i = 0; i < count; i++)
                values[i] = members[i].value;
            if (count > 0)
                row.values[step] = quantile_of(q[step], values, count);
        }
        TRY(frame_add(out, row));
    }
    return OK;
}

/* Where count_values puts its counts. */
struct value_counts {
    struct frame *out;
    struct label_index index;
    struct buf scratch;
    struct slice name; /* the label that tells the value; empty when without takes it away */
    const struct grid *grid;
};

static err count_value(struct value_counts *c, struct slice group, double v, size_t step)
{
    char text[NUMBER_TEXT_BYTES_MAX];
    struct slice value = slice_of(text, number_print_fixed(v, text));
    buf_clear(&c->scratch);
    if (c->name.len > 0)
        labels_set(group, c->name, value, &c->scratch);
    else
        buf_put_slice(&c->scratch, group);
    TRY(buf_err(&c->scratch));
    uint32_t number;
    bool is_new;
    TRY(label_index_get(&c->index, buf_slice(&c->scratch), &number, &is_new));
    if (is_new) {
        struct row row = { .labels = c->index.keys[number] };
        TRY(values_new(c->out->pool, c->grid->count, &row.values));
        TRY(frame_add(c->out, row));
    }
    double *at = &c->out->rows[number].values[step];
    *at = is_absent(*at) ? 1 : *at + 1;
    return OK;
}

/* The label is set before the grouping, so that `without` can take it away again. The name of what is counted
 * never goes at the end (delayed name removal): what `by (__name__)` keeps stays. */
static err aggregate_count_values(struct eval *eval, const struct node *n, const struct grid *grid,
                                  const struct frame *frame, struct grouping *g, struct member *members,
                                  struct frame *out)
{
    struct value name;
    TRY(eval_node(eval, n->aggregate.param, grid, &name));
    if (name.string.len == 0 || !utf8_valid(name.string))
        return err_set(eval->at, ERR_EXECUTION, "invalid label name %s", quote(name.string).text);
    struct value_counts c = { .out = out,
                              .index = label_index_open(out->pool),
                              .scratch = buf_open(out->pool, LABELS_BYTES_MAX),
                              .name = name.string,
                              .grid = grid };
    bool gone = n->aggregate.without && slice_equal(name.string, label_name);
    for (size_t i = 0; i < n->aggregate.name_count && n->aggregate.without; i++)
        gone |= slice_equal(n->aggregate.names[i], name.string);
    if (gone)
        c.name = slice_of("", 0);
    for (size_t group = 0; group < g->index.count; group++)
        for (size_t step = 0; step < grid->count; step++) {
            size_t count;
            TRY(members_at(eval, frame, g, group, step, members, &count));
            for (size_t i = 0; i < count; i++)
                TRY(count_value(&c, g->index.keys[group], members[i].value, step));
            TRY(guard_work(eval->request->guard, &g->work, count * COUNT_VALUE_WORK));
        }
    return OK;
}

/* What of the operand is needed: the candidates of those who hold the series, or all of it. *out_is_counted: it
 * is the result already, of count_values. */
static err operand_of_whole(struct eval *eval, const struct node *n, const struct grid *grid,
                            struct frame **out_frame, bool *out_is_counted)
{
    struct frame *frame;
    bool is_done;
    TRY(frame_open(eval, &frame));
    struct group_set rows = group_set_of(n, grid, frame->pool);
    TRY(unit_rows(eval, n, &rows, &is_done));
    *out_is_counted = is_done && n->aggregate.type == AGGREGATE_COUNT_VALUES;
    if (!is_done) {
        frame_close(eval, frame);
        return eval_frame(eval, n->aggregate.inner, grid, out_frame);
    }
    for (size_t i = 0; i < rows.index.count; i++)
        TRY(frame_add(frame, (struct row){ .labels = rows.index.keys[i],
                                           .values = rows.groups[i].a,
                                           .drop_name = rows.groups[i].drop_name }));
    *out_frame = frame;
    return OK;
}

static err aggregate_whole(struct eval *eval, const struct node *n, const struct grid *grid,
                           struct frame **out_frame)
{
    struct frame *frame, *out;
    struct grouping g;
    void *members;
    bool is_counted;
    TRY(operand_of_whole(eval, n, grid, &frame, &is_counted));
    if (is_counted) {
        *out_frame = frame;
        return OK;
    }
    TRY(fail_histograms(eval, frame, aggregate_name(n->aggregate.type)));
    TRY(frame_open(eval, &out));
    TRY(grouping_make(frame->pool, n, frame, &g));
    TRY(pool_alloc(frame->pool, (g.largest + 1) * sizeof(struct member), &members));
    if (n->aggregate.type == AGGREGATE_QUANTILE)
        TRY(aggregate_quantile(eval, n, grid, frame, &g, members, out));
    else if (n->aggregate.type == AGGREGATE_COUNT_VALUES)
        TRY(aggregate_count_values(eval, n, grid, frame, &g, members, out));
    else
        TRY(aggregate_top(eval, n, grid, frame, &g, members, out));
    frame_close(eval, frame);
    *out_frame = out;
    return OK;
}

bool aggregate_is_folded(enum aggregate_type type)
{
    return type != AGGREGATE_TOPK && type != AGGREGATE_BOTTOMK && type != AGGREGATE_QUANTILE &&
           type != AGGREGATE_COUNT_VALUES;
}

err aggregate_eval(struct eval *eval, const struct node *n, const struct grid *grid, struct frame **out_frame)
{
    return aggregate_is_folded(n->aggregate.type) ? aggregate_folded(eval, n, grid, out_frame)
                                                  : aggregate_whole(eval, n, grid, out_frame);
}
