/* Growth and formatting of struct buf. See buf.h. */
#include "base/buf.h"

#include "base/check.h"

#include <stdarg.h>
#include <stdio.h>

#define PRINTF_BYTES_MAX 4096

uint8_t *buf_grow(struct buf *b, size_t bytes)
{
    if (b->failed != OK)
        return NULL;
    if (bytes > b->max || b->len > b->max - bytes) {
        b->failed = ERR_LIMIT;
        return NULL;
    }
    size_t need = b->len + bytes;
    if (need > b->capacity || b->at == NULL) {
        size_t capacity = b->capacity < 64 ? 64 : b->capacity * 2;
        if (capacity < need)
            capacity = need;
        /* A varint asks for 10 bytes and may use one: capacity may pass max, len never does. */
        if (capacity > b->max && need <= b->max)
            capacity = b->max < 64 ? 64 : b->max;
        void *at = b->at;
        b->failed = pool_block_resize(b->pool, &at, capacity);
        if (b->failed != OK)
            return NULL;
        b->at = at;
        b->capacity = capacity;
    }
    check(b->len + bytes <= b->capacity);
    return b->at + b->len;
}

void buf_printf(struct buf *b, const char *format, ...)
{
    char text[PRINTF_BYTES_MAX];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= sizeof text) {
        if (b->failed == OK)
            b->failed = ERR_LIMIT;
        return;
    }
    buf_put(b, text, (size_t)len);
}
