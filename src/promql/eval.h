/* The evaluator's inside: grids, rows, frames, pipelines. Internal to the room.
 *
 *     eval.c      walks the tree, makes the result            call.c       functions that need whole frames
 *     pipeline.c  leaf → stages → sink, series by series      elementwise.c  stages: math, clamp, scalar operators
 *     window.c    range functions over one series             aggregate.c  partial → merge, topk and the like
 *     window_scan.c  those that look at every sample
 *     binary.c    vector matching                             labelset.c   edits of canonical labels
 *     frame.c     memory of intermediate results              bucket.c     quantiles of classic histograms
 *     annotate.c  warnings and infos
 *     pipeline_build.c  which leaf and stages a node becomes
 *     unit.c      aggregations that are evaluated where their series are */
#ifndef PROMQL_EVAL_H
#define PROMQL_EVAL_H

#include "base/buf.h"
#include "base/bytes.h"
#include "model/labels.h"
#include "promql/ast.h"
#include "promql/lex.h"

/* Of one pipeline's series. The split never depends on the number of workers, so that sums do not either. */
#define CHUNK_COUNT_MAX  64
#define CHUNK_SERIES     64                  /* in each, while there are fewer chunks */
#define CHUNK_COUNT_MIN  4                   /* when there are samples enough: */
#define CHUNK_COVERED_MS (128 * MS_PER_HOUR) /* of samples of all series: 30,000 at 15 s, some 100 us */
#define WINDOW_PLACES    32                  /* runs of times whose windows a worker keeps */

/* Evaluation times: start + i × step for i in [0, count). */
struct grid {
    int64_t start_ms;
    int64_t step_ms;
    size_t count;
};

static inline int64_t grid_t(const struct grid *g, size_t i) { return g->start_ms + (int64_t)i * g->step_ms; }
static inline int64_t grid_end(const struct grid *g) { return grid_t(g, g->count - 1); }

/* "No value at this step". The stale marker can never be a value of an expression, so its bits are free for
 * this; every operation tests before it computes, because arithmetic would turn it into a plain NaN. */
#define ABSENT bits_double(SAMPLE_STALE_BITS)
static inline bool is_absent(double v) { return double_bits(v) == SAMPLE_STALE_BITS; }

/* One series over a grid. */
struct row {
    struct slice labels;                 /* at NULL: not read yet (pipeline.c) */
    double *values;                      /* grid.count */
    struct sample_histogram *histograms; /* row = step, where values[step] is ABSENT */
    size_t histogram_count;
    bool drop_name; /* __name__ goes when the result is made */
};

/* An instant vector over a grid; each row has a value at some step. Rows live in pool or in the chunks' pools. */
struct frame {
    struct frame *next;
    struct pool *pool;
    struct pool *chunk_pools[CHUNK_COUNT_MAX];
    size_t chunk_pool_count;
    struct row *rows;
    size_t count;
    size_t capacity;
    bool ordered; /* sort(), topk(): keep the order in an instant result */
};

struct value {
    enum promql_type type;
    struct frame *frame; /* PROMQL_VECTOR */
    double *scalars;     /* PROMQL_SCALAR: grid.count */
    struct slice string;
};

/* A hash table from label sets (or other texts) to the numbers 0, 1, … in order of first appearance. */
struct label_index {
    struct pool *pool;
    struct slice *keys;
    uint64_t *hashes;
    size_t count;
    size_t key_capacity, hash_capacity;
    uint32_t *slots;   /* number + 1, 0 = free */
    size_t slot_count; /* power of two */
};

struct annotations {
    struct label_index texts; /* distinct ones */
};

/* What was done to make classic buckets monotonic, over one or more steps. */
struct bucket_repair {
    double lowest, highest; /* bounds of repaired buckets */
    double difference;      /* largest decrease */
    int64_t begin_ms, end_ms;
    uint64_t count; /* of histograms */
};

struct eval {
    const struct promql_request *request;
    struct pool *pool;    /* of this evaluation; frames' pools are below it */
    struct frame *frames; /* open ones */
    int64_t lookback_ms;
    struct annotations warnings, infos;
    struct label_index repair_texts; /* metric and position of each of repairs */
    struct bucket_repair *repairs;
    size_t repair_capacity;
    struct proof proof;
    struct promql_stats stats;
    struct pool *result_pool; /* annotations and proof are made here */
    struct err_at *at;
};

