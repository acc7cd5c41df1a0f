/* Reads of an S3 store: heads, ranges, whole objects, lists. From: blob_s3.c. To: s3_request.c.
 *
 * Invariants
 * 1. A read gives exactly the bytes that were asked for, of the object that was opened (If-Match) or of one with
 *    its SHA-256 in its place, or an error: status, ETag, Content-Range and length are checked, and what does not
 *    fit is asked for again.
 * 2. A whole object is compared with the SHA-256 that was put with it; one without is asked for again.
 * 3. A list holds each key once, in byte order, whatever order and pages the store gives; it ends or fails. A page
 *    that does not say whether it is the last, or holds a key that was not asked for, is asked for again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "blob/s3.h"

#define LIST_COUNT_MAX     (4u << 20) /* as entries of a directory */
#define EMPTY_PAGES_MAX    100        /* in a row: a store may give pages without entries, but not for ever */
#define RANGE_BYTES        64
#define CORRUPT_TRIES_MAX  3
#define REPLACED_TRIES_MAX 3

/* ---- heads ---- */

/* Something between us and the store answers too, and has no ETag to give. */
static err accept_head(const struct s3_call *call, struct s3_result *r)
{
    if (r->response.content_bytes >= 0 && r->response.etag[0] != 0)
        return OK;
    return err_set(&r->why, ERR_IO, "HEAD %.240s: the answer has no %s", call->key,
                   r->response.etag[0] != 0 ? "length" : "ETag");
}

/* The first byte of an object. A 200 is the whole of it, where that is one byte or none. */
static err accept_first_byte(const struct s3_call *call, struct s3_result *r)
{
    struct s3_response *response = &r->response;
    if (response->status == 200 && response->content_bytes == (int64_t)r->body.len) {
        response->range_first = response->range_last = 0;
        response->range_bytes = response->content_bytes;
    }
    if (response->etag[0] != 0 && response->range_first == 0 && response->range_last == 0)
        return OK;
    return err_set(&r->why, ERR_IO, "GET %.240s: no ETag or a wrong range", call->key);
}

err s3_first_byte(struct s3_store *s, const char *key, struct s3_result *r, struct s3_patience *patience)
{
    struct s3_call get = { .method = "GET",
                           .key = key,
                           .headers = { { "range", "bytes=0-0" } },
                           .header_count = 1,
                           .answer_bytes_max = 1,
                           .accept = accept_first_byte };
    return s3_do_within(s, &get, r, patience);
}

err s3_head(struct s3_store *s, const char *key, bool sure, struct s3_result *r, struct s3_patience *patience)
{
    struct s3_call head = { .method = "HEAD", .key = key, .accept = accept_head };
    err e = s3_do_within(s, &head, r, patience);
    if (e != ERR_NOT_FOUND || !sure)
        return e;
    e = s3_first_byte(s, key, r, patience);
    if (e == OK || e == ERR_END) /* it is there: put since, or the store contradicts itself */
        e = s3_do_within(s, &head, r, patience);
    return e == ERR_NOT_FOUND && r->code[0] == 0 ? err_set(&r->why, ERR_IO, "the store contradicts itself")
                                                 : e;
}

/* ---- ranges ---- */

struct wanted {
    const char *etag;
    uint64_t offset;
    uint64_t size; /* of the object */
    size_t len;
};

static err accept_range(const struct s3_call *call, struct s3_result *r)
{
    const struct wanted *w = call->context;
    const struct s3_response *response = &r->response;
    bool is_ours = response->status == 206 && response->range_first >= 0 &&
                   (uint64_t)response->range_first == w->offset &&
                   (uint64_t)response->range_bytes == w->size &&
                   (uint64_t)(response->range_last - response->range_first) + 1 == w->len;
    bool is_whole = response->status == 200 && w->offset == 0 && w->len == w->size;
    if ((is_ours || is_whole) && r->body.len == w->len && strcmp(response->etag, w->etag) == 0)
        return OK;
    return err_set(
        &r->why, ERR_IO,
        "GET %.200s: asked for %zu bytes at %llu of %.40s, got %zu at %lld of %.40s with status %u",
        call->key, w->len, (unsigned long long)w->offset, w->etag, r->body.len,
        (long long)response->range_first, response->etag, response->status);
}

