/* Goal: the client against servers that lie, never end, bomb and stall. Method: a thread that accepts one
 * connection at a time and answers with prepared bytes, chosen by the path. */
#include "base/test.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "codec/gzip.h"
#include "io/io.h"
#include "net/client.h"

static struct pool *root;
static struct io *io;
static int listener;
static unsigned port;
static struct buf bomb;
static char seen[4096]; /* the last request's head */
static _Atomic int accepted;
static _Atomic int seen_count;

static void answer(int fd, const char *head)
{
    static char zeros[65536];
    if (strstr(head, "GET /ok ") != NULL) {
        dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello");
    } else if (strstr(head, "PUT /a/../ok ") != NULL) {
        dprintf(fd, "HTTP/1.1 103 Early Hints\r\nEarly: yes\r\n\r\n"
                    "HTTP/1.1 200 OK\r\nETag:  \"x y\"\t\r\nEmpty:\r\n: none\r\nContent-Length: 2\r\n\r\nok");
    } else if (strstr(head, "GET /missing ") != NULL) {
        dprintf(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno");
    } else if (strstr(head, "GET /redirect ") != NULL) {
        dprintf(fd, "HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 4\r\n\r\nold!");
    } else if (strstr(head, "GET /loop ") != NULL) {
        dprintf(fd, "HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n");
    } else if (strstr(head, "GET /file ") != NULL) {
        dprintf(fd, "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n");
    } else if (strstr(head, "GET /short ") != NULL) {
        dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
        shutdown(fd, SHUT_RDWR);
    } else if (strstr(head, "GET /garbage ") != NULL) {
        dprintf(fd, "\x01\x02 no HTTP at all\r\n\r\n");
        shutdown(fd, SHUT_RDWR);
    } else if (strstr(head, "GET /bomb ") != NULL) {
        dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %zu\r\n\r\n", bomb.len);
        send(fd, bomb.at, bomb.len, MSG_NOSIGNAL);
    } else if (strstr(head, "GET /cut_gzip ") != NULL) {
        dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 100\r\n\r\n");
        send(fd, bomb.at, 100, MSG_NOSIGNAL);
    } else if (strstr(head, "GET /not_gzip ") != NULL) {
        dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello");
    } else if (strstr(head, "GET /brotli ") != NULL) {
        dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nhello");
    } else if (strstr(head, "GET /endless ") != NULL) {
        dprintf(fd, "HTTP/1.1 200 OK\r\n\r\n");
        while (send(fd, zeros, sizeof zeros, MSG_NOSIGNAL) > 0)
            ;
    } else if (strstr(head, "GET /stall ") != NULL) {
        dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
        struct pollfd p = { .fd = fd, .events = POLLRDHUP };
        poll(&p, 1, 5000);
    }
}

static void *serve(void *context)
{
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            return NULL;
        atomic_fetch_add(&accepted, 1);
        for (;;) {
            size_t len = 0;
            char head[4096];
            while (len < sizeof head - 1) {
                ssize_t n = recv(fd, head + len, sizeof head - 1 - len, 0);
                if (n <= 0)
                    break;
                len += (size_t)n;
                head[len] = 0;
                if (strstr(head, "\r\n\r\n") != NULL)
                    break;
            }
            if (len == 0)
                break;
            memcpy(seen, head, len + 1);
            atomic_fetch_add(&seen_count, 1); /* whoever loads it sees what was copied */
            answer(fd, head);
        }
        close(fd);
    }
}

static err get_with(struct net_client *client, struct net_client_request *request, const char *path,
                    size_t body_max, struct buf *body, struct net_client_response *response, char *text)
{
    char url[200];
    struct err_at at = { 0 };
    snprintf(url, sizeof url, "http://127.0.0.1:%u%s", port, path);
    request->url = url;
    *body = buf_open(root, body_max);
    *response = (struct net_client_response){ 0 };
    err e = net_client_do(client, request, body, response, &at);
    strcpy(text, at.text);
    return e;
}

