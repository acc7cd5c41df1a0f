/* Goal: only who knows the secret is believed, of exactly what it said, to whom it said it, when it said it.
 * Method: codes made by another implementation (Python's hmac) of the page docs/format/rpc.md; then every bit of
 * everything flipped. */
#include "base/test.h"

#include <string.h>

#include "net/rpc.h"

#define T_MS INT64_C(1700000000123)

static const char head_text[] = "01000102030405060708090a0b0c0d0e0f070000006712000000000000141a99be1c000000"
                                "7b68e5cf8b0100006465666768696a6b6c6d6e6f70717273";
static const char code_text[] = "5a4bdac6f8fd609c527d986a96ddf1d4046568b84462c26dcbc35ae3c86722c5";
static const char answer_text[] = "de09672801813de8e24280054f59380bdbb7d4e72435c3b20a9122837ee5d307";

static const uint8_t request_body[] = { 1, 7, 0xe7, 0x24 }, answer_body[] = { 1, 1 };

static struct slice secret(void) { return slice_str("a secret of the cluster"); }

static struct rpc_request request(void)
{
    return (struct rpc_request){ "POST", slice_str("/-/rpc/probe"),
                                 slice_of(request_body, sizeof request_body) };
}

static struct rpc_head head(void)
{
    struct rpc_head h = { .slot = 7, .incarnation = 4711, .epoch = 123456789012, .t_ms = T_MS };
    for (uint8_t i = 0; i < 16; i++) {
        h.cluster_id[i] = i;
        h.nonce[i] = (uint8_t)(100 + i);
    }
    return h;
}

static err check_at(const char *head_value, const char *code, int64_t now_ms, struct rpc_head *out)
{
    struct rpc_request q = request();
    return rpc_request_check(secret(), &q, slice_str(head_value), slice_str(code), now_ms, out);
}

static err check_answer(const char *asked, unsigned status, const char *head_value, const char *code)
{
    struct rpc_head got;
    return rpc_answer_check(secret(), slice_str(asked), status, slice_of(answer_body, sizeof answer_body),
                            slice_str(head_value), slice_str(code), &got);
}

static void codes_are_those_of_the_page(void **state)
{
    struct rpc_request q = request();
    struct rpc_head h = head(), got;
    struct rpc_proof proof;
    rpc_request_sign(secret(), &q, &h, &proof);
    assert_string_equal(proof.head, head_text);
    assert_string_equal(proof.code, code_text);
    assert_ok(check_at(head_text, code_text, T_MS, &got));
    assert_int_equal(got.slot, 7);
    assert_true(got.incarnation == 4711 && got.epoch == 123456789012 && got.t_ms == T_MS);
    assert_memory_equal(got.cluster_id, h.cluster_id, 16);
    assert_memory_equal(got.nonce, h.nonce, 16);
    rpc_answer_sign(secret(), slice_str(code_text), 200, slice_of(answer_body, sizeof answer_body), &h,
                    &proof);
    assert_string_equal(proof.code, answer_text);
    assert_ok(check_answer(code_text, 200, head_text, answer_text));
}

/* One digit after the other is another one. */
static void no_digit_may_change(void **state)
{
    char text[RPC_HEAD_TEXT_BYTES];
    struct rpc_head got;
    for (size_t i = 0; i < strlen(head_text); i++)
        for (uint8_t bit = 1; bit < 16; bit = (uint8_t)(bit << 1)) {
            static const char digits[] = "0123456789abcdef";
            strcpy(text, head_text);
            text[i] = digits[(size_t)(strchr(digits, text[i]) - digits) ^ bit];
            assert_err(i < 2 ? (text[0] == '0' && text[1] == '0' ? ERR_DENIED : ERR_VERSION) : ERR_DENIED,
                       check_at(text, code_text, T_MS, &got));
            assert_int_not_equal(check_answer(code_text, 200, text, answer_text), OK);
        }
    for (size_t i = 0; i < strlen(code_text); i++) {
        strcpy(text, code_text);
        text[i] = text[i] == '0' ? '1' : '0';
        assert_err(ERR_DENIED, check_at(head_text, text, T_MS, &got));
        assert_err(ERR_DENIED, check_answer(text, 200, head_text, answer_text));
        strcpy(text, answer_text);
        text[i] = text[i] == '0' ? '1' : '0';
        assert_err(ERR_DENIED, check_answer(code_text, 200, head_text, text));
    }
}

