/* Sockets for libraries that connect by themselves. */
#ifndef NET_SOCKET_H
#define NET_SOCKET_H

/* As socket(2), close-on-exec, for a TCP connection that ends when the other host has acknowledged no packet for
 * silent_ms (1,000 … 60,000), whether or not something is on its way to it. A process that is stopped, and a host
 * that is slow, acknowledge. Without that a host that vanished is noticed when requests time out. */
int net_socket_open(int domain, int type, int protocol, int silent_ms);

#endif