static void test_answers(void **state)
{
    static const struct {
        const char *path;
        bool follow;
        size_t encoded_max, decoded_max;
        err expected;
        unsigned status;
        const char *body, *text;
    } cases[] = {
        { "/ok", false, 100, 100, OK, 200, "hello", "" },
        { "/ok", false, 5, 5, OK, 200, "hello", "" },
        { "/ok", false, 4, 100, ERR_LIMIT, 0, NULL, "body is over the size limit" },
        { "/ok", false, 100, 4, ERR_LIMIT, 0, NULL, "decoded body is over the size limit" },
        { "/missing", false, 100, 100, OK, 404, "no", "" },
        { "/redirect", false, 100, 100, OK, 302, "old!", "" },
        { "/redirect", true, 100, 100, OK, 200, "hello", "" },
        { "/loop", true, 100, 100, ERR_IO, 0, NULL, "Maximum (10) redirects followed" },
        { "/file", true, 100, 100, ERR_IO, 0, NULL,
          "Protocol \"file\" not supported or disabled in libcurl" },
        { "/short", false, 1000, 1000, ERR_IO, 0, NULL, NULL },
        { "/garbage", false, 1000, 1000, ERR_IO, 0, NULL, NULL },
        { "/bomb", false, 1 << 20, 1 << 20, ERR_LIMIT, 0, NULL, "decoded body is over the size limit" },
        { "/cut_gzip", false, 1 << 20, 100 << 20, ERR_IO, 0, NULL,
          "body ends in the middle of its gzip stream" },
        { "/not_gzip", false, 1000, 1000, ERR_IO, 0, NULL, "body is not valid gzip" },
        { "/brotli", false, 1000, 1000, ERR_IO, 0, NULL, "answer has an encoding that was not asked for" },
        { "/endless", false, 1 << 20, 1 << 20, ERR_LIMIT, 0, NULL, NULL },
        { "/stall", false, 1000, 1000, ERR_TIMEOUT, 0, NULL, NULL },
    };
    struct net_client *client;
    assert_ok(net_client_open(io, root, &client));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct net_client_request request = { .accept_gzip = true,
                                              .follow_redirects = cases[i].follow,
                                              .timeout_ms = 400,
                                              .encoded_bytes_max = cases[i].encoded_max };
        struct buf body;
        struct net_client_response response;
        char text[ERR_TEXT_BYTES_MAX];
        err e = get_with(client, &request, cases[i].path, cases[i].decoded_max, &body, &response, text);
        if (e != cases[i].expected)
            fail_msg("%s: %s (%s)", cases[i].path, err_text(e), text);
        if (e == OK) {
            assert_int_equal(response.status, cases[i].status);
            assert_true(slice_equal_str(buf_slice(&body), cases[i].body));
        } else if (cases[i].text != NULL) {
            assert_string_equal(text, cases[i].text);
        }
        assert_true(body.len <= cases[i].decoded_max);
        buf_close(&body);
    }
    net_client_close(client);
}

static void test_headers_and_reuse(void **state)
{
    struct net_client *client;
    struct buf body;
    struct net_client_response response;
    char text[ERR_TEXT_BYTES_MAX];
    static const char *const headers[] = { "Accept: text/plain", "X-Prometheus-Scrape-Timeout-Seconds: 10" };
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    assert_ok(net_client_open(io, root, &client));
    int before = atomic_load(&accepted), seen_before = atomic_load(&seen_count);
    for (int i = 0; i < 3; i++) {
        struct net_client_request request = { .headers = headers,
                                              .header_count = 2,
                                              .timeout_ms = 1000,
                                              .encoded_bytes_max = 100,
                                              .user = i == 1 ? "alice" : NULL,
                                              .password = "secret",
                                              .authorization = i == 2 ? "Bearer abc" : NULL };
        assert_ok(get_with(client, &request, "/ok", 100, &body, &response, text));
        assert_string_equal(response.content_type, "text/plain");
        assert_int_equal(atomic_load(&seen_count), seen_before + i + 1);
        assert_non_null(strstr(seen, "Accept: text/plain\r\n"));
        assert_non_null(strstr(seen, "X-Prometheus-Scrape-Timeout-Seconds: 10\r\n"));
        assert_int_equal(strstr(seen, "Authorization: Basic YWxpY2U6c2VjcmV0\r\n") != NULL, i == 1);
        assert_int_equal(strstr(seen, "Authorization: Bearer abc\r\n") != NULL, i == 2);
        assert_null(strstr(seen, "Expect"));
        buf_close(&body);
    }
    assert_int_equal(atomic_load(&accepted), before + 1);
    net_client_close(client);
}

static void test_failures(void **state)
{
    struct net_client *client;
    struct net_client_response response;
    struct buf body = buf_open(root, 100);
    _Atomic bool abort = false;
    assert_ok(net_client_open(io, root, &client));
    struct net_client_request request = { .timeout_ms = 1000,
                                          .encoded_bytes_max = 100,
                                          .url = "http://127.0.0.1:1/" };
    assert_err(ERR_IO, net_client_do(client, &request, &body, &response, NULL));
    static const char *const bad[] = { "", "nonsense://x/", "ftp://127.0.0.1/", "http://", "http://[::1/" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        request.url = bad[i];
        assert_err(ERR_INPUT, net_client_do(client, &request, &body, &response, NULL));
    }
    atomic_store(&abort, true);
    request.abort = &abort;
    char url[100];
    snprintf(url, sizeof url, "http://127.0.0.1:%u/stall", port);
    request.url = url;
    assert_err(ERR_CANCELED, net_client_do(client, &request, &body, &response, NULL));
    net_client_close(client);
    buf_close(&body);
}

/* The system's resolver, as curl's thread calls it: it does not come back before it is released. */
static _Atomic int resolving;
static _Atomic bool is_resolved;

