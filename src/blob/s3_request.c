/* Requests to an S3 store: make, sign, send, judge the answer, wait and ask again. From: s3_fetch.c, s3_upload.c,
 * s3_probe.c. To: the transport.
 *
 *   call ─ URL, headers ─ credentials ─ sign ─ exchange ─→ OK ─ accept? ─→ done
 *            ↑                                   └─ failure ─ final ─→ error
 *            └──── wait: jitter, Retry-After, budget ───┘
 *
 * Invariants
 * 1. Retries of all calls together are bounded per minute, and each call's in time, so that a store that is
 *    down gets from this process little more than one request for each call.
 * 2. Nothing but the store's word (NoSuchKey, or a bare 404 where the caller confirms it) becomes ERR_NOT_FOUND: a
 *    proxy's 404, a missing bucket or a host without a name must never look like absence. */
#include "blob/s3.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/stat.h"
#include "base/time.h"
#include "io/io.h"

#define WAIT_MS_MAX 10000
#define SLEEP_NS    (200 * NS_PER_MS)    /* abort is looked at as often */
#define SKEW_MS_MAX (15 * MS_PER_MINUTE) /* S3 refuses beyond it */
#define MIB_MS      1000                 /* least rate of a body: 1 MiB/s */
#define LINES_MAX   16
#define RETRY_PARTS MS_PER_MINUTE /* of a retry: one part for each ms and retry per minute, so none is lost */
#define PIECE_BYTES (64u << 10)   /* more than the client adds to a body at once */

void s3_result_open(struct s3_store *s, struct s3_result *out)
{
    *out = (struct s3_result){ .code = "" };
    out->body = buf_open(pool_open(s->pool, "s3_answer", POOL_BYTES_UNLIMITED), SIZE_MAX);
    s3_response_init(&out->response);
}

void s3_result_close(struct s3_result *r) { pool_close(r->body.pool); }

struct draft {
    struct s3_pair headers[S3_PAIRS_MAX];
    size_t header_count;
    char date[S3_DATE_BYTES];
    char path[S3_PATH_BYTES];
    struct s3_signer signer;
};

static void add(struct draft *d, const char *name, const char *value)
{
    check(d->header_count < S3_PAIRS_MAX);
    d->headers[d->header_count++] = (struct s3_pair){ name, value };
}

static void set_path(const struct s3_store *s, const struct s3_call *call, char out[S3_PATH_BYTES])
{
    const char *prefix = s->config.prefix;
    int len = call->key == NULL ? snprintf(out, S3_PATH_BYTES, "%s", s->root[0] != 0 ? s->root : "/")
                                : snprintf(out, S3_PATH_BYTES, "%s/%s%s%s", s->root, prefix,
                                           prefix[0] != 0 ? "/" : "", call->key);
    check(len > 0 && len < S3_PATH_BYTES);
}

static void set_headers(const struct s3_store *s, const struct s3_call *call, struct draft *d)
{
    add(d, "host", s->host);
    add(d, "x-amz-date", d->date);
    add(d, "x-amz-content-sha256", call->body_sha256 != NULL ? call->body_sha256 : S3_EMPTY_SHA256);
    if (call->method[0] == 'P') /* PUT, POST: the client would send one of its own, which must be signed */
        add(d, "content-type", "application/octet-stream");
    for (size_t i = 0; i < call->header_count; i++)
        add(d, call->headers[i].name, call->headers[i].value);
}

