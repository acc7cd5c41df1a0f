/* Reading the web configuration file. See web_file.h.
 *
 * Source: prometheus/exporter-toolkit docs/web-configuration.md. Understood: tls_server_config (cert_file,
 * key_file, client_auth_type, client_ca_file, min_version, max_version), basic_auth_users, and bearer_tokens,
 * which is ours. Cipher lists and HTTP/2 settings are refused as unknown keys rather than silently ignored. */
#include "node/web_file.h"

#include "model/yaml.h"

#include <string.h>

static const char *const auth_names[] = { "NoClientCert", "RequestClientCert", "RequireAnyClientCert",
                                          "VerifyClientCertIfGiven", "RequireAndVerifyClientCert" };
static const char *const tls_names[] = { "TLS10", "TLS11", "TLS12", "TLS13" };

/* A file named in the configuration, seen from its directory. */
static err read_path(struct yaml_node *map, const char *key, const char *config_path, struct pool *pool,
                     struct slice *out_path, struct err_at *at)
{
    struct slice name = { 0 };
    TRY(yaml_get_string(map, key, &name, at));
    if (name.len == 0)
        return OK;
    const char *slash = strrchr(config_path, '/');
    size_t directory_len = slash != NULL && name.at[0] != '/' ? (size_t)(slash - config_path) + 1 : 0;
    void *room;
    TRY(pool_alloc(pool, directory_len + name.len + 1, &room));
    char *path = room;
    memcpy(path, config_path, directory_len);
    memcpy(path + directory_len, name.at, name.len);
    path[directory_len + name.len] = 0;
    *out_path = slice_of(path, directory_len + name.len);
    return OK;
}

static err read_tls(struct yaml_node *map, const char *config_path, struct pool *pool,
                    struct net_web_config *config, struct err_at *at)
{
    size_t auth = config->client_auth, min = config->tls_min, max = config->tls_max;
    TRY(read_path(map, "cert_file", config_path, pool, &config->cert_file, at));
    TRY(read_path(map, "key_file", config_path, pool, &config->key_file, at));
    TRY(read_path(map, "client_ca_file", config_path, pool, &config->client_ca_file, at));
    TRY(yaml_get_enum(map, "client_auth_type", auth_names, 5, &auth, at));
    TRY(yaml_get_enum(map, "min_version", tls_names, 4, &min, at));
    TRY(yaml_get_enum(map, "max_version", tls_names, 4, &max, at));
    config->client_auth = (enum net_client_auth)auth;
    config->tls_min = (enum net_tls_version)min;
    config->tls_max = (enum net_tls_version)max;
    return yaml_map_end(map, at);
}

static err read_users(struct yaml_node *map, struct pool *pool, struct net_web_config *config,
                      struct err_at *at)
{
    void *room;
    TRY(pool_zalloc(pool, (map->count + 1) * sizeof(struct net_user), &room));
    struct net_user *users = room;
    for (size_t i = 0; i < map->count; i++) {
        map->pairs[i].is_used = true;
        users[i].name = map->pairs[i].key->text;
        TRY(yaml_string(map->pairs[i].value, &users[i].bcrypt, at));
    }
    config->users = users;
    config->user_count = map->count;
    return OK;
}

static err read_tokens(struct yaml_node *root, struct pool *pool, struct net_web_config *config,
                       struct err_at *at)
{
    struct yaml_node **items;
    size_t count;
    void *room;
    TRY(yaml_get_sequence(root, "bearer_tokens", &items, &count, at));
    TRY(pool_zalloc(pool, (count + 1) * sizeof(struct slice), &room));
    struct slice *tokens = room;
    for (size_t i = 0; i < count; i++)
        TRY(yaml_string(items[i], &tokens[i], at));
    config->tokens = tokens;
    config->token_count = count;
    return OK;
}

err web_file_read(struct io *io, const char *path, struct pool *pool, struct net_web_config *out_config,
                  struct err_at *at)
{
    struct slice text;
    struct yaml_node *root, *tls, *users;
    struct net_web_config config = net_web_config_default();
    err e = io_read_file(io, path, WEB_FILE_BYTES_MAX, pool, &text);
    if (e != OK)
        return err_set(at, e, "cannot be read: %s", e == ERR_LIMIT ? "larger than 1 MB" : err_text(e));
    TRY(yaml_parse(text, pool, &root, at));
    TRY(yaml_map_begin(root, at));
    TRY(yaml_get_map(root, "tls_server_config", &tls, at));
    if (tls != NULL)
        TRY(read_tls(tls, path, pool, &config, at));
    TRY(yaml_get_map(root, "basic_auth_users", &users, at));
    if (users != NULL)
        TRY(read_users(users, pool, &config, at));
    TRY(read_tokens(root, pool, &config, at));
    TRY(yaml_map_end(root, at));
    TRY(net_web_config_check(&config, at));
    *out_config = config;
    return OK;
}
