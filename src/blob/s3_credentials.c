/* Credentials of an S3 store. From: the configuration, a file, or the metadata service of the machine (IMDSv2:
 * a token by PUT, then the role's name, then its credentials). To: signing keys for s3_request.c.
 *
 *   none ─ get: fetch ─→ valid ─ RENEW_MS before the end ─→ due ─ get: fetch ─→ valid
 *                          └─ refused by the store ────────→ due        └─ fetch fails: kept until they end
 *
 * Invariants
 * 1. One thread fetches at a time, without the lock; others go on with what is valid, or wait.
 * 2. A fetch that failed is tried again RETRY_MS later at the earliest. */
#include "blob/s3_credentials.h"

#include <stdio.h>

#include "base/check.h"
#include "base/time.h"
#include "io/io.h"
#include "io/thread.h"
#include "model/yaml.h"

#define RENEW_MS         (5 * MS_PER_MINUTE) /* new ones are there this long before the old ones end */
#define RETRY_MS         (10 * MS_PER_SECOND)
#define FILE_MS          MS_PER_MINUTE
#define METADATA_MS      2000
#define METADATA_TRIES   3
#define TOKEN_TTL        "21600" /* s; the most there is */
#define ANSWER_BYTES_MAX 16384

struct s3_credentials {
    struct io *io;
    struct pool *pool;
    struct s3_transport *transport;
    const char *region;
    enum blob_s3_source source;
    const char *file, *profile, *metadata_url;
    struct io_mutex lock; /* of what follows; held during no call */
    struct io_cond fetched;
    bool is_fetching;
    uint64_t number; /* counts fetches that succeeded; 0 = none yet */
    int64_t due_ms;  /* Unix ms: fetch from then on */
    int64_t fetched_ms;
    struct s3_secret secret;
    struct s3_signing_key key; /* of the day that was asked for last */
    err failed;                /* of the last fetch */
    struct err_at why;
};

/* ---- decoding ---- */

static err take(struct slice value, char *out, size_t out_bytes, const char *name, struct err_at *at)
{
    if (value.len >= out_bytes)
        return err_set(at, ERR_INPUT, "%s is longer than %zu bytes", name, out_bytes - 1);
    for (size_t i = 0; i < value.len; i++)
        if (value.at[i] <= ' ' || value.at[i] > '~')
            return err_set(at, ERR_INPUT, "%s has a byte that cannot be in one", name);
    if (value.len > 0)
        memcpy(out, value.at, value.len);
    out[value.len] = 0;
    return OK;
}

static err is_whole(const struct s3_secret *secret, struct err_at *at)
{
    return secret->access_key[0] != 0 && secret->secret_key[0] != 0
               ? OK
               : err_set(at, ERR_INPUT, "access key or secret key is missing");
}

static struct slice field(const struct yaml_node *map, const char *key)
{
    const struct yaml_node *node = yaml_find(map, key);
    return node != NULL && node->type == YAML_SCALAR ? node->text : slice_of("", 0);
}

err s3_credentials_from_json(struct slice text, struct pool *pool, struct s3_secret *out, struct err_at *at)
{
    struct yaml_node *root;
    struct s3_secret secret = { 0 };
    if (text.len > ANSWER_BYTES_MAX)
        return err_set(at, ERR_LIMIT, "the answer is longer than %d bytes", ANSWER_BYTES_MAX);
    if (yaml_parse(text, pool, &root, NULL) != OK || root->type != YAML_MAP)
        return err_set(at, ERR_INPUT, "the answer is not a JSON object");
    struct slice code = field(root, "Code"), expires = field(root, "Expiration");
    if (code.len > 0 && !slice_equal_str(code, "Success"))
        return err_set(at, ERR_INPUT, "the answer's code is not Success");
    TRY(take(field(root, "AccessKeyId"), secret.access_key, sizeof secret.access_key, "AccessKeyId", at));
    TRY(take(field(root, "SecretAccessKey"), secret.secret_key, sizeof secret.secret_key, "SecretAccessKey",
             at));
    TRY(take(field(root, "Token"), secret.session_token, sizeof secret.session_token, "Token", at));
    if (!s3_time_parse(expires, &secret.expires_ms))
        return err_set(at, ERR_INPUT, "Expiration is not a time");
    TRY(is_whole(&secret, at));
    *out = secret;
    return OK;
}

