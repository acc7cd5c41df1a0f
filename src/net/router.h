/* The table of routes: which handler answers a method and a path. */
#ifndef NET_ROUTER_H
#define NET_ROUTER_H

#include "base/err.h"
#include "net/server.h"

/* ERR_INPUT: a pattern that is malformed or given twice with a common method; ERR_LIMIT too many. */
err router_check(const struct net_route *routes, size_t count, struct err_at *at);

/* Find the route of a path, encoded as it was sent. NULL with *out_allowed = 0: no such path; NULL with
 * methods: only those. *out_argument is still percent-encoded. Exact paths win over {name}, {name} over
 * "*". */
const struct net_route *router_find(const struct net_route *routes, size_t count, enum net_method method,
                                    struct slice path, struct slice *out_argument, unsigned *out_allowed);

#endif
