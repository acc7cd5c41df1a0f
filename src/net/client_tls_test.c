/* Goal: with a server name of its own a request says the same as without: the Host of its URL, and its path as it
 * is. Method: a TLS server that keeps the head of what it got, on a free port and on that of https, which takes
 * the right to it. */
#include "base/test.h"

#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "io/io.h"
#include "net/client.h"

static struct pool *root;
static struct io *io;
static gnutls_certificate_credentials_t credentials;

struct tls_server {
    int listener;
    char head[4096];
};

static void make_credentials(void)
{
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t crt;
    gnutls_x509_privkey_init(&key);
    gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
    gnutls_x509_crt_init(&crt);
    gnutls_x509_crt_set_version(crt, 3);
    gnutls_x509_crt_set_serial(crt, "\1", 1);
    gnutls_x509_crt_set_activation_time(crt, time(NULL) - 3600);
    gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 3600);
    gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, "kelpie.test", 11);
    gnutls_x509_crt_set_key(crt, key);
    assert_int_equal(gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0), 0);
    gnutls_certificate_allocate_credentials(&credentials);
    assert_int_equal(gnutls_certificate_set_x509_key(credentials, &crt, 1, key), 0);
    gnutls_x509_crt_deinit(crt);
    gnutls_x509_privkey_deinit(key);
}

/* One request. */
static void *serve(void *context)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    struct tls_server *server = context;
    gnutls_session_t session;
    size_t len = 0;
    int fd = accept(server->listener, NULL, NULL);
    gnutls_init(&session, GNUTLS_SERVER);
    gnutls_set_default_priority(session);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials);
    gnutls_transport_set_int(session, fd);
    gnutls_handshake_set_timeout(session, 5000);
    if (gnutls_handshake(session) == 0) {
        while (len < sizeof server->head - 1 && strstr(server->head, "\r\n\r\n") == NULL) {
            ssize_t n = gnutls_record_recv(session, server->head + len, sizeof server->head - 1 - len);
            if (n <= 0)
                break;
            len += (size_t)n;
            server->head[len] = 0;
        }
        gnutls_record_send(session, answer, sizeof answer - 1);
        gnutls_bye(session, GNUTLS_SHUT_WR);
    }
    gnutls_deinit(session);
    close(fd);
    return NULL;
}

/* Listen at 127.0.0.2. Returns the port, 0 if that is not allowed or taken. */
static unsigned listen_at(struct tls_server *server, unsigned port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    socklen_t len = sizeof address;
    int on = 1;
    inet_pton(AF_INET, "127.0.0.2", &address.sin_addr);
    *server = (struct tls_server){ .listener = socket(AF_INET, SOCK_STREAM, 0) };
    setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server->listener, (struct sockaddr *)&address, len) != 0 || listen(server->listener, 5) != 0 ||
        getsockname(server->listener, (struct sockaddr *)&address, &len) != 0) {
        close(server->listener);
        return 0;
    }
    return ntohs(address.sin_port);
}

/* What the server got of a request of this URL. */
static void fetch(struct tls_server *server, const char *url, bool path_as_is)
{
    struct net_client_request request = { .url = url,
                                          .timeout_ms = 5000,
                                          .encoded_bytes_max = 100,
                                          .path_as_is = path_as_is,
                                          .tls = { .server_name = "kelpie.test",
                                                   .insecure_skip_verify = true } };
    struct net_client *client;
    struct buf body = buf_open(root, 100);
    struct net_client_response response = { 0 };
    struct err_at at = { .text = "" };
    pthread_t thread;
    server->head[0] = 0;
    pthread_create(&thread, NULL, serve, server);
    assert_ok(net_client_open(io, root, &client));
    err e = net_client_do(client, &request, &body, &response, &at);
    if (e != OK)
        shutdown(server->listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    if (e != OK)
        fail_msg("%s: %s", url, at.text);
    net_client_close(client);
    buf_close(&body);
}

static void assert_has(const char *head, const char *part)
{
    if (strstr(head, part) == NULL)
        fail_msg("no \"%s\" in \"%s\"", part, head);
}

static void test_path_and_host_of_a_free_port(void **state)
{
    struct tls_server server;
    char url[100], host[100];
    unsigned port = listen_at(&server, 0);
    assert_int_not_equal(port, 0);
    snprintf(host, sizeof host, "Host: 127.0.0.2:%u\r\n", port);
    snprintf(url, sizeof url, "https://127.0.0.2:%u/a/../b/%%2E./c?x=1", port);
    fetch(&server, url, true);
    assert_has(server.head, "GET /a/../b/%2E./c?x=1 HTTP/1.1\r\n");
    assert_has(server.head, host);
    fetch(&server, url, false);
    assert_has(server.head, "GET /");
    assert_null(strstr(server.head, "/a/../b"));
    close(server.listener);
}

static void test_host_of_the_port_of_https(void **state)
{
    struct tls_server server;
    if (listen_at(&server, 443) == 0) {
        printf("# port 443 of 127.0.0.2 is not to be had\n");
        skip();
    }
    fetch(&server, "https://127.0.0.2/x", true);
    assert_has(server.head, "\r\nHost: 127.0.0.2\r\n");
    fetch(&server, "https://127.0.0.2:443/x", true);
    assert_has(server.head, "\r\nHost: 127.0.0.2\r\n");
    close(server.listener);
}

int main(void)
{
    root = pool_open(NULL, "client_tls_test", POOL_BYTES_UNLIMITED);
    if (io_open("/tmp", &io) != OK)
        return 1;
    make_credentials();
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_path_and_host_of_a_free_port),
                                        cmocka_unit_test(test_host_of_the_port_of_https) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    gnutls_certificate_free_credentials(credentials);
    io_close(io);
    pool_close(root);
    return failed;
}
