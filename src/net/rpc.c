/* See rpc.h. What a code covers begins with the kind of message, so that no message is taken for another kind; the
 * fields before the last have fixed lengths or end with a byte that they do not contain.
 *
 * Invariants: 1. Nothing of a head or a frame is believed before its code was compared. 2. The comparison takes as
 * long for any code of the right length. 3. A frame's code covers the code before it, and so its place in the
 * answer, who answers, and what was asked. */
#include "net/rpc.h"

#include "base/bytes.h"
#include "base/check.h"

#include <string.h>

#define TARGET_BYTES_MAX 2048
#define METHOD_BYTES_MAX 16
#define SIZE_BYTES       4 /* of a frame: bytes of its payload, and whether it is the last */
#define SIZE_LAST        (UINT32_C(1) << 31)

static void put_head(const struct rpc_head *head, uint8_t *at)
{
    at[0] = RPC_VERSION;
    memcpy(at + 1, head->cluster_id, RPC_CLUSTER_BYTES);
    put_le32(at + 17, head->slot);
    put_le64(at + 21, head->incarnation);
    put_le64(at + 29, head->epoch);
    put_le64(at + 37, (uint64_t)head->t_ms);
    memcpy(at + 45, head->nonce, RPC_NONCE_BYTES);
}

static void get_head(const uint8_t *at, struct rpc_head *out)
{
    memcpy(out->cluster_id, at + 1, RPC_CLUSTER_BYTES);
    out->slot = get_le32(at + 17);
    out->incarnation = get_le64(at + 21);
    out->epoch = get_le64(at + 29);
    out->t_ms = (int64_t)get_le64(at + 37);
    memcpy(out->nonce, at + 45, RPC_NONCE_BYTES);
}

static void print_hex(const uint8_t *bytes, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * len] = 0;
}

