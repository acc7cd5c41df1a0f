/* What the cluster was given, and what it must say: clients, queries, oracles. See whole.h.
 *
 * The model: every row that a client ever sent, whose value is its number, and when which request was
 * acknowledged; the fold of what is committed of the control log; where the data's log went back, by the brokers'
 * truth.
 *
 * Oracles
 *   answers    a row is there once, under its labels, at its time, with its value, or it was never sent; an answer
 *              that calls itself complete has every row acknowledged before it was asked for (a plain one: 5 s
 *              before), but what the log lost; an aggregation counts no less, and no more than was sent
 *   expiry     no record of rows leaves the brokers before a segment that the chain names holds it
 *   replicas   never told to differ; of two with the same chain all segments are equal
 *   at rest    every node answers completely, or, if the log went back, with all that was acknowledged outside of
 *              what it lost, and all acknowledged that it has, unless who wrote it died soon after; owners have
 *              applied the log's end, and hold the same SUMs; all rows that are stored are the rows that are
 *              answered, so none is stored twice */
#include "sim/whole.h"

#include "base/stat.h"
#include "cluster/members.h"
#include "model/batch.h"
#include "model/labels.h"
#include "model/sum.h"
#include "sim/whole_shards.h"

#define PLAIN_NS (INT64_C(5100) * NS_PER_MS) /* what is older than this a plain answer has */
#define DOUBT_NS (15 * NS_PER_SECOND)        /* a record is on its way so long, or its answer */
#define LOOK_MS  1000                        /* between two looks at the brokers' truth */
#define NAMED_MS \
    (2 * MS_PER_MINUTE) /* within that a log that went back is noticed, and what it lost announced */
#define WINDOW_MS MS_PER_HOUR
#define LATE_MS   (3 * MS_PER_DAY)

/* ---- clients ---- */

static void labels_make(struct whole *w, uint32_t series)
{
    struct buf b = buf_open(w->pool, 1000);
    char text[32];
    snprintf(text, sizeof text, "metric_%u", series % 3);
    labels_put(&b, slice_str("__name__"), slice_str(text));
    snprintf(text, sizeof text, "host-%u", series);
    labels_put(&b, slice_str("instance"), slice_str(text));
    check(buf_err(&b) == OK);
    w->labels[series] = buf_slice(&b);
}

static uint32_t row_make(struct whole *w, uint32_t attempt)
{
    check(w->row_count < ROWS_MAX);
    uint32_t series = (uint32_t)whole_below(w, SERIES_LASTING);
    int64_t t_ms = START_MS + whole_now_ms();
    if (whole_chance(w, 4))
        series = SERIES_LASTING + (uint32_t)(whole_now_ms() / BRIEF_MS) % SERIES_BRIEF;
    struct whole_row row = { .series = series, .attempt = attempt, .offset = UINT64_MAX };
    if (t_ms <= w->last_t_ms[series])
        t_ms = w->last_t_ms[series] + 1;
    w->last_t_ms[series] = t_ms;
    row.t_ms = whole_chance(w, 12) ? START_MS - LATE_MS + (int64_t)w->row_count : t_ms;
    w->rows[w->row_count] = row;
    return w->row_count++;
}

static uint32_t attempt_make(struct whole *w, uint32_t node)
{
    check(w->attempt_count < ATTEMPTS_MAX);
    uint32_t attempt = w->attempt_count, count = 1 + (uint32_t)whole_below(w, REQUEST_ROWS);
    w->attempts[attempt] = (struct whole_attempt){ .first = w->row_count,
                                                   .count = count,
                                                   .node = node,
                                                   .life = w->nodes[node].life,
                                                   .acked_ns = INT64_MAX };
    for (uint32_t i = 0; i < count; i++)
        (void)row_make(w, attempt);
    w->attempt_count++;
    whole_note(w, EVENT_WRITE_UNKNOWN, node, attempt);
    return attempt;
}

