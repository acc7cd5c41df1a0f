/* See bucket_sim.h. An attempt waits for its way there, is carried out at one moment, or not, and waits for its
 * way back: so that requests of several nodes pass each other.
 *
 * Invariants
 *  1. An object that is there is changed by blob_replace alone, and gone by blob_delete alone.
 *  2. Between two waits the bucket is whole: whoever waits may never go on.
 *  3. Every chance comes from the seed. */
#include "sim/bucket_sim.h"

#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/time.h"
#include "blob/blob_driver.h"
#include "sim/fibers.h"

#define START_MS    INT64_C(1700000000000)
#define PATIENCE_NS (10 * NS_PER_SECOND) /* of a call, from its first failure on */
#define REQUEST_NS  (3 * NS_PER_SECOND)  /* without an answer */
#define LATE_NS     (60 * NS_PER_SECOND)

struct object {
    uint64_t request; /* which put it, as an object's metadata tell */
    int64_t t_ms;
    size_t len;
    char key[BLOB_KEY_BYTES_MAX + 1];
    uint8_t bytes[];
};

struct late {
    struct object *object;
    int64_t at_ns;
    bool replaces;
};

struct bucket_sim {
    struct pool *pool;
    uint64_t random, requests, trace;
    struct bucket_sim_odds odds;
    bool is_cut[BUCKET_SIM_NODES_MAX];
    struct object **objects; /* by key; block */
    size_t count, capacity;
    struct late *late; /* block */
    size_t late_count, late_capacity;
    uint64_t counts[BUCKET_SIM_COUNT_END];
};

struct store {
    struct blob base;
    struct bucket_sim *bucket;
    uint32_t node;
    struct io *io;
    struct pool *pool;
};

struct handle {
    struct blob_handle base;
    struct pool *pool;
    char key[BLOB_KEY_BYTES_MAX + 1];
};

#define COUNT(b, name) ((b)->counts[BUCKET_SIM_COUNT_##name]++)

static uint64_t below(struct bucket_sim *b, uint64_t bound)
{
    b->random += UINT64_C(0x9e3779b97f4a7c15);
    return hash_mix(b->random) % bound;
}

static bool one_in(struct bucket_sim *b, uint64_t odds) { return odds != 0 && below(b, odds) == 0; }

static void trace(struct bucket_sim *b, const char *key, uint64_t what)
{
    b->trace = hash_mix(b->trace ^ hash64(slice_str(key), what) ^ (uint64_t)fibers_now_ns());
}

static struct store *store_of(struct blob *blob) { return (struct store *)blob; }

/* ---- objects ---- */