static void nothing_else_is_proven_by_it(void **state)
{
    struct rpc_head got;
    struct rpc_request q = request();
    q.method = "PUT";
    assert_err(ERR_DENIED,
               rpc_request_check(secret(), &q, slice_str(head_text), slice_str(code_text), T_MS, &got));
    q = request();
    q.target = slice_str("/-/rpc/probe?");
    assert_err(ERR_DENIED,
               rpc_request_check(secret(), &q, slice_str(head_text), slice_str(code_text), T_MS, &got));
    q = request();
    q.body.len--;
    assert_err(ERR_DENIED,
               rpc_request_check(secret(), &q, slice_str(head_text), slice_str(code_text), T_MS, &got));
    q = request();
    assert_err(ERR_DENIED, rpc_request_check(slice_str("a secret of the clusteR"), &q, slice_str(head_text),
                                             slice_str(code_text), T_MS, &got));
    assert_err(ERR_DENIED, check_answer(code_text, 401, head_text, answer_text));
    /* a request is no answer, and none of them is the other */
    assert_err(ERR_DENIED, check_answer(code_text, 200, head_text, code_text));
    assert_err(ERR_DENIED, check_at(head_text, answer_text, T_MS, &got));
}

static void what_is_no_proof_is_refused(void **state)
{
    static const char *const heads[] = { "", "0", "01", "zz", "0100", "-1", "00" };
    struct rpc_head got;
    char longer[RPC_HEAD_TEXT_BYTES + 2];
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        assert_err(ERR_DENIED, check_at(heads[i], code_text, T_MS, &got));
    assert_err(ERR_DENIED, check_at(head_text, "", T_MS, &got));
    snprintf(longer, sizeof longer, "%s00", head_text);
    assert_err(ERR_DENIED, check_at(longer, code_text, T_MS, &got));
    assert_err(ERR_VERSION, check_at("02", code_text, T_MS, &got));
    static char target[5000];
    memset(target, 'a', sizeof target - 1);
    struct rpc_request q = request();
    q.target = slice_str(target);
    assert_err(ERR_DENIED,
               rpc_request_check(secret(), &q, slice_str(head_text), slice_str(code_text), T_MS, &got));
}

/* Nobody has it: whatever is said to be proven by it is not. (HMAC takes it for one.) */
static void an_empty_secret_proves_nothing(void **state)
{
    static const char request_code[] = "79b0dc1baec3ad9e45ead5ddf96148bdb352b7e662280b90b182ea5f6cfdeab4";
    static const char answer_code[] = "228bd4830a3ffc0aefdbe3f4643c94dd2af1cfd37951cefab926d92c5128f1cc";
    struct rpc_head got;
    struct rpc_request q = request();
    assert_err(ERR_DENIED, rpc_request_check(slice_of(NULL, 0), &q, slice_str(head_text),
                                             slice_str(request_code), T_MS, &got));
    assert_err(ERR_DENIED, rpc_answer_check(slice_of(NULL, 0), slice_str(code_text), 200,
                                            slice_of(answer_body, sizeof answer_body), slice_str(head_text),
                                            slice_str(answer_code), &got));
}

static void old_requests_are_known_as_such(void **state)
{
    struct rpc_head got;
    assert_ok(check_at(head_text, code_text, T_MS + RPC_AGE_MS_MAX, &got));
    assert_ok(check_at(head_text, code_text, T_MS - RPC_AGE_MS_MAX, &got));
    assert_err(ERR_TIMEOUT, check_at(head_text, code_text, T_MS + RPC_AGE_MS_MAX + 1, &got));
    assert_err(ERR_TIMEOUT, check_at(head_text, code_text, T_MS - RPC_AGE_MS_MAX - 1, &got));
}

/* ---- streamed answers ---- */

static const char stream_text[] = "e768a0b735df008d78c311e8540e57887a1ffa59d9b49b00c02f407749dbccf1";
static const char *const payloads[] = { "some rows", "", "the proof" };
static const char frames_text[] = "09000000"
                                  "736f6d6520726f7773"
                                  "0fafc8b35c6987514781556138de5040cb2ca0d35eb2d27df925e01356440379"
                                  "00000000"
                                  "20b0b34e9f9c15129e5ee2b5c3983ee3882db721fb16b2bae312948fb6ecc805"
                                  "09000080"
                                  "7468652070726f6f66"
                                  "23e646383f9383fba254bfecf0d998ddd4d3cd6ff6884b826c49cdfd03cf6605";