static void write_one(struct whole_process *p)
{
    struct whole *w = p->node->whole;
    struct ingest_row rows[REQUEST_ROWS];
    struct ingest_result result;
    uint32_t attempt = attempt_make(w, p->node->number);
    struct whole_attempt *a = &w->attempts[attempt];
    for (uint32_t i = 0; i < a->count; i++) {
        const struct whole_row *row = &w->rows[a->first + i];
        rows[i] = (struct ingest_row){ .labels = w->labels[row->series],
                                       .t_ms = row->t_ms,
                                       .value_bits = double_bits((double)(a->first + i)) };
    }
    ingest_write(p->ingest, slice_str("default"),
                 &(struct ingest_rows){ .rows = rows, .row_count = a->count }, &result);
    whole_note(w, result.status == 204 ? EVENT_WRITE_ACKED : EVENT_WRITE_FAILED, p->node->number, attempt);
    w->events[EVENT_WRITE_UNKNOWN]--; /* what is left of them died with a process */
    if (result.status == 204 && a->acked_ns == INT64_MAX)
        a->acked_ns = fibers_now_ns();
}

void model_write(void *context)
{
    struct whole_process *p = context;
    struct whole *w = p->node->whole;
    for (;;) {
        fiber_sleep((int64_t)(500 + whole_below(w, 9000)) * NS_PER_MS);
        if (p->is_ready && !w->is_quiet && w->members != NULL && members_assigned(w->members, 0) != NULL)
            write_one(p);
    }
}

/* ---- answers ---- */

struct question {
    struct whole_process *process;
    bool is_strong, is_count;
    bool has_all;     /* the rows that were due came, whatever the answer says of itself */
    int64_t bound_ns; /* what was acknowledged before is in an answer that is complete */
    uint64_t hand_overs;
    uint32_t first_unsent; /* rows from here on were sent after it was asked */
};

/* What is wrong with a sample; NULL: nothing. */
static const char *judge_sample(struct whole *w, struct slice labels, int64_t t_ms, double value,
                                uint32_t number)
{
    if (!(value >= 0 && value < (double)w->row_count) || value != (double)(uint32_t)value)
        return "a value is there that nobody sent";
    struct whole_row *row = &w->rows[(uint32_t)value];
    if (!slice_equal(labels, w->labels[row->series]) || t_ms != row->t_ms)
        return "a row is under other labels, or at another time";
    if (row->seen == number)
        return "a row is there twice";
    row->seen = number;
    return NULL;
}

struct read_row {
    struct slice labels;
    int64_t t_ms;
    double value;
};

struct read_rows {
    struct read_row *rows;
    size_t count, capacity;
};

/* All rows of the set. Reading what is the node's own may wait, and others ask meanwhile: nothing is judged before
 * everything is read. */
static err read_set(struct source *source, struct source_set *set, struct pool *pool, struct read_rows *out)
{
    struct sample_columns columns = sample_columns_open(pool);
    struct buf labels = buf_open(pool, LABELS_BYTES_MAX);
    struct source_reader *reader;
    err e = OK;
    TRY(source->table->reader_open(set, &reader));
    for (size_t i = 0; i < source->table->set_count(set); i++) {
        struct slice copy;
        buf_clear(&labels);
        TRY_OUT(source->table->read_labels(reader, i, &labels));
        TRY_OUT(source->table->read_samples(reader, i, &columns));
        TRY_OUT(pool_copy(pool, buf_slice(&labels), &copy));
        TRY_OUT(pool_block_reserve(pool, (void **)&out->rows, sizeof *out->rows, out->count + columns.count,
                                   &out->capacity));
        for (size_t k = 0; k < columns.count; k++)
            out->rows[out->count++] = (struct read_row){ copy, columns.t_ms[k], columns.values[k] };
    }
out:
    source->table->reader_close(reader);
    return e;
}

