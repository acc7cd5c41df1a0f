/* Objects of the blob store as this room reads them: bytes that a checksum finds wrong are doubted, and read
 * once more before they count as damage. See object.c. */
#ifndef SHARD_OBJECT_H
#define SHARD_OBJECT_H

#include "blob/blob.h"
#include "segment/segment.h"
#include "shard/chain.h"

/* Bytes of this object are wrong by a checksum. True: they are to be read once more (blob_doubt); it is
 * counted, and told to people. */
bool object_doubt(struct blob *blob, const char *key);

/* One that is read as a segment. key and blob are borrowed until it is closed. Errors of blob_open. */
struct object {
    struct blob *blob;
    const char *key;
    struct blob_handle *handle;
};
err object_open(struct blob *blob, const char *key, struct object *out_object);
void object_close(struct object *object); /* a zeroed one is allowed */
/* *object outlives it, in its place. */
struct segment_source object_source(struct object *object);

/* The entry of a chain, and its bytes, in pool. Errors of blob_get and chain_entry_decode. */
err chain_entry_read(struct blob *blob, uint32_t partition, uint64_t number, struct pool *pool,
                     struct slice *out_bytes, struct chain_entry *out_entry);

#endif