/* Where the key is, or would be. */
static size_t find(const struct bucket_sim *b, const char *key, bool *out_found)
{
    size_t low = 0, high = b->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(b->objects[middle]->key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *out_found = low < b->count && strcmp(b->objects[low]->key, key) == 0;
    return low;
}

static struct object *object_at(const struct bucket_sim *b, const char *key)
{
    bool is_there;
    size_t at = find(b, key, &is_there);
    return is_there ? b->objects[at] : NULL;
}

static struct object *object_new(struct bucket_sim *b, const char *key, struct slice bytes, uint64_t request)
{
    void *at = NULL;
    check(pool_block_resize(b->pool, &at, sizeof(struct object) + bytes.len) == OK);
    struct object *o = at;
    *o = (struct object){ .request = request, .len = bytes.len };
    check(strlen(key) <= BLOB_KEY_BYTES_MAX);
    memcpy(o->key, key, strlen(key) + 1);
    if (bytes.len > 0)
        memcpy(o->bytes, bytes.at, bytes.len);
    return o;
}

/* The object takes its place, or is given back: somebody else's is there. */
static bool carry_out(struct bucket_sim *b, struct object *o, bool replaces)
{
    bool is_there;
    size_t at = find(b, o->key, &is_there);
    o->t_ms = START_MS + fibers_now_ns() / NS_PER_MS;
    trace(b, o->key, is_there ? 2 : 1);
    if (is_there && !replaces) {
        pool_block_free(b->pool, o);
        return false;
    }
    if (is_there) {
        pool_block_free(b->pool, b->objects[at]);
        b->objects[at] = o;
        return true;
    }
    void *block = b->objects;
    check(pool_block_reserve(b->pool, &block, sizeof *b->objects, b->count + 1, &b->capacity) == OK);
    b->objects = block;
    memmove(b->objects + at + 1, b->objects + at, (b->count - at) * sizeof *b->objects);
    b->objects[at] = o;
    b->count++;
    return true;
}

static void send_late(struct bucket_sim *b, struct object *o, bool replaces)
{
    void *block = b->late;
    check(pool_block_reserve(b->pool, &block, sizeof *b->late, b->late_count + 1, &b->late_capacity) == OK);
    b->late = block;
    b->late[b->late_count++] =
        (struct late){ o, fibers_now_ns() + (int64_t)below(b, (uint64_t)LATE_NS), replaces };
    COUNT(b, LATE);
}

void bucket_sim_pass(struct bucket_sim *b)
{
    for (size_t i = 0; i < b->late_count;) {
        struct late late = b->late[i];
        if (late.at_ns > fibers_now_ns()) {
            i++;
            continue;
        }
        b->late[i] = b->late[--b->late_count];
        if (carry_out(b, late.object, late.replaces))
            COUNT(b, LATE_CAME);
        else
            COUNT(b, LATE_BEATEN);
    }
}

/* ---- attempts ---- */

enum fate { FATE_DONE, FATE_LOST, FATE_UNAVAILABLE, FATE_REPLY_LOST, FATE_CONFLICT, FATE_LATE };

struct call {
    struct store *store;
    uint64_t request;
    int64_t give_up_ns; /* INT64_MAX: nothing failed yet */
    bool is_put;
};

static struct call call_begin(struct store *store, bool is_put)
{
    return (struct call){ store, ++store->bucket->requests, INT64_MAX, is_put };
}

/* On its way there. */
static enum fate attempt(struct call *call)
{
    struct bucket_sim *b = call->store->bucket;
    bool is_slow = one_in(b, b->odds.slow);
    if (is_slow)
        COUNT(b, SLOW);
    fiber_sleep((int64_t)(2 + below(b, is_slow ? 2500 : 20)) * NS_PER_MS);
    if (b->is_cut[call->store->node]) {
        COUNT(b, AWAY);
        return FATE_LOST;
    }
    if (one_in(b, b->odds.lost)) {
        COUNT(b, LOST);
        return FATE_LOST;
    }
    if (one_in(b, b->odds.unavailable)) {
        COUNT(b, UNAVAILABLE);
        return FATE_UNAVAILABLE;
    }
    if (call->is_put && one_in(b, b->odds.late))
        return FATE_LATE;
    if (call->is_put && one_in(b, b->odds.conflict)) {
        COUNT(b, CONFLICT_409);
        return FATE_CONFLICT;
    }
    if (one_in(b, b->odds.reply_lost)) {
        COUNT(b, REPLY_LOST);
        return FATE_REPLY_LOST;
    }
    return FATE_DONE;
}

/* It was not answered, or refused: OK: once more. */
static err again(struct call *call, enum fate fate)
{
    bool is_silent = fate == FATE_LOST || fate == FATE_REPLY_LOST || fate == FATE_LATE;
    struct bucket_sim *b = call->store->bucket;
    if (call->give_up_ns == INT64_MAX)
        call->give_up_ns = fibers_now_ns() + PATIENCE_NS;
    fiber_sleep(is_silent ? REQUEST_NS : (int64_t)(50 + below(b, 500)) * NS_PER_MS);
    if (fibers_now_ns() < call->give_up_ns)
        return OK;
    COUNT(b, GAVE_UP);
    return is_silent ? ERR_TIMEOUT : ERR_IO;
}

static void back(struct call *call)
{
    fiber_sleep((int64_t)(1 + below(call->store->bucket, 10)) * NS_PER_MS);
}

static err put(struct store *store, const char *key, struct slice bytes, bool replaces)
{
    struct bucket_sim *b = store->bucket;
    struct call call = call_begin(store, true);
    COUNT(b, PUT);
    for (;;) {
        enum fate fate = attempt(&call);
        bool is_done = fate == FATE_DONE || fate == FATE_REPLY_LOST, is_ours = false;
        if (fate == FATE_LATE)
            send_late(b, object_new(b, key, bytes, call.request), replaces);
        if (is_done)
            is_ours = carry_out(b, object_new(b, key, bytes, call.request), replaces);
        if (fate == FATE_DONE) {
            const struct object *there = object_at(b, key);
            bool was_ours = !is_ours && there != NULL && there->request == call.request;
            if (was_ours)
                COUNT(b, OWN_412);
            else if (!is_ours)
                COUNT(b, EXISTS_412);
            back(&call);
            return is_ours || was_ours ? OK : ERR_EXISTS;
        }
        TRY(again(&call, fate));
    }
}

/* Nothing changes: until an attempt is answered. */
static err ask(struct call *call)
{
    for (;;) {
        enum fate fate = attempt(call);
        if (fate == FATE_DONE)
            return OK;
        TRY(again(call, fate));
    }
}

/* ---- the driver ---- */

static err store_put(struct blob *blob, const char *key, struct slice bytes)
{
    return put(store_of(blob), key, bytes, false);
}

static err store_replace(struct blob *blob, const char *key, struct slice bytes)
{
    return put(store_of(blob), key, bytes, true);
}

static err put_file(struct store *store, const char *key, const char *temp_path, bool replaces)
{
    struct slice bytes;
    struct pool *pool = pool_open(store->pool, "file", POOL_BYTES_UNLIMITED);
    err e = io_read_file(store->io, temp_path, 64u << 20, pool, &bytes);
    if (e == OK)
        e = put(store, key, bytes, replaces);
    pool_close(pool);
    return e == OK ? io_unlink(store->io, temp_path) : e;
}

static err store_put_file(struct blob *blob, const char *key, const char *temp_path)
{
    return put_file(store_of(blob), key, temp_path, false);
}

static err store_replace_file(struct blob *blob, const char *key, const char *temp_path)
{
    return put_file(store_of(blob), key, temp_path, true);
}

/* The object's size, behind an answer. */
static err head(struct blob *blob, const char *key, uint64_t *out_size)
{
    struct call call = call_begin(store_of(blob), false);
    TRY(ask(&call));
    const struct object *o = object_at(call.store->bucket, key);
    trace(call.store->bucket, key, o != NULL ? 3 : 4);
    err e = o != NULL ? OK : ERR_NOT_FOUND;
    if (e == OK)
        *out_size = o->len;
    back(&call);
    return e;
}

static err store_open(struct blob *blob, const char *key, struct blob_handle **out_handle)
{
    uint64_t size;
    struct pool *pool;
    void *at;
    TRY(head(blob, key, &size));
    TRY(pool_open_object(store_of(blob)->pool, "handle", sizeof(struct handle), &pool, &at));
    struct handle *h = at;
    h->base = (struct blob_handle){ blob, size };
    h->pool = pool;
    memcpy(h->key, key, strlen(key) + 1);
    *out_handle = &h->base;
    return OK;
}

static void store_handle_close(struct blob_handle *handle) { pool_close(((struct handle *)handle)->pool); }

static err store_read(struct blob_handle *handle, uint64_t offset, void *at, size_t len)
{
    const struct handle *h = (const struct handle *)handle;
    if (offset > handle->size || len > handle->size - offset)
        return ERR_END;
    struct call call = call_begin(store_of(handle->blob), false);
    COUNT(call.store->bucket, GET);
    TRY(ask(&call));
    const struct object *o = object_at(call.store->bucket, h->key);
    err e = o == NULL ? ERR_NOT_FOUND : o->len != handle->size ? ERR_CONFLICT : OK;
    if (e == OK && len > 0)
        memcpy(at, o->bytes + offset, len);
    back(&call);
    return e;
}

static err store_get(struct blob *blob, const char *key, size_t bytes_max, struct pool *pool,
                     struct slice *out_bytes)
{
    struct call call = call_begin(store_of(blob), false);
    COUNT(call.store->bucket, GET);
    TRY(ask(&call));
    const struct object *o = object_at(call.store->bucket, key);
    trace(call.store->bucket, key, o != NULL ? 5 : 6);
    err e = o == NULL ? ERR_NOT_FOUND : o->len > bytes_max ? ERR_LIMIT : OK;
    if (e == OK)
        e = pool_copy(pool, slice_of(o->bytes, o->len), out_bytes);
    back(&call);
    return e;
}

static err store_size(struct blob *blob, const char *key, uint64_t *out_size)
{
    return head(blob, key, out_size);
}

/* Is the key directly below the directory? */
static bool is_below(const char *key, const char *prefix)
{
    size_t len = strlen(prefix);
    return strncmp(key, prefix, len) == 0 && key[len] == '/' && strchr(key + len + 1, '/') == NULL;
}

static err store_list(struct blob *blob, const char *prefix, struct pool *pool,
                      struct blob_entry **out_entries, size_t *out_count)
{
    struct call call = call_begin(store_of(blob), false);
    struct bucket_sim *b = call.store->bucket;
    size_t count = 0;
    void *at;
    COUNT(b, LIST);
    TRY(ask(&call));
    if (one_in(b, b->odds.partial)) {
        COUNT(b, PARTIAL_LIST);
        return ERR_IO;
    }
    TRY(pool_alloc(pool, b->count * sizeof(struct blob_entry) + 1, &at));
    struct blob_entry *entries = at;
    for (size_t i = 0; i < b->count; i++)
        if (is_below(b->objects[i]->key, prefix)) {
            struct slice key;
            TRY(pool_copy(pool, slice_str(b->objects[i]->key), &key));
            entries[count++] = (struct blob_entry){ (const char *)key.at, b->objects[i]->t_ms };
        }
    *out_entries = entries;
    *out_count = count;
    back(&call);
    return OK;
}

static err store_delete(struct blob *blob, const char *key)
{
    struct call call = call_begin(store_of(blob), false);
    struct bucket_sim *b = call.store->bucket;
    bool is_there;
    TRY(ask(&call));
    size_t at = find(b, key, &is_there);
    trace(b, key, 7);
    if (is_there) {
        pool_block_free(b->pool, b->objects[at]);
        memmove(b->objects + at, b->objects + at + 1, (b->count - at - 1) * sizeof *b->objects);
        b->count--;
    }
    back(&call);
    return is_there ? OK : ERR_NOT_FOUND;
}

static void store_close(struct blob *blob) { pool_close(store_of(blob)->pool); }

static const struct blob_driver driver = {
    .close = store_close,
    .put = store_put,
    .replace = store_replace,
    .put_file = store_put_file,
    .replace_file = store_replace_file,
    .open_handle = store_open,
    .handle_close = store_handle_close,
    .read = store_read,
    .get = store_get,
    .size = store_size,
    .list = store_list,
    .delete_ = store_delete,
};

err bucket_sim_store(struct bucket_sim *bucket, uint32_t node, struct io *io, struct pool *parent,
                     struct blob **out_blob)
{
    struct pool *pool;
    void *at;
    check(node < BUCKET_SIM_NODES_MAX);
    TRY(pool_open_object(parent, "bucket", sizeof(struct store), &pool, &at));
    struct store *store = at;
    *store = (struct store){ { &driver }, bucket, node, io, pool };
    *out_blob = &store->base;
    return OK;
}

/* ---- the bucket ---- */

struct bucket_sim *bucket_sim_open(uint64_t seed)
{
    struct pool *pool;
    void *at;
    check(pool_open_object(NULL, "bucket_sim", sizeof(struct bucket_sim), &pool, &at) == OK);
    struct bucket_sim *b = at;
    b->pool = pool;
    b->random = hash_mix(seed ^ 0xb0c);
    return b;
}

void bucket_sim_close(struct bucket_sim *bucket) { pool_close(bucket->pool); }

void bucket_sim_set_odds(struct bucket_sim *bucket, const struct bucket_sim_odds *odds)
{
    bucket->odds = *odds;
}

void bucket_sim_cut(struct bucket_sim *bucket, uint32_t node, bool is_cut)
{
    check(node < BUCKET_SIM_NODES_MAX);
    bucket->is_cut[node] = is_cut;
}

const char *bucket_sim_count_name(enum bucket_sim_count count)
{
#define BUCKET_SIM_COUNT_NAME(name) #name,
    static const char *const names[] = { BUCKET_SIM_COUNTS(BUCKET_SIM_COUNT_NAME) };
    return names[count];
}

const uint64_t *bucket_sim_counts(const struct bucket_sim *bucket) { return bucket->counts; }
uint64_t bucket_sim_trace(const struct bucket_sim *bucket) { return bucket->trace; }

size_t bucket_sim_count_keys(const struct bucket_sim *bucket, const char *prefix)
{
    size_t count = 0;
    for (size_t i = 0; i < bucket->count; i++)
        count += is_below(bucket->objects[i]->key, prefix);
    return count;
}
