/* Any bytes as the body of a streamed answer between nodes (first byte 0), and payloads that were sealed by us: (2
 * bytes of length, bytes) …, in pieces of as many bytes as the second byte says and one more, with the byte
 * changed that the third and fourth name (1), or with the rest behind the end (2). What is not proven is never
 * handed out, what was sealed comes out as it went in, and nothing changed has an end. */
#include "base/check.h"
#include "net/rpc.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAYLOADS_MAX 64

static const char key[] = "the fuzzer's own secret";
static const char asked[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

struct sealed {
    struct rpc_proof proof;
    struct slice payloads[PAYLOADS_MAX];
    size_t count;
    struct buf bytes;
};

static void seal(struct pool *pool, struct reader *r, struct sealed *out)
{
    struct rpc_head head = { .slot = 3, .t_ms = 1000 };
    struct rpc_sealer sealer;
    *out = (struct sealed){ .bytes = buf_open(pool, 64u << 20) };
    rpc_stream_sign(slice_str(key), slice_str(asked), 200, &head, &sealer, &out->proof);
    while (out->count < PAYLOADS_MAX && (out->count == 0 || read_left(r) > 2)) {
        size_t len = read_left(r) >= 2 ? read_le16(r) : 0;
        out->payloads[out->count++] = read_bytes(r, len < read_left(r) ? len : read_left(r));
    }
    for (size_t i = 0; i < out->count; i++)
        rpc_frame_put(&sealer, out->payloads[i], i + 1 == out->count, &out->bytes);
    check(buf_err(&out->bytes) == OK);
}

/* How many frames are believed; the last one's is_last in *out_ended. */
static size_t frames_of(struct pool *pool, const struct sealed *sealed, struct slice bytes, size_t piece,
                        bool *out_ended, err *out_error)
{
    struct rpc_stream stream;
    struct rpc_frame frame;
    struct rpc_head head;
    size_t count = 0;
    *out_ended = false;
    *out_error = ERR_END;
    check(rpc_stream_open(slice_str(key), slice_str(asked), 503, slice_str(sealed->proof.head),
                          slice_str(sealed->proof.code), pool, &head, &stream) == ERR_DENIED);
    check(rpc_stream_open(slice_str(key), slice_str(asked), 200, slice_str(sealed->proof.head),
                          slice_str(sealed->proof.code), pool, &head, &stream) == OK);
    while (bytes.len > 0 && *out_error == ERR_END) {
        struct slice part = slice_part(bytes, 0, bytes.len < piece ? bytes.len : piece);
        bytes = slice_part(bytes, part.len, bytes.len - part.len);
        while ((*out_error = rpc_stream_next(&stream, &part, &frame)) == OK) {
            check(count < sealed->count && slice_equal(frame.payload, sealed->payloads[count]));
            check(!*out_ended);
            *out_ended = frame.is_last;
            count++;
        }
    }
    rpc_stream_close(&stream);
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    struct pool *pool = pool_open(NULL, "fuzz", (size_t)256 << 20);
    struct slice rest = slice_of(data + 4, size - 4);
    struct reader r = reader_of(rest), nothing = reader_of(slice_of("", 0));
    struct sealed sealed;
    size_t piece = (size_t)data[1] + 1;
    bool ended;
    err e;
    seal(pool, data[0] == 0 ? &nothing : &r, &sealed);
    if (data[0] == 0) {
        check(frames_of(pool, &sealed, rest, piece, &ended, &e) == 0 && !ended && e != OK);
    } else {
        check(frames_of(pool, &sealed, buf_slice(&sealed.bytes), piece, &ended, &e) == sealed.count);
        check(ended && e == ERR_END);
    }
    if (data[0] == 1) {
        sealed.bytes.at[get_le16(data + 2) % sealed.bytes.len] ^= 0x20;
        check(frames_of(pool, &sealed, buf_slice(&sealed.bytes), piece, &ended, &e) < sealed.count && !ended);
    } else if (data[0] == 2 && rest.len > 0) {
        buf_put_slice(&sealed.bytes, rest);
        check(frames_of(pool, &sealed, buf_slice(&sealed.bytes), piece, &ended, &e) == sealed.count);
        check(ended && e == ERR_INPUT);
    }
    buf_close(&sealed.bytes);
    pool_close(pool);
    return 0;
}
