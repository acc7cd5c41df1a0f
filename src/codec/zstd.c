/* Zstandard over libzstd: bounds before allocation, whole buffers. The content size that a frame names is not
 * trusted: output grows step by step up to the caller's bound.
 * Used for blocks of segments and for request bodies. Invariant: memory of the library is bounded by a window
 * of 8 MiB (RFC 8878 §3.1.1.1.2 asks every decoder for that much). */
#include "codec/zstd.h"
#include "base/check.h"

#include <zstd.h>

#define WINDOW_LOG_MAX 23
#define STEP_BYTES     (128u << 10)

err zstd_compress(struct slice in, int level, struct buf *out)
{
    check(level >= 1 && level <= 19);
    size_t bound = ZSTD_compressBound(in.len);
    uint8_t *at = buf_room(out, bound);
    if (at == NULL)
        return buf_err(out);
    size_t used = ZSTD_compress(at, bound, in.at, in.len, level);
    if (ZSTD_isError(used))
        return ERR_LIMIT;
    out->len += used;
    return OK;
}

err zstd_decompress(struct slice in, struct buf *out)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    if (context == NULL)
        return ERR_LIMIT;
    err e = OK;
    ZSTD_inBuffer from = { .src = in.at, .size = in.len, .pos = 0 };
    if (ZSTD_isError(ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, WINDOW_LOG_MAX))) {
        e = ERR_UNSUPPORTED;
        goto out;
    }
    for (;;) {
        size_t room = out->max - out->len < STEP_BYTES ? out->max - out->len : STEP_BYTES;
        uint8_t one; /* a full buffer may still meet the end of a frame, but no byte more */
        uint8_t *at = room == 0 ? &one : buf_room(out, room);
        if (at == NULL) {
            e = buf_err(out);
            goto out;
        }
        ZSTD_outBuffer to = { .dst = at, .size = room == 0 ? 1 : room, .pos = 0 };
        size_t hint = ZSTD_decompressStream(context, &to, &from);
        if (ZSTD_isError(hint)) {
            e = ERR_INPUT; /* a window too large as well: no sender of ours makes one */
            goto out;
        }
        if (room == 0 && to.pos != 0) {
            e = ERR_LIMIT;
            goto out;
        }
        out->len += room == 0 ? 0 : to.pos;
        if (from.pos == from.size && hint == 0)
            break; /* at the end of a frame; the empty input never gets here */
        if (from.pos == from.size && to.pos < to.size) {
            e = ERR_INPUT;
            break;
        }
    }
out:
    ZSTD_freeDCtx(context);
    return e;
}

err zstd_decompress_exact(struct slice in, uint8_t *out, size_t len)
{
    size_t used = ZSTD_decompress(out, len, in.at, in.len);
    return ZSTD_isError(used) || used != len ? ERR_INPUT : OK;
}
