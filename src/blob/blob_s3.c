/* The S3 driver of the object store: one object per key, below a prefix of a bucket. From: callers of blob.h. To:
 * s3_fetch.c and s3_upload.c. Here: opening, the table, handles.
 *
 * Invariants
 * 1. Handles hold no connection: any number may be open. What they read is the object that they opened, or one of
 *    equal bytes in its place: its ETag is sent along.
 * 2. Every call enters the gate before it allocates, and leaves it when its buffers are gone.
 * 3. The secret key is kept by s3_credentials.c alone; no text of an error holds it. */
#include "blob/blob.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "blob/s3.h"
#include "io/io.h"

#define CONNECTIONS_MAX 256

struct s3_handle {
    struct blob_handle base;
    struct pool *pool;
    struct s3_version version; /* of the store's lock */
    char key[];
};

/* A call that is inside the gate. */
struct call {
    struct s3_store *s;
    bool is_file;
    struct s3_result r;
};

static err enter(struct blob *blob, bool is_file, struct call *out)
{
    struct s3_store *s = (struct s3_store *)blob;
    err e = s3_gate_enter(&s->gate, is_file, s->config.retry_ms, s->config.abort);
    if (e != OK) {
        struct err_at why;
        ERR_IGNORE(
            err_set(&why, e, "%s", e == ERR_BUSY ? "as many calls as may run at a time do" : "canceled"));
        return s3_ended(s, e, &why);
    }
    out->s = s;
    out->is_file = is_file;
    s3_result_open(s, &out->r);
    return OK;
}

/* Returns how the call ended. */
static err leave(struct call *call, err e)
{
    e = s3_ended(call->s, e, &call->r.why);
    s3_result_close(&call->r);
    s3_gate_leave(&call->s->gate, call->is_file);
    return e;
}

static err blob_s3_put(struct blob *blob, const char *key, struct slice bytes)
{
    struct call call;
    TRY(enter(blob, false, &call));
    return leave(&call, s3_put(call.s, key, bytes, true, &call.r));
}

static err blob_s3_replace(struct blob *blob, const char *key, struct slice bytes)
{
    struct call call;
    TRY(enter(blob, false, &call));
    return leave(&call, s3_put(call.s, key, bytes, false, &call.r));
}

static err blob_s3_put_file(struct blob *blob, const char *key, const char *temp_path)
{
    struct call call;
    TRY(enter(blob, true, &call));
    return leave(&call, s3_put_file(call.s, key, temp_path, true, &call.r));
}

static err blob_s3_replace_file(struct blob *blob, const char *key, const char *temp_path)
{
    struct call call;
    TRY(enter(blob, true, &call));
    return leave(&call, s3_put_file(call.s, key, temp_path, false, &call.r));
}

static err ask(struct call *call, const char *key)
{
    struct s3_patience patience = { 0 };
    return s3_head(call->s, key, true, &call->r, &patience);
}

static err blob_s3_size(struct blob *blob, const char *key, uint64_t *out_size)
{
    struct call call;
    TRY(enter(blob, false, &call));
    err e = ask(&call, key);
    if (e == OK)
        *out_size = (uint64_t)call.r.response.content_bytes;
    return leave(&call, e);
}

static err blob_s3_open(struct blob *blob, const char *key, struct blob_handle **out_handle)
{
    struct call call;
    struct pool *pool;
    void *at;
    TRY(enter(blob, false, &call));
    err e = ask(&call, key);
    if (e == OK)
        e = pool_open_object(call.s->pool, "blob_handle", sizeof(struct s3_handle) + strlen(key) + 1, &pool,
                             &at);
    if (e == OK) {
        const struct s3_response *seen = &call.r.response;
        struct s3_handle *handle = at;
        handle->base = (struct blob_handle){ .blob = blob, .size = (uint64_t)seen->content_bytes };
        handle->pool = pool;
        handle->version.size = handle->base.size;
        memcpy(handle->version.etag, seen->etag, sizeof handle->version.etag);
        memcpy(handle->version.sha256, seen->sha256, sizeof handle->version.sha256);
        memcpy(handle->key, key, strlen(key) + 1);
        *out_handle = &handle->base;
    }
    return leave(&call, e);
}

static void blob_s3_handle_close(struct blob_handle *base) { pool_close(((struct s3_handle *)base)->pool); }

static err blob_s3_read(struct blob_handle *base, uint64_t offset, void *at, size_t len)
{
    struct s3_handle *handle = (struct s3_handle *)base;
    struct call call;
    if (offset > base->size || len > base->size - offset)
        return ERR_END;
    TRY(enter(base->blob, false, &call));
    return leave(&call, s3_read(call.s, handle->key, &handle->version, offset, at, len, &call.r));
}

