/* A store in memory as the transport of the S3 driver, with faults: for tests alone. It checks what is sent
 * (signature there, payload hash right) and counts it. One thread. */
#ifndef BLOB_S3_FAKE_H
#define BLOB_S3_FAKE_H

#include "base/check.h"
#include "base/hash.h"
#include "blob/s3.h"
#include "io/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAKE_OBJECTS_MAX 2048
#define FAKE_PARTS_MAX   16
#define FAKE_FAULTS_MAX  8
#define FAKE_TEXT        2048
#define FAKE_TIME_BYTES  32

enum fake_fault_kind {
    FAKE_NONE,
    FAKE_LOST_BEFORE, /* the request does not arrive */
    FAKE_LOST_AFTER,  /* its answer does not */
    FAKE_STATUS,      /* not done; status and code are the answer */
    FAKE_STATUS_AFTER,
    FAKE_TRUNCATED,
    FAKE_SHIFTED, /* Content-Range of other bytes */
    FAKE_FLIPPED, /* one bit of the body */
    FAKE_GARBAGE,
    FAKE_PAGE,      /* of a proxy, for anything: 200 and no header but its length; the store hears nothing */
    FAKE_PAGE_ETAG, /* one with an ETag of its own */
    FAKE_NO_METADATA, /* the answer has lost its kelpie-… headers on the way */
    FAKE_BARE,        /* a proxy's status; the body says nothing */
    FAKE_DELAYED,     /* no answer; the request arrives when fake_land is called */
};

struct fake_fault {
    enum fake_fault_kind kind;
    const char *method, *part; /* of requests with this method and this part in their URL; NULL = any */
    unsigned status;
    const char *code;
    int64_t retry_after_ms; /* 0 = none */
    int skip, count;        /* leave out so many, then hit so many */
};

struct fake_object {
    char key[400];
    struct slice bytes;
    char sha256[SHA256_HEX_BYTES], put_id[S3_PUT_ID_BYTES], etag[40];
    int64_t t_ms;
};

struct fake_upload {
    char key[400], id[40], sha256[SHA256_HEX_BYTES], put_id[S3_PUT_ID_BYTES];
    struct slice parts[FAKE_PARTS_MAX];
    size_t part_count;
    int64_t t_ms;
    bool is_open;
};

struct fake_delayed {
    struct s3_request request;
    const char *headers[S3_PAIRS_MAX];
};

struct fake {
    struct s3_transport base;
    struct io *io;
    struct pool *pool;
    struct fake_object objects[FAKE_OBJECTS_MAX];
    size_t object_count;
    struct fake_upload uploads[64];
    size_t upload_count;
    struct fake_fault faults[FAKE_FAULTS_MAX];
    size_t fault_count;
    int requests, next_etag;
    int page_count;            /* entries of a list's page; 0 = 1,000 */
    int64_t date_ms;           /* of the header Date; 0 = now */
    const char *list;          /* the answer to lists instead of the true one */
    const char *denied_access; /* an access key that is refused as expired */
    const char *json;          /* the metadata service's credentials */
    unsigned metadata_status;  /* its answer to all; 0 = the true one */
    err metadata_err;          /* that it cannot be reached */
    struct fake_delayed delayed[16];
    size_t delayed_count;
    bool ignores_condition, ignores_condition_at_end, ignores_range, drops_metadata, drops_etags, gives_whole;
    bool is_closed;
    void (*meanwhile)(void); /* what happens before each request; may make requests of its own */
};

/* ---- the request, taken apart ---- */

struct fake_request {
    const struct s3_request *r;
    char key[400], query[FAKE_TEXT];
};

static inline const char *fake_header(const struct s3_request *r, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < r->header_count; i++)
        if (strncmp(r->headers[i], name, len) == 0 && r->headers[i][len] == ':')
            return r->headers[i] + len + 2;
    return "";
}

