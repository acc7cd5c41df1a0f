/* /api/v1/series, labels, label/NAME/values, query_exemplars: reads of names and labels.
 *
 * match[] parameters, or an expression's selectors → one source request each → union. A call takes a query slot as
 * queries do, because a match over all series is as dear as one. Source: Prometheus web/api/v1/api.go.
 *
 * Invariant: proofs are joined after the last read of a set, which is when it knows what could not be read. */
#include "api/answer.h"
#include "api/groups.h"
#include "api/params.h"

#include "base/time.h"
#include "model/labels.h"

#include <stdlib.h>

/* The parsed match[] of a call. */
struct match {
    struct promql_expr **exprs; /* regexes of the selectors; closed by match_done */
    struct source_request *requests;
    size_t count;
};

static void match_done(struct match *match)
{
    for (size_t i = 0; i < match->count; i++)
        promql_expr_done(match->exprs[i]);
    match->count = 0;
}

static size_t match_count(const struct net_request *request)
{
    size_t count = 0;
    for (size_t i = 0; i < request->param_count; i++)
        count += slice_equal_str(request->params[i].name, "match[]");
    return count;
}

static void request_fill(struct query *query, struct time_range range, struct source_request *request)
{
    *request = (struct source_request){
        .tenant = query_tenant(query),
        .range = range,
        .series_max = query_series_max(query),
        .guard = query_guard(query),
    };
}

static err match_add(struct query *query, struct slice text, struct time_range range, struct match *match,
                     struct err_at *at)
{
    struct promql_expr *expr;
    struct promql_selector *selectors;
    size_t selector_count;
    TRY(promql_parse_selector(text, query_pool(query), &expr, at));
    err e = promql_selectors(expr, query_pool(query), &selectors, &selector_count);
    if (e != OK || selector_count != 1) {
        promql_expr_done(expr);
        return e != OK ? e : err_set(at, ERR_INPUT, "a series selector is expected");
    }
    struct source_request *request = &match->requests[match->count];
    request_fill(query, range, request);
    request->matchers = selectors[0].matchers;
    request->matcher_count = selectors[0].matcher_count;
    match->exprs[match->count++] = expr;
    return OK;
}

/* Room for count selectors. */
static err match_open(struct query *query, size_t count, struct match *match)
{
    void *room;
    *match = (struct match){ 0 };
    TRY(pool_alloc(query_pool(query), (count + 1) * sizeof *match->requests, &room));
    match->requests = room;
    TRY(pool_alloc(query_pool(query), (count + 1) * sizeof *match->exprs, &room));
    match->exprs = room;
    return OK;
}

/* Parse every match[]. False: answered, the query has ended. */
static bool match_parse(struct call *call, struct query *query, struct time_range range, struct match *match)
{
    struct err_at at = { 0 };
    size_t count = match_count(call->request);
    bool too_many = count > ANSWER_SETS_MAX;
    err e = match_open(query, too_many ? 0 : count, match); /* match_done takes it in every case */
    if (too_many)
        e = err_set(&at, ERR_INPUT, "more than %d selectors", ANSWER_SETS_MAX);
    for (size_t i = 0; e == OK && i < call->request->param_count; i++)
        if (slice_equal_str(call->request->params[i].name, "match[]"))
            e = match_add(query, call->request->params[i].value, range, match, &at);
    if (e == OK)
        return true;
    e = query_release(query, e, &at);
    if (is_bad_expression(e, &at))
        call_fail_expression(call, "match[]", &at);
    else
        call_fail_err(call, e, &at);
    match_done(match);
    query_end(query);
    return false;
}

/* start and end, by default everything. False: answered. */
static bool read_range(struct call *call, struct time_range *out_range)
{
    *out_range = (struct time_range){ TIME_MS_MIN, TIME_MS_MAX };
    if (!call_time(call, "start", &out_range->min_ms) || !call_time(call, "end", &out_range->max_ms))
        return false;
    if (out_range->min_ms <= out_range->max_ms)
        return true;
    call_fail(call, CALL_BAD_DATA,
              "invalid parameter \"end\": end timestamp must not be before start timestamp");
    return false;
}

/* ---- series ---- */

/* Select all requests into answer->sets. */
static err select_all(struct answer *answer, const struct source_request *requests, size_t count)
{
    struct query *query = answer->query;
    struct source *source = query_source(query);
    void *room;
    TRY(pool_alloc(query_pool(query), (count + 1) * sizeof *answer->sets, &room));
    answer->sets = room;
    for (size_t i = 0; i < count; i++) {
        TRY(source->table->select(source, &requests[i], query_pool(query), &answer->sets[i]));
        answer->set_count++;
    }
    return OK;
}

/* The union of the sets' proofs, after their last read. */
static err join_proofs(struct answer *answer)
{
    const struct source_table *table = query_source(answer->query)->table;
    void *room;
    TRY(pool_alloc(query_pool(answer->query), sizeof(struct proof), &room));
    struct proof *proof = room;
    *proof = (struct proof){ .complete = true };
    answer->proof = proof;
    for (size_t i = 0; i < answer->set_count; i++)
        TRY(proof_join(proof, table->set_proof(answer->sets[i]), query_pool(answer->query)));
    return OK;
}