static err blob_s3_get(struct blob *blob, const char *key, size_t bytes_max, struct pool *pool,
                       struct slice *out_bytes)
{
    struct call call;
    TRY(enter(blob, false, &call));
    return leave(&call, s3_get(call.s, key, bytes_max, pool, out_bytes, &call.r));
}

static err blob_s3_list(struct blob *blob, const char *prefix, struct pool *pool,
                        struct blob_entry **out_entries, size_t *out_count)
{
    struct call call;
    TRY(enter(blob, false, &call));
    return leave(&call, s3_list(call.s, prefix, pool, out_entries, out_count, &call.r));
}

/* A store says the same of a key that was there and of one that was not, so it is asked first. */
static err blob_s3_delete(struct blob *blob, const char *key)
{
    struct call call;
    TRY(enter(blob, false, &call));
    err e = ask(&call, key);
    if (e == OK) {
        struct s3_call request = { .method = "DELETE", .key = key, .answer_bytes_max = S3_ERROR_BYTES_MAX };
        e = s3_do(call.s, &request, &call.r);
    }
    return leave(&call, e);
}

/* Of a range nobody checked the bytes on their way. */
static bool blob_s3_doubt(struct blob *blob, const char *key) { return true; }

static void blob_s3_close(struct blob *blob)
{
    struct s3_store *s = (struct s3_store *)blob;
    s3_credentials_close(s->credentials);
    s->transport->close(s->transport);
    s3_gate_done(&s->gate);
    io_mutex_done(&s->lock);
    pool_close(s->pool);
}

static const struct blob_driver s3_driver = {
    .close = blob_s3_close,
    .put = blob_s3_put,
    .replace = blob_s3_replace,
    .put_file = blob_s3_put_file,
    .replace_file = blob_s3_replace_file,
    .open_handle = blob_s3_open,
    .handle_close = blob_s3_handle_close,
    .read = blob_s3_read,
    .get = blob_s3_get,
    .size = blob_s3_size,
    .list = blob_s3_list,
    .delete_ = blob_s3_delete,
    .doubt = blob_s3_doubt,
};

void blob_s3_last_failure(struct blob *blob, struct err_at *out_at)
{
    struct s3_store *s = (struct s3_store *)blob;
    check(blob->driver == &s3_driver);
    io_mutex_lock(&s->lock);
    *out_at = s->last_failure;
    io_mutex_unlock(&s->lock);
}

/* ---- opening ---- */

struct blob_s3_config blob_s3_defaults(void)
{
    return (struct blob_s3_config){ .endpoint = "",
                                    .bucket = "",
                                    .prefix = "",
                                    .region = "us-east-1",
                                    .profile = "default",
                                    .metadata_url = "http://169.254.169.254",
                                    .request_ms = 10000,
                                    .retry_ms = 30000,
                                    .backoff_ms = 100,
                                    .retries_per_minute = 120,
                                    .connections_max = 16,
                                    .part_bytes = 16u << 20 };
}

static bool is_of(const char *text, size_t len_min, size_t len_max, const char *more)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) &&
            strchr(more, c) == NULL)
            return false;
    }
    return len >= len_min && len <= len_max;
}

/* "https://host:port" → scheme and what Host says; a port that the scheme means anyway is left out, as clients
 * do. */
static err take_endpoint(struct s3_store *s, const char *endpoint, struct err_at *at)
{
    char host[S3_HOST_BYTES_MAX];
    const char *rest = strstr(endpoint, "://");
    size_t scheme_len = rest == NULL ? 0 : (size_t)(rest - endpoint);
    bool is_https = scheme_len == 5 && memcmp(endpoint, "https", 5) == 0;
    bool is_http = scheme_len == 4 && memcmp(endpoint, "http", 4) == 0;
    int len = rest == NULL ? -1 : snprintf(host, sizeof host, "%s", rest + 3);
    if ((!is_http && !is_https) || len <= 0 || len >= (int)sizeof host)
        return err_set(at, ERR_INPUT, "the endpoint %.100s is not http://HOST or https://HOST", endpoint);
    if (host[len - 1] == '/')
        host[len - 1] = 0;
    if (!is_of(host, 1, sizeof host - 1, ".-:[]"))
        return err_set(at, ERR_INPUT, "the endpoint %.100s has more than a host and a port", endpoint);
    char *colon = strrchr(host, ':');
    if (colon != NULL && strchr(colon, ']') == NULL) {
        char *end;
        long port = strtol(colon + 1, &end, 10);
        if (*end != 0 || end == colon + 1 || port < 1 || port > 65535)
            return err_set(at, ERR_INPUT, "the endpoint %.100s has no possible port", endpoint);
        if (port == (is_https ? 443 : 80))
            *colon = 0;
    }
    if (host[0] == 0)
        return err_set(at, ERR_INPUT, "the endpoint %.100s has no host", endpoint);
    snprintf(s->scheme, sizeof s->scheme, "%s", is_https ? "https" : "http");
    bool is_virtual = s->config.virtual_host;
    snprintf(s->host, sizeof s->host, "%s%s%s", is_virtual ? s->config.bucket : "", is_virtual ? "." : "",
             host);
    snprintf(s->root, sizeof s->root, "%s%s", is_virtual ? "" : "/", is_virtual ? "" : s->config.bucket);
    if (is_virtual && is_https && strchr(s->config.bucket, '.') != NULL)
        return err_set(at, ERR_INPUT,
                       "the bucket %s has a dot: no certificate fits it as part of a host; use paths",
                       s->config.bucket);
    return OK;
}

