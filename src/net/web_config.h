/* Who may talk to the server and how: TLS settings and credentials, as Prometheus' web configuration
 * has them (https://prometheus.io/docs/prometheus/latest/configuration/https/), plus bearer tokens.
 *
 * node/web_file.c reads the YAML file and fills struct net_web_config; the server keeps its own
 * immutable copy, so a reload swaps the whole of it or nothing.
 *
 * Passwords are bcrypt hashes ($2a$, $2b$, $2y$). A bcrypt check costs tens of milliseconds on purpose,
 * so verdicts are remembered under a keyed digest of (user, password), never the password: of each user the last
 * good one, and the last wrong ones. */
#ifndef NET_WEB_CONFIG_H
#define NET_WEB_CONFIG_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>

struct io;

#define NET_USERS_MAX             1024 /* basic_auth_users */
#define NET_TOKENS_MAX            1024 /* bearer_tokens */
#define NET_TOKEN_BYTES_MAX       4096
#define NET_WRONG_PAIRS_MAX       256 /* wrong (user, password) remembered; the oldest is replaced */
#define NET_PASSWORDS_WAITING_MAX 16  /* different pairs compared or waiting for it: some 1 s at cost 10 */

enum net_client_auth {                               /* Go's tls.ClientAuthType names */
                       NET_CLIENT_AUTH_NONE,         /* NoClientCert */
                       NET_CLIENT_AUTH_REQUEST,      /* RequestClientCert: asked for, not looked at */
                       NET_CLIENT_AUTH_REQUIRE,      /* RequireAnyClientCert: any certificate */
                       NET_CLIENT_AUTH_VERIFY_GIVEN, /* VerifyClientCertIfGiven */
                       NET_CLIENT_AUTH_VERIFY,       /* RequireAndVerifyClientCert */
};

enum net_tls_version { NET_TLS_1_0, NET_TLS_1_1, NET_TLS_1_2, NET_TLS_1_3 };

struct net_user {
    struct slice name;
    struct slice bcrypt; /* "$2y$10$…" */
};

/* Paths are as io/ takes them. Everything is borrowed during net_server_open / net_server_reload only. */
struct net_web_config {
    struct slice cert_file;      /* PEM, chain; empty = no TLS */
    struct slice key_file;       /* PEM */
    struct slice client_ca_file; /* PEM; needed by the two VERIFY modes */
    enum net_client_auth client_auth;
    enum net_tls_version tls_min, tls_max; /* default 1.2 … 1.3 */
    const struct net_user *users;
    size_t user_count;
    const struct slice *tokens; /* bearer_tokens, in clear */
    size_t token_count;
};

/* No TLS, no credentials. */
struct net_web_config net_web_config_default(void);

/* Are the values possible together? ERR_INPUT: a cert without a key, VERIFY without a CA, a hash that is
 * not bcrypt, an empty token, …; ERR_LIMIT: too many. Reads no files. */
err net_web_config_check(const struct net_web_config *config, struct err_at *at);

/* ---- credentials, used by the server; any thread ---- */

struct net_auth;

/* Copy users and tokens. Everything lives in a child of pool. ERR_LIMIT. */
err net_auth_open(struct io *io, struct pool *pool, const struct net_web_config *config,
                  struct net_auth **out_auth);
void net_auth_close(struct net_auth *auth);

/* Are there any users or tokens, that is, must a request carry credentials? */
bool net_auth_needed(const struct net_auth *auth);

/* Check the value of an Authorization header ("Basic …" or "Bearer …").
 * *out_user is the user's name, or "token" for a bearer token; it lives as long as auth.
 * Errors ERR_DENIED; ERR_BUSY too many other passwords wait, nothing was compared. Cost for an unknown (user,
 * password) one bcrypt and up to NET_PASSWORDS_WAITING_MAX others before it, else below 10 µs; an unknown
 * user costs a bcrypt too, so that timing does not tell which names exist. */
err net_auth_check(struct net_auth *auth, struct slice authorization, struct slice *out_user);

#endif
