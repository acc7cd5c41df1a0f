/* Goal: only the right credentials pass, wrong ones cost a bcrypt once; impossible settings are refused.
 * Method: real bcrypt hashes of low cost, tables of headers and settings, many guesses in a row and at once. */
#include "base/test.h"

#include "base/stat.h"
#include "io/io.h"
#include "io/thread.h"
#include "net/web_config.h"

static struct pool *root;
static struct io *io;

/* bcrypt of "secret", cost 4 and of "other", cost 4 (made with crypt(3), salt "abcdefghijklmnopqrstuu"). */
#include <crypt.h>
static char secret_hash[64], other_hash[64];

static void make_hashes(void)
{
    struct crypt_data data = { 0 };
    strcpy(secret_hash, crypt_rn("secret", "$2y$04$abcdefghijklmnopqrstuu", &data, sizeof data));
    strcpy(other_hash, crypt_rn("other", "$2b$04$bbcdefghijklmnopqrstuu", &data, sizeof data));
}

static void test_check(void **state)
{
    make_hashes();
    struct net_auth *auth;
    struct slice user;
    struct net_user users[] = { { slice_str("alice"), slice_str(secret_hash) },
                                { slice_str("bob"), slice_str(other_hash) } };
    struct slice tokens[] = { slice_str("t0ken-one"), slice_str("t0ken-two") };
    struct net_web_config config = net_web_config_default();
    config.users = users;
    config.user_count = 2;
    config.tokens = tokens;
    config.token_count = 2;
    assert_ok(net_web_config_check(&config, NULL));
    assert_ok(net_auth_open(io, root, &config, &auth));
    assert_true(net_auth_needed(auth));
    for (int round = 0; round < 3; round++) { /* the later rounds come from the cache */
        assert_ok(net_auth_check(auth, slice_str("Basic YWxpY2U6c2VjcmV0"), &user)); /* alice:secret */
        assert_true(slice_equal_str(user, "alice"));
        assert_ok(net_auth_check(auth, slice_str("basic  Ym9iOm90aGVy"), &user)); /* bob:other */
        assert_true(slice_equal_str(user, "bob"));
        assert_ok(net_auth_check(auth, slice_str("Bearer t0ken-two"), &user));
        assert_true(slice_equal_str(user, "token"));
        static const char *const bad[] = {
            "",
            "Basic",
            "Basic ",
            "Basic YWxpY2U6d3Jvbmc=" /* alice:wrong */,
            "Basic YWxpY2U=" /* alice */,
            "Basic Ym9iOnNlY3JldA==" /* bob:secret */,
            "Basic Y2Fyb2w6c2VjcmV0" /* carol:secret */,
            "Basic !!!!",
            "Basic YWxpY2U6AHNlY3JldA==" /* zero byte */,
            "Bearer",
            "Bearer t0ken",
            "Bearer t0ken-one1",
            "Digest x",
        };
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
            assert_err(ERR_DENIED, net_auth_check(auth, slice_str(bad[i]), &user));
    }
    net_auth_close(auth);

    struct net_web_config none = net_web_config_default();
    assert_ok(net_auth_open(io, root, &none, &auth));
    assert_false(net_auth_needed(auth));
    assert_err(ERR_DENIED, net_auth_check(auth, slice_str("Basic YWxpY2U6c2VjcmV0"), &user));
    net_auth_close(auth);
}

static struct net_auth *open_user(const char *name, const char *hash)
{
    struct net_user user = { slice_str(name), slice_str(hash) };
    struct net_web_config config = net_web_config_default();
    struct net_auth *auth;
    config.users = &user;
    config.user_count = 1;
    assert_ok(net_auth_open(io, root, &config, &auth));
    return auth;
}

/* Base64 of "alice:" and seven digits, 13 bytes. */
static void guess(int number, char out[40])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char text[16] = { 0 };
    snprintf(text, sizeof text, "alice:%07d", number);
    size_t len = (size_t)sprintf(out, "Basic ");
    for (size_t i = 0; i < 15; i += 3) {
        uint32_t bits = (uint32_t)text[i] << 16 | (uint32_t)text[i + 1] << 8 | (uint32_t)text[i + 2];
        for (int shift = 18; shift >= 0; shift -= 6)
            out[len++] = digits[bits >> shift & 63];
    }
    strcpy(out + len - 2, "=="); /* 13 = 4 · 3 + 1 */
}

enum { GUESS_COUNT = NET_WRONG_PAIRS_MAX + 10, SENDER_COUNT = 40 };

