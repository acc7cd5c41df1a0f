/* Puts into an S3 store. From: blob_s3.c. To: s3_request.c.
 *
 *   bytes, small file:  PUT If-None-Match:* ─ 200, ETag ────────────────────────────────────────→ OK
 *                          ↑      ├─ 412 ──────────────────→ look ─ there, by this call ────────→ OK
 *                          │      ├─ anything else ─ wait ────────↗├ there, by another ─→ ERR_EXISTS
 *                          └──────┼────────── absent ──────────────┘
 *                                 └─ refused for good ─→ its error
 *   larger file:        look ─ begin ─ part, part, … ─ end If-None-Match:* ─→ as above; "absent" ends it
 *                       again, or, when the upload is gone with a conflict (409) or otherwise (404), begins anew
 *   replacing:          the same, with a look first, and If-Match of what was seen there instead of ERR_EXISTS
 *
 * Every put writes a random number of its own into the object's metadata. A put whose answer was lost is thereby
 * recognised when the object is looked at, also when the HTTP client or a proxy repeated it on its own. Every put
 * has a condition, so that one which got stuck on the way and arrives after a later one changes nothing: its
 * condition was that the later one had not been there.
 *
 * Invariants
 * 1. OK only after the store said so, or after the object was seen with this call's number, size and SHA-256.
 * 2. ERR_EXISTS only after the object was seen with another number, or with none by two requests; then this call's
 *    bytes are nowhere.
 * 3. An upload in parts is ended or given up, after S3_UPLOAD_MS_MAX at the latest; one that a crash leaves is
 *    swept later than that (s3_probe.c). */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "blob/s3.h"
#include "io/io.h"

#define ROUNDS_MAX           3          /* uploads begun for one file, after conflicts */
#define COMPLETION_BYTES_MAX (4u << 20) /* 10,000 parts of 270 bytes */
#define COMPLETION_MS        60000 /* a store may put the parts together before it answers: "minutes", S3 says */
#define COMPLETION_PART_MS   100
#define UPLOAD_ANSWER_BYTES  65536
#define ABORT_MS             5000 /* how long an upload is tried to be given up */

/* What is put, and how it is recognised. */
struct put {
    const char *key;
    uint64_t size;
    bool if_absent;
    char id[S3_PUT_ID_BYTES];
    char sha256[SHA256_HEX_BYTES];
    char etag[S3_ETAG_BYTES_MAX]; /* of what was there at the last look; "" = nothing was */
};

void s3_put_id(struct s3_store *s, char out[S3_PUT_ID_BYTES])
{
    uint8_t bits[(S3_PUT_ID_BYTES - 1) / 2];
    io_random(s->io, bits, sizeof bits);
    for (size_t i = 0; i < sizeof bits; i++)
        snprintf(out + 2 * i, 3, "%02x", bits[i]);
}

static void add(struct s3_call *call, const char *name, const char *value)
{
    check(call->header_count < sizeof call->headers / sizeof call->headers[0]);
    call->headers[call->header_count++] = (struct s3_pair){ name, value };
}

/* Whose object is there? ERR_EXISTS another's, ERR_NOT_FOUND none is; put->etag tells, too. */
static err look(struct s3_store *s, struct put *put, struct s3_result *r, struct s3_patience *patience)
{
    const struct s3_response *seen = &r->response;
    put->etag[0] = 0;
    TRY(s3_head(s, put->key, false, r, patience));
    int64_t bytes = seen->content_bytes;
    memcpy(put->etag, seen->etag, sizeof put->etag);
    if (seen->put_id[0] == 0) { /* not written by this driver, or the answer is not the store's */
        err e = s3_first_byte(s, put->key, r, patience);
        if (e == ERR_NOT_FOUND)
            put->etag[0] = 0;
        if (e != OK)
            return e == ERR_END ? ERR_EXISTS : e;
        bytes = seen->range_bytes;
        memcpy(put->etag, seen->etag, sizeof put->etag);
    }
    bool is_ours = strcmp(seen->put_id, put->id) == 0 && strcmp(seen->sha256, put->sha256) == 0 &&
                   bytes >= 0 && (uint64_t)bytes == put->size;
    return is_ours ? OK : ERR_EXISTS;
}