/* Append copies of a set's label sets. */
static err add_labels(struct answer *answer, struct source_set *set, struct slice *labels, size_t *count)
{
    struct pool *pool = query_pool(answer->query);
    const struct source_table *table = query_source(answer->query)->table;
    struct source_reader *reader;
    struct buf text = buf_open(pool, LABELS_BYTES_MAX);
    TRY(table->reader_open(set, &reader));
    err e = OK;
    for (size_t i = 0; i < table->set_count(set) && e == OK; i++) {
        if (i % 1024 == 0)
            TRY_OUT(guard_check(query_guard(answer->query)));
        buf_clear(&text);
        TRY_OUT(table->read_labels(reader, i, &text));
        TRY_OUT(pool_copy(pool, buf_slice(&text), &labels[(*count)++]));
    }
out:
    table->reader_close(reader);
    buf_close(&text);
    return e;
}

/* The series of all sets: the labels of each set's in its order, set after set; `order` sorts them. */
struct found {
    struct slice *labels;
    uint32_t *order;
    size_t count;
};

static err find_all(struct answer *answer, struct found *found)
{
    const struct source_table *table = query_source(answer->query)->table;
    size_t total = 0;
    void *room;
    for (size_t i = 0; i < answer->set_count; i++)
        total += table->set_count(answer->sets[i]);
    TRY(pool_alloc(query_pool(answer->query), (total + 1) * sizeof(struct slice), &room));
    *found = (struct found){ .labels = room };
    for (size_t i = 0; i < answer->set_count; i++)
        TRY(add_labels(answer, answer->sets[i], found->labels, &found->count));
    return labels_order(found->labels, (uint32_t)found->count, query_pool(answer->query), &found->order);
}

/* Is the k-th in order the same series as the one before it, in another set? */
static bool is_again(const struct found *found, size_t k)
{
    return k > 0 && slice_equal(found->labels[found->order[k - 1]], found->labels[found->order[k]]);
}

/* The union of the sets' series, sorted, at most limit (0 = all) of them. */
static err collect_labels(struct answer *answer, uint64_t limit)
{
    struct found found;
    size_t kept = 0;
    void *room;
    TRY(find_all(answer, &found));
    TRY(pool_alloc(query_pool(answer->query), (found.count + 1) * sizeof(struct slice), &room));
    struct slice *labels = room;
    for (size_t k = 0; k < found.count; k++)
        if (!is_again(&found, k))
            labels[kept++] = found.labels[found.order[k]];
    answer->is_truncated = limit != 0 && kept > limit;
    answer->labels = labels;
    answer->item_count = answer->is_truncated ? limit : kept;
    return OK;
}

/* Answer a failed read; the query ends. */
static void fail_read(struct call *call, struct answer *answer, err e)
{
    struct err_at at = { 0 };
    e = query_release(answer->query, e, &at);
    call_fail_err(call, e, &at);
    answer_drop(answer);
}

void prom_series(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    struct time_range range;
    struct match match;
    uint64_t limit = 0;
    if (!call_begin(&call, context, request, response) || !call_limit(&call, "limit", &limit) ||
        !read_range(&call, &range))
        return;
    if (match_count(request) == 0) {
        call_fail(&call, CALL_BAD_DATA, "no match[] parameter provided");
        return;
    }
    struct query *query = call_query(&call, request->target);
    if (query == NULL || !match_parse(&call, query, range, &match))
        return;
    struct answer *answer = answer_open(&call, query);
    if (answer == NULL) {
        match_done(&match);
        return;
    }
    err e = select_all(answer, match.requests, match.count);
    match_done(&match);
    if (e == OK)
        e = collect_labels(answer, limit);
    if (e == OK)
        e = join_proofs(answer);
    if (e != OK)
        fail_read(&call, answer, e);
    else
        answer_send(&call, answer, answer->item_count * 64);
}

/* ---- label names and values ---- */

/* name empty: label names; else the values of that label. */
static void send_texts(struct call *call, struct slice name)
{
    struct time_range range;
    struct match match;
    uint64_t limit = 0;
    if (!call_limit(call, "limit", &limit) || !read_range(call, &range))
        return;
    struct query *query = call_query(call, call->request->target);
    if (query == NULL || !match_parse(call, query, range, &match))
        return;
    struct answer *answer = answer_open(call, query);
    if (answer == NULL) {
        match_done(&match);
        return;
    }
    struct source *source = query_source(query);
    struct slice *texts = NULL;
    size_t count = match.count;
    size_t ask = limit != 0 && limit < SIZE_MAX ? (size_t)limit + 1 : 0; /* one more tells: truncated */
    void *room;
    if (count == 0) /* no selector: everything in the range, and the range travels in a request */
        request_fill(query, range, &match.requests[count++]);
    err e = pool_zalloc(query_pool(query), sizeof(struct proof), &room);
    struct proof *proof = room;
    if (e == OK && name.len == 0)
        e = source->table->label_names(source, match.requests, count, ask, query_pool(query), &texts,
                                       &answer->item_count, proof);
    else if (e == OK)
        e = source->table->label_values(source, name, match.requests, count, ask, query_pool(query), &texts,
                                        &answer->item_count, proof);
    match_done(&match);
    if (e != OK) {
        answer->item_count = 0;
        fail_read(call, answer, e);
        return;
    }
    answer->texts = texts;
    answer->proof = proof;
    answer->is_truncated = limit != 0 && answer->item_count > limit;
    if (answer->is_truncated)
        answer->item_count = limit;
    answer_send(call, answer, answer->item_count * 8);
}