static void print_range(char out[RANGE_BYTES], uint64_t offset, size_t len)
{
    int printed = snprintf(out, RANGE_BYTES, "bytes=%llu-%llu", (unsigned long long)offset,
                           (unsigned long long)(offset + len - 1));
    check(printed > 0 && printed < RANGE_BYTES);
}

/* One piece. ERR_CONFLICT: another object is there now. */
static err read_piece(struct s3_store *s, const char *key, struct wanted wanted, void *at,
                      struct s3_result *r)
{
    char range[RANGE_BYTES];
    print_range(range, wanted.offset, wanted.len);
    struct s3_call call = { .method = "GET",
                            .key = key,
                            .headers = { { "range", range }, { "if-match", wanted.etag } },
                            .header_count = 2,
                            .answer_bytes_max = wanted.len,
                            .accept = accept_range,
                            .context = &wanted };
    err e = s3_do(s, &call, r);
    if (e == ERR_EXISTS || e == ERR_END)
        e = err_set(&r->why, ERR_CONFLICT, "GET %.240s: replaced meanwhile", key);
    if (e == OK)
        memcpy(at, r->body.at, wanted.len);
    return e;
}

/* [offset, offset + len) of a version that nobody changes. */
static err read_pieces(struct s3_store *s, const char *key, const struct s3_version *version, uint64_t offset,
                       void *at, size_t len, struct s3_result *r)
{
    for (size_t done = 0; done < len;) {
        size_t piece = len - done < s->config.part_bytes ? len - done : s->config.part_bytes;
        struct wanted wanted = {
            .etag = version->etag, .offset = offset + done, .size = version->size, .len = piece
        };
        TRY(read_piece(s, key, wanted, (uint8_t *)at + done, r));
        done += piece;
    }
    return OK;
}

/* The object is not the one that was opened, but may have the same bytes: a repair, or another's equal put. */
static err adopt(struct s3_store *s, const char *key, struct s3_version *version, struct s3_result *r)
{
    struct s3_patience patience = { 0 };
    TRY(s3_head(s, key, true, r, &patience));
    const struct s3_response *seen = &r->response;
    io_mutex_lock(&s->lock);
    bool is_equal = version->sha256[0] != 0 && strcmp(seen->sha256, version->sha256) == 0 &&
                    (uint64_t)seen->content_bytes == version->size;
    if (is_equal)
        memcpy(version->etag, seen->etag, sizeof version->etag);
    io_mutex_unlock(&s->lock);
    return is_equal ? OK : err_set(&r->why, ERR_CONFLICT, "GET %.240s: replaced by other bytes", key);
}

err s3_read(struct s3_store *s, const char *key, struct s3_version *shared, uint64_t offset, void *at,
            size_t len, struct s3_result *r)
{
    err e = ERR_CONFLICT;
    for (int i = 0; i < REPLACED_TRIES_MAX && e == ERR_CONFLICT; i++) {
        if (i > 0)
            TRY(adopt(s, key, shared, r));
        io_mutex_lock(&s->lock);
        struct s3_version version = *shared;
        io_mutex_unlock(&s->lock);
        e = read_pieces(s, key, &version, offset, at, len, r);
    }
    return e;
}

/* ---- whole objects ---- */

struct whole {
    void *at; /* in the caller's pool */
    size_t capacity;
    struct s3_version version;
};

static err compare(struct s3_result *r, const char *key, const struct whole *w)
{
    uint8_t digest[SHA256_BYTES];
    char text[SHA256_HEX_BYTES];
    sha256_of(slice_of(w->at, (size_t)w->version.size), digest);
    sha256_print(digest, text);
    return strcmp(text, w->version.sha256) == 0
               ? OK
               : err_set(&r->why, ERR_CORRUPT, "GET %.240s: the bytes are not those that were put", key);
}

/* The first piece, which is usually all. An answer without what every object has is a proxy's. */
static err accept_first(const struct s3_call *call, struct s3_result *r)
{
    struct s3_response *response = &r->response;
    const size_t *len = call->context;
    if (response->etag[0] == 0 || response->sha256[0] == 0)
        return err_set(&r->why, ERR_IO, "GET %.240s: the answer has no ETag or no " S3_META_SHA256,
                       call->key);
    if (response->status == 200 && response->content_bytes == (int64_t)r->body.len) {
        response->range_first = 0; /* a store may give the whole for a range that covers it */
        response->range_bytes = response->content_bytes;
        response->range_last = response->range_bytes - 1;
    }
    uint64_t expected = response->range_bytes < 0                ? UINT64_MAX
                        : (uint64_t)response->range_bytes < *len ? (uint64_t)response->range_bytes
                                                                 : *len;
    if (response->range_first != 0 || r->body.len != expected ||
        (uint64_t)response->range_last + 1 != expected)
        return err_set(&r->why, ERR_IO, "GET %.240s: truncated or wrong range", call->key);
    return OK;
}

