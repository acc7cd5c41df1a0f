/* Vector matching: + and its like, comparisons, and/or/unless between two instant vectors.
 *
 * Both sides are evaluated to frames; every row gets the number of its match group (the labels that on or
 * ignoring leave over). One row on each side is the rule, but series of one group may follow each other in time
 * without ever meeting: each row of the "many" side is combined with each of the "one" side in its group, over the
 * steps at which both may have a value.
 *
 * Invariants: 1. At no step do two rows of the "one" side of a group have a value while the other side has any:
 * else ERR_EXECUTION. 2. At no step do two rows of the "many" side meet the same "one" in a one-to-one match,
 * whether or not a comparison lets them pass. 3. Rows of the result with equal labels are joined if they never
 * meet, refused otherwise. */
#include "promql/eval.h"

#include "base/check.h"

#include <math.h>

#define NONE      UINT32_MAX
#define PAIR_WORK 16 /* steps: what a pair of rows costs besides */

/* Steps [begin, end). */
struct span {
    uint32_t begin, end;
};

struct side {
    struct frame *frame;
    uint32_t *groups;   /* of each row */
    uint32_t *first;    /* of each group: a row, or NONE */
    uint32_t *next;     /* of each row: the next of its group, or NONE */
    struct span *spans; /* of each row: from its first value to behind its last; empty: none */
};

struct match {
    struct eval *eval;
    const struct node *n;
    const struct grid *grid;
    struct pool *pool;        /* tables; closed at the end */
    struct label_index index; /* match groups */
    struct side left, right;
    size_t work; /* for guard_work */
};

static err side_groups(struct match *m, struct side *side)
{
    const struct matching *matching = &m->n->binary.matching;
    struct buf scratch = buf_open(m->pool, LABELS_BYTES_MAX);
    void *memory;
    TRY(pool_alloc(m->pool, (side->frame->count + 1) * sizeof(uint32_t), &memory));
    side->groups = memory;
    TRY(pool_alloc(m->pool, (side->frame->count + 1) * sizeof(uint32_t), &memory));
    side->next = memory;
    for (size_t i = 0; i < side->frame->count; i++) {
        const struct row *row = &side->frame->rows[i];
        bool is_new;
        if (row->histogram_count > 0)
            return fail_histogram(m->eval->at, row->labels, operator_name(m->n->binary.op));
        buf_clear(&scratch);
        labels_project(row->labels, matching->names, matching->name_count, matching->on, true, &scratch);
        TRY(buf_err(&scratch));
        TRY(label_index_get(&m->index, buf_slice(&scratch), &side->groups[i], &is_new));
    }
    return OK;
}

static err side_chains(struct match *m, struct side *side)
{
    void *memory;
    TRY(pool_alloc(m->pool, (m->index.count + 1) * sizeof(uint32_t), &memory));
    side->first = memory;
    for (size_t g = 0; g < m->index.count; g++)
        side->first[g] = NONE;
    for (size_t i = side->frame->count; i > 0; i--) {
        uint32_t row = (uint32_t)i - 1;
        side->next[row] = side->first[side->groups[row]];
        side->first[side->groups[row]] = row;
    }
    return OK;
}

/* {a="b", c="d"} as Prometheus prints label sets in errors. */
static void labels_text(struct slice labels, struct buf *out)
{
    struct reader r = reader_of(labels);
    struct label label;
    bool first = true;
    buf_put_str(out, "{");
    while (labels_next(&r, &label)) {
        buf_printf(out, "%s%.*s=\"", first ? "" : ", ", text_shown(label.name), label.name.at);
        for (size_t i = 0; i < label.value.len && i < 200; i++) {
            uint8_t c = label.value.at[i];
            if (c == '"' || c == '\\')
                buf_put_u8(out, '\\');
            buf_put_u8(out, c == '\n' ? ' ' : c);
        }
        buf_put_str(out, "\"");
        first = false;
    }
    buf_put_str(out, "}");
}