static inline bool fake_has(const struct fake_request *q, const char *name)
{
    char with[80];
    snprintf(with, sizeof with, "&%s=", name);
    return strstr(q->query, with) != NULL;
}

/* The value of a parameter, with %2F undone. */
static inline void fake_param(const struct fake_request *q, const char *name, char out[FAKE_TEXT])
{
    char with[80];
    snprintf(with, sizeof with, "&%s=", name);
    const char *at = strstr(q->query, with);
    size_t len = 0;
    for (at = at == NULL ? "" : at + strlen(with); *at != 0 && *at != '&'; at++)
        if (strncmp(at, "%2F", 3) == 0) {
            out[len++] = '/';
            at += 2;
        } else {
            out[len++] = *at;
        }
    out[len] = 0;
}

static inline void fake_take(const struct s3_request *r, struct fake_request *out)
{
    const char *path = strchr(strstr(r->url, "//") + 2, '/');
    const char *query = strchr(path, '?');
    const char *key = strchr(path + 1, '/');
    *out = (struct fake_request){ .r = r };
    if (key != NULL && (query == NULL || key < query))
        snprintf(out->key, sizeof out->key, "%.*s",
                 (int)(query != NULL ? query - key - 1 : (ptrdiff_t)strlen(key + 1)), key + 1);
    if (query != NULL)
        snprintf(out->query, sizeof out->query, "&%s", query + 1);
}

static inline struct fake_object *fake_find(struct fake *f, const char *key)
{
    for (size_t i = 0; i < f->object_count; i++)
        if (strcmp(f->objects[i].key, key) == 0)
            return &f->objects[i];
    return NULL;
}

static inline void fake_remove(struct fake *f, const char *key)
{
    struct fake_object *object = fake_find(f, key);
    if (object != NULL)
        *object = f->objects[--f->object_count];
}

static inline void fake_error(struct buf *body, struct s3_response *out, unsigned status, const char *code)
{
    out->status = status;
    buf_clear(body);
    buf_printf(body, "<?xml version=\"1.0\"?>\n<Error><Code>%s</Code><Message>so it is</Message></Error>",
               code);
}

static inline struct slice fake_copy(struct fake *f, struct slice bytes)
{
    struct slice copy;
    check(pool_copy(f->pool, bytes, &copy) == OK);
    return copy;
}

static inline void fake_store(struct fake *f, const char *key, struct slice bytes, const char *sha256,
                              const char *put_id)
{
    struct fake_object *object = fake_find(f, key);
    if (object == NULL) {
        check(f->object_count < FAKE_OBJECTS_MAX);
        object = &f->objects[f->object_count++];
    }
    *object = (struct fake_object){ .bytes = fake_copy(f, bytes), .t_ms = io_now_ms(f->io) };
    snprintf(object->key, sizeof object->key, "%s", key);
    snprintf(object->sha256, sizeof object->sha256, "%s", f->drops_metadata ? "" : sha256);
    snprintf(object->put_id, sizeof object->put_id, "%s", f->drops_metadata ? "" : put_id);
    snprintf(object->etag, sizeof object->etag, "\"%d\"", f->next_etag++);
}

/* ---- what the store does ---- */

