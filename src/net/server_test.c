/* Goal: the server against clients that behave, misbehave and attack, over real sockets on 127.0.0.1.
 * Method: one server per test with short limits; a tiny client that sends exact bytes and reads until the
 * server closes or a deadline passes. Nothing waits longer than it must: limits are some 300 ms. */
#include "base/test.h"

#include <arpa/inet.h>
#include <crypt.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "codec/gzip.h"
#include "io/io.h"
#include "net/client.h"
#include "net/server.h"

static struct pool *root;
static struct io *io;
static _Atomic int streams_done;
static _Atomic int saw_cancel;

/* ---- handlers ---- */

static void handle_echo(void *context, struct net_request *q, struct net_response *r)
{
    r->content_type = "text/plain";
    buf_printf(&r->body, "method=%d path=%.*s argument=%.*s user=%.*s body=%zu\n", (int)q->method,
               SLICE_ARG(q->path), SLICE_ARG(q->argument), SLICE_ARG(q->user), q->body.len);
    for (size_t i = 0; i < q->param_count && i < 20; i++)
        buf_printf(&r->body, "%.*s=%.*s\n", SLICE_ARG(q->params[i].name), SLICE_ARG(q->params[i].value));
    struct slice header = net_request_header(q, "x-test");
    buf_printf(&r->body, "x-test=%.*s\n", SLICE_ARG(header));
    assert_ok(net_response_header(r, "X-Reply", "yes"));
    assert_err(ERR_INPUT, net_response_header(r, "X-Bad", "a\r\nb"));
    assert_err(ERR_INPUT, net_response_header(r, "Content-Length", "1"));
}

static void handle_large(void *context, struct net_request *q, struct net_response *r)
{
    r->content_type = "application/json";
    for (int i = 0; i < 20000; i++)
        buf_put_str(&r->body, "0123456789");
}

static void handle_too_large(void *context, struct net_request *q, struct net_response *r)
{
    for (int i = 0; i < 100000 && buf_err(&r->body) == OK; i++)
        buf_put_str(&r->body, "0123456789");
}

struct stream {
    int left;
    bool fails;
};

static err next_chunk(void *context, struct buf *chunk)
{
    struct stream *s = context;
    for (int i = 0; i < 1000; i++)
        buf_put_str(chunk, "abcdefghij");
    if (--s->left == 0)
        return s->fails ? ERR_IO : ERR_END;
    return OK;
}

static void stream_done(void *context) { atomic_fetch_add(&streams_done, 1); }

static void handle_stream(void *context, struct net_request *q, struct net_response *r)
{
    struct stream *s;
    struct slice fails;
    assert_ok(pool_alloc(q->pool, sizeof *s, (void **)&s));
    *s = (struct stream){ .left = 50, .fails = net_request_param(q, "fail", &fails) };
    r->content_type = "text/plain";
    r->next = next_chunk;
    r->next_context = s;
    r->done = stream_done;
}

static void handle_slow(void *context, struct net_request *q, struct net_response *r)
{
    for (int i = 0; i < 400 && !net_request_canceled(q); i++)
        io_sleep_ns(io, 5000000);
    if (net_request_canceled(q))
        atomic_fetch_add(&saw_cancel, 1);
    buf_put_str(&r->body, "slept");
}

static const struct net_route routes[] = {
    { NET_GET | NET_POST | NET_PUT, "/echo", handle_echo, 0, false },
    { NET_POST, "/small", handle_echo, 100, false },
    { NET_GET, "/label/{name}/values", handle_echo, 0, false },
    { NET_GET, "/large", handle_large, 0, false },
    { NET_GET, "/too_large", handle_too_large, 0, false },
    { NET_GET, "/stream", handle_stream, 0, false },
    { NET_GET, "/slow", handle_slow, 0, false },
    { NET_GET, "/healthy", handle_echo, 0, true },
};

static struct net_server_config test_config(void)
{
    struct net_server_config c = net_server_config_default();
    c.listen = "127.0.0.1:0";
    c.routes = routes;
    c.route_count = sizeof routes / sizeof routes[0];
    c.body_bytes_max = 1 << 20;
    c.response_bytes_max = 512 << 10;
    c.head_ms_max = 300;
    c.body_ms_max = 1000;
    c.idle_ms_max = 600;
    c.body_grace_ms = 200;
    c.params_max = 50;
    c.params_bytes_max = 10000;
    return c;
}

