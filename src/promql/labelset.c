/* Edits of canonical label sets, and the hash table that groups by them.
 *
 * Canonical labels are sorted fields, so every edit is one merge walk that copies whole encoded fields; names and
 * values are never re-encoded, except the one that is set.
 * Invariant: keys of a label_index are unique, numbered in order of first appearance (results depend on the
 * order of the input alone). */
#include "promql/eval.h"

#include "base/hash.h"

const struct slice label_name = { (const uint8_t *)"__name__", 8 };

void labels_project(struct slice labels, const struct slice *names, size_t count, bool keep, bool drop_name,
                    struct buf *out)
{
    struct reader r = reader_of(labels);
    struct label label;
    size_t next = 0;
    const uint8_t *begin = r.at;
    while (labels_next(&r, &label)) {
        int order = -1;
        while (next < count && (order = slice_compare(names[next], label.name)) < 0)
            next++;
        bool listed = next < count && order == 0;
        bool take = keep ? listed : !listed;
        if (!keep && drop_name && slice_equal(label.name, label_name))
            take = false;
        if (take)
            buf_put(out, begin, (size_t)(r.at - begin));
        begin = r.at;
    }
}

void labels_set(struct slice labels, struct slice name, struct slice value, struct buf *out)
{
    struct reader r = reader_of(labels);
    struct label label;
    bool done = value.len == 0;
    const uint8_t *begin = r.at;
    while (labels_next(&r, &label)) {
        int order = slice_compare(label.name, name);
        if (!done && order >= 0) {
            labels_put(out, name, value);
            done = true;
        }
        if (order != 0)
            buf_put(out, begin, (size_t)(r.at - begin));
        begin = r.at;
    }
    if (!done)
        labels_put(out, name, value);
}

struct slice labels_without_name(struct slice labels, struct buf *scratch)
{
    if (labels_get(labels, label_name).len == 0)
        return labels;
    buf_clear(scratch);
    labels_project(labels, &label_name, 1, false, false, scratch);
    return buf_slice(scratch);
}

static err label_index_grow(struct label_index *index)
{
    size_t slot_count = index->slot_count == 0 ? 64 : index->slot_count * 2;
    void *memory;
    TRY(pool_zalloc(index->pool, slot_count * sizeof *index->slots, &memory));
    index->slots = memory;
    index->slot_count = slot_count;
    for (size_t i = 0; i < index->count; i++) {
        size_t slot = index->hashes[i] & (slot_count - 1);
        while (index->slots[slot] != 0)
            slot = (slot + 1) & (slot_count - 1);
        index->slots[slot] = (uint32_t)i + 1;
    }
    return OK;
}

/* The slot of key: holding it, or free. */
static size_t label_index_slot(const struct label_index *index, struct slice key, uint64_t hash)
{
    size_t slot = hash & (index->slot_count - 1);
    while (index->slots[slot] != 0) {
        size_t i = index->slots[slot] - 1;
        if (index->hashes[i] == hash && slice_equal(index->keys[i], key))
            break;
        slot = (slot + 1) & (index->slot_count - 1);
    }
    return slot;
}

bool label_index_find(const struct label_index *index, struct slice key, uint32_t *out_number)
{
    if (index->slot_count == 0)
        return false;
    size_t slot = label_index_slot(index, key, hash64(key, hash_secret()));
    if (index->slots[slot] == 0)
        return false;
    *out_number = index->slots[slot] - 1;
    return true;
}

err label_index_get(struct label_index *index, struct slice key, uint32_t *out_number, bool *out_new)
{
    if ((index->count + 1) * 2 > index->slot_count)
        TRY(label_index_grow(index));
    uint64_t hash = hash64(key, hash_secret());
    size_t slot = label_index_slot(index, key, hash);
    *out_new = index->slots[slot] == 0;
    if (*out_new) {
        if (index->count == UINT32_MAX - 1)
            return ERR_LIMIT;
        TRY(pool_block_reserve(index->pool, (void **)&index->keys, sizeof *index->keys, index->count + 1,
                               &index->key_capacity));
        TRY(pool_block_reserve(index->pool, (void **)&index->hashes, sizeof *index->hashes, index->count + 1,
                               &index->hash_capacity));
        TRY(pool_copy(index->pool, key, &index->keys[index->count]));
        index->hashes[index->count] = hash;
        index->slots[slot] = (uint32_t)++index->count;
    }
    *out_number = index->slots[slot] - 1;
    return OK;
}
