/* See socket.h: what is on its way is bounded by TCP_USER_TIMEOUT (RFC 5482), what is idle by keep-alives. */
#include "net/socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>

int net_socket_open(int domain, int type, int protocol, int silent_ms)
{
    const struct {
        int level, option, value;
    } options[] = { { SOL_SOCKET, SO_KEEPALIVE, 1 },
                    { IPPROTO_TCP, TCP_KEEPIDLE, 1 },
                    { IPPROTO_TCP, TCP_KEEPINTVL, 1 },
                    { IPPROTO_TCP, TCP_KEEPCNT, silent_ms / 1000 },
                    { IPPROTO_TCP, TCP_USER_TIMEOUT, silent_ms } };
    int fd = socket(domain, type | SOCK_CLOEXEC, protocol);
    for (size_t i = 0; fd >= 0 && i < sizeof options / sizeof options[0];
         i++) /* one that fails costs seconds */
        (void)setsockopt(fd, options[i].level, options[i].option, &options[i].value, sizeof(int));
    return fd;
}
