/* Answers: whole, their items written by several threads when there is something to write; very long ones in
 * pieces. See answer.h.
 *
 * The server asks for the next piece (answer_next) from the connection's thread. Between pieces the
 * whole state is the few counters of struct answer: stage, item, part, point.
 *
 *   HEAD ─→ ITEMS ─(item == item_count)→ TAIL ─→ ERR_END, then answer_done
 *   parts of a matrix item: 0 metric → 1 values → 2 histograms → next item
 *
 * Invariants
 *  1. A piece ends between tokens at PIECE_BYTES or a little later: one label set and one histogram more. What
 *     stands behind the items goes into a piece that is not full. So a piece stays below NET_CHUNK_BYTES_MAX.
 *  2. Rows of histograms are skipped among the values: both lists ascend, `histogram` is the first
 *     entry at or behind `point`.
 *  3. The slot of the query is given back before the first byte is sent: a slow reader blocks nobody. */
#include "api/answer.h"

#include "base/stat.h"
#include "model/histogram.h"

#include <math.h>
#include <stdio.h>

#define PIECE_BYTES       (64u << 10)
#define DIRECT_WEIGHT_MAX (64u << 10) /* about 1.6 MB of JSON: one body with a length */
#define POINT_BYTES       24
#define PARTS_MAX         8
#define PART_WEIGHT_MIN   1024 /* points that take about as long as to wake a thread */

enum stage { STAGE_HEAD, STAGE_ITEMS, STAGE_TAIL };
enum part { PART_METRIC, PART_VALUES, PART_HISTOGRAMS };

struct answer *answer_open(struct call *call, struct query *query)
{
    void *room;
    err e = pool_zalloc(query_pool(query), sizeof(struct answer), &room);
    if (e != OK) {
        struct err_at at = { 0 };
        e = query_release(query, e, &at);
        query_end(query);
        call_fail_err(call, e, &at);
        return NULL;
    }
    struct answer *answer = room;
    answer->query = query;
    answer->wants_proof = call->wants_proof;
    answer->wants_stats = call_param(call, "stats").len != 0;
    return answer;
}

void answer_drop(struct answer *answer)
{
    if (answer == NULL)
        return;
    pool_close(answer->scratch);
    const struct source_table *table = query_source(answer->query)->table;
    for (size_t i = 0; i < answer->set_count; i++)
        table->set_close(answer->sets[i]);
    query_end(answer->query);
}

/* ---- samples ---- */

static err write_histogram(struct answer *answer, int64_t t_ms, struct slice bytes)
{
    struct json *json = &answer->json;
    struct histogram histogram;
    struct histogram_bucket *buckets;
    size_t bucket_count;
    if (answer->scratch == NULL)
        answer->scratch = pool_open(query_pool(answer->query), "answer", POOL_BYTES_UNLIMITED);
    pool_reset(answer->scratch);
    TRY(histogram_decode(bytes, answer->scratch, &histogram));
    TRY(histogram_buckets(&histogram, answer->scratch, &buckets, &bucket_count));

    json_open(json, '[');
    json_time(json, t_ms);
    json_open(json, '{');
    json_value(json_key(json, "count"),
               histogram.is_float ? histogram.count_float : (double)histogram.count_int);
    json_value(json_key(json, "sum"), histogram.sum);
    if (bucket_count > 0) {
        json_open(json_key(json, "buckets"), '[');
        for (size_t i = 0; i < bucket_count; i++) {
            json_open(json, '[');
            json_uint(json, buckets[i].boundaries);
            json_value(json, buckets[i].lower);
            json_value(json, buckets[i].upper);
            json_value(json, buckets[i].count);
            json_close(json, ']');
        }
        json_close(json, ']');
    }
    json_close(json, '}');
    json_close(json, ']');
    return OK;
}

static err write_vector_item(struct answer *answer)
{
    const struct promql_series *series = &answer->series[answer->item];
    struct json *json = &answer->json;
    json_open(json, '{');
    json_labels(json_key(json, "metric"), series->labels);
    if (series->histogram_count > 0) {
        json_key(json, "histogram");
        TRY(write_histogram(answer, series->t_ms[0], series->histograms[0].bytes));
    } else {
        json_point(json_key(json, "value"), series->t_ms[0], series->values[0]);
    }
    json_close(json, '}');
    answer->item++;
    return OK;
}

static bool piece_is_full(const struct answer *answer)
{
    return answer->next_in_pieces && answer->json.out->len >= PIECE_BYTES;
}

