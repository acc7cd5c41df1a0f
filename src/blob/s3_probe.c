/* What a bucket must do, tried out when it is opened with an object of its own below "probe/":
 *
 *   list ─ put if absent ─ again: 412 ─ head: ETag, metadata ─ read a range ─ upload parts onto it: 412 ─ delete
 *
 * A store that ignores If-None-Match would let two writers both win a manifest entry, so it is refused and not
 * used with care. Then what earlier processes left is removed: such objects, and uploads that nobody ended.
 *
 * Invariants
 * 1. Nothing but objects below "probe/" and uploads older than LEFTOVER_MS is removed.
 * 2. ERR_UNSUPPORTED is the store's own word, or what it did; a network that fails is told as what it is.
 * 3. Removing what others left takes SWEEP_MS and one request at most, and no retries. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/time.h"
#include "blob/s3.h"
#include "io/io.h"

#define PROBE_DIRECTORY "probe"
#define PROBE_BYTES     "kelpie tries this store out"
#define LEFTOVER_MS     (2 * S3_UPLOAD_MS_MAX) /* nobody sends parts so long; the rest is for its last requests */
#define SWEEP_MS        (10 * MS_PER_SECOND)

struct probe {
    struct s3_store *s;
    struct err_at *at;
    char key[64];
    char upload_id[S3_UPLOAD_ID_BYTES_MAX];
    int64_t sweep_until_ns;
};

static err lacks(const struct probe *p, const char *what)
{
    return err_set(p->at, ERR_UNSUPPORTED, "the store at %.200s %s", p->s->config.endpoint, what);
}

/* An error of the bucket itself, as the opener is told. */
static err tell(const struct probe *p, err e, const struct s3_result *r)
{
    const char *endpoint = p->s->config.endpoint, *bucket = p->s->config.bucket;
    if (e == OK)
        return OK;
    if (strcmp(r->code, "NoSuchBucket") == 0)
        return err_set(p->at, ERR_NOT_FOUND, "there is no bucket %s at %.200s", bucket, endpoint);
    if (e == ERR_DENIED && r->response.status != 0)
        return err_set(p->at, e, "%.200s refuses access to the bucket %s: %.250s", endpoint, bucket,
                       r->why.text);
    return err_set(p->at, e, "the bucket %s at %.200s cannot be used: %.250s", bucket, endpoint, r->why.text);
}

/* A request that the store must take failed: is it the store's word, or did nobody say anything? */
static err refuse(const struct probe *p, err e, const struct s3_result *r, const char *what)
{
    unsigned status = r->response.status;
    bool is_word = r->is_final && e != ERR_DENIED && ((status >= 400 && status < 500) || status == 501);
    if (!is_word || strcmp(r->code, "NoSuchBucket") == 0)
        return tell(p, e == ERR_CONFLICT ? ERR_BUSY : e, r);
    return err_set(p->at, ERR_UNSUPPORTED, "the store at %.200s %s: %.200s", p->s->config.endpoint, what,
                   r->why.text);
}

static err accept_list(const struct s3_call *call, struct s3_result *r)
{
    err e = s3_answer_decode(buf_slice(&r->body), r->body.pool, call->context);
    const struct s3_answer *answer = call->context;
    return e == OK && answer->kind == S3_ANSWER_LIST
               ? OK
               : err_set(&r->why, ERR_IO, "the answer to a list is not a list");
}

/* The first page of the probes that are there. Bucket, credentials and clock are all tried by it. */
static err list_probes(struct probe *p, struct s3_result *r, struct s3_answer *out)
{
    char prefix[S3_PATH_BYTES];
    const char *ours = p->s->config.prefix;
    snprintf(prefix, sizeof prefix, "%s%s" PROBE_DIRECTORY "/", ours, ours[0] != 0 ? "/" : "");
    struct s3_call call = { .method = "GET",
                            .params = { { "list-type", "2" }, { "prefix", prefix }, { "max-keys", "1000" } },
                            .param_count = 3,
                            .answer_bytes_max = S3_ANSWER_BYTES_MAX,
                            .accept = accept_list,
                            .context = out };
    return tell(p, s3_do(p->s, &call, r), r);
}