static void judge_rows(struct whole *w, const struct read_rows *rows, uint32_t number)
{
    for (size_t i = 0; i < rows->count; i++) {
        const struct read_row *row = &rows->rows[i];
        const char *wrong = judge_sample(w, row->labels, row->t_ms, row->value, number);
        if (wrong != NULL)
            whole_violate(w, "answers: %s: value %g at %lld", wrong, row->value, (long long)row->t_ms);
    }
}

/* Was it acknowledged before, and is it not of what the log may have lost? */
static bool is_due(const struct whole *w, const struct whole_attempt *a, int64_t bound_ns)
{
    bool may_be_lost = false;
    for (size_t i = 0; i < w->loss_count; i++) /* an acknowledgement may come after the loss is known */
        may_be_lost =
            may_be_lost || (a->acked_ns >= w->losses[i].from_ns && a->acked_ns <= w->losses[i].to_ns);
    return a->acked_ns < bound_ns && !may_be_lost;
}

/* Had the row's writer time to announce again what the log may have lost just before the row's record? */
static bool is_named(const struct whole *w, const struct whole_row *row)
{
    int64_t ended_ms = w->ended_ms[w->attempts[row->attempt].life];
    return ended_ms == 0 || ended_ms - row->found_ms >= NAMED_MS;
}

/* When nobody writes and nothing fails, more is known of what was acknowledged about the time of a loss: the log
 * has it. */
static bool is_due_at_rest(const struct whole *w, const struct whole_row *row)
{
    const struct whole_attempt *a = &w->attempts[row->attempt];
    return w->is_quiet && a->acked_ns != INT64_MAX && row->offset != UINT64_MAX && is_named(w, row);
}

/* The first row that was due and that the check did not see; w->row_count: all were there. */
static uint32_t first_lacking(const struct whole *w, const struct question *q, uint32_t number)
{
    for (uint32_t i = 0; i < w->row_count; i++) {
        const struct whole_row *row = &w->rows[i];
        const struct whole_attempt *a = &w->attempts[row->attempt];
        if (row->seen != number &&
            (is_due(w, a, q->bound_ns) || (a->acked_ns < q->bound_ns && is_due_at_rest(w, row))))
            return i;
    }
    return w->row_count;
}

static void judge_complete(struct whole *w, const struct question *q, uint32_t number)
{
    uint32_t lacking = first_lacking(w, q, number);
    if (lacking < w->row_count)
        whole_violate(w,
                      "answers: complete, asked %s of node %u, and lacks row %u, acknowledged %lld ms before",
                      q->is_strong ? "strongly" : "plainly", q->process->node->number, lacking,
                      (long long)((q->bound_ns - w->attempts[w->rows[lacking].attempt].acked_ns) /
                                  NS_PER_MS));
}

static err ask_rows(struct question *q, struct query *query, bool *out_complete)
{
    struct whole *w = q->process->node->whole;
    struct source *source = query_source(query);
    struct source_request request = { .tenant = slice_str("default"),
                                      .range = { TIME_MS_MIN, TIME_MS_MAX },
                                      .series_max = SIZE_MAX,
                                      .guard = query_guard(query) };
    struct source_set *set;
    struct read_rows rows = { 0 };
    TRY(source->table->select(source, &request, query_pool(query), &set));
    err e = read_set(source, set, query_pool(query), &rows);
    *out_complete = e == OK && source->table->set_proof(set)->complete;
    source->table->set_close(set);
    uint32_t number = ++w->checks;
    if (e == OK)
        judge_rows(w, &rows, number);
    if (*out_complete)
        judge_complete(w, q, number);
    uint32_t lacking = first_lacking(w, q, number);
    q->has_all = e == OK && lacking == w->row_count;
    if (e == OK && w->is_quiet)
        w->answered_check = number;
    if (e == OK && lacking < w->row_count && whole_is_verbose())
        printf("# %lld ms: node %u lacks row %u of series %u, acknowledged at %lld ms\n",
               (long long)whole_now_ms(), q->process->node->number, lacking, w->rows[lacking].series,
               (long long)(w->attempts[w->rows[lacking].attempt].acked_ns / NS_PER_MS));
    return e;
}