static void write_values(struct answer *answer, const struct promql_series *series)
{
    struct json *json = &answer->json;
    for (; answer->point < series->count && !piece_is_full(answer); answer->point++) {
        while (answer->histogram < series->histogram_count &&
               series->histograms[answer->histogram].row < answer->point)
            answer->histogram++;
        bool is_histogram = answer->histogram < series->histogram_count &&
                            series->histograms[answer->histogram].row == answer->point;
        if (!is_histogram)
            json_point(json, series->t_ms[answer->point], series->values[answer->point]);
    }
}

/* As much of one series as fits the piece. */
static err write_matrix_item(struct answer *answer)
{
    const struct promql_series *series = &answer->series[answer->item];
    struct json *json = &answer->json;
    bool has_values = series->count > series->histogram_count;
    if (answer->part == PART_METRIC) {
        json_open(json, '{');
        json_labels(json_key(json, "metric"), series->labels);
        if (has_values)
            json_open(json_key(json, "values"), '[');
        answer->point = answer->histogram = 0;
        answer->part = PART_VALUES;
    }
    if (answer->part == PART_VALUES) {
        if (has_values) {
            write_values(answer, series);
            if (answer->point < series->count)
                return OK;
            json_close(json, ']');
        }
        answer->histogram = 0;
        if (series->histogram_count > 0)
            json_open(json_key(json, "histograms"), '[');
        answer->part = PART_HISTOGRAMS;
    }
    for (; answer->histogram < series->histogram_count; answer->histogram++) {
        if (piece_is_full(answer))
            return OK;
        const struct sample_histogram *h = &series->histograms[answer->histogram];
        TRY(write_histogram(answer, series->t_ms[h->row], h->bytes));
    }
    if (series->histogram_count > 0)
        json_close(json, ']');
    json_close(json, '}');
    answer->part = PART_METRIC;
    answer->item++;
    return OK;
}

static err write_item(struct answer *answer)
{
    if (answer->result_type != NULL && strcmp(answer->result_type, "matrix") == 0)
        return write_matrix_item(answer);
    if (answer->series != NULL)
        return write_vector_item(answer);
    if (answer->labels != NULL)
        json_labels(&answer->json, answer->labels[answer->item]);
    else
        json_string(&answer->json, answer->texts[answer->item]);
    answer->item++;
    return OK;
}

/* ---- around them ---- */

static bool is_pair(const struct answer *answer)
{
    return answer->result_type != NULL &&
           (strcmp(answer->result_type, "scalar") == 0 || strcmp(answer->result_type, "string") == 0);
}

static void write_head(struct answer *answer)
{
    struct json *json = &answer->json;
    json_open(json, '{');
    json_str(json_key(json, "status"), "success");
    json_key(json, "data");
    if (answer->result_type != NULL) {
        json_open(json, '{');
        json_str(json_key(json, "resultType"), answer->result_type);
        json_key(json, "result");
    }
    json_open(json, '[');
    if (!is_pair(answer))
        return;
    json_time(json, answer->t_ms);
    if (strcmp(answer->result_type, "scalar") == 0)
        json_value(json, answer->scalar);
    else
        json_string(json, answer->string);
}

static void write_seconds(struct json *json, const char *name, int64_t ns)
{
    json_seconds(json_key(json, name), (double)ns / 1e9);
}

static void write_stats(struct answer *answer)
{
    struct json *json = &answer->json;
    const struct query_times *times = &answer->times;
    json_open(json_key(json, "stats"), '{');
    json_open(json_key(json, "timings"), '{');
    write_seconds(json, "evalTotalTime", times->parse_ns + times->eval_ns);
    write_seconds(json, "resultSortTime", 0);
    write_seconds(json, "queryPreparationTime", times->parse_ns);
    write_seconds(json, "innerEvalTime", times->eval_ns);
    write_seconds(json, "execQueueTime", times->queue_ns);
    write_seconds(json, "execTotalTime", times->queue_ns + times->parse_ns + times->eval_ns);
    json_close(json, '}');
    json_open(json_key(json, "samples"), '{');
    json_uint(json_key(json, "totalQueryableSamples"), answer->samples);
    json_uint(json_key(json, "peakSamples"), answer->samples);
    json_close(json, '}');
    json_open(json_key(json, "received"), '{');
    json_uint(json_key(json, "rowsBytes"), answer->rows_bytes);
    json_uint(json_key(json, "groupsBytes"), answer->groups_bytes);
    json_close(json, '}');
    json_close(json, '}');
}

