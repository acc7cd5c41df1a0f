/* See token.h. A token proves nothing and is no secret: whoever makes one up waits for what never comes. */
#include "model/token.h"

#include "base/base64.h"
#include "base/bytes.h"
#include "base/hash.h"

#define VERSION   1
#define HEAD      6
#define BYTES_MAX (TOKEN_LEN_MAX / 4 * 3)

enum kind { KIND_ENDS = 1, KIND_ALL = 2 };

uint32_t token_seed(const uint8_t cluster_id[16]) { return crc32c(slice_of(cluster_id, 16), 0); }

/* How many partitions from `from` on have an end, up to one that has none. */
static uint32_t run_length(const uint64_t *ends, uint32_t from, uint32_t count)
{
    uint32_t p = from;
    while (p < count && ends[p] != 0)
        p++;
    return p - from;
}

/* Write the runs behind the head; the room is two varints more than BYTES_MAX. Returns the end, which is beyond
 * BYTES_MAX when they do not fit. */
static uint8_t *put_runs(uint8_t *bytes, const uint64_t *ends, uint32_t count)
{
    uint8_t *at = bytes + HEAD;
    uint32_t before = 0;
    for (uint32_t p = 0; p < count && at - bytes <= BYTES_MAX; p++) {
        uint32_t length = run_length(ends, p, count);
        if (length == 0)
            continue;
        at = put_varint(put_varint(at, p - before), length);
        for (before = p + length; p < before && at - bytes <= BYTES_MAX; p++)
            at = put_varint(at, ends[p]);
    }
    return at;
}

size_t token_write(uint32_t seed, const uint64_t *ends, uint32_t partition_count, char out[TOKEN_LEN_MAX + 1])
{
    uint8_t bytes[BYTES_MAX + 2 * VARINT_BYTES_MAX + 1] = { VERSION, KIND_ENDS };
    size_t len = (size_t)(put_runs(bytes, ends, partition_count) - bytes);
    out[0] = 0;
    if (len == HEAD)
        return 0;
    if (len > BYTES_MAX) {
        bytes[1] = KIND_ALL;
        len = HEAD;
    }
    put_le32(bytes + 2, crc32c(slice_of(bytes + HEAD, len - HEAD), seed ^ bytes[1]));
    return base64_encode(slice_of(bytes, len), out);
}

static bool read_runs(struct reader *r, uint64_t *ends, uint32_t count)
{
    uint64_t p = 0;
    while (r->ok && read_left(r) > 0) {
        uint64_t gap = read_varint(r), length = read_varint(r);
        if (gap > count - p || length == 0 || length > count - p - gap)
            return false;
        for (p += gap; length > 0; length--, p++) {
            uint64_t end = read_varint(r);
            if (end == UINT64_MAX)
                return false; /* means something else to whoever waits */
            ends[p] = end > ends[p] ? end : ends[p];
        }
    }
    return r->ok;
}

static err read_one(uint32_t seed, struct slice text, uint32_t count, uint64_t *ends, bool *out_all,
                    struct err_at *at)
{
    uint8_t bytes[BYTES_MAX];
    ptrdiff_t len = base64_decode(text, bytes, sizeof bytes);
    if (len < HEAD || bytes[0] != VERSION)
        return err_set(at, ERR_INPUT, "this is no token");
    struct slice body = slice_of(bytes + HEAD, (size_t)len - HEAD);
    if (get_le32(bytes + 2) != crc32c(body, seed ^ bytes[1]))
        return err_set(at, ERR_INPUT, "the token is damaged, or of another cluster");
    struct reader r = reader_of(body);
    if (bytes[1] == KIND_ALL)
        *out_all = true;
    else if (bytes[1] != KIND_ENDS || !read_runs(&r, ends, count))
        return err_set(at, ERR_INPUT, "this is no token");
    return OK;
}

err token_read(uint32_t seed, struct slice text, uint32_t partition_count, uint64_t *ends, bool *out_all,
               struct err_at *at)
{
    for (size_t i = 0, from; i < text.len;) {
        while (i < text.len && (text.at[i] == ' ' || text.at[i] == ','))
            i++;
        for (from = i; i < text.len && text.at[i] != ' ' && text.at[i] != ',';)
            i++;
        if (i > from)
            TRY(read_one(seed, slice_of(text.at + from, i - from), partition_count, ends, out_all, at));
    }
    return OK;
}
