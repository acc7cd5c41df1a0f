/* The HTTP client: one per thread. From: scrape workers (and tests). To: the other side's socket; the body goes
 * decoded into the caller's buffer.
 *
 *   socket ─ curl: TLS, chunks, redirects ─ on_body: count encoded bytes ─ gzip? inflate ─→ buf
 *
 * Compression is undone here and not by curl, because only so both limits hold while bytes arrive.
 *
 * Invariants
 * 1. Encoded bytes stop at encoded_bytes_max, decoded bytes at the buffer's maximum, time at timeout_ms; each
 *    ends the transfer at once and the connection is closed. A name that is looked up then is not waited for.
 * 2. The environment (proxies, .netrc) has no influence; only http and https are spoken.
 * 3. Every request has a handle of its own: nothing of one target reaches another but live connections, names and
 *    TLS sessions, which curl keeps apart by host and TLS options. (Before 8.1.1 a handle that is used again
 *    writes to freed memory when an answer's first header is a folded line.) */
#include "net/client.h"

#include <curl/curl.h>
#include <stdio.h>
#include <strings.h>

#include "base/check.h"
#include "codec/gzip.h"
#include "io/io.h"

struct net_client {
    struct io *io;
    struct pool *pool;
    CURLSH *share; /* connections, names, TLS sessions; used by one thread, so without locks */
};

/* One call of net_client_do. */
struct transfer {
    const struct net_client_request *request;
    struct pool *pool;
    CURL *curl;
    struct buf *body;
    size_t body_start; /* length of body before this call, for redirects */
    struct gzip_reader *gzip;
    bool is_gzip;
    uint64_t encoded_bytes;
    err failed; /* why a callback ended the transfer */
    const char *failed_text;
};