/* After a try to put ended with e. Returns true when *out_e is the outcome, false: try again. */
static bool is_settled(struct s3_store *s, struct put *put, err e, struct s3_result *r,
                       struct s3_patience *patience, err *out_e)
{
    *out_e = e == ERR_CONFLICT ? ERR_BUSY : e;
    if (e == OK || (r->is_final && e != ERR_EXISTS))
        return true;
    bool may_retry = e == ERR_EXISTS || s3_wait(s, patience, r);
    struct err_at why = r->why;
    err seen = look(s, put, r, patience);
    bool may_put = seen == ERR_NOT_FOUND || (seen == ERR_EXISTS && !put->if_absent);
    if (!may_put && (seen == OK || seen == ERR_EXISTS || may_retry)) {
        *out_e = seen;
        return true;
    }
    r->why = why; /* nothing is known but the first failure; or it may be put */
    r->is_final = false;
    if (may_put && may_retry &&
        e == ERR_EXISTS) /* refused for an object that is gone, or comes, or changes */
        may_retry = s3_wait(s, patience, r);
    *out_e = e == ERR_EXISTS || e == ERR_CONFLICT ? ERR_BUSY : e;
    return !may_retry;
}

/* What a put may replace: nothing, or what was seen there. */
static const char *replaced_by(const struct put *put) { return put->if_absent ? "" : put->etag; }

static void add_condition(struct s3_call *call, const char *if_match)
{
    add(call, if_match[0] != 0 ? "if-match" : "if-none-match", if_match[0] != 0 ? if_match : "*");
}

static err accept_put(const struct s3_call *call, struct s3_result *r)
{
    return r->response.etag[0] != 0 ? OK : err_set(&r->why, ERR_IO, "PUT %.240s: no ETag", call->key);
}

static err put_bytes(struct s3_store *s, struct put *put, struct slice bytes, struct s3_result *r)
{
    char crc[S3_BASE64_BYTES_4];
    struct s3_patience patience = { 0 };
    s3_crc_print(crc32c(bytes, 0), crc);
    struct s3_call call = { .method = "PUT",
                            .key = put->key,
                            .body = bytes,
                            .body_sha256 = put->sha256,
                            .answer_bytes_max = UPLOAD_ANSWER_BYTES,
                            .accept = accept_put };
    add(&call, "x-amz-checksum-crc32c", crc);
    add(&call, S3_META_SHA256, put->sha256);
    add(&call, S3_META_PUT, put->id);
    size_t header_count = call.header_count;
    err e = put->if_absent ? ERR_NOT_FOUND : look(s, put, r, &patience);
    if (e != ERR_NOT_FOUND && e != ERR_EXISTS)
        return e;
    do {
        call.header_count = header_count;
        add_condition(&call, replaced_by(put));
    } while (!is_settled(s, put, s3_try(s, &call, r), r, &patience, &e));
    return e;
}

static void describe(struct s3_store *s, const char *key, bool if_absent, struct put *out)
{
    *out = (struct put){ .key = key, .if_absent = if_absent };
    s3_put_id(s, out->id);
}

err s3_put(struct s3_store *s, const char *key, struct slice bytes, bool if_absent, struct s3_result *r)
{
    struct put put;
    uint8_t digest[SHA256_BYTES];
    describe(s, key, if_absent, &put);
    put.size = bytes.len;
    sha256_of(bytes, digest);
    sha256_print(digest, put.sha256);
    return put_bytes(s, &put, bytes, r);
}

/* ---- uploads in parts ---- */

static err accept_begun(const struct s3_call *call, struct s3_result *r)
{
    struct s3_answer answer;
    char *out = call->context;
    if (s3_answer_decode(buf_slice(&r->body), r->body.pool, &answer) != OK ||
        answer.kind != S3_ANSWER_INITIATED)
        return err_set(&r->why, ERR_IO, "POST %.240s: the answer names no upload", call->key);
    snprintf(out, S3_UPLOAD_ID_BYTES_MAX, "%s", answer.upload_id);
    return OK;
}