/* Guesses do not make a password that is known good cost a bcrypt again. */
static void test_good_passwords_stay_known(void **state)
{
    struct net_auth *auth = open_user("alice", secret_hash);
    struct slice user;
    char text[40];
    assert_ok(net_auth_check(auth, slice_str("Basic YWxpY2U6c2VjcmV0"), &user));
    int64_t before = stat_get(STAT_NET_PASSWORD_CHECKS);
    for (int i = 0; i < GUESS_COUNT; i++) {
        guess(i, text);
        assert_err(ERR_DENIED, net_auth_check(auth, slice_str(text), &user));
        assert_err(ERR_DENIED, net_auth_check(auth, slice_str(text), &user)); /* remembered, too */
    }
    assert_int_equal(stat_get(STAT_NET_PASSWORD_CHECKS) - before, GUESS_COUNT);
    assert_ok(net_auth_check(auth, slice_str("Basic YWxpY2U6c2VjcmV0"), &user));
    assert_int_equal(stat_get(STAT_NET_PASSWORD_CHECKS) - before, GUESS_COUNT);
    net_auth_close(auth);
}

struct sender {
    struct net_auth *auth;
    char text[40];
    err e;
};

static void send_one(void *context)
{
    struct sender *sender = context;
    struct slice user;
    sender->e = net_auth_check(sender->auth, slice_str(sender->text), &user);
}

static void send_all(struct sender *senders)
{
    struct io_thread *threads[SENDER_COUNT];
    for (int i = 0; i < SENDER_COUNT; i++)
        assert_ok(io_thread_start(io, "sender", send_one, &senders[i], &threads[i]));
    for (int i = 0; i < SENDER_COUNT; i++)
        io_thread_join(threads[i]);
}

/* Many senders at once: of the same password they need one bcrypt; of different ones only so many wait. */
static void test_senders_at_once(void **state)
{
    struct crypt_data data = { 0 };
    struct sender senders[SENDER_COUNT];
    struct net_auth *auth = /* a check takes some 50 ms: long after all threads have started */
        open_user("alice", crypt_rn("secret", "$2y$10$abcdefghijklmnopqrstuu", &data, sizeof data));
    int64_t before = stat_get(STAT_NET_PASSWORD_CHECKS);
    for (int i = 0; i < SENDER_COUNT; i++)
        senders[i] = (struct sender){ .auth = auth, .text = "Basic YWxpY2U6c2VjcmV0" };
    send_all(senders);
    for (int i = 0; i < SENDER_COUNT; i++)
        assert_ok(senders[i].e);
    assert_int_equal(stat_get(STAT_NET_PASSWORD_CHECKS) - before, 1);
    int busy_count = 0;
    for (int i = 0; i < SENDER_COUNT; i++)
        guess(i, senders[i].text);
    send_all(senders);
    for (int i = 0; i < SENDER_COUNT; i++) {
        assert_true(senders[i].e == ERR_DENIED || senders[i].e == ERR_BUSY);
        busy_count += senders[i].e == ERR_BUSY;
    }
    assert_true(busy_count > 0);
    assert_int_equal(stat_get(STAT_NET_PASSWORD_CHECKS) - before, 1 + SENDER_COUNT - busy_count);
    struct slice user; /* and again there is room */
    guess(SENDER_COUNT, senders[0].text);
    assert_err(ERR_DENIED, net_auth_check(auth, slice_str(senders[0].text), &user));
    net_auth_close(auth);
}

static void test_impossible_settings(void **state)
{
    struct net_web_config config;
    struct net_user user = { slice_str("a"), slice_str("secret") };
    struct slice empty = slice_of("", 0);
#define REFUSE(expected, ...)                                      \
    do {                                                           \
        config = net_web_config_default();                         \
        __VA_ARGS__;                                               \
        assert_err(expected, net_web_config_check(&config, NULL)); \
    } while (0)
    REFUSE(ERR_INPUT, config.cert_file = slice_str("c"));
    REFUSE(ERR_INPUT, config.key_file = slice_str("k"));
    REFUSE(ERR_INPUT, config.client_auth = NET_CLIENT_AUTH_VERIFY);
    REFUSE(ERR_INPUT, config.cert_file = config.key_file = slice_str("c");
           config.client_auth = NET_CLIENT_AUTH_VERIFY);
    REFUSE(ERR_INPUT, config.cert_file = config.key_file = slice_str("c");
           config.client_ca_file = slice_str("c"));
    REFUSE(ERR_INPUT, config.tls_min = NET_TLS_1_3; config.tls_max = NET_TLS_1_2);
    REFUSE(ERR_INPUT, config.users = &user; config.user_count = 1);
    REFUSE(ERR_INPUT, config.tokens = &empty; config.token_count = 1);
    REFUSE(ERR_LIMIT, config.user_count = NET_USERS_MAX + 1);
    REFUSE(ERR_LIMIT, config.token_count = NET_TOKENS_MAX + 1);
    user = (struct net_user){ slice_str("a:b"), slice_str(secret_hash) };
    REFUSE(ERR_INPUT, config.users = &user; config.user_count = 1);
}

int main(void)
{
    root = pool_open(NULL, "web_config_test", POOL_BYTES_UNLIMITED);
    if (io_open("/tmp", &io) != OK)
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_check),
                                        cmocka_unit_test(test_good_passwords_stay_known),
                                        cmocka_unit_test(test_senders_at_once),
                                        cmocka_unit_test(test_impossible_settings) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    io_close(io);
    pool_close(root);
    return failed;
}