/* The rows of the last hour that an answer may, and if it is complete must, count. */
static void bounds_of(const struct whole *w, const struct question *q, int64_t to_ms, uint64_t *out_least,
                      uint64_t *out_most)
{
    *out_least = *out_most = 0;
    for (uint32_t i = 0; i < w->row_count; i++) {
        const struct whole_row *row = &w->rows[i];
        if (row->t_ms <= to_ms - WINDOW_MS || row->t_ms > to_ms)
            continue;
        *out_most += 1;
        *out_least += is_due(w, &w->attempts[row->attempt], q->bound_ns);
    }
}

/* Groups that the nodes made. */
static err ask_count(struct question *q, struct query *query, bool *out_complete)
{
    struct whole *w = q->process->node->whole;
    struct promql_result result;
    struct query_times times;
    struct err_at at = { 0 };
    uint64_t least, most;
    int64_t to_ms = START_MS + whole_now_ms() + MS_PER_MINUTE;
    TRY(query_evaluate(query, slice_str("sum(count_over_time({__name__=~\"metric.*\"}[1h]))"), to_ms, to_ms,
                       0, &result, &times, &at));
    double count = result.series_count > 0 ? result.series[0].values[0] : 0;
    *out_complete = result.proof.complete;
    bounds_of(w, q, to_ms, &least, &most);
    if (count > (double)most || (*out_complete && count < (double)least))
        whole_violate(w, "answers: an aggregation%s counts %g rows, of %llu to %llu",
                      *out_complete ? ", complete," : "", count, (unsigned long long)least,
                      (unsigned long long)most);
    whole_note(w, EVENT_QUERY_GROUPS, q->process->node->number, (uint64_t)count);
    return OK;
}

static void run_query(void *context)
{
    struct question *q = context;
    struct whole_process *p = q->process;
    struct whole *w = p->node->whole;
    const struct query_options options = { .tenant = slice_str("default"),
                                           .text = slice_str("rows"),
                                           .need = { .is_strong = q->is_strong } };
    struct query *query;
    struct err_at at = { 0 };
    bool is_complete = false;
    p->busy_requests++;
    err e = query_begin(p->queries, &options, &query, &at);
    if (e == OK) {
        e = q->is_count ? ask_count(q, query, &is_complete) : ask_rows(q, query, &is_complete);
        ERR_IGNORE(query_release(query, e, &at));
        query_end(query);
    }
    p->busy_requests--;
    whole_note(w,
               e != OK       ? EVENT_QUERY_FAILED
               : is_complete ? EVENT_QUERY_COMPLETE
                             : EVENT_QUERY_INCOMPLETE,
               p->node->number, (uint64_t)e);
    if (whole_is_verbose())
        printf("# %lld ms: query of node %u, %s%s: %s%s\n", (long long)whole_now_ms(), p->node->number,
               q->is_strong ? "strong" : "plain", q->is_count ? " count" : "", e != OK ? err_text(e) : "",
               e != OK       ? ""
               : is_complete ? "complete"
                             : "incomplete");
    if (q->hand_overs != w->hand_overs)
        whole_note(w, EVENT_HAND_OVER_UNDER_QUERY, p->node->number, 0);
    /* What a log lost is named, and such an answer is never complete: it has all that was not lost. */
    if (e == OK && (is_complete || (w->has_gone_back && q->has_all)) && w->is_quiet && !q->is_count)
        w->was_answered[p->node->number] = true;
    pool_block_free(p->pool, q);
}