__attribute__((visibility("default"))) int getaddrinfo(const char *name, const char *service,
                                                       const struct addrinfo *hints, struct addrinfo **out)
{
    atomic_fetch_add(&resolving, 1);
    while (!atomic_load(&is_resolved))
        usleep(1000);
    atomic_fetch_sub(&resolving, 1);
    return EAI_NONAME;
}

/* A resolver that hangs holds up neither the time limit nor the end. */
static void test_names_that_are_looked_up_for_ever(void **state)
{
    struct net_client *client;
    struct net_client_response response;
    struct buf body = buf_open(root, 100);
    _Atomic bool abort = true;
    struct net_client_request request = { .timeout_ms = 100,
                                          .encoded_bytes_max = 100,
                                          .url = "http://hangs.test/" };
    assert_ok(net_client_open(io, root, &client));
    assert_err(ERR_TIMEOUT, net_client_do(client, &request, &body, &response, NULL));
    assert_int_equal(resolving, 1);
    request.timeout_ms = 600000;
    request.abort = &abort;
    assert_err(ERR_CANCELED, net_client_do(client, &request, &body, &response, NULL));
    net_client_close(client);
    assert_true(resolving > 0);
    atomic_store(&is_resolved, true);
    while (resolving > 0)
        usleep(1000);
    buf_close(&body);
}

static void keep_header(void *context, struct slice name, struct slice value)
{
    struct buf *kept = context;
    if (name.len == 0)
        buf_clear(kept);
    else
        buf_printf(kept, "%.*s=<%.*s>\n", SLICE_ARG(name), SLICE_ARG(value));
}

static void test_put_and_headers_of_the_answer(void **state)
{
    struct net_client *client;
    struct buf body, kept = buf_open(root, 4096);
    struct net_client_response response;
    char text[ERR_TEXT_BYTES_MAX];
    assert_ok(net_client_open(io, root, &client));
    struct net_client_request request = { .method = "PUT",
                                          .path_as_is = true,
                                          .timeout_ms = 1000,
                                          .encoded_bytes_max = 100,
                                          .on_header = keep_header,
                                          .header_context = &kept };
    assert_ok(get_with(client, &request, "/a/../ok", 100, &body, &response, text));
    assert_int_equal(response.status, 200);
    assert_true(atomic_load(&seen_count) > 0 && strstr(seen, "Content-Length: 0\r\n") != NULL);
    assert_true(slice_equal_str(buf_slice(&kept), "ETag=<\"x y\">\nEmpty=<>\nContent-Length=<2>\n"));
    buf_close(&body);
    buf_close(&kept);
    net_client_close(client);
}

struct parts {
    struct buf bytes;
    err answer;
};

static err take_part(void *context, struct slice part)
{
    struct parts *parts = context;
    buf_put_slice(&parts->bytes, part);
    return parts->answer;
}

/* A body that is handed out needs no buffer, and ends when whoever takes it says so. */
static void test_bodies_in_parts(void **state)
{
    struct parts parts = { .bytes = buf_open(root, 1 << 20) };
    struct net_client *client;
    struct buf body;
    struct net_client_response response;
    char text[ERR_TEXT_BYTES_MAX];
    assert_ok(net_client_open(io, root, &client));
    struct net_client_request request = {
        .timeout_ms = 1000, .encoded_bytes_max = SIZE_MAX, .on_body = take_part, .body_context = &parts
    };
    assert_ok(get_with(client, &request, "/ok", 0, &body, &response, text));
    assert_int_equal(response.status, 200);
    assert_true(slice_equal_str(buf_slice(&parts.bytes), "hello") && body.len == 0);
    assert_err(ERR_IO, get_with(client, &request, "/short", 0, &body, &response, text));
    parts.answer = ERR_DENIED;
    buf_clear(&parts.bytes);
    assert_err(ERR_DENIED, get_with(client, &request, "/endless", 0, &body, &response, text));
    assert_true(parts.bytes.len > 0 && parts.bytes.len < 1 << 20);
    buf_close(&parts.bytes);
    net_client_close(client);
}

int main(void)
{
    root = pool_open(NULL, "client_test", POOL_BYTES_UNLIMITED);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof address;
    pthread_t thread;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, len) != 0 || listen(listener, 10) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &len) != 0 || io_open("/tmp", &io) != OK)
        return 1;
    port = ntohs(address.sin_port);
    struct buf zeros = buf_open(root, 16 << 20);
    bomb = buf_open(root, 1 << 20);
    memset(buf_room(&zeros, 16 << 20), 0, 16 << 20);
    zeros.len = 16 << 20;
    if (gzip_compress(buf_slice(&zeros), 9, &bomb) != OK)
        return 1;
    buf_close(&zeros);
    pthread_create(&thread, NULL, serve, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_headers_and_reuse),
        cmocka_unit_test(test_put_and_headers_of_the_answer),
        cmocka_unit_test(test_bodies_in_parts),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_names_that_are_looked_up_for_ever),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    shutdown(listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(listener);
    buf_close(&bomb);
    io_close(io);
    pool_close(root);
    return failed;
}