static struct slice trim(struct slice s)
{
    while (s.len > 0 && s.at[0] <= ' ')
        s = slice_part(s, 1, s.len - 1);
    while (s.len > 0 && s.at[s.len - 1] <= ' ')
        s.len--;
    return s;
}

static err take_line(struct slice line, struct s3_secret *secret, struct err_at *at)
{
    const uint8_t *equals = line.len > 0 ? memchr(line.at, '=', line.len) : NULL;
    if (equals == NULL)
        return OK;
    size_t len = (size_t)(equals - line.at);
    struct slice name = trim(slice_part(line, 0, len));
    struct slice value = trim(slice_part(line, len + 1, line.len - len - 1));
    if (slice_equal_str(name, "aws_access_key_id"))
        return take(value, secret->access_key, sizeof secret->access_key, "aws_access_key_id", at);
    if (slice_equal_str(name, "aws_secret_access_key"))
        return take(value, secret->secret_key, sizeof secret->secret_key, "aws_secret_access_key", at);
    if (slice_equal_str(name, "aws_session_token"))
        return take(value, secret->session_token, sizeof secret->session_token, "aws_session_token", at);
    return OK;
}

err s3_credentials_from_file(struct slice text, const char *profile, struct s3_secret *out, struct err_at *at)
{
    struct s3_secret secret = { .expires_ms = INT64_MAX };
    bool is_ours = false, is_there = false;
    if (text.len > S3_CREDENTIALS_FILE_BYTES_MAX)
        return err_set(at, ERR_LIMIT, "the file is longer than %u bytes", S3_CREDENTIALS_FILE_BYTES_MAX);
    while (text.len > 0) {
        const uint8_t *end = memchr(text.at, '\n', text.len);
        size_t len = end != NULL ? (size_t)(end - text.at) : text.len;
        struct slice line = trim(slice_part(text, 0, len));
        text = slice_part(text, len + (end != NULL), text.len - len - (end != NULL));
        if (line.len == 0 || line.at[0] == '#' || line.at[0] == ';')
            continue;
        if (line.at[0] == '[') {
            is_ours = line.at[line.len - 1] == ']' && line.len > 1 &&
                      slice_equal_str(trim(slice_part(line, 1, line.len - 2)), profile);
            is_there |= is_ours;
        } else if (is_ours) {
            TRY(take_line(line, &secret, at));
        }
    }
    if (!is_there)
        return err_set(at, ERR_INPUT, "there is no profile [%.100s]", profile);
    TRY(is_whole(&secret, at));
    *out = secret;
    return OK;
}

/* ---- fetching ---- */

struct fetch {
    struct s3_credentials *c;
    struct pool *pool;
    char token_header[1200]; /* "X-aws-ec2-metadata-token: …" */
    struct buf body;
};

/* One request of the metadata service, tried METADATA_TRIES times; its answer is in f->body. */
static err ask(struct fetch *f, const char *method, const char *path, const char *header, struct err_at *at)
{
    struct s3_response response = { 0 };
    char url[1024];
    int len = snprintf(url, sizeof url, "%s%s", f->c->metadata_url, path);
    if (len < 0 || len >= (int)sizeof url)
        return err_set(at, ERR_INPUT, "the address of the metadata service is too long");
    struct s3_request request = { .method = method,
                                  .url = url,
                                  .headers = &header,
                                  .header_count = 1,
                                  .timeout_ms = METADATA_MS,
                                  .answer_bytes_max = ANSWER_BYTES_MAX };
    err e = OK;
    for (int i = 0; i < METADATA_TRIES; i++) {
        if (i > 0)
            io_sleep_ns(f->c->io, i * 200 * NS_PER_MS);
        buf_clear(&f->body);
        e = f->c->transport->exchange(f->c->transport, &request, &f->body, &response, at);
        if (e == ERR_CANCELED || (e == OK && response.status < 500 && response.status != 429))
            break;
    }
    if (e == ERR_NOT_FOUND) /* a resolver that does not know the name now */
        e = ERR_IO;
    if (e == OK && response.status != 200)
        e = err_set(at,
                    response.status == 429   ? ERR_BUSY
                    : response.status >= 500 ? ERR_IO
                                             : ERR_DENIED,
                    "the metadata service answers %s %s with %u", method, path, response.status);
    return e;
}

