/* Goal: only the right credentials pass, wrong ones cost a bcrypt once; impossible settings are refused.
 * Method: a real bcrypt hash of low cost, tables of headers and settings. */
#include "base/test.h"

#include "io/io.h"
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
                                        cmocka_unit_test(test_impossible_settings) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    io_close(io);
    pool_close(root);
    return failed;
}