void model_query(struct whole_node *node, bool is_strong)
{
    struct whole *w = node->whole;
    void *at = NULL;
    check(pool_block_resize(node->process->pool, &at, sizeof(struct question)) == OK);
    struct question *q = at;
    *q = (struct question){ .process = node->process,
                            .is_strong = is_strong,
                            .is_count = !w->is_quiet && whole_chance(w, 4),
                            .bound_ns = fibers_now_ns() - (is_strong ? 0 : PLAIN_NS),
                            .hand_overs = w->hand_overs };
    w->events[EVENT_QUERY_STRONG] += is_strong;
    whole_note(w, EVENT_QUERY, node->number, is_strong);
    fiber_start(node->process->group, run_query, q);
}

/* ---- the control log ---- */

static uint64_t owners_of(const struct whole *w)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < members_slot_count(w->members); i++)
        for (uint32_t p = 0; p < PARTITIONS; p++)
            hash = hash_mix(hash ^ (uint64_t)(members_at(w->members, i)->status == MEMBER_UP &&
                                              member_owns(members_at(w->members, i), p)));
    return hash;
}

static void fold_control(struct whole *w)
{
    struct brokers_sim_record is;
    struct members_change change;
    struct brokers_sim_truth truth = brokers_sim_truth(w->brokers, TOPIC_CONTROL, 0);
    if (truth.generation != w->control_generation)
        whole_violate(w, "the control log went back, which is not what these worlds are about");
    if (w->folded == truth.end_offset)
        return;
    for (; w->folded < truth.end_offset; w->folded++) {
        bool is_record = brokers_sim_truth_record(w->brokers, TOPIC_CONTROL, 0, w->folded, &is) &&
                         is.bytes.at != NULL && is.bytes.len >= LOG_KAFKA_HEAD_BYTES &&
                         is.bytes.at[4] == KAFKA_RECORD_BATCH;
        if (!is_record)
            continue;
        struct slice bytes = slice_part(is.bytes, LOG_KAFKA_HEAD_BYTES, is.bytes.len - LOG_KAFKA_HEAD_BYTES);
        check(members_apply(w->members, w->folded, is.t_ms, bytes, &change) == OK);
        w->trace = hash_mix(w->trace ^ hash64(bytes, w->folded));
        if (whole_is_verbose() && change.kind != CONTROL_NOOP)
            printf("# %lld ms: %llu %s %s\n", (long long)whole_now_ms(), (unsigned long long)w->folded,
                   control_kind_text(change.kind), change.counted ? "counts" : change.why);
    }
    uint64_t owners = owners_of(w);
    if (owners != w->owners && w->owners != 0) {
        w->hand_overs++;
        whole_note(w, EVENT_HAND_OVER, 0, 0);
    }
    w->owners = owners;
}

/* ---- the data's log ---- */

#define TAIL_MAX 65536

/* A partition's log as it was committed: when each record was, and whether it has rows. */
struct whole_tail {
    uint64_t end, committed;
    uint64_t generation, losses; /* the most that a chain told */
    bool has_cut;
    struct log_position closes; /* of the last CUT */
    size_t backs;
    int64_t t_ms[TAIL_MAX];
    bool has_rows[TAIL_MAX];
};

/* What was acknowledged around that time may be gone. A record that came and went between two looks has no
 * time. */
static void lose(struct whole *w, uint32_t partition, const struct brokers_sim_back *back)
{
    const struct whole_tail *tail = &w->tails[partition];
    w->has_gone_back = true;
    for (uint32_t i = 0; i < w->row_count; i++)
        if (w->rows[i].partition == partition && w->rows[i].offset >= back->at)
            w->rows[i].offset = UINT64_MAX;
    if (back->at >= back->end)
        return;
    int64_t first_ms = back->at < tail->end ? tail->t_ms[back->at] - START_MS : back->when_ms - LOOK_MS;
    int64_t from_ns = first_ms * NS_PER_MS - DOUBT_NS;
    int64_t to_ns = back->when_ms * NS_PER_MS + DOUBT_NS;
    check(w->loss_count < LOSSES_MAX);
    w->losses[w->loss_count++] = (struct whole_loss){ from_ns, to_ns };
    if (whole_is_verbose())
        printf("# %lld ms: a log went back from %llu to %llu: what was acknowledged at %lld to %lld ms may "
               "be gone\n",
               (long long)whole_now_ms(), (unsigned long long)back->end, (unsigned long long)back->at,
               (long long)(from_ns / NS_PER_MS), (long long)(to_ns / NS_PER_MS));
}

