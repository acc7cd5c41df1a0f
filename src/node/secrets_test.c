/* Secrets of files and variables: what is taken, what is refused and by which name, and that no text tells any of
 * it. */
#include "base/test.h"

#include <stdlib.h>
#include <string.h>

#include "node/secrets.h"

#define SECRET "hush-hush-hush-hush"

static struct pool *pool;
static struct io *io;
static char directory[] = "/tmp/secrets_test_XXXXXX";

static struct config config_of(const char *s3)
{
    char text[2000];
    struct config config;
    struct err_at at = { 0 };
    snprintf(text, sizeof text,
             "cluster: {name: n, address: 'a:1', secret_file: secret}\n"
             "log: {kafka: {bootstrap: 'k:1', topic: t, control_topic: c,\n"
             "      sasl: {mechanism: scram-sha-512, user: u, password_file: password}}}\n"
             "blob: {s3: {endpoint: 'http://a', bucket: abc, %s}}\n",
             s3);
    if (config_parse(slice_str(text), pool, &config, &at) != OK)
        fail_msg("%s", at.text);
    return config;
}

static void put_file(const char *path, struct slice bytes)
{
    struct io_file *file;
    ERR_IGNORE(io_unlink(io, path));
    assert_ok(io_file_open(io, path, IO_CREATE, &file));
    assert_ok(io_file_write(file, 0, bytes));
    io_file_close(file);
}

static void assert_slice(const char *expected, struct slice s)
{
    assert_int_equal(strlen(expected), s.len);
    assert_memory_equal(expected, s.at, s.len + 1); /* with its NUL */
}

static void files(void **state)
{
    struct config config = config_of("credentials: static, access_key: AKID, secret_key_file: key");
    struct secrets secrets;
    struct err_at at = { 0 };
    assert_ok(io_dir_create(io, "below"));
    for (int i = 0; i < 2; i++) { /* below the io's root, and below a directory in it */
        const char *end = i == 0 ? "\n" : "\r\n";
        char text[100];
        snprintf(text, sizeof text, SECRET "%s", end);
        put_file(i == 0 ? "secret" : "below/secret", slice_str(text));
        put_file(i == 0 ? "password" : "below/password", slice_str("pass word"));
        put_file(i == 0 ? "key" : "below/key", slice_str("k/e+y=\n"));
        assert_ok(secrets_read(&config, slice_str(i == 0 ? "" : "below"), io, pool, &secrets, &at));
        assert_slice(SECRET, secrets.cluster);
        assert_slice("pass word", secrets.kafka_password);
        assert_slice("AKID", secrets.s3_access_key);
        assert_slice("k/e+y=", secrets.s3_secret_key);
        assert_int_equal(secrets.s3_session_token.len, 0);
        assert_ok(io_unlink(io, i == 0 ? "secret" : "below/secret"));
    }
    const struct config none = config_default();
    assert_ok(secrets_read(&none, slice_str("nowhere"), io, pool, &secrets, &at));
    assert_int_equal(secrets.cluster.len, 0);
}

static void certificates_and_paths(void **state)
{
    struct secrets secrets;
    struct err_at at = { 0 };
    struct config config;
    static const char text[] =
        "cluster: {name: n, address: 'a:1', secret_file: secret, ca_file: nodes.pem}\n"
        "log: {kafka: {bootstrap: 'k:1', topic: t, control_topic: c,\n"
        "      tls: {enabled: true, ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem}}}\n"
        "blob: {s3: {endpoint: 'https://a', bucket: abc, credentials: file, credentials_file: /etc/aws,\n"
        "            ca_file: s3.pem}}\n";
    assert_ok(config_parse(slice_str(text), pool, &config, &at));
    ERR_IGNORE(io_dir_create(io, "below"));
    put_file("below/secret", slice_str(SECRET));
    put_file("below/ca.pem", slice_str("of an authority\n"));
    put_file("below/cert.pem", slice_str("a certificate\n"));
    assert_err(ERR_NOT_FOUND, secrets_read(&config, slice_str("below"), io, pool, &secrets, &at));
    assert_string_equal(at.text, "log.kafka.tls.key_file: below/key.pem cannot be read: not found");
    put_file("below/key.pem", slice_of("a\0b", 3));
    assert_err(ERR_INPUT, secrets_read(&config, slice_str("below"), io, pool, &secrets, &at));
    put_file("below/key.pem", slice_str("a key\n"));
    assert_ok(secrets_read(&config, slice_str("below"), io, pool, &secrets, &at));
    assert_slice("of an authority\n", secrets.kafka_ca);
    assert_slice("a certificate\n", secrets.kafka_cert);
    assert_slice("a key\n", secrets.kafka_key);
    char path[IO_PATH_BYTES_MAX];
    snprintf(path, sizeof path, "%s/below/nodes.pem", directory);
    assert_slice(path, secrets.cluster_ca_file);
    snprintf(path, sizeof path, "%s/below/s3.pem", directory);
    assert_slice(path, secrets.s3_ca_file);
    assert_slice("/etc/aws", secrets.s3_credentials_file);
    ERR_IGNORE(io_unlink(io, "below/secret"));
}

