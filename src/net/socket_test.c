/* Goal: a connection that a library makes ends with the other host, idle or not: its options are set. That they
 * do: ./dev chaos cut-zone. */
#include "base/test.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/socket.h"

static int option_of(int fd, int level, int option)
{
    int value = -1;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(fd, level, option, &value, &len), 0);
    return value;
}

static void connections_end_with_their_host(void **state)
{
    static const int domains[] = { AF_INET, AF_INET6 };
    for (int i = 0; i < 2; i++) {
        int fd = net_socket_open(domains[i], SOCK_STREAM, IPPROTO_TCP, 3500);
        if (fd < 0 && domains[i] == AF_INET6)
            continue; /* a machine without IPv6 */
        assert_true(fd >= 0);
        assert_int_equal(option_of(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
        assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_KEEPIDLE), 1);
        assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_KEEPINTVL), 1);
        assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_KEEPCNT), 3);
        assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 3500);
        close(fd);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(connections_end_with_their_host) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
