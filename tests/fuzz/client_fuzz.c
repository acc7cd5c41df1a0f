/* Any bytes as what a server answers to the HTTP client, behind an ordinary answer: status lines, headers, chunks,
 * gzip, cut anywhere. Byte 0 chooses (bit 0: gzip is accepted, bit 1: a small body limit). What is taken is within
 * the limits, what is not has a text. */
#include "base/check.h"
#include "io/io.h"
#include "net/client.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ANSWER_BYTES_MAX 65536
#define BODY_BYTES_MAX   (1u << 20)
#define SMALL_BYTES      100

static struct io *io;
static struct pool *root;
static struct net_client *client;
static char url[64];
static int listener;
static pthread_t thread;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the two below */
static uint8_t answer[ANSWER_BYTES_MAX];
static size_t answer_len;

/* One connection after another: read something, answer, close. */
static void *serve(void *context)
{
    static uint8_t bytes[ANSWER_BYTES_MAX];
    int fd;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        pthread_mutex_lock(&lock);
        size_t len = answer_len, sent = 0;
        memcpy(bytes, answer, len);
        pthread_mutex_unlock(&lock);
        char request[4096];
        ssize_t n = recv(fd, request, sizeof request, 0);
        for (; n > 0 && sent<len; sent += n> 0 ? (size_t)n : 0)
            n = send(fd, bytes + sent, len - sent, MSG_NOSIGNAL);
        close(fd);
    }
    return NULL;
}

static void leave(void)
{
    shutdown(listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(listener);
    net_client_close(client);
    pool_close(root);
    io_close(io);
}

static void open_all(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    check(bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 16) == 0);
    check(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%u/", ntohs(address.sin_port));
    check(pthread_create(&thread, NULL, serve, NULL) == 0);
    check(io_open("/tmp", &io) == OK);
    root = pool_open(NULL, "fuzz", POOL_BYTES_UNLIMITED);
    check(net_client_open(io, root, &client) == OK);
    atexit(leave);
}

static void set_answer(struct slice bytes)
{
    pthread_mutex_lock(&lock);
    answer_len = bytes.len < sizeof answer ? bytes.len : sizeof answer;
    memcpy(answer, bytes.at, answer_len);
    pthread_mutex_unlock(&lock);
}

static void get(uint8_t flags)
{
    struct net_client_request request = {
        .url = url,
        .accept_gzip = (flags & 1) != 0,
        .timeout_ms = 20000,
        .encoded_bytes_max = flags & 2 ? SMALL_BYTES : BODY_BYTES_MAX,
    };
    struct net_client_response response = { 0 };
    struct err_at at = { 0 };
    struct pool *pool = pool_open(NULL, "body", 4 * BODY_BYTES_MAX);
    struct buf body = buf_open(pool, flags & 2 ? 4 * SMALL_BYTES : BODY_BYTES_MAX);
    err e = net_client_do(client, &request, &body, &response, &at);
    if (e == OK) {
        check(response.status < 1000 && response.encoded_bytes <= request.encoded_bytes_max);
        check(memchr(response.content_type, 0, sizeof response.content_type) != NULL);
        check(request.accept_gzip || body.len <= response.encoded_bytes);
    } else {
        check((e == ERR_IO || e == ERR_LIMIT) && at.text[0] != 0);
    }
    pool_close(pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    if (client == NULL)
        open_all();
    set_answer(slice_str("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nA: b\r\n\r\nup 1\n"));
    get(data[0]);
    set_answer(slice_of(data + 1, size - 1));
    get(data[0]);
    return 0;
}