static inline void fake_get(struct fake *f, const struct fake_request *q, struct buf *body,
                            struct s3_response *out)
{
    struct fake_object *object = fake_find(f, q->key);
    const char *range = fake_header(q->r, "range"), *match = fake_header(q->r, "if-match");
    bool is_head = strcmp(q->r->method, "HEAD") == 0;
    unsigned long long first = 0, last = 0;
    if (object == NULL) {
        fake_error(body, out, 404, "NoSuchKey");
        if (is_head)
            buf_clear(body);
        return;
    }
    if (match[0] != 0 && strcmp(match, object->etag) != 0) {
        fake_error(body, out, 412, "PreconditionFailed");
        return;
    }
    struct slice part = object->bytes;
    out->status = 200;
    if (range[0] != 0 && !f->ignores_range) {
        check(sscanf(range, "bytes=%llu-%llu", &first, &last) == 2);
        if (first >= object->bytes.len) {
            fake_error(body, out, 416, "InvalidRange");
            return;
        }
        last = last < object->bytes.len ? last : object->bytes.len - 1;
        part = slice_part(object->bytes, first, last - first + 1);
        if (!f->gives_whole || part.len < object->bytes.len) {
            out->status = 206;
            out->range_first = (int64_t)first;
            out->range_last = (int64_t)last;
            out->range_bytes = (int64_t)object->bytes.len;
        }
    }
    out->content_bytes = (int64_t)part.len;
    snprintf(out->etag, sizeof out->etag, "%s", object->etag);
    s3_response_header(out, slice_str(S3_META_SHA256), slice_str(object->sha256));
    s3_response_header(out, slice_str(S3_META_PUT), slice_str(object->put_id));
    if (!is_head)
        buf_put_slice(body, part);
}

/* Does the condition of a put not hold? */
static inline bool fake_forbids(struct fake *f, const struct fake_request *q, struct buf *body,
                                struct s3_response *out)
{
    const struct fake_object *object = fake_find(f, q->key);
    const char *match = fake_header(q->r, "if-match");
    if (match[0] != 0 && object == NULL)
        fake_error(body, out, 404, "NoSuchKey");
    else if ((strcmp(fake_header(q->r, "if-none-match"), "*") == 0 && object != NULL) ||
             (match[0] != 0 && strcmp(object->etag, match) != 0))
        fake_error(body, out, 412, "PreconditionFailed");
    else
        return false;
    return true;
}

static inline void fake_put(struct fake *f, const struct fake_request *q, struct buf *body,
                            struct s3_response *out)
{
    char crc[S3_BASE64_BYTES_4];
    s3_crc_print(crc32c(q->r->body, 0), crc);
    check(strcmp(fake_header(q->r, "x-amz-checksum-crc32c"), crc) == 0);
    if (!f->ignores_condition && fake_forbids(f, q, body, out))
        return;
    fake_store(f, q->key, q->r->body, fake_header(q->r, S3_META_SHA256), fake_header(q->r, S3_META_PUT));
    snprintf(out->etag, sizeof out->etag, "%s", fake_find(f, q->key)->etag);
    out->status = 200;
}

static inline struct fake_upload *fake_upload_of(struct fake *f, const struct fake_request *q)
{
    char id[FAKE_TEXT];
    fake_param(q, "uploadId", id);
    for (size_t i = 0; i < f->upload_count; i++)
        if (f->uploads[i].is_open && strcmp(f->uploads[i].id, id) == 0)
            return &f->uploads[i];
    return NULL;
}

static inline struct fake_upload *fake_begin(struct fake *f, const char *key, int64_t t_ms)
{
    check(f->upload_count < sizeof f->uploads / sizeof f->uploads[0]);
    struct fake_upload *upload = &f->uploads[f->upload_count++];
    *upload = (struct fake_upload){ .is_open = true, .t_ms = t_ms };
    snprintf(upload->key, sizeof upload->key, "%s", key);
    snprintf(upload->id, sizeof upload->id, "upload-%zu", f->upload_count);
    return upload;
}

static inline void fake_end(struct fake *f, const struct fake_request *q, struct fake_upload *upload,
                            struct buf *body, struct s3_response *out)
{
    static uint8_t whole[1 << 20];
    size_t len = 0;
    if (!f->ignores_condition_at_end && fake_forbids(f, q, body, out))
        return;
    for (size_t i = 0; i < upload->part_count; i++) {
        memcpy(whole + len, upload->parts[i].at, upload->parts[i].len);
        len += upload->parts[i].len;
    }
    fake_store(f, q->key, slice_of(whole, len), upload->sha256, upload->put_id);
    upload->is_open = false;
    out->status = 200;
    buf_put_str(body, " \n<?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>&quot;x-2&quot;</ETag>"
                      "</CompleteMultipartUploadResult>");
}