/* Is that why a put could not be seen to have worked? */
static bool has_no_etags(struct probe *p, struct s3_result *r)
{
    struct s3_call head = { .method = "HEAD", .key = p->key };
    return s3_try(p->s, &head, r) == OK && r->response.etag[0] == 0 && r->response.put_id[0] != 0;
}

static err try_puts(struct probe *p, struct s3_result *r)
{
    struct slice bytes = slice_str(PROBE_BYTES);
    err e = s3_put(p->s, p->key, bytes, true, r);
    if (e == ERR_EXISTS)
        return lacks(p, "says that a new key is there");
    if (e == OK) {
        e = s3_put(p->s, p->key, slice_part(bytes, 0, 6), true, r);
        if (e == ERR_EXISTS)
            return OK;
        if (e == OK)
            return lacks(p, "ignores If-None-Match: a put replaced an object that was there");
    }
    e = refuse(p, e, r, "does not put an object if it is absent");
    return !r->is_final && has_no_etags(p, r) ? lacks(p, "gives no ETag") : e;
}

static err try_reads(struct probe *p, struct s3_result *r)
{
    struct s3_patience patience = { 0 };
    struct s3_version version = { .size = strlen(PROBE_BYTES) };
    char part[4];
    err e = s3_head(p->s, p->key, true, r, &patience);
    if (e != OK)
        return refuse(p, e, r, "does not answer HEAD");
    if ((uint64_t)r->response.content_bytes != version.size)
        return lacks(p, "ignores If-None-Match: a put changed an object that was there");
    if (r->response.sha256[0] == 0 || r->response.put_id[0] == 0)
        return lacks(p, "does not keep metadata (x-amz-meta-…)");
    memcpy(version.etag, r->response.etag, sizeof version.etag);
    e = s3_read(p->s, p->key, &version, 7, part, sizeof part, r);
    if (e == OK && memcmp(part, &PROBE_BYTES[7], sizeof part) == 0)
        return OK;
    if (e == OK || r->response.status == 200) /* all of it, or other bytes */
        return lacks(p, "does not read ranges");
    return refuse(p, e, r, "does not read ranges");
}

static err try_end(struct probe *p, struct s3_result *r)
{
    struct s3_patience patience = { 0 };
    struct s3_part part;
    err e = s3_upload_part(p->s, p->key, p->upload_id, 1, slice_str("part"), &part, r);
    while (e == OK) {
        e = s3_upload_end(p->s, p->key, p->upload_id, &part, 1, "", r);
        if (e == OK)
            return lacks(p, "ignores If-None-Match at the end of an upload in parts");
        if (r->is_final || !s3_wait(p->s, &patience, r))
            break;
        e = OK;
    }
    return e == ERR_EXISTS ? OK : refuse(p, e, r, "does not end an upload in parts as it should");
}

static err try_upload(struct probe *p, struct s3_result *r)
{
    char id[S3_PUT_ID_BYTES];
    s3_put_id(p->s, id);
    err e = s3_upload_begin(p->s, p->key, id, S3_EMPTY_SHA256, p->upload_id, r);
    if (e != OK)
        return refuse(p, e, r, "does not take uploads in parts");
    e = try_end(p, r);
    ERR_IGNORE(s3_upload_abort(p->s, p->key, p->upload_id, r)); /* swept later otherwise */
    return e;
}

/* ---- what others left: best effort, since the next start tries again ---- */

static err remove_object(struct s3_store *s, const char *key, struct s3_result *r)
{
    struct s3_call call = { .method = "DELETE", .key = key, .answer_bytes_max = S3_ERROR_BYTES_MAX };
    return s3_try(s, &call, r);
}

/* Gone, by us or another. */
static bool is_given_up(const struct probe *p, const struct s3_item *item, size_t skip, struct s3_result *r)
{
    err e = s3_upload_abort(p->s, item->key + skip, item->upload_id, r);
    return e == OK || e == ERR_NOT_FOUND;
}

static bool is_time_left(const struct probe *p) { return io_monotonic_ns(p->s->io) < p->sweep_until_ns; }