/* Whose rows a record at that offset has. */
static void find_rows(struct whole *w, uint32_t partition, uint64_t offset, struct slice bytes)
{
    struct pool *pool = pool_open(w->pool, "record", POOL_BYTES_UNLIMITED);
    struct batch batch = { 0 };
    check(batch_decode(bytes, pool, &batch) == OK);
    for (size_t i = 0; i < batch.row_count; i++) {
        struct whole_row *row = &w->rows[(uint32_t)bits_double(batch.value_bits[i])];
        if (offset >= row->offset)
            continue;
        row->partition = partition;
        row->offset = offset;
        row->found_ms = whole_now_ms();
    }
    pool_close(pool);
}

/* The record at its end. Of CUTs that close the same range the first counts. */
static void follow_one(struct whole *w, struct whole_tail *tail, uint32_t partition)
{
    struct brokers_sim_record is;
    struct log_position closes;
    bool is_there = brokers_sim_truth_record(w->brokers, TOPIC_DATA, partition, tail->end, &is) &&
                    is.bytes.at != NULL && is.bytes.len >= LOG_KAFKA_HEAD_BYTES;
    tail->t_ms[tail->end] = is_there ? is.t_ms : 0;
    tail->has_rows[tail->end] = false;
    if (!is_there || is.bytes.at[4] != KAFKA_RECORD_BATCH)
        return;
    struct slice bytes = slice_part(is.bytes, LOG_KAFKA_HEAD_BYTES, is.bytes.len - LOG_KAFKA_HEAD_BYTES);
    w->trace = hash_mix(w->trace ^ hash64(bytes, tail->end));
    enum whole_record kind = whole_record_of(bytes, &closes);
    tail->has_rows[tail->end] = kind == WHOLE_ROWS;
    if (kind == WHOLE_ROWS)
        find_rows(w, partition, tail->end, bytes);
    if (kind == WHOLE_CUT && tail->has_cut && closes.generation == tail->closes.generation &&
        closes.offset == tail->closes.offset)
        whole_note(w, EVENT_CUT_LOST, partition, closes.offset);
    tail->has_cut = tail->has_cut || kind == WHOLE_CUT;
    tail->closes = kind == WHOLE_CUT ? closes : tail->closes;
}

static void follow(struct whole *w, uint32_t partition)
{
    struct whole_tail *tail = &w->tails[partition];
    struct brokers_sim_truth truth = brokers_sim_truth(w->brokers, TOPIC_DATA, partition);
    size_t count;
    const struct brokers_sim_back *backs = brokers_sim_backs(w->brokers, TOPIC_DATA, partition, &count);
    for (; tail->backs < count; tail->backs++) {
        lose(w, partition, &backs[tail->backs]);
        tail->end = backs[tail->backs].at < tail->end ? backs[tail->backs].at : tail->end;
    }
    for (; tail->end < truth.end_offset; tail->end++) {
        check(tail->end < TAIL_MAX);
        follow_one(w, tail, partition);
    }
}

static void judge_expiry(struct whole *w, uint32_t partition)
{
    struct whole_tail *tail = &w->tails[partition];
    uint64_t start = brokers_sim_truth(w->brokers, TOPIC_DATA, partition).start_offset;
    for (uint32_t i = 0; i < w->node_count; i++) {
        const struct whole_process *p = w->nodes[i].process;
        if (p == NULL || p->shards == NULL || w->has_gone_back)
            continue;
        uint64_t next = shards_partition_sum(p->shards, partition).next_offset;
        tail->committed = next > tail->committed ? next : tail->committed;
    }
    for (uint64_t at = tail->committed; at < start && at < tail->end && !w->has_gone_back; at++)
        if (tail->has_rows[at])
            whole_violate(w, "expiry: record %llu of partition %u is gone, the chain ends at %llu",
                          (unsigned long long)at, partition, (unsigned long long)tail->committed);
}

