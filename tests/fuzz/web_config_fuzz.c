/* Any text as the web configuration: file → settings → check → credentials, then the text as an Authorization
 * header against them. Hashes of the file are not tried, bcrypt is slow on purpose; a cheap one of our own is. */
#include "base/buf.h"
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

static void authorize(struct pool *pool, struct slice credentials)
{
    /* Cost 4, the least there is. */
    static const char hash[] = "$2y$04$aaaaaaaaaaaaaaaaaaaaaOWVt8dKzBJkXyGS4M3YQvC6Fkgm7mJKW";
    struct net_user users[] = { { slice_str("alice"), slice_of(hash, sizeof hash - 1) } };
    struct net_web_config config = net_web_config_default();
    struct err_at at = { 0 };
    struct net_auth *auth;
    struct slice user;
    config.users = users;
    config.user_count = 1;
    if (credentials.len > 64 || net_web_config_check(&config, &at) != OK ||
        net_auth_open(io, pool, &config, &auth) != OK)
        return;
    check(net_auth_needed(auth));
    struct buf header = buf_open(pool, 1000);
    buf_put_str(&header, "Basic ");
    buf_put_slice(&header, credentials);
    for (int i = 0; i < 2; i++) /* the second time from memory */
        ERR_IGNORE(net_auth_check(auth, buf_slice(&header), &user));
    ERR_IGNORE(net_auth_check(auth, slice_str("Basic YWxpY2U6c2VjcmV0"), &user));
    buf_close(&header);
    net_auth_close(auth);
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
    authorize(pool, slice_of(data, size));
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