static bool is_token(struct slice s, size_t len_max)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.at[i] <= ' ' || s.at[i] > '~')
            return false;
    return s.len > 0 && s.len <= len_max;
}

static err fetch_role(struct fetch *f, struct s3_secret *out, struct err_at *at)
{
    static const char roles[] = "/latest/meta-data/iam/security-credentials/";
    char path[sizeof roles + 128];
    TRY(ask(f, "PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: " TOKEN_TTL, at));
    struct slice token = trim(buf_slice(&f->body));
    if (!is_token(token, 1024))
        return err_set(at, ERR_DENIED, "the metadata service gives no token");
    snprintf(f->token_header, sizeof f->token_header, "X-aws-ec2-metadata-token: %.*s", SLICE_ARG(token));
    TRY(ask(f, "GET", roles, f->token_header, at));
    struct slice role = trim(buf_slice(&f->body));
    const uint8_t *end = role.len > 0 ? memchr(role.at, '\n', role.len) : NULL;
    role = end != NULL ? trim(slice_part(role, 0, (size_t)(end - role.at))) : role;
    if (!is_token(role, 128) || memchr(role.at, '/', role.len) != NULL)
        return err_set(at, ERR_DENIED, "the machine has no role");
    snprintf(path, sizeof path, "%s%.*s", roles, SLICE_ARG(role));
    TRY(ask(f, "GET", path, f->token_header, at));
    return s3_credentials_from_json(buf_slice(&f->body), f->pool, out, at);
}

static bool may_pass(err e) { return e == ERR_TIMEOUT || e == ERR_IO || e == ERR_BUSY || e == ERR_CANCELED; }

static err fetch(struct s3_credentials *c, struct s3_secret *out, struct err_at *at)
{
    struct fetch f = { .c = c, .pool = pool_open(c->pool, "s3_fetch", POOL_BYTES_UNLIMITED) };
    struct err_at why = { .text = "" };
    struct slice text;
    err e;
    f.body = buf_open(f.pool, ANSWER_BYTES_MAX);
    if (c->source == BLOB_S3_FILE) {
        e = io_read_file(c->io, c->file, S3_CREDENTIALS_FILE_BYTES_MAX, f.pool, &text);
        if (e != OK)
            snprintf(why.text, sizeof why.text, "%s", err_text(e));
        else
            e = s3_credentials_from_file(text, c->profile, out, &why);
    } else {
        e = fetch_role(&f, out, &why);
    }
    if (e != OK)
        e = err_set(at, may_pass(e) ? e : ERR_DENIED, "no credentials from %.200s: %.200s",
                    c->source == BLOB_S3_FILE ? c->file : c->metadata_url, why.text);
    explicit_bzero(&f.token_header, sizeof f.token_header);
    pool_close(f.pool);
    return e;
}

/* Fetch, and take what comes. Locked on entry and exit, not between. */
static void renew(struct s3_credentials *c)
{
    struct s3_secret secret;
    struct err_at why = { .text = "" };
    c->is_fetching = true;
    io_mutex_unlock(&c->lock);
    err e = fetch(c, &secret, &why);
    io_mutex_lock(&c->lock);
    int64_t now_ms = io_now_ms(c->io);
    c->is_fetching = false;
    c->failed = e;
    c->why = why;
    c->fetched_ms = now_ms;
    c->due_ms = e == ERR_CANCELED ? 0 : now_ms + RETRY_MS;
    if (e == OK) {
        c->secret = secret;
        c->number++;
        c->key.day[0] = 0;
        if (c->source == BLOB_S3_FILE)
            c->due_ms = now_ms + FILE_MS;
        else if (secret.expires_ms - RENEW_MS > c->due_ms)
            c->due_ms = secret.expires_ms - RENEW_MS;
        explicit_bzero(&secret, sizeof secret);
    }
    io_cond_broadcast(&c->fetched);
}

static bool is_valid(const struct s3_credentials *c, int64_t now_ms)
{
    return c->number > 0 && now_ms < c->secret.expires_ms;
}

/* Locked: credentials that are valid, or why there are none. */
static err make_sure(struct s3_credentials *c, struct err_at *at)
{
    while (!is_valid(c, io_now_ms(c->io)) && c->is_fetching)
        io_cond_wait(&c->fetched, &c->lock);
    int64_t now_ms = io_now_ms(c->io);
    if (c->source != BLOB_S3_STATIC && !c->is_fetching && now_ms >= c->due_ms)
        renew(c);
    if (is_valid(c, io_now_ms(c->io)))
        return OK;
    if (c->failed != OK)
        return err_set(at, c->failed, "%s", c->why.text);
    return err_set(at, ERR_DENIED, "the credentials have expired and there are no new ones");
}

