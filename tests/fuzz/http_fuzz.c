/* Any bytes as what a client sends to the port of a node: request lines, headers, bodies, several requests after
 * one another, cut anywhere. The real server with the real API over canned series; rows go into a log that
 * forgets them. Every answer is whole and none says that something went wrong inside. */
#define FAKE_BINDING_COUNT (1u << 12)

#include "base/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/api.h"
#include "api/fake_source.h"
#include "ingest/test_log.h"
#include "net/server.h"
#include "query/query.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ANSWER_BYTES_MAX (8u << 20)
#define WAIT_MS          20000

static struct io *io;
static struct pool *pool;
static struct fake_source source;
static struct query_service *queries;
static struct ingest *ingest;
static struct net_server *server;

static void leave(void)
{
    net_server_close(server, 5000);
    query_service_close(queries);
    ingest_close(ingest);
    pool_close(pool);
    io_close(io);
}

static void open_source(void)
{
    fake_open(&source, pool);
    struct fake_series *up = fake_add(&source, "up|job=a"), *h = fake_add(&source, "h");
    for (int i = 1; i <= 20; i++)
        fake_sample(up, i * 1000, i);
    fake_histogram(&source, h, 3000);
    fake_sample(fake_add(&source, "dotted|my.label=x"), 1000, 1);
    source.exemplar_series_count = 1;
}

static void open_all(void)
{
    struct query_config query = query_config_default();
    struct ingest_config write = ingest_config_default();
    struct net_server_config net = net_server_config_default();
    struct net_web_config web = net_web_config_default();
    struct slice token = slice_str("secret");
    struct err_at at = { 0 };
    struct api *api;
    check(io_open("/tmp", &io) == OK);
    pool = pool_open(NULL, "fuzz", POOL_BYTES_UNLIMITED);
    open_source();
    query.worker_count = 1;
    query.samples_max = 100000;
    query.query_bytes_max = 32u << 20;
    query.timeout_ms = 5000;
    check(query_service_open(&query, io, &source.source, pool, &queries) == OK);
    struct log *log = fake_log_open(pool);
    log->discard = true;
    write.partition_count = 2;
    write.limits.series_max = 1000;
    write.decoded_bytes_max = 1u << 20;
    check(ingest_open(&write, io, log, pool, &ingest) == OK);
    struct api_config config = { .io = io, .queries = queries, .ingest = ingest, .data_directory = "/tmp" };
    check(api_open(&config, pool, &api) == OK);
    web.tokens = &token;
    web.token_count = 1;
    net.web = &web;
    net.listen = "127.0.0.1:0";
    net.context = api;
    net.routes = api_routes(&net.route_count);
    net.cors = true;
    net.body_bytes_max = 8192;
    net.idle_ms_max = 1000; /* an end that comes with an empty line is not noticed either */
    net.head_ms_max = 300;
    net.body_ms_max = 1000;
    check(net_server_open(io, pool, &net, &server, &at) == OK);
    atexit(leave);
}

/* From one of many addresses of this host, so that ports do not run out. */
static int dial(void)
{
    static uint32_t number;
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in from = { .sin_family = AF_INET }, to = from;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + number++ % 65536);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(net_server_port(server));
    check(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
    check(bind(fd, (struct sockaddr *)&from, sizeof from) == 0);
    int error = connect(fd, (struct sockaddr *)&to, sizeof to) == 0 ? 0 : errno;
    if (error == EINTR) { /* the fuzzer's own timer: it goes on in the background */
        struct pollfd done = { .fd = fd, .events = POLLOUT };
        socklen_t len = sizeof error;
        while (poll(&done, 1, -1) < 0)
            check(errno == EINTR);
        check(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0);
    }
    check(error == 0);
    return fd;
}

/* Send all, and read until the server closes, which it is told to do once it answers, or does not at once: an
 * end that comes together with half a head would not be noticed before head_ms_max. Returns the bytes read. */
static size_t talk(struct slice request, char *answer, size_t answer_max)
{
    int fd = dial();
    size_t sent = 0, len = 0;
    bool is_open = true, has_ended = false;
    while (is_open) {
        struct pollfd p = { .fd = fd, .events = (short)(POLLIN | (sent < request.len ? POLLOUT : 0)) };
        int ready = poll(&p, 1, has_ended ? WAIT_MS : 2);
        check(ready != 0 || !has_ended); /* it answers or closes */
        if (ready < 0)
            continue; /* the fuzzer's own timer */
        if ((p.revents & POLLOUT) != 0) {
            ssize_t n = send(fd, request.at + sent, request.len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
            sent = n < 0 ? request.len : sent + (size_t)n;
            continue;
        }
        if (!has_ended)
            shutdown(fd, SHUT_WR);
        has_ended = true;
        if ((p.revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
            ssize_t n = recv(fd, answer + len, answer_max - len, 0);
            is_open = n > 0;
            len += n > 0 ? (size_t)n : 0;
            check(len < answer_max);
        }
    }
    close(fd);
    return len;
}

/* The status of the first answer; its body is as long as it says. But for answers that the library makes without
 * asking (no type): it writes the head twice when there is no Host or an impossible Content-Length. */
static void look_at(char *answer, size_t len)
{
    unsigned status = 0;
    answer[len] = 0;
    if (len == 0) /* not even a request line, or one of HTTP/0.9 */
        return;
    check(sscanf(answer, "HTTP/1.%*1[01] %3u ", &status) == 1 && status >= 100 && status < 600);
    check(status != 500);
    const char *head_end = strstr(answer, "\r\n\r\n");
    check(head_end != NULL);
    const char *length = strstr(answer, "\r\nContent-Length: "), *type = strstr(answer, "\r\nContent-Type: ");
    if (length != NULL && length < head_end && type != NULL && type < head_end && status != 304) {
        size_t body = strtoull(length + 18, NULL, 10), there = len - (size_t)(head_end + 4 - answer);
        check(there == 0 || there >= body); /* none: HEAD */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char answer[ANSWER_BYTES_MAX + 1];
    if (server == NULL)
        open_all();
    if (size > 0)
        look_at(answer, talk(slice_of(data, size), answer, ANSWER_BYTES_MAX));
    return 0;
}