void prom_labels(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    if (call_begin(&call, context, request, response))
        send_texts(&call, slice_of("", 0));
}

void prom_label_values(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    struct slice name;
    if (!call_begin(&call, context, request, response))
        return;
    if (param_unescape_name(request->argument, request->pool, &name) != OK) {
        call_fail_err(&call, ERR_LIMIT, NULL);
        return;
    }
    if (name.len == 0 || name.len > LABELS_BYTES_MAX || !utf8_valid(name)) {
        call_fail(&call, CALL_BAD_DATA, "invalid label name: \"%.*s\"",
                  (int)(name.len < 200 ? name.len : 200), (const char *)name.at);
        return;
    }
    send_texts(&call, name);
}

/* ---- exemplars ---- */

/* Select the series of every selector of the expression. */
static err select_expression(struct answer *answer, struct promql_expr *expr, struct time_range range,
                             struct err_at *at)
{
    struct query *query = answer->query;
    struct promql_selector *selectors;
    size_t count;
    void *room;
    TRY(promql_selectors(expr, query_pool(query), &selectors, &count));
    if (count > ANSWER_SETS_MAX)
        return err_set(at, ERR_INPUT, "more than %d selectors", ANSWER_SETS_MAX);
    TRY(pool_alloc(query_pool(query), (count + 1) * sizeof(struct source_request), &room));
    struct source_request *requests = room;
    for (size_t i = 0; i < count; i++) {
        request_fill(query, range, &requests[i]);
        requests[i].matchers = selectors[i].matchers;
        requests[i].matcher_count = selectors[i].matcher_count;
    }
    return select_all(answer, requests, count);
}

static void put_exemplars(struct json *json, struct slice labels, const struct source_exemplar *exemplars,
                          size_t count)
{
    json_open(json, '{');
    json_labels(json_key(json, "seriesLabels"), labels);
    json_open(json_key(json, "exemplars"), '[');
    for (size_t i = 0; i < count; i++) {
        json_open(json, '{');
        json_labels(json_key(json, "labels"), exemplars[i].labels);
        json_value(json_key(json, "value"), exemplars[i].value);
        json_time(json_key(json, "timestamp"), exemplars[i].t_ms);
        json_close(json, '}');
    }
    json_close(json, ']');
    json_close(json, '}');
}

/* The series that have exemplars, each once, sorted by labels. */
static err write_exemplars(struct answer *answer, struct json *json)
{
    struct query *query = answer->query;
    const struct source_table *table = query_source(query)->table;
    struct found found;
    TRY(find_all(answer, &found));
    for (size_t k = 0; k < found.count; k++) {
        struct source_exemplar *exemplars;
        size_t count, set = 0, series = found.order[k];
        if (is_again(&found, k))
            continue;
        for (; series >= table->set_count(answer->sets[set]); set++)
            series -= table->set_count(answer->sets[set]);
        TRY(guard_check(query_guard(query)));
        TRY(table->set_exemplars(answer->sets[set], series, query_pool(query), &exemplars, &count));
        if (count > 0)
            put_exemplars(json, found.labels[found.order[k]], exemplars, count);
    }
    return OK;
}

void prom_query_exemplars(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    struct time_range range;
    struct err_at at = { 0 };
    struct promql_expr *expr;
    if (!call_begin(&call, context, request, response) || !read_range(&call, &range))
        return;
    struct slice text = call_param(&call, "query");
    struct query *query = call_query(&call, text);
    if (query == NULL)
        return;
    struct answer *answer = answer_open(&call, query);
    if (answer == NULL)
        return;
    err e = promql_parse(text, query_pool(query), &expr, &at);
    if (e == OK) {
        e = select_expression(answer, expr, range, &at);
        promql_expr_done(expr);
    }
    struct json json = call_success(&call);
    if (e == OK) {
        json_open(&json, '[');
        e = write_exemplars(answer, &json);
        json_close(&json, ']');
    }
    if (e == OK)
        e = join_proofs(answer);
    e = query_release(query, e, &at);
    if (e == OK)
        answer_finish(&call, answer, &json);
    else if (is_bad_expression(e, &at))
        call_fail_expression(&call, "query", &at);
    else
        call_fail_err(&call, e, &at);
    answer_drop(answer);
}
