/* Credentials: users with bcrypt hashes and bearer tokens. From: the web configuration file, read by node/.
 * To: the server, which asks once per request.
 *
 *   Basic   digest(user, password) ─ known? → verdict          Bearer   digest(token) ─ equal to one? → verdict
 *                 ├ being compared or waiting ─→ wait for that verdict
 *                 └ no ─ in the queue, if there is room ─ bcrypt (one at a time) → remember
 *
 * Invariants
 * 1. Secrets are compared as SHA-256 digests keyed with 32 random bytes of this object, over their whole
 *    length and over all candidates, so that time tells nothing about them.
 * 2. Neither a password nor a token is kept; a bearer token only as such a digest.
 * 3. At most one bcrypt runs at a time: guessing costs the guesser, not all cores. At most
 *    NET_PASSWORDS_WAITING_MAX pairs wait for it, each once however many requests bring it: guessing does not take
 *    all connections.
 * 4. Every unknown pair costs one bcrypt, whether the user exists or not.
 * 5. What is remembered of wrong pairs never displaces a password that was found good. */
#include "net/web_config.h"

#include <crypt.h>
#include <inttypes.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/sha256.h"
#include "base/stat.h"
#include "io/io.h"
#include "io/thread.h"

#define KEY_BYTES          32
#define PASSWORD_BYTES_MAX 1024 /* bcrypt itself looks at 72 */
#define BCRYPT_TEXT_BYTES  60

struct user {
    struct slice name;
    char bcrypt[BCRYPT_TEXT_BYTES + 1];
    uint8_t good[SHA256_BYTES]; /* digest of the pair that was found good last; under auth's lock */
    bool has_good;
};

struct net_auth {
    struct pool *pool;
    uint8_t key[KEY_BYTES];
    struct user *users;
    size_t user_count;
    uint8_t (*token_digests)[SHA256_BYTES];
    size_t token_count;
    struct io_mutex lock;   /* of all below and of the users' good; never held during a bcrypt */
    struct io_cond changed; /* a verdict was found */
    uint8_t wrong[NET_WRONG_PAIRS_MAX][SHA256_BYTES];
    uint64_t wrong_count; /* ever: the oldest is replaced */
    /* Pairs whose verdict is awaited, by ticket; that of first_ticket is being compared. */
    uint8_t waiting[NET_PASSWORDS_WAITING_MAX][SHA256_BYTES];
    uint64_t first_ticket, next_ticket;
};

struct net_web_config net_web_config_default(void)
{
    return (struct net_web_config){ .tls_min = NET_TLS_1_2, .tls_max = NET_TLS_1_3 };
}

/* "$2y$10$" and 53 characters of salt and hash. */
static bool is_bcrypt(struct slice s)
{
    if (s.len != BCRYPT_TEXT_BYTES || memcmp(s.at, "$2", 2) != 0 || memchr("aby", s.at[2], 3) == NULL ||
        s.at[3] != '$' || s.at[6] != '$')
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.at[i] <= ' ' || s.at[i] > '~' || s.at[i] == ':')
            return false;
    }
    int cost = (s.at[4] - '0') * 10 + (s.at[5] - '0');
    return cost >= 4 && cost <= 18; /* beyond 18 a single check takes minutes */
}

static err check_credentials(const struct net_web_config *config, struct err_at *at)
{
    if (config->user_count > NET_USERS_MAX)
        return err_set(at, ERR_LIMIT, "more than %d users", NET_USERS_MAX);
    if (config->token_count > NET_TOKENS_MAX)
        return err_set(at, ERR_LIMIT, "more than %d bearer tokens", NET_TOKENS_MAX);
    for (size_t i = 0; i < config->user_count; i++) {
        const struct net_user *user = &config->users[i];
        if (user->name.len == 0 || memchr(user->name.at, ':', user->name.len) != NULL)
            return err_set(at, ERR_INPUT, "a user name is empty or has a colon");
        if (!is_bcrypt(user->bcrypt))
            return err_set(at, ERR_INPUT,
                           "the password of user \"%.*s\" is not a bcrypt hash of cost 4 to 18",
                           SLICE_ARG(user->name));
    }
    for (size_t i = 0; i < config->token_count; i++) {
        if (config->tokens[i].len == 0 || config->tokens[i].len > NET_TOKEN_BYTES_MAX)
            return err_set(at, ERR_INPUT, "a bearer token is empty or longer than %d bytes",
                           NET_TOKEN_BYTES_MAX);
    }
    return OK;
}

