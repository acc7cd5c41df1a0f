/* /api/v1/metadata, targets, rules, alerts, status/…: what Grafana and people ask about the node itself.
 *
 * Small answers, written whole into the response's body. Rules and alerts do not exist yet: their lists are
 * empty, which is a valid answer and lets Grafana go on. buildinfo has no `features`: Grafana would take
 * the node for Mimir. Shapes: Prometheus web/api/v1/api.go. */
#include "api/call.h"
#include "api/groups.h"

#include "base/time.h"
#include "model/source.h"

#include <stdio.h>
#include <stdlib.h>

/* The version of Prometheus whose API is spoken: clients switch features on by it (label matchers from
 * 2.24, UTF-8 names from 3.0). */
#define PROMETHEUS_VERSION "3.14.0"

static void json_rfc3339(struct json *json, int64_t t_ms)
{
    char text[TIME_TEXT_BYTES];
    time_print(t_ms, text);
    json_str(json, text);
}

/* ---- metadata ---- */

static int by_family(const void *a, const void *b)
{
    const struct source_metadata *x = a, *y = b;
    int order = slice_compare(x->family, y->family);
    return order != 0 ? order : slice_compare(x->type, y->type);
}

static void write_family(struct json *json, const struct source_metadata *rows, size_t count)
{
    json_open(json_key_slice(json, rows[0].family), '[');
    for (size_t i = 0; i < count; i++) {
        json_open(json, '{');
        json_string(json_key(json, "type"), rows[i].type);
        json_string(json_key(json, "help"), rows[i].help);
        json_string(json_key(json, "unit"), rows[i].unit);
        json_close(json, '}');
    }
    json_close(json, ']');
}

static void write_metadata(struct call *call, struct source_metadata *rows, size_t count, uint64_t limit,
                           uint64_t limit_per_metric)
{
    struct json json = call_success(call);
    json_open(&json, '{');
    if (count > 1)
        qsort(rows, count, sizeof *rows, by_family);
    uint64_t family_count = 0;
    for (size_t from = 0, to; from < count && (limit == 0 || family_count < limit);
         from = to, family_count++) {
        for (to = from + 1; to < count && slice_equal(rows[to].family, rows[from].family); to++)
            ;
        size_t shown = to - from;
        if (limit_per_metric != 0 && shown > limit_per_metric)
            shown = limit_per_metric;
        write_family(&json, rows + from, shown);
    }
    json_close(&json, '}');
    call_done(call, &json);
}

void prom_metadata(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    uint64_t limit = 0, limit_per_metric = 0;
    if (!call_begin(&call, context, request, response) || !call_limit(&call, "limit", &limit) ||
        !call_limit(&call, "limit_per_metric", &limit_per_metric))
        return;
    struct query *query = call_query(&call, request->target);
    if (query == NULL)
        return;
    struct source *source = query_source(query);
    struct source_metadata *rows = NULL;
    size_t count = 0;
    err e = source->table->metadata(source, call.tenant, call_param(&call, "metric"), query_pool(query),
                                    &rows, &count);
    struct err_at at = { 0 };
    e = query_release(query, e, &at);
    if (e == OK)
        write_metadata(&call, rows, count, limit, limit_per_metric);
    else
        call_fail_err(&call, e, &at);
    query_end(query);
}

/* ---- status ---- */

static void write_counts(struct json *json, const char *name, const struct source_name_count *rows,
                         size_t count)
{
    json_open(json_key(json, name), '[');
    for (size_t i = 0; i < count; i++) {
        json_open(json, '{');
        json_string(json_key(json, "name"), rows[i].name);
        json_uint(json_key(json, "value"), rows[i].count);
        json_close(json, '}');
    }
    json_close(json, ']');
}