static inline void fake_upload_do(struct fake *f, const struct fake_request *q, struct buf *body,
                                  struct s3_response *out)
{
    struct fake_upload *upload = fake_upload_of(f, q);
    char number[FAKE_TEXT];
    if (upload == NULL) {
        fake_error(body, out, 404, "NoSuchUpload");
    } else if (strcmp(q->r->method, "DELETE") == 0) {
        upload->is_open = false;
        out->status = 204;
    } else if (strcmp(q->r->method, "POST") == 0) {
        fake_end(f, q, upload, body, out);
    } else {
        fake_param(q, "partNumber", number);
        size_t index = (size_t)strtol(number, NULL, 10) - 1;
        check(index < FAKE_PARTS_MAX && index <= upload->part_count);
        upload->parts[index] = fake_copy(f, q->r->body);
        upload->part_count = index == upload->part_count ? index + 1 : upload->part_count;
        snprintf(out->etag, sizeof out->etag, "\"part&%zu\"", index);
        out->status = 200;
    }
}

static inline void fake_time(int64_t t_ms, char out[FAKE_TIME_BYTES])
{
    char date[S3_DATE_BYTES];
    s3_date_print(t_ms, date);
    snprintf(out, FAKE_TIME_BYTES, "%.4s-%.2s-%.2sT%.2s:%.2s:%.2s.000Z", date, date + 4, date + 6, date + 9,
             date + 11, date + 13);
}

static inline void fake_list_uploads(struct fake *f, struct buf *body, struct s3_response *out)
{
    char date[FAKE_TIME_BYTES];
    buf_put_str(body, "<ListMultipartUploadsResult>");
    for (size_t i = 0; i < f->upload_count; i++)
        if (f->uploads[i].is_open) {
            fake_time(f->uploads[i].t_ms, date);
            buf_printf(body, "<Upload><Key>%s</Key><UploadId>%s</UploadId><Initiated>%s</Initiated></Upload>",
                       f->uploads[i].key, f->uploads[i].id, date);
        }
    buf_put_str(body, "</ListMultipartUploadsResult>");
    out->status = 200;
}

