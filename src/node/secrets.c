/* Reading secrets. See secrets.h.
 *
 * Invariants:
 *   1. A text for people names the setting and the file or variable, and holds nothing of what is in it. */
#include "node/secrets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct source {
    const char *setting; /* "cluster.secret_file" */
    const char *name;    /* of the file or variable */
    size_t bytes_min;
};

static err check_secret(const struct source *source, struct slice text, struct err_at *at)
{
    if (text.len < source->bytes_min || text.len > SECRET_BYTES_MAX)
        return err_set(at, ERR_INPUT, "%s: %s has %zu bytes instead of %zu to %d", source->setting,
                       source->name, text.len, source->bytes_min, SECRET_BYTES_MAX);
    for (size_t i = 0; i < text.len; i++)
        if (text.at[i] < ' ' || text.at[i] > '~')
            return err_set(at, ERR_INPUT, "%s: %s is not one line of printable ASCII", source->setting,
                           source->name);
    return OK;
}

/* Relative names are below the directory. An empty name: an empty path. */
static err resolve(const struct source *source, struct slice directory, struct pool *pool,
                   struct slice *out_path, struct err_at *at)
{
    char path[2 * CONFIG_PATH_BYTES];
    bool is_below = directory.len > 0 && source->name[0] != '/';
    if (source->name[0] == 0)
        return OK;
    int len = is_below ? snprintf(path, sizeof path, "%.*s/%s", SLICE_ARG(directory), source->name)
                       : snprintf(path, sizeof path, "%s", source->name);
    if (len < 0 || len >= IO_PATH_BYTES_MAX)
        return err_set(at, ERR_INPUT, "%s: the path of %s is too long", source->setting, source->name);
    return pool_copy(pool, slice_str(path), out_path);
}

/* As it is; of an empty name nothing is read. */
static err read_named(const struct source *source, size_t bytes_max, struct slice directory, struct io *io,
                      struct pool *pool, struct slice *out_bytes, struct err_at *at)
{
    struct slice path = { 0 };
    TRY(resolve(source, directory, pool, &path, at));
    if (path.len == 0)
        return OK;
    err e = io_read_file(io, (const char *)path.at, bytes_max, pool, out_bytes);
    if (e == OK)
        return OK;
    return err_set(at, e == ERR_LIMIT ? ERR_INPUT : e, "%s: %s cannot be read: %s", source->setting,
                   (const char *)path.at, e == ERR_LIMIT ? "it is too large" : err_text(e));
}

static err read_file(struct source source, struct slice directory, struct io *io, struct pool *pool,
                     struct slice *out_text, struct err_at *at)
{
    struct slice text = { 0 };
    if (source.name[0] == 0)
        return OK;
    TRY(read_named(&source, SECRET_BYTES_MAX + 2, directory, io, pool, &text, at));
    if (text.len > 0 && text.at[text.len - 1] == '\n')
        text.len--;
    if (text.len > 0 && text.at[text.len - 1] == '\r')
        text.len--;
    TRY(check_secret(&source, text, at));
    return pool_copy(pool, text, out_text);
}

static err read_pem(struct source source, struct slice directory, struct io *io, struct pool *pool,
                    struct slice *out_text, struct err_at *at)
{
    struct slice text = { 0 };
    TRY(read_named(&source, SECRET_PEM_BYTES_MAX, directory, io, pool, &text, at));
    if (source.name[0] != 0 && memchr(text.at, 0, text.len) != NULL)
        return err_set(at, ERR_INPUT, "%s: %s is not PEM", source.setting, source.name);
    return pool_copy(pool, text, out_text); /* with a NUL behind it */
}

static err read_variable(struct source source, struct pool *pool, struct slice *out_text, struct err_at *at)
{
    const char *text = getenv(source.name);
    if (text == NULL && source.bytes_min == 0)
        return OK;
    if (text == NULL)
        return err_set(at, ERR_INPUT, "%s: %s is not set in the environment", source.setting, source.name);
    TRY(check_secret(&source, slice_str(text), at));
    return pool_copy(pool, slice_str(text), out_text);
}

