/* Goal: there is always somebody to take the next connection, whatever the threads of earlier ones do.
 * Method: a server that only holds a connection until its client ends it; threads that end wait in thread_end
 * until the test lets them go. */
#include "base/test.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/io.h"
#include "io/thread.h"
#include "net/listener.h"

#define WAIT_NS (10 * INT64_C(1000000000)) /* for what happens at once */

static struct pool *root;
static struct io *io;

static struct io_mutex lock; /* of all below */
static struct io_cond changed;
static int begun_count, serving_count, ending_count, ended_count;
static int full_count; /* 1: nobody accepts */
static bool ends_wait;

static void add(int *count, int change)
{
    io_mutex_lock(&lock);
    *count += change;
    io_cond_broadcast(&changed);
    io_mutex_unlock(&lock);
}

/* Did *count reach the value in time? */
static bool becomes(const int *count, int value)
{
    int64_t end_ns = io_monotonic_ns(io) + WAIT_NS;
    io_mutex_lock(&lock);
    while (*count != value && io_monotonic_ns(io) < end_ns)
        io_cond_wait_for(&changed, &lock, end_ns - io_monotonic_ns(io));
    bool is_there = *count == value;
    io_mutex_unlock(&lock);
    return is_there;
}

static err thread_begin(void *context, void **out_state)
{
    *out_state = context;
    return OK;
}

static void serve(void *state, int fd, const struct sockaddr *peer, socklen_t peer_bytes)
{
    struct pollfd ended = { .fd = fd, .events = POLLRDHUP };
    add(&begun_count, 1);
    add(&serving_count, 1);
    poll(&ended, 1, -1);
    close(fd);
    add(&serving_count, -1);
}

static void thread_end(void *state)
{
    io_mutex_lock(&lock);
    ending_count++;
    io_cond_broadcast(&changed);
    while (ends_wait)
        io_cond_wait(&changed, &lock);
    ending_count--;
    ended_count++;
    io_cond_broadcast(&changed);
    io_mutex_unlock(&lock);
}

static void full(void *context, bool now_full)
{
    io_mutex_lock(&lock);
    full_count = now_full;
    io_cond_broadcast(&changed);
    io_mutex_unlock(&lock);
}

static struct listener *start(unsigned connections_max)
{
    struct listener_config config = { .listen = "127.0.0.1:0",
                                      .connections_max = connections_max,
                                      .connections_per_ip_max = 1000,
                                      .thread_begin = thread_begin,
                                      .serve = serve,
                                      .thread_end = thread_end,
                                      .full = full,
                                      .context = io };
    struct listener *listener;
    begun_count = ended_count = 0;
    assert_ok(listener_open(io, root, &config, &listener, NULL));
    return listener;
}

static int dial(const struct listener *listener)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons(listener_port(listener)),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Many connections end together, so that most of their threads do; before those are through, as many clients
 * come as threads stayed. The next one must be served all the same. */
static void test_threads_that_end_take_no_connections(void **state)
{
    enum { FIRST_COUNT = 60, STAY_COUNT = 16 }; /* IDLE_MAX */
    struct listener *listener = start(1000);
    int first[FIRST_COUNT], later[STAY_COUNT + 1];
    for (int i = 0; i < FIRST_COUNT; i++)
        first[i] = dial(listener);
    assert_true(becomes(&serving_count, FIRST_COUNT));
    io_mutex_lock(&lock);
    ends_wait = true;
    io_mutex_unlock(&lock);
    for (int i = 0; i < FIRST_COUNT; i++)
        close(first[i]);
    assert_true(becomes(&ending_count, FIRST_COUNT + 1 - STAY_COUNT)); /* one more is idle */
    for (int i = 0; i < STAY_COUNT; i++)
        later[i] = dial(listener);
    assert_true(becomes(&serving_count, STAY_COUNT));
    later[STAY_COUNT] = dial(listener);
    bool is_served = becomes(&serving_count, STAY_COUNT + 1);
    io_mutex_lock(&lock);
    ends_wait = false;
    io_cond_broadcast(&changed);
    io_mutex_unlock(&lock);
    assert_true(becomes(&ending_count, 0));
    is_served = is_served && becomes(&serving_count, STAY_COUNT + 1);
    for (int i = 0; i <= STAY_COUNT; i++)
        close(later[i]);
    listener_close(listener);
    assert_true(is_served);
    assert_int_equal(full_count, 0);
}

/* At connections_max nobody accepts until one ends. */
static void test_full(void **state)
{
    struct listener *listener = start(3);
    int fds[4];
    for (int i = 0; i < 3; i++) {
        fds[i] = dial(listener);
        assert_true(becomes(&serving_count, i + 1));
    }
    fds[3] = dial(listener);
    assert_true(becomes(&full_count, 1));
    io_sleep_ns(io, 50000000); /* time for what must not happen */
    assert_true(becomes(&serving_count, 3));
    close(fds[0]);
    assert_true(becomes(&begun_count, 4));
    close(fds[1]);
    close(fds[2]);
    assert_true(becomes(&serving_count, 1));
    assert_true(becomes(&full_count, 0));
    close(fds[3]);
    listener_close(listener); /* joins all of them */
    assert_int_equal(serving_count, 0);
    assert_int_equal(ended_count, 3);
}

int main(void)
{
    root = pool_open(NULL, "listener_test", POOL_BYTES_UNLIMITED);
    if (io_open("/tmp", &io) != OK)
        return 1;
    io_mutex_init(&lock);
    io_cond_init(&changed);
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads_that_end_take_no_connections),
                                        cmocka_unit_test(test_full) };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    io_cond_done(&changed);
    io_mutex_done(&lock);
    io_close(io);
    pool_close(root);
    return failed;
}
