/* POST /api/v1/write (remote write 1.0 and 2.0) and /api/v1/import/prometheus (exposition text).
 *
 * Headers and body → ingest, which blocks until the rows are durable → status, headers and a text/plain
 * line a kind of trouble. The decision what a status means to the sender is ingest's; the only one made
 * here is not to ask it when the node takes no writes (starting, disk full). */
#include "api/call.h"
#include "api/groups.h"
#include "api/params.h"

#include "base/stat.h"
#include "codec/gzip.h"
#include "ingest/ingest.h"

#include <stdio.h>

static void put_number_header(struct net_response *response, const char *name, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    ERR_IGNORE(net_response_header(response, name, text)); /* the status alone is an answer, too */
}

/* Tenant, or an empty slice: answered. */
static struct slice write_tenant(const struct net_request *request, struct net_response *response)
{
    struct slice tenant = net_request_header(request, "X-Scope-OrgID");
    if (tenant.len == 0)
        return slice_str("default");
    if (tenant_valid(tenant))
        return tenant;
    call_text(response, 400, "invalid X-Scope-OrgID");
    return slice_of(NULL, 0);
}

/* May rows be taken now? False: answered. */
static bool intake_is_open(const struct api *api, struct net_response *response)
{
    char reason[API_REASON_BYTES_MAX] = "";
    const struct api_config *config = &api->config;
    if (!call_is_open(api, reason)) {
        stat_add(STAT_WRITES_REFUSED, 1);
        call_text(response, 503, reason);
        put_number_header(response, "Retry-After", 1);
        return false;
    }
    if (config->ingest == NULL) {
        call_text(response, 503, "this node takes no writes");
        return false;
    }
    err e = config->intake != NULL ? config->intake(config->context, reason) : OK;
    if (e == OK)
        return true;
    stat_add(STAT_WRITES_REFUSED, 1);
    call_text(response, e == ERR_SPACE ? 507 : 503, reason[0] != 0 ? reason : err_text(e));
    put_number_header(response, "Retry-After", e == ERR_SPACE ? 30 : 5);
    return false;
}

static void answer_result(struct net_response *response, const struct ingest_result *result)
{
    if (result->status == 204 && result->text_len == 0)
        response->status = 204;
    else
        call_text(response, (unsigned)result->status, result->text);
    if (result->retry_after_s > 0)
        put_number_header(response, "Retry-After", (uint64_t)result->retry_after_s);
    if (result->token_len > 0)
        ERR_IGNORE(net_response_header(response, TOKEN_HEADER, result->token)); /* what is written stays so */
    if (!result->has_written_headers)
        return;
    put_number_header(response, "X-Prometheus-Remote-Write-Samples-Written", result->samples);
    put_number_header(response, "X-Prometheus-Remote-Write-Histograms-Written", result->histograms);
    put_number_header(response, "X-Prometheus-Remote-Write-Exemplars-Written", result->exemplars);
}

void prom_write(void *context, struct net_request *request, struct net_response *response)
{
    const struct api *api = context;
    struct slice tenant = write_tenant(request, response);
    if (tenant.len == 0 || !intake_is_open(api, response))
        return;
    struct ingest_result result;
    ingest_remote_write(api->config.ingest, tenant, net_request_header(request, "Content-Type"),
                        net_request_header(request, "Content-Encoding"), request->body, &result);
    answer_result(response, &result);
}

/* The body of a text import, decompressed into *room if need be. False: answered. */
static bool import_body(const struct net_request *request, struct net_response *response, struct buf *room,
                        struct slice *out_body)
{
    struct slice encoding = net_request_header(request, "Content-Encoding");
    *out_body = request->body;
    if (encoding.len == 0 || slice_equal_str(encoding, "identity"))
        return true;
    if (!slice_equal_str(encoding, "gzip")) {
        call_text(response, 415, "unsupported Content-Encoding: gzip or none is expected");
        return false;
    }
    err e = gzip_decompress(request->body, room);
    *out_body = buf_slice(room);
    if (e == OK)
        return true;
    call_text(response, e == ERR_LIMIT ? 413 : 400,
              e == ERR_LIMIT ? "the decompressed body is larger than 256 MB" : "the body is not valid gzip");
    return false;
}

void prom_import(void *context, struct net_request *request, struct net_response *response)
{
    const struct api *api = context;
    struct slice tenant = write_tenant(request, response);
    if (tenant.len == 0 || !intake_is_open(api, response))
        return;
    struct slice body;
    struct buf room = buf_open(request->pool, API_IMPORT_BYTES_MAX);
    if (import_body(request, response, &room, &body)) {
        struct ingest_result result;
        ingest_import_text(api->config.ingest, tenant, net_request_header(request, "Content-Type"), body,
                           request->body.len, &result);
        answer_result(response, &result);
    }
    buf_close(&room);
}