err net_web_config_check(const struct net_web_config *config, struct err_at *at)
{
    bool is_tls = config->cert_file.len > 0;
    if (is_tls != (config->key_file.len > 0))
        return err_set(at, ERR_INPUT, "cert_file and key_file are needed together");
    if (!is_tls && (config->client_auth != NET_CLIENT_AUTH_NONE || config->client_ca_file.len > 0))
        return err_set(at, ERR_INPUT, "client certificates need cert_file and key_file");
    bool verifies =
        config->client_auth == NET_CLIENT_AUTH_VERIFY || config->client_auth == NET_CLIENT_AUTH_VERIFY_GIVEN;
    if (verifies && config->client_ca_file.len == 0)
        return err_set(at, ERR_INPUT, "verifying client certificates needs client_ca_file");
    if (!verifies && config->client_ca_file.len > 0)
        return err_set(at, ERR_INPUT, "client_ca_file needs a client_auth_type that verifies");
    if (config->tls_min > config->tls_max)
        return err_set(at, ERR_INPUT, "min_version is above max_version");
    return check_credentials(config, at);
}

static void digest_of(const struct net_auth *auth, struct slice a, struct slice b, uint8_t out[SHA256_BYTES])
{
    uint8_t len[8];
    put_le64(len, a.len);
    struct sha256 *state = sha256_open();
    sha256_add(state, slice_of(auth->key, KEY_BYTES));
    sha256_add(state, slice_of(len, sizeof len));
    sha256_add(state, a);
    sha256_add(state, b);
    sha256_finish(state, out);
}

