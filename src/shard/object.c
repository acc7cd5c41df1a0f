/* Reading objects that may come wrongly. See object.h.
 *
 *   read ─ checksum right ─→ used
 *          wrong ─ blob_doubt: may another read give other bytes? ─ no (a directory) ─→ damage
 *                                                                  yes ─ read once more ─ wrong again ─→ damage
 *
 * The store's copy may be right while what came of it is not: by the network, or out of a cache of blocks
 * that kept what came wrongly once. Damage has consequences (an answer that is not complete, an entry in
 * whose place another is put), so it is not believed at the first word.
 *
 * Invariants
 *  1. Each checksum that differs causes one more read at most, of what it covers. A segment that is known to be
 *     damaged is not doubted again (live.c), nor a file on the local disk ever.
 *  2. Errors other than wrong bytes end the reading as before. */
#include "shard/object.h"

#include "base/diag.h"
#include "base/stat.h"
#include "shard/partition.h"

bool object_doubt(struct blob *blob, const char *key)
{
    if (!blob_doubt(blob, key))
        return false;
    stat_add(STAT_SHARD_OBJECTS_DOUBTED, 1);
    diag(DIAG_WARN, "Bytes of an object are wrong by their checksum; the store is asked for them once more.",
         "object=%s", key);
    return true;
}

/* ---- as a segment ---- */

err object_open(struct blob *blob, const char *key, struct object *out_object)
{
    struct object object = { blob, key, NULL };
    TRY(blob_open(blob, key, &object.handle));
    *out_object = object;
    return OK;
}

void object_close(struct object *object) { blob_handle_close(object->handle); }

static err source_read(void *context, uint64_t offset, void *at, size_t len)
{
    const struct object *object = context;
    return blob_read(object->handle, offset, at, len);
}

static bool source_doubt(void *context)
{
    const struct object *object = context;
    return object_doubt(object->blob, object->key);
}

struct segment_source object_source(struct object *object)
{
    return (struct segment_source){ .read = source_read,
                                    .doubt = source_doubt,
                                    .context = object,
                                    .size = blob_handle_size(object->handle) };
}

/* ---- an entry of a chain ---- */

static err read_once(struct blob *blob, const char *key, struct pool *pool, struct slice *out_bytes,
                     struct chain_entry *out_entry)
{
    TRY(blob_get(blob, key, CHAIN_ENTRY_BYTES_MAX, pool, out_bytes));
    return chain_entry_decode(*out_bytes, pool, out_entry);
}

err chain_entry_read(struct blob *blob, uint32_t partition, uint64_t number, struct pool *pool,
                     struct slice *out_bytes, struct chain_entry *out_entry)
{
    char key[SHARD_KEY_BYTES_MAX];
    chain_key(partition, number, key);
    err e = read_once(blob, key, pool, out_bytes, out_entry);
    if (e == ERR_CORRUPT && object_doubt(blob, key))
        e = read_once(blob, key, pool, out_bytes, out_entry);
    return e;
}