static void write_cardinality(struct call *call, const struct source_cardinality *c)
{
    struct json json = call_success(call);
    json_open(&json, '{');
    json_open(json_key(&json, "headStats"), '{');
    json_uint(json_key(&json, "numSeries"), c->series_count);
    json_uint(json_key(&json, "numLabelPairs"), c->label_pair_count);
    json_uint(json_key(&json, "chunkCount"), 0); /* there are none: rows lie in columns */
    json_int(json_key(&json, "minTime"), c->range.min_ms);
    json_int(json_key(&json, "maxTime"), c->range.max_ms);
    json_close(&json, '}');
    write_counts(&json, "seriesCountByMetricName", c->by_metric, c->by_metric_count);
    write_counts(&json, "labelValueCountByLabelName", c->by_label, c->by_label_count);
    write_counts(&json, "memoryInBytesByLabelName", c->bytes_by_label, c->bytes_by_label_count);
    write_counts(&json, "seriesCountByLabelValuePair", c->by_pair, c->by_pair_count);
    json_close(&json, '}');
    call_done(call, &json);
}

void prom_status_tsdb(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    uint64_t limit = 10;
    if (!call_begin(&call, context, request, response) || !call_limit(&call, "limit", &limit))
        return;
    if (limit < 1 || limit > API_TSDB_LIMIT_MAX) {
        call_fail(&call, CALL_BAD_DATA, "limit must be a positive number of at most %d", API_TSDB_LIMIT_MAX);
        return;
    }
    struct query *query = call_query(&call, request->target);
    if (query == NULL)
        return;
    struct source *source = query_source(query);
    struct source_cardinality cardinality = { 0 };
    err e = source->table->cardinality(source, call.tenant, limit, query_pool(query), &cardinality);
    struct err_at at = { 0 };
    e = query_release(query, e, &at);
    if (e == OK)
        write_cardinality(&call, &cardinality);
    else
        call_fail_err(&call, e, &at);
    query_end(query);
}

void prom_status_buildinfo(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    if (!call_begin(&call, context, request, response))
        return;
    struct json json = call_success(&call);
    json_open(&json, '{');
    json_str(json_key(&json, "version"), PROMETHEUS_VERSION);
    json_str(json_key(&json, "revision"), "");
    json_str(json_key(&json, "branch"), "");
    json_str(json_key(&json, "buildUser"), "");
    json_str(json_key(&json, "buildDate"), "");
    json_str(json_key(&json, "goVersion"), "");
    json_str(json_key(&json, "kelpieVersion"), KELPIE_VERSION);
    json_close(&json, '}');
    call_done(&call, &json);
}

void prom_status_runtimeinfo(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    if (!call_begin(&call, context, request, response))
        return;
    const struct api_config *config = &call.api->config;
    char retention[32];
    snprintf(retention, sizeof retention, "%llds", (long long)(config->retention_ms / MS_PER_SECOND));
    struct json json = call_success(&call);
    json_open(&json, '{');
    json_rfc3339(json_key(&json, "startTime"), config->start_ms);
    json_rfc3339(json_key(&json, "serverTime"), io_now_ms(config->io));
    json_str(json_key(&json, "CWD"), config->data_directory != NULL ? config->data_directory : "");
    json_bool(json_key(&json, "reloadConfigSuccess"), true);
    json_rfc3339(json_key(&json, "lastConfigTime"), config->start_ms);
    json_uint(json_key(&json, "corruptionCount"), 0);
    json_uint(json_key(&json, "goroutineCount"), 0);
    json_uint(json_key(&json, "GOMAXPROCS"), io_cpu_count(config->io));
    json_str(json_key(&json, "GOGC"), "");
    json_str(json_key(&json, "GODEBUG"), "");
    json_str(json_key(&json, "storageRetention"), config->retention_ms > 0 ? retention : "");
    json_close(&json, '}');
    call_done(&call, &json);
}

void prom_status_flags(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    if (!call_begin(&call, context, request, response))
        return;
    struct buf flags = buf_open(request->pool, 1u << 16);
    if (call.api->config.flags != NULL)
        call.api->config.flags(call.api->config.context, &flags);
    struct json json = call_success(&call);
    json_open(&json, '{');
    for (size_t i = 0; i < flags.len;) { /* name NUL value NUL, written by the node itself */
        size_t value = i + strnlen((const char *)flags.at + i, flags.len - i) + 1;
        if (value >= flags.len)
            break;
        size_t value_len = strnlen((const char *)flags.at + value, flags.len - value);
        json_string(json_key_slice(&json, slice_of(flags.at + i, value - i - 1)),
                    slice_of(flags.at + value, value_len));
        i = value + value_len + 1;
    }
    json_close(&json, '}');
    call_done(&call, &json);
    buf_close(&flags);
}