/* The URL and header lines of a draft as texts in the pool. */
static err write_out(const struct s3_store *s, const struct s3_call *call, const struct draft *d,
                     struct pool *pool, struct s3_request *out)
{
    struct s3_to_sign sign = { .method = call->method,
                               .path = d->path,
                               .params = call->params,
                               .param_count = call->param_count,
                               .headers = d->headers,
                               .header_count = d->header_count,
                               .payload_sha256 = d->headers[2].value,
                               .date = d->date,
                               .region = s->config.region,
                               .access_key = d->signer.access_key };
    struct buf text = buf_open(pool, S3_URL_BYTES_MAX);
    struct slice copy;
    void *at;
    TRY(pool_alloc(pool, LINES_MAX * sizeof(char *), &at));
    const char **lines = at;
    size_t count = 0;
    buf_put_str(&text, "Authorization: ");
    s3_sign(&sign, &d->signer.key, &text);
    TRY(buf_err(&text));
    TRY(pool_copy(pool, buf_slice(&text), &copy));
    lines[count++] = (const char *)copy.at;
    for (size_t i = 1; i < d->header_count; i++) { /* Host is sent by the client, and is equal */
        buf_clear(&text);
        buf_put_str(&text, d->headers[i].name);
        buf_put_str(&text, ": ");
        buf_put_str(&text, d->headers[i].value);
        TRY(buf_err(&text));
        TRY(pool_copy(pool, buf_slice(&text), &copy));
        check(count < LINES_MAX);
        lines[count++] = (const char *)copy.at;
    }
    buf_clear(&text);
    buf_printf(&text, "%s://%s", s->scheme, s->host);
    s3_put_encoded(&text, slice_str(d->path), true);
    buf_put_str(&text, call->param_count > 0 ? "?" : "");
    s3_put_query(&text, call->params, call->param_count);
    TRY(buf_err(&text));
    TRY(pool_copy(pool, buf_slice(&text), &copy));
    out->url = (const char *)copy.at;
    out->headers = lines;
    out->header_count = count;
    return OK;
}

/* ---- judging ---- */

static const struct {
    unsigned status;
    const char *code; /* NULL = any */
    err e;
    bool is_final;
} verdicts[] = {
    { 404, "NoSuchKey", ERR_NOT_FOUND, true },
    { 404, "NoSuchUpload", ERR_NOT_FOUND, true },
    { 404, "NoSuchBucket", ERR_IO, true },
    { 404, "XAdminUserNotFound", ERR_DENIED,
      true },                     /* Versity's word for an access key that it does not know */
    { 404, NULL, ERR_IO, false }, /* not a store's answer: a proxy, or one that starts */
    { 409, "ConditionalRequestConflict", ERR_CONFLICT, false },
    { 409, "OperationAborted", ERR_CONFLICT, false },
    { 409, "", ERR_CONFLICT, false },
    { 409, NULL, ERR_UNSUPPORTED, true }, /* as a key below another, where keys are files */
    { 412, "PreconditionFailed", ERR_EXISTS, true },
    { 412, NULL, ERR_IO, false }, /* not a store's answer */
    { 416, "InvalidRange", ERR_END, true },
    { 416, NULL, ERR_IO, false },
    { 507, NULL, ERR_SPACE, true },
    { 400, "RequestTimeout", ERR_TIMEOUT, false },
    { 400, "BadDigest", ERR_IO, false }, /* damaged on the way; the store kept nothing */
    { 400, "IncompleteBody", ERR_IO, false },
    { 400, "XAmzContentSHA256Mismatch", ERR_IO, false },
    { 400, "XAmzContentChecksumMismatch", ERR_IO, false },
    { 400, "ExpiredToken", ERR_DENIED, true },
    { 400, "InvalidToken", ERR_DENIED, true },
    { 400, "EntityTooLarge", ERR_LIMIT, true },
    { 400, "AuthorizationHeaderMalformed", ERR_DENIED, true }, /* another region */
    { 400, NULL, ERR_UNSUPPORTED, true },
    { 403, NULL, ERR_DENIED, true },
    { 401, NULL, ERR_DENIED, true },
    { 405, NULL, ERR_UNSUPPORTED, true },
    { 411, NULL, ERR_UNSUPPORTED, true },
    { 501, NULL, ERR_UNSUPPORTED, true },
    { 301, NULL, ERR_DENIED, true }, /* another region or endpoint */
    { 307, NULL, ERR_DENIED, true },
    { 408, NULL, ERR_TIMEOUT, false },
    { 504, NULL, ERR_TIMEOUT, false },
    { 429, NULL, ERR_BUSY, false },
    { 503, NULL, ERR_BUSY, false },
};

static err verdict(unsigned status, const char *code, bool *out_is_final)
{
    for (size_t i = 0; i < sizeof verdicts / sizeof verdicts[0]; i++)
        if (verdicts[i].status == status &&
            (verdicts[i].code == NULL || strcmp(verdicts[i].code, code) == 0)) {
            *out_is_final = verdicts[i].is_final;
            return verdicts[i].e;
        }
    *out_is_final = status >= 300 && status < 500;
    return ERR_IO;
}