static err check_config(const struct blob_s3_config *c, struct err_at *at)
{
    if (!is_of(c->bucket, 3, S3_BUCKET_BYTES_MAX, "._-") || c->bucket[0] == '.' || c->bucket[0] == '-')
        return err_set(at, ERR_INPUT, "the bucket's name %.100s is not possible", c->bucket);
    if (c->prefix[0] != 0 && (strlen(c->prefix) > S3_PREFIX_BYTES_MAX || blob_key_check(c->prefix) != OK))
        return err_set(at, ERR_INPUT,
                       "the prefix %.100s is not possible: A-Z a-z 0-9 . _ - in parts divided by /",
                       c->prefix);
    if (!is_of(c->region, 1, 63, "-_"))
        return err_set(at, ERR_INPUT, "the region %.100s is not possible", c->region);
    if (c->request_ms < 1 || c->retry_ms < 0 || c->backoff_ms < 1 || c->connections_max < 1 ||
        c->connections_max > CONNECTIONS_MAX || c->part_bytes < 1 || c->part_bytes > S3_PART_BYTES_MAX)
        return err_set(at, ERR_INPUT, "a time, the connections or the size of parts is out of bounds");
    return OK;
}

static err keep(struct pool *pool, const char **text)
{
    struct slice copy;
    TRY(pool_copy(pool, slice_str(*text), &copy));
    *text = (const char *)copy.at;
    return OK;
}

static err prepare(struct s3_store *s, const struct blob_s3_config *config, struct err_at *at)
{
    s->config = *config;
    s->config.access_key = s->config.secret_key = s->config.session_token = NULL;
    TRY(keep(s->pool, &s->config.endpoint));
    TRY(keep(s->pool, &s->config.bucket));
    TRY(keep(s->pool, &s->config.prefix));
    TRY(keep(s->pool, &s->config.region));
    TRY(take_endpoint(s, s->config.endpoint, at));
    TRY(s3_credentials_open(config, s->config.region, s->io, s->pool, s->transport, &s->credentials, at));
    return s3_probe(s, at);
}

err blob_open_s3_over(const struct blob_s3_config *config, struct s3_transport *transport, struct io *io,
                      struct pool *parent, struct blob **out_blob, struct err_at *at)
{
    struct pool *pool;
    void *object;
    err e = check_config(config, at);
    if (e == OK)
        e = pool_open_object(parent, "blob_s3", sizeof(struct s3_store), &pool, &object);
    if (e != OK) {
        transport->close(transport);
        return e;
    }
    struct s3_store *s = object;
    s->base.driver = &s3_driver;
    s->io = io;
    s->pool = pool;
    s->transport = transport;
    s3_retries_fill(s, config->retries_per_minute);
    s3_gate_init(&s->gate, io, config->connections_max);
    io_mutex_init(&s->lock);
    e = prepare(s, config, at);
    if (e == OK)
        *out_blob = &s->base;
    else
        blob_s3_close(&s->base);
    return e;
}

err blob_open_s3(const struct blob_s3_config *config, struct io *io, struct pool *pool,
                 struct blob **out_blob, struct err_at *at)
{
    struct s3_transport *transport;
    if (config->part_bytes < S3_PART_BYTES_MIN)
        return err_set(at, ERR_INPUT, "parts of less than 5 MiB are not taken by any store");
    TRY(check_config(config, at));
    TRY(s3_transport_open(io, pool, config->tls, config->connections_max, config->abort, &transport));
    return blob_open_s3_over(config, transport, io, pool, out_blob, at);
}