/* ---- replicas ---- */

static struct whole_fold fold_of(const struct whole_node *node, uint32_t partition)
{
    const struct whole_process *p = node->process;
    return p == NULL ? (struct whole_fold){ 0 } : whole_fold_of(p->shards, partition);
}

static void note_fold(struct whole *w, uint32_t partition, const struct whole_fold *fold)
{
    struct whole_tail *tail = &w->tails[partition];
    if (fold->is_open && fold->generation > tail->generation && tail->generation > 0)
        whole_note(w, EVENT_GENERATION, partition, fold->generation);
    if (fold->losses > tail->losses)
        whole_note(w, EVENT_LOSS_NAMED, partition, fold->losses);
    tail->generation = fold->generation > tail->generation ? fold->generation : tail->generation;
    tail->losses = fold->losses > tail->losses ? fold->losses : tail->losses;
}

/* Those that have read as much of the chain name the same segments. */
static void judge_partition(struct whole *w, uint32_t partition)
{
    struct whole_fold folds[NODES_MAX];
    for (uint32_t a = 0; a < w->node_count; a++) {
        folds[a] = fold_of(&w->nodes[a], partition);
        note_fold(w, partition, &folds[a]);
        for (uint32_t b = 0; b < a && folds[a].is_open; b++)
            if (folds[b].is_open && folds[a].next_number == folds[b].next_number &&
                folds[a].segments != folds[b].segments)
                whole_violate(
                    w, "replicas: nodes %u and %u fold the same chain of partition %u to other segments", a,
                    b, partition);
    }
}

static int64_t stats_first[2];

static void judge_replicas(struct whole *w)
{
    for (uint32_t p = 0; p < PARTITIONS; p++)
        judge_partition(w, p);
    if (stat_get(STAT_SHARD_DOUBTS) != stats_first[0] || stat_get(STAT_SYNC_DIFFERED) != stats_first[1])
        whole_violate(w, "replicas: two are said to differ");
}

/* ---- each tick ---- */

static void ask_now_and_then(struct whole *w)
{
    struct whole_node *node = &w->nodes[whole_below(w, w->node_count)];
    if (w->is_quiet || whole_now_ms() < w->query_at_ms)
        return;
    w->query_at_ms = whole_now_ms() + 500 + (int64_t)whole_below(w, 8000);
    if (node_is_alive(node) && node->process->is_ready)
        model_query(node, !whole_chance(w, 3));
}

void model_pass(struct whole *w)
{
    fold_control(w);
    ask_now_and_then(w);
    if (whole_now_ms() % LOOK_MS != 0)
        return;
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        follow(w, p);
        judge_expiry(w, p);
    }
    judge_replicas(w);
}

/* ---- at rest ---- */

static const char *unrest_of_node(struct whole *w, const struct whole_node *node)
{
    const struct member *m = members_find(w->members, slice_str(node->name));
    struct agent_view view;
    if (node->process == NULL || !node->process->is_ready || m == NULL || m->status != MEMBER_UP ||
        m->is_leaving || m->suspicion != UINT64_MAX)
        return "every node is up, stays, and is not suspected";
    agent_view(node->process->agent, &view);
    if (view.self.slot != m->id.slot || view.self.incarnation != m->id.incarnation ||
        !agent_may_decide(node->process->agent))
        return "every node knows itself as the log does, and decides";
    if (opener_waiting(node->process->opener) > 0)
        return "every partition is open where it is wanted";
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        bool is_assigned = members_is_assigned(w->members, p, m->id.slot);
        struct shard_status status = shards_partition_status(node->process->shards, p);
        if (member_owns(m, p) != is_assigned || (status.stage == SHARD_OPEN) != is_assigned)
            return "a partition is open and owned where it is assigned, and nowhere else";
        if (is_assigned && status.applied_offset != brokers_sim_truth(w->brokers, TOPIC_DATA, p).end_offset)
            return "owners have applied all of the log";
    }
    return NULL;
}