err s3_upload_begin(struct s3_store *s, const char *key, const char *put_id, const char *sha256,
                    char out_upload_id[S3_UPLOAD_ID_BYTES_MAX], struct s3_result *r)
{
    struct s3_call call = { .method = "POST",
                            .key = key,
                            .params = { { "uploads", "" } },
                            .param_count = 1,
                            .answer_bytes_max = UPLOAD_ANSWER_BYTES,
                            .accept = accept_begun,
                            .context = out_upload_id };
    add(&call, "x-amz-checksum-algorithm", "CRC32C");
    add(&call, S3_META_SHA256, sha256);
    add(&call, S3_META_PUT, put_id);
    return s3_do(s, &call, r);
}

err s3_upload_part(struct s3_store *s, const char *key, const char *upload_id, unsigned number,
                   struct slice bytes, struct s3_part *out, struct s3_result *r)
{
    char number_text[16], sha256[SHA256_HEX_BYTES], crc[S3_BASE64_BYTES_4];
    uint8_t digest[SHA256_BYTES];
    sha256_of(bytes, digest);
    sha256_print(digest, sha256);
    out->crc = crc32c(bytes, 0);
    s3_crc_print(out->crc, crc);
    snprintf(number_text, sizeof number_text, "%u", number);
    struct s3_call call = { .method = "PUT",
                            .key = key,
                            .params = { { "partNumber", number_text }, { "uploadId", upload_id } },
                            .param_count = 2,
                            .body = bytes,
                            .body_sha256 = sha256,
                            .answer_bytes_max = UPLOAD_ANSWER_BYTES,
                            .accept = accept_put };
    add(&call, "x-amz-checksum-crc32c", crc);
    err e = s3_do(s, &call, r);
    TRY(e == ERR_NOT_FOUND ? ERR_CONFLICT : e);
    memcpy(out->etag, r->response.etag, sizeof out->etag);
    return OK;
}

static void put_escaped(struct buf *out, const char *text)
{
    for (; *text != 0; text++)
        if (strchr("<>&\"'", *text) != NULL)
            buf_printf(out, "&#%d;", *text);
        else
            buf_put_u8(out, (uint8_t)*text);
}

