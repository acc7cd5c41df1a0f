/* Percent-encoding and application/x-www-form-urlencoded (WHATWG URL §5.1, as Go's url.ParseQuery). */
#ifndef NET_FORM_H
#define NET_FORM_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "net/server.h"

#include <stdbool.h>

struct form {
    struct net_param *params; /* a block of pool */
    size_t count;
    size_t capacity;
    size_t count_max;
};

/* Append the parameters of text ("a=1&b=%20") to form, decoded into pool; '+' is a space. A text without
 * an escape is borrowed, not copied. Errors ERR_INPUT a bad escape or a ';'; ERR_LIMIT more than count_max,
 * or the pool. */
err form_parse(struct pool *pool, struct slice text, struct form *form);

/* Decode %XX (not '+') into pool; borrowed when there is none. ERR_INPUT, ERR_LIMIT. */
err percent_decode(struct pool *pool, struct slice text, struct slice *out_text);

#endif