/* ---- frame.c ---- */
err frame_open(struct eval *eval, struct frame **out_frame);
void frame_close(struct eval *eval, struct frame *frame); /* NULL allowed */
/* A pool below the frame's for one chunk; from the evaluation's thread only. */
struct pool *frame_chunk_pool(struct frame *frame);
err frame_add(struct frame *frame, struct row row);
/* A frame of one step becomes one of count steps, all the same. ERR_LIMIT. */
err frame_widen(struct frame *frame, size_t count);
/* Room for a row's values, all ABSENT. */
err values_new(struct pool *pool, size_t count, double **out_values);
bool values_any(const double *values, size_t count); /* is any of them present? */
/* ERR_EXECUTION: series has native histograms, which `what` does not handle. */
err fail_histogram(struct err_at *at, struct slice labels, const char *what);
/* OK, or the above of the first row with one. */
err fail_histograms(struct eval *eval, const struct frame *frame, const char *what);
err guard_maybe(const struct eval *eval);
/* Work beyond one look at each value may take minutes: add it to *count, from 0, and ask the guard every
 * million units; its errors. guard NULL: none. */
static inline err guard_work(struct guard *guard, size_t *count, size_t more)
{
    *count += more;
    if (__builtin_expect(*count < 1u << 20, 1))
        return OK;
    *count = 0;
    return guard != NULL ? guard_check(guard) : OK;
}
/* Drop the rows that have no value at any step. */
void frame_compact(struct frame *frame, size_t step_count);

/* Fill into's gaps with from's values. ERR_EXECUTION: at some step both have one. */
err row_join(struct eval *eval, struct row *into, const struct row *from, size_t step_count);