static void put_completion(struct buf *out, const struct s3_part *parts, size_t count)
{
    char crc[S3_BASE64_BYTES_4];
    buf_put_str(out, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (size_t i = 0; i < count; i++) {
        s3_crc_print(parts[i].crc, crc);
        buf_printf(out, "<Part><PartNumber>%zu</PartNumber><ETag>", i + 1);
        put_escaped(out, parts[i].etag);
        buf_printf(out, "</ETag><ChecksumCRC32C>%s</ChecksumCRC32C></Part>", crc);
    }
    buf_put_str(out, "</CompleteMultipartUpload>");
}

/* A store begins to answer before it is done: an answer of 200 may hold an error. */
static err judge_completion(struct s3_result *r, const char *key)
{
    struct s3_answer answer;
    if (s3_answer_decode(buf_slice(&r->body), r->body.pool, &answer) != OK)
        return err_set(&r->why, ERR_IO, "POST %.240s: the end of an upload has no answer", key);
    if (answer.kind == S3_ANSWER_COMPLETED)
        return OK;
    if (answer.kind != S3_ANSWER_ERROR)
        return err_set(&r->why, ERR_IO, "POST %.240s: the end of an upload has another's answer", key);
    snprintf(r->code, sizeof r->code, "%s", answer.code);
    err e = strcmp(answer.code, "PreconditionFailed") == 0 ? ERR_EXISTS
            : strcmp(answer.code, "NoSuchUpload") == 0     ? ERR_NOT_FOUND
            : strcmp(answer.code, "SlowDown") == 0         ? ERR_BUSY
                                                           : ERR_IO;
    r->is_final = e == ERR_EXISTS || e == ERR_NOT_FOUND;
    return err_set(&r->why, e, "POST %.240s: 200 with %s: %.150s", key, answer.code, answer.message);
}

err s3_upload_end(struct s3_store *s, const char *key, const char *upload_id, const struct s3_part *parts,
                  size_t part_count, const char *if_match, struct s3_result *r)
{
    struct pool *pool = pool_open(s->pool, "s3_completion", POOL_BYTES_UNLIMITED);
    struct buf body = buf_open(pool, COMPLETION_BYTES_MAX);
    uint8_t digest[SHA256_BYTES];
    char sha256[SHA256_HEX_BYTES];
    put_completion(&body, parts, part_count);
    err e = buf_err(&body);
    sha256_of(buf_slice(&body), digest);
    sha256_print(digest, sha256);
    struct s3_call call = { .method = "POST",
                            .key = key,
                            .params = { { "uploadId", upload_id } },
                            .param_count = 1,
                            .body = buf_slice(&body),
                            .body_sha256 = sha256,
                            .answer_bytes_max = UPLOAD_ANSWER_BYTES,
                            .more_ms = COMPLETION_MS + (int64_t)part_count * COMPLETION_PART_MS };
    add_condition(&call, if_match);
    r->is_final = true;
    if (e == OK)
        e = s3_try(s, &call, r);
    if (e == OK)
        e = judge_completion(r, key);
    pool_close(pool);
    return e;
}

static struct s3_call abort_of(const char *key, const char *upload_id)
{
    return (struct s3_call){ .method = "DELETE",
                             .key = key,
                             .params = { { "uploadId", upload_id } },
                             .param_count = 1,
                             .answer_bytes_max = UPLOAD_ANSWER_BYTES };
}

err s3_upload_abort(struct s3_store *s, const char *key, const char *upload_id, struct s3_result *r)
{
    struct s3_call call = abort_of(key, upload_id);
    return s3_try(s, &call, r);
}

/* ---- files ---- */

struct file_put {
    struct put put;
    struct io_file *file;
    uint8_t *buffer; /* part_bytes, or the whole of a smaller file */
    struct s3_part *parts;
    size_t part_count;
    size_t part_bytes;
    char upload_id[S3_UPLOAD_ID_BYTES_MAX];
};

static size_t part_len(const struct file_put *f, size_t index)
{
    uint64_t left = f->put.size - (uint64_t)index * f->part_bytes;
    return left < f->part_bytes ? (size_t)left : f->part_bytes;
}

static err read_part(struct file_put *f, size_t index)
{
    return io_file_read(f->file, (uint64_t)index * f->part_bytes, f->buffer, part_len(f, index), NULL);
}

/* The SHA-256 of all: it goes into the metadata, which is sent before the first part. */
static err digest_file(struct file_put *f)
{
    struct sha256 *state = sha256_open();
    uint8_t digest[SHA256_BYTES];
    err e = OK;
    for (size_t i = 0; i < f->part_count && e == OK; i++) {
        e = read_part(f, i);
        if (e == OK)
            sha256_add(state, slice_of(f->buffer, part_len(f, i)));
    }
    sha256_finish(state, digest);
    sha256_print(digest, f->put.sha256);
    return e;
}

static err send_parts(struct s3_store *s, struct file_put *f, struct s3_result *r)
{
    struct sha256 *state = sha256_open();
    uint8_t digest[SHA256_BYTES];
    char text[SHA256_HEX_BYTES];
    int64_t begun_ns = io_monotonic_ns(s->io);
    err e = OK;
    for (size_t i = 0; i < f->part_count && e == OK; i++) {
        struct slice bytes = slice_of(f->buffer, part_len(f, i));
        e = read_part(f, i);
        if (e == OK && (io_monotonic_ns(s->io) - begun_ns) / NS_PER_MS > S3_UPLOAD_MS_MAX)
            e = err_set(&r->why, ERR_TIMEOUT, "PUT %.240s: the upload takes longer than a day", f->put.key);
        if (e == OK) {
            sha256_add(state, bytes);
            e = s3_upload_part(s, f->put.key, f->upload_id, (unsigned)i + 1, bytes, &f->parts[i], r);
        }
    }
    sha256_finish(state, digest);
    sha256_print(digest, text);
    if (e == OK && strcmp(text, f->put.sha256) != 0)
        e = err_set(&r->why, ERR_IO, "PUT %.240s: the file changed while it was sent", f->put.key);
    return e;
}

/* The end of an upload whose parts are all there. *out_is_ended: it has become the object, as the store said. */
static err end_upload(struct s3_store *s, struct file_put *f, struct s3_result *r, bool *out_is_ended)
{
    struct s3_patience patience = { 0 };
    struct put *put = &f->put;
    err outcome = OK;
    if (!put->if_absent) {
        err seen = look(s, put, r, &patience);
        if (seen != ERR_NOT_FOUND && seen != ERR_EXISTS)
            return seen;
    }
    for (;;) {
        err e = s3_upload_end(s, put->key, f->upload_id, f->parts, f->part_count, replaced_by(put), r);
        *out_is_ended = e == OK;
        if (e == ERR_CONFLICT ||
            e == ERR_NOT_FOUND) { /* used up: by an end whose answer was lost, or a conflict */
            outcome = look(s, put, r, &patience);
            return outcome == ERR_NOT_FOUND || (outcome == ERR_EXISTS && !put->if_absent) ? ERR_CONFLICT
                                                                                          : outcome;
        }
        if (is_settled(s, put, e, r, &patience, &outcome))
            return outcome;
    }
}

/* One upload. ERR_CONFLICT: it is gone, or met a conflict, and the object is not there: begin anew. */
static err upload(struct s3_store *s, struct file_put *f, struct s3_result *r)
{
    bool is_ended = false;
    TRY(s3_upload_begin(s, f->put.key, f->put.id, f->put.sha256, f->upload_id, r));
    err e = send_parts(s, f, r);
    if (e == OK)
        e = end_upload(s, f, r, &is_ended);
    if (!is_ended) { /* also when the object is there: an earlier upload of this call may have become it */
        struct s3_patience patience = { .until_ns = io_monotonic_ns(s->io) + ABORT_MS * NS_PER_MS };
        struct s3_call call = abort_of(f->put.key, f->upload_id);
        struct err_at why = r->why;
        ERR_IGNORE(s3_do_within(s, &call, r, &patience)); /* swept later otherwise */
        r->why = why;
    }
    return e;
}

static err upload_rounds(struct s3_store *s, struct file_put *f, struct s3_result *r)
{
    struct s3_patience patience = { 0 };
    if (f->put.if_absent) { /* cheaper than sending all of it for nothing */
        err seen = look(s, &f->put, r, &patience);
        if (seen != ERR_NOT_FOUND)
            return seen;
    }
    err e = ERR_CONFLICT;
    for (int round = 0; round < ROUNDS_MAX && e == ERR_CONFLICT; round++) {
        patience.until_ns = 0; /* the last round may have taken longer than a call goes on after a failure */
        if (round > 0 && !s3_wait(s, &patience, r))
            break;
        e = upload(s, f, r);
    }
    return e == ERR_CONFLICT ? ERR_BUSY : e;
}

static err put_open_file(struct s3_store *s, struct file_put *f, struct pool *pool, struct s3_result *r)
{
    void *at;
    f->part_bytes = s->config.part_bytes;
    TRY(io_file_size(f->file, &f->put.size));
    if (f->put.size > (uint64_t)f->part_bytes * S3_PARTS_MAX)
        return err_set(&r->why, ERR_LIMIT, "PUT %.240s: more than %d parts", f->put.key, S3_PARTS_MAX);
    f->part_count = (size_t)((f->put.size + f->part_bytes - 1) / f->part_bytes);
    TRY(pool_alloc(pool, (f->put.size < f->part_bytes ? (size_t)f->put.size : f->part_bytes) + 1, &at));
    f->buffer = at;
    TRY(digest_file(f));
    if (f->part_count <= 1) /* it is in the buffer */
        return put_bytes(s, &f->put, slice_of(f->buffer, (size_t)f->put.size), r);
    TRY(pool_zalloc(pool, f->part_count * sizeof f->parts[0], &at));
    f->parts = at;
    return upload_rounds(s, f, r);
}

err s3_put_file(struct s3_store *s, const char *key, const char *temp_path, bool if_absent,
                struct s3_result *r)
{
    struct file_put f = { 0 };
    TRY(io_file_open(s->io, temp_path, IO_READ, &f.file));
    struct pool *pool = pool_open(s->pool, "s3_file", POOL_BYTES_UNLIMITED);
    describe(s, key, if_absent, &f.put);
    err e = put_open_file(s, &f, pool, r);
    pool_close(pool);
    io_file_close(f.file);
    if (e == OK)
        ERR_IGNORE(io_unlink(s->io, temp_path)); /* a builder unlinks what it finds there */
    return e;
}