/* What the store says is wrong, for a person. */
static void explain(struct s3_store *s, const struct s3_call *call, struct s3_result *r, const char *message,
                    const char *region)
{
    int64_t skew_ms = r->response.date_ms < 0 ? 0 : io_now_ms(s->io) - r->response.date_ms;
    bool is_skewed = strcmp(r->code, "RequestTimeTooSkewed") == 0 ||
                     (r->response.status == 403 && (skew_ms > SKEW_MS_MAX || skew_ms < -SKEW_MS_MAX));
    unsigned status = r->response.status;
    if (is_skewed)
        ERR_IGNORE(err_set(&r->why, OK, "this machine's clock is %lld s %s the store's (%u %s)",
                           (long long)(skew_ms < 0 ? -skew_ms : skew_ms) / MS_PER_SECOND,
                           skew_ms < 0 ? "behind" : "ahead of", status, r->code));
    else if (region[0] != 0 && (status == 301 || status == 307 || status == 400))
        ERR_IGNORE(
            err_set(&r->why, OK, "the bucket is in the region %.60s (%u %s)", region, status, r->code));
    else
        ERR_IGNORE(err_set(&r->why, OK, "%s %.240s: %u %s%s%.150s", call->method,
                           call->key != NULL ? call->key : "(bucket)", status, r->code,
                           message[0] != 0 ? ": " : "", message));
}

static bool has_header(const struct s3_call *call, const char *begin)
{
    for (size_t i = 0; i < call->header_count; i++)
        if (strncmp(call->headers[i].name, begin, strlen(begin)) == 0)
            return true;
    return false;
}

static bool is_of_upload(const struct s3_call *call)
{
    for (size_t i = 0; i < call->param_count; i++)
        if (strcmp(call->params[i].name, "uploadId") == 0)
            return true;
    return false;
}

/* Other answers of 2xx are no store's: accepted for later, cached, or of a proxy. */
static bool is_success(const struct s3_call *call, unsigned status)
{
    return status == 200 || (status == 206 && strcmp(call->method, "GET") == 0) ||
           (status == 204 && strcmp(call->method, "DELETE") == 0);
}

static err judge(struct s3_store *s, const struct s3_call *call, struct s3_result *r)
{
    struct s3_answer answer = { .message = "", .region = "" };
    unsigned status = r->response.status;
    r->code[0] = 0;
    if (is_success(call, status))
        return r->body.len <= call->answer_bytes_max
                   ? OK
                   : err_set(&r->why, ERR_IO, "%s %.240s: the answer has more bytes than were asked for",
                             call->method, call->key != NULL ? call->key : "(bucket)");
    if (s3_answer_decode(buf_slice(&r->body), r->body.pool, &answer) == OK && answer.kind == S3_ANSWER_ERROR)
        snprintf(r->code, sizeof r->code, "%s", answer.code);
    else
        answer.message = answer.region = "";
    err e = verdict(status, r->code, &r->is_final);
    bool is_put = call->method[0] == 'P'; /* PUT, POST */
    if (is_put && strcmp(r->code, "NoSuchKey") == 0 && has_header(call, "if-match"))
        e = ERR_EXISTS; /* it does not match what is not there, as some stores say with 412 */
    if ((e == ERR_EXISTS && !has_header(call, "if-")) || (e == ERR_END && strcmp(call->method, "GET") != 0) ||
        (e == ERR_NOT_FOUND && is_put && !is_of_upload(call))) {
        e = ERR_IO; /* nonsense, which must not pass for the state of a key */
        r->is_final = false;
    }
    if (strcmp(call->method, "HEAD") == 0 && status == 404) { /* no body that could say which */
        e = ERR_NOT_FOUND;
        r->is_final = true;
    }
    explain(s, call, r, answer.message, r->response.region[0] != 0 ? r->response.region : answer.region);
    return e;
}

/* Why there is no answer, as something that no caller takes for the state of an object. */
static err no_answer(err e, bool *out_is_final)
{
    *out_is_final = e == ERR_DENIED || e == ERR_INPUT || e == ERR_CANCELED;
    return e == ERR_TIMEOUT || e == ERR_DENIED || e == ERR_CANCELED ? e : ERR_IO;
}

