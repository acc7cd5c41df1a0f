/* See exposure.h. Options and configuration in, a refusal out. */
#include "node/exposure.h"

#include <string.h>

/* 127.0.0.0/8 written in digits, [::1], or localhost. */
static bool is_loopback(const char *listen)
{
    const char *colon = strrchr(listen, ':');
    size_t len = colon != NULL ? (size_t)(colon - listen) : strlen(listen);
    struct slice host = slice_of(listen, len);
    bool is_ipv4 = strspn(listen, "0123456789.") == len && slice_starts(host, slice_str("127."));
    return is_ipv4 || slice_equal_str(host, "localhost") || slice_equal_str(host, "[::1]");
}

/* Nobody beyond the machine gets in without being asked who it is, unless that is wanted. */
static err check_open(const struct node_options *options, const struct loaded *loaded, struct err_at *at)
{
    const struct net_web_config *web = &loaded->web;
    bool has_port = strchr(options->listen, ':') != NULL; /* else the listener will refuse it */
    bool is_closed = web->cert_file.len > 0 && (web->user_count > 0 || web->token_count > 0 ||
                                                web->client_auth >= NET_CLIENT_AUTH_VERIFY);
    if (!has_port || is_loopback(options->listen) || is_closed || options->is_insecure)
        return OK;
    return err_set(at, ERR_INPUT,
                   "%s is open to others: give --web.config.file with TLS and credentials, or"
                   " --insecure if that is meant",
                   options->listen);
}

/* What other nodes could not get through. */
static err check_reach(const struct node_options *options, const struct loaded *loaded, struct err_at *at)
{
    if (!loaded->config.cluster.is_given)
        return OK;
    const char *address = loaded->config.cluster.address;
    if (is_loopback(options->listen) && !is_loopback(address))
        return err_set(
            at, ERR_INPUT,
            "the other nodes are to reach this one at %s (cluster.address), and it listens on %s alone: give"
            " --http an address that they can reach",
            address, options->listen);
    if (loaded->has_web && loaded->web.client_auth != NET_CLIENT_AUTH_NONE &&
        loaded->web.client_auth != NET_CLIENT_AUTH_REQUEST &&
        loaded->web.client_auth != NET_CLIENT_AUTH_VERIFY_GIVEN)
        return err_set(
            at, ERR_INPUT,
            "client_auth_type of the web configuration asks for certificates that the other nodes do not"
            " have: their requests are proven by the cluster's secret");
    return OK;
}

err exposure_check(const struct node_options *options, const struct loaded *loaded, struct err_at *at)
{
    TRY(check_open(options, loaded, at));
    return check_reach(options, loaded, at);
}