static bool parse_hex(struct slice text, uint8_t *out, size_t len)
{
    if (text.len != 2 * len)
        return false;
    for (size_t i = 0; i < len; i++) {
        int high = hex_value(text.at[2 * i]), low = hex_value(text.at[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* Of the same length; as long for any two. */
static bool is_same(const uint8_t *a, const uint8_t *b, size_t len)
{
    volatile uint8_t differs = 0;
    for (size_t i = 0; i < len; i++)
        differs = (uint8_t)(differs | (a[i] ^ b[i]));
    return differs == 0;
}

/* ---- codes ---- */

struct covered {
    uint8_t at[32 + RPC_HEAD_BYTES + METHOD_BYTES_MAX + TARGET_BYTES_MAX + 2 * SHA256_BYTES + 16];
    size_t len;
};

static void cover(struct covered *c, const void *at, size_t len)
{
    check(len <= sizeof c->at - c->len);
    if (len > 0)
        memcpy(c->at + c->len, at, len);
    c->len += len;
}

static void cover_body(struct covered *c, struct slice body)
{
    uint8_t digest[SHA256_BYTES];
    sha256_of(body, digest);
    cover(c, digest, sizeof digest);
}

static void code_of_request(struct slice secret, const struct rpc_request *request, const uint8_t *head,
                            uint8_t out[SHA256_BYTES])
{
    struct covered c = { .len = 0 };
    cover(&c, "kelpie rpc request\n", 19);
    cover(&c, head, RPC_HEAD_BYTES);
    cover(&c, request->method, strlen(request->method));
    cover(&c, "\n", 1);
    cover(&c, request->target.at, request->target.len);
    cover(&c, "\n", 1);
    cover_body(&c, request->body);
    sha256_hmac(secret, slice_of(c.at, c.len), out);
}

/* What both kinds of answers begin with. label: of 18 bytes. */
static struct covered answer_begin(const char *label, const uint8_t asked[SHA256_BYTES], unsigned status,
                                   const uint8_t *head)
{
    struct covered c = { .len = 0 };
    uint8_t number[2];
    put_le16(number, (uint16_t)status);
    cover(&c, label, 18);
    cover(&c, head, RPC_HEAD_BYTES);
    cover(&c, asked, SHA256_BYTES);
    cover(&c, number, sizeof number);
    return c;
}

static void code_of_answer(struct slice secret, const uint8_t asked[SHA256_BYTES], unsigned status,
                           struct slice body, const uint8_t *head, uint8_t out[SHA256_BYTES])
{
    struct covered c = answer_begin("kelpie rpc answer\n", asked, status, head);
    cover_body(&c, body);
    sha256_hmac(secret, slice_of(c.at, c.len), out);
}

static void print_proof(const uint8_t *head, const uint8_t *code, struct rpc_proof *out)
{
    print_hex(head, RPC_HEAD_BYTES, out->head);
    print_hex(code, SHA256_BYTES, out->code);
}

/* The two headers as bytes. A version that is not known says nothing of what follows it. */
static err parse_proof(struct slice head, struct slice code, uint8_t *out_head, uint8_t *out_code)
{
    uint8_t version;
    if (head.len < 2 || !parse_hex(slice_part(head, 0, 2), &version, 1))
        return ERR_DENIED;
    if (version > RPC_VERSION)
        return ERR_VERSION;
    bool is_proof = version == RPC_VERSION && parse_hex(head, out_head, RPC_HEAD_BYTES) &&
                    parse_hex(code, out_code, SHA256_BYTES);
    return is_proof ? OK : ERR_DENIED;
}

/* ---- requests ---- */

void rpc_request_sign(struct slice secret, const struct rpc_request *request, const struct rpc_head *head,
                      struct rpc_proof *out_proof)
{
    uint8_t bytes[RPC_HEAD_BYTES], code[SHA256_BYTES];
    check(secret.len > 0);
    check(request->target.len <= TARGET_BYTES_MAX && strlen(request->method) <= METHOD_BYTES_MAX);
    put_head(head, bytes);
    code_of_request(secret, request, bytes, code);
    print_proof(bytes, code, out_proof);
}

err rpc_request_check(struct slice secret, const struct rpc_request *request, struct slice head,
                      struct slice code, int64_t now_ms, struct rpc_head *out_head)
{
    uint8_t bytes[RPC_HEAD_BYTES], given[SHA256_BYTES], right[SHA256_BYTES];
    if (secret.len == 0 || request->target.len > TARGET_BYTES_MAX ||
        strlen(request->method) > METHOD_BYTES_MAX)
        return ERR_DENIED;
    TRY(parse_proof(head, code, bytes, given));
    code_of_request(secret, request, bytes, right);
    if (!is_same(given, right, sizeof right))
        return ERR_DENIED;
    get_head(bytes, out_head);
    bool is_recent = out_head->t_ms >= now_ms - RPC_AGE_MS_MAX && out_head->t_ms <= now_ms + RPC_AGE_MS_MAX;
    return is_recent ? OK : ERR_TIMEOUT;
}

/* ---- answers ---- */

void rpc_answer_sign(struct slice secret, struct slice asked_code, unsigned status, struct slice body,
                     const struct rpc_head *head, struct rpc_proof *out_proof)
{
    uint8_t bytes[RPC_HEAD_BYTES], asked[SHA256_BYTES], code[SHA256_BYTES];
    check(secret.len > 0 && parse_hex(asked_code, asked, sizeof asked));
    put_head(head, bytes);
    code_of_answer(secret, asked, status, body, bytes, code);
    print_proof(bytes, code, out_proof);
}

err rpc_answer_check(struct slice secret, struct slice asked_code, unsigned status, struct slice body,
                     struct slice head, struct slice code, struct rpc_head *out_head)
{
    uint8_t bytes[RPC_HEAD_BYTES], asked[SHA256_BYTES], given[SHA256_BYTES], right[SHA256_BYTES];
    check(parse_hex(asked_code, asked, sizeof asked));
    if (secret.len == 0)
        return ERR_DENIED;
    TRY(parse_proof(head, code, bytes, given));
    code_of_answer(secret, asked, status, body, bytes, right);
    if (!is_same(given, right, sizeof right))
        return ERR_DENIED;
    get_head(bytes, out_head);
    return OK;
}

void rpc_proof_header(struct rpc_proof *proof, struct slice name, struct slice value)
{
    char *to = slice_equal_fold(name, "kelpie-rpc")        ? proof->head
               : slice_equal_fold(name, "kelpie-rpc-code") ? proof->code
                                                           : NULL;
    size_t bytes = to == proof->head ? sizeof proof->head : sizeof proof->code;
    if (name.len == 0)
        *proof = (struct rpc_proof){ { 0 }, { 0 } };
    if (to == NULL)
        return;
    size_t len = value.len < bytes ? value.len : 0;
    if (len > 0)
        memcpy(to, value.at, len);
    to[len] = 0;
}

/* ---- streamed answers ---- */

static void code_of_stream(struct slice secret, const uint8_t asked[SHA256_BYTES], unsigned status,
                           const uint8_t *head, uint8_t out[SHA256_BYTES])
{
    struct covered c = answer_begin("kelpie rpc stream\n", asked, status, head);
    sha256_hmac(secret, slice_of(c.at, c.len), out);
}

/* out may be the memory of before. */
static void code_of_frame(struct slice secret, const uint8_t before[SHA256_BYTES], const uint8_t *size,
                          struct slice payload, uint8_t out[SHA256_BYTES])
{
    struct covered c = { .len = 0 };
    cover(&c, "kelpie rpc frame\n", 17);
    cover(&c, before, SHA256_BYTES);
    cover(&c, size, SIZE_BYTES);
    cover_body(&c, payload);
    sha256_hmac(secret, slice_of(c.at, c.len), out);
}

void rpc_stream_sign(struct slice secret, struct slice asked_code, unsigned status,
                     const struct rpc_head *head, struct rpc_sealer *out_sealer, struct rpc_proof *out_proof)
{
    uint8_t bytes[RPC_HEAD_BYTES], asked[SHA256_BYTES];
    check(parse_hex(asked_code, asked, sizeof asked));
    put_head(head, bytes);
    out_sealer->secret = secret;
    code_of_stream(secret, asked, status, bytes, out_sealer->code);
    print_proof(bytes, out_sealer->code, out_proof);
}

void rpc_frame_put(struct rpc_sealer *sealer, struct slice payload, bool is_last, struct buf *out)
{
    uint8_t size[SIZE_BYTES];
    check(payload.len <= RPC_FRAME_BYTES_MAX);
    put_le32(size, (uint32_t)payload.len | (is_last ? SIZE_LAST : 0));
    code_of_frame(sealer->secret, sealer->code, size, payload, sealer->code);
    buf_put(out, size, sizeof size);
    buf_put_slice(out, payload);
    buf_put(out, sealer->code, sizeof sealer->code);
}

err rpc_stream_open(struct slice secret, struct slice asked_code, unsigned status, struct slice head,
                    struct slice code, struct pool *pool, struct rpc_head *out_head,
                    struct rpc_stream *out_stream)
{
    uint8_t bytes[RPC_HEAD_BYTES], asked[SHA256_BYTES], given[SHA256_BYTES], right[SHA256_BYTES];
    check(parse_hex(asked_code, asked, sizeof asked));
    TRY(parse_proof(head, code, bytes, given));
    code_of_stream(secret, asked, status, bytes, right);
    if (!is_same(given, right, sizeof right))
        return ERR_DENIED;
    get_head(bytes, out_head);
    *out_stream = (struct rpc_stream){ .secret = secret,
                                       .frame = buf_open(pool, RPC_FRAME_BYTES_MAX + RPC_FRAME_MORE) };
    memcpy(out_stream->code, right, sizeof right);
    return OK;
}

void rpc_stream_close(struct rpc_stream *stream) { buf_close(&stream->frame); }

/* Take of *bytes what the frame lacks of so many. ERR_END: there were less. */
static err fill_to(struct rpc_stream *s, struct slice *bytes, size_t wanted)
{
    size_t lacking = s->frame.len < wanted ? wanted - s->frame.len : 0;
    size_t len = lacking < bytes->len ? lacking : bytes->len;
    buf_put(&s->frame, bytes->at, len);
    *bytes = slice_part(*bytes, len, bytes->len - len);
    TRY(buf_err(&s->frame));
    return len == lacking ? OK : ERR_END;
}

err rpc_stream_next(struct rpc_stream *s, struct slice *bytes, struct rpc_frame *out_frame)
{
    uint8_t right[SHA256_BYTES];
    if (s->is_told)
        buf_clear(&s->frame);
    s->is_told = false;
    if (bytes->len == 0 || s->has_ended)
        return bytes->len == 0 ? ERR_END : ERR_INPUT;
    TRY(fill_to(s, bytes, SIZE_BYTES));
    uint32_t size = get_le32(s->frame.at), len = size & ~SIZE_LAST;
    if (len > RPC_FRAME_BYTES_MAX)
        return ERR_INPUT;
    TRY(fill_to(s, bytes, len + RPC_FRAME_MORE));
    struct slice payload = slice_of(s->frame.at + SIZE_BYTES, len);
    code_of_frame(s->secret, s->code, s->frame.at, payload, right);
    if (!is_same(right, payload.at + len, sizeof right))
        return ERR_DENIED;
    memcpy(s->code, right, sizeof right);
    s->is_told = true;
    s->has_ended = size != len;
    *out_frame = (struct rpc_frame){ payload, s->has_ended };
    return OK;
}
