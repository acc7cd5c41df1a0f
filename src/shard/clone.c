/* A partition of a shared store copied into another store, while nodes go on with the first. See shard.h.
 *
 *   chain up to an entry
 *     ─ fold ─→ live segments, the two newest states ─ each: read, digest right?, put, read back
 *       └─→ entries from the newest base on ─ put ─→ fold of the copy: the same? ─→ GENERATION
 *
 * Objects are named by their digests and never change, entries have numbers and never change: so whatever was
 * there at an entry's number can be copied while later ones are appended, and any number of tries make one copy.
 *
 * Invariants
 *  1. An entry is put only when everything that the fold names is in the copy, read back.
 *  2. Nothing that is wrong is copied: a chain that cannot be read whole, an object whose bytes are not those of
 *     its name, is refused by its name.
 *  3. The source is only read. What its sweeps remove was named by no entry for a day: a copy that takes longer
 *     may find an object gone, and says so. A hold in the source (sweep.c), put before shard_clone_look and
 *     taken away when the last partition is copied, keeps all of it. */
#include "shard/partition.h"

#define PIECE_BYTES ((size_t)(8u << 20)) /* of an object: read, hashed and written at once */

struct cloner {
    const struct shard_clone *c;
    uint32_t partition;
    struct pool *pool;
    struct err_at *at;
};

static bool is_canceled(const struct shard_clone *c) { return c->cancel != NULL && atomic_load(c->cancel); }

err shard_refuse_object(err e, const char *where, const char *key, struct err_at *at)
{
    const char *what = e == ERR_NOT_FOUND ? "it is gone: a sweep may have removed it since"
                       : e == ERR_CORRUPT ? "it is damaged: its bytes are not those that were put"
                                          : err_text(e);
    return err_set(at, e, "object %s in the %s: %s", key, where, what);
}

static err refuse(struct cloner *w, err e, const char *where, const char *key)
{
    return shard_refuse_object(e, where, key, w->at);
}

/* ---- the chain ---- */

/* The first entry of a chain that cannot be read. */
struct damage {
    uint32_t partition;
    err why;
    char key[SHARD_KEY_BYTES_MAX];
};

static void on_damage(void *context, const struct chain_entry *in_place, err why)
{
    struct damage *damage = context;
    if (damage->why != OK)
        return;
    damage->why = why == ERR_NOT_FOUND ? ERR_NOT_FOUND : ERR_CORRUPT;
    chain_key(damage->partition, in_place->number, damage->key);
}

err shard_chain_read_whole(const struct chain_reader *how, const char *where, struct chain *out_chain,
                           struct err_at *at)
{
    struct damage damage = { .partition = how->partition };
    struct chain_reader reader = *how;
    reader.log_start = UINT64_MAX;
    reader.now_ms = io_now_ms(reader.io);
    reader.damaged = on_damage;
    reader.context = &damage;
    *out_chain = chain_open(reader.pool, reader.partition, (struct log_position){ .generation = 1 });
    err e = shard_chain_read(&reader, out_chain, at);
    return damage.why != OK ? shard_refuse_object(damage.why, where, damage.key, at) : e;
}

/* Fold a store's chain up to an entry. */
static err read_chain(struct cloner *w, struct blob *blob, const char *where, uint64_t last_number,
                      struct chain *out_chain)
{
    struct chain_reader reader = { .config = w->c->config,
                                   .io = w->c->io,
                                   .blob = blob,
                                   .pool = w->pool,
                                   .partition = w->partition,
                                   .last_number = last_number };
    return shard_chain_read_whole(&reader, where, out_chain, w->at);
}

/* The highest number of an entry that was written by at_ms, 0: none. */
static err find_number(struct cloner *w, uint64_t newest, int64_t at_ms, uint64_t *out_number)
{
    uint64_t number = newest;
    for (; number > 0 && at_ms != INT64_MAX; number--) {
        struct pool *scratch = pool_open(w->pool, "number", POOL_BYTES_UNLIMITED);
        char key[SHARD_KEY_BYTES_MAX];
        struct chain_entry entry = { 0 };
        struct slice bytes;
        err e = chain_entry_read(w->c->from, w->partition, number, scratch, &bytes, &entry);
        pool_close(scratch);
        chain_key(w->partition, number, key);
        if (e != OK)
            return refuse(w, e, "source", key);
        if (entry.written_ms <= at_ms)
            break;
    }
    *out_number = number;
    return OK;
}

static err look(struct cloner *w, int64_t at_ms, struct shard_facts *out_facts)
{
    struct chain chain;
    uint64_t newest, number;
    TRY(read_chain(w, w->c->from, "source", 0, &chain));
    newest = chain.next_number - 1;
    err e = find_number(w, newest, at_ms, &number);
    if (e == OK && number < newest) {
        chain_close(&chain);
        if (number == 0)
            chain = chain_open(w->pool, w->partition, (struct log_position){ .generation = 1 });
        else
            e = read_chain(w, w->c->from, "source", number, &chain);
    }
    if (e == OK)
        *out_facts = shard_facts_of(&chain);
    chain_close(&chain);
    return e;
}

