/* The configuration files as read: one immutable set, swapped whole by a reload. */
#ifndef NODE_LOADED_H
#define NODE_LOADED_H

#include "ingest/ingest.h"
#include "net/web_config.h"
#include "node/config.h"
#include "node/node.h"
#include "node/secrets.h"
#include "query/query.h"

struct loaded {
    struct pool *pool; /* holds this struct and all below */
    struct config config;
    struct secrets secrets;
    struct net_web_config web;
    bool has_web;
    struct scrape_config *scrape; /* held once */
};

/* Read both files (relative to the working directory, which `io` is rooted at) and check everything that can
 * be checked without starting. ERR_INPUT with file, line and column in at. */
err loaded_read(const struct node_options *options, struct io *io, struct pool *parent,
                struct loaded **out_loaded, struct err_at *at);
void loaded_free(struct loaded *loaded); /* NULL is allowed */

/* What the rooms take, from the configuration. */
struct query_config loaded_query(const struct loaded *loaded);
struct ingest_limits loaded_limits(const struct config_limits *limits);

/* The tenants' limits in pool. */
err loaded_tenants(const struct loaded *loaded, struct pool *pool, struct ingest_tenant_limits **out_tenants,
                   size_t *out_count);

#endif