static void refused(const struct config *config, err expected, const char *part)
{
    struct secrets secrets;
    struct err_at at = { 0 };
    assert_err(expected, secrets_read(config, slice_str(""), io, pool, &secrets, &at));
    if (strstr(at.text, part) == NULL || strstr(at.text, "hush") != NULL)
        fail_msg("%s: %s", part, at.text);
}

static void bad_files(void **state)
{
    static char huge[SECRET_BYTES_MAX + 2];
    struct config config = config_of("credentials: static, access_key: AKID, secret_key_file: key");
    memset(huge, 'h', sizeof huge - 1);
    put_file("password", slice_str("p"));
    put_file("key", slice_str("k"));
    ERR_IGNORE(io_unlink(io, "secret"));
    refused(&config, ERR_NOT_FOUND, "cluster.secret_file: secret cannot be read: not found");
    put_file("secret", slice_str(""));
    refused(&config, ERR_INPUT, "cluster.secret_file: secret has 0 bytes instead of 16 to 4096");
    put_file("secret", slice_str("hush-hush-hush!\n")); /* 15 */
    refused(&config, ERR_INPUT, "secret has 15 bytes");
    put_file("secret", slice_str(SECRET "\n" SECRET));
    refused(&config, ERR_INPUT, "secret is not one line");
    put_file("secret", slice_of(SECRET "\0" SECRET, 2 * sizeof SECRET));
    refused(&config, ERR_INPUT, "secret is not one line");
    put_file("secret", slice_str(huge));
    refused(&config, ERR_INPUT, "secret has 4097 bytes");
    put_file("secret", slice_of(huge, sizeof huge - 2));
    put_file("password", slice_str("\n"));
    refused(&config, ERR_INPUT, "log.kafka.sasl.password_file: password has 0 bytes instead of 1");
    put_file("password", slice_str("hush\thush"));
    refused(&config, ERR_INPUT, "log.kafka.sasl.password_file: password is not one line");
    put_file("password", slice_str("p"));
    assert_ok(io_unlink(io, "key"));
    refused(&config, ERR_NOT_FOUND, "blob.s3.secret_key_file: key cannot be read");
    assert_ok(io_dir_create(io, "key"));
    refused(&config, ERR_CONFLICT, "blob.s3.secret_key_file: key cannot be read");
}

static void the_environment(void **state)
{
    struct config config = config_of("credentials: environment");
    struct secrets secrets;
    put_file("secret", slice_str(SECRET));
    put_file("password", slice_str("p"));
    unsetenv("AWS_ACCESS_KEY_ID");
    unsetenv("AWS_SECRET_ACCESS_KEY");
    unsetenv("AWS_SESSION_TOKEN");
    refused(&config, ERR_INPUT, "blob.s3.credentials: AWS_ACCESS_KEY_ID is not set");
    setenv("AWS_ACCESS_KEY_ID", "AKID", 1);
    refused(&config, ERR_INPUT, "blob.s3.credentials: AWS_SECRET_ACCESS_KEY is not set");
    setenv("AWS_SECRET_ACCESS_KEY", "", 1);
    refused(&config, ERR_INPUT, "AWS_SECRET_ACCESS_KEY has 0 bytes");
    setenv("AWS_SECRET_ACCESS_KEY", "hush\nhush", 1);
    refused(&config, ERR_INPUT, "AWS_SECRET_ACCESS_KEY is not one line");
    setenv("AWS_SECRET_ACCESS_KEY", SECRET, 1);
    assert_ok(secrets_read(&config, slice_str(""), io, pool, &secrets, &(struct err_at){ 0 }));
    assert_slice("AKID", secrets.s3_access_key);
    assert_slice(SECRET, secrets.s3_secret_key);
    assert_int_equal(secrets.s3_session_token.len, 0);
    setenv("AWS_SESSION_TOKEN", "token", 1);
    assert_ok(secrets_read(&config, slice_str(""), io, pool, &secrets, &(struct err_at){ 0 }));
    assert_slice("token", secrets.s3_session_token);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files),
        cmocka_unit_test(certificates_and_paths),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(the_environment),
    };
    if (mkdtemp(directory) == NULL || io_open(directory, &io) != OK)
        return 1;
    pool = pool_open(NULL, "test", POOL_BYTES_UNLIMITED);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_close(pool);
    io_close(io);
    return failed;
}