/* An object of no bytes has no range that could be asked for. */
static err get_empty(struct s3_store *s, const char *key, struct s3_result *r)
{
    struct s3_patience patience = { 0 };
    TRY(s3_head(s, key, true, r, &patience));
    r->response.range_bytes = 0;
    r->body.len = 0;
    if (r->response.content_bytes != 0)
        return err_set(&r->why, ERR_CONFLICT, "GET %.240s: replaced meanwhile", key);
    return r->response.sha256[0] != 0 ? OK : err_set(&r->why, ERR_IO, "HEAD %.240s: no " S3_META_SHA256, key);
}

/* ERR_CORRUPT not the bytes that were put, ERR_CONFLICT replaced while it was read: ask again. */
static err get_once(struct s3_store *s, const char *key, size_t bytes_max, struct pool *pool, struct whole *w,
                    struct s3_result *r)
{
    size_t len = bytes_max < s->config.part_bytes ? bytes_max + 1 : s->config.part_bytes;
    char range[RANGE_BYTES];
    print_range(range, 0, len);
    struct s3_call call = { .method = "GET",
                            .key = key,
                            .headers = { { "range", range } },
                            .header_count = 1,
                            .answer_bytes_max = len,
                            .accept = accept_first,
                            .context = &len };
    err e = s3_do(s, &call, r);
    TRY(e == ERR_END ? get_empty(s, key, r) : e);
    size_t first = r->body.len;
    w->version.size = (uint64_t)r->response.range_bytes;
    memcpy(w->version.etag, r->response.etag, sizeof w->version.etag);
    memcpy(w->version.sha256, r->response.sha256, sizeof w->version.sha256);
    if (w->version.size > bytes_max)
        return err_set(&r->why, ERR_LIMIT, "GET %.240s: larger than %zu bytes", key, bytes_max);
    size_t size = (size_t)w->version.size;
    if (w->at == NULL || size > w->capacity) {
        TRY(pool_alloc(pool, size + 1, &w->at));
        w->capacity = size;
    }
    if (first > 0)
        memcpy(w->at, r->body.at, first);
    TRY(read_pieces(s, key, &w->version, first, (uint8_t *)w->at + first, size - first, r));
    return compare(r, key, w);
}

err s3_get(struct s3_store *s, const char *key, size_t bytes_max, struct pool *pool, struct slice *out_bytes,
           struct s3_result *r)
{
    struct whole w = { 0 };
    struct s3_patience patience = { 0 };
    int corrupt = 0, replaced = 0;
    for (;;) {
        err e = get_once(s, key, bytes_max, pool, &w, r);
        if (e == OK)
            break;
        if (e != ERR_CORRUPT && e != ERR_CONFLICT)
            return e;
        if (e == ERR_CORRUPT && ++corrupt == CORRUPT_TRIES_MAX)
            return e;
        if (e == ERR_CONFLICT && ++replaced == REPLACED_TRIES_MAX)
            return ERR_BUSY;
        patience.until_ns = 0; /* what counts are the tries: a large object takes long */
        if (!s3_wait(s, &patience, r))
            return e == ERR_CORRUPT ? ERR_IO : ERR_BUSY; /* not asked often enough to call it damaged */
    }
    ((char *)w.at)[w.version.size] = 0;
    *out_bytes = slice_of(w.at, (size_t)w.version.size);
    return OK;
}

/* ---- lists ---- */

struct listing {
    struct pool *pool; /* of the caller */
    struct blob_entry *entries;
    size_t count, capacity;
    size_t skip;      /* bytes of the bucket's keys before ours */
    const char *full; /* what the bucket's keys begin with: "kelpie/p000/chain/" */
    struct s3_answer page;
    struct pool *page_pool;
};

static err accept_page(const struct s3_call *call, struct s3_result *r)
{
    struct listing *l = call->context;
    pool_reset(l->page_pool);
    err e = s3_answer_decode(buf_slice(&r->body), l->page_pool, &l->page);
    if (e != OK || l->page.kind != S3_ANSWER_LIST)
        return err_set(&r->why, e == ERR_LIMIT ? ERR_LIMIT : ERR_IO, "the answer to a list is not a list");
    for (size_t i = 0; i < l->page.count; i++)
        if (strncmp(l->page.items[i].key, l->full, strlen(l->full)) != 0)
            return err_set(&r->why, ERR_IO, "the list of %.200s holds a key that is not below it", l->full);
    return OK;
}

