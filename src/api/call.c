/* Calls: tenant, parameters, errors. See call.h.
 *
 * Data comes from a net_request (everything in it is input from outside, already bounded by the server) and
 * goes into a net_response. Invariant: a function that returns false or NULL has filled the response.
 * Source of names, statuses and texts: Prometheus web/api/v1/api.go. */
#include "api/call.h"

#include "api/params.h"
#include "base/check.h"
#include "model/labels.h"

#include <stdarg.h>
#include <stdio.h>

#define CALL_TEXT_BYTES_MAX 2048
#define JSON_TYPE           "application/json"

struct call_error_row {
    const char *name;
    unsigned status;
};

static const struct call_error_row error_rows[CALL_ERROR_COUNT] = {
#define CALL_ERROR_ROW(id, text, code) [id] = { .name = text, .status = code },
    CALL_ERROR_LIST(CALL_ERROR_ROW)
#undef CALL_ERROR_ROW
};

void call_fail(struct call *call, enum call_error error, const char *format, ...)
{
    char text[CALL_TEXT_BYTES_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);

    struct net_response *response = call->response;
    buf_clear(&response->body);
    response->status = error_rows[error].status;
    response->content_type = JSON_TYPE;
    struct json json = json_begin(&response->body);
    json_open(&json, '{');
    json_key(&json, "status");
    json_str(&json, "error");
    json_key(&json, "errorType");
    json_str(&json, error_rows[error].name);
    json_key(&json, "error");
    json_str(&json, text);
    json_close(&json, '}');
    if (response->status == 503)
        ERR_IGNORE(net_response_header(response, "Retry-After", "5")); /* an answer without it is fine too */
}

void call_text(struct net_response *response, unsigned status, const char *text)
{
    size_t len = strlen(text);
    buf_clear(&response->body);
    response->status = status;
    response->content_type = "text/plain; charset=utf-8";
    buf_put(&response->body, text, len);
    if (len == 0 || text[len - 1] != '\n')
        buf_put_u8(&response->body, '\n');
}

static enum call_error error_of(err e)
{
    switch (e) {
    case ERR_INPUT:
        return CALL_BAD_DATA;
    case ERR_EXECUTION:
    case ERR_LIMIT:
    case ERR_UNSUPPORTED:
        return CALL_EXECUTION;
    case ERR_TIMEOUT:
        return CALL_TIMEOUT;
    case ERR_CANCELED:
        return CALL_CANCELED;
    case ERR_BUSY:
    case ERR_CLOSED:
        return CALL_UNAVAILABLE;
    case ERR_NOT_FOUND:
        return CALL_NOT_FOUND;
    default:
        return CALL_INTERNAL;
    }
}

static const char *text_of(err e)
{
    switch (e) {
    case ERR_TIMEOUT:
        return "query timed out in expression evaluation";
    case ERR_CANCELED:
        return "query was canceled in expression evaluation";
    case ERR_LIMIT:
        return "query processing would need more memory than one query may have";
    case ERR_BUSY:
        return "other queries have the memory that is left for queries; try again";
    default:
        return err_text(e);
    }
}

void call_fail_err(struct call *call, err e, const struct err_at *at)
{
    check(e != OK);
    const char *text = at != NULL && at->text[0] != 0 ? at->text : text_of(e);
    call_fail(call, error_of(e), "%s", text);
}

void call_fail_param(struct call *call, const char *name, const struct err_at *at)
{
    call_fail(call, CALL_BAD_DATA, "invalid parameter \"%s\": %s", name, at->text);
}

void call_fail_expression(struct call *call, const char *name, const struct err_at *at)
{
    if (at->line != 0)
        call_fail(call, CALL_BAD_DATA, "invalid parameter \"%s\": %u:%u: parse error: %s", name, at->line,
                  at->column, at->text);
    else
        call_fail(call, CALL_BAD_DATA, "invalid parameter \"%s\": %s", name, at->text);
}

struct slice call_param(const struct call *call, const char *name)
{
    struct slice value = slice_of("", 0);
    if (!net_request_param(call->request, name, &value))
        return slice_of("", 0);
    return value;
}

