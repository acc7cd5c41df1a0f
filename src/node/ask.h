/* One question over HTTP to a running node: what the commands that ask have in common. */
#ifndef NODE_ASK_H
#define NODE_ASK_H

#include "base/pool.h"
#include "base/slice.h"
#include "model/yaml.h"
#include "node/node.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The node that is asked, and how. */
struct ask_whom {
    const char *url; /* without a path */
    const char *user, *password, *ca_file;
};

#define ASK_WHOM_DEFAULT                     \
    {                                        \
        .url = "http://" NODE_LISTEN_DEFAULT \
    }

/* Rows of a command's options that fill a struct ask_whom. */
#define ASK_OPTIONS(whom)                                                                            \
    { "--url", "URL", "of the node (default: http://" NODE_LISTEN_DEFAULT ")", &(whom)->url, NULL }, \
        { "--user", "NAME", "for basic authentication", &(whom)->user, NULL },                       \
        { "--password", "TEXT", "for basic authentication", &(whom)->password, NULL },               \
    {                                                                                                \
        "--ca-file", "FILE", "certificate authority of the node", &(whom)->ca_file, NULL             \
    }

struct ask_question {
    const char *command; /* that asks: it begins what is reported */
    const char *path;    /* "/api/v1/…" */
    struct slice form;   /* body, already encoded; empty: none */
    const char *tenant;  /* NULL: none named */
    size_t answer_bytes_max;
    int64_t timeout_ms;
};

/* POST and wait. The answer's body is in the pool, until that is closed. False: there is no answer, which was
 * reported on standard error. */
bool ask_post(const struct ask_whom *whom, const struct ask_question *question, struct pool *pool,
              unsigned *out_status, struct slice *out_body);

/* ---- its JSON, read with the YAML parser, of which JSON is a subset ---- */

/* `data` of an answer, in the pool. NULL: it has none, or is no JSON, which was reported with the command's
 * name. */
const struct yaml_node *ask_data(const char *command, struct slice body, struct pool *pool);
/* A member of a map; NULL if it has none, or is no map, or NULL. */
const struct yaml_node *ask_find(const struct yaml_node *map, const char *key);
/* … its text, "?" where there is none, … */
struct slice ask_text(const struct yaml_node *map, const char *key);
/* … or it, if it is a list; else NULL. */
const struct yaml_node *ask_list(const struct yaml_node *map, const char *key);

#endif