err s3_credentials_get(struct s3_credentials *c, char out_date[S3_DATE_BYTES], struct s3_signer *out,
                       struct err_at *at)
{
    io_mutex_lock(&c->lock);
    err e = make_sure(c, at);
    if (e == OK) {
        s3_date_print(io_now_ms(c->io), out_date); /* after all waiting */
        if (strncmp(c->key.day, out_date, S3_DAY_BYTES - 1) != 0)
            s3_signing_key_of(c->secret.secret_key, out_date, c->region, &c->key);
        memcpy(out->access_key, c->secret.access_key, sizeof out->access_key);
        memcpy(out->session_token, c->secret.session_token, sizeof out->session_token);
        out->key = c->key;
        out->number = c->number;
    }
    io_mutex_unlock(&c->lock);
    return e;
}

bool s3_credentials_refused(struct s3_credentials *c, uint64_t number)
{
    if (c->source == BLOB_S3_STATIC)
        return false;
    int64_t now_ms = io_now_ms(c->io);
    io_mutex_lock(&c->lock);
    bool are_others = c->number != number;
    bool is_time = now_ms - c->fetched_ms >= RETRY_MS || now_ms < c->fetched_ms;
    if (!are_others && is_time)
        c->due_ms = 0;
    io_mutex_unlock(&c->lock);
    return are_others || is_time;
}

/* ---- opening ---- */

static err copy(struct pool *pool, const char *text, const char *name, const char **out, struct err_at *at)
{
    struct slice kept;
    if (text == NULL || text[0] == 0)
        return err_set(at, ERR_INPUT, "%s is missing", name);
    TRY(pool_copy(pool, slice_str(text), &kept));
    *out = (const char *)kept.at;
    return OK;
}

static err take_static(const struct blob_s3_config *config, struct s3_credentials *c, struct err_at *at)
{
    struct s3_secret s = { .expires_ms = INT64_MAX };
    const char *access = config->access_key != NULL ? config->access_key : "";
    const char *secret = config->secret_key != NULL ? config->secret_key : "";
    const char *token = config->session_token != NULL ? config->session_token : "";
    TRY(take(slice_str(access), s.access_key, sizeof s.access_key, "the access key", at));
    TRY(take(slice_str(secret), s.secret_key, sizeof s.secret_key, "the secret key", at));
    TRY(take(slice_str(token), s.session_token, sizeof s.session_token, "the session token", at));
    c->secret = s;
    c->number = 1;
    return is_whole(&s, at);
}

err s3_credentials_open(const struct blob_s3_config *config, const char *region, struct io *io,
                        struct pool *parent, struct s3_transport *transport,
                        struct s3_credentials **out_credentials, struct err_at *at)
{
    struct pool *pool;
    void *object;
    TRY(pool_open_object(parent, "s3_credentials", sizeof(struct s3_credentials), &pool, &object));
    struct s3_credentials *c = object;
    c->io = io;
    c->pool = pool;
    c->transport = transport;
    c->region = region;
    c->source = config->source;
    io_mutex_init(&c->lock);
    io_cond_init(&c->fetched);
    err e = OK;
    if (c->source == BLOB_S3_STATIC) {
        e = take_static(config, c, at);
    } else if (c->source == BLOB_S3_FILE) {
        e = copy(pool, config->credentials_file, "the credentials file", &c->file, at);
        if (e == OK)
            e = copy(pool, config->profile, "the profile", &c->profile, at);
    } else {
        e = copy(pool, config->metadata_url, "the address of the metadata service", &c->metadata_url, at);
    }
    if (e == OK)
        *out_credentials = c;
    else
        s3_credentials_close(c);
    return e;
}

void s3_credentials_close(struct s3_credentials *c)
{
    if (c == NULL)
        return;
    explicit_bzero(&c->secret, sizeof c->secret);
    explicit_bzero(&c->key, sizeof c->key);
    io_cond_done(&c->fetched);
    io_mutex_done(&c->lock);
    pool_close(c->pool);
}