/* Keys that are ours and lie directly below the prefix; a bucket may hold anything else. */
static err take_page(struct listing *l, struct pool *blocks)
{
    size_t full_len = strlen(l->full);
    for (size_t i = 0; i < l->page.count; i++) {
        const char *key = l->page.items[i].key;
        if (key[full_len] == 0 || strchr(key + full_len, '/') != NULL || blob_key_check(key + l->skip) != OK)
            continue;
        if (l->count == LIST_COUNT_MAX)
            return ERR_LIMIT;
        struct slice copy;
        TRY(pool_copy(l->pool, slice_str(key + l->skip), &copy));
        TRY(pool_block_reserve(blocks, (void **)&l->entries, sizeof l->entries[0], l->count + 1,
                               &l->capacity));
        l->entries[l->count++] =
            (struct blob_entry){ .key = (const char *)copy.at, .t_ms = l->page.items[i].t_ms };
    }
    return OK;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct blob_entry *)a)->key, ((const struct blob_entry *)b)->key);
}

static err list_pages(struct s3_store *s, struct listing *l, struct s3_result *r)
{
    char token[S3_VALUE_BYTES_MAX + 1] = "";
    struct s3_call call = { .method = "GET",
                            .params = { { "list-type", "2" },
                                        { "prefix", l->full },
                                        { "delimiter", "/" },
                                        { "max-keys", "1000" },
                                        { "encoding-type", "url" },
                                        { "continuation-token", token } },
                            .answer_bytes_max = S3_ANSWER_BYTES_MAX,
                            .accept = accept_page,
                            .context = l };
    for (unsigned empty_pages = 0; empty_pages < EMPTY_PAGES_MAX;) {
        size_t before = l->count;
        call.param_count = token[0] != 0 ? 6 : 5;
        TRY(s3_do(s, &call, r));
        TRY(take_page(l, r->body.pool));
        if (!l->page.is_truncated)
            return OK;
        if (strcmp(token, l->page.next_token) == 0)
            break;
        snprintf(token, sizeof token, "%s", l->page.next_token);
        empty_pages = l->count > before ? 0 : empty_pages + 1;
    }
    return err_set(&r->why, ERR_IO, "the store's list of %.240s does not end", l->full);
}

/* Sort, leave out repetitions (a store may give a key on two pages; the later time counts), move into the caller's
 * arena. */
static err finish(struct listing *l, struct blob_entry **out_entries, size_t *out_count)
{
    size_t count = 0;
    void *at;
    if (l->count > 1)
        qsort(l->entries, l->count, sizeof l->entries[0], by_key);
    for (size_t i = 0; i < l->count; i++)
        if (count == 0 || strcmp(l->entries[count - 1].key, l->entries[i].key) != 0)
            l->entries[count++] = l->entries[i];
        else if (l->entries[i].t_ms > l->entries[count - 1].t_ms)
            l->entries[count - 1].t_ms = l->entries[i].t_ms;
    TRY(pool_alloc(l->pool, (count + 1) * sizeof l->entries[0], &at));
    if (count > 0)
        memcpy(at, l->entries, count * sizeof l->entries[0]);
    *out_entries = at;
    *out_count = count;
    return OK;
}

err s3_list(struct s3_store *s, const char *prefix, struct pool *pool, struct blob_entry **out_entries,
            size_t *out_count, struct s3_result *r)
{
    char full[S3_PATH_BYTES];
    const char *ours = s->config.prefix;
    int len = snprintf(full, sizeof full, "%s%s%s/", ours, ours[0] != 0 ? "/" : "", prefix);
    check(len > 0 && len < (int)sizeof full);
    struct listing l = { .pool = pool, .full = full, .skip = ours[0] != 0 ? strlen(ours) + 1 : 0 };
    l.page_pool = pool_open(r->body.pool, "s3_page", POOL_BYTES_UNLIMITED);
    err e = list_pages(s, &l, r); /* the entries' block is in the result's pool */
    if (e == OK)
        e = finish(&l, out_entries, out_count);
    pool_close(l.page_pool);
    return e;
}
