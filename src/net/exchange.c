/* One request from its first line to the last byte of its answer. From: the callbacks in server.c, all on the
 * connection's thread. To: the route's handler, then back to the library.
 *
 *   open ─ begin: method, framing, route, credentials, sizes ─→ body … ─→ end: handler, answer ─→ close
 *            └ refused with a body: answer at once, connection closes     └ refused without: answer here
 *
 * Invariants
 * 1. Nothing is stored of a body before its route, the client's credentials and its announced length have
 *    been looked at; what is stored is charged to the budget common to all requests until close.
 * 2. A request whose framing is ambiguous (Content-Length and Transfer-Encoding) is refused and its
 *    connection closed: nobody may read the rest as another request.
 * 3. `done` of a response runs exactly once, also when the client went away in the middle.
 * 4. An answer that cannot be completed cuts the connection; it never looks whole. */
#include "net/exchange.h"

#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <strings.h>

#include "base/check.h"
#include "base/stat.h"
#include "io/io.h"
#include "net/form.h"
#include "net/router.h"

/* Of line and headers. The library keeps them, and those of the answer, in CONNECTION_MEMORY_BYTES; without room
 * for the answer's it closes the connection without a word. This leaves 8 KB. */
#define HEAD_BYTES_MAX     (24u << 10)
#define DISCARD_BYTES_MAX  (1u << 20) /* of a refused chunked body, so that the client can read why */
#define STREAM_BLOCK_BYTES (32u << 10)
#define GZIP_LEVEL_WHOLE   1 /* libdeflate's 1: zlib's 6 within a tenth, five times faster */
#define GZIP_LEVEL_STREAM  1

static const struct {
    const char *name;
    enum net_method method;
} methods[] = {
    { "GET", NET_GET },       { "HEAD", NET_HEAD },       { "POST", NET_POST },   { "PUT", NET_PUT },
    { "DELETE", NET_DELETE }, { "OPTIONS", NET_OPTIONS }, { "PATCH", NET_PATCH },
};
#define METHOD_COUNT (sizeof methods / sizeof methods[0])

/* ---- life ---- */

struct exchange *exchange_open(struct connection *connection, const char *target)
{
    struct net_server *server = connection->server;
    struct pool *pool = pool_open(server->pool, "http_request", server->config.request_bytes_max);
    struct exchange *x;
    struct slice copy;
    if (pool_zalloc(pool, sizeof *x, (void **)&x) != OK || pool_copy(pool, slice_str(target), &copy) != OK) {
        pool_close(pool);
        return NULL;
    }
    x->connection = connection;
    x->request = (struct net_request){ .pool = pool, .target = copy };
    memcpy(x->request.peer, connection->peer, sizeof x->request.peer);
    x->response = (struct net_response){ .pool = pool,
                                         .status = 200,
                                         .body = buf_open(pool, server->config.response_bytes_max) };
    x->body = buf_open(pool, 0);
    io_mutex_lock(&server->lock);
    server->running_count++;
    io_mutex_unlock(&server->lock);
    stat_add(STAT_NET_REQUESTS_RUNNING, 1);
    return x;
}

void exchange_close(struct exchange *x)
{
    struct net_server *server = x->connection->server;
    if (x->response.done != NULL)
        x->response.done(x->response.next_context);
    gzip_writer_close(x->gzip);
    atomic_fetch_sub(&server->bodies_bytes, (int64_t)x->charged_bytes);
    stat_add(STAT_NET_BODY_BYTES_HELD, -(int64_t)x->charged_bytes);
    identity_put(x->identity);
    x->connection->exchange = NULL;
    pool_close(x->request.pool);
    stat_add(STAT_NET_REQUESTS_RUNNING, -1);
    io_mutex_lock(&server->lock);
    if (--server->running_count == 0)
        io_cond_broadcast(&server->idle);
    io_mutex_unlock(&server->lock);
}

static void refuse(struct exchange *x, unsigned status, const char *text)
{
    if (x->refused_status != 0)
        return;
    x->refused_status = status;
    x->refused_text = text;
    stat_add(status == 401 || status == 403 ? STAT_NET_REFUSED_DENIED
             : status == 413                ? STAT_NET_REFUSED_SIZE
             : status == 503                ? STAT_NET_REFUSED_BUDGET
                                            : STAT_NET_REFUSED_MALFORMED,
             1);
}

/* ---- what handlers ask ---- */

