/* Health, reload, snapshots, /metrics and the landing page.
 *
 * /metrics comes from the table of statistics (base/stat.h) and from what the node adds; its text form is
 * Prometheus' 0.0.4. */
#include "api/call.h"
#include "api/groups.h"

#include "base/stat.h"

void admin_healthy(void *context, struct net_request *request, struct net_response *response)
{
    call_text(response, 200, "Kelpie is healthy.");
}

/* False: answered with 503. */
static bool is_open(const struct api *api, struct net_response *response)
{
    char reason[API_REASON_BYTES_MAX] = "";
    if (call_is_open(api, reason))
        return true;
    call_text(response, 503, reason[0] != 0 ? reason : "Kelpie is not ready.");
    ERR_IGNORE(net_response_header(response, "Retry-After", "1")); /* the status says it already */
    return false;
}

void admin_ready(void *context, struct net_request *request, struct net_response *response)
{
    if (is_open(context, response))
        call_text(response, 200, "Kelpie is ready.");
}

void admin_reload(void *context, struct net_request *request, struct net_response *response)
{
    const struct api *api = context;
    struct err_at at = { 0 };
    if (!is_open(api, response))
        return;
    if (api->config.reload == NULL) {
        call_text(response, 403, "there is no configuration to reload");
        return;
    }
    err e = api->config.reload(api->config.context, &at);
    if (e == OK) {
        call_text(response, 200, "configuration reloaded");
        return;
    }
    response->status = 500; /* as Prometheus; nothing was changed */
    response->content_type = "text/plain; charset=utf-8";
    buf_printf(&response->body, "failed to reload config: %s\n", at.text[0] != 0 ? at.text : err_text(e));
}

void admin_snapshot(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    char name[API_SNAPSHOT_NAME_BYTES] = "";
    struct err_at at = { 0 };
    if (!call_begin(&call, context, request, response))
        return;
    const struct api_config *config = &call.api->config;
    err e = config->snapshot != NULL ? config->snapshot(config->context, name, &at) : ERR_UNSUPPORTED;
    if (e != OK) {
        call_fail_err(&call, e, &at);
        return;
    }
    struct json json = call_success(&call);
    json_open(&json, '{');
    json_key(&json, "name");
    json_str(&json, name);
    json_close(&json, '}');
    call_done(&call, &json);
}

void admin_confirm_retention(void *context, struct net_request *request, struct net_response *response)
{
    struct call call;
    int64_t cutoff_ms;
    struct err_at at = { 0 };
    if (!call_begin(&call, context, request, response))
        return;
    const struct api_config *config = &call.api->config;
    err e = config->confirm_retention != NULL ? config->confirm_retention(config->context, &cutoff_ms)
                                              : ERR_UNSUPPORTED;
    if (e == ERR_NOT_FOUND)
        ERR_IGNORE(err_set(&at, e, "no retention step waits for a confirmation"));
    if (e != OK) {
        call_fail_err(&call, e, &at);
        return;
    }
    struct json json = call_success(&call);
    json_open(&json, '{');
    json_key(&json, "cutoffMs");
    json_int(&json, cutoff_ms);
    json_close(&json, '}');
    call_done(&call, &json);
}

void admin_cluster(void *context, struct net_request *request, struct net_response *response)
{
    struct call call = { .api = context, .request = request, .response = response };
    const struct api_config *config = &call.api->config;
    struct err_at at = { 0 };
    if (config->cluster == NULL) {
        call_fail(&call, CALL_NOT_FOUND, "this node is in no cluster");
        return;
    }
    const struct api_cluster_order order = { .action = request->argument,
                                             .node = call_param(&call, "node"),
                                             .zone = call_param(&call, "zone"),
                                             .owner = call_param(&call, "owner"),
                                             .reason = call_param(&call, "reason"),
                                             .duration = call_param(&call, "duration"),
                                             .is_dry = slice_equal_str(call_param(&call, "dry_run"), "true"),
                                             .partition = call_param(&call, "partition"),
                                             .first = call_param(&call, "first"),
                                             .is_quick =
                                                 slice_equal_str(call_param(&call, "quick"), "true") };
    struct json json = call_success(&call);
    err e = config->cluster(config->context, &order, request->pool, &json, &at);
    if (e == OK) {
        call_done(&call, &json);
        return;
    }
    buf_clear(&response->body);
    call_fail_err(&call, e, &at);
}

