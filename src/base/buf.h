/* struct buf: a growable byte buffer that opens with its maximum.
 *
 * Appends do not return errors one by one: the first failure (over the maximum, or the pool's budget)
 * sticks, later appends do nothing, and buf_err tells. So an encoder reads as a list of puts with one
 * test at its end. Embedded in its owner; lives in a pool. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"

struct buf {
    struct pool *pool;
    uint8_t *at;
    size_t len;
    size_t capacity;
    size_t max;
    err failed; /* OK, or the first failure */
};

/* bytes_max is the largest len ever reached. Allocates nothing yet. */
static inline struct buf buf_open(struct pool *pool, size_t bytes_max)
{
    return (struct buf){ .pool = pool, .max = bytes_max, .failed = OK };
}

static inline void buf_close(struct buf *b)
{
    pool_block_free(b->pool, b->at);
    b->at = NULL;
    b->len = b->capacity = 0;
}

static inline void buf_clear(struct buf *b)
{
    b->len = 0;
    b->failed = OK;
}
static inline err buf_err(const struct buf *b) { return b->failed; }
static inline struct slice buf_slice(const struct buf *b) { return slice_of(b->at, b->len); }

/* Grow the capacity by at least `bytes` behind len. Returns where they begin, NULL after a failure. */
uint8_t *buf_grow(struct buf *b, size_t bytes);

/* Room for `bytes` behind len, to be filled by the caller, who then adds to b->len. NULL on failure. */
static inline uint8_t *buf_room(struct buf *b, size_t bytes)
{
    if (b->failed == OK && bytes <= b->capacity - b->len)
        return b->at == NULL ? buf_grow(b, bytes) : b->at + b->len;
    return buf_grow(b, bytes);
}

static inline void buf_put(struct buf *b, const void *from, size_t bytes)
{
    uint8_t *at = buf_room(b, bytes);
    if (at == NULL)
        return;
    if (bytes != 0)
        memcpy(at, from, bytes);
    b->len += bytes;
}

static inline void buf_put_slice(struct buf *b, struct slice s) { buf_put(b, s.at, s.len); }
static inline void buf_put_str(struct buf *b, const char *text) { buf_put(b, text, strlen(text)); }
static inline void buf_put_u8(struct buf *b, uint8_t v) { buf_put(b, &v, 1); }
static inline void buf_put_le16(struct buf *b, uint16_t v) { buf_put(b, &v, 2); }
static inline void buf_put_le32(struct buf *b, uint32_t v) { buf_put(b, &v, 4); }
static inline void buf_put_le64(struct buf *b, uint64_t v) { buf_put(b, &v, 8); }

static inline void buf_put_varint(struct buf *b, uint64_t v)
{
    uint8_t *at = buf_room(b, VARINT_BYTES_MAX);
    if (at != NULL)
        b->len += (size_t)(put_varint(at, v) - at);
}

static inline void buf_put_zigzag(struct buf *b, int64_t v) { buf_put_varint(b, zigzag(v)); }

/* A varint length, then the bytes. */
static inline void buf_put_string(struct buf *b, struct slice s)
{
    buf_put_varint(b, s.len);
    buf_put_slice(b, s);
}

/* printf into the buffer; at most 4,096 bytes a call, more fails with ERR_LIMIT. */
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