err net_client_open(struct io *io, struct pool *pool, struct net_client **out_client)
{
    struct pool *own = pool_open(pool, "http_client", POOL_BYTES_UNLIMITED);
    struct net_client *client;
    err e = pool_zalloc(own, sizeof *client, (void **)&client);
    if (e != OK) {
        pool_close(own);
        return e;
    }
    client->io = io;
    client->pool = own;
    client->share = curl_share_init();
    check(client->share != NULL); /* the system refusing memory aborts */
    curl_share_setopt(client->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_CONNECT);
    curl_share_setopt(client->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
    curl_share_setopt(client->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    *out_client = client;
    return OK;
}

void net_client_close(struct net_client *client)
{
    if (client == NULL)
        return;
    curl_share_cleanup(client->share);
    pool_close(client->pool);
}

static size_t stop(struct transfer *t, err e, const char *text)
{
    t->failed = e;
    t->failed_text = text;
    return 0;
}

static struct slice trim(struct slice s)
{
    while (s.len > 0 && s.at[0] <= ' ')
        s = slice_part(s, 1, s.len - 1);
    while (s.len > 0 && s.at[s.len - 1] <= ' ')
        s.len--;
    return s;
}

static void tell_header(const struct transfer *t, struct slice line)
{
    const uint8_t *colon = line.len > 0 ? memchr(line.at, ':', line.len) : NULL;
    if (t->request->on_header == NULL || colon == NULL || colon == line.at)
        return;
    size_t name_len = (size_t)(colon - line.at);
    t->request->on_header(t->request->header_context, slice_part(line, 0, name_len),
                          trim(slice_part(line, name_len + 1, line.len - name_len - 1)));
}

/* Header lines of every answer, of redirects too. */
static size_t on_header(char *line, size_t one, size_t len, void *context)
{
    struct transfer *t = context;
    if (len >= 5 && strncmp(line, "HTTP/", 5) == 0) { /* a new answer begins */
        t->is_gzip = false;
        gzip_reader_close(t->gzip);
        t->gzip = NULL;
        t->body->len = t->body_start;
        if (t->request->on_header != NULL)
            t->request->on_header(t->request->header_context, slice_of("", 0), slice_of("", 0));
        return len;
    }
    tell_header(t, slice_of(line, len));
    static const char name[] = "content-encoding:";
    if (len < sizeof name - 1 || strncasecmp(line, name, sizeof name - 1) != 0)
        return len;
    struct slice value = trim(slice_of(line + sizeof name - 1, len - (sizeof name - 1)));
    if (value.len == 0 || slice_equal_str(value, "identity"))
        return len;
    if (!slice_equal_str(value, "gzip") || !t->request->accept_gzip)
        return stop(t, ERR_IO, "answer has an encoding that was not asked for");
    t->is_gzip = true;
    err e = t->gzip == NULL ? gzip_reader_open(t->pool, &t->gzip) : OK;
    return e == OK ? len : stop(t, e, "no memory to decompress");
}

static size_t on_body(char *at, size_t one, size_t len, void *context)
{
    struct transfer *t = context;
    t->encoded_bytes += len;
    if (t->encoded_bytes > t->request->encoded_bytes_max)
        return stop(t, ERR_LIMIT, "body is over the size limit");
    err e = OK;
    if (t->request->on_body != NULL) {
        e = t->request->on_body(t->request->body_context, slice_of(at, len));
        return e == OK ? len : stop(t, e, "its body was refused");
    }
    if (t->is_gzip) {
        e = gzip_reader_add(t->gzip, slice_of(at, len), t->body);
    } else {
        buf_put(t->body, at, len);
        e = buf_err(t->body);
    }
    if (e == OK)
        return len;
    return stop(t, e == ERR_INPUT ? ERR_IO : e,
                e == ERR_INPUT ? "body is not valid gzip" : "decoded body is over the size limit");
}

static int on_progress(void *context, curl_off_t down_all, curl_off_t down, curl_off_t up_all, curl_off_t up)
{
    const struct transfer *t = context;
    return t->request->abort != NULL && atomic_load_explicit(t->request->abort, memory_order_relaxed);
}

/* curl's own redirects would carry credentials given as headers to another host; an Authorization header
 * is therefore only set through curl's options where it knows not to. */
static void set_credentials(CURL *curl, const struct net_client_request *r, struct curl_slist **headers)
{
    if (r->user != NULL) {
        curl_easy_setopt(curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
        curl_easy_setopt(curl, CURLOPT_USERNAME, r->user);
        curl_easy_setopt(curl, CURLOPT_PASSWORD, r->password != NULL ? r->password : "");
    } else if (r->authorization != NULL) {
        char line[NET_CLIENT_URL_BYTES_MAX];
        snprintf(line, sizeof line, "Authorization: %s",
                 r->authorization); /* curl drops it for other hosts */
        *headers = curl_slist_append(*headers, line);
        explicit_bzero(line, sizeof line);
    }
}

static void set_tls(CURL *curl, const struct net_client_request *r)
{
    static const long versions[] = { CURL_SSLVERSION_TLSv1_0, CURL_SSLVERSION_TLSv1_1,
                                     CURL_SSLVERSION_TLSv1_2, CURL_SSLVERSION_TLSv1_3 };
    const struct net_tls_options *tls = &r->tls;
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, versions[tls->tls_min_set ? tls->tls_min : NET_TLS_1_2]);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, tls->insecure_skip_verify ? 0L : 1L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, tls->insecure_skip_verify ? 0L : 2L);
    if (tls->ca_file != NULL) {
        curl_easy_setopt(curl, CURLOPT_CAINFO, tls->ca_file);
        curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
    }
    if (tls->cert_file != NULL)
        curl_easy_setopt(curl, CURLOPT_SSLCERT, tls->cert_file);
    if (tls->key_file != NULL)
        curl_easy_setopt(curl, CURLOPT_SSLKEY, tls->key_file);
}

/* The URL that curl gets, and with a server name a rule that connects it to the true host. curl takes SNI
 * and the name to verify from the URL, so the URL carries server_name and CONNECT_TO the target; the header Host
 * is as curl would make it of the URL, without a port that the scheme means anyway: it may be signed. */
static err set_url(CURL *curl, const struct net_client_request *r, struct curl_slist **connect_to,
                   struct curl_slist **headers, struct err_at *at)
{
    CURLU *url = curl_url();
    char *host = NULL, *port = NULL, *scheme = NULL, *full = NULL;
    char line[1024];
    unsigned flags = r->path_as_is ? CURLU_PATH_AS_IS : 0;
    err e = OK;
    check(url != NULL);
    if (strlen(r->url) > NET_CLIENT_URL_BYTES_MAX ||
        curl_url_set(url, CURLUPART_URL, r->url, flags) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
        TRY_OUT(err_set(at, ERR_INPUT, "not a URL that can be fetched: %.200s", r->url));
    if (r->tls.server_name != NULL && strcmp(scheme, "https") == 0) {
        if (curl_url_get(url, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
            curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK ||
            curl_url_set(url, CURLUPART_HOST, r->tls.server_name, 0) != CURLUE_OK ||
            curl_url_get(url, CURLUPART_URL, &full, 0) != CURLUE_OK) /* its path is as it was taken */
            TRY_OUT(err_set(at, ERR_INPUT, "server name %.200s is not possible", r->tls.server_name));
        snprintf(line, sizeof line, "%s:%s:%s:%s", r->tls.server_name, port, host, port);
        *connect_to = curl_slist_append(NULL, line);
        curl_easy_setopt(curl, CURLOPT_CONNECT_TO, *connect_to);
        bool is_default = strcmp(port, "443") == 0;
        snprintf(line, sizeof line, "Host: %s%s%s", host, is_default ? "" : ":", is_default ? "" : port);
        *headers = curl_slist_append(*headers, line);
    }
    curl_easy_setopt(curl, CURLOPT_URL, full != NULL ? full : r->url); /* curl copies it */
out:
    curl_free(host);
    curl_free(port);
    curl_free(scheme);
    curl_free(full);
    curl_url_cleanup(url);
    return e;
}

static void set_options(struct transfer *t, char *error_text)
{
    const struct net_client_request *r = t->request;
    CURL *curl = t->curl;
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error_text);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    /* A name is looked up by a thread of curl's, which ends when the system's resolver does, after half a minute
     * maybe. Without this the call would wait for that, timeout or not; with it the thread ends by itself. */
    curl_easy_setopt(curl, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)(r->timeout_ms < INT32_MAX ? r->timeout_ms : INT32_MAX));
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, r->follow_redirects ? 1L : 0L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, (long)NET_CLIENT_REDIRECTS_MAX);
    curl_easy_setopt(curl, CURLOPT_MAXCONNECTS, (long)NET_CLIENT_CONNECTIONS_MAX);
    curl_easy_setopt(curl, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, t);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, r->path_as_is ? 1L : 0L);
    bool is_post = r->body.len > 0 || (r->method != NULL && strcmp(r->method, "POST") == 0);
    bool is_put = r->method != NULL && strcmp(r->method, "PUT") == 0;
    if (is_post || is_put) {
        curl_easy_setopt(curl, CURLOPT_POST, 1L);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.len);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, r->body.len > 0 ? (const char *)r->body.at : "");
    }
    if (r->method != NULL && strcmp(r->method, "HEAD") == 0)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    else if (r->method != NULL && !(is_post && strcmp(r->method, "POST") == 0))
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, r->method);
}