static const char *unrest_of_partition(struct whole *w, uint32_t partition)
{
    struct whole_fold first = { 0 };
    struct shard_sum sum = { 0 };
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct whole_fold fold = fold_of(&w->nodes[i], partition);
        if (!fold.is_open)
            continue;
        struct shard_sum own = shards_partition_sum(w->nodes[i].process->shards, partition);
        if (fold.waits)
            return "no range waits to be committed";
        if (!first.is_open) {
            first = fold;
            sum = own;
        }
        if (fold.next_number != first.next_number)
            return "all replicas have read all of the chain";
        if (!sum_equal(sum.sum, own.sum) || sum.generation != own.generation)
            return "all replicas have the same rows";
    }
    return first.is_open ? NULL : "every partition is open somewhere";
}

const char *model_unrest(struct whole *w)
{
    if (members_init(w->members) == NULL || members_assigned(w->members, 0) == NULL)
        return "the cluster has begun";
    for (uint32_t i = 0; i < w->node_count; i++) {
        const char *why = unrest_of_node(w, &w->nodes[i]);
        if (why != NULL)
            return why;
    }
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        const char *why = unrest_of_partition(w, p);
        if (why != NULL)
            return why;
    }
    return NULL;
}

bool model_last_queries(struct whole *w)
{
    bool all = true;
    for (uint32_t i = 0; i < w->node_count; i++) {
        if (!w->was_answered[i] && node_is_alive(&w->nodes[i]) && w->nodes[i].process->is_ready)
            model_query(&w->nodes[i], true);
        all = all && w->was_answered[i];
    }
    return all;
}

void model_judge_rest(struct whole *w)
{
    uint64_t stored = 0, answered = 0, nameless = 0;
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        for (uint32_t i = 0; i < w->node_count; i++)
            if (fold_of(&w->nodes[i], p).is_open) {
                stored += shards_partition_sum(w->nodes[i].process->shards, p).sum.count;
                break;
            }
    }
    for (uint32_t i = 0; i < w->row_count; i++) {
        const struct whole_row *row = &w->rows[i];
        bool is_seen = row->seen == w->answered_check;
        answered += is_seen;
        /* It used a number whose name the log lost, and who would have said it again died before. */
        nameless += !is_seen && w->has_gone_back && row->offset != UINT64_MAX && !is_named(w, row);
    }
    if (stored < answered || stored - answered > nameless)
        whole_violate(w, "at rest: %llu rows are stored, %llu answered, and %llu may have no name",
                      (unsigned long long)stored, (unsigned long long)answered, (unsigned long long)nameless);
}

void model_open(struct whole *w)
{
    void *at;
    check(pool_zalloc(w->pool, ROWS_MAX * sizeof *w->rows, &at) == OK);
    w->rows = at;
    check(pool_zalloc(w->pool, ATTEMPTS_MAX * sizeof *w->attempts, &at) == OK);
    w->attempts = at;
    check(pool_zalloc(w->pool, PARTITIONS * sizeof *w->tails, &at) == OK);
    w->tails = at;
    check(members_open(w->pool, &w->members) == OK);
    w->control_generation = brokers_sim_truth(w->brokers, TOPIC_CONTROL, 0).generation;
    stats_first[0] = stat_get(STAT_SHARD_DOUBTS);
    stats_first[1] = stat_get(STAT_SYNC_DIFFERED);
    for (uint32_t i = 0; i < SERIES; i++)
        labels_make(w, i);
}

void model_close(struct whole *w) { members_close(w->members); }