static bool digests_equal(const uint8_t a[SHA256_BYTES], const uint8_t b[SHA256_BYTES])
{
    uint8_t difference = 0;
    for (size_t i = 0; i < SHA256_BYTES; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

err net_auth_open(struct io *io, struct pool *pool, const struct net_web_config *config,
                  struct net_auth **out_auth)
{
    struct pool *own = pool_open(pool, "net_auth", POOL_BYTES_UNLIMITED);
    struct net_auth *auth;
    err e = pool_zalloc(own, sizeof *auth, (void **)&auth);
    if (e == OK)
        e = pool_zalloc(own, (config->user_count + 1) * sizeof *auth->users, (void **)&auth->users);
    if (e == OK)
        e = pool_alloc(own, (config->token_count + 1) * SHA256_BYTES, (void **)&auth->token_digests);
    if (e != OK)
        goto out;
    auth->pool = own;
    io_random(io, auth->key, KEY_BYTES);
    for (size_t i = 0; i < config->user_count; i++) {
        check(config->users[i].bcrypt.len == BCRYPT_TEXT_BYTES); /* net_web_config_check was asked */
        TRY_OUT(pool_copy(own, config->users[i].name, &auth->users[i].name));
        memcpy(auth->users[i].bcrypt, config->users[i].bcrypt.at, BCRYPT_TEXT_BYTES);
    }
    auth->user_count = config->user_count;
    for (size_t i = 0; i < config->token_count; i++)
        digest_of(auth, slice_of("", 0), config->tokens[i], auth->token_digests[i]);
    auth->token_count = config->token_count;
    io_mutex_init(&auth->lock);
    io_cond_init(&auth->changed);
    *out_auth = auth;
    return OK;
out:
    pool_close(own);
    return e;
}

void net_auth_close(struct net_auth *auth)
{
    if (auth == NULL)
        return;
    io_cond_done(&auth->changed);
    io_mutex_done(&auth->lock);
    pool_close(auth->pool);
}

bool net_auth_needed(const struct net_auth *auth) { return auth->user_count > 0 || auth->token_count > 0; }

/* ---- passwords ---- */

/* Is the pair's verdict known? ERR_NOT_FOUND: no; ERR_DENIED: it is wrong; OK: whose it is. Under the lock. */
static err known_verdict(const struct net_auth *auth, const uint8_t digest[SHA256_BYTES], size_t *out_user)
{
    err e = ERR_NOT_FOUND;
    uint64_t count = auth->wrong_count < NET_WRONG_PAIRS_MAX ? auth->wrong_count : NET_WRONG_PAIRS_MAX;
    for (size_t i = 0; i < count; i++) {
        if (digests_equal(auth->wrong[i], digest))
            e = ERR_DENIED;
    }
    for (size_t i = 0; i < auth->user_count; i++) {
        if (auth->users[i].has_good && digests_equal(auth->users[i].good, digest)) {
            *out_user = i;
            e = OK;
        }
    }
    return e;
}

/* Does another request wait for this pair's verdict? Under the lock. */
static bool is_awaited(const struct net_auth *auth, const uint8_t digest[SHA256_BYTES])
{
    bool found = false;
    for (uint64_t ticket = auth->first_ticket; ticket < auth->next_ticket; ticket++)
        found |= digests_equal(auth->waiting[ticket % NET_PASSWORDS_WAITING_MAX], digest);
    return found;
}

static bool bcrypt_matches(const char *hash, const char *password)
{
    struct crypt_data data = { 0 };
    const char *made = crypt_rn(password, hash, &data, sizeof data);
    uint8_t difference = made == NULL || strlen(made) != BCRYPT_TEXT_BYTES;
    for (size_t i = 0; made != NULL && difference == 0 && i < BCRYPT_TEXT_BYTES; i++)
        difference |= (uint8_t)(made[i] ^ hash[i]);
    return difference == 0;
}

/* Compare the password with the user's hash, or with somebody's when there is no such user. */
static bool password_matches(const struct net_auth *auth, struct slice name, const char *password,
                             size_t *out_user)
{
    size_t user = auth->user_count;
    for (size_t i = 0; i < auth->user_count; i++) {
        if (slice_equal(auth->users[i].name, name))
            user = i;
    }
    bool exists = user < auth->user_count;
    *out_user = exists ? user : 0;
    stat_add(STAT_NET_PASSWORD_CHECKS, 1);
    return bcrypt_matches(auth->users[*out_user].bcrypt, password) && exists;
}

/* Wait for the turn of this pair, compare, remember. Under the lock, which is given back meanwhile. */
static err find_verdict(struct net_auth *auth, const uint8_t digest[SHA256_BYTES], struct slice name,
                        const char *password, size_t *out_user)
{
    if (auth->next_ticket - auth->first_ticket == NET_PASSWORDS_WAITING_MAX)
        return ERR_BUSY;
    uint64_t ticket = auth->next_ticket++;
    memcpy(auth->waiting[ticket % NET_PASSWORDS_WAITING_MAX], digest, SHA256_BYTES);
    while (auth->first_ticket != ticket)
        io_cond_wait(&auth->changed, &auth->lock);
    io_mutex_unlock(&auth->lock);
    bool is_good = password_matches(auth, name, password, out_user);
    io_mutex_lock(&auth->lock);
    if (is_good) {
        memcpy(auth->users[*out_user].good, digest, SHA256_BYTES);
        auth->users[*out_user].has_good = true;
    } else {
        memcpy(auth->wrong[auth->wrong_count++ % NET_WRONG_PAIRS_MAX], digest, SHA256_BYTES);
    }
    auth->first_ticket++;
    io_cond_broadcast(&auth->changed);
    return is_good ? OK : ERR_DENIED;
}

static err check_basic(struct net_auth *auth, struct slice encoded, struct slice *out_user)
{
    uint8_t text[PASSWORD_BYTES_MAX + 1], digest[SHA256_BYTES];
    size_t user;
    ptrdiff_t len = base64_decode(encoded, text, PASSWORD_BYTES_MAX);
    const uint8_t *colon = len <= 0 ? NULL : memchr(text, ':', (size_t)len);
    if (colon == NULL || auth->user_count == 0 || memchr(text, 0, (size_t)len) != NULL)
        return ERR_DENIED;
    text[len] = 0;
    struct slice name = slice_of(text, (size_t)(colon - text));
    const char *password = (const char *)colon + 1;
    digest_of(auth, name, slice_str(password), digest);
    io_mutex_lock(&auth->lock);
    err e = known_verdict(auth, digest, &user);
    while (e == ERR_NOT_FOUND && is_awaited(auth, digest)) {
        io_cond_wait(&auth->changed, &auth->lock);
        e = known_verdict(auth, digest, &user);
    }
    if (e == ERR_NOT_FOUND)
        e = find_verdict(auth, digest, name, password, &user);
    io_mutex_unlock(&auth->lock);
    explicit_bzero(text, sizeof text);
    if (e == OK)
        *out_user = auth->users[user].name;
    return e;
}

static err check_bearer(struct net_auth *auth, struct slice token, struct slice *out_user)
{
    uint8_t digest[SHA256_BYTES];
    if (token.len == 0 || token.len > NET_TOKEN_BYTES_MAX)
        return ERR_DENIED;
    digest_of(auth, slice_of("", 0), token, digest);
    unsigned matches = 0;
    for (size_t i = 0; i < auth->token_count; i++)
        matches += digests_equal(auth->token_digests[i], digest);
    if (matches == 0)
        return ERR_DENIED;
    *out_user = slice_str("token");
    return OK;
}

err net_auth_check(struct net_auth *auth, struct slice authorization, struct slice *out_user)
{
    size_t len = 0;
    while (len < authorization.len && authorization.at[len] != ' ')
        len++;
    const char *scheme = (const char *)authorization.at;
    size_t rest = len;
    while (rest < authorization.len && authorization.at[rest] == ' ')
        rest++;
    struct slice value = slice_part(authorization, rest, authorization.len - rest);
    if (len == 5 && strncasecmp(scheme, "Basic", 5) == 0)
        return check_basic(auth, value, out_user);
    if (len == 6 && strncasecmp(scheme, "Bearer", 6) == 0)
        return check_bearer(auth, value, out_user);
    return ERR_DENIED;
}