#define FRAMES_BYTES ((sizeof frames_text - 1) / 2)

static struct pool *pool;

static struct buf frames_make(struct rpc_proof *out_proof)
{
    struct buf out = buf_open(pool, 1000);
    struct rpc_sealer sealer;
    struct rpc_head h = head();
    rpc_stream_sign(secret(), slice_str(code_text), 200, &h, &sealer, out_proof);
    for (size_t i = 0; i < 3; i++)
        rpc_frame_put(&sealer, slice_str(payloads[i]), i == 2, &out);
    assert_ok(buf_err(&out));
    return out;
}

static err stream_open_with(const char *asked, unsigned status, const char *code, struct rpc_stream *out)
{
    struct rpc_head got;
    return rpc_stream_open(secret(), slice_str(asked), status, slice_str(head_text), slice_str(code), pool,
                           &got, out);
}

/* How many frames are believed of bytes that come in pieces, and whether the last was among them. */
static size_t frames_read(struct slice bytes, size_t piece, bool *out_ended, err *out_error)
{
    struct rpc_stream stream;
    struct rpc_frame frame;
    size_t count = 0;
    *out_error = ERR_END;
    *out_ended = false;
    assert_ok(stream_open_with(code_text, 200, stream_text, &stream));
    while (bytes.len > 0 && *out_error == ERR_END) {
        struct slice part = slice_part(bytes, 0, bytes.len < piece ? bytes.len : piece);
        bytes = slice_part(bytes, part.len, bytes.len - part.len);
        while ((*out_error = rpc_stream_next(&stream, &part, &frame)) == OK) {
            assert_true(count < 3 && slice_equal_str(frame.payload, payloads[count]));
            assert_int_equal(frame.is_last, count == 2);
            *out_ended = frame.is_last;
            count++;
        }
    }
    rpc_stream_close(&stream);
    return count;
}

static void streams_are_those_of_the_page(void **state)
{
    struct rpc_proof proof;
    struct rpc_stream stream;
    struct buf out = frames_make(&proof);
    char text[sizeof frames_text];
    bool ended;
    err e;
    assert_string_equal(proof.head, head_text);
    assert_string_equal(proof.code, stream_text);
    assert_int_equal(out.len, FRAMES_BYTES);
    for (size_t i = 0; i < out.len; i++)
        snprintf(text + 2 * i, 3, "%02x", out.at[i]);
    assert_string_equal(text, frames_text);
    for (size_t piece = 1; piece <= out.len; piece++) {
        assert_int_equal(frames_read(buf_slice(&out), piece, &ended, &e), 3);
        assert_true(ended && e == ERR_END);
    }
    /* it answers this request with this status, and is no answer in one piece; nor is that a stream */
    assert_err(ERR_DENIED, stream_open_with(answer_text, 200, stream_text, &stream));
    assert_err(ERR_DENIED, stream_open_with(code_text, 503, stream_text, &stream));
    assert_err(ERR_DENIED, stream_open_with(code_text, 200, answer_text, &stream));
    assert_err(ERR_DENIED, check_answer(code_text, 200, head_text, stream_text));
    buf_close(&out);
}

/* Cut off, with a bit flipped, with a byte more: what is believed is the beginning, and never an end that is
 * none. */
static void frames_are_in_their_place_or_none(void **state)
{
    struct rpc_proof proof;
    struct buf out = frames_make(&proof);
    uint8_t bytes[FRAMES_BYTES + 1];
    bool ended;
    err e;
    for (size_t cut = 0; cut < out.len; cut++) {
        assert_true(frames_read(slice_of(out.at, cut), 7, &ended, &e) < 3);
        assert_true(!ended && e == ERR_END);
    }
    for (size_t bit = 0; bit < 8 * out.len; bit++) {
        memcpy(bytes, out.at, out.len);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_true(frames_read(slice_of(bytes, out.len), 11, &ended, &e) < 3);
        assert_false(ended);
    }
    memcpy(bytes, out.at, out.len);
    bytes[out.len] = 0;
    assert_int_equal(frames_read(slice_of(bytes, out.len + 1), 1000, &ended, &e), 3);
    assert_err(ERR_INPUT, e);
    put_le32(bytes, RPC_FRAME_BYTES_MAX + 1);
    assert_int_equal(frames_read(slice_of(bytes, out.len), 1000, &ended, &e), 0);
    assert_err(ERR_INPUT, e);
    buf_close(&out);
}