static void write_texts(struct json *json, const char *name, const struct slice *texts, size_t count,
                        const char *last)
{
    if (count == 0 && last == NULL)
        return;
    json_open(json_key(json, name), '[');
    for (size_t i = 0; i < count; i++)
        json_string(json, texts[i]);
    if (last != NULL)
        json_str(json, last);
    json_close(json, ']');
}

static void write_proof(struct json *json, const struct proof *proof)
{
    json_open(json_key(json, "kelpie"), '{');
    json_bool(json_key(json, "complete"), proof->complete);
    json_time(json_key(json, "dataThrough"), proof->data_through_ms);
    json_open(json_key(json, "partitions"), '[');
    for (size_t i = 0; i < proof->partition_count; i++) {
        const struct proof_partition *p = &proof->partitions[i];
        json_open(json, '{');
        json_uint(json_key(json, "partition"), p->partition);
        json_uint(json_key(json, "generation"), p->generation);
        json_uint(json_key(json, "applied"), p->applied_offset);
        json_uint(json_key(json, "end"), p->end_offset);
        if (p->node > 0)
            json_uint(json_key(json, "node"), p->node - 1);
        json_close(json, '}');
    }
    json_close(json, ']');
    json_open(json_key(json, "missing"), '[');
    for (size_t i = 0; i < proof->missing_count; i++) {
        const struct proof_missing *m = &proof->missing[i];
        json_open(json, '{');
        json_uint(json_key(json, "partition"), m->partition);
        json_str(json_key(json, "reason"), m->reason);
        json_time(json_key(json, "from"), m->range.min_ms);
        json_time(json_key(json, "to"), m->range.max_ms);
        json_close(json, '}');
    }
    json_close(json, ']');
    json_close(json, '}');
}

static void write_tail(struct answer *answer)
{
    struct json *json = &answer->json;
    json_close(json, ']');
    if (answer->result_type != NULL) {
        if (answer->wants_stats)
            write_stats(answer);
        json_close(json, '}');
    }
    write_texts(json, "warnings", answer->warnings, answer->warning_count,
                answer->is_truncated ? "results truncated due to limit" : NULL);
    write_texts(json, "infos", answer->infos, answer->info_count, NULL);
    if (answer->wants_proof && answer->proof != NULL)
        write_proof(json, answer->proof);
    json_close(json, '}');
}

static err answer_next(void *context, struct buf *chunk)
{
    struct answer *answer = context;
    answer->json.out = chunk;
    if (answer->stage == STAGE_HEAD) {
        write_head(answer);
        answer->stage = STAGE_ITEMS;
    }
    while (answer->stage == STAGE_ITEMS) {
        if (answer->item == answer->item_count)
            answer->stage = STAGE_TAIL;
        else if (piece_is_full(answer))
            return buf_err(chunk);
        else
            TRY(write_item(answer));
    }
    if (piece_is_full(answer))
        return buf_err(chunk);
    write_tail(answer);
    return buf_err(chunk) != OK ? buf_err(chunk) : ERR_END;
}

static void answer_done(void *context) { answer_drop(context); }

/* ---- all at once ---- */

/* Items [from, to) of an answer, written by themselves. */
struct answer_part {
    struct pool *pool;
    struct buf text;
    size_t from, to;
    err e;
};

struct answer_parts {
    const struct answer *answer;
    struct answer_part parts[PARTS_MAX];
    size_t count;
};

/* Parts of about the same number of points. */
static void parts_cut(struct answer_parts *parts, uint64_t weight)
{
    const struct answer *answer = parts->answer;
    uint64_t done = 0, count = weight / PART_WEIGHT_MIN < PARTS_MAX ? weight / PART_WEIGHT_MIN : PARTS_MAX;
    parts->parts[0].from = 0;
    for (size_t i = 0; i < answer->item_count; i++) {
        done += answer->series != NULL ? answer->series[i].count : 1;
        bool is_last = i + 1 == answer->item_count;
        if (!is_last && done < weight * (parts->count + 1) / count)
            continue;
        parts->parts[parts->count++].to = i + 1;
        if (is_last || parts->count == PARTS_MAX)
            break;
        parts->parts[parts->count].from = i + 1;
    }
    parts->parts[parts->count - 1].to = answer->item_count;
}