static struct net_server *start(const struct net_server_config *config)
{
    struct net_server *server;
    struct err_at at = { 0 };
    err e = net_server_open(io, root, config, &server, &at);
    if (e != OK)
        fail_msg("open: %s", at.text);
    return server;
}

/* ---- a client of bytes ---- */

static int dial(const struct net_server *server)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(net_server_port(server)),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void put(int fd, const char *text) { send(fd, text, strlen(text), MSG_NOSIGNAL); }

static int64_t now_ms(void) { return io_monotonic_ns(io) / 1000000; }

/* Everything until the server closes, or what came in wait_ms. *out_closed may be NULL. */
static char *take(int fd, int wait_ms, bool *out_closed)
{
    static char text[4 << 20];
    size_t len = 0;
    bool closed = false;
    for (int64_t end = now_ms() + wait_ms; !closed && now_ms() < end && len < sizeof text - 1;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        if (poll(&p, 1, 20) <= 0)
            continue;
        ssize_t n = recv(fd, text + len, sizeof text - 1 - len, 0);
        closed = n <= 0;
        len += n > 0 ? (size_t)n : 0;
    }
    text[len] = 0;
    if (out_closed != NULL)
        *out_closed = closed;
    return text;
}

/* Send, perhaps end, read until close. out_closed may be NULL. */
static char *talk_and(const struct net_server *server, const char *text, bool ends, bool *out_closed)
{
    int fd = dial(server);
    put(fd, text);
    if (ends)
        shutdown(fd, SHUT_WR);
    char *answer = take(fd, 3000, out_closed);
    close(fd);
    return answer;
}

#define talk(server, text) talk_and(server, text, false, NULL)

#define assert_has(text, part)                             \
    do {                                                   \
        if (strstr(text, part) == NULL)                    \
            fail_msg("no \"%s\" in:\n%.600s", part, text); \
    } while (0)

#define END " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"

/* ---- tests ---- */

static void test_requests(void **state)
{
    struct net_server_config config = test_config();
    struct net_server *server = start(&config);
    char *a = talk(server, "GET /echo?a=1&a=%32&b=x%20y+z HTTP/1.1\r\nHost: x\r\nX-Test: hello\r\n"
                           "Connection: close\r\n\r\n");
    assert_has(a, "HTTP/1.1 200 OK\r\n");
    assert_has(a, "Content-Type: text/plain\r\n");
    assert_has(a, "X-Reply: yes\r\n");
    assert_has(a, "method=1 path=/echo argument= user= body=0\na=1\na=2\nb=x y z\nx-test=hello\n");
    a = talk(server, "GET /label/a%2Fb%3D/values" END "\r\n");
    assert_has(a, "path=/label/a/b=/values argument=a/b= ");
    a = talk(server,
             "POST /echo?q=query" END "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n"
             "Content-Length: 16\r\n\r\nq=form&x=%2B+%20");
    assert_has(a, "body=16\nq=form\nx=+ ");
    a = talk(server,
             "POST /echo" END "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n");
    assert_has(a, "200 OK");
    assert_has(a, "body=7\n");
    a = talk(server, "POST /echo" END "Content-Length: 0\r\n\r\n");
    assert_has(a, "body=0\n");
    a = talk(server, "HEAD /large" END "\r\n");
    assert_has(a, "Content-Length: 200000\r\n");
    assert_string_equal(strstr(a, "\r\n\r\n"), "\r\n\r\n");
    a = talk(server, "HEAD /stream" END "\r\n");
    assert_has(a, "200 OK");
    a = talk(server, "OPTIONS /echo" END "Origin: http://grafana\r\n\r\n");
    assert_has(a, "HTTP/1.1 204 ");
    assert_has(a, "Allow: GET, HEAD, POST, PUT, OPTIONS\r\n");
    assert_has(a, "Access-Control-Allow-Origin: *\r\n");
    a = talk(server, "GET /nowhere" END "\r\n");
    assert_has(a, "HTTP/1.1 404 ");
    a = talk(server, "PUT /large" END "\r\n");
    assert_has(a, "HTTP/1.1 405 ");
    assert_has(a, "Allow: GET, HEAD, OPTIONS\r\n");
    a = talk(server, "BREW /large" END "\r\n");
    assert_has(a, "HTTP/1.1 501 ");
    a = talk(server, "GET /too_large" END "\r\n");
    assert_has(a, "HTTP/1.1 500 ");
    a = talk(server, "GET /echo?a=%zz" END "\r\n");
    assert_has(a, "HTTP/1.1 400 ");
    net_server_close(server, 1000);
}

