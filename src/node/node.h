/* One running node: everything between the command line and the rooms. */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "base/err.h"
#include "cluster/cluster.h"
#include "io/io.h"
#include "node/config.h"

#include <stdbool.h>
#include <stdint.h>

#define NODE_LISTEN_DEFAULT "127.0.0.1:9428"
#define NODE_DATA_DEFAULT   "data"
#define NODE_DRAIN_MS       5000 /* running requests get this long at a stop, then are canceled */
#define NODE_PARTITIONS_MIN 8
#define NODE_PARTITIONS_MAX 256

struct node_options {
    const char *config_file;     /* NULL = defaults */
    const char *web_config_file; /* NULL = neither TLS nor credentials */
    const char *data_directory;  /* created if missing */
    const char *listen;          /* "HOST:PORT" */
    const char *log_level;       /* NULL = the configuration's */
    const char *log_format;      /* NULL = the configuration's */
    bool is_insecure;            /* an open port without TLS and credentials is wanted */
};

struct node;

/* Read and check the configuration files without starting anything. The reason in at. */
err node_check_config(const struct node_options *options, struct err_at *at);

/* Start everything; the server listens when this returns OK (readiness may come later). After an error
 * nothing runs and nothing is left open. */
err node_open(const struct node_options *options, struct node **out_node, struct err_at *at);

/* Draw the secret of the process for tables in memory (base/hash.h): once, before other threads run. */
void node_secret_draw(struct io *io);

/* The port that is listened on. */
uint16_t node_port(const struct node *node);

/* Read the configuration again: everything that applies live changes, or, with an error, nothing. Any thread. */
err node_reload(struct node *node, struct err_at *at);

/* Housekeeping, about once a second, from one thread. */
void node_step(struct node *node);

/* A node in a cluster that was put out of it, or whose control log cannot be followed any more, has to end:
 * its reason is on standard error. *out_end: how, then. Any thread. */
bool node_has_ended(struct node *node, enum core_end *out_end);

/* Stop accepting, finish or cancel what runs, flush, close. NULL is allowed. */
void node_close(struct node *node);

#endif
