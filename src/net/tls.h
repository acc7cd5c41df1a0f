/* Server certificates, loaded whole, handed to GnuTLS per handshake so that they can be replaced. */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "net/web_config.h"

#include <gnutls/abstract.h>

struct io;
struct tls_cert;

#define TLS_FILE_BYTES_MAX  (1u << 20) /* of a PEM file */
#define TLS_CHAIN_COUNT_MAX 16         /* certificates in a chain */

/* Read a chain and its key. ERR_INPUT malformed or not belonging together, ERR_NOT_FOUND, ERR_LIMIT, ERR_IO;
 * text in at. Lives in pool until close. */
err tls_cert_open(struct io *io, struct pool *pool, struct slice cert_file, struct slice key_file,
                  struct tls_cert **out_cert, struct err_at *at);
void tls_cert_close(struct tls_cert *cert); /* NULL is allowed */

/* What a retrieve function gives to GnuTLS; borrowed. */
void tls_cert_get(struct tls_cert *cert, gnutls_pcert_st **out_chain, unsigned *out_count,
                  gnutls_privkey_t *out_key);

/* Ask the client of a session for a certificate as the mode wants. */
void tls_session_ask(gnutls_session_t session, enum net_client_auth mode);

/* After the handshake: did the client show what the mode wants? ERR_DENIED. */
err tls_session_check(gnutls_session_t session, enum net_client_auth mode);

/* GnuTLS priorities for a range of versions; static text. */
const char *tls_priorities(enum net_tls_version min, enum net_tls_version max);

#endif