struct slice net_request_header(const struct net_request *request, const char *name)
{
    const struct exchange *x = (const struct exchange *)request;
    const char *value = MHD_lookup_connection_value(x->library, MHD_HEADER_KIND, name);
    return value == NULL ? slice_of("", 0) : slice_str(value);
}

bool net_request_param(const struct net_request *request, const char *name, struct slice *out_value)
{
    *out_value = slice_of("", 0);
    for (size_t i = 0; i < request->param_count; i++) {
        if (slice_equal_str(request->params[i].name, name)) {
            *out_value = request->params[i].value;
            return true;
        }
    }
    return false;
}

bool net_request_canceled(const struct net_request *request)
{
    const struct exchange *x = (const struct exchange *)request;
    if (atomic_load_explicit(&x->connection->server->is_closing, memory_order_relaxed))
        return true;
    struct pollfd peer = { .fd = x->connection->fd, .events = POLLRDHUP };
    return poll(&peer, 1, 0) > 0 && (peer.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

err net_response_header(struct net_response *response, const char *name, const char *value)
{
    struct exchange *x = (struct exchange *)((char *)response - offsetof(struct exchange, response));
    bool is_ours = strcasecmp(name, "Content-Length") == 0 || strcasecmp(name, "Transfer-Encoding") == 0 ||
                   strcasecmp(name, "Connection") == 0 || strcasecmp(name, "Date") == 0;
    if (is_ours || name[0] == 0 || value[0] == 0 || strpbrk(name, "\t\r\n: ") != NULL ||
        strpbrk(value, "\t\r\n") != NULL)
        return ERR_INPUT;
    if (x->header_count == NET_RESPONSE_HEADERS_MAX)
        return ERR_LIMIT;
    struct slice name_copy, value_copy;
    TRY(pool_copy(response->pool, slice_str(name), &name_copy));
    TRY(pool_copy(response->pool, slice_str(value), &value_copy));
    x->headers[x->header_count++] =
        (struct extra_header){ (const char *)name_copy.at, (const char *)value_copy.at };
    return OK;
}

/* ---- the head ---- */

/* Decimal, no sign, no list. False: malformed. */
static bool parse_length(struct slice text, uint64_t *out_v)
{
    uint64_t v = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = (unsigned)text.at[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, digit, &v))
            return false;
    }
    *out_v = v;
    return text.len > 0;
}

static bool charge(struct exchange *x, size_t bytes)
{
    struct net_server *server = x->connection->server;
    int64_t before = atomic_fetch_add(&server->bodies_bytes, (int64_t)bytes);
    if ((uint64_t)before + bytes > server->config.bodies_in_flight_bytes_max) {
        atomic_fetch_sub(&server->bodies_bytes, (int64_t)bytes);
        return false;
    }
    x->charged_bytes += bytes;
    stat_add(STAT_NET_BODY_BYTES_HELD, (int64_t)bytes);
    return true;
}

struct framing_count {
    unsigned lengths, codings, hosts;
};

static enum MHD_Result count_framing(void *context, enum MHD_ValueKind kind, const char *name,
                                     const char *value)
{
    struct framing_count *count = context;
    count->lengths += strcasecmp(name, "Content-Length") == 0;
    count->codings += strcasecmp(name, "Transfer-Encoding") == 0;
    count->hosts += strcasecmp(name, "Host") == 0;
    return MHD_YES;
}

static bool is_head_too_long(struct exchange *x)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->library, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    return info == NULL || info->header_size > HEAD_BYTES_MAX;
}

/* Framing: is there a body, and how long may it be? */
static void look_at_body(struct exchange *x)
{
    struct framing_count count = { 0 }; /* the library would take one of two lengths */
    MHD_get_connection_values(x->library, MHD_HEADER_KIND, count_framing, &count);
    struct slice length = net_request_header(&x->request, "Content-Length");
    struct slice coding = net_request_header(&x->request, "Transfer-Encoding");
    uint64_t bytes = 0;
    x->has_body = count.codings > 0;
    if (count.lengths > 1 || count.codings > 1 || count.hosts > 1) {
        x->has_body = true; /* whatever follows is not read as a request */
        return refuse(x, 400, "Content-Length, Transfer-Encoding or Host is given twice");
    }
    if (count.codings > 0 && count.lengths > 0)
        return refuse(x, 400, "Content-Length and Transfer-Encoding exclude each other");
    if (coding.len > 0 && strcasecmp((const char *)coding.at, "chunked") != 0)
        return refuse(x, 501, "this Transfer-Encoding is not supported");
    if (length.len > 0 && !parse_length(length, &bytes)) {
        x->has_body = true;
        return refuse(x, 400, "malformed Content-Length");
    }
    x->has_body = x->has_body || bytes > 0;
    if (bytes > x->body_bytes_max)
        return refuse(x, 413, "the body is too large");
    if (x->refused_status != 0 || bytes == 0)
        return;
    if (!charge(x, bytes))
        return refuse(x, 503, "too many bytes of requests in flight, try later");
    x->body.max = bytes;
    if (buf_room(&x->body, bytes) == NULL)
        refuse(x, 503, "no memory for this body, try later");
}