static struct cloner cloner_open(const struct shard_clone *clone, uint32_t partition, struct err_at *at)
{
    return (struct cloner){ .c = clone,
                            .partition = partition,
                            .pool = pool_open(clone->pool, "clone", POOL_BYTES_UNLIMITED),
                            .at = at };
}

err shard_clone_look(const struct shard_clone *clone, uint32_t partition, int64_t at_ms,
                     struct shard_facts *out_facts, struct err_at *at)
{
    struct cloner w = cloner_open(clone, partition, at);
    err e = look(&w, at_ms, out_facts);
    pool_close(w.pool);
    return e;
}

/* ---- an object ---- */

/* Bytes on their way: hashed, and kept where they are wanted. */
struct pass {
    struct blob *from;
    uint8_t *piece;       /* of PIECE_BYTES */
    struct io_file *file; /* NULL: nothing is kept but the last piece */
    uint8_t digest[SHA256_BYTES];
    uint64_t size;
};

static err pass_pieces(struct pass *pass, struct blob_handle *handle)
{
    struct sha256 *hash = sha256_open();
    err e = OK;
    pass->size = blob_handle_size(handle);
    for (uint64_t at = 0; at < pass->size && e == OK;) {
        size_t len = pass->size - at < PIECE_BYTES ? (size_t)(pass->size - at) : PIECE_BYTES;
        e = blob_read(handle, at, pass->piece, len);
        if (e == OK && pass->file != NULL)
            e = io_file_write(pass->file, at, slice_of(pass->piece, len));
        if (e == OK)
            sha256_add(hash, slice_of(pass->piece, len));
        at += len;
    }
    sha256_finish(hash, pass->digest);
    return e;
}

static err pass_once(struct pass *pass, const char *key, const uint8_t digest[SHA256_BYTES])
{
    struct blob_handle *handle;
    TRY(blob_open(pass->from, key, &handle));
    err e = pass_pieces(pass, handle);
    blob_handle_close(handle);
    if (e == ERR_END || e == ERR_CONFLICT)
        e = ERR_CORRUPT;
    return e == OK && memcmp(pass->digest, digest, SHA256_BYTES) != 0 ? ERR_CORRUPT : e;
}

/* Read an object whole. ERR_CORRUPT: twice its bytes were not those of its name. */
static err pass_object(struct pass *pass, const char *key, const uint8_t digest[SHA256_BYTES])
{
    err e = pass_once(pass, key, digest);
    return e == ERR_CORRUPT && object_doubt(pass->from, key) ? pass_once(pass, key, digest) : e;
}

/* Put what was read. is_wrong: what is there under the key is not what belongs there. */
static err put_object(struct cloner *w, const struct pass *pass, const char *key, bool is_wrong)
{
    if (pass->file != NULL)
        return is_wrong ? blob_replace_file(w->c->to, key, w->c->temp_path)
                        : blob_put_file(w->c->to, key, w->c->temp_path);
    struct slice bytes = slice_of(pass->piece, (size_t)pass->size);
    return is_wrong ? blob_replace(w->c->to, key, bytes) : blob_put(w->c->to, key, bytes);
}

static err remove_temp(const struct shard_clone *c)
{
    err e = io_unlink(c->io, c->temp_path);
    return e == ERR_NOT_FOUND ? OK : e;
}

/* From the source into the copy, by way of memory or of the local disk. */
static err carry(struct cloner *w, struct pass *pass, const char *key, const uint8_t digest[SHA256_BYTES],
                 bool is_wrong)
{
    uint64_t size;
    err e = blob_size(w->c->from, key, &size);
    if (e != OK)
        return refuse(w, e, "source", key);
    if (size > PIECE_BYTES) {
        TRY(remove_temp(w->c)); /* of a process that died */
        TRY(io_file_open(w->c->io, w->c->temp_path, IO_CREATE, &pass->file));
    }
    pass->from = w->c->from;
    e = pass_object(pass, key, digest);
    if (pass->file != NULL)
        io_file_close(pass->file);
    if (e != OK)
        e = refuse(w, e, "source", key);
    else if ((e = put_object(w, pass, key, is_wrong)) != OK && e != ERR_EXISTS)
        e = refuse(w, e, "copy", key);
    else
        e = OK; /* there already: it is read back like our own */
    if (pass->file != NULL)
        ERR_IGNORE(remove_temp(w->c)); /* the next one does it again */
    pass->file = NULL;
    return e;
}

