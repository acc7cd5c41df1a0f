/* Any text as the configuration file of a node: what loads is printed, and what is printed loads again and
 * prints the same; a reload against the defaults keeps what needs a restart. */
#include "base/check.h"
#include "node/config.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pool *pool = pool_open(NULL, "fuzz", 64u << 20);
    struct config config, again, running = config_default();
    struct err_at at = { 0 };
    err e = config_parse(slice_of(data, size), pool, &config, &at);
    check(e == OK || e == ERR_LIMIT || (at.line > 0 && strncmp(at.text, "line ", 5) == 0));
    if (e == OK) {
        struct buf first = buf_open(pool, 8u << 20), second = buf_open(pool, 8u << 20);
        config_print(&config, &first);
        if (buf_err(&first) == OK && config_parse(buf_slice(&first), pool, &again, &at) != ERR_LIMIT) {
            check(config_parse(buf_slice(&first), pool, &again, &at) == OK);
            config_print(&again, &second);
            check(slice_equal(buf_slice(&first), buf_slice(&second)));
        }
        buf_clear(&second);
        config_keep_restart(&running, &config, &second);
        buf_clear(&second);
        config_keep_restart(&running, &config, &second);
        check(second.len == 0);
    }
    pool_close(pool);
    return 0;
}