static err fail_duplicate(struct match *m, uint32_t group, struct slice a, struct slice b, bool right)
{
    if (labels_compare(a, b) > 0) {
        struct slice swap = a;
        a = b;
        b = swap;
    }
    struct buf text = buf_open(m->pool, 64u << 10);
    buf_put_str(&text, "found duplicate series for the match group ");
    labels_text(m->index.keys[group], &text);
    buf_printf(&text, " on the %s hand-side of the operation: [", right ? "right" : "left");
    labels_text(a, &text);
    buf_put_str(&text, ", ");
    labels_text(b, &text);
    buf_put_str(&text, "];many-to-many matching not allowed: matching labels must be unique on one side");
    TRY(buf_err(&text));
    return err_set(m->eval->at, ERR_EXECUTION, "%.*s", (int)text.len, (const char *)text.at);
}

/* Is there any value on this side at each step? In pool. */
static err side_present(struct match *m, const struct side *side, bool **out_present)
{
    void *memory;
    TRY(pool_zalloc(m->pool, m->grid->count * sizeof(bool), &memory));
    bool *present = memory;
    for (size_t i = 0; i < side->frame->count; i++)
        for (size_t step = 0; step < m->grid->count; step++)
            present[step] |= !is_absent(side->frame->rows[i].values[step]);
    *out_present = present;
    return OK;
}

/* Invariant 1 for every group with more than one row on the "one" side. */
static err check_one_side(struct match *m, const struct side *many, const struct side *one, bool one_is_right)
{
    bool *present = NULL;
    for (uint32_t g = 0; g < m->index.count; g++) {
        uint32_t first = one->first[g];
        if (first == NONE || one->next[first] == NONE)
            continue;
        if (present == NULL)
            TRY(side_present(m, many, &present));
        for (size_t step = 0; step < m->grid->count; step++) {
            uint32_t seen = NONE;
            for (uint32_t r = first; r != NONE && present[step]; r = one->next[r]) {
                if (is_absent(one->frame->rows[r].values[step]))
                    continue;
                if (seen != NONE)
                    return fail_duplicate(m, g, one->frame->rows[seen].labels, one->frame->rows[r].labels,
                                          one_is_right);
                seen = r;
            }
        }
    }
    return OK;
}

/* Invariant 2. */
static err check_many_side(struct match *m, const struct side *many, const struct side *one)
{
    for (uint32_t g = 0; g < m->index.count; g++) {
        uint32_t first = many->first[g];
        if (first == NONE || many->next[first] == NONE || one->first[g] == NONE)
            continue;
        for (size_t step = 0; step < m->grid->count; step++) {
            bool met = false;
            for (uint32_t r = one->first[g]; r != NONE && !met; r = one->next[r])
                met = !is_absent(one->frame->rows[r].values[step]);
            unsigned count = 0;
            for (uint32_t r = first; r != NONE && met; r = many->next[r])
                count += !is_absent(many->frame->rows[r].values[step]);
            if (count > 1)
                return err_set(m->eval->at, ERR_EXECUTION,
                               "multiple matches for labels: many-to-one matching must be explicit "
                               "(group_left/group_right)");
        }
    }
    return OK;
}

/* Labels of a result row. */
static err result_labels(struct match *m, struct slice many, struct slice one, struct buf *a, struct buf *b,
                         struct slice *out)
{
    const struct matching *matching = &m->n->binary.matching;
    bool drops = !operator_is_comparison(m->n->binary.op);
    buf_clear(a);
    if (matching->card == MATCH_ONE_TO_ONE) {
        labels_project(many, matching->names, matching->name_count, matching->on, drops, a);
        if (drops && matching->on && labels_get(buf_slice(a), label_name).len > 0) {
            buf_clear(b);
            labels_project(buf_slice(a), NULL, 0, false, true, b);
            *out = buf_slice(b);
            return buf_err(b);
        }
        *out = buf_slice(a);
        return buf_err(a);
    }
    labels_project(many, NULL, 0, false, drops, a);
    for (size_t i = 0; i < matching->include_count; i++) {
        buf_clear(b);
        labels_set(buf_slice(a), matching->include[i], labels_get(one, matching->include[i]), b);
        struct buf *swap = a;
        a = b;
        b = swap;
    }
    *out = buf_slice(a);
    return buf_err(a) != OK ? buf_err(a) : buf_err(b);
}

