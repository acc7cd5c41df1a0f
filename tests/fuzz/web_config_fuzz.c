/* Any text as the web configuration: file → settings → check → credentials, then the text as an Authorization
 * header against them (bearer tokens only: bcrypt is slow on purpose). */
#include "base/check.h"
#include "node/web_file.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct io *io;
static char directory[] = "/dev/shm/kelpie-fuzz-XXXXXX";

static void leave(void)
{
    ERR_IGNORE(io_unlink(io, "web.yml"));
    io_close(io);
    rmdir(directory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pool *pool = pool_open(NULL, "fuzz", 64u << 20);
    struct net_web_config config;
    struct err_at at = { 0 };
    struct io_file *file;
    struct net_auth *auth;
    struct slice user;
    if (io == NULL) {
        check(mkdtemp(directory) != NULL && io_open(directory, &io) == OK);
        atexit(leave);
    }
    check(io_file_open(io, "web.yml", IO_WRITE, &file) == OK);
    check(io_file_truncate(file, 0) == OK && io_file_write(file, 0, slice_of(data, size)) == OK);
    io_file_close(file);
    err e = web_file_read(io, "web.yml", pool, &config, &at);
    if (e == OK) {
        check(net_web_config_check(&config, &at) == OK);
        if (config.user_count == 0 && net_auth_open(io, pool, &config, &auth) == OK) {
            ERR_IGNORE(net_auth_check(auth, slice_of(data, size), &user));
            ERR_IGNORE(net_auth_check(auth, slice_str("Bearer secret"), &user));
            net_auth_close(auth);
        }
    } else {
        check(at.text[0] != '\0' || e == ERR_LIMIT);
    }
    pool_close(pool);
    return 0;
}