static void test_keep_alive_and_pipelining(void **state)
{
    struct net_server_config config = test_config();
    config.idle_ms_max = 60000;
    struct net_server *server = start(&config);
    bool closed; /* once the client ended its side and all is answered, not as late as an idle connection */
    char *a = talk_and(server,
                       "GET /echo?n=1 HTTP/1.1\r\nHost: x\r\n\r\nPOST /echo?n=2 HTTP/1.1\r\nHost: x\r\n"
                       "Content-Length: 3\r\n\r\nabcGET /echo?n=3 HTTP/1.1\r\nHost: x\r\n\r\n",
                       true, &closed);
    assert_has(a, "n=1");
    assert_has(a, "n=2");
    assert_has(a, "n=3");
    assert_true(closed);
    net_server_close(server, 1000);
    config.idle_ms_max = 600;
    server = start(&config);
    int64_t begin = now_ms(); /* an idle connection is closed after idle_ms_max */
    talk_and(server, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", false, &closed);
    assert_true(closed);
    assert_true(now_ms() - begin >= 500);
    net_server_close(server, 1000);
}

static void test_framing_attacks(void **state)
{
    struct net_server_config config = test_config();
    struct net_server *server = start(&config);
    char *a = talk(server,
                   "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
                   "0\r\n\r\nGET /echo?smuggled=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_has(a, "HTTP/1.1 400 ");
    assert_null(strstr(a, "smuggled"));
    a = talk(server, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd");
    assert_null(strstr(a, " 200 "));
    a = talk(server, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc");
    assert_null(strstr(a, " 200 "));
    a = talk(server, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3x\r\n\r\nabc");
    assert_null(strstr(a, " 200 "));
    a = talk(server, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n");
    assert_null(strstr(a, " 200 "));
    a = talk(server,
             "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n");
    assert_null(strstr(a, " 200 "));
    a = talk(server, "GET /echo HTTP/1.1\r\n\r\n"); /* no Host */
    assert_null(strstr(a, " 200 "));
    a = talk(server, "nonsense\r\n\r\n");
    assert_null(strstr(a, " 200 "));
    /* a body shorter than announced is never handled */
    a = talk_and(server, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", true, NULL);
    assert_null(strstr(a, " 200 "));
    net_server_close(server, 1000);
}

static void test_limits(void **state)
{
    struct net_server_config config = test_config();
    struct net_server *server = start(&config);
    char *a = talk(server, "POST /small" END "Content-Length: 101\r\n\r\n");
    assert_has(a, "HTTP/1.1 413 ");
    a = talk(server, "POST /echo" END "Content-Length: 99999999999999999999\r\n\r\n");
    assert_null(strstr(a, " 200 "));
    a = talk(server, "POST /echo" END "Content-Length: 2000000\r\n\r\n");
    assert_has(a, "HTTP/1.1 413 ");
    /* chunked: the size is seen only while it arrives */
    static char big[400];
    memset(big, 'x', 300);
    char request[1000];
    snprintf(request, sizeof request,
             "POST /small" END "Transfer-Encoding: chunked\r\n\r\n12c\r\n%s\r\n0\r\n\r\n", big);
    a = talk(server, request);
    assert_has(a, "HTTP/1.1 413 ");
    /* too many parameters, too large a form */
    char many[2000] = "GET /echo?";
    for (int i = 0; i < 60; i++)
        strcat(many, "a=1&");
    strcat(many, END "\r\n");
    a = talk(server, many);
    assert_has(a, "HTTP/1.1 413 ");
    a = talk(server,
             "POST /echo" END "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10001\r\n"
             "\r\n");
    assert_null(strstr(a, " 200 ")); /* the body never comes */
    /* a long head is served up to 24 KB, and answered beyond */
    static char headers[200000];
    static const char parts[2][40] = { "GET /large?", "GET /large HTTP/1.1\r\nHost: x\r\nX: " };
    for (size_t bytes = 20000; bytes < 40000; bytes += 499) {
        for (int i = 0; i < 2; i++) {
            size_t at = strlen(strcpy(headers, parts[i]));
            memset(headers + at, 'x', bytes);
            strcpy(headers + at + bytes, i == 0 ? END "\r\n" : "\r\nConnection: close\r\n\r\n");
            a = talk(server, headers);
            if (bytes < 24000)
                assert_has(a, " 200 OK");
            else if (bytes < 32000) /* the library answers beyond, if it has room to */
                assert_has(a, bytes < 24577 ? "HTTP/1.1 " : " 431 ");
            else
                assert_null(strstr(a, " 200 "));
        }
    }
    /* many headers: the library answers 431 or closes */
    strcpy(headers, "GET /echo HTTP/1.1\r\nHost: x\r\n");
    size_t len = strlen(headers);
    for (int i = 0; len < 190000; i++)
        len += (size_t)snprintf(headers + len, sizeof headers - len,
                                "X-H%d: 0123456789012345678901234567890\r\n", i);
    strcat(headers, "\r\n");
    a = talk(server, headers);
    assert_null(strstr(a, " 200 "));
    net_server_close(server, 1000);
}

static void test_body_budget(void **state)
{
    struct net_server_config config = test_config();
    config.bodies_in_flight_bytes_max = 1000;
    struct net_server *server = start(&config);
    int fd = dial(server);
    put(fd, "POST /echo" END "Content-Length: 900\r\n\r\nx");
    io_sleep_ns(io, 50000000);
    char *a = talk(server, "POST /echo" END "Content-Length: 200\r\n\r\n");
    assert_has(a, "HTTP/1.1 503 ");
    assert_has(a, "Retry-After: 1\r\n");
    close(fd);
    bool freed = false; /* the budget comes back when the first client is gone */
    for (int i = 0; i < 100 && !freed; i++) {
        io_sleep_ns(io, 20000000);
        freed = strstr(talk(server, "POST /echo" END "Content-Length: 3\r\n\r\nabc"), "200 OK") != NULL &&
                strstr(talk(server, "POST /echo" END "Content-Length: 200\r\n\r\n"), "503") == NULL;
    }
    assert_true(freed);
    net_server_close(server, 1000);
}

/* Send one byte every step_ms until the server closes; how long did it let us? */
static int64_t drip(const struct net_server *server, const char *head, int step_ms, int64_t max_ms)
{
    int fd = dial(server);
    put(fd, head);
    int64_t begin = now_ms();
    for (bool closed = false; !closed && now_ms() - begin < max_ms;) {
        if (send(fd, "a", 1, MSG_NOSIGNAL) != 1)
            break;
        take(fd, step_ms, &closed);
    }
    close(fd);
    return now_ms() - begin;
}

static void test_drips_are_cut(void **state)
{
    struct net_server_config config = test_config();
    struct net_server *server = start(&config);
    assert_true(drip(server, "", 50, 5000) < 1500);                                     /* request line */
    assert_true(drip(server, "GET /echo HTTP/1.1\r\nHost: x\r\nX: ", 50, 5000) < 1500); /* head */
    int64_t ms = drip(server, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", 50, 5000);
    assert_true(ms >= 150 && ms < 1500); /* below the minimum rate after the grace */
    config.body_bytes_per_s_min = 1;
    net_server_close(server, 1000);
    server = start(&config);
    ms = drip(server, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", 50, 5000);
    assert_true(ms >= 800 && ms < 2500); /* fast enough, but past the total deadline */
    net_server_close(server, 1000);
}

static void test_unread_answer_is_cut(void **state)
{
    struct net_server_config config = test_config();
    config.send_ms_max = 400;
    config.response_bytes_max = 64 << 20;
    struct net_server *server = start(&config);
    int fd = dial(server);
    int small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    atomic_store(&streams_done, 0);
    for (int i = 0; i < 40; i++)
        put(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"); /* and never read */
    int64_t begin = now_ms();
    while (now_ms() - begin < 1500)
        io_sleep_ns(io, 50000000);
    close(fd);
    net_server_close(server, 500);
    assert_true(atomic_load(&streams_done) >= 1);
}

/* Idle connections make room for those that ask; busy ones do not. */
static void test_many_connections(void **state)
{
    enum { IDLE_COUNT = 200 };
    struct net_server_config config = test_config();
    config.connections_max = 8;
    config.head_ms_max = config.idle_ms_max = 60000;
    struct net_server *server = start(&config);
    int busy = dial(server), idle[IDLE_COUNT];
    put(busy, "GET /slow" END "\r\n");
    for (int i = 0; i < IDLE_COUNT; i++)
        idle[i] = dial(server);
    assert_has(talk(server, "GET /echo" END "\r\n"), " 200 OK");
    assert_has(take(busy, 5000, NULL), "slept");
    for (int i = 0; i < IDLE_COUNT; i++)
        close(idle[i]);
    close(busy);
    /* of one address */
    config.connections_per_ip_max = 3;
    net_server_close(server, 1000);
    server = start(&config);
    for (int i = 0; i < 3; i++)
        idle[i] = dial(server);
    bool closed = false;
    for (int i = 0; i < 100 && !closed; i++) { /* the others may still be in the queue */
        int fd = dial(server);
        take(fd, 50, &closed);
        close(fd);
    }
    assert_true(closed);
    close(idle[0]);
    bool served = false;
    for (int i = 0; i < 100 && !served; i++)
        served = strstr(talk(server, "GET /echo" END "\r\n"), " 200 OK") != NULL;
    assert_true(served);
    close(idle[1]);
    close(idle[2]);
    net_server_close(server, 1000);
}

static void test_gzip_and_streams(void **state)
{
    struct net_server_config config = test_config();
    struct net_server *server = start(&config);
    atomic_store(&streams_done, 0);
    char url[100];
    struct net_client *client;
    assert_ok(net_client_open(io, root, &client));
    static const struct {
        const char *path;
        size_t bytes;
    } pages[] = { { "large", 200000 }, { "stream", 500000 } };
    for (int i = 0; i < 4; i++) {
        struct buf body = buf_open(root, 1 << 20);
        struct net_client_response response;
        snprintf(url, sizeof url, "http://127.0.0.1:%u/%s", net_server_port(server), pages[i / 2].path);
        struct net_client_request request = {
            .url = url, .accept_gzip = i % 2 == 0, .timeout_ms = 5000, .encoded_bytes_max = 1 << 20
        };
        assert_ok(net_client_do(client, &request, &body, &response, NULL));
        assert_int_equal(response.status, 200);
        assert_int_equal(body.len, pages[i / 2].bytes);
        assert_true(i % 2 == 0 ? response.encoded_bytes < 10000 : response.encoded_bytes == body.len);
        assert_memory_equal(body.at, i / 2 == 0 ? "0123456789" : "abcdefghij", 10);
        buf_close(&body);
    }
    char *a = talk(server, "GET /large" END "Accept-Encoding: gzip;q=0, br\r\n\r\n");
    assert_null(strstr(a, "Content-Encoding"));
    a = talk(server, "GET /large" END "Accept-Encoding: br, gzip;q=0.5\r\n\r\n");
    assert_has(a, "Content-Encoding: gzip");
    a = talk(server, "GET /echo" END "Accept-Encoding: gzip\r\n\r\n"); /* small */
    assert_null(strstr(a, "Content-Encoding"));
    a = talk(server, "GET /stream?fail=1" END "\r\n"); /* cut: no final chunk */
    assert_has(a, "abcdefghij");
    assert_null(strstr(a, "\r\n0\r\n\r\n"));
    net_client_close(client);
    net_server_close(server, 1000);
    assert_int_equal(atomic_load(&streams_done), 3);
}

static void test_cancel_when_client_leaves(void **state)
{
    struct net_server_config config = test_config();
    struct net_server *server = start(&config);
    atomic_store(&saw_cancel, 0);
    int fd = dial(server);
    put(fd, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    io_sleep_ns(io, 100000000);
    assert_int_equal(atomic_load(&saw_cancel), 0);
    close(fd);
    for (int i = 0; i < 100 && atomic_load(&saw_cancel) == 0; i++)
        io_sleep_ns(io, 10000000);
    assert_int_equal(atomic_load(&saw_cancel), 1);
    net_server_close(server, 1000);
}

static void test_graceful_stop(void **state)
{
    struct net_server_config config = test_config();
    struct net_server *server = start(&config);
    int busy = dial(server), idle = dial(server);
    put(busy, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    put(idle, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_has(take(idle, 200, NULL), "200 OK");
    uint16_t port = net_server_port(server);
    net_server_stop(server);
    bool closed;
    take(idle, 400, &closed);
    assert_true(closed);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    assert_int_not_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    net_server_close(server, 5000); /* the slow request (2 s) gets its answer */
    char *a = take(busy, 500, NULL);
    assert_has(a, "200 OK");
    assert_has(a, "slept");
    assert_has(a, "Connection: close");
    close(busy);
    close(idle);

    server = start(&config); /* and with no patience it is canceled */
    atomic_store(&saw_cancel, 0);
    busy = dial(server);
    put(busy, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    io_sleep_ns(io, 100000000);
    int64_t begin = now_ms();
    net_server_close(server, 50);
    assert_true(now_ms() - begin < 1500);
    assert_int_equal(atomic_load(&saw_cancel), 1);
    close(busy);
}

static void test_credentials(void **state)
{
    struct crypt_data data = { 0 };
    char hash[64];
    strcpy(hash, crypt_rn("secret", "$2y$04$abcdefghijklmnopqrstuu", &data, sizeof data));
    struct net_user user = { slice_str("alice"), slice_str(hash) };
    struct slice token = slice_str("t0ken");
    struct net_web_config web = net_web_config_default();
    web.users = &user;
    web.user_count = 1;
    struct net_server_config config = test_config();
    config.web = &web;
    struct net_server *server = start(&config);
    char *a = talk(server, "GET /echo" END "\r\n");
    assert_has(a, "HTTP/1.1 401 ");
    assert_has(a, "WWW-Authenticate: Basic realm=\"kelpie\"");
    a = talk(server, "POST /echo" END "Content-Length: 100000\r\n\r\n"); /* before the body is read */
    assert_has(a, "HTTP/1.1 401 ");
    assert_has(talk(server, "GET /nowhere" END "\r\n"), "HTTP/1.1 401 "); /* pages are not told apart */
    assert_has(talk(server, "GET /healthy" END "\r\n"), "HTTP/1.1 200 ");
    assert_has(talk(server, "OPTIONS /echo" END "Origin: x\r\n\r\n"), "HTTP/1.1 204 ");
    assert_has(talk(server, "GET /echo" END "Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n"), "user=alice");
    assert_has(talk(server, "GET /echo" END "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n\r\n"),
               "HTTP/1.1 401 ");
    /* reload: tokens instead of users; a bad one changes nothing */
    web.users = NULL;
    web.user_count = 0;
    web.tokens = &token;
    web.token_count = 1;
    assert_ok(net_server_reload(server, &web, NULL));
    assert_has(talk(server, "GET /echo" END "Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n"),
               "HTTP/1.1 401 ");
    assert_has(talk(server, "GET /echo" END "Authorization: Bearer t0ken\r\n\r\n"), "user=token");
    web.token_count = NET_TOKENS_MAX + 1;
    assert_err(ERR_LIMIT, net_server_reload(server, &web, NULL));
    web.token_count = 1;
    web.cert_file = web.key_file = slice_str("x");
    assert_err(ERR_UNSUPPORTED, net_server_reload(server, &web, NULL));
    assert_has(talk(server, "GET /echo" END "Authorization: Bearer t0ken\r\n\r\n"), "user=token");
    net_server_close(server, 1000);
}

/* A self-signed certificate (its own authority) for localhost, written as PREFIX.crt and PREFIX.key. */
static void make_certificate(const char *prefix, const char *common_name, int serial)
{
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t crt;
    gnutls_datum_t pem;
    char path[200];
    unsigned char serial_byte = (unsigned char)serial;
    gnutls_x509_privkey_init(&key);
    gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
    gnutls_x509_crt_init(&crt);
    gnutls_x509_crt_set_version(crt, 3);
    gnutls_x509_crt_set_serial(crt, &serial_byte, 1);
    gnutls_x509_crt_set_activation_time(crt, time(NULL) - 3600);
    gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 3600);
    gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, common_name,
                                  (unsigned)strlen(common_name));
    gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, common_name, (unsigned)strlen(common_name),
                                         GNUTLS_FSAN_SET);
    gnutls_x509_crt_set_basic_constraints(crt, 1, -1);
    gnutls_x509_crt_set_key_usage(crt, GNUTLS_KEY_DIGITAL_SIGNATURE | GNUTLS_KEY_KEY_CERT_SIGN);
    gnutls_x509_crt_set_key(crt, key);
    assert_int_equal(gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0), 0);
    gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem);
    snprintf(path, sizeof path, "%s.crt", prefix);
    assert_ok(io_replace_file(io, path, slice_of(pem.data, pem.size)));
    gnutls_free(pem.data);
    gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem);
    snprintf(path, sizeof path, "%s.key", prefix);
    assert_ok(io_replace_file(io, path, slice_of(pem.data, pem.size)));
    gnutls_free(pem.data);
    gnutls_x509_crt_deinit(crt);
    gnutls_x509_privkey_deinit(key);
}

static char directory[100];

static err get_tls(const struct net_server *server, const char *server_name, const char *ca, const char *cert,
                   unsigned *out_status)
{
    char url[100], ca_path[200], cert_path[200], key_path[200];
    snprintf(url, sizeof url, "https://127.0.0.1:%u/echo", net_server_port(server));
    snprintf(ca_path, sizeof ca_path, "%s/%s.crt", directory, ca);
    snprintf(cert_path, sizeof cert_path, "%s/%s.crt", directory, cert != NULL ? cert : "");
    snprintf(key_path, sizeof key_path, "%s/%s.key", directory, cert != NULL ? cert : "");
    struct net_client_request request = { .url = url,
                                          .timeout_ms = 5000,
                                          .encoded_bytes_max = 1 << 20,
                                          .tls = { .ca_file = ca_path,
                                                   .server_name = server_name,
                                                   .cert_file = cert != NULL ? cert_path : NULL,
                                                   .key_file = cert != NULL ? key_path : NULL } };
    struct net_client *client;
    struct buf body = buf_open(root, 1 << 20);
    struct net_client_response response = { 0 };
    struct err_at at = { 0 };
    assert_ok(net_client_open(io, root, &client));
    err e = net_client_do(client, &request, &body, &response, &at);
    if (e != OK)
        printf("# TLS: %s\n", at.text);
    *out_status = response.status;
    net_client_close(client);
    buf_close(&body);
    return e;
}

static void test_tls(void **state)
{
    unsigned status;
    make_certificate("one", "kelpie.test", 1);
    make_certificate("two", "kelpie.test", 2);
    struct net_web_config web = net_web_config_default();
    web.cert_file = slice_str("one.crt");
    web.key_file = slice_str("one.key");
    struct net_server_config config = test_config();
    config.web = &web;
    struct net_server *server = start(&config);
    assert_ok(get_tls(server, "kelpie.test", "one", NULL, &status));
    assert_int_equal(status, 200);
    assert_err(ERR_DENIED, get_tls(server, "other.test", "one", NULL, &status));
    assert_err(ERR_DENIED, get_tls(server, NULL, "one", NULL, &status));
    assert_err(ERR_DENIED, get_tls(server, "kelpie.test", "two", NULL, &status));
    /* new certificates without a restart; a key that does not belong changes nothing */
    struct err_at at;
    web.key_file = slice_str("two.key");
    assert_err(ERR_INPUT, net_server_reload(server, &web, &at));
    web.cert_file = slice_str("two.crt");
    assert_ok(net_server_reload(server, &web, &at));
    assert_ok(get_tls(server, "kelpie.test", "two", NULL, &status));
    assert_err(ERR_DENIED, get_tls(server, "kelpie.test", "one", NULL, &status));
    web.cert_file = slice_str("missing.crt");
    assert_err(ERR_NOT_FOUND, net_server_reload(server, &web, &at));
    web = net_web_config_default();
    assert_err(ERR_UNSUPPORTED, net_server_reload(server, &web, &at));
    /* plain HTTP on the TLS port gets nothing */
    assert_null(strstr(talk(server, "GET /echo" END "\r\n"), "200"));
    net_server_close(server, 1000);
}

static void test_client_certificates(void **state)
{
    unsigned status;
    make_certificate("client", "someone", 3);
    struct net_web_config web = net_web_config_default();
    web.cert_file = slice_str("one.crt");
    web.key_file = slice_str("one.key");
    web.client_ca_file = slice_str("client.crt");
    web.client_auth = NET_CLIENT_AUTH_VERIFY;
    struct net_server_config config = test_config();
    config.web = &web;
    struct net_server *server = start(&config);
    assert_ok(get_tls(server, "kelpie.test", "one", "client", &status));
    assert_int_equal(status, 200);
    err e = get_tls(server, "kelpie.test", "one", NULL, &status);
    assert_true(e != OK || status == 403);
    e = get_tls(server, "kelpie.test", "one", "two", &status); /* not of this authority */
    assert_true(e != OK || status == 403);
    net_server_close(server, 1000);
}

static void test_bad_configurations(void **state)
{
    struct net_server *server;
    struct err_at at;
    static const char *const bad[] = { "",
                                       "9090",
                                       "127.0.0.1",
                                       "127.0.0.1:",
                                       "127.0.0.1:99999",
                                       "example.com:80",
                                       "127.0.0.1:8x",
                                       "[::1:80",
                                       "999.0.0.1:80" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct net_server_config config = test_config();
        config.listen = bad[i];
        assert_err(ERR_INPUT, net_server_open(io, root, &config, &server, &at));
    }
    struct net_server_config config = test_config();
    server = start(&config);
    char taken[40];
    snprintf(taken, sizeof taken, "127.0.0.1:%u", net_server_port(server));
    struct net_server *second;
    config.listen = taken;
    assert_err(ERR_BUSY, net_server_open(io, root, &config, &second, &at));
    net_server_close(server, 0);
    struct net_web_config web = net_web_config_default();
    web.cert_file = web.key_file = slice_str("nowhere.pem");
    config = test_config();
    config.web = &web;
    assert_err(ERR_NOT_FOUND, net_server_open(io, root, &config, &server, &at));
    config = test_config();
    config.head_ms_max = 0;
    assert_err(ERR_INPUT, net_server_open(io, root, &config, &server, &at));
}

static void test_all_addresses(void **state)
{
    struct net_server_config config = test_config();
    config.listen = ":0";
    struct net_server *server = start(&config);
    assert_has(talk(server, "GET /echo" END "\r\n"), "200 OK");
    net_server_close(server, 1000);
}

int main(void)
{
    strcpy(directory, "/tmp/kelpie-net-test-XXXXXX");
    if (mkdtemp(directory) == NULL || io_open(directory, &io) != OK)
        return 1;
    root = pool_open(NULL, "server_test", POOL_BYTES_UNLIMITED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_keep_alive_and_pipelining),
        cmocka_unit_test(test_framing_attacks),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_body_budget),
        cmocka_unit_test(test_drips_are_cut),
        cmocka_unit_test(test_unread_answer_is_cut),
        cmocka_unit_test(test_many_connections),
        cmocka_unit_test(test_gzip_and_streams),
        cmocka_unit_test(test_cancel_when_client_leaves),
        cmocka_unit_test(test_graceful_stop),
        cmocka_unit_test(test_credentials),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_client_certificates),
        cmocka_unit_test(test_bad_configurations),
        cmocka_unit_test(test_all_addresses),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < 6; i++) {
        static const char *const names[] = { "one.crt", "one.key",    "two.crt",
                                             "two.key", "client.crt", "client.key" };
        ERR_IGNORE(io_unlink(io, names[i]));
    }
    io_close(io);
    rmdir(directory);
    pool_close(root);
    return failed;
}
