/* Who signs: access key, secret, session token, from the configuration, a file or the machine's role, and the
 * day's signing key made of them. Secrets never leave this file but as signing keys. */
#ifndef BLOB_S3_CREDENTIALS_H
#define BLOB_S3_CREDENTIALS_H

#include "base/err.h"
#include "blob/blob.h"
#include "blob/s3_sign.h"
#include "blob/s3_transport.h"

#define S3_ACCESS_KEY_BYTES           129
#define S3_SECRET_KEY_BYTES           201
#define S3_SESSION_TOKEN_BYTES        4097
#define S3_CREDENTIALS_FILE_BYTES_MAX (1u << 16)

struct s3_credentials;

struct s3_secret {
    char access_key[S3_ACCESS_KEY_BYTES];
    char secret_key[S3_SECRET_KEY_BYTES];
    char session_token[S3_SESSION_TOKEN_BYTES]; /* "" = none */
    int64_t expires_ms;                         /* Unix ms; INT64_MAX = never */
};

/* What a request needs. */
struct s3_signer {
    char access_key[S3_ACCESS_KEY_BYTES];
    char session_token[S3_SESSION_TOKEN_BYTES];
    struct s3_signing_key key;
    uint64_t number; /* of these credentials, for s3_credentials_refused */
};

/* region and transport are borrowed until close. Nothing is fetched yet. Errors ERR_INPUT with a text,
 * ERR_LIMIT. */
err s3_credentials_open(const struct blob_s3_config *config, const char *region, struct io *io,
                        struct pool *pool, struct s3_transport *transport,
                        struct s3_credentials **out_credentials, struct err_at *at);
void s3_credentials_close(struct s3_credentials *credentials); /* NULL is allowed */

/* The signer for now, whose date is printed too; fetches or renews first where that is due. From any thread.
 * Errors ERR_DENIED there are none (at says why), ERR_TIMEOUT, ERR_IO and ERR_BUSY the metadata service does not
 * answer now, ERR_CANCELED. */
err s3_credentials_get(struct s3_credentials *credentials, char out_date[S3_DATE_BYTES],
                       struct s3_signer *out_signer, struct err_at *at);

/* The store refused what carries `number`: is it worth another try, with credentials fetched anew? */
bool s3_credentials_refused(struct s3_credentials *credentials, uint64_t number);

/* The metadata service's answer (JSON) and a credentials file (INI). Errors ERR_INPUT, ERR_LIMIT; at has no
 * secret. */
err s3_credentials_from_json(struct slice text, struct pool *pool, struct s3_secret *out, struct err_at *at);
err s3_credentials_from_file(struct slice text, const char *profile, struct s3_secret *out,
                             struct err_at *at);

#endif
