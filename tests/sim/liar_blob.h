/* Test only: a store in front of another one that gives wrong bytes when told to, once or for ever of an
 * object. All bytes of such a read are wrong, so that whoever uses any of them, and checks it, finds out. */
#ifndef SIM_LIAR_BLOB_H
#define SIM_LIAR_BLOB_H

#include "base/test.h"

#include <string.h>

#include "blob/blob.h"
#include "blob/blob_driver.h"

struct liar {
    struct blob base;
    struct blob *inner; /* closed with this */
    struct pool *pool;
    bool may_help;                    /* what a doubt is answered with: may the next read be right? */
    const char *part;                 /* of the keys whose reads count */
    uint64_t reads;                   /* of those */
    uint64_t lies_at;                 /* the number of the first that is wrong, from 1; 0 = none */
    bool goes_on;                     /* with the same object */
    uint64_t lies;                    /* that were told */
    char key[BLOB_KEY_BYTES_MAX + 1]; /* about this object */
    struct slice before_put; /* not empty: somebody else's, which the next put finds there. Emptied then */
};

struct liar_handle {
    struct blob_handle base;
    struct pool *pool;
    struct blob_handle *inner;
    char key[BLOB_KEY_BYTES_MAX + 1];
};

static inline struct liar *liar_of(struct blob *blob) { return (struct liar *)blob; }

static inline err liar_put(struct blob *blob, const char *key, struct slice bytes)
{
    struct liar *l = liar_of(blob);
    if (l->before_put.len > 0) {
        assert_ok(blob_put(l->inner, key, l->before_put));
        l->before_put.len = 0;
    }
    return blob_put(l->inner, key, bytes);
}

static inline err liar_replace(struct blob *blob, const char *key, struct slice bytes)
{
    return blob_replace(liar_of(blob)->inner, key, bytes);
}

static inline err liar_put_file(struct blob *blob, const char *key, const char *temp_path)
{
    return blob_put_file(liar_of(blob)->inner, key, temp_path);
}

static inline err liar_replace_file(struct blob *blob, const char *key, const char *temp_path)
{
    return blob_replace_file(liar_of(blob)->inner, key, temp_path);
}

static inline void liar_handle_close(struct blob_handle *handle)
{
    struct liar_handle *h = (struct liar_handle *)handle;
    blob_handle_close(h->inner);
    pool_close(h->pool);
}

static inline err liar_open(struct blob *blob, const char *key, struct blob_handle **out_handle)
{
    struct liar *l = liar_of(blob);
    struct pool *pool;
    void *at;
    TRY(pool_open_object(l->pool, "liar_handle", sizeof(struct liar_handle), &pool, &at));
    struct liar_handle *h = at;
    h->pool = pool;
    snprintf(h->key, sizeof h->key, "%s", key);
    err e = blob_open(l->inner, key, &h->inner);
    if (e != OK) {
        pool_close(pool);
        return e;
    }
    h->base = (struct blob_handle){ blob, blob_handle_size(h->inner) };
    *out_handle = &h->base;
    return OK;
}

static inline err liar_read(struct blob_handle *handle, uint64_t offset, void *at, size_t len)
{
    struct liar_handle *h = (struct liar_handle *)handle;
    struct liar *l = liar_of(handle->blob);
    TRY(blob_read(h->inner, offset, at, len));
    if (len == 0 || strstr(h->key, l->part) == NULL)
        return OK;
    bool is_first = ++l->reads == l->lies_at;
    if (is_first)
        memcpy(l->key, h->key, sizeof l->key);
    if (!is_first && !(l->goes_on && l->lies > 0 && strcmp(l->key, h->key) == 0))
        return OK;
    l->lies++;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)at)[i] ^= 0xff;
    return OK;
}

static inline err liar_size(struct blob *blob, const char *key, uint64_t *out_size)
{
    return blob_size(liar_of(blob)->inner, key, out_size);
}

static inline err liar_list(struct blob *blob, const char *prefix, struct pool *pool,
                            struct blob_entry **out_entries, size_t *out_count)
{
    return blob_list(liar_of(blob)->inner, prefix, pool, out_entries, out_count);
}

static inline err liar_delete(struct blob *blob, const char *key)
{
    return blob_delete(liar_of(blob)->inner, key);
}

static inline bool liar_doubt(struct blob *blob, const char *key) { return liar_of(blob)->may_help; }
static inline void liar_close(struct blob *blob) { blob_close(liar_of(blob)->inner); }

static const struct blob_driver liar_driver = {
    .close = liar_close,
    .put = liar_put,
    .replace = liar_replace,
    .put_file = liar_put_file,
    .replace_file = liar_replace_file,
    .open_handle = liar_open,
    .handle_close = liar_handle_close,
    .read = liar_read,
    .size = liar_size,
    .list = liar_list,
    .delete_ = liar_delete,
    .doubt = liar_doubt,
};

#endif