/* What a person needs to know, and what the caller can do. */
static err translate(const struct transfer *t, CURLcode code, const char *error_text, struct err_at *at)
{
    const char *text = error_text[0] != 0 ? error_text : curl_easy_strerror(code);
    if (t->failed != OK)
        return err_set(at, t->failed, "%s", t->failed_text);
    switch (code) {
    case CURLE_OK:
        return OK;
    case CURLE_ABORTED_BY_CALLBACK:
        return err_set(at, ERR_CANCELED, "canceled");
    case CURLE_OPERATION_TIMEDOUT:
        return err_set(at, ERR_TIMEOUT, "context deadline exceeded: %s", text);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_SSL_CACERT_BADFILE:
        return err_set(at, ERR_NOT_FOUND, "%s", text);
    case CURLE_PEER_FAILED_VERIFICATION:
        return err_set(at, ERR_DENIED, "%s", text);
    case CURLE_URL_MALFORMAT:
    case CURLE_SSL_CERTPROBLEM:
        return err_set(at, ERR_INPUT, "%s", text);
    default:
        return err_set(at, ERR_IO, "%s", text);
    }
}

static void fill_response(struct transfer *t, struct net_client_response *out_response)
{
    long status = 0;
    char *content_type = NULL;
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(t->curl, CURLINFO_CONTENT_TYPE, &content_type);
    *out_response =
        (struct net_client_response){ .status = (unsigned)status, .encoded_bytes = t->encoded_bytes };
    snprintf(out_response->content_type, sizeof out_response->content_type, "%s",
             content_type != NULL ? content_type : "");
}

err net_client_do(struct net_client *client, const struct net_client_request *request, struct buf *body,
                  struct net_client_response *out_response, struct err_at *at)
{
    check(request->timeout_ms > 0 && request->header_count <= NET_CLIENT_HEADERS_MAX);
    check(request->on_body == NULL || !request->accept_gzip);
    CURL *curl = curl_easy_init();
    check(curl != NULL);
    struct transfer t = {
        .request = request, .pool = client->pool, .curl = curl, .body = body, .body_start = body->len
    };
    char error_text[CURL_ERROR_SIZE] = "";
    struct curl_slist *headers = NULL, *connect_to = NULL;
    err e = OK;
    curl_easy_setopt(curl, CURLOPT_SHARE, client->share);
    for (size_t i = 0; i < request->header_count; i++)
        headers = curl_slist_append(headers, request->headers[i]);
    headers = curl_slist_append(headers, "Expect:");
    if (request->accept_gzip)
        headers = curl_slist_append(headers, "Accept-Encoding: gzip");
    TRY_OUT(set_url(curl, request, &connect_to, &headers, at));
    set_options(&t, error_text);
    set_credentials(curl, request, &headers);
    set_tls(curl, request);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    CURLcode code = curl_easy_perform(curl);
    TRY_OUT(translate(&t, code, error_text, at));
    if (t.is_gzip && t.encoded_bytes > 0 && !gzip_reader_ended(t.gzip))
        TRY_OUT(err_set(at, ERR_IO, "body ends in the middle of its gzip stream"));
    fill_response(&t, out_response);
out:
    curl_easy_cleanup(curl);
    curl_slist_free_all(headers);
    curl_slist_free_all(connect_to);
    gzip_reader_close(t.gzip);
    return e;
}