/* The operator over two rows into out; steps where only one side has a value stay ABSENT. */
static void combine(const struct node *n, const double *left, const double *right, size_t count, double *out)
{
    enum operator_type op = n->binary.op;
    if (op == OPERATOR_DIVIDE) {
        for (size_t i = 0; i < count; i++)
            if (!is_absent(left[i]) && !is_absent(right[i]))
                out[i] = left[i] / right[i];
        return;
    }
    if (op == OPERATOR_ADD || op == OPERATOR_SUBTRACT) {
        double sign = op == OPERATOR_ADD ? 1 : -1; /* a - b is a + -b, to the last bit */
        for (size_t i = 0; i < count; i++)
            if (!is_absent(left[i]) && !is_absent(right[i]))
                out[i] = left[i] + sign * right[i];
        return;
    }
    bool filter = operator_is_comparison(op) && !n->binary.return_bool;
    for (size_t i = 0; i < count; i++) {
        if (is_absent(left[i]) || is_absent(right[i]))
            continue;
        double v = scalar_operate(op, left[i], right[i]);
        if (!filter)
            out[i] = v;
        else if (v != 0)
            out[i] = left[i];
    }
}

/* From the first step at which both rows have a value to behind the last at which both may; empty when they never
 * meet. Rows of one side often follow each other: what their first and last steps tell costs nothing. */
static err span_of(struct match *m, const struct side *many, uint32_t i, const struct side *one, uint32_t k,
                   struct span *out)
{
    const double *a = many->frame->rows[i].values, *b = one->frame->rows[k].values;
    struct span x = many->spans[i], y = one->spans[k];
    struct span span = { x.begin > y.begin ? x.begin : y.begin, x.end < y.end ? x.end : y.end };
    size_t steps = span.begin < span.end ? span.end - span.begin : 0;
    TRY(guard_work(m->eval->request->guard, &m->work, steps + PAIR_WORK));
    while (span.begin < span.end && (is_absent(a[span.begin]) || is_absent(b[span.begin])))
        span.begin++;
    *out = span;
    return OK;
}

/* Make first and last steps of each row, for span_of. */
static err side_spans(struct match *m, struct side *side)
{
    void *memory;
    TRY(pool_alloc(m->pool, (side->frame->count + 1) * sizeof *side->spans, &memory));
    side->spans = memory;
    for (size_t i = 0; i < side->frame->count; i++) {
        const double *values = side->frame->rows[i].values;
        struct span span = { 0, (uint32_t)m->grid->count };
        while (span.begin < span.end && is_absent(values[span.begin]))
            span.begin++;
        while (span.end > span.begin && is_absent(values[span.end - 1]))
            span.end--;
        side->spans[i] = span;
    }
    return OK;
}

/* What has gone into a result row, to tell a repeated match from series that follow each other. */
struct taken {
    uint32_t many, one; /* its first pair */
    uint32_t
        *groups; /* from the second pair on, of each step: the match group of the pair that met, or NONE */
};

/* A pair that goes into the row: it must not meet where another did. */
static err taken_mark(struct match *m, struct taken *taken, const struct side *many, uint32_t i,
                      const struct side *one, uint32_t k)
{
    const double *a = many->frame->rows[i].values, *b = one->frame->rows[k].values;
    uint32_t group = many->groups[i];
    struct span span;
    TRY(span_of(m, many, i, one, k, &span));
    for (size_t step = span.begin; step < span.end; step++) {
        if (is_absent(a[step]) || is_absent(b[step]))
            continue;
        if (taken->groups[step] == group)
            return err_set(m->eval->at, ERR_EXECUTION,
                           "multiple matches for labels: grouping labels must ensure unique matches");
        if (taken->groups[step] != NONE)
            return err_set(m->eval->at, ERR_EXECUTION,
                           "vector cannot contain metrics with the same labelset");
        taken->groups[step] = group;
    }
    return OK;
}

