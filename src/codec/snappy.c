/* Snappy blocks. See snappy.h.
 *
 * Input comes from sockets. The only number believed early is the claimed length, and only up to what the
 * densest element could produce: a copy of 64 bytes takes 3 bytes, so a block of n bytes never decodes to more
 * than 22 n. A small body therefore cannot make us allocate much. */
#include "codec/snappy.h"

#include <snappy-c.h>

#define EXPANSION_MAX 22

err snappy_block_decode(struct slice in, size_t bytes_max, struct buf *out)
{
    size_t claimed = 0;
    if (snappy_uncompressed_length((const char *)in.at, in.len, &claimed) != SNAPPY_OK)
        return ERR_INPUT;
    if (claimed > bytes_max)
        return ERR_LIMIT;
    if (claimed / EXPANSION_MAX > in.len)
        return ERR_INPUT;
    uint8_t *at = buf_room(out, claimed == 0 ? 1 : claimed);
    if (at == NULL)
        return buf_err(out);
    size_t written = claimed;
    if (snappy_uncompress((const char *)in.at, in.len, (char *)at, &written) != SNAPPY_OK ||
        written != claimed)
        return ERR_INPUT;
    out->len += claimed;
    return OK;
}

err snappy_block_encode(struct slice in, struct buf *out)
{
    size_t written = snappy_max_compressed_length(in.len);
    uint8_t *at = buf_room(out, written);
    if (at == NULL)
        return buf_err(out);
    if (snappy_compress((const char *)in.at, in.len, (char *)at, &written) != SNAPPY_OK)
        return ERR_INPUT;
    out->len += written;
    return OK;
}
