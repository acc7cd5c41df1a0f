/* /api/v1/query and /api/v1/query_range.
 *
 * Parameters → query slot → query_evaluate → answer. Checks and texts in the order of Prometheus' handlers
 * (web/api/v1/api.go: query, queryRange), which clients' tests rely on. */
#include "api/answer.h"
#include "api/groups.h"

struct range_params {
    int64_t start_ms, end_ms, step_ms; /* step 0: instant */
    uint64_t limit;
};

static uint64_t weight_of(const struct promql_result *result)
{
    uint64_t weight = 0;
    for (size_t i = 0; i < result->series_count; i++)
        weight += 8 + result->series[i].count + 40 * result->series[i].histogram_count;
    return weight;
}

/* Fill the answer from the result. */
static void fill(struct answer *answer, const struct promql_result *result, const struct range_params *range)
{
    answer->result_type = promql_type_name(result->type);
    answer->t_ms = range->end_ms;
    answer->scalar = result->scalar;
    answer->string = result->string;
    answer->series = result->series;
    answer->item_count = result->series_count;
    if (range->limit != 0 && answer->item_count > range->limit) {
        answer->item_count = range->limit;
        answer->is_truncated = true;
    }
    answer->warnings = result->warnings;
    answer->warning_count = result->warning_count;
    answer->infos = result->infos;
    answer->info_count = result->info_count;
    answer->samples = result->stats.samples_loaded;
    answer->proof = &result->proof;
}

static void run(struct call *call, const struct range_params *range)
{
    struct slice text = call_param(call, "query");
    struct query *query = call_query(call, text);
    if (query == NULL)
        return;
    struct answer *answer = answer_open(call, query);
    if (answer == NULL)
        return;
    void *room;
    struct err_at at = { 0 };
    err e = pool_zalloc(query_pool(query), sizeof(struct promql_result), &room);
    struct promql_result *result = room;
    if (e == OK)
        e = query_evaluate(query, text, range->start_ms, range->end_ms, range->step_ms, result,
                           &answer->times, &at);
    if (e != OK) {
        e = query_release(query, e, &at);
        if (is_bad_expression(e, &at))
            call_fail_expression(call, "query", &at);
        else
            call_fail_err(call, e, &at);
        answer_drop(answer);
        return;
    }
    fill(answer, result, range);
    answer->rows_bytes = atomic_load(&query_guard(query)->rows_bytes);
    answer->groups_bytes = atomic_load(&query_guard(query)->groups_bytes);
    answer_send(call, answer, weight_of(result));
}

void prom_query(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    struct range_params range = { 0 };
    if (!call_begin(&call, context, request, response))
        return;
    range.start_ms = io_now_ms(call.api->config.io);
    if (!call_limit(&call, "limit", &range.limit) || !call_time(&call, "time", &range.start_ms))
        return;
    range.end_ms = range.start_ms;
    run(&call, &range);
}

/* A time that must be there. */
static bool needed_time(struct call *call, const char *name, int64_t *out_t_ms)
{
    if (call_param(call, name).len != 0)
        return call_time(call, name, out_t_ms);
    call_fail(call, CALL_BAD_DATA, "invalid parameter \"%s\": cannot parse \"\" to a valid timestamp", name);
    return false;
}

static bool range_step(struct call *call, struct range_params *range)
{
    if (call_param(call, "step").len == 0) {
        call_fail(call, CALL_BAD_DATA, "invalid parameter \"step\": cannot parse \"\" to a valid duration");
        return false;
    }
    if (!call_duration(call, "step", &range->step_ms))
        return false;
    if (range->step_ms <= 0) {
        call_fail(call, CALL_BAD_DATA,
                  "invalid parameter \"step\": zero or negative query resolution step widths"
                  " are not accepted. Try a positive integer");
        return false;
    }
    if ((range->end_ms - range->start_ms) / range->step_ms > API_RANGE_POINTS_MAX) {
        call_fail(call, CALL_BAD_DATA,
                  "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing"
                  " the query resolution (?step=XX)");
        return false;
    }
    return true;
}

void prom_query_range(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    struct range_params range = { 0 };
    if (!call_begin(&call, context, request, response))
        return;
    if (!call_limit(&call, "limit", &range.limit) || !needed_time(&call, "start", &range.start_ms) ||
        !needed_time(&call, "end", &range.end_ms))
        return;
    if (range.end_ms < range.start_ms) {
        call_fail(&call, CALL_BAD_DATA,
                  "invalid parameter \"end\": end timestamp must not be before start time");
        return;
    }
    if (range_step(&call, &range))
        run(&call, &range);
}
