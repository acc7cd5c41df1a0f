/* YAML for configuration: text → a small tree in a pool, every node with its line and column.
 *
 * A strict subset: one document, maps with unique scalar keys, no anchors, aliases or tags. Reading marks
 * keys as used, so that yaml_map_end can name the first key nobody asked for:
 *
 *     TRY(yaml_map_begin(node, at));
 *     TRY(yaml_get_string(node, "job_name", &job->name, at));      absent: unchanged, so defaults stay
 *     TRY(yaml_get_duration(node, "scrape_interval", &job->interval_ms, at));
 *     TRY(yaml_map_end(node, at));                                 "line 7 column 3: unknown key …"
 *
 * The text in err_at always begins with "line L column C: ". Slices are in the pool given to yaml_parse,
 * NUL-terminated behind their length. */
#ifndef MODEL_YAML_H
#define MODEL_YAML_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

#define YAML_BYTES_MAX      (64u << 20) /* of a document */
#define YAML_DEPTH_MAX      64
#define YAML_NODE_COUNT_MAX (4u << 20)

enum yaml_type { YAML_SCALAR, YAML_SEQUENCE, YAML_MAP };

struct yaml_node;
struct yaml_document;

struct yaml_pair {
    struct yaml_node *key; /* a scalar */
    struct yaml_node *value;
    bool is_used;
};

struct yaml_node {
    enum yaml_type type;
    bool is_plain;           /* scalar without quotes, not a block: may be null, bool, number */
    uint32_t line, column;   /* from 1 */
    struct slice text;       /* scalar */
    struct yaml_pair *pairs; /* map */
    size_t count;
    union {
        struct yaml_node **items;       /* sequence */
        struct yaml_document *document; /* map, for yaml_get */
    };
};

/* Parse one document. An empty text gives an empty map. JSON is accepted too, being YAML.
 * Errors ERR_INPUT with position and reason; ERR_LIMIT too large, too deep, too many nodes or the pool. */
err yaml_parse(struct slice text, struct pool *pool, struct yaml_node **out_root, struct err_at *at);

/* Plain empty, "~" or "null". */
bool yaml_is_null(const struct yaml_node *node);

/* Fill at with "line L column C: …" of this node and return e. */
err yaml_error(const struct yaml_node *node, err e, struct err_at *at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- one node; ERR_INPUT with position when it is something else ---- */
err yaml_string(const struct yaml_node *node, struct slice *out_text, struct err_at *at);
/* true, false, yes, no, on, off */
err yaml_bool(const struct yaml_node *node, bool *out_v, struct err_at *at);
err yaml_int(const struct yaml_node *node, int64_t min, int64_t max, int64_t *out_v, struct err_at *at);
err yaml_double(const struct yaml_node *node, double *out_v, struct err_at *at);
/* "1h30m", "15s", "100ms", "0" */
err yaml_duration(const struct yaml_node *node, int64_t *out_ms, struct err_at *at);
/* 512MB, 1KiB, 10 ; powers of 1024 */
err yaml_bytes(const struct yaml_node *node, uint64_t *out_bytes, struct err_at *at);
/* "50%" or 0.5 → 0.5 */
err yaml_percent(const struct yaml_node *node, double *out_fraction, struct err_at *at);

/* Prometheus' duration grammar on bare text: [Ny][Nw][Nd][Nh][Nm][Ns][Nms], or 0. False: malformed or
 * overflow. */
bool yaml_duration_parse(struct slice text, int64_t *out_ms);

/* ---- maps ---- */
err yaml_map_begin(struct yaml_node *node, struct err_at *at); /* is it a map? a null counts as empty */
/* Marks the key used, or keeps an absent one to suggest it: `key` stays valid until yaml_map_end, and one thread
 * at a time reads a tree so. NULL: absent. */
struct yaml_node *yaml_get(struct yaml_node *map, const char *key);
err yaml_map_end(struct yaml_node *map, struct err_at *at); /* ERR_INPUT: unknown key */
/* The value, and nothing is marked: for those who look at a tree that others have read. NULL: absent. */
struct yaml_node *yaml_find(const struct yaml_node *map, const char *key);

/* Absent keys and nulls leave *out unchanged. */
err yaml_get_string(struct yaml_node *map, const char *key, struct slice *out_text, struct err_at *at);
err yaml_get_bool(struct yaml_node *map, const char *key, bool *out_v, struct err_at *at);
err yaml_get_int(struct yaml_node *map, const char *key, int64_t min, int64_t max, int64_t *out_v,
                 struct err_at *at);
err yaml_get_double(struct yaml_node *map, const char *key, double *out_v, struct err_at *at);
err yaml_get_duration(struct yaml_node *map, const char *key, int64_t *out_ms, struct err_at *at);
err yaml_get_bytes(struct yaml_node *map, const char *key, uint64_t *out_bytes, struct err_at *at);
err yaml_get_percent(struct yaml_node *map, const char *key, double *out_fraction, struct err_at *at);

/* A sequence (or absent/null: count 0). *out_items borrowed from the tree. */
err yaml_get_sequence(struct yaml_node *map, const char *key, struct yaml_node ***out_items,
                      size_t *out_count, struct err_at *at);

/* A sub-map, NULL when absent or null. ERR_INPUT: not a map. Already begun. */
err yaml_get_map(struct yaml_node *map, const char *key, struct yaml_node **out_map, struct err_at *at);

/* A string that must be one of names[0 … count): *out_index unchanged when absent. */
err yaml_get_enum(struct yaml_node *map, const char *key, const char *const *names, size_t count,
                  size_t *out_index, struct err_at *at);

#endif
