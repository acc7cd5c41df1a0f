/* Paths against patterns. From: the request's target. To: the server's dispatch. A few dozen routes are
 * compared one by one: below a microsecond, nothing beside the rest of a request.
 *
 * Invariants
 * 1. Matching happens on the encoded path, so that an encoded slash inside an argument does not end it.
 * 2. A pattern's quality decides, not its place: exact (3), {name} (2), rest (1). */
#include "net/router.h"

#include "base/check.h"

/* 0 = no match, else the quality. */
static int match(const char *pattern, struct slice path, struct slice *out_argument)
{
    size_t i = 0;
    int quality = 3;
    *out_argument = slice_of(path.at, 0);
    for (const char *p = pattern; *p != 0; p++) {
        if (*p == '*') {
            *out_argument = slice_part(path, i, path.len - i);
            return 1;
        }
        if (*p == '{') {
            size_t start = i;
            while (i < path.len && path.at[i] != '/')
                i++;
            if (i == start)
                return 0;
            *out_argument = slice_part(path, start, i - start);
            quality = 2;
            p = strchr(p, '}');
            check(p != NULL);
            continue;
        }
        if (i == path.len || path.at[i] != (uint8_t)*p)
            return 0;
        i++;
    }
    return i == path.len ? quality : 0;
}

const struct net_route *router_find(const struct net_route *routes, size_t count, enum net_method method,
                                    struct slice path, struct slice *out_argument, unsigned *out_allowed)
{
    const struct net_route *best = NULL;
    int best_quality = 0;
    unsigned allowed = 0, wanted = method == NET_HEAD ? NET_HEAD | NET_GET : method;
    for (size_t i = 0; i < count; i++) {
        struct slice argument;
        int quality = match(routes[i].path, path, &argument);
        if (quality == 0)
            continue;
        allowed |= routes[i].methods;
        if ((routes[i].methods & wanted) != 0 && quality > best_quality) {
            best = &routes[i];
            best_quality = quality;
            *out_argument = argument;
        }
    }
    *out_allowed = allowed;
    return best;
}

err router_check(const struct net_route *routes, size_t count, struct err_at *at)
{
    if (count > NET_ROUTES_MAX)
        return err_set(at, ERR_LIMIT, "more than %d routes", NET_ROUTES_MAX);
    for (size_t i = 0; i < count; i++) {
        const char *path = routes[i].path, *open = strchr(path, '{'), *star = strchr(path, '*');
        const char *close = open == NULL ? NULL : strchr(open, '}');
        bool is_good = path[0] == '/' && routes[i].handle != NULL && routes[i].methods != 0 &&
                       (star == NULL || (star[1] == 0 && star[-1] == '/')) &&
                       (open == NULL || (close != NULL && star == NULL && open[-1] == '/' &&
                                         (close[1] == 0 || close[1] == '/') && strchr(close, '{') == NULL));
        if (!is_good)
            return err_set(at, ERR_INPUT, "malformed route %s", path);
        for (size_t other = 0; other < i; other++) {
            if (strcmp(routes[other].path, path) == 0 && (routes[other].methods & routes[i].methods) != 0)
                return err_set(at, ERR_INPUT, "route %s is given twice", path);
        }
    }
    return OK;
}