void admin_health(void *context, struct net_request *request, struct net_response *response)
{
    struct call call = { .api = context, .request = request, .response = response };
    const struct api_config *config = &call.api->config;
    struct err_at at = { 0 };
    struct json json = call_success(&call);
    err e =
        config->health != NULL ? config->health(config->context, request->pool, &json, &at) : ERR_UNSUPPORTED;
    if (e == OK) {
        call_done(&call, &json);
        return;
    }
    buf_clear(&response->body);
    call_fail_err(&call, e, &at);
}

void admin_rpc(void *context, struct net_request *request, struct net_response *response)
{
    const struct api *api = context;
    if (api->config.rpc != NULL) {
        api->config.rpc(api->config.context, request, response);
        return;
    }
    response->status = 404;
    response->content_type = "text/plain";
    buf_put_str(&response->body, "this node is in no cluster\n");
}

void admin_metrics(void *context, struct net_request *request, struct net_response *response)
{
    const struct api *api = context;
    struct buf *out = &response->body;
    if (api->config.refresh != NULL)
        api->config.refresh(api->config.context);
    response->content_type = "text/plain; version=0.0.4; charset=utf-8";
    buf_put_str(out,
                "# HELP kelpie_build_info Version of the program; always 1.\n# TYPE kelpie_build_info gauge\n"
                "kelpie_build_info{version=\"" KELPIE_VERSION "\"} 1\n");
    for (size_t i = 0; i < STAT_COUNT; i++) {
        const struct stat_row *row = &stat_rows[i];
        buf_printf(out, "# HELP kelpie_%s %s\n# TYPE kelpie_%s %s\nkelpie_%s %lld\n", row->name, row->help,
                   row->name, row->type == STAT_COUNTER ? "counter" : "gauge", row->name,
                   (long long)stat_get((enum stat)i));
    }
    if (api->config.metrics_text != NULL)
        api->config.metrics_text(api->config.context, out);
}

static const char page[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Kelpie</title>\n"
    "<style>body{font:16px/1.5 sans-serif;max-width:44em;margin:3em auto;padding:0 1em;color:#123}"
    "code{background:#eef;padding:0 .3em}</style></head><body>\n"
    "<h1>Kelpie " KELPIE_VERSION "</h1>\n"
    "<p>A store for telemetry. It speaks Prometheus' API: add it to Grafana as a Prometheus data source, and "
    "send"
    " to it with <code>remote_write</code> at <code>/api/v1/write</code>.</p>\n"
    "<form action=\"/api/v1/query\"><input name=\"query\" size=\"48\" placeholder=\"up\" "
    "aria-label=\"PromQL\">"
    " <button>Query</button></form>\n"
    "<ul>\n<li><a href=\"/metrics\">/metrics</a>: how this node is doing</li>\n"
    "<li><a href=\"/api/v1/targets\">/api/v1/targets</a>: what it scrapes</li>\n"
    "<li><a href=\"/api/v1/status/tsdb\">/api/v1/status/tsdb</a>: cardinality</li>\n"
    "<li><a href=\"/api/v1/status/config\">/api/v1/status/config</a>: the configuration in force</li>\n"
    "<li><a href=\"/-/ready\">/-/ready</a>, <a href=\"/-/healthy\">/-/healthy</a></li>\n</ul>\n"
    "</body></html>\n";

void admin_landing(void *context, struct net_request *request, struct net_response *response)
{
    if (!is_open(context, response))
        return;
    response->content_type = "text/html; charset=utf-8";
    buf_put_str(&response->body, page);
}