static err taken_add(struct match *m, struct taken *taken, const struct side *many, uint32_t i,
                     const struct side *one, uint32_t k)
{
    if (taken->groups == NULL) {
        void *memory;
        TRY(pool_alloc(m->pool, m->grid->count * sizeof *taken->groups, &memory));
        taken->groups = memory;
        for (size_t step = 0; step < m->grid->count; step++)
            taken->groups[step] = NONE;
        TRY(taken_mark(m, taken, many, taken->many, one, taken->one));
    }
    return taken_mark(m, taken, many, i, one, k);
}

/* The results of match_pairs so far. */
struct results {
    struct frame *frame;
    struct label_index index; /* number = row of the frame */
    struct taken *taken;      /* of each row */
    size_t capacity;
    struct buf a, b; /* scratch for labels */
};

/* Rows i and k, which meet: the result row that they go into. */
static err results_row(struct match *m, struct results *results, const struct side *many, uint32_t i,
                       const struct side *one, uint32_t k, double **out_values)
{
    struct frame *frame = results->frame;
    struct slice labels;
    uint32_t number;
    bool is_new;
    TRY(result_labels(m, many->frame->rows[i].labels, one->frame->rows[k].labels, &results->a, &results->b,
                      &labels));
    TRY(label_index_get(&results->index, labels, &number, &is_new));
    if (is_new) {
        /* As Prometheus: arithmetic has dropped the name already; a comparison without bool keeps it,
         * even where its operand's was to go at the end. */
        struct row row = { .labels = results->index.keys[number], .drop_name = m->n->binary.return_bool };
        TRY(values_new(frame->pool, m->grid->count, &row.values));
        TRY(frame_add(frame, row));
        TRY(pool_block_reserve(m->pool, (void **)&results->taken, sizeof *results->taken, number + 1,
                               &results->capacity));
        results->taken[number] = (struct taken){ .many = i, .one = k };
    } else {
        TRY(taken_add(m, &results->taken[number], many, i, one, k));
    }
    *out_values = frame->rows[number].values;
    return OK;
}

static err match_pairs(struct match *m, const struct side *many, const struct side *one, bool swapped,
                       struct frame *out)
{
    struct results results = { .frame = out,
                               .index = label_index_open(out->pool),
                               .a = buf_open(m->pool, LABELS_BYTES_MAX),
                               .b = buf_open(m->pool, LABELS_BYTES_MAX) };
    for (uint32_t i = 0; i < many->frame->count; i++)
        for (uint32_t k = one->first[many->groups[i]]; k != NONE; k = one->next[k]) {
            const double *a = many->frame->rows[i].values, *b = one->frame->rows[k].values;
            double *values;
            struct span span;
            TRY(span_of(m, many, i, one, k, &span));
            if (span.begin >= span.end)
                continue;
            TRY(results_row(m, &results, many, i, one, k, &values));
            combine(m->n, (swapped ? b : a) + span.begin, (swapped ? a : b) + span.begin,
                    span.end - span.begin, values + span.begin);
        }
    if (operator_is_comparison(m->n->binary.op) && !m->n->binary.return_bool)
        frame_compact(out, m->grid->count);
    return OK;
}

static err match_eval(struct match *m, struct frame **out_frame)
{
    bool swapped = m->n->binary.matching.card == MATCH_ONE_TO_MANY;
    struct side *many = swapped ? &m->right : &m->left, *one = swapped ? &m->left : &m->right;
    TRY(side_chains(m, many));
    TRY(side_chains(m, one));
    TRY(side_spans(m, many));
    TRY(side_spans(m, one));
    TRY(check_one_side(m, many, one, !swapped));
    if (m->n->binary.matching.card == MATCH_ONE_TO_ONE)
        TRY(check_many_side(m, many, one));
    struct frame *out;
    TRY(frame_open(m->eval, &out));
    TRY(match_pairs(m, many, one, swapped, out));
    frame_close(m->eval, m->left.frame);
    frame_close(m->eval, m->right.frame);
    *out_frame = out;
    return OK;
}

/* ---- and, or, unless ---- */