static err exchange(struct s3_store *s, const struct s3_call *call, struct draft *d, struct pool *pool,
                    struct s3_result *r)
{
    size_t most = call->answer_bytes_max > S3_ERROR_BYTES_MAX ? call->answer_bytes_max : S3_ERROR_BYTES_MAX;
    size_t moved = call->body.len + call->answer_bytes_max;
    struct s3_request request = { .method = call->method,
                                  .body = call->body,
                                  .answer_bytes_max = most,
                                  .timeout_ms = s->config.request_ms + call->more_ms +
                                                (int64_t)(moved >> 20) * MIB_MS };
    struct err_at why = { .text = "" };
    TRY(write_out(s, call, d, pool, &request));
    r->body.max = most;
    stat_add(STAT_BLOB_S3_REQUESTS, 1);
    stat_add(STAT_BLOB_S3_SENT_BYTES, (int64_t)call->body.len);
    err e = s->transport->exchange(s->transport, &request, &r->body, &r->response, &why);
    stat_add(STAT_BLOB_S3_RECEIVED_BYTES, (int64_t)r->body.len);
    if (e == OK)
        return judge(s, call, r);
    if (e == ERR_LIMIT &&
        r->body.len + PIECE_BYTES < most) { /* not the store's fault: a budget here is spent */
        r->is_final = true;
        return err_set(&r->why, e, "no memory for an answer");
    }
    return err_set(&r->why, no_answer(e, &r->is_final), "%s %.240s: %.200s", call->method,
                   call->key != NULL ? call->key : "(bucket)", why.text);
}

/* ---- waiting ---- */

bool s3_is_aborted(const struct s3_store *s)
{
    return s->config.abort != NULL && atomic_load_explicit(s->config.abort, memory_order_relaxed);
}

static uint64_t random_below(struct s3_store *s, uint64_t bound)
{
    uint64_t v;
    io_random(s->io, &v, sizeof v);
    return bound == 0 ? 0 : v % bound;
}

void s3_retries_fill(struct s3_store *s, unsigned per_minute)
{
    s->filled_ns = io_monotonic_ns(s->io);
    s->retry_parts = (int64_t)per_minute * RETRY_PARTS;
}

/* False: the budget of retries is spent. */
static bool take_retry(struct s3_store *s, int64_t now_ns)
{
    int64_t most = (int64_t)s->config.retries_per_minute * RETRY_PARTS;
    io_mutex_lock(&s->lock);
    int64_t passed_ms = (now_ns - s->filled_ns) / NS_PER_MS;
    s->filled_ns += passed_ms * NS_PER_MS;
    s->retry_parts += (passed_ms < MS_PER_MINUTE ? passed_ms : MS_PER_MINUTE) * s->config.retries_per_minute;
    if (s->retry_parts > most)
        s->retry_parts = most;
    bool may = s->retry_parts >= RETRY_PARTS;
    s->retry_parts -= may ? RETRY_PARTS : 0;
    io_mutex_unlock(&s->lock);
    return may;
}

/* A store that asks to be left alone is left alone by all calls. Returns when it may be asked again. */
static int64_t keep_quiet(struct s3_store *s, int64_t until_ns)
{
    io_mutex_lock(&s->lock);
    if (s->quiet_until_ns < until_ns)
        s->quiet_until_ns = until_ns;
    until_ns = s->quiet_until_ns;
    io_mutex_unlock(&s->lock);
    return until_ns;
}

/* False: aborted. */
static bool sleep_until(struct s3_store *s, int64_t until_ns)
{
    for (;;) {
        int64_t left = until_ns - io_monotonic_ns(s->io);
        if (s3_is_aborted(s))
            return false;
        if (left <= 0)
            return true;
        io_sleep_ns(s->io, left < SLEEP_NS ? left : SLEEP_NS);
    }
}

/* Wait while another call's answer asks for quiet. False: longer than a call may last. */
static bool wait_for_quiet(struct s3_store *s)
{
    int64_t now_ns = io_monotonic_ns(s->io), until_ns = keep_quiet(s, 0);
    if (until_ns <= now_ns)
        return true;
    if (until_ns - now_ns > s->config.retry_ms * NS_PER_MS)
        return false;
    return sleep_until(s, until_ns + (int64_t)random_below(s, (uint64_t)(s->config.backoff_ms * NS_PER_MS)));
}