/* ---- annotate.c ---- */
struct annotations annotations_open(struct pool *pool);
void annotate(struct annotations *list, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* " (line:column)" of a node for annotations; NULL = the text's begin. */
struct position_text {
    char text[32];
};
struct position_text position_of(const struct eval *eval, const struct node *n);
/* Text in quotes as Go's %q, cut to some 250 bytes. */
struct quoted {
    char text[256];
};
struct quoted quote(struct slice s);
/* A text that stands already. */
void annotate_text(struct annotations *list, struct slice text);
void annotate_quantile(struct eval *eval, double q, const struct node *n); /* q is out of [0, 1] */
static inline bool quantile_is_bad(double q) { return !(q >= 0 && q <= 1); }
void annotate_bucket_label(struct eval *eval, struct slice labels, struct slice bound, const struct node *n);
void annotate_sort(struct eval *eval, const struct node *n); /* a call of sort() at more than one step */
void annotate_monotonicity(struct eval *eval, struct slice labels, const struct bucket_repair *repair,
                           const struct node *n);
/* What a worker saw that annotations will tell; more than NOTE_COUNT_MAX of a kind is left out. */
#define NOTE_COUNT_MAX 12
struct notes {
    struct pool *pool;                         /* of the names; opened when there is one */
    struct slice non_counters[NOTE_COUNT_MAX]; /* names that do not end like a counter's */
    size_t non_counter_count;
    double bad_quantiles[NOTE_COUNT_MAX];
    size_t bad_quantile_count;
};
/* Of a series of rate or increase that has a value. ERR_LIMIT. */
err note_non_counter(struct notes *notes, struct slice name, struct pool *parent);
void notes_done(struct notes *notes);
/* Quantiles that are out of range at a step that has a value. */
void note_quantiles(struct notes *notes, const double *q, const double *values, size_t count);
struct pipeline;
void notes_tell(struct eval *eval, const struct notes *notes, const struct pipeline *p);
/* Move the texts to the result. */
void annotations_finish(struct eval *eval, struct promql_result *out);

/* ---- labelset.c ---- */
/* Append the labels of `labels` whose names are (keep) or are not (!keep) among the sorted names; !keep also
 * leaves __name__ out when drop_name. */
void labels_project(struct slice labels, const struct slice *names, size_t count, bool keep, bool drop_name,
                    struct buf *out);
/* Append labels with one label set to value (removed when value is empty). */
void labels_set(struct slice labels, struct slice name, struct slice value, struct buf *out);
struct slice labels_without_name(struct slice labels, struct buf *scratch); /* borrowed from either */
extern const struct slice label_name;                                       /* "__name__" */

/* The number of key; copies it when new. ERR_LIMIT. */
err label_index_get(struct label_index *index, struct slice key, uint32_t *out_number, bool *out_new);
bool label_index_find(const struct label_index *index, struct slice key, uint32_t *out_number);
static inline struct label_index label_index_open(struct pool *pool)
{
    return (struct label_index){ .pool = pool };
}

/* ---- window.c ---- */
struct window_input {
    const int64_t *t_ms; /* without stale markers */
    const double *values;
    size_t count;
    struct hash128 times; /* name of t_ms, see sample_columns: windows are the same for equal names */
    struct grid ends;     /* window i is (end - range, end]; step 0 = all the same */
    int64_t range_ms;
    int64_t eval_start_ms; /* evaluation time of step i, for predict_linear */
    int64_t eval_step_ms;
    const double *arg;   /* scalar argument per step, or NULL */
    struct guard *guard; /* NULL: none */
};
/* A window holds the samples [low, high). */
struct window_edge {
    uint32_t low, high;
};
/* What a rate's extrapolation takes from times alone. */
struct window_reach {
    double sampled_ms;       /* from the first sample to the last */
    double to_start, to_end; /* how far beyond them the window reaches, as far as is believed, ms */
    double factor;           /* (sampled + to_start + to_end) / sampled × unit of the result */
};
/* The windows of one run of times. Blocks of the scratch's pool. */
struct window_places {
    struct hash128 times;         /* whose they are; zero: nobody's */
    struct window_edge *edges;    /* per step */
    struct window_reach *reaches; /* likewise, once a rate needed them */
    size_t count, edge_capacity, reach_capacity;
    bool has_reaches;
};
struct window_scratch {
    struct pool *pool;
    void *at;
    size_t bytes;
    struct window_places places[WINDOW_PLACES]; /* by name: targets take turns in a selector's order */
    struct window_places *current;
};
/* out[i] for every i in [0, ends.count): the function's value or ABSENT. ERR_LIMIT for scratch, and the
 * guard's errors. */
err window_apply(enum function_id id, const struct window_input *in, struct window_scratch *scratch,
                 double *out);
bool function_is_window(enum function_id id);
double quantile_of(double q, double *values, size_t count); /* sorts values */
/* scratch->at with room for so many bytes; keeps what is there. ERR_LIMIT. */
err window_scratch_reserve(struct window_scratch *scratch, size_t bytes);

/* ---- window_scan.c ---- */
/* stddev_over_time, stdvar_over_time, deriv and predict_linear, as window_apply, edges found. */
err window_scan(enum function_id id, const struct window_input *in, struct window_scratch *scratch,
                double *out);

/* ---- elementwise.c ---- */
struct stage {
    void (*apply)(const struct stage *stage, double *values, size_t count);
    double (*math)(double v);
    enum operator_type op;
    const double *scalars[2]; /* per step */
    bool scalar_left;
    bool return_bool;
    bool drops_name;
    struct grid grid;
    const char *name; /* for errors */
};
/* Is the call one of those that map a value to a value? */
bool function_is_elementwise(enum function_id id);
/* scalars of the arguments were set by the caller. */
void stage_of_function(enum function_id id, struct stage *stage);
void stage_of_operator(enum operator_type op, struct stage *stage);
void stage_of_negation(struct stage *stage);
double scalar_operate(enum operator_type op, double left, double right); /* comparisons give 1 or 0 */

/* ---- pipeline.c ---- */
enum leaf_type { LEAF_FRAME, LEAF_SELECT, LEAF_TIMESTAMP, LEAF_WINDOW, LEAF_WINDOW_FRAME };

struct pipeline {
    enum leaf_type leaf;
    struct frame *frame;    /* LEAF_FRAME: values are overwritten; LEAF_WINDOW_FRAME: the subquery's rows */
    struct grid frame_grid; /* of a subquery's frame */
    const struct node *selector; /* LEAF_SELECT, LEAF_WINDOW */
    /* For annotations: the range selector (NULL: a subquery) and the first argument of the window function. */
    const struct node *position, *arg_position;
    enum function_id window;
    const char *window_name;
    int64_t range_ms;
    int64_t offset_ms;
    bool fixed; /* @ */
    int64_t fixed_ms;
    const double *window_arg;
    bool drops_name;
    struct stage *stages;
    size_t stage_count;
};

struct group_set;

/* Build the pipeline of a vector node, evaluating what must come first (scalar arguments, inner frames). */
err pipeline_build(struct eval *eval, const struct node *n, const struct grid *grid, struct pipeline *out);
/* The pipeline of a selector alone, at instants or as the input of windows. */
err pipeline_build_selector(struct eval *eval, const struct node *n, enum leaf_type leaf,
                            struct pipeline *out);
/* The pipeline of a call of a range function (absent_over_time: 1 where there is a sample). */
err pipeline_build_window(struct eval *eval, const struct node *n, const struct grid *grid,
                          struct pipeline *out);
/* Run it into a new frame, or into groups (partials per chunk, merged in chunk order). */
err pipeline_to_frame(struct eval *eval, struct pipeline *p, const struct grid *grid,
                      struct frame **out_frame);
err pipeline_to_groups(struct eval *eval, struct pipeline *p, const struct grid *grid,
                       struct group_set *groups);
/* The times of the samples that the leaf selects; empty when min > max. */
struct time_range pipeline_range(const struct eval *eval, const struct pipeline *p, const struct grid *grid);
/* Raw samples of a matrix selector, for an instant query's result. */
err pipeline_raw(struct eval *eval, const struct node *selector, int64_t end_ms, struct promql_result *out);
err modifiers_resolve(struct eval *eval, const struct modifiers *m, int64_t *out_offset_ms, bool *out_fixed,
                      int64_t *out_fixed_ms);

/* ---- aggregate.c ---- */
struct group {
    bool drop_name;
    double *a, *b, *c; /* accumulators per step; which are used depends on the type */
};
struct group_set {
    enum aggregate_type type;
    const struct slice *names;
    size_t name_count;
    bool keep; /* by: names are kept; else they go */
    struct grid grid;
    struct pool *pool;
    struct label_index index;
    struct group *groups;
    size_t capacity;
};
/* Does a row's group depend on its labels? */
static inline bool group_set_needs_labels(const struct group_set *set)
{
    return set->name_count > 0 || !set->keep;
}
err group_set_add(struct group_set *set, const struct row *row, struct buf *scratch);
/* The empty set of an aggregation that is folded, of absent(), or of the rows of one that is not. */
struct group_set group_set_of(const struct node *n, const struct grid *grid, struct pool *pool);
/* Which of a, b, c there are: the first so many. */
unsigned group_columns(enum aggregate_type type);
bool aggregate_is_folded(enum aggregate_type type);
err group_set_merge(struct group_set *into, const struct group_set *from);
/* The same of one group, with its key. */
err group_set_merge_one(struct group_set *into, struct slice key, const struct group *from);
err aggregate_eval(struct eval *eval, const struct node *n, const struct grid *grid,
                   struct frame **out_frame);

static inline void kahan_add(double v, double *sum, double *c)
{
    double t = *sum + v;
    if (__builtin_isinf(t))
        *c = 0;
    else if (__builtin_fabs(*sum) >= __builtin_fabs(v))
        *c += (*sum - t) + v;
    else
        *c += (v - t) + *sum;
    *sum = t;
}

/* ---- unit.c ---- */
/* Fill the groups of an aggregation that is folded, or of a call of absent: where the series are, when the source
 * does that, else here. */
err unit_groups(struct eval *eval, const struct node *n, const struct grid *grid, struct group_set *groups);
/* Fill rows with what topk, bottomk or count_values, each asked of some of the series, leaves of them, its key
 * being the row's labels; counts are added up. *out_is_done: false, when the source does not do that: nothing is
 * there. */
err unit_rows(struct eval *eval, const struct node *n, struct group_set *rows, bool *out_is_done);

/* ---- binary.c ---- */
err binary_eval(struct eval *eval, const struct node *n, const struct grid *grid, struct frame **out_frame);

/* ---- bucket.c ---- */
struct bucket {
    double upper;
    double count;
};
/* Adds to repair what was repaired; its times are the caller's. */
double bucket_quantile(double q, struct bucket *buckets, size_t count, struct bucket_repair *repair);
double bucket_fraction(double lower, double upper, struct bucket *buckets, size_t count);
err bucket_call(struct eval *eval, const struct node *n, const struct grid *grid, struct frame **out_frame);

/* ---- call.c ---- */
err call_eval(struct eval *eval, const struct node *n, const struct grid *grid, struct value *out);

/* ---- eval.c ---- */
/* at is not NULL. eval_close frees everything but what was made for the result. */
struct eval eval_open(const struct promql_request *request, struct pool *pool, struct err_at *at);
void eval_close(struct eval *eval);
err eval_node(struct eval *eval, const struct node *n, const struct grid *grid, struct value *out);
err eval_frame(struct eval *eval, const struct node *n, const struct grid *grid, struct frame **out_frame);
err eval_scalars(struct eval *eval, const struct node *n, const struct grid *grid, double **out_scalars);
/* The grid of a subquery's inner expression for an outer grid. ERR_LIMIT too many steps. */
err subquery_grid(struct eval *eval, const struct node *n, const struct grid *outer, struct grid *out_grid,
                  int64_t *out_range_ms, int64_t *out_offset_ms, bool *out_fixed, int64_t *out_fixed_ms);
err duration_of(struct eval *eval, const struct duration *d, bool allow_negative, int64_t *out_ms);

#endif