/* For each group a row of values that is present where any row of the side is; NULL without rows. */
static err side_any(struct match *m, const struct side *side, const double ***out_any)
{
    void *memory;
    TRY(pool_zalloc(m->pool, (m->index.count + 1) * sizeof(double *), &memory));
    const double **any = memory;
    for (uint32_t g = 0; g < m->index.count; g++) {
        uint32_t first = side->first[g];
        if (first == NONE)
            continue;
        any[g] = side->frame->rows[first].values;
        if (side->next[first] == NONE)
            continue;
        double *joined;
        TRY(values_new(m->pool, m->grid->count, &joined));
        for (uint32_t r = first; r != NONE; r = side->next[r])
            for (size_t step = 0; step < m->grid->count; step++)
                if (!is_absent(side->frame->rows[r].values[step]))
                    joined[step] = 1;
        any[g] = joined;
    }
    *out_any = any;
    return OK;
}

/* Keep of each row the steps where any[group] is present (or, with !present, absent). */
static void side_filter(struct match *m, struct side *side, const double *const *any, bool present)
{
    for (size_t i = 0; i < side->frame->count; i++) {
        const double *mask = any[side->groups[i]];
        double *values = side->frame->rows[i].values;
        for (size_t step = 0; step < m->grid->count; step++)
            if ((mask != NULL && !is_absent(mask[step])) != present)
                values[step] = ABSENT;
    }
}

/* Fill the gaps of a row; whether its name goes is told by whichever of the two begins first, as Prometheus meets
 * them step by step. */
static void row_fill(struct row *row, const struct row *filling, size_t count)
{
    bool begun = false;
    for (size_t step = 0; step < count; step++) {
        if (is_absent(filling->values[step])) {
            begun |= !is_absent(row->values[step]);
            continue;
        }
        if (!begun)
            row->drop_name = filling->drop_name;
        begun = true;
        row->values[step] = filling->values[step];
    }
}

/* Add the right side's rows to the left's frame; a row with the labels of a left one fills its gaps. */
static err set_or(struct match *m)
{
    struct frame *left = m->left.frame, *right = m->right.frame;
    struct label_index index = label_index_open(m->pool);
    uint32_t number;
    bool is_new;
    for (size_t i = 0; i < left->count; i++)
        TRY(label_index_get(&index, left->rows[i].labels, &number, &is_new));
    bool unique = index.count == left->count;
    for (size_t i = 0; i < right->count; i++) {
        struct row row = right->rows[i];
        if (!values_any(row.values, m->grid->count))
            continue;
        if (unique && label_index_find(&index, row.labels, &number)) {
            row_fill(&left->rows[number], &row, m->grid->count);
            continue;
        }
        double *values;
        TRY(values_new(left->pool, m->grid->count, &values));
        memcpy(values, row.values, m->grid->count * sizeof *values);
        row.values = values;
        TRY(pool_copy(left->pool, row.labels, &row.labels));
        TRY(frame_add(left, row));
    }
    return OK;
}

static err set_eval(struct match *m, struct frame **out_frame)
{
    const double **any;
    TRY(side_chains(m, &m->left));
    TRY(side_chains(m, &m->right));
    if (m->n->binary.op == OPERATOR_OR) {
        TRY(side_any(m, &m->left, &any));
        side_filter(m, &m->right, any, false);
        TRY(set_or(m));
    } else {
        TRY(side_any(m, &m->right, &any));
        side_filter(m, &m->left, any, m->n->binary.op == OPERATOR_AND);
        frame_compact(m->left.frame, m->grid->count);
    }
    m->left.frame->ordered = false;
    frame_close(m->eval, m->right.frame);
    *out_frame = m->left.frame;
    return OK;
}

err binary_eval(struct eval *eval, const struct node *n, const struct grid *grid, struct frame **out_frame)
{
    struct match m = { .eval = eval, .n = n, .grid = grid };
    TRY(eval_frame(eval, n->binary.left, grid, &m.left.frame));
    TRY(eval_frame(eval, n->binary.right, grid, &m.right.frame));
    m.pool = pool_open(eval->pool, "promql_match", POOL_BYTES_UNLIMITED);
    m.index = label_index_open(m.pool);
    err e = OK;
    TRY_OUT(side_groups(&m, &m.left));
    TRY_OUT(side_groups(&m, &m.right));
    TRY_OUT(operator_is_set(n->binary.op) ? set_eval(&m, out_frame) : match_eval(&m, out_frame));
out:
    pool_close(m.pool);
    return e;
}