bool call_is_open(const struct api *api, char *reason)
{
    return api->config.is_ready == NULL || api->config.is_ready(api->config.context, reason);
}

bool call_begin(struct call *call, void *context, struct net_request *request, struct net_response *response)
{
    char reason[API_REASON_BYTES_MAX] = "";
    *call = (struct call){ .api = context, .request = request, .response = response };
    if (!call_is_open(call->api, reason)) {
        call_fail(call, CALL_UNAVAILABLE, "%s", reason);
        return false;
    }
    call->tenant = net_request_header(request, "X-Scope-OrgID");
    if (call->tenant.len == 0)
        call->tenant = slice_str("default");
    if (!tenant_valid(call->tenant)) {
        call_fail(call, CALL_BAD_DATA,
                  "invalid X-Scope-OrgID: 1 to %d letters, digits and !-_.*'() are allowed",
                  TENANT_BYTES_MAX);
        return false;
    }
    struct slice partial = call_param(call, "partial");
    call->is_partial_denied = slice_equal_str(partial, "deny");
    if (partial.len != 0 && !call->is_partial_denied && !slice_equal_str(partial, "allow")) {
        call_fail(call, CALL_BAD_DATA, "invalid parameter \"partial\": must be \"allow\" or \"deny\"");
        return false;
    }
    struct slice consistency = net_request_header(call->request, CONSISTENCY_HEADER);
    call->is_strong = slice_equal_str(consistency, "strong");
    if (consistency.len != 0 && !call->is_strong) {
        call_fail(call, CALL_BAD_DATA, "invalid " CONSISTENCY_HEADER ": must be \"strong\"");
        return false;
    }
    call->wants_proof =
        param_is_true(call_param(call, "proof")) || slice_equal_str(call_param(call, "stats"), "all");
    return true;
}

bool call_time(struct call *call, const char *name, int64_t *out_t_ms)
{
    struct slice text = call_param(call, name);
    struct err_at at = { 0 };
    if (text.len == 0 || param_time(text, out_t_ms, &at) == OK)
        return true;
    call_fail_param(call, name, &at);
    return false;
}

bool call_duration(struct call *call, const char *name, int64_t *out_ms)
{
    struct slice text = call_param(call, name);
    struct err_at at = { 0 };
    if (text.len == 0 || param_duration(text, out_ms, &at) == OK)
        return true;
    call_fail_param(call, name, &at);
    return false;
}

bool call_limit(struct call *call, const char *name, uint64_t *out_limit)
{
    struct slice text = call_param(call, name);
    if (text.len == 0 || param_uint(text, out_limit) == OK)
        return true;
    call_fail(call, CALL_BAD_DATA, "invalid parameter \"%s\": limit must be non-negative", name);
    return false;
}

static bool client_gone(void *context) { return net_request_canceled(context); }

struct query *call_query(struct call *call, struct slice text)
{
    struct query_options options = {
        .tenant = call->tenant,
        .text = text,
        .need = { call->is_strong, net_request_header(call->request, TOKEN_HEADER) },
        .is_canceled = client_gone,
        .context = call->request,
    };
    if (!call_duration(call, "timeout", &options.timeout_ms) ||
        !call_duration(call, "lookback_delta", &options.lookback_ms))
        return NULL;
    struct query *query;
    struct err_at at = { 0 };
    err e = query_begin(call->api->config.queries, &options, &query, &at);
    if (e != OK) {
        call_fail_err(call, e == ERR_LIMIT ? ERR_BUSY : e, &at); /* memory of others: try again */
        return NULL;
    }
    return query;
}

struct json call_success(struct call *call)
{
    call->response->content_type = JSON_TYPE;
    struct json json = json_begin(&call->response->body);
    json_open(&json, '{');
    json_key(&json, "status");
    json_str(&json, "success");
    json_key(&json, "data");
    return json;
}

void call_done(struct call *call, struct json *json)
{
    json_close(json, '}');
    if (buf_err(&call->response->body) != OK)
        call_fail(call, CALL_EXECUTION, "the answer is larger than a response may be");
}