/* Pages in the order in which objects were put, which is no order. The token is an index. */
static inline void fake_list(struct fake *f, const struct fake_request *q, struct buf *body,
                             struct s3_response *out)
{
    char prefix[FAKE_TEXT], token[FAKE_TEXT], date[FAKE_TIME_BYTES];
    out->status = 200;
    if (f->list != NULL) {
        buf_put_str(body, f->list);
        return;
    }
    fake_param(q, "prefix", prefix);
    fake_param(q, "continuation-token", token);
    size_t i = (size_t)strtol(token, NULL, 10);
    int most = f->page_count > 0 ? f->page_count : 1000, given = 0;
    buf_put_str(
        body, "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (; i < f->object_count && given < most; i++)
        if (strncmp(f->objects[i].key, prefix, strlen(prefix)) == 0) {
            fake_time(f->objects[i].t_ms, date);
            buf_printf(body,
                       "<Contents><Key>%s</Key><LastModified>%s</LastModified><Size>1</Size></Contents>",
                       f->objects[i].key, date);
            given++;
        }
    buf_printf(body, "<IsTruncated>%s</IsTruncated>", i < f->object_count ? "true" : "false");
    if (i < f->object_count)
        buf_printf(body, "<NextContinuationToken>%zu</NextContinuationToken>", i);
    buf_put_str(body, "</ListBucketResult>");
}

static inline void fake_metadata(struct fake *f, const struct fake_request *q, struct buf *body,
                                 struct s3_response *out)
{
    if (f->metadata_status != 0) {
        out->status = f->metadata_status;
        return;
    }
    bool has_token = strcmp(fake_header(q->r, "X-aws-ec2-metadata-token"), "the-token") == 0;
    out->status = 200;
    if (strcmp(q->r->method, "PUT") == 0)
        buf_put_str(body, "the-token");
    else if (!has_token)
        out->status = 401;
    else if (strstr(q->r->url, "security-credentials/a-role") != NULL)
        buf_put_str(body, f->json);
    else
        buf_put_str(body, "a-role\n");
}

static inline void fake_do(struct fake *f, const struct fake_request *q, struct buf *body,
                           struct s3_response *out)
{
    const char *method = q->r->method;
    if (strstr(q->r->url, "/latest/") != NULL) {
        fake_metadata(f, q, body, out);
        return;
    }
    uint8_t digest[SHA256_BYTES];
    char sha256[SHA256_HEX_BYTES];
    sha256_of(q->r->body, digest);
    sha256_print(digest, sha256);
    check(strcmp(fake_header(q->r, "x-amz-content-sha256"), sha256) == 0);
    check(strncmp(fake_header(q->r, "Authorization"), "AWS4-HMAC-SHA256 Credential=", 28) == 0);
    if (f->denied_access != NULL && strstr(fake_header(q->r, "Authorization"), f->denied_access) != NULL)
        fake_error(body, out, 400, "ExpiredToken");
    else if (q->key[0] == 0 && fake_has(q, "uploads"))
        fake_list_uploads(f, body, out);
    else if (q->key[0] == 0)
        fake_list(f, q, body, out);
    else if (fake_has(q, "uploadId"))
        fake_upload_do(f, q, body, out);
    else if (strcmp(method, "POST") == 0) {
        struct fake_upload *upload = fake_begin(f, q->key, io_now_ms(f->io));
        snprintf(upload->sha256, sizeof upload->sha256, "%s", fake_header(q->r, S3_META_SHA256));
        snprintf(upload->put_id, sizeof upload->put_id, "%s", fake_header(q->r, S3_META_PUT));
        buf_printf(body,
                   "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>",
                   upload->id);
        out->status = 200;
    } else if (strcmp(method, "PUT") == 0)
        fake_put(f, q, body, out);
    else if (strcmp(method, "DELETE") == 0) {
        fake_remove(f, q->key);
        out->status = 204;
    } else
        fake_get(f, q, body, out);
}

/* ---- faults ---- */

static inline struct fake_fault *fake_fault_of(struct fake *f, const struct s3_request *r)
{
    for (size_t i = 0; i < f->fault_count; i++) {
        struct fake_fault *fault = &f->faults[i];
        if (fault->count == 0 || (fault->method != NULL && strcmp(fault->method, r->method) != 0) ||
            (fault->part != NULL && strstr(r->url, fault->part) == NULL))
            continue;
        if (fault->skip > 0) {
            fault->skip--;
            continue;
        }
        fault->count--;
        return fault;
    }
    return NULL;
}

static inline void fake_spoil(const struct fake_fault *fault, bool is_head, struct buf *body,
                              struct s3_response *out)
{
    switch (fault->kind) {
    case FAKE_STATUS:
    case FAKE_STATUS_AFTER:
        fake_error(body, out, fault->status, fault->code);
        out->retry_after_ms = fault->retry_after_ms > 0 ? fault->retry_after_ms : -1;
        break;
    case FAKE_TRUNCATED:
        body->len /= 2;
        break;
    case FAKE_SHIFTED:
        out->range_first++;
        out->range_last++;
        out->range_bytes++;
        break;
    case FAKE_FLIPPED:
        if (body->len > 0)
            body->at[body->len / 2] ^= 1;
        break;
    case FAKE_GARBAGE:
        buf_clear(body);
        buf_put_str(body, "<html><body>Welcome!</html>");
        break;
    case FAKE_PAGE:
    case FAKE_PAGE_ETAG:
        out->status = 200;
        if (!is_head)
            buf_put_str(body, "<html><body>Welcome!</html>");
        out->content_bytes = 27;
        snprintf(out->etag, sizeof out->etag, "%s", fault->kind == FAKE_PAGE ? "" : "\"page\"");
        break;
    case FAKE_NO_METADATA:
        out->sha256[0] = out->put_id[0] = 0;
        break;
    case FAKE_BARE:
        out->status = fault->status;
        if (!is_head)
            buf_put_str(body, "<html>no</html>");
        break;
    default:
        break;
    }
}

/* Keep a request that got stuck on the way. */
static inline void fake_delay(struct fake *f, const struct s3_request *r)
{
    check(f->delayed_count < sizeof f->delayed / sizeof f->delayed[0]);
    struct fake_delayed *d = &f->delayed[f->delayed_count++];
    d->request = *r;
    d->request.method = (const char *)fake_copy(f, slice_str(r->method)).at;
    d->request.url = (const char *)fake_copy(f, slice_str(r->url)).at;
    d->request.body = fake_copy(f, r->body);
    check(r->header_count <= S3_PAIRS_MAX);
    for (size_t i = 0; i < r->header_count; i++)
        d->headers[i] = (const char *)fake_copy(f, slice_str(r->headers[i])).at;
}

/* What got stuck arrives now, and nobody hears the answer. */
static inline void fake_land(struct fake *f)
{
    for (size_t i = 0; i < f->delayed_count; i++) {
        struct fake_request q;
        struct s3_response out;
        struct buf body = buf_open(f->pool, SIZE_MAX);
        f->delayed[i].request.headers = f->delayed[i].headers;
        s3_response_init(&out);
        fake_take(&f->delayed[i].request, &q);
        fake_do(f, &q, &body, &out);
        buf_close(&body);
    }
    f->delayed_count = 0;
}

static inline err fake_exchange(struct s3_transport *base, const struct s3_request *r, struct buf *body,
                                struct s3_response *out, struct err_at *at)
{
    struct fake *f = (struct fake *)base;
    struct fake_request q;
    f->requests++;
    if (f->meanwhile != NULL)
        f->meanwhile();
    fake_take(r, &q);
    s3_response_init(out);
    out->date_ms = f->date_ms != 0 ? f->date_ms : io_now_ms(f->io);
    if (f->metadata_err != OK && strstr(r->url, "/latest/") != NULL)
        return err_set(at, f->metadata_err, "not to be reached");
    const struct fake_fault *fault = fake_fault_of(f, r);
    enum fake_fault_kind kind = fault != NULL ? fault->kind : FAKE_NONE;
    if (kind == FAKE_LOST_BEFORE)
        return err_set(at, ERR_IO, "connection refused");
    if (kind == FAKE_DELAYED) {
        fake_delay(f, r);
        return err_set(at, ERR_TIMEOUT, "no answer");
    }
    if (kind != FAKE_STATUS && kind != FAKE_PAGE && kind != FAKE_PAGE_ETAG && kind != FAKE_BARE)
        fake_do(f, &q, body, out);
    if (f->drops_etags)
        out->etag[0] = 0;
    if (kind == FAKE_LOST_AFTER) {
        s3_response_init(out);
        buf_clear(body);
        return err_set(at, ERR_TIMEOUT, "no answer");
    }
    if (fault != NULL)
        fake_spoil(fault, strcmp(r->method, "HEAD") == 0, body, out);
    return OK;
}

static inline void fake_close(struct s3_transport *base) { ((struct fake *)base)->is_closed = true; }

static inline void fake_init(struct fake *f, struct io *io, struct pool *pool)
{
    *f = (struct fake){ .base = { fake_exchange, fake_close }, .io = io, .pool = pool };
}

static inline void fake_add(struct fake *f, struct fake_fault fault)
{
    check(f->fault_count < FAKE_FAULTS_MAX);
    f->faults[f->fault_count++] = fault;
}

static inline size_t fake_open_uploads(const struct fake *f)
{
    size_t count = 0;
    for (size_t i = 0; i < f->upload_count; i++)
        count += f->uploads[i].is_open;
    return count;
}

#endif
