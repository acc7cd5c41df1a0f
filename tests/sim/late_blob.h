/* Test only: a store in front of another one, on the far side of a bad network. Deletes and puts may arrive days
 * after their callers gave up, lists take long or lack something, and a process may sleep in the middle of any
 * call. */
#ifndef SIM_LATE_BLOB_H
#define SIM_LATE_BLOB_H

#include "base/test.h"
#include "sim/io_sim.h"

#include <stdio.h>
#include <string.h>

#include "blob/blob.h"
#include "blob/blob_driver.h"

#define LATE_DELETES_MAX 4096
#define LATE_PUTS_MAX    1024

struct late_delete {
    char key[BLOB_KEY_BYTES_MAX + 1];
    int64_t at_ns; /* when it arrives (monotonic) */
};

struct late_put {
    char key[BLOB_KEY_BYTES_MAX + 1];
    struct slice bytes; /* in the pool of late puts */
    int64_t at_ns;
};

struct late {
    struct blob base;
    struct blob *inner; /* closed with this */
    struct io *io;
    struct test_random *random;
    int64_t late_ns_max; /* half of all deletes arrive so late at most; 0: none does */
    struct late_delete deletes[LATE_DELETES_MAX];
    size_t delete_count;
    uint64_t put_part; /* one of so many puts is given up and arrives so late; 0: none is */
    struct late_put puts[LATE_PUTS_MAX];
    size_t put_count;
    struct pool *put_pool;         /* NULL: not opened yet */
    uint64_t puts_arrived;         /* and made an object */
    uint64_t arrived, hit;         /* late deletes that came, and those of them that found an object */
    int64_t list_ns_max;           /* a list takes so long at most */
    void (*passed)(void *context); /* after that time; the world goes on. NULL: it stands still */
    const char *lacks;             /* a part of keys that lists leave out; NULL: none */
    uint64_t lists;
    /* A call of a key with this part, the nth from now, sleeps before it is made. NULL: none. */
    const char *sleeps_at;
    bool sleeps_in_puts; /* only calls that put are counted */
    uint64_t sleeps_in;
    void (*sleep)(void *context);
    void *context;
};

static inline struct late *late_of(struct blob *blob) { return (struct late *)blob; }

static inline struct blob *late_any(struct blob *blob, const char *key, bool is_put)
{
    struct late *l = late_of(blob);
    if ((is_put || !l->sleeps_in_puts) && l->sleeps_at != NULL && strstr(key, l->sleeps_at) != NULL &&
        --l->sleeps_in == 0) {
        l->sleeps_at = NULL;
        l->sleep(l->context);
    }
    return l->inner;
}

static inline struct blob *late_call(struct blob *blob, const char *key)
{
    return late_any(blob, key, false);
}

static inline void late_puts_arrive(struct late *l)
{
    for (size_t i = 0; i < l->put_count;) {
        if (l->puts[i].at_ns > io_monotonic_ns(l->io)) {
            i++;
            continue;
        }
        err e = blob_put(l->inner, l->puts[i].key, l->puts[i].bytes);
        assert_true(e == OK || e == ERR_EXISTS);
        l->puts_arrived += e == OK;
        l->puts[i] = l->puts[--l->put_count];
    }
}

/* What is on its way and due arrives. */
static inline void late_arrive(struct late *l)
{
    late_puts_arrive(l);
    for (size_t i = 0; i < l->delete_count;) {
        if (l->deletes[i].at_ns > io_monotonic_ns(l->io)) {
            i++;
            continue;
        }
        err e = blob_delete(l->inner, l->deletes[i].key);
        assert_true(e == OK || e == ERR_NOT_FOUND);
        l->arrived++;
        l->hit += e == OK;
        l->deletes[i] = l->deletes[--l->delete_count];
    }
}

static inline bool put_is_late(struct late *l)
{
    return l->put_part > 0 && l->put_count < LATE_PUTS_MAX && test_random_below(l->random, l->put_part) == 0;
}

/* Room for the bytes of one that arrives later. */
static inline uint8_t *late_put_add(struct late *l, const char *key, size_t len)
{
    struct late_put *put = &l->puts[l->put_count++];
    void *at;
    if (l->put_pool == NULL)
        l->put_pool = pool_open(NULL, "late puts", POOL_BYTES_UNLIMITED);
    assert_ok(pool_alloc(l->put_pool, len + 1, &at));
    snprintf(put->key, sizeof put->key, "%s", key);
    put->bytes = slice_of(at, len);
    put->at_ns = io_monotonic_ns(l->io) + (int64_t)test_random_below(l->random, (uint64_t)l->late_ns_max);
    return at;
}