static err read_environment(struct pool *pool, struct secrets *secrets, struct err_at *at)
{
    static const char setting[] = "blob.s3.credentials";
    TRY(read_variable((struct source){ setting, "AWS_ACCESS_KEY_ID", 1 }, pool, &secrets->s3_access_key, at));
    TRY(read_variable((struct source){ setting, "AWS_SECRET_ACCESS_KEY", 1 }, pool, &secrets->s3_secret_key,
                      at));
    return read_variable((struct source){ setting, "AWS_SESSION_TOKEN", 0 }, pool, &secrets->s3_session_token,
                         at);
}

static err read_certificates(const struct config_kafka *k, struct slice directory, struct io *io,
                             struct pool *pool, struct secrets *secrets, struct err_at *at)
{
    const struct source ca = { .setting = "log.kafka.tls.ca_file", .name = k->ca_file };
    const struct source cert = { .setting = "log.kafka.tls.cert_file", .name = k->cert_file };
    const struct source key = { .setting = "log.kafka.tls.key_file", .name = k->key_file };
    TRY(read_pem(ca, directory, io, pool, &secrets->kafka_ca, at));
    TRY(read_pem(cert, directory, io, pool, &secrets->kafka_cert, at));
    return read_pem(key, directory, io, pool, &secrets->kafka_key, at);
}

static err resolve_absolute(const struct source *source, struct slice directory, struct io *io,
                            struct pool *pool, struct slice *out_path, struct err_at *at)
{
    char absolute[IO_PATH_BYTES_MAX];
    struct slice path = { 0 };
    TRY(resolve(source, directory, pool, &path, at));
    if (path.len == 0)
        return OK;
    err e = io_path_absolute(io, (const char *)path.at, absolute);
    if (e != OK)
        return err_set(at, ERR_INPUT, "%s: the path of %s cannot be made absolute: %s", source->setting,
                       source->name, err_text(e));
    return pool_copy(pool, slice_str(absolute), out_path);
}

static err resolve_paths(const struct config_cluster *c, struct slice directory, struct io *io,
                         struct pool *pool, struct secrets *secrets, struct err_at *at)
{
    const struct source ca = { .setting = "cluster.ca_file", .name = c->ca_file };
    const struct source s3_ca = { .setting = "blob.s3.ca_file", .name = c->s3.ca_file };
    const struct source credentials = { .setting = "blob.s3.credentials_file",
                                        .name = c->s3.credentials_file };
    TRY(resolve_absolute(&ca, directory, io, pool, &secrets->cluster_ca_file, at));
    TRY(resolve_absolute(&s3_ca, directory, io, pool, &secrets->s3_ca_file, at));
    return resolve_absolute(&credentials, directory, io, pool, &secrets->s3_credentials_file, at);
}

err secrets_read(const struct config *config, struct slice directory, struct io *io, struct pool *pool,
                 struct secrets *out_secrets, struct err_at *at)
{
    const struct config_cluster *c = &config->cluster;
    const struct source cluster = { "cluster.secret_file", c->secret_file, SECRET_CLUSTER_BYTES_MIN };
    const struct source password = { "log.kafka.sasl.password_file", c->kafka.password_file, 1 };
    const struct source key = { "blob.s3.secret_key_file", c->s3.secret_key_file, 1 };
    struct secrets secrets = { 0 };
    if (c->is_given) {
        TRY(read_file(cluster, directory, io, pool, &secrets.cluster, at));
        TRY(read_file(password, directory, io, pool, &secrets.kafka_password, at));
        TRY(read_file(key, directory, io, pool, &secrets.s3_secret_key, at));
        if (c->s3.access_key[0] != 0)
            TRY(pool_copy(pool, slice_str(c->s3.access_key), &secrets.s3_access_key));
        if (c->s3.credentials == CONFIG_CREDENTIALS_ENVIRONMENT)
            TRY(read_environment(pool, &secrets, at));
        TRY(read_certificates(&c->kafka, directory, io, pool, &secrets, at));
        TRY(resolve_paths(c, directory, io, pool, &secrets, at));
    }
    *out_secrets = secrets;
    return OK;
}

err secrets_copy(const struct secrets *secrets, struct pool *pool, struct secrets *out_copy)
{
    const struct slice *from = (const struct slice *)secrets;
    struct slice *to = (struct slice *)out_copy;
    _Static_assert(sizeof *secrets == 11 * sizeof *from, "slices alone");
    for (size_t i = 0; i < sizeof *secrets / sizeof *from; i++) {
        to[i] = slice_of(NULL, 0);
        if (from[i].len > 0)
            TRY(pool_copy(pool, from[i], &to[i]));
    }
    return OK;
}