static void check_credentials(struct exchange *x)
{
    struct net_server *server = x->connection->server;
    if (server->client_auth != NET_CLIENT_AUTH_NONE) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(x->library, MHD_CONNECTION_INFO_GNUTLS_SESSION);
        if (info == NULL || tls_session_check(info->tls_session, server->client_auth) != OK)
            return refuse(x, 403, "no acceptable client certificate");
    }
    x->identity = identity_get(server);
    if (!net_auth_needed(x->identity->auth) || (x->route != NULL && x->route->is_open) ||
        x->request.method == NET_OPTIONS) /* a browser's preflight carries no credentials */
        return;
    err e =
        net_auth_check(x->identity->auth, net_request_header(&x->request, "Authorization"), &x->request.user);
    if (e == ERR_BUSY)
        refuse(x, 503, "too many passwords are being compared, try later");
    else if (e != OK)
        refuse(x, 401, "credentials are needed");
}

bool exchange_begin(struct exchange *x, struct MHD_Connection *library, const char *method)
{
    struct net_server *server = x->connection->server;
    const struct net_server_config *config = &server->config;
    x->has_begun = true;
    x->library = library;
    x->request.start_ns = io_monotonic_ns(server->io);
    watchdog_phase(server->watchdog, &x->connection->watch, WATCH_WORK); /* comparing a password takes time */
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (strcmp(methods[i].name, method) == 0)
            x->request.method = methods[i].method;
    }
    struct slice path = x->request.target;
    const uint8_t *query = memchr(path.at, '?', path.len);
    if (query != NULL)
        path.len = (size_t)(query - path.at);
    x->request.path = path;
    if (is_head_too_long(x))
        refuse(x, 431, "the head of the request is over 24 KB; a long query belongs into a POST");
    if (x->request.method == 0)
        refuse(x, 501, "unknown method");
    else
        x->route = router_find(config->routes, config->route_count, x->request.method, path,
                               &x->request.argument, &x->allowed);
    x->body_bytes_max =
        x->route != NULL && x->route->body_bytes_max != 0 ? x->route->body_bytes_max : config->body_bytes_max;
    x->body.max = x->body_bytes_max;
    check_credentials(x);
    if (x->route == NULL && x->request.method != NET_OPTIONS)
        refuse(x, x->allowed == 0 ? 404 : 405, x->allowed == 0 ? "no such page" : "method not allowed here");
    look_at_body(x);
    if (x->has_body)
        watchdog_phase(server->watchdog, &x->connection->watch, WATCH_BODY);
    if (x->refused_status != 0 && x->has_body)
        return exchange_end(x); /* the library discards the body and closes */
    return true;
}

bool exchange_body(struct exchange *x, struct slice part)
{
    struct net_server *server = x->connection->server;
    watchdog_body(server->watchdog, &x->connection->watch, part.len);
    stat_add(STAT_NET_BODY_BYTES, (int64_t)part.len);
    if (x->refused_status == 0) {
        size_t need = x->body.len + part.len;
        if (need > x->body.max)
            refuse(x, 413, "the body is too large");
        else if (need > x->charged_bytes && !charge(x, need - x->charged_bytes))
            refuse(x, 503, "too many bytes of requests in flight, try later");
        else
            buf_put_slice(&x->body, part);
        if (buf_err(&x->body) != OK)
            refuse(x, 503, "no memory for this body, try later");
    }
    if (x->refused_status != 0)
        x->discarded_bytes += part.len; /* no answer is possible before the body's end */
    return x->discarded_bytes <= DISCARD_BYTES_MAX;
}

/* ---- the answer ---- */

