/* What a configuration of a cluster names: secrets, in files or in the environment, certificates, and where
 * further files lie. They are in no other struct, and no secret is ever printed, nor any part of one. */
#ifndef NODE_SECRETS_H
#define NODE_SECRETS_H

#include "io/io.h"
#include "node/config.h"

#define SECRET_BYTES_MAX         4096 /* of a file, and of a variable */
#define SECRET_PEM_BYTES_MAX     (1u << 20)
#define SECRET_CLUSTER_BYTES_MIN 16 /* anybody could try all shorter ones */

/* In the pool, NUL-terminated; empty: not named. */
struct secrets {
    struct slice cluster;        /* what nodes of a cluster prove to each other that they know */
    struct slice kafka_password; /* of log.kafka.sasl */
    struct slice s3_access_key, s3_secret_key, s3_session_token;
    struct slice kafka_ca, kafka_cert, kafka_key; /* PEM, as it is in the files */
    /* Absolute paths. */
    struct slice cluster_ca_file, s3_ca_file, s3_credentials_file;
};

/* Read what config.cluster names; nothing if it is not given. Relative names of files are below `directory`
 * ("" = the io's root). A secret's file holds one line. Errors, with the setting's name and the file's in at:
 * ERR_INPUT empty, too long or short, or not printable; a variable is not set; ERR_NOT_FOUND, ERR_DENIED,
 * ERR_CONFLICT (a directory), ERR_IO; ERR_LIMIT. */
err secrets_read(const struct config *config, struct slice directory, struct io *io, struct pool *pool,
                 struct secrets *out_secrets, struct err_at *at);

/* All of it again, in another pool. ERR_LIMIT. */
err secrets_copy(const struct secrets *secrets, struct pool *pool, struct secrets *out_copy);

#endif