/* Frames left out, exchanged, or of another answer are not believed. */
static void frames_have_their_order(void **state)
{
    static const size_t at[] = { 0, 45, 81, FRAMES_BYTES };
    struct rpc_proof proof;
    struct buf out = frames_make(&proof);
    uint8_t bytes[2 * FRAMES_BYTES];
    bool ended;
    err e;
    for (size_t first = 0; first < 3; first++)
        for (size_t second = 0; second < 3; second++) {
            size_t len = at[first + 1] - at[first], more = at[second + 1] - at[second];
            memcpy(bytes, out.at + at[first], len);
            memcpy(bytes + len, out.at + at[second], more);
            assert_int_equal(frames_read(slice_of(bytes, len + more), 1000, &ended, &e), first != 0    ? 0
                                                                                         : second != 1 ? 1
                                                                                                       : 2);
            assert_false(ended);
        }
    struct rpc_sealer sealer;
    struct rpc_head h = head();
    h.nonce[0]++;
    rpc_stream_sign(secret(), slice_str(code_text), 200, &h, &sealer, &proof);
    buf_clear(&out);
    rpc_frame_put(&sealer, slice_str(payloads[0]), false, &out);
    assert_int_equal(frames_read(buf_slice(&out), 1000, &ended, &e), 0);
    assert_err(ERR_DENIED, e);
    buf_close(&out);
}

static void a_frame_may_lack_memory(void **state)
{
    struct pool *tight = pool_open(pool, "tight", 40000);
    struct rpc_sealer sealer;
    struct rpc_stream stream;
    struct rpc_frame frame;
    struct rpc_proof proof;
    struct rpc_head h = head(), got;
    struct buf out = buf_open(pool, 1u << 20);
    static uint8_t rows[100000];
    rpc_stream_sign(secret(), slice_str(code_text), 200, &h, &sealer, &proof);
    rpc_frame_put(&sealer, slice_of(rows, sizeof rows), true, &out);
    assert_ok(buf_err(&out));
    assert_ok(rpc_stream_open(secret(), slice_str(code_text), 200, slice_str(proof.head),
                              slice_str(proof.code), tight, &got, &stream));
    struct slice bytes = buf_slice(&out);
    assert_err(ERR_LIMIT, rpc_stream_next(&stream, &bytes, &frame));
    rpc_stream_close(&stream);
    buf_close(&out);
    pool_close(tight);
}

static void headers_are_kept(void **state)
{
    struct rpc_proof proof;
    char longer[RPC_HEAD_TEXT_BYTES + 1];
    memset(&proof, 'x', sizeof proof);
    rpc_proof_header(&proof, slice_of("", 0), slice_of("", 0));
    assert_string_equal(proof.head, "");
    assert_string_equal(proof.code, "");
    rpc_proof_header(&proof, slice_str("KELPIE-rpc"), slice_str(head_text));
    rpc_proof_header(&proof, slice_str("Kelpie-Rpc-Code"), slice_str(code_text));
    rpc_proof_header(&proof, slice_str("Kelpie-Rpc-Codes"), slice_str("no"));
    assert_string_equal(proof.head, head_text);
    assert_string_equal(proof.code, code_text);
    snprintf(longer, sizeof longer, "%s0", head_text);
    rpc_proof_header(&proof, slice_str("kelpie-rpc"), slice_str(longer));
    assert_string_equal(proof.head, "");
}

static int pool_begin(void **state)
{
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    return 0;
}

static int pool_end(void **state)
{
    pool_close(pool);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_those_of_the_page),       cmocka_unit_test(no_digit_may_change),
        cmocka_unit_test(nothing_else_is_proven_by_it),      cmocka_unit_test(what_is_no_proof_is_refused),
        cmocka_unit_test(old_requests_are_known_as_such),    cmocka_unit_test(streams_are_those_of_the_page),
        cmocka_unit_test(frames_are_in_their_place_or_none), cmocka_unit_test(frames_have_their_order),
        cmocka_unit_test(a_frame_may_lack_memory),           cmocka_unit_test(headers_are_kept),
        cmocka_unit_test(an_empty_secret_proves_nothing),
    };
    return cmocka_run_group_tests(tests, pool_begin, pool_end);
}
