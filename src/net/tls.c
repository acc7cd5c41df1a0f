/* GnuTLS objects from PEM files. From: the web configuration's paths. To: handshakes, through the server's
 * retrieve callback.
 *
 * Invariants
 * 1. A tls_cert is immutable once open, and key and certificate belong together: the public keys' ids agree.
 * 2. GnuTLS borrows; whoever hands a tls_cert to a handshake keeps it until the connection is closed. */
#include "net/tls.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "base/check.h"
#include "io/io.h"

#define KEY_ID_BYTES_MAX 64

struct tls_cert {
    struct pool *pool;
    gnutls_pcert_st chain[TLS_CHAIN_COUNT_MAX];
    unsigned count;
    gnutls_privkey_t key;
};

static err read_pem(struct io *io, struct pool *pool, struct slice file, gnutls_datum_t *out,
                    struct err_at *at)
{
    struct slice path, bytes;
    TRY(pool_copy(pool, file, &path));
    err e = io_read_file(io, (const char *)path.at, TLS_FILE_BYTES_MAX, pool, &bytes);
    if (e != OK)
        return err_set(at, e, "%.*s: %s", SLICE_ARG(file), err_text(e));
    *out = (gnutls_datum_t){ .data = (uint8_t *)(uintptr_t)bytes.at, .size = (unsigned)bytes.len };
    return OK;
}

static bool belong_together(struct tls_cert *cert)
{
    uint8_t a[KEY_ID_BYTES_MAX], b[KEY_ID_BYTES_MAX];
    size_t a_len = sizeof a, b_len = sizeof b;
    gnutls_pubkey_t from_key;
    if (gnutls_pubkey_init(&from_key) != 0)
        return false;
    bool same = gnutls_pubkey_import_privkey(from_key, cert->key, 0, 0) == 0 &&
                gnutls_pubkey_get_key_id(from_key, GNUTLS_KEYID_USE_SHA256, a, &a_len) == 0 &&
                gnutls_pubkey_get_key_id(cert->chain[0].pubkey, GNUTLS_KEYID_USE_SHA256, b, &b_len) == 0 &&
                a_len == b_len && memcmp(a, b, a_len) == 0;
    gnutls_pubkey_deinit(from_key);
    return same;
}

err tls_cert_open(struct io *io, struct pool *pool, struct slice cert_file, struct slice key_file,
                  struct tls_cert **out_cert, struct err_at *at)
{
    struct pool *scratch = pool_open(pool, "tls_pem", POOL_BYTES_UNLIMITED);
    struct tls_cert *cert = NULL;
    gnutls_datum_t cert_pem, key_pem = { 0 };
    err e = OK;
    TRY_OUT(read_pem(io, scratch, cert_file, &cert_pem, at));
    TRY_OUT(read_pem(io, scratch, key_file, &key_pem, at));
    TRY_OUT(pool_block_resize(pool, (void **)&cert, sizeof *cert));
    *cert = (struct tls_cert){ .pool = pool };
    unsigned count = TLS_CHAIN_COUNT_MAX;
    int result = gnutls_pcert_list_import_x509_raw(cert->chain, &count, &cert_pem, GNUTLS_X509_FMT_PEM,
                                                   GNUTLS_X509_CRT_LIST_FAIL_IF_UNSORTED);
    if (result < 0 || count == 0)
        TRY_OUT(err_set(at, ERR_INPUT, "%.*s: %s", SLICE_ARG(cert_file), gnutls_strerror(result)));
    cert->count = count;
    result = gnutls_privkey_init(&cert->key);
    if (result == 0)
        result = gnutls_privkey_import_x509_raw(cert->key, &key_pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (result != 0)
        TRY_OUT(err_set(at, ERR_INPUT, "%.*s: %s", SLICE_ARG(key_file), gnutls_strerror(result)));
    if (!belong_together(cert))
        TRY_OUT(
            err_set(at, ERR_INPUT, "%.*s is not the key of %.*s", SLICE_ARG(key_file), SLICE_ARG(cert_file)));
    *out_cert = cert;
out:
    if (e != OK)
        tls_cert_close(cert);
    if (key_pem.data != NULL)
        explicit_bzero(key_pem.data, key_pem.size);
    pool_close(scratch);
    return e;
}

void tls_cert_close(struct tls_cert *cert)
{
    if (cert == NULL)
        return;
    for (unsigned i = 0; i < cert->count; i++)
        gnutls_pcert_deinit(&cert->chain[i]);
    if (cert->key != NULL)
        gnutls_privkey_deinit(cert->key);
    pool_block_free(cert->pool, cert);
}

void tls_cert_get(struct tls_cert *cert, gnutls_pcert_st **out_chain, unsigned *out_count,
                  gnutls_privkey_t *out_key)
{
    *out_chain = cert->chain;
    *out_count = cert->count;
    *out_key = cert->key;
}

void tls_session_ask(gnutls_session_t session, enum net_client_auth mode)
{
    gnutls_certificate_server_set_request(session,
                                          mode == NET_CLIENT_AUTH_NONE ? GNUTLS_CERT_IGNORE
                                          : mode == NET_CLIENT_AUTH_REQUIRE || mode == NET_CLIENT_AUTH_VERIFY
                                              ? GNUTLS_CERT_REQUIRE
                                              : GNUTLS_CERT_REQUEST);
}

err tls_session_check(gnutls_session_t session, enum net_client_auth mode)
{
    unsigned count = 0, status = 0;
    if (mode == NET_CLIENT_AUTH_NONE || mode == NET_CLIENT_AUTH_REQUEST)
        return OK;
    bool is_given = gnutls_certificate_get_peers(session, &count) != NULL && count > 0;
    if (!is_given)
        return mode == NET_CLIENT_AUTH_VERIFY_GIVEN ? OK : ERR_DENIED;
    if (mode == NET_CLIENT_AUTH_REQUIRE)
        return OK;
    return gnutls_certificate_verify_peers2(session, &status) == 0 && status == 0 ? OK : ERR_DENIED;
}

const char *tls_priorities(enum net_tls_version min, enum net_tls_version max)
{
    static const char *const table[4][4] = {
        /* [min][max] */
        { "NORMAL:-VERS-ALL:+VERS-TLS1.0", "NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0",
          "NORMAL:-VERS-ALL:+VERS-TLS1.2:+VERS-TLS1.1:+VERS-TLS1.0",
          "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:+VERS-TLS1.1:+VERS-TLS1.0" },
        { NULL, "NORMAL:-VERS-ALL:+VERS-TLS1.1", "NORMAL:-VERS-ALL:+VERS-TLS1.2:+VERS-TLS1.1",
          "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:+VERS-TLS1.1" },
        { NULL, NULL, "NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2" },
        { NULL, NULL, NULL, "NORMAL:-VERS-ALL:+VERS-TLS1.3" },
    };
    check(min <= max);
    return table[min][max];
}
