/* LZ4 blocks. See lz4.h. The decoder is the library's bounded one: it neither reads behind `in` nor writes
 * behind the room it is given, and the length it produced must be the one that was stored. */
#include "codec/lz4.h"

#include <lz4.h>

err lz4_block_encode(struct slice in, struct buf *out)
{
    if (in.len > LZ4_DECODED_BYTES_MAX)
        return ERR_LIMIT;
    if (in.len < 16)
        return ERR_FULL; /* no match is possible */
    uint8_t *at = buf_room(out, in.len);
    if (at == NULL)
        return buf_err(out);
    int written = LZ4_compress_default((const char *)in.at, (char *)at, (int)in.len, (int)in.len - 1);
    if (written <= 0)
        return ERR_FULL;
    out->len += (size_t)written;
    return OK;
}

err lz4_block_decode(struct slice in, uint8_t *at, size_t decoded_bytes)
{
    if (in.len > LZ4_DECODED_BYTES_MAX || decoded_bytes > LZ4_DECODED_BYTES_MAX)
        return ERR_CORRUPT;
    int written = LZ4_decompress_safe((const char *)in.at, (char *)at, (int)in.len, (int)decoded_bytes);
    return written >= 0 && (size_t)written == decoded_bytes ? OK : ERR_CORRUPT;
}