void prom_status_config(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    if (!call_begin(&call, context, request, response))
        return;
    struct buf text = buf_open(request->pool, 16u << 20);
    if (call.api->config.config_text != NULL)
        call.api->config.config_text(call.api->config.context, &text);
    struct json json = call_success(&call);
    json_open(&json, '{');
    json_string(json_key(&json, "yaml"), buf_slice(&text));
    json_close(&json, '}');
    call_done(&call, &json);
    buf_close(&text);
}

/* ---- targets, rules, alerts ---- */

/* The two lists, written side by side: asked twice, the node might count a target in both or in neither. */
struct target_lists {
    struct json active, dropped;
    bool wants_active, wants_dropped;
};

static void write_active(struct json *json, const struct api_target *target)
{
    char text[32];
    json_labels(json_key(json, "labels"), target->labels);
    json_string(json_key(json, "scrapePool"), target->job);
    json_string(json_key(json, "scrapeUrl"), target->url);
    json_string(json_key(json, "globalUrl"), target->url);
    json_string(json_key(json, "lastError"), target->error);
    json_rfc3339(json_key(json, "lastScrape"), target->scraped_ms);
    json_seconds(json_key(json, "lastScrapeDuration"), (double)target->took_ns / 1e9);
    json_str(json_key(json, "health"), target->health);
    snprintf(text, sizeof text, "%gs", (double)target->interval_ms / 1000);
    json_str(json_key(json, "scrapeInterval"), text);
    snprintf(text, sizeof text, "%gs", (double)target->timeout_ms / 1000);
    json_str(json_key(json, "scrapeTimeout"), text);
}

static void target_add(void *to, const struct api_target *target)
{
    struct target_lists *lists = to;
    struct json *json = target->is_dropped ? &lists->dropped : &lists->active;
    if (!(target->is_dropped ? lists->wants_dropped : lists->wants_active))
        return;
    json_open(json, '{');
    json_labels(json_key(json, "discoveredLabels"), target->discovered);
    if (!target->is_dropped)
        write_active(json, target);
    json_close(json, '}');
}

void prom_targets(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    if (!call_begin(&call, context, request, response))
        return;
    const struct api_config *config = &call.api->config;
    struct slice state = call_param(&call, "state");
    struct json json = call_success(&call);
    struct buf dropped = buf_open(request->pool, response->body.max);
    struct target_lists lists = { .dropped = json_begin(&dropped),
                                  .wants_active = !slice_equal_str(state, "dropped"),
                                  .wants_dropped = !slice_equal_str(state, "active") };
    json_open(&json, '{');
    json_open(json_key(&json, "activeTargets"), '[');
    lists.active = json;
    if (config->targets != NULL)
        config->targets(config->context, request->pool, target_add, &lists);
    json = lists.active;
    json_close(&json, ']');
    json_open(json_key(&json, "droppedTargets"), '[');
    buf_put_slice(json.out, buf_slice(&dropped));
    json_close(&json, ']');
    json_open(json_key(&json, "droppedTargetCounts"), '{');
    json_close(&json, '}');
    json_close(&json, '}');
    call_done(&call, &json);
    if (buf_err(&dropped) != OK)
        call_fail_err(&call, buf_err(&dropped), NULL);
    buf_close(&dropped);
}

/* data: an object of empty lists. */
static void empty_lists(void *context, struct net_request *request, struct net_response *response,
                        const char *first, const char *second)
{
    struct call call;
    if (!call_begin(&call, context, request, response))
        return;
    struct json json = call_success(&call);
    json_open(&json, '{');
    json_open(json_key(&json, first), '[');
    json_close(&json, ']');
    if (second != NULL) {
        json_open(json_key(&json, second), '[');
        json_close(&json, ']');
    }
    json_close(&json, '}');
    call_done(&call, &json);
}

void prom_rules(void *context, struct net_request *request, struct net_response *response)
{
    empty_lists(context, request, response, "groups", NULL);
}

void prom_alerts(void *context, struct net_request *request, struct net_response *response)
{
    empty_lists(context, request, response, "alerts", NULL);
}

void prom_alertmanagers(void *context, struct net_request *request, struct net_response *response)
{
    empty_lists(context, request, response, "activeAlertmanagers", "droppedAlertmanagers");
}