/* Remove probes that a crash left: their names begin with the time. False: a request failed. */
static bool sweep_probes(struct probe *p, const struct s3_answer *list, struct s3_result *r)
{
    const char *ours = p->s->config.prefix;
    size_t skip = ours[0] != 0 ? strlen(ours) + 1 : 0;
    int64_t now_ms = io_now_ms(p->s->io);
    for (size_t i = 0; i < list->count; i++) {
        const char *key = list->items[i].key;
        if (strlen(key) <= skip || strncmp(key + skip, PROBE_DIRECTORY "/", sizeof PROBE_DIRECTORY) != 0 ||
            blob_key_check(key + skip) != OK)
            continue;
        int64_t t_ms = strtoll(key + skip + sizeof PROBE_DIRECTORY, NULL, 10);
        if (t_ms > 0 && now_ms - t_ms > MS_PER_HOUR &&
            (!is_time_left(p) || remove_object(p->s, key + skip, r) != OK))
            return false;
    }
    return true;
}

/* Give up uploads that nobody has ended for so long. Not every store lists them. */
static void sweep_uploads(struct probe *p, struct s3_result *r)
{
    struct s3_store *s = p->s;
    const char *ours = s->config.prefix;
    size_t skip = ours[0] != 0 ? strlen(ours) + 1 : 0;
    char prefix[S3_PREFIX_BYTES_MAX + 2];
    struct s3_answer list;
    struct pool *pool = pool_open(s->pool, "s3_sweep", POOL_BYTES_UNLIMITED);
    snprintf(prefix, sizeof prefix, "%s%s", ours, skip > 0 ? "/" : "");
    struct s3_call call = { .method = "GET",
                            .params = { { "uploads", "" }, { "prefix", prefix } },
                            .param_count = 2,
                            .answer_bytes_max = S3_ANSWER_BYTES_MAX };
    bool is_list = is_time_left(p) && s3_try(s, &call, r) == OK &&
                   s3_answer_decode(buf_slice(&r->body), pool, &list) == OK && list.kind == S3_ANSWER_UPLOADS;
    int64_t now_ms = io_now_ms(s->io);
    for (size_t i = 0; is_list && i < list.count; i++) {
        const struct s3_item *item = &list.items[i];
        if (strncmp(item->key, prefix, skip) == 0 && blob_key_check(item->key + skip) == OK &&
            item->t_ms > 0 && now_ms - item->t_ms > LEFTOVER_MS && item->upload_id[0] != 0 &&
            (!is_time_left(p) || !is_given_up(p, item, skip, r)))
            break;
    }
    pool_close(pool);
}

/* With OK the probe's object is gone. */
static err try_all(struct probe *p, struct s3_result *r)
{
    struct s3_call removal = { .method = "DELETE", .key = p->key, .answer_bytes_max = S3_ERROR_BYTES_MAX };
    err e = try_puts(p, r);
    if (e == OK)
        e = try_reads(p, r);
    if (e == OK)
        e = try_upload(p, r);
    if (e == OK)
        return tell(p, s3_do(p->s, &removal, r), r);
    ERR_IGNORE(s3_try(p->s, &removal, r)); /* swept later otherwise */
    return e;
}

err s3_probe(struct s3_store *s, struct err_at *at)
{
    struct probe p = { .s = s, .at = at };
    struct s3_answer list;
    struct s3_result r, listed;
    char id[S3_PUT_ID_BYTES];
    s3_result_open(s, &listed);
    s3_result_open(s, &r);
    err e = list_probes(&p, &listed, &list);
    if (e == OK && !s->config.as_is) {
        s3_put_id(s, id);
        snprintf(p.key, sizeof p.key, PROBE_DIRECTORY "/%lld-%.16s", (long long)io_now_ms(s->io), id);
        e = try_all(&p, &r);
        p.sweep_until_ns = io_monotonic_ns(s->io) + SWEEP_MS * NS_PER_MS;
        if (e == OK && sweep_probes(&p, &list, &r))
            sweep_uploads(&p, &r);
    }
    s3_result_close(&r);
    s3_result_close(&listed);
    return e != OK && s3_is_aborted(s) ? err_set(at, ERR_CANCELED, "canceled") : e;
}