static void part_write(void *context, size_t index)
{
    struct answer_parts *parts = context;
    struct answer_part *part = &parts->parts[index];
    struct answer answer = *parts->answer;
    part->pool = pool_open(query_pool(answer.query), "answer_part", POOL_BYTES_UNLIMITED);
    part->text = buf_open(part->pool, parts->answer->json.out->max);
    answer.json = (struct json){ .out = &part->text, .comma = part->from > 0 };
    answer.scratch = NULL;
    answer.item = part->from;
    answer.item_count = part->to;
    while (part->e == OK && answer.item < answer.item_count)
        part->e = write_item(&answer);
    pool_close(answer.scratch);
    if (part->e == OK)
        part->e = buf_err(&part->text);
}

/* The items of a long answer, by as many threads as help. */
static err write_parts(struct answer *answer, uint64_t weight)
{
    struct answer_parts parts = { .answer = answer };
    err e = OK;
    parts_cut(&parts, weight);
    query_run(answer->query, parts.count, part_write, &parts);
    for (size_t i = 0; i < parts.count; i++) {
        if (e == OK)
            e = parts.parts[i].e;
        if (e == OK)
            buf_put_slice(answer->json.out, buf_slice(&parts.parts[i].text));
        buf_close(&parts.parts[i].text);
        pool_close(parts.parts[i].pool);
    }
    answer->item = answer->item_count;
    answer->json.comma = true;
    return e;
}

static err write_whole(struct answer *answer, struct buf *out, uint64_t weight)
{
    if (weight <= DIRECT_WEIGHT_MAX)
        (void)buf_room(out, weight * POINT_BYTES); /* without it the body grows by itself, or says so */
    if (weight >= 2 * PART_WEIGHT_MIN && answer->item_count > 1) {
        answer->json.out = out;
        write_head(answer);
        answer->stage = STAGE_TAIL;
        TRY(write_parts(answer, weight));
    }
    err e = answer_next(answer, out);
    return e == ERR_END ? OK : e;
}

/* ---- headers ---- */

static void missing_text(const struct proof *proof, char out[ANSWER_MISSING_HEADER_BYTES_MAX])
{
    size_t len = 0;
    out[0] = 0;
    for (size_t i = 0; i < proof->missing_count; i++) {
        const struct proof_missing *m = &proof->missing[i];
        char entry[160];
        int entry_len =
            snprintf(entry, sizeof entry, "%s%s partition=%u from=%.3f to=%.3f", i == 0 ? "" : "; ",
                     m->reason, m->partition, (double)m->range.min_ms / 1000, (double)m->range.max_ms / 1000);
        if (len + (size_t)entry_len + 32 > ANSWER_MISSING_HEADER_BYTES_MAX) {
            snprintf(out + len, 32, "; and %zu more", proof->missing_count - i);
            return;
        }
        memcpy(out + len, entry, (size_t)entry_len + 1);
        len += (size_t)entry_len;
    }
}

/* False: refused, answered. */
static bool put_proof_headers(struct call *call, const struct proof *proof)
{
    char missing[ANSWER_MISSING_HEADER_BYTES_MAX];
    if (proof == NULL)
        return true;
    missing_text(proof, missing);
    if (!proof->complete)
        stat_add(STAT_QUERIES_INCOMPLETE, 1);
    if (!proof->complete && call->is_partial_denied) {
        call_fail(call, CALL_UNAVAILABLE, "the answer would be incomplete: %s", missing);
        return false;
    }
    /* Without memory for a header there is none for the answer either. */
    ERR_IGNORE(net_response_header(call->response, "X-Kelpie-Complete", proof->complete ? "true" : "false"));
    if (missing[0] != 0)
        ERR_IGNORE(net_response_header(call->response, "X-Kelpie-Missing", missing));
    return true;
}

void answer_send(struct call *call, struct answer *answer, uint64_t weight)
{
    struct net_response *response = call->response;
    ERR_IGNORE(query_release(answer->query, OK, NULL));
    if (!put_proof_headers(call, answer->proof)) {
        answer_drop(answer);
        return;
    }
    response->content_type = "application/json";
    if (weight > DIRECT_WEIGHT_MAX) {
        answer->next_in_pieces = true;
        response->next = answer_next;
        response->next_context = answer;
        response->done = answer_done;
        return;
    }
    err e = write_whole(answer, &response->body, weight);
    if (e != OK)
        call_fail_err(call, e, NULL);
    answer_drop(answer);
}

void answer_finish(struct call *call, const struct answer *answer, struct json *json)
{
    if (!put_proof_headers(call, answer->proof))
        return;
    if (answer->wants_proof)
        write_proof(json, answer->proof);
    call_done(call, json);
}
