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

/* An empty name: nothing is read. */
static err read_file(struct source source, struct slice directory, struct io *io, struct pool *pool,
                     struct slice *out_text, struct err_at *at)
{
    char path[2 * CONFIG_PATH_BYTES];
    bool is_below = directory.len > 0 && source.name[0] != '/';
    struct slice text;
    if (source.name[0] == 0)
        return OK;
    int len = is_below ? snprintf(path, sizeof path, "%.*s/%s", SLICE_ARG(directory), source.name)
                       : snprintf(path, sizeof path, "%s", source.name);
    if (len < 0 || len >= IO_PATH_BYTES_MAX)
        return err_set(at, ERR_INPUT, "%s: the path of %s is too long", source.setting, source.name);
    err e = io_read_file(io, path, SECRET_BYTES_MAX + 2, pool, &text);
    if (e != OK)
        return err_set(at, e == ERR_LIMIT ? ERR_INPUT : e, "%s: %s cannot be read: %s", source.setting, path,
                       e == ERR_LIMIT ? "larger than 4 KB" : err_text(e));
    if (text.len > 0 && text.at[text.len - 1] == '\n')
        text.len--;
    if (text.len > 0 && text.at[text.len - 1] == '\r')
        text.len--;
    TRY(check_secret(&source, text, at));
    return pool_copy(pool, text, out_text);
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
    }
    *out_secrets = secrets;
    return OK;
}