static bool accepts_gzip(struct exchange *x)
{
    struct slice list = net_request_header(&x->request, "Accept-Encoding");
    const char *at = (const char *)list.at;
    for (size_t i = 0; i + 4 <= list.len; i++) {
        bool starts = i == 0 || at[i - 1] == ' ' || at[i - 1] == ',';
        if (!starts || strncasecmp(at + i, "gzip", 4) != 0)
            continue;
        size_t end = i + 4;
        while (end < list.len && at[end] == ' ')
            end++;
        if (end == list.len || at[end] == ',')
            return true;
        /* ";q=0" and ";q=0.0" refuse it */
        const char *q = at[end] == ';' ? strstr(at + end, "q=") : NULL;
        return q != NULL && strspn(q + 2, "0.") < strcspn(q + 2, ", ");
    }
    return false;
}

static bool is_compressible(const char *content_type)
{
    static const char *const prefixes[] = { "text/",
                                            "application/json",
                                            "application/openmetrics-text",
                                            "application/javascript",
                                            "application/x-ndjson",
                                            "application/yaml",
                                            "image/svg+xml" };
    for (size_t i = 0; content_type != NULL && i < sizeof prefixes / sizeof prefixes[0]; i++) {
        if (strncmp(content_type, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}

static ssize_t read_stream(void *context, uint64_t position, char *at, size_t max)
{
    struct exchange *x = context;
    while (x->ready.len == 0) {
        if (x->is_over)
            return MHD_CONTENT_READER_END_OF_STREAM;
        buf_clear(&x->chunk);
        err e = x->response.next(x->response.next_context, &x->chunk);
        x->is_over = e == ERR_END;
        if ((e != OK && e != ERR_END) || buf_err(&x->chunk) != OK)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        x->ready = buf_slice(&x->chunk);
        if (x->gzip != NULL) {
            buf_clear(&x->packed);
            if (gzip_writer_add(x->gzip, buf_slice(&x->chunk), x->is_over, &x->packed) != OK)
                return MHD_CONTENT_READER_END_WITH_ERROR;
            x->ready = buf_slice(&x->packed);
        }
    }
    size_t len = x->ready.len < max ? x->ready.len : max;
    memcpy(at, x->ready.at, len);
    x->ready = slice_part(x->ready, len, x->ready.len - len);
    stat_add(STAT_NET_RESPONSE_BYTES, (int64_t)len);
    return (ssize_t)len;
}

/* A response of the library around what the handler left; *out_gzip: is it compressed? */
static struct MHD_Response *make_response(struct exchange *x, bool *out_gzip)
{
    const struct net_server_config *config = &x->connection->server->config;
    struct net_response *r = &x->response;
    bool pack = is_compressible(r->content_type) && accepts_gzip(x) && x->request.method != NET_HEAD;
    for (size_t i = 0; i < x->header_count; i++)
        pack = pack && strcasecmp(x->headers[i].name, "Content-Encoding") != 0;
    *out_gzip = false;
    if (r->next != NULL && x->request.method != NET_HEAD) {
        x->chunk = buf_open(r->pool, NET_CHUNK_BYTES_MAX);
        x->packed = buf_open(r->pool, NET_CHUNK_BYTES_MAX + (64u << 10));
        *out_gzip = pack && gzip_writer_open(r->pool, GZIP_LEVEL_STREAM, &x->gzip) == OK;
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream, x, NULL);
    }
    if (pack && r->body.len >= config->gzip_bytes_min) {
        struct buf packed = buf_open(r->pool, r->body.len); /* larger would be no gain */
        if (gzip_compress(buf_slice(&r->body), GZIP_LEVEL_WHOLE, &packed) == OK) {
            buf_close(&r->body);
            r->body = packed;
            *out_gzip = true;
        } else {
            buf_close(&packed);
        }
    }
    if (x->request.method != NET_HEAD)
        stat_add(STAT_NET_RESPONSE_BYTES, (int64_t)r->body.len);
    return MHD_create_response_from_buffer(r->body.len, r->body.at, MHD_RESPMEM_PERSISTENT);
}

static void add_header(struct MHD_Response *response, const char *name, const char *value)
{
    enum MHD_Result result = MHD_add_response_header(response, name, value);
    check(result == MHD_YES); /* names and values were checked for line breaks; memory aborts */
}

static void add_headers(struct exchange *x, struct MHD_Response *response, bool is_gzip)
{
    struct net_server *server = x->connection->server;
    if (x->response.content_type != NULL)
        add_header(response, "Content-Type", x->response.content_type);
    if (is_gzip)
        add_header(response, "Content-Encoding", "gzip");
    if (is_compressible(x->response.content_type))
        add_header(response, "Vary", "Accept-Encoding");
    for (size_t i = 0; i < x->header_count; i++)
        add_header(response, x->headers[i].name, x->headers[i].value);
    if (server->config.cors && net_request_header(&x->request, "Origin").len > 0) {
        add_header(response, "Access-Control-Allow-Headers", "Accept, Authorization, Content-Type, Origin");
        add_header(response, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
        add_header(response, "Access-Control-Allow-Origin", "*");
        add_header(response, "Access-Control-Expose-Headers", "Date");
        add_header(response, "Vary", "Origin");
    }
    if (atomic_load(&server->is_stopping) || (x->refused_status != 0 && x->has_body))
        add_header(response, "Connection", "close");
}

/* "GET, HEAD, OPTIONS" */
static void put_allow(struct exchange *x)
{
    char text[80] = "";
    size_t len = 0;
    unsigned allowed = x->allowed | NET_OPTIONS | ((x->allowed & NET_GET) != 0 ? NET_HEAD : 0);
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if ((allowed & methods[i].method) != 0)
            len += (size_t)snprintf(text + len, sizeof text - len, "%s%s", len == 0 ? "" : ", ",
                                    methods[i].name);
    }
    /* without memory the answer goes without */
    ERR_IGNORE(net_response_header(&x->response, "Allow", text));
}

static void answer_refusal(struct exchange *x)
{
    struct net_response *r = &x->response;
    r->status = x->refused_status;
    r->content_type = "text/plain; charset=utf-8";
    buf_put_str(&r->body, x->refused_text);
    buf_put_str(&r->body, "\n");
    if (r->status == 401)
        ERR_IGNORE(
            net_response_header(r, "WWW-Authenticate", "Basic realm=\"kelpie\", Bearer realm=\"kelpie\""));
    if (r->status == 405)
        put_allow(x);
    if (r->status == 503)
        ERR_IGNORE(net_response_header(r, "Retry-After", "1"));
}

/* Decode path, argument and parameters. Refuses on malformed ones. */
static void decode_request(struct exchange *x)
{
    const struct net_server_config *config = &x->connection->server->config;
    struct net_request *q = &x->request;
    struct form form = { .count_max = config->params_max };
    size_t path_len = q->path.len;
    struct slice query = q->target.len > path_len
                             ? slice_part(q->target, path_len + 1, q->target.len - path_len - 1)
                             : slice_of("", 0);
    q->body = buf_slice(&x->body);
    err e = percent_decode(q->pool, q->path, &q->path);
    if (e == OK)
        e = percent_decode(q->pool, q->argument, &q->argument);
    static const char type[] = "application/x-www-form-urlencoded";
    struct slice content_type = net_request_header(q, "Content-Type");
    bool is_form = (q->method & (NET_POST | NET_PUT | NET_PATCH)) != 0 &&
                   (x->route == NULL || !x->route->has_raw_body) && content_type.len >= sizeof type - 1 &&
                   strncasecmp((const char *)content_type.at, type, sizeof type - 1) == 0;
    if (is_form && q->body.len > config->params_bytes_max)
        return refuse(x, 413, "the form is too large");
    if (e == OK && is_form)
        e = form_parse(q->pool, q->body, &form);
    if (e == OK)
        e = form_parse(q->pool, query, &form);
    q->params = form.params;
    q->param_count = form.count;
    if (e == ERR_LIMIT)
        refuse(x, 413, "too many parameters");
    else if (e != OK)
        refuse(x, 400, "malformed percent-encoding");
}

bool exchange_end(struct exchange *x)
{
    struct net_server *server = x->connection->server;
    struct net_response *r = &x->response;
    watchdog_phase(server->watchdog, &x->connection->watch, WATCH_WORK);
    if (x->refused_status == 0)
        decode_request(x);
    if (x->refused_status != 0) {
        answer_refusal(x);
    } else if (x->route == NULL) { /* OPTIONS */
        r->status = x->allowed != 0 ? 204 : 404;
        put_allow(x);
    } else {
        x->route->handle(server->config.context, &x->request, r);
    }
    if (r->next == NULL && buf_err(&r->body) != OK) {
        buf_clear(&r->body);
        r->status = 500;
        r->content_type = "text/plain; charset=utf-8";
        buf_put_str(&r->body, "the answer is over the limit\n");
    }
    watchdog_phase(server->watchdog, &x->connection->watch, WATCH_SEND);
    stat_add(STAT_NET_REQUESTS, 1);
    bool is_gzip;
    struct MHD_Response *response = make_response(x, &is_gzip);
    check(response != NULL);
    add_headers(x, response, is_gzip);
    enum MHD_Result result = MHD_queue_response(x->library, r->status, response);
    MHD_destroy_response(response);
    return result == MHD_YES;
}