/* ---- one request, and many ---- */

err s3_try(struct s3_store *s, const struct s3_call *call, struct s3_result *r)
{
    struct pool *pool = pool_open(s->pool, "s3_request", POOL_BYTES_UNLIMITED);
    struct draft *d;
    struct err_at why = { .text = "" };
    buf_clear(&r->body);
    s3_response_init(&r->response);
    r->is_final = true;
    r->code[0] = 0;
    err e = pool_zalloc(pool, sizeof *d, (void **)&d);
    TRY_OUT(e);
    bool may = wait_for_quiet(s);
    if (s3_is_aborted(s))
        TRY_OUT(err_set(&r->why, ERR_CANCELED, "canceled"));
    if (!may)
        TRY_OUT(err_set(&r->why, ERR_BUSY, "the store asked to be left alone"));
    e = s3_credentials_get(s->credentials, d->date, &d->signer, &why);
    if (e != OK) {
        r->is_final = e == ERR_DENIED || e == ERR_CANCELED;
        TRY_OUT(err_set(&r->why, e, "%s", why.text));
    }
    set_path(s, call, d->path);
    set_headers(s, call, d);
    if (d->signer.session_token[0] != 0)
        add(d, "x-amz-security-token", d->signer.session_token);
    r->is_final = false;
    e = exchange(s, call, d, pool, r);
    if (e == OK && call->accept != NULL)
        e = call->accept(call, r);
    /* A HEAD that is refused says 400 or 403 and nothing more. */
    if (e != OK && (r->response.status == 403 || r->response.status == 400) && !r->was_renewed) {
        r->was_renewed = true;
        r->is_final = r->is_final && !s3_credentials_refused(s->credentials, d->signer.number);
    }
out:
    pool_close(pool);
    return e;
}

bool s3_wait(struct s3_store *s, struct s3_patience *p, const struct s3_result *r)
{
    int64_t now_ns = io_monotonic_ns(s->io), most_ms = s->config.backoff_ms;
    if (p->until_ns == 0)
        p->until_ns = now_ns + s->config.retry_ms * NS_PER_MS;
    for (unsigned i = 0; i < p->tries && most_ms < WAIT_MS_MAX; i++)
        most_ms *= 2;
    p->tries++;
    if (most_ms > WAIT_MS_MAX)
        most_ms = WAIT_MS_MAX;
    int64_t at_ns = now_ns + (int64_t)random_below(s, (uint64_t)(most_ms * NS_PER_MS));
    unsigned status = r->response.status;
    if (r->response.retry_after_ms >= 0 && (status == 503 || status == 429)) {
        int64_t asked_ns = keep_quiet(s, now_ns + r->response.retry_after_ms * NS_PER_MS);
        at_ns = asked_ns + (at_ns - now_ns);
    }
    if (at_ns > p->until_ns || !take_retry(s, now_ns))
        return false;
    stat_add(STAT_BLOB_S3_RETRIES, 1);
    return sleep_until(s, at_ns);
}

err s3_do_within(struct s3_store *s, const struct s3_call *call, struct s3_result *r, struct s3_patience *p)
{
    r->was_renewed = false;
    for (;;) {
        err e = s3_try(s, call, r);
        if (e == OK || r->is_final)
            return e;
        if (!s3_wait(s, p, r))
            return e == ERR_CONFLICT ? ERR_BUSY : e;
    }
}

err s3_do(struct s3_store *s, const struct s3_call *call, struct s3_result *r)
{
    struct s3_patience patience = { 0 };
    return s3_do_within(s, call, r, &patience);
}

err s3_ended(struct s3_store *s, err e, const struct err_at *why)
{
    if (e == OK || e == ERR_EXISTS || e == ERR_NOT_FOUND || e == ERR_END)
        return e;
    stat_add(STAT_BLOB_S3_FAILURES, 1);
    io_mutex_lock(&s->lock);
    s->last_failure = *why;
    io_mutex_unlock(&s->lock);
    return s3_is_aborted(s) ? ERR_CANCELED : e; /* whatever it waited for */
}