/* Have a segment or state in the copy, read back. */
static err copy_object(struct cloner *w, uint8_t *piece, const char *key, const uint8_t digest[SHA256_BYTES])
{
    struct pass pass = { .from = w->c->to, .piece = piece };
    if (is_canceled(w->c))
        return ERR_CANCELED;
    err e = pass_object(&pass, key, digest);
    bool was_there = e == OK;
    if (e != OK && e != ERR_NOT_FOUND && e != ERR_CORRUPT)
        return refuse(w, e, "copy", key);
    if (!was_there) {
        TRY(carry(w, &pass, key, digest, e == ERR_CORRUPT));
        pass.from = w->c->to;
        e = pass_object(&pass, key, digest);
        if (e != OK)
            return refuse(w, e, "copy", key);
    }
    if (w->c->copied != NULL)
        w->c->copied(w->c->context, pass.size, was_there);
    return OK;
}

/* Live segments, and the states by which a node goes on. */
static err copy_objects(struct cloner *w, const struct chain *chain)
{
    static const uint8_t none[SHA256_BYTES];
    char key[SHARD_KEY_BYTES_MAX];
    void *piece;
    TRY(pool_alloc(w->pool, PIECE_BYTES, &piece));
    for (size_t i = 0; i < chain->segment_count; i++) {
        segment_key(w->partition, chain->segments[i].digest, chain->segments[i].era, key);
        TRY(copy_object(w, piece, key, chain->segments[i].digest));
    }
    for (int i = 0; i < 2; i++) {
        if (memcmp(chain->state_digests[i], none, SHA256_BYTES) == 0)
            continue;
        state_key(w->partition, chain->state_digests[i], chain->state_eras[i], key);
        TRY(copy_object(w, piece, key, chain->state_digests[i]));
    }
    return OK;
}

/* ---- entries ---- */

static err copy_entry(struct cloner *w, uint64_t number, struct pool *scratch)
{
    char key[SHARD_KEY_BYTES_MAX];
    struct chain_entry entry;
    struct slice bytes, there;
    if (is_canceled(w->c))
        return ERR_CANCELED;
    chain_key(w->partition, number, key);
    err e = chain_entry_read(w->c->from, w->partition, number, scratch, &bytes, &entry);
    if (e != OK)
        return refuse(w, e, "source", key);
    e = blob_put(w->c->to, key, bytes);
    if (e != OK && e != ERR_EXISTS)
        return refuse(w, e, "copy", key);
    e = blob_get(w->c->to, key, CHAIN_ENTRY_BYTES_MAX, scratch, &there);
    if (e != OK)
        return refuse(w, e, "copy", key);
    return slice_equal(bytes, there)
               ? OK
               : err_set(w->at, ERR_CONFLICT,
                         "object %s in the copy is not the source's: it is no copy of it", key);
}

static err copy_entries(struct cloner *w, const struct chain *chain)
{
    struct pool *scratch = pool_open(w->pool, "entry", POOL_BYTES_UNLIMITED);
    err e = OK;
    for (uint64_t number = chain->first_number; number < chain->next_number && e == OK; number++) {
        pool_reset(scratch);
        e = copy_entry(w, number, scratch);
    }
    pool_close(scratch);
    return e;
}

/* Does the copy's chain say what the source's says? */
static err compare(struct cloner *w, const struct chain *chain)
{
    struct chain copy;
    err e = read_chain(w, w->c->to, "copy", chain->next_number - 1, &copy);
    bool is_same = e == OK && copy.next_number == chain->next_number &&
                   position_compare(copy.end, chain->end) == 0 &&
                   copy.segment_count == chain->segment_count && copy.loss_count == chain->loss_count &&
                   memcmp(copy.state_digests, chain->state_digests, sizeof copy.state_digests) == 0 &&
                   memcmp(copy.state_eras, chain->state_eras, sizeof copy.state_eras) == 0;
    for (size_t i = 0; is_same && i < copy.segment_count; i++)
        is_same = chain_segment_same(&copy.segments[i], &chain->segments[i]);
    chain_close(&copy);
    return e != OK || is_same ? e
                              : err_set(w->at, ERR_CONFLICT,
                                        "the copy's chain of partition %u is not the source's", w->partition);
}

static err copy_partition(struct cloner *w, uint64_t last_number)
{
    struct chain chain;
    err e = OK;
    TRY_OUT(read_chain(w, w->c->from, "source", last_number, &chain));
    TRY_OUT(chain.next_number == last_number + 1
                ? OK
                : err_set(w->at, ERR_NOT_FOUND, "partition %u of the source has no entry %llu", w->partition,
                          (unsigned long long)last_number));
    TRY_OUT(copy_objects(w, &chain));
    TRY_OUT(copy_entries(w, &chain));
    TRY_OUT(compare(w, &chain));
    struct shard_revival revival = { .generation = chain.end.generation + 1 };
    e = shard_revive(w->c->config, w->c->io, w->c->to, w->pool, w->partition, &revival, w->at);
out:
    chain_close(&chain);
    return e;
}

err shard_clone_partition(const struct shard_clone *c, uint32_t partition, uint64_t last_number,
                          struct err_at *at)
{
    if (last_number == 0)
        return OK;
    struct cloner w = cloner_open(c, partition, at);
    err e = copy_partition(&w, last_number);
    pool_close(w.pool);
    return e;
}