static inline err late_put(struct blob *blob, const char *key, struct slice bytes)
{
    struct blob *inner = late_any(blob, key, true);
    if (!put_is_late(late_of(blob)))
        return blob_put(inner, key, bytes);
    memcpy(late_put_add(late_of(blob), key, bytes.len), bytes.at, bytes.len);
    return ERR_TIMEOUT;
}

static inline err late_replace(struct blob *blob, const char *key, struct slice bytes)
{
    return blob_replace(late_any(blob, key, true), key, bytes);
}

static inline err late_put_file(struct blob *blob, const char *key, const char *temp_path)
{
    struct late *l = late_of(blob);
    struct blob *inner = late_any(blob, key, true);
    struct io_file *file;
    uint64_t bytes;
    if (!put_is_late(l))
        return blob_put_file(inner, key, temp_path);
    TRY(io_file_open(l->io, temp_path, IO_READ, &file));
    err e = io_file_size(file, &bytes);
    if (e == OK &&
        (e = io_file_read(file, 0, late_put_add(l, key, (size_t)bytes), (size_t)bytes, NULL)) != OK)
        l->put_count--;
    io_file_close(file);
    return e == OK ? ERR_TIMEOUT : e;
}

static inline err late_replace_file(struct blob *blob, const char *key, const char *temp_path)
{
    return blob_replace_file(late_any(blob, key, true), key, temp_path);
}

/* The handle is the inner store's, and so are its calls. */
static inline err late_open(struct blob *blob, const char *key, struct blob_handle **out_handle)
{
    return blob_open(late_call(blob, key), key, out_handle);
}

/* Who put it left no digest with a hold: the driver of a bucket refuses the whole of such an object. */
static inline err late_get(struct blob *blob, const char *key, size_t bytes_max, struct pool *pool,
                           struct slice *out_bytes)
{
    if (strncmp(key, "hold/", 5) == 0)
        return ERR_IO;
    return blob_get(late_call(blob, key), key, bytes_max, pool, out_bytes);
}

static inline err late_size(struct blob *blob, const char *key, uint64_t *out_size)
{
    return blob_size(late_call(blob, key), key, out_size);
}

static inline err late_list(struct blob *blob, const char *prefix, struct pool *pool,
                            struct blob_entry **out_entries, size_t *out_count)
{
    struct late *l = late_of(blob);
    size_t kept = 0;
    l->lists++;
    TRY(blob_list(late_call(blob, prefix), prefix, pool, out_entries, out_count));
    if (l->list_ns_max > 0 && strchr(prefix, '/') != NULL) {
        io_sim_clock_advance(l->io, (int64_t)test_random_below(l->random, (uint64_t)l->list_ns_max));
        if (l->passed != NULL)
            l->passed(l->context);
    }
    for (size_t i = 0; i < *out_count; i++)
        if (l->lacks == NULL || strstr((*out_entries)[i].key, l->lacks) == NULL)
            (*out_entries)[kept++] = (*out_entries)[i];
    *out_count = kept;
    return OK;
}

static inline err late_delete_(struct blob *blob, const char *key)
{
    struct late *l = late_of(blob);
    struct blob *inner = late_call(blob, key);
    if (l->late_ns_max == 0 || l->delete_count == LATE_DELETES_MAX || test_random_below(l->random, 2) == 0)
        return blob_delete(inner, key);
    struct late_delete *d = &l->deletes[l->delete_count++];
    snprintf(d->key, sizeof d->key, "%s", key);
    d->at_ns = io_monotonic_ns(l->io) + (int64_t)test_random_below(l->random, (uint64_t)l->late_ns_max);
    return test_random_below(l->random, 2) == 0 ? ERR_TIMEOUT : OK; /* a proxy answers for it */
}

static inline void late_close(struct blob *blob)
{
    pool_close(late_of(blob)->put_pool);
    blob_close(late_of(blob)->inner);
}

static const struct blob_driver late_driver = {
    .close = late_close,
    .put = late_put,
    .replace = late_replace,
    .put_file = late_put_file,
    .replace_file = late_replace_file,
    .open_handle = late_open,
    .get = late_get,
    .size = late_size,
    .list = late_list,
    .delete_ = late_delete_,
};

#endif
