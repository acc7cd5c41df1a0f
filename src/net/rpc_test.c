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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_those_of_the_page),    cmocka_unit_test(no_digit_may_change),
        cmocka_unit_test(nothing_else_is_proven_by_it),   cmocka_unit_test(what_is_no_proof_is_refused),
        cmocka_unit_test(old_requests_are_known_as_such), cmocka_unit_test(an_empty_secret_proves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
