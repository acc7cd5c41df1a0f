/* The web configuration file: TLS and credentials of the HTTP server, in Prometheus' format. */
#ifndef NODE_WEB_FILE_H
#define NODE_WEB_FILE_H

#include "base/err.h"
#include "base/pool.h"
#include "io/io.h"
#include "net/web_config.h"

#define WEB_FILE_BYTES_MAX (1u << 20)

/* Read and check. Relative paths in it are relative to its own directory, as in Prometheus; the paths
 * in *out_config are as `io` takes them. Everything lives in pool.
 * Errors ERR_INPUT with line and column, ERR_NOT_FOUND, ERR_IO, ERR_LIMIT. */
err web_file_read(struct io *io, const char *path, struct pool *pool, struct net_web_config *out_config,
                  struct err_at *at);

#endif
